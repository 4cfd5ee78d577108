"""Rows that compare lightning_xai with the bare gradients that it needs: what its bookkeeping and its noise cost."""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

import lightning_xai as lx
from benchmark_rows.measuring import PRECISIONS, Case, Clock, Measurement, Setting, alternately, bare_loop, case, timed
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.callbacks.recurring import RecurringCallback
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.precision import Precision
from lightning_xai.modules import ClassifierModule
from lightning_xai.results.scores import GRADIENTS


def smoothing(setting: Setting) -> Iterator[Measurement]:
    """SmoothGrad and AdaptGrad."""
    for one in setting.cases(1, 16, 64):
        yield from smoothers(one, setting.draws(one, 50), PRECISIONS, setting)


def smoothers(one: Case, draws: int, precisions: Sequence[Precision], setting: Setting) -> Iterator[Measurement]:
    methods = {"SmoothGrad": lx.smooth_grad(num_draws=draws), "AdaptGrad": lx.adapt_grad(num_draws=draws)}
    aim = 1.05 if one.name != "LeNet" else 1.25 if len(one.images) > 1 else 1.4
    for (name, method), precision in product(methods.items(), precisions):
        yield over_loop("smoothing", f"{name}, {draws} draws", one, method, draws, precision, aim, setting)


def weight_noise(setting: Setting) -> Iterator[Measurement]:
    """NoiseGrad and FusionGrad, also over the same loop with one noisy model a pass, which is their own floor."""
    for one in setting.cases(64, large=False):
        models = setting.draws(one, 10)
        outer, inner = (models, models) if setting.everything or models == 10 else (2, max(1, models))
        yield from weight_smoothers(one, models, (outer, inner), PRECISIONS, setting)


def weight_smoothers(
    one: Case, models: int, fusion: tuple[int, int], precisions: Sequence[Precision], setting: Setting
) -> Iterator[Measurement]:
    outer, inner = fusion
    methods: dict[str, tuple[Explainer, int, int]] = {
        f"NoiseGrad, {models} models": (lx.noise_grad(num_draws=models), models, models),
        f"FusionGrad, {outer} x {inner} draws": (
            lx.fusion_grad(num_weight_draws=outer, num_input_draws=inner),
            outer * inner,
            outer,
        ),
    }
    for (name, (method, draws, passes)), precision in product(methods.items(), precisions):
        yield over_loop("weight_noise", name, one, method, draws, precision, None, setting)
        yield over_loop("weight_noise", name, one, method, draws, precision, 1.15, setting, passes)


def over_loop(
    row: str,
    name: str,
    one: Case,
    method: Explainer,
    draws: int,
    precision: Precision,
    aim: float | None,
    setting: Setting,
    models: int = 0,
) -> Measurement:
    layout, _, loop = bare_loop(one, draws, precision, setting, models)
    explained = partial(lx.explain, *one.arguments, method, bounds=one.bounds, precision=precision)
    ratios, seconds = alternately(timed(explained, setting.device), loop, setting)
    what = f"{name} / bare gradients ({layout}{', one model a pass' if models else ''})"
    return Measurement(row, what, one.name, len(one.images), precision, ratios, seconds, aim)


def validation(setting: Setting) -> Iterator[Measurement]:
    """A validation end with the callback, all its files and its panel, over the bare gradients that it needs."""
    for name in setting.networks:
        if name == "ResNet50":
            continue  # its samples are noise, without a data set
        number = 2 if setting.tiny else 64 if setting.everything or name == "LeNet" else 8
        one = case(name, number, setting.device)
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Lightning's advice on workers
                validate, draws = _validation_end(one, precision, Path(folder), setting)
                layout, _, loop = bare_loop(one, draws, precision, setting)
                ratios, seconds = alternately(validate, loop, setting)
            what = f"validation end, {draws} gradients a sample / bare gradients ({layout})"
            yield Measurement(
                "validation", what, name, number, precision, ratios, seconds, 1.6 if name == "LeNet" else 1.2
            )


def _validation_end(one: Case, precision: Precision, folder: Path, setting: Setting) -> tuple[Callable[[], float], int]:
    """Seconds that the callback takes at a validation end, and the gradients that it spends on a sample."""
    methods = None
    if setting.tiny:
        methods = {"smooth_grad": lx.smooth_grad(num_draws=2), "noise_grad": lx.noise_grad(num_draws=2)}
    low, high = (bound.flatten().tolist() for bound in one.bounds)
    attribution = AttributionCallback(
        methods, num_samples=len(one.images), bounds=(low, high), precision=precision, summary=False
    )
    loader = DataLoader(_dataset(one), len(one.images))
    validate = measured(attribution, one.model, loader, folder, setting.device)
    validate()
    assert attribution.evaluation is not None
    spent = attribution.evaluation.means()
    return validate, round(sum(means[GRADIENTS] for means in spent.values()))


def measured(
    callback: RecurringCallback,
    network: nn.Module,
    data: DataLoader | LightningDataModule,
    folder: Path,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> Callable[[], float]:
    """A function that gives the seconds that a callback takes at a validation end, with its files."""
    seconds, measure = [0.0], callback.measure

    def stopwatch(*arguments: Any) -> None:
        seconds[0] = timed(lambda: measure(*arguments), device, clock=clock)()

    callback.measure = stopwatch  # type: ignore[method-assign]
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        logger=TensorBoardLogger(folder),
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    module = ClassifierModule(copy.deepcopy(network))  # Lightning takes it off the GPU when it is done

    def validate() -> float:
        trainer.validate(module, data, verbose=False)
        return seconds[0]

    return validate


def _dataset(one: Case) -> list[dict[str, torch.Tensor]]:
    samples = one.samples
    assert samples.masks is not None
    return [
        {"image": image.cpu(), "label": label.cpu(), "index": index, "mask": mask.cpu()}
        for image, label, index, mask in zip(samples.images, one.target, samples.index, samples.masks, strict=True)
    ]
