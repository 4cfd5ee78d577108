"""NoiseGrad's figure 4 and table 2: which methods they take, and their numbers against a direct evaluation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from torch.testing import assert_close

from lightning_xai.evaluation import evaluate
from lightning_xai.experiments.papers import noisegrad_figure4, noisegrad_table2
from lightning_xai.explainers import InRangeScale, PerturbWeights, RangeScale, Saliency, Smooth
from lightning_xai.metrics import LocalisationAUROC, RelevanceRankAccuracy
from lightning_xai.reporting.noise_level import NoiseLevel, NoisePoint
from lightning_xai.reporting.panels import figure_pixels
from lightning_xai.reporting.weight_noise_figures import NoiseGrid, grids_figure

SMALL = {"trainer.max_epochs": 1, "data.init_args.num_train": 300}
LEVEL = NoiseLevel(0.3, 0.2, 0.4, 0.05, 0.9, 0.1, (NoisePoint(0.3, 0.05, 0.01, (0.8, 0.9)),), 10, 2, 0.01, 2.0, 0.95, 0)
NOT_REACHED = replace(LEVEL, std=math.inf, low=math.inf, high=math.inf)
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


def test_without_a_kind_of_noise_a_method_is_a_simpler_one():
    saliency = Saliency()
    assert noisegrad_figure4.method_at(0.0, 0.0, 5) == saliency
    assert noisegrad_figure4.method_at(0.0, 0.1, 5) == Smooth(saliency, RangeScale(0.1), 5)
    assert noisegrad_figure4.method_at(0.3, 0.0, 5) == PerturbWeights(saliency, 0.3, 5)
    assert noisegrad_figure4.method_at(0.3, 0.1, 5) == PerturbWeights(Smooth(saliency, RangeScale(0.1), 5), 0.3, 5)


def test_pairs_are_those_of_curve_grid_and_heuristics():
    plain = {(0, 0), (0.1, 0), (0.5, 0), (0.2, 0), (0.2, 0.1), (0, 0.1), (0, 0.2)}
    for level, chosen in ((LEVEL, {(0.3, 0), (0.15, 0.1)}), (NOT_REACHED, set())):
        pairs = noisegrad_figure4.noise_pairs((0.0, 0.1, 0.5), (0.0, 0.2), (0.0, 0.1), level)
        assert set(pairs.values()) == plain | chosen


def test_the_heuristics_halve_both_noises_for_fusion_grad():
    methods = noisegrad_table2.by_heuristics(LEVEL.std, 10)
    assert methods == {
        "Baseline": Saliency(),
        "SG": Smooth(Saliency(), RangeScale(0.2), 10),
        "AG": Smooth(Saliency(), InRangeScale(), 10),
        "NG": PerturbWeights(Saliency(), 0.3, 10),
        "FG": PerturbWeights(Smooth(Saliency(), RangeScale(0.1), 10), 0.15, 10),
    }
    assert noisegrad_table2.by_heuristics(NOT_REACHED.std, 10).keys() == {"Baseline", "SG", "AG"}


def directly(lab, methods, metrics):
    """Scores of the samples of an experiment's network, without the experiment."""
    network = lab.network("cmnist_lenet", SMALL)
    samples = lab.samples(network, 6, mask="box")
    bounds = network.data.bounds
    return evaluate(
        network.model,
        samples.images,
        samples.labels,
        methods,
        metrics,
        samples.masks,
        bounds=bounds,
        index=samples.index,
    ).scores


def test_figure_4_has_the_scores_of_a_direct_evaluation_and_can_be_drawn(lab, level):
    result = noisegrad_figure4.run(
        lab, "cmnist_lenet", (0.5,), (0.2,), (0.1,), num_samples=6, num_draws=2, num_shown=2, changes=SMALL
    )
    fusion = PerturbWeights(Smooth(Saliency(), RangeScale(0.1), 2), 0.2, 2)
    metrics = {"rank accuracy": RelevanceRankAccuracy(), "AUROC": LocalisationAUROC()}
    expected = directly(lab, {"saliency": Saliency(), "fusion": fusion}, metrics)
    for method, noises in {"saliency": (0.0, 0.0), "fusion": (0.2, 0.1)}.items():
        for metric in metrics:
            found = [
                record["value"]
                for record in result.records["scores"]
                if (record["weight_noise"], record["input_noise"], record["metric"]) == (*noises, metric)
            ]
            np.testing.assert_allclose(found, expected[method][metric], rtol=1e-5)
    drawn = noisegrad_figure4.figures(result)
    assert len(drawn) == 3
    assert all(figure_pixels(figure).std() > 0 for figure in drawn.values())
    curve = result.tables[0]
    assert any("heuristic" in row[0] for row in curve.rows) == level.reached
    assert [len(row) for row in curve.rows] == [len(curve.columns)] * len(curve.rows)


def test_table_2_has_the_scores_of_a_direct_evaluation_and_can_be_drawn(lab, level):
    result = noisegrad_table2.run(lab, ("cmnist_lenet",), num_samples=6, num_draws=2, changes=SMALL)
    expected = directly(lab, noisegrad_table2.by_heuristics(level.std, 2), {"auroc": LocalisationAUROC()})
    for method, scores in expected.items():
        rows = [row for row in result.records["scores"] if row["method"] == method]
        found = [row["value"] for row in rows if row["network"] == "cmnist_lenet"]
        np.testing.assert_allclose(found, scores["auroc"], rtol=1e-5)
    table = result.tables[0]
    cells = {row[0]: row[2] for row in table.rows}
    assert "(0.922)" in cells["Baseline"]
    assert "(" not in cells["random"]
    assert cells.keys() == {*expected, "edges", "random"}
    assert_close(float(cells["Baseline"].split(" ")[0]), float(expected["Baseline"]["auroc"].mean()), rtol=0, atol=1e-4)
    assert figure_pixels(noisegrad_table2.figures(result)["noisegrad-table2"]).std() > 0


def test_the_frame_of_a_grid_is_around_its_best_cell():
    means = np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.5]])
    grid = NoiseGrid("AUROC", np.array([0.0, 0.2]), np.array([0.0, 0.1, 0.3]), means, 0.7)
    (axes,) = grids_figure([grid], (0.1, 0.2)).axes
    assert [patch.get_xy() for patch in axes.patches] == [(1, 1)]
    (circle,) = axes.lines
    assert (circle.get_xdata()[0], circle.get_ydata()[0]) == pytest.approx((2.0, 1.0))
