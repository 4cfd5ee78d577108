"""32x32 color pictures to paste digits on: CIFAR-10, any folder of images, or crops of embedded
photographs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageOps
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torchvision.datasets import CIFAR10

from lightning_xai.data.base import Split
from lightning_xai.data.pictures import (
    SUFFIXES,
    RefusedPicture,
    find_pictures,
    listed,
    printable,
    read_picture,
    refusal_lines,
    refusals,
)
from lightning_xai.shapes import Labels

SIZE = 32

_PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/gravel.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)
_SHORT_SIDE = 160  # a crop of a fifth of a photograph still shows parts of objects
_STRIDE = 4
_TRAIN_SHARE = 0.75  # of the width, from the left
_TEST_EVERY = 5


@dataclass(frozen=True)
class Backgrounds:
    """Pictures of one split, sorted by class."""

    images: UInt8[Tensor, " picture 3 height width"]
    labels: Labels

    def pick(
        self, class_draw: Float[Tensor, " sample"], picture_draw: Float[Tensor, " sample"]
    ) -> Int64[Tensor, " sample"]:
        """Row numbers for draws from U[0, 1): a class, all equally likely, then a picture of that class."""
        counts = self.labels.bincount()
        chosen = integers(class_draw, len(counts))
        return (counts.cumsum(0) - counts)[chosen] + integers(picture_draw, counts[chosen])


def integers(draws: Float[Tensor, "*sample"], stop: int | Int64[Tensor, "*sample"]) -> Int64[Tensor, "*sample"]:
    """Draws from U[0, 1) as integers 0..stop-1, all equally likely.

    In float64, because a float32 product can round up to `stop`.
    """
    return (draws.double() * stop).long()


def load_backgrounds(name: str, root: str, split: Split) -> Backgrounds:
    """Those of `cifar10` below a root, `embedded` ones, or those of a folder of this path."""
    if name == "embedded":
        return embedded_backgrounds(split)
    if name == "cifar10":
        return cifar10_backgrounds(root, split)
    return folder_backgrounds(Path(name).expanduser(), split)


def cifar10_backgrounds(root: str, split: Split, download: bool = False) -> Backgrounds:
    """CIFAR-10 through torchvision.

    Raises:
        FileNotFoundError: The files are missing or damaged and were not, or could not be, downloaded.
    """
    folder = Path(root).expanduser().resolve()
    try:
        data = CIFAR10(folder, train=split == "train", download=download)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR10 needs intact files in {folder / CIFAR10.base_folder} ({error}). Pass `download: true` on a "
            "machine with network access, or copy the folder from another one. Without any download: "
            "`backgrounds: embedded`, or the path of a folder of images"
        ) from error
    labels = torch.tensor(data.targets)
    order = labels.argsort(stable=True)
    return Backgrounds(torch.from_numpy(data.data).permute(0, 3, 1, 2)[order], labels[order])


def embedded_backgrounds(split: Split) -> Backgrounds:
    """Crops, 4 pixels apart, of photographs that scikit-image and scikit-learn carry; a photograph is a class.

    Each photograph is reduced to 160 pixels on its short side. Crops to train with come from the left three
    quarters and crops to test with from the right quarter, so no pixel is in both.
    """
    return _join([_crops(_photograph(package, name), split) for package, name in _PHOTOGRAPHS])


def folder_backgrounds(folder: Path, split: Split) -> Backgrounds:
    """Every image below a folder, as its center square reduced to 32x32; first-level subfolders are the classes.

    With subfolders `train` and `test` the classes are those inside; without, every fifth image of a class (in
    the order of their paths, from the second on) is a test image.

    Raises:
        ValueError: No images for this split, or one that cannot be read.
    """
    groups = _class_paths(folder, split)
    if not groups:
        raise ValueError(
            f"`backgrounds` must hold images ({', '.join(SUFFIXES)}), at least two where there are no `train` "
            f"and `test` subfolders: found none for the {split} split in {folder.resolve()}"
        )
    squares = _center_squares([path for group in groups for path in group], "backgrounds")
    return _join(list(squares.split([len(group) for group in groups])))


def _class_paths(folder: Path, split: Split) -> list[list[Path]]:
    """Paths of the images of each class that has any in this split."""
    subfolders = [name for name in ("train", "test") if (folder / name).is_dir()]
    if len(subfolders) == 1:
        raise ValueError(
            f"`backgrounds` must have both `train` and `test` as subfolders, or neither: found only {subfolders[0]} "
            f"in {folder.resolve()}"
        )
    if subfolders:
        return _grouped(folder / split)
    chosen = [_share(group, split) for group in _grouped(folder)]
    return [group for group in chosen if group]


def _grouped(folder: Path) -> list[list[Path]]:
    """Images below the folder, by first-level subfolder; those directly in it are a class of their own."""
    passed_over: list[Path] = []
    found = [path for path in find_pictures([folder], passed_over=passed_over) if path.name.lower().endswith(SUFFIXES)]
    if passed_over:
        rank_zero_info(f"{len(passed_over)} files are no images by their suffix: {listed(passed_over)}.")
    paths = [path.relative_to(folder) for path in found]
    paths.sort(key=lambda path: (_class_of(path), path.as_posix()))
    return [[folder / path for path in group] for _, group in groupby(paths, _class_of)]


def _class_of(path: Path) -> tuple[str, ...]:
    return path.parts[:-1][:1]


def _share(paths: list[Path], split: Split) -> list[Path]:
    return [path for place, path in enumerate(paths) if (place % _TEST_EVERY == 1) == (split == "test")]


def _center_square(path: Path, side: int = SIZE) -> UInt8[Tensor, "3 side side"]:
    """The center square of an image file, resized."""
    return _tensor(ImageOps.fit(read_picture(path), (side, side)))


def _center_squares(paths: Sequence[Path], argument: str, side: int = SIZE) -> UInt8[Tensor, " picture 3 side side"]:
    """Those of several files.

    Raises:
        ValueError: naming all that cannot be read.
    """
    try:
        return torch.stack([_center_square(path, side) for path in paths])
    except RefusedPicture as error:
        refused = refusals(paths)
        if len(refused) == 1:
            ((path, reason),) = refused.items()
            text = f"the image {printable(path)} in `{argument}` cannot be read ({reason}): replace or delete it"
            raise ValueError(text) from error
        raise ValueError(
            f"{len(refused)} of {len(paths)} images in `{argument}` cannot be read: replace or delete them\n"
            + refusal_lines(refused)
        ) from error


def embedded_photographs(side: int) -> UInt8[Tensor, " photograph 3 side side"]:
    """The center squares of ten photographs that scikit-image and scikit-learn carry, resized."""
    squares = []
    for package, name in _PHOTOGRAPHS:
        with as_file(files(package) / name) as path:
            squares.append(_center_square(path, side))
    return torch.stack(squares)


def folder_photographs(folder: Path, side: int) -> UInt8[Tensor, " photograph 3 side side"]:
    """The center squares of all images below a folder, resized, in the order of their paths.

    Raises:
        ValueError: No images, or one that cannot be read.
    """
    paths = [path for group in _grouped(folder) for path in group]
    if not paths:
        raise ValueError(f"`folder` must hold images ({', '.join(SUFFIXES)}): found none in {folder.resolve()}")
    return _center_squares(paths, "folder", side)


@cache
def _photograph(package: str, name: str) -> UInt8[Tensor, "3 height width"]:
    """An embedded photograph, reduced to 160 pixels on its short side."""
    with as_file(files(package) / name) as path, Image.open(path) as image:
        scale = _SHORT_SIDE / min(image.size)
        return _tensor(image.convert("RGB").resize((round(image.width * scale), round(image.height * scale))))


def _crops(photograph: UInt8[Tensor, "3 height width"], split: Split) -> UInt8[Tensor, " crop 3 size size"]:
    border = round(photograph.shape[-1] * _TRAIN_SHARE)
    region = photograph[..., :border] if split == "train" else photograph[..., border:]
    windows = region.unfold(1, SIZE, _STRIDE).unfold(2, SIZE, _STRIDE)
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, 3, SIZE, SIZE)


def _tensor(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _join(classes: list[Tensor]) -> Backgrounds:
    sizes = torch.tensor([len(images) for images in classes])
    return Backgrounds(torch.cat(classes), torch.arange(len(classes)).repeat_interleave(sizes))
