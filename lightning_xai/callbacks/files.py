"""The files that a training writes beside its checkpoints, and that it does not die of."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from lightning_xai.results.locks import RunLock
from lightning_xai.results.store import Share, new_evaluation


class RunFiles:
    """Files of a callback: written by one training at a time, and left out where they cannot be written.

    A second training that would write the same ones is refused as long as the first one runs, by a lock of the
    operating system. Validation and test runs beside it are not: their rows are theirs, and go in one by one.
    """

    def __init__(self, owner: str, what: str) -> None:
        self.owner, self.what = owner, what
        self._lock = RunLock()
        self._lost: list[str] = []

    def begin(self, trainer: Trainer, path: Path) -> None:
        """Hold the file at `path` until `end`. A collective call.

        Raises:
            ValueError: if another training holds it; with the one that does.
        """
        holder = None
        if trainer.is_global_zero:
            try:
                holder = self._lock.acquire(path)
            except OSError as error:
                self._lose(error)
        holder = trainer.strategy.broadcast(holder)
        if holder is not None:
            raise ValueError(
                f"`default_root_dir` (or the logger's folder): {path} is being written by another training, {holder}. "
                "Wait for it, or choose another folder."
            )

    def attempt(self, write: Callable[[], object]) -> bool:
        """Whether it could be written; if not, that is said, and at the end again."""
        try:
            write()
        except (OSError, ValueError) as error:
            self._lose(error)
            return False
        return True

    def end(self, trainer: Trainer) -> None:
        """Let the file go."""
        self._lock.release()
        if self._lost and trainer.state.fn == "fit":
            warnings.warn(
                f"{self.owner} lost {self.what} {len(self._lost)} times in this training: {self._lost[-1]}",
                stacklevel=2,
            )
        self._lost = []

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            warnings.warn(f"{self.owner} cannot write {self.what}, and goes on without: {error}", stacklevel=4)
        self._lost.append(str(error))


def run_of(checkpoint: Any) -> Path | None:
    """The run of a checkpoint: above `checkpoints` if scores are there, else None; or the folder that it lies in."""
    if not isinstance(checkpoint, str | Path) or not Path(checkpoint).is_file():
        return None
    folder = Path(checkpoint).absolute().parent
    run = folder.parent if folder.name == "checkpoints" else folder
    with suppress(ValueError):
        run = run.relative_to(Path.cwd())  # which is shorter to read
    return run if folder.name != "checkpoints" or (run / "xai").is_dir() else None


def thin_out(folder: Path, stage: str, step: int, number: int) -> None:
    """Remove panels of a stage up to this step until so many are left, as `superfluous` chooses them."""
    panels = {path: int(path.stem.rpartition("=")[2]) for path in folder.glob(f"{stage}-epoch=*-step=*.png")}
    known = sorted((when, path) for path, when in panels.items() if when <= step)
    while len(known) > number:
        known.pop(superfluous([when for when, _ in known]))[1].unlink(missing_ok=True)


def superfluous(times: Sequence[int]) -> int:
    """Which of three times or more, ascending, leaves the least gap for its age; never the first or the last.

    Removed one by one, this leaves gaps in proportion to the age: the newest are kept close to one another.
    """
    return min(
        range(1, len(times) - 1),
        key=lambda place: (times[place + 1] - times[place - 1]) / max(1, times[-1] - times[place]),
    )


@contextmanager
def invited(trainer: Trainer, path: Path, prepare: Callable[[], None]) -> Iterator[Share | None]:
    """This process's share of a new evaluation in the folder at `path`; None where it does not see that folder.

    The first of several processes prepares it, and lays a file beside it for as long as the block runs: those that see
    the file share its file system. A single process has no share. A collective call.
    """
    evaluation = None
    if trainer.is_global_zero and trainer.world_size > 1:
        with suppress(OSError):  # then the first process alone will write, and say why it cannot
            prepare()
            evaluation = new_evaluation(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{evaluation}").touch()
    evaluation = trainer.strategy.broadcast(evaluation)
    token = path.with_name(f".{evaluation}")
    try:
        seen = evaluation is not None and token.exists()
        yield Share(str(evaluation), trainer.global_rank, trainer.world_size) if seen else None
    finally:
        if trainer.is_global_zero:
            with suppress(OSError):
                token.unlink(missing_ok=True)
