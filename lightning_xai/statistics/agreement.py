"""Whether two orders agree: Kendall's tau-b, sample by sample."""

import itertools

import numpy as np
from jaxtyping import Float64, Int16

from lightning_xai.statistics.paired import EQUAL

Orders = Float64[np.ndarray, "methods samples"]
Levels = Int16[np.ndarray, "methods samples"]


def kendall_tau(first: Orders, second: Orders) -> Float64[np.ndarray, " samples"]:
    """Kendall's tau-b of two orders of the methods, sample by sample; NaN where all methods are equal in one.

    Pairs in the same order less pairs in the reverse one, over the geometric mean of the numbers of pairs that each
    order tells apart. Neighbors in sorted order that differ by a share of at most `EQUAL` are equal.
    """
    return tau_of_levels(order_levels(first), order_levels(second))


def tau_of_levels(first: Levels, second: Levels) -> Float64[np.ndarray, " samples"]:
    """`kendall_tau`, of what `order_levels` makes of the scores."""
    concordant, untied = np.zeros(first.shape[1], np.int64), np.zeros((2, first.shape[1]), np.int64)
    for one, other in itertools.combinations(range(len(first)), 2):
        signs = [np.sign(level[one] - level[other]) for level in (first, second)]
        concordant += signs[0] * signs[1]
        untied += np.abs(signs)
    possible = np.sqrt(untied.astype(float).prod(0))
    return np.divide(concordant, possible, out=np.full_like(possible, np.nan), where=possible > 0)


def order_levels(scores: Orders) -> Levels:
    """For each sample, the place of each method from the worst up; neighbors that are equal share it."""
    order = scores.argsort(0)
    ascending = np.take_along_axis(scores, order, 0)
    steps = ~np.isclose(ascending[1:], ascending[:-1], rtol=EQUAL, atol=0.0)
    levels = np.zeros(scores.shape, dtype=np.int16)
    np.put_along_axis(levels, order[1:], steps.cumsum(0, dtype=np.int16), 0)
    return levels
