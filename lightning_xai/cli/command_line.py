"""LightningCLI's commands, fit, validate, test and predict, and three more: sanity, calibrate and visualize."""

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
    check_randomisable,
    check_writable,
    checkpoint_run,
    is_local_file,
)
from lightning_xai.cli.reports import report, report_noise_level, report_sanity, report_visualization
from lightning_xai.cli.weights import warn_of_random_weights
from lightning_xai.experiments.trainer import ExaminingTrainer
from lightning_xai.modules.checkpoints import check_resumable, check_weights_fit, read_checkpoint
from lightning_xai.reporting.folders import check_file, check_folder
from lightning_xai.studies.networks import trained

WITHOUT_CHECKPOINT = ("validate", "test", "predict", "visualize")
"""Commands that take the weights as they are."""


class XAICommandLine(LightningCLI):
    """LightningCLI that checks its input before it trains or writes anything, and reports afterwards."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        options = self.config[self.config.subcommand]
        self.ckpt_path = str(options.ckpt_path or "")
        check_local(self.ckpt_path)
        if options.get("weights_only") is False:
            raise ValueError("`weights_only` must be true or null: a checkpoint is read as data, and never runs.")
        chosen_by_trainer = not is_local_file(self.ckpt_path) and self.config.subcommand in LightningCLI.subcommands()
        self.checkpoint = None if not self.ckpt_path or chosen_by_trainer else read_checkpoint(self.ckpt_path)

    def _parse_ckpt_path(self) -> None:
        """Not as Lightning's: a checkpoint is data, and its hyper-parameters, which name classes, do not say what runs.

        The configuration does, and the checkpoint's weights must fit it.
        """

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Lightning's own loading, as of `last` and after a restart by SLURM, reads tensors and plain values only."""
        options = super()._prepare_subcommand_kwargs(subcommand)
        if "weights_only" in options:
            options["weights_only"] = True
            if is_local_file(self.ckpt_path):  # Lightning takes any name that begins with "http" for an address
                options["ckpt_path"] = os.path.abspath(self.ckpt_path)
        return options

    def after_instantiate_classes(self) -> None:
        if self.checkpoint and self.model.strict_loading:
            check_weights_fit(self.checkpoint, self.model, self.ckpt_path)
        if self.checkpoint and self.subcommand == "fit":
            check_resumable(self.checkpoint, self.ckpt_path)
        if not self._get(self.config, "trainer").fast_dev_run:  # which writes nothing
            check_writable(self.trainer)
        check_fits_data(self.model, self.datamodule)
        if self.subcommand in WITHOUT_CHECKPOINT and not self.ckpt_path:
            warn_of_random_weights(self._parser(self.subcommand), self._get(self.config, "model"), self.model)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """As Lightning's; options of our commands may also be the path of a file that has their value."""
        if subcommand in LightningCLI.subcommands():
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser = self.init_parser(**kwargs)
        self._add_arguments(parser)
        passed: set[str | int] = set(self.subcommands()[subcommand])
        added = parser.add_method_arguments(klass, subcommand, skip=passed, sub_configs=True)
        self._subcommand_method_arguments[subcommand] = added
        ignore_options_of_others(parser)
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        examined = {"model", "datamodule"}
        examining = {"sanity": {*examined, "make_twin"}, "calibrate": examined, "visualize": examined}
        return LightningCLI.subcommands() | examining

    def sanity(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """The checks, then files, figures and the exit code; what Lightning calls for the subcommand of this name."""
        run = checkpoint_run(options["ckpt_path"])
        options["output"] = options["output"] or str(run / "sanity")
        check_folder("output", options["output"])
        if options["check"] in ("data", "all"):
            check_folder("twins", options["twins"])
            check_randomisable(self.config.sanity.data)
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
        """The level, then its files; what Lightning calls for the subcommand of this name. One process works."""
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
        """The images, then their files; what Lightning calls for the subcommand of this name. One process works."""
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
        config = self.config.sanity.as_dict()
        seed = config["seed_everything"]
        config["seed_everything"] = number + (seed if isinstance(seed, int) else 0)
        config["trainer"]["max_epochs"] = epochs
        twin = trained(config, folder, by_heart=True)
        return twin.model.to(self.trainer.strategy.root_device), twin.accuracy

    def after_fit(self) -> None:
        report(self.trainer)

    def after_validate(self) -> None:
        report(self.trainer)

    def after_test(self) -> None:
        report(self.trainer)


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
