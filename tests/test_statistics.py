"""Tests, intervals and orders of scores: against enumerations, transcriptions, R and SciPy; units do not matter."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lightning_xai.statistics import means
from lightning_xai.statistics.intervals import MOST_RESAMPLED, mean_interval
from lightning_xai.statistics.paired import holm, mean_ranks, paired_test, paired_tests, signed_ranks

rng = np.random.default_rng(0)


def signed_rank_test(differences):
    return paired_test(differences, np.zeros_like(differences))


def single(values):
    """As a metric writes it, and the scores are read back."""
    return np.asarray(values).astype(np.float32).astype(np.float64)


# Holm


def test_holm_is_its_definition():
    """Sorted, the i-th of m p-values is multiplied by m - i + 1, and is no less than those before it, nor above 1."""
    for size in range(1, 8):
        p_values = rng.uniform(size=size) ** 3
        expected = np.empty(size)
        so_far = 0.0
        for i, position in enumerate(sorted(range(size), key=lambda k: p_values[k])):
            so_far = max(so_far, min(1.0, (size - i) * p_values[position]))
            expected[position] = so_far
        np.testing.assert_allclose(holm(p_values), expected, rtol=1e-14)


def test_holm_of_a_textbook_case():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


def test_an_empty_family_has_no_p_values():
    assert holm(np.array([])).shape == (0,)


# Wilcoxon


def transcribed_ranks(differences):
    """Rank of each absolute difference among those that are not zero; equal ones share the mean of their ranks."""
    sizes = [abs(d) for d in differences if d != 0]
    return [(d, sum(s < abs(d) for s in sizes) + (sum(s == abs(d) for s in sizes) + 1) / 2) for d in differences if d]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 9, 13])
def test_the_p_value_is_the_enumeration_of_all_signs(size, ties):
    """Under the null hypothesis every difference is as likely to be negative as to be positive."""
    differences = rng.integers(-3, 4, size).astype(float) if ties else rng.normal(0.5, 1, size)
    differences[0] = 1.0
    ranked = transcribed_ranks(differences)
    ranks = np.array([rank for _, rank in ranked])
    favorable, total = sum(rank for d, rank in ranked if d > 0), ranks.sum()
    p_value, correlation = signed_rank_test(differences)
    assert correlation == pytest.approx((favorable - (total - favorable)) / total)
    sums = np.array(list(itertools.product([0, 1], repeat=len(ranks)))) @ ranks
    assert p_value == pytest.approx(min(1.0, 2 * min((sums <= favorable).mean(), (sums >= favorable).mean())))


@pytest.mark.parametrize("size", [25, 50])
def test_the_p_value_without_ties_is_scipys_exact_one(size):
    differences = rng.normal(0.3, 1, size)
    assert signed_rank_test(differences)[0] == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


@pytest.mark.parametrize("size", [60, 200])
def test_of_many_samples_it_is_scipys_approximation_with_its_correction_for_ties(size):
    differences = rng.integers(-4, 6, size).astype(float)
    differences = differences[differences != 0]
    assert len(differences) > 50
    expected = stats.wilcoxon(differences, zero_method="wilcox", correction=False, method="asymptotic").pvalue
    assert signed_rank_test(differences)[0] == pytest.approx(expected)


TENTHS = np.array([[5, 10, 3, 1, 5, 9, 10, 3], [6, 10, 2, 4, 4, 10, 10, 5]])
"""R's exactRankTests::wilcox.exact(x, y, paired = TRUE): p-value = 0.375."""


@pytest.mark.parametrize("scale", [1.0, 0.1, 1 / 3, -7.0, 1e-300, 1e300])
@pytest.mark.parametrize("stored", [np.asarray, single])
def test_neither_unit_nor_precision_matters(scale, stored):
    if stored is single and not 1e-30 < abs(scale) < 1e30:
        scale = math.copysign(abs(scale) ** 0.1, scale)
    x, y = stored(TENTHS * scale)
    p_value, correlation = paired_test(x, y, higher_is_better=scale > 0)
    assert p_value == pytest.approx(0.375)
    assert correlation == pytest.approx(-11 / 21)


@pytest.mark.parametrize("grid", [3, 7, 10, 100])
def test_scores_on_a_grid_are_tested_as_the_counts_they_are(grid):
    for size in (6, 20, 80):
        counts = rng.integers(0, grid + 1, (2, size)).astype(float)
        expected = paired_test(*counts)
        for x, y in (counts / grid, single(counts / grid), single(1 - counts[::-1] / grid)):
            assert paired_test(x, y) == pytest.approx(expected)


def test_differences_are_tied_by_gaps_and_not_by_a_grid():
    """Steps of 0.8 of the tolerance join, and one of 1.2 parts, wherever they lie."""
    for start in np.linspace(0.5, 0.5 + 2e-6, 9):
        sizes = start + 1e-6 * np.array([[0.0, 0.8, 1.6, 2.8]])
        np.testing.assert_array_equal(signed_ranks(sizes, 1e-6), [[2, 2, 2, 4]])


def test_the_least_difference_is_no_tie_with_none():
    np.testing.assert_array_equal(signed_ranks(np.array([[0.9, -1.1, 5.0, -0.1]]), 1.0), [[0, -1, 2, 0]])


def test_equal_scores_are_no_difference():
    assert signed_rank_test(np.zeros(20)) == (1.0, 0.0)
    assert signed_rank_test(np.array([])) == (1.0, 0.0)
    assert signed_rank_test(np.array([0.0, 0.0, 2.0, 3.0]))[1] == 1.0
    assert signed_rank_test(np.array([-2.0, -3.0]))[1] == -1.0


@pytest.mark.parametrize("size", [20, 80])
def test_many_tests_at_once_are_each_of_them(size):
    values, others = rng.integers(0, 5, (2, 6, size)).astype(float)
    each = [paired_test(x, y, higher_is_better=False) for x, y in zip(values, others, strict=True)]
    np.testing.assert_allclose(np.stack(paired_tests(values, others, higher_is_better=False), -1), each)


@pytest.mark.parametrize("grid", [0, 3, 1000])
def test_large_sets_are_tested_as_small_ones_are(grid, monkeypatch):
    """To the last bit: sums of halves and quarters are exact in any order. Also where few differ, exactly."""
    values, others = rng.normal(size=(2, 5, 6000))
    if grid:
        values, others = single(np.round(values * grid) / grid), single(np.round(others * grid) / grid)
    others[3] = values[3]
    others[4, 20:] = values[4, 20:]
    found = paired_tests(values, others)
    monkeypatch.setattr("lightning_xai.statistics.paired._LARGE", 10**9)
    expected = paired_tests(values, others)
    np.testing.assert_array_equal(found, expected)
    assert (found[0][3], found[1][3]) == (1.0, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_undefined_scores_are_refused(value):
    with pytest.raises(ValueError, match="`values` and `others` must be finite"):
        paired_test(np.array([1.0, value]), np.array([1.0, 1.0]))


# Ranks


def test_equal_means_share_the_least_rank():
    """0.3 + 0.1 + 0.2, 0.2 + 0.2 + 0.2 and 0.1 + 0.2 + 0.3 are three numbers."""
    scores = {"a": [0.3, 0.1, 0.2], "b": [0.2] * 3, "c": [0.1, 0.2, 0.3], "worse": [0.1] * 3, "best": [0.9] * 3}
    for scale in (1.0, 1 / 3, 1e-200):
        for stored in (np.asarray, single) if scale > 1e-9 else (np.asarray,):
            values = {name: stored(scale * np.array(own)) for name, own in scores.items()}
            assert mean_ranks(values, higher_is_better=True) == {"best": 1, "a": 2, "b": 2, "c": 2, "worse": 5}
            assert mean_ranks(values, higher_is_better=False) == {"worse": 1, "a": 2, "b": 2, "c": 2, "best": 5}


# Intervals


@pytest.mark.parametrize("size", [5, 40])
def test_the_interval_is_scipys_bca(size):
    # Of whole numbers, whose sums are exact: SciPy tells resamples from the mean to the last bit.
    values = np.random.default_rng(3).gamma(1.0, 1000, size).round()
    expected = stats.bootstrap((values,), np.mean, confidence_level=0.9, n_resamples=200_000, rng=1, batch=10_000)
    interval = expected.confidence_interval
    # Both are random: the error of a percentile of 9999 resamples.
    error = 0.03 * (interval.high - interval.low)
    np.testing.assert_allclose(mean_interval(values, 0.9), interval, atol=error)


def test_the_analytic_form_is_abc_of_any_statistic():
    """Transcribed from Efron and Tibshirani (1993), `abcnon`, with numerical derivatives."""
    values, confidence, epsilon = np.random.default_rng(4).gamma(0.5, size=MOST_RESAMPLED + 1), 0.95, 1e-3
    n, even = len(values), np.full(len(values), 1 / len(values))
    first, second = np.empty(n), np.empty(n)
    for i in range(n):
        step = -even * epsilon / n
        step[i] += epsilon / n
        plus, minus, mean = ((even + sign * step) @ values for sign in (1, -1, 0))
        first[i], second[i] = (plus - minus) / (2 * epsilon / n), (plus - 2 * mean + minus) / (epsilon / n) ** 2
    error = math.sqrt((first**2).sum()) / n
    acceleration = (first**3).sum() / (6 * n**3 * error**3)
    direction = first / (n**2 * error)
    plus, minus = ((even + sign * epsilon * direction) @ values for sign in (1, -1))
    curvature = second.sum() / (2 * n**2) / error - (plus - 2 * values.mean() + minus) / (2 * error * epsilon**2)
    bias = stats.norm.ppf(2 * stats.norm.cdf(acceleration) * stats.norm.cdf(-curvature))
    shifted = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    steps = shifted / (1 - acceleration * shifted) ** 2
    expected = [(even + step * direction) @ values for step in steps]
    np.testing.assert_allclose(mean_interval(values, confidence), expected, rtol=1e-4)


def test_both_forms_agree_where_they_meet():
    values = np.random.default_rng(5).gamma(0.5, size=MOST_RESAMPLED + 1)
    width = np.ptp(mean_interval(values, 0.95))
    np.testing.assert_allclose(mean_interval(values, 0.95), mean_interval(values[:-1], 0.95), atol=0.03 * width)


def test_the_interval_is_that_of_the_normal_distribution_for_many_normal_values():
    values = rng.normal(3.0, 2.0, 2000)
    expected = stats.t.interval(0.9, 1999, values.mean(), values.std(ddof=1) / math.sqrt(2000))
    np.testing.assert_allclose(mean_interval(values, 0.9), expected, atol=0.005)


def test_intervals_cover_the_mean_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr("lightning_xai.statistics.intervals.NUM_RESAMPLES", 499)
    samples = np.random.default_rng(1).normal(1.0, 1.0, (200, 40))
    intervals = [mean_interval(values, 0.95, seed) for seed, values in enumerate(samples)]
    covered = sum(low <= 1.0 <= high for low, high in intervals)
    assert stats.binom.cdf(covered, 200, 0.94) > 1e-3, "a bootstrap of 40 values covers a little less than 95 %"
    assert stats.binom.sf(covered, 200, 0.95) > 1e-3


def test_the_unit_of_an_interval_is_that_of_the_scores():
    """Also where resamples have the mean itself, but for rounding."""
    counts = np.array([1.0, 2.0, 3.0, 3.0])
    expected = np.array(mean_interval(counts, 0.95))
    for scale in (0.1, 1 / 3, 1e-200):
        np.testing.assert_allclose(mean_interval(counts * scale, 0.95), expected * scale, rtol=1e-9)
    np.testing.assert_allclose(mean_interval(single(counts / 10), 0.95), expected / 10, rtol=1e-6)


@pytest.mark.parametrize("size", [31, 5000])
def test_intervals_stay_among_the_values(size):
    values = np.array([0.0] * (size - 1) + [1.0])
    for confidence in (0.95, 1 - 1e-12):
        low, high = mean_interval(values, confidence)
        assert 0 <= low < 1 / size < high <= 1


def test_intervals_of_few_or_equal_values():
    assert mean_interval(np.full(9, 0.1), 0.95) == (0.1, 0.1)
    assert np.isnan(mean_interval(np.array([0.1]), 0.95)).all()
    assert np.isnan(mean_interval(np.array([]), 0.95)).all()


def test_the_seed_makes_the_interval():
    values = rng.normal(size=30)
    assert mean_interval(values, 0.95, 0) == mean_interval(values, 0.95, 0)
    assert mean_interval(values, 0.95, 0) != mean_interval(values, 0.95, 1)


def test_mean_deviation_and_standard_error_are_of_the_defined_values():
    values = [1.0, math.nan, 2.0, math.inf, 6.0]
    assert means.mean(values) == 3.0
    assert means.deviation(values) == pytest.approx(math.sqrt(7), rel=1e-15)
    assert means.mean_and_standard_error(np.array([values, values]).T[:, :1]) == pytest.approx((3, math.sqrt(7 / 3)))
    assert means.mean_and_error(values, 2) == "3.00 ± 1.53"


def test_too_few_values_have_no_standard_error():
    assert means.mean_and_error([0.5]) == "0.5000"
    assert means.mean_and_error([math.nan]) == means.mean_and_error([]) == "undefined"
    assert all(math.isnan(value) for value in means.mean_and_standard_error([math.nan]))
