"""Attribution methods: frozen dataclasses that compose; model, inputs and target are arguments, never fields."""

from lightning_xai.explainers.base import Context, Explainer
from lightning_xai.explainers.captum import (
    CaptumExplainer,
    grad_cam,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
)
from lightning_xai.explainers.controls import InputAttribution, RandomAttribution, SobelEdges, with_controls
from lightning_xai.explainers.cost import with_gradients
from lightning_xai.explainers.gradient import Gradient, InputXGradient, IntegratedGradients, Saliency
from lightning_xai.explainers.precomputed import Precomputed, save_maps
from lightning_xai.explainers.recipes import adapt_grad, fusion_grad, noise_grad, smooth_grad
from lightning_xai.explainers.scales import AbsoluteScale, InputScale, InRangeScale, RangeScale
from lightning_xai.explainers.smooth_diff import SmoothDiff
from lightning_xai.explainers.smoothing import PerturbWeights, Smooth
from lightning_xai.explainers.untrained import Untrained

__all__ = [
    "AbsoluteScale",
    "CaptumExplainer",
    "Context",
    "Explainer",
    "Gradient",
    "InRangeScale",
    "InputAttribution",
    "InputScale",
    "InputXGradient",
    "IntegratedGradients",
    "PerturbWeights",
    "Precomputed",
    "RandomAttribution",
    "RangeScale",
    "Saliency",
    "Smooth",
    "SmoothDiff",
    "SobelEdges",
    "Untrained",
    "adapt_grad",
    "fusion_grad",
    "grad_cam",
    "gradient_shap",
    "guided_backprop",
    "guided_grad_cam",
    "noise_grad",
    "save_maps",
    "smooth_grad",
    "with_controls",
    "with_gradients",
]
