"""Pictures of global explanations: images by method, and how their activation rose."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from lightning_xai.reporting.colors import FAINT
from lightning_xai.reporting.curves import Curve, CurveAxes, curves_figure
from lightning_xai.reporting.pages import LINE, SMALL, Page, styled
from lightning_xai.reporting.pictures import Picture, PictureGrid, shown

Pictures = Float[np.ndarray, "image channel height width"]
"""Pixels from 0 to 1."""


@styled
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
    _, _, height, width = next(iter(pictures.values())).shape
    grid = PictureGrid((height, width), list(pictures), titles, below=1.2 * LINE)
    page = Page([grid.width], [grid.height])
    grid.prepare(page.axes())
    for row, (name, images) in enumerate(pictures.items()):
        for column, image in enumerate(images):
            grid.show(row, column, Picture(shown(image)))
            grid.write(row, column, captions[name][column], below=True, size=SMALL, color=FAINT)
    return page.finished(heading, notes, least=4.0)


def trace_figure(traces: Mapping[str, Float[np.ndarray, "step image"]], what: str, notes: Sequence[str]) -> Figure:
    """Mean activation over the images in each step, a curve a method."""
    curves = [Curve(name, (np.arange(1, len(trace) + 1), trace.mean(1))) for name, trace in traces.items()]
    axes = CurveAxes("", "step", f"{what}, mean over the images", curves)
    return curves_figure(f"How the {what} rises while the images are made", [axes], notes)
