"""Figures of networks in the plane: the arrows that explain one point, and fields of arrows."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_xai.reporting.colors import PALETTE
from lightning_xai.reporting.pages import Page, multiples, styled

Window = tuple[tuple[float, float], tuple[float, float]]
"""Ends of the two axes."""

_CLASSES, _BOUNDARY = PALETTE[:2], PALETTE[2]
_BEST, _POINT = "0.55", "#d62728"
_WIDTH = 3.1
_MEAN_LENGTH, _FIELD_LENGTH = 0.6, 1.3
"""In units of the window; in steps of the grid."""
_INK = 12
"""Arrows that one sees clearly; more are paler."""
_STRONG = 90
"""Percentile of the lengths of a field's arrows that is drawn at full length."""


@styled
def arrows_figure(arrays: Mapping[str, np.ndarray], methods: Sequence[str], window: Window) -> Figure:
    """Training points, boundaries, and the arrows that explain the test point, a panel for each method.

    Args:
        arrays: `points` and `labels` of the training, the log odds `boundary` of the network and `best_boundary` of
            the distribution, on grids, and the `test_point`. Of each method, `inputs NAME` (draws, 2) where its
            `gradients NAME` are taken, `mean NAME` (2,), the explanation, and, of those with weight noise,
            `boundaries NAME`, log odds of the noisy networks.
        methods: Names.
        window: Ends of the axes.
    """
    notes = [
        "Dots: training points of two classes. Green: boundary of the network, thin: of the networks with noisy "
        "weights. Gray: best boundary, of the distribution of the points. Red: test point, small: the same with noise.",
        "Thin arrows: single gradients of the log odds, to a scale common to the panels. Bold: direction of their mean,"
        " the explanation.",
    ]
    page, cells = _planes(methods, window, arrays)
    longest = max(float(np.linalg.norm(arrays[f"gradients {name}"], axis=1).max()) for name in methods)
    points, test_point = arrays["points"], arrays["test_point"]
    for axes, name in zip(cells, methods, strict=True):
        inputs, gradients, mean = (arrays[f"{what} {name}"] for what in ("inputs", "gradients", "mean"))
        colors = [_CLASSES[label] for label in arrays["labels"]]
        axes.scatter(points[:, 0], points[:, 1], s=5, color=colors, alpha=0.6, lw=0)
        for noisy in arrays.get(f"boundaries {name}", ()):
            _contour(axes, window, noisy, _BOUNDARY, 0.4)
        if len(gradients) > 1:
            axes.scatter(inputs[:, 0], inputs[:, 1], s=3, color=_POINT, lw=0, zorder=3)
            _draw_arrows(axes, inputs, gradients / longest, width=0.003, alpha=min(0.6, _INK / len(gradients)))
        direction = _MEAN_LENGTH * mean / (np.linalg.norm(mean) or 1)
        _draw_arrows(axes, test_point[None], direction[None], width=0.011, alpha=1.0)
        axes.scatter(test_point[0], test_point[1], s=28, color=_POINT, edgecolor="white", lw=0.6, zorder=5)
    return page.finished("What explains a point near the boundary", notes)


@styled
def fields_figure(arrays: Mapping[str, np.ndarray], titles: Mapping[str, str], window: Window) -> Figure:
    """A field of arrows for each method, with the boundaries of the network and of the distribution.

    Args:
        arrays: As in `arrows_figure`; of each method, `field NAME` (rows, columns, 2).
        titles: Titles of the panels, by method.
        window: Ends of the axes.
    """
    notes = [
        "Gradients of the log odds, on a grid. Green: boundary of the network. Gray: best boundary. In each panel the "
        f"{_STRONG}th percentile of the lengths is drawn as long as {_FIELD_LENGTH:g} steps of the grid, and so is what"
        " is longer. Roughness: mean angle between neighboring arrows.",
    ]
    page, cells = _planes(titles.values(), window, arrays)
    for axes, name in zip(cells, titles, strict=True):
        field = arrays[f"field {name}"]
        rows, columns, _ = field.shape
        places = np.stack(np.meshgrid(np.linspace(*window[0], columns), np.linspace(*window[1], rows)), -1)
        step = (window[0][1] - window[0][0]) / (columns - 1)
        arrows = (_FIELD_LENGTH * step * _clipped(field)).reshape(-1, 2)
        _draw_arrows(axes, places.reshape(-1, 2) - arrows / 2, arrows, width=0.0035, alpha=0.9)
    return page.finished("Fields of gradients", notes)


def _clipped(arrows: Float[np.ndarray, "rows columns 2"]) -> Float[np.ndarray, "rows columns 2"]:
    """Lengths relative to a strong arrow's, at most 1."""
    lengths = np.linalg.norm(arrows, axis=-1, keepdims=True)
    strong = float(np.percentile(lengths, _STRONG)) or 1.0
    return arrows / np.maximum(lengths, strong)


def _planes(titles: Collection[str], window: Window, arrays: Mapping[str, np.ndarray]) -> tuple[Page, list[Axes]]:
    """Axes with the boundaries and without ticks, two in a row."""
    (left, right), (bottom, top) = window
    page, cells = multiples(len(titles), 2, _WIDTH, _WIDTH * (top - bottom) / (right - left))
    for axes, title in zip(cells, titles, strict=True):
        axes.set(xlim=window[0], ylim=window[1], xticks=[], yticks=[], title=title)
        axes.spines[:].set(visible=True, linewidth=0.4, color="0.7")
        _contour(axes, window, arrays["best_boundary"], _BEST, 0.8)
        _contour(axes, window, arrays["boundary"], _BOUNDARY, 1.3)
    return page, cells


def _contour(axes: Axes, window: Window, values: Float[np.ndarray, "rows columns"], color: str, width: float) -> None:
    """The line where the values, on a grid over the window with the lowest row first, are 0, if there is one."""
    if values.min() < 0 < values.max():
        extent = (*window[0], *window[1])
        axes.contour(values, levels=[0.0], extent=extent, colors=[color], linewidths=[width], linestyles=["--"])


def _draw_arrows(axes: Axes, tails: np.ndarray, arrows: np.ndarray, width: float, alpha: float) -> None:
    """In the units of the axes."""
    axes.quiver(
        *tails.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=width, alpha=alpha, color="black", zorder=4
    )
