"""What an experiment is, and the rows that it measures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.tables import ResultTable
from lightning_xai.statistics.means import mean_and_error

Row = dict[str, Any]
"""Of one sample, or one point."""
Found = tuple[Reproduction, Mapping[str, Figure]]
"""What an experiment found, and its figures by name of file."""


@dataclass(frozen=True)
class Experiment:
    """One table or figure of a paper, by one command.

    Attributes:
        summary: A line for the list of experiments.
        run: Called with a `Lab` and the experiment's own options, whose defaults are the full setting.
        fast: Options of the version that takes a minute or two on two cores. Its data are those that the package
            carries.
    """

    summary: str
    run: Callable[..., Found]
    fast: Mapping[str, Any] = field(default_factory=dict)


def rows_of(fixed: Mapping[str, Any], **columns: Tensor | np.ndarray) -> list[Row]:
    """A row for each place of the columns, all of one length, with the fixed values before."""
    lists = [column.tolist() for column in columns.values()]
    return [{**fixed, **dict(zip(columns, values, strict=True))} for values in zip(*lists, strict=True)]


def of(rows: Iterable[Row], **values: Any) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def column(rows: Iterable[Row], name: str) -> list[Any]:
    """Of each row, the value of this name."""
    return [row[name] for row in rows]


def groups(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """The rows by their values of these names."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def means_table(
    title: str, rows: Iterable[Row], by: Sequence[str], shown: Mapping[str, str], notes: tuple[str, ...] = ()
) -> ResultTable:
    """Means and their errors: a line for each combination of values of some names, a column for each name shown.

    Args:
        by: What the rows have one line for.
        shown: Titles of the columns, by name; where the rows have no such value, the cell is empty.
    """
    lines = (
        (*map(str, key), *(mean_and_error(column(mine, name)) if name in mine[0] else "" for name in shown))
        for key, mine in groups(rows, *by).items()
    )
    return ResultTable(title, (*by, *shown.values()), tuple(lines), notes)
