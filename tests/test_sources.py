"""Networks by name, of torchvision, timm and transformers, and those of other libraries by their class."""

import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from torch.testing import assert_close
from torchvision.models import ResNet18_Weights, resnet18, squeezenet1_1

import lightning_xai as lx
from lightning_xai.cli import main
from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.modules import ClassifierModule, PretrainedClassifier
from lightning_xai.modules.sources import named_network

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of these libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


def picture(size=(70, 50), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def smooth(size=(70, 50)):
    across, down = (np.linspace(0, 255, side) for side in size)
    levels = np.stack(np.broadcast_arrays(across, down[:, None], across[::-1]), -1)
    return Image.fromarray(levels.astype(np.uint8))


class Data:
    """As much of a data module as a network is fitted to."""

    image_shape = (3, 32, 32)

    def __init__(self, num_classes, trains=True):
        self.num_classes, self.trains = num_classes, trains


# timm


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224", "vit_base_patch32_384", "convnext_atto"])
def test_timms_pictures_are_prepared_as_timm_does_bit_for_bit(timm, name):
    from lightning_xai.modules.sources import _timms_preprocessing

    described = timm.get_pretrained_cfg(name).to_dict()
    expected = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=described))
    found = _timms_preprocessing(described)
    for image in (picture((300, 420)), picture((500, 260))):
        assert_close(found(image), expected(image), rtol=0, atol=0)
    squashed = described | {"crop_mode": "squash"}
    expected = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=squashed))
    assert_close(_timms_preprocessing(squashed)(image), expected(image), rtol=0, atol=0)


def test_timms_network_comes_with_its_bounds_and_classes(timm, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **given: asked.append(pretrained) or own)
    with isolate_rng():
        own = timm.models.test_vit()
    model = PretrainedClassifier("timm/test_vit.r160_in1k")
    assert (asked, model.num_classes) == ([True], 1000)
    assert model.class_names == tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    assert_close(model.bounds, lx.bounds(timm.data.resolve_data_config(model=own)), rtol=0, atol=0)
    random = PretrainedClassifier("timm/test_vit", "random", image_size=160)
    assert (asked[1:], random.class_names, random.preprocessing) == ([False], None, model.preprocessing)
    torch.save(own.state_dict(), tmp_path / "weights.pt")
    loaded = PretrainedClassifier("timm/test_vit", str(tmp_path / "weights.pt"))
    assert_close(loaded.network.state_dict(), own.state_dict(), rtol=0, atol=0)
    assert PretrainedClassifier(own, None).preprocessing == model.preprocessing  # built by its class


def test_what_timm_does_not_have(timm, monkeypatch):
    with pytest.raises(ValueError, match=r"`network`: timm has no 'vit_tny_patch16_224'; it has vit_tiny_patch16_224"):
        named_network("timm/vit_tny_patch16_224")
    with pytest.raises(ValueError, match=r"timm has no weights 'mine' of test_vit; it has test_vit\.r160_in1k"):
        named_network("timm/test_vit.mine")
    with pytest.raises(
        ValueError, match=r"`weights` must be DEFAULT, the path of .*; got 'nowhere.pt', and there is no"
    ):
        named_network("timm/test_vit", "nowhere.pt")

    def fail(*args, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        ValueError, match=r"timm/test_vit could not be had \(no route to host\). Give the path of a stat"
    ):
        named_network("timm/test_vit", "DEFAULT")
    described = timm.get_pretrained_cfg("test_resnet")
    described.input_size = (3, 384, 128)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: described)
    with pytest.raises(ValueError, match=r"as 384 x 128 pixels of 3 channels.*only squares of three channels"):
        named_network("timm/test_resnet")


# transformers

CLASSES = ("tench", "cock", "hen")


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def saved(transformers, tmp_path_factory):
    """A folder that `save_pretrained` has written, and the network."""
    folder = tmp_path_factory.mktemp("vit")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: n for n, name in enumerate(CLASSES)}}
    with isolate_rng():
        torch.manual_seed(7)
        network = transformers.ViTForImageClassification(
            transformers.ViTConfig(image_size=32, patch_size=8, **small, **names)
        )
    network.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder, network.eval()


def test_a_folder_of_transformers_brings_weights_pictures_bounds_and_names(saved, transformers):
    folder, network = saved
    model = PretrainedClassifier(f"transformers/{folder}").eval()
    assert model.class_names == CLASSES
    assert model.preprocessing == Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3, "bilinear", squash=True)
    assert_close(model.network.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert_close(model.bounds, lx.bounds([0.5] * 3, [0.5] * 3))
    images = model.preprocess(picture())[None]
    assert_close(model(images), network(images).logits)
    maps = lx.explain(model, images, 1, method=lx.Gradient())
    images.requires_grad_()
    assert_close(maps, torch.autograd.grad(network(images).logits[0, 1], images)[0])


def test_without_weights_they_are_random_and_without_a_processor_the_size_is_the_networks(saved, tmp_path):
    (tmp_path / "config.json").write_bytes((saved[0] / "config.json").read_bytes())
    model = PretrainedClassifier(f"transformers/{tmp_path}", None)
    assert (model.class_names, model.num_classes, model.image_size, model.resize_size) == (None, 3, 32, 37)
    assert not torch.equal(model.network.classifier.weight, saved[1].classifier.weight)
    torch.save(saved[1].state_dict(), tmp_path / "weights.pt")
    model = PretrainedClassifier(f"transformers/{tmp_path}", str(tmp_path / "weights.pt"))
    assert_close(model.network.state_dict(), saved[1].state_dict(), rtol=0, atol=0)
    with pytest.raises(
        ValueError, match=r"`network`: .* could not be had \(.*no file named.*as `weights`, or null for"
    ):
        PretrainedClassifier(f"transformers/{tmp_path}")


PROCESSORS = {
    "ViTImageProcessor": {"size": {"height": 24, "width": 24}},
    "CLIPImageProcessor": {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 56}, "crop_pct": 0.875},
    "DeiTImageProcessor": {"size": {"height": 28, "width": 28}, "crop_size": {"height": 24, "width": 24}},
    "BeitImageProcessor": {"size": {"height": 24, "width": 24}, "do_normalize": False},
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pictures_are_prepared_as_transformers_does(saved, transformers, tmp_path, kind):
    processor = getattr(transformers, kind)(**PROCESSORS[kind])
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((saved[0] / "config.json").read_bytes())
    found = named_network(f"transformers/{tmp_path}").preprocessing
    for image in (smooth((84, 56)), smooth((56, 112))):
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        assert_close(found(image), expected, rtol=0, atol=4 / 255 / min(found.std))


def test_what_transformers_does_not_have_or_does_otherwise(saved, transformers, tmp_path):
    with pytest.raises(
        ValueError, match=r"names a folder with a `config.json`.*none in .*google/vit.* `hf download NAME"
    ):
        named_network("transformers/google/vit-base-patch16-224")
    (tmp_path / "config.json").write_bytes((saved[0] / "config.json").read_bytes())
    transformers.LevitImageProcessor().save_pretrained(tmp_path)  # enlarges by 256 / 224 on its own
    with pytest.raises(
        ValueError, match=r"LevitImageProcessor in .* prepares pictures in a way that is not known here"
    ):
        named_network(f"transformers/{tmp_path}")


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_a_missing_package_is_named_with_the_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs the package {package}: pip install 'lightning-xai\[{package}\]'"):
        PretrainedClassifier(f"{package}/test_vit", None)


# Training


def test_a_named_network_gets_an_output_for_each_class_and_keeps_the_weights_of_the_rest(tmp_path):
    torch.manual_seed(0)
    trained = resnet18(num_classes=5).state_dict()
    torch.save(trained, tmp_path / "weights.pt")
    model = ClassifierModule("torchvision/resnet18", weights=str(tmp_path / "weights.pt"), num_classes=5)
    assert_close(model.network.state_dict(), trained, rtol=0, atol=0)
    model = ClassifierModule("resnet18", weights=str(tmp_path / "weights.pt"), num_classes=3)
    found = model.network.state_dict()
    assert found["fc.weight"].shape == (3, 512)
    body = {name: value for name, value in trained.items() if not name.startswith("fc.")}
    assert_close({name: found[name] for name in body}, body, rtol=0, atol=0)
    assert (model.preprocessing.mean, model.preprocessing.image_size) == ((0.485, 0.456, 0.406), 224)
    other = dict(trained)
    del other["conv1.weight"]
    torch.save(other, tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=r"does not fit the `network` \(ResNet\). Parameters 1 missing: `conv1.weight`"
    ):
        ClassifierModule("resnet18", weights=str(tmp_path / "weights.pt"), num_classes=3)


def test_the_number_of_classes_is_the_datas_or_refused_where_it_is_another():
    model = ClassifierModule("resnet18")
    model.fit_to(Data(4))
    network = model.network
    assert network.fc.out_features == 4
    model.fit_to(Data(4))
    assert model.network is network, "trained weights stay"
    given = ClassifierModule("resnet18", num_classes=6)
    with pytest.raises(
        ValueError, match=r"`network` \(ResNet\) has 6 outputs, but the data have 4 classes: set its `num_"
    ):
        given.fit_to(Data(4))
    with pytest.raises(ValueError, match="at least 7"):
        given.fit_to(Data(7))
    given.fit_to(Data(4, trains=False))  # more outputs than classes: an unknown class, say
    with pytest.raises(ValueError, match="`weights` and `num_classes` are those of a named network"):
        ClassifierModule(nn.Flatten(), num_classes=3)


# By their class

MONAI = {
    "class_path": "monai.networks.nets.DenseNet",
    "init_args": {"spatial_dims": 2, "in_channels": 1, "out_channels": 10, "block_config": [1], "init_features": 8},
}
SMP = {
    "class_path": "segmentation_models_pytorch.Unet",
    "init_args": {"encoder_name": "resnet18", "encoder_weights": None, "in_channels": 1, "classes": 10},
}
TIMM = {
    "class_path": "timm.create_model",
    "init_args": {"model_name": "test_resnet"},
    "dict_kwargs": {"in_chans": 1, "num_classes": 10},
}


@pytest.mark.filterwarnings("ignore")  # of these libraries, and of one step of training
@pytest.mark.parametrize("network", [pytest.param(MONAI, marks=pytest.mark.slow), TIMM], ids=["monai", "timm"])
def test_networks_of_other_libraries_train_by_class_path(tmp_path, monkeypatch, network):
    pytest.importorskip(network["class_path"].partition(".")[0])
    callback = {
        "class_path": "lightning_xai.callbacks.AttributionCallback",
        "init_args": {"num_samples": 2, "methods": ["gradient"]},
    }
    run = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "enable_progress_bar": False}
    config = {
        "trainer": {**run, "accelerator": "cpu", "callbacks": [callback], "logger": False},
        "model": {"class_path": "lightning_xai.modules.ClassifierModule", "init_args": {"network": network}},
        "data": {
            "class_path": "lightning_xai.data.DigitsDataModule",
            "init_args": {"batch_size": 4, "image_size": 32},
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    main(["fit", "--config=run.yaml"])
    assert list((tmp_path / "xai" / "panels").glob("*.png"))


def test_a_segmentation_network_is_no_classifier_and_says_so():
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = ClassifierModule(smp.Unet(**SMP["init_args"]))
    data = Data(10)
    data.image_shape = (1, 32, 32)
    with pytest.raises(
        ValueError, match=r"\(Unet\) must return logits of shape \(batch, classes\), but returned \(2, 10"
    ):
        model.fit_to(data)


def test_a_network_named_without_a_number_gets_that_of_the_weights():
    trained = squeezenet1_1(num_classes=3)
    module = ClassifierModule(network="squeezenet1_1")
    state = {f"network.{name}": tensor for name, tensor in trained.state_dict().items()}
    module.fit_to_weights(state)
    module.load_state_dict(state)
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
