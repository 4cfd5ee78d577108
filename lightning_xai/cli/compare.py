"""`lightning-xai compare RUN [RUN ...]`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_xai.cli.errors import refusing
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode
from lightning_xai.experiments import compare_methods, read_runs
from lightning_xai.experiments.compare import Procedure
from lightning_xai.experiments.findings import paired
from lightning_xai.experiments.runs import told_apart
from lightning_xai.reporting.comparison import comparison_notes, comparison_tables, pair_tables, write_comparison
from lightning_xai.reporting.console import console
from lightning_xai.reporting.folders import check_folder
from lightning_xai.reporting.page.numbers import text
from lightning_xai.reporting.page.sentences import conclusion
from lightning_xai.results.findings import Findings


def compare_command(words: Sequence[str]) -> None:
    _compare(**runs_parser("compare", _compare).parse_args(list(words)).as_dict())


def runs_parser(command: str, function: Callable[..., None]) -> ArgumentParser:
    """Of a command on finished runs, whose options are the arguments of a function."""
    know_yaml_mode()
    told, name = str(function.__doc__).partition("\n")[0], f"lightning-xai {command}"
    parser = refusing(ArgumentParser(prog=name, description=told, parser_mode=YAML_MODE, allow_abbrev=False))
    parser.add_argument("runs", nargs="+", metavar="RUN", help="A run's folder, its xai folder, or a file of scores.")
    parser.add_function_arguments(function, skip={"runs"}, as_group=False)
    return parser


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
        seed: Seed of the bootstrap.
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
    found = read_runs(runs, stage, epoch)
    comparison = compare_methods(found, alpha, seed, gradients, procedure, smallest_effects)
    pairs = tuple(paired(told_apart(found), alpha, seed))
    terminal = console()
    for sentence in conclusion(Findings(comparison, (), pairs)):
        terminal.tell(text(sentence.parts))
    terminal.print()
    for table in [*pair_tables(pairs, alpha), *comparison_tables(comparison)]:
        terminal.print(table)
    for note in comparison_notes(comparison):
        terminal.tell(note)
    if output is not None:
        from lightning_xai.reporting.comparison_figures import write_comparison_figures  # matplotlib

        for path in [*write_comparison(comparison, output), *write_comparison_figures(comparison, output)]:
            terminal.print(f"{'written':<16} {path}")
