"""Figures measured in inches: texts are measured before they are drawn, so that nothing overlaps or is cut off."""

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD

RESOLUTION = 200
SMALL, LARGE = FONT_SIZE - 1, FONT_SIZE + 1
TEXT, FAINT = "0.1", "0.4"
_RENDERER = RendererAgg(1, 1, RESOLUTION)


class Page:
    """A figure with a heading, and notes below it; lengths count from the upper left corner.

    Attributes:
        figure: The figure.
        top: Where the room between heading and notes begins.

    Args:
        width: Of the figure.
        room: Height of what is between heading and notes.
        heading: Text above.
        notes: Texts below.
    """

    def __init__(self, width: float, room: float, heading: str, notes: Sequence[str]) -> None:
        heading = wrapped(heading, width - 2 * PAD, LARGE, "bold", breaks=r"\s")
        notes = [wrapped(note, width - 2 * PAD, SMALL, breaks=r"\s") for note in notes]
        self.top = 2 * PAD + 1.2 * LINE * num_lines(heading)
        self.width, self.height = width, self.top + room + LINE * sum(map(num_lines, notes)) + 2 * PAD
        self.figure = Figure(figsize=(width, self.height), dpi=RESOLUTION, facecolor="white")
        self.text(PAD, PAD, heading, size=LARGE, weight="bold", va="top")
        below = self.top + room + PAD
        for note in notes:
            self.text(PAD, below, note, size=SMALL, color=FAINT, va="top")
            below += LINE * num_lines(note)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """New axes of this size."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Text as it is: a dollar sign is a dollar sign."""
        options: dict[str, Any] = {"size": FONT_SIZE, "color": TEXT, **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, parse_math=False, **options)


def legend_below(axes: Axes, distance: float) -> None:
    """The legend below the axes, flush left; the distance is relative to their height."""
    style: dict[str, Any] = {"frameon": False, "borderaxespad": 0, "borderpad": 0, "labelspacing": 0.3}
    axes.legend(fontsize=SMALL, loc="upper left", bbox_to_anchor=(0, -distance), **style)


def wrapped(text: str, width: float, size: float = FONT_SIZE, weight: str = "normal", breaks: str = r"\s_:/.\-") -> str:
    """The text in lines of at most `width` inches: broken behind `breaks`, or anywhere in what is longer."""
    lines = [""]
    for piece in re.findall(rf"[^{breaks}]*[{breaks}]+|[^{breaks}]+", text):
        for part in [piece] if drawn_width(piece, size, weight) <= width else piece:
            if lines[-1] and drawn_width(lines[-1] + part, size, weight) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def num_lines(text: str) -> int:
    """Of a text that is broken into lines."""
    return text.count("\n") + 1


def drawn_width(text: str, size: float = FONT_SIZE, weight: str = "normal") -> float:
    """In inches, of the longest line."""
    font = FontProperties(size=size, weight=weight)
    widths = [_RENDERER.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")]
    return max(widths) / RESOLUTION
