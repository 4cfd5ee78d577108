"""Where the cells and texts of a panel go, so that none overlaps: everything is measured before it is drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

FONT_SIZE = 8.0
LINE = 1.4 * FONT_SIZE / 72
"""Height of a line of text."""
PAD = 0.08
"""Between a text and what it belongs to, and at the borders."""

_GAP = 0.04
_SMALL_CELL, _LARGE_CELL = 0.9, 1.4
_ROTATION = 30.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Layout:
    """A grid of equal cells with margins, in inches; lengths count from the upper left corner.

    The first `num_pictures` columns, which are no attributions, are set apart by a wider gap.
    """

    num_rows: int
    num_columns: int
    num_pictures: int
    cell_width: float
    cell_height: float
    left: float
    top: float
    right: float
    bottom: float
    rotation: float
    """Of the column titles, in degrees; a rotated title starts at the middle of its column."""

    @property
    def width(self) -> float:
        return self.grid_right + self.right

    @property
    def height(self) -> float:
        return self.grid_bottom + self.bottom

    @property
    def grid_right(self) -> float:
        return self.column_left(self.num_columns - 1) + self.cell_width

    @property
    def grid_bottom(self) -> float:
        return self.row_top(self.num_rows - 1) + self.cell_height

    def column_left(self, column: int) -> float:
        wider = 3 * _GAP if column >= self.num_pictures else 0.0
        return self.left + column * (self.cell_width + _GAP) + wider

    def row_top(self, row: int) -> float:
        return self.top + row * (self.cell_height + _GAP)

    def point(self, left: float, top: float) -> tuple[float, float]:
        """What `Figure.text` takes."""
        return left / self.width, 1 - top / self.height


def fit_layout(
    image_shape: tuple[int, int],
    num_rows: int,
    num_pictures: int,
    column_titles: Sequence[str],
    row_texts: Sequence[str],
    bottom: float,
    least_width: float,
) -> Layout:
    """The smallest layout for images of this (height, width); titles are rotated if one is wider than a cell.

    Args:
        image_shape: in pixels.
        num_rows: one a sample.
        num_pictures: how many of the columns are not attributions.
        column_titles: one a column.
        row_texts: what stands at the left of the rows.
        bottom: room below the grid.
        least_width: of the whole figure, without the left margin.
    """
    longest = _SMALL_CELL if max(image_shape) <= 64 else _LARGE_CELL
    cell_height, cell_width = (longest * side / max(image_shape) for side in image_shape)
    widths = [text_width(title) for title in column_titles]
    rotation = _ROTATION if max(widths) > cell_width else 0.0
    layout = Layout(
        num_rows=num_rows,
        num_columns=len(column_titles),
        num_pictures=num_pictures,
        cell_width=cell_width,
        cell_height=cell_height,
        left=max(map(text_width, row_texts), default=0.0) + 2 * PAD,
        top=PAD + LINE + max(widths) * math.sin(math.radians(rotation)),
        right=PAD,
        bottom=bottom,
        rotation=rotation,
    )
    return replace(layout, right=_right_margin(layout, widths, least_width))


def _right_margin(layout: Layout, title_widths: Sequence[float], least_width: float) -> float:
    """Room for rotated titles that reach beyond the last column, and for the least width."""
    ends = [layout.left + least_width, layout.grid_right]
    if layout.rotation:
        run = math.cos(math.radians(layout.rotation))
        starts = [layout.column_left(i) + layout.cell_width / 2 for i in range(layout.num_columns)]
        ends += [start + width * run for start, width in zip(starts, title_widths, strict=True)]
    return max(ends) - layout.grid_right + PAD


@lru_cache(maxsize=1024)  # a panel's texts are the same at each validation end
def text_width(text: str, size: float = FONT_SIZE, weight: str = "normal") -> float:
    """In inches; 0 for a text without ink. A dollar sign is a dollar sign, not mathematics."""
    if not text.strip():
        return 0.0
    font = FontProperties(weight=weight)
    return float(TextPath((0, 0), text.replace("$", r"\$"), size=size, prop=font).get_extents().width) / 72
