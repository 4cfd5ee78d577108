"""Train classifiers with PyTorch Lightning and measure, at every validation end, how good their explanations are."""

from lightning_xai._version import __version__
from lightning_xai.evaluation import Evaluation, evaluate, explain
from lightning_xai.explainers import (
    Gradient,
    InputXGradient,
    IntegratedGradients,
    PerturbWeights,
    Saliency,
    Smooth,
    adapt_grad,
    fusion_grad,
    noise_grad,
    smooth_grad,
)
from lightning_xai.explainers.bounds import bounds

__all__ = [
    "Evaluation",
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    "PerturbWeights",
    "Saliency",
    "Smooth",
    "__version__",
    "adapt_grad",
    "bounds",
    "evaluate",
    "explain",
    "fusion_grad",
    "noise_grad",
    "smooth_grad",
]
