"""All figures of the sanity checks, from a report to files; bars of the checks' last steps."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.reporting.colors import ACCENT, OUTCOMES, WORSE
from lightning_xai.reporting.marks import method_axes, remark, value_axis
from lightning_xai.reporting.pages import SMALL, drawn_width, per_row, styled
from lightning_xai.reporting.sanity_curves import similarity_curves
from lightning_xai.reporting.sanity_maps import cascade_grid, data_pairs, invariance_pairs, logit_pairs
from lightning_xai.reporting.sanity_values import (
    cells,
    floors,
    means,
    outcomes,
    scored_methods,
    similarities,
    variant_phrase,
    variants,
)
from lightning_xai.reporting.saving import save_figures
from lightning_xai.results.sanity import Cell, Check, Outcome, SanityReport
from lightning_xai.results.sanity_means import Mean

__all__ = [
    "cascade_grid",
    "data_pairs",
    "invariance_pairs",
    "logit_pairs",
    "randomization_bars",
    "sanity_figures",
    "similarity_curves",
    "write_figures",
]

_FLOOR_MARKERS = {"different_images": "D", "random_maps": "o"}
_COLUMNS, _AXIS_WIDTH = 4, 1.9
_BAR = "Bar: mean over samples and networks."
_WHISKER = "Whisker: the interval that decides."
_FLOORS = "Diamond: similarity of maps of different images. Circle: with random maps. Tick: the boundary."
_PAIRS: dict[Check, Callable[..., Figure]] = {
    "data": data_pairs,
    "invariance": invariance_pairs,
    "random_logit": logit_pairs,
}
_HEADINGS: dict[Check, str] = {
    "data": "Similarity of maps of models trained with true and with random labels",
    "invariance": "Similarity of maps of the model and of its twin for shifted inputs",
    "efficient": "Relative rise of the maps' entropy under randomization of all blocks",
    "random_logit": "Similarity of maps of the explained class and of another",
}


def write_figures(report: SanityReport, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the figures of `sanity_figures` to the folder as sanity-NAME.png, and return their paths.

    Other sanity-*.png, which an earlier report has left there, are removed.

    Raises:
        OSError: if the folder cannot be written to.
    """
    return save_figures(sanity_figures(report), folder, "sanity")


def sanity_figures(report: SanityReport) -> dict[str, Figure]:
    """All figures that the report has something for, by name.

    VARIANT-absolute and VARIANT-diverging (`cascade_grid`), VARIANT-SIMILARITY (`similarity_curves`), CHECK-bars
    (`randomization_bars`), and of the checks data, invariance and random_logit CHECK-absolute and CHECK-diverging
    (`data_pairs`, `invariance_pairs`, `logit_pairs`).
    """
    figures: dict[str, Figure] = {}
    for variant in variants(report, "parameters"):
        found = cells(report, "parameters", variant)
        if _has_maps(report, found):
            figures[f"{variant}-absolute"] = cascade_grid(report, variant)
            figures[f"{variant}-diverging"] = cascade_grid(report, variant, absolute=False)
        figures |= {f"{variant}-{name}": similarity_curves(report, variant, name) for name in similarities(found)}
    for check in ("parameters", *_HEADINGS):
        ending = _ending(report, check)
        if similarities(ending):
            figures[f"{check}-bars"] = randomization_bars(report, check)
        if check in _PAIRS and _has_maps(report, ending):
            figures[f"{check}-absolute"] = _PAIRS[check](report)
            figures[f"{check}-diverging"] = _PAIRS[check](report, absolute=False)
    return figures


def _has_maps(report: SanityReport, found: Sequence[Cell]) -> bool:
    return len(report.images) > 0 and any(len(cell.maps) for cell in found)


def _ending(report: SanityReport, check: Check) -> list[Cell]:
    """The cells of a check's last step; of the parameters, where all blocks are randomized."""
    known = [variant for variant in variants(report, check) if variant != "independent"]
    if not known:
        return []
    found = cells(report, check, "full" if "full" in known else known[0])
    last = max(cell.key.step for cell in found)
    return [cell for cell in found if cell.key.step == last]


@styled
def randomization_bars(report: SanityReport, check: Check) -> Figure:
    """Mean similarity with the maps of the trained model: an axis for each similarity, a bar for each method.

    Of efficient MPRT the rise of the maps' entropy is shown instead, which has no floors.
    Of the parameters, the last step is shown, with all blocks randomized: of "full", or of a cascade if there is none.
    Bars are means over samples and networks, whiskers the interval that decides (`Mean`), and ticks the boundary, with
    which it is compared; diamonds and circles are the method's floors, which the check "invariance" has none of,
    because maps should stay alike there. Verdicts stand beside the names.

    Raises:
        ValueError: if the report has no scores for that.
    """
    found = _ending(report, check)
    shown = similarities(found)
    if not shown:
        known = dict.fromkeys(f"{cell.key.check}/{cell.key.variant}" for cell in report.cells)
        raise ValueError(f"`report` has no scores of a last step of the check {check!r}; it has {', '.join(known)}.")
    methods, verdicts = scored_methods(report, found), outcomes(report, check)
    columns = per_row(len(shown), _COLUMNS)
    page, grid = method_axes(methods, shown, columns, _AXIS_WIDTH)
    notes = dict.fromkeys([_BAR])
    for axes, similarity in zip(grid, shown, strict=True):
        levels = {} if check == "invariance" else floors(report, similarity)
        by_method = {method: mean for (method, _), mean in means(found, similarity, report).items()}
        for row, method in enumerate(methods):
            notes |= dict.fromkeys(_draw_mean(axes, row, by_method.get(method), levels.get(method, {})))
    for position, axes in enumerate(grid):
        value_axis(axes, shown=(0.0, 1.0))
        if position:
            axes.sharex(grid[0])
        if position % columns == 0:
            _draw_verdicts(axes, methods, verdicts)
    deciding = dict.fromkeys(verdict.similarity for verdict in report.verdicts if verdict.check == check)
    if deciding:
        notes[f"Verdict: by {', '.join(deciding)}."] = None
    return page.finished(_heading(found), list(notes))


def _draw_verdicts(axes: Axes, methods: Sequence[str], verdicts: Mapping[str, Outcome]) -> None:
    """Between the names and the axes."""
    for row, method in enumerate(methods):
        if outcome := verdicts.get(method):
            remark(axes, row, outcome, -0.02, ha="right", weight="bold", color=OUTCOMES[outcome])
    widths = [drawn_width(outcome, SMALL, "bold") for outcome in verdicts.values()]
    axes.tick_params("y", pad=72 * (max(widths, default=0.0) + 0.1))


def _heading(found: Sequence[Cell]) -> str:
    key = found[0].key
    if key.check != "parameters":
        return _HEADINGS[key.check]
    step = "" if key.variant == "full" else f", last step ({key.block})"
    return f"Similarity of maps under {variant_phrase(key.variant)}{step}"


def _draw_mean(axes: Axes, row: int, mean: Mean | None, levels: Mapping[str, float]) -> list[str]:
    """Bar, whisker, boundary and floors of a method; what is to be said of them."""
    if mean is None or math.isnan(mean.value):
        remark(axes, row, "not scored" if mean is None else "undefined", 0.03)
        return []
    axes.barh(row, mean.value, height=0.66, color=WORSE)
    axes.plot([mean.low, mean.high], [row, row], color="black", linewidth=1.1, label="interval")
    if not math.isnan(mean.floor):
        boundary = mean.floor + mean.margin
        axes.plot([boundary] * 2, [row - 0.4, row + 0.4], color=ACCENT, linewidth=0.8, label="boundary")
    style: dict[str, Any] = {"linestyle": "", "markersize": 4, "color": ACCENT, "markerfacecolor": "none"}
    for variant, level in levels.items():
        axes.plot([level], [row], marker=_FLOOR_MARKERS[variant], label=variant, **style)
    whisker = [] if math.isnan(mean.low) else [_WHISKER]
    return [*whisker, *([_FLOORS] if levels else [])]
