"""The scores of a run in files: tidy CSV, one row for each score of each sample; beside it, what is better."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning_xai.results.files import csv_line, from_spreadsheet, naming, replacing, spreadsheet
from lightning_xai.results.locks import waiting_for
from lightning_xai.results.scores import COLUMNS, Scores

SCORES, METRICS = "scores.csv", "metrics.json"


def append_scores(path: str | os.PathLike[str], scores: Scores, after_step: int | None = None) -> None:
    """Add rows to the file at `path`, which is created with its header if need be.

    Earlier rows of the same stage, epoch, step, method and metric give way: a validation that is run again, or an
    epoch repeated after a crash, is not counted twice. The file is replaced as a whole when the rows are written:
    interrupted, it is what it was; processes that add rows at the same time wait for each other. Numbers are written
    with as many digits as it takes to read back the same ones; an undefined score is `nan`. A name that a spreadsheet
    would take for a formula gets an apostrophe in front, which is taken off when it is read.

    Args:
        path: Of the file.
        scores: To add.
        after_step: Rows of the same stages with more steps than this give way too: a training that was resumed there
            makes them again, perhaps at other steps.

    Raises:
        ValueError: if the file at `path` is not such a table, or is cut short; or if a name has a carriage return.
        OSError: if the folder cannot be written to.
    """
    path, rows = Path(path), list(scores)
    if wrong := [row for row in rows if "\r" in row.stage + row.method + row.metric]:
        raise ValueError(f"`scores`: names must be without carriage returns, which get lost; got {wrong[0]!r}.")
    lines = list(map(_line, rows))
    renewed, stages = {_evaluation(line) for line in lines}, {row.stage for row in rows}

    def stays(line: str) -> bool:
        if _evaluation(line) in renewed:
            return False
        if after_step is None:
            return True
        old = _parse(next(csv.reader([line])), str(path))
        return old[0] not in stages or old[2] <= after_step

    with _alone_with(path), replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(COLUMNS))
        if path.exists():
            _check_ends(path)
            with path.open(encoding="utf-8", newline="") as old:
                next(old)  # the header
                text = old.read()
            starts = {_line((row.stage, row.epoch, row.step))[:-1] for row in rows}
            if after_step is None and not any(f"{start}," in text for start in starts):  # nothing is made again
                file.write(text)
            else:
                file.writelines(filter(stays, _records(io.StringIO(text, newline=""))))
        file.writelines(lines)


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """All rows of the file at `path`.

    Raises:
        ValueError: if a line is not a row of such a table, or the file is cut short; the message names file
            and line.
    """
    path = Path(path)
    _check_ends(path)
    return Scores.from_rows(_read(path))


def write_directions(path: str | os.PathLike[str], higher_is_better: Mapping[str, bool | None]) -> None:
    """Record the direction of each metric in `metrics.json` beside the scores at `path`; other metrics stay in it.

    Raises:
        ValueError: if there is such a file that cannot be read.
        OSError: if the folder cannot be written to.
    """
    entries = {metric: {"higher_is_better": better} for metric, better in higher_is_better.items()}
    directions = _directions_path(path)
    with _alone_with(directions), replacing(directions) as temporary:
        kept = {metric: {"higher_is_better": better} for metric, better in read_directions(path).items()}
        temporary.write_text(json.dumps(kept | entries, indent=2) + "\n", encoding="utf-8")


def read_directions(path: str | os.PathLike[str]) -> dict[str, bool | None]:
    """`higher_is_better` of the metrics in the scores at `path`, by name; empty if there is no `metrics.json`.

    Raises:
        ValueError: if the file is not what `write_directions` writes.
    """
    path = _directions_path(path)
    if not path.exists():
        return {}
    try:
        directions = {name: entry["higher_is_better"] for name, entry in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _no_directions(path) from error
    if any(better not in (True, False, None) for better in directions.values()):
        raise _no_directions(path)
    return directions


@contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """No other process reads and replaces the file meanwhile."""
    with ExitStack() as stack:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(waiting_for(path))
        yield


def _directions_path(scores: str | os.PathLike[str]) -> Path:
    return Path(scores).with_name(METRICS)


def _no_directions(path: Path) -> ValueError:
    return ValueError(
        f'{path}: expected {{"METRIC": {{"higher_is_better": true, false or null}}, ...}}. Write the file anew, or '
        "remove it: then no direction is known."
    )


def _records(lines: Iterable[str]) -> Iterator[str]:
    """The lines of each row: more than one where a name has a line break."""
    record = ""
    for line in lines:
        record += line
        if record.count('"') % 2 == 0:
            yield record
            record = ""


def _line(values: Iterable[object]) -> str:
    return csv_line(map(spreadsheet, values))


def _evaluation(line: str) -> str:
    """Stage, epoch, step, method and metric, as they stand in a line."""
    return line.rsplit(",", 2)[0]


def _read(path: Path) -> Iterator[tuple[Any, ...]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, strict=True)
        next(reader)
        try:
            for values in reader:
                yield _parse(values, f"{path}, line {reader.line_num}")
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not a line of CSV ({error}).") from error


def _parse(values: list[str], place: str) -> tuple[Any, ...]:
    try:
        stage, epoch, step, method, metric, sample, value = values
        stage, method, metric = map(from_spreadsheet, (stage, method, metric))
        return stage, int(epoch), int(step), method, metric, int(sample), float(value)
    except ValueError as error:
        raise ValueError(
            f"{place}: expected the columns {','.join(COLUMNS)}, got {','.join(values)!r}. "
            "Remove the line, or write the file anew."
        ) from error


def _check_ends(path: Path) -> None:
    """The first line is the header, and the last one was written to its end."""
    lines = path.read_bytes().split(b"\n")
    header = ",".join(COLUMNS)
    if lines[0].decode(errors="replace") != header:
        raise ValueError(
            f"{path}, line 1: expected the header {header!r}, got {lines[0].decode(errors='replace')[:100]!r}. "
            "This is not a table of scores of this version; choose another file."
        )
    if lines[-1]:
        raise ValueError(
            f"{path}, line {len(lines)}: the file is cut short in the middle of this line. "
            "Remove the line to keep the rest."
        )
