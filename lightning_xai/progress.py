"""Progress bars outside of a Trainer: on a terminal or in a notebook, with the time left, and gone when done."""

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from tqdm.auto import tqdm


@runtime_checkable
class Task(Protocol):
    """Receives progress updates."""

    def update(self, n: int = 1, /) -> Any: ...


Bar = Callable[[str, int], AbstractContextManager[Task]]
"""A bar of somebody else's for one task, of its title and total."""


def progress_bar(
    title: str | None,
    total: int | None = None,
    unit: str = "batch",
    shown: bool = True,
    items: Iterable[Any] | None = None,
) -> tqdm:
    """A bar for one task, or for a pass over `items`; none in a log file, where each step would be a line."""
    seen = "ipykernel" in sys.modules or sys.stderr.isatty()
    return tqdm(items, title, total, leave=False, unit=unit, disable=not (shown and seen))
