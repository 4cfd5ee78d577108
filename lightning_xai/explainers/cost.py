"""What an explanation costs, in gradients, and how to make methods cost the same."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import Explainer, check_count, check_kind
from lightning_xai.explainers.gradient import IntegratedGradients
from lightning_xai.explainers.smoothing import Averaging


class GradientCount:
    """Rows of backward passes, and of forward passes that none follows; NaN if they cannot be counted."""

    total: float = 0
    passes: float = 0

    def add(self, gradient: Tensor) -> None:
        """Count the rows of the gradient that arrives at a model's output."""
        self.total += len(gradient)


@contextmanager
def counting_gradients(model: nn.Module) -> Iterator[GradientCount]:
    """Count the rows that a gradient is taken of, from the model's output back, while the block runs.

    Whoever asks for them: our explainers or Captum's. Forward passes without a gradient are free. TorchScript modules
    admit no hooks, so that their count is NaN.
    """
    count = GradientCount()

    def watch(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(count.add)
        elif isinstance(output, Tensor):
            count.passes += len(output)

    if isinstance(model, torch.jit.ScriptModule):
        count.total = count.passes = math.nan
        yield count
        return
    handle = model.register_forward_hook(watch)
    try:
        yield count
    finally:
        handle.remove()


def with_gradients(explainer: Explainer, num_gradients: int) -> Explainer:
    """The same method with as many draws as spend about `num_gradients` gradients a sample, and not more.

    For comparisons at equal cost. Smoothing within smoothing (FusionGrad) keeps the ratio of its numbers of draws.
    Where draws are of something with a fixed cost (Integrated Gradients' steps) there are fewer of them, at least one.
    Antithetic draws are an even number, a variance is of two at least, and a tolerance is dropped. Explainers without
    draws, such as Gradient, come back as they are.

    Raises:
        TypeError: if `explainer` is none, or `num_gradients` no whole number.
        ValueError: if it is less than 1.

    Example:
        >>> import lightning_xai as lx
        >>> from lightning_xai.explainers import with_gradients
        >>> method = with_gradients(lx.fusion_grad(num_weight_draws=20, num_input_draws=10), 50)
        >>> method.num_draws, method.explainer.num_draws
        (10, 5)
    """
    check_kind("explainer", explainer, Explainer, "an explainer such as lightning_xai.smooth_grad()")
    check_count("num_gradients", num_gradients)
    parts = list(chain(explainer))
    levels = [part.num_draws for part in parts if isinstance(part, Averaging)]
    fixed = math.prod(part.num_steps for part in parts if isinstance(part, IntegratedGradients))
    return _with_draws(explainer, _spread(num_gradients // fixed, levels)) if levels else explainer


def _spread(total: int, levels: list[int]) -> list[int]:
    """Numbers in about the ratio of `levels`, with a product of `total` or a little less."""
    if len(levels) == 1:
        return [max(1, total)]
    ideal = levels[0] * (total / math.prod(levels)) ** (1 / len(levels))
    exact = [number for number in _divisors(total) if 0.5 <= number / ideal <= 2]
    outer = min(exact or [max(1, round(ideal))], key=lambda number: abs(math.log(number / ideal)) if ideal else 0.0)
    return [outer, *_spread(total // outer, levels[1:])]


def _divisors(total: int) -> list[int]:
    """All in rising order; none of a number so large that looking for them would take long."""
    low = [number for number in range(1, math.isqrt(total) + 1) if total % number == 0] if total <= 10**12 else []
    return sorted({*low, *(total // number for number in low)})


def chain(explainer: Explainer) -> Iterator[Explainer]:
    """An explainer, what it wraps, what that wraps, ..."""
    yield explainer
    for inner in wrapped(explainer).values():
        yield from chain(inner)


def wrapped(explainer: Explainer) -> dict[str, Explainer]:
    """The explainers among the fields of an explainer; all of ours have one at most."""
    if not is_dataclass(explainer):
        return {}
    values = {field.name: getattr(explainer, field.name) for field in fields(explainer)}
    return {name: value for name, value in values.items() if isinstance(value, Explainer)}


def _with_draws(explainer: Explainer, levels: list[int]) -> Explainer:
    """The explainer with these numbers of draws, the outermost first."""
    changes: dict[str, Any] = {}
    if isinstance(explainer, Averaging):
        number, *levels = levels
        if explainer.sampling == "antithetic":
            number = max(2, number - number % 2)
        changes |= {"num_draws": max(2, number) if explainer.statistic == "variance" else number, "tolerance": None}
    for name, inner in wrapped(explainer).items():
        changes[name] = _with_draws(inner, levels)
    return replace(explainer, **changes) if changes else explainer  # type: ignore[type-var]
