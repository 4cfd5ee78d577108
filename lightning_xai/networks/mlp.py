"""Multilayer perceptron."""

from collections import OrderedDict
from itertools import pairwise
from math import prod

from torch import nn

from lightning_xai.shapes import Images, Logits


class MLP(nn.Module):
    """Linear layers `linear1`, `linear2`, ... with a ReLU between each two; flattens its input itself.

    The default, 784-200-10, is AdaptGrad's for MNIST (Zhou et al., arXiv 2410.07711);
    `hidden=(2500, 1500, 500)` is that of Adebayo et al. (arXiv 1810.03292).

    Args:
        image_shape: Channels, height and width of the input.
        hidden: Widths of the hidden layers; none makes a linear classifier.
        num_classes: Number of logits.

    Example:
        >>> import torch
        >>> from lightning_xai.networks import MLP
        >>> MLP(image_shape=(1, 8, 8), hidden=(16,), num_classes=3)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        hidden: tuple[int, ...] = (200,),
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for depth, (width, next_width) in enumerate(pairwise((prod(image_shape), *hidden, num_classes)), start=1):
            layers[f"linear{depth}"] = nn.Linear(width, next_width)
            layers[f"relu{depth}"] = nn.ReLU()
        layers.popitem()  # the logits are not rectified
        self.layers = nn.Sequential(layers)

    def forward(self, images: Images) -> Logits:
        return self.layers(images)
