"""Which module makes the maps that GradCAM looks at, and which axes of its output are those of the input."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_xai.explainers.axes import Layout, TrackAxes
from lightning_xai.explainers.chunks import check_rows

NO_PATH = (
    "a part of it runs under torch.no_grad or inference_mode, or its values are detached, cast to integers or to NumPy."
    " Freeze weights with `requires_grad_(False)` instead of running them under torch.no_grad"
)
"""Why outputs do not depend on something by a differentiable path, and what to do."""

GIVE_RESHAPE = (
    "give `reshape`, a function that makes maps (batch, channel, *extents) of the layer's output, the extents being as "
    "many as those of the inputs"
)

_SCRIPTED = "inside of TorchScript nothing can be seen or hooked: give the module that it was made of"


def part_names(model: nn.Module) -> dict[int, str]:
    """The name of each part, by its id, without what torch.compile puts into it.

    Not by the part: torchmetrics have another hash once a forward pass has updated them.
    """
    return {id(part): _plain(name) for name, part in model.named_modules()}


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of this name; in compiled models with or without the `_orig_mod.` of torch.compile."""
    parts = {_plain(each): part for each, part in model.named_modules(remove_duplicate=False)}
    if _plain(name) not in parts:
        raise ValueError(f'`layer` "{name}" is no submodule of `model`; it has: {", ".join(filter(None, parts))}.')
    return parts[_plain(name)]


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


class MapSource(NamedTuple):
    """Where maps come from: which call of which module, and what makes (batch, channel, *extents) of its output."""

    module: nn.Module
    number: int
    reshape: Callable[[Tensor], Tensor] | None = None
    """None where they are that."""


def last_feature_maps(model: nn.Module, rows: Tensor) -> nn.Module:
    """The module that makes the last maps with extent that all that the output knows of the input passes through.

    Those in front of any final pooling: the activation behind the last convolution, or the residual block that it ends.
    So neither a gate (squeeze-and-excitation, spatial attention), nor
    one of several branches, nor a convolutional head behind the pooling. GradCAM of what a convolution puts out before
    its activation is often zero everywhere, since the final ReLU removes it. What the model calculates by functions
    behind its modules is not seen.

    Maps may be tokens, or have the channels last. Of a transformer that reads its class token alone, whose other tokens
    have no say behind the last block, they are those in front of this block.

    Raises:
        ValueError: if there are none, or if the order of axes of what comes after them is not known.
    """
    return Walk(model, rows).last_maps().module


@dataclass(frozen=True)
class Form:
    """The shape of a tensor, and where in it the input's positions are; None if that is not known."""

    shape: torch.Size
    layout: Layout | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the input's axes; of all but the batch's if it is not known which those are."""
        return self.layout.sizes(self.shape) if self.layout else tuple(self.shape[1:])

    @property
    def extended(self) -> bool:
        """Whether it has extent, as an image or as tokens."""
        needed = 1 if self.layout else 2  # one axis is the channels'
        return len(self.shape) > 2 and sum(size > 1 for size in self.sizes) >= needed

    def __str__(self) -> str:
        unknown = ", in an order of axes not known" if self.layout is None and len(self.shape) > 2 else ""
        return f"of shape {tuple(self.shape)}{unknown}"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        number: Which of the module's calls, from 0.
        given, taken: Its output and its first argument; None if that is no tensor of numbers.
        output: What it passed on.
    """

    module: nn.Module
    number: int
    given: Form
    taken: Form | None
    output: Tensor

    @property
    def node(self) -> Node | None:
        """The output's place in the graph of the derivative; None if it has none."""
        return self.output.grad_fn

    @property
    def weighted(self) -> bool:
        """Whether the module has weights of its own, beside those of its parts."""
        return any(True for _ in self.module.parameters(recurse=False))


@dataclass
class _Cut:
    """A call that all that the output knows of the input passes through.

    Attributes:
        since: This call, and those before it back to the cut before, without that.
    """

    call: Call
    since: list[Call]


class Walk:
    """One pass through the model, with all calls of its parts.

    Raises:
        ValueError: if the inputs have no extents.
    """

    def __init__(self, model: nn.Module, rows: Tensor) -> None:
        if not 3 <= rows.ndim <= 5:
            raise ValueError(
                "`inputs` must be series, images or volumes, (batch, channel, *extents), for methods that look at a "
                f"layer, whose maps are enlarged to the inputs; got shape {tuple(rows.shape)}."
            )
        self.rows, self.names = rows, part_names(model)
        self.scripted = any(isinstance(part, torch.jit.ScriptModule) for part in model.modules())
        self.calls: list[Call] = []
        self.runs = Counter[nn.Module]()
        start = rows.detach().requires_grad_().clone()  # a copy, which the model may change in place
        self.source = start.grad_fn
        self.axes = TrackAxes(start)
        self.top = self._run(model, start)
        self.children = _children(self.top)

    def _run(self, model: nn.Module, start: Tensor) -> Node | None:
        parts = [part for part in model.modules() if part is not model and not isinstance(part, torch.jit.ScriptModule)]
        handles = [part.register_forward_hook(self._note) for part in parts]
        try:
            with torch.enable_grad(), self.axes:
                self.raw = check_rows(model(start), len(self.rows))
                return self.raw.grad_fn
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, module: nn.Module, arguments: tuple, output: Any) -> Tensor | None:
        number, self.runs[module] = self.runs[module], self.runs[module] + 1
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        argument = next(iter(arguments), None)
        taken = Form(argument.shape, self.axes.of(argument)) if isinstance(argument, Tensor) else None
        layout = self.axes.of(output)
        if layout is None and taken and taken.shape == output.shape and not any(module.children()):
            layout = taken.layout  # it kept the shape, by functions that nobody sees
        # The copy is this call's own place in the graph: modules may return what they took, or change it later.
        passed = (output if output.requires_grad else output.detach().requires_grad_()).clone()
        self.axes.note(passed, layout)
        self.calls.append(Call(module, number, Form(passed.shape, layout), taken, passed))
        return passed

    def last_maps(self) -> MapSource:
        """The call that makes the maps of `last_feature_maps`."""
        if not self.axes.convolved and self.scripted:
            raise ValueError(f"`model` has no convolution but in TorchScript: {_SCRIPTED}.")
        found, other = self._last()
        if other is not None:
            raise ValueError(
                f'`layer` must be given: the last maps of `model`, those of "{self.names[id(other.module)]}", are '
                f"{other.given}. Name a layer, this one or another, and {GIVE_RESHAPE}{self._such_as(found)}."
            )
        if found is None:
            none = (
                "all that the output of `model` knows of its input goes several ways and not through maps with extent"
                if self.axes.convolved or self._any_maps()
                else "`model` has no convolution whose maps GradCAM could show"
            )
            raise ValueError(f"`layer` must be given: {none}{self._such_as(self._any_maps())}.")
        return self._maps(found, found.given.layout)

    def _maps(self, call: Call, layout: Layout | None) -> MapSource:
        return MapSource(call.module, call.number, layout.maps if layout and layout != self.axes.first else None)

    def _last(self) -> tuple[Call | None, Call | None]:
        """The last maps; and what has extent behind them, or before them and no weights between, in another order."""
        found: Call | None = None
        newest: Call | None = None  # also those that a pooling made
        other: Call | None = None
        for cut in self._cuts():
            call, form = cut.call, cut.call.given
            if found is not None and call in self._silent:
                continue
            makers = [each for each in cut.since if each.weighted and each.given.extended]
            if self._are_maps(form) and form.extended:
                kept = found is not None and found is newest and form.sizes == found.given.sizes
                weighted = any(each.weighted for each in cut.since)
                if weighted or kept or other is not None:
                    found = call
                newest, other = call, None if weighted else other
            elif form.extended and makers:
                newest, other = None, call
            elif makers and newest is not None:  # more is made of the newest maps on the way to this cut
                foreign = [each for each in makers if not self._are_maps(each.given)]
                found, other = newest, foreign[0] if foreign else other  # backward: the first is the last
        return found, other

    def _cuts(self) -> list[_Cut]:
        """The calls that all paths from the input to the output pass through, from the input on."""
        if self.source not in self.children:
            raise ValueError(
                f"`model` gives outputs that do not depend on `inputs` by a differentiable path: {NO_PATH}. Or name a "
                "`layer` behind that part."
            )
        at = {call.node: call for call in self.calls}
        cuts: list[_Cut] = []
        for node, alone in _backward(self.top, self.source, self.children):
            if node in at:
                if alone:
                    cuts.append(_Cut(at[node], []))
                if cuts:
                    cuts[-1].since.append(at[node])
        return cuts[::-1]

    def maps_of(
        self,
        layer: nn.Module,
        reshape: Callable[[Tensor], Tensor] | None = None,
        differentiated: bool = True,
        of_input: bool = False,
    ) -> MapSource:
        """The maps of a layer at its last run, as told by `reshape`.

        Raises:
            ValueError: if they cannot be shown, or the output does not depend on them by a differentiable path.
        """
        name = f'`layer` "{self.names[id(layer)]}"'
        if isinstance(layer, torch.jit.ScriptModule):
            raise ValueError(f"{name} is TorchScript: {_SCRIPTED}.")
        calls = [call for call in self.calls if call.module is layer]
        if not calls:
            what = "gives no single tensor" if self.runs[layer] else "is not run by `model` (in evaluation mode)"
            raise ValueError(f"{name} {what}; it must give maps with extent.")
        call = calls[-1]
        form = call.taken if of_input else call.given
        layout = self._layout_of(form)
        if reshape is None and layout is None:
            raise ValueError(
                f"{name} must give maps, one value for each position of a grid, got values {form}: "
                f"{GIVE_RESHAPE}, or name another layer."
            )
        if differentiated and call.node not in self.children:
            raise ValueError(f"`model` gives outputs that do not depend on {name} by a differentiable path: {NO_PATH}.")
        return MapSource(layer, call.number, reshape) if reshape else self._maps(call, layout)

    def _layout_of(self, form: Form | None) -> Layout | None:
        """Known by what the network did, or, where nobody saw that, by the image's ratio."""
        if form is None or self._are_maps(form):
            return form.layout if form else None
        first = self.axes.first
        last = Layout(tuple(axis - 1 for axis in first.axes))
        alike = [layout for layout in (first, last) if self._like_the_image(form, layout)]
        return alike[0] if len(alike) == 1 and form.layout is None else None

    @cached_property
    def _silent(self) -> set[Call]:
        """Calls that give other tokens beside those of the positions, which the logits do not depend on.

        So where a class token alone is read: behind the last block the others have no say.
        """
        calls = [call for call in self.calls if call.given.layout and call.given.layout.others(call.given.shape)]
        outputs = [call.output for call in calls]
        weights = torch.linspace(1, 2, self.raw[0].numel(), dtype=self.raw.dtype, device=self.raw.device)
        total = (self.raw.flatten(1) * weights).sum() if self.raw.ndim > 1 else self.raw.sum()
        gradients = torch.autograd.grad(total, outputs, allow_unused=True) if calls else ()
        return {
            call
            for call, gradient in zip(calls, gradients, strict=True)
            if gradient is None or not (call.given.layout or self.axes.first).maps(gradient).any()
        }

    def _are_maps(self, form: Form) -> bool:
        extents = self.rows.ndim - 2
        return form.layout is not None and len(form.sizes) == extents and form.shape[0] == len(self.rows)

    def _like_the_image(self, form: Form, layout: Layout) -> bool:
        """Whether the extents have the ratios of the inputs', to a rounding."""
        if len(form.shape) != self.rows.ndim or form.shape[0] != len(self.rows):
            return False
        whole, sizes = self.rows.shape[2:], layout.sizes(form.shape)
        return len(sizes) > 1 and all(
            abs(one * other_whole - other * one_whole) < max(one_whole, other_whole)
            for (one, one_whole), (other, other_whole) in pairwise(zip(sizes, whole, strict=True))
        )

    def _such_as(self, call: Call | None) -> str:
        return "" if call is None else f'; the last such maps are those of layer="{self.names[id(call.module)]}"'

    def _any_maps(self) -> Call | None:
        """The last maps with extent that the output depends on."""
        for call in reversed(self.calls):
            if call.given.extended and self._are_maps(call.given) and call.node in self.children:
                return call
        return None


@contextmanager
def tapped(model: nn.Module, maps: MapSource, ndim: int, of_input: bool = False) -> Iterator[nn.Module]:
    """A module that runs on these maps, and on nothing else; hooks on it see and change them.

    Args:
        ndim: Number of axes of the inputs.
        of_input: Whether the maps are of what the layer takes, instead of what it gives.

    Raises:
        TypeError: if the maps' `reshape` gives no tensor.
        ValueError: if it does other than to move values, or gives no maps of the inputs.
    """
    tap, runs = nn.Identity(), Counter[nn.Module]()

    def restart(model: nn.Module, arguments: Any) -> None:
        runs.clear()

    def through(values: Tensor) -> Tensor:
        if maps.reshape is None:
            return tap(values)
        places = _places(maps.reshape, values, ndim)
        flat, index = values.flatten(1), places.flatten().expand(len(values), -1)
        shown = tap(flat.gather(1, index).view(len(values), *places.shape))
        return flat.scatter(1, index, shown.flatten(1)).view_as(values)

    def pass_on(module: nn.Module, arguments: Any, output: Any = None) -> Any:
        runs[module] += 1
        if runs[module] != maps.number + 1:
            return output
        return (through(arguments[0]), *arguments[1:]) if of_input else through(output)

    hooked: Any = maps.module.register_forward_pre_hook if of_input else maps.module.register_forward_hook
    handles = [model.register_forward_pre_hook(restart), hooked(pass_on)]
    try:
        yield tap
    finally:
        for handle in handles:
            handle.remove()


def _places(reshape: Callable[[Tensor], Tensor], values: Tensor, ndim: int) -> Tensor:
    """Which values of a row the maps are made of, (channel, *extents)."""
    numbers = torch.arange(values[0].numel(), dtype=torch.float64, device=values.device)
    found = reshape(numbers.view(1, *values.shape[1:]))
    if not isinstance(found, Tensor):
        raise TypeError(f"`reshape` must give a tensor, got {type(found).__name__}.")
    if found.ndim != ndim or len(found) != 1:
        raise ValueError(
            f"`reshape` must give maps with as many axes as the inputs, {ndim}, (batch, channel, *extents); of a "
            f"layer's {(1, *values.shape[1:])} it gives {tuple(found.shape)}."
        )
    places = found[0].long()
    distinct = places.unique().numel() == places.numel() and int(places.min()) >= 0 and int(places.max()) < len(numbers)
    if not (distinct and places.equal(found[0])):
        raise ValueError("`reshape` must move the layer's values, each to one place at most, and not change them.")
    return places


def _children(top: Node | None) -> dict[Node, list[Node]]:
    """All that this node depends on, each with what it depends on at once."""
    children: dict[Node, list[Node]] = {}
    waiting = [top] if top is not None else []
    while waiting:
        node = waiting.pop()
        if node not in children:
            children[node] = [child for child, _ in node.next_functions if child is not None]
            waiting += children[node]
    return children


def _backward(top: Node | None, source: Node | None, children: dict[Node, list[Node]]) -> Iterator[tuple[Node, bool]]:
    """The nodes on paths from the source to the output, from there back; and whether all paths pass through each."""
    parents: dict[Node, list[Node]] = {node: [] for node in children}
    for node, below in children.items():
        for child in below:
            parents[child].append(node)
    on_path: set[Node] = set()
    waiting = [source] if source is not None else []
    while waiting:
        node = waiting.pop()
        if node not in on_path:
            on_path.add(node)
            waiting += parents[node]
    missing = {node: len(parents[node]) for node in on_path}
    ready, open_ends = [top] if top is not None else [], 0
    while ready:
        node = ready.pop()
        open_ends -= len(parents[node])
        yield node, open_ends == 0
        for child in children[node]:
            if child in on_path:
                open_ends += 1
                missing[child] -= 1
                if not missing[child]:
                    ready.append(child)
