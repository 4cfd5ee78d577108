"""The Pareto front of a training's validations."""

import csv
import io
import math
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from rich.console import Console

from lightning_xai.callbacks import AttributionCallback, ParetoFront
from lightning_xai.data import DigitsDataModule
from lightning_xai.explainers import Saliency
from lightning_xai.metrics import Sparseness
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import MLP
from lightning_xai.reporting.render import terminal_table
from lightning_xai.reporting.tables import front_table, write_validations
from lightning_xai.results.pareto import Validation, pareto_front

MONITOR = {"val/accuracy": "max", "val/loss": "min"}


def validations(*values):
    return [Validation(epoch, 10 * epoch, value) for epoch, value in enumerate(values)]


def epochs(front):
    return [validation.epoch for validation in front]


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (("max", "max"), [1, 2]),
        (("max", "min"), [1, 0]),
        (("min", "max"), [3, 2]),
        (("min", "min"), [3]),
    ],
)
def test_the_front_of_four_points(modes, expected):
    """Best of the first metric first."""
    points = validations((0.4, 1.0), (0.9, 2.0), (0.5, 3.0), (0.1, 1.0))
    assert epochs(pareto_front(points, modes)) == expected


def test_equal_points_are_all_on_the_front_and_an_equal_metric_does_not_save_a_worse_one():
    assert epochs(pareto_front(validations((1.0, 2.0), (1.0, 2.0), (1.0, 1.0)), ("max", "max"))) == [0, 1]


def test_undefined_values_are_on_no_front_and_beat_nobody():
    points = validations((math.nan, 9.0), (0.5, 0.5), (0.6, math.nan))
    assert epochs(pareto_front(points, ("max", "max"))) == [1]
    assert pareto_front([], ("max", "max")) == []


def test_three_metrics():
    points = validations((1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (2.0, 0.0, 0.0))
    assert epochs(pareto_front(points, ("max", "max", "max"))) == [2, 1]


def test_the_table_and_the_file(tmp_path):
    points = validations((0.4, 1.0), (0.9, 0.5), (0.5, 0.25))
    console = Console(width=120, file=io.StringIO())
    console.print(terminal_table(front_table(points, MONITOR)))
    text = console.file.getvalue()
    assert "Pareto front: 2 of 3 validations" in text
    assert "val/accuracy ↑" in text
    assert "val/loss ↓" in text
    assert text.index("0.9000") < text.index("0.2500")
    assert "0.4000" not in text
    write_validations(tmp_path / "new" / "pareto.csv", points, MONITOR)
    lines = (tmp_path / "new" / "pareto.csv").read_text().splitlines()
    assert list(csv.reader(lines)) == [
        ["epoch", "step", "val/accuracy", "val/loss", "on_front"],
        ["0", "0", "0.4", "1", "0"],
        ["1", "10", "0.9", "0.5", "1"],
        ["2", "20", "0.5", "0.25", "1"],
    ]


class Observer(Callback):
    """What the trainer says at each validation end, read independently of the front."""

    def __init__(self, names):
        self.names, self.noted = names, []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking and all(name in trainer.callback_metrics for name in self.names):
            values = tuple(float(trainer.callback_metrics[name]) for name in self.names)
            self.noted.append((trainer.current_epoch, trainer.global_step, values))


def trainer_of(folder, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(callbacks=list(callbacks), default_root_dir=folder, **quiet, **options)


def module_and_data():
    torch.manual_seed(0)
    return ClassifierModule(MLP((1, 28, 28), hidden=(8,))), DigitsDataModule(batch_size=64)


def noted(front):
    return [(v.epoch, v.step, v.values) for v in front.validations]


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)


def test_every_validation_is_noted_with_the_values_that_were_logged(tmp_path):
    front, observer = ParetoFront(MONITOR), Observer(MONITOR)
    module, data = module_and_data()
    trainer_of(tmp_path, front, observer, max_epochs=3, enable_checkpointing=False).fit(module, data)
    assert len(front.validations) == 3
    assert noted(front) == observer.noted
    written = list(csv.DictReader((tmp_path / "xai" / "pareto.csv").read_text().splitlines()))
    assert [row["epoch"] for row in written] == ["0", "1", "2"]
    assert [float(row["val/loss"]) for row in written] == pytest.approx([v[1] for _, _, v in observer.noted])


def test_validations_without_fresh_values_are_left_out(tmp_path):
    """The explanations are scored at every second epoch; in between their old values stand in Lightning's metrics."""
    name = "xai/saliency/sparseness"
    scores = AttributionCallback(
        {"saliency": Saliency()}, {"sparseness": Sparseness()}, num_samples=4, every_n_epochs=2, panel_size=0
    )
    front = ParetoFront({"val/accuracy": "max", name: "max"})
    observer = Observer([name])
    module, data = module_and_data()
    with pytest.warns(UserWarning, match=rf"at which {name} was not logged. Logged were: .*val/accuracy"):
        trainer_of(tmp_path, scores, front, observer, max_epochs=5, enable_checkpointing=False).fit(module, data)
    assert epochs(front.validations) == [1, 3]
    assert [v.values[1] for v in front.validations] == [v[0] for epoch, _, v in observer.noted if epoch in (1, 3)]


def test_a_resumed_training_goes_on_with_what_was_noted(tmp_path):
    first, checkpoint = ParetoFront(MONITOR), ModelCheckpoint(tmp_path, save_last=True)
    module, data = module_and_data()
    trainer_of(tmp_path, first, checkpoint, max_epochs=2).fit(module, data)
    second = ParetoFront(MONITOR)
    trainer_of(tmp_path, second, max_epochs=3, enable_checkpointing=False).fit(
        module, data, ckpt_path=tmp_path / "last.ckpt"
    )
    assert noted(second)[:2] == noted(first)
    assert epochs(second.validations) == [0, 1, 2]
    other = ParetoFront({"val/loss": "min", "val/accuracy": "max"})
    trainer_of(tmp_path, other, max_epochs=3, enable_checkpointing=False).fit(
        module, data, ckpt_path=tmp_path / "last.ckpt"
    )
    assert epochs(other.validations) == [2], "the noted values are of other metrics"


def test_a_second_training_starts_anew(tmp_path):
    front = ParetoFront(MONITOR)
    for _ in range(2):
        module, data = module_and_data()
        trainer_of(tmp_path, front, max_epochs=1, enable_checkpointing=False).fit(module, data)
    assert epochs(front.validations) == [0]


@pytest.mark.filterwarnings("ignore:ParetoFront leaves out")
def test_nothing_is_written_in_a_fast_run_nor_noted_in_a_validation(tmp_path):
    front = ParetoFront(MONITOR)
    module, data = module_and_data()
    trainer_of(tmp_path, front, fast_dev_run=True).fit(module, data)
    assert not Path(tmp_path, "xai").exists()
    front = ParetoFront(MONITOR)
    trainer_of(tmp_path, front).validate(module, data, verbose=False)
    assert front.validations == []


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`monitor` must name at least two logged metrics, each max or min; got"):
        ParetoFront({"val/accuracy": "max"})
    with pytest.raises(ValueError, match=r"`monitor` must be one of 'max', 'min', got 'up'"):
        ParetoFront.__init__.__wrapped__(ParetoFront.__new__(ParetoFront), {"val/accuracy": "max", "b": "up"})
