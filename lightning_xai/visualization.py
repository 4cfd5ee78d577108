"""Global explanations: images that a unit, a channel or a class answers to most (activation maximization).

The image is the sigmoid of a sum of waves with decorrelated colors, seen by the network through random rotations,
zooms and shifts (Erhan et al. 2009; Olah, Mordvintsev, Schubert, "Feature visualization", Distill 2017). NoiseGrad
(Bykov et al. 2022, arXiv 2106.10185, eq. 4) maximizes the mean answer of networks with noisy weights instead.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import affine_grid, grid_sample

from lightning_xai.explainers.base import (
    Bound,
    check_count,
    check_logits,
    check_number,
    check_whole_number,
    explaining,
    parse_bounds,
)
from lightning_xai.explainers.chunks import takes_whole_batches
from lightning_xai.explainers.smoothing import PerturbWeights
from lightning_xai.explainers.state import differentiable, one_pass, parameter_sites, swapped
from lightning_xai.functional.random import fold_in, fold_in_int, root_keys, standard_normal, uniform
from lightning_xai.progress import progress_bar
from lightning_xai.shapes import Images, Scores

Weights = Mapping[str, Tensor]
"""Parameters by name; with a leading axis for several networks."""
Spectrum = Float[Tensor, " batch channel height frequency 2"]
"""Real and imaginary parts of the coefficients of waves, as `torch.fft.rfft2` orders them."""

COLOR_VARIANCES = (0.2175, 0.0188, 0.0045)
COLOR_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""Eigenvalues and eigenvectors (columns) of the covariance of red, green and blue over ImageNet's training images:
the principal components of Krizhevsky et al. 2012, in the figures published with Facebook's fb.resnet.torch."""

_START, _JITTER = 1, 2  # streams of random numbers
_START_STD, _DOUBLINGS = 0.01, 11
_PASS_BYTES, _KEPT_BYTES = 2**24, 2**28
_MOST_NAMES = 40


@dataclass(frozen=True)
class Activation:
    """What is maximized: an image for each channel.

    Attributes:
        channels: Those of the layer's output; of the logits these are the classes.
        layer: Name of a module, or the end of one such name; None for the logits, before any softmax.
        center: Of an output with places (batch, channel, height, width) take the one in the middle, a unit, instead of
            the mean over all places.
    """

    channels: tuple[int, ...]
    layer: str | None = None
    center: bool = False

    def __post_init__(self) -> None:
        for channel in self.channels:
            check_whole_number("channels", channel)
        if not self.channels or min(self.channels) < 0:
            raise ValueError(f"`channels` must be one or more numbers from 0 on, got {self.channels}.")
        if self.center and self.layer is None:
            raise ValueError("`center` needs a `layer` whose output has places; logits have none.")

    def __call__(self, model: nn.Module, inputs: Images, weights: Weights | None = None) -> Scores:
        """Row i's activation of channel i.

        Args:
            model: Maps inputs to logits.
            inputs: One a channel, in the network's space.
            weights: Parameters that take the place of the model's.
        """
        with _outputs_of(model, self.layer) as outputs, swapped(parameter_sites(model), weights or {}):
            logits = model(inputs.to(_dtype(model)))  # images and their gradients stay in float32
        if self.layer is None:
            outputs.append(check_logits(logits, len(inputs)))
        if not outputs:
            raise ValueError(f"`layer`: {self.layer} takes no part when `model` is called.")
        values = self._placeless(outputs[-1])
        if max(self.channels) >= values.shape[1]:
            raise ValueError(
                f"`channels` must be in 0 .. {values.shape[1] - 1}, those of {self.layer or 'the logits'}; "
                f"got {max(self.channels)}."
            )
        return values[torch.arange(len(inputs)), torch.tensor(self.channels)].to(inputs.dtype)  # under autocast, too

    def _placeless(self, output: object) -> Float[Tensor, " batch channel"]:
        ndims = (4,) if self.center else (2, 4)
        if not isinstance(output, Tensor) or output.ndim not in ndims:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            places = "(batch, channel, height, width)" + ("" if self.center else " or (batch, channel)")
            raise ValueError(f"`layer`: the output of {self.layer} must be a tensor {places}, got {got}.")
        if self.center:
            return output[:, :, output.shape[2] // 2, output.shape[3] // 2]
        return output if output.ndim == 2 else output.mean((2, 3))


@dataclass(frozen=True)
class Jitter:
    """Random change of the view in each step, so that the image does not hang on single pixels.

    Attributes:
        degrees: Most rotation, to either side.
        scales: Least and most zoom.
        shift: Most displacement, relative to the image.

    Raises:
        ValueError: if `degrees` or `shift` is negative, or `scales` are not two rising numbers greater than 0.

    Example:
        >>> import torch
        >>> from lightning_xai.visualization import Jitter
        >>> images = torch.rand(2, 3, 8, 8)
        >>> still = Jitter(degrees=0.0, scales=(1.0, 1.0), shift=0.0)
        >>> torch.allclose(still(images, seed=0), images, atol=1e-5), torch.allclose(Jitter()(images, seed=0), images)
        (True, False)
    """

    degrees: float = 15.0
    scales: tuple[float, float] = (0.8, 1.2)
    shift: float = 0.05

    def __post_init__(self) -> None:
        if self.degrees < 0 or self.shift < 0 or not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(
                f"`degrees` and `shift` must be at least 0 and `scales` two rising numbers greater than 0, got {self}."
            )

    def __call__(self, images: Images, seed: int) -> Images:
        """All images in the same view, mirrored beyond their borders, interpolated linearly."""
        angle, zoom, right, down = uniform(root_keys(seed, torch.tensor([_JITTER])), (4,))[0].tolist()
        radians = math.radians(self.degrees * (2 * angle - 1))
        scale = self.scales[0] + (self.scales[1] - self.scales[0]) * zoom
        cos, sin = math.cos(radians) / scale, math.sin(radians) / scale
        moved = [2 * self.shift * (2 * part - 1) for part in (right, down)]  # coordinates go from -1 to 1
        ratio = images.shape[-2] / images.shape[-1]
        view = images.new_tensor([[cos, -sin * ratio, moved[0]], [sin / ratio, cos, moved[1]]])
        grid = affine_grid(view.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class Visualization:
    """What was found.

    Attributes:
        images: (batch, channel, height, width), pixels from 0 to 1.
        trace: (step, batch) activation in each step, the mean over the networks, under the view of that step.
    """

    images: Images
    trace: Float[Tensor, " step batch"]


def visualize(
    model: nn.Module,
    activation: Activation,
    image_shape: tuple[int, int, int],
    bounds: tuple[Bound, Bound],
    noise: PerturbWeights | None = None,
    redraw: bool = False,
    steps: int = 200,
    lr: float = 0.05,
    jitter: Jitter = Jitter(),
    models_per_pass: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Visualization:
    """Images that maximize an activation, one for each of its channels, each as it would be alone.

    Memory does not grow with the number of noisy networks. The model stays as it was.

    Args:
        model: Maps inputs to logits; it is looked at in evaluation mode.
        activation: What is maximized.
        image_shape: (channel, height, width) of an input.
        bounds: What black and white are in the network's space, as `Context.create` takes them.
        noise: NoiseGrad's networks, as many as it has draws, independent (the explainer in it plays no part); None for
            the model itself.
        redraw: New noisy networks in each step, instead of the same ones in all.
        steps: Number of Adam steps.
        lr: Learning rate of Adam. Coefficients of size 1 in all waves make an image of logits with variance 1.
        jitter: Random views.
        models_per_pass: Noisy networks that are computed at once, by `torch.vmap`; None for as many as weigh 16 MiB.
            A network that vmap does not admit is computed one by one.
        seed: Seed of start, views and weight noise; the noisy networks are those of `noise` as an explainer.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: if `steps` or `seed` is no whole number, or `lr` no number.
        ValueError: if `bounds` are missing, `steps` is less than 1, `noise` has other than independent draws, or the
            model has no such layer or channel; if an activation does not change with the image, or becomes NaN or
            infinite.

    Source: Bykov et al. 2022, arXiv 2106.10185, equation 4; the image as waves is that of Olah, Mordvintsev, Schubert,
    "Feature visualization", Distill 2017.

    Example:
        >>> import torch
        >>> from lightning_xai.visualization import Activation, visualize
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
        >>> found = visualize(model, Activation(channels=(0, 1)), (1, 8, 8), bounds=(0.0, 1.0), steps=20)
        >>> found.images.shape, found.trace[-1] > found.trace[0]
        (torch.Size([2, 1, 8, 8]), tensor([True, True]))
    """
    check_count("steps", steps)
    check_number("lr", lr)
    check_whole_number("seed", seed)
    _check_independent(noise)
    parameter = next(model.parameters(), torch.zeros(()))
    scale = _parsed(bounds, parameter.device)
    with explaining(model):
        networks = _Networks(model, noise, redraw, models_per_pass, seed)
        gray = to_inputs(torch.full((len(activation.channels), *image_shape), 0.5, device=parameter.device), scale)
        if len(gray) > 1:
            takes_whole_batches(model, gray.to(_dtype(model)))  # warns if images would depend on one another

        def rise(spectrum: Spectrum, step: int) -> tuple[Scores, Spectrum]:
            """Activations, and their gradient."""
            spectrum = spectrum.detach().requires_grad_()
            views = jitter(to_inputs(pixels(spectrum, image_shape), scale), fold_in_int(seed, step))
            values, gradient = networks.answer(activation, views.detach(), step)
            return values, torch.autograd.grad(views, spectrum, gradient)[0]

        spectrum = starting_spectrum(activation.channels, image_shape, seed).to(parameter.device)
        spectrum = _with_gradient(spectrum, lambda start: rise(start, 0)[1], activation)
        adam, trace = torch.optim.Adam([spectrum], lr, maximize=True), []
        for step in progress_bar("visualizing", steps, "step", progress, range(steps)):
            values, spectrum.grad = rise(spectrum, step)
            adam.step()
            trace.append(values)
        found = Visualization(pixels(spectrum, image_shape), torch.stack(trace))
    if not found.trace.isfinite().all():
        raise ValueError("`model`: the activation became NaN or infinite; take a smaller `std` of `noise` or `lr`.")
    return found


def _check_independent(noise: PerturbWeights | None) -> None:
    if noise is not None and noise.sampling != "independent":
        raise ValueError(f'`noise` must have `sampling="independent"` networks here, got "{noise.sampling}".')


def answers(
    model: nn.Module,
    activation: Activation,
    images: Images,
    bounds: tuple[Bound, Bound],
    noise: PerturbWeights | None = None,
    seed: int = 0,
) -> Float[Tensor, " model batch"]:
    """Activations of the finished images, by each noisy network, or by the model itself without noise.

    Args:
        model: See `visualize`, as for the other arguments.
        activation: With a channel for each image.
        images: Pixels from 0 to 1.
        bounds: Black and white in the network's space.
        noise: Noisy networks.
        seed: Seed of the noise; another one than that of the images gives networks that they were not made for.
    """
    _check_independent(noise)
    scale = _parsed(bounds, images.device)
    seeds = [] if noise is None else [fold_in_int(seed, number) for number in range(noise.num_draws)]
    drawn = [{}] if noise is None else (noise.noisy_weights(model, each) for each in seeds)
    with explaining(model), torch.no_grad():
        return torch.stack([activation(model, to_inputs(images, scale), weights) for weights in drawn])


def _parsed(bounds: tuple[Bound, Bound], device: torch.device) -> tuple[Tensor, Tensor]:
    parsed = parse_bounds(bounds, device)
    if parsed is None:
        raise ValueError("`bounds` must be (black, white) in the network's space, got None.")
    return parsed


# The image


def starting_spectrum(channels: Sequence[int], image_shape: tuple[int, int, int], seed: int) -> Spectrum:
    """Little noise around a gray image; that of a channel is the same in any company."""
    colors, height, width = image_shape
    keys = fold_in(root_keys(seed, torch.tensor(channels)), _START)
    return standard_normal(keys, (colors, height, width // 2 + 1, 2)) * _START_STD


def _with_gradient(spectrum: Spectrum, gradient: Callable[[Spectrum], Spectrum], activation: Activation) -> Spectrum:
    """The start, with twice the contrast, again and again, where the activation does not change with the image.

    At an even gray all ReLUs of a small network may be off.
    """
    for _ in range(_DOUBLINGS):
        still = (gradient(spectrum) == 0).flatten(1).all(1)
        if not still.any():
            return spectrum
        spectrum = torch.where(still[:, None, None, None, None], 2 * spectrum, spectrum)
    channels = [channel for channel, is_still in zip(activation.channels, still.tolist(), strict=True) if is_still]
    raise ValueError(
        f"`channels`: those of {activation.layer or 'the logits'} in {channels} do not change with the image where it "
        "starts; take another `seed`, or others."
    )


def pixels(spectrum: Spectrum, image_shape: tuple[int, int, int]) -> Images:
    """The sigmoid of the waves' sum, colors correlated as in photographs; between 0 and 1."""
    waves = waves_image(spectrum, image_shape)
    return (correlated_colors(waves) if image_shape[0] == 3 else waves).sigmoid()


def waves_image(spectrum: Spectrum, image_shape: tuple[int, int, int]) -> Images:
    """The sum of the waves, amplitudes falling as one over the frequency as in natural images."""
    _, height, width = image_shape
    amplitudes = wave_amplitudes(height, width).to(spectrum)
    return torch.fft.irfft2(torch.view_as_complex(spectrum) * amplitudes, s=(height, width), norm="ortho")


def wave_amplitudes(height: int, width: int) -> Float[Tensor, "height frequency"]:
    """One over the frequency, at least that of one wave across the image; root mean square 1 over the whole plane."""

    def falling(across: Tensor) -> Tensor:
        frequencies = (torch.fft.fftfreq(height)[:, None].square() + across.square()).sqrt()
        return 1 / frequencies.clamp(min=1 / max(height, width))

    return falling(torch.fft.rfftfreq(width)) / falling(torch.fft.fftfreq(width)).square().mean().sqrt()


def correlated_colors(images: Images) -> Images:
    """Three uncorrelated channels of variance 1 become red, green and blue with ImageNet's correlations.

    The first is brightness, nearly, and keeps its scale.
    """
    return torch.einsum("rc, bchw -> brhw", color_mixing().to(images), images)


def color_mixing() -> Float[Tensor, " 3 3"]:
    """Principal components as columns, each as long as its standard deviation, the longest 1."""
    variances = torch.tensor(COLOR_VARIANCES)
    return torch.tensor(COLOR_DIRECTIONS) * (variances / variances.max()).sqrt()


def to_inputs(images: Images, bounds: tuple[Tensor, Tensor]) -> Images:
    """Pixels from 0 to 1 in the network's space."""
    low, high = bounds
    return low + (high - low) * images


# The networks


@dataclass
class _Networks:
    """The model, or the noisy ones that take its place, in groups that are computed at once."""

    model: nn.Module
    noise: PerturbWeights | None
    redraw: bool
    models_per_pass: int | None
    seed: int

    def __post_init__(self) -> None:
        size = sum(p.numel() * p.element_size() for p in self.model.parameters())
        if self.models_per_pass is None:
            self.models_per_pass = max(1, _PASS_BYTES // max(1, size))
        check_count("models_per_pass", self.models_per_pass)
        self.sites = parameter_sites(self.model)
        self.number = 1 if self.noise is None else self.noise.num_draws
        self.kept = None if self.redraw or self.number * size > _KEPT_BYTES else list(self._groups(0))

    def answer(self, activation: Activation, inputs: Images, step: int) -> tuple[Scores, Images]:
        """Mean activation over the networks, and its gradient with respect to the inputs, added up group by group."""
        inputs.requires_grad_()
        values, gradient = torch.zeros(len(inputs), device=inputs.device), torch.zeros_like(inputs)
        for group in self._groups(step) if self.kept is None else self.kept:
            found = self._activations(activation, inputs, group) / self.number
            gradient += torch.autograd.grad(found.sum(), inputs)[0]
            values += found.detach()
        return values, gradient

    def _activations(self, activation: Activation, inputs: Images, group: Weights) -> Scores:
        """The sum over a group of networks."""
        if self.noise is None:
            return activation(self.model, inputs)
        if self.models_per_pass != 1:
            try:
                with one_pass(self.model, noted=False):
                    return vmap(lambda weights: activation(self.model, inputs, weights))(dict(group)).sum(0)
            except RuntimeError:  # it draws random numbers, or looks at values
                self.models_per_pass = 1
        members = range(len(next(iter(group.values()))))
        alone = [{name: part[k].detach() for name, part in group.items()} for k in members]
        with one_pass(self.model, noted=False):
            each = [activation(self.model, inputs, differentiable(self.sites, weights)) for weights in alone]
        return torch.stack(each).sum(0)

    def _groups(self, step: int) -> Iterator[Weights]:
        """Stacked parameters."""
        if self.noise is None:
            yield {}
            return
        first = step * self.number if self.redraw else 0
        for numbers in torch.arange(first, first + self.number).split(self.models_per_pass or 1):
            yield self._drawn(self.noise, numbers.tolist())

    def _drawn(self, noise: PerturbWeights, numbers: list[int]) -> Weights:
        drawn = [noise.noisy_weights(self.model, fold_in_int(self.seed, number)) for number in numbers]
        return {name: torch.stack([weights[name].detach() for weights in drawn]) for name in drawn[0]}


@contextmanager
def _outputs_of(model: nn.Module, layer: str | None) -> Iterator[list[object]]:
    """What the layer returns while it is called; nothing without a layer."""
    outputs: list[object] = []
    if layer is None:
        yield outputs
        return

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        outputs.append(output.clone() if isinstance(output, Tensor) else output)  # the next layer may work in place

    hook = find_layer(model, layer).register_forward_hook(keep)
    try:
        yield outputs
    finally:
        hook.remove()


def _dtype(model: nn.Module) -> torch.dtype:
    """The type of the inputs that the model takes: that of its first floating-point parameter."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module of this name, or the only one whose name ends with it.

    Raises:
        ValueError: if there is none, or several.
    """
    modules = dict(model.named_modules())
    found = [known for known in modules if known == name != ""] or [k for k in modules if k.endswith(f".{name}")]
    if len(found) == 1:
        return modules[found[0]]
    if found:
        raise ValueError(f"`layer`: {name!r} may be any of {', '.join(found)}; give more of the name.")
    leaves = [known for known, module in modules.items() if known and not list(module.children())]
    some = ", ".join(leaves[:_MOST_NAMES]) + (f", ... ({len(leaves)} in all)" if len(leaves) > _MOST_NAMES else "")
    raise ValueError(f"`layer`: {name!r} is no layer of `model`; it has {some or 'none'}.")
