"""The rows on the mean over the draws: how long it takes to get its error down, what is left at equal cost, and whether
its standard error is true."""

import math
import statistics
from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from scipy.stats import t
from torch import Tensor

import lightning_xai as lx
from benchmark_rows.measuring import PRECISIONS, SINGLE, Case, Measurement, Setting, alternately, case, timed
from lightning_xai.explainers import Context, Explainer, InputScale, InRangeScale, RangeScale, SmoothDiff
from lightning_xai.functional.moments import Moments

SAMPLINGS = ("independent", "antithetic", "stratified")
SCALES: dict[str, InputScale] = {"SmoothGrad": RangeScale(), "AdaptGrad": InRangeScale()}


def error(setting: Setting) -> Iterator[Measurement]:
    """Time to a Monte-Carlo error of 10 % (of ResNet-9 on a CPU 20 %) over that with independent draws in float32;
    and the errors of all ways to draw, and of SmoothDiff, in the time of 50 such draws (EfficientNet-Lite0: 20)."""
    for name in setting.networks:
        if name == "ResNet50":
            continue  # it has random weights, and so next to no error
        if name != "EfficientNetLite0":  # far from any such goal
            yield from time_to_error(name, setting)
        yield from at_equal_cost(name, setting)


def time_to_error(name: str, setting: Setting) -> Iterator[Measurement]:
    enough = setting.everything or name == "LeNet"  # ResNet-9 needs 3,000 draws for 10 %
    goal, number, most = (0.1, 16, 1024 if name == "LeNet" else 8192) if enough else (0.2, 2, 2048)
    if setting.tiny:
        goal, number, most = 100.0, 2, 16
    one = case(name, number, setting.device)
    reference = reference_moments(one, 2 * most)
    plain = draws_needed(one, reference, "independent", SINGLE, goal, most)
    for sampling, precision in product(SAMPLINGS, PRECISIONS):
        if (sampling, precision) != ("independent", SINGLE):
            draws = draws_needed(one, reference, sampling, precision, goal, most)
            yield compare(one, goal, (draws, sampling, precision), plain, setting)


def at_equal_cost(name: str, setting: Setting) -> Iterator[Measurement]:
    """Errors over those of independent draws, under one seed after the other."""
    number, draws, most = {"LeNet": (16, 50, 2048), "ResNet9": (2, 50, 1024)}.get(name, (1, 20, 256))
    draws, most = (4, 32) if setting.tiny else (draws, most)
    one = case(name, number, setting.device)
    for method, scale in SCALES.items():
        reference = reference_moments(one, most, scale)
        independent = lx.Smooth(scale=scale, num_draws=draws)
        plain, seconds = errors_and_time(one, reference, independent, setting)
        passes, per_draw = draws, seconds / draws
        for _ in range(2):  # there is a fixed cost too
            taken = errors_and_time(one, reference, SmoothDiff(scale, passes), setting)[1]
            passes = max(1, round(passes * per_draw * draws / taken))
        others: dict[str, Explainer] = {
            f"{sampling}, {draws} draws": lx.Smooth(scale=scale, num_draws=draws, sampling=sampling)
            for sampling in SAMPLINGS[1:]
        }
        for way, explainer in (others | {f"SmoothDiff, {passes} passes": SmoothDiff(scale, passes)}).items():
            found, seconds = errors_and_time(one, reference, explainer, setting)
            ratios = tuple(error / other for error, other in zip(found, plain, strict=True))
            shown = f"{statistics.median(found):.1%} / {statistics.median(plain):.1%}"
            what = f"{method}'s error, {way} / independent, {draws} draws ({shown})"
            yield Measurement("error", what, one.name, len(one.images), SINGLE, ratios, seconds)


def coverage(setting: Setting) -> Iterator[Measurement]:
    """Share of a map's values within 95 % intervals (mean and standard error of 50 draws, Student's t) around the limit
    of many draws, under one seed after the other; and how far SmoothDiff's limit is from it, relative to its norm."""
    for name in setting.networks:
        if name == "ResNet50":
            continue
        number, draws, most = (16, 50, 4096) if name == "LeNet" else (2, 50, 1024)
        draws, most = (4, 32) if setting.tiny else (draws, most)
        one = case(name, number, setting.device)
        for method, scale in SCALES.items():
            reference = reference_moments(one, most, scale)
            for sampling in SAMPLINGS:
                explainer = lx.Smooth(scale=scale, num_draws=draws, sampling=sampling)
                shares = tuple(covered(one, reference, explainer, seed) for seed in range(1 if setting.tiny else 20))
                what = f"{method}, {draws} draws, {sampling}: values within 95 % intervals"
                yield Measurement("coverage", what, name, number, SINGLE, shares, math.nan, 0.945, at_least=True)
            limit = lx.explain(*one.arguments, SmoothDiff(scale, most), bounds=one.bounds)
            what = f"SmoothDiff, {most} passes: distance from {method}'s limit"
            yield Measurement("coverage", what, name, number, SINGLE, (relative_error(reference, [limit]),), math.nan)


def covered(one: Case, reference: Moments, explainer: lx.Smooth, seed: int) -> float:
    """The share of the values that are known better than to rounding; the reference has an error too."""
    context = Context.create(one.samples.index, seed=seed, bounds=one.bounds, device=one.images.device)
    found = explainer.moments(*one.arguments, context)
    freedom = explainer.num_draws // found.group - 1
    error = (found.standard_error.square() + reference.standard_error.square()).sqrt()
    within = (found.mean - reference.mean).abs() <= float(t.ppf(0.975, freedom)) * error
    return float(within[found.standard_error > 0].double().mean())


def errors_and_time(one: Case, reference: Moments, explainer: Explainer, setting: Setting) -> tuple[list[float], float]:
    """Under each seed the relative error; the least of the seconds."""
    errors, seconds = list[float](), list[float]()
    for seed in range(1 if setting.tiny else 5):
        maps: list[Tensor] = []
        explained = partial(lx.explain, *one.arguments, explainer, bounds=one.bounds, seed=seed)
        seconds.append(timed(lambda explained=explained, maps=maps: maps.append(explained()), setting.device)())
        errors.append(relative_error(reference, maps))
    return errors, min(seconds)


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


def reference_moments(one: Case, draws: int, scale: InputScale = SCALES["SmoothGrad"]) -> Moments:
    """Of many independent draws in float32, under a seed that no other draw has."""
    context = Context.create(one.samples.index, seed=-1, bounds=one.bounds, device=one.images.device)
    return lx.Smooth(scale=scale, num_draws=draws).moments(*one.arguments, context)


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
