"""Figures of a comparison: means with intervals, box plots, ranks, and the agreement between metrics."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter

from lightning_xai.reporting.colors import AGREEMENT, BEST, FAINT, NO_DIRECTION, RANKS, WORSE
from lightning_xai.reporting.comparison import (
    agreeing_metrics,
    agreement_note,
    matching_note,
    tau_text,
)
from lightning_xai.reporting.marks import cell_names, heat_map, method_axes, remark, row_names, value_axis
from lightning_xai.reporting.pages import FONT_SIZE, SMALL, Page, per_row, styled
from lightning_xai.reporting.saving import save_figures
from lightning_xai.results.comparison import Comparison, MethodResult, MetricComparison
from lightning_xai.results.tables import with_arrow

_AXIS_WIDTHS = {1: 3.4, 2: 2.6, 3: 2.1, 4: 1.9}
"""By the number of axes side by side."""
_ROTATION = 40.0


def write_comparison_figures(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the figures of `comparison_figures` to the folder as comparison-NAME.png, and return their paths.

    Other comparison-*.png, which an earlier comparison has left there, are removed.

    Raises:
        OSError: if the folder cannot be written to.
    """
    return save_figures(comparison_figures(comparison), folder, "comparison")


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """`bars`, `boxes`, `ranks` and `agreement`, without those that would show nothing."""
    figures: dict[str, Figure] = {}
    if any(metric.num_samples for metric in comparison.metrics):
        figures |= {"bars": score_bars(comparison), "boxes": score_boxes(comparison)}
    if any((result.rank or 1) > 1 for metric in comparison.metrics for result in metric.methods):
        figures["ranks"] = rank_map(comparison)
    if comparison.agreements:
        figures["agreement"] = agreement_map(comparison)
    return figures


def score_bars(comparison: Comparison) -> Figure:
    """Mean and confidence interval of each method, an axis for each metric."""
    heading = f"Mean and {100 * (1 - comparison.alpha):.4g} % confidence interval"
    return _small_multiples(comparison, _draw_bar, heading, [])


def score_boxes(comparison: Comparison) -> Figure:
    """Box plot of each method's scores, an axis for each metric."""
    note = (
        "Box: quartiles and median. Whiskers: last score within 1.5 times the length of the box. Dots: scores beyond."
    )
    return _small_multiples(comparison, _draw_box, "Scores of the samples", [note])


def rank_map(comparison: Comparison) -> Figure:
    """Rank of each method in each metric with a direction."""
    metrics = [metric for metric in comparison.metrics if metric.higher_is_better is not None]
    found = {(result.method, metric.metric): result for metric in metrics for result in metric.methods if result.rank}
    table = [[found.get((method, metric.metric)) for metric in metrics] for method in comparison.methods]
    ranks = np.array([[np.nan if cell is None else float(cell.rank or 0) for cell in row] for row in table])
    marked = [comparison.marked(metric) for metric in metrics]
    texts = [
        ["–" if c is None else f"{c.rank}{' ★' * (c.method in m)}" for c, m in zip(row, marked, strict=True)]
        for row in table
    ]
    notes = [*([f"★: {_best_note(comparison)}."] if any(marked) else []), *_common_notes(comparison)]
    heading = _heading(comparison, "Rank of the mean, 1 for the best")
    scale = RANKS, 1.0, float(max(2, len(comparison.methods)))
    return _cells(ranks, texts, scale, 0.28, comparison.methods, comparison.controls, metrics, heading, notes)


def agreement_map(comparison: Comparison) -> Figure:
    """Kendall's tau-b of each pair of metrics with a direction, and its standard error."""
    metrics = agreeing_metrics(comparison)
    position = {metric.metric: number for number, metric in enumerate(metrics)}
    tau = np.full((len(metrics), len(metrics)), np.nan)
    texts = [["" if i == j else "–" for i in range(len(metrics))] for j in range(len(metrics))]
    for agreement in comparison.agreements:
        first, second = (position[name] for name in agreement.metrics)
        error = "" if math.isnan(agreement.standard_error) else f"\n± {agreement.standard_error:.2f}"
        for row, column in ((first, second), (second, first)):
            tau[row, column] = agreement.tau
            texts[row][column] = Formatter.fix_minus(tau_text(agreement.tau)) + error
    matching = [] if comparison.matched_gradients is None else [matching_note(comparison)]
    notes = [f"{agreement_note(comparison)} ±: its standard error.", *matching]
    heading = _heading(comparison, "Agreement between metrics on which method is better")
    return _cells(tau, texts, (AGREEMENT, -1.0, 1.0), 0.38, list(map(_title, metrics)), (), metrics, heading, notes)


# An axis for each metric


def _draw_bar(axes: Axes, row: int, result: MethodResult, color: str) -> None:
    axes.barh(row, result.mean, height=0.66, color=color)
    axes.plot([result.low, result.high], [row, row], color="black", linewidth=1.1, marker="|", markersize=4)


def _draw_box(axes: Axes, row: int, result: MethodResult, color: str) -> None:
    # `bxp` has another name for lying boxes in each of matplotlib's versions.
    (box,) = boxplot_stats(np.array(result.values))
    axes.plot([box["whislo"], box["whishi"]], [row, row], color="black", linewidth=0.9, zorder=1)
    axes.barh(row, box["q3"] - box["q1"], left=box["q1"], height=0.6, color=color, edgecolor="black", linewidth=0.6)
    axes.plot([box["med"]] * 2, [row - 0.3, row + 0.3], color="black", linewidth=1.6, solid_capstyle="butt")
    axes.plot(box["fliers"], [row] * len(box["fliers"]), "o", color=FAINT, markersize=1.5, markeredgewidth=0)


@styled
def _small_multiples(
    comparison: Comparison,
    draw: Callable[[Axes, int, MethodResult, str], None],
    heading: str,
    notes: list[str],
) -> Figure:
    """An axis for each metric, in lines; methods down, named at the left of each line."""
    columns = per_row(len(comparison.metrics), max(_AXIS_WIDTHS))
    titles = list(map(_title, comparison.metrics))
    page, grid = method_axes(
        comparison.methods, titles, columns, _AXIS_WIDTHS[columns], comparison.controls, FONT_SIZE + 6
    )
    for axes, metric in zip(grid, comparison.metrics, strict=True):
        results, marked = {result.method: result for result in metric.methods}, comparison.marked(metric)
        axes.annotate(_samples(metric), (0, 1), (0, 3), "axes fraction", "offset points", size=SMALL, color=FAINT)
        for row, method in enumerate(comparison.methods):
            result = results.get(method)
            if result is None or not result.values:
                remark(axes, row, "undefined" if result else "not scored")
                continue
            draw(axes, row, result, (BEST if method in marked else WORSE) if marked else NO_DIRECTION)
            if method in marked:
                remark(axes, row, "★", 1.02, color=BEST)
        value_axis(axes)
    return page.finished(_heading(comparison, heading), [*notes, *_color_notes(comparison), *_common_notes(comparison)])


# Cells


@styled
def _cells(
    values: np.ndarray,
    texts: list[list[str]],
    scale: tuple[Colormap, float, float],
    height: float,
    rows: Sequence[str],
    italic: Sequence[str],
    metrics: Sequence[MetricComparison],
    heading: str,
    notes: list[str],
) -> Figure:
    """A heat map; names of the rows at the left, titles of the columns rotated above."""
    names, row_height = row_names(rows, height)
    page = Page([0.56 * len(metrics)], [row_height * len(rows)])
    axes = page.axes()
    heat_map(axes, values, texts, *scale)
    cell_names(axes, names, list(map(_title, metrics)), rotation=_ROTATION)
    for label, name in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontstyle("italic" if name in italic else "normal")
    return page.finished(heading, notes)


# Text


def _heading(comparison: Comparison, what: str) -> str:
    """With where the scores come from, if that is a single run."""
    runs = [f": {run.name}, {run.stage}, epoch {run.epoch}" for run in comparison.runs]
    return what + runs[0] if len(runs) == 1 else what


def _title(metric: MetricComparison) -> str:
    return with_arrow(metric.metric, metric.higher_is_better)


def _samples(metric: MetricComparison) -> str:
    return " of ".join(map(str, dict.fromkeys((metric.num_samples, metric.num_common)))) + " samples"


def _color_notes(comparison: Comparison) -> list[str]:
    bare = [metric for metric in comparison.metrics if not comparison.marked(metric)]
    notes = [f"Dark, ★: {_best_note(comparison)}. Light: worse, or a control."]
    directed = [metric for metric in bare if metric.higher_is_better is not None]
    why = ["no direction is better"] * (len(bare) > len(directed))
    why += ["too few samples for a test, or all equal"] * bool(directed)
    gray = [f"Gray: {'; '.join(why)}."] if why else []
    return [" ".join([*(notes if len(bare) < len(comparison.metrics) else []), *gray])]


def _best_note(comparison: Comparison) -> str:
    family = " over all pairs" if comparison.procedure == "all_pairs" else ""
    return f"best, or not significantly worse (Wilcoxon, Holm{family}, {comparison.alpha:g})"


def _common_notes(comparison: Comparison) -> list[str]:
    notes = ["Italics: controls, which know nothing of what the model learnt."] if comparison.controls else []
    return notes if comparison.matched_gradients is None else [*notes, matching_note(comparison)]
