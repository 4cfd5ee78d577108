"""Tasks of which the truth is known: what decides a sample has a mask, and can be swapped or taken away."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import nn

from lightning_xai.checks import check_choice
from lightning_xai.data.base import ImageDataModule, ImageDataset, ImageSource, Split
from lightning_xai.explainers.base import check_model
from lightning_xai.explainers.chunks import check_rows
from lightning_xai.explainers.state import explaining
from lightning_xai.outputs import Logit, Output, check_excluding, named_output

Intervention = Literal["swap", "remove"]
"""`swap`: what decides now tells another class, drawn by the seed; `remove`: it tells none. All else stays."""


class TruthDataModule(ImageDataModule):
    """Base of data modules that know what decides, and can intervene on it.

    What a network truly uses is computed from the interventions and never assumed: it depends on what was swapped as
    far as its predictions change.

    Args:
        options: Those of `ImageDataModule`.

    Raises:
        ValueError: as `ImageDataModule`; `intervened` for an unknown intervention.

    Example:
        What decides here is whether the left or the right half is bright; to swap it is to mirror the picture.

        >>> import torch
        >>> from lightning_xai.data import TruthDataModule, dependence
        >>> from lightning_xai.data.base import ImageSource
        >>> class Halves(TruthDataModule):
        ...     evidence, image_shape, class_names = "half", (1, 8, 8), ("left", "right")
        ...     default_mean, default_std = (0.0,), (1.0,)
        ...
        ...     def load(self, split):
        ...         labels = torch.arange(48) % 2
        ...         bright = (torch.arange(8) >= 4) == labels.bool().view(-1, 1, 1, 1)
        ...         images = (bright * 255).to(torch.uint8).expand(-1, 1, 8, -1).contiguous()
        ...         return ImageSource(images, labels, {"half": images[:, 0] > 0})
        ...
        ...     def intervene(self, split, how):
        ...         clean = self.load(split)
        ...         images = clean.images.flip(3) if how == "swap" else torch.full_like(clean.images, 128)
        ...         return ImageSource(images, clean.labels, clean.masks)
        >>> data = Halves()
        >>> data.setup("fit")
        >>> class Right(torch.nn.Module):
        ...     def forward(self, images):
        ...         return torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1)
        >>> dependence(Right(), data)  # right in all, wrong in all when swapped
        1.0
    """

    evidence: str
    """Name of the mask of what should decide: the digit, the figure; empty where there is none."""
    operators: tuple[str, ...] = ()
    """Kinds of shortcut without a place (`color`, `frequency`, `background`) that keep the evidence readable here."""

    @abstractmethod
    def intervene(self, split: Split, how: Intervention) -> ImageSource:
        """The split as `load` gives it, sample by sample, labels as they were, with what decides swapped or removed."""

    def intervened(self, name: Literal["val", "test"], how: Intervention) -> ImageDataset:
        """The validation or test samples of `setup` after the intervention, in their order."""
        check_choice("how", how, Intervention)
        clean = self.dataset(name)
        return ImageDataset(
            self.intervene("test" if name == "test" else "train", how), clean.rows, clean.labels, self.normalize
        )


def dependence(
    model: nn.Module,
    data: TruthDataModule,
    name: Literal["val", "test"] = "val",
    output: Output | str = Logit(),
) -> float:
    """Share of accuracy that a network loses when what decides is swapped: what it truly uses.

    Accuracy on the samples as they are less accuracy on those after `intervene("swap")`, both by the labels as they
    are; near 0 for a network that does not see what is swapped, below it if that was misleading.

    Args:
        model: A network from normalized images to logits, on any device; it stays as it is.
        data: After `setup`.
        name: Which samples.
        output: What of the network's output is its prediction; of a single logit the class is its sign.

    Raises:
        TypeError: if the network returns no tensor.
        ValueError: if `output` has no classes, or several that hold together, or is of another shape.
        RuntimeError: if these samples are not set up.

    Example:
        >>> import torch
        >>> from lightning_xai.data import DialDataModule, DigitsDataModule, dependence
        >>> from lightning_xai.data.cues import Patch
        >>> data = DialDataModule(DigitsDataModule(), Patch(), num_train=300)
        >>> data.setup("fit")
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        >>> abs(dependence(network, data)) < 0.2
        True
    """
    check_model(model)
    return accuracy(model, data.dataset(name), output) - accuracy(model, data.intervened(name, "swap"), output)


def accuracy(model: nn.Module, samples: ImageDataset, output: Output | str = Logit()) -> float:
    """Share of samples that a network gives their label; arguments and errors as in `dependence`.

    Example:
        >>> import torch
        >>> from lightning_xai.data import DigitsDataModule, accuracy
        >>> data = DigitsDataModule()
        >>> data.setup("test")
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))  # knows nothing
        >>> accuracy(network, data.dataset("test")) < 0.5
        True
    """
    read = named_output(output)
    check_excluding(read)
    device = next((part.device for part in model.parameters()), torch.device("cpu"))
    hits = 0
    with explaining(model), torch.no_grad():
        for rows in torch.arange(len(samples)).split(_BATCH):
            batch = samples.__getitems__(rows.tolist())
            told = check_rows(model(batch["image"].to(device)), len(rows))
            hits += int((read.prediction(told).cpu() == batch["label"]).sum())
    return hits / len(samples)


_BATCH = 256
