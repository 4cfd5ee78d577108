"""Entries of a study's file: each stands for one thing, or for one with each combination of values of some names."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Coordinates = Mapping[str, Any]


class Entry(NamedTuple):
    """An entry of a file, with its variables filled in.

    Attributes:
        value: What the file says of it.
        bound: Values of the names in its `for`.
        template: Its name in the file.
    """

    value: Any
    bound: Coordinates
    template: str


def expanded(parts: Mapping[str, Any] | Sequence[str], variables: Mapping[str, Any]) -> dict[str, Entry]:
    """The entries, those with `for` once for each combination.

    Entries that need a variable without a value (None) are left out. Equal names must stand for the same.
    """
    found: dict[str, Entry] = {}
    for name, part in parts.items() if isinstance(parts, Mapping) else zip(parts, parts, strict=True):
        entry = dict(part) if isinstance(part, Mapping) else part
        loops = entry.pop("for", {}) if isinstance(entry, dict) else {}
        if not isinstance(loops, Mapping):
            raise ValueError(f"`for` of {name!r} must be a mapping of names to lists, got {loops!r}.")
        for bound in _combinations(name, loops, variables):
            known = {**variables, **bound}
            try:
                filled, value = filled_in(name, known), resolved(entry, known)
            except _Missing:
                continue
            if found.setdefault(filled, Entry(value, bound, name)).value != value:
                raise ValueError(
                    f"{filled!r} stands for two different things. Put the names of its `for` in braces into its name,"
                    " or give the two other names."
                )
    return found


def resolved(part: Any, variables: Mapping[str, Any]) -> Any:
    """With values in the place of `{from: NAME, times: FACTOR}`."""
    if isinstance(part, Mapping):
        if "from" in part and part.keys() <= {"from", "times"}:
            value = _looked_up(str(part["from"]), variables)
            return value * part["times"] if "times" in part else value
        return {key: resolved(value, variables) for key, value in part.items()}
    return [resolved(value, variables) for value in part] if isinstance(part, list | tuple) else part


def known_values(parts: Sequence[Any], variables: Mapping[str, Any]) -> list[Any]:
    """The parts, resolved, without those that need a variable without a value."""
    return [entry.value for entry in expanded({str(n): part for n, part in enumerate(parts)}, variables).values()]


class _Missing(Exception):
    """A variable has no value."""


def _combinations(name: str, loops: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    lists = {key: values if isinstance(values, list) else resolved(values, variables) for key, values in loops.items()}
    for key, values in lists.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ValueError(f"`for` of {name!r}: {key} must have a list of values, got {values!r}.")
        if twice := [value for place, value in enumerate(values) if value in values[:place]]:
            raise ValueError(f"`for` of {name!r}: {key} has {twice[0]!r} twice. Name each value once.")
    for values in itertools.product(*(known_values(values, variables) for values in lists.values())):
        yield dict(zip(loops, values, strict=True))


def _looked_up(name: str, variables: Mapping[str, Any]) -> Any:
    value: Any = variables
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = ", ".join(map(str, value)) if isinstance(value, Mapping) else repr(value)
            raise ValueError(f"`from`: there is no variable {name!r}; there are {known}. Name it in `variables`.")
        value = value[part]
    if value is None:
        raise _Missing(name)
    return value


def filled_in(name: str, variables: Mapping[str, Any]) -> str:
    try:
        return name.format(**variables)
    except (KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{name!r}: the part in braces must be a variable or in `for`, {error} is neither.") from error
    except (TypeError, ValueError) as error:
        if any(value is None for value in variables.values()) and "{" in name:
            raise _Missing(name) from error  # a level that was not reached has no digits
        raise ValueError(f"{name!r} cannot be filled in: {error}.") from error
