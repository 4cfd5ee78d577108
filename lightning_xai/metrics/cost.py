"""What an attribution costs."""

from torch import Tensor

from lightning_xai.metrics.base import SampleMetric


class NumGradients(SampleMetric):
    """Gradients that the explainer took for a sample: rows of backward passes."""

    higher_is_better = None

    def update(self, attributions: Tensor, *, num_gradients: Tensor, index: Tensor | None = None) -> None:
        """Record one number a sample."""
        self.record(num_gradients, index)
