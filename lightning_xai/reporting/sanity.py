"""What the sanity checks found: a table, and files."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from itertools import chain
from pathlib import Path
from typing import Any

from lightning_xai.results.files import write_csv
from lightning_xai.results.sanity import CellKey, ModelState, SanityReport, Verdict
from lightning_xai.results.tables import ResultTable


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
