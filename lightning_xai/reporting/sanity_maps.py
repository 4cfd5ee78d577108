"""Pictures of the sanity checks: maps of the trained model beside those of the changed models."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from lightning_xai.reporting.colors import DIVERGING, PERCENTILE, SCALE_NOTE, SEQUENTIAL, scale_end
from lightning_xai.reporting.layout import LINE, PAD
from lightning_xai.reporting.pages import FAINT, RESOLUTION, SMALL, Page, drawn_width, num_lines, wrapped
from lightning_xai.reporting.sanity_values import cells, scored_methods, steps, variant_phrase
from lightning_xai.results.sanity import Check, SanityReport

_SMALL_CELL, _LARGE_CELL = 0.62, 0.9
"""Longest side in inches, of maps of up to 64 pixels and of larger ones."""
_GAP, _WIDE_GAP = 0.04, 0.12
_ROTATION = math.radians(45)
_NAME_WIDTH = 1.8
_LEAST_WIDTH = 4.5
_BAR_WIDTH, _BAR_HEIGHT = 1.2, 0.08

_Map = Shaped[np.ndarray, "height width"]
_NOTHING = np.empty((0, 0, 0))


def cascade_grid(
    report: SanityReport, variant: str, absolute: bool = True, samples: Sequence[int] | None = None
) -> Figure:
    """Maps as blocks are randomized: a row a method, a column a step, a block of rows a sample (Adebayo et al. 2018).

    The first column holds the maps of the trained model, the others those of repeat 0. Every map has its own color
    scale, which ends at the 99th percentile of its absolute values: from 0 for absolute values, otherwise symmetric
    around 0. A dash stands for a map that the report does not have; values that are not finite are gray.

    Args:
        report: With maps.
        variant: An ordering of the parameters' blocks.
        absolute: Absolute values instead of signed ones.
        samples: Positions among the samples whose maps were kept; by default the first two.

    Raises:
        ValueError: if the report has no cells of the variant, or no maps of these samples.
    """
    blocks = [block for _, block in steps(cells(report, "parameters", variant))]
    chosen = _chosen(report, samples, default=2)
    table = _Table(report, "parameters", variant, ["original", *blocks], absolute, _ROTATION)
    captions = [f"sample {report.samples[sample]}" for sample in chosen]
    beside = max(table.cell_width, *(drawn_width(caption, SMALL) for caption in captions)) + 2 * PAD
    left, pitch = beside + table.names_width, table.above + table.height + 2 * PAD
    page = table.page(left + table.reach, len(chosen) * pitch, f"under {variant_phrase(variant)}")
    for number, (sample, caption) in enumerate(zip(chosen, captions, strict=True)):
        top = page.top + number * pitch + table.above
        table.draw_image(page, PAD, top, sample)
        page.text(PAD, top + table.cell_height + PAD / 2, caption, size=SMALL, color=FAINT, va="top")
        table.draw_names(page, left, top)
        table.draw(page, left, top, sample)
    table.draw_scale(page, left, page.top + len(chosen) * pitch)
    return page.figure


def data_pairs(report: SanityReport, absolute: bool = True, samples: Sequence[int] | None = None) -> Figure:
    """Maps of the model trained with true labels beside those of the one trained with random labels.

    A row a method, two columns a sample, by default of all samples kept; colors as in `cascade_grid`.

    Raises:
        ValueError: if the report has no cells of the data check, or no maps of these samples.
    """
    titles = ["true\nlabels", "random\nlabels"]
    return _pairs(report, "data", titles, "of models trained with true and with random labels", absolute, samples)


def invariance_pairs(report: SanityReport, absolute: bool = True, samples: Sequence[int] | None = None) -> Figure:
    """Maps of the model beside those of its twin for shifted inputs, laid out as in `data_pairs`.

    Raises:
        ValueError: if the report has no cells of the invariance check, or no maps of these samples.
    """
    titles = ["original", "shifted"]
    return _pairs(report, "invariance", titles, "of the model and of its twin for shifted inputs", absolute, samples)


def logit_pairs(report: SanityReport, absolute: bool = True, samples: Sequence[int] | None = None) -> Figure:
    """Maps of the explained class beside those of another one, laid out as in `data_pairs`.

    Raises:
        ValueError: if the report has no cells of the random-logit check, or no maps of these samples.
    """
    titles = ["original", "another\nclass"]
    return _pairs(report, "random_logit", titles, "of the explained class and of another", absolute, samples)


def _pairs(
    report: SanityReport, check: Check, titles: list[str], what: str, absolute: bool, samples: Sequence[int] | None
) -> Figure:
    first = cells(report, check)[0].key
    chosen = _chosen(report, samples)
    table = _Table(report, check, first.variant, titles, absolute)
    above = LINE + table.cell_height + table.above
    pitch = table.width + 2 * _WIDE_GAP
    left = PAD + table.names_width
    page = table.page(left + (len(chosen) - 1) * pitch + table.reach, above + table.height + 2 * PAD, what)
    table.draw_names(page, left, page.top + above)
    for number, sample in enumerate(chosen):
        start = left + number * pitch
        caption: dict[str, Any] = {"size": SMALL, "color": FAINT, "ha": "center", "va": "top"}
        page.text(start + table.width / 2, page.top, f"sample {report.samples[sample]}", **caption)
        table.draw_image(page, start + (table.width - table.cell_width) / 2, page.top + LINE, sample)
        table.draw(page, start, page.top + above, sample)
    table.draw_scale(page, left, page.top + above + table.height + 2 * PAD)
    return page.figure


def _chosen(report: SanityReport, samples: Sequence[int] | None, default: int | None = None) -> list[int]:
    kept = len(report.images)
    chosen = list(range(kept))[:default] if samples is None else list(samples)
    if not chosen or not all(0 <= sample < kept for sample in chosen):
        raise ValueError(
            f"`samples` must be positions among the {kept} samples whose maps `report` keeps, from 0; got {chosen}. "
            "Keep more maps where the report is made."
        )
    return chosen


class _Table:
    """The maps of one sample after the other: a row a method, a column a step, the trained model's first.

    Lengths are in inches, `rotation` (of the titles) in radians.
    """

    def __init__(
        self,
        report: SanityReport,
        check: Check,
        variant: str,
        titles: list[str],
        absolute: bool,
        rotation: float = 0.0,
    ) -> None:
        found = cells(report, check, variant)
        methods = scored_methods(report, found)
        originals = {cell.key.method: cell.maps for cell in report.cells if cell.key.check == "original"}
        changed = {(cell.key.method, cell.key.step): cell.maps for cell in found if cell.key.repeat == 0}
        self.maps = [
            [originals.get(name, _NOTHING), *(changed.get((name, step), _NOTHING) for step, _ in steps(found))]
            for name in methods
        ]
        """A line a method, each with (kept, height, width) for each column."""
        self.images, self.titles, self.absolute = report.images, titles, absolute
        self.rotation = rotation
        self.colors = SEQUENTIAL if absolute else DIVERGING
        self.names = [wrapped(name, _NAME_WIDTH) for name in methods]
        height, width = report.images.shape[2:]
        longest = _SMALL_CELL if max(height, width) <= 64 else _LARGE_CELL
        self.cell_height, self.cell_width = (longest * side / max(height, width) for side in (height, width))
        self.pitch = max(self.cell_height, LINE * max(map(num_lines, self.names))) + _GAP

    @property
    def names_width(self) -> float:
        return max(map(drawn_width, self.names)) + PAD

    @property
    def above(self) -> float:
        """Height of the titles."""
        lines = LINE * max(map(num_lines, self.titles))
        return max(map(drawn_width, self.titles)) * math.sin(self.rotation) + lines + PAD

    @property
    def height(self) -> float:
        return len(self.names) * self.pitch - _GAP

    @property
    def width(self) -> float:
        return self.column_left(len(self.titles) - 1) + self.cell_width

    @property
    def reach(self) -> float:
        """To the right end of what reaches furthest, of the cells and the titles."""
        share = math.cos(self.rotation) if self.rotation else 0.5
        run = [drawn_width(title) * share + LINE / 2 for title in self.titles]
        starts = [self.column_left(column) + self.cell_width / 2 for column in range(len(run))]
        return max(self.width, *(start + length for start, length in zip(starts, run, strict=True)))

    def column_left(self, column: int) -> float:
        return column * (self.cell_width + _GAP) + (_WIDE_GAP - _GAP if column else 0.0)

    def page(self, width: float, room: float, what: str) -> Page:
        """Empty, with room for the color bar below."""
        kind = "Absolute maps" if self.absolute else "Maps"
        note = f"{SCALE_NOTE}."
        return Page(max(_LEAST_WIDTH, width + PAD), room + _BAR_HEIGHT + LINE + PAD, f"{kind} {what}", [note])

    def draw_names(self, page: Page, left: float, top: float) -> None:
        for row, name in enumerate(self.names):
            page.text(left - PAD, top + row * self.pitch + self.cell_height / 2, name, ha="right", va="center")

    def draw_image(self, page: Page, left: float, top: float, sample: int) -> None:
        """The sample itself: gray, in three colors, or the mean of any other number of channels."""
        image = np.clip(self.images[sample], 0, 1)
        axes = _inches(page, left, top, self.cell_width, self.cell_height)
        self._show(axes, 0.0, 0.0, image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0), "gray", (0.0, 1.0))

    def draw(self, page: Page, left: float, top: float, sample: int) -> None:
        """Titles above `top`, maps below."""
        for column, title in enumerate(self.titles):
            start = left + self.column_left(column) + self.cell_width / 2
            style: dict[str, Any] = {"va": "bottom", "ha": "center"}
            if self.rotation:
                style = {"va": "baseline", "rotation": math.degrees(self.rotation), "rotation_mode": "anchor"}
            page.text(start, top - PAD / 2, title, **style)
        # One pair of axes for all maps: several hundred would take a second each dozen.
        axes = _inches(page, left, top, self.width, self.height)
        for row, line in enumerate(self.maps):
            for column, maps in enumerate(line):
                self._draw_map(axes, row, column, maps[sample] if sample < len(maps) else None)

    def _draw_map(self, axes: Axes, row: int, column: int, picture: _Map | None) -> None:
        x, y = self.column_left(column), row * self.pitch
        if picture is None:
            axes.text(x + self.cell_width / 2, y + self.cell_height / 2, "–", color=FAINT, ha="center", va="center")
            return
        finite = np.where(np.isfinite(picture), picture, np.nan)
        end = scale_end(finite)
        shown = np.abs(finite) if self.absolute else finite
        self._show(axes, x, y, shown, self.colors, (0.0 if self.absolute else -end, end))

    def _show(
        self, axes: Axes, x: float, y: float, picture: np.ndarray, colors: str | Colormap, ends: tuple[float, float]
    ) -> None:
        extent = (x, x + self.cell_width, y + self.cell_height, y)
        # Pixels stay squares as long as each has a dot of the output; larger images are averaged.
        shrinks = self.cell_width * RESOLUTION < picture.shape[1]
        # `imshow` would fit the limits of the axes to each of the pictures.
        image = AxesImage(axes, cmap=colors, extent=extent, interpolation="antialiased" if shrinks else "nearest")
        image.set(data=picture, clim=ends)
        axes.add_image(image)
        frame: dict[str, Any] = {"fill": False, "linewidth": 0.4, "color": "0.7", "clip_on": False}
        axes.add_artist(Rectangle((x, y), self.cell_width, self.cell_height, **frame))

    def draw_scale(self, page: Page, left: float, top: float) -> None:
        """A color bar, and what its ends mean."""
        axes = page.axes(left, top, _BAR_WIDTH, _BAR_HEIGHT)
        axes.imshow(np.linspace(0, 1, 256)[None], cmap=self.colors, aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(linewidth=0.4, color="0.7")
        below = top + _BAR_HEIGHT + PAD / 2
        places = {"left": 0.0, "center": _BAR_WIDTH / 2, "right": _BAR_WIDTH}
        texts = ("0", "", f"P{PERCENTILE}") if self.absolute else (f"−P{PERCENTILE}", "0", f"P{PERCENTILE}")
        for text, (side, x) in zip(texts, places.items(), strict=True):
            page.text(left + x, below, text, size=SMALL, ha=side, va="top")


def _inches(page: Page, left: float, top: float, width: float, height: float) -> Axes:
    """Invisible axes whose coordinates are inches from their upper left corner."""
    axes = page.axes(left, top, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes
