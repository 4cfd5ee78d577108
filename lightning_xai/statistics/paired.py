"""Paired comparisons of scores: Wilcoxon's signed-rank test with ties that are not left to rounding, Holm, ranks."""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from scipy import stats

EQUAL = 1e-6
"""Difference up to which two scores are equal, as a share of the largest one: they are single-precision numbers."""
NUM_EXACT = 50
"""Differences other than 0 up to which the p-value is exact."""
_LARGE = 4096
"""Samples from which sets are tested one by one: then nothing is gained by testing many at once."""

Values = Float64[np.ndarray, " samples"]
Sets = Float64[np.ndarray, "sets samples"]
Numbers = Float64[np.ndarray, " sets"]


def paired_test(values: Values, others: Values, higher_is_better: bool | None = True) -> tuple[float, float]:
    """Two-sided p-value of Wilcoxon's signed-rank test of the differences, and the rank-biserial correlation.

    The correlation is positive where `values` are better. See `paired_tests`, which makes many tests at once.
    """
    (p_value,), (correlation,) = paired_tests(values[None], others[None], higher_is_better)
    return float(p_value), float(correlation)


def paired_tests(values: Sets, others: Sets, higher_is_better: bool | None = True) -> tuple[Numbers, Numbers]:
    """`paired_test` of each set of samples, all at once.

    A difference of at most `EQUAL` times the largest absolute score of the set (of both methods) counts as 0, and
    absolute differences are tied where neighbors in sorted order lie as near to each other: a metric writes its scores
    in single precision, so that equal differences of them are not equal to the last bit. So neither number changes when
    the scores are scaled or were rounded to single precision. Differences of 0 are dropped (Wilcoxon 1945), tied ones
    share the mean of their ranks; without any other than 0, nothing tells the two apart: p = 1, correlation 0.

    The p-value is exact, of all signs of these ranks, up to `NUM_EXACT` differences; beyond, of the normal distribution
    with the variance of the ranks as they are, tied or not. The correlation (Kerby 2014) is the sum of ranks of
    positive differences less that of negative ones, over both.

    Raises:
        ValueError: if a score is not finite.
    """
    if not (np.isfinite(values).all() and np.isfinite(others).all()):
        raise ValueError("`values` and `others` must be finite. Leave the samples out that are not defined for both.")
    largest = np.maximum(np.abs(values), np.abs(others)).max(-1, keepdims=True, initial=0.0)
    largest[largest == 0] = 1.0
    differences = values / largest - others / largest
    differences = differences if higher_is_better else -differences
    if values.shape[-1] < _LARGE:
        ranks = signed_ranks(differences, EQUAL)
        found = ranks.sum(-1), np.abs(ranks).sum(-1), (ranks**2).sum(-1), np.count_nonzero(ranks, -1)
    else:
        found = tuple(np.array([_rank_sums(own, EQUAL) for own in differences]).reshape(-1, 4).T)
    sums, totals, squares, counts = found
    scores = np.divide(np.abs(sums), np.sqrt(squares), out=np.zeros_like(sums), where=squares > 0)
    p_values: Numbers = 2 * stats.norm.sf(scores)
    for place in np.flatnonzero(counts <= NUM_EXACT):
        p_values[place] = _exact_p_value(signed_ranks(differences[place][None], EQUAL)[0])
    return p_values, np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)


def signed_ranks(differences: Sets, tolerance: float) -> Sets:
    """The rank of each absolute difference among those of its set above the tolerance, with the sign of the difference.

    Neighbors in sorted order that are no further from each other than the tolerance are tied, and share the mean of
    their ranks. Differences up to the tolerance have none: 0.
    """
    sizes = np.abs(differences)
    order = sizes.argsort(-1)
    ascending = np.take_along_axis(sizes, order, -1)
    zero = ascending <= tolerance
    starts = np.diff(ascending, prepend=-math.inf) > tolerance
    starts[..., 1:] |= zero[..., :-1] & ~zero[..., 1:]
    position = np.arange(differences.shape[-1])
    first = np.maximum.accumulate(np.where(starts, position, 0), -1)
    ends = np.concatenate([starts[..., 1:], np.ones_like(starts[..., :1])], -1)
    last = np.minimum.accumulate(np.where(ends, position, len(position))[..., ::-1], -1)[..., ::-1]
    ascending_ranks = np.where(zero, 0.0, (first + last) / 2 + 1 - zero.sum(-1, keepdims=True))
    ranks = np.empty_like(differences)
    np.put_along_axis(ranks, order, ascending_ranks, -1)
    return ranks * np.sign(differences)


def _rank_sums(differences: Values, tolerance: float) -> tuple[float, float, float, int]:
    """Of the `signed_ranks`: their sum, that of their sizes, of their squares, and how many there are.

    Tied ones are counted and not ranked one by one. Up to 10^5 differences the sums are exact, as those of halves and
    quarters are, and so the same in any order.
    """
    sizes = np.abs(differences)
    order = sizes.argsort()
    ascending = sizes[order]
    zeros = int(np.searchsorted(ascending, tolerance, "right"))
    ascending, positive = ascending[zeros:], differences[order[zeros:]] > 0
    if not len(ascending):
        return 0.0, 0.0, 0.0, 0
    starts = np.flatnonzero(np.diff(ascending, prepend=-math.inf) > tolerance)
    lengths = np.diff(starts, append=len(ascending))
    ranks = starts + (lengths + 1) / 2
    favorable = float((ranks * np.add.reduceat(positive, starts, dtype=np.int64)).sum())
    total = float((ranks * lengths).sum())
    return 2 * favorable - total, total, float((ranks**2 * lengths).sum()), len(ascending)


def _exact_p_value(ranks: Values) -> float:
    doubled = np.sort(np.abs(2 * ranks[ranks != 0]).astype(np.int64))
    favorable = round(2 * float(ranks[ranks > 0].sum()))
    larger = max(favorable, int(doubled.sum()) - favorable)
    return min(1.0, 2 * float(_tail(tuple(doubled.tolist()))[larger]))


@lru_cache(maxsize=4096)
def _tail(doubled_ranks: tuple[int, ...]) -> Float64[np.ndarray, " sums"]:
    """How probable is each sum of (doubled) ranks of positive differences, or a larger one, if all signs are chance?"""
    probabilities = np.zeros(sum(doubled_ranks) + 1)
    probabilities[0] = 1.0
    for rank in doubled_ranks:
        negative = probabilities / 2
        probabilities = negative.copy()
        probabilities[rank:] += negative[:-rank]
    tail: Float64[np.ndarray, " sums"] = probabilities[::-1].cumsum()[::-1]
    return tail


def holm(p_values: Values) -> Values:
    """Holm's step-down correction (1979) of the p-values of one family."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def mean_ranks(scores: Mapping[str, Values], higher_is_better: bool | None) -> dict[str, int]:
    """Of each method with scores, by its mean: how many methods are better, plus one.

    Means are equal where neighbors in sorted order differ by at most `EQUAL` times the largest absolute score of the
    two methods. Without a direction there are no ranks.
    """
    if higher_is_better is None:
        return {}
    costs = {m: float(values.mean()) * (-1 if higher_is_better else 1) for m, values in scores.items() if len(values)}
    ranks: dict[str, int] = {}
    for place, method in enumerate(order := sorted(costs, key=lambda method: (costs[method], method)), 1):
        before = order[place - 2] if place > 1 else method
        tolerance = EQUAL * max(float(np.abs(scores[name]).max()) for name in (before, method))
        tied = place > 1 and costs[method] - costs[before] <= tolerance
        ranks[method] = ranks[before] if tied else place
    return ranks
