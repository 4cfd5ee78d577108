"""Grids of pictures with titles above and names at the left: panels, maps of the sanity checks, galleries."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from lightning_xai.reporting.colors import DIVERGING, FAINT, PERCENTILE, SEQUENTIAL, scale_end
from lightning_xai.reporting.pages import (
    FONT_SIZE,
    LINE,
    RESOLUTION,
    SMALL,
    Page,
    num_lines,
    shortened,
    styled,
    wrapped,
)

_SMALL_CELL, _LARGE_CELL = 0.9, 1.4
_GAP, _WIDE_GAP = 0.04, 0.12
_ROTATION = 30.0
_BAR_WIDTH, _BAR_HEIGHT = 1.2, 0.08


@dataclass(frozen=True)
class Picture:
    """One cell.

    Attributes:
        pixels: (height, width), or (height, width, 3) in color.
        colors: Colors of the values from `low` to `high`.
    """

    pixels: np.ndarray
    low: float = 0.0
    high: float = 1.0
    colors: str | Colormap = "gray"


def map_picture(values: np.ndarray, diverging: bool) -> Picture:
    """A map on its own scale: from 0, or symmetric around it. What is not finite is gray."""
    finite = np.where(np.isfinite(values), values, np.nan)
    end = scale_end(finite)
    return Picture(finite, -end, end, DIVERGING) if diverging else Picture(finite, 0.0, end, SEQUENTIAL)


def shown(image: np.ndarray) -> np.ndarray:
    """As `imshow` and picture files have it: gray (height, width) or colors last; of other channels the mean."""
    return np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(0)


class PictureGrid:
    """Cells of one size, in one pair of axes whose unit is an inch: axes for each would take most of the time.

    Args:
        shape: (height, width) of the pictures, in pixels.
        rows: Names.
        columns: Titles; all are rotated if one does not fit above its cell in two lines.
        apart: Columns behind a wider gap.
        scale: Size of the cells, relative to those of the panels.
        below: Room below each picture, in inches.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        rows: Sequence[str],
        columns: Sequence[str],
        apart: Collection[int] = (),
        scale: float = 1.0,
        below: float = 0.0,
    ) -> None:
        longest = scale * (_SMALL_CELL if max(shape) <= 64 else _LARGE_CELL)
        self.cell_height, self.cell_width = (longest * side / max(shape) for side in shape)
        pitch = max(self.cell_height + below, LINE * max(map(num_lines, rows))) + _GAP
        self.tops = [row * pitch for row in range(len(rows))]
        self.lefts = [
            column * (self.cell_width + _GAP) + (_WIDE_GAP - _GAP) * sum(a <= column for a in apart)
            for column in range(len(columns))
        ]
        self.rows, self.columns = rows, columns
        self.width, self.height = self.lefts[-1] + self.cell_width, self.tops[-1] + pitch - _GAP

    def prepare(self, axes: Axes, named: bool = True) -> Axes:
        """Titles, and names if they are asked for."""
        self.axes = axes
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.xaxis.tick_top()
        axes.tick_params(which="both", length=0, labelsize=FONT_SIZE, pad=3)
        titles = [wrapped(title, self.cell_width) for title in self.columns]
        rotated = max(map(num_lines, titles)) > 2
        axes.set_xticks(
            [left + self.cell_width / 2 for left in self.lefts], shortened(self.columns) if rotated else titles
        )
        for label in axes.get_xticklabels() if rotated else []:
            label.set(rotation=_ROTATION, rotation_mode="anchor", ha="left", va="baseline")
        axes.set_yticks(self.middles(), self.rows if named else [""] * len(self.rows))
        return axes

    def middles(self, shift: float = 0.0) -> list[float]:
        """Of the rows."""
        return [top + self.cell_height / 2 + shift for top in self.tops]

    def show(self, row: int, column: int, picture: Picture) -> None:
        """With a thin frame."""
        left, top = self.lefts[column], self.tops[row]
        # Pixels stay squares as long as each has a dot of the output; larger images are averaged.
        shrinks = self.cell_width * RESOLUTION < picture.pixels.shape[1]
        image = AxesImage(  # `imshow` would fit the limits of the axes to each of the pictures
            self.axes,
            cmap=picture.colors,
            extent=(left, left + self.cell_width, top + self.cell_height, top),
            interpolation="antialiased" if shrinks else "nearest",
        )
        image.set(data=picture.pixels, clim=(picture.low, picture.high))
        self.axes.add_image(image)
        frame: dict[str, Any] = {"fill": False, "linewidth": 0.4, "color": "0.7", "clip_on": False}
        self.axes.add_artist(Rectangle((left, top), self.cell_width, self.cell_height, **frame))

    def write(self, row: int, column: int, text: str, below: bool = False, **style: Any) -> None:
        """In the middle of a cell, or below it."""
        x, y = self.lefts[column] + self.cell_width / 2, self.cell_height + _GAP if below else self.cell_height / 2
        self.axes.text(x, self.tops[row] + y, text, ha="center", va="top" if below else "center", **style)

    def draw_scale(self, diverging: bool, position: int = 0) -> None:
        """A color bar below the grid, and what its ends mean."""
        figure = cast(Figure, self.axes.get_figure())
        corner = ScaledTranslation(0, 0, self.axes.transAxes)  # type: ignore[arg-type]
        place = position * (_BAR_WIDTH + 0.5), -0.16 - _BAR_HEIGHT, _BAR_WIDTH, _BAR_HEIGHT
        bar = self.axes.inset_axes(place, transform=figure.dpi_scale_trans + corner)
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=DIVERGING if diverging else SEQUENTIAL, aspect="auto")
        ends = {0: f"−P{PERCENTILE}", 128: "0", 255: f"P{PERCENTILE}"} if diverging else {0: "0", 255: f"P{PERCENTILE}"}
        bar.set_xticks(list(ends), list(ends.values()))
        bar.set(yticks=[])
        bar.spines[:].set(visible=True, linewidth=0.4, color="0.7")
        bar.tick_params(length=0)
        bar.grid(False)


@styled
def gallery_figure(
    pictures: Mapping[str, Float[np.ndarray, "image channel height width"]],
    captions: Mapping[str, Sequence[str]],
    titles: Sequence[str],
    heading: str,
    notes: Sequence[str],
) -> Figure:
    """A row a method, a column an image.

    Args:
        pictures: By method, pixels from 0 to 1.
        captions: A text below each image, by method.
        titles: Titles of the columns.
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
