"""Standard deviations of SmoothGrad's and AdaptGrad's input noise, and the share of it that leaves the data's range.

`low` and `high` are the least and the greatest value that an input element can take, in the space of the inputs
(for normalised images: black and white after normalisation), as tensors that broadcast against the inputs.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xai.shapes import Inputs

_BISECTIONS = 60


def sample_range(inputs: Inputs) -> Float[Tensor, "batch ..."]:
    """Greatest minus least value of each sample, over all its elements; broadcasts against the inputs."""
    elements = tuple(range(1, inputs.ndim))
    return inputs.amax(elements, keepdim=True) - inputs.amin(elements, keepdim=True)


def distance_to_bounds(inputs: Inputs, low: Tensor, high: Tensor) -> Inputs:
    """min(|x - low|, |x - high|), elementwise: the room that x has on its narrower side."""
    return torch.minimum((inputs - low).abs(), (inputs - high).abs())


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
    near, x = distance_to_bounds(inputs, low, high).double(), inputs.double()
    least, most = near / _normal_quantile((1 + confidence) / 2), near / _normal_quantile(confidence)
    for _ in range(_BISECTIONS):
        middle = (least + most) / 2
        outside = out_of_range_probability(x, middle, low.double(), high.double()) > 1 - confidence
        least, most = torch.where(outside, least, middle), torch.where(outside, middle, most)
    return ((least + most) / 2).to(inputs.dtype)


def out_of_range_probability(inputs: Inputs, std: Tensor, low: Tensor, high: Tensor) -> Inputs:
    """Inherent noise: the probability that x + e, e ~ N(0, std²), is below `low` or above `high`, elementwise.

    1 - [Φ((high - x)/std) - Φ((low - x)/std)] (Zhou et al. 2024, equation 9), as the sum of the two tails, which
    keeps its precision where it is small. 0 where std is 0 and x is in the range.
    """
    std = torch.broadcast_to(std, inputs.shape)
    tails = torch.special.ndtr((low - inputs) / std) + torch.special.ndtr((inputs - high) / std)
    outside = (inputs < low) | (inputs > high)
    return torch.where(std > 0, tails, outside.to(inputs.dtype))


def _normal_quantile(probability: float) -> float:
    """Φ⁻¹(p) in float64."""
    return math.sqrt(2) * float(torch.special.erfinv(torch.tensor(2 * probability - 1, dtype=torch.float64)))
