"""Maps of all samples in one small picture: written by the callback, read back by the report."""

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
