"""Small pictures of a folder, a folder a class, all in memory."""

from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.functional import pil_to_tensor

from lightning_xai.data.base import ImageDataModule, ImageSource, Split, at_least
from lightning_xai.data.image_folder import subfolders
from lightning_xai.data.pictures import find_pictures, read_picture
from lightning_xai.data.preprocessing import Preprocessing


class FolderInMemoryDataModule(ImageDataModule):
    """Pictures in `train` and `test` folders, a folder a class, decoded once: what a `DialDataModule` can draw in.

    The shorter side of each is resized, and its center taken. A sample's index is its place in its split, class by
    class, in the order of the paths. (`TrainingFolderDataModule` reads pictures when they are needed.)

    Args:
        root: Folder with `train` and `test`, whose subfolders are the classes: those of `train`, sorted.
        image_size: Height and width in pixels.
        num_train: Training pictures of each class, the first ones; null: all.
        num_test: Test pictures of each class.
        options: Those of `ImageDataModule`.

    Raises:
        ValueError: if there are no such folders, or, later, if one has no pictures or other classes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from lightning_xai.data import FolderInMemoryDataModule
        >>> root = Path(tempfile.mkdtemp())
        >>> for split in ("train", "test"):
        ...     for name, level in (("dark", 40), ("light", 200)):
        ...         (root / split / name).mkdir(parents=True)
        ...         for number in range(3):
        ...             Image.new("RGB", (40, 30), (level, level, number)).save(root / split / name / f"{number}.png")
        >>> data = FolderInMemoryDataModule(str(root), image_size=16)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> data.class_names, batch["image"].shape, batch["label"].tolist()
        (('dark', 'light'), torch.Size([6, 3, 16, 16]), [0, 0, 0, 1, 1, 1])
    """

    default_mean = (0.485, 0.456, 0.406)
    default_std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        image_size: int = 32,
        num_train: int | None = None,
        num_test: int | None = None,
        **options: Any,
    ) -> None:
        self.root = Path(root).expanduser()
        for split in ("train", "test"):
            if not (self.root / split).is_dir():
                raise ValueError(f"`root` must have the folders `train` and `test`; {self.root} has no {split}.")
        self.image_shape = (3, at_least("image_size", image_size, 1), image_size)
        self.class_names = subfolders(self.root / "train")
        self.most = {
            "train": None if num_train is None else at_least("num_train", num_train, 1),
            "test": None if num_test is None else at_least("num_test", num_test, 1),
        }
        super().__init__(**options)

    def load(self, split: Split) -> ImageSource:
        folder, prepare = self.root / split, Preprocessing(self.image_shape[1], self.image_shape[1])
        if subfolders(folder) != self.class_names:
            raise ValueError(f"`root`: {folder} must have the classes {self.class_names}, has {subfolders(folder)}.")
        found = [sorted(find_pictures([folder / name]))[: self.most[split]] for name in self.class_names]
        if lacking := [name for name, paths in zip(self.class_names, found, strict=True) if not paths]:
            raise ValueError(f"`root`: there are no pictures of {', '.join(lacking)} in {folder}.")
        images = [pil_to_tensor(prepare.resized(read_picture(path))) for paths in found for path in paths]
        counts = torch.tensor([len(paths) for paths in found])
        return ImageSource(torch.stack(images), torch.arange(len(found)).repeat_interleave(counts), {})
