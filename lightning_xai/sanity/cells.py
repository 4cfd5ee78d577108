"""Finished parts of long work, kept in a folder: interrupted and started again, it goes on where it stopped."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_xai.results.files import agree_on_settings, replacing

SETTINGS = "settings.json"


class Cells:
    """Results by name, each in a file of its own that is whole or absent.

    Args:
        folder: Where the files are; None keeps nothing.
        settings: What the results depend on, as JSON can hold it. A folder holds the results of one setting.

    Raises:
        ValueError: if the folder has results of other settings.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, settings: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            agree_on_settings(self.folder / SETTINGS, settings)

    def once(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of this name, computed if it is not there: a dict of tensors and plain values."""
        known = self._read(name)
        if known is not None:
            return known
        result = compute()
        if self.folder is not None:
            with replacing(_path(self.folder, name)) as temporary:
                torch.save(result, temporary)
        return result

    def _read(self, name: str) -> dict[str, Any] | None:
        if self.folder is None or not _path(self.folder, name).exists():
            return None
        try:
            return torch.load(_path(self.folder, name), map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            return None  # damaged by somebody else; it is computed again


def _path(folder: Path, name: str) -> Path:
    return folder / f"{''.join(c if c.isalnum() or c in '-_.' else '_' for c in name)}.pt"
