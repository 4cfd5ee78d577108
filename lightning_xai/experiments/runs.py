"""The scores of finished runs: where they are, and which of them to compare."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_xai.results.evaluations import STAGE
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import (
    SCORES,
    read_directions,
    read_metric_classes,
    read_outline,
    read_scores,
    score_files,
)


@dataclass(frozen=True)
class Run:
    """The per-sample scores of a run.

    Attributes:
        name: The run's folder, with as many of the folders above it as tell it from the other runs.
        scores: Scores of one evaluation (stage, epoch and step), once `choose` has been applied.
        higher_is_better: Direction of the metrics whose direction is known; None for those that have none.
        not_scored: Methods, metrics, and methods in a metric that other evaluations of the stage have scores of, and
            the chosen one has not.
        metric_classes: What made the scores of each metric, where it is recorded.
    """

    name: str
    scores: Scores
    higher_is_better: dict[str, bool | None]
    not_scored: tuple[str, ...] = ()
    metric_classes: Mapping[str, str] = field(default_factory=dict)


def read_runs(
    folders: Sequence[str | os.PathLike[str]], stage: str | None = None, epoch: int | None = None
) -> list[Run]:
    """The runs with the scores of one evaluation each, ready to be compared.

    Args:
        folders: One or more run folders, their `xai` folders, or files of scores (Parquet or CSV).
        stage: Stage of the evaluations, such as "validate"; None for the first of "test", "validate" and "evaluate"
            that all runs have.
        epoch: Epoch of the evaluations; None for each run's last one.

    Raises:
        ValueError: if there are no such scores, a file is cut short, or a run is given twice.
    """
    paths = [scores_path(folder) for folder in folders]
    for position, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:position]]:
            raise ValueError(f"`runs`: {path} is given twice. Name each run once.")
    runs = [
        Run(name, read_outline(path), read_directions(path), metric_classes=read_metric_classes(path))
        for name, path in zip(_names(paths), paths, strict=True)
    ]
    stage = _common_stage(runs) if stage is None else stage
    return [_with_scores(choose(run, stage, epoch), path) for run, path in zip(runs, paths, strict=True)]


def _with_scores(run: Run, path: Path) -> Run:
    """The evaluation that was chosen by its outline; nothing else is read."""
    last = run.scores.table.iloc[-1]
    return replace(run, scores=read_scores(path, **{name: last[name] for name in ("stage", "epoch", "step")}))


def scores_path(run: str | os.PathLike[str]) -> Path:
    """The scores in a run's folder or in its `xai` folder; a folder of parts, or a file, is taken as it is."""
    path = Path(os.path.abspath(run))
    if path.name == f"{SCORES}.csv" and path.is_file():
        return path.with_name(SCORES)  # of which a former version made this file
    if path.is_file() or any(part.parent == path for part in score_files(path)):
        return path
    for candidate in (path / SCORES, path / "xai" / SCORES):
        if score_files(candidate):
            return candidate
    raise ValueError(
        f"`runs`: no scores in {path}. Name a run's folder (the one with xai/{SCORES} in it), its xai folder or a file "
        "of scores."
    )


def choose(run: Run, stage: str, epoch: int | None = None) -> Run:
    """The scores of the run's last evaluation in this stage, or in this epoch of it: of the one that was made last.

    Raises:
        ValueError: if there is none.
    """
    of_stage = run.scores.select(stage=stage)
    if not of_stage:
        known = _listed(run.scores.unique("stage"))
        raise ValueError(f"`stage`: {run.name} has no scores of {stage!r}; it has {known}.")
    epochs = of_stage.unique("epoch")
    if epoch is not None and epoch not in epochs:
        raise ValueError(f"`epoch`: {run.name} has no scores of epoch {epoch} in {stage!r}; it has {_listed(epochs)}.")
    of_epoch = of_stage if epoch is None else of_stage.select(epoch=epoch)
    last = of_epoch.table.iloc[-1]
    chosen = of_epoch.select(epoch=last["epoch"], step=last["step"])
    return replace(run, scores=chosen, not_scored=_not_scored(of_stage, chosen))


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs under names that differ."""
    return [replace(run, name=name) for run, name in zip(runs, distinct([run.name for run in runs]), strict=True)]


def distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where they come again: a, a (2), a (3)."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        found.append(name if name not in found else next(n for n in numbered if n not in found and n not in names))
    return found


def _not_scored(scores: Scores, chosen: Scores) -> tuple[str, ...]:
    here, methods, metrics = chosen.pairs(), chosen.unique("method"), chosen.unique("metric")
    found: dict[str, None] = {}
    for method, metric in scores.pairs():
        if (method, metric) not in here:
            gone = [name for name, known in ((method, methods), (metric, metrics)) if name not in known]
            found |= dict.fromkeys(gone or [f"{method} in {metric}"])
    return tuple(found)


def _common_stage(runs: Sequence[Run]) -> str:
    stages = [run.scores.unique("stage") for run in runs]
    for stage in ("test", "validate", STAGE):
        if all(stage in present for present in stages):
            return stage
    found = "; ".join(f"{run.name} has {_listed(present)}" for run, present in zip(runs, stages, strict=True))
    shared = [stage for stage in stages[0] if all(stage in present for present in stages)]
    cure = (
        f"`stage`, such as {shared[0]} (`--stage {shared[0]}`)" if shared else "`stage`, such as one of several loaders"
    )
    raise ValueError(
        f"`runs`: neither 'test' nor 'validate' nor 'evaluate' has scores in all runs: {found}. Choose runs that share "
        f"a stage, or give {cure}."
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """As many last parts of the folders as make them different."""
    folders = [_run_folder(path) for path in paths]
    for length in range(1, max(len(folder.parts) for folder in folders)):
        names = [str(Path(*folder.parts[-length:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _run_folder(path: Path) -> Path:
    if path.name != SCORES:
        return path
    return path.parent.parent if path.parent.name == "xai" else path.parent


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(repr, sorted(set(values)))) or "none"
