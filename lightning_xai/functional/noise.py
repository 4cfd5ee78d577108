"""How far an explainer's input noise leaves the data's range: one score a sample."""

import torch
from torch import Tensor

from lightning_xai.functional.scales import out_of_range_probability
from lightning_xai.shapes import Inputs, Scores


def inherent_noise(inputs: Inputs, std: Tensor, low: Tensor, high: Tensor) -> Scores:
    """Expected share of a sample's noisy values that lie outside [low, high]; in [0, 1], lower is better.

    The mean of `out_of_range_probability` over the sample's elements: exact, nothing is drawn. What is on a bound but
    for rounding is in the range (`functional.bounds`).

    Args:
        inputs: (batch, ...).
        std: standard deviation of the Gaussian input noise, 0 or more; broadcasts against `inputs`.
        low: least value of each element; broadcasts against `inputs`.
        high: greatest value of each element, likewise.

    Raises:
        ValueError: if a shape does not broadcast against that of `inputs`.
    """
    std, low, high = (_broadcast(value, inputs, name) for name, value in {"std": std, "low": low, "high": high}.items())
    return out_of_range_probability(inputs, std, low, high).flatten(1).mean(1)


def _broadcast(value: Tensor, inputs: Tensor, name: str) -> Tensor:
    try:
        return value.to(inputs.device, torch.promote_types(inputs.dtype, torch.float32)).expand_as(inputs)
    except RuntimeError as error:
        raise ValueError(
            f"`{name}` must broadcast against the inputs, {tuple(inputs.shape)}; got {tuple(value.shape)}. "
            "Give one value for each element, or axes of length 1 where they share it."
        ) from error
