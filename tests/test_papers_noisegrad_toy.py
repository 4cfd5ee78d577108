"""The plane of NoiseGrad's toy experiment: its distribution in closed form, and what is measured on it."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.testing import assert_close

from lightning_xai.evaluation import explain
from lightning_xai.experiments.papers.moons import LogOdds, Moons, as_images, degrees_between, train
from lightning_xai.experiments.papers.noisegrad_toy import _grid, _grid_shaped, roughness
from lightning_xai.explainers import AbsoluteScale, Gradient, Smooth

MOONS = Moons(0.2)


def density(point, label):
    """Slow transcription: the noise's density, integrated over the points of a half circle."""

    def integrand(angle):
        center = np.array([math.cos(angle), math.sin(angle)])
        center = center if label == 0 else np.array([1, 0.5]) - center
        return math.exp(-((point - center) ** 2).sum() / (2 * 0.2**2)) / (2 * math.pi * 0.2**2)

    return quad(integrand, 0, math.pi, epsabs=0, limit=200)[0] / math.pi


def test_log_odds_are_those_of_the_densities():
    points = torch.tensor([[0.5, 0.25], [-0.3, 0.9], [1.2, -0.4], [0.8, 0.8], [1.5, 1.0]])
    expected = [math.log(density(p, 1)) - math.log(density(p, 0)) for p in points.double().numpy()]
    assert_close(MOONS.log_odds(points), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-3)


def test_the_points_are_drawn_from_these_densities():
    points, labels = MOONS.sample(4000, seed=0)
    odds = MOONS.log_odds(points)
    for low, high in [(-2, -1), (-1, 0), (0, 1), (1, 2)]:
        inside = (odds > low) & (odds < high)
        share, number = labels[inside].double().mean(), int(inside.sum())
        expected = odds[inside].sigmoid().mean()
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / number)


def test_the_gradient_is_that_of_the_log_odds():
    points = torch.tensor([[0.1, 0.2], [1.3, 0.3]], dtype=torch.float64)
    step = 1e-5 * torch.eye(2, dtype=torch.float64)
    slopes = [(MOONS.log_odds(points + e) - MOONS.log_odds(points - e)) / 2e-5 for e in step]
    assert_close(MOONS.gradient(points), torch.stack(slopes, 1), rtol=1e-4, atol=1e-4)


def test_on_the_boundary_the_log_odds_vanish_and_normals_point_to_class_1():
    boundary = torch.from_numpy(MOONS.boundary())
    assert len(boundary) > 100
    assert MOONS.log_odds(boundary).abs().max() < 0.1
    points = MOONS.sample(50, seed=1)[0]
    normals, distances = MOONS.normals(points)
    assert_close(np.linalg.norm(normals, axis=1), np.ones(50))
    sides = MOONS.log_odds(points).sign().numpy()
    far = distances > 0.05
    feet = torch.from_numpy(points.double().numpy() - (sides * distances)[:, None] * normals)
    assert MOONS.log_odds(feet[torch.from_numpy(far)]).abs().max() < 0.5


def test_angles_between_vectors():
    first = np.array([[1.0, 0], [2, 0], [0, 3], [0, 0]])
    second = np.array([[5.0, 0], [0, 1], [0, -1], [1, 0]])
    np.testing.assert_allclose(degrees_between(first, second), [0, 90, 180, math.nan])


def test_roughness_of_fields_that_turn_evenly():
    turns = np.radians(10.0 * np.arange(6)[:, None] + 30.0 * np.arange(5))
    found = roughness(np.stack([np.cos(turns), np.sin(turns)], -1))
    assert found.shape == (6 * 4 + 5 * 5,)
    np.testing.assert_allclose(np.sort(found), [10.0] * 25 + [30.0] * 24, rtol=1e-6)


def test_the_grid_is_of_squares_and_the_lowest_row_comes_first():
    field = _grid_shaped(_grid(31).numpy(), 31)
    assert field.shape == (21, 31, 2)
    np.testing.assert_allclose(np.diff(field[..., 0], axis=1), 0.15, rtol=1e-4)
    np.testing.assert_allclose(np.diff(field[..., 1], axis=0), 0.15, rtol=1e-4)


def test_a_network_without_hidden_layers_has_one_gradient_everywhere():
    model = LogOdds(())
    images = as_images(torch.randn(7, 2))
    logits = model(images)
    assert_close(logits[:, 1] - logits[:, 0], model.network(images)[:, 0])
    expected = model.network.layers.linear1.weight.detach()[0].expand(7, 2) / 2
    for method in (Gradient(), Smooth(Gradient(), AbsoluteScale(0.3), 5)):
        assert_close(explain(model, images, 1, method)[:, :, 0, 0], expected)


def test_training_is_determined_by_its_seed_and_leaves_the_global_one_alone():
    points, labels = MOONS.sample(100, seed=0)
    before = torch.random.get_rng_state()
    first, second, other = (train(points, labels, (16, 16), 100, 0.01, seed) for seed in (0, 0, 1))
    assert_close(torch.random.get_rng_state(), before)
    assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert not torch.equal(first.network.layers.linear1.weight, other.network.layers.linear1.weight)
    right = first(as_images(points)).argmax(1) == labels
    assert right.double().mean() > 0.8


def test_the_noise_must_be_positive():
    with pytest.raises(ValueError, match=r"`noise` must be positive and finite, got 0.0"):
        Moons(0.0)
