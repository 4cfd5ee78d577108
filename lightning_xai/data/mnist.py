"""MNIST and Fashion-MNIST, downloaded by torchvision."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision import datasets

from lightning_xai.data.base import ImageDataModule, ImageSource, Split
from lightning_xai.data.digits import DIGIT_NAMES

_INK = 12  # the brightest gray level that is not above 0.05


class _TorchvisionDataModule(ImageDataModule):
    """What MNIST and its drop-in replacements share."""

    image_shape = (1, 28, 28)
    torchvision_class: ClassVar[type[datasets.MNIST]]
    mask_name: ClassVar[str]

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        val_size: int | None = 5000,
        **options: Any,
    ) -> None:
        super().__init__(val_size=val_size, **options)
        self.root, self.download = root, download

    def prepare_data(self) -> None:
        fetch_idx_files(self.torchvision_class, self.root, self.download)

    def load(self, split: Split) -> ImageSource:
        return load_idx_files(self.torchvision_class, self.root, split, self.mask_name)


class MNISTDataModule(_TorchvisionDataModule):
    """MNIST: 60,000 gray 28x28 images of digits (5,000 of them for validation) and 10,000 to test.

    The mask `digit` is pixel > 0.05: where the ink is, not which part of it is evidence for the class.

    Source: LeCun, Cortes, Burges, The MNIST database of handwritten digits, 1998.

    Args:
        root: Folder with (or for) `MNIST/raw`: torchvision's layout, the uncompressed IDX files suffice.
        download: Download what `root` lacks; needs the network.
        val_size: Number of validation samples; null: a twelfth of the training split.
        options: Those of `ImageDataModule`.

    Example:
        >>> from lightning_xai.data import MNISTDataModule
        >>> data = MNISTDataModule(root="data", download=True)  # read, or downloaded, when it is set up
        >>> data.image_shape, data.num_classes
        ((1, 28, 28), 10)
    """

    torchvision_class = datasets.MNIST
    mask_name = "digit"
    class_names = DIGIT_NAMES
    default_mean = (0.1307,)
    default_std = (0.3081,)


class FashionMNISTDataModule(_TorchvisionDataModule):
    """Fashion-MNIST: 60,000 gray 28x28 images of garments (5,000 of them for validation) and 10,000 to test.

    The mask `object` is pixel > 0.05: where the garment is, not which part of it is evidence for the class.

    Source: Xiao, Rasul, Vollgraf, Fashion-MNIST, arXiv 1708.07747.

    Args:
        root: Folder with (or for) `FashionMNIST/raw`: torchvision's layout, the uncompressed IDX files
            suffice.
        download: Download what `root` lacks; needs the network.
        val_size: Number of validation samples; null: a twelfth of the training split.
        options: Those of `ImageDataModule`.

    Example:
        >>> from lightning_xai.data import FashionMNISTDataModule
        >>> FashionMNISTDataModule(root="data").class_names[-1]
        'Ankle boot'
    """

    torchvision_class = datasets.FashionMNIST
    mask_name = "object"
    class_names = tuple(datasets.FashionMNIST.classes)
    default_mean = (0.2860,)
    default_std = (0.3530,)


def fetch_idx_files(
    torchvision_class: type[datasets.MNIST],
    root: str,
    download: bool,
    alternative: str = "`DigitsDataModule`",
) -> None:
    """Download the files that `root` lacks.

    Raises:
        FileNotFoundError: Files are missing, and `download` is false or failed.
    """
    missing = missing_idx_files(torchvision_class, root)
    if not missing:
        return
    if not download:
        raise FileNotFoundError(_how_to_get(torchvision_class, root, missing, alternative))
    try:
        torchvision_class(root, download=True)
    except (OSError, RuntimeError) as error:
        missing = missing_idx_files(torchvision_class, root) or missing
        text = _how_to_get(torchvision_class, root, missing, alternative)
        raise FileNotFoundError(f"the download failed; {text}") from error


def load_idx_files(
    torchvision_class: type[datasets.MNIST],
    root: str,
    split: Split,
    mask_name: str,
    alternative: str = "`DigitsDataModule`",
) -> ImageSource:
    """One split from the IDX files under `root`.

    Raises:
        FileNotFoundError: Files are missing.
        ValueError: Files cannot be read, or do not belong together.
    """
    if missing := missing_idx_files(torchvision_class, root):
        raise FileNotFoundError(_how_to_get(torchvision_class, root, missing, alternative))
    folder, part = _raw_folder(torchvision_class, root), "train" if split == "train" else "t10k"
    paths = [folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"]
    images, labels = (read_idx(path, dimensions) for path, dimensions in zip(paths, (3, 1), strict=True))
    if images.shape[1:] != (28, 28) or not len(images):
        raise ValueError(f"{paths[0]} must hold images of 28 x 28 pixels, but holds {_by(images.shape)}: replace it")
    if len(images) != len(labels):
        raise ValueError(
            f"{paths[0]} holds {len(images):,} images and {paths[1].name} beside it {len(labels):,} labels: they do not"
            " belong together; replace both by those of one data set"
        )
    if (most := int(labels.max())) > 9:
        place = int(labels.argmax())
        raise ValueError(f"{paths[1]} must hold labels from 0 to 9, but number {place} is {most}: replace it")
    return ImageSource(images[:, None], labels.to(torch.int64), {mask_name: images > _INK})


def read_idx(path: Path, dimensions: int) -> UInt8[Tensor, "..."]:
    """The bytes in an IDX file, a file of numbers that says how many there are.

    torchvision's reader takes the numbers for whatever shape is asked for, and prefers what an old version of it left
    in a folder beside.

    Raises:
        ValueError: The file cannot be read, is of another kind, or is not as long as it says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): replace it") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(
            f"{path} cannot be read: it is no uncompressed IDX file of bytes in {dimensions} dimensions, which begins"
            f" with {bytes([0, 0, 8, dimensions])!r} and not with {content[:4]!r}; replace it"
        )
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} cannot be read: it must hold {_by(shape)} bytes behind its head, {math.prod(shape):,} in all, but"
            f" holds {len(content) - start:,}; replace it"
        )
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy())


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def missing_idx_files(torchvision_class: type[datasets.MNIST], root: str) -> list[str]:
    """Names of the (uncompressed) IDX files that are not under `root`."""
    folder = _raw_folder(torchvision_class, root)
    names = [Path(name).stem for name, _ in torchvision_class.resources]
    return [name for name in names if not (folder / name).is_file()]


def _raw_folder(torchvision_class: type[datasets.MNIST], root: str) -> Path:
    return Path(root).expanduser().resolve() / torchvision_class.__name__ / "raw"


def _how_to_get(torchvision_class: type[datasets.MNIST], root: str, missing: list[str], alternative: str) -> str:
    name, folder = torchvision_class.__name__, _raw_folder(torchvision_class, root)
    return (
        f"{name} needs {', '.join(missing)} in {folder}. Pass `download: true` on a machine with network access, "
        f"or copy the files from another one, or point `root` at the folder that contains {name}/raw. "
        f"Without any download: {alternative}"
    )
