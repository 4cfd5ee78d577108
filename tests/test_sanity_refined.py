"""Later sanity checks: hand cases, slow transcriptions, a reference library, and what they say about known methods."""

import copy
import math
import re
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from quantus.functions.complexity_func import discrete_entropy
from torch import nn
from torch.testing import assert_close

from lightning_xai.explainers import (
    Context,
    Gradient,
    InputAttribution,
    RandomAttribution,
    RangeScale,
    Smooth,
    SobelEdges,
    guided_backprop,
    smooth_grad,
    with_controls,
)
from lightning_xai.functional.random import fold_in_int
from lightning_xai.networks import CNN, MLP, LeNet
from lightning_xai.results.sanity import Cell, CellKey
from lightning_xai.sanity.blocks import parameter_blocks
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import examine
from lightning_xai.sanity.randomization import Randomization, randomize
from lightning_xai.sanity.refined import (
    cosine_convergence,
    efficient_mprt,
    histogram_entropy,
    other_classes,
    random_logit,
    smoothed,
)
from lightning_xai.sanity.similarity import SIMILARITIES, cosine, pearson
from lightning_xai.sanity.verdicts import complexity_verdict

SIZE = (1, 28, 28)
COSINE = {"cosine": cosine}


def images(count=4):
    return torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(0))


def network(hidden=(30, 20), classes=6):
    torch.manual_seed(1)
    return MLP(SIZE, hidden, classes)


def untouched(model, call):
    """The result of a call that leaves the model, its modes and hooks, and the global random state as they were."""
    before, state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    model.train()
    result = call()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    return result


# Efficient MPRT


def test_entropy_of_known_histograms():
    maps = torch.zeros(4, 1, 10, 10)
    maps[0] = torch.arange(100.0).view(1, 10, 10)  # one value a bin
    maps[1, 0, :5] = 1.0  # two bins, equally full
    maps[2, 0, 0, 0] = 1.0  # one in a hundred
    maps[3] = torch.linspace(-3, 1, 4).repeat_interleave(25).view(1, 10, 10)
    shares = ([0.01] * 100, [0.5, 0.5], [0.99, 0.01], [0.25] * 4)
    expected = torch.tensor([-sum(p * math.log(p) for p in row) for row in shares])
    assert_close(histogram_entropy(maps), expected)
    assert_close(histogram_entropy(maps, num_bins=2)[0], torch.tensor(math.log(2)))


def test_entropy_is_quantuss_and_of_the_signed_sum_over_channels():
    maps = torch.randn(5, 3, 12, 13, generator=torch.Generator().manual_seed(2))
    for num_bins in (100, 17):
        expected = [discrete_entropy(a.sum(0).double().numpy(), None, n_bins=num_bins) for a in maps]
        assert_close(histogram_entropy(maps, num_bins), torch.tensor(expected).float())


def test_entropy_depends_on_neither_scale_nor_offset():
    maps = torch.randn(5, 1, 12, 13, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert_close(histogram_entropy(maps * 1e-12), histogram_entropy(maps))
    assert_close(histogram_entropy(3 - maps.flip(2)), histogram_entropy(maps), rtol=0, atol=0.02)


def test_entropy_is_undefined_for_maps_without_a_histogram():
    maps = torch.randn(4, 1, 5, 5)
    maps[1], maps[2, 0, 0, 0], maps[3, 0, 0, 0] = 0.3, math.nan, math.inf
    assert histogram_entropy(maps).isnan().tolist() == [False, True, True, True]
    assert histogram_entropy(maps[1:]).isnan().all()


def test_efficient_mprt_is_the_relative_rise():
    """A slow transcription: both maps of the class that the trained model predicts, with the same noise."""
    model, context = network(), Context.create(torch.tensor([4, 8, 1, 3]), 2)
    method = smooth_grad(num_draws=3)
    scores = untouched(model, lambda: efficient_mprt(model, images(), None, method, context, seed=5))
    target = model(images()).argmax(1)
    other = randomize(model, parameter_blocks(model, images()), "own", 5)
    expected = []
    for net in (model, other):
        maps = method(net, images(), target, context)[:, 0]
        shares = [np.histogram(values.double().numpy(), 100)[0] / 784 for values in maps]
        expected.append(torch.tensor([-(p[p > 0] * np.log(p[p > 0])).sum() for p in shares]))
    assert_close(scores, ((expected[1] - expected[0]) / expected[0]).float())
    assert not torch.allclose(scores, efficient_mprt(model, images(), None, method, context, seed=6))


def test_efficient_mprt_rises_when_a_simple_map_becomes_a_complex_one():
    """Of a model that looks at one row of the image; nothing rises for a method that does not look at the model."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    with torch.no_grad():
        model[1].weight.view(3, 28, 28).zero_()[:, 7] = 1.0
    simple = -(1 / 28 * math.log(1 / 28) + 27 / 28 * math.log(27 / 28))
    scores = efficient_mprt(model, images(), 1, Gradient())
    random = histogram_entropy(Gradient()(randomize(model, parameter_blocks(model, images())), images(), 1))
    assert_close(scores, random / simple - 1)
    assert (scores > 20).all()
    assert torch.equal(efficient_mprt(model, images(), 1, SobelEdges()), torch.zeros(4))


def test_smooth_mprt_is_a_composition():
    assert smoothed({"gradient": Gradient()}, 50) == {"gradient": Smooth(Gradient(), RangeScale(0.1), 50)}
    assert smoothed({"gradient": Gradient()}, 0) == {"gradient": Gradient()}
    assert smoothed({"random": RandomAttribution()}, 50) == {"random": RandomAttribution()}
    with pytest.raises(ValueError, match="`smooth` must be a number of noisy inputs, 0 for none, got -1"):
        smoothed({}, -1)


# Random logit


def test_random_logit_is_1_if_all_classes_are_explained_alike():
    torch.manual_seed(1)
    same = network()
    with torch.no_grad():
        for value in (same.layers.linear3.weight, same.layers.linear3.bias):
            value[:] = value[:1].clone()
    for method in (Gradient(), smooth_grad(num_draws=2), guided_backprop()):
        scores = random_logit(
            same, images(), None, method, similarities=SIMILARITIES | {}, foreground=images()[:, 0] > 0.5
        )
        assert list(scores) == list(SIMILARITIES)
        for score in scores.values():
            assert_close(score, torch.ones(4))
    assert_close(random_logit(network(), images(), 2, InputAttribution(), similarities=COSINE)["cosine"], torch.ones(4))


def test_random_logit_by_hand():
    """Of two classes the other one is known."""
    model, method, context = network(classes=2), smooth_grad(num_draws=2), Context.create(torch.arange(4) + 6, 3)
    target = torch.tensor([0, 1, 1, 0])
    scores = untouched(model, lambda: random_logit(model, images(), target, method, context, COSINE))
    first, second = (method(model, images(), classes, context) for classes in (target, 1 - target))
    assert_close(scores["cosine"], cosine(first, second))
    predicted = random_logit(model, images(), None, Gradient(), similarities=COSINE)
    target = model(images()).argmax(1)
    first, second = (Gradient()(model, images(), classes) for classes in (target, 1 - target))
    assert_close(predicted["cosine"], cosine(first, second))


def test_random_logit_uses_the_same_noise():
    """Of a model with opposite logits the maps are opposite, if the draws are the same."""
    model = network(classes=2)
    with torch.no_grad():
        model.layers.linear3.weight[1] = -model.layers.linear3.weight[0]
    scores = random_logit(model, images(), 0, smooth_grad(num_draws=2), similarities={"pearson": pearson})
    assert_close(scores["pearson"], -torch.ones(4))


def test_other_classes_are_drawn_evenly_by_sample():
    index = torch.arange(6000)
    target = index % 5
    other = other_classes(target, 5, Context.create(index, 3))
    for distance in range(1, 5):
        share = ((other - target) % 5 == distance).double().mean().item()
        assert_close(share, 0.25, rtol=0, atol=5 * math.sqrt(0.25 * 0.75 / 6000))
    assert (other != target).all()
    assert other.min() == 0
    assert other.max() == 4
    assert torch.equal(other_classes(target[40:50], 5, Context.create(index[40:50], 3)), other[40:50])
    assert not torch.equal(other_classes(target, 5, Context.create(index, 4)), other)


# Both as checks with a verdict


METHODS = with_controls({"gradient": Gradient(), "smooth_grad": smooth_grad(num_draws=2)})


def subject(model, **options):
    settings = {"target": torch.tensor([0, 1, 1, 0]), "index": torch.arange(4) + 6, "seed": 3, "batch_size": 3}
    return Subject(model, images(), methods=METHODS, similarities=COSINE, **settings | options)


def scores_of(report, check, method):
    """(repeats, samples)."""
    found = [cell for cell in report.cells if (cell.key.check, cell.key.method) == (check, method)]
    return torch.stack([torch.from_numpy(score) for cell in found for score in cell.scores.values()])


@pytest.mark.parametrize("initialization", ["own", "permute"])
def test_the_efficient_check_makes_the_scores_of_efficient_mprt(initialization):
    examined = subject(network())
    options = {"initialization": initialization}
    how = Randomization(("independent",), repeats=3, **options)
    report = examine(replace(examined, randomization=how), ("efficient",), "cosine")
    context = Context.create(examined.index, 3)
    for name, method in METHODS.items():
        seeds = [fold_in_int(3, repeat) for repeat in range(3)]
        expected = [
            efficient_mprt(examined.model, images(), examined.target, method, context, seed=seed, **options)
            for seed in seeds
        ]
        assert_close(scores_of(report, "efficient", name), torch.stack(expected), rtol=0, atol=1e-5)
    verdicts = {verdict.method: verdict for verdict in report.verdicts}
    assert verdicts.keys() == METHODS.keys()
    assert verdicts["edges"].outcome == verdicts["random"].outcome == "FAIL"
    expected = "All random: the relative rise of the entropy, 0.000 [0.000, 0.000], is not above 0, over 4 samples of 3"
    assert verdicts["edges"].reason == f"{expected} networks."
    assert [state.check for state in report.models] == ["original", *["efficient"] * 3]


def test_the_efficient_check_passes_what_grows_more_complex():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    with torch.no_grad():
        model[1].weight.view(3, 28, 28).zero_()[:, 7] = 1.0
    report = examine(subject(model, randomization=Randomization(repeats=3)), ("efficient",), "cosine")
    assert {v.method for v in report.verdicts if v.outcome == "PASS"} == {"gradient", "smooth_grad"}


@pytest.mark.parametrize(
    ("values", "outcome", "phrase"),
    [
        ([0.1, 0.2, 0.3, 0.2], "PASS", r"0\.200 \[.*\], is above 0, over 4 samples of 3 networks\.$"),
        ([-0.1, -0.2, -0.3, -0.2], "FAIL", r"-0\.200 \[.*\], is not above 0, over 4 samples of 3 networks\.$"),
        ([0.0, 0.0, 0.0, 0.0], "FAIL", r"0\.000 \[0\.000, 0\.000\], is not above 0, over 4 samples of 3 networks\.$"),
        (
            [0.3, -0.3, 0.2, -0.1],
            "INCONCLUSIVE",
            r"is not clearly apart from 0, over .*\. Most .* more `num_samples`\.$",
        ),
        ([0.1, 0.11, math.nan, math.nan], "PASS", r"0\.105"),
        ([0.1, math.nan, math.nan, math.nan], "INCONCLUSIVE", "the entropy is undefined for 9 of 12 maps"),
    ],
)
def test_the_verdict_on_complexity(values, outcome, phrase):
    key = CellKey("efficient", "full", 0, "all", 0, "m")
    other = [replace(key, method="other"), replace(key, check="parameters")]
    cells = [Cell(replace(key, repeat=repeat), {"rise": np.array(values)}) for repeat in range(3)]
    cells += [Cell(k, {"rise": np.full(4, 9.0)}) for k in other]
    verdict = complexity_verdict("m", cells, "rise")
    assert verdict.outcome == outcome
    assert complexity_verdict("m", cells[1:], "rise").outcome == "INCONCLUSIVE", "two networks"
    assert re.search(phrase, verdict.reason)
    assert (verdict.check, verdict.similarity, verdict.threshold) == ("efficient", "rise", 0.0)


@pytest.mark.parametrize("repredict", [False, True])
def test_the_random_logit_check_makes_the_scores_of_random_logit(repredict):
    model = network()
    examined = subject(model, repredict=repredict)
    report = examine(examined, ("random_logit",), "cosine")
    context, target = Context.create(examined.index, 3), None if repredict else examined.target
    for name, method in METHODS.items():
        expected = random_logit(model, images(), target, method, context, COSINE)["cosine"]
        assert_close(scores_of(report, "random_logit", name), expected[None], rtol=0, atol=1e-5)
    verdicts = {verdict.method: verdict for verdict in report.verdicts}
    assert verdicts["edges"].outcome == verdicts["random"].outcome == "FAIL"
    assert verdicts["edges"].reason.startswith("Another class: similarity 1.000 [")
    assert "is above that of different images" in verdicts["edges"].reason


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "FAIL"), (-1.0, "PASS")])
def test_the_random_logit_check_compares_with_the_floor(factor, outcome):
    """Two classes that are explained alike, and two whose maps are opposite."""
    model = network(classes=2)
    with torch.no_grad():
        model.layers.linear3.weight[1] = factor * model.layers.linear3.weight[0]
    report = examine(subject(model), ("random_logit",), "cosine")
    found = {verdict.method: verdict for verdict in report.verdicts}
    assert found["gradient"].outcome == outcome
    assert found["gradient"].mean == pytest.approx(factor, abs=1e-5)
    floors = [cell.scores["cosine"].mean() for cell in report.cells if cell.key.check == "floor"][:2]
    assert found["gradient"].threshold == pytest.approx(max(floors), abs=1e-6)


def test_a_random_logit_needs_two_classes_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="at least two outputs for a random logit, got 1"):
        examine(subject(network(classes=1), target=torch.zeros(4).long()), ("random_logit",), "cosine", folder=tmp_path)
    assert not list(tmp_path.iterdir())


# Cosine convergence


class Bottleneck(nn.Module):
    """One unit through which all that the output says must pass back, with weights of both signs."""

    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.first, self.relu, self.one, self.last = nn.Linear(784, 9), nn.ReLU(), nn.Linear(9, 1), nn.Linear(1, 5)

    def forward(self, inputs):
        return self.last(self.one(self.relu(self.first(self.flatten(inputs)))))


def test_a_backward_pass_of_rank_one_converges_to_1():
    torch.manual_seed(0)
    model = Bottleneck()
    places, scores = untouched(model, lambda: cosine_convergence(model, images()))
    assert places == ("input", "first", "one", "last")
    assert_close(scores[:, :3], torch.ones(4, 3))
    assert (scores[:, 3] < 0.99).all()


@pytest.mark.parametrize("rule", ["gradient", "guided_backprop"])
def test_cosines_are_those_of_the_products_of_matrices(rule):
    """A slow transcription for a multilayer perceptron, with the directions found from the last place."""
    torch.manual_seed(0)
    model = network().double()
    x = images().double()
    places, scores = untouched(model, lambda: cosine_convergence(model, x, Context.create(torch.arange(4), 7), rule))
    assert places == ("input", "layers.linear1", "layers.linear2", "layers.linear3")
    layers = [model.layers.linear1, model.layers.linear2, model.layers.linear3]
    directions = watched_directions(model, x, Context.create(torch.arange(4), 7))
    for row in range(4):
        first = layers[0](x[row].flatten())
        second = layers[1](first.relu())
        arrived = [[], []]
        for vectors, direction in zip(arrived, directions[row], strict=True):
            vectors.append(direction)
            for layer, before in ((layers[2], second), (layers[1], first)):
                back = layer.weight.T @ vectors[-1]
                back = back.clamp(min=0) if rule == "guided_backprop" else back
                vectors.append(torch.where(before > 0, back, 0.0))
            vectors.append(layers[0].weight.T @ vectors[-1])
        pairs = zip(*(vectors[::-1] for vectors in arrived), strict=True)
        expected = torch.stack([torch.cosine_similarity(a, b, dim=0).abs() for a, b in pairs])
        assert_close(scores[row], expected.detach().float())


def watched_directions(model, inputs, context):
    """What arrives at the logits of a model, seen by a hook of the test's own."""
    seen = []

    def watch(module, arguments, output):
        output.register_hook(lambda gradient: seen.append(gradient.clone()))

    handle = model.register_forward_hook(watch)
    cosine_convergence(model, inputs, context)
    handle.remove()
    return torch.stack(seen, 1)


def test_directions_are_random_and_keyed_by_sample():
    model, index = network(), torch.arange(600)
    context = Context.create(index, 1)
    _, scores = cosine_convergence(model, images(600), context)
    assert_close(scores[:, -1].square().mean().item(), 1 / 6, rtol=0.15, atol=0)
    _, part = cosine_convergence(model, images(600)[7:10], context.select(slice(7, 10)))
    assert_close(part, scores[7:10])
    _, other = cosine_convergence(model, images(), Context.create(index[:4], 2))
    assert not torch.allclose(other, scores[:4])
    limited = Context.create(index[:4], 1, max_rows=1)
    assert_close(cosine_convergence(model, images(), limited)[1], scores[:4])


@pytest.mark.parametrize("build", [CNN, LeNet, lambda: MLP(hidden=(60,) * 6)], ids=["cnn", "lenet", "mlp"])
def test_guided_backpropagation_converges_and_the_gradient_does_not(build):
    torch.manual_seed(0)
    model = build()
    places, gradient = cosine_convergence(model, images(8))
    _, guided = cosine_convergence(model, images(8), rule="guided_backprop")
    assert len(places) == len(parameter_blocks(model, images())) + 1
    assert torch.equal(guided[:, -1], gradient[:, -1])
    means = guided.mean(0)
    assert (means[:-1] > means[1:]).all(), "from the output down"
    assert means[0] > 0.85
    assert gradient.mean(0)[0] < 0.5


class Branching(nn.Module):
    """Blocks that return no tensor, or not a row a sample; a layer that runs twice, and one that leads nowhere."""

    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.randn(8, 3))
        self.rows, self.twice, self.nowhere = nn.Linear(28, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.pixels = nn.Linear(28, 8)
        self.place = nn.Linear(1, 8)

    def forward(self, inputs):
        tokens = self.rows(inputs[:, 0]) + self.place(inputs.new_ones(1, 1, 1))
        tokens = torch.relu(self.twice(tokens))
        tokens = self.attention(tokens, tokens, tokens)[0] + self.pixels(inputs[:, 0].flatten(0, 1)).view_as(tokens)
        self.nowhere(tokens)
        return torch.relu(self.twice(tokens)).mean(1) @ self.raw


def test_places_are_modules_that_return_a_row_a_sample():
    torch.manual_seed(0)
    model = Branching()
    places, scores = untouched(model, lambda: cosine_convergence(model, images()))
    assert places == ("input", "rows", "twice", "nowhere")
    assert scores[:, :3].isfinite().all()
    assert scores[:, 3].isnan().all()


def test_a_module_that_runs_twice_is_seen_where_it_runs_first():
    torch.manual_seed(0)
    first, twice, last = nn.Linear(784, 9), nn.Linear(9, 9), nn.Linear(9, 5)
    shared = nn.Sequential(nn.Flatten(), first, twice, nn.ReLU(), twice, last)
    copied = nn.Sequential(nn.Flatten(), first, twice, nn.ReLU(), copy.deepcopy(twice), last)
    places, scores = cosine_convergence(shared, images())
    assert places == ("input", "1", "2", "5")
    assert_close(scores, cosine_convergence(copied, images())[1][:, [0, 1, 2, 4]])


@pytest.mark.parametrize("rule", ["gradient", "guided_backprop"])
def test_operations_in_place_do_not_change_what_is_seen(rule):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 5))
    in_place = nn.Sequential(*(nn.ReLU(inplace=True) if isinstance(part, nn.ReLU) else part for part in plain))
    (places, found), (expected_places, expected) = (
        cosine_convergence(m, images(), rule=rule) for m in (in_place, plain)
    )
    assert places == expected_places
    assert_close(found, expected)


def test_frozen_models_and_inference_mode():
    model = network()
    expected = cosine_convergence(model, images())[1]
    with torch.inference_mode():
        x = images()
        found = cosine_convergence(model.requires_grad_(False), x)[1]
    assert_close(found, expected)


# Bad input


def test_bad_input(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model, short = network(), Context.create(torch.arange(3))
    calls = (
        lambda x, context: efficient_mprt(model, x, 0, Gradient(), context),
        lambda x, context: random_logit(model, x, 0, Gradient(), context, COSINE),
        lambda x, context: cosine_convergence(model, x, context),
    )
    for call in calls:
        with pytest.raises(ValueError, match="`context` must have one entry for each of the 4 samples"):
            call(images(), short)
        with pytest.raises(TypeError, match="`inputs` must be a floating-point"):
            call(images().long(), None)
    with pytest.raises(ValueError, match="`num_bins` must be at least 1, got 0"):
        efficient_mprt(model, images(), 0, Gradient(), num_bins=0)
    with pytest.raises(ValueError, match="at least two outputs for a random logit, got 1"):
        random_logit(network(classes=1), images(), 0, Gradient(), similarities=COSINE)
    with pytest.raises(ValueError, match="`rule` must be one of 'gradient', 'guided_backprop'"):
        cosine_convergence(model, images(), rule="zplus")
    with pytest.raises(ValueError, match="`model` must have at least two outputs, or all directions"):
        cosine_convergence(nn.Sequential(nn.Flatten(), nn.Linear(784, 1)), images())
    with pytest.raises(ValueError, match="must apply its ReLUs as"):
        cosine_convergence(nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), images(), rule="guided_backprop")
