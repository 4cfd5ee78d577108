"""LightningModules, and what reads their checkpoints."""

from lightning_xai.modules.classifier import ClassifierModule

__all__ = ["ClassifierModule"]
