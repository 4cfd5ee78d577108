"""Pretrained networks and the pictures that they see, as the experiments of the papers take them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch.testing import assert_close
from torchvision.models import get_model

from lightning_xai.data import PhotographsDataModule
from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.experiments.papers import Lab, adaptgrad_convergence
from lightning_xai.studies.subjects import is_pretrained, photographs, pretrained_network

ROOT = Path(__file__).parent.parent
NETWORK = {"class_path": "lightning_xai.networks.LeNet", "init_args": {"in_channels": 3, "image_size": 32}}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
OPTIONS = {"network": NETWORK, "image_size": 32, "resize_size": 40, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network of torchvision, random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pt"
    torch.save(get_model("squeezenet1_1", weights=None).state_dict(), path)
    return str(path)


def configured(folder, **changes):
    """A lab whose configuration `mine` has a small pretrained network."""
    model = {"class_path": "lightning_xai.modules.PretrainedClassifier", "init_args": {**OPTIONS, **changes}}
    config = {"seed_everything": 0, "trainer": {"max_epochs": 1}, "model": model, "data": {"class_path": "NoSuchData"}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    return Lab(configs=str(folder), device="cpu", progress=False)


def test_a_network_of_torchvision_takes_its_weights_from_a_file(weights):
    lab = Lab(device="cpu", progress=False)
    assert is_pretrained(lab, "squeezenet1_1")
    network = pretrained_network(lab, "squeezenet1_1", weights)
    assert network.settings == {"network": "squeezenet1_1", "weights": weights}
    assert (network.preprocessing, network.image_shape) == (Preprocessing(), (3, 224, 224))
    seen, pictures = photographs(lab, network, number=2)
    names, classes, probabilities = zip(*pictures, strict=True)
    assert (names, seen.index.tolist()) == (("chelsea", "astronaut"), [0, 7])
    logits = network.model(seen.images)
    assert_close(seen.labels, logits.argmax(1))
    assert_close(torch.tensor(probabilities), logits.softmax(1).amax(1).detach())
    assert classes == tuple(str(place) for place in seen.labels.tolist())


def test_a_configuration_brings_preprocessing_and_names_but_not_its_data(tmp_path):
    lab = configured(tmp_path, class_names=[f"class {number}" for number in range(10)])
    assert is_pretrained(lab, "mine")
    network = pretrained_network(lab, "mine")
    data = PhotographsDataModule(image_size=32, resize_size=40, mean=OPTIONS["mean"], std=OPTIONS["std"])
    data.setup()
    seen, pictures = photographs(lab, network)
    assert_close(seen.images, next(iter(data.test_dataloader()))["image"])
    assert_close(network.bounds, data.bounds)
    assert [name for _, name, _ in pictures] == [f"class {place}" for place in seen.labels.tolist()]
    assert network.settings["init_args"]["image_size"] == 32


def test_weights_replace_those_of_the_configuration(tmp_path):
    lab = configured(tmp_path)
    state = {
        name: torch.zeros_like(value) for name, value in pretrained_network(lab, "mine").model.state_dict().items()
    }
    torch.save({name.removeprefix("network."): value for name, value in state.items()}, tmp_path / "zero.pt")
    model = pretrained_network(lab, "mine", str(tmp_path / "zero.pt")).model
    assert not any(value.any() for value in model.parameters())


def test_the_pictures_of_a_folder_are_taken_with_their_places(tmp_path):
    lab = configured(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(5):
        Image.new("RGB", (40, 40), (50 * number, 0, 0)).save(pictures / f"picture{number}.png")
    network = pretrained_network(lab, "mine")
    seen, found = photographs(lab, network, str(pictures), 3)
    assert [name for name, *_ in found] == ["picture0", "picture2", "picture4"]
    assert seen.index.tolist() == [0, 2, 4]
    red = (seen.images[:, 0, 0, 0] * 0.2 + 0.5) * 255
    assert_close(red, torch.tensor([0.0, 100.0, 200.0]))
    with pytest.raises(ValueError, match=r"`images`: `root` must be a folder of pictures; .*nowhere is none"):
        photographs(lab, network, str(tmp_path / "nowhere"))


def test_in_bfloat16_probabilities_are_nearly_the_same_and_single_precision(tmp_path):
    lab = configured(tmp_path)
    network = pretrained_network(lab, "mine")
    labs = (lab, replace(lab, precision="bf16-mixed"))
    exact, fast = (torch.tensor([picture[2] for picture in photographs(one, network)[1]]) for one in labs)
    assert not torch.equal(exact, fast)
    assert_close(fast, exact, rtol=0.02, atol=0)


def test_what_is_no_pretrained_network_is_refused(tmp_path):
    lab = Lab(configs=str(ROOT / "configs"), device="cpu")
    assert not is_pretrained(lab, "mnist_mlp")
    with pytest.raises(ValueError, match=r"`networks` must be classifiers of torchvision, .*; mnist_mlp is the config"):
        pretrained_network(lab, "mnist_mlp")
    with pytest.raises(ValueError, match=r"torchvision has no classifier 'resnet5O', and `configs`: there is no"):
        pretrained_network(lab, "resnet5O")
    with pytest.raises(ValueError, match=r"`weights` must be IMAGENET1K_V1, .*the path of a state dict"):
        pretrained_network(lab, "vgg16", str(tmp_path / "nowhere.pt"))


def test_convergence_wants_the_pretrained_network_before_it_trains_another(tmp_path):
    lab = Lab(configs=str(tmp_path), device="cpu")
    with pytest.raises(ValueError, match="`weights` must be IMAGENET1K_V1"):
        adaptgrad_convergence.run(lab, weights=str(tmp_path / "nowhere.pt"))
