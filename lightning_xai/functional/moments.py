"""Sum, mean and variance of many maps without keeping them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xai.functional.devices import wide_dtype
from lightning_xai.shapes import Inputs, Scores

_NOTHING = torch.tensor(0.0)


@dataclass
class Sum:
    """Streamed elementwise sum of draws, so exact that their mean is right to its last digit but one.

    Element by element the mean lies within two roundings, 2 ε of the maps' dtype times the mean absolute draw, of the
    exact mean, for up to thousands of draws in whatever blocks they come. Maps narrower than float64 are summed in
    float64; float64 (and everything on a device that has none) with the error of each addition kept beside the sum
    (Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B).

    Attributes:
        high: The sum.
        low: What it lacks.
        dtype: Type of the maps.
    """

    high: Tensor = _NOTHING
    low: Tensor = _NOTHING
    dtype: torch.dtype = torch.float32

    def add(self, block: Float[Tensor, " draws batch *shape"]) -> None:
        """Add a block of draws."""
        self.dtype, wide = block.dtype, wide_dtype(block)
        if block.dtype != wide:
            total = block[0] if len(block) == 1 and self.high.ndim else block.sum(0, dtype=wide)
            self.high = self.high.add_(total) if self.high.ndim else total
            return
        for draw in block:
            high = self.high + draw
            back = high - self.high
            self.low = self.low + ((self.high - (high - back)) + (draw - back))
            self.high = high

    def mean(self, count: int | Tensor) -> Inputs:
        """Over this number of draws, in the dtype of the maps."""
        return ((self.high + self.low) / count).to(self.dtype)

    def select(self, rows: Tensor) -> "Sum":
        """That of some of the samples."""
        return Sum(self.high[rows], self.low[rows] if self.low.ndim else self.low, self.dtype)

    @classmethod
    def join(cls, parts: Sequence["Sum"]) -> "Sum":
        """Those of several sets of samples."""
        lows = [part.low for part in parts]
        low = torch.cat(lows) if lows[0].ndim else lows[0]
        return cls(torch.cat([part.high for part in parts]), low, parts[0].dtype)


@dataclass
class Moments:
    """Streamed elementwise moments of draws: memory is that of a few maps, however many draws there are.

    Blocks of draws are merged with the update of Chan, Golub and LeVeque (1979), which does not lose precision when
    the mean is large beside the deviation. Everything is kept in float64 where the device has it, and handed out in
    the dtype of the maps.

    Attributes:
        count: Number of draws; a tensor that broadcasts against the maps where the samples have had different numbers.
        group: How many successive draws depend on one another (antithetic pairs: 2). The standard error is that of the
            means of groups; blocks are of whole groups.
        sum: Sum of the draws.
        deviations: Sum of the squared deviations from the mean.
        deviations_of_groups: That of the means of groups, where there are.
    """

    count: int | Tensor = 0
    group: int = 1
    sum: Sum = field(default_factory=Sum)
    deviations: Tensor = _NOTHING
    deviations_of_groups: Tensor = _NOTHING

    def add(self, block: Float[Tensor, " draws batch *shape"]) -> None:
        """Merge a block of draws."""
        wide = block.to(wide_dtype(block))
        mean, count = wide.mean(0), self.count + len(block)
        between = (mean - self._mean).square() * (self.count * len(block) / count)
        self.deviations = self.deviations + _spread(wide, mean) + between
        if self.group > 1:
            within = _spread(wide.unflatten(0, (-1, self.group)).mean(1), mean)
            self.deviations_of_groups = self.deviations_of_groups + within + between / self.group
        self.sum.add(block)
        self.count = count

    def select(self, rows: Tensor) -> "Moments":
        """Those of some of the samples."""
        count = self.count[rows] if isinstance(self.count, Tensor) else self.count
        others = self.deviations_of_groups[rows] if self.group > 1 else self.deviations_of_groups
        return Moments(count, self.group, self.sum.select(rows), self.deviations[rows], others)

    @classmethod
    def join(cls, parts: Sequence["Moments"]) -> "Moments":
        """Those of several sets of samples."""
        maps = [part.deviations for part in parts]
        counts = [
            part.count.flatten()
            if isinstance(part.count, Tensor)
            else torch.full((len(part.deviations),), part.count, device=part.deviations.device)
            for part in parts
        ]
        return cls(
            torch.cat(counts).view(-1, *[1] * (maps[0].ndim - 1)),
            parts[0].group,
            Sum.join([part.sum for part in parts]),
            torch.cat(maps),
            torch.cat([part.deviations_of_groups for part in parts]) if parts[0].group > 1 else _NOTHING,
        )

    @property
    def mean(self) -> Inputs:
        """Mean over the draws: see `Sum` for its precision."""
        return self.sum.mean(self.count)

    @property
    def variance(self) -> Inputs:
        """Population variance over the draws (divided by their number), which is VarGrad's."""
        return (self.deviations / self.count).to(self.sum.dtype)

    @property
    def mean_square(self) -> Inputs:
        """Mean of the squares over the draws, which is SmoothGrad-squared."""
        return (self.deviations / self.count + self._mean.square()).to(self.sum.dtype)

    @property
    def standard_error(self) -> Inputs:
        """Standard error of the mean: the Monte-Carlo error of each element; NaN with one draw, or one group."""
        return self._standard_error.to(self.sum.dtype)

    @property
    def relative_error(self) -> Scores:
        """Of each sample: norm of the standard error over the norm of the mean, 0 for a map that is 0 in every draw."""
        error, size = self._standard_error.flatten(1).norm(dim=1), self._mean.flatten(1).norm(dim=1)
        return torch.where(error == 0, 0, error / size).to(self.sum.dtype)

    @property
    def _mean(self) -> Tensor:
        """In the wide dtype."""
        return (self.sum.high + self.sum.low) / self.count if isinstance(self.count, Tensor) or self.count else _NOTHING

    @property
    def _standard_error(self) -> Tensor:
        deviations = self.deviations if self.group == 1 else self.deviations_of_groups
        count = self.count if isinstance(self.count, Tensor) else torch.tensor(self.count, device="cpu")
        groups = count / self.group
        return (deviations / (groups - 1) / groups).sqrt()


def _spread(values: Tensor, mean: Tensor) -> Tensor:
    return (values - mean).square_().sum(0)
