"""Networks trained as a configuration says: once, kept for the next time, and on after an interruption.

A training on random labels goes on until the network knows them by heart (the data randomization check of Adebayo et
al. 2018).
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from lightning_xai.callbacks.samples import unpack
from lightning_xai.data.input_space import InputSpace
from lightning_xai.explainers.base import explaining, parse_bounds
from lightning_xai.modules.checkpoints import check_weights_fit, read_checkpoint
from lightning_xai.modules.manifest import ShippedCheckpoint
from lightning_xai.reporting.folders import check_folder
from lightning_xai.results.files import replacing
from lightning_xai.sanity.examine import MEMORIZED

TRAINING = ("max_epochs", "precision", "gradient_clip_val", "accumulate_grad_batches", "limit_train_batches")
"""Options of the trainer that the weights depend on."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, its data, and how well it learned them.

    Attributes:
        model: In evaluation mode, on the CPU.
        data: What it was trained on; prepared.
        accuracy: On the test samples; on the training samples if it was to know these by heart.
        settings: All that the weights depend on.
        given_bounds: What the configuration's AttributionCallback says that the bounds are; None where it does not.
    """

    model: nn.Module
    data: LightningDataModule
    accuracy: float
    settings: Mapping[str, Any]
    given_bounds: Any = None

    @property
    def space(self) -> InputSpace:
        """What the inputs are, where the data or the module know it."""
        return InputSpace(self.model, self.data)

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """Least and greatest value of an input element."""
        return parse_bounds(self.space.bounds if self.given_bounds is None else self.given_bounds)

    @property
    def class_names(self) -> Any:
        """Names of the outputs."""
        return self.space.class_names

    @property
    def image_shape(self) -> Any:
        """(channels, height, width) of an input."""
        return self.space.shape


def trained(config: Mapping[str, Any], folder: Path, by_heart: bool = False) -> TrainedNetwork:
    """The network of a configuration: the one in the folder, or one trained now and kept there.

    Args:
        config: `model`, `data`, `trainer` and `seed_everything`, as in a configuration file. Callbacks and loggers are
            left out: the weights are those after the last epoch.
        by_heart: Permute the training labels (`randomize_labels` of the data), and end the training as soon as the
            network knows 95 % of them.
    """
    options = parsed(config, by_heart)
    settings = {part: options[part].as_dict() for part in ("model", "data")}
    settings |= {option: options.trainer[option] for option in TRAINING} | {"seed": options.seed_everything}

    def train(scratch: Path) -> tuple[nn.Module, float]:
        parts = instantiated(options)
        with isolate_rng():  # the order of the batches is the same each time
            seed_everything(options.seed_everything, verbose=False)
            return fit(parts.model, parts.data, scratch, vars(parts.trainer), by_heart)

    weights, accuracy = kept(folder, settings, train)
    parts = instantiated(options)
    parts.model.load_state_dict(weights)
    parts.data.prepare_data()
    return TrainedNetwork(parts.model.eval(), parts.data, accuracy, settings)


def restored(config: Mapping[str, Any], weights: Mapping[str, Any], entry: ShippedCheckpoint) -> TrainedNetwork:
    """A network that comes with the project."""
    model, data = untrained(config, entry.by_heart)
    model.load_state_dict(weights)
    return TrainedNetwork(model.eval(), data, entry.accuracy, asdict(entry))


def from_checkpoint(config: Mapping[str, Any], path: str) -> TrainedNetwork:
    """The network of a configuration with the weights of a Lightning checkpoint; how accurate it is, is measured.

    Raises:
        ValueError: if the checkpoint cannot be read, or is not of this network.
    """
    model, data = untrained(config)
    check_weights_fit(read_checkpoint(path), model, path)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    data.setup("test")
    reached = accuracy(model.eval(), data.test_dataloader(), torch.device("cpu"))
    return TrainedNetwork(model, data, reached, {"config": config["model"], "ckpt_path": path})


def untrained(config: Mapping[str, Any], by_heart: bool = False) -> tuple[LightningModule, LightningDataModule]:
    """The network of a configuration before training, and its data, prepared."""
    parts = instantiated(parsed(config, by_heart))
    parts.data.prepare_data()
    return parts.model, parts.data


def parsed(config: Mapping[str, Any], by_heart: bool = False) -> Namespace:
    """The options of a configuration that weights and data depend on, checked, without callbacks and loggers."""
    parts: dict[str, Any] = {name: deepcopy(config.get(name)) for name in ("seed_everything", "model", "data")}
    parts["trainer"] = {**(config.get("trainer") or {}), "logger": False, "callbacks": None}
    if by_heart:
        parts["data"].setdefault("init_args", {})["randomize_labels"] = True
    return _parser().parse_object(parts)


def instantiated(options: Namespace) -> Namespace:
    """Model and data module, newly made from the configuration's seed, and the options of the trainer."""
    with isolate_rng():
        seed_everything(options.seed_everything, verbose=False)
        return _parser().instantiate_classes(options)


def callback_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration says of its AttributionCallback, of several the first one; empty without one."""
    callbacks = config["trainer"].get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, Mapping) and str(callback.get("class_path")).endswith("AttributionCallback"):
            return dict(callback.get("init_args") or {})
    return {}


def callback_bounds(config: Mapping[str, Any]) -> Any:
    """The bounds of the inputs, where a configuration's AttributionCallback has them."""
    bounds = callback_options(config).get("bounds")
    return tuple(bounds) if isinstance(bounds, list) else bounds


def fit(
    model: LightningModule,
    data: LightningDataModule,
    scratch: Path,
    options: Mapping[str, Any],
    by_heart: bool = False,
) -> tuple[LightningModule, float]:
    """Train until the epochs are over, or the labels are known by heart; the module and its accuracy.

    Args:
        scratch: Folder where the training is saved after each epoch, to go on with after an interruption.
        options: Options of the Trainer.

    Raises:
        TypeError: before the training, if the module does not return logits.
        ValueError: likewise, if the batches to test with have no labels.
    """
    last = scratch / "last.ckpt"
    saving = ModelCheckpoint(scratch, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    callbacks = [StopWhenMemorized(), saving] if by_heart else [saving]
    quiet = {"enable_model_summary": False, "limit_val_batches": 0, "logger": False}
    trainer = Trainer(**{**options, **quiet, "callbacks": callbacks})
    if not by_heart:
        _check_answers(model, data)
    trainer.fit(model, data, ckpt_path=os.path.abspath(last) if last.exists() else None, weights_only=True)
    if by_heart:
        loader = data.train_dataloader()
    else:
        data.setup("test")
        loader = data.test_dataloader()
    return model, accuracy(model, loader, next(model.parameters()).device)


def _check_answers(model: LightningModule, data: LightningDataModule) -> None:
    """Measure the accuracy on one batch, so that what would fail after the training fails before."""
    with isolate_rng():
        data.prepare_data()
        data.setup("test")
        accuracy(model, islice(data.test_dataloader(), 1), model.device)


class StopWhenMemorized(Callback):
    """Ends a training once the training accuracy, measured after an epoch in evaluation mode, is high enough.

    The progress bar shows it as `memorized`; `MEMORIZED` is enough.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reached = accuracy(pl_module, trainer.train_dataloader, pl_module.device)
        pl_module.log("memorized", reached, prog_bar=True, sync_dist=True)
        trainer.should_stop = trainer.should_stop or reached >= MEMORIZED


def accuracy(model: nn.Module, loader: Any, device: torch.device) -> float:
    """Share of the loader's samples whose label the model predicts."""
    right, total = 0, 0
    with explaining(model), torch.no_grad():
        for batch in loader:
            samples = unpack(batch)
            if samples.labels is None:
                raise ValueError("The batches must have labels, one class index a sample.")
            predicted = _logits(model, samples.images.to(device)).argmax(1).cpu()
            right, total = right + int((predicted == samples.labels.cpu()).sum()), total + len(predicted)
    return right / max(1, total)


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    outputs = model(images)
    if isinstance(outputs, Tensor) and outputs.ndim == 2:
        return outputs
    got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
    raise TypeError(
        f"`networks`: the forward of {type(model).__name__} must return logits, a tensor (batch, classes), got {got}: "
        "let it return them alone, and make what else the training needs in `training_step`."
    )


def kept(
    folder: Path, settings: Mapping[str, Any], train: Callable[[Path], tuple[nn.Module, float]]
) -> tuple[dict[str, Any], float]:
    """Weights and accuracy of the network of these settings, trained once and kept in the folder.

    Args:
        settings: All that the training depends on, as JSON can hold it.
        train: Makes the network, and says what accuracy it has; its argument is a folder for unfinished work.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    scratch = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    path = scratch.with_suffix(".pt")
    if not path.exists():
        check_folder("cache", folder)  # before a training of minutes
        model, reached = train(scratch)
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        with replacing(path) as temporary:
            torch.save({"state_dict": weights, "accuracy": reached, "settings": text}, temporary)
        rmtree(scratch, ignore_errors=True)
    known = torch.load(path, map_location="cpu", weights_only=True)
    return known["state_dict"], known["accuracy"]


def _parser() -> LightningArgumentParser:
    """Of the parts of a configuration that a training needs, as LightningCLI defines them."""
    parser = LightningArgumentParser()
    parser.add_argument("--seed_everything", type=int, default=0)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    return parser
