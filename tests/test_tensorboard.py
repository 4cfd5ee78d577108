"""TensorBoard gets a chart a metric and the settings behind the scores."""

import re

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.callbacks.tensorboard import flat
from lightning_xai.data import DigitsDataModule
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import LeNet


def test_settings_at_any_depth():
    found = dict(flat("sg", lx.smooth_grad(fraction=0.1, num_draws=3)))
    assert (found["sg/num_draws"], found["sg/scale/fraction"], found["sg/explainer"]) == (3, 0.1, "Gradient")


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*smaller than the logging interval")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_a_training_has_a_layout_and_a_line_of_settings(tmp_path):
    callback = AttributionCallback(
        {"gradient": lx.Gradient(), "sg": lx.smooth_grad(num_draws=2)}, ["sparseness"], num_samples=2, panel_size=0
    )
    limits = {"limit_train_batches": 1, "limit_val_batches": 1, "max_epochs": 2, "num_sanity_val_steps": 0}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    logger = TensorBoardLogger(tmp_path)
    Trainer(accelerator="cpu", callbacks=[callback], logger=logger, **limits, **quiet).fit(
        ClassifierModule(LeNet()), datamodule=DigitsDataModule()
    )
    events = EventAccumulator(logger.log_dir).Reload()
    (config,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(config.tensor_proto.string_val[0]).category
    (chart,) = category.chart
    (pattern,) = chart.multiline.tag  # the same whatever the methods, so that charts of several runs are one
    assert (category.title, chart.title, pattern) == ("xai", "sparseness", "^xai/[^/]+/sparseness$")
    curves = [tag for tag in events.Tags()["scalars"] if re.search(pattern, tag)]
    assert sorted(curves) == [f"xai/{method}/sparseness" for method in ("edges", "gradient", "random", "sg")]
    curve = events.Scalars("xai/sg/sparseness")
    assert curve[-1].value == pytest.approx(float(callback.evaluation.means()["sg"]["sparseness"]))
    start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(start).session_start_info.hparams
    assert settings["sg/num_draws"].number_value == 2
