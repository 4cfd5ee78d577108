"""Warnings about what a caller handed in, and where an exception came from."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PACKAGE = __name__.partition(".")[0]


def warn_caller(message: str) -> None:
    """Warn at the line outside of this package by which it was called.

    Python shows a warning once for each line that it is given for. At a line of our own it would be shown for the first
    network alone, and not for the next.
    """
    level = caller = 1
    frame = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
            caller = level + 1
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    warnings.warn(message, stacklevel=caller)


@contextmanager
def noting(text: Callable[[], str], failures: list[str] | None = None) -> Iterator[None]:
    """An exception of the block gets a note (PEP 678), which tracebacks of Python 3.11 and later show.

    Given a list, it is described there, and goes no further.
    """
    try:
        yield
    except Exception as error:
        error.__dict__["__notes__"] = [*getattr(error, "__notes__", ()), text()]
        if failures is None:
            raise
        failures.append(described(error))  # not itself, whose frames hold tensors


def described(error: BaseException) -> str:
    """What an exception is and says, and its notes."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{notes}"
