"""Records as tables of text, and as CSV: scores of methods, the Pareto front, what the sanity checks found."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import chain
from pathlib import Path
from typing import Any

from lightning_xai.results.files import write_csv
from lightning_xai.results.pareto import Mode, Validation, pareto_front
from lightning_xai.results.sanity import CellKey, ModelState, SanityReport, Verdict
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.tables import ResultTable, number_format, with_arrow
from lightning_xai.statistics.means import as_text


def score_table(
    scores: Scores, higher_is_better: Mapping[str, bool | None] | None = None, title: str = ""
) -> ResultTable:
    """Methods down, metrics across, `mean ± standard error`, in order of appearance; arrows point to the better side.

    Args:
        scores: Scores of one stage and epoch.
        higher_is_better: Direction of each metric, by name; those not named have none.
        title: Title of the table.

    Raises:
        ValueError: if a sample has two scores of the same method and metric.
    """
    cells = {(row.method, row.metric): _cell(row) for row in scores.summary().itertuples()}
    methods, metrics = (list(dict.fromkeys(names)) for names in (zip(*cells, strict=True) if cells else ((), ())))
    directions = higher_is_better or {}
    columns = ("method", *(with_arrow(metric, directions.get(metric)) for metric in metrics))
    body = tuple((method, *(cells.get((method, metric), "") for metric in metrics)) for method in methods)
    left_out = any("†" in text for row in body for text in row[1:])
    note = "† number of samples left out, because the metric is not defined for them"
    return ResultTable(title, columns, body, (note,) if left_out else (), bold=frozenset())


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
    """A line for each check and method, with the reason."""
    rows = tuple((verdict.check, verdict.method, verdict.outcome, verdict.reason) for verdict in report.verdicts)
    return ResultTable("sanity checks", ("check", "method", "verdict", "why"), rows, bold=frozenset())


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
