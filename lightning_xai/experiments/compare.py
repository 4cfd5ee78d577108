"""Which method is better, and could it be chance? Paired statistics over the samples of one or more runs."""

import itertools
import math
from array import array
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from lightning_xai.checks import check_choice, check_count, check_level
from lightning_xai.experiments.runs import Run, distinct, told_apart
from lightning_xai.results.comparison import (
    CONTROLS,
    Agreement,
    ComparedRun,
    Comparison,
    MethodResult,
    MetricComparison,
)
from lightning_xai.results.scores import GRADIENTS
from lightning_xai.statistics.agreement import Levels, order_levels, tau_of_levels
from lightning_xai.statistics.intervals import NUM_RESAMPLES, mean_interval
from lightning_xai.statistics.means import deviation, mean, mean_and_standard_error
from lightning_xai.statistics.paired import Values, holm, mean_ranks, paired_test

T = TypeVar("T")

Procedure = Literal["all_pairs", "published"]
"""Which tests are one family: see `compare_methods`."""
SMALL = 0.2
"""Fewer standard deviations are a small difference of means (Cohen 1988), where no other smallest effect is given."""

Table = dict[str, pd.Series]
"""Scores of one metric, by method: a series over the samples."""


@dataclass(frozen=True)
class _Rules:
    """The options of `compare_methods` that each metric needs."""

    alpha: float
    seed: int
    procedure: Procedure
    smallest_effects: Mapping[str, float]


def compare_methods(
    runs: Sequence[Run],
    alpha: float = 0.05,
    seed: int = 0,
    gradients: int | None = None,
    procedure: Procedure = "all_pairs",
    smallest_effects: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare all methods of all runs, in each metric.

    The methods of several runs are named `run:method`, and numbered where such names collide. Runs share the numbers of
    their samples, so they should be evaluated on the same data set. All numbers of a metric are made from the same
    samples: those of which all of its methods have a defined (finite) score. A method without any is left aside. Where
    a run has explained several labels of a sample, each label counts as a sample, independent of the others, and is
    paired with itself. The scores named `gradients` are what the methods cost, and are not compared. The controls
    `random` and `edges` are tested against the best method too, but have no rank and are never the best: random maps,
    which do not look at the input, are perfectly robust.

    The best method is chosen on the same samples as the others are tested on, which makes an equally good one look
    worse. So the tests of all pairs of a metric are one family (Holm 1979, over K (K - 1) / 2 tests of K methods, the
    controls among them): whichever of them are looked at, a false "worse" comes with a probability of at most `alpha`.

    Args:
        runs: With the scores of one evaluation each (see `read_runs`).
        alpha: Level of the two-sided tests, after Holm's correction; the intervals have the confidence 1 - alpha.
        seed: Seed of the bootstrap; all methods are resampled alike.
        gradients: Compare at equal compute: only methods that spend this many gradients a sample (within 5 %), and
            those that cannot spend more because they make no draws: at most one. None for all methods.
        procedure: "all_pairs", or "published" for the rule of published tables: only the tests against the best are a
            family. Its false "worse" come more often than `alpha` says, the more methods the more often.
        smallest_effects: The smallest difference of means that is of interest, by metric, in the metric's unit. A
            significant difference is called negligible where its whole interval is smaller. For a metric without one,
            `SMALL` times the deviation between samples (root mean square of the two methods').

    Raises:
        ValueError: if there is nothing to compare, such as no common sample in a metric or no method that spends that
            many gradients, if a sample has two scores of the same method and metric, if two runs disagree on the
            direction or the class of a metric, or if a smallest effect is not positive or of no metric.

    Example:
        >>> from lightning_xai.experiments.compare import compare_methods
        >>> from lightning_xai.experiments.runs import Run
        >>> from lightning_xai.results import Scores
        >>> scores = {"gradient": 0.3, "smooth_grad": 0.5}
        >>> rows = [("test", 0, 0, name, "gini", n, scores[name] + n / 100) for name in scores for n in range(20)]
        >>> comparison = compare_methods([Run("mine", Scores.from_rows(rows), {"gini": True})])
        >>> [(found.method, found.rank, found.is_best) for found in comparison.metrics[0].methods]
        [('gradient', 2, False), ('smooth_grad', 1, True)]
    """
    check_level("alpha", alpha)
    check_count("seed", seed, 0)
    check_choice("procedure", procedure, Procedure)
    if not runs or not all(run.scores for run in runs):
        raise ValueError("`runs` must be at least one run, with at least one score each.")
    rules = _Rules(alpha, seed, procedure, smallest_effects or {})
    names = _full_names(runs := told_apart(runs))
    directions = _agreed(runs, lambda run: run.higher_is_better, "whether higher is better in {}")
    tables = _tables(runs, names)
    _check_effects(rules.smallest_effects, tables)
    costs = _costs(tables)
    left_out = {} if gradients is None else _left_out(costs, gradients)
    controls = {known[name] for known in names for name in CONTROLS if name in known}
    classes = _agreed(runs, lambda run: run.metric_classes, "what {} is")
    metrics = tuple(
        replace(
            _compare_metric(metric, directions.get(metric), _on_common_samples(metric, table), controls, rules),
            metric_class=classes.get(metric, ""),
        )
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
        procedure=procedure,
    )


def _agreed(runs: Sequence[Run], told: Callable[[Run], Mapping[str, T]], question: str) -> dict[str, T]:
    """What the runs tell of each metric, in which they have to agree."""
    agreed: dict[str, T] = {}
    for run in runs:
        for metric, own in told(run).items():
            if agreed.setdefault(metric, own) != own:
                raise ValueError(
                    f"`runs` disagree on {question.format(metric)}: {run.name} says {own}, a run before it "
                    f"{agreed[metric]}. It is not the same metric; compare the runs one by one."
                )
    return agreed


def _check_effects(smallest_effects: Mapping[str, float], known: Container[str]) -> None:
    for metric, effect in smallest_effects.items():
        if metric not in known:
            raise ValueError(f"`smallest_effects`: no run has scores of {metric!r}. Name a metric that is compared.")
        if not 0 < effect < math.inf:
            raise ValueError(f"`smallest_effects` must be positive, got {effect!r} for {metric}.")


def _full_names(runs: Sequence[Run]) -> list[dict[str, str]]:
    """What each run's methods are called, all different."""
    methods = [run.scores.unique("method") for run in runs]
    if len(runs) == 1:
        return [dict(zip(methods[0], methods[0], strict=True))]
    names = iter(distinct([f"{run.name}:{m}" for run, own in zip(runs, methods, strict=True) for m in own]))
    return [{method: next(names) for method in own} for own in methods]


def _tables(runs: Sequence[Run], names: Sequence[Mapping[str, str]]) -> dict[str, Table]:
    """The scores by metric, method and sample, in order of appearance; by sample and target where a run has several."""
    each = [run.scores.by_sample(f"`runs`: {run.name}", "Remove one.") for run in runs]
    if len({num_levels(tables) for tables in each}) > 1:
        each = [run.scores.by_sample(by_target=True) for run in runs]
    joined: dict[str, Table] = {}
    for tables, known in zip(each, names, strict=True):
        for metric, table in tables.items():
            joined.setdefault(metric, {}).update({known[method]: scores for method, scores in table.items()})
    return joined


def num_levels(tables: Mapping[str, Table]) -> int:
    """1 for tables over samples, 2 for those over samples and targets."""
    return next(scores.index.nlevels for table in tables.values() for scores in table.values())


def _costs(tables: Mapping[str, Table]) -> dict[str, float]:
    """Mean number of gradients that each method spends on a sample; NaN if unknown."""
    unknown = {method: math.nan for table in tables.values() for method in table}
    return unknown | {method: mean(spent.to_numpy()) for method, spent in tables.get(GRADIENTS, {}).items()}


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


def _on_common_samples(metric: str, table: Table) -> pd.DataFrame:
    """Samples down, methods across."""
    common = pd.concat(table, axis=1, join="inner")
    common = common if common.index.is_monotonic_increasing else common.sort_index()
    if common.empty:
        ends = {name: (len(s), s.index.min(), s.index.max()) for name, s in table.items()}
        extents = "; ".join(f"{name} has {n} from {first} to {last}" for name, (n, first, last) in ends.items())
        raise ValueError(
            f"`runs` have no sample in common in {metric}: {extents}. Evaluate them on the same "
            "samples of the same data."
        )
    return common


def _compare_metric(
    metric: str, higher_is_better: bool | None, table: pd.DataFrame, controls: Container[str], rules: _Rules
) -> MetricComparison:
    finite = np.isfinite(table)
    known = [method for method in table if finite[method].any()]
    kept = table[known][finite[known].all(axis=1) & bool(known)]
    compared = {method: kept[method].to_numpy(copy=True) for method in known}
    ranks = mean_ranks({name: values for name, values in compared.items() if name not in controls}, higher_is_better)
    # Of equal ones the first by name, so that the order of the rows does not matter.
    best = min(ranks, key=lambda method: (ranks[method], method), default=None)
    tests = {} if best is None else _tests(compared, best, higher_is_better, rules.procedure)
    results = []
    for method in table:
        values = compared.get(method, np.empty(0))
        result = MethodResult(
            method,
            int((~finite[method]).sum()),
            *_describe(values, rules),
            ranks.get(method),
            *tests.get(method, _NO_TEST),
            is_best=method == best,
            values=array("d", values.tobytes()),
        )
        if best is not None and method in tests:
            result = _judged(result, compared[best], metric, 1 if higher_is_better else -1, rules)
        results.append(result)
    samples, *targets = (
        array("q", kept.index.get_level_values(level).to_numpy(np.int64).tobytes())
        for level in range(table.index.nlevels)
    )
    return MetricComparison(metric, higher_is_better, len(table), samples, tuple(results), *targets)


def _describe(values: Values, rules: _Rules) -> tuple[float, float, float, float]:
    """Mean, standard deviation and interval."""
    return mean(values), deviation(values), *mean_interval(values, 1 - rules.alpha, rules.seed)


_NO_TEST = (math.nan, math.nan, math.nan)


def _tests(
    scores: Mapping[str, Values], best: str, higher_is_better: bool | None, procedure: Procedure
) -> dict[str, tuple[float, float, float]]:
    """Correlation, p-value and corrected p-value of each method but the best, against it."""
    others = [method for method in scores if method != best]
    hidden = itertools.combinations(others, 2) if procedure == "all_pairs" else ()
    pairs = [*((method, best) for method in others), *hidden]
    tests = [paired_test(scores[one], scores[other], higher_is_better) for one, other in pairs]
    corrected = holm(np.array([p_value for p_value, _ in tests]))
    return {
        method: (correlation, p_value, float(p_holm))
        for method, (p_value, correlation), p_holm in zip(others, tests, corrected, strict=False)
    }


def _judged(result: MethodResult, best: Values, metric: str, sign: int, rules: _Rules) -> MethodResult:
    """With the difference from the best method, and whether it is one.

    A method is as good as the best one unless its ranks say that it is worse.
    """
    values = np.array(result.values)
    difference, _, low, high = _describe(sign * (values - best), rules)
    smallest = rules.smallest_effects.get(metric, SMALL * _deviation(values, best))
    significant = result.p_holm <= rules.alpha
    return replace(
        result,
        is_best=result.rank is not None and not (significant and result.effect_size < 0),
        difference=difference,
        difference_low=low,
        difference_high=high,
        smallest_effect=smallest,
        is_negligible=significant and max(abs(low), abs(high)) < smallest,
    )


def _deviation(*scores: Values) -> float:
    """Root mean square of the deviations between samples."""
    return math.sqrt(np.mean([deviation(values) ** 2 for values in scores]))


def _agreements(metrics: Sequence[MetricComparison], controls: Container[str]) -> Iterator[Agreement]:
    """Of all pairs of metrics with a direction and with three methods or more, without the controls.

    Metrics that know random maps for what they are agree on that; it says nothing of the methods.
    """
    directed = {metric.metric: _oriented(metric, controls) for metric in metrics if metric.higher_is_better is not None}
    whole: dict[str, Levels] = {}  # of all methods and samples: most pairs of metrics have all of them in common

    def levels(metric: str, scores: pd.DataFrame) -> Levels:
        own = directed[metric]
        if not (scores.columns.equals(own.columns) and scores.index.equals(own.index)):
            return order_levels(scores.to_numpy().T)
        if metric not in whole:
            whole[metric] = order_levels(own.to_numpy().T)
        return whole[metric]

    for names in itertools.combinations(directed, 2):
        pair = directed[names[0]].align(directed[names[1]], join="inner")
        if len(pair[0].columns) < 3:
            continue
        tau = tau_of_levels(*map(levels, names, pair))
        if len(tau := tau[np.isfinite(tau)]):
            yield Agreement(names, *mean_and_standard_error(tau), len(tau), len(pair[0].columns))


def _oriented(metric: MetricComparison, controls: Container[str]) -> pd.DataFrame:
    """The methods' scores, higher for better, without the controls: samples down, methods across."""
    values = {result.method: result.values for result in metric.methods if result.values}
    index = pd.MultiIndex.from_arrays([metric.samples, metric.targets]) if metric.targets else metric.samples
    scores = pd.DataFrame({m: own for m, own in values.items() if m not in controls}, index, dtype=float)
    return scores if metric.higher_is_better else -scores


def _compared(run: Run) -> ComparedRun:
    stage, epoch, step = run.scores.table[["stage", "epoch", "step"]].iloc[0]
    return ComparedRun(run.name, stage, int(epoch), int(step), run.scores.table["sample"].nunique(), run.not_scored)
