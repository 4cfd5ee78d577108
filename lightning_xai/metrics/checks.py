"""Refusal of attributions, inputs, classes and contexts that do not belong together."""

from torch import Tensor

from lightning_xai.explainers.base import Context
from lightning_xai.functional.maps import by_channel


def check_one_each(number: int, **others: Tensor) -> None:
    """Refuse a tensor that has not one entry for each of `number` samples."""
    for name, other in others.items():
        if len(other) != number:
            raise ValueError(
                f"`{name}` must have one entry for each of the {number} samples of `inputs`, got {len(other)}. "
                "Pass the part that belongs to the batch."
            )


def check_has_softmax(logits: Tensor) -> None:
    """Refuse probabilities of the only output of a network: they would be 1, whatever it says."""
    if logits.shape[1] == 1:
        raise ValueError(
            '`output` must be "logit": a network with a single output has no softmax probability, which would be 1 for '
            "any input. A metric of probabilities alone (InformationLevel) needs an output for each class."
        )


def check_batch(
    attributions: Tensor, inputs: Tensor, target: Tensor, context: Context, per_element: bool = False
) -> None:
    """Refuse what is not of the same samples, or attributions that are not of the size of the inputs.

    Args:
        attributions: One value for each pixel of the inputs, their channels being summed; `per_element`: for each
            element of the inputs.
        inputs: (batch, ...).
        target: (batch,).
        context: Of the same samples.
        per_element: See `attributions`.
    """
    check_one_each(len(inputs), attributions=attributions, target=target, context=context.keys)
    if per_element and attributions.shape != inputs.shape:
        raise ValueError(
            f"`attributions` must have the shape of `inputs`, {tuple(inputs.shape)}, one value for each input "
            f"element; got {tuple(attributions.shape)}. Do not sum over channels."
        )
    check_places(attributions, inputs)


def check_places(attributions: Tensor, inputs: Tensor | None) -> None:
    """Refuse attributions without a value, or one a channel, for each place of the inputs, where these are given."""
    if inputs is None:
        return
    check_one_each(len(inputs), attributions=attributions)
    if attributions.ndim != inputs.ndim or by_channel(attributions).shape[2:] != by_channel(inputs).shape[2:]:
        size = ", ".join(map(str, inputs.shape if inputs.ndim == 2 else (len(inputs), "channel", *inputs.shape[2:])))
        raise ValueError(
            f"`attributions` must have the shape ({size}), one value for each pixel of "
            f"`inputs`; got {tuple(attributions.shape)}. Enlarge the maps of a coarser layer, and keep an axis of "
            "length 1 where channels are summed."
        )
