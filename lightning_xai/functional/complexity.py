"""How concentrated an attribution is: one score a sample.

All scores are of the absolute pixel map, in which the sign of an attribution does not count and equal values
are equal whatever their place. `pixel_map` says what half precision is computed in.
"""

import math

import torch
from torch import Tensor

from lightning_xai.functional.maps import scored_map
from lightning_xai.shapes import Scores


def gini(attributions: Tensor, offset: float = 0.0) -> Scores:
    """Sparseness: the Gini index of the absolute pixel map, in [0, 1); higher is sparser.

    G = Σᵢ (2i - n - 1) aᵢ / (n Σᵢ aᵢ), with a₁ ≤ ... ≤ aₙ the absolute values of the channel sums (Chalasani
    et al. 2020). 0 for a constant map, 1 - 1/n for a single pixel. Independent of the attribution's scale;
    NaN where all values are zero (nothing is attributed) or some value is not finite.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
        offset: added to every absolute value, in the attribution's own unit. 1e-7 is what Quantus does, and
            it pulls the score of small-valued maps towards 0.
    """
    values = scored_map(attributions, absolute=True).flatten(1) + offset
    values = _over_greatest(values).sort(1).values
    n = values.shape[1]
    weights = torch.arange(1 - n, n, 2, dtype=values.dtype, device=values.device)
    return (values * weights).sum(1) / (n * values.sum(1))


def entropy(attributions: Tensor) -> Scores:
    """Complexity: the entropy of the absolute pixel map as a distribution, in nats; lower is simpler.

    H = -Σᵢ pᵢ ln pᵢ, with pᵢ = aᵢ / Σⱼ aⱼ and a the absolute values of the channel sums (Bhatt et al. 2020,
    "Evaluating and aggregating feature-based model explanations"). 0 for a single pixel, ln n, the greatest
    value, for a constant map of n pixels: scores of images of different sizes do not compare. Independent of
    the attribution's scale; NaN where all values are zero or some value is not finite.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
    """
    values = _over_greatest(scored_map(attributions, absolute=True).flatten(1))
    return torch.special.entr(values / values.sum(1, keepdim=True)).sum(1)


def effective_complexity(attributions: Tensor, threshold: float = 0.1, relative: bool = True) -> Scores:
    """The number of pixels whose absolute value exceeds a threshold, in 0 ... n; fewer is simpler.

    Quantus's count, named after Nguyen and Martínez 2020, who define effective complexity otherwise: as the
    number of features that the model needs to predict within a tolerance. By default the threshold is a share
    of the map's greatest value, so that the score is independent of the attribution's scale. With
    `relative=False` it is in the attribution's own unit, as in Quantus: then a method scores well by giving
    small values, and only methods of one unit compare. NaN where all values are zero (nothing is attributed,
    which would count as simplest) or some value is not finite.

    Args:
        attributions: (batch, feature) or (batch, channel, ...).
        threshold: a share of the greatest value, or an absolute value; what equals it does not count. The
            default is our choice: at Quantus's 1e-5 nearly all pixels of a dense map count.
        relative: whether `threshold` is a share.

    Raises:
        ValueError: if `threshold` is negative or not finite, or a share of 1 or more.
    """
    check_threshold(threshold, relative)
    values = scored_map(attributions, absolute=True).flatten(1)
    shares = _over_greatest(values)
    exceeds = (shares if relative else values) > threshold
    return torch.where(shares.isnan().any(1), math.nan, exceeds.sum(1).to(values.dtype))


def check_threshold(threshold: float, relative: bool) -> None:
    """Refuse a threshold of `effective_complexity` that nothing or everything would exceed."""
    if not 0 <= threshold < (1 if relative else math.inf):
        limits = "in [0, 1), a share of the greatest value" if relative else "0 or more and finite"
        raise ValueError(
            f"`threshold` must be {limits}; got {threshold}. `relative` says whether it is a share or in the "
            "attribution's own unit."
        )


def _over_greatest(values: Tensor) -> Tensor:
    """Each row over its greatest value: sums of tiny and huge values stay in the range of float32.

    A row of zeros, or with a value that is not finite, gets a NaN.
    """
    return values / values.amax(1, keepdim=True)
