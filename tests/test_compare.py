"""Comparisons of methods: against transcriptions, enumerations and planted data; what cannot be compared is refused."""

import itertools
import math
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats

from lightning_xai.experiments import Run, compare_methods
from lightning_xai.experiments.compare import bootstrap_interval, holm, signed_rank_test
from lightning_xai.reporting.scores import ScoreRow

rng = np.random.default_rng(0)


def rows(scores, metric="gini", stage="test", epoch=0, step=0, start=0):
    """The rows of `scores[method]`, samples numbered from `start`."""
    return [
        ScoreRow(stage, epoch, step, method, metric, sample, float(value))
        for method, values in scores.items()
        for sample, value in enumerate(values, start)
    ]


def run(scores, better=True, name="run", **options):
    return Run(name, rows(scores, **options), {"gini": better})


def results(comparison, metric=0):
    return {result.method: result for result in comparison.metrics[metric].methods}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, result in found.items():
        np.testing.assert_equal(asdict(result), asdict(expected[name]))  # for which NaN is NaN


def bold(comparison):
    return {name for name, result in results(comparison).items() if result.is_best}


# The statistics


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


def transcribed_ranks(differences):
    """Rank of each absolute difference among those that are not zero; equal ones share the mean of their ranks."""
    sizes = [abs(d) for d in differences if d != 0]
    return [(d, sum(s < abs(d) for s in sizes) + (sum(s == abs(d) for s in sizes) + 1) / 2) for d in differences if d]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_signed_rank_test_is_the_enumeration_of_all_signs(size, ties):
    """Under the null hypothesis every difference is as likely to be negative as to be positive."""
    differences = rng.integers(-3, 4, size).astype(float) if ties else rng.normal(0.5, 1, size)
    differences[0] = 1.0
    ranked = transcribed_ranks(differences)
    favourable = sum(rank for d, rank in ranked if d > 0)
    total = sum(rank for _, rank in ranked)
    p_value, correlation = signed_rank_test(differences)
    assert correlation == pytest.approx((favourable - (total - favourable)) / total)
    sums = [
        sum(rank for sign, (_, rank) in zip(signs, ranked, strict=True) if sign)
        for signs in itertools.product([False, True], repeat=len(ranked))
    ]
    tails = [np.mean([s <= favourable for s in sums]), np.mean([s >= favourable for s in sums])]
    assert p_value == pytest.approx(min(1.0, 2 * min(tails)))


def test_signed_rank_test_of_many_samples_is_scipys():
    x, y = rng.normal(0.2, 1, (2, 200)).round(1)
    expected = stats.wilcoxon(x, y, zero_method="wilcox", correction=False, method="asymptotic").pvalue
    assert signed_rank_test(x - y)[0] == pytest.approx(expected)


def test_equal_scores_are_no_difference():
    assert signed_rank_test(np.zeros(20)) == (1.0, 0.0)
    assert signed_rank_test(np.array([0.0, 0.0, 2.0, 3.0]))[1] == 1.0
    assert signed_rank_test(np.array([-2.0, -3.0]))[1] == -1.0


def test_the_interval_is_that_of_the_normal_distribution_for_many_normal_values():
    values = rng.normal(3.0, 2.0, 2000)
    expected = stats.t.interval(0.9, 1999, values.mean(), values.std(ddof=1) / math.sqrt(2000))
    np.testing.assert_allclose(bootstrap_interval(values, 0.9), expected, atol=0.005)


def test_intervals_cover_the_mean_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr("lightning_xai.experiments.compare.NUM_RESAMPLES", 499)
    samples = np.random.default_rng(1).normal(1.0, 1.0, (200, 40))
    intervals = [bootstrap_interval(values, 0.95, seed) for seed, values in enumerate(samples)]
    covered = sum(low <= 1.0 <= high for low, high in intervals)
    assert stats.binom.cdf(covered, 200, 0.94) > 1e-3, "a bootstrap of 40 values covers a little less than 95 %"
    assert stats.binom.sf(covered, 200, 0.95) > 1e-3


def test_intervals_of_few_or_equal_values():
    assert bootstrap_interval(np.full(9, 0.1), 0.95) == (0.1, 0.1)
    assert np.isnan(bootstrap_interval(np.array([0.1]), 0.95)).all()
    assert np.isnan(bootstrap_interval(np.array([]), 0.95)).all()
    low, high = bootstrap_interval(np.array([0.0] * 30 + [1.0]), 0.95)
    assert 0 <= low < 1 / 31 < high <= 1


def test_the_seed_makes_the_interval():
    values = rng.normal(size=30)
    assert bootstrap_interval(values, 0.95, 0) == bootstrap_interval(values, 0.95, 0)
    assert bootstrap_interval(values, 0.95, 0) != bootstrap_interval(values, 0.95, 1)


# The comparison


def planted(size=60):
    """A best method, one that differs from it by chance only, one slightly and one clearly worse."""
    generator = np.random.default_rng(2)
    hardness = generator.normal(0, 1, size)

    def method(mean, noise=0.1):
        return mean + hardness + generator.normal(0, noise, size)

    return {"worst": method(-2.0), "chance": method(0.0), "best": method(0.02), "worse": method(-0.1)}


def test_planted_differences_are_found_although_samples_differ_more_than_methods():
    scores = planted()
    found = results(compare_methods([run(scores)]))
    assert bold(compare_methods([run(scores)])) == {"best", "chance"}
    assert [found[name].rank for name in ("best", "chance", "worse", "worst")] == [1, 2, 3, 4]
    assert found["worst"].effect_size == -1.0
    assert stats.ttest_ind(scores["best"], scores["worse"]).pvalue > 0.2, "not found without the pairs"


def test_numbers_are_those_of_numpy_and_scipy():
    scores = planted()
    found = results(compare_methods([run(scores)], seed=5))
    raw = {name: stats.wilcoxon(scores[name] - scores["best"]).pvalue for name in ("worst", "chance", "worse")}
    corrected = dict(zip(raw, holm(np.array(list(raw.values()))), strict=True))
    for name, values in scores.items():
        result = found[name]
        assert result.mean == pytest.approx(values.mean())
        assert result.standard_deviation == pytest.approx(values.std(ddof=1))
        assert (result.low, result.high) == bootstrap_interval(values, 0.95, 5)
        assert result.num_undefined == 0
        if name != "best":
            assert (result.p_value, result.p_holm) == pytest.approx((raw[name], corrected[name]))
    assert math.isnan(found["best"].p_value)


def test_the_compared_scores_are_kept():
    scores = {"m": [0.1, 0.2, math.nan, 0.4], "n": [0.5, 0.6, 0.7, math.inf], "nothing": [math.nan] * 4}
    (metric,) = compare_methods([run(scores, start=7)]).metrics
    assert metric.samples == (7, 8)
    assert {r.method: r.values for r in metric.methods} == {"m": (0.1, 0.2), "n": (0.5, 0.6), "nothing": ()}
    assert {r.method: r.num_undefined for r in metric.methods} == {"m": 1, "n": 1, "nothing": 4}


def test_lower_is_better_is_the_mirror_image():
    scores = planted()
    up = results(compare_methods([run(scores)]))
    down = results(compare_methods([run({name: -values for name, values in scores.items()}, better=False)]))
    for name, result in up.items():
        mirrored = down[name]
        assert (result.rank, result.is_best) == (mirrored.rank, mirrored.is_best)
        np.testing.assert_equal((result.effect_size, result.p_holm), (mirrored.effect_size, mirrored.p_holm))


def test_the_level_decides_what_is_bold():
    scores = planted()
    p_value = results(compare_methods([run(scores)]))["worse"].p_holm
    assert bold(compare_methods([run(scores)], alpha=1.01 * p_value)) == {"best", "chance"}
    assert bold(compare_methods([run(scores)], alpha=0.99 * p_value)) == {"best", "chance", "worse"}


def test_a_method_whose_mean_is_spoilt_by_one_sample_is_not_worse():
    """Better on all samples but one: the test is significant, but in its favour."""
    best = np.linspace(0, 1, 40)
    outlier = best + 0.01
    outlier[0] = -9.0
    result = results(compare_methods([run({"best": best, "outlier": outlier})]))["outlier"]
    assert result.rank == 2
    assert result.p_holm < 0.05
    assert result.effect_size > 0
    assert result.is_best


def test_identical_methods_are_equally_good():
    values = rng.uniform(size=30)
    comparison = compare_methods([run({"b": values, "a": values, "worse": values - 1})])
    found = results(comparison)
    assert bold(comparison) == {"a", "b"}
    assert [found[name].rank for name in ("a", "b", "worse")] == [1, 1, 3]
    assert (found["b"].p_value, found["b"].effect_size) == (1.0, 0.0)


def test_scores_that_differ_by_rounding_are_equal():
    values = rng.uniform(1, 2, size=30)
    comparison = compare_methods([run({"a": values, "b": (values * (1 - 1e-7))})])
    assert results(comparison)["b"].p_value == 1.0


def test_the_order_of_the_rows_does_not_matter():
    scores = planted()
    scores["tie"] = scores["best"]
    scores["chance"][3] = math.nan
    plain, shuffled = run(scores), rows(scores)
    random.Random(0).shuffle(shuffled)
    shuffled = Run("run", shuffled, plain.higher_is_better)
    assert_same(results(compare_methods([plain])), results(compare_methods([shuffled])))


def test_a_sample_without_a_defined_score_is_left_out_for_all_methods():
    """Else a method gains by being undefined where it is hard to be good."""
    scores = planted()
    expected = results(compare_methods([run({name: values[5:] for name, values in scores.items()}, start=5)]))
    scores["worse"][:5] = math.nan, math.inf, -math.inf, math.nan, math.nan
    comparison = compare_methods([run(scores)])
    assert (comparison.metrics[0].num_common, comparison.metrics[0].num_samples) == (60, 55)
    expected["worse"] = replace(expected["worse"], num_undefined=5)
    assert_same(results(comparison), expected)


def test_a_method_without_any_score_is_left_aside():
    scores = planted()
    expected = results(compare_methods([run(scores)]))
    found = results(compare_methods([run({"undefined": np.full(60, math.nan)} | scores)]))
    nothing = found.pop("undefined")
    assert_same(found, expected)
    assert (nothing.num_undefined, nothing.rank, nothing.is_best) == (60, None, False)
    assert np.isnan([nothing.mean, nothing.low, nothing.p_holm]).all()


@pytest.mark.parametrize("scores", [[math.nan, math.nan], [math.nan, 1.0]])
def test_where_no_sample_is_defined_for_all_nothing_is_said(scores):
    comparison = compare_methods([run({"a": scores, "b": scores[::-1]})])
    assert (comparison.metrics[0].num_common, comparison.metrics[0].num_samples) == (2, 0)
    assert {result.rank for result in comparison.metrics[0].methods} == {None}
    assert bold(comparison) == set()


@pytest.mark.parametrize("directions", [{}, {"gini": None}])
def test_without_a_direction_there_is_no_best(directions):
    comparison = compare_methods([Run("run", rows(planted()), directions)])
    assert comparison.metrics[0].higher_is_better is None
    for result in comparison.metrics[0].methods:
        assert (result.rank, result.is_best) == (None, False)
        assert math.isnan(result.p_holm)
        assert result.low < result.mean < result.high


def test_a_single_method_is_the_best():
    assert bold(compare_methods([run({"only": [1.0, 2.0]})])) == {"only"}


def test_several_runs_are_compared_on_their_common_samples():
    scores = planted()
    later = {"best": scores["best"][20:] - 1.0, "new": scores["best"][20:] + 1.0}
    comparison = compare_methods([run(scores, name="a"), run(later, name="b", start=20, epoch=3, step=7)])
    assert [(r.name, r.epoch, r.step, r.num_samples) for r in comparison.runs] == [("a", 0, 0, 60), ("b", 3, 7, 40)]
    assert comparison.metrics[0].num_samples == 40
    found = results(comparison)
    assert list(found) == ["a:worst", "a:chance", "a:best", "a:worse", "b:best", "b:new"]
    assert found["a:best"].mean == pytest.approx(scores["best"][20:].mean())
    assert found["a:best"].effect_size == -1.0
    assert bold(comparison) == {"b:new"}


def test_metrics_are_compared_one_by_one():
    both = rows({"m": [1.0, 2.0], "n": [0.0, 0.0]}) + rows({"m": [1.0, 2.0], "n": [0.0, 0.0]}, "noise")
    comparison = compare_methods([Run("run", both, {"gini": True, "noise": False})])
    assert [metric.metric for metric in comparison.metrics] == ["gini", "noise"]
    assert results(comparison, 0)["m"].rank == results(comparison, 1)["n"].rank == 1


# What cannot be compared


def test_runs_without_a_common_sample_are_refused():
    runs = [run({"m": [1.0, 2.0]}, name="a"), run({"m": [1.0, 2.0]}, name="b", start=5)]
    with pytest.raises(ValueError, match=r"no sample in common in gini: a:m has 2 from 0 to 1; b:m has 2 from 5"):
        compare_methods(runs)


def test_a_sample_with_two_scores_is_refused():
    twice = rows({"m": [1.0]}) * 2
    with pytest.raises(ValueError, match="`runs`: run has two scores of sample 0 for m, gini"):
        compare_methods([Run("run", twice, {})])


def test_runs_that_disagree_on_a_direction_are_refused():
    runs = [run({"m": [1.0]}, name="a"), run({"m": [1.0]}, name="b", better=False)]
    with pytest.raises(ValueError, match="disagree on whether higher is better in gini: b says False, a run before"):
        compare_methods(runs)


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([], {}, "`runs` must be at least one run, with at least one score each"),
        ([Run("a", [], {})], {}, "`runs` must be at least one run, with at least one score each"),
        ([run({"m": [1.0]})], {"alpha": 0.0}, "`alpha` must be between 0 and 1, got 0.0"),
        ([run({"m": [1.0]})], {"alpha": 5.0}, "`alpha` must be between 0 and 1, got 5.0"),
        ([run({"m": [1.0]})], {"seed": -1}, "`seed` must be at least 0, got -1"),
    ],
)
def test_bad_arguments(runs, options, message):
    with pytest.raises(ValueError, match=message):
        compare_methods(runs, **options)
