"""The terminal that results are printed to."""

from rich.console import Console


def console() -> Console:
    console = Console(soft_wrap=True, highlight=False, markup=False)  # paths stay in one piece, to be pasted
    if not console.is_terminal:
        console.width = 120
    return console
