"""Quality of attributions: torchmetrics classes that keep the score of every sample."""

from lightning_xai.metrics.base import SampleMetric, Shared, mean_score, standard_error
from lightning_xai.metrics.complexity import Complexity, EffectiveComplexity, Sparseness
from lightning_xai.metrics.faithfulness import FaithfulnessCorrelation
from lightning_xai.metrics.flipping import DeletionAUC, InsertionAUC, PixelFlipping
from lightning_xai.metrics.infidelity import Infidelity
from lightning_xai.metrics.information import InformationLevel
from lightning_xai.metrics.localization import (
    LocalizationAUROC,
    PointingGame,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
    TopKIntersection,
)
from lightning_xai.metrics.noise import InherentNoise
from lightning_xai.metrics.robustness import AverageSensitivity, LocalLipschitz, MaxSensitivity

__all__ = [
    "AverageSensitivity",
    "Complexity",
    "DeletionAUC",
    "EffectiveComplexity",
    "FaithfulnessCorrelation",
    "Infidelity",
    "InformationLevel",
    "InherentNoise",
    "InsertionAUC",
    "LocalLipschitz",
    "LocalizationAUROC",
    "MaxSensitivity",
    "PixelFlipping",
    "PointingGame",
    "RelevanceMassAccuracy",
    "RelevanceRankAccuracy",
    "SampleMetric",
    "Shared",
    "Sparseness",
    "TopKIntersection",
    "mean_score",
    "standard_error",
]
