"""The networks of a study, each with its samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_xai.callbacks.samples import Samples
from lightning_xai.carried import carried_file
from lightning_xai.experiments.networks import TrainedNetwork
from lightning_xai.experiments.papers.lab import Lab, described
from lightning_xai.experiments.papers.photographs import is_pretrained, photographs, pretrained_network
from lightning_xai.studies.study import Study


@dataclass(frozen=True)
class Subject:
    """A network and what it is asked about.

    Attributes:
        network: With its data, where it was trained here.
        model: On the lab's device, in evaluation mode.
        bounds: Least and greatest value of an input element; None if unknown.
        samples: By mask; under "" without one.
        target: (samples,) classes that are explained.
        pictures: Name, class and probability of each picture; empty for samples of a data set.
        class_names: Of the outputs; None if they have none.
        settings: What it is, for the settings of a result.
    """

    network: TrainedNetwork | None
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
    number = study.num_samples or len(_all(network))
    samples = {mask: lab.samples(network, number, mask=mask or None) for mask in study.masks or [""]}
    first = next(iter(samples.values()))
    target = first.labels if study.target == "label" else None
    names = getattr(network.data, "class_names", None)
    settings = described({name: network})[name]
    return Subject(network, network.model, network.bounds, samples, target, (), names, settings)


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
        if is_pretrained(lab, source):
            if study.masks or study.level_samples:
                raise ValueError(
                    f"`networks`: {name} was trained by others and sees pictures without masks and labels; it goes with"
                    " no `masks` and no `level_samples`."
                )
        else:
            lab.require([source], study.changes, study.masks)


def _of_pictures(lab: Lab, study: Study, source: str, weights: str | None) -> Subject:
    network = pretrained_network(lab, source, weights)
    seen = photographs(lab, network, study.images, study.num_samples)
    samples = Samples(seen.images, None, seen.index, None)
    pictures = tuple(zip(seen.names, seen.classes, seen.probability.tolist(), strict=True))
    names = network.class_names
    return Subject(None, network.model, network.bounds, {"": samples}, seen.target, pictures, names, network.settings)


def _all(network: TrainedNetwork) -> Any:
    network.data.setup("test")
    return network.data.test_dataloader().dataset
