"""Mean, standard deviation and standard error over the samples that are defined."""

import math
from collections.abc import Sequence

import numpy as np


def defined(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The values that are finite, in float64 and one row."""
    flat = np.asarray(values, dtype=float).ravel()
    return flat[np.isfinite(flat)]


def mean(values: Sequence[float] | np.ndarray) -> float:
    """Over the defined values; NaN where there is none."""
    known = defined(values)
    return float(known.mean()) if len(known) else math.nan


def deviation(values: Sequence[float] | np.ndarray) -> float:
    """Sample standard deviation (ddof = 1) of the defined values; NaN of less than two."""
    known = defined(values)
    return float(known.std(ddof=1)) if len(known) > 1 else math.nan


def mean_and_standard_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Over the defined values, the error being their deviation over √n; NaN where there are too few."""
    return mean(values), deviation(values) / max(1, len(defined(values))) ** 0.5


def mean_and_error(values: Sequence[float] | np.ndarray, digits: int = 4) -> str:
    """Mean and standard error over the defined values, `0.1234 ± 0.0012`; "undefined" where there is none."""
    return as_text(*mean_and_standard_error(values), f".{digits}f")


def as_text(mean: float, error: float, style: str) -> str:
    """A mean and its error; "undefined" where there is none."""
    return " ± ".join(f"{number:{style}}" for number in (mean, error) if not math.isnan(number)) or "undefined"
