"""What the explanations of a training, of sanity checks or of a study will cost: nothing is trained or written."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from lightning_xai.callbacks import RandomizationCallback, ShortcutSentinel
from lightning_xai.callbacks.base import ExplainingCallback, unpacking
from lightning_xai.callbacks.samples import Samples, each_positive, named_loaders
from lightning_xai.callbacks.schedule import Schedule
from lightning_xai.data.input_space import InputSpace
from lightning_xai.evaluation import Batch
from lightning_xai.experiments.source import Source, taken
from lightning_xai.experiments.trained import connected
from lightning_xai.explainers.channels import channels_second
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.gradient import Gradient
from lightning_xai.explainers.precision import in_precision
from lightning_xai.forward import rows_of
from lightning_xai.outputs import Logit
from lightning_xai.price import BATCHES, MAPS, Cost, Price, duration, price
from lightning_xai.sanity.blocks import parameter_blocks, steps
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import Examined
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.networks import callback_bounds, untrained
from lightning_xai.studies.study import ANY_LEVEL, Study, check
from lightning_xai.studies.subjects import is_pretrained, pictures_of, pretrained_network, require


def fit_prices(trainer: Trainer, model: LightningModule, datamodule: LightningDataModule) -> list[Price]:
    """What each explaining callback will cost in a training, a validation; the training itself is not in it.

    Raises:
        ValueError: if there is no such callback, or a stream in the place of rows.
    """
    found = [c for c in trainer.callbacks if isinstance(c, ExplainingCallback)]  # type: ignore[attr-defined]
    if not found:
        raise ValueError("`dry_run`: the trainer has no callback that explains: there is nothing to tell the price of.")
    model = connected(trainer, model, datamodule)
    datamodule.prepare_data()
    datamodule.setup("fit")
    loaders = named_loaders(datamodule.val_dataloader()) or {"": None}
    return [_of_callback(trainer, model, datamodule, c, *item) for c in found for item in loaders.items()]


def sanity_price(subject: Subject, checks: Sequence[Examined], *_: Any, num_twins: int = 3, **__: Any) -> Price:
    """What the sanity checks will cost; comparisons of maps, and trainings on random labels, are not in it.

    Takes the arguments of `examine`.
    """
    model, how = subject.model, subject.randomization
    samples = Samples(subject.images, None, subject.index, None)
    batches = _parts(model, samples, subject.explained(model), subject.batch_size)
    found = price(model, batches, subject.methods, {}, len(subject.images), subject.conditions)
    networks: dict[Examined, int] = {"data": num_twins, "invariance": 2, "random_logit": 1, "efficient": how.repeats}
    if "parameters" in checks:
        blocks = parameter_blocks(model, subject.images, how.groups)
        networks["parameters"] = how.repeats * sum(len(steps(blocks, ordering)) for ordering in how.orderings)
    title = f"Sanity checks on {len(subject.images)} samples"
    notes = ["Comparisons of the maps are not in it."]
    if "data" in checks:
        notes.append(f"The training of {num_twins} networks on random labels is not in it.")
    return _times(found, {check: networks[check] for check in checks}, title, *notes)


def study_prices(lab: Lab, study: Study) -> Iterator[Price]:
    """What a study will cost, network by network; networks that it trains are not trained for that.

    Raises:
        ValueError: as `run_study`, before anything is measured.
    """
    check(study)
    require(lab, study)
    return (_of_network(lab, study, name) for name in study.named_networks)


def _of_network(lab: Lab, study: Study, name: str) -> Price:
    given, mask = study.named_networks[name], next(iter(study.masks), None)
    source, notes = given.get("config", name), ["Levels of weight noise, and what noisy networks keep, are not in it."]
    if is_pretrained(lab, source):
        network = pretrained_network(lab, source, given.get("weights"), study.image_size)
        model, bounds = network.model, network.bounds
        samples = next(iter(pictures_of(lab, study, network, study.num_samples)[0].values()))
    else:
        config = lab.config(source, study.changes_of(name))
        module, data = untrained(config)
        model, bounds = module.to(lab.device).eval(), callback_bounds(config)
        bounds = InputSpace(module, data).bounds if bounds is None else bounds
        samples = replace(lab.samples(data, study.num_samples, mask=mask), labels=None)
        notes.append("It was measured with random weights; a training that is missing is not in it.")
    conditions = Conditions(bounds, lab.seed, precision=lab.precision)
    found = price(
        model,
        _parts(model, samples, samples.labels, study.batch_size),
        study.explainers(ANY_LEVEL),
        study.measures(ANY_LEVEL),
        len(samples.images),
        conditions,
        title=f"{name}: {len(samples.images)} samples",
    )
    return replace(found, notes=(*found.notes, *notes))


def _of_callback(
    trainer: Trainer, model: LightningModule, datamodule: Any, callback: ExplainingCallback, name: str, loader: Any
) -> Price:
    conditions = InputSpace(model, datamodule).completed(callback.conditions)
    if isinstance(callback, ShortcutSentinel):
        callback.learn_evidence(datamodule)
    samples, number = _first_samples(trainer, model, datamodule, callback, loader)
    network, (methods, metrics) = callback.adapted(model, samples.carried), callback.plan(samples, conditions)
    turned = replace(samples, images=channels_second(samples.images, conditions.channel_dim))
    batches = _parts(network, turned, callback.explained_target(samples), callback.batch_size)
    if isinstance(callback, ShortcutSentinel):
        methods, metrics = {"where to look": callback.method}, {}
    found = price(network, batches, methods, metrics, number, conditions)
    named = " ".join(filter(None, (type(callback).__name__, callback.name, name)))
    title = f"{named}: a validation, {number} samples"
    if isinstance(callback, RandomizationCallback):
        found = _times(found, {"randomized": callback.randomization.repeats}, title, "Comparisons are not in it.")
    if isinstance(callback, ShortcutSentinel):
        every, _ = _first_samples(trainer, model, datamodule, callback, loader, number)
        found = _of_look(found, model, datamodule, callback, every, conditions)
    return replace(found, title=title, notes=(*found.notes, _in_all(found, _validations(trainer, callback))))


def _of_look(
    found: Price,
    model: LightningModule,
    data: Any,
    sentinel: ShortcutSentinel,
    samples: Samples,
    conditions: Conditions,
) -> Price:
    """The price of a look, from that of maps of all samples.

    Of how many there are maps, how many pictures go through the network, and what the search takes besides, is found by
    a search of a stand-in for the network; a look at the network itself would be as expensive as a validation.
    """
    known, number = sentinel.looked_at(samples, data), len(samples.images)
    some = samples.images[: BATCHES * sentinel.batch_size]
    with in_precision(sentinel.adapted(model), conditions.precision):
        sentinel.scores(model, some[:1])  # warms up
        started = time.perf_counter()
        classes = sentinel.scores(model, some).shape[1]
        row = (time.perf_counter() - started) / len(some)
    started = time.perf_counter()
    try:
        report = sentinel.found(_StandIn(classes), data, known, conditions, method=Gradient(), output=Logit())
    except ValueError as error:
        return replace(
            found,
            costs={("", "predictions"): Cost(passes=1.0, seconds=row)},
            notes=(f"Nothing can be proven: {error}",),
        )
    own = time.perf_counter() - started
    gradients, rows = (report.settings[name] / number for name in ("gradients", "rows"))
    costs = {key: cost * gradients for key, cost in found.costs.items()}
    costs["", "changed pictures"] = Cost(passes=rows, seconds=rows * row)
    costs["", "the search itself"] = Cost(seconds=own / number)
    note = "If all classes are predicted equally often. What is proven takes up to a half more; panels are not in it."
    return replace(found, costs=costs, notes=(note,))


class _StandIn(nn.Module):
    """Predicts each class equally often, by a hash of all pixels: whatever is changed changes the prediction."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = max(2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).double().mean(1)
        label = (1e4 * mean % 1 * self.num_classes).long().clamp(0, self.num_classes - 1)
        scale = torch.arange(self.num_classes, device=images.device)
        return (9.0 * (scale == label[:, None]) + mean[:, None] * scale / self.num_classes).to(images.dtype)


def _times(found: Price, networks: dict[Any, int], title: str, *notes: str) -> Price:
    """The same maps again under so many networks of each kind."""
    maps = {method: cost for (method, what), cost in found.costs.items() if what == MAPS}
    again = {(method, str(kind)): cost * float(n) for kind, n in networks.items() for method, cost in maps.items()}
    return replace(found, costs={**found.costs, **again}, title=title, notes=notes)


def _in_all(found: Price, validations: int | None) -> str:
    """For the whole training."""
    trained = "The training itself is not in it."
    if validations is None:
        return f"How many validations there will be is not known. {trained}"
    work = f"{validations * found.gradients:,.0f} gradients, {duration(validations * found.seconds)}"
    return f"In {validations} validation{'s' * (validations != 1)}, at most: {work}. {trained}"


def _validations(trainer: Trainer, callback: ExplainingCallback) -> int | None:
    """How many are explained if nothing ends the training earlier; None where it is not known."""
    every = getattr(callback, "every_n_validations", 1)
    if every is None or not trainer.limit_val_batches:  # tests alone
        return 0
    schedule, interval = Schedule.of(trainer, getattr(callback, "every_n_epochs", 1)), trainer.val_check_interval
    if not math.isfinite(schedule.end) or not isinstance(interval, float) or schedule.every_validation is None:
        return None
    return sum(map(schedule.explained, range(int(schedule.end)))) * int(1 / interval) // every


def _first_samples(
    trainer: Trainer,
    model: LightningModule,
    datamodule: Any,
    callback: ExplainingCallback,
    loader: Any,
    some: int | None = None,
) -> tuple[Samples, int]:
    """So many of the callback's samples, by default those that are measured, on the device; how many it explains."""
    target: Any = callback.target if callback.labelled else "prediction"
    take = callback.unpack or unpacking(target, callback.mask, callback.forward)
    read, some = partial(taken, model, datamodule, take, target), some or BATCHES * callback.batch_size
    source = Source.of(loader, read, some, "validate", trainer.limit_val_batches, callback.num_samples)
    if source.keys is None:
        raise ValueError("`dry_run`: the validation data are a stream, whose samples cannot be asked for beforehand.")
    if not source.keys:
        raise ValueError(f"`data`: {type(datamodule).__name__} gives no samples to validate with.")
    samples, chosen = source.first(some), len(source.chosen() or ())
    number = len(samples.images)
    samples = each_positive(samples)[0] if target == "positive" else samples
    return samples, round(chosen * len(samples.images) / number)


def _parts(model: nn.Module, samples: Samples, target: Any, size: int) -> Iterator[Batch]:
    """Batches of samples, each with what the model carries along of them."""
    for rows in torch.arange(len(samples.images)).split(size):
        part = samples.select(rows)
        own = target[rows.to(target.device)] if isinstance(target, torch.Tensor) else target
        yield Batch(part.images, own, part.index, part.masks, model=rows_of(model, rows))
