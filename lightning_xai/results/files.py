"""Files that are either the old version or the new one, never a part of it; CSV that spreadsheets do not obey."""

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning_xai.results.locks import claim, close, naming, release

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What a cell begins with that a spreadsheet takes for a formula."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends without an exception.

    Folders are created as needed. An interrupted block leaves `path` as it was. The file to write to is this block's
    own: it is made anew, and neither a link in its place nor another process that replaces `path` gets in the way.

    Raises:
        OSError: of the kind that the operating system names (such as `PermissionError`), if the folder cannot
            be written to.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(path)
        try:
            yield temporary
            if os.name == "nt":  # where an open file cannot be moved
                close(handle)
            os.replace(temporary, path)
        finally:
            release(handle, temporary)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a file as a whole, in UTF-8, with the line ends that the text has.

    Raises:
        OSError: if the folder cannot be written to.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return Path(path)


def _temporary(path: Path) -> tuple[int, Path]:
    """A file to write to, held by nobody else: of the first name that is not in use."""
    names = (f".{path.name}.partial", *(f".{path.name}.{number}.partial" for number in range(1, 1000)))
    for temporary in map(path.with_name, names):
        if (handle := claim(temporary)) is not None:
            return handle, temporary
    raise OSError(errno.EBUSY, f"{len(names)} processes write it at once")


def agree_on_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings that the results in a folder depend on, as JSON, or compare them with those that are there.

    Raises:
        ValueError: if they differ.
    """
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        write_text(path, json.dumps(settings, indent=2) + "\n")
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    if differing := list(_differences(known, settings)):
        more = f"; and {len(differing) - _TOLD} more" * (len(differing) > _TOLD)
        raise ValueError(
            f"`output`: {path.parent} has results of other settings: {'; '.join(differing[:_TOLD])}{more}. Choose "
            "another folder, or remove this one."
        )


_TOLD, _SHOWN = 5, 60
"""Differences that are told, and characters of a value that are shown."""
_ABSENT: Mapping[str, Any] = MappingProxyType({})


def _differences(known: Mapping[str, Any], given: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """What differs, by dotted name; of long values the part around the first difference."""
    for key in sorted(known.keys() | given.keys()):
        was, now = known.get(key, _ABSENT), given.get(key, _ABSENT)
        if was != now and isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{within}{key}.")
        elif was != now:
            texts = ["absent" if value is _ABSENT else repr(value) for value in (was, now)]
            at = next((place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
            start = max(0, at - _SHOWN // 2) if max(map(len, texts)) > _SHOWN else 0
            was, now = (_excerpt(text, start) for text in texts)
            yield f"{within}{key} was {was}, is {now}"


def _excerpt(text: str, start: int) -> str:
    return f"{'...' * (start > 0)}{text[start : start + _SHOWN]}{'...' * (start + _SHOWN < len(text))}"


def spreadsheet(value: Any) -> Any:
    """A value of a CSV file: text that a spreadsheet would take for a formula gets an apostrophe in front.

    So does text that this rule could have made, so that `from_spreadsheet` gives back what it was. Numbers stay
    numbers, also where they are text already (`-0.5`).
    """
    if not isinstance(value, str) or not value.lstrip("'").startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


def from_spreadsheet(text: str) -> str:
    """The text that `spreadsheet` wrote."""
    return text[1:] if text[:1] == "'" and text.lstrip("'").startswith(_FORMULA) else text


def write_csv(path: str | os.PathLike[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a CSV file as a whole, the header being the first row; names are escaped as `spreadsheet` does.

    Raises:
        OSError: if the folder cannot be written to.
    """
    return write_text(path, csv_text(rows))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """What `write_csv` writes."""
    text = io.StringIO()
    plain, quoting = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        cells = list(map(spreadsheet, row))
        writer = quoting if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain
        writer.writerow(cells)  # unquoted, a carriage return would end the line
    return text.getvalue()


def read_csv(
    path: Path, columns: Sequence[str], later: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[tuple[str, list[str]]]:
    """The rows that `write_csv` wrote, each with its place: "FILE, line N". A spreadsheet may have saved the file.

    Files of earlier versions may lack the last, `later` columns, whose values are then these.

    Raises:
        ValueError: if the header is not that of the columns, or the file is damaged; with file, line and cure.
    """
    header, former = (",".join(columns[:number]) for number in (len(columns), len(columns) - len(later)))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        cure = "This is no table of a run's scores; name the run's folder, or the table."
        cure = "Save it as CSV in UTF-8." if path.suffix == ".csv" else cure
        raise ValueError(f"{path}: not UTF-8 ({error}). {cure}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if (found := ",".join(next(reader, []))) not in (header, former):
            cure = "This is no table of a run's scores; choose another file, or move it away."
            if any(former.replace(",", separator) in found for separator in (";", "\t")):
                cure = "Save it as CSV with commas, and points in numbers."
            raise ValueError(f"{path}, line 1: expected the header {header!r}, got {found[:100]!r}. {cure}")
        if not text.endswith("\n"):
            number = len(text.split("\n"))
            raise ValueError(
                f"{path}, line {number}: the file is cut short in the middle of this line. Remove the line to keep the "
                "rest; if nothing is missing, end it with a line break."
            )
        more = [] if found == header else list(map(str, later.values()))
        for values in reader:
            if values:
                yield f"{path}, line {reader.line_num}", [*map(from_spreadsheet, values), *more]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not a line of CSV ({error}).") from error
