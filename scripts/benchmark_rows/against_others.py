"""Rows that compare lightning_xai with what else there is: Captum, the published code of NoiseGrad, Quantus."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import quantus
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor, nn

import lightning_xai as lx
from benchmark_rows.measuring import (
    HALF,
    PRECISIONS,
    SINGLE,
    Case,
    Measurement,
    Setting,
    alternately,
    case,
    fastest,
    gradient,
    timed,
)
from lightning_xai.explainers import Context, Explainer
from lightning_xai.explainers.chunks import row_limit
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.metrics import FaithfulnessCorrelation, MaxSensitivity, RelevanceRankAccuracy, Sparseness

NOISE = 0.2
"""Of NoiseGrad's weights, relative to them, and of Captum's inputs; neither changes the time."""


def captum(setting: Setting) -> Iterator[Measurement]:
    """SmoothGrad over Captum's NoiseTunnel, float32, with as many draws in the batch that suits Captum best."""
    for one in setting.cases(1, 16, 64):
        yield from over_captum(one, setting.draws(one, 50), PRECISIONS, setting)


def over_captum(one: Case, draws: int, precisions: Sequence[Precision], setting: Setting) -> Iterator[Measurement]:
    runs = noise_tunnels(one, draws)
    single = partial(in_precision, one.model, SINGLE)
    with single():
        best = fastest(runs, setting.device)
    for precision in precisions:
        ours = partial(lx.explain, *one.arguments, lx.smooth_grad(num_draws=draws), precision=precision)
        theirs = timed(runs[best], setting.device, single)
        ratios, seconds = alternately(timed(ours, setting.device), theirs, setting)
        what = f"SmoothGrad, {draws} draws / Captum NoiseTunnel in float32, {best} draws at a time"
        aim = 1.0 if precision != HALF else 0.4 if has_half_precision_units(setting.device) else None
        yield Measurement("captum", what, one.name, len(one.images), precision, ratios, seconds, aim)


def noise_tunnels(one: Case, draws: int) -> dict[str, Callable[[], Tensor]]:
    """Captum's SmoothGrad by how many draws go through the network together."""
    tunnel = NoiseTunnel(Saliency(one.model))
    most = max(1, 4 * row_limit(one.model, one.images, None) // len(one.images))
    sizes = {size for size in (1, 2, 4, 8, 16, 32, draws) if size <= min(draws, most)}

    def run(size: int) -> Tensor:
        return tunnel.attribute(
            one.images,
            nt_type="smoothgrad",
            nt_samples=draws,
            nt_samples_batch_size=size,
            stdevs=NOISE,
            target=one.target,
            abs=False,
        )

    return {str(size): partial(run, size) for size in sorted(sizes)}


@cache
def has_half_precision_units(device: torch.device) -> bool:
    """A GPU, or a CPU with AMX; what the operating system tells of the CPU is asked on Linux only."""
    cpuinfo = Path("/proc/cpuinfo")
    return device.type == "cuda" or (cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text())


def published_noise_grad(setting: Setting) -> Iterator[Measurement]:
    """NoiseGrad over noise written into the weights for each image and each model, one image at a time."""
    for one in setting.cases(32, large=False):
        yield from over_noise_in_place(one, setting.draws(one, 10, least=3), PRECISIONS, setting)


def over_noise_in_place(
    one: Case, models: int, precisions: Sequence[Precision], setting: Setting
) -> Iterator[Measurement]:
    method = lx.noise_grad(std=NOISE, num_draws=models)
    one_by_one = partial(noise_in_place, copy.deepcopy(one.model), one.images, one.target, models)
    theirs = timed(one_by_one, setting.device, partial(in_precision, one.model, SINGLE))
    aims = {"LeNet": setting.aim(0.1, 0.02), "ResNet9": setting.aim(0.2, 0.02), "ResNet50": setting.aim(None, 0.02)}
    for precision in precisions:
        ours = partial(lx.explain, *one.arguments, method, precision=precision)
        ratios, seconds = alternately(timed(ours, setting.device), theirs, setting)
        what = f"NoiseGrad, {models} models / noise in place in float32, image by image"
        aim = aims[one.name]
        yield Measurement("published_noise_grad", what, one.name, len(one.images), precision, ratios, seconds, aim)


def noise_in_place(model: nn.Module, images: Tensor, target: Tensor, models: int) -> Tensor:
    """The mean of |gradient| over noisy models as the method's published code finds it."""
    clean = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    result = torch.zeros_like(images)
    for place in range(len(images)):
        rows = slice(place, place + 1)
        for _ in range(models):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(torch.randn_like(parameter).mul_(NOISE).add_(1))
            result[rows] += gradient(model, images[rows], target[rows]).abs()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(clean[name])
    return result / models


def evaluation(setting: Setting) -> Iterator[Measurement]:
    """The four criteria of NoiseGrad's Table 1 for five methods, over the same by Quantus with the same explainers."""
    for name in setting.networks:
        if name == "ResNet50":
            continue
        number, draws = (64, 10) if setting.everything else (64, 3) if name == "LeNet" else (8, 2)
        number, draws = (2, 2) if setting.tiny else (number, draws)
        yield from over_quantus(case(name, number, setting.device), draws, PRECISIONS, setting)


def over_quantus(one: Case, draws: int, precisions: Sequence[Precision], setting: Setting) -> Iterator[Measurement]:
    methods = five_methods(draws)
    single = partial(in_precision, one.model, SINGLE)
    theirs = timed(partial(evaluate_with_quantus, one.model, one, methods), setting.device, single)
    for precision in precisions:
        ours = partial(evaluate_with_ours, one.model, one, methods, precision)
        ratios, seconds = alternately(timed(ours, setting.device), theirs, setting)
        what = f"four criteria, five methods, {draws} draws / Quantus in float32, same explainers"
        aim = setting.aim(0.25, 0.03)
        yield Measurement("evaluation", what, one.name, len(one.images), precision, ratios, seconds, aim)


def five_methods(draws: int) -> dict[str, Explainer]:
    """What is smoothed, and the four that smooth it."""
    return {
        "saliency": lx.Saliency(),
        "smooth_grad": lx.smooth_grad(lx.Saliency(), num_draws=draws),
        "adapt_grad": lx.adapt_grad(lx.Saliency(), num_draws=draws),
        "noise_grad": lx.noise_grad(num_draws=draws),
        "fusion_grad": lx.fusion_grad(num_weight_draws=draws, num_input_draws=draws),
    }


def evaluate_with_ours(
    model: nn.Module, one: Case, methods: dict[str, Explainer], precision: Precision
) -> dict[str, dict[str, Tensor]]:
    metrics = {
        "localization": RelevanceRankAccuracy(),
        "faithfulness": FaithfulnessCorrelation(),
        "robustness": MaxSensitivity(),
        "sparseness": Sparseness(),
    }
    options = {"bounds": one.bounds, "index": one.samples.index}
    images, target, masks = one.images, one.target, one.samples.masks
    return lx.evaluate(model, images, target, methods, metrics, masks, precision=precision, **options).scores


def evaluate_with_quantus(
    model: nn.Module, one: Case, methods: dict[str, Explainer]
) -> dict[str, dict[str, list[float]]]:
    """As its documentation has it: the maps made once, and the function that makes them for those of perturbed inputs.

    A map is the sum over the channels; all images are one batch.
    """
    context = Context.create(one.samples.index, bounds=one.bounds, device=one.images.device)
    assert one.samples.masks is not None
    batch = {
        "x_batch": one.images.cpu().numpy(),
        "y_batch": one.target.cpu().numpy(),
        "s_batch": one.samples.masks.cpu().numpy()[:, None],
    }
    plain = {"normalise": False, "disable_warnings": True, "return_aggregate": False}
    metrics = {
        "localization": quantus.RelevanceRankAccuracy(abs=True, **plain),
        "faithfulness": quantus.FaithfulnessCorrelation(nr_runs=100, subset_size=224, **plain),
        "robustness": quantus.MaxSensitivity(nr_samples=10, lower_bound=0.2, **plain),
        "sparseness": quantus.Sparseness(abs=True, **plain),
    }

    def scores(explainer: Explainer) -> dict[str, list[float]]:
        def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
            images, target = (torch.as_tensor(array, device=one.images.device) for array in (inputs, targets))
            return explainer(model, images, target, context).sum(1, keepdim=True).cpu().numpy()

        maps = explain(model, batch["x_batch"], batch["y_batch"])
        options = {"explain_func": explain, "device": str(one.images.device), "batch_size": len(one.images)}
        return {
            name: metric(model, **{k: v.copy() for k, v in batch.items()}, a_batch=maps.copy(), **options)
            for name, metric in metrics.items()
        }

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: scores(explainer) for name, explainer in methods.items()}
