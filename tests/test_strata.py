"""Stratified noise: each draw is distributed as an independent one, and n of an element hit n strata once each."""

from dataclasses import replace

import jaxtyping
import numpy as np
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
    Saliency,
    Smooth,
)
from lightning_xai.functional.random import Strata, fold_in, remembering_noise, root_keys, standard_normal
from lightning_xai.networks import MLP
from tests.test_smoothing import CONTEXT, IMAGES, TARGET, Quadratic, network

exactly = {"rtol": 0, "atol": 0}
unchecked = pytest.mark.usefixtures("no_type_checker")
STRATA = 11111  # folded into the keys of the draws, gives those of the strata


def noise(number, keys, shape, numbers=None):
    """(draw, row, ...)."""
    numbers = torch.arange(number) if numbers is None else numbers
    return Strata(fold_in(keys, STRATA), number, shape).normal(numbers, fold_in(keys, numbers[:, None]).flatten())


def cells(values):
    """The numbers of the quantiles that the values are, 0 .. 65,535."""
    quantiles = torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16) * 1.000010141104
    found = torch.searchsorted(((quantiles[1:] + quantiles[:-1]) / 2).contiguous(), values.double())
    assert_close(quantiles[found].float(), values, rtol=1e-6, atol=1e-9)
    return found


# What the numbers are


def words(key, count):
    """SplitMix64 by Python's integers."""
    mask, out = 2**64 - 1, []
    for i in range(1, count + 1):
        x = (key + i * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        out.append(x ^ (x >> 31))
    return out


@pytest.mark.parametrize("number", [1, 2, 7, 12, 50, 2**15])
def test_values_are_those_of_a_slow_transcription(number):
    keys, length, draws = root_keys(3, torch.tensor([5, 0])), 9, torch.tensor([number - 1, 0, number // 2])
    units = [a for a in range(1, number + 1) if np.gcd(a, number) == 1]
    expected = torch.empty(3, 2, length, dtype=torch.int64)
    for row, key in enumerate(keys):
        strata = words(int(fold_in(key[None], STRATA)), length)
        for place, draw in enumerate(draws.tolist()):
            own = words(int(fold_in(key[None], draw)), -(-length // 4))
            for element, word in enumerate(strata):
                start = ((word & (2**32 - 1)) * number) >> 32
                step = units[((word >> 32) * len(units)) >> 32]
                position = own[element // 4] >> (16 * (element % 4)) & (2**16 - 1)
                stratum = (step * draw + start) % number
                expected[place, row, element] = (2**16 * stratum + position) // number
    assert_close(cells(noise(number, keys, (length,), draws)), expected, **exactly)


@pytest.mark.parametrize("number", [1, 2, 7, 16, 50, 101])
def test_the_draws_of_an_element_hit_each_stratum_once(number):
    found = cells(noise(number, root_keys(0, torch.arange(5)), (3, 70))).sort(0).values
    strata = torch.arange(number).view(-1, 1, 1, 1)
    assert (found >= 2**16 * strata // number).all()
    assert (found <= (2**16 * (strata + 1) - 1) // number).all()


@pytest.mark.parametrize("number", [2, 10, 50, 53])
def test_each_draw_is_distributed_as_an_independent_one(number):
    keys = root_keys(1, torch.arange(20_000))
    for draw in (0, 1, number - 1):
        found = cells(noise(number, keys, (16,), torch.tensor([draw])))
        assert stats.chisquare(found.flatten().bincount(minlength=2**16).view(512, -1).sum(1)).pvalue > 0.01
        assert stats.chisquare((found % 128).flatten().bincount(minlength=128)).pvalue > 0.01


def test_two_draws_of_a_prime_number_are_in_any_two_strata():
    found = cells(noise(5, root_keys(2, torch.arange(20_000)), (4,), torch.tensor([1, 4]))) * 5 // 2**16
    pairs = (5 * found[0] + found[1]).flatten().bincount(minlength=25).view(5, 5)
    assert pairs.diagonal().sum() < 10  # of cells on the boundary of two strata
    assert stats.chisquare(pairs[~torch.eye(5, dtype=torch.bool)]).pvalue > 0.01


def test_elements_and_samples_are_independent():
    rows = noise(10, root_keys(0, torch.arange(6)), (4000,)).permute(1, 0, 2).double()
    for draw in (0, 7):
        for values in (rows[:, draw], torch.stack([rows[0, draw, k : 3990 + k] for k in range(6)])):
            correlation = torch.corrcoef(values).triu(1)
            assert stats.kstest(correlation[correlation != 0] * values.shape[1] ** 0.5, "norm").pvalue > 0.01


def test_one_stratum_is_independent_noise():
    keys = root_keys(0, torch.arange(3))
    assert_close(noise(1, keys, (5, 7))[0], standard_normal(fold_in(keys, 0), (5, 7)), **exactly)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2**14 + 3,), (3, 80, 80)])
def test_a_value_depends_on_its_sample_and_draw_alone(shape):
    keys, numbers = root_keys(0, torch.tensor([4, 8, 15])), torch.tensor([2, 0, 6])
    whole = noise(7, keys, shape)
    assert whole.shape == (7, 3, *shape)
    assert_close(noise(7, keys[[2, 0]], shape, numbers), whole[numbers][:, [2, 0]], **exactly)
    with remembering_noise():
        for _ in range(2):
            assert_close(noise(7, keys, shape), whole, **exactly)
            assert_close(noise(7, keys + 1, shape, numbers), noise(7, keys + 1, shape)[numbers], **exactly)
        assert (noise(8, keys, shape)[:7] != whole).any()


# What the means are


def variance_of_the_mean(number):
    """Of n stratified values: the mean variance within the strata, over n."""
    quantiles = torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16)
    return quantiles.view(number, -1).var(1, correction=0).mean().item() / number


@pytest.mark.parametrize("number", [4, 16])
def test_smooth_grad_of_a_quadratic_model_has_the_error_within_the_strata(number):
    """The gradient is linear in the noise: A (x + e) + b."""
    model, inputs = Quadratic(), IMAGES.repeat(500, 1, 1, 1)
    method = Smooth(Gradient(), AbsoluteScale(0.7), number, sampling="stratified")
    errors = method(model, inputs, TARGET.repeat(500), Context.create(torch.arange(1500)))
    errors = (errors - model.gradient(IMAGES, TARGET).repeat(500, 1, 1, 1)).view(500, 3, 16)
    expected = 0.7**2 * variance_of_the_mean(number) * model.matrix[TARGET].square().sum(2)
    assert_close(errors.square().mean((0, 2)), expected.mean(1).detach(), rtol=0.05, atol=0)
    assert variance_of_the_mean(number) < 0.35 / number  # 1 / number for independent draws


@pytest.mark.parametrize("weight_noise", ["multiplicative", "additive"])
def test_noise_grad_of_a_linear_model_has_the_error_within_the_strata(weight_noise):
    model, method = (
        MLP((1, 80, 80), (), 3).double(),
        PerturbWeights(Gradient(), 0.5, 8, weight_noise, sampling="stratified"),
    )
    clean = model.layers.linear1.weight.detach()
    found = method(model, torch.zeros(3, 1, 80, 80).double(), torch.arange(3)).flatten(1)
    size = clean if weight_noise == "multiplicative" else clean.square().mean().sqrt()
    assert_close(((found - clean) / size / 0.5).square().mean().item(), variance_of_the_mean(8), rtol=0.05, atol=0)


METHODS = {
    "smooth": Smooth(Gradient(), AbsoluteScale(0.5), 10, sampling="stratified"),
    "weights": PerturbWeights(Gradient(), 0.3, 10, sampling="stratified"),
    "fusion": PerturbWeights(
        Smooth(Gradient(), AbsoluteScale(0.5), 5, sampling="stratified"), 0.3, 7, sampling="stratified"
    ),
    "within": Smooth(
        PerturbWeights(Gradient(), 0.3, 2, sampling="stratified"), AbsoluteScale(0.5), 7, sampling="stratified"
    ),
    "path": IntegratedGradients(Smooth(Gradient(), AbsoluteScale(0.5), 7, sampling="stratified"), 0.0, 3),
}


SLOW = ("weights", "fusion", "within")
"""Whose weight noise is shared by all samples, so that they take a seed each time."""


def independent(method):
    """The same with independent draws, all the way in."""
    inner = {name: independent(part) for name, part in vars(method).items() if name in ("explainer", "gradient")}
    own = {"sampling": "independent"} if hasattr(method, "sampling") else {}
    return replace(method, **{name: part for name, part in inner.items() if part != getattr(method, name)}, **own)


@pytest.mark.parametrize("name", METHODS)
def test_maps_do_not_depend_on_batch_order_or_chunks(name):
    method = METHODS[name]
    whole = method(network(), IMAGES, TARGET, CONTEXT)
    for max_rows in (1, 4, 7):
        context = Context.create(torch.tensor([4, 0, 7]), seed=5, bounds=(-0.5, 1.5), max_rows=max_rows)
        assert_close(method(network(), IMAGES, TARGET, context), whole)
    rows = torch.tensor([2, 0])
    assert_close(method(network(), IMAGES[rows], TARGET[rows], CONTEXT.select(rows)), whole[rows])


@pytest.fixture
def no_type_checker(monkeypatch):
    """It takes most of the time where there are many short calls."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def repeated(method, times):
    """Maps of the three images under so much noise, (time, ...): of other samples, or where they share it of seeds."""
    if isinstance(method, Smooth | IntegratedGradients) and "PerturbWeights" not in repr(method):
        inputs, context = IMAGES.repeat(times, 1, 1, 1), Context.create(torch.arange(3 * times), seed=1)
        return method(network(), inputs, TARGET.repeat(times), context).view(times, -1)
    contexts = (Context.create(torch.arange(3), seed) for seed in range(times))
    return torch.stack([method(network(), IMAGES, TARGET, context).flatten() for context in contexts])


@unchecked
@pytest.mark.parametrize("name", ["smooth", "path", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_error_is_smaller_and_without_bias(name):
    times = 60 if name in SLOW else 200
    stratified, other = repeated(METHODS[name], times), repeated(independent(METHODS[name]), times)
    assert stratified.var(0).sum() < 0.7 * other.var(0).sum()  # 0.3 to 0.5
    z = (stratified.mean(0) - other.mean(0)) / ((stratified.var(0) + other.var(0)) / times).sqrt()
    assert z.square().mean() < 1.6


def test_draws_within_draws_have_strata_of_their_own():
    """Under each noisy model the draws of the input hit each stratum once, and in another order."""
    smooth = Smooth(InputAttribution(), AbsoluteScale(1.0), 32, sampling="stratified")
    inputs, found = torch.zeros(3, 1, 4, 4, dtype=torch.float64), []
    for number in range(2):
        drawn = torch.cat(list(smooth.draws(network(), inputs, TARGET, CONTEXT.model_draw(number))))
        found.append(cells(drawn.float()) * 32 // 2**16)
        assert_close(found[-1].sort(0).values, torch.arange(32).view(-1, 1, 1, 1, 1).expand(32, 3, 1, 4, 4), **exactly)
    assert 0.01 < (found[0] == found[1]).double().mean() < 0.06  # 1 / 32


def test_the_standard_error_is_that_of_independent_draws():
    method = Smooth(Gradient(), AbsoluteScale(0.5), 20, sampling="stratified")
    draws = torch.cat(list(method.draws(network(), IMAGES, TARGET, CONTEXT)))
    moments = method.moments(network(), IMAGES, TARGET, CONTEXT)
    assert_close(moments.standard_error, draws.std(0) / 20**0.5)
    assert_close(moments.mean, draws.mean(0))


@unchecked
@pytest.mark.parametrize("name", ["smooth", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW[:2])])
def test_the_standard_error_is_an_upper_bound(name):
    """Its 95 % interval holds the mean over many seeds more often than that."""
    method, covered = METHODS[name], []
    exact = repeated(method, 200).mean(0)
    for seed in range(-40, 0):
        moments = method.moments(network(), IMAGES, TARGET, Context.create(torch.arange(3), seed))
        reach = stats.t.ppf(0.975, moments.count - 1) * moments.standard_error.flatten()
        covered.append(((moments.mean.flatten() - exact).abs() <= reach).double().mean())
    assert torch.stack(covered).mean() > 0.97


@pytest.mark.parametrize("make", [Smooth, PerturbWeights])
def test_what_strata_do_not_go_with(make):
    with pytest.raises(ValueError, match=r'`tolerance` cannot go with `sampling="stratified"`.*sampling="antithetic"'):
        make(num_draws=50, sampling="stratified", tolerance=0.1)
    with pytest.raises(ValueError, match=r"`num_draws` must be at most 32768 .* got 32769"):
        make(num_draws=2**15 + 1, sampling="stratified")


def test_the_clean_input_is_no_stratum():
    with pytest.raises(ValueError, match="`include_clean` is for a fixed number of independent draws"):
        Smooth(include_clean=True, sampling="stratified")


def test_the_papers_methods_draw_independently():
    for method in (lx.smooth_grad(), lx.adapt_grad(), lx.noise_grad(), lx.fusion_grad(), lx.fusion_grad().explainer):
        assert method.sampling == "independent"


def test_strata_of_a_saliency_that_wraps_them():
    method = Saliency(METHODS["smooth"])
    assert_close(
        method(network(), IMAGES, TARGET, CONTEXT), METHODS["smooth"](network(), IMAGES, TARGET, CONTEXT).abs()
    )
