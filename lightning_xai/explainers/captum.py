"""Any of Captum's attribution methods as one of our explainers."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import (
    Attribution,
    Deconvolution,
    DeepLift,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    LayerAttribution,
    LayerFeatureAblation,
    LayerGradCam,
    PerturbationAttribution,
)
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, Explainer, check_count, check_kind, check_positive, check_rows
from lightning_xai.explainers.captum_options import check_method, check_options, draws, fitted, has_layer
from lightning_xai.explainers.chunks import check_takes_one_row, in_chunks, probe_rows
from lightning_xai.explainers.feature_maps import Walk, find_layer, last_feature_maps, tapped
from lightning_xai.explainers.gradient import NO_PATH, Baseline, baseline_like, checked_baseline, require_bounds
from lightning_xai.explainers.precision import called_in_float32
from lightning_xai.explainers.rectifiers import one_module_a_call, require_deep_lift, require_guided
from lightning_xai.explainers.state import seeded
from lightning_xai.functional.bounds import put_on_bounds
from lightning_xai.outputs import Logit, Output, Read
from lightning_xai.shapes import Inputs, Keys, Labels

__all__ = [
    "CaptumExplainer",
    "find_layer",
    "grad_cam",
    "gradient_shap",
    "guided_backprop",
    "guided_grad_cam",
    "last_feature_maps",
]

_NO_GRADIENT = ("does not require grad", "doesn't require gradient", "allow_unused")
"""What PyTorch says where a method of Captum asks for a gradient that there is not."""

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
"""How maps are enlarged, by the number of axes of the inputs."""

_GUIDED = (GuidedBackprop, Deconvolution, GuidedGradCam)


@dataclass(frozen=True)
class CaptumExplainer(Explainer):
    """An attribution method of Captum.

    Maps of a layer (GradCAM) are enlarged to the size of the inputs, which are series, images or volumes (batch,
    channel, *extents), linearly along each extent, and spread evenly over the channels, so that the sum over channels
    is the enlarged map. How tokens and maps with the channels last lie on the input is seen from what the network does
    to the axes (class and register tokens are left out); what cannot be seen is refused, unless `reshape` says it.
    Captum draws from the global random state: here it is seeded from the sample's key and put back afterwards.

    Guided backpropagation and deconvolution change the derivative of nn.ReLU modules alone. Networks with other
    rectifiers (see `require_guided`) are refused, since these would keep their own derivative; so do, by definition of
    the method, functions that are no rectifiers: the sigmoids and tanhs of gates, softmax, pooling, normalization.
    DeepLIFT has rules for some modules; networks with other nonlinear functions are refused (see `require_deep_lift`),
    and so are explained outputs with such functions (`Probability`, `Margin`, ...).

    Refused when the explainer is made: methods of neurons, those that explain no output or compare the samples of a
    batch, LRP (Captum changes the model for it), NoiseTunnel (use `Smooth`), and options whose result is not one map
    (convergence deltas) or that have a row for each sample.

    Attributes:
        method: A class of captum.attr, e.g. `captum.attr.GuidedBackprop`, or one like them.
        options: Keyword arguments of its `attribute`.
        layer: Name of the layer that a layer method looks at, at its last run if it runs several times; None for
            `last_feature_maps`.
        reshape: Makes (batch, channel, *extents) of what that layer gives, by moving values, as
            `lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14))` does; None where it is to be seen.
        baseline: As in `IntegratedGradients`; None leaves Captum's default (zeros in the space of the inputs).
        stochastic: Whether the method draws random numbers, which is known of Captum's own. It is then called for one
            sample at a time, so that the result does not depend on the batch.

    Raises:
        TypeError: if `method` is no such class, or an option is a tuple where one tensor is needed.
        ValueError: if `method`, an option, `layer` or `baseline` is refused, as above, or `reshape` has no `layer`;
            when called, if the model is.

    Example:
        >>> import captum.attr
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> method = lx.explainers.CaptumExplainer(captum.attr.FeatureAblation, baseline=1.0)
        >>> lx.explain(model, torch.full((1, 2), 3.0), target=0, method=method).round(decimals=3)
        tensor([[ 2., -4.]])
    """

    method: type[Attribution]
    options: dict[str, Any] = field(default_factory=dict)
    layer: str | None = None
    baseline: Baseline | None = None
    stochastic: bool = False
    reshape: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        check_kind("options", self.options, dict, "a dictionary")
        check_kind("layer", self.layer, str | None, "the name of a layer, or None")
        if self.baseline is not None:
            object.__setattr__(self, "baseline", checked_baseline(self.baseline))
        if self.reshape is not None and self.layer is None:
            raise ValueError("`reshape` needs a `layer`, the name of the layer whose output it is given.")
        check_method(self.method)
        check_options(self.method, self.options, self.layer, self.baseline is not None)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        rows = probe_rows(model, inputs, context.max_rows).clone()
        if target.device.type == "cpu":  # else `resolve_target` has looked at them
            with torch.no_grad():
                context.output.check(check_rows(model(rows), len(rows)), target)
        options = fitted(self.options, inputs)
        if options.get("interpolate_mode") in _LINEAR.values():
            options["interpolate_mode"] = _LINEAR.get(inputs.ndim, "bilinear")
        if self.baseline is not None:
            options["baselines"] = baseline_like(inputs, self.baseline, context).expand_as(inputs[:1])
            inputs = _on_baseline(inputs, self.baseline, context)
        keys = context.private_keys("Captum")
        most = context.max_rows
        if self._one_by_one(model):
            check_takes_one_row(model, inputs, self.method.__name__)
            most = 1
        with (
            _no_leftovers(model),
            called_in_float32(model, inputs.dtype) if draws(self.method) else nullcontext(),
            one_module_a_call(model, self._reused(model, rows, context.output)),
            self._bound(model, rows, context.output) as bound,
        ):
            return in_chunks(partial(self._call, bound, options), model, most, inputs, target, keys)

    def _reused(self, model: nn.Module, rows: Tensor, output: Output) -> dict[nn.Module, int]:
        """The modules that the method must not see called again; refuses what it would treat wrongly, silently."""
        if issubclass(self.method, _GUIDED):
            require_guided(model, rows, self.method.__name__)
        if not issubclass(self.method, DeepLift):
            return {}
        whole = model if isinstance(output, Logit) else Read(model, output.scores)  # which may not be affine
        return require_deep_lift(whole, rows, self.method.__name__)

    def _one_by_one(self, model: nn.Module) -> bool:
        """Whether a map would otherwise depend on the rows beside it, or Captum fail on several rows.

        Captum's rule of softmax in DeepLIFT sums over the rows; and LayerFeatureAblation loses their targets.
        """
        sums = issubclass(self.method, DeepLift) and any(isinstance(part, nn.Softmax) for part in model.modules())
        loses = issubclass(self.method, LayerFeatureAblation) and self.options.get("perturbations_per_eval", 1) > 1
        return self.stochastic or draws(self.method) or sums or loses

    @contextmanager
    def _bound(self, model: nn.Module, rows: Tensor, output: Output) -> Iterator[Attribution]:
        """The method bound to what is explained of the model, and to the layer if it asks for one."""
        read = Read(model, output.scores)
        if not has_layer(self.method):
            yield self.method(read)
            return
        of_input = self.layer is not None and bool(self.options.get("attribute_to_layer_input"))
        if self.layer is None:
            maps = Walk(model, rows).last_maps()
        else:
            layer = find_layer(model, self.layer)
            differentiated = not issubclass(self.method, PerturbationAttribution)
            maps = Walk(model, rows).maps_of(layer, self.reshape, differentiated, of_input)
            if maps.reshape is None:
                yield self.method(read, layer)  # type: ignore[call-arg]
                return
        with tapped(model, maps, rows.ndim, of_input) as tap:
            yield self.method(read, tap)  # type: ignore[call-arg]

    def _call(self, method: Attribution, options: dict[str, Any], inputs: Inputs, target: Labels, keys: Keys) -> Inputs:
        with seeded(int(keys[0]), inputs.device), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks", UserWarning)
            try:
                attributions = method.attribute(inputs.clone().requires_grad_(), target=target, **options)
            except RuntimeError as error:
                if not any(text in str(error) for text in _NO_GRADIENT):
                    raise
                raise ValueError(NO_PATH) from error
        if not isinstance(attributions, Tensor):
            raise TypeError(
                f"`method` must give one tensor, got {type(attributions).__name__} from {self.method.__name__}."
            )
        attributions = attributions.detach().to(inputs.dtype)
        of_inputs = attributions.shape == inputs.shape and not issubclass(self.method, LayerAttribution)
        return attributions if of_inputs else _enlarge(attributions, inputs)


def _on_baseline(inputs: Inputs, baseline: Baseline, context: Context) -> Inputs:
    """The inputs, exactly black or white where they are so but for rounding: there they do not differ from it."""
    if not isinstance(baseline, str):
        return inputs
    bounds = require_bounds(inputs, context, f'baseline="{baseline}"')
    return put_on_bounds(inputs, *bounds)[0].to(inputs.dtype)


@contextmanager
def _no_leftovers(model: nn.Module) -> Iterator[None]:
    """Remove what Captum's DeepLift leaves on the modules when an exception interrupts it."""
    before = {module: set(vars(module)) for module in model.modules()}
    try:
        yield
    except BaseException:
        for module, names in before.items():
            for name in vars(module).keys() - names:
                delattr(module, name)
        raise


def _enlarge(attributions: Tensor, inputs: Inputs) -> Inputs:
    """A layer's map as an attribution of the input: channels summed, enlarged, spread over the input's channels."""
    if attributions.ndim != inputs.ndim or inputs.ndim not in _LINEAR:
        raise ValueError(
            f"The method's attributions have shape {tuple(attributions.shape)} for `inputs` of shape "
            f"{tuple(inputs.shape)}; only maps of series, images and volumes can be enlarged to the inputs."
        )
    maps = attributions.sum(1, keepdim=True)
    maps = F.interpolate(maps, inputs.shape[2:], mode=_LINEAR[inputs.ndim], align_corners=False)
    return (maps / inputs.shape[1]).expand_as(inputs).contiguous()


def guided_backprop() -> CaptumExplainer:
    """Guided backpropagation (Springenberg et al. 2015): negative gradients are dropped at every ReLU.

    Every rectifier must be an nn.ReLU module: networks with others are refused (see `CaptumExplainer`). Functions that
    are none, such as the sigmoid of a gate, keep their derivative.

    Raises:
        ValueError: when called, if the model has other rectifiers, or no nn.ReLU.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> model[1].weight.data = torch.tensor([[1.0, -2.0]])
        >>> lx.explain(model, torch.ones(1, 2), target=1, method=lx.explainers.guided_backprop())
        tensor([[1., 0.]])
    """
    return CaptumExplainer(GuidedBackprop)


def grad_cam(layer: str | None = None, reshape: Callable[[Tensor], Tensor] | None = None) -> CaptumExplainer:
    """GradCAM (Selvaraju et al. 2017), with its final ReLU: not negative.

    The rectified sum of a layer's maps, each times its gradient's mean over the map; of a transformer's tokens, or of
    maps with the channels last, likewise (see `CaptumExplainer`). A layer may lie behind a part that runs without
    gradients, not in one.

    Args:
        layer: Name of the layer; None for `last_feature_maps`.
        reshape: Makes maps of what that layer gives, as in `CaptumExplainer`.

    Raises:
        ValueError: when called, if the model has no such layer, or its maps are refused.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> conv = torch.nn.Conv2d(1, 1, kernel_size=1, bias=False)
        >>> conv.weight.data = torch.ones(1, 1, 1, 1)
        >>> model = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])  # each pixel has a quarter of the mean, the logit
        >>> lx.explain(model, images, target=1, method=lx.explainers.grad_cam()).flatten()
        tensor([0.2500, 0.5000, 0.7500, 1.0000])
    """
    return CaptumExplainer(LayerGradCam, {"relu_attributions": True}, layer, reshape=reshape)


def guided_grad_cam(layer: str | None = None) -> CaptumExplainer:
    """Guided GradCAM (Selvaraju et al. 2017): guided backpropagation times the enlarged GradCAM map.

    Args:
        layer: Name of the layer; None for `last_feature_maps`.

    Raises:
        ValueError: when called, as `guided_backprop` and `grad_cam`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> method = lx.explainers.guided_grad_cam(layer="features.relu2")
        >>> lx.explain(lx.networks.LeNet(), torch.rand(5, 1, 28, 28), method=method).shape
        torch.Size([5, 1, 28, 28])
    """
    return CaptumExplainer(GuidedGradCam, {"interpolate_mode": "bilinear"}, layer)


def gradient_shap(baseline: Baseline = "black", num_draws: int = 20, std: float = 0.0) -> CaptumExplainer:
    """GradientSHAP (Lundberg and Lee 2017; Erion et al. 2021): (x - b) times the mean gradient at random path points.

    Args:
        baseline: As in `IntegratedGradients`.
        num_draws: Number of random points on the path.
        std: Standard deviation of the noise on the input, in the space of the inputs. Captum adds it: it is not part of
            `noise_std`, and so not of the inherent noise.

    Raises:
        TypeError: if `num_draws` is no whole number, or `std` no number.
        ValueError: if `num_draws` is less than 1, `std` negative or not finite, or `baseline` unknown; when called, if
            bounds are missing.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> method = lx.explainers.gradient_shap(baseline=1.0)
        >>> lx.explain(model, torch.full((1, 2), 3.0), target=0, method=method).round(decimals=3)
        tensor([[ 2., -4.]])
    """
    check_count("num_draws", num_draws)
    check_positive("std", std, or_zero=True)
    options = {"n_samples": num_draws, "stdevs": std}
    return CaptumExplainer(GradientShap, options, baseline=baseline, stochastic=True)
