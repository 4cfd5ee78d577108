"""Pictures of attributions: one row a sample, one column a method."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lightning_xai.functional.maps import mask_like, pixel_map
from lightning_xai.reporting.colors import FAINT, SCALE_NOTE, WRONG
from lightning_xai.reporting.pages import LINE, Page, styled
from lightning_xai.reporting.pictures import Picture, PictureGrid, map_picture, shown
from lightning_xai.shapes import Images


@styled
def attribution_panel(
    images: Images,
    attributions: Mapping[str, Tensor],
    bounds: tuple[Tensor, Tensor] | None,
    masks: Tensor | None = None,
    labels: Sequence[str] | None = None,
    predictions: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Inputs, masks if there are any, and the signed channel sums of each method's attributions.

    Every map has its own color scale, which ends at the 99th percentile of its absolute values. A method
    whose maps are nowhere negative gets a sequential scale from 0, any other a diverging one, white at 0.
    Values that are not finite are gray.

    Args:
        images: (batch, channel, height, width), in the network's space; one channel is shown in gray, three
            in color, of any other number the mean.
        attributions: method name -> attributions shaped like `images`, or their channel sums, with one channel; a
            column each, in this order.
        bounds: what black and white are in the network's space, each broadcasting against an image; None for the least
            and the greatest value of the images.
        masks: boolean, (batch, height, width) or (batch, 1, height, width).
        labels: the class of each image.
        predictions: the class that the network predicts, in red where it is not the label.
        title: text above the panel, broken into lines where it is wider.

    Raises:
        ValueError: if `images` is empty, or an argument does not have one entry of the right shape for each
            image.
    """
    for name, texts in {"labels": labels, "predictions": predictions}.items():
        if texts is not None and len(texts) != len(images):
            raise ValueError(f"`{name}` must have one entry for each of the {len(images)} images; got {len(texts)}.")
    if not len(images):
        raise ValueError("`images` must have at least one image to make a panel of; got none.")
    pictures = [("input", _inputs(images, bounds))]
    if masks is not None:
        pictures.append(("mask", [Picture(mask) for mask in mask_like(masks, images[:, 0]).float().cpu().numpy()]))
    methods = [(name, _maps(name, values, images)) for name, values in attributions.items()]
    columns = [*pictures, *methods]
    grid = PictureGrid(
        (images.shape[2], images.shape[3]), [""] * len(images), [name for name, _ in columns], [len(pictures)]
    )
    page = Page([grid.width], [grid.height])
    _name_rows(grid, grid.prepare(page.axes()), labels, predictions)
    for position, diverging in enumerate(dict.fromkeys(bool(maps[0].low) for _, maps in methods)):
        grid.draw_scale(diverging, position)
    figure = page.finished(title or "", [SCALE_NOTE] if methods else [], least=3.0 if methods else 0.0)
    for number, (_, shown_pictures) in enumerate(columns):
        for row, picture in enumerate(shown_pictures):
            grid.show(row, number, picture)
    return figure


# What a column shows


def _inputs(images: Tensor, bounds: tuple[Tensor, Tensor] | None) -> list[Picture]:
    low, high = (bound.to(images) for bound in bounds or (images.min(), images.max()))
    pixels = ((images - low) / (high - low)).detach().float().clamp(0, 1).cpu().numpy()
    return [Picture(shown(image)) for image in pixels]


def _maps(name: str, attributions: Tensor, images: Tensor) -> list[Picture]:
    if attributions.shape not in (images.shape, images[:, :1].shape):
        raise ValueError(
            f"`attributions` of {name!r} must be shaped like the images, {tuple(images.shape)}; "
            f"got {tuple(attributions.shape)}. Pass the same samples; summed channels keep an axis of length 1."
        )
    maps = pixel_map(attributions.detach(), absolute=False).cpu().numpy()
    diverging = bool((maps[np.isfinite(maps)] < 0).any())
    return [map_picture(values, diverging) for values in maps]


def _name_rows(grid: PictureGrid, axes: Axes, labels: Sequence[str] | None, predictions: Sequence[str] | None) -> None:
    """The label, and below it the prediction: in red where it is another one."""
    shift = LINE / 2 if labels and predictions else 0.0
    axes.set_yticks(grid.middles(-shift) if labels else [], labels or [])
    if predictions:
        axes.set_yticks(grid.middles(shift), [f"→ {prediction}" for prediction in predictions], minor=True)
        for text, label, prediction in zip(
            axes.get_yticklabels(minor=True), labels or predictions, predictions, strict=True
        ):
            text.set_color(FAINT if label == prediction else WRONG)
