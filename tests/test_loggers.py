"""Panels and tables reach Weights & Biases, MLflow, TensorBoard and files; any logger gets the means."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai.callbacks import AttributionCallback
from lightning_xai.reporting import loggers
from lightning_xai.reporting.loggers import log_picture, log_table
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.saving import figure_pixels, save_figure
from lightning_xai.results.tables import ResultTable

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]
IMAGES, LABELS = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
TABLE = ResultTable("", ("method", "sparseness ↑"), (("gradient", "0.5000 ± 0.1000"),))


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        pass

    def test_step(self, *batch):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def drawn():
    return attribution_panel(IMAGES, {"m": IMAGES}, None)


def fit(folder, logger, **options):
    callback = AttributionCallback(["gradient"], ["sparseness"], controls=False, panel_size=2, **options)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=folder,
        logger=logger,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader(TensorDataset(IMAGES, LABELS), 5)
    trainer.fit(Module(), loader, loader)
    return trainer, callback


def cell(callback):
    """Of the table: what it says of the gradient's sparseness."""
    scores = callback.evaluation.scores["gradient"]["sparseness"]
    return f"{scores.mean():.4f} ± {scores.std() / 5**0.5:.4f}"


def test_tensorboard_has_panels_and_the_table(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer, callback = fit(tmp_path, TensorBoardLogger(tmp_path, "tb"))
    events = EventAccumulator(trainer.logger.log_dir).Reload()
    assert [event.step for event in events.Images("xai/panel/validate")] == [1, 2]
    assert len(events.Scalars("xai/gradient/sparseness")) == 2
    (table,) = events.Tensors("xai/table/validate/text_summary")
    assert (table.step, cell(callback) in table.tensor_proto.string_val[0].decode()) == (2, True)


def test_files_have_the_table_and_other_loggers_the_means(tmp_path, capsys):
    trainer, callback = fit(tmp_path, CSVLogger(tmp_path, "csv"))
    text = (callback.folder / "tables" / "validate.md").read_text(encoding="utf-8")
    assert f"| gradient | {cell(callback)} | 1 |" in text
    means = (tmp_path / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert means[0].split(",")[-1] == "xai/gradient/sparseness"
    assert float(means[-1].split(",")[-1]) == pytest.approx(callback.evaluation.means()["gradient"]["sparseness"])
    said = capsys.readouterr().out
    assert said.count("explanations of 5 samples") == 1
    assert cell(callback) in said
    for path in (callback.folder / "scores", callback.folder / "panels" / "validate-epoch=001-step=2.png"):
        assert str(path) in said
    trainer.test(Module(), DataLoader(TensorDataset(IMAGES, LABELS), 5), verbose=False)
    assert capsys.readouterr().out.count("explanations of 5 samples") == 1
    assert (callback.folder / "tables" / "test.md").exists()
    fit(tmp_path, False, summary=False)
    assert "explanations" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its own database
def test_mlflow_has_panels_and_the_table_as_artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow")
    logger = MLFlowLogger(
        "explained", tracking_uri=f"sqlite:///{tmp_path}/runs.db", artifact_location=str(tmp_path / "artifacts")
    )
    _, callback = fit(tmp_path, logger)
    client = logger.experiment
    panels = [artifact.path for artifact in client.list_artifacts(logger.run_id, "xai/panel/validate")]
    assert panels == [f"xai/panel/validate/validate-epoch=00{n}-step={n + 1}.png" for n in (0, 1)]
    assert cell(callback) in (tmp_path / "artifacts" / logger.run_id / "artifacts/xai/table/validate.md").read_text()
    assert len(client.get_metric_history(logger.run_id, "xai/gradient/sparseness")) == 2


@pytest.mark.slow
def test_wandb_has_panels_and_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb = pytest.importorskip("wandb")
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="explained")
    try:
        _, callback = fit(tmp_path, logger)
        media = tmp_path / "wandb"
        (table,) = media.glob("offline-run-*/files/media/table/xai/table/validate_*.table.json")
        assert json.loads(table.read_text())["data"] == [["gradient", cell(callback), "1"]]
        assert len(list(media.glob("offline-run-*/files/media/images/xai/panel/validate_*.png"))) == 2
        assert logger.experiment.summary["xai/gradient/sparseness"] == pytest.approx(
            callback.evaluation.means()["gradient"]["sparseness"]
        )
    finally:
        wandb.finish()


def test_loggers_that_take_tables_get_the_table():
    calls = []
    log_table(SimpleNamespace(log_table=lambda **given: calls.append(given)), "t", TABLE, 7)
    assert calls == [{"key": "t", "columns": list(TABLE.columns), "data": [list(TABLE.rows[0])], "step": 7}]


def test_tensorboard_gets_the_file(tmp_path):
    from pytorch_lightning.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger, path = TensorBoardLogger(tmp_path), tmp_path / "panel.png"
    logger.experiment.close()  # as a trainer does behind an earlier validation
    figure = drawn()
    save_figure(figure, path)
    log_picture(logger, "xai/panel", path, step=7)
    logger.experiment.add_image("as pixels", figure_pixels(figure), 7, dataformats="HWC")
    logger.experiment.close()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    (event,), (theirs,) = events.Images("xai/panel"), events.Images("as pixels")
    assert event.encoded_image_string == path.read_bytes()
    assert (event.step, event.height, event.width) == (theirs.step, theirs.height, theirs.width)


def test_the_summary_is_the_one_of_tensorboard(tmp_path):
    from torch.utils.tensorboard.summary import image

    figure, path = drawn(), tmp_path / "panel.png"
    save_figure(figure, path)
    (ours,), (theirs,) = loggers._summary("a", path).value, image("a", figure_pixels(figure), dataformats="HWC").value
    assert theirs.image.encoded_image_string != ours.image.encoded_image_string
    theirs.image.encoded_image_string = ours.image.encoded_image_string
    assert type(ours) is type(theirs)
    assert ours == theirs


@pytest.mark.parametrize("kind", ["log_image", "add_image"])
def test_loggers_that_take_images_get_the_picture(tmp_path, kind):
    calls = []

    def log_image(key, images, step):
        calls.append((key, *images, step))

    def add_image(tag, pixels, step, dataformats):
        calls.append((tag, pixels, step))

    logger = SimpleNamespace(log_image=log_image)
    if kind == "add_image":  # of something that is like TensorBoard's
        logger = SimpleNamespace(experiment=SimpleNamespace(add_image=add_image))
    figure, path = drawn(), tmp_path / "panel.png"
    save_figure(figure, path)
    log_picture(logger, "xai/panel", path, step=7)
    ((tag, image, step),) = calls
    assert (tag, step) == ("xai/panel", 7)
    np.testing.assert_array_equal(image, figure_pixels(figure))


def test_other_loggers_are_left_alone(tmp_path):
    for logger in (None, CSVLogger(tmp_path), SimpleNamespace()):
        log_picture(logger, "xai/panel", tmp_path / "panel.png", step=0)
        log_table(logger, "xai/table", TABLE, step=0)
