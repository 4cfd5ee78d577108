"""Similarity curves of the sanity checks: how alike the maps stay as the parameters are randomized."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_xai.reporting.colors import FAINT, OUTCOMES, PALETTE
from lightning_xai.reporting.marks import value_axis
from lightning_xai.reporting.pages import (
    PAD,
    SMALL,
    Page,
    drawn_width,
    legend_beside,
    per_row,
    styled,
    wrapped,
)
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
from lightning_xai.statistics.means import mean

_MARKERS = "os^DvPX<>*pd"
_STYLES = ("-", "--", "-.")
_FLOOR_STYLES = {"different_images": "--", "random_maps": ":"}
_CURVES_HEIGHT, _EVIDENCE_HEIGHT, _MULTIPLE_HEIGHT = 2.6, 0.6, 1.1
_LEAST_WIDTH, _LEAST_SMALL_WIDTH, _PITCH = 3.6, 2.1, 0.15
_PAGE_WIDTH = 9.5
_SLANTED_UP_TO = 0.8
"""Length in inches of the steps' names that fall to the right; longer ones hang down."""
_NAME_WIDTH = 1.8
_SPREAD = 0.6
"""Of the methods around a step where their points are not joined."""


@styled
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
    curves, joined = _curves(report, variant, similarity), variant != "independent"
    found = steps(cells(report, "parameters", variant))
    evidence = _evidence(report, variant, [step for step, _ in found])
    names = ["original", *(block for _, block in found)]
    width = max(_LEAST_SMALL_WIDTH if len(curves) > 1 else _LEAST_WIDTH, _PITCH * len(names))
    columns = per_row(len(curves), max(1, int(_PAGE_WIDTH // width)))
    lines = [_MULTIPLE_HEIGHT] * math.ceil(len(curves) / columns)
    page = Page([width] * columns, [_CURVES_HEIGHT, *[_EVIDENCE_HEIGHT] * len(evidence), *lines])
    _draw_overview(page.axes(0, None), curves, names if not evidence else [], len(names), joined)
    for row, (title, values) in enumerate(evidence.items(), 1):
        axes = page.axes(row, None)
        _prepare(axes, len(names), names if row == len(evidence) else [], title)
        value_axis(axes, "y", 3, (0.0, 1.0))
        axes.plot(values, linestyle="-" if joined else "", color="0.3", marker="o", clip_on=False)
    shared: dict[str, Axes] = {}
    for number, curve in enumerate(curves):
        row, column = divmod(number, columns)
        axes = page.axes(1 + len(evidence) + row, column, **shared)
        shared = {"sharey": axes}
        room = width - (drawn_width(curve.outcome, SMALL, "bold") + PAD if curve.outcome else 0.0)
        lowest = number + columns >= len(curves)
        _prepare(axes, len(names), names if lowest else [], wrapped(curve.method, room, weight="bold"))
        value_axis(axes, "y", shown=(0.0,))
        axes.tick_params("y", labelleft=not column)
        if curve.outcome:
            axes.set_title(curve.outcome, loc="right", size=SMALL, color=OUTCOMES[curve.outcome])
        _draw_curve(axes, curve, joined)
    return page.finished(f"{similarity} under {variant_phrase(variant)}", _notes(report, variant, curves))


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
    number = len(PALETTE)
    return {
        "color": PALETTE[position % number],
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
        "accuracy": [mean([state.accuracy for state in group]) for group in at_step],
        "entropy of the output (nats)": [mean([state.entropy for state in group]) for group in at_step],
    }


def _notes(report: SanityReport, variant: str, curves: Sequence[_Curve]) -> list[str]:
    points = [point for curve in curves for point in curve.points[1:]]
    samples, repeats = len(report.samples), max(len(point.networks) for point in points)
    shape, single = ("Bars", "dots") if variant == "independent" else ("Bands", "thin lines")
    gray = "Gray lines: similarity of maps of different images (dashed) and with random maps (dotted); solid: the "
    notes = {
        f"Means over {samples} sample{'s' * (samples > 1)} and {repeats} network{'s' * (repeats > 1)}.": True,
        f"{shape}: the interval that decides, for other networks and samples.": not all(
            math.isnan(point.low) for point in points
        ),
        f"Faint {single}: single networks.": repeats > 1,
        f"{gray}boundary: PASS below, FAIL above.": any(curve.floors for curve in curves),
        "Hollow: some scores are undefined or missing, and left out.": not all(point.is_complete for point in points),
    }
    return [note for note, is_shown in notes.items() if is_shown]


# Marks


def _prepare(axes: Axes, number: int, names: Sequence[str], title: str = "") -> None:
    """Axes of so many steps, from 0 for the trained model; with their names, where there is room for them."""
    axes.set(xlim=(-0.5, number - 0.5), title=title)
    axes.set_xticks(range(number), names or [""] * number)
    angle = 315 if max(map(drawn_width, names), default=0.0) <= _SLANTED_UP_TO else 270
    for label in axes.get_xticklabels():
        label.set(rotation=angle, rotation_mode="anchor", ha="left", va="center")
    axes.tick_params("x", pad=4)


def _draw_overview(axes: Axes, curves: Sequence[_Curve], names: Sequence[str], number: int, joined: bool) -> None:
    _prepare(axes, number, names)
    spread = 0.0 if joined or len(curves) == 1 else _SPREAD / 2
    lines = []
    for curve, offset in zip(curves, np.linspace(-spread, spread, len(curves)), strict=True):
        lines += _draw_points(axes, np.arange(number) + offset, curve, joined, markersize=4.0)
    value_axis(axes, "y", 5, (0.0,))
    legend_beside(axes, handles=lines, labels=[wrapped(curve.method, _NAME_WIDTH) for curve in curves])


def _draw_curve(axes: Axes, curve: _Curve, joined: bool) -> None:
    places = np.arange(len(curve.points))
    for variant, level in curve.floors.items():
        axes.axhline(level, linestyle=_FLOOR_STYLES[variant], color=FAINT, linewidth=1.0, label=variant)
    if not math.isnan(curve.boundary):
        axes.axhline(curve.boundary, color=FAINT, linewidth=0.6, label="boundary")
    low, high = (np.array([getattr(point, end) for point in curve.points]) for end in ("low", "high"))
    if joined:
        axes.fill_between(places, low, high, color=curve.style["color"], alpha=0.25, linewidth=0, label="interval")
    else:
        axes.vlines(places, low, high, color=curve.style["color"], label="interval")
    for repeat, values in enumerate(_networks(curve)):
        style: dict[str, Any] = {"linewidth": 0.5} if joined else {"linestyle": "", "marker": ".", "markersize": 2}
        axes.plot(places, values, color=curve.style["color"], alpha=0.6, label=f"network {repeat}", **style)
    _draw_points(axes, places, curve, joined, markersize=3.0)
    if np.isnan(curve.values[1:]).all():
        axes.text(0.5, 0.85, "undefined", color=FAINT, size=SMALL, ha="center", va="center", transform=axes.transAxes)


def _networks(curve: _Curve) -> list[list[float]]:
    """The means of each network at each step; nothing if there is only one."""
    first, *others = curve.points
    number = max(len(point.networks) for point in others)
    padded = [point.networks or (math.nan,) * number for point in others]
    return [[first.value, *(networks[place] for networks in padded)] for place in range(number if number > 1 else 0)]


def _draw_points(axes: Axes, places: np.ndarray, curve: _Curve, joined: bool, markersize: float) -> list[Line2D]:
    style = {**curve.style, "markersize": markersize, "clip_on": False, **({} if joined else {"linestyle": ""})}
    drawn = axes.plot(places, curve.values, label="mean", **style)
    hollow = [math.nan if point.is_complete else point.value for point in curve.points]
    if not np.isnan(hollow).all():
        axes.plot(places, hollow, label="hollow", **style | {"linestyle": "", "markerfacecolor": "white"})
    return drawn
