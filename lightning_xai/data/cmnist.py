"""CMNIST: digits on photographs, with the evidence in a known place."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate
from torchvision import datasets

from lightning_xai.data.backgrounds import SIZE, Backgrounds, cifar10_backgrounds, integers, load_backgrounds
from lightning_xai.data.base import ImageDataModule, ImageSource, Split, at_least
from lightning_xai.data.digits import DIGIT_NAMES, load_embedded_digits
from lightning_xai.data.mnist import fetch_idx_files, load_idx_files
from lightning_xai.functional.random import fold_in, root_keys, standard_normal, uniform
from lightning_xai.shapes import Keys, Masks

DIGIT_SIZE = 16
MAX_DEGREES = 15.0
INK = 0.05  # digit pixels above this cover the background and belong to the mask `digit`
OPACITY = 0.9
NOISE_PRECISIONS = (10.0, 30.0)  # the pixel noise has std 1/r with r from this range

_CHUNK = 2048
_SPLIT_NUMBERS = {"train": 0, "test": 1}


class CMNISTDataModule(ImageDataModule):
    """Digits pasted on photographs: 60,000 color 32x32 images (5,000 for validation) and 10,000 to test.

    Digit i of its data set is reduced to 16x16, turned by up to 15 degrees and pasted at a place drawn
    uniformly, fully inside a background whose class is drawn uniformly, whatever the digit: the background
    carries no evidence. Ink (above 0.05) covers it to nine tenths. Each image gets Gaussian pixel noise with
    std 1/r, r uniform in 10..30, is clipped and, as a stored image would be, rounded to 8 bits. Training
    backgrounds go with training digits and test backgrounds with test digits.

    Everything random depends on the seed, the split and i only. Between CPUs with different vector instructions
    about one value in forty thousand is rounded to the next of the 256 levels.

    Masks: `box`, the 16x16 square that the digit was pasted in (a quarter of the image), and `digit`, the ink.
    They say where the digit is, not which part of it is evidence for the class.

    Source: Bykov et al., NoiseGrad, AAAI 2022, arXiv 2106.10185, and the builder published by its second author.

    Args:
        root: Folder with (or for) `MNIST/raw` and `cifar-10-batches-py`, in torchvision's layout.
        download: Download what `root` lacks; needs the network.
        digits: `mnist`, or `embedded`: those of `DigitsDataModule`, 1,442 to train and 355 to test.
        backgrounds: `cifar10`; `embedded`: crops of ten photographs; or the path of a folder of images, with
            subfolders `train` and `test`, or without: then every fifth image is for testing.
        num_train: Number of training samples before the division into training and validation, to make a
            smaller set; null: as many as digits.
        num_test: Number of test samples; null: as many as digits.
        batch_size: Samples a batch and process.
        seed: Seed of the images and of everything that `ImageDataModule` draws.
        options: Those of `ImageDataModule`.

    Example:
        >>> from lightning_xai.data import CMNISTDataModule
        >>> data = CMNISTDataModule(digits="embedded", backgrounds="embedded", batch_size=2)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch["image"].shape, sorted(batch["mask"])
        (torch.Size([2, 3, 32, 32]), ['box', 'digit'])
    """

    image_shape = (3, SIZE, SIZE)
    class_names = DIGIT_NAMES
    default_mean = (0.486, 0.479, 0.447)
    default_std = (0.251, 0.249, 0.265)

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        digits: str = "mnist",
        backgrounds: str = "cifar10",
        num_train: int | None = None,
        num_test: int | None = None,
        batch_size: int = 128,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, **options)
        self.root, self.download = root, download
        self.digits, self.backgrounds = known_digits(digits), _known_backgrounds(backgrounds)
        self.num_samples = {"train": _positive("num_train", num_train), "test": _positive("num_test", num_test)}

    def prepare_data(self) -> None:
        if self.digits == "mnist":
            fetch_idx_files(datasets.MNIST, self.root, self.download, "`digits: embedded`")
        if self.backgrounds == "cifar10":
            cifar10_backgrounds(self.root, "train", self.download)

    def load(self, split: Split) -> ImageSource:
        digits = self._load_digits(split)
        available, chosen = len(digits.labels), self.num_samples[split]
        if chosen is not None and chosen > available:
            raise ValueError(f"`num_{split}` must be at most {available}, the number of digits, got {chosen}")
        return build(
            digits, load_backgrounds(self.backgrounds, self.root, split), self.seed, split, chosen or available
        )

    def _load_digits(self, split: Split) -> ImageSource:
        if self.digits == "embedded":
            return load_embedded_digits(split)
        return load_idx_files(datasets.MNIST, self.root, split, "digit", "`digits: embedded`")


def build(digits: ImageSource, backgrounds: Backgrounds, seed: int, split: Split, num_samples: int) -> ImageSource:
    """The first `num_samples` samples of a split, as `CMNISTDataModule` describes them.

    Sample i depends on neither their number nor the chunks that they are computed in.
    """
    keys = fold_in(root_keys(seed, torch.arange(num_samples)), _SPLIT_NUMBERS[split])
    chunks = zip(digits.images[:num_samples].split(_CHUNK), keys.split(_CHUNK), strict=True)
    parts = [_build_chunk(*chunk, backgrounds) for chunk in chunks]
    images, box, digit = (torch.cat(part) for part in zip(*parts, strict=True))
    return ImageSource(images, digits.labels[:num_samples], {"box": box, "digit": digit})


def _build_chunk(
    digits: UInt8[Tensor, " batch 1 rows columns"], keys: Keys, backgrounds: Backgrounds
) -> tuple[UInt8[Tensor, " batch 3 height width"], Masks, Masks]:
    """Images, box masks and digit masks; row i depends on digit i and key i."""
    turn, top, left, kind, picture, precision = uniform(fold_in(keys, 0), (6,)).unbind(1)
    places = SIZE - DIGIT_SIZE + 1
    small = rotate(shrink(digits), (2 * turn - 1) * MAX_DEGREES)
    canvas, box = paste(small, integers(top, places), integers(left, places))
    low, high = NOISE_PRECISIONS
    std = (1 / (low + (high - low) * precision)).view(-1, 1, 1, 1)
    noise = std * standard_normal(fold_in(keys, 1), (3, SIZE, SIZE))
    images = compose(canvas, backgrounds.images[backgrounds.pick(kind, picture)], noise)
    return images, box, canvas[:, 0] > INK


def shrink(digits: UInt8[Tensor, " sample 1 height width"]) -> Float[Tensor, " sample 1 size size"]:
    """Digits as 16x16 images on the scale 0..1, smoothed before they are sampled."""
    size = (DIGIT_SIZE, DIGIT_SIZE)
    return interpolate(digits.float() / 255, size=size, mode="bilinear", antialias=True).clamp(0, 1)


def rotate(
    images: Float[Tensor, " sample channel size size"], degrees: Float[Tensor, " sample"]
) -> Float[Tensor, " sample channel size size"]:
    """Square images turned counter-clockwise about their center, bilinear, black where nothing was."""
    angle = degrees.double().deg2rad().view(-1, 1, 1)
    size = images.shape[-1]
    place = (torch.arange(size, dtype=torch.float64) * 2 + 1) / size - 1
    y, x = place.view(1, -1, 1), place.view(1, 1, -1)
    grid = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=-1)
    return grid_sample(images, grid.float(), mode="bilinear", padding_mode="zeros", align_corners=False)


def paste(
    patches: Float[Tensor, " sample 1 rows columns"],
    top: Int64[Tensor, " sample"],
    left: Int64[Tensor, " sample"],
    size: int = SIZE,
) -> tuple[Float[Tensor, " sample 1 size size"], Bool[Tensor, " sample size size"]]:
    """Each patch on a black canvas, upper left corner at (top, left), and the rectangle that it covers."""
    rows, columns = (torch.arange(extent) for extent in patches.shape[2:])
    sample = torch.arange(len(patches)).view(-1, 1, 1)
    rows, columns = (top[:, None] + rows)[:, :, None], (left[:, None] + columns)[:, None, :]
    canvas = patches.new_zeros(len(patches), size, size)
    canvas[sample, rows, columns] = patches[:, 0]
    box = torch.zeros(canvas.shape, dtype=torch.bool)
    box[sample, rows, columns] = True
    return canvas[:, None], box


def compose(
    canvas: Float[Tensor, " sample 1 height width"],
    backgrounds: UInt8[Tensor, " sample channel height width"],
    noise: Float[Tensor, " sample channel height width"],
) -> UInt8[Tensor, " sample channel height width"]:
    """Ink over background, plus noise, clipped and rounded to 8 bits."""
    scene = backgrounds.float() / 255
    scene = torch.where(canvas > INK, (1 - OPACITY) * scene + OPACITY * canvas, scene)
    return (scene + noise).clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def known_digits(digits: str) -> str:
    if digits not in ("mnist", "embedded"):
        raise ValueError(f"`digits` must be 'mnist' or 'embedded', got {digits!r}")
    return digits


def _known_backgrounds(backgrounds: str) -> str:
    if backgrounds not in ("cifar10", "embedded") and not Path(backgrounds).expanduser().is_dir():
        raise ValueError(
            f"`backgrounds` must be 'cifar10', 'embedded' or the path of a folder of images, got {backgrounds!r}, "
            "which is no folder"
        )
    return backgrounds


def _positive(name: str, number: int | None) -> int | None:
    return None if number is None else at_least(name, number, 1)
