"""How the command line reads YAML: with unique keys, and plain names of our explainers and metrics as class paths."""

from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from lightning_xai.names import with_class_paths

YAML_MODE = "yaml_with_unique_keys"
MAX_COPIES = 10_000
"""Values that aliases may stand for; nine aliases of nine aliases of ... are millions in a few lines."""


def know_yaml_mode() -> None:
    """Let parsers have the mode `YAML_MODE`."""
    set_loader(YAML_MODE, load_yaml, exceptions=(yaml.YAMLError,))


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, with `class_path: smooth_grad` for its full path, and some of it is an error.

    A key given twice (PyYAML keeps the last), aliases that stand for more than `MAX_COPIES` values or for what they are
    in, and nesting that is too deep to be read.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        sizes: dict[int, int] = {}
        if root is not None and _size(root, sizes) - len(sizes) > MAX_COPIES:
            problem = f"aliases (*NAME) stand for more than {MAX_COPIES:,} values; write out what is meant"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=root.start_mark)
        for key in _repeated_keys(root, set()):
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
        return with_class_paths(get_loader("yaml")(text))
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply to be read") from None


def where_wrong(error: yaml.YAMLError) -> str:
    """What cannot be read, and where, in a line."""
    mark = getattr(error, "problem_mark", None)
    return f"{getattr(error, 'problem', error)}" + (f", line {mark.line + 1}, column {mark.column + 1}" if mark else "")


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Number of nodes where each alias is replaced by what it stands for; `sizes` has those that are known, by id."""
    if id(node) not in sizes:
        sizes[id(node)] = MAX_COPIES**2  # while its parts are looked at: as one of these it would never end
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in _parts(node))
    return sizes[id(node)]


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _repeated_keys(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.Node]:
    """The key nodes that an earlier key of the same mapping equals, at any depth; each node is looked at once."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, _ in node.value:
            name = key.tag, str(key.value)
            if name in names:
                yield key
            names.add(name)
    for part in _parts(node):
        yield from _repeated_keys(part, seen)
