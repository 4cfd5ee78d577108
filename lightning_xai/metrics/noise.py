"""Metrics of the noise that an explainer adds to its inputs."""

import torch
from torch import Tensor

from lightning_xai.functional.noise import inherent_noise
from lightning_xai.metrics.base import SampleMetric
from lightning_xai.metrics.checks import check_one_each


class InherentNoise(SampleMetric):
    """Expected share of the noisy input values that leave the data's range (`functional.noise`).

    A property of the explainer's input noise alone: explainers without any score 0.
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
            attributions: as for every metric; only their number counts.
            inputs: (batch, ...), the explained inputs.
            noise_std: standard deviation of the explainer's input noise, broadcasting against `inputs`; None
                for an explainer that adds none.
            bounds: least and greatest value of the inputs, each broadcasting against them.
            index: sample indices.
        """
        check_one_each(len(inputs), attributions=attributions)
        std = torch.zeros_like(inputs) if noise_std is None else noise_std
        self.record(inherent_noise(inputs, std, *bounds), index)
