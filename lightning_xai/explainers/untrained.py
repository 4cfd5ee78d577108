"""The network with the weights that it may have begun with, in place of its own while it is explained."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_xai.explainers.base import Context, Explainer, check_kind
from lightning_xai.explainers.gradient import Gradient
from lightning_xai.explainers.state import differentiable, parameter_sites, seeded, swapped
from lightning_xai.functional.devices import sent
from lightning_xai.functional.random import fold_in_int
from lightning_xai.shapes import Inputs, Labels

_KEY = 0x756E7472
"""Of the weights, so that they are none of the noise's draws."""


@dataclass(frozen=True)
class Untrained(Explainer):
    """A method on the network before its training: what its maps owe to the architecture and the input alone.

    All parameters are drawn anew by `reset_parameters` of their modules; those without one, or that it leaves as they
    were, get normal values of their own mean and standard deviation. The running statistics of normalization are mean
    0 and variance 1, other buffers stay. There is one such network, of the context's seed, for all samples. The class
    explained is the one that is given, or that the trained network predicts.

    Attributes:
        explainer: The method.

    Raises:
        TypeError: if it is no explainer.
        ValueError: when called, if a module's `reset_parameters` fails.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> _ = model.weight.data.fill_(5.0)
        >>> lx.explain(model, torch.ones(1, 2), target=0, method=lx.explainers.Untrained()).abs() < 0.71
        tensor([[True, True]])
    """

    explainer: Explainer = Gradient()

    def __post_init__(self) -> None:
        check_kind("explainer", self.explainer, Explainer, "an explainer such as lightning_xai.Gradient()")

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        with untrained(model, fold_in_int(context.seed, _KEY)):
            return self.explainer.attribute(model, inputs, target, context)

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        return self.explainer.noise_std(inputs, context)


@contextmanager
def untrained(model: nn.Module, seed: int) -> Iterator[None]:
    """The model with weights and statistics as before a training; its own tensors are back on leaving."""
    sites = parameter_sites(model)
    weights: dict[int, tuple[str, Tensor]] = {}  # by parameter: one that has several places is drawn once
    with torch.no_grad(), seeded(seed, torch.device("cpu")):
        for owner, module in model.named_modules():
            own = dict(module.named_parameters(recurse=False))
            for name, value in first_values(module).items() if own else ():
                place = sent(value, own[name].device, own[name].dtype)
                weights.setdefault(id(own[name]), (f"{owner}.{name}".lstrip("."), place))
    with ExitStack() as stack:
        stack.enter_context(swapped(sites, differentiable(sites, dict(weights.values()))))
        for module in model.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                stack.callback(module._buffers.update, dict(module._buffers))
                module.running_mean = torch.zeros_like(module.running_mean)
                module.running_var = torch.ones_like(module.running_mean)
        yield


def first_values(module: nn.Module) -> dict[str, Tensor]:
    """New values for all of a module's own parameters, on the CPU: of its own initializer, or else that resemble them.

    Raises:
        ValueError: if the initializer fails.
    """
    made = _initialized(module)
    current = {name: value.detach().cpu() for name, value in module.named_parameters(recurse=False)}
    return {name: made[name] if name in made else _resembling(value) for name, value in current.items()}


def _initialized(module: nn.Module) -> dict[str, Tensor]:
    """Those of the module's parameters that its own initializer changes; on a copy, whose buffers it may write to."""
    reset = next((name for name in ("reset_parameters", "_reset_parameters") if hasattr(module, name)), None)
    if reset is None:
        return {}
    scratch = deepcopy(module).cpu()
    before = {name: value.detach().clone() for name, value in scratch.named_parameters(recurse=False)}
    try:
        getattr(scratch, reset)()
    except Exception as error:
        raise ValueError(
            f'`initialization="own"`, and the control `untrained`, call {type(module).__name__}.{reset}(), which '
            f'failed; choose "normal" or "permute", or leave the control out. It said: {error}'
        ) from error
    after = {name: value.detach() for name, value in scratch.named_parameters(recurse=False)}
    return {name: value for name, value in after.items() if not value.equal(before[name])}


def _resembling(value: Tensor) -> Tensor:
    """Normal values of the tensor's mean and standard deviation; a constant stays as it is, to the last bit."""
    if value.numel() == 0 or value.amin() == value.amax():
        return value
    mean, std = value.double().mean(), value.double().std(correction=0)
    return mean + std * torch.randn(value.shape, dtype=torch.float64)
