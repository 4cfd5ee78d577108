"""The program: `lightning-xai COMMAND ...`.

`compare` and `reproduce` have arguments of their own; all other commands take `--config FILE [--OPTION VALUE ...]`,
`explain` behind the pictures that it is about.
"""

import logging
import sys
import warnings

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import ArgsType, LightningCLI

from lightning_xai.cli.checks import is_refusal
from lightning_xai.cli.command_line import XAICommandLine
from lightning_xai.cli.compare import compare_parser, compare_runs
from lightning_xai.cli.console import printable_lines
from lightning_xai.cli.explain import explain_command
from lightning_xai.cli.reproduce import reproduce_experiment
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode, load_yaml
from lightning_xai.experiments.trainer import ExaminingTrainer

__all__ = ["load_yaml", "main"]

# Short, because the parser prints it before each error; `--help` explains the options.
USAGE = {
    name: {"usage": "%(prog)s --config FILE [--OPTION VALUE ...]"}
    for name in (*LightningCLI.subcommands(), "sanity", "calibrate", "visualize")
}

DESCRIPTION = (
    "Train classifiers and score their explanations. Three more commands beside those below: `explain IMAGE ...` "
    "explains pictures from files, `compare RUN [RUN ...]` compares the methods of finished runs, `reproduce NAME` "
    "repeats an experiment of a paper."
)

HARMLESS_WARNINGS = (
    ".*does not have many workers.*",  # our images are in memory, workers only cost time
    ".*smaller than the logging interval.*",  # a small data set
    ".*Checkpoint directory .* exists and is not empty.*",  # that of the run being resumed
    ".*The dirpath has changed.*",  # `test` has a folder of its own
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6's own, on recent torch
)


def main(args: ArgsType = None) -> None:
    """Run one command; `args` are the words after the program's name, by default those it was called with.

    Called without `args`, as a program, what this package refuses is one message and exit code 1, without a traceback;
    from Python it is an exception.
    """
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_tip)
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            run_command(sys.argv[1:] if args is None else args, args)
        except Exception as error:
            if args is not None or not is_refusal(error):
                raise
            sys.exit(f"lightning-xai: error: {printable_lines(str(error))}")


def run_command(words: ArgsType, args: ArgsType) -> None:
    """The command that the words name; those of Lightning take `args` as they are."""
    if isinstance(words, list) and words[:1] == ["compare"]:
        compare_runs(**compare_parser().parse_args(words[1:]).as_dict())
    elif isinstance(words, list) and words[:1] == ["reproduce"]:
        reproduce_experiment(words[1:])
    elif isinstance(words, list) and words[:1] == ["explain"]:
        explain_command(words[1:])
    else:
        run_lightning(args)


def run_lightning(args: ArgsType) -> None:
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
        parser_kwargs={"prog": "lightning-xai", "description": DESCRIPTION, "parser_mode": YAML_MODE} | USAGE,
        args=args,
    )


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
