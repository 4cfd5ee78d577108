"""Interventions on the other half of the samples, and what follows from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy import stats
from torch import Tensor

from lightning_xai.results.shortcuts import Effect, Finding, ShortcutVerdict
from lightning_xai.shortcuts.find import Ask, Candidates, Turns, lowest_mean, overlap, pairs
from lightning_xai.shortcuts.hypotheses import Place, Rows, Samples
from lightning_xai.statistics.intervals import mean_interval
from lightning_xai.statistics.paired import holm, paired_test

PAIRS = 180
"""Pictures of other classes, each with a donor, that a class's sufficiency is of."""
ACROSS = 0.5
"""Share of the other classes, those that are moved least, which a region has to be sufficient for where no evidence is
known: real evidence moves the classes that look alike, a shortcut all of them."""
BY_AREA = 2.0
"""How much more a region has to move there for each share of the picture that it takes: the more of a picture is
pasted, the more of the real evidence is."""
POWER = 0.8
MOST_DETECTABLE = 0.25
"""The greatest `detectable` of a class that is CLEAR."""
EXAMPLES = 12

Accept = Sequence[Mapping[str, Any]]
Values = Float64[np.ndarray, " values"]
_FILLS = {"place": "inpaint", "pattern": "inpaint", "color": "gray", "background": "mean", "frequency": "mean"}


@dataclass(frozen=True, eq=False)
class Proof:
    """What the interventions of one family did to the samples of the proving half.

    Attributes:
        candidates: The family.
        rows: Pictures.
        donors: The other one of each pair.
        told: Probabilities of the classes after the swap; after the control's in the second.
        filled: Of each picture, how much log-probability its class loses by the fill; the control's in the second row.
        lost: Whether the class is lost, likewise.
        own: The pictures that were filled.
    """

    candidates: Candidates
    samples: Samples
    rows: Rows
    donors: Rows
    told: tuple[Tensor, Tensor]
    own: Tensor
    filled: Tensor
    lost: Tensor

    @cached_property
    def moved(self) -> Tensor:
        """What the network predicts after the swap."""
        return self.told[0].argmax(1)

    @cached_property
    def controlled(self) -> Tensor:
        """What it predicts after the control's."""
        return self.told[1].argmax(1)


def prove(candidates: Candidates, samples: Samples, classes: Turns, ask: Ask) -> Proof:
    """The interventions."""
    rows, donors = pairs(classes, PAIRS)
    family, control = candidates.family, candidates.control
    same = _of_same_class(samples, rows, classes)
    moved = ask(lambda r, d: family.swap(samples, r, d), rows, donors)
    if control is None:
        controlled = ask(lambda r, d: family.swap(samples, r, d), rows, same)
    else:
        controlled = ask(lambda r, d: control.swap(samples, r, d), rows, donors)
    own = torch.cat([images for images, _ in classes.values()])
    twin = _of_same_class(samples, own, classes)
    after = [
        ask(lambda r, d: family.fill(samples, r), own, own),
        ask(lambda r, d: family.swap(samples, r, d) if control is None else control.fill(samples, r), own, twin),
    ]
    label = samples.predicted[own][:, None]
    logs = [told.gather(1, label)[:, 0].clamp(min=1e-12).log() for told in (samples.told[own], *after)]
    return Proof(
        candidates,
        samples,
        rows,
        donors,
        (moved, controlled),
        own,
        torch.stack([logs[0] - logs[1], logs[0] - logs[2]]),
        torch.stack([told.argmax(1) != label[:, 0] for told in after]),
    )


def _of_same_class(samples: Samples, rows: Rows, classes: Turns) -> Rows:
    """Another picture of the class of each, the next one."""
    following = torch.zeros(len(samples.predicted), dtype=torch.long, device=rows.device)
    for images, _ in classes.values():
        following[images] = images.roll(-1)
    return following[rows]


@dataclass(frozen=True, eq=False)
class Shown:
    """Of one class: effects, p-value, and what a decision is made of."""

    label: int
    proof: Proof
    swap: Effect
    fill: Effect
    sufficiency: Effect
    across: float
    fills_agree: bool
    p: float
    detectable: float


def shown(proof: Proof, label: int, alpha: float, tests: int) -> Shown:
    """What the interventions did to one class."""
    predicted = proof.samples.predicted
    source, donor = predicted[proof.rows], predicted[proof.donors]
    gained, lost = donor == label, source == label
    became, left = proof.moved == label, proof.controlled == label
    sufficiency, differences = _effect(became[gained], left[gained], proof.donors[gained], alpha)
    swap, _ = _effect(~became[lost], ~left[lost], proof.rows[lost], alpha)
    mine = predicted[proof.own] == label
    fill, _ = _effect(proof.lost[0, mine], proof.lost[1, mine], proof.own[mine], alpha)
    fills_agree = bool(proof.filled[0, mine].mean() > proof.filled[1, mine].mean())
    rises = (became.double() - left.double())[gained]
    across = lowest_mean([rises[source[gained] == other].mean() for other in source[gained].unique()], ACROSS)
    rise = _rise(*proof.told, label)
    risen, fallen = _means(rise[gained], proof.donors[gained]), _means(-rise[lost], proof.rows[lost])
    p = max(_greater(risen), _greater(fallen), _others(proof, label))
    return Shown(
        label,
        proof,
        swap,
        fill,
        sufficiency,
        across,
        fills_agree,
        p,
        _detectable(differences, int(gained.sum()), alpha / tests),
    )


def _effect(changed: Tensor, controlled: Tensor, units: Rows, alpha: float) -> tuple[Effect, Values]:
    """Shares of pairs, and the differences of the means of the units, which the interval is of."""
    one, other = changed.double(), controlled.double()
    differences = _means(one - other, units)
    low, high = mean_interval(differences, 1 - alpha)
    return Effect(float(one.mean()), float(other.mean()), low, high, len(differences)), differences


def _means(values: Tensor, units: Rows) -> Values:
    """Of each unit, a picture or a donor, which the values of several pairs depend on."""
    names, place = units.unique(return_inverse=True)
    sums = torch.zeros(len(names), dtype=torch.double, device=units.device).index_add_(0, place, values.double())
    return (sums / place.bincount()).cpu().numpy()


def _greater(differences: Values) -> float:
    """One-sided p-value of the signed-rank test."""
    p, correlation = paired_test(differences, np.zeros_like(differences))
    return p / 2 if correlation > 0 else 1 - p / 2


def _others(proof: Proof, label: int) -> float:
    """p-value of the class's donors against those of all others, as if the hypothesis were of any of the classes.

    0 where there are none, with two classes.
    """
    predicted = proof.samples.predicted
    told = predicted[proof.rows] != label
    donors = proof.donors[told]
    rates = _means(_rise(proof.told[0], proof.samples.told[proof.rows], label)[told], donors)
    mine = (predicted[donors.unique()] == label).cpu().numpy()
    if mine.all():
        return 0.0
    if np.ptp(rates) == 0:
        return 1.0
    return float(stats.mannwhitneyu(rates[mine], rates[~mine], alternative="greater", method="asymptotic").pvalue)


def _rise(after: Tensor, before: Tensor, label: int) -> Tensor:
    """Of the log-probability of a class."""
    later, earlier = (told[:, label].clamp(min=1e-12).log() for told in (after, before))
    return later - earlier


def _detectable(differences: Values, number: int, level: float) -> float:
    """Smallest difference that is found with a power of 80 %: as the donors differ, and as shares of pairs do."""
    reach = float(stats.norm.isf(level) + stats.norm.ppf(POWER))
    error = float(differences.std(ddof=1) / math.sqrt(len(differences))) if len(differences) > 1 else math.inf
    return min(1.0, reach * error + reach**2 / (number + reach**2))


def findings(
    proofs: Sequence[Proof], labels: Sequence[int], alpha: float, minimum: float, accept: Accept, index: Sequence[int]
) -> list[Finding]:
    """Verdicts of all families and classes together."""
    tests = max(1, len(proofs) * len(labels))
    seen = [shown(proof, label, alpha, tests) for proof in proofs for label in labels]
    adjusted = holm(np.array([one.p for one in seen]))
    return [_finding(one, float(p), alpha, minimum, accept, index) for one, p in zip(seen, adjusted, strict=True)]


def needed(samples: Samples, minimum: float, share: float) -> float:
    """How many of the pictures of other classes a region of a size has to move."""
    return minimum + (BY_AREA * share if samples.evidence is None else 0.0)


def _finding(one: Shown, p: float, alpha: float, minimum: float, accept: Accept, index: Sequence[int]) -> Finding:
    family, samples = one.proof.candidates.family, one.proof.samples
    box = family.box(one.label)
    decisive = p <= alpha and one.fills_agree and _reaches(one.swap, minimum)
    bar, reached = minimum, one.sufficiency.mean - one.sufficiency.control
    if box and samples.evidence is None:
        area = box[2] * box[3] * (2 if isinstance(family, Place) else 1) / (samples.size[0] * samples.size[1])
        bar, reached = needed(samples, minimum, area), one.across
    sufficient = reached >= bar and _reaches(one.sufficiency, minimum)
    detectable = max(one.detectable, bar)
    name = " ".join((family.kind, *("x".join(map(str, box)).split())))
    verdict: ShortcutVerdict
    if decisive and sufficient and _accepted(accept, one.label, family.kind, box):
        verdict, reason = "EVIDENCE", f"The {name} decides, and was accepted."
    elif decisive and sufficient:
        known = box and samples.evidence is not None
        where = "outside of the known evidence" if known else "and is enough in pictures of the other classes"
        verdict, reason = "SHORTCUT", f"The {name} decides, {where}."
    elif detectable > MOST_DETECTABLE:
        verdict, reason = "INCONCLUSIVE", f"Too few samples: less than {detectable:.0%} would not have been found."
    else:
        why = "decides, but is not enough in pictures of the other classes" if decisive else "does not decide"
        verdict, reason = "CLEAR", f"The {name} {why}; {detectable:.0%} would have been found."
    return Finding(
        one.label,
        family.kind,
        box,
        family.setting(one.label),
        verdict,
        {"swap": one.swap, _FILLS[family.kind]: one.fill},
        one.sufficiency,
        one.p,
        p,
        one.proof.candidates.shares.get(one.label, math.nan),
        _inside(one) if box else math.nan,
        detectable,
        tuple(index[row] for row in _examples(one)),
        reason,
    )


def _reaches(effect: Effect, minimum: float) -> bool:
    """Whether the difference from the control is so great, and certainly half as great."""
    return effect.mean - effect.control >= minimum and effect.low >= minimum / 2


def _accepted(accept: Accept, label: int, kind: str, box: tuple[int, ...]) -> bool:
    return any(
        given.get("label") in (None, label)
        and given.get("kind") in (None, kind)
        and (not given.get("box") or (bool(box) and overlap(given["box"], box) >= 0.3))
        for given in accept
    )


def _inside(one: Shown) -> float:
    """Share of the region that lies within the known evidence, in pictures of the class."""
    samples = one.proof.samples
    if samples.evidence is None:
        return math.nan
    rows = one.proof.own[samples.predicted[one.proof.own] == one.label]
    region = one.proof.candidates.family.region(samples, rows)
    return float((region & samples.evidence[rows]).sum() / region.sum().clamp(min=1))


def _examples(one: Shown) -> list[int]:
    """Pictures of the class that lose it most often by swaps, and then by most when it is filled."""
    proof = one.proof
    rows, changed = proof.rows, (proof.moved != one.label).double()
    own = proof.own[proof.samples.predicted[proof.own] == one.label]
    drops = proof.filled[0][proof.samples.predicted[proof.own] == one.label]
    rates = torch.stack([changed[rows == row].mean() for row in own])
    order = sorted(range(len(own)), key=lambda k: (-float(rates[k].nan_to_num()), -float(drops[k])))
    return own[order[:EXAMPLES]].tolist()


def dependence(proofs: Sequence[Proof], findings: Sequence[Finding], labels: Sequence[int]) -> dict[int, float]:
    """By class, the share of its predictions that change when proven shortcuts are swapped, less the control's.

    Of several families that which changes most.
    """
    by_class = dict.fromkeys(labels, 0.0)
    for place, proof in enumerate(proofs):
        told = findings[place * len(labels) : (place + 1) * len(labels)]
        proven = torch.tensor(
            [finding.label for finding in told if finding.verdict == "SHORTCUT"], device=proof.rows.device
        )
        source, donor = (proof.samples.predicted[rows] for rows in (proof.rows, proof.donors))
        counted = torch.isin(source, proven) | torch.isin(donor, proven)
        changes = ((proof.moved != source).double() - (proof.controlled != source).double()) * counted
        for label in labels:
            by_class[label] = max(by_class[label], float(changes[source == label].mean()))
    return by_class
