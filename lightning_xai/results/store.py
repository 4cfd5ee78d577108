"""The scores of a run in files: a part for each time that some were made; beside them, what is better."""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd

from lightning_xai.results.files import write_text
from lightning_xai.results.locks import waiting_for
from lightning_xai.results.parquet import read_notes, read_parquet, write_parquet
from lightning_xai.results.scores import COLUMNS, Scores, joined

SCORES, METRICS = "scores", "metrics.json"
_EVALUATION = ("stage", "epoch", "step")
_UNIT = f"{'[0-9]' * 12}-{'[0-9a-f]' * 12}.parquet"
_PART = re.compile(r"([0-9]+)(-[0-9a-f]+-[0-9]+-of-[0-9]+)?")


SAMPLES = {
    **{"sample": "int64", "row": "int64", "target": "int64", "predicted": "int64"},
    **{"probability": "float64", "fingerprint": str},
}
"""What is known of a sample: its index, its row in the data set, the class explained, the class predicted, the
probability of that, and a short name of input, target and mask."""


@dataclass(frozen=True)
class Share:
    """One of the parts of an evaluation that several processes write, each its own samples.

    Attributes:
        evaluation: The name that `new_evaluation` gave it.
        rank: Which part it is, from 0.
        world: How many there are.
    """

    evaluation: str
    rank: int
    world: int


def new_evaluation(path: str | os.PathLike[str]) -> str:
    """The name of an evaluation that several processes will add to the folder at `path`; no other has it."""
    return f"{_last_number(Path(path)) + 1:06d}-{uuid4().hex[:8]}"


def append_scores(
    path: str | os.PathLike[str],
    scores: Scores,
    after_step: int | None = None,
    share: Share | None = None,
    samples: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
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
        share: Where several processes write an evaluation: which part of it this is. The part has a name of its own,
            `NNNNNN-XXXXXXXX-RANK-of-WORLD.parquet`, so that nobody waits for another. When they are read, the parts of
            an evaluation are one; as long as some are missing, none of them is there. No sample is in two of them.
        samples: What is known of the samples, the columns `SAMPLES`; None if it is not recorded.

    Raises:
        OSError: if the folder cannot be written to.
    """
    folder = Path(path)
    notes = {"after_step": after_step, **_known(scores, samples)}
    if share is not None:
        part = folder / f"{share.evaluation}-{share.rank}-of-{share.world}.parquet"
        write_parquet(part, scores.table, COLUMNS, {**notes, "share": astuple(share)})
        return part
    with waiting_for(folder):
        part = folder / f"{_last_number(folder) + 1:06d}.parquet"
        write_parquet(part, scores.table, COLUMNS, notes)
    return part


def append_unit(
    path: str | os.PathLike[str],
    scores: Scores,
    keys: Mapping[str, Mapping[str, str]],
    samples: Mapping[str, Sequence[Any]],
    notes: Mapping[str, Any],
) -> Path:
    """Add the finished scores of some samples, of one evaluation that many processes make; waits for nobody.

    Units are told from the parts of `append_scores` by their names, which no two processes choose alike. All that are
    there count, a score that several have once.

    Args:
        path: Of the folder.
        scores: Of all samples by each method in each metric of `keys`.
        keys: By method and metric, what names all that the scores depend on.
        samples: What is known of the samples, the columns `SAMPLES`.
        notes: What else is known.

    Raises:
        OSError: if the folder cannot be written to.
    """
    part = Path(path) / f"{min(samples['row']):012d}-{uuid4().hex[:12]}.parquet"
    write_parquet(part, scores.table, COLUMNS, {"keys": keys, **_known(scores, samples), **notes})
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
    for number, (table, after_step) in enumerate(_evaluations(map(_read, _parts(path)))):
        if after_step is not None:
            stages = table["stage"].unique()
            tables = [old[~(old["stage"].isin(stages) & (old["step"] > after_step))] for old in tables]
        tables.append(table.assign(part=number))
    table = joined(tables)
    last = table.groupby(list(COLUMNS)[:5], sort=False, observed=True)["part"].transform("max")
    return Scores(joined([table.loc[table["part"] == last, list(COLUMNS)], *_read_units(path)]))


def read_evaluation(part: Path) -> Scores:
    """The scores of the evaluation that a part belongs to; none as long as some of its parts are missing.

    Raises:
        ValueError: as `read_scores`.
    """
    name = part.stem.rpartition("-of-")[0].rpartition("-")[0]
    parts = sorted(part.parent.glob(f"{name}-*.parquet")) if name else [part]
    return Scores(joined([table for table, _ in _evaluations(map(_read, parts))]))


def read_samples(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Stage, epoch, step and what is known of each sample (`SAMPLES`), from the parts and units at `path`.

    A sample that several of them have counts once.

    Raises:
        ValueError: if a file is damaged, or a sample had another input, target or mask in one than in another.
    """
    found = [pd.DataFrame(columns=[*COLUMNS, *SAMPLES])[[*_EVALUATION, *SAMPLES]]]
    for part in [*_numbered(Path(path)), *unit_files(path)]:
        if "samples" in (notes := read_notes(part)):
            found.append(pd.DataFrame({**notes["evaluation"], **notes["samples"]})[[*_EVALUATION, *SAMPLES]])
    table = pd.concat(found[1:] or found).sort_values([*_EVALUATION, "row"], kind="stable")
    distinct = table.drop_duplicates([*_EVALUATION, "sample", "fingerprint"])
    twice = distinct[distinct.duplicated([*_EVALUATION, "sample"])]
    if len(twice):
        raise ValueError(
            f"{path} has two contents of sample {twice.iloc[0]['sample']}: its input, target or mask was another one "
            "in one part than in another. The evaluation is of two data sets; make it anew in another folder."
        )
    return distinct.reset_index(drop=True)


def score_files(path: Path) -> list[Path]:
    """The files that hold the scores at `path`, the oldest first."""
    return [*_parts(path), *unit_files(path)]


def unit_files(path: str | os.PathLike[str]) -> list[Path]:
    """The units at `path`, by the first of their rows."""
    return sorted(Path(path).glob(_UNIT))


def _known(scores: Scores, samples: Mapping[str, Sequence[Any]] | None) -> dict[str, Any]:
    """What a part's notes say of samples."""
    if samples is None:
        return {}
    first = next(iter(scores))
    return {"evaluation": {name: getattr(first, name) for name in _EVALUATION}, "samples": samples}


def _parts(path: Path) -> list[Path]:
    former = _former(path)
    return [*([former] if former.is_file() else []), *sorted(_numbered(path), key=lambda part: (_number(part), part))]


def _read_units(path: Path) -> list[pd.DataFrame]:
    """The tables of all units; where a sample comes again, what was there before is left out."""
    tables: list[pd.DataFrame] = []
    seen: dict[str, set[int]] = {}
    comes_again = False
    for unit in unit_files(path):
        table, notes = read_parquet(unit, COLUMNS)
        own, pairs = notes["samples"]["sample"], json.dumps(notes["keys"])
        comes_again |= any(not known.isdisjoint(own) and _overlap(pairs, other) for other, known in seen.items())
        seen.setdefault(pairs, set()).update(own)
        tables.append(table)
    if comes_again:
        tables = [joined(tables).drop_duplicates(list(COLUMNS)[:6])]
    return tables


def _overlap(one: str, other: str) -> bool:
    """Whether two units' pairs of method and metric have some in common."""
    first, second = json.loads(one), json.loads(other)
    return any(not second.get(method, {}).keys().isdisjoint(metrics) for method, metrics in first.items())


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


def _read(part: Path) -> tuple[pd.DataFrame, int | None, Share | None]:
    if part.suffix != ".parquet":
        return Scores.load(part).table, None, None
    table, notes = read_parquet(part, COLUMNS)
    notes = notes if isinstance(notes, dict) else {}
    after_step, share = notes.get("after_step"), notes.get("share")
    try:
        if not isinstance(after_step, int | None):
            raise ValueError(f"after_step is {after_step!r}")
        return Scores(table).table, after_step, None if share is None else Share(*share)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{part}: no table of scores of ours ({error}). Move it out of the folder.") from error


def _evaluations(
    parts: Iterable[tuple[pd.DataFrame, int | None, Share | None]],
) -> Iterator[tuple[pd.DataFrame, int | None]]:
    """The tables of all evaluations: those of several parts in the order that one process would have written."""
    shares: dict[str, dict[int, pd.DataFrame]] = {}
    for table, after_step, share in parts:
        if share is None:
            yield table, after_step
            continue
        known = shares.setdefault(share.evaluation, {})
        known[share.rank] = table
        if len(known) == share.world:
            whole = joined([known[rank] for rank in sorted(known)])
            places = [pd.factorize(whole[name])[0] for name in ("method", "metric")]
            yield whole.iloc[np.lexsort((whole["sample"], *places[::-1]))], after_step


def _numbered(folder: Path) -> Iterator[Path]:
    return (part for part in folder.glob("*.parquet") if _PART.fullmatch(part.stem) and part.is_file())


def _number(part: Path) -> int:
    return int(part.stem.partition("-")[0])


def _last_number(folder: Path) -> int:
    """By the names alone: to ask after each file of a thousand takes longer than to write one."""
    names = (Path(name) for name in (os.listdir(folder) if folder.is_dir() else ()))
    return max((_number(part) for part in names if part.suffix == ".parquet" and _PART.fullmatch(part.stem)), default=0)


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
