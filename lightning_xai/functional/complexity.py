"""How concentrated an attribution is: one score a sample."""

import torch
from torch import Tensor

from lightning_xai.functional.maps import pixel_map
from lightning_xai.shapes import Scores


def gini(attributions: Tensor, offset: float = 0.0) -> Scores:
    """Sparseness: the Gini index of the absolute pixel map, in [0, 1); higher is sparser.

    G = Σᵢ (2i - n - 1) aᵢ / (n Σᵢ aᵢ), with a₁ ≤ ... ≤ aₙ the absolute values of the channel sums (Chalasani
    et al. 2020). 0 for a constant map, 1 - 1/n for a single pixel. Independent of the attribution's scale;
    NaN where all values are zero (nothing is attributed) or some value is not finite.

    Args:
        attributions: (batch, channel, height, width).
        offset: added to every absolute value, in the attribution's own unit. 1e-7 is what Quantus does, and
            it pulls the score of small-valued maps towards 0.
    """
    values = pixel_map(attributions, absolute=True).flatten(1) + offset
    # Dividing by the greatest value keeps the sums of tiny and huge values in the range of float32.
    values = (values / values.amax(1, keepdim=True)).sort(1).values
    n = values.shape[1]
    weights = torch.arange(1 - n, n, 2, dtype=values.dtype, device=values.device)
    return (values * weights).sum(1) / (n * values.sum(1))
