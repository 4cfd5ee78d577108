"""Which epochs to keep when two metrics disagree: the Pareto front, as records, CSV and a table."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_xai.reporting.escapes import cell, write_csv
from lightning_xai.reporting.tables import ARROWS, number_format

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Validation:
    """What one validation measured."""

    epoch: int
    step: int
    """Optimiser steps until then."""
    values: tuple[float, ...]
    """One for each metric monitored, in their order."""


def pareto_front(validations: Sequence[Validation], modes: Sequence[Mode]) -> list[Validation]:
    """The validations that no other one equals in all metrics and beats in one; best of the first metric first.

    A validation with an undefined (NaN) value is on no front.
    """
    signs = [1 if mode == "max" else -1 for mode in modes]
    points = [tuple(s * v for s, v in zip(signs, validation.values, strict=True)) for validation in validations]
    defined = [point for point in points if not any(map(math.isnan, point))]
    front = [
        (point, validation)
        for point, validation in zip(points, validations, strict=True)
        if point in defined and not any(_beats(other, point) for other in defined)
    ]
    return [validation for _, validation in sorted(front, key=lambda pair: pair[0], reverse=True)]


def write_validations(
    path: str | os.PathLike[str], validations: Sequence[Validation], monitor: Mapping[str, Mode]
) -> None:
    """All validations as CSV: epoch, step, the metrics, and whether the validation is on the front (1 or 0)."""
    front = pareto_front(validations, list(monitor.values()))
    rows = ([v.epoch, v.step, *(f"{x:.8g}" for x in v.values), int(v in front)] for v in validations)
    write_csv(path, [["epoch", "step", *monitor, "on_front"], *rows])


def front_table(validations: Sequence[Validation], monitor: Mapping[str, Mode]) -> Table:
    """For `rich.print`: the validations on the front, best of the first metric first."""
    front = pareto_front(validations, list(monitor.values()))
    title = f"Pareto front: {len(front)} of {len(validations)} validations, those that no other one beats"
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD)
    for name in ("epoch", "step", *(f"{name} {ARROWS[mode == 'max']}" for name, mode in monitor.items())):
        table.add_column(cell(name), justify="right", overflow="fold")
    for v in front:
        table.add_row(str(v.epoch), str(v.step), *(f"{value:{number_format(value)}}" for value in v.values))
    return table


def _beats(point: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return point != other and all(a >= b for a, b in zip(point, other, strict=True))
