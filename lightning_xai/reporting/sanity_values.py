"""What the figures of the sanity checks show: a report's cells in order, with means, intervals and floors."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import get_args

import numpy as np
from jaxtyping import Float64

from lightning_xai.reporting.sanity import Cell, Check, ModelState, Outcome, SanityReport
from lightning_xai.sanity.blocks import Ordering

CONFIDENCE = 0.95
_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
ORIGINAL = -1
"""The trained model's place among the steps."""

_VARIANTS = {
    "cascading_from_top": "cascading randomisation from the output down",
    "cascading_from_bottom": "cascading randomisation from the input up",
    "independent": "randomisation of one block at a time",
    "full": "randomisation of all blocks",
}


@dataclass(frozen=True)
class Mean:
    """Of all scores of a method at a step; NaN where no sample, or only one for the spread, has a score."""

    value: float
    low: float
    """Lower end of the normal confidence interval of the mean, whose variance is that over samples, each averaged over
    the repeats, by their number, plus that over repeats, by theirs: both other images and other weights vary it."""
    high: float
    deviation: float
    """Standard deviation over samples, each averaged over the repeats."""
    repeats: tuple[float, ...] = ()
    """The mean of each repeat, NaN where it has no score."""
    is_complete: bool = True
    """Whether every score is defined; those that are not are left out."""


IDENTICAL = Mean(1.0, 1.0, 1.0, 0.0)
"""The trained model's maps and themselves."""
UNKNOWN = Mean(math.nan, math.nan, math.nan, math.nan)


def mean_of(scores: Float64[np.ndarray, "repeats samples"]) -> Mean:
    """The mean over samples and repeats."""
    defined = np.isfinite(scores)
    value = float(scores[defined].mean()) if defined.any() else math.nan
    samples, repeats = (np.ma.masked_invalid(scores).mean(axis=axis).filled(np.nan) for axis in (0, 1))
    (deviation, error), (_, other_error) = map(_spread, (samples, repeats))
    half = _QUANTILE * math.hypot(error, 0.0 if math.isnan(other_error) else other_error)
    return Mean(value, value - half, value + half, deviation, tuple(repeats.tolist()), bool(defined.all()))


def _spread(values: Float64[np.ndarray, " values"]) -> tuple[float, float]:
    """Standard deviation, and standard error of the mean."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return math.nan, math.nan
    deviation = float(known.std(ddof=1))
    return deviation, deviation / math.sqrt(len(known))


# Cells


def methods(report: SanityReport) -> list[str]:
    """In the order of the report."""
    return list(dict.fromkeys(cell.key.method for cell in report.cells))


def scored_methods(report: SanityReport, found: Iterable[Cell]) -> list[str]:
    """Those that cells are of, in the order of the report."""
    present = {cell.key.method for cell in found}
    return [name for name in methods(report) if name in present]


def variants(report: SanityReport, check: Check) -> list[str]:
    """Of a check; those of the parameters in the order of `Ordering`."""
    found = dict.fromkeys(cell.key.variant for cell in report.cells if cell.key.check == check)
    return [*(name for name in get_args(Ordering) if name in found), *(n for n in found if n not in get_args(Ordering))]


def variant_phrase(variant: str) -> str:
    """In words."""
    return _VARIANTS.get(variant, variant)


def cells(report: SanityReport, check: Check, variant: str | None = None) -> list[Cell]:
    """Of a check, of all its variants if none is named.

    Raises:
        ValueError: if there are none.
    """
    found = [c for c in report.cells if c.key.check == check and variant in (None, c.key.variant)]
    if not found:
        asked = f"check {check!r}" if variant is None else f"variant {variant!r} of the check {check!r}"
        known = dict.fromkeys(f"{c.key.check}/{c.key.variant}".rstrip("/") for c in report.cells)
        raise ValueError(f"`report` has no cells of the {asked}; it has {', '.join(known) or 'none at all'}.")
    return found


def steps(found: Iterable[Cell]) -> list[tuple[int, str]]:
    """Number and block of each step that cells have, in order."""
    return sorted({(cell.key.step, cell.key.block) for cell in found})


def similarities(found: Iterable[Cell]) -> list[str]:
    """Names of the scores that cells have, in their order."""
    return list(dict.fromkeys(name for cell in found for name in cell.scores))


def means(found: Iterable[Cell], similarity: str) -> dict[tuple[str, int], Mean]:
    """Of each method and step that has scores; repeats that one of them misses count as undefined."""
    scored = [cell for cell in found if similarity in cell.scores]
    repeats = sorted({cell.key.repeat for cell in scored})
    tables: dict[tuple[str, int], Float64[np.ndarray, "repeats samples"]] = {}
    for cell in scored:
        scores = cell.scores[similarity]
        table = tables.setdefault((cell.key.method, cell.key.step), np.full((len(repeats), len(scores)), np.nan))
        table[repeats.index(cell.key.repeat)] = scores
    return {key: mean_of(table) for key, table in tables.items()}


def floors(report: SanityReport, similarity: str) -> dict[str, dict[str, float]]:
    """Mean similarity of maps that have nothing to do with each other: by method, by variant."""
    found: dict[str, dict[str, float]] = {}
    for variant in variants(report, "floor"):
        for (method, _), mean in means(cells(report, "floor", variant), similarity).items():
            if not math.isnan(mean.value):
                found.setdefault(method, {})[variant] = mean.value
    return found


def outcomes(report: SanityReport, check: Check, similarity: str | None = None) -> dict[str, Outcome]:
    """Verdicts by method; only those that this similarity decided, if one is named."""
    return {
        verdict.method: verdict.outcome
        for verdict in report.verdicts
        if verdict.check == check and similarity in (None, verdict.similarity)
    }


def states(report: SanityReport, variant: str) -> dict[int, list[ModelState]]:
    """What the models of each step of the variant still do, by the number of the step."""
    found: dict[int, list[ModelState]] = {}
    for state in report.models:
        if state.check == "original":
            found.setdefault(ORIGINAL, []).append(state)
        elif state.check == "parameters" and state.variant == variant:
            found.setdefault(state.step, []).append(state)
    return found
