"""One's own pictures in folders, a folder a class, to train on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2

from lightning_xai.data.base import checked_val_size, split_rows
from lightning_xai.data.image_folder import Picture, PictureDataModule, PictureDataset, subfolders
from lightning_xai.data.picture_masks import mask_readers
from lightning_xai.data.pictures import RefusedPicture, find_pictures, listed, read_picture, refusal_lines

SPLITS = ("train", "val", "test")


class TrainingFolderDataModule(PictureDataModule):
    """Pictures in folders, a folder a class, to train, validate and test on.

    `root` has the folders `train`, `val` and perhaps `test`, each with a folder a class; or the folders of the classes,
    whose pictures are divided into training and validation pictures, every class in proportion; so are those of `train`
    where there is no `val`. Without `test`, the validation pictures are tested on, too. A label is the place of the
    class among the sorted folders to train on.

    Pictures are prepared as the network asks for, if it is a named one; `image_size` and the other arguments of
    `PictureDataModule` come first. Batches are as described there; an index is the picture's place in its folder
    (`train`, `val`, `test` or `root`), class by class, in the order of the paths.

    Args:
        root: The folder.
        val_size: Number of validation pictures, where there is no `val`; null: a fifth.
        seed: Seed of the division.
        augment: Transforms of `torchvision.transforms.v2`, of the training pictures alone, on the whole pictures, one
            after the other. What is then of the network's size (by `RandomResizedCrop`, say) is only normalized, all
            else resized and cut as other pictures are.
        masks: Masks of the evidence in the pictures that are validated or tested on: a folder or a file in COCO's
            format, below `root` or elsewhere, as `data.picture_masks.mask_readers` takes them.
        check: Whether all pictures and masks are looked at before anything else, which takes as long as reading them
            once; if not, one that cannot be used is refused when it is read.
        options: Those of `PictureDataModule`.

    Raises:
        ValueError: if there are fewer than two classes, folders that are none of these, classes to validate that are
            not trained on; later, if a class has no picture to train on, a picture or a mask cannot be read, or is of
            another size than the other, or `augment` does not make pictures.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from lightning_xai.data import TrainingFolderDataModule
        >>> root = Path(tempfile.mkdtemp())
        >>> for name, level in (("dark", 40), ("light", 200)):
        ...     (root / name).mkdir()
        ...     for number in range(5):
        ...         Image.new("RGB", (40, 30), (level, level, number)).save(root / name / f"{number}.png")
        >>> data = TrainingFolderDataModule(str(root), val_size=2, check=False, image_size=32)
        >>> data.prepare_data()
        >>> data.setup("fit")
        >>> batch = next(iter(data.val_dataloader()))
        >>> data.class_names, batch["image"].shape, sorted(batch["label"].tolist())
        (('dark', 'light'), torch.Size([2, 3, 32, 32]), [0, 1])
    """

    trains = True
    """Its labels are all that a network has to have outputs for."""

    def __init__(
        self,
        root: str,
        val_size: int | None = None,
        seed: int = 0,
        augment: list[torch.nn.Module] | None = None,
        masks: str | None = None,
        check: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.seed, self.check = Path(root).expanduser(), seed, check
        self.augment = None if augment is None else v2.Compose(augment)
        self.masks = None if masks is None else self.root / Path(masks).expanduser()
        self.val_size = checked_val_size(val_size)
        self._folders = self._split_folders()
        self.class_names = self._classes(self._folders["train"])
        self._check_classes()
        self._sets: dict[str, Dataset] = {}

    def find_pictures(self, class_names: tuple[str, ...] | None) -> list[Picture]:
        """Those that are trained on."""
        return [self._found["train"][row] for row in self._rows["train"]]

    def prepare_data(self) -> None:
        """Look at all of them once, in as many threads as there are cores."""
        used = {split: self._with_masks(split) for split in self._found}
        pictures = [picture for found in used.values() for picture in found]
        if not self.check:
            return
        rank_zero_info(f"Looking at {len(pictures)} pictures in {self.root} (`check: false` leaves it out).")
        with ThreadPoolExecutor() as threads:
            faults = zip(pictures, threads.map(_fault, pictures), strict=True)
            if refused := {picture.path: fault for picture, fault in faults if fault is not None}:
                raise ValueError(
                    f"`root`: {len(refused)} of {len(pictures)} pictures cannot be used:\n{refusal_lines(refused)}"
                )
        self.check = False  # once

    def setup(self, stage: str | None = None) -> None:
        network = getattr(self.trainer, "lightning_module", None)
        self.preprocessing = self.adapted(getattr(network, "preprocessing", None))
        training = PictureDataset(self._found["train"], self.preprocessing, self.augment)
        self._sets = {"train": Subset(training, self._rows["train"])}
        for split in ("val", "test"):
            source = split if split in self._found else "val" if "val" in self._found else "train"
            data = PictureDataset(self._with_masks(source), self.preprocessing)
            rows = self._rows["val"] if source == "train" else range(len(data))
            self._sets[split] = Subset(data, rows)
        if "test" not in self._found and stage == "test":
            rank_zero_info(f"There is no `test` in {self.root}: the validation pictures are tested on.")
        with isolate_rng():
            self._sets["train"][0]  # what `augment` makes of it is looked at

    def train_dataloader(self) -> DataLoader:
        return self._loader_of("train", shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader_of("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader_of("test")

    def predict_dataloader(self) -> DataLoader:
        return self._loader_of("test")

    def _loader_of(self, split: str, shuffle: bool = False) -> DataLoader:
        if not self._sets:
            raise RuntimeError(f"the pictures of {type(self).__name__} are not found yet: call `setup()` first")
        return self._loader(self._sets[split], shuffle)

    def _split_folders(self) -> dict[str, Path]:
        if not self.root.is_dir():
            raise ValueError(f"`root` must be a folder of pictures; {self.root.absolute()} is none.")
        found = {split: self.root / split for split in SPLITS if (self.root / split).is_dir()}
        others = sorted(set(self._classes(self.root)) - set(SPLITS))
        if not found:
            return {"train": self.root}
        if "train" not in found or others:
            raise ValueError(
                "`root` must have the folders `train`, `val` and perhaps `test`, or a folder a class; there are "
                f"{listed([*found, *others])} in {self.root.absolute()}. Name a folder of masks by `masks`."
            )
        if "val" in found and self.val_size is not None:
            raise ValueError("`val_size` must be null where `root` has the folder `val`.")
        return found

    def _classes(self, folder: Path) -> tuple[str, ...]:
        return tuple(name for name in subfolders(folder) if folder / name != self.masks)

    def _check_classes(self) -> None:
        names = self.class_names or ()
        if len(names) < 2:
            raise ValueError(
                f"`root` must have a folder for each of at least two classes, to tell them apart; there is "
                f"{listed(names) or 'none'} in {self._folders['train'].absolute()}."
            )
        for split, folder in self._folders.items():
            if unknown := sorted(set(self._classes(folder)) - set(names)):
                raise ValueError(f"`root`: {split} has classes that are not trained on: {listed(unknown)}.")

    @cached_property
    def _found(self) -> dict[str, list[Picture]]:
        """All pictures of each folder, class by class."""
        return {split: list(self._in(folder)) for split, folder in self._folders.items()}

    def _in(self, folder: Path) -> Iterator[Picture]:
        trained_on = folder == self._folders["train"]
        for label, name in enumerate(self.class_names or ()):
            paths = sorted(find_pictures([folder / name])) if (folder / name).is_dir() else []
            if paths == [folder / name]:
                paths = []
            if trained_on and not paths:
                raise ValueError(f"`root`: the class {name!r} has no picture to train on, in {folder / name}.")
            yield from (Picture(path, label) for path in paths)
        if loose := [path for path in find_pictures([folder]) if path.parent == folder]:
            raise ValueError(f"`root`: {listed(loose)} must be in folders, one a class.")

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """Of the pictures in the folder to train on: those to train, and those to validate with."""
        labels = torch.tensor([picture.label for picture in self._found["train"]])
        if "val" in self._folders:
            if not self._found["val"]:
                raise ValueError(f"`root`: there is no picture in {self._folders['val']}.")
            return {"train": list(range(len(labels))), "val": []}
        number = self.val_size or max(1, len(labels) // 5)
        train, val = split_rows(labels, min(number, len(labels)), self.seed)
        left = labels[train].bincount(minlength=len(self.class_names or ()))
        if lacking := [name for name, count in zip(self.class_names or (), left.tolist(), strict=True) if not count]:
            raise ValueError(
                f"`val_size`: of {len(labels)} pictures {number} to validate with leave none to train on of "
                f"{listed(lacking)}."
            )
        return {"train": train.tolist(), "val": val.tolist()}

    def _with_masks(self, split: str) -> list[Picture]:
        """The pictures of a folder, with masks where they are validated or tested on."""
        found = list(self._found[split])
        rows = range(len(found)) if split != "train" else self._rows["val"]
        if self.masks is not None:
            names = self.class_names or ()
            wanted = [(found[row].path, names[found[row].label or 0]) for row in rows]
            for row, reader in zip(rows, mask_readers(self.masks, self.root, wanted), strict=True):
                found[row] = replace(found[row], read_masks=reader)
        return found


def _fault(picture: Picture) -> str | None:
    """Why it cannot be used."""
    try:
        width, height = read_picture(picture.path).size
        for mask in (picture.read_masks or dict[str, np.ndarray])().values():
            if mask.shape != (height, width):
                return f"it is of {width} x {height} pixels, its mask of {mask.shape[1]} x {mask.shape[0]}"
    except (RefusedPicture, ValueError) as error:
        return str(error)
    return None
