"""What an evaluation will cost: gradients and passes are exact, the rest is measured as it will be."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import lightning_xai as lx
from lightning_xai import metrics, price as prices
from lightning_xai.evaluation import Batch
from lightning_xai.explainers import AbsoluteScale, Precomputed, with_controls
from lightning_xai.price import MAPS, Cost, Price, duration, price, within_gradients

SCALE = AbsoluteScale(0.1)
METHODS = {
    "gradient": lx.Gradient(),
    "smooth": lx.smooth_grad(num_draws=6),
    "fusion": lx.fusion_grad(num_weight_draws=3, num_input_draws=2),
    "path": lx.IntegratedGradients(lx.Smooth(scale=SCALE, num_draws=2), baseline=0.0, num_steps=5),
    "clean": lx.Smooth(scale=SCALE, num_draws=3, include_clean=True),
    "random": lx.explainers.RandomAttribution(),
    "kept": Precomputed(lambda index: torch.zeros(6, 6) + index),
}
METRICS = {
    "sparseness": metrics.Sparseness(),
    "infidelity": metrics.Infidelity(num_draws=7, square_size=2, baseline=0.0),
}
AGAIN = {"max": metrics.MaxSensitivity(num_draws=4), "mean": metrics.AverageSensitivity(num_draws=4)}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))


def batches(*sizes):
    start = 0
    for size in sizes:
        yield Batch(torch.rand(size, 1, 6, 6), None, torch.arange(start, start + size))
        start += size


def test_gradients_are_those_that_the_evaluation_counts(model):
    found = price(model, batches(4, 4, 4, 4), METHODS, METRICS, 1000)
    images = torch.rand(5, 1, 6, 6)
    counted = lx.evaluate(model, images, None, METHODS, {"sparseness": metrics.Sparseness()}).means()
    assert {name: found.costs[name, MAPS].gradients for name in METHODS} == {
        name: means["gradients"] for name, means in counted.items()
    }
    assert (
        found.gradients == 1000 * sum(means["gradients"] for means in counted.values()) == 1000 * (1 + 6 + 6 + 10 + 4)
    )
    assert not found.estimated


def test_metrics_that_explain_again_pay_for_each_time_and_share_it(model):
    methods = {name: METHODS[name] for name in ("gradient", "smooth")}
    found = price(model, batches(4, 4, 4, 4), methods, AGAIN, 100)
    assert [found.costs[name, "max"].gradients for name in methods] == [4 * 1, 4 * 6]
    assert [found.costs[name, "mean"].gradients for name in methods] == [0, 0]  # those of the first
    assert found.gradients == 100 * (7 + 28)


def test_passes_of_metrics_are_counted_once_for_all_methods(model):
    found = price(model, batches(4, 4), METHODS, METRICS, 8)
    assert found.costs["gradient", "infidelity"].passes == 1 + 7  # the clean input, and without each square
    assert found.costs["smooth", "infidelity"].passes == 0
    assert found.costs["gradient", MAPS].passes == found.costs["gradient", "sparseness"].passes == 0


def test_time_is_the_median_of_three_batches_behind_the_first_and_the_start_comes_once(model, monkeypatch):
    """By a clock that only goes on when a method is asked: 5 s a batch, 8 the first time, 50 once by accident."""
    now, asked = [0.0], []
    spent = iter([8.0, 5.0, 50.0, 5.0])

    def waited(index):
        if index % 4 == 0:  # of each batch
            asked.append(index)
            now[0] += next(spent)
        return torch.ones(6, 6)

    monkeypatch.setattr(prices.time, "perf_counter", lambda: now[0])
    found = price(model, batches(4, 4, 4, 4, 4), {"slow": Precomputed(waited)}, {}, 400)
    assert asked == [0, 4, 8, 12]  # as many batches as are measured
    assert found.costs["slow", MAPS].seconds == 5 / 4
    assert found.start == 3
    assert found.seconds == 400 * 5 / 4 + 3


def test_a_small_work_is_measured_whole_and_a_short_stream_begun_again(model):
    asked = []
    method = {"kept": Precomputed(lambda index: asked.append(index) or torch.ones(6, 6))}
    price(model, batches(4), method, {}, 4)
    assert asked == [0, 0, 1, 2, 3]  # a row to warm up
    asked.clear()
    price(model, batches(4, 4), method, {}, 100)
    assert asked == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 0, 1, 2, 3]
    with pytest.raises(ValueError, match="`batches` is empty"):
        price(model, [], method, {}, 100)


def test_draws_that_depend_on_the_sample_are_said_to_be_estimated(model):
    methods = {"some": lx.Smooth(num_draws=8, tolerance=0.5, max_draws=16), "gradient": lx.Gradient()}
    found = price(model, batches(2, 2), methods, AGAIN, 2)
    assert found.estimated == {"some"}
    cells = {row[0]: row[1] for row in found.table().rows}
    assert cells["some"].startswith("~")
    assert cells["max"].startswith("~")
    assert cells["gradient"] == "1"


def test_the_table_adds_up():
    costs = {("a", MAPS): Cost(10.0, 0.0, 0.5), ("b", MAPS): Cost(seconds=0.25), ("a", "m"): Cost(0.0, 3.0, 0.25)}
    found = Price(3600, costs | {("b", "m"): Cost()}, reading=1.0, start=3600.0, memory=2**31, title="of all")
    table = found.table()
    assert (found.gradients, found.hours, found.gibibytes) == (36_000, 3.0, 2.0)
    assert [row[0] for row in table.rows] == ["a", "b", "m", "reading", "all"]
    assert table.rows[0] == ("a", "10", "0", "500", "36,000", "30 min", "17 %")
    assert table.rows[-1] == ("all", "10", "3", "2,000", "36,000", "3 h", "100 %")
    assert table.notes == ("At its peak 2.00 GiB of memory.", "1 h of the time are for the start.")
    assert [duration(s) for s in (0.0021, 59.0, 61.0, 7200.0, 172_800.0)] == [
        "2.1 ms",
        "59 s",
        "1.02 min",
        "2 h",
        "2 days",
    ]


def test_two_works_cost_what_each_of_them_does():
    one = Price(2, {("a", MAPS): Cost(10.0, 1.0, 0.5)}, 1.0, 3.0, 5, title="first")
    other = Price(6, {("a", MAPS): Cost(2.0), ("b", MAPS): Cost(4.0, 0.0, 2.0)}, 2.0, 1.0, 9, frozenset("b"))
    both = one + other
    assert (both.num_samples, both.title, both.memory, both.estimated) == (8, "first", 9, {"b"})
    assert both.gradients == one.gradients + other.gradients == 2 * 10 + 6 * (2 + 4)
    assert both.seconds == one.seconds + other.seconds
    assert both.sample.passes == 2 / 8


def test_a_batch_of_an_evaluation_brings_its_context_model_and_pairs():
    twice = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 18)))  # no logits: another output explains it
    context = lx.explainers.Context.create(torch.arange(3), output=lx.outputs.Of(first_half), bounds=(0.0, 1.0))
    pairs = {"smooth": ["sparseness", "gradients"], "kept": []}
    given = Batch(torch.rand(3, 1, 6, 6), torch.zeros(3).long(), torch.arange(3), None, context, twice, pairs=pairs)
    found = price(nn.Identity(), [given], METHODS | {"ours": lx.adapt_grad()}, METRICS, 3)
    assert list(found.costs) == [("smooth", MAPS), ("smooth", "sparseness"), ("kept", MAPS)]
    assert found.gradients == 3 * 6
    adaptive = within_gradients(nn.Identity(), replace(given, pairs=None), {"ours": lx.adapt_grad()}, {}, 3 * 7, 3)
    assert adaptive["ours"].num_draws == 7


def first_half(raw):
    return raw[:, 0]


def spent(model, methods, scored, num_samples):
    return price(model, batches(2, 2), methods, scored, num_samples, num_timed=1).gradients


@pytest.mark.parametrize(
    ("share", "scored"),
    [
        (0.4, METRICS),
        (0.6, AGAIN),
        (0.95, METRICS),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((0.4, AGAIN), (0.6, METRICS), (0.95, AGAIN))),
    ],
)
def test_a_budget_is_kept_and_used_up_to_a_draw(model, scored, share):
    methods = {name: method for name, method in METHODS.items() if name != "kept"}
    whole = spent(model, methods, scored, 50)
    allowed = math.ceil(share * whole)
    found = within_gradients(model, next(batches(3)), methods, scored, allowed, 50)
    assert spent(model, found, scored, 50) <= allowed
    assert found["gradient"] == methods["gradient"]  # what is cheap stays


@pytest.mark.parametrize("allowed", [11, 25, 60, 83, 90, 149])
def test_no_equal_number_of_gradients_makes_more_of_a_budget(model, allowed):
    methods = {"SG": lx.smooth_grad(), "FG": lx.fusion_grad()}  # 50 and 100

    def cost(level):
        fewer = {
            n: lx.explainers.with_gradients(m, min(level, c))
            for (n, m), c in zip(methods.items(), (50, 100), strict=True)
        }
        return fewer["SG"].num_draws + fewer["FG"].num_draws * fewer["FG"].explainer.num_draws

    best = max(c for c in map(cost, range(1, 101)) if c <= allowed)
    assert spent(model, within_gradients(model, next(batches(3)), methods, {}, allowed, 1), {}, 1) == best


def test_a_budget_that_is_large_enough_changes_nothing_and_one_that_is_too_small_is_refused(model):
    some = {"smooth": METHODS["smooth"], "until": lx.Smooth(num_draws=8, tolerance=0.5, max_draws=20)}
    rows = next(batches(3))
    assert within_gradients(model, rows, some, {}, 26 * 10, 10) == some  # 6, and 20 at most
    less = within_gradients(model, rows, some, {}, 26 * 10 - 1, 10)
    assert less == {"smooth": some["smooth"], "until": replace(some["until"], tolerance=None, num_draws=19)}
    with pytest.raises(ValueError, match="`max_gradients` must be at least 20, a single draw of each method on 10"):
        within_gradients(model, rows, some, {}, 19, 10)


def test_controls_and_kept_maps_cost_no_gradients(model):
    found = price(model, batches(2, 2), with_controls({"kept": METHODS["kept"]}), METRICS, 10)
    assert found.gradients == 0
