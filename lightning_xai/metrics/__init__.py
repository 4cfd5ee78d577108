"""Quality of attributions: torchmetrics classes that keep the score of every sample."""

from lightning_xai.metrics.base import SampleMetric, mean_score, standard_error
from lightning_xai.metrics.complexity import Sparseness
from lightning_xai.metrics.localisation import LocalisationAUROC, RelevanceRankAccuracy
from lightning_xai.metrics.noise import InherentNoise

__all__ = [
    "InherentNoise",
    "LocalisationAUROC",
    "RelevanceRankAccuracy",
    "SampleMetric",
    "Sparseness",
    "mean_score",
    "standard_error",
]
