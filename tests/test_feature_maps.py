"""Which maps GradCAM shows: in closed form on networks whose last convolution is not their last feature map."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerFeatureAblation, LayerGradCam, LayerGradientXActivation
from torch import nn
from torch.testing import assert_close
from torchvision.models import get_model

from lightning_xai.explainers import CaptumExplainer, grad_cam, guided_backprop, guided_grad_cam, noise_grad
from lightning_xai.explainers.feature_maps import last_feature_maps

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([1, 2])


def convolutions(*channels):
    pairs = pairwise(channels)
    return nn.Sequential(*(part for one, two in pairs for part in (nn.Conv2d(one, two, 3, padding=1), nn.ReLU())))


def closed_form(maps, rest, images=IMAGES):
    """Selvaraju et al. 2017, equations 1 and 2: maps weighted with their mean gradients, rectified, enlarged."""
    maps = maps.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(rest(maps).gather(1, TARGET[: len(maps), None]).sum(), maps)
    coarse = F.relu((maps * gradients.mean(tuple(range(2, maps.ndim)), keepdim=True)).sum(1, keepdim=True))
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[images.ndim]
    return F.interpolate(coarse, images.shape[2:], mode=mode, align_corners=False).detach()


class Parted(nn.Module):
    """A network of two parts: `maps` makes the last feature maps, `rest` the logits from them."""

    def __init__(self):
        super().__init__()
        self.body, self.head = convolutions(3, 6, 8), nn.Linear(8, 4)

    def maps(self, x):
        return self.body(x)

    def rest(self, maps):
        return self.head(maps.mean((2, 3)))

    def forward(self, x):
        return self.rest(self.maps(x))


class ConvolutionalHead(Parted):
    def __init__(self):
        super().__init__()
        self.pool, self.head, self.last = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 9, 1), nn.Conv2d(9, 4, 1)

    def rest(self, maps):
        return self.last(F.hardswish(self.head(self.pool(maps)))).flatten(1)


class ChannelGate(Parted):
    """Squeeze-and-excitation."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Sigmoid()
        )

    def rest(self, maps):
        return super().rest(maps * self.gate(maps))


class SpatialGate(Parted):
    """As CBAM's: the last convolution makes one channel with extent."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(2, 1, 7, padding=3)

    def rest(self, maps):
        both = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
        return super().rest(maps * self.gate(both).sigmoid())


class CoordinateGate(Parted):
    def __init__(self):
        super().__init__()
        self.gate = nn.Conv2d(8, 8, 1)

    def rest(self, maps):
        return super().rest(maps * self.gate(maps.mean(3, keepdim=True)).sigmoid())


class NeighborGate(Parted):
    """ECA: a convolution along the channels."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv1d(1, 1, 3, padding=1)

    def rest(self, maps):
        gate = self.gate(maps.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return super().rest(maps * gate.sigmoid())


class AuxiliaryHead(Parted):
    def __init__(self):
        super().__init__()
        self.side, self.aux = convolutions(8, 5), nn.Linear(5, 4)

    def rest(self, maps):
        return super().rest(maps) + 0.4 * self.aux(self.side(maps).mean((2, 3)))


class UnusedHead(Parted):
    """A branch that runs last, and that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.side = convolutions(8, 5)

    def rest(self, maps):
        logits = super().rest(maps)
        self.side(maps)
        return logits


class PooledAndEnlarged(Parted):
    """As VGG, whose adaptive pooling of small images gives maps of the last convolution's size."""

    def __init__(self):
        super().__init__()
        self.pools, self.head = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(16)), nn.Linear(8 * 256, 4)

    def rest(self, maps):
        return self.head(self.pools(maps).flatten(1))


class Functions(Parted):
    def rest(self, maps):
        return super().rest(F.avg_pool2d(F.normalize(F.relu(maps - 0.1), dim=1), 2))


class OwnConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(8, 3, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1)


class OfOwnConvolutions(Parted):
    def __init__(self):
        super().__init__()
        self.body = OwnConvolution()


class Recurrent(Parted):
    """The last maps are those of a block's third run."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())

    def maps(self, x):
        h = self.stem(x)
        for _ in range(3):
            h = self.body(h)
        return h


class SharedRelu(Parted):
    """The activation that makes the last maps runs again in the head."""

    def __init__(self):
        super().__init__()
        self.relu, self.conv, self.hidden = nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Linear(8, 8)

    def maps(self, x):
        return self.relu(self.conv(self.body(x)))

    def rest(self, maps):
        return self.head(self.relu(self.hidden(maps.mean((2, 3)))))


class SharedBlock(Parted):
    """A block with weights makes the last maps, and runs again behind the pooling."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def maps(self, x):
        return self.block(self.stem(x))

    def rest(self, maps):
        return self.head(self.block(F.adaptive_avg_pool2d(maps, 1)).flatten(1))


class OpenResidual(Parted):
    """A pooled map that a residual branch, added outside of any module, is made of."""

    def __init__(self):
        super().__init__()
        self.pool, self.branch = nn.MaxPool2d(2), convolutions(8, 8)

    def maps(self, x):
        return self.pool(self.body(x))

    def rest(self, maps):
        return super().rest(maps + self.branch(maps))


class NeXt(nn.Module):
    """ConvNeXt's block: linear layers on (batch, height, width, channel) inside, maps outside."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = (
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.LayerNorm(16),
            nn.Linear(16, 16),
        )

    def forward(self, x):
        return x + F.gelu(self.linear(self.norm(self.conv(x).permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class OfNeXt(Parted):
    """As many channels as rows and columns: shapes tell nothing of the axes' order."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), NeXt(), NeXt()), nn.Linear(16, 4)


class Shuffled(Parted):
    """Channels are shuffled by views, behind the last convolution."""

    def __init__(self):
        super().__init__()
        self.shuffle = nn.ChannelShuffle(2)

    def maps(self, x):
        x = self.body(x)
        return self.shuffle(x.view(len(x), 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape))


class TooSmall(Parted):
    """The last convolution leaves one pixel."""

    def __init__(self):
        super().__init__()
        self.last, self.head = nn.Conv2d(8, 8, 16), nn.Linear(8, 4)

    def rest(self, maps):
        return super().rest(self.last(maps).relu())


NETWORKS = [
    AuxiliaryHead,
    ChannelGate,
    ConvolutionalHead,
    CoordinateGate,
    Functions,
    NeighborGate,
    OfNeXt,
    OfOwnConvolutions,
    OpenResidual,
    Parted,
    PooledAndEnlarged,
    Recurrent,
    SharedBlock,
    SharedRelu,
    Shuffled,
    SpatialGate,
    TooSmall,
    UnusedHead,
]


def assert_same(found, expected):
    assert_close(found.sum(1, keepdim=True), expected, rtol=1e-4, atol=1e-5 * expected.max().item())


def made(network, images=IMAGES):
    """A network whose map of the images is not zero."""
    for seed in range(20):
        torch.manual_seed(seed)
        model = network().eval()
        if closed_form(model.maps(images), model.rest, images).flatten(1).amax(1).gt(0).all():
            return model
    raise AssertionError


@pytest.mark.parametrize("network", NETWORKS)
def test_grad_cam_is_that_of_the_last_maps_with_extent(network):
    model = made(network)
    expected = closed_form(model.maps(IMAGES), model.rest)
    found = grad_cam()(model, IMAGES, TARGET)
    assert_same(found, expected)
    assert_close(noise_grad(grad_cam(), std=0.0, num_draws=2)(model, IMAGES, TARGET), found)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_images_of_all_ratios():
    for shape in ((3, 5, 40), (3, 40, 5), (3, 6, 6), (3, 1, 30)):
        images, model = torch.rand(2, *shape), made(Parted)
        assert_same(grad_cam()(model, images, TARGET), closed_form(model.maps(images), model.rest, images))


def test_guided_grad_cam_is_the_product():
    model = made(SharedRelu)
    product = guided_backprop()(model, IMAGES, TARGET) * closed_form(model.maps(IMAGES), model.rest)
    assert product.any()
    assert_close(guided_grad_cam()(model, IMAGES, TARGET), product, rtol=1e-4, atol=1e-5 * product.abs().max().item())


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet18", 64, "layer4"),
        ("resnet18", 32, "layer3"),  # the last stage has one pixel
        pytest.param("vgg11", 112, "features.19", marks=pytest.mark.slow),
        ("densenet121", 64, "features"),
        ("squeezenet1_0", 64, "classifier.2"),
        ("mobilenet_v3_small", 64, "features"),
        ("shufflenet_v2_x0_5", 64, "conv5"),
        ("regnet_y_400mf", 64, "trunk_output"),
        ("convnext_tiny", 64, "features"),
        ("inception_v3", 128, "Mixed_7c"),
    ],
)
def test_torchvisions_last_maps(name, size, expected):
    model = get_model(name, weights=None, num_classes=5, **{"init_weights": False} if name == "inception_v3" else {})
    assert last_feature_maps(model.eval(), torch.rand(1, 3, size, size)) is model.get_submodule(expected)


TIMM = {
    "resnetv2_50x1_bit": "norm",
    "seresnet50": "layer4",
    "legacy_seresnet18": "layer4",
    "ecaresnet26t": "layer4",
    "mobilenetv3_small_050": "blocks",
    "ghostnet_050": "blocks",
    "lcnet_050": "blocks",
    "fastvit_t8": "final_conv",
    "convnext_atto": "norm_pre",
    "hrnet_w18_small": "final_layer",
    "dla34": "level5",
    "skresnet18": "layer4",
    "res2net50_14w_8s": "layer4",
    "nfnet_l0": "final_act",
    "poolformer_s12": "stages",
    "mobilevit_xxs": "final_conv",
    "mvitv2_tiny": "norm",
    "davit_tiny": "norm_pre",
    "pit_ti_224": "transformers.2.blocks.2",
    "twins_pcpvt_small": "norm",
    "coatnet_pico_rw_224": "norm",
}


def in_timm(name):
    timm = pytest.importorskip("timm")
    size = 224 if "224" in name or name[:4] in ("mvit", "davi", "twin") else 64
    return timm.create_model(name, num_classes=5).eval(), torch.rand(1, 3, size, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timms_last_maps(name):
    model, images = in_timm(name)
    assert last_feature_maps(model, images) is model.get_submodule(TIMM[name])


class ChannelsLast(Parted):
    """A Swin transformer in miniature; with `channels=4` as many channels as rows and columns."""

    def __init__(self, channels=6, back=False):
        super().__init__()
        self.patch, self.merge, self.norm = nn.Conv2d(3, 3, 2, 2), nn.Linear(12, channels), nn.LayerNorm(channels)
        self.act, self.permute = nn.GELU(), Back() if back else nn.Identity()
        self.back, self.head = back, nn.Linear(channels, 4)

    def maps(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        x = x.reshape(len(x), 4, 2, 4, 2, 3).permute(0, 1, 3, 4, 2, 5).flatten(3)  # two by two become one
        return self.act(self.norm(self.merge(x))).permute(0, 3, 1, 2)

    def forward(self, x):
        maps = self.maps(x).permute(0, 2, 3, 1)
        return self.head(self.permute(maps).mean((2, 3) if self.back else (1, 2)))


class Back(nn.Module):
    def forward(self, x):
        return x.permute(0, 3, 1, 2)


class TokenBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, tokens):
        mixed = self.mix(self.norm(tokens))
        return tokens + mixed + mixed.softmax(1).mean(1, keepdim=True)


class Tokens(Parted):
    """A vision transformer in miniature, with class and register tokens before and behind the patches."""

    patch_of = nn.Conv2d

    def __init__(self, front=0, behind=0):
        super().__init__()
        self.patch, self.first, self.last = self.patch_of(3, 6, 4, 4), TokenBlock(), TokenBlock()
        self.front, self.behind = (nn.Parameter(torch.randn(1, number, 6)) for number in (front, behind))
        self.head = nn.Linear(6, 4)

    def tokens(self, x):
        patches = self.patch(x)
        self.grid, rows = patches.shape[2:], (len(x), -1, -1)
        patches = patches.flatten(2).transpose(1, 2)
        return self.first(torch.cat([self.front.expand(rows), patches, self.behind.expand(rows)], 1))

    def forward(self, x):
        return self.read(self.last(self.tokens(x)))

    def read(self, tokens):
        return self.head(tokens.mean(1))

    def maps(self, x):
        tokens, self.others = self.split(self.last(self.tokens(x)).detach())
        return tokens

    def rest(self, maps):
        return self.read(self.joined(maps))

    def split(self, tokens):
        front, patches, behind = tokens.split([self.front.shape[1], self.grid.numel(), self.behind.shape[1]], 1)
        return patches.transpose(1, 2).unflatten(2, self.grid), (front, behind)

    def joined(self, maps):
        return torch.cat([self.others[0], maps.flatten(2).transpose(1, 2), self.others[1]], 1)


class ClassToken(Tokens):
    """The other tokens have no say behind the last block."""

    def __init__(self):
        super().__init__(1, 2)

    def read(self, tokens):
        return self.head(tokens[:, 0])

    def maps(self, x):
        tokens, self.others = self.split(self.tokens(x).detach())
        return tokens

    def rest(self, maps):
        return self.read(self.last(self.joined(maps)))


class ClassAttention(ClassToken):
    """As CaiT: the last block changes the class token alone."""

    def __init__(self):
        super().__init__()
        self.last = ToClassToken()


class ToClassToken(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, tokens):
        return torch.cat([tokens[:, :1] + self.mix(tokens).softmax(1).mean(1, keepdim=True), tokens[:, 1:]], dim=1)


class Moved(Parted):
    """The positions have changed places in the last maps."""

    def __init__(self, move):
        super().__init__()
        self.norm, self.move = nn.LayerNorm(16), move

    def forward(self, x):
        return self.rest(self.norm(self.move(self.body(x))))


class OneAxis(Tokens):
    patch_of = nn.Conv1d


class Volume(Tokens):
    patch_of = nn.Conv3d


class Convolutions3d(Parted):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.ReLU())

    def rest(self, maps):
        return self.head(maps.mean((2, 3, 4)))


class FromTokens(Tokens):
    """Tokens with a module that makes maps of them."""

    def __init__(self):
        super().__init__()
        self.unflatten = ToMaps()

    def forward(self, x):
        return self.rest(self.unflatten(self.last(self.tokens(x))))

    def rest(self, maps):
        return self.head(maps.mean((2, 3)))


class ToMaps(nn.Module):
    def forward(self, tokens):
        return tokens.transpose(1, 2).unflatten(2, (4, 4))


class Unseen(Parted):
    """Nobody sees in which order the axes are."""

    def __init__(self, channels=6):
        super().__init__()
        self.patch, self.norm, self.head = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels), nn.Linear(channels, 4)

    def maps(self, x):
        return self.norm(torch.einsum("bchw->bhwc", self.patch(x))).permute(0, 3, 1, 2)

    def rest(self, maps):
        return self.head(maps.mean((2, 3)))

    def forward(self, x):
        return self.head(self.norm(torch.einsum("bchw->bhwc", self.patch(x))).mean((1, 2)))


class TokensOfMaps(Parted):
    """As the attention pooling of CLIP's ResNet: pixels become tokens behind the last convolution."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def maps(self, x):
        return self.linear(self.body(x).flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])

    def rest(self, maps):
        return self.head(maps.amax((2, 3)))


class TwoWays(Parted):
    def __init__(self):
        super().__init__()
        self.other = convolutions(3, 8)

    def forward(self, x):
        return self.rest(self.body(x)) + self.rest(self.other(x))


NAME = r"`layer` must be given: .*"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Unseen, NAME + r'"norm", are of shape \(1, 4, 4, 6\), in an order of axes not known.*give `reshape`'),
        (lambda: Moved(lambda maps: maps.mT), NAME + '"norm", are of shape .*, in an order of axes not known'),
        (lambda: Moved(lambda maps: maps.roll(3, -1)), NAME + '"norm", are of shape .*, in an order of axes not known'),
        (TwoWays, NAME + "several ways"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), NAME + "`model` has no convolution"),
    ],
)
def test_networks_without_last_maps_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        grad_cam()(network().eval(), IMAGES, TARGET)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (ChannelsLast, (16, 16)),
        (lambda: ChannelsLast(4), (16, 16)),
        (lambda: ChannelsLast(4, back=True), (16, 16)),
        (Tokens, (16, 24)),
        (lambda: Tokens(2, 1), (24, 16)),
        (ClassToken, (16, 24)),
        (ClassAttention, (16, 24)),
        (FromTokens, (16, 16)),
        (TokensOfMaps, (16, 24)),
        (OneAxis, (40,)),
        (lambda: OneAxis(1, 2), (40,)),
        (lambda: Volume(1), (8, 12, 16)),
        (Convolutions3d, (3, 5, 4)),
    ],
)
def test_grad_cam_of_tokens_channels_last_series_and_volumes(network, shape):
    inputs = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    model = made(network, inputs)
    expected = closed_form(model.maps(inputs), model.rest, inputs)
    assert_same(grad_cam()(model, inputs, TARGET), expected)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_class_token_is_read_and_its_block_is_not_the_layer():
    model = made(ClassToken)
    assert last_feature_maps(model, IMAGES) is model.first
    assert last_feature_maps(made(lambda: Tokens(1)), IMAGES[:1]) is not None
    assert not grad_cam("last")(model, IMAGES, TARGET).any()


@pytest.mark.parametrize("name", ["swin_t", pytest.param("vit_b_32", marks=pytest.mark.slow)])
def test_torchvisions_transformers(name):
    side = 224 if "vit" in name else 64
    model = get_model(name, weights=None, num_classes=5).eval()
    for parameter in (
        model.heads if "vit" in name else model.head
    ).parameters():  # torchvision's new head of a ViT is zero
        nn.init.normal_(parameter)
    expected = {"swin_t": "permute", "vit_b_32": "encoder.layers.encoder_layer_10"}[name]
    assert last_feature_maps(model, torch.rand(1, 3, side, side)) is model.get_submodule(expected)


def four_by_four(tokens):
    return tokens.transpose(1, 2).unflatten(2, (4, 4))


@pytest.mark.parametrize(("network", "layer"), [(Unseen, "norm"), (lambda: Unseen(4), "norm"), (Tokens, "last")])
def test_a_reshape_says_how_the_values_lie(network, layer):
    model = made(network)
    reshape = four_by_four if layer == "last" else lambda x: x.permute(0, 3, 1, 2)
    expected = closed_form(model.maps(IMAGES), model.rest)
    assert_same(grad_cam(layer, reshape)(model, IMAGES, TARGET), expected)


def test_a_named_layer_of_unseen_order_is_told_by_the_ratio_of_the_image_or_refused():
    model = made(Unseen)
    assert_same(grad_cam("norm")(model, IMAGES, TARGET), closed_form(model.maps(IMAGES), model.rest))
    with pytest.raises(ValueError, match=r"in an order of axes not known: give `reshape`"):
        grad_cam("norm")(made(lambda: Unseen(4)), IMAGES, TARGET)


@pytest.mark.parametrize("method", [LayerGradCam, LayerFeatureAblation])
def test_named_layers_must_give_maps(method):
    with pytest.raises(ValueError, match=r'`layer` "head" must give maps, .* got values of shape \(1, 4\): give `resh'):
        CaptumExplainer(method, layer="head")(Parted().eval(), IMAGES, TARGET)


@pytest.mark.parametrize("of_input", [False, True])
def test_other_methods_of_layers_take_tokens_too(of_input):
    """Gradient times activation: what the tokens are, times what the logit loses by them."""
    model = made(lambda: Tokens(2, 1))
    tokens = model.tokens(IMAGES).detach()
    tokens = (tokens if of_input else model.last(tokens).detach()).requires_grad_()
    logits = model.read(model.last(tokens) if of_input else tokens)
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGET[:, None]).sum(), tokens)
    maps, _ = model.split((gradient * tokens).detach())
    expected = F.interpolate(maps.sum(1, keepdim=True), (16, 16), mode="bilinear", align_corners=False)
    method = CaptumExplainer(LayerGradientXActivation, {"attribute_to_layer_input": of_input}, "last")
    assert_same(method(model, IMAGES, TARGET), expected)


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        (lambda tokens: 2 * four_by_four(tokens), "must move the layer's values"),
        (lambda tokens: four_by_four(tokens)[:, [0, 0]], "must move the layer's values"),
        (lambda tokens: tokens, r"must give maps with as many axes as the inputs, 4, .* of a layer's \(1, 16, 6\)"),
    ],
)
def test_a_reshape_must_give_maps(reshape, message):
    with pytest.raises(ValueError, match=f"`reshape` {message}"):
        grad_cam("last", reshape)(made(Tokens), IMAGES, TARGET)
    with pytest.raises(ValueError, match="`reshape` needs a `layer`"):
        grad_cam(reshape=reshape)


class Frozen(Parted):
    def maps(self, x):
        with torch.no_grad():
            return super().maps(x)


class Detached(Parted):
    def rest(self, maps):
        return super().rest(maps.detach())


class FrozenStem(Parted):
    """Only what lies in front of the named layer runs without gradients."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 6, 3, padding=1), convolutions(6, 8)

    def maps(self, x):
        with torch.no_grad():
            x = self.stem((x * 255).long().float() / 255)
        return self.body(x)


@pytest.mark.parametrize("network", [Frozen, Detached])
def test_layers_that_the_output_does_not_depend_on_are_refused(network):
    model = network().eval()
    cause = "by a differentiable path: a part of it runs under torch.no_grad .*requires_grad_"
    with pytest.raises(ValueError, match=f'`model` gives outputs that do not depend on `layer` "body" {cause}'):
        grad_cam("body")(model, IMAGES, TARGET)
    with pytest.raises(ValueError, match=f"`model` gives outputs that do not depend on `inputs` {cause}"):
        grad_cam()(model, IMAGES, TARGET)
    ablation = CaptumExplainer(LayerFeatureAblation, {"perturbations_per_eval": 512}, "body.0")  # needs no gradient
    assert ablation(model, IMAGES[:1], TARGET[:1]).any()


def test_a_layer_behind_a_part_without_gradients_can_be_named():
    model = made(FrozenStem)
    expected = closed_form(model.maps(IMAGES), model.rest)
    for trainable in (True, False):
        model.requires_grad_(trainable)
        assert_same(grad_cam("body")(model, IMAGES, TARGET), expected)
    with pytest.raises(ValueError, match=r"do not depend on `inputs`.* Or name a `layer` behind that part"):
        grad_cam()(model, IMAGES, TARGET)


def test_layers_that_give_no_maps_are_refused():
    class Odd(Parted):
        def __init__(self):
            super().__init__()
            self.unused, self.pair = nn.Conv2d(3, 3, 1), Pair()

        def rest(self, maps):
            return super().rest(self.pair(maps)[0])

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    for layer, what in {"unused": "is not run by `model`", "pair": "gives no single tensor"}.items():
        with pytest.raises(ValueError, match=f'`layer` "{layer}" {what}'):
            grad_cam(layer)(Odd().eval(), IMAGES, TARGET)
    with pytest.raises(ValueError, match=r"`inputs` must be series, images or volumes, .* got shape \(1, 4\)"):
        grad_cam("0")(nn.Sequential(nn.Linear(4, 3)), torch.rand(2, 4), 0)


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


class Around(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = torch.compile(net, backend="eager")

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda model: torch.compile(model, backend="eager"), ("body.1", "_orig_mod.body.1")),
        (compiled_in_place, ("body.1",)),
        (Around, ("net.body.1", "net._orig_mod.body.1")),
    ],
)
def test_layers_of_compiled_networks_are_found_by_both_names(wrap, names):
    plain = made(Parted)
    model = wrap(made(Parted))
    with torch.compiler.set_stance("force_eager"):
        for method in (grad_cam(), guided_grad_cam()):
            assert_close(method(model, IMAGES, TARGET), method(plain, IMAGES, TARGET))
        for name in names:
            assert_close(grad_cam(name)(model, IMAGES, TARGET), grad_cam("body.1")(plain, IMAGES, TARGET))
        with pytest.raises(ValueError, match=r'`layer` "body.9" is no submodule of `model`; .*: (net, )?(net.)?body, '):
            grad_cam("body.9")(model, IMAGES, TARGET)
