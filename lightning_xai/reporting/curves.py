"""Curves with points on one or more axes side by side, each with its legend beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lightning_xai.reporting.colors import PALETTE
from lightning_xai.reporting.pages import Page, legend_beside, styled

_WIDTH, _HEIGHT = 3.2, 2.4

Values = Sequence[float] | np.ndarray
Points = tuple[Values, Values]
"""Abscissae and ordinates."""


@dataclass(frozen=True)
class Curve:
    """One series: what is computed as a line, what is measured as points, with error bars where there are errors."""

    name: str
    line: Points = ((), ())
    points: Points = ((), ())
    errors: Values = ()


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


@styled
def curves_figure(heading: str, panels: Sequence[CurveAxes], notes: Sequence[str] = ()) -> Figure:
    """The axes side by side."""
    page = Page([_WIDTH] * len(panels), [_HEIGHT])
    for number, panel in enumerate(panels):
        axes = page.axes(0, number)
        for color, curve in zip(cycle(PALETTE), panel.curves):
            _draw(axes, curve, color)
        axes.set(title=panel.title, xlabel=panel.abscissa, ylabel=panel.ordinate, **panel.options)
        plain_logarithms(axes)
        legend_beside(axes)
    return page.finished(heading, notes)


def _draw(axes: Axes, curve: Curve, color: str) -> None:
    has_line = len(curve.line[0]) > 0
    if has_line:
        axes.plot(*map(np.asarray, curve.line), color=color, label=curve.name)
    if len(curve.points[0]):
        errors = np.asarray(curve.errors) if len(curve.errors) else None
        style: dict[str, Any] = {"fmt": "o", "color": color, "elinewidth": 0.8, "capsize": 1.5}
        x, y = map(np.asarray, curve.points)
        axes.errorbar(x, y, yerr=errors, label=None if has_line else curve.name, **style)


def plain_logarithms(axes: Axes) -> None:
    """Numbers at the ticks of logarithmic axes, where matplotlib has mathematics: texts of pages are as they are."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
