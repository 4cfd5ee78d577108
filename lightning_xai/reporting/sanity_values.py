"""What the figures of the sanity checks show: a report's cells in order, with means, intervals and floors."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from lightning_xai.reporting.sanity import Cell, Check, ModelState, Outcome, SanityReport
from lightning_xai.statistics.crossed import CrossedMean, crossed_mean
from lightning_xai.statistics.intervals import mean_interval
from lightning_xai.statistics.means import mean

LEAST_DEFINED = 0.5
"""Share of the maps whose similarity must be defined for a verdict."""
LEAST_SAMPLES = 3
"""Samples without which there is no interval of what has a floor."""
ORIGINAL = -1
"""The trained model's place among the steps."""

_ORDER = ("cascading_from_top", "full", "cascading_from_bottom")
_VARIANTS = {
    "cascading_from_top": "cascading randomization from the output down",
    "cascading_from_bottom": "cascading randomization from the input up",
    "independent": "randomization of one block at a time",
    "full": "randomization of all blocks",
}

Grid = Float64[np.ndarray, " networks samples"]
Line = Float64[np.ndarray, " samples"]


@dataclass(frozen=True)
class Mean:
    """Of all scores of a method at a step; NaN where nothing has a score."""

    value: float
    low: float
    """Lower end of the interval that decides; where there is a floor that of the difference from it, beside its mean.
    NaN of a single network, unless the samples are the unit, and of a single sample."""
    high: float
    networks: tuple[float, ...] = ()
    """The mean of each network, NaN where it has no score."""
    num_networks: int = 0
    """Networks with a score of at least half of the samples."""
    is_complete: bool = True
    """Whether every score is defined; those that are not are left out."""
    floor_name: str = ""
    """Of the greater floor; empty without one."""
    floor: float = math.nan
    margin: float = 0.0
    """How far above the floor still counts as at it."""
    num_samples: int = 0
    num_maps: int = 0
    """Scores that there should be: one a network and sample."""
    num_undefined: int = 0
    """Those without a score, or without a floor."""
    network_share: float = math.nan
    """Of the networks in the variance of the mean (`CrossedMean`)."""


IDENTICAL = Mean(1.0, 1.0, 1.0)
"""The trained model's maps and themselves."""
UNKNOWN = Mean(math.nan, math.nan, math.nan)


def one_network(check: Check) -> bool:
    """Whether a check is about the one network, so that the samples are the unit."""
    return check in ("invariance", "random_logit")


def mean_of(
    check: Check,
    scores: Grid,
    floors: Mapping[str, Line] | None = None,
    alpha: float = 0.05,
    margin: float = 0.0,
    num_steps: int = 1,
) -> Mean:
    """The mean, and the interval that decides.

    Args:
        check: Which; of those that change the network, the interval is for other networks and samples.
        scores: NaN where undefined.
        floors: What the scores are compared with, by name: of each sample its part in the floor's mean
            (`parts_of_floor`). The greater one counts.
        alpha: Chance that the lower end lies above the true mean, and chance that the upper end lies below it; of the
            checks of one network, the chance that either happens.
        margin: Share of the way from the floor to 1.
        num_steps: Steps over which the lower end's chance is split.
    """
    means = {name: mean(values) for name, values in (floors or {}).items()}
    name = max(means, key=lambda name: np.nan_to_num(means[name], nan=-np.inf), default="")
    difference = scores - floors[name] if floors else scores
    known = np.isfinite(difference)
    value = mean(np.where(known, scores, np.nan) if known.any() else scores)
    found = _interval(check, difference, alpha, num_steps)
    if floors and known.any(0).sum() < LEAST_SAMPLES:
        found = replace(found, low=math.nan, high=math.nan)
    level = value - found.mean if known.any() else means.get(name, math.nan)  # of the same maps
    offset = level if floors else 0.0
    return Mean(
        value,
        found.low + offset,
        found.high + offset,
        tuple(mean(row) for row in scores),
        int((known.mean(1) >= LEAST_DEFINED).sum()),
        bool(np.isfinite(scores).all()),
        name,
        level if floors else math.nan,
        margin * (1 - level) if floors else 0.0,
        scores.shape[1],
        scores.size,
        int((~known).sum()),
        found.network_share,
    )


def _interval(check: Check, values: Grid, alpha: float, num_steps: int) -> CrossedMean:
    if not one_network(check):
        return crossed_mean(values, alpha / num_steps, alpha)
    known = values[np.isfinite(values)]
    return CrossedMean(mean(values), *mean_interval(known, 1 - alpha), math.nan)


def parts_of_floor(cell: Cell, similarity: str) -> Line:
    """Of each sample its part in the mean of a floor: the scores vary as it does with the samples.

    A sample takes part in the floor of different images twice, as itself and as the other one: twice its distance from
    the mean, as the linear part of a U-statistic has it (Hoeffding 1948), and so many times more as the sample's own
    part is in the mean of the others (the jackknife's pseudo-values). Two samples have a single pair, which tells
    nothing of how it varies.
    """
    scores = cell.scores[similarity].astype(np.float64)
    number = int(np.isfinite(scores).sum())
    if cell.key.variant != "different_images" or number < LEAST_SAMPLES:
        return scores
    return mean(scores) + 2 * (number - 1) / (number - 2) * (scores - mean(scores))


# Cells


def scored_methods(report: SanityReport, found: Iterable[Cell]) -> list[str]:
    """Those that cells are of, in the order of the report."""
    present = {cell.key.method for cell in found}
    return list(dict.fromkeys(cell.key.method for cell in report.cells if cell.key.method in present))


def variants(report: SanityReport, check: Check) -> list[str]:
    """Of a check; those of the parameters in the order of `_VARIANTS`."""
    found = dict.fromkeys(cell.key.variant for cell in report.cells if cell.key.check == check)
    return [*(name for name in _VARIANTS if name in found), *(name for name in found if name not in _VARIANTS)]


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


def means(found: Sequence[Cell], similarity: str, report: SanityReport) -> dict[tuple[str, int], Mean]:
    """Of each method and step of a variant that has scores; networks that one of them misses count as undefined.

    Args:
        report: Whose floors the scores are compared with, at its level and with its margin.
    """
    scored = [cell for cell in found if similarity in cell.scores]
    repeats = sorted({cell.key.repeat for cell in scored})
    tables: dict[tuple[str, int], Grid] = {}
    for cell in scored:
        scores = cell.scores[similarity]
        table = tables.setdefault((cell.key.method, cell.key.step), np.full((len(repeats), len(scores)), np.nan))
        table[repeats.index(cell.key.repeat)] = scores
    check = scored[0].key.check if scored else "parameters"
    margin = 0.0 if one_network(check) else report.margin
    options: dict[str, Any] = {"alpha": report.alpha, "margin": margin, "num_steps": len(deciding_steps(scored))}
    compared = [] if check == "invariance" else report.cells
    return {
        (method, step): mean_of(check, table, floors_of(compared, method, similarity), **options)
        for (method, step), table in tables.items()
    }


def floors_of(found: Iterable[Cell], method: str, similarity: str) -> dict[str, Line]:
    """Of each sample its part in the method's floors (`parts_of_floor`), by variant."""
    mine = [cell for cell in found if (cell.key.check, cell.key.method) == ("floor", method)]
    return {cell.key.variant: parts_of_floor(cell, similarity) for cell in mine if similarity in cell.scores}


def deciding_steps(found: Sequence[Cell]) -> list[list[Cell]]:
    """All networks of each step that decides; of several orderings, of the first of `_ORDER`."""
    kinds = {cell.key.variant for cell in found}
    variant = min(kinds, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    numbers = sorted({cell.key.step for cell in found if cell.key.variant == variant})
    number = 2 if variant == "cascading_from_top" else 1
    return [[c for c in found if (c.key.variant, c.key.step) == (variant, step)] for step in numbers[-number:]]


def floors(report: SanityReport, similarity: str) -> dict[str, dict[str, float]]:
    """Mean similarity of maps that have nothing to do with each other: by method, by variant."""
    found: dict[str, dict[str, float]] = {}
    for variant in variants(report, "floor"):
        for cell in cells(report, "floor", variant):
            value = mean(cell.scores.get(similarity, np.empty(0)).astype(np.float64))
            if not math.isnan(value):
                found.setdefault(cell.key.method, {})[variant] = value
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
