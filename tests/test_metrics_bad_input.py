"""What cannot be scored is refused by every metric that would need it, with an error that says what to do."""

from inspect import signature
from typing import Any

import jaxtyping
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchmetrics import MetricCollection

import lightning_xai.metrics
from lightning_xai import evaluate
from lightning_xai.explainers import Context, Gradient
from lightning_xai.metrics import SampleMetric

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(5, 3, 8, 8, generator=GENERATOR)
MAPS = torch.randn(5, 3, 8, 8, generator=GENERATOR)
MASKS = torch.rand(5, 8, 8, generator=GENERATOR) < 0.3
TARGET = torch.tensor([0, 1, 2, 3, 0])
SETTINGS = {
    "FaithfulnessCorrelation": {"num_subsets": 3, "subset_size": 5},
    "Infidelity": {"num_draws": 2, "square_size": 3},
    "InformationLevel": {"min_score": 0.0},
    "TopKIntersection": {"k": 5},
}
EXPORTED = {name: getattr(lightning_xai.metrics, name) for name in lightning_xai.metrics.__all__}
CLASSES = {n: c for n, c in EXPORTED.items() if isinstance(c, type) and issubclass(c, SampleMetric)}
del CLASSES["SampleMetric"]


def that_take(*parameters: str) -> list[str]:
    return [name for name, c in CLASSES.items() if {*parameters} <= signature(c.update).parameters.keys()]


OF_ELEMENTS = ["AverageSensitivity", "Infidelity", "LocalLipschitz", "MaxSensitivity"]
OF_PIXELS = [name for name in CLASSES if name not in OF_ELEMENTS]
RUN_THE_MODEL = that_take("model")
NEED_A_MASK = that_take("mask")


@pytest.fixture(autouse=True)
def no_type_checker(monkeypatch):
    """A user's session has none: the package's own checks have to speak."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def context(number: int = 5) -> Context:
    return Context.create(torch.arange(number), bounds=(0.0, 1.0))


def score(name: str, model: nn.Module, attributions: torch.Tensor = MAPS, settings: Any = None, **wrong: Any) -> Any:
    given = {"inputs": IMAGES, "target": TARGET, "mask": MASKS, "index": torch.arange(5), "context": context()} | wrong
    metric = CLASSES[name](**SETTINGS.get(name, {}) | (settings or {}))
    others = {"model": model, "explainer": Gradient(), "noise_std": None, "bounds": context().bounds}
    MetricCollection(metric, compute_groups=False).update(attributions, **given, **others)
    return metric.per_sample()[1]


def test_which_metrics_need_what():
    """The lists below are made of signatures: they must not be empty."""
    assert {"FaithfulnessCorrelation", "PixelFlipping", "Infidelity", "MaxSensitivity"} <= set(RUN_THE_MODEL)
    assert {"RelevanceRankAccuracy", "TopKIntersection", "PointingGame"} <= set(NEED_A_MASK)


# Attributions


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "InherentNoise"])
def test_attributions_without_a_channel_axis(model, name):
    with pytest.raises(ValueError, match=r"`attributions` must have the shape .*got \(5, 8, 8\)"):
        score(name, model, MAPS.sum(1))


@pytest.mark.parametrize("name", OF_PIXELS)
def test_channels_may_be_summed_where_pixels_are_scored(model, name):
    assert_close(score(name, model, MAPS.sum(1, keepdim=True)), score(name, model), equal_nan=True)


@pytest.mark.parametrize("name", OF_ELEMENTS)
def test_channels_may_not_be_summed_where_elements_are_scored(model, name):
    with pytest.raises(ValueError, match=r"`attributions` must have the shape of `inputs`.*got \(5, 1, 8, 8\)"):
        score(name, model, MAPS.sum(1, keepdim=True))


def test_nor_where_a_setting_asks_for_elements(model):
    with pytest.raises(ValueError, match=r"`attributions` must have the shape of `inputs`.*got \(5, 1, 8, 8\)"):
        score("FaithfulnessCorrelation", model, MAPS.sum(1, keepdim=True), {"per_value": True})


@pytest.mark.parametrize("name", RUN_THE_MODEL)
@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 1, 1), (3, 8, 1), (8, 8, 3)])
def test_attributions_of_another_size_than_the_inputs(model, name, shape):
    with pytest.raises(ValueError, match=r"`attributions` must have the (shape|pixels)"):
        score(name, model, torch.ones(5, *shape))


@pytest.mark.parametrize("name", NEED_A_MASK)
def test_attributions_of_another_size_than_the_mask(model, name):
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(5, 4, 4\).*got \(5, 8, 8\)"):
        score(name, model, torch.ones(5, 3, 4, 4), inputs=None)


# Other samples


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("number", [1, 3])
def test_indices_of_other_samples(model, name, number):
    with pytest.raises(ValueError, match=rf"`index` must have one entry for each of the 5 samples.*\({number},\)"):
        score(name, model, index=torch.arange(number))


@pytest.mark.parametrize("name", that_take("inputs"))
@pytest.mark.parametrize("number", [1, 3])
def test_attributions_of_other_samples(model, name, number):
    with pytest.raises(ValueError, match="`attributions` must have"):
        score(name, model, MAPS[:number])


@pytest.mark.parametrize("name", NEED_A_MASK)
@pytest.mark.parametrize("number", [1, 3])
def test_masks_of_other_samples(model, name, number):
    with pytest.raises(ValueError, match=rf"`mask` must have the shape \(5, 8, 8\).*got \({number}, 8, 8\)"):
        score(name, model, mask=MASKS[:number])


@pytest.mark.parametrize("name", RUN_THE_MODEL)
@pytest.mark.parametrize("number", [1, 3])
def test_classes_of_other_samples(model, name, number):
    with pytest.raises(ValueError, match=f"`target` must have one entry for each of the 5 samples.*got {number}"):
        score(name, model, target=TARGET[:number])


@pytest.mark.parametrize("name", RUN_THE_MODEL)
@pytest.mark.parametrize("number", [1, 3])
def test_contexts_of_other_samples(model, name, number):
    """One of a single sample would broadcast: the same randomness for all."""
    with pytest.raises(ValueError, match=f"`context` must have one entry for each of the 5 samples.*got {number}"):
        score(name, model, context=context(number))


# Values


@pytest.mark.parametrize("name", RUN_THE_MODEL)
@pytest.mark.parametrize("wrong", [-1, 4])
def test_classes_that_the_model_does_not_have(model, name, wrong):
    with pytest.raises(ValueError, match=r"`target` must be in 0 .. 3, the outputs of `model`"):
        score(name, model, target=torch.tensor([0, 1, wrong, 3, 0]))


@pytest.mark.parametrize("name", NEED_A_MASK)
def test_data_without_masks(model, name):
    metrics = {"mine": CLASSES[name](**SETTINGS.get(name, {}))}
    with pytest.raises(ValueError, match=rf"`metrics`: 'mine' \({name}\) needs `mask`, which these data do not have"):
        evaluate(model, IMAGES, TARGET, {"gradient": Gradient()}, metrics)
