"""What a callback refuses before it explains anything."""

import re
from collections.abc import Iterable
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from pytorch_lightning.utilities import rank_zero_warn
from torch.nn import Module

SHARDED = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


def check_names(argument: str, names: Any) -> None:
    """Refuse what cannot be a part of a metric's name, and a field of a table.

    Raises:
        TypeError: if they are no names, or one is no string.
        ValueError: if it is empty, or has line breaks, other characters that do not show, or slashes.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(
            f"`{argument}` must be a list of names, or map names to objects; got {names!r}: put it into a list."
        )
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"`{argument}` must map names to objects, got {name!r} for a name: put it in quotes.")
        if not name.strip() or not name.isprintable() or "/" in name:
            raise ValueError(
                f"`{argument}` must have names of one line, not empty and without slashes, which part the names of "
                f"metrics; got {name!r}."
            )


def check_folder_name(name: str) -> None:
    """Refuse a callback's name that cannot be a folder's everywhere."""
    if not re.fullmatch(r"\w(?:[\w.-]*[\w-])?", name):
        raise ValueError(
            f"`name` must be made of letters, digits, `_`, `-` and `.`, and begin with a letter or digit, got {name!r}."
        )


def check_together(trainer: Trainer, callback: Callback) -> None:
    """Refuse a second callback of the kind that would log and write under the same names."""
    kind = type(callback).__name__
    names = [c.name for c in trainer.callbacks if type(c).__name__ == kind]  # type: ignore[attr-defined]
    same = [name for name in names if names.count(name) > 1 or (name and _count(names, name) > 1)]
    if same:
        raise ValueError(
            f"`callbacks`: {len(same)} {kind}s have the `name` {same[0]!r}, and would write over each other's metrics "
            'and files. Give each its own `name`, such as "few": it becomes a part of the names of metrics.'
        )


def check_whole(trainer: Trainer, pl_module: Module, owner: str) -> None:
    """Refuse sharded models: noise on weights needs whole parameters, and so do copies with random ones."""
    strategy = trainer.strategy
    if isinstance(strategy, SHARDED) or any(type(p.data).__name__ == "DTensor" for p in pl_module.parameters()):
        raise ValueError(
            f"`strategy`: {owner} needs a whole model in every process, and {type(strategy).__name__} shards this one. "
            "Train without the callback and explain the checkpoint on one device, or take a strategy such as ddp."
        )


def tell_number_of_classes(trainer: Trainer, dataset: Any, num_outputs: int) -> None:
    """Warn where labels are explained as outputs of a network that has other outputs than the data have classes."""
    known = _number_of_classes(trainer, dataset)
    if known is not None and known != num_outputs:
        rank_zero_warn(
            f"The model has {num_outputs} outputs and the data have {known} classes: a sample's label is taken for the "
            "number of an output. If the outputs are no classes (an embedding), explain a model with a head "
            'that has them, or give `target="prediction"`.'
        )


def _number_of_classes(trainer: Trainer, dataset: Any) -> int | None:
    """What the data module, the module or the data set say."""
    module = trainer.lightning_module
    for owner in (getattr(trainer, "datamodule", None), module, *_parts(dataset)):
        for where in (owner, getattr(owner, "hparams", None)):
            number = getattr(where, "num_classes", None)
            if isinstance(number, int):
                return number
        for name in ("class_names", "classes"):
            names = getattr(owner, name, None)
            if isinstance(names, list | tuple):
                return len(names)
    return None


def _parts(dataset: Any) -> list[Any]:
    """A data set, and those that it is a part of."""
    parts: list[Any] = []
    while dataset is not None and len(parts) < 10:
        parts.append(dataset)
        dataset = getattr(dataset, "dataset", None)
    return parts


def _count(names: list[str | None], name: str) -> int:
    """Names of folders that are one where capitals do not count."""
    return sum(other is not None and other.casefold() == name.casefold() for other in names)
