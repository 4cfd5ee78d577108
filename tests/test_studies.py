"""Studies: scores of a direct evaluation, levels of noise, figures, and what is kept."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.cli import main
from lightning_xai.experiments.prices import study_prices
from lightning_xai.experiments.runs import read_runs
from lightning_xai.explainers import PerturbWeights, RangeScale, Saliency, Smooth
from lightning_xai.functional.localization import relevance_rank_accuracy
from lightning_xai.metrics import LocalizationAUROC, RelevanceRankAccuracy, Sparseness
from lightning_xai.reporting.charts import Grid, grids_figure
from lightning_xai.reporting.saving import figure_pixels
from lightning_xai.results.noise_level import NoiseLevel, NoisePoint
from lightning_xai.studies import engine
from lightning_xai.studies.engine import judged, run_study
from lightning_xai.studies.report import _published_gain, study_figures, study_report
from lightning_xai.studies.study import Study
from tests.small import (
    GRADIENT,
    MINE,
    SPARSENESS,
    carried_study,
    made_up,
    scores,
)

ROOT = Path(__file__).parent.parent
SMALL = {"trainer.max_epochs": 1, "data.init_args.num_train": 300}
LEVEL = NoiseLevel(0.3, 0.2, 0.4, 0.05, 0.9, 0.1, (NoisePoint(0.3, 0.05, 0.01, (0.8, 0.9)),), 10, 2, 0.01, 2.0, 0.95, 0)
NOT_REACHED = replace(LEVEL, std=math.inf, low=math.inf, high=math.inf)
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
        *("report.md", "settings.yaml", "mine", "samples.csv", "claims.csv"),
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
    (run,) = read_runs([folder / "mine"])
    found = run.scores.by_sample()["sparseness"]["smooth_grad"]
    assert found.index.tolist() == samples.index.tolist()
    assert_close(torch.tensor(found.to_numpy()), expected.double())
    assert run.higher_is_better == {"sparseness": True, "noise": False, "gradients": None}
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
    assert result.subject.network.bounds is None
    callback = {"class_path": "lightning_xai.AttributionCallback", "init_args": {"bounds": [0.0, [1.0, 1.0, 2.0]]}}
    trainer = {"max_epochs": 1, "callbacks": [callback]}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({**config, "trainer": trainer}))
    bounded = replace(study, methods=["adapt_grad"])
    assert [bound.flatten().tolist() for bound in lab.network("theirs.yaml").bounds] == [[0.0], [1.0, 1.0, 2.0]]
    assert "adapt_grad" in run_study(lab, bounded)["theirs.yaml"].rows.unique("method")
    assert [price.title for price in study_prices(lab, bounded)] == ["theirs.yaml: 5 samples"]
    callback["init_args"] |= {"output": "probability", "channel_dim": 1, "forward": {"field": "logits"}}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({**config, "trainer": trainer}))
    with pytest.raises(ValueError, match=r"the configuration of theirs.yaml has 'output', 'forward', which a study"):
        run_study(lab, bounded)
    (tmp_path / "half.yaml").write_text(yaml.safe_dump({"model": config["model"]}))
    with pytest.raises(ValueError, match=r"half\.yaml must have a `data` with a `class_path`"):
        run_study(lab, replace(study, networks=["half.yaml"]))


def test_a_module_that_does_not_return_logits_is_refused_before_its_training(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = SOMEBODY.replace("return self.layer(x.flatten(1))", "return {'logits': self.layer(x.flatten(1))}")
    (tmp_path / "telling.py").write_text(text.replace("cross_entropy(self(batch[0])", "no_training(self(batch[0])"))
    data = {"class_path": "telling.Data", "init_args": {"folder": "x"}}
    config = {"model": {"class_path": "telling.Net"}, "data": data, "trainer": {"max_epochs": 1}}
    (tmp_path / "dict.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(TypeError, match=r"the forward of Net must return logits, .*, got dict: let it"):
        lab.network("dict.yaml")


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


@pytest.mark.parametrize(
    "level",
    [pytest.param(LEVEL, id="reached"), pytest.param(NOT_REACHED, id="not reached", marks=pytest.mark.slow)],
    indirect=True,
)
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
    for name in ("sweeps", "grids"):

        def keep(*given, name=name):
            drawn[name] = given
            return Figure()

        monkeypatch.setattr(f"lightning_xai.studies.report.{name}_figure", keep)
    results = run_study(lab, study)
    result = results["cmnist_lenet"]
    study_figures(study, results, "t")
    curve, grid = drawn["sweeps"][0][1], drawn["grids"][0][1]
    assert curve.metric == "AUROC ↑"
    (line,) = curve.lines.values()
    assert list(line) == [0.0, 0.2, 0.5]
    np.testing.assert_array_equal(line[0.5], scores(result, "weights 0.5, inputs 0", "AUROC"))
    assert drawn["sweeps"][2] == (level.std, level.low, level.high)
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
