"""Bars of several series side by side, with error bars and lines to compare them with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD
from lightning_xai.reporting.pages import FAINT, SMALL, Page, drawn_width, legend_below

COLORS = ("#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#999999")
"""Okabe and Ito's, which the color-blind can tell apart."""

_LEFT, _RIGHT, _TITLE, _NAMES = 0.6, 0.1, 1.5 * LINE, 2 * LINE
_HEIGHT, _SHARE = 2.2, 0.8
_BAR, _LEAST_WIDTH = 0.16, 2.8


@dataclass(frozen=True)
class Bars:
    """One axis.

    Attributes:
        title: Above it; also says what is measured.
        names: Of the groups of bars.
        series: By name, (value, standard error) for each group; NaN draws nothing.
        lines: Horizontal ones, by name.
    """

    title: str
    names: tuple[str, ...]
    series: Mapping[str, Sequence[tuple[float, float]]]
    lines: Mapping[str, float] = field(default_factory=dict)

    @property
    def width(self) -> float:
        pitch = max(_BAR * (len(self.series) + 1), *(drawn_width(name) + PAD for name in self.names))
        return max(_LEAST_WIDTH, pitch * len(self.names))

    @property
    def num_entries(self) -> int:
        return len(self.series) + len(self.lines)


def bars_figure(heading: str, panels: Sequence[Bars], notes: Sequence[str] = ()) -> Figure:
    """The axes side by side, each with its legend below."""
    widths = [_LEFT + panel.width + _RIGHT for panel in panels]
    legends = LINE * max(panel.num_entries for panel in panels)
    page = Page(sum(widths), _TITLE + _HEIGHT + _NAMES + legends + PAD, heading, notes)
    left = 0.0
    for panel, width in zip(panels, widths, strict=True):
        axes = page.axes(left + _LEFT, page.top + _TITLE, panel.width, _HEIGHT)
        page.text(left + PAD, page.top, panel.title, va="top")
        _draw(axes, panel)
        legend_below(axes, _NAMES / _HEIGHT)
        left += width
    return page.figure


def _draw(axes: Axes, panel: Bars) -> None:
    places, size = np.arange(len(panel.names)), _SHARE / len(panel.series)
    for number, (name, values) in enumerate(panel.series.items()):
        heights, errors = np.array(values, dtype=float).T
        offset = (number + 0.5) * size - _SHARE / 2
        color = COLORS[number % len(COLORS)]
        axes.bar(places + offset, np.nan_to_num(heights), size, color=color, label=name)
        shown = np.isfinite(heights) & np.isfinite(errors)
        style: dict[str, Any] = {"fmt": "none", "ecolor": "0.2", "elinewidth": 0.8, "capsize": 1.5}
        axes.errorbar((places + offset)[shown], heights[shown], errors[shown], **style)
    for number, (name, value) in enumerate(panel.lines.items()):
        axes.axhline(value, color=FAINT, lw=0.8, ls=("--", ":", "-.")[number % 3], label=name)
    axes.set_xticks(places, panel.names, fontsize=FONT_SIZE)
    axes.tick_params("y", labelsize=SMALL)
    axes.tick_params("x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
