"""The papers' experiments, each by one command: `lightning-xai reproduce NAME`."""

from collections.abc import Mapping
from types import MappingProxyType

from lightning_xai.experiments.papers import noise_level, noisegrad_table1, sanity_adebayo
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "noise-level": noise_level.EXPERIMENT,
        "noisegrad-table1": noisegrad_table1.EXPERIMENT,
        "sanity-adebayo": sanity_adebayo.EXPERIMENT,
    }
)
"""By the name that the command line knows."""

__all__ = ["EXPERIMENTS", "Experiment", "Lab"]
