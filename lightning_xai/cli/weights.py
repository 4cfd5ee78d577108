"""Whether a network that is run without a checkpoint has trained weights."""

import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_xai.modules import PretrainedClassifier

_NAMES_WEIGHTS = re.compile(r"(^|_)(weights?(_?(file|path))?|checkpoints?|ckpt|pretrained|state_dict)(_|$)")


def warn_of_random_weights(parser: ArgumentParser, config: Any, model: LightningModule) -> None:
    """Warn if the configuration names no weights and the network comes out otherwise with another seed.

    A network that loads weights itself does not. One that does so later, when it is set up, is known by its arguments:
    `weights`, `checkpoint`, `pretrained`, or the path of a file.

    Args:
        parser: Of the configuration.
        config: Of the model.
        model: Made from it.
    """
    if names_weights(config, model) or not (drawn := _drawn(parser, config, model)):
        return
    rank_zero_warn(
        f"No `ckpt_path` was given: the weights are those that {type(model).__name__} was made with, and are random"
        f" ({drawn} of {len(model.state_dict())} tensors change with the seed), as the configuration names none."
    )


def names_weights(config: Any, model: LightningModule) -> bool:
    """Whether some argument of the model, at any depth, names weights."""
    given = list(_arguments(config.as_dict() if isinstance(config, Namespace) else config))
    if isinstance(model, PretrainedClassifier) and not isinstance(_init_args(config).get("network"), str):
        given = [(name, value) for name, value in given if (name, value) != ("weights", "DEFAULT")]  # as it was built
    return any(_is_file(value) or (_NAMES_WEIGHTS.search(name) and _names_some(name, value)) for name, value in given)


def _names_some(name: str, value: Any) -> bool:
    """Not by a mere yes, as to `init_weights`, unless it is to `pretrained`."""
    return "pretrained" in name if value is True else value not in (None, False, "")


def _init_args(config: Any) -> Mapping[str, Any]:
    parts = config.as_dict() if isinstance(config, Namespace) else config
    return parts.get("init_args") or {} if isinstance(parts, Mapping) else {}


def _arguments(part: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values that are no collections."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _arguments(value, str(key))
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _arguments(value, name)
    else:
        yield name, part


def _is_file(value: Any) -> bool:
    return isinstance(value, str | Path) and str(value) != "" and Path(value).expanduser().is_file()


def _drawn(parser: ArgumentParser, config: Any, model: LightningModule) -> int:
    """How many of the model's tensors depend on random numbers; all, where it cannot be made again."""
    weights = model.state_dict()
    try:
        with isolate_rng():
            for seed in (torch.manual_seed, np.random.seed, random.seed):
                seed(int(torch.initial_seed() % 2**31) + 1)
            other = parser.instantiate_classes(Namespace(model=config)).model.state_dict()
        return sum(not torch.equal(value, other[name]) for name, value in weights.items())
    except Exception:  # somebody else's class may raise anything
        return len(weights)
