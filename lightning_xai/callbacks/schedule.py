"""What a training will log at which epochs, known before it begins: who waits for a metric that will not come."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_warn


@dataclass(frozen=True)
class Waiting:
    """Somebody who looks at a logged metric.

    Attributes:
        who: In words.
        key: The metric.
        every: After every how many epochs; 0 if it does not matter when the metric is logged.
        at_validation: Only after those with a validation.
        fails: Whether it ends the training if the metric was never logged before, also without any validation.
        cure: What else than other epochs of the explanations helps.
        each_step: Whether it looks at it during an epoch too, that is before the first validation.
    """

    who: str
    key: str
    every: int = 0
    at_validation: bool = True
    fails: bool = False
    cure: str = ""
    each_step: bool = False


@dataclass(frozen=True)
class Schedule:
    """The epochs of a training that end with a validation, and those whose validation is explained."""

    first: int
    end: float
    every_validation: int | None
    every_explanation: int

    @classmethod
    def of(cls, trainer: Trainer, every_n_epochs: int) -> "Schedule":
        return cls(trainer.current_epoch, _end(trainer), trainer.check_val_every_n_epoch, every_n_epochs)

    def validated(self, epoch: int) -> bool:
        return self.every_validation is None or (epoch + 1) % self.every_validation == 0

    def explained(self, epoch: int) -> bool:
        return self.validated(epoch) and (epoch + 1) % self.every_explanation == 0

    @property
    def period(self) -> int:
        """Explained are at most the epochs whose number, counted from 1, is a multiple of it."""
        return math.lcm(self.every_validation or 1, self.every_explanation)

    def epochs(self, waiting: int = 1) -> range:
        """All kinds of epochs that there are."""
        return range(self.first, int(min(self.end, self.first + 2 * math.lcm(self.period, max(1, waiting)))))

    def first_miss(self, waiting: Waiting) -> int | None:
        """The first epoch after which a metric is looked for that was not logged, or was logged earlier."""
        logged = had_validation = False
        for epoch in self.epochs(waiting.every):
            validated, explained = self.validated(epoch), self.explained(epoch)
            logged, had_validation = logged or explained, had_validation or validated
            looks = waiting.every and (epoch + 1) % waiting.every == 0 and (validated or not waiting.at_validation)
            absent = not logged and (waiting.fails or had_validation)
            if looks and not explained and (validated or absent):
                return epoch
        return None


def check_monitors(trainer: Trainer, logged: Mapping[str, tuple[str, int]], prefix: str, owners: Iterable[str]) -> None:
    """Refuse callbacks and learning-rate schedulers that wait for metrics that will not be logged, or not in time.

    Args:
        trainer: About to train.
        logged: What will be logged, by which class, and after every how many epochs.
        prefix: Of metrics that nobody else logs.
        owners: The classes that log them.

    Raises:
        ValueError: with the one that waits, and what to do.
    """
    for waiting in _all_waiting(trainer):
        if not waiting.key.startswith(prefix):
            continue
        if waiting.key not in logged:
            near = sorted(get_close_matches(waiting.key, logged, n=3, cutoff=0)) or [
                "nothing, for lack of a validation"
            ]
            known = ", ".join(near) + (f" and {len(logged) - len(near)} more" if len(logged) > len(near) else "")
            who = " and ".join(owners)
            logs = "log" if " and " in who else "logs"
            raise ValueError(
                f"{waiting.who} waits for {waiting.key!r}, which nothing logs: in this training {who} {logs} {known}."
            )
        owner, every = logged[waiting.key]
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            continue
        if waiting.each_step:
            raise ValueError(
                f"{waiting.who} looks for {waiting.key!r} after single steps, before the first validation, when "
                f"{owner} has logged nothing yet. Give the scheduler the `interval` 'epoch'."
            )
        missed = Schedule.of(trainer, every).first_miss(waiting)
        if missed is not None:
            raise ValueError(
                f"{waiting.who} looks for {waiting.key!r} after epoch {missed}, at which {owner} does not log it "
                f"(`every_n_epochs` {every}, `check_val_every_n_epoch` {trainer.check_val_every_n_epoch}). "
                f"Give {owner} `every_n_epochs` 1{waiting.cure.format(every=every)}."
            )


def tell_epochs(trainer: Trainer, every_n_epochs: int, owner: str) -> None:
    """Warn where nothing will be explained by a class, or less than `every_n_epochs` says."""
    schedule = Schedule.of(trainer, every_n_epochs)
    settings = (
        f"`every_n_epochs` {every_n_epochs} and the trainer's `check_val_every_n_epoch` {schedule.every_validation}"
    )
    if not any(map(schedule.explained, schedule.epochs())):
        rank_zero_warn(
            f"{owner} explains nothing in this training: by {settings} it explains every "
            f"{schedule.period} epochs, and the training ends before."
        )
    elif schedule.period not in (every_n_epochs, schedule.every_validation):
        rank_zero_warn(
            f"{owner} explains only every {schedule.period} epochs, where {settings} meet. Give it a "
            "multiple of the trainer's."
        )


def _end(trainer: Trainer) -> float:
    """The number of epochs that end with a validation before the training ends, if nothing stops it earlier."""
    end = math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)
    steps = trainer.num_training_batches / trainer.accumulate_grad_batches
    if trainer.max_steps > 0 and math.isfinite(steps) and steps > 0:
        whole = trainer.val_check_interval == 1.0  # else a part of the last epoch has a validation too
        epochs = trainer.max_steps / math.ceil(steps)
        end = min(end, float(math.floor(epochs) if whole else math.ceil(epochs)))
    return end


def _all_waiting(trainer: Trainer) -> Iterator[Waiting]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        name = type(callback).__name__
        if isinstance(callback, ModelCheckpoint):
            yield from _of_checkpoint(trainer, callback)
        elif isinstance(callback, EarlyStopping):
            if callback.strict:  # an earlier value would count as a new one that is no better
                cure = ", the trainer `check_val_every_n_epoch` {every}, or EarlyStopping `strict` False"
                after_validation = not callback._check_on_train_epoch_end
                yield Waiting(f"{name}(monitor={monitor!r})", callback.monitor, 1, after_validation, True, cure)
        elif isinstance(monitor, str):
            yield Waiting(f"{name}(monitor={monitor!r})", monitor)
        elif isinstance(monitor, Mapping):
            yield from (Waiting(f"{name}(monitor={dict(monitor)!r})", key) for key in monitor)
    for config in trainer.lr_scheduler_configs if trainer.lightning_module.automatic_optimization else ():
        if config.reduce_on_plateau and config.strict and config.monitor is not None:
            yield _of_scheduler(trainer, config)


def _of_checkpoint(trainer: Trainer, callback: ModelCheckpoint) -> Iterator[Waiting]:
    if callback.monitor is None or callback.save_top_k == 0:
        return
    by_steps = bool(callback._every_n_train_steps or callback._train_time_interval)
    yield Waiting(
        f"{type(callback).__name__}(monitor={callback.monitor!r})",
        callback.monitor,
        1 if by_steps else callback._every_n_epochs,
        by_steps or not callback._should_save_on_train_epoch_end(trainer),
        cure=", or the checkpoint `every_n_epochs` {every}",
    )


def _of_scheduler(trainer: Trainer, config: Any) -> Waiting:
    who = f"{type(config.scheduler).__name__} with the monitor {config.monitor!r}"
    if config.interval == "step":  # an epoch's last step counts as taken after its validation
        during = config.frequency < trainer.num_training_batches
        return Waiting(who, config.monitor, int(not during), at_validation=False, fails=True, each_step=during)
    cure = ", or the scheduler `frequency` {every}"
    return Waiting(who, config.monitor, config.frequency, at_validation=False, fails=True, cure=cure)
