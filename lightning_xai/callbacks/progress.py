"""Progress of a callback's work within the trainer's own bar."""

from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import RichProgressBar

from lightning_xai.progress import Task, progress_bar


@contextmanager
def trainer_task(trainer: Trainer, title: str, total: int) -> Iterator[Task]:
    """A line of the trainer's bar with the time left, which goes when the work is done; beside other bars, a bar.

    Args:
        total: Steps of the work.
    """
    bar = trainer.progress_bar_callback
    if isinstance(bar, RichProgressBar) and bar.progress is not None:
        task = _RichTask(bar, title, total)
        try:
            yield task
        finally:
            task.remove()
    else:
        with progress_bar(title, total, shown=bar is not None and trainer.is_global_zero) as line:
            yield line


class _RichTask:
    def __init__(self, bar: RichProgressBar, title: str, total: int) -> None:
        self.bar, self.number = bar, bar._add_task(total, title)

    def update(self, n: int = 1, /) -> None:
        if self.bar.progress is not None:
            self.bar.progress.advance(self.number, n)
            self.bar.refresh()

    def remove(self) -> None:
        if self.bar.progress is not None:
            self.bar.progress.remove_task(self.number)
            self.bar.refresh()
