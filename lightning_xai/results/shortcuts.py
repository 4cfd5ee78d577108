"""What a search for shortcuts found, as records.

A *hypothesis* is something in the pictures that decides a class: a region, or an operator that changes a whole picture.
It is found on one half of the samples, and proven on the other by interventions beside matched controls.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

HypothesisKind = Literal["place", "pattern", "color", "frequency", "background"]
"""`place`: one region for all pictures; `pattern`: a patch that moves; the others are operators without a place."""
ShortcutVerdict = Literal["SHORTCUT", "EVIDENCE", "CLEAR", "INCONCLUSIVE"]
"""`SHORTCUT`: decisive, and not what should decide; `EVIDENCE`: decisive, and within what should decide, or accepted;
`CLEAR`: an effect of `detectable` would have been seen, and was not; `INCONCLUSIVE`: it would not have been seen."""


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
        setting: What else names it: the band of a frequency, the channel of a color; "" for none.
        verdict: What follows.
        necessity: By fill (`swap`, `blur`, `mean`, `inpaint`): share of the class's predictions lost.
        sufficiency: Share of other predictions that become this class when the content is put into them.
        p: Of the null that the hypothesis belongs to any class.
        p_adjusted: After Holm, over all hypotheses of all classes.
        attribution: Mean share of the attribution in the region for the class; NaN for an operator.
        inside: Share of the region within the known evidence; NaN where none is known.
        detectable: Smallest difference from the controls that would have been found with 80 % power.
        examples: Samples that show it best, by index, best first.
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
        where = "x".join(map(str, self.box)) if self.box else self.setting
        return "/".join(part for part in (self.kind, where) if part)


@dataclass(frozen=True)
class ShortcutReport:
    """All that was found in one network at one time.

    Attributes:
        verdict: `SHORTCUT` if any finding is one; `CLEAR` if every class is; else `INCONCLUSIVE`.
        dependence: Share of the proving half's predictions that change when proven shortcuts are swapped; 0 without.
        by_class: The same of each class that was predicted.
        findings: Strongest first; the hypotheses that came to nothing are among them.
        epoch: Of the network; -1 outside of training.
        step: Of the network.
        samples: Indices of the samples in their data set.
        settings: How it was made: seed, fractions, fills, controls, alpha, operators, accepted, versions.
    """

    verdict: ShortcutVerdict
    dependence: float
    by_class: dict[int, float]
    findings: tuple[Finding, ...]
    epoch: int
    step: int
    samples: tuple[int, ...] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)

    @property
    def shortcuts(self) -> tuple[Finding, ...]:
        """The proven ones."""
        return tuple(finding for finding in self.findings if finding.verdict == "SHORTCUT")
