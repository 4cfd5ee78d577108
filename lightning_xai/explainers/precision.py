"""The arithmetic of the explained model."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import check_choice
from lightning_xai.explainers.state import held

Precision = Literal["32-true", "tf32", "bf16-mixed"]


@contextmanager
def in_precision(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Within it the model's passes run in this precision, whatever the caller's settings, and its outputs are float32.

    - `32-true`: float32 that is computed in float32. PyTorch's own default on CUDA is another one: there convolutions
      and recurrent networks round their factors to TF32 (10 bits), and matrix products do where the caller has allowed
      it; on a CPU `torch.set_float32_matmul_precision("medium")` means bfloat16.
    - `tf32`: convolutions and products round their factors to TF32 where the hardware has it (CUDA from Ampere on).
    - `bf16-mixed`: as in Lightning autocast, which computes convolutions and matrix products in bfloat16, several
      times as fast where the hardware has it; weights are not converted. What autocast leaves is as in `32-true`.

    The caller's autocast is off within. Its settings for TF32, which are those of the whole process, and its autocast
    come back on leaving. Only the model's passes change: noise, averages and metrics stay in the precision of the
    inputs. Whether algorithms are deterministic (`torch.use_deterministic_algorithms`) is left to the caller: on CUDA
    some backward passes add in an order that varies, so that two maps of one network may differ by rounding. Ties of
    max-pooling over flat backgrounds are broken by rounding, so that single draws of NoiseGrad differ more than the
    means (see `PerturbWeights`). An explainer that is called by itself follows the caller's settings.
    """
    check_choice("precision", precision, Precision)
    if precision == "bf16-mixed" and isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            '`precision` must be "32-true" or "tf32" for a TorchScript model: its forward pass cannot be intercepted.'
        )
    with ExitStack() as stack:
        stack.enter_context(_factors("tf32" if precision == "tf32" else "ieee"))
        for kind in {"cpu", *(tensor.device.type for tensor in held(model.modules()))}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if precision == "bf16-mixed":
            stack.enter_context(_autocast(model))
        yield


@contextmanager
def _autocast(model: nn.Module) -> Iterator[None]:
    """The model's forward passes in bfloat16, with outputs in float32."""
    open_ones: list[torch.autocast] = []

    def enter(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        open_ones.append(torch.autocast(device.type, torch.bfloat16))
        open_ones[-1].__enter__()

    def leave(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        open_ones.pop().__exit__(None, None, None)
        return output.float() if isinstance(output, Tensor) and output.is_floating_point() else output

    with _hooked(model, enter, leave):
        yield


@contextmanager
def called_in_float32(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it a model of any floating type takes inputs of float32, and its outputs are at least float32.

    For libraries that compute in float32, whatever the type of the inputs, and know no bfloat16.

    Args:
        model: Whose inputs are of this type.
        dtype: Type of the inputs that the model takes.
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

    with _hooked(model, narrow, widen):
        yield


@contextmanager
def _hooked(model: nn.Module, before: Callable[..., Any], behind: Callable[..., Any]) -> Iterator[None]:
    """Within it the model calls these around its forward pass, the second one also where it raises."""
    handles = [model.register_forward_pre_hook(before), model.register_forward_hook(behind, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _factors(kind: Literal["ieee", "tf32"]) -> Iterator[None]:
    """What the factors of float32 products are rounded to: nothing, or TF32. The caller's settings come back.

    PyTorch, from 2.9 on, has these settings twice. Who reads the older ones while they contradict the newer ones gets
    an error, so that both are set. The newer ones inherit: with the general ones at "none" each tells its own.
    """
    (products, cudnn), general = _older_settings(), _settings(_GENERAL)
    _set_newer(dict.fromkeys(general, "none"))
    particular = _settings(_particular())
    try:
        _set_older(products and ("highest" if kind == "ieee" else "high"), cudnn if cudnn is None else kind == "tf32")
        _set_newer(dict.fromkeys(particular, kind))
        yield
    finally:
        _set_older(products, cudnn)
        _set_newer(general | particular)


def _older_settings() -> tuple[str | None, bool | None]:
    """Of matrix products and of cuDNN; None where the caller has used the newer ones, so that they cannot be read."""
    products, cudnn = None, None
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = torch.backends.cudnn.allow_tf32
    return products, cudnn


def _set_older(products: str | None, cudnn: bool | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some releases say that these are the older ones
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn


_GENERAL: list[Any] = [torch.backends, torch.backends.cudnn, torch.backends.mkldnn]


def _particular() -> list[Any]:
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    names = [(cuda, "matmul"), (cudnn, "conv"), (cudnn, "rnn"), (mkldnn, "matmul"), (mkldnn, "conv"), (mkldnn, "rnn")]
    return [getattr(room, name, None) for room, name in names]


def _settings(places: list[Any]) -> dict[Any, str]:
    """Of the places that this release of PyTorch has."""
    return {place: place.fp32_precision for place in places if hasattr(place, "fp32_precision")}


def _set_newer(settings: dict[Any, str]) -> None:
    for place, value in settings.items():
        place.fp32_precision = value
