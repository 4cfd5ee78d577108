"""Refusal of attributions, inputs, classes and contexts that do not belong together."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import Tensor

from lightning_xai.explainers.base import Context, Explainer
from lightning_xai.explainers.precomputed import refuse_precomputed
from lightning_xai.functional.maps import by_channel


def check_one_each(number: int, **others: Tensor) -> None:
    """Refuse a tensor that has not one entry for each of `number` samples."""
    for name, other in others.items():
        if len(other) != number:
            raise ValueError(
                f"`{name}` must have one entry for each of the {number} samples of `inputs`, got {len(other)}. "
                "Pass the part that belongs to the batch."
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
        context: Context of the same samples.
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


def check_explain_again(methods: Mapping[str, Explainer], metrics: Mapping[str, Any]) -> None:
    """Refuse maps that are there already for metrics that ask for other ones: those that take an `explainer`.

    A metric that takes one and does not always ask it says so by an attribute `explains_again`.
    """
    for name, metric in metrics.items():
        takes_one = "explainer" in signature(metric.update).parameters
        if getattr(metric, "explains_again", takes_one):
            refuse_precomputed(methods, f"`metrics`: {name!r} ({type(metric).__name__}) explains again")
