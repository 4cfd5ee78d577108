"""Bars of several series side by side, with error bars and lines to compare them with."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_xai.reporting.colors import FAINT, PALETTE
from lightning_xai.reporting.pages import SMALL, Page, drawn_width, legend_beside, styled, wrapped

_SHARE = 0.8
"""Of the bars, of the room of a group."""
_BAR, _LEAST_GROUP, _LEAST_WIDTH, _HEIGHT = 0.16, 0.8, 2.2, 2.2


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
    def pitch(self) -> float:
        """Room of a group in inches."""
        room = max(_BAR * (len(self.series) + 1), _LEAST_GROUP)
        return max(room, max(_LEAST_WIDTH, drawn_width(self.title) / 2) / len(self.names))


@styled
def bars_figure(heading: str, panels: Sequence[Bars], notes: Sequence[str] = ()) -> Figure:
    """The axes side by side; a series has one color in all of them."""
    widths = [panel.pitch * len(panel.names) for panel in panels]
    page = Page(widths, [_HEIGHT])
    colors = dict(zip(dict.fromkeys(name for panel in panels for name in panel.series), itertools.cycle(PALETTE)))
    handles: dict[str, Any] = {}
    for number, (panel, width) in enumerate(zip(panels, widths, strict=True)):
        axes = page.axes(0, number)
        axes.set_title(wrapped(panel.title, width, weight="bold"))
        axes.grid(False, axis="x")
        places, size = np.arange(len(panel.names)), _SHARE / len(panel.series)
        for position, (name, values) in enumerate(panel.series.items()):
            heights, errors = np.array(values, dtype=float).T
            at = places + (position + 0.5) * size - _SHARE / 2
            handles[name] = axes.bar(at, np.nan_to_num(heights), size, color=colors[name], label=name)
            axes.errorbar(at, heights, errors, fmt="none", ecolor="0.2", elinewidth=0.8, capsize=1.5)
        for position, (name, value) in enumerate(panel.lines.items()):
            handles[name] = axes.axhline(value, color=FAINT, lw=0.8, ls=("--", ":", "-.")[position % 3], label=name)
        axes.set_xticks(places, [wrapped(name, panel.pitch - 0.05, SMALL) for name in panel.names])
        axes.tick_params("x", length=0)
    legend_beside(axes, handles=handles.values(), labels=handles)
    return page.finished(heading, notes)
