"""Methods that hook ReLUs, on networks that work in place, re-use a module, or call ReLUs as functions."""

import copy

import pytest
import torch
from captum.attr import Deconvolution, DeepLift, DeepLiftShap, GuidedBackprop
from torch import nn
from torch.testing import assert_close
from torchvision.models import get_model, vgg

from lightning_xai.explainers import CaptumExplainer, Gradient, grad_cam, guided_backprop, guided_grad_cam, noise_grad

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(2, 3, 64, 64, generator=GENERATOR)
TARGET = torch.tensor([1, 2])


class Guided(torch.autograd.Function):
    """ReLU whose backward pass drops what is negative; with `plain`, only that (deconvolution)."""

    @staticmethod
    def forward(ctx, x, plain):
        ctx.save_for_backward(x)
        ctx.plain = plain
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient.clamp(min=0) * (1 if ctx.plain else (x > 0)), None


class GuidedReLU(nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, x):
        return Guided.apply(x, self.plain)


def with_relus(model, make):
    """A copy of the model with a new module in each place of a ReLU."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, part in parent.named_children():
            if isinstance(part, nn.ReLU):
                setattr(parent, name, make())
    return model


@pytest.fixture(scope="module")
def networks():
    """ResNet-18 re-uses the ReLU of each block and works in place; VGG-11, here with a small head, works in place."""
    torch.manual_seed(0)
    features = vgg.make_layers(vgg.cfgs["A"])
    made = {
        "resnet18": get_model("resnet18", weights=None, num_classes=5).eval(),
        "vgg11": nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 5)).eval(),
    }
    for part in made["resnet18"].modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.normal_(part.bias, std=0.1)
    return made


both = pytest.mark.parametrize("name", ["resnet18", "vgg11"])


@both
@pytest.mark.parametrize(("method", "plain"), [(GuidedBackprop, False), (Deconvolution, True)])
def test_guided_backpropagation_is_that_of_hand_made_relus(networks, name, method, plain):
    reference = with_relus(networks[name], lambda: GuidedReLU(plain))
    found = CaptumExplainer(method)(networks[name], IMAGES, TARGET)
    assert_close(found, Gradient()(reference, IMAGES, TARGET))
    assert not torch.allclose(found, Gradient()(networks[name], IMAGES, TARGET))


@both
@pytest.mark.parametrize("method", [grad_cam(), guided_grad_cam()], ids=["grad_cam", "guided_grad_cam"])
def test_grad_cam_sees_what_a_layer_puts_out_before_it_is_changed_in_place(networks, name, method):
    out_of_place = with_relus(networks[name], nn.ReLU)
    assert_close(method(networks[name], IMAGES, TARGET), method(out_of_place, IMAGES, TARGET))


def test_grad_cam_of_a_layer_in_front_of_an_in_place_relu(networks):
    method = grad_cam("0.18")  # a convolution
    model = networks["vgg11"]
    assert_close(method(model, IMAGES, TARGET), method(with_relus(model, nn.ReLU), IMAGES, TARGET))


def outputs(model, images):
    with torch.no_grad():
        return model(images).gather(1, TARGET[:, None])[:, 0]


@both
@pytest.mark.parametrize("method", [DeepLift, DeepLiftShap])
def test_deep_lift_is_complete_also_where_activations_are_re_used(networks, name, method):
    model = networks[name]
    options = {"baseline": 0.0} if method is DeepLift else {}
    if method is DeepLiftShap:
        options["options"] = {"baselines": torch.zeros(2, 3, 64, 64)}
    attributions = CaptumExplainer(method, **options)(model, IMAGES, TARGET)
    difference = outputs(model, IMAGES) - outputs(model, torch.zeros_like(IMAGES))
    assert_close(attributions.sum((1, 2, 3)), difference, rtol=1e-3, atol=1e-4)


def test_deep_lift_equals_that_of_the_network_written_out(networks):
    class Twice(nn.Module):
        def __init__(self, first, second):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(12, 9), nn.Linear(9, 9), nn.Linear(9, 5)
            self.first, self.second = first, second

        def forward(self, x):
            return self.three(self.second(self.two(self.first(self.one(x.flatten(1))))))

    torch.manual_seed(0)
    relu = nn.ReLU()
    shared = Twice(relu, relu)
    written_out = Twice(nn.ReLU(), nn.ReLU())
    written_out.load_state_dict(shared.state_dict())
    images = IMAGES[:, :, :2, :2]
    method = CaptumExplainer(DeepLift, baseline=0.5)
    assert_close(method(shared, images, TARGET), method(written_out, images, TARGET), rtol=0, atol=0)
    assert shared.first is shared.second is relu


def test_the_network_is_put_back_also_when_the_method_fails(networks, monkeypatch):
    model = networks["resnet18"]
    before = [(name, id(part)) for name, part in model.named_modules(remove_duplicate=False)]
    modes = [part.inplace for part in model.modules() if isinstance(part, nn.ReLU)]

    def fail(*arguments, **options):
        raise RuntimeError("interrupted")

    method = CaptumExplainer(DeepLift)
    method(model, IMAGES, TARGET)
    monkeypatch.setattr(DeepLift, "attribute", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        method(model, IMAGES, TARGET)
    assert [(name, id(part)) for name, part in model.named_modules(remove_duplicate=False)] == before
    assert [part.inplace for part in model.modules() if isinstance(part, nn.ReLU)] == modes
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_deep_lift_under_weight_noise_sees_re_used_activations(networks):
    found = noise_grad(CaptumExplainer(DeepLift), std=0.0, num_draws=2)(networks["resnet18"], IMAGES, TARGET)
    assert_close(found, CaptumExplainer(DeepLift)(networks["resnet18"], IMAGES, TARGET))


def test_the_last_feature_maps_of_a_residual_network_are_its_last_stage(networks):
    resnet = networks["resnet18"]
    assert_close(grad_cam()(resnet, IMAGES, TARGET), grad_cam("layer4")(resnet, IMAGES, TARGET))


def test_grad_cam_finds_the_last_call_of_a_re_used_activation():
    class Shared(nn.Module):
        def __init__(self, relus):
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 5)
            self.relus = nn.ModuleList(relus)

        def forward(self, x):
            first, second = self.relus
            return self.head(second(self.two(first(self.one(x)))).mean((2, 3)))

    torch.manual_seed(0)
    shared, written_out = Shared([nn.ReLU()] * 2), Shared([nn.ReLU(), nn.ReLU()])
    written_out.load_state_dict(shared.state_dict())
    assert_close(grad_cam()(shared, IMAGES, TARGET), grad_cam("relus.1")(written_out, IMAGES, TARGET))
    before_the_activation = grad_cam("two")(shared, IMAGES, TARGET)
    assert not torch.allclose(grad_cam()(shared, IMAGES, TARGET), before_the_activation)


@pytest.mark.parametrize(
    ("name", "guided", "deep_lift"),
    [
        pytest.param(
            "densenet121",  # the last
            r"of 121 ReLUs 1 are .*: relu in DenseNet",
            "no rule for relu in DenseNet",
            marks=pytest.mark.slow,
        ),
        ("squeezenet1_0", None, None),
        (
            "mobilenet_v2",
            r"it has none \(functional calls .*, such as ReLU6",
            r'hardtanh in "features.0.2" \(ReLU6',
        ),
        ("mobilenet_v3_small", r"of 33 ReLUs 19 are .*hardswish in", "no rule for hardswish in"),
    ],
)
def test_activations_that_the_methods_would_not_see_are_refused(name, guided, deep_lift):
    model = get_model(name, weights=None, num_classes=5).eval()
    messages = {
        GuidedBackprop: guided and f"`model` must apply its ReLUs as nn.ReLU modules for GuidedBackprop; .*{guided}",
        DeepLift: deep_lift and f"nonlinear functions as modules that DeepLift has rules for .*{deep_lift}",
    }
    for method, message in messages.items():
        if message is None:
            assert CaptumExplainer(method)(model, IMAGES[:1], 0).shape == (1, 3, 64, 64)
        else:
            with pytest.raises(ValueError, match=message):
                CaptumExplainer(method)(model, IMAGES[:1], 0)


def test_guided_backprop_of_inception_is_refused_and_its_gradient_is_not():
    model = get_model("inception_v3", weights=None, num_classes=5, init_weights=False).eval()
    images = torch.randn(1, 3, 75, 75, generator=GENERATOR)
    with pytest.raises(ValueError, match=r"nn.ReLU modules for GuidedBackprop; it has none"):
        guided_backprop()(model, images)
    assert Gradient()(model, images).abs().sum() > 0
    assert grad_cam()(model, images).shape == images.shape
