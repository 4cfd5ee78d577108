"""Explain a model, and score its explanations: the part of the package that needs no Lightning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import Parameter, signature
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torchmetrics import MetricCollection
from tqdm.auto import tqdm

from lightning_xai.explainers.base import (
    Bound,
    Context,
    Explainer,
    check_count,
    check_index,
    check_inputs,
    check_kind,
    check_model,
    explaining,
    resolve_target,
)
from lightning_xai.explainers.bounds import check_in_bounds
from lightning_xai.explainers.cost import counting_gradients
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.explainers.recipes import smooth_grad
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
from lightning_xai.metrics.cost import NumGradients
from lightning_xai.names import named
from lightning_xai.results.scores import GRADIENTS, Scores as ScoreTable
from lightning_xai.shapes import Inputs, Labels, Masks, Scores


@dataclass(frozen=True)
class Evaluation:
    """The scores of several methods on the same samples.

    Attributes:
        index: (samples,) sample indices, ascending.
        scores: scores[method][metric] is (samples,), NaN where undefined; all on the CPU. Beside the metrics asked for,
            "gradients" is what the method spent: gradients of the model's output, a sample.
        higher_is_better: Direction of each metric; None for a metric without one.
        images, target, predicted, masks: The first samples, as many as attributions were kept of: inputs, class
            explained, class that the model predicts, and masks if there are any.
        attributions: attributions[method] of these.

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

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the samples with a defined score, by method and metric."""
        return {m: {n: float(mean_score(s)) for n, s in scores.items()} for m, scores in self.scores.items()}

    def standard_errors(self) -> dict[str, dict[str, float]]:
        """Standard error of each mean, by method and metric."""
        return {m: {n: float(standard_error(s)) for n, s in scores.items()} for m, scores in self.scores.items()}

    def to_scores(self, stage: str = "", epoch: int = 0, step: int = 0) -> ScoreTable:
        """The scores of all methods and metrics as a table, under the name of a stage."""
        return ScoreTable.from_values(stage, epoch, step, self.index, self.scores)


def explain(
    model: nn.Module,
    images: Inputs,
    target: Labels | int | None = None,
    method: Explainer | str = smooth_grad(),
    *,
    bounds: tuple[Bound, Bound] | None = None,
    index: Labels | None = None,
    seed: int = 0,
    max_rows: int | None = None,
    precision: Precision = "32-true",
) -> Inputs:
    """Attributions of a batch of inputs, shaped like them; the model is left as it was.

    Args:
        model: Maps (batch, ...) to logits (batch, classes); explained in evaluation mode.
        images: (batch, ...), as the model takes them.
        target: Class to explain, one for all or one a sample; None for the predicted class.
        method: An explainer, such as `smooth_grad()` or `Gradient()`, or a plain name, such as "noise_grad".
        bounds: (low, high) of the input elements, numbers or one value a channel; AdaptGrad needs them. For normalized
            images `lightning_xai.bounds(mean, std)`; images with values outside are refused.
        index: Sample indices; noise depends on the seed and the index. By default 0, 1, ...
        seed: Seed of the noise, a whole number.
        max_rows: Rows that pass through the network at once; by default as many as fit in memory.
        precision: The model's, whatever the caller's settings; "tf32" and "bf16-mixed" are faster where the hardware
            has them (see `in_precision`).

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
    explainer: Explainer = next(iter(named("methods", [method]).values())) if isinstance(method, str) else method
    _check_methods({"method": explainer})
    check_model(model)
    check_inputs(images, values=False)
    check_in_bounds(images, bounds)
    index = _checked_index(index, len(images))
    with in_precision(model, precision):
        context = Context.create(index, seed, bounds, max_rows, images.device, images.dtype)
        attributions = explainer(model, images, target, context)
    _warn_of_undefined(model, {type(explainer).__name__: _undefined(attributions)})
    return attributions


def evaluate(
    model: nn.Module,
    images: Inputs,
    target: Labels | int | None = None,
    methods: Mapping[str, Explainer | str] | Sequence[Explainer | str] | None = None,
    metrics: Mapping[str, SampleMetric | str] | Sequence[SampleMetric | str] | None = None,
    masks: Masks | None = None,
    *,
    bounds: tuple[Bound, Bound] | None = None,
    index: Labels | None = None,
    seed: int = 0,
    batch_size: int = 64,
    max_rows: int | None = None,
    precision: Precision = "32-true",
    keep_attributions: int = 0,
    progress: bool = False,
    gather: bool = True,
) -> Evaluation:
    """Scores of every method on every sample. All methods see the same noise draws and explain the same classes.

    Where torch.distributed is initialized, every process passes its own share of the samples, with their indices, and
    gets the scores of all of them, or with `gather=False` those of its own, without a word to the others.

    Args:
        model: As in `explain`, like images, target, bounds, index, seed, max_rows and precision.
        methods: Explainers by name; plain names such as "smooth_grad" will do, as will a list (`lightning_xai.names`).
        metrics: Metrics by name, likewise; None for `default_metrics`. They are copied, not written to.
        masks: (batch, height, width) booleans, True where the evidence is.
        batch_size: Samples at a time; the scores do not depend on it.
        keep_attributions: Number of samples, the first ones, whose attributions are returned too.
        progress: Whether to show a progress bar.
        gather: Whether the processes gather their scores.

    Raises:
        TypeError: as `explain`; if `methods` or `metrics` are no names or objects of the kind.
        ValueError: as `explain`; if a name is unknown, or a metric needs masks or bounds that are not given.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.rand(5, 1, 2, 2)
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
        >>> masks = torch.tensor([[True, False], [False, False]]).expand(5, 2, 2)
        >>> methods = {"ours": lx.Gradient(), "floor": "random_attribution"}
        >>> means = lx.evaluate(model, images, 0, methods, ["pointing_game"], masks).means()
        >>> {name: round(scores["pointing_game"], 3) for name, scores in means.items()}
        {'ours': 1.0, 'floor': 0.2}
    """
    check_model(model)
    check_inputs(images)
    check_in_bounds(images, bounds)
    check_count("batch_size", batch_size)
    check_count("keep_attributions", keep_attributions, 0)
    explainers: Mapping[str, Explainer] = named("methods", ["smooth_grad"] if methods is None else methods)
    _check_methods(explainers)
    index = _checked_index(index, len(images))
    _check_lengths(len(images), masks=masks)
    whole = Context.create(index, seed, bounds, max_rows, images.device, images.dtype)
    given = default_metrics(masks is not None, bounds is not None) if metrics is None else named("metrics", metrics)
    check_metrics(given, mask=masks is not None, bounds=bounds is not None)
    scored: dict[str, SampleMetric] = {**given, GRADIENTS: NumGradients()}
    collections = {name: _collect(scored, images.device, gather) for name in explainers}
    kept: dict[str, list[Tensor]] = {name: [] for name in explainers}
    batches = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    bar = tqdm(total=len(batches) * len(explainers), desc="explaining", unit="batch", leave=False, disable=not progress)
    undefined = dict.fromkeys(explainers, torch.zeros((), dtype=torch.int64, device=images.device))
    with in_precision(model, precision), bar, explaining(model, whole.seed):
        target = _targets(model, images, target, batches, max_rows)
        shown = images[:keep_attributions]
        predicted = _targets(model, images, None, batches, max_rows, keep_attributions)
        for rows in batches:
            context = whole.select(rows)
            batch: dict[str, Any] = {
                "inputs": images[rows],
                "target": target[rows],
                "mask": None if masks is None else masks[rows],
                "index": sent(index[rows], images.device),
                "bounds": context.bounds,
                "model": model,
                "context": context,
                "shared": Shared(),
            }
            with remembering_noise():
                for name, explainer in explainers.items():
                    with noting(partial(_whereabouts, name, index[rows])):
                        attributions, num_gradients = _explained(model, explainer, batch)
                        arguments = batch | {
                            "explainer": explainer,
                            "noise_std": explainer.noise_std(batch["inputs"], context),
                            "num_gradients": num_gradients,
                        }
                        _update(collections[name], attributions, arguments)
                    undefined[name] = undefined[name] + _undefined(attributions)
                    kept[name].append(attributions[: max(0, keep_attributions - rows.start)].clone())
                    bar.update()
    _warn_of_undefined(model, undefined)
    maps = _on_cpu([torch.cat(parts) for parts in kept.values()])
    return Evaluation(
        *_gather(collections, list(scored)),
        higher_is_better={name: metric.higher_is_better for name, metric in scored.items()},
        images=shown.cpu(),
        target=target[:keep_attributions].cpu(),
        predicted=predicted.cpu(),
        masks=None if masks is None else masks[:keep_attributions].cpu(),
        attributions=dict(zip(kept, maps, strict=True)),
    )


def _targets(
    model: nn.Module,
    images: Inputs,
    target: Labels | int | None,
    batches: list[slice],
    max_rows: int | None,
    number: int | None = None,
) -> Tensor:
    """The classes that are explained; those that the model predicts of the first `number`, batch by batch."""
    if target is not None:
        return resolve_target(model, images, target, max_rows)
    needed = [rows for rows in batches if number is None or rows.start < number]
    found = [resolve_target(model, images[rows], None, max_rows) for rows in needed]
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


def default_metrics(has_masks: bool, has_bounds: bool) -> dict[str, SampleMetric]:
    """Sparseness; with masks the localization metrics; with bounds the share of out-of-range noise."""
    metrics: dict[str, SampleMetric] = {"sparseness": Sparseness()}
    if has_masks:
        metrics |= {"relevance_rank_accuracy": RelevanceRankAccuracy(), "auroc": LocalizationAUROC()}
    if has_bounds:
        metrics |= {"inherent_noise": InherentNoise()}
    return metrics


def check_metrics(metrics: Mapping[str, SampleMetric], **available: bool) -> None:
    """Refuse a metric that needs masks or bounds where there are none."""
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


def _collect(metrics: Mapping[str, SampleMetric], device: torch.device, gather: bool) -> MetricCollection:
    """Empty copies of the metrics; each takes the arguments that its `update` names."""
    collection = MetricCollection({name: metric.clone() for name, metric in metrics.items()}, compute_groups=False)
    collection.reset()
    for metric in collection.values():
        metric.sync_on_compute = gather and metric.sync_on_compute
    return collection.to(device, non_blocking=not is_apple(device))


def _update(collection: MetricCollection, attributions: Inputs, arguments: Mapping[str, Any]) -> None:
    """As the collection's own `update`, saying which metric failed."""
    for name, metric in collection.items():
        with noting(lambda name=name: f"in the metric {name}"):  # type: ignore[misc]
            metric.update(attributions, **metric._filter_kwargs(**arguments))


def _whereabouts(method: str, index: Labels) -> str:
    numbers = index.tolist()
    some = ", ".join(map(str, numbers[:5])) + f", ..., {numbers[-1]}" * (len(numbers) > 5)
    return f"in the method {method}, samples {some}"


def _gather(
    collections: Mapping[str, MetricCollection], metrics: list[str]
) -> tuple[Labels, dict[str, dict[str, Scores]]]:
    """Indices and scores from all processes; the order of the collective calls is the same in each."""
    arrived = [
        cast(SampleMetric, collection[name]).arrivals() for collection in collections.values() for name in metrics
    ]
    if not arrived:
        return torch.empty(0, dtype=torch.int64), {}
    values = torch.stack([scores for _, scores in arrived]).cpu()  # all at once: each copy waits for an accelerator
    index, rows = first_rows(arrived[0][0].cpu())
    each = iter(values[:, rows])
    return index, {method: {name: next(each) for name in metrics} for method in collections}
