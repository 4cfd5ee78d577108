"""A fixed set of samples out of any dataloader, shared out over the processes."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric.utilities.data import sized_len
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_xai.callbacks.rows import num_batches, reachable_rows, rows_of_a_pass
from lightning_xai.outputs import binary_labels, positive_labels

IMAGE_KEYS = ("image", "images", "input", "inputs", "pixel_values", "img", "x")
LABEL_KEYS = ("label", "labels", "target", "targets", "y")
OTHER_KEYS = ("index", "mask", "masks")
Target = Literal["label", "prediction", "positive"]

ADVICE = (
    'Give `target="prediction"` to explain the class that the model predicts, `target="positive"` to explain each '
    "label that holds of (batch, classes) zeros and ones, or `unpack`, a function that makes `Samples` with class "
    "indices of a batch"
)


ONE_SIZE = (
    "Samples of different sizes are not explained together: resize them in the data set or in `unpack` (torchvision's "
    "Resize and CenterCrop), or evaluate them one by one, `lightning_xai.evaluate_stream(..., batch_size=1)`."
)


@dataclass(frozen=True)
class Samples:
    """Some samples of a data set.

    Attributes:
        images: (samples, ...), as the model takes them.
        labels: (samples,) class indices; None if the batches have none. Or (samples, classes) zeros and ones, whether
            each label holds, before `each_positive`.
        index: (samples,) each sample's index; -1 if the batches do not say, for its position in the data set.
        masks: (samples, height, width) booleans, or None.
        carried: Other arguments of the model by name, each (samples, ...), or None.

    Example:
        >>> import torch
        >>> from lightning_xai.callbacks import AttributionCallback
        >>> from lightning_xai.callbacks.samples import Samples
        >>> def unpack(batch):
        ...     unknown = torch.full((len(batch["breed"]),), -1)  # then the index is the row in the data set
        ...     return Samples(batch["photo"], batch["breed"], index=unknown, masks=None)
        >>> callback = AttributionCallback(unpack=unpack, bounds=(0.0, 1.0))
        >>> unpack({"photo": torch.rand(2, 1, 8, 8), "breed": torch.tensor([3, 1])}).labels
        tensor([3, 1])
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor
    masks: Tensor | None
    carried: Mapping[str, Tensor] | None = None

    def select(self, positions: Tensor) -> "Samples":
        """Some of the samples."""
        return Samples(*(_rows(part, positions) for part in vars(self).values()))


def choose_samples(
    trainer: Trainer,
    loader: Any,
    num_samples: int,
    batch_size: int,
    unpack: Callable[[Any], Samples],
    whole: bool = False,
    limit: int | float = 1.0,
    target: Target | None = None,
    place: int = 0,
) -> Samples:
    """This process's part of `num_samples` samples, evenly spaced over the rows that the loader can yield.

    The same samples whatever the number of processes; they are on the device, in the order of their rows. A data set
    that can only be iterated over gives its first ones: every process reads them all and keeps its share. Batches go
    through the module's own transfer hooks, as in the validation loop.

    Args:
        trainer: Whose loader it is.
        loader: A dataloader, or anything that gives batches.
        num_samples: Chosen; all if there are fewer.
        batch_size: Samples read at a time.
        unpack: Makes `Samples` of a batch.
        whole: Whether every process gets all of them.
        limit: As in `reachable_rows`.
        target: As in `AttributionCallback`.
        place: Of the loader among several, which transfer hooks are told.

    Raises:
        ValueError: if there is no sample, labels are no class indices, or samples have different sizes.
        TypeError: if labels are not integers.
    """

    def take(batch: Any) -> Samples:
        return with_classes(unpack(_to_device(trainer, batch, place)), target)

    rank, world = (0, 1) if whole else (trainer.global_rank, trainer.world_size)
    if has_rows(loader):
        rows = _of_all_processes(trainer, reachable_rows(loader, limit))
        _check_any(rows)
        return read_rows(loader, rows, share(spread(len(rows), num_samples), rank, world), batch_size, take)
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):  # of whole batches
        batches = _of_all_processes(trainer, rows_of_a_pass(loader, limit))
        _check_any(batches)
        loader = DataLoader(loader.dataset, batch_size=None, sampler=batches, collate_fn=loader.collate_fn)
    most = num_batches(limit, sized_len(loader))
    most = num_samples if most is None else min(num_samples, most)  # a batch has at least one sample
    stream = _join(map(take, islice(loader, most)), torch.arange(num_samples))
    return stream.select(share(torch.arange(len(stream.images)), rank, world))


def named_loaders(loaders: Any) -> dict[str, Any]:
    """Several dataloaders by their keys, or their places in a list, joined by "-"; an only one by the empty name.

    Raises:
        ValueError: if a name cannot be a part of the names of metrics and files, or two have the same.
    """
    found = list(_flat(loaders, ()))
    if len(found) == 1:
        return {"": found[0][1]}
    names = ["-".join(keys) for keys, _ in found]
    wrong = [name for name in names if names.count(name) > 1 or not re.fullmatch(r"\w(?:[\w.-]*[\w-])?", name)]
    if wrong:
        raise ValueError(
            "The names of several dataloaders become parts of the names of metrics and files: they must differ, be "
            f"made of letters, digits, `_`, `-` and `.`, and begin with a letter or digit; got {wrong[0]!r}."
        )
    return dict(zip(names, (loader for _, loader in found), strict=True))


def _flat(loaders: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(loaders, CombinedLoader):
        yield from _flat(loaders.iterables, keys)
    elif isinstance(loaders, Mapping | list | tuple):
        parts = loaders.items() if isinstance(loaders, Mapping) else enumerate(loaders)
        for key, loader in parts:
            yield from _flat(loader, (*keys, str(key)))
    elif loaders is not None:
        yield keys, loaders


def first_loader(loaders: Any) -> Any:
    """The first of several dataloaders, in a list, by name, or combined, which is said; None if there is none."""
    found = named_loaders(loaders)
    if len(found) > 1:
        rank_zero_info(f"Of the dataloaders {', '.join(found)} the first is taken.")
    return next(iter(found.values()), None)


def current_loaders(trainer: Trainer) -> dict[str, Any]:
    """The dataloaders of the validation or test that runs, or that a training will run, by name (`named_loaders`).

    Where a training has not made them yet, they are made once more for the occasion.
    """
    loops: dict[Any, Any] = {"validate": trainer.validate_loop, "test": trainer.test_loop}
    loop = loops.get(trainer.state.fn, trainer.fit_loop.epoch_loop.val_loop)
    if loop._combined_loader is not None:
        return named_loaders(loop._combined_loader)
    return named_loaders(loop._data_source.dataloader()) if loop._data_source.is_defined() else {}


def has_rows(loader: Any) -> bool:
    """Whether its samples can be asked for one by one: neither a stream nor a data set of ready batches."""
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and loader.batch_sampler is not None
    )


def read_rows(
    loader: DataLoader, rows: Sequence[Any], chosen: Tensor, batch_size: int, take: Callable[[Any], Samples]
) -> Samples:
    """The chosen ones of the rows, collated as the loader does it; the index of each is its row in the data set."""
    keys = [rows[position] for position in chosen.tolist()]
    numbers = torch.tensor(keys) if all(isinstance(key, int) for key in keys) else chosen
    collate = partial(collated, loader.collate_fn)
    batches = DataLoader(Subset(loader.dataset, keys), batch_size, collate_fn=collate)
    return _join(map(take, batches), numbers)


def collated(collate: Callable[[Any], Any], samples: Any) -> Any:
    """Samples in a list, or what a data set that is asked for several at once makes of them."""
    try:
        return collate(samples)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"`data`: the loader's `collate_fn` makes no batch of {len(samples)} samples ({error}). {ONE_SIZE}"
        ) from error


def spread(length: int, number: int) -> Tensor:
    """`number` positions evenly spaced over 0 .. length - 1, all of them if there are fewer."""
    return torch.linspace(0, length - 1, min(number, length), dtype=torch.float64).round().long()


def share(positions: Tensor, rank: int, world: int) -> Tensor:
    """A process's consecutive share; the first position where nothing is left (a repeated index counts once)."""
    mine = positions.tensor_split(world)[rank]
    return mine if len(mine) else positions[:1]


def unpack(
    batch: Any,
    mask: str | None = None,
    strict: bool = True,
    explained: str | None = None,
    carried: Sequence[str] = (),
    positive: bool = False,
) -> Samples:
    """Images, labels, indices and masks of a batch: a dict by its keys, a sequence as (images, labels, ...), a tensor.

    Labels may be any integers, one a sample, also of shape (samples, 1), or the 0.0 and 1.0, or booleans, of a binary
    classifier. Where label or index is a single number, the batch is a single sample, as loaders with `batch_size=None`
    give them. Images and labels may be lists.

    Args:
        batch: What the dataloader gives. Keys: `IMAGE_KEYS`, `LABEL_KEYS`, "index", "mask".
        mask: Which mask, if the batch has several by name; None for the first.
        strict: Whether labels that are no class indices, and other keys where no label is found, are refused. If not,
            such a batch has no labels.
        explained: Another key of the images, as in `Forward`.
        carried: Keys of the model's other arguments.
        positive: Whether labels are (samples, classes) zeros and ones.

    Raises:
        TypeError: if images are no tensor, or labels are not integers.
        ValueError: if there is no image, a mask of this name, or labels are of another shape; if images in a list have
            different sizes.
    """
    if isinstance(batch, Mapping):
        image_keys = IMAGE_KEYS if explained is None or explained not in batch else (explained,)
        images, labels = _first_of(batch, image_keys, required=True), _first_of(batch, LABEL_KEYS)
        others = [str(key) for key in batch if key not in (*image_keys, *LABEL_KEYS, *OTHER_KEYS, *carried)]
        if strict and labels is None and others:
            raise ValueError(
                f"The batch must have its labels in one of the keys {', '.join(LABEL_KEYS)}, or none at all; it has "
                f"{', '.join(map(str, batch))}. {ADVICE}."
            )
        masks = _pick_mask(batch.get("mask", batch.get("masks")), mask)
        samples = _checked(images, labels, batch.get("index"), masks, strict, positive)
        along = {key: _first_of(batch, (key,), required=True) for key in carried}
        if _is_one(labels) or _is_one(batch.get("index")):
            along = {key: value[None] if isinstance(value, Tensor) else value for key, value in along.items()}
        return replace(samples, carried=along or None)
    if carried:
        raise TypeError(
            f"`forward` carries {', '.join(carried)} along, keys of a batch that is a mapping; got "
            f"{type(batch).__name__}. Pass `unpack`, which makes `Samples` with `carried`."
        )
    if isinstance(batch, list | tuple):
        images, *rest = batch
        return _checked(images, rest[0] if rest else None, None, None, strict, positive)
    return _checked(batch, None, None, None, strict, positive)


def with_classes(samples: Samples, target: Target | None) -> Samples:
    """The samples with labels that can be explained, as int64; without them where the prediction is explained.

    Labels of which each "positive" one is explained stay (samples, classes).
    """
    strict = target != "prediction"
    labels = _labels(samples.labels, len(samples.images), strict, target == "positive")
    if labels is None and target in ("label", "positive"):
        raise ValueError(f'`target` is "{target}", but the batches have no labels. {ADVICE}.')
    return replace(samples, labels=labels)


def each_positive(samples: Samples) -> tuple[Samples, Tensor]:
    """A row for each label that holds of a sample, with its class as the label; and each row's sample."""
    rows, classes = positive_labels(cast(Tensor, samples.labels))
    return replace(samples.select(rows.cpu()), labels=classes), rows.cpu()


def check_labels(samples: Samples, num_outputs: int) -> None:
    """Refuse labels that are not outputs of the model.

    Raises:
        ValueError: with the samples.
    """
    if samples.labels is None:
        return
    wrong = ((samples.labels < 0) | (samples.labels >= num_outputs)).nonzero().flatten().cpu()
    if not len(wrong):
        return
    some = [part[wrong[:5].to(part.device)].tolist() for part in (samples.labels, samples.index)]
    found = ", ".join(f"{label} of sample {number}" for label, number in zip(*some, strict=True))
    raise ValueError(
        f"The labels must be in 0 .. {num_outputs - 1}, the outputs of the model, to be explained; {len(wrong)} of "
        f"{len(samples.labels)} are not: {found}{', ...' if len(wrong) > 5 else ''}. Leave samples without a class out "
        'of the data, or give `target="prediction"`; outputs that are no classes, such as an embedding, need a head.'
    )


def _labels(labels: Any, number: int, strict: bool, positive: bool) -> Tensor | None:
    if not positive or labels is None:
        return _class_indices(labels, number, strict)
    labels = torch.as_tensor(labels) if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, Tensor) or len(labels) != number:
        raise TypeError(
            f"The batch's labels must be a tensor ({number}, classes) of zeros and ones, each positive one of which is "
            f"explained; got {type(labels).__name__}."
        )
    positive_labels(labels)
    return labels


def _class_indices(labels: Any, number: int, strict: bool) -> Tensor | None:
    """Labels as int64, (number,), or None without labels; what cannot be class indices is refused, or left out."""
    if labels is None:
        return None
    if isinstance(labels, np.ndarray) or (isinstance(labels, list | tuple) and all(type(x) is int for x in labels)):
        labels = torch.as_tensor(labels)
    labels = binary_labels(labels) if isinstance(labels, Tensor) else labels
    integers = isinstance(labels, Tensor) and not (
        labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    )
    if integers and len(labels.shape) and len(labels) == number == labels.numel():
        return labels.flatten().long()
    if not strict:
        return None
    got = f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
    raise (ValueError if integers else TypeError)(
        f"The batch's labels must be class indices, integers of shape ({number},), to be explained; got {got}. "
        f"{ADVICE} (of one-hot labels, their argmax)."
    )


def _is_one(value: Any) -> bool:
    """Whether it is a single number."""
    return isinstance(value, int | float | np.generic) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0)


def _checked(images: Any, labels: Any, index: Any, masks: Any, strict: bool, positive: bool) -> Samples:
    if isinstance(images, list | tuple) and isinstance(labels, list | tuple) and len(images) == len(labels):
        images, labels = _stacked(images), _stacked(labels)
    if isinstance(images, Tensor) and (_is_one(labels) or _is_one(index)):
        images, labels, index, masks = (
            None if part is None else torch.as_tensor(part)[None] for part in (images, labels, index, masks)
        )
    if not isinstance(images, Tensor):
        raise TypeError(
            f"The batch's images must be a tensor, got {type(images).__name__}. A batch must be (images, labels), or a "
            f"mapping with one of the keys {', '.join(IMAGE_KEYS)} and one of {', '.join(LABEL_KEYS)}; for any other "
            "kind pass `unpack` to the callback."
        )
    unknown = torch.full((len(images),), -1)
    labels = _labels(labels, len(images), strict, positive)
    return Samples(images, labels, unknown if index is None else index.cpu(), masks)


def _stacked(parts: Sequence[Any]) -> Any:
    """The tensors of a list as one."""
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        return parts
    _check_one_size(parts, 0)
    return torch.stack(list(parts))


def _check_one_size(parts: Sequence[Tensor], start: int) -> None:
    """Refuse tensors that differ in the axes from `start` on."""
    sizes = list(dict.fromkeys(tuple(part.shape[start:]) for part in parts))
    if len(sizes) > 1:
        raise ValueError(f"There are samples of the sizes {', '.join(map(str, sizes[:3]))}. {ONE_SIZE}")


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
    _check_one_size([part.images for part in whole], 1)
    images, labels, index, masks, carried = (
        _cat([getattr(part, name) for part in whole], len(positions))
        for name in ("images", "labels", "index", "masks", "carried")
    )
    return Samples(images, labels, torch.where(index < 0, positions[: len(index)], index), masks, carried)


def _cat(parts: list[Any], number: int) -> Any:
    if isinstance(parts[0], Mapping):
        return {name: _cat([part[name] for part in parts], number) for name in parts[0]}
    return None if parts[0] is None else torch.cat(parts)[:number]


def _rows(part: Any, positions: Tensor) -> Any:
    if isinstance(part, Mapping):
        return {name: _rows(value, positions) for name, value in part.items()}
    return None if part is None else part[positions.to(part.device)]


def _of_all_processes(trainer: Trainer, rows: Sequence[Any]) -> Sequence[Any]:
    """The rows of every process, where a sampler of the user's gives each of them other ones."""
    if trainer.world_size == 1 or not (dist.is_available() and dist.is_initialized()):
        return rows
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, rows)
    if all(part == rows for part in every):
        return rows
    together = list(dict.fromkeys(row for part in every for row in part))
    return sorted(together) if all(isinstance(row, int) for row in together) else together


def _check_any(rows: Sequence[Any]) -> None:
    if not rows:
        raise ValueError(
            "The dataloader's data set is empty: there is no sample to explain. (Or its sampler yields no row of it.)"
        )


def _to_device(trainer: Trainer, batch: Any, place: int = 0) -> Any:
    """What the evaluation loop does to a batch before the step."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=place)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=place)
