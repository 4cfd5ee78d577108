"""Where results are going to be written is looked at before the work, not after it."""

import errno
import os
import tempfile
from pathlib import Path


def check_folder(argument: str, folder: str | os.PathLike[str]) -> None:
    """Refuse a folder in which no files can be made; nothing is made where it does not exist yet.

    Raises:
        ValueError: naming the argument, the folder and what the operating system says.
    """
    folder = Path(folder)
    try:
        present = _nearest(Path(os.path.abspath(folder)))
        if not present.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        tempfile.TemporaryFile(dir=present).close()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ValueError(
            f"`{argument}`: cannot write to {folder.absolute()} ({getattr(error, 'strerror', None) or error}). Choose a"
            " folder that you may write to."
        ) from error


def check_file(argument: str, path: str | os.PathLike[str]) -> None:
    """Refuse the path of a file that cannot be made, or replaced; as `check_folder`."""
    path = Path(path)
    check_folder(argument, path.parent)
    if path.is_dir():
        raise ValueError(f"`{argument}`: {path.absolute()} is a folder. Choose the name of a file.")


def _nearest(path: Path) -> Path:
    """The path itself or the first of the folders around it that is there; a link that leads nowhere is there, too."""
    for place in (path, *path.parents):
        try:
            os.lstat(place)
            return place
        except FileNotFoundError:
            continue
    return path
