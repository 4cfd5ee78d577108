"""What a search for shortcuts found, in sentences and as a table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

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

ONCE = "Proven at single looks, which may be chance"
ORDER: tuple[ShortcutVerdict, ...] = ("SHORTCUT", "EVIDENCE", "INCONCLUSIVE", "CLEAR")


def sentences(reports: Sequence[ShortcutReport]) -> list[str]:
    """The conclusion: each shortcut with its classes, since when, and what proves it; or how sure it is that none is.

    Args:
        reports: Reports of one network on the same samples, in order of time; the last one is what is concluded about.
    """
    last, found = reports[-1], onset(reports)
    lines = []
    for kind in dict.fromkeys(one.finding.kind for one in found if one.until is None):
        lines.append(_decided([one for one in found if one.until is None and one.finding.kind == kind], reports))
    if last.shortcuts:
        share, number = percent(last.dependence), len(last.samples)
        lines.append(f"In all, {share} of the predictions of {number} samples depend on shortcuts.")
    over = [one for one in found if one.until is not None]
    for once, when in ((False, "Proven at earlier epochs, and not at the last one"), (True, ONCE)):
        if some := [one for one in over if one.confirmed != once]:
            former = (
                f"class {class_name(o.finding.label, last)} by {words(o.finding, last)} ({_epochs(o)})" for o in some
            )
            lines.append(f"{when}: {', '.join(former)}.")
    return [*lines, *_rest(last)]


def _epochs(one: Onset) -> str:
    return str(one.since) if one.since == one.until else f"{one.since} to {one.until}"


def _decided(group: list[Onset], reports: Sequence[ShortcutReport]) -> str:
    """Of one kind, what is proven at the last look."""
    last, findings = reports[-1], [one.finding for one in group]
    labels = sorted({finding.label for finding in findings})
    whose, verb = ("its", "is") if len(labels) == 1 else ("their", "are")
    places, moments = ({made(one) for one in group} for made in (lambda o: words(o.finding, last), _moment))
    dated = len(reports) > 1
    if len(places) == 1:
        since = {one.finding.label: f" (since {one.since})" for one in reversed(group) if dated and len(moments) > 1}
        what = f"{_classes(labels, last, since)} {verb} decided by {places.pop()}"
    else:
        each = [
            f"{class_name(label, last)} by {listed(_what(own, last, dated and len(moments) > 1))}"
            for label in labels
            if (own := [one for one in group if one.finding.label == label])
        ]
        what = f"{len(labels)} classes {verb} decided each by a {findings[0].kind} of its own: {', '.join(each)}"
        what = what if len(labels) > 1 else f"{_classes(labels, last)} {verb} decided by {each[0].partition(' by ')[2]}"
    first = min(group, key=lambda one: one.since)
    before = "the first look" if first.after is None else f"not yet at epoch {first.after}"
    before += "" if any(one.confirmed for one in group) else "; not yet at two looks"
    when = f"Since epoch {first.since} ({before}) " if dated else f"At epoch {first.since} " if first.since >= 0 else ""
    sentence = when + what if when else what[0].upper() + what[1:]
    effects = [effect for finding in findings if (effect := decisive(finding)) is not None]
    if effects:
        mean, control = (_mean([(getattr(e, name), e.n) for e in effects]) for name in ("mean", "control"))
        sentence += (
            f"; replacing it by another class's changes {percent(mean)} of {whose} predictions "
            f"(a matched {'region' if findings[0].box else 'change'} {percent(control)})"
        )
    if number := len({sample for finding in findings for sample in finding.showing}):
        sentence += f"; {number} picture{'s show' if number > 1 else ' shows'} it"
    stage = "test" if stage_of(last).startswith("test") else "validation"
    return f"{sentence}; {stage} accuracy cannot see it, for these samples have it too."


def _moment(one: Onset) -> int:
    return one.since


def _what(group: list[Onset], report: ShortcutReport, dated: bool) -> list[str]:
    """What decides one class, and since when."""
    found = {words(one.finding, report): one.since for one in reversed(group)}
    return [f"{what} (since {since})" if dated else what for what, since in found.items()]


def _rest(report: ShortcutReport) -> list[str]:
    """What is said of the classes without a shortcut."""
    guilty = {finding.label for finding in report.shortcuts}
    others = [finding for finding in report.findings if finding.label not in guilty]
    more, where = ("other ", " in the other classes") if guilty else ("", "")
    lines = []
    if open_ := sorted({finding.label for finding in others if finding.verdict == "INCONCLUSIVE"}):
        why = next(finding.reason for finding in others if finding.verdict == "INCONCLUSIVE")
        lines.append(f"No {more}shortcut is proven in {_classes(open_, report)}, but none can be excluded: {why}")
    elif known := [own.detectable for own in others if own.verdict == "CLEAR" and math.isfinite(own.detectable)]:
        size = f"that decides at least {percent(max(known))} of a class's predictions"
        lines.append(f"No {more}shortcut was found{where}: {_looked_for(report)} {size}.")
    if own := sorted({finding.label for finding in others if finding.verdict == "EVIDENCE"}):
        lines.append(
            f"What decides {_classes(own, report)} otherwise was accepted, or is not enough in pictures of the other "
            "classes, as a part of real evidence is."
        )
    if assumed := [name for name in report.settings.get("operators") or () if name != "background"]:
        lines.append(f"Assumed: to change the {' or the '.join(assumed)} leaves the evidence readable.")
    if number := report.settings.get("unmasked"):
        lines.append(f"{number} samples whose evidence is not known were left out.")
    if rare := [int(label) for label in report.settings.get("too_few") or ()]:
        lines.append(f"Too few samples are predicted as {_classes(rare, report)} to look at.")
    if reason := report.settings.get("reason"):
        lines.append(str(reason))
    return lines


def _looked_for(report: ShortcutReport) -> str:
    """All that was tested."""
    regions = "place, small pattern or background outside of the known evidence"
    regions = regions if report.settings.get("evidence") else "place or small pattern"
    operators = [name for name in report.settings.get("operators") or () if name != "background"]
    other = "other " if any(own.verdict == "EVIDENCE" for own in report.findings) else ""
    return f"no {other}{regions}" + "".join(f", and no {name}," for name in operators)


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


def _classes(labels: Sequence[int], report: ShortcutReport, more: Mapping[int, str] = MappingProxyType({})) -> str:
    """Which they are, with more about some."""
    named = listed(class_name(label, report) + more.get(label, "") for label in labels)
    return ("class " if len(labels) == 1 else "classes ") + named


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *others, end = names
    return f"{', '.join(others)} and {end}" if others else end


def percent(share: float) -> str:
    """With a decimal below ten."""
    if not math.isfinite(share):
        return "an unknown share"
    text = f"{100 * share:.0f}" if abs(share) >= 0.0995 else f"{100 * share:.1f}"
    return f"{text.removesuffix('.0').replace('-', '−')} %"


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    total = sum(n for _, n in weighted)
    return sum(value * n for value, n in weighted) / total if total else float("nan")


def shortcut_table(report: ShortcutReport) -> ResultTable:
    """A line a hypothesis that decides, the strongest first; then the strongest of each class that none decides."""
    rows, told = [], set[tuple[int, str]]()
    for finding in sorted(report.findings, key=lambda one: (ORDER.index(one.verdict), -strength(one))):
        label, quiet = finding.label, finding.verdict in ("INCONCLUSIVE", "CLEAR")
        if (label, finding.name) in told or (quiet and label in {own for own, _ in told}):
            continue
        told.add((label, finding.name))
        effect, won = decisive(finding), finding.sufficiency
        shares = [math.nan] * 2 if effect is None else [effect.mean, effect.control]
        shares += [won.mean if won.n else math.nan, finding.inside]
        p = f"{finding.p_adjusted:.2g}" if math.isfinite(finding.p_adjusted) else ""
        cells = *map(_cell, shares), p, _cell(finding.detectable)
        rows.append((class_name(label, report), finding.name, *cells, finding.verdict))
    columns = ("class", "decided by", "lost", "control", "won", "in evidence", "p", "detectable", "verdict")
    notes = (
        "lost: share of the class's predictions that change when it is replaced by another class's content; "
        "control: the same of a matched one; won: share of other predictions that become the class when it is put into "
        "them; detectable: with 80 % power",
    )
    title = f"shortcuts: {report.verdict}, {percent(report.dependence)} of the predictions depend on them"
    return ResultTable(title, columns, tuple(rows), notes, bold=frozenset())


def _cell(share: float) -> str:
    return percent(share) if math.isfinite(share) else ""
