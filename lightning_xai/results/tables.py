"""The table: rows of text under titles. `reporting.render` draws it in a terminal, in Markdown and in LaTeX."""

from collections.abc import Iterable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

ARROWS = {True: "↑", False: "↓", None: ""}
"""By `higher_is_better`: where the better scores are."""


@dataclass(frozen=True)
class ResultTable:
    """Rows of text under column titles; the first column is to the left, numbers are to the right.

    Attributes:
        title: A line above it; empty for none.
        columns: Their titles.
        rows: As many texts each as there are columns.
        notes: Sentences below it.
        bold: The places (row, column) of the cells in bold type; None where `**text**` in the cells says so, which
            names that a stranger chose may look like.
        verbatim: Columns whose titles are names that somebody chose, such as those of runs: others are read as words.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] | None = None
    verbatim: frozenset[int] = frozenset()


def number_format(mean: float) -> str:
    """For a mean and what stands beside it: four decimals, unless they would say nothing of the mean."""
    return ".4f" if mean == 0 or 1e-3 <= abs(mean) < 1e4 else ".3e"


def with_arrow(metric: str, higher_is_better: bool | None) -> str:
    """A metric's name, and where its better scores are."""
    return f"{metric} {ARROWS[higher_is_better]}".rstrip()


def from_above(name: str) -> Any:
    """What is in a room above this one, which is asked for where somebody wants it: results need no pictures."""
    return resolve_name(f"{__package__.partition('.')[0]}.{name}")


class Printed:
    """A result that prints as the tables and sentences of its `_parts`.

    A dataclass must have `repr=False`, or its own representation would come before this one.
    """

    def _parts(self) -> Iterable[ResultTable | str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(from_above("reporting.console:as_text")(*self._parts()))
