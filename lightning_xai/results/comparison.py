"""A comparison of methods, as records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_xai.results.tables import Printed, ResultTable, from_above

CONTROLS = ("random", "edges", "untrained")
"""Names of the methods that know nothing of what the network learnt."""


@dataclass(frozen=True)
class MethodResult:
    """What a comparison finds about one method in one metric; NaN where a number is not defined."""

    method: str
    num_undefined: int
    """Common samples without a defined score of this method; they are left out for all methods."""
    mean: float
    standard_deviation: float
    low: float
    """Lower end of the confidence interval of the mean."""
    high: float
    rank: int | None
    """Of the mean, 1 for the best; means that are equal but for rounding share the least rank. None without a direction
    or a mean, and for the controls."""
    effect_size: float
    """Matched-pairs rank-biserial correlation with the best method, in [-1, 1]; negative: worse than it."""
    p_value: float
    """Wilcoxon signed-rank test against the best method."""
    p_holm: float
    """The same after Holm's correction, over the family that `Comparison.procedure` names."""
    is_best: bool
    """Best, or not significantly worse than the best."""
    values: Sequence[float] = field(repr=False)
    """The scores that these numbers are made from, of `MetricComparison.samples`; empty without any defined score."""
    difference: float = math.nan
    """Mean difference from the best method, in the metric's unit; negative: worse than it."""
    difference_low: float = math.nan
    """Lower end of its confidence interval."""
    difference_high: float = math.nan
    smallest_effect: float = math.nan
    """The smallest difference of interest."""
    is_negligible: bool = False
    """Significantly different from the best, but by less than the smallest effect, as far as the interval reaches."""


@dataclass(frozen=True)
class MetricComparison:
    """The methods in one metric."""

    metric: str
    higher_is_better: bool | None
    """None if no direction is known: then there is no best method, and no test."""
    num_common: int
    """Samples of which all methods have a score, defined or not."""
    samples: Sequence[int] = field(repr=False)
    """Those of which all methods have a defined score: from these, all numbers are made."""
    methods: tuple[MethodResult, ...]
    targets: Sequence[int] = field(default=(), repr=False)
    """The class explained of each of these, where any sample has several: each then counts as a sample."""
    metric_class: str = field(default="", kw_only=True)
    """What made the scores, with its package; empty where that is not recorded."""

    @property
    def num_samples(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Agreement:
    """Whether two metrics agree on which methods are better."""

    metrics: tuple[str, str]
    tau: float
    """Kendall's tau-b of the two orders of the methods, mean over samples: 1 if the same, -1 if one is the reverse."""
    standard_error: float
    """NaN for a single sample."""
    num_samples: int
    """Samples with a tau: both metrics are defined, and neither finds all methods equal."""
    num_methods: int


@dataclass(frozen=True)
class ComparedRun:
    """Where scores come from, and of how many samples there are some."""

    name: str
    stage: str
    epoch: int
    step: int
    num_samples: int
    not_scored: tuple[str, ...] = ()
    """Methods and metrics that only other evaluations of the stage have scores of."""


@dataclass(frozen=True, repr=False)
class Comparison(Printed):
    """All metrics, and how the statistics were made; it prints as the tables of `lightning-xai compare`."""

    runs: tuple[ComparedRun, ...]
    metrics: tuple[MetricComparison, ...]
    alpha: float
    """Level of the tests; the intervals have the confidence 1 - alpha."""
    num_resamples: int
    """Of the bootstrap."""
    seed: int
    controls: tuple[str, ...] = ()
    """Methods that know nothing of what the network learnt."""
    gradients: Mapping[str, float] = field(default_factory=dict)
    """What each method spends on a sample, on average; NaN if unknown. Empty if it is unknown of all."""
    matched_gradients: int | None = None
    """What a method had to spend to be compared; None if all are."""
    left_out: Mapping[str, float] = field(default_factory=dict)
    """What the methods spend that are not compared for it."""
    agreements: tuple[Agreement, ...] = ()
    """Of each pair of metrics with a direction, unless they have less than three methods or no sample in common."""
    procedure: str = "all_pairs"
    """Which tests of a metric are one family: "all_pairs", or "published" for those against the best alone."""

    @property
    def methods(self) -> tuple[str, ...]:
        """All that occur in some metric."""
        return tuple(dict.fromkeys(result.method for metric in self.metrics for result in metric.methods))

    def is_tested(self, metric: MetricComparison) -> bool:
        """Whether a metric has enough samples for its corrected tests to show any difference at all."""
        methods = sum(len(result.values) > 0 for result in metric.methods)
        tests = methods * (methods - 1) // 2 if self.procedure == "all_pairs" else methods - 1
        return self.is_enough(metric.num_samples, tests)

    def is_enough(self, num_samples: int, num_tests: int) -> bool:
        """Whether the least p-value of Wilcoxon's test, all differences of one sign, passes Holm's first step."""
        return num_tests * 2.0 ** (1 - num_samples) <= self.alpha

    def marked(self, metric: MetricComparison) -> frozenset[str]:
        """The methods that tables and figures mark in a metric: the best, and those not significantly worse.

        None where that would say nothing: of too few samples for a test, and where all that have a rank are equal.
        """
        ranks = [result.rank for result in metric.methods if result.rank is not None]
        if not self.is_tested(metric) or (len(ranks) > 1 and set(ranks) == {1}):
            return frozenset()
        return frozenset(result.method for result in metric.methods if result.is_best)

    def _parts(self) -> list[ResultTable | str]:
        tables, notes = (from_above(f"reporting.comparison:comparison_{part}")(self) for part in ("tables", "notes"))
        return [*tables, *notes]
