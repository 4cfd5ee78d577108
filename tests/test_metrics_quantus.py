"""Quantus as an oracle, on the same attributions; where it differs, a test says how."""

import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.functional.complexity import gini
from lightning_xai.functional.localisation import auroc, relevance_rank_accuracy
from lightning_xai.functional.maps import pixel_map

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus

GENERATOR = torch.Generator().manual_seed(0)
ATTRIBUTIONS = torch.randn(16, 3, 8, 8, generator=GENERATOR)
MASK = torch.rand(16, 8, 8, generator=GENERATOR) < 0.3


def reference(metric, attributions, absolute=True):
    """Quantus's scores of the pixel maps; all samples in one batch, nothing normalised."""
    metric = metric(abs=True, normalise=False, disable_warnings=True)
    maps = pixel_map(attributions, absolute)[:, None].numpy().copy()
    scores = metric(
        model=nn.Identity(),
        x_batch=torch.zeros(16, 3, 8, 8).numpy(),
        y_batch=torch.zeros(16).long().numpy(),
        a_batch=maps,
        s_batch=MASK[:, None].numpy(),
        batch_size=16,
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
    """A constant map says nothing, so the score should be the mask's share; Quantus ranks by position.

    The constants differ, because Quantus refuses a batch of equal values.
    """
    constant = torch.arange(1.0, 17.0).view(16, 1, 1, 1).expand(16, 1, 8, 8)
    assert_close(relevance_rank_accuracy(constant, MASK), MASK.float().mean((1, 2)))
    assert (reference(quantus.RelevanceRankAccuracy, constant) - MASK.float().mean((1, 2))).abs().max() > 0.05


@pytest.mark.parametrize("attributions", [ATTRIBUTIONS, ATTRIBUTIONS.round()], ids=["distinct", "tied"])
def test_auroc(attributions):
    assert_close(auroc(attributions, MASK), reference(quantus.AUC, attributions), atol=1e-5, rtol=0)
