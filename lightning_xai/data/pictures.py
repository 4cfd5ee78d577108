"""Picture files of many kinds as 8-bit RGB, or refused with a reason; and the pictures that are in folders."""

import hashlib
import io
import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from lightning_xai.reporting.escapes import printable as printable

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

_PNG = b"\x89PNG\r\n\x1a\n"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by EXIF's orientation."""
_GRAY16 = ("I;16", "I;16B", "I;16L", "I;16N")


class RefusedPicture(ValueError):
    """A file that cannot be explained; the message says why, and what to do."""


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """The picture in a file as 8-bit RGB, upright.

    EXIF rotation is applied. Transparency is laid on white. Grayscale, palettes and CMYK become RGB, without color
    management. White is the greatest number of the file's depth, or 0 where the file says so: 9 to 16 bits of gray are
    rounded to 8, so that 65535 is white; colors of 16 bits lose their lower half. Metadata that cannot be read are
    passed over. A JPEG file above `MAX_PIXELS` is decoded at
    a half, a quarter or an eighth of its size; of one with several pictures (MPO, as telephones write it) the first is
    taken.

    Raises:
        RefusedPicture: The file is missing, unreadable, damaged or cut short, no picture, not of `FORMATS`, animated or
            has several pages, has too many pixels or is a narrow strip, or does not say what is white (signed and
            32-bit integers and floating-point numbers).
    """
    with _open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on metadata and sizes; what matters is checked
        if not os.fstat(file.fileno()).st_size:
            raise RefusedPicture("it is empty; replace it")
        try:
            return _decoded(file)
        except RefusedPicture:
            raise
        except Image.DecompressionBombError as error:
            raise RefusedPicture(f"it has more than {2 * MAX_PIXELS:,} pixels; reduce it") from error
        except Exception as error:  # bytes that are no picture can make a decoder raise anything
            for mended, inverted in _mended(file):
                if (picture := _decoded_or_none(mended)) is not None:
                    return ImageOps.invert(picture) if inverted else picture
            if isinstance(error, Image.UnidentifiedImageError):
                known = ", ".join(_formats())
                raise RefusedPicture(
                    f"it is no picture in a format that is read, {known}, or is damaged; convert it"
                ) from error
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RefusedPicture(f"it is damaged or cut short ({reason}); replace it") from error


def _decoded(file: io.BufferedIOBase) -> Image.Image:
    with Image.open(file, formats=_formats()) as image:  # type: ignore[arg-type]
        _check_still(image)
        _limit_size(image)
        return _upright_rgb(image)


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


def find_pictures(
    paths: Iterable[str | os.PathLike[str]],
    beside: tuple[str, str] | None = None,
    passed_over: list[Path] | None = None,
) -> Iterator[Path]:
    """Files as they are given, folders as the pictures in them and in their subfolders, in the order of their names.

    Pictures are known by their suffix. Hidden files and folders are passed over, and links that lead back to a folder
    that they are in. A folder without pictures, and one that cannot be listed, are given themselves: reading them says
    so.

    Args:
        beside: (file, folder): a folder of this name beside a file of this name is passed over too.
        passed_over: Gets the files of folders whose suffix no reader knows, but for those beside that file.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = False
        for picture in _below(path, beside, [] if passed_over is None else passed_over):
            found = True
            yield picture
        if not found:
            yield path


def listed(names: Sequence[str | os.PathLike[str]], limit: int = 5) -> str:
    """The first of some names, printable, and how many more there are."""
    more = len(names) - limit
    return ", ".join(map(printable, names[:limit])) + (f", ... and {more} more" if more > 0 else "")


def same_content(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files that are copies of each other, or the same one by several ways."""
    sizes: dict[int, list[Path]] = {}
    for path in paths:
        with suppress(OSError):  # reading it says why
            sizes.setdefault(path.stat().st_size, []).append(path)
    digests: dict[str, list[Path]] = {}
    for path in (path for group in sizes.values() if len(group) > 1 for path in group):
        with suppress(RefusedPicture):
            digests.setdefault(content_digest(path), []).append(path)
    return [group for group in digests.values() if len(group) > 1]


def refusals(paths: Iterable[Path]) -> dict[Path, str]:
    """Which pictures cannot be read, and why."""
    found = {}
    for path in paths:
        try:
            read_picture(path)
        except RefusedPicture as error:
            found[path] = str(error)
    return found


def refusal_lines(refused: Mapping[Path, str], limit: int = 20) -> str:
    """A line each, the first ones."""
    lines = [f"  {printable(path)}: {reason}" for path, reason in refused.items()]
    more = len(lines) - limit
    return "\n".join([*lines[:limit], *([f"  ... and {more} more"] if more > 0 else [])])


def _below(folder: Path, beside: tuple[str, str] | None, unknown: list[Path]) -> Iterator[Path]:
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
            if name.startswith("."):
                continue
            if name.lower().endswith(SUFFIXES):
                yield Path(place, name)
            elif not ((beside and beside[0] in files) or name.endswith(".safetensors")):  # results of ours
                unknown.append(Path(place, name))
    yield from unlisted


def _open(path: str | os.PathLike[str]) -> io.BufferedIOBase:
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


def _decoded_or_none(file: io.BufferedIOBase) -> Image.Image | None:
    try:
        return _decoded(file)
    except RefusedPicture:  # of another kind than the pixels that it was mended for
        raise
    except Exception:
        return None


def _upright_rgb(image: Image.Image) -> Image.Image:
    eight_bits = _eight_bits(image)
    turn = _UPRIGHT.get(_orientation(image))  # of a TIFF file, Pillow has turned the pixels and removed this
    upright = eight_bits if turn is None else eight_bits.transpose(turn)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    opaque = Image.new("RGBA", upright.size, BACKGROUND)
    opaque.alpha_composite(upright.convert("RGBA"))
    return opaque.convert("RGB")


def _orientation(image: Image.Image) -> Any:
    """What EXIF says; odd metadata say nothing."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the reader raises anything
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    tiff = dict(getattr(image, "tag_v2", {}))  # before the pixels are read, which changes it
    depth = max(_numbers(tiff.get(258, 8)))
    if tiff and depth <= 16 and 2 in _numbers(tiff.get(339, 1)):
        raise RefusedPicture("its pixels are signed numbers, of which black and white are unknown; save it with 8 bits")
    if tiff and depth > 8 and tiff.get(284) == 2 and tiff.get(277, 1) > 1:  # Pillow takes a half of each number for it
        raise RefusedPicture(f"its {depth}-bit colors are stored plane by plane; save it with 8 bits")
    image.load()
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # PPM is of at most 16 bits
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise RefusedPicture(f"its pixels are {kind}, of which white is unknown; save it with 8 or 16 bits")
    if image.mode == "La":  # gray, multiplied by its opacity
        return image.convert("LA")
    if image.mode not in (*_GRAY16, "I"):
        return image
    white = 2**depth - 1 if tiff else 65535
    values = np.minimum(np.asarray(image).astype(np.uint32), white)
    if tiff.get(262) == 0:  # white is zero, which Pillow heeds up to 8 bits
        values = white - values
    gray = Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


def _numbers(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


# Pillow refuses sound pixels for odd metadata (profiles of colors and texts that are long, cut short or badly summed),
# and where white is zero at depths of more than 8 bits in some TIFF files


def _mended(file: io.BufferedIOBase) -> Iterator[tuple[io.BytesIO, bool]]:
    """The same pixels in a file that is easier to read, and whether they are inverted in it; none for most files."""
    file.seek(0)
    start = file.read(8)
    if start == _PNG:
        yield io.BytesIO(start + b"".join(_needed_chunks(file))), False
    elif start.startswith(b"\xff\xd8\xff"):
        file.seek(2)
        yield io.BytesIO(start[:2] + b"".join(_needed_segments(file))), False
    elif order := {b"II*\0": "<", b"MM\0*": ">"}.get(start[:4]):
        content = bytearray(start + file.read())
        places = dict(_tags(content, order))
        photometric, samples = (places.get(tag) for tag in (262, 277))
        short = struct.Struct(order + "H")
        one = samples is None or short.unpack_from(content, samples)[0] == 1  # opacity would be inverted too
        if one and photometric is not None and short.unpack_from(content, photometric)[0] == 0:
            short.pack_into(content, photometric, 1)
            yield io.BytesIO(content), True


def _tags(content: bytes | bytearray, order: str) -> Iterator[tuple[int, int]]:
    """The number of each field of a TIFF file's first picture, and where its value is."""
    with suppress(struct.error):  # it is cut short
        (first,) = struct.unpack_from(order + "I", content, 4)
        (number,) = struct.unpack_from(order + "H", content, first)
        for place in range(first + 2, first + 2 + 12 * number, 12):
            yield struct.unpack_from(order + "H10x", content, place)[0], place + 8


def _needed_chunks(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Of a PNG file: all that a decoder must know, transparency, and the frames of an animation."""
    while len(head := file.read(8)) == 8:
        content = file.read(int.from_bytes(head[:4], "big") + 4)
        if head[4:5].isupper() or head[4:] in (b"tRNS", b"acTL", b"fcTL", b"fdAT"):
            yield head + content


def _needed_segments(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Of a JPEG file: all but the application's own, of which EXIF, and the two that tell the colors, are kept."""
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
        content = file.read(int.from_bytes(head[2:], "big") - 2) if head[2:] > b"\0\2" else b""
        kept = {
            0xE0: content.startswith(b"JFIF\0") and len(content) >= 14,
            0xE1: content.startswith(b"Exif\0\0"),
            0xEE: content.startswith(b"Adobe") and len(content) >= 12,
        }
        if kept.get(head[1], not (0xE0 <= head[1] <= 0xEF or head[1] == 0xFE)):
            yield head + content
    yield head + file.read()
