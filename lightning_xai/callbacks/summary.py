"""What a callback found, at the end of a run: a table, and where the files are."""

import shlex
from collections.abc import Iterator
from dataclasses import replace
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
    directions = {name: up for own in callback.evaluations.values() for name, up in own.higher_is_better.items()}
    number = len(scores.table[["stage", "sample"]].drop_duplicates())  # each loader numbers its own
    table = score_table(scores, directions)
    title = f"{stage}{of}, epoch {epoch}: explanations of {number} sample{'s' * (number != 1)}, mean ± standard error"
    return replace(table, title=title + ", the best in bold (*)" * bool(table.bold))


def written(callback: Any, trainer: Trainer) -> Iterator[tuple[str, str | Path]]:
    """Titles and paths of what it wrote, and the command that goes on from there."""
    if callback.folder is None:
        return
    yield "sample scores", callback.folder / SCORES
    yield "as a table", shlex.join(["lightning-xai", "export", str(callback.folder), "--output", "scores.csv"])
    names = [name for name in callback.evaluations if name]  # of several loaders, of which one is chosen by its stage
    chosen = [str(callback.folder), *(["--stage", f"{callback.latest[0]}/{names[0]}"] if names else [])]
    if trainer.state.fn == "test":
        yield "to compare", shlex.join(["lightning-xai", "compare", *chosen])
    else:
        yield "beside another", shlex.join(["lightning-xai", "compare", chosen[0], "OTHER_RUN", *chosen[1:]])
    yield "as a page", shlex.join(["lightning-xai", "report", *chosen])
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
