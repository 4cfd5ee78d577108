"""The handwritten digits that scikit-learn carries: a data set without a download."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lightning_xai.data.base import ImageDataModule, ImageSource, Split, at_least

DIGIT_NAMES = tuple("0123456789")

_TEST_EVERY = 5  # of each class, the fifth, tenth, ... image is a test image


class DigitsDataModule(ImageDataModule):
    """Embedded digits, enlarged to look like MNIST's: 1,442 gray images (240 for validation) and 355 to test.

    The 8x8 images (gray levels 0..16) are enlarged bilinearly to 20/28 of `image_size` and framed in black,
    as MNIST places its 20x20 digits in 28x28. The test samples are fixed: the fifth, tenth, ... image of each
    class in scikit-learn's order. Writers are not told apart: the same hand may be in the training and the
    test set.

    The mask `digit` is pixel >= 0.5: where the ink is, not which part of it is evidence for the class.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, test part (CC BY 4.0).

    Args:
        image_size: Height and width in pixels.
        val_size: Number of validation samples; null: a twelfth of the training split.
        options: Those of `ImageDataModule`.

    Raises:
        ValueError: if a size is out of range.

    Example:
        >>> from lightning_xai.data import DigitsDataModule
        >>> data = DigitsDataModule(batch_size=8)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch["image"].shape, list(batch["mask"])
        (torch.Size([8, 1, 28, 28]), ['digit'])
    """

    class_names = DIGIT_NAMES
    default_mean = (0.1557,)
    default_std = (0.2774,)

    def __init__(
        self,
        image_size: int = 28,
        val_size: int | None = 240,
        **options: Any,
    ) -> None:
        if at_least("image_size", image_size, 1) < 8:
            raise ValueError(f"`image_size` must be at least 8, the size of the scans, got {image_size}")
        self.image_shape = (1, image_size, image_size)
        super().__init__(val_size=val_size, **options)

    def load(self, split: Split) -> ImageSource:
        return load_embedded_digits(split, self.image_shape[-1])


def load_embedded_digits(split: Split, image_size: int = 28) -> ImageSource:
    """One split of scikit-learn's digits; see `DigitsDataModule`."""
    scans = load_digits()
    labels = torch.as_tensor(scans.target, dtype=torch.int64)
    chosen = _is_test(labels) == (split == "test")
    images = enlarge(torch.as_tensor(scans.images, dtype=torch.float32)[chosen] / 16, image_size)
    return ImageSource(images, labels[chosen], {"digit": images[:, 0] > 127})


def enlarge(scans: Float[Tensor, " sample height width"], image_size: int) -> UInt8[Tensor, " sample 1 size size"]:
    """Scans on the scale 0..1 as images of `image_size`, with MNIST's black margin of 4/28 on each side."""
    inner = round(image_size * 20 / 28)
    before = (image_size - inner) // 2
    after = image_size - inner - before
    enlarged = interpolate(scans[:, None], size=(inner, inner), mode="bilinear")
    return pad(enlarged, (before, after, before, after)).mul(255).round().to(torch.uint8)


def _is_test(labels: Tensor) -> Tensor:
    """True for the fifth, tenth, ... member of each class."""
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        is_test[(labels == label).nonzero().squeeze(1)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return is_test
