"""The row on the error of the mean over the draws: how long it takes to get it down."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor

import lightning_xai as lx
from benchmark_rows.measuring import PRECISIONS, SINGLE, Case, Measurement, Setting, alternately, case, timed
from lightning_xai.explainers import Context
from lightning_xai.functional.moments import Moments

SAMPLINGS = ("independent", "antithetic", "stratified")


def error(setting: Setting) -> Iterator[Measurement]:
    """Time to a Monte-Carlo error of 10 % (of ResNet-9 on a CPU 20 %) over that with independent draws in float32."""
    for name in setting.networks:
        if name == "ResNet50":
            continue  # it has random weights, and so next to no error
        enough = setting.everything or name == "LeNet"  # ResNet-9 needs 3,000 draws for 10 %
        goal, number, most = (0.1, 16, 1024 if name == "LeNet" else 8192) if enough else (0.2, 2, 2048)
        if setting.tiny:
            goal, number, most = 100.0, 2, 16
        one = case(name, number, setting.device)
        reference = reference_moments(one, most)
        plain = draws_needed(one, reference, "independent", SINGLE, goal, most)
        for sampling, precision in product(SAMPLINGS, PRECISIONS):
            if (sampling, precision) != ("independent", SINGLE):
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
        first, second = maps(one, draws, sampling, precision), maps(one, plain, "independent", SINGLE)
        ratios, seconds = alternately(timed(first, setting.device), timed(second, setting.device), setting)
    what = f"time to an error of {goal:.0%}, {sampling}, {shown(draws)} / independent in float32, {shown(plain)}"
    return Measurement("error", what, one.name, len(one.images), precision, ratios, seconds, 0.4)


def maps(one: Case, draws: float, sampling: str, precision: str) -> partial[Tensor]:
    """Explains with the even number of draws that is not less."""
    method = lx.Smooth(num_draws=2 * math.ceil(draws / 2), sampling=sampling)
    return partial(lx.explain, *one.arguments, method, precision=precision)


def shown(draws: float) -> str:
    return f"{2 * math.ceil(draws / 2)} draws" if math.isfinite(draws) else "never"


def reference_moments(one: Case, draws: int) -> Moments:
    """Of many independent draws in float32, under a seed that no other draw has."""
    context = Context.create(one.samples.index, seed=-1, bounds=one.bounds, device=one.images.device)
    return lx.Smooth(num_draws=2 * draws).moments(*one.arguments, context)


def draws_needed(one: Case, reference: Moments, sampling: str, precision: str, goal: float, most: int) -> float:
    """Draws at which the error falls to `goal`: doubled until it has, then interpolated; infinite if it never does."""
    draws, before = 4, math.inf
    while draws <= most:
        explained = maps(one, draws, sampling, precision)
        now = relative_error(reference, [explained(seed=seed) for seed in range(2)])
        if now <= goal:
            if not math.isfinite(before):
                return draws
            return draws / 2 * 2 ** (math.log(before / goal) / math.log(before / now))
        draws, before = 2 * draws, now
    return math.inf


def relative_error(reference: Moments, maps: list[Tensor]) -> float:
    """Root mean square over the samples of ‖map - expectation‖ / ‖expectation‖.

    What the reference itself is off by, on average, is subtracted from the squares.
    """
    off = reference.standard_error.double().square().flatten(1).sum(1)
    expectation = reference.mean.double()
    size = (expectation.square().flatten(1).sum(1) - off).clamp(min=0)
    squares = torch.stack([(found.double() - expectation).square().flatten(1).sum(1) - off for found in maps])
    return float((squares / size).mean().clamp(min=0).sqrt())
