"""A fixed set of samples out of any dataloader, shared out over the processes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

IMAGE_KEYS = ("image", "images", "input", "inputs", "pixel_values", "img", "x")
LABEL_KEYS = ("label", "labels", "target", "targets", "y")


@dataclass(frozen=True)
class Samples:
    """Some samples of a data set.

    Attributes:
        images: (samples, ...), as the model takes them.
        labels: (samples,) class indices; None if the batches have none.
        index: (samples,) each sample's index, its position in the data set if the batches do not say.
        masks: (samples, height, width) booleans, or None.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor
    masks: Tensor | None

    def select(self, positions: Tensor) -> "Samples":
        """Some of the samples."""
        chosen = (None if part is None else part[positions.to(part.device)] for part in vars(self).values())
        return Samples(*chosen)  # type: ignore[arg-type]


def choose_samples(
    trainer: Trainer,
    loader: Any,
    num_samples: int,
    batch_size: int,
    unpack: Callable[[Any], Samples],
    whole: bool = False,
) -> Samples:
    """This process's part of `num_samples` samples, evenly spaced over the loader's data set, on the device.

    The same samples whatever the number of processes. A data set that can only be iterated over gives its first ones:
    every process reads them all and keeps its share. Batches go through the module's own transfer hooks, as in the
    validation loop. With `whole`, every process gets all of them.
    """

    def read(batches: Iterable[Any], positions: Tensor) -> Samples:
        return _join((unpack(_to_device(trainer, batch)) for batch in batches), positions)

    rank, world = (0, 1) if whole else (trainer.global_rank, trainer.world_size)
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        positions = share(spread(_length(loader.dataset), num_samples), rank, world)
        subset = Subset(loader.dataset, positions.tolist())
        return read(DataLoader(subset, batch_size, collate_fn=loader.collate_fn), positions)
    stream = read(islice(loader, num_samples), torch.arange(num_samples))  # a batch has at least one sample
    return stream.select(share(torch.arange(len(stream.images)), rank, world))


def spread(length: int, number: int) -> Tensor:
    """`number` positions evenly spaced over 0 .. length - 1, all of them if there are fewer."""
    return torch.linspace(0, length - 1, min(number, length), dtype=torch.float64).round().long()


def share(positions: Tensor, rank: int, world: int) -> Tensor:
    """A process's consecutive share; the first position where nothing is left (a repeated index counts once)."""
    mine = positions.tensor_split(world)[rank]
    return mine if len(mine) else positions[:1]


def unpack(batch: Any, mask: str | None = None) -> Samples:
    """Images, labels, indices and masks of a batch: a dict by its keys, a sequence as (images, labels, ...), a tensor.

    Args:
        batch: What the dataloader gives. Keys: `IMAGE_KEYS`, `LABEL_KEYS`, "index", "mask".
        mask: Which mask, if the batch has several by name; None for the first.
    """
    if isinstance(batch, Mapping):
        images, labels = _first_of(batch, IMAGE_KEYS, required=True), _first_of(batch, LABEL_KEYS)
        return _checked(images, labels, batch.get("index"), _pick_mask(batch.get("mask", batch.get("masks")), mask))
    if isinstance(batch, list | tuple):
        images, *rest = batch
        return _checked(images, rest[0] if rest else None, None, None)
    return _checked(batch, None, None, None)


def _checked(images: Any, labels: Any, index: Any, masks: Any) -> Samples:
    if not isinstance(images, Tensor):
        raise TypeError(
            f"The batch's images must be a tensor, got {type(images).__name__}. A batch must be (images, labels), or a "
            f"mapping with one of the keys {', '.join(IMAGE_KEYS)} and one of {', '.join(LABEL_KEYS)}; for any other "
            "kind pass `unpack` to the callback."
        )
    if labels is not None and (not isinstance(labels, Tensor) or labels.ndim != 1):
        labels = None  # not class indices: the predicted class is explained
    unknown = torch.full((len(images),), -1)
    return Samples(images, labels, unknown if index is None else index.cpu(), masks)


def _pick_mask(masks: Any, name: str | None) -> Tensor | None:
    if not isinstance(masks, Mapping):
        return masks
    if name is not None and name not in masks:
        raise ValueError(f"`mask` must be one of the data's masks, {', '.join(masks)}, got {name!r}.")
    return masks[name or next(iter(masks))]


def _first_of(batch: Mapping[str, Any], keys: tuple[str, ...], required: bool = False) -> Any:
    for key in keys:
        if key in batch:
            return batch[key]
    if required:
        raise ValueError(f"The batch must have one of the keys {', '.join(keys)}, it has {', '.join(map(str, batch))}.")
    return None


def _join(parts: Iterator[Samples], positions: Tensor) -> Samples:
    whole: list[Samples] = []
    while sum(len(part.images) for part in whole) < len(positions):
        part = next(parts, None)
        if part is None:
            break
        whole.append(part)
    if not whole:
        raise ValueError("The dataloader is empty: there is no sample to explain.")
    images, labels, index, masks = (
        _cat([getattr(part, name) for part in whole], len(positions)) for name in ("images", "labels", "index", "masks")
    )
    return Samples(images, labels, torch.where(index < 0, positions[: len(index)], index), masks)


def _cat(tensors: list[Any], number: int) -> Any:
    return None if tensors[0] is None else torch.cat(tensors)[:number]


def _length(dataset: Any) -> int:
    if not len(dataset):
        raise ValueError("The dataloader's data set is empty: there is no sample to explain.")
    return len(dataset)


def _to_device(trainer: Trainer, batch: Any) -> Any:
    """What the evaluation loop does to a batch before the step."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch)
    return trainer.strategy.batch_to_device(batch)
