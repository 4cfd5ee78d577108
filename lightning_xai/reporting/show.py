"""Maps beside what they explain, or upon it: figures for notebooks."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lightning_xai.explainers.base import check_count, parse_bounds
from lightning_xai.functional.maps import pixel_map
from lightning_xai.reporting.colors import DIVERGING, SCALE_NOTE, scale_end
from lightning_xai.reporting.kinds import panel
from lightning_xai.reporting.pages import Page, styled
from lightning_xai.reporting.pictures import Picture, PictureGrid
from lightning_xai.reporting.saving import figure_pixels


def show(
    maps: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    images: Tensor | np.ndarray,
    bounds: Any = None,
    overlay: bool = False,
    labels: Sequence[Any] | Tensor | np.ndarray | None = None,
    title: str | None = None,
    num_shown: int | None = 8,
) -> Figure:
    """A row for each input, a column for each method: a figure, which a notebook shows and `savefig` writes.

    Every map has a scale of its own, which ends at the 99th percentile of its absolute values; red is positive, blue
    negative, and of a map that is nowhere negative white is 0. What is undefined (NaN) is gray.

    Args:
        maps: Attributions of one method, or of several by name, shaped like the images.
        images: Inputs as the network gets them: images, volumes, series or tables.
        bounds: (low, high), what black and white are; None for the least and the greatest value of the images; where
            these are equal, the images are gray.
        overlay: Lay the maps over the images, in gray, the more opaque the larger their values; of images alone.
        labels: A text or a number for each row.
        title: Above all.
        num_shown: The first inputs, so many, are shown, and the title says how many there are; None shows all.

    Raises:
        ValueError: if there are no images, if they and the maps are not of one shape, for an overlay of what is not an
            image, or if `num_shown` is less than 1.
        TypeError: for images or maps that are neither a tensor nor an array, such as a list.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.rand(2, 1, 8, 8)
        >>> type(lx.show({"gradient": images - 0.5}, images, overlay=True)).__name__
        'Figure'
    """
    named = maps.items() if isinstance(maps, Mapping) else [("map", maps)]
    images, given = _tensor("images", images), {name: _tensor("maps", values) for name, values in named}
    if overlay and images.ndim != 4:
        raise ValueError(f"`overlay` must be False for inputs of the shape {tuple(images.shape)}: they are no images.")
    ends = parse_bounds(bounds, ndim=images.ndim) or _ends(images)
    texts = None if labels is None else [str(label) for label in np.asarray(labels).tolist()]
    check_count("num_shown", 1 if num_shown is None else num_shown)
    number, all_lengths = len(images), {len(part) for part in (images, *given.values(), texts or images)}
    if num_shown is not None and number > num_shown and len(all_lengths) == 1:  # what does not fit is refused below
        title = "; ".join(filter(None, [title, f"the first {num_shown} of {number}, num_shown=None shows all"]))
        images, given = images[:num_shown], {name: values[:num_shown] for name, values in given.items()}
        texts = texts and texts[:num_shown]
    figure = panel(images, given, ends, labels=texts, title=title)
    return displayed(_overlaid(images, given, ends, texts, title) if overlay else figure)


def _tensor(name: str, values: Any) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(
            f"`{name}` must be a tensor or an array (batch, ...), got a {type(values).__name__}. Give several maps as "
            "a dictionary, by the names of their methods."
        )
    found = torch.as_tensor(values).detach().cpu()
    return found if found.is_floating_point() else found.float()


def _ends(images: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest value; where they are equal, what has it in the middle."""
    finite = images[images.isfinite()]
    low, high = (finite.min(), finite.max()) if len(finite) else (torch.zeros(()), torch.zeros(()))
    return (low, high) if low < high else (low - 0.5, high + 0.5)


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
    """The colors of a map upon a gray picture (height, width): opaque where its scale ends, clear where it is 0.

    What is undefined is as opaque, in the gray that it has in all maps.
    """
    numbers = values.float().cpu().numpy()
    known = np.isfinite(numbers)
    scaled = np.where(known, numbers / scale_end(numbers), np.nan).clip(-1, 1)
    opacity = np.where(known, np.abs(scaled), 1.0)[..., None]
    colors = DIVERGING(np.where(known, np.where(scaled < 0, 0.1, 0.9), np.nan))[..., :3]
    return opacity * colors + (1 - opacity) * below[..., None]
