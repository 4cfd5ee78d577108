"""Several processes at a validation end: one sum for all, own parts or one file, and nobody waits for a failed one."""

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pandas.testing import assert_frame_equal

from lightning_xai.results.scores import Scores
from lightning_xai.results.store import read_directions, read_samples, read_scores
from tests.forked import finish, forked

PROGRAM = '''
import json, os, signal, sys, time, warnings
from datetime import timedelta
from pathlib import Path
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader, TensorDataset
import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.metrics import SampleMetric

warnings.filterwarnings("error", message="It is recommended to use")
torch.set_num_threads(1)

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3), torch.nn.Softmax(-1))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return self(batch[0]).mean() * 0

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Size(SampleMetric):
    """Of a map; undefined for sample 2, and what is to happen when it comes to sample 6."""
    higher_is_better = True

    def __init__(self, event=lambda: None):
        super().__init__()
        self.event = event

    def update(self, attributions, *, index):
        if 6 in index.tolist():
            self.event()
        self.record(attributions.abs().flatten(1).sum(1).where(index != 2, torch.nan), index)

def fail():
    raise ValueError("six is too much")

EVENTS = {"slow": lambda: time.sleep(1.5), "fail": fail, "kill": lambda: os.kill(os.getpid(), signal.SIGKILL)}

def fit(rank, world, folder, event="none", num_samples=7, apart=False, unwritable=False, rehearse=True, epochs=2,
        on_error="raise"):
    if apart and rank:  # as on another machine
        exists = Path.exists
        Path.exists = lambda self: not self.name.startswith(".0") and exists(self)
    images = torch.rand(13, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, torch.arange(13) % 3), 4)
    callback = AttributionCallback({"sg": lx.smooth_grad(num_draws=3)}, {"size": Size(EVENTS.get(event, lambda: None))},
        num_samples=num_samples, panel_size=0, batch_size=2,
        on_error=on_error)
    if not rehearse:
        callback.rehearse = lambda *arguments: None
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=20)) if world > 1 else "auto"
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", devices=world, strategy=strategy, logger=False,
        default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, limit_train_batches=1, callbacks=[callback])
    if unwritable and rank == 0:
        Path(folder, "xai").write_text("in the way")
    trainer.fit(Module(), DataLoader(TensorDataset(images, torch.arange(13) % 3), 4), loader)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return {"logged": logged, "own": callback.evaluation.index.tolist(), "all": len(callback.scores())}

def process(rank, world, port, folder, options):
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.stdout = sys.stderr = open(Path(folder, f"{rank}.txt"), "w")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            result = fit(rank, world, folder, **options)
        result["told"] = [str(warning.message) for warning in told]
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    Path(folder, f"{rank}.json").write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)

for world, port, folder, options in json.loads(sys.argv[1]):
    os.makedirs(folder)
    children = []
    for rank in range(world):
        if not (child := os.fork()):
            process(rank, world, port, folder, options)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
'''


def run(folder: Path, *scenarios: tuple[str, int, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What each process of each scenario tells; None of one that was killed."""
    tasks = [(world, _free_port(), str(folder / name), options) for name, world, options in scenarios]
    finish(forked(_run, tasks))
    files = {name: [folder / name / f"{rank}.json" for rank in range(world)] for name, world, _ in scenarios}
    return {
        name: [json.loads(file.read_text()) if file.exists() else None for file in own] for name, own in files.items()
    }


def _run(tasks: list[Any]) -> None:
    sys.argv = ["program", json.dumps(tasks)]
    exec(PROGRAM, {"__name__": "program"})


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return run(
        folder,
        ("one", 1, {}),
        ("two", 2, {}),
        ("apart", 2, {"apart": True}),
        ("failing", 2, {"event": "fail", "rehearse": False}),
        ("sparing", 2, {"event": "fail", "on_error": "warn"}),
        ("unwritable", 2, {"unwritable": True}),
    )


def scores(folder: Path) -> Scores:
    return read_scores(folder / "xai" / "scores")


def assert_same(one: Scores, two: Scores) -> None:
    keys = ["stage", "epoch", "step", "method", "metric", "sample"]
    assert one.table[keys].equals(two.table[keys])
    assert two.table["value"].tolist() == pytest.approx(one.table["value"].tolist(), rel=1e-5, nan_ok=True)


def parts(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "xai" / "scores"))


def logged_of(scores: Scores) -> dict[str, float]:
    """The means over the samples of the last validation, as one process would log them."""
    last = scores.select(epoch=scores.table["epoch"].max())
    return {
        f"xai/{row.method}/{row.metric}": torch.tensor(row.mean).item()
        for row in last.summary().itertuples()
        if row.metric != "gradients"
    }


@pytest.mark.parametrize("name", ["one", "two", "apart"])
def test_all_processes_log_the_mean_over_all_samples(folder: Path, told: Any, name: str) -> None:
    expected = logged_of(scores(folder / name))
    assert set(expected) == {f"xai/{method}/size" for method in ("sg", "edges", "random")}
    for process in told[name]:
        found = {key: value for key, value in process["logged"].items() if key.startswith("xai/")}
        assert found == pytest.approx(expected, rel=1e-7)
    assert all(process["logged"] == told[name][0]["logged"] for process in told[name]), "bit for bit"


@pytest.mark.parametrize("name", ["two", "apart"])
def test_two_processes_write_the_rows_of_one(folder: Path, told: Any, name: str) -> None:
    """In the same order."""
    assert_same(scores(folder / "one"), scores(folder / name))
    assert len(scores(folder / "one")) == 2 * 3 * 2 * 7
    one, several = (read_samples(folder / run / "xai" / "scores") for run in ("one", name))
    assert_frame_equal(one, several, rtol=1e-5)
    assert read_directions(folder / name / "xai" / "scores")["size"]
    assert sorted(os.listdir(folder / name / "xai")) == ["metrics.json", "scores", "tables"]


def test_each_process_writes_its_own_part_where_they_share_a_file_system(folder: Path, told: Any) -> None:
    names = parts(folder / "two")
    assert [re.sub("-[0-9a-f]{8}-", "-ID-", name) for name in names] == [
        f"{number:06d}-ID-{rank}-of-2.parquet" for number in (1, 2) for rank in (0, 1)
    ]
    assert [process["own"] for process in told["two"]] == [[0, 2, 4, 6], [8, 10, 12]]
    assert 3 * 2 * 7 in [process["all"] for process in told["two"]], "the one that was last finds all of them"


def test_the_first_process_writes_for_all_where_they_do_not(folder: Path, told: Any) -> None:
    assert parts(folder / "apart") == ["000001.parquet", "000002.parquet"]
    assert [process["own"] for process in told["apart"]] == [list(range(0, 13, 2))] * 2
    assert [process["all"] for process in told["apart"]] == [3 * 2 * 7] * 2


def test_a_process_that_fails_ends_all_and_is_named(told: Any) -> None:
    for process in told["failing"]:
        assert process["error"] == (
            "RuntimeError: The explanations failed in process 0 of 2: ValueError: six is too much (in the metric size) "
            "(in the method sg, samples 4, 6)"
        )


def test_a_process_that_may_fail_loses_its_scores_alone(folder: Path, told: Any) -> None:
    """The first one, of its second batch, samples 4 and 6."""
    found, whole = (scores(folder / name).select(metric="size").table for name in ("sparing", "two"))
    assert found["value"].isna().tolist() == whole["sample"].isin([2, 4, 6]).tolist()
    assert found["value"].dropna().equals(whole["value"][~whole["sample"].isin([2, 4, 6])])
    assert told["sparing"][0]["logged"] == told["sparing"][1]["logged"]
    first, second = (" ".join(process["told"]) for process in told["sparing"])
    assert "ValueError: six is too much (in the metric size) (in the method sg, samples 4, 6); " in first
    assert "six" not in second


def test_a_folder_that_cannot_be_written_to_costs_the_scores_alone(told: Any) -> None:
    assert told["unwritable"][0]["logged"] == told["unwritable"][1]["logged"] == told["two"][0]["logged"]
    first, second = (" ".join(process["told"]) for process in told["unwritable"])
    assert "AttributionCallback cannot write scores and panels, and goes on without" in first
    assert "cannot write" not in second


@pytest.mark.slow
def test_four_processes_and_a_slow_one(tmp_path: Path) -> None:
    """Also more of them than samples, whose first one then is everybody's; it counts once."""
    found = run(
        tmp_path,
        ("one", 1, {"epochs": 1}),
        ("slow", 4, {"event": "slow", "epochs": 1}),
        ("few of one", 1, {"num_samples": 3, "epochs": 1}),
        ("few", 4, {"num_samples": 3, "epochs": 1}),
        ("few apart", 4, {"num_samples": 3, "apart": True, "epochs": 1}),
    )
    assert [process["own"] for process in found["few"]] == [[0], [6], [12], []]
    for one, several in (("one", "slow"), ("few of one", "few"), ("few of one", "few apart")):
        assert_same(scores(tmp_path / one), scores(tmp_path / several))
        for process in found[several]:
            assert process["logged"] == found[several][0]["logged"]
            assert process["logged"] == pytest.approx(found[one][0]["logged"], rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_of_four_processes_one_fails_or_is_killed(tmp_path: Path) -> None:
    """In the rehearsal before the training one sample is looked at, here the sixth of the process that has it."""
    found = run(
        tmp_path,
        ("failing", 4, {"event": "fail", "rehearse": False}),
        ("in rehearsal", 4, {"event": "fail", "num_samples": 3}),
        ("killed", 4, {"event": "kill", "rehearse": False}),
    )
    for name in ("failing", "in rehearsal"):
        for process in found[name]:
            assert "RuntimeError: The explanations failed in process 1 of 4: ValueError: six" in process["error"]
    killed = found["killed"]
    assert [process is None for process in killed] == [False, True, False, False]
    for rank in (0, 2, 3):
        assert f"Process {rank} of 4 waited in vain for the explanations of the others" in killed[rank]["error"]
    assert not (tmp_path / "killed" / "xai" / "scores").exists()
