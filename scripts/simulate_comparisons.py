"""How often `compare` calls a method worse that is not, and how often one that is: simulated scores of known methods.

Every family of methods is compared by both procedures: all pairs (the default) and the published one, which tests the
best against each. Scores are a difficulty of the sample and noise of the method, both normal; tied ones are those on a
grid of tenths in single precision, as metrics that count write them. In equal families all methods are the same. In
unequal ones every second method is, and the others are worse by what a single test at 5 % finds in 80 % of the cases.

    python scripts/simulate_comparisons.py > table.md          # one thread, a few minutes

With `--intervals`, how often the intervals of a mean miss it: the bootstrap's (BCa) and its analytic form (ABC), which
is what `compare` computes of many samples.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lightning_xai.statistics.intervals import MOST_RESAMPLED, _analytic, _resampled
from lightning_xai.statistics.paired import EQUAL, holm, paired_tests

PROCEDURES = ("all_pairs", "published")
NOISE = 0.5
ALPHA = 0.05


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    num_methods: int
    num_samples: int
    equal: bool
    tied: bool

    def worse(self) -> np.ndarray:
        """Which methods are."""
        return np.zeros(self.num_methods, dtype=bool) if self.equal else np.arange(self.num_methods) % 2 == 1

    def effect(self) -> float:
        """Of a t test the non-centrality is the sum of two quantiles; of Wilcoxon's it is √(3 / π) times that."""
        noncentrality = stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(0.8)
        return float(noncentrality * np.sqrt(np.pi / 3) * NOISE * np.sqrt(2 / self.num_samples))


def scores(setting: Setting, repetitions: int, generator: np.random.Generator) -> np.ndarray:
    """Of each method, repetition and sample; higher is better."""
    shape = repetitions, setting.num_samples
    difficulty = generator.normal(size=shape)
    values = difficulty + NOISE * generator.normal(size=(setting.num_methods, *shape))
    values -= setting.effect() * setting.worse()[:, None, None]
    if setting.tied:
        values = (np.round(10 * stats.norm.cdf(values)) / 10).astype(np.float32).astype(np.float64)
    return values


def called_worse(values: np.ndarray, alpha: float = ALPHA) -> dict[str, np.ndarray]:
    """By procedure, for each method and repetition, whether it is significantly worse than the best.

    As `compare_methods` decides, for all repetitions at once.
    """
    num_methods, repetitions, _ = values.shape
    means = values.mean(-1)
    best = (means >= means.max(0) - EQUAL * np.abs(values).max((0, 2))).argmax(0)
    pairs = list(itertools.combinations(range(num_methods), 2))
    tests = np.array([paired_tests(values[one], values[other]) for one, other in pairs])
    p_values, correlations = tests[:, 0], tests[:, 1]
    found = {procedure: np.zeros((num_methods, repetitions), dtype=bool) for procedure in PROCEDURES}
    for repetition in range(repetitions):
        against = [place for place, pair in enumerate(pairs) if best[repetition] in pair]
        for procedure, family in (("all_pairs", np.arange(len(pairs))), ("published", np.array(against))):
            significant = np.zeros(len(pairs), dtype=bool)
            significant[family] = holm(p_values[family, repetition]) <= alpha
            for place in against:
                first, second = pairs[place]
                other, sign = (second, 1) if first == best[repetition] else (first, -1)
                worse = significant[place] and sign * correlations[place, repetition] > 0
                found[procedure][other, repetition] = worse
    return found


def rates(setting: Setting, repetitions: int, seed: int) -> Iterator[tuple[float, float]]:
    """For each procedure, the share of families with a false "worse", and of the worse methods that are found."""
    key = setting.num_methods, setting.num_samples, setting.equal, setting.tied
    generator = np.random.default_rng([seed, *map(int, key)])
    worse = setting.worse()
    for found in called_worse(scores(setting, repetitions, generator)).values():
        yield float(found[~worse].any(0).mean()), float(found[worse].mean()) if worse.any() else np.nan


def table(methods: Sequence[int], samples: Sequence[int], repetitions: int, seed: int) -> Iterator[str]:
    """In Markdown, line by line."""
    yield (
        'False "worse": families in which a method as good as the best is called worse, in % '
        f"(± {196 * np.sqrt(ALPHA * (1 - ALPHA) / repetitions):.1f} at 5 %). Power: worse methods found, in %. "
        f"{repetitions} repetitions, seed {seed}, level {ALPHA}."
    )
    yield ""
    yield "| methods | samples | scores | false, equal | published | false, unequal | published | power | published |"
    yield "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for num_methods, num_samples, tied in itertools.product(methods, samples, (False, True)):
        (equal, equal_published), (unequal, unequal_published) = (
            tuple(rates(Setting(num_methods, num_samples, same, tied), repetitions, seed)) for same in (True, False)
        )
        numbers = [equal[0], equal_published[0], unequal[0], unequal_published[0], unequal[1], unequal_published[1]]
        cells = [str(num_methods), str(num_samples), "tied" if tied else "continuous"]
        yield f"| {' | '.join([*cells, *(f'{100 * number:.1f}' for number in numbers)])} |"


Draw = Callable[[np.random.Generator, int], np.ndarray]
SHAPES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda generator, size: generator.normal(size=size), 0.0),
    "gamma (1/2)": (lambda generator, size: generator.gamma(0.5, size=size), 0.5),
    "lognormal": (lambda generator, size: generator.lognormal(size=size), float(np.exp(0.5))),
    "one in ten": (lambda generator, size: (generator.random(size) < 0.1).astype(float), 0.1),
}
"""How scores may be distributed, and the mean."""


def misses(shape: str, size: int, repetitions: int, seed: int) -> dict[str, np.ndarray]:
    """The share of intervals at 95 % that lie wholly below the true mean, and above it, by kind; from the same scores.

    The standard interval is that of Student's t.
    """
    draw, mean = SHAPES[shape]
    levels = np.array([ALPHA / 2, 1 - ALPHA / 2])
    generator = np.random.default_rng([seed, size])
    found: dict[str, list[tuple[bool, bool]]] = {"BCa": [], "ABC": [], "standard": []}
    for repetition in range(repetitions):
        values = draw(generator, size)
        if np.ptp(values) == 0:
            continue
        error = stats.t.ppf(levels, size - 1) * values.std(ddof=1) / np.sqrt(size)
        ends = _resampled(values, stats.norm.ppf(levels), repetition), _analytic(values, stats.norm.ppf(levels))
        for own, (low, high) in zip(found.values(), (*ends, values.mean() + error), strict=True):
            own.append((high < mean, low > mean))
    return {kind: np.mean(own, 0) for kind, own in found.items()}


def interval_table(sizes: Sequence[int], repetitions: int, seed: int) -> Iterator[str]:
    """In Markdown, line by line."""
    yield (
        "Intervals at 95 % that lie below the true mean + above it, in % "
        f"(± {196 * np.sqrt(0.025 * 0.975 / repetitions):.1f} at 2.5 %); {repetitions} repetitions, seed {seed}."
    )
    yield ""
    yield "| scores | samples | BCa | ABC | standard |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for shape, size in itertools.product(SHAPES, sizes):
        cells = (
            f"{100 * below:.1f} + {100 * above:.1f}" for below, above in misses(shape, size, repetitions, seed).values()
        )
        yield f"| {shape} | {size} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="20 repetitions of the smallest families.")
    parser.add_argument("--intervals", action="store_true", help="How often intervals miss the mean, instead of tests.")
    options = parser.parse_args(arguments)
    repetitions = 20 if options.quick else options.repetitions
    sizes = ((2, 4), (20,)) if options.quick else ((2, 4, 8, 15), (20, 64, 256))
    intervals = (20,) if options.quick else (64, 400, MOST_RESAMPLED)
    lines = interval_table(intervals, repetitions, options.seed) if options.intervals else None
    for line in lines or table(*sizes, repetitions, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
