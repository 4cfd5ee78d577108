"""Whether metrics agree on which methods are better: Kendall's tau-b by hand and by its definition."""

import itertools
import math

import numpy as np
import pytest

from lightning_xai.experiments import Run, compare_methods
from lightning_xai.results.scores import Scores
from lightning_xai.statistics.agreement import kendall_tau

rng = np.random.default_rng(0)


def run(metrics, directions, name="run"):
    """From metrics[metric][method][sample]."""
    rows = (
        ("test", 0, 0, method, metric, sample, float(value))
        for metric, methods in metrics.items()
        for method, values in methods.items()
        for sample, value in enumerate(values)
    )
    return Run(name, Scores.from_rows(rows), directions)


def table(scores, methods="abcd"):
    return dict(zip(methods, np.array(scores, dtype=float), strict=False))


def agreement(first, second, directions=(True, True), **more):
    metrics = {"one": first, "two": second, **more}
    (found,) = compare_methods([run(metrics, dict(zip(("one", "two"), directions, strict=True)))]).agreements
    return found


def tau_b(x, y):
    """By its definition: pairs in the same order less pairs in the reverse one, over those that are not tied."""
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in itertools.combinations(range(len(x)), 2)]
    untied = [sum(sign[k] != 0 for sign in signs) for k in (0, 1)]
    return sum(a * b for a, b in signs) / math.sqrt(untied[0] * untied[1]) if all(untied) else math.nan


def test_tau_by_hand():
    """Of the six pairs, five in the same order and one in the reverse: 4 / 6; with one tie 4 / sqrt(6 * 5)."""
    one = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    two = np.array([[1.0, 1.0], [3.0, 2.0], [2.0, 2.0], [4.0, 4.0]])
    np.testing.assert_allclose(kendall_tau(one, two), [4 / 6, 5 / math.sqrt(30)])


def test_tau_is_its_definition_also_with_ties():
    one, two = rng.integers(0, 4, (2, 6, 50)).astype(float)
    expected = [tau_b(x, y) for x, y in zip(one.T, two.T, strict=True)]
    np.testing.assert_allclose(kendall_tau(one, two), expected)


def test_scores_that_differ_by_rounding_are_ties():
    one = np.array([[1.0], [2.0], [3.0]])
    two = np.array([[5.0], [5.0 * (1 - 1e-7)], [6.0]])
    np.testing.assert_allclose(kendall_tau(one, two), [2 / math.sqrt(6)])


def test_tau_is_undefined_where_all_methods_are_equal():
    assert np.isnan(kendall_tau(np.ones((3, 1)), np.arange(3.0)[:, None])).all()


def test_it_is_the_mean_over_samples_with_its_standard_error():
    one, two = rng.normal(size=(2, 4, 10))
    taus = [tau_b(x, y) for x, y in zip(one.T, two.T, strict=True)]
    found = agreement(table(one), table(two))
    assert found.metrics == ("one", "two")
    assert found.tau == pytest.approx(np.mean(taus))
    assert found.standard_error == pytest.approx(np.std(taus, ddof=1) / math.sqrt(10))
    assert (found.num_samples, found.num_methods) == (10, 4)


def test_samples_are_compared_one_by_one():
    """The same order on the first sample and the reverse on the second, where the scores are much larger."""
    found = agreement(table([[0, 10], [1, 9], [2, 8]]), table([[0, 100], [1, 200], [2, 300]]))
    assert (found.tau, found.standard_error) == (0.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("directions", "tau"), [((True, True), 1), ((False, True), -1), ((True, False), -1), ((False, False), 1)]
)
def test_one_is_agreement_on_which_is_better(directions, tau):
    scores = table(np.arange(4.0)[:, None] + np.zeros(3))
    found = agreement(scores, scores, directions)
    assert (found.tau, found.standard_error) == (tau, 0.0)


def test_the_controls_take_no_part():
    """With them the two metrics would agree by half; the methods are in reverse orders."""
    one, two = table([[1.0], [2.0], [3.0], [-9.0], [-8.0]]), table([[3.0], [2.0], [1.0], [-9.0], [-8.0]])
    names = ["a", "b", "c", "random", "edges"]
    found = agreement(*(dict(zip(names, scores.values(), strict=False)) for scores in (one, two)))
    assert found.num_methods == 3


def test_the_controls_take_no_part_in_several_runs():
    metrics = {name: table(np.arange(3.0)[:, None], ("a", "b", "random")) for name in ("one", "two")}
    runs = [run(metrics, {"one": True, "two": True}, name) for name in "pq"]
    (found,) = compare_methods(runs).agreements
    assert found.num_methods == 4


def test_samples_are_those_that_both_metrics_define():
    one, two = rng.normal(size=(2, 3, 6))
    expected = np.mean([tau_b(one[:, i], two[:, i]) for i in (0, 2, 5)])
    one[0, 1], one[2, 3], two[1, 4] = math.nan, math.inf, math.nan
    found = agreement(table(one), table(two))
    assert found.num_samples == 3
    assert found.tau == pytest.approx(expected)


def test_samples_on_which_a_metric_tells_nothing_apart_are_left_out():
    one = np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])
    found = agreement(table(one), table([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    assert (found.tau, found.num_samples) == (1.0, 1)
    assert math.isnan(found.standard_error)


def test_a_method_without_any_score_takes_no_part():
    one, two = rng.normal(size=(2, 4, 5))
    one[2] = math.nan
    found = agreement(table(one), table(two))
    assert (found.num_methods, found.num_samples) == (3, 5)
    expected = np.mean([tau_b(one[[0, 1, 3], i], two[[0, 1, 3], i]) for i in range(5)])
    assert found.tau == pytest.approx(expected)


@pytest.mark.parametrize("directions", [{"one": True}, {"one": True, "two": None}, {}])
def test_metrics_without_a_direction_agree_with_nothing(directions):
    scores = table(rng.normal(size=(4, 5)))
    assert compare_methods([run({"one": scores, "two": scores}, directions)]).agreements == ()


def test_two_methods_are_too_few():
    scores = table(rng.normal(size=(3, 5)), ("a", "b", "edges"))
    assert compare_methods([run({"one": scores, "two": scores}, {"one": True, "two": True})]).agreements == ()


def test_a_pair_without_a_sample_in_common_is_left_out():
    one, two = rng.normal(size=(2, 3, 4))
    one[0, :2], two[0, 2:] = math.nan, math.nan
    assert compare_methods([run({"one": table(one), "two": table(two)}, {"one": True, "two": True})]).agreements == ()


def test_every_pair_once():
    scores = {name: table(rng.normal(size=(3, 5))) for name in ("w", "x", "y", "z")}
    found = compare_methods([run(scores, {"w": True, "x": False, "z": True})]).agreements
    assert [a.metrics for a in found] == [("w", "x"), ("w", "z"), ("x", "z")]
