"""The networks of a study, each with its samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_xai.callbacks.samples import Samples
from lightning_xai.carried import carried_file
from lightning_xai.data.input_space import InputSpace
from lightning_xai.experiments.noise_level import find_noise_level
from lightning_xai.experiments.pictures import probabilities
from lightning_xai.explainers.precision import in_precision
from lightning_xai.modules.checkpoints import read_checkpoint
from lightning_xai.results.noise_level import NoiseLevel
from lightning_xai.studies.lab import Lab, described
from lightning_xai.studies.photographs import PretrainedNetwork, is_pretrained, photographs, pretrained_network, voc
from lightning_xai.studies.study import VOC, Study


@dataclass(frozen=True)
class Subject:
    """A network and what it is asked about.

    Attributes:
        accuracy: On its test samples; None if others trained it.
        level: Of the weight noise that costs 5 % of its accuracy, if the study asks for it.
        model: On the lab's device, in evaluation mode.
        bounds: Least and greatest value of an input element; None if unknown.
        samples: By mask; under "" without one.
        target: (samples,) classes that are explained.
        pictures: Name, class and probability of each picture; empty for samples of a data set.
        class_names: Of the outputs; None if they have none.
        settings: What it is, for the settings of a result.
    """

    accuracy: float | None
    level: NoiseLevel | None
    model: nn.Module
    bounds: tuple[Tensor, Tensor] | None
    samples: Mapping[str, Samples]
    target: Tensor | None
    pictures: tuple[tuple[str, str, float], ...]
    class_names: Any
    settings: Mapping[str, Any]


def subject(lab: Lab, study: Study, name: str) -> Subject:
    """The network of this name in the study, trained or loaded, with the study's samples."""
    given = study.named_networks[name]
    source = given.get("config", name)
    if is_pretrained(lab, source):
        return _of_pictures(lab, study, source, given.get("weights"))
    network = lab.network(source, study.changes, ckpt_path=given.get("ckpt_path"))
    number = _level_samples(study)
    level = None if number is None else lab.noise_level(network, number)
    samples = {mask: lab.samples(network, study.num_samples, mask=mask or None) for mask in study.masks or [""]}
    first = next(iter(samples.values()))
    if study.target == "label" and first.labels is None:
        raise ValueError(f"`target`: the data of {name} have no labels. Give `target: prediction`.")
    target = first.labels if study.target == "label" else predicted(lab, network.model, first.images)
    names = InputSpace(network.model, network.data).class_names
    settings = described({name: network})[name]
    return Subject(network.accuracy, level, network.model, network.bounds, samples, target, (), names, settings)


def predicted(lab: Lab, model: nn.Module, images: Tensor) -> Tensor:
    """The classes that the network predicts."""
    return probabilities(model, images, lab.precision).argmax(1)


def _level_samples(study: Study) -> int | None:
    """Of the search for a level; None where none is looked for."""
    return study.level_samples if study.weight_noise is None else None


def require(lab: Lab, study: Study) -> None:
    """Refuse what is missing before any network is trained.

    Raises:
        ValueError: naming it.
    """
    for name, given in study.named_networks.items():
        if unknown := given.keys() - {"config", "ckpt_path", "weights"}:
            raise ValueError(
                f"`networks`: {name} has {', '.join(sorted(unknown))}; there are config, ckpt_path and weights."
            )
        source, checkpoint = given.get("config", name), given.get("ckpt_path")
        if checkpoint is not None and not Path(carried_file("checkpoints", checkpoint)).is_file():
            raise ValueError(f"`networks`: the `ckpt_path` of {name}, {checkpoint}, is no file.")
        other = "ckpt_path" if is_pretrained(lab, source) else "weights"
        if given.get(other) is not None:
            kind = "was trained by others and takes `weights`" if other == "ckpt_path" else "takes a `ckpt_path`"
            raise ValueError(f"`networks`: {name} {kind}, got a `{other}`.")
        if checkpoint is not None:
            read_checkpoint(carried_file("checkpoints", checkpoint))
        if is_pretrained(lab, source):
            if study.masks and study.images != VOC:
                raise ValueError(
                    f"`masks`: {name} was trained by others and sees pictures without masks, but for `images: voc`."
                )
        else:
            lab.require([source], study.changes, study.masks)


def _of_pictures(lab: Lab, study: Study, source: str, weights: str | None) -> Subject:
    network = pretrained_network(lab, source, weights, study.image_size)
    samples, pictures = _pictures(lab, study, network, study.num_samples)
    number = _level_samples(study)
    level = None if number is None else _level(lab, study, network, number)
    target, names = next(iter(samples.values())).labels, network.class_names
    return Subject(None, level, network.model, network.bounds, samples, target, pictures, names, network.settings)


def _pictures(
    lab: Lab, study: Study, network: PretrainedNetwork, number: int | None
) -> tuple[dict[str, Samples], tuple[tuple[str, str, float], ...]]:
    """By mask, and what is in them; the labels are the classes that are explained."""
    if study.images == VOC and not lab.embedded:
        return {mask: voc(lab, network, number, mask or "object") for mask in study.masks or [""]}, ()
    seen = photographs(lab, network, None if study.images == VOC else study.images, number)
    pictures = tuple(zip(seen.names, seen.classes, seen.probability.tolist(), strict=True))
    return {"": Samples(seen.images, seen.target, seen.index, None)}, pictures


def _level(lab: Lab, study: Study, network: PretrainedNetwork, number: int) -> NoiseLevel:
    """The paper's rule; where the pictures have no labels that the network knows, its own decisions are the truth."""
    found, _ = _pictures(lab, study, network, number)
    samples = next(iter(found.values()))
    if len(samples.images) < _LEAST:
        raise ValueError(
            f"`weight_noise` must be given: to find the level that costs 5 % takes {_LEAST} pictures or more, of which "
            f"one is 5 %, and there are {len(samples.images)}."
        )
    options = {"tolerance": _TOLERANCE, "seed": lab.seed, "progress": lab.progress}
    with in_precision(network.model, lab.precision):
        return find_noise_level(network.model, samples.images, samples.labels, **options)  # type: ignore[arg-type]


_LEAST = 20
_TOLERANCE = 0.002
"""Of the level; large networks bear little noise."""
