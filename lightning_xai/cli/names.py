"""`lightning-xai methods` and `lightning-xai metrics`: what there is, a line each."""

from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from lightning_xai.cli.errors import refusing
from lightning_xai.names import known
from lightning_xai.reporting.console import console

_DIRECTIONS = {True: "higher is better", False: "lower is better", None: "no direction"}


def list_methods(words: Sequence[str]) -> None:
    """Names of explainers for `methods` and `class_path`, with their first lines."""
    _take_no("methods", list_methods, words)
    _show({name: _first_line(thing) for name, thing in known("methods").items()})


def list_metrics(words: Sequence[str]) -> None:
    """Names of metrics for `metrics` and `class_path`, with their directions and first lines."""
    _take_no("metrics", list_metrics, words)
    metrics: dict[str, Any] = known("metrics")
    width = max(map(len, _DIRECTIONS.values()))
    _show({name: f"{_DIRECTIONS[m.higher_is_better]:<{width}}  {_first_line(m)}" for name, m in metrics.items()})


def _take_no(command: str, function: Callable[..., Any], words: Sequence[str]) -> None:
    """Options: there are none but `--help`."""
    parser = refusing(ArgumentParser(prog=f"lightning-xai {command}", description=function.__doc__))
    parser.parse_args(list(words))


def _show(lines: dict[str, str]) -> None:
    terminal, width = console(), max(map(len, lines))
    for name, line in lines.items():
        terminal.print(f"{name:<{width}}  {line}")


def _first_line(thing: Any) -> str:
    return str(thing.__doc__).strip().partition("\n")[0]
