"""What every explainer is: a frozen dataclass, called with a model, inputs and a target."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from lightning_xai.checks import (
    check_choice as check_choice,
    check_count as check_count,
    check_kind as check_kind,
    check_level as check_level,
    check_number as check_number,
    check_positive as check_positive,
    check_share as check_share,
    check_whole_number as check_whole_number,
)
from lightning_xai.explainers.bounds import Bound as Bound, check_in_bounds, parse_bounds as parse_bounds
from lightning_xai.explainers.chunks import (
    check_logits as check_logits,
    check_rows as check_rows,
    in_chunks,
    probe_rows,
)
from lightning_xai.explainers.state import explaining, naming_inference_tensors
from lightning_xai.functional.devices import sent
from lightning_xai.functional.random import fold_in, fold_in_int, root_keys
from lightning_xai.outputs import Logit, Output, binary_labels, check_target as check_target, named_output
from lightning_xai.shapes import Inputs, Keys, Labels, Targets

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What an explainer may know besides model, inputs and target; made by `Context.create`.

    Attributes:
        seed: Key of the randomness that all samples share (weight noise).
        keys: One random key a row, on the CPU (input noise).
        bounds: Least and greatest value of an input element, broadcasting against one sample; None if unknown.
        max_rows: How many rows may pass through the network at once; None for as many as fit in memory.
        draws_used: Where explainers with a tolerance count the draws of each sample, on the CPU; None if nobody asks.
        output: What is explained of the model, and what its output means.
        index: The samples' indices, on the CPU; None where rows are not the samples themselves, but noisy copies.

    Raises:
        TypeError: if the seed is no whole number, or the keys are no tensor.

    Example:
        >>> import torch
        >>> from lightning_xai.explainers import Context, RandomAttribution
        >>> model, images = torch.nn.Linear(2, 2), torch.rand(3, 2)
        >>> maps = RandomAttribution()(model, images, 0, Context.create(torch.tensor([5, 8, 2]), seed=1))
        >>> alone = RandomAttribution()(model, images[1:2], 0, Context.create(torch.tensor([8]), seed=1))
        >>> torch.equal(maps[1:2], alone)
        True
    """

    seed: int
    keys: Keys
    bounds: tuple[Tensor, Tensor] | None = None
    max_rows: int | None = None
    draws_used: Tensor | None = None
    output: Output = Logit()
    index: Labels | None = None

    def __post_init__(self) -> None:
        check_whole_number("seed", self.seed)
        check_kind("keys", self.keys, Tensor, "a tensor of random keys, as `Context.create(index, seed)` makes them")

    @classmethod
    def create(
        cls,
        index: Labels,
        seed: int = 0,
        bounds: tuple[Bound, Bound] | None = None,
        max_rows: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        ndim: int = 4,
        output: Output | str = Logit(),
    ) -> "Context":
        """The context of samples with these indices: equal indices and seeds give equal noise.

        Args:
            index: (batch,) int64, the samples' indices in their data set.
            seed: A whole number, 0 too.
            bounds: (low, high) in the space of the inputs, each a number, one number a channel, or a tensor that
                broadcasts against one sample.
            max_rows: As in the attributes.
            device: The device of the inputs, on which the bounds are kept.
            dtype: The type of the inputs, in which the bounds are kept; float32 for half precision.
            ndim: Number of axes of the inputs, before which bounds of channels are spread; 4 for images.
            output: What is explained, also by a plain name, "probability".

        Raises:
            TypeError: if `index` is no int64 tensor, or a number is of another type.
            ValueError: if `index` has not one axis, `max_rows` is less than 1, or `bounds` are not low < high, finite.
        """
        check_count("max_rows", 1 if max_rows is None else max_rows)
        check_whole_number("seed", seed)
        check_index(index)
        keys, limits = root_keys(int(seed), index), parse_bounds(bounds, device, dtype, ndim)
        return cls(int(seed), keys, limits, max_rows, output=named_output(output), index=index.cpu())

    def select(self, rows: slice | Tensor) -> "Context":
        """The context of some of the rows."""
        return replace(self, keys=self.keys[rows], index=None if self.index is None else self.index[rows])

    def branch(self, numbers: Int64[Tensor, " branches"]) -> "Context":
        """The context of len(numbers) copies of the rows, copy after copy, each with its own randomness."""
        return replace(self, keys=fold_in(self.keys, numbers[:, None]).flatten(), index=None)

    def count_draws(self, numbers: Tensor) -> None:
        """Note how many draws each row took; rows are copy after copy of the samples, as `branch` makes them."""
        if self.draws_used is not None:
            self.draws_used.add_(numbers.cpu().view(-1, len(self.draws_used)).sum(0))

    def private_keys(self, owner: str) -> Keys:
        """Keys for an explainer's own random numbers: `keys` have already drawn the noise on its input."""
        return fold_in(self.keys, zlib.crc32(owner.encode()))

    def model_seed(self, number: int) -> int:
        """The seed of the weight draw of this number."""
        return fold_in_int(self.seed, number)

    def model_draw(self, number: int) -> "Context":
        """The context under the weight draw of this number: fresh noise, shared by all samples and by each."""
        return replace(self, seed=self.model_seed(number), keys=fold_in(self.keys, number), index=None)


class Explainer(ABC):
    """An attribution method. Concrete explainers are frozen dataclasses; variation is by wrapping.

    Calling one explains a batch and leaves everything as it was: parameters, buffers, training modes, gradients,
    hooks, inputs and the random states, also when an exception is raised (`state.explaining` tells what that covers).
    The model is explained in evaluation mode, and uncompiled where it is compiled; random numbers that its forward
    pass draws are the same for the same call. Attributions have the shape and the device of the inputs and carry no
    graph.

    Example:
        >>> import torch
        >>> from dataclasses import dataclass
        >>> import lightning_xai as lx
        >>> @dataclass(frozen=True)
        ... class SquaredGradient(lx.explainers.Explainer):
        ...     def attribute(self, model, inputs, target, context):
        ...         return lx.Gradient().attribute(model, inputs, target, context).square()
        >>> lx.explain(torch.nn.Tanh(), torch.zeros(1, 2), target=0, method=SquaredGradient())
        tensor([[1., 0.]])
    """

    def __call__(
        self,
        model: nn.Module,
        inputs: Inputs,
        target: Targets | int | None = None,
        context: Context | None = None,
        *,
        bounds: tuple[Bound, Bound] | None = None,
        seed: int | None = None,
        index: Labels | None = None,
        output: Output | str | None = None,
    ) -> Inputs:
        """Attributions of `inputs` for the output `target`.

        Args:
            model: Maps (batch, ...) to logits (batch, classes), or to what `output` is of.
            inputs: (batch, ...), floating-point.
            target: Class indices to explain, one for all or one a sample; None explains the class that the model
                predicts for the unperturbed input.
            context: Sample keys and bounds, where the caller has them; made of the arguments below otherwise.
            bounds: (low, high) of the input elements, as in `lightning_xai.explain`; None if unknown.
            seed: Seed of the noise; None for 0.
            index: Sample indices, on which the noise depends; None for 0, 1, ...
            output: What is explained; None for the target's logit.

        Raises:
            TypeError: if an argument is of another type.
            ValueError: if `inputs` are no batch, or not finite; if `target` or `context` do not fit; if a context is
                given and one of the arguments that make one; if the outputs are no logits, or have no gradient.
        """
        given = {"bounds": bounds, "seed": seed, "index": index, "output": output}
        return self._explain(self.attribute, model, inputs, target, context, **given)

    @abstractmethod
    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        """The attributions; called with checked arguments, gradients enabled and the model in evaluation mode.

        Explainers that wrap another one call its `attribute`.
        """

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        """Elementwise standard deviation of the input noise that the explainer adds; None if it adds none."""
        return None

    def _explain(
        self,
        function: Callable[[nn.Module, Inputs, Labels, Context], T],
        model: nn.Module,
        inputs: Inputs,
        target: Targets | int | None,
        context: Context | None,
        **given: Any,
    ) -> T:
        check_model(model)
        check_inputs(inputs)
        context = context_of(inputs, context, **given)
        with explaining(model, context.seed), naming_inference_tensors():
            inputs = inputs.detach().clone()
            target = resolve_target(model, inputs, target, context.max_rows, context.output)
            return function(model, inputs, target, context)


def context_of(
    inputs: Inputs,
    context: Context | None,
    bounds: tuple[Bound, Bound] | None = None,
    seed: int | None = None,
    index: Labels | None = None,
    output: Output | str | None = None,
) -> Context:
    """The context given, or the one that the other arguments make."""
    made = context is None
    if context is None:
        check_in_bounds(inputs, bounds)
        index = torch.arange(len(inputs)) if index is None else index
        seed, output = 0 if seed is None else seed, Logit() if output is None else output
        context = Context.create(index, seed, bounds, None, inputs.device, inputs.dtype, inputs.ndim, output)
    elif any(value is not None for value in (bounds, seed, index, output)):
        raise ValueError(
            "`context` has bounds, seed, indices and output already: give either it or `bounds`, `seed`, `index`, "
            "`output`."
        )
    if not isinstance(context, Context):
        raise TypeError(f"`context` must be a Context, such as Context.create(index, seed), got {context!r:.100}.")
    if len(context.keys) != len(inputs):
        name = "index" if made else "context"
        raise ValueError(f"`{name}` is of {len(context.keys)} samples, but `inputs` has {len(inputs)}.")
    return context


def check_model(model: nn.Module) -> None:
    """Refuse what is no network: a function, None."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"`model` must be a torch.nn.Module from a batch to logits, got {model!r:.100}; wrap a function in a "
            "module whose forward calls it."
        )


def check_index(index: Labels) -> None:
    """Refuse sample indices that are not (batch,) int64."""
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        raise TypeError(
            f"`index` must be an int64 tensor of sample indices, got {_kind(index)}; "
            "torch.tensor(..., dtype=torch.int64) makes one."
        )
    if index.ndim != 1:
        raise ValueError(f"`index` must have one entry for each sample, one axis, got shape {tuple(index.shape)}.")


def check_inputs(inputs: Tensor, values: bool = True, index: Labels | None = None) -> None:
    """Refuse what cannot be explained: no samples, integers, NaN or infinity.

    Args:
        inputs: A batch.
        values: Whether to look at its values, which waits for an accelerator; every explainer does by itself.
        index: Indices of the samples, which bad ones are named by; None for their numbers in the batch.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(
            f"`inputs` must be a floating-point tensor, got {_kind(inputs)}; convert it, "
            "torch.as_tensor(inputs, dtype=torch.float32), and normalize it as in training. Text is explained at its "
            'embeddings, which the network has to take: `Forward(explained="inputs_embeds")`.'
        )
    if inputs.ndim < 2 or not inputs.numel():
        raise ValueError(f"`inputs` must be a batch of at least one sample, got shape {tuple(inputs.shape)}.")
    if values and not inputs.isfinite().all():
        bad = (~inputs.isfinite().flatten(1).all(1)).nonzero().flatten().cpu()
        named = _few((bad if index is None else index.cpu()[bad]).tolist())
        raise ValueError(f"`inputs` must be finite, but has NaN or infinite values in samples {named}.")


def resolve_target(
    model: nn.Module,
    inputs: Inputs,
    target: Targets | int | None,
    max_rows: int | None = None,
    output: Output = Logit(),
) -> Labels:
    """Class indices (batch,) on the device of the inputs; None becomes the class that the model predicts.

    A copy, because tensors made in `torch.inference_mode` cannot take part in a backward pass.
    """
    if target is None:
        with torch.no_grad():
            return in_chunks(
                lambda rows: output.prediction(check_rows(model(rows), len(rows))), model, max_rows, inputs
            )
    try:
        target = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`target` must hold class indices (integers), got {target!r:.100}.") from error
    target = binary_labels(target) if target.ndim else target
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"`target` must hold class indices (integers), or labels 0.0 and 1.0, got {target.dtype}.")
    if target.ndim == 0:
        target = target.expand(len(inputs))
    target = target.flatten() if target.shape == (len(inputs), 1) else target
    if target.shape != (len(inputs),):
        raise ValueError(
            f"`target` must be one class index, or one for each of the {len(inputs)} samples, "
            f"got shape {tuple(target.shape)}."
        )
    target = target.to(torch.int64, copy=True)
    if inputs.device.type != "cpu":  # here once: a wrong index would be an error of the GPU, after which nothing runs
        with torch.no_grad():
            rows = probe_rows(model, inputs, max_rows)
            output.check(check_rows(model(rows), len(rows)), target)
    return sent(target, inputs.device)


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f", ... ({len(numbers)} in all)" if len(numbers) > 5 else "")
