"""`--dry_run`: gradients are those that the work itself takes, and nothing is trained or written."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import lightning_xai as lx
from lightning_xai import metrics
from lightning_xai.callbacks import AttributionCallback, ParetoFront, RandomizationCallback, ShortcutSentinel
from lightning_xai.cli import main
from lightning_xai.data import DigitsDataModule
from lightning_xai.experiments.prices import _StandIn, fit_prices, sanity_price
from lightning_xai.explainers.cost import counting_gradients
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import MLP
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import examine
from lightning_xai.sanity.randomization import Randomization
from lightning_xai.sanity.similarity import SIMILARITIES

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # between Lightning and jsonargparse
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]
METHODS = {"gradient": lx.Gradient(), "smooth": lx.smooth_grad(num_draws=3), "noise": lx.noise_grad(num_draws=2)}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


def prices_of(*callbacks, **options):
    settings = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=list(callbacks), **(settings | {"max_epochs": 6} | options))
    model = ClassifierModule(MLP(image_shape=(1, 8, 8)))
    return fit_prices(trainer, model, DigitsDataModule(image_size=8))


def test_what_a_training_explains_is_counted_callback_by_callback():
    first = AttributionCallback(
        METHODS, {"again": metrics.MaxSensitivity(num_draws=4)}, num_samples=10, batch_size=2, every_n_epochs=2
    )
    second = RandomizationCallback(METHODS, num_samples=5, repeats=2, every_n_validations=3, name="more")
    found = prices_of(first, ParetoFront({"xai/smooth/again": "min", "accuracy": "max"}), second)
    assert [price.num_samples for price in found] == [10, 5]
    assert [price.gradients for price in found] == [10 * (1 + 4) * (1 + 3 + 2), 5 * (1 + 2) * (1 + 3 + 2)]
    assert found[0].title == "AttributionCallback: a validation, 10 samples"
    assert "In 3 validations, at most: 900 gradients" in found[0].notes[-1]
    assert found[1].title == "RandomizationCallback more: a validation, 5 samples"
    assert "In 2 validations, at most: 180 gradients" in found[1].notes[-1]


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec")
def test_a_look_for_shortcuts_is_as_many_pictures_as_one_takes_that_proves_nothing():
    sentinel = ShortcutSentinel(num_samples=200, every_n_epochs=2, mask=False, summary=False)
    module, data = ClassifierModule(_StandIn(10)), DigitsDataModule(image_size=8)
    trainer = Trainer(
        callbacks=[sentinel], max_epochs=4, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (found,) = fit_prices(trainer, module, data)
    assert found.title == "ShortcutSentinel: a validation, 200 samples"
    assert "In 2 validations, at most:" in found.notes[-1]
    assert all(cost.seconds > 0 for cost in found.costs.values())
    trainer.validate(module, data, verbose=False)
    (report,) = sentinel.reports["validate"]
    assert not report.shortcuts
    assert round(200 * found.sample.passes) == report.settings["rows"]
    assert round(found.gradients) == report.settings["gradients"]
    few = prices_of(ShortcutSentinel(num_samples=20, mask=False))[0]
    assert (few.gradients, few.sample.passes) == (0, 1)
    assert few.notes[0].startswith("Nothing can be proven: `images` must hold at least two classes")


@pytest.mark.parametrize(
    ("options", "validations"),
    [
        ({}, "In 6 validations"),
        ({"check_val_every_n_epoch": 4}, "In 1 validation,"),
        ({"val_check_interval": 0.25}, "In 24 validations"),
        ({"limit_val_batches": 1}, "In 6 validations"),
        ({"max_epochs": -1, "max_steps": 100}, "How many validations there will be is not known"),
    ],
)
def test_validations_are_counted_as_the_trainer_will_make_them(options, validations):
    (found,) = prices_of(AttributionCallback(METHODS, ["sparseness"], num_samples=3), **options)
    assert found.notes[-1].startswith(validations)
    assert found.notes[-1].endswith("The training itself is not in it.")


def test_a_training_without_explanations_has_no_price():
    with pytest.raises(ValueError, match="`dry_run`: the trainer has no callback that explains"):
        prices_of()


@pytest.mark.parametrize(
    ("checks", "how"),
    [
        (("parameters",), Randomization(("cascading_from_top", "full"), 2)),
        (("invariance", "random_logit"), Randomization()),
        (("efficient", "data"), Randomization(("independent",), 3)),
    ],
)
def test_gradients_of_sanity_checks_are_those_that_they_take(checks, how):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    images = torch.rand(4, 1, 8, 8)
    given = (model, images, torch.tensor([0, 1, 2, 0]), torch.arange(4), METHODS, {"ssim": SIMILARITIES["ssim"]})
    subject = Subject(*given, batch_size=2, randomization=how)
    twins = [replace_weights(model, number) for number in range(2)]
    found = sanity_price(subject, checks, "ssim", num_twins=2, make_twin=None, folder=None)
    with counting_gradients(model) as count:  # copies have the hook too
        examine(subject, checks, "ssim", make_twin=lambda number: (twins[number], 1.0), num_twins=2)
    others = 2 * 4 * (1 + 3 + 2) * ("data" in checks)  # of networks that are no copies
    assert found.gradients == count.total + others


def replace_weights(model, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def test_the_option_trains_and_writes_nothing(capsys, tmp_path):
    options = ["--trainer.accelerator=cpu", "--trainer.callbacks.init_args.num_samples=4"]
    main(["fit", "--config=quickstart", *options, "--dry_run", "--trainer.max_epochs=2"])
    printed = capsys.readouterr().out
    row = re.search(r"all \* +(\d+) +\d+ +\S+ +([\d,]+)", printed)
    assert (row[1], row[2]) == ("212", "848")  # 1 + 1 + 50 + 50 + 10 + 100
    assert "In 2 validations, at most: 1,696 gradients" in printed
    assert not list(tmp_path.iterdir())


def test_a_study_has_a_price_for_each_network_before_any_is_trained(capsys, tmp_path):
    study = Path("small.yaml")
    study.write_text(
        "summary: A small one.\nsource: Ours\nnetworks: [mnist_mlp]\nnum_samples: 3\n"
        "methods: {G: gradient, SG: {class_path: smooth_grad, init_args: {num_draws: 4}}}\nmetrics: [sparseness]\n"
    )
    main(["study", str(study), "--embedded=true", "--device=cpu", "--progress=false", "--dry_run"])
    printed = capsys.readouterr().out
    assert "mnist_mlp: 3 samples" in printed
    assert re.search(r"all \* +5 +0 +\S+ +15 ", printed)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


# Networks with other arguments, results and inputs


class Words(Dataset):
    """Token embeddings, a mask that the network takes along, and labels that no class has."""

    def __len__(self):
        return 7

    def __getitem__(self, row):
        return {"tokens": torch.rand(5, 3), "scale": torch.tensor(float(row)), "label": torch.tensor(9)}


class Reader(LightningModule):
    """From (batch, token, channel), the channels last, to two numbers of three parts."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def forward(self, tokens, scale):
        assert tokens.shape[1:] == (5, 3)
        return {"parts": self.layer(tokens).mean(1).view(-1, 3, 2) * scale[:, None, None]}

    def validation_step(self, batch, number):
        pass


class Text(LightningDataModule):
    def val_dataloader(self):
        return DataLoader(Words(), 4)


def first_part(raw):
    return raw[:, 0]


OTHER = {
    "output": lx.outputs.Of(first_part),
    "forward": {"key": "parts", "explained": "tokens", "carried": ["scale"]},
    "channel_dim": -1,
    "batch_size": 2,
}


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")  # Lightning's own
def test_outputs_adapters_and_channels_of_a_callback_have_their_price():
    methods = {"gradient": lx.Gradient(), "smooth": lx.smooth_grad(num_draws=3)}
    callback = AttributionCallback(methods, ["sparseness"], num_samples=5, **OTHER)
    checks = RandomizationCallback(methods, ["spearman_absolute"], num_samples=5, name="more", **OTHER)
    settings = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}
    trainer = Trainer(callbacks=[callback, checks], fast_dev_run=False, enable_model_summary=False, **settings)
    model = Reader()
    told, again = fit_prices(trainer, model, Text())
    trainer.validate(model, Text(), verbose=False)
    counted = sum(float(scores["gradients"].sum()) for scores in callback.evaluation.scores.values())
    assert told.gradients == counted == 5 * (1 + 3)
    assert again.gradients == 3 * counted  # under the network, and two with random weights


def test_sanity_checks_of_another_output_have_their_price():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Unflatten(1, (3, 2))).eval()
    given = (model, torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64), torch.arange(4), METHODS, {})
    found = sanity_price(Subject(*given, batch_size=2, output=OTHER["output"]), ("random_logit",))
    assert found.gradients == 2 * 4 * (1 + 3 + 2)


# Of streams

IMAGES = torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(0))
PICTURES = DataLoader(TensorDataset(IMAGES, torch.arange(11) % 3), 4)
AGAIN = {"sparseness": metrics.Sparseness(), "again": metrics.MaxSensitivity(num_draws=4)}


def dense():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 3))


def convolutions():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def normalized():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def streamed(model, data, folder, **options):
    return lx.evaluate_stream(model, data, folder, methods=METHODS, metrics=AGAIN, batch_size=3, **options)


def under_count(model, *given, **options):
    """The result, and gradients that are counted while it is made."""
    with counting_gradients(model) as count:
        result = streamed(model, *given, **options)
    return result, count.total


@pytest.mark.parametrize("make", [dense, convolutions, normalized])
def test_gradients_of_a_stream_are_those_that_it_takes_and_nothing_is_written(make, tmp_path):
    torch.manual_seed(0)
    model, folder = make().eval(), tmp_path / "scores"
    told = streamed(model, PICTURES, folder, dry_run=True)
    assert not list(tmp_path.iterdir())
    assert (told.num_now, told.num_finished, told.price.num_samples) == (0, 0, 11)
    assert told.price.title == "11 of 11 samples are missing"
    result, counted = under_count(model, PICTURES, folder)
    assert told.price.gradients == pytest.approx(counted)
    assert counted == 11 * (1 + 4) * (1 + 3 + 2)
    assert result.price is None


def test_what_is_missing_of_all_shards_has_a_price_and_the_own_one_is_said(tmp_path):
    model = dense().eval()
    lx.evaluate_stream(model, PICTURES, tmp_path, methods={"gradient": lx.Gradient()}, metrics=AGAIN, num_samples=2)
    streamed(model, PICTURES, tmp_path, shard=(1, 3))  # rows 0, 3, 6, 9; the first has the gradient already
    before = sorted(tmp_path.rglob("*"))
    found = streamed(model, PICTURES, tmp_path, shard=(2, 3), dry_run=True).price
    assert found.num_samples == 7
    rest, all_of_it = 5 * (3 + 2), 5 * (1 + 3 + 2)  # row 10 lacks the other methods only
    assert found.gradients == pytest.approx(rest + 6 * all_of_it)
    (note,) = found.notes
    assert note.startswith(f"Of these are for shard 2/3: 4 samples, {rest + 3 * all_of_it} gradients, ")
    assert sorted(tmp_path.rglob("*")) == before
    streamed(model, PICTURES, tmp_path)
    done = streamed(model, PICTURES, tmp_path, dry_run=True).price
    assert (done.num_samples, done.gradients, done.table().rows[0][0]) == (0, 0, "all")


def test_a_metric_that_is_added_pays_for_the_maps_of_its_own_methods(tmp_path):
    model, adaptive = dense().eval(), {"some": lx.Smooth(num_draws=8, tolerance=0.5, max_draws=16), **METHODS}
    lx.evaluate_stream(model, PICTURES, tmp_path, methods=METHODS, metrics=AGAIN)
    told = lx.evaluate_stream(model, PICTURES, tmp_path, methods=adaptive, metrics=AGAIN, dry_run=True).price
    assert {method for method, _ in told.costs} == {"some"}
    assert told.estimated == {"some"}
    assert told.table().rows[0][1].startswith("~")


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_a_stream_knows_the_price_of_carried_arguments_and_channels(tmp_path):
    given = {"metrics": ["sparseness"], "methods": {"smooth": lx.smooth_grad(num_draws=30)}, **OTHER}
    told = lx.evaluate_stream(Reader(), Text().val_dataloader(), tmp_path, dry_run=True, **given).price
    assert told.gradients == 7 * 30
    model = Reader()
    found = lx.evaluate_stream(model, Text().val_dataloader(), tmp_path, max_gradients=7 * 11, **given)
    assert set(found.scores().select(metric="gradients").table["value"]) == {11.0}


def budget(folder, data=PICTURES, **options):
    torch.manual_seed(0)
    return streamed(dense().eval(), data, folder, max_gradients=11 * 5 * (1 + 2 + 2), **options)


def test_a_budget_is_the_same_in_all_shards_and_of_all_samples(tmp_path):
    budget(tmp_path, shard=(2, 2), dry_run=True)
    found = [budget(tmp_path, shard=shard) for shard in ((2, 2), (1, 2))][-1]  # the folder refuses other settings
    means = found.scores().select(metric="gradients").to_dataframe().groupby("method")["value"].unique()
    assert {method: values.tolist() for method, values in means.items()} == {
        "gradient": [1],
        "smooth": [2],
        "noise": [2],
    }
    (settings,) = tmp_path.glob("settings-*.json")
    words = json.loads(settings.read_text())
    assert words["made_with"]["max_gradients"] == 11 * 5 * (1 + 2 + 2)
    assert words["methods"]["noise"]["num_draws"] == 2
    assert words["methods"]["smooth"]["num_draws"] == 2
    with pytest.raises(ValueError, match=r"methods\.smooth\.num_draws was 2, is 3"):
        budget(tmp_path, num_samples=3)


class Walked(IterableDataset):
    def __iter__(self):
        return zip(IMAGES, torch.arange(11) % 3, strict=True)


@pytest.mark.parametrize("option", [{"dry_run": True}, {"max_gradients": 10_000}])
def test_how_many_samples_a_walk_has_must_be_known(option, tmp_path):
    argument = next(iter(option))
    walked = DataLoader(Walked(), 4)
    with pytest.raises(ValueError, match=f"`{argument}`: how many samples these data have is not known"):
        streamed(dense(), walked, tmp_path, **option)
    streamed(dense(), walked, tmp_path, num_samples=6, **option)
    if argument == "dry_run":
        found = streamed(dense(), walked, tmp_path, shard=(2, 4), num_samples=6, **option).price
        assert (found.num_samples, found.gradients) == (6, 6 * 5 * 6)
        assert found.notes[0].startswith("Of these are for shard 2/4: 2 samples, 60 gradients")
        assert found.notes[1].startswith("There may be fewer samples")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_gradients_that_cannot_be_counted_have_no_budget(tmp_path):
    scripted = torch.jit.script(dense().eval())
    with pytest.raises(ValueError, match="`max_gradients` needs a model whose gradients can be counted"):
        lx.evaluate_stream(scripted, PICTURES, tmp_path, methods=["gradient"], max_gradients=1000)
