"""Pictures on disk, read one at a time: what their data modules share, and the one for any folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_pil_image

from lightning_xai.data.base import at_least
from lightning_xai.data.picture_masks import Masks, mask_readers
from lightning_xai.data.pictures import (
    SUFFIXES,
    RefusedPicture,
    find_pictures,
    listed,
    printable,
    read_picture,
    refusal_lines,
    refusals,
    same_content,
)
from lightning_xai.data.preprocessing import Preprocessing, changed


@dataclass(frozen=True)
class Picture:
    """A picture on disk.

    Attributes:
        path: The file.
        label: Index of its class among the network's outputs; None if it is not known.
        read_masks: Gives masks of evidence by name, bool (height, width) in the picture's own pixels.
    """

    path: Path
    label: int | None = None
    read_masks: Callable[[], Masks] | None = None


class PictureDataset(Dataset):
    """Pictures as dicts of `image`, `index` and, where they are known, `label` and `mask`.

    Args:
        pictures: The files.
        preprocessing: Makes inputs of them.
        augment: Makes another picture of each, before; masks would not go with it.
    """

    def __init__(
        self, pictures: Sequence[Picture], preprocessing: Preprocessing, augment: Callable[[Any], Any] | None = None
    ) -> None:
        self.pictures, self.preprocessing, self.augment = pictures, preprocessing, augment

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.pictures[index]
        image, shape = self._prepared(picture.path)
        sample: dict[str, Any] = {"image": image, "index": index}
        if picture.label is not None:
            sample["label"] = picture.label
        if picture.read_masks is not None:
            masks = picture.read_masks()
            if wrong := [mask.shape for mask in masks.values() if mask.shape != shape]:
                raise ValueError(f"the mask of {printable(picture.path)} must be of shape {shape}, is of {wrong[0]}")
            sample["mask"] = {name: self.preprocessing.mask(mask) for name, mask in masks.items()}
        return sample

    def _prepared(self, path: Path) -> tuple[Tensor, tuple[int, int]]:
        """The input, and height and width of the picture."""
        try:
            image = read_picture(path)
            shape = image.height, image.width
            if self.augment is not None:
                image = as_picture(self.augment(image))
                if image.size == self.preprocessing.image_shape[1:]:
                    return self.preprocessing.normalized(image), shape
            return self.preprocessing(image), shape
        except RefusedPicture as error:
            paths = [picture.path for picture in self.pictures]
            refused = {path: str(error)} | refusals(paths)  # all at once, and not one a run
            if len(refused) == 1:
                raise ValueError(f"the picture {printable(path)} cannot be used: {error}") from error
            raise ValueError(
                f"{len(refused)} of {len(paths)} pictures cannot be used:\n{refusal_lines(refused)}"
            ) from error


class PictureDataModule(LightningDataModule, ABC):
    """Base of the data modules of pictures, which a finished network is to classify.

    `validate`, `test` and `predict` see the same pictures, read from disk when they are needed. A batch is a dict, as
    the other data modules make them, `index` being the position in the order of the paths; without `label` where the
    pictures have none that the network knows, so that the class is explained that it predicts.

    What `preparation` leaves open is taken from the network that runs, if it is a `PretrainedClassifier`.

    Args:
        batch_size: Pictures a batch and process.
        num_workers: Processes that read pictures.
        preparation: Those of `lightning_xai.data.preprocessing.changed`.

    Raises:
        ValueError: if a size or a part of the preparation is out of range; later, if a picture cannot be read.
        RuntimeError: if a loader is asked for before `setup`.

    Example:
        A data module of one's own says where its pictures are.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from lightning_xai.data import PictureDataModule
        >>> from lightning_xai.data.image_folder import Picture
        >>> path = Path(tempfile.mkdtemp()) / "picture.png"
        >>> Image.new("RGB", (60, 40)).save(path)
        >>> class Listed(PictureDataModule):
        ...     def find_pictures(self, class_names):
        ...         return [Picture(path, label=3)]
        >>> data = Listed(image_size=32)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch["image"].shape, batch["label"].tolist(), batch["index"].tolist()
        (torch.Size([1, 3, 32, 32]), [3], [0])
    """

    def __init__(
        self,
        batch_size: int = 32,
        num_workers: int = 0,
        **preparation: Any,
    ) -> None:
        super().__init__()
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.num_workers = at_least("num_workers", num_workers, 0)
        self._changes = preparation
        self.preprocessing = changed(Preprocessing(), **preparation)
        self.class_names: tuple[str, ...] | None = None
        self._pictures: list[Picture] | None = None

    @abstractmethod
    def find_pictures(self, class_names: tuple[str, ...] | None) -> list[Picture]:
        """All pictures, in a fixed order; sets `self.class_names` if they have labels.

        Args:
            class_names: Names of the network's outputs; None if they are not known.
        """

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.preprocessing.image_shape

    @property
    def num_classes(self) -> int | None:
        """Number of outputs that the labels are of; None without labels."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """As those of `ImageDataModule`."""
        return self.preprocessing.bounds

    def setup(self, stage: str | None = None) -> None:
        network = getattr(self.trainer, "lightning_module", None)
        self.preprocessing = self.adapted(getattr(network, "preprocessing", None))
        self._pictures = self.find_pictures(getattr(network, "class_names", None))

    def adapted(self, preprocessing: Preprocessing | None) -> Preprocessing:
        """How the pictures are prepared for a network that asks for this; what the arguments say comes first.

        Raises:
            ValueError: if they ask for another normalization than the network does.
        """
        found = changed(preprocessing or Preprocessing(), **self._changes)
        for name in ("mean", "std"):
            given, needed = getattr(found, name), getattr(preprocessing, name, None)
            if needed not in (None, given):
                raise ValueError(f"`{name}` must be what the network was trained with, {needed}, got {given}.")
        return found

    def val_dataloader(self) -> DataLoader:
        return self._all()

    def test_dataloader(self) -> DataLoader:
        return self._all()

    def predict_dataloader(self) -> DataLoader:
        return self._all()

    def _all(self) -> DataLoader:
        if self._pictures is None:
            raise RuntimeError(f"the pictures of {type(self).__name__} are not found yet: call `setup()` first")
        return self._loader(PictureDataset(self._pictures, self.preprocessing))

    def _loader(self, dataset: Dataset, shuffle: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )


class ImageFolderDataModule(PictureDataModule):
    """All pictures below a folder, in the order of their paths.

    With labels, each first-level subfolder is a class. Its name is looked up among the names of the network's classes
    (case, `_` and `-` do not matter). Only where these are not known, its place among the sorted subfolders is the
    label, as in torchvision's `ImageFolder`.

    Args:
        root: The folder.
        labeled: Whether the subfolders are classes; null: if all pictures are in subfolders.
        class_names: Names of the network's outputs, in their order; null: those of the one that runs.
        masks: Masks of the evidence, a folder beside `root` or a file in COCO's format, as
            `data.picture_masks.mask_readers` takes them.
        options: Those of `PictureDataModule`.

    Raises:
        ValueError: if `masks` is in `root`; later, if there is no picture, or a subfolder is none of the network's
            classes.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from lightning_xai.data import ImageFolderDataModule
        >>> folder = tempfile.mkdtemp()
        >>> Image.new("RGB", (60, 40)).save(f"{folder}/picture.png")
        >>> data = ImageFolderDataModule(folder, image_size=32)
        >>> data.setup("test")
        >>> next(iter(data.test_dataloader()))["image"].shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(
        self,
        root: str,
        labeled: bool | None = None,
        class_names: list[str] | None = None,
        masks: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.labeled = Path(root).expanduser(), labeled
        self.masks = None if masks is None else Path(masks).expanduser()
        if (
            self.masks is not None
            and self.masks.is_dir()
            and self.masks.absolute().is_relative_to(self.root.absolute())
        ):
            raise ValueError(
                f"`masks` must not be in `root`, {self.root}, whose pictures are explained; move the folder."
            )
        self.known_names = None if class_names is None else tuple(class_names)

    def find_pictures(self, class_names: tuple[str, ...] | None) -> list[Picture]:
        pictures = self._without_masks(class_names)
        if self.masks is None:
            return pictures
        folders = [picture.path.relative_to(self.root).parts[0] for picture in pictures]
        wanted = [(picture.path, folder) for picture, folder in zip(pictures, folders, strict=True)]
        readers = mask_readers(self.masks, self.root, wanted)
        return [replace(picture, read_masks=read) for picture, read in zip(pictures, readers, strict=True)]

    def _without_masks(self, class_names: tuple[str, ...] | None) -> list[Picture]:
        self.class_names = None
        paths = picture_paths(self.root)
        folders = [path.relative_to(self.root).parts[:-1] for path in paths]
        if not (all(folders) if self.labeled is None else self.labeled):
            return [Picture(path) for path in paths]
        if not all(folders):
            loose = paths[folders.index(())]
            raise ValueError(
                f"`labeled` asks for pictures in subfolders, one a class, but {printable(loose)} is in none."
            )
        self.class_names = self.known_names or class_names or subfolders(self.root)
        indices = class_indices(sorted({folder[0] for folder in folders}), self.class_names)
        return [Picture(path, indices[folder[0]]) for path, folder in zip(paths, folders, strict=True)]


def picture_paths(root: Path) -> list[Path]:
    """The picture files below a folder, in the order of their paths; hidden ones are passed over.

    Raises:
        ValueError: if there is no such folder, or nothing in it.
    """
    if not root.is_dir():
        raise ValueError(f"`root` must be a folder of pictures; {root.absolute()} is none.")
    passed_over: list[Path] = []
    paths = sorted(find_pictures([root], passed_over=passed_over))
    if paths == [root]:
        raise ValueError(
            f"`root` must be a folder of pictures ({', '.join(SUFFIXES)}); there is none below {root.absolute()}."
        )
    if unlisted := [path for path in paths if not path.name.lower().endswith(SUFFIXES)]:
        raise ValueError(f"`root`: the folder {printable(unlisted[0])} cannot be listed; make it readable.")
    if passed_over:
        rank_zero_info(f"`root`: {len(passed_over)} files are no pictures by their suffix: {listed(passed_over)}.")
    if twice := same_content(paths):
        pairs = "; ".join(listed(group) for group in twice[:5])
        rank_zero_info(f"`root`: {len(twice)} pictures are there more than once, and count as often: {pairs}.")
    return paths


def as_picture(augmented: Any) -> Image.Image:
    """What an augmentation made, as a picture in mode RGB.

    Raises:
        TypeError: if it is no picture.
    """
    if isinstance(augmented, Tensor) and augmented.dtype == torch.uint8 and augmented.ndim == 3:
        augmented = to_pil_image(augmented)
    if not isinstance(augmented, Image.Image) or augmented.mode != "RGB":
        kind = augmented.dtype if isinstance(augmented, Tensor) else getattr(augmented, "mode", type(augmented))
        raise TypeError(
            f"`augment` must make a picture in mode RGB of one, or a tensor of uint8 (3, height, width); got {kind}. "
            "Numbers are normalized afterwards, as the network asks for: leave `ToDtype` and `Normalize` out."
        )
    return augmented


def subfolders(root: Path) -> tuple[str, ...]:
    """The names of the folders in one, in their order; hidden ones are passed over."""
    return tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")))


def class_indices(wanted: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """The index of each wanted class among the names; case, `_` and `-` do not matter.

    Raises:
        ValueError: if a class is not among the names, or if several have its name.
    """
    places: dict[str, list[int]] = {}
    for index, name in enumerate(class_names):
        places.setdefault(_plain(name), []).append(index)
    for name in wanted:
        if len(found := places.get(_plain(name), [])) != 1:
            raise ValueError(_no_such_class(name, class_names, found))
    return {name: places[_plain(name)][0] for name in wanted}


def _no_such_class(name: str, class_names: Sequence[str], found: list[int]) -> str:
    if found:
        return f"`labeled`: several classes are called {name!r}: {', '.join(map(str, found))}. {_ADVICE}"
    similar = get_close_matches(_plain(name), [_plain(other) for other in class_names])
    hint = f"; similar ones are {', '.join(map(repr, similar))}" if similar else ""
    return f"`labeled`: {name!r} is not one of the network's {len(class_names)} classes{hint}. {_ADVICE}"


_ADVICE = "Rename the subfolder, or give other `class_names`, or pass `labeled: false` to explain the predicted class."


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")
