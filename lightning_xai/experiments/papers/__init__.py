"""The papers' experiments, each by one command: `lightning-xai reproduce NAME`."""

from collections.abc import Mapping
from types import MappingProxyType

from lightning_xai.experiments.papers import (
    adaptgrad_convergence,
    adaptgrad_noise,
    adaptgrad_table1,
    noise_level,
    noisegrad_figure5,
    noisegrad_toy,
    sanity_adebayo,
    shortcut_dial,
)
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.studies.lab import Lab

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "noise-level": noise_level.EXPERIMENT,
        "noisegrad-figure5": noisegrad_figure5.EXPERIMENT,
        "noisegrad-toy": noisegrad_toy.EXPERIMENT,
        "adaptgrad-noise": adaptgrad_noise.EXPERIMENT,
        "adaptgrad-table1": adaptgrad_table1.EXPERIMENT,
        "adaptgrad-convergence": adaptgrad_convergence.EXPERIMENT,
        "sanity-adebayo": sanity_adebayo.EXPERIMENT,
        "shortcut-dial": shortcut_dial.EXPERIMENT,
    }
)
"""By the name that the command line knows."""

__all__ = ["EXPERIMENTS", "Experiment", "Lab"]
