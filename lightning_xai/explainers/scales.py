"""Standard deviations of input noise: absolute, a fraction of the range, or AdaptGrad's, which stays in the range."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_xai.explainers.base import Context, check_choice, check_number, check_positive, check_share
from lightning_xai.explainers.gradient import require_bounds
from lightning_xai.functional.scales import (
    adaptgrad_std,
    adaptgrad_std_exact,
    adaptgrad_std_literal,
    sample_range,
)
from lightning_xai.shapes import Inputs


class InputScale(ABC):
    """How strong the noise on an input is: base class of `AbsoluteScale`, `RangeScale`, `InRangeScale` and your own.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> class Proportional(lx.explainers.InputScale):
        ...     def __call__(self, inputs, context):
        ...         return 0.5 * inputs.abs()
        >>> method = lx.Smooth(lx.Gradient(), Proportional())
        >>> lx.explain(torch.nn.ReLU(), torch.tensor([[1.0, 0.0]]), target=0, method=method)
        tensor([[0.9800, 0.0000]])
    """

    @abstractmethod
    def __call__(self, inputs: Inputs, context: Context) -> Tensor:
        """Standard deviation, in the space of the inputs; broadcasts against them."""


@dataclass(frozen=True)
class AbsoluteScale(InputScale):
    """The same standard deviation everywhere.

    Attributes:
        std: Standard deviation in the space of the inputs.

    Raises:
        TypeError: if `std` is no number.
        ValueError: if it is negative or not finite.

    Example:
        >>> import torch
        >>> from lightning_xai.explainers import AbsoluteScale, Context
        >>> AbsoluteScale(std=0.25)(torch.rand(3, 1, 2, 2), Context.create(torch.arange(3)))
        tensor(0.2500)
    """

    std: float = 0.4

    def __post_init__(self) -> None:
        check_positive("std", self.std, or_zero=True)

    def __call__(self, inputs: Inputs, context: Context) -> Tensor:
        return torch.full((), self.std, dtype=inputs.dtype, device=inputs.device)


@dataclass(frozen=True)
class RangeScale(InputScale):
    """SmoothGrad's: a fraction of the range of values (Smilkov et al. 2017: 0.1 to 0.2).

    Attributes:
        fraction: Standard deviation over range.
        of: "image", the range of each image by itself (Smilkov, Adebayo), or "data", the range that the data can
            take, per channel (AdaptGrad; needs `bounds`).

    Raises:
        TypeError: if `fraction` is no number.
        ValueError: if it is not in [0, 1], or `of` unknown; when called, if bounds are missing.

    Example:
        >>> import torch
        >>> from lightning_xai.explainers import Context, RangeScale
        >>> images, context = torch.tensor([[-1.0, 4.0]]), Context.create(torch.arange(1), bounds=(-10.0, 10.0))
        >>> RangeScale(0.2)(images, context), RangeScale(0.2, of="data")(images, context)
        (tensor([[1.]]), tensor(4.))
    """

    fraction: float = 0.2
    of: Literal["image", "data"] = "image"

    def __post_init__(self) -> None:
        check_share("fraction", self.fraction)
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

    Raises:
        TypeError: if `confidence` is no number.
        ValueError: if it is not in (0, 1), or for "exact" in (0.5, 1), or `solution` unknown; when called, if bounds
            are missing.

    Example:
        >>> import torch
        >>> from lightning_xai.explainers import Context, InRangeScale
        >>> images, context = torch.tensor([[0.0, 0.1, 0.5]]), Context.create(torch.arange(1), bounds=(0.0, 1.0))
        >>> InRangeScale(0.95)(images, context) * 1.96  # the distance to the nearer bound
        tensor([[0.0000, 0.1000, 0.5000]])
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
