"""`lightning-xai sanity`, `shortcuts`, `calibrate` and `visualize`: questions asked of a trained network."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_info

from lightning_xai.callbacks.attribution import AttributionCallback
from lightning_xai.callbacks.sentinel import ShortcutSentinel
from lightning_xai.cli.checks import checkpoint_run, unrandomizable
from lightning_xai.cli.command_line import XAICommandLine
from lightning_xai.cli.reports import (
    callbacks_of,
    report_noise_level,
    report_sanity,
    report_shortcuts,
    report_visualization,
)
from lightning_xai.experiments.prices import sanity_price
from lightning_xai.experiments.trained import (
    calibrate_trained,
    examine_trained,
    random_label_twin,
    shortcuts_trained,
    visualize_trained,
)
from lightning_xai.explainers.base import check_count
from lightning_xai.reporting.console import console
from lightning_xai.reporting.folders import check_file, check_folder
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import EXAMINED, Examined, examine


def sanity(
    line: XAICommandLine,
    ckpt_path: str | None = None,
    check: Examined | Literal["all"] = "all",
    require: list[str] | None = None,
    output: str | None = None,
    twin_epochs: int = 100,
    twins: str = "runs/twins",
    dry_run: bool = False,
    **options: Any,
) -> None:
    """Sanity checks: do explanations depend on the model's weights and labels (Adebayo et al. 2018)?

    Finished parts are kept in the output folder; a check that was interrupted goes on where it stopped.

    Args:
        line: The command line.
        ckpt_path: The trained weights.
        check: `parameters` randomizes weights, `data` trains a network on random labels, `invariance` shifts the
            input and compensates it; `all` makes these three, or two with data that have no `randomize_labels`.
            `efficient` asks whether maps get more complex when
            all weights are random (efficient MPRT), `random_logit` whether those of another class differ.
        require: Methods that must pass all checks made; or else the exit code is 1.
        output: Folder, in which each `check` has one for its results; null for `sanity` in the checkpoint's run.
        twin_epochs: Most epochs of the training on random labels; it ends at 95 % training accuracy.
        twins: Folder for networks trained on random labels, which are used again.
        dry_run: Tell what the checks will cost, by method and check, instead of making them.
        options: Those of `examine_trained`.
    """
    run = checkpoint_run(ckpt_path)
    folder = Path(output or run / "sanity")
    checks = EXAMINED if check == "all" else (check,)
    check_folder("output", folder)
    check_count("twin_epochs", twin_epochs)
    if "data" in checks and (why := unrandomizable(line.config.data)):
        if check == "data":
            raise ValueError(f"{why}, or choose another `check`.")
        rank_zero_info(f"The data check is left out. {why}.")
        checks = tuple(name for name in checks if name != "data")
    if "data" in checks:
        check_folder("twins", twins)
    for callback in callbacks_of(line.trainer, AttributionCallback)[:1]:
        own = {"forward": callback.forward, "explained": callback.output, "bounds": callback.conditions.bounds}
        options |= {name: value for name, value in own.items() if options[name] is None}
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if several:
        dist.init_process_group("gloo")
    device = line.trainer.strategy.root_device
    twin = partial(random_label_twin, line.config.as_dict(), twin_epochs, Path(twins), device)
    options |= {"require": require, "make_twin": twin, "folder": folder / "cells"}
    run_checks = partial(_announced, sanity_price if dry_run else examine, options["methods"] is None)
    result: Any = examine_trained(line.trainer, line.model, line.datamodule, checks, run=run_checks, **options)
    if not several or dist.get_rank() == 0:
        console().print(result.table()) if dry_run else report_sanity(result, folder / check)
    if several:
        dist.destroy_process_group()
    if not dry_run and any(
        verdict.method in (require or ()) and verdict.outcome != "PASS" for verdict in result.verdicts
    ):
        sys.exit(1)


def _announced(run: Callable[..., Any], is_default: bool, subject: Subject, *args: Any, **options: Any) -> Any:
    """Say which methods are examined, and how others are, before it takes its time."""
    others = "; others, also the configuration's: --methods '[gradient, noise_grad]'" * is_default
    if not dist.is_initialized() or dist.get_rank() == 0:
        console().tell(f"{'examined':<16} {', '.join(subject.methods)}{others}")
    return run(subject, *args, **options)


def shortcuts(
    line: XAICommandLine,
    ckpt_path: str | None = None,
    require: Literal["clear"] | None = None,
    output: str | None = None,
    **options: Any,
) -> None:
    """Shortcuts: is a class decided by something that should not decide it, such as a corner, a mark, a color?

    Found on one half of the samples, and proven on the other by interventions beside matched controls
    (`lightning_xai.find_shortcuts`). Prints the conclusion and a table, and writes `shortcuts.json`, and pictures
    before and after into `panels`. Settings that are not given are those of the configuration's `ShortcutSentinel`.

    Args:
        line: The command line.
        ckpt_path: The trained weights.
        require: `clear`: the exit code is 0 only if the verdict is CLEAR, and 1 if a shortcut is proven or, being
            INCONCLUSIVE, cannot be excluded; null: it is 0 whatever is found. What is refused has the exit code 2.
        output: Folder; null for `xai` in the checkpoint's run.
        options: Those of `shortcuts_trained`.
    """
    folder = Path(output or checkpoint_run(ckpt_path) / "xai")
    check_folder("output", folder)
    for sentinel in callbacks_of(line.trainer, ShortcutSentinel)[:1]:
        own: dict[str, Any] = {"mask": sentinel.given_mask, "operators": sentinel.operators}
        own |= {"forward": sentinel.forward, "accept": sentinel.accept or None}
        options |= {name: value for name, value in own.items() if options[name] is None}
    if int(os.environ.get("RANK", 0)) == 0:
        weights = line.checkpoint or {}
        moment = int(weights.get("epoch", -1)), int(weights.get("global_step", 0))
        found, examples = shortcuts_trained(line.trainer, line.model, line.datamodule, moment, **options)
        report_shortcuts(found, examples, folder)
        if require is not None and found.verdict != "CLEAR":
            sys.exit(1)


def calibrate(line: XAICommandLine, ckpt_path: str | None = None, output: str | None = None, **options: Any) -> None:
    """The weight noise of NoiseGrad and FusionGrad, by the accuracy that it costs (Bykov et al. 2022).

    Writes a YAML file with the settings of `noise_grad` (at the level), `fusion_grad` (half the level, and input
    noise of half of 20 % of each image's range) and `saliency`, which both smooth; and the accuracy-drop curve
    beside it, as .csv and .png. The file is the value of an explainer option, where it replaces all other methods:
    `--trainer.callbacks.methods FILE` (of the last callback) or `sanity --methods FILE`; or in a configuration
    `methods: FILE`, relative to the configuration. To change a method's level alone, behind a configuration that
    has it: `--trainer.callbacks.methods.noise_grad.init_args.std LEVEL`. Where the drop is not reached, there are
    no settings to write. The network runs in the trainer's precision, in one process.

    Args:
        line: The command line.
        ckpt_path: The trained weights.
        output: The YAML file; null for `noise_level.yaml` in the run of the checkpoint.
        options: Those of `calibrate_trained`.
    """
    run = checkpoint_run(ckpt_path)
    path = Path(output or run / "noise_level.yaml")
    check_file("output", path)
    if path.suffix in (".csv", ".png"):
        raise ValueError(f"`output`: {path} must be a YAML file; the curve is written beside it, as .csv and .png.")
    if int(os.environ.get("RANK", 0)) == 0:
        report_noise_level(calibrate_trained(line.trainer, line.model, line.datamodule, **options), path)


def visualize(line: XAICommandLine, ckpt_path: str | None = None, output: str | None = None, **options: Any) -> None:
    """Images that a class, a channel or a unit answers to most, plain and with NoiseGrad (Bykov et al. 2022).

    Each image is written as a PNG of the network's resolution; beside them a figure with all of them, scores, the
    rise of the activation, and what NoiseGrad costs in wall time. No data are read. One process works.

    Args:
        line: The command line.
        ckpt_path: The trained weights; null for those that the module brings.
        output: Folder; null for `visualize` in the checkpoint's run, or in runs.
        options: Those of `visualize_trained`.
    """
    folder = Path(output or (checkpoint_run(ckpt_path) if ckpt_path else Path("runs")) / "visualize")
    check_folder("output", folder)
    if int(os.environ.get("RANK", 0)) == 0:
        result = visualize_trained(line.trainer, line.model, line.datamodule, **options)
        report_visualization(replace(result, settings={"ckpt_path": ckpt_path, **result.settings}), folder)
