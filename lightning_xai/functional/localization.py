"""Does an attribution point at the evidence: one score a sample, against a mask of the evidence.

`absolute` is True by default: the sign of a gradient says in which direction the evidence would grow, not
where the evidence is. `absolute=False` is the literal reading, in which negative values rank last.

Tied values count with what they are worth on average over all orders in which they could be ranked, so a
score does not depend on the order in which a sorting routine happens to leave them. A constant map, also of
zeros, scores chance: 0.5 for the AUROC, the mask's share of the pixels for the others. The relevance mass
accuracy ranks nothing: ties need no rule there, and a map of zeros has no score.

A map with a NaN or an infinity scores NaN. No score depends on the attribution's scale. `pixel_map` says what half
precision is computed in.
"""

import math

import torch
from torch import Tensor

from lightning_xai.functional.maps import mask_like, scored_map
from lightning_xai.shapes import Scores


def relevance_rank_accuracy(attributions: Tensor, mask: Tensor, absolute: bool = True) -> Scores:
    """Share of the K highest values that lie inside the mask of K pixels; in [0, 1], higher is better.

    Arras et al. 2022 (CLEVR-XAI). Where the K-th value is tied, the ties share the places that are left. NaN
    where the mask is empty.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
        mask: boolean, one value a place, with or without an axis of one channel.
        absolute: rank the absolute values of the channel sums.
    """
    maps = scored_map(attributions, absolute)
    values, inside = maps.flatten(1), mask_like(mask, maps).flatten(1)
    size = inside.sum(1)
    return _defined_only(_hits(values, inside, size) / size, values, size > 0)


def top_k_intersection(attributions: Tensor, mask: Tensor, k: int, absolute: bool = True) -> Scores:
    """Share of the `k` highest values that lie inside the mask; in [0, 1], higher is better.

    Theiner et al. 2022. The best score is 1 for a mask of `k` pixels or more, and its size over `k` for a
    smaller one. NaN where the mask is empty.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
        mask: boolean, one value a place, with or without an axis of one channel.
        k: number of pixels.
        absolute: rank the absolute values of the channel sums.

    Raises:
        ValueError: if `k` is less than 1 or more than there are pixels.
    """
    maps = scored_map(attributions, absolute)
    values, inside = maps.flatten(1), mask_like(mask, maps).flatten(1)
    if not 1 <= k <= values.shape[1]:
        raise ValueError(
            f"`k` must be in 1 .. {values.shape[1]}, the number of pixels of the attributions; got {k}. "
            "Choose about as many pixels as the evidence has."
        )
    hits = _hits(values, inside, torch.full((len(values),), k, device=values.device))
    return _defined_only(hits / k, values, inside.any(1))


def pointing_game(attributions: Tensor, mask: Tensor, absolute: bool = True) -> Scores:
    """Whether the highest value lies inside the mask: 1 for a hit, 0 for a miss; higher is better.

    Zhang et al. 2018, without their tolerance of 15 pixels around the object. Where the highest value is tied,
    the share of the ties that lie inside. NaN where the mask is empty.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
        mask: boolean, one value a place, with or without an axis of one channel.
        absolute: rank the absolute values of the channel sums.
    """
    return top_k_intersection(attributions, mask, 1, absolute)


def relevance_mass_accuracy(attributions: Tensor, mask: Tensor, absolute: bool = True) -> Scores:
    """Share of the attribution's mass that lies inside the mask; in [0, 1], higher is better.

    Arras et al. 2022 (CLEVR-XAI). Mass is never negative. Of the paper's ways to pool channels, `absolute=True` is
    the absolute value of their sum (evidence for and against the class), `absolute=False` its positive part
    (evidence for it alone: negative values are left out of the total too). A constant map with mass scores
    the mask's share of the pixels. NaN where the mask is empty, or there is no mass.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
        mask: boolean, one value a place, with or without an axis of one channel.
        absolute: the mass is the absolute value of the channel sums, not their positive part.
    """
    maps = scored_map(attributions, absolute)
    mass, inside = maps.flatten(1).clamp(min=0), mask_like(mask, maps).flatten(1)
    # Dividing by the greatest value keeps the sums of tiny and huge values in the range of float32.
    mass = mass / mass.amax(1, keepdim=True)
    return _defined_only((mass * inside).sum(1) / mass.sum(1), mass, inside.any(1))


def auroc(attributions: Tensor, mask: Tensor, absolute: bool = True) -> Scores:
    """Area under the ROC curve of the values as a detector of the mask; in [0, 1], higher is better.

    The probability that a pixel inside the mask has a higher value than a pixel outside it, ties counting one
    half (Mann-Whitney's U over the number of pairs). NaN where the mask is empty or covers everything.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
        mask: boolean, one value a place, with or without an axis of one channel.
        absolute: rank the absolute values of the channel sums.
    """
    maps = scored_map(attributions, absolute)
    values, inside = maps.flatten(1), mask_like(mask, maps).flatten(1)
    size = inside.sum(1)
    pairs = size * (values.shape[1] - size)
    # Twice the rank, because it is an integer also for ties: the sums below are exact for any image size.
    u_doubled = (_doubled_ranks(values) * inside).sum(1) - size * (size + 1)
    return _defined_only(u_doubled / (2 * pairs), values, pairs > 0)


def _hits(values: Tensor, inside: Tensor, places: Tensor) -> Tensor:
    """How many of the first `places` (one number a row) are inside; ties share the places that are left to them."""
    last_place = values.sort(1, descending=True).values.gather(1, (places - 1).clamp(min=0)[:, None])
    above, tied = values > last_place, values == last_place
    places_left = places - above.sum(1)
    return (above & inside).sum(1) + places_left * (tied & inside).sum(1) / tied.sum(1)


def _doubled_ranks(values: Tensor) -> Tensor:
    """Twice the average rank of each value in its row: (number below + 1) + (number not above)."""
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    return below + not_above + 1


def _defined_only(scores: Tensor, values: Tensor, defined: Tensor) -> Tensor:
    return torch.where(defined & ~values.isnan().any(1), scores, math.nan)
