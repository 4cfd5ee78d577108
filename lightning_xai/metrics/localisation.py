"""Metrics of whether an attribution points at the evidence, given a mask of it.

Both rank pixels by the absolute value of the signed channel sum; `absolute=False` ranks the signed sum itself
(see `functional.localisation`).
"""

from typing import Any

from torch import Tensor

from lightning_xai.functional.localisation import auroc, relevance_rank_accuracy
from lightning_xai.metrics.base import SampleMetric


class RelevanceRankAccuracy(SampleMetric):
    """Share of the K highest values inside the mask of K pixels; undefined where the mask is empty."""

    higher_is_better = True

    def __init__(self, absolute: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.absolute = absolute

    def update(self, attributions: Tensor, *, mask: Tensor, index: Tensor | None = None) -> None:
        """Score attributions (batch, channel, height, width) against boolean masks (batch, height, width)."""
        self.record(relevance_rank_accuracy(attributions, mask, self.absolute), index)


class LocalisationAUROC(SampleMetric):
    """Area under the ROC curve of the values as a detector of the mask; undefined if empty or full."""

    higher_is_better = True

    def __init__(self, absolute: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.absolute = absolute

    def update(self, attributions: Tensor, *, mask: Tensor, index: Tensor | None = None) -> None:
        """Score attributions (batch, channel, height, width) against boolean masks (batch, height, width)."""
        self.record(auroc(attributions, mask, self.absolute), index)
