"""Masks of evidence beside pictures: a file a picture, or polygons of many in COCO's format."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_xai.data.pictures import listed, printable

SUFFIXES = (".png", ".npy")
NAME = "object"
"""Of these masks in a batch."""

Masks = dict[str, np.ndarray]
Reader = Callable[[], Masks]


def mask_readers(masks: Path, root: Path, pictures: Sequence[tuple[Path, str]]) -> list[Reader]:
    """What reads the mask of each picture, bool (height, width) in the picture's own pixels.

    Args:
        masks: A folder that has `a/b.png` or `a/b.npy` for the picture `a/b.jpg` of `root`; or a file in COCO's format,
            `instances.json`, with its pictures by their paths below `root`, or by their names alone.
        root: Folder of the pictures.
        pictures: Path and class of each.

    Raises:
        ValueError: if there is no such folder or file, or if it lacks pictures, which are named.
    """
    readers: list[Reader | None]
    if masks.is_dir():
        found = [_mask_files(masks, path.relative_to(root)) for path, _ in pictures]
        readers = [partial(read_mask, files[0]) if len(files) == 1 else None for files in found]
    else:
        readers = _of_coco(masks, root, pictures)
    if absent := [path for (path, _), reader in zip(pictures, readers, strict=True) if reader is None]:
        raise ValueError(
            f"`masks`: {printable(masks)} must have one mask a picture, a file of its name that ends in "
            f"{' or '.join(SUFFIXES)}, or an entry; {len(absent)} of {len(pictures)} pictures have none, or two: "
            f"{listed(absent)}."
        )
    return [reader for reader in readers if reader is not None]


def read_mask(path: Path) -> Masks:
    """The mask in a file, (H, W), (1, H, W) or (H, W, 1), or a picture in gray.

    Of whole numbers two values are known, 0 and another one; numbers from 0 to 1 are in the mask from 0.5.

    Raises:
        ValueError: if the file cannot be read, or has something else.
    """
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path, formats=["PNG"]) as image:
                values = np.array(image)
    except Exception as error:  # bytes that are no picture can make a decoder raise anything
        raise ValueError(f"the mask {printable(path)} cannot be read ({error}): replace it") from error
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    elif values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2:
        raise ValueError(f"the mask {printable(path)} must be of shape (H, W) or (1, H, W), is of {values.shape}")
    if np.issubdtype(values.dtype, np.floating):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"the mask {printable(path)} must have numbers from 0 to 1; save it as 0 and 1")
        return {NAME: values >= 0.5}
    if len(different := {0, *np.unique(values)[:3].tolist()}) > 2:
        raise ValueError(
            f"the mask {printable(path)} must have two values, 0 and another one; it has {sorted(different)}, ...: "
            "of a segmentation save one class alone"
        )
    return {NAME: values != 0}


def _mask_files(folder: Path, picture: Path) -> list[Path]:
    return [path for suffix in SUFFIXES if (path := (folder / picture).with_suffix(suffix)).is_file()]


def _of_coco(file: Path, root: Path, pictures: Sequence[tuple[Path, str]]) -> list[Reader | None]:
    """Where a category has the name of a class, a picture's mask is its class's; else it is all annotations'."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images = {entry["file_name"]: entry for entry in content["images"]}
        names = {entry["id"]: str(entry["name"]) for entry in content.get("categories", ())}
        annotations: dict[Any, list[tuple[str | None, Any]]] = {}
        for entry in content["annotations"]:
            shape = (names.get(entry.get("category_id")), entry["segmentation"])
            annotations.setdefault(entry["image_id"], []).append(shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`masks`: {printable(file)} must be a folder, or a file in COCO's format with images, annotations and "
            f"categories; it cannot be read ({type(error).__name__}: {error})."
        ) from error
    by_class = not {name for _, name in pictures}.isdisjoint(names.values())
    readers: list[Reader | None] = []
    for path, name in pictures:
        image = images.get(path.relative_to(root).as_posix()) or images.get(path.name)
        if image is None:
            readers.append(None)
            continue
        shapes = [shape for kind, shape in annotations.get(image["id"], ()) if kind == name or not by_class]
        readers.append(partial(_drawn, path, (image["height"], image["width"]), shapes))
    return readers


def _drawn(path: Path, size: tuple[int, int], shapes: Sequence[Any]) -> Masks:
    """The pixels whose centers are in any of the shapes."""
    mask = np.zeros(size, dtype=bool)
    try:
        for shape in shapes:
            mask |= _run_lengths(shape, size) if isinstance(shape, Mapping) else _polygons(shape, size)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"the annotations of {printable(path)} must be polygons, or counts of pixels that are not compressed "
            f"({error}): replace them"
        ) from error
    return {NAME: mask}


def _polygons(shape: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    from skimage.draw import polygon  # slow to import, and seldom needed

    mask = np.zeros(size, dtype=bool)
    for corners in shape:
        across, down = np.reshape(np.asarray(corners, dtype=float), (-1, 2)).T - 0.5  # pixel 0 reaches from 0 to 1
        mask[polygon(down, across, size)] = True
    return mask


def _run_lengths(shape: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Down the columns, outside and inside by turns."""
    counts = np.asarray(shape["counts"], dtype=int)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T
