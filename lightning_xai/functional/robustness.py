"""Sizes of attributions and of their changes."""

import torch

from lightning_xai.functional.devices import with_float64
from lightning_xai.shapes import Inputs, Scores


def norms(values: Inputs) -> Scores:
    """Euclidean norm of each sample over all its elements, in float64: squares neither vanish nor overflow."""
    return torch.linalg.vector_norm(with_float64(values).flatten(1), dim=1, dtype=torch.float64)
