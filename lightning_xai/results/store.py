"""The scores of a run in files: a part for each time that some were made; beside them, what is better."""

import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd

from lightning_xai.results.files import write_text
from lightning_xai.results.locks import waiting_for
from lightning_xai.results.parquet import read_notes, read_parquet, write_parquet
from lightning_xai.results.scores import COLUMNS, LATER, TEXTS, Scores, joined, matching

SCORES, METRICS, CLASSES = "scores", "metrics.json", "classes.json"
KEY = list(COLUMNS)[:5]
"""The columns that say which scores a later part takes the place of."""
_EVALUATION = ("stage", "epoch", "step")
_UNIT = f"{'[0-9]' * 12}-{'[0-9a-f]' * 12}.parquet"
_PART = re.compile(r"([0-9]+)(-[0-9a-f]+-[0-9]+-of-[0-9]+)?")


SAMPLES = {
    **{"sample": "int64", "row": "int64", "target": "int64", "predicted": "int64"},
    **{"probability": "float64", "fingerprint": str, "explained": str},
}
"""What is known of a sample: its index, its row in the data set, the class explained, the class predicted, the
probability of that, a short name of input, target and mask, and which class is explained: the "label", the
"prediction", each "positive" label, or the number of one; empty in files of earlier versions. Of each of its targets,
where several are explained."""


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


@dataclass(frozen=True)
class Part:
    """What a file has: a table, and which earlier scores of which stages give way to it."""

    table: pd.DataFrame
    after_step: int | None
    share: Share | None
    stages: Sequence[str] = ()

    @classmethod
    def of(cls, table: pd.DataFrame, notes: Any) -> "Part":
        """With what the notes say."""
        notes = notes if isinstance(notes, dict) else {}
        after_step, share = notes.get("after_step"), notes.get("share")
        if not isinstance(after_step, int | None):
            raise ValueError(f"after_step is {after_step!r}")
        return cls(table, after_step, None if share is None else Share(*share), table["stage"].unique().tolist())


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
        path: Path of the folder.
        scores: To add.
        after_step: When they are read, scores of the same stages in earlier parts with more steps than this give way
            too: a training that was resumed there makes them again, perhaps at other steps.
        share: Where several processes write an evaluation: which part of it this is. The part has a name of its own,
            `NNNNNN-XXXXXXXX-RANK-of-WORLD.parquet`, so that nobody waits for another. When they are read, the parts of
            an evaluation are one; as long as some are missing, none of them is there. No sample is in two of them.
        samples: What is known of the samples, the columns `SAMPLES`, with stage, epoch and step where the scores are of
            several evaluations; None if it is not recorded.

    Raises:
        OSError: if the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from lightning_xai.results import Scores, append_scores, read_scores
        >>> folder = tempfile.mkdtemp() + "/scores"
        >>> _ = append_scores(folder, Scores.from_rows([("test", 0, 0, "gradient", "sparseness", 0, 0.5)]))
        >>> read_scores(folder)
        Scores(1 rows: 1 methods, 1 metrics, 1 samples; stages test)
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
        path: Path of the folder.
        scores: Scores of all samples by each method in each metric of `keys`.
        keys: By method and metric, what names all that the scores depend on.
        samples: What is known of the samples, the columns `SAMPLES`.
        notes: What else is known.

    Raises:
        OSError: if the folder cannot be written to.
    """
    part = Path(path) / f"{min(samples['row']):012d}-{uuid4().hex[:12]}.parquet"
    write_parquet(part, scores.table, COLUMNS, {"keys": keys, **_known(scores, samples), **notes})
    return part


def read_scores(path: str | os.PathLike[str], **wanted: Any) -> Scores:
    """What holds of all parts in the folder at `path`, after the file `path`.csv of an earlier version if there is one.

    A file is read as it is, Parquet or CSV. No scores where there is nothing. Beside a folder the directions of the
    metrics are read too, as far as they are known.

    Args:
        path: Path of the folder, or a file.
        wanted: As in `Scores.select`, with one value for a column: only scores with these are read.

    Raises:
        ValueError: if a file is damaged; with its name, and for CSV the line.

    Example:
        >>> import tempfile
        >>> from lightning_xai.results import Scores, append_scores, read_scores
        >>> folder = tempfile.mkdtemp() + "/scores"
        >>> _ = append_scores(folder, Scores.from_rows([("test", 0, 0, "gradient", "sparseness", 0, 0.5)]))
        >>> read_scores(folder, method="saliency")
        Scores(0 rows: 0 methods, 0 metrics, 0 samples; stages )
    """
    path = Path(path)
    if path.is_file():
        return Scores.load(path).select(**wanted)
    return Scores(joined(_holding(path, lambda part: _read(part, wanted))), read_directions(path))


def read_outline(path: str | os.PathLike[str]) -> Scores:
    """What `read_scores` would have scores of: a row for each stage, epoch, step, method and metric, without a score.

    The rows are in the order in which the last score of each would come.
    """
    path = Path(path)
    whole = [Scores.load(path).table] if path.is_file() else _holding(path, _read_outline)
    table = joined([_outline(table) for table in whole])
    return Scores(table.drop_duplicates(KEY, keep="last"))


def read_evaluation(part: Path) -> Scores:
    """The scores of the evaluation that a part belongs to; none as long as some of its parts are missing.

    Raises:
        ValueError: as `read_scores`.
    """
    name = part.stem.rpartition("-of-")[0].rpartition("-")[0]
    parts = sorted(part.parent.glob(f"{name}-*.parquet")) if name else [part]
    return Scores(joined([part.table for part in _evaluations(map(_read, parts))]))


def read_samples(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Stage, epoch, step and what is known of each sample (`SAMPLES`), from the parts and units at `path`.

    A sample that several of them have counts once, once a target where several are explained; of parts, as its scores,
    with what the last one says of it.

    Raises:
        ValueError: if a file is damaged, or a sample had another input, target or mask in one unit than in another.

    Example:
        >>> import tempfile
        >>> from lightning_xai.results import Scores, append_scores
        >>> from lightning_xai.results.store import read_samples
        >>> folder = tempfile.mkdtemp() + "/scores"
        >>> scores = Scores.from_rows([("test", 0, 0, "gradient", "gini", 7, 0.5)])
        >>> known = {"sample": [7], "row": [7], "target": [3], "predicted": [5], "probability": [0.75]}
        >>> _ = append_scores(folder, scores, samples={**known, "fingerprint": [""]})
        >>> read_samples(folder)[["sample", "target", "predicted", "probability"]].values.tolist()
        [[7.0, 3.0, 5.0, 0.75]]
    """
    columns, found = [*_EVALUATION, *SAMPLES, "part"], list[pd.DataFrame]()
    parts = sorted(_numbered(Path(path)), key=_number)
    for number, part in enumerate([*parts, *unit_files(path)]):
        if "samples" not in (notes := read_notes(part)):
            continue
        own = pd.DataFrame({"explained": "", **notes["evaluation"], **notes["samples"], "part": number})[columns]
        if number < len(parts):
            after = math.inf if notes["after_step"] is None else notes["after_step"]
            found = [old[~(old["stage"].isin(own["stage"]) & (old["step"] > after))] for old in found]
        found.append(own)
    table = pd.concat(found or [pd.DataFrame(columns=columns)], ignore_index=True)
    latest = table.groupby([*_EVALUATION, "sample"])["part"].transform("max")
    table = table[(table["part"] == latest) | (table["part"] >= len(parts))]
    table = table.sort_values([*_EVALUATION, "row"], kind="stable")
    row, names = [*_EVALUATION, "sample", "row"], [*_EVALUATION, "sample", "target", "fingerprint"]
    of_row, alike = (table.groupby(by)["part"].transform("nunique") for by in (row, [*row, "target", "fingerprint"]))
    distinct = table.drop_duplicates(names)  # parts that have a row have the same of it
    wrong = (of_row != alike)[distinct.index] | distinct.duplicated(names[:-1])
    if wrong.any():
        raise ValueError(
            f"{path} has two contents of sample {distinct['sample'][wrong].iloc[0]}: its input, target or mask was "
            "another one in one part than in another. The evaluation is of two data sets; make it anew in another "
            "folder."
        )
    return distinct.drop(columns="part").reset_index(drop=True)


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


def _read_units(path: Path, read: Callable[[Path], Part]) -> list[pd.DataFrame]:
    """The tables of all units; where a sample comes again, what was there before is left out."""
    tables: list[pd.DataFrame] = []
    seen: dict[str, set[int]] = {}
    comes_again = False
    for unit in unit_files(path):
        notes = read_notes(unit)
        own, pairs = notes["samples"]["sample"], json.dumps(notes["keys"])
        comes_again |= any(not known.isdisjoint(own) and _overlap(pairs, other) for other, known in seen.items())
        seen.setdefault(pairs, set()).update(own)
        tables.append(read(unit).table)
    return [joined(tables).drop_duplicates([*KEY, "sample", "target"])] if comes_again else tables


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


def _read(part: Path, wanted: Mapping[str, Any] | None = None) -> Part:
    if part.suffix != ".parquet":
        return Part(Scores.load(part).select(**(wanted or {})).table, None, None)
    table, notes = read_parquet(part, COLUMNS, wanted, LATER)
    with _refused(part):
        table = Scores(table).table
        found = Part.of(table[matching(table, wanted)] if wanted else table, notes)
        if wanted and found.after_step is not None:  # then the stages of all of its rows matter
            return replace(found, stages=read_parquet(part, {"stage": str})[0]["stage"].unique().tolist())
        return found


def _read_outline(part: Path) -> Part:
    if part.suffix != ".parquet":
        return Part(_outline(Scores.load(part).table), None, None)
    table, notes = read_parquet(part, {name: COLUMNS[name] for name in KEY})
    with _refused(part):
        return Part.of(Scores(_outline(table)).table, notes)


@contextmanager
def _refused(part: Path) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{part}: no table of scores of ours ({error}). Move it out of the folder.") from error


def _outline(table: pd.DataFrame) -> pd.DataFrame:
    """The first row of each stretch with the same stage, epoch, step, method and metric; its score is left out."""
    begins = np.arange(len(table)) == 0
    for name in KEY:
        own = table[name].cat.codes.to_numpy() if name in TEXTS else table[name].to_numpy()
        begins[1:] |= own[1:] != own[:-1]
    return table.loc[begins, KEY].assign(sample=0, value=math.nan, **LATER)


def _holding(path: Path, read: Callable[[Path], Part]) -> list[pd.DataFrame]:
    """The tables of all evaluations, the oldest first, without what later ones have taken the place of."""
    tables: list[pd.DataFrame] = []
    for part in _evaluations(map(read, _parts(path))):
        if part.after_step is not None:
            tables = [old[~(old["stage"].isin(part.stages) & (old["step"] > part.after_step))] for old in tables]
        tables.append(part.table)
    seen: set[tuple[Any, ...]] = set()
    for place in reversed(range(len(tables))):
        own = set(_outline(tables[place])[KEY].itertuples(index=False, name=None))
        if own <= seen:
            tables[place] = tables[place][:0]
        elif again := own & seen:
            tables[place] = tables[place][~pd.MultiIndex.from_frame(tables[place][KEY]).isin(again)]
        seen |= own
    return tables + _read_units(path, read)


def _evaluations(parts: Iterable[Part]) -> Iterator[Part]:
    """Each evaluation as one part; the scores of several in the order in which one process would have written them."""
    shares: dict[str, dict[int, pd.DataFrame]] = {}
    for part in parts:
        if part.share is None:
            yield part
            continue
        known = shares.setdefault(part.share.evaluation, {})
        known[part.share.rank] = part.table
        if len(known) == part.share.world:
            whole = joined([known[rank] for rank in sorted(known)])
            places = [pd.factorize(whole[name])[0] for name in ("method", "metric")]
            yield replace(part, table=whole.iloc[np.lexsort((whole["target"], whole["sample"], *places[::-1]))])


def _numbered(folder: Path) -> Iterator[Path]:
    return (part for part in folder.glob("*.parquet") if _PART.fullmatch(part.stem) and part.is_file())


def _number(part: Path) -> int:
    return int(part.stem.partition("-")[0])


def _last_number(folder: Path) -> int:
    """By the names alone: to ask after each file of a thousand takes longer than to write one."""
    names = os.listdir(folder) if folder.is_dir() else ()
    found = (_PART.fullmatch(name.removesuffix(".parquet")) for name in names if name.endswith(".parquet"))
    return max((int(match[1]) for match in found if match), default=0)


def _former(path: Path) -> Path:
    """Where versions before the parts had the scores."""
    return path.with_name(f"{path.name}.csv")


def write_directions(
    path: str | os.PathLike[str],
    higher_is_better: Mapping[str, bool | None],
    metric_classes: Mapping[str, str] | None = None,
) -> None:
    """Record the direction of each metric in `metrics.json` beside the scores at `path`; other metrics stay in it.

    Args:
        path: Of the scores.
        higher_is_better: By metric.
        metric_classes: What made the scores, by metric, where it is known: the class with its package.

    Raises:
        ValueError: if there is such a file that cannot be read.
        OSError: if the folder cannot be written to.
    """
    path = Path(path).with_name(METRICS)
    with waiting_for(path):
        known = read_directions(path) | dict(higher_is_better)
        classes = read_metric_classes(path) | dict(metric_classes or {})
        entries: dict[str, dict[str, Any]] = {metric: {"higher_is_better": better} for metric, better in known.items()}
        for metric in entries.keys() & classes.keys():
            entries[metric]["class"] = classes[metric]
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


def read_metric_classes(path: str | os.PathLike[str]) -> dict[str, str]:
    """The class of each metric in the scores at `path`, where it is recorded."""
    path = Path(path).with_name(METRICS)
    entries = json.loads(path.read_bytes()) if read_directions(path) else {}
    return {name: str(entry["class"]) for name, entry in entries.items() if "class" in entry}


def write_class_names(path: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Record what the classes are called, a list in their order, in `classes.json` beside the scores at `path`.

    Raises:
        OSError: if the folder cannot be written to.
    """
    write_text(Path(path).with_name(CLASSES), json.dumps(list(map(str, names)), ensure_ascii=False) + "\n")


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names beside the scores at `path`; none where there is no such file, or another one of that name."""
    try:
        names = json.loads(Path(path).with_name(CLASSES).read_bytes())
    except (OSError, ValueError):
        return ()
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if known else ()
