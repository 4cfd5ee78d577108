"""An experiment of a paper, repeated: its records, tables beside the published ones, and files."""

import math
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lightning_xai._version import __version__
from lightning_xai.reporting.escapes import cell, markdown, write_csv
from lightning_xai.reporting.files import replacing
from lightning_xai.reporting.panels import save_figure

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "captum", "numpy", "scipy", "scikit-image")


@dataclass(frozen=True)
class ResultTable:
    """Rows of text under column titles; the first column is to the left, numbers are to the right.

    Attributes:
        title: A line above it.
        columns: Their titles.
        rows: As many texts each as there are columns.
        notes: Sentences below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """What an experiment found; figures and files are made from it.

    Attributes:
        source: Paper, and table or figure in it.
        tables: Measured beside published.
        records: The values that the tables summarise, a row each (such as one score of one sample); by name of file.
        arrays: What is no table: maps and fields that the figures show.
        settings: Everything it depends on: options, networks and their accuracy, data.
        findings: Sentences: what was found.
        details: Richer records, by name, that figures are made from; they are not written.
    """

    source: str
    tables: tuple[ResultTable, ...]
    records: Mapping[str, Sequence[Mapping[str, Any]]]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def terminal_tables(result: Reproduction) -> Iterator[Table]:
    """For `rich`."""
    for table in result.tables:
        notes = Text("\n").join(map(cell, table.notes))
        drawn = Table(title=cell(table.title), caption=notes, caption_justify="left", box=SIMPLE_HEAD)
        for position, title in enumerate(table.columns):
            drawn.add_column(cell(title), justify="right" if position else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*map(cell, row))
        yield drawn


def report_markdown(result: Reproduction) -> str:
    """Tables, notes and findings."""
    parts = [markdown(result.source), *(f"- {markdown(finding)}" for finding in result.findings)]
    for table in result.tables:
        rules = ("---", *["---:"] * (len(table.columns) - 1))
        rows = (table.columns, rules, *table.rows)
        lines = ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in rows]
        parts += [f"## {markdown(table.title)}", "\n".join(lines), *map(markdown, table.notes)]
    return "\n\n".join(parts) + "\n"


def _markdown_cell(text: str) -> str:
    """A text between two pairs of asterisks is bold."""
    bold = re.fullmatch(r"\*\*(.+)\*\*", text)
    return f"**{markdown(bold[1])}**" if bold else markdown(text)


def write_reproduction(
    result: Reproduction, figures: Mapping[str, Figure], folder: str | os.PathLike[str]
) -> list[Path]:
    """Write report.md, settings.yaml, a .csv for each kind of record, arrays.npz and the figures; the paths written.

    Raises:
        OSError: if the folder cannot be written to.
    """
    folder = Path(folder)
    report, settings = folder / "report.md", folder / "settings.yaml"
    with replacing(report) as temporary:
        temporary.write_text(report_markdown(result), encoding="utf-8")
    with replacing(settings) as temporary:
        temporary.write_text(yaml.safe_dump({**result.settings, **provenance()}, sort_keys=False), encoding="utf-8")
    written = [report, settings]
    for name, rows in result.records.items():
        written.append(folder / f"{name}.csv")
        columns = dict.fromkeys(key for row in rows for key in row)
        write_csv(written[-1], [columns, *([row.get(key, "") for key in columns] for row in rows)])
    if result.arrays:
        written.append(folder / "arrays.npz")
        with replacing(written[-1]) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **dict(result.arrays))  # type: ignore[arg-type]
    for name, figure in figures.items():
        written.append(folder / f"{name}.png")
        save_figure(figure, written[-1])
    return written


def provenance() -> dict[str, Any]:
    """Versions and machine."""
    versions = {"lightning-xai": __version__} | {package: version(package) for package in PACKAGES}
    return {"versions": versions, "python": platform.python_version(), "machine": platform.machine()}


def mean_and_standard_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Over the defined values; NaN where there are too few."""
    defined = np.asarray(values, dtype=float)
    defined = defined[np.isfinite(defined)]
    mean = float(defined.mean()) if len(defined) else math.nan
    return mean, float(defined.std(ddof=1)) / len(defined) ** 0.5 if len(defined) > 1 else math.nan


def mean_and_error(values: Sequence[float] | np.ndarray, digits: int = 4) -> str:
    """Mean and standard error over the defined values, `0.1234 ± 0.0012`; "undefined" where there is none."""
    mean, error = mean_and_standard_error(values)
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")
