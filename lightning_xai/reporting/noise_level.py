"""The level of weight noise that costs a given share of a network's accuracy: sentences, files, and the curve."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from lightning_xai.reporting.charts import Curve, CurveAxes, Level, curves_figure
from lightning_xai.results.files import replacing, write_csv
from lightning_xai.results.noise_level import NoiseLevel

INPUT_FRACTION = 0.2
"""Input noise of SmoothGrad by the same paper's rule of thumb, 10 to 20 % of the range; FusionGrad takes half."""
_NOISE = "standard deviation of the weight noise, relative to each weight"
_REACH, _LEAST_REACH = 1.3, 3.0
"""The axis ends this much beyond the interval, and not before the drop has been seen this many times over."""


def level_lines(level: NoiseLevel) -> list[str]:
    """The result in sentences: the level, the accuracy that it leaves, and how both were found."""
    interval = f"{level.confidence:.0%} interval {_interval(level)}"
    found, point = f"above {level.maximum:g}, the most tried", level.points[-1]
    if level.measured is not None:
        found, point = f"{level.std:.4g}", level.measured
    accuracy = sum(point.accuracies) / level.num_draws
    return [
        f"weight noise (std) for a relative accuracy drop of {level.drop:.1%}: {found}; {interval}",
        f"accuracy {level.clean_accuracy:.4f} without noise, {accuracy:.4f} at {point.std:.4g}: a drop of "
        f"{point.drop:.1%} ± {point.standard_error:.1%} (standard error), chance being {level.chance:.4g}",
        f"{level.num_samples} samples, {level.num_draws} draws common to all levels, tolerance {level.tolerance:g}, "
        f"seed {level.seed}",
    ]


def method_settings(level: NoiseLevel) -> dict[str, Any]:
    """NoiseGrad at the level, FusionGrad at half of it with half the input noise, and what both smooth.

    As `methods` of a configuration takes them.

    Raises:
        ValueError: if the level was not reached.
    """
    if not level.reached:
        raise ValueError(f"`level` was not reached up to a noise of {level.maximum:g}: there is none to set.")
    scale = _part("lightning_xai.explainers.RangeScale", fraction=INPUT_FRACTION / 2)
    smooth = _part("lightning_xai.Smooth", explainer=_part("lightning_xai.Saliency"), scale=scale, num_draws=10)
    half = round(level.std / 2, 5)
    return {
        "saliency": _part("lightning_xai.Saliency"),
        "noise_grad": _part("lightning_xai.noise_grad", std=level.std, num_draws=10),
        "fusion_grad": _part("lightning_xai.PerturbWeights", explainer=smooth, std=half, num_draws=10),
    }


def write_noise_level(level: NoiseLevel, path: str | os.PathLike[str]) -> list[Path]:
    """Write the methods' settings to `path` and the accuracy-drop curve to a .csv beside it; the paths written.

    A level that was not reached has no settings: a file of an earlier one is removed.

    Raises:
        OSError: if the folder cannot be written to.
    """
    path = Path(path)
    table = path.with_suffix(".csv")
    header = ["std", "drop", "standard_error", *(f"accuracy_{n}" for n in range(level.num_draws))]
    numbers = ([point.std, point.drop, point.standard_error, *point.accuracies] for point in level.points)
    write_csv(table, [header, *([f"{x:.6g}" for x in row] for row in numbers)])
    if not level.reached:
        path.unlink(missing_ok=True)
        return [table]
    comments = "".join(f"# {line}\n" for line in level_lines(level))
    with replacing(path) as temporary:
        temporary.write_text(comments + yaml.safe_dump(method_settings(level), sort_keys=False), encoding="utf-8")
    return [path, table]


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


def _interval(level: NoiseLevel) -> str:
    beyond = f"above {level.maximum:g}"
    if math.isinf(level.low):
        return beyond
    return f"{level.low:.3g} to " + (beyond if math.isinf(level.high) else f"{level.high:.3g}")


def _part(class_path: str, **arguments: Any) -> Mapping[str, Any]:
    return {"class_path": class_path, "init_args": arguments} if arguments else {"class_path": class_path}
