"""ImageNet (ILSVRC 2012), in torchvision's layout."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

from torchvision import datasets
from torchvision.datasets.imagenet import load_meta_file

from lightning_xai.data.image_folder import Picture, PictureDataModule


class ImageNetDataModule(PictureDataModule):
    """ImageNet's validation pictures, 50,000, or its training pictures.

    A label is the place of the class's WordNet number among the sorted ones of all classes in `meta.bin`: what
    torchvision's networks put out. So a part of the classes, with a folder each, will do.

    Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, arXiv 1409.0575. It must be fetched
    by hand, from image-net.org.

    Args:
        root: Folder with `ILSVRC2012_devkit_t12.tar.gz` and `ILSVRC2012_img_val.tar` or `ILSVRC2012_img_train.tar`,
            or with what torchvision makes of them: `meta.bin`, and `val` or `train` with a folder a class.
        split: `val` or `train`.
        options: Those of `PictureDataModule`.

    Raises:
        FileNotFoundError: later, if `root` has neither the archives nor what is made of them.

    Example:
        >>> from lightning_xai.data import ImageNetDataModule
        >>> data = ImageNetDataModule("data/imagenet", batch_size=64)
        >>> data.image_shape  # of a network that asks for nothing else
        (3, 224, 224)
    """

    def __init__(
        self,
        root: str = "data/imagenet",
        split: Literal["train", "val"] = "val",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.split = Path(root).expanduser(), split

    def prepare_data(self) -> None:
        self._open()

    def find_pictures(self, class_names: tuple[str, ...] | None) -> list[Picture]:
        data = self._open()
        described = load_meta_file(self.root)[0]
        numbers = {number: place for place, number in enumerate(sorted(described))}
        self.class_names = tuple(described[number][0] for number in numbers)
        return [Picture(Path(path), numbers[data.wnids[folder]]) for path, folder in data.samples]

    def _open(self) -> datasets.ImageNet:
        """What torchvision finds; it unpacks archives that are not unpacked yet."""
        try:
            return datasets.ImageNet(self.root, self.split)
        except (OSError, RuntimeError, UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise FileNotFoundError(
                f"`root`: there is no ImageNet in {self.root.absolute()} ({reason}). Put the devkit and the archive of "
                f"the {self.split} pictures there, from image-net.org; for other pictures take ImageFolderDataModule."
            ) from error
