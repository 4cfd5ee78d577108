"""How many rows go through a network at once."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from lightning_xai.shapes import Inputs

CPU_BUDGET = 2**30
"""Bytes of activations that a pass on the CPU may hold: 1 GiB."""

CPU_ROWS, GPU_ROWS = 128, 2048
"""Beyond this many rows a pass gains no speed (on a CPU it loses some, to the caches)."""

_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")
"""What PyTorch's allocator says on Linux and macOS, and on Windows, in a plain RuntimeError."""

_limits: "weakref.WeakKeyDictionary[nn.Module, dict[tuple, int]]" = weakref.WeakKeyDictionary()


def in_chunks(
    function: Callable[..., Tensor], model: nn.Module, max_rows: int | None, inputs: Inputs, *others: Tensor
) -> Tensor:
    """`function(inputs, *others)` over chunks of rows that fit in memory; a chunk that does not fit is halved."""
    results, start = [], 0
    rows = row_limit(model, inputs, max_rows)
    while start < len(inputs):
        chunk = slice(start, start + rows)
        try:
            results.append(function(inputs[chunk], *(other[chunk] for other in others)))
        except RuntimeError as error:
            if not _out_of_memory(error) or rows == 1:
                raise
            rows = _remember(model, inputs, max(1, min(rows, len(inputs) - start) // 2))
            continue
        start += rows
    return results[0] if len(results) == 1 else torch.cat(results)


def groups(total: int, model: nn.Module, inputs: Inputs, max_rows: int | None) -> Iterator[Tensor]:
    """The numbers 0 .. total - 1 in groups such that a group's copies of the inputs fill one pass of the network."""
    size = max(1, row_limit(model, inputs, max_rows) // len(inputs))
    yield from torch.arange(total).split(size)


def row_limit(model: nn.Module, inputs: Inputs, max_rows: int | None) -> int:
    """The greatest number of rows of a pass: `max_rows`, or less if less fits in memory.

    What fits is measured once for each network and shape of a sample, and corrected when memory runs out.
    """
    known = _limits.setdefault(model, {}).get(_key(inputs))
    if known is None:
        known = _remember(model, inputs, _measure(model, inputs))
    return known if max_rows is None else min(known, max_rows)


def _measure(model: nn.Module, inputs: Inputs) -> int:
    """Rows that fit in the budget, from the bytes that one row's forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    row = inputs[:1].detach().clone().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = model(row)  # kept alive, so that no address is counted for two tensors
    activations = sum(size for address, size in kept.items() if address not in weights)
    del outputs
    most = GPU_ROWS if inputs.is_cuda else CPU_ROWS
    return max(1, min(most, _budget(inputs.device) // max(1, 2 * activations)))  # twice: the gradients


def _budget(device: torch.device) -> int:
    """Bytes for a pass: on a GPU half of what is free, counting what PyTorch holds in reserve without using it."""
    if device.type != "cuda":
        return CPU_BUDGET
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) // 2


def _remember(model: nn.Module, inputs: Inputs, rows: int) -> int:
    _limits.setdefault(model, {})[_key(inputs)] = rows
    return rows


def _key(inputs: Inputs) -> tuple:
    return (tuple(inputs.shape[1:]), inputs.dtype, inputs.device)


def _out_of_memory(error: RuntimeError) -> bool:
    found = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU_OUT_OF_MEMORY)
    if found and torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
    return found
