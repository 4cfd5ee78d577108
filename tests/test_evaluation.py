"""`explain` and `evaluate` are what one would do by hand with the explainers and the metrics."""

import copy
import sys

import pytest
import torch
from torch.testing import assert_close

import lightning_xai
from lightning_xai import evaluate, explain
from lightning_xai.explainers import (
    Context,
    Gradient,
    RandomAttribution,
    Saliency,
    adapt_grad,
    fusion_grad,
    noise_grad,
    smooth_grad,
)
from lightning_xai.functional.complexity import gini
from lightning_xai.functional.localization import auroc, relevance_rank_accuracy
from lightning_xai.functional.noise import inherent_noise
from lightning_xai.metrics import (
    InherentNoise,
    LocalizationAUROC,
    RelevanceRankAccuracy,
    Sparseness,
    mean_score,
    standard_error,
)
from lightning_xai.networks import MLP

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(10, 3, 6, 6, generator=GENERATOR)
MASKS = torch.rand(10, 6, 6, generator=GENERATOR) < 0.3
INDEX = torch.tensor([30, 2, 17, 4, 11, 6, 70, 8, 9, 1])
TARGET = torch.arange(10) % 4
METHODS = {
    "noise": noise_grad(num_draws=2),
    "adapt": adapt_grad(num_draws=3),
    "smooth": smooth_grad(num_draws=3),
    "fusion": fusion_grad(num_weight_draws=2, num_input_draws=2),
    "gradient": Gradient(),
    "a random map": RandomAttribution(),
}
METRICS = {
    "rank": RelevanceRankAccuracy(),
    "gini": Sparseness(),
    "auroc": LocalizationAUROC(),
    "noise": InherentNoise(),
}
BOUNDS = (0.0, 1.0)
ALL = {"methods": METHODS, "metrics": METRICS, "masks": MASKS, "bounds": BOUNDS, "index": INDEX, "seed": 3}


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP((3, 6, 6), hidden=(8,), num_classes=4)


def same_scores(actual, expected, **tolerance):
    assert_close(actual.index, expected.index)
    assert list(actual.scores) == list(expected.scores)
    for method, scores in actual.scores.items():
        for metric, values in scores.items():
            assert_close(values, expected.scores[method][metric], equal_nan=True, **tolerance)


def test_equals_doing_it_by_hand(model):
    result = evaluate(model, IMAGES, TARGET, **ALL)
    context, order = Context.create(INDEX, seed=3, bounds=BOUNDS), INDEX.argsort()
    assert_close(result.index, INDEX[order])
    assert list(result.scores) == list(METHODS)
    for name, method in METHODS.items():
        attributions = method(model, IMAGES, TARGET, context)
        std = method.noise_std(IMAGES, context)
        expected = {
            "rank": relevance_rank_accuracy(attributions, MASKS),
            "gini": gini(attributions),
            "auroc": auroc(attributions, MASKS),
            "noise": inherent_noise(IMAGES, torch.zeros(1) if std is None else std, *context.bounds),
        }
        assert list(result.scores[name]) == [*METRICS, "gradients"]
        for metric, values in expected.items():
            assert_close(result.scores[name][metric], values[order], rtol=1e-4, atol=1e-5)
    directions = {"rank": True, "gini": True, "auroc": True, "noise": False, "gradients": None}
    assert result.higher_is_better == directions
    assert result.scores["smooth"]["noise"].min() > result.scores["adapt"]["noise"].max() > 0


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_scores_do_not_depend_on_the_batch_size(model, batch_size):
    whole = evaluate(model, IMAGES, None, **ALL, keep_attributions=5)
    parts = evaluate(model, IMAGES, None, **ALL, keep_attributions=5, batch_size=batch_size)
    same_scores(parts, whole, rtol=1e-4, atol=1e-4)
    for name in METHODS:
        assert_close(parts.attributions[name], whole.attributions[name], rtol=1e-4, atol=1e-5)


def test_scores_do_not_depend_on_the_company(model):
    whole = evaluate(model, IMAGES, TARGET, **ALL)
    rows = [7, 2, 3]
    part = evaluate(model, IMAGES[rows], TARGET[rows], **ALL | {"masks": MASKS[rows], "index": INDEX[rows]})
    places = torch.searchsorted(whole.index, part.index)
    for method in METHODS:
        for metric in METRICS:
            assert_close(part.scores[method][metric], whole.scores[method][metric][places], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_without_gradients(model, mode):
    expected = evaluate(model, IMAGES, TARGET, **ALL)
    with mode():
        images, target, masks = IMAGES.clone(), TARGET.clone(), MASKS.clone()
        same_scores(evaluate(model, images, target, **ALL | {"masks": masks}), expected)
        assert_close(explain(model, images, target), explain(model, IMAGES, TARGET))


def test_keeps_the_first_attributions(model):
    result = evaluate(model, IMAGES, TARGET, **ALL, batch_size=4, keep_attributions=6)
    assert_close(result.images, IMAGES[:6])
    assert_close(result.masks, MASKS[:6])
    assert_close(result.target, TARGET[:6])
    assert_close(result.predicted, model(IMAGES[:6]).argmax(1))
    for name, method in METHODS.items():
        expected = method(model, IMAGES, TARGET, Context.create(INDEX, seed=3, bounds=BOUNDS))[:6]
        assert_close(result.attributions[name], expected, rtol=1e-4, atol=1e-5)


def test_keeps_nothing_unless_asked(model):
    result = evaluate(model, IMAGES, TARGET, METHODS, bounds=BOUNDS)
    assert len(result.images) == len(result.target) == len(result.predicted) == 0
    assert result.masks is None
    assert all(len(attributions) == 0 for attributions in result.attributions.values())


def test_metrics_are_copied_not_written_to(model):
    metrics = {"gini": Sparseness()}
    metrics["gini"].update(IMAGES[:3])
    before = copy.deepcopy(metrics["gini"].per_sample())
    result = evaluate(model, IMAGES, TARGET, {"gradient": Gradient()}, metrics)
    assert len(result.scores["gradient"]["gini"]) == 10
    assert_close(metrics["gini"].per_sample(), before)


def test_model_and_inputs_are_left_alone(model):
    images, state = IMAGES.clone(), copy.deepcopy(model.state_dict())
    model.train()
    random = torch.get_rng_state()
    evaluate(model, images, TARGET, **ALL)
    assert_close(images, IMAGES, rtol=0, atol=0)
    assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert_close(torch.get_rng_state(), random, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_means_and_standard_errors(model):
    result = evaluate(model, IMAGES, TARGET, **ALL | {"masks": MASKS & (torch.arange(10) > 2)[:, None, None]})
    rank = result.scores["noise"]["rank"]
    assert rank.isnan().sum() == 3
    assert result.means()["noise"]["rank"] == pytest.approx(mean_score(rank).item())
    assert result.standard_errors()["noise"]["rank"] == pytest.approx(standard_error(rank).item())
    assert result.means()["noise"]["rank"] == pytest.approx(rank.nanmean().item())


def test_default_methods_and_metrics_are_those_that_the_data_allow(model):
    result = evaluate(model, IMAGES)
    assert {name: list(scores) for name, scores in result.scores.items()} == {
        "smooth_grad": ["sparseness", "gradients"]
    }
    assert_close(result.index, torch.arange(10))
    result = evaluate(model, IMAGES, masks=MASKS, bounds=BOUNDS)
    metrics = ["sparseness", "relevance_rank_accuracy", "auroc", "inherent_noise", "gradients"]
    assert list(result.scores["smooth_grad"]) == metrics


def test_target_none_explains_the_predicted_classes(model):
    predicted = model(IMAGES).argmax(1)
    same_scores(evaluate(model, IMAGES, None, **ALL), evaluate(model, IMAGES, predicted, **ALL))


def test_explain_is_a_call_of_the_explainer(model):
    context = Context.create(INDEX, seed=3, bounds=BOUNDS)
    for method in METHODS.values():
        expected = method(model, IMAGES, TARGET, context)
        actual = explain(model, IMAGES, TARGET, method, bounds=BOUNDS, index=INDEX, seed=3)
        assert_close(actual, expected, rtol=0, atol=0)
    assert_close(explain(model, IMAGES), smooth_grad()(model, IMAGES))
    assert_close(explain(model, IMAGES, max_rows=2), smooth_grad()(model, IMAGES), rtol=1e-5, atol=1e-6)


def test_the_package_offers_them_at_the_top():
    assert lightning_xai.explain is explain
    assert lightning_xai.evaluate is evaluate
    for name in lightning_xai.__all__:
        assert hasattr(lightning_xai, name)


def test_an_exception_says_with_which_method_metric_and_samples_it_came(model):
    class Picky(Sparseness):
        def update(self, attributions, *, index=None):
            if 9 in index.tolist():
                raise KeyError("nine")
            super().update(attributions, index=index)

    with pytest.raises(KeyError, match="nine") as told:
        evaluate(model, IMAGES, TARGET, {"a": Gradient()}, {"picky": Picky()}, index=INDEX, batch_size=8)
    assert told.value.__notes__ == ["in the metric picky", "in the method a, samples 9, 1"]
    with pytest.raises(KeyError, match="nine") as told:
        evaluate(model, IMAGES, TARGET, {"a": Gradient()}, {"picky": Picky()}, index=INDEX)
    assert told.value.__notes__[1] == "in the method a, samples 30, 2, 17, 4, 11, ..., 1"


def test_progress_bar_is_shown_only_when_asked(model, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    evaluate(model, IMAGES, TARGET, {"saliency": Saliency()})
    assert capsys.readouterr().err == ""
    evaluate(model, IMAGES, TARGET, {"saliency": Saliency()}, progress=True)
    assert "explaining" in capsys.readouterr().err


def test_plain_names_are_the_objects_they_name(model):
    named = evaluate(model, IMAGES[:3], 0, ["gradient", "smooth_grad"], ["sparseness"])
    objects = {"gradient": Gradient(), "smooth_grad": lightning_xai.smooth_grad()}
    expected = evaluate(model, IMAGES[:3], 0, objects, {"sparseness": Sparseness()})
    assert_close(named.scores, expected.scores, rtol=0, atol=0)
    with pytest.raises(ValueError, match="`methods`: 'smoth_grad' is unknown: did you mean 'smooth_grad'"):
        evaluate(model, IMAGES[:3], 0, {"a": "smoth_grad"})
    with pytest.raises(ValueError, match=r"^`method`: 'smoth_grad' is unknown: did you mean 'smooth_grad'"):
        lightning_xai.explain(model, IMAGES[:3], 0, "smoth_grad")
