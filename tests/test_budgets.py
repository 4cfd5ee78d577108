"""Fewer draws for the same error: antithetic pairs, and as many draws as an error asks for."""

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import (
    AbsoluteScale,
    Context,
    Gradient,
    InputAttribution,
    IntegratedGradients,
    PerturbWeights,
    Smooth,
    with_gradients,
)
from lightning_xai.functional.moments import Moments
from tests.test_smoothing import CONTEXT, IMAGES, TARGET, Quadratic, linear, network

exactly = {"rtol": 0, "atol": 0}


# Antithetic pairs


def noise_of(method, inputs, context):
    return torch.cat(list(method.draws(network(), inputs, torch.zeros(len(inputs), dtype=torch.int64), context)))


def test_antithetic_noise_comes_in_pairs_and_is_that_of_independent_draws():
    inputs = torch.zeros_like(IMAGES)
    pairs = noise_of(Smooth(InputAttribution(), AbsoluteScale(1.0), 8, sampling="antithetic"), inputs, CONTEXT)
    single = noise_of(Smooth(InputAttribution(), AbsoluteScale(1.0), 4), inputs, CONTEXT)
    assert_close(pairs[::2], single, **exactly)
    assert_close(pairs[1::2], -single, **exactly)


def test_each_antithetic_draw_is_standard_normal():
    inputs, context = torch.zeros(300, 1, 4, 4).double(), Context.create(torch.arange(300))
    for draw in noise_of(Smooth(InputAttribution(), AbsoluteScale(1.0), 4, sampling="antithetic"), inputs, context):
        assert stats.kstest(draw.flatten().numpy(), "norm").pvalue > 0.01


def test_antithetic_smooth_grad_of_a_quadratic_model_is_exact():
    """The gradient is linear in the noise, which cancels."""
    model = Quadratic()
    for max_rows in (None, 1, 5):
        context = Context.create(torch.arange(3), max_rows=max_rows)
        method = Smooth(Gradient(), AbsoluteScale(0.7), 6, sampling="antithetic")
        assert_close(method(model, IMAGES, TARGET, context), model.gradient(IMAGES, TARGET))


@pytest.mark.parametrize("noise", ["multiplicative", "additive"])
def test_antithetic_noise_grad_of_a_linear_model_is_exact(noise):
    model = linear()
    method = PerturbWeights(Gradient(), 0.5, 4, noise, sampling="antithetic")
    assert_close(method(model, IMAGES, TARGET, CONTEXT), Gradient()(model, IMAGES, TARGET, CONTEXT))
    single = PerturbWeights(Gradient(), 0.5, 2, noise)
    draws = torch.cat(list(method.draws(model, IMAGES, TARGET, CONTEXT)))
    assert_close(draws[::2], torch.cat(list(single.draws(model, IMAGES, TARGET, CONTEXT))), **exactly)


def test_antithetic_draws_do_not_depend_on_chunks():
    method = lx.smooth_grad(num_draws=10)
    method = Smooth(method.explainer, method.scale, 10, sampling="antithetic")
    whole = method(network(), IMAGES, TARGET, CONTEXT)
    for max_rows in (1, 4, 7):
        context = Context.create(torch.tensor([4, 0, 7]), seed=5, max_rows=max_rows)
        assert_close(method(network(), IMAGES, TARGET, context), whole)


def test_standard_error_of_antithetic_draws_is_that_of_pairs():
    draws = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws[1::2] -= 0.8 * draws[::2]
    moments = Moments(group=2)
    for block in draws.split((4, 2, 6)):
        moments.add(block)
    pairs = draws.unflatten(0, (6, 2)).mean(1)
    assert_close(moments.standard_error, pairs.std(0) / 6**0.5)
    assert_close(moments.variance, draws.var(0, correction=0))
    assert_close(moments.mean, draws.mean(0))


def test_antithetic_error_is_smaller_and_is_estimated_without_bias():
    model, inputs = network(), IMAGES.repeat(60, 1, 1, 1)
    target, context = TARGET.repeat(60), Context.create(torch.arange(180), seed=2)
    exact = Smooth(Gradient(), AbsoluteScale(0.5), 3000)(model, IMAGES, TARGET, Context.create(torch.arange(3)))
    errors, estimates = {}, {}
    for sampling in ("independent", "antithetic"):
        method = Smooth(Gradient(), AbsoluteScale(0.5), 20, sampling=sampling)
        moments = method.moments(model, inputs, target, context)
        errors[sampling] = (moments.mean - exact.repeat(60, 1, 1, 1)).square().mean()
        estimates[sampling] = moments.standard_error.square().mean()
        assert_close(estimates[sampling], errors[sampling], rtol=0.15, atol=0)
    assert errors["antithetic"] < errors["independent"] / 1.3


# A tolerance


def tolerant(tolerance, **options):
    return Smooth(Gradient(), AbsoluteScale(0.5), 16, tolerance=tolerance, **options)


@pytest.mark.parametrize("sampling", ["independent", "antithetic"])
def test_each_sample_stops_where_its_error_is_small_enough(sampling):
    inputs, target = torch.cat([IMAGES, 3 * IMAGES]), TARGET.repeat(2)
    context = Context.create(torch.arange(6), seed=5)
    method = tolerant(0.06, sampling=sampling)
    moments = method.moments(network(), inputs, target, context)
    counts = moments.count.flatten().tolist()
    assert len(set(counts)) > 1, "otherwise the test says little"
    assert all(count % 16 == 0 and count < 1000 for count in counts)
    assert (moments.relative_error <= 0.06).all()
    for row, count in enumerate(counts):
        alone = (inputs[row : row + 1], target[row : row + 1], context.select(slice(row, row + 1)))
        fixed = Smooth(Gradient(), AbsoluteScale(0.5), count, sampling=sampling)
        assert_close(method(network(), *alone)[0], moments.mean[row])
        assert_close(fixed(network(), *alone)[0], moments.mean[row])
        if count > 16:
            sooner = Smooth(Gradient(), AbsoluteScale(0.5), count - 16, sampling=sampling)
            assert sooner.moments(network(), *alone).relative_error > 0.06


def test_noise_grad_has_a_tolerance_too():
    method = PerturbWeights(Gradient(), 0.3, 8, tolerance=0.1)
    moments = method.moments(network(), IMAGES, TARGET, CONTEXT)
    assert (moments.relative_error <= 0.1).all()
    assert moments.count.max() > 8


def test_the_error_that_is_promised_is_the_error():
    inputs, target = IMAGES.repeat(40, 1, 1, 1), TARGET.repeat(40)
    exact = Smooth(Gradient(), AbsoluteScale(0.5), 4000)(network(), IMAGES, TARGET, Context.create(torch.arange(3)))
    maps = tolerant(0.1)(network(), inputs, target, Context.create(torch.arange(120), seed=9))
    difference = (maps - exact.repeat(40, 1, 1, 1)).flatten(1).norm(dim=1) / exact.repeat(40, 1, 1, 1).flatten(1).norm(
        dim=1
    )
    assert 0.05 < difference.square().mean().sqrt() < 0.115


def test_most_draws():
    moments = tolerant(1e-6, max_draws=25).moments(network(), IMAGES, TARGET, CONTEXT)
    assert moments.count.flatten().tolist() == [25, 25, 25]
    assert_close(moments.mean, Smooth(Gradient(), AbsoluteScale(0.5), 25)(network(), IMAGES, TARGET, CONTEXT))


def test_maps_without_noise_stop_at_the_first_look():
    assert tolerant(0.01).moments(linear(), IMAGES, TARGET, CONTEXT).count.flatten().tolist() == [16, 16, 16]


@pytest.mark.parametrize("wrap", [lambda method: method, lambda method: IntegratedGradients(method, 0.0, 3)])
def test_evaluation_tells_the_gradients_of_each_sample(wrap):
    inputs, target = torch.cat([IMAGES, 3 * IMAGES]), TARGET.repeat(2)
    methods = {"whole": wrap(tolerant(0.06))}
    scores = lx.evaluate(network(), inputs, target, methods, {"sparseness": lx.metrics.Sparseness()}).scores["whole"]
    for batch_size in (1, 4):
        parts = lx.evaluate(
            network(), inputs, target, methods, {"sparseness": lx.metrics.Sparseness()}, batch_size=batch_size
        ).scores["whole"]
        assert_close(parts["gradients"], scores["gradients"])
    if isinstance(methods["whole"], Smooth):
        counts = tolerant(0.06).moments(network(), inputs, target, Context.create(torch.arange(6))).count.flatten()
        assert_close(scores["gradients"], counts.float())
    assert len(scores["gradients"].unique()) > 1


def test_equal_cost_takes_an_even_number_of_pairs_and_no_tolerance():
    method = with_gradients(Smooth(num_draws=50, sampling="antithetic", tolerance=0.1), 25)
    assert (method.num_draws, method.tolerance) == (24, None)
    assert with_gradients(Smooth(num_draws=50, sampling="antithetic"), 1).num_draws == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 5, "sampling": "antithetic"}, "`num_draws` must be even for antithetic pairs, got 5"),
        (
            {"include_clean": True, "sampling": "antithetic"},
            "`include_clean` is for a fixed number of independent draws",
        ),
        ({"include_clean": True, "tolerance": 0.1}, "`include_clean` is for a fixed number of independent draws"),
        ({"tolerance": 0.0}, "`tolerance` must be positive and finite, or None; got 0.0"),
        ({"tolerance": float("inf")}, "`tolerance` must be positive and finite, or None; got inf"),
        ({"tolerance": 0.1, "statistic": "variance"}, '`tolerance` is of the mean over the draws, .* "variance"'),
        ({"tolerance": 0.1, "max_draws": 40}, "`max_draws` must be at least `num_draws`=50; got 40"),
        (
            {"tolerance": 0.1, "max_draws": 51, "sampling": "antithetic"},
            "`max_draws` must be at least `num_draws`=50, and even for antithetic pairs; got 51",
        ),
        (
            {"tolerance": 0.1, "explainer": lx.Saliency(PerturbWeights(tolerance=0.2))},
            "`tolerance` cannot stand inside an explainer that has one",
        ),
    ],
)
def test_bad_budgets(options, message):
    with pytest.raises(ValueError, match=message):
        Smooth(**options)
