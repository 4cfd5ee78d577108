"""LeNet-5 with ReLU and max pooling."""

from collections import OrderedDict

from torch import nn

from lightning_xai.shapes import Images, Logits


class LeNet(nn.Module):
    """Two 5x5 convolutions (6 and 16 channels), each pooled, then 120-84-`num_classes`.

    LeCun et al., "Gradient-based learning applied to document recognition" (1998), in the form that NoiseGrad
    uses (Bykov et al., arXiv 2106.10185). Images of 28 pixels are padded to the 32 that the layers are made for.

    Args:
        in_channels: 1 for gray, 3 for color images.
        image_size: Height and width of the (square) images: 28 or 32.
        num_classes: Number of logits.

    Raises:
        ValueError: if `image_size` is neither 28 nor 32.

    Example:
        >>> import torch
        >>> from lightning_xai.networks import LeNet
        >>> LeNet()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, in_channels: int = 1, image_size: int = 28, num_classes: int = 10) -> None:
        super().__init__()
        if image_size not in (28, 32):
            raise ValueError(
                f"`image_size` must be 28 or 32, got {image_size}: resize the images, or use another network."
            )
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 6, kernel_size=5, padding=(32 - image_size) // 2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(6, 16, kernel_size=5),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                linear1=nn.Linear(16 * 5 * 5, 120),
                relu1=nn.ReLU(),
                linear2=nn.Linear(120, 84),
                relu2=nn.ReLU(),
                linear3=nn.Linear(84, num_classes),
            )
        )

    def forward(self, images: Images) -> Logits:
        return self.classifier(self.features(images))
