"""The terminal that results are printed to."""

from typing import Any

from rich.console import Console

from lightning_xai.reporting.escapes import printable


class _Terminal(Console):
    """Control characters in what is printed, which names may hold, are shown and not obeyed."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable_lines(item) if isinstance(item, str) else item for item in objects), **options)


def console(width: int = 120) -> Console:
    """Where the output is no terminal, its lines are `width` characters long."""
    console = _Terminal(soft_wrap=True, highlight=False, markup=False)  # paths stay in one piece, to be pasted
    if not console.is_terminal:
        console.width = width
    return console


def printable_lines(text: str) -> str:
    """Text whose lines are printable."""
    return "\n".join(map(printable, text.split("\n")))
