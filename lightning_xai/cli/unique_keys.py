"""How the command line reads YAML."""

from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

YAML_MODE = "yaml_with_unique_keys"


def know_yaml_mode() -> None:
    """Let parsers have the mode `YAML_MODE`."""
    set_loader(YAML_MODE, load_yaml, exceptions=(yaml.YAMLError,))


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, except that a key given twice is an error: PyYAML keeps the last."""
    for key in _repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader)):
        raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
    return get_loader("yaml")(text)


def _repeated_keys(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """The key nodes that an earlier key of the same mapping equals, at any depth."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = key.tag, str(key.value)
            if name in seen:
                yield key
            seen.add(name)
            yield from _repeated_keys(value)
