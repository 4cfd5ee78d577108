"""Explain a model, and score its explanations: the part of the package that needs no Lightning."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import Parameter, signature
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_xai.explainers.base import (
    Bound,
    Context,
    Explainer,
    check_choice,
    check_count,
    check_index,
    check_inputs,
    check_kind,
    check_model,
    check_rows,
    probe_rows,
    resolve_target,
)
from lightning_xai.explainers.channels import check_layout
from lightning_xai.explainers.chunks import in_chunks
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.controls import Chosen, with_controls
from lightning_xai.explainers.cost import counting_gradients
from lightning_xai.explainers.precision import Precision
from lightning_xai.explainers.precomputed import NoModel
from lightning_xai.explainers.recipes import smooth_grad
from lightning_xai.forward import Forward, rows_of
from lightning_xai.functional.devices import is_apple, sent
from lightning_xai.functional.random import remembering_noise
from lightning_xai.functional.warn import noting, warn_caller
from lightning_xai.metrics import (
    InherentNoise,
    LocalizationAUROC,
    RelevanceRankAccuracy,
    SampleMetric,
    Shared,
    Sparseness,
    mean_score,
    standard_error,
)
from lightning_xai.metrics.base import first_rows
from lightning_xai.metrics.checks import check_explain_again
from lightning_xai.metrics.cost import NumGradients
from lightning_xai.names import named, named_method
from lightning_xai.outputs import Logit, Output, check_declared, check_width, positive_labels
from lightning_xai.progress import Bar, progress_bar
from lightning_xai.results.scores import GRADIENTS, Scores as ScoreTable
from lightning_xai.results.tables import Printed, ResultTable, from_above
from lightning_xai.shapes import Inputs, Labels, Masks, Scores, Targets

OnError = Literal["raise", "warn"]
MAPS = "maps"
"""What is watched while a map is made, in the place of a metric."""


@dataclass(frozen=True, repr=False)
class Evaluation(Printed):
    """The scores of several methods on the same samples; it prints as the table of their means.

    Attributes:
        index: (samples,) sample indices, ascending; each as often as it has targets that are explained.
        scores: scores[method][metric] is (samples,), NaN where undefined; all on the CPU. Beside the metrics asked for,
            "gradients" is what the method spent: gradients of the model's output, a sample.
        higher_is_better: Direction of each metric; None for a metric without one.
        images, target, predicted, masks: The first samples, as many as attributions were kept of: inputs, class
            explained, class that the model predicts, and masks if there are any.
        attributions: attributions[method] of these.
        targets: (samples,) class explained of each index; -1 where the output has no classes. None if it is not known.
        metric_classes: The class of each metric, with its package.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> evaluation = lx.evaluate(model, images, target=1, methods=["noise_grad"], metrics=["sparseness"])
        >>> evaluation.scores["noise_grad"]["sparseness"].shape, evaluation.means()["noise_grad"]["gradients"]
        (torch.Size([3]), 10.0)
        >>> evaluation.higher_is_better["sparseness"]
        True
    """

    index: Labels
    scores: dict[str, dict[str, Scores]]
    higher_is_better: dict[str, bool | None]
    images: Tensor
    target: Int64[Tensor, " kept"]
    predicted: Int64[Tensor, " kept"]
    masks: Tensor | None
    attributions: dict[str, Tensor] = field(repr=False)
    targets: Labels | None = None
    metric_classes: dict[str, str] = field(default_factory=dict)

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the samples with a defined score, by method and metric."""
        return {m: {n: float(mean_score(s)) for n, s in scores.items()} for m, scores in self.scores.items()}

    def standard_errors(self) -> dict[str, dict[str, float]]:
        """Standard error of each mean, by method and metric."""
        return {m: {n: float(standard_error(s)) for n, s in scores.items()} for m, scores in self.scores.items()}

    def to_scores(self, stage: str = "", epoch: int = 0, step: int = 0) -> ScoreTable:
        """The scores of all methods and metrics as a table, under the name of a stage."""
        table = ScoreTable.from_values(stage, epoch, step, self.index, self.scores, self.targets)
        return replace(table, higher_is_better=self.higher_is_better)

    def _parts(self) -> list[ResultTable]:
        title = f"{len(self.index)} samples, mean ± standard error"
        return [from_above("reporting.tables:score_table")(self.to_scores(), self.higher_is_better, title)]

    def _repr_html_(self) -> str:
        """The means, for notebooks."""
        return self.to_scores()._repr_html_()


def explain(
    model: nn.Module,
    images: Inputs,
    target: Targets | int | None = None,
    method: Explainer | str = smooth_grad(),
    *,
    output: Output | str = Logit(),
    bounds: tuple[Bound, Bound] | None = None,
    index: Labels | None = None,
    seed: int = 0,
    max_rows: int | None = None,
    precision: Precision = "32-true",
    channel_dim: int = 1,
) -> Inputs:
    """Attributions of a batch of inputs, shaped like them; the model is left as it was.

    Args:
        model: Maps (batch, ...) to logits (batch, classes), or to what `output` is of; explained in evaluation mode.
            `lightning_xai.Forward` makes such a model of any other.
        images: (batch, feature) or (batch, channel, ...), as the model takes them.
        target: Class to explain, one for all or one a sample, also as the 0.0 and 1.0 or booleans of a binary
            classifier, (batch,) or (batch, 1); None for the predicted class.
        method: An explainer, such as `smooth_grad()` or `Gradient()`, or a plain name, such as "noise_grad".
        output: What is explained, one of `lightning_xai.outputs` or a plain name, such as "probability": by default the
            target's logit; of a single logit, that of a classifier with labels 0 and 1, label 0 explains its negative.
        bounds: (low, high) of the input elements, numbers or one value a channel; AdaptGrad needs them. For normalized
            images `lx.bounds(mean, std)`; images with values outside are refused.
        index: Sample indices; noise depends on the seed and the index. By default 0, 1, ...
        seed: Seed of the noise, a whole number.
        max_rows: Rows that pass through the network at once; by default as many as fit in memory.
        precision: The model's, whatever the caller's settings; "tf32" and "bf16-mixed" are faster where the hardware
            has them (see `in_precision`).
        channel_dim: The axis of the channels, -1 for inputs with the channels last, such as token embeddings (batch,
            token, channel): their shape is that of a series (batch, channel, time). Methods and metrics get them
            second, also those of your own.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if the images are no batch, not finite or out of `bounds`; if `target` or `index` do not fit; if
            the outputs are no logits or have no gradient; if the method needs bounds, or refuses the model.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> images = torch.tensor([[0.2, 0.9]])
        >>> lx.explain(model, images, target=1)  # SmoothGrad
        tensor([[3., 4.]])
        >>> lx.explain(model, images, target=0, method=lx.adapt_grad(lx.Saliency()), bounds=(0.0, 1.0))
        tensor([[1., 2.]])
    """
    conditions = Conditions(bounds, seed, max_rows, output, precision, channel_dim)
    explainer: Explainer = named_method(method) if isinstance(method, str) else method
    _check_methods({"method": explainer})
    check_model(model)
    check_inputs(images, values=False)
    images = conditions.inputs(images)
    check_layout({"method": explainer}, channel_dim)
    context = conditions.context(images, _checked_index(index, len(images)))
    with conditions.explaining(model):
        attributions = explainer(model, images, target, context)
    _warn_of_undefined(model, {type(explainer).__name__: _undefined(attributions)})
    return attributions.movedim(1, channel_dim)


def evaluate(
    model: nn.Module | None,
    images: Inputs,
    target: Targets | int | None = None,
    methods: Mapping[str, Explainer | str] | Sequence[Explainer | str] | None = None,
    metrics: Mapping[str, SampleMetric | str] | Sequence[SampleMetric | str] | None = None,
    masks: Masks | None = None,
    *,
    output: Output | str = Logit(),
    bounds: tuple[Bound, Bound] | None = None,
    index: Labels | None = None,
    seed: int = 0,
    batch_size: int = 64,
    max_rows: int | None = None,
    precision: Precision = "32-true",
    keep_attributions: int = 0,
    progress: bool | Bar = False,
    channel_dim: int = 1,
    gather: bool = True,
    on_error: OnError = "raise",
    controls: Chosen = False,
) -> Evaluation:
    """Scores of every method on every sample. All methods see the same noise draws and explain the same classes.

    Where torch.distributed is initialized, every process passes its own share of the samples, with their indices, and
    gets the scores of all of them, or with `gather=False` those of its own, without a word to the others.

    Args:
        model: As in `explain`, like images, target, output, bounds, index, seed, max_rows, precision and channel_dim;
            None where `target` is given and neither methods (`Precomputed`, controls) nor metrics look at a network.
            Metrics of probabilities and predictions take them from the same output.
            Labels that hold together may be given as `target` too, (batch, classes) zeros and ones: each one that
            holds is then a row of its own, with the sample's index, and so with the same noise.
        methods: Explainers by name; plain names such as "smooth_grad" will do, as will a list (`lightning_xai.names`).
        metrics: Metrics by name, likewise; None for `default_metrics`. They are copied, not written to.
        masks: Booleans, one a place, such as (batch, height, width); True where the evidence is.
        batch_size: Samples at a time; the scores do not depend on it.
        keep_attributions: Number of samples, the first ones, whose attributions are returned too.
        progress: Whether to show a progress bar; or whose it shall be.
        gather: Whether the processes gather their scores.
        on_error: With "warn" a method or a metric that fails costs its own scores, which are NaN for the batch that it
            failed on, and a warning says so; what fails is named with method, metric and samples either way.
        controls: Controls that are added to the methods, as in `explainers.with_controls`.

    Raises:
        TypeError: as `explain`; if `methods` or `metrics` are no names or objects of the kind.
        ValueError: as `explain`; if a name is unknown, or a metric needs masks or bounds that are not given, or makes
            no sense of such inputs.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.rand(5, 1, 2, 2)
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
        >>> masks = torch.tensor([[True, False], [False, False]]).expand(5, 2, 2)
        >>> methods = {"ours": lx.Gradient(), "random": "random_attribution"}
        >>> means = lx.evaluate(model, images, 0, methods, ["pointing_game"], masks).means()
        >>> {name: round(scores["pointing_game"], 3) for name, scores in means.items()}
        {'ours': 1.0, 'random': 0.2}
    """
    conditions = Conditions(bounds, seed, max_rows, output, precision, channel_dim)
    model = NoModel() if model is None else model
    check_model(model)
    if hasattr(images, "dataset") or hasattr(images, "test_dataloader"):
        raise TypeError(
            f"`images` is a {type(images).__name__}: lightning_xai.evaluate_stream reads it, batch by batch."
        )
    check_inputs(images, values=False)
    index = _checked_index(index, len(images))
    check_inputs(images, index=index)
    images = conditions.inputs(images)
    check_count("batch_size", batch_size)
    check_count("keep_attributions", keep_attributions, 0)
    check_choice("on_error", on_error, OnError)
    _check_lengths(len(images), masks=masks)
    num_classes = None
    if isinstance(target, Tensor) and target.ndim == 2 and target.shape[1] > 1:
        _check_lengths(len(images), target=target)
        check_declared(conditions.output)
        num_classes = target.shape[1]
        places, target = positive_labels(target)
        if not len(target):
            raise ValueError("`target`: no label of any sample holds, so that there is nothing to explain.")
        places = places.cpu()
        images, index, model = images[places], index[places], rows_of(model, places)
        masks = None if masks is None else masks[places]
    explainers, given = planned(methods, metrics, images, masks is not None, conditions, controls)
    whole = conditions.context(images, index)
    slices = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    own = partial(progress_bar, shown=progress) if isinstance(progress, bool) else progress
    with conditions.explaining(model):
        if num_classes is not None:
            _check_classes(whole, rows_of(model, slices[0]), images[slices[0]], num_classes)
        target = _targets(whole, model, images, target, slices)
        predicted = _targets(whole, model, images, None, slices, keep_attributions)
    every = Batch(images, target, index, masks, whole, model)
    batches = (replace(every.select(rows), keep=max(0, keep_attributions - rows.start)) for rows in slices)
    with own("explaining", len(slices) * len(explainers)) as bar:
        failures: list[str] | None = None if on_error == "raise" else []
        parts = list(score_batches(model, batches, explainers, given, conditions, bar.update, failures))
    maps = _on_cpu([torch.cat([part.maps[name] for part in parts]) for name in explainers])
    target = target.cpu()
    told = target if whole.output.has_labels else torch.full_like(target, -1)
    index, told, scores = _gathered(index, told, parts, explainers, [*given, GRADIENTS], gather)
    return Evaluation(
        index,
        scores,
        higher_is_better=directions(given),
        images=images[:keep_attributions].movedim(1, channel_dim).cpu(),
        target=target[:keep_attributions],
        predicted=predicted.cpu(),
        masks=None if masks is None else masks[:keep_attributions].cpu(),
        attributions=dict(zip(explainers, maps, strict=True)),
        targets=told,
        metric_classes=metric_classes(given),
    )


@dataclass(frozen=True)
class Batch:
    """Samples that are explained together, on the model's device.

    Attributes:
        images, target, index, masks: As an explainer and the metrics take them, the channels of the images second; the
            index is on the CPU. The target may be one class for all, or None for those that the network predicts.
        context: Context of the samples; None for what the conditions of the evaluation make of their indices.
        model: For these samples, with what it carries along of them; None for that of the evaluation.
        keep: Number of samples, the first ones, whose maps are wanted.
        pairs: Which metrics of which methods are wanted; None for all of all.
        record: What the caller wants to have beside the scores.
    """

    images: Inputs
    target: Any
    index: Labels
    masks: Masks | None = None
    context: Any = None
    model: Any = None
    keep: int = 0
    pairs: Mapping[str, Sequence[str]] | None = None
    record: Any = None

    def completed(self, model: nn.Module, conditions: Conditions) -> "Batch":
        """With what it was made without; while the model is being explained."""
        model = model if self.model is None else self.model
        context, target = self.context or conditions.context(self.images, self.index), self.target
        if not isinstance(target, Tensor):
            target = resolve_target(model, self.images, target, context.max_rows, context.output)
        return replace(self, target=target, context=context, model=model)

    def select(self, rows: slice | Tensor) -> "Batch":
        """Some of the samples of a batch that is complete."""
        return replace(
            self,
            images=self.images[rows],
            target=self.target[rows],
            index=self.index[rows],
            masks=None if self.masks is None else self.masks[rows],
            context=self.context.select(rows),
            model=rows_of(self.model, rows),
        )


@dataclass(frozen=True)
class ScoredBatch:
    """What was found for a batch: `values` is (pairs of method and metric, samples), on the model's device; NaN where
    one `failed`."""

    batch: Batch
    pairs: list[tuple[str, str]]
    values: Tensor
    maps: dict[str, Tensor]
    failed: frozenset[tuple[str, str]] = frozenset()

    def without_failed(self) -> "ScoredBatch":
        """The scores of those that did not fail."""
        kept = [place for place, pair in enumerate(self.pairs) if pair not in self.failed]
        return replace(self, pairs=[self.pairs[place] for place in kept], values=self.values[kept])


def score_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    methods: Mapping[str, Explainer],
    metrics: Mapping[str, SampleMetric],
    conditions: Conditions = Conditions(),
    tick: Callable[[], object] = lambda: None,
    failures: list[str] | None = None,
    watch: Callable[[Batch, str, str], AbstractContextManager[Any]] = lambda *_: nullcontext(),
) -> Generator[ScoredBatch, None, None]:
    """The scores of each batch as soon as it is done; nothing of the batches before is held.

    A batch's scores do not depend on the others: what follows it may be left out, or done elsewhere. At the end it
    warns of maps that are not finite, and of failures.

    Args:
        model: Left as it was when the iterator ends, or is closed.
        batches: Asked for one by one.
        methods: Explainers by name.
        metrics: By name; what each method spends is scored as well, under the name `GRADIENTS`.
        conditions: The same for all batches; maps that are kept have their channels where the network has them.
        tick: Called when a method is done with a batch.
        failures: For descriptions of exceptions, whose scores, and maps, are NaN then; None lets them pass.
        watch: Entered, with batch, method and metric, while a map is made (`MAPS`), and while it is scored.
    """
    scored: dict[str, SampleMetric] = {**metrics, GRADIENTS: NumGradients()}
    everything = {name: list(scored) for name in methods}
    collections: dict[Any, MetricCollection] = {}
    undefined: dict[str, Tensor] = {}
    with conditions.explaining(model):
        for batch in (batch.completed(model, conditions) for batch in batches):
            maps: dict[str, Tensor] = {}
            values: list[Tensor] = []
            pairs: list[tuple[str, str]] = []
            failed: set[tuple[str, str]] = set()
            given: dict[str, Any] = {
                "inputs": batch.images,
                "target": batch.target,
                "mask": batch.masks,
                "index": sent(batch.index, batch.images.device),
                "bounds": batch.context.bounds,
                "model": batch.model,
                "context": batch.context,
                "shared": Shared(),
            }
            with remembering_noise():
                for name, wanted in (everything if batch.pairs is None else batch.pairs).items():
                    if (key := tuple(wanted)) not in collections:
                        own = {metric: scored[metric] for metric in key}
                        collections[key] = _collect(own, batch.images.device)
                    collection = collections[key]
                    where, own_watch = partial(_whereabouts, name, batch.index), partial(watch, batch, name)
                    attributions = _score(collection, methods[name], given, where, failures, own_watch)
                    values += [_recorded(cast(Any, collection[metric]), batch, failures) for metric in key]
                    pairs += [(name, metric) for metric in key]
                    failed |= {(name, metric) for metric in key if not cast(Any, collection[metric]).scores}
                    collection.reset()
                    if attributions is None:
                        attributions = torch.full_like(batch.images, torch.nan)
                    else:
                        undefined[name] = undefined.get(name, 0) + _undefined(attributions)
                    maps[name] = attributions[: batch.keep].movedim(1, conditions.channel_dim).clone()
                    tick()
            yield ScoredBatch(batch, pairs, torch.stack(values), maps, frozenset(failed))
    _warn_of_undefined(model, undefined)
    if failures:
        rest = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        warn_caller(f"Explanations failed, and their scores are NaN: {'; '.join(failures[:3])}{rest}")


def outputs_of(model: nn.Module, images: Inputs, conditions: Conditions) -> tuple[Tensor, Labels, Scores]:
    """For each sample what could be explained, what is predicted, and the probability of that, NaN where there is none.

    While the model is being explained.
    """
    output = conditions.output

    def told(rows: Tensor) -> Tensor:
        raw = check_rows(model(rows), len(rows))
        predicted = output.prediction(raw)
        try:
            probability = output.probability(raw, predicted, known=True)
        except ValueError:  # there is none
            probability = torch.full_like(predicted, torch.nan, dtype=raw.dtype)
        return torch.cat([output.scores(raw), predicted[:, None], probability[:, None]], 1).float()

    with torch.no_grad():
        found = in_chunks(told, model, conditions.max_rows, images)
    return found[:, :-2], found[:, -2].long(), found[:, -1]


def _score(
    collection: MetricCollection,
    explainer: Explainer,
    given: Mapping[str, Any],
    where: Callable[[], str],
    failures: list[str] | None,
    watch: Callable[[str], AbstractContextManager[Any]],
) -> Inputs | None:
    """Explain a batch, and have the map scored; returns it, or None where the method failed.

    Each metric takes the arguments that its `update` names.
    """
    attributions = None
    with noting(where, failures):
        with watch(MAPS):
            attributions, num_gradients = _explained(given["model"], explainer, given)
        noise_std = explainer.noise_std(given["inputs"], given["context"])
    if attributions is None:
        return None
    arguments = {**given, "explainer": explainer, "noise_std": noise_std, "num_gradients": num_gradients}
    for name, metric in collection.items():
        metric_named = noting(lambda name=name: f"in the metric {name}")  # type: ignore[misc]
        with noting(where, failures), metric_named, watch(name):
            metric.update(attributions, **metric._filter_kwargs(**arguments))
    return attributions


def _recorded(metric: SampleMetric, batch: Batch, failures: list[str] | None) -> Scores:
    """A metric's scores of a batch; NaN where it may fail, and did."""
    if metric.scores or failures is None:
        return torch.cat(metric.scores)
    return torch.full((len(batch.images),), torch.nan, device=batch.images.device)


def directions(metrics: Mapping[str, SampleMetric]) -> dict[str, bool | None]:
    """`higher_is_better` of metrics, and of what each method spends."""
    return {**{name: metric.higher_is_better for name, metric in metrics.items()}, GRADIENTS: None}


def metric_classes(metrics: Mapping[str, SampleMetric]) -> dict[str, str]:
    """The classes of metrics, those of `lightning_xai.metrics` by their public path."""
    kinds = {name: type(metric) for name, metric in metrics.items()}
    room = SampleMetric.__module__.rpartition(".")[0]
    return {
        name: f"{room if kind.__module__.startswith(f'{room}.') else kind.__module__}.{kind.__qualname__}"
        for name, kind in kinds.items()
    }


def _targets(
    context: Context,
    model: nn.Module,
    images: Inputs,
    target: Targets | int | None,
    batches: list[slice],
    number: int | None = None,
) -> Tensor:
    """The classes that are explained; those that the model predicts of the first `number`, batch by batch."""
    if target is not None and not (isinstance(model, Forward) and model.carried):
        return resolve_target(model, images, target, context.max_rows, context.output)
    needed = [rows for rows in batches if number is None or rows.start < number]
    found = [
        resolve_target(
            rows_of(model, rows),
            images[rows],
            target[rows] if isinstance(target, Tensor) and target.ndim else target,
            context.max_rows,
            context.output,
        )
        for rows in needed
    ]
    return torch.cat(found)[:number] if found else torch.empty(0, dtype=torch.int64, device=images.device)


def _on_cpu(maps: list[Tensor]) -> list[Tensor]:
    """Copied at once: each copy waits for an accelerator."""
    if not maps:
        return []
    parts = torch.cat([part.flatten() for part in maps]).cpu().split([part.numel() for part in maps])
    return [part.view(own.shape).to(own.dtype) for part, own in zip(parts, maps, strict=True)]


def _undefined(attributions: Inputs) -> Int64[Tensor, ""]:
    """How many samples have a map with NaN or infinite values; not looked at, which would wait for an accelerator."""
    return (~attributions.isfinite()).flatten(1).any(1).sum()


def _warn_of_undefined(model: nn.Module, undefined: Mapping[str, Tensor]) -> None:
    numbers = torch.stack(list(undefined.values())).tolist() if undefined else []
    found = {name: number for name, number in zip(undefined, numbers, strict=True) if number}
    if not found:
        return
    bad = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    why = f" Its parameters have such values too: {', '.join(bad[:3])}{', ...' * (len(bad) > 3)}." if bad else ""
    counts = ", ".join(f"{name} ({number})" for name, number in found.items())
    warn_caller(f"`model` gives maps with NaN or infinite values: {counts} samples, whose scores are NaN.{why}")


def _explained(model: nn.Module, explainer: Explainer, batch: Mapping[str, Any]) -> tuple[Inputs, Scores]:
    """Attributions of a batch, and the gradients that each sample took; those with more draws had more of them."""
    draws_used = torch.zeros(len(batch["inputs"]))
    context = replace(batch["context"], draws_used=draws_used)
    with counting_gradients(model) as count:
        attributions = explainer(model, batch["inputs"], batch["target"], context)
    shares = draws_used if draws_used.any() else torch.ones_like(draws_used)
    return attributions, sent(count.total * shares / shares.sum(), attributions.device)


def planned(
    methods: Any, metrics: Any, images: Inputs, has_masks: bool, conditions: Conditions, controls: Chosen = False
) -> tuple[dict[str, Explainer], dict[str, SampleMetric]]:
    """Methods and metrics by name, the default ones for None; what these inputs do not admit is refused."""
    explainers = named("methods", ["smooth_grad"] if methods is None else methods)
    _check_methods(explainers)
    explainers = with_controls(explainers, images.ndim > 2, controls) if controls else explainers
    check_layout(explainers, conditions.channel_dim)
    has = {"mask": has_masks, "bounds": conditions.bounds is not None}
    given = named("metrics", default_metrics(*has.values()) if metrics is None else metrics)
    check_metrics(given, images, **has)
    check_explain_again(explainers, given)
    return explainers, given


def default_metrics(has_masks: bool, has_bounds: bool) -> dict[str, SampleMetric]:
    """Sparseness; with masks the localization metrics; with bounds the share of out-of-range noise.

    They look at the maps alone. Faithfulness is asked for by name, such as `pixel_flipping`: its passes through the
    network may take as long as all methods do, and what it finds depends on what replaces a pixel, which is a choice.
    """
    metrics: dict[str, SampleMetric] = {"sparseness": Sparseness()}
    if has_masks:
        metrics |= {"relevance_rank_accuracy": RelevanceRankAccuracy(), "auroc": LocalizationAUROC()}
    if has_bounds:
        metrics |= {"inherent_noise": InherentNoise()}
    return metrics


def check_metrics(metrics: Mapping[str, SampleMetric], images: Inputs | None = None, **available: bool) -> None:
    """Refuse a metric that needs masks or bounds where there are none, or other inputs."""
    check_kind("metrics", metrics, Mapping, 'metrics by name, or a list of them, such as ["sparseness"]')
    if GRADIENTS in metrics:
        raise ValueError(f"`metrics`: {GRADIENTS!r} is the name of what a method spends; choose another name.")
    for name, metric in metrics.items():
        if not isinstance(metric, SampleMetric):
            raise TypeError(f"`metrics` must map names to SampleMetric objects, got {metric!r} for {name!r}.")
        for what, parameter in signature(metric.update).parameters.items():
            if parameter.default is Parameter.empty and not available.get(what, True):
                raise ValueError(
                    f"`metrics`: {name!r} ({type(metric).__name__}) needs `{what}`, which these data do not have; "
                    f"leave the metric out, or give the {what}."
                )
        if images is not None:
            try:
                metric.check_inputs(images)
            except ValueError as error:
                who = f"`metrics`: {name!r} ({type(metric).__name__})"
                raise ValueError(f"{who} makes no sense of these inputs: {error}") from None


def _checked_index(index: Labels | None, number: int) -> Labels:
    """On the CPU."""
    if index is None:
        return torch.arange(number)
    check_index(index)
    _check_lengths(number, index=index)
    return index.cpu()


def _check_methods(methods: Mapping[str, Explainer]) -> None:
    check_kind(
        "methods",
        methods,
        Mapping,
        'explainers by name, or a list of them, such as ["smooth_grad"]',
    )
    for name, method in methods.items():
        if not isinstance(method, Explainer):
            raise TypeError(f"`{name}` must be an explainer such as lightning_xai.smooth_grad(), got {method!r}.")


def _check_lengths(length: int, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        check_kind(name, tensor, Tensor, "a tensor")
        if not tensor.ndim or len(tensor) != length:
            got = len(tensor) if tensor.ndim else "a single number"
            raise ValueError(f"`{name}` must have one entry for each of the {length} samples, got {got}.")


def _collect(metrics: Mapping[str, SampleMetric], device: torch.device) -> MetricCollection:
    """Empty copies of the metrics."""
    collection = MetricCollection({name: metric.clone() for name, metric in metrics.items()}, compute_groups=False)
    collection.reset()
    return collection.to(device, non_blocking=not is_apple(device))


def _whereabouts(method: str, index: Labels) -> str:
    numbers = index.tolist()
    some = ", ".join(map(str, numbers[:5])) + f", ..., {numbers[-1]}" * (len(numbers) > 5)
    return f"in the method {method}, samples {some}"


def _gathered(
    index: Tensor,
    target: Tensor,
    parts: Sequence[ScoredBatch],
    methods: Iterable[str],
    metrics: Sequence[str],
    gather: bool,
) -> tuple[Labels, Labels, dict[str, dict[str, Scores]]]:
    """Indices, ascending, targets, and scores; to gather takes two collective calls, in the same order everywhere."""
    if not parts[0].maps:  # no methods
        return index[:0], target[:0], {}
    values, names = torch.cat([part.values for part in parts], 1), torch.stack([index, target], 1)
    if gather and dist.is_available() and dist.is_initialized():
        names = torch.cat(gather_all_tensors(sent(names, values.device))).cpu()
        values = torch.cat(gather_all_tensors(values.T.contiguous())).T
    index, rows = first_rows(*names.unbind(1))
    each = iter(values.cpu()[:, rows])  # all at once: each copy waits for an accelerator
    return index, names[rows, 1], {method: {name: next(each) for name in metrics} for method in methods}


def _check_classes(context: Context, model: nn.Module, images: Inputs, number: int) -> None:
    with torch.no_grad():
        rows = probe_rows(model, images, context.max_rows)
        found = context.output.scores(check_rows(model(rows), len(rows))).shape[1]
    check_width(number, found)
