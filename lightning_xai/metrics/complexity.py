"""Metrics of how concentrated an attribution is."""

from typing import Any

from torch import Tensor

from lightning_xai.explainers.base import check_number
from lightning_xai.functional.complexity import check_threshold, effective_complexity, entropy, gini
from lightning_xai.metrics.base import SampleMetric
from lightning_xai.metrics.checks import check_places


class Sparseness(SampleMetric):
    """Gini index of the absolute pixel map (Chalasani et al. 2020; `functional.complexity.gini`), in [0, 1).

    Higher is better.

    Undefined where all is zero.

    Args:
        offset: Added to every absolute value; 1e-7 gives Quantus's scores.

    Raises:
        TypeError: if `offset` is no number.
        ValueError: if it is negative.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import Sparseness
        >>> metric = Sparseness()
        >>> metric.update(torch.tensor([[[[3.0, 0.0], [0.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]]))
        >>> metric.per_sample()[1], metric.compute()
        (tensor([0.7500, 0.0000]), tensor(0.3750))
    """

    higher_is_better = True

    def __init__(self, offset: float = 0.0, **kwargs: Any) -> None:
        check_number("offset", offset)
        if not offset >= 0:
            raise ValueError(f"`offset` must be 0 or more, it is added to absolute values; got {offset}.")
        super().__init__(**kwargs)
        self.offset = offset

    def update(self, attributions: Tensor, *, inputs: Tensor | None = None, index: Tensor | None = None) -> None:
        """Score a batch of attributions, (batch, feature) or (batch, channel, ...), shaped like the inputs if given."""
        check_places(attributions, inputs)
        self.record(gini(attributions, self.offset), index)


class Complexity(SampleMetric):
    """Entropy, in nats, of the absolute pixel map (Bhatt et al. 2020; `functional.complexity.entropy`).

    Lower is better.

    Undefined where all is zero.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import Complexity
        >>> metric = Complexity()
        >>> metric.update(torch.eye(4).view(1, 1, 4, 4))  # ln 4
        >>> metric.compute()
        tensor(1.3863)
    """

    higher_is_better = False

    def update(self, attributions: Tensor, *, inputs: Tensor | None = None, index: Tensor | None = None) -> None:
        """Score a batch of attributions, (batch, feature) or (batch, channel, ...), shaped like the inputs if given."""
        check_places(attributions, inputs)
        self.record(entropy(attributions), index)


class EffectiveComplexity(SampleMetric):
    """Number of pixels above a threshold (`functional.complexity.effective_complexity`).

    Lower is better.

    Quantus's count, named after Nguyen and Martínez 2020. Undefined where all is zero.

    Args:
        threshold: A share of the greatest absolute value of the sample's pixel map.
        relative: False takes `threshold` in the attribution's own unit, as Quantus does, and makes the score
            depend on the attribution's scale.

    Raises:
        TypeError: if `threshold` is no number.
        ValueError: if it is negative, or a share of 1 or more.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import EffectiveComplexity
        >>> metric = EffectiveComplexity(threshold=0.5)
        >>> metric.update(torch.tensor([[[[4.0, 3.0], [2.0, 1.0]]]]))
        >>> metric.compute()
        tensor(2.)
    """

    higher_is_better = False

    def __init__(self, threshold: float = 0.1, relative: bool = True, **kwargs: Any) -> None:
        check_number("threshold", threshold)
        check_threshold(threshold, relative)
        super().__init__(**kwargs)
        self.threshold = threshold
        self.relative = relative

    def update(self, attributions: Tensor, *, inputs: Tensor | None = None, index: Tensor | None = None) -> None:
        """Score a batch of attributions, (batch, feature) or (batch, channel, ...), shaped like the inputs if given."""
        check_places(attributions, inputs)
        self.record(effective_complexity(attributions, self.threshold, self.relative), index)
