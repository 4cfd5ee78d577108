"""Charts: bars side by side, curves with points, scores against what is varied, and grids of means."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter, PercentFormatter

from lightning_xai.reporting.colors import ACCENT, FAINT, PALETTE, SCORES
from lightning_xai.reporting.marks import cell_names, heat_map
from lightning_xai.reporting.pages import SMALL, Page, drawn_width, legend_beside, styled, wrapped
from lightning_xai.statistics.means import mean_and_standard_error

_SHARE = 0.8
"""Of the bars, of the room of a group."""
_BAR, _LEAST_GROUP, _LEAST_WIDTH, _BARS_HEIGHT = 0.16, 0.8, 2.2, 2.2


@dataclass(frozen=True)
class Bars:
    """One axis.

    Attributes:
        title: Above it; also says what is measured.
        names: Names of the groups of bars.
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
    page = Page(widths, [_BARS_HEIGHT])
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


# Curves

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
        options: Options of matplotlib's `Axes.set`: `xscale`, `ylim` and others.
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
        for color, curve in zip(itertools.cycle(PALETTE), panel.curves):
            _draw(axes, curve, color)
        for style, (name, value) in zip(itertools.cycle(_STYLES), panel.lines.items()):
            axes.axhline(value, color=FAINT, lw=0.9, ls=style, label=name)
        axes.set(title=panel.title, xlabel=panel.abscissa, ylabel=panel.ordinate, **panel.options)
        if panel.level is not None:
            _draw_level(axes, panel.level)
        if panel.percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        plain_logarithms(axes)
    for axes, following in itertools.zip_longest(page.figure.axes, page.figure.axes[1:]):
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


# Scores against what is varied

_CELL_WIDTH, _CELL_HEIGHT = 0.55, 0.32


@dataclass(frozen=True)
class Sweep:
    """Scores in one metric.

    Attributes:
        metric: Its name.
        lines: By name, the scores of the samples at each value of what is varied, rising; NaN where undefined.
        floors: Mean of the methods that know nothing of the network.
    """

    metric: str
    lines: Mapping[str, Mapping[float, np.ndarray]]
    floors: Mapping[str, float]


@dataclass(frozen=True)
class Grid:
    """Mean scores in one metric.

    Attributes:
        metric: Its name.
        rows: (rows,) rising levels of one thing.
        columns: (columns,) of the other.
        means: (rows, columns).
        higher_is_better: False where the least mean is the best.
    """

    metric: str
    rows: np.ndarray
    columns: np.ndarray
    means: np.ndarray
    higher_is_better: bool = True


def sweeps_figure(
    sweeps: Sequence[Sweep],
    label: str,
    chosen: tuple[float, float, float] | None = None,
    published: Sequence[float] | None = None,
) -> Figure:
    """Mean and standard error against what is varied, an axis a metric.

    Args:
        sweeps: Metrics.
        label: What is varied.
        chosen: The heuristic's level and the ends of its interval, infinite where it was not reached; None for none.
        published: From where to where a paper sees the best maps; None for nowhere.
    """
    notes = ["Band: standard error over the samples. Gray lines: maps that know nothing of the network."]
    if published is not None:
        notes[0] += f" Bar below: {published[0]:g} to {published[1]:g}, where the paper sees the best maps."
    level = None if chosen is None else Level(*chosen)
    panels = [
        CurveAxes(
            shown.metric,
            label,
            "",
            [_curve(name, points) for name, points in shown.lines.items()],
            {"xlim": (min(0, *levels), 1.03 * max(levels))},
            shown.floors,
            level,
        )
        for shown in sweeps
        for levels in [[level for points in shown.lines.values() for level in points]]
    ]
    figure = curves_figure(f"Scores against {label}", panels, notes)
    for axes in figure.axes:
        if published is not None:
            axes.plot(published, [0.015, 0.015], transform=axes.get_xaxis_transform(), color=FAINT, lw=3, alpha=0.6)
    return figure


def _curve(name: str, points: Mapping[float, np.ndarray]) -> Curve:
    means, errors = np.array([mean_and_standard_error(scores) for scores in points.values()]).T
    return Curve(name, (list(points), means), band=errors)


@styled
def grids_figure(grids: Sequence[Grid], down: str, across: str) -> Figure:
    """Heat maps of the means, a metric each, with the best cell in a frame.

    Args:
        grids: Metrics.
        down: What the rows are levels of.
        across: What the columns are levels of.
    """
    page = Page([_CELL_WIDTH * len(grid.columns) for grid in grids], [_CELL_HEIGHT * max(len(g.rows) for g in grids)])
    for position, grid in enumerate(grids):
        axes = page.axes(0, position)
        axes.set(title=grid.metric, xlabel=across, ylabel=down if position == 0 else "")
        _draw_grid(axes, grid)
    return page.finished(f"{down} and {across} together", ["Frame: best cell."])


def _draw_grid(axes: Axes, grid: Grid) -> None:
    known = grid.means[np.isfinite(grid.means)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    margin = 0.1 * ((high - low) or 1.0)
    texts = [[f"{mean:.3f}" if math.isfinite(mean) else "" for mean in row] for row in grid.means]
    heat_map(axes, grid.means, texts, SCORES, low - margin, high + margin)
    cell_names(axes, [f"{level:g}" for level in grid.rows], [f"{level:g}" for level in grid.columns])
    axes.invert_yaxis()
    if not len(known):
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", va="center")
        return
    best = (np.nanargmax if grid.higher_is_better else np.nanargmin)(grid.means)
    row, column = map(int, np.unravel_index(best, grid.means.shape))
    axes.add_patch(Rectangle((column, row), 1, 1, fill=False, ec=ACCENT, lw=1.6, zorder=3))
