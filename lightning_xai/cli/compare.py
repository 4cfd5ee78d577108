"""`lightning-xai compare RUN [RUN ...]`."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_xai.cli.errors import refusing
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode
from lightning_xai.experiments import compare_methods, read_runs
from lightning_xai.experiments.compare import Procedure
from lightning_xai.reporting.comparison import comparison_notes, comparison_tables, write_comparison
from lightning_xai.reporting.console import console
from lightning_xai.reporting.folders import check_folder


def compare_command(words: Sequence[str]) -> None:
    know_yaml_mode()
    description = str(_compare.__doc__).partition("\n")[0]
    parser = refusing(
        ArgumentParser(prog="lightning-xai compare", description=description, parser_mode=YAML_MODE, allow_abbrev=False)
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="A run's folder, its xai folder, or a file of scores.")
    parser.add_function_arguments(_compare, skip={"runs"}, as_group=False)
    _compare(**parser.parse_args(list(words)).as_dict())


# The parser asks the package, too, for a function of this name: with an underscore, no explainer is imported to answer.
def _compare(
    runs: list[str],
    stage: str | None = None,
    epoch: int | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    gradients: int | None = None,
    procedure: Procedure = "all_pairs",
    smallest_effects: dict[str, float] | None = None,
    output: Path | None = None,
) -> None:
    """Compare the attribution methods of one or more runs: means, confidence intervals, ranks, paired tests.

    Args:
        runs: A run's folder, its xai folder, or a file of scores, each.
        stage: `validate` or `test`; null for `test` if all runs have that, else `validate`.
        epoch: Number of the epoch; null for each run's last one.
        alpha: Level of the tests; the intervals have the confidence 1 - alpha.
        seed: Of the bootstrap.
        gradients: Compare at equal compute: only methods that spend this many gradients a sample, within 5 %, or at
            most one; null for all methods.
        procedure: `all_pairs` corrects the tests of each metric over all pairs of methods; `published` only over those
            against the best, as published tables do, and calls equally good methods worse more often than alpha.
        smallest_effects: By metric, the smallest difference of means of interest; smaller ones are called negligible
            also where they are significant. 0.2 standard deviations where not given.
        output: A folder for comparison.csv, comparison.md, comparison.tex and the figures, comparison-bars.png and
            others; null to write nothing.
    """
    if output is not None:
        check_folder("output", output)
    comparison = compare_methods(read_runs(runs, stage, epoch), alpha, seed, gradients, procedure, smallest_effects)
    terminal = console()
    for table in comparison_tables(comparison):
        terminal.print(table)
    for note in comparison_notes(comparison):
        terminal.tell(note)
    if output is not None:
        from lightning_xai.reporting.comparison_figures import write_comparison_figures  # matplotlib

        for path in [*write_comparison(comparison, output), *write_comparison_figures(comparison, output)]:
            terminal.print(f"{'written':<16} {path}")
