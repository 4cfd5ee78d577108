"""Quantus's metrics through the adapter: its own numbers, sample by sample, and nothing disturbed."""

import numpy as np
import pytest
import quantus
import torch
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import Context, Saliency
from lightning_xai.metrics import LocalizationAUROC, RelevanceRankAccuracy, Sparseness
from lightning_xai.metrics.quantus import QuantusMetric

IMAGES = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
MASKS = IMAGES[:, 0] > 0.6
TARGET = torch.tensor([0, 1, 2, 1])
CONTEXT = Context.create(torch.arange(4), bounds=(0.0, 1.0))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


def score(metric, model=None, attributions=None, explainer=Saliency(), target=TARGET):
    model = network() if model is None else model
    attributions = explainer(model, IMAGES, TARGET, CONTEXT) if attributions is None else attributions
    metric.update(
        attributions, inputs=IMAGES, target=target, model=model, explainer=explainer, context=CONTEXT, mask=MASKS
    )
    return metric.per_sample()[1]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (quantus.Sparseness(abs=True, normalise=False), Sparseness(offset=1e-7)),
        (quantus.RelevanceRankAccuracy(abs=True, normalise=False), RelevanceRankAccuracy()),
        (quantus.AUC(abs=True, normalise=False), LocalizationAUROC()),
    ],
)
def test_scores_are_those_of_our_own_metrics(theirs, ours):
    model = network()
    attributions = Saliency()(model, IMAGES, TARGET, CONTEXT)
    wanted = {"mask": MASKS} if isinstance(ours, RelevanceRankAccuracy | LocalizationAUROC) else {}
    ours.update(attributions, **wanted)
    assert_close(score(QuantusMetric(theirs), model, attributions), ours.per_sample()[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "metric",
    [
        quantus.MaxSensitivity(nr_samples=2, abs=False, normalise=False),
        quantus.FaithfulnessCorrelation(nr_runs=5, subset_size=4, abs=False, normalise=False),
    ],
)
def test_random_metrics_do_not_depend_on_the_batch_and_disturb_nothing(metric):
    model = network()

    def run(batch_size):
        methods, metrics = {"sg": lx.smooth_grad(num_draws=2)}, {"theirs": QuantusMetric(metric)}
        return lx.evaluate(model, IMAGES, TARGET, methods, metrics, batch_size=batch_size).scores

    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert_close(run(4), run(3))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_the_model_and_the_attributions_are_left_as_they_were():
    model = network().train()
    attributions = torch.randn_like(IMAGES)
    before, weights = attributions.clone(), {name: value.clone() for name, value in model.state_dict().items()}
    score(QuantusMetric(quantus.Sparseness(abs=True, normalise=True)), model, attributions)
    assert torch.equal(attributions, before)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_not_handed_over(bad):
    maps = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    whole = score(QuantusMetric(quantus.Sparseness(abs=True, normalise=False)), attributions=maps)
    maps[2, 0, 3, 3] = bad
    scores = score(QuantusMetric(quantus.Sparseness(abs=True, normalise=False)), attributions=maps)
    assert scores.isnan().tolist() == [False, False, True, False]
    assert_close(scores[[0, 1, 3]], whole[[0, 1, 3]])


def test_quantus_sees_the_probability_that_the_output_says():
    """Of a single logit, the sigmoid: Quantus's softmax of it would be 1 whatever the input."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    metric = QuantusMetric(quantus.FaithfulnessEstimate(features_in_step=6), softmax=True)
    two = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    two[1].weight.data = torch.cat([torch.zeros(1, 36), model[1].weight.data])
    two[1].bias.data = torch.cat([torch.zeros(1), model[1].bias.data])  # its softmax is the other's sigmoid
    one, other = (score(metric.clone(), each, attributions=IMAGES, target=TARGET % 2) for each in (model, two))
    assert_close(one, other)


def test_not_a_metric_and_not_a_number():
    with pytest.raises(TypeError, match=r"`metric` must be a metric object of Quantus, such as quantus.Sparseness\(\)"):
        QuantusMetric.__init__.__wrapped__(QuantusMetric.__new__(QuantusMetric), quantus.Sparseness)
    curve = QuantusMetric(quantus.PixelFlipping(features_in_step=9, abs=False, normalise=False))
    with pytest.raises(ValueError, match="PixelFlipping must give one number for a sample"):
        score(curve)


def test_direction_is_given():
    assert QuantusMetric(quantus.Sparseness(), higher_is_better=True).higher_is_better is True
    assert QuantusMetric(quantus.Sparseness()).higher_is_better is None
