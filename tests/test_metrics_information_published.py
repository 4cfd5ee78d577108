"""The published Performance Information Curve: scores of the authors' package, frozen, and of the package itself.

`FROZEN` is what `python tests/test_metrics_information_published.py` prints where saliency 0.2.1 is installed
(`pip install --no-deps saliency`; measured with NumPy 2.4, SciPy 1.17, Pillow 13.0, libwebp 1.6).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import nn

import lightning_xai as lx
from lightning_xai.explainers import Context, RandomAttribution
from lightning_xai.functional.information import information_curve, shared_ranks
from lightning_xai.metrics import InformationLevel
from lightning_xai.metrics.information import FRACTIONS, eight_bits, from_eight_bits

NUM_IMAGES = 5
OLD_NAME = "trapz"  # which the package asks for


@dataclass(frozen=True)
class Case:
    """Random smooth pictures with a pattern, a network that looks for it, and random maps; NumPy's frozen generator."""

    seed: int
    shape: tuple[int, int, int]
    curve: str = "softmax"
    ties: bool = False
    mean: float = 0.0
    std: float = 1.0

    @cached_property
    def drawn(self):
        random = np.random.RandomState(self.seed)
        template = np.sign(smooth(random, 1, *self.shape))
        noise = 0.5 * random.standard_normal((NUM_IMAGES, *self.shape))
        values = template + smooth(random, NUM_IMAGES, *self.shape) + noise
        low, high = values.min((1, 2, 3), keepdims=True), values.max((1, 2, 3), keepdims=True)
        pictures = np.round(255 * (values - low) / (high - low)).astype(np.uint8)
        maps = np.abs(smooth(random, NUM_IMAGES, *self.shape[1:]))
        maps = np.maximum(np.round(4 * maps), 1) if self.ties else maps + 0.2 * random.rand(*maps.shape)
        return template, pictures, maps, random.rand(*maps.shape) < 0.01

    @property
    def model(self):
        return Pattern(torch.from_numpy(self.drawn[0]).float(), self.mean, self.std)

    def images(self, pictures):
        return (torch.from_numpy(pictures).float() / 255 - self.mean) / self.std

    def ours(self):
        _, pictures, maps, known = self.drawn
        metric = InformationLevel(self.curve, min_score=0.5, preset="published")
        metric.always_known = lambda inputs, context: with_corners(torch.from_numpy(known))
        metric.update(
            torch.from_numpy(maps)[:, None],
            inputs=self.images(pictures),
            target=torch.ones(NUM_IMAGES).long(),
            model=self.model,
            context=Context.create(torch.arange(NUM_IMAGES)),
            bounds=tuple(torch.tensor((bound - self.mean) / self.std) for bound in (0.0, 1.0)),
        )
        return metric.per_sample()[1].tolist()

    def package(self):
        """What the authors' code says."""
        from saliency.metrics.pic import ComputePicMetricError, compute_pic_metric

        _, pictures, maps, known = self.drawn

        def predict(batch):
            channels_first = batch.transpose(0, 3, 1, 2) if batch.ndim == 4 else batch[:, None]
            shares = self.model(self.images(np.ascontiguousarray(channels_first))).softmax(1)[:, 1]
            return shares.numpy() if self.curve == "softmax" else (shares > 0.5).float().numpy()

        def score(i):
            picture = pictures[i, 0] if self.shape[0] == 1 else pictures[i].transpose(1, 2, 0)
            try:
                return float(compute_pic_metric(picture, maps[i], known[i], predict, FRACTIONS, 0.5).auc)
            except ComputePicMetricError:
                return math.nan

        return [score(i) for i in range(NUM_IMAGES)]


def smooth(random, *shape, modes=4):
    """A few waves with random heights."""
    *leading, height, width = shape
    along, across = (np.cos(np.pi * np.outer(np.arange(n) + 0.5, np.arange(modes)) / n) for n in (height, width))
    return along @ random.standard_normal((*leading, modes, modes)) @ across.T


class Pattern(nn.Module):
    """Whether the pattern is in the picture."""

    def __init__(self, template, mean, std):
        super().__init__()
        self.template, self.mean, self.std = template, mean, std

    def forward(self, images):
        likeness = 50 * ((images * self.std + self.mean - 0.5) * self.template).mean((1, 2, 3))
        return torch.stack([-likeness, likeness], 1)


def with_corners(known):
    known = known.clone()
    known[:, [0, 0, -1, -1], [0, -1, 0, -1]] = True
    return known


CASES = {
    "gray": Case(0, (1, 28, 28)),
    "color": Case(1, (3, 32, 24)),
    "ties": Case(2, (3, 20, 33), ties=True),
    "accuracy": Case(3, (3, 20, 24), "accuracy"),
    "normalized": Case(4, (3, 24, 32), mean=0.4, std=0.25),
}
FROZEN = {
    "gray": [0.7447, 0.7729, 0.1832, 0.3992, math.nan],
    "color": [0.8203, 0.9573, 0.5887, 0.8249, 0.4373],
    "ties": [0.6206, 0.8774, 0.457, 0.1831, 0.5896],
    "accuracy": [0.8314, 0.0857, 0.4583, math.nan, 0.7882],
    "normalized": [0.5962, 0.5428, 0.6502, 0.7174, 0.8241],
}


def agree(actual, expected):
    assert [math.isnan(score) for score in actual] == [math.isnan(score) for score in expected]
    distances = np.abs(np.subtract(actual, expected))
    assert np.nanmax(distances) <= 0.015
    assert np.nanmean(distances) <= 0.005


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_that_the_authors_code_gave(name):
    agree(CASES[name].ours(), FROZEN[name])


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_authors_code(name, monkeypatch):
    pytest.importorskip("saliency.metrics.pic", exc_type=ImportError)
    monkeypatch.setattr(np, OLD_NAME, np.trapezoid, raising=False)
    agree(CASES[name].ours(), CASES[name].package())


def test_the_default_is_another_measure():
    case = CASES["color"]
    _, pictures, maps, _ = case.drawn
    batch = {"inputs": case.images(pictures), "target": torch.ones(NUM_IMAGES).long(), "model": case.model}
    scores = []
    for preset in ("fast", "published"):
        metric = InformationLevel(min_score=0.5, preset=preset)
        context = Context.create(torch.arange(NUM_IMAGES))
        metric.update(
            torch.from_numpy(maps)[:, None], context=context, bounds=(torch.tensor(0.0), torch.tensor(1.0)), **batch
        )
        scores.append(metric.per_sample()[1])
    assert (scores[0] - scores[1]).abs().nan_to_num().max() > 0.05


@pytest.mark.parametrize(("shape", "count"), [((20, 15), 3), ((7, 9), 0), ((1, 9), 0), ((5, 2), 0), ((1, 1), 0)])
def test_the_corners_and_one_pixel_in_a_hundred_are_always_revealed(shape, count):
    inputs, context = torch.zeros(4, 1, *shape), Context.create(torch.arange(4))
    known = InformationLevel(preset="published").always_known(inputs, context)
    assert (known[:, [0, 0, -1, -1], [0, -1, 0, -1]]).all()
    corners = len({(i % shape[0], j % shape[1]) for i in (0, -1) for j in (0, -1)})
    assert ((known.flatten(1).sum(1) <= count + corners) & (known.flatten(1).sum(1) >= max(count, corners))).all()
    free = InformationLevel().always_known(inputs, context)
    assert (free.flatten(1).sum(1) == min(4, shape[0] * shape[1])).all()


def test_equal_values_share_a_rank():
    maps = torch.tensor([[[3.0, 1.0, 3.0], [2.0, 1.0, -1.0]]])
    assert shared_ranks(maps).tolist() == [[[0, 3, 0], [2, 3, 5]]]


def test_points_without_a_longer_code_come_before_the_origin():
    x, y = torch.tensor([[0.0, 0.0, 0.5]]), torch.tensor([[0.2, 0.6, 0.8]])
    assert information_curve(x, y, zero_first=False)[0, :, 1].tolist() == pytest.approx([0.2, 0.6, 0, 0.8, 1])
    assert information_curve(x, y)[0, :, 1].tolist() == pytest.approx([0, 0.2, 0.6, 0.8, 1])


def test_images_of_pictures_are_the_pictures_again():
    pictures = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for low, high in ((0.0, 1.0), (-2.118, 2.249), (0.0, 255.0), (-1e-3, 1e-3)):
        bounds = torch.tensor(low), torch.tensor(high)
        assert torch.equal(eight_bits(from_eight_bits(pictures, *bounds), *bounds), pictures)


@pytest.mark.parametrize("preset", ["fast", pytest.param("published", marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_the_batch(preset):
    case = CASES["color"]
    images, metrics = case.images(case.drawn[1]), {"pic": InformationLevel(min_score=0.5, preset=preset)}
    whole, parts = (
        lx.evaluate(case.model, images, 1, {"m": RandomAttribution()}, metrics, bounds=(0.0, 1.0), **options)
        for options in ({}, {"batch_size": 2, "max_rows": 3})
    )
    torch.testing.assert_close(parts.scores["m"]["pic"], whole.scores["m"]["pic"], rtol=0, atol=1e-5, equal_nan=True)


def test_a_preset_can_be_changed_in_part():
    assert (InformationLevel().fill, InformationLevel().coder) == ("smooth", "fast")
    assert (InformationLevel(preset="published").fill, InformationLevel(preset="published").coder) == (
        "linear",
        "published",
    )
    assert InformationLevel(preset="published", fill="smooth").fill == "smooth"


if __name__ == "__main__":
    setattr(np, OLD_NAME, np.trapezoid)
    for name, case in CASES.items():
        print(f'    "{name}": {[round(score, 4) for score in case.package()]},'.replace("nan", "math.nan"))
