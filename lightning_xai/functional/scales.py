"""Standard deviations of SmoothGrad's and AdaptGrad's input noise, and the share of it that leaves the data's range.

`low` and `high` are the least and the greatest value that an input element can take, in the space of the inputs
(for normalized images: black and white after normalization), as tensors that broadcast against the inputs. What is on a
bound but for rounding is on it (`functional.bounds`), in the precision of the inputs.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xai.functional.bounds import put_on_bounds
from lightning_xai.functional.devices import with_float64
from lightning_xai.shapes import Inputs

_BISECTIONS = 60


def sample_range(inputs: Inputs) -> Float[Tensor, "batch ..."]:
    """Greatest minus least value of each sample, over all its elements; broadcasts against the inputs."""
    elements = tuple(range(1, inputs.ndim))
    return inputs.amax(elements, keepdim=True) - inputs.amin(elements, keepdim=True)


def distance_to_bounds(inputs: Inputs, low: Tensor, high: Tensor) -> Inputs:
    """min(x - low, high - x), elementwise: the room that x has on its narrower side; 0 on a bound and outside."""
    x, low, high = put_on_bounds(inputs, low, high)
    return torch.minimum(x - low, high - x).clamp(min=0).to(inputs.dtype)


def adaptgrad_std(inputs: Inputs, low: Tensor, high: Tensor, confidence: float) -> Inputs:
    """AdaptGrad's std with z = √2 erfinv(c): the noisy value leaves the range with probability at most 1 - c.

    The reading of the authors' code, and the one that keeps the paper's promise (Zhou et al. 2024, section 4):
    a Gaussian of std d/z leaves an interval of half-width d with probability 1 - c. z = 1.960 for c = 0.95.
    """
    return distance_to_bounds(inputs, low, high) / _normal_quantile((1 + confidence) / 2)


def adaptgrad_std_literal(inputs: Inputs, low: Tensor, high: Tensor, confidence: float) -> Inputs:
    """AdaptGrad's std with z = √2 erfinv((1 + c)/2), equation 13 as printed: z = 2.2414 for c = 0.95."""
    return distance_to_bounds(inputs, low, high) / _normal_quantile((3 + confidence) / 4)


def adaptgrad_std_exact(inputs: Inputs, low: Tensor, high: Tensor, confidence: float) -> Inputs:
    """The std at which the noisy value leaves the range with probability 1 - c exactly (equation 14, solved).

    The probability grows with the std, so bisection finds it, in float64. The root lies between d/z (one side of the
    range counted twice) and d/z' with z' the one-sided quantile (the far side not counted): 0 to 19 % above
    `adaptgrad_std` at c = 0.95. Elements on a bound get no noise, as with the other two.
    """
    x, low, high = (with_float64(value).double() for value in put_on_bounds(inputs, low, high))
    near = distance_to_bounds(x, low, high)
    least, most = near / _normal_quantile((1 + confidence) / 2), near / _normal_quantile(confidence)
    for _ in range(_BISECTIONS):
        middle = (least + most) / 2
        outside = out_of_range_probability(x, middle, low, high) > 1 - confidence
        least, most = torch.where(outside, least, middle), torch.where(outside, middle, most)
    return ((least + most) / 2).to(inputs)


def out_of_range_probability(inputs: Inputs, std: Tensor, low: Tensor, high: Tensor) -> Inputs:
    """Inherent noise: the probability that x + e, e ~ N(0, std²), is below `low` or above `high`, elementwise.

    1 - [Φ((high - x)/std) - Φ((low - x)/std)] (Zhou et al. 2024, equation 9), as the sum of the two tails, which
    keeps its precision where it is small. Where std is 0 it is 0 in the range and on its bounds, and 1 outside; where
    it is NaN, so is the result. Half precision is computed in float32.
    """
    x, low, high = put_on_bounds(inputs, low, high)
    std = torch.broadcast_to(std.to(x), x.shape)
    tails = torch.special.ndtr((low - x) / std) + torch.special.ndtr((x - high) / std)
    outside = (x < low) | (x > high)
    return torch.where((std > 0) | std.isnan(), tails, outside.to(x.dtype))


def _normal_quantile(probability: float) -> float:
    """Φ⁻¹(p) in float64."""
    return math.sqrt(2) * float(torch.special.erfinv(torch.tensor(2 * probability - 1, dtype=torch.float64)))
