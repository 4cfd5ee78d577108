"""The gradient and what is made of it: Gradient, Saliency, Input x Gradient, Integrated Gradients."""

import math
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import (
    Context,
    Explainer,
    check_count,
    check_kind,
    check_rows,
)
from lightning_xai.explainers.bounds import check_bound_shapes
from lightning_xai.explainers.chunks import groups, in_chunks
from lightning_xai.functional.bounds import bound_tolerance
from lightning_xai.functional.devices import sent
from lightning_xai.outputs import Logit, Output
from lightning_xai.shapes import Inputs, Labels

Baseline = Literal["black", "white"] | float | list[float] | tuple[float, ...]
"""A number, or one a channel (a feature of a table): the embedding of the token that stands for a removed one."""

NO_PATH = (
    "`model` gives outputs that do not depend on its input by a differentiable path, so that there is no gradient: its "
    "forward pass, or a part of it, runs under torch.no_grad() or torch.inference_mode(), detaches, or turns values "
    "into integers. To freeze a part of a network set requires_grad_(False) on its parameters instead of "
    "torch.no_grad() around it; this does not change the training."
)

_CURES = {
    "use_reentrant": "it has torch.utils.checkpoint.checkpoint(..., use_reentrant=True); pass use_reentrant=False.",
    "backward through the graph a second time": "its forward pass runs a backward pass through the outputs that it "
    "returns, whose graph is gone then; return outputs of another pass.",
}
"""What PyTorch says of networks that cannot be differentiated from outside, and what to do."""


@dataclass(frozen=True)
class Gradient(Explainer):
    """Signed gradient of the explained output with respect to the input (Simonyan et al. 2014).

    What the explained output is, the context says (`lightning_xai.outputs`): by default the target's logit.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> lx.explain(model, torch.ones(1, 2), target=0, method=lx.Gradient())
        tensor([[ 1., -2.]])
    """

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        gradient = partial(input_gradient, model, output=context.output)
        return in_chunks(gradient, model, context.max_rows, inputs, target)


@dataclass(frozen=True)
class Saliency(Explainer):
    """Absolute value of a gradient, elementwise (Simonyan et al. 2014).

    Inside a smoother the average is of absolute values, not the absolute value of an average.

    Attributes:
        gradient: The explainer whose absolute value is taken.

    Raises:
        TypeError: if `gradient` is no explainer.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> lx.explain(model, torch.ones(1, 2), target=0, method=lx.Saliency())
        tensor([[1., 2.]])
    """

    gradient: Explainer = Gradient()

    def __post_init__(self) -> None:
        _check_gradient(self.gradient)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        return self.gradient.attribute(model, inputs, target, context).abs()

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        return self.gradient.noise_std(inputs, context)


@dataclass(frozen=True)
class InputXGradient(Explainer):
    """Input times gradient, elementwise, signed (Shrikumar et al. 2016).

    With a smoothed gradient: S-GI, A-GI (the input is the clean one).

    Attributes:
        gradient: The explainer that the clean input multiplies.

    Raises:
        TypeError: if `gradient` is no explainer.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> lx.explain(model, torch.tensor([[0.5, 2.0]]), target=0, method=lx.InputXGradient())
        tensor([[ 0.5000, -4.0000]])
    """

    gradient: Explainer = Gradient()

    def __post_init__(self) -> None:
        _check_gradient(self.gradient)

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
            the space of the inputs, or one a channel. AdaptGrad's code uses 0.0 in normalized space as white, 1.0 as
            black.
        num_steps: Number of quadrature points.

    Raises:
        TypeError: if `gradient` is no explainer, `baseline` neither a name nor a number, `num_steps` no whole number.
        ValueError: if `baseline` is unknown or not finite, or `num_steps` less than 1; when called, if "black" or
            "white" has no bounds.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.tensor([[1.0, 3.0]])  # f(x) - f(b) = tanh(1) - tanh(0) = 0.7616
        >>> method = lx.IntegratedGradients(baseline=0.0)
        >>> lx.explain(torch.nn.Tanh(), images, target=0, method=method).round(decimals=4)
        tensor([[0.7616, 0.0000]])
    """

    gradient: Explainer = Gradient()
    baseline: Baseline = "black"
    num_steps: int = 50

    def __post_init__(self) -> None:
        _check_gradient(self.gradient)
        check_count("num_steps", self.num_steps)
        object.__setattr__(self, "baseline", checked_baseline(self.baseline))

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        difference = _from_baseline(inputs, self.baseline, context)
        points, weights = _gauss_legendre(self.num_steps, inputs)  # in the inputs' precision, but at least float32
        mean = torch.zeros_like(inputs, dtype=torch.promote_types(inputs.dtype, torch.float32))
        for steps in groups(self.num_steps, model, inputs, context.max_rows):
            some = slice(int(steps[0]), int(steps[-1]) + 1)
            at = _align(points[some], inputs)
            path = (inputs - (1 - at) * difference).to(inputs.dtype).flatten(0, 1)
            gradients = self.gradient.attribute(model, path, target.repeat(len(steps)), context.branch(steps))
            mean += (_align(weights[some], inputs) * gradients.unflatten(0, (len(steps), -1)).to(mean)).sum(0)
        return (difference * mean).to(inputs.dtype)

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        """Deviation of the noise at the path's end, which is the input."""
        return self.gradient.noise_std(inputs, context)


def input_gradient(model: nn.Module, inputs: Inputs, target: Labels, output: Output = Logit()) -> Inputs:
    """d f_target(x) / d x for each row; no gradient is made for the parameters and no graph is kept."""
    inputs = inputs.detach().requires_grad_()
    raw = check_rows(model(inputs), len(inputs))
    known = target.device.type != "cpu"  # to look at them would wait for an accelerator; `resolve_target` has looked
    chosen = output.explained(raw, target, known).sum()
    try:
        (gradient,) = torch.autograd.grad(chosen, inputs, allow_unused=True) if chosen.requires_grad else (None,)
    except RuntimeError as error:
        cure = next((cure for sign, cure in _CURES.items() if sign in str(error)), None)
        if cure is None:
            raise
        raise ValueError(f"`model` admits no gradient of its outputs with respect to its inputs: {cure}") from error
    if gradient is None:
        raise ValueError(NO_PATH)
    return gradient


def baseline_like(inputs: Inputs, baseline: Baseline, context: Context) -> Tensor:
    """The baseline as a tensor that broadcasts against the inputs."""
    if isinstance(baseline, tuple | list):
        if len(baseline) != inputs.shape[1]:
            raise ValueError(
                f"`baseline` must be a number, or one for each of the {inputs.shape[1]} channels, got {len(baseline)}."
            )
        values = torch.tensor(baseline, dtype=inputs.dtype).view(-1, *[1] * (inputs.ndim - 2))
        return sent(values, inputs.device)
    if not isinstance(baseline, str):
        return torch.full((), baseline, dtype=inputs.dtype, device=inputs.device)
    low, high = require_bounds(inputs, context, f'baseline="{baseline}"')
    return low if baseline == "black" else high


def _from_baseline(inputs: Inputs, baseline: Baseline, context: Context) -> Inputs:
    """The inputs less the baseline; 0, and not a rounding, where an input is on the bound that the baseline is."""
    difference = inputs - baseline_like(inputs, baseline, context)
    if not isinstance(baseline, str):
        return difference
    tolerance = bound_tolerance(*require_bounds(inputs, context, f'baseline="{baseline}"'), inputs.dtype)
    return torch.where(difference.abs() <= tolerance, 0, difference)


def require_bounds(inputs: Inputs, context: Context, what: str) -> tuple[Tensor, Tensor]:
    """The bounds on the inputs' device, or an error that says who needs them."""
    if context.bounds is None:
        raise ValueError(
            f"`bounds` is needed by {what}: give the least and greatest value of an input element, "
            "bounds=(0.0, 1.0), or for normalized images one value a channel, bounds=lightning_xai.bounds(mean, std)."
        )
    low, high = (bound.to(inputs) for bound in context.bounds)
    check_bound_shapes(low, high, inputs)
    return low, high


def _check_gradient(gradient: Explainer) -> None:
    check_kind("gradient", gradient, Explainer, "an explainer, such as Gradient()")


def checked_baseline(baseline: Baseline) -> Baseline:
    """The baseline, numbers of channels as a tuple; what is none is refused."""
    if isinstance(baseline, Tensor | np.ndarray) and baseline.ndim == 1:
        baseline = baseline.tolist()
    if isinstance(baseline, str):
        if baseline not in ("black", "white"):
            raise ValueError(f'`baseline` must be "black", "white" or a number, got "{baseline}".')
        return baseline
    numbers = tuple(baseline) if isinstance(baseline, list | tuple) else (baseline,)
    if not numbers or any(isinstance(number, bool) or not isinstance(number, Real) for number in numbers):
        raise TypeError(
            f'`baseline` must be "black", "white" or a number, got {baseline!r:.100}; a list has a number a channel.'
        )
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"`baseline` must be finite, got {baseline}.")
    return numbers if isinstance(baseline, list | tuple) else baseline


def _gauss_legendre(num_steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_steps)
    dtype = torch.promote_types(like.dtype, torch.float32)
    points, shares = (torch.from_numpy(values).to(dtype) for values in ((1 + nodes) / 2, weights / 2))
    return sent(points, like.device), sent(shares, like.device)


def _align(values: Tensor, inputs: Tensor) -> Tensor:
    """(steps,) as (steps, 1, 1, ...), to broadcast against (steps, batch, ...)."""
    return values.view(-1, *[1] * inputs.ndim)
