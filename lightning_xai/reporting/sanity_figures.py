"""All figures of the sanity checks, from a report to files; bars of the checks' last steps, and pictures of maps."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.checks import check_choice
from lightning_xai.reporting.colors import ACCENT, FAINT, OUTCOMES, SCALE_NOTE, WORSE
from lightning_xai.reporting.marks import method_axes, remark, value_axis
from lightning_xai.reporting.pages import SMALL, Page, drawn_width, per_row, styled, wrapped
from lightning_xai.reporting.pictures import Picture, PictureGrid, map_picture, shown
from lightning_xai.reporting.sanity_curves import similarity_curves
from lightning_xai.reporting.sanity_values import (
    cells,
    floors,
    means,
    outcomes,
    scored_methods,
    similarities,
    steps,
    variant_phrase,
    variants,
)
from lightning_xai.reporting.saving import save_figures
from lightning_xai.results.sanity import Cell, Check, Outcome, SanityReport
from lightning_xai.results.sanity_means import Mean

_FLOOR_MARKERS = {"different_images": "D", "random_maps": "o"}
_COLUMNS, _AXIS_WIDTH = 4, 1.9
_BAR = "Bar: mean over samples and networks."
_WHISKER = "Whisker: the interval that decides."
_FLOORS = "Diamond: similarity of maps of different images. Circle: with random maps. Tick: the boundary."
PAIRS: Mapping[str, tuple[Sequence[str], str]] = {
    "data": (("true labels", "random labels"), "of models trained with true and with random labels"),
    "invariance": (("original", "shifted"), "of the model and of its twin for shifted inputs"),
    "random_logit": (("original", "another class"), "of the explained class and of another"),
}
"""Of the checks that compare maps two by two: what the two are called, and what they are of."""
_NAME_WIDTH, _SCALE = 1.8, 0.67
"""Of the grids of maps."""
_STRIP, _SLICES = (60, 100), 4
"""Of those of what is no image: sides of a cell, and most slices of a volume."""


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
    (`map_pairs`).
    """
    figures: dict[str, Figure] = {}
    for variant in variants(report, "parameters"):
        found = cells(report, "parameters", variant)
        if _has_maps(report, found):
            figures[f"{variant}-absolute"] = cascade_grid(report, variant)
            figures[f"{variant}-diverging"] = cascade_grid(report, variant, absolute=False)
        figures |= {f"{variant}-{name}": similarity_curves(report, variant, name) for name in similarities(found)}
    for check in _DRAWN:
        ending = _ending(report, check)
        if similarities(ending):
            figures[f"{check}-bars"] = randomization_bars(report, check)
        if check in PAIRS and _has_maps(report, ending):
            figures[f"{check}-absolute"] = map_pairs(report, check)
            figures[f"{check}-diverging"] = map_pairs(report, check, absolute=False)
    return figures


_DRAWN: tuple[Check, ...] = ("parameters", "data", "invariance", "efficient", "random_logit")


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
    if key.check == "efficient":
        return "Relative rise of the maps' entropy under randomization of all blocks"
    if key.check in PAIRS:
        return f"Similarity of maps {PAIRS[key.check][1]}"
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


# Maps of the trained model beside those of the changed models


def cascade_grid(
    report: SanityReport, variant: str, absolute: bool = True, samples: Sequence[int] | None = None
) -> Figure:
    """Maps as blocks are randomized: a row a method, a column a step, a block of rows a sample (Adebayo et al. 2018).

    The first column holds the maps of the trained model, the others those of repeat 0. Every map has its own color
    scale, which ends at the 99th percentile of its absolute values: from 0 for absolute values, otherwise symmetric
    around 0. Maps of tables and series are strips, the input of a series is one with a line a channel; of volumes there
    are slices. A dash stands for a map that the report does not have; values that are not finite are gray.

    Args:
        report: With maps.
        variant: An ordering of the parameters' blocks.
        absolute: Absolute values instead of signed ones.
        samples: Positions among the samples whose maps were kept; by default the first two.

    Raises:
        ValueError: if the report has no cells of the variant, or no maps of these samples.
    """
    found = cells(report, "parameters", variant)
    blocks = ["original", *(block for _, block in steps(found))]
    what = f"under {variant_phrase(variant)}"
    return _maps_figure(report, found, blocks, what, absolute, _chosen(report, samples, 2), False)


def map_pairs(
    report: SanityReport, check: Check, absolute: bool = True, samples: Sequence[int] | None = None
) -> Figure:
    """Maps of the trained model beside those that the check compares with them: one of `PAIRS`.

    A row a method, two columns a sample, by default of all samples kept; colors as in `cascade_grid`.

    Raises:
        ValueError: if the check has no pairs, or the report no cells of it, or no maps of these samples.
    """
    check_choice("check", check, PAIRS)
    titles, what = PAIRS[check]
    return _maps_figure(report, cells(report, check), titles, what, absolute, _chosen(report, samples), True)


@styled
def _maps_figure(
    report: SanityReport,
    found: Sequence[Cell],
    titles: Sequence[str],
    what: str,
    absolute: bool,
    samples: list[int],
    beside: bool,
) -> Figure:
    """A grid of maps for each sample, which stands in front of them, below or beside that of the sample before."""
    methods = scored_methods(report, found)
    maps = {(cell.key.method, cell.key.step): cell.maps for cell in found if cell.key.repeat == 0}
    maps |= {(cell.key.method, -1): cell.maps for cell in report.cells if cell.key.check == "original"}
    numbers = [-1, *(number for number, _ in steps(found))]
    names = [wrapped(name, _NAME_WIDTH) for name in methods]
    height, width = _plane(report.images[samples[0]]).shape[1:]
    shape = _STRIP if report.images.ndim == 3 else (height, width)
    grids = [
        PictureGrid(shape, names, [f"sample {report.samples[sample]}", *titles], (1, 2), _SCALE) for sample in samples
    ]
    across, down = (len(samples), 1) if beside else (1, len(samples))
    page = Page([grids[0].width] * across, [grids[0].height] * down)
    for number, (grid, sample) in enumerate(zip(grids, samples, strict=True)):
        grid.prepare(page.axes(*divmod(number, across)), named=number % across == 0)
        grid.show(0, 0, Picture(shown(np.clip(_plane(report.images[sample]), 0, 1))))
        for row, method in enumerate(methods):
            for column, step in enumerate(numbers, 1):
                kept = maps.get((method, step), ())
                if sample < len(kept):
                    (values,) = _plane(kept[sample][None])
                    values = np.abs(values) if absolute else values
                    grid.show(row, column, map_picture(values, not absolute))
                else:
                    grid.write(row, column, "–", color=FAINT)
    grids[0 if beside else -1].draw_scale(not absolute)
    return page.finished(f"{'Absolute maps' if absolute else 'Maps'} {what}", [f"{SCALE_NOTE}."])


def _plane(values: np.ndarray) -> np.ndarray:
    """(channel, *places) as a picture, (channel, height, width): of a row of places a strip, of a volume slices."""
    if values.ndim == 4:
        depth, height = values.shape[1:3]
        chosen = np.linspace(0, depth - 1, min(depth, _SLICES)).round().astype(int)
        return values[:, chosen].swapaxes(1, 2).reshape(len(values), height, -1)
    return values[None] if values.ndim == 2 else values


def _chosen(report: SanityReport, samples: Sequence[int] | None, default: int | None = None) -> list[int]:
    kept = len(report.images)
    chosen = list(range(kept))[:default] if samples is None else list(samples)
    if not chosen or not all(0 <= sample < kept for sample in chosen):
        raise ValueError(
            f"`samples` must be positions among the {kept} samples whose maps `report` keeps, from 0; got {chosen}. "
            "Keep more maps where the report is made."
        )
    return chosen
