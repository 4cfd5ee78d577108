"""The attribution callback: on any LightningModule, without a trace in the training."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import lightning_xai as lx
from lightning_xai import evaluate
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.callbacks.samples import choose_samples, share, spread, unpack
from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.runs import read_runs
from lightning_xai.explainers import Gradient, RandomAttribution, with_controls
from lightning_xai.metrics import InherentNoise, RelevanceRankAccuracy, Sparseness
from lightning_xai.results.store import read_directions, read_samples, read_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*"),
]

BOUNDS = (0.0, 1.0)


def quick_methods() -> dict[str, lx.Smooth | Gradient]:
    return {"grad": Gradient(), "sg": lx.smooth_grad(num_draws=3), "ag": lx.adapt_grad(num_draws=2)}


class Images(Dataset):
    """Small random images; the label is which half is brighter."""

    def __init__(self, length: int = 13, kind: str = "tuple") -> None:
        self.images = torch.rand(length, 1, 6, 6, generator=torch.Generator().manual_seed(1))
        self.labels = (self.images[:, 0, :3].mean((1, 2)) > self.images[:, 0, 3:].mean((1, 2))).long()
        self.kind = kind

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        image, label = self.images[i], self.labels[i]
        mask = image[0] > 0.5
        return {
            "tuple": (image, label),
            "dict": {"pixel_values": image, "labels": label},
            "mask": {"image": image, "label": label, "index": 100 + i, "mask": mask},
            "masks": {"image": image, "label": label, "mask": {"bright": mask, "dark": ~mask}},
            "unlabeled": {"x": image},
            "foreign": {"picture": image},
        }[self.kind]


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = Images()
        return (images[i] for i in range(len(images)))


class SomebodysModule(LightningModule):
    """Not one of ours: dropout, batch norm, its own losses."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten())
        self.head = nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        samples = unpack(batch)
        return nn.functional.cross_entropy(self(samples.images), samples.labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_mean", self(unpack(batch).images).mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.01)


def make_trainer(tmp_path: Any, *callbacks: Any, **options: Any) -> Trainer:
    settings = {"logger": False, "max_epochs": 2, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **(settings | quiet | options))


def loader(kind: str = "tuple", shuffle: bool = False) -> DataLoader:
    return DataLoader(Images(kind=kind), batch_size=4, shuffle=shuffle)


def fit(tmp_path: Any, *callbacks: Any, kind: str = "tuple", **options: Any) -> tuple[Trainer, SomebodysModule]:
    torch.manual_seed(0)
    trainer, module = make_trainer(tmp_path, *callbacks, **options), SomebodysModule()
    trainer.fit(module, loader("tuple", shuffle=True), loader(kind))
    return trainer, module


class Interrupting(Callback):
    """A user who has waited for two epochs."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def test_an_interrupted_training_tells_what_it_has_measured(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the Trainer ignores later interrupts, also of these tests
    callback = AttributionCallback(["gradient"], ["sparseness"], num_samples=3)
    with pytest.raises(SystemExit):
        fit(tmp_path, callback, Interrupting(), max_epochs=4)
    printed = capsys.readouterr().out
    assert printed.count("validate, epoch 1: explanations of 3 samples") == 1
    assert f"lightning-xai report {tmp_path / 'xai'}" in printed


@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
def test_training_is_bit_identical_with_and_without_the_callback(tmp_path: Any, num_sanity_val_steps: int) -> None:
    callback = AttributionCallback(num_samples=5, bounds=BOUNDS)
    _, plain = fit(tmp_path, num_sanity_val_steps=num_sanity_val_steps)
    after_plain = torch.rand(3)
    _, observed = fit(tmp_path, callback, num_sanity_val_steps=num_sanity_val_steps)
    assert torch.equal(after_plain, torch.rand(3)), "the global random state differs"
    assert callback.evaluation is not None
    for name, value in plain.state_dict().items():
        assert torch.equal(value, observed.state_dict()[name]), name


def test_files_logs_and_evaluation_agree(tmp_path: Any) -> None:
    callback = AttributionCallback(quick_methods(), num_samples=7, panel_size=3, bounds=BOUNDS)
    trainer, module = fit(tmp_path, callback, kind="mask")
    evaluation = callback.evaluation
    assert evaluation is not None
    assert evaluation.index.tolist() == [100, 102, 104, 106, 108, 110, 112]
    rows = read_scores(tmp_path / "xai" / "scores")
    assert {row.epoch for row in rows} == {0, 1}
    last = [row for row in rows if row.epoch == 1]
    assert list(evaluation.scores) == [*quick_methods(), "edges", "random"]
    assert len(last) == 5 * 5 * 7
    for method, scores in evaluation.scores.items():
        for metric, values in scores.items():
            written = [row.value for row in last if (row.method, row.metric) == (method, metric)]
            assert written == values.tolist()
            if metric == "gradients":
                assert f"xai/{method}/{metric}" not in trainer.callback_metrics
                continue
            logged = trainer.callback_metrics[f"xai/{method}/{metric}"]
            torch.testing.assert_close(logged, values.mean(), check_dtype=False)
    panels = sorted(path.name for path in (tmp_path / "xai" / "panels").iterdir())
    assert panels == ["validate-epoch=000-step=4.png", "validate-epoch=001-step=8.png"]
    assert sorted(path.name for path in (tmp_path / "xai" / "scores").iterdir()) == ["000001.parquet", "000002.parquet"]
    assert read_directions(tmp_path / "xai" / "scores") == evaluation.higher_is_better
    known = read_samples(tmp_path / "xai" / "scores").query("epoch == 1")
    places = evaluation.index - 100
    assert (known["stage"] + known["step"].astype(str)).unique().tolist() == ["validate8"]
    assert known["sample"].tolist() == evaluation.index.tolist()
    assert known["target"].tolist() == Images().labels[places].tolist()
    assert known["explained"].unique().tolist() == ["label"]
    shares = module.eval()(Images().images[places]).softmax(1).detach()
    assert known["predicted"].tolist() == shares.argmax(1).tolist()
    torch.testing.assert_close(torch.tensor(known["probability"].tolist()), shares.amax(1))
    for sign in (1, -1):  # of one epoch and step the last one counts, as for the scores
        module.head.requires_grad_(False).weight.mul_(sign)
        trainer.validate(module, loader("mask"), verbose=False)
    known = read_samples(tmp_path / "xai" / "scores")
    assert known.groupby("epoch").size().to_dict() == {0: 7, 1: 7, 2: 7}
    assert known["predicted"].tolist()[14:] == module.eval()(Images().images[places]).argmax(1).tolist()


def test_scores_are_those_of_evaluate(tmp_path: Any) -> None:
    callback = AttributionCallback(quick_methods(), num_samples=13, panel_size=0, bounds=BOUNDS, seed=5)
    _, module = fit(tmp_path, callback, kind="mask")
    data = Images()
    expected = lx.evaluate(
        module,
        data.images,
        data.labels,
        with_controls(quick_methods()),
        masks=data.images[:, 0] > 0.5,
        bounds=BOUNDS,
        index=torch.arange(100, 113),
        seed=5,
    )
    assert callback.evaluation is not None
    torch.testing.assert_close(callback.evaluation.scores, expected.scores)


def test_model_checkpoint_and_early_stopping_see_the_metrics(tmp_path: Any) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor="xai/sg/sparseness", mode="max")
    stopping = EarlyStopping("xai/grad/sparseness", mode="max", patience=0, min_delta=1.0)
    callback = AttributionCallback(quick_methods(), num_samples=3, panel_size=0, bounds=BOUNDS)
    trainer, _ = fit(tmp_path, checkpoint, stopping, callback, max_epochs=5, enable_checkpointing=True)
    assert trainer.current_epoch == 2, "no epoch is 1.0 better than the first"
    assert checkpoint.best_model_score is not None
    assert checkpoint.best_model_score in checkpoint.best_k_models.values()


@pytest.mark.parametrize("kind", ["tuple", "dict", "mask", "masks", "unlabeled"])
@pytest.mark.parametrize("command", ["validate", "test"])
def test_any_batch_under_default_trainer_flags(tmp_path: Any, kind: str, command: str) -> None:
    """The Trainer's inference mode is on by default, where autograd records nothing."""
    shown = 4 if command == "validate" else 0
    callback = AttributionCallback(quick_methods(), num_samples=4, panel_size=shown, bounds=BOUNDS)
    trainer = make_trainer(tmp_path, callback)
    getattr(trainer, command)(SomebodysModule(), loader(kind), verbose=False)
    assert callback.evaluation is not None
    assert ("auroc" in callback.evaluation.scores["sg"]) == kind.startswith("mask")
    assert all(scores.isfinite().all() for scores in callback.evaluation.scores["sg"].values())
    assert {row.stage for row in read_scores(tmp_path / "xai" / "scores")} == {command}


def test_without_labels_the_predicted_class_is_explained(tmp_path: Any) -> None:
    callback = AttributionCallback({"grad": Gradient()}, num_samples=13, panel_size=0, keep_maps=True)
    module = SomebodysModule()
    make_trainer(tmp_path, callback).validate(module, loader("unlabeled"), verbose=False)
    assert callback.evaluation is not None
    assert torch.equal(callback.evaluation.target, module.eval()(Images().images).argmax(1))
    assert set(read_samples(tmp_path / "xai" / "scores")["explained"]) == {"prediction"}


def test_target_label_and_prediction(tmp_path: Any) -> None:
    module = SomebodysModule()
    for target in ("label", "prediction"):
        callback = AttributionCallback(
            {"grad": Gradient()}, num_samples=13, panel_size=0, keep_maps=True, target=target
        )
        make_trainer(tmp_path, callback).validate(module, loader(), verbose=False)
        assert callback.evaluation is not None
        expected = Images().labels if target == "label" else callback.evaluation.predicted
        assert torch.equal(callback.evaluation.target, expected)
        assert set(read_samples(tmp_path / "xai" / "scores")["explained"]) == {target}


def test_the_mask_is_chosen_by_name(tmp_path: Any) -> None:
    kept = {}
    for mask in (None, "bright", "dark"):
        callback = AttributionCallback({"grad": Gradient()}, num_samples=4, panel_size=0, keep_maps=True, mask=mask)
        make_trainer(tmp_path, callback).validate(SomebodysModule(), loader("masks"), verbose=False)
        assert callback.evaluation is not None
        kept[mask] = callback.evaluation.masks
    assert torch.equal(kept[None], kept["bright"])
    assert torch.equal(kept["dark"], ~kept["bright"])


def test_iterable_data_and_several_loaders(tmp_path: Any) -> None:
    stream = DataLoader(Stream(), batch_size=4)
    callback = AttributionCallback({"grad": Gradient()}, num_samples=6, panel_size=0, keep_maps=True)
    make_trainer(tmp_path, callback).validate(SomebodysModule(), stream, verbose=False)
    assert callback.evaluation is not None
    assert callback.evaluation.index.tolist() == list(range(6))
    assert torch.equal(callback.evaluation.images, Images().images[:6])

    class TwoLoaders(SomebodysModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            pass

    make_trainer(tmp_path, callback).validate(TwoLoaders(), [loader(), loader("mask")], verbose=False)
    assert ["auroc" in found.scores["grad"] for found in callback.evaluations.values()] == [False, True]


def test_processes_divide_a_stream(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, trainer = DataLoader(Stream(), batch_size=4), make_trainer(tmp_path)
    trainer.strategy.connect(SomebodysModule())
    monkeypatch.setattr(Trainer, "world_size", 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(Trainer, "global_rank", rank)
        parts.append(choose_samples(trainer, stream, 7, 2, unpack))
    assert [part.index.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6]]
    assert torch.equal(torch.cat([part.images for part in parts]), Images().images[:7])


def test_bounds_and_class_names_come_from_the_data_module(tmp_path: Any) -> None:
    class Data(LightningDataModule):
        bounds = (torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0))

        def val_dataloader(self) -> DataLoader:
            return loader()

    callback = AttributionCallback(
        {"sg": lx.smooth_grad(of="data")}, {"noise": InherentNoise()}, num_samples=3, panel_size=0
    )
    make_trainer(tmp_path, callback).validate(SomebodysModule(), Data(), verbose=False)
    own = AttributionCallback(
        {"sg": lx.smooth_grad(of="data")}, {"noise": InherentNoise()}, num_samples=3, panel_size=0, bounds=(0.0, 2.0)
    )
    make_trainer(tmp_path, own).validate(SomebodysModule(), loader(), verbose=False)
    assert callback.evaluation is not None
    assert own.evaluation is not None
    torch.testing.assert_close(callback.evaluation.scores, own.evaluation.scores)


def test_epochs_between_and_sanity_check_are_skipped(tmp_path: Any) -> None:
    callback = AttributionCallback(quick_methods(), num_samples=3, panel_size=0, every_n_epochs=2, bounds=BOUNDS)
    fit(tmp_path, callback, max_epochs=5, num_sanity_val_steps=1)
    assert {row.epoch for row in read_scores(tmp_path / "xai" / "scores")} == {1, 3}


def test_loggers_get_scalars_and_panels(tmp_path: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [TensorBoardLogger(tmp_path, "tb"), CSVLogger(tmp_path, "csv")]
    callback = AttributionCallback(quick_methods(), num_samples=3, panel_size=2, bounds=BOUNDS)
    fit(tmp_path, callback, logger=loggers)
    run = tmp_path / "tb" / "version_0"
    assert callback.folder == run / "xai"
    events = EventAccumulator(str(run)).Reload()
    assert [event.step for event in events.Images("xai/panel/validate")] == [4, 8]
    assert len(events.Scalars("xai/sg/sparseness")) == 2


def test_fast_dev_run_writes_nothing(tmp_path: Any) -> None:
    callback = AttributionCallback(quick_methods(), num_samples=3, bounds=BOUNDS)
    fit(tmp_path, callback, fast_dev_run=True)
    assert callback.evaluation is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_training(tmp_path: Any, precision: str) -> None:
    callback = AttributionCallback(bounds=BOUNDS, num_samples=3, panel_size=0)
    fit(tmp_path, callback, precision=precision, max_epochs=1)
    assert callback.evaluation is not None
    for method, scores in callback.evaluation.scores.items():
        for metric, values in scores.items():
            assert values.isfinite().all(), (method, metric)


def test_the_modules_own_transfer_hooks_are_used(tmp_path: Any) -> None:
    class Normalizing(SomebodysModule):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] + 1, batch[1]

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * 10, batch[1]

    callback = AttributionCallback({"grad": Gradient()}, num_samples=13, panel_size=0, keep_maps=True)
    make_trainer(tmp_path, callback).validate(Normalizing(), loader(), verbose=False)
    assert callback.evaluation is not None
    torch.testing.assert_close(callback.evaluation.images, (Images().images + 1) * 10)


def test_a_mistake_shows_in_the_sanity_check_before_training(tmp_path: Any) -> None:
    class NeverTrained(SomebodysModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise AssertionError("training has begun")

    def run(callback: AttributionCallback, kind: str = "tuple") -> None:
        make_trainer(tmp_path, callback, num_sanity_val_steps=2).fit(NeverTrained(), loader(), loader(kind))

    with pytest.raises(ValueError, match=r"`bounds` is needed by InRangeScale"):
        run(AttributionCallback({"ag": lx.adapt_grad()}))
    with pytest.raises(ValueError, match=r"'rra' \(RelevanceRankAccuracy\) needs `mask`"):
        run(AttributionCallback({"g": Gradient()}, {"rra": RelevanceRankAccuracy()}))
    with pytest.raises(ValueError, match=r"`mask` must be one of the data's masks, bright, dark, got 'box'"):
        run(AttributionCallback({"g": Gradient()}, mask="box"), "masks")
    with pytest.raises(ValueError, match=r"The batch must have one of the keys image, .*it has picture"):
        run(AttributionCallback({"g": Gradient()}, unpack=unpack), "foreign")
    assert not (tmp_path / "xai").exists()


def test_unknown_bounds_leave_adaptgrad_out_and_say_so(tmp_path: Any) -> None:
    callback = AttributionCallback(num_samples=2, panel_size=0)
    with pytest.warns(UserWarning, match="leaves AdaptGrad and the share of out-of-range noise out"):
        make_trainer(tmp_path, callback).validate(SomebodysModule(), loader(), verbose=False)
    assert callback.evaluation is not None
    assert list(callback.evaluation.scores) == [
        "gradient",
        "saliency",
        "smooth_grad",
        "noise_grad",
        "fusion_grad",
        "edges",
        "random",
    ]


def test_the_untrained_network_is_a_control_that_is_never_the_best(tmp_path: Any) -> None:
    callback = AttributionCallback(["gradient"], ["sparseness"], ["random", "untrained"], num_samples=4, panel_size=0)
    make_trainer(tmp_path, callback).validate(model := SomebodysModule(), loader(), verbose=False)
    assert callback.evaluation is not None
    scores = callback.evaluation.scores
    assert list(scores) == ["gradient", "random", "untrained"]
    images, labels = (torch.cat(parts) for parts in list(zip(*loader(), strict=True))[:2])
    chosen, methods = callback.evaluation.index, {"gradient": Gradient()}
    expected = evaluate(model, images[chosen], labels[chosen], methods, ["sparseness"], controls=["untrained"])
    torch.testing.assert_close(scores["untrained"], expected.scores["untrained"])
    assert not scores["untrained"]["sparseness"].equal(scores["gradient"]["sparseness"])
    comparison = compare_methods(read_runs([tmp_path]))
    assert comparison.controls == ("random", "untrained")
    assert [r.method for r in comparison.metrics[0].methods if r.rank is not None] == ["gradient"]


def test_controls_can_be_left_out_and_methods_made_to_cost_the_same(tmp_path: Any) -> None:
    callback = AttributionCallback(num_samples=2, panel_size=0, bounds=BOUNDS, controls=False, num_gradients=12)
    make_trainer(tmp_path, callback).validate(SomebodysModule(), loader(), verbose=False)
    assert callback.evaluation is not None
    assert {name: mean["gradients"] for name, mean in callback.evaluation.means().items()} == {
        "gradient": 1,
        "saliency": 1,
        "smooth_grad": 12,
        "adapt_grad": 12,
        "noise_grad": 12,
        "fusion_grad": 12,  # 3 models, 4 inputs each
    }


@pytest.mark.filterwarnings("ignore:Total length of .*DataLoader.* is zero")
def test_an_empty_validation_set_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="data set is empty: there is no sample to explain"):
        choose_samples(make_trainer(tmp_path), DataLoader(Images(0)), 3, 2, unpack)
    trainer, empty = make_trainer(tmp_path, AttributionCallback({"g": Gradient()})), DataLoader(Images(0), batch_size=4)
    with pytest.raises(ValueError, match="The validation set is empty"):
        trainer.fit(SomebodysModule(), loader(), empty)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "`num_samples` must be at least 1, got 0"),
        ({"every_n_epochs": 0}, "`every_n_epochs` must be at least 1, got 0"),
        ({"batch_size": -1}, "`batch_size` must be at least 1, got -1"),
        ({"panel_size": -1}, "`panel_size` must be at least 0, got -1"),
        ({"methods": {}}, "`methods` must name at least one explainer"),
        ({"methods": 3}, "`methods` must be a list of names, or map names to objects; got 3"),
        ({"metrics": "sparseness"}, "`metrics` must be a list of names, or map names to objects; got 'sparseness'"),
        ({"methods": {"a": 3}}, r"`methods\['a'\]` must be an explainer such as lightning_xai.Gradient\(\), got 3"),
        ({"metrics": {"a": 3}}, r"`metrics\['a'\]` must be a metric such as .*Sparseness\(\), got 3"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    unchecked = AttributionCallback.__init__.__wrapped__  # without the test suite's own check of the annotation
    with pytest.raises((TypeError, ValueError), match=message):
        unchecked(object.__new__(AttributionCallback), **options)


def test_unknown_target() -> None:
    unchecked = AttributionCallback.__init__.__wrapped__  # without the test suite's own check of the annotation
    with pytest.raises(ValueError, match="`target` must be one of 'label', 'prediction', 'positive', got 'truth'"):
        unchecked(object.__new__(AttributionCallback), target="truth")


def test_spread_and_share_cover_each_position_once() -> None:
    assert spread(13, 4).tolist() == [0, 4, 8, 12]
    assert spread(3, 10).tolist() == [0, 1, 2]
    for length in (1, 5, 64):
        for world in (1, 2, 3):
            parts = [share(torch.arange(length), rank, world) for rank in range(world)]
            assert torch.cat(parts).unique().tolist() == list(range(length))
            assert all(len(part) for part in parts)


def test_random_maps_are_the_same_at_every_epoch(tmp_path: Any) -> None:
    callback = AttributionCallback({"r": RandomAttribution()}, {"gini": Sparseness()}, num_samples=4, panel_size=0)
    fit(tmp_path, callback)
    rows = read_scores(tmp_path / "xai" / "scores")
    assert [row.value for row in rows if row.epoch == 0] == [row.value for row in rows if row.epoch == 1]


def test_maps_made_elsewhere_are_scored_by_the_callback_as_on_the_spot(tmp_path: Any) -> None:
    """By the indices that the data say; a map that is missing is named before the training."""
    options: dict[str, Any] = {"metrics": ["sparseness"], "num_samples": 5, "bounds": BOUNDS, "controls": False}
    spot = AttributionCallback(methods={"sg": lx.smooth_grad(num_draws=3)}, panel_size=0, keep_maps=True, **options)
    _, module = fit(tmp_path, spot, kind="mask", max_epochs=1)
    found = spot.evaluation
    assert found is not None
    assert found.index.tolist() == [100, 103, 106, 109, 112]
    lx.explainers.save_maps(tmp_path / "maps", found.attributions["sg"], found.index, found.target, part="0")
    kept = AttributionCallback(methods={"sg": lx.explainers.Precomputed(tmp_path / "maps")}, panel_size=0, **options)
    make_trainer(tmp_path, kept).validate(module, loader("mask"), verbose=False)
    assert kept.evaluation is not None
    assert torch.equal(kept.evaluation.scores["sg"]["sparseness"], found.scores["sg"]["sparseness"])
    with pytest.raises(ValueError, match="has no map of sample 0, but of 5 samples from 100 to 112"):
        fit(tmp_path, kept, max_epochs=1)
