"""Guided backpropagation and DeepLIFT on networks with other nonlinear functions than nn.ReLU: right, or refused."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution, DeepLift, DeepLiftShap, GuidedGradCam, LayerDeepLift
from torch import nn
from torch.nn.utils.parametrize import register_parametrization
from torch.testing import assert_close

from lightning_xai.explainers import CaptumExplainer, Gradient, guided_backprop
from lightning_xai.sanity.refined import cosine_convergence

IMAGES = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 2, 1])


class Net(nn.Module):
    """Two convolutions with a function behind the first and another, by default nn.ReLU, behind the second."""

    def __init__(self, function, last=None):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.function, self.last = function, last or nn.ReLU()

    def forward(self, x):
        return self.head(self.last(self.two(self.function(self.one(x)))).mean((2, 3)))


def made(function, last=None):
    torch.manual_seed(0)
    return Net(function, last).eval()


class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0)


def put(x):
    x = x.clone()
    x[x < 0] = 0
    return x


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.script(nn.ReLU())


RECTIFIERS = {
    "F.relu": F.relu,
    "Tensor.relu_": lambda x: (1 * x).relu_(),
    "torch.relu_": lambda x: torch.relu_(x.clone()),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clone().clamp_(min=0),
    "clip of a tensor": lambda x: torch.clip(x, torch.zeros(4, 1, 1)),
    "clamp from both sides": lambda x: x.clamp(0, 1),
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "max": lambda x: torch.max(torch.zeros_like(x), x),
    "fmax": lambda x: torch.fmax(x, torch.zeros(())),
    "minimum": lambda x: -torch.minimum(-x, torch.zeros(())),
    "F.threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "nn.Threshold": nn.Threshold(0.1, 0.0),
    "mask": lambda x: x * (x > 0),
    "mask of numbers": lambda x: x * (x > 0).float(),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "where, leaky": lambda x: torch.where(x > 0, x, 0.2 * x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "put": put,
    "sign": lambda x: x * (1 + x.sign()) / 2,
    "heaviside": lambda x: x * torch.heaviside(x, torch.zeros(())),
    "absolute value": lambda x: (x + x.abs()) / 2,
    "autograd.Function": Clamp.apply,
    "TorchScript": scripted(),
    "nn.ReLU6": nn.ReLU6(),
    "F.relu6": F.relu6,
    "nn.Hardtanh": nn.Hardtanh(0.0, 2.0),
    "nn.LeakyReLU": nn.LeakyReLU(),
    "F.leaky_relu": F.leaky_relu,
    "nn.PReLU": nn.PReLU(4),
    "nn.RReLU": nn.RReLU(),
    "nn.ELU": nn.ELU(),
    "F.selu": F.selu,
    "nn.CELU": nn.CELU(),
    "nn.Softplus": nn.Softplus(),
    "logaddexp": lambda x: torch.logaddexp(x, torch.zeros(())),
    "nn.LogSigmoid": nn.LogSigmoid(),
    "nn.GELU": nn.GELU(),
    "GELU by hand": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "nn.SiLU": nn.SiLU(),
    "SiLU by hand": lambda x: x * torch.sigmoid(x),
    "quick GELU": lambda x: torch.sigmoid(1.702 * x) * x,
    "nn.Mish": nn.Mish(),
    "nn.Hardswish": nn.Hardswish(),
    "Hardswish by hand": lambda x: x * F.hardsigmoid(x),
}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_rectifiers_that_would_keep_their_derivative_are_refused(name):
    for model in (made(RECTIFIERS[name]), made(nn.ReLU(), RECTIFIERS[name])):
        for method in (guided_backprop(), CaptumExplainer(Deconvolution), CaptumExplainer(GuidedGradCam)):
            with pytest.raises(ValueError, match=r"nn.ReLU modules for \w+; of [2-9] ReLUs [1-9] are functional"):
                method(model, IMAGES, TARGET)


def test_the_refusal_names_what_and_where():
    with pytest.raises(ValueError, match=r': hardtanh in "function" \(ReLU6\), clamp in Both\.$'):
        guided_backprop()(Both(), IMAGES)


class Both(Net):
    def __init__(self):
        super().__init__(nn.ReLU6())

    def forward(self, x):
        return super().forward(x).clamp(min=0)


class Positive(nn.Module):
    def forward(self, weight):
        return F.relu(weight) + 0.1 * F.gelu(weight)


class SqueezeAndExcitation(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.first, self.relu, self.second, self.gate = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), gate

    def forward(self, x):
        return x * self.gate(self.second(self.relu(self.first(x.mean((2, 3)))))[:, :, None, None])


class Attention(nn.Module):
    def forward(self, x):
        tokens = x.flatten(2)
        return (tokens @ (tokens.transpose(1, 2) @ tokens / 8).softmax(-1)).view_as(x)


class PowerMean(nn.Module):
    """Generalized-mean pooling, with its guard."""

    def forward(self, x):
        return x.clamp(min=1e-6).pow(3).mean((2, 3), keepdim=True).pow(1 / 3).expand_as(x)


OTHERS = {
    "identity": nn.Identity(),
    "sigmoid gate": SqueezeAndExcitation(nn.Sigmoid()),
    "Hardsigmoid gate": SqueezeAndExcitation(nn.Hardsigmoid()),
    "tanh": torch.tanh,
    "max pooling": nn.MaxPool2d(3, 1, 1),
    "layer norm": nn.LayerNorm(8),
    "group norm": nn.GroupNorm(2, 4),
    "batch norm": nn.BatchNorm2d(4),
    "normalize": F.normalize,
    "variance": lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt(),
    "attention": Attention(),
    "square": lambda x: x * x,
    "cube": lambda x: x.pow(3),
    "padding": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1],
    "dropout": nn.Dropout(),
}


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (x > 0)


class GuidedReLU(nn.Module):
    def forward(self, x):
        return Guided.apply(x)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_rectifier_keeps_its_derivative(name):
    model = made(nn.Sequential(nn.ReLU(), OTHERS[name] if isinstance(OTHERS[name], nn.Module) else Apply(OTHERS[name])))
    found = guided_backprop()(model, IMAGES, TARGET)
    for parent in list(model.modules()):
        for place, part in parent.named_children():
            if isinstance(part, nn.ReLU):
                setattr(parent, place, GuidedReLU())
    assert found.any()
    assert_close(found, Gradient()(model, IMAGES, TARGET), atol=1e-7, rtol=1e-4)


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_generalized_mean_pooling_has_a_guard_and_no_rectifier():
    assert guided_backprop()(made(nn.Sequential(nn.ReLU(), PowerMean())), IMAGES, TARGET).any()
    with pytest.raises(ValueError, match=r"1 are .*clamp in"):
        guided_backprop()(made(PowerMean()), IMAGES, TARGET)  # of maps with negative values


def test_rectifiers_of_weights_are_none_of_the_network():
    model = made(nn.ReLU())
    register_parametrization(model.one, "weight", Positive())
    assert guided_backprop()(model, IMAGES, TARGET).any()
    assert CaptumExplainer(DeepLift)(model, IMAGES, TARGET).any()


def test_cosine_convergence_refuses_them_too():
    with pytest.raises(ValueError, match=r"nn.ReLU modules for guided backpropagation; of 2 ReLUs 1 are"):
        cosine_convergence(made(F.relu), IMAGES, rule="guided_backprop")


def outputs(model, images):
    with torch.no_grad():
        return model(images).gather(1, TARGET[:, None])[:, 0]


SUPPORTED = [
    nn.ReLU(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.ELU(),
    nn.LeakyReLU(),
    nn.Softplus(),
    nn.MaxPool2d(2),
    nn.ReLU(True),
]


@pytest.mark.parametrize("activation", SUPPORTED, ids=repr)
def test_deep_lift_is_complete_with_all_modules_that_captum_has_rules_for(activation):
    for model in (made(activation), made(nn.ReLU(), activation)):
        difference = outputs(model, IMAGES) - outputs(model, torch.full_like(IMAGES, 0.3))
        found = CaptumExplainer(DeepLift, baseline=0.3)(model, IMAGES, TARGET)
        assert_close(found.sum((1, 2, 3)), difference, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Softplus(), nn.LeakyReLU(0.2)], ids=repr)
def test_deep_lift_of_one_layer_by_hand(activation):
    """Shrikumar et al. 2017, rescale rule: the multiplier of an activation is the quotient of the differences."""
    torch.manual_seed(0)
    one, two = nn.Linear(6, 5), nn.Linear(5, 3)
    model, x = nn.Sequential(one, activation, two), torch.randn(3, 6)
    with torch.no_grad():
        before, reference = one(x), one(torch.zeros(1, 6))
        multiplier = (activation(before) - activation(reference)) / (before - reference)
        expected = x * ((two.weight[TARGET] * multiplier) @ one.weight)
    assert_close(CaptumExplainer(DeepLift)(model, x, TARGET), expected, rtol=1e-4, atol=1e-6)


NONLINEAR = {
    **{
        name: RECTIFIERS[name]
        for name in ("F.relu", "clamp", "mask", "nn.GELU", "nn.PReLU", "put", "autograd.Function")
    },
    **{name: OTHERS[name] for name in ("sigmoid gate", "tanh", "layer norm", "group norm", "normalize", "attention")},
    "torch.sigmoid": torch.sigmoid,
    "sigmoid_": lambda x: x.clone().sigmoid_(),
    "F.softplus": F.softplus,
    "F.max_pool2d": lambda x: F.max_pool2d(x, 3, 1, 1),
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(4),
    "F.softmax": lambda x: x.softmax(1),
    "square": lambda x: x * x,
    "exponential": torch.exp,
    "absolute value": torch.abs,
    "rounding": torch.round,
    "a part of nn.ReLU": type("Own", (nn.ReLU,), {})(),
    "nn.InstanceNorm2d": nn.InstanceNorm2d(4),
    "dropout that never stops": lambda x: F.dropout(x, 0.5, training=True),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_deep_lift_refuses_what_it_has_no_rule_for(name):
    model = made(NONLINEAR[name])
    options = {"baselines": torch.zeros(2, 2, 8, 8)}
    for method in (CaptumExplainer(DeepLift), CaptumExplainer(DeepLiftShap, options), CaptumExplainer(LayerDeepLift)):
        with pytest.raises(ValueError, match=r"modules that \w+ has rules for \(ReLU, .*\); it has no rule for \w+ in"):
            method(model, IMAGES, TARGET)


def patches(x):
    return x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).transpose(3, 4).flatten(4).mean(4).repeat_interleave(2, 2)


AFFINE = {
    "average pooling": nn.AvgPool2d(2),
    "adaptive average pooling": nn.AdaptiveAvgPool2d(3),
    "batch norm": nn.BatchNorm2d(4),
    "interpolation": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "padding": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "residual": lambda x: x + 0.5 * x.flip(3) - x.roll(1, 2) / 3 + 1,
    "concatenation": lambda x: torch.cat([x[:, :2], -x[:, 2:]], 1),
    "patches": patches,
    "contraction": lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(4) + 1),
    "constant mask": lambda x: torch.where(torch.arange(8) > 3, x, 0.0),
    "in place": lambda x: x.clone().mul_(2).add_(1),
    "write": lambda x: torch.zeros(len(x), 4, 9, 9).index_copy(2, torch.arange(8), F.pad(x, (0, 1))),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "dropout": nn.Dropout(),
}


@pytest.mark.parametrize("name", AFFINE)
def test_deep_lift_is_complete_with_affine_functions(name):
    model = made(AFFINE[name])
    found = CaptumExplainer(DeepLift, baseline=0.3)(model, IMAGES, TARGET)
    difference = outputs(model, IMAGES) - outputs(model, torch.full_like(IMAGES, 0.3))
    assert_close(found.sum((1, 2, 3)), difference, rtol=1e-3, atol=1e-5)


def test_maps_of_networks_with_softmax_do_not_depend_on_the_rows_beside():
    """Captum's rule of softmax sums over all rows."""
    model, method = nn.Sequential(made(nn.Tanh()), nn.Softmax(1)), CaptumExplainer(DeepLift, baseline=0.3)
    apart = torch.cat([method(model, row[None], one[None]) for row, one in zip(IMAGES, TARGET, strict=True)])
    assert_close(method(model, IMAGES, TARGET), apart)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype):
    images = IMAGES.to(dtype)
    assert guided_backprop()(made(nn.ReLU()).to(dtype), images, TARGET).dtype == dtype
    with pytest.raises(ValueError, match="gelu in"):
        guided_backprop()(made(nn.GELU()).to(dtype), images, TARGET)
    assert CaptumExplainer(DeepLift)(made(nn.BatchNorm2d(4)).to(dtype), images, TARGET).dtype == dtype
    with pytest.raises(ValueError, match="no rule for gelu in"):
        CaptumExplainer(DeepLift)(made(nn.GELU()).to(dtype), images, TARGET)
