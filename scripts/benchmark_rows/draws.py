"""The row on the error of the mean over the draws: how long it takes to get it down."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor

from benchmark_rows.engine import PRECISIONS, SAMPLINGS, SINGLE, explain, smooth
from benchmark_rows.measuring import Case, Measurement, Setting, alternately, case, timed
from lightning_xai.explainers import Context
from lightning_xai.functional.moments import Moments

ERROR = 0.1
INDEPENDENT = SAMPLINGS[0]


def error(setting: Setting) -> Iterator[Measurement]:
    """Time to a Monte-Carlo error of 10 % over that with independent draws in float32, of SmoothGrad."""
    goal = 100.0 if setting.tiny else ERROR
    for name in setting.networks:
        if name == "ResNet50" or not (setting.everything or setting.tiny or name == "LeNet"):
            continue  # ResNet-50 has random weights, and so next to no error; ResNet-9 needs 3,000 draws
        one = case(name, 2 if setting.tiny else 16, setting.device)
        most = 16 if setting.tiny else 1024 if name == "LeNet" else 8192
        reference = reference_moments(one, most)
        plain = draws_needed(one, reference, INDEPENDENT, SINGLE, goal, most)
        for sampling, precision in product(SAMPLINGS, PRECISIONS):
            if (sampling, precision) != (INDEPENDENT, SINGLE):
                draws = draws_needed(one, reference, sampling, precision, goal, most)
                yield compare(one, goal, (draws, sampling, precision), plain, setting)


def compare(one: Case, goal: float, ours: tuple[float, str, str], plain: float, setting: Setting) -> Measurement:
    """The time of these draws over that of `plain` independent ones in float32, if both are finite.

    Args:
        ours: Number of draws, sampling, precision.
    """
    draws, sampling, precision = ours
    ratios, seconds = tuple[float, ...](), math.nan
    if math.isfinite(draws + plain):
        first = partial(explain, *one.arguments, smooth(math.ceil(draws), sampling), precision)
        second = partial(explain, *one.arguments, smooth(math.ceil(plain)))
        ratios, seconds = alternately(timed(first, setting.device), timed(second, setting.device), setting)
    what = f"time to an error of {goal:.0%}, {sampling}, {shown(draws)} / independent in float32, {shown(plain)}"
    return Measurement("error", what, one.name, len(one.images), precision, ratios, seconds, 0.4)


def shown(draws: float) -> str:
    return f"{math.ceil(draws)} draws" if math.isfinite(draws) else "never"


def reference_moments(one: Case, draws: int) -> Moments:
    """Of many independent draws in float32, that no other draw shares a seed with."""
    context = Context.create(one.samples.index, seed=-1, bounds=one.bounds, device=one.images.device)
    return smooth(2 * draws).moments(*one.arguments, context)


def draws_needed(one: Case, reference: Moments, sampling: str, precision: str, goal: float, most: int) -> float:
    """Draws at which the error falls to `goal`: doubled until it has, then interpolated; infinite if it never does."""
    draws, before = 4, math.inf
    while draws <= most:
        now = relative_error(reference, smooth_maps(one, draws, sampling, precision))
        if now <= goal:
            if not math.isfinite(before):
                return draws
            return draws / 2 * 2 ** (math.log(before / goal) / math.log(before / now))
        draws, before = 2 * draws, now
    return math.inf


def smooth_maps(one: Case, draws: int, sampling: str, precision: str, num_seeds: int = 2) -> list[Tensor]:
    return [explain(*one.arguments, smooth(draws, sampling), precision, seed=seed) for seed in range(num_seeds)]


def relative_error(reference: Moments, maps: list[Tensor]) -> float:
    """Root mean square over the samples of ‖map - expectation‖ / ‖expectation‖.

    What the reference itself is off by, on average, is subtracted from the squares.
    """
    off = reference.standard_error.double().square().flatten(1).sum(1)
    expectation = reference.mean.double()
    size = (expectation.square().flatten(1).sum(1) - off).clamp(min=0)
    squares = torch.stack([(found.double() - expectation).square().flatten(1).sum(1) - off for found in maps])
    return float((squares / size).mean().clamp(min=0).sqrt())
