"""How much weight noise a network bears: NoiseGrad's rule for its noise level (Bykov et al. 2022)."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from lightning_xai.explainers.base import (
    Context,
    check_count,
    check_inputs,
    check_level,
    check_number,
    check_positive,
    check_rows,
    explaining,
)
from lightning_xai.explainers.chunks import in_chunks
from lightning_xai.explainers.smoothing import PerturbWeights
from lightning_xai.explainers.state import parameter_sites, swapped
from lightning_xai.outputs import Logit, Output, named_output
from lightning_xai.progress import Task, progress_bar
from lightning_xai.results.noise_level import NoiseLevel, NoisePoint
from lightning_xai.shapes import Inputs, Labels, Raw

FIRST = 0.05
"""Noise tried first, and doubled until the accuracy has dropped enough."""

CONFIDENCE = 0.95
NUM_REPLICATES = 1000
"""Of the bootstrap."""
MOST_DRAWS = 10_000
LEAST_TOLERANCE = 1e-6


def find_noise_level(
    model: nn.Module,
    images: Inputs,
    labels: Labels | None,
    chance: float | None = None,
    drop: float = 0.05,
    num_draws: int = 10,
    tolerance: float = 0.01,
    maximum: float = 2.0,
    seed: int = 0,
    max_rows: int | None = None,
    progress: bool = False,
    output: Output | str = Logit(),
) -> NoiseLevel:
    """The least multiplicative weight noise that costs the share `drop` of the accuracy above chance.

    The relative accuracy drop at noise s is AD(s) = 1 - (ACC(s) - chance) / (ACC(0) - chance), where ACC(s) is the
    mean over noisy models W · (1 + s e). The draws of e, those that `noise_grad` makes with this seed, are the same for
    every s, so that AD is nearly continuous. The first crossing is bracketed, bisected to a bracket of width
    `tolerance`, interpolated linearly, rounded to four significant digits, and measured there. The model is
    evaluated in evaluation mode and left as it is.

    The confidence interval holds 95 % of the crossings of bootstrapped curves, each of one resampling of the noise
    draws and, independently, of the samples. This is conservative (Owen, "The pigeonhole bootstrap", 2007): √3 times
    too wide where errors depend neither on the draw nor on the sample alone, about 1.2 times for a small network on
    digits. Fewer than about ten draws say little of how draws differ. Curves are interpolated between the levels
    evaluated, of which there is one within `tolerance` of each end.

    Args:
        model: Maps images to logits, or to what `output` is of.
        images: (samples, ...), on the model's device; better not those of the training.
        labels: (samples,) true classes.
        chance: ACC(inf), the accuracy when nothing is left; None for one over the number of classes.
        drop: Between 0 and 1, exclusive.
        num_draws: Noisy models at each level of noise.
        tolerance: Tolerance of the level, absolute.
        maximum: The most noise tried; a drop that is not reached there is a result, an infinite `std`.
        seed: Seed of weight noise and bootstrap.
        max_rows: Rows that pass through the model at once; None for as many as fit in memory.
        progress: Whether to show the number of models evaluated.
        output: Which says what the model predicts: a single logit has two classes.

    Raises:
        ValueError: for arguments outside their ranges, missing labels, an output without classes, and a model that is
            not better than chance.

    Source: Bykov et al. 2022, arXiv 2106.10185.

    Example:
        >>> import torch
        >>> from lightning_xai.experiments.noise_level import find_noise_level
        >>> model, images = torch.nn.Linear(2, 2, bias=False), torch.rand(50, 2)
        >>> model.weight.data = torch.eye(2)  # the class is the greater value
        >>> level = find_noise_level(model, images, images.argmax(1), tolerance=0.05)
        >>> level.clean_accuracy, 0 < level.low <= level.std <= level.high < 2
        (1.0, True)
    """
    check_settings(drop, num_draws, tolerance, maximum, chance, seed)
    check_inputs(images)
    labels = _checked_labels(labels, len(images))
    network = _NoisyModel(model, images, labels, num_draws, seed, max_rows, named_output(output))
    clean, num_classes = network.clean()
    chance = 1 / num_classes if chance is None else chance
    if clean.mean() <= chance:
        raise ValueError(
            f"`model` must be better than chance, {chance:.4g}, but its accuracy on {len(images)} samples is "
            f"{clean.mean():.4g}; train it, or see whether the labels are those of the images."
        )
    curve = _Curve(clean, chance, drop, num_draws, seed)
    curve.add(0.0, np.tile(clean, (num_draws, 1)))
    with progress_bar("noisy models", None, "model", progress) as bar:
        while (std := _next_std(curve, tolerance, maximum)) is not None:
            curve.add(std, network.correct(std, bar))
        level = float(f"{curve.crossings()[0]:.4g}")
        if math.isfinite(level) and level not in curve.drops:
            curve.add(level, network.correct(level, bar))
    return NoiseLevel(
        level,
        *curve.interval(),
        drop=drop,
        clean_accuracy=float(clean.mean()),
        chance=chance,
        points=curve.points(),
        num_samples=len(images),
        num_draws=num_draws,
        tolerance=tolerance,
        maximum=maximum,
        confidence=CONFIDENCE,
        seed=seed,
    )


def right_under_noise(
    model: nn.Module,
    images: Inputs,
    labels: Labels,
    std: float,
    num_draws: int = 10,
    seed: int = 0,
    max_rows: int | None = None,
    output: Output | str = Logit(),
) -> Bool[np.ndarray, "draws samples"]:
    """Which samples noisy models classify as the labels say; arguments as in `find_noise_level`."""
    labels = _checked_labels(labels, len(images))
    network = _NoisyModel(model, images, labels, num_draws, seed, max_rows, named_output(output))
    with progress_bar(None, shown=False) as bar:
        return network.correct(std, bar)


@dataclass(frozen=True)
class _NoisyModel:
    """Which samples a model still gets right under weight noise."""

    model: nn.Module
    images: Inputs
    labels: Labels
    num_draws: int
    seed: int
    max_rows: int | None
    output: Output

    def clean(self) -> tuple[Bool[np.ndarray, " samples"], int]:
        """Without noise; and the number of classes that the model knows."""
        raw = self._raw({})
        least, most, number = int(self.labels.min()), int(self.labels.max()), self.output.scores(raw).shape[1]
        if least < 0 or most >= number:
            raise ValueError(
                f"`labels` must be in 0 .. {number - 1}, the outputs of `model`, got values from {least} to {most}."
            )
        return self._right(raw), number

    def correct(self, std: float, bar: Task) -> Bool[np.ndarray, "draws samples"]:
        """Under noise of this standard deviation."""
        noise, context = PerturbWeights(std=std), Context.create(torch.zeros(0, dtype=torch.int64), self.seed)
        right = np.zeros((self.num_draws, len(self.labels)), dtype=bool)
        for number in range(self.num_draws):
            right[number] = self._right(self._raw(noise.noisy_weights(self.model, context.model_seed(number))))
            bar.update()
        return right

    def _raw(self, weights: dict[str, Tensor]) -> Raw:
        def forward(images: Tensor) -> Tensor:
            return check_rows(self.model(images), len(images)).float()

        with explaining(self.model), torch.no_grad(), swapped(parameter_sites(self.model), weights):
            raw = in_chunks(forward, self.model, self.max_rows, self.images.detach())
        if not self.output.has_labels or self.output.scores(raw).shape[1] < 2:
            raise ValueError(
                f"`output` {self.output!r} must have two classes or more: of a single one the greatest is always the "
                "same, at any noise, so that its accuracy says nothing."
            )
        return raw

    def _right(self, raw: Raw) -> Bool[np.ndarray, " samples"]:
        known = ~raw.isnan().flatten(1).any(1)  # noise can make weights of half precision infinite
        return (known & (self.output.prediction(raw) == self.labels.to(raw.device))).cpu().numpy()


@dataclass
class _Curve:
    """Relative accuracy drops by noise, the estimate's first and then the bootstrap's, as far as they are known."""

    clean: Bool[np.ndarray, " samples"]
    chance: float
    drop: float
    num_draws: int
    seed: int
    drops: dict[float, Float64[np.ndarray, " curves"]] = field(default_factory=dict, init=False)
    accuracies: dict[float, tuple[float, ...]] = field(default_factory=dict, init=False)

    @cached_property
    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """How often each draw and each sample counts: (curves, draws) and (curves, samples), rows of sum 1."""
        random = np.random.default_rng(self.seed)
        return _resampled(random, self.num_draws), _resampled(random, len(self.clean))

    def add(self, std: float, correct: Bool[np.ndarray, "draws samples"]) -> None:
        self.accuracies[std] = tuple(correct.mean(1).tolist())
        self.drops[std] = self._drops(correct)

    def stds(self) -> list[float]:
        """The levels of noise evaluated, rising from 0."""
        return sorted(self.drops)

    def crossings(self) -> Float64[np.ndarray, " curves"]:
        """Where each curve first reaches the drop; infinite where it does not."""
        stds, curves = np.array(self.stds()), np.stack([self.drops[std] for std in self.stds()])
        reached = curves >= self.drop
        after = reached.argmax(0)
        before = np.maximum(after - 1, 0)
        left, right = (np.take_along_axis(curves, at[None], 0)[0] for at in (before, after))
        share = np.where(right > left, (self.drop - left) / np.where(right > left, right - left, 1), 0)
        return np.where(reached.any(0), stds[before] + share * (stds[after] - stds[before]), math.inf)

    def interval(self) -> tuple[float, float]:
        """Percentiles that are crossings themselves: one cannot interpolate to an infinite one."""
        crossings = np.sort(self.crossings()[1:])
        beyond = round((1 - CONFIDENCE) / 2 * NUM_REPLICATES)
        return float(crossings[beyond]), float(crossings[-1 - beyond])

    def points(self) -> tuple[NoisePoint, ...]:
        return tuple(
            NoisePoint(std, float(self.drops[std][0]), float(self.drops[std][1:].std(ddof=1)), self.accuracies[std])
            for std in self.stds()[1:]
        )

    def _drops(self, correct: Bool[np.ndarray, "draws samples"]) -> Float64[np.ndarray, " curves"]:
        """Where the resampled samples leave the clean model no better than chance, all is lost at any noise."""
        draws, samples = self.weights
        accuracy = ((draws @ correct.astype(np.float64)) * samples).sum(1)
        clean = samples @ self.clean.astype(np.float64)
        usable = clean > self.chance
        return np.where(usable, (clean - accuracy) / np.where(usable, clean - self.chance, 1), 1.0)


def _resampled(random: np.random.Generator, number: int) -> Float64[np.ndarray, "curves number"]:
    """Shares of `number` things: equal in the first row, as often as each is drawn in the others."""
    equal = np.full((1, number), 1 / number)
    return np.concatenate([equal, random.multinomial(number, equal[0], size=NUM_REPLICATES) / number])


def _next_std(curve: _Curve, tolerance: float, maximum: float) -> float | None:
    """The noise to be evaluated next: to bracket the level, to bisect, and then for the ends of the interval."""
    stds, crossing = curve.stds(), float(curve.crossings()[0])
    further = min(2 * stds[-1] or FIRST, maximum) if stds[-1] < maximum else None
    if math.isinf(crossing):
        return further
    place = bisect_left(stds, crossing)  # a level of its own right is its own bracket's upper end
    left, right = stds[max(place - 1, 0)], stds[place]
    if right - left > tolerance:
        return _written((left + right) / 2)
    for end in curve.interval():
        if math.isinf(end) and further is not None:
            return further
        if math.isfinite(end) and min(abs(end - std) for std in stds) > tolerance:
            return _written(end)
    return None


def _written(std: float) -> float:
    """As it stands in tables, so that no two levels have one name."""
    return float(f"{std:.6g}")


def check_settings(
    drop: float, num_draws: int, tolerance: float, maximum: float, chance: float | None, seed: int
) -> None:
    """Refuse arguments outside their ranges; see `find_noise_level`."""
    check_level("drop", drop)
    check_number("tolerance", tolerance)
    if not LEAST_TOLERANCE <= tolerance < math.inf:
        raise ValueError(
            f"`tolerance` must be at least {LEAST_TOLERANCE:g}, for a level has no more digits, and finite; "
            f"got {tolerance}."
        )
    check_positive("maximum", maximum)
    check_count("num_draws", num_draws, 2)  # for an interval
    if num_draws > MOST_DRAWS:
        raise ValueError(f"`num_draws` must be at most {MOST_DRAWS:,}, got {num_draws:,}: all are resampled together.")
    if chance is not None:
        check_number("chance", chance)
        if not 0 <= chance < 1:
            raise ValueError(f"`chance` must be at least 0 and below 1, got {chance}.")
    check_count("seed", seed, 0)


def _checked_labels(labels: Labels | None, num_samples: int) -> Labels:
    """On the CPU."""
    if labels is None:
        raise ValueError("`labels` must be the true classes of the images: without them there is no accuracy.")
    if labels.shape != (num_samples,):
        raise ValueError(
            f"`labels` must be one class index for each of the {num_samples} images, got {tuple(labels.shape)}."
        )
    return labels.cpu()
