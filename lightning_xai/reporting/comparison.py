"""A comparison of methods as text: terminal, CSV, Markdown and LaTeX."""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from pandas import isna

from lightning_xai.reporting.escapes import markdown
from lightning_xai.reporting.render import latex_table, markdown_table
from lightning_xai.results.comparison import CONTROLS, Comparison, MethodResult, MetricComparison
from lightning_xai.results.files import csv_text, write_text
from lightning_xai.results.findings import Pair
from lightning_xai.results.tables import ResultTable, number_format, with_arrow
from lightning_xai.statistics.intervals import MOST_RESAMPLED


def write_comparison(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write comparison.csv, comparison.md and comparison.tex to the folder, each as a whole, and return their paths.

    Raises:
        OSError: if the folder cannot be written to.
    """
    texts = {
        "csv": comparison_csv(comparison),
        "md": comparison_markdown(comparison),
        "tex": comparison_latex(comparison),
    }
    return [write_text(Path(folder) / f"comparison.{extension}", text) for extension, text in texts.items()]


def comparison_tables(comparison: Comparison) -> list[ResultTable]:
    """One table a metric, the best in bold; the last one is of the agreement between metrics, if measured."""
    tables = [_metric_table(comparison, metric) for metric in comparison.metrics]
    return [*tables, _agreement_table(comparison)] if comparison.agreements else tables


def pair_tables(pairs: Sequence[Pair], alpha: float) -> list[ResultTable]:
    """Each method in two runs, a table for each metric and pair of runs, without controls that are the same in both."""
    tables: dict[tuple[str, tuple[str, str]], list[tuple[str, ...]]] = {}
    for pair in pairs:
        style = number_format(max(abs(pair.first), abs(pair.second)))
        if pair.method in CONTROLS and pair.difference == 0:
            continue
        ends = "" if math.isnan(pair.low) else f"[{pair.low:+{style}}, {pair.high:+{style}}]"
        means = f"{pair.first:{style}}", f"{pair.second:{style}}", f"{pair.difference:+{style}}"
        row = (pair.method, *means, ends, _probability(pair.p_holm), str(pair.num_samples))
        tables.setdefault((pair.metric, pair.runs), []).append(row)
    return [
        ResultTable(
            f"{metric}: {second} against {first}, paired by sample",
            ("method", first, second, "difference", f"{_percent(1 - alpha)} interval", "p", "n"),
            tuple(rows),
            bold=frozenset(),
            verbatim=frozenset({1, 2}),
        )
        for (metric, (first, second)), rows in tables.items()
    ]


def comparison_csv(comparison: Comparison) -> str:
    """One line for each metric and method, with all digits; what is not defined is empty."""
    ofs = ["metric", "higher_is_better", "num_common", "num_samples"]
    names = [item.name for item in fields(MethodResult) if item.name != "values"]
    rows: list[list[object]] = [[*ofs, *names, *(["gradients"] if comparison.gradients else [])]]
    for metric in comparison.metrics:
        for result in metric.methods:
            values = [*(getattr(metric, name) for name in ofs), *(getattr(result, name) for name in names)]
            values += [comparison.gradients[result.method]] if comparison.gradients else []
            rows.append(["" if isna(value) else value for value in values])
    return csv_text(rows)


def comparison_markdown(comparison: Comparison) -> str:
    """A heading and a table for each metric and for their agreement, and the notes."""
    tables = (markdown_table(table, "###") for table in comparison_tables(comparison))
    return "\n\n".join([*tables, *map(markdown, comparison_notes(comparison))]) + "\n"


def comparison_latex(comparison: Comparison) -> str:
    """A `booktabs` table of methods x metrics, means with intervals, with the notes as comments above it."""
    found = {(r.method, metric.metric): r for metric in comparison.metrics for r in metric.methods}
    names = [metric.metric for metric in comparison.metrics]
    marked = {metric.metric: comparison.marked(metric) for metric in comparison.metrics}
    titles = [with_arrow(metric.metric, metric.higher_is_better) for metric in comparison.metrics]
    columns = ("method", *(["gradients"] if comparison.gradients else []), *titles)
    best = frozenset(
        (row, column)
        for row, method in enumerate(comparison.methods)
        for column, name in enumerate(names, len(columns) - len(names))
        if method in marked[name]
    )
    rows = tuple(
        (method, *_cost(comparison, method), *(_interval(found.get((method, name))) for name in names))
        for method in comparison.methods
    )
    return latex_table(ResultTable("", columns, rows, tuple(comparison_notes(comparison)), best))


def comparison_notes(comparison: Comparison) -> list[str]:
    """What was compared, and how; one sentence or a few each."""
    moments = [f"{r.stage}, epoch {r.epoch}, step {r.step}, " if r.stage else "" for r in comparison.runs]
    runs = [f"{r.name}: {moment}{r.num_samples} samples" for r, moment in zip(comparison.runs, moments, strict=True)]
    notes = [f"Scores of {'; '.join(runs)}."]
    if any(metric.num_common < run.num_samples for metric in comparison.metrics for run in comparison.runs):
        common = ", ".join(f"{metric.num_common} in {metric.metric}" for metric in comparison.metrics)
        notes.append(f"Compared on the samples that all have in common: {common}.")
    if comparison.gradients:
        notes.append("gradients: of the model's output, spent on a sample by backward passes, on average.")
    if comparison.matched_gradients is not None:
        notes.append(matching_note(comparison))
    many = any(metric.num_samples > MOST_RESAMPLED for metric in comparison.metrics)
    analytic = f"; beyond {MOST_RESAMPLED} samples its analytic form (ABC)" * many
    notes.append(
        "Mean and standard deviation (n - 1) over the samples; "
        f"[{_percent(1 - comparison.alpha)} confidence interval of the mean]: BCa bootstrap, "
        f"{comparison.num_resamples} resamples, seed {comparison.seed}{analytic}."
    )
    notes += _unscored_notes(comparison)
    if any(metric.higher_is_better is not None for metric in comparison.metrics):
        notes.append(
            "difference: mean difference from the best mean, negative if worse (comparison.csv has its interval). p: "
            "two-sided Wilcoxon signed-rank test against the best mean, paired by sample, equal scores dropped, after "
            f"Holm's correction over {_FAMILIES[comparison.procedure]} of the metric. r: matched-pairs rank-biserial "
            "correlation, negative if worse than the best. Bold, in a terminal also *: the best, and all that are not "
            f"significantly worse at {comparison.alpha:g}."
        )
        if comparison.controls:
            notes[-1] += f" The controls {', '.join(comparison.controls)} are tested too, but never the best."
        notes += [*_unmarked_notes(comparison), *_negligible_notes(comparison)]
    if unknown := [metric.metric for metric in comparison.metrics if metric.higher_is_better is None]:
        notes.append(
            "Without a direction in the metrics.json beside the scores, and therefore without best and tests: "
            f"{', '.join(unknown)}."
        )
    if comparison.agreements:
        notes.append(agreement_note(comparison))
    return notes


_FAMILIES = {
    "all_pairs": "all pairs of methods",
    "published": "the methods (as published; equally good ones are called worse more often than the level says)",
}


def _unscored_notes(comparison: Comparison) -> list[str]:
    notes = [
        f"Not scored in epoch {run.epoch}, step {run.step} of {run.name}, but in other evaluations of its stage: "
        f"{', '.join(run.not_scored)}."
        for run in comparison.runs
        if run.not_scored
    ]
    scored = {metric.metric: {result.method for result in metric.methods} for metric in comparison.metrics}
    missing = [
        f"{name} in {metric}"
        for metric, methods in scored.items()
        for name in comparison.methods
        if name not in methods
    ]
    return [*notes, f"Not scored: {', '.join(missing)}."] if missing else notes


def _unmarked_notes(comparison: Comparison) -> list[str]:
    directed = [metric for metric in comparison.metrics if metric.higher_is_better is not None]
    few = [f"{metric.metric} ({metric.num_samples})" for metric in directed if not comparison.is_tested(metric)]
    return [f"Too few samples for a test, and therefore nothing in bold: {', '.join(few)}."] if few else []


def _negligible_notes(comparison: Comparison) -> list[str]:
    """Effects of samples so many that any difference is significant."""
    found = [
        f"{result.method} in {metric.metric} (less than {result.smallest_effect:.3g})"
        for metric in comparison.metrics
        for result in metric.methods
        if result.is_negligible
    ]
    if not found:
        return []
    return [
        "≈: significant but negligible, the whole interval of the difference is below the smallest effect of interest: "
        f"{', '.join(found)}."
    ]


def matching_note(comparison: Comparison) -> str:
    """Which methods a comparison at equal compute is of."""
    note = (
        f"Compared at equal compute: methods that spend {comparison.matched_gradients} gradients a sample (within 5 %),"
        " or at most one, as those do that make no draws."
    )
    costs = [
        f"{method} ({'unknown' if math.isnan(cost) else format(cost, 'g')})"
        for method, cost in comparison.left_out.items()
    ]
    return f"{note} Left out: {', '.join(costs)}." if costs else note


def agreement_note(comparison: Comparison) -> str:
    """What the agreement is of, and how sure."""
    numbers = sorted({agreement.num_samples for agreement in comparison.agreements})
    samples = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
    errors = [a.standard_error for a in comparison.agreements if not math.isnan(a.standard_error)]
    sure = f", standard error up to {max(errors):.2f}" if errors else ""
    controls = f", without the controls {', '.join(comparison.controls)}" if comparison.controls else ""
    return (
        "Agreement: Kendall's tau-b of the orders in which two metrics put the methods on a sample, +1 if they agree on"
        f" which are better, -1 if one says the reverse; mean over {samples} samples{sure}{controls}."
    )


def agreeing_metrics(comparison: Comparison) -> list[MetricComparison]:
    """The metrics whose agreement with some other one was measured."""
    names = {name for agreement in comparison.agreements for name in agreement.metrics}
    return [metric for metric in comparison.metrics if metric.metric in names]


def tau_text(tau: float) -> str:
    """With a sign, and without a negative zero."""
    return f"{round(tau, 2) + 0.0:+.2f}"


def _metric_table(comparison: Comparison, metric: MetricComparison) -> ResultTable:
    methods = list(_told_once(comparison, metric))
    columns, rows = _header(comparison), tuple(_cells(comparison, result) for result in methods)
    best = [number for number, result in enumerate(methods) if result.method in comparison.marked(metric)]
    bold = frozenset(itertools.product(best, range(len(columns))))
    title = f"{with_arrow(metric.metric, metric.higher_is_better)}, {_samples(metric)}"
    return ResultTable(title, columns, rows, bold=bold)


def _told_once(comparison: Comparison, metric: MetricComparison) -> Iterator[MethodResult]:
    """Without the controls of a run that are the same in an earlier one: they know nothing of its network."""
    seen: set[tuple[str, tuple[float, ...]]] = set()
    for result in metric.methods:
        known = result.method.rpartition(":")[2], tuple(result.values)
        if result.method not in comparison.controls or known not in seen:
            yield result
        seen.add(known)


def _agreement_table(comparison: Comparison) -> ResultTable:
    """A triangle; its columns are the rows' numbers."""
    metrics = agreeing_metrics(comparison)
    tau = {agreement.metrics: agreement.tau for agreement in comparison.agreements}
    columns, rows = ("metric", *(str(number) for number in range(1, len(metrics)))), []
    for position, metric in enumerate(metrics):
        values = [tau.get((other.metric, metric.metric), math.nan) for other in metrics[:position]]
        cells = ["" if math.isnan(value) else tau_text(value) for value in values]
        rows.append((f"{position + 1} {metric.metric}", *cells, *[""] * (len(metrics) - 1 - position)))
    return ResultTable("agreement between metrics", columns, tuple(rows), bold=frozenset())


def _header(comparison: Comparison) -> tuple[str, ...]:
    costs = ["gradients"] if comparison.gradients else []
    interval = f"{_percent(1 - comparison.alpha)} interval"
    return ("method", *costs, "mean", "std", interval, "undefined", "rank", "difference", "r", "p")


def _cost(comparison: Comparison, method: str) -> list[str]:
    """The cell of the column that there is only if some costs are known."""
    if not comparison.gradients:
        return []
    cost = comparison.gradients[method]
    return ["" if math.isnan(cost) else f"{cost:g}"]


def _cells(comparison: Comparison, result: MethodResult) -> tuple[str, ...]:
    mean, deviation, low, high = _numbers(result)
    return (
        result.method,
        *_cost(comparison, result.method),
        mean,
        deviation,
        f"[{low}, {high}]" if low else "",
        str(result.num_undefined),
        str(result.rank or ""),
        _difference(result),
        "" if math.isnan(result.effect_size) else f"{result.effect_size:+.2f}",
        _probability(result.p_holm),
    )


def _numbers(result: MethodResult) -> list[str]:
    """Mean, deviation and interval, all with the digits that suit the mean."""
    values = (result.mean, result.standard_deviation, result.low, result.high)
    return ["" if math.isnan(value) else f"{value:{number_format(result.mean)}}" for value in values]


def _difference(result: MethodResult) -> str:
    """Without its interval, for which a terminal has no room."""
    if math.isnan(result.difference):
        return ""
    return f"{result.difference:+{number_format(result.difference)}}{' ≈' if result.is_negligible else ''}"


def _probability(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _samples(metric: MetricComparison) -> str:
    if metric.num_samples == metric.num_common:
        return f"{metric.num_samples} samples"
    return f"{metric.num_samples} of {metric.num_common} samples, those defined for all methods"


def _interval(result: MethodResult | None) -> str:
    """Mean and interval; two dashes where they are not defined."""
    if result is None:
        return ""
    mean, _, low, high = _numbers(result)
    return f"{mean} [{low}, {high}]" if low else mean or "--"
