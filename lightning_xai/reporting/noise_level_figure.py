"""The accuracy-drop curve: what weight noise costs a network, and the level chosen."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_xai.reporting.layout import FONT_SIZE
from lightning_xai.reporting.noise_level import level_lines
from lightning_xai.reporting.pages import FAINT, SMALL, Page
from lightning_xai.results.noise_level import NoiseLevel

_WIDTH, _HEIGHT = 5.0, 2.6
_LEFT, _RIGHT, _BELOW = 0.65, 0.15, 0.45
_CURVE, _LEVEL = "#0072b2", "#d55e00"
_REACH, _LEAST_REACH = 1.3, 3.0
"""The axis ends this much beyond the interval, and not before the drop has been seen this many times over."""


def noise_level_figure(level: NoiseLevel) -> Figure:
    """Relative accuracy drop against the noise, with its standard error, the drop asked for, and level and interval.

    Points far beyond the interval are left out: there the network is at chance.
    """
    page = Page(_WIDTH, _HEIGHT, "Accuracy under weight noise", level_lines(level))
    axes = page.axes(_LEFT, page.top, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BELOW)
    std, drop, error = np.array([(0, 0, 0), *((p.std, p.drop, p.standard_error) for p in level.points)]).T
    axes.fill_between(std, drop - error, drop + error, color=_CURVE, alpha=0.2, lw=0, label="standard error")
    axes.plot(std, drop, color=_CURVE, marker="o", ms=3, lw=1, label=f"mean of {level.num_draws} draws")
    axes.axhline(level.drop, color=FAINT, lw=0.8, ls="--", label=f"drop of {level.drop:.1%}")
    right = _right_end(level)
    axes.axvspan(min(level.low, right), min(level.high, right), color=_LEVEL, alpha=0.15, lw=0, label=_interval(level))
    if level.reached:
        axes.axvline(level.std, color=_LEVEL, lw=1, label=f"level {level.std:.4g}")
    shown = std <= right
    low, high = (drop - error)[shown].min(), (drop + error)[shown].max()
    margin = 0.05 * (high - low) + 0.005
    axes.set(xlim=(0, 1.02 * right), ylim=(min(0, low) - margin, max(high, level.drop) + margin))
    axes.set_xlabel("standard deviation of the weight noise, relative to each weight", size=FONT_SIZE)
    axes.set_ylabel("relative accuracy drop", size=FONT_SIZE)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left")
    return page.figure


def _right_end(level: NoiseLevel) -> float:
    """Of the axis."""
    most = level.points[-1].std
    if not math.isfinite(level.high):
        return most
    steep = (point.std for point in level.points if point.drop >= _LEAST_REACH * level.drop)
    return min(most, max(_REACH * level.high, next(steep, most)))


def _interval(level: NoiseLevel) -> str:
    return f"{level.confidence:.0%} interval of the level"
