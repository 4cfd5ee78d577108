"""Shapes, sizes and the layer conventions that explainers and sanity checks rely on."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.networks import CNN, MLP, LeNet, ResNet9

NETWORKS = [
    (MLP(), (1, 28, 28), 784 * 200 + 200 + 200 * 10 + 10),
    (MLP(image_shape=(3, 8, 6), hidden=(20, 7), num_classes=4), (3, 8, 6), 144 * 20 + 20 + 147 + 32),
    (MLP(hidden=()), (1, 28, 28), 7850),
    (LeNet(), (1, 28, 28), 61_706),  # the published size of LeNet-5 without its sparse connections
    (LeNet(in_channels=3, image_size=32), (3, 32, 32), 62_006),
    (CNN(), (1, 28, 28), 832 + 51_264 + 3137 * 1024 + 10_250),
    (ResNet9(), (3, 32, 32), 2_447_946),
]


@pytest.mark.parametrize(("network", "image_shape", "num_parameters"), NETWORKS)
def test_logits_and_parameter_count(network, image_shape, num_parameters):
    logits = network(torch.randn(2, *image_shape))
    assert logits.shape == (2, 4 if image_shape == (3, 8, 6) else 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters


@pytest.mark.parametrize(("network", "image_shape", "num_parameters"), NETWORKS)
def test_modules_are_registered_in_the_order_in_which_they_run_and_run_once(network, image_shape, num_parameters):
    order = []
    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(lambda module, *_: order.append(module)) for leaf in leaves]
    network(torch.randn(2, *image_shape))
    for hook in hooks:
        hook.remove()
    assert order == leaves


@pytest.mark.parametrize(("network", "image_shape", "num_parameters"), NETWORKS)
def test_activations_do_not_work_in_place(network, image_shape, num_parameters):
    relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    assert not any(relu.inplace for relu in relus)
    assert [type(module) for module in network.modules()][-1] is nn.Linear, "logits are not rectified"


def test_mlp_is_the_composition_it_claims():
    network, images = MLP(image_shape=(1, 2, 2), hidden=(3,), num_classes=2), torch.randn(5, 1, 2, 2)
    first, second = network.layers.linear1, network.layers.linear2
    expected = (images.flatten(1) @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    assert_close(network(images), expected)


def test_residual_adds_its_input_to_a_rectified_branch():
    residual, features = ResNet9().residual1, torch.randn(2, 128, 8, 8)
    expected = features + residual.block2.relu(residual.block2.norm(residual.block2.conv(residual.block1(features))))
    assert_close(residual(features), expected)
    nn.init.zeros_(residual.block2.norm.weight)
    assert_close(residual(features), features)


def test_lenet_pads_28_pixels_to_32():
    small, large = LeNet(image_size=28).eval(), LeNet(image_size=32).eval()
    large.load_state_dict(small.state_dict())
    images = torch.randn(2, 1, 28, 28)
    assert_close(small(images), large(nn.functional.pad(images, (2, 2, 2, 2))))


def test_lenet_refuses_other_sizes():
    with pytest.raises(ValueError, match="`image_size` must be 28 or 32, got 64"):
        LeNet(image_size=64)
