"""Scores as a table of methods x metrics."""

import math
from collections.abc import Mapping
from typing import Any

from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.tables import ResultTable, number_format, with_arrow
from lightning_xai.statistics.means import as_text


def score_table(
    scores: Scores, higher_is_better: Mapping[str, bool | None] | None = None, title: str = ""
) -> ResultTable:
    """Methods down, metrics across, `mean ± standard error`, in order of appearance; arrows point to the better side.

    Args:
        scores: Of one stage and epoch.
        higher_is_better: Direction of each metric, by name; those not named have none.
        title: Of the table.

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
