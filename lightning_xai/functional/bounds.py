"""When a value is on a bound of the data's range: to rounding, never exactly.

Black that one program normalizes and the bound that another computes are a rounding apart. Where that decided, a black
pixel would be out of range, get noise, or be foreground. `low` and `high` are the least and the greatest value that an
input element can take, in the space of the inputs, as tensors that broadcast against the inputs.
"""

import torch
from torch import Tensor

from lightning_xai.shapes import Inputs

ON_BOUND = 1e-6
"""Of the range: so far from a bound a value is on it."""

IN_BOUNDS = 1e-4
"""Of the range: so far outside of the bounds a sample may have values."""

_ROUNDINGS = 4
"""Of the mean, of the deviation, of their difference or quotient, and of the bound itself."""


def bound_tolerance(low: Tensor, high: Tensor, dtype: torch.dtype, fraction: float = ON_BOUND) -> Tensor:
    """The greatest distance from a bound at which values of this type are on it; broadcasts like the bounds.

    A fraction of the range, or four roundings of the bound that is larger by its absolute value if they are more.

    Args:
        low: Least values.
        high: Greatest values.
        dtype: Type of the inputs, whose arithmetic made the rounding.
        fraction: Part of the range.
    """
    rounding = _ROUNDINGS * torch.finfo(dtype).eps * torch.maximum(low.abs(), high.abs())
    return torch.maximum(fraction * (high - low), rounding)


def put_on_bounds(inputs: Inputs, low: Tensor, high: Tensor) -> tuple[Inputs, Tensor, Tensor]:
    """The inputs, exactly on a bound where they are within `bound_tolerance` of it, and the bounds in their type.

    Other values stay as they are. Every comparison of inputs with bounds goes through here. Half precision comes back
    as float32, in which distances from the bounds have no rounding of their own.
    """
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    x, low, high = (value.to(inputs.device, dtype) for value in (inputs, low, high))
    tolerance = bound_tolerance(low, high, inputs.dtype)
    x = torch.where((x - low).abs() <= tolerance, low, x)
    return torch.where((x - high).abs() <= tolerance, high, x), low, high
