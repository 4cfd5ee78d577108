"""A LightningModule of a network that others trained: it is explained, not trained."""

from typing import Any

from PIL import Image
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from lightning_xai.data.preprocessing import Preprocessing, changed
from lightning_xai.modules.classifier import Batch, check_network_fits, images_and_labels, log_accuracy, logits_of
from lightning_xai.modules.sources import named_network, preprocessing_of
from lightning_xai.modules.weights import load_weights_file, names_of_classes
from lightning_xai.shapes import Images, Logits


class PretrainedClassifier(LightningModule):
    """A trained network with its preprocessing and the names of its classes; `validate`, `test` and `predict` run it.

    Where the batches have labels, `loss` and `accuracy` are logged under val/ and test/.

    Attributes:
        preprocessing: Makes an input of a picture.
        class_names: Names of the outputs, in their order; None if they are not known.
        num_classes: Number of outputs.

    Args:
        network: Name of a classifier: `resnet50` of torchvision, `timm/vit_tiny_patch16_224`, `transformers/FOLDER`
            (see `modules.sources.named_network`); or any module that maps images to logits, in YAML a `class_path` with
            `init_args`. A module may return an object with `logits` instead.
        weights: For a name: `DEFAULT`, which torchvision and timm download, another of torchvision's by name, or the
            path of a state dict; null or `random` for random ones. Of a module: the path of a state dict; `DEFAULT` and
            null leave it as it was built. A checkpoint of `ClassifierModule` is a state dict, too.
        class_names: Null for those that come with the weights; `imagenet` for torchvision's of ImageNet.
        preparation: Those of `lightning_xai.data.preprocessing.changed`. Random weights, and those of a file, ask for
            what the source's own weights do.

    Raises:
        ValueError: if there is no such network, or no such weights, or if they do not fit.

    Example:
        >>> import torch
        >>> from lightning_xai.modules import PretrainedClassifier
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
        >>> classifier = PretrainedClassifier(network, class_names=["cat", "dog"], image_size=32)
        >>> classifier.class_names, classifier.image_size
        (('cat', 'dog'), 32)
    """

    def __init__(
        self,
        network: str | nn.Module,
        weights: str | None = "DEFAULT",
        class_names: list[str] | str | None = None,
        **preparation: Any,
    ) -> None:
        super().__init__()
        names = names_of_classes(class_names, None)
        if isinstance(network, str):
            known = named_network(network, weights, None if names is None else len(names))
            network, preprocessing, names = known.network, known.preprocessing, names or known.class_names
        else:
            preprocessing = preprocessing_of(network) or Preprocessing()
            if weights not in (None, "random", "DEFAULT"):
                load_weights_file(network, weights)
        self.class_names, self.preprocessing = names, changed(preprocessing, **preparation)
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
        return logits_of(self.network(images))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._judge(batch, "val", dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._judge(batch, "test", dataloader_idx)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self(images_and_labels(batch)[0])

    def _judge(self, batch: Batch, stage: str, place: int) -> None:
        images, labels = images_and_labels(batch)
        if labels is None:
            return
        logits = self(images)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(labels)}
        self.log(f"{stage}/loss", cross_entropy(logits, labels), sync_dist=True, **options)
        log_accuracy(self, stage, place, logits, labels, options)
