"""Networks whose inputs have their channels elsewhere than second, such as token embeddings (batch, token, channel)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.checks import check_whole_number
from lightning_xai.explainers.base import Explainer
from lightning_xai.explainers.captum import CaptumExplainer
from lightning_xai.explainers.cost import chain
from lightning_xai.explainers.precomputed import Precomputed


def channels_second(inputs: Tensor, channel_dim: int) -> Tensor:
    """The inputs as (batch, channel, ...).

    Args:
        inputs: Tables (batch, feature), which have no channels, or with the channels on the axis `channel_dim`.
        channel_dim: 1 where they are second, -1 where they are last.

    Raises:
        TypeError: if `channel_dim` is no whole number.
        ValueError: if it is no axis of a sample.
    """
    check_whole_number("channel_dim", channel_dim)
    if not channel_dim % inputs.ndim >= 1 or not -inputs.ndim < channel_dim < inputs.ndim:
        raise ValueError(
            f"`channel_dim` must be an axis of a sample, 1 .. {inputs.ndim - 1} or -1; got {channel_dim} for `inputs` "
            f"of shape {tuple(inputs.shape)}."
        )
    return inputs.movedim(channel_dim, 1)


def check_layout(methods: Mapping[str, Explainer], channel_dim: int) -> None:
    """Refuse methods that know their inputs by their axes, which are others while the channels are put second.

    Raises:
        ValueError: if `channel_dim` is not 1 and a method has such options (a window's shape, a mask), or maps.
    """
    if channel_dim == 1:
        return
    for name, method in methods.items():
        for part in chain(method):
            options = part.options if isinstance(part, CaptumExplainer) else {}
            placed = [repr(option) for option, value in options.items() if isinstance(value, Tensor | tuple | list)]
            if placed or isinstance(part, Precomputed):
                what = f"the options {', '.join(placed)}" if placed else "maps in files"
                raise ValueError(
                    f"`channel_dim` is {channel_dim}, but {name!r} ({type(part).__name__}) has {what}, which know the "
                    "axes as the network has them, while methods get the channels second. Give inputs with the "
                    "channels second, and a network that begins by moving them where it has them."
                )


@contextmanager
def taking_channels_second(model: nn.Module, channel_dim: int) -> Iterator[None]:
    """While active, the model takes the inputs that `channels_second` gives; nothing is done where they are second.

    Raises:
        ValueError: if the model is TorchScript, which cannot be hooked.

    Example:
        >>> import torch
        >>> from lightning_xai.explainers.channels import channels_second, taking_channels_second
        >>> model, tokens = torch.nn.Linear(3, 2), torch.rand(5, 7, 3)
        >>> with taking_channels_second(model, -1):
        ...     torch.equal(model(channels_second(tokens, -1)), model(tokens.movedim(-1, 1)))
        True
    """
    if channel_dim == 1:
        yield
        return
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"`channel_dim` must be 1 for a model in TorchScript, got {channel_dim}: give the module that it was made "
            "of, or one whose forward turns its input and calls this one."
        )

    def turn(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return (arguments[0].movedim(1, channel_dim), *arguments[1:])

    handle = model.register_forward_pre_hook(turn)
    try:
        yield
    finally:
        handle.remove()
