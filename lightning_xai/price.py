"""What explaining and scoring will cost, told before it begins: gradients, time, memory, by method and metric."""

import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, product
from typing import Any

import torch
from torch import nn

from lightning_xai.evaluation import MAPS as MAPS, Batch, score_batches
from lightning_xai.explainers.base import Explainer, check_count
from lightning_xai.explainers.chunks import probe_rows
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.cost import chain, counting_gradients, with_gradients, wrapped
from lightning_xai.explainers.smoothing import Averaging
from lightning_xai.metrics import SampleMetric
from lightning_xai.results.tables import Printed, ResultTable

BATCHES = 4
"""That are asked for to be measured: one to warm up, three that are timed."""
_COLUMNS = ("", "gradients a sample", "passes a sample", "ms a sample", "gradients", "time", "share")
_UNITS = (("days", 86_400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3))


@dataclass(frozen=True)
class Cost:
    """What is spent on a sample.

    Attributes:
        gradients: Rows of backward passes.
        passes: Rows of forward passes beside these.
        seconds: Wall time.
    """

    gradients: float = 0.0
    passes: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.gradients + other.gradients, self.passes + other.passes, self.seconds + other.seconds)

    def __mul__(self, factor: float) -> "Cost":
        return Cost(factor * self.gradients, factor * self.passes, factor * self.seconds)


@dataclass(frozen=True, repr=False)
class Price(Printed):
    """What an evaluation will cost on this machine; it prints as its table.

    Gradients and passes are counted and exact, unless a method draws until a tolerance is met (`estimated`); seconds
    are measured. What methods or metrics share, such as perturbed images, is booked on the one that asks first.

    Attributes:
        num_samples: Samples that are explained.
        costs: What a sample costs, by method and metric; `MAPS` stands for the map itself.
        reading: Seconds that a sample is waited for.
        start: Seconds at the start, once.
        memory: Bytes at the peak: of an accelerator's memory, or else of the process.
        estimated: Methods whose gradients depend on the sample.
        title: What it is the price of.
        notes: Sentences below the table.
    """

    num_samples: int
    costs: Mapping[tuple[str, str], Cost]
    reading: float = 0.0
    start: float = 0.0
    memory: int = 0
    estimated: frozenset[str] = frozenset()
    title: str = ""
    notes: tuple[str, ...] = field(default=())

    def _parts(self) -> list[ResultTable]:
        return [self.table()]

    def __add__(self, other: "Price") -> "Price":
        """The price of both works, one after the other, titled as the first; a sample's costs are then the mean."""
        number = self.num_samples + other.num_samples
        costs: dict[tuple[str, str], Cost] = {}
        for part in (self, other):
            for key, cost in part.costs.items():
                costs[key] = costs.get(key, Cost()) + cost * (part.num_samples / number)
        reading = (self.num_samples * self.reading + other.num_samples * other.reading) / number
        return replace(
            self,
            num_samples=number,
            costs=costs,
            reading=reading,
            start=self.start + other.start,
            memory=max(self.memory, other.memory),
            estimated=self.estimated | other.estimated,
        )

    @property
    def sample(self) -> Cost:
        """All that a sample costs."""
        return sum(self.costs.values(), Cost(seconds=self.reading))

    @property
    def gradients(self) -> float:
        """Gradients of all samples, methods and metrics."""
        return self.num_samples * self.sample.gradients

    @property
    def seconds(self) -> float:
        """Seconds of all samples, methods and metrics, with the start."""
        return self.start + self.num_samples * self.sample.seconds

    @property
    def hours(self) -> float:
        return self.seconds / 3600

    @property
    def gibibytes(self) -> float:
        """At the peak."""
        return self.memory / 2**30

    def table(self) -> ResultTable:
        """A row for the maps of each method, one for each metric over all methods, one for all."""
        parts = [
            (method, cost, method in self.estimated) for (method, what), cost in self.costs.items() if what == MAPS
        ]
        for metric in dict.fromkeys(what for _, what in self.costs if what != MAPS):
            own = {method: cost for (method, what), cost in self.costs.items() if what == metric}
            again = any(cost.gradients for method, cost in own.items() if method in self.estimated)
            parts.append((metric, sum(own.values(), Cost()), again))
        if self.reading and self.reading * self.num_samples >= 0.01 * self.seconds:
            parts.append(("reading", Cost(seconds=self.reading), False))
        parts.append(("all", self.sample, bool(self.estimated)))
        rows = [self._row(*part) for part in parts]
        memory = f"At its peak {self.gibibytes:.2f} GiB of memory." if self.memory else ""
        start = f"{duration(self.start)} of the time are for the start." if self.start > 0.01 * self.seconds else ""
        return ResultTable(
            self.title or f"{self.num_samples} samples",
            _COLUMNS,
            tuple(rows),
            tuple(note for note in (memory, start, *self.notes) if note),
            frozenset((len(rows) - 1, column) for column in range(len(_COLUMNS))),
        )

    def _row(self, name: str, cost: Cost, estimated: bool) -> tuple[str, ...]:
        seconds = self.num_samples * cost.seconds + (self.start if name == "all" else 0)
        about = "~" if estimated else ""
        return (
            name,
            f"{about}{_number(cost.gradients)}",
            _number(cost.passes),
            _number(1000 * cost.seconds),
            f"{about}{_number(self.num_samples * cost.gradients)}",
            duration(seconds),
            f"{100 * seconds / self.seconds:.0f} %" if self.seconds else "",
        )


def price(
    model: nn.Module,
    batches: Iterable[Batch],
    methods: Mapping[str, Explainer],
    metrics: Mapping[str, SampleMetric],
    num_samples: int,
    conditions: Conditions = Conditions(),
    *,
    num_timed: int = 3,
    title: str = "",
) -> Price:
    """What `num_samples` samples will cost, from some batches that are explained and scored to be measured.

    The first batch warms up (of a single one its first row); the next ones are timed, the median counts. A stream that
    ends before is begun again with its first batch.

    Args:
        model: As in `explain`. Left as it was.
        batches: As large as they will be; only as many are asked for as are measured. They may bring a context (bounds,
            seed, max_rows, output), model, and pairs of method and metric of their own.
        methods: Explainers by name.
        metrics: Metrics by name; none for the maps alone.
        num_samples: Samples of the whole work.
        conditions: Under which they are explained.
        num_timed: Batches that are timed.
        title: Title of the table.

    Raises:
        ValueError: if there is no batch; as `evaluate`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> from lightning_xai.price import Batch, price
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> batches, methods = [Batch(images, None, torch.arange(3))], {"ours": lx.smooth_grad(num_draws=20)}
        >>> found = price(model, batches, methods, {"again": lx.metrics.MaxSensitivity(num_draws=10)}, 1000)
        >>> found.costs["ours", "maps"].gradients, found.costs["ours", "again"].gradients, found.gradients
        (20.0, 200.0, 220000.0)
    """
    check_count("num_samples", num_samples)
    check_count("num_timed", num_timed)
    begin = time.perf_counter()
    waited, spent, number = list[float](), dict[tuple[str, str], list[Cost]](), num_timed

    def asked() -> Iterator[Batch]:
        nonlocal number
        stream = (batch.completed(model, conditions) for batch in batches)
        first = next(stream, None)
        if first is None or not len(first.images):
            raise ValueError("`batches` is empty: there is no sample to measure with.")
        number = min(num_timed, -(-num_samples // len(first.images)))
        if first.images.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(first.images.device)
        yield first if number > 1 else _few(first)
        while True:
            before = time.perf_counter()
            batch = next(stream, None)
            if batch is not None:
                waited.append((time.perf_counter() - before) / len(batch.images))
            yield first if batch is None else batch

    watch = partial(_spending, spent)
    with closing(score_batches(model, asked(), methods, metrics, conditions, watch=watch)) as scored:
        warm = next(scored).batch.images
        start = time.perf_counter() - begin
        deque(islice(scored, number), 0)
    order = (key for key in product(methods, (MAPS, *metrics)) if key in spent)
    costs = {key: _median(spent[key][1:]) for key in order}
    usual = sum(costs.values(), Cost()).seconds * len(warm)
    return Price(
        num_samples,
        costs,
        sorted(waited)[len(waited) // 2] if waited else 0.0,
        max(0.0, start - usual),
        _peak_memory(warm.device),
        frozenset(name for name, method in methods.items() if _tolerance(method) is not None),
        title,
    )


def within_gradients(
    model: nn.Module,
    batch: Batch,
    methods: Mapping[str, Explainer],
    metrics: Mapping[str, SampleMetric],
    max_gradients: int,
    num_samples: int,
    conditions: Conditions = Conditions(),
) -> dict[str, Explainer]:
    """The methods with as many draws as `max_gradients` gradients in all pay for, on all samples, with all metrics.

    The most expensive methods are cut, to the same number of gradients a sample; cheaper ones stay as they are. What a
    tolerance may take at most has to be paid for; a method that is cut has none. The result depends on the numbers
    alone, so that it is the same in all processes and shards if `num_samples` is that of all of them.

    Args:
        batch: As in `price`; a row of it is explained, to count what every draw takes.
        max_gradients: Rows of backward passes, on all samples together.
        num_samples: Samples of the whole work, of all processes and shards.
        conditions: As in `price`.

    Raises:
        ValueError: if that is less than a single draw of every method costs, or the model is TorchScript, whose
            gradients cannot be counted.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> from lightning_xai.price import Batch, within_gradients
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> methods = {"cheap": lx.noise_grad(), "SG": lx.smooth_grad(), "FG": lx.fusion_grad()}  # 10, 50, 100
        >>> found = within_gradients(model, Batch(images, None, torch.arange(3)), methods, {}, 90_000, 1000)
        >>> found["cheap"].num_draws, found["SG"].num_draws, found["FG"].num_draws * found["FG"].explainer.num_draws
        (10, 40, 40)
    """
    check_count("max_gradients", max_gradients)
    check_count("num_samples", num_samples)
    worst = {name: _at_most(method) for name, method in methods.items()}
    known = _counted(model, batch, worst, metrics, conditions)
    if any(map(math.isnan, known.values())):
        raise ValueError(
            "`max_gradients` needs a model whose gradients can be counted, and TorchScript admits no hooks: give the "
            "module that it was made of, or methods with the draws that they shall have."
        )
    allowed = max_gradients / num_samples

    def cut(level: int) -> dict[str, Explainer]:
        return {
            name: method if _draws(worst[name]) <= _draws(fewer := with_gradients(worst[name], level)) else fewer
            for name, method in methods.items()
        }

    def cost(level: int) -> float:
        chosen = cut(level)
        return sum(known[name] * _draws(_at_most(method)) / _draws(worst[name]) for name, method in chosen.items())

    low, high = 1, max(2, *(_draws(method) * _steps(method) + 1 for method in worst.values()))
    if cost(low) > allowed:
        raise ValueError(
            f"`max_gradients` must be at least {math.ceil(cost(low) * num_samples)}, a single draw of each method on "
            f"{num_samples} samples with these metrics; got {max_gradients}. Leave methods, metrics or samples out."
        )
    if cost(high) <= allowed:
        return dict(methods)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= allowed else (low, middle)
    near = [level for level in range(-(-low // 2), 2 * low) if cost(level) <= allowed]  # not all numbers part evenly
    return cut(max(near, key=lambda level: (cost(level), level)))


def duration(seconds: float) -> str:
    """In the greatest unit of which it is one or more."""
    unit, size = next((pair for pair in _UNITS if seconds >= pair[1]), _UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


@contextmanager
def _spending(spent: dict[tuple[str, str], list[Cost]], batch: Batch, method: str, metric: str) -> Iterator[None]:
    """Measures what the block takes, a sample."""
    device = batch.images.device
    with counting_gradients(batch.model) as count:
        _synchronize(device)
        begin = time.perf_counter()
        yield
        _synchronize(device)
        seconds = time.perf_counter() - begin
    cost = Cost(float(count.total), float(count.passes), seconds) * (1 / len(batch.images))
    spent.setdefault((method, metric), []).append(cost)


def _synchronize(device: torch.device) -> None:
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def _few(batch: Batch) -> Batch:
    """As few rows of a batch as the network takes."""
    with torch.no_grad():
        return batch.select(slice(len(probe_rows(batch.model, batch.images, batch.context.max_rows))))


def _counted(
    model: nn.Module,
    batch: Batch,
    methods: Mapping[str, Explainer],
    metrics: Mapping[str, SampleMetric],
    conditions: Conditions,
) -> dict[str, float]:
    """Gradients a sample of each method, with its metrics; counted with a single draw of each."""
    single = {name: with_gradients(method, 1) for name, method in methods.items()}
    few, spent = (_few(given.completed(model, conditions)) for given in [batch]), dict[tuple[str, str], list[Cost]]()
    with closing(score_batches(model, few, single, metrics, conditions, watch=partial(_spending, spent))) as scored:
        next(scored)
    rounded = {key: round(cost.gradients, 6) for key, (cost,) in spent.items()}  # the same for any number of rows
    each = {name: sum(number for (m, _), number in rounded.items() if m == name) for name in methods}
    return {name: each[name] * _draws(methods[name]) / _draws(single[name]) for name in methods}


def _draws(method: Explainer) -> int:
    """Draws of a method, smoothing within smoothing multiplied."""
    levels = (part for part in chain(method) if isinstance(part, Averaging))
    return math.prod(part.num_draws + int(getattr(part, "include_clean", False)) for part in levels)


def _steps(method: Explainer) -> int:
    """Points of a path at which draws are made."""
    return math.prod(getattr(part, "num_steps", 1) for part in chain(method))


def _tolerance(method: Explainer) -> float | None:
    return next((t for part in chain(method) if (t := getattr(part, "tolerance", None)) is not None), None)


def _at_most(method: Explainer) -> Explainer:
    """With the draws that a tolerance may take at most."""
    changes: dict[str, Any] = {name: _at_most(inner) for name, inner in wrapped(method).items()}
    if getattr(method, "tolerance", None) is not None:
        changes |= {"tolerance": None, "num_draws": method.max_draws}  # type: ignore[attr-defined]
    return replace(method, **changes) if changes else method  # type: ignore[type-var]


def _median(costs: list[Cost]) -> Cost:
    """The median of the seconds, and the mean of what is counted."""
    total = sum(costs, Cost()) * (1 / len(costs))
    return replace(total, seconds=sorted(cost.seconds for cost in costs)[len(costs) // 2])


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # which Windows does not have

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _number(value: float) -> str:
    """Whole where it is, else three digits."""
    if math.isnan(value):
        return "unknown"
    return f"{round(value):,}" if abs(value - round(value)) < 1e-6 or value >= 1000 else f"{value:.3g}"
