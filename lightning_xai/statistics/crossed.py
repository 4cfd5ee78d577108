"""Confidence intervals of the mean over networks crossed with samples: both are drawn, and both vary it."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import stats

from lightning_xai.checks import check_level
from lightning_xai.statistics.means import mean

Grid = Float64[np.ndarray, " networks samples"]
Line = Float64[np.ndarray, " values"]


@dataclass(frozen=True)
class CrossedMean:
    """The mean of a grid, and its confidence interval for other networks and other samples.

    Attributes:
        mean: Over all that is defined.
        low: Lower end; NaN with fewer than two networks or samples.
        high: Upper end.
        network_share: Share of the networks in the variance of the mean; the rest is of the samples.
    """

    mean: float
    low: float
    high: float
    network_share: float


def crossed_mean(values: Grid, low_level: float, high_level: float | None = None) -> CrossedMean:
    """Two-way random effects: interval of the mean, for other networks and other samples.

    The variance is that of the networks' means, by their number, plus that of the samples' means, by theirs; each has
    Student's quantile of its own degrees of freedom (Cochran's solution of the problem of Behrens and Fisher): the
    interval's half is √(t² variance + t² variance). One t with Satterthwaite's degrees of freedom is shorter, and with
    three networks too short: where they happen to be alike, it takes their small variance for a known one.

    Each of the two variances holds the part of a network and a sample together, which is so counted twice: the interval
    is at most √2 times too long for it, where networks and samples themselves have no effect. It is so for undefined
    values too, which are left out of the means.

    Args:
        values: NaN where undefined.
        low_level: Chance that the lower end lies above the true mean, less than 0.5.
        high_level: Chance that the upper end lies below it; None for the same.
    """
    high_level = low_level if high_level is None else high_level
    check_level("low_level", low_level)
    check_level("high_level", high_level)
    if max(low_level, high_level) >= 0.5:
        raise ValueError(f"The levels must be less than 0.5, got {low_level} and {high_level}.")
    if not np.isfinite(values).any():
        return CrossedMean(math.nan, math.nan, math.nan, math.nan)
    middle = mean(values)
    parts = [_variance(np.ma.masked_invalid(values).mean(axis)) for axis in (1, 0)]
    below, above = (
        math.sqrt(sum(variance * float(stats.t.ppf(level, freedom)) ** 2 for variance, freedom in parts))
        for level in (low_level, high_level)
    )
    (networks, _), (samples, _) = parts
    share = networks / (networks + samples) if networks + samples else math.nan
    return CrossedMean(middle, middle - below, middle + above, share)


def _variance(means: np.ma.MaskedArray) -> tuple[float, int]:
    """Of the mean of means, and its degrees of freedom."""
    known = means.compressed()
    freedom = len(known) - 1
    return (float(known.var(ddof=1)) / len(known) if freedom > 0 else math.nan), max(1, freedom)
