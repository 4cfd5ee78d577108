"""Train classifiers with PyTorch Lightning and measure, at every validation end, how good their explanations are.

Names are imported when they are first asked for: what does not explain anything does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_xai._version import __version__

if TYPE_CHECKING:
    from lightning_xai.evaluation import Evaluation, evaluate, explain
    from lightning_xai.explainers import *  # noqa: F403
    from lightning_xai.explainers import (
        Gradient,
        InputXGradient,
        IntegratedGradients,
        PerturbWeights,
        Saliency,
        Smooth,
        adapt_grad,
        fusion_grad,
        noise_grad,
        smooth_grad,
    )
    from lightning_xai.explainers.bounds import bounds
    from lightning_xai.forward import Forward

__all__ = [
    "Evaluation",
    "Forward",
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    "PerturbWeights",
    "Saliency",
    "Smooth",
    "__version__",
    "adapt_grad",
    "bounds",
    "evaluate",
    "evaluate_stream",  # noqa: F405, of a room above this one
    "explain",
    "find_shortcuts",  # noqa: F405, likewise
    "fusion_grad",
    "noise_grad",
    "show",  # noqa: F405, likewise
    "smooth_grad",
]

_ROOMS = (
    *("callbacks", "cli", "data", "evaluation", "experiments", "explainers", "functional", "metrics", "modules"),
    *("networks", "outputs", "reporting", "results", "sanity", "shortcuts", "statistics", "visualization"),
)
_HOMES = {
    **{"bounds": "explainers.bounds", "evaluate_stream": "experiments.stream", "Forward": "forward"},
    **{"find_shortcuts": "shortcuts", "show": "reporting.show"},
    **dict.fromkeys(("Evaluation", "evaluate", "explain"), "evaluation"),
}


def __getattr__(name: str) -> Any:
    """A room of the package, or what is in `evaluation`, or an explainer."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES.get(name, 'explainers')}")
    if name not in _HOMES and name not in home.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(home, name)  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *import_module(f"{__name__}.explainers").__all__})
