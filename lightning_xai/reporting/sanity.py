"""What the sanity checks found: records, and the files that hold them."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Check = Literal["original", "floor", "parameters", "data", "invariance"]
"""`original`: the maps of the trained model, which all others are compared with; `floor`: maps that have nothing to do
with them; the others are the checks."""


@dataclass(frozen=True)
class CellKey:
    """Which comparison: one method under one changed model."""

    check: Check
    variant: str
    """An ordering of the parameters' blocks (`randomisation.Ordering`); `different_images` or `random_maps` of the floor;
    `labels` of the data; `shift` of the input."""
    step: int
    """Position in the variant's order, from 0."""
    block: str
    """The block randomised in this step, or what else the step is called; empty where there is only one."""
    repeat: int
    method: str


@dataclass(frozen=True)
class Cell:
    """How alike the maps of the changed and of the trained model are, sample by sample.

    Attributes:
        key: Which comparison.
        scores: By similarity, (samples,), NaN where undefined.
        maps: Pixel maps under the changed model (kept, height, width), of the first samples of repeat 0, for figures.
    """

    key: CellKey
    scores: dict[str, np.ndarray]
    maps: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), dtype=np.float32), repr=False)


@dataclass(frozen=True)
class ModelState:
    """What a changed model still does (`randomisation.ModelEvidence`)."""

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


@dataclass(frozen=True)
class Verdict:
    """What a check says about a method, and why."""

    check: Check
    method: str
    outcome: Outcome
    similarity: str
    """The one that decided."""
    mean: float
    """Mean similarity over samples and repeats."""
    low: float
    """Lower end of the confidence interval of the mean."""
    high: float
    threshold: float
    """What the mean is compared with."""
    reason: str
    """One sentence."""


@dataclass(frozen=True)
class SanityReport:
    """All that a run of the checks found.

    Attributes:
        settings: How it was made: network, checkpoint, seed, initialisation, similarities, versions, ...
        samples: Indices of the samples in their data set.
        images: (kept, channel, height, width), the first samples on a scale of 0 to 1, for figures.
        cells: All comparisons.
        models: What the changed models still do.
        verdicts: One for each check and method.
    """

    settings: dict[str, Any]
    samples: tuple[int, ...]
    images: np.ndarray = field(repr=False)
    cells: tuple[Cell, ...] = field(repr=False)
    models: tuple[ModelState, ...]
    verdicts: tuple[Verdict, ...]
