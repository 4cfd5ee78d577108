"""AdaptGrad's experiments: closed forms and oracles of what they compute."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_xai.experiments.papers import Lab
from lightning_xai.experiments.papers.adaptgrad_table1 import (
    METHODS,
    RANDOM,
    absolute_spearman,
    against_gradient,
    consistency_scores,
    invariance_table,
    paper_methods,
    random_floor,
    shifted_maps,
)
from lightning_xai.explainers import Gradient
from lightning_xai.networks import MLP
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.invariance import shifted_twin

LAB = Lab(device="cpu", progress=False)


def network(seed=0):
    torch.manual_seed(seed)
    return MLP(image_shape=(1, 6, 6), hidden=(12,), num_classes=3).eval()


def subject(model, num_samples=5, num_draws=3):
    torch.manual_seed(7)
    images = torch.rand(num_samples, 1, 6, 6)
    index = torch.arange(num_samples) * 10
    target = model(images).argmax(1)
    methods = paper_methods(num_draws, 0.2, 0.95, 0.2)
    return Subject(model, images, target, index, methods, {"consistency": absolute_spearman}, (0.0, 1.0), batch_size=2)


# Table 1


def test_the_floor_of_random_maps_is_the_mean_absolute_correlation_of_independent_ranks():
    scores = random_floor(torch.zeros(2000, 1, 28, 28))
    expected = np.sqrt(2 / (np.pi * 783))
    assert abs(float(scores.mean()) - expected) < 4 * float(scores.std()) / 2000**0.5
    assert expected == pytest.approx(0.0285, abs=5e-5)


def test_consistency_is_the_absolute_rank_correlation_of_the_maps_of_both_networks():
    model, twin = network(), network(1)
    chosen = subject(model)
    table, _ = consistency_scores(LAB, chosen, twin)
    maps = [Gradient()(m, chosen.images, chosen.target).flatten(1) for m in (model, twin)]
    expected = [abs(stats.spearmanr(x, y).statistic) for x, y in zip(*maps, strict=True)]
    np.testing.assert_allclose(table["consistency"]["Grad"], expected, rtol=1e-6)
    assert list(table["consistency"]) == [*METHODS, RANDOM]


def test_a_network_is_fully_consistent_with_itself_and_with_its_negative():
    model = network()
    negative = network()
    with torch.no_grad():
        negative.layers.linear2.weight.neg_()
    for twin in (model, negative):
        table, _ = consistency_scores(LAB, subject(model), twin)
        np.testing.assert_allclose(table["consistency"]["SG"], 1, rtol=1e-6)


def test_scores_do_not_depend_on_batches():
    model = network()
    chosen = subject(model)
    twin = shifted_twin(model, -1.0, chosen.images)
    first, second = shifted_maps(chosen, twin, -1.0, chosen.methods["A-NG"])
    whole = shifted_maps(Subject(**{**vars(chosen), "batch_size": 100}), twin, -1.0, chosen.methods["A-NG"])
    torch.testing.assert_close((first, second), whole)


def test_only_weight_noise_on_the_bias_breaks_the_invariance():
    model = network()
    table = invariance_table(LAB, subject(model), network(2), shift=-1.0)
    for name in METHODS:
        np.testing.assert_allclose(table["invariance, input"][name], 1, atol=1e-5)
    for name in ("Grad", "SG", "AG"):
        np.testing.assert_allclose(table["invariance, bias"][name], 1, atol=1e-5)
    for name in ("NG", "S-NG", "A-NG"):
        assert table["invariance, bias: relative difference"][name].mean() > 0.01
    assert max(np.mean(table["other network"][name]) for name in METHODS) < 0.9


def test_a_linear_network_gives_every_input_smoother_the_gradient():
    """The gradient is constant, so that noise on the input changes nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    table, _ = consistency_scores(LAB, subject(model), network(1))
    np.testing.assert_allclose(table["different images"]["SG"], table["different images"]["Grad"], atol=1e-6)
    assert set(against_gradient({name: table["different images"][name] for name in ("Grad", "SG", "AG")})) == {
        "SG",
        "AG",
    }


def test_differences_from_the_gradient_are_tested_by_wilcoxon_with_holms_correction():
    generator = np.random.default_rng(0)
    gradient = generator.normal(size=40)
    scores = {"Grad": gradient, "SG": gradient + 0.3 * generator.normal(size=40) + 0.2, "AG": gradient}
    expected = stats.wilcoxon(scores["SG"], gradient).pvalue
    assert against_gradient(scores) == pytest.approx({"SG": min(1.0, 2 * expected), "AG": 1.0})
    scores["SG"][3] = np.nan
    kept = np.isfinite(scores["SG"])
    expected = stats.wilcoxon(scores["SG"][kept], gradient[kept]).pvalue
    assert against_gradient(scores)["SG"] == pytest.approx(min(1.0, 2 * expected))
