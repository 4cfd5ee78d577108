"""PASCAL VOC: photographs with the evidence known, as boxes and as segmentations."""

from functools import partial
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from torchvision import datasets

from lightning_xai.data.image_folder import Masks, Picture, PictureDataModule, class_indices

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""In the order of the benchmark; in a segmentation, class c has the value c + 1."""

Box = tuple[int, int, int, int]
"""xmin, ymin, xmax, ymax, in pixels from 1, both ends inside."""


class VOCDataModule(PictureDataModule):
    """The pictures of PASCAL VOC 2012 that have segmentations: 1,464 to train and 1,449 to validate.

    A picture may show several classes. The one in question is its main class: that whose boxes have the largest area in
    all. Masks of evidence: `object`, the pixels segmented as this class (without the border that belongs to none), and
    `box`, inside any of its boxes; first cut out like the picture.

    The label is the main class, as an index of the network's outputs: looked up by name among the names of its classes,
    or, where these are not known, the index in `VOC_CLASSES`. A network that knows other classes (ImageNet's) gets no
    labels: the class that it predicts is explained, and the masks still say where the main object is.

    Source: Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010; read by torchvision.

    Args:
        root: Folder with (or for) `VOCdevkit`.
        split: `train`, `val` or `trainval`.
        download: Download what `root` lacks, 2 GB; needs the network.
        labeled: Whether batches have labels; null: if the network knows all of VOC's classes, or no names.
        options: Those of `PictureDataModule`.

    Raises:
        FileNotFoundError: later, if VOC is not in `root` and cannot be downloaded.
        ValueError: later, if an annotation cannot be read, or if `labeled` is true and the network does not know all
            of VOC's classes.

    Example:
        >>> from lightning_xai.data import VOCDataModule
        >>> data = VOCDataModule("data", split="val", image_size=192, download=False)
        >>> data.image_shape
        (3, 192, 192)
    """

    def __init__(
        self,
        root: str = "data",
        split: Literal["train", "val", "trainval"] = "val",
        download: bool = True,
        labeled: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.split, self.download = Path(root).expanduser(), split, download
        self.labeled = labeled

    def prepare_data(self) -> None:
        if not (self.root / "VOCdevkit" / "VOC2012").is_dir():
            self._open(self.download)

    def find_pictures(self, class_names: tuple[str, ...] | None) -> list[Picture]:
        data = self._open(download=False)
        self.class_names, indices = self._labels(class_names or VOC_CLASSES)
        pictures = zip(map(Path, data.images), map(Path, data.masks), strict=True)
        return [_picture(path, segmentation, indices) for path, segmentation in pictures]

    def _labels(self, names: tuple[str, ...]) -> tuple[tuple[str, ...] | None, dict[str, int]]:
        """The names of the network's classes and the index of each of VOC's; nothing where there are no labels."""
        if self.labeled is False:
            return None, {}
        try:
            return names, class_indices(VOC_CLASSES, names)
        except ValueError:
            if self.labeled:
                raise
            return None, {}

    def _open(self, download: bool) -> datasets.VOCSegmentation:
        try:
            return datasets.VOCSegmentation(self.root, "2012", self.split, download)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"`root`: there is no VOC 2012 in {self.root.absolute() / 'VOCdevkit'} ({error}). Pass `download: "
                "true` on a machine with network access, or copy the folder from another one."
            ) from error


def _picture(path: Path, segmentation: Path, indices: dict[str, int]) -> Picture:
    boxes = read_boxes(path.parent.parent / "Annotations" / f"{path.stem}.xml")
    main = max(boxes, key=lambda name: sum(map(_area, boxes[name])))
    return Picture(path, indices.get(main), partial(read_masks, segmentation, main, boxes[main]))


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """The boxes of each class in an annotation file.

    Raises:
        ValueError: if it cannot be read, or has none.
    """
    boxes: dict[str, list[Box]] = {}
    try:
        for item in ElementTree.parse(path).getroot().iter("object"):
            name = item.findtext("name", "")
            if name not in VOC_CLASSES:
                raise ValueError(f"{name!r} is no class of VOC")
            edges = (item.findtext(f"bndbox/{edge}", "") for edge in ("xmin", "ymin", "xmax", "ymax"))
            left, top, right, bottom = (round(float(edge)) for edge in edges)
            boxes.setdefault(name, []).append((left, top, right, bottom))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"the annotation {path} cannot be read ({error}): replace it") from error
    if not boxes:
        raise ValueError(f"the annotation {path} has no object: replace it")
    return boxes


def read_masks(segmentation: Path, main: str, boxes: list[Box]) -> Masks:
    """`object` and `box` of the main class; see `VOCDataModule`.

    Raises:
        ValueError: if the segmentation cannot be read, or a box is not inside of it.
    """
    try:
        with Image.open(segmentation) as image:
            classes = np.array(image)
    except OSError as error:  # Pillow's are of this kind, too
        raise ValueError(f"the segmentation {segmentation} cannot be read ({error}): replace it") from error
    box = np.zeros(classes.shape, dtype=bool)
    height, width = classes.shape[:2]
    for left, top, right, bottom in boxes:
        if not (1 <= left <= right <= width and 1 <= top <= bottom <= height):
            raise ValueError(
                f"the segmentation {segmentation} is of {width} x {height} pixels, but the annotation has"
                f" a box from ({left}, {top}) to ({right}, {bottom}): they do not belong together; replace both"
            )
        box[top - 1 : bottom, left - 1 : right] = True
    return {"object": classes == VOC_CLASSES.index(main) + 1, "box": box}


def _area(box: Box) -> int:
    left, top, right, bottom = box
    return (right - left + 1) * (bottom - top + 1)
