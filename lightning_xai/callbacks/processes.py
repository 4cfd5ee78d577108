"""What the processes of a training tell one another: that one of them failed, and sums."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning import Trainer

from lightning_xai.functional.warn import described

T = TypeVar("T")


def attempted(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What the work gives, or how it failed: a process that fails still has to meet the others, who wait for it."""
    try:
        return work(), None
    except Exception as error:
        return None, error


def raise_together(trainer: Trainer, failure: Exception | None) -> None:
    """Raise in every process where one has failed. A collective call.

    Raises:
        Exception: the failure itself where all processes failed, as a single one does.
        RuntimeError: else, with the ranks of those that failed, and why they did.
    """
    told = gathered(trainer, None if failure is None else described(failure))
    if failure is not None and all(told):
        raise failure
    if failed := [f"process {rank} of {len(told)}: {why}" for rank, why in enumerate(told) if why]:
        raise RuntimeError(f"The explanations failed in {'; '.join(failed)}") from failure


def gathered(trainer: Trainer, own: Any) -> list[Any]:
    """What each of the processes has, by rank. A collective call."""
    if not _several(trainer):
        return [own]
    everybodys: list[Any] = [None] * dist.get_world_size()
    with _meeting(trainer):
        dist.all_gather_object(everybodys, own)
    return everybodys


def summed(trainer: Trainer, own: np.ndarray) -> np.ndarray:
    """The sum over the processes, the same on each of them. A collective call; the shape is the same in each."""
    if not _several(trainer):
        return own
    with _meeting(trainer):
        mine = torch.tensor(own, device=trainer.strategy.root_device)
        return trainer.strategy.reduce(mine, reduce_op="sum").cpu().numpy()


def _several(trainer: Trainer) -> bool:
    return trainer.world_size > 1 and dist.is_available() and dist.is_initialized()


@contextmanager
def _meeting(trainer: Trainer) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"Process {trainer.global_rank} of {trainer.world_size} waited in vain for the explanations of the others: "
            "one of them has ended, or took longer than the process group's timeout (`timeout` of the strategy). Its "
            "own output says why."
        ) from error
