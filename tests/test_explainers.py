"""Laws that every explainer keeps, whatever it computes."""

import random
from contextlib import nullcontext
from functools import cache

import jaxtyping
import numpy as np
import pytest
import torch
from captum.attr import Attribution, DeepLift, Occlusion
from torch import nn
from torch.testing import assert_close

from lightning_xai.explainers import (
    CaptumExplainer,
    Context,
    Gradient,
    InputAttribution,
    InputXGradient,
    InRangeScale,
    IntegratedGradients,
    PerturbWeights,
    RandomAttribution,
    RangeScale,
    Saliency,
    Smooth,
    SmoothDiff,
    SobelEdges,
    Untrained,
    adapt_grad,
    fusion_grad,
    grad_cam,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
    noise_grad,
    smooth_grad,
)

CONTROLS = {"random": RandomAttribution(), "input": InputAttribution(), "sobel": SobelEdges()}
IMAGES_ONLY = {"sobel", "grad_cam", "guided_grad_cam", "occlusion", "noise_grad of grad_cam"}
SG, AG = smooth_grad(num_draws=3), adapt_grad(num_draws=3)
METHODS = {
    **CONTROLS,
    "gradient": Gradient(),
    "saliency": Saliency(),
    "input_x_gradient": InputXGradient(),
    "integrated_gradients": IntegratedGradients(num_steps=5),
    "integrated_gradients of white": IntegratedGradients(baseline="white", num_steps=4),
    "smooth_grad": SG,
    "smooth_grad of data": smooth_grad(num_draws=3, of="data"),
    "smooth_grad with clean": Smooth(num_draws=3, include_clean=True),
    "var_grad": Smooth(num_draws=3, statistic="variance"),
    "smooth_grad squared": Smooth(num_draws=3, statistic="mean_square"),
    "adapt_grad": AG,
    "adapt_grad exact": Smooth(Gradient(), InRangeScale(solution="exact"), 3),
    "noise_grad": noise_grad(num_draws=3),
    "noise_grad additive": PerturbWeights(num_draws=3, noise="additive", include=("*.weight",)),
    "fusion_grad": fusion_grad(num_weight_draws=2, num_input_draws=2),
    "S-GI": InputXGradient(SG),
    "A-GI": InputXGradient(AG),
    "S-IG": IntegratedGradients(SG, num_steps=3),
    "A-IG": IntegratedGradients(AG, num_steps=3),
    "smooth_grad of IG": smooth_grad(IntegratedGradients(num_steps=3), num_draws=2),
    "smooth_grad of GI": smooth_grad(InputXGradient(), num_draws=3),
    "S-NG": PerturbWeights(SG, num_draws=2),
    "A-NG": PerturbWeights(AG, num_draws=2),
    "smooth_grad of noise_grad": smooth_grad(noise_grad(num_draws=2), num_draws=2),
    "smooth_grad of smooth_grad": smooth_grad(SG, num_draws=2),
    "untrained": Untrained(SG),
    "smooth_grad of random": smooth_grad(RandomAttribution(), num_draws=2),
    "stratified smooth_grad": Smooth(num_draws=3, sampling="stratified"),
    "stratified noise_grad": PerturbWeights(num_draws=3, sampling="stratified"),
    "smooth_diff": SmoothDiff(num_draws=3),
    "adapt_diff": SmoothDiff(InRangeScale(), 3),
    "noise_grad of smooth_diff": PerturbWeights(SmoothDiff(num_draws=2), num_draws=2),
    "guided_backprop": guided_backprop(),
    "grad_cam": grad_cam(),
    "guided_grad_cam": guided_grad_cam(),
    "gradient_shap": gradient_shap(num_draws=3, std=0.1),
    "deep_lift": CaptumExplainer(DeepLift, baseline="black"),
    "occlusion": CaptumExplainer(Occlusion, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 2, 2)}),
    "smooth_grad of guided_backprop": smooth_grad(guided_backprop(), num_draws=2),
    "smooth_grad of gradient_shap": smooth_grad(gradient_shap(num_draws=2, std=0.1), num_draws=2),
    "noise_grad of grad_cam": noise_grad(grad_cam(), num_draws=2),
}
SLOW = {
    *("integrated_gradients of white", "smooth_grad of data", "smooth_grad with clean"),
    *("adapt_grad exact", "A-GI", "A-NG", "S-IG", "smooth_grad of GI", "smooth_grad of smooth_grad"),
    *("smooth_grad of random", "smooth_grad of guided_backprop", "smooth_grad of gradient_shap"),
}
"""Cousins of others, for the slow run."""


def each(names):
    marked = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]
    return pytest.mark.parametrize("name", marked)


every_method = each(METHODS)
USE_THE_MODEL = [name for name in METHODS if name not in CONTROLS and name != "smooth_grad of random"]
every_model_method = each(USE_THE_MODEL)
BOUNDS = [-1.0, -0.5, 0.0], [1.0, 1.5, 2.0]


class Net(nn.Module):
    """A network with everything that could be left changed: batch norm and dropout, in training mode."""

    def __init__(self, features):
        super().__init__()
        self.features = features
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 5))
        self.fail_at, self.fail_in, self.calls = None, "forward", 0

    def forward(self, x):
        self.calls += 1
        logits = self.head(self.features(x))
        if self.calls == self.fail_at and self.fail_in == "forward":
            raise ArithmeticError("in the forward pass")
        if self.fail_at and self.calls >= self.fail_at and logits.requires_grad:
            logits.register_hook(self.fail)
        return logits

    @staticmethod
    def fail(gradient):
        raise ArithmeticError("in the backward pass")


def build(features, inputs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(features()).train()
        for _ in range(3):
            net(inputs)  # running statistics, and the lazy layer's shape
        with torch.no_grad():
            net.head[-1].bias -= net.eval()(inputs).mean(0)  # so that the predicted classes differ
    net.calls = 0
    return net.train()


def images_and_net(dtype=torch.float32):
    inputs = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1.5 - 0.3
    net = build(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), inputs)
    return inputs.to(dtype), net.to(dtype)


def context(inputs, rows=slice(None), **options):
    index = torch.tensor([5, 0, 2, 9])[rows]
    return Context.create(index, seed=7, **{"bounds": BOUNDS if inputs.ndim == 4 else (-1.0, 2.0), **options})


@cache
def reference(name):
    inputs, net = images_and_net()
    return METHODS[name](net, inputs, None, context(inputs))


def state(net):
    """All that an explainer could have changed, in a form that can be compared."""
    return {
        "weights": {key: value.clone() for key, value in net.state_dict().items()},
        "modes": [module.training for module in net.modules()],
        "gradients": {key: (p.requires_grad, p.grad) for key, p in net.named_parameters()},
        "identity": {key: id(p) for key, p in net.named_parameters()},
        "hooks": [
            {key: list(value) for key, value in vars(module).items() if "hooks" in key and value}
            for module in net.modules()
        ],
        "attributes": [sorted(vars(module)) for module in net.modules()],
        "random": [torch.get_rng_state(), random.getstate(), np.random.get_state()],  # noqa: NPY002
        "switches": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
    }


@pytest.fixture
def no_type_checker(monkeypatch):
    """beartype draws from Python's random numbers to pick the elements that it checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


unchecked = pytest.mark.usefixtures("no_type_checker")


def same(actual, expected):
    """Equal bit for bit, through containers."""
    assert type(actual) is type(expected)
    if isinstance(actual, torch.Tensor | np.ndarray):
        assert_close(torch.as_tensor(actual), torch.as_tensor(expected), rtol=0, atol=0, equal_nan=True)
    elif isinstance(actual, dict):
        same(list(actual), list(expected))
        same(list(actual.values()), list(expected.values()))
    elif isinstance(actual, list | tuple):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            same(one, other)
    else:
        assert actual == expected


@every_method
def test_attributions_are_shaped_like_the_inputs_and_finite(name):
    attributions = reference(name)
    assert attributions.shape == (4, 3, 8, 8)
    assert attributions.dtype == torch.float32
    assert attributions.isfinite().all()
    assert not attributions.requires_grad
    if "grad_cam" not in name:  # its final ReLU may leave nothing
        assert attributions.flatten(1).any(1).all()


@every_method
def test_same_whatever_the_chunk_size(name):
    inputs, net = images_and_net()
    for max_rows in (1, 3):
        attributions = METHODS[name](net, inputs, None, context(inputs, max_rows=max_rows))
        assert_close(attributions, reference(name), rtol=1e-5, atol=1e-6)


@every_method
def test_same_whatever_the_batch_and_the_order(name):
    inputs, net = images_and_net()
    for rows in ([2], [3, 1], [3, 2, 1, 0]):
        attributions = METHODS[name](net, inputs[rows], None, context(inputs, rows))
        assert_close(attributions, reference(name)[rows], rtol=1e-5, atol=1e-6)


@every_method
@unchecked
def test_nothing_is_changed(name):
    inputs, net = images_and_net()
    net.head[0].eval()  # mixed modes stay mixed
    net.head[4].weight.requires_grad_(False)
    net.head[4].bias.grad = torch.ones(5)
    inputs.requires_grad_()
    before, original = state(net), inputs.detach().clone()
    METHODS[name](net, inputs, None, context(inputs))
    same(state(net), before)
    same(inputs.detach(), original)
    assert inputs.requires_grad
    assert inputs.grad is None


@pytest.mark.parametrize(
    ("name", "where"),
    [(name, "forward") for name in USE_THE_MODEL]
    + [(name, "backward") for name in USE_THE_MODEL if name != "occlusion"],
)
@unchecked
def test_nothing_is_changed_when_the_model_raises(name, where):
    inputs, net = images_and_net()
    for net.calls in (0, 0):  # the second time, nothing is measured any more
        METHODS[name](net, inputs, None, context(inputs, max_rows=2))
    last, net.fail_in = net.calls, where
    assert last > 3
    for net.fail_at in {3, last}:
        net.calls = 0
        before = state(net)
        with pytest.raises(ArithmeticError, match=f"in the {where} pass"):
            METHODS[name](net, inputs, None, context(inputs, max_rows=2))
        same(state(net), before)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, nullcontext])
def test_works_without_gradients_and_with_frozen_parameters(name, mode):
    _, net = images_and_net()
    net.requires_grad_(mode is not nullcontext)
    with mode():
        inputs = images_and_net()[0].clone()
        target = reference_target().clone()
        assert inputs.is_inference() == target.is_inference() == (mode is torch.inference_mode)
        for given in (target, None) if mode is torch.inference_mode else (target,):
            assert_close(METHODS[name](net, inputs, given, context(inputs)), reference(name), rtol=1e-5, atol=1e-6)


def reference_target():
    """What the clean model predicts in evaluation mode."""
    inputs, net = images_and_net()
    with torch.no_grad():
        target = net.eval()(inputs).argmax(1)
    assert len(target.unique()) > 1
    return target


@every_method
def test_target_none_is_the_class_that_the_clean_model_predicts(name):
    inputs, net = images_and_net()
    target = reference_target()
    assert_close(METHODS[name](net, inputs, target, context(inputs)), reference(name), rtol=1e-5, atol=1e-6)


@every_model_method
def test_target_may_be_one_class_for_all(name):
    inputs, net = images_and_net()
    one = METHODS[name](net, inputs, 3, context(inputs))
    assert_close(METHODS[name](net, inputs, torch.full((4,), 3), context(inputs)), one, rtol=0, atol=0)
    other = METHODS[name](net, inputs, 1, context(inputs))
    assert not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


@every_method
def test_double_precision(name):
    inputs, net = images_and_net(torch.float64)
    attributions = METHODS[name](net, inputs, None, context(inputs))
    assert attributions.dtype == torch.float64
    if "gradient_shap" not in name and name != "untrained":  # which draw other numbers in double precision
        assert_close(attributions.float(), reference(name), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in IMAGES_ONLY])
def test_inputs_need_not_be_images(name):
    inputs = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    net = build(lambda: nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU()), inputs)
    attributions = METHODS[name](net, inputs, None, context(inputs))
    assert attributions.shape == inputs.shape
    assert attributions.isfinite().all()
    alone = METHODS[name](net, inputs[1:2], None, context(inputs, slice(1, 2)))
    assert_close(alone, attributions[1:2], rtol=1e-5, atol=1e-6)


@every_method
def test_explainers_are_values(name):
    method = METHODS[name]
    with pytest.raises(AttributeError):
        method.anything = 1
    assert repr(method).startswith(type(method).__name__)
    assert method == METHODS[name]


@pytest.mark.parametrize("name", [name for name in METHODS if "smooth_grad" in name or name.startswith(("S-", "A-"))])
def test_noise_depends_on_seed_and_index(name):
    inputs, net = images_and_net()
    for index, seed in ((torch.tensor([5, 0, 2, 9]), 8), (torch.tensor([6, 1, 3, 10]), 7)):
        other = METHODS[name](net, inputs, None, Context.create(index, seed, bounds=BOUNDS))
        assert not (other - reference(name)).flatten(1).abs().amax(1).eq(0).any()


def test_default_context_numbers_the_samples_from_zero():
    inputs, net = images_and_net()
    expected = SG(net, inputs, 0, Context.create(torch.arange(4), seed=0))
    assert_close(SG(net, inputs, 0), expected, rtol=0, atol=0)


def test_noise_std_reaches_through_wrappers():
    inputs, _ = images_and_net()
    scale = RangeScale(0.2)(inputs, context(inputs))
    for method in (SG, Saliency(SG), InputXGradient(SG), IntegratedGradients(SG), PerturbWeights(SG)):
        assert_close(method.noise_std(inputs, context(inputs)), scale)
    for method in (Gradient(), Saliency(), noise_grad(), grad_cam(), RandomAttribution()):
        assert method.noise_std(inputs, context(inputs)) is None
    both = Smooth(SG, RangeScale(0.2)).noise_std(inputs, context(inputs))
    assert_close(both, 2**0.5 * scale)


class GlobalRandom(Attribution):
    """A method that draws from the global random state, as Captum's do."""

    def attribute(self, inputs, target):
        return torch.randn(inputs.shape)


@pytest.mark.parametrize("method", [RandomAttribution(), CaptumExplainer(GlobalRandom, stochastic=True)])
def test_smoothed_random_map_is_independent_of_the_noise_on_the_input(method):
    inputs, net = images_and_net()
    product = Smooth(InputXGradient(method), RangeScale(1.0), num_draws=200)
    moments = product.moments(net, inputs, 0, context(inputs))
    z = moments.mean / moments.standard_error
    assert z.abs().max() < 5
    assert abs(z.mean()) < 5 / z.numel() ** 0.5
