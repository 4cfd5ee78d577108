"""What a training will log, and who waits for it, is known before it begins; names that clash are refused."""

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai.callbacks import AttributionCallback, ParetoFront, RandomizationCallback
from lightning_xai.callbacks.schedule import Schedule, Waiting
from lightning_xai.explainers import Gradient, Saliency
from lightning_xai.metrics import Sparseness
from lightning_xai.results.store import read_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*"),
    pytest.mark.filterwarnings("ignore:.*ParetoFront leaves out.*"),
]

KEY = "xai/grad/s"


class Module(LightningModule):
    """Logs nothing of its own; `scheduler` is what its optimizer comes with."""

    def __init__(self, **scheduler: Any) -> None:
        super().__init__()
        self.net, self.scheduler, self.steps = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), scheduler, 0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.steps += 1
        return self(batch[0]).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 1e-3)
        if not self.scheduler:
            return optimizer
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": KEY, **self.scheduler}}


def scores(**options: Any) -> AttributionCallback:
    settings = {"methods": {"grad": Gradient()}, "metrics": {"s": Sparseness()}, "num_samples": 2, "panel_size": 0}
    return AttributionCallback(**(settings | options))


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.rand(6, 1, 4, 4), torch.arange(6) % 3), 2)


def fit(folder: Any, *callbacks: Any, module: Module | None = None, **options: Any) -> Module:
    """Trained for four epochs of three steps."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    checkpointing = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    quiet |= {"enable_checkpointing": checkpointing, "num_sanity_val_steps": 0, "max_epochs": 4}
    module = module or Module()
    Trainer(default_root_dir=folder, callbacks=list(callbacks), **(quiet | options)).fit(module, loader(), loader())
    return module


def refused(folder: Any, message: str, *callbacks: Any, module: Module | None = None, **options: Any) -> None:
    module = module or Module()
    with pytest.raises(ValueError, match=message):
        fit(folder, *callbacks, module=module, **options)
    assert module.steps == 0, "before training"
    assert not (folder / "xai").exists()


def checkpoint(**options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(monitor=KEY, **options)


WAIT_IN_VAIN = {
    "checkpoint": lambda: checkpoint(),
    "checkpoint after validation": lambda: checkpoint(save_on_train_epoch_end=False),
    "checkpoint every third": lambda: checkpoint(every_n_epochs=3),
    "checkpoint by steps": lambda: checkpoint(every_n_train_steps=2),
    "early stopping": lambda: EarlyStopping(KEY),
    "early stopping after validation": lambda: EarlyStopping(KEY, check_on_train_epoch_end=False),
}


@pytest.mark.parametrize("who", WAIT_IN_VAIN)
def test_who_looks_for_a_metric_when_it_is_not_logged_is_refused_with_the_cure(tmp_path: Any, who: str) -> None:
    message = rf"(?s:.*)'{KEY}' after epoch \d, .*(`every_n_epochs` 2, .*Give AttributionCallback `every_n_epochs` 1"
    refused(tmp_path, message.replace("(`", r"\(`"), scores(every_n_epochs=2), WAIT_IN_VAIN[who]())


@pytest.mark.parametrize("who", ["checkpoint", "early stopping", "plateau"])
def test_without_the_check_lightning_would_end_the_training_or_take_an_old_value(
    tmp_path: Any, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused is refused for a reason."""
    monkeypatch.setattr("lightning_xai.callbacks.recurring.check_monitors", lambda *_: None)
    module = Module(**({"interval": "epoch"} if who == "plateau" else {}))
    callbacks = [] if who == "plateau" else [WAIT_IN_VAIN[who]()]
    with pytest.raises(Exception, match=rf"{KEY}.*"):
        fit(tmp_path, scores(every_n_epochs=2), *callbacks, module=module)
    assert module.steps == 3


@pytest.mark.parametrize(
    ("every", "who", "options"),
    [
        (2, lambda: checkpoint(every_n_epochs=2), {}),
        (2, lambda: checkpoint(every_n_epochs=4), {}),
        (2, lambda: checkpoint(), {"check_val_every_n_epoch": 2}),
        (2, lambda: EarlyStopping(KEY, patience=99), {"check_val_every_n_epoch": 2}),
        (2, lambda: EarlyStopping(KEY, patience=99, strict=False), {}),
        (1, lambda: EarlyStopping(KEY, patience=99), {"val_check_interval": 1 / 3}),
        (1, lambda: checkpoint(every_n_train_steps=2), {}),
        (2, lambda: ModelCheckpoint(save_top_k=-1), {}),
        (2, lambda: ParetoFront({KEY: "max", "xai/edges/s": "max"}), {}),
        (1, lambda: EarlyStopping(KEY, patience=99), {"max_steps": 6}),
    ],
)
def test_who_gets_what_it_looks_for_is_let_through(tmp_path: Any, every: int, who: Any, options: dict) -> None:
    module = fit(tmp_path, scores(every_n_epochs=every), who(), **options)
    assert module.steps == options.get("max_steps", 12)


@pytest.mark.parametrize(
    "who",
    [
        lambda: ModelCheckpoint(monitor="xai/grad/typo"),
        lambda: EarlyStopping("xai/gradient/s"),
        lambda: EarlyStopping("xai/grad/gradients"),
        lambda: ParetoFront({KEY: "max", "xai/grad/typo": "max"}),
    ],
)
@pytest.mark.parametrize("options", [{}, {"fast_dev_run": True}])
def test_a_metric_that_nothing_logs_is_refused_with_those_that_are_logged(
    tmp_path: Any, who: Any, options: dict
) -> None:
    message = (
        r"waits for 'xai/.*', which nothing logs: .* AttributionCallback logs xai/edges/s, xai/grad/s, xai/random/s"
    )
    refused(tmp_path, message, scores(), who(), **options)


def test_nothing_is_logged_without_validation(tmp_path: Any) -> None:
    refused(tmp_path, "logs nothing, for lack of a validation", scores(), EarlyStopping(KEY), limit_val_batches=0)


@pytest.mark.parametrize(
    ("scheduler", "every", "message"),
    [
        ({}, 2, r"ReduceLROnPlateau .*after epoch 0.*or the scheduler `frequency` 2"),
        ({"frequency": 2}, 2, None),
        ({"strict": False}, 2, None),
        ({"interval": "step"}, 1, "after single steps.*Give the scheduler the `interval` 'epoch'"),
        ({"interval": "step", "frequency": 3}, 1, None),
        ({}, 1, None),
    ],
)
@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned on metric")
def test_learning_rates_that_wait_for_a_metric(tmp_path: Any, scheduler: dict, every: int, message: Any) -> None:
    module = Module(**({"interval": "epoch"} | scheduler))
    if message is None:
        assert fit(tmp_path, scores(every_n_epochs=every), module=module).steps == 12
    else:
        refused(tmp_path, message, scores(every_n_epochs=every), module=module)


def test_epochs_at_which_nothing_is_explained_are_told(tmp_path: Any) -> None:
    with pytest.warns(
        UserWarning, match=r"explains nothing in this training: by `every_n_epochs` 3 and .* every 6 epochs"
    ):
        fit(tmp_path, scores(every_n_epochs=3), check_val_every_n_epoch=2)
    with pytest.warns(UserWarning, match=r"explains only every 6 epochs"):
        fit(tmp_path, scores(every_n_epochs=3), check_val_every_n_epoch=2, max_epochs=6)
    with pytest.warns(UserWarning, match=r"explains nothing"):
        fit(tmp_path, scores(every_n_epochs=3), max_steps=8)
    assert {row.epoch for row in read_scores(tmp_path / "xai" / "scores")} == {5}


def test_the_first_miss_is_found_by_going_through_the_epochs() -> None:
    def brute(waiting: Waiting, schedule: Schedule) -> int | None:
        logged: set[int] = set()
        for epoch in range(schedule.first, int(schedule.end)):
            logged |= {epoch} & set(filter(schedule.explained, [epoch]))
            looks = (epoch + 1) % waiting.every == 0 and (schedule.validated(epoch) or not waiting.at_validation)
            if looks and epoch not in logged and (schedule.validated(epoch) or not logged):
                return epoch
        return None

    for first in (0, 1, 5):
        for val, every, each in [(v, n, w) for v in (None, 1, 2, 3) for n in (1, 2, 3, 4) for w in (1, 2, 3, 6)]:
            for at_validation in (False, True):
                waiting = Waiting("", "", each, at_validation, fails=True)
                schedule, endless = (Schedule(first, end, val, every) for end in (60.0, float("inf")))
                assert schedule.first_miss(waiting) == brute(waiting, schedule)
                assert endless.first_miss(waiting) == brute(waiting, schedule)


# Names


@pytest.mark.parametrize("named", [{}, {"name": "few"}])
@pytest.mark.parametrize("kind", [AttributionCallback, RandomizationCallback])
def test_two_callbacks_with_the_same_names_are_refused(tmp_path: Any, kind: type, named: dict) -> None:
    with pytest.raises(ValueError, match=rf"2 {kind.__name__}s have the `name` .*Give each its own `name`"):
        fit(tmp_path, kind({"a": Gradient()}, **named), kind({"b": Saliency()}, **named))


def test_capitals_do_not_tell_folders_apart(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="have the `name`"):
        fit(tmp_path, scores(name="Few"), scores(name="few"))


def test_two_callbacks_with_names_keep_their_metrics_files_and_panels_apart(tmp_path: Any) -> None:
    few, many = scores(num_samples=2, name="few", panel_size=1), scores(num_samples=5, name="many", every_n_epochs=2)
    third, stopping = scores(num_samples=3), EarlyStopping("xai/few/grad/s", patience=9, mode="max")
    fit(tmp_path, few, many, third, stopping)
    found = {name: read_scores(tmp_path / "xai" / name / "scores") for name in ("few", "many", ".")}
    assert {name: len({row.sample for row in rows}) for name, rows in found.items()} == {"few": 2, "many": 5, ".": 3}
    assert {name: len({row.epoch for row in rows}) for name, rows in found.items()} == {"few": 4, "many": 2, ".": 4}
    assert few.folder == tmp_path / "xai" / "few"
    assert len(list((tmp_path / "xai" / "few" / "panels").iterdir())) == 4
    refused_name = "waits for 'xai/many/grad/s', which nothing logs"
    with pytest.raises(ValueError, match=refused_name):
        fit(tmp_path, scores(name="few"), EarlyStopping("xai/many/grad/s"))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\rb", "a/b", "a\tb", "a\x1b[31m", "a\u2028b"])
def test_names_that_break_metrics_or_tables_are_refused(name: str) -> None:
    for make in (
        lambda: AttributionCallback({name: Gradient()}),
        lambda: AttributionCallback(metrics={name: Sparseness()}),
        lambda: AttributionCallback(name=name),
        lambda: RandomizationCallback({name: Gradient()}),
        lambda: RandomizationCallback(name=name),
    ):
        with pytest.raises(ValueError, match=r"`(methods|metrics|name)` must"):
            make()


@pytest.mark.parametrize("name", ["..", ".", "a\\b", "-a", "con:", "ends."])
def test_names_that_are_no_folders_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="`name` must be made of"):
        AttributionCallback(name=name)


# Strategies, and the other callback


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
@pytest.mark.parametrize("kind", [AttributionCallback, RandomizationCallback])
def test_sharded_models_are_refused_by_the_strategys_name(kind: type, strategy: type) -> None:
    callback = kind()
    trainer = Trainer(callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer._accelerator_connector.strategy = object.__new__(strategy)
    with pytest.raises(ValueError, match=rf"`strategy`: {kind.__name__} needs a whole model .*{strategy.__name__}"):
        callback.setup(trainer, Module(), "fit")


def test_monitors_of_the_randomization_callback(tmp_path: Any) -> None:
    key = "sanity/grad/ssim"
    for every in (None, 2):
        callback = RandomizationCallback({"grad": Gradient()}, every_n_validations=every)
        with pytest.raises(ValueError, match=f"waits for '{key}', which nothing logs"):
            fit(tmp_path, callback, EarlyStopping(key))
