"""Picture files of many kinds as 8-bit RGB, or refused with a reason; and the pictures that are in folders."""

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""No others are opened: Pillow would run Ghostscript on an EPS file."""
SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Files of a folder that count as pictures; .heic is refused by name, and not passed over."""
MAX_PIXELS = 89_478_485
"""Pillow's threshold of suspicion, 268 MB in RGB; above it, JPEG files are decoded at a reduced size."""
MAX_RATIO = 50
"""Of the sides: a strip would become too long when its short side is enlarged to the network's."""
BACKGROUND = "white"
"""What transparent pictures are laid on."""

_GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")


class RefusedPicture(ValueError):
    """A file that cannot be explained; the message says why, and what to do."""


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """The picture in a file as 8-bit RGB, upright.

    EXIF rotation is applied. Transparency is laid on white. Greyscale, palettes and CMYK become RGB, without colour
    management. 16 bits are reduced to 8, so that 65535 is white. A JPEG file above `MAX_PIXELS` is decoded at
    a half, a quarter or an eighth of its size; of one with several pictures (MPO, as telephones write it) the first is
    taken.

    Raises:
        RefusedPicture: The file is missing, unreadable, damaged or cut short, no picture, not of `FORMATS`, animated or
            has several pages, has too many pixels or is a narrow strip, or does not say what is white (32-bit integers
            and floating-point numbers).
    """
    with _open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on metadata and sizes; what matters is checked
        if not os.fstat(file.fileno()).st_size:
            raise RefusedPicture("it is empty; replace it")
        try:
            with Image.open(file, formats=_formats()) as image:
                _check_still(image)
                _limit_size(image)
                return _upright_rgb(image)
        except RefusedPicture:
            raise
        except Image.UnidentifiedImageError as error:
            known = ", ".join(_formats())
            raise RefusedPicture(
                f"it is no picture in a format that is read, {known}, or is damaged; convert it"
            ) from error
        except Image.DecompressionBombError as error:
            raise RefusedPicture(f"it has more than {2 * MAX_PIXELS:,} pixels; reduce it") from error
        except Exception as error:  # bytes that are no picture can make a decoder raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RefusedPicture(f"it is damaged or cut short ({reason}); replace it") from error


def content_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content.

    Raises:
        RefusedPicture: The file is missing or unreadable, or no file.
    """
    sha256 = hashlib.sha256()
    with _open(path) as file:
        try:
            for block in iter(partial(file.read, 1 << 20), b""):
                sha256.update(block)
        except OSError as error:
            raise RefusedPicture(f"it cannot be read ({error.strerror})") from error
    return sha256.hexdigest()


def find_pictures(paths: Iterable[str | os.PathLike[str]], beside: tuple[str, str] | None = None) -> Iterator[Path]:
    """Files as they are given, folders as the pictures in them and in their subfolders, in the order of their names.

    Pictures are known by their suffix. Hidden files and folders are passed over, and links that lead back to a folder
    that they are in. A folder without pictures, and one that cannot be listed, are given themselves: reading them says
    so.

    Args:
        beside: (file, folder): a folder of this name beside a file of this name is passed over too.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = False
        for picture in _below(path, beside):
            found = True
            yield picture
        if not found:
            yield path


def printable(text: str | os.PathLike[str]) -> str:
    """A name as one line of UTF-8: control characters and bytes that are no text are escaped."""
    decoded = os.fsencode(os.fspath(text)).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)


def _below(folder: Path, beside: tuple[str, str] | None) -> Iterator[Path]:
    unlisted: list[Path] = []
    around = {os.fspath(folder): {os.path.realpath(folder)}}  # each folder with those that it is in
    walk = os.walk(folder, onerror=lambda error: unlisted.append(Path(error.filename)), followlinks=True)
    for place, folders, files in walk:
        here, passed_over = around.pop(place), beside[1] if beside and beside[0] in files else ""
        shown = sorted(name for name in folders if not name.startswith(".") and name != passed_over)
        real = {name: os.path.realpath(os.path.join(place, name)) for name in shown}
        folders[:] = [name for name in shown if real[name] not in here]
        around |= {os.path.join(place, name): here | {real[name]} for name in folders}
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)
    yield from unlisted


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    path = Path(path)
    try:
        if path.is_dir():
            os.listdir(path)
            raise RefusedPicture(f"there is no picture in this folder ({', '.join(SUFFIXES)})")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise RefusedPicture("it is not a regular file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise RefusedPicture("it does not exist") from error
    except (OSError, ValueError) as error:
        if isinstance(error, RefusedPicture):
            raise
        raise RefusedPicture(f"it cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF came later than the oldest Pillow that we take


def _check_still(image: Image.Image) -> None:
    number = getattr(image, "n_frames", 1)
    if number > 1 and image.format != "MPO":
        kind = "pages" if image.format == "TIFF" else "frames"
        raise RefusedPicture(f"it has {number} {kind}; save the one to be explained as a file of its own")


def _limit_size(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > MAX_RATIO * min(width, height):
        raise RefusedPicture(f"{width} x {height} pixels are a strip, longer than {MAX_RATIO} times its width; crop it")
    scale = 1
    while width * height > MAX_PIXELS * scale**2:
        scale *= 2
    if scale > 1 and hasattr(image, "draft"):
        image.draft("RGB", (-(-width // scale), -(-height // scale)))
    if image.width * image.height > MAX_PIXELS:
        raise RefusedPicture(f"{width} x {height} are more than {MAX_PIXELS:,} pixels; reduce it")


def _upright_rgb(image: Image.Image) -> Image.Image:
    eight_bits = _eight_bits(image)
    rotated = ImageOps.exif_transpose(eight_bits)
    if not rotated.has_transparency_data:
        return rotated.convert("RGB")
    opaque = Image.new("RGBA", rotated.size, BACKGROUND)
    opaque.alpha_composite(rotated.convert("RGBA"))
    return opaque.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # PPM is of at most 16 bits
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise RefusedPicture(f"its pixels are {kind}, of which white is unknown; save it with 8 or 16 bits")
    if image.mode not in (*_GREY16, "I"):
        return image
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    grey.getexif().update(image.getexif())
    return grey
