"""Sanity checks of explanations: models that know less or say the same otherwise, similarity of maps, verdicts."""

from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import examine, paper_methods
from lightning_xai.sanity.invariance import invariance_scores, shifted_twin
from lightning_xai.sanity.randomization import Randomization, evidence, parameter_blocks, randomize, steps
from lightning_xai.sanity.refined import cosine_convergence, efficient_mprt, random_logit

__all__ = [
    "Randomization",
    "Subject",
    "cosine_convergence",
    "efficient_mprt",
    "evidence",
    "examine",
    "invariance_scores",
    "paper_methods",
    "parameter_blocks",
    "random_logit",
    "randomize",
    "shifted_twin",
    "steps",
]
