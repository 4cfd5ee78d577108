"""How many rows go through a network at once."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import Context
from lightning_xai.shapes import Inputs, Labels

CPU_BUDGET = 2**30
"""Bytes of activations that a pass on the CPU may hold: 1 GiB."""

CPU_ROWS, GPU_ROWS = 128, 2048
"""Beyond this many rows a pass gains no speed (on a CPU it loses some, to the caches)."""

_limits: "weakref.WeakKeyDictionary[nn.Module, dict[tuple, int]]" = weakref.WeakKeyDictionary()


def in_chunks(
    function: Callable[[Inputs, Labels], Tensor],
    model: nn.Module,
    inputs: Inputs,
    target: Labels,
    context: Context,
) -> Tensor:
    """`function(inputs, target)` over chunks of rows that fit in memory; a chunk that does not fit is halved."""
    results, start = [], 0
    rows = row_limit(model, inputs, context)
    while start < len(inputs):
        chunk = slice(start, start + rows)
        try:
            results.append(function(inputs[chunk], target[chunk]))
        except RuntimeError as error:
            if not _out_of_memory(error) or rows == 1:
                raise
            rows = _remember(model, inputs, max(1, min(rows, len(inputs) - start) // 2))
            continue
        start += rows
    return results[0] if len(results) == 1 else torch.cat(results)


def groups(total: int, model: nn.Module, inputs: Inputs, context: Context) -> Iterator[Tensor]:
    """The numbers 0 .. total - 1 in groups such that a group's copies of the inputs fill one pass of the network."""
    size = max(1, row_limit(model, inputs, context) // len(inputs))
    yield from torch.arange(total).split(size)


def row_limit(model: nn.Module, inputs: Inputs, context: Context) -> int:
    """The greatest number of rows of a pass, from `context.max_rows` or measured once for each network and shape."""
    known = _limits.setdefault(model, {}).get(_key(inputs))
    if known is None:
        known = _remember(model, inputs, _measure(model, inputs))
    return known if context.max_rows is None else min(known, context.max_rows)


def _measure(model: nn.Module, inputs: Inputs) -> int:
    """Rows that fit in the budget, from the bytes that one row's forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    row = inputs[:1].detach().clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = model(row)  # kept alive, so that no address is counted for two tensors
    activations = sum(size for address, size in kept.items() if address not in weights)
    del outputs
    most = GPU_ROWS if inputs.is_cuda else CPU_ROWS
    return max(1, min(most, _budget(inputs.device) // max(1, 2 * activations)))  # twice: the gradients


def _budget(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else CPU_BUDGET


def _remember(model: nn.Module, inputs: Inputs, rows: int) -> int:
    _limits.setdefault(model, {})[_key(inputs)] = rows
    return rows


def _key(inputs: Inputs) -> tuple:
    return (tuple(inputs.shape[1:]), inputs.dtype, inputs.device)


def _out_of_memory(error: RuntimeError) -> bool:
    found = isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
    if found and torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
    return found
