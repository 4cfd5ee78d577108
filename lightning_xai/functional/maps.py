"""From attributions to one value a place, and the masks that such maps are compared with.

The kind of input is the number of its axes: tables are (batch, feature), and have no channels; series (batch, channel,
time), images (batch, channel, height, width) and volumes (batch, channel, depth, height, width) have them second.
Inputs whose channels are elsewhere, such as token embeddings (batch, token, channel), are turned before and after
(`explainers.channels`).
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from lightning_xai.shapes import Maps, Masks


def by_channel(inputs: Tensor) -> Tensor:
    """As (batch, channel, *places): the features of a table are the places of one channel.

    Raises:
        ValueError: if `inputs` have less than two axes.
    """
    if inputs.ndim < 2:
        raise ValueError(
            "Inputs must be tables (batch, feature), or have channels, (batch, channel, ...); got shape "
            f"{tuple(inputs.shape)}."
        )
    return inputs[:, None] if inputs.ndim == 2 else inputs


def pixel_map(attributions: Tensor, absolute: bool) -> Maps:
    """The signed sum of the attributions over channels, if they have some, then its absolute value if `absolute`.

    Channels cancel before the absolute value is taken: the map says what the pixel as a whole contributes.
    Half precision and integers are computed in float32, float64 stays float64.

    Args:
        attributions: (batch, feature) or (batch, channel, ...); a plain tensor, because its shape is checked here. Keep
            an axis of length 1 where channels are summed.

    Raises:
        ValueError: if `attributions` has less than two axes.
    """
    maps = by_channel(attributions).to(torch.promote_types(attributions.dtype, torch.float32)).sum(1)
    return maps.abs() if absolute else maps


def scored_map(attributions: Tensor, absolute: bool) -> Maps:
    """`pixel_map`, all NaN for a sample with a NaN or an infinity in its attributions: such a map has no score."""
    maps = pixel_map(attributions, absolute)
    return torch.where(like_rows(all_finite(attributions), maps), maps, torch.nan)


def like_rows(values: Tensor, maps: Tensor) -> Tensor:
    """One value a sample, broadcasting against the samples' maps."""
    return values.view(-1, *[1] * (maps.ndim - 1))


def all_finite(attributions: Tensor) -> Bool[Tensor, " batch"]:
    """Whether all values of a sample are finite."""
    return attributions.flatten(1).isfinite().all(1)


def mask_like(mask: Tensor, maps: Maps) -> Masks:
    """`mask` on the device of `maps`, with the shape of these; an axis of one channel is accepted too.

    Raises:
        TypeError: if `mask` is not boolean.
        ValueError: if its shape is not that of `maps`.
    """
    if mask.dtype != torch.bool:
        raise TypeError(
            f"`mask` must be a boolean tensor, True where the evidence is; got {mask.dtype}. "
            "Compare with a threshold first, such as `mask > 0`."
        )
    squeezed = mask.squeeze(1) if mask.ndim == maps.ndim + 1 and mask.shape[1] == 1 else mask
    if squeezed.shape != maps.shape:
        shape, one_channel = tuple(maps.shape), (len(maps), 1, *maps.shape[1:])
        raise ValueError(
            f"`mask` must have the shape {shape} or {one_channel}, one value a pixel of the attributions, their "
            f"channels being summed; got {tuple(mask.shape)}. Resize it as the images were."
        )
    return squeezed.to(maps.device)
