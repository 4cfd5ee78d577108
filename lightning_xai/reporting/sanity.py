"""What the sanity checks found: records, and the files that hold them."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_xai.results.files import write_csv
from lightning_xai.results.tables import ResultTable

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
        maps: Pixel maps under the changed model, or of the other class (kept, height, width), of the first samples of
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


@dataclass(frozen=True)
class Verdict:
    """What a check says about a method, and why."""

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


@dataclass(frozen=True)
class SanityReport:
    """All that a run of the checks found.

    Attributes:
        settings: How it was made: network, checkpoint, seed, initialization, similarities, versions, ...
        samples: Indices of the samples in their data set.
        images: (kept, channel, height, width), the first samples on a scale of 0 to 1, for figures.
        cells: All comparisons.
        models: What the changed models still do.
        verdicts: One for each check and method.
        alpha: Chance of a wrong PASS, and of a wrong FAIL; of the intervals in figures too.
        margin: Of equivalence with the floor, as a share of the way from it to 1.
    """

    settings: dict[str, Any]
    samples: tuple[int, ...]
    images: np.ndarray = field(repr=False)
    cells: tuple[Cell, ...] = field(repr=False)
    models: tuple[ModelState, ...]
    verdicts: tuple[Verdict, ...]
    alpha: float = 0.05
    margin: float = MARGIN


def verdict_table(report: SanityReport) -> ResultTable:
    """A line for each check and method, with the reason."""
    rows = tuple((verdict.check, verdict.method, verdict.outcome, verdict.reason) for verdict in report.verdicts)
    return ResultTable("sanity checks", ("check", "method", "verdict", "why"), rows, bold=frozenset())


def write_sanity(report: SanityReport, folder: str | os.PathLike[str]) -> list[Path]:
    """Write verdicts.csv, similarities.csv (a line for each sample) and models.csv, each as a whole.

    Raises:
        OSError: if the folder cannot be written to.
    """
    key = [field.name for field in fields(CellKey)]
    similarities = (
        [*astuple(cell.key), similarity, sample, f"{value:.6g}"]
        for cell in report.cells
        for similarity, values in cell.scores.items()
        for sample, value in zip(report.samples, values.tolist(), strict=True)
    )
    folder = Path(folder)
    return [
        write_csv(folder / "verdicts.csv", _table(Verdict, report.verdicts)),
        write_csv(folder / "similarities.csv", chain([[*key, "similarity", "sample", "value"]], similarities)),
        write_csv(folder / "models.csv", _table(ModelState, report.models)),
    ]


def _table(kind: type, rows: Iterable[Any]) -> list[Sequence[object]]:
    """Records under the names of their fields."""
    return [[field.name for field in fields(kind)], *map(astuple, rows)]
