"""An evaluation in shards, interrupted, gone on with, is the evaluation that one call makes, or it is refused."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, get_worker_info

import lightning_xai as lx
from lightning_xai.cli import main
from lightning_xai.cli.checks import parse_shard
from lightning_xai.evaluation import evaluate
from lightning_xai.experiments import compare_methods, read_runs
from lightning_xai.experiments.stream import check_shard, evaluate_stream
from lightning_xai.explainers import Context, Explainer, Gradient, IntegratedGradients, smooth_grad
from lightning_xai.fingerprints import specification
from lightning_xai.forward import Forward
from lightning_xai.metrics import Complexity, InherentNoise, LocalizationAUROC, Sparseness
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.store import append_scores, read_samples, read_scores

IMAGES = torch.rand(23, 3, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(23) % 4
MASKS = IMAGES[:, 0] < 0.3
METHODS = {"smooth": smooth_grad(num_draws=3), "noise": lx.noise_grad(num_draws=2)}
METRICS = {"gini": Sparseness(), "range": InherentNoise()}
HOW = {"methods": METHODS, "metrics": METRICS, "bounds": (0.0, 1.0), "seed": 3}
KEY = ["method", "metric", "sample"]
ROOT = Path(__file__).parents[1]


class Rows(Dataset):
    """Samples as dictionaries, with masks."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, row):
        return {"image": IMAGES[row], "label": LABELS[row], "mask": MASKS[row]}


class Stream(IterableDataset):
    """Samples that come one after the other, the last ones in the other order if need be."""

    def __init__(self, turned=False):
        self.order = [*range(12), *range(22, 11, -1)] if turned else list(range(23))

    def __iter__(self):
        return zip(IMAGES[self.order], LABELS[self.order], strict=True)


class Data(LightningDataModule):
    """A data module that scales its images on the device, as some do."""

    bounds = (0.0, 1.0)

    def test_dataloader(self):
        return [DataLoader(TensorDataset(2 * IMAGES, LABELS), 5, shuffle=True)]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] / 2, batch[1]


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    return network.eval()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "evaluation"


def loader(images=IMAGES, labels=LABELS, **options):
    return DataLoader(TensorDataset(images, labels), 5, **options)


def ordered(scores):
    return scores.to_dataframe().sort_values(KEY).reset_index(drop=True)


def expected(model, rows=None, target=LABELS, **options):
    """What one call on tensors gives."""
    rows = torch.arange(len(IMAGES)) if rows is None else torch.tensor(rows)
    given = {**HOW, **options}
    if given.get("masks") is not None:
        given["masks"] = given["masks"][rows]
    chosen = None if target is None else target[rows]
    return ordered(evaluate(model, IMAGES[rows], chosen, index=rows, **given).to_scores("evaluate"))


def assert_same(found, wanted):
    found = ordered(found)
    assert found[KEY].equals(wanted[KEY])
    torch.testing.assert_close(torch.tensor(found["value"]), torch.tensor(wanted["value"]), rtol=1e-5, atol=1e-6)


# The same scores, from whatever the samples come out of


@pytest.mark.parametrize(
    "data",
    [
        loader(),
        loader(shuffle=True, num_workers=1),
        DataLoader(Stream(), 4),
        Data(),
        list(zip(IMAGES.split(7), LABELS.split(7), strict=True)),
    ],
    ids=["rows", "workers", "stream", "data module", "batches"],
)
def test_a_stream_scores_as_tensors_do(model, folder, data):
    found = evaluate_stream(model, data, folder, batch_size=4, **HOW)
    assert (found.num_finished, found.num_now) == (23, 23)
    assert_same(found.scores(), expected(model))


def test_masks_controls_and_chosen_samples(model, folder):
    found = evaluate_stream(
        model, DataLoader(Rows(), 5), folder, "prediction", ["gradient"], num_samples=5, controls=True, bounds=(0, 1)
    )
    methods = ["gradient", "sobel_edges", "random_attribution"]
    wanted = expected(
        model, [0, 6, 11, 16, 22], None, methods=methods, metrics=None, masks=MASKS, bounds=(0, 1), seed=0
    )
    wanted["method"] = wanted["method"].replace({"sobel_edges": "edges", "random_attribution": "random"})
    assert_same(found.scores(), wanted.sort_values(KEY).reset_index(drop=True))
    assert found.num_samples == 5
    assert found.higher_is_better["auroc"] is True


def test_a_row_of_the_data_is_the_sample_whatever_the_loader_leaves_out(model, folder):
    rows = [3, 8, 9, 20]
    found = evaluate_stream(model, loader(sampler=rows[::-1]), folder, **HOW)
    assert_same(found.scores(), expected(model, rows))


def test_samples_are_recorded(model, folder):
    evaluate_stream(model, DataLoader(Rows(), 5), folder, batch_size=4, **HOW)
    found = read_samples(folder / "scores")
    shares = model(IMAGES).softmax(1)
    assert found["sample"].tolist() == found["row"].tolist() == list(range(23))
    assert found["target"].tolist() == LABELS.tolist()
    assert set(found["explained"]) == {"label"}
    assert found["predicted"].tolist() == shares.argmax(1).tolist()
    torch.testing.assert_close(torch.tensor(found["probability"].tolist()), shares.amax(1).detach())
    assert found["fingerprint"].nunique() == 23
    assert set(found["stage"]) == {"evaluate"}


def test_a_validation_can_record_its_samples_too(tmp_path):
    scores = Scores.from_rows([("validate", 1, 20, "m", "s", 4, 0.5)])
    known = {"sample": [4], "row": [4], "target": [1], "predicted": [2], "probability": [0.75], "fingerprint": ["a"]}
    append_scores(tmp_path / "scores", scores, samples=known)
    found = read_samples(tmp_path / "scores")
    assert found.to_dict("records") == [
        {"stage": "validate", "epoch": 1, "step": 20, **{k: v[0] for k, v in known.items()}, "explained": ""}
    ]
    assert read_samples(tmp_path / "nothing").empty


# Shards, and going on


def test_shards_in_any_order_are_one_run(model, folder):
    for number, shard in enumerate([(3, 3), (1, 3), (2, 3)]):
        found = evaluate_stream(model, loader(), folder, shard=shard, batch_size=2 + number, num_samples=20, **HOW)
        assert found.num_samples == 20
    assert found.num_finished == 20
    whole = evaluate_stream(model, loader(), folder.with_name("whole"), num_samples=20, **HOW)
    assert_same(found.scores(), ordered(whole.scores()))
    assert found.samples()["fingerprint"].tolist() == whole.samples()["fingerprint"].tolist()


def test_every_shard_of_a_stream_walks_it_and_takes_its_own(model, folder):
    numbers = [evaluate_stream(model, DataLoader(Stream(), 4), folder, shard=(k, 3), **HOW).num_now for k in (1, 2, 3)]
    assert numbers == [8, 8, 7]
    assert_same(read_scores(folder / "scores"), expected(model))


def test_shards_that_overlap_count_once(model, folder):
    (folder / "scores").mkdir(parents=True)
    for name, shard in (("a", (1, 1)), ("b", (2, 3))):
        one = evaluate_stream(model, loader(), folder.with_name(name), shard=shard, **HOW)
        for part in (one.folder / "scores").iterdir():
            part.rename(folder / "scores" / part.name)
    assert_same(read_scores(folder / "scores"), expected(model))
    assert len(read_samples(folder / "scores")) == 23


CALLS: Counter = Counter()


@dataclass(frozen=True)
class Counted(Explainer):
    """Counts the samples that it explains."""

    name: str

    def attribute(self, model, inputs, target, context: Context):
        CALLS[self.name] += len(inputs)
        return Gradient().attribute(model, inputs, target, context)


def test_only_what_is_missing_is_computed(model, folder):
    def run(methods, metrics, **options):
        CALLS.clear()
        found = evaluate_stream(
            model, loader(), folder, methods={m: Counted(m) for m in methods}, metrics=metrics, batch_size=8, **options
        )
        return found, dict(CALLS)

    again = 4  # samples of what is finished, to see that it comes out the same
    assert run("a", ["sparseness"], num_samples=12)[1] == {"a": 12}
    assert run("a", ["sparseness"])[1] == {"a": 11 + again}
    found, calls = run("ab", ["sparseness"])
    assert calls == {"a": again, "b": 23}
    found, calls = run("ab", ["sparseness", "complexity"])
    assert calls == {"a": 23 + again, "b": 23 + again}
    assert run("ab", ["complexity"])[0].num_now == 0
    assert found.num_finished == 23
    wanted = expected(model, methods={m: Gradient() for m in "ab"}, metrics=["sparseness", "complexity"], bounds=None)
    assert_same(found.scores(), wanted)
    assert not read_scores(folder / "scores").table.duplicated(KEY).any()


def test_a_prediction_is_explained_as_it_was_the_first_time(model, folder):
    model[3].weight.data.zero_()
    model[3].bias.data.fill_(1.0)  # all classes are equal: roundings choose
    evaluate_stream(model, loader(), folder, "prediction", ["gradient"], ["sparseness"])
    model.register_forward_hook(lambda module, inputs, output: output + torch.tensor([0.0, 1e-6, 0.0, 0.0]))
    evaluate_stream(model, loader(), folder, "prediction", ["gradient", "saliency"], ["sparseness"])
    assert set(read_samples(folder / "scores")["target"]) == {0}
    assert set(read_samples(folder / "scores")["explained"]) == {"prediction"}


# Refused, by name, with what is finished kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, r"other settings: seed was 3, is 4\. To start afresh, give another `folder`"),
        ({"bounds": (0.0, 1.5)}, r"bounds\.?.* was \[0\.0, 1\.0\], is \[0\.0, 1\.5\]"),
        ({"methods": {"smooth": smooth_grad(num_draws=4)}}, r"methods\.smooth\.num_draws was 3, is 4"),
        ({"metrics": {"gini": Complexity()}}, r"metrics\.gini was .*Sparseness.* is .*Complexity"),
        ({"target": 2}, r'explained was "label", is 2'),
        ({"precision": "bf16-mixed"}, r'precision was "32-true", is "bf16-mixed"'),
        ({"step": 7}, "step was 0, is 7"),
    ],
)
def test_other_settings_are_refused_and_named(model, folder, change, message):
    evaluate_stream(model, loader(), folder, **HOW)
    with pytest.raises(ValueError, match=message):
        evaluate_stream(model, loader(), folder, **{**HOW, **change})
    for file in folder.glob("settings-*.json"):
        file.unlink()
    with pytest.raises(ValueError, match="which said in words which ones"):
        evaluate_stream(model, loader(), folder, **{**HOW, **change})


def test_another_network_is_refused(model, folder):
    evaluate_stream(model, loader(), folder, **HOW)
    model[1].bias.data[0] += 1e-6
    with pytest.raises(ValueError, match="weights was"):
        evaluate_stream(model, loader(), folder, **HOW)
    model[1].bias.data[0] -= 1e-6
    model[2] = torch.nn.ReLU()
    with pytest.raises(ValueError, match=r"network was .*Tanh"):
        evaluate_stream(model, loader(), folder, **HOW)


@pytest.mark.parametrize(("factor", "refused"), [(1.01, True), (1 + 1e-6, False)])
def test_an_edited_forward_is_refused_and_rounding_is_not(model, folder, factor, refused):
    evaluate_stream(model, loader(), folder, num_samples=12, **HOW)
    model.register_forward_hook(lambda module, inputs, output: output * factor)
    if refused:
        with pytest.raises(ValueError, match="forward pass or an explainer was edited"):
            evaluate_stream(model, loader(), folder, **HOW)
    else:
        assert evaluate_stream(model, loader(), folder, **HOW).num_finished == 23


def test_an_edited_backward_is_refused(model, folder):
    evaluate_stream(model, loader(), folder, **HOW)
    model[1].register_full_backward_hook(lambda module, given, out: (given[0] * torch.linspace(0, 1, 108),))
    with pytest.raises(ValueError, match=r"% of the scores of samples 0, 1, 2, 3 are not what they were"):
        evaluate_stream(model, loader(), folder, **HOW)


def test_other_content_of_a_row_is_refused(model, folder):
    evaluate_stream(model, loader(), folder, **HOW)
    images = IMAGES.clone()
    images[17, 1, 2, 3] = 0.5
    more = {**HOW, "methods": {**METHODS, "gradient": Gradient()}}
    with pytest.raises(ValueError, match=r"sample 17 \(row 17 of the data\) is not what it was"):
        evaluate_stream(model, loader(images), folder, batch_size=5, **more)
    table = read_scores(folder / "scores").select(method="gradient", metric="gini").table
    assert table["sample"].tolist() == list(range(15))  # the batches before it
    with pytest.raises(ValueError, match="sample 0 "):  # looked at again, whatever is missing
        evaluate_stream(model, loader(IMAGES.flip(0)), folder, **HOW)


def test_a_stream_in_another_order_is_refused(model, folder):
    evaluate_stream(model, DataLoader(Stream(), 4), folder, num_samples=20, **HOW)
    with pytest.raises(ValueError, match=r"sample 12 \(row 12 of the data\) is not what it was"):
        evaluate_stream(model, DataLoader(Stream(turned=True), 4), folder, **HOW)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("image", torch.nan, "image of sample 17 has NaN"),
        ("image", 2.0, "sample 17: `bounds` must hold the inputs"),
        ("label", 4, "4 of sample 17"),
    ],
)
def test_a_bad_sample_is_named_and_what_is_finished_is_kept(model, folder, place, value, message):
    images, labels = IMAGES.clone(), LABELS.clone()
    (images[17, 0] if place == "image" else labels[17:18]).fill_(value)
    with pytest.raises(ValueError, match=message):
        evaluate_stream(model, loader(images, labels), folder, batch_size=5, **HOW)
    assert read_samples(folder / "scores")["sample"].tolist() == list(range(15))
    good = Subset(TensorDataset(images, labels), [row for row in range(23) if row != 17])
    with pytest.raises(ValueError, match="sample 17"):
        evaluate_stream(model, loader(images, labels), folder, batch_size=5, **HOW)
    assert len(good) == 22


def test_a_damaged_part_is_named(model, folder):
    evaluate_stream(model, loader(), folder, batch_size=8, **HOW)
    part = sorted((folder / "scores").iterdir())[1]
    part.write_bytes(part.read_bytes()[:-100])
    for read in (lambda: read_scores(folder / "scores"), lambda: evaluate_stream(model, loader(), folder, **HOW)):
        with pytest.raises(ValueError, match=f"{part.name} is damaged.*remove it"):
            read()
    part.unlink()
    assert evaluate_stream(model, loader(), folder, **HOW).num_now == 8
    assert_same(read_scores(folder / "scores"), expected(model))


def test_other_arguments_are_refused(model, folder):
    with pytest.raises(TypeError, match=r"`data` must be a DataLoader.*Tensor"):
        evaluate_stream(model, IMAGES, folder)
    with pytest.raises(TypeError, match="iterated over again, got generator"):
        evaluate_stream(model, (batch for batch in [IMAGES]), folder)
    with pytest.raises(ValueError, match="no samples"):
        evaluate_stream(model, loader(sampler=[]), folder)
    with pytest.raises(ValueError, match=r"needs `mask`"):
        evaluate_stream(model, loader(), folder, metrics=["pointing_game"])
    for shard in [(0, 3), (4, 3), (1.0, 2), (1, 2, 3), "1/3"]:
        with pytest.raises(ValueError, match=r"`shard` must be \(k, n\)"):
            check_shard(shard)
    assert not folder.exists()


def test_specifications_are_words_without_addresses():
    class Mine(Sparseness):
        def __init__(self, weights, where):
            super().__init__()
            self.weights, self.where = weights, where

    def words(value):
        return json.dumps(specification(value))

    large = torch.rand(2, 1000)
    assert words(Mine(large, len)) == words(Mine(large.clone(), len))
    assert words(Mine(large, len)) != words(Mine(large + 1e-6, len))
    assert words(Mine(large, len)) != words(Mine(large, max))
    assert words(Sparseness()) != words(LocalizationAUROC())
    assert words(IntegratedGradients(num_steps=5)) != words(IntegratedGradients(num_steps=6))
    assert " at 0x" not in words([Mine(object(), lambda x: x), Context])

    def times(factor):
        return lambda x: factor * x

    assert words(times(2)) == words(times(2))
    assert words(times(2)) != words(times(3))  # functions without a place of their own are told by what they do
    assert words(lambda x: x + 1) != words(lambda x: x + 2)


# The command


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of the quickstart, of two steps."""
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    config["trainer"] |= {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(tmp_path), "logger": False}
    config["trainer"] |= {"enable_progress_bar": False, "limit_train_batches": 2, "enable_model_summary": False}
    config["trainer"]["callbacks"][0]["init_args"] = {"filename": "best", "dirpath": str(tmp_path / "checkpoints")}
    methods = {"saliency": "saliency", "noise": {"class_path": "noise_grad"}}
    config["trainer"]["callbacks"][1]["init_args"] = {"methods": methods, "num_samples": 8}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(tmp_path / "settings.yaml")])
    return tmp_path


def command(run, *words):
    ckpt = str(run / "checkpoints" / "best.ckpt")
    main(["evaluate", "--config", str(run / "settings.yaml"), "--ckpt_path", ckpt, *map(str, words)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
def test_the_command_evaluates_shards_and_others_read_them(run, capsys, monkeypatch):
    small = ("--num_samples", 10, "--metrics", "[sparseness, complexity]")
    command(run, *small, "--dry_run", "--shard", "2/2")
    out = capsys.readouterr().out
    assert re.search(r"all \* +11 +0 .* 110 ", out)  # saliency, and 10 of the noise; metrics and controls take none
    assert "Of these are for shard 2/2: 5 samples, 55 gradients" in " ".join(out.split())
    assert not (run / "evaluate").exists()
    command(run, *small, "--shard", "2/2")
    assert re.search(r"finished +5 of 10 samples, so far", capsys.readouterr().out)
    monkeypatch.setenv("RANK", "0")
    command(run, *small, "--shard", "1/2", "--batch_size", 3)
    out = capsys.readouterr().out
    assert re.search(r"finished +10 of 10 samples\n", out)
    assert "explanations of 10 samples" in out
    assert re.search(r"noise .*\d\.\d+ ± \d\.\d+ .* 10 ", out)
    (found,) = read_runs([run / "evaluate"])
    assert found.scores.unique("stage") == ["evaluate"]
    assert found.scores.unique("epoch") == [0]
    assert found.scores.unique("step") == [2]
    assert set(found.scores.unique("method")) == {"saliency", "noise", "edges", "random"}
    assert len(found.scores.unique("sample")) == 10
    assert {m.metric for m in compare_methods([found]).metrics} == {"sparseness", "complexity"}
    assert GRADIENTS in found.higher_is_better
    main(["export", str(run / "evaluate")])
    assert capsys.readouterr().out.count("\n") == 1 + len(found.scores)
    with pytest.raises(ValueError, match="seed was 0, is 5"):
        command(run, *small, "--seed", 5)
    with pytest.raises(ValueError, match=r"noise\.num_draws was 10, is 4"):
        command(run, *small, "--max_gradients", 59)
    methods = '{"noise": {"class_path": "noise_grad", "init_args": {"num_draws": 3}}}'
    with pytest.raises(ValueError, match=r"noise\.num_draws was 10, is 3"):
        command(run, *small, "--methods", methods)


def test_processes_take_parts_of_a_shard():
    assert parse_shard(None, {}) == (1, 1)
    assert parse_shard("3/16", {}) == (3, 16)
    found = [parse_shard(f"{k}/3", {"RANK": str(r), "WORLD_SIZE": "2"}) for k in (1, 2, 3) for r in (0, 1)]
    assert found == [(1, 6), (4, 6), (2, 6), (5, 6), (3, 6), (6, 6)]
    for wrong in ("0/3", "4/3", "3", "1/", "-1/2", "1/0", "a/b", "1/2/3"):
        with pytest.raises(ValueError, match="`shard` must be k/n"):
            parse_shard(wrong, {})


# Killed


KILLED = """
import os, random, signal, sys, time
import torch
from lightning_xai.experiments.stream import evaluate_stream
from lightning_xai.explainers import noise_grad, smooth_grad
from torch.utils.data import Dataset, DataLoader

class Slow(Dataset):
    images = torch.rand(60, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    def __len__(self):
        return 60
    def __getitem__(self, row):
        time.sleep(0.004)
        return self.images[row], row % 4

def work(folder, shard, batch_size):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    methods = {"smooth": smooth_grad(num_draws=3), "noise": noise_grad(num_draws=2)}
    done = evaluate_stream(model, DataLoader(Slow()), folder, "label", methods, ["sparseness"], shard=shard,
                           batch_size=batch_size)
    os._exit(0 if done.num_finished <= 60 else 1)

def started(*work_of):
    if not (child := os.fork()):
        work(*work_of)
    return child

folder, times, chance, begun = sys.argv[1], int(sys.argv[2]), random.Random(0), time.monotonic()
os.waitpid(started(folder + "/whole", (1, 1), 5), 0)
seconds, killed = time.monotonic() - begun, 0
for _ in range(times):
    shards = chance.randint(1, 4)
    own = chance.sample(range(1, shards + 1), min(2, shards))
    children = [started(folder + "/killed", (shard, shards), chance.randint(1, 9)) for shard in own]
    time.sleep(chance.uniform(0.1, 1) * seconds)
    for child in children:
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(killed, len(os.listdir(folder + "/killed/scores")), flush=True)
work(folder + "/killed", (1, 1), 7)
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_scores(tmp_path):
    words = [sys.executable, "-c", KILLED, str(tmp_path), "20"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    killed, parts = map(int, done.stdout.split())
    assert killed >= 5
    assert parts >= 5, "it had begun"
    found, whole = (read_scores(tmp_path / name / "scores") for name in ("killed", "whole"))
    assert len(whole) == 60 * 2 * 2
    assert_same(found, ordered(whole))


# What an outside user tried


class Numbered(IterableDataset):
    """Pictures that come in another order from two workers."""

    def __iter__(self):
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        return ((IMAGES[i], int(LABELS[i])) for i in range(start, len(IMAGES), step))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_shards_of_a_walk_that_comes_in_another_order_are_refused(model, folder):
    def run(batch_size, shard):
        loader = DataLoader(Numbered(), batch_size, num_workers=2)
        return evaluate_stream(model, loader, folder, methods=["gradient"], metrics=["sparseness"], shard=shard)

    run(3, (1, 2))
    with pytest.raises(ValueError, match="other"):
        run(4, (2, 2))


def test_what_a_batch_cannot_be_made_of_is_said(model, folder):
    uneven = [(torch.rand(3, 6, 6), 0), (torch.rand(3, 8, 8), 1)]
    with pytest.raises(ValueError, match="`data`: the loader's `collate_fn` makes no batch of 2 samples"):
        evaluate_stream(model, DataLoader(uneven), folder, methods=["gradient"], batch_size=2)


@pytest.mark.parametrize("limit", [-1, 1.5, -0.5, True])
def test_a_limit_that_there_is_not_is_refused(model, folder, limit):
    with pytest.raises(ValueError, match="`limit` must be a number of batches, or a share"):
        evaluate_stream(model, loader(), folder, limit=limit)


def test_rows_that_a_network_carries_itself_are_refused(model, folder):
    class Scaled(torch.nn.Module):
        def forward(self, images, scale):
            return model(images) * scale[:, None]

    carrying = Forward(Scaled(), carried={"scale": torch.ones(4)})
    with pytest.raises(ValueError, match="`model` carries 'scale' along, the same rows with every batch"):
        evaluate_stream(carrying, loader(), folder)


def test_two_rows_of_one_index_are_refused(model, folder):
    rows = [{"image": IMAGES[i], "label": int(LABELS[i]), "index": i % 12} for i in range(len(IMAGES))]
    with pytest.raises(ValueError, match="`data`: rows 0 and 12 have the same index, 0, by which scores are kept"):
        evaluate_stream(model, DataLoader(rows), folder, methods=["gradient"], metrics=["sparseness"], batch_size=8)
