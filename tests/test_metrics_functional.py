"""The per-sample scores: closed forms, slow transcriptions, reference libraries, laws."""

import math
from functools import partial
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

from lightning_xai.functional.complexity import effective_complexity, entropy, gini
from lightning_xai.functional.localization import (
    auroc,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)
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
    "entropy": lambda attributions, mask=MASK: entropy(attributions),
    "effective complexity": lambda attributions, mask=MASK: effective_complexity(attributions, 0.25),
    "rank accuracy": lambda attributions, mask=MASK: relevance_rank_accuracy(attributions, mask),
    "signed rank accuracy": lambda attributions, mask=MASK: relevance_rank_accuracy(attributions, mask, False),
    "mass accuracy": lambda attributions, mask=MASK: relevance_mass_accuracy(attributions, mask),
    "signed mass accuracy": lambda attributions, mask=MASK: relevance_mass_accuracy(attributions, mask, False),
    "pointing game": lambda attributions, mask=MASK: pointing_game(attributions, mask),
    "top-k intersection": lambda attributions, mask=MASK: top_k_intersection(attributions, mask, 10),
    "auroc": lambda attributions, mask=MASK: auroc(attributions, mask),
    "signed auroc": lambda attributions, mask=MASK: auroc(attributions, mask, False),
}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
LOCALIZATION = [
    relevance_rank_accuracy,
    relevance_mass_accuracy,
    pointing_game,
    partial(top_k_intersection, k=1),
    auroc,
]


# Pixel map


def test_channels_cancel_before_the_absolute_value():
    attributions = torch.tensor([[[[1.0]], [[-3.0]]]])
    assert_close(pixel_map(attributions, absolute=False), torch.tensor([[[-2.0]]]))
    assert_close(pixel_map(attributions, absolute=True), torch.tensor([[[2.0]]]))


def test_half_precision_is_summed_in_float32():
    attributions = torch.tensor([60000.0, 60000.0], dtype=torch.float16)[None, :, None, None]
    assert_close(pixel_map(attributions, absolute=True), torch.tensor([[[120000.0]]]))


@pytest.mark.parametrize("extents", [(), (5,), (5, 6), (5, 6, 7)])
def test_channels_are_the_second_axis_and_tables_have_none(extents):
    values = torch.rand(2, 3, *extents)
    assert_close(pixel_map(values, absolute=False), values.sum(1) if extents else values)
    with pytest.raises(ValueError, match=r"must be tables \(batch, feature\), .* got shape \(2,\)"):
        pixel_map(torch.zeros(2), absolute=True)


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


# Entropy


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 0, -5, 0), 0.0), ((2, -2, 2, 2), math.log(4)), ((-1, 1, 0), math.log(2)), ((1, 3), math.log(4 / 3**0.75))],
)
def test_entropy_by_hand(values, expected):
    assert_close(entropy(one_row(*values)), torch.tensor([expected]))


def test_entropy_is_that_of_scipy_and_of_the_paper():
    values = tied_attributions().double().sum(1).abs().flatten(1)
    assert_close(entropy(tied_attributions()).double(), torch.tensor(scipy_entropy(values, axis=1)), atol=1e-6, rtol=0)
    shares = [[value / sum(row) for value in row if value] for row in values.tolist()]
    expected = torch.tensor([-sum(p * math.log(p) for p in row) for row in shares])
    assert_close(entropy(tied_attributions()), expected, atol=1e-5, rtol=0)


# Effective complexity


@pytest.mark.parametrize(
    ("threshold", "relative", "expected"),
    [
        (0.1, True, 3),
        (0.5, True, 2),
        (0.25, True, 2),
        (0.0, True, 4),
        (0.1, False, 4),
        (4.0, False, 2),
        (8.0, False, 0),
    ],
)
def test_effective_complexity_by_hand(threshold, relative, expected):
    score = effective_complexity(one_row(8, -4.5, 2, -0.5, 0), threshold, relative)
    assert_close(score, torch.tensor([float(expected)]))


@pytest.mark.parametrize(("threshold", "relative"), [(0.1, True), (0.5, True), (0.1, False), (1.5, False)])
def test_effective_complexity_counts_pixels_one_by_one(threshold, relative):
    expected = []
    for attributions in random_attributions():
        values = [abs(value) for value in attributions.sum(0).flatten().tolist()]
        expected.append(sum(value > threshold * (max(values) if relative else 1) for value in values))
    score = effective_complexity(random_attributions(), threshold, relative)
    assert_close(score, torch.tensor(expected, dtype=torch.float32))


def test_an_absolute_threshold_makes_effective_complexity_depend_on_the_scale():
    scores = [effective_complexity(scale * random_attributions(), 1.0, relative=False) for scale in (0.1, 1.0, 10.0)]
    assert (scores[0] < scores[1]).all()
    assert (scores[1] < scores[2]).all()


@pytest.mark.parametrize(
    ("threshold", "relative", "limits"),
    [
        (-0.1, True, r"in \[0, 1\), a share"),
        (1.0, True, r"in \[0, 1\), a share"),
        (math.nan, True, r"in \[0, 1\), a share"),
        (-1e-5, False, "0 or more and finite"),
        (math.inf, False, "0 or more and finite"),
    ],
)
def test_thresholds_without_meaning_are_refused(threshold, relative, limits):
    with pytest.raises(ValueError, match=rf"`threshold` must be {limits}.*; got {threshold}"):
        effective_complexity(random_attributions(), threshold, relative)


@pytest.mark.parametrize("score", [entropy, effective_complexity, partial(effective_complexity, relative=False)])
def test_the_complexity_of_nothing_or_of_infinite_values_is_undefined(score):
    attributions = random_attributions()
    attributions[2] = 0
    attributions[5, 0, 1, 1] = math.inf
    assert score(attributions).isnan().nonzero().flatten().tolist() == [2, 5]


@pytest.mark.parametrize("score", [entropy, effective_complexity, relevance_mass_accuracy])
@pytest.mark.parametrize("scale", [1e-37, 1e-12, 1e37])
def test_sums_of_tiny_and_huge_values_neither_vanish_nor_overflow(score, scale):
    attributions = random_attributions()
    given = () if score is not relevance_mass_accuracy else (MASK,)
    assert_close(score(scale * attributions, *given), score(attributions, *given), atol=1e-5, rtol=0)


# Localization


def test_mass_accuracy_by_hand():
    attributions, mask = one_row(3, -1, 2, -4), torch.tensor([[[True, True, False, False]]])
    assert_close(relevance_mass_accuracy(attributions, mask), torch.tensor([4 / 10]))
    assert_close(relevance_mass_accuracy(attributions, mask, absolute=False), torch.tensor([3 / 5]))


@pytest.mark.parametrize("absolute", [True, False])
def test_mass_accuracy_is_a_ratio_of_two_sums(absolute):
    expected = []
    for attributions, mask in zip(random_attributions().double(), MASK, strict=True):
        pooled = attributions.sum(0)
        pooled = pooled.abs() if absolute else torch.where(pooled > 0, pooled, 0)
        expected.append(pooled[mask].sum() / pooled.sum())
    score = relevance_mass_accuracy(random_attributions(), MASK, absolute)
    assert_close(score.double(), torch.stack(expected), atol=1e-6, rtol=0)


def test_mass_accuracy_without_mass_is_undefined():
    attributions, mask = one_row(-1, -3), torch.tensor([[[True, False]]])
    assert relevance_mass_accuracy(attributions, mask, absolute=False).isnan().all()
    assert relevance_mass_accuracy(one_row(0, 0), mask).isnan().all()
    assert relevance_mass_accuracy(one_row(math.inf, 1), mask).isnan().all()


@pytest.mark.parametrize(("values", "expected"), [((0, 5, 1), 1), ((5, 0, 1), 0), ((3, -4, 1), 1), ((2, 2, 1), 0.5)])
def test_pointing_game_by_hand(values, expected):
    score = pointing_game(one_row(*values), torch.tensor([[[False, True, False]]]))
    assert_close(score, torch.tensor([float(expected)]))


@pytest.mark.parametrize("absolute", [True, False])
def test_pointing_game_looks_where_the_maximum_is(absolute):
    maps = pixel_map(random_attributions(), absolute)
    expected = [mask.flatten()[m.argmax()] for mask, m in zip(MASK, maps, strict=True)]
    assert_close(pointing_game(random_attributions(), MASK, absolute), torch.stack(expected).float())


@pytest.mark.parametrize(("k", "expected"), [(1, 0.0), (2, 1 / 2), (3, 2 / 3), (4, 2 / 4)])
def test_top_k_intersection_by_hand(k, expected):
    score = top_k_intersection(one_row(9, -7, 5, 1), torch.tensor([[[False, True, True, False]]]), k)
    assert_close(score, torch.tensor([expected]))


@pytest.mark.parametrize("k", [1, 7, 36])
def test_top_k_intersection_counts_the_first_k_of_a_ranking(k):
    expected = []
    for values, mask in zip(pixel_map(random_attributions(), True).flatten(1).tolist(), MASK.flatten(1), strict=True):
        ranking = sorted(range(36), key=lambda i: -values[i])
        expected.append(sum(mask[i].item() for i in ranking[:k]) / k)
    score = top_k_intersection(random_attributions(), MASK, k)
    assert_close(score, torch.tensor(expected))


@pytest.mark.parametrize("k", [-1, 0, 37])
def test_top_k_intersection_needs_as_many_pixels(k):
    with pytest.raises(ValueError, match=rf"`k` must be in 1 .. 36, the number of pixels.*got {k}\."):
        top_k_intersection(random_attributions(), MASK, k)


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


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_the_score_of_ties_is_the_mean_over_all_orders(k):
    """Rank accuracy is the one whose k is the size of the mask, 3 here."""
    values, inside = (2.0, 1.0, 1.0, 1.0, 0.0), (False, True, True, False, True)
    orders = [order for order in permutations(range(5)) if is_descending([values[i] for i in order])]
    expected = np.mean([sum(inside[i] for i in order[:k]) / k for order in orders])
    attributions, mask = one_row(*values), torch.tensor(inside)[None, None]
    score = torch.tensor([expected], dtype=torch.float32)
    assert_close(top_k_intersection(attributions, mask, k), score)
    if k == 3:
        assert_close(relevance_rank_accuracy(attributions, mask), score)


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


@pytest.mark.parametrize("value", [0.3, 0.0])
def test_a_constant_map_scores_chance(value):
    constant, share = torch.full((12, 1, 6, 6), value), MASK.float().mean((1, 2))
    assert_close(relevance_rank_accuracy(constant, MASK), share)
    assert_close(pointing_game(constant, MASK), share)
    assert_close(top_k_intersection(constant, MASK, 10), share)
    assert_close(relevance_mass_accuracy(constant, MASK), share if value else share * math.nan, equal_nan=True)
    assert_close(auroc(constant, MASK), torch.full((12,), 0.5))


@pytest.mark.parametrize("score", LOCALIZATION)
def test_masks_that_leave_no_question_are_undefined(score):
    mask = torch.stack([torch.zeros(6, 6), torch.ones(6, 6)]).bool()
    expected = torch.tensor([math.nan, math.nan if score is auroc else 1.0])
    assert_close(score(random_attributions()[:2], mask), expected, equal_nan=True)


def test_masks_may_have_a_channel_axis():
    attributions = random_attributions()
    assert_close(auroc(attributions, MASK[:, None]), auroc(attributions, MASK), rtol=0, atol=0)


@pytest.mark.parametrize("score", LOCALIZATION)
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
