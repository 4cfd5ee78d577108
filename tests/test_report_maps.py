"""Maps of all samples in one small picture: written by the callback, read back by the report."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.callbacks.maps import write_sheet
from lightning_xai.cli import main
from lightning_xai.evaluation import Evaluation
from lightning_xai.experiments.findings import find
from lightning_xai.reporting.colors import scale_end
from lightning_xai.reporting.page.classes import class_maps, tiles
from lightning_xai.reporting.page.render import render

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]


class Module(LightningModule):
    class_names = ("zero", "<one>", "two")

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3))

    def forward(self, images):
        return self.network(images)

    def validation_step(self, batch, _):
        pass


def validate(folder, shape=(2, 4, 6), **options):
    """Maps of five samples."""
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.rand(5, *shape, generator=generator), torch.tensor([0, 1, 2, 0, 1]))
    callback = AttributionCallback(
        {"gradient": lx.Gradient(), "<b>": lx.Saliency()}, bounds=(0.0, 1.0), panel_size=2, summary=False, **options
    )
    trainer = Trainer(
        default_root_dir=folder, callbacks=[callback], logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.validate(Module(*shape), DataLoader(data, 5), verbose=False)
    return callback.evaluation


def read_back(path):
    """Inputs, and values by method, slowly: tile after tile, as `write_sheet` tells."""
    with Image.open(path) as picture:
        about, gray = json.loads(picture.text["lightning_xai"]), np.asarray(picture).astype(float)
    height, width, across = about["height"], about["width"], about["across"]

    def tile(block, place):
        top, left = (block * across + place // across) * height, place % across * width
        return gray[top : top + height, left : left + width]

    count = len(about["samples"])
    blocks = [np.stack([tile(block, place) for place in range(count)]) for block in range(1 + len(about["methods"]))]
    values = {
        method: np.where(own > 0, (own - 128) / 127 * scale, np.nan)
        for method, own, scale in zip(about["methods"], blocks[1:], about["scales"], strict=True)
    }
    return blocks[0], values, about


def test_a_sheet_has_each_map_up_to_half_a_step_of_its_scale(tmp_path):
    evaluation = validate(tmp_path, keep_maps=True, controls=False)
    inputs, values, about = read_back(tmp_path / "xai" / "sheets" / "validate-epoch=000-step=0.png")
    assert about["samples"] == [0, 1, 2, 3, 4]
    assert list(values) == ["gradient", "<b>"]
    for method, scale in zip(values, about["scales"], strict=True):
        expected = evaluation.attributions[method].sum(1).numpy()
        assert scale == pytest.approx(np.abs(expected).max())
        assert np.abs(values[method] - expected).max() <= scale / 254 + 1e-6
    expected = evaluation.images.mean(1).numpy()
    low, high = expected.min(), expected.max()
    assert np.abs(low + inputs / 255 * (high - low) - expected).max() <= (high - low) / 510 + 1e-6


def test_each_class_has_the_mean_maps_of_what_is_right_and_of_what_is_confused(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        validate(tmp_path, keep_maps=True)
    _, values, _ = read_back(tmp_path / "xai" / "sheets" / "validate-epoch=000-step=0.png")
    findings = find([tmp_path])
    (run,) = findings.runs
    known = run.samples.set_index("sample")
    method, classes, others = class_maps(findings)
    assert method in values
    assert others == 0
    for place, own in enumerate(values.values()):
        np.testing.assert_allclose(tiles(run.sheets[0], place), own)
    named = {name: number for number, name in enumerate(Module.class_names)}
    assert sorted(found.name for found in classes) == sorted(named)
    wrongs, means = [], {}
    for found in classes:
        of = known[known["target"] == named[found.name]]
        is_wrong = of["predicted"] != of["target"]
        wrongs.append(is_wrong.sum())
        assert (found.right[0].value, found.confused[0].value) == ((~is_wrong).sum(), is_wrong.sum())
        if is_wrong.any():
            counts = of[is_wrong]["predicted"].value_counts()
            assert counts[named[found.taken_for]] == counts.max()
        for own, (_, picture) in ((of[~is_wrong].index, found.right), (of[is_wrong].index, found.confused)):
            assert (picture is None) == (len(own) == 0)
            if picture is not None:
                means[picture] = values[method][list(own)].mean(0)
    assert wrongs == sorted(wrongs, reverse=True)
    assert 0 < sum(wrongs) < 5
    end = max(scale_end(mean) for mean in means.values())
    for picture, mean in means.items():
        with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as image:
            color = np.asarray(image).astype(float)
        shares = (mean / end).clip(-1, 1)
        red = np.where(shares < 0, 255 + shares * (255 - 33), 255 - shares * (255 - 178))
        np.testing.assert_allclose(color[..., 0], red, atol=0.5 + 1e-9)


def test_what_is_not_finite_is_told_from_zero(tmp_path):
    maps = torch.tensor([[[[0.0, math.nan], [math.inf, -2.0]]]])
    evaluation = Evaluation(
        torch.tensor([7]),
        {},
        {},
        torch.zeros(1, 1, 2, 2),
        torch.zeros(1).long(),
        torch.zeros(1).long(),
        None,
        {"m": maps},
    )
    write_sheet(evaluation, torch.tensor([7]), tmp_path / "sheet.png")
    inputs, values, about = read_back(tmp_path / "sheet.png")
    np.testing.assert_array_equal(values["m"], [[[0.0, np.nan], [np.nan, -2.0]]])
    np.testing.assert_array_equal(inputs, np.zeros((1, 2, 2)))
    assert about["samples"] == [7]


def test_the_report_shows_the_sheets_and_the_latest_panel(tmp_path):
    validate(tmp_path, keep_maps=True)
    (run,) = find([tmp_path]).runs
    assert run.class_names == Module.class_names
    ((sheet,), (panel,)) = (lambda run: (run.sheets, run.panels))(find([tmp_path]).runs[0])
    assert sheet.about["methods"] == ["gradient", "<b>", "edges", "random"]
    assert (panel.stage, panel.epoch, panel.step) == (sheet.panel.stage, sheet.panel.epoch, sheet.panel.step)
    main(["report", str(tmp_path)])
    text = (tmp_path / "xai" / "report.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="sheets">(.*?)</script>', text)
    assert json.loads(data)[0]["methods"] == sheet.about["methods"]
    assert text.count('class="panel"') == 1


def test_maps_that_one_file_has_no_room_for_are_in_a_folder(tmp_path, monkeypatch):
    validate(tmp_path, keep_maps=True, controls=False)
    findings = find([tmp_path])
    assert render(findings)[1] == {}
    monkeypatch.setattr("lightning_xai.reporting.page.beside.MOST_BYTES", 100)
    page, files = render(findings, folder="own")
    assert set(files) == {"scores.js", "sheet-0-0.js", "panel-0.png"}
    assert {f"own/{name}" for name in files} == set(re.findall(r"own/[\w.-]+", page))


def test_maps_are_not_kept_unless_asked_for_and_a_picture_that_is_no_sheet_is_passed_over(tmp_path):
    evaluation = validate(tmp_path)
    assert len(evaluation.images) == 2
    assert not (tmp_path / "xai" / "sheets").exists()
    (tmp_path / "xai" / "sheets").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "xai" / "sheets" / "validate-epoch=000-step=0.png")
    assert find([tmp_path]).runs[0].sheets == ()


def test_maps_of_series_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"`keep_maps` is for images \(batch, channel, height, width\), got .*\(5, 2, 8\)"
    ):
        validate(tmp_path, (2, 8), keep_maps=True)
