"""The callback that asks whether explanations depend on the model's weights."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_xai.callbacks.attribution import default_methods
from lightning_xai.callbacks.checks import check_folder_name, check_names, check_together, check_whole
from lightning_xai.callbacks.samples import Samples, Target, check_labels, choose_samples, current_loader, unpack
from lightning_xai.callbacks.schedule import check_monitors
from lightning_xai.data.input_space import InputSpace
from lightning_xai.explainers import Explainer, with_controls
from lightning_xai.explainers.base import (
    check_choice,
    check_count,
    check_logits,
    check_whole_number,
    explaining,
    resolve_target,
)
from lightning_xai.explainers.bounds import check_in_bounds
from lightning_xai.names import named
from lightning_xai.results.sanity import Cell
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.checks import Subject, floor_cells, original_maps, parameter_cells
from lightning_xai.sanity.randomization import Initialization
from lightning_xai.sanity.similarity import SIMILARITIES


class RandomizationCallback(Callback):
    """Compares maps of the trained model with maps of copies with random weights, at test end: a light sanity check.

    Logs, averaged over samples and random models, `sanity/<method>/<similarity>`, and beside it
    `sanity/<method>/<similarity>_floor`: that of maps of different images. A method whose maps do not fall to about the
    floor does not show what the model has learned (Adebayo et al. 2018); `lightning-xai sanity` gives the verdict,
    step by step, with intervals. Undefined similarities are left out of the means; a mean of none is not logged. The
    module, its training and all random states are left as they are. The processes share the random models out.

    Attributes:
        scores: The latest, by name as logged; None before.

    Args:
        methods: Explainers by name, or plain names, and null, as in `AttributionCallback`. Controls are added.
        similarities: Names of functions of `sanity.similarity`.
        num_samples: Samples explained, spread evenly over the rows that the loader can yield.
        every_n_validations: Check after every n-th validation of a training too; null for test ends alone.
        repeats: Random models.
        initialization: Of their weights: `own`, `normal` or `permute`.
        target: The class explained: the sample's "label", or the trained model's "prediction"; null as in
            `AttributionCallback`.
        bounds: As in `AttributionCallback`.
        seed: Of noise and random weights.
        batch_size: Samples explained at a time.
        unpack: As in `AttributionCallback`.
        name: Of this callback, where a trainer has several: metrics are then `sanity/<name>/<method>/<similarity>`.
    """

    def __init__(
        self,
        methods: dict[str, Explainer | str] | list[str] | None = None,
        similarities: list[str] | None = None,
        num_samples: int = 16,
        every_n_validations: int | None = None,
        repeats: int = 2,
        initialization: Initialization = "own",
        target: Target | None = None,
        bounds: tuple[float | list[float], float | list[float]] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        unpack: Callable[[Any], Samples] | None = None,
        name: str | None = None,
    ) -> None:
        chosen = ["spearman_absolute", "ssim"] if similarities is None else similarities
        for similarity in chosen:
            check_choice("similarities", similarity, set(SIMILARITIES) - {"spearman_foreground"})
        check_count("num_samples", num_samples)
        check_count("every_n_validations", 1 if every_n_validations is None else every_n_validations)
        check_count("repeats", repeats)
        check_count("batch_size", batch_size)
        check_whole_number("seed", seed)
        check_choice("initialization", initialization, Initialization)
        if target is not None:
            check_choice("target", target, Target)
        check_names("methods", methods or ())
        if name is not None:
            check_folder_name(name)
        self.methods: dict[str, Explainer] | None = named("methods", methods)
        self.similarities = {name: SIMILARITIES[name] for name in chosen}
        self.num_samples, self.every_n_validations, self.repeats = num_samples, every_n_validations, repeats
        self.initialization, self.target, self.bounds, self.seed = initialization, target, bounds, seed
        self.batch_size, self.unpack, self.name = batch_size, unpack, name
        self.scores: dict[str, float] | None = None
        self._validations = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_whole(trainer, pl_module, "RandomizationCallback")
        check_together(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse whoever waits for what is not logged at each validation."""
        ours = [c for c in trainer.callbacks if isinstance(c, RandomizationCallback)]  # type: ignore[attr-defined]
        if self is ours[-1]:
            check_monitors(trainer, {key: 1 for c in ours for key in c._names(trainer)}, "sanity/", type(self).__name__)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_validations is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:
            self.check(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, and log."""
        with isolate_rng(), torch.inference_mode(False):
            subject = self._subject(trainer, pl_module)
            cells = Cells(None, {})
            originals = original_maps(subject, cells)
            options: dict[str, Any] = {"repeats": self.repeats, "initialization": self.initialization}
            changed, _ = parameter_cells(subject, originals, cells, ["full"], **options)
            floors = [cell for cell in floor_cells(subject, originals) if cell.key.variant == "different_images"]
            means = {**_means(changed, ""), **_means(floors, "_floor")}
            self.scores = {f"{self._prefix}/{name}": mean for name, mean in means.items()}
            for name, mean in self.scores.items():
                pl_module.log(name, mean, sync_dist=True, batch_size=1)

    @property
    def _prefix(self) -> str:
        return "sanity" if self.name is None else f"sanity/{self.name}"

    def _names(self, trainer: Trainer) -> list[str]:
        """What is logged at each validation of a training."""
        if self.every_n_validations != 1 or not trainer.enable_validation:
            return []
        methods = with_controls(default_methods(True) if self.methods is None else self.methods)
        return [f"{self._prefix}/{m}/{s}{end}" for m in methods for s in self.similarities for end in ("", "_floor")]

    def _subject(self, trainer: Trainer, pl_module: LightningModule) -> Subject:
        check_whole(trainer, pl_module, "RandomizationCallback")
        number = min(2, self.num_samples) if trainer.fast_dev_run else self.num_samples  # type: ignore[attr-defined]
        limit = trainer.limit_test_batches if trainer.state.fn == "test" else trainer.limit_val_batches
        samples = choose_samples(
            trainer,
            current_loader(trainer),
            number,
            self.batch_size,
            self.unpack or partial(unpack, strict=self.target != "prediction"),
            whole=True,
            limit=limit,
            target=self.target,
        )
        bounds = InputSpace.of(trainer, self.bounds).bounds
        methods: Mapping[str, Explainer] = default_methods(bounds is not None) if self.methods is None else self.methods
        check_in_bounds(samples.images, bounds)
        with explaining(pl_module):
            labels = None if self.target == "prediction" else samples.labels
            if labels is not None:
                check_labels(samples, check_logits(pl_module(samples.images), len(samples.images)).shape[1])
            target = resolve_target(pl_module, samples.images, labels)
        return Subject(
            pl_module,
            samples.images,
            target,
            samples.index,
            with_controls(methods),
            self.similarities,
            bounds,
            samples.labels,
            seed=self.seed,
            batch_size=self.batch_size,
        )


def _means(cells: list[Cell], suffix: str) -> dict[str, float]:
    """Means over samples and repeats, where anything is defined."""
    values: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        for similarity, scores in cell.scores.items():
            values.setdefault(f"{cell.key.method}/{similarity}{suffix}", []).append(scores)
    return {name: float(np.nanmean(parts)) for name, parts in values.items() if np.isfinite(parts).any()}
