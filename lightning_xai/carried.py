"""Files that come with the package: configurations and trained networks, by their names."""

from pathlib import Path
from typing import Literal

Kind = Literal["configs", "checkpoints"]
_SUFFIXES: dict[Kind, str] = {"configs": ".yaml", "checkpoints": ".ckpt"}


def carried_folder(kind: Kind) -> Path:
    """Where they are: in an installed package inside of it, in a copy of the repository beside it."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def carried_names(kind: Kind) -> list[str]:
    """Of all of them, without the ending."""
    folder = carried_folder(kind)
    paths = sorted(folder.rglob(f"*{_SUFFIXES[kind]}"))
    return [path.relative_to(folder).with_suffix("").as_posix() for path in paths]


def carried_file(kind: Kind, given: str) -> str:
    """The path of the file that a name means (`quickstart`, `quickstart.yaml`, `configs/quickstart.yaml`).

    A file on disk wins; a name that the package does not know comes back as it is.
    """
    name = given.removeprefix(f"{kind}/")
    if not given or Path(given).is_file() or Path(name).is_absolute() or ".." in Path(name).parts:
        return given
    found = (carried_folder(kind) / f"{name}{suffix}" for suffix in ("", _SUFFIXES[kind]))
    return next((str(path) for path in found if path.is_file()), given)
