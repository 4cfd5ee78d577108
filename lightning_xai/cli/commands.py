"""The commands, each with its own arguments.

`compare` and `reproduce` have arguments of their own; all other commands take `--config FILE [--OPTION VALUE ...]`,
`explain` behind the pictures that it is about.
"""

import logging
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import ArgsType, LightningCLI

from lightning_xai.carried import Kind, carried_file, carried_names
from lightning_xai.cli.checks import is_refusal
from lightning_xai.cli.command_line import XAICommandLine
from lightning_xai.cli.compare import compare_parser, compare_runs
from lightning_xai.cli.console import printable_lines
from lightning_xai.cli.explain import explain_command
from lightning_xai.cli.reproduce import reproduce_experiment, study_command
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode
from lightning_xai.experiments.trainer import ExaminingTrainer

# Short, because the parser prints it before each error; `--help` explains the options.
USAGE = {
    name: {"usage": "%(prog)s --config FILE [--OPTION VALUE ...]"}
    for name in (*LightningCLI.subcommands(), "sanity", "calibrate", "visualize")
}

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


def run(words: ArgsType, as_program: bool) -> None:
    """Run the command that the words name.

    Args:
        as_program: End with a message and exit code 1 where this package refuses something, instead of an exception.
    """
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_tip)
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            run_command(resolved(words) if isinstance(words, list) else words)
        except Exception as error:
            if not as_program or not is_refusal(error):
                raise
            sys.exit(f"lightning-xai: error: {printable_lines(str(error))}")


def run_command(words: ArgsType) -> None:
    """The command that the words name; those of Lightning take other arguments as they are."""
    if isinstance(words, list) and words[:1] == ["compare"]:
        compare_runs(**compare_parser().parse_args(words[1:]).as_dict())
    elif isinstance(words, list) and words[:1] == ["reproduce"]:
        reproduce_experiment(words[1:])
    elif isinstance(words, list) and words[:1] == ["study"]:
        study_command(words[1:])
    elif isinstance(words, list) and words[:1] == ["explain"]:
        explain_command(words[1:])
    else:
        run_lightning(words)


def resolved(words: list[str]) -> list[str]:
    """The words, with the paths of carried files in the place of their names."""
    found, before = [], ""
    for word in words:
        option, equals, value = word.partition("=")
        if equals and option in _CARRIED:
            word = f"{option}={_found(option, value)}"
        elif before in _CARRIED:
            word = _found(before, word)
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


def run_lightning(words: ArgsType) -> None:
    """The commands that take a configuration."""
    know_yaml_mode()
    XAICommandLine(
        LightningModule,
        LightningDataModule,
        trainer_class=ExaminingTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,  # optimizer and scheduler are arguments of the module
        seed_everything_default=0,
        parser_kwargs={"prog": "lightning-xai", "parser_mode": YAML_MODE} | USAGE,
        args=words,
    )


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
