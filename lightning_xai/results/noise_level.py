"""The level of weight noise that costs a given share of a network's accuracy, as records."""

import math
from dataclasses import dataclass

from lightning_xai.results.tables import Printed, from_above


@dataclass(frozen=True)
class NoisePoint:
    """The network under one level of weight noise."""

    std: float
    """Of the noise, relative to each weight."""
    drop: float
    """Mean relative accuracy drop, 1 - (accuracy - chance) / (clean accuracy - chance)."""
    standard_error: float
    """Of the drop, from both draws and samples."""
    accuracies: tuple[float, ...]
    """One a draw."""


@dataclass(frozen=True, repr=False)
class NoiseLevel(Printed):
    """The least weight noise with a given relative accuracy drop, as `experiments.noise_level` finds it, in sentences.

    Attributes:
        std: The level, relative to each weight; infinite where the drop is not reached up to `maximum`.
        low: Lower end of the level's confidence interval.
        high: Upper end; infinite where it lies beyond `maximum`.
        drop: Relative accuracy drop that was asked for.
        clean_accuracy: Without noise.
        chance: Accuracy that counts as nothing left.
        points: What was evaluated, by rising noise; the level is one of them if it was reached.
        num_samples: Samples that the accuracy was measured on.
        num_draws: Noisy networks at each level of noise, of the same standard-normal draws.
        tolerance: Width of the brackets in which level and interval were found by interpolation.
        maximum: The most noise tried.
        confidence: Confidence of the interval.
        seed: Seed of weight noise and bootstrap.
    """

    std: float
    low: float
    high: float
    drop: float
    clean_accuracy: float
    chance: float
    points: tuple[NoisePoint, ...]
    num_samples: int
    num_draws: int
    tolerance: float
    maximum: float
    confidence: float
    seed: int

    @property
    def reached(self) -> bool:
        return math.isfinite(self.std)

    @property
    def measured(self) -> NoisePoint | None:
        """The network at the level itself; None where it was not reached."""
        return next((point for point in self.points if point.std == self.std), None)

    def _parts(self) -> list[str]:
        return list(from_above("reporting.noise_level:level_lines")(self))
