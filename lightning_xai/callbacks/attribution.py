"""The callback that scores a model's explanations at every validation end."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric.utilities.data import sized_len
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_xai.callbacks.base import ExplainingCallback
from lightning_xai.callbacks.checks import (
    check_names,
)
from lightning_xai.callbacks.files import RunFiles, invited, run_of, thin_out
from lightning_xai.callbacks.processes import attempted, gathered, raise_together, summed
from lightning_xai.callbacks.progress import trainer_task
from lightning_xai.callbacks.samples import (
    Samples,
    Target,
    current_loader,
)
from lightning_xai.callbacks.schedule import check_monitors, tell_epochs
from lightning_xai.callbacks.tensorboard import log_layout, log_settings
from lightning_xai.data.input_space import InputSpace
from lightning_xai.evaluation import Evaluation, default_metrics, evaluate
from lightning_xai.explainers import Explainer, with_gradients
from lightning_xai.explainers.base import (
    check_choice,
    check_count,
    check_whole_number,
    parse_bounds,
)
from lightning_xai.explainers.channels import channels_second
from lightning_xai.explainers.precision import Precision
from lightning_xai.metrics import SampleMetric
from lightning_xai.names import named
from lightning_xai.outputs import Output
from lightning_xai.reporting.kinds import panel
from lightning_xai.reporting.panels import log_picture
from lightning_xai.reporting.saving import save_figure
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import (
    SCORES,
    Share,
    append_scores,
    read_directions,
    read_evaluation,
    read_scores,
    score_files,
    set_aside,
    write_directions,
)

PANELS = "panels"
Stage = Literal["validate", "test"]
Kept = Literal["all", "last"]


class AttributionCallback(ExplainingCallback):
    """Explains a fixed set of samples at every validation and test end, and scores the explanations.

    Works on any LightningModule whose `forward` maps inputs (images, series, volumes, tables) to logits. Logs the mean
    of every metric as `xai/<method>/<metric>`, so that `ModelCheckpoint` and `EarlyStopping` can monitor it; writes the
    score of every sample to `xai/scores/` (Parquet; `lightning-xai export` makes a CSV file of it), the direction of
    every metric to `xai/metrics.json` and a panel of maps to `xai/panels/` beside the run's checkpoints, and gives the
    panel to the loggers. Training goes on exactly as it would without it: weights, modes, gradients and random states
    are left alone.

    The samples are of the rows that the loader's sampler can yield in its first `limit_val_batches`; a loader of
    several is the first one. Before the first epoch they are all looked at (labels, bounds), one of them is explained
    with every method, and whoever monitors a metric that will not be logged in time is refused: what cannot work fails
    there. Files that cannot be written cost the scores, not the training. A resumed training goes on in the scores of
    its checkpoint's run; a second one in the same folder at the same time is refused.

    The samples are shared out over the processes; every process must have the callback. The means that are logged are
    added up in one sum, so that all processes see the same ones. Each process writes the scores of its own samples
    where all see the folder of the first one; else that one gets and writes them all. Where a process fails, all end,
    with the rank, method, metric and samples. Sharded models (FSDP, DeepSpeed, ModelParallel) are refused, since weight
    noise needs whole parameters.

    Attributes:
        evaluation: The latest scores, and attributions for the panel; None before the first validation end. Of this
            process's samples where each one writes its own: see `scores`.
        folder: Where the latest files were written; None before, and in a `fast_dev_run`, which explains one sample.

    Args:
        methods: Explainers by name; plain names such as `smooth_grad` will do, as will a list of them
            (`lightning_xai.names`); null for Gradient, Saliency, SG, AG (where `bounds` are known), NG and FG.
        controls: Whether the noise floor is added to the methods: a Sobel edge detector, as `edges` (tables have no
            edges), and `random` maps.
        num_gradients: Gradients a sample that each method with draws shall spend, for a comparison at equal cost; null
            for the methods' own numbers of draws.
        metrics: Metrics by name, likewise; null for what the data allow of these: sparseness, with masks relevance rank
            accuracy and AUROC, with bounds the share of out-of-range noise.
        num_samples: Samples explained, spread evenly over the rows; all if there are fewer.
        every_n_epochs: Explain after every n-th epoch of training; validation and test runs are always explained.
        panel_size: Samples shown in the panel; 0 for no panel.
        target: The class explained: the sample's "label", the model's "prediction", or the number of one (of several
            labels that hold together); null for the label, or the prediction where batches have nothing but images,
            index and masks.
        mask: Which mask of the data, if they have several by name; null for the first.
        bounds: (low, high), least and greatest value of an input, numbers or one a channel; null for the data module's,
            or else the module's.
        seed: Of the noise. The same seed gives the same noise at every validation end.
        batch_size: Samples explained at a time.
        max_rows: Rows that pass through the network at once; null for as many as fit in memory.
        precision: Of the model while it is explained, whatever the trainer's: `32-true`, or `tf32` or `bf16-mixed`,
            which are faster where the hardware has them (see `explainers.precision.in_precision`).
        unpack: Makes `Samples` of a batch; null for the usual tuples and dicts (see `callbacks.samples.unpack`).
        name: Of this callback, where a trainer has several: metrics are then `xai/<name>/<method>/<metric>`, and files
            and panels are in `xai/<name>`.
        output: What is explained, and what metrics take for a probability and a prediction: `logit`, `probability`,
            `log_probability`, `margin`, `region`, or a `class_path` (see `lightning_xai.outputs`).
        forward: Of a module with other arguments or another result than a tensor: arguments of `Forward`, such as
            `{key: logits, explained: pixel_values, carried: [attention_mask]}`, the carried ones by their keys in the
            batches; null for a module from images to logits.
        channel_dim: The axis of the channels, -1 for inputs with the channels last, such as token embeddings (batch,
            token, channel), whose shape is that of a series.
        keep_panels: Panels of a stage that stay in the folder, at least two: the first, the latest, and of those in
            between the more, the newer; null for all. Loggers keep what they are given, which is every panel.
        keep_scores: Which validations' scores stay: "all", or the "last" of each stage.
    """

    root = "xai"

    def __init__(
        self,
        methods: dict[str, Explainer | str] | list[str] | None = None,
        metrics: dict[str, SampleMetric | str] | list[str] | None = None,
        controls: bool = True,
        num_gradients: int | None = None,
        num_samples: int = 64,
        every_n_epochs: int = 1,
        panel_size: int = 8,
        target: Target | int | None = None,
        mask: str | None = None,
        bounds: tuple[float | list[float], float | list[float]] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        max_rows: int | None = None,
        precision: Precision = "32-true",
        unpack: Callable[[Any], Samples] | None = None,
        name: str | None = None,
        output: Output | str = "logit",
        forward: dict[str, Any] | None = None,
        channel_dim: int = 1,
        keep_panels: int | None = 20,
        keep_scores: Kept = "all",
    ) -> None:
        super().__init__(methods, num_samples, target, bounds, seed, batch_size, unpack, name, output, forward)
        check_count("every_n_epochs", every_n_epochs)
        check_choice("precision", precision, Precision)
        check_count("max_rows", 1 if max_rows is None else max_rows)
        check_count("num_gradients", 1 if num_gradients is None else num_gradients)
        check_count("panel_size", panel_size, 0)
        check_count("keep_panels", 2 if keep_panels is None else keep_panels, 2)
        check_choice("keep_scores", keep_scores, Kept)
        check_names("metrics", metrics or ())
        self.metrics: dict[str, SampleMetric] | None = named("metrics", metrics)
        self.controls, self.num_gradients, self.every_n_epochs = controls, num_gradients, every_n_epochs
        check_whole_number("channel_dim", channel_dim)
        self.channel_dim = channel_dim
        self.panel_size, self.keep_panels, self.keep_scores = panel_size, keep_panels, keep_scores
        self.mask, self.max_rows, self.precision = mask, max_rows, precision
        self.evaluation: Evaluation | None = None
        self.folder: Path | None = None
        self._samples: dict[Stage, tuple[Samples, set[int]]] = {}
        self._logged: set[str] | None = None
        self._files = RunFiles("AttributionCallback", "scores and panels")
        self._resumed_at: int | None = None
        self._begins = False
        self._part: Path | None = None
        self._parts: dict[Stage, list[Path]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._samples.clear()  # those of another run's data, and its files
        self._parts.clear()
        self._part = None
        if trainer.world_size > 1:  # Lightning would have each mean added up on its own
            warnings.filterwarnings("ignore", rf"It is recommended to use `self.log\('{self.root}/.*, sync_dist=True")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._logged = set()
        loader = current_loader(trainer) if trainer.enable_validation else None
        if loader is not None:
            if sized_len(loader) == 0:
                raise ValueError("The validation set is empty: AttributionCallback has no sample to explain.")
            self._logged = self.rehearse(trainer, pl_module)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                tell_epochs(trainer, self.every_n_epochs)
        elif trainer.limit_val_batches:  # else validation was switched off
            rank_zero_warn("AttributionCallback has nothing to do in fit: there is no validation dataloader.")
        self._check_monitors(trainer)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._begin(trainer)
            if trainer.is_global_zero and self is self.together(trainer)[-1]:
                log_layout(trainer, chain.from_iterable(c._logged or () for c in self.together(trainer)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            log_settings(trainer, self.methods or {}, self._logged or ())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.measure(trainer, pl_module, "validate")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measure(trainer, pl_module, "test")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._files.end(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._files.end(trainer)

    def rehearse(self, trainer: Trainer, pl_module: LightningModule) -> set[str] | None:
        """Look at all samples, explain and score one, and forget it: a mistake shows before the training, not after.

        Returns:
            The names of the metrics that will be logged; None where nothing can be explained yet, because the loader
            can be iterated over only once, or parameters get their shapes in the first pass.
        """
        if isinstance(current_loader(trainer), Iterator) or any(map(is_lazy, pl_module.parameters())):
            return None
        with isolate_rng():
            samples, repeats = self._chosen(trainer, pl_module, "validate")

            def try_one() -> Evaluation:
                first = (samples.select(torch.arange(min(n, len(samples.images)))) for n in (1, self.batch_size))
                try:
                    return self._evaluate(trainer, pl_module, next(first))
                except (RuntimeError, ValueError):  # a network may not take fewer rows than a batch has
                    return self._evaluate(trainer, pl_module, next(first))

            evaluation, failure = attempted(lambda: _without(try_one(), repeats))
            return set(self._together(trainer, samples, evaluation, failure, None)[0])

    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Explain, score, log and write."""
        with isolate_rng():
            samples, repeats = self._chosen(trainer, pl_module, stage)
            folder = None if trainer.fast_dev_run else self._output(trainer)  # type: ignore[attr-defined]
            with nullcontext() if folder is None else self._invited(trainer, folder / SCORES) as share:
                evaluation, failure = attempted(
                    lambda: _without(self._evaluate(trainer, pl_module, samples, self.panel_size, True), repeats)
                )
                means, all_share = self._together(trainer, samples, evaluation, failure, share)
            for key, mean in means.items():
                pl_module.log(key, mean, batch_size=1)
            self.evaluation = cast(Evaluation, evaluation)
            if not all_share:
                self.evaluation = _everybodys(trainer, self.evaluation)
            if folder is not None:
                self._write(trainer, self.evaluation, stage, folder, share if all_share else None)

    def scores(self) -> Scores | None:
        """The latest scores of all processes, read from the files where each one wrote its own; None before.

        There are none as long as a process still writes.
        """
        if self._part is not None:
            return read_evaluation(self._part)
        return None if self.evaluation is None else self.evaluation.to_scores()

    def _together(
        self,
        trainer: Trainer,
        samples: Samples,
        evaluation: Evaluation | None,
        failure: Exception | None,
        share: Share | None,
    ) -> tuple[dict[str, float], bool]:
        """The means over the samples of all processes, as they are logged, and whether all have a share to write.

        One sum of the same shape in all processes, in which one that failed takes part. The gradients spent are in the
        files and the tables.
        """
        methods, metrics = self._plan(trainer, samples)
        names = [(method, metric) for method in methods for metric in metrics]
        sums = np.zeros((2, len(names)))
        if evaluation is not None and names:
            values = np.stack([evaluation.scores[method][metric].double().numpy() for method, metric in names])
            with np.errstate(invalid="ignore"):  # infinite scores of both signs have no mean
                sums = np.stack([np.nansum(values, 1), (~np.isnan(values)).sum(1)])
        own = np.array([failure is not None, share is not None, *sums.ravel()])
        failed, sharing, *total = summed(trainer, own).tolist()
        if failed:
            raise_together(trainer, failure)
        logged = {
            f"{self.prefix}/{method}/{metric}": value / count if count else math.nan
            for (method, metric), value, count in zip(names, total[: len(names)], total[len(names) :], strict=True)
        }
        return logged, sharing == trainer.world_size

    def _chosen(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> tuple[Samples, set[int]]:
        """The samples of a stage, the same ones for a whole run, and those of them that an earlier process has too."""
        if stage not in self._samples:
            samples, failure = attempted(lambda: self.chosen_samples(trainer, pl_module, stage == "test"))
            raise_together(trainer, failure)
            chosen = cast(Samples, samples)
            own = chosen.index.tolist()
            earlier = chain(*gathered(trainer, own)[: trainer.global_rank])
            self._samples[stage] = chosen, set(own).intersection(earlier)
        return self._samples[stage]

    def _plan(self, trainer: Trainer, samples: Samples) -> tuple[dict[str, Explainer], dict[str, SampleMetric]]:
        """Methods and metrics."""
        has_masks, has_bounds = samples.masks is not None, InputSpace.of(trainer, self.bounds).bounds is not None
        methods = self.chosen_methods(has_bounds)
        return (
            self.controlled(methods, samples.images) if self.controls else methods,
            default_metrics(has_masks, has_bounds) if self.metrics is None else self.metrics,
        )

    def _evaluate(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        samples: Samples,
        keep_attributions: int = 0,
        progress: bool = False,
    ) -> Evaluation:
        return evaluate(
            self.adapted(pl_module, samples.carried),
            samples.images,
            self.explained_target(samples),
            *self._plan(trainer, samples),
            samples.masks,
            output=self.output,
            bounds=InputSpace.of(trainer, self.bounds).bounds,
            index=samples.index,
            seed=self.seed,
            batch_size=self.batch_size,
            max_rows=self.max_rows,
            precision=self.precision,
            keep_attributions=keep_attributions,
            progress=partial(trainer_task, trainer) if progress else False,
            channel_dim=self.channel_dim,
            gather=False,
        )

    def chosen_methods(self, has_bounds: bool) -> dict[str, Explainer]:
        """The methods without controls, with the draws that they can afford."""
        methods = super().chosen_methods(has_bounds)
        if self.num_gradients is None:
            return methods
        return {name: with_gradients(method, self.num_gradients) for name, method in methods.items()}

    def _check_monitors(self, trainer: Trainer) -> None:
        """By the last one of several, when all know what they will log."""
        ours = self.together(trainer)
        if self is not ours[-1] or any(c._logged is None for c in ours):
            return
        logged = {key: c.every_n_epochs for c in ours for key in c._logged or ()}
        check_monitors(trainer, logged, "xai/", "AttributionCallback")

    def _begin(self, trainer: Trainer) -> None:
        """Hold the files, and take the scores over from the run of the checkpoint that this training goes on from."""
        path = self._output(trainer) / SCORES
        self._files.begin(trainer, path)
        self._resumed_at = trainer.global_step if trainer.ckpt_path else None
        self._begins = trainer.global_step == 0
        if self._resumed_at is not None and trainer.is_global_zero:
            run = Path(trainer.ckpt_path).absolute().parent.parent  # type: ignore[arg-type]
            earlier = run / self.prefix / SCORES
            step = self._resumed_at
            if score_files(earlier) and not score_files(path):
                self._files.attempt(lambda: take_over(earlier, path, step))

    def _output(self, trainer: Trainer) -> Path:
        return output_folder(trainer) / (self.name or "")

    def _invited(self, trainer: Trainer, path: Path) -> AbstractContextManager[Share | None]:
        return invited(trainer, path, lambda: self._make_room(trainer, path))

    def _make_room(self, trainer: Trainer, path: Path) -> None:
        """A new training begins with a folder of its own."""
        if self._begins and trainer.state.fn == "fit":
            if other := set_aside(path):
                panels, aside = (path.with_name(name.replace(SCORES, PANELS, 1)) for name in (path.name, other.name))
                if panels.exists() and not aside.exists():
                    panels.rename(aside)
                rank_zero_warn(
                    f"AttributionCallback: {path} holds scores of an earlier training in this folder; "
                    f"they are in {other.name} now."
                )
            self._begins = False

    def _write(self, trainer: Trainer, evaluation: Evaluation, stage: Stage, folder: Path, share: Share | None) -> None:
        """Own scores where each process writes its own; all else is the first one's to write."""
        if not trainer.is_global_zero and share is None:
            self.folder = folder
            return
        epoch, step = trainer.current_epoch, trainer.global_step
        self._part = None

        def write_scores() -> None:
            if trainer.is_global_zero:
                self._make_room(trainer, folder / SCORES)
                write_directions(folder / SCORES, evaluation.higher_is_better)
            give_way_after = self._resumed_at if stage == "validate" else None
            earlier = self._parts.setdefault(stage, [])
            if self.keep_scores == "last":
                give_way_after = -1
                while len(earlier) > 1:  # the last one stays until all processes have written the new one
                    earlier.pop(0).unlink(missing_ok=True)
            part = append_scores(folder / SCORES, evaluation.to_scores(stage, epoch, step), give_way_after, share)
            earlier.append(part)
            self._part = None if share is None else part
            self._resumed_at = None

        def write_panel() -> None:
            space = InputSpace.of(trainer, self.bounds)
            shown = f"{stage}, epoch {epoch}, step {step}"
            figure = draw_panel(evaluation, space.bounds, space.class_names, shown, self.channel_dim)
            path = folder / PANELS / f"{stage}-epoch={epoch:03d}-step={step}.png"
            save_figure(figure, path)
            for logger in trainer.loggers:
                log_picture(logger, f"{self.prefix}/panel/{stage}", path, step)
            if self.keep_panels is not None:
                thin_out(folder / PANELS, stage, step, self.keep_panels)

        if self._files.attempt(write_scores):
            self.folder = folder
        if trainer.is_global_zero and evaluation.images.ndim <= 5 and len(evaluation.images):
            self._files.attempt(write_panel)


def _without(evaluation: Evaluation, repeats: set[int]) -> Evaluation:
    """Without the scores of some samples."""
    if not repeats:
        return evaluation
    kept = torch.tensor([number not in repeats for number in evaluation.index.tolist()])
    scores = {method: {name: own[kept] for name, own in found.items()} for method, found in evaluation.scores.items()}
    return replace(evaluation, index=evaluation.index[kept], scores=scores)


def _everybodys(trainer: Trainer, evaluation: Evaluation) -> Evaluation:
    """With the scores of all processes. A collective call."""
    parts = gathered(trainer, (evaluation.index, evaluation.scores))
    if len(parts) == 1:
        return evaluation
    index, order = torch.cat([index for index, _ in parts]).sort()
    scores = {
        method: {name: torch.cat([own[method][name] for _, own in parts])[order] for name in found}
        for method, found in evaluation.scores.items()
    }
    return replace(evaluation, index=index, scores=scores)


def take_over(earlier: Path, path: Path, step: int) -> None:
    """Begin a resumed training's scores with those of the run that it goes on from, up to this step."""
    table = read_scores(earlier).select(stage="validate").table
    if len(kept := Scores(table[table["step"] <= step])):
        append_scores(path, kept)
        write_directions(path, read_directions(earlier))
        rank_zero_info(f"AttributionCallback goes on with the scores up to step {step} of {earlier}, in {path}.")


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


def draw_panel(
    evaluation: Evaluation, bounds: Any, class_names: Sequence[str] | None, title: str, channel_dim: int = 1
) -> Figure:
    """The panel of an evaluation's kept samples; inputs are shown on the scale of the bounds, or on their own."""
    inputs = channels_second(evaluation.images, channel_dim)
    low_high = parse_bounds(bounds, ndim=inputs.ndim) or (inputs.min(), inputs.max())

    def names(classes: Tensor) -> list[str]:
        return [class_names[c] if class_names and c < len(class_names) else str(c) for c in classes.tolist()]

    return panel(
        inputs,
        {name: channels_second(maps, channel_dim) for name, maps in evaluation.attributions.items()},
        low_high,
        evaluation.masks,
        labels=names(evaluation.target),
        predictions=names(evaluation.predicted),
        title=title,
    )
