"""The least and the greatest value of an input element: read, compared with samples, computed from a normalization."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_xai.functional.bounds import IN_BOUNDS, bound_tolerance
from lightning_xai.functional.devices import sent
from lightning_xai.shapes import Inputs

Bound = int | float | np.number | Sequence[float] | np.ndarray | Tensor

_Numbers = int | float | np.number | Sequence | np.ndarray | Tensor
"""`Bound` as `isinstance` takes it."""

_MOVES_PIXELS = {
    *("CenterCrop", "RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip"),
    *("ConvertImageDtype", "ToDtype", "ToPureTensor", "Identity"),
}
"""Names of transforms that leave the values of normalized images what they are."""


def parse_bounds(
    bounds: tuple[Bound, Bound] | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ndim: int = 4,
) -> tuple[Tensor, Tensor] | None:
    """(low, high) as tensors; numbers in a row, one a channel, become (channel, 1, ...). None stays None.

    So do tensors (channel, 1, 1), which `bounds` makes. The features of a table are its channels.

    Args:
        bounds: Least and greatest value, each a number, one number a channel, or a tensor.
        device: Device of the tensors.
        dtype: Type of the inputs. The tensors have it too, or float32 where that is wider.
        ndim: Number of axes of the inputs; 4 for images.

    Raises:
        TypeError: if a bound is no number.
        ValueError: if a bound is not finite, or one is not below the other.
    """
    if bounds is None:
        return None
    try:
        low, high = bounds
    except (TypeError, ValueError) as error:
        got = f"{len(bounds)} values" if hasattr(bounds, "__len__") else repr(bounds)
        raise ValueError(f"`bounds` must be (low, high), got {got}.") from error
    dtype = torch.promote_types(dtype, torch.float32)
    low, high = _numbers("bounds", low, dtype), _numbers("bounds", high, dtype)
    low, high = (_of_channels(bound, ndim) for bound in (low, high))
    if _common_shape(low, high) is None:
        raise ValueError(
            f"`bounds` must be of shapes that broadcast, got {tuple(low.shape)} for low, {tuple(high.shape)} for high."
        )
    if not (high - low).isfinite().all():  # nor is it where a bound is not
        raise ValueError(
            f"`bounds` must be finite, and so must the range between them, in {_name(dtype)}; "
            f"got {_said(low, high)}. Data without a bound have no range: leave `bounds` out, and with it the methods "
            "that need them."
        )
    if not (low < high).all():
        raise ValueError(f"`bounds` must have low < high everywhere, got {_said(low, high)}.")
    return sent(low, device), sent(high, device)


def check_in_bounds(inputs: Inputs, bounds: tuple[Bound, Bound] | None) -> None:
    """Refuse samples with values outside of the bounds, and bounds that do not belong to samples like these.

    Outside is what is further from the range than 1e-4 of it, or than four roundings of the bound in the type of the
    inputs. For the samples that somebody hands in; inputs that an explainer or a metric perturbs may leave the range.

    Args:
        inputs: (batch, ...), floating-point.
        bounds: As in `parse_bounds`; None admits everything.

    Raises:
        ValueError: with the range that the inputs have, and what to do.
    """
    parsed = parse_bounds(bounds, "cpu", inputs.dtype, inputs.ndim)
    if parsed is None or not len(inputs):
        return
    check_bound_shapes(*parsed, inputs)
    low, high = torch.broadcast_tensors(*parsed, torch.empty((1,) * inputs.ndim, device="cpu"))[:2]
    _check_resolved(low, high, inputs.dtype)
    low, high = sent(low, inputs.device), sent(high, inputs.device)
    least, most = _reduced(inputs, low, torch.amin), _reduced(inputs, low, torch.amax)
    if inputs.device.type == "cpu" and (low <= least).all() and (most <= high).all():
        return
    tolerance = bound_tolerance(low, high, inputs.dtype, IN_BOUNDS)
    excess = (torch.maximum(low - least, most - high) - tolerance).flatten()
    if not (excess > 0).any():
        return
    worst = int(excess.argmax())
    seen = [f"{float(value.flatten()[worst]):.6g}" for value in (least, most, low, high)]
    raise ValueError(
        f"`bounds` must hold the inputs, but{_place(worst, low)} these have values from {seen[0]} to {seen[1]}, and "
        f"the bounds are {seen[2]} and {seen[3]}. Bounds are in the space of the inputs, after normalization: for "
        "images in [0, 1] that were normalized, give `bounds=lightning_xai.bounds(mean, std)`; for other data their "
        "least and greatest possible value."
    )


def check_bound_shapes(low: Tensor, high: Tensor, inputs: Inputs) -> None:
    """Refuse bounds that do not broadcast against a sample."""
    for bound in (low, high):
        if _common_shape(bound, inputs[:1]) != inputs[:1].shape:
            raise ValueError(
                f"`bounds` must broadcast against a sample, of shape {tuple(inputs.shape[1:])}, "
                f"got shape {tuple(bound.shape)}."
            )


def bounds(mean: Any, std: Bound | None = None) -> tuple[Tensor, Tensor]:
    """Black and white after normalization: the `bounds` of images in [0, 1] that became (image - mean) / std.

    In float32 and in the order of torchvision's `Normalize`, so that they equal its black and white pixels bit for bit.

    Args:
        mean: One number, or one a channel, on the scale 0..1. Or what holds mean and deviation: a `Normalize` of
            torchvision; a `Compose` or an `nn.Sequential` with one in it; what `weights.transforms()` of torchvision's
            classifiers gives; timm's data configuration, a dictionary with "mean" and "std".
        std: Standard deviation, like the mean; only with numbers.

    Returns:
        (low, high): (channel, 1, 1) each, or (), where mean and deviation are single numbers.

    Raises:
        TypeError: if `mean` is none of these.
        ValueError: if there is no normalization, or more than one; if a number is not finite, or a deviation not
            positive.

    Example:
        >>> import lightning_xai as lx
        >>> from torchvision.transforms import Normalize
        >>> low, high = lx.bounds(Normalize(mean=[0.5, 0.25, 0.0], std=[0.5, 0.25, 0.5]))
        >>> low.flatten(), high.flatten()
        (tensor([-1., -1.,  0.]), tensor([1., 3., 2.]))
    """
    if std is None:
        mean, std = _normalization(mean)
    elif not isinstance(mean, _Numbers):
        raise TypeError(
            f"`mean` must be a number, or one a channel, where `std` is given, got {type(mean).__name__}: "
            "leave `std` out if the mean's object knows it."
        )
    pair = []
    for name, value in (("mean", mean), ("std", std)):
        numbers = _numbers(name, value, torch.float32)
        numbers = numbers[:, None, None] if numbers.ndim == 1 else numbers
        if not numbers.isfinite().all() or (name == "std" and not (numbers > 0).all()):
            wanted = "finite and positive" if name == "std" else "finite"
            raise ValueError(f"`{name}` must be {wanted}, got {numbers.flatten().tolist()}.")
        pair.append(numbers)
    shape = _common_shape(*pair)
    if shape is None:
        counts = [numbers.numel() for numbers in pair]
        raise ValueError(f"`mean` and `std` must have one number a channel, got {counts[0]} and {counts[1]}.")
    if (pair[0] > 1).any():
        raise ValueError(
            f"`mean` must be on the scale 0..1 of the images, got {pair[0].flatten().tolist()}; for images in 0..255 "
            "give mean / 255 and std / 255."
        )
    black = pair[0].new_zeros(shape)
    low, high = (pixel.sub(pair[0]).div(pair[1]) for pixel in (black, black + 1))
    return low, high


def _normalization(preprocessing: Any) -> tuple[Any, Any]:
    """Mean and deviation of a preprocessing's only normalization."""
    if isinstance(preprocessing, Mapping):
        if not {"mean", "std"} <= set(preprocessing):
            raise ValueError(f'`mean`: a configuration must have "mean" and "std", got {list(preprocessing)}.')
        return preprocessing["mean"], preprocessing["std"]
    if isinstance(preprocessing, _Numbers):
        raise TypeError("`std` must be given with a `mean` of numbers: bounds(mean, std).")
    steps = list(_steps(preprocessing))
    places = [place for place, step in enumerate(steps) if _normalizes(step)]
    if len(places) != 1:
        names = ", ".join(type(step).__name__ for step in steps)
        raise (ValueError if places or len(steps) > 1 else TypeError)(
            f"`mean` must be numbers, or a preprocessing with one Normalize of torchvision; it has {len(places)} in "
            f"[{names}]. Give bounds(mean, std), the numbers by which black and white are normalized."
        )
    later = [type(step).__name__ for step in steps[places[0] + 1 :]]
    if unknown := [name for name in later if name not in _MOVES_PIXELS]:
        raise ValueError(
            f"`mean`: what comes after Normalize may change the values: {', '.join(unknown)}. If it does not, give "
            "bounds(mean, std); if it does, the values that black and white become."
        )
    return steps[places[0]].mean, steps[places[0]].std


def _steps(preprocessing: Any) -> Iterator[Any]:
    """The transforms one after the other, those of nested compositions in their place."""
    from torchvision.transforms import Compose, v2  # slow to import, and seldom needed

    if isinstance(preprocessing, Compose | v2.Compose | nn.Sequential):
        parts = preprocessing if isinstance(preprocessing, nn.Sequential) else preprocessing.transforms
        for part in parts:
            yield from _steps(part)
    else:
        yield preprocessing


def _normalizes(step: Any) -> bool:
    from torchvision.transforms import Normalize, v2
    from torchvision.transforms._presets import ImageClassification

    return isinstance(step, Normalize | v2.Normalize | ImageClassification)


def _numbers(name: str, value: Any, dtype: torch.dtype) -> Tensor:
    """On the CPU, without a graph; rounded once."""
    with suppress(TypeError, ValueError):  # rows of several lengths
        if _numeric(value):
            found = value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.array(value, dtype=np.float64))
            return found.to("cpu", dtype)
    raise TypeError(f"`{name}` must be numbers, one or one a channel, got {value!r:.100}.")


def _of_channels(bound: Tensor, ndim: int) -> Tensor:
    """One number a channel, whatever follows the channels in inputs with so many axes; other bounds as they are."""
    return bound.reshape(-1, *[1] * (ndim - 2)) if bound.ndim == 1 or bound.shape[1:] == (1, 1) else bound


def _numeric(value: Any) -> bool:
    """Whether all are numbers: neither strings, which NumPy would read, nor booleans, which are somebody's mistake."""
    if isinstance(value, Tensor):
        return value.dtype != torch.bool and not value.is_complex()
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "iuf"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return all(map(_numeric, value))
    return isinstance(value, Real) and not isinstance(value, bool)


def _said(low: Tensor, high: Tensor) -> str:
    return ", ".join(f"{name}={bound.tolist()!s:.80}" for name, bound in {"low": low, "high": high}.items())


def _check_resolved(low: Tensor, high: Tensor, dtype: torch.dtype) -> None:
    """Refuse a range that is nothing but roundings of its bounds, where every value would be on one."""
    resolved = 2 * bound_tolerance(low, high, dtype) < high - low
    if dtype != low.dtype:
        resolved &= low.to(dtype).isfinite() & high.to(dtype).isfinite()
    if not resolved.all():
        raise ValueError(
            f"`bounds` must be told apart in {_name(dtype)}, the type of the inputs, but the range from "
            f"{float(low.min()):.6g} to {float(high.max()):.6g} is too narrow, or too great, for it: take inputs of a "
            "wider type, or shift and scale them."
        )


def _reduced(values: Tensor, like: Tensor, function: Any) -> Tensor:
    """Of the batch, over the axes that share a bound."""
    return function(values, [axis for axis, size in enumerate(like.shape) if size == 1], keepdim=True).to(like.dtype)


def _place(worst: int, bound: Tensor) -> str:
    """Which of the bounds, in words; nothing if there is one for all."""
    if bound.numel() == 1:
        return ""
    if bound.numel() == bound.shape[1]:
        return f" in channel {worst}"
    return f" at {tuple(int(axis) for axis in np.unravel_index(worst, tuple(bound.shape[1:])))}"


def _common_shape(*tensors: Tensor) -> tuple[int, ...] | None:
    """That tensors broadcast to; None if they do not."""
    try:
        return np.broadcast_shapes(*(tensor.shape for tensor in tensors))  # PyTorch's takes ten times as long
    except ValueError:
        return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
