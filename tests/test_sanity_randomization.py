"""Blocks in execution order, and models with some of them randomized: the original, the rest and the ties stay."""

import copy
import math
from collections import Counter
from itertools import product

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close
from torchvision.models import VisionTransformer, resnet18

from lightning_xai.explainers import Gradient
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import CNN, MLP, LeNet, ResNet9
from lightning_xai.sanity.randomization import Block, Randomization, evidence, parameter_blocks, randomize, steps

INITIALIZATIONS = ["own", "normal", "permute"]
SMALL = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """A tiny vision transformer with raw parameters at both ends."""

    def __init__(self):
        super().__init__()
        self.head = nn.Parameter(torch.randn(8, 5))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.patches = nn.Conv2d(3, 8, 4, 4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], 1)
        return self.encoder(tokens)[:, 0] @ self.head


class Odd(nn.Module):
    """Registered from the output on, with a layer that runs twice, one that never does and a leading norm."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 4)
        self.never = nn.Linear(3, 3)
        self.twice = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6, affine=False)
        self.first = nn.Linear(192, 6)
        self.never_norm = nn.LayerNorm(3)
        self.leading = nn.GroupNorm(3, 3)

    def forward(self, images):
        features = self.norm(self.first(self.leading(images).flatten(1)))
        return self.last(self.twice(torch.relu(self.twice(features))))


class Tied(nn.Module):
    """The decoder shares the encoder's weight, and runs after it though it is registered before."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(192, 192)
        self.encoder = nn.Linear(192, 192)
        self.decoder.weight = self.encoder.weight
        self.last = nn.Linear(192, 4)

    def forward(self, images):
        return self.last(self.decoder(torch.tanh(self.encoder(images.flatten(1)))))


def trained(model):
    """The model with values that no initializer makes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator) * 0.1 + 0.05)
            else:
                value.add_(1000)  # batches that batch normalization has seen
    return model


def build(name):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    made = {
        "mlp": lambda: (MLP(hidden=(30, 20)), images[:, :1, :28, :28]),
        "lenet": lambda: (LeNet(), images[:, :1, :28, :28]),
        "cnn": lambda: (CNN(), images[:, :1, :28, :28]),
        "resnet9": lambda: (ResNet9(), images),
        "resnet18": lambda: (resnet18(), images),
        "attention": lambda: (Attention(), SMALL),
        "odd": lambda: (Odd(), SMALL),
        "tied": lambda: (Tied(), SMALL),
        "lightning": lambda: (ClassifierModule(LeNet()), images[:, :1, :28, :28]),
    }[name]
    model, images = made()
    return trained(model).eval(), images


MODELS = ["mlp", "lenet", "cnn", "resnet9", "resnet18", "attention", "odd", "tied", "lightning"]
each_model = pytest.mark.parametrize("name", MODELS)
small_model = pytest.mark.parametrize("name", ["mlp", "lenet", "attention", "odd", "tied", "lightning"])


def names(blocks):
    return [block.name for block in blocks]


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after.state_dict()[name])}


def differences(first, second):
    return changed(first.state_dict(), second)


# Blocks


@each_model
def test_every_parameter_is_in_one_block(name):
    model, images = build(name)
    blocks = parameter_blocks(model, images)
    counts = Counter(id(model.get_parameter(parameter)) for block in blocks for parameter in block.parameters)
    assert counts == Counter(map(id, model.parameters()))
    assert [block.position for block in blocks] == list(range(len(blocks)))
    assert len(set(names(blocks))) == len(blocks)


def test_blocks_of_our_networks():
    assert names(parameter_blocks(*build("mlp"))) == ["layers.linear1", "layers.linear2", "layers.linear3"]
    convolutions = ["features.conv1", "features.conv2"]
    assert names(parameter_blocks(*build("cnn"))) == [*convolutions, "classifier.linear1", "classifier.linear2"]
    lenet = [*convolutions, "classifier.linear1", "classifier.linear2", "classifier.linear3"]
    assert names(parameter_blocks(*build("lenet"))) == lenet
    assert names(parameter_blocks(*build("lightning"))) == [f"network.{name}" for name in lenet]
    blocks = parameter_blocks(*build("resnet9"))
    assert len(blocks) == 9
    assert blocks[3] == Block(
        "residual1.block2.conv",
        3,
        ("residual1.block2.conv.weight", "residual1.block2.norm.weight", "residual1.block2.norm.bias"),
        ("residual1.block2.norm",),
    )


def test_shortcuts_run_where_the_network_calls_them():
    blocks = parameter_blocks(*build("resnet18"))
    start = names(blocks).index("layer2.0.conv1")
    assert names(blocks)[start : start + 3] == ["layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]
    assert blocks[start + 2].norms == ("layer2.0.downsample.1",)
    assert len(blocks) == 21


def test_attention_projections_and_raw_parameters_are_where_they_are_used():
    """Also the raw parameters of one module that are used at both ends of the network."""
    blocks = parameter_blocks(*build("attention"))
    layers = [f"encoder.layers.{i}.{part}" for i in (0, 1) for part in ("self_attn", "linear1", "linear2")]
    assert names(blocks) == ["patches", "token", *layers, "head"]
    attention = "encoder.layers.0.self_attn"
    projections = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    norms = ("encoder.layers.0.norm1.weight", "encoder.layers.0.norm1.bias")
    assert blocks[2].parameters == (*(f"{attention}.{name}" for name in projections), *norms)
    assert blocks[2].norms == ("encoder.layers.0.norm1",)


def test_order_is_of_execution_and_what_is_unused_goes_with_its_neighbor():
    blocks = parameter_blocks(*build("odd"))
    assert names(blocks) == ["first", "twice", "last"]
    norm_members = ("never_norm.weight", "never_norm.bias")
    assert blocks[0].parameters == ("leading.weight", "leading.bias", "first.weight", "first.bias", *norm_members)
    assert blocks[0].norms == ("leading", "norm", "never_norm")
    assert blocks[2].parameters == ("last.weight", "last.bias", "never.weight", "never.bias")


def test_tied_parameters_belong_to_the_module_that_runs_first():
    blocks = parameter_blocks(*build("tied"))
    assert [block.parameters for block in blocks] == [
        ("encoder.weight", "encoder.bias"),
        ("decoder.bias",),
        ("last.weight", "last.bias"),
    ]


def test_a_network_of_raw_parameters_is_one_block():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(2))
            self.w1, self.w2 = nn.Parameter(torch.randn(6, 192)), nn.Parameter(torch.randn(4, 6))

        def forward(self, images):
            return torch.relu(images.flatten(1) @ self.w1.T) @ self.w2.T

    assert parameter_blocks(Functional(), SMALL) == (Block("w1", 0, ("w1", "w2", "unused")),)


def test_a_model_of_normalization_alone_is_one_block():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.Flatten())
    (block,) = parameter_blocks(model, SMALL)
    assert block.norms == ("0", "1")
    assert len(block.parameters) == 4


def test_a_parametrized_layer_is_one_block():
    model = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 2))
    blocks = parameter_blocks(model, SMALL)
    assert names(blocks) == ["0", "2"]
    assert len(blocks[0].parameters) == 3
    after = randomize(model, blocks[:1])
    assert differences(model, after) == set(blocks[0].parameters)


def test_groups_are_ordered_by_execution():
    model, images = build("resnet9")
    groups = {
        "top": ["classifier"],
        "stem": ["block1", "block2.*"],
        "affine": ["residual?.*.norm"],
        "rest": ["residual*", "block?"],
    }
    blocks = parameter_blocks(model, images, groups)
    assert [(block.name, block.position) for block in blocks] == [("stem", 0), ("rest", 1), ("affine", 2), ("top", 3)]
    assert sum(len(block.parameters) for block in blocks) == len(list(model.parameters()))
    assert blocks[0].norms == ("block1.norm", "block2.norm")
    assert set(blocks[2].norms) == {f"residual{i}.block{j}.norm" for i in (1, 2) for j in (1, 2)}
    assert blocks[1].norms == ("block3.norm", "block4.norm")


def test_large_networks_are_divided_into_stages_that_have_names():
    """Of a ResNet its stages, of a ViT pairs of its blocks; every parameter is in one. Small ones stay as they are."""
    torch.manual_seed(0)
    images = torch.rand(1, 3, 16, 16)
    sizes = {"image_size": 16, "patch_size": 8, "num_layers": 12, "num_heads": 1, "hidden_dim": 4, "mlp_dim": 4}
    layers = [f"encoder.layers.encoder_layer_{first}-encoder_layer_{first + 1}" for first in range(0, 12, 2)]
    for model, expected in (
        (resnet18(), ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        (VisionTransformer(**sizes), ["conv_proj", "class_token", "encoder", *layers, "heads"]),
    ):
        blocks, stages = parameter_blocks(model, images), parameter_blocks(model, images, "stages")
        assert [stage.name for stage in stages] == expected
        assert [stage.position for stage in stages] == list(range(len(stages)))
        one, other = ([name for block in some for name in block.parameters] for some in (blocks, stages))
        assert len(blocks) > 12
        assert sorted(one) == sorted(other) == sorted(name for name, _ in model.named_parameters())
        assert {norm for block in blocks for norm in block.norms} == {norm for s in stages for norm in s.norms}
    small, pictures = ResNet9(), torch.rand(1, 3, 32, 32)
    assert parameter_blocks(small, pictures, "stages") == parameter_blocks(small, pictures)
    with pytest.raises(ValueError, match="`groups` must be one of 'stages', 'layers', got 'halves'"):
        parameter_blocks.__wrapped__(small, pictures, "halves")


def test_groups_hold_norms_without_parameters():
    model, images = build("odd")
    groups = {"output": ["last", "never*"], "middle": ["twice", "norm"], "input": ["first*", "leading*"]}
    blocks = parameter_blocks(model, images, groups)
    assert [(block.name, block.norms) for block in blocks] == [
        ("input", ("leading",)),
        ("middle", ("norm",)),
        ("output", ("never_norm",)),
    ]
    assert blocks[1].parameters == ("twice.weight", "twice.bias")


def test_tracing_leaves_everything_as_it_was():
    model, images = build("resnet9")
    model.train()
    model.block3.eval()
    before, modes = values(model), [module.training for module in model.modules()]
    model.block1.register_forward_pre_hook(hook := lambda module, args: None)
    state = torch.get_rng_state()
    parameter_blocks(model, images)
    with pytest.raises(RuntimeError):
        parameter_blocks(model, images[:, :2])
    assert not changed(before, model)
    assert [module.training for module in model.modules()] == modes
    assert [list(module._forward_pre_hooks.values()) for module in model.modules() if module._forward_pre_hooks] == [
        [hook]
    ]
    assert torch.equal(torch.get_rng_state(), state)


# Steps


def test_steps():
    a, b, c = blocks = tuple(Block(name, place, (name,)) for place, name in enumerate("abc"))
    assert steps(blocks, "cascading_from_top") == [("c", (c,)), ("b", (b, c)), ("a", (a, b, c))]
    assert steps((c, a, b), "cascading_from_bottom") == [("a", (a,)), ("b", (a, b)), ("c", (a, b, c))]
    assert steps(blocks, "independent") == [("a", (a,)), ("b", (b,)), ("c", (c,))]
    assert steps(blocks, "full") == [("all", (a, b, c))]


# Randomized models


@pytest.mark.parametrize(
    ("name", "initialization"),
    [
        pytest.param(*pair, marks=[pytest.mark.slow] * (pair in (("resnet18", "normal"), ("resnet18", "permute"))))
        for pair in product(MODELS, INITIALIZATIONS)
    ],
)
def test_all_of_the_blocks_changes_and_nothing_else(name, initialization):
    model, images = build(name)
    before, state = values(model), torch.get_rng_state()
    blocks = parameter_blocks(model, images)
    for chosen in (blocks[-1:], blocks[:1], blocks):
        after = randomize(model, chosen, initialization)
        inside = {id(model.get_parameter(parameter)) for block in chosen for parameter in block.parameters}
        expected = {n for n, p in model.named_parameters(remove_duplicate=False) if id(p) in inside}
        if initialization == "permute":  # a random order of few elements may be the old one
            expected = {n for n in expected if before[n].numel() > 4} | (changed(before, after) & expected)
        assert changed(before, after) == expected
        assert after(images).isfinite().all()
        assert not changed(before, model)
    assert torch.equal(torch.get_rng_state(), state)


@small_model
@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_seeds(name, initialization):
    model, images = build(name)
    blocks = parameter_blocks(model, images)
    first, again, other = (randomize(model, blocks, initialization, seed) for seed in (3, 3, 4))
    assert not differences(first, again)
    random = {n for n, value in first.named_parameters() if value.amin() < value.amax() and value.numel() > 4}
    assert random <= differences(first, other)
    assert len(random) >= len(blocks)


@small_model
@pytest.mark.parametrize("ordering", ["cascading_from_top", "cascading_from_bottom"])
@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_a_cascade_keeps_what_it_randomized(name, ordering, initialization):
    model, images = build(name)
    blocks = parameter_blocks(model, images)
    models = [randomize(model, chosen, initialization, seed=5) for _, chosen in steps(blocks, ordering)]
    full = randomize(model, blocks, initialization, seed=5)
    for (_, chosen), after in zip(steps(blocks, ordering), models, strict=True):
        for block in chosen:
            for parameter in block.parameters:
                assert torch.equal(after.get_parameter(parameter), full.get_parameter(parameter))
    assert not differences(models[-1], full)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_layers_of_one_shape_differ(initialization):
    layers = [nn.Linear(6, 6) for _ in range(3)]
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), *layers)
    blocks = parameter_blocks(model, SMALL)
    together = parameter_blocks(model, SMALL, {"all": ["*"]})
    for after in (randomize(model, blocks, initialization), randomize(model, together, initialization)):
        weights = [after[i].weight for i in (2, 3, 4)]
        assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_ties_hold(initialization):
    model, images = build("tied")
    for chosen in steps(parameter_blocks(model, images), "independent"):
        after = randomize(model, chosen[1], initialization)
        assert after.decoder.weight is after.encoder.weight
        assert after.decoder.weight is not model.decoder.weight


def test_own_is_what_the_modules_make_of_themselves():
    """The bound of PyTorch's initializer is 1/sqrt(fan in), for weights and biases."""
    model, images = build("cnn")
    after = randomize(model, parameter_blocks(model, images))
    for layer, fan_in in ((after.features.conv2, 25 * 32), (after.classifier.linear1, 3136)):
        bound = fan_in**-0.5
        assert layer.weight.abs().max() <= bound
        assert_close(layer.weight.std().item(), bound / math.sqrt(3), rtol=0.02, atol=0)
        assert layer.bias.abs().max() <= bound


def test_own_of_normalization_is_1_and_0():
    model, images = build("resnet9")
    for initialization in ("own", "normal"):
        norm = randomize(model, parameter_blocks(model, images), initialization).block4.norm
        assert torch.equal(norm.weight, torch.ones(256))
        assert torch.equal(norm.bias, torch.zeros(256))


def test_own_of_attention_is_xavier():
    model, images = build("attention")
    attention = randomize(model, parameter_blocks(model, images)).encoder.layers[0].self_attn
    assert attention.in_proj_weight.abs().max() <= math.sqrt(6 / (8 + 24))
    assert torch.equal(attention.in_proj_bias, torch.zeros(24))


def test_own_of_a_raw_parameter_has_its_mean_and_std():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(3 + 0.2 * torch.randn(192, 200))
            self.scale = nn.Parameter(torch.full((200,), 0.1))

        def forward(self, images):
            return images.flatten(1) @ self.weight * self.scale

    after = randomize(model := Shifted(), parameter_blocks(model, SMALL))
    assert_close(after.weight.mean().item(), 3.0, rtol=0, atol=0.01)
    assert_close(after.weight.std().item(), 0.2, rtol=0.03, atol=0)
    assert_close(
        torch.corrcoef(torch.stack([after.weight.flatten(), model.weight.flatten()]))[0, 1].item(),
        0.0,
        rtol=0,
        atol=0.03,
    )
    assert torch.equal(after.scale, model.scale), "a constant stays"


def test_normal_is_cut_off_at_two_standard_deviations():
    """The std of a normal distribution cut off at ±2 is 0.8796."""
    model, images = build("cnn")
    after = randomize(model, parameter_blocks(model, images), "normal")
    weights = after.classifier.linear1.weight
    assert weights.abs().max() <= 0.02
    assert weights.abs().max() > 0.0199
    assert_close(weights.std().item(), 0.008796, rtol=0.01, atol=0)
    assert_close(weights.mean().item(), 0.0, rtol=0, atol=1e-4)
    assert 0 < after.features.conv1.bias.abs().max() <= 0.02


def test_permutation_keeps_the_values():
    model, images = build("resnet9")
    after = randomize(model, parameter_blocks(model, images), "permute")
    for name, value in model.named_parameters():
        new = after.get_parameter(name)
        assert torch.equal(new.flatten().sort().values, value.flatten().sort().values)
        assert not torch.equal(new, value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_types_and_flags_are_kept(dtype, initialization):
    model, images = build("attention")
    model.to(dtype)
    model.head.requires_grad_(False)
    blocks = parameter_blocks(model, images.to(dtype))
    after = randomize(model, blocks, initialization)
    assert {parameter.dtype for parameter in after.parameters()} == {dtype}
    assert not after.head.requires_grad
    assert after.token.requires_grad
    assert not after.training


def test_models_made_in_inference_mode_can_be_explained():
    model, images = build("lenet")
    with torch.inference_mode():
        after = randomize(model, parameter_blocks(model, images))
    assert Gradient()(after, images, 0).abs().sum() > 0
    after(images).sum().backward()


# Batch normalization


def statistics(model):
    return {name for name in model.state_dict() if "running" in name or "num_batches" in name}


def test_reset_is_of_the_randomized_blocks():
    model, images = build("resnet9")
    blocks = parameter_blocks(model, images)
    after = randomize(model, blocks[3:5], batch_norm="reset")
    reset = {name for name in statistics(model) if name.startswith(("residual1.block2.norm", "block3.norm"))}
    assert differences(model, after) & statistics(model) == reset
    assert torch.equal(after.block3.norm.running_mean, torch.zeros(256))
    assert torch.equal(after.block3.norm.running_var, torch.ones(256))


def test_reset_reaches_norms_without_parameters():
    model, images = build("odd")
    blocks = parameter_blocks(model, images)
    inside, outside = (randomize(model, chosen, batch_norm="reset") for chosen in (blocks[:1], blocks[1:]))
    assert torch.equal(inside.norm.running_var, torch.ones(6))
    assert torch.equal(outside.norm.running_var, model.norm.running_var)


def test_recalibration_by_hand():
    """All layers, from the first on: each sees what the recalibrated ones before it make of the batch."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.Flatten()
    )
    model = trained(nn.Sequential(model, nn.Linear(80, 2))).train()  # and yet without dropout
    blocks = parameter_blocks(model, SMALL)
    after = randomize(model, blocks[-1:], batch_norm="recalibrate", images=SMALL)
    assert differences(model, after) == {"1.weight", "1.bias"} | statistics(model)
    features = SMALL
    for conv, norm in ((after[0][0], after[0][1]), (after[0][3], after[0][4])):
        features = conv(features)
        channels = features.transpose(0, 1).flatten(1)
        mean, variance = channels.mean(1), channels.var(1)
        assert_close(norm.running_mean, mean.detach())
        assert_close(norm.running_var, variance.detach())
        centered = features - mean[:, None, None]
        biased = channels.var(1, correction=0)[:, None, None]
        features = centered / (biased + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        assert norm.momentum == 0.1
        assert norm.training


def test_recalibration_does_not_draw_from_the_global_state_and_keeps_modes():
    class Noisy(nn.Module):
        def forward(self, images):
            return images + torch.randn(images.shape)

    model = nn.Sequential(Noisy(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    blocks, state = parameter_blocks(model, SMALL), torch.get_rng_state()
    first, again = (randomize(model, blocks, batch_norm="recalibrate", images=SMALL) for _ in range(2))
    assert not differences(first, again)
    assert all(module.training for module in first.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_running_twice_averages_the_runs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(192), nn.Linear(192, 2)

        def forward(self, images):
            return self.last(self.norm(self.norm(images.flatten(1))))

    model = Twice().eval()
    after = randomize(model, parameter_blocks(model, SMALL), batch_norm="recalibrate", images=SMALL)
    assert_close(after.norm.running_mean, SMALL.flatten(1).mean(0) / 2)


def test_recalibration_does_not_wait_for_other_processes(tmp_path):
    """Synchronized layers, which on a CPU cannot even try to."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        after = randomize(model, parameter_blocks(model, SMALL), "own", 0, "recalibrate", SMALL)
    finally:
        torch.distributed.destroy_process_group()
    expected = randomize(plain, parameter_blocks(plain, SMALL), "own", 0, "recalibrate", SMALL)
    assert type(after[1]) is nn.SyncBatchNorm
    assert_close(after.state_dict(), expected.state_dict())


def test_a_single_value_has_no_variance():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 2))
    with pytest.raises(ValueError, match=r"`images` must be more than one .*or take `batch_norm=\"keep\"`"):
        randomize(model, parameter_blocks(model, SMALL), batch_norm="recalibrate", images=SMALL[:1])
    assert all(module.training for module in model.modules())


# Evidence


def test_evidence_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    labels = torch.tensor([0, 1, 2, 1])
    logits = model(SMALL).detach().double()
    probabilities = logits.softmax(1)
    actual = evidence(model, SMALL, labels, max_rows=3)
    assert actual.accuracy == (logits.argmax(1) == labels).float().mean()
    assert_close(actual.entropy, float(-(probabilities * probabilities.log()).sum(1).mean()))
    assert_close(actual.activation_scale, float((logits**2).mean() ** 0.5))
    assert_close(actual.spread, float(((logits - logits.mean(0)) ** 2).mean() ** 0.5))


def test_logits_that_are_not_numbers_are_not_right():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    nn.init.constant_(model[1].weight, math.nan)
    found = evidence(model, SMALL, torch.zeros(4).long())
    assert found.accuracy == 0
    assert math.isnan(found.spread)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_spread_within_rounding_is_none(dtype):
    """Of 1e-7 of the logits; one of 1e-1 is. A single image has none to speak of."""
    model, labels = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).to(dtype), torch.tensor([0, 1, 2, 1])
    images = SMALL.to(dtype)
    nn.init.constant_(model[1].bias, 1.0)
    with torch.no_grad():
        model[1].weight.mul_(0.3)
        assert evidence(model, images, labels).spread > 0
        model[1].weight.mul_(1e-7)
    assert evidence(model, images, labels).spread == 0
    assert math.isnan(evidence(model, images[:1], labels[:1]).spread)


def test_evidence_of_a_model_that_knows_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 4)).train()
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    actual = evidence(model, SMALL, torch.zeros(4, dtype=torch.int64))
    assert (actual.accuracy, actual.activation_scale) == (1.0, 0.0)
    assert_close(actual.entropy, math.log(4))
    assert model.training


# What cannot be randomized


@pytest.fixture
def _no_type_checker(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def counting():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    model.counts = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)
    return model


def uncopyable():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    model.cache = model[1].weight * 2
    return model


class Quantized(nn.Linear):
    """Looks like one of PyTorch's quantized layers, whose packed weights are no parameters."""


Quantized.__module__ = "torch.ao.nn.quantized.modules.linear"


@pytest.mark.usefixtures("_no_type_checker")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lazy, "`model` has a parameter without a shape yet, '1.weight'; run a batch through it first"),
        (counting, "`model` must have floating-point parameters, but 'counts' is torch.int64"),
        (uncopyable, r"`model` \(Sequential\) must be one that copy.deepcopy can copy"),
        (nn.Flatten, r"`model` \(Flatten\) must have parameters, but has none"),
        (lambda: nn.Sequential(Quantized(2, 2)), "floating-point weights, but '0' is quantized"),
    ],
)
def test_models_that_cannot_be_randomized(build, message):
    model = build()
    with pytest.raises(ValueError, match=message):
        parameter_blocks(model, SMALL)
    with pytest.raises(ValueError, match=message):
        randomize(model, ())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused():
    with pytest.raises(ValueError, match="`model` must be plain modules, but '0' is TorchScript"):
        parameter_blocks(nn.Sequential(torch.jit.script(nn.Linear(3, 2))), SMALL)


@pytest.mark.usefixtures("_no_type_checker")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, b: randomize(m, b, "xavier"), ValueError, "`initialization` must be one of 'own', .*got 'xavier'"),
        (lambda m, b: randomize(m, b, batch_norm="train"), ValueError, "`batch_norm` must be one of 'keep'"),
        (lambda m, b: Randomization(("full", "top")), ValueError, "`orderings` must be one of .*, got 'top'"),
        (lambda m, b: Randomization(repeats=0), ValueError, "`repeats` must be at least 1, got 0"),
        (lambda m, b: Randomization(initialization="xavier"), ValueError, "`initialization` must be one of 'own'"),
        (lambda m, b: Randomization(batch_norm="train"), ValueError, "`batch_norm` must be one of 'keep'"),
        (lambda m, b: randomize(m, b, batch_norm="recalibrate"), ValueError, "`images` must be given for `batch_norm="),
        (
            lambda m, b: randomize(MLP(), b),
            ValueError,
            r"`blocks`: 'features.conv1' has parameters that `model` \(MLP\)",
        ),
        (lambda m, b: steps(b, "top"), ValueError, "`ordering` must be one of 'cascading_from_top'"),
        (lambda m, b: evidence(m, SMALL, torch.zeros(3)), ValueError, "one entry for each of the 4 images, got 3"),
        (lambda m, b: parameter_blocks(m, SMALL.int()), TypeError, "`inputs` must be a floating-point tensor"),
    ],
)
def test_bad_arguments(call, error, message):
    model, images = build("lenet")
    with pytest.raises(error, match=message):
        call(model, parameter_blocks(model, images))


@pytest.mark.usefixtures("_no_type_checker")
@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ({"stem": ["features"]}, ValueError, r"leave out: classifier.linear1.weight, .*classifier.linear3.bias\."),
        ({"all": ["*"], "head": ["fc*"]}, ValueError, r"of `model` for itself, but 'head' \(fc\*\) has nothing"),
        ({"head": ["fc*"]}, ValueError, r"'head' \(fc\*\) has nothing. The blocks of `model` are features.conv1, feat"),
        ({"all": "*"}, TypeError, "`groups` must map names to lists of patterns"),
    ],
)
def test_bad_groups(groups, error, message):
    with pytest.raises(error, match=message):
        parameter_blocks(*build("lenet"), groups)


def test_an_initializer_that_fails_is_named():
    class Needy(nn.Linear):
        def reset_parameters(self):
            super().reset_parameters()
            if hasattr(self, "made"):
                raise RuntimeError("no gain given")
            self.made = True

    model = nn.Sequential(nn.Flatten(), Needy(192, 3))
    blocks = parameter_blocks(model, SMALL)
    with pytest.raises(ValueError, match=r'`initialization="own"`.* Needy.reset_parameters\(\), .* no gain given'):
        randomize(model, blocks)
    assert differences(model, randomize(model, blocks, "normal")) == set(blocks[0].parameters)


def test_what_an_initializer_leaves_as_it_was_is_drawn_all_the_same():
    class Partial(nn.Linear):
        def reset_parameters(self):
            nn.init.uniform_(self.weight, 5, 6)

    model = nn.Sequential(nn.Flatten(), Partial(192, 30))
    nn.init.normal_(model[1].bias, 7, 0.1)
    after = randomize(model, parameter_blocks(model, SMALL))[1]
    assert after.weight.min() >= 5
    assert not torch.equal(after.bias, model[1].bias)
    assert_close(after.bias.mean().item(), 7.0, rtol=0, atol=0.1)


def test_a_model_that_uses_no_parameter():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, images):
            return images.flatten(1)

    with pytest.raises(ValueError, match="`model` used none of its parameters"):
        parameter_blocks(Constant(), SMALL)
