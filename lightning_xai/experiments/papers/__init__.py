"""The papers' experiments, each by one command: `lightning-xai reproduce NAME`."""

from collections.abc import Mapping
from types import MappingProxyType

from lightning_xai.experiments.papers import (
    adaptgrad_convergence,
    adaptgrad_noise,
    adaptgrad_table1,
    noise_level,
    noisegrad_table1,
    sanity_adebayo,
)
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "noise-level": noise_level.EXPERIMENT,
        "noisegrad-table1": noisegrad_table1.EXPERIMENT,
        "sanity-adebayo": sanity_adebayo.EXPERIMENT,
        "adaptgrad-table1": adaptgrad_table1.EXPERIMENT,
        "adaptgrad-noise": adaptgrad_noise.EXPERIMENT,
        "adaptgrad-convergence": adaptgrad_convergence.EXPERIMENT,
    }
)
"""By the name that the command line knows."""

__all__ = ["EXPERIMENTS", "Experiment", "Lab"]
