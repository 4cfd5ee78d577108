"""The terminal that results are printed to."""

from rich.console import Console


def console(width: int = 120) -> Console:
    """Where the output is no terminal, its lines are `width` characters long."""
    console = Console(soft_wrap=True, highlight=False, markup=False)  # paths stay in one piece, to be pasted
    if not console.is_terminal:
        console.width = width
    return console
