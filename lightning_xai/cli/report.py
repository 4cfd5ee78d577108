"""`lightning-xai report RUN [RUN ...]`."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_xai.cli.compare import runs_parser
from lightning_xai.experiments.findings import find
from lightning_xai.experiments.runs import scores_path
from lightning_xai.reporting.console import console
from lightning_xai.reporting.folders import check_file
from lightning_xai.results.store import SCORES


def report_command(words: Sequence[str]) -> None:
    _report(**runs_parser("report", _report).parse_args(list(words)).as_dict())


# Its name begins with an underscore as that of `compare`.
def _report(
    runs: list[str],
    stage: str | None = None,
    epoch: int | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    output: Path | None = None,
) -> None:
    """Write what finished runs found as one page of HTML, and the same as JSON beside it.

    Args:
        runs: A run's folder, its xai folder, or a file of scores, each.
        stage: `validate` or `test`; null for `test` if all runs have that, else `validate`.
        epoch: Number of the epoch; null for each run's last one.
        alpha: Level of the tests; the intervals have the confidence 1 - alpha.
        seed: Seed of the bootstrap.
        output: The page, `.html`; null for `report.html` in the `xai` folder of the first run. Of more than 500
            samples, or large maps, it needs the folder `NAME_files` beside it.
    """
    from lightning_xai.reporting.page.numbers import text  # jinja2
    from lightning_xai.reporting.page.report import write_report
    from lightning_xai.reporting.page.sentences import sentences

    page = Path(output or _beside(scores_path(runs[0])))
    if page.suffix != ".html":
        raise ValueError(f"`output` must be the name of a page, ending in .html, got {page}.")
    check_file("output", page)
    found = find(runs, stage, epoch, alpha, seed)
    command = shlex.join(["lightning-xai", "report", *map(str, runs)])
    terminal = console()
    for sentence in sentences(found):
        terminal.tell(text(sentence.parts))
    for path in write_report(found, page, command):
        terminal.print(f"{'written':<16} {path}")


def _beside(scores: Path) -> Path:
    return (scores.parent if scores.name == SCORES or scores.is_file() else scores) / "report.html"
