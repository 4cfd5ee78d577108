"""GradCAM against the package grad-cam, of networks of timm and transformers with random weights."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_xai.explainers import grad_cam
from lightning_xai.explainers.feature_maps import last_feature_maps

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def tokens(others):
    """As the documentation of grad-cam writes them, with the number of tokens that are no patches."""
    return lambda x: x[:, others:].transpose(1, 2).unflatten(2, (int((x.shape[1] - others) ** 0.5), -1))


def channels_last(x):
    return x.permute(0, 3, 1, 2)


SMALL = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3}
HIERARCHY = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
NETWORKS = {  # name in timm, options, layer, how the oracle is told the axes, our choice of a layer
    "ViT": ("vit_tiny_patch16_224", SMALL, "blocks.2.norm1", tokens(1), "blocks.1"),
    "ViT pooled": ("vit_tiny_patch16_224", SMALL | {"global_pool": "avg"}, "blocks.2", tokens(1), "norm"),
    "DeiT": ("deit_tiny_distilled_patch16_224", SMALL, "blocks.2.norm1", tokens(2), "blocks.1"),
    "registers": (
        "vit_small_patch14_reg4_dinov2",
        SMALL | {"img_size": 70},
        "blocks.2.norm1",
        tokens(5),
        "blocks.1",
    ),
    "Mixer": ("mixer_s32_224", {"img_size": 64}, "blocks.7", tokens(0), "norm"),
    "Swin": ("swin_tiny_patch4_window7_224", HIERARCHY, "layers.2.blocks.0", channels_last, "norm"),
    "ConvNeXt": ("convnext_atto", {"depths": (1, 1, 2, 1)}, "stages.2", None, "norm_pre"),
    "ResNet": ("resnet18", {}, "layer4", None, "layer4"),
    "MobileNetV3": ("mobilenetv3_small_050", {}, "blocks.5", None, "blocks"),
}


def correlations(model, layer, reshape, ours, images, targets):
    """Of our maps with theirs, image by image; of those that have a map."""
    package = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with package.GradCAM(model, [layer], reshape) as cam:
        theirs = cam(images, [ClassifierOutputTarget(label) for label in targets.tolist()])
    found = ours(model, images, targets).sum(1).numpy()
    pairs = [(one, other) for one, other in zip(found, theirs, strict=True) if one.any() or other.any()]
    assert pairs
    return [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs]


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_is_that_of_the_package(name):
    timm = pytest.importorskip("timm")
    network, options, layer, reshape, chosen = NETWORKS[name]
    torch.manual_seed(1)
    model = timm.create_model(network, num_classes=5, **options).eval()
    if name == "Mixer":
        nn.init.normal_(model.head.weight)  # it is zero
    side = options.get("img_size", 64)
    images, targets = torch.rand(3, 3, side, side), torch.tensor([0, 1, 2])
    last = last_feature_maps(model, images[:1])
    assert last is model.get_submodule(chosen)
    for part, ours in {model.get_submodule(layer): grad_cam(layer), last: grad_cam()}.items():
        assert min(correlations(model, part, reshape, ours, images, targets)) > 0.9999
    if reshape is not None:
        torch.testing.assert_close(
            grad_cam(layer, reshape)(model, images, targets), grad_cam(layer)(model, images, targets)
        )


class Logits(nn.Module):
    """A classifier of transformers whose forward gives a tensor."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).logits


def test_a_vision_transformer_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96}
    config = transformers.ViTConfig(image_size=64, patch_size=16, num_labels=5, **small)
    model = Logits(transformers.ViTForImageClassification(config)).eval()
    images, targets = torch.rand(3, 3, 64, 64), torch.tensor([0, 1, 2])
    (name,) = (name for name, part in model.named_modules() if part is last_feature_maps(model, images[:1]))
    assert name.endswith("1")  # the last but one of three
    layer = name[:-1] + "2.layernorm_before"
    part = model.get_submodule(layer)
    assert min(correlations(model, part, tokens(1), grad_cam(layer), images, targets)) > 0.9999
