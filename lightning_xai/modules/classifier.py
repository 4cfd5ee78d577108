"""A LightningModule that trains any image classifier."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningCLI, ReduceLROnPlateau
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassAccuracy

from lightning_xai.data.input_space import InputSpace
from lightning_xai.modules.sources import NamedNetwork, named_network, preprocessing_of

Batch = Mapping[str, Any] | Sequence[Tensor]


class ClassifierModule(LightningModule):
    """Trains `network` with cross-entropy on its logits; logs `loss` and `accuracy` under train/, val/ and test/.

    Batches are dicts with "image" and "label", as our data modules make them, or (images, labels) tuples.
    Nothing is saved as a hyper-parameter: the `config.yaml` of a run describes it, and a checkpoint holds weights
    that any configuration with the same network can load.

    Args:
        network: Maps images (batch, channel, height, width) to logits (batch, class), or to an object with `logits`; in
            YAML a `class_path`, or a name: `resnet18` of torchvision, `timm/vit_tiny_patch16_224`, or
            `transformers/FOLDER` (see `modules.sources.named_network`), which brings its preprocessing for data of
            pictures.
        optimizer: Makes the optimizer from the parameters; in YAML a `class_path` with `init_args`.
        lr_scheduler: Makes the learning-rate scheduler from the optimizer; it is stepped once an epoch.
        channels_last: Keep images and convolutions in the channels-last memory format: ResNet-9 in bfloat16 is
            then about twice as fast on a CPU. The results are the same up to rounding.
        weights: What a named network begins with: null for random weights, the path of a state dict, or `DEFAULT` for
            the source's own, which torchvision and timm download. Where they are for other classes, the last layer is a
            new one.
        num_classes: Outputs of a named network; null for as many as the data have classes.

    Raises:
        ValueError: if `weights` or `num_classes` are given for a module, or there is no network of the name.

    Example:
        >>> import torch
        >>> from lightning_xai.modules import ClassifierModule
        >>> from lightning_xai.networks import LeNet
        >>> ClassifierModule(LeNet())(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        network: nn.Module | str,
        optimizer: Callable[[Iterable], Optimizer] = torch.optim.Adam,
        lr_scheduler: Callable[[Optimizer], LRScheduler | ReduceLROnPlateau] | None = None,
        channels_last: bool = False,
        weights: str | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, str) and (weights, num_classes) != (None, None):
            raise ValueError(
                "`weights` and `num_classes` are those of a named network; give a module its own arguments."
            )
        self.channels_last = channels_last
        self._open = (network, weights) if isinstance(network, str) and num_classes is None else None
        self._take(named_network(network, weights, num_classes, True) if isinstance(network, str) else network)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        # Micro-averaging counts right answers and needs no number of classes.
        self.train_accuracy = MulticlassAccuracy(num_classes=None, average="micro")
        self.val_accuracy = self.train_accuracy.clone()
        self.test_accuracy = self.train_accuracy.clone()

    def setup(self, stage: str) -> None:
        self.fit_to(getattr(self.trainer, "datamodule", None))

    def fit_to(self, data: Any) -> None:
        """Give a network named without `num_classes` an output for each class of the data.

        Raises:
            ValueError: if the network does not fit the data.
        """
        shape, number = InputSpace(self, data).shape, getattr(data, "num_classes", None)
        if shape is None or getattr(data, "image_shape", None) is None:
            return
        outputs = check_network_fits(self, shape, None if self._open else number)
        if self._open and number not in (None, outputs):
            self._take(named_network(*self._open, number, new_head=True))
            check_network_fits(self, shape, number)
        elif number is not None and outputs != number and getattr(data, "trains", False):
            raise ValueError(
                f"`network` ({type(self.network).__name__}) has {outputs} outputs, but the data have {number} classes:"
                f" set its `num_classes` to {number}."
            )

    def fit_to_weights(self, state: Mapping[str, Tensor]) -> None:
        """Give a network named without `num_classes` as many outputs as these weights have."""
        own = ((tensor, state[name]) for name, tensor in self.state_dict().items() if name in state)
        other = {given.shape[0] for tensor, given in own if given.shape[:1] != tensor.shape[:1]}
        if self._open and len(other) == 1:
            self._take(named_network(*self._open, other.pop(), new_head=True))

    def _take(self, given: NamedNetwork | nn.Module) -> None:
        network = given.network if isinstance(given, NamedNetwork) else given
        self.preprocessing = given.preprocessing if isinstance(given, NamedNetwork) else preprocessing_of(network)
        self.network = network.to(memory_format=torch.channels_last) if self.channels_last else network

    def forward(self, images: Tensor) -> Tensor:
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return logits_of(self.network(images))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self._step(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self._step(batch, "test", dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self(images_and_labels(batch)[0])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        scheduler = self.lr_scheduler(optimizer) if self.lr_scheduler else None
        return LightningCLI.configure_optimizers(self, optimizer, scheduler)

    def _step(self, batch: Batch, stage: str, place: int = 0) -> Tensor:
        images, labels = images_and_labels(batch)
        if labels is None:
            raise ValueError("`batch` must have labels; pictures without them are for a `PretrainedClassifier`.")
        logits = self(images)
        loss = cross_entropy(logits, labels)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(labels)}
        self.log(f"{stage}/loss", loss, sync_dist=True, **options)
        log_accuracy(self, stage, place, logits, labels, options)
        return loss


def log_accuracy(
    module: LightningModule, stage: str, place: int, logits: Tensor, labels: Tensor, options: dict[str, Any]
) -> None:
    """Update and log the accuracy of a stage; each further one of several loaders has one of its own."""
    name = f"{stage}_accuracy_{place}" if place else f"{stage}_accuracy"
    if not hasattr(module, name):
        setattr(module, name, getattr(module, f"{stage}_accuracy").clone())
        getattr(module, name).train().reset()  # Lightning puts back the modes that it knows
    accuracy = getattr(module, name)
    accuracy.update(logits, labels)
    module.log(f"{stage}/accuracy", accuracy, prog_bar=True, metric_attribute=name, **options)


def check_network_fits(module: LightningModule, image_shape: tuple[int, ...], num_classes: int | None) -> int:
    """The number of logits that the module's `network` makes of images of this shape.

    Args:
        num_classes: The least that it must make; None if the data do not say.

    Raises:
        ValueError: if it does not accept the images, or returns no logits, or too few.
    """
    name = type(module.network).__name__
    training = [part for part in module.modules() if part.training]
    module.eval()  # batch statistics and the random numbers of dropout stay as they are
    try:
        with torch.no_grad():
            logits = module(torch.zeros(2, *image_shape).to(next(module.parameters(), torch.zeros(()))))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"`network` ({name}) does not accept images of shape {image_shape} (channels, height,"
            " width): choose a network made for this shape, or set its `in_channels`, `image_size` or"
            f" `image_shape` accordingly. It said: {error}"
        ) from error
    finally:
        for part in training:
            part.training = True
    if logits.ndim != 2:
        raise ValueError(
            f"`network` ({name}) must return logits of shape (batch, classes), but returned {tuple(logits.shape)} for 2"
            " images."
        )
    if num_classes is not None and logits.shape[1] < num_classes:
        raise ValueError(
            f"`network` ({name}) must return logits of shape (batch, at least {num_classes}), since the data"
            f" have {num_classes} classes, but returned {tuple(logits.shape)} for 2 images: set its"
            f" `num_classes` to {num_classes}."
        )
    return logits.shape[1]


def images_and_labels(batch: Batch) -> tuple[Tensor, Tensor | None]:
    """The images of a batch, and the labels if it has any."""
    if isinstance(batch, Mapping):
        return batch["image"], batch.get("label")
    images, *labels = batch
    return images, labels[0] if labels else None


def logits_of(outputs: Any) -> Tensor:
    """The logits among what a network returns: a tensor, or an object or mapping with `logits`."""
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"`network` must return a tensor of logits, or an object with `logits`, got {type(outputs).__name__}: wrap "
            "it in a module that picks the logits."
        )
    return found
