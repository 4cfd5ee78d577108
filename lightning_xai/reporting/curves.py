"""Curves with points on one or more axes side by side, each with its legend below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.reporting.bars import COLORS
from lightning_xai.reporting.layout import FONT_SIZE, LINE, PAD
from lightning_xai.reporting.pages import SMALL, Page, legend_below

_LEFT, _RIGHT, _TITLE, _BELOW = 0.65, 0.15, 1.5 * LINE, 3.2 * LINE
_WIDTH, _HEIGHT = 3.2, 2.4

Points = tuple[Sequence[float], Sequence[float]]
"""Abscissae and ordinates."""


@dataclass(frozen=True)
class Curve:
    """One series: what is computed as a line, what is measured as points, with error bars where there are errors."""

    name: str
    line: Points = ((), ())
    points: Points = ((), ())
    errors: Sequence[float] = ()


@dataclass(frozen=True)
class CurveAxes:
    """One axis.

    Attributes:
        options: Of matplotlib's `Axes.set`: `xscale`, `ylim` and others.
    """

    title: str
    abscissa: str
    ordinate: str
    curves: Sequence[Curve]
    options: Mapping[str, Any] = field(default_factory=dict)


def curves_figure(heading: str, panels: Sequence[CurveAxes], notes: Sequence[str] = ()) -> Figure:
    """The axes side by side."""
    legends = LINE * max(len(panel.curves) for panel in panels)
    pitch = _LEFT + _WIDTH + _RIGHT
    page = Page(pitch * len(panels), _TITLE + _HEIGHT + _BELOW + legends + PAD, heading, notes)
    for number, panel in enumerate(panels):
        axes = page.axes(number * pitch + _LEFT, page.top + _TITLE, _WIDTH, _HEIGHT)
        page.text(number * pitch + PAD, page.top, panel.title, va="top")
        for color, curve in zip(COLORS * len(panel.curves), panel.curves, strict=False):
            _draw(axes, curve, color)
        _label(axes, panel)
    return page.figure


def _draw(axes: Axes, curve: Curve, color: str) -> None:
    has_line, has_points = len(curve.line[0]) > 0, len(curve.points[0]) > 0
    if has_line:
        axes.plot(*map(np.asarray, curve.line), color=color, lw=1.2, label=curve.name)
    if has_points:
        errors = np.asarray(curve.errors) if len(curve.errors) else None
        style: dict[str, Any] = {"fmt": "o", "ms": 3, "color": color, "elinewidth": 0.8, "capsize": 1.5}
        x, y = map(np.asarray, curve.points)
        axes.errorbar(x, y, yerr=errors, label=None if has_line else curve.name, **style)


def _label(axes: Axes, panel: CurveAxes) -> None:
    axes.set(**panel.options)
    axes.set_xlabel(panel.abscissa, size=FONT_SIZE)
    axes.set_ylabel(panel.ordinate, size=FONT_SIZE)
    axes.tick_params(labelsize=SMALL, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    legend_below(axes, _BELOW / _HEIGHT)
