"""The gradient and what is made of it: Gradient, Saliency, Input x Gradient, Integrated Gradients."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, Explainer, check_choice, check_count, check_logits, check_target
from lightning_xai.explainers.bounds import check_bound_shapes
from lightning_xai.explainers.chunks import groups, in_chunks
from lightning_xai.functional.bounds import put_on_bounds
from lightning_xai.shapes import Inputs, Labels, Scores

Output = Literal["logit", "probability", "log_probability"]
Baseline = Literal["black", "white"] | float


@dataclass(frozen=True)
class Gradient(Explainer):
    """Signed gradient of the explained output with respect to the input (Simonyan et al. 2014).

    Attributes:
        output: What is differentiated: the target's logit, its softmax probability, or the logarithm of that.
    """

    output: Output = "logit"

    def __post_init__(self) -> None:
        check_choice("output", self.output, Output)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        gradient = partial(input_gradient, model, output=self.output)
        return in_chunks(gradient, model, context.max_rows, inputs, target)


@dataclass(frozen=True)
class Saliency(Explainer):
    """Absolute value of a gradient, elementwise (Simonyan et al. 2014).

    Inside a smoother the average is of absolute values, not the absolute value of an average.

    Attributes:
        gradient: The explainer whose absolute value is taken.
    """

    gradient: Explainer = Gradient()

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        return self.gradient.attribute(model, inputs, target, context).abs()

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        return self.gradient.noise_std(inputs, context)


@dataclass(frozen=True)
class InputXGradient(Explainer):
    """Input times gradient, elementwise, signed. With a smoothed gradient: S-GI, A-GI (the input is the clean one).

    Attributes:
        gradient: The explainer that the clean input multiplies.
    """

    gradient: Explainer = Gradient()

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        return inputs * self.gradient.attribute(model, inputs, target, context)

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        return self.gradient.noise_std(inputs, context)


@dataclass(frozen=True)
class IntegratedGradients(Explainer):
    """Integrated Gradients (Sundararajan et al. 2017): (x - b) times the mean gradient on the path from b to x.

    Signed; sums to f(x) - f(b) up to the quadrature's error. The path integral is a Gauss-Legendre quadrature. With a
    smoothed gradient inside it is smoothed at every path point, with its own noise: S-IG, A-IG.

    Attributes:
        gradient: The explainer integrated along the path.
        baseline: "black" or "white", the ends of the data's range in pixel space (needs `bounds`), or a number in
            the space of the inputs. AdaptGrad's code uses 0.0 in normalised space as white, 1.0 as black.
        num_steps: Number of quadrature points.
    """

    gradient: Explainer = Gradient()
    baseline: Baseline = "black"
    num_steps: int = 50

    def __post_init__(self) -> None:
        check_count("num_steps", self.num_steps)
        check_baseline(self.baseline)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        difference = _from_baseline(inputs, self.baseline, context)
        points, weights = _gauss_legendre(self.num_steps, inputs)
        mean = torch.zeros_like(inputs)
        for steps in groups(self.num_steps, model, inputs, context.max_rows):
            at = _align(points[steps], inputs)
            path = (inputs - (1 - at) * difference).flatten(0, 1)
            gradients = self.gradient.attribute(model, path, target.repeat(len(steps)), context.branch(steps))
            mean += (_align(weights[steps], inputs) * gradients.unflatten(0, (len(steps), -1))).sum(0)
        return difference * mean

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        """Of the noise at the path's end, which is the input."""
        return self.gradient.noise_std(inputs, context)


def input_gradient(model: nn.Module, inputs: Inputs, target: Labels, output: Output = "logit") -> Inputs:
    """d f_target(x) / d x for each row; no gradient is made for the parameters and no graph is kept."""
    inputs = inputs.detach().requires_grad_()
    logits = check_logits(model(inputs), len(inputs))
    if not target.is_cuda:  # to look at them would wait for the GPU; `resolve_target` has looked
        check_target(target, logits.shape[1])
    (gradient,) = torch.autograd.grad(_chosen(logits, target, output).sum(), inputs)
    return gradient


def explained_output(logits: Tensor, target: Labels, output: Output = "logit") -> Scores:
    """The number of each sample that is explained."""
    check_target(target, logits.shape[1])
    return _chosen(logits, target, output)


def _chosen(logits: Tensor, target: Labels, output: Output) -> Scores:
    if output == "probability":
        logits = logits.softmax(1)
    elif output == "log_probability":
        logits = logits.log_softmax(1)
    return logits.gather(1, target[:, None])[:, 0]


def baseline_like(inputs: Inputs, baseline: Baseline, context: Context) -> Tensor:
    """The baseline as a tensor that broadcasts against the inputs."""
    if not isinstance(baseline, str):
        return torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device)
    low, high = require_bounds(inputs, context, f'baseline="{baseline}"')
    return low if baseline == "black" else high


def _from_baseline(inputs: Inputs, baseline: Baseline, context: Context) -> Inputs:
    """The inputs less the baseline; 0 where an input is on the bound that the baseline is, and not a rounding."""
    ends = baseline_like(inputs, baseline, context)
    if isinstance(baseline, str):
        inputs = put_on_bounds(inputs, *require_bounds(inputs, context, f'baseline="{baseline}"'))[0].to(inputs)
    return inputs - ends


def require_bounds(inputs: Inputs, context: Context, what: str) -> tuple[Tensor, Tensor]:
    """The bounds on the inputs' device, or an error that says who needs them."""
    if context.bounds is None:
        raise ValueError(
            f"`bounds` is needed by {what}: give the least and greatest value of an input element, "
            "bounds=(0.0, 1.0), or for normalised images one value a channel, bounds=lightning_xai.bounds(mean, std)."
        )
    low, high = (bound.to(inputs) for bound in context.bounds)
    check_bound_shapes(low, high, inputs)
    return low, high


def check_baseline(baseline: Baseline) -> None:
    if isinstance(baseline, str) and baseline not in ("black", "white"):
        raise ValueError(f'`baseline` must be "black", "white" or a number, got "{baseline}".')


def _gauss_legendre(num_steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_steps)
    return torch.from_numpy((1 + nodes) / 2).to(like), torch.from_numpy(weights / 2).to(like)


def _align(values: Tensor, inputs: Tensor) -> Tensor:
    """(steps,) as (steps, 1, 1, ...), to broadcast against (steps, batch, ...)."""
    return values.view(-1, *[1] * inputs.ndim)
