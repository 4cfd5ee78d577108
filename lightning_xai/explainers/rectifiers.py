"""What guided backpropagation and DeepLIFT, which change the backward pass of modules, would not see of a network."""

import copy
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR  # its list of modules is documented nowhere else
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torchmetrics import Metric

from lightning_xai.explainers.feature_maps import part_names
from lightning_xai.functional.devices import with_float64

_SMALL, _LARGE = 1e-3, 1e3
_STEPPED = {"hardshrink", "threshold", "round", "trunc", "floor", "ceil", "frac", "fmod", "remainder", "sign"}
"""Pointwise operations that are affine in places, where a try may happen to be."""
_SIZES = (3.0, 0.7, 0.2, 0.05)
"""Of the points at which operations are tried."""
_AFFINE = {"add", "sub", "rsub", "neg", "mul", "div", "clone", "copy", "_to_copy", "detach", "alias", "lift_fresh"}
"""Pointwise operations that are affine in one argument."""

_POINTWISE = {"_prelu_kernel", "rrelu_with_noise", "hardswish", "log_sigmoid_forward"}
"""Pointwise operations that PyTorch does not mark as such."""


def require_relu_modules(model: nn.Module, method: str) -> None:
    """Refuse models on which a method that changes the ReLUs' backward pass would silently be the plain gradient.

    ReLUs that work in place are no obstacle: Captum gives them a copy of their input.
    """
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError(
            f"`model` must apply its ReLUs as nn.ReLU modules for {method}; it has none (functional calls and other "
            "activations, such as ReLU6 or GELU, cannot be hooked, nor what is inside of TorchScript)."
        )


def require_guided(model: nn.Module, rows: Tensor, method: str) -> None:
    """Refuse models some of whose rectifiers are no nn.ReLU: they would keep their own derivative, silently.

    A rectifier is a function of single elements whose slopes on the two sides differ, at zero or in the limit: ReLU,
    however it is written (clamp, maximum, threshold, a product with x > 0), ReLU6, leaky ReLU, PReLU, ELU, softplus,
    GELU, SiLU, Hardswish, the absolute value. Functions that treat both signs alike (sigmoid, tanh, Hardsigmoid,
    softmax), as in gates, are none: they keep their derivative, as pooling and normalization do.
    """
    require_relu_modules(model, method)
    run = _Rectifiers(model, rows)
    if run.found:
        hooked = sum(runs for module, runs in run.runs.items() if isinstance(module, nn.ReLU))
        raise ValueError(
            f"`model` must apply its ReLUs as nn.ReLU modules for {method}; of {hooked + run.found.total()} ReLUs "
            f"{run.found.total()} are functional calls or other rectifiers, which cannot be hooked and would keep "
            f"their own derivative: {run.named()}."
        )


def require_deep_lift(model: nn.Module, rows: Tensor, method: str) -> dict[nn.Module, int]:
    """Refuse models with nonlinear functions that DeepLIFT has no rule for; the modules that run more than once.

    Captum has rules for modules of exactly these types: ReLU, ELU, LeakyReLU, Sigmoid, Tanh, Softplus, Softmax and
    MaxPool1d to 3d. Whatever else is not affine in what depends on the input (functional calls, other activations,
    LayerNorm, products of two such things, as in gates and attention) would get the gradient in place of a multiplier,
    and the attributions would not sum to the difference of the outputs.
    """
    handled = {module for module in model.modules() if type(module) in SUPPORTED_NON_LINEAR}
    run = require_modules(model, rows, handled, method, SUPPORTED_NON_LINEAR)
    return {module: runs for module, runs in run.runs.items() if runs > 1 and _is_plain(module)}


def require_modules(
    model: nn.Module, rows: Tensor, handled: Container[nn.Module], method: str, known: Iterable[type]
) -> "_Nonlinear":
    """Refuse models that do anything to what depends on the input that is not affine, outside of the handled modules.

    Args:
        known: Types of modules that the method handles, which the error names.
    """
    run = _Nonlinear(model, rows, handled)
    if run.found:
        names = ", ".join(module.__name__ for module in known)
        raise ValueError(
            f"`model` must apply its nonlinear functions as modules that {method} has rules for ({names}); it has no "
            f"rule for {run.named()}."
        )
    return run


def _is_plain(module: nn.Module) -> bool:
    """Whether it has neither parameters nor parts; their truth values may be anything. Not a metric, which counts."""
    return (
        not isinstance(module, Metric)
        and next(module.parameters(), None) is None
        and next(module.children(), None) is None
    )


class _Operations(TorchDispatchMode):
    """Looks at each operation on what depends on the rows, but for those within modules that the method handles.

    What depends on the rows is known by its memory: views and results of in-place operations share it.
    """

    handled: Callable[[nn.Module], bool]
    random_refused = False

    def __init__(self, model: nn.Module, rows: Tensor) -> None:
        super().__init__()
        self.names = part_names(model)
        self.runs, self.found = Counter[nn.Module](), Counter[str]()
        self.running: list[nn.Module] = []
        # With gradients, as in an explanation: without, some modules take a faster way, in one operation.
        start = rows.detach().requires_grad_().clone()
        self.memory = {_memory(start): start.untyped_storage()}  # kept, so that no address is used twice
        hooked = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
        handles = [module.register_forward_pre_hook(self._begin) for module in hooked]
        handles += [module.register_forward_hook(self._end, always_call=True) for module in hooked]
        try:
            with torch.enable_grad(), self:
                model(start)
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, module: nn.Module, arguments: Any) -> None:
        self.running.append(module)
        self.runs[module] += 1

    def _end(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self.running.pop()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sources = [part for part in _tensors((args, kwargs)) if _memory(part) in self.memory]
        results = function(*args, **kwargs)
        shape_alone = _name(function).endswith("_like") or _name(function).startswith("new_")
        outputs = _tensors(results)
        if sources and not shape_alone:
            if not self._within_handled() and self.refused(function, args, kwargs, sources, outputs):
                self.found[self._where(function)] += 1
            self.memory |= {_memory(part): part.untyped_storage() for part in outputs}
        elif self.random_refused and torch.Tag.nondeterministic_seeded in function.tags:
            self.found[self._where(function)] += 1
        return results

    def _within_handled(self) -> bool:
        return any(map(self.handled, self.running))

    def refused(self, function: Any, args: Any, kwargs: Any, sources: list[Tensor], outputs: list[Tensor]) -> bool:
        """Whether the method would treat this operation wrongly."""
        raise NotImplementedError

    def named(self) -> str:
        """What was found, and where."""
        found = [what if times == 1 else f"{what} ({times} times)" for what, times in self.found.items()]
        return ", ".join(found[:5]) + (f", ... ({len(found)} in all)" if len(found) > 5 else "")

    def _where(self, function: Any) -> str:
        if not self.running:
            return f"{_name(function)} in a ScriptModule"
        module = self.running[-1]
        name = self.names[id(module)]
        place = f'"{name}" ({type(module).__name__})' if name else type(module).__name__
        return f"{_name(function)} in {place}"


class _Rectifiers(_Operations):
    """Finds rectifiers outside of nn.ReLU."""

    def __init__(self, model: nn.Module, rows: Tensor) -> None:
        self.roots: dict[int, tuple[int, bool]] = {}  # of pointwise functions of one tensor: that, and if one was bent
        super().__init__(model, rows)

    @staticmethod
    def handled(module: nn.Module) -> bool:
        return isinstance(module, nn.ReLU)

    def refused(self, function: Any, args: Any, kwargs: Any, sources: list[Tensor], outputs: list[Tensor]) -> bool:
        if not any(part.is_floating_point() for part in outputs):
            return False
        if any(part.dtype == torch.bool for part in sources):
            return True  # a mask made from the input: x * (x > 0), torch.where(x > 0, x, 0)
        if torch.Tag.pointwise not in function.tags and _name(function) not in _POINTWISE:
            return False
        roots = [self.roots.get(_memory(part), (_memory(part), False)) for part in sources]
        alike = len({root for root, _ in roots}) == 1
        bent = any(bent for _, bent in roots)
        for part in outputs if alike else ():
            self.roots[_memory(part)] = (roots[0][0], bent or _name(function) not in _AFFINE)
        if len({id(part) for part in sources}) > 1:
            return alike and bent and _name(function) == "mul"  # x * sigmoid(x), however it is written
        return _name(function) not in _AFFINE and _rectifies(function, args, kwargs, sources[0], outputs[0])


class _Nonlinear(_Operations):
    """Finds what is not affine, or random, outside of the modules that a method handles."""

    random_refused = True  # rows that pass together would get other numbers

    def __init__(self, model: nn.Module, rows: Tensor, handled: Container[nn.Module]) -> None:
        self.handled = handled.__contains__
        super().__init__(model, rows)

    def refused(self, function: Any, args: Any, kwargs: Any, sources: list[Tensor], outputs: list[Tensor]) -> bool:
        if not any(part.is_floating_point() for part in outputs):
            return False
        if not function._schema.is_mutable and {_memory(part) for part in outputs} <= {_memory(sources[0])}:
            return False  # a view
        return not all(part.is_floating_point() for part in sources) or not _affine(function, args, kwargs, sources)


def _rectifies(function: Any, args: Any, kwargs: Any, source: Tensor, output: Tensor) -> bool:
    """Whether the pointwise function's slopes on the two sides differ: at zero, or where it is linear in the limit."""

    def at(point: float) -> Tensor:
        swap = {id(source): torch.full_like(source, point)}
        return with_float64(_run(function, args, kwargs, swap)[0]).double()

    def slope(low: float, high: float) -> Tensor:
        return (at(high) - at(low)) / (high - low)

    name = _name(function)
    if name.startswith("clamp") and output is not source and bool(at(0.0).all()) and not _differ(output, source):
        return False  # a guard against division by zero, which changes nothing
    if _differ(slope(-_SMALL, 0.0), slope(0.0, _SMALL)):
        return True
    below, above = slope(-2 * _LARGE, -_LARGE), slope(_LARGE, 2 * _LARGE)
    linear = not _differ(below, slope(-4 * _LARGE, -2 * _LARGE)) and not _differ(above, slope(2 * _LARGE, 4 * _LARGE))
    return linear and _differ(below, above)


def _differ(first: Tensor, second: Tensor) -> bool:
    first, second = with_float64(first), with_float64(second)
    return bool((first.double() - second.double()).abs().gt(0.02 * second.abs().max().clamp(min=1)).any())


def _affine(function: Any, args: Any, kwargs: Any, sources: list[Tensor]) -> bool:
    """Whether the operation is affine in these arguments together, tried at random points of several sizes.

    f(z) + f(-z) = 2 f(0) fails for all that is even in part (ReLU, products), f(2z) + f(-z) = f(z) + f(0) for the rest,
    somewhere: what shrinks small values is the identity elsewhere.
    """
    if _name(function) in _STEPPED:
        return False
    generator = torch.Generator().manual_seed(0)
    points = {id(part): torch.randn(part.shape, generator=generator).to(part) for part in sources}
    return all(_affine_at(scale, function, args, kwargs, points) for scale in _SIZES)


def _affine_at(scale: float, function: Any, args: Any, kwargs: Any, points: dict[int, Tensor]) -> bool:

    def at(factor: float) -> list[Tensor]:
        return _run(function, args, kwargs, {key: scale * factor * point for key, point in points.items()})

    for zero, one, two, minus in zip(at(0.0), at(1.0), at(2.0), at(-1.0), strict=True):
        if not zero.is_floating_point():
            continue
        tolerance = max(1e-4, 20 * torch.finfo(zero.dtype).eps) * one.abs().amax() if one.numel() else 0
        for error in (one + minus - 2 * zero, two + minus - one - zero):
            if not bool(error.abs().le(tolerance).all()):
                return False
    return True


def _run(function: Any, args: Any, kwargs: Any, swap: dict[int, Tensor]) -> list[Tensor]:
    """The results with other tensors in the place of some arguments; what the function writes to is copied."""

    def other(part: Any) -> Any:
        if not isinstance(part, Tensor):
            return part
        return swap.get(id(part), part).clone() if function._schema.is_mutable else swap.get(id(part), part)

    args, kwargs = tree_map(other, (args, kwargs))
    return _tensors(function(*args, **kwargs))


def _tensors(tree: Any) -> list[Tensor]:
    return [part for part in tree_leaves(tree) if isinstance(part, Tensor) and part.layout == torch.strided]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _name(function: Any) -> str:
    """The operation's name, alike for the one that works in place."""
    name: str = function.overloadpacket.__name__
    return name.removesuffix("_")


class _InTurn(nn.Module):
    """Copies of a module, each for one of its calls."""

    def __init__(self, module: nn.Module, runs: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(module) for _ in range(runs))
        self.turn = 0

    def forward(self, *arguments: Any, **options: Any) -> Any:
        self.turn += 1
        return self.copies[self.turn - 1](*arguments, **options)

    def restart(self, model: nn.Module, arguments: Any) -> None:
        """A pass through the model begins."""
        self.turn = 0


@contextmanager
def one_module_a_call(model: nn.Module, reused: dict[nn.Module, int]) -> Iterator[None]:
    """Put copies of re-used modules into the model while the block runs, as many as the module has calls in a pass.

    DeepLIFT keeps what a module took and returned on the module, where a second call would overwrite it.
    """
    places = [
        (parent, name, part) for parent in model.modules() for name, part in parent._modules.items() if part in reused
    ]
    copies = {module: _InTurn(module, runs) for module, runs in reused.items()}
    handles = [model.register_forward_pre_hook(each.restart) for each in copies.values()]
    try:
        for parent, name, part in places:
            parent._modules[name] = copies[part]  # type: ignore[index]
        yield
    finally:
        for parent, name, part in places:
            parent._modules[name] = part
        for handle in handles:
            handle.remove()
