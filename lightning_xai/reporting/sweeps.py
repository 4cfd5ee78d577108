"""Figures of scores against what a study varies: curves, and grids of two things."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.reporting.bars import COLORS
from lightning_xai.reporting.comparison_figures import readable
from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD
from lightning_xai.reporting.pages import FAINT, SMALL, Page
from lightning_xai.statistics.means import mean_and_standard_error

_LEVEL = "#d55e00"
_FLOORS = ("--", ":")
_WIDTH, _HEIGHT, _GAP, _LEFT, _BELOW = 3.0, 2.2, 0.55, 0.55, 0.45
_CELL_WIDTH, _CELL_HEIGHT = 0.55, 0.32
_COLORS = matplotlib.colormaps["Blues"]


@dataclass(frozen=True)
class Curves:
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


def curves_figure(
    curves: Sequence[Curves],
    label: str,
    chosen: tuple[float, float, float] | None = None,
    published: Sequence[float] | None = None,
) -> Figure:
    """Mean and standard error against what is varied, an axis a metric.

    Args:
        curves: Metrics.
        label: What is varied.
        chosen: The heuristic's level and the ends of its interval, infinite where it was not reached; None for none.
        published: From where to where a paper sees the best maps; None for nowhere.
    """
    notes = ["Band: standard error over the samples. Gray lines: maps that know nothing of the network."]
    if published is not None:
        notes[0] += f" Bar below: {published[0]:g} to {published[1]:g}, where the paper sees the best maps."
    width = _LEFT + len(curves) * (_WIDTH + _GAP) - _GAP + 2 * PAD
    page = Page(width, _HEIGHT + _BELOW + LINE + PAD, f"Scores against {label}", notes)
    for position, curve in enumerate(curves):
        left = _LEFT + position * (_WIDTH + _GAP)
        axes = page.axes(left, page.top + LINE + PAD, _WIDTH, _HEIGHT)
        axes.set_title(curve.metric, size=FONT_SIZE, pad=3)
        _draw_curve(axes, curve, label)
        if chosen is not None:
            _draw_choice(axes, chosen, max(max(points) for points in curve.lines.values()))
        if published is not None:
            axes.plot(published, [0.015, 0.015], transform=axes.get_xaxis_transform(), color=FAINT, lw=3, alpha=0.6)
        if position == 0:
            axes.legend(fontsize=SMALL, frameon=False, loc="best")
    return page.figure


def _draw_curve(axes: Axes, curve: Curves, label: str) -> None:
    for (name, points), color in zip(curve.lines.items(), itertools.cycle(COLORS)):
        levels = np.array(list(points))
        means, errors = np.array([mean_and_standard_error(scores) for scores in points.values()]).T
        axes.fill_between(levels, means - errors, means + errors, color=color, alpha=0.2, lw=0)
        axes.plot(levels, means, color=color, marker="o", ms=3, lw=1, label=name)
    for (name, floor), style in zip(curve.floors.items(), _FLOORS, strict=False):
        axes.axhline(floor, color=FAINT, lw=0.9, ls=style, label=name)
    ends = [value for points in curve.lines.values() for value in points]
    axes.set_xlim(min(0, *ends), 1.03 * max(ends))
    axes.set_xlabel(label, size=FONT_SIZE)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_choice(axes: Axes, chosen: tuple[float, float, float], right: float) -> None:
    level, low, high = chosen
    axes.axvspan(min(low, right), min(high, right), color=_LEVEL, alpha=0.15, lw=0, label="95 % interval")
    if math.isfinite(level):
        axes.axvline(level, color=_LEVEL, lw=1, label=f"heuristic {level:.3g}")


def grids_figure(grids: Sequence[Grid], down: str, across: str) -> Figure:
    """Heat maps of the means, a metric each, with the best cell in a frame.

    Args:
        grids: Metrics.
        down: What the rows are levels of.
        across: What the columns are levels of.
    """
    widths = [_CELL_WIDTH * len(grid.columns) for grid in grids]
    height = _CELL_HEIGHT * max(len(grid.rows) for grid in grids)
    width = max(4.5, _LEFT + sum(widths) + _GAP * (len(grids) - 1) + PAD)
    page = Page(width, height + _BELOW + LINE + PAD, f"{down} and {across} together", ["Frame: best cell."])
    left = _LEFT
    for grid, extent in zip(grids, widths, strict=True):
        axes = page.axes(left, page.top + LINE + PAD, extent, _CELL_HEIGHT * len(grid.rows))
        axes.set_title(grid.metric, size=FONT_SIZE, pad=3)
        _draw_grid(axes, grid)
        axes.set_xlabel(across, size=FONT_SIZE)
        if grid is grids[0]:
            axes.set_ylabel(down, size=FONT_SIZE)
        left += extent + _GAP
    return page.figure


def _draw_grid(axes: Axes, grid: Grid) -> None:
    means = np.ma.masked_array(grid.means, ~np.isfinite(grid.means))
    low, high = (0.0, 1.0) if means.mask.all() else (float(means.min()), float(means.max()))
    span = (high - low) or 1.0
    axes.pcolormesh(means, cmap=_COLORS, vmin=low - 0.1 * span, vmax=high + 0.1 * span, edgecolors="white", lw=1.2)
    for (row, column), mean in np.ndenumerate(grid.means):
        if math.isfinite(mean):
            color = readable(_COLORS((mean - low + 0.1 * span) / (1.2 * span)))
            axes.text(column + 0.5, row + 0.5, f"{mean:.3f}", size=SMALL, ha="center", va="center", color=color)
    if means.mask.all():
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, size=SMALL, ha="center")
        return
    best = (np.nanargmax if grid.higher_is_better else np.nanargmin)(grid.means)
    row, column = map(int, np.unravel_index(best, grid.means.shape))
    axes.add_patch(matplotlib.patches.Rectangle((column, row), 1, 1, fill=False, ec=_LEVEL, lw=1.6, zorder=3))
    axes.set(ylim=(0, len(grid.rows)), xlim=(0, len(grid.columns)))
    axes.set_xticks(np.arange(len(grid.columns)) + 0.5, [f"{f:g}" for f in grid.columns], size=SMALL)
    axes.set_yticks(np.arange(len(grid.rows)) + 0.5, [f"{s:g}" for s in grid.rows], size=SMALL)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
