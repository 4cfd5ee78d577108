"""Which method is better, and could it be chance? Paired statistics over the samples of one or more runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from scipy import stats

from lightning_xai.experiments.runs import Run
from lightning_xai.reporting.comparison import ComparedRun, Comparison, MethodResult, MetricComparison

NUM_RESAMPLES = 9999
EQUAL = 1e-6
"""Relative difference up to which two scores count as equal: they are single-precision numbers."""

Values = Float64[np.ndarray, " samples"]
Table = dict[str, dict[int, float]]
"""Scores of one metric: by method, by sample."""


def compare_methods(runs: Sequence[Run], alpha: float = 0.05, seed: int = 0) -> Comparison:
    """Compare all methods of all runs, in each metric.

    The methods of several runs are named `run:method`. Runs share the numbers of their samples, so they should be
    evaluated on the same data set. All numbers of a metric are made from the same samples: those of which all of its
    methods have a defined (finite) score. A method without any is left aside. The best method is chosen on the same
    samples as the others are tested on.

    Args:
        runs: With the rows of one evaluation each (see `read_runs`).
        alpha: Level of the two-sided tests, after Holm's correction; the intervals have the confidence 1 - alpha.
        seed: Of the bootstrap; all methods are resampled alike.

    Raises:
        ValueError: if there is nothing to compare, such as no common sample in a metric, if a sample has two scores of
            the same method and metric, or if two runs disagree on the direction of a metric.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}. Usual is 0.05.")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}.")
    if not runs or not all(run.rows for run in runs):
        raise ValueError("`runs` must be at least one run, with at least one score each.")
    directions = _directions(runs)
    metrics = [
        _compare_metric(metric, directions.get(metric), table, alpha, seed) for metric, table in _tables(runs).items()
    ]
    return Comparison(tuple(map(_compared, runs)), tuple(metrics), alpha, NUM_RESAMPLES, seed)


def bootstrap_interval(values: Values, confidence: float, seed: int = 0) -> tuple[float, float]:
    """Confidence interval of the mean: bias-corrected and accelerated bootstrap (Efron 1987), by SciPy.

    Equal values have an interval of length 0; less than two have none (NaN).
    """
    if len(values) < 2:
        return math.nan, math.nan
    if values.min() == values.max():
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=NUM_RESAMPLES,
        batch=1000,  # resamples at a time: memory
        method="BCa",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def signed_rank_test(differences: Values) -> tuple[float, float]:
    """Two-sided p-value of Wilcoxon's signed-rank test, and the matched-pairs rank-biserial correlation.

    Differences of zero are dropped (Wilcoxon 1945); without any other, nothing tells the two apart: p = 1, correlation
    0. Equal absolute differences share the mean of their ranks. The p-value is exact up to 50 differences if none are
    equal, and up to 13 if some are; beyond, from the normal approximation with its correction for ties (SciPy's
    `method="auto"`). The correlation (Kerby 2014) is the sum of ranks of positive differences less that of negative
    ones, over both.
    """
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(nonzero))
    correlation = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    return float(stats.wilcoxon(nonzero, zero_method="wilcox", method="auto").pvalue), correlation


def holm(p_values: Values) -> Values:
    """Holm's step-down correction (1979) of the p-values of one family."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def _directions(runs: Sequence[Run]) -> dict[str, bool | None]:
    directions: dict[str, bool | None] = {}
    for run in runs:
        for metric, better in run.higher_is_better.items():
            if directions.setdefault(metric, better) != better:
                raise ValueError(
                    f"`runs` disagree on whether higher is better in {metric}: {run.name} says {better}, a run before "
                    f"it {directions[metric]}. It is not the same metric; compare the runs one by one."
                )
    return directions


def _tables(runs: Sequence[Run]) -> dict[str, Table]:
    """The scores by metric and method, in order of appearance, on the samples that all of a metric's methods have."""
    tables: dict[str, Table] = {}
    for run in runs:
        for row in run.rows:
            method = row.method if len(runs) == 1 else f"{run.name}:{row.method}"
            scores = tables.setdefault(row.metric, {}).setdefault(method, {})
            if row.sample in scores:
                raise ValueError(
                    f"`runs`: {run.name} has two scores of sample {row.sample} for {row.method}, {row.metric}. "
                    "Remove one."
                )
            scores[row.sample] = row.value
    return {metric: _on_common_samples(metric, table) for metric, table in tables.items()}


def _on_common_samples(metric: str, table: Table) -> Table:
    common = sorted(set.intersection(*map(set, table.values())))
    if not common:
        extents = "; ".join(f"{name} has {len(s)} from {min(s)} to {max(s)}" for name, s in table.items())
        raise ValueError(
            f"`runs` have no sample in common in {metric}: {extents}. Evaluate them on the same "
            "samples of the same data."
        )
    return {method: {sample: scores[sample] for sample in common} for method, scores in table.items()}


def _compare_metric(
    metric: str, higher_is_better: bool | None, table: Table, alpha: float, seed: int
) -> MetricComparison:
    scores = {method: np.array(list(samples.values())) for method, samples in table.items()}
    undefined = {method: int((~np.isfinite(values)).sum()) for method, values in scores.items()}
    compared = _defined_for_all({name: values for name, values in scores.items() if undefined[name] < len(values)})
    ranks = _ranks(compared, higher_is_better)
    # Of equal ones the first by name, so that the order of the rows does not matter.
    best = min(ranks, key=lambda method: (ranks[method], method), default=None)
    tests = {} if best is None else _tests(compared, best, higher_is_better)
    results = [
        MethodResult(
            method,
            undefined[method],
            *_describe(compared.get(method, np.empty(0)), 1 - alpha, seed),
            ranks.get(method),
            *tests.get(method, _NO_TEST),
            is_best=method == best or (method in tests and _not_worse(*tests[method], alpha)),
        )
        for method in scores
    ]
    num_samples = len(next(iter(compared.values()), ()))
    return MetricComparison(metric, higher_is_better, len(scores[results[0].method]), num_samples, tuple(results))


def _defined_for_all(scores: Mapping[str, Values]) -> dict[str, Float64[np.ndarray, " defined"]]:
    if not scores:
        return {}
    defined = np.isfinite(np.stack(list(scores.values()))).all(0)
    return {method: values[defined] for method, values in scores.items()}


def _describe(values: Values, confidence: float, seed: int) -> tuple[float, float, float, float]:
    """Mean, standard deviation and interval."""
    mean = float(values.mean()) if len(values) else math.nan
    deviation = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return mean, deviation, *bootstrap_interval(values, confidence, seed)


def _ranks(scores: Mapping[str, Values], higher_is_better: bool | None) -> dict[str, int]:
    """By the mean: how many methods are better, plus one."""
    if higher_is_better is None:
        return {}
    sign = -1 if higher_is_better else 1
    costs = {method: sign * float(values.mean()) for method, values in scores.items() if len(values)}
    return {method: 1 + sum(other < cost for other in costs.values()) for method, cost in costs.items()}


_NO_TEST = (math.nan, math.nan, math.nan)


def _tests(
    scores: Mapping[str, Values], best: str, higher_is_better: bool | None
) -> dict[str, tuple[float, float, float]]:
    """Correlation, p-value and corrected p-value of each method but the best, against it."""
    others = [method for method in scores if method != best]
    tests = [_test_against(scores[method], scores[best], higher_is_better) for method in others]
    corrected = holm(np.array([p_value for p_value, _ in tests]))
    return {
        method: (correlation, p_value, float(p_holm))
        for method, (p_value, correlation), p_holm in zip(others, tests, corrected, strict=True)
    }


def _test_against(values: Values, best: Values, higher_is_better: bool | None) -> tuple[float, float]:
    """Positive differences are in favour of `values`."""
    differences = values - best if higher_is_better else best - values
    equal = np.isclose(values, best, rtol=EQUAL, atol=0.0)
    return signed_rank_test(np.where(equal, 0.0, differences))


def _not_worse(correlation: float, _: float, p_holm: float, alpha: float) -> bool:
    """Of a method whose mean is not the best one: its ranks do not say that it is worse."""
    return not (p_holm <= alpha and correlation < 0)


def _compared(run: Run) -> ComparedRun:
    first = run.rows[0]
    return ComparedRun(run.name, first.stage, first.epoch, first.step, len({row.sample for row in run.rows}))
