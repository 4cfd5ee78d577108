"""What must hold on every device: the laws that `scripts/gpu_check` looks at."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

import lightning_xai as lx
from benchmark_rows.children import forget_peak, mebibytes, peak, scores_of, share_scores
from benchmark_rows.measuring import Case, Setting, case
from lightning_xai.callbacks.samples import Samples
from lightning_xai.explainers import Explainer, grad_cam
from lightning_xai.explainers.chunks import row_limit
from lightning_xai.explainers.precision import Precision
from lightning_xai.functional.devices import is_apple
from lightning_xai.functional.random import root_keys, standard_normal, uniform
from lightning_xai.metrics import FaithfulnessCorrelation, MaxSensitivity, RelevanceMassAccuracy, Sparseness

CPU = torch.device("cpu")
NETWORKS = ("LeNet", "ResNet9")
TOLERANCES = {torch.float64: (1e-9, 1e-6), torch.float32: (1e-2, 0.3)}
"""Greatest differences of maps, ‖difference‖ / ‖map‖: the median over the samples, and the worst of them. In float32
rounding turns some rectifier or maximum of ResNet-9 over to the other side in many a map; TF32 would do so in all."""


@dataclass(frozen=True)
class Law:
    """What was found of a law.

    Attributes:
        what: The law.
        found: What was seen.
        allowed: What it may be at most.
        holds: None where nobody can be blamed: it was only looked at.
    """

    what: str
    found: str
    allowed: str
    holds: bool | None


def noise(setting: Setting) -> Iterator[Law]:
    """Noise is that of the CPU, bit for bit."""
    keys = root_keys(3, torch.tensor([0, 1, 5, 2**40]))
    for draw in (standard_normal, uniform):
        shapes = [(1,), (3, 5), (2**12,), (2**12 + 1,), (3, 57, 111), (2**20,)]
        equal = [torch.equal(draw(keys, shape, setting.device).cpu(), draw(keys, shape)) for shape in shapes]
        yield Law(f"noise, {draw.__name__}", f"{sum(equal)} of {len(shapes)} shapes equal", "all equal", all(equal))


def maps(setting: Setting) -> Iterator[Law]:
    """Maps are those of the CPU in float64, whatever TF32 the caller allows."""
    for name in NETWORKS:
        here = _untied(name, setting, CPU, torch.float64)
        wanted = {label: _explained(here, method) for label, method in _methods(setting).items()}
        for dtype in TOLERANCES if has_float64(setting.device) else (torch.float32,):
            there = _untied(name, setting, setting.device, dtype)
            for label, method in _methods(setting).items():
                yield _same(f"{name}: {label} as on the CPU", _explained(there, method), wanted[label])


def passes(setting: Setting) -> Iterator[Law]:
    """Maps depend neither on the batch nor on the rows of a pass."""
    for name in NETWORKS:
        dtype = torch.float64 if has_float64(setting.device) else torch.float32
        one = _untied(name, setting, setting.device, dtype)
        for label, method in _methods(setting).items():
            if label not in ("SmoothGrad", "NoiseGrad", "FusionGrad"):
                continue
            whole = _explained(one, method)
            rows = [_explained(one, method, slice(row, row + 1)) for row in range(len(one.images))]
            yield _same(f"{name}: {label} of one image at a time", torch.cat(rows), whole)
            yield _same(f"{name}: {label} in passes of 3 rows", _explained(one, method, max_rows=3), whole)


def recurrent(setting: Setting) -> Iterator[Law]:
    """Recurrent networks are explained in evaluation mode, which cuDNN refuses."""
    if setting.device.type == "sim":
        return  # it has no kernel for an LSTM, nor autocast
    images = torch.rand(4, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = _Recurrent()
    here = lx.explain(model, images, 0, lx.smooth_grad(num_draws=4))
    there = lx.explain(model.to(setting.device), images.to(setting.device), 0, lx.smooth_grad(num_draws=4))
    yield _same("an LSTM: SmoothGrad as on the CPU", there, here)


def scores(setting: Setting) -> Iterator[Law]:
    """Scores are those of the CPU."""
    found = [_scores(_untied("LeNet", setting, device, torch.float32)) for device in (setting.device, CPU)]
    for method, metrics in found[1].items():
        for metric, wanted in metrics.items():
            off = (found[0][method][metric] - wanted).abs().median() / wanted.abs().median().clamp(min=1e-6)
            yield Law(f"LeNet: {metric} of {method} as on the CPU", f"{off:.1e}", "1e-03", bool(off <= 1e-3))


def left_alone(setting: Setting) -> Iterator[Law]:
    """What is explained, and PyTorch's settings and random states, are afterwards what they were."""
    one = case("ResNet9", 2, setting.device)
    before = _state(one.model, setting.device)
    for precision in get_args(Precision)[: 2 if setting.device.type == "sim" else None]:
        lx.explain(*one.arguments, lx.fusion_grad(num_weight_draws=2, num_input_draws=2), precision=precision)
    after = _state(one.model, setting.device)
    changed = [name for name, value in before.items() if not _equal(value, after[name])]
    yield Law("everything comes back", ", ".join(changed) or "the same", "the same", not changed)


def processes(setting: Setting) -> Iterator[Law]:
    """Two processes that share the samples find what one finds."""
    if setting.device.type not in ("cpu", "cuda"):
        return
    alone, together = scores_of(slice(None), setting.device.type), share_scores(2, setting.device.type)
    off = max(abs(x - y) for name in alone for x, y in zip(alone[name], together[name], strict=True))
    devices = "a GPU each, by NCCL" if setting.device.type == "cuda" and torch.cuda.device_count() > 1 else "by gloo"
    yield Law(f"LeNet: scores of two processes ({devices}) as of one", f"{off:.1e}", "1e-03", off <= 1e-3)


def memory(setting: Setting) -> Iterator[Law]:
    """Peak memory does not grow with the draws. (On a CPU it is that of the whole process, and only told.)"""
    for name in NETWORKS:
        one = case(name, 2 if setting.tiny else 16, setting.device)
        draws = (2, 20) if setting.tiny else (10, 100)
        peaks = [_peak(one, number) for number in (draws[0], *draws)][1:]
        ratio = peaks[1] / peaks[0]
        found = f"{ratio:.3f} ({mebibytes(peaks[1])} / {mebibytes(peaks[0])} MiB)"
        holds = ratio <= 1.02 if setting.device.type == "cuda" else None
        yield Law(f"{name}: peak memory of {draws[1]} draws / {draws[0]} draws", found, "1.02", holds)


def room(setting: Setting) -> Iterator[Law]:
    """Where memory runs out a pass is halved, which is remembered, and the map is the same."""
    if setting.device.type != "cuda":
        return
    one = case("ResNet9", 64, setting.device)
    small, method = copy.deepcopy(one.model), lx.smooth_grad(num_draws=50)
    whole, most = lx.explain(*one.arguments, method), row_limit(one.model, one.images, None)
    row_limit(small, one.images, None)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(setting.device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(setting.device) + 2**29) / total)
    try:
        halved = lx.explain(small, *one.arguments[1:], method)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    law = _same("ResNet9: SmoothGrad with 512 MiB", halved, whole)
    rows = row_limit(small, one.images, None)
    yield Law(f"{law.what} ({most} rows a pass, then {rows})", law.found, law.allowed, law.holds and rows < most)


LAWS: dict[str, Callable[[Setting], Iterator[Law]]] = {
    law.__name__: law for law in (noise, maps, passes, recurrent, scores, left_alone, processes, memory, room)
}


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x[:, 0])[0][:, -1])


def _methods(setting: Setting) -> dict[str, Explainer]:
    draws, models = (3, 2) if setting.tiny else (8, 4)
    return {
        "gradient": lx.Gradient(),
        "Integrated Gradients": lx.IntegratedGradients(num_steps=draws),
        "SmoothGrad": lx.smooth_grad(num_draws=draws),
        "AdaptGrad": lx.adapt_grad(num_draws=draws),
        "NoiseGrad": lx.noise_grad(num_draws=models),
        "FusionGrad": lx.fusion_grad(num_weight_draws=models, num_input_draws=2),
        "GradCAM": grad_cam(),
    }


def has_float64(device: torch.device) -> bool:
    return not is_apple(device)


def _untied(name: str, setting: Setting, device: torch.device, dtype: torch.dtype) -> Case:
    """Images without flat backgrounds, where max-pooling has ties, which rounding breaks in another way anywhere."""
    one = case(name, 3 if setting.tiny else 6, CPU)
    low, high = one.bounds
    uniform = torch.rand(one.images.shape, generator=torch.Generator().manual_seed(0))
    images, labels, masks = one.images.lerp(low + uniform * (high - low), 0.05), one.target, one.samples.masks
    assert masks is not None
    samples = Samples(images.to(device, dtype), labels.to(device), one.samples.index, masks.to(device))
    return Case(name, copy.deepcopy(one.model).to(device, dtype), samples, one.bounds)


def _explained(one: Case, method: Explainer, rows: slice = slice(None), **options: Any) -> Tensor:
    index, model = one.samples.index[rows], one.model
    return lx.explain(model, one.images[rows], one.target[rows], method, bounds=one.bounds, index=index, **options)


def _scores(one: Case) -> dict[str, dict[str, Tensor]]:
    metrics = {
        "sparseness": Sparseness(),
        "mass accuracy": RelevanceMassAccuracy(),
        "faithfulness": FaithfulnessCorrelation(num_subsets=20, subset_size=100),
        "max sensitivity": MaxSensitivity(num_draws=2),
    }
    methods = {"SmoothGrad": lx.smooth_grad(num_draws=3), "NoiseGrad": lx.noise_grad(num_draws=2)}
    return lx.evaluate(*one.arguments, methods, metrics, one.samples.masks, bounds=one.bounds, batch_size=3).scores


def _same(what: str, found: Tensor, wanted: Tensor) -> Law:
    kind = str(found.dtype).removeprefix("torch.")
    (most, most_of_all), what = TOLERANCES[found.dtype], f"{what}, {kind}"
    found, wanted = (part.cpu().double().flatten(1) for part in (found, wanted))
    off = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
    typical, worst = float(off.quantile(0.5)), float(off.max())
    holds = typical <= most and worst <= most_of_all
    return Law(what, f"{typical:.1e} (worst {worst:.1e})", f"{most:g} (worst {most_of_all:g})", holds)


def _state(model: nn.Module, device: torch.device) -> dict[str, Any]:
    state: dict[str, Any] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state |= {"hooks": (len(model._forward_hooks), len(model._forward_pre_hooks)), "mode": model.training}
    state |= {"random state": torch.get_rng_state(), "TF32": torch.backends.cudnn.allow_tf32}
    state |= {"precision of products": torch.get_float32_matmul_precision(), "cuDNN": torch.backends.cudnn.enabled}
    return state | ({"random state of CUDA": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def _peak(one: Case, draws: int) -> int:
    forget_peak(one.images.device)
    lx.explain(*one.arguments, lx.smooth_grad(num_draws=draws))
    return peak(one.images.device)
