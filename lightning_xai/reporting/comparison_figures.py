"""Figures of a comparison: means with intervals, box plots, ranks, and the agreement between metrics."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator

from lightning_xai.reporting.comparison import agreeing_metrics, agreement_note, matching_note, tau_text
from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD
from lightning_xai.reporting.pages import FAINT, SMALL, TEXT, Page, drawn_width, num_lines, wrapped
from lightning_xai.reporting.saving import save_figure
from lightning_xai.results.comparison import Comparison, MethodResult, MetricComparison
from lightning_xai.results.tables import with_arrow

_BEST, _WORSE, _NO_DIRECTION = "#0072b2", "#a9cfe8", "0.75"
_NAME_WIDTH = 2.4
_AXIS_WIDTHS = {1: 3.4, 2: 2.6, 3: 2.1, 4: 1.9}
"""By the number of axes side by side."""
_AXIS_GAP, _BELOW = 0.45, 1.5 * LINE + 0.2
_LEAST_WIDTH = 4.5
_ROTATION = 40.0
# The darker the better, as in the other figures; a single hue and a red-blue scale are safe for the color-blind.
_RANKS = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.85, 0.05, 256))).with_extremes(bad="0.92")
_AGREEMENT = matplotlib.colormaps["RdBu"].with_extremes(bad="0.92")


def write_comparison_figures(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write comparison-bars.png, -boxes.png, -ranks.png and -agreement.png to the folder, and return their paths.

    Those that `comparison_figures` leaves out are removed, if an earlier comparison has left them there.

    Raises:
        OSError: if the folder cannot be written to.
    """
    figures = comparison_figures(comparison)
    paths = {name: Path(folder) / f"comparison-{name}.png" for name in ("bars", "boxes", "ranks", "agreement")}
    for name, path in paths.items():
        if name in figures:
            save_figure(figures[name], path)
        else:
            path.unlink(missing_ok=True)
    return [paths[name] for name in figures]


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
    return _small_multiples(comparison, _Marks(_bar_extent, _draw_bar), heading, [])


def score_boxes(comparison: Comparison) -> Figure:
    """Box plot of each method's scores, an axis for each metric."""
    note = (
        "Box: quartiles and median. Whiskers: last score within 1.5 times the length of the box. Dots: scores beyond."
    )
    return _small_multiples(comparison, _Marks(_box_extent, _draw_box), "Scores of the samples", [note])


def rank_map(comparison: Comparison) -> Figure:
    """Rank of each method in each metric with a direction."""
    metrics = [metric for metric in comparison.metrics if metric.higher_is_better is not None]
    ranks = np.full((len(comparison.methods), len(metrics)), np.nan)
    texts = [["–"] * len(metrics) for _ in comparison.methods]
    for column, metric in enumerate(metrics):
        for result in metric.methods:
            row = comparison.methods.index(result.method)
            if result.rank is not None:
                ranks[row, column] = result.rank
                texts[row][column] = f"{result.rank} ★" if result.is_best else f"{result.rank}"
    return _heat_map(
        _Cells(ranks, texts, _RANKS, (1.0, float(max(2, len(comparison.methods)))), 0.55, 0.28),
        comparison.methods,
        [name in comparison.controls for name in comparison.methods],
        [_title(metric) for metric in metrics],
        "Rank of the mean, 1 for the best",
        [f"★: {_best_note(comparison)}.", *_common_notes(comparison)],
    )


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
    titles = [_title(metric) for metric in metrics]
    matching = [] if comparison.matched_gradients is None else [matching_note(comparison)]
    return _heat_map(
        _Cells(tau, texts, _AGREEMENT, (-1.0, 1.0), 0.58, 0.38),
        titles,
        [False] * len(titles),
        titles,
        "Agreement between metrics on which method is better",
        [f"{agreement_note(comparison)} ±: its standard error.", *matching],
    )


# An axis for each metric


@dataclass(frozen=True)
class _Marks:
    """How the scores of a method are drawn."""

    extent: Callable[[MethodResult], Sequence[float]]
    """What the axis must reach."""
    draw: Callable[[Axes, int, MethodResult, str], None]


def _bar_extent(result: MethodResult) -> Sequence[float]:
    return [value for value in (0.0, result.mean, result.low, result.high) if not math.isnan(value)]


def _draw_bar(axes: Axes, row: int, result: MethodResult, color: str) -> None:
    axes.barh(row, result.mean, height=0.66, color=color)
    axes.plot([result.low, result.high], [row, row], color="black", linewidth=1.1, marker="|", markersize=4)


def _box_extent(result: MethodResult) -> Sequence[float]:
    return result.values


def _draw_box(axes: Axes, row: int, result: MethodResult, color: str) -> None:
    # Drawn by hand: the name of `boxplot`'s argument for lying boxes depends on matplotlib's version.
    (box,) = boxplot_stats(np.array(result.values))
    line: dict[str, Any] = {"color": "black", "linewidth": 0.9, "solid_capstyle": "butt"}
    axes.plot([box["whislo"], box["whishi"]], [row, row], zorder=1, **line)
    axes.barh(row, box["q3"] - box["q1"], left=box["q1"], height=0.6, color=color, edgecolor="black", linewidth=0.6)
    axes.plot([box["med"]] * 2, [row - 0.3, row + 0.3], **line | {"linewidth": 1.6})
    axes.plot(box["fliers"], [row] * len(box["fliers"]), "o", color=FAINT, markersize=1.5, markeredgewidth=0)


def _small_multiples(comparison: Comparison, marks: _Marks, heading: str, notes: list[str]) -> Figure:
    """An axis for each metric, in lines; methods down, named at the left of each line."""
    columns = math.ceil(len(comparison.metrics) / math.ceil(len(comparison.metrics) / max(_AXIS_WIDTHS)))
    axis_width = _AXIS_WIDTHS[columns]
    names, row_height = _row_names(comparison.methods)
    axis_height = len(names) * row_height
    titles = [wrapped(_title(metric), axis_width, weight="bold") for metric in comparison.metrics]
    lines = [range(start, min(start + columns, len(titles))) for start in range(0, len(titles), columns)]
    above = [LINE * (1 + max(num_lines(titles[i]) for i in line)) + PAD / 2 for line in lines]
    left = max(map(drawn_width, names)) + 2 * PAD
    width = max(_LEAST_WIDTH, left + columns * (axis_width + _AXIS_GAP))
    room = sum(above) + len(lines) * (axis_height + _BELOW)
    page = Page(width, room, heading, [*notes, *_color_notes(comparison), *_common_notes(comparison)])
    y = page.top
    for line, height in zip(lines, above, strict=True):
        y += height
        _draw_names(page, left, y, row_height, names, [name in comparison.controls for name in comparison.methods])
        for column, number in enumerate(line):
            x, metric = left + column * (axis_width + _AXIS_GAP), comparison.metrics[number]
            page.text(x, y - PAD / 2 - LINE, titles[number], weight="bold", va="bottom")
            page.text(x, y - PAD / 2, _samples(metric), size=SMALL, color=FAINT, va="bottom")
            _draw_metric(page.axes(x, y, axis_width, axis_height), axis_width, comparison.methods, metric, marks)
        y += axis_height + _BELOW
    return page.figure


def _row_names(names: Sequence[str], least: float = 0.0) -> tuple[list[str], float]:
    """The names in lines, and the height of a row that has room for each."""
    lines = [wrapped(name, _NAME_WIDTH) for name in names]
    return lines, max(least, LINE * max(map(num_lines, lines)) + 0.06)


def _draw_names(
    page: Page, left: float, top: float, row_height: float, names: Sequence[str], italic: Sequence[bool]
) -> None:
    for row, (name, slanted) in enumerate(zip(names, italic, strict=True)):
        style = "italic" if slanted else "normal"
        page.text(left - PAD, top + (row + 0.5) * row_height, name, ha="right", va="center", style=style)


def _draw_metric(axes: Axes, width: float, methods: Sequence[str], metric: MetricComparison, marks: _Marks) -> None:
    results = {result.method: result for result in metric.methods}
    _set_limits(axes, width, [value for r in metric.methods if r.values for value in marks.extent(r)])
    axes.set(ylim=(len(methods) - 0.5, -0.5), yticks=[])
    for row, method in enumerate(methods):
        result = results.get(method)
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "size": SMALL, "va": "center"}
        if result is None or not result.values:
            axes.text(0.02, row, "undefined" if result else "not scored", color=FAINT, **place)
            continue
        marks.draw(axes, row, result, _color(metric, result))
        if result.is_best:
            axes.text(1.02, row, "★", color=_BEST, **place)


def _color(metric: MetricComparison, result: MethodResult) -> str:
    if metric.higher_is_better is None:
        return _NO_DIRECTION
    return _BEST if result.is_best else _WORSE


def _set_limits(axes: Axes, width: float, values: Sequence[float]) -> None:
    """Limits that show all the values, and as many ticks as there is room for their labels."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color="0.6")
    if not values:
        axes.set(xlim=(0, 1), xticks=[])
        return
    least, most = min(values), max(values)
    margin = 0.04 * (most - least) or 0.05 * abs(most) or 1.0
    axes.set_xlim(least - margin, most + margin)
    ticks, labels = _ticks(least - margin, most + margin, width)
    axes.set_xticks(ticks, labels, size=SMALL, color=TEXT)
    axes.tick_params("x", length=2, pad=2, color="0.6")
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    if least <= 0 <= most:
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0.9)


def _ticks(low: float, high: float, width: float) -> tuple[list[float], list[str]]:
    for bins in (5, 4, 3, 2, 1):
        found = MaxNLocator(bins, steps=[1, 2, 2.5, 4, 5, 10], min_n_ticks=1).tick_values(low, high)
        ticks = [float(tick) for tick in found if low <= tick <= high]
        labels = _tick_labels(ticks)
        if len(ticks) < 2 or width * (ticks[1] - ticks[0]) / (high - low) > max(map(_label_width, labels)) + PAD:
            break
    return ticks, labels


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """The fewest digits, five at least, that tell the ticks' values."""
    tolerance = 1e-6 * (ticks[1] - ticks[0]) if len(ticks) > 1 else 0.0
    for digits in range(5, 18):
        labels = [f"{tick:.{digits}g}" for tick in ticks]
        if all(abs(float(label) - tick) <= tolerance for label, tick in zip(labels, ticks, strict=True)):
            break
    labels = ["0" if abs(tick) <= tolerance else label for label, tick in zip(labels, ticks, strict=True)]
    return list(map(Formatter.fix_minus, labels))


# Cells


@dataclass(frozen=True)
class _Cells:
    """What a heat map shows; sizes in inches."""

    values: Float64[np.ndarray, "rows columns"]
    """NaN for none."""
    texts: list[list[str]]
    colors: Colormap
    limits: tuple[float, float]
    width: float
    height: float

    def color(self, row: int, column: int) -> Sequence[float]:
        low, high = self.limits
        return self.colors((self.values[row, column] - low) / (high - low))


def _heat_map(
    cells: _Cells, row_names: Sequence[str], italic: Sequence[bool], titles: list[str], heading: str, notes: list[str]
) -> Figure:
    """Names of the rows at the left, titles of the columns rotated above."""
    names, row_height = _row_names(row_names, cells.height)
    left = max(map(drawn_width, names)) + 2 * PAD
    starts = [left + (column + 0.5) * cells.width for column in range(len(titles))]
    angle, widths = math.radians(_ROTATION), list(map(drawn_width, titles))
    ends = [start + width * math.cos(angle) for start, width in zip(starts, widths, strict=True)]
    above = max(widths) * math.sin(angle) + LINE + PAD
    width, height = len(titles) * cells.width, len(names) * row_height
    page = Page(max(_LEAST_WIDTH, *ends, left + width) + PAD, above + height + PAD, heading, notes)
    top = page.top + above
    _draw_cells(page.axes(left, top, width, height), cells)
    _draw_names(page, left, top, row_height, names, italic)
    for start, title in zip(starts, titles, strict=True):
        page.text(start, top - PAD / 2, title, rotation=_ROTATION, rotation_mode="anchor", va="baseline")
    return page.figure


def _draw_cells(axes: Axes, cells: _Cells) -> None:
    low, high = cells.limits
    values = np.ma.masked_invalid(cells.values)
    axes.pcolormesh(values, cmap=cells.colors, vmin=low, vmax=high, edgecolors="white", linewidth=1.2)
    axes.set(xticks=[], yticks=[], ylim=(len(cells.texts), 0))
    axes.spines[:].set_visible(False)
    for row, line in enumerate(cells.texts):
        for column, text in enumerate(line):
            color = readable(cells.color(row, column))
            axes.text(column + 0.5, row + 0.5, text, size=FONT_SIZE, ha="center", va="center", color=color)


def readable(background: Sequence[float]) -> str:
    """Black or white, whichever has more contrast (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


# Text


def _label_width(text: str) -> float:
    return drawn_width(text, SMALL)


def _title(metric: MetricComparison) -> str:
    return with_arrow(metric.metric, metric.higher_is_better)


def _samples(metric: MetricComparison) -> str:
    return " of ".join(map(str, dict.fromkeys((metric.num_samples, metric.num_common)))) + " samples"


def _color_notes(comparison: Comparison) -> list[str]:
    directions = {metric.higher_is_better for metric in comparison.metrics}
    notes = [f"Dark, ★: {_best_note(comparison)}. Light: worse, or a control."] if directions - {None} else []
    return [" ".join([*notes, "Gray: no direction is better."])] if None in directions else notes


def _best_note(comparison: Comparison) -> str:
    family = " over all pairs" if comparison.procedure == "all_pairs" else ""
    return f"best, or not significantly worse (Wilcoxon, Holm{family}, {comparison.alpha:g})"


def _common_notes(comparison: Comparison) -> list[str]:
    notes = ["Italics: controls, which know nothing of the model."] if comparison.controls else []
    return notes if comparison.matched_gradients is None else [*notes, matching_note(comparison)]
