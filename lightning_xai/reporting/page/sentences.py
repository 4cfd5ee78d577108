"""The answer: three to five sentences that follow from the tests."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from lightning_xai.reporting.page.metrics import about
from lightning_xai.reporting.page.numbers import Number, Part, count, decimals, error, listed, mean_parts, written
from lightning_xai.reporting.page.shortcuts import answers
from lightning_xai.results.comparison import Comparison, MethodResult, MetricComparison
from lightning_xai.results.findings import Findings, FoundRun
from lightning_xai.statistics.intervals import share_interval
from lightning_xai.statistics.paired import EQUAL, paired_test

CONTROLS = {
    "edges": "an edge detector that never sees the network",
    "random": "random maps",
    "untrained": "the first method on an untrained network",
}
MOST = 2
"""Metrics in which a control is told with its numbers."""
_GOOD, _BAD, _PLAIN = "good", "bad", "plain"


@dataclass(frozen=True)
class Sentence:
    """One or two sentences of the answer.

    Attributes:
        kind: What is answered: `best`, `ties`, `control`, `shortcuts`, `sanity`, `accuracy`, `limits`.
        parts: Texts and numbers.
        link: The place on the page where it follows from.
        tone: `good`, `bad` or `plain`.
    """

    kind: str
    parts: tuple[Part, ...]
    link: str
    tone: str = _PLAIN


def sentences(findings: Findings) -> list[Sentence]:
    """What was found, in the order in which a reader asks for it."""
    limits = Sentence("limits", tuple(_limits(findings)), "provenance")
    shortcuts = [Sentence("shortcuts", parts, "shortcuts", tone) for parts, tone in answers(findings)]
    return [*conclusion(findings), *shortcuts, _checks(findings), limits]


def conclusion(findings: Findings) -> list[Sentence]:
    """What the comparison alone says: the best method, what is as good, and whether a control is."""
    comparison = findings.comparison
    metric = leading(comparison)
    found: list[Sentence] = []
    if metric is None:
        found.append(
            Sentence("best", ("No method has a defined score in a metric with a direction.",), "metrics", _BAD)
        )
    else:
        link = anchor(comparison, metric)
        found.append(Sentence("best", tuple(_best(comparison, metric)), link))
        if runs := tuple(_runs(findings, metric)):
            found.append(Sentence("runs", runs, "runs"))
        elif not findings.pairs and (ties := _ties(comparison, metric)):
            found.append(Sentence("ties", tuple(ties), link))
        found.append(_control(comparison, metric))
    return found


def leading(comparison: Comparison) -> MetricComparison | None:
    """The metric that the answer is about: of the evidence, or else faithfulness, or else the first one.

    Of several runs, one in which a method of the first run is in another one too, where there is any.
    """
    known = [metric for metric in comparison.metrics if best_of(metric) is not None]
    known = [metric for metric in known if _is_in_several(comparison, metric)] or known
    groups = ["evidence", "faithfulness"]
    for group in groups:
        if found := [metric for metric in known if about(metric).group == group]:
            order = ("relevance_rank_accuracy", "auroc")
            return min(found, key=lambda m: order.index(m.metric) if m.metric in order else len(order))
    return known[0] if known else None


def _is_in_several(comparison: Comparison, metric: MetricComparison) -> bool:
    names = [r.method for r in metric.methods if r.method not in comparison.controls and not math.isnan(r.mean)]
    first = {plain(name) for name in names if _run_of(name) == comparison.runs[0].name}
    return any(plain(name) in first for name in names if _run_of(name) != comparison.runs[0].name)


def best_of(metric: MetricComparison) -> MethodResult | None:
    """The method that the others are tested against."""
    first = [result for result in metric.methods if result.is_best and math.isnan(result.difference)]
    return first[0] if first else None


def anchor(comparison: Comparison, metric: MetricComparison) -> str:
    """The name of the metric's place on the page."""
    return f"metric-{comparison.metrics.index(metric)}"


@dataclass(frozen=True)
class Floor:
    """What a method must be better than: a control, or a known level.

    Attributes:
        name: Of the control, or `chance`.
        mean: Its score.
        control: None for chance.
    """

    name: str
    mean: float
    control: MethodResult | None = None


def floor(comparison: Comparison, metric: MetricComparison, result: MethodResult) -> Floor | None:
    """The best of the controls of the method's run, or chance where that is better; None where neither is known."""
    known, run = about(metric), _run_of(result.method)
    if not known.has_floor or metric.higher_is_better is None or result.method in comparison.controls:
        return None
    found = [
        Floor(plain(r.method), r.mean, r)
        for r in metric.methods
        if r.method in comparison.controls and _run_of(r.method) == run and not math.isnan(r.mean)
    ]
    found += [] if known.level is None else [Floor("chance", known.level)]
    return max(found, key=lambda one: one.mean if metric.higher_is_better else -one.mean, default=None)


def is_below_floor(comparison: Comparison, metric: MetricComparison, result: MethodResult) -> bool:
    """Whether a method is not shown to be better than its floor (Wilcoxon, paired by sample).

    Of too few samples for that test, whether its mean is not better.
    """
    level = floor(comparison, metric, result)
    if level is None or math.isnan(result.mean):
        return False
    of_family = result is best_of(metric) and level.control is not None
    if not (comparison.is_tested(metric) if of_family else comparison.is_enough(metric.num_samples, 1)):
        return not _is_above(metric, result, level)
    if of_family:
        assert level.control is not None  # for mypy
        return not is_worse(comparison, level.control)  # the test that the sentences are of
    others = np.full(metric.num_samples, level.mean) if level.control is None else np.asarray(level.control.values)
    p_value, effect = paired_test(np.asarray(result.values), others, metric.higher_is_better)
    return not (p_value <= comparison.alpha and effect > 0)


def _is_above(metric: MetricComparison, result: MethodResult, level: Floor) -> bool:
    """Whether its mean is the better one."""
    return result.mean > level.mean if metric.higher_is_better else result.mean < level.mean


def _run_of(method: str) -> str:
    """The name of the run before that of the method; empty where there is one run."""
    return method.rpartition(":")[0]


def plain(method: str) -> str:
    """The name without that of the run."""
    return method.rpartition(":")[2]


def is_worse(comparison: Comparison, result: MethodResult) -> bool:
    """Whether the tests say that it is worse than the best method."""
    return result.p_holm <= comparison.alpha and result.effect_size < 0


def is_better(comparison: Comparison, result: MethodResult) -> bool:
    """Whether they say that it is better, which only a control can be."""
    return result.p_holm <= comparison.alpha and result.effect_size > 0


def _best(comparison: Comparison, metric: MetricComparison) -> Iterator[Part]:
    best, known = best_of(metric), about(metric)
    assert best is not None  # for mypy: `leading` takes only metrics that have one
    controls = _distinct(r for r in metric.methods if r.method in comparison.controls and not math.isnan(r.mean))
    others = [r for r in metric.methods if r is not best and r.rank is not None]
    pointing = known.group == "evidence"
    evidence = " in pointing at the evidence" * pointing
    if is_below_floor(comparison, metric, best) and (level := floor(comparison, metric, best)):
        name = f"the control {level.name}" if level.control else level.name
        shown = "shown to be " * _is_above(metric, best, level)
        yield f"No method is {shown}above {name}{evidence}; the first is {best.method}: "
    elif not others and not controls:
        yield f"{best.method} is the only method: "
    elif not comparison.is_tested(metric):
        yield f"{best.method} comes first{evidence}: "
    elif others and not any(is_worse(comparison, result) for result in others):
        yield f"No method stands out{evidence}; the first is {best.method}: "
    else:
        yield f"{best.method} {'points best at the evidence' if pointing else 'is the best'}: "
    yield f"{known.title} "
    yield from mean_parts(metric, best)
    yield from (" (", *_samples(metric))
    if metric.num_samples < metric.num_common:
        yield from (
            " of ",
            count(metric.num_common, "num_common", metric.metric),
            ", the others undefined for a method",
        )
    yield f", {100 * (1 - comparison.alpha):g} % interval)" if not math.isnan(best.low) else ")"
    if controls:
        yield "; "
        for place, (phrase, result) in enumerate(controls):
            yield f"{', ' * bool(place)}{phrase} "
            yield from mean_parts(metric, result, decimals(error(best)))[:2]
    if metric.num_samples == 1:
        yield ". One sample allows neither an interval nor a test"
    yield "."


def _samples(metric: MetricComparison) -> tuple[Part, Part]:
    return count(metric.num_samples, "n", metric.metric), f" sample{'s' * (metric.num_samples != 1)}"


def _distinct(controls: Iterable[MethodResult]) -> list[tuple[str, MethodResult]]:
    """In words, the greatest mean first; those of several runs once where they are equal."""
    found: dict[tuple[str, float], MethodResult] = {}
    for result in sorted(controls, key=lambda r: -r.mean):
        found.setdefault((plain(result.method), result.mean), result)
    names = [name for name, _ in found]
    return [
        (CONTROLS.get(name, name) + f" ({result.method.rpartition(':')[0]})" * (names.count(name) > 1), result)
        for (name, _), result in found.items()
    ]


def _ties(comparison: Comparison, metric: MetricComparison) -> list[Part]:
    best = best_of(metric)
    others = [r for r in metric.methods if r is not best and r.rank is not None]
    equal = [result.method for result in others if not is_worse(comparison, result)]
    worse = [result for result in others if is_worse(comparison, result)]
    test = f"(Wilcoxon, Holm-corrected, level {comparison.alpha:g})"
    if not others or metric.num_samples == 1:
        return []
    if not comparison.is_tested(metric):
        return [*_samples(metric), f" are too few for a test {test}: whether the others are worse is open."]
    if not worse:
        return [f"{listed(equal)} cannot be told from it {test}."]
    least = max(worse, key=lambda result: result.difference)
    names = listed(result.method for result in worse)
    if not equal:
        return ["All others are worse, by at least ", *_difference(metric, least), f": {names} {test}."]
    verb = "is" if len(worse) == 1 else "are"
    words = f"{listed(equal)} cannot be told from it; {names} {verb} worse, by at least "
    return [words, *_difference(metric, least), f" {test}."]


def _runs(findings: Findings, metric: MetricComparison) -> Iterator[Part]:
    """What the same methods are in another run."""
    known, sign, alpha = about(metric), 1 if metric.higher_is_better else -1, findings.comparison.alpha
    own = [pair for pair in findings.pairs if pair.metric == metric.metric and pair.method not in CONTROLS]
    for place, runs in enumerate(dict.fromkeys(pair.runs for pair in own)):
        pairs = [pair for pair in own if pair.runs == runs]
        sure = [pair for pair in pairs if pair.p_holm <= alpha]
        better = sum(sign * pair.difference > 0 for pair in sure)
        far = max(pairs, key=lambda pair: abs(pair.difference))
        digits = decimals((far.high - far.low) / 4)
        numbers = [pair.num_samples for pair in pairs]
        tests = sum(pair.metric == metric.metric and pair.runs == runs for pair in findings.pairs)
        yield f"{' ' * bool(place)}Against {runs[0]}, {runs[1]} is better in "
        yield from (count(better, "pairs_better", metric.metric), ", worse in ")
        yield from (count(len(sure) - better, "pairs_worse", metric.metric), " of ")
        yield from (count(len(pairs), "pairs", metric.metric), f" methods ({known.title}, paired by ")
        yield from (count(min(numbers), "pairs_n", metric.metric), f" to {max(numbers)}" * (len(set(numbers)) > 1))
        few = ", too few for a test" * (not findings.comparison.is_enough(max(numbers), tests))
        yield f" sample{'s' * (max(numbers) > 1)}{few}); the largest difference is that of {far.method}, "
        for sep, value, of in (("", far.difference, "difference"), (" [", far.low, "low"), (", ", far.high, "high")):
            text = written(value, digits, known.percent, sign=of == "difference")
            yield from (sep, Number(text, value, f"pair_{of}", metric.metric, far.method))
        yield f"]{' points' * known.percent}."
    if not own:
        return
    own_numbers = [run.num_samples for run in findings.comparison.runs]
    if 2 * metric.num_common < min(own_numbers):
        yield from (" Only ", count(metric.num_common, "num_common", metric.metric), " samples are shared by the runs")
        yield f", of {listed(map(str, own_numbers))}: nothing here is of the others."


def _difference(metric: MetricComparison, result: MethodResult) -> Iterator[Part]:
    """How much worse, and its interval."""
    known, width = about(metric), result.difference_high - result.difference_low
    digits = decimals(width / 4 if width > EQUAL * abs(result.difference) else error(result))

    def number(value: float, of: str) -> Number:
        return Number(written(value, digits, known.percent), value, of, metric.metric, result.method)

    yield number(-result.difference, "worse_by")
    if not math.isnan(result.difference_low):
        ends = number(-result.difference_high, "worse_by_low"), number(-result.difference_low, "worse_by_high")
        yield from (" [", ends[0], ", ", ends[1], "]")
    yield " points" if known.percent else ""


def _control(comparison: Comparison, leading: MetricComparison) -> Sentence:
    """Whether a map that never saw the network does as well."""
    floored = [metric for metric in comparison.metrics if about(metric).has_floor and best_of(metric)]
    if not floored:
        words = "No metric of this run has a floor: whether a control is as good cannot be said."
        return Sentence("control", (words,), "metrics")
    floored.sort(key=lambda metric: metric is not leading)
    found: dict[_Standing, list[tuple[MetricComparison, MethodResult]]] = {standing: [] for standing in _STANDINGS}
    for metric in floored:
        if (control := _best_control(comparison, metric)) is not None:
            found[_standing(comparison, metric, control)].append((metric, control))
    told = [(standing, pairs) for standing, pairs in found.items() if pairs]
    if not told:
        words = "There are no controls: whether an edge detector or random maps would do as well is not known."
        return Sentence("control", (words,), "metrics", _BAD)
    if found["equal"]:
        told = [(standing, pairs) for standing, pairs in told if standing != "worse"]
    parts: list[Part] = []
    for standing, pairs in told:
        parts += [" " * bool(parts), *_told(comparison, standing, pairs)]
    tone = _GOOD if told[0][0] == "worse" and len(told) == 1 else _PLAIN if told[0][0] in ("worse", "few") else _BAD
    return Sentence("control", tuple(parts), anchor(comparison, told[0][1][0][0]), tone)


_Standing = Literal["equal", "unsure", "worse", "few"]
_STANDINGS: tuple[_Standing, ...] = get_args(_Standing)
"""Of the best control beside the best method: as good or better; not shown to be worse, though nothing says that it is
as good; worse; and of too few samples for a test."""


def _standing(comparison: Comparison, metric: MetricComparison, control: MethodResult) -> _Standing:
    if not comparison.is_tested(metric):
        return "few"
    if is_worse(comparison, control):
        return "worse"
    return "equal" if not (control.difference < 0 and control.difference_high < 0) else "unsure"


def _best_control(comparison: Comparison, metric: MetricComparison) -> MethodResult | None:
    """Of the run of the best method: another run is another network, or has other samples."""
    best = best_of(metric)
    assert best is not None  # for mypy: only metrics with one are asked about
    known = [r for r in metric.methods if r.method in comparison.controls and not math.isnan(r.mean)]
    known = [r for r in known if _run_of(r.method) == _run_of(best.method)]
    return max(known, key=lambda r: r.mean if metric.higher_is_better else -r.mean, default=None)


def _told(
    comparison: Comparison, standing: _Standing, pairs: Sequence[tuple[MetricComparison, MethodResult]]
) -> Iterator[Part]:
    """The sentence of the metrics in which a control stands so."""
    if standing == "worse":
        runs = {_run_of(control.method) for _, control in pairs}
        controls = [name for name in comparison.controls if _run_of(name) in runs]
        none = f"neither {listed(controls, 'nor')} reaches" if len(controls) > 1 else f"{controls[0]} does not reach"
        yield f"No control is as good: {none} it, in {listed(about(metric).title for metric, _ in pairs)}."
        return
    if standing == "equal":
        yield f"A control is {'better' if is_better(comparison, pairs[0][1]) else 'as good'}: "
    elif standing == "unsure":
        yield "The best method is not shown to be above a control: "
    else:
        yield "Whether a control is as good is open, the samples being too few for a test: "
    for place, (metric, result) in enumerate(pairs[:MOST]):
        yield "; " * bool(place)
        yield from _beside(comparison, standing, metric, result)
    if len(pairs) > MOST:
        yield f"; likewise in {listed(about(metric).title for metric, _ in pairs[MOST:])}"
    yield ". What is measured there can be had without a trained network." if standing == "equal" else "."


def _beside(
    comparison: Comparison, standing: _Standing, metric: MetricComparison, result: MethodResult
) -> Iterator[Part]:
    """A control and the best method, with their means."""
    best = best_of(metric)
    assert best is not None  # for mypy: only metrics with one are asked about
    digits = decimals(error(best))
    yield f"in {about(metric).title}, {result.method} has "
    yield from mean_parts(metric, result, digits)[:2]
    verbs = {"equal": "not told from", "unsure": "the best being", "few": "the first being"}
    verb = "better than every method, the best being" if is_better(comparison, result) else verbs[standing]
    yield f", {verb} {best.method} with "
    yield from mean_parts(metric, best, digits)[:2]
    yield from (" (", *_samples(metric), ")")


def _checks(findings: Findings) -> Sentence:
    """Sanity checks, and whether the network is right."""
    verdicts = [(run, verdict) for run in findings.runs for own in run.verdicts.values() for verdict in own]
    verdicts = [(run, v) for run, v in verdicts if v.method not in CONTROLS]
    parts: list[Part] = []
    failed = [v for _, v in verdicts if v.outcome == "FAIL"]
    undecided = [v for _, v in verdicts if v.outcome == "INCONCLUSIVE"]
    if not verdicts:
        parts.append("No sanity check was made: whether the maps depend on the network's weights is not known.")
    else:
        passed = len(verdicts) - len(failed) - len(undecided)
        parts += [count(passed, "passed"), " of ", count(len(verdicts), "verdicts"), " sanity checks are passed"]
        for words, some in (("failed", failed), ("undecided", undecided)):
            if some:
                parts.append(f"; {words}: {listed(dict.fromkeys(f'{v.method} ({v.check})' for v in some))}")
        parts.append(".")
    for run in findings.runs:
        if accuracy := list(_accuracy(run, len(findings.runs) > 1)):
            parts += [" ", *accuracy]
    tone = _BAD if failed or not verdicts else _PLAIN if undecided else _GOOD
    return Sentence("sanity", tuple(parts), "sanity", tone)


def explained(run: FoundRun) -> str:
    """Which class: `label`, `prediction`, `positive` or a number; empty if it is not recorded."""
    samples = compared_samples(run)
    known = samples["explained"].unique().tolist() if "explained" in samples else []
    return str(known[0]) if len(known) == 1 else ""


def labelled(run: FoundRun) -> bool:
    """Whether it is the labels that are explained, or not recorded that others are."""
    return explained(run) in ("label", "")


def _accuracy(run: FoundRun, several: bool) -> Iterator[Part]:
    if not len(samples := compared_samples(run)):
        return
    whose = f" of {run.name}" * several
    if not labelled(run):
        yield f"The accuracy of the network{whose} is not known here: it is not the labels that are explained."
        return
    right = int((samples["target"] == samples["predicted"]).sum())
    low, high = share_interval(right, len(samples))
    yield from (f"The network{whose} is right on ", count(right, "right", method=run.name), " of ")
    yield from (count(len(samples), "num_samples", method=run.name), " samples (")
    for place, (value, of) in enumerate(((right / len(samples), "accuracy"), (low, "low"), (high, "high"))):
        yield ("", " % [", ", ")[place]
        yield Number(written(value, 3, True), value, of, "accuracy", run.name)
    yield "])." if right < len(samples) or explained(run) else "]), if it is their labels that are explained."


def compared_samples(run: FoundRun) -> pd.DataFrame:
    """What is known of the samples of the evaluation that is compared."""
    if not len(run.samples):
        return run.samples
    first = next(iter(run.scores))
    of = (run.samples["stage"] == first.stage) & (run.samples["epoch"] == first.epoch)
    return run.samples[of & (run.samples["step"] == first.step)]


def by_row(known: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """What is known of samples, for rows of scores: by sample, or by sample and target where several are explained."""
    names = ["sample", "target"] if index.nlevels > 1 else ["sample"]
    return known.drop_duplicates(names).set_index(names, drop=False).reindex(index)


def _limits(findings: Findings) -> Iterator[Part]:
    comparison = findings.comparison
    scored = [metric for metric in comparison.metrics if not all(math.isnan(r.mean) for r in metric.methods)]
    groups = {about(metric).group for metric in scored}
    unscored = {about(metric).group for metric in comparison.metrics} - groups
    masks = "no sample has a defined score, as where all masks are empty" if "evidence" in unscored else "no masks"
    known = "metric that is known to be one of faithfulness" if "other" in groups else "faithfulness metric"
    missing = [
        words
        for there, words in (
            ("evidence" in groups, f"whether the maps point at the evidence ({masks})"),
            ("faithfulness" in groups, f"whether the network uses what they point at (no {known})"),
            ("robustness" in groups, "whether they hold under small changes of the input"),
            (_has_control(comparison, "untrained"), "what the same methods score on an untrained network"),
        )
        if not there
    ]
    yield "Not told by " + ("this run" if len(findings.runs) == 1 else "these runs") + ": "
    runs = "another training" if len(findings.runs) == 1 else "further trainings"
    yield "; ".join([*missing, f"what {runs}, or other data, would give"])
    yield ". This is about attribution; it does not validate the network."


def _has_control(comparison: Comparison, name: str) -> bool:
    return any(name in plain(control) for control in comparison.controls)


def shown_first(comparison: Comparison, metric: MetricComparison) -> list[MethodResult]:
    """What does not leave the floor, then the others from the best to the worst; undefined ones at the end."""
    sign = -1 if metric.higher_is_better in (True, None) else 1

    def place(result: MethodResult) -> tuple[bool, bool, float]:
        undefined = math.isnan(result.mean)
        return (not is_below_floor(comparison, metric, result), undefined, 0.0 if undefined else sign * result.mean)

    ordered: Iterable[MethodResult] = metric.methods
    if metric.higher_is_better is not None:
        ordered = sorted(metric.methods, key=place)
    return list(ordered)
