"""`lightning-xai explain IMAGE [IMAGE ...] --config FILE`."""

import os
import sys
from collections.abc import Sequence
from inspect import signature
from itertools import islice

import torch
from jsonargparse import ActionConfigFile
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import LightningArgumentParser

from lightning_xai.callbacks.attribution import AttributionCallback
from lightning_xai.cli.checks import check_local, parse_shard
from lightning_xai.cli.command_line import ignore_options_of_others, load_weights
from lightning_xai.cli.errors import refusing
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode
from lightning_xai.cli.weights import warn_of_random_weights
from lightning_xai.data.pictures import listed
from lightning_xai.experiments.pictures import Explained, Preparation, explain_pictures
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.precision import Precision
from lightning_xai.modules import ClassifierModule
from lightning_xai.modules.checkpoints import check_weights_fit, read_checkpoint
from lightning_xai.names import named
from lightning_xai.outputs import Output, named_output
from lightning_xai.reporting.console import console
from lightning_xai.reporting.explanations import MAPS, PANELS
from lightning_xai.reporting.folders import check_folder

_CPU = torch.device("cpu")
_SHOWN = 20
"""Refused pictures that are listed in the terminal; the file has all."""


def explain_command(words: Sequence[str]) -> None:
    """Parse, explain, report; exit code 1 if nothing could be explained, 130 after an interruption."""
    parser = explain_parser()
    options = parser.parse_args(list(words))
    check_folder("output", options.output)
    options.trainer.logger = False  # only the callbacks matter, and a logger may want an account
    seed_everything(int(options.pop("seed_everything")), verbose=False)
    parts = parser.instantiate_classes(options)
    callbacks, strict = parts.pop("trainer").callbacks or [], parts.pop("strict")
    callback = next((c for c in callbacks if isinstance(c, AttributionCallback)), None)
    if not parts.ckpt_path:
        warn_of_random_weights(parser, options.model, parts.model)
    chosen = {name: value for name, value in vars(parts).items() if name in signature(explain_images).parameters}
    try:
        result = explain_images(callback=callback, **chosen)
    except KeyboardInterrupt:
        console().print(f"interrupted; what is finished is in {chosen['output']}, and the same command goes on there")
        sys.exit(130)
    report(result)
    nothing = not result.now + result.before and (result.refused or result.folder.shard[1] == 1)
    if (strict and result.refused) or nothing:
        sys.exit(1)


def explain_parser() -> LightningArgumentParser:
    """Parts of a configuration as the other commands have them, and the options of `explain_images`."""
    know_yaml_mode()
    parser = LightningArgumentParser(
        prog="lightning-xai explain",
        usage="%(prog)s IMAGE [IMAGE ...] --config FILE [--OPTION VALUE ...]",
        description=str(explain_images.__doc__).partition("\n")[0],
        parser_mode=YAML_MODE,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="A picture, or a folder of pictures.")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="The configuration of a run.")
    options = parser.add_function_arguments(
        explain_images, skip={"images", "model", "data", "callback"}, as_group=False, sub_configs=True
    )
    parser.add_argument(
        "--strict",
        type=bool,
        default=False,
        help="Exit code 1 if any picture is refused, and not only if none could be explained.",
    )
    parser.add_argument("--seed_everything", type=bool | int, default=0, help="Of weights that no checkpoint replaces.")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
    ignore_options_of_others(parser, options)
    return refusing(parser)


def explain_images(
    images: list[str],
    model: LightningModule,
    data: LightningDataModule | None = None,
    callback: AttributionCallback | None = None,
    ckpt_path: str | None = None,
    output: str = "explanations",
    target: int | str | None = None,
    methods: dict[str, Explainer | str] | list[str] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    max_rows: int | None = None,
    device: str = "auto",
    precision: Precision = "32-true",
    explained: Output | str | None = None,
    panels: bool = True,
    progress: bool = True,
    shard: str | None = None,
) -> Explained:
    """Explain pictures from files: panels, raw maps, and a table.

    Many processes may share the pictures out: with a `shard` each, or under `torchrun`, where each takes its part of
    the shard. They write into one folder, and none waits for another. The results are the same for any number.

    Args:
        images: Pictures, and folders of them.
        model: The network, in the configuration.
        data: What it was trained on; nothing is loaded. Pictures are prepared as they say or, where they do not, as
            the module does.
        callback: Whose methods are the default.
        ckpt_path: The trained weights; null for those that the model brings itself.
        output: Folder for explanations.csv, maps/*.safetensors, panels/*.png, and refused.csv where there is something
            to list in it. Started again with the same settings, the command goes on where it stopped.
        target: The class explained, its name or its index; null for the predicted one.
        methods: Explainers by name; plain names such as `smooth_grad` will do, as will a list of them; null for those
            of the configuration's AttributionCallback, or the default ones.
        seed: Seed of the noise, which depends on it and on the content of the picture's file.
        batch_size: Pictures explained at a time.
        max_rows: Rows that pass through the network at once; null for as many as fit in memory.
        device: `auto` for a GPU where there is one (under `torchrun` its own), `cpu`, `cuda`, `cuda:1`, ...
        precision: Precision of the network: `32-true`, or `tf32` or `bf16-mixed`, which are faster where the hardware
            has them.
        explained: What is explained of the class, as `output` in AttributionCallback; null for that of the
            configuration's.
        panels: Whether to draw panels; with a small network that takes longer than explaining.
        progress: Whether to show a progress bar.
        shard: `k/n`, from 1/n to n/n: of all pictures, by their place, every n-th from the k-th on; null for all.
    """
    own = parse_shard(shard, os.environ)
    preparation = Preparation.of(model, data)
    if ckpt_path:
        check_local(ckpt_path)
        checkpoint = read_checkpoint(ckpt_path)
        if isinstance(model, ClassifierModule):
            model.fit_to_weights(checkpoint["state_dict"])
        check_weights_fit(checkpoint, model, ckpt_path)
        load_weights(model, ckpt_path)
    has_bounds = preparation.bounds is not None
    callback = callback or AttributionCallback()
    return explain_pictures(
        callback.adapted(model),
        images,
        preparation,
        callback.chosen_methods(has_bounds) if methods is None else named("methods", methods),
        output,
        target=target,
        output=callback.output if explained is None else named_output(explained),
        seed=seed,
        batch_size=batch_size,
        max_rows=max_rows,
        device=_device(device),
        precision=precision,
        panels=panels,
        progress=progress,
        shard=own,
    )


def report(result: Explained) -> None:
    """Print what was explained and refused, and where it lies."""
    terminal, folder = console(), result.folder
    earlier = f", {result.before} of them earlier" if result.before else ""
    terminal.print(f"{'explained':<16} {_pictures(result.now + result.before)}{earlier}")
    why = folder.refuse(result.refused)
    twice = {n: "named twice" if n == first else f"has the content of {first}" for n, first in result.repeated.items()}
    for title, found in (("refused", result.refused), ("given twice", twice)):
        if found:
            terminal.print(f"{title:<16} {_pictures(len(found))}")
        for name, reason in islice(found.items(), _SHOWN):
            terminal.print(f"  {name}: {reason}")
        if len(found) > _SHOWN:
            terminal.print(f"  ... and {len(found) - _SHOWN} more")
    if result.passed_over:
        terminal.print(f"{'passed over':<16} {listed(result.passed_over, _SHOWN)}: no pictures by their suffix")
    for path in (folder.table, folder.folder / MAPS, folder.folder / PANELS, why):
        if path is not None and path.exists():
            terminal.print(f"{'written':<16} {path}")


def _pictures(number: int) -> str:
    return f"{number} picture{'' if number == 1 else 's'}"


def _device(name: str) -> torch.device:
    if name == "auto":
        place = int(os.environ.get("LOCAL_RANK", 0))  # of the processes on this machine
        return torch.device("cuda", place % torch.cuda.device_count()) if torch.cuda.is_available() else _CPU
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"`device`: {name!r} cannot be used ({reason}); choose `auto`, `cpu` or `cuda`.") from error
