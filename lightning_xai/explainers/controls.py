"""Controls: maps that know nothing of what the network learnt. A method that does not beat them explains nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, Explainer, check_kind
from lightning_xai.explainers.precomputed import Precomputed
from lightning_xai.explainers.untrained import Untrained
from lightning_xai.functional.devices import sent
from lightning_xai.functional.random import standard_normal
from lightning_xai.shapes import Inputs, Labels


@dataclass(frozen=True)
class RandomAttribution(Explainer):
    """Independent N(0, 1) values, the same for the same sample and seed: chance.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> maps = lx.explain(torch.nn.Linear(2, 2), torch.ones(1, 2), method=lx.explainers.RandomAttribution())
        >>> maps.round(decimals=2)
        tensor([[ 2.6200, -0.0100]])
    """

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        keys = context.private_keys("RandomAttribution")
        return standard_normal(keys, inputs.shape[1:], inputs.device).to(inputs.dtype, copy=True)


@dataclass(frozen=True)
class InputAttribution(Explainer):
    """The input itself, whatever the model.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.tensor([[0.2, 0.7]])
        >>> lx.explain(torch.nn.Linear(2, 2), images, method=lx.explainers.InputAttribution())
        tensor([[0.2000, 0.7000]])
    """

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        return inputs


@dataclass(frozen=True)
class SobelEdges(Explainer):
    """Edge strength of each channel: the root of the mean square of the Sobel derivatives, the border repeated.

    Two derivatives of images, one of series (there is nothing to smooth along), three of volumes.

    Raises:
        ValueError: when called, if the inputs are not (batch, channel, ...) with one to three extents.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)  # an upright edge
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> lx.explain(model, images, method=lx.explainers.SobelEdges())[0, 0, 0]
        tensor([0.0000, 0.7071, 0.7071, 0.0000])
    """

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        if inputs.ndim not in _CONVOLUTIONS:
            raise ValueError(
                "`inputs` must be series, images or volumes, (batch, channel, ...), to have edges; got shape "
                f"{tuple(inputs.shape)}."
            )
        kernels = sent(_sobel_kernels(inputs.ndim - 2), inputs.device, inputs.dtype)[:, None]
        padded = F.pad(inputs.flatten(0, 1)[:, None], (1, 1) * (inputs.ndim - 2), mode="replicate")
        with torch.autocast(inputs.device.type, enabled=False):  # which is for the model
            return _CONVOLUTIONS[inputs.ndim](padded, kernels).square().mean(1).sqrt().view_as(inputs)


_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def _sobel_kernels(extents: int) -> Tensor:
    """A derivative along each axis, the last one first; along the others a small smoothing."""
    slope, smooth = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.25, 0.5, 0.25])
    factors = [[slope if axis == along else smooth for axis in range(extents)] for along in reversed(range(extents))]
    return torch.stack([reduce(lambda kernel, factor: kernel[..., None] * factor, each) for each in factors])


CONTROLS: Mapping[str, type[Explainer]] = MappingProxyType(
    {"edges": SobelEdges, "random": RandomAttribution, "untrained": Untrained}
)
"""The controls by the names under which every table and figure knows them."""
USUAL = ("edges", "random")
"""The controls that cost nothing."""
Chosen = bool | Sequence[str]


def check_controls(controls: Chosen) -> None:
    """Refuse what is neither True nor False nor names of controls."""
    if isinstance(controls, str) or not isinstance(controls, bool | Sequence):
        raise TypeError(f"`controls` must be True, False or a list of {', '.join(CONTROLS)}, got {controls!r:.100}.")
    for name in () if isinstance(controls, bool) else controls:
        if name not in CONTROLS:
            raise ValueError(f"`controls` must be of {', '.join(CONTROLS)}, got {name!r:.100}.")


def with_controls(
    methods: Mapping[str, Explainer], images: bool = True, controls: Chosen = True
) -> dict[str, Explainer]:
    """The methods, and behind them by their names the controls of kinds that are not among them.

    Args:
        methods: Explainers by name.
        images: Whether the inputs are series, images or volumes; tables have no edges.
        controls: True for `edges` and `random`, False for none, or the names of those wanted; `untrained` is the first
            of the methods that looks at the network, on the untrained network (`Untrained`), and costs what that costs.

    Raises:
        TypeError: if `controls` are no names.
        ValueError: if one is unknown, if no method is there that `untrained` could be of, or if a method that is not
            that control is called as a control is.

    Example:
        >>> import lightning_xai as lx
        >>> from lightning_xai.explainers import with_controls
        >>> list(with_controls({"ours": lx.smooth_grad()}))
        ['ours', 'edges', 'random']
        >>> with_controls({"ours": lx.Gradient()}, controls=["untrained"])
        {'ours': Gradient(), 'untrained': Untrained(explainer=Gradient())}
    """
    check_kind("methods", methods, Mapping, "a dictionary of explainers by name")
    check_controls(controls)
    for name, kind in CONTROLS.items():
        if name in methods and not isinstance(methods[name], kind):
            raise ValueError(
                f"`methods`: {name!r} is the name of the control {kind.__name__}(), with which tables and figures "
                f"compare, but here it is {methods[name]!r}. Give this method another name."
            )
    chosen = (USUAL if controls else ()) if isinstance(controls, bool) else controls
    present = {type(method) for method in methods.values()}
    added = [name for name in CONTROLS if name in chosen and (images or name != "edges")]
    return {**methods, **{name: _made(name, methods) for name in added if CONTROLS[name] not in present}}


def _made(name: str, methods: Mapping[str, Explainer]) -> Explainer:
    if name != "untrained":
        return CONTROLS[name]()
    blind = (SobelEdges, RandomAttribution, InputAttribution, Precomputed)
    first = next((method for method in methods.values() if not isinstance(method, blind)), None)
    if first is None:
        raise ValueError(
            "`controls`: `untrained` is a method on the untrained network, but none of `methods` looks at the network. "
            "Add one, or leave `untrained` out."
        )
    return Untrained(first)
