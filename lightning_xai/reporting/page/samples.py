"""The samples that a page shows at once; its script shows all of them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas import isna

from lightning_xai.reporting.page.metrics import about
from lightning_xai.reporting.page.sentences import by_row, compared_samples, labelled, leading, plain
from lightning_xai.results.findings import Findings

SHOWN = 12
"""Samples of each kind: worst, most disputed."""


def samples_of(findings: Findings) -> dict[str, Any] | None:
    """The worst and the most disputed samples of the first run, in the metric of the answer; None where it has none."""
    metric = leading(findings.comparison)
    if metric is None:
        return None
    run, controls = findings.runs[0], {plain(name) for name in findings.comparison.controls}
    scores = pd.DataFrame(run.scores.by_sample().get(metric.metric, {}))
    own = scores[[method for method in scores if method not in controls]]
    if own.empty:
        return None
    table = pd.DataFrame({"mean": own.mean(axis=1), "disagreement": own.std(axis=1, ddof=0)})
    worst = table["mean"].sort_values(ascending=bool(metric.higher_is_better), kind="stable").index[:SHOWN]
    disputed = table["disagreement"].sort_values(ascending=False, kind="stable").index[:SHOWN]
    known, names, of_labels = compared_samples(run), class_names(findings), labelled(run)
    labels = by_row(known, table.index) if len(known) else None
    targets = sorted(set(known["target"].tolist())) if len(known) else []
    metrics = [name.metric for name in findings.comparison.metrics]
    rows = []
    for sample in dict.fromkeys([*worst, *disputed]):
        values = [(of, "", float(table[of][sample])) for of in table]
        values += [("score", method, float(scores[method][sample])) for method in scores]
        row: dict[str, Any] = {"sample": sample[0] if isinstance(sample, tuple) else sample, "values": values}
        row |= {"wrong": False, **dict.fromkeys(("target", "predicted", "probability"), "")}
        if labels is not None and not isna((one := labels.loc[sample])["predicted"]):
            target, predicted = int(one["target"]), int(one["predicted"])
            row |= {"target": called(names, target), "predicted": called(names, predicted)}
            row |= {"wrong": of_labels and target != predicted, "probability": f"{one['probability']:.3f}"}
        rows.append(row)
    return {
        "metric": metric.metric,
        "title": about(metric).title,
        "percent": about(metric).percent,
        "number": len(table),
        "methods": list(scores),
        "labels": labels is not None,
        "metrics": [(name, name) for name in metrics],
        "classes": [(number, called(names, number)) for number in targets],
        "axes": [(f"mean of {name}", f"mean of {name}") for name in metrics]
        + [(name, name) for name in ("disagreement", *["probability"] * bool(targets))]
        + [(f"score {method}", method) for method in scores],
        "class": "class" if of_labels else "explained",
        "told": {
            **{"metric": metric.metric, "lower": metric.higher_is_better is False, "labelled": of_labels},
            **{"controls": sorted(controls), "names": names},
            "shares": [name.metric for name in findings.comparison.metrics if about(name).percent],
        },
        "rows": rows,
    }


def class_names(findings: Findings) -> tuple[str, ...]:
    """What the classes are called; nothing where two runs do not agree."""
    known = {run.class_names for run in findings.runs if run.class_names}
    return known.pop() if len(known) == 1 else ()


def called(names: Sequence[str], number: int) -> str:
    """The name of a class, or else its number."""
    return names[number] if 0 <= number < len(names) else str(number)
