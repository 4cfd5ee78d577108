"""Standard deviations of the input noise against the definitions: quadrature, SciPy, simulation."""

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from lightning_xai.explainers import AbsoluteScale, Context, InRangeScale, RangeScale
from lightning_xai.functional.noise import inherent_noise
from lightning_xai.functional.random import root_keys, standard_normal
from lightning_xai.functional.scales import (
    adaptgrad_std,
    adaptgrad_std_exact,
    adaptgrad_std_literal,
    distance_to_bounds,
    out_of_range_probability,
    sample_range,
)

LOW, HIGH = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
GRID = ((torch.arange(20_001, dtype=torch.float64) + 0.5) / 20_001)[None]  # midpoints, symmetric about the middle
MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
BOUNDS = (0 - MEAN) / STD, (1 - MEAN) / STD


def images(count=4, size=24):
    pixels = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    pixels[:, :, :3], pixels[:, :, 3:5] = 0, 1
    return (pixels - MEAN) / STD


def context(inputs, bounds=BOUNDS):
    return Context.create(torch.arange(len(inputs)), bounds=bounds)


@pytest.mark.parametrize(
    ("std", "expected"),
    [
        (lambda x: torch.full_like(x, 0.2), 0.15958),
        (lambda x: adaptgrad_std(x, LOW, HIGH, 0.95), 0.02707),
        (lambda x: adaptgrad_std_literal(x, LOW, HIGH, 0.95), 0.01335),
        (lambda x: adaptgrad_std_exact(x, LOW, HIGH, 0.95), 0.05),
    ],
    ids=["SmoothGrad", "AdaptGrad", "literal", "exact"],
)
def test_inherent_noise_of_values_uniform_on_the_range(std, expected):
    assert_close(inherent_noise(GRID, std(GRID), LOW, HIGH).item(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("confidence", [0.6, 0.8, 0.95, 0.999])
def test_exact_solution_meets_the_confidence_with_equality(confidence):
    x = GRID[:, ::101]
    std = adaptgrad_std_exact(x, LOW, HIGH, confidence)
    assert_close(out_of_range_probability(x, std, LOW, HIGH), torch.full_like(x, 1 - confidence), rtol=1e-9, atol=0)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.999])
def test_default_solution_leaves_the_range_with_at_most_the_promised_probability(confidence):
    probability = out_of_range_probability(GRID, adaptgrad_std(GRID, LOW, HIGH, confidence), LOW, HIGH)
    assert probability.max().item() == pytest.approx(1 - confidence, rel=1e-6)  # in the middle of the range
    assert probability.min() >= (1 - confidence) / 2 - 1e-12  # near a bound only one side counts


def test_exact_solution_is_up_to_19_percent_larger():
    ratio = adaptgrad_std_exact(GRID, LOW, HIGH, 0.95) / adaptgrad_std(GRID, LOW, HIGH, 0.95)
    most = stats.norm.ppf(0.975) / stats.norm.ppf(0.95)
    assert 1.19 < most < 1.192
    assert ratio.min() >= 1 - 1e-12
    assert_close(ratio.max().item(), most, rtol=1e-9, atol=0)
    assert_close(ratio[0, len(ratio[0]) // 2].item(), 1.0, rtol=1e-9, atol=0)  # both sides count in the middle


@pytest.mark.parametrize(
    ("solution", "z"), [(adaptgrad_std, stats.norm.ppf(0.975)), (adaptgrad_std_literal, stats.norm.ppf(0.9875))]
)
def test_quantiles(solution, z):
    middle = torch.full((1, 1), 0.5, dtype=torch.float64)
    assert_close(solution(middle, LOW, HIGH, 0.95).item(), 0.5 / z, rtol=1e-12, atol=0)


@pytest.mark.parametrize("solution", ["default", "literal", "exact"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_elements_on_a_bound_get_no_noise(solution, dtype):
    inputs = images().to(dtype)
    inputs = torch.where(images() == BOUNDS[0], BOUNDS[0].to(dtype), inputs)
    inputs = torch.where(images() == BOUNDS[1], BOUNDS[1].to(dtype), inputs)
    std = InRangeScale(solution=solution)(inputs, context(inputs))
    assert std.dtype == dtype
    assert (std[:, :, :5] == 0).all()
    assert (std[:, :, 5:] > 0).all()


def test_distance_to_bounds_is_the_lesser_one():
    x = torch.tensor([[0.0, 0.1, 0.5, 0.8, 1.0]])
    assert_close(distance_to_bounds(x, torch.tensor(0.0), torch.tensor(1.0)), torch.tensor([[0.0, 0.1, 0.5, 0.2, 0.0]]))


def test_out_of_range_probability_is_scipys():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 50, generator=generator, dtype=torch.float64) * 3 - 1  # some outside of the range already
    std = torch.rand(3, 50, generator=generator, dtype=torch.float64)
    expected = stats.norm.cdf(0, x, std) + stats.norm.sf(1, x, std)
    assert_close(out_of_range_probability(x, std, LOW, HIGH), torch.from_numpy(expected), rtol=1e-10, atol=1e-300)


def test_out_of_range_probability_is_the_share_of_noisy_values_outside():
    inputs, draws = images(1), 2000
    std = 0.2 * sample_range(inputs)
    noise = standard_normal(root_keys(0, torch.arange(draws)), inputs.shape[1:])
    noisy = inputs + std * noise
    share = ((noisy < BOUNDS[0]) | (noisy > BOUNDS[1])).double().mean().item()
    expected = inherent_noise(inputs, std, *BOUNDS).item()
    assert_close(share, expected, rtol=0, atol=4 * (expected / (draws * inputs.numel())) ** 0.5)


def test_without_noise_only_values_outside_are_outside():
    x = torch.tensor([[-0.1, 0.0, 0.5, 1.0, 1.1]])
    probability = out_of_range_probability(x, torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0))
    assert probability.tolist() == [[1, 0, 0, 0, 1]]


def test_range_of_each_image_takes_all_channels_together():
    inputs = torch.zeros(2, 3, 4, 4)
    inputs[0, 0, 1, 1], inputs[0, 2, 2, 2], inputs[1, 1, 0, 0] = -1.0, 3.0, 0.5
    assert_close(sample_range(inputs).flatten(), torch.tensor([4.0, 0.5]))
    assert_close(RangeScale(0.1)(inputs, context(inputs)).flatten(), torch.tensor([0.4, 0.05]))


def test_range_of_the_data_is_per_channel():
    inputs = images()
    std = RangeScale(0.2, of="data")(inputs, context(inputs))
    assert_close(std.expand_as(inputs), (0.2 / STD).expand_as(inputs))


def test_absolute_scale():
    inputs = images().double()
    assert_close(AbsoluteScale(0.3)(inputs, context(inputs)), torch.tensor(0.3, dtype=torch.float64))


@pytest.mark.parametrize("solution", ["default", "literal"])
def test_one_pair_of_bounds_for_all_channels_leaves_the_true_range_more_often(solution):
    inputs = images(4, 64)[:, :, 5:]
    noise = {
        per_channel: inherent_noise(inputs, InRangeScale(0.95, solution, per_channel)(inputs, context(inputs)), *BOUNDS)
        for per_channel in (True, False)
    }
    assert (noise[True] < 0.03).all()
    assert (noise[False] > 1.5 * noise[True]).all()


def test_bounds_may_be_numbers_or_one_number_a_channel():
    inputs = images()
    one = InRangeScale(per_channel=False)(inputs, context(inputs, (BOUNDS[0].min().item(), BOUNDS[1].max().item())))
    assert_close(one, InRangeScale(per_channel=False)(inputs, context(inputs)))
    listed = tuple(bound.flatten().tolist() for bound in BOUNDS)
    assert_close(InRangeScale()(inputs, context(inputs, listed)), InRangeScale()(inputs, context(inputs)))
    features = torch.rand(2, 5)
    per_feature = torch.full((1, 5), -1.0), torch.full((1, 5), 2.0)
    assert InRangeScale()(features, context(features, per_feature)).shape == (2, 5)
