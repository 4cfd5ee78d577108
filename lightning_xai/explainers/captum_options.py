"""Which of Captum's classes and options give one map of an input for an output; the rest is refused by name."""

from inspect import Parameter, signature
from typing import Any

from captum.attr import (
    LRP,
    Attribution,
    DeepLiftShap,
    FeaturePermutation,
    GradientShap,
    KernelShap,
    LayerDeepLiftShap,
    LayerGradientShap,
    Lime,
    NeuronAttribution,
    NoiseTunnel,
    ShapleyValues,
    ShapleyValueSampling,
)
from torch import Tensor

_REFUSED: dict[type[Attribution], str] = {
    NeuronAttribution: "it explains a neuron, not the output `target`",
    NoiseTunnel: "it averages another method: wrap that in `Smooth`, as in Smooth(CaptumExplainer(DeepLift))",
    FeaturePermutation: "it exchanges features between the samples of a batch, so that a map would depend on the "
    "others: use FeatureAblation or LayerFeatureAblation",
    LRP: "Captum keeps its rules on the modules of the model, puts other weights into them, and takes away rules that "
    "were there before",
}
_DRAW = (GradientShap, LayerGradientShap, ShapleyValueSampling, Lime, KernelShap)
_FROM_SEVERAL = (DeepLiftShap, LayerDeepLiftShap)
_FROM_ANY_NUMBER = (GradientShap, LayerGradientShap, *_FROM_SEVERAL)
_MOST_FEATURES = 9
"""Of ShapleyValues, which takes all orders of the features; Captum warns from 10 on."""


def draws(method: type[Attribution]) -> bool:
    """Whether Captum's method draws random numbers."""
    return issubclass(method, _DRAW)


def has_layer(method: type[Attribution]) -> bool:
    """Whether the method looks at a layer."""
    return "layer" in signature(method.__init__).parameters


def check_method(method: type[Attribution]) -> None:
    """Refuse classes that do not explain a model's output by one map like the input."""
    if not (isinstance(method, type) and issubclass(method, Attribution)):
        raise TypeError(f"`method` must be a class of captum.attr, such as captum.attr.Occlusion, got {method!r}.")
    for refused, reason in _REFUSED.items():
        if issubclass(method, refused):
            raise ValueError(f"`method` must not be {method.__name__}: {reason}.")
    needed = set(_required(method.__init__)[2:]) - {"layer"}  # without `self` and the model
    if needed or not _takes(method, "inputs", "target"):
        what = f"is made with {sorted(needed)}" if needed else "takes no `inputs` and `target` to explain"
        raise ValueError(
            f"`method` must explain the outputs of a model for its inputs; {method.__name__} {what}. Use another class "
            "of captum.attr, or one of your own that is made with the model alone."
        )


def check_options(method: type[Attribution], options: dict[str, Any], layer: str | None, baseline: bool) -> None:
    """Refuse options that the method does not take, needs, or would give something else than a map for.

    Args:
        baseline: Whether the explainer has one.
    """
    name, takes = method.__name__, signature(method.attribute).parameters
    unknown = set(options) - set(takes)
    if unknown:
        raise ValueError(f"`options` has {sorted(unknown)}, which {name}.attribute does not take.")
    given = set(options) | ({"baselines"} if baseline else set())
    missing = set(_required(method.attribute)) - given - {"self", "inputs", "target"}
    if missing:
        raise ValueError(f"`options` must have {sorted(missing)}, which {name}.attribute needs.")
    if layer is not None and not has_layer(method):
        raise ValueError(f'`layer` must be None for {name}, which looks at no layer; got "{layer}".')
    if baseline and ("baselines" not in takes or "baselines" in options):
        why = "which has it in `options` too" if "baselines" in options else "which takes no baseline"
        raise ValueError(f"`baseline` must be None for {name}, {why}.")
    _check_values(method, options, layer)
    _check_baselines(method, options.get("baselines"), baseline)


def _check_values(method: type[Attribution], options: dict[str, Any], layer: str | None) -> None:
    for each in options.keys() & {"inputs", "target"}:
        raise ValueError(f"`options` must not have '{each}': it is given when the explainer is called.")
    if options.get("additional_forward_args") is not None:
        raise ValueError("`options` must not have 'additional_forward_args': wrap the model in a module with them.")
    if options.get("return_convergence_delta"):
        raise ValueError("`options` must not have 'return_convergence_delta': an explainer returns attributions alone.")
    if not options.get("return_input_shape", True):
        raise ValueError("`options` must not have 'return_input_shape'=False: maps have the shape of the inputs.")
    if options.get("attribute_to_layer_input") and layer is None:
        raise ValueError("`layer` must be given with 'attribute_to_layer_input': the default is of a layer's output.")
    for each in ("feature_mask", "layer_mask", "layer_baselines"):
        _check_one_row(f"`options['{each}']`", options.get(each))
    if issubclass(method, ShapleyValues):
        mask = options.get("feature_mask")
        features = None if mask is None else len(mask.unique())
        if features is None or features > _MOST_FEATURES:
            raise ValueError(
                f"`options` must have a 'feature_mask' of at most {_MOST_FEATURES} features for ShapleyValues, which "
                f"takes all orders of them, got {features or 'none'}; or use ShapleyValueSampling."
            )


def _check_baselines(method: type[Attribution], baselines: Any, baseline: bool) -> None:
    if issubclass(method, _FROM_SEVERAL) and (
        baseline or not (callable(baselines) or (isinstance(baselines, Tensor) and len(baselines) > 1))
    ):
        raise ValueError(
            f"`options['baselines']` must be a tensor of several samples for {method.__name__} (`baseline` is one: use "
            f"DeepLift with it), got {'`baseline`' if baseline else _kind(baselines)}."
        )
    if not issubclass(method, _FROM_ANY_NUMBER):
        _check_one_row("`options['baselines']`", baselines)


def _check_one_row(name: str, value: Any) -> None:
    """Refuse a tensor of several rows, or a tuple: rows go through the model in groups, and are perturbed copies."""
    if isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a number or one tensor, since there is one input; got {type(value).__name__}.")
    if isinstance(value, Tensor) and value.ndim and len(value) != 1:
        raise ValueError(
            f"{name} must be one for all samples, of shape (1, *shape of a sample), got shape {tuple(value.shape)}. "
            "For one each, explain the samples one by one."
        )


def fitted(options: dict[str, Any], inputs: Tensor) -> dict[str, Any]:
    """The options with baselines and masks where the inputs are; refuses those of another shape than a sample."""
    fitting = dict(options)
    for name in options.keys() & {"baselines", "feature_mask"}:
        value = options[name]
        if not isinstance(value, Tensor) or not value.ndim:
            continue
        if not _broadcasts(value.shape[1:], inputs.shape[1:], exact=name == "baselines"):
            raise ValueError(
                f"`options['{name}']` must have the shape of a sample after its first axis, {tuple(inputs.shape[1:])}, "
                f"got shape {tuple(value.shape)}."
            )
        fitting[name] = value.to(inputs) if value.is_floating_point() else value.to(inputs.device)
    return fitting


def _broadcasts(shape: tuple[int, ...], like: tuple[int, ...], exact: bool) -> bool:
    if exact:
        return tuple(shape) == tuple(like)
    return len(shape) == len(like) and all(one in (1, other) for one, other in zip(shape, like, strict=True))


def _takes(method: type[Attribution], *names: str) -> bool:
    if not hasattr(method, "attribute"):
        return False
    takes = signature(method.attribute).parameters
    return set(names) <= set(takes) or any(one.kind is Parameter.VAR_KEYWORD for one in takes.values())


def _required(function: Any) -> list[str]:
    """Parameters without a default, in order."""
    every = signature(function).parameters.values()
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [one.name for one in every if one.kind in kinds and one.default is Parameter.empty]


def _kind(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
