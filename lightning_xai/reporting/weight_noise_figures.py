"""Figures of scores against the level of noise: curves over weight noise, grids over weight and input noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.reporting.comparison_figures import readable
from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD
from lightning_xai.reporting.pages import FAINT, SMALL, Page
from lightning_xai.statistics.means import mean_and_standard_error

_CURVE, _LEVEL = "#0072b2", "#d55e00"
_FLOORS = ("--", ":")
_WIDTH, _HEIGHT, _GAP, _LEFT, _BELOW = 3.0, 2.2, 0.55, 0.55, 0.45
_CELL_WIDTH, _CELL_HEIGHT = 0.55, 0.32
_COLOURS = matplotlib.colormaps["Blues"]


@dataclass(frozen=True)
class NoiseCurve:
    """Scores in one metric.

    Attributes:
        metric: Its name.
        stds: (levels,) rising weight noise, 0 for none.
        scores: Those of the samples, an array a level; NaN where undefined.
        floors: Mean of the methods that know nothing of the network.
    """

    metric: str
    stds: np.ndarray
    scores: Sequence[np.ndarray]
    floors: Mapping[str, float]


@dataclass(frozen=True)
class NoiseGrid:
    """Mean scores in one metric.

    Attributes:
        metric: Its name.
        stds: (rows,) rising weight noise.
        fractions: (columns,) rising input noise.
        means: (rows, columns).
        chosen: Mean at the heuristic's choice; None if there is none.
    """

    metric: str
    stds: np.ndarray
    fractions: np.ndarray
    means: np.ndarray
    chosen: float | None


def curves_figure(
    curves: Sequence[NoiseCurve], chosen: tuple[float, float, float], published: tuple[float, float]
) -> Figure:
    """Mean and standard error against the weight noise, an axis a metric.

    Args:
        curves: Metrics.
        chosen: The heuristic's level and the ends of its interval; infinite where it was not reached.
        published: Where the paper sees the best maps.
    """
    notes = [
        "Level 0: no noise (saliency). Band: standard error over the samples. Grey lines: maps that know nothing of the"
        f" network. Bar below: {published[0]:g} to {published[1]:g}, where the paper sees the best maps.",
    ]
    width = _LEFT + len(curves) * (_WIDTH + _GAP) - _GAP + 2 * PAD
    page = Page(width, _HEIGHT + _BELOW + LINE + PAD, "Localisation against the weight noise", notes)
    for position, curve in enumerate(curves):
        left = _LEFT + position * (_WIDTH + _GAP)
        axes = page.axes(left, page.top + LINE + PAD, _WIDTH, _HEIGHT)
        axes.set_title(f"{curve.metric} ↑", size=FONT_SIZE, pad=3)
        _draw_curve(axes, curve)
        _draw_choice(axes, chosen, float(curve.stds[-1]))
        axes.plot(published, [0.015, 0.015], transform=axes.get_xaxis_transform(), color=FAINT, lw=3, alpha=0.6)
        if position == 0:
            axes.legend(fontsize=SMALL, frameon=False, loc="best")
    return page.figure


def _draw_curve(axes: Axes, curve: NoiseCurve) -> None:
    means, errors = np.array([mean_and_standard_error(scores) for scores in curve.scores]).T
    axes.fill_between(curve.stds, means - errors, means + errors, color=_CURVE, alpha=0.2, lw=0)
    axes.plot(curve.stds, means, color=_CURVE, marker="o", ms=3, lw=1, label="NoiseGrad")
    for (name, floor), style in zip(curve.floors.items(), _FLOORS, strict=False):
        axes.axhline(floor, color=FAINT, lw=0.9, ls=style, label=name)
    axes.set_xlim(0, 1.03 * curve.stds[-1])
    axes.set_xlabel("weight noise, relative to each weight", size=FONT_SIZE)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_choice(axes: Axes, chosen: tuple[float, float, float], right: float) -> None:
    level, low, high = chosen
    axes.axvspan(min(low, right), min(high, right), color=_LEVEL, alpha=0.15, lw=0, label="95 % interval")
    if math.isfinite(level):
        axes.axvline(level, color=_LEVEL, lw=1, label=f"heuristic {level:.3g}")


def grids_figure(grids: Sequence[NoiseGrid], chosen: tuple[float, float]) -> Figure:
    """Heat maps of the means, a metric each, with the best cell and the heuristic's choice.

    Args:
        grids: Metrics.
        chosen: Weight and input noise; infinite where there is none.
    """
    notes = [
        "Frame: best cell. Circle: where the heuristics' choice lies, half of both noises; its score is in the title. "
        "Weight noise is relative to each weight, input noise to the range of each image. Without weight noise: "
        "SmoothGrad, without input noise: NoiseGrad, without both: saliency."
    ]
    widths = [_CELL_WIDTH * len(grid.fractions) for grid in grids]
    height = _CELL_HEIGHT * max(len(grid.stds) for grid in grids)
    width = max(4.5, _LEFT + sum(widths) + _GAP * (len(grids) - 1) + PAD)
    page = Page(width, height + _BELOW + LINE + PAD, "Weight noise and input noise together", notes)
    left = _LEFT
    for grid, extent in zip(grids, widths, strict=True):
        axes = page.axes(left, page.top + LINE + PAD, extent, _CELL_HEIGHT * len(grid.stds))
        title = f"{grid.metric} ↑" + ("" if grid.chosen is None else f" (○ {grid.chosen:.3f})")
        axes.set_title(title, size=FONT_SIZE, pad=3)
        _draw_grid(axes, grid, chosen)
        if grid is grids[0]:
            axes.set_ylabel("weight noise", size=FONT_SIZE)
        left += extent + _GAP
    return page.figure


def _draw_grid(axes: Axes, grid: NoiseGrid, chosen: tuple[float, float]) -> None:
    means = np.ma.masked_invalid(grid.means)
    low, high = float(means.min()), float(means.max())
    span = (high - low) or 1.0
    axes.pcolormesh(means, cmap=_COLOURS, vmin=low - 0.1 * span, vmax=high + 0.1 * span, edgecolors="white", lw=1.2)
    for (row, column), mean in np.ndenumerate(grid.means):
        colour = readable(_COLOURS((mean - low + 0.1 * span) / (1.2 * span)))
        axes.text(column + 0.5, row + 0.5, f"{mean:.3f}", size=SMALL, ha="center", va="center", color=colour)
    row, column = map(int, np.unravel_index(np.nanargmax(grid.means), grid.means.shape))
    axes.add_patch(matplotlib.patches.Rectangle((column, row), 1, 1, fill=False, ec=_LEVEL, lw=1.6, zorder=3))
    if math.isfinite(chosen[0]):
        up, across = (_position(value, ends) for value, ends in zip(chosen, (grid.stds, grid.fractions), strict=True))
        axes.plot(across, up, "o", ms=7, mfc="none", mec=_LEVEL, mew=1.4, zorder=4)
    axes.set(ylim=(0, len(grid.stds)), xlim=(0, len(grid.fractions)))
    axes.set_xticks(np.arange(len(grid.fractions)) + 0.5, [f"{f:g}" for f in grid.fractions], size=SMALL)
    axes.set_yticks(np.arange(len(grid.stds)) + 0.5, [f"{s:g}" for s in grid.stds], size=SMALL)
    axes.set_xlabel("input noise", size=FONT_SIZE)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _position(value: float, centres: np.ndarray) -> float:
    """In the axis's units, in which cells have centres 0.5, 1.5, ...; between them linearly, at an end beyond."""
    return float(np.interp(value, centres, np.arange(len(centres)) + 0.5))
