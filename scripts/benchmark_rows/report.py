"""What was measured, as Markdown and JSON, with the machine that it was measured on."""

import json
import math
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmark_rows.measuring import Measurement
from lightning_xai import __version__
from lightning_xai.results.files import replacing

LIBRARIES = ("torch", "pytorch-lightning", "captum", "quantus")
COLUMNS = ("row", "network", "batch", "precision", "ratio", "quartiles", "aim", "met?", "seconds")
RIGHT = ("batch", "ratio", "quartiles", "aim", "seconds")


def machine(device: torch.device) -> dict[str, str]:
    """Device, command, date and versions."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{processor()}, {torch.get_num_threads()} threads"
    versions = {"lightning-xai": __version__} | {library: version(library) for library in LIBRARIES}
    return {
        "device": name,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", *sys.argv]),
        "versions": ", ".join(f"{library} {number}" for library, number in versions.items()),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The CPU's name and features that matter here, where the operating system tells them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    amx = ", AMX" if "amx_bf16" in found.get("flags", "") else ""
    return found.get("model name", platform.processor() or platform.machine()) + amx


def cells(measurement: Measurement) -> tuple[str, ...]:
    """A line of the table."""
    low, high = measurement.quartiles
    aim, sign = measurement.aim, "≥" if measurement.at_least else "≤"
    return (
        measurement.what,
        measurement.network,
        str(measurement.batch),
        measurement.precision,
        f"{measurement.ratio:.3f}",
        f"{low:.3f} .. {high:.3f}",
        "" if aim is None else f"{sign} {aim:g}",
        {True: "yes", False: "no", None: ""}[measurement.met],
        "" if math.isnan(measurement.seconds) else f"{measurement.seconds:.3g}",
    )


def head(where: Mapping[str, str]) -> list[str]:
    """Lines above the table, and its first two."""
    note = "Ratios are medians of pairs measured in turn, A B A B ..., after a warm-up; seconds are the first thing's."
    rules = ("---:" if column in RIGHT else "---" for column in COLUMNS)
    return [*(f"- {key}: {value}" for key, value in where.items()), "", note, "", line(COLUMNS), line(rules)]


def line(cells: Iterable[str]) -> str:
    """Of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def record(measurement: Measurement) -> dict[str, Any]:
    """Of the JSON file, in which NaN is null."""
    low, high = (number(value) for value in measurement.quartiles)
    found = {"ratio": number(measurement.ratio), "quartiles": [low, high], "met": measurement.met}
    return {**vars(measurement), **found, "seconds": number(measurement.seconds)}


def number(value: float) -> float | None:
    return None if math.isnan(value) else value


def write(measurements: Sequence[Measurement], where: Mapping[str, str], folder: Path) -> None:
    """benchmark.md and benchmark.json."""
    with replacing(folder / "benchmark.md") as temporary:
        lines = [*head(where), *(line(cells(measurement)) for measurement in measurements), ""]
        temporary.write_text("\n".join(lines), encoding="utf-8")
    with replacing(folder / "benchmark.json") as temporary:
        content = {**where, "measurements": [record(measurement) for measurement in measurements]}
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
