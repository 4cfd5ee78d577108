"""One order in which the bounds, the names and the shape of a network's inputs are asked for, wherever they are."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule, Trainer
from torch.testing import assert_close
from torch.utils.data import DataLoader

from lightning_xai.callbacks import AttributionCallback, RandomizationCallback
from lightning_xai.cli.checks import check_fits_data
from lightning_xai.data import DigitsDataModule, PhotographsDataModule
from lightning_xai.data.input_space import InputSpace
from lightning_xai.experiments.pictures import Preparation
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.modules import ClassifierModule, PretrainedClassifier
from lightning_xai.networks import LeNet
from lightning_xai.studies.networks import TrainedNetwork

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*isinstance.treespec", "ignore:.*sync_dist"
)


@dataclass
class Owner:
    bounds: Any = None
    class_names: Any = None
    image_shape: Any = None


class OwnBounds(ClassifierModule):
    """A module that knows what its data do not say."""

    bounds = (0.0, 1.0)


class Unbounded(LightningDataModule):
    """Data that say nothing."""

    def test_dataloader(self) -> DataLoader:
        images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        return DataLoader(list(zip(images, torch.arange(3), strict=True)), batch_size=3)


def pretrained(size=20, **options):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return PretrainedClassifier(network, image_size=size, resize_size=24, **options)


def test_what_is_given_comes_first_then_the_data_then_the_module():
    model, data = Owner((0, 1), ("m",), (1, 2, 3)), Owner((0, 2), ("d",), [4, 5, 6])
    assert InputSpace(model, data).completed(Conditions((0, 3))).bounds == (0, 3)
    space = InputSpace(model, data)
    assert (space.bounds, space.class_names, space.shape) == ((0, 2), ("d",), (4, 5, 6))
    for silent in (Owner(), None, object()):
        space = InputSpace(model, silent)
        assert (space.bounds, space.class_names, space.shape) == ((0, 1), ("m",), (1, 2, 3))
    space = InputSpace(object(), Owner())
    assert (space.bounds, space.class_names, space.shape, space.preparer) == (None, None, None, None)


def test_pictures_are_of_the_space_of_the_network_that_they_are_prepared_for():
    model, data = pretrained(mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.3]), PhotographsDataModule()
    space = InputSpace(model, data)
    assert space.shape == (3, 20, 20)
    assert data.image_shape == (3, 224, 224), "to ask changes nothing"
    assert_close(space.bounds, model.bounds, rtol=0, atol=0)
    assert InputSpace(model).shape == (3, 20, 20)
    assert space.preparer is model
    with pytest.raises(ValueError, match="`mean` must be what the network was trained with"):
        InputSpace(model, PhotographsDataModule(mean=[0.1, 0.1, 0.1])).bounds  # noqa: B018


def test_bounds_of_pictures_are_those_of_whoever_prepares_them():
    model, data = pretrained(), DigitsDataModule()
    preparation = Preparation.of(model, data)
    assert preparation.inputs(Image.new("RGB", (30, 30))).shape == (1, 28, 28)
    assert_close(preparation.bounds, data.bounds, rtol=0, atol=0)
    preparation = Preparation.of(model, Owner(bounds=(0.0, 9.0)))
    assert_close(preparation.bounds, model.bounds, rtol=0, atol=0)


def test_a_property_that_raises_is_no_answer():
    class Unready(Owner):
        @property
        def bounds(self):
            raise RuntimeError("call setup first")

        @bounds.setter
        def bounds(self, value):
            pass

    with pytest.raises(RuntimeError, match="call setup first"):
        InputSpace(None, Unready()).bounds  # noqa: B018


@pytest.mark.parametrize("module", [OwnBounds, ClassifierModule])
def test_both_callbacks_have_adaptgrad_where_the_module_knows_its_bounds(module, tmp_path, recwarn):
    attribution = AttributionCallback(num_samples=2, panel_size=0, controls=False)
    randomization = RandomizationCallback(num_samples=2, repeats=1, similarities=["spearman"])
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=[attribution, randomization], default_root_dir=tmp_path, **quiet)
    trainer.test(module(LeNet()), Unbounded(), verbose=False)
    known = module is OwnBounds
    assert ("adapt_grad" in attribution.evaluation.scores) == known
    assert ("sanity/adapt_grad/spearman" in randomization.scores) == known
    assert any("leaves AdaptGrad" in str(warning.message) for warning in recwarn) != known
    bounds = TrainedNetwork(module(LeNet()), Unbounded(), 1.0, {}).bounds
    assert bounds == (torch.tensor((0.0, 1.0)).unbind() if known else None)


def test_a_network_for_other_images_is_refused():
    with pytest.raises(ValueError, match=r"`network` \(LeNet\) does not accept images of shape \(3, 28, 28\)"):
        check_fits_data(ClassifierModule(LeNet()), Owner(image_shape=(3, 28, 28)))
