"""All figures of the sanity checks, from a report to files; bars of the checks' last steps."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_xai.reporting.layout import LINE, PAD
from lightning_xai.reporting.pages import FAINT, SMALL, Page, drawn_width, num_lines, wrapped
from lightning_xai.reporting.sanity_curves import OUTCOME_COLORS, similarity_curves
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
from lightning_xai.reporting.saving import save_figure
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

_BAR_COLOR = "#a9cfe8"
_FLOOR_MARKERS = {"different_images": "D", "random_maps": "o"}
_COLUMNS, _AXIS_WIDTH, _GAP, _BELOW = 4, 1.9, 0.3, 2 * LINE
_NAME_WIDTH, _ROW_HEIGHT = 2.4, 0.24
_LEAST_WIDTH = 4.5
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
    figures = {Path(folder) / f"sanity-{name}.png": figure for name, figure in sanity_figures(report).items()}
    for path, figure in figures.items():
        save_figure(figure, path)
    for path in set(Path(folder).glob("sanity-*.png")) - figures.keys():
        path.unlink()
    return list(figures)


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
    panels = [_Panel(name, means(found, name, report), _floors(report, check, name)) for name in similarities(found)]
    if not panels:
        known = dict.fromkeys(f"{cell.key.check}/{cell.key.variant}" for cell in report.cells)
        raise ValueError(f"`report` has no scores of a last step of the check {check!r}; it has {', '.join(known)}.")
    rows = _Rows(scored_methods(report, found), outcomes(report, check))
    columns = math.ceil(len(panels) / math.ceil(len(panels) / _COLUMNS))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = rows.width + len(lines[0]) * (_AXIS_WIDTH + _GAP)
    pitch = LINE + PAD + rows.height + _BELOW
    notes = [*_notes(panels), *_verdict_note(report, check)]
    page = Page(max(_LEAST_WIDTH, width), len(lines) * pitch, _heading(found), notes)
    for number, line in enumerate(lines):
        top = page.top + number * pitch + LINE + PAD
        rows.draw_names(page, top)
        for column, panel in enumerate(line):
            left = rows.width + column * (_AXIS_WIDTH + _GAP)
            page.text(left, top - PAD / 2, panel.similarity, weight="bold", va="bottom")
            _draw_panel(page.axes(left, top, _AXIS_WIDTH, rows.height), panel, rows.methods, panels)
    return page.figure


def _floors(report: SanityReport, check: Check, similarity: str) -> dict[str, dict[str, float]]:
    return {} if check == "invariance" else floors(report, similarity)


@dataclass(frozen=True)
class _Panel:
    """One similarity."""

    similarity: str
    means: Mapping[tuple[str, int], Mean]
    floors: Mapping[str, Mapping[str, float]]

    @property
    def extent(self) -> list[float]:
        """What an axis must reach."""
        ends = [end for mean in self.means.values() for end in (mean.value, mean.low, mean.high)]
        levels = [level for method, _ in self.means for level in self.floors.get(method, {}).values()]
        return [end for end in (*ends, *levels) if not math.isnan(end)]


class _Rows:
    """The methods, from above, with their verdicts; lengths in inches."""

    def __init__(self, methods: Sequence[str], verdicts: Mapping[str, Outcome]) -> None:
        self.methods, self.verdicts = methods, verdicts
        self.names = [wrapped(method, _NAME_WIDTH) for method in methods]
        self.pitch = max(_ROW_HEIGHT, LINE * max(map(num_lines, self.names)) + 0.06)
        self.height = self.pitch * len(methods)
        self.names_width = PAD + max(map(drawn_width, self.names)) + PAD
        self.width = self.names_width
        if verdicts:
            self.width += max(drawn_width(text, SMALL, "bold") for text in verdicts.values()) + PAD

    def draw_names(self, page: Page, top: float) -> None:
        for row, (method, name) in enumerate(zip(self.methods, self.names, strict=True)):
            middle = top + (row + 0.5) * self.pitch
            page.text(self.names_width - PAD, middle, name, ha="right", va="center")
            if outcome := self.verdicts.get(method):
                style = {"size": SMALL, "weight": "bold", "color": OUTCOME_COLORS[outcome]}
                page.text(self.names_width, middle, outcome, va="center", **style)


def _heading(found: Sequence[Cell]) -> str:
    key = found[0].key
    if key.check != "parameters":
        return _HEADINGS[key.check]
    step = "" if key.variant == "full" else f", last step ({key.block})"
    return f"Similarity of maps under {variant_phrase(key.variant)}{step}"


def _notes(panels: Sequence[_Panel]) -> list[str]:
    known = [mean for panel in panels for mean in panel.means.values()]
    notes = ["Bar: mean over samples and networks."]
    if not all(math.isnan(mean.low) for mean in known):
        notes[0] += " Whisker: the interval that decides."
    if any(panel.floors for panel in panels):
        notes.append("Diamond: similarity of maps of different images. Circle: with random maps. Tick: the boundary.")
    return notes


def _verdict_note(report: SanityReport, check: Check) -> list[str]:
    deciding = dict.fromkeys(verdict.similarity for verdict in report.verdicts if verdict.check == check)
    return [f"Verdict: by {', '.join(deciding)}."] if deciding else []


def _draw_panel(axes: Axes, panel: _Panel, methods: Sequence[str], panels: Sequence[_Panel]) -> None:
    _set_limits(axes, [end for other in panels for end in other.extent], len(methods))
    by_method = {method: mean for (method, _), mean in panel.means.items()}
    for row, method in enumerate(methods):
        mean = by_method.get(method)
        if mean is None or math.isnan(mean.value):
            text = "not scored" if mean is None else "undefined"
            axes.text(0.03, row, text, color=FAINT, size=SMALL, va="center")
            continue
        axes.barh(row, mean.value, height=0.66, color=_BAR_COLOR)
        axes.plot([mean.low, mean.high], [row, row], color="black", linewidth=1.1, label="interval")
        if not math.isnan(mean.floor):
            boundary = mean.floor + mean.margin
            axes.plot([boundary] * 2, [row - 0.4, row + 0.4], color="#d55e00", linewidth=0.8, label="boundary")
        for variant, level in panel.floors.get(method, {}).items():
            style: dict[str, Any] = {"marker": _FLOOR_MARKERS[variant], "color": "#d55e00", "markerfacecolor": "none"}
            axes.plot([level], [row], linestyle="", markersize=4, label=variant, **style)


def _set_limits(axes: Axes, values: Sequence[float], num_rows: int) -> None:
    """Limits that show the values, 0 and 1."""
    low, high = min(0.0, *values), max(1.0, *values)
    margin = 0.04 * (high - low)
    axes.set(xlim=(low - margin, high + margin), ylim=(num_rows - 0.5, -0.5), yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color="0.6")
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params("x", length=2, pad=2, color="0.6", labelsize=SMALL)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0.9)
