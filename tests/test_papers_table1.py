"""NoiseGrad's table 1: equal cost, scores of a direct evaluation, finished batches, and the claims that are judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.experiments.papers import noisegrad_table1
from lightning_xai.experiments.papers.noisegrad_table1 import pair_table, run, table_methods
from lightning_xai.functional.localisation import relevance_rank_accuracy
from lightning_xai.metrics import RelevanceRankAccuracy, Sparseness
from lightning_xai.results.scores import ScoreRow
from lightning_xai.sanity.cells import Cells

OPTIONS = {
    "network": "cmnist_lenet",
    "num_samples": 6,
    "stds": (0.3,),
    "rule": False,
    "costs": (10,),
    "num_perturbations": 2,
    "num_subsets": 5,
    "changes": {"trainer.max_epochs": 1, "data.init_args.num_train": 300},
}
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """With a folder for finished batches."""
    return OPTIONS | {"kept": str(tmp_path_factory.mktemp("kept")), "batch_size": 4}


@pytest.fixture(scope="module")
def result(lab, options):
    return run(lab, **options)


def scores(result, method, metric):
    rows = [row for row in result.records["scores"] if (row["method"], row["metric"]) == (method, metric)]
    return torch.tensor([row["value"] for row in rows])


def test_every_smoother_spends_what_it_is_said_to(result):
    for method in table_methods({" std=0.3": 0.3}, (10,)):
        expected = 1.0 if method in ("gradient", "saliency") else 10.0
        assert_close(scores(result, method, "gradients"), torch.full((6,), expected))
    (summary, equal, claims) = result.tables
    assert [row[0] for row in summary.rows] == [row[0] for row in equal.rows]
    published = next(row for row in summary.rows if row[0] == "noise_grad_10 std=0.3")[-4:]
    assert published == ("0.8349", "0.3635", "0.0224", "0.5794")
    assert [row[0] for row in claims.rows] == [
        "fusion_grad_10 std=0.3 > noise_grad_10 std=0.3",
        "noise_grad_10 std=0.3 > smooth_grad_10",
        "smooth_grad_10 > saliency",
        "adapt_grad_10 > smooth_grad_10",
    ]


def test_scores_are_those_of_a_direct_evaluation_in_both_masks(lab, result):
    network = lab.network("cmnist_lenet", OPTIONS["changes"])
    box, digit = (lab.samples(network, 6, mask=mask) for mask in ("box", "digit"))
    method = lx.noise_grad(std=0.3)
    metrics = {"relevance_rank_accuracy": RelevanceRankAccuracy(), "sparseness": Sparseness()}
    found = lx.evaluate(
        network.model, box.images, box.labels, {"m": method}, metrics, box.masks, bounds=network.bounds, index=box.index
    )
    for metric in metrics:
        assert_close(scores(result, "noise_grad_10 std=0.3", metric), found.scores["m"][metric].cpu())
    maps = lx.explain(network.model, digit.images, digit.labels, method, bounds=network.bounds, index=digit.index)
    assert_close(
        scores(result, "noise_grad_10 std=0.3", "relevance_rank_accuracy_of_digit"),
        relevance_rank_accuracy(maps, digit.masks),
    )


def test_finished_batches_are_not_computed_again_and_other_settings_are_refused(lab, result, options, monkeypatch):
    monkeypatch.setattr(noisegrad_table1, "evaluate", None)
    again = run(lab, **options)
    assert str(again.records) == str(result.records)  # as text, for NaN differs from itself
    with pytest.raises(ValueError, match="has results of other settings: num_subsets was 5, is 7"):
        run(lab, **options | {"num_subsets": 7})


def test_a_claim_holds_fails_or_is_left_open():
    gains = {"auroc": 0.1, "sparseness": -0.1, "relevance_rank_accuracy": 0.0}
    names = (*noisegrad_table1.CRITERIA, "max_sensitivity", "auroc")
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.01, 40)
    rows = [
        ScoreRow("test", 0, 0, method, metric, sample, 0.5 + sign * (gains.get(metric, 0.0) + noise[sample]))
        for metric in names
        for method, sign in (("adapt_grad_10", 1), ("smooth_grad_10", 0), ("saliency", 0))
        for sample in range(40)
    ]
    directions = {name: not name.startswith("max") for name in names}
    (_, claim) = pair_table(rows, directions, (10,), ()).rows
    answers = dict(zip(names, claim[1:], strict=True))
    assert claim[0] == "adapt_grad_10 > smooth_grad_10"
    assert answers["auroc"].endswith(" yes")
    assert answers["sparseness"].endswith(" no, the reverse")
    assert answers["relevance_rank_accuracy"].endswith(" undecided")
    turned = pair_table(rows, directions | {"auroc": False}, (10,), ()).rows[1]
    assert turned[-1].endswith(" no, the reverse")


def test_data_without_masks_are_refused(lab):
    network = lab.network("quickstart", {"trainer.max_epochs": 1})
    samples = replace(lab.samples(network, 2), masks=None)
    with pytest.raises(ValueError, match="`network` must be one for data with masks, such as cmnist_resnet9"):
        noisegrad_table1.batch_rows(lab, network, {"box": samples, "digit": samples}, {}, {}, Cells(None, {}))


@pytest.mark.parametrize("costs", [(), (5,), (10, 25)])
def test_costs_that_cannot_be_divided_are_refused_before_anything_is_trained(lab, costs):
    with pytest.raises(ValueError, match=r"`costs` must be multiples of 10, got \["):
        run(lab, **OPTIONS | {"costs": costs, "network": "no such network"})
