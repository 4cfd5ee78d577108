"""Metrics that remove or insert pixels in the order of their attribution and watch the output."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, check_choice, check_count, explaining
from lightning_xai.explainers.chunks import groups
from lightning_xai.explainers.gradient import Baseline, baseline_like, checked_baseline
from lightning_xai.forward import present_places
from lightning_xai.functional.devices import sent
from lightning_xai.functional.faithfulness import area_under_curve, pixel_ranks
from lightning_xai.functional.maps import scored_map
from lightning_xai.metrics.base import SampleMetric, Shared
from lightning_xai.metrics.checks import check_batch
from lightning_xai.metrics.faithfulness import Watched, model_output
from lightning_xai.shapes import Scores

_KNOWN = "classes that are outputs of the model"


class PerturbationCurve(SampleMetric):
    """Base: the output while pixels are replaced by a baseline, those of the highest attribution first.

    Pixels are ranked by the signed channel sum, by its absolute value if `absolute`; equal values in the order of the
    pixels. A pixel is replaced in all channels. Step k of n has replaced the first k/n of the pixels, rounded up; the
    curve has n + 1 points, from the input itself to the baseline. Padding, the places that are not `present` in a
    `Forward`, has no rank and stays as it is: the shares are of a sample's own places. Undefined where the map is
    constant, which ranks nothing, or a value of the map or of the curve is not finite.

    Args:
        num_steps: Steps from the input to the baseline.
        baseline: "black" or "white" (they need bounds), or a number in the space of the inputs, or one a channel, such
            as the embedding of a mask token.
        output: Watched: the output that is "explained", by default the target's logit, or its "probability". None for
            the metric's own: "explained" of `PixelFlipping`, "probability" of `DeletionAUC` and `InsertionAUC`.
        absolute: Rank by the absolute value.

    Raises:
        TypeError: if `num_steps` is no whole number, or `baseline` neither a name nor a number.
        ValueError: if `num_steps` is less than 1, or a choice unknown; when updated, if bounds are missing, or the
            arguments do not belong together.
    """

    default_output: Watched = "probability"

    def __init__(
        self,
        num_steps: int = 28,
        baseline: Baseline = "black",
        output: Watched | None = None,
        absolute: bool = False,
        **kwargs: Any,
    ) -> None:
        output = self.default_output if output is None else output
        check_count("num_steps", num_steps)
        baseline = checked_baseline(baseline)
        check_choice("output", output, Watched)
        super().__init__(**kwargs)
        self.num_steps, self.baseline, self.output, self.absolute = num_steps, baseline, output, absolute

    def update(
        self,
        attributions: Tensor,
        *,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        context: Context,
        index: Tensor | None = None,
        shared: Shared | None = None,
    ) -> None:
        """Score attributions of `inputs`, one value a place or more, for the classes `target`."""
        check_batch(attributions, inputs, target, context)
        maps = scored_map(attributions, self.absolute)
        scores = self.summary(self.curve(maps, inputs, target, model, context, shared))
        present = present_places(model, maps)
        ends = [maps if present is None else maps.where(present, end) for end in (-torch.inf, torch.inf)]
        highest, lowest = ends[0].flatten(1).amax(1), ends[1].flatten(1).amin(1)
        defined = (highest > lowest) & scores.isfinite()  # not where there is a NaN
        self.record(torch.where(defined, scores, torch.nan), index)

    def curve(
        self,
        maps: Tensor,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        context: Context,
        shared: Shared | None = None,
    ) -> Tensor:
        """(batch, num_steps + 1) outputs. Whether the classes are outputs is looked at once in what is `shared`."""
        shared = Shared() if shared is None else shared
        present = present_places(model, maps)
        ranks = pixel_ranks(maps if present is None else maps.where(present, -torch.inf))
        numbers = torch.tensor([maps[0].numel()]) if present is None else present.flatten(1).sum(1).cpu()
        replaced = -(-torch.arange(self.num_steps + 1)[:, None] * numbers // self.num_steps)  # rounded up
        if inputs.ndim > 2:
            ranks, present = ranks[:, None], None if present is None else present[:, None]
        baseline = baseline_like(inputs, self.baseline, context)
        points: list[Tensor] = []
        with explaining(model), torch.no_grad():
            for steps in groups(self.num_steps + 1, model, inputs, context.max_rows):
                cut = sent(replaced[steps], ranks.device).view(len(steps), -1, *[1] * (ranks.ndim - 1))
                mixed = self.mix(ranks < cut, inputs, baseline)
                images = (mixed if present is None else mixed.where(present, inputs)).flatten(0, 1)
                targets, known = target.repeat(len(steps)), _KNOWN in shared
                outputs = model_output(model, images, targets, context, self.output, known)
                shared[_KNOWN] = True
                points.append(outputs.unflatten(0, (len(steps), -1)))
        return torch.cat(points).T

    def mix(self, chosen: Tensor, inputs: Tensor, baseline: Tensor) -> Tensor:
        """The images, given which pixels have had their turn."""
        return torch.where(chosen, baseline, inputs)

    @abstractmethod
    def summary(self, curve: Tensor) -> Scores:
        """(batch, points) to (batch,)."""


class PixelFlipping(PerturbationCurve):
    """Area over the perturbation curve: mean fall of the output over all points (Samek et al. 2017, equation 12).

    Higher is better.

    See `PerturbationCurve` for arguments and errors.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> model[1].bias.data = torch.zeros(1)  # logits 10, 6, 3, 1, 0: falls of 0, 4, 7, 9, 10
        >>> metrics = {"score": lx.metrics.PixelFlipping(num_steps=4, baseline=0.0)}
        >>> lx.evaluate(model, torch.ones(1, 1, 2, 2), 1, ["gradient"], metrics).means()["gradient"]["score"]
        6.0
    """

    higher_is_better = True
    default_output: Watched = "explained"

    def summary(self, curve: Tensor) -> Scores:
        return (curve[:, :1] - curve).mean(1)


class DeletionAUC(PerturbationCurve):
    """Area under the probability as the highest pixels are deleted first (Petsiuk et al. 2018).

    Lower is better.

    See `PerturbationCurve` for arguments and errors.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> model[1].bias.data = torch.zeros(1)  # logits 10, 6, 3, 1, 0
        >>> metrics = {"score": lx.metrics.DeletionAUC(num_steps=4, baseline=0.0, output="explained")}
        >>> lx.evaluate(model, torch.ones(1, 1, 2, 2), 1, ["gradient"], metrics).means()["gradient"]["score"]
        3.75
    """

    higher_is_better = False

    def summary(self, curve: Tensor) -> Scores:
        return area_under_curve(curve)


class InsertionAUC(PerturbationCurve):
    """Area under the probability as the highest pixels are inserted first into the baseline (Petsiuk et al. 2018).

    Higher is better.

    See `PerturbationCurve` for arguments and errors; the curve runs from the baseline to the input.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> model[1].bias.data = torch.zeros(1)  # logits 0, 4, 7, 9, 10
        >>> metrics = {"score": lx.metrics.InsertionAUC(num_steps=4, baseline=0.0, output="explained")}
        >>> lx.evaluate(model, torch.ones(1, 1, 2, 2), 1, ["gradient"], metrics).means()["gradient"]["score"]
        6.25
    """

    higher_is_better = True

    def mix(self, chosen: Tensor, inputs: Tensor, baseline: Tensor) -> Tensor:
        return torch.where(chosen, inputs, baseline)

    def summary(self, curve: Tensor) -> Scores:
        return area_under_curve(curve)
