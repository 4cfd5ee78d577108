"""Which rows of its data set a dataloader can yield: asked of its sampler, without loading a sample."""

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities.data import sized_len
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning.overrides.distributed import UnrepeatedDistributedSampler, UnrepeatedDistributedSamplerWrapper
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

PATIENCE = 1000
"""Draws without a new row, at least, after which a sampler has no other ones."""


def reachable_rows(loader: DataLoader, limit: int | float = 1.0) -> Sequence[Any]:
    """The rows of the loader's data set that it can yield, ascending, each once.

    A sampler that draws at random can yield all that it draws from; any other one is iterated over, in a copy, and
    all random states stay as they were. Beneath Lightning's distributed samplers the user's own is asked, so that
    the rows are the same for any number of processes. Rows that are no numbers stand in the order of a pass.

    Args:
        loader: Of a data set with rows. A sampler without end is asked until nothing new comes.
        limit: The trainer's `limit_val_batches`: only the first batches of a pass, a number of them or a share.
    """
    rows = rows_of_a_pass(loader, limit)
    if isinstance(rows, range):
        return rows
    if all(isinstance(row, int) for row in rows):
        return sorted(set(rows))
    return list(dict.fromkeys(rows))


def rows_of_a_pass(loader: DataLoader, limit: int | float = 1.0) -> Sequence[Any]:
    """As `reachable_rows`, in the order of a pass, which is always the same one where a sampler shuffles."""
    with isolate_rng():
        _seed()
        drawn = _drawn(loader, limit)
        return drawn if isinstance(drawn, range) else list(map(_plain, _until_nothing_new(drawn, loader)))


def num_batches(limit: int | float, available: int | None) -> int | None:
    """The first batches that a pass is limited to, as Lightning counts them; None if it has no end."""
    if isinstance(limit, int):
        return limit if available is None else min(limit, available)
    return None if available is None else int(available * limit)


def _drawn(loader: DataLoader, limit: int | float) -> Iterable[Any]:
    batches = loader.batch_sampler
    if batches is None:  # each row is a batch
        rows = _own(loader.sampler)
        return _first(rows, num_batches(limit, sized_len(rows)))
    if type(batches) is not BatchSampler:
        batches = _own(batches)
        return chain.from_iterable(_first(batches, num_batches(limit, sized_len(batches))))
    rows, size = _own(batches.sampler), batches.batch_size
    length = sized_len(rows)
    available = None if length is None else length // size if batches.drop_last else -(-length // size)
    number = num_batches(limit, available)
    return _first(rows, None if number is None else number * size)


def _first(items: Iterable[Any], number: int | None) -> Iterable[Any]:
    return items[:number] if isinstance(items, range) else islice(items, number)


def _own(sampler: Any) -> Any:
    """What the user's own sampler draws from, or a copy of it to iterate over."""
    if isinstance(sampler, DistributedSamplerWrapper | UnrepeatedDistributedSamplerWrapper):
        return _own(_wrapped(sampler))
    if type(sampler) is SequentialSampler:
        return range(len(sampler.data_source))
    if type(sampler) is RandomSampler:
        return _shuffled(len(sampler.data_source))
    if type(sampler) is WeightedRandomSampler:
        possible = sampler.weights.nonzero().flatten()
        return possible[torch.randperm(len(possible))].tolist()
    if type(sampler) in (DistributedSampler, UnrepeatedDistributedSampler):
        length = len(sampler.dataset)
        kept = min(length, sampler.total_size)
        return _shuffled(length) if sampler.shuffle else range(kept)
    if isinstance(sampler, DistributedSampler):  # somebody's own: each process yields other rows
        shares = [_copied(sampler) for _ in range(sampler.num_replicas)]
        for rank, share in enumerate(shares):
            share.rank = rank
        return list(chain.from_iterable(shares))
    return _copied(sampler)


def _shuffled(length: int) -> list[int]:
    return torch.randperm(length).tolist()


def _copied(sampler: Any) -> Any:
    """A copy that can be iterated over without a trace: what it draws with and what it may reorder are copies too."""
    try:
        twin = copy.copy(sampler)
    except TypeError:  # such as a generator, which ends with its first pass anyway
        return sampler
    copies: dict[Any, Callable[[Any], Any]] = {
        torch.Generator: torch.Generator.clone_state,
        (np.random.Generator, np.random.RandomState, random.Random): copy.deepcopy,
        (list, dict, set, np.ndarray): copy.copy,
        Tensor: torch.clone,
        DistributedSampler: _undistributed,
        Sampler: _copied,
    }
    for name, value in list(getattr(twin, "__dict__", {}).items()):
        make = next((make for kinds, make in copies.items() if isinstance(value, kinds)), None)
        if make is not None:
            twin.__dict__[name] = make(value)
    return twin


def _undistributed(sampler: DistributedSampler) -> Any:
    """What Lightning has wrapped, or replaced, in a batch sampler of the user's."""
    if isinstance(sampler, DistributedSamplerWrapper | UnrepeatedDistributedSamplerWrapper):
        return _copied(_wrapped(sampler))
    if type(sampler) in (DistributedSampler, UnrepeatedDistributedSampler):
        return (RandomSampler if sampler.shuffle else SequentialSampler)(sampler.dataset)  # type: ignore[arg-type]
    return _copied(sampler)


def _wrapped(sampler: Any) -> Any:
    """The user's own sampler, in Lightning's for several processes."""
    return sampler.dataset._sampler


def _until_nothing_new(rows: Iterable[Any], loader: DataLoader) -> Iterator[Any]:
    patience = max(PATIENCE, 2 * (sized_len(loader.dataset) or 0))
    seen: set[Any] = set()
    waited = 0
    for row in rows:
        key = tuple(row) if isinstance(row, list) else _plain(row)
        waited = waited + 1 if key in seen else 0
        if waited > patience:
            return
        seen.add(key)
        yield row


def _plain(row: Any) -> Any:
    return row.item() if isinstance(row, Tensor | np.generic) else row


def _seed() -> None:
    """For samplers that draw from a global generator: the same rows in every run and process."""
    torch.default_generator.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
