"""Mean and variance of many maps without keeping them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xai.shapes import Inputs


@dataclass
class Moments:
    """Streamed elementwise moments of draws: memory is that of two maps, however many draws there are.

    Blocks of draws are merged with the update of Chan, Golub and LeVeque (1979), which does not lose precision when
    the mean is large beside the deviation.
    """

    count: int = 0
    mean: Tensor = torch.tensor(0.0)
    squared_deviations: Tensor = torch.tensor(0.0)

    def add(self, block: Float[Tensor, " draws batch *shape"]) -> None:
        """Merge a block of draws."""
        count = self.count + len(block)
        mean = block.mean(0)
        step = mean - self.mean.to(mean)
        within = (block - mean).square_().sum(0)
        between = step.square() * (self.count * len(block) / count)
        self.squared_deviations = self.squared_deviations.to(mean) + within + between
        self.mean = self.mean.to(mean) + step * (len(block) / count)
        self.count = count

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
        """Standard error of the mean: the Monte-Carlo error of each element; NaN with one draw."""
        return (
            (self.squared_deviations / (self.count - 1) / self.count).sqrt()
            if self.count > 1
            else (torch.full_like(self.mean, torch.nan))
        )
