"""The callback that scores a model's explanations at every validation end."""

from collections.abc import Callable, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from lightning_xai.callbacks.samples import Samples, choose_samples, unpack
from lightning_xai.evaluation import Evaluation, default_metrics, evaluate
from lightning_xai.explainers import Explainer, Gradient, Saliency, with_controls, with_gradients
from lightning_xai.explainers.base import check_choice, check_count, parse_bounds
from lightning_xai.explainers.precision import Precision
from lightning_xai.explainers.recipes import adapt_grad, fusion_grad, noise_grad, smooth_grad
from lightning_xai.metrics import SampleMetric
from lightning_xai.metrics.cost import GRADIENTS
from lightning_xai.reporting.panels import attribution_panel, log_picture, save_figure
from lightning_xai.reporting.scores import SCORES, append_scores, evaluation_rows, write_directions

PANELS = "panels"
Stage = Literal["validate", "test"]


class AttributionCallback(Callback):
    """Explains a fixed set of samples at every validation and test end, and scores the explanations.

    Works on any LightningModule whose `forward` maps images to logits. Logs the mean of every metric as
    `xai/<method>/<metric>`, so that `ModelCheckpoint` and `EarlyStopping` can monitor it; writes the score of every
    sample to `xai/scores.csv`, the direction of every metric to `xai/metrics.json` and a panel of maps to `xai/panels/`
    beside the run's checkpoints, and gives the panel to the loggers. Training goes on exactly as it would without it:
    weights, modes, gradients and random states are left alone. The sanity check before training explains one sample
    with every method, so that what cannot work fails there.

    The samples are shared out over the processes; every process must have the callback. Sharded models (FSDP,
    DeepSpeed) are not supported, since weight noise needs whole parameters.

    Attributes:
        evaluation: The latest scores, and attributions for the panel; None before the first validation end.
        folder: Where the latest files were written; None before, and in a `fast_dev_run`, which explains one sample.

    Args:
        methods: Explainers by name; null for Gradient, Saliency, SG, AG (where `bounds` are known), NG and FG.
        controls: Whether the noise floor is added to the methods: a Sobel edge detector, as `edges`, and `random` maps.
        num_gradients: Gradients a sample that each method with draws shall spend, for a comparison at equal cost; null
            for the methods' own numbers of draws.
        metrics: Metrics by name; null for what the data allow of these: sparseness, with masks relevance rank accuracy
            and AUROC, with bounds the share of out-of-range noise.
        num_samples: Samples explained, spread evenly over the data set; all if it has fewer.
        every_n_epochs: Explain after every n-th epoch of training; validation and test runs are always explained.
        panel_size: Samples shown in the panel; 0 for no panel.
        target: The class explained: the sample's "label", or the model's "prediction" (also where there are no labels).
        mask: Which mask of the data, if they have several by name; null for the first.
        bounds: (low, high), least and greatest value of an input, numbers or one a channel; null for the data module's,
            or else the module's.
        seed: Of the noise. The same seed gives the same noise at every validation end.
        batch_size: Samples explained at a time.
        max_rows: Rows that pass through the network at once; null for as many as fit in memory.
        precision: Of the model while it is explained, whatever the trainer's: `32-true`, or `bf16-mixed`, which is
            faster where the hardware computes in bfloat16.
        unpack: Makes `Samples` of a batch; null for the usual tuples and dicts (see `callbacks.samples.unpack`).
    """

    def __init__(
        self,
        methods: dict[str, Explainer] | None = None,
        metrics: dict[str, SampleMetric] | None = None,
        controls: bool = True,
        num_gradients: int | None = None,
        num_samples: int = 64,
        every_n_epochs: int = 1,
        panel_size: int = 8,
        target: Literal["label", "prediction"] = "label",
        mask: str | None = None,
        bounds: tuple[float | list[float], float | list[float]] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        max_rows: int | None = None,
        precision: Precision = "32-true",
        unpack: Callable[[Any], Samples] | None = None,
    ) -> None:
        check_count("num_samples", num_samples)
        check_count("every_n_epochs", every_n_epochs)
        check_count("batch_size", batch_size)
        check_choice("precision", precision, Precision)
        if num_gradients is not None:
            check_count("num_gradients", num_gradients)
        if panel_size < 0:
            raise ValueError(f"`panel_size` must be at least 0, got {panel_size}.")
        if target not in ("label", "prediction"):
            raise ValueError(f'`target` must be "label" or "prediction", got {target!r}.')
        if methods is not None and not methods:
            raise ValueError("`methods` must name at least one explainer; null stands for the default ones.")
        self.methods, self.metrics = methods, metrics
        self.controls, self.num_gradients = controls, num_gradients
        self.num_samples, self.every_n_epochs, self.panel_size = num_samples, every_n_epochs, panel_size
        self.target, self.mask, self.bounds, self.seed = target, mask, bounds, seed
        self.batch_size, self.max_rows = batch_size, max_rows
        self.precision, self.unpack = precision, unpack
        self.evaluation: Evaluation | None = None
        self.folder: Path | None = None
        self._samples: dict[Stage, Samples] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._samples.clear()  # those of another run's data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.limit_val_batches:  # validation was switched off
            return
        loader = first_loader(trainer.val_dataloaders)
        if loader is None:
            rank_zero_warn("AttributionCallback has nothing to do in fit: there is no validation dataloader.")
        elif isinstance(loader, Sized) and not len(loader):
            raise ValueError("The validation set is empty: AttributionCallback has no sample to explain.")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            self.rehearse(trainer, pl_module)
        elif trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.measure(trainer, pl_module, "validate")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measure(trainer, pl_module, "test")

    def rehearse(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Explain and score one sample and forget it, so that a mistake shows before the training and not after."""
        with isolate_rng():
            self._evaluate(
                trainer, pl_module, self._choose(trainer, "validate", 1), keep_attributions=0, progress=False
            )

    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Explain, score, log and write."""
        with isolate_rng():
            if stage not in self._samples:
                number = 1 if trainer.fast_dev_run else self.num_samples  # type: ignore[attr-defined]
                self._samples[stage] = self._choose(trainer, stage, number)
            progress = trainer.progress_bar_callback is not None and trainer.is_global_zero
            self.evaluation = self._evaluate(trainer, pl_module, self._samples[stage], self.panel_size, progress)
            for method, means in self.evaluation.means().items():
                for metric, mean in means.items():
                    if metric == GRADIENTS:
                        continue  # it is in the files and the tables
                    pl_module.log(f"xai/{method}/{metric}", mean, sync_dist=True, batch_size=1)
            self.folder = None if trainer.fast_dev_run else output_folder(trainer)  # type: ignore[attr-defined]
            if trainer.is_global_zero and self.folder is not None:
                self._write(trainer, self.evaluation, stage, self.folder)

    def _choose(self, trainer: Trainer, stage: Stage, num_samples: int) -> Samples:
        loader = first_loader(trainer.test_dataloaders if stage == "test" else trainer.val_dataloaders)
        take = self.unpack or partial(unpack, mask=self.mask)
        return choose_samples(trainer, loader, num_samples, self.batch_size, take)

    def _evaluate(
        self, trainer: Trainer, pl_module: LightningModule, samples: Samples, keep_attributions: int, progress: bool
    ) -> Evaluation:
        bounds = self._bounds(trainer)
        return evaluate(
            pl_module,
            samples.images,
            samples.labels if self.target == "label" else None,
            self._methods(samples, bounds is not None),
            default_metrics(samples.masks is not None, bounds is not None) if self.metrics is None else self.metrics,
            samples.masks,
            bounds=bounds,
            index=samples.index,
            seed=self.seed,
            batch_size=self.batch_size,
            max_rows=self.max_rows,
            precision=self.precision,
            keep_attributions=keep_attributions,
            progress=progress,
        )

    def _methods(self, samples: Samples, has_bounds: bool) -> dict[str, Explainer]:
        methods = default_methods(has_bounds) if self.methods is None else self.methods
        if self.num_gradients is not None:
            methods = {name: with_gradients(method, self.num_gradients) for name, method in methods.items()}
        return with_controls(methods, samples.images.ndim == 4) if self.controls else methods

    def _bounds(self, trainer: Trainer) -> Any:
        return _known(trainer, "bounds") if self.bounds is None else self.bounds

    def _write(self, trainer: Trainer, evaluation: Evaluation, stage: Stage, folder: Path) -> None:
        epoch, step = trainer.current_epoch, trainer.global_step
        write_directions(folder / SCORES, evaluation.higher_is_better)
        append_scores(folder / SCORES, evaluation_rows(evaluation, stage, epoch, step))
        if evaluation.images.ndim == 4 and len(evaluation.images):
            figure = draw_panel(evaluation, self._bounds(trainer), _known(trainer, "class_names"))
            pixels = save_figure(figure, folder / PANELS / f"{stage}-epoch={epoch:03d}-step={step}.png")
            for logger in trainer.loggers:
                log_picture(logger, f"xai/panel/{stage}", pixels, step)


def default_methods(has_bounds: bool) -> dict[str, Explainer]:
    """The papers' methods, and what they smooth: the signed gradient, or its absolute value."""
    adaptive: dict[str, Explainer] = {"adapt_grad": adapt_grad()} if has_bounds else {}
    if not has_bounds:
        rank_zero_warn(
            "AttributionCallback leaves AdaptGrad and the share of out-of-range noise out: the range of the inputs is "
            "unknown. Pass `bounds`, or give the data module a `bounds` property."
        )
    return {
        "gradient": Gradient(),
        "saliency": Saliency(),
        "smooth_grad": smooth_grad(),
        **adaptive,
        "noise_grad": noise_grad(),
        "fusion_grad": fusion_grad(),
    }


def output_folder(trainer: Trainer) -> Path:
    """`xai` beside the checkpoints: under the first logger's run, or else `default_root_dir`. A collective call."""
    folder = Path(trainer.default_root_dir)
    if trainer.loggers:
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = Path(logger.save_dir or folder) / str(logger.name) / version
    return Path(trainer.strategy.broadcast(str(folder))) / "xai"


def draw_panel(evaluation: Evaluation, bounds: Any, class_names: Sequence[str] | None) -> Figure:
    """The panel of an evaluation's kept samples; images are shown on the scale of the bounds, or on their own."""
    low_high = parse_bounds(bounds) or (evaluation.images.min(), evaluation.images.max())

    def names(classes: Tensor) -> list[str]:
        return [class_names[c] if class_names and c < len(class_names) else str(c) for c in classes.tolist()]

    return attribution_panel(
        evaluation.images,
        evaluation.attributions,
        low_high,
        evaluation.masks,
        labels=names(evaluation.target),
        predictions=names(evaluation.predicted),
    )


def first_loader(loaders: Any) -> Any:
    """The first of several dataloaders, in a list or by name; None if there is none."""
    several = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    return (several[0] if several else None) if isinstance(several, list | tuple) else several


def _known(trainer: Trainer, name: str) -> Any:
    """What the data module says of this name, or else the module (a `PretrainedClassifier` brings its own)."""
    found = getattr(getattr(trainer, "datamodule", None), name, None)
    return getattr(trainer.lightning_module, name, None) if found is None else found
