"""Figures of scores against what a study varies: curves, and grids of two things."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_xai.reporting.colors import ACCENT, FAINT, SCORES
from lightning_xai.reporting.curves import Curve, CurveAxes, Level, curves_figure as drawn_curves
from lightning_xai.reporting.marks import cell_names, heat_map
from lightning_xai.reporting.pages import Page, styled
from lightning_xai.statistics.means import mean_and_standard_error

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
        for shown in curves
        for levels in [[level for points in shown.lines.values() for level in points]]
    ]
    figure = drawn_curves(f"Scores against {label}", panels, notes)
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
