"""What the sanity checks found, as records."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lightning_xai.results.tables import Printed, ResultTable, from_above

MARGIN = 0.05
"""Of equivalence with the floor, as a share of the way from it to 1."""
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Check = Literal["original", "floor", "parameters", "data", "invariance", "efficient", "random_logit"]
"""`original`: the maps of the trained model, which all others are compared with; `floor`: maps that have nothing to do
with them; the others are the checks."""


@dataclass(frozen=True)
class CellKey:
    """Which comparison: one method under one changed model."""

    check: Check
    variant: str
    """Of the parameters, and of efficient MPRT, an ordering of the blocks (`randomization.Ordering`); of the floor
    `different_images` or `random_maps`; of the data `labels`; of the input `shift`; of the random logit `classes`."""
    step: int
    """Position in the variant's order, from 0."""
    block: str
    """The block randomized in this step, or what else the step is called; empty where there is only one."""
    repeat: int
    method: str


@dataclass(frozen=True)
class Cell:
    """How alike the maps of the changed and of the trained model are, sample by sample.

    Attributes:
        key: Which comparison.
        scores: By similarity, (samples,), NaN where undefined; of efficient MPRT the rise of the entropy.
        maps: Pixel maps under the changed model, or of the other class (kept, *places), of the first samples of
            repeat 0, for figures.
    """

    key: CellKey
    scores: dict[str, np.ndarray]
    maps: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), dtype=np.float32), repr=False)


@dataclass(frozen=True)
class ModelState:
    """What a changed model still does (`randomization.ModelEvidence`)."""

    check: Check
    variant: str
    step: int
    block: str
    repeat: int
    accuracy: float
    entropy: float
    """Mean entropy of the output, in nats."""
    activation_scale: float
    """Root mean square of the logits."""
    spread: float = math.nan
    """Root mean square of what the logits differ by from image to image; 0 where that is rounding."""


@dataclass(frozen=True, repr=False)
class Verdict(Printed):
    """What a check says about a method, and why; it prints as a sentence."""

    check: Check
    method: str
    outcome: Outcome
    similarity: str
    """The one that decided."""
    mean: float
    """Mean similarity over samples and networks."""
    low: float
    """Lower end of the confidence interval; where there is a floor, of the difference from it, beside its mean."""
    high: float
    threshold: float
    """What the mean is compared with: the floor, or the boundary of the check."""
    margin: float
    """How far above the threshold still counts as at it."""
    networks: int
    """Changed networks that it is of; 1 where the samples are the unit."""
    reason: str
    """One sentence."""
    step: str = ""
    """Which step of the check decided."""

    def _parts(self) -> list[str]:
        return [f"{self.outcome}: {self.method}, {self.check}: {self.reason}"]


@dataclass(frozen=True, repr=False)
class SanityReport(Printed):
    """All that a run of the checks found; it prints as the table of its verdicts.

    Attributes:
        settings: How it was made: network, checkpoint, seed, initialization, similarities, versions, ...
        samples: Indices of the samples in their data set.
        images: (kept, channel, *places), the first samples on a scale of 0 to 1, for figures.
        cells: All comparisons.
        models: What the changed models still do.
        verdicts: One for each check and method.
        alpha: Chance of a wrong PASS, and of a wrong FAIL; of the intervals in figures too.
        margin: Margin of equivalence with the floor, as a share of the way from it to 1.
    """

    settings: dict[str, Any]
    samples: tuple[int, ...]
    images: np.ndarray = field(repr=False)
    cells: tuple[Cell, ...] = field(repr=False)
    models: tuple[ModelState, ...]
    verdicts: tuple[Verdict, ...]
    alpha: float = 0.05
    margin: float = MARGIN

    def _parts(self) -> list[ResultTable]:
        return [from_above("reporting.tables:verdict_table")(self)]
