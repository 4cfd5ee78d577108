"""Evidence that was planted: where the truth is known, every metric with a direction puts it first and noise last.

Images are noise around gray (0), in [-1, 1], with the pattern of their class at a random place. The network is a bank
of matched filters, built by hand: the response to each class's pattern, a threshold that the noise does not pass, and
the sum over all places. So the evidence is the pattern, for the network too, and its gradient is the truth. SmoothGrad
adds noise that does pass the threshold here and there: it is the method that is right, but not quite.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import lightning_xai.metrics
from lightning_xai import adapt_grad, evaluate, smooth_grad
from lightning_xai.explainers import Context, Explainer, Gradient, InputXGradient, RandomAttribution
from lightning_xai.metrics import SampleMetric, standard_error

NUM, SIZE, PATCH, CLASSES = 64, 16, 5, 4
BOUNDS = (-1.0, 1.0)
GRAY = 0.0
MARGIN = 5  # standard errors of the mean difference between two methods on the same image


def plant() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patterns (class, 1, 5, 5) of +1 and -1, images, classes and masks."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 2, (CLASSES, 1, PATCH, PATCH), generator=generator) * 2.0 - 1
    images = 0.3 * torch.randn(NUM, 1, SIZE, SIZE, generator=generator)
    target = torch.arange(NUM) % CLASSES
    masks = torch.zeros(NUM, SIZE, SIZE, dtype=torch.bool)
    corners = torch.randint(0, SIZE - PATCH + 1, (NUM, 2), generator=generator).tolist()
    for i, (top, left) in enumerate(corners):
        box = slice(top, top + PATCH), slice(left, left + PATCH)
        images[i, 0][box] += 0.7 * patterns[target[i], 0]
        masks[i][box] = True
    return patterns, images.clamp(*BOUNDS), target, masks


PATTERNS, IMAGES, TARGET, MASKS = plant()


class MatchedFilters(nn.Module):
    """A fixed convolution, a threshold, the sum over all places."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.threshold = nn.Conv2d(1, CLASSES, PATCH, bias=False), nn.Softplus(beta=5)
        self.filters.weight.data.copy_(PATTERNS)

    def forward(self, images: Tensor) -> Tensor:
        return 0.3 * self.threshold(self.filters(images) - 8).sum((2, 3))


MODEL = MatchedFilters()


@dataclass(frozen=True)
class TrueGradient(Explainer):
    """The pattern of the class where it fits best, 0 elsewhere: the gradient of the evidence without the clutter."""

    def attribute(self, model: Any, inputs: Tensor, target: Tensor, context: Context) -> Tensor:
        responses = F.conv2d(inputs, PATTERNS).gather(1, target.view(-1, 1, 1, 1).expand(-1, 1, 12, 12))
        best = F.one_hot(responses.flatten(1).argmax(1), 12 * 12).view_as(responses).to(inputs)
        return torch.cat(
            [F.conv_transpose2d(place[None], PATTERNS[k][None]) for place, k in zip(best, target, strict=True)]
        )


@dataclass(frozen=True)
class Unit(Explainer):
    """Attributions of Euclidean norm 1."""

    explainer: Explainer

    def attribute(self, model: Any, inputs: Tensor, target: Tensor, context: Context) -> Tensor:
        return F.normalize(self.explainer.attribute(model, inputs, target, context).flatten(1)).view_as(inputs)


ORACLE, METHOD, CHANCE = TrueGradient(), smooth_grad(fraction=0.5, num_draws=4), RandomAttribution()
GRADIENTS = [ORACLE, METHOD, CHANCE]  # output per unit of input
CONTRIBUTIONS = [InputXGradient(ORACLE), InputXGradient(METHOD), CHANCE]  # output


@dataclass(frozen=True)
class Case:
    """A metric's settings, and the explainers that it must put in this order, the best first."""

    order: list[Explainer]
    settings: dict[str, Any] = field(default_factory=dict)


CURVE = Case(CONTRIBUTIONS, {"num_steps": 32, "baseline": GRAY})
# Fresh draws of the explainer's own noise: with shared draws a random map does not move at all.
MOVES = {"num_draws": 4, "independent": True}
CASES = {
    "AverageSensitivity": Case(GRADIENTS, MOVES),
    "Complexity": Case(CONTRIBUTIONS),
    "DeletionAUC": CURVE,
    "EffectiveComplexity": Case(CONTRIBUTIONS),
    "FaithfulnessCorrelation": Case(CONTRIBUTIONS, {"num_subsets": 50, "subset_size": 25, "baseline": GRAY}),
    "Infidelity": Case(GRADIENTS, {"num_draws": 50, "square_size": 6, "baseline": GRAY}),
    "InformationLevel": Case(CONTRIBUTIONS, {"min_score": 0.5}),
    # It looks at the noise that a method adds, not at its maps: none, noise kept in range, noise that is not.
    "InherentNoise": Case([Gradient(), adapt_grad(num_draws=2), smooth_grad(fraction=0.5, num_draws=2)]),
    "InsertionAUC": CURVE,
    "LocalLipschitz": Case([Unit(explainer) for explainer in GRADIENTS], MOVES),
    "LocalizationAUROC": Case(CONTRIBUTIONS),
    "MaxSensitivity": Case(GRADIENTS, MOVES),
    "PixelFlipping": CURVE,
    # The highest value is nearly always right: it takes a rougher method to fall short of the truth.
    "PointingGame": Case([ORACLE, smooth_grad(fraction=0.6, num_draws=3), CHANCE]),
    "RelevanceMassAccuracy": Case(CONTRIBUTIONS),
    "RelevanceRankAccuracy": Case(CONTRIBUTIONS),
    "Sparseness": Case(CONTRIBUTIONS),
    "TopKIntersection": Case(CONTRIBUTIONS, {"k": PATCH**2}),
}


def score(metric: SampleMetric, *explainers: Explainer) -> list[Tensor]:
    """Each explainer's scores of all samples, greater being better."""
    methods = {str(i): explainer for i, explainer in enumerate(explainers)}
    result = evaluate(MODEL, IMAGES, TARGET, methods, {"metric": metric}, MASKS, bounds=BOUNDS)
    sign = 1 if metric.higher_is_better else -1
    return [sign * result.scores[name]["metric"] for name in methods]


def test_every_metric_with_a_direction_is_tested():
    exported = (getattr(lightning_xai.metrics, name) for name in lightning_xai.metrics.__all__)
    metrics = {c for c in exported if isinstance(c, type) and issubclass(c, SampleMetric) and c is not SampleMetric}
    assert {m.__name__ for m in metrics if getattr(m, "higher_is_better", None) is not None} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_metrics_put_the_truth_first_and_chance_last(name):
    case = CASES[name]
    best, method, worst = score(getattr(lightning_xai.metrics, name)(**case.settings), *case.order)
    for difference in (best - method, method - worst):
        assert difference.mean() > MARGIN * standard_error(difference), (best.mean(), method.mean(), worst.mean())


# What the above rests on


def test_the_network_sees_the_pattern_and_nothing_else():
    assert_close(MODEL(IMAGES).argmax(1), TARGET)
    without = torch.where(MASKS[:, None], GRAY, IMAGES)
    only = torch.where(MASKS[:, None], IMAGES, GRAY)
    assert (MODEL(without).argmax(1) == TARGET).float().mean() < 0.5
    assert_close(MODEL(only).argmax(1), TARGET)


def test_the_truth_is_where_the_pattern_was_planted():
    truth = TrueGradient()(MODEL, IMAGES, TARGET)
    assert torch.equal(truth[:, 0] != 0, MASKS)
    assert_close(truth[MASKS[:, None]].view(NUM, -1), PATTERNS[TARGET].flatten(1))


def test_a_map_that_never_moves_is_the_most_robust_whatever_it_says():
    """With the same draws for input and noisy input, chance is as robust as the truth: robustness alone says little."""
    for name in ("MaxSensitivity", "AverageSensitivity", "LocalLipschitz"):
        metric = getattr(lightning_xai.metrics, name)(num_draws=2)
        assert_close(torch.stack(score(metric, CHANCE, ORACLE)), torch.zeros(2, NUM))
