"""Figures of scores against what a study varies: curves, and grids of two things."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_xai.reporting.colors import ACCENT, FAINT, PALETTE, SCORES
from lightning_xai.reporting.marks import band, cell_names, heat_map
from lightning_xai.reporting.pages import Page, legend_beside, styled
from lightning_xai.statistics.means import mean_and_standard_error

_FLOORS = ("--", ":")
_WIDTH, _HEIGHT = 3.0, 2.2
_CELL_WIDTH, _CELL_HEIGHT = 0.55, 0.32


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


@styled
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
    page = Page([_WIDTH] * len(curves), [_HEIGHT])
    for position, curve in enumerate(curves):
        axes = page.axes(0, position)
        axes.set(title=curve.metric, xlabel=label)
        _draw_curve(axes, curve)
        if chosen is not None:
            draw_level(axes, *chosen, max(max(points) for points in curve.lines.values()))
        if published is not None:
            axes.plot(published, [0.015, 0.015], transform=axes.get_xaxis_transform(), color=FAINT, lw=3, alpha=0.6)
    legend_beside(page.figure.axes[-1])
    return page.finished(f"Scores against {label}", notes)


def _draw_curve(axes: Axes, curve: Curves) -> None:
    for (name, points), color in zip(curve.lines.items(), itertools.cycle(PALETTE)):
        levels = np.array(list(points))
        means, errors = np.array([mean_and_standard_error(scores) for scores in points.values()]).T
        band(axes, levels, means - errors, means + errors, color)
        axes.plot(levels, means, color=color, marker="o", label=name)
    for (name, floor), style in zip(curve.floors.items(), _FLOORS, strict=False):
        axes.axhline(floor, color=FAINT, lw=0.9, ls=style, label=name)
    ends = [value for points in curve.lines.values() for value in points]
    axes.set_xlim(min(0, *ends), 1.03 * max(ends))


def draw_level(
    axes: Axes,
    level: float,
    low: float,
    high: float,
    right: float,
    names: tuple[str, str] = ("heuristic {:.3g}", "95 % interval"),
) -> None:
    """A level on the horizontal axis and its interval up to `right`; infinite ones are beyond."""
    axes.axvspan(min(low, right), min(high, right), color=ACCENT, alpha=0.15, lw=0, label=names[1])
    if math.isfinite(level):
        axes.axvline(level, color=ACCENT, lw=1, label=names[0].format(level))


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
