"""Figures of networks in the plane: the arrows that explain one point, and fields of arrows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.reporting.colors import PALETTE
from lightning_xai.reporting.pages import Page, multiples, styled

Window = tuple[tuple[float, float], tuple[float, float]]
"""Ends of the two axes."""
Plane = Float[np.ndarray, "rows columns"]
"""Values on a grid over the window, the lowest row first."""

_CLASSES, _BOUNDARY = PALETTE[:2], PALETTE[2]
_BEST, _POINT = "0.55", "#d62728"
_WIDTH = 3.1
_MEAN_LENGTH, _FIELD_LENGTH = 0.6, 1.3
"""In units of the window; in steps of the grid."""
_INK = 12
"""Arrows that one sees clearly; more are paler."""
_STRONG = 90
"""Percentile of the lengths of a field's arrows that is drawn at full length."""


@dataclass(frozen=True)
class ToyPanel:
    """How a method explains the test point.

    Attributes:
        title: The method.
        inputs: (draws, 2) where its gradients are taken.
        gradients: (draws, 2).
        mean: (2,) the explanation.
        boundaries: (networks, rows, columns) log odds of the noisy networks; None without weight noise.
    """

    title: str
    inputs: np.ndarray
    gradients: np.ndarray
    mean: np.ndarray
    boundaries: np.ndarray | None = None


@dataclass(frozen=True)
class ToyField:
    """Arrows on a grid over the window.

    Attributes:
        title: The method.
        arrows: (rows, columns, 2).
    """

    title: str
    arrows: np.ndarray


@styled
def arrows_figure(
    panels: Sequence[ToyPanel],
    window: Window,
    points: Float[np.ndarray, "points 2"],
    labels: Int64[np.ndarray, " points"],
    boundary: Plane,
    best_boundary: Plane,
    test_point: Float[np.ndarray, " 2"],
) -> Figure:
    """Training points, boundaries, and the arrows that explain the test point, a panel for each method.

    Args:
        panels: Methods.
        window: Ends of the axes.
        points, labels: Training data.
        boundary: Log odds of the network; its boundary is where they are 0.
        best_boundary: Log odds of the distribution.
        test_point: What is explained.
    """
    notes = [
        "Dots: training points of two classes. Green: boundary of the network, thin: of the networks with noisy "
        "weights. Gray: best boundary, of the distribution of the points. Red: test point, small: the same with noise.",
        "Thin arrows: single gradients of the log odds, to a scale common to the panels. Bold: direction of their mean,"
        " the explanation.",
    ]
    page, cells = _planes([panel.title for panel in panels], window, boundary, best_boundary)
    longest = max(float(np.linalg.norm(panel.gradients, axis=1).max()) for panel in panels)
    for axes, panel in zip(cells, panels, strict=True):
        axes.scatter(points[:, 0], points[:, 1], s=5, color=[_CLASSES[label] for label in labels], alpha=0.6, lw=0)
        for noisy in () if panel.boundaries is None else panel.boundaries:
            _contour(axes, window, noisy, _BOUNDARY, 0.4)
        if len(panel.gradients) > 1:
            axes.scatter(panel.inputs[:, 0], panel.inputs[:, 1], s=3, color=_POINT, lw=0, zorder=3)
            _draw_arrows(
                axes, panel.inputs, panel.gradients / longest, width=0.003, alpha=min(0.6, _INK / len(panel.gradients))
            )
        direction = _MEAN_LENGTH * panel.mean / (np.linalg.norm(panel.mean) or 1)
        _draw_arrows(axes, test_point[None], direction[None], width=0.011, alpha=1.0)
        axes.scatter(test_point[0], test_point[1], s=28, color=_POINT, edgecolor="white", lw=0.6, zorder=5)
    return page.finished("What explains a point near the boundary", notes)


@styled
def fields_figure(fields: Sequence[ToyField], window: Window, boundary: Plane, best_boundary: Plane) -> Figure:
    """A field of arrows for each method, with the boundaries of the network and of the distribution."""
    notes = [
        "Gradients of the log odds, on a grid. Green: boundary of the network. Gray: best boundary. In each panel the "
        f"{_STRONG}th percentile of the lengths is drawn as long as {_FIELD_LENGTH:g} steps of the grid, and so is what"
        " is longer. Roughness: mean angle between neighboring arrows.",
    ]
    page, cells = _planes([field.title for field in fields], window, boundary, best_boundary)
    for axes, shown in zip(cells, fields, strict=True):
        rows, columns, _ = shown.arrows.shape
        places = np.stack(np.meshgrid(np.linspace(*window[0], columns), np.linspace(*window[1], rows)), -1)
        step = (window[0][1] - window[0][0]) / (columns - 1)
        arrows = (_FIELD_LENGTH * step * _clipped(shown.arrows)).reshape(-1, 2)
        _draw_arrows(axes, places.reshape(-1, 2) - arrows / 2, arrows, width=0.0035, alpha=0.9)
    return page.finished("Fields of gradients", notes)


def _clipped(arrows: Float[np.ndarray, "rows columns 2"]) -> Float[np.ndarray, "rows columns 2"]:
    """Lengths relative to a strong arrow's, at most 1."""
    lengths = np.linalg.norm(arrows, axis=-1, keepdims=True)
    strong = float(np.percentile(lengths, _STRONG)) or 1.0
    return arrows / np.maximum(lengths, strong)


def _planes(titles: Sequence[str], window: Window, boundary: Plane, best_boundary: Plane) -> tuple[Page, list[Axes]]:
    """Axes with the boundaries and without ticks, two in a row."""
    (left, right), (bottom, top) = window
    page, cells = multiples(len(titles), 2, _WIDTH, _WIDTH * (top - bottom) / (right - left))
    for axes, title in zip(cells, titles, strict=True):
        axes.set(xlim=window[0], ylim=window[1], xticks=[], yticks=[], title=title)
        axes.spines[:].set(visible=True, linewidth=0.4, color="0.7")
        _contour(axes, window, best_boundary, _BEST, 0.8)
        _contour(axes, window, boundary, _BOUNDARY, 1.3)
    return page, cells


def _contour(axes: Axes, window: Window, values: Plane, color: str, width: float) -> None:
    """The line where the values are 0, if there is one."""
    if values.min() < 0 < values.max():
        extent = (*window[0], *window[1])
        axes.contour(values, levels=[0.0], extent=extent, colors=[color], linewidths=[width], linestyles=["--"])


def _draw_arrows(axes: Axes, tails: np.ndarray, arrows: np.ndarray, width: float, alpha: float) -> None:
    """In the units of the axes."""
    axes.quiver(
        *tails.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=width, alpha=alpha, color="black", zorder=4
    )
