"""Input invariance (Kindermans et al. 2017): two models that compute the same should be explained alike.

The twin g of a model f has g(x + shift) = f(x): it takes a constant off its input, which may be the black level of the
camera or how the data were normalized. An explanation that changes with it depends on the twin's way to say the same.
Passing is necessary, not sufficient: maps that do not look at the model pass too (the edges of an image that is shifted
by one constant, random numbers).

Methods whose noise is on the weights compare neighbors of the two models, and these are not twins of each other where
the shift is in a bias: W ∘ η takes (W ∘ η) m from the input, and the noisy bias gives back (W m) ∘ η'. NoiseGrad
passes exactly with `compensation="input"`, and fails with "bias" the more, the stronger noise and shift are.

SmoothGrad's noise by the range of each image stays the same under one constant alone: a shift that differs between
channels or pixels changes the range.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_xai.explainers.base import (
    Bound,
    Context,
    Explainer,
    check_choice,
    check_inputs,
    explaining,
    resolve_target,
)
from lightning_xai.explainers.bounds import check_in_bounds
from lightning_xai.explainers.precomputed import refuse_precomputed
from lightning_xai.outputs import Logit, Output
from lightning_xai.sanity.blocks import copy_model
from lightning_xai.sanity.randomization import logits_of
from lightning_xai.sanity.similarity import Similarity, compare, cosine, spearman
from lightning_xai.shapes import Images, Inputs, Labels, Scores, Targets

Compensation = Literal["auto", "bias", "input"]

RELATIVE_DIFFERENCE = "relative_difference"
"""Name of the score that `invariance_scores` adds to the similarities."""

_SIMILARITIES: Mapping[str, Similarity] = MappingProxyType({"spearman": spearman, "cosine": cosine})
_TRACED_ROWS = 4


class InexactTwinError(ValueError):
    """A model and its twin differ by more than rounding."""


def shifted_twin(
    model: nn.Module, shift: Tensor | float, inputs: Inputs, compensation: Compensation = "auto"
) -> nn.Module:
    """A copy g of the model f with g(x + shift) = f(x), to rounding; the model stays as it is.

    With "bias" the layer that sees the input first gets b - W m, m being what the shift is there, computed in float64.
    The layer is the first `nn.Linear` or convolution that runs; before it only affine operations may be (flattening,
    scaling, dropout, which is off). It works where the shift reaches all outputs that share a bias alike: in dense
    layers always, in convolutions for one constant a channel and without zero padding. With "input" the shift is taken
    off before the network sees the input, which is exact for any network. "auto" is "bias" where that is exact,
    else "input". `twin.shift_compensation` says which it was. The twin's modules and parameters have the
    names of the model's; one that compensates in the input cannot be pickled.

    Args:
        model: What to copy.
        shift: A number, or a tensor that broadcasts against a sample.
        inputs: Samples that the model takes; the layer is found, and the twin compared with the model, on them.
        compensation: See above.

    Raises:
        InexactTwinError: (a ValueError) if the twin is not exact; with "bias" it says why.

    Source: Kindermans et al. 2017, arXiv 1711.00867.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_xai.sanity import shifted_twin
        >>> model, inputs = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.rand(3, 4)
        >>> twin = shifted_twin(model, 0.5, inputs)
        >>> twin.shift_compensation, torch.allclose(twin(inputs + 0.5), model(inputs), atol=1e-5)
        ('bias', True)
    """
    check_choice("compensation", compensation, Compensation)
    check_inputs(inputs)
    with torch.inference_mode(False), torch.no_grad():  # tensors made in inference mode could not be explained
        inputs = inputs.detach().clone()
        shift = _parse_shift(shift, inputs)
        if compensation != "input":
            try:
                return _bias_twin(model, shift, inputs)
            except InexactTwinError:
                if compensation == "bias":
                    raise
        return _input_twin(model, shift, inputs)


def check_twin(
    model: nn.Module, twin: nn.Module, inputs: Inputs, shift: Tensor | float, tolerance: float | None = None
) -> float:
    """The greatest difference between the logits f(x) and g(x + shift), relative to the greatest logit.

    Args:
        tolerance: What is allowed; None for the root of the inputs' machine precision, 0.00035 for float32.

    Raises:
        InexactTwinError: if the difference is greater.
    """
    check_inputs(inputs)
    shift = _parse_shift(shift, inputs)
    tolerance = _rounding(inputs) if tolerance is None else tolerance
    expected, found = (logits_of(m, x).double() for m, x in ((model, inputs), (twin, inputs + shift)))
    difference = (found - expected).abs().masked_fill(found == expected, 0).max()  # infinite ones may be equal too
    error = float(difference / expected.abs()[expected.isfinite()].max()) if difference != 0 else 0.0
    if not error <= tolerance:
        raise InexactTwinError(
            f"`twin` must give at `inputs` + `shift` the logits of `model` at `inputs`, but they differ by {error:.3g} "
            f"of the greatest (`tolerance` is {tolerance:.3g}). If the input reaches the network other than through "
            'its first layer, take `compensation="input"`; if the shift is far greater than the inputs, take a smaller '
            "one, or a model and inputs in float64."
        )
    return error


def invariance_scores(
    model: nn.Module,
    twin: nn.Module,
    shift: Tensor | float,
    images: Images,
    target: Targets | int | None,
    method: Explainer,
    bounds: tuple[Bound, Bound] | None = None,
    *,
    move_bounds: bool = True,
    similarities: Mapping[str, Similarity] = _SIMILARITIES,
    foreground: Tensor | None = None,
    index: Labels | None = None,
    seed: int = 0,
    max_rows: int | None = None,
) -> dict[str, Scores]:
    """How alike the maps of a model and of its twin are: the similarities, and their `relative_difference`.

    A correlation of ranks can be below 1 though nothing but rounding differs: it parts values that were equal, such as
    those of a background without evidence (0.975 for the edges of an MNIST digit).

    Args:
        similarities, foreground: As in `similarity.compare`.
        model, twin, shift, images, target, method, bounds, move_bounds, index, seed, max_rows: As in `invariance_maps`.

    Returns:
        Scores (batch,) by name. 1 of a similarity, and 0 of the difference, are what invariance asks for.

    Source: Kindermans et al. 2017, arXiv 1711.00867.

    Raises:
        ValueError: if the shift does not broadcast against an image, images lie outside of the bounds, or the method
            has maps made elsewhere.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import lightning_xai as lx
        >>> from lightning_xai.sanity import invariance_scores, shifted_twin
        >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(2, 1, 8, 8)
        >>> twin = shifted_twin(model, 1.0, images)
        >>> invariance_scores(model, twin, 1.0, images, 0, lx.Gradient())["relative_difference"]
        tensor([0., 0.])
    """
    options: dict[str, Any] = {"move_bounds": move_bounds, "index": index, "seed": seed, "max_rows": max_rows}
    maps = invariance_maps(model, twin, shift, images, target, method, bounds, **options)
    return {**compare(*maps, similarities, foreground), RELATIVE_DIFFERENCE: relative_difference(*maps)}


def invariance_maps(
    model: nn.Module,
    twin: nn.Module,
    shift: Tensor | float,
    images: Inputs,
    target: Targets | int | None,
    method: Explainer,
    bounds: tuple[Bound, Bound] | None = None,
    *,
    move_bounds: bool = True,
    index: Labels | None = None,
    seed: int = 0,
    max_rows: int | None = None,
    output: Output = Logit(),
) -> tuple[Inputs, Inputs]:
    """Attributions of the model at the images and of its twin at the shifted ones, of the same class, with equal noise.

    Args:
        twin: What `shifted_twin` makes, with this shift.
        target: As in `explain`; None for the class that `model` predicts.
        bounds: As in `explain`, of the images before the shift.
        move_bounds: Whether the bounds move with the data. If not, the twin's inputs may lie outside of them.
        index, seed, max_rows, output: As in `explain`.
    """
    refuse_precomputed({"method": method}, "invariance is that of the maps of two networks")
    check_inputs(images)
    check_in_bounds(images, bounds)
    shift = _parse_shift(shift, images)
    index = torch.arange(len(images)) if index is None else index.cpu()
    context = Context.create(index, seed, bounds, max_rows, images.device, images.dtype, images.ndim, output)
    with explaining(model):
        target = resolve_target(model, images, target, max_rows, output)
    moved = shifted_context(context, shift) if move_bounds else context
    return method(model, images, target, context), method(twin, images + shift, target, moved)


def shifted_context(context: Context, shift: Tensor) -> Context:
    """The context of shifted inputs: the same noise, the bounds moved.

    Args:
        shift: In the type of the inputs, so that what lies on a bound still does.
    """
    if context.bounds is None:
        return context
    low, high = (bound.to(shift) + shift for bound in context.bounds)
    return replace(context, bounds=(low, high))


def relative_difference(first: Tensor, second: Tensor) -> Scores:
    """‖second - first‖ / ‖first‖, over all elements of a sample, in float64.

    Unlike a correlation it sees a change of scale. NaN where `first` is zero or a value is not finite.
    """
    x, y = (attributions.detach().flatten(1).cpu().double() for attributions in (first, second))
    ratio = (y - x).norm(dim=1) / x.norm(dim=1)
    return torch.where(ratio.isfinite(), ratio, torch.nan).float()


# Twins


class _UndoingShift:
    """Mixed into the class of a model (as `torch.nn.utils.parametrize` does), so that all names stay what they are."""

    undone_shift: Tensor

    def forward(self, inputs: Inputs, *args: Any, **kwargs: Any) -> Any:
        return super().forward(inputs - self.undone_shift, *args, **kwargs)  # type: ignore[misc]


def _input_twin(model: nn.Module, shift: Tensor, inputs: Inputs) -> nn.Module:
    twin = copy_model(model)
    twin.register_buffer("undone_shift", shift, persistent=False)
    twin.__class__ = type(f"Shifted{type(twin).__name__}", (_UndoingShift, type(twin)), {})
    return _checked(model, twin, inputs, shift, "input")


def _bias_twin(model: nn.Module, shift: Tensor, inputs: Inputs) -> nn.Module:
    twin = copy_model(model)
    # Pairs of a row and the shifted row; of the first pair, zero and the shift, the difference has no rounding error.
    rows = torch.cat([torch.zeros_like(inputs[:1]), inputs[:_TRACED_ROWS]])
    layer, name, seen = _first_layer(twin, torch.stack([rows, rows + shift], 1).flatten(0, 1))
    if layer.bias is None:
        raise InexactTwinError(f'Layer {name!r} of `model` has no bias; take `compensation="input"`.')
    layer.bias.copy_(layer.bias.double() - _offset(layer, name, seen, 2 * len(rows)))
    return _checked(model, twin, inputs, shift, "bias")


def _checked(model: nn.Module, twin: nn.Module, inputs: Inputs, shift: Tensor, how: str) -> nn.Module:
    check_twin(model, twin, inputs, shift)
    twin.shift_compensation = how  # type: ignore[assignment]
    return twin


def _first_layer(model: nn.Module, rows: Inputs) -> tuple[nn.Linear | _ConvNd, str, Tensor]:
    """The first dense or convolutional layer that runs, its name, and what it sees, in float64."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear | _ConvNd)}
    found: list[tuple[Any, Tensor]] = []

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not found and arguments:
            found.append((module, arguments[0].to(torch.float64, copy=True)))

    handles = [module.register_forward_pre_hook(note) for module in names]
    try:
        with explaining(model), torch.no_grad():
            model(rows)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InexactTwinError('`model` runs no nn.Linear and no convolution; take `compensation="input"`.')
    ((layer, seen),) = found
    return layer, names[layer], seen


def _offset(layer: nn.Linear | _ConvNd, name: str, seen: Tensor, rows: int) -> Float64[Tensor, " channel"]:
    """What the shift adds to each output channel of the layer; refused where it is not the same for all that share it.

    Args:
        seen: What the layer sees of (row, row + shift) pairs, the first row being zero.
    """
    with torch.no_grad(), explaining(exact := deepcopy(layer).double()):
        exact.bias.detach().zero_()  # type: ignore[union-attr]  # beside it a small shift would be lost to rounding
        outputs = exact(seen)
    outputs = outputs if isinstance(layer, nn.Linear) else outputs.movedim(1, -1)
    if len(outputs) % rows:
        raise InexactTwinError(f'Layer {name!r} does not see the samples one by one; take `compensation="input"`.')
    values = outputs.reshape(rows, -1, outputs.shape[-1])
    steps = values[1::2] - values[::2]
    offset = steps[0].mean(0)
    spread, rounding = (steps - offset).abs(), _rounding(layer.weight)
    if spread[0].max() > rounding * steps[0].abs().max() or spread.max() > rounding * values.abs().max():
        raise InexactTwinError(
            f"Layer {name!r} of `model` has one bias for outputs that `shift` does not reach alike (zero padding, a "
            "shift that varies within a channel, or something before the layer that is not affine): "
            'take `compensation="input"`.'
        )
    return offset


def _parse_shift(shift: Tensor | float, inputs: Inputs) -> Tensor:
    """The shift in the type of the inputs, if it can be added to each of them."""
    shift = torch.as_tensor(shift, dtype=inputs.dtype, device=inputs.device).detach().clone()
    sample = inputs.shape[1:]
    padded = (1,) * (len(sample) - shift.ndim) + shift.shape
    if len(padded) > len(sample) or any(size not in (1, full) for size, full in zip(padded, sample, strict=True)):
        raise ValueError(
            f"`shift` must broadcast against a sample, of shape {tuple(sample)}, got {tuple(shift.shape)}."
        )
    if not shift.isfinite().all():
        raise ValueError("`shift` must be finite, but has NaN or infinite values.")
    return shift


def _rounding(like: Tensor) -> float:
    return torch.finfo(like.dtype).eps ** 0.5
