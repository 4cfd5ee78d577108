"""Names in Markdown, LaTeX and terminals: shown as they are, and not obeyed.

Methods, metrics, classes, files and runs are called what a user, or a stranger's file, calls them.
"""

import os
import re
from collections.abc import Iterable

from rich.text import Text

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
