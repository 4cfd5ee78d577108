"""The terminal that results are printed to: text and tables."""

from typing import Any

from rich.console import Console

from lightning_xai.reporting.escapes import printable
from lightning_xai.reporting.render import terminal_table
from lightning_xai.results.tables import ResultTable


class _Terminal(Console):
    """Control characters in what is printed, which names may hold, are shown and not obeyed."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_shown, objects), **options)


def console(width: int = 120) -> Console:
    """Where the output is no terminal, its lines are `width` characters long."""
    console = _Terminal(soft_wrap=True, highlight=False, markup=False)  # paths stay in one piece, to be pasted
    if not console.is_terminal:
        console.width = width
    return console


def _shown(item: Any) -> Any:
    if isinstance(item, ResultTable):
        return terminal_table(item)
    return printable_lines(item) if isinstance(item, str) else item


def printable_lines(text: str) -> str:
    """Text whose lines are printable."""
    return "\n".join(map(printable, text.split("\n")))
