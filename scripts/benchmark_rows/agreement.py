"""The row on what bfloat16 does to the maps."""

import math
from collections.abc import Iterator
from functools import partial

import lightning_xai as lx
from benchmark_rows.measuring import HALF, SINGLE, Measurement, Setting, case
from lightning_xai.explainers import Explainer
from lightning_xai.sanity.similarity import spearman


def agreement(setting: Setting) -> Iterator[Measurement]:
    """Spearman correlation of the maps in bfloat16 with those in float32: median and quartiles over samples."""
    for name in setting.networks:
        if name == "ResNet50":
            continue  # random weights
        one = case(name, 2 if setting.tiny else 16, setting.device)
        for method, explainer in methods(2 if setting.tiny else 10).items():
            explain = partial(lx.explain, *one.arguments, explainer, bounds=one.bounds)
            exact, fast = explain(precision=SINGLE), explain(precision=HALF)
            found = tuple(spearman(exact, fast).tolist())
            what = f"rank correlation with float32, {method}"
            yield Measurement("agreement", what, name, len(one.images), HALF, found, math.nan, 0.99, at_least=True)


def methods(draws: int) -> dict[str, Explainer]:
    return {
        "gradient": lx.Gradient(),
        f"SmoothGrad, {5 * draws} draws": lx.smooth_grad(num_draws=5 * draws),
        f"AdaptGrad, {5 * draws} draws": lx.adapt_grad(num_draws=5 * draws),
        f"NoiseGrad, {draws} models": lx.noise_grad(num_draws=draws),
        f"FusionGrad, {draws} x {draws} draws": lx.fusion_grad(num_weight_draws=draws, num_input_draws=draws),
    }
