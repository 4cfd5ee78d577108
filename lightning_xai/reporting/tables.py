"""Scores as a table of methods x metrics."""

import math
from collections.abc import Iterable, Mapping

from lightning_xai.results.scores import GRADIENTS, ScoreRow, by_sample
from lightning_xai.results.tables import ResultTable, number_format, with_arrow
from lightning_xai.statistics.means import as_text, defined, mean_and_standard_error


def score_table(
    rows: Iterable[ScoreRow], higher_is_better: Mapping[str, bool | None] | None = None, title: str = ""
) -> ResultTable:
    """Methods down, metrics across, `mean ± standard error`, in order of appearance; arrows point to the better side.

    Args:
        rows: Per-sample scores of one stage and epoch.
        higher_is_better: Direction of each metric, by name; those not named have none.
        title: Of the table.

    Raises:
        ValueError: if a sample has two scores of the same method and metric.
    """
    scores = by_sample(rows, "`rows`", "Pass the rows of one stage and epoch.")
    directions = higher_is_better or {}
    columns = ("method", *(with_arrow(metric, directions.get(metric)) for metric in scores))
    methods = dict.fromkeys(method for table in scores.values() for method in table)
    cells = {(m, name): _cell(name, list(s.values())) for name, table in scores.items() for m, s in table.items()}
    body = tuple((method, *(cells.get((method, name), "") for name in scores)) for method in methods)
    left_out = any("†" in text for row in body for text in row[1:])
    note = "† number of samples left out, because the metric is not defined for them"
    return ResultTable(title, columns, body, (note,) if left_out else (), bold=frozenset())


def _cell(metric: str, values: list[float]) -> str:
    mean, error = mean_and_standard_error(values)
    if metric == GRADIENTS:  # what the method was told to spend: no estimate
        return "unknown" if math.isnan(mean) else f"{mean:g}"
    undefined = len(values) - len(defined(values))
    return as_text(mean, error, number_format(mean)) + (f" †{undefined}" if undefined else "")
