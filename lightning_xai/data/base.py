"""Image sets in memory, and the data module that splits, normalizes and batches them.

A batch is a dict: `image` float32 (B, C, H, W), normalized; `label` int64 (B,); `index` int64 (B,), the
sample's position in the published split it comes from (a validation sample carries its position in the
training set), the same for any seed, batch size and number of processes; and, where the data set has masks,
`mask`: a dict of bool (B, H, W).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from PIL import Image, ImageOps
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from lightning_xai.explainers.base import check_count
from lightning_xai.functional.random import fold_in_int
from lightning_xai.shapes import Labels

Split = Literal["train", "test"]

_SPLIT_STREAM, _LABEL_STREAM = 0, 1


@dataclass(frozen=True)
class ImageSource:
    """One published split as tensors; samples are numbered as the publisher did."""

    images: UInt8[Tensor, " sample channel height width"]
    labels: Int64[Tensor, " sample"]
    masks: dict[str, Bool[Tensor, " sample height width"]]


@dataclass(frozen=True)
class Normalization:
    """Pixels 0..255 -> (pixel / 255 - mean) / std, one mean and one standard deviation a channel.

    Batches are made with NumPy: PyTorch spreads operations of their size over its threads, and when the cores
    are busy, waiting for those can take seventy times as long as the work.
    """

    mean: Float[Tensor, " channel 1 1"]
    std: Float[Tensor, " channel 1 1"]

    def __call__(
        self, images: UInt8[Tensor, "*batch channel height width"]
    ) -> Float[Tensor, "*batch channel height width"]:
        pixels = images.numpy().astype(np.float32)
        pixels /= 255
        pixels -= self.mean.numpy()
        pixels /= self.std.numpy()
        return torch.from_numpy(pixels)

    @property
    def bounds(self) -> tuple[Float[Tensor, " channel 1 1"], Float[Tensor, " channel 1 1"]]:
        """What the darkest and the brightest possible pixel become."""
        black = torch.zeros(self.mean.shape, dtype=torch.uint8)
        return self(black), self(black + 255)


class ImageDataset(Dataset):
    """The samples `rows` of a source, with labels that may differ from the source's.

    An item is one sample's dict. Loaders fetch whole batches by `__getitems__`, in one indexing operation, so
    that loading is cheap without workers; `collate` accepts either form.
    """

    def __init__(
        self, source: ImageSource, rows: Int64[Tensor, " row"], labels: Labels, normalize: Normalization
    ) -> None:
        self.source, self.rows, self.labels, self.normalize = source, rows, labels, normalize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return _first(self.__getitems__([position]))

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        chosen = torch.tensor(positions)
        rows = self.rows[chosen]
        images = self.normalize(_take(self.source.images, rows))
        batch: dict[str, Any] = {"image": images, "label": self.labels[chosen], "index": rows}
        if self.source.masks:
            batch["mask"] = {name: _take(mask, rows) for name, mask in self.source.masks.items()}
        return batch


def collate(samples: dict[str, Any] | list[dict[str, Any]]) -> dict[str, Any]:
    """A batch from a list of samples; what `ImageDataset.__getitems__` returned is a batch already."""
    return samples if isinstance(samples, dict) else default_collate(samples)


class ImageDataModule(LightningDataModule, ABC):
    """Base of the data modules: a data set of images that fits in memory.

    The published training split is divided into training and validation samples, every class in proportion;
    the published test split is also what `predict` sees. Batches are described at the top of the module.

    Args:
        batch_size: Samples a batch and process.
        num_workers: 0 is the right number nearly always: the images are in memory.
        seed: Seed of the division into training and validation samples, and of the label permutation.
        val_size: Number of validation samples; null: a twelfth of the training split.
        mean: Mean of each channel on the scale 0..1; null: the data set's own.
        std: Standard deviation of each channel on the scale 0..1; null: the data set's own.
        randomize_labels: Permute the labels of the training samples once. Class counts stay, and validation
            and test labels stay true (the data randomization test of Adebayo et al., 2018).

    Raises:
        ValueError: if a size is out of range, or `mean` or `std` do not have a number for each channel.

    Example:
        A data set of one's own says what its images are, and reads its two splits.

        >>> import torch
        >>> from lightning_xai.data import ImageDataModule
        >>> from lightning_xai.data.base import ImageSource
        >>> class Noise(ImageDataModule):
        ...     image_shape, class_names = (1, 8, 8), ("left", "right")
        ...     default_mean, default_std = (0.5,), (0.25,)
        ...
        ...     def load(self, split):
        ...         images = torch.randint(0, 256, (48, 1, 8, 8), dtype=torch.uint8)
        ...         return ImageSource(images, torch.arange(48) % 2, masks={})
        >>> data = Noise(batch_size=4)
        >>> data.setup("fit")
        >>> batch = next(iter(data.val_dataloader()))
        >>> batch["image"].shape, sorted(batch["label"].tolist()), [bound.item() for bound in data.bounds]
        (torch.Size([4, 1, 8, 8]), [0, 0, 1, 1], [-2.0, 2.0])
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    default_mean: tuple[float, ...]
    default_std: tuple[float, ...]

    def __init__(
        self,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        val_size: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        randomize_labels: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.num_workers = at_least("num_workers", num_workers, 0)
        self.seed = seed
        self.val_size = checked_val_size(val_size)
        self.normalize = Normalization(
            channel_tensor("mean", self.default_mean if mean is None else mean, self.image_shape[0]),
            channel_tensor("std", self.default_std if std is None else std, self.image_shape[0], positive=True),
        )
        self.randomize_labels = randomize_labels
        self._sets: dict[str, ImageDataset] = {}

    @abstractmethod
    def load(self, split: Split) -> ImageSource:
        """The published split, read from memory or disk and never from the network."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest value that an input can take, (C, 1, 1) each, in the batches' normalized space.

        Computed as the images are, so that a black or white element equals its bound bit for bit.
        """
        return self.normalize.bounds

    def preprocess(self, picture: Image.Image) -> Float[Tensor, " channel height width"]:
        """Any picture as the network takes it: cut to the center, resized, gray where there is one channel, normalized.

        Nothing else: a digit in ink on paper is dark on bright, and MNIST's are bright on dark.
        """
        channels, height, width = self.image_shape
        pixels = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (width, height))
        return self.normalize(torch.from_numpy(np.array(pixels).reshape(height, width, -1)).permute(2, 0, 1))

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit", "validate") and "train" not in self._sets:
            self._sets |= self._training_sets(self.load("train"))
        if stage in (None, "test", "predict") and "test" not in self._sets:
            source = self.load("test")
            self._sets["test"] = self._dataset(source, torch.arange(len(source.labels)), source.labels)

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._loader("test")

    def _training_sets(self, source: ImageSource) -> dict[str, ImageDataset]:
        val_size = _val_size_of(len(source.labels), self.val_size)
        train, val = split_rows(source.labels, val_size, self.seed)
        labels = permute(source.labels[train], self.seed) if self.randomize_labels else source.labels[train]
        return {
            "train": self._dataset(source, train, labels),
            "val": self._dataset(source, val, source.labels[val]),
        }

    def _dataset(self, source: ImageSource, rows: Tensor, labels: Tensor) -> ImageDataset:
        return ImageDataset(source, rows, labels, self.normalize)

    def dataset(self, name: Literal["train", "val", "test"]) -> ImageDataset:
        """The samples that a loader gives, after `setup`."""
        if name not in self._sets:
            raise RuntimeError(
                f"the {name} samples of {type(self).__name__} are not loaded: call `prepare_data()` and `setup()` first"
            )
        return self._sets[name]

    def _loader(self, name: Literal["train", "val", "test"], shuffle: bool = False) -> DataLoader:
        return DataLoader(
            self.dataset(name),
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )


def split_rows(labels: Labels, val_size: int, seed: int) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " val"]]:
    """Row numbers (ascending) of the training and of `val_size` validation samples.

    Rows are put in random order and then sorted by how far each is through its own class: any first part of
    that order holds each class's share, to within one sample.
    """
    order = torch.randperm(len(labels), generator=_generator(seed, _SPLIT_STREAM))
    shuffled = labels[order]
    progress = torch.empty(len(labels), dtype=torch.float64)
    for label in shuffled.unique():
        members = (shuffled == label).nonzero().squeeze(1)
        progress[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    order = order[progress.argsort(stable=True)]
    return order[val_size:].sort().values, order[:val_size].sort().values


def permute(labels: Labels, seed: int) -> Labels:
    """The same labels in random order."""
    return labels[torch.randperm(len(labels), generator=_generator(seed, _LABEL_STREAM))]


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(fold_in_int(seed, stream))


def _take(samples: Shaped[Tensor, " sample ..."], rows: Tensor) -> Shaped[Tensor, " row ..."]:
    return torch.from_numpy(samples.numpy()[rows.numpy()])


def _first(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: _first(value) if isinstance(value, dict) else value[0] for key, value in batch.items()}


def at_least(name: str, value: int, minimum: int) -> int:
    """The value, if it is large enough for the argument of this name."""
    check_count(name, value, minimum)
    return value


def checked_val_size(val_size: int | None) -> int | None:
    if val_size is None or at_least("val_size", val_size, 0):
        return val_size
    raise ValueError(
        "`val_size` must be at least 1, got 0: explanations are scored on validation samples; to train without"
        " validation, leave it and pass `limit_val_batches: 0` to the Trainer"
    )


def _val_size_of(num_samples: int, val_size: int | None) -> int:
    chosen = max(1, num_samples // 12) if val_size is None else val_size
    if chosen >= num_samples:
        raise ValueError(
            f"`val_size` must leave training samples: expected less than {num_samples}, the size of the "
            f"training split, got {chosen}"
        )
    return chosen


def channel_tensor(
    name: str, values: Sequence[float], num_channels: int, positive: bool = False
) -> Float[Tensor, " channel 1 1"]:
    """The argument of this name, one number a channel, as a tensor."""
    if len(values) != num_channels:
        raise ValueError(f"`{name}` must have one value for each channel, {num_channels} in all, got {list(values)}")
    if not all(math.isfinite(value) and (value > 0 or not positive) for value in values):
        raise ValueError(f"`{name}` must be finite{' and positive' if positive else ''}, got {list(values)}")
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
