"""The callback that scores a model's explanations at every validation end."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from lightning_xai.callbacks.checks import check_names
from lightning_xai.callbacks.files import invited, thin_out
from lightning_xai.callbacks.maps import SHEETS, write_sheet
from lightning_xai.callbacks.processes import attempted, gathered, raise_together, summed
from lightning_xai.callbacks.progress import trainer_task
from lightning_xai.callbacks.recurring import RecurringCallback, Stage, epoch_and_step
from lightning_xai.callbacks.samples import Samples, Target
from lightning_xai.callbacks.summary import PANELS, print_summary, summary_table
from lightning_xai.callbacks.tensorboard import log_layout, log_settings
from lightning_xai.data.input_space import InputSpace
from lightning_xai.evaluation import (
    Evaluation,
    OnError,
    default_metrics,
    directions,
    evaluate,
    metric_classes,
    outputs_of,
)
from lightning_xai.explainers import Explainer, with_gradients
from lightning_xai.explainers.base import (
    check_choice,
    check_count,
    check_kind,
    parse_bounds,
)
from lightning_xai.explainers.channels import channels_second
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.controls import check_controls
from lightning_xai.explainers.precision import Precision
from lightning_xai.fingerprints import sample_records
from lightning_xai.forward import rows_of
from lightning_xai.functional.warn import described, warn_caller
from lightning_xai.metrics import SampleMetric
from lightning_xai.metrics.base import first_rows
from lightning_xai.names import named
from lightning_xai.outputs import Output
from lightning_xai.reporting.kinds import panel
from lightning_xai.reporting.loggers import log_picture, log_table
from lightning_xai.reporting.render import markdown_table
from lightning_xai.reporting.saving import save_figure
from lightning_xai.results.files import write_text
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.store import (
    SCORES,
    Share,
    append_scores,
    read_directions,
    read_evaluation,
    read_metric_classes,
    read_samples,
    read_scores,
    score_files,
    set_aside,
    write_class_names,
    write_directions,
)

Kept = Literal["all", "last"]


class AttributionCallback(RecurringCallback):
    """Explains a fixed set of samples at every validation and test end, and scores the explanations.

    Works on any LightningModule whose `forward` maps inputs (images, series, volumes, tables) to logits. Logs the mean
    of every metric as `xai/<method>/<metric>`, so that `ModelCheckpoint` and `EarlyStopping` can monitor it; writes the
    score of every sample to `xai/scores/` (Parquet; `lightning-xai export` makes a CSV file of it), with the class
    explained, the one predicted and its probability (`results.store.read_samples`), the direction of every metric to
    `xai/metrics.json`, the names of the classes where they are known to `xai/classes.json`, and a panel of maps to
    `xai/panels/` beside the run's checkpoints, and at the end a table of the latest means to `xai/tables/`. Weights &
    Biases, MLflow and TensorBoard get panels and table too, any other logger the means. Training goes on
    exactly as it would without it: weights, modes, gradients and random states are left alone.

    The samples are of the rows that the loader's sampler can yield in its first `limit_val_batches`. Of several loaders
    each has `num_samples`, and names of its own: `xai/<loader>/<method>/<metric>`, by its key or its place in a list,
    and `validate/<loader>` for the stage in scores and panels. Before the first epoch they are all looked at (labels,
    bounds), one of them is explained with every method, and whoever monitors a metric that will not be logged in time
    is refused: what cannot work fails there. Files that cannot be written cost the scores, not the training. A resumed
    training goes on in the scores of its checkpoint's run; a second one in the same folder at the same time is refused.

    Scores and panels of a `test` or `validate` with a checkpoint have the epoch and the step of the checkpoint.

    The samples are shared out over the processes; every process must have the callback. The means that are logged are
    added up in one sum, so that all processes see the same ones. Each process writes the scores of its own samples
    where all see the folder of the first one; else that one gets and writes them all. Where a process fails, all end,
    with the rank, method, metric and samples. Sharded models (FSDP, DeepSpeed, ModelParallel) are refused, since weight
    noise needs whole parameters.

    Attributes:
        evaluation: The latest scores, and attributions for the panel; None before the first validation end. Of this
            process's samples where each one writes its own: see `scores`.
        evaluations: The latest of each loader, by its name; an only one has the empty name. `evaluation` is the last.
        folder: Where the latest files were written; None before, and in a `fast_dev_run`, which explains one sample.
        latest: Stage, epoch and step of the latest scores; None before.

    Args:
        methods: Explainers by name; plain names such as `smooth_grad` will do, as will a list of them
            (`lightning_xai.names`); null for Gradient, Saliency, SG, AG (where `bounds` are known), NG and FG.
        controls: What is added to the methods, and they must beat: `edges`, a Sobel edge detector (tables have no
            edges), `random` maps, and `untrained`, the first of the methods on the untrained network (see `Untrained`;
            it costs what that one costs). True for the first two, false for none.
        num_gradients: Gradients a sample that each method with draws shall spend, for a comparison at equal cost; null
            for the methods' own numbers of draws.
        metrics: Metrics by name, likewise; null for what the data allow of these: sparseness, with masks relevance rank
            accuracy and AUROC, with bounds the share of out-of-range noise.
        num_samples: Samples explained, spread evenly over the rows; all if there are fewer.
        every_n_epochs: Explain after every n-th epoch of training; validation and test runs are always explained.
        panel_size: Samples shown in the panel; 0 for no panel.
        keep_maps: Whether the maps of all samples are written too, of images: for each evaluation a PNG of 8-bit gray
            in `xai/sheets/` (`callbacks.maps.write_sheet`), as many as panels; with several processes those of the
            first one's samples. `lightning-xai report` shows them sample by sample.
        target: The class explained: the sample's "label", the model's "prediction", or the number of one (of several
            labels that hold together); null for the label, or the prediction where batches have nothing but images,
            index and masks. Of labels (samples, classes), zeros and ones, "positive" explains each one that holds: each
            is a row of the scores with the sample's index, a target of its own, and the same noise. Samples without
            such a label are left out, and their number is told.
        mask: Which mask of the data, if they have several by name; null for the first.
        bounds: (low, high), least and greatest value of an input, numbers or one a channel; null for the data module's,
            or else the module's.
        seed: Seed of the noise. The same seed gives the same noise at every validation end.
        batch_size: Samples explained at a time.
        max_rows: Rows that pass through the network at once; null for as many as fit in memory.
        precision: Precision of the model while it is explained, whatever the trainer's: `32-true`, or `tf32` or
            `bf16-mixed`, which are faster where the hardware has them (see `explainers.precision.in_precision`).
        unpack: Makes `Samples` of a batch; null for the usual tuples and dicts (see `callbacks.samples.unpack`).
        name: Name of this callback, where a trainer has several: metrics are then `xai/<name>/<method>/<metric>`, and
            files and panels are in `xai/<name>`.
        output: What is explained, and what metrics take for a probability and a prediction: `logit`, `probability`,
            `log_probability`, `margin`, `region`, or a `class_path` (see `lightning_xai.outputs`).
        forward: For a module with other arguments or another result than a tensor: arguments of `Forward`, such as
            `{key: logits, explained: pixel_values, carried: [attention_mask]}`, the carried ones by their keys in the
            batches; null for a module from images to logits.
        channel_dim: The axis of the channels, -1 for inputs with the channels last, such as token embeddings (batch,
            token, channel), whose shape is that of a series.
        keep_panels: Panels of a stage that stay in the folder, at least two: the first, the latest, and of those in
            between the more, the newer; null for all. Loggers keep what they are given, which is every panel.
        keep_scores: Which validations' scores stay: "all", or the "last" of each stage.
        on_error: "raise", or with "warn" an explanation that fails costs its scores, which are NaN, and not the
            training: a sample without a class or with a NaN those of the sample, a method or metric its own, anything
            else those of the process. (An `EarlyStopping` that monitors a mean of NaN alone stops, by `check_finite`.)
        summary: Whether the table is printed at the end of a run, and where the files are.

    Raises:
        ValueError: if an argument is out of range, or a name unknown; before the first epoch, if a sample has no usable
            label or lies outside of the bounds, a method or a metric refuses the model or the data, a metric that is
            monitored will not be logged, or the strategy is a sharded one.
        TypeError: if a method or a metric is neither a name nor an object of the kind.

    Example:
        >>> from lightning_xai.callbacks import AttributionCallback
        >>> callback = AttributionCallback(methods=["saliency", "smooth_grad"], num_samples=16, bounds=(0.0, 1.0))
        >>> callback.evaluation is None  # until Trainer(callbacks=[callback]).fit(module, loader, validation_loader)
        True
    """

    def __init__(
        self,
        methods: dict[str, Explainer | str] | list[str] | None = None,
        metrics: dict[str, SampleMetric | str] | list[str] | None = None,
        controls: bool | list[str] = True,
        num_gradients: int | None = None,
        num_samples: int = 64,
        every_n_epochs: int = 1,
        panel_size: int = 8,
        target: Target | int | None = None,
        mask: str | None = None,
        bounds: Any = None,  # (low, high); tensors, which a command line cannot name, as well
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
        on_error: OnError = "raise",
        summary: bool = True,
        keep_maps: bool = False,
    ) -> None:
        given = target, bounds, seed, batch_size, unpack, name, output, forward, channel_dim, max_rows, precision
        files = "scores and panels"
        super().__init__(every_n_epochs, summary, files, methods, num_samples, *given, on_error=on_error)
        check_count("num_gradients", 1 if num_gradients is None else num_gradients)
        check_count("panel_size", panel_size, 0)
        check_count("keep_panels", 2 if keep_panels is None else keep_panels, 2)
        check_choice("keep_scores", keep_scores, Kept)
        check_names("metrics", metrics or ())
        check_controls(controls)
        self.metrics: dict[str, SampleMetric] | None = named("metrics", metrics)
        for key, metric in (self.metrics or {}).items():
            check_kind(f"metrics[{key!r}]", metric, SampleMetric, "a metric such as lightning_xai.metrics.Sparseness()")
        self.controls, self.num_gradients = controls, num_gradients
        self.panel_size, self.keep_panels, self.keep_scores = panel_size, keep_panels, keep_scores
        self.mask, self.keep_maps = mask, keep_maps
        self.evaluation: Evaluation | None = None
        self.evaluations: dict[str, Evaluation] = {}
        self.folder: Path | None = None
        self._samples: dict[str, tuple[Samples, Tensor, set[int]]] = {}
        self._resumed_at: int | None = None
        self._begins = False
        self._part: Path | None = None
        self.latest: tuple[str, int, int] | None = None
        self._latest_parts: list[tuple[str, Path | None]] = []
        self._parts: dict[str, list[Path]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._samples.clear()  # those of another run's data, and its files
        self._parts.clear()
        self._part = self.latest = self._resumed_at = None
        self._latest_parts = [(name, None) for name, _ in self._latest_parts]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._begin(trainer)
            if trainer.is_global_zero and self is self.together(trainer)[-1]:
                log_layout(trainer, chain.from_iterable(c._logged or () for c in self.together(trainer)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            log_settings(trainer, self.methods or {}, self._logged or ())

    def _rehearse(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> set[str]:
        with isolate_rng():
            samples, lost, repeats = self._chosen(trainer, pl_module, stage)

            def try_one() -> Evaluation:
                first = [samples.select(torch.arange(min(n, len(samples.images)))) for n in (1, self.batch_size)]
                try:
                    evaluation = self._evaluate(trainer, pl_module, first[0])
                except (RuntimeError, ValueError):  # a network may not take fewer rows than a batch has
                    evaluation = self._evaluate(trainer, pl_module, first[1], on_error=self.on_error)
                self._known(trainer, pl_module, first[1], repeats)
                return evaluation

            evaluation, failure = self._attempted(trainer, samples, lost, repeats, try_one)
            return set(self._together(trainer, samples, evaluation, failure, None, self.prefixed(stage))[0])

    def measure(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        """Explain, score, log and write, loader by loader."""
        self.evaluations, self._latest_parts = {}, []
        for own in self.staged(trainer, stage):
            self._measure(trainer, pl_module, own)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with isolate_rng():
            try:
                samples, lost, repeats = self._chosen(trainer, pl_module, stage)
            except Exception as error:  # in all processes
                if self.on_error == "raise":
                    raise
                warn_caller(f"AttributionCallback explains nothing at this {stage} end: {described(error)}")
                return
            folder = None if trainer.fast_dev_run else self._output(trainer)  # type: ignore[attr-defined]
            with nullcontext() if folder is None else self._invited(trainer, folder / SCORES) as share:
                kept = max(self.panel_size, len(samples.images) if self.keep_maps else 0)
                work = partial(self._evaluate, trainer, pl_module, samples, kept, True, self.on_error)
                evaluation, failure = self._attempted(trainer, samples, lost, repeats, work)
                known, unknown = attempted(partial(self._known, trainer, pl_module, samples, repeats))
                failure = failure or (unknown if self.on_error == "raise" else None)
                prefix = self.prefixed(stage)
                means, all_share = self._together(trainer, samples, evaluation, failure, share, prefix)
            for key, mean in means.items():
                pl_module.log(key, mean, batch_size=1)
            self.evaluation = cast(Evaluation, evaluation)
            if not all_share:
                parts = gathered(trainer, (self.evaluation.index, self.evaluation.targets, self.evaluation.scores))
                self.evaluation = _joined(self.evaluation, parts)
                everybodys = [part for part in gathered(trainer, known) if part is not None]
                known = pd.concat(everybodys).sort_values("row") if everybodys else None
            moment = epoch_and_step(trainer)
            self.latest = stage.partition("/")[0], *moment
            if folder is not None:
                self._write(trainer, self.evaluation, known, stage, moment, folder, share if all_share else None)
            name = stage.partition("/")[2]
            self.evaluations[name] = self.evaluation
            self._latest_parts.append((stage if name else "", self._part))

    def conclude(self, trainer: Trainer) -> None:
        """Hand the table of a run's latest scores to folder, loggers and terminal. A collective call."""
        trainer.strategy.barrier()  # until all have written their scores
        if not trainer.is_global_zero or self.latest is None or (table := summary_table(self, trainer)) is None:
            return
        (stage, _, step), folder = self.latest, self.folder
        if folder is not None:
            self._files.attempt(lambda: write_text(folder / "tables" / f"{stage}.md", markdown_table(table) + "\n"))
            for logger in trainer.loggers:
                log_table(logger, f"{self.prefix}/table/{stage}", table, step)
        if self.summary:
            print_summary(self, trainer, table)

    def scores(self) -> Scores | None:
        """The latest scores of all processes, read from the files where each one wrote its own; None before.

        There are none as long as a process still writes.
        """
        found = zip(self.evaluations.values(), self._latest_parts, strict=True)
        tables = [own.to_scores(stage) if part is None else read_evaluation(part) for own, (stage, part) in found]
        return Scores.concatenated(tables) if len(tables) > 1 else tables[0] if tables else None

    def _together(
        self,
        trainer: Trainer,
        samples: Samples,
        evaluation: Evaluation | None,
        failure: Exception | None,
        share: Share | None,
        prefix: str,
    ) -> tuple[dict[str, float], bool]:
        """The means over the samples of all processes, as they are logged, and whether all have a share to write.

        One sum of the same shape in all processes, in which one that failed takes part. The gradients spent are in the
        files and the tables.
        """
        methods, metrics = self.plan(samples, InputSpace.of(trainer).completed(self.conditions))
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
            f"{prefix}/{method}/{metric}": value / count if count else math.nan
            for (method, metric), value, count in zip(names, total[: len(names)], total[len(names) :], strict=True)
        }
        return logged, sharing == trainer.world_size

    def _attempted(
        self, trainer: Trainer, samples: Samples, lost: Tensor, repeats: set[int], work: Callable[[], Evaluation]
    ) -> tuple[Evaluation | None, Exception | None]:
        """The evaluation of the samples, with NaN for those that were lost, or how it failed."""
        nothing = partial(self._undefined, trainer, samples)
        evaluation, failure = attempted(work) if len(samples.images) else (nothing(samples.index), None)
        if failure is not None and self.on_error == "warn":
            warn_caller(f"AttributionCallback has no scores: {described(failure)}")
            evaluation, failure = nothing(samples.index), None
        if evaluation is not None and len(lost):
            parts = [(part.index, part.targets, part.scores) for part in (evaluation, nothing(lost))]
            evaluation = _joined(evaluation, parts)
        return (None if evaluation is None else _without(evaluation, repeats)), failure

    def _undefined(self, trainer: Trainer, samples: Samples, index: Tensor) -> Evaluation:
        """Of samples like these: scores that are all NaN, and no maps."""
        methods, metrics = self.plan(samples, InputSpace.of(trainer).completed(self.conditions))
        nan = torch.full((len(index),), math.nan)
        scores = {method: dict.fromkeys([*metrics, GRADIENTS], nan) for method in methods}
        unknown, none = torch.full_like(index, -1), index[:0]
        kinds = directions(metrics), metric_classes(metrics)
        return Evaluation(index, scores, kinds[0], samples.images[:0].cpu(), none, none, None, {}, unknown, kinds[1])

    def _chosen(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> tuple[Samples, Tensor, set[int]]:
        """The samples of a stage, the same ones for a whole run, the indices of those that cannot be explained, and of
        those that an earlier process has too.
        """
        if stage not in self._samples:
            found, failure = attempted(lambda: self.chosen_samples(trainer, pl_module, stage))
            raise_together(trainer, failure)
            chosen, lost = cast(tuple[Samples, Tensor], found)
            if self.keep_maps and chosen.images.ndim != 4:
                raise ValueError(
                    f"`keep_maps` is for images (batch, channel, height, width), got inputs of the shape "
                    f"{tuple(chosen.images.shape)}. Leave it out; panels show series and volumes."
                )
            own = [*chosen.index.tolist(), *lost.tolist()]
            earlier = chain(*gathered(trainer, own)[: trainer.global_rank])
            self._samples[stage] = chosen, lost, set(own).intersection(earlier)
        return self._samples[stage]

    def plan(self, samples: Samples, conditions: Conditions) -> tuple[dict[str, Explainer], dict[str, Any]]:
        """Methods, with the controls if they are wanted, and metrics."""
        has = samples.masks is not None, conditions.bounds is not None
        methods = self.chosen_methods(has[1])
        return (
            self.controlled(methods, samples.images, self.controls),
            default_metrics(*has) if self.metrics is None else self.metrics,
        )

    def _evaluate(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        samples: Samples,
        keep_attributions: int = 0,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Evaluation:
        conditions = InputSpace.of(trainer).completed(self.conditions)
        return evaluate(
            self.adapted(pl_module, samples.carried),
            samples.images,
            self.explained_target(samples),
            *self.plan(samples, conditions),
            samples.masks,
            index=samples.index,
            batch_size=self.batch_size,
            keep_attributions=keep_attributions,
            progress=partial(trainer_task, trainer) if progress else False,
            gather=False,
            on_error=on_error,
            **vars(conditions),
        )

    def _known(self, trainer: Trainer, pl_module: LightningModule, samples: Samples, repeats: set[int]) -> pd.DataFrame:
        """What is recorded of the samples but these beside their scores, the columns of `results.store.SAMPLES`."""
        conditions = InputSpace.of(trainer).completed(self.conditions)
        model, images = self.adapted(pl_module, samples.carried), conditions.inputs(samples.images)
        with conditions.explaining(model):
            parts = [
                outputs_of(rows_of(model, rows), images[rows.to(images.device)], conditions)
                for rows in torch.arange(len(images)).split(self.batch_size)
            ]
        _, predicted, probability = map(torch.cat, zip(*parts, strict=True))
        target = self.explained_target(samples)
        target = predicted if target is None else torch.as_tensor(target).expand(len(images))
        index = samples.index.cpu()
        given = index, images, target, samples.masks, predicted, probability, index.tolist()
        known = pd.DataFrame(sample_records(*given, explained=self.explained(samples)))
        return known[~known["sample"].isin(repeats)]

    def chosen_methods(self, has_bounds: bool) -> dict[str, Explainer]:
        """The methods without controls, with the draws that they can afford."""
        methods = super().chosen_methods(has_bounds)
        if self.num_gradients is None:
            return methods
        return {name: with_gradients(method, self.num_gradients) for name, method in methods.items()}

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

    def _invited(self, trainer: Trainer, path: Path) -> AbstractContextManager[Share | None]:
        return invited(trainer, path, lambda: self._make_room(trainer, path))

    def _make_room(self, trainer: Trainer, path: Path) -> None:
        """A new training begins with a folder of its own."""
        if self._begins and trainer.state.fn == "fit":
            if other := set_aside(path):
                for kind in (PANELS, SHEETS):
                    former, aside = (path.with_name(name.replace(SCORES, kind, 1)) for name in (path.name, other.name))
                    if former.exists() and not aside.exists():
                        former.rename(aside)
                rank_zero_warn(
                    f"AttributionCallback: {path} holds scores of an earlier training in this folder; "
                    f"they are in {other.name} now."
                )
            self._begins = False

    def _write(
        self,
        trainer: Trainer,
        evaluation: Evaluation,
        known: Any,
        stage: str,
        moment: tuple[int, int],
        folder: Path,
        share: Share | None,
    ) -> None:
        """Own scores where each process writes its own; all else is the first one's to write."""
        if not trainer.is_global_zero and share is None:
            self.folder = folder
            return
        (epoch, step), self._part = moment, None

        def write_scores() -> None:
            if trainer.is_global_zero:
                self._make_room(trainer, folder / SCORES)
                write_directions(folder / SCORES, evaluation.higher_is_better, evaluation.metric_classes)
                if names := InputSpace.of(trainer).class_names:
                    write_class_names(folder / SCORES, names)
            earlier = self._parts.setdefault(stage, [])
            give_way_after = None if earlier or stage.startswith("test") else self._resumed_at
            if self.keep_scores == "last":
                give_way_after = -1
                while len(earlier) > 1:  # the last one stays until all processes have written the new one
                    earlier.pop(0).unlink(missing_ok=True)
            scores, samples = evaluation.to_scores(stage, epoch, step), _columns(known)
            part = append_scores(folder / SCORES, scores, give_way_after, share, samples)
            earlier.append(part)
            self._part = None if share is None else part

        file = stage.replace("/", "-")

        def write_panel() -> None:
            space, shown = InputSpace.of(trainer), f"{stage}, epoch {epoch}, step {step}"
            first = _first(evaluation, self.panel_size)
            figure = draw_panel(first, space.completed(self.conditions), space.class_names, shown)
            path = folder / PANELS / f"{file}-epoch={epoch:03d}-step={step}.png"
            save_figure(figure, path)
            for logger in trainer.loggers:
                log_picture(logger, f"{self.prefix}/panel/{stage}", path, step)
            if self.keep_panels is not None:
                thin_out(folder / PANELS, file, step, self.keep_panels)

        def write_maps() -> None:
            path = folder / SHEETS / f"{file}-epoch={epoch:03d}-step={step}.png"
            write_sheet(evaluation, self._samples[stage][0].index, path, self.conditions.channel_dim)
            if self.keep_panels is not None:
                thin_out(folder / SHEETS, file, step, self.keep_panels)

        if self._files.attempt(write_scores):
            self.folder = folder
        if trainer.is_global_zero and evaluation.images.ndim <= 5 and len(evaluation.images):
            if self.panel_size:
                self._files.attempt(write_panel)
            if self.keep_maps:
                self._files.attempt(write_maps)


def _first(evaluation: Evaluation, number: int) -> Evaluation:
    """With the maps of the first samples alone."""
    masks = evaluation.masks
    return replace(
        evaluation,
        images=evaluation.images[:number],
        target=evaluation.target[:number],
        predicted=evaluation.predicted[:number],
        masks=None if masks is None else masks[:number],
        attributions={name: maps[:number] for name, maps in evaluation.attributions.items()},
    )


def _without(evaluation: Evaluation, repeats: set[int]) -> Evaluation:
    """Without the scores of some samples."""
    if not repeats:
        return evaluation
    kept = torch.tensor([number not in repeats for number in evaluation.index.tolist()])
    scores = {method: {name: own[kept] for name, own in found.items()} for method, found in evaluation.scores.items()}
    targets = None if evaluation.targets is None else evaluation.targets[kept]
    return replace(evaluation, index=evaluation.index[kept], targets=targets, scores=scores)


def _joined(evaluation: Evaluation, parts: Sequence[tuple[Tensor, Any, Any]]) -> Evaluation:
    """With indices and scores of several parts, such as those of all processes."""
    if len(parts) == 1:
        return evaluation
    index, order = first_rows(*(torch.cat(each) for each in list(zip(*parts, strict=True))[:2]))
    scores = {
        method: {name: torch.cat([own[method][name] for *_, own in parts])[order] for name in found}
        for method, found in evaluation.scores.items()
    }
    return replace(evaluation, index=index, targets=torch.cat([own for _, own, _ in parts])[order], scores=scores)


def _columns(known: pd.DataFrame | None) -> dict[str, Any] | None:
    """Records of samples as they are written; None if there are none."""
    return None if known is None or known.empty else known.to_dict("list")


def take_over(earlier: Path, path: Path, step: int) -> None:
    """Begin a resumed training's scores with those of the run that it goes on from, up to this step."""
    scores = read_scores(earlier)
    table = scores.select(stage=[name for name in scores.unique("stage") if name.startswith("validate")]).table
    if len(kept := Scores(table[table["step"] <= step])):
        known = read_samples(earlier)
        known = known[known["stage"].str.startswith("validate") & (known["step"] <= step)]
        append_scores(path, kept, samples=_columns(known))
        write_directions(path, read_directions(earlier), read_metric_classes(earlier))
        rank_zero_info(f"AttributionCallback goes on with the scores up to step {step} of {earlier}, in {path}.")


def draw_panel(evaluation: Evaluation, conditions: Conditions, class_names: Sequence[str] | None, title: str) -> Figure:
    """The panel of an evaluation's kept samples; inputs are shown on the scale of the bounds, or on their own."""
    turned = partial(channels_second, channel_dim=conditions.channel_dim)
    inputs = turned(evaluation.images)
    low_high = parse_bounds(conditions.bounds, ndim=inputs.ndim) or (inputs.min(), inputs.max())

    def names(classes: Tensor) -> list[str]:
        return [class_names[c] if class_names and c < len(class_names) else str(c) for c in classes.tolist()]

    return panel(
        inputs,
        {name: turned(maps) for name, maps in evaluation.attributions.items()},
        low_high,
        evaluation.masks,
        labels=names(evaluation.target),
        predictions=names(evaluation.predicted),
        title=title,
    )
