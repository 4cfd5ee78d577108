"""AdaptGrad's experiments: closed forms and oracles of what they compute."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from lightning_xai.data.backgrounds import embedded_photographs, folder_photographs
from lightning_xai.data.digits import DigitsDataModule
from lightning_xai.experiments.papers import Lab, adaptgrad_convergence, adaptgrad_table1
from lightning_xai.experiments.papers.adaptgrad_convergence import (
    Examined,
    draws_for,
    error_rows,
    level_methods,
    level_rows,
    slopes,
)
from lightning_xai.experiments.papers.adaptgrad_noise import (
    RealImages,
    any_probability,
    curve_rows,
    image_rows,
    mean_inherent_noise,
    scales,
)
from lightning_xai.experiments.papers.adaptgrad_table1 import (
    METHODS,
    RANDOM,
    absolute_spearman,
    against_gradient,
    consistency_scores,
    invariance_table,
    paper_methods,
    random_floor,
    shifted,
)
from lightning_xai.explainers import Gradient, adapt_grad, smooth_grad
from lightning_xai.networks import MLP
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.invariance import invariance_maps, shifted_twin
from lightning_xai.studies.networks import TrainedNetwork

ROOT = Path(__file__).parent.parent
LAB = Lab(device="cpu", progress=False)


def network(seed=0):
    torch.manual_seed(seed)
    return MLP(image_shape=(1, 6, 6), hidden=(12,), num_classes=3).eval()


def subject(model, num_samples=5, num_draws=3):
    torch.manual_seed(7)
    images = torch.rand(num_samples, 1, 6, 6)
    index = torch.arange(num_samples) * 10
    target = model(images).argmax(1)
    methods = paper_methods(num_draws, 0.2, 0.95, 0.2)
    return Subject(model, images, target, index, methods, {"consistency": absolute_spearman}, (0.0, 1.0), batch_size=2)


def maps_of(chosen):
    return {name: chosen.attributions(chosen.model, method) for name, method in chosen.methods.items()}


def consistency(chosen, twin):
    return consistency_scores(LAB, chosen, maps_of(chosen), [twin])


# Table 1


def test_the_floor_of_random_maps_is_the_mean_absolute_correlation_of_independent_ranks():
    scores = random_floor(torch.zeros(2000, 1, 28, 28))
    expected = np.sqrt(2 / (np.pi * 783))
    assert abs(float(scores.mean()) - expected) < 4 * float(scores.std()) / 2000**0.5
    assert expected == pytest.approx(0.0285, abs=5e-5)


def test_consistency_is_the_absolute_rank_correlation_of_the_maps_of_both_networks():
    model, twin = network(), network(1)
    chosen = subject(model)
    table, _ = consistency(chosen, twin)
    maps = [Gradient()(m, chosen.images, chosen.target).flatten(1) for m in (model, twin)]
    expected = [abs(stats.spearmanr(x, y).statistic) for x, y in zip(*maps, strict=True)]
    np.testing.assert_allclose(table["consistency"]["Grad"], expected, rtol=1e-6)
    assert list(table["consistency"]) == [*METHODS, RANDOM]


def test_a_network_is_fully_consistent_with_itself_and_with_its_negative():
    model = network()
    negative = network()
    with torch.no_grad():
        negative.layers.linear2.weight.neg_()
    for twin in (model, negative):
        table, _ = consistency(subject(model), twin)
        np.testing.assert_allclose(table["consistency"]["SG"], 1, rtol=1e-6)


def test_shifted_maps_are_those_of_the_sanity_checks_whatever_the_batches():
    model = network()
    chosen = subject(model)
    twin, method = shifted_twin(model, -1.0, chosen.images), chosen.methods["A-NG"]
    options = {"bounds": chosen.bounds, "index": chosen.index}
    _, expected = invariance_maps(model, twin, -1.0, chosen.images, chosen.target, method, **options)
    torch.testing.assert_close(shifted(chosen, -1.0).attributions(twin, method), expected)


def test_only_weight_noise_on_the_bias_breaks_the_invariance():
    model = network()
    table = invariance_table(LAB, subject(model), maps_of(subject(model)), network(2), shift=-1.0)
    for name in METHODS:
        np.testing.assert_allclose(table["invariance, input"][name], 1, atol=1e-5)
    for name in ("Grad", "SG", "AG"):
        np.testing.assert_allclose(table["invariance, bias"][name], 1, atol=1e-5)
    for name in ("NG", "S-NG", "A-NG"):
        assert table["invariance, bias: relative difference"][name].mean() > 0.01
    assert max(np.mean(table["other network"][name]) for name in METHODS) < 0.9


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
def test_of_the_embedded_digits_few_enough_remain_to_be_learned_by_heart(monkeypatch):
    asked = []

    def remember(lab, name, changes, by_heart=False):
        asked.append(changes)
        if by_heart:
            raise KeyboardInterrupt
        return TrainedNetwork(network(), DigitsDataModule(), 1.0, {})

    lab = Lab(str(ROOT), configs=str(ROOT / "configs"), embedded=True, device="cpu", progress=False)
    monkeypatch.setattr(Lab, "network", remember)
    with pytest.raises(KeyboardInterrupt):
        adaptgrad_table1.run(lab)
    data = lab.data("mnist_mlp", asked[-1])
    data.setup("fit")
    assert len(data.train_dataloader().dataset) == 200


def test_a_linear_network_gives_every_input_smoother_the_gradient():
    """The gradient is constant, so that noise on the input changes nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    table, _ = consistency(subject(model), network(1))
    np.testing.assert_allclose(table["different images"]["SG"], table["different images"]["Grad"], atol=1e-6)
    assert set(against_gradient({name: table["different images"][name] for name in ("Grad", "SG", "AG")})) == {
        "SG",
        "AG",
    }


def test_differences_from_the_gradient_are_tested_by_wilcoxon_with_holms_correction():
    generator = np.random.default_rng(0)
    gradient = generator.normal(size=40)
    scores = {"Grad": gradient, "SG": gradient + 0.3 * generator.normal(size=40) + 0.2, "AG": gradient}
    expected = stats.wilcoxon(scores["SG"], gradient).pvalue
    assert against_gradient(scores) == pytest.approx({"SG": min(1.0, 2 * expected), "AG": 1.0})
    scores["SG"][3] = np.nan
    kept = np.isfinite(scores["SG"])
    expected = stats.wilcoxon(scores["SG"][kept], gradient[kept]).pvalue
    assert against_gradient(scores)["SG"] == pytest.approx(min(1.0, 2 * expected))


# Inherent noise


@pytest.mark.parametrize(("name", "expected"), [("SG", 0.15958), ("AG", 0.02707), ("AG literal", 0.01335)])
def test_the_mean_inherent_noise_has_its_known_value(name, expected):
    assert mean_inherent_noise(scales(0.2, 0.95)[name]) == pytest.approx(expected, abs=5e-6)


def test_the_exact_solution_leaves_the_range_as_often_as_it_may():
    assert mean_inherent_noise(scales(0.2, 0.95)["AG exact"], 2000) == pytest.approx(0.05, abs=1e-9)


def test_smoothgrads_mean_is_a_normal_integral():
    """2 ∫ Φ(-x/s) dx over [0, 1] = 2 s (φ(0) - φ(1/s)) + 2 Φ(-1/s)."""
    for fraction in (0.1, 0.5):
        expected = 2 * fraction * (stats.norm.pdf(0) - stats.norm.pdf(1 / fraction)) + 2 * stats.norm.cdf(-1 / fraction)
        assert mean_inherent_noise(scales(fraction, 0.95)["SG"]) == pytest.approx(expected, rel=1e-6)


def test_what_is_drawn_agrees_with_the_closed_form():
    rows = curve_rows(scales(0.2, 0.95), 5, 40_000, seed=3)
    assert len(rows) == 20
    for row in rows:
        error = np.sqrt(row["closed_form"] * (1 - row["closed_form"]) / 40_000)
        assert abs(row["simulated"] - row["closed_form"]) <= 4.5 * error


def colors(num_images=40):
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([-2.0, -1.0, 0.0]).view(3, 1, 1), torch.tensor([2.0, 3.0, 1.0]).view(3, 1, 1)
    images = low + (high - low) * torch.rand(num_images, 3, 6, 6, generator=generator)
    return RealImages("colors", images, torch.arange(num_images), (low, high))


def test_scalar_bounds_let_more_leave_the_color_range():
    rows = image_rows(colors(), {"AG": scales(0.2, 0.95)["AG"]}, num_draws=50, seed=0)
    shares = {
        kind: np.mean([row["values"] for row in rows if row["bounds"] == kind]) for kind in ("per channel", "scalar")
    }
    assert shares["per channel"] < 0.05 < shares["scalar"]
    for row in rows:
        assert row["values"] <= row["pixels"] <= min(1, 3 * row["values"])
        assert row["touched"] >= row["pixels"]
        if row["bounds"] == "scalar":
            assert row["scalar_range"] <= 0.05
    drawn = np.mean([row["simulated"] for row in rows])
    assert drawn == pytest.approx(np.mean([row["values"] for row in rows]), abs=0.003)


def test_one_channel_needs_no_scalar_bounds():
    images = colors()
    gray = RealImages("gray", images.images[:, 2:], images.index, (images.bounds[0][2:], images.bounds[1][2:]))
    rows = image_rows(gray, scales(0.2, 0.95), 1, 0)
    assert {row["bounds"] for row in rows} == {"per channel"}
    assert all(row["values"] == pytest.approx(row["pixels"]) == pytest.approx(row["scalar_range"]) for row in rows)


def test_at_least_one_of_independent_events():
    outside = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.1, 0.2], [1.0, 0.3]])
    expected = torch.tensor([0.75, 0.0, 0.28, 1.0], dtype=torch.float64)
    torch.testing.assert_close(any_probability(outside), expected, atol=1e-7, rtol=0)


def test_photographs_are_read_from_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"`folder` must hold images .*found none in"):
        folder_photographs(tmp_path, 8)
    for number in range(3):
        Image.new("RGB", (30 + number, 20), (number, 10, 200)).save(tmp_path / f"{number}.png")
    pictures = folder_photographs(tmp_path, 8)
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures[2, :, 0, 0].tolist() == [2, 10, 200]
    assert embedded_photographs(16).shape == (10, 3, 16, 16)


# Convergence


class Quadratic(nn.Module):
    """Two outputs x'Ax/2 with the gradient Ax, which is linear in the noise."""

    def __init__(self):
        super().__init__()
        matrix = torch.randn(36, 36, generator=torch.Generator().manual_seed(0))
        self.matrix = nn.Parameter(matrix @ matrix.T)

    def forward(self, images):
        flat = images.flatten(1)
        value = (flat @ self.matrix * flat).sum(1) / 2
        return torch.stack([value, -value], 1)


def examined(model, num_samples=20):
    torch.manual_seed(3)
    images = torch.rand(num_samples, 1, 6, 6)
    target = torch.zeros(num_samples, dtype=torch.int64)
    return Examined(model, images, target, torch.arange(num_samples) * 7, (torch.zeros(1, 1, 1), torch.ones(1, 1, 1)))


def test_the_error_of_a_linear_gradient_is_as_its_variance_predicts():
    """The gradient's noise is A e, of variance s² Σ_j A_ij² with SmoothGrad."""
    subject = examined(model := Quadratic())
    rows, maps = error_rows(subject, {"SG": smooth_grad(of="data")}, (4, 16), 4000, seed=5)
    clean = torch.einsum("ij,bj->bi", model.matrix.detach(), subject.images.flatten(1)).norm(dim=1)
    spread = 0.2 * float(model.matrix.detach().square().sum().sqrt())
    for row, length in zip(rows[:20], clean.tolist(), strict=True):
        assert row["predicted"] == pytest.approx(spread / length * (1 / 4 + 1 / 4000) ** 0.5, rel=0.05)
    for number in (4, 16):
        mine = [row for row in rows if row["draws"] == number]
        ratio = [(row["error"] / row["predicted"]) ** 2 for row in mine]
        assert np.mean(ratio) == pytest.approx(1, abs=4 * np.std(ratio, ddof=1) / len(ratio) ** 0.5)
    assert list(maps) == ["SG 4", "SG 16", "SG 4000"]
    assert slopes(rows).mean() == pytest.approx(-0.5, abs=0.1)


def test_a_linear_network_has_no_monte_carlo_error():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    rows, _ = error_rows(examined(model, 3), {"AG": adapt_grad()}, (1, 2), 10, seed=0)
    assert all(row["error"] < 1e-6 and row["predicted"] < 1e-6 for row in rows)
    assert draws_for(rows) == 1


def test_the_slope_is_fitted_with_the_references_own_error():
    rows = [
        {"sample": s, "draws": n, "reference_draws": 50, "error": s * (1 / n + 1 / 50) ** 0.5} for s in (1, 3)
        for n in (1, 5, 20, 100)
    ]  # fmt: skip
    np.testing.assert_allclose(slopes(rows), [-0.5, -0.5], rtol=1e-12)


def test_the_draws_for_an_error_follow_from_the_variance():
    """Relative standard deviation 2 of one draw: 400 draws for an error of 0.1."""
    rows = [
        {"draws": n, "reference_draws": 1000, "predicted": 2 * (1 / n + 1 / 1000) ** 0.5 - 1e-9} for n in (3, 3, 3, 10)
    ]
    assert draws_for(rows, 0.1) == 400


def test_the_noise_decides_how_far_maps_are_from_the_gradient():
    methods = level_methods((0.4, 0.1), (0.5, 0.99), num_draws=400)
    assert list(methods) == ["Grad", "SG 0.1", "SG 0.4", "AG 0.99", "AG 0.5"]
    rows, _ = level_rows(examined(network(), 6), methods, seed=0)
    means = {name: np.mean([row["distance"] for row in rows if row["method"] == name]) for name in methods}
    assert means["Grad"] == 0 < means["SG 0.1"] < means["SG 0.4"]
    assert means["AG 0.99"] < means["AG 0.5"]
    assert all(row["inherent_noise"] <= 0.011 for row in rows if row["method"] == "AG 0.99")


def test_one_number_of_draws_has_no_slope():
    with pytest.raises(
        ValueError, match=r"`draws` must be two numbers or more, each once and at least 1; got \(3, 3\)"
    ):
        adaptgrad_convergence.run(LAB, draws=(3, 3))
