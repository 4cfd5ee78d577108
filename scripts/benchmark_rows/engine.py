"""What the benchmark asks of lightning_xai beyond its oldest interface, in one place."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.chunks import row_limit

SINGLE, HALF = "32-true", "bf16-mixed"
PRECISIONS = (SINGLE, HALF)
SAMPLINGS = (
    ("independent", "antithetic", "sobol")
    if "sampling" in {field.name for field in fields(lx.Smooth)}
    else ("independent",)
)


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager:
    """Within it a network runs in this precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == HALF else nullcontext()


def explain(
    model: nn.Module, images: Tensor, target: Tensor, method: Explainer, precision: str = SINGLE, **options: Any
) -> Tensor:
    return _precisely(lx.explain, precision, images.device)(model, images, target, method, **options)


def evaluate(
    model: nn.Module, images: Tensor, target: Tensor, *arguments: Any, precision: str = SINGLE, **options: Any
) -> lx.Evaluation:
    return _precisely(lx.evaluate, precision, images.device)(model, images, target, *arguments, **options)


def smooth(num_draws: int, sampling: str = "independent") -> lx.Smooth:
    """SmoothGrad with draws of this kind."""
    return lx.Smooth(num_draws=num_draws, **({"sampling": sampling} if sampling != "independent" else {}))


def callback(precision: str, device: torch.device, **options: Any) -> AttributionCallback:
    if "precision" in signature(AttributionCallback.__init__).parameters:
        return AttributionCallback(precision=precision, **options)  # type: ignore[call-arg]
    made = AttributionCallback(**options)
    made.measure = _precisely(made.measure, precision, device)  # type: ignore[method-assign]
    return made


def rows_of_a_pass(model: nn.Module, images: Tensor) -> int:
    """Rows that the engine sends through the network at once."""
    return row_limit(model, images, None)


def _precisely(function: Callable, precision: str, device: torch.device) -> Callable:
    """The function, in this precision."""
    if "precision" in signature(function).parameters:
        return lambda *arguments, **options: function(*arguments, precision=precision, **options)

    def within(*arguments: Any, **options: Any) -> Any:
        with arithmetic(precision, device):
            return function(*arguments, **options)

    return within
