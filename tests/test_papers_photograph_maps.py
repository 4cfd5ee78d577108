"""NoiseGrad's figure 3 and AdaptGrad's gallery: closed forms of linear networks, VOC's masks, levels and layout."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.data.voc import VOC_CLASSES
from lightning_xai.experiments.noise_level import find_noise_level, right_under_noise
from lightning_xai.experiments.papers import Lab, adaptgrad_gallery, noisegrad_figure3
from lightning_xai.experiments.papers.adaptgrad_convergence import Examined
from lightning_xai.experiments.papers.adaptgrad_gallery import converging
from lightning_xai.experiments.papers.noisegrad_figure3 import pictures, weight_noise_level
from lightning_xai.studies.photographs import PretrainedNetwork
from lightning_xai.explainers import Context, PerturbWeights, RangeScale, Smooth, gradient_shap
from lightning_xai.functional.localisation import auroc, relevance_rank_accuracy
from lightning_xai.networks import MLP

SIDE = 8
FIGURE3 = {"num_images": 3, "num_shown": 2, "weight_noise": 0.1, "num_steps": 2, "num_points": 2, "num_draws": 2}
GALLERY = {"num_images": 3, "num_shown": 2, "draws": (3, 2), "num_draws": 2, "num_steps": 2, "inner_draws": 2}
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
        for experiment in (noisegrad_figure3, adaptgrad_gallery):
            monkeypatch.setattr(experiment, "pretrained_network", lambda *_: network)
        return network

    return use


@pytest.fixture
def voc(tmp_path):
    """Three pictures of noise, each with one object of a class of its own, in the layout of VOC 2012."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("Annotations", "ImageSets/Segmentation", "SegmentationClass", "JPEGImages"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("0\n1\n2\n")
    for number, name in enumerate(("dog", "cat", "bus")):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(base / "JPEGImages" / f"{number}.jpg")
        classes = np.zeros((SIDE, SIDE), np.uint8)
        classes[1 : 4 + number, 2:5] = VOC_CLASSES.index(name) + 1
        Image.fromarray(classes).save(base / "SegmentationClass" / f"{number}.png")
        box = f"<bndbox><xmin>3</xmin><ymin>1</ymin><xmax>5</xmax><ymax>{4 + number}</ymax></bndbox>"
        text = f"<annotation><object><name>{name}</name>{box}</object></annotation>"
        (base / "Annotations" / f"{number}.xml").write_text(text)
    return Lab(root=str(tmp_path), device="cpu", progress=False)


def scores(result, base, method, metric):
    rows = [r for r in result.records["scores"] if (r["base"], r["method"], r["metric"]) == (base, method, metric)]
    return torch.tensor([row["value"] for row in rows])


# NoiseGrad's figure 3


def test_pictures_of_voc_come_with_masks_and_the_class_that_is_explained(voc):
    known = pictures(voc, linear(VOC_CLASSES), "voc", 3)
    assert known.labels.tolist() == [VOC_CLASSES.index(name) for name in ("dog", "cat", "bus")]
    assert known.masks.flatten(1).sum(1).tolist() == [9, 12, 15]
    assert pictures(voc, linear(VOC_CLASSES), "voc", 3, "box").masks.flatten(1).sum(1).tolist() == [12, 15, 18]
    network = linear(OTHERS)
    unknown = pictures(voc, network, "voc", 3)
    assert_close(unknown.labels, network.model(unknown.images).argmax(1))
    assert_close(unknown.images, known.images)


def test_maps_and_scores_of_a_linear_network_are_the_closed_form(voc, use):
    network = use(linear(VOC_CLASSES))
    result = noisegrad_figure3.run(voc, **FIGURE3)
    samples = pictures(voc, network, "voc", 3)
    expected = (samples.images - network.bounds[0]) * weight(network, samples.labels)
    for base in ("IG", "GradientSHAP"):
        baseline = result.arrays[base][list(result.settings["methods"][base]).index("Baseline")]
        assert_close(torch.from_numpy(baseline), expected[:2].sum(1))
        assert_close(scores(result, base, "Baseline", "auroc"), auroc(expected, samples.masks))
        rank = relevance_rank_accuracy(expected, samples.masks)
        assert_close(scores(result, base, "Baseline", "relevance_rank_accuracy"), rank)
        for method, cost in {"Baseline": 2, "SG": 4, "AG": 4, "NG": 4, "FG": 8, "edges": 0, "random": 0}.items():
            assert scores(result, base, method, "gradients").tolist() == [cost] * 3
    assert result.settings["classes"] == ["dog", "cat"]
    right = right_under_noise(network.model, samples.images, samples.labels, 0.05, 2).mean()
    assert f"The noisy networks of FG, std 0.05, predict {right:.1%} of the explained classes." in result.findings
    assert [table.title for table in result.tables] == [
        "IG",
        "IG: is it better localised?",
        "GradientSHAP",
        "GradientSHAP: is it better localised?",
    ]


def test_smoothed_maps_are_those_of_the_explainers_by_themselves(voc, use):
    network = use(linear(VOC_CLASSES))
    result = noisegrad_figure3.run(voc, **FIGURE3)
    samples = pictures(voc, network, "voc", 3)
    base = gradient_shap(num_draws=2)
    method = PerturbWeights(Smooth(base, RangeScale(0.1), 2), 0.05, 2)
    options = {"bounds": network.bounds, "index": samples.index}
    maps = lx.explain(network.model, samples.images, samples.labels, method, **options)
    assert_close(torch.from_numpy(result.arrays["GradientSHAP"][-1]), maps[:2].sum(1))


def test_without_labels_the_noise_level_is_that_of_the_networks_own_decisions(tmp_path, use):
    network, lab = use(linear(OTHERS)), Lab(device="cpu", progress=False)
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
    samples = pictures(lab, network, str(tmp_path), 20)
    decisions = network.model(samples.images).argmax(1)
    level = weight_noise_level(lab, network, str(tmp_path), 20)
    assert level.std == find_noise_level(network.model, samples.images, decisions, tolerance=0.002).std
    result = noisegrad_figure3.run(lab, images=str(tmp_path), **FIGURE3 | {"weight_noise": None})
    assert result.settings["weight_noise"] == level.std
    assert any("weight noise" in finding for finding in result.findings)
    with pytest.raises(ValueError, match=r"`weight_noise` must be given: .* 20 pictures or more, .* there are 19"):
        noisegrad_figure3.run(lab, images=str(tmp_path), **FIGURE3 | {"weight_noise": None, "level_images": 19})


def test_a_level_that_is_not_reached_leaves_out_the_noisy_networks(voc, use):
    use(linear(VOC_CLASSES))
    result = noisegrad_figure3.run(voc, **FIGURE3 | {"weight_noise": math.inf})
    assert list(result.settings["methods"]["IG"]) == ["Baseline", "SG", "AG"]
    assert [table.title for table in result.tables] == ["IG", "GradientSHAP"]
    assert len(noisegrad_figure3.figures(result)) == 4


def test_pictures_without_masks_have_no_localisation(tmp_path, use):
    network = use(linear(OTHERS))
    for number in range(4):
        Image.new("RGB", (10, 10), (60 * number, 0, 100)).save(tmp_path / f"{number}.png")
    lab = Lab(device="cpu", progress=False)
    result = noisegrad_figure3.run(lab, images=str(tmp_path), **FIGURE3)
    assert {row["metric"] for row in result.records["scores"]} == {"sparseness", "gradients"}
    assert result.settings["mask"] is None
    assert network.class_names.index(result.settings["classes"][0]) in range(20)


def test_missing_voc_is_said_before_anything_is_computed(tmp_path, use, monkeypatch):
    def fail(*_):
        raise OSError("no network")

    use(linear(OTHERS))
    monkeypatch.setattr("lightning_xai.data.voc.datasets.VOCSegmentation", fail)
    monkeypatch.setattr(noisegrad_figure3, "evaluate", None)
    with pytest.raises(FileNotFoundError, match=r"there is no VOC 2012 in .*`images` takes a folder, or 'embedded'"):
        noisegrad_figure3.run(Lab(root=str(tmp_path), device="cpu"))


@pytest.mark.parametrize("experiment", [noisegrad_figure3, adaptgrad_gallery])
def test_missing_weights_are_said_before_anything_is_computed(experiment, tmp_path):
    with pytest.raises(ValueError, match=r"`weights` must be IMAGENET1K_V1, .*there is no such file"):
        experiment.run(Lab(root=str(tmp_path), device="cpu"), network="resnet18", weights=str(tmp_path / "no.pt"))


# AdaptGrad's gallery


@pytest.fixture
def photographed(tmp_path):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return str(tmp_path)


def test_maps_of_a_linear_network_are_the_closed_forms(photographed, use):
    network = use(linear(OTHERS))
    result = adaptgrad_gallery.run(Lab(device="cpu", progress=False), images=photographed, **GALLERY)
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
    for number, maps, error in converging(subject, lx.adapt_grad(), (2, 5, 40), seed):
        numbers.append(number)
        method, options = lx.adapt_grad(num_draws=number), {"bounds": (0.0, 1.0), "index": index, "seed": seed}
        assert_close(maps, lx.explain(model, images, subject.target, method, **options))
        context = Context.create(index, seed, (0.0, 1.0))
        assert_close(error, method.moments(model, images, subject.target, context).relative_error)
    assert numbers == [2, 5, 40]


def test_every_row_of_a_figure_shows_its_own_map(photographed, use, monkeypatch):
    use(linear(OTHERS))
    result = adaptgrad_gallery.run(Lab(device="cpu", progress=False), images=photographed, **GALLERY)
    drawn = {}

    def keep(images, maps, bounds, labels, title):
        drawn[title] = images, maps, labels
        return Figure()

    monkeypatch.setattr(adaptgrad_gallery, "attribution_panel", keep)
    adaptgrad_gallery.figures(result)
    assert list(drawn) == list(adaptgrad_gallery.TITLES.values())
    images, maps, labels = drawn[adaptgrad_gallery.TITLES["figure6"]]
    classes = result.settings["classes"]
    assert labels == [f"{name}, {row}" for name in classes[:2] for row in ("Grad", "SG", "AG")]
    assert_close(images[3:], torch.from_numpy(result.arrays["images"][1:2]).expand(3, -1, -1, -1))
    place = result.settings["maps"].index("A-IG(W)")
    assert_close(maps["IG(W)"][[2, 5], 0], torch.from_numpy(result.arrays["maps"][place]))
    _, by_draws, _ = drawn[adaptgrad_gallery.TITLES["figure2"]]
    assert list(by_draws) == ["N = 0", "N = 2", "N = 3"]


@pytest.mark.parametrize("draws", [(), (1, 10)])
def test_a_single_draw_has_no_error(draws):
    with pytest.raises(ValueError, match="`draws` must be numbers of at least 2, got"):
        adaptgrad_gallery.run(Lab(device="cpu"), draws=draws)
