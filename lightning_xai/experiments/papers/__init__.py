"""The papers' experiments, each by one command: `lightning-xai reproduce NAME`."""

from collections.abc import Mapping
from types import MappingProxyType

from lightning_xai.experiments.papers import noise_level, noisegrad_figure4, noisegrad_table2, noisegrad_toy
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "noise-level": noise_level.EXPERIMENT,
        "noisegrad-figure4": noisegrad_figure4.EXPERIMENT,
        "noisegrad-table2": noisegrad_table2.EXPERIMENT,
        "noisegrad-toy": noisegrad_toy.EXPERIMENT,
    }
)
"""By the name that the command line knows."""

__all__ = ["EXPERIMENTS", "Experiment", "Lab"]
