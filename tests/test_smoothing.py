"""The smoothing engine: closed forms, slow transcriptions of the papers, draws, chunks and memory."""

import copy
import gc
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_xai.explainers import (
    AbsoluteScale,
    Context,
    Explainer,
    Gradient,
    InputAttribution,
    InputXGradient,
    IntegratedGradients,
    PerturbWeights,
    RangeScale,
    Saliency,
    Smooth,
    fusion_grad,
    noise_grad,
)
from lightning_xai.explainers.chunks import row_limit
from lightning_xai.functional.moments import Moments
from lightning_xai.networks import MLP, LeNet

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 1, 4, 4, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([2, 0, 1])
CONTEXT = Context.create(torch.tensor([4, 0, 7]), seed=5, bounds=(-0.5, 1.5))
exactly = {"rtol": 0, "atol": 0}


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP((1, 4, 4), hidden=(), num_classes=3).double()


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP((1, 4, 4), hidden=(12,), num_classes=3).double()


class Quadratic(nn.Module):
    """f_c(x) = x'A_c x / 2 + b_c'x, with symmetric A_c: the gradient is A_c x + b_c."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        half = torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
        self.matrix = nn.Parameter(half + half.mT)
        self.slope = nn.Parameter(torch.randn(3, 16, generator=generator, dtype=torch.float64))

    def forward(self, x):
        x = x.flatten(1)
        return torch.einsum("bi,cij,bj->bc", x, self.matrix, x) / 2 + x @ self.slope.T

    def gradient(self, x, target):
        gradient = torch.einsum("bij,bj->bi", self.matrix[target], x.flatten(1)) + self.slope[target]
        return gradient.detach().view_as(x)


# Closed forms


@pytest.mark.parametrize(
    "method",
    [
        Gradient(),
        Smooth(num_draws=4),
        Smooth(num_draws=4, include_clean=True),
        Smooth(Smooth(num_draws=2), num_draws=2),
        PerturbWeights(Smooth(num_draws=3), std=0.0, num_draws=2),
    ],
)
def test_linear_model_any_smoothed_gradient_is_the_weight_row(method):
    model = linear()
    expected = model.layers.linear1.weight.detach()[TARGET].view_as(IMAGES)
    assert_close(method(model, IMAGES, TARGET, CONTEXT), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gradient", [Gradient(), Smooth(num_draws=3)])
@pytest.mark.parametrize(("baseline", "value"), [(0.3, 0.3), ("black", -0.5), ("white", 1.5)])
def test_linear_model_integrated_gradients(gradient, baseline, value):
    model = linear()
    rows = model.layers.linear1.weight.detach()[TARGET].view_as(IMAGES)
    method = IntegratedGradients(gradient, baseline, num_steps=3)
    assert_close(method(model, IMAGES, TARGET, CONTEXT), (IMAGES - value) * rows, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gradient", [Gradient(), Smooth(num_draws=3)])
def test_linear_model_input_times_gradient_takes_the_clean_input(gradient):
    model = linear()
    rows = model.layers.linear1.weight.detach()[TARGET].view_as(IMAGES)
    assert_close(InputXGradient(gradient)(model, IMAGES, TARGET, CONTEXT), IMAGES * rows)


def test_linear_model_noise_grad_is_the_mean_absolute_noisy_weight_of_every_sample():
    model, method = linear(), noise_grad(num_draws=7)
    seeds = [CONTEXT.model_draw(number).seed for number in range(7)]
    draws = [method.noisy_weights(model, seed)["layers.linear1.weight"] for seed in seeds]
    expected = torch.stack(draws).abs().mean(0)[TARGET].view_as(IMAGES)
    assert_close(method(model, IMAGES, TARGET, CONTEXT), expected)


def test_quadratic_model_smooth_grad_and_var_grad():
    model, std, draws = Quadratic(), 0.3, 4000
    moments = Smooth(Gradient(), AbsoluteScale(std), draws).moments(model, IMAGES, TARGET, CONTEXT)
    variance = std**2 * model.matrix[TARGET].detach().square().sum(2).view_as(IMAGES)  # diag(A S A')
    error = (variance / draws).sqrt()
    assert ((moments.mean - model.gradient(IMAGES, TARGET)) / error).abs().max() < 4
    assert ((moments.variance / variance - 1) / (2 / draws) ** 0.5).abs().max() < 4
    assert_close(moments.standard_error, error, rtol=0.1, atol=0)


def test_quadratic_model_anisotropic_noise():
    model, draws = Quadratic(), 4000
    method = Smooth(Gradient(), InElement(), draws, statistic="variance")
    covariance = torch.diag_embed(InElement()(IMAGES, CONTEXT).flatten(1).square())
    matrix = model.matrix[TARGET].detach()
    expected = (matrix @ covariance @ matrix.mT).diagonal(dim1=1, dim2=2).reshape(IMAGES.shape)
    assert_close(method(model, IMAGES, TARGET, CONTEXT), expected, rtol=5 * (2 / draws) ** 0.5, atol=0)


class InElement(AbsoluteScale):
    """A different standard deviation for each element."""

    def __call__(self, inputs, context):
        return 0.1 + 0.5 * inputs.abs()


def test_quadratic_model_integrated_gradients_are_exact():
    model = Quadratic()
    expected = IMAGES * (model.gradient(IMAGES, TARGET) + model.gradient(torch.zeros_like(IMAGES), TARGET)) / 2
    actual = IntegratedGradients(baseline=0.0, num_steps=1)(model, IMAGES, TARGET, CONTEXT)
    assert_close(actual, expected)
    logits = model(IMAGES).gather(1, TARGET[:, None])[:, 0].detach()
    assert_close(actual.sum((1, 2, 3)), logits)


def test_error_of_smooth_grad_falls_with_the_root_of_the_number_of_draws():
    model = Quadratic()
    inputs, target = IMAGES.repeat(40, 1, 1, 1), TARGET.repeat(40)
    counts, errors = torch.tensor([4.0, 16, 64, 256]), []
    for count in counts.int().tolist():
        method = Smooth(Gradient(), AbsoluteScale(0.3), count)
        attributions = method(model, inputs, target, Context.create(torch.arange(120)))
        errors.append((attributions - model.gradient(inputs, target)).square().mean().sqrt())
    x, y = counts.log().double(), torch.stack(errors).log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(-0.5, abs=0.03)


# Slow transcriptions: one sample, one draw, one gradient at a time


def slow_gradient(model, image, target):
    image = image.clone().requires_grad_()
    return torch.autograd.grad(model(image[None])[0, target], image)[0]


def noisy_images(sample, context, std, draws):
    """What `Smooth` explains, recorded one sample at a time; the noise itself is tested for its distribution."""
    rows = slice(sample, sample + 1)
    blocks = Smooth(InputAttribution(), AbsoluteScale(std), draws).draws(
        linear(), IMAGES[rows], TARGET[rows], context.select(rows)
    )
    return torch.cat(list(blocks))[:, 0]


def noisy_copy(model, method, seed):
    """A copy of the model with noise added in place."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in method.noisy_weights(model, seed).items():
            copied.get_parameter(name).copy_(weight)
    return copied


@pytest.mark.parametrize("statistic", ["mean", "variance", "mean_square"])
def test_smooth_transcribed(statistic):
    model, actual = network(), Smooth(Gradient(), AbsoluteScale(0.4), 9, statistic)
    for sample, target in enumerate(TARGET):
        draws = [slow_gradient(model, noisy, target) for noisy in noisy_images(sample, CONTEXT, 0.4, 9)]
        stack = torch.stack(draws)
        expected = {
            "mean": stack.mean(0),
            "variance": stack.var(0, correction=0),
            "mean_square": stack.square().mean(0),
        }
        assert_close(actual(model, IMAGES, TARGET, CONTEXT)[sample], expected[statistic])


@pytest.mark.parametrize("noise", ["multiplicative", "additive"])
def test_noise_grad_transcribed(noise):
    model, method = network(), PerturbWeights(std=0.3, num_draws=4, noise=noise)
    actual = method(model, IMAGES, TARGET, CONTEXT)
    copies = [noisy_copy(model, method, CONTEXT.model_draw(number).seed) for number in range(4)]
    for sample, target in enumerate(TARGET):
        draws = [slow_gradient(noisy, IMAGES[sample], target).abs() for noisy in copies]
        assert_close(actual[sample], torch.stack(draws).mean(0))


def test_fusion_grad_transcribed():
    model, method = network(), fusion_grad(num_weight_draws=3, num_input_draws=4)
    actual = method(model, IMAGES, TARGET, CONTEXT)
    for sample, target in enumerate(TARGET):
        maps = []
        for number in range(3):
            drawn = CONTEXT.model_draw(number)
            noisy = noisy_copy(model, method, drawn.seed)
            maps += [slow_gradient(noisy, image, target).abs() for image in noisy_images(sample, drawn, 0.4, 4)]
        assert len(maps) == 12
        assert_close(actual[sample], torch.stack(maps).mean(0))


# Draws


def blocks(method, rows=slice(None), max_rows=None, model=None):
    context = Context.create(torch.tensor([4, 0, 7])[rows], seed=5, bounds=(-0.5, 1.5), max_rows=max_rows)
    return list(method.draws(model or network(), IMAGES[rows], TARGET[rows], context))


@pytest.mark.parametrize("inner", [InputAttribution(), IntegratedGradients(InputAttribution(), num_steps=2)])
def test_noise_is_the_same_bit_for_bit_for_any_batch_and_chunk(inner):
    method = Smooth(inner, RangeScale(0.2), 7)
    expected = torch.cat(blocks(method))
    assert len(expected) == 7
    assert len(expected.flatten(1).unique(dim=0)) == 7
    for max_rows in (1, 3, 6, 100):
        assert_close(torch.cat(blocks(method, max_rows=max_rows)), expected, **exactly)
    for rows in ([1], [2, 0]):
        assert_close(torch.cat(blocks(method, rows)), expected[:, rows], **exactly)


def test_fewer_draws_are_the_first_of_more():
    method = Smooth(InputAttribution(), num_draws=3)
    assert_close(torch.cat(blocks(method)), torch.cat(blocks(Smooth(InputAttribution(), num_draws=8)))[:3], **exactly)


def test_noise_has_the_scale_and_is_fresh_for_each_sample_draw_and_weight_draw():
    method = PerturbWeights(Smooth(InputAttribution(), AbsoluteScale(0.5), 200), num_draws=3)
    values = []
    for number in range(3):
        drawn = CONTEXT.model_draw(number)
        noisy = torch.cat(list(method.explainer.draws(network(), IMAGES, TARGET, drawn)))
        values.append(((noisy - IMAGES) / 0.5).flatten())
    stack = torch.stack(values)
    assert_close(stack.std(1), torch.ones(3).double(), rtol=0.03, atol=0)
    assert_close(stack.mean(1), torch.zeros(3).double(), rtol=0, atol=0.05)
    assert_close(torch.corrcoef(stack), torch.eye(3).double(), rtol=0, atol=0.05)


def test_noise_is_fresh_at_each_point_of_the_path():
    inputs = torch.ones(200, 1, 4, 4, dtype=torch.float64)
    method = IntegratedGradients(Smooth(InputAttribution(), AbsoluteScale(1.0), 1), 0.0, num_steps=2)
    noise = method(network(), inputs, 0, Context.create(torch.arange(200))) - 0.5  # the mean along the path
    assert noise.var().item() == pytest.approx(1 / 2, rel=0.1)


def test_clean_input_is_not_a_draw_unless_included():
    model = Quadratic()  # its gradient changes with every noise
    draws = torch.cat(blocks(Smooth(num_draws=5), model=model))
    assert len(draws) == 5
    clean = Gradient()(model, IMAGES, TARGET)
    assert (draws != clean).flatten(1).any(1).all()
    included = blocks(Smooth(num_draws=5, include_clean=True), model=model)
    assert_close(torch.cat(included), torch.cat([clean[None], draws]))
    attributions = Smooth(num_draws=5, include_clean=True)(model, IMAGES, TARGET, CONTEXT)
    assert_close(attributions, (clean + draws.sum(0)) / 6)


def test_no_noise_is_the_clean_explanation():
    clean = Gradient()(network(), IMAGES, TARGET)
    assert_close(Smooth(scale=AbsoluteScale(0.0), num_draws=3)(network(), IMAGES, TARGET), clean)
    assert_close(PerturbWeights(Gradient(), std=0.0, num_draws=3)(network(), IMAGES, TARGET), clean)


# Weight noise


@dataclass(frozen=True)
class Weights(Explainer):
    """Keeps the parameters of the model that it is asked to explain."""

    seen: list

    def attribute(self, model, inputs, target, context):
        self.seen.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        return inputs


def weight_draws(model, inputs=IMAGES, **options):
    explainer = Weights([])
    PerturbWeights(explainer, **options)(model, inputs, 0, Context.create(torch.arange(len(inputs)), seed=5))
    return explainer.seen


def test_weight_draws_are_shared_by_all_samples_and_independent_of_the_batch():
    two = [weight_draws(network(), IMAGES[rows], num_draws=3) for rows in (slice(0, 3), slice(2, 3))]
    for one, other in zip(*two, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert_close(one[name], other[name], **exactly)
    first, second, _ = two[0]
    for name in first:
        assert not torch.equal(first[name], second[name])


def test_multiplicative_noise_is_around_one_and_additive_noise_relative_to_the_root_mean_square():
    model = LeNet()
    weight = model.classifier.linear1.weight.detach()
    for noise, size in (("multiplicative", weight), ("additive", weight.square().mean().sqrt())):
        drawn = weight_draws(model, torch.zeros(1, 1, 28, 28), std=0.25, noise=noise, num_draws=1)[0]
        eta = (drawn["classifier.linear1.weight"] - weight) / size / 0.25
        values = eta.numel()
        assert eta.mean().abs() < 4 / values**0.5
        assert (eta.var() - 1).abs() < 4 * (2 / values) ** 0.5


def test_parameters_have_independent_noise():
    ones = nn.ParameterList([torch.ones(50, 100), torch.ones(50, 100)])
    one, other = (weight.flatten() - 1 for weight in PerturbWeights(std=1.0).noisy_weights(ones, seed=0).values())
    assert torch.corrcoef(torch.stack([one, other]))[0, 1].abs() < 4 / 5000**0.5


def test_noise_does_not_compound_over_draws():
    deviations = [
        (draw["layers.linear1.weight"] / network().layers.linear1.weight.detach() - 1).std()
        for draw in weight_draws(network(), std=0.1, num_draws=40)
    ]
    assert max(deviations) < 0.15


def test_biases_and_normalization_are_perturbed_but_no_buffers():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3)).double()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 1, 2)
    drawn = weight_draws(model, num_draws=1)[0]
    for name, parameter in model.named_parameters():
        assert (drawn[name] != parameter).all(), name
    assert {"1.weight", "1.bias", "2.weight", "2.bias"} == drawn.keys()


@pytest.mark.parametrize(
    ("include", "exclude", "perturbed"),
    [
        (("*.weight",), (), {"layers.linear1.weight", "layers.linear2.weight"}),
        (("*",), ("*.bias",), {"layers.linear1.weight", "layers.linear2.weight"}),
        (("layers.linear2.*",), (), {"layers.linear2.weight", "layers.linear2.bias"}),
        (("*linear1*", "*linear2*"), ("*.weight", "*2.bias"), {"layers.linear1.bias"}),
    ],
)
def test_patterns_choose_the_parameters(include, exclude, perturbed):
    model = network()
    drawn = weight_draws(model, include=include, exclude=exclude, num_draws=1)[0]
    assert {name for name, value in model.named_parameters() if not torch.equal(value, drawn[name])} == perturbed


def test_noise_of_a_parameter_does_not_depend_on_which_others_are_perturbed():
    every = weight_draws(network(), num_draws=2)
    some = weight_draws(network(), num_draws=2, include=("layers.linear2.weight",))
    for one, other in zip(every, some, strict=True):
        assert_close(one["layers.linear2.weight"], other["layers.linear2.weight"])


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16, bias=False, dtype=torch.float64)
        self.second = nn.Linear(16, 16, bias=False, dtype=torch.float64)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x.flatten(1)))


def test_a_wrapped_network_gets_the_weight_noise_that_it_gets_alone():
    method = fusion_grad(num_weight_draws=2, num_input_draws=2)
    model = network()
    assert_close(method(nn.Sequential(model), IMAGES, TARGET, CONTEXT), method(model, IMAGES, TARGET, CONTEXT))


def test_tied_weights_stay_tied():
    model, method = Tied(), PerturbWeights(Gradient(), num_draws=3)
    expected = []
    for number in range(3):
        weight = method.noisy_weights(model, CONTEXT.model_draw(number).seed)["first.weight"]
        expected.append((weight @ weight)[TARGET].view_as(IMAGES))
    assert_close(method(model, IMAGES, TARGET, CONTEXT), torch.stack(expected).mean(0))
    assert model.second.weight is model.first.weight


# Moments


@pytest.mark.parametrize("sizes", [(10,), (1,) * 10, (3, 1, 6)])
def test_moments_in_blocks_are_those_of_all_draws(sizes):
    draws = 1e4 + torch.randn(10, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = Moments()
    for block in draws.split(sizes):
        moments.add(block)
    assert moments.count == 10
    assert_close(moments.mean, draws.mean(0))
    assert_close(moments.variance, draws.var(0, correction=0), rtol=1e-7, atol=0)
    assert_close(moments.mean_square, draws.square().mean(0))
    assert_close(moments.standard_error, draws.std(0) / 10**0.5, rtol=1e-7, atol=0)


def test_variance_in_single_precision_survives_a_large_mean():
    draws = 1000 + torch.randn(500, 1, 20, generator=torch.Generator().manual_seed(0))
    moments = Moments()
    for block in draws.split(7):
        moments.add(block)
    assert_close(moments.variance, draws.double().var(0, correction=0).float(), rtol=1e-4, atol=0)


def test_one_draw_has_no_standard_error():
    moments = Smooth(num_draws=1).moments(network(), IMAGES, TARGET, CONTEXT)
    assert moments.standard_error.isnan().all()
    assert (moments.variance == 0).all()


# Chunks and memory


class Small(nn.Module):
    """A network that has no memory for more than `room` rows, on its `device`'s own words."""

    def __init__(self, room, error):
        super().__init__()
        self.network, self.room, self.error, self.rows = network(), room, error, []

    def forward(self, x):
        self.rows.append(len(x))
        if len(x) > self.room:
            raise self.error
        return self.network(x)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB, other allocations: 384.00 KB)."),
    RuntimeError("GET was unable to find an engine to execute this computation: no memory for its workspace"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("room", [1, 2, 5])
@pytest.mark.parametrize(
    "method",
    [Gradient(), Smooth(num_draws=11), IntegratedGradients(num_steps=6), noise_grad(num_draws=2)],
    ids=lambda method: type(method).__name__,
)
def test_chunks_that_do_not_fit_are_halved(method, room, error):
    small, large = Small(room, error), Small(1000, error)
    inputs, context = IMAGES.repeat(3, 1, 1, 1), Context.create(torch.arange(9), bounds=(0.0, 1.0))
    for target in (TARGET.repeat(3), None):
        assert_close(method(small, inputs, target, context), method(large, inputs, target, context))
    assert (room + 1) // 2 <= row_limit(small, IMAGES, None) <= room  # it remembers
    assert sum(rows > room for rows in small.rows) <= 7  # 128, 64, ... 2


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_one_row_that_does_not_fit_is_an_error(error):
    small = Small(0, error)
    with pytest.raises(type(error), match="memory"):
        Gradient()(small, IMAGES, 0)


def test_other_errors_are_not_retried():
    small = Small(2, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        Gradient()(small, IMAGES, 0)
    assert small.rows[-1] == 3
    assert small.rows.count(3) == 1


@pytest.mark.parametrize("max_rows", [1, 2, 7])
def test_no_pass_has_more_rows_than_allowed(max_rows):
    small = Small(100, ValueError())
    context = Context.create(torch.arange(3), max_rows=max_rows)
    for method in (
        Smooth(num_draws=9),
        fusion_grad(num_weight_draws=2),
        Smooth(IntegratedGradients(Gradient(), 0.0, 3), num_draws=4),
    ):
        method(small, IMAGES, None, context)
    assert max(small.rows) <= max_rows


def test_draws_are_batched():
    small = Small(1000, ValueError())
    Smooth(num_draws=1)(small, IMAGES, 0)
    assert len(small.rows) <= 8, "what it takes to know the network"
    small.rows.clear()
    Smooth(num_draws=100)(small, IMAGES, 0)
    assert small.rows == [126, 126, 48]  # 42 draws of three samples fill a pass of 128 rows


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_draws():
    """The elements of the tensors that are alive at any pass, at 20 and at 400 draws."""

    @dataclass(frozen=True)
    class Census(Explainer):
        counts: list

        def attribute(self, model, inputs, target, context):
            alive = (value for value in gc.get_objects() if type(value) is torch.Tensor)
            self.counts.append(sum(value.numel() for value in alive))
            return inputs

    peaks = []
    for draws in (20, 400):
        census = Census([])
        Smooth(census, num_draws=draws)(network(), IMAGES, 0, Context.create(torch.arange(3), max_rows=30))
        assert len(census.counts) == draws // 10
        peaks.append(max(census.counts))
    assert peaks[1] - peaks[0] < 400 * IMAGES.numel() / 10  # 400 draws have numbers, but no maps


def test_saliency_inside_averages_absolute_values():
    model = network()
    inside = Smooth(Saliency(), num_draws=20)(model, IMAGES, TARGET, CONTEXT)
    outside = Saliency(Smooth(num_draws=20))(model, IMAGES, TARGET, CONTEXT)
    assert (inside >= outside - 1e-12).all()
    assert (inside > outside + 1e-3).any()


# How images lie in memory


class Convolutional(nn.Module):
    """A convolution whose maps are flattened by `flatten`, which is "view" or "reshape"."""

    def __init__(self, flatten):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution, self.linear = nn.Conv2d(3, 5, 3), nn.Linear(5 * 4 * 4, 3)
        self.flatten, self.seen = flatten, []

    def forward(self, x):
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last))
        maps = self.convolution(x).relu()
        return self.linear(getattr(maps, self.flatten)(len(x), -1))


def test_channels_lie_together_on_a_cpu_unless_the_network_views_its_maps():
    images = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    maps = {}
    for flatten, together in (("reshape", True), ("view", False)):
        model = Convolutional(flatten)
        maps[flatten] = Smooth(num_draws=5)(model, images, 0)
        assert model.seen[-1] is together
        assert maps[flatten].is_contiguous()
    assert_close(maps["view"], maps["reshape"], rtol=1e-5, atol=1e-7)


def test_a_network_that_views_its_maps_later_is_sent_the_images_again():
    model = Convolutional("reshape")
    images = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = Gradient()(model, images, 0)
    model.flatten = "view"
    assert_close(Gradient()(model, images, 0), expected, rtol=1e-5, atol=1e-7)
    assert model.seen[-2:] == [True, False]
