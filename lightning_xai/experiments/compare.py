"""Which method is better, and could it be chance? Paired statistics over the samples of one or more runs."""

import itertools
import math
from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

from lightning_xai.experiments.runs import Run
from lightning_xai.explainers.base import check_count, check_level
from lightning_xai.metrics.cost import GRADIENTS
from lightning_xai.reporting.comparison import Agreement, ComparedRun, Comparison, MethodResult, MetricComparison

CONTROLS = ("random", "edges")
"""Names of the methods that know nothing of the model."""
NUM_RESAMPLES = 9999
EQUAL = 1e-6
"""Relative difference up to which two scores count as equal: they are single-precision numbers."""

Values = Float64[np.ndarray, " samples"]
Table = dict[str, dict[int, float]]
"""Scores of one metric: by method, by sample."""


def compare_methods(
    runs: Sequence[Run], alpha: float = 0.05, seed: int = 0, gradients: int | None = None
) -> Comparison:
    """Compare all methods of all runs, in each metric.

    The methods of several runs are named `run:method`. Runs share the numbers of their samples, so they should be
    evaluated on the same data set. All numbers of a metric are made from the same samples: those of which all of its
    methods have a defined (finite) score. A method without any is left aside. The best method is chosen on the same
    samples as the others are tested on. The scores named `gradients` are what the methods cost, and are not compared.
    The controls `random` and `edges` are tested against the best method too, but have no rank and are never the best:
    random maps, which do not look at the input, are perfectly robust.

    Args:
        runs: With the rows of one evaluation each (see `read_runs`).
        alpha: Level of the two-sided tests, after Holm's correction; the intervals have the confidence 1 - alpha.
        seed: Of the bootstrap; all methods are resampled alike.
        gradients: Compare at equal compute: only methods that spend this many gradients a sample (within 5 %), and
            those that cannot spend more because they make no draws: at most one. None for all methods.

    Raises:
        ValueError: if there is nothing to compare, such as no common sample in a metric or no method that spends that
            many gradients, if a sample has two scores of the same method and metric, or if two runs disagree on the
            direction of a metric.
    """
    check_level("alpha", alpha)
    check_count("seed", seed, 0)
    if not runs or not all(run.rows for run in runs):
        raise ValueError("`runs` must be at least one run, with at least one score each.")
    directions, tables = _directions(runs), _tables(runs)
    costs = _costs(tables)
    left_out = {} if gradients is None else _left_out(costs, gradients)
    controls = {_full_name(run, name, runs) for run in runs for name in CONTROLS}
    metrics = tuple(
        _compare_metric(metric, directions.get(metric), _on_common_samples(metric, table), controls, alpha, seed)
        for metric, table in _without(left_out, tables).items()
    )
    return Comparison(
        tuple(map(_compared, runs)),
        metrics,
        alpha,
        NUM_RESAMPLES,
        seed,
        controls=tuple(name for name in costs if name in controls and name not in left_out),
        gradients={name: cost for name, cost in costs.items() if name not in left_out} if _known(costs) else {},
        matched_gradients=gradients,
        left_out=left_out,
        agreements=tuple(_agreements(metrics, controls)),
    )


def bootstrap_interval(values: Values, confidence: float, seed: int = 0) -> tuple[float, float]:
    """Confidence interval of the mean: bias-corrected and accelerated bootstrap (Efron 1987), by SciPy.

    Equal values have an interval of length 0; less than two have none (NaN).
    """
    check_level("confidence", confidence)
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


def paired_test(values: Values, others: Values, higher_is_better: bool | None = True) -> tuple[float, float]:
    """`signed_rank_test` of the differences, those in favour of `values` positive; up to `EQUAL` they count as none."""
    differences = values - others if higher_is_better else others - values
    equal = np.isclose(values, others, rtol=EQUAL, atol=0.0)
    return signed_rank_test(np.where(equal, 0.0, differences))


def holm(p_values: Values) -> Values:
    """Holm's step-down correction (1979) of the p-values of one family."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def kendall_tau(
    first: Float64[np.ndarray, "methods samples"], second: Float64[np.ndarray, "methods samples"]
) -> Values:
    """Kendall's tau-b of two orders of the methods, sample by sample; NaN where all methods are equal in one."""
    pairs = zip(_levels(first).T, _levels(second).T, strict=True)
    return np.array([stats.kendalltau(one, other, method="asymptotic").statistic for one, other in pairs])


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
    """The scores by metric, method and sample, in order of appearance."""
    tables: dict[str, Table] = {}
    for run in runs:
        for row in run.rows:
            scores = tables.setdefault(row.metric, {}).setdefault(_full_name(run, row.method, runs), {})
            if row.sample in scores:
                raise ValueError(
                    f"`runs`: {run.name} has two scores of sample {row.sample} for {row.method}, {row.metric}. "
                    "Remove one."
                )
            scores[row.sample] = row.value
    return tables


def _full_name(run: Run, method: str, runs: Sequence[Run]) -> str:
    return method if len(runs) == 1 else f"{run.name}:{method}"


def _costs(tables: Mapping[str, Table]) -> dict[str, float]:
    """Mean number of gradients that each method spends on a sample; NaN if unknown."""
    scores = {method: [math.nan] for table in tables.values() for method in table}
    scores |= {method: list(samples.values()) for method, samples in tables.get(GRADIENTS, {}).items()}
    known = {method: [value for value in values if math.isfinite(value)] for method, values in scores.items()}
    return {method: float(np.mean(values)) if values else math.nan for method, values in known.items()}


def _known(costs: Mapping[str, float]) -> dict[str, float]:
    return {method: cost for method, cost in costs.items() if not math.isnan(cost)}


def _left_out(costs: Mapping[str, float], gradients: int) -> dict[str, float]:
    """What the methods cost that spend neither about as much nor at most one."""
    check_count("gradients", gradients)
    if not (known := _known(costs)):
        raise ValueError(
            "`gradients`: no run has recorded what its methods spend. Evaluate anew, or compare without `gradients`."
        )
    equal = [method for method, cost in known.items() if 20 * abs(cost - gradients) <= gradients]  # within 5 %
    if not equal:
        spent = ", ".join(f"{method} spends {cost:g}" for method, cost in known.items())
        raise ValueError(f"`gradients`: no method spends about {gradients} a sample: {spent}. Choose one of these.")
    return {method: cost for method, cost in costs.items() if method not in equal and not cost <= 1}


def _without(left_out: Container[str], tables: Mapping[str, Table]) -> dict[str, Table]:
    """The scores of the methods that are compared, in the metrics that have any."""
    kept = {
        metric: {method: samples for method, samples in table.items() if method not in left_out}
        for metric, table in tables.items()
        if metric != GRADIENTS
    }
    if not any(kept.values()):
        raise ValueError("`runs` have no score of the methods to be compared, except for what they cost.")
    return {metric: table for metric, table in kept.items() if table}


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
    metric: str, higher_is_better: bool | None, table: Table, controls: Container[str], alpha: float, seed: int
) -> MetricComparison:
    scores = {method: np.array(list(samples.values())) for method, samples in table.items()}
    undefined = {method: int((~np.isfinite(values)).sum()) for method, values in scores.items()}
    samples = list(next(iter(table.values())))
    known = {name: values for name, values in scores.items() if undefined[name] < len(values)}
    defined = np.isfinite(np.stack(list(known.values()))).all(0) if known else np.zeros(len(samples), dtype=bool)
    compared = {name: values[defined] for name, values in known.items()}
    ranks = _ranks({name: values for name, values in compared.items() if name not in controls}, higher_is_better)
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
            is_best=method == best or (method in ranks and _not_worse(*tests[method], alpha)),
            values=tuple(compared.get(method, np.empty(0)).tolist()),
        )
        for method in scores
    ]
    kept = tuple(sample for sample, keep in zip(samples, defined, strict=True) if keep)
    return MetricComparison(metric, higher_is_better, len(samples), kept, tuple(results))


def _describe(values: Values, confidence: float, seed: int) -> tuple[float, float, float, float]:
    """Mean, standard deviation and interval."""
    return *_mean_and_deviation(values), *bootstrap_interval(values, confidence, seed)


def _mean_and_deviation(values: Values) -> tuple[float, float]:
    mean = float(values.mean()) if len(values) else math.nan
    return mean, float(values.std(ddof=1)) if len(values) > 1 else math.nan


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
    tests = [paired_test(scores[method], scores[best], higher_is_better) for method in others]
    corrected = holm(np.array([p_value for p_value, _ in tests]))
    return {
        method: (correlation, p_value, float(p_holm))
        for method, (p_value, correlation), p_holm in zip(others, tests, corrected, strict=True)
    }


def _not_worse(correlation: float, _: float, p_holm: float, alpha: float) -> bool:
    """Of a method whose mean is not the best one: its ranks do not say that it is worse."""
    return not (p_holm <= alpha and correlation < 0)


def _agreements(metrics: Sequence[MetricComparison], controls: Container[str]) -> Iterator[Agreement]:
    """Of all pairs of metrics with a direction and with three methods or more, without the controls.

    Metrics that know random maps for what they are agree on that; it says nothing of the methods.
    """
    directed = [metric for metric in metrics if metric.higher_is_better is not None]
    for first, second in itertools.combinations(directed, 2):
        scores = [{r.method: r.values for r in metric.methods if r.values} for metric in (first, second)]
        methods = [method for method in scores[0] if method in scores[1] and method not in controls]
        if len(methods) < 3:
            continue
        common = set(first.samples) & set(second.samples)
        tau = kendall_tau(_oriented(first, methods, common), _oriented(second, methods, common))
        if len(tau := tau[np.isfinite(tau)]):
            mean, deviation = _mean_and_deviation(tau)
            names = first.metric, second.metric
            yield Agreement(names, mean, deviation / math.sqrt(len(tau)), len(tau), len(methods))


def _oriented(
    metric: MetricComparison, methods: Sequence[str], samples: Container[int]
) -> Float64[np.ndarray, "methods samples"]:
    """The methods' scores of these samples, higher for better."""
    sign = 1.0 if metric.higher_is_better else -1.0
    values = {result.method: np.array(result.values) for result in metric.methods}
    kept = np.array([sample in samples for sample in metric.samples], dtype=bool)
    return sign * np.stack([values[method][kept] for method in methods])


def _levels(scores: Float64[np.ndarray, "methods samples"]) -> Int64[np.ndarray, "methods samples"]:
    """For each sample, the place of each method from the worst up; neighbours that are equal share it."""
    order = scores.argsort(0)
    ascending = np.take_along_axis(scores, order, 0)
    steps = ~np.isclose(ascending[1:], ascending[:-1], rtol=EQUAL, atol=0.0)
    levels = np.zeros(scores.shape, dtype=np.int64)
    np.put_along_axis(levels, order[1:], steps.cumsum(0), 0)
    return levels


def _compared(run: Run) -> ComparedRun:
    first = run.rows[0]
    return ComparedRun(run.name, first.stage, first.epoch, first.step, len({row.sample for row in run.rows}))
