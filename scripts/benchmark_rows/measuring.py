"""Alternating measurements, and the networks that they are made on."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
import torchvision
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

import lightning_xai as lx
from lightning_xai.callbacks.samples import Samples, unpack
from lightning_xai.data import CMNISTDataModule, DigitsDataModule, PhotographsDataModule
from lightning_xai.explainers.chunks import groups, row_limit
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.explainers.state import parameter_sites, swapped
from lightning_xai.networks import LeNet, ResNet9, efficientnet_lite0

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
LEAST_PAIRS = 3
Clock = Callable[[], float]
SINGLE: Precision = "32-true"
HALF: Precision = "bf16-mixed"
PRECISIONS = SINGLE, HALF


@dataclass(frozen=True)
class Network:
    """A network of the benchmark.

    Attributes:
        build: Makes it, with random weights.
        checkpoint: File with trained weights in `checkpoints`; None keeps the random ones.
        data: Where its samples come from; None for uniform noise of `shape`.
        shape: Of a sample.
        gradients: That one call on a CPU may spend; a GPU, and `--full`, know no limit.
    """

    build: Callable[[], nn.Module]
    checkpoint: str | None
    data: Callable[[], LightningDataModule] | None
    shape: tuple[int, int, int]
    gradients: int


NETWORKS = {
    "LeNet": Network(LeNet, "mnist_lenet.ckpt", DigitsDataModule, (1, 28, 28), 3200),
    "ResNet9": Network(
        ResNet9,
        "cmnist_resnet9.ckpt",
        lambda: CMNISTDataModule(digits="embedded", backgrounds="embedded"),
        (3, 32, 32),
        256,
    ),
    "ResNet50": Network(torchvision.models.resnet50, None, None, (3, 224, 224), 4),
    "EfficientNetLite0": Network(
        efficientnet_lite0,
        None,
        lambda: PhotographsDataModule(mean=[0.498039] * 3, std=[0.501961] * 3),
        (3, 224, 224),
        8,
    ),
}
DEFAULT_NETWORKS = ("LeNet", "ResNet9", "ResNet50")
"""Without EfficientNet-Lite0, which needs two more packages."""


@dataclass(frozen=True)
class Case:
    """A network and samples for it, on a device; their bounds are on the CPU, so that nobody waits to read them."""

    name: str
    model: nn.Module
    samples: Samples
    bounds: tuple[Tensor, Tensor]

    @property
    def images(self) -> Tensor:
        return self.samples.images

    @property
    def target(self) -> Tensor:
        assert self.samples.labels is not None
        return self.samples.labels

    @property
    def arguments(self) -> tuple[nn.Module, Tensor, Tensor]:
        return self.model, self.images, self.target


@dataclass(frozen=True)
class Setting:
    """How, and on what, is measured.

    Attributes:
        device: Where the networks run.
        networks: Names of the networks.
        pairs: Measurements of each ratio, after a warm-up that does not count.
        budget: Seconds after which `LEAST_PAIRS` are enough.
        full: All batches and numbers of draws on a CPU too.
        tiny: One pair of something small, to see whether everything runs.
        root: Folder with MNIST, for the rows that train on it; without it embedded digits do.
    """

    device: torch.device
    networks: tuple[str, ...] = DEFAULT_NETWORKS
    pairs: int = 7
    budget: float = 10.0
    full: bool = False
    tiny: bool = False
    root: Path = Path("data")

    @property
    def everything(self) -> bool:
        """Whether nothing is left out because a CPU is slow."""
        return self.full or self.device.type != "cpu"

    def cases(self, *batches: int, large: bool = True) -> Iterator[Case]:
        """The networks under each batch; on a CPU ResNet-50 under one image only, and only where `large` allows it."""
        for name in self.networks:
            if name == "ResNet50" and not self.everything:
                batches_here = (1,) if large and 1 in batches else ()
            else:
                batches_here = batches
            for batch in sorted({min(batch, 2) for batch in batches_here}) if self.tiny else batches_here:
                yield case(name, batch, self.device)

    def draws(self, case: Case, wanted: int, least: int = 4) -> int:
        """As many as wanted, or as a slow device can do in a call."""
        if self.tiny:
            return 2
        affordable = max(least, NETWORKS[case.name].gradients // len(case.images))
        return wanted if self.everything else min(wanted, affordable)

    def aim(self, cpu: float | None, gpu: float | None) -> float | None:
        return gpu if self.device.type == "cuda" else cpu


def case(name: str, batch: int, device: torch.device) -> Case:
    samples, bounds = _samples(name, batch)
    images, labels, masks = (
        None if part is None else part.to(device) for part in (samples.images, samples.labels, samples.masks)
    )
    network = model(name, device)
    if labels is None:
        with torch.no_grad():
            labels = network(images).argmax(1)
    return Case(name, network, Samples(images, labels, samples.index, masks), bounds)


@cache
def model(name: str, device: torch.device) -> nn.Module:
    """The network in evaluation mode."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    built = network.build()
    if network.checkpoint is not None:
        weights = torch.load(CHECKPOINTS / network.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        built.load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})
    return built.to(device).eval()


@cache
def _samples(name: str, number: int) -> tuple[Samples, tuple[Tensor, Tensor]]:
    network = NETWORKS[name]
    if network.data is None:
        generator = torch.Generator().manual_seed(0)
        masks = torch.zeros(number, *network.shape[1:], dtype=torch.bool)
        masks[:, : network.shape[1] // 2] = True
        images = torch.rand(number, *network.shape, generator=generator)
        return Samples(images, torch.zeros(number, dtype=torch.int64), torch.arange(number), masks), (
            torch.zeros(()),
            torch.ones(()),
        )
    data = network.data()
    data.prepare_data()
    data.setup("test")
    loader = data.test_dataloader()
    chosen = DataLoader(Subset(loader.dataset, range(number)), number, collate_fn=loader.collate_fn)
    return unpack(next(iter(chosen))), data.bounds


@dataclass(frozen=True)
class Measurement:
    """A ratio, measured several times.

    Attributes:
        row: Name of the row.
        what: The one thing over the other.
        network, batch, precision: Of what.
        ratios: One for each pair; none where there was nothing to measure.
        seconds: Median of the first thing's time; NaN where time is not what was measured.
        aim: The greatest ratio wanted, or with `at_least` the least; None for a ratio that is only told.
    """

    row: str
    what: str
    network: str
    batch: int
    precision: str
    ratios: tuple[float, ...]
    seconds: float
    aim: float | None = None
    at_least: bool = False

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios) if self.ratios else math.nan

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.ratios) < 2:
            return self.ratio, self.ratio
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.ratio >= self.aim if self.at_least else self.ratio <= self.aim


def alternately(
    first: Callable[[], float], second: Callable[[], float], setting: Setting
) -> tuple[tuple[float, ...], float]:
    """first / second for each pair, measured A B A B ... after a warm-up, and the median of the first.

    Args:
        first, second: Return what they measured; see `timed`.
    """
    if not setting.tiny:
        first(), second()
    start, values = time.perf_counter(), list[tuple[float, float]]()
    while len(values) < (1 if setting.tiny else setting.pairs):
        values.append((first(), second()))
        if len(values) >= LEAST_PAIRS and time.perf_counter() - start > setting.budget:
            break
    return tuple(a / b for a, b in values), statistics.median(a for a, _ in values)


def timed(
    function: Callable[[], object],
    device: torch.device,
    arithmetic: Callable[[], AbstractContextManager[object]] = nullcontext,
    clock: Clock = time.perf_counter,
) -> Callable[[], float]:
    """A function that returns the seconds that `function` takes, within a context whose own time does not count."""

    def measure() -> float:
        with arithmetic():
            synchronize(device)
            start = clock()
            function()
            synchronize(device)
            return clock() - start

    return measure


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest(candidates: Mapping[str, Callable[[], object]], device: torch.device) -> str:
    """Name of the candidate with the least time of five, in turn; those that do not fit in memory are out."""
    least = dict.fromkeys(candidates, math.inf)
    for _, (name, function) in product(range(5), candidates.items()):
        try:
            least[name] = min(least[name], timed(function, device)())
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return min(least, key=lambda name: least[name])


def gradient(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Of the target's logit with respect to the images: no more than that."""
    images = images.detach().requires_grad_()
    (result,) = torch.autograd.grad(model(images).gather(1, target[:, None]).sum(), images)
    return result


def bare_loop(
    case: Case, num_draws: int, precision: Precision, setting: Setting, models: int = 0
) -> tuple[str, Callable[[], None], Callable[[], float]]:
    """As many gradients of the images as `num_draws` draws need, in passes of the engine's sizes, and nothing else.

    Returned are the faster memory format's name, the loop, and a function that returns the seconds that it takes.

    Args:
        models: Among how many noisy models the draws are shared out, which is NoiseGrad's own floor: a pass has one
            model. Weights are ready beforehand, two sets in turn, as the batches are. 0 for the network as it is.
    """
    each = num_draws // max(1, models)
    passes = [one for some in groups(each, case.model, case.images, None) for one in parts(case, len(some))]
    copies = max(one.stop for one in passes) // len(case.images) + 1
    images, target = case.images.repeat(copies, 1, 1, 1), case.target.repeat(copies)
    ready = [noisy(case.model, seed) for seed in range(min(models, 2))] or [{}]
    sites = parameter_sites(case.model)

    def loop(images: Tensor) -> None:
        for number in range(max(1, models)):
            with swapped(sites, ready[number % len(ready)]):
                for rows in passes:
                    gradient(case.model, images[rows], target[rows])

    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    loops = {name: partial(loop, images.to(memory_format=memory_format)) for name, memory_format in formats.items()}
    arithmetic = partial(in_precision, case.model, precision)
    with arithmetic():
        name = fastest(loops, setting.device)
    return name, loops[name], timed(loops[name], setting.device, arithmetic)


def parts(case: Case, draws: int) -> list[slice]:
    """The rows of the passes in which the engine sends these draws of the images through the network."""
    rows, limit = draws * len(case.images), row_limit(case.model, case.images, None)
    return [slice(start, min(start + limit, rows)) for start in range(0, rows, limit)]


def noisy(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights of NoiseGrad that want gradients, as parameters do."""
    return {name: weight.requires_grad_() for name, weight in lx.PerturbWeights().noisy_weights(model, seed).items()}
