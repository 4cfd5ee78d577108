"""Which epochs to keep when two metrics disagree: the Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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


def _beats(point: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return point != other and all(a >= b for a, b in zip(point, other, strict=True))
