"""What explanations cost: gradients are counted, and methods are made to cost the same."""

import math
from dataclasses import dataclass

import captum.attr
import pytest
import torch
from torch import nn

import lightning_xai as lx
from lightning_xai.explainers import (
    CaptumExplainer,
    Explainer,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    RandomAttribution,
    Saliency,
    Smooth,
    SobelEdges,
    Untrained,
    grad_cam,
    gradient_shap,
    guided_backprop,
    with_controls,
    with_gradients,
)
from lightning_xai.explainers.cost import counting_gradients
from lightning_xai.metrics import MaxSensitivity, Sparseness
from lightning_xai.reporting.render import markdown_table
from lightning_xai.reporting.tables import score_table

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FEW = lx.smooth_grad(num_draws=3)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval()


def spent(explainer, **options):
    scores = lx.evaluate(net(), IMAGES, 0, {"method": explainer}, {}, bounds=(0.0, 1.0), **options).scores
    return scores["method"]["gradients"]


@pytest.mark.parametrize(
    ("explainer", "expected"),
    [
        (Gradient(), 1),
        (Saliency(), 1),
        (InputXGradient(FEW), 3),
        (FEW, 3),
        (Smooth(num_draws=3, include_clean=True), 4),
        (lx.adapt_grad(num_draws=4), 4),
        (lx.noise_grad(num_draws=5), 5),
        (lx.fusion_grad(num_weight_draws=2, num_input_draws=3), 6),
        (IntegratedGradients(FEW, num_steps=4), 12),
        (guided_backprop(), 1),
        (grad_cam(), 1),
        (gradient_shap(num_draws=6), 6),
        (CaptumExplainer(captum.attr.IntegratedGradients, {"n_steps": 7}), 7),
        (CaptumExplainer(captum.attr.FeatureAblation), 0),  # runs the model forward only
        (SobelEdges(), 0),
        (RandomAttribution(), 0),
    ],
)
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"max_rows": 4}])
def test_an_evaluation_counts_the_gradients_of_each_sample(explainer, expected, options):
    assert spent(explainer, **options).tolist() == [expected] * 5


def test_what_the_metrics_spend_is_not_the_methods_cost():
    metrics = {"robustness": MaxSensitivity(num_draws=2), "sparseness": Sparseness()}
    scores = lx.evaluate(net(), IMAGES, None, {"gradient": Gradient()}, metrics).scores["gradient"]
    assert list(scores) == ["robustness", "sparseness", "gradients"]
    assert scores["gradients"].tolist() == [1] * 5


def test_counting_leaves_no_hook_also_after_an_error():
    model = net()
    with pytest.raises(ZeroDivisionError), counting_gradients(model):
        1 / 0  # noqa: B018
    assert not model._forward_hooks


def test_backward_passes_of_other_models_are_not_counted():
    model, other = net(), net()
    with counting_gradients(model) as count:
        Gradient()(other, IMAGES, 0)
    assert count.total == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_the_cost_of_a_torchscript_model_is_unknown():
    model = torch.jit.trace(net(), IMAGES)
    evaluation = lx.evaluate(model, IMAGES, 0, {"gradient": Gradient()})
    assert all(math.isnan(value) for value in evaluation.scores["gradient"]["gradients"])
    text = markdown_table(score_table(evaluation.to_scores()))
    assert "| unknown |" in text
    assert "†" not in text


def test_tables_show_the_cost_as_a_number():
    evaluation = lx.evaluate(net(), IMAGES, 0, {"smooth_grad": FEW})
    assert markdown_table(score_table(evaluation.to_scores())).splitlines()[2].endswith(" | 3 |")


def test_the_name_of_the_cost_is_taken():
    with pytest.raises(ValueError, match="'gradients' is the name of what a method spends; choose another name"):
        lx.evaluate(net(), IMAGES, 0, {"gradient": Gradient()}, {"gradients": Sparseness()})


@pytest.mark.parametrize("explainer", [FEW, lx.adapt_grad(), lx.noise_grad(), InputXGradient(FEW), Saliency(FEW)])
@pytest.mark.parametrize("num_gradients", [1, 7, 20])
def test_with_gradients_spends_that_many(explainer, num_gradients):
    assert spent(with_gradients(explainer, num_gradients)).tolist() == [num_gradients] * 5


@pytest.mark.parametrize(
    ("explainer", "num_gradients", "expected"),
    [
        (lx.fusion_grad(), 100, 100),
        (lx.fusion_grad(), 20, 20),  # 4 models, 5 inputs each
        (lx.fusion_grad(), 10, 10),  # 2 models, 5 inputs each, and not 3 and 3
        (lx.fusion_grad(), 13, 12),  # 4 models, 3 inputs each: 13 is prime
        (lx.fusion_grad(), 1, 1),
        (lx.fusion_grad(num_weight_draws=2, num_input_draws=8), 36, 36),  # 3 and 12: the ratio is kept
        (IntegratedGradients(FEW, num_steps=4), 22, 20),  # 5 draws at each step
        (IntegratedGradients(FEW, num_steps=4), 2, 4),  # a draw is the least
        (Gradient(), 50, 1),
        (IntegratedGradients(num_steps=4), 50, 4),
        (RandomAttribution(), 50, 0),
    ],
)
def test_with_gradients_of_nested_draws_and_of_none(explainer, num_gradients, expected):
    assert spent(with_gradients(explainer, num_gradients)).tolist() == [expected] * 5


def test_with_gradients_changes_nothing_but_the_numbers_of_draws():
    wanted = lx.fusion_grad(Saliency(Gradient()), 0.1, 0.3, 3, 12)
    assert with_gradients(lx.fusion_grad(Saliency(Gradient()), 0.1, 0.3, 2, 8), 36) == wanted


@dataclass(frozen=True)
class SignedRoot(Explainer):
    """Somebody's own wrapper."""

    explainer: Explainer = FEW

    def attribute(self, model, inputs, target, context):
        maps = self.explainer.attribute(model, inputs, target, context)
        return maps.sign() * maps.abs().sqrt()


def test_with_gradients_reaches_into_other_peoples_wrappers():
    assert spent(with_gradients(SignedRoot(), 8)).tolist() == [8] * 5


def test_with_gradients_refuses_less_than_one():
    with pytest.raises(ValueError, match="`num_gradients` must be at least 1, got 0"):
        with_gradients(FEW, 0)


def test_controls_are_added_once():
    methods = {"noise": RandomAttribution(), "gradient": Gradient()}
    assert with_controls(methods) == {**methods, "edges": SobelEdges()}
    assert with_controls({"gradient": Gradient()}) == {
        "gradient": Gradient(),
        "edges": SobelEdges(),
        "random": RandomAttribution(),
    }
    assert list(with_controls({"gradient": Gradient()}, images=False)) == ["gradient", "random"]


def test_the_untrained_control_is_of_the_first_method_that_looks_at_the_network():
    methods = {"noise": RandomAttribution(), "few": FEW, "gradient": Gradient()}
    assert with_controls(methods, controls=["untrained"]) == {**methods, "untrained": Untrained(FEW)}
    assert list(with_controls(methods, False, ["edges", "untrained"])) == [*methods, "untrained"]
    assert with_controls(methods, controls=False) == methods
    with pytest.raises(ValueError, match=r"`untrained` is a method on the untrained .* none of `methods` looks"):
        with_controls({"noise": RandomAttribution()}, controls=["untrained"])
    with pytest.raises(ValueError, match="`controls` must be of edges, random, untrained, got 'rnadom'"):
        with_controls(methods, controls=["rnadom"])
    with pytest.raises(TypeError, match=r"`controls` must be True, False or a list of .*, got 'untrained'"):
        with_controls(methods, controls="untrained")


def test_the_controls_names_are_theirs():
    """A method of that name would be taken for the control by every table and figure, if not be replaced by it."""
    assert with_controls({"random": RandomAttribution()}) == {"random": RandomAttribution(), "edges": SobelEdges()}
    named = {"edges": FEW, "random": SobelEdges()}
    for name, method in named.items():
        for others in ({}, {"noise": RandomAttribution(), "sobel": SobelEdges()}):
            for images in (True, False):
                with pytest.raises(ValueError, match=rf"`methods`: '{name}' is the name of the control.*another name"):
                    with_controls({name: method, **others}, images)
