"""Which module makes the maps that GradCAM looks at, and which axes of its output are those of the image."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from lightning_xai.explainers.axes import IMAGE, Axes, TrackAxes
from lightning_xai.explainers.chunks import check_rows

NO_PATH = (
    "a part of it runs under torch.no_grad or inference_mode, or its values are detached, cast to integers or to NumPy."
    " Freeze weights with `requires_grad_(False)` instead of running them under torch.no_grad"
)
"""Why outputs do not depend on something by a differentiable path, and what to do."""

NAME_MAPS = (
    "Name a layer that gives (batch, channel, height, width), such as one that permutes or reshapes its input to that"
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


def last_feature_maps(model: nn.Module, rows: Tensor) -> nn.Module:
    """The module that makes the last maps with extent that all that the output knows of the input passes through.

    Those in front of any final pooling: the activation behind the last convolution, or the residual block that it ends.
    So neither a gate (squeeze-and-excitation, spatial attention), nor
    one of several branches, nor a convolutional head behind the pooling. GradCAM of what a convolution puts out before
    its activation is often zero everywhere, since the final ReLU removes it. What the model calculates by functions
    behind its modules is not seen.

    Raises:
        ValueError: if there are none, or if tokens or maps in another order of axes come after them (transformers).
    """
    return Walk(model, rows).last_maps().module


@dataclass(frozen=True)
class Form:
    """The shape of a tensor, and where in it the image's height and width are; None if that is not known."""

    shape: torch.Size
    axes: Axes | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the image's axes; of all but the batch's if it is not known which those are."""
        return tuple(self.shape[axis] for axis in self.axes or range(1, len(self.shape)))

    @property
    def extended(self) -> bool:
        """Whether it has extent, as an image or as tokens."""
        needed = 1 if self.axes else 2  # one axis is the channels'
        return len(self.shape) > 2 and sum(size > 1 for size in self.sizes) >= needed

    def __str__(self) -> str:
        if self.axes == (1, 2):
            return f"(batch, height, width, channel), of shape {tuple(self.shape)}"
        if self.axes is None and len(self.shape) == 4:
            return f"of shape {tuple(self.shape)}, in an order of axes not known (if it is right, name it)"
        return f"tokens of shape {tuple(self.shape)}" if len(self.shape) == 3 else f"of shape {tuple(self.shape)}"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        number: Which of the module's calls, from 0.
        given, taken: Its output and its first argument; None if that is no tensor of numbers.
        node: The output's place in the graph of the derivative; None if it has none.
    """

    module: nn.Module
    number: int
    given: Form
    taken: Form | None
    node: Node | None

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
        ValueError: if the inputs are no images.
    """

    def __init__(self, model: nn.Module, rows: Tensor) -> None:
        if rows.ndim != 4:
            raise ValueError(
                "`inputs` must be images (batch, channel, height, width) for methods that look at a layer: only "
                f"spatial maps of images can be enlarged to the inputs; got shape {tuple(rows.shape)}."
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
                return check_rows(model(start), len(self.rows)).grad_fn
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, module: nn.Module, arguments: tuple, output: Any) -> Tensor | None:
        number, self.runs[module] = self.runs[module], self.runs[module] + 1
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        argument = next(iter(arguments), None)
        taken = Form(argument.shape, self.axes.of(argument)) if isinstance(argument, Tensor) else None
        axes = self.axes.of(output)
        if axes is None and taken and taken.shape == output.shape and not any(module.children()):
            axes = taken.axes  # it kept the shape, by functions that nobody sees
        # The copy is this call's own place in the graph: modules may return what they took, or change it later.
        passed = (output if output.requires_grad else output.detach().requires_grad_()).clone()
        self.axes.note(passed, axes)
        self.calls.append(Call(module, number, Form(passed.shape, axes), taken, passed.grad_fn))
        return passed

    def last_maps(self) -> Call:
        """The call that makes the maps of `last_feature_maps`."""
        if not self.axes.convolved and self.scripted:
            raise ValueError(f"`model` has no convolution but in TorchScript: {_SCRIPTED}.")
        if not self.axes.convolved:
            raise ValueError("`layer` must be given: `model` has no convolution whose maps GradCAM could show.")
        found, other = self._last()
        if other is not None:
            raise ValueError(
                f'`layer` must be given: the last maps of `model`, those of "{self.names[id(other.module)]}", are '
                f"{other.given}; they must be (batch, channel, height, width). {NAME_MAPS}{self._such_as(found)}."
            )
        if found is None:
            raise ValueError(
                "`layer` must be given: all that the output of `model` knows of its input goes several ways and not "
                f"through (batch, channel, height, width) maps with extent{self._such_as(self._any_maps())}."
            )
        return found

    def _last(self) -> tuple[Call | None, Call | None]:
        """The last maps; and what has extent behind them, or before them and no weights between, in another order."""
        found: Call | None = None
        newest: Call | None = None  # also those that a pooling made
        other: Call | None = None
        for cut in self._cuts():
            call, form = cut.call, cut.call.given
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

    def check_layer(self, layer: nn.Module, differentiated: bool = True, of_input: bool = False) -> None:
        """Refuse a layer whose maps cannot be shown, or that the output does not depend on by a differentiable path."""
        name = f'`layer` "{self.names[id(layer)]}"'
        if isinstance(layer, torch.jit.ScriptModule):
            raise ValueError(f"{name} is TorchScript: {_SCRIPTED}.")
        calls = [call for call in self.calls if call.module is layer]
        if not calls:
            what = "gives no single tensor" if self.runs[layer] else "is not run by `model` (in evaluation mode)"
            raise ValueError(f"{name} {what}; it must give maps (batch, channel, height, width).")
        form = calls[-1].taken if of_input else calls[-1].given
        if form is None or not (self._are_maps(form) or (form.axes is None and self._like_the_image(form))):
            raise ValueError(
                f"{name} must give maps (batch, channel, height, width), got {form}: only spatial maps of images can "
                f"be enlarged to the inputs. {NAME_MAPS}."
            )
        if differentiated and calls[-1].node not in self.children:
            raise ValueError(f"`model` gives outputs that do not depend on {name} by a differentiable path: {NO_PATH}.")

    def _are_maps(self, form: Form) -> bool:
        return len(form.shape) == 4 and form.axes == IMAGE and form.shape[0] == len(self.rows)

    def _like_the_image(self, form: Form) -> bool:
        """Whether the last two of four axes have the image's ratio, to a rounding."""
        if len(form.shape) != 4 or form.shape[0] != len(self.rows):
            return False
        (height, width), (rows, columns) = self.rows.shape[2:], form.shape[2:]
        return abs(rows * width - columns * height) < max(height, width)

    def _such_as(self, call: Call | None) -> str:
        return "" if call is None else f'; the last such maps are those of layer="{self.names[id(call.module)]}"'

    def _any_maps(self) -> Call | None:
        """The last maps with extent that the output depends on."""
        for call in reversed(self.calls):
            if call.given.extended and self._are_maps(call.given) and call.node in self.children:
                return call
        return None


@contextmanager
def tapped(model: nn.Module, layer: nn.Module, number: int) -> Iterator[nn.Module]:
    """A module that runs on what this call of the layer gives, and on nothing else; hooks on it see and change that."""
    tap, runs = nn.Identity(), Counter[nn.Module]()

    def restart(model: nn.Module, arguments: Any) -> None:
        runs.clear()

    def pass_on(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        runs[module] += 1
        return tap(output) if runs[module] == number + 1 else output

    handles = [model.register_forward_pre_hook(restart), layer.register_forward_hook(pass_on)]
    try:
        yield tap
    finally:
        for handle in handles:
            handle.remove()


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
