"""Pictures that a shortcut decides, before and after, and how many predictions depend on shortcuts, by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_xai.reporting.colors import ACCENT, FAINT, LINE_GRAY, PALETTE, TEXT
from lightning_xai.reporting.pages import LINE, SMALL, Page, legend_beside, styled
from lightning_xai.reporting.pictures import Picture, PictureGrid, shown
from lightning_xai.reporting.shortcuts import class_name, words
from lightning_xai.results.shortcuts import Finding, ShortcutReport

MOST_FINDINGS = 6
"""In a picture."""


@dataclass(frozen=True)
class Example:
    """A picture that a finding decides, before and after the intervention.

    Attributes:
        before: (channel, height, width), values from 0 to 1.
        after: Likewise.
        box: Top, left, height, width of what was replaced; () for the whole picture.
        probabilities: Of the finding's class, before and after.
        predicted: The class predicted, before and after.
    """

    before: np.ndarray
    after: np.ndarray
    box: tuple[int, ...]
    probabilities: tuple[float, float]
    predicted: tuple[int, int]


@styled
def shortcut_figure(
    reports: Sequence[ShortcutReport], examples: Sequence[tuple[Finding, Sequence[Example]]], title: str = ""
) -> Figure:
    """Pictures before and after, a pair of rows a finding, and the dependence on shortcuts over the epochs.

    Below each picture stand the class predicted and the probability of the finding's class.

    Args:
        reports: Of one network on the same samples, in order of time.
        examples: Of each finding that is shown.
        title: Above the figure.
    """
    report = reports[-1]
    pairs = [(finding, own) for finding, own in examples if own][:MOST_FINDINGS]
    curve = len(reports) > 1
    if not pairs:
        page = Page([4.5], [1.6])
        _draw_curve(page.axes(), reports)
        return page.finished(title)
    height, width = pairs[0][1][0].before.shape[-2:]
    names = [name for finding, _ in pairs for name in (_row_name(finding, report), "replaced")]
    columns = max(len(own) for _, own in pairs)
    grid = PictureGrid((height, width), names, [""] * columns, below=1.2 * LINE)
    across = max(grid.width, 4.0 if curve else 0.0)
    page = Page([across], [grid.height, 1.6] if curve else [grid.height])
    grid.prepare(page.axes()).set_xlim(0, across)  # pictures keep their shape beside a wider curve
    for row, (finding, own) in enumerate(pairs):
        for column, example in enumerate(own):
            _show(grid, 2 * row, column, example, finding, report)
    if curve:
        _draw_curve(page.axes(1), reports)
    notes = ["below each picture: the class predicted, and the probability of the class that the row is about"]
    return page.finished(title, notes)


def _row_name(finding: Finding, report: ShortcutReport) -> str:
    return f"{class_name(finding.label, report)}: {words(finding, report).removeprefix('the ')}"


def _show(grid: PictureGrid, row: int, column: int, example: Example, finding: Finding, report: ShortcutReport) -> None:
    height, width = example.before.shape[-2:]
    for below, picture in enumerate((example.before, example.after)):
        grid.show(row + below, column, Picture(shown(picture)))
        text = f"{class_name(example.predicted[below], report)}, {example.probabilities[below]:.2f}"
        changed = example.predicted[below] != finding.label
        style = {"size": SMALL, "color": ACCENT if changed else FAINT}
        grid.write(row + below, column, text, below=True, **style)
        if example.box:
            top, left, tall, wide = example.box
            x = grid.lefts[column] + grid.cell_width * left / width
            y = grid.tops[row + below] + grid.cell_height * top / height
            size = grid.cell_width * wide / width, grid.cell_height * tall / height
            frame: dict[str, Any] = {"fill": False, "linewidth": 0.8, "color": ACCENT, "clip_on": False}
            grid.axes.add_artist(Rectangle((x, y), *size, **frame))


def _draw_curve(axes: Axes, reports: Sequence[ShortcutReport]) -> None:
    """The share of the predictions that depend on shortcuts: of all, and of the classes that depend most."""
    epochs = [report.epoch for report in reports]
    labels = sorted({label for report in reports for label in report.by_class})
    curves = {label: [report.by_class.get(label, np.nan) for report in reports] for label in labels}
    ranked = sorted(labels, key=lambda label: -np.nanmax([0.0, *curves[label]]))
    colors = dict(zip(ranked, PALETTE[:-1], strict=False))
    for label in reversed(ranked):
        known = label in colors and np.nanmax([0.0, *curves[label]]) > 0
        name = class_name(label, reports[-1]) if known else None
        axes.plot(epochs, curves[label], color=colors[label] if known else LINE_GRAY, marker="o", label=name)
    axes.plot(epochs, [report.dependence for report in reports], color=TEXT, linewidth=2, label="all predictions")
    axes.set(xlabel="epoch", ylim=(-0.03, 1.03))
    axes.set_title("share of the predictions that depend on shortcuts")
    axes.locator_params("x", integer=True)
    legend_beside(axes, reverse=True)
