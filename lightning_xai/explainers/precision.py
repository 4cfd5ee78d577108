"""The arithmetic of the explained model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import check_choice

Precision = Literal["32-true", "bf16-mixed"]


@contextmanager
def in_precision(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Within it the model's forward passes run in this precision, and its outputs are float32.

    Only the model: noise, averages and metrics stay in the precision of the inputs. Weights are not converted: as in
    Lightning, `bf16-mixed` is autocast, which computes convolutions and matrix products in bfloat16, several times as
    fast where the hardware has it. `32-true` leaves the model as it is. Ties of max-pooling over flat backgrounds are
    broken by rounding, so that single draws of NoiseGrad differ more than the means (see `PerturbWeights`).
    """
    check_choice("precision", precision, Precision)
    if precision == "32-true":
        yield
        return
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            '`precision` must be "32-true" for a TorchScript model: its forward pass cannot be intercepted.'
        )
    open_ones: list[torch.autocast] = []

    def enter(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        open_ones.append(torch.autocast(device.type, torch.bfloat16))
        open_ones[-1].__enter__()

    def leave(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        open_ones.pop().__exit__(None, None, None)
        return output.float() if isinstance(output, Tensor) and output.is_floating_point() else output

    handles = [
        model.register_forward_pre_hook(enter),
        model.register_forward_hook(leave, always_call=True),  # also where the model raises
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def called_in_float32(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it a model of any floating type takes inputs of float32, and its outputs are at least float32.

    For libraries that compute in float32, whatever the type of the inputs, and know no bfloat16.

    Args:
        model: Whose inputs are of this type.
        dtype: Of the inputs that the model takes.
    """
    if isinstance(model, torch.jit.ScriptModule):
        if dtype == torch.float32:
            yield
            return
        raise ValueError(
            f"`inputs` must be float32 here, got {dtype} of a TorchScript model, whose forward pass cannot be "
            "intercepted: give the module that it was made of."
        )

    def narrow(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)

    def widen(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        return output.to(torch.promote_types(output.dtype, torch.float32)) if isinstance(output, Tensor) else output

    handles = [model.register_forward_pre_hook(narrow), model.register_forward_hook(widen)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
