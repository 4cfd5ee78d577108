"""The scores of a run in files: a part for each time that some were made; beside them, what is better."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from lightning_xai.results.files import write_text
from lightning_xai.results.locks import waiting_for
from lightning_xai.results.parquet import read_parquet, write_parquet
from lightning_xai.results.scores import COLUMNS, Scores

SCORES, METRICS = "scores", "metrics.json"


def append_scores(path: str | os.PathLike[str], scores: Scores, after_step: int | None = None) -> Path:
    """Add a part, `NNNNNN.parquet`, to the folder at `path`, which is made if need be, and return the part's path.

    Parts are never changed. When they are read, the scores of a part take the place of those of the same stage, epoch,
    step, method and metric in earlier ones: a validation that is run again, or an epoch repeated after a crash, is not
    counted twice. A part is there as a whole or not at all; processes that add parts at the same time wait for each
    other.

    Args:
        path: Of the folder.
        scores: To add.
        after_step: When they are read, scores of the same stages in earlier parts with more steps than this give way
            too: a training that was resumed there makes them again, perhaps at other steps.

    Raises:
        OSError: if the folder cannot be written to.
    """
    folder = Path(path)
    with waiting_for(folder):
        last = max((int(part.stem) for part in _numbered(folder)), default=0)
        part = folder / f"{last + 1:06d}.parquet"
        write_parquet(part, scores.table, COLUMNS, {"after_step": after_step})
    return part


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """What holds of all parts in the folder at `path`, after the file `path`.csv of an earlier version if there is one.

    A file is read as it is, Parquet or CSV. No scores where there is nothing.

    Raises:
        ValueError: if a file is damaged; with its name, and for CSV the line.
    """
    path = Path(path)
    if path.is_file():
        return Scores.load(path)
    tables = [Scores.from_rows(()).table.assign(part=0)]
    for number, part in enumerate(score_files(path)):
        scores, after_step = _read(part)
        if after_step is not None:
            stages = scores.unique("stage")
            tables = [old[~(old["stage"].isin(stages) & (old["step"] > after_step))] for old in tables]
        tables.append(scores.table.assign(part=number))
    table = pd.concat(tables)
    return Scores(table[table["part"] == table.groupby(list(COLUMNS)[:5], sort=False)["part"].transform("max")])


def score_files(path: Path) -> list[Path]:
    """The files that hold the scores at `path`, the oldest first."""
    former = _former(path)
    return [*([former] if former.is_file() else []), *sorted(_numbered(path), key=lambda part: int(part.stem))]


def set_aside(path: Path) -> Path | None:
    """Give the scores at `path` another name, which is returned; None where there are none."""
    if not score_files(path):
        return None
    names = (path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    other = next(name for name in names if not (name.exists() or _former(name).exists()))
    for old, new in ((path, other), (_former(path), _former(other))):
        if old.exists():
            os.replace(old, new)
    return other


def _read(part: Path) -> tuple[Scores, int | None]:
    if part.suffix != ".parquet":
        return Scores.load(part), None
    table, notes = read_parquet(part, COLUMNS)
    after_step = notes.get("after_step") if isinstance(notes, dict) else None
    try:
        if not isinstance(after_step, int | None):
            raise ValueError(f"after_step is {after_step!r}")
        return Scores(table), after_step
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{part}: no table of scores of ours ({error}). Move it out of the folder.") from error


def _numbered(folder: Path) -> Iterator[Path]:
    return (part for part in folder.glob("*.parquet") if part.stem.isdecimal() and part.is_file())


def _former(path: Path) -> Path:
    """Where versions before the parts had the scores."""
    return path.with_name(f"{path.name}.csv")


def write_directions(path: str | os.PathLike[str], higher_is_better: Mapping[str, bool | None]) -> None:
    """Record the direction of each metric in `metrics.json` beside the scores at `path`; other metrics stay in it.

    Raises:
        ValueError: if there is such a file that cannot be read.
        OSError: if the folder cannot be written to.
    """
    path = Path(path).with_name(METRICS)
    with waiting_for(path):
        known = read_directions(path) | dict(higher_is_better)
        entries = {metric: {"higher_is_better": better} for metric, better in known.items()}
        write_text(path, json.dumps(entries, indent=2) + "\n")


def read_directions(path: str | os.PathLike[str]) -> dict[str, bool | None]:
    """`higher_is_better` of the metrics in the scores at `path`, by name; empty if there is no `metrics.json`.

    Raises:
        ValueError: if the file is not what `write_directions` writes.
    """
    path = Path(path).with_name(METRICS)
    if not path.exists():
        return {}
    try:
        directions = {name: entry["higher_is_better"] for name, entry in json.loads(path.read_bytes()).items()}
        if any(better not in (True, False, None) for better in directions.values()):
            raise ValueError("a direction is true, false or null")
        return directions
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'{path}: expected {{"METRIC": {{"higher_is_better": true, false or null}}, ...}} ({error}). Write it '
            "anew, or remove it: then no direction is known."
        ) from error
