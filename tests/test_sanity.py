"""The randomization checks: cells, floors, verdicts, interruptions, several processes."""

import json
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import (
    Explainer,
    Gradient,
    InputXGradient,
    RandomAttribution,
    SobelEdges,
    with_controls,
)
from lightning_xai.fingerprints import fingerprint
from lightning_xai.functional.random import fold_in, fold_in_int, root_keys
from lightning_xai.networks import MLP
from lightning_xai.reporting.tables import write_sanity
from lightning_xai.results.sanity import Cell, CellKey
from lightning_xai.results.sanity_means import parts_of_floor
from lightning_xai.sanity import checks
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.checks import (
    Subject,
    examine_model,
    floor_cells,
    original_maps,
    original_state,
    parameter_cells,
    with_usable_similarities,
)
from lightning_xai.sanity.examine import examine as examine_subject, invariance_cells, paper_methods
from lightning_xai.sanity.randomization import Randomization, evidence, parameter_blocks, randomize
from lightning_xai.sanity.similarity import SIMILARITIES, foreground_mask, named_similarities, spearman, ssim
from lightning_xai.sanity.verdicts import invariance_verdict, randomization_verdict
from lightning_xai.statistics.intervals import mean_interval

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
METHODS = with_controls({"gradient": Gradient(), "noise": lx.noise_grad(num_draws=2)})


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 8), nn.ReLU()]
        return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(8, 4))


HOW = {field.name for field in fields(Randomization)}


def examine(examined, *args, **options):
    """With those options among the others that the record of randomization takes."""
    how = {name: options.pop(name) for name in HOW & options.keys()}
    return examine_subject(replace(examined, randomization=Randomization(**how)), *args, **options)


def subject(model=None, methods=METHODS, **options):
    similarities = {"spearman": spearman, "ssim": ssim}
    settings = {"bounds": (0.0, 1.0), "labels": LABELS, "batch_size": 4} | options
    return Subject(model or net(), IMAGES, LABELS, torch.arange(6), methods, similarities, **settings)


def twin(number, accuracy=1.0):
    model = net()
    return randomize(model, parameter_blocks(model, IMAGES), seed=number), accuracy


def run(examined=None, cells=None, **options):
    examined = replace(examined or subject(), randomization=Randomization(**options))
    cells = cells or Cells(None, {})
    return parameter_cells(examined, original_maps(examined, cells), cells)


def by_key(cells):
    return {cell.key: cell for cell in cells}


def same_cells(actual, expected):
    assert by_key(actual).keys() == by_key(expected).keys()
    for key, cell in by_key(expected).items():
        for name, values in cell.scores.items():
            np.testing.assert_array_equal(by_key(actual)[key].scores[name], values)
        np.testing.assert_array_equal(by_key(actual)[key].maps, cell.maps)


# What is measured


def test_each_cell_is_the_similarity_of_maps_explained_by_hand():
    model = net()
    cells, states = run(subject(model), repeats=2)
    blocks = parameter_blocks(model, IMAGES)
    assert [s.block for s in states] == [name for name in ("7", "4", "0") for _ in range(2)]
    for cell in cells:
        key = cell.key
        changed = randomize(model, blocks[2 - key.step :], "own", fold_in_int(0, key.repeat), "recalibrate", IMAGES)
        options = {"bounds": (0.0, 1.0), "index": torch.arange(6)}
        original = lx.explain(model, IMAGES, LABELS, METHODS[key.method], **options)
        maps = lx.explain(changed, IMAGES, LABELS, METHODS[key.method], **options)
        assert_close(torch.from_numpy(cell.scores["spearman"]), spearman(original, maps), rtol=0, atol=1e-5)
        assert_close(torch.from_numpy(cell.scores["ssim"]), ssim(original, maps), rtol=0, atol=1e-5)
        assert cell.maps.shape == ((4, 8, 8) if key.repeat == 0 else (0, 0, 0))


def test_controls_do_not_notice_and_gradients_do():
    cells, _ = run()
    scores = {name: [c.scores["spearman"] for c in cells if c.key.method == name] for name in METHODS}
    assert np.min(scores["edges"]) == pytest.approx(1, abs=1e-6)
    assert np.min(scores["random"]) == pytest.approx(1, abs=1e-6)
    assert np.mean(scores["gradient"]) < 0.5


def test_models_lose_their_knowledge_in_the_evidence():
    model = net()
    labels = model.eval()(IMAGES).argmax(1)
    _, states = run(subject(model, labels=labels), orderings=("full",), repeats=5)
    assert np.mean([state.accuracy for state in states]) < 1
    assert len({state.entropy for state in states}) == 5
    assert all(0 < state.entropy <= math.log(4) for state in states)


def test_repredicted_classes_are_those_of_the_changed_model():
    model = net()
    cells, _ = run(subject(model, methods={"g": Gradient()}, repredict=True), orderings=("full",), repeats=1)
    changed = randomize(model, parameter_blocks(model, IMAGES), "own", fold_in_int(0, 0), "recalibrate", IMAGES)
    predicted = [m.eval()(IMAGES).argmax(1) for m in (model, changed)]
    maps = [Gradient()(m, IMAGES, t) for m, t in zip((model, changed), predicted, strict=True)]
    assert not torch.equal(*predicted)
    assert_close(torch.from_numpy(cells[0].scores["spearman"]), spearman(*maps), rtol=0, atol=1e-5)


def test_the_floor_is_the_mean_over_other_images_and_random_maps():
    examined = subject(methods={"gradient": Gradient()})
    maps = original_maps(examined, Cells(None, {}))["gradient"]
    floors = {cell.key.variant: cell.scores for cell in floor_cells(examined, {"gradient": maps})}
    for i in range(6):
        others = [spearman(maps[i : i + 1], maps[j : j + 1]).item() for j in range(6) if j != i]
        assert floors["different_images"]["spearman"][i] == pytest.approx(np.mean(others), abs=1e-6)
    assert abs(floors["random_maps"]["spearman"].mean()) < 0.2
    assert not np.allclose(floors["random_maps"]["spearman"], 0)


def test_a_map_without_any_value_leaves_the_floor_to_the_others():
    maps = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    maps[2] = 0
    (different, _) = floor_cells(subject(methods={"m": Gradient()}), {"m": maps})
    assert np.isnan(different.scores["spearman"][2])
    assert np.isfinite(np.delete(different.scores["spearman"], 2)).all()


def sized(side, bounds=(0.0, 1.0), preset="paper"):
    """A subject of black images with a dot, and all similarities."""
    images = torch.zeros(2, 1, side, side)
    images[..., 0, 0] = 0.5
    target = torch.zeros(2, dtype=torch.int64)
    return Subject(net(), images, target, torch.arange(2), METHODS, named_similarities(preset), bounds)


@pytest.mark.parametrize(
    ("examined", "left_out"),
    [
        (sized(28), set()),
        (sized(28, None), {"spearman_foreground"}),
        (sized(28, (-1.0, 1.0)), {"spearman_foreground"}),  # no pixel is black
        (sized(8, preset="notebook"), {"ssim", "ssim_absolute"}),
        (sized(5), {"hog"}),
        (sized(4), {"hog", "ssim", "ssim_absolute"}),
    ],
)
def test_similarities_are_those_that_the_images_admit(examined, left_out):
    subject, deciding = with_usable_similarities(examined, None)
    assert deciding == ("spearman" if "ssim" in left_out else "ssim")
    assert subject.similarities == {name: examined.similarities[name] for name in SIMILARITIES if name not in left_out}


@pytest.mark.parametrize(
    ("examined", "similarity", "message"),
    [
        (sized(5), "hog", r"'ssim_absolute'; got 'hog', which .* do not admit: .*maps of less than 6 pixels have no"),
        (sized(8, preset="notebook"), "ssim", r"got 'ssim', .* at least 11 x 11 pixels for the window of SSIM"),
        (sized(8, None), "spearman_foreground", r"not black, but the data have no `bounds`, which"),
        (sized(8), "mse", r"`similarity` must be one of 'spearman', 'spearman_absolute', .*'hog'; got 'mse'$"),
    ],
)
def test_a_similarity_that_the_images_do_not_admit_is_refused_with_the_reason(tmp_path, examined, similarity, message):
    with pytest.raises(ValueError, match=message):
        examine(examined, ("parameters",), similarity, folder=tmp_path / "cells")
    assert not (tmp_path / "cells").exists()


def test_the_foreground_is_found_once():
    examined = subject()
    assert examined.foreground is examined.foreground
    assert torch.equal(examined.foreground, foreground_mask(IMAGES, 0.0))
    assert subject(bounds=None).foreground is None


# What is left alone


class Failing(Explainer):
    """Raises when it sees a model that is not the first one."""

    def __init__(self, after):
        self.calls, self.after = 0, after

    def attribute(self, model, inputs, target, context):
        self.calls += 1
        if self.calls > self.after:
            raise RuntimeError("no more")
        return inputs


@contextmanager
def left_as_it_was(model):
    """The model, whose modes and flags are mixed, and the random states (Python's own is drawn from by beartype)."""
    torch.manual_seed(5)
    model.train()
    model[0].eval()
    model[0].bias.requires_grad_(False)
    model[4].bias.grad = torch.ones(8)
    values, before = {name: value.clone() for name, value in model.state_dict().items()}, state_of(model)
    yield
    assert state_of(model) == before
    assert_close(model.state_dict(), values, rtol=0, atol=0)


def state_of(model):
    return {
        "modes": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "grad_enabled": torch.is_grad_enabled(),
    }


# Networks that tell no images apart, and maps with NaN


def deep():
    """Narrow convolutions and batch normalization, whose statistics are those of weights larger than initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3, padding=1)]
        for _ in range(12):
            layers += [nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 4))
    for layer in model[:-1]:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 5
    return randomize(model, (), batch_norm="recalibrate", images=IMAGES)


def verdicts_of(model, checks, methods=METHODS, **options):
    options = {"repeats": 2, "similarity": "spearman"} | options
    return examine(subject(model, methods), checks, **options).verdicts


SIMPLE = {"gradient": Gradient(), "edges": SobelEdges()}


@pytest.mark.slow
def test_a_network_without_a_signal_gets_no_verdict():
    verdicts = verdicts_of(deep(), ("parameters", "efficient"), SIMPLE, batch_norm="keep")
    assert [verdict.check for verdict in verdicts] == ["parameters"] * 2 + ["efficient"] * 2
    for verdict in verdicts:
        number = 4 if verdict.check == "parameters" else 2  # repeats at each step that decides
        assert verdict.outcome == "INCONCLUSIVE"
        assert f"No verdict: {number} of the {number} random networks" in verdict.reason
        assert 'take `batch_norm="recalibrate"`, or `initialization="permute"`' in verdict.reason


@pytest.mark.slow
def test_recalibrated_as_by_default_it_has_a_signal_and_gets_one():
    for verdict in verdicts_of(deep(), ("parameters", "efficient"), SIMPLE):
        assert "No verdict" not in verdict.reason
    states = run(subject(deep(), SIMPLE), repeats=1)[1]
    assert min(state.spread / state.activation_scale for state in states) > 0.01


@pytest.mark.parametrize("check", ["parameters", "data", "invariance", "efficient", "random_logit"])
def test_of_a_network_that_says_the_same_of_all_images_nothing_can_be_found_out(check):
    model = net().eval()
    nn.init.zeros_(model[-1].weight)
    for verdict in verdicts_of(model, (check,), repeats=1, make_twin=twin):
        assert verdict.outcome == "INCONCLUSIVE"
        assert "No verdict: the network itself has the same logits for all samples" in verdict.reason


@dataclass(frozen=True)
class Undefined(Explainer):
    """A gradient with a NaN, or an infinity, for some of the samples (by their keys)."""

    bad: float = math.nan
    rows: tuple[int, ...] = tuple(range(6))

    def attribute(self, model, inputs, target, context):
        maps = Gradient().attribute(model, inputs, target, context)
        maps[torch.isin(context.keys, root_keys(0, torch.tensor(self.rows))), 0, 2, 3] = self.bad
        return maps


@pytest.mark.filterwarnings("ignore:`model` gives maps with NaN or infinite values")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("check", ["parameters", "data", "invariance", "efficient", "random_logit"])
def test_maps_that_are_not_finite_have_no_score_and_no_verdict(check, bad):
    (verdict,) = verdicts_of(net(), (check,), {"bad": Undefined(bad)}, repeats=1, make_twin=twin)
    assert (verdict.outcome, math.isnan(verdict.mean)) == ("INCONCLUSIVE", True)
    assert re.search(r"undefined for (\d+) of \1 maps|6 of 6 maps undefined", verdict.reason)


@pytest.mark.filterwarnings("ignore:`model` gives maps with NaN or infinite values")
def test_one_such_map_leaves_the_others_scores():
    methods = {"bad": Undefined(rows=(4,)), "good": Gradient()}
    cells, _ = run(subject(methods=methods), orderings=("full",), repeats=1)
    bad, good = (cell.scores for cell in cells)
    for name in bad:
        assert np.isnan(bad[name]).nonzero()[0].tolist() == [4]
        np.testing.assert_allclose(np.delete(bad[name], 4), np.delete(good[name], 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("check", ["parameters", "invariance", "efficient", "random_logit"])
def test_a_network_with_logits_that_are_not_numbers_is_refused(check):
    model = net()
    with torch.no_grad():
        model[-1].bias[2] = math.nan
    with pytest.raises(ValueError, match=r"`model` must give logits that are numbers, but 6 of 6 samples have a NaN"):
        verdicts_of(model, (check,))


CHECKS = ("parameters", "data", "invariance", "efficient", "random_logit")


@pytest.mark.parametrize("batch_norm", ["keep", "recalibrate"])
def test_examining_leaves_the_model_and_the_random_states_as_they_were(batch_norm):
    model = net()
    with left_as_it_was(model):
        examine(subject(model), CHECKS, make_twin=twin, repeats=2, batch_norm=batch_norm)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("after", [1, 3])  # batches: amid the trained model's maps, and amid the check
def test_also_after_an_error(check, after):
    model = net()
    methods = {**METHODS, "failing": Failing(after)}
    with left_as_it_was(model), pytest.raises(RuntimeError, match="no more"):
        examine(subject(model, methods), (check,), make_twin=twin, repeats=2)


class Watched(nn.Flatten):
    """Notes in what arithmetic it runs."""

    autocast: ClassVar[list[bool]] = []

    def forward(self, x):
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return super().forward(x)


@pytest.mark.parametrize(("precision", "half"), [("32-true", {False}), ("bf16-mixed", {True})])
@pytest.mark.parametrize("repredict", [False, True])
def test_all_models_run_in_the_precision_but_for_invariance(monkeypatch, precision, half, repredict):
    model = nn.Sequential(Watched(), nn.Linear(64, 4))
    examined = subject(model, {"g": Gradient()}, precision=precision, repredict=repredict)
    cells = Cells(None, {})
    monkeypatch.setattr(Watched, "autocast", [])
    originals = original_maps(examined, cells)
    original_state(examined, cells)
    changed = nn.Sequential(Watched(), nn.Linear(64, 4))
    examine_model(examined, originals, cells, CellKey("data", "labels", 0, "", 0, ""), lambda: changed)
    assert set(Watched.autocast) == half
    assert len(Watched.autocast) >= 6, "two batches of maps and one of logits for each of two models"
    Watched.autocast.clear()
    invariance_cells(examined, cells, 1.0)
    assert set(Watched.autocast) == {False}


def test_maps_are_those_of_explain_in_the_precision():
    """Bit for bit, as `explain` is given the same batches."""
    for name, method in METHODS.items():
        explain = partial(lx.explain, net(), method=method, bounds=(0.0, 1.0))
        maps = {p: subject(precision=p).attributions(net(), method) for p in ("32-true", "bf16-mixed")}
        for precision, found in maps.items():
            parts = [
                explain(IMAGES[rows], LABELS[rows], index=torch.arange(6)[rows], precision=precision)
                for rows in (slice(0, 4), slice(4, 6))
            ]
            assert_close(found, torch.cat(parts), rtol=0, atol=0)
        assert_close(subject().attributions(net(), method), maps["32-true"], rtol=0, atol=0)
        assert spearman(*maps.values()).min() > 0.97, name


def test_results_of_another_precision_are_not_mixed(tmp_path):
    run_once = partial(examine, checks=("parameters",), repeats=1, folder=tmp_path)
    run_once(subject(methods={"g": Gradient()}))
    with pytest.raises(ValueError, match="results of other settings: precision was '32-true', is 'bf16-mixed'"):
        run_once(subject(methods={"g": Gradient()}, precision="bf16-mixed"))


# Interruptions


class Counting(Explainer):
    """The gradient, counting how often it is asked; stops at a given call."""

    def __init__(self, stop=None):
        self.calls, self.stop = 0, stop

    def attribute(self, model, inputs, target, context):
        self.calls += 1
        if self.stop is not None and self.calls > self.stop:
            raise KeyboardInterrupt
        return Gradient().attribute(model, inputs, target, context)


def test_interrupted_work_goes_on_without_repeating_what_is_finished(tmp_path):
    whole, states = run(subject(methods={"g": Counting(), "e": SobelEdges()}), repeats=2)
    stopping = Counting(stop=7)  # 2 batches a cell: the originals and two models are finished
    with pytest.raises(KeyboardInterrupt):
        run(subject(methods={"g": stopping, "e": SobelEdges()}), Cells(tmp_path, {}), repeats=2)
    again = Counting()
    cells, found = run(subject(methods={"g": again, "e": SobelEdges()}), Cells(tmp_path, {}), repeats=2)
    assert again.calls == 2 * (1 + 6) - 6
    same_cells(cells, whole)
    assert found == states
    finished = Counting()
    same_cells(run(subject(methods={"g": finished, "e": SobelEdges()}), Cells(tmp_path, {}), repeats=2)[0], whole)
    assert finished.calls == 0


@pytest.mark.slow
def test_no_model_is_made_for_finished_cells(tmp_path, monkeypatch):
    run(cells=Cells(tmp_path, {}))
    monkeypatch.setattr(Randomization, "model", lambda *_: pytest.fail("made again"))
    run(cells=Cells(tmp_path, {}))


def test_a_damaged_cell_is_computed_again(tmp_path):
    whole, _ = run(cells=Cells(tmp_path, {}))
    for path in sorted(tmp_path.glob("*.pt"))[:3]:
        path.write_bytes(path.read_bytes()[:100])
    same_cells(run(cells=Cells(tmp_path, {}))[0], whole)


def test_a_folder_with_results_of_other_settings_is_refused_and_kept(tmp_path):
    Cells(tmp_path, {"seed": 0, "weights": "a", "same": 1})
    with pytest.raises(
        ValueError, match=r"results of other settings: seed was 0, is 1; weights was 'a', is 'b'. Choose"
    ):
        Cells(tmp_path, {"seed": 1, "weights": "b", "same": 1})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 0, "weights": "a", "same": 1}
    Cells(tmp_path, {"seed": 0, "weights": "a", "same": 1})


def test_of_other_settings_that_are_long_only_what_differs_is_told(tmp_path):
    methods = {name: f"{name}({'x=1, ' * 100})" for name in ("a", "b")}
    rest = {str(number): number for number in range(6)}
    Cells(tmp_path, {"methods": methods, "samples": [*range(500)], **rest})
    methods["b"] = methods["b"].replace("x=1, )", "x=2, )")
    other = {"methods": {**methods, "c": "c()"}, "samples": [*range(499)], **dict.fromkeys(rest, -1)}
    with pytest.raises(ValueError, match="other settings") as refused:
        Cells(tmp_path, other)
    assert "; 4 was 4, is -1; and 4 more. Choose" in str(refused.value)
    with pytest.raises(ValueError, match="other settings") as refused:
        Cells(tmp_path, {**other, **rest})
    text = str(refused.value)
    same = "x=1, " * 5
    assert f"methods.b was ...1, {same}x=1, )', is ...1, {same}x=2, )'; methods.c was absent, is 'c()'; samp" in text
    assert "samples was ..., 493, 494, 495, 496, 497, 498, 499], is ..., 493, 494, 495, 496, 497, 498]. Choo" in text
    assert len(text) < 600


def test_method_names_become_file_names(tmp_path):
    cells = Cells(tmp_path, {})
    assert cells.once("a/b: c", lambda: {"x": torch.ones(1)})["x"].item() == 1
    assert cells.once("a/b: c", lambda: pytest.fail("computed again"))["x"].item() == 1
    assert (tmp_path / "a_b__c.pt").exists()


# Verdicts


def cell(check, values, variant="cascading_from_top", step=0, repeat=0, method="m"):
    return Cell(CellKey(check, variant, step, "", repeat, method), {"ssim": np.array(values, dtype=np.float32)})


def judged(values, different=0.3, random=0.0, check="parameters", **options):
    floors = [
        cell("floor", np.broadcast_to(different, 8), "different_images"),
        cell("floor", np.broadcast_to(random, 8), "random_maps"),
    ]
    changed = [cell(check, v, repeat=r) for r, v in enumerate(values)]
    return randomization_verdict(check, "m", [*floors, *changed], "ssim", **options)


SPREAD = np.linspace(-0.05, 0.05, 8)


@pytest.mark.parametrize(
    ("mean", "outcome", "phrase"),
    [
        (
            0.1,
            "PASS",
            r"similarity 0.100 \[.*\] is not above that of different images, 0.300 \+ 0.035, over 8",
        ),
        (0.5, "FAIL", r"is above that of different images"),
        (
            0.33,
            "INCONCLUSIVE",
            r"is not clearly apart from .* of 3 networks\. Most .* that of the samples: more",
        ),
    ],
)
def test_the_verdict_compares_with_the_floor_and_a_margin(mean, outcome, phrase):
    verdict = judged([mean + SPREAD, mean - SPREAD, mean + SPREAD])
    assert verdict.outcome == outcome
    assert (verdict.threshold, verdict.margin) == (pytest.approx(0.3), pytest.approx(0.05 * 0.7))
    assert verdict.networks == 3
    assert verdict.low < verdict.mean < verdict.high
    assert re.search(phrase, verdict.reason)


def test_the_interval_is_that_of_the_difference_beside_the_floor():
    """Networks and samples without effects of their own: that of the floor's samples, by the jackknife."""
    floor = 0.3 + SPREAD
    verdict = judged([np.full(8, 0.2)] * 3, different=floor)
    ends = 0.2 + stats.t.ppf([0.05, 0.95], 7) * 2 * 7 / 6 * floor.std(ddof=1) / math.sqrt(8)
    assert (verdict.low, verdict.high) == pytest.approx(tuple(ends), abs=1e-6)
    verdict = judged([np.full(8, 0.2)] * 3, different=0.0, random=floor)
    ends = 0.2 + stats.t.ppf([0.05, 0.95], 7) * floor.std(ddof=1) / math.sqrt(8)
    assert (verdict.low, verdict.high) == pytest.approx(tuple(ends), abs=1e-6)


def test_the_margin_is_an_option_and_none_is_the_floor_itself():
    values = [0.33 + SPREAD / 10] * 3
    assert [judged(values, margin=m).outcome for m in (0.0, 0.02, 0.05, 0.1)] == ["FAIL", "FAIL", "PASS", "PASS"]


def test_the_greater_floor_counts():
    values = [0.2 + SPREAD] * 3
    assert judged(values, different=0.1, random=0.3).outcome == "PASS"
    assert "random maps, 0.300" in judged(values, different=0.1, random=0.3).reason


def test_as_alike_as_the_floor_is_a_pass():
    assert judged([np.full(8, 0.3)] * 3).outcome == "PASS"


@pytest.mark.parametrize(("check", "option"), [("parameters", "repeats"), ("data", "num_twins")])
@pytest.mark.parametrize(("number", "count"), [(1, "1 network"), (2, "2 networks")])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_fewer_than_three_networks_give_no_verdict_and_the_option_is_named(check, option, number, count, value):
    verdict = judged([np.full(8, value)] * number, check=check)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reason.endswith(f"8 samples of {count}. A verdict takes 3 networks or more (`{option}`).")


def test_the_unit_of_another_class_is_the_sample():
    (found,) = {judged([value + SPREAD], check="random_logit").outcome for value in (0.2, -0.9)}
    assert found == "PASS"
    verdict = judged([0.3 + SPREAD], check="random_logit")
    assert (verdict.outcome, verdict.margin) == ("INCONCLUSIVE", 0)
    assert (verdict.low, verdict.high) == pytest.approx(mean_interval((0.3 + SPREAD), 0.95), abs=1e-6)
    assert verdict.reason.endswith("over 8 samples of the one network. More `num_samples` may tell.")


def test_networks_that_disagree_widen_the_interval():
    close, apart = judged([SPREAD] * 3), judged([0.2 + SPREAD, SPREAD, -0.2 + SPREAD])
    assert apart.high - apart.low > 3 * (close.high - close.low)
    verdict = judged([0.5 + SPREAD, 0.3 + SPREAD, 0.1 + SPREAD])
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reason.endswith("Most of the uncertainty is that of the networks: more `repeats`.")


def test_undefined_similarities():
    few = np.where(np.arange(8) < 3, np.nan, 0.1 + SPREAD)
    assert judged([few] * 3).outcome == "PASS"
    most = np.where(np.arange(8) < 5, np.nan, 0.1)
    verdict = judged([most] * 3)
    assert verdict.outcome == "INCONCLUSIVE"
    expected = "the similarity is undefined for 15 of 24 maps. Maps that are constant, or not finite, have none."
    assert verdict.reason.endswith(expected)
    assert judged([np.full(8, np.nan)] * 3).outcome == "INCONCLUSIVE"
    nothing = np.full(8, np.nan)
    assert judged([few, few, few, nothing]).networks == 3
    assert "(17 of 32 maps undefined)" not in judged([few] * 3).reason
    assert "over 8 samples of 3 networks (9 of 24 maps undefined)." in judged([few] * 3).reason
    assert judged([few, few, nothing]).outcome == "INCONCLUSIVE"
    alone = np.where(np.arange(8) == np.arange(3)[:, None], 0.1, np.nan)  # each network has one sample
    assert judged(list(alone)).outcome == "INCONCLUSIVE"
    assert judged([0.1 + SPREAD, *alone[1:]]).networks == 1


def test_the_mean_is_that_of_the_maps_that_have_a_floor_and_lies_in_its_interval():
    values = [np.where(np.arange(8) < 4, 0.05, 0.9) + SPREAD / 10] * 3
    verdict = judged(values, different=np.where(np.arange(8) < 4, 0.1, np.nan), random=np.full(8, np.nan))
    assert verdict.mean == pytest.approx(0.05, abs=0.01)
    assert verdict.low < verdict.mean < verdict.high


@pytest.mark.parametrize("number", [1, 2])
def test_fewer_than_three_samples_have_no_interval_of_a_difference(number):
    floor = cell("floor", np.linspace(0.1, 0.2, number), "different_images")
    changed = [cell("parameters", np.zeros(number), repeat=repeat) for repeat in range(5)]
    verdict = randomization_verdict("parameters", "m", [floor, *changed], "ssim")
    assert (verdict.outcome, math.isnan(verdict.low)) == ("INCONCLUSIVE", True)
    assert verdict.reason.endswith("A verdict takes 3 samples or more (`num_samples`).")
    assert "nan" not in verdict.reason
    assert verdict.threshold == pytest.approx(0.15 if number == 2 else 0.1)


def test_the_level_of_a_wrong_fail_is_split_over_the_steps_that_can_fail():
    floors = [cell("floor", np.full(8, 0.3), "different_images")]
    alone = [cell("parameters", 0.5 + SPREAD + r / 50, repeat=r) for r in range(3)]
    both = [*alone, *(cell("parameters", 0.9 + SPREAD + r / 50, step=1, repeat=r) for r in range(3))]
    one = randomization_verdict("parameters", "m", [*floors, *alone], "ssim", alpha=0.1)
    two = randomization_verdict("parameters", "m", [*floors, *both], "ssim", alpha=0.2)
    assert two.mean - two.low == pytest.approx(one.mean - one.low)
    assert two.high - two.mean < one.high - one.mean


FLOORS = [cell("floor", np.full(8, 0.3), "different_images"), cell("floor", np.zeros(8), "random_maps")]


def cascade(*values, variant="cascading_from_top"):
    return [cell("parameters", np.full(8, v), variant, step, r) for step, v in enumerate(values) for r in range(3)]


@pytest.mark.parametrize(
    ("values", "outcome", "mean"),
    [
        ((0.9, 0.9, 0.1, 0.0), "PASS", 0.1),  # what went before does not count
        ((0.9, 0.9, 0.5, 0.0), "FAIL", 0.5),  # shows the features of the first block
        ((0.0, 0.0, 0.1, 0.5), "FAIL", 0.5),
        ((0.1,), "PASS", 0.1),  # a model of one block
    ],
)
def test_the_last_two_steps_of_a_cascade_from_the_output_decide(values, outcome, mean):
    verdict = randomization_verdict("parameters", "m", [*FLOORS, *cascade(*values)], "ssim")
    assert (verdict.outcome, pytest.approx(mean)) == (outcome, verdict.mean)


def test_of_several_orderings_the_cascade_from_the_output_decides_and_of_others_the_last_step():
    bottom, alone = cascade(0.9, 0.9, variant="cascading_from_bottom"), cascade(0.9, 0.1, variant="independent")
    full, top = cascade(0.1, variant="full"), cascade(0.9, 0.9)
    for steps, outcome in (([*bottom, *alone, *full], "PASS"), ([*full, *top], "FAIL"), (alone, "PASS")):
        assert randomization_verdict("parameters", "m", [*FLOORS, *steps], "ssim").outcome == outcome


def test_cells_of_other_methods_and_checks_do_not_count():
    other = [
        cell("parameters", np.full(8, 0.99), method="other", step=5),
        *(cell("data", np.full(8, 0.99), "labels", repeat=r) for r in range(3)),
    ]
    cells = [*FLOORS, *other, *cascade(0.1, 0.1)]
    assert randomization_verdict("parameters", "m", cells, "ssim").outcome == "PASS"
    verdict = randomization_verdict("data", "m", cells, "ssim")
    assert verdict.outcome == "FAIL"
    assert verdict.reason.startswith("Trained on random labels: similarity 0.990")


@pytest.mark.parametrize(
    ("value", "outcome"), [(1.0, "PASS"), (0.9995, "PASS"), (0.9, "FAIL"), (np.nan, "INCONCLUSIVE")]
)
def test_invariance_asks_for_the_same_map(value, outcome):
    assert invariance_verdict("m", [cell("invariance", np.full(8, value), "shift")], "ssim").outcome == outcome


def test_the_floors_uncertainty_is_that_of_other_samples():
    """The mean over pairs of a similarity that samples and pairs vary, in samples drawn anew: U-statistics."""
    generator = np.random.default_rng(0)
    for number in (3, 5, 8, 16, 40):
        means, variances = [], []
        for _ in range(600):
            effect, parts = generator.normal(size=number), []
            for shift in range(1, min(checks.NUM_SHIFTS, number - 1) + 1):
                parts.append((shift, effect + np.roll(effect, shift)))
            values = parts_of_floor(cell("floor", checks._of_both(parts), "different_images"), "ssim")
            means.append(values.mean())
            variances.append(values.var(ddof=1) / number)
        assert np.mean(variances) == pytest.approx(np.var(means), rel=0.25), number


# All together


def test_examine_judges_every_method_by_every_check(tmp_path):
    methods = {
        "gradient": Gradient(),
        "times_input": InputXGradient(),
        "random": RandomAttribution(),
        "edges": SobelEdges(),
    }
    model = net()
    report = examine(subject(model, methods), similarity="ssim", make_twin=partial(twin, accuracy=0.96), repeats=3)
    outcome = {(v.check, v.method): v.outcome for v in report.verdicts}
    assert len(outcome) == 3 * 4
    for check in ("parameters", "data"):
        assert outcome[check, "edges"] == outcome[check, "random"] == "FAIL"
    knowledge = evidence(model, IMAGES, LABELS)
    assert (report.models[0].check, report.models[0].accuracy) == ("original", knowledge.accuracy)
    assert report.models[0].entropy == knowledge.entropy
    assert len(report.models) == 1 + 3 * 3 + 3
    assert {(v.check, v.networks) for v in report.verdicts} == {("parameters", 3), ("data", 3), ("invariance", 1)}
    paths = write_sanity(report, tmp_path)
    assert [path.name for path in paths] == ["verdicts.csv", "similarities.csv", "models.csv"]
    lines = (tmp_path / "similarities.csv").read_text().splitlines()
    assert lines[0] == "check,variant,step,block,repeat,method,similarity,sample,value"
    assert len(lines) == 1 + 6 * sum(len(c.scores) for c in report.cells)
    assert report.images.min() >= 0
    assert report.images.max() <= 1


def test_a_twin_that_does_not_know_its_labels_gets_no_verdict():
    examined = subject(methods={"edges": SobelEdges()})
    report = examine(examined, ("data",), make_twin=lambda n: twin(n, 1.0 if n else 0.61))
    assert [v.outcome for v in report.verdicts] == ["INCONCLUSIVE"]
    assert report.verdicts[0].reason.startswith("Twin 0 of 3, trained on random labels, knows only 61.0 % of")


def test_twins_that_learned_nothing_give_no_verdict_and_accuracies_are_shares():
    def dead(number):
        model, _ = twin(number)
        nn.init.zeros_(model[-1].weight)
        return model, 0.97

    examined = subject(methods={"edges": SobelEdges()})
    (verdict,) = examine(examined, ("data",), make_twin=dead).verdicts
    assert verdict.outcome == "INCONCLUSIVE"
    assert "No verdict: 3 of the 3 twins that decide have the same logits" in verdict.reason
    assert "train with another seed" in verdict.reason
    for wrong in (97.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=f"`make_twin` must give an accuracy between 0 and 1 .* got {wrong}"):
            examine(examined, ("data",), make_twin=partial(twin, accuracy=wrong))


def test_twins_that_are_the_same_network_are_refused():
    examined = subject(methods={"edges": SobelEdges()})
    with pytest.raises(ValueError, match="`make_twin` must give another network for each number, but some"):
        examine(examined, ("data",), make_twin=lambda _: (net(), 1.0))


def test_an_explainer_that_is_independent_of_the_weights_it_learned_passes():
    """Its maps are noise keyed by the weights: of two networks they have nothing in common, which no test can show."""

    class Keyed(Explainer):
        def attribute(self, model, inputs, target, context):
            digest = int(fingerprint(model), 16) % 2**31
            return RandomAttribution().attribute(
                model, inputs, target, replace(context, keys=fold_in(context.keys, digest))
            )

    images = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    methods = {"keyed": Keyed(), "edges": SobelEdges()}
    examined = Subject(net(), images, LABELS.repeat(16), torch.arange(96), methods, {"spearman": spearman})
    report = examine(examined, ("parameters", "data"), "spearman", make_twin=twin)
    outcomes = {(v.check, v.method): v.outcome for v in report.verdicts}
    assert {outcomes[check, "edges"] for check in ("parameters", "data")} == {"FAIL"}
    assert {outcomes[check, "keyed"] for check in ("parameters", "data")} == {"PASS"}


def test_a_twin_that_was_trained_longer_is_compared_anew(tmp_path):
    def judged_by(twin, accuracy):
        examined = subject(methods={"gradient": Gradient()})
        options = {"make_twin": lambda _: (twin, accuracy), "num_twins": 1}
        report = examine(examined, ("data",), **options, folder=tmp_path)
        return [cell.scores["ssim"] for cell in report.cells if cell.key.check == "data"], report.models[-1]

    model = net()
    other = randomize(model, parameter_blocks(model, IMAGES))
    (early, weak), (late, strong) = judged_by(model, 0.6), judged_by(other, 1.0)
    assert_close(torch.from_numpy(early[0]), torch.ones(6))
    assert (late[0] < 0.9).all()
    assert weak != strong


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"similarities": named_similarities("notebook") | {"spearman": ssim}}, "similarities"),
        ({"similarities": named_similarities("paper", "percentile")}, "similarities"),
        ({"images": IMAGES.flip(0)}, "images"),
        ({"methods": {"gradient": lx.smooth_grad(num_draws=2)}}, "methods"),
    ],
)
def test_cells_of_other_settings_are_not_used(tmp_path, changes, named):
    examined = replace(subject(methods={"gradient": Gradient()}), similarities=named_similarities())
    examine(examined, ("parameters",), "spearman", repeats=1, folder=tmp_path)
    with pytest.raises(ValueError, match=f"has results of other settings: {named}"):
        examine(replace(examined, **changes), ("parameters",), "spearman", repeats=1, folder=tmp_path)


def test_bad_arguments_of_examine(tmp_path):
    with pytest.raises(ValueError, match=r"`similarity` must be one of 'spearman', 'ssim'; got 'hog'$"):
        examine(subject(), similarity="hog")
    with pytest.raises(ValueError, match="`make_twin` is needed by the data check"):
        examine(subject(), ("data",))
    with pytest.raises(ValueError, match="`repeats` must be at least 1, got 0"):
        examine(subject(), ("parameters",), repeats=0)
    with pytest.raises(ValueError, match="`num_twins` must be at least 1, got 0"):
        examine(subject(), ("data",), make_twin=twin, num_twins=0)
    with pytest.raises(ValueError, match=r"`alpha` must be less than 0\.5, the chance of a wrong verdict; got 0\.6"):
        examine(subject(), ("parameters",), alpha=0.6)
    for margin in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"`margin` must be at least 0 and less than 1, got {margin}"):
            examine(subject(), ("parameters",), margin=margin)
    with pytest.raises(ValueError, match=r"`groups`.*nothing\*"):
        examine(subject(), ("parameters",), groups={"all": ["*"], "none": ["nothing*"]})


def test_weights_have_a_fingerprint():
    model, other = net(), net()
    assert fingerprint(model) == fingerprint(other)
    with torch.no_grad():
        other[0].bias[0] += 1
    assert fingerprint(model) != fingerprint(other)


def test_methods_are_those_that_the_network_admits():
    assert "grad_cam" in paper_methods(net(), True)
    mlp = paper_methods(MLP((1, 8, 8), hidden=(4,)), False)
    assert "grad_cam" not in mlp
    assert "guided_backprop" in mlp
    assert "adapt_grad" not in mlp
    inplace = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 4))
    assert {"guided_backprop", "guided_grad_cam"} <= set(paper_methods(inplace, True))
    functional = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4))
    assert {"guided_backprop", "guided_grad_cam"} & set(paper_methods(functional, True)) == set()
