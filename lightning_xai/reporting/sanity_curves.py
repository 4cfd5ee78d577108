"""Similarity curves of the sanity checks: how alike the maps stay as the parameters are randomized."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_xai.reporting.layout import LINE, PAD
from lightning_xai.reporting.pages import FAINT, SMALL, Page, drawn_width, num_lines, wrapped
from lightning_xai.reporting.sanity_values import (
    ORIGINAL,
    cells,
    floors,
    means,
    outcomes,
    scored_methods,
    states,
    steps,
    variant_phrase,
)
from lightning_xai.results.sanity import Outcome, SanityReport
from lightning_xai.results.sanity_means import IDENTICAL, UNKNOWN, Mean

OUTCOME_COLORS: dict[Outcome, str] = {"PASS": "#0072b2", "FAIL": "#b2182b", "INCONCLUSIVE": FAINT}
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "black")
"""Okabe and Ito's without the yellow, which is hard to see on white."""

_MARKERS = "os^DvPX<>*pd"
_STYLES = ("-", "--", "-.")
_FLOOR_STYLES = {"different_images": "--", "random_maps": ":"}
_TICKS_WIDTH = 0.45
"""Room for the labels at the left of axes."""
_GAP = 0.2
_CURVES_HEIGHT, _EVIDENCE_HEIGHT, _MULTIPLE_HEIGHT = 2.6, 0.6, 1.1
_LEAST_WIDTH, _PITCH = 3.6, 0.24
"""Of the large axes, and between their steps."""
_LEAST_SMALL_WIDTH, _SMALL_PITCH = 2.1, 0.15
_PAGE_WIDTH = 10.0
_ROTATION = math.radians(45)
_HANDLE_WIDTH = 0.4
"""Of a line in the legend."""
_NAME_WIDTH = 1.8
_SPREAD = 0.6
"""Of the methods around a step where their points are not joined."""


def similarity_curves(report: SanityReport, variant: str, similarity: str) -> Figure:
    """Mean similarity with the maps of the trained model at each step: all methods together, and one by one.

    Curves start at 1, the similarity of the trained model's maps with themselves. The points of "independent" are not
    joined, because no step contains another. Below the curves of all methods is what the models still do, the mean
    over networks. The axes of each method also have the interval that decides (`Mean`), the means of the single
    networks if there are several, the method's floors, the boundary above the greater one, and the verdict if this
    similarity decided it: PASS if the interval lies below the boundary, FAIL if above. Points are hollow where some
    scores are undefined or missing, and left out where all are.

    Args:
        report: With or without floors, models and verdicts.
        variant: An ordering of the parameters' blocks.
        similarity: One of the scores.

    Raises:
        ValueError: if the report has no such scores.
    """
    curves = _curves(report, variant, similarity)
    found = cells(report, "parameters", variant)
    evidence = _evidence(report, variant, [step for step, _ in steps(found)])
    axis = _StepAxis(["original", *(block for _, block in steps(found))], variant != "independent")
    below = _Multiples(axis, curves)
    above = _Overview(axis, curves, evidence, below.width)
    room = above.height + _GAP + below.height
    heading = f"{similarity} under {variant_phrase(variant)}"
    page = Page(max(above.width, below.width), room, heading, _notes(report, variant, curves))
    above.draw(page)
    below.draw(page, page.top + above.height + _GAP)
    return page.figure


# What is shown


@dataclass(frozen=True)
class _Curve:
    method: str
    points: tuple[Mean, ...]
    """The trained model's first."""
    floors: Mapping[str, float]
    outcome: Outcome | None
    style: Mapping[str, Any]

    @property
    def values(self) -> list[float]:
        return [point.value for point in self.points]

    @property
    def extent(self) -> list[float]:
        """What an axis must reach."""
        ends = [end for point in self.points for end in (point.value, point.low, point.high, *point.networks)]
        return [end for end in (*ends, *self.floors.values(), self.boundary) if not math.isnan(end)]

    @property
    def boundary(self) -> float:
        """How far above the greater floor the floor reaches; NaN without one."""
        return next((p.floor + p.margin for p in self.points if not math.isnan(p.floor)), math.nan)


def _curves(report: SanityReport, variant: str, similarity: str) -> list[_Curve]:
    found = [cell for cell in cells(report, "parameters", variant) if similarity in cell.scores]
    if not found:
        raise ValueError(
            f"`report` has no scores {similarity!r} of the variant {variant!r}; see the scores of its cells."
        )
    scores, levels = means(found, similarity, report), floors(report, similarity)
    decided = outcomes(report, "parameters", similarity)
    numbers = [step for step, _ in steps(cells(report, "parameters", variant))]
    return [
        _Curve(
            method,
            (IDENTICAL, *(scores.get((method, number), UNKNOWN) for number in numbers)),
            levels.get(method, {}),
            decided.get(method),
            _line_style(position),
        )
        for position, method in enumerate(scored_methods(report, found))
    ]


def _line_style(position: int) -> dict[str, Any]:
    """A color, a marker and a kind of line; the same again only after 84 methods."""
    number = len(_COLORS)
    return {
        "color": _COLORS[position % number],
        "marker": _MARKERS[position % len(_MARKERS)],
        "linestyle": _STYLES[position // number % len(_STYLES)],
    }


def _evidence(report: SanityReport, variant: str, numbers: Sequence[int]) -> dict[str, list[float]]:
    """Mean accuracy and entropy of the models, the trained one first; NaN where unknown, nothing if all are."""
    found = states(report, variant)
    if not any(number in found for number in numbers):
        return {}
    at_step = [found.get(number, []) for number in (ORIGINAL, *numbers)]
    return {
        "accuracy": [_mean(state.accuracy for state in group) for group in at_step],
        "entropy of the output (nats)": [_mean(state.entropy for state in group) for group in at_step],
    }


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _notes(report: SanityReport, variant: str, curves: Sequence[_Curve]) -> list[str]:
    points = [point for curve in curves for point in curve.points[1:]]
    repeats = max(len(point.networks) for point in points)
    shape, single = ("Bars", "dots") if variant == "independent" else ("Bands", "thin lines")
    parts = [f"Means over {_count(len(report.samples), 'sample')} and {_count(repeats, 'network')}."]
    if not all(math.isnan(point.low) for point in points):
        parts.append(f"{shape}: the interval that decides, for other networks and samples.")
    if repeats > 1:
        parts.append(f"Faint {single}: single networks.")
    notes = [" ".join(parts)]
    if any(curve.floors for curve in curves):
        notes.append(
            "Gray lines: similarity of maps of different images (dashed) and with random maps (dotted); solid: the "
            "boundary: PASS below, FAIL above."
        )
    if not all(point.is_complete for point in points):
        notes.append("Hollow: some scores are undefined or missing, and left out.")
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# Where it is shown; lengths in inches


@dataclass(frozen=True)
class _StepAxis:
    """What the horizontal axes have in common: a position for each step, from 0 for the trained model."""

    names: Sequence[str]
    joined: bool

    @property
    def labels_run(self) -> float:
        """How far the labels, which fall to the right, reach beyond the axes."""
        ends = [drawn_width(name, SMALL) * math.cos(_ROTATION) for name in self.names]
        return max(ends) + PAD

    @property
    def labels_fall(self) -> float:
        return max(drawn_width(name, SMALL) for name in self.names) * math.sin(_ROTATION) + LINE

    def width(self, least: float, pitch: float) -> float:
        return max(least, pitch * len(self.names))

    def prepare(self, axes: Axes, named: bool) -> None:
        """Limits, ticks and grid; the steps' names, where there is room for them."""
        axes.set(xlim=(-0.5, len(self.names) - 0.5), xticks=range(len(self.names)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color="0.6")
        axes.tick_params(length=2, pad=2, color="0.6", labelsize=SMALL)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        style: dict[str, Any] = {"rotation": -math.degrees(_ROTATION), "rotation_mode": "anchor", "ha": "left"}
        axes.set_xticklabels(self.names if named else [], va="center", **style)
        axes.tick_params("x", pad=4)


def _set_height(axes: Axes, values: Iterable[float], labeled: bool = True, bins: int = 5) -> None:
    """Limits that show the values, and 0."""
    low, high = min(0.0, *values), max(0.0, *values)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    axes.yaxis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params("y", labelleft=labeled)
    if low < 0:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0.9)


class _Overview:
    """Curves of all methods with a legend, and what the models still do."""

    def __init__(
        self, axis: _StepAxis, curves: Sequence[_Curve], evidence: Mapping[str, Sequence[float]], least_width: float
    ) -> None:
        self.axis, self.curves, self.evidence = axis, curves, evidence
        self.names = [wrapped(curve.method, _NAME_WIDTH) for curve in curves]
        self.legend_height = LINE * sum(map(num_lines, self.names))
        self.axes_height = max(_CURVES_HEIGHT, self.legend_height)
        beside = max(_GAP + _HANDLE_WIDTH + PAD + max(map(drawn_width, self.names)) + PAD, axis.labels_run)
        self.axes_width = max(axis.width(_LEAST_WIDTH, _PITCH), least_width - _TICKS_WIDTH - beside)
        self.width = _TICKS_WIDTH + self.axes_width + beside

    @property
    def height(self) -> float:
        return self.axes_height + len(self.evidence) * (2 * LINE + _EVIDENCE_HEIGHT) + self.axis.labels_fall

    def draw(self, page: Page) -> None:
        axes = page.axes(_TICKS_WIDTH, page.top, self.axes_width, self.axes_height)
        self.axis.prepare(axes, named=not self.evidence)
        _set_height(axes, [value for curve in self.curves for value in curve.values if not math.isnan(value)])
        offsets = np.linspace(-_SPREAD / 2, _SPREAD / 2, len(self.curves)) if len(self.curves) > 1 else [0.0]
        for curve, offset in zip(self.curves, offsets, strict=True):
            places = np.arange(len(curve.points)) + (0.0 if self.axis.joined else offset)
            _draw_points(axes, places, curve, self.axis.joined, markersize=4.0)
        self._draw_legend(page)
        self._draw_evidence(page)

    def _draw_legend(self, page: Page) -> None:
        left, below = _TICKS_WIDTH + self.axes_width + _GAP, 0.0
        axes = page.axes(left, page.top, _HANDLE_WIDTH, self.axes_height)
        axes.set(xlim=(-1, 1), ylim=(self.axes_height, 0))
        axes.set_axis_off()
        for curve, name in zip(self.curves, self.names, strict=True):
            # A little above the middle of the first line, as the letters are.
            points = axes.plot([-1, 0, 1], [below + 0.4 * LINE] * 3, **_style(curve, self.axis.joined, markersize=4.0))
            points[0].set_markevery([1])
            page.text(left + _HANDLE_WIDTH + PAD, page.top + below, name, va="top")
            below += LINE * num_lines(name)

    def _draw_evidence(self, page: Page) -> None:
        top = page.top + self.axes_height
        for number, (title, values) in enumerate(self.evidence.items()):
            top += 2 * LINE
            page.text(_TICKS_WIDTH, top - PAD / 2, title, va="bottom")
            axes = page.axes(_TICKS_WIDTH, top, self.axes_width, _EVIDENCE_HEIGHT)
            self.axis.prepare(axes, named=number == len(self.evidence) - 1)
            _set_height(axes, [1.0, *(value for value in values if not math.isnan(value))], bins=3)
            style = "-" if self.axis.joined else ""
            axes.plot(values, linestyle=style, color="0.3", marker="o", markersize=3, linewidth=1.2, clip_on=False)
            top += _EVIDENCE_HEIGHT


class _Multiples:
    """Axes for each method, in lines."""

    def __init__(self, axis: _StepAxis, curves: Sequence[_Curve]) -> None:
        self.axis, self.curves = axis, curves
        self.axes_width = axis.width(_LEAST_SMALL_WIDTH, _SMALL_PITCH)
        room = max(1, int((_PAGE_WIDTH - _TICKS_WIDTH) // (self.axes_width + _GAP)))
        self.columns = math.ceil(len(curves) / math.ceil(len(curves) / room))
        self.titles = [
            wrapped(curve.method, self.axes_width - _outcome_width(curve), weight="bold") for curve in curves
        ]
        lines = [self.titles[start : start + self.columns] for start in range(0, len(curves), self.columns)]
        heights = [LINE * max(map(num_lines, line)) + PAD + _MULTIPLE_HEIGHT + _GAP for line in lines]
        self.bottoms = np.cumsum(heights) - _GAP
        """Of the axes in each line."""

    @property
    def width(self) -> float:
        return _TICKS_WIDTH + self.columns * (self.axes_width + _GAP) - _GAP + self.axis.labels_run

    @property
    def height(self) -> float:
        return float(self.bottoms[-1]) + self.axis.labels_fall

    def draw(self, page: Page, top: float) -> None:
        values = [value for curve in self.curves for value in curve.extent]
        for number, (curve, title) in enumerate(zip(self.curves, self.titles, strict=True)):
            line, column = divmod(number, self.columns)
            left = _TICKS_WIDTH + column * (self.axes_width + _GAP)
            above = top + float(self.bottoms[line]) - _MULTIPLE_HEIGHT
            axes = page.axes(left, above, self.axes_width, _MULTIPLE_HEIGHT)
            self.axis.prepare(axes, named=number + self.columns >= len(self.curves))
            _set_height(axes, values, labeled=not column, bins=4)
            _draw_curve(axes, curve, self.axis.joined)
            page.text(left, above - PAD / 2, title, weight="bold", va="bottom")
            if curve.outcome:
                style = {"size": SMALL, "weight": "bold", "color": OUTCOME_COLORS[curve.outcome]}
                page.text(left + self.axes_width, above - PAD / 2, curve.outcome, ha="right", va="bottom", **style)


def _outcome_width(curve: _Curve) -> float:
    return drawn_width(curve.outcome, SMALL, "bold") + PAD if curve.outcome else 0.0


# Marks


def _draw_curve(axes: Axes, curve: _Curve, joined: bool) -> None:
    places = np.arange(len(curve.points))
    for variant, level in curve.floors.items():
        axes.axhline(level, linestyle=_FLOOR_STYLES[variant], color=FAINT, linewidth=1.0, label=variant)
    if not math.isnan(curve.boundary):
        axes.axhline(curve.boundary, color=FAINT, linewidth=0.6, label="boundary")
    _draw_intervals(axes, places, curve, joined)
    for repeat, values in enumerate(_networks(curve)):
        style: dict[str, Any] = {"linewidth": 0.5} if joined else {"linestyle": "", "marker": ".", "markersize": 2}
        axes.plot(places, values, color=curve.style["color"], alpha=0.6, label=f"network {repeat}", **style)
    _draw_points(axes, places, curve, joined, markersize=3.0)
    if np.isnan(curve.values[1:]).all():
        axes.text(0.5, 0.85, "undefined", color=FAINT, size=SMALL, ha="center", va="center", transform=axes.transAxes)


def _draw_intervals(axes: Axes, places: np.ndarray, curve: _Curve, joined: bool) -> None:
    low, high = ([getattr(point, end) for point in curve.points] for end in ("low", "high"))
    style: dict[str, Any] = {"color": curve.style["color"], "label": "interval"}
    if joined:
        axes.fill_between(places, low, high, alpha=0.25, linewidth=0, **style)
    else:
        axes.vlines(places, low, high, linewidth=1.2, **style)


def _networks(curve: _Curve) -> list[list[float]]:
    """The means of each network at each step; nothing if there is only one."""
    first, *others = curve.points
    number = max(len(point.networks) for point in others)
    padded = [point.networks or (math.nan,) * number for point in others]
    return [[first.value, *(networks[place] for networks in padded)] for place in range(number if number > 1 else 0)]


def _draw_points(axes: Axes, places: np.ndarray, curve: _Curve, joined: bool, markersize: float) -> None:
    style = _style(curve, joined, markersize)
    axes.plot(places, curve.values, label="mean", clip_on=False, **style)
    hollow = [math.nan if point.is_complete else point.value for point in curve.points]
    if not np.isnan(hollow).all():
        style |= {"linestyle": "", "markerfacecolor": "white"}
        axes.plot(places, hollow, label="hollow", clip_on=False, **style)


def _style(curve: _Curve, joined: bool, markersize: float) -> dict[str, Any]:
    line = {} if joined else {"linestyle": ""}
    return {**curve.style, "linewidth": 1.2, "markersize": markersize, **line}
