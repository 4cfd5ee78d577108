"""What a command prints, and writes, when its work is done."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from lightning_xai.callbacks.attribution import AttributionCallback
from lightning_xai.callbacks.pareto import VALIDATIONS, ParetoFront
from lightning_xai.callbacks.sentinel import ShortcutSentinel, print_shortcuts, write_panel
from lightning_xai.callbacks.summary import summary_table, written
from lightning_xai.experiments.visualize import visualization_figures, write_pictures
from lightning_xai.reporting.console import console
from lightning_xai.reporting.noise_level import level_lines, noise_level_figure, write_noise_level
from lightning_xai.reporting.reproduction import write_reproduction
from lightning_xai.reporting.sanity_figures import write_figures
from lightning_xai.reporting.saving import save_figure
from lightning_xai.reporting.shortcut_figure import Example
from lightning_xai.reporting.shortcuts import sentences, shortcut_table
from lightning_xai.reporting.tables import front_table, verdict_table, write_sanity
from lightning_xai.results.noise_level import NoiseLevel
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.sanity import SanityReport
from lightning_xai.results.shortcuts import Finding, ShortcutReport, write_shortcuts

T = TypeVar("T")


def report(trainer: Trainer) -> None:
    """Print the figures of a run, the paths of what it wrote, and the commands that go on from there."""
    folder = trainer.log_dir  # a collective call: every process makes it
    trainer.strategy.barrier()  # until all have written their scores
    if not trainer.is_global_zero:
        return
    terminal = console()
    terminal.print()
    for name, figure in sorted(trainer.callback_metrics.items()):
        if not name.startswith("xai/"):  # those are in the table
            terminal.print(f"{name:<16} {figure:.4f}")
    for callback in callbacks_of(trainer, AttributionCallback):
        if table := summary_table(callback, trainer):
            terminal.print(table)
    for front in _fronts(trainer):
        terminal.print(front_table(front.validations, front.monitor))
    for sentinel in callbacks_of(trainer, ShortcutSentinel):
        print_shortcuts(sentinel, trainer)
    if folder is not None:  # a fast_dev_run writes nothing
        for title, text in _written(trainer, Path(folder)):
            terminal.print(f"{title:<16} {text}")


def report_noise_level(level: NoiseLevel, path: Path) -> None:
    """Print the level, and write settings, curve and figure."""
    terminal, figure = console(), path.with_suffix(".png")
    written = write_noise_level(level, path)
    save_figure(noise_level_figure(level), figure)
    for line in level_lines(level):
        terminal.print(line)
    for file in [*written, figure]:
        terminal.print(f"{'written':<16} {file}")
    if level.reached:
        terminal.print(f"{'to use it':<16} {shlex.join(['--trainer.callbacks.methods', str(path)])}")


def report_sanity(result: SanityReport, folder: Path) -> None:
    """Print the verdicts, and write records, figures and TensorBoard's events to the folder."""
    terminal = console()
    terminal.print(verdict_table(result))
    tables, figures = write_sanity(result, folder), write_figures(result, folder)
    with SummaryWriter(str(folder)) as events:
        for path in figures:
            picture = np.asarray(Image.open(path).convert("RGB"))
            events.add_image(path.stem.replace("-", "/", 1), picture, dataformats="HWC")
    deciding = [path for path in figures if path.stem.endswith("-bars")] or figures[:1]
    for path in deciding:
        terminal.print(f"{'what decided':<16} {path}")
    terminal.print(f"{'verdicts':<16} {tables[0]}")
    terminal.print(f"{'all else':<16} {len(tables) + len(figures) - len(deciding) - 1} files in {folder}")
    terminal.print(f"{'to see it':<16} {shlex.join(['tensorboard', '--logdir', str(folder)])}")


def report_shortcuts(
    report: ShortcutReport, examples: Sequence[tuple[Finding, Sequence[Example]]], folder: Path
) -> None:
    """Print the conclusion and a table, and write the report and the pictures."""
    terminal = console()
    for line in sentences([report]):
        terminal.tell(line)
    terminal.print(shortcut_table(report))
    terminal.print(f"{'shortcuts':<16} {write_shortcuts(folder, report)}")
    if examples:
        terminal.print(f"{'before and after':<16} {write_panel(folder, [report], examples)}")


def report_visualization(result: Reproduction, folder: Path) -> None:
    """Print scores and times, and write report, records, figures and each image to the folder."""
    terminal = console(width=200)
    for table in result.tables:
        terminal.print(table)
    for finding in result.findings:
        terminal.tell(finding)
    written = write_reproduction(result, visualization_figures(result, "images"), folder)
    for path in [*written, *write_pictures(result, folder)]:
        terminal.print(f"{'written':<16} {path}")


def _written(trainer: Trainer, folder: Path) -> Iterator[tuple[str, str | Path]]:
    saved = next((c for c in callbacks_of(trainer, SaveConfigCallback)), None)
    config = folder / (saved.config_filename if saved else "config.yaml")
    yield "configuration", config
    best = {c.monitor: c.best_model_path for c in callbacks_of(trainer, ModelCheckpoint) if c.monitor}
    best = {monitor: path for monitor, path in best.items() if path}
    last = getattr(trainer.checkpoint_callback, "last_model_path", "")
    if trainer.state.fn == "fit":
        for monitor, path in best.items():
            yield "best checkpoint", path + (f"  (by {monitor})" if len(best) > 1 else "")
        if last:
            yield "last checkpoint", last
        for path in best.values():
            yield "to test it", shlex.join(["lightning-xai", "test", "--config", str(config), "--ckpt_path", path])
    for callback in callbacks_of(trainer, AttributionCallback):
        yield from written(callback, trainer)
    for _ in _fronts(trainer):
        yield "all validations", folder / "xai" / VALIDATIONS
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            run = folder if logger.sub_dir is None else folder.parent  # of the curves of all stages
            yield "to see it", shlex.join(["tensorboard", "--logdir", str(run)])
            break


def callbacks_of(trainer: Trainer, kind: type[T]) -> list[T]:
    """The trainer's callbacks of a kind."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def _fronts(trainer: Trainer) -> list[ParetoFront]:
    """After a training that noted something."""
    return [front for front in callbacks_of(trainer, ParetoFront) if front.validations and trainer.state.fn == "fit"]
