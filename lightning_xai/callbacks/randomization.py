"""The callback that asks whether explanations depend on the model's weights."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_xai.callbacks.attribution import default_methods, first_loader
from lightning_xai.callbacks.samples import Samples, choose_samples, unpack
from lightning_xai.explainers import Explainer, with_controls
from lightning_xai.explainers.base import check_choice, check_count, explaining, resolve_target
from lightning_xai.reporting.sanity import Cell
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.checks import Subject, floor_cells, original_maps, parameter_cells
from lightning_xai.sanity.randomisation import Initialisation
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
        methods: Explainers by name; null for those of `AttributionCallback`. Controls are added.
        similarities: Names of functions of `sanity.similarity`.
        num_samples: Samples explained, spread evenly over the data set.
        every_n_validations: Check after every n-th validation of a training too; null for test ends alone.
        repeats: Random models.
        initialisation: Of their weights: `own`, `normal` or `permute`.
        target: The class explained: the sample's "label", or the trained model's "prediction".
        bounds: As in `AttributionCallback`.
        seed: Of noise and random weights.
        batch_size: Samples explained at a time.
        unpack: As in `AttributionCallback`.
    """

    def __init__(
        self,
        methods: dict[str, Explainer] | None = None,
        similarities: list[str] | None = None,
        num_samples: int = 16,
        every_n_validations: int | None = None,
        repeats: int = 2,
        initialisation: Initialisation = "own",
        target: Literal["label", "prediction"] = "label",
        bounds: tuple[float | list[float], float | list[float]] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        unpack: Callable[[Any], Samples] = unpack,
    ) -> None:
        names = ["spearman_absolute", "ssim"] if similarities is None else similarities
        for name in names:
            check_choice("similarities", name, set(SIMILARITIES) - {"spearman_foreground"})
        check_count("num_samples", num_samples)
        check_count("every_n_validations", 1 if every_n_validations is None else every_n_validations)
        check_count("repeats", repeats)
        check_count("batch_size", batch_size)
        check_choice("initialisation", initialisation, Initialisation)
        check_choice("target", target, ("label", "prediction"))
        self.methods, self.similarities = methods, {name: SIMILARITIES[name] for name in names}
        self.num_samples, self.every_n_validations, self.repeats = num_samples, every_n_validations, repeats
        self.initialisation, self.target, self.bounds, self.seed = initialisation, target, bounds, seed
        self.batch_size, self.unpack = batch_size, unpack
        self.scores: dict[str, float] | None = None
        self._validations = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_validations is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:
            self.check(trainer, pl_module, trainer.val_dataloaders)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module, trainer.test_dataloaders)

    def check(self, trainer: Trainer, pl_module: LightningModule, loaders: Any) -> None:
        """Compare, and log."""
        with isolate_rng(), torch.inference_mode(False):
            subject = self._subject(trainer, pl_module, loaders)
            cells = Cells(None, {})
            originals = original_maps(subject, cells)
            options: dict[str, Any] = {"repeats": self.repeats, "initialisation": self.initialisation}
            changed, _ = parameter_cells(subject, originals, cells, ["full"], **options)
            floors = [cell for cell in floor_cells(subject, originals) if cell.key.variant == "different_images"]
            self.scores = {**_means(changed, ""), **_means(floors, "_floor")}
            for name, mean in self.scores.items():
                pl_module.log(name, mean, sync_dist=True, batch_size=1)

    def _subject(self, trainer: Trainer, pl_module: LightningModule, loaders: Any) -> Subject:
        number = min(2, self.num_samples) if trainer.fast_dev_run else self.num_samples  # type: ignore[attr-defined]
        take = partial(choose_samples, trainer, first_loader(loaders), number, self.batch_size, self.unpack)
        samples = take(whole=True)
        bounds = getattr(getattr(trainer, "datamodule", None), "bounds", None) if self.bounds is None else self.bounds
        methods: Mapping[str, Explainer] = default_methods(bounds is not None) if self.methods is None else self.methods
        with explaining(pl_module):
            labels = samples.labels if self.target == "label" else None
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
            values.setdefault(f"sanity/{cell.key.method}/{similarity}{suffix}", []).append(scores)
    return {name: float(np.nanmean(parts)) for name, parts in values.items() if np.isfinite(parts).any()}
