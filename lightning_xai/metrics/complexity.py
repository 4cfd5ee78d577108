"""Metrics of how concentrated an attribution is."""

from typing import Any

from torch import Tensor

from lightning_xai.functional.complexity import gini
from lightning_xai.metrics.base import SampleMetric


class Sparseness(SampleMetric):
    """Gini index of the absolute pixel map (`functional.complexity.gini`); undefined where all is zero.

    Args:
        offset: added to every absolute value; 1e-7 gives Quantus's scores.
    """

    higher_is_better = True

    def __init__(self, offset: float = 0.0, **kwargs: Any) -> None:
        if not offset >= 0:
            raise ValueError(f"`offset` must be 0 or more, it is added to absolute values; got {offset}.")
        super().__init__(**kwargs)
        self.offset = offset

    def update(self, attributions: Tensor, *, index: Tensor | None = None) -> None:
        """Score a batch of attributions (batch, channel, height, width)."""
        self.record(gini(attributions, self.offset), index)
