"""How the random draws of an average hang together."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lightning_xai.explainers.base import Context, check_choice
from lightning_xai.functional.random import Strata, standard_normal
from lightning_xai.shapes import Inputs

Sampling = Literal["independent", "antithetic", "stratified"]


def check_sampling(sampling: str, num_draws: int) -> None:
    """Refuse unknown ways of sampling, and numbers of draws that they do not take."""
    check_choice("sampling", sampling, Sampling)
    if sampling == "antithetic" and num_draws % 2:
        raise ValueError(f"`num_draws` must be even for antithetic pairs, got {num_draws}.")
    if sampling == "stratified" and num_draws > Strata.most:
        raise ValueError(
            f'`num_draws` must be at most {Strata.most} with `sampling="stratified"`, got {num_draws}; '
            'take "independent" draws.'
        )


def together(sampling: Sampling) -> int:
    """How many successive draws make one independent one."""
    return 2 if sampling == "antithetic" else 1


class InputNoise:
    """Standard normal noise for the draws of an average over noisy inputs; a draw depends on its number alone.

    Args:
        sampling: See `smoothing.Averaging`.
        num_draws: In all: of strata.
        inputs: What it is for.
        context: The keys of its rows.
    """

    def __init__(self, sampling: Sampling, num_draws: int, inputs: Inputs, context: Context) -> None:
        self.sampling, self.inputs, self.context = sampling, inputs, context
        if sampling == "stratified":
            self.strata = Strata(context.private_keys("strata"), num_draws, inputs.shape[1:])

    def __call__(self, numbers: Int64[Tensor, " draws"]) -> Float[Tensor, " draws batch *shape"]:
        """Of the draws with these numbers; antithetic, 2k is drawn and 2k + 1 is its negative."""
        paired, device = self.sampling == "antithetic", self.inputs.device
        keys = self.context.branch(numbers[::2] // 2 if paired else numbers).keys
        if self.sampling == "stratified":
            return self.strata.normal(numbers, keys, device).to(self.inputs.dtype)
        noise = standard_normal(keys, self.inputs.shape[1:], device).to(self.inputs.dtype)
        noise = noise.unflatten(0, (-1, len(self.inputs)))
        return torch.stack((noise, -noise), dim=1).flatten(0, 1) if paired else noise
