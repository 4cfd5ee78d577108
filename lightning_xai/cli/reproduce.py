"""`lightning-xai reproduce NAME [--fast] [--OPTION VALUE ...]`."""

import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_xai.cli.console import console
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode
from lightning_xai.experiments.papers import EXPERIMENTS, Experiment, Lab
from lightning_xai.explainers.base import check_count
from lightning_xai.reporting.folders import check_folder
from lightning_xai.reporting.reproduction import write_reproduction

_COUNTS = r"num_|.*(_samples|_draws|_epochs|_size)$|repeats$|steps$"
"""Options of experiments that count something."""
USAGE = "lightning-xai reproduce NAME [--fast] [--OPTION VALUE ...]"


def reproduce_experiment(words: Sequence[str]) -> None:
    """Run the experiment named first, or list all of them."""
    if not words or words[0] in ("--list", "-h", "--help"):
        list_experiments()
        return
    name, *options = words
    if name not in EXPERIMENTS:
        sys.exit(f"lightning-xai reproduce: NAME must be one of {', '.join(EXPERIMENTS)}; got {name!r}.")
    experiment, fast = EXPERIMENTS[name], "--fast" in options
    parsed = experiment_parser(name, experiment, fast).parse_args([word for word in options if word != "--fast"])
    settings = {option: value for option, value in parsed.as_dict().items() if option != "config"}
    folder = Path(settings.pop("output"))
    check_folder("output", folder)
    for option, value in settings.items():
        if isinstance(value, int) and re.match(_COUNTS, option):
            check_count(option, value)
    if settings.get("kept") is not None:
        check_folder("kept", settings["kept"])
    lab = Lab(**{field.name: settings.pop(field.name) for field in fields(Lab)})
    result = experiment.run(lab, **settings)
    terminal = console(width=200)
    terminal.print(result.source)
    for table in result.tables:
        terminal.print(table)
    for finding in result.findings:
        terminal.print(finding)
    for path in write_reproduction(result, experiment.figures(result), folder):
        terminal.print(f"{'written':<16} {path}")


def experiment_parser(name: str, experiment: Experiment, fast: bool) -> ArgumentParser:
    """Options of the experiment and of the `Lab`."""
    know_yaml_mode()
    prog = f"lightning-xai reproduce {name}"
    parser = ArgumentParser(prog=prog, description=experiment.summary, parser_mode=YAML_MODE)
    parser.add_argument("--config", action="config", help="A file with values of the options below.")
    parser.add_argument(
        "--output",
        default=str(Path("runs", "reproduce", f"{name}-fast" if fast else name)),
        help="Folder for report, records and figures.",
    )
    parser.add_class_arguments(Lab, as_group=False)
    parser.add_function_arguments(experiment.run, skip={"lab"}, as_group=False)
    if fast:
        parser.set_defaults({"embedded": True, **experiment.fast})
    return parser


def list_experiments() -> None:
    terminal = console()
    terminal.print(USAGE)
    for name, experiment in EXPERIMENTS.items():
        terminal.print(f"{name:<22} {experiment.summary}")
    terminal.print(f"{'options of one':<22} lightning-xai reproduce {next(iter(EXPERIMENTS))} --help")
