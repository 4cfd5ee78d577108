"""Confidence intervals of the mean over samples."""

import math

import numpy as np
from jaxtyping import Float64
from scipy import stats
from scipy.special import ndtr, ndtri

from lightning_xai.checks import check_level
from lightning_xai.statistics.paired import EQUAL, Values

NUM_RESAMPLES = 9999
MOST_RESAMPLED = 2000
"""Samples up to which the interval is a bootstrap's; beyond, it is the analytic form."""
_RESAMPLED_AT_ONCE = 1000  # memory

Ends = Float64[np.ndarray, "2"]


def mean_interval(values: Values, confidence: float, seed: int = 0) -> tuple[float, float]:
    """Confidence interval of the mean: bias-corrected and accelerated (Efron 1987).

    Up to `MOST_RESAMPLED` values from `NUM_RESAMPLES` resamples (BCa), beyond from its analytic form (ABC, DiCiccio and
    Efron 1992; Efron and Tibshirani 1993, 22.6), which needs none. The acceleration of a mean is known: the skewness of
    the values over 6 √n. Resampled means that differ from the mean by rounding are half below it.

    Equal values have an interval of length 0; less than two have none (NaN).
    """
    check_level("confidence", confidence)
    if len(values) < 2:
        return math.nan, math.nan
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low, high
    quantiles = ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    ends = _resampled(values, quantiles, seed) if len(values) <= MOST_RESAMPLED else _analytic(values, quantiles)
    return float(ends[0]), float(ends[1])


def share_interval(successes: int, number: int, confidence: float = 0.95, exact: bool = False) -> tuple[float, float]:
    """Confidence interval of a share; NaN of nothing.

    Args:
        successes: How many.
        number: Of how many.
        confidence: Of the interval, two-sided.
        exact: Whether it covers at least so often whatever the share is (Clopper and Pearson 1934); else about so
            often, and shorter (Wilson 1927).
    """
    check_level("confidence", confidence)
    if not number:
        return math.nan, math.nan
    found = stats.binomtest(successes, number).proportion_ci(confidence, method="exact" if exact else "wilson")
    return float(found.low), float(found.high)


def _analytic(values: Values, quantiles: Ends) -> Ends:
    """ABC for a mean: no quadratic term, and its bias correction is the acceleration."""
    acceleration = _acceleration(values)
    steps = _accelerated(acceleration + quantiles, acceleration, power=2)
    ends = values.mean() + steps * values.std() / math.sqrt(len(values))
    return np.clip(ends, values.min(), values.max())


def _resampled(values: Values, quantiles: Ends, seed: int) -> Ends:
    generator = np.random.default_rng(seed)
    sizes = [min(_RESAMPLED_AT_ONCE, NUM_RESAMPLES - start) for start in range(0, NUM_RESAMPLES, _RESAMPLED_AT_ONCE)]
    means = np.concatenate([values[generator.integers(0, len(values), (n, len(values)))].mean(-1) for n in sizes])
    equal = np.abs(means - values.mean()) <= EQUAL * np.abs(values).max()
    below = (np.count_nonzero(~equal & (means < values.mean())) + np.count_nonzero(equal) / 2) / len(means)
    bias = ndtri(below)
    steps = _accelerated(bias + quantiles, _acceleration(values), power=1)
    return np.quantile(means, ndtr(bias + steps))


def _accelerated(shifted: Ends, acceleration: float, power: int) -> Ends:
    """Infinite where the acceleration is too large for so high a confidence."""
    stretch = 1 - acceleration * shifted
    with np.errstate(divide="ignore"):
        return np.where(stretch > 0, shifted / stretch**power, np.sign(shifted) * math.inf)


def _acceleration(values: Values) -> float:
    """Skewness over 6 √n; of values scaled so that their powers neither overflow nor vanish."""
    deviations = values - values.mean()
    deviations /= np.abs(deviations).max()
    return float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
