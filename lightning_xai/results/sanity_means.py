"""What similarities of maps say on the average: means, the intervals that decide, floors."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from lightning_xai.results.sanity import Cell, Check
from lightning_xai.statistics.crossed import CrossedMean, crossed_mean
from lightning_xai.statistics.intervals import mean_interval
from lightning_xai.statistics.means import mean

LEAST_DEFINED = 0.5
"""Share of the maps whose similarity must be defined for a verdict."""
LEAST_SAMPLES = 3
"""Samples without which there is no interval of what has a floor."""

_ORDER = ("cascading_from_top", "full", "cascading_from_bottom")

Grid = Float64[np.ndarray, " networks samples"]
Line = Float64[np.ndarray, " samples"]


@dataclass(frozen=True)
class Mean:
    """Of all scores of a method at a step; NaN where nothing has a score."""

    value: float
    low: float
    """Lower end of the interval that decides; where there is a floor that of the difference from it, beside its mean.
    NaN of a single network, unless the samples are the unit, and of a single sample."""
    high: float
    networks: tuple[float, ...] = ()
    """The mean of each network, NaN where it has no score."""
    num_networks: int = 0
    """Networks with a score of at least half of the samples."""
    is_complete: bool = True
    """Whether every score is defined; those that are not are left out."""
    floor_name: str = ""
    """Of the greater floor; empty without one."""
    floor: float = math.nan
    margin: float = 0.0
    """How far above the floor still counts as at it."""
    num_samples: int = 0
    num_maps: int = 0
    """Scores that there should be: one a network and sample."""
    num_undefined: int = 0
    """Those without a score, or without a floor."""
    network_share: float = math.nan
    """Of the networks in the variance of the mean (`CrossedMean`)."""


IDENTICAL = Mean(1.0, 1.0, 1.0)
"""The trained model's maps and themselves."""
UNKNOWN = Mean(math.nan, math.nan, math.nan)


def one_network(check: Check) -> bool:
    """Whether a check is about the one network, so that the samples are the unit."""
    return check in ("invariance", "random_logit")


def mean_of(
    check: Check,
    scores: Grid,
    floors: Mapping[str, Line] | None = None,
    alpha: float = 0.05,
    margin: float = 0.0,
    num_steps: int = 1,
) -> Mean:
    """The mean, and the interval that decides.

    Args:
        check: Which; of those that change the network, the interval is for other networks and samples.
        scores: NaN where undefined.
        floors: What the scores are compared with, by name: of each sample its part in the floor's mean
            (`parts_of_floor`). The greater one counts.
        alpha: Chance that the lower end lies above the true mean, and chance that the upper end lies below it; of the
            checks of one network, the chance that either happens.
        margin: Share of the way from the floor to 1.
        num_steps: Steps over which the lower end's chance is split.
    """
    means = {name: mean(values) for name, values in (floors or {}).items()}
    name = max(means, key=lambda name: np.nan_to_num(means[name], nan=-np.inf), default="")
    difference = scores - floors[name] if floors else scores
    known = np.isfinite(difference)
    value = mean(np.where(known, scores, np.nan) if known.any() else scores)
    found = _interval(check, difference, alpha, num_steps)
    if floors and known.any(0).sum() < LEAST_SAMPLES:
        found = replace(found, low=math.nan, high=math.nan)
    level = value - found.mean if known.any() else means.get(name, math.nan)  # of the same maps
    offset = level if floors else 0.0
    return Mean(
        value,
        found.low + offset,
        found.high + offset,
        tuple(mean(row) for row in scores),
        int((known.mean(1) >= LEAST_DEFINED).sum()),
        bool(np.isfinite(scores).all()),
        name,
        level if floors else math.nan,
        margin * (1 - level) if floors else 0.0,
        scores.shape[1],
        scores.size,
        int((~known).sum()),
        found.network_share,
    )


def _interval(check: Check, values: Grid, alpha: float, num_steps: int) -> CrossedMean:
    if not one_network(check):
        return crossed_mean(values, alpha / num_steps, alpha)
    known = values[np.isfinite(values)]
    return CrossedMean(mean(values), *mean_interval(known, 1 - alpha), math.nan)


def parts_of_floor(cell: Cell, similarity: str) -> Line:
    """Of each sample its part in the mean of a floor: the scores vary as it does with the samples.

    A sample takes part in the floor of different images twice, as itself and as the other one: twice its distance from
    the mean, as the linear part of a U-statistic has it (Hoeffding 1948), and so many times more as the sample's own
    part is in the mean of the others (the jackknife's pseudo-values). Two samples have a single pair, which tells
    nothing of how it varies.
    """
    scores = cell.scores[similarity].astype(np.float64)
    number = int(np.isfinite(scores).sum())
    if cell.key.variant != "different_images" or number < LEAST_SAMPLES:
        return scores
    return mean(scores) + 2 * (number - 1) / (number - 2) * (scores - mean(scores))


def floors_of(found: Iterable[Cell], method: str, similarity: str) -> dict[str, Line]:
    """Of each sample its part in the method's floors (`parts_of_floor`), by variant."""
    mine = [cell for cell in found if (cell.key.check, cell.key.method) == ("floor", method)]
    return {cell.key.variant: parts_of_floor(cell, similarity) for cell in mine if similarity in cell.scores}


def deciding_steps(found: Sequence[Cell]) -> list[list[Cell]]:
    """All networks of each step that decides; of several orderings, of the first of `_ORDER`."""
    kinds = {cell.key.variant for cell in found}
    variant = min(kinds, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    numbers = sorted({cell.key.step for cell in found if cell.key.variant == variant})
    number = 2 if variant == "cascading_from_top" else 1
    return [[c for c in found if (c.key.variant, c.key.step) == (variant, step)] for step in numbers[-number:]]
