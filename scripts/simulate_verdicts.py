"""How often a sanity check gives the wrong verdict, and how often the right one: simulated similarities.

A cascade's two deciding steps lie a known difference above the floor, in units of the margin δ: both, or only the last
one while the other lies at the floor. Networks, samples, and both together have random effects; the floor's come from
pairs of samples, five to either side, as in the check. The effects of samples are skewed. Verdicts are those of
`randomization_verdict`, as they are.

    python scripts/simulate_verdicts.py > table.md             # one thread, some minutes
    python scripts/simulate_verdicts.py --measure runs/mnist_cnn/version_0/sanity/parameters/similarities.csv

The second tells what the deviations are in a finished check, step by step, as medians over its methods. Those that are
simulated are rounded from SSIM's of the CNN of configs/mnist_cnn.yaml.
"""

import argparse
import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_xai.results.sanity import MARGIN, Cell, CellKey
from lightning_xai.sanity.checks import NUM_SHIFTS
from lightning_xai.sanity.verdicts import randomization_verdict

FLOOR = 0.2
FLOOR_DEVIATION, PAIR_DEVIATION = 0.03, 0.06
"""Of the floor: between samples, and of two of them together."""
SAMPLE_DEVIATION = 0.05
"""Between samples under changed networks."""
BOTH_DEVIATION = 0.06
"""Of a network and a sample together."""
SHAPE = 16.0
"""Of the gamma distribution of a sample's effect, whose skewness is 2 / √16 = 0.5."""
DIFFERENCES = (0.0, 0.5, 1.0, 2.0)
OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE")


@dataclass(frozen=True)
class Setting:
    """What is simulated; differences in units of the margin."""

    difference: float
    num_networks: int
    num_samples: int
    network_deviation: float
    both_steps: bool = True

    def differences(self) -> tuple[float, float]:
        """Of the two steps."""
        return (self.difference if self.both_steps else 0.0, self.difference)


def skewed(generator: np.random.Generator, size: int | tuple[int, ...]) -> np.ndarray:
    """Of mean 0 and variance 1."""
    return (generator.gamma(SHAPE, size=size) - SHAPE) / np.sqrt(SHAPE)


def floor_scores(generator: np.random.Generator, num_samples: int) -> np.ndarray:
    """Of each sample its mean with the samples before and behind it."""
    effect = FLOOR_DEVIATION * skewed(generator, num_samples)
    parts = []
    for shift in range(1, min(NUM_SHIFTS, num_samples - 1) + 1):
        pair = FLOOR + effect + np.roll(effect, shift) + PAIR_DEVIATION * generator.normal(size=num_samples)
        parts += [pair, np.roll(pair, -shift)]
    return np.mean(parts, axis=0)


def cells(setting: Setting, generator: np.random.Generator) -> Iterator[Cell]:
    """Of a method, under one simulated check."""
    yield Cell(CellKey("floor", "different_images", 0, "", 0, "m"), {"s": floor_scores(generator, setting.num_samples)})
    for step, difference in enumerate(setting.differences()):
        samples = SAMPLE_DEVIATION * skewed(generator, setting.num_samples)
        for network in range(setting.num_networks):
            scores = FLOOR + difference * MARGIN * (1 - FLOOR) + samples
            scores = scores + setting.network_deviation * generator.normal()
            scores = scores + BOTH_DEVIATION * generator.normal(size=setting.num_samples)
            yield Cell(CellKey("parameters", "cascading_from_top", step, "", network, "m"), {"s": scores})


def rates(setting: Setting, repetitions: int, seed: int) -> dict[str, float]:
    """How often each outcome comes."""
    generator = np.random.default_rng(seed)
    found = [
        randomization_verdict("parameters", "m", list(cells(setting, generator)), "s").outcome
        for _ in range(repetitions)
    ]
    return {outcome: found.count(outcome) / repetitions for outcome in OUTCOMES}


def table(repetitions: int, seed: int) -> Iterator[str]:
    """The Markdown table, line by line."""
    yield (
        f"PASS / FAIL in %, of {repetitions} checks each (± {100 * 2 * np.sqrt(0.05 * 0.95 / repetitions):.1f}"
        f" at 5 %), seed {seed}; the rest is INCONCLUSIVE. Floor {FLOOR}, δ = {MARGIN * (1 - FLOOR):.3f}; deviation "
        f"between samples {SAMPLE_DEVIATION}, of a network and a sample together {BOTH_DEVIATION}, of the floor "
        f"{FLOOR_DEVIATION} between samples and {PAIR_DEVIATION} of two together."
    )
    yield ""
    columns = ["both at 0", "both at δ/2", "both at δ", "both at 2δ", "one at δ, one at 0"]
    yield f"| networks | samples | deviation between networks | {' | '.join(columns)} |"
    yield "| ---: " * (3 + len(columns)) + "|"
    for deviation, networks, samples in itertools.product((0.01, 0.03), (3, 8, 16), (16, 64)):
        settings = [Setting(difference, networks, samples, deviation) for difference in DIFFERENCES]
        settings.append(Setting(1.0, networks, samples, deviation, both_steps=False))
        found = [rates(setting, repetitions, seed) for setting in settings]
        shown = [f"{100 * one['PASS']:.1f} / {100 * one['FAIL']:.1f}" for one in found]
        yield f"| {networks} | {samples} | {deviation} | {' | '.join(shown)} |"


def measured(path: Path, similarity: str) -> Iterator[str]:
    """Deviations in a check's similarities.csv: a line for each step, medians over the methods that are no controls."""
    grids: dict[tuple[int, str, str], dict[tuple[int, int], float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["similarity"] == similarity and row["check"] == "parameters" and row["method"] not in CONTROLS:
                place = int(row["step"]), row["block"], row["method"]
                grids.setdefault(place, {})[int(row["repeat"]), int(row["sample"])] = float(row["value"])
    yield "step: between networks, between samples, of both together, skewness between samples"
    for step, block in sorted({place[:2] for place in grids}):
        found = [effects(grid) for place, grid in grids.items() if place[:2] == (step, block)]
        found = [one for one in found if np.isfinite(one).all()]
        yield f"{step} {block}: " + ", ".join(f"{value:.3f}" for value in np.median(found, axis=0))


CONTROLS = ("random", "edges")


def effects(grid: dict[tuple[int, int], float]) -> list[float]:
    """Deviations of a two-way table without undefined rows, by the method of moments, and the samples' skewness."""
    rows, columns = (sorted({place[axis] for place in grid}) for axis in (0, 1))
    values = np.array([[grid[row, column] for column in columns] for row in rows])
    values = values[:, np.isfinite(values).all(0)]
    networks, samples = values.mean(1), values.mean(0)
    both = values - networks[:, None] - samples + values.mean()
    both_variance = (both**2).sum() / (values.shape[0] - 1) / (values.shape[1] - 1)
    network_variance = networks.var(ddof=1) - both_variance / values.shape[1]
    sample_variance = samples.var(ddof=1) - both_variance / values.shape[0]
    skewness = ((samples - samples.mean()) ** 3).mean() / samples.std() ** 3
    return [*np.sqrt(np.maximum([network_variance, sample_variance, both_variance], 0)), skewness]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", type=Path, metavar="FILE", help="similarities.csv of a finished check")
    parser.add_argument("--similarity", default="ssim", help="with --measure")
    options = parser.parse_args(arguments)
    if options.repetitions < 1:
        parser.error(f"--repetitions must be at least 1, got {options.repetitions}")
    lines = (
        table(options.repetitions, options.seed)
        if options.measure is None
        else measured(options.measure, options.similarity)
    )
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
