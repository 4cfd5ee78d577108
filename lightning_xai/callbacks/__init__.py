"""Lightning callbacks that look at a model's explanations while it trains."""

from lightning_xai.callbacks.attribution import AttributionCallback

__all__ = ["AttributionCallback"]
