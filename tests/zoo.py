"""Awkward networks: each is a few lines, is found in real repositories, and has one thing that breaks explainers.

Every public function makes a network and a batch that it takes; its docstring says what is awkward. `build` calls one
by name with fixed weights, so that two calls give two equal networks, also where `copy.deepcopy` fails.
"""

import random
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from inspect import isfunction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.checkpoint import checkpoint
from torchmetrics import Accuracy, MeanMetric, MetricCollection

Animal = tuple[nn.Module, Tensor]

SIDE, PIXELS, WIDTH, CLASSES, ROWS = 6, 36, 8, 4, 3


class Net(nn.Module):
    """A module whose forward is a function of itself and the input; what else it is given becomes its attributes."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **attributes: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Before(nn.Module):
    """Something that happens to the input in front of a plain network."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], body: nn.Module, **attributes: Any) -> None:
        super().__init__()
        self.function, self.body = function, body
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.function(self, x))


def images(rows: int = ROWS, channels: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random images in [0, 1]; no two pixels are equal, so that nothing hangs on ties."""
    return torch.rand(rows, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(dtype)


def dense(channels: int = 1) -> nn.Sequential:
    """A plain smooth network."""
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS * channels, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))


def convolutional(channels: int = 1) -> nn.Sequential:
    """A plain network that all methods take: maps with extent, and rectifiers that are modules."""
    body = nn.Sequential(nn.Conv2d(channels, WIDTH, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return body.append(nn.Linear(4 * WIDTH, CLASSES))


# Sharing


def block_under_two_names() -> Animal:
    """Weight sharing by module: PyTorch's functional_call does not put it back (pytorch/pytorch#164759)."""
    block = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())
    stem, head = nn.Conv2d(1, WIDTH, 1), nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(PIXELS * WIDTH, CLASSES))
    return Net(
        lambda net, x: net.head(net.again(net.first(net.stem(x)) + 1)), stem=stem, first=block, again=block, head=head
    ), images()


def head_that_is_a_part() -> Animal:
    """`self.head = self.net[3]`, so that the head can be found under a name of its own."""
    net = dense()
    return Net(lambda net, x: net.net(x), net=net, head=net[3]), images()


def list_with_one_block_twice() -> Animal:
    """Recurrent depth, as in ALBERT."""
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())

    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.stem(x.flatten(1))
        for layer in net.layers:
            h = layer(h)
        return net.head(h)

    layers = nn.ModuleList([block, block])
    return Net(forward, stem=nn.Linear(PIXELS, WIDTH), layers=layers, head=nn.Linear(WIDTH, CLASSES)), images()


def shared_recurrent_network() -> Animal:
    """An LSTM under two names: its flat list of weights goes astray if it is put back twice."""
    lstm = nn.LSTM(SIDE, WIDTH, batch_first=True)
    return Net(
        lambda net, x: net.head(net.down(x[:, 0])[0][:, -1] + net.across(x[:, 0].mT)[0][:, -1]),
        down=lstm,
        across=lstm,
        head=nn.Linear(WIDTH, CLASSES),
    ), images()


def tied_parameter() -> Animal:
    """Two modules with one Parameter."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, PIXELS), nn.Tanh(), nn.Linear(PIXELS, PIXELS), nn.Tanh())
    net[3].weight = net[1].weight
    return net.append(nn.Linear(PIXELS, CLASSES)), images()


def parameter_under_two_names() -> Animal:
    """One module has one Parameter twice."""
    scale = nn.Parameter(torch.tensor(1.5))
    return Before(lambda net, x: net.gain * x + net.offset, dense(), gain=scale, offset=scale), images()


def tied_transposed() -> Animal:
    """A decoder that uses the encoder's weight, transposed."""
    return Net(
        lambda net, x: net.head(F.linear(torch.tanh(net.encoder(x.flatten(1))), net.encoder.weight.T)),
        encoder=nn.Linear(PIXELS, WIDTH),
        head=nn.Linear(PIXELS, CLASSES),
    ), images()


def part_that_knows_its_whole() -> Animal:
    """A submodule that keeps its parent in a list, so that it is not registered."""
    net = Net(lambda net, x: net.part(x), part=Net(lambda part, x: part.whole[0].body(x)), body=dense())
    net.part.whole = [net]
    return net, images()


def modules_in_a_plain_list() -> Animal:
    """Modules that PyTorch does not see, with modes and buffers of their own; common by mistake, and for EMA copies."""
    return Before(lambda net, x: net.hidden[0](x), dense(), hidden=[nn.BatchNorm2d(1).eval()]), images()


# State that a forward pass changes


def counts_forwards() -> Animal:
    """A buffer that counts."""
    net = dense()
    net.register_buffer("forwards", torch.zeros((), dtype=torch.int64))

    def count(module: nn.Module, arguments: Any) -> None:
        module.forwards += 1  # type: ignore[operator]

    net.register_forward_pre_hook(count)
    return net, images()


def rebinds_a_buffer() -> Animal:
    """A moving average as many write it: a new tensor each time."""

    def note(net: Any, x: Tensor) -> Tensor:
        net.average = 0.9 * net.average + 0.1 * x.detach().mean()
        return x

    net = Before(note, dense())
    net.register_buffer("average", torch.zeros(()))
    return net, images()


def adds_a_buffer() -> Animal:
    """A buffer, and an attribute, that the first forward pass registers."""

    def note(net: Any, x: Tensor) -> Tensor:
        if not hasattr(net, "grid"):
            net.register_buffer("grid", torch.linspace(0, 1, SIDE))
            net.made_for = x.shape[-1]
        return x + net.grid

    return Before(note, dense()), images()


def cache_in_an_attribute() -> Animal:
    """Rotary tables and the like: None until the first pass."""

    def cached(net: Any, x: Tensor) -> Tensor:
        if net.table is None:
            net.table = torch.linspace(0, 1, SIDE).cos().to(x)
        return x * net.table

    return Before(cached, dense(), table=None), images()


def cache_that_grows() -> Animal:
    """Rotary tables and the length that they are for: one must not come back without the other."""

    def cached(net: Any, x: Tensor) -> Tensor:
        if x.shape[-1] > net.longest:
            net.longest, net.table = x.shape[-1], torch.linspace(0, 1, x.shape[-1]).cos()
        return x * net.table[: x.shape[-1]]

    return Before(cached, dense(), longest=0, table=None), images()


def cache_by_length() -> Animal:
    """Tables in a dict, one for each length of the input."""

    def cached(net: Any, x: Tensor) -> Tensor:
        table = net.tables.setdefault(x.shape[-1], torch.linspace(0, 1, x.shape[-1]).cos())
        return x * table

    return Before(cached, dense(), tables={}), images()


def table_cached_with_its_graph() -> Animal:
    """A table of a Parameter that is computed once: stale under noisy weights, and its graph is gone after a pass."""

    def cached(net: Any, x: Tensor) -> Tensor:
        if net.table is None:
            net.table = torch.sigmoid(net.raw)
        return x * net.table

    return Before(cached, dense(), raw=nn.Parameter(torch.randn(SIDE)), table=None), images()


def features_kept() -> Animal:
    """Keeps its activations as an attribute, and a history of them."""

    def keep(net: Any, x: Tensor) -> Tensor:
        net.features = x * 2
        net.history.append(net.features.mean())
        return net.features

    return Before(keep, dense(), features=None, history=[]), images()


def python_counters() -> Animal:
    """An int, a float, a bool and a string that change."""

    def count(net: Any, x: Tensor) -> Tensor:
        net.calls += 1
        net.seen["rows"] = net.seen.get("rows", 0) + len(x)
        net.mean, net.warm, net.last = float(x.detach().mean()), True, str(tuple(x.shape))
        return x

    return Before(count, dense(), calls=0, seen={}, mean=0.0, warm=False, last=""), images()


def metrics_inside() -> Animal:
    """torchmetrics that forward updates: buffers, lists, counters and flags."""

    def score(net: Any, x: Tensor) -> Tensor:
        logits = net.body(x)
        net.accuracy.update(logits.detach(), torch.zeros(len(x), dtype=torch.int64))
        net.several.update(logits.detach().mean())
        net.values(logits.detach().mean())
        return logits

    return Net(
        score,
        body=dense(),
        accuracy=Accuracy("multiclass", num_classes=CLASSES),
        several=MetricCollection({"mean": MeanMetric()}),
        values=MeanMetric(),
    ), images()


def generator_inside() -> Animal:
    """Noise from a generator that the module owns."""
    return Before(
        lambda net, x: x + 0.1 * torch.rand(x.shape, generator=net.generator),
        dense(),
        generator=torch.Generator().manual_seed(3),
    ), images()


def stateful_lstm() -> Animal:
    """Keeps its hidden state, of the batch's size, from call to call; the first call starts from zeros."""

    def forward(net: Any, x: Tensor) -> Tensor:
        out, hidden = net.lstm(x[:, 0], net.hidden)
        net.hidden = tuple(part.detach() for part in hidden)
        return net.head(out[:, -1])

    return Net(
        forward, lstm=nn.LSTM(SIDE, WIDTH, batch_first=True), head=nn.Linear(WIDTH, CLASSES), hidden=None
    ), images()


def momentum_copy() -> Animal:
    """An EMA copy as a submodule that forward moves towards the network, as in MoCo."""

    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            for slow, fast in zip(net.slow.parameters(), net.fast.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        return net.fast(x)

    slow = dense()
    return Net(forward, fast=dense(), slow=slow.requires_grad_(False)), images()


def takes_its_cache_away() -> Animal:
    """An attribute that a pass deletes, and another one makes."""

    def forward(net: Any, x: Tensor) -> Tensor:
        if "ready" in vars(net):
            del net.ready
        else:
            net.ready = x.sum()
        return x

    return Before(forward, dense(), ready=torch.ones(3)), images()


def initializes_itself() -> Animal:
    """ActNorm: the first batch sets the weights, also in evaluation mode."""

    def forward(net: Any, x: Tensor) -> Tensor:
        if not net.initialized:
            net.shift.data.copy_(x.detach().mean())
            net.scale.data.copy_(x.detach().std())
            net.initialized.fill_(True)
        return (x - net.shift) / net.scale

    net = Before(forward, dense(), shift=nn.Parameter(torch.zeros(())), scale=nn.Parameter(torch.ones(())))
    net.register_buffer("initialized", torch.tensor(False))
    return net, images()


def builds_itself() -> Animal:
    """A layer that the first pass makes, with random weights."""

    def forward(net: Any, x: Tensor) -> Tensor:
        if not hasattr(net, "layer"):
            net.layer = nn.Linear(x.shape[-1], SIDE)
        return net.layer(x)

    return Before(forward, dense()), images()


def rebinds_a_parameter() -> Animal:
    """A new Parameter in each pass: the optimizer still holds the old one."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.scale = nn.Parameter(net.scale.detach().clamp(0, 1))
        return x * net.scale

    return Before(forward, dense(), scale=nn.Parameter(torch.tensor(1.5))), images()


def freezes_itself() -> Animal:
    """Forward changes which weights require a gradient."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.body.requires_grad_(False)
        return x

    return Before(forward, dense()), images()


def hooks_itself() -> Animal:
    """Every pass leaves one hook more."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.body[1].register_forward_hook(lambda module, arguments, output: None)
        return x

    return Before(forward, dense()), images()


def leaves_gradients() -> Animal:
    """A backward pass within forward, as test-time training has: it leaves `.grad` on the weights."""

    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            net.body(x.detach()).square().sum().backward()
        return x

    return Before(forward, dense()), images()


def adapts_itself() -> Animal:
    """Test-time adaptation, as in Tent: every pass takes a step that keeps the weights."""

    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            net.body(x.detach()).softmax(1).square().sum().backward()
        for weight in net.body.parameters():
            weight.data -= 0.1 * weight.grad
            weight.grad = None
        return net.body(x)

    return Net(forward, body=dense()), images()


def fake_quantized() -> Animal:
    """Quantization-aware training: observers go on in evaluation mode, and resize their buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize = torch.ao.quantization.FakeQuantize()
    return nn.Sequential(quantize, *dense()), images()


# Random numbers


def dropout_always_on() -> Animal:
    """F.dropout without `training`: it never stops."""
    return Before(lambda net, x: F.dropout(x, 0.3), convolutional()), images()


def draws_from_torch() -> Animal:
    """Noise and stochastic depth, also in evaluation mode."""
    return Before(lambda net, x: x + torch.rand_like(x) if torch.rand(()) < 0.5 else x, dense()), images()


def draws_from_numpy() -> Animal:
    """NumPy's global state."""
    return Before(lambda net, x: x * float(np.random.rand()), dense()), images()  # noqa: NPY002


def draws_from_python() -> Animal:
    """Python's global state."""
    return Before(lambda net, x: x * random.random(), dense()), images()


def seeds_everything() -> Animal:
    """A forward that seeds the global states, "for reproducibility"."""

    def seeded(net: Any, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        return x + 0.1 * torch.randn(x.shape[1:])

    return Before(seeded, dense()), images()


def noisy_attention() -> Animal:
    """Attention with its own dropout on, as Monte Carlo dropout wants it."""

    def attend(net: Any, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.2)

    return Before(attend, dense()), images()


# Training modes


def trains_itself() -> Animal:
    """Forward sets the mode of a part: Monte Carlo dropout again."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.drop.train()
        return net.drop(x)

    return Before(forward, dense(), drop=nn.Dropout(0.3)), images()


def evaluates_itself() -> Animal:
    """A backbone that forward puts into evaluation mode each time, as DETR-like repositories do."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.eval()
        return net.norm(x)

    return Before(forward, dense(), norm=nn.BatchNorm2d(1)), images()


class _Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.body = nn.BatchNorm2d(1), dense()

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.norm(x))


def overrides_train() -> Animal:
    """`train` keeps batch normalization frozen, and returns nothing."""
    return _Frozen(), images()


class _Merging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.low, self.high = nn.Linear(PIXELS, CLASSES), nn.Linear(PIXELS, 2), nn.Linear(2, CLASSES)
        self.merged = False

    def train(self, mode: bool = True) -> "_Merging":
        super().train(mode)
        if self.merged == mode:  # LoRA: the update is part of the weight while it does not learn
            sign = -1 if mode else 1
            self.base.weight.data += sign * self.high.weight.data @ self.low.weight.data
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.base(x) if self.merged else self.base(x) + F.linear(x, self.high.weight @ self.low.weight)


def merges_in_evaluation() -> Animal:
    """Changing modes rewrites weights, as in LoRA and RepVGG."""
    return _Merging(), images()


# Computed weights


def weight_norm_old() -> Animal:
    """The old weight_norm: `weight` is no Parameter, and is rewritten by a forward pre-hook."""
    net = dense()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net[1] = nn.utils.weight_norm(net[1])
    return net, images()


def spectral_norm_old() -> Animal:
    """The old spectral_norm, on a convolution; buffers move in training mode."""
    net = convolutional()
    net[0] = nn.utils.spectral_norm(net[0])
    return net, images()


def pruned() -> Animal:
    """Pruned twice: `weight` is the product of a Parameter and a buffer."""
    net = dense()
    prune.l1_unstructured(net[1], "weight", 0.3)
    prune.random_unstructured(net[1], "weight", 0.2)
    return net, images()


def weight_norm_parametrized() -> Animal:
    """torch.nn.utils.parametrizations."""
    net = dense()
    net[1] = parametrizations.weight_norm(net[1])
    return net, images()


def spectral_norm_parametrized() -> Animal:
    """A parametrization with buffers, which move in training mode."""
    net = dense()
    net[1] = parametrizations.spectral_norm(net[1])
    return net, images()


def orthogonal_parametrized() -> Animal:
    """A parametrization by a matrix exponential."""
    net = dense()
    net[3] = parametrizations.orthogonal(net[3])
    return net, images()


class _Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT


def parametrized_and_shared() -> Animal:
    """A parametrized layer that is used under two names."""
    layer = nn.Linear(PIXELS, PIXELS)
    register_parametrization(layer, "weight", _Symmetric())
    return Net(
        lambda net, x: net.head(net.two(torch.tanh(net.one(x.flatten(1))))),
        one=layer,
        two=layer,
        head=nn.Linear(PIXELS, CLASSES),
    ), images()


def hypernetwork() -> Animal:
    """Weights that another network makes of the input."""
    return Net(
        lambda net, x: torch.einsum("bp, bcp -> bc", x.flatten(1), net.maker(x).unflatten(1, (CLASSES, PIXELS))),
        maker=nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES * PIXELS)),
    ), images()


def sets_a_weight_in_forward() -> Animal:
    """Standardized weights, written to the plain attribute `weight` of a layer in each pass."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.body[1].weight = net.raw - net.raw.mean(1, keepdim=True)
        return x

    net = Before(forward, dense(), raw=nn.Parameter(torch.randn(WIDTH, PIXELS) / 6))
    del net.body[1].weight
    net.body[1].weight = None
    return net, images()


def weight_dropped_lstm() -> Animal:
    """AWD-LSTM: forward puts a computed tensor among the LSTM's parameters."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.lstm._parameters["weight_hh_l0"] = F.dropout(net.raw, 0.5, net.training)
        net.lstm._flat_weights = [net.lstm._parameters[name] for name in net.lstm._flat_weights_names]
        return net.head(net.lstm(x[:, 0])[0][:, -1])

    lstm = nn.LSTM(SIDE, WIDTH, batch_first=True)
    raw = nn.Parameter(lstm.weight_hh_l0.detach().clone())
    return Net(forward, lstm=lstm, raw=raw, head=nn.Linear(WIDTH, CLASSES)), images()


def clamps_its_weights() -> Animal:
    """Writes its own weights in forward."""

    def clamp(net: Any, x: Tensor) -> Tensor:
        net.body[1].weight.data.clamp_(-0.05, 0.05)
        return x

    return Before(clamp, dense()), images()


def renews_its_weights() -> Animal:
    """`weight.data = normalize(weight.data)`, as in NormFace and ArcFace."""

    def normalize(net: Any, x: Tensor) -> Tensor:
        net.body[3].weight.data = F.normalize(net.body[3].weight.data)
        return x

    return Before(normalize, dense()), images()


def embedding_with_max_norm() -> Animal:
    """nn.Embedding with `max_norm` renormalizes the rows that it looks up, in place."""

    def add(net: Any, x: Tensor) -> Tensor:
        return x + net.places(torch.arange(SIDE))

    return Before(add, dense(), places=nn.Embedding(SIDE, SIDE, max_norm=0.5)), images()


def equalized() -> Animal:
    """Weights scaled where they are used, as in StyleGAN."""
    return Net(
        lambda net, x: F.linear(x.flatten(1), net.weight * net.gain, net.bias),
        weight=nn.Parameter(torch.randn(CLASSES, PIXELS)),
        bias=nn.Parameter(torch.zeros(CLASSES)),
        gain=PIXELS**-0.5,
    ), images()


# Odd parameters


def boolean_parameter() -> Animal:
    """A mask that is a Parameter."""
    mask = nn.Parameter(torch.rand(SIDE, SIDE) < 0.8, requires_grad=False)
    return Before(lambda net, x: x * net.mask, dense(), mask=mask), images()


def integer_parameters() -> Animal:
    """Indices, and a level of quantization, as Parameters."""
    order = nn.Parameter(torch.randperm(SIDE), requires_grad=False)
    level = nn.Parameter(torch.tensor(3, dtype=torch.uint8), requires_grad=False)
    return Before(lambda net, x: x[..., net.order] * net.level, dense(), order=order, level=level), images()


def complex_parameter() -> Animal:
    """A filter of waves, as in Fourier neural operators."""
    waves = nn.Parameter(torch.randn(SIDE, SIDE // 2 + 1, dtype=torch.complex64))
    return Before(lambda net, x: torch.fft.irfft2(torch.fft.rfft2(x) * net.waves), dense(), waves=waves), images()


def empty_and_scalar_parameters() -> Animal:
    """A Parameter without elements, and one without axes."""
    empty, scale = nn.Parameter(torch.empty(0, 3)), nn.Parameter(torch.tensor(0.7))
    return Before(lambda net, x: x * net.scale + net.empty.sum(), dense(), empty=empty, scale=scale), images()


def frozen_parameters() -> Animal:
    """A frozen backbone, frozen by `requires_grad`."""
    net = dense()
    net[1].requires_grad_(False)
    return net, images()


def strided_parameter() -> Animal:
    """A weight that is not contiguous, and one that shares its storage with another."""
    net, storage = dense(), torch.randn(2, WIDTH, CLASSES) / 3
    net[3].weight = nn.Parameter(storage[0].T)
    return Net(lambda net, x: net.body(x) + net.other.sum(1), body=net, other=nn.Parameter(storage[1].T)), images()


def channels_last_weights() -> Animal:
    """`model.to(memory_format=torch.channels_last)`."""
    return convolutional(2).to(memory_format=torch.channels_last), images(channels=2)


class _Labelled(nn.Parameter):
    """A subclass of Parameter, as quantization tools have."""


def parameter_of_a_subclass() -> Animal:
    """Its class must come back."""
    net = dense()
    net[1].weight = _Labelled(net[1].weight.detach())
    return net, images()


def parameter_lists() -> Animal:
    """ParameterList and ParameterDict."""
    weights = nn.ParameterList([torch.randn(PIXELS, WIDTH) / 6, torch.randn(WIDTH, CLASSES)])
    offsets = nn.ParameterDict({"in": torch.randn(WIDTH), "out": torch.randn(CLASSES)})
    return Net(
        lambda net, x: (
            torch.tanh(x.flatten(1) @ net.weights[0] + net.offsets["in"]) @ net.weights[1] + net.offsets["out"]
        ),
        weights=weights,
        offsets=offsets,
    ), images()


def parameter_in_a_plain_list() -> Animal:
    """A Parameter that PyTorch does not see: it gets no noise."""
    return Before(lambda net, x: x * net.gains[0], dense(), gains=[nn.Parameter(torch.rand(SIDE))]), images()


def without_floating_parameters() -> Animal:
    """Nothing that could get noise."""
    order = nn.Parameter(torch.randperm(PIXELS)[:CLASSES], requires_grad=False)
    return Net(lambda net, x: x.flatten(1)[:, net.order].square(), order=order), images()


def lazy_linear() -> Animal:
    """nn.LazyLinear before its first batch has no weights yet."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(WIDTH), nn.Tanh(), nn.LazyLinear(CLASSES)), images()


def lazy_linear_after_a_batch() -> Animal:
    """nn.LazyLinear that has seen a batch is a Linear."""
    net, x = lazy_linear()
    with torch.no_grad():
        net(x)
    return net, x


# Layers and wrappers


def lstm() -> Animal:
    """Weights in a flat list beside the Parameters; several layers, both directions."""
    return Net(
        lambda net, x: net.head(net.lstm(x[:, 0])[0][:, -1]),
        lstm=nn.LSTM(SIDE, WIDTH, 2, batch_first=True, bidirectional=True),
        head=nn.Linear(2 * WIDTH, CLASSES),
    ), images()


def gru() -> Animal:
    """Batches in the second axis, and weights flattened in forward."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.gru.flatten_parameters()
        return net.head(net.gru(x[:, 0].transpose(0, 1))[0][-1])

    return Net(forward, gru=nn.GRU(SIDE, WIDTH), head=nn.Linear(WIDTH, CLASSES)), images()


def checkpointed() -> Animal:
    """torch.utils.checkpoint runs forward again during the backward pass, with what is in the module then."""
    return Net(lambda net, x: checkpoint(net.body, x, use_reentrant=False), body=convolutional()), images()


def checkpointed_reentrant() -> Animal:
    """The old checkpoint does not work with torch.autograd.grad."""
    return Net(lambda net, x: checkpoint(net.body, x, use_reentrant=True), body=dense()), images()


def data_parallel() -> Animal:
    """nn.DataParallel without a GPU passes through."""
    return nn.DataParallel(convolutional()), images()


def compiled() -> Animal:
    """torch.compile."""
    return torch.compile(convolutional(), backend="eager"), images()  # type: ignore[return-value]


def compiled_in_place() -> Animal:
    """`module.compile()` of the whole, and torch.compile of a part."""
    net = convolutional()
    net.append(torch.compile(nn.Linear(CLASSES, CLASSES), backend="eager"))  # type: ignore[arg-type]
    net.compile(backend="eager")
    return net, images()


def scripted() -> Animal:
    """TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(dense()), images()


def traced_part() -> Animal:
    """A part that is TorchScript, traced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.trace(dense(), images()), nn.Linear(CLASSES, CLASSES)), images()


def symbolic_graph() -> Animal:
    """torch.fx."""
    return torch.fx.symbolic_trace(convolutional()), images()


def averaged_model() -> Animal:
    """torch.optim.swa_utils.AveragedModel, with a deep copy and a counter in it."""
    return torch.optim.swa_utils.AveragedModel(dense()), images()


def ensemble_by_vmap() -> Animal:
    """torch.func inside forward: stacked weights of several networks, whose skeleton is hidden."""
    members = [dense() for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(members)

    def forward(net: Any, x: Tensor) -> Tensor:
        names = [name.replace("/", ".") for name in net.weights]
        weights = dict(zip(names, net.weights.values(), strict=True))
        return torch.func.vmap(lambda w: torch.func.functional_call(net.skeleton[0], w, (x,)))(weights).mean(0)

    weights = nn.ParameterDict({name.replace(".", "/"): value for name, value in stacked.items()})
    return Net(forward, weights=weights, skeleton=[dense()]), images()


def transformer_encoder() -> Animal:
    """PyTorch's encoder takes another path in evaluation mode without gradients."""
    layer = nn.TransformerEncoderLayer(SIDE, 2, WIDTH, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    return Before(lambda net, x: net.encoder(x[:, 0])[:, None], dense(), encoder=encoder), images()


def energy_gradient() -> Animal:
    """Logits that are a gradient themselves; forward makes its input require one."""

    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x.requires_grad_()
            (force,) = torch.autograd.grad(net.body(x).square().sum(), x, create_graph=True)
        return force.flatten(1) @ net.read_out

    return Net(forward, body=dense(), read_out=nn.Parameter(torch.randn(PIXELS, CLASSES))), images()


def experts() -> Animal:
    """Rows are routed to experts, each of which sees some of them."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = x.flatten(1)
        gates = net.gate(x).softmax(1)
        best, result = gates.argmax(1), x.new_zeros(len(x), CLASSES)
        for number, expert in enumerate(net.experts):
            rows = (best == number).nonzero().flatten()
            result = result.index_add(0, rows, gates[rows, number, None] * expert(x[rows]))
        return result

    experts = nn.ModuleList(nn.Linear(PIXELS, CLASSES) for _ in range(3))
    return Net(forward, gate=nn.Linear(PIXELS, 3), experts=experts), images()


def interpolating_lookup() -> Animal:
    """A table that is read at places which depend on the input, as an embedding of numbers."""

    def look_up(net: Any, x: Tensor) -> Tensor:
        place = x.clamp(0, 0.999) * 10
        left = place.long()
        share = place - left
        return net.table[left] * (1 - share) + net.table[left + 1] * share

    return Before(look_up, dense(), table=nn.Parameter(torch.randn(11))), images()


class _Sealed(Net):
    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "sealed", False) and name != "training":
            raise AttributeError(f"{name}: this network is finished")
        super().__setattr__(name, value)


def sealed() -> Animal:
    """Refuses that attributes are set."""
    net = _Sealed(lambda net, x: net.body(x), body=dense())
    net.sealed = True
    return net, images()


class _Selective(Net):
    def parameters(self, recurse: bool = True) -> Any:
        return iter([self.body[3].weight])


def overrides_parameters() -> Animal:
    """`parameters()` gives what is to be trained, alone."""
    return _Selective(lambda net, x: net.body(x), body=dense()), images()


def holds_a_lock() -> Animal:
    """Cannot be copied by copy.deepcopy."""
    return Net(lambda net, x: net.body(x), body=dense(), lock=threading.Lock(), empty=nn.Sequential()), images()


class _Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.accuracy = dense(), Accuracy("multiclass", num_classes=CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        self.accuracy(logits.detach(), torch.zeros(len(x), dtype=torch.int64))
        with suppress(Exception), warnings.catch_warnings():  # outside a hook of the trainer Lightning refuses
            warnings.simplefilter("ignore")
            self.log("accuracy", self.accuracy)
        return logits


def lightning_module() -> Animal:
    """A LightningModule that updates a metric and logs in forward."""
    return _Module(), images()


# Precision


def _in(dtype: torch.dtype) -> Animal:
    return dense().to(dtype), images(dtype=dtype)


def in_float64() -> Animal:
    """Double precision."""
    return _in(torch.float64)


def in_bfloat16() -> Animal:
    """A model whose weights are bfloat16."""
    return _in(torch.bfloat16)


def in_float16() -> Animal:
    """A model whose weights are float16."""
    return _in(torch.float16)


def half_inside() -> Animal:
    """Takes float32 and returns bfloat16."""
    return Before(lambda net, x: x.bfloat16(), dense().bfloat16()), images()


def mixed_dtypes() -> Animal:
    """Parameters of three dtypes."""
    net = Net(
        lambda net, x: net.head(torch.tanh(net.stem(x.flatten(1).double()) * net.scale).float()),
        stem=nn.Linear(PIXELS, WIDTH).double(),
        scale=nn.Parameter(torch.ones((), dtype=torch.bfloat16)),
        head=nn.Linear(WIDTH, CLASSES),
    )
    return net, images()


def autocast_inside() -> Animal:
    """Forward has an autocast of its own."""

    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net.body(x)

    return Net(forward, body=dense()), images()


# Rows that are not treated one by one


def batch_norm_without_statistics() -> Animal:
    """Batch normalization that always takes the batch's statistics."""
    net = convolutional()
    net.insert(1, nn.BatchNorm2d(WIDTH, track_running_stats=False))
    return net, images()


def dense_batch_norm_without_statistics() -> Animal:
    """With one row and no places there are no statistics: PyTorch raises."""
    net = dense()
    net.insert(2, nn.BatchNorm1d(WIDTH, track_running_stats=False))
    return net, images()


def batch_norm_in_training() -> Animal:
    """Forward keeps batch normalization in training mode: the batch's statistics, and moving ones that change."""

    def forward(net: Any, x: Tensor) -> Tensor:
        net.norm.train()
        return net.norm(x)

    return Before(forward, dense(), norm=nn.BatchNorm2d(1)), images()


def fixed_batch_size() -> Animal:
    """The batch size is written in the code."""
    return Net(lambda net, x: net.body(x.view(ROWS, PIXELS)), body=dense()), images()


def asserted_batch_size() -> Animal:
    """The batch size is asserted."""

    def forward(net: Any, x: Tensor) -> Tensor:
        assert len(x) == net.batch_size, "wrong batch size"
        return x

    return Before(forward, dense(), batch_size=ROWS), images()


def attention_over_the_batch() -> Animal:
    """Rows attend to one another, as in neural processes and set transformers."""
    return Before(
        lambda net, x: F.scaled_dot_product_attention(*[x.flatten(1)[None]] * 3)[0].view_as(x) + x, dense()
    ), images()


def standardized_by_the_batch() -> Animal:
    """Inputs less the batch's mean."""
    return Before(lambda net, x: x - x.mean(0), dense()), images()


def pairs_of_rows() -> Animal:
    """Neighboring rows see one another, as the segments of a video in temporal shift modules."""
    return Before(lambda net, x: x + 0.5 * x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1), dense()), images(4)


def previous_row() -> Animal:
    """A row sees the one before it: nothing changes for the first row, nor for one row alone."""
    return Before(lambda net, x: x + 0.5 * torch.cat([0 * x[:1], x[:-1]]), dense()), images()


def greatest_of_the_batch() -> Animal:
    """Scaled by the greatest value in the batch."""
    return Before(lambda net, x: x / x.detach().amax(), dense()), images()


def squeezes_one_row() -> Animal:
    """`squeeze()` removes the batch axis of one row."""
    return Net(lambda net, x: net.body(x)[:, :, None].squeeze(), body=dense()), images()


def squeezes_before_the_head() -> Animal:
    """`squeeze()` amid the network, before a layer that fails without the batch axis."""
    return Net(
        lambda net, x: net.head(net.body(x)[..., None].squeeze().mean((1,))[:, None]),
        body=nn.Conv2d(1, 2, SIDE),
        head=nn.Linear(1, CLASSES),
    ), images()


def deviation_over_the_batch() -> Animal:
    """The standard deviation over groups of rows as a channel more, as in StyleGAN's discriminator."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return torch.cat([x, x.var(0, correction=0).add(1e-8).sqrt().mean().expand_as(x)], 1)

    return Before(forward, dense(2)), images()


def exported() -> Animal:
    """torch.export, for the batch size of its example."""
    return torch.export.export(dense(), (images(),)).module(), images()


# In place, and layouts


def multiplies_in_place() -> Animal:
    """`x.mul_`: a leaf that requires a gradient refuses it."""
    return Before(lambda net, x: x.mul_(2), dense()), images()


def subtracts_in_place() -> Animal:
    """`x -= mean` writes to the caller's tensor."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x -= net.mean
        x /= 0.5
        return x

    return Before(forward, dense(), mean=0.4), images()


def writes_a_pixel() -> Animal:
    """`x[...] = 0`."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x[:, :, 0, 0] = 0
        return x

    return Before(forward, dense()), images()


def rectifies_the_input_in_place() -> Animal:
    """The first layer is nn.ReLU(inplace=True)."""
    return nn.Sequential(nn.ReLU(inplace=True), *convolutional()), images() - 0.5


def views_the_input() -> Animal:
    """`x.view`: needs contiguous images."""
    return Before(lambda net, x: x.view(len(x), -1), dense(2)), images(channels=2)


def strided_by_hand() -> Animal:
    """as_strided reads the memory as it lies: other values, and no error, in another layout."""
    return Before(
        lambda net, x: x.as_strided((len(x), 2 * PIXELS), (2 * PIXELS, 1)).unflatten(1, (2, PIXELS)), dense(2)
    ), images(channels=2)


def complex_view() -> Animal:
    """view_as_complex needs the last axis to lie together."""
    return Before(lambda net, x: torch.view_as_complex(x.view(len(x), 2, SIDE, 3, 2)).abs(), dense(1)), images(
        channels=2
    )


def asks_for_the_layout() -> Animal:
    """Another computation for images that are not contiguous."""
    return Before(lambda net, x: x if x.is_contiguous() else 2 * x, dense(2)), images(channels=2)


def takes_channels_last() -> Animal:
    """The user's images lie with their channels together, and the network wants them so."""

    def forward(net: Any, x: Tensor) -> Tensor:
        return x.as_strided((len(x), SIDE, SIDE, 2), (2 * PIXELS, 2 * SIDE, 2, 1))

    return Before(forward, dense(2)), images(channels=2).to(memory_format=torch.channels_last)


def expanded_input() -> Animal:
    """A batch of one image, expanded: all rows are one piece of memory."""
    return dense(), images(1).expand(ROWS, -1, -1, -1)


def input_that_requires_a_gradient() -> Animal:
    """The caller's batch is a leaf with a gradient."""
    x = images().requires_grad_()
    x.grad = torch.ones_like(x)
    return convolutional(), x


def permuted_input() -> Animal:
    """Images that were (batch, height, width, channel) a moment ago."""
    return dense(2), images(channels=2).contiguous(memory_format=torch.channels_last)


class _Picture(Tensor):
    """A subclass of Tensor, as torchvision has."""


def input_of_a_subclass() -> Animal:
    """The batch is of a subclass of Tensor."""
    return dense(), images().as_subclass(_Picture)


# The differentiable path


def table_from_inference_mode() -> Animal:
    """A table that was made in inference mode cannot be saved for a backward pass."""
    with torch.inference_mode():
        table = torch.linspace(0.5, 1, SIDE)
    return Before(lambda net, x: x * net.table, dense(), table=table), images()


def buffer_from_inference_mode() -> Animal:
    """A buffer, made in inference mode."""
    net = Before(lambda net, x: x * net.table, dense())
    with torch.inference_mode():
        net.register_buffer("table", torch.linspace(0.5, 1, SIDE))
    return net, images()


def weights_from_inference_mode() -> Animal:
    """Parameters that were made in inference mode."""
    with torch.inference_mode():
        return dense(), images()


def caches_in_inference_mode() -> Animal:
    """The table of the user's last prediction, made in inference mode."""
    net, x = cache_in_an_attribute()
    with torch.inference_mode():
        net(x)
    return net, x


def backbone_without_gradient() -> Animal:
    """A backbone under no_grad, as on Lightning's transfer-learning page."""

    def features(net: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            return net.backbone(x)

    return Before(features, dense(), backbone=nn.Conv2d(1, 1, 1)), images()


def decorated_without_gradient() -> Animal:
    """The whole forward is decorated with no_grad."""
    return Net(torch.no_grad()(lambda net, x: net.body(x)), body=dense()), images()


def decorated_with_inference_mode() -> Animal:
    """The whole forward is decorated with inference_mode."""
    return Net(torch.inference_mode()(lambda net, x: net.body(x)), body=dense()), images()


def detached_input() -> Animal:
    """`x.detach()`."""
    return Before(lambda net, x: x.detach() * net.gain, dense(), gain=nn.Parameter(torch.ones(()))), images()


def integer_codes() -> Animal:
    """8-bit values."""
    return Before(lambda net, x: (x * 255).long().float(), dense()), images()


def through_numpy() -> Animal:
    """A step in NumPy."""
    return Before(lambda net, x: torch.from_numpy(np.square(x.detach().numpy())), dense()), images()


def one_branch_without_gradient() -> Animal:
    """One of two branches is under no_grad; the map is that of the other one, as autograd says."""

    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            gate = net.gate(x)
        return net.body(x) * gate.sigmoid()

    return Net(forward, body=dense(), gate=dense()), images()


def switches_gradients_off() -> Animal:
    """Forward leaves gradients switched off globally."""

    def forward(net: Any, x: Tensor) -> Tensor:
        logits = net.body(x)
        torch.set_grad_enabled(False)
        return logits

    return Net(forward, body=dense()), images()


def hooks_its_activations() -> Animal:
    """Home-made GradCAM: forward hooks its activations, which fails where gradients are off."""

    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.stem(x)
        h.register_hook(lambda gradient: setattr(net, "gradient", gradient))
        return net.head(h)

    return Net(forward, stem=nn.Conv2d(1, 2, 1).requires_grad_(False), head=dense(2), gradient=None), images()


def straight_through() -> Animal:
    """Rounded, with the gradient of the identity."""
    return Before(lambda net, x: x + ((x * 7).round() / 7 - x).detach(), dense()), images()


def frees_its_graph() -> Animal:
    """A backward pass through its own logits, which it returns: their graph is gone."""

    def forward(net: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            logits = net.body(x)
            logits.softmax(1).square().sum().backward()
        return logits

    return Net(forward, body=dense()), images()


def quantized() -> Animal:
    """Quantized weights have no backward pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(dense().eval(), {nn.Linear}), images()


# Hooks of the user


def hooks_that_change_outputs() -> Animal:
    """Forward hooks, pre-hooks and backward hooks that are part of the computation."""
    net = convolutional()
    net[0].register_forward_pre_hook(lambda module, arguments: (arguments[0] * 2,))
    net[0].register_forward_hook(lambda module, arguments, output: output.tanh())
    net[4].register_full_backward_hook(lambda module, ins, outs: (ins[0] * 3,))
    return net, images()


def hooks_that_keep_outputs() -> Animal:
    """A hook that keeps activations on the module, with their graph."""
    net = convolutional()
    net[0].features = None

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
        module.features = output

    net[0].register_forward_hook(keep)
    return net, images()


def hooks_on_parameters() -> Animal:
    """Tensor hooks on Parameters, and an accumulated-gradient hook: none may run."""
    net = dense()

    def refuse(gradient: Any) -> None:
        raise AssertionError("a gradient of a Parameter was computed")

    net[1].weight.register_hook(refuse)
    net[3].weight.register_post_accumulate_grad_hook(refuse)
    return net, images()


# Outputs that cannot be explained


def returns_a_dict() -> Animal:
    """As transformers do."""
    return Net(lambda net, x: {"logits": net.body(x)}, body=dense()), images()


def returns_a_map() -> Animal:
    """A fully convolutional network: logits with places."""
    return nn.Conv2d(1, CLASSES, 3), images()


# What is expected

_NO_PATH = "differentiable"

REFUSED: dict[str, str] = {
    "backbone_without_gradient": _NO_PATH,
    "decorated_without_gradient": _NO_PATH,
    "decorated_with_inference_mode": _NO_PATH,
    "detached_input": _NO_PATH,
    "integer_codes": _NO_PATH,
    "through_numpy": _NO_PATH,
    "quantized": f"{_NO_PATH}|no floating-point parameter",
    "frees_its_graph": "whose graph is gone",
    "checkpointed_reentrant": "use_reentrant=False",
    "switches_gradients_off": _NO_PATH,
    "lazy_linear": "Run a batch",
    "returns_a_dict": "must return a tensor of logits",
    "returns_a_map": "must return logits",
}
"""What no explainer can explain, and what the refusal says."""

NO_NOISE: dict[str, str] = {"without_floating_parameters": "no floating-point parameter"}
"""What weight noise cannot be given to."""

RANDOM = {
    "dropout_always_on",
    "draws_from_torch",
    "draws_from_numpy",
    "draws_from_python",
    "generator_inside",
    "noisy_attention",
    "trains_itself",
    "builds_itself",
}
"""Whose logits are drawn: two equal calls give one map, but no reference says which."""

MIXED = {
    "batch_norm_without_statistics",
    "dense_batch_norm_without_statistics",
    "batch_norm_in_training",
    "attention_over_the_batch",
    "standardized_by_the_batch",
    "previous_row",
    "greatest_of_the_batch",
    "deviation_over_the_batch",
    "initializes_itself",
    "adapts_itself",
    "fake_quantized",
}
"""In which a row sees the others: the reference is the whole batch in one pass, and it is said aloud."""

WHOLE = MIXED | {
    "pairs_of_rows",
    "asserted_batch_size",
    "fixed_batch_size",
    "squeezes_before_the_head",
    "squeezes_one_row",
    "exported",
}
"""Which do not take one row, or any number of them: the reference is the whole batch in one pass, too."""

ZOO: dict[str, Callable[[], Animal]] = {
    name: function
    for name, function in list(globals().items())
    if isfunction(function) and function.__module__ == __name__ and function.__annotations__.get("return") is Animal
    if not name.startswith("_")
}


def build(name: str) -> Animal:
    """The network of this name, the same each time, and its batch."""
    state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        animal = ZOO[name]()
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    return animal
