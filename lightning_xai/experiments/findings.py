"""What the folders of finished runs tell: scores, their comparison, sanity checks, samples, panels, settings."""

import csv
import hashlib
import itertools
import json
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lightning_xai.experiments.compare import compare_methods, num_levels
from lightning_xai.experiments.runs import Run, read_runs, scores_path, told_apart
from lightning_xai.results.files import read_csv
from lightning_xai.results.findings import Checkpoint, Findings, FoundRun, Noted, Pair, Panel, Sheet
from lightning_xai.results.sanity import Verdict
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.shortcuts import read_shortcuts
from lightning_xai.results.store import SCORES, read_class_names, read_samples, read_scores, score_files
from lightning_xai.statistics.intervals import mean_interval
from lightning_xai.statistics.paired import holm, paired_test

_PANEL = re.compile(r"(?P<stage>\w+)-epoch=(?P<epoch>\d+)-step=(?P<step>\d+)")
SHORTCUT_PANEL = re.compile(r"shortcut-(?P<stage>[\w.-]+?)-epoch=(?P<epoch>-?\d+)-step=(?P<step>\d+)")
_LARGEST = 2**26
"""Bytes of a checkpoint's table of contents that are looked at, at most."""


def find(
    folders: Sequence[str | os.PathLike[str]],
    stage: str | None = None,
    epoch: int | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Findings:
    """All that one or more runs' folders tell, the scores of one evaluation each compared (see `compare_methods`).

    Raises:
        ValueError: as `read_runs` and `compare_methods`.
    """
    runs = told_apart(read_runs(folders, stage, epoch))
    comparison = compare_methods(runs, alpha, seed)
    found = tuple(_found(run, scores_path(folder)) for run, folder in zip(runs, folders, strict=True))
    return Findings(comparison, found, tuple(paired(runs, alpha, seed)))


def findings_of(
    scores: Scores, higher_is_better: Mapping[str, bool | None], alpha: float = 0.05, seed: int = 0
) -> Findings:
    """What scores alone tell: those of the last evaluation are compared, those of all validations are curves.

    Raises:
        ValueError: as `compare_methods`.
    """
    run = Run("scores", scores.last(), dict(higher_is_better))
    found = FoundRun(run.name, Path(), run.scores, _several(scores.select(stage="validate")))
    return Findings(compare_methods([run], alpha, seed), (found,))


def _several(history: Scores) -> Scores:
    """None where they are of one validation."""
    return history if len(history.table.drop_duplicates(["epoch", "step"])) > 1 else Scores.from_rows(())


def _found(run: Run, path: Path) -> FoundRun:
    xai = path.parent if path.name == SCORES else path
    folder = xai.parent if xai.name == "xai" else xai
    configs = [folder / "config.yaml", *sorted(folder.glob("settings-*.json"))]
    config = next((file for file in configs if file.is_file()), configs[0])
    files = score_files(path) or [path]
    verdicts = {
        file.parent.name: verdicts for file in sorted(folder.glob("sanity/*/verdicts.csv")) if (verdicts := _read(file))
    }
    return FoundRun(
        run.name,
        folder,
        run.scores,
        _several(read_scores(path, stage="validate")),
        read_samples(path),
        verdicts,
        {name: figure for name, own in verdicts.items() for figure in _deciding(folder / "sanity" / name, own[0])},
        tuple(_panels(xai / "panels")),
        tuple(sheet for panel in _panels(xai / "sheets") for sheet in _sheets(panel)),
        checkpoints=tuple(sorted(_checkpoints(folder / "checkpoints"), key=lambda checkpoint: checkpoint.step)),
        shortcuts=read_shortcuts(xai),
        shortcut_panels=tuple(_panels(xai / "panels", SHORTCUT_PANEL)),
        **_front(xai / "pareto.csv"),
        **_configured(config),
        date=str(datetime.fromtimestamp(max(file.stat().st_mtime for file in files), timezone.utc).date()),
        class_names=read_class_names(path),
        checksums={os.path.relpath(file, folder): _checksum(file) for file in [config, *files] if file.is_file()},
    )


def _front(path: Path) -> dict[str, Any]:
    """Metrics and validations; none where the table is not one of ours."""
    if not path.is_file():
        return {}
    header = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    names = next(csv.reader([header]), [])
    if len(names) < 5 or [*names[:2], names[-1]] != ["epoch", "step", "on_front"]:
        return {}
    rows = [values for _, values in read_csv(path, names)] if ",".join(names) == header else []
    validations = [Noted(int(e), int(s), tuple(map(float, values)), on == "1") for e, s, *values, on in rows]
    return {"monitored": tuple(names[2:-1]), "validations": tuple(validations)}


def _configured(path: Path) -> dict[str, Any]:
    """Text, seed and settings of the methods; a file that is no configuration of ours is only text."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    settings: dict[str, str] = {}
    seed: Any = ""
    try:
        config = yaml.safe_load(text)
        if "common" in config:  # of a streamed evaluation
            each, seed = [config["methods"]], config["common"].get("seed", "")
        else:
            each = [callback.get("init_args", {}).get("methods") for callback in config["trainer"]["callbacks"]]
            seed = config.get("seed_everything", "")
        for methods in each:
            named = methods if isinstance(methods, dict) else {str(name): name for name in methods or ()}
            settings |= {str(name): yaml.safe_dump(own, sort_keys=False).strip() for name, own in named.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        pass
    return {"config": text, "settings": settings, "seed": str(seed)}


def _read(path: Path) -> tuple[Verdict, ...]:
    names = [field.name for field in fields(Verdict)]
    kinds = {"networks": int, **dict.fromkeys(("mean", "low", "high", "threshold", "margin"), float)}
    found = []
    for place, values in read_csv(path, names, {"step": ""}):
        try:
            row: Any = {name: kinds.get(name, str)(text) for name, text in zip(names, values, strict=True)}
        except ValueError as error:
            raise ValueError(f"{place}: not a verdict ({error}). Make the sanity check anew, or remove it.") from error
        found.append(Verdict(**row))
    return tuple(found)


def _deciding(folder: Path, verdict: Verdict) -> list[Path]:
    """The curves of the similarity that decided, or else the bars of the check; at most one."""
    names = f"cascading_from_top-{verdict.similarity}", f"{verdict.check}-bars"
    return [path for name in names if (path := folder / f"sanity-{name}.png").is_file()][:1]


def _panels(folder: Path, named: re.Pattern[str] = _PANEL) -> list[Panel]:
    """In order of their steps."""
    matches = [(path, match) for path in folder.glob("*.png") if (match := named.fullmatch(path.stem))]
    panels = [Panel(path, match["stage"], int(match["epoch"]), int(match["step"])) for path, match in matches]
    return sorted(panels, key=lambda panel: (panel.step, panel.epoch))


def _sheets(panel: Panel) -> Iterator[Sheet]:
    """One, or none where the picture does not say how it is to be read."""
    try:
        with Image.open(panel.path) as picture:
            found = json.loads(picture.text["lightning_xai"])  # type: ignore[attr-defined]
            size = picture.size
        across, methods = found["across"], found["methods"]
        fits = size == (across * found["width"], across * found["height"] * (1 + len(methods)))
        numbers = [*found["samples"], *found["scales"], *found["ends"]]
        fits &= len(found["samples"]) <= across**2 and len(methods) == len(found["scales"]) == len(found["ends"])
        fits &= all(isinstance(n, int | float) for n in numbers) and all(isinstance(m, str) for m in methods)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if fits:
        yield Sheet(panel, found)


def _checkpoints(folder: Path) -> Iterator[Checkpoint]:
    """Those that say when they were written; nothing in them runs, and no weight is read."""
    for path in folder.glob("*.ckpt"):
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
                numbers = _numbers(archive.read(name)) if name.file_size <= _LARGEST else {}
        except (OSError, ValueError, StopIteration, zipfile.BadZipFile):
            continue
        if {"epoch", "global_step"} <= numbers.keys():
            yield Checkpoint(path.name, numbers["epoch"], numbers["global_step"])


def _numbers(pickled: bytes) -> dict[str, int]:
    """The first whole number behind each text, read from the pickle's words without obeying them."""
    found: dict[str, int] = {}
    key = None
    for code, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str):
            key = argument
        elif key is not None and "PUT" not in code.name and code.name != "MEMOIZE":
            if isinstance(argument, int) and "GET" not in code.name:
                found.setdefault(key, argument)
            key = None
        if {"epoch", "global_step"} <= found.keys():
            break
    return found


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def paired(runs: Sequence[Run], alpha: float, seed: int) -> Iterator[Pair]:
    """Of the first run and each other one, by metric."""
    tables = [run.scores.by_sample() for run in runs]
    if len({num_levels(own) for own in tables}) > 1:
        tables = [run.scores.by_sample(by_target=True) for run in runs]
    for (first, one), (other, second) in itertools.product(
        zip(runs[:1], tables, strict=False), zip(runs[1:], tables[1:], strict=True)
    ):
        for metric in [name for name in one if name in second and name != GRADIENTS]:
            found = []
            for method in [name for name in one[metric] if name in second[metric]]:
                a, b = one[metric][method].align(second[metric][method], join="inner")
                known = np.isfinite(a) & np.isfinite(b)
                if known.any():
                    found.append((method, a[known].to_numpy(copy=True), b[known].to_numpy(copy=True)))
            corrected = holm(np.array([paired_test(b, a)[0] for _, a, b in found]))
            for (method, a, b), p_holm in zip(found, corrected, strict=True):
                ends = mean_interval(b - a, 1 - alpha, seed)
                means = float(a.mean()), float(b.mean()), float((b - a).mean())
                yield Pair(metric, method, (first.name, other.name), len(a), *means, *ends, float(p_holm))
