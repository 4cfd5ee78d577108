"""What the callbacks share that explain samples: which ones, by which methods, under which names."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_xai.callbacks.checks import (
    check_folder_name,
    check_names,
    check_together,
    check_whole,
    tell_number_of_classes,
)
from lightning_xai.callbacks.processes import attempted
from lightning_xai.callbacks.samples import (
    Samples,
    Target,
    check_labels,
    choose_samples,
    current_loaders,
    each_positive,
    unpack,
)
from lightning_xai.data.input_space import InputSpace
from lightning_xai.evaluation import OnError
from lightning_xai.explainers import Explainer, Gradient, Saliency, with_controls
from lightning_xai.explainers.base import (
    check_choice,
    check_count,
    check_inputs,
    check_kind,
    check_rows,
    check_whole_number,
    explaining,
)
from lightning_xai.explainers.chunks import in_chunks
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.controls import Chosen
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.explainers.recipes import adapt_grad, fusion_grad, noise_grad, smooth_grad
from lightning_xai.forward import Forward
from lightning_xai.functional.warn import described, warn_caller
from lightning_xai.names import named
from lightning_xai.outputs import Logit, Output, check_declared, check_width


class ExplainingCallback(Callback):
    """Base of the callbacks that explain samples of the loader that runs; arguments as in `AttributionCallback`."""

    root: str
    """What the names of logged metrics begin with."""
    mask: str | None = None

    def __init__(
        self,
        methods: Any,
        num_samples: int,
        target: Any,
        bounds: Any,
        seed: int,
        batch_size: int,
        unpack: Callable[[Any], Samples] | None,
        name: str | None,
        output: Output | str = Logit(),
        forward: dict[str, Any] | None = None,
        channel_dim: int = 1,
        max_rows: int | None = None,
        precision: Precision = "32-true",
        on_error: OnError = "raise",
    ) -> None:
        check_choice("on_error", on_error, OnError)
        self.on_error: OnError = on_error
        check_count("num_samples", num_samples)
        check_count("batch_size", batch_size)
        bounds = tuple(bounds) if isinstance(bounds, list) else bounds  # of YAML
        self.conditions = Conditions(bounds, seed, max_rows, output, precision, channel_dim)
        self.output = self.conditions.output
        self.forward = check_forward(forward)
        if isinstance(target, int):
            check_whole_number("target", target)
        elif target is not None:
            check_choice("target", target, Target)
        if target in ("label", "positive") and not self.output.has_labels:
            raise ValueError(f'`target` is "{target}", but `output` {self.output!r} has none. Leave `target` out.')
        if target == "positive":
            check_declared(self.output)
        check_names("methods", methods or ())
        self.methods: dict[str, Explainer] | None = named("methods", methods)
        if self.methods is not None and not self.methods:
            raise ValueError("`methods` must name at least one explainer; null stands for the default ones.")
        for key, method in (self.methods or {}).items():
            check_kind(f"methods[{key!r}]", method, Explainer, "an explainer such as lightning_xai.Gradient()")
        with_controls(self.methods or {})  # refuses their names, which tables and figures know
        if name is not None:
            check_folder_name(name)
        self.num_samples, self.target, self.batch_size = num_samples, target, batch_size
        self.unpack, self.name = unpack, name

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_whole(trainer, pl_module, type(self).__name__)
        check_together(trainer, self)
        if trainer.world_size > 1:  # Lightning would have what all processes know added up on its own
            warnings.filterwarnings("ignore", rf"It is recommended to use `self.log\('{self.root}/.*, sync_dist=True")

    def adapted(self, pl_module: LightningModule, carried: Mapping[str, Any] | None = None) -> nn.Module:
        """The module as one from a tensor to a tensor, with what some samples carry along."""
        if self.forward is None:
            return pl_module
        return Forward(pl_module, **{**self.forward, "carried": carried})

    @property
    def labelled(self) -> bool:
        """Whether it is the samples' labels that are explained."""
        return self.target in (None, "label", "positive") and self.output.has_labels

    def explained_target(self, samples: Samples) -> Any:
        """The classes explained: a chosen one, the samples' labels, or None for the predicted ones."""
        return self.target if isinstance(self.target, int) else samples.labels if self.labelled else None

    def explained(self, samples: Samples) -> str:
        """Which classes these are, in a word (`results.store.SAMPLES`)."""
        given = self.explained_target(samples) is not None
        return str("label" if self.target is None else self.target) if given else "prediction"

    @property
    def prefix(self) -> str:
        """Of the names of all metrics logged."""
        return self.root if self.name is None else f"{self.root}/{self.name}"

    def staged(self, trainer: Trainer, stage: str) -> list[str]:
        """The stage; or that of each of several loaders, `<stage>/<loader>`."""
        return [f"{stage}/{name}" if name else stage for name in current_loaders(trainer)] or [stage]

    def prefixed(self, stage: str) -> str:
        """What the names of the metrics of a stage begin with."""
        name = stage.partition("/")[2]
        return f"{self.prefix}/{name}" if name else self.prefix

    def together(self, trainer: Trainer) -> list[Any]:
        """All callbacks of this kind that the trainer has."""
        return [c for c in trainer.callbacks if isinstance(c, type(self))]  # type: ignore[attr-defined]

    def chosen_methods(self, has_bounds: bool) -> dict[str, Explainer]:
        """The methods without controls."""
        return default_methods(has_bounds) if self.methods is None else self.methods

    def controlled(
        self, methods: dict[str, Explainer], images: Tensor, controls: Chosen = True
    ) -> dict[str, Explainer]:
        """The methods and the controls that the inputs admit; what is left out is said."""
        if images.ndim == 2 and (controls is True or (controls and "edges" in controls)):
            rank_zero_info(f"{type(self).__name__} leaves the control `edges` out: a table has no places side by side.")
        return with_controls(methods, images.ndim > 2, controls)

    def plan(self, samples: Samples, conditions: Conditions) -> tuple[dict[str, Explainer], dict[str, Any]]:
        """Methods, with the controls, and metrics."""
        return self.controlled(self.chosen_methods(conditions.bounds is not None), samples.images), {}

    def chosen_samples(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, least: int = 1, whole: bool = False
    ) -> tuple[Samples, Tensor]:
        """Samples of the loader that runs, looked at, and the indices of those that were lost.

        What cannot be explained is refused here, or by `on_error` left out with a warning.

        Args:
            stage: `test` or `validate`; of several loaders `test/<loader>`, as `staged` names them.
            least: Samples in a `fast_dev_run`.
            whole: As in `choose_samples`.
        """
        check_whole(trainer, pl_module, type(self).__name__)
        kind, _, name = stage.partition("/")
        loaders = current_loaders(trainer)
        loader, place = loaders.get(name), list(loaders).index(name) if name in loaders else 0
        number = min(least, self.num_samples) if trainer.fast_dev_run else self.num_samples  # type: ignore[attr-defined]
        chosen: Target | None = self.target if self.labelled else "prediction"
        take = self.unpack or unpacking(chosen, self.mask, self.forward)
        limit = trainer.limit_test_batches if kind == "test" else trainer.limit_val_batches
        samples = choose_samples(trainer, loader, number, self.batch_size, take, whole, limit, chosen, place)
        if (labels := samples.labels) is not None and self.target == "positive":
            samples = self._each_positive(samples)
        check_inputs(samples.images, values=False)
        num_outputs = None
        if samples.labels is not None and self.labelled:
            with in_precision(pl_module, self.conditions.precision), explaining(pl_module), torch.no_grad():
                some = samples.select(torch.arange(min(self.batch_size, len(samples.images))))
                model = self.adapted(pl_module, some.carried)
                num_outputs = in_chunks(
                    lambda rows: self.output.scores(check_rows(model(rows), len(rows))),
                    model,
                    self.conditions.max_rows,
                    some.images,
                ).shape[1]
            if labels is not None and labels.ndim > 1:
                check_width(labels.shape[1], num_outputs)
            tell_number_of_classes(trainer, getattr(loader, "dataset", None), num_outputs)
        check = partial(self._check_samples, InputSpace.of(trainer).completed(self.conditions), num_outputs)
        _, failure = attempted(partial(check, samples))
        if failure is None:
            return samples, samples.index[:0]
        if self.on_error == "raise":
            raise failure
        rows = torch.arange(len(samples.images))
        failures = [attempted(partial(check, samples.select(row)))[1] for row in rows.split(1)]
        fine = torch.tensor([failure is None for failure in failures])
        lost = samples.index[~fine]
        named = ", ".join(map(str, lost[:5].tolist())) + ", ..." * (len(lost) > 5)
        why = "; ".join([described(failure) for failure in failures if failure is not None][:3])
        warn_caller(f"{type(self).__name__} leaves out {len(lost)} of {len(fine)} samples, {named}: {why}")
        return samples.select(rows[fine]), lost

    def _check_samples(self, conditions: Conditions, num_outputs: int | None, samples: Samples) -> None:
        """Refuse what cannot be explained."""
        check_inputs(samples.images, index=samples.index)
        conditions.inputs(samples.images)
        if num_outputs is not None:
            check_labels(samples, num_outputs)

    def _each_positive(self, samples: Samples) -> Samples:
        chosen, rows = each_positive(samples)
        if left_out := len(samples.images) - len(rows.unique()):
            rank_zero_info(f"{type(self).__name__} leaves {left_out} samples out, which have no positive label.")
        if not len(rows):
            raise ValueError(
                f"None of the {len(samples.images)} samples has a positive label, so that there is nothing to explain: "
                "choose more, `num_samples`, or another `target`."
            )
        return chosen


def unpacking(
    target: int | str | None, mask: str | None = None, forward: Mapping[str, Any] | None = None
) -> Callable[[Any], Samples]:
    """The usual `unpack`, with the labels of this target and the arguments that `forward` names."""
    given = forward or {}
    labels = {"strict": target in (None, "label", "positive"), "positive": target == "positive"}
    return partial(unpack, mask=mask, **labels, explained=given.get("explained"), carried=given.get("carried") or ())


def check_forward(forward: dict[str, Any] | None) -> dict[str, Any] | None:
    """Refuse what are no arguments of `Forward`."""
    if forward is not None:
        known = set(signature(Forward).parameters) - {"model"}
        if not isinstance(forward, dict) or set(forward) - known:
            raise ValueError(f"`forward` must be arguments of Forward, of {', '.join(sorted(known))}; got {forward!r}.")
        carried = forward.get("carried")
        if carried is not None and not (isinstance(carried, list) and all(isinstance(name, str) for name in carried)):
            raise TypeError(f"`forward`: `carried` must be a list of keys of the batches, got {carried!r}.")
    return forward


def default_methods(has_bounds: bool) -> dict[str, Explainer]:
    """The papers' methods, and what they smooth: the signed gradient, or its absolute value."""
    adaptive: dict[str, Explainer] = {"adapt_grad": adapt_grad()} if has_bounds else {}
    if not has_bounds:
        rank_zero_warn(
            "The callback leaves AdaptGrad and the share of out-of-range noise out: the range of the inputs is "
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
