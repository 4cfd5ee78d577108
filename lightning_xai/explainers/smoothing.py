"""The smoothing engine: averages of an explainer over noisy inputs or noisy weights."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lightning_xai.explainers.base import Context, Explainer, check_choice, check_count
from lightning_xai.explainers.chunks import groups
from lightning_xai.explainers.gradient import Gradient, Saliency
from lightning_xai.explainers.scales import InputScale, RangeScale
from lightning_xai.functional.moments import Moments
from lightning_xai.functional.random import root_keys, standard_normal
from lightning_xai.shapes import Inputs, Keys, Labels

Statistic = Literal["mean", "variance", "mean_square"]
WeightNoise = Literal["multiplicative", "additive"]
_Places = dict[str, tuple[int, Tensor]]
"""Parameters by name, each with its place among all of the model's."""


class Averaging(Explainer):
    """A statistic of an explainer over random draws, streamed: memory does not grow with the number of draws.

    Concrete classes are dataclasses with these attributes:

    Attributes:
        num_draws: Number of draws. With a `tolerance`: how many are made before each look at the error.
        statistic: Which moment over the draws is the attribution.
        antithetic: Draw noise in pairs, e and -e. Each draw by itself is distributed as without, but what is odd in the
            noise cancels, so that fewer draws have the same error. `num_draws` must be even.
        tolerance: Go on until a sample's relative standard error, ‖standard error‖ / ‖mean‖ over the elements of its
            map, is at most this; a sample that is there leaves the batch. None for a fixed number of draws.
        max_draws: Most draws with a tolerance.
    """

    explainer: Explainer
    num_draws: int
    statistic: Statistic
    antithetic: bool
    tolerance: float | None
    max_draws: int

    def __post_init__(self) -> None:
        check_count("num_draws", self.num_draws)
        check_choice("statistic", self.statistic, Statistic)
        if self.antithetic and self.num_draws % 2:
            raise ValueError(f"`num_draws` must be even for antithetic pairs, got {self.num_draws}.")
        if self.tolerance is not None:
            self._check_tolerance(self.tolerance)

    def moments(
        self,
        model: nn.Module,
        inputs: Inputs,
        target: Labels | int | None = None,
        context: Context | None = None,
    ) -> Moments:
        """Over the draws: `mean`, `variance` (an uncertainty map), `standard_error` of the mean, and more."""
        return self._explain(self._moments, model, inputs, target, context)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        if self.statistic != "mean" or self.tolerance is not None:
            return getattr(self._moments(model, inputs, target, context), self.statistic)
        total, count = torch.zeros_like(inputs), 0
        for block in self.draws(model, inputs, target, context):  # the mean alone costs less than all moments
            total, count = total + block.sum(0), count + len(block)
        return total / count

    @abstractmethod
    def draws(
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context, numbers: range | None = None
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        """The attributions under the draws with these numbers, in blocks; antithetic pairs are in the same block.

        Args:
            numbers: By default all, 0 .. num_draws - 1.
        """

    def _moments(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Moments:
        if self.tolerance is not None:
            return self._until_tolerated(self.tolerance, model, inputs, target, context)
        moments = self._no_moments()
        for block in self.draws(model, inputs, target, context):
            moments.add(block)
        return moments

    def _until_tolerated(
        self, tolerance: float, model: nn.Module, inputs: Inputs, target: Labels, context: Context
    ) -> Moments:
        """Moments of each sample over as many draws as it needs, whatever the other samples need."""
        rows, moments, done = torch.arange(len(inputs)), self._no_moments(), list[tuple[Tensor, Moments]]()
        asked, context = context, replace(context, draws_used=None)
        for start in range(0, self.max_draws, self.num_draws):
            numbers = range(start, min(start + self.num_draws, self.max_draws))
            for block in self.draws(model, inputs, target, context, numbers):
                moments.add(block)
            stop = (moments.relative_error <= tolerance) | (numbers.stop == self.max_draws)
            done.append((rows[stop.cpu()], moments.select(stop)))
            go_on = (~stop).nonzero().flatten()
            if not len(go_on):
                break
            rows, moments = rows[go_on.cpu()], moments.select(go_on)
            inputs, target, context = inputs[go_on], target[go_on], context.select(go_on.cpu())
        order = torch.cat([where for where, _ in done]).argsort()
        finished = Moments.join([part for _, part in done]).select(order)
        asked.count_draws(finished.count.flatten())  # type: ignore[union-attr]  # joined: a tensor
        return finished

    def _no_moments(self) -> Moments:
        return Moments(group=2 if self.antithetic else 1)

    def _check_tolerance(self, tolerance: float) -> None:
        if not 0 < tolerance < float("inf"):
            raise ValueError(f"`tolerance` must be positive and finite, or None; got {tolerance}.")
        if self.statistic != "mean":
            raise ValueError(f'`tolerance` is of the mean over the draws, but `statistic` is "{self.statistic}".')
        if self.max_draws < self.num_draws or (self.antithetic and self.max_draws % 2):
            even = ", and even for antithetic pairs" if self.antithetic else ""
            raise ValueError(f"`max_draws` must be at least `num_draws`={self.num_draws}{even}; got {self.max_draws}.")
        inner: Any = self.explainer
        while inner is not None:
            if getattr(inner, "tolerance", None) is not None:
                raise ValueError(
                    "`tolerance` cannot stand inside an explainer that has one: give the inner one a fixed `num_draws`."
                )
            inner = getattr(inner, "explainer", getattr(inner, "gradient", None))


@dataclass(frozen=True)
class Smooth(Averaging):
    """Average of an explainer over inputs with Gaussian noise, x + e with e ~ N(0, std²) elementwise.

    SmoothGrad (Smilkov et al. 2017) with a `RangeScale`, AdaptGrad (Zhou et al. 2024) with an `InRangeScale`; with
    `statistic="variance"` VarGrad, with `"mean_square"` SmoothGrad-squared. The clean input is not one of the draws
    unless `include_clean` says so.

    Attributes:
        explainer: What is averaged, signed or not as it comes.
        scale: The noise's standard deviation.
        num_draws: Number of noisy inputs; see `Averaging` for `statistic`, `antithetic`, `tolerance`, `max_draws`.
        include_clean: Count the clean input as one more draw, as AdaptGrad's published code does.
    """

    explainer: Explainer = Gradient()
    scale: InputScale = RangeScale()
    num_draws: int = 50
    statistic: Statistic = "mean"
    include_clean: bool = False
    antithetic: bool = False
    tolerance: float | None = None
    max_draws: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.include_clean and (self.antithetic or self.tolerance is not None):
            raise ValueError("`include_clean` is for a fixed number of independent draws: leave it out.")

    def draws(
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context, numbers: range | None = None
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        if self.include_clean:
            yield self.explainer.attribute(model, inputs, target, context)[None]
        std = self.scale(inputs, context)
        every = range(self.num_draws) if numbers is None else numbers
        for some in groups(every, model, inputs, context.max_rows, together=2 if self.antithetic else 1):
            noisy = torch.addcmul(inputs, self._noise(some, inputs, context), std).flatten(0, 1)
            drawn = context.branch(some)
            yield self.explainer.attribute(model, noisy, target.repeat(len(some)), drawn).unflatten(0, (len(some), -1))

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        """Of all the noise that reaches the model: independent noise of a smoother inside adds its variance."""
        std, inner = self.scale(inputs, context), self.explainer.noise_std(inputs, context)
        return std if inner is None else (std.square() + inner.square()).sqrt()

    def _noise(self, numbers: Tensor, inputs: Inputs, context: Context) -> Float[Tensor, " draws batch *shape"]:
        """Standard normal noise of these draws; antithetic, number 2k is drawn and 2k + 1 is its negative."""
        drawn = context.branch(numbers[::2] // 2 if self.antithetic else numbers)
        noise = standard_normal(drawn.keys, inputs.shape[1:], inputs.device).to(inputs.dtype)
        noise = noise.unflatten(0, (-1, len(inputs)))
        return torch.stack((noise, -noise), dim=1).flatten(0, 1) if self.antithetic else noise


@dataclass(frozen=True)
class PerturbWeights(Averaging):
    """NoiseGrad: average of an explainer over noisy weights; FusionGrad with a `Smooth` inside (Bykov et al. 2022).

    Each draw perturbs the parameters (weights, biases and normalisation's affine parameters; no buffers) of the clean
    model, which is itself not one of the draws. All samples see the same draws, and inside a `Smooth` so do
    all noisy inputs. The model is never written to.

    Attributes:
        explainer: What is averaged; with noise of its own it gets fresh noise under each weight draw.
        std: Noise level. Multiplicative: W · η with η ~ N(1, std²), elementwise. Additive: W + std · rms(W) · e with
            e ~ N(0, 1), relative to the root mean square of each parameter tensor.
        num_draws: Number of noisy models; see `Averaging` for `statistic`, `antithetic`, `tolerance`, `max_draws`.
        noise: "multiplicative" (the paper) or "additive".
        include: Patterns (as in shells) of the names of the parameters that are perturbed.
        exclude: Patterns of the names that are left out of these.
    """

    explainer: Explainer = Saliency()
    std: float = 0.2
    num_draws: int = 10
    noise: WeightNoise = "multiplicative"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    statistic: Statistic = "mean"
    antithetic: bool = False
    tolerance: float | None = None
    max_draws: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("noise", self.noise, WeightNoise)
        if isinstance(self.include, str) or isinstance(self.exclude, str):
            raise TypeError(
                f"`include` and `exclude` must be tuples of patterns, such as ('*.weight',), "
                f"got {self.include!r} and {self.exclude!r}."
            )
        if not 0 <= self.std < float("inf"):
            raise ValueError(f"`std` must be at least 0 and finite, got {self.std}.")

    def draws(
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context, numbers: range | None = None
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        explained, clean = _Explained(model, self.explainer), self._perturbed(model)
        every = torch.arange(self.num_draws) if numbers is None else torch.tensor(numbers)
        for some in every.split(2 if self.antithetic else 1):
            drawn = [self._draw(explained, clean, number, inputs, target, context) for number in some.tolist()]
            yield torch.stack(drawn) if len(drawn) > 1 else drawn[0][None]

    def _draw(
        self, explained: "_Explained", clean: _Places, number: int, inputs: Inputs, target: Labels, context: Context
    ) -> Inputs:
        """The attributions under one draw; antithetic, the noise of 2k + 1 is the negative of that of 2k."""
        seed = context.model_seed(number // 2 if self.antithetic else number)
        weights = self._noisy(clean, seed, negative=self.antithetic and bool(number % 2))
        noisy = {f"model.{name}": weight for name, weight in weights.items()}
        return functional_call(explained, noisy, (inputs, target, context.model_draw(number)))

    def noisy_weights(self, model: nn.Module, seed: int, negative: bool = False) -> dict[str, Tensor]:
        """The perturbed parameters of one draw, by name.

        A parameter's noise depends on the seed and on its place among the model's parameters, not on its name: a
        network inside a LightningModule or another wrapper gets the noise that it gets alone.

        Args:
            negative: Turn the sign of the noise.
        """
        return self._noisy(self._perturbed(model), seed, negative)

    def _perturbed(self, model: nn.Module) -> _Places:
        """The clean parameters that get noise."""
        chosen = {
            name: (place, parameter.detach())
            for place, (name, parameter) in enumerate(model.named_parameters())
            if _matches(name, self.include) and not _matches(name, self.exclude)
        }
        if not chosen:
            names = ", ".join(name for name, _ in model.named_parameters()) or "none"
            raise ValueError(
                f"`include`={self.include} without `exclude`={self.exclude} names no parameter of `model`; "
                f"it has: {names}."
            )
        return chosen

    def _noisy(self, clean: _Places, seed: int, negative: bool) -> dict[str, Tensor]:
        keys = root_keys(seed, torch.tensor([place for place, _ in clean.values()])).split(1)
        std = -self.std if negative else self.std
        return {
            name: self._perturb(weight, std, key) for (name, (_, weight)), key in zip(clean.items(), keys, strict=True)
        }

    def _perturb(self, weight: Tensor, std: float, key: Keys) -> Tensor:
        noise = standard_normal(key, weight.shape, weight.device)[0].to(weight.dtype)
        size = weight if self.noise == "multiplicative" else weight.square().mean().sqrt()
        return torch.addcmul(weight, noise, size, value=std)

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        return self.explainer.noise_std(inputs, context)


class _Explained(nn.Module):
    """A model and its explainer, so that one functional call puts noisy weights under a whole explanation."""

    def __init__(self, model: nn.Module, explainer: Explainer) -> None:
        super().__init__()
        self.model, self.explainer = model, explainer
        self.training = model.training

    def forward(self, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        return self.explainer.attribute(self.model, inputs, target, context)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
