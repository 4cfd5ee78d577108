"""Where the marks of the page's charts are: plain numbers, which the template draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_xai.reporting.page.metrics import about
from lightning_xai.reporting.page.numbers import written
from lightning_xai.reporting.page.sentences import compared_samples, explained, labelled
from lightning_xai.results.comparison import Comparison, MetricComparison
from lightning_xai.results.findings import FoundRun
from lightning_xai.results.scores import Scores
from lightning_xai.statistics.intervals import share_interval
from lightning_xai.statistics.means import mean


@dataclass(frozen=True)
class Axis:
    """From value to place: `low` is at 0, `high` at 100."""

    low: float
    high: float
    percent: bool = False

    def __call__(self, value: float | int) -> float:
        """A share of the length in percent, inside of it."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 3)

    def ticks(self, most: int = 4) -> list[tuple[float, str]]:
        """Places and texts of round values."""
        step = _round_step((self.high - self.low) / most)
        values = np.arange(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1) * step
        digits = max(0, -math.floor(math.log10(step) + 1e-9)) + (
            round(step / 10 ** math.floor(math.log10(step)), 1) == 2.5
        )
        unit = " %" if self.percent else ""
        return [(self(value), written(float(value), digits, self.percent) + unit) for value in values]


def _round_step(least: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, not less than this."""
    power = 10 ** math.floor(math.log10(least))
    return float(next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= least * (1 - 1e-9)))


def axis_of(values: Sequence[float], percent: bool, margin: float = 0.04) -> Axis:
    """That shows all defined values, with room at both ends."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    room = margin * (high - low) or max(abs(high), 1.0) * 0.1
    return Axis(0.0 if low == high == 0 else low - room, high + room, percent)


def metric_axis(comparison: Comparison, metric: MetricComparison) -> Axis:
    """From chance and the controls, or what is below them, to the best possible score where there is one."""
    known = about(metric)
    values = [value for r in metric.methods for value in (r.mean, r.low, r.high)]
    values += [math.nan if level is None else level for level in (known.level, known.limit)]
    values += [0.0] * (metric.higher_is_better is False)
    return axis_of(values, known.percent)


@dataclass(frozen=True)
class Distributions:
    """The scores of the samples: an axis, and by method the points of an outline in a box of 100 x 20."""

    axis: Axis
    outlines: dict[str, str]


def distributions_of(metric: MetricComparison, bins: int = 40) -> Distributions:
    """Histograms, each as high as its box."""
    axis = axis_of([value for result in metric.methods for value in result.values], about(metric).percent)
    outlines = {}
    for result in metric.methods:
        counts, _ = np.histogram(result.values, bins, (axis.low, axis.high))
        heights = np.repeat(20 - 18 * counts / max(1, counts.max()), 2)
        edges = np.repeat(np.linspace(0, 100, bins + 1), 2)[1:-1]
        outlines[result.method] = " ".join(f"{x:g},{y:.1f}" for x, y in zip(edges, heights, strict=True))
    return Distributions(axis, outlines)


@dataclass(frozen=True)
class Curve:
    """A method over the validations: places of its points, and where its name stands."""

    method: str
    means: tuple[float, ...]
    points: tuple[tuple[float, float], ...]
    label: float


@dataclass(frozen=True)
class Curves:
    """A metric over the validations."""

    metric: str
    higher_is_better: bool | None
    epochs: tuple[int, ...]
    steps: tuple[int, ...]
    abscissa: tuple[tuple[float, str], ...]
    ordinate: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]
    marks: tuple[tuple[float, str], ...] = ()
    """Checkpoints: place and name."""


def curves_of(
    history: Scores,
    metric: MetricComparison | str,
    higher_is_better: bool | None,
    checkpoints: Mapping[int, str],
    room: float = 7.5,
) -> Curves | None:
    """Means over the defined samples; None if no method has two of them, at different steps.

    Args:
        history: Of several validations of one run.
        metric: Which one.
        higher_is_better: Its direction.
        checkpoints: Names by step.
        room: Between two names, in percent of the height.
    """
    name = metric if isinstance(metric, str) else metric.metric
    table = history.select(metric=name).table
    when = sorted(set(zip(table["epoch"].tolist(), table["step"].tolist(), strict=True)), key=lambda at: at[::-1])
    groups = table.groupby(["method", "epoch", "step"], observed=True)["value"]
    grouped = {key: own.to_numpy() for key, own in groups}
    methods = list(dict.fromkeys(table["method"].tolist()))
    means = {m: tuple(mean(grouped.get((m, *at), np.empty(0))) for at in when) for m in methods}
    means = {method: own for method, own in means.items() if sum(map(math.isfinite, own)) > 1}
    if not means or when[0][1] == when[-1][1]:
        return None
    percent = about(metric).percent
    across, down = (
        Axis(float(when[0][1]), float(when[-1][1])),
        axis_of([v for own in means.values() for v in own], percent),
    )
    curves = []
    for method, own in means.items():
        pairs = zip(when, own, strict=True)
        points = tuple((across(step), 100 - down(value)) for (_, step), value in pairs if math.isfinite(value))
        curves.append(Curve(method, own, points, points[-1][1]))
    every = max(1, math.ceil(len(when) / 6))
    shown = [(across(step), str(epoch)) for epoch, step in when[::every]]
    marks = tuple((across(step), name) for step, name in checkpoints.items() if when[0][1] <= step <= when[-1][1])
    epochs, steps = zip(*when, strict=True)
    ordinate = tuple((100 - place, text) for place, text in down.ticks())
    return Curves(name, higher_is_better, epochs, steps, tuple(shown), ordinate, tuple(_apart(curves, room)), marks)


def _apart(curves: Sequence[Curve], room: float) -> list[Curve]:
    """With labels that do not cover each other: each is moved down as far as it must, then all up if need be."""
    ordered = sorted(curves, key=lambda curve: curve.label)
    places: list[float] = []
    for curve in ordered:
        places.append(max(curve.label, places[-1] + room) if places else curve.label)
    for place in reversed(range(len(places))):
        most = 100.0 if place == len(places) - 1 else places[place + 1] - room
        places[place] = min(places[place], most)
    return [replace(curve, label=place) for curve, place in zip(ordered, places, strict=True)]


def accuracy_history(run: FoundRun) -> Scores:
    """Whether the network is right on each sample, at each validation that recorded it."""
    known = len(run.samples) and labelled(run)
    table = run.samples[run.samples["stage"] == "validate"] if known else run.samples[:0]
    right = (float(row.target == row.predicted) for row in table.itertuples())
    rows = zip(table.itertuples(), right, strict=True)
    return Scores.from_rows((r.stage, r.epoch, r.step, "network", "accuracy", r.sample, value) for r, value in rows)


@dataclass(frozen=True)
class Scatter:
    """Validations in two metrics: places and texts; those on the front in order of the first metric."""

    names: tuple[str, str]
    points: tuple[tuple[float, float, str, bool], ...]
    abscissa: tuple[tuple[float, str], ...]
    ordinate: tuple[tuple[float, str], ...]


def scatter_of(run: FoundRun) -> Scatter | None:
    """The first two metrics of the run's Pareto front; None without any."""
    known = [v for v in run.validations if all(map(math.isfinite, v.values[:2]))]
    if len(known) < 2:
        return None
    x, y = run.monitored[:2]
    axes = [axis_of([v.values[place] for v in known], False, 0.08) for place in (0, 1)]
    points = sorted((axes[0](v.values[0]), 100 - axes[1](v.values[1]), f"{v.epoch}", v.on_front) for v in known)
    ordinate = tuple((100 - place, text) for place, text in axes[1].ticks())
    return Scatter((x, y), tuple(points), tuple(axes[0].ticks()), ordinate)


@dataclass(frozen=True)
class Confidence:
    """Samples whose predicted class has a probability within one tenth.

    Attributes:
        num_samples: Their number.
        probability: Mean of it.
        right: Share that the network is right on.
        low: Lower end of its interval of 95 % (Wilson).
        high: Upper end.
    """

    num_samples: int
    probability: float
    right: float
    low: float
    high: float


def calibration_of(run: FoundRun) -> list[Confidence]:
    """Of the evaluation that is compared, the tenths that have samples, in order.

    None where no probability is recorded, where other classes than the labels are explained, nor, where that is not
    recorded, if no sample is wrong.
    """
    known = compared_samples(run)
    known = known[known["probability"].notna()] if len(known) else known
    unsure = not explained(run) and len(known) and (known["target"] == known["predicted"]).all()
    if not len(known) or unsure or not labelled(run):
        return []
    tenth = np.minimum((10 * known["probability"]).astype(int), 9)
    found = []
    for _, own in known.groupby(tenth):
        right = int((own["target"] == own["predicted"]).sum())
        ends = share_interval(right, len(own))
        found.append(Confidence(len(own), float(own["probability"].mean()), right / len(own), *ends))
    return found
