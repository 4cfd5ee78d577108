"""What an attribution costs."""

import torch
from torch import Tensor

from lightning_xai.metrics.base import SampleMetric

GRADIENTS = "gradients"
"""The name under which every evaluation keeps what its methods spent."""


class NumGradients(SampleMetric):
    """Gradients that the explainer took, a sample: rows of backward passes over rows of the batch."""

    higher_is_better = None

    def update(self, attributions: Tensor, *, num_gradients: float, index: Tensor | None = None) -> None:
        """Record the same number for every sample of the batch."""
        self.record(torch.full((len(attributions),), num_gradients, dtype=torch.float32), index)
