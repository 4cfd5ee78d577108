"""What the callbacks share that look at the same samples at each validation end, log what they find, and keep files."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning_fabric.utilities.data import sized_len
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch.nn.parameter import is_lazy

from lightning_xai.callbacks.base import ExplainingCallback
from lightning_xai.callbacks.files import RunFiles, run_of
from lightning_xai.callbacks.samples import current_loaders
from lightning_xai.callbacks.schedule import check_monitors, tell_epochs
from lightning_xai.explainers.base import check_count
from lightning_xai.modules.checkpoints import read_as_data

Stage = Literal["validate", "test"]


class RecurringCallback(ExplainingCallback):
    """Base of the callbacks that measure every n-th validation end of a training, and those of all other runs.

    Args:
        every_n_epochs: As in `AttributionCallback`.
        summary: Whether `conclude` prints something.
        files: What is written, in words.
        given: Arguments of `ExplainingCallback`.
        options: Likewise.
    """

    root = "xai"

    def __init__(self, every_n_epochs: int, summary: bool, files: str, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        check_count("every_n_epochs", every_n_epochs)
        self.every_n_epochs, self.summary = every_n_epochs, summary
        self._logged: set[str] | None = None
        self._files = RunFiles(type(self).__name__, files)

    @abstractmethod
    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Explain, log and write, loader by loader."""

    @abstractmethod
    def conclude(self, trainer: Trainer) -> None:
        """Tell the latest at the end of a run. A collective call."""

    @abstractmethod
    def _rehearse(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> set[str]:
        """Try what `measure` does, and say which names a loader's metrics will have."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._logged, owner = set(), type(self).__name__
        loaders = current_loaders(trainer) if trainer.enable_validation else {}
        if loaders:
            if any(sized_len(loader) == 0 for loader in loaders.values()):
                raise ValueError(f"The validation set is empty: {owner} has no sample to explain.")
            self._logged = self.rehearse(trainer, pl_module)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                tell_epochs(trainer, self.every_n_epochs, owner)
        elif trainer.limit_val_batches:  # else validation was switched off
            rank_zero_warn(f"{owner} has nothing to do in fit: there is no validation dataloader.")
        self._check_monitors(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.measure(trainer, pl_module, "validate")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measure(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self.conclude(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.conclude(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.conclude(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        interrupted = isinstance(exception, KeyboardInterrupt) and trainer.state.fn == "fit"
        if interrupted and trainer.world_size == 1:  # others may not come to this point
            self.conclude(trainer)
        self._files.end(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._files.end(trainer)

    def rehearse(self, trainer: Trainer, pl_module: LightningModule) -> set[str] | None:
        """Look at all samples, try one, and forget it: a mistake shows before the training, not after.

        Returns:
            The names of the metrics that will be logged; None where nothing can be explained yet, because the loader
            can be iterated over only once, or parameters get their shapes in the first pass.
        """
        passing = any(isinstance(loader, Iterator) for loader in current_loaders(trainer).values())
        if passing or any(map(is_lazy, pl_module.parameters())):
            return None
        logged = (self._rehearse(trainer, pl_module, stage) for stage in self.staged(trainer, "validate"))
        return set().union(*logged)

    def _check_monitors(self, trainer: Trainer) -> None:
        """By the last one of several, of any kind, when all know what they will log."""
        ours = [c for c in trainer.callbacks if isinstance(c, RecurringCallback)]  # type: ignore[attr-defined]
        if self is not ours[-1] or any(c._logged is None for c in ours):
            return
        logged = {key: (type(c).__name__, c.every_n_epochs) for c in ours for key in c._logged or ()}
        check_monitors(trainer, logged, "xai/", dict.fromkeys(type(c).__name__ for c in ours))

    def _output(self, trainer: Trainer) -> Path:
        return output_folder(trainer) / (self.name or "")


def epoch_and_step(trainer: Trainer) -> tuple[int, int]:
    """Those that the weights are of: a validation or test of a checkpoint has the checkpoint's. A collective call."""
    moment = trainer.current_epoch, trainer.global_step
    if trainer.state.fn == "fit" or not trainer.ckpt_path:
        return moment
    with suppress(Exception):  # another kind of file, or one that this process does not see
        checkpoint = read_as_data(trainer.ckpt_path)
        moment = int(checkpoint["epoch"]), int(checkpoint["global_step"])
    return trainer.strategy.broadcast(moment)


def output_folder(trainer: Trainer) -> Path:
    """`xai` beside the checkpoints: under the first logger's run, or else `default_root_dir`; a test's is that of the
    run that its checkpoint is of. A collective call.
    """
    folder = Path(trainer.default_root_dir)
    tested = run_of(trainer.ckpt_path) if trainer.state.fn == "test" else None
    if tested is not None:
        folder = tested
    elif trainer.loggers:
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = Path(logger.save_dir or folder) / str(logger.name) / version
    return Path(trainer.strategy.broadcast(str(folder))) / "xai"
