"""A `ResultTable` in a terminal, in Markdown and in LaTeX."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from lightning_xai.reporting.escapes import cell, latex, latex_row, markdown, one_line
from lightning_xai.results.tables import ResultTable

_NUMBER = r"([-+]?\d+(?:\.\d+)?)(?:e([-+]\d+))?"
_INTERVAL = re.compile(rf"{_NUMBER}(?: \[{_NUMBER}, {_NUMBER}\])?")
"""A number, and perhaps its interval."""
_LONGEST = 36
"""Characters of a cell that is never folded; a longer one is a sentence."""
_STYLES = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow"}
"""Of cells that are a verdict, in a terminal."""


def terminal_tables(table: ResultTable, width: int, starred: bool = True) -> list[Table | Text]:
    """For `rich.print`: the table, or where it is wider than the terminal several below one another; then the notes.

    Each begins with the first column and has as many of the others as fit. No word and no number is broken.

    Args:
        width: Of the terminal, in characters.
        starred: As in `terminal_table`.
    """
    first, *others = range(len(table.columns))
    groups = [[first]]
    for column in others:
        if len(groups[-1]) > 1 and _width(table, [*groups[-1], column], starred) > width:
            groups.append([first])
        groups[-1].append(column)
    parts = [_part(table, group) for group in groups]
    parts[0] = replace(parts[0], title=table.title)
    notes = [Text("\n").join(map(cell, table.notes))] if table.notes else []  # not as narrow as the last table
    return [*(terminal_table(part, starred, width) for part in parts), *notes]


def _part(table: ResultTable, columns: list[int]) -> ResultTable:
    """Some of the columns, without title and notes."""
    bold = table.bold
    if bold is not None:
        bold = frozenset((row, columns.index(column)) for row, column in bold if column in columns)
    rows = tuple(tuple(row[column] for column in columns) for row in table.rows)
    verbatim = frozenset(place for place, column in enumerate(columns) if column in table.verbatim)
    return ResultTable("", tuple(table.columns[column] for column in columns), rows, (), bold, verbatim)


def _width(table: ResultTable, columns: list[int], starred: bool) -> int:
    """With the blanks between them."""
    return sum(_widths(table, column, starred)[0] + 3 for column in columns) + 1


def _widths(table: ResultTable, column: int, starred: bool) -> tuple[int, int]:
    """The least and the natural width: numbers stay whole, sentences and titles may be folded between words."""
    title = _heading(table, column)
    texts = [row[column] + star for row, star in zip(_texts(table), _stars(table, column, starred), strict=True)]
    words = [word for text in texts for word in (text.split() if len(text) > _LONGEST else [text])]
    return max(map(_length, (*title.split(), *words)), default=0), max(map(_length, (title, *texts)))


def _heading(table: ResultTable, column: int) -> str:
    """A title that folds between its words; the path of a run, and other names, are written as they are."""
    title = table.columns[column]
    return title if "/" in title or column in table.verbatim else title.replace("_", " ")


def _texts(table: ResultTable) -> list[list[str]]:
    return [[text for text, _ in row] for row in _marked(table)]


def _stars(table: ResultTable, column: int, starred: bool) -> list[str]:
    """Of bold cells, for output that shows no bold type; of a row in bold type the first one has it."""
    rows = _marked(table)
    return [" *" if starred and row[column][1] and not (column and row[0][1]) else "" for row in rows]


def _length(text: str) -> int:
    return cell_len(cell(text).plain)


def terminal_table(table: ResultTable, starred: bool = True, width: int | None = None) -> Table:
    """For `rich.print`, in one piece.

    Args:
        starred: Whether bold cells get a star, of a row in bold type the first one: for output that shows no bold type.
        width: Of the terminal.
    """
    drawn = Table(
        title=cell(table.title) if table.title else None,
        title_justify="left",
        title_style="",
        caption=Text("\n").join(map(cell, table.notes)) if table.notes else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        min_width=min(len(table.title), width or len(table.title)),  # which a narrower table would fold
    )
    columns = range(len(table.columns))
    spare = math.inf if width is None else width - _width(table, list(columns), starred)
    for column in columns:
        least, natural = _widths(table, column, starred)
        more = min(
            natural - least, max(0, spare)
        )  # given from the left: rich would take from the widest, its words too
        spare -= more
        justify: Any = "right" if column else "left"
        heading = cell(_heading(table, column))
        drawn.add_column(heading, justify=justify, overflow="fold", width=int(least + more))
    stars = [_stars(table, column, starred) for column in columns]
    for number, row in enumerate(_marked(table)):
        styles = ("bold" if bold else _STYLES.get(text, "") for text, bold in row)
        texts = (text + own[number] for (text, _), own in zip(row, stars, strict=True))
        drawn.add_row(*map(cell, texts, styles))
    return drawn


def markdown_table(table: ResultTable, heading: str = "##") -> str:
    """Heading, table and notes, a blank line between them."""
    rules = ["---", *["---:"] * (len(table.columns) - 1)]
    rows = [[_in_bold(markdown(text), bold) for text, bold in row] for row in _marked(table)]
    lines = ["| " + " | ".join(row) + " |" for row in ([*map(markdown, table.columns)], rules, *rows)]
    title = [f"{heading} {markdown(table.title)}"] if table.title else []
    return "\n\n".join([*title, "\n".join(lines), *map(markdown, table.notes)])


def latex_table(table: ResultTable) -> str:
    """A `booktabs` table, the notes as comments above it; numbers and their intervals are set as mathematics."""
    columns = [latex(title).replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for title in table.columns]
    header, *rows = map(latex_row, (columns, *([_latex_cell(*c) for c in row] for row in _marked(table))))
    notes = [f"% {one_line(note)}" for note in (*table.notes, "Needs the package booktabs.")]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
    lines = [*notes, begin, r"\toprule", header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _marked(table: ResultTable) -> Iterator[list[tuple[str, bool]]]:
    """The rows, of each cell its text and whether it is bold."""
    for number, row in enumerate(table.rows):
        if table.bold is not None:
            yield [(text, (number, position) in table.bold) for position, text in enumerate(row)]
        else:
            marks = [re.fullmatch(r"\*\*(.+)\*\*", text) for text in row]
            yield [(found[1], True) if found else (text, False) for text, found in zip(row, marks, strict=True)]


def _in_bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold and text else text


def _latex_cell(text: str, bold: bool) -> str:
    if text.isdigit() or not _INTERVAL.fullmatch(text):
        return rf"\textbf{{{latex(text)}}}" if bold and text else latex(text)
    powers = [rf"{digits}\cdot10^{{{int(power)}}}" if power else digits for digits, power in re.findall(_NUMBER, text)]
    mean, *ends = powers
    mean = rf"\mathbf{{{mean}}}" if bold else mean
    interval = r",\,".join(ends)
    return rf"${mean}\;{{\scriptstyle[{interval}]}}$" if ends else f"${mean}$"
