"""Does an attribution say what the model does when the input changes?"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lightning_xai.functional.devices import with_float64
from lightning_xai.functional.random import fold_in, uniform
from lightning_xai.shapes import Inputs, Keys, Maps, Scores


def random_subsets(keys: Keys, num_subsets: int, subset_size: int, num_pixels: int) -> Int64[Tensor, "batch subset k"]:
    """Random pixels without replacement: row i depends on keys[i] and the subset's number only; on the CPU."""
    numbers = torch.arange(num_subsets)
    draws = uniform(fold_in(keys[:, None], numbers).flatten(), (num_pixels,))
    return draws.topk(subset_size, dim=1).indices.unflatten(0, (len(keys), num_subsets))


def replace_pixels(images: Inputs, pixels: Int64[Tensor, " batch k"], baseline: Tensor) -> Inputs:
    """(batch, channel, *places), all channels of some pixels (row-major numbers) set to the baseline."""
    chosen = torch.zeros(len(images), images.shape[2:].numel(), dtype=torch.bool, device=images.device)
    chosen = chosen.scatter_(1, pixels, True).view(len(images), 1, *images.shape[2:])
    return torch.where(chosen, baseline, images)


def subset_sums(maps: Maps, subsets: Int64[Tensor, " batch subset k"]) -> Float[Tensor, " batch subset"]:
    """Sum of a map over each subset of its pixels."""
    values = maps.flatten(1)[:, None].expand(-1, subsets.shape[1], -1)
    return values.gather(2, subsets).sum(2)


def pearson(x: Float[Tensor, " batch n"], y: Float[Tensor, " batch n"]) -> Scores:
    """Pearson correlation of each row, in float64; NaN where a row is constant."""
    x, y = with_float64(x), with_float64(y)
    # Asked before the means are taken, whose rounding would leave a constant row a little variance.
    constant = (x.amax(1) == x.amin(1)) | (y.amax(1) == y.amin(1))
    x, y = (values.double() - values.double().mean(1, keepdim=True) for values in (x, y))
    correlation = (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(constant, torch.nan, correlation).float()


def pixel_ranks(maps: Maps) -> Int64[Tensor, " batch *places"]:
    """Place of each pixel from the highest value, 0, down; equal values in the order of the pixels."""
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    return (
        torch.empty_like(order)
        .scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
        .view_as(maps)
    )


def area_under_curve(curve: Float[Tensor, " batch points"]) -> Scores:
    """Area under equally spaced points on [0, 1], by the trapezoidal rule."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)
