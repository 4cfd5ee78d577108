"""Files that are either the old version or the new one, never a part of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends without an exception.

    Folders are created as needed. An interrupted block leaves `path` as it was. One process writes at a time.

    Raises:
        OSError: of the kind that the operating system names (such as `PermissionError`), if the folder cannot
            be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = f"{error.strerror or error}: cannot write `path`; choose a folder that can be written to"
        raise OSError(error.errno, reason, str(path)) from error
