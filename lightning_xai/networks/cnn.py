"""The small convolutional network of the sanity checks."""

from collections import OrderedDict

from torch import nn

from lightning_xai.shapes import Images, Logits


class CNN(nn.Module):
    """Two 5x5 convolutions (32 and 64 channels), each pooled, then 1024-`num_classes`, for 28x28 images.

    Adebayo et al., "Sanity Checks for Saliency Maps" (arXiv 1810.03292). The convolutions keep the image size,
    so the fully connected part sees 64 maps of 7x7.

    Args:
        in_channels: 1 for gray, 3 for color images.
        num_classes: Number of logits.

    Example:
        >>> import torch
        >>> from lightning_xai.networks import CNN
        >>> CNN()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 32, kernel_size=5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(32, 64, kernel_size=5, padding=2),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                linear1=nn.Linear(64 * 7 * 7, 1024),
                relu1=nn.ReLU(),
                linear2=nn.Linear(1024, num_classes),
            )
        )

    def forward(self, images: Images) -> Logits:
        return self.classifier(self.features(images))
