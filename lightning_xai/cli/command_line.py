"""The command line of what takes a configuration: fit, validate, test, predict, and questions asked of a network."""

import os
from argparse import SUPPRESS
from collections.abc import Callable, Iterable
from inspect import signature
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_xai.callbacks.files import run_of
from lightning_xai.callbacks.recurring import RecurringCallback
from lightning_xai.cli import is_interruption
from lightning_xai.cli.checks import check_fits_data, check_local, check_new_run, check_writable, is_local_file
from lightning_xai.cli.errors import refusing
from lightning_xai.cli.reports import report
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode
from lightning_xai.cli.weights import warn_of_random_weights
from lightning_xai.experiments.prices import fit_prices
from lightning_xai.modules import ClassifierModule
from lightning_xai.modules.checkpoints import (
    admitting_data_types,
    check_resumable,
    check_weights_fit,
    read_as_data,
    read_checkpoint,
)
from lightning_xai.reporting.console import console

WITHOUT_CHECKPOINT = ("validate", "test", "predict", "visualize", "evaluate")
"""Commands that take the weights as they are."""


class XAICommandLine(LightningCLI):
    """LightningCLI for one command, whose parser is the only one built; it checks its input before anything is written.

    `run` does what the command says. LightningCLI's own subcommands would build the parsers of all commands.

    Args:
        command: Its name.
        args: The words behind it, or the options in a dict.
        function: What it does with this command line and its options; None for what the Trainer does by this name.
    """

    def __init__(self, command: str, args: ArgsType, function: Callable[..., None] | None = None) -> None:
        know_yaml_mode()
        self.command, self.function = command, function
        description = str((function or getattr(Trainer, command)).__doc__).partition("\n")[0]
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # optimizer and scheduler are arguments of the module
            seed_everything_default=0,
            parser_kwargs={
                "prog": f"lightning-xai {command}",
                "usage": "%(prog)s --config FILE [--OPTION VALUE ...]",  # printed before each error, so it is short
                "description": description,
                "parser_mode": YAML_MODE,
                "allow_abbrev": False,
            },
            args=args,
            run=False,
        )

    def init_parser(self, **options: Any) -> LightningArgumentParser:
        return refusing(super().init_parser(**options))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The command's options; those of ours may also be the path of a file that has their value."""
        if self.function is None:
            skip: set[str | int] = set(LightningCLI.subcommands()[self.command])
            self.options = parser.add_method_arguments(Trainer, self.command, skip=skip)
            if self.command == "fit":
                about = "Tell what the explanations will cost, by method and metric, instead of training."
                parser.add_argument("--dry_run", type=bool, default=False, help=about)
        else:
            self.options = parser.add_function_arguments(self.function, skip={"line"}, sub_configs=True)
            ignore_options_of_others(parser, self.options)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        self.dry_run = bool(self.config.pop("dry_run", False)) if self.function is None else False
        self.ckpt_path = str(self.config.ckpt_path or "")
        if self.ckpt_path == "best":
            raise ValueError(
                "`ckpt_path`: which checkpoint is the best is known while a training runs, and not after it. Give the"
                " path of the file, such as runs/NAME/version_0/checkpoints/best.ckpt; `last` finds the last one."
            )
        check_local(self.ckpt_path)
        if self.config.get("weights_only") is False:
            raise ValueError("`weights_only` must be true or null: a checkpoint is read as data, and never runs.")
        chosen_by_trainer = not is_local_file(self.ckpt_path) and self.function is None
        self.checkpoint = None if not self.ckpt_path or chosen_by_trainer else read_checkpoint(self.ckpt_path)

    def after_instantiate_classes(self) -> None:
        """A checkpoint is data: the configuration says what runs, and the checkpoint's weights must fit it."""
        if isinstance(self.model, ClassifierModule):
            self.model.fit_to(self.datamodule)
        if self.checkpoint and self.model.strict_loading:
            check_weights_fit(self.checkpoint, self.model, self.ckpt_path)
        if self.checkpoint and self.command == "fit":
            check_resumable(self.checkpoint, self.ckpt_path)
        self._place_files()
        if not self.config.trainer.fast_dev_run:  # which writes nothing
            check_writable(self.trainer)
            if self.command == "fit":
                check_new_run(self.trainer)
        check_fits_data(self.model, self.datamodule)
        if self.command in WITHOUT_CHECKPOINT and not self.ckpt_path:
            warn_of_random_weights(self.parser, self.config.model, self.model)

    def _place_files(self) -> None:
        """A test is of the run of its checkpoint, where its curves have a folder; only `fit` must not be run twice."""
        found = run_of(self.ckpt_path) if self.command == "test" else None
        run = found and found.absolute()
        for logger in self.trainer.loggers:
            if run is not None and isinstance(logger, TensorBoardLogger):
                logger._root_dir, logger._name, logger._version = str(run.parent), "", run.name
                logger._sub_dir = self.command
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SaveConfigCallback) and self.command != "fit":
                callback.overwrite = True
                if not self.trainer.loggers and Path(self.trainer.default_root_dir, "config.yaml").exists():
                    callback.config_filename = f"{self.command}.yaml"

    def run(self) -> None:
        """What the command is for, and its report."""
        options = {name: self.config_init[name] for name in self.options}
        if self.command in ("validate", "test"):
            options["verbose"] = False  # the report has the figures, with the digits that they are worth
        if self.function is not None:
            if self.ckpt_path:
                load_weights(self.model, self.ckpt_path)
            self.function(self, **options)
            return
        if self.dry_run:
            for price in fit_prices(self.trainer, self.model, self.datamodule):
                console().print(price.table())
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RecurringCallback):
                callback.summary = False  # the report has it
        options["weights_only"] = True  # also of what Lightning finds itself: `last`, and after a restart by SLURM
        if is_local_file(self.ckpt_path):  # Lightning takes any name that begins with "http" for an address
            options["ckpt_path"] = os.path.abspath(self.ckpt_path)
        try:
            with admitting_data_types():
                getattr(self.trainer, self.command)(self.model, datamodule=self.datamodule, **options)
        except (KeyboardInterrupt, SystemExit) as leaving:
            if self.command == "fit" and self.trainer.world_size == 1 and is_interruption(leaving):
                report(self.trainer)  # of what there is so far
            raise
        if self.command != "predict":
            report(self.trainer)


def run_configured(command: str, args: ArgsType, function: Callable[..., None] | None = None) -> None:
    """Run one of the commands that take a configuration."""
    XAICommandLine(command, args, function).run()


def ignore_options_of_others(parser: LightningArgumentParser, known: Iterable[str]) -> None:
    """Let a parser of ours take the configuration that a command of Lightning saved, such as one with `verbose`.

    Args:
        known: Options that the parser has.
    """
    others: set[str] = set()
    for command, parts in LightningCLI.subcommands().items():
        others |= signature(getattr(Trainer, command)).parameters.keys() - parts
    for name in sorted(others - {"self", *known}):
        parser.add_argument(f"--{name}", type=Any, help=SUPPRESS)


def load_weights(model: LightningModule, path: str) -> None:
    """The checkpoint's weights, safely read."""
    model.load_state_dict(read_as_data(path, "cpu")["state_dict"])
