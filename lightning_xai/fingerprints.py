"""Short names of what scores depend on: weights, samples, and explainers and metrics in words.

Equal things have equal names in every process; none has a device, a size of batches or an address of memory in it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_xai.metrics.cost import NumGradients
from lightning_xai.shapes import Inputs, Labels, Masks, Scores

NUMERICS = 1
"""Raised with every change after which scores are others by more than rounding: earlier ones are not gone on with."""

_FEW = 64
"""Numbers of a tensor that are told one by one."""


def fingerprint(model: nn.Module) -> str:
    """A short name of the weights: equal weights have the same."""
    return digest(model.state_dict())


def digest(values: Mapping[str, Any]) -> str:
    """A short name of tensors by name."""
    sha256 = hashlib.sha256()
    for name, value in values.items():
        if isinstance(value, Tensor):
            sha256.update(name.encode())
            sha256.update(_bytes(value))
    return sha256.hexdigest()[:16]


def sample_records(
    index: Labels,
    inputs: Inputs,
    target: Labels,
    masks: Masks | None,
    predicted: Labels,
    probability: Scores,
    rows: Sequence[int],
    explained: str,
) -> dict[str, list[Any]]:
    """What is recorded of samples beside their scores, the columns of `results.store.SAMPLES`.

    Args:
        index: Indices of the samples.
        inputs: As they are explained.
        target: Classes explained.
        masks: If there are any.
        predicted: Classes that the network predicts.
        probability: Probability of these.
        rows: Their numbers in the data set.
        explained: Which class that is, in a word: see there.
    """
    return {
        "sample": index.tolist(),
        "row": list(rows),
        "target": target.tolist(),
        "predicted": predicted.tolist(),
        "probability": probability.tolist(),
        "fingerprint": row_fingerprints(inputs, target, masks),
        "explained": [explained] * len(index),
    }


def row_fingerprints(inputs: Inputs, target: Labels, masks: Masks | None) -> list[str]:
    """A short name of each sample: of its input, the class explained and its mask."""
    inputs, masks = inputs.cpu(), None if masks is None else masks.cpu()
    return [
        digest({f"{row.dtype} {tuple(row.shape)} {number}": row} | ({} if masks is None else {"mask": masks[place]}))
        for place, (row, number) in enumerate(zip(inputs, target.tolist(), strict=True))
    ]


def network_specification(model: nn.Module) -> str:
    """The modules of a network in words, as they print themselves; a compiled network is what it was made of."""
    return _without_addresses(repr(getattr(model, "_orig_mod", model)))


def specification(value: Any) -> Any:
    """An explainer, a metric, or a part of one in words that JSON can hold: classes, and what they were made with."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _array(torch.as_tensor(value))
    if isinstance(value, Mapping):
        return {str(key): specification(part) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Sequence):
        return [specification(part) for part in value]
    if isinstance(value, partial):
        return {"function": specification(value.func), "args": specification([*value.args, value.keywords])}
    if is_dataclass(value) and not isinstance(value, type):
        return _object(value, {field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Metric):
        states = _OF_ALL_METRICS | value._defaults.keys()
        return _object(value, {name: part for name, part in vars(value).items() if name not in states})
    if isinstance(value, nn.Module):
        return {"network": network_specification(value), "weights": fingerprint(value)}
    if hasattr(value, "__qualname__"):
        return _function(value)
    return _without_addresses(repr(value)) if type(value).__repr__ is not object.__repr__ else _object(value)


def _function(value: Any) -> str:
    """Its name; and what it does, if it is not defined where that name is found."""
    name, code = f"{value.__module__}.{value.__qualname__}", getattr(value, "__code__", None)
    if "<" not in name or code is None:
        return name
    inside = [cell.cell_contents for cell in value.__closure__ or ()]
    told = [code.co_code.hex(), code.co_consts, code.co_names, specification([*inside, *(value.__defaults__ or ())])]
    return f"{name} {hashlib.sha256(_without_addresses(repr(told)).encode()).hexdigest()[:16]}"


def _object(value: Any, parts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    own = getattr(value, "__dict__", {}) if parts is None else parts
    told = {name: specification(part) for name, part in own.items()}
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **told}


def _array(value: Tensor) -> Any:
    if value.numel() <= _FEW:
        return value.tolist()
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(_bytes(value)).hexdigest()[:16]}"


def _bytes(value: Tensor) -> Any:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


_OF_ALL_METRICS = frozenset(vars(NumGradients()))
