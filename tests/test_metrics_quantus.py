"""Quantus as an oracle, on the same attributions; where it differs, a test says how."""

import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional.complexity import effective_complexity, entropy, gini
from lightning_xai.functional.localization import (
    auroc,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)
from lightning_xai.functional.maps import pixel_map

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus

GENERATOR = torch.Generator().manual_seed(0)
ATTRIBUTIONS = torch.randn(16, 3, 8, 8, generator=GENERATOR)
MASK = torch.rand(16, 8, 8, generator=GENERATOR) < 0.3


# Equal values in every map; the constants differ, because Quantus refuses a batch of equal values.
CONSTANT = torch.arange(1.0, 17.0).view(16, 1, 1, 1).expand(16, 1, 8, 8)
SHARE = MASK.float().mean((1, 2))


def reference(metric, attributions, absolute=True, mask=MASK, **options):
    """Quantus's scores of the pixel maps; all samples in one batch, nothing normalized unless `options` say so."""
    size = len(attributions)
    metric = metric(**{"abs": absolute, "normalise": False, "disable_warnings": True, **options})
    scores = metric(
        model=nn.Identity(),
        x_batch=torch.zeros(size, 3, 8, 8).numpy(),
        y_batch=torch.zeros(size).long().numpy(),
        a_batch=pixel_map(attributions, absolute)[:, None].numpy().copy(),
        s_batch=mask[:size, None].numpy(),
        batch_size=size,
        device="cpu",
    )
    return torch.tensor(scores, dtype=torch.float32)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-8])
def test_sparseness_with_its_offset(scale):
    expected = reference(quantus.Sparseness, scale * ATTRIBUTIONS)
    assert_close(gini(scale * ATTRIBUTIONS, offset=1e-7), expected, atol=1e-5, rtol=0)


def test_its_offset_makes_sparseness_depend_on_the_scale():
    assert_close(gini(ATTRIBUTIONS), reference(quantus.Sparseness, ATTRIBUTIONS), atol=1e-5, rtol=0)
    tiny = 1e-8 * ATTRIBUTIONS
    assert (gini(tiny) - reference(quantus.Sparseness, tiny) > 0.25).all()


def test_relevance_rank_accuracy():
    expected = reference(quantus.RelevanceRankAccuracy, ATTRIBUTIONS)
    assert_close(relevance_rank_accuracy(ATTRIBUTIONS, MASK), expected, atol=1e-5, rtol=0)


def test_its_rank_accuracy_of_ties_depends_on_where_they_are():
    """A constant map says nothing, so the score should be the mask's share; Quantus ranks by position."""
    assert_close(relevance_rank_accuracy(CONSTANT, MASK), SHARE)
    assert (reference(quantus.RelevanceRankAccuracy, CONSTANT) - SHARE).abs().max() > 0.05


def test_relevance_mass_accuracy():
    expected = reference(quantus.RelevanceMassAccuracy, ATTRIBUTIONS)
    assert_close(relevance_mass_accuracy(ATTRIBUTIONS, MASK), expected, atol=1e-5, rtol=0)
    positive = ATTRIBUTIONS.sum(1, keepdim=True).relu()
    expected = reference(quantus.RelevanceMassAccuracy, positive, absolute=False)
    assert_close(relevance_mass_accuracy(ATTRIBUTIONS, MASK, absolute=False), expected, atol=1e-5, rtol=0)


def test_its_mass_accuracy_of_signed_maps_is_no_share():
    """Quantus sums negative values too: with `abs=False`, its default, scores leave [0, 1]."""
    scores = reference(quantus.RelevanceMassAccuracy, ATTRIBUTIONS, absolute=False)
    assert scores.min() < -0.1
    assert scores.max() > 1.1
    ours = relevance_mass_accuracy(ATTRIBUTIONS, MASK, absolute=False)
    assert ((ours > 0) & (ours < 1)).all()


@pytest.mark.parametrize("absolute", [True, False])
def test_pointing_game(absolute):
    expected = reference(quantus.PointingGame, ATTRIBUTIONS, absolute)
    assert_close(pointing_game(ATTRIBUTIONS, MASK, absolute), expected, atol=1e-5, rtol=0)


def test_its_pointing_game_hits_with_any_of_the_tied_pixels():
    assert_close(pointing_game(CONSTANT, MASK), SHARE)
    assert_close(reference(quantus.PointingGame, CONSTANT), torch.ones(16))


def test_its_pointing_game_counts_an_empty_mask_as_a_hit():
    """It writes NaN into a boolean array, which makes it True."""
    mask = MASK.clone()
    mask[4] = False
    assert pointing_game(ATTRIBUTIONS, mask)[4].isnan()
    assert reference(quantus.PointingGame, ATTRIBUTIONS, mask=mask)[4] == 1


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("k", [1, 5, 63])
def test_top_k_intersection(k, absolute):
    expected = reference(quantus.TopKIntersection, ATTRIBUTIONS, absolute, k=k)
    assert_close(top_k_intersection(ATTRIBUTIONS, MASK, k, absolute), expected, atol=1e-5, rtol=0)


def test_its_top_k_intersection_of_ties_depends_on_where_they_are():
    assert_close(top_k_intersection(CONSTANT, MASK, 10), SHARE)
    assert (reference(quantus.TopKIntersection, CONSTANT, k=10) - SHARE).abs().max() > 0.05


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
@pytest.mark.parametrize("attributions", [ATTRIBUTIONS, ATTRIBUTIONS.round()], ids=["dense", "with zeros"])
def test_complexity(attributions, scale):
    expected = reference(quantus.Complexity, scale * attributions)
    assert_close(entropy(scale * attributions), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("eps", [1e-5, 0.5, 2.0])
def test_effective_complexity_with_its_threshold(eps):
    expected = reference(quantus.EffectiveComplexity, ATTRIBUTIONS, eps=eps)
    assert_close(effective_complexity(ATTRIBUTIONS, eps, relative=False), expected, atol=1e-5, rtol=0)


def test_its_normalized_effective_complexity_depends_on_the_other_samples():
    """By default Quantus divides by the greatest value of all samples that it is given; alone, a sample's own."""
    options = {"normalise": True, "eps": 0.1}
    alone = torch.cat([reference(quantus.EffectiveComplexity, row, **options) for row in ATTRIBUTIONS.split(1)])
    assert_close(effective_complexity(ATTRIBUTIONS, 0.1), alone)
    assert (alone - reference(quantus.EffectiveComplexity, ATTRIBUTIONS, **options)).max() >= 5


def test_its_effective_complexity_of_nothing_is_the_best():
    attributions = ATTRIBUTIONS.clone()
    attributions[4] = 0
    assert effective_complexity(attributions, 1e-5, relative=False)[4].isnan()
    assert reference(quantus.EffectiveComplexity, attributions)[4] == 0


@pytest.mark.parametrize("attributions", [ATTRIBUTIONS, ATTRIBUTIONS.round()], ids=["distinct", "tied"])
def test_auroc(attributions):
    assert_close(auroc(attributions, MASK), reference(quantus.AUC, attributions), atol=1e-5, rtol=0)
