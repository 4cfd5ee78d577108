"""Pictures of global explanations: images by method, and how their activation rose."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD, text_width
from lightning_xai.reporting.pages import FAINT, SMALL, Page, num_lines, wrapped

Pictures = Float[np.ndarray, "image channel height width"]
"""Pixels from 0 to 1."""

_GAP = 0.06
_COLORS = ("0.1", "#0072b2", "#d55e00", "#009e73")


def gallery_figure(
    pictures: Mapping[str, Pictures],
    captions: Mapping[str, Sequence[str]],
    titles: Sequence[str],
    heading: str,
    notes: Sequence[str],
) -> Figure:
    """A row a method, a column an image.

    Args:
        pictures: By method.
        captions: A text below each image, by method.
        titles: Of the columns.
        heading: Above.
        notes: Below.
    """
    count, _, height, width = next(iter(pictures.values())).shape
    cell = 0.95 if max(height, width) <= 64 else 1.45
    cell_height, cell_width = cell * height / max(height, width), cell * width / max(height, width)
    texts = [wrapped(title, cell_width) for title in titles]
    left = max(text_width(name) for name in pictures) + 2 * PAD
    first = LINE * max(map(num_lines, texts)) + PAD
    pitch = cell_height + LINE + 2 * _GAP
    page = Page(max(left + count * (cell_width + _GAP) + PAD, 4.0), first + len(pictures) * pitch + PAD, heading, notes)
    for column, text in enumerate(texts):
        middle = left + column * (cell_width + _GAP) + cell_width / 2
        page.text(middle, page.top + first - PAD / 2, text, ha="center", va="bottom")
    for row, (name, images) in enumerate(pictures.items()):
        top = page.top + first + row * pitch
        page.text(left - PAD, top + cell_height / 2, name, ha="right", va="center")
        for column, image in enumerate(images):
            start = left + column * (cell_width + _GAP)
            axes = page.axes(start, top, cell_width, cell_height)
            axes.imshow(shown(image), cmap=matplotlib.colormaps["gray"], vmin=0, vmax=1, aspect="auto")
            axes.set_axis_off()
            caption = captions[name][column]
            below = top + cell_height + _GAP / 2
            page.text(start + cell_width / 2, below, caption, size=SMALL, color=FAINT, ha="center", va="top")
    return page.figure


def trace_figure(traces: Mapping[str, Float[np.ndarray, "step image"]], what: str, notes: Sequence[str]) -> Figure:
    """Mean activation over the images in each step, a curve a method."""
    page = Page(5.0, 2.9, f"How the {what} rises while the images are made", notes)
    axes = page.axes(0.6, page.top + PAD, 4.2, 2.3)
    for (name, trace), color in zip(traces.items(), _COLORS, strict=False):
        axes.plot(np.arange(1, len(trace) + 1), trace.mean(1), color=color, lw=0.9, label=name)
    axes.set_xlabel("step", size=FONT_SIZE)
    axes.set_ylabel(f"{what}, mean over the images", size=FONT_SIZE)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower right")
    return page.figure


def shown(image: Float[np.ndarray, "channel height width"]) -> np.ndarray:
    """As `imshow` and picture files have it: gray (height, width) or colors last; of other channels the mean."""
    return np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(0)
