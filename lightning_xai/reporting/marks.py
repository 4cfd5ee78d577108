"""What several figures draw into their axes: rows of methods, curves with bands, cells with texts."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from lightning_xai.reporting.colors import FAINT, LINE_GRAY, readable
from lightning_xai.reporting.pages import FONT_SIZE, LINE, SMALL, Page, multiples, num_lines, shortened, wrapped

_NAME_WIDTH, _ROW_HEIGHT = 2.4, 0.24


def row_names(names: Sequence[str], least: float = 0.0) -> tuple[list[str], float]:
    """The names in lines, and the height of a row that has room for each."""
    lines = [wrapped(name, _NAME_WIDTH) for name in names]
    return lines, max(least, LINE * max(map(num_lines, lines)) + 0.06)


def method_axes(
    methods: Sequence[str],
    titles: Sequence[str],
    columns: int,
    width: float,
    italic: Collection[str] = (),
    pad: float = 4.0,
) -> tuple[Page, list[Axes]]:
    """Axes side by side, a row a method from above; the methods are named at the left of each line of axes."""
    names, height = row_names(methods, _ROW_HEIGHT)
    page, grid = multiples(len(titles), columns, width, height * len(methods))
    for position, (axes, title) in enumerate(zip(grid, titles, strict=True)):
        axes.set(ylim=(len(names) - 0.5, -0.5))
        axes.set_title(wrapped(title, width, weight="bold"), pad=pad)
        axes.set_yticks(range(len(names)), [""] * len(names) if position % columns else names, size=FONT_SIZE)
        for label, method in zip(axes.get_yticklabels(), methods, strict=True):
            label.set_fontstyle("italic" if method in italic else "normal")
        axes.tick_params("y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(False, axis="y")
    return page, grid


def value_axis(axes: Axes, which: Literal["x", "y"] = "x", bins: int = 4, shown: Sequence[float] = ()) -> None:
    """Limits that show what is drawn, and the values of `shown`; few ticks, and a line at 0 if it is in between."""
    axes.update_datalim([(value, value) for value in shown], which == "x", which == "y")
    axes.use_sticky_edges = False
    axes.margins(**{which: 0.04})  # type: ignore[arg-type]
    axes.locator_params(which, nbins=bins, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2)
    low, high = axes.dataLim.intervalx if which == "x" else axes.dataLim.intervaly
    if low <= 0 <= high:
        (axes.axvline if which == "x" else axes.axhline)(0, color=LINE_GRAY, linewidth=0.8, zorder=0.9)


def remark(axes: Axes, row: int, text: str, x: float = 0.02, **style: Any) -> None:
    """A text in a row: `x` is a share of the width of the axes."""
    options: dict[str, Any] = {"color": FAINT, "size": SMALL, "va": "center", **style}
    axes.text(x, row, text, transform=axes.get_yaxis_transform(), **options)


def heat_map(
    axes: Axes, values: np.ndarray, texts: Sequence[Sequence[str]], colors: Colormap, low: float, high: float
) -> None:
    """Cells in colors with readable texts, the first row above; NaN is gray."""
    axes.pcolormesh(
        np.ma.masked_invalid(values), cmap=colors, vmin=low, vmax=high, edgecolors="white", linewidth=1.2, zorder=2
    )
    for (row, column), value in np.ndenumerate(values):
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "color": readable(colors((value - low) / (high - low))),
        }
        axes.text(column + 0.5, row + 0.5, texts[row][column], **style)
    axes.set(ylim=(len(values), 0), xlim=(0, values.shape[1]))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)


def cell_names(axes: Axes, rows: Sequence[str], columns: Sequence[str], rotation: float | None = None) -> None:
    """Names of the cells of a heat map: at the left, and below, or rotated above."""
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, size=FONT_SIZE)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, size=FONT_SIZE)
    if rotation is not None:
        axes.xaxis.tick_top()
        axes.set_xticklabels(shortened(columns), rotation=rotation, rotation_mode="anchor", ha="left", va="baseline")
