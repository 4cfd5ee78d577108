"""Does an attribution point at the evidence: one score a sample, against a mask of the evidence.

`absolute` is True by default: the sign of a gradient says in which direction the evidence would grow, not
where the evidence is. `absolute=False` is the literal reading, in which negative values rank last.

Tied values count with what they are worth on average over all orders in which they could be ranked, so a
score does not depend on the order in which a sorting routine happens to leave them. A constant map scores
chance: the mask's share of the pixels (rank accuracy) or 0.5 (AUROC). A map with a NaN scores NaN.
"""

import math

import torch
from torch import Tensor

from lightning_xai.functional.maps import mask_like, pixel_map
from lightning_xai.shapes import Scores


def relevance_rank_accuracy(attributions: Tensor, mask: Tensor, absolute: bool = True) -> Scores:
    """Share of the K highest values that lie inside the mask of K pixels; in [0, 1], higher is better.

    Arras et al. 2022 (CLEVR-XAI). Where the K-th value is tied, the ties share the places that are left. NaN
    where the mask is empty.

    Args:
        attributions: (batch, channel, height, width).
        mask: boolean, (batch, height, width) or (batch, 1, height, width).
        absolute: rank the absolute values of the channel sums.
    """
    maps = pixel_map(attributions, absolute)
    values, inside = maps.flatten(1), mask_like(mask, maps).flatten(1)
    size = inside.sum(1)
    last_place = values.sort(1, descending=True).values.gather(1, (size - 1).clamp(min=0)[:, None])
    above, tied = values > last_place, values == last_place
    places_left = size - above.sum(1)
    hits = (above & inside).sum(1) + places_left * (tied & inside).sum(1) / tied.sum(1)
    return _defined_only(hits / size, values, size > 0)


def auroc(attributions: Tensor, mask: Tensor, absolute: bool = True) -> Scores:
    """Area under the ROC curve of the values as a detector of the mask; in [0, 1], higher is better.

    The probability that a pixel inside the mask has a higher value than a pixel outside it, ties counting one
    half (Mann-Whitney's U over the number of pairs). NaN where the mask is empty or covers everything.

    Args:
        attributions: (batch, channel, height, width).
        mask: boolean, (batch, height, width) or (batch, 1, height, width).
        absolute: rank the absolute values of the channel sums.
    """
    maps = pixel_map(attributions, absolute)
    values, inside = maps.flatten(1), mask_like(mask, maps).flatten(1)
    size = inside.sum(1)
    pairs = size * (values.shape[1] - size)
    # Twice the rank, because it is an integer also for ties: the sums below are exact for any image size.
    u_doubled = (_doubled_ranks(values) * inside).sum(1) - size * (size + 1)
    return _defined_only(u_doubled / (2 * pairs), values, pairs > 0)


def _doubled_ranks(values: Tensor) -> Tensor:
    """Twice the average rank of each value in its row: (number below + 1) + (number not above)."""
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    return below + not_above + 1


def _defined_only(scores: Tensor, values: Tensor, defined: Tensor) -> Tensor:
    return torch.where(defined & ~values.isnan().any(1), scores, math.nan)
