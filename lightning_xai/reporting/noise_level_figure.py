"""The accuracy-drop curve: what weight noise costs a network, and the level chosen."""

import math

import numpy as np
from matplotlib.figure import Figure

from lightning_xai.reporting.curves import Curve, CurveAxes, Level, curves_figure
from lightning_xai.reporting.noise_level import level_lines
from lightning_xai.results.noise_level import NoiseLevel

_NOISE = "standard deviation of the weight noise, relative to each weight"
_REACH, _LEAST_REACH = 1.3, 3.0
"""The axis ends this much beyond the interval, and not before the drop has been seen this many times over."""


def noise_level_figure(level: NoiseLevel) -> Figure:
    """Relative accuracy drop against the noise, with its standard error, the drop asked for, and level and interval.

    Points far beyond the interval are left out: there the network is at chance.
    """
    std, drop, error = np.array([(0, 0, 0), *((p.std, p.drop, p.standard_error) for p in level.points)]).T
    shown = std <= _right_end(level)
    low, high = (drop - error)[shown].min(), (drop + error)[shown].max()
    margin = 0.05 * (high - low) + 0.005
    limits = {
        "xlim": (0, 1.02 * _right_end(level)),
        "ylim": (min(0, low) - margin, max(high, level.drop) + margin),
    }
    curve = Curve(f"mean of {level.num_draws} draws, ± standard error", (std, drop), band=error)
    asked = {f"drop of {level.drop:.1%}": level.drop}
    interval = f"{level.confidence:.0%} interval of the level"
    chosen = Level(level.std, level.low, level.high, "level {:.4g}", interval)
    axes = CurveAxes("", _NOISE, "relative accuracy drop", [curve], limits, asked, chosen, percent=True)
    return curves_figure("Accuracy under weight noise", [axes], level_lines(level))


def _right_end(level: NoiseLevel) -> float:
    """Of the axis."""
    most = level.points[-1].std
    if not math.isfinite(level.high):
        return most
    steep = (point.std for point in level.points if point.drop >= _LEAST_REACH * level.drop)
    return min(most, max(_REACH * level.high, next(steep, most)))
