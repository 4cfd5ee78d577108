"""Where an image's height and width are among the axes of what a network makes of it."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

Axes = tuple[int, int]
"""Places of the height and the width among a tensor's axes."""

IMAGE: Axes = (2, 3)
"""Of images and maps (batch, channel, height, width)."""

_MOVES = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"}
_RESHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"}
_REORDERS = {"einsum", "tensordot", "__get__"}
"""Functions whose result may have its axes in any order; `__get__` is that of `tensor.mT`."""


class TrackAxes(TorchFunctionMode):
    """Follows the image's height and width through what functions do to a tensor's axes.

    Axes that a function merges or makes anew are not known; a convolution always gives (batch, channel, height, width).
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._known = WeakTensorKeyDictionary()
        self._known[images] = IMAGE
        self.convolved = False

    def of(self, tensor: Any) -> Axes | None:
        """Where the image's height and width are in this."""
        return self._known.get(tensor) if isinstance(tensor, Tensor) else None

    def note(self, tensor: Tensor, axes: Axes | None) -> None:
        if axes is not None:
            self._known[tensor] = axes

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = function(*args, **(kwargs or {}))
        if isinstance(results, Tensor | tuple | list):
            for output in tree_leaves(results):
                if isinstance(output, Tensor):
                    self.note(output, self._after(function, args, kwargs or {}, output))
        return results

    def _after(self, function: Any, args: Any, kwargs: Any, output: Tensor) -> Axes | None:
        name = getattr(function, "__name__", "").removesuffix("_")
        sources = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        if name.startswith("conv") and name.endswith("2d") and output.ndim == 4 and sources:
            self.convolved = True
            return IMAGE if self.of(sources[0]) in (None, IMAGE) else None
        like = _most_like(output, [part for part in sources if self.of(part)])
        axes = self.of(like)
        if like is None or axes is None or name in _REORDERS:
            return None
        if name in _MOVES:
            return _moved(function, args, kwargs, like, axes)
        if name in _RESHAPES or output.ndim != like.ndim:
            return _reshaped(like.shape, output.shape, axes)
        return axes


def _most_like(output: Tensor, sources: list[Tensor]) -> Tensor | None:
    """The first source of the output's shape, or of as many axes, or any."""
    for alike in (lambda part: part.shape == output.shape, lambda part: part.ndim == output.ndim, lambda part: True):
        for part in filter(alike, sources):
            return part
    return None


def _moved(function: Any, args: Any, kwargs: Any, like: Tensor, axes: Axes) -> Axes:
    """Where the function, which moves axes, puts these: seen on a tensor each of whose axes has another size."""
    probe = torch.empty(tuple(range(2, 2 + like.ndim)), device="meta")
    args = [probe if part is like else part for part in args]
    kwargs = {name: probe if part is like else part for name, part in kwargs.items()}
    shape = tuple(function(*args, **kwargs).shape)
    height, width = (shape.index(2 + axis) for axis in axes)
    return height, width


def _reshaped(before: torch.Size, after: torch.Size, axes: Axes) -> Axes | None:
    """Where these axes are after elements were laid in another shape; None if they are no axes of it."""
    if prod(before) != prod(after):
        return None
    places = []
    for axis in axes:
        same = [
            place
            for place in range(len(after))
            if after[place] == before[axis] and prod(after[:place]) == prod(before[:axis])
        ]
        places += same[-1:]
    return (places[0], places[1]) if len(set(places)) == 2 else None
