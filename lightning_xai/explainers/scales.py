"""Standard deviations of input noise: absolute, a fraction of the range, or AdaptGrad's, which stays in the range."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_xai.explainers.base import Context, check_choice, check_number
from lightning_xai.explainers.gradient import require_bounds
from lightning_xai.functional.scales import (
    adaptgrad_std,
    adaptgrad_std_exact,
    adaptgrad_std_literal,
    sample_range,
)
from lightning_xai.shapes import Inputs


class InputScale(ABC):
    """How strong the noise on an input is."""

    @abstractmethod
    def __call__(self, inputs: Inputs, context: Context) -> Tensor:
        """Standard deviation, in the space of the inputs; broadcasts against them."""


@dataclass(frozen=True)
class AbsoluteScale(InputScale):
    """The same standard deviation everywhere.

    Attributes:
        std: Standard deviation in the space of the inputs.
    """

    std: float = 0.4

    def __post_init__(self) -> None:
        check_number("std", self.std)
        if not 0 <= self.std < float("inf"):
            raise ValueError(f"`std` must be at least 0 and finite, got {self.std}.")

    def __call__(self, inputs: Inputs, context: Context) -> Tensor:
        return torch.full((), self.std, dtype=inputs.dtype, device=inputs.device)


@dataclass(frozen=True)
class RangeScale(InputScale):
    """SmoothGrad's: a fraction of the range of values (Smilkov et al. 2017: 0.1 to 0.2).

    Attributes:
        fraction: Standard deviation over range.
        of: "image", the range of each image by itself (Smilkov, Adebayo), or "data", the range that the data can
            take, per channel (AdaptGrad; needs `bounds`).
    """

    fraction: float = 0.2
    of: Literal["image", "data"] = "image"

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction)
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"`fraction` must be in [0, 1], got {self.fraction}.")
        check_choice("of", self.of, ("image", "data"))

    def __call__(self, inputs: Inputs, context: Context) -> Tensor:
        if self.of == "image":
            return self.fraction * sample_range(inputs)
        low, high = require_bounds(inputs, context, 'RangeScale(of="data")')
        return self.fraction * (high - low)


_SOLUTIONS = {"default": adaptgrad_std, "literal": adaptgrad_std_literal, "exact": adaptgrad_std_exact}


@dataclass(frozen=True)
class InRangeScale(InputScale):
    """AdaptGrad's: elementwise, so small that the noisy value stays in the data's range with a given confidence.

    Elements on a bound, to rounding (`functional.bounds`), or outside get no noise. Needs `bounds`.

    Attributes:
        confidence: Probability to stay in the range, at least.
        solution: "default", z = √2 erfinv(c), the authors' code; "literal", z = √2 erfinv((1 + c)/2), the paper's
            equation 13 as printed; "exact", equation 14 solved: the confidence is met with equality.
        per_channel: Each channel has its own bounds; False takes the least and greatest bound for all channels, as the
            authors' code does.
    """

    confidence: float = 0.95
    solution: Literal["default", "literal", "exact"] = "default"
    per_channel: bool = True

    def __post_init__(self) -> None:
        check_choice("solution", self.solution, _SOLUTIONS)
        least = 0.5 if self.solution == "exact" else 0.0
        check_number("confidence", self.confidence)
        if not least < self.confidence < 1:
            raise ValueError(f"`confidence` must be in ({least:g}, 1), got {self.confidence}.")

    def __call__(self, inputs: Inputs, context: Context) -> Tensor:
        low, high = require_bounds(inputs, context, "InRangeScale")
        if not self.per_channel:
            low, high = low.min(), high.max()
        return _SOLUTIONS[self.solution](inputs, low, high, self.confidence)
