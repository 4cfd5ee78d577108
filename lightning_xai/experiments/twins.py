"""A network that has learned nothing but its data by heart: the random-label twin of the data randomisation check."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from lightning_xai.callbacks.samples import unpack
from lightning_xai.explainers.base import explaining
from lightning_xai.reporting.files import replacing
from lightning_xai.sanity.examine import MEMORISED


class StopWhenMemorised(Callback):
    """Ends a training once the training accuracy, measured after an epoch in evaluation mode, is high enough.

    Attributes:
        accuracy: The last one measured; 0 before.

    Args:
        threshold: What is enough.
    """

    def __init__(self, threshold: float = MEMORISED) -> None:
        self.threshold = threshold
        self.accuracy = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.accuracy = accuracy(pl_module, trainer.train_dataloader, pl_module.device)
        trainer.should_stop = trainer.should_stop or self.accuracy >= self.threshold


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


def cached_twin(
    folder: Path, settings: Mapping[str, Any], train: Callable[[], tuple[nn.Module, float]]
) -> tuple[dict[str, Any], float]:
    """Weights and training accuracy of the twin of these settings, trained once and kept in the folder.

    Args:
        settings: All that the training depends on, as JSON can hold it.
        train: Makes the twin, and says what accuracy it has reached.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.pt"
    if not path.exists():
        model, reached = train()
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        with replacing(path) as temporary:
            torch.save({"state_dict": weights, "accuracy": reached, "settings": text}, temporary)
    known = torch.load(path, map_location="cpu", weights_only=True)
    return known["state_dict"], known["accuracy"]
