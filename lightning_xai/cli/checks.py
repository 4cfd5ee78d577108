"""Checks of the input, before a command trains or writes anything."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from lightning_xai.data.image_folder import PictureDataModule
from lightning_xai.data.input_space import InputSpace
from lightning_xai.modules.classifier import check_network_fits
from lightning_xai.modules.manifest import MANIFEST
from lightning_xai.reporting.folders import check_folder


def unrandomizable(data: Namespace) -> str | None:
    """Why the labels of a data module cannot be randomized, which the data check needs; None if they can be."""
    if "randomize_labels" in (data.get("init_args") or {}):
        return None
    return (
        f"`data`: {data.class_path} cannot randomize its labels, which the data check needs; give the data module "
        "an argument `randomize_labels`"
    )


def check_writable(trainer: Trainer) -> None:
    """Raises a ValueError unless files can be made in the folders where the run will write."""
    for option, folder in _output_folders(trainer):
        if folder is not None and "://" not in str(folder):
            check_folder(option, folder)


def check_new_run(trainer: Trainer) -> None:
    """Raises a ValueError where the configuration of this training would replace that of an earlier one."""
    folder = Path(trainer.default_root_dir)
    if not trainer.loggers and (folder / "config.yaml").exists():
        raise ValueError(
            f"`trainer.default_root_dir`: {folder} has the config.yaml of an earlier run. Choose another folder, or use"
            " a logger, which makes one for each run; or remove that file."
        )


def check_fits_data(model: LightningModule, data: Any) -> None:
    """Raises a ValueError if it is known already that the network is not one for the data.

    Modules check that when they are set up, too; but then the run has a folder.
    """
    if isinstance(data, PictureDataModule):
        data.adapted(getattr(model, "preprocessing", None))  # which may be refused
    space, shape, number = InputSpace(model, data), None, None
    with suppress(Exception):  # a property may say that there are no data yet
        shape, number = space.shape, getattr(data, "num_classes", None)
    if shape is not None and isinstance(getattr(model, "network", None), nn.Module):
        check_network_fits(model, shape, number)


def checkpoint_run(path: str | None) -> Path:
    """The folder of the run that wrote a checkpoint: around `checkpoints`, or else its own.

    For one that comes with the project, which has no run, it is runs/NAME.

    Raises:
        ValueError: if there is no path.
    """
    if not path:
        raise ValueError("`ckpt_path` must name a checkpoint: what is examined is a trained model.")
    file = Path(path).absolute()
    if (file.parent / MANIFEST).is_file():
        return Path("runs", file.stem)
    return file.parents[1] if file.parent.name == "checkpoints" else file.parent


def check_local(path: str) -> None:
    """Raises a ValueError for what is neither a file here nor a word with which the Trainer chooses one.

    What a URL leads to would be unpickled, which runs what it says, and so would be the parts of a sharded checkpoint.
    """
    if "://" in path or "::" in path or path.split(":")[0].lower() == "registry":
        raise ValueError(
            f"`ckpt_path`: {path} is not a path but an address; checkpoints are read from local files only, where they"
            " can be checked first. Download it, and give the path of the file."
        )
    if path and Path(path).is_dir():
        raise ValueError(
            f"`ckpt_path`: {path} is a folder, a sharded checkpoint perhaps, of which no part can be read safely. Give"
            " a single file: `python -m pytorch_lightning.utilities.consolidate_checkpoint FOLDER` makes one of it."
        )


def is_local_file(path: str) -> bool:
    """False for nothing, and for the words with which the Trainer chooses a checkpoint."""
    return path not in ("", "best", "last", "hpc")


def parse_shard(text: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """The shard of this process, (k, n) with k from 1: what is given, and of that the part of RANK and WORLD_SIZE.

    Raises:
        ValueError: if there is no such shard.
    """
    shard, _, shards = ("1/1" if text is None else text).partition("/")
    if not (shard.isdecimal() and shards.isdecimal() and 1 <= int(shard) <= int(shards)):
        raise ValueError(f"`shard` must be k/n with k from 1 to n, such as 1/3, 2/3 and 3/3, got {text!r}.")
    rank, world = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    return int(shard) + int(shards) * rank, int(shards) * world  # every n-th row, and of these every world-th


def _output_folders(trainer: Trainer) -> Iterator[tuple[str, str | Path | None]]:
    for callback in trainer.checkpoint_callbacks:
        yield f"{type(callback).__name__}.dirpath", getattr(callback, "dirpath", None)
    for logger in trainer.loggers:
        yield f"{type(logger).__name__}.save_dir", logger.save_dir
    if not trainer.loggers:
        yield "trainer.default_root_dir", trainer.default_root_dir
