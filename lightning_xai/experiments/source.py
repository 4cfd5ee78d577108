"""Samples of a loader or a data module, read as they are needed: some rows by their numbers, or a walk."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from lightning_fabric.utilities import move_data_to_device
from lightning_fabric.utilities.data import sized_len
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_xai.callbacks.rows import num_batches, reachable_rows
from lightning_xai.callbacks.samples import Samples, collated, has_rows, named_loaders, spread, with_classes

Stage = Literal["validate", "test"]


@dataclass(frozen=True)
class Source:
    """Samples that are read as they are needed.

    Attributes:
        loader: Whose they are.
        take: Makes `Samples`, on the model's device, of a batch.
        batch_size: Samples read at a time, where they can be asked for.
        keys: Keys of the rows that can be asked for, by number; None where the loader can only be walked.
        num_batches: Number of batches of a walk; None for all.
        num_samples: Chosen; None for all.
    """

    loader: Any
    take: Callable[[Any], Samples]
    batch_size: int
    keys: Mapping[int, Any] | None
    num_batches: int | None
    num_samples: int | None

    @classmethod
    def of(
        cls,
        data: Any,
        take: Callable[[Any], Samples],
        batch_size: int,
        stage: Stage,
        limit: int | float,
        num_samples: int | None,
    ) -> "Source":
        """Of a data module, a loader, or batches."""
        loader = _loader(data, stage)
        most = num_batches(limit, sized_len(loader))
        if not has_rows(loader):
            return cls(loader, take, batch_size, None, most, num_samples)
        rows = reachable_rows(loader, limit)
        whole = all(isinstance(row, int) for row in rows)
        keys = {row if whole else place: row for place, row in enumerate(rows)}
        return cls(loader, take, batch_size, keys, most, num_samples)

    def chosen(self) -> list[int] | None:
        """The numbers of the samples chosen, of all shards; None where they are not known before they are walked."""
        if self.keys is None:
            return None
        numbers = list(self.keys)
        return [numbers[i] for i in spread(len(numbers), self.num_samples or len(numbers)).tolist()]

    def numbers(self, argument: str) -> Sequence[int]:
        """As `chosen`, or those of a walk, if it is so long, for an argument that has to know them.

        Raises:
            ValueError: if they are not known.
        """
        chosen = self.chosen()
        if chosen is None and self.num_samples is None:
            raise ValueError(
                f"`{argument}`: how many samples these data have is not known before they are walked. Give "
                "`num_samples`, of which there may be fewer, or data with rows."
            )
        return range(self.num_samples or 0) if chosen is None else chosen

    def first(self, number: int = 1) -> Samples:
        """The first batch of a walk, or the first samples."""
        chosen = self.chosen()
        read = self.walk(lambda number: True) if chosen is None else self.read(chosen[:number])
        try:
            return next(read)[1]
        except StopIteration:
            raise ValueError("`data` gives no samples to evaluate.") from None

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], Samples]]:
        """Samples of these numbers, in batches, collated as the loader does it, by as many workers."""
        keys = self.keys or {}
        loader, several = self.loader, len(numbers) > self.batch_size
        options = ("num_workers", "prefetch_factor", "worker_init_fn", "multiprocessing_context", "timeout")
        batches = DataLoader(
            loader.dataset,
            self.batch_size,
            sampler=[keys[number] for number in numbers],
            collate_fn=partial(collated, loader.collate_fn),
            pin_memory=loader.pin_memory and torch.cuda.is_available(),
            **{name: getattr(loader, name) for name in options if several and loader.num_workers},
        )
        start = 0
        for batch in batches:
            samples = self.take(batch)
            own = list(numbers[start : start + len(samples.images)])
            start += len(own)
            yield own, _numbered(samples, own)

    def walk(self, wanted: Callable[[int], bool]) -> Iterator[tuple[list[int], Samples]]:
        """Samples of these numbers, counted as they come, in the loader's batches."""
        start = 0
        for batch in islice(self.loader, self.num_batches):
            samples = self.take(batch)
            numbers = range(start, start + len(samples.images))
            start = numbers.stop
            own = [number for number in numbers if number < (self.num_samples or start) and wanted(number)]
            if own:
                yield own, _numbered(samples, list(numbers)).select(torch.tensor(own) - numbers.start)
            if self.num_samples is not None and start >= self.num_samples:
                return


def _loader(data: Any, stage: Stage) -> Any:
    if isinstance(data, LightningDataModule):
        data.prepare_data()
        data.setup(stage)
        found = named_loaders(data.test_dataloader() if stage == "test" else data.val_dataloader())
        if len(found) > 1:
            raise ValueError(
                f"`data`: {type(data).__name__} gives several dataloaders, {', '.join(found)}: give one of them, and "
                "each a `folder` of its own."
            )
        return _loader(found.get(""), stage)
    if isinstance(data, Tensor) or not hasattr(data, "__iter__") or hasattr(data, "__next__"):
        raise TypeError(
            "`data` must be a DataLoader, a LightningDataModule, or batches that can be iterated over again, got "
            f"{type(data).__name__}. Of tensors, DataLoader(TensorDataset(images, labels)) makes one."
        )
    return data


def taken(model: nn.Module, data: Any, take: Callable[[Any], Samples], target: int | str | None, batch: Any) -> Samples:
    """The samples of a batch on the model's device, by the hooks of data module and module, as Lightning calls them."""
    device = next((part.device for part in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    batch = _hooked("on_before_batch_transfer", model, data, batch)
    batch = _hooked("transfer_batch_to_device", model, data, batch, device)
    samples = take(_hooked("on_after_batch_transfer", model, data, batch))
    samples = with_classes(samples, "prediction" if isinstance(target, int) else target)  # type: ignore[arg-type]
    return replace(samples, index=samples.index.cpu())


def _hooked(hook: str, model: nn.Module, data: Any, batch: Any, *device: torch.device) -> Any:
    owners = [owner for owner in (data, model) if hasattr(owner, hook) and is_overridden(hook, owner)]
    if owners:
        return getattr(owners[0], hook)(batch, *device, 0)
    return move_data_to_device(batch, *device) if device else batch


def _numbered(samples: Samples, numbers: list[int]) -> Samples:
    """Samples whose batch does not say their indices have their numbers."""
    return replace(samples, index=torch.where(samples.index < 0, torch.tensor(numbers), samples.index))
