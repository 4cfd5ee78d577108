"""Evaluate on as many samples as there are, batch by batch: what is finished is in files, and shards share nothing."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytorch_lightning
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from lightning_xai._version import __version__
from lightning_xai.callbacks.base import check_forward, unpacking
from lightning_xai.callbacks.samples import Samples, Target, check_labels, each_positive, with_classes
from lightning_xai.data.input_space import InputSpace
from lightning_xai.evaluation import (
    Batch,
    OnError,
    ScoredBatch,
    directions,
    metric_classes,
    outputs_of,
    planned,
    score_batches,
)
from lightning_xai.experiments.source import Source, Stage, taken
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.base import check_choice, check_count, check_model, check_target
from lightning_xai.explainers.bounds import Bound, check_in_bounds, parse_bounds
from lightning_xai.explainers.channels import channels_second
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.controls import Chosen
from lightning_xai.explainers.precision import Precision
from lightning_xai.fingerprints import NUMERICS, fingerprint, network_specification, sample_records, specification
from lightning_xai.forward import Forward, carrying, has_rows
from lightning_xai.metrics import SampleMetric
from lightning_xai.metrics.cost import NumGradients
from lightning_xai.outputs import Logit, Output, check_declared, check_width
from lightning_xai.price import BATCHES, Price, duration, price, within_gradients
from lightning_xai.progress import progress_bar
from lightning_xai.results.evaluations import EvaluationStore, Settings, in_places
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.store import SCORES, read_samples, read_scores, write_class_names

_AGAIN = 4
"""Samples of a finished batch that are evaluated once more before anything is added."""


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation in a folder, finished or not.

    Attributes:
        folder: Where it is.
        num_samples: Samples chosen, of all shards; None where the data have to be walked to know.
        num_finished: Of these, those that have all scores.
        num_now: Samples that this call has evaluated.
        num_left_out: Samples without a positive label that this call has met, which count as finished in it.
        higher_is_better: Direction of each metric.
        price: What is missing will cost, of a dry run; else None.
    """

    folder: Path
    num_samples: int | None
    num_finished: int
    num_now: int
    higher_is_better: Mapping[str, bool | None]
    price: Price | None = None
    num_left_out: int = 0

    def scores(self) -> Scores:
        """All that are in the folder."""
        return read_scores(self.folder / SCORES)

    def samples(self) -> pd.DataFrame:
        """What is known of each sample: see `results.store.read_samples`."""
        return read_samples(self.folder / SCORES)


def evaluate_stream(
    model: nn.Module,
    data: Any,
    folder: str | Path,
    target: int | str | None = None,
    methods: Any = None,
    metrics: Any = None,
    *,
    shard: tuple[int, int] = (1, 1),
    num_samples: int | None = None,
    stage: Stage = "test",
    limit: int | float = 1.0,
    controls: Chosen = False,
    bounds: tuple[Bound, Bound] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    max_rows: int | None = None,
    precision: Precision = "32-true",
    take: Callable[[Any], Samples] | None = None,
    epoch: int = 0,
    step: int = 0,
    progress: bool = False,
    output: Output | str = Logit(),
    channel_dim: int = 1,
    forward: Mapping[str, Any] | None = None,
    max_gradients: int | None = None,
    dry_run: bool = False,
    on_error: OnError = "raise",
) -> StoredEvaluation:
    """Scores of every method on every sample of a loader, written to a folder batch by batch.

    At most a few batches are in memory. Each sample's scores depend on itself, the seed and its index alone: started
    again, with another size of batches or other shards, an evaluation goes on where it stopped, and ends with the same
    scores; with more methods, metrics or samples it computes what is missing. Before it adds anything it evaluates a
    few finished samples once more, and refuses to go on if they come out otherwise. Shards need not know of each other:
    each writes files of its own, at any time, in any order.

    Args:
        model: As in `evaluate`, like bounds, seed, max_rows and precision; on the device that shall be used. Bounds may
            also be known to the data module or the model.
        data: A DataLoader, a LightningDataModule, or batches that can be iterated over again; a data set without rows
            is walked by every shard, which takes its own of it.
        folder: For the scores.
        target: A class, "label", or "prediction"; None for the label, or the prediction where batches have none. Of
            labels (batch, classes), zeros and ones, "positive" explains each one that holds, as in
            `AttributionCallback`; samples without any are left out, and counted.
        methods: As in `evaluate`, like `metrics`.
        metrics: None for what the first sample allows of `default_metrics`.
        shard: (k, n): the k-th of n, from 1; row i of the samples chosen belongs to shard i mod n + 1.
        num_samples: Samples chosen, evenly spaced over the rows, or the first ones of a walk; None for all.
        stage: Whose loader of a data module.
        limit: As Lightning's `limit_test_batches`, of the loader's own batches.
        controls: Controls that are added to the methods, as in `explainers.with_controls`.
        batch_size: Samples at a time.
        take: Makes `Samples` of a batch; None for the usual tuples and dicts.
        epoch: Number of the epoch under which the scores are written.
        step: Number of the step of the optimizer, likewise.
        progress: Whether to show a progress bar.
        output: What is explained, as in `evaluate`, like channel_dim.
        forward: Arguments of `Forward`, for a model with other arguments or another result than a tensor; the carried
            ones by their keys in the batches.
        max_gradients: On all samples chosen, of all shards, with all metrics: the most expensive methods get as many
            draws as that pays for, as in `within_gradients`; equal in all shards, since the first sample tells. Of data
            that have to be walked it needs `num_samples`.
        dry_run: Only tell what will be spent on what is missing, of all shards, from the first batches of it, as the
            `price` of the result. Nothing is written; the few finished samples that are evaluated once more are not in
            it.
        on_error: With "warn" a method or a metric that fails costs its own scores of the batch that it failed on, and a
            warning says so. They stay missing: started again, the evaluation tries them again.

    Raises:
        TypeError: as `evaluate`; if `data` is none of these, or can be iterated over only once.
        ValueError: as `evaluate`; if a sample cannot be explained, with its index: what is finished is kept; if the
            folder has scores of other settings or samples, or a file that is damaged; if a budget or a price is asked
            for, and how many samples there are is not known.

    Example:
        >>> import tempfile, torch
        >>> import lightning_xai as lx
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> loader = DataLoader(TensorDataset(torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 1, 0, 1])))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = lx.evaluate_stream(model, loader, folder, methods=["saliency"], shard=(1, 2))
        ...     second = lx.evaluate_stream(model, loader, folder, methods=["saliency"], shard=(2, 2))
        ...     first.num_finished, second.num_finished, second.scores().unique("metric")
        (3, 5, ['sparseness', 'gradients'])
    """
    check_model(model)
    check_count("batch_size", batch_size)
    check_count("num_samples", 1 if num_samples is None else num_samples)
    check_shard(shard)
    check_choice("on_error", on_error, OnError)
    if not ((type(limit) is int and limit >= 0) or (type(limit) is float and 0 <= limit <= 1)):
        raise ValueError(f"`limit` must be a number of batches, or a share of them from 0.0 to 1.0, got {limit!r}.")
    if isinstance(target, str):
        check_choice("target", target, Target)
    conditions = Conditions(bounds, seed, max_rows, output, precision, channel_dim)
    forward = check_forward(None if forward is None else dict(forward))
    if not conditions.output.has_labels:
        if target in ("label", "positive"):
            raise ValueError(
                f'`target` is "{target}", but `output` {conditions.output!r} has none. Leave `target` out.'
            )
        target = "prediction" if target is None else target
    if target == "positive":
        check_declared(conditions.output)
    read = partial(taken, model, data, take or unpacking(target, forward=forward), target)
    source = Source.of(data, read, batch_size, stage, limit, num_samples)
    first = source.first()
    space = InputSpace(model, data if isinstance(data, LightningDataModule) else None)  # asked when data are set up
    conditions = space.completed(conditions)
    inputs = channels_second(first.images, channel_dim)
    if target is None:
        target = "prediction" if first.labels is None else "label"
    explainers, given = planned(methods, metrics, inputs, first.masks is not None, conditions, controls)
    if isinstance(model, Forward) and (rows := [name for name, value in model.carried.items() if has_rows(value)]):
        raise ValueError(
            f"`model` carries {', '.join(map(repr, rows))} along, the same rows with every batch: give `forward`, "
            "whose `carried` names the keys of the batches that they are taken from."
        )
    network = Forward(model, **{**forward, "carried": None}) if forward is not None else model
    if max_gradients is not None:
        explainers = _within(max_gradients, network, source, explainers, given, conditions)
    settings = Settings(
        {
            "weights": fingerprint(model),
            "network": network_specification(model),
            "explained": target,
            "output": conditions.output.key,
            "forward": specification(forward),
            "channel_dim": channel_dim,
            "bounds": specification(parse_bounds(conditions.bounds, ndim=inputs.ndim)),
            "seed": seed,
            "precision": precision,
            "data": stage if isinstance(data, LightningDataModule) else "a loader",
            "epoch": epoch,
            "step": step,
            "numerics": NUMERICS,
        },
        specification(explainers),
        specification({**given, GRADIENTS: NumGradients()}),
        {
            "lightning_xai": __version__,
            "torch": torch.__version__,
            "pytorch_lightning": pytorch_lightning.__version__,
            "max_gradients": max_gradients,
        },
    )
    store = EvaluationStore(folder, settings)
    work = _Work(network, explainers, given, target, conditions, store, on_error)
    num_now, told = 0, None
    if dry_run:
        told = work.price(source, shard)
    else:
        store.begin(directions(given), metric_classes(given))
        if names := space.class_names:
            write_class_names(store.path, names)
        work.look_again(source)
        with progress_bar("evaluating", None, "sample", progress) as bar:
            num_now = work.go_on(source, shard, bar)
    after, chosen = EvaluationStore(folder, settings), source.chosen()
    without = set() if dry_run else work.without
    finished = after.num_finished() + len(without)
    if chosen is not None:
        finished = sum(row in without or not after.missing(row) for row in chosen)
    number = None if chosen is None else len(chosen)
    return StoredEvaluation(Path(folder), number, finished, num_now, directions(given), told, len(without))


def _within(
    max_gradients: int,
    model: nn.Module,
    source: Source,
    methods: dict[str, Explainer],
    metrics: Mapping[str, SampleMetric],
    conditions: Conditions,
) -> dict[str, Explainer]:
    """The methods with the draws that the budget pays for, told by the first samples, which all shards know."""
    number = len(source.numbers("max_gradients"))
    samples = source.first(source.batch_size)
    inputs = channels_second(samples.images, conditions.channel_dim)
    batch = Batch(inputs, None, samples.index, samples.masks, model=carrying(model, samples.carried))
    return within_gradients(model, batch, methods, metrics, max_gradients, number, conditions)


def check_shard(shard: Any) -> None:
    """Refuse what is not (k, n) with 1 <= k <= n."""
    whole = isinstance(shard, tuple | list) and len(shard) == 2 and all(type(part) is int for part in shard)
    if not whole or not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"`shard` must be (k, n), the k-th of n from 1: (1, 3), (2, 3), (3, 3); got {shard!r}.")


@dataclass(frozen=True)
class _Work:
    """What is done to each batch."""

    model: nn.Module
    methods: Mapping[str, Explainer]
    metrics: Mapping[str, SampleMetric]
    target: int | str
    conditions: Conditions
    store: EvaluationStore
    on_error: OnError = "raise"
    without: set[int] = field(default_factory=set)
    """Rows without a label that holds."""

    def look_again(self, source: Source) -> None:
        """Evaluate a few finished samples once more, by each method in each metric, of units that the data have.

        Raises:
            ValueError: if they come out otherwise.
        """
        unseen = set(self.store.pairs)
        for unit in self.store.units:
            rows, pairs = list(dict.fromkeys(unit.rows[:_AGAIN])), unit.pairs & unseen
            if not pairs or (source.keys is not None and not source.keys.keys() >= set(rows)):
                continue
            read = source.walk(rows.__contains__) if source.keys is None else source.read(rows)
            again_scored = self._scored(islice(read, 1), dict.fromkeys(rows, pairs).__getitem__)
            for done in (done for done in again_scored if done.pairs):
                sample, values = done.batch.index.tolist(), done.values.cpu().double().numpy()
                names = [(*pair, number) for pair in done.pairs for number in sample]
                again = pd.DataFrame(names, columns=["method", "metric", "sample"]).assign(value=values.ravel())
                self.store.check_again(unit, sample, done.batch.record["logits"], in_places(again))
            unseen -= pairs

    def go_on(self, source: Source, shard: tuple[int, int], bar: Any) -> int:
        """Evaluate what is missing of a shard; returns the number of samples."""
        (own, of), chosen, missing = shard, source.chosen(), self.store.missing
        if chosen is None:
            known = self.store.known  # finished ones too, to see that they are the same, and come in the same order
            batches = source.walk(lambda number: number % of == own - 1 or number in known)
        else:
            open_rows = [row for row in chosen[own - 1 :: of] if missing(row)]
            kinds = {kind: place for place, kind in enumerate(dict.fromkeys(map(missing, open_rows)))}
            open_rows.sort(key=lambda row: kinds[missing(row)])  # whole batches that lack the same
            bar.reset(len(open_rows))
            batches = source.read(open_rows) if open_rows else iter(())
        number = 0
        for done in self._scored(batches, lambda row: missing(row) if chosen or row % of == own - 1 else frozenset()):
            record = done.batch.record
            if not done.pairs:
                continue
            values, has_classes = done.values.cpu().double().numpy(), self.conditions.output.has_labels
            self.store.add(done.pairs, values, record["samples"], record["logits"], has_classes)
            evaluated = len(set(record["samples"]["row"]))
            number += evaluated
            bar.update(evaluated)
        return number

    def price(self, source: Source, shard: tuple[int, int]) -> Price:
        """What is missing will cost, of all shards and of this one; samples that lack the same are measured apart."""
        rows, (own, of) = source.numbers("dry_run"), shard
        missing = {row: kind for row in rows if (kind := self.store.missing(row))}
        here = Counter(missing[row] for row in rows[own - 1 :: of] if row in missing)
        found = {kind: self._price(source, missing, kind) for kind in dict.fromkeys(missing.values())}
        notes = []
        if of > 1:
            gradients = sum(here[kind] * part.sample.gradients for kind, part in found.items())
            seconds = sum(found[kind].start + number * found[kind].sample.seconds for kind, number in here.items())
            work = f"{here.total()} samples, {gradients:,.0f} gradients, {duration(seconds)}"
            notes.append(f"Of these are for shard {own}/{of}: {work}.")
        if source.keys is None:
            notes.append("There may be fewer samples: the data have to be walked to know.")
        first, *others = found.values() if found else [Price(0, {})]
        title = f"{len(missing)} of {len(rows)} samples are missing"
        return replace(sum(others, first), title=title, notes=tuple(notes))

    def _price(
        self, source: Source, missing: Mapping[int, frozenset[tuple[str, str]]], kind: frozenset[tuple[str, str]]
    ) -> Price:
        """The price of the samples that lack this."""
        alike = [row for row, own in missing.items() if own == kind]
        some = alike[: BATCHES * source.batch_size]
        read = source.walk(set(some).__contains__) if source.keys is None else source.read(some)
        batches = (batch for rows, samples in read for batch in self._prepared(rows, samples, missing.__getitem__))
        return price(self.model, batches, self.methods, self.metrics, len(alike), self.conditions)

    def _scored(
        self, read: Iterator[tuple[list[int], Samples]], wanted: Callable[[int], frozenset[tuple[str, str]]]
    ) -> Iterator[ScoredBatch]:
        batches = (batch for rows, samples in read for batch in self._prepared(rows, samples, wanted))
        given = self.model, batches, self.methods, self.metrics, self.conditions
        with closing(score_batches(*given, failures=None if self.on_error == "raise" else [])) as scored:
            yield from (done.without_failed() if done.failed else done for done in scored)

    def _prepared(
        self, rows: list[int], samples: Samples, wanted: Callable[[int], frozenset[tuple[str, str]]]
    ) -> Iterator[Batch]:
        """Batches whose samples all want the same."""
        if self.target == "positive":
            width = cast(Tensor, samples.labels).shape[1]
            samples, of_samples = each_positive(samples)
            self.without.update(rows)
            rows = [rows[place] for place in of_samples.tolist()]
            self.without.difference_update(rows)
        if not rows:
            return
        samples = replace(samples, images=channels_second(samples.images, self.conditions.channel_dim))
        check_samples(samples, self.conditions.bounds)
        model = carrying(self.model, samples.carried)
        logits, predicted, probability = outputs_of(model, samples.images, self.conditions)
        if self.target == "positive":
            check_width(width, logits.shape[1])
        target = self._target(rows, samples, logits, predicted)
        given = samples.index, samples.images, target, samples.masks, predicted, probability, rows
        known = sample_records(*given, explained=str(self.target))
        self.store.check_rows(known)
        for kind in dict.fromkeys(filter(None, map(wanted, rows))):
            places = [place for place, row in enumerate(rows) if wanted(row) == kind]
            chosen = samples.select(torch.tensor(places))
            yield Batch(
                chosen.images,
                target[torch.tensor(places, device=target.device)],
                chosen.index,
                chosen.masks,
                model=carrying(self.model, chosen.carried),
                pairs={
                    method: own
                    for method in self.methods
                    if (own := [metric for metric in (*self.metrics, GRADIENTS) if (method, metric) in kind])
                },
                record={
                    "samples": {name: [values[place] for place in places] for name, values in known.items()},
                    "logits": logits.cpu().numpy()[places],
                },
            )

    def _target(self, rows: list[int], samples: Samples, logits: Tensor, predicted: Tensor) -> Tensor:
        """Classes explained; a prediction is that of the first time, so that all methods explain the same one."""
        if self.target in ("label", "positive"):
            samples = with_classes(samples, "label")
            check_labels(samples, logits.shape[1])
            return cast(Tensor, samples.labels).to(logits.device)
        if self.target == "prediction":
            before = [
                next(iter(self.store.known.get(row, [number])))
                for row, number in zip(rows, predicted.tolist(), strict=True)
            ]
            return torch.tensor(before, device=logits.device)
        target = torch.full_like(predicted, int(self.target))
        check_target(target, logits.shape[1])
        return target


def check_samples(samples: Samples, bounds: Any) -> None:
    """Refuse images that have NaN or infinite values, or such outside of the bounds, with the samples' indices."""
    bad = (~samples.images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        names = ", ".join(str(int(samples.index[place])) for place in bad[:5]) + ", ..." * (len(bad) > 5)
        raise ValueError(
            f"`data`: the image of sample {names} has NaN or infinite values. Mend them, or leave them out of the "
            "data; what is finished is kept."
        )
    try:
        check_in_bounds(samples.images, bounds)
    except ValueError:
        for place, number in enumerate(samples.index.tolist()):
            try:
                check_in_bounds(samples.images[place : place + 1], bounds)
            except ValueError as error:
                raise ValueError(f"`data`: sample {number}: {error}") from error
        raise
