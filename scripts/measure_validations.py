"""What many validations cost: the time of the first and the last append, files, bytes, memory, and reading all of it.

A training of the quickstart's sizes (64 digits, eight methods, four metrics) with maps that cost next to nothing, so
that nearly all of the time is the callback's own. The panels are the largest part of it; `--panel_size 0` leaves them
out, as `--validations 1000 --panel_size 0` does for the time of the scores alone.

    python -P scripts/measure_validations.py --validations 1000 --output runs/validations      # minutes, on one thread
"""

import argparse
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer

from lightning_xai.callbacks import AttributionCallback
from lightning_xai.data import DigitsDataModule
from lightning_xai.explainers import InputAttribution
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import LeNet
from lightning_xai.results.store import read_scores

METHODS = ("gradient", "saliency", "smooth_grad", "adapt_grad", "noise_grad", "fusion_grad")


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory() -> float:
    """Resident now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Stopwatch(AttributionCallback):
    """Notes how long each validation end takes to write, and how much memory there is after it."""

    times: list[float]
    sizes: list[float]

    def _write(self, *arguments: Any) -> None:
        self.times.append(seconds(lambda: super(Stopwatch, self)._write(*arguments)))
        self.sizes.append(memory())


def measure(folder: Path, validations: int, panel_size: int, keep_panels: int | None, keep_scores: str) -> list[str]:
    """The figures, a line of text each."""
    torch.set_num_threads(1)
    callback = Stopwatch(
        {name: InputAttribution() for name in METHODS},
        panel_size=panel_size,
        keep_panels=keep_panels,
        keep_scores=keep_scores,
    )
    callback.times, callback.sizes = [], []
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        max_epochs=validations,
        limit_train_batches=1,
        limit_val_batches=2,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        callbacks=[callback],
        **quiet,
    )
    whole = seconds(lambda: trainer.fit(ClassifierModule(LeNet()), DigitsDataModule(batch_size=32)))
    few = min(20, validations)
    lines = [
        f"{validations} validations in {whole:.0f} s",
        *(
            f"write, {where} {few}: median {1e3 * statistics.median(times):.1f} ms, most {1e3 * max(times):.1f} ms"
            for where, times in (("first", callback.times[:few]), ("last", callback.times[-few:]))
        ),
        f"memory: {callback.sizes[0]:.0f} MiB after the first, {callback.sizes[-1]:.0f} MiB after the last",
    ]
    for name in ("scores", "panels"):
        sizes = [path.stat().st_size for path in (folder / "xai" / name).glob("*")]
        lines.append(f"{name}: {len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB")
    start = time.perf_counter()
    rows = len(read_scores(folder / "xai" / "scores"))
    return [*lines, f"read_scores: {rows} rows in {time.perf_counter() - start:.2f} s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validations", type=int, default=1000)
    parser.add_argument("--panel_size", type=int, default=8)
    parser.add_argument("--keep_panels", type=int, default=20)
    parser.add_argument("--keep_scores", default="all")
    parser.add_argument("--output", type=Path, required=True)
    words = parser.parse_args()
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    print(*measure(words.output, words.validations, words.panel_size, words.keep_panels, words.keep_scores), sep="\n")


if __name__ == "__main__":
    main()
