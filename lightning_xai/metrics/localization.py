"""Metrics of whether an attribution points at the evidence, given a mask of it.

All are of the absolute value of the signed channel sum; `absolute=False` takes the signed sum itself (see
`functional.localization`). All are undefined where the mask is empty.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from lightning_xai.explainers.base import check_count
from lightning_xai.functional.localization import (
    auroc,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)
from lightning_xai.metrics.base import SampleMetric
from lightning_xai.shapes import Scores


class _LocalizationMetric(SampleMetric):
    higher_is_better = True

    def __init__(self, absolute: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.absolute = absolute

    def update(self, attributions: Tensor, mask: Tensor, *, index: Tensor | None = None) -> None:
        """Score attributions (batch, channel, height, width) against boolean masks (batch, height, width)."""
        self.record(self._score(attributions, mask), index)

    @abstractmethod
    def _score(self, attributions: Tensor, mask: Tensor) -> Scores: ...


class RelevanceRankAccuracy(_LocalizationMetric):
    """Share of the K highest values inside the mask of K pixels."""

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return relevance_rank_accuracy(attributions, mask, self.absolute)


class RelevanceMassAccuracy(_LocalizationMetric):
    """Share of the mass inside the mask: of the absolute values, or with `absolute=False` of the positive ones.

    Undefined also where there is no mass.
    """

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return relevance_mass_accuracy(attributions, mask, self.absolute)


class PointingGame(_LocalizationMetric):
    """Whether the highest value is inside the mask."""

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return pointing_game(attributions, mask, self.absolute)


class TopKIntersection(_LocalizationMetric):
    """Share of the `k` highest values inside the mask.

    Args:
        k: number of pixels, at most those of the attributions.
        absolute: rank the absolute values of the channel sums.
    """

    def __init__(self, k: int, absolute: bool = True, **kwargs: Any) -> None:
        check_count("k", k)
        super().__init__(absolute, **kwargs)
        self.k = k

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return top_k_intersection(attributions, mask, self.k, self.absolute)


class LocalizationAUROC(_LocalizationMetric):
    """Area under the ROC curve of the values as a detector of the mask; undefined also where the mask is full."""

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return auroc(attributions, mask, self.absolute)
