"""The sentinel: shortcuts found while a network trains, dated, logged, written and told."""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_xai.callbacks import AttributionCallback, ShortcutSentinel
from lightning_xai.callbacks.sentinel import carried, known_evidence
from lightning_xai.cli import main
from lightning_xai.data import DialDataModule, DigitsDataModule
from lightning_xai.data.cues import Hue, Patch
from lightning_xai.explainers import Gradient
from lightning_xai.metrics import Sparseness
from lightning_xai.reporting.page.data import FIELDS
from lightning_xai.reporting.shortcut_figure import Example, shortcut_figure
from lightning_xai.reporting.shortcuts import place_words, sentences, shortcut_table
from lightning_xai.results.shortcuts import (
    SHORTCUTS,
    Effect,
    Finding,
    ShortcutReport,
    accepted,
    as_record,
    onset,
    read_shortcuts,
    report_of,
    write_shortcuts,
)
from tests.test_report_page import paths, write_run

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:.*Checkpoint directory .* exists and is not empty",
)
ROOT = Path(__file__).parent.parent
FIND = "lightning_xai.callbacks.sentinel.find_shortcuts"


def finding(label, verdict="SHORTCUT", box=(24, 0, 4, 4), kind="place", mean=0.25, examples=(1, 2), **changes):
    effect = Effect(mean, 0.004, mean - 0.1, mean + 0.1, 100)
    own = Finding(
        label,
        kind,
        box,
        "",
        verdict,
        {"swap": effect, "inpaint": replace(effect, mean=mean / 2)},
        Effect(0.3, 0.01, 0.2, 0.4, 50),
        0.001,
        0.01,
        0.4,
        float("nan"),
        0.12,
        tuple(examples),
        "It decides.",
    )
    return replace(own, **changes)


def report(epoch, *findings, verdict=None, **settings):
    by_class = dict.fromkeys(range(10), 0.0)
    by_class |= {own.label: own.necessity["swap"].mean for own in findings if own.verdict == "SHORTCUT"}
    told = "SHORTCUT" if any(own.verdict == "SHORTCUT" for own in findings) else "CLEAR"
    whole = sum(by_class.values()) / 10
    known = {"shape": [28, 28], "stage": "validate"} | settings
    return ShortcutReport(verdict or told, whole, by_class, findings, epoch, 10 * epoch + 10, (0, 1, 2), known)


def clear(*labels):
    return [finding(label, "CLEAR", mean=0.01) for label in labels]


# Records and files


def test_reports_come_back_as_they_were_whatever_is_in_them(tmp_path):
    odd = finding(3, detectable=float("nan"), p=float("nan"), kind="color", box=())
    reports = [report(0, odd), report(1, finding(4), stage="test"), report(1, finding(4))]
    for one in reports:
        write_shortcuts(tmp_path, one)
    assert list(map(repr, read_shortcuts(tmp_path))) == list(map(repr, reports))
    assert [own.epoch for own in read_shortcuts(tmp_path, "validate")] == [0, 1]
    write_shortcuts(tmp_path, report(1, *clear(4)))
    assert [own.verdict for own in read_shortcuts(tmp_path, "validate")] == ["SHORTCUT", "CLEAR"], "the later one"
    assert repr(report_of(json.loads(json.dumps(as_record(reports[0]))))) == repr(reports[0])


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"schema":"other","version":1,"reports":[]}', '{"schema":"lightning_xai.shortcuts","version":2}'],
)
def test_a_file_that_is_none_of_ours_is_refused_by_its_name(tmp_path, text):
    (tmp_path / SHORTCUTS).write_text(text)
    with pytest.raises(ValueError, match=r"shortcuts\.json: no reports of shortcuts .*Move it away"):
        read_shortcuts(tmp_path)
    assert read_shortcuts(tmp_path / "nowhere") == ()


SHORT, OTHER, MOVED = finding(4), finding(4, "CLEAR"), finding(4, box=(23, 2, 5, 5))
APART = finding(4, box=(0, 0, 4, 4))


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([[], [OTHER], [SHORT], [SHORT]], [(2, 1, None)]),
        ([[SHORT], [SHORT]], [(0, None, None)]),
        ([[], [SHORT], [OTHER]], [(1, 0, 1)]),
        ([[], [SHORT], [OTHER], [MOVED]], [(3, 2, None)]),
        ([[SHORT], [OTHER], [SHORT], [MOVED], [OTHER]], [(2, 1, 3)]),
        ([[], [SHORT], [APART, SHORT]], [(1, 0, None), (2, 1, None)]),
        ([[SHORT], [finding(5)]], [(1, 0, None), (0, None, 0)]),
        ([[finding(4, kind="color", box=())], [finding(4, kind="pattern")]], [(1, 0, None), (0, None, 0)]),
        ([[OTHER]], []),
    ],
)
def test_a_shortcut_dates_from_the_first_proof_of_a_hypothesis_like_it_that_was_confirmed(looks, expected):
    found = onset([report(epoch, *findings) for epoch, findings in enumerate(looks)])
    assert [(own.since, own.after, own.until) for own in found] == expected
    ends = [len(looks) - 1 if own.until is None else own.until for own in found]
    assert [own.confirmed for own in found] == [own.since < end for own, end in zip(found, ends, strict=True)]


def test_what_was_proven_is_carried_along_once_and_as_it_was_last():
    reports = [report(0, SHORT, finding(2)), report(1, MOVED, *clear(2)), report(2)]
    assert [(own.label, own.box) for own in carried(reports)] == [(4, MOVED.box), (2, SHORT.box)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("3:place/24x4x5x5", {"label": 3, "kind": "place", "box": [24, 4, 5, 5]}),
        ("place/24x4x5x5", {"label": None, "kind": "place", "box": [24, 4, 5, 5]}),
        ("color", {"label": None, "kind": "color", "box": None}),
        ("0:frequency", {"label": 0, "kind": "frequency", "box": None}),
        ({"label": 3}, {"label": 3}),
    ],
)
def test_what_is_accepted_has_a_name_or_is_a_mapping(given, expected):
    assert accepted(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        *("corner", "", "3", "place/1x2", "frequency/0x0x2x2", "frequency/7-2"),
        *({"kind": "color", "box": [0, 0, 2, 2]}, {"kind": "corner"}, {"where": 3}),
    ],
)
def test_what_is_accepted_is_refused_where_it_means_nothing(given):
    with pytest.raises(ValueError, match="`accept` must have names as tables of shortcuts have them"):
        ShortcutSentinel(accept=[given])


# Words


def test_the_ninths_of_a_picture_have_names():
    names = [[place_words((top, left, 3, 3), (27, 27)) for left in (0, 12, 24)] for top in (0, 12, 24)]
    assert names == [
        ["the upper left corner", "the upper edge", "the upper right corner"],
        ["the left edge", "the middle", "the right edge"],
        ["the lower left corner", "the lower edge", "the lower right corner"],
    ]
    assert place_words((0, 0, 20, 20), (27, 27)) == "most of the picture"


def test_the_conclusion_says_since_when_which_classes_what_and_what_proves_it():
    quiet = clear(*(label for label in range(10) if label not in (4, 7)))
    reports = [report(2, *quiet), report(3, finding(4), finding(7, examples=range(10)), *quiet)]
    assert sentences(reports) == [
        "Since epoch 3 (not yet at epoch 2; not yet at two looks) classes 4 and 7 are decided by the lower left corner"
        "; replacing it by another class's changes 25 % of their predictions (a matched region 0.4 %); 10 pictures "
        "show it; validation accuracy cannot see it, for these samples have it too.",
        "In all, 5 % of the predictions of 3 samples depend on shortcuts.",
        "No other shortcut was found in the other classes: no place or small pattern that decides at least 12 % of a "
        "class's predictions.",
    ]
    assert sentences([reports[1]])[0].startswith("At epoch 3 classes 4 and 7 are decided")
    assert sentences([replace(reports[1], epoch=-1)])[0].startswith("Classes 4 and 7 are decided")
    assert sentences(reports[::-1])[0] == (
        "Proven at single looks, which may be chance: class 4 by the lower left corner (3), class 7 by the lower "
        "left corner (3)."
    )
    later = report(4, finding(4), finding(7), finding(1, box=(0, 24, 4, 4)))
    assert sentences([*reports, later])[0].startswith(
        "Since epoch 3 (not yet at epoch 2) 3 classes are decided each by a place of its own: 1 by the upper right "
        "corner (since 4), 4 by the lower left corner (since 3), 7 by the lower left corner (since 3); replacing it by "
    )
    apart = [finding(4), finding(7, box=(0, 0, 4, 4)), finding(1, "SHORTCUT", kind="color", box=(), mean=0.9)]
    told = sentences([report(0), report(1, *apart, class_names=list("abcdefghij"))])
    assert told[0].startswith(
        "Since epoch 1 (not yet at epoch 0; not yet at two looks) class b is decided by the color"
    )
    assert "2 classes are decided each by a place of its own: e by the lower left corner, h by the upper" in told[1]
    one, four = finding(1, box=(), kind="color"), finding(4, box=(), kind="color")
    told = sentences([report(0, one), report(1, one, four), report(2, one, four)])
    assert told[0].startswith(
        "Since epoch 0 (the first look) classes 1 (since 0) and 4 (since 1) are decided by the color;"
    )


def test_what_is_not_sure_is_said():
    unsure = [finding(3, "INCONCLUSIVE", reason="Too few samples."), *clear(1, 2)]
    assert sentences([report(0, *unsure, verdict="INCONCLUSIVE", too_few={"5": 2})]) == [
        "No shortcut is proven in class 3, but none can be excluded: Too few samples.",
        "Too few samples are predicted as class 5 to look at.",
    ]
    assert sentences([report(0, *clear(1))]) == [
        "No shortcut was found: no place or small pattern that decides at least 12 % of a class's predictions."
    ]
    part = finding(2, "EVIDENCE")
    known = {"evidence": True, "operators": ["color", "background"], "unmasked": 3}
    assert sentences([report(0, *clear(1), part, **known)]) == [
        "No shortcut was found: no other place, small pattern or background outside of the known evidence, and no color"
        ", that decides at least 12 % of a class's predictions.",
        "What decides class 2 otherwise was accepted, or is not enough in pictures of the other classes, as a part of "
        "real evidence is.",
        "Assumed: to change the color leaves the evidence readable.",
        "3 samples whose evidence is not known were left out.",
    ]


def test_the_table_has_what_decides_first_and_one_line_for_each_other_class():
    table = shortcut_table(report(0, *clear(1, 1, 2, 4), finding(5, "EVIDENCE"), finding(4), finding(4)))
    assert [(row[0], row[-1]) for row in table.rows] == [
        ("4", "SHORTCUT"),
        ("5", "EVIDENCE"),
        ("1", "CLEAR"),
        ("2", "CLEAR"),
    ]
    assert table.rows[0][1:6] == ("place/24x0x4x4", "25 %", "0.4 %", "30 %", "")


def test_the_figure_has_each_picture_before_and_after_and_the_curve():
    pictures = np.random.default_rng(0).random((2, 1, 28, 28))
    example = Example(pictures[0], pictures[1], (24, 0, 4, 4), (0.98, 0.1), (4, 7))
    reports = [report(0, *clear(4)), report(1, finding(4))]
    figure = shortcut_figure(reports, [(reports[1].findings[0], [example] * 3)], "validate")
    grid, curve = figure.axes
    assert [image.get_array().tolist() for image in grid.images[:2]] == [
        pictures[0, 0].tolist(),
        pictures[1, 0].tolist(),
    ]
    assert [text.get_text() for text in grid.texts[:2]] == ["4, 0.98", "7, 0.10"]
    lines = {line.get_label(): line.get_ydata() for line in curve.lines}
    assert list(lines["4"]) == [0.0, 0.25]
    assert list(lines["all predictions"]) == [0.0, 0.025]


# The callback


class Pictures(Dataset):
    def __init__(self, length=12):
        self.images = torch.rand(length, 1, 28, 28, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        mask = self.images[i, 0] > 0.5
        return {"image": self.images[i], "label": i % 3, "index": 100 + i, "mask": {"ink": mask, "rest": ~mask}}


class Module(LightningModule):
    class_names = ("cat", "dog", "cat")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(784, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch, _):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def looks(monkeypatch):
    """What a search was given each time; class 1 is proven from epoch 1 on."""
    given = []

    def find(model, images, *, index, epoch, step, **options):
        given.append({"images": images, "index": index, "epoch": epoch, **options})
        own = [finding(1, mean=0.1 * epoch)] if epoch else clear(1)
        return replace(report(epoch, *own, step=step), step=step, samples=tuple(index.tolist()))

    monkeypatch.setattr(FIND, find)
    monkeypatch.setattr("lightning_xai.callbacks.sentinel.too_early", lambda *_: None)
    monkeypatch.setattr(ShortcutSentinel, "examples", lambda *_: [])
    return given


def trainer_of(folder, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    some = {"max_epochs": 3, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(callbacks=list(callbacks), default_root_dir=folder, **(quiet | some | options))


def fit(folder, *callbacks, module=None, ckpt_path=None, **options):
    trainer = trainer_of(folder, *callbacks, **options)
    trainer.fit(module or Module(), DataLoader(Pictures(), 4), DataLoader(Pictures(), 4), ckpt_path=ckpt_path)
    return trainer


def test_each_look_is_logged_written_and_carried_along(tmp_path, looks, capsys):
    sentinel = ShortcutSentinel(num_samples=5, mask="rest", accept=["color"], operators=["frequency"])
    trainer = fit(tmp_path, sentinel, max_epochs=4)
    assert {name: round(float(value), 6) for name, value in trainer.callback_metrics.items()} == {
        "xai/shortcut": 0.03,
        "xai/shortcut_of/cat-0": 0.0,
        "xai/shortcut_of/dog": 0.3,
        "xai/shortcut_of/cat-2": 0.0,
    }
    assert [own["epoch"] for own in looks] == [0, 1, 2, 3]
    assert looks[0]["index"].tolist() == [100, 103, 106, 108, 111]
    assert torch.equal(looks[0]["masks"], looks[0]["images"][:, 0] <= 0.5)
    assert (looks[0]["accept"], looks[0]["operators"]) == ([accepted("color")], ("frequency",))
    assert [len(own["carried"]) for own in looks] == [0, 0, 1, 1]
    assert list(map(repr, read_shortcuts(tmp_path / "xai"))) == list(map(repr, sentinel.reports["validate"]))
    panels = sorted(path.name for path in (tmp_path / "xai" / "panels").iterdir())
    assert panels == ["shortcut-validate-epoch=001-step=6.png", "shortcut-validate-epoch=003-step=12.png"], "news, end"
    printed = capsys.readouterr().out
    assert "Since epoch 1 (not yet at epoch 0) class dog is decided by the lower left corner" in printed
    assert str(tmp_path / "xai" / SHORTCUTS) in printed


def test_who_waits_for_the_scalars_gets_them_and_others_are_refused(tmp_path, looks):
    checkpoint = ModelCheckpoint(tmp_path, monitor="xai/shortcut", mode="min")
    stopping = EarlyStopping("xai/shortcut_of/dog", patience=0)
    scores = AttributionCallback({"g": Gradient()}, {"s": Sparseness()}, num_samples=2, controls=False, summary=False)
    sentinel = ShortcutSentinel(num_samples=4, summary=False)
    trainer = fit(tmp_path, sentinel, scores, checkpoint, stopping, enable_checkpointing=True)
    assert trainer.current_epoch == 2, "epoch 1 is worse than epoch 0"
    assert float(checkpoint.best_model_score) == 0.0
    for first, last in ((sentinel, scores), (scores, sentinel)):
        with pytest.raises(
            ValueError, match=r"'xai/shortcut_of/dgo', which nothing logs: .* and .* log .*xai/shortcut_of/dog"
        ):
            fit(tmp_path, first, last, EarlyStopping("xai/shortcut_of/dgo"))
    with pytest.raises(ValueError, match="Give ShortcutSentinel `every_n_epochs` 1"):
        fit(tmp_path, ShortcutSentinel(every_n_epochs=2), EarlyStopping("xai/shortcut"))


def test_a_resumed_training_goes_on_dating_and_a_new_one_begins_anew(tmp_path, looks):
    checkpoint = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(tmp_path, ShortcutSentinel(num_samples=4, summary=False), checkpoint, enable_checkpointing=True, max_epochs=2)
    again, module = ShortcutSentinel(num_samples=4, summary=False), Module()
    fit(tmp_path / "b", again, module=module, ckpt_path=tmp_path / "epoch=1.ckpt", max_epochs=3)
    assert [own.since for own in onset(again.reports["validate"])] == [1]
    assert [own.epoch for own in read_shortcuts(tmp_path / "b" / "xai")] == [0, 1, 2]
    assert len(looks[-1]["carried"]) == 1
    with pytest.warns(
        UserWarning, match="holds reports of an earlier training in this folder; they are in shortcuts-1"
    ):
        fit(tmp_path / "b", again, max_epochs=1)
    assert [own.epoch for own in read_shortcuts(tmp_path / "b" / "xai")] == [0]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_finished_network_is_looked_at_under_the_trainers_inference_mode(tmp_path, looks, command):
    sentinel = ShortcutSentinel(num_samples=4, summary=False)
    trainer = trainer_of(tmp_path, sentinel)
    getattr(trainer, command)(Module(), DataLoader(Pictures(), 4), verbose=False)
    assert list(sentinel.reports) == [command]
    assert [own.settings["stage"] for own in read_shortcuts(tmp_path / "xai")] == [command]


def test_a_look_that_fails_ends_the_training_or_is_told(tmp_path, looks, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(FIND, fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, ShortcutSentinel(num_samples=4))
    with pytest.warns(UserWarning, match="ShortcutSentinel has no report of this validate end: .*out of luck"):
        trainer = fit(tmp_path, ShortcutSentinel(num_samples=4, on_error="warn", summary=False), max_epochs=1)
    assert all(value.isnan() for value in trainer.callback_metrics.values())
    assert len(trainer.callback_metrics) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": True}, "`mask` must be the name of a mask, null, or false"),
        ({"num_samples": 0}, "`num_samples`"),
        ({"alpha": 2.0}, "`alpha`"),
        ({"panel_size": -1}, "`panel_size`"),
        ({"forward": {"carried": ["mask"]}}, "`forward`: ShortcutSentinel swaps parts of pictures"),
    ],
)
def test_what_it_cannot_do_is_refused_when_it_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        ShortcutSentinel(**options)


def test_inputs_that_are_no_images_are_refused_before_the_first_epoch(tmp_path):
    class Series(Pictures):
        def __init__(self):
            super().__init__()
            self.images = self.images[:, 0]

        def __getitem__(self, i):
            return {"image": self.images[i], "label": i % 3}

    trainer = trainer_of(tmp_path, ShortcutSentinel())
    with pytest.raises(ValueError, match=r"looks for shortcuts in images .*got inputs of the shape \(12, 28, 28\)"):
        trainer.fit(Module(), DataLoader(Series(), 4), DataLoader(Series(), 4))


def test_a_data_module_says_itself_what_the_evidence_is():
    data = DialDataModule(DigitsDataModule(), Hue(), num_train=300)
    data.setup("fit")
    assert known_evidence(data, None) == ("digit", True)
    assert known_evidence(data, "cue") == ("cue", True)
    assert known_evidence(data, False) == (None, False)
    assert known_evidence(None, None) == (None, True)
    assert Patch.operator == ""


# With the search itself


class Corner(LightningModule):
    """Reads what is in the upper left corner alone: two classes, as bright or dark as it is."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(20.0))

    def forward(self, x):
        brightness = self.weight * (x[:, :, :3, :3].mean((1, 2, 3)) - 0.5)
        return torch.stack([-brightness, brightness], 1)

    validation_step = test_step = Module.validation_step


class Marked(Pictures):
    """Half of the corners are bright, half are dark; the evidence is in the middle."""

    def __init__(self):
        super().__init__(128)
        self.images[:, :, :3, :3] = (torch.arange(128) % 2).float().view(-1, 1, 1, 1)

    def __getitem__(self, i):
        mask = torch.zeros(28, 28, dtype=torch.bool)
        mask[8:20, 8:20] = True
        return super().__getitem__(i) | {"mask": mask}


def test_a_corner_that_decides_is_found_proven_drawn_and_told(tmp_path, capsys):
    sentinel = ShortcutSentinel(num_samples=128, bounds=(0.0, 1.0), panel_size=2)
    trainer = trainer_of(tmp_path, sentinel)
    trainer.validate(Corner(), DataLoader(Marked(), 32), verbose=False)
    (found,) = sentinel.reports["validate"]
    assert found.verdict == "SHORTCUT"
    assert float(trainer.callback_metrics["xai/shortcut"]) == pytest.approx(found.dependence)
    assert found.dependence > 0.8
    assert all(own.box[0] < 3 and own.box[1] < 3 for own in found.shortcuts if own.kind == "place")
    printed = capsys.readouterr().out
    assert "At epoch 0 classes 0 and 1 are decided by the upper left corner; replacing it" in printed
    assert str(sentinel.panel) in printed
    assert sentinel.panel.is_file()


def test_training_is_bit_for_bit_what_it_is_without(tmp_path):
    class Learning(Marked):
        def __init__(self):
            super().__init__()
            self.images[:, :, :3, :3] = 10 * self.images[:, :, :3, :3] - 5  # which is learned in an epoch

        def __getitem__(self, i):
            return super().__getitem__(i) | {"label": i % 2}

    states, sentinel = [], ShortcutSentinel(num_samples=64, summary=False)
    for callbacks in ([], [sentinel]):
        torch.manual_seed(3)
        module, data = Module(), Learning()
        trainer = trainer_of(tmp_path, *callbacks, max_epochs=1)
        trainer.fit(module, DataLoader(data, 16, shuffle=True), DataLoader(data, 32))
        states.append([*module.state_dict().values(), torch.rand(3)])
    assert "reason" not in sentinel.reports["validate"][-1].settings, "it was looked at"
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_a_network_that_predicts_one_class_is_not_looked_at_yet(tmp_path):
    module = Corner()
    nn.init.zeros_(module.weight)
    sentinel = ShortcutSentinel(num_samples=64, bounds=(0.0, 1.0), summary=False)
    trainer = trainer_of(tmp_path, sentinel)
    trainer.validate(module, DataLoader(Marked(), 32), verbose=False)
    (found,) = read_shortcuts(tmp_path / "xai")
    assert found.verdict == "INCONCLUSIVE"
    assert sentences([found]) == ["Less than two classes are predicted for 8 samples in each half of the 64 looked at."]
    assert all(share.isnan() for share in (torch.tensor(found.dependence), *trainer.callback_metrics.values()))


class Named(Corner):
    """With names that no logger admits; learns nothing."""

    class_names = ("cat/dog", "<b>")

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch["image"]), batch["label"] % 2)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def test_names_are_what_all_loggers_admit_and_differ():
    sentinel = ShortcutSentinel(name="again")
    names = sentinel._names(["cat/dog", "cat<dog", "tench, Tinca", "a b"], "validate/night")
    whole = "xai/again/night/shortcut"
    of = [f"{whole}_of/{name}" for name in ("cat_dog-0", "cat_dog-1", "tench_ Tinca", "a b")]
    assert names == [whole, *of]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its own
def test_mlflow_has_scalars_panels_and_the_table_in_files(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger("watched", tracking_uri=f"file:{tmp_path}/mlruns")
    watched(tmp_path, logger)
    client, run = logger.experiment, logger.run_id
    metrics = client.get_run(run).data.metrics
    assert {name for name in metrics if name != "epoch"} == SCALARS
    assert [own.value for own in client.get_metric_history(run, "xai/shortcut")] == [1.0, 1.0]
    drawn = [artifact.path for artifact in client.list_artifacts(run, "xai/shortcut/panel/validate")]
    assert [Path(path).name for path in drawn] == [
        "shortcut-validate-epoch=000-step=4.png",
        "shortcut-validate-epoch=001-step=8.png",
    ]
    (table,) = client.list_artifacts(run, "xai/shortcut/table")
    assert table.path == "xai/shortcut/table/validate.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_has_scalars_panels_and_the_table_without_a_connection(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="watched")
    try:
        watched(tmp_path, logger)
        media = tmp_path / "wandb"
        (table,) = media.glob("offline-run-*/files/media/table/xai/shortcut/table/validate_*.table.json")
        assert {row[0] for row in json.loads(table.read_text())["data"]} == set(Named.class_names)
        assert len(list(media.glob("offline-run-*/files/media/images/xai/shortcut/panel/validate_*.png"))) == 2
        assert {name: logger.experiment.summary[name] for name in SCALARS} == dict.fromkeys(SCALARS, 1.0)
    finally:
        wandb.finish()


SCALARS = {"xai/shortcut", "xai/shortcut_of/cat_dog", "xai/shortcut_of/_b_"}


def watched(folder, logger):
    """Two epochs with a panel each: of the first look, and of the last."""
    sentinel = ShortcutSentinel(num_samples=128, bounds=(0.0, 1.0), panel_size=2)
    trainer = trainer_of(folder, sentinel, logger=logger, max_epochs=2)
    trainer.fit(Named(), DataLoader(Marked(), 32), DataLoader(Marked(), 32))


# The command


@pytest.fixture
def command(monkeypatch, tmp_path, looks):
    """Runs it on the digits, with a verdict; gives the exit code."""
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])

    def run(verdict, *options):
        own = [finding(1)] if verdict == "SHORTCUT" else clear(1)

        def find(model, images, *, index, epoch, step, **given):
            looks.append({"masks": given["masks"], "accept": given["accept"], "index": index})
            return replace(report(epoch, *own, verdict=verdict), step=step, samples=tuple(index.tolist()))

        monkeypatch.setattr(FIND, find)
        words = [f"--config={ROOT}/configs/mnist_lenet.yaml", f"--ckpt_path={ROOT}/checkpoints/mnist_lenet.ckpt"]
        data = ["--data=lightning_xai.data.DigitsDataModule", "--trainer.accelerator=cpu", "--trainer.logger=false"]
        try:
            main(["shortcuts", *words, *data, f"--output={tmp_path}/xai", *options])
        except SystemExit as leaving:
            return leaving.code
        return 0

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
def test_the_command_tells_writes_and_guards_a_build(command, looks, tmp_path, capsys):
    (tmp_path / "known.yaml").write_text('- "3:color"\n- {kind: place, box: [0, 0, 5, 5]}\n')
    assert command("SHORTCUT", "--num_samples=40", f"--accept={tmp_path}/known.yaml") == 0
    told = capsys.readouterr().out
    assert told.startswith("At epoch 9 class 1 is decided by the lower left corner; replacing it by another class's")
    assert told.index("decided by") < told.index("place/24x0x4x4") < told.index(f"{tmp_path}/xai/shortcuts.json")
    assert len(looks[0]["index"]) == 40
    assert looks[0]["masks"].any()
    assert looks[0]["accept"] == [accepted("3:color"), {"kind": "place", "box": [0, 0, 5, 5]}]
    assert [own.settings["stage"] for own in read_shortcuts(tmp_path / "xai")] == ["test"]
    assert command("SHORTCUT", "--require=clear", "--mask=false", "--accept=[3:color]") == 1
    assert (looks[1]["masks"], looks[1]["accept"]) == (None, [accepted("3:color")])
    assert command("CLEAR", "--require=clear") == 0
    capsys.readouterr()
    assert command("CLEAR", "--require=sure") == 2
    assert "`require`" in capsys.readouterr().err


# The page


def test_the_page_answers_shows_and_obeys_no_class_name(tmp_path):
    folder = write_run(tmp_path / "version_0", validations=2)
    names = ["<q>", *"bcdefghij"]
    looked = [report(0, class_names=names), report(1, finding(0), *clear(1), class_names=names)]
    write_shortcuts(folder / "xai", *looked, report(1, *clear(1), stage="test"))
    drawn = folder / "xai" / "panels" / "shortcut-validate-epoch=001-step=20.png"
    drawn.parent.mkdir(exist_ok=True)
    Image.new("RGB", (5, 5), (1, 2, 3)).save(drawn)
    main(["report", str(folder)])
    text = unescape(page := (folder / "xai" / "report.html").read_text(encoding="utf-8"))
    assert "<q>" not in page
    for line in sentences(looked):
        assert line.replace(" %", "\u00a0%") in text
    assert "place/24x0x4x4" in text
    assert 'alt="Pictures before and after' in text
    record = json.loads((folder / "xai" / "report.json").read_text())
    found = {re.sub(r"\.\d$", "{}", path) for path in paths(record) if path.startswith("shortcuts")}
    assert found == {path for path in FIELDS if path.startswith("shortcuts")}
    assert [(own["stage"], own["verdict"]) for own in record["shortcuts"]] == [
        ("validate", "SHORTCUT"),
        ("test", "CLEAR"),
    ]
    assert record["shortcuts"][0]["onsets"] == [
        {"label": 0, "name": "place/24x0x4x4", "since": 1, "after": 0, "until": None}
    ]
    assert [own["tone"] for own in record["answer"] if own["kind"] == "shortcuts"] == ["bad", "good"]


# Several processes

PROGRAM = """
import json, os, sys
from dataclasses import replace
import lightning_xai.callbacks.sentinel as sentinel
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader
from tests.test_sentinel import Module, Pictures, ShortcutSentinel, finding, report, trainer_of

rank, searched = int(os.environ["LOCAL_RANK"]), []

def find(model, images, *, index, epoch, step, **options):
    searched.append(len(images))
    return replace(report(epoch, finding(1, mean=0.1 + rank)), step=step, samples=tuple(index.tolist()))

sentinel.find_shortcuts, sentinel.too_early = find, lambda *_: None
sentinel.ShortcutSentinel.examples = lambda *_: []
callback = ShortcutSentinel(num_samples=5, summary=False)
trainer = trainer_of(sys.argv[1], callback, max_epochs=1, devices=2, strategy=DDPStrategy(process_group_backend="gloo"))
trainer.fit(Module(), DataLoader(Pictures(), 4), DataLoader(Pictures(), 4))
logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump([searched, logged, len(callback.reports["validate"])], file)
"""


@pytest.mark.slow
def test_the_first_process_looks_and_all_log_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
    common = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "WORLD_SIZE": "2"}
    running = [subprocess.Popen(words, env=common | {"LOCAL_RANK": f"{rank}"}) for rank in range(2)]
    assert [process.wait(300) for process in running] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (first[0], second[0]) == ([5], [])
    assert first[1:] == second[1:]
    assert first[1]["xai/shortcut_of/dog"] == pytest.approx(0.1)
    assert len(read_shortcuts(tmp_path / "xai")) == 1
