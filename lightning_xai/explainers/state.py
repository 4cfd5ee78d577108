"""Whatever is done to a model while it is explained comes back: what it holds, how it stands, and the random states."""

import operator
import random
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchmetrics import Metric

_CONTAINERS = (dict, list, set, deque)
_HOLDERS = (Tensor, tuple, *_CONTAINERS)
_PLAIN = (Tensor, bool, int, float, str, tuple, type(None), *_CONTAINERS)
_INTERNAL = frozenset(vars(nn.Module())) | {"_flat_weights", "_flat_weight_refs"}
"""PyTorch's own attributes of a module, and those of recurrent networks, which hold the weights a second time."""


@contextmanager
def explaining(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Gradients on, also in `torch.inference_mode`; the model in evaluation mode, uncompiled; all put back on leaving.

    What comes back, also after an exception: which parameters, buffers, submodules and hooks every module has;
    buffers, tensors that are attributes (so also weights that are computed by `weight_norm`, `spectral_norm` or
    `prune`) and torchmetrics, with their contents; training modes; and the random states of Python, NumPy and PyTorch.
    Parameters keep their contents because nothing writes to them; where the network's own forward pass does, they are
    put back too (`noting_writes`). What a forward pass does to other Python attributes, numbers, lists, dictionaries,
    objects, cannot be taken back in general, and is left.

    Meanwhile the random states are seeded, at each entry, so that a forward pass that draws random numbers gives equal
    results for equal calls. Tensors made in inference mode are replaced by copies, and the network gets a copy of its
    input, so that it may work in place.

    Args:
        model: Explained inside.
        seed: Of the random numbers that the forward pass draws itself.
    """
    with ExitStack() as stack:
        kept = _kept.get().get(id(model))
        if kept is None:
            kept = stack.enter_context(_as_found(model))
            stack.enter_context(_put_back(kept.devices))
            if "torch._dynamo" in sys.modules:  # nothing can have been compiled before
                stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for module in kept.modules:
            if module.training:
                module.training = False
        _seed(seed, kept.devices)
        yield


@contextmanager
def naming_inference_tensors() -> Iterator[None]:
    """An error of our own where a tensor made in inference mode lies too deep inside the model to be replaced."""
    try:
        yield
    except RuntimeError as error:
        if "Inference tensors" not in str(error):
            raise
        raise ValueError(
            "`model` holds a tensor that was made in torch.inference_mode(), such as a table cached by its first "
            "forward pass in Lightning's validation or test loop; gradients cannot pass it. Keep such tensors as "
            "buffers or plain attributes of a module, make them in __init__, or use Trainer(inference_mode=False)."
        ) from error


@contextmanager
def noting_writes(model: nn.Module) -> Iterator[None]:
    """Notes whether the forward passes inside write to the model's parameters; if so those are put back, now and later.

    A copy of all parameters for every explanation would be much for a network that does nothing of the kind.
    """
    before = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        yield
    finally:
        changed = [(now, clean) for now, clean in before if not torch.equal(now.detach(), clean)]
        for parameter, clean in changed:
            parameter.data.copy_(clean)
        if changed:
            _writers.add(model)
            for kept in filter(None, [_kept.get().get(id(model))]):
                kept.keep(model.parameters())


class Site(NamedTuple):
    """A place where a module holds a parameter."""

    module: nn.Module
    name: str
    parameter: Tensor


def parameter_sites(model: nn.Module) -> dict[str, list[Site]]:
    """Where each parameter is held, by every one of its names."""
    sites: dict[int, list[Site]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                sites.setdefault(id(parameter), []).append(Site(module, name, parameter))
    return {name: sites[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}


@contextmanager
def swapped(sites: Mapping[str, list[Site]], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with these tensors in the places of its parameters, and the very parameters back on leaving.

    A parameter is replaced in every place that it has, once: modules registered under two names, and parameters that
    modules share. (`torch.func.functional_call` leaves the former with the replacement, pytorch/pytorch#164759.)

    Args:
        sites: `parameter_sites` of the model.
        weights: Tensors by a name of the parameter that they replace.
    """
    undo: list[Callable[[], object]] = []
    try:
        for name, tensor in weights.items():
            undo.extend(_replaced(site, tensor) for site in sites[name])
        yield
    finally:
        for back in reversed(undo):
            back()


def _replaced(site: Site, tensor: Tensor) -> Callable[[], object]:
    """Replaces a parameter, and returns how to undo that."""
    module, name, parameter = site
    if isinstance(module, torch.jit.ScriptModule):  # its parameters lie outside Python
        contents, parameter.data = parameter.data, tensor
        return lambda: setattr(parameter, "data", contents)
    parameters: dict[str, Any] = module._parameters
    parameters[name] = tensor  # as `functional_call` does
    return partial(operator.setitem, parameters, name, parameter)


class _Kept:
    """A model's modules and GPUs, and the contents of tensors, each once, however many names it has."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        self.devices = _cuda_devices(self.modules)
        self.contents: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(self, tensors: Any) -> None:
        for tensor in tensors:
            if id(tensor) not in self.contents:
                self.contents[id(tensor)] = (tensor, tensor.detach().clone())

    def restore(self) -> None:
        for tensor, before in self.contents.values():
            # Through `data`, so that a graph of the caller's that holds the tensor does not take it for changed.
            if tensor.data.shape != before.shape or tensor.data.dtype != before.dtype:
                tensor.data = before
            else:
                tensor.data.copy_(before)


_writers: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Networks whose forward pass writes to their own parameters (`noting_writes`)."""

_MANY = 1000
"""A container of more items is somebody's data, and is not looked through."""

_kept: ContextVar[dict[int, _Kept]] = ContextVar("models that are kept as found", default={})  # noqa: B039  (never written to)


@contextmanager
def _as_found(model: nn.Module) -> Iterator[_Kept]:
    kept = _Kept(model)
    _refuse_lazy(model, kept.modules)
    found = [_Found(module) for module in kept.modules]
    token = _kept.set({**_kept.get(), id(model): kept})
    undo: list[Callable[[], object]] = []
    try:
        _leave_inference_mode(found, undo)
        for each in found:
            kept.keep(each.tensors())
        if model in _writers:
            kept.keep(model.parameters())
        hook = None if isinstance(model, torch.jit.ScriptModule) else model.register_forward_pre_hook(_own_copies)
        try:
            yield kept
        finally:
            if hook is not None:
                hook.remove()
    finally:
        _kept.reset(token)
        kept.restore()
        for back in reversed(undo):
            back()
        for each in found:
            each.put_back()


class _Found:
    """The attributes of a module as they were: those that are put back.

    What holds parameters, buffers, parts and hooks gets its items back in place, since others may know it; of a
    torchmetric every container does, since its states are lists. Attributes that are tensors, or become ones, are bound
    as they were; of a torchmetric numbers and containers too.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.training, self.names = module, module.training, dict(vars(module))
        self.metric = isinstance(module, Metric)
        self.attributes = [(name, value) for name, value in self.names.items() if isinstance(value, _HOLDERS)]
        self.containers = [
            (value, _copied(value) if value else [])
            for name, value in self.attributes
            if (self.metric or name in _INTERNAL) and isinstance(value, _CONTAINERS)
        ]

    def tensors(self) -> Iterator[Tensor]:
        """Buffers, and other tensors that are attributes, or in a torchmetric's lists; no parameters."""
        yield from self.module.buffers(recurse=False)
        for _, value in self.attributes:
            inside = value if self.metric and isinstance(value, list) else (value,)
            yield from (item for item in inside if isinstance(item, Tensor) and not isinstance(item, nn.Parameter))

    def put_back(self) -> None:
        for container, before in self.containers:
            if container or before:
                _refill(container, before)
        names, kinds = vars(self.module), _PLAIN if self.metric else Tensor
        for name in [name for name, now in names.items() if name not in self.names and isinstance(now, kinds)]:
            del names[name]
        for name, value in self.names.items():
            now = names.get(name)
            if now is not value and (isinstance(value, kinds) or isinstance(now, kinds)):
                names[name] = value
        if self.module.training is not self.training:
            self.module.training = self.training


def _own_copies(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The network's input, to work on in place: neither the caller's tensor nor a leaf of the graph."""
    return tuple(argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments)


def _leave_inference_mode(found: list[_Found], undo: list[Callable[[], object]]) -> None:
    """Copies in the place of tensors that were made in inference mode: those admit no gradient.

    A table that a network makes at its first forward pass is one, if that was in Lightning's validation. Looked for in
    parameters, buffers, attributes, and lists, tuples and dictionaries that are attributes.
    """
    copies: dict[int, Tensor] = {}

    def ordinary(value: Any) -> Any:
        if type(value) is tuple:
            return tuple(map(ordinary, value))
        if not _is_inference(value):
            return value
        with torch.inference_mode(False), torch.no_grad():
            copy = value.clone()
        made = nn.Parameter(copy, value.requires_grad) if isinstance(value, nn.Parameter) else copy
        return copies.setdefault(id(value), made)

    def exchange(container: Any, key: Any, value: Any) -> None:
        if _is_inference(value) or (type(value) is tuple and any(map(_is_inference, value))):
            container[key] = ordinary(value)
            undo.append(partial(operator.setitem, container, key, value))

    for each in found:
        for name, value in each.attributes:
            exchange(vars(each.module), name, value)
            if isinstance(value, dict | list) and 0 < len(value) < _MANY:
                for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                    exchange(value, key, item)


def _is_inference(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_inference()


def _copied(container: Any) -> Any:
    return list(container.items()) if isinstance(container, dict) else list(container)


def _refill(container: Any, before: list[Any]) -> None:
    """The items that were in the container, in place, since others may know it."""
    now = _copied(container)
    if len(now) == len(before) and all(map(_is_same, now, before)):
        return
    container.clear()
    if isinstance(container, dict):
        for key, value in before:
            container[key] = value
    else:
        (container.update if isinstance(container, set) else container.extend)(before)


def _is_same(now: Any, before: Any) -> bool:
    if isinstance(now, tuple) and isinstance(before, tuple) and len(now) == len(before) == 2:  # of a dict
        return now[0] is before[0] and now[1] is before[1]
    return now is before


def _refuse_lazy(model: nn.Module, modules: Iterable[nn.Module]) -> None:
    if not any(map(is_lazy, _held(modules))):
        return
    named = (*model.named_parameters(), *model.named_buffers())
    lazy = [name for name, tensor in named if is_lazy(tensor)]
    raise ValueError(
        f"`model` has parameters that are not made yet ({', '.join(lazy[:5])}): its first forward pass makes them. "
        "Run a batch through it first."
    )


def _held(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters and buffers."""
    for module in modules:
        for tensors in (module._parameters, module._buffers):
            yield from (tensor for tensor in tensors.values() if tensor is not None)


@contextmanager
def seeded(key: int, device: torch.device) -> Iterator[None]:
    """Global random state seeded with the key, and put back."""
    devices = [device] if device.type == "cuda" else []
    with _put_back(devices):
        _seed(key, devices)
        yield


def random_states_kept(model: nn.Module) -> AbstractContextManager[None]:
    """The random states of Python, NumPy, PyTorch and the model's GPUs are afterwards what they were."""
    return _put_back(_cuda_devices(model.modules()))


@contextmanager
def _put_back(devices: list[torch.device]) -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (networks use it, and Captum)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _seed(key: int, devices: list[torch.device]) -> None:
    key %= 2**63
    torch.default_generator.manual_seed(key)  # torch.manual_seed would seed every GPU
    for device in devices:
        torch.cuda.default_generators[device.index].manual_seed(key)
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002


def _cuda_devices(modules: Iterable[nn.Module]) -> list[torch.device]:
    return sorted({tensor.device for tensor in _held(modules) if tensor.is_cuda}, key=str)
