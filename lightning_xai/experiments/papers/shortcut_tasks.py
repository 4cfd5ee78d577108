"""What the networks of the dial learn: a cue, the pictures that it is drawn into, and a network that reads both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lightning_xai.data import CMNISTDataModule, DigitsDataModule, FashionMNISTDataModule, MNISTDataModule
from lightning_xai.data.backgrounds import cifar10_backgrounds, load_backgrounds
from lightning_xai.data.base import ImageDataModule, ImageDataset, ImageSource, Split
from lightning_xai.data.cues import Background, Cue, Drawn, Grating, Hue, MovingPatch, Patch, Pixels, Watermark
from lightning_xai.networks import MLP, LeNet, efficientnet_lite0
from lightning_xai.shapes import Images, Keys, Labels, Logits
from lightning_xai.studies.lab import Lab

Sizes = Mapping[str, int]
"""`num_train` (with those to validate with) and `num_test`."""


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        cue: What is drawn in.
        base: The pictures: called with a `Lab`, the number to validate with and the sizes.
        network: Made before it is trained.
    """

    cue: Cue
    base: Callable[[Lab, int, Sizes], ImageDataModule]
    network: Callable[[], nn.Module]


class Nothing(Cue):
    """No cue: what a search says of pictures into which nothing is drawn."""

    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        """All that there is."""

    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        return images, torch.zeros_like(images[:, 0], dtype=torch.bool)


class OnFrozen(nn.Module):
    """A linear classifier of what a trained network, which stays as it is, makes of images."""

    def __init__(self, frozen: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.frozen, self.head = frozen.eval().requires_grad_(False), head

    def forward(self, images: Images) -> Logits:
        return self.head(self.frozen(images))

    @torch.no_grad()
    def features(self, samples: ImageDataset) -> Tensor:
        """What the head is trained on: of each sample, once."""
        device = self.head.weight.device
        parts = [samples.__getitems__(rows.tolist()) for rows in torch.arange(len(samples)).split(64)]
        return torch.cat([self.frozen(part["image"].to(device)) for part in parts])


def trained_part(network: nn.Module) -> nn.Module:
    """All of it, or what is not frozen."""
    return network.head if isinstance(network, OnFrozen) else network


class SmallPhotographs(ImageDataModule):
    """Photographs of ten classes, enlarged from 32 pixels to 64: CIFAR-10, or what else the backgrounds of a `Lab` are.

    The mask `upper` is all but the lowest quarter. No one knows where the evidence of a photograph is: it stands for a
    user who says that nothing there has to decide.
    """

    image_shape = (3, 64, 64)
    class_names = tuple("0123456789")
    default_mean, default_std = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(self, lab: Lab, val_size: int, sizes: Sizes) -> None:
        super().__init__(val_size=val_size)
        self.pictures, self.root, self.sizes = "embedded" if lab.embedded else lab.backgrounds, lab.root, sizes

    def prepare_data(self) -> None:
        if self.pictures == "cifar10":
            cifar10_backgrounds(self.root, "train", download=True)

    def load(self, split: Split) -> ImageSource:
        found = load_backgrounds(self.pictures, self.root, split)
        if (number := int(found.labels.max()) + 1) != self.num_classes:
            raise ValueError(f"`backgrounds` must be of {self.num_classes} classes, got {number}: take `cifar10`.")
        order = torch.randperm(len(found.labels), generator=torch.Generator().manual_seed(0))
        rows = order[: self.sizes[f"num_{split}"]]
        images = interpolate(found.images[rows].contiguous(), size=self.image_shape[1:], mode="bilinear")
        upper = torch.arange(images.shape[2]) < 3 * images.shape[2] // 4
        return ImageSource(images, found.labels[rows], {"upper": upper[:, None].expand(len(rows), *images.shape[2:])})


def _digits(lab: Lab, val_size: int, sizes: Sizes) -> ImageDataModule:
    return DigitsDataModule(val_size=val_size) if lab.embedded else MNISTDataModule(lab.root, val_size=val_size)


def _garments(lab: Lab, val_size: int, sizes: Sizes) -> ImageDataModule:
    return _digits(lab, val_size, sizes) if lab.embedded else FashionMNISTDataModule(lab.root, val_size=val_size)


def _colored(lab: Lab, val_size: int, sizes: Sizes) -> ImageDataModule:
    if lab.embedded:
        return CMNISTDataModule(digits="embedded", backgrounds="embedded", val_size=val_size)
    return CMNISTDataModule(
        lab.root,
        backgrounds=lab.backgrounds,
        num_train=sizes["num_train"],
        num_test=sizes["num_test"],
        val_size=val_size,
    )


def _pooled(channels: int) -> nn.Module:
    """Three convolutions, whose maxima over all places are classified."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


def _normed(channels: int, side: int) -> nn.Module:
    """Three convolutions with batch normalization, whose means over all places are classified."""
    blocks = [
        (nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), pool)
        for before, after, pool in (
            *((channels, 16, nn.MaxPool2d(2)), (16, 32, nn.MaxPool2d(2))),
            (32, 64, nn.AdaptiveAvgPool2d(1)),
        )
    ]
    return nn.Sequential(*(layer for block in blocks for layer in block), nn.Flatten(), nn.Linear(64, 10))


def _mlp(channels: int, side: int) -> nn.Module:
    return MLP((channels, side, side))


def _efficientnet() -> nn.Module:
    frozen: Any = efficientnet_lite0().to(memory_format=torch.channels_last)
    head = nn.Linear(frozen._fc.in_features, 10)
    frozen._fc = nn.Identity()
    return OnFrozen(frozen, head)


TASKS: dict[str, Task] = {
    "patch": Task(Patch(), _digits, LeNet),
    "moving_patch": Task(MovingPatch(), _digits, partial(_pooled, 1)),
    "hue": Task(Hue(), _digits, partial(LeNet, 3)),
    "background": Task(Background(), _digits, partial(LeNet, 3)),
    "grating": Task(Grating(), _digits, partial(_pooled, 1)),
    "watermark": Task(Watermark(height=0.2, opacity=0.8), SmallPhotographs, _efficientnet),
    **{
        f"{data}_{name}": Task(Nothing(), base, partial(network, *shape))
        for data, base, shape in (
            ("mnist", _digits, (1, 28)),
            ("fashion", _garments, (1, 28)),
            ("cmnist", _colored, (3, 32)),
        )
        for name, network in (("lenet", LeNet), ("normed", _normed), ("mlp", _mlp))
    },
    "photographs": Task(Nothing(), SmallPhotographs, _efficientnet),
}
"""By name. A pattern and a wave have no fixed place: a network that pools over all reads them sooner than LeNet does.
`mnist_lenet` and the following have no cue."""
