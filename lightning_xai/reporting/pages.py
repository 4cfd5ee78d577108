"""Pages: figures whose axes have given sizes in inches, and the style of all of them.

Matplotlib's constrained layout finds the room for the texts around the axes, and the page becomes as large as it takes.
"""

import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lightning_xai.reporting.colors import FAINT, LINE_GRAY, PALETTE, TEXT

RESOLUTION = 200
FONT_SIZE, SMALL, LARGE = 8.0, 7.0, 9.0
LINE = 1.4 * FONT_SIZE / 72
"""Height of a line of text, in inches."""
PAD = 0.08
_LONGEST = 32
"""Characters of a slanted title."""

_WIDE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Droid Sans Fallback", "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic", "Arial Unicode MS"),
)
"""Fonts of the scripts that matplotlib's own one does not have, on the systems where people read them."""

STYLE: Any = {
    "font.family": [
        "sans-serif",
        *sorted({font.name for font in fontManager.ttflist}.intersection(_WIDE), key=_WIDE.index),
    ],
    "font.size": FONT_SIZE,
    "text.color": TEXT,
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "figure.titlesize": LARGE,
    "figure.titleweight": "bold",
    "figure.labelsize": SMALL,
    "axes.titlesize": FONT_SIZE,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.labelsize": FONT_SIZE,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": LINE_GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "grid.color": "0.92",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.0,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.labelspacing": 0.3,
    **{
        f"{axis}tick.{name}": value
        for axis in "xy"
        for name, value in {
            "labelsize": SMALL,
            "color": LINE_GRAY,
            "labelcolor": TEXT,
            "major.size": 2.0,
            "minor.size": 0.0,
            "major.pad": 2.0,
        }.items()
    },
}


@contextmanager
def _drawing() -> Iterator[None]:
    """In our style; that a font lacks a character is said once, in words."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", _MISSING)
        yield
    for one in caught:
        if re.match(_MISSING, str(one.message)):
            _say_what_is_missing()
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


_MISSING = r"Glyph .* missing from font"
styled = _drawing()
"""A decorator for all that makes or draws a figure; whatever else draws has its own style."""


@cache
def _say_what_is_missing() -> None:
    logging.getLogger(__name__).warning(
        "Names have characters that none of matplotlib's fonts has: figures show boxes in their place. Install a font "
        "that has them, such as Noto Sans CJK."
    )


_MIDDLE = {"left": 1 / 3, "right": 2 / 3, "bottom": 1 / 3, "top": 2 / 3, "wspace": 0.0, "hspace": 0.0}
_RENDERER = RendererAgg(1, 1, RESOLUTION)


class _Measuring(FigureCanvasBase):
    """Whose texts are measured without the memory for its pixels."""

    def get_renderer(self) -> RendererAgg:
        return _RENDERER


class Page:
    """A grid of axes; `finished` makes the figure as large as axes and texts are.

    Args:
        widths: In inches, of the axes in each column.
        heights: In inches, of the axes in each row.
    """

    def __init__(self, widths: Sequence[float], heights: Sequence[float]) -> None:
        self._lengths = widths, heights
        self._engine = ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD, wspace=0.0, hspace=0.0)
        self._size = np.array([sum(widths), sum(heights)])
        self.figure = Figure((3 * self._size[0], 3 * self._size[1]), RESOLUTION, facecolor="white", layout=self._engine)
        _Measuring(self.figure)
        ratios: dict[str, Any] = {"width_ratios": widths, "height_ratios": heights}
        self._grid = self.figure.add_gridspec(len(heights), len(widths), **ratios, **_MIDDLE)

    def axes(self, row: int = 0, column: int | None = 0, **options: Any) -> Axes:
        """New axes in a cell of the grid, or over the whole row for None; at least once in a cell."""
        axes = self.figure.add_subplot(self._grid[row, slice(None) if column is None else column], **options)
        if column is not None:
            self._measured = axes, (column, row)
        return axes

    def finished(self, heading: str, notes: Sequence[str] = (), least: float = 4.5) -> Figure:
        """The figure, with texts above and below, at least so many inches wide."""
        self._make_room()
        # Twice where columns had more room than they need: slanted titles reach the less far beyond wider axes.
        for columns in [len(self._lengths[0])] * min(2, len(self._lengths[0])):
            width = self.figure.get_figwidth()
            step = self._fitted()[0] - width
            # Narrow axes below long titles, each of which moves by half of what they shrink: else these would collapse.
            far = columns == 1 and abs(step) > self._size[0] / 4
            self.figure.set_figwidth(width + (step / 2 if far else step))
        natural, height = self.figure.get_size_inches()
        width = max(least, natural)
        lines = self._write(heading, notes, width)
        self.figure.set_size_inches(width, height + 2 * LINE * (lines + 4))
        self._engine.set(rect=(0.0, 0.0, natural / width, 1.0))
        self.figure.set_figheight(self._fitted()[1])
        self._engine.execute(self.figure)
        self.figure.set_layout_engine("none")
        return self.figure

    def _make_room(self) -> None:
        """Between the axes, which have their sizes: constrained layout gives up where there is too little."""
        boxes = [(axes.get_tightbbox(_RENDERER) or axes.bbox, axes.bbox) for axes in self.figure.axes]
        room = np.max([np.subtract(box.size, inner.size) for box, inner in boxes], axis=0) / RESOLUTION + 2 * PAD
        self.figure.set_size_inches(self._size + room * [len(lengths) for lengths in self._lengths])

    def _write(self, heading: str, notes: Sequence[str], width: float) -> int:
        """The number of lines."""
        place: dict[str, Any] = {"x": PAD / width, "ha": "left"}
        above = wrapped(heading, width - 2 * PAD, LARGE, "bold", breaks=r"\s")
        below = "\n".join(wrapped(note, width - 2 * PAD, SMALL, breaks=r"\s") for note in notes)
        self.figure.suptitle(above, **place)
        self.figure.supxlabel(below, color=FAINT, **place)
        return num_lines(above) + num_lines(below)

    def _fitted(self) -> tuple[float, float]:
        """The size of the figure that gives the axes theirs: what stands around them takes the same room in any."""
        self._engine.execute(self.figure)
        axes, cell = self._measured
        shares = [lengths[place] / sum(lengths) for lengths, place in zip(self._lengths, cell, strict=True)]
        rest = 1 - axes.get_position(original=True).size / np.array(shares)
        width, height = self.figure.get_size_inches() * rest + self._size
        return width, height


def multiples(number: int, most: int, width: float, height: float) -> tuple[Page, list[Axes]]:
    """So many axes of this size, at most `most` in a row, the rows about equally long."""
    columns = per_row(number, most)
    page = Page([width] * columns, [height] * math.ceil(number / columns))
    return page, [page.axes(*divmod(position, columns)) for position in range(number)]


def per_row(number: int, most: int) -> int:
    """How many of a number of axes stand in a row, where the rows are about equally long."""
    return math.ceil(number / math.ceil(number / most))


def legend_beside(axes: Axes, **options: Any) -> None:
    """The legend at the right of the axes, where it covers nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), **options)


def wrapped(text: str, width: float, size: float = FONT_SIZE, weight: str = "normal", breaks: str = r"\s_:/.\-") -> str:
    """The text in lines of at most `width` inches: broken behind `breaks`, or anywhere in what is longer."""
    lines = [""]
    for piece in re.findall(rf"[^{breaks}]*[{breaks}]+|[^{breaks}]+", text):
        for part in [piece] if drawn_width(piece, size, weight) <= width else piece:
            if lines[-1] and drawn_width(lines[-1] + part, size, weight) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def shortened(names: Sequence[str]) -> list[str]:
    """Names as slanted titles have room for them: the middle of long ones is left out, as far as they stay apart."""
    for most in range(_LONGEST, max(map(len, names), default=0)):
        first, last = most // 2, (most - 1) // 2
        short = [name if len(name) <= most else f"{name[:first]}…{name[-last:]}" for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return list(names)


def num_lines(text: str) -> int:
    """Of a text that is broken into lines."""
    return text.count("\n") + 1


@lru_cache(maxsize=4096)  # a panel's texts are the same at each validation end
def drawn_width(text: str, size: float = FONT_SIZE, weight: str = "normal") -> float:
    """In inches, of the longest line."""
    font = FontProperties(size=size, weight=weight)
    widths = [_RENDERER.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")]
    return max(widths) / RESOLUTION
