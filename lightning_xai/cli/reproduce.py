"""`lightning-xai reproduce NAME [--fast] [--OPTION VALUE ...]` and `lightning-xai study FILE [...]`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure

from lightning_xai.cli.errors import refusing
from lightning_xai.cli.unique_keys import YAML_MODE, know_yaml_mode, load_yaml, where_wrong
from lightning_xai.experiments.papers import EXPERIMENTS, Experiment, Lab
from lightning_xai.experiments.prices import study_prices
from lightning_xai.explainers.base import check_count
from lightning_xai.reporting.console import console
from lightning_xai.reporting.folders import check_folder
from lightning_xai.reporting.reproduction import SETTINGS, write_reproduction
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.studies.engine import run_study
from lightning_xai.studies.report import study_figures, study_report
from lightning_xai.studies.study import Study, carried_studies, study_of

_COUNTS = r"num_|.*(_samples|_draws|_epochs|_size)$|repeats$|steps$"
"""Options of experiments that count something."""
USAGE = "lightning-xai reproduce NAME [--fast] [--OPTION VALUE ...]"
STUDY_USAGE = "lightning-xai study FILE [--fast] [--OPTION VALUE ...]"


def reproduce_experiment(words: Sequence[str]) -> None:
    """Run the experiment named first, or list all of them."""
    name, *options = words or ["--list"]
    studies = carried_studies()
    if name in ("--list", "-h", "--help"):
        list_experiments()
    elif name in studies:
        _run_study(studies[name], f"reproduce {name}", options)
    elif name in EXPERIMENTS:
        experiment = EXPERIMENTS[name]
        lab, folder, settings, given = _parsed(experiment_parser(name, experiment), options, experiment.fast)
        _report(*experiment.run(lab, **settings), folder, given)
    else:
        known = [*EXPERIMENTS, *studies]
        near = "".join(f" Did you mean {other!r}?" for other in get_close_matches(name, known, n=1))
        raise ValueError(f"`name` must be one of {', '.join(known)}; got {name!r}.{near}")


def study_command(words: Sequence[str]) -> None:
    """Run the study in the file named first."""
    if not words or words[0] in ("-h", "--help"):
        console().print(f"{STUDY_USAGE}\nWhat a study is: lightning_xai.studies.study.Study; the package brings")
        for name, path in carried_studies().items():
            console().print(f"  {name:<22} {path}")
        return
    name, *options = words
    if not Path(name).is_file():
        raise ValueError(f"`study`: there is no file {name!r}. Usage: {STUDY_USAGE}")
    _run_study(Path(name), f"study {name}", options)


def _run_study(path: Path, command: str, options: Sequence[str]) -> None:
    taken = [*(field.name for field in fields(Lab)), "output", "kept", "dry_run", "help"]
    try:
        study = study_of(load_yaml(path.read_text(encoding="utf-8")), path, taken)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: this is not YAML that can be read: {where_wrong(error)}.") from error
    lab, folder, settings, given = _parsed(study_parser(study, path, command), options, study.fast)
    kept, dry_run = settings.pop("kept"), settings.pop("dry_run")
    study = study.changed(settings)
    if dry_run:
        for price in study_prices(lab, study):
            console(width=200).print(price.table())
        return
    results = run_study(lab, study, kept)
    report = study_report(study, results, lab.seed, lab.precision, "--fast" in options)
    _report(report, study_figures(study, results, path.stem), folder, given)


def study_parser(study: Study, path: Path, command: str) -> ArgumentParser:
    """Options of the `Lab`, parts of the study and its variables, with the file's values for their defaults."""
    kind = "reproduce" if command.startswith("reproduce") else "studies"
    parser = _parser(command, study.summary or study.source, Path("runs", kind, path.stem))
    parser.add_argument("--kept", type=str | None, help="Folder for finished batches, to go on with; null keeps none.")
    parser.add_argument("--dry_run", type=bool, default=False, help="Tell what it will cost instead of running it.")
    parser.add_class_arguments(Study, as_group=False, skip=_NO_OPTIONS)
    for name, value in study.variables.items():
        parser.add_argument(f"--{name}", type=Any, default=value, help="A variable of the study.")
    parser.set_defaults({name: value for name, value in vars(study).items() if name not in _NO_OPTIONS})
    return parser


_NO_OPTIONS = {"variables", "fast", "whole"}


def experiment_parser(name: str, experiment: Experiment) -> ArgumentParser:
    """Options of the experiment and of the `Lab`."""
    parser = _parser(f"reproduce {name}", experiment.summary, Path("runs", "reproduce", name))
    parser.add_argument("--config", action="config", help="A file with values of the options below.")
    parser.add_function_arguments(experiment.run, skip={"lab"}, as_group=False)
    return parser


def _parser(command: str, description: str, output: Path) -> ArgumentParser:
    know_yaml_mode()
    parser = ArgumentParser(
        prog=f"lightning-xai {command}", description=description, parser_mode=YAML_MODE, allow_abbrev=False
    )
    parser.add_argument("--output", default=str(output), help="Folder for report, records and figures.")
    parser.add_argument("--fast", action="store_true", help="A small version, of minutes, in a folder of its own.")
    parser.add_class_arguments(Lab, as_group=False)
    return refusing(parser)


def _parsed(
    parser: ArgumentParser, options: Sequence[str], fast: Mapping[str, Any]
) -> tuple[Lab, Path, dict[str, Any], dict[str, Any]]:
    """The lab, the folder, all other options, and those that results depend on, checked before anything is computed.

    Args:
        fast: Defaults of the fast version, on embedded data where no `--root` is given, into a folder of its own.
    """
    if "--fast" in options:
        has_root = any(word.partition("=")[0] == "--root" for word in options)  # then the data are there
        parser.set_defaults({"embedded": not has_root, "output": f"{parser.get_default('output')}-fast", **fast})
    settings = parser.parse_args(list(options)).as_dict()
    for name in ("config", "fast"):  # which has changed the defaults
        settings.pop(name, None)
    for option, value in settings.items():
        if option in ("output", "kept") and value is not None:
            check_folder(option, value)
        if isinstance(value, int) and re.match(_COUNTS, option):
            check_count(option, value)
    lab = Lab(**{field.name: settings.pop(field.name) for field in fields(Lab)})
    folder = Path(settings.pop("output"))
    given = {name: value for name, value in {**vars(lab), **settings}.items() if name not in _INDIFFERENT}
    given = json.loads(json.dumps(given, default=str))
    _check_unlike(folder / SETTINGS, given)
    return lab, folder, settings, given


_INDIFFERENT = {"root", "configs", "checkpoints", "cache", "device", "progress", "kept"}
"""Options that results do not depend on."""


def _check_unlike(path: Path, given: Mapping[str, Any]) -> None:
    """Refuse a folder that has results of other options."""
    written = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    known = written.get("options", {}) if isinstance(written, Mapping) else given
    if other := [name for name in {**known, **given} if known.get(name) != given.get(name)]:
        raise ValueError(
            f"`output`: {path.parent} has results with other values of {', '.join(other)}. Give another folder, or "
            "remove this one."
        )


def _report(result: Reproduction, figures: Mapping[str, Figure], folder: Path, given: Mapping[str, Any]) -> None:
    terminal = console(width=200)
    terminal.tell(result.source)
    for table in result.tables:
        terminal.print(table)
    for finding in result.findings:
        terminal.tell(finding)
    result = replace(result, settings={**result.settings, "options": given})
    for path in write_reproduction(result, figures, folder):
        terminal.print(f"{'written':<16} {path}")


def list_experiments() -> None:
    terminal = console()
    terminal.print(USAGE)
    summaries = [(name, experiment.summary) for name, experiment in EXPERIMENTS.items()]
    studies = {name: load_yaml(path.read_text(encoding="utf-8")) for name, path in carried_studies().items()}
    summaries += [(name, study["summary"]) for name, study in studies.items()]
    for name, summary in summaries:
        terminal.print(f"{name:<22} {summary}")
    terminal.print(f"{'options of one':<22} lightning-xai reproduce {next(iter(EXPERIMENTS))} --help")
