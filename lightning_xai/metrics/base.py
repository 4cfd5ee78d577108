"""What all metrics share: one score a sample is kept, from which the mean and its standard error are made."""

import math
from abc import ABC
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_xai.functional.devices import sent
from lightning_xai.shapes import Scores

T = TypeVar("T")
_UNNUMBERED = torch.iinfo(torch.int64).min


def mean_score(scores: Scores) -> Float[Tensor, ""]:
    """Mean over the samples whose score is defined (not NaN); NaN where there is none.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import mean_score
        >>> mean_score(torch.tensor([1.0, torch.nan, 3.0]))
        tensor(2.)
    """
    return scores.nanmean()


def standard_error(scores: Scores) -> Float[Tensor, ""]:
    """Standard error of `mean_score`: sample standard deviation (ddof = 1) over √n; NaN for less than two.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import standard_error
        >>> standard_error(torch.tensor([1.0, torch.nan, 3.0]))
        tensor(1.)
    """
    defined = scores[~scores.isnan()]
    if len(defined) < 2:
        return scores.new_tensor(math.nan)
    return defined.std() / math.sqrt(len(defined))


class Shared(dict[Hashable, Any]):
    """What the metrics of several methods have in common on one batch: computed once, by whoever asks first.

    Example:
        >>> from lightning_xai.metrics import Shared
        >>> shared = Shared()
        >>> shared.once("drops", lambda: 3), shared.once("drops", lambda: 4)
        (3, 3)
    """

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of `compute` that was asked for under this key first."""
        if key not in self:
            self[key] = compute()
        return self[key]


class SampleMetric(Metric, ABC):
    """Mean over samples of a score that each sample has on its own.

    The score of every sample is kept, in float32 and on the metric's device, together with the sample's index
    in the data set. An index counts once, where it came first: the repeats with which a `DistributedSampler`
    pads a shard do no harm. NaN says that the score is undefined for a sample (no mask, no attribution); it
    is left out of the mean and counted by `num_undefined`.

    `compute`, `standard_error`, `num_undefined` and `per_sample` gather the scores of all processes, so that
    every process must call them, also one that has seen no sample; all return the same on each of them, bit
    for bit what one process would have found with the same scores.

    Attributions are (batch, feature), or (batch, channel, ...) as their inputs: three axes are those of a series, and
    channel sums of images keep an axis of one channel, (batch, 1, height, width).

    A subclass writes `update` with the arguments that it needs, by keyword (a `MetricCollection` hands each
    metric the arguments that its signature names), ending in `self.record(scores, index)`, and sets
    `higher_is_better`. In a collection, `compute_groups=False` is needed: torchmetrics merges metrics whose
    first batch of states agrees.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import SampleMetric
        >>> class LargestValue(SampleMetric):
        ...     higher_is_better = None
        ...     def update(self, attributions, *, index=None):
        ...         self.record(attributions.flatten(1).amax(1), index)
        >>> metric = LargestValue()
        >>> metric.update(torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1, 1))
        >>> metric.compute(), metric.standard_error()  # 2 / √3
        (tensor(3.), tensor(1.1547))
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool | None

    scores: list[Tensor]  # one tensor while the metric is synchronized
    index: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("index", default=[], dist_reduce_fx="cat")

    def check_inputs(self, inputs: Tensor) -> None:
        """Refuse inputs that such a score makes no sense of, with the reason.

        Raises:
            ValueError: what `update` would raise, before anything is explained.
        """

    def record(self, scores: Scores, index: Tensor | None) -> None:
        """Append one score a sample.

        Without `index`, the samples are numbered in order of arrival (after the greatest index that was
        given); that is enough in one process. Several processes need `index`, or repeats are not noticed and
        the order has no meaning.

        Raises:
            TypeError: if `index` is not an int64 tensor.
            ValueError: if it does not have one entry for each score.
        """
        numbers = torch.full_like(scores, _UNNUMBERED, dtype=torch.int64) if index is None else index
        if numbers.dtype != torch.int64:
            raise TypeError(f"`index` must be an int64 tensor of sample indices; got {numbers.dtype}.")
        if numbers.shape != scores.shape:
            raise ValueError(
                f"`index` must have one entry for each of the {len(scores)} samples; got the shape "
                f"{tuple(numbers.shape)}. Pass the sample indices of the same batch as the attributions."
            )
        self._append(sent(scores.detach(), self.device, torch.float32), sent(numbers, self.device))

    def compute(self) -> Float[Tensor, ""]:
        """Mean over the distinct samples whose score is defined."""
        return mean_score(self._distinct()[1])

    def standard_error(self) -> Float[Tensor, ""]:
        """Sample standard deviation of the defined scores (ddof = 1) over √n; NaN for less than two."""
        return standard_error(self.per_sample()[1])

    def num_undefined(self) -> int:
        """Number of distinct samples whose score is NaN."""
        return int(self.per_sample()[1].isnan().sum())

    def per_sample(self) -> tuple[Int64[Tensor, " batch"], Scores]:
        """The distinct samples' indices, ascending, and their scores."""
        with self._all_processes():
            return self._distinct()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes, as torchmetrics does.

        torchmetrics stands in for an empty state with an empty float tensor, and gathering int64 with float32
        fails: a process without samples gets empty states of the right types here.
        """
        if isinstance(self.scores, list) and not self.scores:
            self._append(torch.empty(0, device=self.device), torch.empty(0, dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)

    def _append(self, scores: Tensor, index: Tensor) -> None:
        self.scores.append(scores)
        self.index.append(index)

    def _all_processes(self) -> AbstractContextManager[None]:
        """What torchmetrics wraps around `compute`; does nothing where the caller has synchronized."""
        local = not self._is_synced
        return self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute and local, should_unsync=local
        )

    def _distinct(self) -> tuple[Tensor, Tensor]:
        """Indices, ascending, and the score that came first for each; called between `sync` and `unsync`."""
        index, rows = self._first()
        return index, dim_zero_cat(self.scores)[rows]

    def _first(self) -> tuple[Tensor, Tensor]:
        """Indices, ascending, and the row at which each came first, in every state of one row a sample."""
        return first_rows(dim_zero_cat(self.index))


def first_rows(index: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The distinct indices, ascending, and the row at which each came first; with targets, those of each of them."""
    index, order = _number(index).sort(stable=True)
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[1:] != index[:-1]
    if target is not None:
        by_target = target[order].sort(stable=True).indices
        again = by_target[index[by_target].sort(stable=True).indices]
        index, order = index[again], order[again]
        first[1:] = (index[1:] != index[:-1]) | (target[order][1:] != target[order][:-1])
    where = first.nonzero().flatten()  # once: it waits for an accelerator
    return index[where], order[where]


def _number(index: Tensor) -> Tensor:
    """Samples without an index get the numbers after the greatest one given, from 0 if none is."""
    unnumbered = index == _UNNUMBERED
    arrival = unnumbered.cumsum(0) + index.clamp(min=-1).amax() if len(index) else index
    return torch.where(unnumbered, arrival, index)
