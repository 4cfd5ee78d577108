"""Which epochs to keep when two metrics disagree: the Pareto front, as records, CSV and a table."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_xai.results.files import write_csv
from lightning_xai.results.tables import ResultTable, number_format, with_arrow

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Validation:
    """What one validation measured."""

    epoch: int
    step: int
    """Optimizer steps until then."""
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


def front_table(validations: Sequence[Validation], monitor: Mapping[str, Mode]) -> ResultTable:
    """The validations on the front, best of the first metric first."""
    front = pareto_front(validations, list(monitor.values()))
    title = f"Pareto front: {len(front)} of {len(validations)} validations, those that no other one beats"
    columns = ("epoch", "step", *(with_arrow(name, mode == "max") for name, mode in monitor.items()))
    rows = ((str(v.epoch), str(v.step), *(f"{value:{number_format(value)}}" for value in v.values)) for v in front)
    return ResultTable(title, columns, tuple(rows))


def _beats(point: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return point != other and all(a >= b for a, b in zip(point, other, strict=True))
