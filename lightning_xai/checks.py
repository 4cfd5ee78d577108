"""Refusals of arguments by name; without torch, for commands that do not need it."""

from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args


def check_whole_number(name: str, value: object) -> None:
    """Refuse what is none, also if it is one in another type: 2.5, "3", True, a tensor."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}.")


def check_number(name: str, value: object) -> None:
    """Refuse what is no number, also if it is one in another type: "0.2", True, a tensor."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")


def check_positive(name: str, value: float, or_zero: bool = False) -> None:
    """Refuse what is not greater than 0, or 0 where that is admitted, and finite."""
    check_number(name, value)
    if not (value > 0 or (or_zero and value == 0)) or value == float("inf"):
        raise ValueError(f"`{name}` must be {'at least 0' if or_zero else 'positive'} and finite, got {value}.")


def check_share(name: str, value: float) -> None:
    """Refuse what is no part of a whole, from 0 to 1, inclusive."""
    check_number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {value}.")


def check_kind(name: str, value: object, kind: type | UnionType, example: str) -> None:
    """Refuse a part that is of another kind, such as a class in the place of its object."""
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be {example}, got {value!r}.")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a number of draws or steps below 1, and what counts nothing."""
    check_whole_number(name, value)
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")


def check_level(name: str, value: float) -> None:
    """Refuse a probability that is not between 0 and 1, exclusive."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number between 0 and 1, got {value!r}.")
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must be between 0 and 1, got {value}. Usual is 0.05.")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a string that is not one of a `Literal`'s, or of a mapping's keys."""
    known = get_args(choices) or tuple(choices)
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}.")
