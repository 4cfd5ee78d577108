"""What a callback found, at the end of a run: a table, and where the files are."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_xai.reporting.tables import score_table
from lightning_xai.results.store import SCORES
from lightning_xai.results.tables import ResultTable

PANELS = "panels"


def summary_table(callback: Any) -> ResultTable | None:
    """Of the latest scores of an `AttributionCallback`; None before there are some."""
    scores = callback.scores()
    if not scores:
        return None
    title = f"explanations of {len(scores.unique('sample'))} samples, mean ± standard error"
    return score_table(scores, callback.evaluation.higher_is_better, title)


def written(callback: Any) -> Iterator[tuple[str, str | Path]]:
    """Titles and paths of what it wrote, and the command that goes on from there."""
    if callback.folder is None:
        return
    yield "sample scores", callback.folder / SCORES
    yield "as a table", shlex.join(["lightning-xai", "export", str(callback.folder), "--output", "scores.csv"])
    if panels := sorted((callback.folder / PANELS).glob("*.png")):
        yield "latest panel", max(panels, key=lambda panel: panel.stat().st_mtime)


def print_summary(callback: Any, table: ResultTable) -> None:
    """To the terminal."""
    from lightning_xai.reporting.console import console  # rich, which is to be imported behind Lightning

    terminal = console()
    terminal.print(table)
    for title, text in written(callback):
        terminal.print(f"{title:<16} {text}")
