"""Maps beside what they explain, or upon it: figures for notebooks."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lightning_xai.explainers.base import parse_bounds
from lightning_xai.functional.maps import pixel_map
from lightning_xai.reporting.colors import DIVERGING, SCALE_NOTE, scale_end
from lightning_xai.reporting.kinds import panel
from lightning_xai.reporting.pages import Page, styled
from lightning_xai.reporting.pictures import Picture, PictureGrid
from lightning_xai.reporting.saving import figure_pixels


def show(
    maps: Tensor | Mapping[str, Tensor],
    images: Tensor,
    bounds: Any = None,
    overlay: bool = False,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """A row for each input, a column for each method: a figure, which a notebook shows and `savefig` writes.

    Every map has a scale of its own, which ends at the 99th percentile of its absolute values; red is positive, blue
    negative, and of a map that is nowhere negative white is 0.

    Args:
        maps: Attributions of one method, or of several by name, shaped like the images.
        images: Inputs as the network gets them: images, volumes, series or tables.
        bounds: (low, high), what black and white are; None for the least and the greatest value of the images.
        overlay: Lay the maps over the images, in gray, the more opaque the larger their values; of images alone.
        labels: A text for each row.
        title: Above all.

    Raises:
        ValueError: if there are no images, if they and the maps are not of one shape, or for an overlay of what is not
            an image.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.rand(2, 1, 8, 8)
        >>> type(lx.show({"gradient": images - 0.5}, images, overlay=True)).__name__
        'Figure'
    """
    given = dict(maps) if isinstance(maps, Mapping) else {"map": maps}
    if overlay and images.ndim != 4:
        raise ValueError(f"`overlay` must be False for inputs of the shape {tuple(images.shape)}: they are no images.")
    low, high = parse_bounds(bounds, ndim=images.ndim) or (images.min(), images.max())
    figure = panel(images, given, (low, high), labels=labels, title=title)
    return displayed(_overlaid(images, given, (low, high), labels, title) if overlay else figure)


def displayed(figure: Figure) -> Figure:
    """The figure, which notebooks show also where pyplot has not been imported."""

    def picture() -> bytes:
        file = io.BytesIO()
        Image.fromarray(figure_pixels(figure)).save(file, format="png")
        return file.getvalue()

    figure.__dict__["_repr_png_"] = picture
    return figure


@styled
def _overlaid(
    images: Tensor,
    maps: Mapping[str, Tensor],
    bounds: tuple[Tensor, Tensor],
    labels: Sequence[str] | None,
    title: str | None,
) -> Figure:
    low, high = (end.to(images) for end in bounds)
    gray = ((images - low) / (high - low)).clamp(0, 1).mean(1).detach().float().cpu().numpy()
    grid = PictureGrid(gray.shape[1:], labels or [""] * len(gray), ["input", *maps], [1])
    page = Page([grid.width], [grid.height])
    axes = grid.prepare(page.axes())
    axes.set_yticks(grid.middles() if labels else [], labels or [])
    figure = page.finished(title or "", [SCALE_NOTE], least=3.0)
    for row, below in enumerate(gray):
        grid.show(row, 0, Picture(below))
        for column, found in enumerate(maps.values(), 1):
            grid.show(
                row, column, Picture(laid_over(pixel_map(found[row : row + 1].detach(), absolute=False)[0], below))
            )
    return figure


def laid_over(values: Tensor, below: np.ndarray) -> np.ndarray:
    """The colors of a map upon a gray picture (height, width): opaque where its scale ends, clear where it is 0."""
    numbers = np.nan_to_num(values.float().cpu().numpy())
    scaled = (numbers / scale_end(numbers)).clip(-1, 1)
    opacity = np.abs(scaled)[..., None]
    colors = DIVERGING(np.where(scaled < 0, 0.1, 0.9))[..., :3]
    return opacity * colors + (1 - opacity) * below[..., None]
