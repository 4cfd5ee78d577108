"""Whatever is done to a model while it is explained comes back: what it holds, how it stands, and the random states."""

import operator
import random
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchmetrics import Metric, MetricCollection

_CONTAINERS = (dict, list, set, deque)
_EMPTY = frozenset({*_CONTAINERS, OrderedDict, tuple})


@contextmanager
def explaining(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Gradients on, also in `torch.inference_mode`; the model in evaluation mode, uncompiled; all put back on leaving.

    What comes back, also after an exception: which parameters, buffers, submodules and hooks every module has; the
    tensors that are its attributes (so also weights that are computed by `weight_norm`, `spectral_norm` or `prune`),
    which ones and with their contents; torchmetrics; training modes; gradients and flags of parameters; random
    generators; and the random states of Python, NumPy and PyTorch. Parameters keep their contents because nothing
    writes to them; where the network's own forward pass does, they are put back too (`one_pass`). Other Python
    attributes, numbers, lists, dictionaries, come back in a module whose tensors the forward pass changed, since they
    may belong to these (the length of a table), and in all modules where it set hooks (of which a flag may tell);
    elsewhere they are left, such as a count of calls, and so is what lies inside other objects.

    Recurrent layers on CUDA run without cuDNN, which refuses the backward pass in evaluation mode.

    Meanwhile the random states are seeded, at each entry, so that a forward pass that draws random numbers gives equal
    results for equal calls. Tensors made in inference mode are replaced by copies, and the network gets a copy of its
    input, so that it may work in place.

    Args:
        model: Explained inside.
        seed: Seed of the random numbers that the forward pass draws itself.
    """
    with ExitStack() as stack:
        found = _found.get().get(id(model))
        if found is None:
            found = stack.enter_context(_as_found(model))
            stack.enter_context(_put_back(found.devices))
            if "torch._dynamo" in sys.modules:  # nothing can have been compiled before
                stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for each in found.modules.values():
            if each.module.training:
                each.module.training = False
        _seed(seed, found.devices)
        yield


def first_in_call(model: nn.Module, what: str) -> bool:
    """Whether this is asked for the first time within the outermost `explaining`; outside of one, always."""
    found = _found.get().get(id(model))
    if found is None:
        return True
    asked = what in found.asked
    found.asked.add(what)
    return not asked


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
def noting_changes(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Puts back what the forward passes inside change, and notes for `one_pass` that they do.

    Yields a function that does so now, between passes.
    """
    found = Found(model, parameters=True)

    def note() -> None:
        _noted.add(model)
        wrote = found.wrote()
        if wrote or found.changed():
            _changing.add(model)
        found.put_back()
        if wrote:
            _writers.add(model)
            for kept in filter(None, [_found.get().get(id(model))]):
                kept.keep_parameters(model)

    try:
        yield note
    finally:
        note()


@contextmanager
def one_pass(model: nn.Module, noted: bool = True) -> Iterator[None]:
    """What a forward pass changes is put back behind it, so that every pass begins with the same network.

    Args:
        model: Run inside.
        noted: Whether `noting_changes` has seen it; nothing is done then for networks that changed nothing, which are
            nearly all.
    """
    if noted and model not in _changing:
        yield
        return
    found = Found(model, parameters=model in _writers)
    try:
        yield
    finally:
        found.put_back()


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


def differentiable(sites: Mapping[str, list[Site]], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, requiring a gradient where the parameters do, for networks that learn in their forward pass."""
    flags = {name: sites[name][0].parameter.requires_grad for name in weights}
    return {name: tensor.requires_grad_(flags[name]) for name, tensor in weights.items()}


def _replaced(site: Site, tensor: Tensor) -> Callable[[], object]:
    """Replaces a parameter, and returns how to undo that."""
    module, name, parameter = site
    if isinstance(module, torch.jit.ScriptModule):  # its parameters lie outside Python
        contents, parameter.data = parameter.data, tensor
        return lambda: setattr(parameter, "data", contents)
    parameters: dict[str, Any] = module._parameters
    parameters[name] = tensor  # as `functional_call` does
    return partial(operator.setitem, parameters, name, parameter)


class Found:
    """What a model holds, to put it back: see `explaining`. Modules that PyTorch does not see, in a list, count too.

    Args:
        model: Looked at now.
        parameters: Whether the contents of parameters are kept: a copy of them all.
    """

    def __init__(self, model: nn.Module, parameters: bool = False) -> None:
        self.written: list[tuple[Tensor, Tensor]] = []
        self.asked: set[str] = set()
        self.modules: dict[int, _Module] = {}
        every = list(model.modules())
        for module in every:
            if id(module) not in self.modules:
                self.modules[id(module)] = found = _Module(module)
                every += found.hidden
        self.devices = _cuda_devices(each.module for each in self.modules.values())
        if parameters:
            self.keep_parameters(model)

    def keep_parameters(self, model: nn.Module) -> None:
        """Keep the contents of parameters as they are now, if they are not kept yet."""
        if not self.written:
            parameters = (p for p in model.parameters() if isinstance(p, nn.Parameter))
            self.written = [(parameter, parameter.detach().clone()) for parameter in parameters]

    def put_back(self) -> None:
        for pair in self.written:
            _restore(*pair)
        hooked = any(module.hooks() != module.hooked for module in self.modules.values())
        for module in self.modules.values():
            module.put_back(hooked)

    def wrote(self) -> bool:
        """Whether a kept parameter has other contents."""
        return _any_differ((now.detach(), before) for now, before in self.written)

    def changed(self) -> bool:
        """Whether the tensors of a module, or anything of a torchmetric, are not what they were."""
        modules = self.modules.values()
        if any(module.changed() or module.counts_otherwise() for module in modules):
            return True
        return _any_differ((now.detach(), before) for module in modules for now, before, _ in module.tensors.values())


class _Module:
    """The attributes of one module."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.names, self.training = module, dict(vars(module)), module.training
        self.hooked = self.hooks()
        self.metric = isinstance(module, Metric | MetricCollection)
        self.own: list[tuple[Any, list[Any]]] = []
        self.others: list[tuple[Any, list[Any]]] = []
        self.tensors: dict[int, tuple[Tensor, Tensor, int]] = {}
        self.generators: list[Callable[[], object]] = []
        self.hidden: list[nn.Module] = []
        self.seen: set[int] = set()
        if isinstance(module, torch.jit.ScriptModule):  # which has its attributes outside Python
            self.hidden += module.children()
            for tensor in module.buffers(recurse=False):
                self._keep(tensor)
        for name, value in self.names.items():
            if type(value) not in _ATOMS:
                self._keep(value, self.own if name in _INTERNAL else self.others)

    def changed(self) -> bool:
        """Whether a tensor was written to, or a buffer, an attribute or an entry of a dictionary is another tensor."""
        if any(tensor._version != version for tensor, _, version in self.tensors.values()):
            return True
        return _others(vars(self.module), self.names) or any(
            _others(container, dict(items))
            for container, items in (*self.own, *self.others)
            if (container or items) and isinstance(container, dict)
        )

    def counts_otherwise(self) -> bool:
        """Whether this is a torchmetric with another state."""
        return self.metric and not _equal(vars(self.module), self.names)

    def hooks(self) -> int:
        """How many it has."""
        return sum(len(self.module.__dict__.get(name, ())) for name in _HOOKS)

    def put_back(self, whole: bool = False) -> None:
        whole = whole or self.metric or self.changed()
        for tensor, before, _ in self.tensors.values():
            _restore(tensor, before)
        for back in self.generators:
            back()
        for container, items in (*self.own, *(self.others if whole else ())):
            if container or items:
                _refill(container, items)
        _rebind(self.module, self.names, whole)
        if self.module.training is not self.training:
            self.module.training = self.training

    def _keep(self, value: Any, containers: list[tuple[Any, list[Any]]] | None = None, depth: int = 0) -> None:
        if type(value) in _EMPTY and not value:  # most attributes of a module
            if containers is not None:
                containers.append((value, []))
        elif isinstance(value, nn.Parameter) or is_lazy(value):
            return
        elif isinstance(value, Tensor):
            if id(value) not in self.tensors:
                self.tensors[id(value)] = value, value.detach().clone(), value._version
        elif isinstance(value, nn.Module):
            self.hidden.append(value)
        elif isinstance(value, (*_CONTAINERS, tuple)):
            if id(value) in self.seen or depth > _DEEP or (len(value) >= _MANY and containers is not self.own):
                return
            self.seen.add(id(value))
            if isinstance(value, _CONTAINERS) and containers is not None:
                containers.append((value, _copied(value) if value else []))
            for item in value.values() if isinstance(value, dict) else value:
                if type(item) not in _ATOMS:
                    self._keep(item, containers, depth + 1)
        elif (back := _rewinding(value)) is not None:
            self.generators.append(back)


def _others(now: Mapping[Any, Any], before: Mapping[Any, Any]) -> bool:
    """Whether a name stands for another tensor than before."""
    if _are_same(now, before):
        return False
    names = now.keys() | before.keys() if now.keys() != before.keys() else now
    pairs = ((now.get(name), before.get(name)) for name in names)
    return any(a is not b and (_has_tensors(a) or _has_tensors(b)) for a, b in pairs)


def _are_same(now: Mapping[Any, Any], before: Mapping[Any, Any]) -> bool:
    """Whether these are the same objects under the same names, in the same order; the usual case, without a loop."""
    return [*now] == [*before] and all(map(operator.is_, now.values(), before.values()))


def _has_tensors(value: Any, depth: int = 0) -> bool:
    """Tensors, and lists, pairs and tables of them, such as the state or the weights of a recurrent network."""
    if isinstance(value, tuple | list | dict):
        items = () if len(value) >= _MANY or depth > _DEEP else value.values() if isinstance(value, dict) else value
        return any(_has_tensors(item, depth + 1) for item in items)
    return isinstance(value, Tensor)


def _restore(tensor: Tensor, before: Tensor) -> None:
    # Through `data`, so that a graph of the caller's that holds the tensor does not take it for changed.
    if tensor.data.shape != before.shape or tensor.data.dtype != before.dtype:
        tensor.data = before
    else:
        tensor.data.copy_(before)


_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None), FunctionType, type, torch.dtype, torch.device})
_INTERNAL = frozenset(vars(nn.Module())) | {"_flat_weights", "_flat_weight_refs"}
"""PyTorch's own attributes of a module, and those of recurrent networks, which hold the weights a second time."""

_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks"))

_DEEP = 5
"""Containers inside containers are looked through so far."""

_MANY = 1000
"""A container of more items is somebody's data, and is not looked through."""

_writers: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Networks whose forward pass writes to their own parameters (`noting_changes`)."""

_noted: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Networks of which it is known whether their forward pass writes to parameters; of others all parameters are kept."""

_changing: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Networks whose forward pass changes anything of theirs."""

_found: ContextVar[dict[int, Found]] = ContextVar("models that are put back", default={})  # noqa: B039  (never written to)


@contextmanager
def _as_found(model: nn.Module) -> Iterator[Found]:
    refuse_lazy(model)
    undo: list[Callable[[], object]] = []
    try:
        modules = list(model.modules())
        _set_gradients_aside(modules, undo)
        _leave_inference_mode(modules, undo)
        found = Found(model, parameters=model in _writers or model not in _noted)
        token = _found.set({**_found.get(), id(model): found})
        undo += [found.put_back, partial(_found.reset, token)]
        if not isinstance(model, torch.jit.ScriptModule):
            undo.append(model.register_forward_pre_hook(_own_copies).remove)
        for each in found.modules.values():
            if isinstance(each.module, nn.RNNBase) and _on_cuda(each.module):
                undo += _without_cudnn(each.module)
        yield found
    finally:
        for back in reversed(undo):
            back()


def _set_gradients_aside(modules: list[nn.Module], undo: list[Callable[[], object]]) -> None:
    """The parameters' `.grad` and flags, for forward passes that make gradients themselves, or freeze weights."""

    def back(parameter: Tensor, gradient: Tensor | None, flag: bool) -> None:
        parameter.grad = gradient
        if parameter.requires_grad != flag:
            parameter.requires_grad_(flag)

    for parameter in {held for module in modules for held in module._parameters.values()}:
        if parameter is not None and parameter.is_leaf:
            undo.append(partial(back, parameter, parameter.grad, parameter.requires_grad))
            parameter.grad = None


def _own_copies(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The network's input, to work on in place: neither the caller's tensor nor a leaf of the graph."""
    return tuple(argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments)


def _without_cudnn(module: nn.RNNBase) -> list[Callable[[], object]]:
    """Its forward passes by PyTorch's own kernels, whose backward passes follow; how to undo that."""
    flags: list[bool] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        flags.append(torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        torch.backends.cudnn.enabled = flags.pop()

    return [
        module.register_forward_pre_hook(enter).remove,
        module.register_forward_hook(leave, always_call=True).remove,  # also where it raises
    ]


def _on_cuda(module: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in module.parameters())


def _leave_inference_mode(modules: list[nn.Module], undo: list[Callable[[], object]]) -> None:
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

    for module in modules:
        for name, value in list(vars(module).items()):
            if type(value) in _ATOMS or (type(value) in _EMPTY and not value):
                continue
            exchange(vars(module), name, value)
            if isinstance(value, dict | list) and 0 < len(value) < _MANY:
                for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                    exchange(value, key, item)


def _is_inference(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_inference()


def _rewinding(value: Any) -> Callable[[], object] | None:
    """How to put a random generator back; None for anything else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    return partial(value.setstate, value.getstate()) if isinstance(value, random.Random) else None


def _copied(container: Any) -> list[Any]:
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


def _rebind(module: nn.Module, before: dict[str, Any], whole: bool) -> None:
    """Attributes bound as they were, whatever the module does where they are set; if not `whole`, PyTorch's own."""
    names = vars(module)
    if _are_same(names, before):
        return
    for name in names.keys() - before.keys() if whole else ():
        del names[name]
    for name in before if whole else before.keys() & _INTERNAL:
        if name not in names or names[name] is not before[name]:
            names[name] = before[name]


def _equal(now: Any, before: Any) -> bool:
    """Whether two values are the same, or equal tensors or numbers; containers have a comparison of their own."""
    if now is before:
        return True
    if isinstance(now, Tensor) and isinstance(before, Tensor):
        return now.dtype == before.dtype and torch.equal(now.detach(), before.detach())
    if isinstance(now, dict) and isinstance(before, dict):
        return now.keys() == before.keys() and all(_equal(now[key], value) for key, value in before.items())
    if isinstance(now, list | tuple) and type(now) is type(before):
        return len(now) == len(before) and all(map(_equal, now, before))
    return type(now) is type(before) and type(now) in _ATOMS and now == before


def _any_differ(pairs: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Whether two tensors of a pair have other contents; each accelerator is waited for once."""
    found: dict[torch.device, list[Tensor]] = {}
    for now, before in pairs:
        if now.dtype != before.dtype or now.shape != before.shape:
            return True
        if now.device.type == "cpu" or now.layout != torch.strided:
            if not torch.equal(now, before):
                return True
        else:
            found.setdefault(now.device, []).append((now != before).any())
    return any(bool(torch.stack(flags).any()) for flags in found.values())


def refuse_lazy(model: nn.Module) -> None:
    if not any(map(is_lazy, held(model.modules()))):
        return
    named = (*model.named_parameters(), *model.named_buffers())
    lazy = [name for name, tensor in named if is_lazy(tensor)]
    raise ValueError(
        f"`model` has parameters that are not made yet ({', '.join(lazy[:5])}): its first forward pass makes them. "
        "Run a batch through it first."
    )


def held(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
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
    return sorted({tensor.device for tensor in held(modules) if tensor.is_cuda}, key=str)
