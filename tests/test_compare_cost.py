"""What methods spend, and comparisons at equal compute."""

import math

import pytest

from lightning_xai.experiments import Run, compare_methods
from lightning_xai.results.scores import GRADIENTS, Scores

COSTS = {"gradient": 1, "smooth": 50, "below": 47.5, "above": 52.5, "far": 53, "fusion": 100, "random": 0}


def run(costs, name="run", metrics=("gini",), num_samples=4):
    """Every method has a score of each sample; the better ones spend more. Costs of None are not recorded."""
    rows = [
        ("test", 0, 0, method, metric, sample, float(place + sample))
        for place, method in enumerate(costs)
        for metric in metrics
        for sample in range(num_samples)
    ]
    rows += [
        ("test", 0, 0, method, GRADIENTS, sample, float(cost))
        for method, cost in costs.items()
        if cost is not None
        for sample in range(num_samples)
    ]
    return Run(name, Scores.from_rows(rows), dict.fromkeys(metrics, True) | {GRADIENTS: None})


def names(comparison):
    return [result.method for result in comparison.metrics[0].methods]


def test_the_cost_is_a_number_and_no_metric():
    comparison = compare_methods([run(COSTS)])
    assert [metric.metric for metric in comparison.metrics] == ["gini"]
    assert comparison.gradients == COSTS
    assert comparison.matched_gradients is None
    assert comparison.left_out == {}
    assert comparison.methods == tuple(COSTS)


def test_the_cost_is_the_mean_over_the_samples_of_which_it_is_known():
    rows = run({"m": 1, "n": 1}).scores
    costs = {("m", 0): 10.0, ("m", 1): 20.0, ("m", 2): math.nan, ("m", 3): 60.0}
    rows = [r for r in rows if r.metric != GRADIENTS or r.method != "m"]
    rows += [("test", 0, 0, method, GRADIENTS, sample, cost) for (method, sample), cost in costs.items()]
    assert compare_methods([Run("run", Scores.from_rows(rows), {})]).gradients == {"m": 30.0, "n": 1.0}


def test_runs_without_costs_are_compared_without():
    comparison = compare_methods([run(dict.fromkeys("mn"))])
    assert comparison.gradients == {}
    assert names(comparison) == ["m", "n"]


def test_unknown_costs_are_nan_beside_known_ones():
    comparison = compare_methods([run({"m": 50}, "a"), run({"m": None, "n": math.nan}, "b")])
    assert comparison.gradients == pytest.approx({"a:m": 50.0, "b:m": math.nan, "b:n": math.nan}, nan_ok=True)


def test_equal_compute_is_within_five_percent_or_without_draws():
    comparison = compare_methods([run(COSTS)], gradients=50)
    assert names(comparison) == ["gradient", "smooth", "below", "above", "random"]
    assert comparison.left_out == {"far": 53, "fusion": 100}
    assert comparison.gradients == {"gradient": 1, "smooth": 50, "below": 47.5, "above": 52.5, "random": 0}
    assert comparison.matched_gradients == 50
    assert comparison.controls == ("random",)


@pytest.mark.parametrize("cost", [47.4, 52.6, 1.01, 2])
def test_just_beyond_is_left_out(cost):
    assert compare_methods([run({"m": 50, "n": cost})], gradients=50).left_out == {"n": cost}


def test_one_gradient_is_a_budget_too():
    assert names(compare_methods([run(COSTS)], gradients=1)) == ["gradient", "random"]


def test_the_best_is_chosen_among_those_that_are_compared():
    assert compare_methods([run(COSTS)]).metrics[0].methods[-2].rank == 1  # fusion
    found = {
        r.method: r for r in compare_methods([run({"smooth": 50, "fusion": 100})], gradients=50).metrics[0].methods
    }
    assert found["smooth"].rank == 1
    assert math.isnan(found["smooth"].p_value)


def test_controls_are_tested_but_have_no_rank_and_are_never_the_best():
    *methods, random = compare_methods([run(COSTS, num_samples=12)]).metrics[0].methods
    assert (random.method, random.mean) == ("random", max(result.mean for result in [*methods, random]))
    assert (random.rank, random.is_best) == (None, False)
    assert random.effect_size == 1, "better than the best method, sample by sample"
    assert random.p_holm < 0.05
    assert sorted(result.rank for result in methods) == [1, 2, 3, 4, 5, 6]
    assert next(result for result in methods if result.rank == 1).is_best


def test_controls_alone_are_described():
    (only,) = compare_methods([run({"random": 0})]).metrics[0].methods
    assert (only.rank, only.is_best) == (None, False)
    assert math.isnan(only.p_value)


def test_methods_of_unknown_cost_are_left_out():
    runs = [run({"m": 50, "random": 0}, "a"), run({"m": None, "random": None}, "b")]
    comparison = compare_methods(runs, gradients=50)
    assert names(comparison) == ["a:m", "a:random"]
    assert comparison.controls == ("a:random",)
    assert comparison.left_out == pytest.approx({"b:m": math.nan, "b:random": math.nan}, nan_ok=True)


def test_methods_left_out_do_not_narrow_the_samples_down():
    runs = [run({"m": 50}, "a", num_samples=6), run({"m": 10}, "b", num_samples=2)]
    assert compare_methods(runs).metrics[0].num_common == 2
    assert compare_methods(runs, gradients=50).metrics[0].num_common == 6


def test_metrics_without_a_method_left_are_dropped():
    runs = [run({"m": 50}, "a"), run({"m": 10}, "b", metrics=("gini", "auroc"))]
    assert [metric.metric for metric in compare_methods(runs, gradients=50).metrics] == ["gini"]


def test_controls_are_known_in_every_run():
    runs = [run({"m": 50, "random": 0}, "a"), run({"edges": 0, "random_smooth": 50}, "b")]
    assert compare_methods(runs).controls == ("a:random", "b:edges")


@pytest.mark.parametrize(
    ("costs", "gradients", "message"),
    [
        ({"m": 50}, 0, "`gradients` must be at least 1, got 0"),
        ({"m": None, "n": math.nan}, 50, "no run has recorded what its methods spend. Evaluate anew"),
        (
            {"m": 50, "gradient": 1, "fusion": 100.5, "n": None},
            20,
            r"no method spends about 20 a sample: m spends 50, gradient spends 1, fusion spends 100.5\. Choose one",
        ),
        ({"random": 0}, 1, r"no method spends about 1 a sample: random spends 0\."),
    ],
)
def test_what_cannot_be_matched_is_refused(costs, gradients, message):
    with pytest.raises(ValueError, match=message):
        compare_methods([run(costs)], gradients=gradients)


def test_runs_with_costs_alone_are_refused():
    with pytest.raises(ValueError, match="`runs` have no score of the methods to be compared, except for what they"):
        compare_methods([run({"m": 50}, metrics=())])
