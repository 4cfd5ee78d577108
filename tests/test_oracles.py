"""Our explainers against Captum's and scikit-image's."""

import copy
from functools import cache
from unittest.mock import patch

import captum.attr as captum
import pytest
import torch
import torch.nn.functional as F
import torchvision
from skimage.filters import sobel
from torch.testing import assert_close

from lightning_xai.explainers import (
    AbsoluteScale,
    CaptumExplainer,
    Context,
    Gradient,
    InputAttribution,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    Smooth,
    SobelEdges,
    grad_cam,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
)
from lightning_xai.explainers.captum import last_feature_maps
from lightning_xai.networks import CNN, LeNet, ResNet9

MOMENTS = [("smoothgrad", "mean"), ("smoothgrad_sq", "mean_square"), ("vargrad", "variance")]
TARGET = torch.tensor([7, 0, 3, 3])
pytestmark = pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks:UserWarning")


@cache
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LeNet().eval()


def images(channels=1, size=28):
    return torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(0))


def context(count=4, seed=0):
    return Context.create(torch.arange(count), seed, bounds=(0.0, 1.0))


def noise_tunnel(nt_type, std, draws, inputs, target):
    tunnel = captum.NoiseTunnel(captum.Saliency(net()))
    options = {"nt_type": nt_type, "nt_samples": draws, "stdevs": std, "nt_samples_batch_size": 10, "abs": False}
    return tunnel.attribute(inputs.clone().requires_grad_(), target=target, **options).detach()


@pytest.mark.parametrize(("nt_type", "statistic"), MOMENTS)
def test_smoothing_equals_noise_tunnel_fed_with_the_same_noise(nt_type, statistic):
    inputs, std, draws = images()[:1], 0.3, 20
    noisy = torch.cat(
        list(Smooth(InputAttribution(), AbsoluteScale(std), draws).draws(net(), inputs, TARGET[:1], context(1)))
    )
    ours = iter((noisy - inputs).split(10))
    with patch("torch.normal", lambda mean, std: next(ours).flatten(0, 1)):
        expected = noise_tunnel(nt_type, std, draws, inputs, TARGET[:1])
    actual = Smooth(Gradient(), AbsoluteScale(std), draws, statistic)(net(), inputs, TARGET[:1], context(1))
    assert next(ours, None) is None
    assert_close(actual, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize(("nt_type", "statistic"), MOMENTS)
def test_smoothing_equals_noise_tunnel_statistically(nt_type, statistic):
    inputs, std, draws, repeats = images()[:1], 0.3, 20, 12
    inputs, target = inputs.expand(repeats, -1, -1, -1), TARGET[:1].expand(repeats)
    actual = Smooth(Gradient(), AbsoluteScale(std), draws, statistic)(net(), inputs, target, context(repeats))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = noise_tunnel(nt_type, std, draws, inputs, target)
    error = ((actual.var(0) + expected.var(0)) / repeats).sqrt()
    z = (actual.mean(0) - expected.mean(0)) / error
    assert_close(z.square().mean().item(), 22 / 20, rtol=0.25, atol=0)  # Student's t, 22 degrees of freedom
    assert z.abs().max() < 6


def test_integrated_gradients():
    """In double precision: rounding, which may choose another maximum of the pooling, must not decide."""
    inputs, network = images().double(), copy.deepcopy(net()).double()
    for name, value in (("black", 0.0), ("white", 1.0)):
        theirs = captum.IntegratedGradients(network).attribute(
            inputs, value, target=TARGET, n_steps=50, method="gausslegendre"
        )
        ours = IntegratedGradients(baseline=name, num_steps=50)(network, inputs, TARGET, context())
        assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


def test_integrated_gradients_are_complete():
    inputs = images()
    with torch.no_grad():
        gain = (net()(inputs) - net()(torch.zeros_like(inputs))).gather(1, TARGET[:, None])[:, 0]
    attributions = IntegratedGradients(num_steps=300)(net(), inputs, TARGET, context())
    assert_close(attributions.sum((1, 2, 3)), gain, rtol=0.01, atol=1e-3)


def grad(method, **options):
    return method.attribute(images().requires_grad_(), target=TARGET, **options).detach()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Saliency(), lambda: grad(captum.Saliency(net()))),
        (Gradient(), lambda: grad(captum.Saliency(net()), abs=False)),
        (InputXGradient(), lambda: grad(captum.InputXGradient(net()))),
        (guided_backprop(), lambda: grad(captum.GuidedBackprop(net()))),
        (
            guided_grad_cam(),
            lambda: grad(captum.GuidedGradCam(net(), net().features.conv2), interpolate_mode="bilinear"),
        ),
        (
            CaptumExplainer(captum.DeepLift, baseline="white"),
            lambda: grad(captum.DeepLift(net()), baselines=torch.ones(1, 1, 28, 28)),
        ),
        (
            CaptumExplainer(captum.IntegratedGradients, {"n_steps": 7}, baseline=0.5),
            lambda: grad(captum.IntegratedGradients(net()), n_steps=7, baselines=0.5),
        ),
    ],
    ids=["Saliency", "Gradient", "InputXGradient", "GBP", "Guided GradCAM", "DeepLift", "IG"],
)
def test_same_as_captum(ours, theirs):
    expected = theirs()
    assert expected.any()
    assert_close(ours(net(), images(), TARGET, context()), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("layer", "module"),
    [
        (None, "residual2"),
        ("residual2.block2.conv", "residual2.block2.conv"),
        ("block1.conv", "block1.conv"),
        ("residual1.block2.relu", "residual1.block2.relu"),
    ],
)
def test_grad_cam_is_captums_enlarged_and_spread_over_the_channels(layer, module):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet9().eval()
    inputs = images(3, 32)[:2]
    method = captum.LayerGradCam(network, network.get_submodule(module))
    theirs = method.attribute(inputs, TARGET[:2], relu_attributions=True)
    expected = F.interpolate(theirs, (32, 32), mode="bilinear").detach()
    actual = grad_cam(layer)(network, inputs, TARGET[:2], context(2))
    assert expected.any()
    assert_close(actual.sum(1, keepdim=True), expected, rtol=1e-4, atol=1e-6 * expected.max().item())
    assert_close(actual[:, :1].expand(-1, 3, -1, -1), actual)


@pytest.mark.parametrize("std", [0.0, 0.2])
def test_gradient_shap_statistically(std):
    """The mean over many draws is Captum's, and without noise that of Integrated Gradients."""
    repeats, draws = 15, 40
    inputs = images()[:1].expand(repeats, -1, -1, -1)
    actual = gradient_shap(0.0, draws, std)(net(), inputs, 7, context(repeats))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torch.cat(
            [
                captum.GradientShap(net()).attribute(row, torch.zeros_like(row), target=7, n_samples=draws, stdevs=std)
                for row in inputs.split(1)
            ]
        )
    error = ((actual.var(0) + expected.detach().var(0)) / repeats).sqrt()
    z = (actual.mean(0) - expected.detach().mean(0)) / error
    assert z.square().mean() < 2
    assert z.abs().max() < 6
    if std == 0:
        integrated = IntegratedGradients(baseline=0.0)(net(), inputs[:1], 7, context(1))[0]
        assert ((actual.mean(0) - integrated) / (actual.var(0) / repeats).sqrt()).square().mean() < 3


def test_sobel_edges_are_scikit_images():
    inputs = images(3, 11)
    expected = torch.stack([torch.from_numpy(sobel(channel.numpy())) for channel in inputs.flatten(0, 1)])
    actual = SobelEdges()(net(), inputs, 0)
    assert_close(actual.flatten(0, 1), expected, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(SobelEdges()(net(), inputs, 0), actual)
    assert SobelEdges()(net(), torch.full((1, 1, 5, 5), 3.0), 0).eq(0).all()


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (lambda: CNN(), (1, 28, 28), "features.relu2"),  # in front of the pooling
        (lambda: ResNet9(in_channels=1), (1, 32, 32), "residual2"),  # the sum, not the branch behind the convolution
        (lambda: torchvision.models.resnet18(weights=None), (3, 32, 64), "layer4"),  # its ReLUs run twice
    ],
)
def test_grad_cam_looks_at_the_last_maps_of_the_last_convolutions_size(network, shape, expected):
    model, inputs = network().eval(), torch.rand(2, *shape)
    assert last_feature_maps(model, inputs) is model.get_submodule(expected)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(grad_cam()(model, inputs, 0), grad_cam(expected)(model, inputs, 0))


def test_grad_cam_is_the_rectified_sum_of_the_maps_weighted_with_their_mean_gradients():
    """Selvaraju et al. 2017, equations 1 and 2, on rectified maps; enlarged, and spread over the channels."""
    torch.manual_seed(0)
    model, inputs = CNN(in_channels=3).eval(), torch.rand(4, 3, 28, 28)
    maps = model.features[:5](inputs).detach().requires_grad_()
    logits = model.classifier(model.features[5](maps))
    (gradients,) = torch.autograd.grad(logits[:, 7].sum(), maps)
    coarse = torch.relu((gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))
    expected = F.interpolate(coarse, (28, 28), mode="bilinear", align_corners=False)
    assert expected.flatten(1).amax(1).gt(0).all()
    assert_close(grad_cam()(model, inputs, 7), (expected / 3).expand_as(inputs))
