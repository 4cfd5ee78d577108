"""One bar: a line of the trainer's own while a callback works, nothing in files, and nothing left behind."""

import io
import sys
from contextlib import suppress

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import CustomProgress
from rich.console import Console

from lightning_xai.callbacks.progress import trainer_task
from lightning_xai.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def trainer_with(tmp_path, bar):
    options = {"callbacks": [bar]} if bar else {"enable_progress_bar": False}
    return Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False, **options)


def test_a_line_of_the_trainers_bar_while_the_work_lasts(tmp_path):
    bar = RichProgressBar()
    bar.progress = CustomProgress(console=Console(file=io.StringIO()))
    with suppress(KeyError), trainer_task(trainer_with(tmp_path, bar), "explaining", 4) as task:
        task.update(3)
        (line,) = bar.progress.tasks
        assert (line.completed, line.total) == (3, 4)
        assert "explaining" in line.description
        raise KeyError
    assert bar.progress.tasks == []


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_bar_is_for_terminals_and_goes(monkeypatch, stream, shown):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar("evaluating", 2) as bar:
        bar.update()
    assert ("evaluating" in sys.stderr.getvalue()) == shown
    assert sys.stderr.getvalue().rpartition("\r")[0].rpartition("\r")[2].strip() == ""


def test_no_bar_without_a_trainers(tmp_path):
    with trainer_task(trainer_with(tmp_path, None), "explaining", 4) as task:
        task.update()
        assert task.disable
