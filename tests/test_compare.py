"""Comparisons of methods: against transcriptions, enumerations and planted data; what cannot be compared is refused."""

import itertools
import math
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats

from lightning_xai.experiments import Run, compare_methods
from lightning_xai.results.scores import Scores
from lightning_xai.statistics.intervals import mean_interval
from lightning_xai.statistics.paired import holm
from lightning_xai.studies.study import carried_studies
from tests.small import carried_study

rng = np.random.default_rng(0)


def rows(scores, metric="gini", stage="test", epoch=0, step=0, start=0):
    """The rows of `scores[method]`, samples numbered from `start`."""
    return Scores.from_rows(
        (stage, epoch, step, method, metric, sample, float(value))
        for method, values in scores.items()
        for sample, value in enumerate(values, start)
    )


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
    names = ["best", "worst", "chance", "worse"]
    pairs = list(itertools.combinations(names, 2))  # those with the best come first
    every = np.array([stats.wilcoxon(scores[a] - scores[b], method="asymptotic").pvalue for a, b in pairs])
    raw, corrected = (dict(zip(names[1:], values, strict=False)) for values in (every, holm(every)))
    for name, values in scores.items():
        result = found[name]
        assert result.mean == pytest.approx(values.mean())
        assert result.standard_deviation == pytest.approx(values.std(ddof=1))
        assert (result.low, result.high) == mean_interval(values, 0.95, 5)
        assert result.num_undefined == 0
        if name != "best":
            differences = values - scores["best"]
            assert result.difference == pytest.approx(differences.mean())
            assert (result.difference_low, result.difference_high) == mean_interval(differences, 0.95, 5)
            assert result.smallest_effect == pytest.approx(
                0.2 * math.sqrt((values.var(ddof=1) + scores["best"].var(ddof=1)) / 2)
            )
            assert (result.p_value, result.p_holm) == pytest.approx((raw[name], corrected[name]))
    assert math.isnan(found["best"].p_value)


def test_the_compared_scores_are_kept():
    scores = {"m": [0.1, 0.2, math.nan, 0.4], "n": [0.5, 0.6, 0.7, math.inf], "nothing": [math.nan] * 4}
    (metric,) = compare_methods([run(scores, start=7)]).metrics
    assert tuple(metric.samples) == (7, 8)
    assert {r.method: tuple(r.values) for r in metric.methods} == {"m": (0.1, 0.2), "n": (0.5, 0.6), "nothing": ()}
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
    """Better on all samples but one: the test is significant, but in its favor."""
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
    plain, shuffled = run(scores), list(rows(scores))
    random.Random(0).shuffle(shuffled)
    shuffled = Run("run", Scores.from_rows(shuffled), plain.higher_is_better)
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
    both = Scores.concatenated(rows({"m": [1.0, 2.0], "n": [0.0, 0.0]}, metric) for metric in ("gini", "noise"))
    comparison = compare_methods([Run("run", both, {"gini": True, "noise": False})])
    assert [metric.metric for metric in comparison.metrics] == ["gini", "noise"]
    assert results(comparison, 0)["m"].rank == results(comparison, 1)["n"].rank == 1


# Cases: scores of two or three methods, and what is said of each


NAN = math.nan
CASES = {
    "tie broken by rounding": (
        {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1], "c": [0.2, 0.2, 0.2]},
        {"a": (1, NAN, NAN, True), "b": (1, 0.0, 1.0, True), "c": (1, 0.0, 1.0, True)},
    ),
    "tenths": (
        {"x": [0.5, 1.0, 0.3, 0.1, 0.5, 0.9, 1.0, 0.3], "y": [0.6, 1.0, 0.2, 0.4, 0.4, 1.0, 1.0, 0.5]},
        {"x": (2, -11 / 21, 0.375, True), "y": (1, NAN, NAN, True)},
    ),
    "undefined scores": (
        {"a": [1.0] * 8 + [NAN, 9.0], "b": [0.0] * 8 + [9.0, math.inf]},
        {"a": (1, NAN, NAN, True), "b": (2, -1.0, 2 / 2**8, False)},
    ),
    "undefined method": (
        {"a": [1.0, 2.0], "b": [NAN, NAN]},
        {"a": (1, NAN, NAN, True), "b": (None, NAN, NAN, False)},
    ),
    "all equal": ({"b": [0.7] * 9, "a": [0.7] * 9}, {"a": (1, NAN, NAN, True), "b": (1, 0.0, 1.0, True)}),
    "one sample": ({"a": [1.0], "b": [0.0]}, {"a": (1, NAN, NAN, True), "b": (2, -1.0, 1.0, True)}),
    "two samples": ({"a": [1.0, 3.0], "b": [0.0, 1.0]}, {"a": (1, NAN, NAN, True), "b": (2, -1.0, 0.5, True)}),
    "the mean of one outlier against the ranks": (
        {"a": [0.0] * 9 + [100.0], "b": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 0.0]},
        {"a": (1, NAN, NAN, True), "b": (2, (45 - 10) / 55, 2 * 43 / 2**10, True)},
    ),
    "three methods, a family of three pairs": (
        {"a": np.arange(6.0) + 2, "b": np.arange(6.0) + 1, "c": np.arange(6.0)},
        {"a": (1, NAN, NAN, True), "b": (2, -1.0, 3 * 2 / 2**6, True), "c": (3, -1.0, 3 * 2 / 2**6, True)},
    ),
}


@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize("stored", [np.float64, np.float32])
@pytest.mark.parametrize("unit", [1.0, 1 / 3, 1e-9])
@pytest.mark.parametrize("case", CASES)
def test_cases(case, unit, stored, better):
    """Rank, r, corrected p and whether it is as good as the best; in any unit, precision and direction."""
    scores, expected = CASES[case]
    sign = 1 if better else -1
    found = results(compare_methods([run({n: stored(sign * unit * np.array(v)) for n, v in scores.items()}, better)]))
    for name, (rank, effect, p_value, is_best) in expected.items():
        result = found[name]
        assert (result.rank, result.is_best) == (rank, is_best)
        assert (result.effect_size, result.p_holm) == pytest.approx((effect, p_value), nan_ok=True)


def test_the_published_procedure_corrects_over_the_methods_alone():
    scores, _ = CASES["three methods, a family of three pairs"]
    found = results(compare_methods([run(scores)], procedure="published"))
    assert [found[name].p_holm for name in "bc"] == pytest.approx([2 * 2 / 2**6] * 2)
    assert compare_methods([run(scores)], procedure="published").procedure == "published"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
def test_the_tables_of_the_papers_keep_the_published_procedure():
    assert {carried_study(name).procedure for name in carried_studies()} == {"published"}


# Effects


def test_a_significant_difference_may_be_negligible():
    generator = np.random.default_rng(6)
    best = generator.normal(size=300)
    scores = {"best": best, "hair": best - 0.01 + generator.normal(0, 0.01, 300), "worse": best - 1.0}
    found = results(compare_methods([run(scores)]))
    assert (found["hair"].is_best, found["hair"].is_negligible) == (False, True)
    assert (found["worse"].is_best, found["worse"].is_negligible) == (False, False)
    found = results(compare_methods([run(scores)], smallest_effects={"gini": 0.005}))
    assert (found["hair"].is_negligible, found["hair"].smallest_effect) == (False, 0.005)
    # Of an interval that reaches beyond the smallest effect, nothing is said.
    assert found["hair"].difference_low < -0.0101 < found["hair"].difference_high
    assert not results(compare_methods([run(scores)], smallest_effects={"gini": 0.0101}))["hair"].is_negligible


def test_what_is_not_significant_is_not_called_negligible():
    best = np.arange(4.0)
    assert not results(compare_methods([run({"best": best, "other": best - 1e-3})]))["other"].is_negligible


def test_lower_is_better_mirrors_the_difference():
    values = np.arange(8.0)
    found = results(compare_methods([run({"best": values, "worse": values + 0.5}, better=False)]))["worse"]
    assert (found.difference, found.difference_low, found.difference_high) == (-0.5, -0.5, -0.5)


# Names


def test_runs_of_one_name_are_told_apart():
    comparison = compare_methods([run({"m": [1.0, 2.0]}), run({"m": [3.0, 4.0]}), run({"m": [5.0]}, name="run (2)")])
    assert [r.name for r in comparison.runs] == ["run", "run (3)", "run (2)"]
    assert {name: r.mean for name, r in results(comparison).items()} == {"run:m": 1, "run (3):m": 3, "run (2):m": 5}


def test_methods_whose_full_names_collide_are_told_apart():
    comparison = compare_methods([run({"c": [1.0]}, name="a:b"), run({"b:c": [2.0], "random": [0.0]}, name="a")])
    assert {name: r.mean for name, r in results(comparison).items()} == {"a:b:c": 1, "a:b:c (2)": 2, "a:random": 0}
    assert comparison.controls == ("a:random",)


# What cannot be compared


def test_runs_without_a_common_sample_are_refused():
    runs = [run({"m": [1.0, 2.0]}, name="a"), run({"m": [1.0, 2.0]}, name="b", start=5)]
    with pytest.raises(ValueError, match=r"no sample in common in gini: a:m has 2 from 0 to 1; b:m has 2 from 5"):
        compare_methods(runs)


def test_a_sample_with_two_scores_is_refused():
    twice = Scores.concatenated([rows({"m": [1.0]})] * 2)
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
        ([Run("a", Scores.from_rows([]), {})], {}, "`runs` must be at least one run, with at least one score each"),
        ([run({"m": [1.0]})], {"alpha": 0.0}, "`alpha` must be between 0 and 1, got 0.0"),
        ([run({"m": [1.0]})], {"alpha": 5.0}, "`alpha` must be between 0 and 1, got 5.0"),
        ([run({"m": [1.0]})], {"smallest_effects": {"gin": 1.0}}, "`smallest_effects`: no run has scores of 'gin'"),
        (
            [run({"m": [1.0]})],
            {"smallest_effects": {"gini": 0.0}},
            "`smallest_effects` must be positive, got 0.0 for gini",
        ),
        ([run({"m": [1.0]})], {"smallest_effects": {"gini": NAN}}, "`smallest_effects` must be positive, got nan for"),
        ([run({"m": [1.0]})], {"seed": -1}, "`seed` must be at least 0, got -1"),
    ],
)
def test_bad_arguments(runs, options, message):
    with pytest.raises(ValueError, match=message):
        compare_methods(runs, **options)
