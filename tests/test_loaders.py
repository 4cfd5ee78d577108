"""Loaders of all kinds: several, of single samples, of lists, of streams, and of samples of different sizes."""

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, IterableDataset

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback, RandomizationCallback
from lightning_xai.callbacks.samples import named_loaders, unpack
from lightning_xai.callbacks.summary import summary_table, written
from lightning_xai.experiments.prices import fit_prices
from lightning_xai.experiments.runs import read_runs
from lightning_xai.explainers import Gradient
from lightning_xai.functional.complexity import gini
from lightning_xai.metrics import Sparseness
from lightning_xai.reporting.tables import score_table
from lightning_xai.results.store import SCORES, read_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*Total length of.*is zero"),
]


class Images(Dataset):
    def __init__(self, length: int, seed: int = 0, side: int = 4) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(length, 1, side, side, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        return self.images[i], i % 3


class Module(LightningModule):
    """Of any size of pictures; with or without an axis for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, 3)
        self.places: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.places.append(dataloader_idx)
        return batch

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(unpack(batch, strict=False).images).mean()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val", self(unpack(batch, strict=False).images).mean(), batch_size=1)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-2)


class Untrained(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("training has begun")


def callback(**options: Any) -> AttributionCallback:
    settings: dict[str, Any] = {"num_samples": 4, "panel_size": 2, "controls": False, "metrics": {"s": Sparseness()}}
    return AttributionCallback({"grad": Gradient()}, **(settings | options))


def trainer_of(folder: Any, *callbacks: Any, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "max_epochs": 1}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(quiet | options))


def two() -> dict[str, DataLoader]:
    return {"day": DataLoader(Images(6), 3), "night": DataLoader(Images(5, seed=1), 2)}


# Several


def test_each_of_several_loaders_has_its_own_names_samples_scores_and_panels(tmp_path: Any) -> None:
    scores, module = callback(), Module()
    trainer = trainer_of(
        tmp_path,
        scores,
        ModelCheckpoint(tmp_path, monitor="xai/night/grad/s", mode="max"),
        enable_checkpointing=True,
        max_epochs=2,
    )
    trainer.fit(module, DataLoader(Images(4), 2), two())
    found = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("xai/")}
    images = {name: loader.dataset.images for name, loader in two().items()}
    rows = {"day": [0, 2, 3, 5], "night": [0, 1, 3, 4]}
    values = {}
    for name, own in rows.items():
        maps = Gradient()(module, images[name][own], torch.tensor(own) % 3)
        assert_close(scores.evaluations[name].attributions["grad"], maps[:2])
        values[f"xai/{name}/grad/s"] = gini(maps).mean().item()
    assert found == pytest.approx(values)
    table = read_scores(tmp_path / "xai" / SCORES)
    assert table.unique("stage") == ["validate/day", "validate/night"]
    assert table.select(stage="validate/night", metric="s", epoch=1).table["sample"].tolist() == rows["night"]
    names = sorted(path.name for path in (tmp_path / "xai" / "panels").iterdir())
    assert [name.partition("-epoch")[0] for name in names] == ["validate-day"] * 2 + ["validate-night"] * 2
    assert {0, 1} == set(module.places)
    latest = scores.scores()
    assert latest is not None
    assert [row[0] for row in score_table(latest).rows] == ["day/grad", "night/grad"]
    table = summary_table(scores, trainer)
    assert table is not None
    assert (
        table.title == "validate, epoch 1: explanations of 8 samples, mean ± standard error"
    )  # 5 numbers in two loaders
    assert table.columns == ("method", "s ↑", "gradients")
    assert dict(written(scores, trainer))["as a page"] == f"lightning-xai report {tmp_path}/xai --stage validate/day"
    with pytest.raises(ValueError, match=r"give `stage`, such as validate/day \(`--stage validate/day`\)\."):
        read_runs([tmp_path])
    (run,) = read_runs([tmp_path], stage="validate/night")
    assert run.metric_classes == {"s": "lightning_xai.metrics.Sparseness"}
    assert run.scores.table["sample"].max() == 4


def test_a_resumed_training_makes_the_scores_of_all_loaders_again(tmp_path: Any) -> None:
    first = trainer_of(tmp_path, callback(), ModelCheckpoint(tmp_path / "c", save_top_k=-1), enable_checkpointing=True)
    first.fit(Module(), DataLoader(Images(4), 2), two())
    trainer_of(tmp_path, callback(), max_epochs=3).fit(
        Module(), DataLoader(Images(4), 2), two(), ckpt_path=next((tmp_path / "c").glob("*.ckpt"))
    )
    table = read_scores(tmp_path / "xai" / SCORES).select(metric="s").table
    assert table.groupby(["stage", "epoch"], observed=True).size().tolist() == [4] * 6


def test_names_of_loaders() -> None:
    a, b, c = (DataLoader(Images(2)) for _ in range(3))
    assert named_loaders({"x": a}) == named_loaders([a]) == named_loaders(a) == {"": a}
    assert named_loaders([a, b]) == {"0": a, "1": b}
    assert named_loaders(CombinedLoader({"x": [a, b], "y": c}, "sequential")) == {"x-0": a, "x-1": b, "y": c}
    assert named_loaders(None) == named_loaders([]) == {}
    for wrong in ({"a/b": a, "c": b}, {"x-0": a, "x": [b, c]}):
        with pytest.raises(ValueError, match=r"names of several dataloaders become parts .* got '(a/b|x-0)'"):
            named_loaders(wrong)


def test_test_ends_checks_of_weights_and_named_callbacks_know_several_loaders(tmp_path: Any) -> None:
    named, weights = callback(name="few"), RandomizationCallback(["gradient"], ["spearman_absolute"], 3, repeats=1)
    trainer = trainer_of(tmp_path, named, weights)
    trainer.test(Module(), list(two().values()), verbose=False)
    found = {key for key in trainer.callback_metrics if key.endswith(("s", "spearman_absolute"))}
    assert {"xai/few/0/grad/s", "xai/few/1/grad/s"} <= found
    assert {f"sanity/{place}/gradient/spearman_absolute" for place in "01"} <= found
    assert weights.scores is not None
    assert set(weights.scores) >= {f"sanity/{place}/gradient/spearman_absolute_floor" for place in "01"}


class TwoSets(LightningDataModule):
    def val_dataloader(self) -> Any:
        return two()

    test_dataloader = train_dataloader = val_dataloader


def test_a_stream_of_one_of_several_loaders_is_to_be_named_and_a_price_is_told_of_each(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"`data`: TwoSets gives several dataloaders, day, night: give one of them"):
        lx.evaluate_stream(Module(), TwoSets(), tmp_path)
    titles = [price.title for price in fit_prices(trainer_of(tmp_path, callback()), Module(), TwoSets())]
    assert titles == [f"AttributionCallback {name}: a validation, 4 samples" for name in ("day", "night")]


def test_a_loader_of_several_without_samples_is_refused_before_training(tmp_path: Any) -> None:
    loaders = [DataLoader(Images(4)), DataLoader(Images(0))]
    with pytest.raises(ValueError, match="The validation set is empty"):
        trainer_of(tmp_path, callback()).fit(Untrained(), DataLoader(Images(4)), loaders)


# Single samples


class Single(IterableDataset):
    def __iter__(self) -> Any:
        return iter(Images(6))


class Described(Images):
    def __getitem__(self, i: int) -> Any:
        mask = torch.zeros(4, 4, dtype=torch.bool)
        mask[i % 4] = True
        return {"image": self.images[i], "label": torch.tensor(i % 3), "index": torch.tensor(i + 10), "mask": mask}


@pytest.mark.parametrize("data", [Images(6), Single(), Described(6)], ids=["rows", "stream", "dict"])
def test_single_samples_get_an_axis(tmp_path: Any, data: Any) -> None:
    scores, module = callback(num_samples=5, panel_size=5, metrics=None), Module()
    loader = DataLoader(data, batch_size=None)
    trainer_of(tmp_path, scores).fit(module, DataLoader(Images(4), 2), loader)
    found = scores.evaluation
    assert found is not None
    images, target = Images(6).images[:5], torch.arange(5) % 3
    assert_close(found.images, images)
    assert found.target.tolist() == target.tolist()
    assert found.index.tolist() == [i + 10 * isinstance(data, Described) for i in range(5)]
    assert ("auroc" in found.scores["grad"]) == isinstance(data, Described)
    expected = lx.evaluate(module, images, target, {"grad": Gradient()}, {"s": Sparseness()}).scores["grad"]["s"]
    streamed = lx.evaluate_stream(module, loader, tmp_path / "stream", methods={"grad": Gradient()}, metrics=None)
    assert streamed.num_now == 6
    values = streamed.scores().select(metric="sparseness").table["value"]
    assert_close(torch.tensor(values.to_numpy()[:5]), expected.double())


# Lists, and different sizes


def listed(samples: Any) -> Any:
    return tuple(zip(*samples, strict=True))


def test_batches_of_lists_are_stacked(tmp_path: Any) -> None:
    scores = callback()
    trainer_of(tmp_path, scores).validate(Module(), DataLoader(Images(4), 2, collate_fn=listed), verbose=False)
    assert scores.evaluation is not None
    assert_close(scores.evaluation.images, Images(4).images[:2])
    two_views = [torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)]
    with pytest.raises(TypeError, match="images must be a tensor, got list"):  # several inputs are no samples
        unpack((two_views, torch.tensor([0, 1, 2])))


class Sizes(Images):
    def __getitem__(self, i: int) -> Any:
        return torch.full((1, 4 + i % 2, 4), i / 10), i % 3


@pytest.mark.parametrize("kind", ["rows", "lists", "one at a time", "a stream"])
def test_samples_of_different_sizes_are_refused_before_training_with_what_to_do(tmp_path: Any, kind: str) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return map(Sizes(4).__getitem__, range(4))

    loader = DataLoader(Stream() if kind == "a stream" else Sizes(4), 1, collate_fn=listed if kind == "lists" else None)
    scores = callback(batch_size=1 if kind == "one at a time" else 64)
    with pytest.raises(
        ValueError, match=r"different sizes are not explained together: resize .* `lightning_xai.evaluate"
    ):
        trainer_of(tmp_path, scores).fit(Untrained(), DataLoader(Images(4)), loader)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_evaluates_samples_of_different_sizes_one_by_one(tmp_path: Any, stream: bool) -> None:
    module, data = Module(), Sizes(5)
    loader: Any = [(image[None], torch.tensor([label])) for image, label in map(data.__getitem__, range(5))]
    loader = loader if stream else DataLoader(data, 1)
    options: dict[str, Any] = {"methods": {"grad": Gradient()}, "metrics": {"s": Sparseness()}, "batch_size": 1}
    found = lx.evaluate_stream(module, loader, tmp_path, **options).scores().select(metric="s").table["value"]
    for value, (image, label) in zip(found, map(data.__getitem__, range(5)), strict=True):
        own = lx.evaluate(module, image[None], torch.tensor([label]), options["methods"], options["metrics"])
        assert value == pytest.approx(own.scores["grad"]["s"].item())
