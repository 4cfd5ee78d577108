"""The files of an experiment: report, settings, records, figures."""

import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml
from matplotlib.figure import Figure

from lightning_xai._version import __version__
from lightning_xai.reporting.escapes import markdown
from lightning_xai.reporting.render import markdown_table
from lightning_xai.reporting.saving import file_name, save_figure
from lightning_xai.results.files import replacing, write_csv, write_text
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.store import SCORES, write_directions

SETTINGS = "settings.yaml"
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "captum", "numpy", "scipy", "scikit-image")


def report_markdown(result: Reproduction, figures: Iterable[str] = ()) -> str:
    """Title, findings, tables with their notes, and the figures of these names, beside the report."""
    findings = "\n".join(f"- {markdown(finding)}" for finding in result.findings)
    pictures = (f"![{markdown(name)}]({quote(name)}.png)" for name in figures)
    parts = [f"# {markdown(result.source)}", findings, *map(markdown_table, result.tables), *pictures]
    return "\n\n".join(filter(None, parts)) + "\n"


def write_reproduction(
    result: Reproduction, figures: Mapping[str, Figure], folder: str | os.PathLike[str]
) -> list[Path]:
    """Write report, settings, a .csv for each kind of record, scores, arrays.npz and figures; the paths written.

    Raises:
        OSError: if the folder cannot be written to.
    """
    folder = Path(folder)
    settings = yaml.safe_dump({**result.settings, **provenance()}, sort_keys=False)
    written = [
        write_text(folder / "report.md", report_markdown(result, figures)),
        write_text(folder / SETTINGS, settings),
    ]
    for name, rows in result.records.items():
        columns = dict.fromkeys(key for row in rows for key in row)
        table = [columns, *([row.get(key, "") for key in columns] for row in rows)]
        written.append(write_csv(folder / f"{name}.csv", table))
    for name, (scores, higher_is_better) in result.runs.items():
        written.append(folder / file_name(name) / f"{SCORES}.csv")
        scores.save(written[-1])
        write_directions(written[-1], higher_is_better)
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
