"""Trained networks that come with the project: a folder of checkpoints, and a manifest that says what they are."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

MANIFEST = "manifest.yaml"


@dataclass(frozen=True)
class ShippedCheckpoint:
    """An entry of the manifest.

    Attributes:
        sha256: Of the file.
        config: Configuration of the network, a path in the repository.
        accuracy: On all test samples; of a network trained `by_heart`, on its training samples.
        data: What it was trained on, in words.
        made: How, in words.
        by_heart: Trained on permuted labels until it knew them.
        changes: Values that replaced the configuration's, by dotted name.
    """

    sha256: str
    config: str
    accuracy: float
    data: str
    made: str
    by_heart: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(folder: str | Path) -> dict[str, ShippedCheckpoint]:
    """The checkpoints of a folder by file name; none where it has no manifest.

    Raises:
        ValueError: if the manifest is not one.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return {}
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return {name: ShippedCheckpoint(**entry) for name, entry in entries.items()}
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not a manifest of checkpoints ({error}). Restore it.") from error


def manifest_text(entries: Mapping[str, ShippedCheckpoint]) -> str:
    """What `read_manifest` reads."""
    return yaml.safe_dump({name: asdict(entry) for name, entry in sorted(entries.items())}, sort_keys=False, width=120)


def check_digest(path: str | Path) -> None:
    """Raises a ValueError if a manifest beside the file says that it should be another one."""
    path = Path(path)
    entry = read_manifest(path.parent).get(path.name)
    if entry is not None and (found := digest(path)) != entry.sha256:
        raise ValueError(
            f"`ckpt_path`: {path} is damaged or was replaced: {MANIFEST} beside it expects sha256 {entry.sha256}, it"
            f" has {found}. Restore the file, or make it again with scripts/train_checkpoints."
        )


def digest(path: str | Path) -> str:
    """Its sha256."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def shipped_weights(
    folder: str | Path, config: str, changes: Mapping[str, Any], by_heart: bool
) -> tuple[dict[str, Any], ShippedCheckpoint] | None:
    """Weights of a network that the folder has, and the manifest's entry of it; None if it has no such network.

    Args:
        config: Name of the configuration.

    Raises:
        ValueError: if the file is not the manifest's.
    """
    for name, entry in read_manifest(folder).items():
        if (Path(entry.config).stem, dict(entry.changes), entry.by_heart) == (config, dict(changes), by_heart):
            check_digest(path := Path(folder) / name)
            return torch.load(path, map_location="cpu", weights_only=True)["state_dict"], entry
    return None
