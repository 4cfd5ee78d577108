"""Lightning callbacks that look at a model's explanations while it trains."""

from lightning_xai.callbacks.attribution import AttributionCallback
from lightning_xai.callbacks.pareto import ParetoFront
from lightning_xai.callbacks.randomization import RandomizationCallback
from lightning_xai.callbacks.sentinel import ShortcutSentinel

__all__ = ["AttributionCallback", "ParetoFront", "RandomizationCallback", "ShortcutSentinel"]
