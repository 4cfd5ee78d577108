"""The commands that take a configuration: fit, validate, test, predict, sanity, calibrate and visualize."""

import os
import sys
from argparse import SUPPRESS
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from torch import nn

from lightning_xai.cli.checks import (
    check_fits_data,
    check_local,
    check_randomizable,
    check_writable,
    checkpoint_run,
    is_local_file,
)
from lightning_xai.cli.reports import report, report_noise_level, report_sanity, report_visualization
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode
from lightning_xai.cli.weights import warn_of_random_weights
from lightning_xai.experiments.trainer import ExaminingTrainer
from lightning_xai.modules.checkpoints import check_resumable, check_weights_fit, read_checkpoint
from lightning_xai.reporting.folders import check_file, check_folder
from lightning_xai.studies.networks import trained

WITHOUT_CHECKPOINT = ("validate", "test", "predict", "visualize")
"""Commands that take the weights as they are."""


class XAICommandLine(LightningCLI):
    """LightningCLI for one command, whose parser is the only one built; it checks its input before anything is written.

    `run` does what the command says. LightningCLI's own subcommands would build the parsers of all commands.
    """

    def __init__(self, command: str, args: ArgsType) -> None:
        know_yaml_mode()
        self.command = command
        method = getattr(ExaminingTrainer, command)
        super().__init__(
            LightningModule,
            LightningDataModule,
            trainer_class=ExaminingTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # optimizer and scheduler are arguments of the module
            seed_everything_default=0,
            parser_kwargs={
                "prog": f"lightning-xai {command}",
                "usage": "%(prog)s --config FILE [--OPTION VALUE ...]",  # printed before each error, so it is short
                "description": str(method.__doc__).partition("\n")[0],
                "parser_mode": YAML_MODE,
            },
            args=args,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The command's options; those of ours may also be the path of a file that has their value."""
        lightnings = LightningCLI.subcommands()
        skip: set[str | int] = set(lightnings.get(self.command, ("model", "datamodule", "make_twin")))
        ours = self.command not in lightnings
        self.options = parser.add_method_arguments(ExaminingTrainer, self.command, skip=skip, sub_configs=ours)
        if ours:
            ignore_options_of_others(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        self.ckpt_path = str(self.config.ckpt_path or "")
        check_local(self.ckpt_path)
        if self.config.get("weights_only") is False:
            raise ValueError("`weights_only` must be true or null: a checkpoint is read as data, and never runs.")
        chosen_by_trainer = not is_local_file(self.ckpt_path) and self.command in LightningCLI.subcommands()
        self.checkpoint = None if not self.ckpt_path or chosen_by_trainer else read_checkpoint(self.ckpt_path)

    def after_instantiate_classes(self) -> None:
        """A checkpoint is data: the configuration says what runs, and the checkpoint's weights must fit it."""
        if self.checkpoint and self.model.strict_loading:
            check_weights_fit(self.checkpoint, self.model, self.ckpt_path)
        if self.checkpoint and self.command == "fit":
            check_resumable(self.checkpoint, self.ckpt_path)
        if not self.config.trainer.fast_dev_run:  # which writes nothing
            check_writable(self.trainer)
        check_fits_data(self.model, self.datamodule)
        if self.command in WITHOUT_CHECKPOINT and not self.ckpt_path:
            warn_of_random_weights(self.parser, self.config.model, self.model)

    def run(self) -> None:
        """What the command is for, and its report."""
        options = {name: self.config_init[name] for name in self.options}
        if self.command not in LightningCLI.subcommands():
            getattr(self, self.command)(self.model, self.datamodule, **options)
            return
        options["weights_only"] = True  # also of what Lightning finds itself: `last`, and after a restart by SLURM
        if is_local_file(self.ckpt_path):  # Lightning takes any name that begins with "http" for an address
            options["ckpt_path"] = os.path.abspath(self.ckpt_path)
        getattr(self.trainer, self.command)(self.model, datamodule=self.datamodule, **options)
        if self.command != "predict":
            report(self.trainer)

    def sanity(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """The checks, then files, figures and the exit code."""
        run = checkpoint_run(options["ckpt_path"])
        options["output"] = options["output"] or str(run / "sanity")
        check_folder("output", options["output"])
        if options["check"] in ("data", "all"):
            check_folder("twins", options["twins"])
            check_randomizable(self.config.data)
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world > 1:
            dist.init_process_group("gloo")
        load_weights(model, options["ckpt_path"])
        train = partial(self._random_label_twin, options["twin_epochs"], Path(options["twins"]))
        result = cast(ExaminingTrainer, self.trainer).sanity(model, datamodule, make_twin=train, **options)
        if world == 1 or dist.get_rank() == 0:
            report_sanity(result, Path(options["output"]) / options["check"])
        if world > 1:
            dist.destroy_process_group()
        failed = [v for v in result.verdicts if v.method in (options["require"] or []) and v.outcome != "PASS"]
        if failed:
            sys.exit(1)

    def calibrate(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """The level, then its files. One process works."""
        run = checkpoint_run(options["ckpt_path"])
        path = Path(options["output"] or run / "noise_level.yaml")
        check_file("output", path)
        if path.suffix in (".csv", ".png"):
            raise ValueError(f"`output`: {path} must be a YAML file; the curve is written beside it, as .csv and .png.")
        if int(os.environ.get("RANK", 0)) > 0:
            return
        load_weights(model, options["ckpt_path"])
        report_noise_level(cast(ExaminingTrainer, self.trainer).calibrate(model, datamodule, **options), path)

    def visualize(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """The images, then their files. One process works."""
        checkpoint = options["ckpt_path"]
        run = checkpoint_run(checkpoint) if checkpoint else Path("runs")
        folder = Path(options.pop("output") or run / "visualize")
        check_folder("output", folder)
        if int(os.environ.get("RANK", 0)) > 0:
            return
        if checkpoint:
            load_weights(model, checkpoint)
        report_visualization(cast(ExaminingTrainer, self.trainer).visualize(model, datamodule, **options), folder)

    def _random_label_twin(self, epochs: int, folder: Path, number: int) -> tuple[nn.Module, float]:
        """A network trained as the configuration says, but on random labels; or the one trained earlier.

        The labels are the same for all numbers: the seed of the configuration makes them through the data. The first
        weights and the order of the batches are those of the number.
        """
        config = self.config.as_dict()
        seed = config["seed_everything"]
        config["seed_everything"] = number + (seed if isinstance(seed, int) else 0)
        config["trainer"]["max_epochs"] = epochs
        twin = trained(config, folder, by_heart=True)
        return twin.model.to(self.trainer.strategy.root_device), twin.accuracy


def run_configured(command: str, args: ArgsType) -> None:
    """Run one of the commands that take a configuration."""
    XAICommandLine(command, args).run()


def ignore_options_of_others(parser: LightningArgumentParser) -> None:
    """Let a parser of ours take the configuration that a command of Lightning saved, such as one with `verbose`."""
    known = {action.dest for action in parser._actions}
    for command, parts in LightningCLI.subcommands().items():
        for name in signature(getattr(Trainer, command)).parameters:
            if name not in {"self", *parts, *known}:
                parser.add_argument(f"--{name}", type=Any, help=SUPPRESS)
                known.add(name)


def load_weights(model: LightningModule, path: str) -> None:
    """The checkpoint's weights, safely read."""
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
