"""A LightningModule of a network that others trained: it is explained, not trained."""

from collections.abc import Mapping
from typing import Any

from PIL import Image
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_xai.data.preprocessing import Preprocessing, changed
from lightning_xai.modules.classifier import Batch, check_network_fits, images_and_labels
from lightning_xai.modules.weights import (
    described_preprocessing,
    load_weights_file,
    names_of_classes,
    published_weights,
    torchvision_network,
    torchvision_weights,
)
from lightning_xai.shapes import Images, Logits


class PretrainedClassifier(LightningModule):
    """A trained network with its preprocessing and the names of its classes; `validate`, `test` and `predict` run it.

    Where the batches have labels, `loss` and `accuracy` are logged under val/ and test/.

    Attributes:
        preprocessing: Makes an input of a picture.
        class_names: Of the outputs, in their order; None if they are not known.
        num_classes: Number of outputs.

    Args:
        network: Name of a classifier of torchvision, such as `resnet50`, or any module that maps images to logits; in
            YAML a `class_path` with `init_args`. A module may return an object with `logits` instead.
        weights: Of torchvision's network: `DEFAULT` or another of its own by name, which torchvision downloads, or the
            path of a state dict; null for random ones. Of a module: the path of a state dict; `DEFAULT` and null leave
            it as it was built. A checkpoint of `ClassifierModule` is a state dict, too.
        class_names: Null for those of torchvision's weights; `imagenet` for torchvision's of ImageNet.
        preparation: Those of `lightning_xai.data.preprocessing.changed`. Random weights, and those of a file, ask for
            what torchvision's default weights do.

    Raises:
        ValueError: if there is no such network, or no such weights, or if they do not fit.
    """

    def __init__(
        self,
        network: str | nn.Module,
        weights: str | None = "DEFAULT",
        class_names: list[str] | str | None = None,
        **preparation: Any,
    ) -> None:
        super().__init__()
        known = torchvision_weights(network) if isinstance(network, str) else None
        published = None if known is None else published_weights(known, weights)
        self.class_names = names_of_classes(class_names, published)
        preprocessing = Preprocessing() if known is None else described_preprocessing(published or known.DEFAULT)
        self.preprocessing = changed(preprocessing, **preparation)
        if isinstance(network, str):
            network = torchvision_network(network, published, len(self.class_names or range(1000)))
        if published is None and weights not in (None, "DEFAULT"):
            load_weights_file(network, weights)
        self.network = network
        self.num_classes = check_network_fits(self, (3, self.image_size, self.image_size), None)
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            named = len(self.class_names)
            raise ValueError(f"`class_names` must name the {self.num_classes} outputs of `network`, got {named} names.")
        self.val_accuracy = MulticlassAccuracy(num_classes=None, average="micro")
        self.test_accuracy = self.val_accuracy.clone()

    @property
    def image_size(self) -> int:
        return self.preprocessing.image_size

    @property
    def resize_size(self) -> int:
        return self.preprocessing.resize_size

    @property
    def mean(self) -> tuple[float, ...]:
        return self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.preprocessing.std

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of each channel, (3, 1, 1), equal bit for bit to what black and white become."""
        return self.preprocessing.bounds

    def preprocess(self, image: Image.Image) -> Tensor:
        """The input that a picture in mode RGB makes, (3, image_size, image_size)."""
        return self.preprocessing(image)

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if (shape := getattr(data, "image_shape", None)) is not None:
            check_network_fits(self, tuple(shape), getattr(data, "num_classes", None))

    def forward(self, images: Images) -> Logits:
        return _logits(self.network(images))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._judge(batch, "val", self.val_accuracy)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._judge(batch, "test", self.test_accuracy)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self(images_and_labels(batch)[0])

    def _judge(self, batch: Batch, stage: str, accuracy: Metric) -> None:
        images, labels = images_and_labels(batch)
        if labels is None:
            return
        logits = self(images)
        accuracy.update(logits, labels)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(labels)}
        self.log(f"{stage}/loss", cross_entropy(logits, labels), sync_dist=True, **options)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True, **options)


def _logits(outputs: Any) -> Tensor:
    """The logits among what a network returns: a tensor, or an object or mapping with `logits`."""
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"`network` must return a tensor of logits, or an object with `logits`, got {type(outputs).__name__}: wrap "
            "it in a module that picks the logits."
        )
    return found
