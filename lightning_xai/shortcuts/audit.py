"""Find and prove: what decides the classes of a network, and whether it should."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_xai._version import __version__
from lightning_xai.checks import check_choice, check_kind, check_level, check_share
from lightning_xai.evaluation import explain
from lightning_xai.explainers.base import Bound, Explainer, check_index, check_inputs, check_model
from lightning_xai.explainers.bounds import parse_bounds
from lightning_xai.explainers.chunks import check_rows, in_chunks, row_limit
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.gradient import Gradient
from lightning_xai.outputs import Logit, Output, check_excluding
from lightning_xai.results.shortcuts import Finding, HypothesisKind, ShortcutReport, ShortcutVerdict, accepted
from lightning_xai.shapes import Images, Labels, Masks
from lightning_xai.shortcuts.find import (
    Candidates,
    Half,
    Slot,
    Turns,
    find_patterns,
    find_places,
    half_of,
    in_first_half,
    in_turn,
    whole_pictures,
)
from lightning_xai.shortcuts.hypotheses import Rows, Samples
from lightning_xai.shortcuts.prove import PAIRS, dependence, explained, findings, needed, prove

LEAST = 8
"""Samples of a class in each half without which it is not looked at."""
MINIMUM = 0.05
"""Share of predictions that a shortcut changes at least: what is less does not matter to most users, and hides among
the real evidence."""
MARGIN = 1 / 14
"""Width of the margin by which the known evidence grows, as a share of the picture's height and width: a mask has the
bright ink of a digit, and its faint edge tells the class as well."""
OperatorKind = Literal["color", "frequency", "background"]


class Accepted(TypedDict, total=False):
    """What the user said is evidence; what is left out, or None, is any.

    Attributes:
        label: Class.
        kind: Kind of the hypothesis.
        box: Top, left, height, width, of a place or a pattern's patch; it overlaps that of the hypothesis.

    Example:
        >>> from lightning_xai.shortcuts import Accepted
        >>> Accepted(label=3, kind="place", box=(24, 4, 5, 5))["box"]
        (24, 4, 5, 5)
    """

    label: int | None
    kind: HypothesisKind | None
    box: Sequence[int] | None


def find_shortcuts(
    model: nn.Module,
    images: Images,
    *,
    masks: Masks | None = None,
    bounds: tuple[Bound, Bound] | None = None,
    index: Labels | None = None,
    method: Explainer = Gradient(),
    output: Output = Logit(),
    operators: Sequence[str] = (),
    accept: Sequence[Accepted] = (),
    carried: Sequence[Finding] = (),
    alpha: float = 0.05,
    minimum: float = MINIMUM,
    seed: int = 0,
    max_rows: int | None = None,
    epoch: int = -1,
    step: int = -1,
) -> ShortcutReport:
    """What decides the classes that a network predicts, and whether it should; the model is left as it was.

    On about half of the samples, told by seed and index, hypotheses are found: for each class a place, a pattern that
    moves, and what `operators` names. On the others they are proven, by interventions beside controls of the same size,
    and of like content and attribution: without it the class has to be lost (another class's content put there; and a
    fill), and with it other pictures have to become the class. Where the evidence is known nothing of it is touched, so
    that what decides lies outside; all that is there, the background, is tested as a whole too, and told of where no
    smaller region has half of its effect. Where it is not known, a region is a shortcut only if it is enough in
    pictures of at least five other classes, and the more so the larger it is: a part of real evidence moves classes
    that look alike. Shortcuts that are weak, or large, are then not told from evidence.

    Args:
        model: Maps (batch, channel, height, width) to logits (batch, classes), or to what `output` is of.
        images: As the model takes them. Its predictions are the classes: no labels are needed.
        masks: Where the known evidence is, (batch, height, width), which is widened by a fourteenth of the picture, at
            least a pixel; samples without any are left out. None if it is not known.
        bounds: (low, high) of the values, as in `lightning_xai.explain`; None for those of the images.
        index: Sample indices, on which the halves depend; None for 0, 1, ...
        method: Makes the maps. Of gradients the first-order effect of a swap is taken, of other maps they themselves.
        output: What is explained.
        operators: Which of "color", "frequency", "background" do not decide by right: to change them leaves the
            evidence readable, which the report states as an assumption. Of "background", so does the margin of masks.
        accept: What is evidence, as the user says.
        carried: Findings of an earlier time on the same samples: they are proven again, whatever is found now.
        alpha: Chance that anything is said to decide that does not, for all hypotheses and classes together (Holm).
        minimum: Share of predictions that a shortcut changes at least, beyond its control.
        seed: Decides who is in which half and gives to whom.
        max_rows: Rows that pass through the network at once; by default as many as fit in memory.
        epoch: The network's, for the record.
        step: The network's, likewise.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if the inputs are no images, or not finite; if `masks` or `index` do not fit; if an operator cannot
            be tested on them, or what is accepted has no meaning; if the network's output has no classes, or several
            that hold together, or fewer than two are predicted often enough to be compared.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> class Corner(torch.nn.Module):  # bright there: class 1
        ...     def forward(self, images):
        ...         return torch.stack([0.5 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.5], 1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> images, masks = torch.rand(128, 1, 8, 8, generator=generator), torch.zeros(128, 8, 8, dtype=torch.bool)
        >>> masks[:, 3:6, 3:6] = True
        >>> report = lx.find_shortcuts(Corner(), images, masks=masks, bounds=(0.0, 1.0))
        >>> report.verdict, report.dependence, [(found.label, found.box[:2]) for found in report.shortcuts]
        ('SHORTCUT', 1.0, [(0, (0, 0)), (1, (0, 0))])
    """
    check_level("alpha", alpha)
    check_share("minimum", minimum)
    if minimum == 1:
        raise ValueError(
            "`minimum` must be less than 1: no effect exceeds its control by more than all. Usual is 0.05."
        )
    check_kind("method", method, Explainer, "an explainer such as lightning_xai.Gradient()")
    known = [accepted(own) for own in _listed("accept", accept)]
    check_operators(operators, images, masks)
    with audited(model, images, masks, bounds, index, output, seed, max_rows) as audit:
        own, other, skipped = audit.halves()
        rows = torch.cat([turns[0] for turns in own.values()])
        maps = audit.explained(rows, method)
        bar = partial(needed, audit.samples, minimum)
        half = half_of(audit.samples, own, maps, isinstance(method, Gradient), audit.ask, bar)
        proofs = [
            prove(each, audit.samples, other, audit.ask, minimum)
            for each in _candidates(half, operators, carried, audit.index)
        ]
        labels = list(own)
        by_proof = findings(proofs, alpha, minimum, known, audit.index.tolist())
        if "background" not in operators:
            every = [own for told in by_proof for own in told]
            by_proof = [[own for own in told if not explained(own, every)] for told in by_proof]
        by_class = dependence(proofs, by_proof, labels, audit.ask, known)
    found = [own for told in by_proof for own in told]
    total = sum(len(other[label][0]) for label in labels)
    whole = sum(share * len(other[label][0]) for label, share in by_class.items()) / total
    settings = {
        **{"shape": list(images.shape[2:]), "unmasked": len(images) - len(audit.index)},
        **{"seed": seed, "alpha": alpha, "minimum": minimum, "method": repr(method), "output": repr(output)},
        **{"operators": list(operators), "accepted": known, "evidence": masks is not None},
        **{"pairs": PAIRS, "too_few": skipped, "rows": audit.ask.rows, "gradients": len(rows), "version": __version__},
    }
    return ShortcutReport(
        _verdict(found, skipped),
        whole,
        by_class,
        tuple(sorted(found, key=_strength)),
        epoch,
        step,
        tuple(audit.index.tolist()),
        settings,
    )


class Asker:
    """What the network says, and of how many rows it was asked: not of pictures that are as they were.

    Attributes:
        told: What it says of the pictures themselves.
    """

    def __init__(self, model: nn.Module, images: Images, conditions: Conditions) -> None:
        self.model, self.images, self.conditions, self.rows = model, images, conditions, 0
        self.limit = row_limit(model, images, conditions.max_rows)
        self.told = torch.cat([self._told(chunk) for chunk in images.split(self.limit)])

    def __call__(self, make: Callable[..., Images], *rows: Rows) -> Tensor:
        """Probabilities for what a function makes of rows, a chunk at a time: it never lies in memory whole."""
        chunks = zip(*(each.split(self.limit) for each in rows), strict=True)
        return torch.cat([self._of(make(*chunk), chunk[0]) for chunk in chunks])

    def _of(self, made: Images, rows: Rows) -> Tensor:
        told, changed = self.told[rows], (made != self.images[rows]).flatten(1).any(1).nonzero()[:, 0]
        if len(changed):
            told[changed] = self._told(made[changed])
        return told

    @torch.no_grad()
    def _told(self, images: Images) -> Tensor:
        self.rows += len(images)

        def told(part: Images) -> Tensor:
            return self.conditions.output.probabilities(check_rows(self.model(part), len(part)))

        found = in_chunks(told, self.model, self.conditions.max_rows, images)
        if not found.isfinite().all():
            raise ValueError("`model` must return finite numbers, but it returned NaN or infinity for some samples.")
        return found


@dataclass(frozen=True, eq=False)
class Audit:
    """A network and its samples, while they are looked at; made by `audited`."""

    model: nn.Module
    samples: Samples
    index: Labels
    ask: Asker
    conditions: Conditions

    def halves(self) -> tuple[Turns, Turns, dict[int, int]]:
        """The samples of each class that has enough in both halves, and how many those have that are left out.

        Raises:
            ValueError: if fewer than two classes have.
        """
        predicted, seed = self.samples.predicted, self.conditions.seed
        first = in_first_half(self.index, seed)
        halves = [_classes(predicted, half, self.index, seed) for half in (first, ~first)]
        labels = sorted(halves[0].keys() & halves[1].keys())
        if len(labels) < 2:
            raise ValueError(
                f"`images` must hold at least two classes that `model` predicts {LEAST} times in each half of the "
                f"samples; of {len(predicted)} samples there {'is one' if labels else 'is none'}: give more samples, "
                "or a network that tells them apart."
            )
        counts = enumerate(predicted.bincount().tolist())
        own, other = ({label: half[label] for label in labels} for half in halves)
        return own, other, {label: count for label, count in counts if count and label not in labels}

    def explained(self, rows: Rows, method: Explainer) -> Images:
        """Maps of the classes that are predicted."""
        given, samples = self.conditions, self.samples
        options: dict[str, Any] = {"output": given.output, "bounds": given.bounds, "seed": given.seed}
        options |= {"max_rows": given.max_rows, "index": self.index[rows.cpu()]}
        return explain(self.model, samples.images[rows], samples.predicted[rows], method, **options)


def _listed(name: str, given: Any) -> Sequence[Any]:
    """What is a list, and no single text or mapping, which would be read letter by letter."""
    if isinstance(given, str | Mapping):
        raise TypeError(f"`{name}` must be a list, got {given!r}: put it into one, [{given!r}].")
    return list(given)


def check_operators(operators: Sequence[str], images: Images, masks: Masks | None) -> None:
    """Refuse what is not known, and what cannot be tested on these images."""
    for operator in _listed("operators", operators):
        check_choice("operators", operator, OperatorKind)
    if "color" in operators and images.ndim == 4 and images.shape[1] == 1:
        raise ValueError("`operators` has 'color', but `images` have one channel: leave it out.")
    if "background" in operators and masks is None:
        raise ValueError("`operators` has 'background', which is what `masks` leave: give masks, or leave it out.")


@contextmanager
def audited(
    model: nn.Module,
    images: Images,
    masks: Masks | None,
    bounds: tuple[Bound, Bound] | None,
    index: Labels | None,
    output: Output,
    seed: int,
    max_rows: int | None,
) -> Iterator[Audit]:
    """The network can be asked; afterwards it is as it was. Arguments and errors as in `find_shortcuts`."""
    check_model(model)
    check_inputs(images)
    if images.ndim != 4 or min(images.shape[2:]) < 8:
        raise ValueError(
            "`images` must be (batch, channel, height, width), at least 8 pixels high and wide; got shape "
            f"{tuple(images.shape)}."
        )
    conditions = Conditions(bounds, seed, max_rows, output)
    check_excluding(conditions.output)
    images = conditions.inputs(images).detach()
    index = torch.arange(len(images)) if index is None else index
    check_index(index)
    _check_sizes(images, masks, index)
    bare = None if masks is None else masks.to(images.device)
    if bare is not None:
        known = bare.flatten(1).any(1)
        images, index, bare = images[known], index[known.to(index.device)], bare[known]
    with conditions.explaining(model):
        ask = Asker(model, images, conditions)
        evidence = None if bare is None else grown(bare)
        samples = Samples(images, ask.told, evidence, *_ends(images, conditions), bare)
        yield Audit(model, samples, index.cpu(), ask, conditions)


def _check_sizes(images: Images, masks: Masks | None, index: Labels) -> None:
    if len(index) != len(images):
        raise ValueError(f"`index` is of {len(index)} samples, but there are {len(images)} images.")
    if masks is None:
        return
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        got = f"a tensor of {masks.dtype}" if isinstance(masks, Tensor) else type(masks).__name__
        raise TypeError(f"`masks` must be a tensor of booleans, or None; got {got}: give torch.as_tensor(masks) > 0.5.")
    if masks.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"`masks` must be of shape {(len(images), *images.shape[2:])}, a boolean for each pixel; got shape "
            f"{tuple(masks.shape)}."
        )
    if not masks.any():
        raise ValueError("`masks` must be True where the known evidence is, but are False everywhere: give None.")


def grown(masks: Masks) -> Masks:
    """Masks with a margin around: what is faint at the edge of the evidence is part of it."""
    margins = [max(1, round(MARGIN * length)) for length in masks.shape[1:]]
    sides = [2 * margin + 1 for margin in margins]
    return F.max_pool2d(masks[:, None].float(), sides, stride=1, padding=margins)[:, 0] > 0


def _ends(images: Images, conditions: Conditions) -> tuple[Tensor, Tensor]:
    """Least and greatest value of each channel, as given or as they are."""
    given = parse_bounds(conditions.bounds, images.device, images.dtype)
    ends = given or (images.amin((0, 2, 3)).view(-1, 1, 1), images.amax((0, 2, 3)).view(-1, 1, 1))
    low, high = (torch.broadcast_to(end, (images.shape[1], 1, 1)) for end in ends)
    return low, torch.where(high > low, high, low + 1)


def _classes(predicted: Labels, half: Tensor, index: Labels, seed: int) -> Turns:
    """The samples of a half of each class that has enough, in two orders."""
    turns = [order[half[order]].to(predicted.device) for order in (in_turn(index, seed, 1), in_turn(index, seed, 2))]
    found = {}
    for label in predicted.unique().tolist():
        rows, donors = (turn[predicted[turn] == label] for turn in turns)
        if len(rows) >= LEAST:
            found[label] = rows, donors
    return found


def _candidates(half: Half, operators: Sequence[str], carried: Sequence[Finding], index: Labels) -> list[Candidates]:
    place = {number: row for row, number in enumerate(index.tolist())}
    known: dict[str, Slot] = {"place": {}, "pattern": {}}
    for each in carried:
        if each.kind == "place":
            known["place"][each.label] = tuple(each.box)
        elif each.kind == "pattern" and each.examples[0] in place:
            known["pattern"][each.label] = (*each.box, place[each.examples[0]])
    regions = [*find_places(half, known["place"]), *find_patterns(half, known["pattern"])]
    return regions + whole_pictures(half, operators)


def _verdict(found: Sequence[Finding], skipped: Mapping[int, int]) -> ShortcutVerdict:
    verdicts = {finding.verdict for finding in found}
    if "SHORTCUT" in verdicts:
        return "SHORTCUT"
    return "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts or skipped else "CLEAR"


def _strength(finding: Finding) -> tuple[bool, float]:
    control = finding.sufficiency.control
    return finding.verdict != "SHORTCUT", (0.0 if math.isnan(control) else control) - finding.sufficiency.mean
