"""The program: `lightning-xai COMMAND --config FILE [--option VALUE ...]`, and `compare`.

The commands: fit, validate, test, predict, sanity and calibrate.
"""

import logging
import os
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from PIL import Image
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from lightning_xai.callbacks.attribution import PANELS, AttributionCallback
from lightning_xai.callbacks.pareto import VALIDATIONS, ParetoFront
from lightning_xai.evaluation import Evaluation
from lightning_xai.experiments import compare_methods, read_runs
from lightning_xai.experiments.trainer import ExaminingTrainer
from lightning_xai.experiments.twins import cached_twin, memorise
from lightning_xai.modules.checkpoints import check_resumable, check_weights_fit, read_checkpoint
from lightning_xai.reporting.comparison import comparison_notes, comparison_tables, write_comparison
from lightning_xai.reporting.comparison_figures import write_comparison_figures
from lightning_xai.reporting.noise_level import NoiseLevel, level_lines, write_noise_level
from lightning_xai.reporting.noise_level_figure import noise_level_figure
from lightning_xai.reporting.panels import save_figure
from lightning_xai.reporting.pareto import front_table
from lightning_xai.reporting.sanity import SanityReport, verdict_table, write_sanity
from lightning_xai.reporting.sanity_figures import write_figures
from lightning_xai.reporting.scores import SCORES, evaluation_rows
from lightning_xai.reporting.tables import score_table, summarise

T = TypeVar("T")
YAML_MODE = "yaml_with_unique_keys"

# Short, because the parser prints it before each error; `--help` explains the options.
USAGE = {
    name: {"usage": "%(prog)s --config FILE [--OPTION VALUE ...]"}
    for name in (*LightningCLI.subcommands(), "sanity", "calibrate")
}

TRAINING = ("max_epochs", "precision", "gradient_clip_val", "accumulate_grad_batches", "limit_train_batches")
"""Options of the trainer that a network trained on random labels depends on."""

DESCRIPTION = (
    "Train classifiers and score their explanations. One more command beside those below: `compare RUN [RUN ...]` "
    "compares the methods of finished runs."
)

HARMLESS_WARNINGS = (
    ".*does not have many workers.*",  # our images are in memory, workers only cost time
    ".*smaller than the logging interval.*",  # a small data set
    ".*Checkpoint directory .* exists and is not empty.*",  # that of the run being resumed
    ".*The dirpath has changed.*",  # `test` has a folder of its own
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6's own, on recent torch
)


def main(args: ArgsType = None) -> None:
    """Run one command; `args` are the words after the program's name, by default those it was called with."""
    words = sys.argv[1:] if args is None else args
    if isinstance(words, list) and words[:1] == ["compare"]:
        compare_runs(**compare_parser().parse_args(words[1:]).as_dict())
        return
    set_loader(YAML_MODE, load_yaml, exceptions=(yaml.YAMLError,))
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_tip)
    with warnings.catch_warnings():
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message)
        XAICommandLine(
            LightningModule,
            LightningDataModule,
            trainer_class=ExaminingTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # optimizer and scheduler are arguments of the module
            seed_everything_default=0,
            parser_kwargs={"prog": "lightning-xai", "description": DESCRIPTION, "parser_mode": YAML_MODE} | USAGE,
            args=args,
        )


def compare_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lightning-xai compare", description=str(compare_runs.__doc__).partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="A run's folder, its xai folder, or a file of scores.")
    parser.add_function_arguments(compare_runs, skip={"runs"}, as_group=False)
    return parser


def compare_runs(
    runs: list[str],
    stage: str | None = None,
    epoch: int | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    gradients: int | None = None,
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
        output: A folder for comparison.csv, comparison.md, comparison.tex and the figures, comparison-bars.png and
            others; null to write nothing.
    """
    comparison = compare_methods(read_runs(runs, stage, epoch), alpha, seed, gradients)
    console = _console()
    for table in comparison_tables(comparison):
        console.print(table)
    for note in comparison_notes(comparison):
        console.print(note)
    if output is not None:
        for path in [*write_comparison(comparison, output), *write_comparison_figures(comparison, output)]:
            console.print(f"{'written':<16} {path}")


class XAICommandLine(LightningCLI):
    """LightningCLI that checks its input before it trains or writes anything, and reports afterwards."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        self.ckpt_path = self.config[self.config.subcommand].ckpt_path or ""
        self.checkpoint = read_checkpoint(self.ckpt_path) if _is_local_file(self.ckpt_path) else None

    def after_instantiate_classes(self) -> None:
        if self.checkpoint and self.model.strict_loading:
            check_weights_fit(self.checkpoint, self.model, self.ckpt_path)
        if self.checkpoint and self.subcommand == "fit":
            check_resumable(self.checkpoint, self.ckpt_path)
        if not self._get(self.config, "trainer").fast_dev_run:  # which writes nothing
            check_writable(self.trainer)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        examining = {"sanity": {"model", "datamodule", "make_twin"}, "calibrate": {"model", "datamodule"}}
        return LightningCLI.subcommands() | examining

    def sanity(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """The checks, then files, figures and the exit code; what Lightning calls for the subcommand of this name."""
        run = checkpoint_run(options["ckpt_path"])
        if options["check"] in ("data", "all"):
            check_randomisable(self.config.sanity.data)
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world > 1:
            dist.init_process_group("gloo")
        load_weights(model, options["ckpt_path"])
        options["output"] = options["output"] or str(run / "sanity")
        train = partial(self._random_label_twin, options["twin_epochs"], Path(options["twins"]))
        result = cast(ExaminingTrainer, self.trainer).sanity(model, datamodule, make_twin=train, **options)
        if world == 1 or dist.get_rank() == 0:
            report_sanity(result, Path(options["output"]) / options["check"])
        if world > 1:
            dist.destroy_process_group()
        failed = [v for v in result.verdicts if v.method in (options["require"] or []) and v.outcome != "PASS"]
        if failed:
            sys.exit(1)

    def calibrate(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """The level, then its files; what Lightning calls for the subcommand of this name. One process works."""
        run = checkpoint_run(options["ckpt_path"])
        path = Path(options["output"] or run / "noise_level.yaml")
        if int(os.environ.get("RANK", 0)) > 0:
            return
        load_weights(model, options["ckpt_path"])
        report_noise_level(cast(ExaminingTrainer, self.trainer).calibrate(model, datamodule, **options), path)

    def _random_label_twin(self, epochs: int, folder: Path) -> tuple[nn.Module, float]:
        """A network trained as the configuration says, but on random labels; or the one trained earlier."""
        config = self.config.sanity.clone()
        config.data.init_args.randomize_labels = True
        config.trainer.logger, config.trainer.callbacks, config.trainer.max_epochs = False, None, epochs
        settings = {part: config[part].as_dict() for part in ("model", "data")}
        settings |= {option: config.trainer[option] for option in TRAINING} | {"seed": config.seed_everything}

        def made() -> Any:
            with isolate_rng():
                seed_everything(config.seed_everything if isinstance(config.seed_everything, int) else 0)
                return self._subcommand_parsers["sanity"].instantiate_classes(config)

        def train(scratch: Path) -> tuple[nn.Module, float]:
            parts = made()
            return memorise(parts.model, parts.data, scratch, vars(parts.trainer))

        weights, accuracy = cached_twin(folder, settings, train)
        twin = made().model
        twin.load_state_dict(weights)
        return twin.to(self.trainer.strategy.root_device).eval(), accuracy

    def after_fit(self) -> None:
        report(self.trainer)

    def after_validate(self) -> None:
        report(self.trainer)

    def after_test(self) -> None:
        report(self.trainer)


def check_randomisable(data: Namespace) -> None:
    """Raises a ValueError unless the data module can randomise its labels."""
    if "randomize_labels" not in data.init_args:
        raise ValueError(
            f"`data`: {data.class_path} cannot randomise its labels, which the data check needs; give the data module "
            "an argument `randomize_labels`, or choose another `check`."
        )


def checkpoint_run(path: str | None) -> Path:
    """The folder of the run that wrote a checkpoint.

    Raises:
        ValueError: if there is no path.
    """
    if not path:
        raise ValueError("`ckpt_path` must name a checkpoint: what is examined is a trained model.")
    return Path(path).absolute().parents[1]


def load_weights(model: LightningModule, path: str) -> None:
    """The checkpoint's weights, safely read."""
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])


def report_noise_level(level: NoiseLevel, path: Path) -> None:
    """Print the level, and write settings, curve and figure."""
    console, figure = _console(), path.with_suffix(".png")
    written = write_noise_level(level, path)
    save_figure(noise_level_figure(level), figure)
    for line in level_lines(level):
        console.print(line)
    for file in [*written, figure]:
        console.print(f"{'written':<16} {file}")
    if level.reached:
        console.print(f"{'to use it':<16} {shlex.join(['--trainer.callbacks.methods', str(path)])}")


def report_sanity(result: SanityReport, folder: Path) -> None:
    """Print the verdicts, and write records, figures and TensorBoard's events to the folder."""
    console = _console()
    console.print(verdict_table(result))
    tables, figures = write_sanity(result, folder), write_figures(result, folder)
    with SummaryWriter(str(folder)) as events:
        for path in figures:
            picture = np.asarray(Image.open(path).convert("RGB"))
            events.add_image(path.stem.replace("-", "/", 1), picture, dataformats="HWC")
    for path in [*tables, *figures]:
        console.print(f"{'written':<16} {path}")
    console.print(f"{'to see it':<16} {shlex.join(['tensorboard', '--logdir', str(folder)])}")


def load_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, except that a key given twice is an error: PyYAML keeps the last."""
    for key in _repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader)):
        raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
    return get_loader("yaml")(text)


def check_writable(trainer: Trainer) -> None:
    """Raises a ValueError unless files can be made in the folders where the run will write."""
    for option, folder in _output_folders(trainer):
        if folder is None or "://" in str(folder):
            continue
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise ValueError(
                f"`{option}`: cannot write to {Path(folder).absolute()} ({error.strerror}). Choose a folder that you"
                " may write to."
            ) from error


def report(trainer: Trainer) -> None:
    """Print the figures of a run, the paths of what it wrote, and the commands that go on from there."""
    folder = trainer.log_dir  # a collective call: every process makes it
    if not trainer.is_global_zero:
        return
    console = _console()
    console.print()
    for name, figure in sorted(trainer.callback_metrics.items()):
        if not name.startswith("xai/"):  # those are in the table
            console.print(f"{name:<16} {figure:.4f}")
    for callback in _callbacks(trainer, AttributionCallback):
        if callback.evaluation is not None:
            console.print(_table(callback.evaluation))
    for front in _fronts(trainer):
        console.print(front_table(front.validations, front.monitor))
    if folder is not None:  # a fast_dev_run writes nothing
        for title, text in _written(trainer, Path(folder)):
            console.print(f"{title:<16} {text}")


def _console() -> Console:
    console = Console(soft_wrap=True, highlight=False, markup=False)  # paths stay in one piece, to be pasted
    if not console.is_terminal:
        console.width = 120
    return console


def _table(evaluation: Evaluation) -> Table:
    summaries = summarise(evaluation_rows(evaluation, "", 0, 0), evaluation.higher_is_better)
    return score_table(summaries, f"explanations of {len(evaluation.index)} samples, mean ± standard error")


def _output_folders(trainer: Trainer) -> Iterator[tuple[str, str | Path | None]]:
    for callback in trainer.checkpoint_callbacks:
        yield f"{type(callback).__name__}.dirpath", getattr(callback, "dirpath", None)
    for logger in trainer.loggers:
        yield f"{type(logger).__name__}.save_dir", logger.save_dir
    if not trainer.loggers:
        yield "trainer.default_root_dir", trainer.default_root_dir


def _written(trainer: Trainer, folder: Path) -> Iterator[tuple[str, str | Path]]:
    config = folder / "config.yaml"
    yield "configuration", config
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    last = getattr(trainer.checkpoint_callback, "last_model_path", "")
    if best and trainer.state.fn == "fit":
        yield "best checkpoint", best
        if last:
            yield "last checkpoint", last
        yield "to test it", shlex.join(["lightning-xai", "test", "--config", str(config), "--ckpt_path", best])
    for callback in _callbacks(trainer, AttributionCallback):
        if callback.folder is None:
            continue
        yield "sample scores", callback.folder / SCORES
        if panels := sorted((callback.folder / PANELS).glob("*.png")):
            yield "latest panel", max(panels, key=lambda panel: panel.stat().st_mtime)
    for _ in _fronts(trainer):
        yield "all validations", folder / "xai" / VALIDATIONS
    if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
        yield "to see it", shlex.join(["tensorboard", "--logdir", str(folder)])


def _callbacks(trainer: Trainer, kind: type[T]) -> list[T]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def _fronts(trainer: Trainer) -> list[ParetoFront]:
    """After a training that noted something."""
    return [front for front in _callbacks(trainer, ParetoFront) if front.validations and trainer.state.fn == "fit"]


def _repeated_keys(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """The key nodes that an earlier key of the same mapping equals, at any depth."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = key.tag, str(key.value)
            if name in seen:
                yield key
            seen.add(name)
            yield from _repeated_keys(value)


def _is_local_file(path: str) -> bool:
    """False for nothing, a folder (a sharded checkpoint), a URL, and the words with which the Trainer chooses one."""
    chosen_by_trainer = path in ("", "best", "last", "hpc") or path.split(":")[0].lower() == "registry"
    return not (chosen_by_trainer or "://" in path or Path(path).is_dir())


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
