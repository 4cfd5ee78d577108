"""Pictures that show what a finding is: before and after an intervention, with probabilities and the region."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_xai.explainers.base import Bound
from lightning_xai.outputs import Logit, Output
from lightning_xai.results.shortcuts import Finding
from lightning_xai.shapes import Images, Labels, Masks
from lightning_xai.shortcuts.audit import Audit, audited
from lightning_xai.shortcuts.find import in_turn
from lightning_xai.shortcuts.hypotheses import Background, Color, Family, Frequency, Pattern, Place, Rows, Samples

TRIED = 8
"""Donors of each picture."""


@dataclass(frozen=True)
class Example:
    """A picture of a finding's class, before and after another class's content was put there.

    Attributes:
        index: The sample's.
        before: (channel, height, width), as the network takes it.
        after: Likewise.
        region: Where it is; all of the picture for what has no place.
        probability: Probability of the finding's class, before.
        probability_after: After.
        predicted_after: The class that is predicted then.

    Example:
        >>> import torch
        >>> from lightning_xai.shortcuts import Example
        >>> before, region = torch.ones(1, 4, 4), torch.zeros(4, 4, dtype=torch.bool)
        >>> Example(7, before, before * 0, region, 0.9, 0.2, predicted_after=3).predicted_after
        3
    """

    index: int
    before: Float[Tensor, "channel height width"]
    after: Float[Tensor, "channel height width"]
    region: Bool[Tensor, "height width"]
    probability: float
    probability_after: float
    predicted_after: int


def shown(
    model: nn.Module,
    images: Images,
    finding: Finding,
    *,
    masks: Masks | None = None,
    bounds: tuple[Bound, Bound] | None = None,
    index: Labels | None = None,
    output: Output = Logit(),
    seed: int = 0,
    most: int = 6,
    max_rows: int | None = None,
) -> tuple[Example, ...]:
    """The pictures that show a finding best, those that it names as `examples`; arguments as in `find_shortcuts`.

    Each gets the content of a picture that is predicted as another class, of several tried that which lowers the
    class's probability most; those that are the class then as well are left out. The background is all that is outside
    of the masks, also their margin.

    Args:
        model: The network that the finding is of.
        images: The samples that it was found on.
        finding: What is shown.
        masks: The known evidence.
        bounds: (low, high) of the values.
        index: Sample indices.
        output: What is explained.
        seed: That of the search.
        most: Pictures, at most.
        max_rows: Rows at once.

    Raises:
        TypeError: as `find_shortcuts`.
        ValueError: as `find_shortcuts`; if an example is not among the samples.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> class Corner(torch.nn.Module):
        ...     def forward(self, images):
        ...         return 20 * torch.stack([0.5 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.5], 1)
        >>> images = torch.rand(128, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> masks = torch.zeros(128, 8, 8, dtype=torch.bool)
        >>> masks[:, 3:6, 3:6] = True
        >>> report = lx.find_shortcuts(Corner(), images, masks=masks)
        >>> example = lx.shortcuts.shown(Corner(), images, report.shortcuts[0], masks=masks)[0]
        >>> example.probability > 0.9, example.probability_after < 0.1, bool(example.region[0, 0])
        (True, True, True)
    """
    with audited(model, images, masks, bounds, index, output, seed, max_rows) as audit:
        return shown_in(audit, finding, most)


def shown_in(audit: Audit, finding: Finding, most: int) -> tuple[Example, ...]:
    """The same in an audit, which several findings can share."""
    place = {number: row for row, number in enumerate(audit.index.tolist())}
    if missing := [number for number in finding.examples if number not in place]:
        raise ValueError(f"`images` must hold the samples of the finding, but {missing[0]} is not among `index`.")
    rows = torch.tensor([place[number] for number in finding.examples[:most]], dtype=torch.long)
    return _examples(audit, finding, rows.to(audit.samples.images.device))


def _examples(audit: Audit, finding: Finding, rows: Rows) -> tuple[Example, ...]:
    samples, label = audit.samples, finding.label
    family = family_of(samples, finding, audit.index)
    turn = in_turn(audit.index, audit.conditions.seed, 2).to(rows.device)
    donors = turn[samples.predicted[turn] != label][:TRIED]
    if not len(donors):
        raise ValueError("`images` must hold a sample that is predicted as another class than that of the finding.")
    every, given = rows.repeat_interleave(len(donors)), donors.repeat(len(rows))
    told = audit.ask(lambda r, d: family.swap(samples, r, d), every, given).view(len(rows), len(donors), -1)
    best = told[:, :, label].argmin(1)
    after, regions = family.swap(samples, rows, donors[best]), family.region(samples, rows)
    made = []
    for number, row in enumerate(rows.tolist()):
        then = told[number, best[number]]
        if int(then.argmax()) == label:
            continue
        made.append(
            Example(
                int(audit.index[row]),
                samples.images[row],
                after[number],
                regions[number],
                float(samples.told[row, label]),
                float(then[label]),
                int(then.argmax()),
            )
        )
    return tuple(made)


def family_of(samples: Samples, finding: Finding, index: Labels) -> Family:
    """The hypothesis of a finding, as one of its class alone; a pattern is looked for in pictures of all classes."""
    boxes = torch.zeros(samples.told.shape[1], 4, dtype=torch.long, device=samples.images.device)
    if finding.kind == "color":
        return Color()
    if finding.kind == "background":
        return Background(bare=True)
    if finding.kind == "frequency":
        return Frequency()
    if finding.kind == "place":
        boxes[finding.label] = torch.tensor(finding.box)
        return Place(boxes)
    source = int((index == finding.examples[0]).nonzero()[0])
    return Pattern.of(samples, boxes + torch.tensor(finding.box), torch.full((len(boxes),), source))
