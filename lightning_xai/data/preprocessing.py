"""How a picture becomes what a network takes: its shorter side resized, its center cut out, its pixels normalized."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional as F

from lightning_xai.data.base import Normalization, channel_tensor
from lightning_xai.explainers.base import check_choice

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of torchvision's classifiers, bit for bit; the defaults are those of its ImageNet networks.

    Attributes:
        image_size: Height and width of the network's input, the center of the resized picture, in pixels.
        resize_size: The shorter side of the resized picture, in pixels.
        mean: Mean of each channel, on the scale 0..1.
        std: Standard deviation of each channel, on the scale 0..1.
        interpolation: How the picture is resized; smoothed before it is reduced, unless by the nearest pixel.
        squash: Whether both sides become `resize_size`, so that all of a long picture is seen, out of proportion.

    Raises:
        ValueError: if `image_size` is less than 1 or greater than `resize_size`, `interpolation` unknown, or `mean` and
            `std` are not three numbers each, those of `std` greater than 0.

    Example:
        >>> from PIL import Image
        >>> from lightning_xai.data.preprocessing import Preprocessing
        >>> preprocessing = Preprocessing(image_size=64, resize_size=72)
        >>> preprocessing(Image.new("RGB", (300, 400))).shape
        torch.Size([3, 64, 64])
    """

    image_size: int = 224
    resize_size: int = 256
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: Interpolation = "bilinear"
    squash: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"`image_size` must be at least 1, got {self.image_size}.")
        if self.resize_size < self.image_size:
            raise ValueError(
                f"`resize_size` must be at least `image_size`, {self.image_size}, got {self.resize_size}: the image is "
                "cut out of the resized picture."
            )
        check_choice("interpolation", self.interpolation, Interpolation)
        self._normalization()

    def __call__(self, image: Image.Image) -> Float[Tensor, " 3 size size"]:
        """The input of the network.

        Raises:
            ValueError: if the picture is not in mode RGB.
        """
        if image.mode != "RGB":
            raise ValueError(f'`image` must be in mode RGB, got {image.mode}: convert it, image.convert("RGB").')
        return self.normalized(self.resized(image))

    def preprocess(self, image: Image.Image) -> Float[Tensor, " 3 size size"]:
        """As a call, under the name that modules and data modules have for it."""
        return self(image)

    def normalized(self, image: Image.Image) -> Float[Tensor, " 3 size size"]:
        """The input that a picture of the input's size makes."""
        return self._normalization()(F.pil_to_tensor(image))

    def resized(self, image: Image.Image) -> Image.Image:
        """The picture that is normalized: the center of the resized one."""
        return self._center(image, self.interpolation)

    def mask(self, mask: Bool[np.ndarray, " height width"]) -> Bool[Tensor, " size size"]:
        """A mask of the picture's pixels as one of the input's, by the nearest pixel."""
        resized = self._center(Image.fromarray(mask.astype(np.uint8)), "nearest")
        return torch.from_numpy(np.array(resized)).bool()

    @property
    def bounds(self) -> tuple[Float[Tensor, " 3 1 1"], Float[Tensor, " 3 1 1"]]:
        """What the darkest and the brightest possible pixel become, computed as the pixels are."""
        return self._normalization().bounds

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the network's input."""
        return (3, self.image_size, self.image_size)

    def _center(self, image: Image.Image, interpolation: Interpolation) -> Image.Image:
        size = [self.resize_size] * (1 + self.squash)
        resized = F.resize(image, size, InterpolationMode(interpolation), antialias=True)
        return F.center_crop(resized, [self.image_size])

    def _normalization(self) -> Normalization:
        return Normalization(channel_tensor("mean", self.mean, 3), channel_tensor("std", self.std, 3, positive=True))


def changed(
    original: Preprocessing,
    image_size: int | None = None,
    resize_size: int | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    interpolation: Interpolation | None = None,
    squash: bool | None = None,
) -> Preprocessing:
    """Another preprocessing, with other values where they are given; the arguments are those of the command line.

    Args:
        original: What the others are taken from.
        image_size: Height and width of the images; null, as for the arguments below: what the network's weights ask
            for or, where they do not say, 224 of 256 pixels with ImageNet's mean and deviation.
        resize_size: Shorter side of a picture before its center is cut out; null: changed as `image_size` is.
        mean: Mean of each channel on the scale 0..1.
        std: Standard deviation of each channel on the scale 0..1.
        interpolation: How a picture is resized.
        squash: Whether both its sides become `resize_size`, out of proportion.

    Raises:
        ValueError: as `Preprocessing`.

    Example:
        >>> from lightning_xai.data.preprocessing import Preprocessing, changed
        >>> other = changed(Preprocessing(image_size=224, resize_size=256), image_size=112)
        >>> other.image_size, other.resize_size
        (112, 128)
    """
    if resize_size is None:
        factor = 1.0 if image_size is None else image_size / original.image_size
        resize_size = math.ceil(original.resize_size * factor)
    return Preprocessing(
        original.image_size if image_size is None else image_size,
        resize_size,
        original.mean if mean is None else tuple(mean),
        original.std if std is None else tuple(std),
        interpolation or original.interpolation,
        original.squash if squash is None else squash,
    )
