"""How alike two attributions of the same image are: one score a sample.

Both arguments are (batch, feature) or (batch, channel, ...), of any device and type; what is compared are their pixel
maps, the signed sums over channels, in float64. Scores are float32 on the CPU, 1 for identical maps, the same when the
arguments change places. NaN where undefined: a map that is not finite, constant where a correlation is asked for, or
zero where it is normalized.
"""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from skimage.feature import hog as hog_features
from skimage.metrics import structural_similarity
from torch import Tensor

from lightning_xai.explainers.base import check_choice
from lightning_xai.functional.bounds import bound_tolerance
from lightning_xai.functional.faithfulness import pearson as correlation
from lightning_xai.functional.maps import all_finite, by_channel, like_rows, mask_like, pixel_map
from lightning_xai.functional.scales import sample_range
from lightning_xai.shapes import Inputs, Maps, Masks, Scores

Normalizer = Literal["none", "maximum", "percentile", "second_moment", "range"]
Preset = Literal["paper", "notebook"]
Similarity = Callable[..., Scores]

HOG_CELL = 16
"""Pixels a side of a cell of oriented gradients, where the image has room for a block of 3 x 3 cells."""

_BLOCK = 3


class TooSmallError(ValueError):
    """Maps have fewer pixels, or axes, than a similarity needs."""


def spearman(first: Tensor, second: Tensor) -> Scores:
    """Spearman's rank correlation of the signed maps; equal values share their average rank.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import spearman
        >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 11.0, 99.0]]))
        tensor([1.])
    """
    return _rank_correlation(*_map_pair(first, second))


def spearman_absolute(first: Tensor, second: Tensor) -> Scores:
    """Spearman's rank correlation of the absolute maps, in which the sign of a pixel's evidence does not count.

    Pixels that are zero in both maps tie at the lowest rank of both: with a large background that no method attributes
    to (input times gradient and integrated gradients from black, on MNIST) the score is near 1 for any two models.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import spearman_absolute
        >>> spearman_absolute(torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[-1.0, 2.0, -3.0]]))
        tensor([1.])
    """
    return _rank_correlation(*_map_pair(first, second, absolute=True))


def spearman_foreground(first: Tensor, second: Tensor, foreground: Tensor) -> Scores:
    """`spearman_absolute` of the pixels of the foreground alone, so that a background of ties does not count.

    Args:
        foreground: Booleans, one a place, such as `foreground_mask` makes.

    Raises:
        ValueError: if the shapes differ, or `foreground` is not of the places of the maps.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import spearman_absolute, spearman_foreground
        >>> maps = torch.tensor([[0.0, 0.0, 1.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0, 1.0]])
        >>> spearman_absolute(*maps), spearman_foreground(*maps, maps[0] > 0)
        (tensor([0.7778]), tensor([-1.]))
    """
    maps = _map_pair(first, second, absolute=True)
    return _rank_correlation(*maps, mask_like(foreground, maps[0]))


def pearson(first: Tensor, second: Tensor) -> Scores:
    """Pearson's correlation of the signed maps.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import pearson
        >>> pearson(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[6.0, 4.0, 2.0]]))
        tensor([-1.])
    """
    x, y = _map_pair(first, second)
    return correlation(x.flatten(1), y.flatten(1))


def cosine(first: Tensor, second: Tensor) -> Scores:
    """Cosine of the angle between the signed maps as vectors, whatever their lengths; NaN if one of them is zero.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import cosine
        >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([0.7071])
    """
    # PyTorch's cosine_similarity bounds the lengths from below, which pulls maps of small values towards 0.
    x, y = (normalize(maps, "second_moment").flatten(1) for maps in _map_pair(first, second))
    return (x * y).mean(1).float()


def ssim(
    first: Tensor,
    second: Tensor,
    normalizer: Normalizer = "maximum",
    absolute: bool = False,
    gaussian: bool = False,
) -> Scores:
    """Mean structural similarity (Wang et al. 2004), as scikit-image computes it: sample covariances, no border.

    torchmetrics pads by reflection, averages over the border too and divides by the number of pixels. `data_range` is
    the greatest absolute value of the two normalized maps, twice that if they have signs: 2 for maps in [-1, 1]. A
    map and its negative can be alike, because the product of two negative factors, of means and of structure, is
    positive; `absolute` compares the absolute maps instead, so that the sign does not count.

    Args:
        normalizer: See `normalize`.
        absolute: Take absolute values before the maps are normalized.
        gaussian: Windows weighted by a Gaussian of std 1.5, 11 pixels wide, instead of uniform ones of 5 x 5.

    Raises:
        TooSmallError: (a ValueError) if the window does not fit into the maps, or they are those of tables.
        ValueError: if the shapes differ, or `normalizer` is unknown.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import ssim
        >>> maps, others = torch.rand(2, 1, 1, 16, 16)
        >>> ssim(maps, maps), ssim(maps, others) < 0.5
        (tensor([1.]), tensor([True]))
    """
    if first.ndim < 3:
        raise TooSmallError("Attributions must have places side by side for SSIM; those of a table have none.")
    x, y = (normalize(maps, normalizer) for maps in _map_pair(first, second, absolute))
    _check_size(x, 11 if gaussian else 5, "the window of SSIM", "leave SSIM out")
    greatest = torch.maximum(x.abs().flatten(1).amax(1), y.abs().flatten(1).amax(1))
    ranges = greatest if absolute or normalizer == "range" else 2 * greatest
    options = {"gaussian_weights": True} if gaussian else {"win_size": 5}
    scores = [
        structural_similarity(one, other, data_range=size, **options) if size > 0 else np.nan
        for one, other, size in zip(x.numpy(), y.numpy(), ranges.tolist(), strict=True)
    ]
    return torch.tensor(scores, dtype=torch.float32)


def hog(
    first: Tensor,
    second: Tensor,
    normalizer: Normalizer = "maximum",
    cell_size: int | None = None,
    ranks: bool = False,
) -> Scores:
    """Correlation of the histograms of oriented gradients of the signed maps, by scikit-image.

    9 unsigned orientations, so that a map and its negative are alike; blocks of 3 x 3 cells.

    Args:
        normalizer: See `normalize`.
        cell_size: Pixels a side of a cell; None for `hog_cell_size`, the published 16 where the maps are large enough.
        ranks: Spearman's correlation instead of Pearson's.

    Raises:
        TooSmallError: (a ValueError) if the maps have no room for a block, or are not those of images.
        ValueError: if the shapes differ, or `normalizer` is unknown.

    Source: Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import hog
        >>> maps = torch.rand(2, 1, 16, 16)
        >>> hog(maps, -maps)
        tensor([1., 1.])
    """
    x, y = (normalize(maps, normalizer) for maps in _map_pair(first, second))
    if x.ndim != 3:
        raise TooSmallError(f"Attributions must be of images for HOG, got shape {tuple(first.shape)}: leave it out.")
    cell_size = hog_cell_size(*x.shape[1:]) if cell_size is None else cell_size
    if cell_size < 2:
        raise TooSmallError(f"`cell_size` must be at least 2, got {cell_size}; maps of less than 6 pixels have no HOG.")
    _check_size(x, _BLOCK * cell_size, f"{_BLOCK} cells of `cell_size` {cell_size}", "give a smaller one")
    return (_rank_correlation if ranks else correlation)(_histograms(x, cell_size), _histograms(y, cell_size))


def hog_cell_size(height: int, width: int) -> int:
    """16, or as much less as lets three cells fit into the shorter side: 9 for MNIST, 10 for CIFAR-10."""
    return min(HOG_CELL, min(height, width) // _BLOCK)


def normalize(maps: Maps, normalizer: Normalizer) -> Maps:
    """Maps on a common scale; NaN where the scale is zero.

    "maximum" divides by the greatest absolute value, so that maps lie in [-1, 1]; "percentile" by the 99th percentile
    of the absolute values, and cuts off what lies beyond [-1, 1]; "second_moment" by the root of the mean square, which
    one outlying pixel does not govern (Binder et al. 2023); "range" maps the least value to 0 and the greatest to 1;
    "none" does nothing.
    """
    check_choice("normalizer", normalizer, Normalizer)
    if normalizer == "none":
        return maps
    if normalizer == "range":
        low, high = (like_rows(ends, maps) for ends in (maps.flatten(1).amin(1), maps.flatten(1).amax(1)))
        return (maps - low) / (high - low)
    scale_of = {
        "maximum": lambda sizes: sizes.amax(1),
        "percentile": lambda sizes: sizes.quantile(0.99, dim=1),
        "second_moment": lambda sizes: sizes.square().mean(1).sqrt(),
    }
    scale = scale_of[normalizer](maps.abs().flatten(1))
    scaled = maps / like_rows(torch.where(scale > 0, scale, torch.nan), maps)
    return scaled.clamp(-1, 1) if normalizer == "percentile" else scaled


def foreground_mask(images: Inputs, background: Tensor | float) -> Masks:
    """Where an image differs from the background in some channel, by more than rounding.

    The tolerance is that of `functional.bounds` for an image whose range begins at the background.

    Args:
        background: The background's value in the space of the images: a number, or a tensor that broadcasts against an
            image, such as the lower bound that a data module gives for black.
    """
    x = images.to(torch.promote_types(images.dtype, torch.float32))
    low = torch.as_tensor(background, dtype=x.dtype, device=x.device)
    return by_channel((x - low).abs() > bound_tolerance(low, low + sample_range(x), images.dtype)).any(1)


def named_similarities(preset: Preset = "paper", normalizer: Normalizer | None = None) -> dict[str, Similarity]:
    """All similarities by name.

    Args:
        preset: Settings of SSIM and HOG: of the paper of Adebayo et al. 2018, or of the notebook released with it,
            where SSIM has Gaussian windows and HOG features are compared by Spearman's correlation.
        normalizer: Of the maps that SSIM and HOG compare (see `normalize`); the others do not depend on the scale. None
            for the preset's: "maximum" of the paper, "range" of the notebook.
    """
    check_choice("preset", preset, Preset)
    notebook = preset == "notebook"
    scale: Normalizer = ("range" if notebook else "maximum") if normalizer is None else normalizer
    check_choice("normalizer", scale, Normalizer)
    return {
        "spearman": spearman,
        "spearman_absolute": spearman_absolute,
        "spearman_foreground": spearman_foreground,
        "pearson": pearson,
        "cosine": cosine,
        "ssim": partial(ssim, normalizer=scale, gaussian=notebook),
        "ssim_absolute": partial(ssim, normalizer=scale, gaussian=notebook, absolute=True),
        "hog": partial(hog, normalizer=scale, ranks=notebook),
    }


def describe(similarity: Similarity) -> str:
    """The function's name, and the options that it was given by `functools.partial`."""
    if isinstance(similarity, partial):
        options = ", ".join(f"{name}={value!r}" for name, value in similarity.keywords.items())
        return f"{describe(similarity.func)}({options})"
    return getattr(similarity, "__qualname__", repr(similarity))


SIMILARITIES: Mapping[str, Similarity] = MappingProxyType(named_similarities())
"""All similarities by name, with the settings of the paper where it has some."""

PUBLISHED = ("spearman", "spearman_absolute", "ssim", "hog")
"""Names of the similarities of Adebayo et al. 2018."""

PRESETS: Mapping[str, Mapping[str, Similarity]] = MappingProxyType(
    {
        preset: MappingProxyType({name: named_similarities(preset)[name] for name in PUBLISHED})
        for preset in get_args(Preset)
    }
)
"""The published similarities, as the paper describes them and as the notebook released with it computes them."""


def compare(
    first: Tensor,
    second: Tensor,
    similarities: Mapping[str, Similarity] = PRESETS["paper"],
    foreground: Tensor | None = None,
) -> dict[str, Scores]:
    """The scores of several similarities, by name.

    Args:
        similarities: Functions by name, such as `SIMILARITIES` or one of the `PRESETS`.
        foreground: The mask that `spearman_foreground` needs; the others do not look at it.

    Returns:
        Scores (batch,) by name.

    Raises:
        ValueError: if the shapes differ, a similarity does not admit the maps, or `foreground` is missing.

    Example:
        >>> import torch
        >>> from lightning_xai.sanity.similarity import SIMILARITIES, compare
        >>> maps = torch.rand(2, 1, 16, 16) - 0.5
        >>> chosen = {name: SIMILARITIES[name] for name in ("spearman", "spearman_absolute")}
        >>> compare(maps, -maps, chosen)
        {'spearman': tensor([-1., -1.]), 'spearman_absolute': tensor([1., 1.])}
    """
    scores = {}
    for name, similarity in similarities.items():
        masked = takes_foreground(similarity)
        if masked and foreground is None:
            raise ValueError(
                f"`similarities`: {name!r} needs `foreground`, a mask of the pixels to compare; give one "
                "(`foreground_mask` finds the pixels that differ from the background), or leave the similarity out."
            )
        scores[name] = similarity(first, second, **({"foreground": foreground} if masked else {}))
    return scores


def takes_foreground(similarity: Similarity) -> bool:
    """Whether it compares the pixels of a mask alone."""
    return "foreground" in signature(similarity).parameters


def _map_pair(first: Tensor, second: Tensor, absolute: bool = False) -> tuple[Maps, Maps]:
    """The pixel maps in float64 on the CPU; a map with a value that is not finite becomes NaN all over."""
    if first.shape != second.shape:
        raise ValueError(
            f"`first` and `second` must be attributions of the same inputs, of one shape; got {tuple(first.shape)} "
            f"and {tuple(second.shape)}."
        )
    x, y = (pixel_map(attributions.detach(), absolute).cpu().double() for attributions in (first, second))
    x, y = (torch.where(like_rows(all_finite(maps), maps), maps, torch.nan) for maps in (x, y))
    return x, y


def _rank_correlation(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Scores:
    """Pearson's correlation of average ranks, of all pixels or of the masked ones."""
    if mask is None:
        return correlation(_ranks(x), _ranks(y))
    # The background goes below all else, which shifts the ranks of the foreground by one number, and then to the
    # foreground's mean rank, where it adds nothing to the sums of the correlation.
    pair, inside = (_ranks(torch.where(mask, values, -torch.inf)) for values in (x, y)), mask.flatten(1)
    filled = (torch.where(inside, r, (r * inside).sum(1, True) / inside.sum(1, True)) for r in pair)
    return correlation(*filled)


def _ranks(values: Tensor) -> Float[Tensor, "batch n"]:
    return torch.from_numpy(rankdata(values.flatten(1).numpy(), axis=1))


def _histograms(maps: Maps, cell_size: int) -> Float[Tensor, "batch n"]:
    """HOG features; an undefined map counts as zero, whose features are constant and so without a correlation."""
    options = {"pixels_per_cell": (cell_size, cell_size), "cells_per_block": (_BLOCK, _BLOCK)}
    return torch.tensor(np.stack([hog_features(image, **options) for image in maps.nan_to_num().numpy()]))


def _check_size(maps: Maps, least: int, what: str, advice: str) -> None:
    extents = maps.shape[1:]
    if min(extents) < least:
        needed, got = (" x ".join(map(str, sizes)) for sizes in ([least] * len(extents), extents))
        raise TooSmallError(
            f"Attributions must have at least {needed} pixels for {what}, got {got}: {advice}, or compare larger "
            "images."
        )
