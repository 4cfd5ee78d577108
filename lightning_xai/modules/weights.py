"""Trained weights: torchvision's, with what torchvision says about them, and state dicts in files."""

import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import cast

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torchvision import models
from torchvision.models import ResNet18_Weights, WeightsEnum

from lightning_xai.data.preprocessing import Interpolation, Preprocessing
from lightning_xai.modules.checkpoints import misfits

NETWORK_PREFIX = "network."
"""In front of each name in a checkpoint of a module that holds its network as `network`."""


def torchvision_weights(name: str) -> type[WeightsEnum]:
    """The weights that torchvision has for its classifier of this name.

    Raises:
        ValueError: if it has no such classifier.
    """
    names = models.list_models(module=models)
    if "." in name:
        raise ValueError(f"`network`: there is no class or function {name}. Correct the path of the class.")
    if name not in names:
        similar = get_close_matches(name, names) or names
        raise ValueError(
            f"`network`: torchvision has no classifier {name!r}; it has {', '.join(similar[:5])}, ... (see "
            "torchvision.models.list_models). For another network give its class, `network: {class_path: ...}`."
        )
    return models.get_model_weights(name)


def published_weights(known: type[WeightsEnum], weights: str | None) -> WeightsEnum | None:
    """The weights of this name; None for null and for a path.

    Raises:
        ValueError: if it is neither.
    """
    if weights is None or Path(weights).expanduser().is_file():
        return None
    if weights not in known.__members__:
        raise ValueError(
            f"`weights` must be {', '.join(known.__members__)}, the path of a state dict, or null for random ones; "
            f"got {weights!r}, and there is no such file."
        )
    return known[weights]


def torchvision_network(name: str, weights: WeightsEnum | None, num_classes: int) -> nn.Module:
    """A classifier of torchvision; weights that are not in torchvision's cache are downloaded.

    Raises:
        ValueError: if they cannot be.
    """
    if weights is None:
        with warnings.catch_warnings():  # Inception asks whether its random weights shall be made slowly
            warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
            return models.get_model(name, weights=None, num_classes=num_classes)
    try:
        return models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"`weights`: {weights} could not be had ({error}). Copy {weights.url} to "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or give the path of a state dict."
        ) from error


def described_preprocessing(weights: WeightsEnum) -> Preprocessing:
    """What torchvision says that the weights were evaluated with."""
    transform = weights.transforms()
    return Preprocessing(
        transform.crop_size[0],
        transform.resize_size[0],
        tuple(transform.mean),
        tuple(transform.std),
        cast(Interpolation, transform.interpolation.value),
    )


def names_of_classes(names: Sequence[str] | str | None, published: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The names as configured: a list, `imagenet`, or null for those of the weights."""
    if isinstance(names, str):
        if names != "imagenet":
            raise ValueError(f"`class_names` must be a list of names, 'imagenet' or null, got {names!r}.")
        return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return published if names is None else tuple(names)


def load_weights_file(network: nn.Module, path: str | Path, new_outputs: int | None = None) -> None:
    """Load a state dict, or the one in a checkpoint, read without running code; as `load_state`.

    Raises:
        ValueError: if the file is missing, is something else, or does not fit.
    """
    load_state(network, _read_state_dict(Path(path).expanduser()), path, new_outputs)


def load_state(
    network: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path, new_outputs: int | None = None
) -> bool:
    """Load weights; whether they were all used.

    Args:
        network: Gets them.
        state_dict: The weights.
        path: Where they are from.
        new_outputs: Number of outputs of a network whose last layer, if the weights are for another number of outputs,
            stays as it is; None for weights that must all fit.

    Raises:
        ValueError: if they do not fit.
    """
    own = network.state_dict()
    head = {
        name: own[name]
        for name, value in state_dict.items()
        if name in own and own[name].shape != value.shape and value.shape[1:] == own[name].shape[1:]
        if own[name].shape[:1] == (new_outputs,)
    }
    state_dict = {**state_dict, **head}
    if report := misfits(state_dict, network):
        raise ValueError(
            f"`weights`: {path} does not fit the `network` ({type(network).__name__}). Parameters {report}. Give the "
            "weights of the same network, with as many classes."
        )
    network.load_state_dict(state_dict)
    if head:
        rank_zero_info(f"`weights`: {path} are for another number of classes; {', '.join(head)} stay random.")
    return not head


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"`weights` must be the path of a state dict; {path.absolute()} does not exist.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint can make the reader raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"`weights`: {path} cannot be read safely; it is truncated, damaged, or more than a state dict ({reason}). "
            "Save one with torch.save(network.state_dict(), path)."
        ) from error
    found = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(
            f"`weights`: {path} holds no state dict, a mapping of names to tensors, but a {type(content).__name__}. "
            "Save one with torch.save(network.state_dict(), path)."
        )
    if found is not content and all(name.startswith(NETWORK_PREFIX) for name in found):
        return {name.removeprefix(NETWORK_PREFIX): value for name, value in found.items()}
    return dict(found)
