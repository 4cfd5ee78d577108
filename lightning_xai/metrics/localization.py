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
from lightning_xai.metrics.checks import check_places
from lightning_xai.shapes import Scores


class _LocalizationMetric(SampleMetric):
    higher_is_better = True

    def __init__(self, absolute: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.absolute = absolute

    def update(
        self, attributions: Tensor, mask: Tensor, *, inputs: Tensor | None = None, index: Tensor | None = None
    ) -> None:
        """Score attributions (batch, feature) or (batch, channel, ...) against boolean masks, one value a place.

        Raises:
            TypeError: if `mask` is not boolean.
            ValueError: if `mask` has not the shape of the attributions, their channels being summed, or these not
                that of the inputs, if they are given.
        """
        check_places(attributions, inputs)
        self.record(self._score(attributions, mask), index)

    @abstractmethod
    def _score(self, attributions: Tensor, mask: Tensor) -> Scores: ...


class RelevanceRankAccuracy(_LocalizationMetric):
    """Share of the K highest values inside the mask of K pixels (Arras et al. 2022); undefined where it is empty.

    Higher is better.

    Args:
        absolute: Rank the absolute values of the channel sums; False ranks the signed sums.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import RelevanceRankAccuracy
        >>> metric = RelevanceRankAccuracy()
        >>> metric.update(torch.tensor([[[[4.0, 1.0], [3.0, 2.0]]]]), mask=torch.eye(2, dtype=torch.bool)[None])
        >>> metric.compute()
        tensor(0.5000)
    """

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return relevance_rank_accuracy(attributions, mask, self.absolute)


class RelevanceMassAccuracy(_LocalizationMetric):
    """Share of the mass inside the mask (Arras et al. 2022); undefined where it is empty, or there is no mass.

    Higher is better.

    Args:
        absolute: The mass is the absolute value of the channel sums; False: their positive part.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import RelevanceMassAccuracy
        >>> metric = RelevanceMassAccuracy()
        >>> metric.update(torch.tensor([[[[4.0, 1.0], [3.0, 2.0]]]]), mask=torch.eye(2, dtype=torch.bool)[None])
        >>> metric.compute()
        tensor(0.6000)
    """

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return relevance_mass_accuracy(attributions, mask, self.absolute)


class PointingGame(_LocalizationMetric):
    """Whether the highest value is inside the mask (Zhang et al. 2018, no tolerance); undefined where it is empty.

    Higher is better.

    Args:
        absolute: Rank the absolute values of the channel sums; False ranks the signed sums.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import PointingGame
        >>> metric = PointingGame()
        >>> metric.update(torch.tensor([[[[4.0, 1.0], [3.0, 2.0]]]]), mask=torch.eye(2, dtype=torch.bool)[None])
        >>> metric.compute()
        tensor(1.)
    """

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return pointing_game(attributions, mask, self.absolute)


class TopKIntersection(_LocalizationMetric):
    """Share of the `k` highest values inside the mask (Theiner et al. 2022); undefined where it is empty.

    Higher is better.

    Args:
        k: Number of pixels, at most those of the attributions.
        absolute: Rank the absolute values of the channel sums; False ranks the signed sums.

    Raises:
        TypeError: if `k` is no whole number.
        ValueError: if it is less than 1; when updated, if there are fewer pixels.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import TopKIntersection
        >>> metric = TopKIntersection(k=3)
        >>> metric.update(torch.tensor([[[[4.0, 1.0], [3.0, 2.0]]]]), mask=torch.eye(2, dtype=torch.bool)[None])
        >>> metric.compute()
        tensor(0.6667)
    """

    def __init__(self, k: int, absolute: bool = True, **kwargs: Any) -> None:
        check_count("k", k)
        super().__init__(absolute, **kwargs)
        self.k = k

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return top_k_intersection(attributions, mask, self.k, self.absolute)


class LocalizationAUROC(_LocalizationMetric):
    """Area under the ROC curve of the values as a detector of the mask; undefined where it is empty or full.

    Higher is better.

    The probability that a pixel inside has a higher value than one outside (Mann-Whitney's U over the pairs).

    Args:
        absolute: Rank the absolute values of the channel sums; False ranks the signed sums.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import LocalizationAUROC
        >>> metric = LocalizationAUROC()
        >>> metric.update(torch.tensor([[[[4.0, 1.0], [3.0, 2.0]]]]), mask=torch.eye(2, dtype=torch.bool)[None])
        >>> metric.compute()
        tensor(0.7500)
    """

    def _score(self, attributions: Tensor, mask: Tensor) -> Scores:
        return auroc(attributions, mask, self.absolute)
