"""AdaptGrad's gallery: closed forms of linear networks, and what is shown where."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.experiments.papers import Lab, adaptgrad_gallery
from lightning_xai.experiments.papers.adaptgrad_convergence import Examined
from lightning_xai.explainers import Context
from lightning_xai.networks import MLP
from lightning_xai.studies.subjects import PretrainedNetwork

SIDE = 8
GALLERY = {"num_images": 3, "num_shown": 2, "draws": (3, 2), "num_draws": 2, "num_steps": 2, "inner_draws": 2}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
OTHERS = tuple(f"class {number}" for number in range(20))


def linear(class_names, seed=0):
    """A linear network of small pictures."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 20)).eval()
    return PretrainedNetwork(model, Preprocessing(SIDE, SIDE), class_names, {"network": "linear"})


def weight(network, target):
    return network.model[1].weight.detach()[target].view(-1, 3, SIDE, SIDE)


@pytest.fixture
def use(monkeypatch):
    """Makes the experiments explain a network."""

    def use(network):
        monkeypatch.setattr(adaptgrad_gallery, "pretrained_network", lambda *_: network)
        return network

    return use


# AdaptGrad's gallery


@pytest.fixture
def photographed(tmp_path):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return str(tmp_path)


def test_maps_of_a_linear_network_are_the_closed_forms(photographed, use):
    network = use(linear(OTHERS))
    result, _ = adaptgrad_gallery.run(Lab(device="cpu", progress=False), images=photographed, **GALLERY)
    images = torch.from_numpy(result.arrays["images"])
    gradient = weight(network, network.model(images).argmax(1))
    low, high = network.bounds
    maps = dict(zip(result.settings["maps"], torch.from_numpy(result.arrays["maps"]), strict=True))
    forms = {"GI": images * gradient, "IG(B)": (images - low) * gradient, "IG(W)": (images - high) * gradient}
    for family, expected in forms.items():
        for prefix in ("", "S-", "A-"):
            assert_close(maps[prefix + family], expected.sum(1))
    for name in ("Grad", "SG 0.2", "AG 0.999", "SG, 2 draws", "AG, 3 draws"):
        assert_close(maps[name], gradient.sum(1))
    assert_close(maps["NG"], maps["A-NG"])
    errors = [row["relative_error"] for row in result.records["maps"] if "draws" in row["method"]]
    assert_close(torch.tensor(errors), torch.zeros(12), atol=1e-5, rtol=0)


def test_maps_by_draws_are_those_of_so_many_draws():
    seed = 3
    torch.manual_seed(0)
    model = MLP(image_shape=(1, 6, 6), hidden=(12,), num_classes=3).eval()
    images, index = torch.rand(4, 1, 6, 6), torch.tensor([5, 6, 9, 2])
    subject = Examined(model, images, model(images).argmax(1), index, (torch.tensor(0.0), torch.tensor(1.0)))
    numbers = []
    for number, moments in subject.converging(lx.adapt_grad(), (2, 5, 40), seed):
        numbers.append(number)
        method, options = lx.adapt_grad(num_draws=number), {"bounds": (0.0, 1.0), "index": index, "seed": seed}
        assert_close(moments.mean, lx.explain(model, images, subject.target, method, **options))
        context = Context.create(index, seed, (0.0, 1.0))
        assert_close(moments.relative_error, method.moments(model, images, subject.target, context).relative_error)
    assert numbers == [2, 5, 40]


def test_every_row_of_a_figure_shows_its_own_map(photographed, use, monkeypatch):
    use(linear(OTHERS))
    drawn = {}

    def keep(images, maps, bounds, labels, title):
        drawn[title] = images, maps, labels
        return Figure()

    monkeypatch.setattr(adaptgrad_gallery, "attribution_panel", keep)
    result, _ = adaptgrad_gallery.run(Lab(device="cpu", progress=False), images=photographed, **GALLERY)
    assert list(drawn) == list(adaptgrad_gallery.TITLES.values())
    images, maps, labels = drawn[adaptgrad_gallery.TITLES["figure6"]]
    classes = result.settings["classes"]
    assert labels == [f"{name}, {row}" for name in classes[:2] for row in ("Grad", "SG", "AG")]
    assert_close(images[3:], torch.from_numpy(result.arrays["images"][1:2]).expand(3, -1, -1, -1))
    place = result.settings["maps"].index("A-IG(W)")
    assert_close(maps["IG(W)"][[2, 5], 0], torch.from_numpy(result.arrays["maps"][place]))
    _, by_draws, _ = drawn[adaptgrad_gallery.TITLES["figure2"]]
    assert list(by_draws) == ["N = 0", "N = 2", "N = 3"]


def test_missing_weights_are_said_before_anything_is_computed(tmp_path):
    with pytest.raises(ValueError, match=r"`weights` must be IMAGENET1K_V1, .*there is no such file"):
        adaptgrad_gallery.run(
            Lab(root=str(tmp_path), device="cpu"), network="resnet18", weights=str(tmp_path / "no.pt")
        )


@pytest.mark.parametrize("draws", [(), (1, 10)])
def test_a_single_draw_has_no_error(draws):
    with pytest.raises(ValueError, match="`draws` must be numbers of at least 2, got"):
        adaptgrad_gallery.run(Lab(device="cpu"), draws=draws)
