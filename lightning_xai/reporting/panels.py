"""Pictures of attributions: one row a sample, one column a method."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from lightning_xai.functional.maps import mask_like, pixel_map
from lightning_xai.reporting.colors import DIVERGING, PERCENTILE, SCALE_NOTE, SEQUENTIAL, scale_end
from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD, Box, Layout, fit_layout, text_width
from lightning_xai.reporting.pages import num_lines, wrapped
from lightning_xai.reporting.saving import Pixels
from lightning_xai.shapes import Images

_RESOLUTION = 200
_TEXT, _FAINT, _WRONG = "0.1", "0.45", "#b2182b"
_SMALL, _LARGE = FONT_SIZE - 1, FONT_SIZE + 1
_BAR_WIDTH, _BAR_HEIGHT = 1.2, 0.08
_BAR_PITCH = _BAR_WIDTH + 6 * PAD


def attribution_panel(
    images: Images,
    attributions: Mapping[str, Tensor],
    bounds: tuple[Tensor, Tensor],
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
        bounds: what black and white are in the network's space, each broadcasting against an image.
        masks: boolean, (batch, height, width) or (batch, 1, height, width).
        labels: the class of each image.
        predictions: the class that the network predicts, in red where it is not the label.
        title: text above the panel, broken into lines where it is wider.

    Raises:
        ValueError: if `images` is empty, or an argument does not have one entry of the right shape for each
            image.
    """
    rows = _row_labels(len(images), labels, predictions)
    pictures = [_input_column(images, bounds), *([] if masks is None else [_mask_column(masks, images)])]
    methods = [_method_column(name, values, images) for name, values in attributions.items()]
    layout = fit_layout(
        (images.shape[2], images.shape[3]),
        num_rows=len(images),
        num_pictures=len(pictures),
        column_titles=[column.title for column in (*pictures, *methods)],
        row_texts=[text for row in rows for text in (row.label, row.prediction)],
        bottom=2 * PAD + 3 * LINE if methods else PAD,
        least_width=_legend_width(methods),
    )
    heading = wrapped(title or "", layout.width - layout.left - PAD, _LARGE, "bold")
    if heading:
        layout = replace(layout, top=layout.top + (num_lines(heading) + 0.5) * LINE)
    figure = Figure(figsize=(layout.width, layout.height), dpi=_RESOLUTION, facecolor="white")
    sheet = _sheet(figure)
    _text(figure, layout, layout.left, PAD, heading, size=_LARGE, va="top", weight="bold")
    for position, column in enumerate((*pictures, *methods)):
        _draw_column(sheet, layout, position, column)
    _draw_row_labels(figure, layout, rows)
    _draw_legend(sheet, layout, methods)
    sheet.set(xlim=(0, layout.width), ylim=(layout.height, 0))  # which each picture has changed
    return figure


def log_picture(logger: Any, tag: str, path: str | os.PathLike[str], step: int) -> None:
    """Hand a PNG to a Lightning logger that shows pictures; others, and None, are left alone.

    Those are loggers with a `log_image(key, images, step)` (Weights & Biases) and those whose `experiment`
    has TensorBoard's `add_image`. PyTorch's writer of TensorBoard's files gets the file as it is.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(logger, "log_image"):
        logger.log_image(key=tag, images=[_read(path)], step=step)
    elif type(experiment).__module__ == "torch.utils.tensorboard.writer" and hasattr(experiment, "_get_file_writer"):
        experiment._get_file_writer().add_summary(_summary(tag, Path(path)), step)  # a new one behind a closed one
    elif add_image := getattr(experiment, "add_image", None):
        add_image(tag, _read(path), step, dataformats="HWC")


def _read(path: str | os.PathLike[str]) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _summary(tag: str, path: Path) -> Any:
    """What TensorBoard's `add_image` would make of the pixels, without compressing them a second time."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # only where TensorBoard is installed

    with Image.open(path) as picture:
        size = {"width": picture.width, "height": picture.height, "colorspace": len(picture.getbands())}
    return Summary(value=[Summary.Value(tag=tag, image=Summary.Image(**size, encoded_image_string=path.read_bytes()))])


# What a column shows


@dataclass(frozen=True)
class _Column:
    title: str
    pictures: np.ndarray
    """(batch, height, width), or (batch, height, width, 3) for colors."""
    colors: Colormap
    low: Sequence[float]
    high: Sequence[float]
    """The ends of the color scale, one a picture."""

    @property
    def diverging(self) -> bool:
        return any(self.low)


def _picture_column(title: str, pictures: np.ndarray) -> _Column:
    return _Column(title, pictures, matplotlib.colormaps["gray"], [0.0] * len(pictures), [1.0] * len(pictures))


def _input_column(images: Tensor, bounds: tuple[Tensor, Tensor]) -> _Column:
    low, high = (bound.to(images) for bound in bounds)
    pixels = ((images - low) / (high - low)).detach().float().clamp(0, 1).cpu()
    pixels = pixels.permute(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels.mean(1)
    return _picture_column("input", pixels.numpy())


def _mask_column(masks: Tensor, images: Tensor) -> _Column:
    return _picture_column("mask", mask_like(masks, images[:, 0]).float().cpu().numpy())


def _method_column(name: str, attributions: Tensor, images: Tensor) -> _Column:
    if attributions.shape not in (images.shape, images[:, :1].shape):
        raise ValueError(
            f"`attributions` of {name!r} must be shaped like the images, {tuple(images.shape)}; "
            f"got {tuple(attributions.shape)}. Pass the same samples; summed channels keep an axis of length 1."
        )
    maps = pixel_map(attributions.detach(), absolute=False).cpu().numpy()
    maps = np.where(np.isfinite(maps), maps, np.nan)
    diverging = bool((maps < 0).any())
    colors = DIVERGING if diverging else SEQUENTIAL
    high = [scale_end(picture) for picture in maps]
    return _Column(name, maps, colors, [-end if diverging else 0.0 for end in high], high)


# What stands beside a row


@dataclass(frozen=True)
class _RowLabel:
    label: str
    prediction: str = ""
    correct: bool = True


def _row_labels(num_images: int, labels: Sequence[str] | None, predictions: Sequence[str] | None) -> list[_RowLabel]:
    if not num_images:
        raise ValueError("`images` must have at least one image to make a panel of; got none.")
    for name, texts in {"labels": labels, "predictions": predictions}.items():
        if texts is not None and len(texts) != num_images:
            raise ValueError(f"`{name}` must have one entry for each of the {num_images} images; got {len(texts)}.")
    known = labels or [""] * num_images
    if predictions is None:
        return [_RowLabel(label) for label in known]
    return [
        _RowLabel(label, f"→ {prediction}", labels is None or label == prediction)
        for label, prediction in zip(known, predictions, strict=True)
    ]


# Drawing


def _draw_column(sheet: Axes, layout: Layout, position: int, column: _Column) -> None:
    left = layout.column_left(position)
    # Pixels stay squares as long as each has a dot of the output; larger images are averaged.
    shrinks = layout.cell_width * _RESOLUTION < column.pictures.shape[2]
    for row, (picture, low, high) in enumerate(zip(column.pictures, column.low, column.high, strict=True)):
        box = (left, layout.row_top(row), layout.cell_width, layout.cell_height)
        scale: dict[str, Any] = {"cmap": column.colors, "vmin": low, "vmax": high}
        _draw_picture(sheet, picture, box, interpolation="antialiased" if shrinks else "nearest", **scale)
    placing: dict[str, Any] = {"rotation": layout.rotation, "rotation_mode": "anchor", "va": "baseline"}
    placing["ha"] = "left" if layout.rotation else "center"
    _text(_figure(sheet), layout, left + layout.cell_width / 2, layout.top - PAD / 2, column.title, **placing)


def _draw_row_labels(figure: Figure, layout: Layout, rows: list[_RowLabel]) -> None:
    for number, row in enumerate(rows):
        middle = layout.row_top(number) + layout.cell_height / 2
        shift = LINE / 2 if row.label and row.prediction else 0.0
        placing: dict[str, Any] = {"ha": "right", "va": "center"}
        _text(figure, layout, layout.left - PAD, middle - shift, row.label, **placing)
        color = _FAINT if row.correct else _WRONG
        _text(figure, layout, layout.left - PAD, middle + shift, row.prediction, color=color, **placing)


def _draw_legend(sheet: Axes, layout: Layout, methods: list[_Column]) -> None:
    """One color bar for each kind of scale in the panel, and what its end means."""
    if not methods:
        return
    figure, top = _figure(sheet), layout.grid_bottom + 2 * PAD
    below = top + _BAR_HEIGHT + PAD / 2
    for position, column in enumerate(_kinds(methods)):
        left = layout.left + position * _BAR_PITCH
        _draw_picture(sheet, np.linspace(0, 1, 256)[None], (left, top, _BAR_WIDTH, _BAR_HEIGHT), cmap=column.colors)
        if column.diverging:
            _text(figure, layout, left + _BAR_WIDTH / 2, below, "0", size=_SMALL, ha="center", va="top")
        low, high = f"−P{PERCENTILE}" if column.diverging else "0", f"P{PERCENTILE}"
        _text(figure, layout, left, below, low, size=_SMALL, ha="left", va="top")
        _text(figure, layout, left + _BAR_WIDTH, below, high, size=_SMALL, ha="right", va="top")
    _text(figure, layout, layout.left, below + LINE, SCALE_NOTE, size=_SMALL, color=_FAINT, va="top")


def _kinds(methods: list[_Column]) -> list[_Column]:
    """A column of each kind of scale."""
    return list({column.diverging: column for column in methods}.values())


def _legend_width(methods: list[_Column]) -> float:
    return max(text_width(SCALE_NOTE, _SMALL), len(_kinds(methods)) * _BAR_PITCH) if methods else 0.0


def _sheet(figure: Figure) -> Axes:
    """Axes in inches over the whole figure: one for each picture would take most of the time of drawing them."""
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_axis_off()
    return sheet


def _figure(sheet: Axes) -> Figure:
    return cast(Figure, sheet.get_figure())


def _draw_picture(sheet: Axes, picture: np.ndarray, box: Box, **options: Any) -> None:
    """A picture with a thin frame, in a box (left, top, width, height) in inches."""
    left, top, width, height = box
    sheet.imshow(picture, extent=(left, left + width, top + height, top), aspect="auto", **options)
    sheet.add_patch(Rectangle((left, top), width, height, fill=False, linewidth=0.4, edgecolor="0.7"))


def _text(
    figure: Figure, layout: Layout, left: float, top: float, text: str, size: float = FONT_SIZE, **style: Any
) -> None:
    options: dict[str, Any] = {"color": _TEXT, **style}
    figure.text(*layout.point(left, top), text, size=size, parse_math=False, **options)
