"""SmoothDiff: the mean derivative of each nonlinear layer under noise on the input, then one backward pass."""

import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, Explainer, check_count, check_kind
from lightning_xai.explainers.chunks import groups, in_chunks, probe_rows, row_limit, takes_whole_batches
from lightning_xai.explainers.gradient import input_gradient
from lightning_xai.explainers.rectifiers import require_modules
from lightning_xai.explainers.sampling import InputNoise
from lightning_xai.explainers.scales import InputScale, RangeScale
from lightning_xai.functional.devices import sent
from lightning_xai.outputs import Logit, Output, Read
from lightning_xai.shapes import Inputs, Labels

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Softplus,
    nn.Sigmoid,
    nn.Tanh,
)
"""Layers whose derivative is a number for each element."""


@dataclass(frozen=True)
class SmoothDiff(Explainer):
    """SmoothDiff (Hill et al. 2025): a gradient of the target's logit in which nonlinear layers have mean derivatives.

    Forward passes with Gaussian noise on the input, x + e with e ~ N(0, std²) elementwise as in `Smooth`, whose draws
    it shares; in each of them the local derivative of every nonlinear layer, of which the mean is kept; then one
    backward pass in which each layer has its mean derivative. Signed; the clean input is not one of the draws.

    It is not SmoothGrad, which is the mean of the product of these derivatives, where this is the product of their
    means: what the derivatives of different layers have to do with one another is lost. Beside SmoothGrad it therefore
    has a bias that no number of draws takes away, of some 20 to 45 % of the norm (LeNet on MNIST: 36 % with
    SmoothGrad's noise, 21 % with AdaptGrad's; ResNet-9 on CMNIST: 42 and 35 %), and a small error beside it: there ten
    passes come as near as some fifty gradients, and hardly any nearer with more. With one nonlinear layer on each way
    through the network there is no bias; without noise it is the gradient.

    Nonlinear layers must be modules: `ELEMENTWISE` and nn.MaxPool2d, of exactly these types. All else must be affine in
    what depends on the input: convolutions, linear layers, batch normalization and dropout in evaluation mode, average
    pooling, sums, shapes. Other networks are refused: functional calls and other nonlinear layers would have to keep
    the derivative at one point. What a forward pass decides in Python or NumPy, by values of its input, is not seen.
    The explained output must be affine too. Rows must stay in front: (batch, ...) in all nonlinear layers, (batch,
    channel, height, width) in pooling.

    A noisy pass with its derivatives takes about two thirds of a gradient's time on a CPU. What is kept is a map a
    nonlinear layer, however many draws there are. The count of gradients is 1.

    Attributes:
        scale: The noise's standard deviation: SmoothGrad's, or AdaptGrad's `InRangeScale`.
        num_draws: Number of noisy forward passes.

    Raises:
        TypeError: if `num_draws` is no whole number.
        ValueError: if it is less than 1; when called, if the model has nonlinear functions other than these modules.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.tensor([[0.0, 1.0]])
        >>> model = torch.nn.Sequential(torch.nn.ReLU())  # one nonlinear layer: as SmoothGrad, of the same draws
        >>> lx.explain(model, images, target=0, method=lx.explainers.SmoothDiff())
        tensor([[0.5000, 0.0000]])
    """

    scale: InputScale = RangeScale()
    num_draws: int = 50

    def __post_init__(self) -> None:
        check_kind("scale", self.scale, InputScale, "an InputScale, such as RangeScale(0.2)")
        check_count("num_draws", self.num_draws)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        layers = _layers(model)
        _require_known(model, layers, probe_rows(model, inputs, context.max_rows), context.output)
        whole = takes_whole_batches(model, inputs, context.max_rows)
        size = len(inputs) if whole else row_limit(model, inputs, context.max_rows)
        parts = [slice(start, start + size) for start in range(0, len(inputs), size)]
        maps = [self._part(model, layers, inputs[p], target[p], context.select(p)) for p in parts]
        return maps[0] if len(maps) == 1 else torch.cat(maps)

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        return self.scale(inputs, context)

    def _part(self, model: nn.Module, layers: "_Layers", inputs: Inputs, target: Labels, context: Context) -> Inputs:
        """Of so many samples that the mean derivatives of their layers fit in memory."""
        std, noise = self.scale(inputs, context), InputNoise("independent", self.num_draws, inputs, context)
        samples = torch.arange(len(inputs), device=inputs.device)
        with _Derivatives(model, layers, len(inputs)) as derivatives:
            for some in groups(self.num_draws, model, inputs, context.max_rows):
                noisy = torch.addcmul(inputs, noise(some), std).flatten(0, 1)
                in_chunks(derivatives.add, model, context.max_rows, noisy, samples.repeat(len(some)))
            gradient = partial(derivatives.gradient, self.num_draws, context.output)
            return in_chunks(gradient, model, context.max_rows, inputs, target, samples)


class _Elementwise:
    """A layer that changes each element by itself."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def derivative(self, x: Tensor, output: Tensor) -> Tensor:
        """Of the shape of the input."""
        if isinstance(self.module, nn.ReLU):
            return output.sign()
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            y = type(self.module).forward(self.module, x.clone())  # a copy, to work on in place
            return torch.autograd.grad(y, x, torch.ones_like(y))[0]

    @staticmethod
    def back(derivative: Tensor, shape: torch.Size, gradient: Tensor) -> Tensor:
        """The gradient with respect to the layer's input."""
        return gradient * derivative


class _MaxPool:
    """A maximum over windows, each place of which has a share in its derivative."""

    def __init__(self, module: nn.MaxPool2d) -> None:
        self.options = {name: getattr(module, name) for name in _WINDOWS}
        self._known: dict[tuple, Tensor] = {}

    def derivative(self, x: Tensor, output: Tensor) -> Tensor:
        """(batch, channel, place in the window, window): 1 for the greatest value."""
        chosen = F.max_pool2d(x, **self.options, return_indices=True)[1]
        return (self._places(x.shape, chosen.shape, x.device) == chosen.flatten(2)[:, :, None]).to(x.dtype)

    def back(self, derivative: Tensor, shape: torch.Size, gradient: Tensor) -> Tensor:
        places = self._places(shape, gradient.shape, gradient.device)
        shares = (derivative * gradient.flatten(2)[:, :, None]).flatten(2)
        made = gradient.new_zeros(*shape[:2], shape[2] * shape[3])
        return made.scatter_add_(2, places.clamp(min=0).flatten().expand_as(shares), shares).view(shape)

    def _places(self, shape: torch.Size, outputs: torch.Size, device: torch.device) -> Int64[Tensor, "places windows"]:
        """Where in the flat map the places of each window are; -1 in the padding, which is never the greatest."""
        known = (shape[2:], outputs[2:], device)
        if known not in self._known:
            sizes = zip(shape[2:], outputs[2:], *map(_pair, list(self.options.values())[:4]), strict=True)
            (y, y_inside), (x, x_inside) = (_along(*each) for each in sizes)
            at = y[:, None, :, None] * shape[3] + x[None, :, None, :]
            inside = y_inside[:, None, :, None] & x_inside[None, :, None, :]
            self._known[known] = sent(torch.where(inside, at, -1).flatten(2).flatten(0, 1), device)
        return self._known[known]


_WINDOWS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value


def _along(size: int, windows: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Along one axis, (place, window): the index of the place, and whether there is one."""
    at = torch.arange(kernel)[:, None] * dilation + torch.arange(windows) * stride - padding
    return at, (at >= 0) & (at < size)


_Layers = dict[nn.Module, _Elementwise | _MaxPool]


def _layers(model: nn.Module) -> _Layers:
    """The nonlinear layers whose mean derivative can be taken: no hooks or functions of others change what they do."""
    found: _Layers = {}
    for module in model.modules():
        plain = "forward" not in vars(module) and not any(
            value for name, value in vars(module).items() if name.endswith("_hooks")
        )
        if plain and type(module) in ELEMENTWISE:
            found[module] = _Elementwise(module)
        elif plain and type(module) is nn.MaxPool2d and not module.return_indices:
            found[module] = _MaxPool(module)
    return found


_known: "weakref.WeakKeyDictionary[nn.Module, set[tuple]]" = weakref.WeakKeyDictionary()
"""Networks that were looked at, as they were then: their modules, and what hooks these had."""


def _require_known(model: nn.Module, layers: _Layers, rows: Tensor, output: Output) -> None:
    """Refuse networks with nonlinear functions outside of these layers, and such outputs, once."""
    parts = ((id(part), len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules())
    now = (output, *parts)
    seen = _known.setdefault(model, set())
    if now not in seen:
        known = (*ELEMENTWISE, nn.MaxPool2d)
        for name, part in model.named_modules():
            if type(part) in known and part not in layers:
                raise ValueError(
                    f'`model` has hooks, a forward of its own or `return_indices` in "{name}" ({type(part).__name__}): '
                    "SmoothDiff does not know its derivative. Remove them while it explains, or choose another method."
                )
        whole = model if isinstance(output, Logit) else Read(model, output.scores)
        require_modules(whole, rows, layers, "SmoothDiff", known)
        seen.add(now)


class _Derivatives:
    """Keeps the sum of each layer's derivatives over draws, for each sample, while it is entered.

    A layer that is called several times in a pass has one for each of its calls.
    """

    def __init__(self, model: nn.Module, layers: _Layers, samples: int) -> None:
        self.model, self.layers, self.samples = model, layers, samples
        self.sums: dict[nn.Module, list[_Total]] = {}
        self.calls, self.taken = Counter[nn.Module](), dict[nn.Module, Tensor]()
        self.visit: Callable[[nn.Module, Tensor, Tensor], Tensor | None]

    def __enter__(self) -> "_Derivatives":
        self.stack = ExitStack()
        for module in self.layers:
            self.stack.callback(module.register_forward_pre_hook(self._before, with_kwargs=True).remove)
            self.stack.callback(module.register_forward_hook(self._behind).remove)
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.close()

    def add(self, inputs: Inputs, samples: Int64[Tensor, " rows"]) -> Tensor:
        """Add the derivatives at these inputs, each of a sample; the logits."""
        found: dict[nn.Module, list[Tensor]] = {}

        def note(module: nn.Module, x: Tensor, output: Tensor) -> None:
            _require_rows(module, x, len(inputs))
            found.setdefault(module, []).append(self.layers[module].derivative(x.detach(), output.detach()))

        self._begin(note)
        logits = self.model(inputs.detach().requires_grad_()).detach()  # as where it is explained, gradients on
        for module, derivatives in found.items():  # now that the pass has not run out of memory
            sums = self.sums.setdefault(module, [_Total(self.samples, each) for each in derivatives])
            for total, derivative in zip(sums, derivatives, strict=False):
                total.add(samples, derivative)
        if {module: len(sums) for module, sums in self.sums.items()} != self.calls:
            raise ValueError(_OTHER_CALLS)
        return logits

    def gradient(
        self, count: int, output: Output, inputs: Inputs, target: Labels, samples: Int64[Tensor, " rows"]
    ) -> Inputs:
        """The gradient in which each layer has the mean of this number of derivatives."""

        def replace(module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
            if (sums := self.sums.get(module)) is None:
                raise ValueError(_OTHER_CALLS)
            mean = sums[self.calls[module] % len(sums)].mean(samples, count).to(x.dtype)  # checkpoints call it again
            return _Replaced.apply(x, output.detach(), partial(self.layers[module].back, mean, x.shape))

        self._begin(replace)
        return input_gradient(self.model, inputs, target, output)

    def _begin(self, visit: Callable[[nn.Module, Tensor, Tensor], Tensor | None]) -> None:
        """A pass, in which each layer is visited."""
        self.visit = visit
        self.calls.clear()

    def _before(self, module: nn.Module, arguments: Any, options: Any) -> Any:
        self.taken[module] = x = (*arguments, *options.values())[0]
        return ((x.clone(),), {}) if getattr(module, "inplace", False) else None

    def _behind(self, module: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        changed = self.visit(module, self.taken.pop(module), output)
        self.calls[module] += 1
        return changed


class _Total:
    """A sum of derivatives for each sample, in the order of memory that the layer has them in."""

    def __init__(self, samples: int, like: Tensor) -> None:
        self.order = [0, *sorted(range(1, like.ndim), key=lambda axis: like.stride()[axis], reverse=True)]
        shape = (samples, *(like.shape[axis] for axis in self.order[1:]))
        wide = torch.promote_types(like.dtype, torch.float32)
        self.sum = torch.zeros(shape, dtype=wide, device=like.device)

    def add(self, samples: Tensor, derivative: Tensor) -> None:
        self.sum.index_add_(0, samples, derivative.permute(self.order).to(self.sum.dtype))

    def mean(self, samples: Tensor, count: int) -> Tensor:
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return (self.sum[samples] / count).permute(back)


class _Replaced(torch.autograd.Function):
    """An output with another backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.back(gradient), None, None


_OTHER_CALLS = (
    "`model` must call the same nonlinear layers in each of its passes for SmoothDiff; here that depends on the input."
)


def _require_rows(module: nn.Module, x: Tensor, rows: int) -> None:
    if isinstance(module, nn.MaxPool2d) and x.ndim != 4:
        raise ValueError(
            "`model` must give nn.MaxPool2d (batch, channel, height, width) for SmoothDiff, got shape "
            f"{tuple(x.shape)}."
        )
    if len(x) != rows:
        raise ValueError(
            f"`model` must keep its rows in front, (batch, ...), in all nonlinear layers for SmoothDiff; one was given "
            f"{tuple(x.shape)} for {rows} rows."
        )
