"""The smoothing engine: averages of an explainer over noisy inputs or noisy weights."""

import weakref
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xai.explainers.base import (
    Context,
    Explainer,
    check_choice,
    check_count,
    check_kind,
    check_number,
    check_positive,
)
from lightning_xai.explainers.chunks import groups, in_chunks, probe_rows, takes_whole_batches
from lightning_xai.explainers.gradient import Gradient, Saliency
from lightning_xai.explainers.sampling import InputNoise, Sampling, check_sampling, together
from lightning_xai.explainers.scales import InputScale, RangeScale
from lightning_xai.explainers.state import (
    Site,
    differentiable,
    explaining,
    one_pass,
    parameter_sites,
    random_states_kept,
    refuse_lazy,
    swapped,
)
from lightning_xai.functional.devices import sent
from lightning_xai.functional.moments import Moments, Sum
from lightning_xai.functional.random import Strata, fold_in_int, root_keys, standard_normal
from lightning_xai.functional.warn import warn_caller
from lightning_xai.shapes import Inputs, Keys, Labels, Targets

Statistic = Literal["mean", "variance", "mean_square"]
WeightNoise = Literal["multiplicative", "additive"]

_shows_noise: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Networks whose logits change with noise on their weights."""

_AHEAD = 64
"""Weight draws whose keys are made at once."""

LEAST_DRAWS = 8
"""Independent draws, or antithetic pairs, before the first look at the error: fewer stop too early too often."""


class Averaging(Explainer):
    """A statistic of an explainer over random draws, streamed: memory does not grow with the number of draws.

    Concrete classes are dataclasses with these attributes:

    Attributes:
        num_draws: Number of draws. With a `tolerance`: how many are made before each look at the error.
        statistic: Which moment over the draws is the attribution.
        sampling: "independent", as published, or what needs fewer draws for the same error; each draw by itself is
            distributed alike, so that the mean has no bias. "antithetic": noise in pairs, e and -e, so that what is odd
            in the noise cancels; `num_draws` must be even. "stratified": the draws of an element of the noise hit each
            of `num_draws` equally likely parts of its distribution once (`functional.random.Strata`), so that whatever
            depends on the elements one by one nearly cancels, odd or even. The `standard_error` is then that of
            independent draws, an upper bound: with a prime `num_draws` the error is no more than √(n / (n - 1)) times
            as large (Owen 1997), and it was smaller wherever it was measured.
        tolerance: Go on until a sample's relative standard error, ‖standard error‖ / ‖mean‖ over the elements of its
            map, is at most this; a sample that is there leaves the batch. None for a fixed number of draws.
        max_draws: Most draws with a tolerance.

    Raises:
        TypeError: if `explainer` is no explainer, or a number of another type.
        ValueError: if a number is out of its range, a choice unknown, or two options do not go together.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model, images = torch.nn.ReLU(), torch.zeros(1, 2)  # the gradient is 0 to the left, 1 to the right
        >>> method = lx.Smooth(lx.Gradient(), lx.explainers.AbsoluteScale(0.5), num_draws=10, sampling="antithetic")
        >>> lx.explain(model, images, target=0, method=method)  # of each pair one
        tensor([[0.5000, 0.0000]])
    """

    explainer: Explainer
    num_draws: int
    statistic: Statistic
    sampling: Sampling
    tolerance: float | None
    max_draws: int

    def __post_init__(self) -> None:
        check_kind("explainer", self.explainer, Explainer, "an explainer, such as Gradient()")
        check_count("num_draws", self.num_draws)
        check_count("max_draws", self.max_draws)
        check_choice("statistic", self.statistic, Statistic)
        if self.statistic == "variance" and self.num_draws < 2:
            raise ValueError(
                f'`num_draws` must be at least 2 with `statistic`="variance", got {self.num_draws}: one draw has none.'
            )
        check_sampling(self.sampling, self.num_draws)
        if self.statistic == "variance" and self.sampling != "independent":
            raise ValueError(
                f'`sampling` must be "independent" with `statistic`="variance", got "{self.sampling}": draws that hang '
                "together have another variance."
            )
        if self.tolerance is not None:
            self._check_tolerance(self.tolerance)

    def moments(
        self,
        model: nn.Module,
        inputs: Inputs,
        target: Targets | int | None = None,
        context: Context | None = None,
    ) -> Moments:
        """Over the draws: `mean`, `variance` (an uncertainty map), `standard_error` of the mean, and more."""
        return self._explain(self._moments, model, inputs, target, context)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        if self.statistic != "mean" or self.tolerance is not None:
            return getattr(self._moments(model, inputs, target, context), self.statistic)
        total, count = Sum(), 0
        for block in self.draws(model, inputs, target, context):  # the mean alone costs less than all moments
            total.add(block)
            count += len(block)
        return total.mean(count)

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
            stop = (moments.relative_error.cpu() <= tolerance) | (numbers.stop == self.max_draws)  # the only look
            stopped, go_on = stop.nonzero().flatten(), (~stop).nonzero().flatten()
            done.append((rows[stopped], moments.select(sent(stopped, inputs.device))))
            if not len(go_on):
                break
            there = sent(go_on, inputs.device)
            rows, moments = rows[go_on], moments.select(there)
            inputs, target, context = inputs[there], target[there], context.select(go_on)
        order = torch.cat([where for where, _ in done]).argsort()
        finished = Moments.join([part for _, part in done]).select(sent(order, inputs.device))
        asked.count_draws(finished.count.flatten())  # type: ignore[union-attr]  # joined: a tensor
        return finished

    def _no_moments(self) -> Moments:
        return Moments(group=together(self.sampling))

    def _check_tolerance(self, tolerance: float) -> None:
        check_number("tolerance", tolerance)
        if not 0 < tolerance < float("inf"):
            raise ValueError(f"`tolerance` must be positive and finite, or None; got {tolerance}.")
        if self.sampling == "stratified":
            raise ValueError(
                '`tolerance` cannot go with `sampling="stratified"`: there are as many strata as draws, a number that '
                "must be known before the first, and their error is only known to be less than independent ones'. "
                'Leave `tolerance` out, or take `sampling="antithetic"`.'
            )
        size = together(self.sampling)
        if self.num_draws < (least := LEAST_DRAWS * size):
            raise ValueError(
                f"`num_draws` must be at least {least} with a `tolerance`, got {self.num_draws}: the error is "
                "estimated from so many draws at the first look, and from fewer it is often far too small."
            )
        if self.statistic != "mean":
            raise ValueError(f'`tolerance` is of the mean over the draws, but `statistic` is "{self.statistic}".')
        if self.max_draws < self.num_draws or self.max_draws % size:
            even = ", and even for antithetic pairs" if size == 2 else ""
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
        num_draws: Number of noisy inputs; see `Averaging` for `statistic`, `sampling`, `tolerance`, `max_draws`.
        include_clean: Count the clean input as one more draw, as AdaptGrad's published code does.

    Raises:
        TypeError: if a part is of another kind, such as `explainer`, or a number for `scale`.
        ValueError: if a number is out of its range, a choice unknown, or two options do not go together.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model, images = torch.nn.ReLU(), torch.zeros(1, 2)  # where the gradient is 0 to the left, 1 to the right
        >>> method = lx.Smooth(lx.Gradient(), lx.explainers.AbsoluteScale(0.5), num_draws=100)
        >>> lx.explain(model, images, target=0, method=method)
        tensor([[0.5400, 0.0000]])
        >>> method.moments(model, images, target=0).standard_error.round(decimals=2)
        tensor([[0.0500, 0.0000]])
    """

    explainer: Explainer = Gradient()
    scale: InputScale = RangeScale()
    num_draws: int = 50
    statistic: Statistic = "mean"
    include_clean: bool = False
    sampling: Sampling = "independent"
    tolerance: float | None = None
    max_draws: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("scale", self.scale, InputScale, "an InputScale, such as RangeScale(0.2)")
        if self.include_clean and (self.sampling != "independent" or self.tolerance is not None):
            raise ValueError("`include_clean` is for a fixed number of independent draws: leave it out.")

    def draws(
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context, numbers: range | None = None
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        if self.include_clean:
            yield self.explainer.attribute(model, inputs, target, context)[None]
        std, noise = self.scale(inputs, context), InputNoise(self.sampling, self.num_draws, inputs, context)
        every = range(self.num_draws) if numbers is None else numbers
        one_by_one = perturbs_weights(self.explainer) or takes_whole_batches(model, inputs, context.max_rows)
        for some in groups(every, model, inputs, context.max_rows, together=together(self.sampling)):
            noisy = torch.addcmul(inputs, noise(some), std)
            parts = [slice(k, k + 1) for k in range(len(some))] if one_by_one else [slice(None)]
            drawn = [self._explained(model, noisy[part], target, context, some[part]) for part in parts]
            yield drawn[0] if len(drawn) == 1 else torch.cat(drawn)

    def _explained(
        self,
        model: nn.Module,
        noisy: Float[Tensor, " draws batch *shape"],
        target: Labels,
        context: Context,
        numbers: Tensor,
    ) -> Float[Tensor, " draws batch *shape"]:
        """The attributions of these draws of the input; weight noise inside is fresh for each, or shares its error."""
        drawn = context.branch(numbers)
        if perturbs_weights(self.explainer):
            drawn = replace(drawn, seed=context.model_seed(int(numbers)))
        rows = self.explainer.attribute(model, noisy.flatten(0, 1), target.repeat(len(numbers)), drawn)
        return rows.unflatten(0, (len(numbers), -1))

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        """Deviation of all noise that reaches the model: independent noise of a smoother inside adds its variance."""
        std, inner = self.scale(inputs, context), self.explainer.noise_std(inputs, context)
        return std if inner is None else (std.square() + inner.square()).sqrt()


@dataclass(frozen=True)
class PerturbWeights(Averaging):
    """NoiseGrad: average of an explainer over noisy weights; FusionGrad with a `Smooth` inside (Bykov et al. 2022).

    Each draw perturbs the parameters (weights, biases and normalization's affine parameters; no buffers) of the clean
    model, which is itself not one of the draws; a parameter with several names gets it once, integers and booleans get
    none. All samples see the same draws; inside a `Smooth` each of its draws has weight noise of its own, so that they
    are independent. The model's own tensors are never written to.

    Over flat backgrounds max-pooling has ties, which weight noise breaks by the last digit: there a single draw's map
    can differ clearly between processors, back ends and precisions.

    Attributes:
        explainer: What is averaged; with noise of its own it gets fresh noise under each weight draw.
        std: Noise level. Multiplicative: W · η with η ~ N(1, std²), elementwise. Additive: W + std · rms(W) · e with
            e ~ N(0, 1), relative to the root mean square of each parameter tensor.
        num_draws: Number of noisy models; see `Averaging` for `statistic`, `sampling`, `tolerance`, `max_draws`.
        noise: "multiplicative" (the paper) or "additive".
        include: Patterns (as in shells) of the names of the parameters that are perturbed; one of a parameter's names
            has to match.
        exclude: Patterns of the names that are left out of these; one of its names is enough.

    Raises:
        TypeError: if a part is of another kind, such as a string for `include`.
        ValueError: if a number is out of its range, a choice unknown, or two options do not go together.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> method = lx.PerturbWeights(lx.Gradient(), std=0.2, num_draws=100)
        >>> moments = method.moments(model, torch.ones(1, 2), target=0)
        >>> moments.mean.round(decimals=2), moments.variance.round(decimals=2)
        (tensor([[ 1.0200, -2.0400]]), tensor([[0.0300, 0.1700]]))
    """

    explainer: Explainer = Saliency()
    std: float = 0.2
    num_draws: int = 10
    noise: WeightNoise = "multiplicative"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    statistic: Statistic = "mean"
    sampling: Sampling = "independent"
    tolerance: float | None = None
    max_draws: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("noise", self.noise, WeightNoise)
        if not (_are_patterns(self.include) and _are_patterns(self.exclude)):
            raise TypeError(
                f"`include` and `exclude` must be tuples of patterns, such as ('*.weight',), "
                f"got {self.include!r} and {self.exclude!r}."
            )
        check_positive("std", self.std, or_zero=True)

    def draws(
        self, model: nn.Module, inputs: Inputs, target: Labels, context: Context, numbers: range | None = None
    ) -> Iterator[Float[Tensor, " draws batch *shape"]]:
        noisy = _Noisy(self._perturbed(model), self.sampling, self.num_draws, self.std, context)
        self._look(model, noisy, inputs, context)
        every = range(self.num_draws) if numbers is None else numbers
        size = together(self.sampling)
        ready = noisy.ready(every)
        while some := list(islice(ready, size)):
            drawn = list[Tensor]()
            for number, drawing in some:
                with noisy.swapped(number):
                    drawn.append(self.explainer.attribute(model, inputs, target, drawing))
            yield torch.stack(drawn) if len(drawn) > 1 else drawn[0][None]

    def _look(self, model: nn.Module, noisy: "_Noisy", inputs: Inputs, context: Context) -> None:
        """A pass without noise, and, until it shows, one with: what a network caches is clean, and hides the noise.

        Tensors that a forward pass keeps where they cannot be put back (a list, an object, `functools.cache`) would
        otherwise be those of the first noisy network for good.
        """
        rows = probe_rows(model, inputs, context.max_rows)

        def logits() -> Tensor:
            with random_states_kept(model), explaining(model), one_pass(model, noted=False):
                return in_chunks(model, model, context.max_rows, rows.detach().clone().requires_grad_()).detach()

        before = logits()
        if self.std == 0 or model in _shows_noise:
            return
        with noisy.swapped(0):
            same = torch.equal(logits(), before)
        if not same:
            _shows_noise.add(model)
        else:
            warn_caller(
                "`model` gives the same logits with noise on its weights as without: the perturbed parameters have no "
                "part in them, or its forward pass keeps what it computes from them (in a list, an object or a cache), "
                "which hides the noise. Make it compute them anew in evaluation mode."
            )

    def noisy_weights(self, model: nn.Module, seed: int, negative: bool = False) -> dict[str, Tensor]:
        """The perturbed parameters of one independent draw, by name (the first name of a shared one).

        All parameters of a model share one vector of noise, which depends on the seed alone: a parameter's noise
        depends on its place among the floating-point parameters of the model, not on its name. A network inside a
        LightningModule or another wrapper gets the noise that it gets alone.

        Args:
            negative: Turn the sign of the noise.
        """
        clean = self._perturbed(model)
        return differentiable(clean.sites, clean.noisy(_noise_of(_key(seed)), -self.std if negative else self.std))

    def _perturbed(self, model: nn.Module) -> "_Clean":
        """The clean parameters that get noise."""
        refuse_lazy(model)
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        places, start = list[_Place](), 0
        for name, parameter in model.named_parameters():
            if not (parameter.is_floating_point() or parameter.is_complex()):
                continue
            known = names[id(parameter)]
            if any(_matches(n, self.include) for n in known) and not any(_matches(n, self.exclude) for n in known):
                places.append(_Place(name, parameter.detach(), start))
            start += parameter.numel()
        if not places:
            raise ValueError(
                f"`include`={self.include} without `exclude`={self.exclude} names no floating-point parameter of "
                f"`model`; it has: {', '.join(name for name, _ in model.named_parameters()) or 'none'}."
            )
        return _Clean(places, self.noise, parameter_sites(model))

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        return self.explainer.noise_std(inputs, context)


class _Place(NamedTuple):
    """A parameter: its name, its clean value, and where its noise begins in that of all parameters."""

    name: str
    weight: Tensor
    start: int


_Noise = Callable[[int, torch.device], Tensor]
"""Standard normal values, so many of them, on this device."""


def _noise_of(key: Keys) -> _Noise:
    """Independent noise."""
    return lambda length, device: standard_normal(key, (length,), device)[0]


def _key(seed: int) -> Keys:
    return root_keys(seed, torch.zeros(1, dtype=torch.int64))


class _Noisy:
    """A model's parameters under the draws of one explanation."""

    def __init__(self, clean: "_Clean", sampling: Sampling, num_draws: int, std: float, context: Context) -> None:
        self.clean, self.sampling, self.std, self.context = clean, sampling, std, context
        pair = together(sampling)
        self.key = lru_cache(2 * _AHEAD)(lambda number: _key(context.model_seed(number // pair)))
        if sampling == "stratified":
            key = _key(fold_in_int(context.seed, zlib.crc32(b"strata")))
            self.strata = Strata(key, num_draws, (clean.length,))

    def ready(self, numbers: range) -> Iterator[tuple[int, Context]]:
        """The numbers with their contexts, and the keys of several before the passes of these.

        Behind a pass, which empties the processor's caches, they would take some ten times as long.
        """
        for start in range(0, len(numbers), _AHEAD):
            some = numbers[start : start + _AHEAD]
            ready = [(number, self.key(number), self.context.model_draw(number)) for number in some]
            yield from ((number, drawing) for number, _, drawing in ready)

    def swapped(self, number: int) -> AbstractContextManager[None]:
        """The model under the draw of this number."""
        return swapped(self.clean.sites, differentiable(self.clean.sites, self._weights(number)))

    def _weights(self, number: int) -> dict[str, Tensor]:
        """Antithetic, the noise of 2k + 1 is the negative of that of 2k."""
        key, negative = self.key(number), self.sampling == "antithetic" and number % 2
        if self.sampling == "stratified":
            which = torch.tensor([number])
            return self.clean.noisy(lambda _, device: self.strata.normal(which, key, device)[0, 0], self.std)
        return self.clean.noisy(_noise_of(key), -self.std if negative else self.std)


class _Clean:
    """Clean parameters laid out for noise: those of a device and dtype in one vector, so that a draw is few calls."""

    def __init__(self, places: list[_Place], noise: WeightNoise, sites: dict[str, list[Site]]) -> None:
        self.sites = sites
        alike: dict[tuple[torch.device, torch.dtype], list[_Place]] = {}
        for place in places:
            alike.setdefault((place.weight.device, place.weight.dtype), []).append(place)
        self.vectors = [_Vector(group, noise) for group in alike.values()]
        self.length = max(place.start + place.weight.numel() for place in places)

    def noisy(self, noise: "_Noise", std: float) -> dict[str, Tensor]:
        """The parameters of one draw, by name: views of one vector."""
        drawn = dict[torch.device, Tensor]()
        weights: dict[str, Tensor] = {}
        for vector in self.vectors:
            if vector.device not in drawn:
                drawn[vector.device] = noise(self.length, vector.device)
            weights |= vector.noisy(drawn[vector.device], std)
        return weights


class _Vector:
    """Parameters of one device and dtype, one behind the other."""

    def __init__(self, places: list[_Place], noise: WeightNoise) -> None:
        self.places, self.device = places, places[0].weight.device
        self.clean = torch.cat([place.weight.reshape(-1) for place in places])
        self.size = self.clean if noise == "multiplicative" else torch.cat([_rms(place.weight) for place in places])
        ends = [place.start + place.weight.numel() for place in places]
        follow = all(end == place.start for end, place in zip(ends, places[1:], strict=False))
        self.noise_at = (
            [slice(places[0].start, ends[-1])]
            if follow
            else [slice(place.start, end) for place, end in zip(places, ends, strict=True)]
        )

    def noisy(self, noise: Tensor, std: float) -> dict[str, Tensor]:
        own = noise[self.noise_at[0]] if len(self.noise_at) == 1 else torch.cat([noise[at] for at in self.noise_at])
        vector = torch.addcmul(self.clean, own.to(self.clean.dtype), self.size, value=std)
        parts = vector.split([place.weight.numel() for place in self.places])
        return {p.name: part.view(p.weight.shape) for p, part in zip(self.places, parts, strict=True)}


def _rms(weight: Tensor) -> Tensor:
    """The root mean square of a parameter, for each of its elements."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return wide.abs().square().mean().sqrt().to(weight.dtype).expand(weight.numel())


def perturbs_weights(explainer: Explainer) -> bool:
    """Whether an explainer draws weight noise, itself or what it wraps."""
    return isinstance(explainer, PerturbWeights) or any(
        perturbs_weights(part) for part in vars(explainer).values() if isinstance(part, Explainer)
    )


def _are_patterns(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
