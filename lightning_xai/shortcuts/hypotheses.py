"""What may tell a class, as something that can be taken from one picture and put into another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from lightning_xai.functional.information import fill_holes
from lightning_xai.results.shortcuts import HypothesisKind
from lightning_xai.shapes import Images, Labels, Masks

Rows = Int64[Tensor, " rows"]
"""Samples by their place."""
Boxes = Int64[Tensor, " classes 4"]
"""Top, left, height, width of each class's; 0, 0, 0, 0 for none."""
OUTLINES = 4
"""Waves in the picture, down and across together, from which on they are looked at: longer ones draw the figures."""
Spreads = Float[Tensor, "batch 1 row column"]
"""Of each patch of an image."""
SEEN = 32
"""Height and width, about, in which patterns are looked for: larger pictures are made smaller."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The pictures that are looked at, and what the network says of them.

    Attributes:
        images: As the network takes them.
        told: Probabilities of the classes.
        evidence: Where the known evidence and its margin is; None if it is not known.
        low: Least value of a channel, (channel, 1, 1).
        high: Greatest value.
        bare: The known evidence without a margin.
    """

    images: Images
    told: Float[Tensor, "sample classes"]
    evidence: Masks | None
    low: Tensor
    high: Tensor
    bare: Masks | None = None

    @cached_property
    def predicted(self) -> Labels:
        """The class of each."""
        return self.told.argmax(1)

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    def outside(self, region: Masks, *pictures: Rows) -> Masks:
        """The region without the known evidence of these pictures."""
        for rows in pictures if self.evidence is not None else ():
            region = region & ~self.evidence[rows]  # type: ignore[index]
        return region

    @cached_property
    def small(self) -> Images:
        """The pictures in which patterns are looked for; the known evidence is filled."""
        images = self.images if self.evidence is None else fill_holes(self.images, ~self.evidence)
        return F.avg_pool2d(images, self.factor) if self.factor > 1 else images

    @cached_property
    def spectra(self) -> Tensor:
        """Of the pictures, as `spectrum` makes them."""
        return spectrum(self.images)

    def patch(self, row: int, box: Sequence[int]) -> Images:
        """Of a picture in which patterns are looked for, (1, channel, height, width)."""
        height, width = (max(1, round(length / self.factor)) for length in box[2:])
        top, left = (
            min(start // self.factor, length - own)
            for start, length, own in zip(box, self.small.shape[2:], (height, width), strict=False)
        )
        return self.small[row : row + 1, :, top : top + height, left : left + width]

    @property
    def factor(self) -> int:
        return max(1, min(self.size) // SEEN)

    def spread(self, size: tuple[int, int]) -> Spreads:
        """Of each patch of `small`, see `spreads`; made once for a size, for all who look for patches of it."""
        if size not in self._spreads:
            self._spreads[size] = spreads(self.small, size)
        return self._spreads[size]

    @cached_property
    def _spreads(self) -> dict[tuple[int, int], Spreads]:
        return {}

    def likeness(
        self, rows: Rows | slice, templates: Float[Tensor, "template channel _ _"]
    ) -> Float[Tensor, "rows template row column"]:
        """Correlations of the patches of pictures with templates."""
        height, width = templates.shape[2:]
        return correlations(self.small[rows], templates, self.spread((height, width))[rows])


class Family(ABC):
    """Hypotheses of a kind, one for each class: what tells the class of a picture lies there.

    What is known to be evidence is never taken, and nothing is put on it.
    """

    kind: ClassVar[HypothesisKind]

    @abstractmethod
    def swap(self, samples: Samples, rows: Rows, donors: Rows) -> Images:
        """The pictures with what tells the class of the donors in the place of what tells theirs.

        Args:
            samples: All.
            rows: The pictures.
            donors: Of each one.
        """

    @abstractmethod
    def fill(self, samples: Samples, rows: Rows) -> Images:
        """The pictures without what tells their class."""

    def region(self, samples: Samples, rows: Rows) -> Masks:
        """Where it is in each picture; everywhere for what has no place."""
        return samples.images.new_ones((len(rows), *samples.size), dtype=torch.bool)

    def share(self, samples: Samples, label: int) -> float:
        """How much of what may be evidence a swap replaces, as a share of the picture; 0 where that is known."""
        return 0.0

    def box(self, label: int) -> tuple[int, ...]:
        """Of a class; () without a place."""
        return ()

    def setting(self, samples: Samples, label: int) -> str:
        """What else describes it."""
        return ""

    def source(self, label: int) -> tuple[int, ...]:
        """The sample that its box is in, if it is in one."""
        return ()


@dataclass(frozen=True, eq=False)
class Place(Family):
    """A region that is the same in all pictures of a class.

    A swap replaces the regions of both classes: where a mark's place tells the class, one of them has it and the other
    has not.
    """

    kind = "place"
    boxes: Boxes

    def swap(self, samples: Samples, rows: Rows, donors: Rows) -> Images:
        region = self.region(samples, donors)
        region = samples.outside(region | self.region(samples, rows), rows, donors)
        return torch.where(region[:, None], samples.images[donors], samples.images[rows])

    def fill(self, samples: Samples, rows: Rows) -> Images:
        return _without(samples, rows, self.region(samples, rows))

    def region(self, samples: Samples, rows: Rows) -> Masks:
        return inside(self.boxes[samples.predicted[rows]], samples.size)

    def share(self, samples: Samples, label: int) -> float:
        """Of the area, that of the class's region and another class's, on average."""
        if samples.evidence is not None:
            return 0.0
        regions = inside(self.boxes[self.boxes[:, 2] > 0], samples.size)
        return float((regions | inside(self.boxes[label : label + 1], samples.size)).double().mean())

    def box(self, label: int) -> tuple[int, ...]:
        return tuple(self.boxes[label].tolist())


@dataclass(frozen=True, eq=False)
class Pattern(Family):
    """A patch that moves: in each picture where it is most like the class's template.

    A swap puts the donor's patch, as it is, where the picture's own class has its.

    Attributes:
        boxes: Of the template of each class in its picture; all of one size.
        sources: The picture.
        found: Top and left of each class's patch in each sample that it is looked for in, (sample, class, 2).
    """

    kind = "pattern"
    boxes: Boxes
    sources: Rows
    found: Int64[Tensor, "sample classes 2"]

    @classmethod
    def of(cls, samples: Samples, boxes: Boxes, sources: Rows) -> "Pattern":
        """The patches of these pictures, looked for where a swap asks for them.

        That is in the pictures of the class, and in those of classes without a patch of their own.
        """
        found = torch.zeros(len(samples.images), len(boxes), 2, dtype=torch.long, device=boxes.device)
        bare = boxes[samples.predicted, 2] == 0
        for label in boxes[:, 2].nonzero()[:, 0].tolist():
            rows = ((samples.predicted == label) | bare).nonzero()[:, 0]
            if len(rows):
                likeness = samples.likeness(rows, samples.patch(int(sources[label]), boxes[label].tolist()))[:, 0]
                place = likeness.flatten(1).argmax(1)
                at = torch.stack([place // likeness.shape[2], place % likeness.shape[2]], 1) * samples.factor
                found[rows, label] = torch.minimum(at, torch.tensor(samples.size, device=at.device) - boxes[label, 2:])
        return cls(boxes, sources, found)

    def swap(self, samples: Samples, rows: Rows, donors: Rows) -> Images:
        labels = samples.predicted
        replaced = self.boxes[labels[rows], 2:3] > 0
        at = torch.where(replaced, self._at(rows, labels[rows]), self._at(rows, labels[donors]))
        (height, width), size = samples.size, self.boxes[labels[donors], 2:]
        shift = self._at(donors, labels[donors]) - at
        row = torch.arange(height, device=at.device) + shift[:, :1]
        column = torch.arange(width, device=at.device) + shift[:, 1:]
        moved = _moved(samples.images[donors], row, column)
        region = inside(torch.cat([at, size], 1), samples.size)
        region = samples.outside(region, rows)
        if samples.evidence is not None:
            region = region & ~_moved(samples.evidence[donors][:, None], row, column)[:, 0]
        return torch.where(region[:, None], moved, samples.images[rows])

    def fill(self, samples: Samples, rows: Rows) -> Images:
        return _without(samples, rows, self.region(samples, rows))

    def region(self, samples: Samples, rows: Rows) -> Masks:
        labels = samples.predicted[rows]
        return inside(torch.cat([self._at(rows, labels), self.boxes[labels, 2:]], 1), samples.size)

    def share(self, samples: Samples, label: int) -> float:
        if samples.evidence is not None:
            return 0.0
        return float(self.boxes[label, 2:].prod()) / (samples.size[0] * samples.size[1])

    def source(self, label: int) -> tuple[int, ...]:
        return (int(self.sources[label]),)

    def _at(self, rows: Rows, labels: Labels) -> Int64[Tensor, "rows 2"]:
        return self.found[rows, labels]

    def box(self, label: int) -> tuple[int, ...]:
        return tuple(self.boxes[label].tolist())


@dataclass(frozen=True, eq=False)
class Color(Family):
    """The mean color of a picture, as the ratio of its channels.

    Each pixel gets the difference of the two mean colors in proportion to its own brightness, the greatest of its
    channels: what is of one color takes on the other, and differences of color within a picture stay.
    """

    kind = "color"

    def swap(self, samples: Samples, rows: Rows, donors: Rows) -> Images:
        return self._tinted(samples, rows, self._tint(samples, donors))

    def fill(self, samples: Samples, rows: Rows) -> Images:
        return self._tinted(samples, rows, torch.ones_like(self._tint(samples, rows)))

    @staticmethod
    def _unit(samples: Samples, rows: Rows) -> Images:
        return (samples.images[rows] - samples.low) / (samples.high - samples.low)

    def _tint(self, samples: Samples, rows: Rows) -> Tensor:
        means = self._unit(samples, rows).mean((2, 3), keepdim=True)
        return means / means.amax(1, keepdim=True).clamp(min=1e-6)

    def _tinted(self, samples: Samples, rows: Rows, tint: Tensor) -> Images:
        unit = self._unit(samples, rows)
        changed = (unit + unit.amax(1, keepdim=True) * (tint - self._tint(samples, rows))).clamp(0, 1)
        return samples.low + changed * (samples.high - samples.low)


@dataclass(frozen=True, eq=False)
class Background(Family):
    """All that is not known to be evidence; where the donor has its own, the hole is filled from around it.

    Attributes:
        bare: Whether the margin of the evidence belongs to it.
    """

    kind = "background"
    bare: bool = False

    def swap(self, samples: Samples, rows: Rows, donors: Rows) -> Images:
        others = fill_holes(samples.images[donors], self.region(samples, donors))
        return torch.where(self.region(samples, rows)[:, None], others, samples.images[rows])

    def fill(self, samples: Samples, rows: Rows) -> Images:
        mean = samples.images.mean((0, 2, 3), keepdim=True)
        return torch.where(self.region(samples, rows)[:, None], mean, samples.images[rows])

    def region(self, samples: Samples, rows: Rows) -> Masks:
        evidence = samples.bare if self.bare else samples.evidence
        assert evidence is not None
        return ~evidence[rows]


@dataclass(frozen=True, eq=False)
class Frequency(Family):
    """How strong the waves of a picture are, of which at least four fit into it; longer ones draw the figures.

    Where their crests lie stays as it was, so that outlines, which are made of waves too, stay where they are.
    """

    kind = "frequency"

    def swap(self, samples: Samples, rows: Rows, donors: Rows) -> Images:
        return self._made(samples, rows, samples.spectra[donors].abs())

    def fill(self, samples: Samples, rows: Rows) -> Images:
        return self._made(samples, rows, samples.spectra.abs().mean(0, keepdim=True))

    @staticmethod
    def _made(samples: Samples, rows: Rows, amplitudes: Tensor) -> Images:
        own = samples.spectra[rows]
        changed = torch.where(_short(own), torch.polar(amplitudes.expand(own.shape), own.angle()), own)
        made = torch.fft.irfft2(torch.fft.ifftshift(changed, dim=-2), s=samples.size)
        return torch.minimum(torch.maximum(made.to(samples.images.dtype), samples.low), samples.high)

    def setting(self, samples: Samples, label: int) -> str:
        """The wave that is more than twice as strong in the class as in others, the one most so; nothing without."""
        amplitudes, mine = samples.spectra.abs().mean(1), samples.predicted == label
        own, others = amplitudes[mine].mean(0), amplitudes[~mine].mean(0)
        more = torch.where(_short(own), (own - others) / (own + others).clamp(min=1e-6), -1)
        down, across = divmod(int(more.argmax()), more.shape[1])
        if more.max() < 1 / 3:
            return ""
        return f"{abs(down - len(more) // 2)} down, {across} across"


def _short(spectra: Tensor) -> Masks:
    """Which waves of a half plane fit so often into the picture."""
    height, width = spectra.shape[-2:]
    down = torch.arange(height, device=spectra.device)[:, None] - height // 2
    return torch.hypot(down.double(), torch.arange(width, device=spectra.device).double()) >= OUTLINES


def spectrum(images: Images) -> Tensor:
    """Half plane, rows from the lowest negative frequency on; at least in single precision."""
    return torch.fft.fftshift(torch.fft.rfft2(images.to(torch.promote_types(images.dtype, torch.float32))), dim=-2)


def inside(boxes: Int64[Tensor, " rows 4"], size: Sequence[int]) -> Masks:
    """The boxes as masks."""
    top, left, height, width = boxes.T[:, :, None, None]
    row, column = (torch.arange(length, device=boxes.device) for length in size)
    vertical = (row[:, None] >= top) & (row[:, None] < top + height)
    return vertical & (column >= left) & (column < left + width)


def correlations(
    images: Images, templates: Float[Tensor, "template channel _ _"], known: Spreads | None = None
) -> Float[Tensor, "batch template row column"]:
    """Normalized correlation of each patch of the images with each template; flat patches are like nothing.

    Args:
        images: That are searched.
        templates: What for.
        known: `spreads` of the images, if somebody has them.
    """
    centered = templates - templates.mean((1, 2, 3), keepdim=True)
    norms = centered.flatten(1).norm(dim=1).clamp(min=1e-6).view(1, -1, 1, 1)
    own = spreads(images, templates.shape[2:]) if known is None else known
    return F.conv2d(images, centered).div_(torch.maximum(own, norms / 2).mul_(norms))


def spreads(images: Images, size: Sequence[int]) -> Spreads:
    """Norm of the deviations of each patch's values from their mean."""
    means, squares = (F.avg_pool2d(power.mean(1, keepdim=True), tuple(size), 1) for power in (images, images.square()))
    return ((squares - means.square()).clamp(min=0) * (images.shape[1] * size[0] * size[1])).sqrt()


def _moved(images: Tensor, row: Int64[Tensor, "batch row"], column: Int64[Tensor, "batch column"]) -> Tensor:
    """Pixel (row, column) of each image at each place; those of the edge beyond it."""
    rows = row.clamp(0, images.shape[2] - 1)[:, None, :, None].expand(-1, images.shape[1], -1, images.shape[3])
    columns = column.clamp(0, images.shape[3] - 1)[:, None, None, :].expand_as(rows)
    return images.gather(2, rows).gather(3, columns)


def _without(samples: Samples, rows: Rows, region: Masks) -> Images:
    """The pictures with a region filled from around it."""
    return fill_holes(samples.images[rows], ~samples.outside(region, rows))
