"""A network that has learned nothing but its data by heart: the random-label twin of the data randomisation check."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from lightning_xai.callbacks.samples import unpack
from lightning_xai.explainers.base import explaining
from lightning_xai.reporting.files import replacing
from lightning_xai.sanity.examine import MEMORISED


class StopWhenMemorised(Callback):
    """Ends a training once the training accuracy, measured after an epoch in evaluation mode, is high enough.

    The progress bar shows it as `memorised`.

    Args:
        threshold: What is enough.
    """

    def __init__(self, threshold: float = MEMORISED) -> None:
        self.threshold = threshold

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reached = accuracy(pl_module, trainer.train_dataloader, pl_module.device)
        pl_module.log("memorised", reached, prog_bar=True, sync_dist=True)
        trainer.should_stop = trainer.should_stop or reached >= self.threshold


def accuracy(model: nn.Module, loader: Any, device: torch.device) -> float:
    """Share of the loader's samples whose label the model predicts."""
    right, total = 0, 0
    with explaining(model), torch.no_grad():
        for batch in loader:
            samples = unpack(batch)
            if samples.labels is None:
                raise ValueError("The training batches must have labels, one class index a sample.")
            predicted = model(samples.images.to(device)).argmax(1).cpu()
            right, total = right + int((predicted == samples.labels.cpu()).sum()), total + len(predicted)
    return right / max(1, total)


def memorise(
    model: LightningModule, data: LightningDataModule, scratch: Path, options: Mapping[str, Any]
) -> tuple[LightningModule, float]:
    """Train until the labels are known by heart, or the epochs are over; the module, and its training accuracy.

    Args:
        scratch: Folder where the training is saved after each epoch, to go on with after an interruption.
        options: Of the Trainer.
    """
    last = scratch / "last.ckpt"
    saving = ModelCheckpoint(scratch, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    quiet = {"enable_model_summary": False, "limit_val_batches": 0, "logger": False}
    trainer = Trainer(**{**options, **quiet, "callbacks": [StopWhenMemorised(), saving]})
    trainer.fit(model, data, ckpt_path=str(last) if last.exists() else None)
    device = next(model.parameters()).device
    return model, accuracy(model, data.train_dataloader(), device)


def cached_twin(
    folder: Path, settings: Mapping[str, Any], train: Callable[[Path], tuple[nn.Module, float]]
) -> tuple[dict[str, Any], float]:
    """Weights and training accuracy of the twin of these settings, trained once and kept in the folder.

    Args:
        settings: All that the training depends on, as JSON can hold it.
        train: Makes the twin, and says what accuracy it has reached; its argument is a folder for unfinished work.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    scratch = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    path = scratch.with_suffix(".pt")
    if not path.exists():
        model, reached = train(scratch)
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        with replacing(path) as temporary:
            torch.save({"state_dict": weights, "accuracy": reached, "settings": text}, temporary)
        rmtree(scratch, ignore_errors=True)
    known = torch.load(path, map_location="cpu", weights_only=True)
    return known["state_dict"], known["accuracy"]
