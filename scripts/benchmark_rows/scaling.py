"""The plot of what more draws, samples and path steps cost, and of the memory that more draws take."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import lightning_xai as lx
from benchmark_rows.children import mebibytes, peak_memory
from benchmark_rows.measuring import SINGLE, Setting, case, timed
from lightning_xai.reporting.charts import plain_logarithms
from lightning_xai.reporting.pages import Page, styled
from lightning_xai.results.files import replacing

COUNTS = (1, 3, 10, 30, 100, 300, 1000)
FITTED_FROM = 10
"""The slope is that of the points from here on: below, a call's fixed cost counts."""
SAMPLES = 16
COLORS = {"draws": "#0072b2", "samples": "#d55e00", "path steps": "#009e73"}
Curves = dict[str, list[tuple[int, float]]]


def measure(setting: Setting, network: str) -> dict[str, Curves]:
    """Seconds (least of three) by draws, samples and path steps, and MiB of fresh processes by draws."""
    counts = (1, 10, 20) if setting.tiny else COUNTS
    few = case(network, 2 if setting.tiny else SAMPLES, setting.device)

    def repeated(samples: int) -> Callable[[], object]:
        copies = -(-samples // len(few.images))
        images, target = few.images.repeat(copies, 1, 1, 1)[:samples], few.target.repeat(copies)[:samples]
        return partial(lx.explain, few.model, images, target, lx.smooth_grad(num_draws=FITTED_FROM))

    runs: dict[str, Callable[[int], Callable[[], object]]] = {
        "draws": lambda number: partial(lx.explain, *few.arguments, lx.smooth_grad(num_draws=number)),
        "samples": repeated,
        "path steps": lambda number: partial(
            lx.explain, *few.arguments, lx.IntegratedGradients(num_steps=number), bounds=few.bounds
        ),
    }
    seconds = {
        name: [(count, min(timed(run(count), setting.device)() for _ in range(3))) for count in counts]
        for name, run in runs.items()
    }
    child = {"network": network, "batch": len(few.images), "device": str(setting.device), "precision": SINGLE}
    memory = [(count, float(mebibytes(peak_memory(**child, draws=count)[0]))) for count in counts]
    return {"seconds": seconds, "memory": {"draws": memory}}


def slope(points: Iterable[tuple[int, float]]) -> float:
    """Of the straight line through the logarithms, from `FITTED_FROM` on: 1 where cost is proportional."""
    count, value = np.log([point for point in points if point[0] >= FITTED_FROM]).T
    return float(np.polyfit(count, value, 1)[0])


@styled
def draw(curves: dict[str, Curves], network: str, machine: str) -> Figure:
    """Seconds against counts, both logarithmic, and memory against draws, from zero."""
    page = Page([2.7, 2.7], [1.95])
    axes, beside = page.axes(0, 0), page.axes(0, 1)
    for name, points in curves["seconds"].items():
        label = f"{name}: slope {slope(points):.2f}"
        axes.loglog(*zip(*points, strict=True), color=COLORS[name], marker="o", lw=1, label=label)
    axes.set(ylabel="seconds", xlabel="draws, samples or path steps")
    axes.legend()
    points = curves["memory"]["draws"]
    beside.semilogx(*zip(*points, strict=True), color=COLORS["draws"], marker="o", lw=1)
    top = 1.2 * max(value for _, value in points)
    beside.set(ylim=(0, top), ylabel="peak memory of the process, MiB", xlabel="draws")
    plain_logarithms(axes)
    plain_logarithms(beside)
    return page.finished(f"Cost and memory, {network}", [notes(network), machine])


def notes(network: str) -> str:
    return (
        f"SmoothGrad by draws ({SAMPLES} samples) and by samples ({FITTED_FROM} draws), Integrated Gradients by path "
        f"steps ({SAMPLES} samples); float32. Slopes are of the points from {FITTED_FROM} on, 1 is proportional."
    )


def write(curves: dict[str, dict[str, Curves]], folder: Path, machine: str) -> list[Path]:
    """A figure for each network, and the numbers of all."""
    paths = [folder / f"scaling_{network}.png" for network in curves]
    for path, (network, curve) in zip(paths, curves.items(), strict=True):
        with replacing(path) as temporary:
            draw(curve, network, machine).savefig(temporary, format="png")
    numbers = folder / "scaling.json"
    with replacing(numbers) as temporary:
        temporary.write_text(json.dumps(curves, indent=1), encoding="utf-8")
    return [*paths, numbers]
