"""The callback that asks whether explanations depend on the model's weights."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.seed import isolate_rng

from lightning_xai.callbacks.base import ExplainingCallback
from lightning_xai.callbacks.samples import Samples, Target
from lightning_xai.callbacks.schedule import check_monitors
from lightning_xai.data.input_space import InputSpace
from lightning_xai.evaluation import OnError
from lightning_xai.explainers import Explainer, with_controls
from lightning_xai.explainers.base import (
    check_choice,
    check_count,
    explaining,
    resolve_target,
)
from lightning_xai.explainers.channels import channels_second, check_layout, taking_channels_second
from lightning_xai.functional.warn import described, warn_caller
from lightning_xai.outputs import Output
from lightning_xai.results.sanity import Cell
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.checks import (
    Subject,
    floor_cells,
    original_maps,
    parameter_cells,
    unusable_similarities,
)
from lightning_xai.sanity.randomization import Initialization, Randomization
from lightning_xai.sanity.similarity import SIMILARITIES


class RandomizationCallback(ExplainingCallback):
    """Compares maps of the trained model with maps of copies with random weights, at test end: a light sanity check.

    Logs, averaged over samples and random models, `sanity/<method>/<similarity>`, and beside it
    `sanity/<method>/<similarity>_floor`: that of maps of different images (`sanity/<loader>/...` of several). A method
    whose maps do not fall to about the floor does not show what the model has learned (Adebayo et al. 2018);
    `lightning-xai sanity` gives the verdict, step by step, with intervals. Undefined similarities are left out of the
    means; a mean of none is not logged. The module, its training and all random states are left as they are. The
    processes share the random models out.

    Attributes:
        scores: The latest, by name as logged; None before.

    Args:
        methods: Explainers by name, or plain names, and null, as in `AttributionCallback`. Controls are added.
        similarities: Names of functions of `sanity.similarity`; null for `spearman_absolute`, and `ssim` where the
            inputs admit it.
        num_samples: Samples explained, spread evenly over the rows that the loader can yield.
        every_n_validations: Check after every n-th validation of a training too; null for test ends alone.
        repeats: Random models.
        initialization: Initialization of their weights: `own`, `normal` or `permute`.
        target: The class explained: the sample's "label", the trained model's "prediction", or the number of one; null
            as in `AttributionCallback`.
        bounds: As in `AttributionCallback`.
        seed: Seed of noise and random weights.
        batch_size: Samples explained at a time.
        unpack: As in `AttributionCallback`.
        name: Name of this callback, where a trainer has several: metrics are then
            `sanity/<name>/<method>/<similarity>`.
        output: What is explained, as in `AttributionCallback`.
        forward: For a module with another result than a tensor, as in `AttributionCallback`.
        channel_dim: As in `AttributionCallback`.
        on_error: "raise", or with "warn" a method that fails costs its own similarities, which are NaN.

    Raises:
        ValueError: if an argument is out of range, a name is unknown, or the target is "positive".

    Example:
        >>> from lightning_xai.callbacks import RandomizationCallback
        >>> callback = RandomizationCallback(methods=["gradient", "guided_backprop"], num_samples=16)
        >>> callback.root  # logs sanity/gradient/ssim and the like at test end
        'sanity'
    """

    root = "sanity"

    def __init__(
        self,
        methods: dict[str, Explainer | str] | list[str] | None = None,
        similarities: list[str] | None = None,
        num_samples: int = 16,
        every_n_validations: int | None = None,
        repeats: int = 2,
        initialization: Initialization = "own",
        target: Target | int | None = None,
        bounds: Any = None,  # (low, high); tensors, which a command line cannot name, as well
        seed: int = 0,
        batch_size: int = 64,
        unpack: Callable[[Any], Samples] | None = None,
        name: str | None = None,
        output: Output | str = "logit",
        forward: dict[str, Any] | None = None,
        channel_dim: int = 1,
        on_error: OnError = "raise",
    ) -> None:
        self.chosen_similarities, chosen = similarities, similarities or ["spearman_absolute", "ssim"]
        for similarity in chosen:
            check_choice("similarities", similarity, set(SIMILARITIES) - {"spearman_foreground"})
        if target == "positive":
            raise ValueError(
                '`target` must be "label", "prediction" or a class, got "positive": maps of several labels of a sample '
                "are no maps of different images."
            )
        given = target, bounds, seed, batch_size, unpack, name, output, forward, channel_dim
        super().__init__(methods, num_samples, *given, on_error=on_error)
        check_count("every_n_validations", 1 if every_n_validations is None else every_n_validations)
        self.similarities = {name: SIMILARITIES[name] for name in chosen}
        self.randomization = Randomization(("full",), repeats, initialization, groups="layers")
        self.every_n_validations = every_n_validations
        self.scores: dict[str, float] | None = None
        self._validations = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse whoever waits for what is not logged at each validation."""
        ours = self.together(trainer)
        if self is ours[-1]:
            owner = type(self).__name__
            check_monitors(trainer, {key: (owner, 1) for c in ours for key in c._names(trainer)}, "sanity/", [owner])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_validations is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:
            self.check(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, and log, loader by loader."""
        self.scores = {}
        for stage in self.staged(trainer, "test" if trainer.state.fn == "test" else "validate"):
            self._check(trainer, pl_module, stage)

    def _check(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        with isolate_rng(), torch.inference_mode(False):
            try:
                means = self._compared(pl_module, self._subject(trainer, pl_module, stage))
            except Exception as error:  # in all processes
                if self.on_error == "raise":
                    raise
                warn_caller(f"RandomizationCallback compares nothing: {described(error)}")
                return
            scores = {f"{self.prefixed(stage)}/{name}": mean for name, mean in means.items()}
            self.scores = {**(self.scores or {}), **scores}
            for name, mean in scores.items():
                pl_module.log(name, mean, sync_dist=True, batch_size=1)

    def _compared(self, pl_module: LightningModule, subject: Subject) -> dict[str, float]:
        """The means; where something fails and may, of each method by itself."""
        cells = Cells(None, {})
        try:
            with taking_channels_second(pl_module, self.conditions.channel_dim):
                originals = original_maps(subject, cells)
                changed, _ = parameter_cells(subject, originals, cells)
        except Exception as error:
            if self.on_error == "raise":
                raise
            if len(subject.methods) == 1:
                (method,) = subject.methods
                warn_caller(f"RandomizationCallback has no similarities of {method}: {described(error)}")
                return {f"{method}/{name}{end}": math.nan for name in subject.similarities for end in ("", "_floor")}
            each = (replace(subject, methods={name: method}) for name, method in subject.methods.items())
            return dict(chain(*(self._compared(pl_module, one).items() for one in each)))
        floors = [cell for cell in floor_cells(subject, originals) if cell.key.variant == "different_images"]
        return {**_means(changed, ""), **_means(floors, "_floor")}

    def _names(self, trainer: Trainer) -> list[str]:
        """What is logged at each validation of a training."""
        if self.every_n_validations != 1 or not trainer.enable_validation:
            return []
        methods = with_controls(self.chosen_methods(True))
        names = [f"{m}/{s}{end}" for m in methods for s in self.similarities for end in ("", "_floor")]
        return [f"{self.prefixed(stage)}/{name}" for stage in self.staged(trainer, "validate") for name in names]

    def _subject(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> Subject:
        samples, _ = self.chosen_samples(trainer, pl_module, stage, least=2, whole=True)
        conditions = InputSpace.of(trainer).completed(self.conditions)
        methods, _ = self.plan(samples, conditions)
        model = self.adapted(pl_module, samples.carried)
        with explaining(model):
            target = resolve_target(model, samples.images, self.explained_target(samples), None, self.output)
        check_layout(methods, conditions.channel_dim)
        subject = Subject(
            model,
            channels_second(samples.images, conditions.channel_dim),
            target,
            samples.index,
            methods,
            self.similarities,
            conditions.bounds,
            samples.labels,
            seed=conditions.seed,
            batch_size=self.batch_size,
            randomization=self.randomization,
            output=self.output,
        )
        return subject if self.chosen_similarities else self._without_unusable(subject)

    def _without_unusable(self, subject: Subject) -> Subject:
        """The default similarities that the inputs admit; what is left out is said."""
        reasons = unusable_similarities(subject)
        for name, reason in reasons.items():
            rank_zero_info(f"{type(self).__name__} leaves the similarity `{name}` out: {reason}")
        usable = {name: function for name, function in subject.similarities.items() if name not in reasons}
        return replace(subject, similarities=usable)


def _means(cells: list[Cell], suffix: str) -> dict[str, float]:
    """Means over samples and repeats, where anything is defined."""
    values: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        for similarity, scores in cell.scores.items():
            values.setdefault(f"{cell.key.method}/{similarity}{suffix}", []).append(scores)
    return {name: float(np.nanmean(parts)) for name, parts in values.items() if np.isfinite(parts).any()}
