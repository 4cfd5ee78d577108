"""How many rows go through a network at once, and how they lie in memory."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.explainers.state import explaining, first_in_call, noting_changes, one_pass, random_states_kept
from lightning_xai.functional.warn import warn_caller
from lightning_xai.shapes import Inputs

CPU_BUDGET = 2**30
"""Bytes of activations that a pass on the CPU may hold: 1 GiB."""

CPU_FAST_BUDGET, CPU_LEAST_ROWS = 2**28, 8
"""On a CPU passes with more than 256 MiB of activations are slower by the row, unless they are of a few rows only."""

CPU_ROWS, GPU_ROWS = 128, 2048
"""Beyond this many rows a pass gains no speed (on a CPU it loses some, to the caches)."""

_OUT_OF_MEMORY = (
    "can't allocate memory",  # PyTorch's allocator on Linux and macOS
    "not enough memory",  # on Windows
    "MPS backend out of memory",
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
    "unable to find an engine to execute this computation",  # cuDNN without room to work in (or with another cause)
)
"""What is said in a plain RuntimeError."""

_CONTIGUOUS_ONLY = "view size is not compatible"
"""What PyTorch says where a network views, instead of reshapes, maps whose channels lie together."""

_WHOLE = (
    "`model` failed with {} rows. It treats its rows together, or takes batches of one size only (it does not take one "
    "or two rows): give batches of the size that it takes. It said: {}"
)

_MIXED = (
    "`model` treats the rows of a batch together: the output of a sample depends on the others (as with batch "
    "statistics, or attention over the batch). Maps and scores are those of the batch as it is given, which always "
    "goes through the network whole; other batches give others."
)

_SAME_LAYOUT = 0.1
"""Logits in two memory formats are the same if they differ by less than this share of what two rows differ by."""


@dataclass(frozen=True)
class _Pass:
    """How inputs of one shape go through one network.

    Attributes:
        rows: How many at once.
        channels_last: Whether the channels of a pixel lie together in memory, which convolutions on a CPU run up to
            twice as fast on.
        whole: Whether the rows that are given go through together, neither more nor fewer: networks that treat rows
            together, or that take a batch of one size only.
        alone: Whether this was found out with one row, since no two were allowed at once.
        mixed: Whether rows are treated together, which is said in each call.
    """

    rows: int
    channels_last: bool
    whole: bool = False
    alone: bool = False
    mixed: bool = False


_passes: "weakref.WeakKeyDictionary[nn.Module, dict[tuple, _Pass]]" = weakref.WeakKeyDictionary()


def in_chunks(
    function: Callable[..., Tensor], model: nn.Module, max_rows: int | None, inputs: Inputs, *others: Tensor
) -> Tensor:
    """`function(inputs, *others)` over chunks of rows that fit in memory; a chunk that does not fit is halved."""
    results: list[Tensor] = []
    start = 0
    while start < len(inputs):
        rows = len(inputs) if takes_whole_batches(model, inputs, max_rows) else row_limit(model, inputs, max_rows)
        chunk = slice(start, start + rows)
        try:
            arranged = _arranged(inputs[chunk], _pass(model, inputs, max_rows).channels_last)
            with one_pass(model):
                results.append(function(arranged, *(other[chunk] for other in others)).contiguous())
        except RuntimeError as error:
            if not _corrected(model, inputs, min(rows, len(inputs) - start), error):
                if takes_whole_batches(model, inputs):
                    raise ValueError(_WHOLE.format(len(inputs), error)) from error
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
    every = range(numbers) if isinstance(numbers, int) else numbers
    whole = takes_whole_batches(model, inputs, max_rows)
    fitting = 1 if whole else row_limit(model, inputs, max_rows) // len(inputs)
    size = max(1, fitting // together) * together
    for start in range(0, len(every), size):
        yield torch.tensor(every[start : start + size])


def row_limit(model: nn.Module, inputs: Inputs, max_rows: int | None) -> int:
    """The greatest number of rows of a pass: `max_rows`, or less if less fits in memory.

    What fits is measured once for each network and shape of a sample, and corrected when memory runs out.
    """
    known = _pass(model, inputs, max_rows).rows
    return known if max_rows is None else min(known, max_rows)


def takes_whole_batches(model: nn.Module, inputs: Inputs, max_rows: int | None = None) -> bool:
    """Whether the batch that is explained has to go through the network as it is: see `_Pass`."""
    whole = _pass(model, inputs, max_rows).whole
    if whole and max_rows is not None and max_rows < len(inputs):
        raise ValueError(
            f"`max_rows` is {max_rows}, but `model` treats the {len(inputs)} rows of its batch together, or takes "
            "batches of one size only: they cannot be parted. Leave `max_rows` out, or give smaller batches."
        )
    return whole


def check_takes_one_row(model: nn.Module, inputs: Inputs, who: str) -> None:
    """Refuse a network that has to get the batch as it is, for what gives it one sample at a time."""
    if len(inputs) > 1 and takes_whole_batches(model, inputs):
        raise ValueError(
            f"`model` treats the {len(inputs)} rows of its batch together, or does not take a single one (as where "
            f"`squeeze()` drops its axis), but {who} gives it one sample at a time. Let its forward pass return "
            "(1, classes) for one row, the same as in a batch."
        )


def probe_rows(model: nn.Module, inputs: Tensor, max_rows: int | None = None) -> Tensor:
    """As few of the rows as the network takes, to look at what a forward pass does."""
    return inputs if takes_whole_batches(model, inputs, max_rows) else inputs[:1]


def check_rows(outputs: Any, rows: int) -> Tensor:
    """The model's outputs, if they are a tensor with a row a sample; what the rows are, an `Output` says."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"`model` must return a tensor of logits (batch, classes), got {type(outputs).__name__}; "
            "lightning_xai.Forward(model, key=...), or forward={'key': ...} of a callback, picks one of several."
        )
    if not outputs.ndim or len(outputs) != rows:
        raise ValueError(
            f"`model` must return logits (batch, classes), got shape {tuple(outputs.shape)} for {rows} samples."
        )
    return outputs


def check_logits(outputs: Any, rows: int) -> Tensor:
    """The model's outputs, if they are logits (batch, classes)."""
    if check_rows(outputs, rows).ndim != 2:
        raise ValueError(
            f"`model` must return logits (batch, classes), got shape {tuple(outputs.shape)} for {rows} samples."
        )
    return outputs


def _pass(model: nn.Module, inputs: Inputs, max_rows: int | None = None) -> _Pass:
    known = _passes.setdefault(model, {}).get(_key(inputs))
    if known is None or (known.alone and max_rows != 1):
        known = _remember(model, inputs, _measured(model, inputs, alone=max_rows == 1))
    if known.mixed and first_in_call(model, "mixed"):
        warn_caller(_MIXED)
    return known


def _measured(model: nn.Module, inputs: Inputs, alone: bool) -> _Pass:
    """How the network takes its inputs, found out with one row and with two; it is left as it was."""
    with random_states_kept(model), explaining(model), noting_changes(model) as note:
        rows, logits = _fewest(model, inputs, alone, note)
        whole, mixed = logits is None, False
        if logits is None:
            rows, logits = inputs, _answer_to_all(model, inputs)
        if len(rows) > 1 and _mixes(model, rows, logits):
            whole, rows = True, inputs
            mixed = True
        channels_last = inputs.ndim == 4 and inputs.device.type == "cpu" and _same_in_channels_last(model, rows)
        activations = _activations(model, _arranged(rows if whole else rows[:1], channels_last))
    needed = max(1, 2 * activations)  # twice: the gradients
    most = GPU_ROWS if inputs.is_cuda else min(CPU_ROWS, max(CPU_LEAST_ROWS, CPU_FAST_BUDGET // needed))
    return _Pass(max(1, min(most, _budget(inputs.device) // needed)), channels_last, whole, alone, mixed)


def _fewest(model: nn.Module, inputs: Tensor, alone: bool, note: Callable[[], None]) -> tuple[Tensor, Tensor | None]:
    """Two rows, or one, and their logits; None if the network does not take one row and two as it takes the batch."""
    row = inputs[:1].detach()
    logits = _tried(model, row)
    note()
    if alone or logits is None:
        return row, logits
    pair = torch.cat([row, 0.75 * row.flip(*range(1, row.ndim)) + 0.1])
    try:
        return pair, _tried(model, pair)
    except RuntimeError:  # no memory for two
        return row, logits


def _tried(model: nn.Module, rows: Tensor) -> Tensor | None:
    """Logits; None if the network does not take these rows, which are not the user's batch."""
    try:
        return _answer(model, rows)
    except Exception as error:  # whatever a forward pass raises
        if isinstance(error, RuntimeError) and _out_of_memory(error):
            raise
        return None


def _answer(model: nn.Module, rows: Tensor) -> Tensor:
    """Logits, with the same random numbers each time; gradients are on, as where a network is explained."""
    with explaining(model), one_pass(model):
        return check_rows(model(rows.detach().clone().requires_grad_().clone()), len(rows)).detach()


def _answer_to_all(model: nn.Module, inputs: Tensor) -> Tensor:
    """The logits of the user's own batch; an error here is one of it."""
    try:
        return _answer(model, inputs)
    except Exception as error:
        if _tried(model, inputs[None]) is None:
            raise
        raise ValueError(
            f"`inputs` must be a batch, but {tuple(inputs.shape)} is the shape of a single sample for this `model`: "
            "give `inputs[None]`, and take the first of the results."
        ) from error


def _mixes(model: nn.Module, rows: Tensor, logits: Tensor) -> bool:
    """Whether the first row's output changes with the last row, or the last one's with the first.

    The same kernels see them, and so the bits are the same where not.
    """
    others = {0: torch.cat([rows[:-1], rows[:1]]), -1: torch.cat([rows[-1:], rows[1:]])}
    seen = [row for row, changed in others.items() if not _same(_answer(model, changed)[row], logits[row])]
    if not seen:
        return False
    again = _answer(model, rows)
    return all(_same(again[row], logits[row]) for row in seen)  # else it changes by itself, or is NaN


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one == other).all())


def _same_in_channels_last(model: nn.Module, rows: Tensor) -> bool:
    """Whether the network answers the same to images whose channels lie together."""
    as_given = _answer(model, rows)
    try:
        arranged = _answer(model, _arranged(rows, channels_last=True))
    except Exception:  # such as a view of what is not contiguous
        return False
    spread = (as_given - as_given[:1]).abs().max()
    return bool((as_given - arranged).abs().max() <= _SAME_LAYOUT * spread + 1e-5 * as_given.abs().max())


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
    known = _passes[model][_key(inputs)]
    if known.channels_last and _CONTIGUOUS_ONLY in str(error):
        _remember(model, inputs, replace(known, channels_last=False))
        return True
    if known.whole or not _out_of_memory(error) or rows == 1:
        return False
    _remember(model, inputs, replace(known, rows=max(1, rows // 2)))
    return True


def _remember(model: nn.Module, inputs: Inputs, way: _Pass) -> _Pass:
    _passes.setdefault(model, {})[_key(inputs)] = way
    return way


def _key(inputs: Inputs) -> tuple:
    return (tuple(inputs.shape[1:]), inputs.dtype, inputs.device)


def _out_of_memory(error: RuntimeError) -> bool:
    found = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)
    if found and torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
    return found
