"""Where the positions of an input (its pixels, its times) are among the axes of what a network makes of it."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

_MOVES = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"}
_RESHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"}
_REORDERS = {"einsum", "tensordot", "__get__", "roll", "flip", "fliplr", "flipud", "rot90"}
"""Functions whose result may have its axes, or the positions, in any order; `__get__` is that of `tensor.mT`."""
_TAKES = {"cat", "concat", "concatenate", "__getitem__", "narrow"}
"""Functions that put tokens together, or take some of them."""


@dataclass(frozen=True)
class Layout:
    """Where the positions are in a tensor.

    Attributes:
        axes: Place of each of the input's extents; of the tokens, if the positions lie in a row.
        grid: The extents that lie in that row, position after position; empty if each has an axis of its own.
        start: How many tokens are in front of the row: class and register tokens.
    """

    axes: tuple[int, ...]
    grid: tuple[int, ...] = ()
    start: int = 0

    def sizes(self, shape: torch.Size) -> tuple[int, ...]:
        """The extents, in a tensor of this shape."""
        return self.grid or tuple(shape[axis] for axis in self.axes)

    def others(self, shape: torch.Size) -> int:
        """How many tokens are no positions."""
        return shape[self.axes[0]] - prod(self.grid) if self.grid else 0

    def maps(self, values: Tensor) -> Tensor:
        """The values as maps (batch, channel, *extents): tokens that are no positions left out."""
        axes, extents = self.axes, len(self.grid or self.axes)
        if self.grid:
            values = values.narrow(axes[0], self.start, prod(self.grid)).unflatten(axes[0], self.grid)
            axes = tuple(range(axes[0], axes[0] + extents))
        values = values.movedim(axes, tuple(range(-extents, 0)))
        return values.reshape(len(values), -1, *values.shape[-extents:])


def channels_first(ndim: int) -> Layout:
    """Of inputs and maps (batch, channel, *extents) with this many axes."""
    return Layout(tuple(range(2, ndim)))


class TrackAxes(TorchFunctionMode):
    """Follows the positions of inputs (batch, channel, *extents) through what functions do to a tensor's axes.

    Positions may be laid in a row, as tokens with others in front of them, and back. A part of each extent is taken for
    it (the coarse axis, where pixels are merged by twos). Axes that a function merges or makes otherwise are not known.
    A convolution over as many extents as the inputs have always gives (batch, channel, *extents).
    """

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.first = channels_first(inputs.ndim)
        self._known = WeakTensorKeyDictionary()
        self._known[inputs] = self.first
        self.convolved = False

    def of(self, tensor: Any) -> Layout | None:
        """Where the positions are in this."""
        return self._known.get(tensor) if isinstance(tensor, Tensor) else None

    def note(self, tensor: Tensor, layout: Layout | None) -> None:
        if layout is not None and 0 not in layout.axes:
            self._known[tensor] = layout

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        if isinstance(results, Tensor | tuple | list):
            for output in tree_leaves(results):
                if isinstance(output, Tensor):
                    self.note(output, self._after(function, args, kwargs or {}, output))
        return results

    def _after(self, function: Any, args: Any, kwargs: Any, output: Tensor) -> Layout | None:
        name = getattr(function, "__name__", "")
        name = name if name.endswith("__") else name.removesuffix("_")  # in place is the same
        sources = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        extents = len(self.first.axes)
        if name.startswith("conv") and name.endswith(f"{extents}d") and output.ndim == 2 + extents and sources:
            self.convolved = True
            return self.first if self.of(sources[0]) in (None, self.first) else None
        known = [part for part in sources if self.of(part)]
        like = _most_like(output, known)
        layout = self.of(like)
        if like is None or layout is None or name in _REORDERS:
            return None
        if name in _MOVES:
            return _moved(function, args, kwargs, like, layout)
        if name in _RESHAPES or output.ndim != like.ndim:
            return _reshaped(like.shape, output.shape, layout)
        if len(layout.axes) > 1 or output.shape[layout.axes[0]] == like.shape[layout.axes[0]]:
            return layout
        if name in _TAKES:
            return _taken(function, args, kwargs, like, layout) if len(known) == 1 else None
        return None if layout.grid else layout


def _most_like(output: Tensor, sources: list[Tensor]) -> Tensor | None:
    """The first source of the output's shape, or of as many axes, or any."""
    for alike in (lambda part: part.shape == output.shape, lambda part: part.ndim == output.ndim, lambda part: True):
        for part in filter(alike, sources):
            return part
    return None


def _moved(function: Any, args: Any, kwargs: Any, like: Tensor, layout: Layout) -> Layout:
    """Where the function, which moves axes, puts these: seen on a tensor each of whose axes has another size."""
    probe = torch.empty(tuple(range(2, 2 + like.ndim)), device="meta")
    args = [probe if part is like else part for part in args]
    kwargs = {name: probe if part is like else part for name, part in kwargs.items()}
    shape = tuple(function(*args, **kwargs).shape)
    return Layout(tuple(shape.index(2 + axis) for axis in layout.axes), layout.grid, layout.start)


def _taken(function: Any, args: Any, kwargs: Any, like: Tensor, layout: Layout) -> Layout | None:
    """Where the function, which takes or joins tokens, puts these: seen on their numbers; None if they are parted."""
    (axis,), sizes = layout.axes, layout.sizes(like.shape)

    def numbered(part: Any) -> Any:
        if not isinstance(part, Tensor) or not part.is_floating_point():
            return part
        numbers = torch.arange(part.shape[axis]) if part is like else torch.full((part.shape[axis],), -1)
        return numbers.view([-1 if place == axis else 1 for place in range(part.ndim)]).expand(part.shape)

    found = function(*tree_map(numbered, args), **tree_map(numbered, kwargs)).movedim(axis, -1).flatten(0, -2)[0]
    row = torch.arange(layout.start, layout.start + prod(sizes))
    starts = (found == layout.start).nonzero().flatten().tolist()
    if len(starts) != 1 or not found[starts[0] :][: len(row)].equal(row):
        return None
    return Layout((axis,), sizes, starts[0])


def _reshaped(before: torch.Size, after: torch.Size, layout: Layout) -> Layout | None:
    """Where these axes are after elements were laid in another shape; None if they are no axes of it."""
    if prod(before) != prod(after):
        return None
    places = [_part(before, after, axis, whole=bool(layout.grid)) for axis in layout.axes]
    if None not in places and len(set(places)) == len(places):
        return Layout(tuple(place for place in places if place is not None), layout.grid, layout.start)
    offset, sizes = prod(before[: layout.axes[0]]), layout.sizes(before)
    starts = [place for place in range(len(after)) if prod(after[:place]) == offset]
    if layout.grid:  # the row of positions becomes axes again
        grid = len(sizes)
        laid = [place for place in starts if after[place : place + grid] == sizes and not layout.others(before)]
        return Layout(tuple(range(laid[-1], laid[-1] + grid))) if laid else None
    in_row = all(second == first + 1 for first, second in pairwise(layout.axes))
    laid = [place for place in starts if in_row and after[place] == prod(sizes)]
    return Layout((laid[-1],), sizes) if laid else None


def _part(before: torch.Size, after: torch.Size, axis: int, whole: bool) -> int | None:
    """Where an axis is, or, where it was parted, the coarse part of it."""
    starts = [place for place in range(len(after)) if prod(after[:place]) == prod(before[:axis])]
    same = [place for place in starts if after[place] == before[axis]]
    coarse = [place for place in starts if 1 < after[place] < before[axis] and before[axis] % after[place] == 0]
    found = same or ([] if whole else coarse)
    return found[-1] if found else None
