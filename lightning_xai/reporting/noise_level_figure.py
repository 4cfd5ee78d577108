"""The accuracy-drop curve: what weight noise costs a network, and the level chosen."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_xai.reporting.colors import FAINT, PALETTE
from lightning_xai.reporting.marks import band
from lightning_xai.reporting.noise_level import NoiseLevel, level_lines
from lightning_xai.reporting.pages import Page, styled
from lightning_xai.reporting.sweeps import draw_level

_REACH, _LEAST_REACH = 1.3, 3.0
"""The axis ends this much beyond the interval, and not before the drop has been seen this many times over."""


@styled
def noise_level_figure(level: NoiseLevel) -> Figure:
    """Relative accuracy drop against the noise, with its standard error, the drop asked for, and level and interval.

    Points far beyond the interval are left out: there the network is at chance.
    """
    page = Page([4.2], [2.1])
    axes, right, color = page.axes(), _right_end(level), PALETTE[0]
    std, drop, error = np.array([(0, 0, 0), *((p.std, p.drop, p.standard_error) for p in level.points)]).T
    band(axes, std, drop - error, drop + error, color, label="standard error")
    axes.plot(std, drop, color=color, marker="o", label=f"mean of {level.num_draws} draws")
    axes.axhline(level.drop, color=FAINT, lw=0.8, ls="--", label=f"drop of {level.drop:.1%}")
    names = "level {:.4g}", f"{level.confidence:.0%} interval of the level"
    draw_level(axes, level.std, level.low, level.high, right, names)
    low, high = (drop - error)[std <= right].min(), (drop + error)[std <= right].max()
    margin = 0.05 * (high - low) + 0.005
    axes.set(
        xlim=(0, 1.02 * right),
        ylim=(min(0, low) - margin, max(high, level.drop) + margin),
        xlabel="standard deviation of the weight noise, relative to each weight",
        ylabel="relative accuracy drop",
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="upper left")
    return page.finished("Accuracy under weight noise", level_lines(level))


def _right_end(level: NoiseLevel) -> float:
    """Of the axis."""
    most = level.points[-1].std
    if not math.isfinite(level.high):
        return most
    steep = (point.std for point in level.points if point.drop >= _LEAST_REACH * level.drop)
    return min(most, max(_REACH * level.high, next(steep, most)))
