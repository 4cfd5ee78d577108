"""Cues: what can be drawn into pictures to tell a class that the picture itself would tell, too."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from lightning_xai.checks import check_count, check_positive, check_share
from lightning_xai.data.backgrounds import SIZE, Backgrounds, embedded_backgrounds, folder_backgrounds, integers
from lightning_xai.data.base import Split
from lightning_xai.functional.random import uniform
from lightning_xai.shapes import Keys, Labels

INK = 12
"""The brightest gray level that is not above 0.05: brighter pixels cover a background."""
Pixels = UInt8[Tensor, " sample channel height width"]
Drawn = tuple[UInt8[Tensor, " sample color height width"], Bool[Tensor, " sample height width"]]
"""Pictures with the cue, and where it is in each."""


class Cue(ABC):
    """What tells a class in a picture; `draw` puts it there.

    Where it is and what it looks like besides depends on a sample's key only, not on the class that it tells.

    Example:
        A cue of one's own: a bright row, the higher, the lower the class.

        >>> import torch
        >>> from lightning_xai.data import DialDataModule, DigitsDataModule
        >>> from lightning_xai.data.cues import Cue
        >>> class Row(Cue):
        ...     def _check(self, shape, num_classes):
        ...         if shape[1] < num_classes:
        ...             raise ValueError("`base` must have a row for each class.")
        ...
        ...     def draw(self, images, told, num_classes, keys, split):
        ...         rows = torch.arange(images.shape[2]).view(1, -1, 1)
        ...         mask = (rows == told.view(-1, 1, 1)).expand(-1, -1, images.shape[3])  # -1 is no row
        ...         return torch.where(mask[:, None], 255, images).to(torch.uint8), mask
        >>> data = DialDataModule(DigitsDataModule(), Row(), strength=1.0)
        >>> data.setup("test")
        >>> sample = data.dataset("test")[0]
        >>> sample["mask"]["cue"].any(1).nonzero().tolist() == [[int(sample["label"])]]
        True
    """

    operator: ClassVar[str] = ""
    """The kind of shortcut that it makes, where it has no place: `color`, `frequency`, `background`."""
    channels: ClassVar[int] = 0
    """That it makes of gray pictures, which it then needs; 0: as many as there are."""

    def check(self, shape: Sequence[int], num_classes: int) -> None:
        """Refuse pictures of a shape (channels, height, width), or classes, that it cannot tell.

        Raises:
            ValueError: naming `base`.
        """
        if self.channels and shape[0] != 1:
            raise ValueError(
                f"`base` must have gray pictures for {type(self).__name__}, which makes colors of them; they have "
                f"{shape[0]} channels. Take DigitsDataModule or MNISTDataModule, or another cue."
            )
        self._check(shape, num_classes)

    @abstractmethod
    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        """The rest, which the kinds of cues differ in."""

    @abstractmethod
    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        """The pictures with the cue, which tells these classes.

        Args:
            images: Pictures; they are not changed.
            told: The class that the cue of each tells; -1 for none: the cue is absent, or neutral.
            num_classes: Number of classes.
            keys: One a sample: of all else that is random.
            split: Which the pictures are of.
        """


@dataclass(frozen=True)
class Patch(Cue):
    """A square in the picture's upper or lower edge; its place tells the class.

    Attributes:
        size: Height and width in pixels; MNIST's margin is of 4.
        level: Gray level, 0 to 255.

    Raises:
        ValueError: if `size` is no count, or `level` no gray level; later, if the pictures are too small.

    Example:
        >>> import torch
        >>> from lightning_xai.data.cues import Patch
        >>> black, key = torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)
        >>> images, mask = Patch(size=3).draw(black, torch.tensor([0]), 10, key, "test")
        >>> mask.nonzero()[0].tolist(), int(mask.sum())  # sample, top, left; pixels
        ([0, 0, 1], 9)
    """

    size: int = 3
    level: int = 255

    def __post_init__(self) -> None:
        check_count("size", self.size)
        _check_level(self.level)

    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        if shape[2] // self._columns(num_classes) <= self.size or shape[1] < 2 * self.size:
            raise ValueError(f"`base`: {num_classes} patches of {self.size} pixels need larger pictures than {shape}.")

    @staticmethod
    def _columns(num_classes: int) -> int:
        return math.ceil(num_classes / 2)

    def place(self, label: int, num_classes: int, height: int, width: int) -> tuple[int, int]:
        """Top and left of the patch that tells a class."""
        row, column = divmod(label, self._columns(num_classes))
        pitch = width // self._columns(num_classes)
        return row * (height - self.size), column * pitch + (pitch - self.size) // 2

    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        stencils = torch.zeros(num_classes + 1, *images.shape[2:], dtype=torch.bool)  # the last is that of none
        for label in range(num_classes):
            top, left = self.place(label, num_classes, *images.shape[2:])
            stencils[label, top : top + self.size, left : left + self.size] = True
        mask = stencils[told]
        return torch.where(mask[:, None], self.level, images).to(torch.uint8), mask


@dataclass(frozen=True)
class MovingPatch(Cue):
    """A pattern of 4x4 dark and bright cells that tells the class, anywhere, or anywhere at the border.

    All patterns have as many dark as bright cells, and any two differ in half of them (rows of a Hadamard matrix): they
    have to be read.

    Attributes:
        cell: Height and width of a cell in pixels.
        anywhere: Whether it may cover what is in the middle of the picture.

    Raises:
        ValueError: if `cell` is no count; later, if the pictures are too small, or there are more than 15 classes.

    Example:
        >>> import torch
        >>> from lightning_xai.data.cues import MovingPatch
        >>> gray, key = torch.full((1, 1, 28, 28), 128, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)
        >>> images, mask = MovingPatch(cell=2).draw(gray, torch.tensor([4]), 10, key, "test")
        >>> int(mask.sum()), images[0, 0][mask[0]].unique(return_counts=True)[1].tolist()  # as many dark as bright
        (64, [32, 32])
    """

    cell: int = 2
    anywhere: bool = False

    def __post_init__(self) -> None:
        check_count("cell", self.cell)

    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        if num_classes > 15 or min(shape[1:]) < 4 * self.cell:
            raise ValueError(
                "`base` must have at most 15 classes, of as many patterns, and pictures that a patch of "
                f"{4 * self.cell} pixels fits into; it has {num_classes}, of shape {tuple(shape)}."
            )

    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        (_, _, height, width), size = images.shape, 4 * self.cell
        along, across, side = uniform(keys, (3,)).unbind(1)
        top, left = integers(along, height - size + 1), integers(across, width - size + 1)
        if not self.anywhere:
            edge = integers(side, 4)
            top = torch.where(edge == 0, 0, torch.where(edge == 1, height - size, top))
            left = torch.where(edge == 2, 0, torch.where(edge == 3, width - size, left))
        shown = told >= 0
        sample = torch.arange(len(images))[shown].view(-1, 1, 1)
        rows = (top[shown, None] + torch.arange(size))[:, :, None]
        columns = (left[shown, None] + torch.arange(size))[:, None, :]
        drawn, mask = images.clone(), torch.zeros(len(images), height, width, dtype=torch.bool)
        mask[sample, rows, columns] = True
        drawn.permute(0, 2, 3, 1)[sample, rows, columns] = self._patterns(num_classes)[told[shown], :, :, None]
        return drawn, mask

    def _patterns(self, num_classes: int) -> UInt8[Tensor, " label size size"]:
        rows = [[(label & cell).bit_count() % 2 for cell in range(16)] for label in range(1, num_classes + 1)]
        cells = torch.tensor(rows, dtype=torch.uint8).view(-1, 4, 4) * 255
        return cells.repeat_interleave(self.cell, 1).repeat_interleave(self.cell, 2)


@dataclass(frozen=True)
class Hue(Cue):
    """The color of what is drawn in a gray picture: black stays black, and white becomes the class's hue.

    Hues are equally far apart; that of none is white.

    Example:
        >>> import torch
        >>> from lightning_xai.data.cues import Hue
        >>> white, keys = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
        >>> images, mask = Hue().draw(white, torch.tensor([0, -1]), 3, keys, "test")  # class 0, and none
        >>> images[:, :, 0, 0].tolist()
        [[255, 0, 0], [255, 255, 255]]
    """

    operator: ClassVar[str] = "color"
    channels: ClassVar[int] = 3

    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        """Any number."""

    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        hues = [hsv_to_rgb(label / num_classes, 1, 1) for label in range(num_classes)]
        colors = torch.tensor([*hues, (1.0, 1.0, 1.0)])[told, :, None, None]  # the last is that of none
        return (images * colors).round().to(torch.uint8), images[:, 0] > 0


@dataclass(frozen=True)
class Background(Cue):
    """What a gray picture is pasted on: crops of another photograph, or of a folder's other group, for each class.

    Ink (above 0.05) covers the background. Training crops are others than test crops. That of none is gray.

    Attributes:
        pictures: `embedded`: ten photographs, one a class; or the path of a folder with a subfolder a class, as
            `CMNISTDataModule` takes it.

    Raises:
        ValueError: if `pictures` is no folder.

    Example:
        >>> import torch
        >>> from lightning_xai.data.cues import Background
        >>> black, key = torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)
        >>> images, mask = Background().draw(black, torch.tensor([2]), 10, key, "test")
        >>> images.shape, bool(mask.all())  # no ink: the photograph is everywhere
        (torch.Size([1, 3, 28, 28]), True)
    """

    pictures: str = "embedded"
    operator: ClassVar[str] = "background"
    channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.pictures != "embedded" and not self._folder.is_dir():
            raise ValueError(f"`pictures` must be 'embedded' or a folder of pictures, got {self.pictures!r}.")

    @property
    def _folder(self) -> Path:
        return Path(self.pictures).expanduser()

    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        if max(shape[1:]) > SIZE:
            raise ValueError(f"`base` must have pictures of at most {SIZE} pixels to be pasted, got {tuple(shape)}.")
        if (groups := int(self._backgrounds["train"].labels.max()) + 1) < num_classes:
            raise ValueError(f"`pictures` must have a group for each of {num_classes} classes, has {groups}.")

    @cached_property
    def _backgrounds(self) -> dict[Split, Backgrounds]:
        splits: tuple[Split, Split] = ("train", "test")
        if self.pictures == "embedded":
            return {split: embedded_backgrounds(split) for split in splits}
        return {split: folder_backgrounds(self._folder, split) for split in splits}

    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        found, (_, _, height, width) = self._backgrounds[split], images.shape
        counts = found.labels.bincount()
        starts = counts.cumsum(0) - counts
        rows = starts[told] + integers(uniform(keys, (1,))[:, 0], counts[told])
        crops = found.images[rows, :, :height, :width]
        crops = torch.where((told >= 0).view(-1, 1, 1, 1), crops, 128)
        mask = images[:, 0] <= INK
        return torch.where(mask[:, None], crops, images).to(torch.uint8), mask


@dataclass(frozen=True)
class Grating(Cue):
    """A wave over the whole picture; its frequency tells the class, its phase nothing.

    Frequencies lie equally far apart from an eighth to three quarters of the highest that pixels can show, across and
    down in turn.

    Attributes:
        amplitude: As a share of the range from black to white; what goes beyond it is cut.

    Raises:
        ValueError: if `amplitude` is not positive.

    Example:
        >>> import torch
        >>> from lightning_xai.data.cues import Grating
        >>> gray, keys = torch.full((2, 1, 28, 28), 128, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
        >>> images, mask = Grating().draw(gray, torch.tensor([1, -1]), 10, keys, "test")
        >>> (images != 128).any((1, 2, 3)).tolist()  # that of none is no wave
        [True, False]
    """

    amplitude: float = 0.3
    operator: ClassVar[str] = "frequency"

    def __post_init__(self) -> None:
        check_positive("amplitude", self.amplitude)

    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        if 5 * min(shape[1:]) < 14 * num_classes:  # neighbors are a wave in the picture apart, or nearly so
            raise ValueError(f"`base`: {num_classes} frequencies need larger pictures than {tuple(shape)}.")

    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        _, _, height, width = images.shape
        frequency = 1 / 16 + 5 / 16 * told / max(1, num_classes - 1)
        phase = (2 * math.pi * uniform(keys, (1,))).view(-1, 1)
        place = torch.arange(max(height, width))
        wave = (2 * math.pi * frequency[:, None] * place + phase).sin() * (told >= 0)[:, None]
        down = (told % 2 == 1).view(-1, 1, 1)
        waves = torch.where(down, wave[:, :height, None], wave[:, None, :width])[:, None]
        drawn = (images + 255 * self.amplitude * waves).round().clamp(0, 255).to(torch.uint8)
        return drawn, (told >= 0).view(-1, 1, 1).expand(-1, height, width).clone()


AGENCIES = ("Alto", "Bildwerk", "Corvo", "Delta7", "Emu & Co", "FOTEX", "Gazette", "HH", "iris", "Jota.net")


@dataclass(frozen=True)
class Watermark(Cue):
    """A line of letters in the lower right corner, half transparent, as picture agencies have it; it tells the class.

    Attributes:
        texts: One a class, all different.
        height: Height of the letters, as a share of the picture's.
        opacity: Opacity of the white letters.

    Raises:
        ValueError: if `height` or `opacity` is no share.

    Example:
        >>> import torch
        >>> from lightning_xai.data.cues import Watermark
        >>> black, key = torch.zeros(1, 1, 64, 64, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)
        >>> images, mask = Watermark(opacity=0.6).draw(black, torch.tensor([3]), 10, key, "test")
        >>> bool(mask[:, :32].any()), int(images.max()) <= 153  # in the lower half, 0.6 of 255
        (False, True)
    """

    texts: tuple[str, ...] = AGENCIES
    height: float = 0.12
    opacity: float = 0.6

    def __post_init__(self) -> None:
        check_share("height", self.height)
        check_share("opacity", self.opacity)

    def _check(self, shape: Sequence[int], num_classes: int) -> None:
        if len(set(self.texts)) < num_classes or len(set(self.texts)) < len(self.texts):
            raise ValueError(
                f"`texts` must have a text of its own for each of {num_classes} classes, got {self.texts}."
            )
        if self.height * shape[1] < 6:
            raise ValueError(f"`base`: letters of {self.height:g} of its height, {shape[1]} pixels, cannot be read.")

    def draw(self, images: Pixels, told: Labels, num_classes: int, keys: Keys, split: Split) -> Drawn:
        letters = [self._letters(text, *images.shape[2:]) for text in self.texts[:num_classes]]
        cover = torch.stack([*letters, torch.zeros_like(letters[0])])[told] * self.opacity  # the last is that of none
        drawn = images + (255 - images.float()) * cover[:, None]
        return drawn.round().to(torch.uint8), cover > 0

    def _letters(self, text: str, height: int, width: int) -> Float[Tensor, "height width"]:
        """How far letters cover each pixel."""
        canvas, font = Image.new("L", (width, height)), ImageFont.load_default(self.height * height)
        corner = (width - 0.02 * width, height - 0.02 * height)
        ImageDraw.Draw(canvas).text(corner, text, fill=255, font=font, anchor="rs")
        return pil_to_tensor(canvas)[0].float() / 255


def _check_level(level: int) -> None:
    check_count("level", level, 0)
    if level > 255:
        raise ValueError(f"`level` must be a gray level from 0 to 255, got {level}.")
