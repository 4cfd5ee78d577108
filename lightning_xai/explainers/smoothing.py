"""The smoothing engine: averages of an explainer over noisy inputs or noisy weights."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

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


class Averaging(Explainer):
    """A statistic of an explainer over random draws, streamed: memory does not grow with the number of draws."""

    num_draws: int
    statistic: Statistic

    def __post_init__(self) -> None:
        check_count("num_draws", self.num_draws)
        check_choice("statistic", self.statistic, Statistic)

    def moments(
        self,
        model: nn.Module,
        inputs: Inputs,
        target: Labels | int | None = None,
        context: Context | None = None,
    ) -> Moments:
        """All moments over the draws: `mean`, `variance` (an uncertainty map), `standard_error` of the mean."""
        return self._explain(self._moments, model, inputs, target, context)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        return getattr(self._moments(model, inputs, target, context), self.statistic)

    @abstractmethod
    def draws(
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        """The attributions under each draw, in blocks."""

    def _moments(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Moments:
        moments = Moments()
        for block in self.draws(model, inputs, target, context):
            moments.add(block)
        return moments


@dataclass(frozen=True)
class Smooth(Averaging):
    """Average of an explainer over inputs with Gaussian noise, x + e with e ~ N(0, std²) elementwise.

    SmoothGrad (Smilkov et al. 2017) with a `RangeScale`, AdaptGrad (Zhou et al. 2024) with an `InRangeScale`; with
    `statistic="variance"` VarGrad, with `"mean_square"` SmoothGrad-squared. The clean input is not one of the draws
    unless `include_clean` says so.

    Attributes:
        explainer: What is averaged, signed or not as it comes.
        scale: The noise's standard deviation.
        num_draws: Number of noisy inputs.
        statistic: Which moment over the draws is the attribution.
        include_clean: Count the clean input as one more draw, as AdaptGrad's published code does.
    """

    explainer: Explainer = Gradient()
    scale: InputScale = RangeScale()
    num_draws: int = 50
    statistic: Statistic = "mean"
    include_clean: bool = False

    def draws(
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        if self.include_clean:
            yield self.explainer.attribute(model, inputs, target, context)[None]
        std = self.scale(inputs, context)
        for numbers in groups(self.num_draws, model, inputs, context.max_rows):
            drawn = context.branch(numbers)
            noise = standard_normal(drawn.keys, inputs.shape[1:], inputs.device).to(inputs.dtype)
            noisy = noise.unflatten(0, (len(numbers), -1)).mul_(std).add_(inputs).flatten(0, 1)
            block = self.explainer.attribute(model, noisy, target.repeat(len(numbers)), drawn)
            yield block.unflatten(0, (len(numbers), -1))

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        """Of all the noise that reaches the model: independent noise of a smoother inside adds its variance."""
        std, inner = self.scale(inputs, context), self.explainer.noise_std(inputs, context)
        return std if inner is None else (std.square() + inner.square()).sqrt()


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
        num_draws: Number of noisy models.
        noise: "multiplicative" (the paper) or "additive".
        include: Patterns (as in shells) of the names of the parameters that are perturbed.
        exclude: Patterns of the names that are left out of these.
        statistic: Which moment over the draws is the attribution.
    """

    explainer: Explainer = Saliency()
    std: float = 0.2
    num_draws: int = 10
    noise: WeightNoise = "multiplicative"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    statistic: Statistic = "mean"

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
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        explained = _Explained(model, self.explainer)
        for number in range(self.num_draws):
            drawn = context.model_draw(number)
            noisy = {f"model.{name}": weight for name, weight in self.noisy_weights(model, drawn.seed).items()}
            yield functional_call(explained, noisy, (inputs, target, drawn))[None]

    def noisy_weights(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """The perturbed parameters of one draw, by name.

        A parameter's noise depends on the seed and on its place among the model's parameters, not on its name: a
        network inside a LightningModule or another wrapper gets the noise that it gets alone.
        """
        noisy = {
            name: self._perturb(parameter.detach(), root_keys(seed, torch.tensor([place])))
            for place, (name, parameter) in enumerate(model.named_parameters())
            if _matches(name, self.include) and not _matches(name, self.exclude)
        }
        if not noisy:
            names = ", ".join(name for name, _ in model.named_parameters()) or "none"
            raise ValueError(
                f"`include`={self.include} without `exclude`={self.exclude} names no parameter of `model`; "
                f"it has: {names}."
            )
        return noisy

    def _perturb(self, weight: Tensor, key: Keys) -> Tensor:
        noise = standard_normal(key, weight.shape, weight.device)[0].to(weight.dtype).mul_(self.std)
        size = weight if self.noise == "multiplicative" else weight.square().mean().sqrt()
        return noise.mul_(size).add_(weight)

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
