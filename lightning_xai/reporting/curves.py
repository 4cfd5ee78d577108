"""Curves with points on one or more axes side by side, each with its legend beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, PercentFormatter

from lightning_xai.reporting.colors import ACCENT, FAINT, PALETTE
from lightning_xai.reporting.pages import Page, legend_beside, styled

_WIDTH, _HEIGHT = 3.2, 2.4
_STYLES = ("--", ":", "-.")

Values = Sequence[float] | np.ndarray
Points = tuple[Values, Values]
"""Abscissae and ordinates."""


@dataclass(frozen=True)
class Curve:
    """One series: what is computed as a line, what is measured as points, with error bars where there are errors.

    A line with a `band` of this half width is measured too, at dots.
    """

    name: str
    line: Points = ((), ())
    points: Points = ((), ())
    errors: Values = ()
    band: Values = ()


@dataclass(frozen=True)
class Level:
    """A value of the abscissa and its interval, infinite where they lie beyond the end; and what they are called."""

    value: float
    low: float
    high: float
    name: str = "heuristic {:.3g}"
    interval: str = "95 % interval"


@dataclass(frozen=True)
class CurveAxes:
    """One axis.

    Attributes:
        options: Of matplotlib's `Axes.set`: `xscale`, `ylim` and others.
        lines: Horizontal ones, by name.
        level: With its interval, which is drawn up to the end of the axis.
        percent: Whether the ordinate is written so.
    """

    title: str
    abscissa: str
    ordinate: str
    curves: Sequence[Curve]
    options: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, float] = field(default_factory=dict)
    level: Level | None = None
    percent: bool = False


@styled
def curves_figure(heading: str, panels: Sequence[CurveAxes], notes: Sequence[str] = ()) -> Figure:
    """The axes side by side, each with a legend unless the next one has the same."""
    page = Page([_WIDTH] * len(panels), [_HEIGHT])
    for number, panel in enumerate(panels):
        axes = page.axes(0, number)
        for color, curve in zip(cycle(PALETTE), panel.curves):
            _draw(axes, curve, color)
        for style, (name, value) in zip(cycle(_STYLES), panel.lines.items()):
            axes.axhline(value, color=FAINT, lw=0.9, ls=style, label=name)
        axes.set(title=panel.title, xlabel=panel.abscissa, ylabel=panel.ordinate, **panel.options)
        if panel.level is not None:
            _draw_level(axes, panel.level)
        if panel.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        plain_logarithms(axes)
    for axes, following in zip_longest(page.figure.axes, page.figure.axes[1:]):
        labels = axes.get_legend_handles_labels()[1]
        if following is None or labels != following.get_legend_handles_labels()[1]:
            legend_beside(axes)
    return page.finished(heading, notes)


def _draw(axes: Axes, curve: Curve, color: str) -> None:
    has_line = len(curve.line[0]) > 0
    if len(curve.band):
        x, y = map(np.asarray, curve.line)
        axes.fill_between(x, y - curve.band, y + curve.band, color=color, alpha=0.2, linewidth=0)
    if has_line:
        marker = "o" if len(curve.band) else None
        axes.plot(*map(np.asarray, curve.line), color=color, marker=marker, label=curve.name)
    if len(curve.points[0]):
        style: dict[str, Any] = {"fmt": "o", "color": color, "elinewidth": 0.8, "capsize": 1.5}
        errors = np.asarray(curve.errors) if len(curve.errors) else None
        x, y = map(np.asarray, curve.points)
        axes.errorbar(x, y, yerr=errors, label=None if has_line else curve.name, **style)


def _draw_level(axes: Axes, level: Level) -> None:
    right = axes.get_xlim()[1]
    ends = min(level.low, right), min(level.high, right)
    axes.axvspan(*ends, color=ACCENT, alpha=0.15, lw=0, label=level.interval)
    if math.isfinite(level.value):
        axes.axvline(level.value, color=ACCENT, lw=1, label=level.name.format(level.value))


def plain_logarithms(axes: Axes) -> None:
    """Numbers at the ticks of logarithmic axes, where matplotlib has mathematics: texts of pages are as they are."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
