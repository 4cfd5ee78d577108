"""Infidelity: closed forms, a slow transcription, Captum on the same perturbations, and where Quantus differs."""

import copy
import pickle

import jaxtyping
import numpy as np
import pytest
import quantus
import torch
from captum.metrics import infidelity as captum_infidelity
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import AbsoluteScale, Context, Gradient, RandomAttribution, Smooth
from lightning_xai.functional.infidelity import infidelity, random_squares
from lightning_xai.functional.random import root_keys
from lightning_xai.metrics import Infidelity
from lightning_xai.networks import LeNet
from tests.small import curved, linear

IMAGES = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
ATTRIBUTIONS = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(2))
TARGET = torch.tensor([0, 1, 2, 1, 0])
CONTEXT = Context.create(torch.arange(5), seed=3, bounds=(0.0, 1.0))
both = pytest.mark.parametrize("perturbation", ["square", "noise"])


def small(perturbation, **options):
    return Infidelity(**{"num_draws": 12, "square_size": 3, "perturbation": perturbation} | options)


def score(metric, attributions=ATTRIBUTIONS, model=None, inputs=IMAGES, context=CONTEXT, **options):
    model = curved() if model is None else model
    metric.update(attributions, inputs=inputs, target=TARGET, model=model, context=context, **options)
    return metric.per_sample()[1]


def drawn(metric):
    return metric.perturbations(IMAGES, CONTEXT, torch.arange(metric.num_draws))


# Oracles


def test_by_hand():
    """Predictions 1, 2 of drops 2, 2: errors 1, 0. The best factor is (2 + 4) / (1 + 4) = 1.2: errors 0.8, 0.4."""
    predicted, drops = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 2.0]])
    assert_close(infidelity(predicted, drops, rescale=False), torch.tensor([0.5]))
    assert_close(infidelity(predicted, drops), torch.tensor([(0.64 + 0.16) / 2]))


@both
@pytest.mark.parametrize(("factor", "rescale"), [(1.0, False), (1.0, True), (1e-6, True), (-3e5, True)])
def test_the_gradient_of_a_linear_model_is_perfect(perturbation, factor, rescale):
    model = linear()
    attributions = factor * model[1].weight.detach()[TARGET].view_as(IMAGES)
    scores = score(small(perturbation, rescale=rescale), attributions, model)
    assert_close(scores, torch.zeros(5), rtol=0, atol=1e-9)


def test_the_gradient_of_a_quadratic_model_under_noise():
    """f = x·Ax / 2 falls by I·Ax - I·AI / 2; E[(I·AI)²] = std⁴ (tr(A)² + 2 tr(A²)) for I ~ N(0, std²)."""
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    matrix = root + root.T

    class Quadratic(nn.Module):
        def forward(self, x):
            return (x @ matrix * x).sum(1, keepdim=True) / 2

    inputs, target = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)), torch.ones(4, dtype=torch.int64)
    metric = Infidelity(20000, "noise", std=0.5, rescale=False)
    context = Context.create(torch.arange(4))
    metric.update(inputs @ matrix, inputs=inputs, target=target, model=Quadratic(), context=context)
    expected = 0.5**4 * (matrix.trace() ** 2 + 2 * (matrix @ matrix).trace()) / 4
    assert_close(metric.per_sample()[1], expected.expand(4), rtol=0.05, atol=0)


def test_smooth_grad_of_the_same_deviation_is_best_under_noise():
    model = nn.Sequential(curved(), nn.Softplus(beta=5.0), nn.Linear(3, 3))
    model[0][1].weight.data *= 5
    wider, same = (
        lx.explain(model, IMAGES, TARGET, Smooth(Gradient(), AbsoluteScale(std), num_draws=400), seed=9)
        for std in (2.0, 0.5)
    )
    metric = small("noise", num_draws=3000, std=0.5)
    best, wide, sharp = (score(metric.clone(), a, model) for a in (same, wider, Gradient()(model, IMAGES, TARGET)))
    assert (best < wide).all()
    assert (best < sharp).all()


@both
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("output", ["explained", "probability"])
def test_transcribed(perturbation, rescale, output):
    """Definition 2.1, one sample, one draw and one value at a time."""
    model, metric = curved(), small(perturbation, rescale=rescale, output=output)
    actual, perturbations = score(metric, model=model), drawn(metric)

    def explained(image, sample):
        logits = model(image[None])[0].detach().double()
        return float((logits if output == "explained" else logits.softmax(0))[TARGET[sample]])

    for i, image in enumerate(IMAGES):
        predicted, drops = [], []
        for change in perturbations[:, i]:
            pairs = zip(change.flatten().tolist(), ATTRIBUTIONS[i].flatten().tolist(), strict=True)
            predicted.append(sum(value * weight for value, weight in pairs))
            drops.append(explained(image, i) - explained(image - change, i))
        terms = list(zip(predicted, drops, strict=True))
        factor = sum(p * d for p, d in terms) / sum(p * p for p, _ in terms) if rescale else 1.0
        expected = sum((factor * p - d) ** 2 for p, d in terms) / len(terms)
        assert actual[i].item() == pytest.approx(expected, rel=1e-4, abs=1e-9)


@both
@pytest.mark.parametrize("rescale", [True, False])
def test_captum_on_the_same_perturbations(perturbation, rescale):
    model, metric = curved(), small(perturbation, rescale=rescale)
    actual = score(metric, model=model)
    by_sample = drawn(metric).transpose(0, 1).flatten(0, 1)
    expected = captum_infidelity(
        model,
        lambda inputs: (by_sample, inputs - by_sample),
        IMAGES,
        ATTRIBUTIONS,
        target=TARGET,
        n_perturb_samples=12,
        normalize=rescale,
    )
    assert_close(actual, expected.detach(), rtol=1e-4, atol=1e-7)


def test_quantus_removes_the_blocks_of_a_grid_one_after_the_other():
    """Not at random: block after block, those before stay removed, and each repeat does the same again."""
    model = curved()

    def theirs(repeats):
        metric = quantus.Infidelity(
            perturb_baseline=0.25,
            perturb_patch_sizes=[3],
            n_perturb_samples=repeats,
            abs=False,
            normalise=False,
            disable_warnings=True,
        )
        arrays = {"x_batch": IMAGES.numpy(), "y_batch": TARGET.numpy(), "a_batch": ATTRIBUTIONS.numpy()}
        return np.array(metric(model, **arrays, batch_size=5, softmax=False, channel_first=True))

    image, predicted, drops = IMAGES.clone(), [], []
    with torch.no_grad():
        for top, left in ((0, 0), (0, 3), (3, 0), (3, 3)):
            image[:, :, top : top + 3, left : left + 3] = 0.25
            predicted.append(((IMAGES - image) * ATTRIBUTIONS).flatten(1).sum(1))
            drops.append((model(IMAGES) - model(image)).gather(1, TARGET[:, None])[:, 0])
    ours = infidelity(torch.stack(predicted, 1), torch.stack(drops, 1), rescale=False)
    assert_close(torch.tensor(theirs(1)).float(), ours, rtol=1e-5, atol=1e-6)
    assert_close(theirs(3), theirs(1))


# Perturbations


def test_squares_are_inside_and_everywhere():
    squares = random_squares(root_keys(0, torch.arange(3000)), 2, 4, 6)
    assert (squares.flatten(1).sum(1) == 4).all()
    rows, columns = squares.any(2), squares.any(1)
    assert (rows.sum(1) == 2).all()
    assert (columns.sum(1) == 2).all()
    places = rows.int().argmax(1) * 5 + columns.int().argmax(1)
    counts = places.bincount(minlength=15)
    assert ((counts - 200).abs() < 5 * 200**0.5).all()


def test_a_square_as_large_as_the_image_removes_everything():
    metric = small("square", square_size=6, num_draws=2)
    assert torch.equal(drawn(metric)[1], IMAGES)


def test_noise_has_the_deviation_that_was_asked_for():
    noise = drawn(small("noise", num_draws=200, std=0.3))
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(noise.mean().item()) < 0.01


@both
def test_perturbations_do_not_depend_on_the_company(perturbation):
    metric = small(perturbation)
    part = metric.perturbations(IMAGES[3:4], CONTEXT.select(slice(3, 4)), torch.tensor([7]))
    assert torch.equal(part[0, 0], drawn(metric)[7, 3])


# Invariances


@both
def test_scores_do_not_depend_on_the_batch_or_the_order(perturbation):
    torch.manual_seed(0)
    model, images, order = LeNet(), torch.rand(5, 1, 28, 28), torch.tensor([3, 0, 4, 1, 2])
    metrics = {"infidelity": Infidelity(7, perturbation)}

    def run(rows, **options):
        methods = {"gradient": Gradient(), "random": RandomAttribution()}
        return lx.evaluate(model, images[rows], None, methods, metrics, bounds=(0.0, 1.0), index=rows, **options)

    whole = run(torch.arange(5))
    assert whole.scores["gradient"]["infidelity"].isfinite().all()
    assert_close(run(torch.arange(5), batch_size=2, max_rows=3).scores, whole.scores, rtol=1e-4, atol=1e-6)
    assert_close(run(order, batch_size=3).scores, whole.scores, rtol=1e-4, atol=1e-6)


@both
@pytest.mark.parametrize("factor", [1e-30, 7.0, -1e20])
def test_the_scale_of_an_attribution_does_not_matter_unless_asked_for(perturbation, factor):
    scaled, plain = score(small(perturbation), factor * ATTRIBUTIONS), score(small(perturbation))
    assert_close(scaled, plain, rtol=1e-4, atol=1e-9)
    assert (score(small(perturbation, rescale=False)) > plain).all(), "the best factor is better than 1"


def test_perturbed_images_are_run_once_for_all_methods():
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
        lx.evaluate(Counting(), IMAGES, TARGET, methods, {"i": small("noise")}, bounds=(0.0, 1.0), batch_size=2)
        return sum(rows)

    assert run("abc") == run("a") == 5 * 13


def test_another_setting_has_its_own_perturbations():
    metrics = {"a": small("noise"), "b": small("noise", std=0.4), "plain": small("noise", rescale=False)}
    scores = lx.evaluate(curved(), IMAGES, TARGET, {"m": Gradient()}, metrics, bounds=(0.0, 1.0)).scores["m"]
    assert (scores["a"] < scores["b"]).all()
    alone = lx.evaluate(curved(), IMAGES, TARGET, {"m": Gradient()}, {"b": metrics["b"]}, bounds=(0.0, 1.0))
    assert_close(scores["b"], alone.scores["m"]["b"])


@both
def test_planted_evidence_orders_the_methods(perturbation):
    model = linear()
    truth = model[1].weight.detach()[TARGET].view_as(IMAGES)
    noise = truth.std() * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    metric = small(perturbation, num_draws=200)
    best, middle, worst = (score(metric.clone(), a, model).mean() for a in (truth, truth + noise, noise))
    assert best < middle < worst


# Undefined scores and what torchmetrics does


@both
def test_undefined_scores(perturbation):
    """Sample 1 is attributed nothing; sample 2 has a NaN. An attribution of zeros has a plain score: E[drop²]."""
    attributions = ATTRIBUTIONS.clone()
    attributions[1], attributions[2, 0, 0, 0] = 0, torch.nan
    metric = small(perturbation, num_draws=60)
    assert score(metric, attributions).isnan().tolist() == [False, True, True, False, False]
    assert metric.num_undefined() == 2
    plain = score(small(perturbation, num_draws=60, rescale=False), attributions)
    assert plain.isnan().tolist() == [False, False, True, False, False]


@both
def test_a_constant_model_makes_no_difference_between_attributions(perturbation):
    model = linear()
    nn.init.zeros_(model[1].weight)
    assert score(small(perturbation), model=model).isnan().all()
    assert (score(small(perturbation, rescale=False), model=model) > 0).all()


@both
def test_half_precision_attributions(perturbation):
    half = ATTRIBUTIONS.bfloat16()
    assert torch.equal(score(small(perturbation), half), score(small(perturbation), half.float()))


def test_copies_and_resets():
    metric = small("noise")
    expected = score(metric)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert_close(twin.per_sample()[1], expected)
        twin.reset()
        assert len(twin.scores) == 0
        assert_close(score(twin), expected)
    assert Infidelity.higher_is_better is False


def test_the_model_and_the_inputs_are_left_as_they_were():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(48, 3)).train()
    before, images = {name: value.clone() for name, value in model.state_dict().items()}, IMAGES.clone()
    assert score(small("square"), model=model).isfinite().all()
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(images, IMAGES)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 0}, "`num_draws` must be at least 1, got 0"),
        ({"square_size": 0}, "`square_size` must be at least 1, got 0"),
        ({"std": 0.0}, "`std` must be positive and finite, got 0.0"),
        ({"perturbation": "blur"}, "`perturbation` must be one of 'square', 'noise', got 'blur'"),
        ({"baseline": "gray"}, '`baseline` must be "black", "white" or a number, got "gray"'),
    ],
)
def test_bad_arguments(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        Infidelity(**options)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"`attributions` must have the shape of `inputs`.*got \(5, 1, 6, 6\)"):
        score(small("noise"), ATTRIBUTIONS.sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"`square_size` must be at most the shorter side of the images, 6x6.*got 7"):
        score(small("square", square_size=7))
    with pytest.raises(ValueError, match=r'perturbation="square" needs `inputs`.*got shape \(5, 72\)'):
        score(small("square"), ATTRIBUTIONS.flatten(1), inputs=IMAGES.flatten(1))


def test_a_baseline_by_name_needs_bounds():
    with pytest.raises(ValueError, match='`bounds` is needed by baseline="black"'):
        score(small("square"), context=Context.create(torch.arange(5)))
    assert score(small("noise"), context=Context.create(torch.arange(5))).isfinite().all()
