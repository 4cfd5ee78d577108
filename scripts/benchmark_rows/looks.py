"""Rows that compare a look of the sentinel with an epoch of the training beside which it looks."""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torchvision import datasets

from benchmark_rows.against_loops import measured
from benchmark_rows.measuring import Clock, Measurement, Setting, alternately, model, synchronize, timed
from lightning_xai.callbacks import ShortcutSentinel
from lightning_xai.data import CMNISTDataModule, DialDataModule, DigitsDataModule, MNISTDataModule
from lightning_xai.data.base import ImageDataModule
from lightning_xai.data.cues import Patch
from lightning_xai.data.mnist import missing_idx_files
from lightning_xai.modules import ClassifierModule

EPOCH = 55_000
"""Training samples of MNIST, less those to validate with."""
BATCHES = {"LeNet": 64, "ResNet9": 128}
"""Samples a batch, as in `configs/`."""
STEPS = {"LeNet": 150, "ResNet9": 3}
"""Of an epoch that are run on a CPU: the others are as long."""


def shortcuts(setting: Setting) -> Iterator[Measurement]:
    """A look for shortcuts at the sentinel's defaults over an epoch of `fit`, and that over its bare training steps.

    On a CPU in CPU time, which other programs change less than wall time.
    """
    clock, unit = (time.perf_counter, "") if setting.device.type == "cuda" else (time.process_time, ", CPU time")
    for name in (name for name in setting.networks if name in BATCHES):
        plain, marked = (_data(name, strength, setting) for strength in (0.0, 1.0))
        network = model(name, setting.device)
        epoch = partial(_epoch, network, plain, name, setting, clock)
        reader = _Marked(network, marked)
        number = len(plain.dataset("val"))
        told = f"an epoch of fit, {EPOCH:,} samples, {BATCHES[name]} a batch{unit}"
        for examined, data, panel in ((network, plain, 0), (reader, marked, 0), (reader, marked, 6)):
            sentinel = ShortcutSentinel(num_samples=number, panel_size=panel, summary=False)
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Lightning's advice on workers
                look = measured(sentinel, examined, data, Path(folder), setting.device, clock)
                ratios, seconds = alternately(look, epoch, setting)
            what = f"a look for shortcuts, {_proven(sentinel)}{', a panel drawn' if sentinel.panel else ''} / {told}"
            yield Measurement("shortcuts", what, name, number, "32-true", ratios, seconds, 0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ratios, seconds = alternately(epoch, _bare(network, plain, name, setting, clock), setting)
        yield Measurement("shortcuts", f"{told} / its bare steps", name, BATCHES[name], "32-true", ratios, seconds)


def _proven(sentinel: ShortcutSentinel) -> str:
    """Of how many classes the latest look has proven something."""
    return f"{len({own.label for own in sentinel.reports['validate'][-1].shortcuts})} of 10 classes proven"


def _data(name: str, strength: float, setting: Setting) -> DialDataModule:
    """MNIST where its files are, or else embedded digits, with patches that tell the class, or nothing."""
    real = not missing_idx_files(datasets.MNIST, str(setting.root))
    size, batch = 160 if setting.tiny else 512, BATCHES[name]
    base: ImageDataModule
    if name == "ResNet9":
        kinds = {"digits": "mnist" if real else "embedded", "backgrounds": "embedded"}
        base = CMNISTDataModule(str(setting.root), **kinds, num_train=20_000 if real else None, val_size=size)
    elif real:
        base = MNISTDataModule(str(setting.root), batch_size=batch, val_size=size)
    else:
        base = DigitsDataModule(batch_size=batch, val_size=size)
    data = DialDataModule(base, Patch(), strength)
    data.prepare_data()
    data.setup("fit")
    return data


class _Marked(nn.Module):
    """A network that takes the class of a patch where there is one; it needs no training to do so."""

    def __init__(self, network: nn.Module, data: DialDataModule) -> None:
        super().__init__()
        self.network = network
        low, high = data.bounds
        self.register_buffer("low", low)
        self.register_buffer("range", high - low)
        patch, size = data.cue, data.image_shape[1:]
        assert isinstance(patch, Patch)
        self.places = [patch.place(label, data.num_classes, *size) for label in range(data.num_classes)]
        self.size = patch.size

    def forward(self, images: Tensor) -> Tensor:
        unit = (images - self.low) / self.range
        seen = [unit[:, :, top : top + self.size, left : left + self.size] for top, left in self.places]
        darkest = torch.stack([part.flatten(1).amin(1) for part in seen], 1)
        return self.network(images) + 300 * (darkest - 0.9).relu()


class _Stopwatch(Callback):
    """Seconds of the last epoch of training."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.device, self.clock, self.seconds = device, clock, 0.0

    def on_train_epoch_start(self, *_: object) -> None:
        synchronize(self.device)
        self.start = self.clock()

    def on_train_epoch_end(self, *_: object) -> None:
        synchronize(self.device)
        self.seconds = self.clock() - self.start


def _steps(name: str, data: DialDataModule, setting: Setting) -> int:
    whole = len(data.train_dataloader())
    return min(whole, 2 if setting.tiny else whole if setting.device.type == "cuda" else STEPS[name])


def _epoch(network: nn.Module, data: DialDataModule, name: str, setting: Setting, clock: Clock) -> float:
    """Seconds of the steps of an epoch of `fit`: with its loader and its metrics, without validation; of some of them,
    as many as there are."""
    steps, watch = _steps(name, data, setting), _Stopwatch(setting.device, clock)
    trainer = Trainer(
        accelerator="gpu" if setting.device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=0,
        logger=False,
        callbacks=[watch],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(ClassifierModule(copy.deepcopy(network)), data)
    return watch.seconds * EPOCH / (steps * BATCHES[name])


def _bare(network: nn.Module, data: DialDataModule, name: str, setting: Setting, clock: Clock) -> Callable[[], float]:
    """The same steps on one batch, again and again: no loader, no metrics, no trainer."""
    trained = copy.deepcopy(network).train()
    optimizer, steps = torch.optim.Adam(trained.parameters()), _steps(name, data, setting)
    batch = next(iter(data.train_dataloader()))
    images, labels = batch["image"].to(setting.device), batch["label"].to(setting.device)

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(trained(images), labels).backward()
            optimizer.step()

    some = timed(train, setting.device, clock=clock)
    return lambda: some() * EPOCH / (steps * BATCHES[name])
