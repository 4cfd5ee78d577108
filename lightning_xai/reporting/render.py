"""A `ResultTable` in a terminal, in Markdown and in LaTeX."""

import re
from collections.abc import Iterator
from dataclasses import replace

from rich.box import SIMPLE_HEAD
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


def terminal_tables(table: ResultTable, width: int, starred: bool = True) -> list[Table]:
    """For `rich.print`: the table, or where it is wider than the terminal several below one another.

    Each begins with the first column and has as many of the others as fit. No word and no number is broken.

    Args:
        width: Of the terminal, in characters.
        starred: As in `terminal_table`.
    """
    first, *others = range(len(table.columns))
    groups = [[first]]
    for column in others:
        if len(groups[-1]) > 1 and _width(table, [*groups[-1], column]) > width:
            groups.append([first])
        groups[-1].append(column)
    parts = [_part(table, group) for group in groups]
    parts[0] = replace(parts[0], title=table.title)
    parts[-1] = replace(parts[-1], notes=table.notes)
    return [terminal_table(part, starred, width) for part in parts]


def _part(table: ResultTable, columns: list[int]) -> ResultTable:
    """Some of the columns, without title and notes."""
    bold = table.bold
    if bold is not None:
        bold = frozenset((row, columns.index(column)) for row, column in bold if column in columns)
    rows = tuple(tuple(row[column] for column in columns) for row in table.rows)
    return ResultTable("", tuple(table.columns[column] for column in columns), rows, (), bold)


def _width(table: ResultTable, columns: list[int]) -> int:
    return sum(_least_width(table, column) + 3 for column in columns) + 1


def _least_width(table: ResultTable, column: int) -> int:
    """Of a column whose numbers stay whole, and whose sentences may be folded between words."""
    words = table.columns[column].replace("_", " ").split()
    for row in table.rows:
        text = row[column].removeprefix("**").removesuffix("**")
        words += text.split() if len(text) > _LONGEST else [text]
    return max(map(len, words), default=0)


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
    for position, title in enumerate(table.columns):
        heading, least = cell(title.replace("_", " ")), _least_width(table, position)
        justify = "right" if position else "left"
        drawn.add_column(heading, justify=justify, overflow="fold", min_width=least)  # type: ignore[arg-type]
    for row in _marked(table):
        texts = []
        for position, (text, bold) in enumerate(row):
            star = " *" if starred and bold and not (position and row[0][1]) else ""
            texts.append(cell(text + star, "bold" if bold else _STYLES.get(text, "")))
        drawn.add_row(*texts)
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
