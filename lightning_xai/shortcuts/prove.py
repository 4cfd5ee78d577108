"""Interventions on the other half of the samples, and what follows from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy import stats
from torch import Tensor

from lightning_xai.results.shortcuts import Effect, Finding, ShortcutVerdict, strength
from lightning_xai.shortcuts.find import SAME, Ask, Candidates, Turns, lowest_mean, overlap, pairs
from lightning_xai.shortcuts.hypotheses import Family, Rows, Samples
from lightning_xai.statistics.intervals import mean_interval
from lightning_xai.statistics.paired import holm, paired_test

PAIRS = 180
"""Pictures of other classes, each with a donor, that a class's sufficiency is of."""
ACROSS = 0.5
"""Share of the other classes, those that are moved least, which a region has to be sufficient for where no evidence is
known: real evidence moves the classes that look alike, a shortcut all of them."""
OVERRULED = {"place": 0.5, "pattern": 0.25, "frequency": 0.25}
"""Share of the pictures of these classes that it then has to move beyond `minimum` and more by its size: it has to
overrule the real evidence. Parts of that, a sixteenth of the picture, move up to 0.4 of them where they are put in
their own place (linear networks on MNIST), and up to 0.1 anywhere else. How strong waves are is evidence, too, in
part: a frequency that does not decide the classes taken together has to overrule the rest."""
BY_SHARE = 2.0
"""How much more of them it has to move for each share of the picture that it takes: the more is swapped, the more of
the real evidence is."""
WIDELY = 0.5
"""Share of an operator's effect on all classes that is left without the class that shows it most."""
POWER = 0.8
FEWEST = 5
"""Other classes without which no region is a SHORTCUT where no evidence is known, and no frequency anywhere: what tells
3 from 8 is enough in pictures of all other classes, where there are but these two."""
FREE = 0.1
"""Share of a class's pictures that the known evidence has to leave for what is outside of it to be tested."""
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
        candidates: The family, and its control.
        samples: All.
        rows: Pictures.
        donors: The other one of each pair.
        swapped: Probabilities of the classes after the swap.
        own: The pictures that are filled, each once.
        asked: Classes of which the swap changes enough to go on.
        controlled: Probabilities after the control's swap, of pairs with one of these; None without any.
        fills: Probabilities after the fill, and after the control's; likewise.
    """

    candidates: Candidates
    samples: Samples
    rows: Rows
    donors: Rows
    swapped: Tensor
    own: Tensor
    asked: tuple[int, ...] = ()
    controlled: Tensor | None = None
    fills: tuple[Tensor, Tensor] | None = None

    @cached_property
    def source(self) -> Tensor:
        """Class of each picture."""
        return self.samples.predicted[self.rows]

    @cached_property
    def donor(self) -> Tensor:
        """Class of each donor."""
        return self.samples.predicted[self.donors]

    @cached_property
    def moved(self) -> Tensor:
        """What the network predicts after the swap."""
        return self.swapped.argmax(1)

    def may_be(self, label: int, minimum: float) -> bool:
        """Whether the swap alone takes so much of the class away, or changes enough."""
        gained, lost = self.moved[self.donor == label] == label, self.moved[self.source == label] != label
        sufficiency, necessity = float(gained.double().mean()), float(lost.double().mean())
        return necessity >= minimum or enough(sufficiency, necessity, minimum)


def decides_all(proof: Proof, minimum: float, level: float) -> bool:
    """Whether an operator decides the classes taken together, each of which may have too few samples to tell.

    A picture has to become the donor's class, and more often than any other one, as it would by being spoiled; and
    without it to be less of its own. Both hold without the class that shows them most, too: what decides one alone is
    told by its own tests. Which classes it takes away, their own fills say.

    Args:
        proof: Proof of a color, a frequency or a background.
        minimum: What the effects have to be.
        level: Chance of each that is none.
    """
    if proof.candidates.control is not None or proof.controlled is None or proof.fills is None:
        return False
    others = max(1, len(proof.donor.unique()) - 2)
    after, controlled = proof.moved, proof.controlled.argmax(1)
    won, lost, elsewhere = (
        rule(after) - rule(controlled)
        for rule in (
            lambda moved: (moved == proof.donor).double(),
            lambda moved: (moved != proof.source).double(),
            lambda moved: ((moved != proof.donor) & (moved != proof.source)).double() / others,
        )
    )
    most = max(
        proof.asked, key=lambda label: float(won[proof.donor == label].mean() + lost[proof.source == label].mean())
    )
    rest = (proof.donor != most) & (proof.source != most)
    own = proof.samples.predicted[proof.own][:, None]
    filled, like = (told.clamp(min=1e-12).log().gather(1, own) for told in proof.fills)
    if not rest.any() or (filled - like).mean() >= 0:
        return False
    units = (won - elsewhere, proof.donors), (lost, proof.rows)
    least = min(mean_interval(_means(values, each), 1 - level)[0] for values, each in units)
    spread = all(values[rest].mean() >= WIDELY * values.mean() for values in (won, lost))
    return spread and least > 0 and enough(float(won.mean()), float(lost.mean()), minimum)


def enough(sufficiency: float, necessity: float, minimum: float) -> bool:
    """Whether a swap changes so many predictions, to the class and from it on average, and half as many either way.

    Classes differ: some attract whatever has a bit of their cue, some are lost without it.
    """
    return min(sufficiency, necessity) >= minimum / 2 and (sufficiency + necessity) / 2 >= minimum


def prove(candidates: Candidates, samples: Samples, classes: Turns, ask: Ask, minimum: float) -> Proof:
    """The interventions; those of the control and the fills only of classes of which the swap changes enough.

    Where an operator changes enough of one class, of all, which it may decide together.
    """
    rows, donors = pairs(classes, PAIRS)
    family, control = candidates.family, candidates.control
    own = torch.cat([images for images, _ in classes.values()])
    swapped = ask(partial(family.swap, samples), rows, donors)
    bare = Proof(candidates, samples, rows, donors, swapped, own)
    asked = tuple(label for label in candidates.shares if bare.may_be(label, minimum))
    if not asked:
        return bare
    if control is None:
        same = partial(_of_same_class, classes, len(samples.told))
        swap = partial(family.swap, samples)
        asked, controlled, filled = tuple(classes), ask(swap, rows, same(rows)), ask(swap, own, same(own))
    else:
        named = torch.tensor(asked, device=rows.device)
        part = torch.isin(bare.source, named) | torch.isin(bare.donor, named)
        own = own[torch.isin(samples.predicted[own], named)]
        controlled = samples.told[rows]
        controlled[part] = ask(partial(control.swap, samples), rows[part], donors[part])
        filled = ask(partial(control.fill, samples), own)
    fills = ask(partial(family.fill, samples), own), filled
    return replace(bare, own=own, asked=asked, controlled=controlled, fills=fills)


def _of_same_class(classes: Turns, number: int, rows: Rows) -> Rows:
    """Another picture of the class of each, the next one."""
    following = torch.zeros(number, dtype=torch.long, device=rows.device)
    for images, _ in classes.values():
        following[images] = images.roll(-1)
    return following[rows]


@dataclass(frozen=True, eq=False)
class Shown:
    """What the interventions of a family show of one class.

    Attributes:
        together: Whether all classes together are decided (`decides_all`), and the fill takes this one away as well.
        lost_across: Loss, less the control's, over the half of the donors' classes that take least: what one class
            alone takes away is that class's.
    """

    label: int
    proof: Proof
    swap: Effect
    fill: Effect
    sufficiency: Effect
    across: float
    fills_agree: bool
    p: float
    p_lost: float
    detectable: float
    together: bool = False
    lost_across: float = math.nan


def shown(proof: Proof, label: int, alpha: float, tests: int, together: bool = False) -> Shown:
    """Effects, their p-value, and what would have been found."""
    gained, lost = proof.donor == label, proof.source == label
    controlled = None
    if proof.controlled is not None and label in proof.asked:
        controlled = proof.controlled.argmax(1) == label
    became = proof.moved == label
    sufficiency, differences = _effect(became, controlled, gained, proof.donors, alpha)
    swap, losses = _effect(~became, None if controlled is None else ~controlled, lost, proof.rows, alpha)
    tested = (losses, lost) if controlled is None else (differences, gained)
    detectable = _detectable(tested[0], int(tested[1].sum()), alpha / tests)
    nothing = Effect(math.nan, math.nan, math.nan, math.nan, 0)
    if proof.controlled is None or proof.fills is None or controlled is None:
        return Shown(label, proof, swap, nothing, sufficiency, math.nan, False, 1.0, 1.0, detectable)
    mine = proof.samples.predicted[proof.own] == label
    left, left_controlled = (told.argmax(1) != label for told in proof.fills)
    fill, _ = _effect(left, left_controlled, mine, proof.own, alpha)
    fills_agree = bool(_rise(*proof.fills, label)[mine].mean() < 0)
    rises = became.double() - controlled.double()
    others = proof.source[gained].unique().tolist()
    across = lowest_mean([rises[gained & (proof.source == other)].mean() for other in others], ACROSS)
    lost_across = lowest_mean([-rises[lost & (proof.donor == other)].mean() for other in others], ACROSS)
    rise = _rise(proof.swapped, proof.controlled, label)
    risen, fallen = _means(rise[gained], proof.donors[gained]), _means(-rise[lost], proof.rows[lost])
    p_lost = _greater(fallen)
    p = max(_greater(risen), p_lost, _others(proof, label))
    together &= fill.mean > fill.control
    return Shown(
        label, proof, swap, fill, sufficiency, across, fills_agree, p, p_lost, detectable, together, lost_across
    )


def _effect(
    changed: Tensor, controlled: Tensor | None, which: Tensor, units: Tensor, alpha: float
) -> tuple[Effect, Values]:
    """Shares of pairs, and the differences of the means of the units, which the interval is of."""
    one = changed[which].double()
    if controlled is None:
        values = _means(one, units[which])
        return Effect(float(one.mean()), math.nan, math.nan, math.nan, len(values)), values
    other = controlled[which].double()
    differences = _means(one - other, units[which])
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
    told = proof.source != label
    donors = proof.donors[told]
    rates = _means(_rise(proof.swapped, proof.samples.told[proof.rows], label)[told], donors)
    mine = (proof.samples.predicted[donors.unique()] == label).cpu().numpy()
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
    proofs: Sequence[Proof], alpha: float, minimum: float, accept: Accept, index: Sequence[int]
) -> list[list[Finding]]:
    """Of each proof its verdicts, of all families and classes together."""
    tests = sum(len(proof.candidates.shares) for proof in proofs)
    seen = [
        shown(proof, label, alpha, tests, together)
        for proof in proofs
        for together in (decides_all(proof, minimum, alpha / tests),)
        for label in proof.candidates.shares
    ]
    adjusted, lost = (holm(np.array([getattr(one, name) for one in seen])) for name in ("p", "p_lost"))
    found = [
        _finding(one, float(p), float(p_lost), alpha, minimum, accept, index)
        for one, p, p_lost in zip(seen, adjusted, lost, strict=True)
    ]
    return [[own for one, own in zip(seen, found, strict=True) if one.proof is proof] for proof in proofs]


def explained(finding: Finding, found: Sequence[Finding]) -> bool:
    """Whether what lies outside of the evidence decides a class by a region that has at least half of its effect."""
    return finding.kind == "background" and any(
        own.label == finding.label
        and own.kind in ("place", "pattern")
        and own.verdict in ("SHORTCUT", "EVIDENCE")
        and 2 * strength(own) >= strength(finding)
        for own in found
    )


def needed(samples: Samples, minimum: float, family: Family, label: int) -> float:
    """What share of the pictures of other classes a hypothesis has to move."""
    share = family.share(samples, label)
    may_be = share > 0 or family.kind == "frequency"
    return minimum + (OVERRULED[family.kind] + BY_SHARE * share if may_be else 0.0)


def _finding(
    one: Shown, p: float, p_lost: float, alpha: float, minimum: float, accept: Accept, index: Sequence[int]
) -> Finding:
    family = one.proof.candidates.family
    box = family.box(one.label)
    name = " ".join((family.kind, *("x".join(map(str, box)).split())))
    verdict, reason = _verdict(one, p <= alpha, p_lost <= alpha, minimum, accept)
    return Finding(
        one.label,
        family.kind,
        box,
        family.setting(one.proof.samples, one.label),
        verdict,
        {"swap": one.swap, _FILLS[family.kind]: one.fill},
        one.sufficiency,
        one.p,
        p_lost if one.together and p > alpha else p,
        one.proof.candidates.shares[one.label],
        _inside(one) if box else math.nan,
        max(one.detectable, minimum),
        tuple(index[row] for row in _examples(one)),
        f"The {name} {reason}",
        one.across,
    )


def _verdict(one: Shown, both: bool, loss: bool, minimum: float, accept: Accept) -> tuple[ShortcutVerdict, str]:
    """What follows, and why.

    Args:
        one: What was shown.
        both: Whether loss, gain and whose hypothesis it is are beyond chance.
        loss: Whether the loss is.
        minimum: What an effect has to be.
        accept: What is evidence.
    """
    gained, lost = (effect.mean - effect.control for effect in (one.sufficiency, one.swap))
    decides = enough(gained, lost, minimum) and max(one.sufficiency.low, one.swap.low) > 0 and both
    needed_alone = lost >= minimum and one.swap.low > 0 and loss
    if one.fills_agree and (decides or needed_alone):
        return _of_decisive(one, decides, minimum, accept)
    if not one.fills_agree and loss and lost >= max(one.detectable, minimum) and one.lost_across >= minimum:
        return "INCONCLUSIVE", "takes predictions away where it is swapped, but not where it is filled: look at it."
    free = _free(one)
    if free < FREE:
        return "INCONCLUSIVE", f"cannot be tested: the known evidence leaves {free:.0%} of the class's pictures."
    if one.detectable > max(MOST_DETECTABLE, minimum):
        return "INCONCLUSIVE", f"is tested with too few samples: {one.detectable:.0%} would be needed to be seen."
    return "CLEAR", f"does not decide; {max(one.detectable, minimum):.0%} would have been found."


def _of_decisive(one: Shown, both: bool, minimum: float, accept: Accept) -> tuple[ShortcutVerdict, str]:
    """Whether what decides should: it does not if it lies outside of the known evidence, or overrules all of it."""
    proof, family = one.proof, one.proof.candidates.family
    unknown = family.kind in ("place", "pattern") and proof.samples.evidence is None
    number = len(proof.donor.unique())
    bar = needed(proof.samples, minimum, family, one.label)
    sufficient = both and (bar == minimum or (one.sufficiency.mean - one.sufficiency.control) >= bar)
    if unknown:
        sufficient = both and one.across >= bar
    sufficient |= one.together
    if _accepted(accept, one.label, family.kind, family.box(one.label)):
        return "EVIDENCE", "decides, and was accepted."
    if number <= FEWEST and (unknown or family.kind == "frequency"):
        cure = ": give masks" if unknown else ""
        return "INCONCLUSIVE", f"decides; whether it should cannot be told from {number} classes{cure}."
    if sufficient:
        whose = "" if both else ", as all classes together show"
        where = ", and is enough in pictures of the other classes" if unknown else _where(family)
        return "SHORTCUT", f"decides{whose}{where}."
    short = "not enough in pictures of the other classes"
    if unknown or family.kind == "frequency":
        return "EVIDENCE", f"decides, as a part of real evidence would: it is {short}."
    return "INCONCLUSIVE", f"decides{_where(family)}, but is {short}: look at it."


def _where(family: Family) -> str:
    whole = family.kind in ("color", "frequency")
    return ", while the evidence is assumed to stay readable" if whole else ", outside of the known evidence"


def _free(one: Shown) -> float:
    """Share of the class's pictures that a hypothesis can be in."""
    samples, kind = one.proof.samples, one.proof.candidates.family.kind
    if samples.evidence is None or kind in ("color", "frequency"):
        return 1.0
    return 1 - float(samples.evidence[samples.predicted == one.label].double().mean())


def _accepted(accept: Accept, label: int, kind: str, box: tuple[int, ...]) -> bool:
    return any(
        given.get("label") in (None, label)
        and given.get("kind") in (None, kind)
        and (not given.get("box") or (bool(box) and overlap(given["box"], box) >= SAME))
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
    """Pictures of the class that lose it by swaps, most often first, then by most; of a pattern first its source."""
    proof = one.proof
    mine = proof.source == one.label
    rows = proof.rows[mine]
    lost, falls = (
        _means(values[mine], rows)
        for values in (proof.moved != one.label, -_rise(proof.swapped, proof.samples.told[proof.rows], one.label))
    )
    order = [place for place in np.lexsort((-falls, -lost)).tolist() if lost[place] > 0][:EXAMPLES]
    return [*proof.candidates.family.source(one.label), *rows.unique()[order].tolist()][:EXAMPLES]


def unmargined(proof: Proof, ask: Ask) -> Proof:
    """The same with what is in the margin of the evidence: no proof may hang on it, but a shortcut may reach there."""
    family, control, samples = proof.candidates.family, proof.candidates.control, proof.samples
    if samples.bare is None or control is None:
        return proof
    bare = replace(samples, evidence=samples.bare)
    swapped, controlled = (ask(partial(own.swap, bare), proof.rows, proof.donors) for own in (family, control))
    return replace(proof, samples=bare, swapped=swapped, controlled=controlled)


def dependence(
    proofs: Sequence[Proof], findings: Sequence[Sequence[Finding]], labels: Sequence[int], ask: Ask, accept: Accept
) -> dict[int, float]:
    """By class, the share of its predictions that change when proven shortcuts are swapped, less the control's.

    A family that is proven for a class is swapped in the pictures of all, which is what a cue does that tells all of
    them, proven or not; but where the swap may replace evidence, or where it is proven for one class alone, only
    between a class that it is proven for and any. Classes of which it was accepted are left out. Of several families
    that which changes most.
    """
    by_class = dict.fromkeys(labels, 0.0)
    for proof, told in zip(proofs, findings, strict=True):
        proven = [finding.label for finding in told if finding.verdict == "SHORTCUT"]
        if proven:
            proof = unmargined(proof, ask)
        if proven and proof.controlled is not None:
            named = torch.tensor(proven, device=proof.rows.device)
            counted = torch.isin(proof.source, named) | torch.isin(proof.donor, named)
            family = proof.candidates.family
            counted |= len(proven) > 1 and not any(family.share(proof.samples, label) for label in proven)
            spared = [label for label in labels if _accepted(accept, label, family.kind, family.box(label))]
            spared_ones = torch.tensor(spared, dtype=torch.long, device=proof.rows.device)
            counted &= ~(torch.isin(proof.source, spared_ones) | torch.isin(proof.donor, spared_ones))
            changed = (proof.moved != proof.source).double() - (proof.controlled.argmax(1) != proof.source).double()
            for label in labels:
                share = float((changed * counted)[proof.source == label].mean())
                by_class[label] = max(by_class[label], share)
    return by_class
