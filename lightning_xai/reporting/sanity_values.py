"""What the figures of the sanity checks show: a report's cells in order, with means, intervals and floors."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lightning_xai.results.sanity import Cell, Check, ModelState, Outcome, SanityReport
from lightning_xai.results.sanity_means import Grid, Mean, deciding_steps, floors_of, mean_of, one_network
from lightning_xai.statistics.means import mean

ORIGINAL = -1
"""The trained model's place among the steps."""

_VARIANTS = {
    "cascading_from_top": "cascading randomization from the output down",
    "cascading_from_bottom": "cascading randomization from the input up",
    "independent": "randomization of one block at a time",
    "full": "randomization of all blocks",
}


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
