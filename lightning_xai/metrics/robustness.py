"""Metrics of how far an attribution moves when its input moves a little."""

from abc import abstractmethod
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, Explainer, check_choice, check_count, check_positive
from lightning_xai.explainers.precomputed import refuse_precomputed
from lightning_xai.functional.devices import with_float64
from lightning_xai.functional.random import fold_in, uniform
from lightning_xai.functional.robustness import norms
from lightning_xai.metrics.base import SampleMetric, Shared
from lightning_xai.metrics.checks import check_batch
from lightning_xai.shapes import Scores

Reference = Literal["attribution", "input", "change"]


class Changes(NamedTuple):
    """Norms (draws, batch) of the changes under each draw."""

    of_attribution: Tensor
    of_input: Tensor


class Sensitivity(SampleMetric):
    """Base: changes ‖a(x') - a(x)‖ of the attribution under uniform noise on the input, in an L∞ ball around it.

    The explainer runs again on each noisy input, once for all sensitivity metrics of an evaluation that draw alike. By
    default it uses the noise draws that it used for the input itself, so that what is measured is the explanation's
    sensitivity and not the noise of its sampling; `independent` gives it fresh draws each time. Norms are Euclidean,
    over all elements. The noisy inputs are the same for all methods. Undefined where the reference is zero, or a map
    is not finite.

    Args:
        num_draws: Noisy inputs a sample.
        radius: Greatest change of an input element, in the space of the inputs.
        independent: Fresh draws of the explainer's own noise for every noisy input.
        relative_to: What a change is divided by: the norm of the "attribution"; of the "input", as Quantus did before
            0.4.2 and so the NoiseGrad paper's numbers; or of the input's "change".

    Raises:
        TypeError: if a number is of another type.
        ValueError: if a number is out of its range, or `relative_to` unknown; when updated, if the arguments do not
            belong together.
    """

    higher_is_better = False

    def __init__(
        self,
        num_draws: int = 10,
        radius: float = 0.2,
        independent: bool = False,
        relative_to: Reference = "attribution",
        **kwargs: Any,
    ) -> None:
        check_count("num_draws", num_draws)
        check_choice("relative_to", relative_to, Reference)
        check_positive("radius", radius)
        super().__init__(**kwargs)
        self.num_draws, self.radius = num_draws, radius
        self.independent, self.relative_to = independent, relative_to

    def update(
        self,
        attributions: Tensor,
        *,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        explainer: Explainer,
        context: Context,
        shared: Shared | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Score attributions that `explainer` made of `inputs` for the classes `target` in this context."""
        check_batch(attributions, inputs, target, context, per_element=True)
        refuse_precomputed({type(explainer).__name__: explainer}, f"{type(self).__name__} explains changed inputs")
        measure = partial(self._measure, attributions, inputs, target, model, explainer, context)
        # The explainer itself, not its settings: some cannot be hashed. It lives as long as the batch.
        settings = ("sensitivity", id(explainer), self.num_draws, self.radius, self.independent)
        changes = measure() if shared is None else shared.once(settings, measure)
        references = {"attribution": norms(attributions), "input": norms(inputs), "change": changes.of_input}
        reference = references[self.relative_to]
        ratios = changes.of_attribution / torch.where(reference > 0, reference, torch.nan)
        self.record(self.summary(torch.where(ratios.isfinite(), ratios, torch.nan)), index)

    def _measure(
        self,
        attributions: Tensor,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        explainer: Explainer,
        context: Context,
    ) -> Changes:
        keys, changes = context.private_keys("sensitivity"), []
        for draw in range(self.num_draws):
            noise = uniform(fold_in(keys, draw), inputs.shape[1:], inputs.device).to(inputs.dtype)
            noise = noise.mul_(2).sub_(1).mul_(self.radius)
            drawn = context.model_draw(draw) if self.independent else context
            changed = explainer(model, inputs + noise, target, drawn)
            changes.append((norms(with_float64(changed).double() - with_float64(attributions).double()), norms(noise)))
        return Changes(*(torch.stack(parts) for parts in zip(*changes, strict=True)))

    @abstractmethod
    def summary(self, ratios: Tensor) -> Scores:
        """(draws, batch) to (batch,)."""


class MaxSensitivity(Sensitivity):
    """Greatest relative change of the attribution, max ‖a(x') - a(x)‖ / ‖a(x)‖ (Yeh et al. 2019).

    Lower is better.

    See `Sensitivity` for arguments and errors.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> metrics, images = {"score": lx.metrics.MaxSensitivity()}, torch.ones(1, 1, 2, 2)
        >>> means = lx.evaluate(model, images, 1, ["gradient", "input_x_gradient"], metrics).means()
        >>> [round(means[name]["score"], 2) for name in means]  # the gradient of a linear model stays
        [0.0, 0.15]
    """

    def summary(self, ratios: Tensor) -> Scores:
        return ratios.amax(0)


class AverageSensitivity(Sensitivity):
    """Mean relative change of the attribution, mean ‖a(x') - a(x)‖ / ‖a(x)‖ (Yeh et al. 2019).

    Lower is better.

    See `Sensitivity` for arguments and errors.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> metrics, images = {"score": lx.metrics.AverageSensitivity()}, torch.ones(1, 1, 2, 2)
        >>> means = lx.evaluate(model, images, 1, ["gradient", "input_x_gradient"], metrics).means()
        >>> [round(means[name]["score"], 2) for name in means]  # the gradient of a linear model stays
        [0.0, 0.1]
    """

    def summary(self, ratios: Tensor) -> Scores:
        return ratios.mean(0)


class LocalLipschitz(Sensitivity):
    """Greatest change of the attribution over that of the input, max ‖a(x') - a(x)‖ / ‖x' - x‖.

    Lower is better.

    Alvarez-Melis and Jaakkola 2018. It scales with the attribution: compare methods of the same scale only. See
    `Sensitivity` for arguments and errors.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model, metrics = torch.nn.Flatten(), {"score": lx.metrics.LocalLipschitz()}
        >>> means = lx.evaluate(model, torch.ones(1, 1, 2, 2), 1, ["gradient", "input_attribution"], metrics).means()
        >>> [round(means[name]["score"], 3) for name in means]  # the map stays; it is the input
        [0.0, 1.0]
    """

    def __init__(self, num_draws: int = 10, radius: float = 0.2, independent: bool = False, **kwargs: Any) -> None:
        super().__init__(num_draws, radius, independent, "change", **kwargs)

    def summary(self, ratios: Tensor) -> Scores:
        return ratios.amax(0)
