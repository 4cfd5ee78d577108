"""All that the folders of finished runs tell, for one page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_xai.results.comparison import Comparison
from lightning_xai.results.sanity import Verdict
from lightning_xai.results.scores import Scores
from lightning_xai.results.shortcuts import ShortcutReport


@dataclass(frozen=True)
class Panel:
    """A picture of maps that a run wrote."""

    path: Path
    stage: str
    epoch: int
    step: int


@dataclass(frozen=True)
class Sheet:
    """A picture with the maps of many samples, and what is needed to read it back (`callbacks.maps.write_sheet`)."""

    panel: Panel
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Weights that a run wrote, and when."""

    name: str
    epoch: int
    step: int


@dataclass(frozen=True)
class Noted:
    """A validation in a run's table for the Pareto front."""

    epoch: int
    step: int
    values: tuple[float, ...]
    on_front: bool


@dataclass(frozen=True)
class FoundRun:
    """What a run's folder has.

    Attributes:
        name: As in the comparison.
        folder: Of the run.
        scores: Of the evaluation that is compared.
        history: Of all validations where there are several; else none.
        samples: What is known of the samples (`store.SAMPLES`), with stage, epoch and step; empty if not recorded.
        verdicts: By the folder of each sanity check.
        figures: Of some of these checks, the one that shows what decided.
        panels: In order of their steps.
        sheets: Likewise.
        shortcuts: Reports of what it is decided by, in order of their steps.
        shortcut_panels: Pictures of what is proven, likewise.
        checkpoints: In order of their steps.
        settings: Of each method, as YAML, from the configuration.
        seed: Of the training; empty if unknown.
        date: Of the latest scores, year-month-day.
        monitored: Metrics of the table for the Pareto front.
        validations: Its rows.
        config: Text of the run's configuration; empty if there is none.
        checksums: SHA-256 of the files that the numbers are of, by their path in the run.
        class_names: Of the classes, in their order; none if they are not known.
    """

    name: str
    folder: Path
    scores: Scores
    history: Scores
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)
    verdicts: Mapping[str, tuple[Verdict, ...]] = field(default_factory=dict)
    figures: Mapping[str, Path] = field(default_factory=dict)
    panels: tuple[Panel, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    shortcuts: tuple[ShortcutReport, ...] = ()
    shortcut_panels: tuple[Panel, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    monitored: tuple[str, ...] = ()
    validations: tuple[Noted, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    seed: str = ""
    date: str = ""
    config: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One method in two runs, on the samples that both have a defined score of.

    Attributes:
        first: Mean in the first run.
        second: Mean in the second one.
        difference: Mean of second less first, in the metric's unit.
        low: Lower end of its confidence interval.
        high: Upper end.
        p_holm: Wilcoxon's signed-rank test, after Holm's correction over the methods of the metric.
    """

    metric: str
    method: str
    runs: tuple[str, str]
    num_samples: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_holm: float


@dataclass(frozen=True)
class Findings:
    """Runs, the comparison of their methods, and what each method of the first run is beside itself in the others."""

    comparison: Comparison
    runs: tuple[FoundRun, ...]
    pairs: tuple[Pair, ...] = ()
