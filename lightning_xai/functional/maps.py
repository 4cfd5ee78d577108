"""From attributions to one value a pixel, and the masks that such maps are compared with."""

import torch
from jaxtyping import Bool
from torch import Tensor

from lightning_xai.shapes import Maps, Masks


def pixel_map(attributions: Tensor, absolute: bool) -> Maps:
    """The signed sum of the attributions over channels, then its absolute value if `absolute`.

    Channels cancel before the absolute value is taken: the map says what the pixel as a whole contributes.
    Half precision and integers are computed in float32, float64 stays float64.

    Args:
        attributions: (batch, channel, height, width); a plain tensor, because its shape is checked here.

    Raises:
        ValueError: if `attributions` does not have four axes.
    """
    if attributions.ndim != 4:
        raise ValueError(
            "`attributions` must have the shape (batch, channel, height, width), one value for each input "
            f"element; got {tuple(attributions.shape)}. Keep an axis of length 1 where channels are summed."
        )
    maps = attributions.to(torch.promote_types(attributions.dtype, torch.float32)).sum(1)
    return maps.abs() if absolute else maps


def scored_map(attributions: Tensor, absolute: bool) -> Maps:
    """`pixel_map`, all NaN for a sample with a NaN or an infinity in its attributions: such a map has no score."""
    maps = pixel_map(attributions, absolute)
    return torch.where(all_finite(attributions).view(-1, 1, 1), maps, torch.nan)


def all_finite(attributions: Tensor) -> Bool[Tensor, " batch"]:
    """Whether all values of a sample are finite."""
    return attributions.flatten(1).isfinite().all(1)


def mask_like(mask: Tensor, maps: Maps) -> Masks:
    """`mask` on the device of `maps`, as (batch, height, width); (batch, 1, height, width) is accepted too.

    Raises:
        TypeError: if `mask` is not boolean.
        ValueError: if its shape is not that of `maps`.
    """
    if mask.dtype != torch.bool:
        raise TypeError(
            f"`mask` must be a boolean tensor, True where the evidence is; got {mask.dtype}. "
            "Compare with a threshold first, such as `mask > 0`."
        )
    squeezed = mask.squeeze(1) if mask.ndim == 4 and mask.shape[1] == 1 else mask
    if squeezed.shape != maps.shape:
        batch, height, width = maps.shape
        raise ValueError(
            f"`mask` must have the shape ({batch}, {height}, {width}) or ({batch}, 1, {height}, {width}), "
            f"one value a pixel of the attributions; got {tuple(mask.shape)}. Resize it as the images were."
        )
    return squeezed.to(maps.device)
