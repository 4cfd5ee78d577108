"""Any of Captum's attribution methods as one of our explainers."""

import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import (
    Attribution,
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    LayerGradCam,
)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_xai.explainers.base import Context, Explainer, check_logits, check_target
from lightning_xai.explainers.chunks import in_chunks
from lightning_xai.explainers.gradient import Baseline, baseline_like, check_baseline
from lightning_xai.explainers.state import seeded
from lightning_xai.shapes import Images, Inputs, Keys, Labels

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NEED_RELU_MODULES = (GuidedBackprop, Deconvolution, GuidedGradCam, DeepLift, DeepLiftShap)
_NEED_A_MODULE_A_CALL = (DeepLift, DeepLiftShap)


@dataclass(frozen=True)
class CaptumExplainer(Explainer):
    """An attribution method of Captum.

    Maps of a layer (GradCAM) are enlarged to the image's size, bilinearly, and spread evenly over its channels, so that
    the sum over channels is the enlarged map. Captum draws from the global random state: here it is seeded from the
    sample's key and put back afterwards.

    Attributes:
        method: A class of captum.attr, e.g. `captum.attr.GuidedBackprop`.
        options: Keyword arguments of its `attribute`.
        layer: Name of the layer that a layer method looks at; None for `last_feature_maps`.
        baseline: As in `IntegratedGradients`; None leaves Captum's default (zeros in the space of the inputs).
        stochastic: Whether the method draws random numbers. It is then called for one sample at a time, so that the
            result does not depend on the batch.
    """

    method: type[Attribution]
    options: dict[str, Any] = field(default_factory=dict)
    layer: str | None = None
    baseline: Baseline | None = None
    stochastic: bool = False

    def __post_init__(self) -> None:
        if self.baseline is not None:
            check_baseline(self.baseline)
        unknown = set(self.options) - set(signature(self.method.attribute).parameters)
        if unknown:
            raise ValueError(f"`options` has {sorted(unknown)}, which {self.method.__name__}.attribute does not take.")

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        with torch.no_grad():
            check_target(target, check_logits(model(inputs[:1]), 1).shape[1])
        options: dict[str, Any] = dict(self.options)
        if self.baseline is not None:
            options["baselines"] = baseline_like(inputs, self.baseline, context).expand_as(inputs[:1])
        keys = context.private_keys("Captum")
        with _no_leftovers(model), one_module_a_call(model, self._reused(model, inputs)):
            call = partial(self._call, self._build(model, inputs), options)
            return in_chunks(call, model, 1 if self.stochastic else context.max_rows, inputs, target, keys)

    def _reused(self, model: nn.Module, inputs: Inputs) -> dict[nn.Module, int]:
        """The modules that the method must not see called again; refuses ReLUs that it would not see at all."""
        hooks_relus = issubclass(self.method, _NEED_RELU_MODULES)
        looks_for_layer = self._has_layer() and self.layer is None
        if hooks_relus:
            require_relu_modules(model, self.method.__name__)
        if not hooks_relus and not looks_for_layer:
            return {}
        with torch.no_grad(), _Calls(model) as calls:
            model(inputs[:1])
        if hooks_relus:
            calls.require_no_functional_relu(self.method.__name__)
        return calls.reused() if looks_for_layer or issubclass(self.method, _NEED_A_MODULE_A_CALL) else {}

    def _has_layer(self) -> bool:
        return "layer" in signature(self.method.__init__).parameters

    def _build(self, model: nn.Module, inputs: Inputs) -> Attribution:
        """The method bound to the model, and to the layer if it asks for one."""
        if not self._has_layer():
            return self.method(model)
        layer = last_feature_maps(model, inputs) if self.layer is None else find_layer(model, self.layer)
        return self.method(model, layer)  # type: ignore[call-arg]

    def _call(self, method: Attribution, options: dict[str, Any], inputs: Inputs, target: Labels, keys: Keys) -> Inputs:
        with seeded(int(keys[0]), inputs.device), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks", UserWarning)
            attributions = method.attribute(inputs.clone().requires_grad_(), target=target, **options)
        attributions = attributions.detach().to(inputs.dtype)
        return attributions if attributions.shape == inputs.shape else _enlarge(attributions, inputs)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of this name."""
    modules = dict(model.named_modules())
    if name not in modules:
        raise ValueError(f'`layer` "{name}" is no submodule of `model`; it has: {", ".join(filter(None, modules))}.')
    return modules[name]


def last_feature_maps(model: nn.Module, inputs: Inputs) -> nn.Module:
    """The module that makes the last maps of the last convolution's size, in the order in which the model runs.

    That is the activation behind the convolution, or the residual block that it ends, in front of any pooling. GradCAM
    of what a convolution puts out before its activation is often zero everywhere, since the final ReLU removes it.
    """
    ran: list[tuple[nn.Module, torch.Size]] = []

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ran.append((module, output.shape[2:]))

    handles = [module.register_forward_hook(note) for module in model.modules() if module is not model]
    try:
        with torch.no_grad():
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    convolutions = [place for place, (module, _) in enumerate(ran) if isinstance(module, _CONVOLUTIONS)]
    if not convolutions:
        raise ValueError("`layer` must be given: `model` has no convolution whose maps GradCAM could show.")
    (convolution, wanted), *after = ran[convolutions[-1] :]
    runs = Counter(module for module, _ in ran)  # a hook on a module that runs several times would see the wrong run
    return [convolution, *(module for module, size in after if size == wanted and runs[module] == 1)][-1]


def require_relu_modules(model: nn.Module, method: str) -> None:
    """Refuse models on which a method that changes the ReLUs' backward pass would silently be the plain gradient.

    ReLUs that work in place are no obstacle: Captum gives them a copy of their input.
    """
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError(
            f"`model` must apply its ReLUs as nn.ReLU modules for {method}; it has none (functional calls and other "
            "activations, such as ReLU6 or GELU, cannot be hooked)."
        )


class _Calls(TorchDispatchMode):
    """Notes the calls of the model's modules, and the ReLUs that run, while the block runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.runs, self.relus = model, Counter[nn.Module](), 0

    def __enter__(self) -> "_Calls":
        self._handles = [module.register_forward_hook(self._note) for module in self.model.modules()]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.relus += function.overloadpacket in (torch.ops.aten.relu, torch.ops.aten.relu_)
        return function(*args, **(kwargs or {}))

    def _note(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self.runs[module] += 1

    def require_no_functional_relu(self, method: str) -> None:
        """Refuse models some of whose ReLUs are no modules: there the method would silently be the plain gradient."""
        modules = sum(runs for module, runs in self.runs.items() if isinstance(module, nn.ReLU))
        if self.relus > modules:
            raise ValueError(
                f"`model` must apply its ReLUs as nn.ReLU modules for {method}; of {self.relus} ReLUs "
                f"{self.relus - modules} are functional calls, which cannot be hooked."
            )

    def reused(self) -> dict[nn.Module, int]:
        """How often each module without parameters or parts ran that ran several times."""
        return {
            module: runs
            for module, runs in self.runs.items()
            if runs > 1 and not any(module.parameters()) and not any(module.children())
        }


class _InTurn(nn.Module):
    """Copies of a module, each for one of its calls."""

    def __init__(self, module: nn.Module, runs: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(module) for _ in range(runs))
        self.turn = 0

    def forward(self, *arguments: Any, **options: Any) -> Any:
        self.turn += 1
        return self.copies[self.turn - 1](*arguments, **options)

    def restart(self, model: nn.Module, arguments: Any) -> None:
        """A pass through the model begins."""
        self.turn = 0


@contextmanager
def one_module_a_call(model: nn.Module, reused: dict[nn.Module, int]) -> Iterator[None]:
    """Put copies of re-used modules into the model while the block runs, as many as the module has calls in a pass.

    DeepLIFT keeps what a module took and returned on the module, where a second call would overwrite it; and GradCAM's
    last feature maps may come from one of several calls.
    """
    places = [
        (parent, name, part) for parent in model.modules() for name, part in parent._modules.items() if part in reused
    ]
    copies = {module: _InTurn(module, runs) for module, runs in reused.items()}
    handles = [model.register_forward_pre_hook(each.restart) for each in copies.values()]
    try:
        for parent, name, part in places:
            parent._modules[name] = copies[part]  # type: ignore[index]
        yield
    finally:
        for parent, name, part in places:
            parent._modules[name] = part
        for handle in handles:
            handle.remove()


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


def _enlarge(attributions: Tensor, inputs: Images) -> Images:
    """A layer's map as an attribution of the input: channels summed, enlarged, spread over the input's channels."""
    if attributions.ndim != 4 or inputs.ndim != 4:
        raise ValueError(
            f"The method's attributions have shape {tuple(attributions.shape)} for `inputs` of shape "
            f"{tuple(inputs.shape)}; only spatial maps of images can be enlarged to the inputs."
        )
    maps = attributions.sum(1, keepdim=True)
    maps = F.interpolate(maps, inputs.shape[2:], mode="bilinear", align_corners=False)
    return (maps / inputs.shape[1]).expand_as(inputs).contiguous()


def guided_backprop() -> CaptumExplainer:
    """Guided backpropagation (Springenberg et al. 2015): negative gradients are dropped at every ReLU."""
    return CaptumExplainer(GuidedBackprop)


def grad_cam(layer: str | None = None) -> CaptumExplainer:
    """GradCAM (Selvaraju et al. 2017), with its final ReLU: not negative.

    Args:
        layer: Name of the layer; None for `last_feature_maps`.
    """
    return CaptumExplainer(LayerGradCam, {"relu_attributions": True}, layer)


def guided_grad_cam(layer: str | None = None) -> CaptumExplainer:
    """Guided GradCAM (Selvaraju et al. 2017): guided backpropagation times the enlarged GradCAM map.

    Args:
        layer: Name of the layer; None for `last_feature_maps`.
    """
    return CaptumExplainer(GuidedGradCam, {"interpolate_mode": "bilinear"}, layer)


def gradient_shap(baseline: Baseline = "black", num_draws: int = 20, std: float = 0.0) -> CaptumExplainer:
    """GradientSHAP (Lundberg and Lee 2017; Erion et al. 2021): (x - b) times the mean gradient at random path points.

    Args:
        baseline: As in `IntegratedGradients`.
        num_draws: Number of random points on the path.
        std: Standard deviation of the noise on the input, in the space of the inputs. Captum adds it: it is not part of
            `noise_std`, and so not of the inherent noise.
    """
    options = {"n_samples": num_draws, "stdevs": std}
    return CaptumExplainer(GradientShap, options, baseline=baseline, stochastic=True)
