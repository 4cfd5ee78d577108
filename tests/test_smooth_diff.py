"""SmoothDiff: slow transcriptions on tiny networks, closed forms, and what it refuses."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import (
    AbsoluteScale,
    Context,
    Gradient,
    InRangeScale,
    IntegratedGradients,
    PerturbWeights,
    RangeScale,
    Smooth,
    SmoothDiff,
)
from lightning_xai.explainers.smooth_diff import ELEMENTWISE
from lightning_xai.functional.random import standard_normal
from lightning_xai.networks import LeNet, ResNet9
from tests.test_laws_state import FLOAT32, TOLERANCES, named
from tests.zoo import CLASSES, RANDOM, REFUSED, ZOO, Net, build

IMAGES = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
TARGET = torch.tensor([2, 0, 1])
STD, DRAWS = 0.4, 7


def context(**options: Any) -> Context:
    return Context.create(torch.tensor([4, 0, 7]), seed=5, bounds=(-0.6, 0.9), **options)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = make().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(1))
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return model


def noisy() -> Tensor:
    """The draws, (draw, batch, ...), from the keys."""
    draws = [standard_normal(context().branch(torch.tensor([k])).keys, IMAGES.shape[1:]) for k in range(DRAWS)]
    return IMAGES + STD * torch.stack(draws).double()


class Copy(nn.Module):
    """For layers that work in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def product_of_mean_jacobians(model: nn.Sequential) -> Tensor:
    """Layer by layer, one image at a time: the mean over the draws of each layer's Jacobian, multiplied."""
    maps = []
    for number, target in enumerate(TARGET.tolist()):
        rows, product = noisy()[:, number], torch.eye(IMAGES[0].numel(), dtype=torch.float64)
        for layer in model:
            on_copies = nn.Sequential(Copy(), layer)
            jacobians = [torch.autograd.functional.jacobian(on_copies, row[None]) for row in rows]
            outputs = layer(rows.clone()).detach()
            product = torch.stack([j.reshape(outputs[0].numel(), -1) for j in jacobians]).mean(0) @ product
            rows = outputs
        maps.append(product[target].view(IMAGES.shape[1:]))
    return torch.stack(maps)


def body(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(CLASSES))


def tiny(*layers: Callable[[], nn.Module]) -> nn.Module:
    def make() -> nn.Module:
        model = body(*(layer() for layer in layers))
        model(IMAGES.float())
        return model

    return seeded(make)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: seeded(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, CLASSES)
        )
    ),
    "convolutions": lambda: tiny(
        lambda: nn.BatchNorm2d(4), nn.ReLU, lambda: nn.MaxPool2d(2), lambda: nn.Conv2d(4, 3, 2), nn.ReLU
    ),
    "in place": lambda: tiny(lambda: nn.ReLU(inplace=True), lambda: nn.AvgPool2d(2), lambda: nn.ReLU6(inplace=True)),
    "overlapping windows": lambda: tiny(nn.Tanh, lambda: nn.MaxPool2d(3, 2, 1), nn.ReLU, lambda: nn.MaxPool2d(2, 1)),
    "dilated windows": lambda: tiny(nn.ReLU, lambda: nn.MaxPool2d((2, 3), 1, (0, 1), (3, 2))),
    "cut windows": lambda: tiny(nn.ReLU, lambda: nn.MaxPool2d((4, 3), (3, 4), ceil_mode=True)),
    "dropout": lambda: tiny(nn.GELU, nn.Dropout, nn.Identity, nn.SiLU, lambda: nn.AdaptiveAvgPool2d(2)),
    **{
        kind.__name__: lambda kind=kind: tiny(kind, lambda: nn.Conv2d(4, 3, 2), kind)  # type: ignore[misc]
        for kind in ELEMENTWISE[2:]
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_map_is_the_product_of_mean_jacobians(name: str) -> None:
    model = NETWORKS[name]()
    expected = product_of_mean_jacobians(model)
    for max_rows in (None, 1, 4):
        found = SmoothDiff(AbsoluteScale(STD), DRAWS)(model, IMAGES, TARGET, context(max_rows=max_rows))
        assert_close(found, expected, rtol=1e-9, atol=1e-12)
    smooth = Smooth(Gradient(), AbsoluteScale(STD), DRAWS)(model, IMAGES, TARGET, context())
    assert not torch.allclose(found, smooth, rtol=1e-3)


def test_of_a_multilayer_perceptron_by_masks() -> None:
    """W3 diag(mean mask) W2 diag(mean mask) W1."""
    model: Any = NETWORKS["mlp"]()
    first, second, third = (model[k].weight.detach() for k in (1, 3, 5))
    before = model[1](noisy().flatten(2))
    masks = [(h > 0).double().mean(0) for h in (before, model[3](before.relu()))]
    rows = torch.einsum("bh,bh,hg,bg,gi->bi", third[TARGET], masks[1], second, masks[0], first)
    found = SmoothDiff(AbsoluteScale(STD), DRAWS)(model, IMAGES, TARGET, context())
    assert_close(found.flatten(1), rows, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [RangeScale(), InRangeScale(), AbsoluteScale(0.5)], ids=lambda s: type(s).__name__)
def test_with_one_nonlinear_layer_it_is_smooth_grad(scale: Any) -> None:
    for model in (tiny(nn.ReLU), tiny(lambda: nn.MaxPool2d(2)), tiny(lambda: nn.BatchNorm2d(4))):
        expected = Smooth(Gradient(), scale, DRAWS)(model, IMAGES, TARGET, context())
        assert_close(SmoothDiff(scale, DRAWS)(model, IMAGES, TARGET, context()), expected)


def test_of_a_linear_network_it_is_the_weight_row() -> None:
    model: Any = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 3)))
    expected = model[1].weight.detach()[TARGET].view_as(IMAGES)
    assert_close(SmoothDiff()(model, IMAGES, TARGET, context()), expected, rtol=0, atol=0)


class Residual(nn.Module):
    """One ReLU for three calls, and a sum around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.relu = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.relu(input=self.inner(x)) + x)
        return self.head(x.flatten(1))


def test_a_residual_network_with_one_rectifier_called_thrice() -> None:
    model: Any = seeded(Residual)
    x = noisy()
    maps: list[Tensor] = []
    for k, target in enumerate(TARGET.tolist()):
        one = model.stem(x[:, k])
        two = model.inner(one.relu())
        three = two.relu() + one.relu()
        m1, m2, m3 = ((h > 0).double().mean(0) for h in (one, two, three))
        leaf = IMAGES[k : k + 1].clone().requires_grad_()
        h = m1 * F.conv2d(leaf, model.stem.weight)
        h = m3 * (m2 * F.conv2d(h, model.inner.weight, padding=1) + h)
        maps.append(torch.autograd.grad((h.flatten(1) @ model.head.weight[target]).sum(), leaf)[0][0])
    found = SmoothDiff(AbsoluteScale(STD), DRAWS)(model, IMAGES, TARGET, context())
    assert_close(found, torch.stack(maps), rtol=1e-9, atol=1e-12)


def test_it_composes() -> None:
    """With noise on the weights, along a path, and inside of another smoother."""
    model = NETWORKS["mlp"]()
    method = PerturbWeights(SmoothDiff(AbsoluteScale(STD), DRAWS), 0.2, 2)
    maps = []
    for number in range(2):
        twin = NETWORKS["mlp"]()
        twin.load_state_dict(method.noisy_weights(model, context().model_seed(number)))
        maps.append(method.explainer(twin, IMAGES, TARGET, context().model_draw(number)))
    assert_close(method(model, IMAGES, TARGET, context()), torch.stack(maps).mean(0))
    for outer in (lambda m: IntegratedGradients(m, 0.0, 3), lambda m: Smooth(m, AbsoluteScale(0.0), 2)):
        still = outer(SmoothDiff(AbsoluteScale(0.0), 2))(model, IMAGES, TARGET, context())
        assert_close(still, outer(Gradient())(model, IMAGES, TARGET, context()))


@pytest.mark.parametrize("make", [LeNet, lambda: ResNet9(1)], ids=["LeNet", "ResNet9"])
def test_in_single_precision_and_bfloat16(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, images = make().eval(), torch.rand(2, 1, 28, 28) if make is LeNet else torch.rand(2, 1, 32, 32)
    method = SmoothDiff(AbsoluteScale(0.1), 3)
    wide = lx.explain(model.double(), images.double(), 0, method)
    assert_close(lx.explain(model.float(), images, 0, method).double(), wide, rtol=1e-3, atol=1e-4 * wide.abs().max())
    half = lx.explain(model, images, 0, method, precision="bf16-mixed")
    assert torch.nn.functional.cosine_similarity(half.flatten(1), wide.flatten(1).float()).min() > 0.9


def test_its_cost_is_one_gradient_and_its_noise_is_told() -> None:
    model, images = NETWORKS["mlp"]().float(), IMAGES.float()
    scores = lx.evaluate(model, images, TARGET, {"sd": SmoothDiff(num_draws=9)}, {}, bounds=(-0.6, 0.9)).scores["sd"]
    assert scores["gradients"].tolist() == [1, 1, 1]
    assert_close(SmoothDiff().noise_std(images, context()), RangeScale()(images, context()))


# Networks of others


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_without_noise_it_is_the_gradient_or_the_network_is_refused(name: str) -> None:
    model, x = build(name)
    target = torch.arange(len(x)) % CLASSES
    try:
        found = lx.explain(model, x, target, SmoothDiff(AbsoluteScale(0.0), 2))
    except Exception as error:
        if not named(error):
            raise
        return
    assert name not in REFUSED
    if name not in RANDOM:
        expected = lx.explain(build(name)[0], x, target, Gradient())
        assert_close(found, expected, **TOLERANCES.get(name, FLOAT32))


def doubling(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
    return 2 * output.abs()


class Softer(nn.ReLU):
    """Another function under the name of a known one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


def net(function: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> nn.Module:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(function(net, net.stem(x.flatten(1))))

    return Net(forward, stem=nn.Linear(72, 8), head=nn.Linear(8, CLASSES), **parts)


UNKNOWN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "functional": (lambda: net(lambda net, h: F.relu(h)), "relu in Net"),
    "one functional": (lambda: net(lambda net, h: net.relu(h).relu(), relu=nn.ReLU()), "relu in Net"),
    "clamp": (lambda: net(lambda net, h: h.clamp(min=0)), "clamp in Net"),
    "mask": (lambda: net(lambda net, h: h * (h > 0)), "mul in Net"),
    "gate": (lambda: net(lambda net, h: h * net.gate(h), gate=nn.Sigmoid()), "mul in Net"),
    "layer norm": (lambda: net(lambda net, h: net.norm(h), norm=nn.LayerNorm(8)), r'layer_norm in "norm" \(Lay'),
    "another layer": (lambda: net(lambda net, h: net.act(h), act=nn.Hardswish()), r'hardswish in "act" \(Hardswish\)'),
    "subclass": (lambda: net(lambda net, h: net.act(h), act=Softer()), r'softplus in "act" \(Softer\)'),
    "shrinking": (lambda: net(lambda net, h: net.act(h), act=nn.Hardshrink()), r'hardshrink in "act" \(Hardshrink\)'),
    "shrinking little": (lambda: net(lambda net, h: F.hardshrink(h, 1e-3)), "hardshrink in Net"),
    "softshrink": (lambda: net(lambda net, h: F.softshrink(h, 0.1)), "softshrink in Net"),
    "softmax": (lambda: net(lambda net, h: net.act(h), act=nn.Softmax(1)), r'softmax in "act" \(Softmax\)'),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_nonlinear_functions_are_refused_by_name(name: str) -> None:
    make, told = UNKNOWN[name]
    with pytest.raises(ValueError, match=f"`model` must apply its nonlinear functions as modules .* for .*{told}"):
        SmoothDiff(num_draws=2)(make(), IMAGES.float(), 0)


def test_a_function_that_comes_later_is_seen() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    SmoothDiff(num_draws=2)(model, IMAGES.float(), 0)
    applied = "`model` must apply its nonlinear functions as modules"
    for module, told in ((model[2], r'`model` has hooks, .* in "2" \(ReLU\)'), (model[1], applied)):
        handle = module.register_forward_hook(doubling)
        with pytest.raises(ValueError, match=told):
            SmoothDiff(num_draws=2)(model, IMAGES.float(), 0)
        handle.remove()


def test_pooling_without_channels_is_refused() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(CLASSES))
    images = torch.rand(2, 6, 6)
    model(images)
    with pytest.raises(ValueError, match=r"nn.MaxPool2d \(batch, channel, height, width\) .* got shape \(\d, 6, 6\)"):
        SmoothDiff(num_draws=2)(model, images, 0)


def test_rows_that_are_not_in_front_are_refused() -> None:
    model = net(lambda net, h: net.act(h.T).T, act=nn.ReLU())
    with pytest.raises(ValueError, match="`model` must keep its rows in front"):
        SmoothDiff(num_draws=2)(model, IMAGES.float(), 0)


class Deciding(nn.Module):
    """Looks at its input before it calls a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.ReLU(), nn.Tanh(), nn.Linear(72, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head(self.second(x) if x.sum().item() > 0 else self.first(x))


def test_layers_that_are_called_sometimes_are_refused() -> None:
    with pytest.raises(ValueError, match="`model` must call the same nonlinear layers in each of its passes"):
        SmoothDiff(AbsoluteScale(1.0), num_draws=40)(Deciding(), IMAGES.float(), 0, context(max_rows=3))


def test_no_draws() -> None:
    with pytest.raises(ValueError, match="`num_draws` must be at least 1, got 0"):
        SmoothDiff(num_draws=0)


# Memory


class Small(nn.Module):
    """A network that has no memory for more than `room` rows."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.network, self.room = NETWORKS["convolutions"](), room

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.network[:3](x)
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.network[3:](hidden)


@pytest.mark.parametrize("room", [1, 2, 5])
def test_a_pass_that_does_not_fit_is_not_counted(room: int) -> None:
    method = SmoothDiff(AbsoluteScale(STD), DRAWS)
    found, expected = (method(Small(rows), IMAGES, TARGET, context()) for rows in (room, 1000))
    assert_close(found, expected)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_draws() -> None:
    """The elements of the tensors that are alive at any pass, at 10 and at 80 draws."""

    def peak(draws: int) -> int:
        alive: list[int] = []

        def census(model: Any, x: Tensor) -> Tensor:
            tensors = (value for value in gc.get_objects() if type(value) is Tensor)
            alive.append(sum(value.numel() for value in tensors))
            return model.network(x)

        SmoothDiff(num_draws=draws)(Net(census, network=NETWORKS["mlp"]()), IMAGES, 0, context(max_rows=12))
        assert len(alive) >= draws // 4
        return max(alive)

    assert peak(80) - peak(10) < 500  # the numbers of the draws
