"""Records as tables of text, and as CSV: scores of methods, the Pareto front, what the sanity checks found."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

from lightning_xai.results.comparison import CONTROLS
from lightning_xai.results.files import write_csv
from lightning_xai.results.pareto import Mode, Validation, pareto_front
from lightning_xai.results.sanity import CellKey, ModelState, Outcome, SanityReport, Verdict
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.tables import ResultTable, number_format, with_arrow
from lightning_xai.statistics.means import as_text


def score_table(
    scores: Scores, higher_is_better: Mapping[str, bool | None] | None = None, title: str = ""
) -> ResultTable:
    """Methods down, metrics across, `mean ± standard error`, in order of appearance; arrows point to the better side.

    The best mean of each metric is in bold, which is no test; a control is never the best.

    Args:
        scores: Scores of one stage and epoch; of several stages, those of loaders, each method has a row for each.
        higher_is_better: Direction of each metric, by name; those not named have none.
        title: Title of the table.

    Raises:
        ValueError: if a sample has two scores of the same method and metric.
    """
    stages = scores.unique("stage")
    parts = [scores.select(stage=stage).summary() for stage in stages] if len(stages) > 1 else [scores.summary()]
    loaders = [f"{stage.rpartition('/')[2]}/" for stage in stages] if len(stages) > 1 else [""]
    summary: list[Any] = [
        row._replace(method=f"{loader}{row.method}")
        for loader, part in zip(loaders, parts, strict=True)
        for row in cast(Any, part.itertuples())
    ]
    cells = {(row.method, row.metric): _cell(row) for row in summary}
    methods, metrics = (list(dict.fromkeys(names)) for names in (zip(*cells, strict=True) if cells else ((), ())))
    directions = higher_is_better or {}
    columns = ("method", *(with_arrow(metric, directions.get(metric)) for metric in metrics))
    body = tuple((method, *(cells.get((method, metric), "") for metric in metrics)) for method in methods)
    left_out = any("†" in text for row in body for text in row[1:])
    note = "† number of samples left out, because the metric is not defined for them"
    best = _best(summary, methods, metrics, directions) if len(loaders) == 1 else frozenset[tuple[int, int]]()
    return ResultTable(title, columns, body, (note,) if left_out else (), best)


def _best(
    summary: Iterable[Any], methods: list[str], metrics: list[str], directions: Mapping[str, bool | None]
) -> frozenset[tuple[int, int]]:
    """The places of the best means, and of those that look the same, of metrics that have a direction."""
    means = {(row.method, row.metric): row.mean for row in summary if not math.isnan(row.mean)}
    found = set()
    for column, metric in enumerate(metrics, 1):
        own = {m: means[m, metric] for m in methods if (m, metric) in means and m not in CONTROLS}
        if directions.get(metric) is None or len(own) < 2:
            continue
        best = (max if directions[metric] else min)(own.values())
        equal = {(methods.index(m), column) for m, mean in own.items() if _shown(mean) == _shown(best)}
        found |= equal if len(equal) < len(own) else set()  # all the same: none is the best
    return frozenset(found)


def _shown(mean: float) -> str:
    return f"{mean:{number_format(mean)}}"


def _cell(row: Any) -> str:
    """Of a row of `Scores.summary`."""
    if row.metric == GRADIENTS:  # what the method was told to spend: no estimate
        return "unknown" if math.isnan(row.mean) else f"{row.mean:g}"
    text = as_text(row.mean, row.standard_error, number_format(row.mean))
    return text + (f" †{row.num_undefined}" if row.num_undefined else "")


def write_validations(
    path: str | os.PathLike[str], validations: Sequence[Validation], monitor: Mapping[str, Mode]
) -> None:
    """All validations as CSV: epoch, step, the metrics, and whether the validation is on the front (1 or 0)."""
    front = pareto_front(validations, list(monitor.values()))
    rows = ([v.epoch, v.step, *(f"{x:.8g}" for x in v.values), int(v in front)] for v in validations)
    write_csv(path, [["epoch", "step", *monitor, "on_front"], *rows])


def front_table(validations: Sequence[Validation], monitor: Mapping[str, Mode]) -> ResultTable:
    """The validations on the front, best of the first metric first."""
    front = pareto_front(validations, list(monitor.values()))
    title = f"Pareto front: {len(front)} of {len(validations)} validations, those that no other one beats"
    columns = ("epoch", "step", *(with_arrow(name, mode == "max") for name, mode in monitor.items()))
    rows = ((str(v.epoch), str(v.step), *(f"{value:{number_format(value)}}" for value in v.values)) for v in front)
    return ResultTable(title, columns, tuple(rows))


def verdict_table(report: SanityReport) -> ResultTable:
    """A line for each check and method; below, why some did not pass, and the totals."""
    verdicts = report.verdicts
    checks = list(dict.fromkeys(verdict.check for verdict in verdicts))
    several = len(checks) > 1  # of a single one the title tells
    rows = tuple((v.method, *([v.check] if several else []), v.outcome, *_measured(v), v.step) for v in verdicts)
    columns = ("method", *(["check"] if several else []), "verdict", "similarity", "floor", "interval", "step")
    notes = [f"{v.method}, {v.check}: {v.reason}" for v in verdicts if v.outcome != "PASS" and v.method not in CONTROLS]
    if "efficient" in checks:
        notes.append("efficient: the relative rise of the entropy in the place of a similarity; it shall be above 0.")
    total = _total(v for v in verdicts if v.method not in CONTROLS)
    controls = _total(v for v in verdicts if v.method in CONTROLS)
    total += f"; the controls, which look at no weights: {controls}" * bool(controls)
    title = f"sanity checks: {', '.join(checks)}"
    return ResultTable(title, columns, rows, (*notes, f"total: {total}"), bold=frozenset())


def _total(verdicts: Iterable[Verdict]) -> str:
    counts = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome])


def _measured(verdict: Verdict) -> tuple[str, str, str]:
    """The similarity at the step that decided, the floor and the margin above it, and the interval."""
    digits = 4 if verdict.check == "invariance" else 3
    margin = f" + {verdict.margin:.{digits}f}" if verdict.margin else ""
    ends = "" if math.isnan(verdict.low) else f"[{verdict.low:.{digits}f}, {verdict.high:.{digits}f}]"
    return f"{verdict.mean:.{digits}f}", f"{verdict.threshold:.{digits}f}{margin}", ends


def write_sanity(report: SanityReport, folder: str | os.PathLike[str]) -> list[Path]:
    """Write verdicts.csv, similarities.csv (a line for each sample) and models.csv, each as a whole.

    Raises:
        OSError: if the folder cannot be written to.
    """
    key = [field.name for field in fields(CellKey)]
    similarities = (
        [*astuple(cell.key), similarity, sample, f"{value:.6g}"]
        for cell in report.cells
        for similarity, values in cell.scores.items()
        for sample, value in zip(report.samples, values.tolist(), strict=True)
    )
    folder = Path(folder)
    return [
        write_csv(folder / "verdicts.csv", _table(Verdict, report.verdicts)),
        write_csv(folder / "similarities.csv", chain([[*key, "similarity", "sample", "value"]], similarities)),
        write_csv(folder / "models.csv", _table(ModelState, report.models)),
    ]


def _table(kind: type, rows: Iterable[Any]) -> list[Sequence[object]]:
    """Records under the names of their fields."""
    return [[field.name for field in fields(kind)], *map(astuple, rows)]
