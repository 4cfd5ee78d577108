"""The callback that finds the epochs worth keeping when accuracy and explanations disagree."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_xai.callbacks.files import RunFiles
from lightning_xai.callbacks.recurring import output_folder
from lightning_xai.explainers.base import check_choice
from lightning_xai.reporting.tables import write_validations
from lightning_xai.results.pareto import Mode, Validation

VALIDATIONS = "pareto.csv"


class ParetoFront(Callback):
    """Notes chosen metrics at every validation end of a training, to find the Pareto front of its epochs.

    An epoch is on the front if no other one is as good in all metrics and better in one. Writes `xai/pareto.csv`
    beside the run's checkpoints; the command line prints the front at the end. Validations at which one of the metrics
    was not logged anew (`AttributionCallback` with `every_n_epochs`) are left out. A resumed training goes on with what
    the checkpoint's had found. A table that cannot be written costs the table, not the training.

    Attributes:
        validations: What was noted, in order of time; values in the order of `monitor`.

    Args:
        monitor: Two or more logged metrics, each with "max" or "min" for what is better in it, such as
            {"val/accuracy": "max", "xai/noise_grad/auroc": "max"}.

    Raises:
        ValueError: if `monitor` has fewer than two metrics, or something else than max and min.

    Example:
        >>> from lightning_xai.callbacks import ParetoFront
        >>> front = ParetoFront({"val/accuracy": "max", "xai/saliency/faithfulness_correlation": "max"})
        >>> front.monitor["val/accuracy"]
        'max'
    """

    def __init__(self, monitor: dict[str, Mode]) -> None:
        if len(monitor) < 2:
            raise ValueError(f"`monitor` must name at least two logged metrics, each max or min; got {monitor}.")
        for mode in monitor.values():
            check_choice("monitor", mode, Mode)
        self.monitor = dict(monitor)
        self.validations: list[Validation] = []
        self._seen: dict[str, Tensor] = {}
        self._warned = False
        self._files = RunFiles("ParetoFront", "its table")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before a checkpoint's state is loaded
            self.validations, self._seen, self._warned = [], {}, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._files.begin(trainer, output_folder(trainer) / VALIDATIONS)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._files.end(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._files.end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        logged = {name: trainer.callback_metrics.get(name) for name in self.monitor}
        fresh = all(value is not None and not _same(value, self._seen.get(name)) for name, value in logged.items())
        self._seen = {name: value for name, value in logged.items() if value is not None}
        if fresh:
            values = tuple(float(value) for value in self._seen.values())
            self.validations.append(Validation(trainer.current_epoch, trainer.global_step, values))
            self._write(trainer)
        elif len(self._seen) < len(self.monitor) and not self._warned:
            self._warned = True
            absent = ", ".join(name for name in self.monitor if name not in self._seen)
            rank_zero_warn(
                f"ParetoFront leaves out validations like this one, at which {absent} was not logged. Logged were: "
                f"{', '.join(sorted(trainer.callback_metrics)) or 'none'}."
            )

    def state_dict(self) -> dict[str, Any]:
        noted = [[v.epoch, v.step, list(v.values)] for v in self.validations]  # plain types, safe to load
        return {"monitor": list(self.monitor), "validations": noted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["monitor"] == list(self.monitor):  # values of other metrics tell nothing
            self.validations = [Validation(epoch, step, tuple(v)) for epoch, step, v in state_dict["validations"]]

    def _write(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = output_folder(trainer)
        if trainer.is_global_zero:
            self._files.attempt(lambda: write_validations(folder / VALIDATIONS, self.validations, self.monitor))


def _same(value: Tensor, seen: Tensor | None) -> bool:
    """The same memory, not an equal number: what Lightning hands out of a metric that was not logged again."""
    return seen is not None and value.data_ptr() == seen.data_ptr()
