"""Which regions and waves may tell a class: by a gradient a picture, and by trials on the same half of the samples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor

from lightning_xai.functional.random import fold_in, root_keys, uniform
from lightning_xai.shapes import Images, Labels, Maps
from lightning_xai.shortcuts.hypotheses import (
    Background,
    Boxes,
    Color,
    Family,
    Frequency,
    Pattern,
    Place,
    Rows,
    Samples,
    inside,
)

PLACES = ((1 / 7, 1 / 7), (1 / 4, 1 / 4), (1 / 7, 1 / 2), (1 / 2, 1 / 7))
"""Heights and widths of places, as shares of the picture's."""
SMALL = 0.03
"""Area of a place, as a share of the picture, up to which three of each class are tried."""
PATTERNS = (1 / 7, 1 / 5, 2 / 7)
"""Heights and widths of patterns, likewise."""
TEMPLATES = 12
"""Pictures of a class whose patches are compared with others."""
COMPARED = 72
"""Pictures of the class, and of all others together, that they are compared with."""
TRIALS = 36
"""Pictures of other classes that a candidate is tried on."""
AS_FREE = 0.75
"""Area outside of the known evidence that a control has, as a share of that of what it is the control of."""
SAME = 0.3
"""Overlap from which on two boxes are the same hypothesis."""
SIMPLER = 0.8
"""Share of the greatest gain from which on the smallest candidate is taken."""

Turns = Mapping[int, tuple[Tensor, Tensor]]
"""The samples of each class, by their place, in two orders."""
Ask = Callable[..., Tensor]
"""Probabilities of the classes, (rows, classes), for what a function makes of rows, such as pictures and donors."""
Slot = dict[int, tuple[int, ...]]
"""A box for each class, as numbers."""
Needed = Callable[[Family, int], float]
"""Sufficiency that a family's hypothesis about a class has to show."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """A family, what it is compared with, and the classes that it has a hypothesis about.

    Attributes:
        control: Matched in size, content and attribution; None where donors of the same class are the control.
        shares: Of these classes, the share of the attribution in the region; NaN for what has no place.
    """

    family: Family
    control: Family | None
    shares: Mapping[int, float]


def in_first_half(index: Labels, seed: int) -> Bool[Tensor, " sample"]:
    """Whether a sample is one that hypotheses are found on, by its index and the seed alone."""
    return _drawn(index, seed, 0) < 0.5


def in_turn(index: Labels, seed: int, number: int) -> Rows:
    """The samples in an order of their own."""
    return _drawn(index, seed, number).argsort(stable=True)


def _drawn(index: Labels, seed: int, number: int) -> Tensor:
    return uniform(fold_in(root_keys(seed, index.cpu()), number), (1,))[:, 0]


def pairs(classes: Turns, number: int) -> tuple[Rows, Rows]:
    """Pictures and donors of another class: about `number` for each class of the donors, as many of each other one.

    Of more other classes than that as many as there are pairs, each class's own, spread evenly: the number of pairs
    grows as that of the classes, and each class has as many pictures as donors.

    Args:
        classes: The samples of each, in two orders.
        number: Pairs.
    """
    count = len(classes)
    others = max(1, min(count - 1, number))
    each, steps = -(-number // others), {1 + step * (count - 1) // others for step in range(others)}
    orders = [(images.tolist(), donors.tolist()) for images, donors in classes.values()]
    made = [
        (images[turn % len(images)], donors[(turn + each * place) % len(donors)])
        for own, (_, donors) in enumerate(orders)
        for place, (images, _) in enumerate(orders)
        if (place - own) % count in steps
        for turn in range(each)
    ]
    device = next(iter(classes.values()))[0].device
    rows, donors = torch.tensor(made, dtype=torch.long, device=device).view(-1, 2).unbind(1)
    return rows, donors


@dataclass(frozen=True, eq=False)
class Half:
    """The samples on which hypotheses are found.

    Attributes:
        samples: All.
        rows: Those of this half of a class that is looked at.
        classes: Those of each class, in two orders.
        effects: Of each row and pixel, to first order, how much the class's output falls when the pixel becomes what it
            is in other classes; as shares of the sum of their sizes; 0 in the known evidence.
        shares: Of each row and pixel: share of the attribution.
        free: Of each row and pixel: 1 outside of the known evidence, 0 in it.
        ask: What the network says.
        needed: Which sufficiency.
    """

    samples: Samples
    rows: Rows
    classes: Turns
    effects: Maps
    shares: Maps
    free: Maps
    ask: Ask
    needed: Needed

    @cached_property
    def labels(self) -> Labels:
        return self.samples.predicted[self.rows]

    @cached_property
    def trials(self) -> tuple[Rows, Rows]:
        """Pictures, and donors of other classes, that candidates are tried on."""
        return pairs(self.classes, TRIALS)

    def mean(self, maps: Tensor, label: int) -> Tensor:
        """Of a class's rows."""
        return maps[self.labels == label].mean(0)

    def table(self, slot: Slot) -> Boxes:
        """A row for each class, also for those that are not looked at."""
        table = torch.zeros(self.samples.told.shape[1], 4, dtype=torch.long)
        for label, each in slot.items():
            table[label] = torch.tensor(each[:4])
        return table.to(self.rows.device)


def half_of(samples: Samples, classes: Turns, maps: Images, signed: bool, ask: Ask, needed: Needed) -> Half:
    """The half with its first-order effects.

    Args:
        maps: Attributions of the rows, class after class.
        signed: Whether they are gradients; else they are taken for effects as they are.
    """
    rows = torch.cat([images for images, _ in classes.values()])
    images, labels = samples.images[rows], samples.predicted[rows]
    means = {label: images[labels == label].mean(0) for label in classes}
    others = {label: torch.stack([m for other, m in means.items() if other != label]).mean(0) for label in classes}
    contrast = images - torch.stack([others[label] for label in labels.tolist()])
    free = samples.outside(torch.ones_like(images[:, 0], dtype=torch.bool), rows).to(images)
    effects = (maps * contrast if signed else maps).sum(1) * free
    return Half(samples, rows, classes, normalized(effects), normalized(maps.abs().sum(1) * free), free, ask, needed)


def normalized(maps: Tensor) -> Tensor:
    """As shares of the sum of their sizes."""
    return maps / maps.abs().flatten(1).sum(1).clamp(min=1e-12).view(-1, *[1] * (maps.ndim - 1))


def lowest_mean(values: Sequence[Tensor | float], share: float) -> float:
    """Mean of the lowest share of the values, at least one."""
    ordered = torch.as_tensor(values, dtype=torch.double).sort().values
    return float(ordered[: max(1, round(share * len(ordered)))].mean())


def find_places(half: Half, carried: Slot) -> list[Candidates]:
    """The place of each class that moves others most to it, and where an earlier one was.

    Where no evidence is known, the small ones and the larger ones apart, which have more of it.
    """
    if half.samples.evidence is not None:
        return _places(half, PLACES, carried)
    return [*_places(half, PLACES[:1], carried), *_places(half, PLACES[1:], {})]


def _places(half: Half, sizes: Sequence[tuple[float, float]], carried: Slot) -> list[Candidates]:
    effects = {label: half.mean(half.effects, label) for label in half.classes}
    shares = {label: half.mean(half.shares, label) for label in half.classes}
    slots: list[Slot] = []
    for size in (_pixels(each, half.samples.size) for each in sizes):
        slots.append({label: best_box(found, size) for label, found in effects.items()})
        if size[0] * size[1] <= SMALL * half.effects[0].numel():
            slots.append({label: best_box(found, size, slots[-1][label]) for label, found in effects.items()})
            excess = {label: found - half.shares[half.labels != label].mean(0) for label, found in shares.items()}
            slots.append({label: best_box(found, size) for label, found in excess.items()})
    deviations = _content(half)
    free, content = ({label: half.mean(maps, label) for label in half.classes} for maps in (half.free, deviations))
    chosen = _chosen(half, slots, lambda slot: Place(half.table(slot)), carried)
    return [
        Candidates(
            Place(half.table(slot)),
            Place(half.table(matched(slot, chosen, free, content, shares))),
            {label: float(window_sums(shares[label], box[2:])[box[0], box[1]]) for label, box in slot.items()},
        )
        for slot in chosen
    ]


def _content(half: Half) -> Maps:
    """How far each pixel outside of the known evidence is from the mean of its class, squared."""
    images = half.samples.images[half.rows]
    means = {label: half.mean(images, label) for label in half.classes}
    own = torch.stack([means[label] for label in half.labels.tolist()])
    return (images - own).square().sum(1) * half.free


def _pixels(shares: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
    height, width = (max(2, round(share * length)) for share, length in zip(shares, size, strict=True))
    return min(height, size[0] - 1), min(width, size[1] - 1)


def best_box(values: Tensor, size: Sequence[int], avoid: Sequence[int] = (0, 0, 0, 0)) -> tuple[int, ...]:
    """The window with the greatest sum of those that do not touch another one."""
    sums = window_sums(values, size)
    if any(avoid):
        sums = sums - 1e6 * window_sums(_mask(avoid, values), size)
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return top, left, *size


def best_boxes(values: Tensor, size: Sequence[int]) -> list[tuple[int, ...]]:
    """The window with the greatest sum of each map."""
    sums = F.avg_pool2d(values[:, None], tuple(size), 1)[:, 0] * (size[0] * size[1])
    return [(*divmod(place, sums.shape[2]), *size) for place in sums.flatten(1).argmax(1).tolist()]


def window_sums(values: Tensor, size: Sequence[int]) -> Tensor:
    """Of each window of a map."""
    return F.avg_pool2d(values[None, None], tuple(size), 1)[0, 0] * (size[0] * size[1])


def _mask(box: Sequence[int], like: Tensor) -> Tensor:
    return inside(torch.tensor([box], device=like.device), like.shape)[0].to(like)


def matched(slot: Slot, chosen: Sequence[Slot], free: Mapping[int, Tensor], *maps: Mapping[int, Tensor]) -> Slot:
    """For each class a window of the same size, of maps with near sums.

    If there is room, and in this order: it does not touch the class's own; it has nearly as much that is free of
    evidence, where alone something is changed; it is on none that was chosen for others.
    """
    boxes: Slot = {}
    like = next(iter(free.values()))
    taken = torch.stack([_mask(other, like) for each in chosen for other in each.values()]).sum(0)
    for label, box in slot.items():
        room, own = window_sums(free[label], box[2:]), window_sums(_mask(box, like), box[2:])
        lacking = (room < AS_FREE * room[box[0], box[1]]).to(room)
        distance = 1e3 * (window_sums(taken, box[2:]) + box[2] * box[3] * (10 * lacking + 100 * own))
        for values in maps:
            logs = window_sums(values[label], box[2:]).clamp(min=1e-6).log()
            distance += (logs - logs[box[0], box[1]]).abs()
        boxes[label] = best_box(-distance, (1, 1))[:2] + box[2:]
    return boxes


def _chosen(
    half: Half, slots: Sequence[Slot], make: Callable[[Slot], Family], carried: Slot, together: bool = False
) -> list[Slot]:
    """What gains most of each class, the smallest of about as good ones; and an earlier one where that is another.

    Args:
        together: Whether all classes take the slot that gains most in all.
    """
    carried = {label: each for label, each in carried.items() if label in half.classes}
    families = [make(slot) for slot in slots]
    gains = [_gains(half, family) for family in families]
    if together:
        best = max(range(len(slots)), key=lambda number: sum(max(0.0, gain) for gain in gains[number].values()))
        slots, families, gains = slots[best : best + 1], families[best : best + 1], gains[best : best + 1]
    found: Slot = {}
    for label in half.classes:
        scored = [
            (gained[label] / max(1e-6, half.needed(family, label)), slot[label])
            for slot, family, gained in zip(slots, families, gains, strict=True)
        ]
        most, best_one = max(scored)
        good = [each for score, each in scored if score >= SIMPLER * most] or [best_one]
        found[label] = min(good, key=lambda each: each[2] * each[3])
        if label in carried and overlap(found[label], carried[label]) >= SAME:
            found[label] = carried[label]
    others = {label: each for label, each in carried.items() if found[label] != each}
    return [found, others] if others else [found]


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Intersection of two boxes over their union; 0 for patterns of different pictures."""
    height, width = (max(0, min(one[k] + one[k + 2], other[k] + other[k + 2]) - max(one[k], other[k])) for k in (0, 1))
    joined = one[2] * one[3] + other[2] * other[3] - height * width
    return height * width / max(1, joined) if tuple(one[4:]) == tuple(other[4:]) else 0.0


def _gains(half: Half, family: Family) -> dict[int, float]:
    """By how much the donors' class becomes more probable after a swap, by class."""
    rows, donors = half.trials
    labels = half.samples.predicted[donors]
    after = half.ask(partial(family.swap, half.samples), rows, donors)
    rise = (after - half.samples.told[rows]).gather(1, labels[:, None])[:, 0]
    return {label: float(rise[labels == label].mean()) for label in half.classes}


def find_patterns(half: Half, carried: Slot) -> list[Candidates]:
    """The patch of each class that is in its pictures and in no others, and moves others most to it.

    Its slots have the picture as a fifth number.
    """
    sizes = [_pixels((share, share), half.samples.size) for share in PATTERNS]
    slots = [{label: _template(half, label, size) for label in half.classes} for size in sizes]
    candidates = []
    for slot in _chosen(half, slots, partial(_pattern, half), carried, together=True):
        family = _pattern(half, slot)
        held = (half.shares * family.region(half.samples, half.rows)).flatten(1).sum(1)
        shares = {label: float(half.mean(held, label)) for label in slot}
        candidates.append(Candidates(family, _pattern(half, _other_patches(half, slot)), shares))
    return candidates


def _pattern(half: Half, slot: Slot) -> Pattern:
    sources = half.table({label: (each[4],) * 4 for label, each in slot.items()})[:, 0]
    return Pattern.of(half.samples, half.table(slot), sources)


def _template(half: Half, label: int, size: tuple[int, int]) -> tuple[int, ...]:
    """The patch of great effect in a picture of the class that is most alike in the others of it, and in no others."""
    mine = (half.labels == label).nonzero()[:, 0]
    own = half.rows[mine[:TEMPLATES]].tolist()
    boxes = best_boxes(half.effects[mine[:TEMPLATES]], size)
    patches = torch.cat([half.samples.patch(row, box) for row, box in zip(own, boxes, strict=True)])
    others = (half.labels != label).nonzero()[:, 0]
    compared = [_some(mine), _some(others)]
    likeness = half.samples.likeness(half.rows[torch.cat(compared)], patches).flatten(2).amax(2)
    alike, other = likeness.split([len(part) for part in compared])
    best = int((alike.mean(0) - other.mean(0)).argmax())
    return *boxes[best], own[best]


def _some(rows: Rows) -> Int64[Tensor, " some"]:
    """At most `COMPARED`, spread evenly; they lie class after class."""
    number = min(len(rows), COMPARED)
    return rows[torch.arange(number, device=rows.device) * len(rows) // number]


def _other_patches(half: Half, slot: Slot) -> Slot:
    """In the same pictures, the patch of greatest effect that does not touch the first."""
    effects = dict(zip(half.rows.tolist(), half.effects, strict=True))
    other = {label: effects.get(each[4], half.mean(half.effects, label)) for label, each in slot.items()}
    return {label: (*best_box(other[label], each[2:4], each[:4]), each[4]) for label, each in slot.items()}


def whole_pictures(half: Half, operators: Sequence[str]) -> list[Candidates]:
    """What needs no search: color and frequency, and all that is outside of the known evidence, named or not."""
    families: list[Family] = [own() for name, own in (("color", Color), ("frequency", Frequency)) if name in operators]
    if half.samples.evidence is not None:
        families.append(Background(bare="background" in operators))
    return [Candidates(family, None, dict.fromkeys(half.classes, math.nan)) for family in families]
