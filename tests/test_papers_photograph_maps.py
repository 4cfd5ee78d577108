"""AdaptGrad's gallery: closed forms of linear networks, what is shown where, and the metrics of maps beside maps."""

import pytest
import torch
from matplotlib.figure import Figure
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.experiments.papers import Lab
from lightning_xai.experiments.papers.adaptgrad_convergence import Examined
from lightning_xai.explainers import Context
from lightning_xai.networks import MLP
from lightning_xai.sanity.similarity import spearman
from lightning_xai.studies import report
from lightning_xai.studies.engine import run_study
from lightning_xai.studies.metrics import MapSimilarity, RelativeError
from tests.small import OTHERS, carried_study, linear_of_others, save_noise, weight

SMALL = {"networks": ["vgg16"], "num_samples": 3, "maps": 2, "draws": [2, 3], "num_draws": 2, "num_steps": 2}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


@pytest.fixture
def network(monkeypatch):
    """A linear network of small pictures, which the study explains."""
    network = linear_of_others()
    monkeypatch.setattr("lightning_xai.studies.subjects.pretrained_network", lambda *_: network)
    return network


@pytest.fixture
def gallery(tmp_path, network):
    study = carried_study("adaptgrad-gallery", images=save_noise(tmp_path, 3), inner_draws=2, **SMALL)
    return study, run_study(Lab(device="cpu", progress=False), study)


def test_maps_of_a_linear_network_are_the_closed_forms(network, gallery):
    study, results = gallery
    result = report.study_report(study, results, 0, "32-true")
    maps = {name.removeprefix("vgg16 method "): torch.from_numpy(part) for name, part in result.arrays.items()}
    images = maps["vgg16 images"]
    gradient = weight(network, network.model(images).argmax(1))
    low, high = network.bounds
    forms = {"GI": images * gradient, "IG(B)": (images - low) * gradient, "IG(W)": (images - high) * gradient}
    for family, expected in forms.items():
        for prefix in ("", "S-", "A-"):
            assert_close(maps[prefix + family], expected.sum(1))
    for name in ("Grad", "SG 0.2", "AG 0.999", "SG, 2 draws", "AG, 3 draws"):
        assert_close(maps[name], gradient.sum(1))
    assert_close(maps["NG"], maps["A-NG"])
    for method, undefined in {"AG, 2 draws": False, "SG 0.2": False, "NG": True, "Grad": True}.items():
        errors = torch.from_numpy(results["vgg16"].values(method, "relative_error"))
        assert_close(
            errors, torch.full((3,), torch.nan if undefined else 0.0).double(), atol=1e-5, rtol=0, equal_nan=True
        )


def test_every_row_of_a_figure_shows_its_own_map(gallery, monkeypatch):
    study, results = gallery
    drawn = {}

    def keep(images, maps, bounds, labels, title):
        drawn[title] = images, maps, labels
        return Figure()

    monkeypatch.setattr(report, "attribution_panel", keep)
    figures = report.study_figures(study, results, "g")
    assert set(figures) == {"g", "g-claims", *(f"g-figure{number}" for number in (1, 2, 4, 5, 6))}
    assert list(drawn) == [panel["title"] for panel in study.panels.values()]
    images, maps, labels = drawn[study.panels["figure6"]["title"]]
    shown = results["vgg16"].maps
    classes = [OTHERS[place] for place in shown["target"].tolist()]
    assert labels == [f"{name}, {row}" for name in classes for row in ("Grad", "SG", "AG")]
    assert_close(images[3:], shown["images"][1:].expand(3, -1, -1, -1))
    assert_close(maps["IG(W)"][[2, 5]], shown["method A-IG(W)"])
    _, by_draws, _ = drawn[study.panels["figure2"]["title"]]
    assert list(by_draws) == ["N = 0", "N = 2", "N = 3"]


# Maps beside maps


@pytest.fixture
def few():
    torch.manual_seed(0)
    model = MLP(image_shape=(1, 6, 6), hidden=(12,), num_classes=3).eval()
    return model, torch.rand(4, 1, 6, 6), torch.tensor([5, 6, 9, 2])


def test_maps_by_draws_are_those_of_so_many_draws(few):
    model, images, index = few
    subject = Examined(model, images, model(images).argmax(1), index, (torch.tensor(0.0), torch.tensor(1.0)))
    numbers = []
    for number, moments in subject.converging(lx.adapt_grad(), (2, 5, 40), 3):
        numbers.append(number)
        method, options = lx.adapt_grad(num_draws=number), {"bounds": (0.0, 1.0), "index": index, "seed": 3}
        assert_close(moments.mean, lx.explain(model, images, subject.target, method, **options))
        context = Context.create(index, 3, (0.0, 1.0))
        assert_close(moments.relative_error, method.moments(model, images, subject.target, context).relative_error)
    assert numbers == [2, 5, 40]


def test_similarity_and_error_are_those_of_maps_made_by_hand(few):
    model, images, index = few
    methods = {"gradient": lx.Gradient(), "smooth": lx.smooth_grad(num_draws=5), "one": lx.smooth_grad(num_draws=1)}
    metrics = {"similarity": MapSimilarity(lx.Gradient()), "error": RelativeError()}
    found = lx.evaluate(model, images, 1, methods, metrics, index=index, seed=7, batch_size=3).scores
    maps = {name: lx.explain(model, images, 1, method, index=index, seed=7) for name, method in methods.items()}
    order = index.argsort()
    for name in methods:
        assert_close(found[name]["similarity"], spearman(maps["gradient"], maps[name])[order], atol=1e-6, rtol=0)
    context = Context.create(index, 7)
    expected = methods["smooth"].moments(model, images, 1, context).relative_error
    assert_close(found["smooth"]["error"], expected[order])
    assert found["gradient"]["error"].isnan().all()
    assert found["one"]["error"].isnan().all()
    with pytest.raises(ValueError, match="`similarity` must be one of"):
        MapSimilarity(lx.Gradient(), "alike")
