"""How many rows go through a network at once, and how they lie in memory."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_xai.shapes import Inputs

CPU_BUDGET = 2**30
"""Bytes of activations that a pass on the CPU may hold: 1 GiB."""

CPU_FAST_BUDGET, CPU_LEAST_ROWS = 2**28, 8
"""On a CPU passes with more than 256 MiB of activations are slower by the row, unless they are of a few rows only."""

CPU_ROWS, GPU_ROWS = 128, 2048
"""Beyond this many rows a pass gains no speed (on a CPU it loses some, to the caches)."""

_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")
"""What PyTorch's allocator says on Linux and macOS, and on Windows, in a plain RuntimeError."""

_CONTIGUOUS_ONLY = "view size is not compatible"
"""What PyTorch says where a network views, instead of reshapes, maps whose channels lie together."""


@dataclass(frozen=True)
class _Pass:
    """How inputs of one shape go through one network.

    Attributes:
        rows: How many at once.
        channels_last: Whether the channels of a pixel lie together in memory, which convolutions on a CPU run up to
            twice as fast on.
    """

    rows: int
    channels_last: bool


_passes: "weakref.WeakKeyDictionary[nn.Module, dict[tuple, _Pass]]" = weakref.WeakKeyDictionary()


def in_chunks(
    function: Callable[..., Tensor], model: nn.Module, max_rows: int | None, inputs: Inputs, *others: Tensor
) -> Tensor:
    """`function(inputs, *others)` over chunks of rows that fit in memory; a chunk that does not fit is halved."""
    results: list[Tensor] = []
    start = 0
    while start < len(inputs):
        rows = row_limit(model, inputs, max_rows)
        chunk = slice(start, start + rows)
        try:
            arranged = _arranged(inputs[chunk], _pass(model, inputs).channels_last)
            results.append(function(arranged, *(other[chunk] for other in others)).contiguous())
        except RuntimeError as error:
            if not _corrected(model, inputs, min(rows, len(inputs) - start), error):
                raise
            continue
        start += rows
    return results[0] if len(results) == 1 else torch.cat(results)


def groups(
    numbers: int | range, model: nn.Module, inputs: Inputs, max_rows: int | None, together: int = 1
) -> Iterator[Tensor]:
    """The numbers, or 0 .. numbers - 1, in groups such that a group's copies of the inputs fill one pass.

    Args:
        together: Numbers that must not be parted: groups are multiples of it, also where they are more than one pass.
    """
    fitting = row_limit(model, inputs, max_rows) // len(inputs)
    every = torch.arange(numbers) if isinstance(numbers, int) else torch.tensor(numbers)
    yield from every.split(max(1, fitting // together) * together)


def row_limit(model: nn.Module, inputs: Inputs, max_rows: int | None) -> int:
    """The greatest number of rows of a pass: `max_rows`, or less if less fits in memory.

    What fits is measured once for each network and shape of a sample, and corrected when memory runs out.
    """
    known = _pass(model, inputs).rows
    return known if max_rows is None else min(known, max_rows)


def _pass(model: nn.Module, inputs: Inputs) -> _Pass:
    known = _passes.setdefault(model, {}).get(_key(inputs))
    return known or _remember(model, inputs, _measured(model, inputs))


def _measured(model: nn.Module, inputs: Inputs) -> _Pass:
    """Rows that fit in the budget; on a CPU images with the channels together, if the network takes them so."""
    channels_last = inputs.ndim == 4 and inputs.device.type == "cpu"
    try:
        activations = _activations(model, _arranged(inputs[:1], channels_last))
    except RuntimeError as error:
        if not channels_last or _CONTIGUOUS_ONLY not in str(error):
            raise
        channels_last, activations = False, _activations(model, inputs[:1])
    needed = max(1, 2 * activations)  # twice: the gradients
    most = GPU_ROWS if inputs.is_cuda else min(CPU_ROWS, max(CPU_LEAST_ROWS, CPU_FAST_BUDGET // needed))
    return _Pass(max(1, min(most, _budget(inputs.device) // needed)), channels_last)


def _activations(model: nn.Module, row: Inputs) -> int:
    """Bytes that one row's forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    row = row.detach().clone().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = model(row)  # kept alive, so that no address is counted for two tensors
    total = sum(size for address, size in kept.items() if address not in weights)
    del outputs
    return total


def _arranged(inputs: Inputs, channels_last: bool) -> Inputs:
    # `contiguous` would leave images of one channel as they are, which lie both ways at once.
    return inputs.to(memory_format=torch.channels_last) if channels_last else inputs


def _budget(device: torch.device) -> int:
    """Bytes for a pass: on a GPU half of what is free, counting what PyTorch holds in reserve without using it."""
    if device.type != "cuda":
        return CPU_BUDGET
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) // 2


def _corrected(model: nn.Module, inputs: Inputs, rows: int, error: RuntimeError) -> bool:
    """Whether there is another way to send the rows through after this error, which is remembered."""
    known = _pass(model, inputs)
    if known.channels_last and _CONTIGUOUS_ONLY in str(error):
        _remember(model, inputs, replace(known, channels_last=False))
        return True
    if not _out_of_memory(error) or rows == 1:
        return False
    _remember(model, inputs, replace(known, rows=max(1, rows // 2)))
    return True


def _remember(model: nn.Module, inputs: Inputs, way: _Pass) -> _Pass:
    _passes.setdefault(model, {})[_key(inputs)] = way
    return way


def _key(inputs: Inputs) -> tuple:
    return (tuple(inputs.shape[1:]), inputs.dtype, inputs.device)


def _out_of_memory(error: RuntimeError) -> bool:
    found = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU_OUT_OF_MEMORY)
    if found and torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
    return found
