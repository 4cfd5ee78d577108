"""`lightning-xai evaluate`: scores of as many samples as there are, in shards, and on from where it stopped."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule

from lightning_xai.callbacks.attribution import AttributionCallback
from lightning_xai.callbacks.base import unpacking
from lightning_xai.callbacks.samples import Target
from lightning_xai.cli.checks import checkpoint_run, parse_shard
from lightning_xai.cli.command_line import XAICommandLine
from lightning_xai.data.input_space import InputSpace
from lightning_xai.evaluation import OnError
from lightning_xai.experiments.source import Stage
from lightning_xai.experiments.stream import StoredEvaluation, evaluate_stream
from lightning_xai.experiments.trained import connected
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.precision import Precision
from lightning_xai.metrics import SampleMetric
from lightning_xai.reporting.console import console
from lightning_xai.reporting.folders import check_folder
from lightning_xai.reporting.tables import score_table


def evaluate(
    line: XAICommandLine,
    ckpt_path: str | None = None,
    folder: str | None = None,
    shard: str | None = None,
    stage: Stage = "test",
    num_samples: int | None = None,
    methods: dict[str, Explainer | str] | list[str] | None = None,
    metrics: dict[str, SampleMetric | str] | list[str] | None = None,
    target: Target | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    max_rows: int | None = None,
    precision: Precision | None = None,
    max_gradients: int | None = None,
    dry_run: bool = False,
    on_error: OnError | None = None,
) -> None:
    """Score explanations on all samples: in shards, batch by batch into a folder, and on from where it stopped.

    What is null is as the configuration's AttributionCallback has it. Started again with more methods, metrics or
    samples, it computes what is missing. Shards are run at any time, in any order, on any machine that sees the folder:
    `--shard 3/16`, in a SLURM array `--shard $SLURM_ARRAY_TASK_ID/16`. Under `torchrun --nproc_per_node 4 -m
    lightning_xai evaluate ...` each process takes its part of the shard, and no process waits for another.

    Args:
        line: The command line.
        ckpt_path: The trained weights; null for those that the module brings.
        folder: For the scores; null for `evaluate` in the checkpoint's run.
        shard: `k/n`, from 1/n to n/n; null for all samples.
        stage: Whose loader of the data, `test` or `validate`.
        num_samples: Samples, evenly spaced; null for all.
        methods: Explainers by name; plain names such as `smooth_grad` will do, as will a list of them.
        metrics: Metrics by name, likewise.
        target: The class explained, the `label` or the model's `prediction`; `positive` for each label that holds.
        seed: Seed of the noise.
        batch_size: Samples explained at a time.
        max_rows: Rows that pass through the network at once; null for as many as fit in memory.
        precision: Precision of the network; see `in_precision`.
        max_gradients: Gradients on all samples, of all shards, with all metrics: the most expensive methods get as many
            draws as that pays for, the same in every shard.
        dry_run: Tell what will be spent on what is missing, by method and metric, instead of computing it.
        on_error: `raise`, or with `warn` what fails costs its own scores, which stay missing until the next start.
    """
    path = Path(folder or (checkpoint_run(ckpt_path) if ckpt_path else Path("runs")) / "evaluate")
    check_folder("folder", path)
    own = parse_shard(shard, os.environ)
    found = (c for c in line.trainer.callbacks if isinstance(c, AttributionCallback))  # type: ignore[attr-defined]
    like = next(found, None) or AttributionCallback()
    target = like.target if target is None else target
    model = connected(line.trainer, line.model, line.datamodule)
    if device := _own_device(model, os.environ):
        model = model.to(device)
    conditions = InputSpace(model, line.datamodule).completed(like.conditions)
    given: dict[str, Any] = {"seed": seed, "max_rows": max_rows, "precision": precision}
    conditions = replace(conditions, **{name: value for name, value in given.items() if value is not None})
    checkpoint: Mapping[str, Any] = line.checkpoint or {}
    try:
        result = evaluate_stream(
            model,
            line.datamodule,
            path,
            target,
            like.chosen_methods(conditions.bounds is not None) if methods is None else methods,
            like.metrics if metrics is None else metrics,
            shard=own,
            num_samples=num_samples,
            stage=stage,
            limit=line.trainer.limit_test_batches if stage == "test" else line.trainer.limit_val_batches,
            controls=like.controls,
            batch_size=like.batch_size if batch_size is None else batch_size,
            take=like.unpack or unpacking(target, like.mask, like.forward),
            epoch=checkpoint.get("epoch", 0),
            step=checkpoint.get("global_step", 0),
            progress=line.trainer.progress_bar_callback is not None and own[0] == 1,
            forward=like.forward,
            max_gradients=max_gradients,
            dry_run=dry_run,
            on_error=like.on_error if on_error is None else on_error,
            **vars(conditions),
        )
    except KeyboardInterrupt:
        console().print(f"interrupted; what is finished is in {path}, and the same command goes on there")
        sys.exit(130)
    console().print(result.price.table()) if result.price is not None else report(result, own)


def report(result: StoredEvaluation, shard: tuple[int, int]) -> None:
    """Print what is there, and where; the table only once where several processes run."""
    terminal = console()
    of = "" if result.num_samples is None else f" of {result.num_samples}"
    whole = result.num_finished == result.num_samples
    terminal.print(f"{'shard':<16} {shard[0]}/{shard[1]}: {result.num_now} samples evaluated now")
    terminal.print(f"{'finished':<16} {result.num_finished}{of} samples" + ("" if whole else ", so far"))
    if result.num_left_out:
        terminal.print(f"{'left out':<16} {result.num_left_out} samples without a positive label")
    if whole or shard[0] == 1:
        number = result.num_finished
        title = f"explanations of {number} sample{'s' * (number != 1)}, mean ± standard error"
        terminal.print(score_table(result.scores(), result.higher_is_better, title))
    terminal.print(f"{'sample scores':<16} {result.folder / 'scores'}")
    terminal.print(f"{'as a table':<16} {_command('export', result.folder, '--output', 'scores.csv')}")
    terminal.print(f"{'to compare':<16} {_command('compare', result.folder)}")


def _command(*words: object) -> str:
    return shlex.join(["lightning-xai", *map(str, words)])


def _own_device(model: LightningModule, environment: Mapping[str, str]) -> torch.device | None:
    """The GPU of this process, where `torchrun` has started several on a machine."""
    if "LOCAL_RANK" not in environment or model.device.type != "cuda":
        return None
    return torch.device("cuda", int(environment["LOCAL_RANK"]) % torch.cuda.device_count())
