"""Files of a run: locked by the operating system, never followed through links, and nothing to die of."""

import itertools
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai.callbacks import AttributionCallback, ParetoFront
from lightning_xai.callbacks.attribution import take_over
from lightning_xai.callbacks.files import superfluous
from lightning_xai.explainers import Gradient
from lightning_xai.metrics import Sparseness
from lightning_xai.results.files import replacing
from lightning_xai.results.locks import RunLock
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, read_samples, read_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


# Replacing


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    precious, table = tmp_path / "precious", tmp_path / "table.csv"
    precious.write_text("precious")
    for plant in (os.symlink, os.link):
        plant(precious, tmp_path / ".table.csv.partial")
        with replacing(table) as temporary:
            temporary.write_text("new")
        assert (precious.read_text(), table.read_text()) == ("precious", "new")
        assert not table.is_symlink()
        assert os.listdir(tmp_path).count("table.csv") == len(os.listdir(tmp_path)) - 1
    os.symlink(tmp_path / "nowhere", tmp_path / ".table.csv.partial")
    with replacing(table) as temporary:
        temporary.write_text("newer")
    assert not (tmp_path / "nowhere").exists()


def test_what_a_killed_process_left_gives_way(tmp_path: Path) -> None:
    (tmp_path / ".table.csv.partial").write_text("half a ta")
    with replacing(tmp_path / "table.csv") as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["table.csv"]


def test_two_at_once_write_files_of_their_own(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    with replacing(table) as one, replacing(table) as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert table.read_text() == "one", "the outer one ends last"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "table.csv") as temporary:
        temporary.write_text("new")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "table.csv")]
    assert modes[0] == modes[1]


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from lightning_xai.results.scores import Scores\n"
        "from lightning_xai.results.store import append_scores\n"
        "print(flush=True)\n"
        "for i in range(30): append_scores(sys.argv[1], Scores.from_rows([('test', i, 0, 'a', 's', 0, 1.0)]))"
    )
    path = tmp_path / "scores"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()  # it begins now
        for i in range(30):
            append_scores(path, Scores.from_rows([("test", i, 0, "b", "s", 0, 1.0)]))
        assert other.wait(120) == 0
    rows = read_scores(path)
    assert sorted((row.method, row.epoch) for row in rows) == [(name, i) for name in "ab" for i in range(30)]
    assert os.listdir(tmp_path) == ["scores"]
    assert sorted(os.listdir(path)) == [f"{number:06d}.parquet" for number in range(1, 61)]


# The lock of a run

HOLDER = """
import os, sys, time
from pathlib import Path
from lightning_xai.results.locks import RunLock
lock = RunLock()
assert lock.acquire(Path(sys.argv[1])) is None
import multiprocessing
def live():
    print(os.getpid(), flush=True)  # by itself: a process that was only just forked off has not let go yet
    time.sleep(60)
child = multiprocessing.get_context("fork").Process(target=live)
child.start()
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_lock_ends_with_its_holder_however_it_ends_and_says_who_it_is(tmp_path: Path) -> None:
    """A process that the holder forked off, such as a worker of a dataloader, does not keep it."""
    path = tmp_path / "xai" / "scores"
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        lock = RunLock()
        assert f"process {holder.pid} on " in (lock.acquire(path) or "")
        holder.kill()
        holder.wait(30)
        holder.stdout.close()
        os.kill(child, 0)  # it lives
        assert lock.acquire(path) is None
        assert "process" in (RunLock().acquire(path) or ""), "also against another one in this process"
        lock.release()
        assert not path.parent.exists(), "nothing was written"
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)


def test_the_mere_file_of_a_lock_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / ".scores.csv.run").write_text("process 1 on another machine")
    lock = RunLock()
    assert lock.acquire(tmp_path / "scores.csv") is None
    lock.release()
    assert os.listdir(tmp_path.parent).count(tmp_path.name) == 0 or os.listdir(tmp_path) == []


# In a training


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self(batch[0]).mean())

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-3)


def scores(**options: Any) -> AttributionCallback:
    settings = {"num_samples": 2, "panel_size": 1, "controls": False}
    return AttributionCallback({"grad": Gradient()}, {"s": Sparseness()}, **(settings | options))


def loader(batch_size: int = 2) -> DataLoader:
    images = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(6) % 3), batch_size)


def trainer_of(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    quiet |= {"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks), "max_epochs": 2}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(quiet | options))


def fit(folder: Path, *callbacks: Any, batch_size: int = 2, ckpt_path: Any = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    trainer = trainer_of(folder, *callbacks, **options)
    trainer.fit(Module(), loader(batch_size), loader(), ckpt_path=ckpt_path)
    return trainer


def epochs_and_steps(path: Path) -> list[tuple[int, int]]:
    found = sorted({(row.epoch, row.step) for row in read_scores(path) if row.stage == "validate"})
    known = read_samples(path).query("stage == 'validate'")
    assert sorted({*zip(known["epoch"], known["step"], strict=True)}) == found, "samples are where their scores are"
    return found


@pytest.mark.filterwarnings("ignore:AttributionCallback. .* holds scores of an earlier training")
def test_a_second_training_in_the_folder_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    class Second(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            for other in (scores(), ParetoFront({"val": "max", "loss": "min"})):
                with pytest.raises(
                    ValueError, match=rf"is being written by another training, process {os.getpid()} on"
                ):
                    fit(tmp_path, other)
            fit(tmp_path / "elsewhere", scores())
            fit(tmp_path, scores(name="another"))
            trainer_of(tmp_path, scores()).test(Module(), loader(), verbose=False)
            trainer_of(tmp_path, scores()).validate(Module(), loader(), verbose=False)

    front = ParetoFront({"val": "max", "xai/grad/s": "max"})
    fit(tmp_path, scores(), front, Second(), num_sanity_val_steps=0)
    rows = read_scores(tmp_path / "xai" / "scores")
    assert {(row.stage, row.epoch, row.step) for row in rows} == {
        ("validate", 0, 3),
        ("validate", 1, 6),
        ("test", 0, 0),
        ("validate", 0, 0),
    }
    fit(tmp_path, scores())  # and afterwards it may
    assert not list(tmp_path.rglob(".*"))


def test_a_training_that_raises_lets_the_files_go(tmp_path: Path) -> None:
    class Stumbling(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise RuntimeError("stumbled")

    callback = scores()
    with pytest.raises(RuntimeError, match="stumbled"):
        trainer_of(tmp_path, callback).fit(Stumbling(), loader(), loader())
    fit(tmp_path, scores())


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.lightning_module.parameters()])


def test_scores_that_cannot_be_written_cost_the_scores_not_the_training(tmp_path: Path) -> None:
    """A file where the folder should be: permissions would not stop an administrator."""
    (tmp_path / "xai").write_text("in the way")
    callback, front = scores(), ParetoFront({"val": "max", "xai/grad/s": "max"})
    with pytest.warns(UserWarning, match="cannot write") as told:
        trainer = fit(tmp_path, callback, front)
    messages = [str(w.message) for w in told]
    assert sum("AttributionCallback cannot write scores and panels, and goes on without" in m for m in messages) == 1
    assert sum("AttributionCallback lost scores and panels" in m for m in messages) == 1
    assert sum("ParetoFront lost its table" in m for m in messages) == 1
    assert trainer.current_epoch == 2
    assert callback.evaluation is not None
    assert callback.folder is None
    assert "xai/grad/s" in trainer.callback_metrics
    assert torch.equal(weights(trainer), weights(fit(tmp_path / "plain")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk")
def test_a_full_disk_costs_the_scores_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tmp_path, scores(), max_epochs=1)
    before = (tmp_path / "xai" / "scores" / "000001.parquet").read_bytes()
    plain = Path.open

    def full(self: Path, mode: str = "r", **options: Any) -> Any:
        return plain(Path("/dev/full") if self.name.endswith(".parquet.partial") else self, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.warns(UserWarning, match=r"No space left on device|scores of an earlier training"):
        assert fit(tmp_path, scores(), max_epochs=2).current_epoch == 2
    monkeypatch.undo()
    assert (tmp_path / "xai" / "scores-1" / "000001.parquet").read_bytes() == before
    assert not list((tmp_path / "xai" / "scores").iterdir())


def test_a_broken_table_stays_in_a_test_and_is_set_aside_by_a_training(tmp_path: Path) -> None:
    (tmp_path / "xai").mkdir()
    (tmp_path / "xai" / "scores.csv").write_text("not a table")
    trainer_of(tmp_path, scores()).test(Module(), loader(), verbose=False)
    assert (tmp_path / "xai" / "scores.csv").read_text() == "not a table"
    assert len(Scores.load(tmp_path / "xai" / "scores" / "000001.parquet"))
    with pytest.warns(UserWarning, match=r"they are in scores-1 now"):
        fit(tmp_path, scores())
    assert (tmp_path / "xai" / "scores-1.csv").read_text() == "not a table"
    assert epochs_and_steps(tmp_path / "xai" / "scores") == [(0, 3), (1, 6)]


def test_a_resumed_training_repeats_no_epoch_twice(tmp_path: Path) -> None:
    """The first run went on after the checkpoint; the resumed one does so with other steps."""
    path = tmp_path / "xai" / "scores"
    fit(tmp_path, scores(), ModelCheckpoint(save_top_k=-1, filename="{epoch}"), max_epochs=4)
    assert epochs_and_steps(path) == [(0, 3), (1, 6), (2, 9), (3, 12)]
    found = tmp_path / "checkpoints" / "epoch=1.ckpt"
    fit(tmp_path, scores(), ckpt_path=found, max_epochs=3, batch_size=3)
    assert epochs_and_steps(path) == [(0, 3), (1, 6), (2, 8)]


def test_a_resumed_training_in_a_folder_of_its_own_goes_on_with_the_scores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = fit(tmp_path, scores(name="few"), ModelCheckpoint(), logger=CSVLogger(tmp_path), max_epochs=2)
    run = Path(first.log_dir or "")
    best = next((run / "checkpoints").iterdir())
    with caplog.at_level("INFO"), caplog.at_level("INFO", logger="pytorch_lightning"):
        second = fit(tmp_path, scores(name="few"), logger=CSVLogger(tmp_path), max_epochs=3, ckpt_path=best)
    assert second.log_dir != first.log_dir
    found = Path(second.log_dir or "") / "xai" / "few" / "scores"
    assert epochs_and_steps(found) == [(0, 3), (1, 6), (2, 9)]
    assert f"goes on with the scores up to step 6 of {run / 'xai' / 'few' / 'scores'}, in" in caplog.text
    assert epochs_and_steps(run / "xai" / "few" / "scores") == [(0, 3), (1, 6)]


def test_locks_are_quick(tmp_path: Path) -> None:
    """Writing many small files is not slowed down: less than a millisecond each, on an idle machine far less."""
    start = time.perf_counter()
    for number in range(200):
        with replacing(tmp_path / str(number)) as temporary:
            temporary.write_text("x")
    assert time.perf_counter() - start < 5


def test_a_new_training_in_an_old_folder_begins_with_scores_of_its_own(tmp_path: Path) -> None:
    fit(tmp_path, scores(), max_epochs=3)
    path = tmp_path / "xai" / "scores"
    old = read_scores(path)
    with pytest.warns(UserWarning, match=r"scores of an earlier training in this folder; they are in scores-1 now"):
        fit(tmp_path, scores(), max_epochs=1)
    assert [epoch for epoch, _ in epochs_and_steps(path)] == [0]
    assert read_scores(path.with_name("scores-1")) == old


def test_panels_are_thinned_by_age() -> None:
    """The first and the last always stay, of the newest each one, and gaps grow with the age, at most in proportion."""
    kept: list[int] = []
    for now in range(1000):
        kept.append(38 * now)
        if len(kept) > 20:
            del kept[superfluous(kept)]
        assert (kept[0], kept[-1]) == (0, 38 * now)
        assert kept[-4:] == [38 * n for n in range(max(0, now - 3), now + 1)]
        for older, newer in itertools.pairwise(kept[:-4]):
            assert newer - older <= kept[-1] - older
            assert newer - older < 0.7 * (kept[-1] - newer) or newer - older == 38
    assert len(kept) == 20


def panels(folder: Path, stage: str = "validate") -> list[int]:
    return sorted(int(path.stem.rpartition("=")[2]) for path in folder.glob(f"{stage}-*.png"))


def test_few_panels_stay_and_those_of_a_test_are_others(tmp_path: Path) -> None:
    fit(tmp_path, scores(keep_panels=3), max_epochs=5)
    folder = tmp_path / "xai" / "panels"
    trainer_of(tmp_path, scores(keep_panels=2)).test(Module(), loader(), verbose=False)
    assert (panels(folder)[0], panels(folder)[-1], len(panels(folder))) == (3, 15, 3)
    assert panels(folder, "test") == [0]
    assert len(epochs_and_steps(tmp_path / "xai" / "scores")) == 5
    with pytest.warns(UserWarning, match="scores of an earlier training"):
        fit(tmp_path, scores(keep_panels=None), max_epochs=4)
    assert panels(folder) == [3, 6, 9, 12]
    assert len(panels(folder.with_name("panels-1"))) == 3


def test_the_last_scores_of_each_stage_stay(tmp_path: Path) -> None:
    """In a part each; the one before stays as long as other processes may not have written the last one."""
    path = tmp_path / "xai" / "scores"
    callback = scores(keep_scores="last")
    trainer = fit(tmp_path, callback, ModelCheckpoint(save_top_k=-1, filename="{epoch}"), max_epochs=4)
    assert epochs_and_steps(path) == [(3, 12)]
    assert sorted(os.listdir(path)) == ["000003.parquet", "000004.parquet"]
    trainer.test(Module(), loader(), verbose=False)
    assert {(row.stage, row.epoch) for row in read_scores(path)} == {("validate", 3), ("test", 4)}
    fit(tmp_path, scores(keep_scores="last"), ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt", max_epochs=3)
    assert epochs_and_steps(path) == [(2, 9)]
    assert {row.stage for row in read_scores(path)} == {"validate", "test"}
    before = os.listdir(path)
    fit(tmp_path / "other", callback, max_epochs=3)
    assert os.listdir(path) == before, "nothing of another run is removed"


def test_a_single_panel_cannot_be_the_first_and_the_last() -> None:
    with pytest.raises(ValueError, match="`keep_panels` must be"):
        scores(keep_panels=1)


def test_a_resumed_training_takes_over_the_table_of_an_earlier_version(tmp_path: Path) -> None:
    rows = [(stage, step // 10, step, "a", "s", 0, 1.0) for stage in ("validate", "test") for step in (10, 20, 30)]
    Scores.from_rows(rows).save(tmp_path / "old" / "scores.csv")
    take_over(tmp_path / "old" / "scores", tmp_path / "new" / "scores", 20)
    assert read_scores(tmp_path / "new" / "scores") == Scores.from_rows(rows[:2])
