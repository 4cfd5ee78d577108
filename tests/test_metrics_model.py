"""Metrics that run the model: closed forms, slow transcriptions, Quantus on the same draws."""

import numpy as np
import pytest
import quantus
import torch
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import Context, InputXGradient, RandomAttribution, Saliency
from lightning_xai.functional.faithfulness import pearson, random_subsets
from lightning_xai.functional.random import fold_in, root_keys, uniform
from lightning_xai.metrics import (
    AverageSensitivity,
    DeletionAUC,
    FaithfulnessCorrelation,
    InsertionAUC,
    LocalLipschitz,
    MaxSensitivity,
    PixelFlipping,
    Shared,
)
from tests.small import curved, linear

IMAGES = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 1, 0])
CONTEXT = Context.create(torch.arange(5), seed=3, bounds=(0.0, 1.0))


def score(metric, attributions, model, **options):
    metric.update(attributions, inputs=IMAGES, target=TARGET, model=model, context=CONTEXT, **options)
    return metric.per_sample()[1]


def rows_of(model):
    return model[1].weight.detach()[TARGET].view_as(IMAGES)


# Faithfulness correlation


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (-2.0, -1.0)])
def test_linear_model_input_minus_baseline_times_weight_is_perfectly_faithful(factor, expected):
    """The drop is the sum of w · (x - b) over the subset, all channels."""
    model = linear()
    attributions = factor * rows_of(model) * (IMAGES - 0.5)
    scores = score(FaithfulnessCorrelation(20, 9, baseline=0.5), attributions, model)
    assert_close(scores, torch.full((5,), expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("baseline", ["black", "white", 0.3])
@pytest.mark.parametrize("output", ["explained", "probability"])
def test_faithfulness_correlation_transcribed(baseline, output):
    """Bhatt et al. 2020, equation 1, one sample and one subset at a time, NumPy's correlation."""
    model, attributions = curved(), torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(2))
    actual = score(FaithfulnessCorrelation(12, 7, baseline, output), attributions, model)
    fill = {"black": 0.0, "white": 1.0}.get(baseline, baseline)
    subsets = random_subsets(CONTEXT.private_keys("faithfulness"), 12, 7, 36)
    for i, expected in enumerate(actual):
        sums, drops = [], []
        for subset in subsets[i]:
            changed = IMAGES[i].clone()
            for pixel in subset.tolist():
                changed[:, pixel // 6, pixel % 6] = fill
            logits = model(torch.stack([IMAGES[i], changed])).detach()
            values = (logits if output == "explained" else logits.softmax(1))[:, TARGET[i]]
            drops.append(float(values[0] - values[1]))
            sums.append(sum(float(attributions[i, :, p // 6, p % 6].sum()) for p in subset.tolist()))
        assert_close(expected.item(), np.corrcoef(sums, drops)[0, 1], rtol=0, atol=1e-4)


def test_faithfulness_correlation_per_value_is_quantus_on_the_same_subsets(monkeypatch):
    model, attributions = curved(), torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(2))
    actual = score(FaithfulnessCorrelation(15, 10, baseline=0.25, per_value=True), attributions, model)
    subsets = random_subsets(CONTEXT.private_keys("faithfulness"), 15, 10, 72).transpose(0, 1).flatten(0, 1)
    drawn = iter(subsets.numpy())
    monkeypatch.setattr(np.random, "choice", lambda *args, **kwargs: next(drawn))
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=15, subset_size=10, perturb_baseline=0.25, abs=False, normalise=False, return_aggregate=False
    )
    arrays = {"x_batch": IMAGES.numpy(), "y_batch": TARGET.numpy(), "a_batch": attributions.numpy()}
    expected = metric(model, **arrays, batch_size=5, softmax=False, channel_first=True)
    assert_close(actual, torch.tensor(np.array(expected), dtype=torch.float32), rtol=0, atol=1e-5)


def test_subsets_are_uniform_without_replacement_and_keyed():
    keys = root_keys(0, torch.arange(40))
    subsets = random_subsets(keys, 50, 9, 36)
    assert all(len(set(subset.tolist())) == 9 for subset in subsets.flatten(0, 1))
    counts = subsets.flatten().bincount(minlength=36)
    expected = 40 * 50 * 9 / 36
    assert ((counts - expected).abs() < 5 * expected**0.5).all()
    assert torch.equal(random_subsets(keys[7:9], 20, 9, 36), subsets[7:9, :20])


def test_pearson_of_a_constant_is_undefined():
    x = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
    assert_close(pearson(x, x * 2 + 1), torch.tensor([1.0, torch.nan]), equal_nan=True)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e-8, 3e7])
def test_constant_attribution_is_undefined_and_counted(value):
    metric = FaithfulnessCorrelation(10, 5)
    assert score(metric, torch.full_like(IMAGES, value), curved()).isnan().all()
    assert metric.num_undefined() == 5


def test_the_model_runs_on_the_subsets_once_for_all_methods():
    rows = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = curved()

        def forward(self, images):
            if not torch.is_grad_enabled():
                rows.append(len(images))
            return self.body(images)

    def run(names):
        rows.clear()
        methods = {name: RandomAttribution() for name in names}
        metrics = {"faithfulness": FaithfulnessCorrelation(10, 5)}
        lx.evaluate(Counting(), IMAGES, TARGET, methods, metrics, bounds=(0.0, 1.0), batch_size=2)
        return sum(rows)

    assert run("abc") == run("a") == 5 * 11


def test_metrics_of_other_settings_do_not_share():
    attributions, shared = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(2)), Shared()
    for options in ({"subset_size": 5}, {"subset_size": 9}, {"subset_size": 9, "baseline": 0.5}):
        expected = score(FaithfulnessCorrelation(10, **options), attributions, curved())
        assert_close(score(FaithfulnessCorrelation(10, **options), attributions, curved(), shared=shared), expected)


def test_shared_computes_once_for_each_key():
    shared, calls = Shared(), []
    for key in ("a", "b", "a"):
        assert shared.once(key, lambda key=key: calls.append(key) or key) == key
    assert calls == ["a", "b"]


# Pixel flipping, deletion and insertion


@pytest.mark.parametrize("absolute", [False, True])
def test_curves_transcribed(absolute):
    """One sample, one step and one pixel at a time."""
    model, attributions = curved(), torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(2))
    options = {"num_steps": 5, "baseline": 0.3, "absolute": absolute}
    flipping, deletion, insertion = (
        score(metric, attributions, model)
        for metric in (PixelFlipping(**options), DeletionAUC(**options), InsertionAUC(**options))
    )
    for i, image in enumerate(IMAGES):
        values = attributions[i].sum(0).flatten()
        order = (values.abs() if absolute else values).argsort(descending=True).tolist()
        deleted, inserted = [], []
        for step in range(6):
            without, only = image.clone().flatten(1), torch.full((2, 36), 0.3)
            for pixel in order[: -(-step * 36 // 5)]:
                without[:, pixel], only[:, pixel] = 0.3, image.flatten(1)[:, pixel]
            deleted.append(model(without.view(1, 2, 6, 6))[0].detach())
            inserted.append(model(only.view(1, 2, 6, 6))[0].detach())
        logits = torch.stack(deleted)[:, TARGET[i]]
        assert_close(flipping[i], (logits[0] - logits).mean())
        for actual, curve in ((deletion[i], deleted), (insertion[i], inserted)):
            probabilities = torch.stack(curve).softmax(1)[:, TARGET[i]]
            assert_close(actual, ((probabilities[1:] + probabilities[:-1]) / 2).mean())


def test_pixel_flipping_curve_is_quantus():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Softplus(), nn.Linear(20, 3)).eval()
    images, attributions = IMAGES[:, :1], torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    actual = PixelFlipping(12, 0.25).curve(attributions[:, 0], images, TARGET, model, CONTEXT)
    metric = quantus.PixelFlipping(features_in_step=3, perturb_baseline=0.25, normalise=False)
    arrays = {"x_batch": images.numpy(), "y_batch": TARGET.numpy(), "a_batch": attributions.numpy()}
    expected = metric(model, **arrays, batch_size=5, softmax=False, channel_first=True)
    assert_close(actual[:, 1:], torch.tensor(np.array(expected), dtype=torch.float32), rtol=1e-5, atol=1e-6)


def test_the_true_ranking_of_a_linear_model_is_the_best_one():
    model = linear()
    truth = rows_of(model) * (IMAGES - 0.5)
    chance = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    for metric in (PixelFlipping(baseline=0.5), DeletionAUC(baseline=0.5), InsertionAUC(baseline=0.5)):
        best, other, worst = (score(metric.clone(), values, model) for values in (truth, chance, -truth))
        sign = 1 if metric.higher_is_better else -1
        assert (sign * best > sign * other).all()
        assert (sign * other > sign * worst).all()


# Sensitivity


def noises(draws, radius):
    keys = CONTEXT.private_keys("sensitivity")
    return [(2 * uniform(fold_in(keys, draw), IMAGES.shape[1:]) - 1) * radius for draw in range(draws)]


def lengths(values):
    return values.flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    ("metric", "summary"),
    [
        (MaxSensitivity(6, 0.1), lambda change, noise, a: (change / a).amax(0)),
        (AverageSensitivity(6, 0.1), lambda change, noise, a: (change / a).mean(0)),
        (LocalLipschitz(6, 0.1), lambda change, noise, a: (change / noise).amax(0)),
        (MaxSensitivity(6, 0.1, relative_to="input"), lambda change, noise, a: (change / lengths(IMAGES)).amax(0)),
    ],
)
def test_linear_model_input_times_gradient_has_a_known_sensitivity(metric, summary):
    """a(x + u) - a(x) = w · u."""
    model, explainer = linear(), InputXGradient()
    attributions = explainer(model, IMAGES, TARGET, CONTEXT)
    actual = score(metric, attributions, model, explainer=explainer)
    drawn = noises(6, 0.1)
    change = torch.stack([lengths(rows_of(model) * noise) for noise in drawn])
    expected = summary(change, torch.stack([lengths(noise) for noise in drawn]), lengths(attributions))
    assert_close(actual, expected, rtol=1e-4, atol=1e-6)
    assert all(noise.abs().max() <= 0.1 for noise in drawn)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MaxSensitivity, quantus.MaxSensitivity),
        (AverageSensitivity, quantus.AvgSensitivity),
        (LocalLipschitz, quantus.LocalLipschitzEstimate),
    ],
)
@pytest.mark.parametrize("explainer", [Saliency(), InputXGradient()])
def test_sensitivity_is_quantus_on_the_same_noise(ours, theirs, explainer):
    model = curved()
    attributions = explainer(model, IMAGES, TARGET, CONTEXT)
    actual = score(ours(4, 0.2), attributions, model, explainer=explainer)
    drawn = iter(noises(4, 0.2))
    metric = theirs(
        nr_samples=4,
        abs=False,
        normalise=False,
        perturb_func=lambda arr, indices, **kwargs: arr + next(drawn).flatten(1).numpy(),
        disable_warnings=True,
    )
    expected = metric(
        model,
        IMAGES.numpy(),
        TARGET.numpy(),
        attributions.numpy(),
        explain_func=lambda model, inputs, targets, **kwargs: explainer(
            model, torch.as_tensor(inputs), torch.as_tensor(targets)
        ).numpy(),
        batch_size=5,
        channel_first=True,
    )
    assert next(drawn, None) is None
    assert_close(actual, torch.tensor(np.array(expected), dtype=torch.float32), rtol=1e-5, atol=1e-6)


def test_an_explainers_own_noise_is_not_measured_unless_asked_for():
    model, explainer = linear(), RandomAttribution()
    attributions = explainer(model, IMAGES, TARGET, CONTEXT)
    same = score(MaxSensitivity(3), attributions, model, explainer=explainer)
    assert torch.equal(same, torch.zeros(5))
    fresh = score(AverageSensitivity(3, independent=True), attributions, model, explainer=explainer)
    assert (fresh > 1).all(), "two independent maps are √2 apart"


# Settings


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FaithfulnessCorrelation(1), "`num_subsets` must be at least 2"),
        (lambda: FaithfulnessCorrelation(subset_size=0), "`subset_size` must be at least 1"),
        (lambda: MaxSensitivity(0), "`num_draws` must be at least 1"),
        (lambda: MaxSensitivity(radius=0.0), "`radius` must be positive and finite, got 0.0"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_more_pixels_than_there_are():
    with pytest.raises(ValueError, match="`subset_size` must be at most 36, the pixels of an input; got 37"):
        score(FaithfulnessCorrelation(5, 37), IMAGES, curved())
    with pytest.raises(ValueError, match="`subset_size` must be at most 72, the values of an input; got 73"):
        score(FaithfulnessCorrelation(5, 73, per_value=True), IMAGES, curved())


def test_equal_values_are_flipped_in_the_order_of_the_pixels():
    """A map of two values on 4 pixels: the higher pair first, each pair from the top left on."""
    images, model = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]]), nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
    nn.init.ones_(model[1].weight)
    context = Context.create(torch.arange(1), bounds=(0.0, 8.0))
    maps = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]])
    curve = PixelFlipping(num_steps=4).curve(maps[:, 0], images, torch.tensor([1]), model, context)
    assert_close(curve, torch.tensor([[15.0, 13.0, 5.0, 4.0, 0.0]]))


def test_sensitivity_metrics_that_draw_alike_explain_once_for_all(monkeypatch):
    """Each method by itself, and other draws by themselves; the scores are those that each metric has alone."""
    calls = []
    attribute = Saliency.attribute
    monkeypatch.setattr(Saliency, "attribute", lambda self, *args: calls.append(1) or attribute(self, *args))
    metrics = {
        "max": MaxSensitivity(3),
        "input": MaxSensitivity(3, relative_to="input"),
        "mean": AverageSensitivity(3),
        "lipschitz": LocalLipschitz(3),
        "wider": AverageSensitivity(3, radius=0.4),
    }
    methods = {"one": Saliency(), "other": Saliency(lx.InputXGradient())}
    together = lx.evaluate(curved(), IMAGES, TARGET, methods, metrics)
    assert len(calls) == 2 * (1 + 3 + 3)
    for name, metric in metrics.items():
        alone = lx.evaluate(curved(), IMAGES, TARGET, methods, {name: metric})
        for method in methods:
            assert_close(together.scores[method][name], alone.scores[method][name], rtol=0, atol=0)
    assert not torch.equal(together.scores["one"]["max"], together.scores["other"]["max"])
