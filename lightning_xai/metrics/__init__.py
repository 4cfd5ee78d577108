"""Quality of attributions: torchmetrics classes that keep the score of every sample."""

from lightning_xai.metrics.base import SampleMetric, mean_score, standard_error
from lightning_xai.metrics.complexity import Complexity, EffectiveComplexity, Sparseness
from lightning_xai.metrics.localisation import (
    LocalisationAUROC,
    PointingGame,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
    TopKIntersection,
)
from lightning_xai.metrics.noise import InherentNoise

__all__ = [
    "Complexity",
    "EffectiveComplexity",
    "InherentNoise",
    "LocalisationAUROC",
    "PointingGame",
    "RelevanceMassAccuracy",
    "RelevanceRankAccuracy",
    "SampleMetric",
    "Sparseness",
    "TopKIntersection",
    "mean_score",
    "standard_error",
]
