"""What a callback found, at the end of a run: a table, and where the files are."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from lightning_xai.reporting.tables import score_table
from lightning_xai.results.store import SCORES
from lightning_xai.results.tables import ResultTable

PANELS, SHORTCUT = "panels", "shortcut"
"""The folder of pictures; and what the names of those begin with that show shortcuts, as those of their metrics do."""


def summary_table(callback: Any, trainer: Trainer) -> ResultTable | None:
    """Of the latest scores of an `AttributionCallback`, named by stage, epoch and checkpoint; None before."""
    scores = callback.scores()
    if not scores:
        return None
    stage, epoch, _ = callback.latest
    of = f" of {Path(trainer.ckpt_path).name}" if trainer.ckpt_path and trainer.state.fn != "fit" else ""
    number = len(scores.unique("sample"))
    title = f"{stage}{of}, epoch {epoch}: explanations of {number} samples, mean ± standard error, the best in bold"
    return score_table(scores, callback.evaluation.higher_is_better, title)


def written(callback: Any, trainer: Trainer) -> Iterator[tuple[str, str | Path]]:
    """Titles and paths of what it wrote, and the command that goes on from there."""
    if callback.folder is None:
        return
    yield "sample scores", callback.folder / SCORES
    yield "as a table", shlex.join(["lightning-xai", "export", str(callback.folder), "--output", "scores.csv"])
    if trainer.state.fn == "test":
        yield "to compare", shlex.join(["lightning-xai", "compare", str(callback.folder)])
    yield "as a page", shlex.join(["lightning-xai", "report", str(callback.folder)])
    found = (callback.folder / PANELS).glob("*.png")
    if panels := sorted(panel for panel in found if not panel.name.startswith(f"{SHORTCUT}-")):
        yield "latest panel", max(panels, key=lambda panel: panel.stat().st_mtime)


def print_summary(callback: Any, trainer: Trainer, table: ResultTable) -> None:
    """To the terminal."""
    from lightning_xai.reporting.console import console  # rich, which is to be imported behind Lightning

    terminal = console()
    terminal.print(table)
    for title, text in written(callback, trainer):
        terminal.print(f"{title:<16} {text}")
