"""`lightning-xai export RUN`."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_xai.cli.errors import refusing
from lightning_xai.experiments.runs import scores_path
from lightning_xai.reporting.console import console
from lightning_xai.reporting.folders import check_file
from lightning_xai.results.files import csv_text
from lightning_xai.results.scores import COLUMNS
from lightning_xai.results.store import read_scores


def export_command(words: Sequence[str]) -> None:
    description = str(_export.__doc__).partition("\n")[0]
    parser = refusing(ArgumentParser(prog="lightning-xai export", description=description))
    parser.add_argument("run", metavar="RUN", help="A run's folder, its xai folder, or a file of scores.")
    parser.add_function_arguments(_export, skip={"run"}, as_group=False)
    _export(**parser.parse_args(list(words)).as_dict())


# Its name begins with an underscore as that of `compare`.
def _export(run: str, output: Path | None = None) -> None:
    """Write the scores of a run as CSV: stage, epoch, step, method, metric, sample, value, target.

    A name that a spreadsheet would take for a formula gets an apostrophe in front.

    Args:
        run: A run's folder, its xai folder, or a file of scores.
        output: The file; null to print its lines.
    """
    if output is not None:
        check_file("output", output)
    scores = read_scores(scores_path(run))
    if output is None:
        print(csv_text([COLUMNS, *scores]), end="")
    else:
        scores.save(output)
        console().print(f"{'written':<16} {output}")
