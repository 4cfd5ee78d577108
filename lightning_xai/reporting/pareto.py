"""The Pareto front as CSV and as a table."""

import os
from collections.abc import Mapping, Sequence

from lightning_xai.results.files import write_csv
from lightning_xai.results.pareto import Mode, Validation, pareto_front
from lightning_xai.results.tables import ResultTable, number_format, with_arrow


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
