"""What a search for shortcuts found, in sentences, a table and a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_xai.reporting.colors import ACCENT, FAINT, LINE_GRAY, PALETTE, TEXT
from lightning_xai.reporting.pages import LINE, SMALL, Page, legend_beside, styled
from lightning_xai.reporting.pictures import Picture, PictureGrid, shown
from lightning_xai.results.shortcuts import (
    Finding,
    Onset,
    ShortcutReport,
    ShortcutVerdict,
    decisive,
    onset,
    stage_of,
    strength,
)
from lightning_xai.results.tables import ResultTable

ORDER: tuple[ShortcutVerdict, ...] = ("SHORTCUT", "EVIDENCE", "INCONCLUSIVE", "CLEAR")
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


def sentences(reports: Sequence[ShortcutReport]) -> list[str]:
    """The conclusion: each shortcut with its classes, since when, and what proves it; or how sure it is that none is.

    Args:
        reports: Of one network on the same samples, in order of time; the last one is what is concluded about.
    """
    last, found = reports[-1], onset(reports)
    groups: dict[Any, list[Onset]] = {}
    for one in found:
        groups.setdefault((one.finding.kind, one.since, one.until, one.after), []).append(one)
    lines = [_decided(own, reports) for own in groups.values()]
    if last.shortcuts:
        n = len(last.samples)
        lines.append(f"In all, {percent(last.dependence)} of the predictions of {n} samples depend on shortcuts.")
    return [*lines, *_rest(last)]


def _decided(group: list[Onset], reports: Sequence[ShortcutReport]) -> str:
    last, one, findings = reports[-1], group[0], [own.finding for own in group]
    labels = sorted({finding.label for finding in findings})
    places: dict[str, list[int]] = {}
    for finding in sorted(findings, key=lambda finding: finding.label):
        places.setdefault(words(finding, last), []).append(finding.label)
    who = ("class " if len(labels) == 1 else "classes ") + listed(class_name(label, last) for label in labels)
    verb = ("is" if len(labels) == 1 else "are") if one.until is None else ("was" if len(labels) == 1 else "were")
    if len(places) == 1:
        what = f"{who} {verb} decided by {next(iter(places))}"
    else:
        each = (f"{listed(class_name(own, last) for own in dict.fromkeys(p))} by {w}" for w, p in places.items())
        what = f"{len(labels)} classes {verb} decided each by a {findings[0].kind} of its own: {', '.join(each)}"
    when = _when(one, reports)
    sentence = f"{when} {what}" if when else what[0].upper() + what[1:]
    effects = [effect for finding in findings if (effect := decisive(finding)) is not None]
    if effects:
        mean, control = (_mean([(getattr(e, name), e.n) for e in effects]) for name in ("mean", "control"))
        whose = "its" if len(labels) == 1 else "their"
        sentence += (
            f"; replacing it by another class's changes {percent(mean)} of {whose} predictions "
            f"(a matched {'region' if findings[0].box else 'change'} {percent(control)})"
        )
    if number := len({sample for finding in findings for sample in finding.examples}):
        sentence += f"; {number} picture{'s show' if number > 1 else ' shows'} it"
    kind = "test" if stage_of(last).startswith("test") else "validation"
    return f"{sentence}; {kind} accuracy cannot see it, for these samples have it too."


def _when(one: Onset, reports: Sequence[ShortcutReport]) -> str:
    if len(reports) == 1:
        return "" if one.since < 0 else f"At epoch {one.since}"
    first = "the first look" if one.after is None else f"not yet at epoch {one.after}"
    until = "Since" if one.until is None else "From"
    return f"{until} epoch {one.since} ({first})" + ("" if one.until is None else f" to {one.until}")


def _rest(report: ShortcutReport) -> list[str]:
    """What is said of the classes without a shortcut."""
    guilty = {finding.label for finding in report.shortcuts}
    others = [finding for finding in report.findings if finding.label not in guilty]
    more, where = ("other ", " in the other classes") if guilty else ("", "")
    lines = []
    if open_ := sorted({finding.label for finding in others if finding.verdict == "INCONCLUSIVE"}):
        why = next(finding.reason for finding in others if finding.verdict == "INCONCLUSIVE")
        lines.append(f"No {more}shortcut is proven in {_classes(open_, report)}, but none can be excluded: {why}")
    elif known := [own.detectable for own in others if own.verdict == "CLEAR" and np.isfinite(own.detectable)]:
        size = f"one that decides {percent(max(known))} of a class's predictions would have been found"
        lines.append(f"No {more}shortcut was found{where}; {size}.")
    if rare := [int(label) for label in report.settings.get("too_few") or ()]:
        lines.append(f"Too few samples are predicted as {_classes(rare, report)} to look at.")
    if why := report.settings.get("reason"):
        lines.append(str(why))
    return lines


def words(finding: Finding, report: ShortcutReport) -> str:
    """What decides, in words: `the lower left corner`, `a small pattern that moves`, `the color`."""
    if finding.kind == "pattern":
        return f"a pattern of {finding.box[2]} x {finding.box[3]} pixels that moves" if finding.box else "a pattern"
    if finding.kind != "place":
        return f"the {finding.kind}" + (f" ({finding.setting})" if finding.setting else "")
    shape = report.settings.get("shape")
    if shape is None:
        return f"the region at {finding.box}"
    return place_words(finding.box, tuple(shape))


def place_words(box: Sequence[int], shape: Sequence[int]) -> str:
    """Which ninth of a picture (height, width) the middle of a box is in; `most of the picture` for a large one."""
    top, left, height, width = box
    if 2 * height * width > shape[0] * shape[1]:
        return "most of the picture"
    down, across = (3 * (2 * a + b) // (2 * n) for a, b, n in ((top, height, shape[0]), (left, width, shape[1])))
    row, column = ("upper", "", "lower")[min(2, down)], ("left", "", "right")[min(2, across)]
    if row and column:
        return f"the {row} {column} corner"
    return f"the {row or column} edge" if row or column else "the middle"


def class_name(label: int, report: ShortcutReport) -> str:
    """Its name, or its number."""
    names = report.settings.get("class_names") or ()
    return str(names[label]) if label < len(names) else str(label)


def _classes(labels: Sequence[int], report: ShortcutReport) -> str:
    return ("class " if len(labels) == 1 else "classes ") + listed(class_name(label, report) for label in labels)


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *others, end = names
    return f"{', '.join(others)} and {end}" if others else end


def percent(share: float) -> str:
    """With a decimal below ten."""
    if not np.isfinite(share):
        return "an unknown share"
    text = f"{100 * share:.0f}" if abs(share) >= 0.0995 else f"{100 * share:.1f}"
    return f"{text.removesuffix('.0').replace('-', '−')} %"


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    total = sum(n for _, n in weighted)
    return sum(value * n for value, n in weighted) / total if total else float("nan")


def shortcut_table(report: ShortcutReport) -> ResultTable:
    """A line a hypothesis: those that decide first, then what came to nothing, the strongest of each class alone."""
    rows, quiet = [], set[int]()
    for finding in sorted(report.findings, key=lambda one: (ORDER.index(one.verdict), -strength(one))):
        if finding.verdict in ("INCONCLUSIVE", "CLEAR"):
            if finding.label in quiet:
                continue
            quiet.add(finding.label)
        effect, other = decisive(finding), finding.sufficiency
        rows.append(
            (
                class_name(finding.label, report),
                finding.name,
                words(finding, report),
                *(("", "") if effect is None else (percent(effect.mean), percent(effect.control))),
                percent(other.mean) if other.n else "",
                percent(finding.inside) if np.isfinite(finding.inside) else "",
                f"{finding.p_adjusted:.2g}" if np.isfinite(finding.p_adjusted) else "",
                percent(finding.detectable) if np.isfinite(finding.detectable) else "",
                finding.verdict,
            )
        )
    columns = ("class", "name", "what", "lost", "control", "won", "in evidence", "p", "detectable", "verdict")
    notes = (
        "lost: share of the class's predictions that change when it is replaced by another class's content; "
        "won: share of other predictions that become the class when it is put into them; detectable with 80 % power",
    )
    title = f"shortcuts: {report.verdict}, {percent(report.dependence)} of the predictions depend on them"
    return ResultTable(title, columns, tuple(rows), notes, bold=frozenset())


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
