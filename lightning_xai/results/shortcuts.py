"""What a search for shortcuts found, as records.

A *hypothesis* is something in the pictures that decides a class: a region, or an operator that changes a whole picture.
It is found on one half of the samples, and proven on the other by interventions beside matched controls.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from lightning_xai.results.files import write_text
from lightning_xai.results.tables import Printed, ResultTable, from_above

SHORTCUTS, SCHEMA, VERSION = "shortcuts.json", "lightning_xai.shortcuts", 1
"""The file in `xai`, and what it says of itself; a field that changes its meaning or goes raises the version."""

HypothesisKind = Literal["place", "pattern", "color", "frequency", "background"]
"""`place`: one region for all pictures; `pattern`: a patch that moves; the others are operators without a place."""
ShortcutVerdict = Literal["SHORTCUT", "EVIDENCE", "CLEAR", "INCONCLUSIVE"]
"""`SHORTCUT`: decisive, and not what should decide; `EVIDENCE`: decisive as a part of real evidence is, or accepted;
`CLEAR`: it does not decide, for an effect of `detectable` would have been seen; `INCONCLUSIVE`: it decides, but whether
it should cannot be told, or it cannot be tested."""

_ACCEPTED = re.compile(r"(?:(\d+):)?([a-z]+)(?:/(\d+)x(\d+)x(\d+)x(\d+))?")


@dataclass(frozen=True)
class Effect:
    """Share of predictions that an intervention changes, beside that of matched controls on the same samples."""

    mean: float
    control: float
    low: float
    """Lower end of the interval of the difference, `mean - control`."""
    high: float
    n: int
    """Samples."""


@dataclass(frozen=True)
class Finding:
    """One hypothesis about one class, and what its interventions did.

    Attributes:
        label: The class that it decides.
        kind: What sort of thing it is.
        box: Top, left, height, width of a place, or of a pattern's patch in its first example; of an operator ().
        setting: What else describes it: the waves of a frequency; "" for nothing.
        verdict: What follows.
        necessity: By fill (`swap`, `blur`, `mean`, `inpaint`): share of the class's predictions lost.
        sufficiency: Share of other predictions that become this class when the content is put into them.
        p: p-value of the null that the hypothesis belongs to any class.
        p_adjusted: After Holm, over all hypotheses of all classes.
        attribution: Mean share of the attribution in the region for the class; NaN for an operator.
        inside: Share of the region within the known evidence; NaN where none is known.
        detectable: Smallest difference from the controls that would have been found with 80 % power.
        examples: Samples that show it best, by index, best first; before them the one that a pattern's patch is of.
        reason: One sentence.
        across: Sufficiency, less the control's, over the half of the other classes that are moved least.
    """

    label: int
    kind: HypothesisKind
    box: tuple[int, ...]
    setting: str
    verdict: ShortcutVerdict
    necessity: dict[str, Effect]
    sufficiency: Effect
    p: float
    p_adjusted: float
    attribution: float
    inside: float
    detectable: float
    examples: tuple[int, ...]
    reason: str
    across: float = math.nan

    @property
    def name(self) -> str:
        """Short and unique among a report's findings."""
        where = "x".join(map(str, self.box))
        return "/".join(part for part in (self.kind, where) if part)

    @property
    def showing(self) -> tuple[int, ...]:
        """The examples that lost the class in the proof, which a pattern's source was no part of."""
        return self.examples[self.kind == "pattern" :]


@dataclass(frozen=True, repr=False)
class ShortcutReport(Printed):
    """All that was found in one network at one time; it prints as its table and conclusion.

    Attributes:
        verdict: `SHORTCUT` if any finding is one; else `INCONCLUSIVE` if any is, or a class has too few samples; else
            `CLEAR`.
        dependence: Share of the proving half's predictions that change when proven shortcuts are swapped; 0 without;
            NaN if nothing could be looked at.
        by_class: The same of each class that was predicted.
        findings: Strongest first; the hypotheses that came to nothing are among them.
        epoch: Epoch of the network; -1 outside of training.
        step: Step of the training.
        samples: Indices of the samples in their data set.
        settings: How it was made: seed, fractions, fills, controls, alpha, operators, accepted, versions.
    """

    verdict: ShortcutVerdict
    dependence: float
    by_class: dict[int, float]
    findings: tuple[Finding, ...]
    epoch: int
    step: int
    samples: tuple[int, ...]
    settings: dict[str, Any]

    @property
    def shortcuts(self) -> tuple[Finding, ...]:
        """The proven ones."""
        return tuple(finding for finding in self.findings if finding.verdict == "SHORTCUT")

    def _parts(self) -> list[ResultTable | str]:
        table, told = (from_above(f"reporting.shortcuts:{name}") for name in ("shortcut_table", "sentences"))
        return [table(self), *told([self])]


@dataclass(frozen=True)
class Onset:
    """Since when a class has been decided by a shortcut, as far as the reports tell.

    The interval ends with looks: the shortcut was learned after `after` and was there by `since`, each as far as one
    test at the report's `alpha` says so. Nothing is known between two looks.

    Attributes:
        finding: Its strongest hypothesis, as last proven.
        since: Epoch of the first proof that the next look confirmed.
        after: Epoch of the last look before that, at which nothing like it was proven; None if there was none.
        until: Epoch of the last proof, where the last report has none; None if it is still there.
        confirmed: Whether it was proven at two looks running, of which `since` is the first. If not, it may be chance,
            of which every look has a share of `alpha`, and `since` is the last proof.
    """

    finding: Finding
    since: int
    after: int | None
    until: int | None
    confirmed: bool


def onset(reports: Sequence[ShortcutReport]) -> tuple[Onset, ...]:
    """When each shortcut was first proven at two looks running, and the look before; strongest in the last proof first.

    Hypotheses about a class are one shortcut if they are of the same kind and their places overlap.

    Args:
        reports: Reports of one network on the same samples, in order of time.

    Example:
        >>> from lightning_xai.results.shortcuts import Effect, Finding, ShortcutReport, onset
        >>> effect = Effect(mean=0.9, control=0.1, low=0.6, high=0.9, n=50)
        >>> what, numbers = (0, "place", (0, 0, 2, 2), "", "SHORTCUT"), (0.001, 0.01, 0.5, 0.0, 0.1)
        >>> found = Finding(*what, {"swap": effect}, effect, *numbers, examples=(), reason="")
        >>> clear = ShortcutReport("CLEAR", 0.0, {}, (), epoch=0, step=10, samples=(), settings={})
        >>> proofs = [ShortcutReport("SHORTCUT", 0.8, {}, (found,), epoch, epoch * 10 + 10, (), {}) for epoch in (1, 2)]
        >>> [(one.since, one.after, one.confirmed) for one in onset([clear, *proofs])]
        [(1, 0, True)]
    """
    groups: list[list[tuple[int, Finding]]] = []
    for look, report in enumerate(reports):
        for finding in report.shortcuts:
            own = next((g for g in groups if any(alike(finding, other) for _, other in g)), None)
            if own is None:
                groups.append(own := [])
            own.append((look, finding))
    found = []
    for group in groups:
        looks = [look for look, _ in group]
        last = looks[-1]
        first = next((look for look in looks if look + 1 in looks), last)
        strongest = max((finding for look, finding in group if look == last), key=strength)
        epochs = [reports[look].epoch for look in (first, max(0, first - 1), last)]
        over = last < len(reports) - 1
        dates = epochs[0], epochs[1] if first else None, epochs[2] if over else None
        found.append(Onset(strongest, *dates, first + 1 in looks))
    return tuple(sorted(found, key=lambda one: (one.until is not None, -strength(one.finding))))


def alike(one: Finding, other: Finding) -> bool:
    """Whether two hypotheses are about the same thing: a pattern, wherever it is; a place, if the two overlap."""
    if (one.label, one.kind) != (other.label, other.kind):
        return False
    if one.kind != "place":
        return True
    (top, left, height, width), (top2, left2, height2, width2) = one.box, other.box
    down, across = (
        min(top + height, top2 + height2) - max(top, top2),
        min(left + width, left2 + width2) - max(left, left2),
    )
    return down > 0 and across > 0


def accepted(what: str | Mapping[str, Any]) -> dict[str, Any]:
    """What a user takes for evidence, as `find_shortcuts` has it.

    Args:
        what: A name as in tables, `place/24x4x5x5`, for all classes, or the one of a class by number,
            `3:place/24x4x5x5`; of color, frequency and background the kind alone counts. Or a mapping with any of
            `label`, `kind` and `box`, top, left, height and width.

    Raises:
        ValueError: if it is neither, or says nothing.

    Example:
        >>> from lightning_xai.results.shortcuts import accepted
        >>> accepted("3:place/24x4x5x5")
        {'label': 3, 'kind': 'place', 'box': [24, 4, 5, 5]}
    """
    given = what
    if isinstance(what, str) and (found := _ACCEPTED.fullmatch(what.strip())):
        label, kind, *box = found.groups()
        what = {"label": label and int(label), "kind": kind, "box": list(map(int, box)) if box[0] else None}
    if not isinstance(what, Mapping) or not _says_something(what):
        raise ValueError(
            "`accept` must have names as tables of shortcuts have them, such as `3:place/24x4x5x5` or `color`, or "
            f"mappings with `label`, `kind` (of {', '.join(get_args(HypothesisKind))}) and `box` (four numbers, of a "
            f"place or a pattern), at least one of them; got {given!r}."
        )
    return dict(what)


def _says_something(what: Mapping[str, Any]) -> bool:
    label, kind, box = (what.get(key) for key in ("label", "kind", "box"))
    numbers = [*([] if label is None else [label]), *(box if isinstance(box, Sequence) else [])]
    return (
        not set(what) - {"label", "kind", "box"}
        and kind in (None, *get_args(HypothesisKind))
        and (box is None or (kind in (None, "place", "pattern") and isinstance(box, Sequence) and len(box) == 4))
        and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        and any(value is not None for value in (label, kind, box))
    )


def decisive(finding: Finding) -> Effect | None:
    """What replacing it by another class's content does; of the other fills where there is no such."""
    return finding.necessity.get("swap") or next(iter(finding.necessity.values()), None)


def strength(finding: Finding) -> float:
    """Share of the class's predictions that it decides beyond its controls; 0 if that was not looked at."""
    effect = decisive(finding)
    difference = math.nan if effect is None else effect.mean - effect.control
    return 0.0 if math.isnan(difference) else difference


def write_shortcuts(folder: str | os.PathLike[str], *reports: ShortcutReport) -> Path:
    """Add reports to `shortcuts.json` in a folder, in the place of those of the same stage, epoch and step.

    The file is JSON: `schema`, `version`, and `reports`, each with the fields of `ShortcutReport`, in order of time;
    numbers that are not finite are null.

    Raises:
        OSError: if the folder cannot be written to.
        ValueError: if the file that is there is none of ours.

    Example:
        >>> import tempfile
        >>> from lightning_xai.results.shortcuts import ShortcutReport, write_shortcuts
        >>> report = ShortcutReport("CLEAR", 0.0, {0: 0.0}, (), epoch=3, step=40, samples=(0, 1), settings={})
        >>> write_shortcuts(tempfile.mkdtemp(), report).name
        'shortcuts.json'
    """
    path = Path(folder) / SHORTCUTS
    new = {_moment(record): record for record in map(as_record, reports)}
    known = dict(_records(path, lambda record: (_moment(record), record))) if path.exists() else {}
    records = sorted((known | new).values(), key=lambda record: (record["step"], record["epoch"]))
    whole = {"schema": SCHEMA, "version": VERSION, "reports": records}
    return write_text(path, json.dumps(whole, allow_nan=False, separators=(",", ":")) + "\n")


def read_shortcuts(folder: str | os.PathLike[str], stage: str | None = None) -> tuple[ShortcutReport, ...]:
    """The reports in `shortcuts.json` of a folder, in order of time; none where there is no such file.

    Args:
        folder: `xai` of a run.
        stage: `validate`, `test`, or of several loaders `validate/<loader>`; None for all.

    Raises:
        ValueError: if the file is damaged, none of ours, or of a later version; with the file.

    Example:
        >>> import tempfile
        >>> from lightning_xai.results.shortcuts import ShortcutReport, read_shortcuts, write_shortcuts
        >>> report = ShortcutReport("CLEAR", 0.0, {0: 0.0}, (), epoch=3, step=40, samples=(0, 1), settings={})
        >>> written = write_shortcuts(tempfile.mkdtemp(), report)
        >>> [(found.verdict, found.epoch) for found in read_shortcuts(written.parent, stage="validate")]
        [('CLEAR', 3)]
    """
    path = Path(folder) / SHORTCUTS
    if not path.exists():
        return ()
    return tuple(report for report in _records(path, report_of) if stage in (None, stage_of(report)))


Made = TypeVar("Made")


def _records(path: Path, make: Callable[[dict[str, Any]], Made]) -> list[Made]:
    """What is made of each report in a file."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole["schema"] != SCHEMA or whole["version"] != VERSION:
            raise ValueError(f"expected {SCHEMA} of version {VERSION}, got {whole['schema']} {whole['version']}")
        return [make(record) for record in whole["reports"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: no reports of shortcuts ({why}). Move it away, and look for them again.") from error


def stage_of(report: ShortcutReport) -> str:
    """Whose samples they are: `validate`, `test`, or with the name of one of several loaders."""
    return str(report.settings.get("stage", "validate"))


def as_record(report: ShortcutReport) -> dict[str, Any]:
    """A report in plain types, as JSON and checkpoints have it; `report_of` makes it again."""
    return _plain(asdict(report))


def report_of(record: dict[str, Any]) -> ShortcutReport:
    """The report of `as_record`."""
    findings = tuple(_finding(own) for own in record["findings"])
    by_class = {int(label): _number(share) for label, share in record["by_class"].items()}
    known = {"dependence": _number(record["dependence"]), "samples": tuple(record["samples"])}
    return ShortcutReport(**{**record, **known, "findings": findings, "by_class": by_class})


def _finding(record: dict[str, Any]) -> Finding:
    numbers = {
        name: _number(record[name]) for name in ("p", "p_adjusted", "attribution", "inside", "detectable", "across")
    }
    effects = {
        "necessity": {fill: _effect(own) for fill, own in record["necessity"].items()},
        "sufficiency": _effect(record["sufficiency"]),
    }
    lists = {name: tuple(record[name]) for name in ("box", "examples")}
    return Finding(**{**record, **numbers, **effects, **lists})


def _effect(record: dict[str, Any]) -> Effect:
    numbers = {name: _number(record[name]) for name in ("mean", "control", "low", "high")}
    return Effect(**numbers, n=record["n"])


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    """In types that JSON knows: what is not finite is None, what is no number, text or list is told by its `repr`."""
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else repr(value)


def _moment(record: dict[str, Any]) -> tuple[str, int, int]:
    """Stage, epoch and step."""
    return record["settings"].get("stage", "validate"), record["epoch"], record["step"]
