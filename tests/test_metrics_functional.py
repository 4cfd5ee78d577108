"""The per-sample scores: closed forms, slow transcriptions, reference libraries, laws."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

from lightning_xai.functional.complexity import gini
from lightning_xai.functional.localisation import auroc, relevance_rank_accuracy
from lightning_xai.functional.maps import pixel_map
from lightning_xai.functional.noise import inherent_noise

MASK = torch.zeros(12, 6, 6, dtype=torch.bool)
for sample in range(12):
    MASK[sample, sample % 4 : sample % 4 + 3, sample % 3 : sample % 3 + 2] = True


def random_attributions(seed=0, dtype=torch.float32):
    return torch.randn(12, 3, 6, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tied_attributions(seed=0):
    """Six distinct absolute values on 36 pixels: every score has to handle ties."""
    return torch.randint(-5, 6, (12, 1, 6, 6), generator=torch.Generator().manual_seed(seed)).float()


def one_row(*values):
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


SCORES = {
    "gini": lambda attributions, mask=MASK: gini(attributions),
    "rank accuracy": lambda attributions, mask=MASK: relevance_rank_accuracy(attributions, mask),
    "signed rank accuracy": lambda attributions, mask=MASK: relevance_rank_accuracy(attributions, mask, False),
    "auroc": lambda attributions, mask=MASK: auroc(attributions, mask),
    "signed auroc": lambda attributions, mask=MASK: auroc(attributions, mask, False),
}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


# Pixel map


def test_channels_cancel_before_the_absolute_value():
    attributions = torch.tensor([[[[1.0]], [[-3.0]]]])
    assert_close(pixel_map(attributions, absolute=False), torch.tensor([[[-2.0]]]))
    assert_close(pixel_map(attributions, absolute=True), torch.tensor([[[2.0]]]))


def test_half_precision_is_summed_in_float32():
    attributions = torch.tensor([60000.0, 60000.0], dtype=torch.float16)[None, :, None, None]
    assert_close(pixel_map(attributions, absolute=True), torch.tensor([[[120000.0]]]))


def test_attributions_without_a_channel_axis_are_refused():
    with pytest.raises(ValueError, match=r"`attributions` must have the shape .*got \(2, 6, 6\)"):
        pixel_map(torch.zeros(2, 6, 6), absolute=True)


# Gini index


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 0, 0, 1), 3 / 4), ((2, 2, 2, 2), 0.0), ((1, 3), 1 / 4), ((-1, 0, 3), 1 / 2), ((1, 2, 3, 4), 1 / 4)],
)
def test_gini_by_hand(values, expected):
    assert_close(gini(one_row(*values)), torch.tensor([expected]))


def test_gini_is_the_mean_absolute_difference_over_twice_the_mean():
    values = random_attributions().sum(1).abs().flatten(1).double()
    difference = (values[:, :, None] - values[:, None, :]).abs().mean((1, 2))
    assert_close(gini(random_attributions()).double(), difference / (2 * values.mean(1)), atol=1e-6, rtol=0)


def test_gini_of_nothing_is_undefined():
    assert gini(torch.zeros(1, 3, 4, 4)).isnan().all()
    assert_close(gini(torch.zeros(1, 3, 4, 4), offset=1e-7), torch.zeros(1))


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e-8, 1e8, 1e35])
def test_gini_does_not_depend_on_the_scale(scale):
    attributions = random_attributions(dtype=torch.float64)
    expected = gini(attributions).float()
    tolerance = 1e-4 if scale == 1e-40 else 1e-6  # subnormal numbers have few digits themselves
    assert_close(gini((scale * attributions).float()), expected, atol=tolerance, rtol=0)


def test_an_offset_pulls_the_gini_index_of_small_values_to_zero():
    attributions = random_attributions()
    assert (gini(1e-8 * attributions, offset=1e-7) < gini(1e-8 * attributions) / 5).all()
    assert_close(gini(1e-8 * attributions, offset=1e-7), gini(attributions, offset=10.0))


# Localisation


def test_rank_accuracy_by_hand():
    mask = torch.tensor([[[True, True, False, False]]])
    assert_close(relevance_rank_accuracy(one_row(3, 2, 1, 0), mask), torch.tensor([1.0]))
    assert_close(relevance_rank_accuracy(one_row(3, 0, 1, 2), mask), torch.tensor([0.5]))
    assert_close(relevance_rank_accuracy(one_row(0, 1, 2, 3), mask), torch.tensor([0.0]))


@pytest.mark.parametrize(("absolute", "expected"), [(True, 1.0), (False, 0.0)])
def test_strongly_negative_values_point_at_the_evidence_unless_the_sign_is_kept(absolute, expected):
    attributions, mask = one_row(-9, 1), torch.tensor([[[True, False]]])
    assert_close(relevance_rank_accuracy(attributions, mask, absolute), torch.tensor([expected]))
    assert_close(auroc(attributions, mask, absolute), torch.tensor([expected]))


def test_rank_accuracy_of_ties_is_the_mean_over_all_orders():
    values, inside = (2.0, 1.0, 1.0, 1.0, 0.0), (False, True, True, False, True)
    size = sum(inside)
    orders = [order for order in permutations(range(5)) if is_descending([values[i] for i in order])]
    expected = np.mean([sum(inside[i] for i in order[:size]) / size for order in orders])
    score = relevance_rank_accuracy(one_row(*values), torch.tensor(inside)[None, None])
    assert_close(score, torch.tensor([expected], dtype=torch.float32))


def is_descending(values):
    return all(a >= b for a, b in pairwise(values))


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("attributions", [random_attributions(), tied_attributions()], ids=["distinct", "tied"])
def test_auroc_is_that_of_scikit_learn(attributions, absolute):
    maps = pixel_map(attributions, absolute)
    expected = [roc_auc_score(m.flatten(), a.flatten()) for m, a in zip(MASK, maps, strict=True)]
    score = auroc(attributions, MASK, absolute)
    assert_close(score, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    inside, outside = [1.0, 3.0, 3.0], [0.0, 1.0, 3.0, 2.0]
    wins = [(a > b) + (a == b) / 2 for a in inside for b in outside]
    mask = torch.tensor([True] * 3 + [False] * 4)[None, None]
    assert_close(auroc(one_row(*inside, *outside), mask), torch.tensor([np.mean(wins)], dtype=torch.float32))


def test_auroc_is_exact_on_large_images():
    """Rank sums pass 2**24, above which float32 skips integers."""
    ranks = torch.randperm(300 * 300, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(300 * 300).remainder(7) == 0
    expected = roc_auc_score(mask, ranks)
    score = auroc(ranks.float().view(1, 1, 300, 300), mask.view(1, 300, 300))
    assert_close(score, torch.tensor([expected], dtype=torch.float32), atol=1e-7, rtol=0)


def test_a_constant_map_scores_chance():
    constant = torch.full((12, 1, 6, 6), 0.3)
    assert_close(relevance_rank_accuracy(constant, MASK), MASK.float().mean((1, 2)))
    assert_close(auroc(constant, MASK), torch.full((12,), 0.5))


def test_masks_that_leave_no_question_are_undefined():
    attributions = random_attributions()[:2]
    mask = torch.stack([torch.zeros(6, 6), torch.ones(6, 6)]).bool()
    assert_close(relevance_rank_accuracy(attributions, mask), torch.tensor([math.nan, 1.0]), equal_nan=True)
    assert auroc(attributions, mask).isnan().all()


def test_masks_may_have_a_channel_axis():
    attributions = random_attributions()
    assert_close(auroc(attributions, MASK[:, None]), auroc(attributions, MASK), rtol=0, atol=0)


@pytest.mark.parametrize("score", [relevance_rank_accuracy, auroc])
def test_masks_of_the_wrong_shape_or_type_are_refused(score):
    attributions = random_attributions()
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(12, 6, 6\).*got \(12, 6, 5\)"):
        score(attributions, MASK[:, :, :5])
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(12, 6, 6\).*got \(12, 3, 6, 6\)"):
        score(attributions, MASK[:, None].expand(12, 3, 6, 6))
    with pytest.raises(TypeError, match=r"`mask` must be a boolean tensor.*got torch.float32"):
        score(attributions, MASK.float())


# Laws of all of them


@every_score
def test_samples_are_scored_one_by_one(score):
    pairs = zip(random_attributions().split(1), MASK.split(1), strict=True)
    one_by_one = torch.cat([score(attributions, mask) for attributions, mask in pairs])
    assert_close(one_by_one, score(random_attributions()), rtol=1e-6, atol=0)


@every_score
def test_the_order_of_pixels_does_not_matter(score):
    order = torch.randperm(36, generator=torch.Generator().manual_seed(1))
    attributions, mask = (tensor.flatten(-2)[..., order].view_as(tensor) for tensor in (tied_attributions(), MASK))
    assert_close(score(attributions, mask), score(tied_attributions()), rtol=1e-6, atol=0)


@every_score
@pytest.mark.parametrize("scale", [2.0**-27, 2.0**-3, 2.0**20])
def test_the_scale_of_the_attribution_does_not_matter(score, scale):
    """Powers of two are exact, so ties stay ties."""
    assert_close(score(scale * random_attributions()), score(random_attributions()), rtol=1e-6, atol=0)


@every_score
def test_half_precision_gives_the_score_of_the_same_values(score):
    half = random_attributions(dtype=torch.float16)
    assert score(half).dtype == torch.float32
    assert_close(score(half), score(half.float()), rtol=0, atol=0)


@every_score
def test_attributions_with_nan_are_undefined(score):
    attributions = random_attributions()
    attributions[3, 1, 2, 2] = math.nan
    assert score(attributions).isnan().nonzero().flatten().tolist() == [3]


@every_score
def test_an_empty_batch_has_no_scores(score):
    assert score(random_attributions()[:0], MASK[:0]).shape == (0,)


# Inherent noise


def uniform_inputs(num=100_000):
    """The midpoints of equal cells: a mean over them is an integral over the range."""
    return (((torch.arange(num, dtype=torch.float64) + 0.5) / num) * 3 - 1).view(1, 1, 1, num)


LOW, HIGH = torch.tensor(-1.0), torch.tensor(2.0)


def test_inherent_noise_of_smoothgrad_on_uniform_inputs():
    """Noise of 20 % of the range: 15.958 % of the values leave it (the paper prints 15.96 %)."""
    std = torch.tensor(0.2 * 3.0)
    assert_close(inherent_noise(uniform_inputs(), std, LOW, HIGH).item(), 0.15958, atol=5e-6, rtol=0)


def test_inherent_noise_is_the_share_of_noisy_values_outside():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 1, 5, 5, generator=generator) * 3 - 1
    std = torch.rand(4, 1, 5, 5, generator=generator)
    noisy = x + std * torch.randn(20_000, 4, 1, 5, 5, generator=generator)
    expected = ((noisy < LOW) | (noisy > HIGH)).float().mean((0, 2, 3, 4))
    # 500 000 draws a sample: four standard errors of a share below one half.
    assert_close(inherent_noise(x, std, LOW, HIGH), expected, atol=4 * 0.5 / 500_000**0.5, rtol=0)


def test_inherent_noise_takes_bounds_for_each_channel():
    x, std = torch.zeros(2, 2, 1, 1), torch.ones(2, 1, 1, 1)
    low, high = torch.tensor([[[-1.0]], [[-2.0]]]), torch.tensor([[[1.0]], [[2.0]]])
    expected = (math.erfc(1 / math.sqrt(2)) + math.erfc(2 / math.sqrt(2))) / 2
    assert_close(inherent_noise(x, std, low, high), torch.tensor([expected] * 2))


def test_inherent_noise_refuses_a_std_of_another_shape():
    with pytest.raises(
        ValueError, match=r"`std` must broadcast against the inputs, \(2, 1, 4, 4\); got \(3, 1, 4, 4\)"
    ):
        inherent_noise(torch.zeros(2, 1, 4, 4), torch.ones(3, 1, 4, 4), LOW, HIGH)
