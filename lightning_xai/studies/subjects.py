"""The networks of a study, trained or of others, each with its samples."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from pytorch_lightning.cli import instantiate_class
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision import models

from lightning_xai.callbacks.samples import Samples, spread, unpack
from lightning_xai.carried import carried_file
from lightning_xai.data import ImageFolderDataModule, PhotographsDataModule, TruthDataModule, VOCDataModule
from lightning_xai.data.image_folder import PictureDataset
from lightning_xai.data.preprocessing import Preprocessing, changed
from lightning_xai.experiments.pictures import probabilities
from lightning_xai.explainers.base import explaining, resolve_target
from lightning_xai.explainers.precision import in_precision
from lightning_xai.modules import PretrainedClassifier
from lightning_xai.modules.checkpoints import check_weights_fit, read_checkpoint
from lightning_xai.results.noise_level import NoiseLevel
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.networks import TrainedNetwork, callback_options, instantiated, parsed, untrained
from lightning_xai.studies.study import VOC, Study


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network that others trained.

    Attributes:
        model: On the lab's device, in evaluation mode.
        preprocessing: Makes an input of a picture.
        class_names: Class names of the outputs; None if they are not known.
        settings: What it is, for the settings of a result.
        accuracy: Not measured.
    """

    model: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    settings: Mapping[str, Any]
    accuracy: ClassVar[None] = None

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.preprocessing.bounds

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.preprocessing.image_shape


def is_pretrained(lab: Lab, name: str) -> bool:
    """Whether this is a classifier of torchvision, or a configuration of a `PretrainedClassifier`."""
    return name in _TORCHVISIONS or _is_configured(_config(lab, name))


def pretrained_network(
    lab: Lab, name: str, weights: str | None = None, image_size: int | None = None
) -> PretrainedNetwork:
    """The network of this name with its weights; torchvision downloads those that it does not have yet.

    Args:
        name: Name of a classifier of torchvision, or of a configuration of a `PretrainedClassifier`, such as
            `photographs`.
        weights: File with a state dict, or the name of torchvision's weights; None for torchvision's default, or what
            the configuration says.
        image_size: Side of the network's input; None for what it was trained with.

    Raises:
        ImportError: if a package is missing that brings the network.
        ValueError: if there is no such network, or its weights cannot be had.
    """
    if name in _TORCHVISIONS:
        settings: dict[str, Any] = {"network": name, "weights": weights or "DEFAULT"}
        module: Any = PretrainedClassifier(**settings)
    else:
        settings, module = _configured(lab, name, {} if weights is None else {"model.init_args.weights": weights})
    preprocessing = changed(module.preprocessing, image_size)
    return PretrainedNetwork(module.to(lab.device).eval(), preprocessing, module.class_names, settings)


_TORCHVISIONS = frozenset(models.list_models(module=models))


def _configured(lab: Lab, name: str, changes: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The network of a configuration, without its data: others are explained, or none."""
    config = _config(lab, name, changes)
    if not _is_configured(config):
        raise ValueError(
            "`networks` must be classifiers of torchvision, such as resnet50, or configurations of a "
            f"PretrainedClassifier, such as photographs; {name} is the configuration of a network that is trained."
        )
    data = {"class_path": "lightning_xai.data.PhotographsDataModule"}
    try:
        return config["model"], untrained({**config, "data": data})[0]
    except ValueError:
        network = config["model"]["init_args"]["network"]
        if isinstance(network, Mapping):  # its own error says what is wrong, the parser's what it is not
            instantiate_class((), dict(network))
        raise


Picture = tuple[str, str, float]
"""Name of the file without its suffix, name of the predicted class (its index where it has none), its probability."""


def photographs(
    lab: Lab, network: PretrainedNetwork, folder: str | None = None, number: int | None = None
) -> tuple[Samples, tuple[Picture, ...]]:
    """Pictures, prepared for the network, with the classes that it predicts for their labels; and what they are.

    Args:
        folder: With pictures, in subfolders too; None for the eight photographs that installed packages carry.
        number: Number of pictures, evenly spaced; None for all.

    Raises:
        ValueError: if there is no picture in the folder, or one that cannot be used.
    """
    options: dict[str, Any] = asdict(network.preprocessing)
    options |= {name: list(options[name]) for name in ("mean", "std")}
    data: Any = PhotographsDataModule(**options)
    if folder is not None:
        data = ImageFolderDataModule(folder, labeled=False, **options)
    try:
        data.setup()
    except ValueError as error:
        raise ValueError(f"`images`: {error}") from error
    pictures = data.test_dataloader().dataset.pictures
    samples = lab.samples(data, number)
    probability, target = probabilities(network.model, samples.images, lab.precision).max(1)
    names = [pictures[place].path.stem for place in samples.index.tolist()]
    classes = [network.class_names[n] if network.class_names else str(n) for n in target.tolist()]
    return replace(samples, labels=target), tuple(zip(names, classes, probability.tolist(), strict=True))


def voc(lab: Lab, network: PretrainedNetwork, number: int | None, mask: str) -> Samples:
    """Pictures of VOC 2012, prepared for the network, with masks of their main objects.

    The labels are the classes that are explained: that of the main object where the network knows VOC's classes, else
    the one that it predicts.

    Args:
        number: Number of pictures, evenly spaced; None for all.
        mask: `object`, the pixels of the main object, or `box`, its boxes.

    Raises:
        FileNotFoundError: if VOC is missing in the lab's `root` and cannot be downloaded (2 GB).
    """
    data = VOCDataModule(lab.root)
    try:
        data.prepare_data()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Or explain others: `images` takes a folder, or null.") from error
    dataset = PictureDataset(data.find_pictures(network.class_names), network.preprocessing)
    chosen = spread(len(dataset), number or len(dataset)).tolist()
    samples = unpack(default_collate([dataset[place] for place in chosen]), mask=mask)
    images = samples.images.to(lab.device)
    with in_precision(network.model, lab.precision), explaining(network.model):
        target = resolve_target(network.model, images, samples.labels)
    return replace(samples, images=images, labels=target, masks=torch.as_tensor(samples.masks, device=lab.device))


def _config(lab: Lab, name: str, changes: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    try:
        return lab.config(name, changes)
    except ValueError as error:
        raise ValueError(f"torchvision has no classifier {name!r}, and {error}") from error


def _is_configured(config: Mapping[str, Any]) -> bool:
    return config["model"]["class_path"].rpartition(".")[2] == PretrainedClassifier.__name__


# What a study asks

_LEAST = 20
_TOLERANCE = 0.002
"""Of the level; large networks bear little noise."""


@dataclass(frozen=True)
class Subject:
    """A network and what it is asked about.

    Attributes:
        network: On the lab's device, in evaluation mode.
        level: Level of the weight noise that costs 5 % of its accuracy, if the study asks for it.
        samples: By mask; under "" without one.
        target: (samples,) classes that are explained.
        pictures: What they are; empty for samples of a data set.
        proven: How many test samples there are of which the network uses the evidence, and how many in all; None where
            the study does not ask.
    """

    network: TrainedNetwork | PretrainedNetwork
    level: NoiseLevel | None
    samples: Mapping[str, Samples]
    target: Tensor | None
    pictures: tuple[Picture, ...]
    proven: tuple[int, int] | None = None

    @property
    def std(self) -> float | None:
        return None if self.level is None else self.level.std

    @property
    def first(self) -> Samples:
        """With the first mask."""
        return next(iter(self.samples.values()))


def require(lab: Lab, study: Study) -> None:
    """Refuse what is missing before any network is trained.

    Raises:
        ValueError: naming it.
    """
    for name, given in study.named_networks.items():
        source, pretrained = given.get("config", name), is_pretrained(lab, given.get("config", name))
        takes, others = ("`weights`", ["ckpt_path", "changes"]) if pretrained else ("a `ckpt_path`", ["weights"])
        for other in set(others) & given.keys():
            whose = "others" if pretrained else "its configuration"
            raise ValueError(f"`networks`: {name} is trained by {whose} and takes {takes}, got `{other}`.")
        changes = study.changes_of(name)
        if source not in _TORCHVISIONS:
            _check_callback(name, callback_options(lab.config(source, changes)))
        if study.proven and (pretrained or not isinstance(lab.data(source, changes), TruthDataModule)):
            raise ValueError(f"`proven`: the data of {name} must be of known truth, such as TetrominoDataModule.")
        if not pretrained:
            lab.require([source], changes, study.masks)
        elif study.masks and study.images != VOC:
            raise ValueError(
                f"`masks`: {name} was trained by others and sees pictures without masks, but for `images: voc`."
            )
        if "ckpt_path" in given:
            path = carried_file("checkpoints", given["ckpt_path"])
            model = instantiated(parsed(lab.config(source, changes))).model
            check_weights_fit(read_checkpoint(path), model, path)


def _check_callback(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a configuration whose AttributionCallback explains something else than a study can."""
    usual = {"output": "logit", "forward": None, "unpack": None, "channel_dim": 1}
    if others := [option for option, value in usual.items() if options.get(option, value) != value]:
        raise ValueError(
            f"`networks`: the AttributionCallback in the configuration of {name} has {', '.join(map(repr, others))}, "
            "which a study does not know: it explains logits of modules that map images to logits. Use `lightning-xai "
            "evaluate` for this network, or give the study a configuration without."
        )


def subject(lab: Lab, study: Study, name: str) -> Subject:
    """The network of this name in the study, trained or loaded, with the study's samples."""
    given = study.named_networks[name]
    source = given.get("config", name)
    if is_pretrained(lab, source):
        ready = pretrained_network(lab, source, given.get("weights"), study.image_size)
        samples, pictures = pictures_of(lab, study, ready, study.num_samples)
        return Subject(ready, _level(lab, study, ready), samples, next(iter(samples.values())).labels, pictures)
    network = lab.network(source, study.changes_of(name), ckpt_path=given.get("ckpt_path"))
    number = None if study.proven else study.num_samples
    samples = {mask: lab.samples(network, number, mask=mask or None) for mask in study.masks or [""]}
    proven, first = None, next(iter(samples.values()))
    if study.proven:
        places = _proven(lab, network, first, name)
        proven = len(places), len(first.images)
        chosen = places[spread(len(places), study.num_samples or len(places))]
        samples = {mask: part.select(chosen) for mask, part in samples.items()}
        first = next(iter(samples.values()))
    if study.target == "label" and first.labels is None:
        raise ValueError(f"`target`: the data of {name} have no labels. Give `target: prediction`.")
    target = first.labels if study.target == "label" else predicted(lab, network.model, first.images)
    return Subject(network, _level(lab, study, network), samples, target, (), proven)


def _proven(lab: Lab, network: TrainedNetwork, samples: Samples, name: str) -> Tensor:
    """Places of the test samples of which the network uses the evidence."""
    data: Any = network.data
    swapped = data.intervened("test", "swap").__getitems__(range(len(samples.images)))["image"].to(lab.device)
    before, after = (predicted(lab, network.model, images).cpu() for images in (samples.images, swapped))
    places = ((before == torch.as_tensor(samples.labels).cpu()) & (after != before)).nonzero()[:, 0]
    if not len(places):
        raise ValueError(
            f"`proven`: of none of {len(samples.images)} test samples does {name} use the evidence. Train it longer, "
            "or give the evidence a stronger signal."
        )
    return places


def predicted(lab: Lab, model: nn.Module, images: Tensor) -> Tensor:
    """The classes that the network predicts."""
    return probabilities(model, images, lab.precision).argmax(1)


def pictures_of(
    lab: Lab, study: Study, network: PretrainedNetwork, number: int | None
) -> tuple[dict[str, Samples], tuple[Picture, ...]]:
    """By mask, and what is in them; the labels are the classes that are explained."""
    if study.images == VOC and not lab.embedded:
        return {mask: voc(lab, network, number, mask or "object") for mask in study.masks or [""]}, ()
    samples, pictures = photographs(lab, network, None if study.images == VOC else study.images, number)
    return {"": samples}, pictures


def _level(lab: Lab, study: Study, network: TrainedNetwork | PretrainedNetwork) -> NoiseLevel | None:
    """By the paper's rule, if the study asks for it; where pictures have no labels that the network knows, its own
    decisions are the truth."""
    if study.level_samples is None or study.weight_noise is not None:
        return None
    if isinstance(network, TrainedNetwork):
        return lab.noise_level(network, lab.samples(network, study.level_samples, "validate"))
    samples = next(iter(pictures_of(lab, study, network, study.level_samples)[0].values()))
    if len(samples.images) < _LEAST:
        raise ValueError(
            f"`weight_noise` must be given: to find the level that costs 5 % takes {_LEAST} pictures or more, of which "
            f"one is 5 %, and there are {len(samples.images)}."
        )
    return lab.noise_level(network, samples, tolerance=_TOLERANCE)
