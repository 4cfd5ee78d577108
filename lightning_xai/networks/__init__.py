"""The classifiers of the papers, as plain `nn.Module`s, and a small one with ImageNet weights, `efficientnet_lite0`.

Every network returns logits. In those of the papers each activation is an `nn.ReLU` of its own that does not work in
place, because explainers that hook activations (guided backpropagation, GradCAM) need one module a use; and modules are
registered in the order in which they run, so that "from the output down" means something to a sanity check.
"""

from lightning_xai.networks.cnn import CNN
from lightning_xai.networks.efficientnet_lite import efficientnet_lite0
from lightning_xai.networks.lenet import LeNet
from lightning_xai.networks.mlp import MLP
from lightning_xai.networks.resnet9 import ResNet9

__all__ = ["CNN", "MLP", "LeNet", "ResNet9", "efficientnet_lite0"]
