"""Plain names of what `lightning_xai.explainers`, `metrics` and `outputs` have in their `__all__`.

A class has two names, `Sparseness` and `sparseness`; a recipe such as `smooth_grad` has one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, Literal

Kind = Literal["methods", "metrics", "outputs"]
_ROOMS: dict[Kind, str] = {
    "methods": "lightning_xai.explainers",
    "metrics": "lightning_xai.metrics",
    "outputs": "lightning_xai.outputs",
}
_BASES: dict[Kind, str] = {"methods": "Explainer", "metrics": "SampleMetric", "outputs": "Output"}
_ARGUMENTS = {"outputs": "output"}
"""What an argument of the kind is called, where that is not its name."""
_REST = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def known(kind: Kind) -> dict[str, Callable[..., Any]]:
    """Classes, and functions that make their objects, by name in snake case: `smooth_grad`, `sparseness`, ...

    Args:
        kind: "methods", "metrics" or "outputs".

    Example:
        >>> from lightning_xai.names import known
        >>> sorted(known("outputs"))[:3], "smooth_grad" in known("methods")
        (['at', 'log_probability', 'logit'], True)
    """
    room = _room(kind)
    base = getattr(room, _BASES[kind])
    return {
        snake_case(name): thing
        for name in room.__all__
        if issubclass(kind_made := _made_by(thing := getattr(room, name)), base) and kind_made is not base
    }


def named(kind: Kind, given: Any) -> Any:
    """Objects by name, of a list or a mapping that may have plain names in the place of objects.

    A list is named after its members: names as they are in the snake case of `lightning-xai methods`, objects after
    their classes. What is neither a list nor a mapping comes back as it is.

    Raises:
        ValueError: if a name is unknown, needs arguments, or is given twice in a list.

    Example:
        >>> from lightning_xai.names import named
        >>> list(named("metrics", ["sparseness", "deletion_auc"]))
        ['sparseness', 'deletion_auc']
    """
    if isinstance(given, Mapping):
        return {name: made(kind, value) for name, value in given.items()}
    if not isinstance(given, list | tuple):
        return given
    return {name: made(kind, value) for name, value in _by_name(kind, given).items()}


def named_method(name: str) -> Any:
    """The explainer of a plain name, for the argument `method`.

    Raises:
        ValueError: if the name is unknown, or needs arguments.

    Example:
        >>> from lightning_xai.names import named_method
        >>> named_method("saliency")
        Saliency(gradient=Gradient())
    """
    return _find_complete("methods", name, "method")()


def specifications(kind: Kind, given: list[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """What a YAML file says of methods or metrics, as `{name: {"class_path": full path, "init_args": ...}}`.

    Args:
        kind: Which names are meant.
        given: A list of plain names; or a mapping of names to plain names, or to specifications, whose class paths may
            be plain names too, at any depth: `{SG: {class_path: smooth_grad, init_args: {explainer: saliency}}}`.

    Raises:
        ValueError: as `named`.
    """
    by_name = given if isinstance(given, Mapping) else _by_name(kind, given)
    return {name: _specification(kind, value) for name, value in by_name.items()}


def with_class_paths(value: Any) -> Any:
    """A parsed YAML value whose plain names in `class_path`, and in arguments of such classes, are full class paths.

    Names that are not ours stay: other classes are found by other means.
    """
    if isinstance(value, list):
        return [with_class_paths(part) for part in value]
    if not isinstance(value, dict):
        return value
    value = {key: with_class_paths(part) for key, part in value.items()}
    path = value.get("class_path")
    thing = _thing(path) if isinstance(path, str) else None
    if thing is None:
        return value
    if "." not in path:
        value["class_path"] = _path(thing)
    if isinstance(value.get("init_args"), dict):
        value["init_args"] = {name: _argument(thing, name, part) for name, part in value["init_args"].items()}
    return value


def snake_case(name: str) -> str:
    """`input_x_gradient` for `InputXGradient`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _room(kind: Kind) -> Any:
    return import_module(_ROOMS[kind])  # which imports torch: asked for only where there is a name


def _made_by(thing: Any) -> type:
    """The class, or the class of what a function returns; `object` for what is neither."""
    found = thing if isinstance(thing, type) else signature(thing).return_annotation
    return found if isinstance(found, type) else object


def _by_name(kind: Kind, given: Sequence[Any]) -> dict[str, Any]:
    names = [snake_case(item if isinstance(item, str) else type(item).__name__) for item in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"`{kind}` has {twice!r} twice, and a list is named after its members; give a mapping of names of your own"
            f' instead, such as {{"{twice}": ..., "{twice}_2": ...}}.'
        )
    return dict(zip(names, given, strict=True))


def _find(kind: Kind, name: str, argument: str = "") -> Callable[..., Any]:
    """By name; the argument that has it is that of the kind, unless messages shall name another."""
    things = known(kind)
    if (found := things.get(snake_case(name))) is not None:
        return found
    near = [*(other for other in things if name.lower() in other), *get_close_matches(snake_case(name), things)]
    hint = f"did you mean {near[0]!r}? " if near and name else ""
    what = argument or _ARGUMENTS.get(kind, kind)
    raise ValueError(f"`{what}`: {name!r} is unknown: {hint}There are {', '.join(things)}.")


def made(kind: Kind, value: Any) -> Any:
    """The object of a plain name; what is no name comes back as it is."""
    return _find_complete(kind, value)() if isinstance(value, str) else value


def _find_complete(kind: Kind, name: str, argument: str = "") -> Callable[..., Any]:
    """One that needs no arguments."""
    thing = _find(kind, name, argument)
    needed = [p.name for p in signature(thing).parameters.values() if p.default is p.empty and p.kind not in _REST]
    if needed:
        raise ValueError(
            f"`{argument or _ARGUMENTS.get(kind, kind)}`: {name!r} needs arguments ({', '.join(needed)}); give "
            f"{{class_path: {_path(thing)}, init_args: ...}}, or in Python an object."
        )
    return thing


def _specification(kind: Kind, value: Any, argument: str = "") -> Any:
    """Paths with a dot are somebody's own classes."""
    if isinstance(value, str):
        return {"class_path": value if "." in value else _path(_find_complete(kind, value, argument))}
    path = value.get("class_path") if isinstance(value, Mapping) else None
    if isinstance(path, str) and "." not in path:
        _find(kind, path)
    return with_class_paths(value)


def _path(thing: Callable[..., Any]) -> str:
    room = next(room for room in _ROOMS.values() if f"{thing.__module__}.".startswith(f"{room}."))
    return f"{room}.{thing.__name__}"


def _thing(path: str) -> Any:
    """What a class path leads to if it is ours: a plain name, or a name in one of the rooms; else None."""
    room, _, name = path.rpartition(".")
    kinds: list[Kind] = [kind for kind, own in _ROOMS.items() if room in ("", "lightning_xai", own)]
    return next((things[found] for kind in kinds if (found := snake_case(name)) in (things := known(kind))), None)


def _argument(thing: Callable[..., Any], name: str, value: Any) -> Any:
    """A plain name in the place of an explainer."""
    parameter = signature(thing).parameters.get(name)
    if (
        not isinstance(value, str)
        or "." in value
        or parameter is None
        or parameter.annotation is not _room("methods").Explainer
    ):
        return value
    return _specification("methods", value, name)
