"""What is on the page for programs: the scores in it, and report.json beside it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_xai._version import __version__
from lightning_xai.reporting.page.charts import accuracy_history, calibration_of, curves_of
from lightning_xai.reporting.page.metrics import about
from lightning_xai.reporting.page.numbers import Number, text
from lightning_xai.reporting.page.sentences import (
    by_row,
    compared_samples,
    explained,
    floor,
    is_below_floor,
    labelled,
    leading,
    sentences,
)
from lightning_xai.reporting.page.shortcuts import FIELDS as SHORTCUT_FIELDS, shortcut_records
from lightning_xai.results.comparison import Comparison, MethodResult, MetricComparison
from lightning_xai.results.findings import Findings, FoundRun
from lightning_xai.results.scores import Scores

SCHEMA, VERSION = "lightning_xai.report", 2
MOST_VALUES = 200_000
"""Scores of earlier validations that a page has in it, at most."""

FIELDS = {
    "schema": "always lightning_xai.report",
    "version": "of the schema; a field that changes its meaning or goes raises it, a new one does not",
    "made.with": "version of lightning_xai that wrote this file",
    "made.command": "that writes it again",
    "fields": "this list; NaN, infinite and unknown numbers are null",
    "answer[].kind": "best, ties (of one run) or runs (of several), control, shortcuts, sanity or limits",
    "answer[].tone": "good, bad or plain",
    "answer[].text": "one or two sentences",
    "answer[].numbers[].of": "what the number in the text is: mean, low, high, n, worse_by, passed, ...",
    "answer[].numbers[].metric": "of which it is; empty for none",
    "answer[].numbers[].method": "likewise",
    "answer[].numbers[].value": "with all digits",
    "statistics.alpha": "level of the tests; intervals have the confidence 1 - alpha",
    "statistics.interval": "how intervals are made",
    "statistics.test": "how methods are compared",
    "statistics.seed": "of the bootstrap",
    "statistics.num_resamples": "of the bootstrap",
    "statistics.controls[]": "methods that know nothing of what the network learnt",
    "statistics.leading_metric": "the one that the answer is about",
    "metrics[].metric": "its name in the run",
    "metrics[].what": "what a score is, and what is good",
    "metrics[].chance": "what it is by chance",
    "metrics[].group": "evidence, faithfulness, robustness, form, input or other",
    "metrics[].higher_is_better": "true, false or null",
    "metrics[].limit": "the best possible score",
    "metrics[].num_samples": "of which all methods have a defined score: all numbers of the metric are of these",
    "metrics[].num_common": "of which all methods have a score",
    "metrics[].methods[].method": "its name; of several runs RUN:METHOD",
    "metrics[].methods[].is_control": "whether it knows nothing of what the network learnt",
    "metrics[].methods[].is_best": "the best, or not significantly worse than it",
    "metrics[].methods[].floor": "what it must be better than: the mean of the best control, or chance; null without",
    "metrics[].methods[].floor_of": "the name of that control, or chance",
    "metrics[].methods[].is_above_floor": "whether it is better (Wilcoxon; of few samples, by its mean); null without",
    "metrics[].methods[].gradients": "spent on a sample, on average",
    "metrics[].methods[].mean": "over the samples",
    "metrics[].methods[].low": "lower end of its confidence interval",
    "metrics[].methods[].high": "upper end",
    "metrics[].methods[].standard_deviation": "between samples, n - 1",
    "metrics[].methods[].num_undefined": "samples without a defined score of this method",
    "metrics[].methods[].rank": "of the mean, 1 for the best",
    "metrics[].methods[].difference": "mean difference from the best method, negative if worse",
    "metrics[].methods[].difference_low": "lower end of its confidence interval",
    "metrics[].methods[].difference_high": "upper end",
    "metrics[].methods[].p_holm": "against the best method, corrected",
    "metrics[].methods[].effect_size": "rank-biserial correlation with the best method, negative if worse",
    "runs[].name": "the folder, as far as it tells the runs apart",
    "runs[].stage": "of the evaluation that is reported",
    "runs[].epoch": "likewise",
    "runs[].step": "of the optimizer",
    "runs[].num_samples": "that have scores",
    "runs[].date": "of the latest scores",
    "runs[].seed": "of the training",
    "runs[].explained": "the class: label, prediction, each positive label, or a number; empty if not recorded",
    "runs[].accuracy": "share of the samples that the network is right on, where the labels are explained, or may be",
    "runs[].calibration[].num_samples": "whose predicted class has a probability within this tenth",
    "runs[].calibration[].probability": "mean of it",
    "runs[].calibration[].right": "share that the network is right on",
    "runs[].calibration[].low": "lower end of its interval (Wilson, 95 %)",
    "runs[].calibration[].high": "upper end",
    "runs[].checkpoints[].name": "file",
    "runs[].checkpoints[].epoch": "when it was written",
    "runs[].checkpoints[].step": "likewise",
    "runs[].settings{}": "by method, YAML",
    "runs[].checksums{}": "by file, SHA-256",
    "runs[].curves[].metric": "of which the validations are",
    "runs[].curves[].epochs[]": "in order",
    "runs[].curves[].steps[]": "likewise",
    "runs[].curves[].means{}": "by method, over the defined scores of each validation",
    "sanity[].run": "whose",
    "sanity[].folder": "of the check",
    "sanity[].check": "parameters, data, invariance, efficient or random_logit",
    "sanity[].method": "examined",
    "sanity[].outcome": "PASS, FAIL or INCONCLUSIVE",
    "sanity[].similarity": "that decided",
    "sanity[].mean": "of it",
    "sanity[].low": "lower end of its interval, or of that of the difference from the floor",
    "sanity[].high": "upper end",
    "sanity[].threshold": "what the mean is compared with",
    "sanity[].margin": "how far above it still counts as at it",
    "sanity[].networks": "changed networks that it is of",
    "sanity[].reason": "one sentence",
    "sanity[].step": "of the check, that decided; empty in files of earlier versions",
    **SHORTCUT_FIELDS,
    "pairs[].metric": "of several runs, a method in two of them",
    "pairs[].method": "its name",
    "pairs[].runs[]": "first and second",
    "pairs[].num_samples": "that both have",
    "pairs[].first": "mean in the first run",
    "pairs[].second": "mean in the second",
    "pairs[].difference": "second less first",
    "pairs[].low": "lower end of its confidence interval",
    "pairs[].high": "upper end",
    "pairs[].p_holm": "Wilcoxon, corrected over the methods of the metric",
    "checklist[].question": "that checklists for saliency maps ask",
    "checklist[].answer": "what the runs say",
}
"""What each place of report.json is; `[]` is each member of a list, `{}` each value of a mapping."""


def report_record(findings: Findings, command: str = "") -> dict[str, Any]:
    """What report.json has: `FIELDS` says what each place is."""
    comparison = findings.comparison
    first = leading(comparison)
    record = {
        "schema": SCHEMA,
        "version": VERSION,
        "made": {"with": __version__, "command": command},
        "fields": FIELDS,
        "answer": [
            {
                "kind": sentence.kind,
                "tone": sentence.tone,
                "text": text(sentence.parts),
                "numbers": [
                    {"of": part.of, "metric": part.metric, "method": part.method, "value": part.value}
                    for part in sentence.parts
                    if isinstance(part, Number)
                ],
            }
            for sentence in sentences(findings)
        ],
        "statistics": {
            "alpha": comparison.alpha,
            "interval": "BCa bootstrap of the mean; beyond 2,000 samples its analytic form (ABC)",
            "test": "Wilcoxon signed-rank against the best mean, two-sided, Holm over all pairs of a metric's methods",
            "seed": comparison.seed,
            "num_resamples": comparison.num_resamples,
            "controls": comparison.controls,
            "leading_metric": None if first is None else first.metric,
        },
        "metrics": [_metric(comparison, metric) for metric in comparison.metrics],
        "runs": [_run(findings, place) for place in range(len(findings.runs))],
        "sanity": [
            {"run": run.name, "folder": folder, **asdict(verdict)}
            for run in findings.runs
            for folder, verdicts in run.verdicts.items()
            for verdict in verdicts
        ],
        "shortcuts": shortcut_records(findings),
        "pairs": [asdict(pair) for pair in findings.pairs],
        "checklist": [{"question": question, "answer": answer} for question, answer in _checklist(findings)],
    }
    return _plain(record)


def _metric(comparison: Comparison, metric: MetricComparison) -> dict[str, Any]:
    known = about(metric)
    return {
        "metric": metric.metric,
        "what": known.what,
        "chance": known.chance,
        "group": known.group,
        "higher_is_better": metric.higher_is_better,
        "limit": known.limit,
        "num_samples": metric.num_samples,
        "num_common": metric.num_common,
        "methods": [_method(comparison, metric, result) for result in metric.methods],
    }


def _method(comparison: Comparison, metric: MetricComparison, result: MethodResult) -> dict[str, Any]:
    level = floor(comparison, metric, result)
    names = ("mean", "low", "high", "standard_deviation", "num_undefined", "rank", "difference", "difference_low")
    return {
        "method": result.method,
        "is_control": result.method in comparison.controls,
        "is_best": result.is_best,
        "floor": level and level.mean,
        "floor_of": level and level.name,
        "is_above_floor": not is_below_floor(comparison, metric, result) if level and result.values else None,
        "gradients": comparison.gradients.get(result.method),
        **{name: getattr(result, name) for name in (*names, "difference_high", "p_holm", "effect_size")},
    }


def _run(findings: Findings, place: int) -> dict[str, Any]:
    run, compared = findings.runs[place], findings.comparison.runs[place]
    samples = compared_samples(run)
    known = len(samples) and labelled(run)
    curves = [curves_of(run.history, metric, None, {}) for metric in run.history.unique("metric")]
    curves.append(curves_of(accuracy_history(run), "accuracy", None, {}))
    return {
        "name": run.name,
        "stage": compared.stage,
        "epoch": compared.epoch,
        "step": compared.step,
        "num_samples": compared.num_samples,
        "date": run.date,
        "seed": run.seed,
        "explained": explained(run),
        "accuracy": float((samples["target"] == samples["predicted"]).mean()) if known else None,
        "calibration": [asdict(tenth) for tenth in calibration_of(run)],
        "checkpoints": [asdict(checkpoint) for checkpoint in run.checkpoints],
        "settings": run.settings,
        "checksums": run.checksums,
        "curves": [
            {"metric": c.metric, "epochs": c.epochs, "steps": c.steps, "means": {k.method: k.means for k in c.curves}}
            for c in curves
            if c is not None
        ],
    }


def _checklist(findings: Findings) -> Iterator[tuple[str, str]]:
    """What published checklists for saliency maps in medicine ask for."""
    comparison = findings.comparison
    checks = {verdict.check for run in findings.runs for own in run.verdicts.values() for verdict in own}
    evidence = [m for m in comparison.metrics if about(m).group == "evidence" and m.num_samples]
    samples = ", ".join(f"{run.num_samples} samples of {run.stage}" for run in comparison.runs)
    yield "Which methods, with which settings?", f"{', '.join(comparison.methods)}; see runs[].settings"
    yield "Compared with which controls?", ", ".join(comparison.controls) or "none"
    yield "Do the maps depend on the network?", f"checked: {', '.join(sorted(checks))}" if checks else "not checked"
    asked = ", ".join(f"{metric.metric} over {metric.num_samples} samples" for metric in evidence)
    yield "Do they point at the evidence, over a cohort?", asked or "not asked: no masks, or no such metric"
    yield (
        "How were the examples chosen?",
        f"{samples}; tables and tests are of all of them",
    )
    yield "What is this evidence of?", "of how explanations behave; it is no validation of the network"


def embedded(findings: Findings) -> list[dict[str, Any]]:
    """The scores that the page's numbers are of: each evaluation with its samples, and values by metric and method.

    An undefined score is null, one in single precision has as many digits. Earlier validations are left out where they
    would be more than `MOST_VALUES`. Where it is recorded, `target`, `predicted` and `probability` are those of the
    samples.
    """
    return _plain([evaluation for run in findings.runs for evaluation in _evaluations(run)])


def _evaluations(run: FoundRun) -> Iterator[dict[str, Any]]:
    key = ["stage", "epoch", "step"]
    own = next(iter(run.scores))
    chosen = own.stage, own.epoch, own.step
    found = {chosen: {**_evaluation(run, chosen, run.scores), "reported": True}}
    if len(run.history) <= MOST_VALUES:
        for at, table in run.history.table.groupby(key, observed=True, sort=False):
            if at != chosen:
                found[at] = _evaluation(run, at, Scores(table))
    yield from (found[at] for at in sorted(found, key=lambda at: (at[2], at == chosen)))


def _evaluation(run: FoundRun, at: Sequence[Any], scores: Scores) -> dict[str, Any]:
    tables = scores.by_sample()
    index = reduce(lambda one, other: one.union(other), [own.index for t in tables.values() for own in t.values()])
    known = run.samples
    if len(known):
        known = known[(known["stage"] == at[0]) & (known["epoch"] == at[1]) & (known["step"] == at[2])]
    told = by_row(known, index)[["target", "predicted", "probability"]].to_dict("list") if len(known) else {}
    return {
        "run": run.name,
        **dict(zip(("stage", "epoch", "step"), at, strict=True)),
        "samples": index.get_level_values("sample").tolist(),
        **told,
        "values": {
            metric: {method: _short(own.reindex(index).to_numpy()) for method, own in methods.items()}
            for metric, methods in tables.items()
        },
    }


def _short(values: np.ndarray) -> list[float | int]:
    """Those in single precision with the digits that tell them from each other; whole ones without a point."""
    single = values.astype(np.float32)
    if not np.array_equal(single, values, equal_nan=True):
        return list(values.tolist())
    return [int(own) if own.is_integer() else float(str(one)) for one, own in zip(single, values.tolist(), strict=True)]


def as_data(value: Any) -> Markup:
    """JSON that can stand in a page: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
