"""Mean and variance of many maps without keeping them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xai.shapes import Inputs, Scores


@dataclass
class Moments:
    """Streamed elementwise moments of draws: memory is that of a few maps, however many draws there are.

    Blocks of draws are merged with the update of Chan, Golub and LeVeque (1979), which does not lose precision when
    the mean is large beside the deviation.

    Attributes:
        count: Number of draws; a tensor that broadcasts against the maps where the samples have had different numbers.
        group: How many successive draws depend on one another (antithetic pairs: 2). The standard error is that of the
            means of groups; blocks are of whole groups.
    """

    count: int | Tensor = 0
    mean: Tensor = torch.tensor(0.0)
    squared_deviations: Tensor = torch.tensor(0.0)
    group: int = 1
    squared_deviations_of_groups: Tensor = torch.tensor(0.0)

    def add(self, block: Float[Tensor, " draws batch *shape"]) -> None:
        """Merge a block of draws."""
        count = self.count + len(block)
        mean = block.mean(0)
        step = mean - self.mean.to(mean)
        between = step.square() * (self.count * len(block) / count)
        self.squared_deviations = self.squared_deviations.to(mean) + _spread(block, mean) + between
        if self.group > 1:
            within = _spread(block.unflatten(0, (-1, self.group)).mean(1), mean)
            self.squared_deviations_of_groups = (
                self.squared_deviations_of_groups.to(mean) + within + between / self.group
            )
        self.mean = self.mean.to(mean) + step * (len(block) / count)
        self.count = count

    def select(self, rows: Tensor) -> "Moments":
        """Those of some of the samples."""
        count = self.count[rows] if isinstance(self.count, Tensor) else self.count
        others = self.squared_deviations_of_groups
        others = others[rows] if self.group > 1 else others
        return Moments(count, self.mean[rows], self.squared_deviations[rows], self.group, others)

    @classmethod
    def join(cls, parts: Sequence["Moments"]) -> "Moments":
        """Those of several sets of samples."""
        joined = parts[0]
        counts = [torch.as_tensor(part.count, device=part.mean.device).expand(len(part.mean)) for part in parts]
        return cls(
            torch.cat(counts).view(-1, *[1] * (joined.mean.ndim - 1)),
            torch.cat([part.mean for part in parts]),
            torch.cat([part.squared_deviations for part in parts]),
            joined.group,
            torch.cat([part.squared_deviations_of_groups for part in parts]) if joined.group > 1 else torch.tensor(0.0),
        )

    @property
    def variance(self) -> Inputs:
        """Population variance over the draws (divided by their number), which is VarGrad's."""
        return self.squared_deviations / self.count

    @property
    def mean_square(self) -> Inputs:
        """Mean of the squares over the draws, which is SmoothGrad-squared."""
        return self.variance + self.mean.square()

    @property
    def standard_error(self) -> Inputs:
        """Standard error of the mean: the Monte-Carlo error of each element; NaN with one draw, or one group."""
        deviations = self.squared_deviations if self.group == 1 else self.squared_deviations_of_groups
        groups = torch.as_tensor(self.count, device=deviations.device) / self.group
        return (deviations / (groups - 1) / groups).sqrt()

    @property
    def relative_error(self) -> Scores:
        """Of each sample: norm of the standard error over the norm of the mean, 0 for a map that is 0 in every draw."""
        error, size = self.standard_error.flatten(1).norm(dim=1), self.mean.flatten(1).norm(dim=1)
        return torch.where(error == 0, 0, error / size)


def _spread(values: Tensor, mean: Tensor) -> Tensor:
    return (values - mean).square_().sum(0)
