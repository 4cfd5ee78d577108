"""The networks of a study, each with its samples."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_xai.callbacks.samples import Samples
from lightning_xai.carried import carried_file
from lightning_xai.experiments.pictures import probabilities
from lightning_xai.modules.checkpoints import check_weights_fit, read_checkpoint
from lightning_xai.reporting.noise_level import NoiseLevel
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.networks import TrainedNetwork, instantiated, parsed
from lightning_xai.studies.photographs import (
    Picture,
    PretrainedNetwork,
    is_pretrained,
    photographs,
    pretrained_network,
    voc,
)
from lightning_xai.studies.study import VOC, Study

_LEAST = 20
_TOLERANCE = 0.002
"""Of the level; large networks bear little noise."""


@dataclass(frozen=True)
class Subject:
    """A network and what it is asked about.

    Attributes:
        network: On the lab's device, in evaluation mode.
        level: Of the weight noise that costs 5 % of its accuracy, if the study asks for it.
        samples: By mask; under "" without one.
        target: (samples,) classes that are explained.
        pictures: What they are; empty for samples of a data set.
    """

    network: TrainedNetwork | PretrainedNetwork
    level: NoiseLevel | None
    samples: Mapping[str, Samples]
    target: Tensor | None
    pictures: tuple[Picture, ...]

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
        if pretrained and "ckpt_path" in given:
            raise ValueError(f"`networks`: {name} was trained by others and takes `weights`, got a `ckpt_path`.")
        if pretrained and study.masks and study.images != VOC:
            raise ValueError(
                f"`masks`: {name} was trained by others and sees pictures without masks, but for `images: voc`."
            )
        if pretrained:
            continue
        if "weights" in given:
            raise ValueError(f"`networks`: {name} takes a `ckpt_path`, got a `weights`.")
        lab.require([source], study.changes, study.masks)
        if "ckpt_path" in given:
            path = carried_file("checkpoints", given["ckpt_path"])
            model = instantiated(parsed(lab.config(source, study.changes))).model
            check_weights_fit(read_checkpoint(path), model, path)


def subject(lab: Lab, study: Study, name: str) -> Subject:
    """The network of this name in the study, trained or loaded, with the study's samples."""
    given = study.named_networks[name]
    source = given.get("config", name)
    if is_pretrained(lab, source):
        ready = pretrained_network(lab, source, given.get("weights"), study.image_size)
        samples, pictures = _pictures(lab, study, ready, study.num_samples)
        return Subject(ready, _level(lab, study, ready), samples, next(iter(samples.values())).labels, pictures)
    network = lab.network(source, study.changes, ckpt_path=given.get("ckpt_path"))
    samples = {mask: lab.samples(network, study.num_samples, mask=mask or None) for mask in study.masks or [""]}
    first = next(iter(samples.values()))
    if study.target == "label" and first.labels is None:
        raise ValueError(f"`target`: the data of {name} have no labels. Give `target: prediction`.")
    target = first.labels if study.target == "label" else predicted(lab, network.model, first.images)
    return Subject(network, _level(lab, study, network), samples, target, ())


def predicted(lab: Lab, model: nn.Module, images: Tensor) -> Tensor:
    """The classes that the network predicts."""
    return probabilities(model, images, lab.precision).argmax(1)


def _pictures(
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
    samples = next(iter(_pictures(lab, study, network, study.level_samples)[0].values()))
    if len(samples.images) < _LEAST:
        raise ValueError(
            f"`weight_noise` must be given: to find the level that costs 5 % takes {_LEAST} pictures or more, of which "
            f"one is 5 %, and there are {len(samples.images)}."
        )
    return lab.noise_level(network, samples, tolerance=_TOLERANCE)
