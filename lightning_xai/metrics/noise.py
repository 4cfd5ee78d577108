"""Metrics of the noise that an explainer adds to its inputs."""

import torch
from torch import Tensor

from lightning_xai.functional.noise import inherent_noise
from lightning_xai.metrics.base import SampleMetric
from lightning_xai.metrics.checks import check_one_each


class InherentNoise(SampleMetric):
    """Expected share of the noisy input values that leave the data's range (`functional.noise`).

    Lower is better.

    Zhou et al. 2024, equation 9. A property of the explainer's input noise alone: explainers without any score 0.

    Example:
        >>> import torch
        >>> from lightning_xai.metrics import InherentNoise
        >>> metric, images = InherentNoise(), torch.tensor([[0.0, 0.5]])  # half of that at a bound leaves it
        >>> bounds = (torch.tensor(0.0), torch.tensor(1.0))
        >>> metric.update(torch.zeros(1, 2), inputs=images, noise_std=torch.tensor(0.01), bounds=bounds)
        >>> metric.compute()
        tensor(0.2500)
    """

    higher_is_better = False

    def update(
        self,
        attributions: Tensor,
        *,
        inputs: Tensor,
        noise_std: Tensor | None,
        bounds: tuple[Tensor, Tensor],
        index: Tensor | None = None,
    ) -> None:
        """Score a batch.

        Args:
            attributions: As for every metric; only their number counts.
            inputs: (batch, ...), the explained inputs.
            noise_std: Standard deviation of the explainer's input noise, broadcasting against `inputs`; None
                for an explainer that adds none.
            bounds: Least and greatest value of the inputs, each broadcasting against them.
            index: (batch,) sample indices.

        Raises:
            ValueError: if a shape does not broadcast against the inputs, or there are not as many attributions.
        """
        check_one_each(len(inputs), attributions=attributions)
        std = torch.zeros_like(inputs) if noise_std is None else noise_std
        self.record(inherent_noise(inputs, std, *bounds), index)
