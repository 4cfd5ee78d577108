"""Infidelity: how wrong an attribution is about perturbations of the input."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, check_choice, check_count, check_positive, explaining
from lightning_xai.explainers.chunks import groups
from lightning_xai.explainers.gradient import Baseline, baseline_like, checked_baseline
from lightning_xai.functional.devices import sent
from lightning_xai.functional.infidelity import infidelity, random_squares
from lightning_xai.functional.maps import all_finite, like_rows
from lightning_xai.functional.random import fold_in, standard_normal
from lightning_xai.metrics.base import SampleMetric, Shared
from lightning_xai.metrics.checks import check_batch
from lightning_xai.metrics.faithfulness import Watched, model_output

Perturbation = Literal["square", "noise"]


class Infidelity(SampleMetric):
    """Mean squared error of I·a as a prediction of f(x) - f(x - I), over random perturbations I (Yeh et al. 2019).

    Lower is better.

    The sum I·a is over all values and channels: the attribution is read as a sensitivity, in units of output per unit
    of input. One that contains the input already, such as Input x Gradient, is scored as it stands.

    Perturbations, the same for all methods of an evaluation, which run the model on them once:

    - "square": I = x - baseline inside a random square, 0 outside; the paper's square removal, with one size. Of series
      it is a segment, of volumes a cube; tables have none.
    - "noise": I ~ N(0, std²) on every value. Its best attribution is SmoothGrad with the same deviation (by Stein's
      lemma), so it favors smoothers that use a similar one. It is neither clipped to the data's range nor the paper's
      noisy baseline, which is I = x - (baseline + noise).

    By default the attribution is first multiplied by the factor that fits the sample's drops best, as in the authors'
    code, so that methods of different scale can be compared. That factor may be negative: an attribution and its
    negative score alike. `rescale=False` is the definition as printed. The score has the unit of the output, squared.
    Undefined with `rescale` where I·a, or the drop, is zero for every draw (an attribution of zeros), and where a value
    of the map or of the output is not finite.

    Args:
        num_draws: Perturbations a sample.
        perturbation: "square" or "noise".
        square_size: Side of the squares in pixels.
        baseline: What squares are replaced by: "black" or "white" (they need bounds), or a number in the space of the
            inputs.
        std: Standard deviation of the noise, in the space of the inputs; 0.2 on images in [0, 1] in the authors' code.
        output: Watched: the output that is "explained", by default the target's logit, or its "probability".
        rescale: Fit the attribution's scale, sample by sample.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if a number is out of its range, or a choice unknown; when updated, if bounds are missing, or inputs
            have no place for a square.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> metrics = {"infidelity": lx.metrics.Infidelity(square_size=1, baseline=0.0)}
        >>> means = lx.evaluate(model, torch.ones(1, 1, 2, 2), 1, ["gradient", "random_attribution"], metrics).means()
        >>> [round(means[name]["infidelity"], 2) for name in means]  # the gradient of a linear model predicts all
        [0.0, 4.51]
    """

    higher_is_better = False

    def __init__(
        self,
        num_draws: int = 100,
        perturbation: Perturbation = "square",
        square_size: int = 8,
        baseline: Baseline = "black",
        std: float = 0.2,
        output: Watched = "explained",
        rescale: bool = True,
        **kwargs: Any,
    ) -> None:
        check_count("num_draws", num_draws)
        check_choice("perturbation", perturbation, Perturbation)
        check_count("square_size", square_size)
        baseline = checked_baseline(baseline)
        check_choice("output", output, Watched)
        check_positive("std", std)
        super().__init__(**kwargs)
        self.num_draws, self.perturbation, self.square_size = num_draws, perturbation, square_size
        self.baseline, self.std, self.output, self.rescale = baseline, std, output, rescale

    def update(
        self,
        attributions: Tensor,
        *,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        context: Context,
        shared: Shared | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Score attributions of `inputs`, shaped like them, for the classes `target`.

        Raises:
            ValueError: if they are not of the same samples, or a shape does not fit that of the inputs.
        """
        check_batch(attributions, inputs, target, context, per_element=True)
        self.check_inputs(inputs)
        settings = (
            "infidelity",
            self.num_draws,
            self.perturbation,
            self.square_size,
            self.baseline,
            self.std,
            self.output,
        )
        measure = partial(self._drops, model, inputs, target, context)
        drops = measure() if shared is None else shared.once(settings, measure)
        self.record(infidelity(self._predicted(attributions, model, inputs, context), drops, self.rescale), index)

    def perturbations(self, inputs: Tensor, context: Context, numbers: Tensor) -> Tensor:
        """The perturbations I with these numbers, (len(numbers), batch, ...)."""
        keys = fold_in(context.private_keys("infidelity"), numbers[:, None])
        if self.perturbation == "noise":
            drawn = standard_normal(keys.flatten(), inputs.shape[1:], inputs.device) * self.std
            return drawn.to(inputs.dtype).unflatten(0, keys.shape)
        squares = sent(random_squares(keys.flatten(), self.square_size, *inputs.shape[2:]), inputs.device)
        return squares.unflatten(0, keys.shape)[:, :, None] * (inputs - baseline_like(inputs, self.baseline, context))

    def _drops(self, model: nn.Module, inputs: Tensor, target: Tensor, context: Context) -> Tensor:
        """(batch, draw): f(x) - f(x - I)."""
        changed = []
        with explaining(model), torch.no_grad():
            clean = model_output(model, inputs, target, context, self.output)
            for numbers in groups(self.num_draws, model, inputs, context.max_rows):
                images = (inputs - self.perturbations(inputs, context, numbers)).flatten(0, 1)
                targets = target.repeat(len(numbers))
                changed.append(model_output(model, images, targets, context, self.output, known=True))
        return clean[:, None] - torch.cat(changed).unflatten(0, (self.num_draws, -1)).T

    def _predicted(self, attributions: Tensor, model: nn.Module, inputs: Tensor, context: Context) -> Tensor:
        """(batch, draw): I·a. The perturbations are drawn again: kept, they would fill `num_draws` times the batch."""
        values = attributions.to(torch.promote_types(attributions.dtype, torch.float32))
        values = values.masked_fill(~like_rows(all_finite(values), values), torch.nan)
        sums = []
        with explaining(model), torch.no_grad():
            for numbers in groups(self.num_draws, model, inputs, context.max_rows):
                sums.append((self.perturbations(inputs, context, numbers) * values).flatten(2).sum(2))
        return torch.cat(sums).T

    def check_inputs(self, inputs: Tensor) -> None:
        if self.perturbation == "noise":
            return
        if inputs.ndim < 3:
            raise ValueError(
                'perturbation="square" needs `inputs` with places side by side, (batch, channel, ...), '
                f'got shape {tuple(inputs.shape)}; use perturbation="noise".'
            )
        if self.square_size > min(inputs.shape[2:]):
            raise ValueError(
                f"`square_size` must be at most the shorter side of the images, {'x'.join(map(str, inputs.shape[2:]))} "
                f"pixels; got {self.square_size}."
            )
