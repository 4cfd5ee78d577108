"""LightningModules, and what reads their checkpoints."""

from lightning_xai.modules.classifier import ClassifierModule
from lightning_xai.modules.pretrained import PretrainedClassifier

__all__ = ["ClassifierModule", "PretrainedClassifier"]
