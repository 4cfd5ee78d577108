"""Names in Markdown, LaTeX, CSV and terminals: shown as they are, and not obeyed.

Methods, metrics, classes, files and runs are called what a user, or a stranger's file, calls them.
"""

import csv
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.text import Text

from lightning_xai.reporting.files import replacing

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What a cell begins with that a spreadsheet takes for a formula."""
_MARKUP = re.compile(
    r"[\\|*`<~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside a word an underscore is none
    r"|\](?=[(\[])|^\[(?=[^\]]*\]:)"  # of a link, and where a link leads
    r"|&(?=#?\w+;)"
)
_LATEX = {"\\": "textbackslash", "~": "textasciitilde", "^": "textasciicircum", "|": "textbar"} | {
    "<": "textless",
    ">": "textgreater",
}


def printable(text: str | os.PathLike[str]) -> str:
    """A name as one line of UTF-8: control characters and bytes that are no text are escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(text))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a file's name that is no text
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """White space as single spaces, and control characters escaped."""
    return printable(" ".join(text.split()))


def cell(text: str, style: str = "") -> Text:
    """For a table of `rich`: without markup, and without control characters, which a terminal would obey."""
    return Text(printable(text), style)


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a line or a cell of a table."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def latex(text: str) -> str:
    """Text that LaTeX prints as it is."""

    def command(match: re.Match[str]) -> str:
        name = _LATEX.get(match[0])
        return f"\\{name}{{}}" if name else "\\" + match[0]

    return re.sub(r"[\\~^|<>&%$#_{}]", command, one_line(text))


def latex_row(cells: Iterable[str]) -> str:
    r"""A row of a LaTeX table; before one that begins with `[` or `*`, `\\` and `\midrule` would take it for theirs."""
    row = " & ".join(cells)
    return ("{}" if row.startswith(("[", "*")) else "") + row + r" \\"


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
    path = Path(path)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(map(spreadsheet, row) for row in rows)
    return path
