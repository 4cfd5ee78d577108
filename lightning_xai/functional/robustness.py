"""Sizes of attributions and of their changes."""

import torch

from lightning_xai.shapes import Inputs, Scores


def norms(values: Inputs) -> Scores:
    """Euclidean norm of each sample over all its elements, in float32 at least."""
    values = values.flatten(1)
    return torch.linalg.vector_norm(values, dim=1, dtype=torch.promote_types(values.dtype, torch.float32))


def relative_changes(original: Inputs, changed: Inputs, reference: Scores) -> Scores:
    """‖changed - original‖ / reference for each sample; NaN where the reference is 0."""
    return norms(changed - original) / torch.where(reference > 0, reference, torch.nan)
