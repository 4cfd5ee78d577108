"""What is wrong with a command line, in one sentence: the place, what was expected, what came, what is near.

jsonargparse tells what each type of a union says of a value, in a text that is indented as the values are nested; the
deepest of these is what is meant. Where it was written is looked up in the words and the configurations given.
"""

import errno
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser

from lightning_xai.cli.unique_keys import load_yaml, where_wrong

P = TypeVar("P", bound=ArgumentParser)
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "NoneType": "null",
    "list": "a list",
    "dict": "a mapping",
}
_FRAMEWORKS = ("lightning_xai", "pytorch_lightning", "lightning_fabric", "jsonargparse")
"""Packages whose own checks say what is wrong; the errors of others are shown with their traceback."""
_EXPECTED = ("Expected a <", "Expected a typing")
_NO_LEAVES = (
    "Expected a path but",
    "Does not validate against any",
    "Subtypes:",
    "Errors:",
    "Given value type:",
    "Subclass types expect one",
)


class RefusedWords(Exception):
    """What a parser does not take, before it is put into a sentence, and the options that it has."""

    def __init__(self, message: str, options: Iterable[str]) -> None:
        super().__init__(message)
        self.options = tuple(options)


def refusing(parser: P) -> P:
    """The parser, which raises `RefusedWords` where it would print its usage and leave."""
    parser.error = partial(_refuse, parser)  # type: ignore[method-assign]
    return parser


def _refuse(parser: ArgumentParser, message: str, cause: Exception | None = None) -> NoReturn:
    options = [text.lstrip("-") for action in parser._actions for text in action.option_strings]
    raise RefusedWords(message, options) from cause


def is_refusal(error: BaseException) -> bool:
    """Whether a message says all: of a check, of a file that is not as it should be, of a package that is not there."""
    if isinstance(error, RefusedWords | ImportError) or type(error).__name__ == "MisconfigurationException":
        return True
    if not isinstance(error, ValueError | TypeError | OSError | RuntimeError | AttributeError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    raised_in = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if isinstance(error, RuntimeError | AttributeError):
        return raised_in in _FRAMEWORKS[1:]
    named = isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC)
    return raised_in in _FRAMEWORKS or named or isinstance(error, UnicodeDecodeError)


def sentence(error: BaseException, words: Any) -> str:
    """The error in a sentence.

    Args:
        words: Of the command line.
    """
    message = str(error) or type(error).__name__
    if isinstance(error, UnicodeDecodeError) or re.search("Problems parsing config|Unexpected config", message):
        message = next((f"`config`: {wrong}" for path in _configs(words) if (wrong := _unreadable(path))), message)
    if isinstance(error, ImportError) and error.name:
        return f"{error}.{_package_hint(error.name)}"
    leaf = _deepest(message)
    file = re.search(r"Expected a path but (.+\.(?:yaml|yml|json)) either not", message)
    if file and (wrong := _unreadable(file[1])):
        leaf = _Leaf(leaf.keys, text=wrong)
    if re.search("is abstract$|^Not a valid subclass", leaf.text) and (wrong := _without_init_args(words)):
        leaf = _Leaf(leaf.keys, text=wrong)
    what = _mended(leaf, getattr(error, "options", ()), words)
    place, origin = _place(leaf, words)
    place = place or ".".join(leaf.keys)
    argument = re.match(r"`(\w+)`(:?) ", what)
    if argument and argument[1] in re.split(r"[.\[]", place):  # which the message names itself
        what = what[argument.end() :]
    elif argument and place == argument[1]:
        place = ""
    notes = (f" ({note})" for note in getattr(error, "__notes__", ()))
    return "".join([f"`{place}`: " if place else "", what, f" (in {origin})" if origin else "", *notes])


@dataclass(frozen=True)
class _Leaf:
    """One complaint: the options and classes that it is within, from outside in, and the value complained of."""

    keys: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    text: str = ""
    indent: int = 0
    given: str | None = None


def _deepest(message: str) -> _Leaf:
    """The complaint deepest within; those of a union's simple types are one."""
    leaves: list[_Leaf] = []
    stack: list[tuple[int, str, str]] = []
    for line in filter(str.strip, message.splitlines()):
        text = re.sub("Type .+? expects a function or a callable class: ", "", line).lstrip()
        bullet = text.startswith("- ")
        text, indent = text.removeprefix("- "), len(line) - len(line.lstrip())
        while stack and stack[-1][0] >= indent:
            stack.pop()
        if match := re.match(r'Parser key "(.+?)":\s*(.*)', text):
            stack.append((indent, "key", match[1]))
            text, indent = match[2], indent + 2
        elif match := re.match(r"Problem with given class_path '(.+)':$", text):
            stack.append((indent, "class", match[1]))
            continue
        if match := re.match(r"Given value: (.*?)(?:\. Got value: .*)?$", text):
            leaves = [_given(leaf, match[1]) if leaf.indent == indent + 4 else leaf for leaf in leaves]
        elif text and not text.startswith(_NO_LEAVES) and not re.match("a (class path|dict) .*(str|class_path)", text):
            keys, classes = (tuple(name for _, kind, name in stack if kind == wanted) for wanted in ("key", "class"))
            leaves.append(_Leaf(keys, classes, text, indent + 2 * bullet))
    if not leaves or (len(leaves) > 1 and not any(leaf.keys or leaf.classes for leaf in leaves) and "\n" in message):
        own = [leaf for leaf in leaves if leaf.text.startswith("`")]  # of a constructor of ours, within unions
        return own[0] if own and "Does not validate" in message else _Leaf(text=message)
    leaf = max(leaves, key=lambda leaf: len(leaf.keys) + len(leaf.classes))
    together = [own for own in leaves if (own.keys, own.classes, own.indent) == (leaf.keys, leaf.classes, leaf.indent)]
    if not leaf.text.startswith(_EXPECTED):
        return leaf
    text = "; ".join(dict.fromkeys(own.text for own in together if own.text.startswith(_EXPECTED)))
    return _Leaf(leaf.keys, leaf.classes, text, leaf.indent, leaf.given)


def _given(leaf: _Leaf, value: str) -> _Leaf:
    return _Leaf(leaf.keys, leaf.classes, leaf.text, leaf.indent, value) if leaf.given is None else leaf


def _mended(leaf: _Leaf, options: Sequence[str], words: Any) -> str:
    """The complaint, with what would be right."""
    text = leaf.text
    if match := re.match(r"(?:Option|Group) '(.+?)' (?:is not accepted|does not accept option '(.+)')$", text):
        group, name = (match[1], match[2]) if match[2] else ("", match[1])
        if group:
            accepted = [o.removeprefix(f"{group}.") for o in options if o.startswith(f"{group}.")]
            return f"`{group}.{name}`: there is no such option.{_near(name, accepted)}"
        owner = leaf.classes[-1] if leaf.classes else ""
        accepted = _arguments(owner)
        takes = (
            _deeper(name, leaf, words)
            or _near(name, accepted)
            or (f" It takes {', '.join(accepted)}." if accepted else "")
        )
        return f"{owner.rpartition('.')[2] or 'this'} has no argument {name!r}.{takes}"
    if match := re.match(r"unrecognized arguments: --([^\s=]+)\[\d+\]([^\s=]*)", text):
        return (
            f"{match[0]}. One of a list has no option: `--{match[1]}{match[2]}` is of the last one; change the others "
            "in the configuration."
        )
    if match := re.match(r"unrecognized arguments: (-*([^\s=]+).*)", text):
        start, point, end = match[2].rpartition(".")
        most = f"{start}{point}max_{end}"  # as near as min_, and what is meant
        return f"unrecognized arguments: {match[1]}.{_near(most if most in options else match[2], options, '--')}"
    if match := re.match(r"the following arguments are required: (.*)", text):
        missing = match[1].split(", ")
        with_file = {"data", "model"} & set(missing)
        cure = " Give a configuration that has them: `--config FILE`, such as `--config quickstart`." * bool(with_file)
        return f"{' and '.join(f'`{name}`' for name in missing)} must be given.{cure}"
    if match := re.search(r"module '([^']+)' has no attribute '([^']+)'", text):
        return f"{match[0]}.{_near(match[2], _public(match[1], modules=False)) or _near(match[2], _public(match[1]))}"
    if match := re.search(r"No module named '(.+?)'", text):
        return f"{text}.{_package_hint(match[1])}"
    if match := re.match(r"Expected a dot import path string: (.+)", text):
        from lightning_xai.names import known

        names = [name for kind in ("methods", "metrics", "outputs") for name in known(kind)]  # type: ignore[arg-type]
        return f"{match[1]!r} is neither the path of a class nor a known name.{_near(match[1], names)}"
    if re.search(r"subclass of Lightning(Data)?Module", text):
        return (
            f"{text}. Modules and data modules must be those of the package pytorch_lightning. Classes of "
            "lightning.pytorch are others: import them from pytorch_lightning, or train in a script, where the "
            "callbacks work with both."
        )
    if text.startswith(_EXPECTED):
        return _expected(text, leaf.given)
    if re.search("No supported gpu backend|can not run on your system", text):
        return f"`trainer.accelerator`: {text} Give `--trainer.accelerator cpu`, or `auto` for what there is."
    if re.match("Not a valid subclass of Lightning(Data)?Module", text):
        return (
            f"{text}. Modules and data modules must be those of the package pytorch_lightning: classes of"
            " lightning.pytorch are others. Import them from pytorch_lightning, or train in a script, where callbacks"
            " work with both."
        )
    if match := re.match(r"File does not exist: '?(?:.*/)?onfig\b", text):
        return f"{text}. Write `--config`, with two dashes."
    if re.match("(File does not exist|Path is not)", text):
        return f"{text}. Give the path of a file, or the name of a configuration that the package brings."
    return text


def _expected(text: str, given: str | None) -> str:
    """`expected a whole number or null, got 'three'`."""
    parts, sep, came = text.partition(". Got value: ")
    choices = [choice for part in re.findall(r"Literal\[(.*?)\]", parts) for choice in part.split(", ")]
    kinds = [_TYPES.get(name, name) for name in re.findall(r"<class '(.+?)'>", parts)]
    kinds += ["one of " + ", ".join(dict.fromkeys(choices))] if choices else []
    if not kinds:
        return text
    kinds.sort(key="null".__eq__)
    value = came.partition("; ")[0] if sep else given
    near = _near(value or "", [choice.strip("'\"") for choice in choices])
    return f"expected {' or '.join(dict.fromkeys(kinds))}" + (f", got {value!r}." if value else ".") + near


def _near(name: str, known: Iterable[str], before: str = "") -> str:
    """The known name that this one is a slip of, or the beginning; or that ends in such a one, behind a point."""
    ends = {full.rpartition(".")[2]: full for full in known}
    near = get_close_matches(name, [*ends.values(), *ends], n=1, cutoff=0.7)
    near = [ends.get(one, one) for one in near] or [full for end, full in ends.items() if name and end.startswith(name)]
    return f" Did you mean `{before}{near[0]}`?" if near else ""


def _deeper(name: str, leaf: _Leaf, words: Any) -> str:
    """A part of what has no such argument that has one, as the optimizer of a module has `lr`."""
    from lightning_xai.cli.commands import resolved

    for _, start, tree in _sources(resolved(words) if isinstance(words, list) else words):
        for path, _ in _nodes(tree, start):
            owner, _, last = path.rpartition(".")
            within = len(leaf.keys) == 1 and owner.startswith(f"{leaf.keys[0]}.")
            if within and last == name and not re.search(r"\[|init_args", path):
                return f" Did you mean that of `{owner.rpartition('.')[2]}`, `--{path}`?"
    return ""


def _package_hint(module: str) -> str:
    package = module.partition(".")[0]
    if package != module and package in packages_distributions():
        return ""
    return _near(package, packages_distributions()) or f" Install it (`pip install {package}`), or correct the name."


def _public(module: str, modules: bool = True) -> list[str]:
    with suppress(ImportError):
        known = {name: part for name, part in vars(import_module(module)).items() if not name.startswith("_")}
        return sorted(name for name, part in known.items() if modules or not isinstance(part, ModuleType))
    return []


def _arguments(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    with suppress(ImportError, AttributeError, ValueError, TypeError):
        thing, parser = getattr(import_module(module), name), ArgumentParser()
        add = parser.add_class_arguments if isinstance(thing, type) else parser.add_function_arguments
        return [argument.partition(".")[0] for argument in add(thing)]
    return []


def _place(leaf: _Leaf, words: Any) -> tuple[str, str]:
    """Where it was written, as `trainer.callbacks[1].methods`, and the file."""
    patterns = (r"Option '(.+?)' is not", r"'(.+?)' is unknown", r"^`(\w+)`", r"string: (.+)", r"attribute '([^']+)'")
    found = next((match[1] for pattern in patterns if (match := re.search(pattern, leaf.text))), None)
    token = found or (leaf.keys[-1] if leaf.keys else "")
    within = leaf.keys[0] if leaf.keys else ""
    if found and "." in found:  # as it was typed
        return ".".join((*leaf.keys, found)).replace(".init_args", ""), ""
    for origin, start, tree in reversed(list(_sources(words))):
        nodes = [(path, node) for path, node in _nodes(tree, start) if token and path.startswith(within)]
        named = [(path, node) for path, node in nodes if path.rpartition(".")[2] == token]
        meant = [path for path, node in named if _is_told(node, leaf)] or [path for path, _ in named]
        owners = {path for path, node in nodes if _ends_with(node, _owner(leaf))}
        meant = [path for path in meant if path.rpartition(".")[0] in owners] or meant
        meant = meant or [path for path, node in nodes if _ends_with(node, token)][:1]
        if meant and all(path.startswith(meant[0]) for path in meant):
            return meant[0], origin
        if meant:  # several have it, and nothing says which is meant
            break
    option = [found] if found and leaf.text.startswith("Option") else []
    return ".".join([*leaf.keys, *option]), ""


def _owner(leaf: _Leaf) -> str:
    """Name of the class that complains, where it is told."""
    built = re.match(r"Namespace\(class_path='([\w.]+)'", leaf.given or "")
    path = leaf.classes[-1] if leaf.classes else built[1] if built else ""
    return path.rpartition(".")[2]


def _is_told(node: Any, leaf: _Leaf) -> bool:
    """Whether it is the value that the complaint gives."""
    told = rf"\b(?:got|value:) {re.escape(str(node))}(?!\.?\w)"
    return str(node) == leaf.given or bool(re.search(told, leaf.text.replace("'", "")))


def _ends_with(node: Any, token: str) -> bool:
    return isinstance(node, str) and node.rpartition(".")[2] == token


def _sources(words: Any) -> Iterator[tuple[str, str, Any]]:
    """What was given: a file or nothing, the option that has it, and its value."""
    if not isinstance(words, list):
        return
    for word, after in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = str(word).partition("=")
        value = value if equals else after
        if not option.startswith("-"):
            continue
        with suppress(OSError, yaml.YAMLError, ValueError):
            if option in ("-c", "--config"):
                yield value, "", load_yaml(Path(value).read_text(encoding="utf-8"))
            else:
                yield "", option.lstrip("-").rstrip("+"), load_yaml(value)


def _nodes(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All parts with their paths, without the levels that only say how an object is made."""
    if path:
        yield path, tree
    if isinstance(tree, dict):
        for key, value in tree.items():
            hidden = key in ("init_args", "dict_kwargs", "class_path")
            yield from _nodes(value, path if hidden else f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from _nodes(value, f"{path}[{number}]")


def _configs(words: Any) -> Iterator[str]:
    for word, after in zip(words, [*words[1:], ""], strict=False) if isinstance(words, list) else ():
        option, equals, value = str(word).partition("=")
        if option in ("-c", "--config") and Path(file := value if equals else after).exists():
            yield file


def _without_init_args(words: Any) -> str:
    """Of a class whose arguments are written beside its path; empty if there is none."""
    for _, start, tree in _sources(words):
        for _, node in _nodes(tree, start):
            if isinstance(node, dict) and isinstance(path := node.get("class_path"), str):
                for name in node.keys() - {"class_path", "init_args", "dict_kwargs"}:
                    end = path.rpartition(".")[2]
                    return f"`{name}` must be within init_args: {{class_path: {end}, init_args: {{{name}: ...}}}}."
    return ""


def _unreadable(path: str) -> str:
    """Why a configuration cannot be read, and at what line; empty if it can."""
    try:
        tree = load_yaml(Path(path).read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            kind = "empty" if tree is None else f"a {type(tree).__name__}"
            return f"{path} is {kind}, and no configuration: a mapping, with keys such as trainer, model and data."
    except UnicodeDecodeError:
        return f"{path} is not text, and no configuration: YAML in UTF-8."
    except yaml.YAMLError as error:
        return f"{path} is not YAML that can be read: {where_wrong(error)}."
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}."
    return ""


def leave(message: str, code: int = 2) -> NoReturn:
    """Print what is wrong, and end."""
    from lightning_xai.reporting.console import printable_lines

    print(f"lightning-xai: error: {printable_lines(message)}", file=sys.stderr)
    sys.exit(code)
