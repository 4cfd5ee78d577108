"""Under which conditions samples are explained: what is the same for all of them, whatever the method."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightning_xai.explainers.base import (
    Bound,
    Context,
    check_choice,
    check_count,
    check_whole_number,
    explaining,
)
from lightning_xai.explainers.bounds import check_in_bounds
from lightning_xai.explainers.channels import channels_second, taking_channels_second
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.outputs import Logit, named_output
from lightning_xai.shapes import Inputs, Labels


@dataclass(frozen=True)
class Conditions:
    """Made once where a user gives them, as the arguments of these names, and handed on whole.

    `evaluate(..., **vars(conditions))` gives them as arguments again.

    Attributes:
        bounds: (low, high) of the input elements, as in `lightning_xai.explain`; None if unknown.
        seed: Seed of the noise, and of the random numbers that the network draws itself.
        max_rows: Rows that pass through the network at once; None for as many as fit in memory.
        output: What is explained, an `Output`; a plain name becomes one.
        precision: Precision of the network; see `in_precision`.
        channel_dim: The axis on which the network has the channels.

    Raises:
        TypeError: if one is of another type.
        ValueError: if one is out of range, or not known by name.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> from lightning_xai.explainers.conditions import Conditions
        >>> conditions, images = Conditions(bounds=(0.0, 1.0), output="probability"), torch.rand(2, 1, 2, 2)
        >>> conditions.context(images, torch.arange(2)).output
        Probability()
    """

    bounds: tuple[Bound, Bound] | None = None
    seed: int = 0
    max_rows: int | None = None
    output: Any = Logit()
    precision: Precision = "32-true"
    channel_dim: int = 1

    def __post_init__(self) -> None:
        check_whole_number("seed", self.seed)
        check_count("max_rows", 1 if self.max_rows is None else self.max_rows)
        check_choice("precision", self.precision, Precision)
        check_whole_number("channel_dim", self.channel_dim)
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "output", named_output(self.output))

    def inputs(self, images: Tensor) -> Tensor:
        """The inputs with the channels second; what lies outside of the bounds is refused."""
        images = channels_second(images, self.channel_dim)
        check_in_bounds(images, self.bounds)
        return images

    def context(self, images: Inputs, index: Labels) -> Context:
        """Of samples with these indices, the channels second."""
        kind = images.device, images.dtype, images.ndim
        return Context.create(index.cpu(), self.seed, self.bounds, self.max_rows, *kind, output=self.output)

    @contextmanager
    def explaining(self, model: nn.Module) -> Iterator[None]:
        """While active, the model can be explained, in the precision, and takes inputs with the channels second."""
        turned = taking_channels_second(model, self.channel_dim)
        with in_precision(model, self.precision), explaining(model, self.seed), turned:
            yield
