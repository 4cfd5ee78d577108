"""ResNet-9, NoiseGrad's network for CMNIST."""

from collections import OrderedDict

from torch import nn

from lightning_xai.shapes import Images, Logits


class ResNet9(nn.Module):
    """Nine 3x3 convolutions' worth of residual network for 32x32 images; 2,447,946 parameters by default.

    Bykov et al. (arXiv 2106.10185). The convolutions have no bias, since batch normalization follows each.

    Args:
        in_channels: 1 for gray, 3 for color images.
        num_classes: Number of logits.

    Example:
        >>> import torch
        >>> from lightning_xai.networks import ResNet9
        >>> ResNet9(in_channels=3)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        self.block1 = _block(in_channels, 64)
        self.block2 = _block(64, 128, pool=True)
        self.residual1 = _Residual(128)
        self.block3 = _block(128, 256, pool=True)
        self.block4 = _block(256, 256, pool=True)
        self.residual2 = _Residual(256)
        self.classifier = nn.Sequential(
            OrderedDict(pool=nn.MaxPool2d(2), flatten=nn.Flatten(), linear=nn.Linear(256 * 2 * 2, num_classes))
        )

    def forward(self, images: Images) -> Logits:
        features = self.residual1(self.block2(self.block1(images)))
        features = self.residual2(self.block4(self.block3(features)))
        return self.classifier(features)


class _Residual(nn.Module):
    """x + block2(block1(x)): the sum itself is not rectified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = _block(channels, channels)
        self.block2 = _block(channels, channels)

    def forward(self, features: Images) -> Images:
        return features + self.block2(self.block1(features))


def _block(in_channels: int, out_channels: int, pool: bool = False) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        norm=nn.BatchNorm2d(out_channels),
        relu=nn.ReLU(),
    )
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)
