"""The terminal that results are printed to: text and tables."""

import textwrap
from io import StringIO
from typing import Any

from rich.console import Console

from lightning_xai.reporting.escapes import printable
from lightning_xai.reporting.render import terminal_tables
from lightning_xai.results.tables import ResultTable


class Terminal(Console):
    """Control characters in what is printed, which names may hold, are shown and not obeyed."""

    def print(self, *objects: Any, **options: Any) -> None:
        if any(isinstance(item, ResultTable) for item in objects):
            options = {"soft_wrap": False, "crop": False, **options}  # or else titles of columns would not be folded
        super().print(*(part for item in objects for part in self._shown(item)), **options)

    def tell(self, text: str) -> None:
        """A sentence, folded between words where a terminal would break them; paths and commands are printed whole."""
        fold = self.is_terminal and len(text) > self.width
        self.print(textwrap.fill(text, self.width, break_long_words=False, break_on_hyphens=False) if fold else text)

    def _shown(self, item: Any) -> list[Any]:
        if isinstance(item, ResultTable):
            return list(terminal_tables(item, self.width, starred=not self.is_terminal or self.no_color))
        return [printable_lines(item) if isinstance(item, str) else item]


_PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False, "emoji": False}
"""Paths stay in one piece."""


def console(width: int = 120) -> Terminal:
    """Where the output is no terminal, its lines are `width` characters long."""
    console = Terminal(**_PLAIN)
    if not console.is_terminal:
        console.width = width
    return console


def as_text(*parts: ResultTable | str) -> str:
    """What a terminal would show of tables and sentences, without colors: how results print themselves."""
    file, width = StringIO(), console().width
    terminal = Terminal(file=file, width=width, force_terminal=False, force_jupyter=False, no_color=True, **_PLAIN)
    for part in parts:
        terminal.print(textwrap.fill(part, width, break_on_hyphens=False) if isinstance(part, str) else part)
    return "\n".join(map(str.rstrip, file.getvalue().strip("\n").split("\n")))


def printable_lines(text: str) -> str:
    """Text whose lines are printable."""
    return "\n".join(map(printable, text.split("\n")))
