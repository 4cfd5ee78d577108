"""Which regions and waves may tell a class: by a gradient a picture, and by trials on the same half of the samples."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool
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
    correlations,
    spectrum,
)

PLACES = ((1 / 7, 1 / 7), (1 / 4, 1 / 4), (1 / 7, 1 / 2), (1 / 2, 1 / 7))
"""Heights and widths of places, as shares of the picture's."""
SMALL = 0.03
"""Area of a place, as a share of the picture, up to which three of each class are tried."""
PATTERNS = (1 / 7, 1 / 5)
"""Heights and widths of patterns, likewise."""
TEMPLATES = 12
"""Pictures of a class whose patches are compared with all others."""
BAND = (3, 3)
"""Waves down and across that are taken together."""
TRIALS = 36
"""Pictures of other classes that a candidate is tried on."""
SIMPLER = 0.8
"""Share of the greatest gain from which on the smallest candidate is taken."""

Turns = Mapping[int, tuple[Tensor, Tensor]]
"""The samples of each class, by their place, in two orders."""
Ask = Callable[..., Tensor]
"""Probabilities of the classes, (rows, classes), for what a function makes of rows, such as pictures and donors."""
Needed = Callable[[Family, int], float]
"""Sufficiency that a family's hypothesis about a class has to show."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """A family, what it is compared with, and the share of the attribution in each class's region.

    Attributes:
        control: Matched in size, content and attribution; None where donors of the same class are the control.
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

    Args:
        classes: The samples of each, in two orders.
        number: Pairs.
    """
    each = -(-number // max(1, len(classes) - 1))
    turn = torch.arange(each)
    made = [
        (images[turn % len(images)], donors[(turn + each * place) % len(donors)])
        for label, (_, donors) in classes.items()
        for place, (other, (images, _)) in enumerate(classes.items())
        if other != label
    ]
    rows, donors = (torch.cat(part) for part in zip(*made, strict=True))
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
        gradients: Of each row.
        ask: What the network says.
        needed: Which sufficiency.
    """

    samples: Samples
    rows: Rows
    classes: Turns
    effects: Maps
    shares: Maps
    gradients: Images
    ask: Ask
    needed: Needed

    @property
    def labels(self) -> Labels:
        return self.samples.predicted[self.rows]

    def mean(self, maps: Tensor, label: int) -> Tensor:
        """Of a class's rows."""
        return maps[self.labels == label].mean(0)


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
    known = samples.outside(torch.ones_like(images[:, 0], dtype=torch.bool), rows)
    effects = (maps * contrast if signed else maps).sum(1) * known
    return Half(samples, rows, classes, _normalized(effects), _normalized(maps.abs().sum(1) * known), maps, ask, needed)


def _normalized(maps: Tensor) -> Tensor:
    return maps / maps.abs().flatten(1).sum(1).clamp(min=1e-12).view(-1, *[1] * (maps.ndim - 1))


def lowest_mean(values: Sequence[Tensor | float], share: float) -> float:
    """Mean of the lowest share of the values, at least one."""
    ordered = torch.as_tensor(values, dtype=torch.double).sort().values
    return float(ordered[: max(1, round(share * len(ordered)))].mean())


def find_places(half: Half, carried: Mapping[int, Sequence[int]]) -> list[Candidates]:
    """The place of each class that moves others most to it, and where an earlier one was.

    Where no evidence is known, the small ones and the larger ones apart, which have more of it.
    """
    if half.samples.evidence is not None:
        return _places(half, PLACES, carried)
    return [*_places(half, PLACES[:1], carried), *_places(half, PLACES[1:], {})]


def _places(half: Half, sizes: Sequence[tuple[float, float]], carried: Mapping[int, Sequence[int]]) -> list[Candidates]:
    slots = [{label: carried[label] for label in carried if label in half.classes}] if carried else []
    for height, width in (_pixels(shares, half.samples.size) for shares in sizes):
        maps = {label: half.mean(half.effects, label) for label in half.classes}
        slots.append({label: best_box(found, (height, width)) for label, found in maps.items()})
        if height * width <= SMALL * half.effects[0].numel():
            slots.append({label: best_box(found, (height, width), slots[-1][label]) for label, found in maps.items()})
            slots.append({label: best_box(_excess(half, label), (height, width)) for label in half.classes})
    return [
        Candidates(Place(boxes), Place(_matched_places(half, boxes)), _attributed(half, boxes))
        for boxes in _chosen(half, slots, Place, carried)
    ]


def _excess(half: Half, label: int) -> Maps:
    """Of the attribution in pictures of the class over that in others."""
    return half.mean(half.shares, label) - half.shares[half.labels != label].mean(0)


def _pixels(shares: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
    height, width = (max(2, round(share * length)) for share, length in zip(shares, size, strict=True))
    return min(height, size[0] - 1), min(width, size[1] - 1)


def best_box(values: Tensor, size: tuple[int, int], avoid: Sequence[int] | None = None) -> tuple[int, int, int, int]:
    """The window with the greatest sum; or the greatest that does not touch another one."""
    sums = window_sums(values, size)
    if avoid is not None:
        sums = sums.masked_fill(window_sums(_mask(avoid, values).to(values), size) > 0.5, -torch.inf)
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return top, left, *size


def window_sums(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Of each window of a map."""
    return F.avg_pool2d(values[None, None], size, 1)[0, 0] * (size[0] * size[1])


def _mask(box: Sequence[int], like: Tensor) -> Tensor:
    top, left, height, width = box
    mask = torch.zeros_like(like, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _chosen(
    half: Half,
    slots: Sequence[Mapping[int, Sequence[int]]],
    make: Callable[[Boxes], Family],
    carried: Mapping[int, Sequence[int]],
) -> list[Boxes]:
    """The boxes of each class that gain most for their size, and those of an earlier time where they are others."""
    families = [make(_table(half, slot)) for slot in slots]
    gains = [_gains(half, family, slot) for family, slot in zip(families, slots, strict=True)]
    found, earlier = _table(half, {}), _table(half, {})
    for label in half.classes:
        scored = []
        for slot, family, gained in zip(slots, families, gains, strict=True):
            if label in slot:
                scored.append((gained[label] / max(1e-6, half.needed(family, label)), slot[label]))
        most = max(score for score, _ in scored)
        good = [box for score, box in scored if score >= SIMPLER * most] or [max(scored)[1]]
        box = min(good, key=lambda box: box[2] * box[3])
        if label in carried:
            if overlap(box, carried[label]) >= 0.3:
                box = carried[label]
            else:
                earlier[label] = torch.tensor(carried[label])
        found[label] = torch.tensor(box)
    if not earlier.any():
        return [found]
    return [found, torch.where(earlier.any(1, keepdim=True), earlier, found)]


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Intersection of two boxes over their union."""
    height, width = (max(0, min(one[k] + one[k + 2], other[k] + other[k + 2]) - max(one[k], other[k])) for k in (0, 1))
    return height * width / max(1, one[2] * one[3] + other[2] * other[3] - height * width)


def _table(half: Half, boxes: Mapping[int, Sequence[int]]) -> Boxes:
    """A row for each class, also those that are not looked at."""
    table = torch.zeros(int(half.samples.predicted.max()) + 1, 4, dtype=torch.long, device=half.samples.images.device)
    for label, box in boxes.items():
        table[label] = torch.tensor(box)
    return table


def _gains(half: Half, family: Family, slot: Collection[int]) -> dict[int, float]:
    """By how much the donors' class becomes more probable after a swap, by class."""
    rows, donors = pairs(half.classes, TRIALS)
    labels, sources = half.samples.predicted[donors], half.samples.predicted[rows]
    told = torch.isin(labels, torch.tensor(list(slot), device=labels.device))
    rows, donors, labels, sources = rows[told], donors[told], labels[told], sources[told]
    after = half.ask(lambda r, d: family.swap(half.samples, r, d), rows, donors)
    rise = (after - half.samples.told[rows]).gather(1, labels[:, None])[:, 0]
    groups = {label: [(labels == label) & (sources == other) for other in half.classes] for label in slot}
    return {
        label: float(torch.stack([rise[g].mean() for g in each if g.any()]).mean()) for label, each in groups.items()
    }


def _attributed(half: Half, boxes: Boxes) -> dict[int, float]:
    return {
        label: float(half.mean(half.shares, label)[_mask(boxes[label].tolist(), half.shares[0])].sum())
        for label in half.classes
    }


def _matched_places(half: Half, boxes: Boxes) -> Boxes:
    """For each class a window of the same size, on no class's place, of nearest content and attribution."""
    matched = _table(half, {})
    for label in half.classes:
        box = tuple(boxes[label].tolist())
        size = box[2], box[3]
        mine = half.rows[half.labels == label]
        images = half.samples.images[mine]
        content = (images * half.samples.outside(torch.ones_like(images[:, 0], dtype=torch.bool), mine)[:, None]).var(0)
        taken = torch.zeros_like(content[0])
        for other in half.classes:
            taken += _mask(boxes[other].tolist(), taken)
        distance = 1e3 * window_sums(taken, size) / (size[0] * size[1])
        distance += 1e3 * window_sums(_mask(box, taken).to(taken), size)
        for values in (content.sum(0), half.mean(half.shares, label)):
            logs = window_sums(values, size).clamp(min=1e-6).log()
            distance += (logs - logs[box[0], box[1]]).abs()
        top, left = divmod(int(distance.argmin()), distance.shape[1])
        matched[label] = torch.tensor((top, left, *size))
    return matched


def find_patterns(half: Half, carried: Mapping[int, tuple[int, Sequence[int]]]) -> list[Candidates]:
    """The patch of each class that is in its pictures and in no others, and moves others most to it."""
    slots: list[dict[int, tuple[int, tuple[int, ...]]]] = []
    for size in (_pixels((share, share), half.samples.size) for share in PATTERNS):
        ranked = {label: _template(half, label, size) for label in half.classes}
        slots.append(ranked)
    if carried:
        slots.append({label: (row, tuple(box)) for label, (row, box) in carried.items() if label in half.classes})
    families = [_pattern(half, slot) for slot in slots]
    gains = [_gains(half, family, slot) for family, slot in zip(families, slots, strict=True)]
    best = {
        label: max(
            (gained[label] / max(1e-6, half.needed(family, label)), number)
            for number, (slot, family, gained) in enumerate(zip(slots, families, gains, strict=True))
            if label in slot
        )[1]
        for label in half.classes
    }
    chosen = {label: slots[number][label] for label, number in best.items()}
    found = [chosen]
    if carried and any(chosen[label] != slots[-1][label] for label in slots[-1]):
        found.append({**chosen, **slots[-1]})
    return [
        Candidates(family := _pattern(half, slot), _pattern(half, _other_patches(half, slot)), _moving(half, family))
        for slot in found
    ]


def _pattern(half: Half, slot: Mapping[int, tuple[int, Sequence[int]]]) -> Pattern:
    boxes = _table(half, {label: box for label, (_, box) in slot.items()})
    sources = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
    for label, (row, _) in slot.items():
        sources[label] = row
    return Pattern.of(half.samples, boxes, sources)


def _template(half: Half, label: int, size: tuple[int, int]) -> tuple[int, tuple[int, ...]]:
    """The patch of great effect in a picture of the class that is most alike in the others of it, and in no others."""
    own = half.rows[half.labels == label][:TEMPLATES].tolist()
    boxes = [best_box(effects, size) for effects in half.effects[half.labels == label][:TEMPLATES]]
    patches = torch.cat([half.samples.patch(row, box) for row, box in zip(own, boxes, strict=True)])
    likeness = correlations(half.samples.small[half.rows], patches).flatten(2).amax(2)
    mine = half.labels == label
    presence = likeness[mine].mean(0) - likeness[~mine].mean(0)
    best = int(presence.argmax())
    return own[best], boxes[best]


def _other_patches(half: Half, slot: Mapping[int, tuple[int, Sequence[int]]]) -> dict[int, tuple[int, tuple[int, ...]]]:
    """In the same pictures, the patch of greatest effect that does not touch the first."""
    made: dict[int, tuple[int, tuple[int, ...]]] = {}
    for label, (row, box) in slot.items():
        at = (half.rows == row).nonzero()
        effects = half.effects[at[0, 0]] if len(at) else half.mean(half.effects, label)
        made[label] = (row, best_box(effects, (box[2], box[3]), box))
    return made


def _moving(half: Half, family: Family) -> dict[int, float]:
    held = (half.shares * family.region(half.samples, half.rows)).flatten(1).sum(1)
    return {label: float(held[half.labels == label].mean()) for label in half.classes}


def find_waves(half: Half, carried: Mapping[int, Sequence[int]]) -> list[Candidates]:
    """The narrow band of each class whose amplitudes move others most to it."""
    waves, slopes = spectrum(half.samples.images[half.rows]), spectrum(half.gradients)
    amplitudes = waves.abs()
    means = {label: half.mean(amplitudes, label) for label in half.classes}
    slots: list[dict[int, tuple[int, ...]]] = [{}, {}]
    for label in half.classes:
        others = torch.stack([mean for other, mean in means.items() if other != label]).mean(0)
        mine = half.labels == label
        change = waves[mine] * (1 - others / amplitudes[mine].clamp(min=1e-6))
        effects = _normalized((slopes[mine].conj() * change).real.sum(1)).mean(0)
        effects[len(effects) // 2, 0] = 0  # of the mean
        slots[0][label] = best_box(effects, BAND)
        slots[1][label] = best_box(effects, BAND, slots[0][label])
    if carried:
        slots.insert(0, {label: tuple(box) for label, box in carried.items() if label in half.classes})
    return [
        Candidates(
            Frequency(boxes), Frequency(_matched_bands(half, boxes, means)), dict.fromkeys(half.classes, torch.nan)
        )
        for boxes in _chosen(half, slots, Frequency, carried)
    ]


def _matched_bands(half: Half, boxes: Boxes, means: Mapping[int, Tensor]) -> Boxes:
    """For each class a band of the same size on no class's, of the nearest amplitude."""
    matched = _table(half, {})
    for label, mean in means.items():
        amplitude = mean.sum(0)
        taken = torch.zeros_like(amplitude)
        for other in half.classes:
            taken += _mask(boxes[other].tolist(), taken)
        box = boxes[label].tolist()
        sums = window_sums(amplitude, BAND).clamp(min=1e-6).log()
        distance = (sums - sums[box[0], box[1]]).abs() + 1e3 * window_sums(taken, BAND)
        top, left = divmod(int(distance.argmin()), distance.shape[1])
        matched[label] = torch.tensor((top, left, *BAND))
    return matched


def whole_pictures(half: Half, operators: Sequence[str]) -> list[Candidates]:
    """Operators that need no search."""
    families: list[Family] = [Color()] if "color" in operators and half.samples.images.shape[1] > 1 else []
    if "background" in operators and half.samples.evidence is not None:
        families.append(Background())
    return [Candidates(family, None, {}) for family in families]
