"""What a page says of shortcuts: sentences of its answer, and a section with table and pictures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lightning_xai.reporting.page.numbers import Part
from lightning_xai.reporting.shortcuts import sentences, shortcut_table
from lightning_xai.results.findings import Findings, FoundRun
from lightning_xai.results.shortcuts import ShortcutReport, onset, stage_of
from lightning_xai.results.tables import ResultTable

TONES = {"SHORTCUT": "bad", "CLEAR": "good", "INCONCLUSIVE": "plain"}
FIELDS = {
    "shortcuts[].run": "whose",
    "shortcuts[].stage": "whose samples: validate or test",
    "shortcuts[].epoch": "of the last look",
    "shortcuts[].step": "likewise",
    "shortcuts[].verdict": "SHORTCUT, CLEAR or INCONCLUSIVE",
    "shortcuts[].dependence": "share of the predictions that depend on proven shortcuts",
    "shortcuts[].by_class{}": "the same by class",
    "shortcuts[].sentences[]": "the conclusion",
    "shortcuts[].onsets[].label": "class that is decided, or was",
    "shortcuts[].onsets[].name": "by what",
    "shortcuts[].onsets[].since": "epoch of the first proof",
    "shortcuts[].onsets[].after": "epoch of the last look before; null for none",
    "shortcuts[].onsets[].until": "epoch of the last proof, if it is proven no more; or null",
    "shortcuts[].curve[].epoch": "of each look",
    "shortcuts[].curve[].dependence": "then",
}


def looked_at(findings: Findings) -> Iterator[tuple[FoundRun, tuple[ShortcutReport, ...]]]:
    """The looks at each run's samples of a stage, in order of time."""
    for run in findings.runs:
        for stage in dict.fromkeys(map(stage_of, run.shortcuts)):
            yield run, tuple(report for report in run.shortcuts if stage_of(report) == stage)


def answers(findings: Findings) -> Iterator[tuple[tuple[Part, ...], str]]:
    """One text for each run and stage that was looked at, and its tone."""
    for run, reports in looked_at(findings):
        whose = f"{run.name}: " if len(findings.runs) > 1 else ""
        yield (whose + " ".join(sentences(reports)),), TONES[reports[-1].verdict]


def shortcuts_of(
    findings: Findings, source: Callable[[str, Path], Markup]
) -> list[tuple[FoundRun, ShortcutReport, ResultTable, Markup]]:
    """The last look at each run and stage, its table, and its picture, if there is one.

    Args:
        findings: What the runs tell.
        source: Address of a picture file, which goes by a name on the page.
    """
    found = []
    for place, (run, reports) in enumerate(looked_at(findings)):
        panels = [panel for panel in run.shortcut_panels if panel.stage == stage_of(reports[-1]).replace("/", "-")]
        pictures = source(str(place), panels[-1].path) if panels else Markup("")
        found.append((run, reports[-1], shortcut_table(reports[-1]), pictures))
    return found


def shortcut_records(findings: Findings) -> list[dict[str, Any]]:
    """For report.json: `FIELDS` says what each place is."""
    return [_record(run, reports) for run, reports in looked_at(findings)]


def _record(run: FoundRun, reports: Sequence[ShortcutReport]) -> dict[str, Any]:
    last = asdict(reports[-1])
    onsets = [
        {
            "label": one.finding.label,
            "name": one.finding.name,
            "since": one.since,
            "after": one.after,
            "until": one.until,
        }
        for one in onset(reports)
    ]
    return {
        "run": run.name,
        "stage": stage_of(reports[-1]),
        **{name: last[name] for name in ("epoch", "step", "verdict", "dependence", "by_class")},
        "sentences": sentences(reports),
        "onsets": onsets,
        "curve": [{"epoch": report.epoch, "dependence": report.dependence} for report in reports],
    }
