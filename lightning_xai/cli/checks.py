"""Checks of the input, before a command trains or writes anything."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from jsonargparse import Namespace
from pytorch_lightning import Trainer

from lightning_xai.modules.manifest import MANIFEST


def check_randomisable(data: Namespace) -> None:
    """Raises a ValueError unless the data module can randomise its labels."""
    if "randomize_labels" not in data.init_args:
        raise ValueError(
            f"`data`: {data.class_path} cannot randomise its labels, which the data check needs; give the data module "
            "an argument `randomize_labels`, or choose another `check`."
        )


def check_writable(trainer: Trainer) -> None:
    """Raises a ValueError unless files can be made in the folders where the run will write."""
    for option, folder in _output_folders(trainer):
        if folder is None or "://" in str(folder):
            continue
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(
                f"`{option}`: cannot write to {Path(folder).absolute()} ({error.strerror}). Choose a folder that you"
                " may write to."
            ) from error


def checkpoint_run(path: str | None) -> Path:
    """The folder of the run that wrote a checkpoint; runs/NAME for one that comes with the project, which has no run.

    Raises:
        ValueError: if there is no path.
    """
    if not path:
        raise ValueError("`ckpt_path` must name a checkpoint: what is examined is a trained model.")
    file = Path(path).absolute()
    return Path("runs", file.stem) if (file.parent / MANIFEST).is_file() else file.parents[1]


def is_local_file(path: str) -> bool:
    """False for nothing, a folder (a sharded checkpoint), a URL, and the words with which the Trainer chooses one."""
    chosen_by_trainer = path in ("", "best", "last", "hpc") or path.split(":")[0].lower() == "registry"
    return not (chosen_by_trainer or "://" in path or Path(path).is_dir())


def _output_folders(trainer: Trainer) -> Iterator[tuple[str, str | Path | None]]:
    for callback in trainer.checkpoint_callbacks:
        yield f"{type(callback).__name__}.dirpath", getattr(callback, "dirpath", None)
    for logger in trainer.loggers:
        yield f"{type(logger).__name__}.save_dir", logger.save_dir
    if not trainer.loggers:
        yield "trainer.default_root_dir", trainer.default_root_dir
