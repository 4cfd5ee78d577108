"""Metrics of how concentrated an attribution is."""

from typing import Any

from torch import Tensor

from lightning_xai.explainers.base import check_number
from lightning_xai.functional.complexity import check_threshold, effective_complexity, entropy, gini
from lightning_xai.metrics.base import SampleMetric


class Sparseness(SampleMetric):
    """Gini index of the absolute pixel map (`functional.complexity.gini`); undefined where all is zero.

    Args:
        offset: added to every absolute value; 1e-7 gives Quantus's scores.
    """

    higher_is_better = True

    def __init__(self, offset: float = 0.0, **kwargs: Any) -> None:
        check_number("offset", offset)
        if not offset >= 0:
            raise ValueError(f"`offset` must be 0 or more, it is added to absolute values; got {offset}.")
        super().__init__(**kwargs)
        self.offset = offset

    def update(self, attributions: Tensor, *, index: Tensor | None = None) -> None:
        """Score a batch of attributions (batch, channel, height, width)."""
        self.record(gini(attributions, self.offset), index)


class Complexity(SampleMetric):
    """Entropy of the absolute pixel map (`functional.complexity.entropy`); undefined where all is zero."""

    higher_is_better = False

    def update(self, attributions: Tensor, *, index: Tensor | None = None) -> None:
        """Score a batch of attributions (batch, channel, height, width)."""
        self.record(entropy(attributions), index)


class EffectiveComplexity(SampleMetric):
    """Number of pixels above a threshold (`functional.complexity.effective_complexity`); undefined where all is zero.

    Args:
        threshold: a share of the greatest absolute value of the sample's pixel map.
        relative: False takes `threshold` in the attribution's own unit, as Quantus does, and makes the score
            depend on the attribution's scale.
    """

    higher_is_better = False

    def __init__(self, threshold: float = 0.1, relative: bool = True, **kwargs: Any) -> None:
        check_number("threshold", threshold)
        check_threshold(threshold, relative)
        super().__init__(**kwargs)
        self.threshold = threshold
        self.relative = relative

    def update(self, attributions: Tensor, *, index: Tensor | None = None) -> None:
        """Score a batch of attributions (batch, channel, height, width)."""
        self.record(effective_complexity(attributions, self.threshold, self.relative), index)
