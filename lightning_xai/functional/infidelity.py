"""Does an attribution predict how far the output falls under perturbations of the input?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xai.functional.devices import with_float64
from lightning_xai.functional.random import uniform
from lightning_xai.shapes import Keys, Scores


def infidelity(
    predicted: Float[Tensor, " batch draw"], drops: Float[Tensor, " batch draw"], rescale: bool = True
) -> Scores:
    """Mean over the draws of (β predicted - drop)², in float64; lower is better (Yeh et al. 2019, definition 2.1).

    With `rescale`, β = E[predicted drop] / E[predicted²], the factor with which the attribution fits best, as in the
    authors' code; without, β = 1. The best factor does not exist where all predictions are zero, and where all drops
    are zero it makes every attribution perfect: NaN. NaN too where a prediction or a drop is not finite.

    Args:
        predicted: I·a, what the attribution says that the perturbation I takes from the output.
        drops: f(x) - f(x - I).
    """
    predicted, drops = (with_float64(values).double() for values in (predicted, drops))
    finite = predicted.isfinite().all(1) & drops.isfinite().all(1)
    if not rescale:
        return torch.where(finite, (predicted - drops).square().mean(1).float(), torch.nan)
    # Relative to the greatest, so that squares of very small predictions do not vanish.
    predicted = predicted / predicted.abs().amax(1, keepdim=True)
    factor = (predicted * drops).sum(1, keepdim=True) / predicted.square().sum(1, keepdim=True)
    scores = (factor * predicted - drops).square().mean(1).float()
    return torch.where(finite & ~(drops == 0).all(1), scores, torch.nan)


def random_squares(keys: Keys, size: int, *extents: int) -> Bool[Tensor, " batch *places"]:
    """Squares (segments, cubes) of this side, fully inside, at uniform places: row i depends on keys[i] only.

    On the CPU.
    """
    places = torch.tensor([extent - size + 1 for extent in extents])
    starts = (uniform(keys, (len(extents),)).double() * places).long().T[:, :, None]
    squares = torch.ones(len(keys), *[1] * len(extents), dtype=torch.bool)
    for axis, (start, extent) in enumerate(zip(starts, extents, strict=True), 1):
        shape = [-1 if place in (0, axis) else 1 for place in range(len(extents) + 1)]
        shape[0] = len(keys)
        squares = squares & _segment(start, size, extent).view(shape)
    return squares


def _segment(start: Tensor, size: int, length: int) -> Tensor:
    numbers = torch.arange(length)
    return (numbers >= start) & (numbers < start + size)
