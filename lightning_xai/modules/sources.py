"""Networks by name: how torchvision, timm and transformers build them, and what they say about them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet18_Weights

from lightning_xai.data.preprocessing import Interpolation, Preprocessing, changed
from lightning_xai.modules.weights import (
    described_preprocessing,
    load_state,
    load_weights_file,
    published_weights,
    torchvision_network,
    torchvision_weights,
)

_RESAMPLING: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
_LEVELS = 4
"""Of 255, by which transformers' own resizing may differ from Pillow's on a smooth picture, where none is shifted."""


@dataclass(frozen=True)
class NamedNetwork:
    """A network and what its source says about it.

    Attributes:
        network: The module.
        preprocessing: What makes an input of a picture.
        class_names: Names of the outputs; None if the source does not say, or their weights are not the source's.
    """

    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class _Source:
    """What builds a network: `build(trained, num_classes)`, with None for the source's own number."""

    build: Callable[[bool, int | None], nn.Module]
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None


def named_network(
    name: str, weights: str | None = None, num_classes: int | None = None, new_head: bool = False
) -> NamedNetwork:
    """The network of this name.

    Args:
        name: `timm/vit_tiny_patch16_224`, with or without timm's tag of weights; `transformers/FOLDER`, a folder that
            `save_pretrained` has written, or with its `config.json` alone; `torchvision/resnet50`, or `resnet50`.
        weights: "DEFAULT" for the source's own (of torchvision also another of its names), which torchvision and timm
            download unless they have them, and transformers reads from the folder; the path of a state dict; None or
            "random" for random ones, with torchvision's or timm's preprocessing of its own weights.
        num_classes: Number of outputs; None for the source's own, as with its own weights unless there is a new head.
        new_head: Whether weights for another number of outputs will do: those of the last layer stay random then.

    Raises:
        ImportError: if the package is not installed; with the command that installs it.
        ValueError: if there is no such network, or no such weights; if they do not fit, or cannot be had; if pictures
            are prepared in a way that is not ours.
    """
    source, _, rest = name.partition("/")
    makers: dict[str, Callable[[str, str | None], _Source]] = {
        "torchvision": _of_torchvision,
        "timm": _of_timm,
        "transformers": _of_transformers,
    }
    random = weights in (None, "random")
    file = None if random or not Path(str(weights)).expanduser().is_file() else weights
    maker, own = (makers[source], rest) if source in makers else (_of_torchvision, name)
    known = maker(own, None if random or file else weights)
    if random or file is not None:
        network = known.build(False, num_classes)
        if file is not None:
            load_weights_file(network, file, num_classes if new_head else None)
        return NamedNetwork(network, known.preprocessing, None)
    network = known.build(True, None)
    if num_classes is None or not new_head:
        return NamedNetwork(network, known.preprocessing, known.class_names)
    other = known.build(False, num_classes)
    kept = load_state(other, network.state_dict(), f"the weights of {name}", num_classes)
    return NamedNetwork(other, known.preprocessing, known.class_names if kept else None)


def preprocessing_of(network: nn.Module) -> Preprocessing | None:
    """What a network says itself that was built by its class; timm's do."""
    described = getattr(network, "pretrained_cfg", None)
    return _timms_preprocessing(described) if isinstance(described, Mapping) and "input_size" in described else None


def _of_torchvision(name: str, weights: str | None) -> _Source:
    known = torchvision_weights(name)
    published = published_weights(known, weights)

    def build(trained: bool, num_classes: int | None) -> nn.Module:
        return torchvision_network(name, published if trained else None, num_classes or 1000)

    names = None if published is None else tuple(published.meta["categories"])
    return _Source(build, described_preprocessing(published or known.DEFAULT), names)


def _of_timm(name: str, weights: str | None) -> _Source:
    timm = _package("timm", name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        similar = get_close_matches(architecture, timm.list_models()) or timm.list_models()
        raise ValueError(f"`network`: timm has no {architecture!r}; it has {', '.join(similar[:5])}, ...")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tags:
        raise ValueError(
            f"`network`: timm has no weights {tag!r} of {architecture}; it has {', '.join(tags) or 'none'}."
        )
    if weights not in (None, "DEFAULT"):
        raise ValueError(_no_weights(weights))
    described = timm.get_pretrained_cfg(name).to_dict()

    def build(trained: bool, num_classes: int | None) -> nn.Module:
        given = {} if num_classes is None else {"num_classes": num_classes}
        return _had(lambda: timm.create_model(name, pretrained=trained, **given), f"timm/{name}")

    subset, names = timm.data.infer_imagenet_subset(described), None
    if subset is not None:
        known = timm.data.ImageNetInfo(subset).label_descriptions()
        names = tuple(ResNet18_Weights.DEFAULT.meta["categories"] if subset == "imagenet-1k" else known)
    return _Source(build, _timms_preprocessing(described), names)


def _timms_preprocessing(described: Mapping[str, Any]) -> Preprocessing:
    """As timm's `create_transform` makes it of this configuration for evaluation."""
    (channels, height, width), mode = described["input_size"], described.get("crop_mode") or "center"
    if channels != 3 or height != width or mode not in ("center", "squash"):
        raise ValueError(
            f"`network`: timm prepares its pictures as {height} x {width} pixels of {channels} channels with the "
            f"`crop_mode` {mode!r}; only squares of three channels, by `center` or `squash`, are. Choose another one."
        )
    return Preprocessing(
        height,
        int(height / (described.get("crop_pct") or 0.875)),
        tuple(described["mean"]),
        tuple(described["std"]),
        described.get("interpolation") or "bicubic",
        mode == "squash",
    )


def _of_transformers(folder: str, weights: str | None) -> _Source:
    transformers = _package("transformers", folder)
    path = Path(folder).expanduser()
    if not (path / "config.json").is_file():
        raise ValueError(
            f"`network`: transformers/FOLDER names a folder with a `config.json`, as `save_pretrained` writes it; "
            f"there is none in {path.absolute()}. Of a model on a hub make one: `hf download NAME --local-dir FOLDER`."
        )
    if weights not in (None, "DEFAULT"):
        raise ValueError(_no_weights(weights))
    local = {"local_files_only": True, "trust_remote_code": False}
    config = _had(lambda: transformers.AutoConfig.from_pretrained(path, **local), str(path))

    def build(trained: bool, num_classes: int | None) -> nn.Module:
        maker = transformers.AutoModelForImageClassification
        if trained:
            return _had(lambda: maker.from_pretrained(path, **local), str(path)).train()
        given = {} if num_classes is None else {"num_labels": num_classes}
        return _had(lambda: maker.from_config(transformers.AutoConfig.from_pretrained(path, **local, **given)), folder)

    names = tuple(config.id2label[place] for place in sorted(config.id2label))
    named = not all(name.startswith("LABEL_") for name in names)
    size = getattr(config, "image_size", None)
    preparation = changed(Preprocessing(), size if isinstance(size, int) else None)
    if (path / "preprocessor_config.json").is_file():
        processor = transformers.AutoImageProcessor.from_pretrained(path, **local)
        preparation = _processors_preprocessing(processor, preparation, str(path))
    return _Source(build, preparation, names if named else None)


def _processors_preprocessing(processor: Any, default: Preprocessing, path: str) -> Preprocessing:
    """What an image processor of transformers does, compared with it on a picture."""
    given = processor.to_dict()
    size, crop = dict(given.get("size") or {}), dict(given.get("crop_size") or {})
    asked: int = size.get("shortest_edge") or size.get("height") or default.image_size
    squash = "shortest_edge" not in size
    side: int = crop.get("height", asked) if given.get("do_center_crop") else asked
    if share := given.get("crop_pct"):  # ConvNeXt's
        squash, asked = asked >= 384, asked if asked >= 384 else int(asked / share)
    normal, resampling = given.get("do_normalize"), given.get("resample")
    found = Preprocessing(
        side,
        asked,
        tuple(given["image_mean"]) if normal else (0.0,) * 3,
        tuple(given["image_std"]) if normal else (1.0,) * 3,
        _RESAMPLING.get(2 if resampling is None else int(resampling), cast(Any, "of another kind")),
        squash,
    )
    ramp = np.linspace(0, 255, 2 * asked).astype(np.uint8)  # smooth, so that any resizing gives about the same
    levels = np.stack(np.broadcast_arrays(ramp, ramp[: 3 * asked // 2, None], ramp[::-1]), -1)
    theirs = processor(Image.fromarray(levels), return_tensors="pt")["pixel_values"][0]
    ours = found(Image.fromarray(levels))
    scale = 255 * torch.tensor(found.std).view(3, 1, 1)
    most = _LEVELS + 1.5 * 255 / asked  # the center of an odd rest is a matter of taste
    if theirs.shape != ours.shape or (((theirs - ours) * scale).abs() > most).any():
        raise ValueError(
            f"`network`: {type(processor).__name__} in {path} prepares pictures in a way that is not known here; "
            f"{json.dumps({name: value for name, value in given.items() if name.startswith('do_')})}. Give the network "
            "by its class, `class_path`, and `image_size`, `mean` and `std`."
        )
    return found


def _package(name: str, network: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`network`: {name}/{network} needs the package {name}: pip install 'lightning-xai[{name}]'"
        ) from error


def _had(build: Callable[[], Any], name: str) -> Any:
    """What is built, unless weights are missing; what a downloader raises is its own affair."""
    try:
        return build()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"`network`: {name} could not be had ({reason}). Give the path of a state dict as `weights`, or null for "
            "random ones."
        ) from error


def _no_weights(weights: str | None) -> str:
    return (
        f"`weights` must be DEFAULT, the path of a state dict, or null for random ones; got {weights!r}, and there is "
        "no such file."
    )
