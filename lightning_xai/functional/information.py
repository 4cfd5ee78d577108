"""The Performance Information Curve of XRAI (Kapishnikov et al. 2019), as far as it needs no image coder."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from lightning_xai.shapes import Images, Maps, Masks, Scores

Knots = Float[Tensor, " batch knot 2"]
"""Points (x, y) of a curve, x ascending."""


def revealed_pixels(
    ranks: Int64[Tensor, " batch height width"], always: Masks, counts: list[int]
) -> Bool[Tensor, " count batch height width"]:
    """For each count, the pixels of a rank below it, and those that are always revealed."""
    return (ranks < torch.tensor(counts, device=ranks.device).view(-1, 1, 1, 1)) | always


def shared_ranks(maps: Maps) -> Int64[Tensor, " batch height width"]:
    """How many pixels have a higher value: 0 for the highest, the same for equal ones."""
    falling = -maps.flatten(1)
    return torch.searchsorted(falling.sort(1).values, falling).view_as(maps)


def fill_holes(images: Images, known: Masks) -> Images:
    """The images with unknown pixels interpolated smoothly from the known ones, of which each needs at least one.

    A pull-push pyramid (Gortler et al. 1996): a coarse pixel is the mean of the known ones among the four beneath it,
    down to a single pixel; on the way back holes are filled by bilinear interpolation from the coarser level. A known
    pixel keeps its value, and a constant stays constant.
    """
    height, width = images.shape[2:]
    if height == width == 1:
        return images
    weights = known[:, None].to(images)
    share = avg_pool2d(weights, 2, ceil_mode=True)
    means = avg_pool2d(images * weights, 2, ceil_mode=True) / share.clamp(min=0.25)
    coarse = fill_holes(means, share[:, 0] > 0)
    smooth = interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[:, :, :height, :width]
    return torch.where(known[:, None], images, smooth)


def normalize(values: Float[Tensor, " batch point"], low: Scores, high: Scores) -> Float[Tensor, " batch point"]:
    """(values - low) / (high - low), clipped to [0, 1]; NaN where `high` is not above `low`."""
    span = torch.where(high > low, high - low, torch.nan)
    return ((values - low[:, None]) / span[:, None]).clamp(0, 1)


def information_curve(
    x: Float[Tensor, " batch point"], y: Float[Tensor, " batch point"], zero_first: bool = True
) -> Knots:
    """The curve of points in the order in which pixels were revealed: y made monotone, the ends added, sorted by x.

    Args:
        zero_first: Whether (0, 0) is the first of the points at x = 0, or as in the published code the last.
    """
    zero, one = torch.zeros_like(x[:, :1]), torch.ones_like(x[:, :1])
    y = y.cummax(1).values
    xs, ys = ([zero, x, one], [zero, y, one]) if zero_first else ([x, zero, one], [y, zero, one])
    ordered, order = torch.cat(xs, 1).sort(dim=1, stable=True)
    return torch.stack([ordered, torch.cat(ys, 1).gather(1, order)], 2)


def area_under_knots(knots: Knots) -> Scores:
    """Area under the straight lines between the points."""
    return torch.trapezoid(knots[..., 1], knots[..., 0], dim=1)


def interpolate_knots(knots: Knots, at: Float[Tensor, " place"]) -> Float[Tensor, " batch place"]:
    """Height of each curve at places from the first to the last x; of points above one another, the last one's."""
    x, y = (column.contiguous() for column in knots.unbind(2))
    after = torch.searchsorted(x, at.expand(len(x), -1).contiguous(), right=True).clamp(1, x.shape[1] - 1)
    left, right = x.gather(1, after - 1), x.gather(1, after)
    share = torch.where(right > left, (at - left) / (right - left), 1.0)
    return y.gather(1, after - 1).lerp(y.gather(1, after), share)


def median(curves: Float[Tensor, " batch place"]) -> Float[Tensor, " place"]:
    """Median over the rows, the mean of the middle two of an even number; NaN of none."""
    if not len(curves):
        return curves.new_full(curves.shape[1:], torch.nan)
    ordered = curves.sort(0).values
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
