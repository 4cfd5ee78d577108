"""Run a command: what it warns of, what it says when it refuses something, and names of carried files.

`compare`, `export`, `report` and `reproduce` have arguments of their own; all other commands take `--config FILE
[--OPTION VALUE ...]`, `explain` behind the pictures that it is about.
"""

import logging
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, cast

from lightning_xai.carried import Kind, carried_file, carried_names

_FUNCTIONS = {
    "compare": "compare:compare_command",
    "export": "export:export_command",
    "explain": "explain:explain_command",
    "methods": "names:list_methods",
    "metrics": "names:list_metrics",
    "report": "report:report_command",
    "reproduce": "reproduce:reproduce_experiment",
    "study": "reproduce:study_command",
}
"""Module and function of the commands that take no configuration, or not as the others do."""
_CONFIGURED = {**dict.fromkeys(("sanity", "shortcuts", "calibrate", "visualize"), "examine"), "evaluate": "evaluate"}
"""Module of our commands that take one; the others are Lightning's."""

HARMLESS_WARNINGS = (
    ".*does not have many workers.*",  # our images are in memory, workers only cost time
    ".*smaller than the logging interval.*",  # a small data set
    ".*Checkpoint directory .* exists and is not empty.*",  # that of the run being resumed
    ".*The dirpath has changed.*",  # `test` has a folder of its own
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6's own, on recent torch
    "LightningCLI's args parameter is intended",  # it gets the program's own words, names resolved
)


_CARRIED: dict[str, Kind] = {
    "-c": "configs",
    "--config": "configs",
    "--methods": "configs",
    "--trainer.callbacks.methods": "configs",
    "--ckpt_path": "checkpoints",
}
"""Options whose value may be the name of a file that the package brings."""


_FLAGS = ("--dry_run",)
"""Options that are true where they have no value."""


def run(command: str, words: Any, as_program: bool, debug: bool = False) -> None:
    """Run a command.

    Args:
        words: What follows the command, a list; or its options, a dict.
        as_program: End with a message and exit code 2 where something is refused, instead of an exception; without
            `--debug`. What a parser does not take is a message and exit code 2 in any case.
    """
    from lightning_xai.cli.errors import RefusedWords, is_refusal, leave, sentence

    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_tip)
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            function_of(command)(resolved(words) if isinstance(words, list) else words)
        except Exception as error:
            if debug or not (isinstance(error, RefusedWords) or (as_program and is_refusal(error))):
                raise
            leave(sentence(error, words))


def function_of(command: str) -> Callable[[Any], None]:
    """Imported when it is asked for: Lightning takes seconds, and not all commands need it.

    Those that do import it before rich: behind it `Optional[Union[int, float]]` is the float first that rich has asked
    `typing` for, and `--trainer.limit_val_batches 1` would be all batches instead of one.
    """
    if command in _FUNCTIONS:
        return cast(Callable[[Any], None], resolve_name(f"lightning_xai.cli.{_FUNCTIONS[command]}"))
    run_configured = resolve_name("lightning_xai.cli.command_line:run_configured")
    module = _CONFIGURED.get(command)
    function = module and resolve_name(f"lightning_xai.cli.{module}:{command}")
    return partial(run_configured, command, function=function)


def resolved(words: list[str]) -> list[str]:
    """The words, with the paths of carried files in the place of their names, and a value for each option."""
    found, before = [], ""
    for word, after in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if equals and option in _CARRIED:
            word = f"{option}={_found(option, value)}"
        elif before in _CARRIED:
            word = _found(before, word)
        elif word in _FLAGS and after not in ("true", "false"):
            word = f"{word}=true"
        found.append(word)
        before = word
    return found


def _found(option: str, given: str) -> str:
    """The path of what is given; a plain name that nobody knows is refused with the nearest one."""
    kind = _CARRIED[option]
    path, known = carried_file(kind, given), carried_names(kind)
    if option in ("-c", "--config") and path == given and given.isidentifier() and not Path(given).exists():
        near = get_close_matches(given, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"`config`: there is no file {given!r}, and the package brings none of this name: {hint}It brings "
            f"{', '.join(known)}."
        )
    return path


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
