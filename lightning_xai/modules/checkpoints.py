"""Checks a checkpoint before anything is trained, evaluated or written."""

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.modules.manifest import check_digest

ADVICE = "Give a checkpoint that Lightning wrote with the same network."
DATA_TYPES: tuple[Any, ...] = (
    Namespace,
    *(
        (PurePosixPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath")
    ),
    *(
        (PureWindowsPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("WindowsPath", "PureWindowsPath")
    ),
)
"""What hyper-parameters often hold beside plain values, by the names that the versions of Python give it; reading it
runs nothing. Paths come without their methods that touch files, so that those of another system can be read."""


def admitting_data_types() -> AbstractContextManager[None]:
    """While active, `weights_only` reading admits `DATA_TYPES`, as it does tensors and plain values."""
    return torch.serialization.safe_globals(list(DATA_TYPES))


def read_as_data(path: str | Path, device: str = "meta") -> Any:
    """The content of a file, in which nothing runs; on the device "meta", tensors have shapes but take no memory."""
    with admitting_data_types():
        return torch.load(path, map_location=device, weights_only=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint; its tensors have shapes but no values, and so take no memory.

    Raises:
        ValueError: The file is missing, truncated, not a Lightning checkpoint, or not the one that a manifest beside it
            describes.
    """
    if not Path(path).is_file():
        raise ValueError(f"`ckpt_path`: {path} does not exist. {ADVICE}")
    check_digest(path)
    try:
        checkpoint = read_as_data(path)
    except Exception as error:  # bytes that are no checkpoint can make the reader raise anything
        named = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
        if named:
            raise ValueError(
                f"`ckpt_path`: {path} cannot be read as a checkpoint: it holds {named[1]}, and only tensors, plain"
                " values, argparse.Namespace and pathlib.Path are read, which run nothing. Save it without, such as by"
                f" `save_hyperparameters(ignore=[...])`. {ADVICE}"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        reason = reason if re.search("[a-z]", reason) else "its bytes are no checkpoint's"
        raise ValueError(
            f"`ckpt_path`: {path} cannot be read as a checkpoint; it is truncated, damaged, or something else"
            f" ({reason}). {ADVICE}"
        ) from error
    absent = {"state_dict", "pytorch-lightning_version"} - set(checkpoint if isinstance(checkpoint, Mapping) else ())
    if absent:
        raise ValueError(
            f"`ckpt_path`: {path} is not a Lightning checkpoint: it has no {_some(sorted(absent))}. {ADVICE}"
        )
    return checkpoint


def check_weights_fit(checkpoint: Mapping[str, Any], module: nn.Module, path: str | Path) -> None:
    """Raises a ValueError unless the checkpoint has exactly the parameters and buffers of `module`."""
    if report := misfits(checkpoint["state_dict"], module):
        raise ValueError(f"`ckpt_path`: {path} does not fit the `model`. Parameters {report}. {ADVICE}")


def misfits(state_dict: Mapping[str, Tensor], module: nn.Module) -> str:
    """What keeps a state dict from being loaded: names missing, unexpected, or of another shape; empty if it fits."""
    found = {name: tuple(value.shape) for name, value in state_dict.items()}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    reshaped = [
        f"{name} {found[name]} instead of {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    faults = {
        "missing": wanted.keys() - found.keys(),
        "unexpected": found.keys() - wanted.keys(),
        "of another shape": reshaped,
    }
    return "; ".join(f"{len(names)} {fault}: {_some(sorted(names))}" for fault, names in faults.items() if names)


def check_resumable(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Raises a ValueError unless training can go on from the checkpoint."""
    absent = {"optimizer_states", "lr_schedulers", "loops"} - checkpoint.keys()
    if absent:
        raise ValueError(
            f"`ckpt_path`: training cannot resume from {path}, which holds weights only: it has no"
            f" {_some(sorted(absent))}. Give a checkpoint written without `save_weights_only`."
        )


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = [f"`{name}`" for name in names]
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
