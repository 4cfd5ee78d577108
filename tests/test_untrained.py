"""The untrained network, in place of the one that is explained."""

from copy import deepcopy

import torch
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import Untrained
from lightning_xai.explainers.untrained import untrained

IMAGES = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def trained(scale: float) -> nn.Module:
    """A network whose weights and statistics are far from those at the start."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4))
    for value in [*model.parameters(), *model.buffers()]:
        value.data = value.data * int(scale) + int(scale)
    return model.eval()


def test_nothing_that_was_learnt_is_left():
    method = Untrained(lx.fusion_grad(num_weight_draws=2, num_input_draws=2))
    first, second = (lx.explain(trained(scale), IMAGES, 1, method=method, bounds=(0, 1)) for scale in (2, 5))
    assert first.abs().amax() > 0
    assert_close(first, second, rtol=0, atol=0)


def test_the_weights_are_those_of_each_modules_own_reset():
    model, fresh = trained(2), trained(5)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        for module in fresh.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    expected = fresh(IMAGES)
    before = deepcopy(model.state_dict())
    with untrained(model, 11):
        assert_close(model(IMAGES), expected)
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(isinstance(parameter, nn.Parameter) for parameter in model.parameters())


def test_shared_weights_stay_shared_and_what_has_no_reset_keeps_its_moments():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model.scale = nn.Parameter(torch.linspace(4, 6, 10_000))
    model.constant = nn.Parameter(torch.full((2,), 7.0))
    with untrained(model, 0):
        assert model[1].weight is model[0].weight
        assert abs(model.scale.mean() - 5) < 0.03  # five standard errors
        assert abs(model.scale.std() - 3**-0.5) < 0.03
        assert_close(model.constant, torch.full((2,), 7.0))


def test_weights_are_of_the_seed_and_the_same_for_all_samples():
    model = trained(2)
    method = Untrained()
    whole = lx.explain(model, IMAGES, 1, method=method)
    assert_close(torch.cat([lx.explain(model, IMAGES[i : i + 1], 1, method=method) for i in range(5)]), whole)
    assert not torch.allclose(lx.explain(model, IMAGES, 1, method=method, seed=1), whole)
