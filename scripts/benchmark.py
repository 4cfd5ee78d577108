"""What the smoothing engine costs beyond the gradients that it needs.

Wall time of SmoothGrad over that of a bare loop of equally large gradient batches, measured in turn, A B A B ..., in
one run: the ratio of each pair, its median and quartiles. The loop draws no noise and adds nothing up.

    python scripts/benchmark.py [--pairs 7] [--device cpu]
"""

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lightning_xai import explain, smooth_grad
from lightning_xai.explainers.chunks import row_limit
from lightning_xai.explainers.gradient import input_gradient
from lightning_xai.networks import LeNet, ResNet9

NUM_DRAWS = 50
CASES: list[tuple[str, Callable[[], nn.Module], tuple[int, int, int], tuple[int, ...]]] = [
    ("LeNet", LeNet, (1, 28, 28), (1, 16, 64)),
    ("ResNet9", ResNet9, (3, 32, 32), (1, 16)),
]


def bare_loop(model: nn.Module, images: Tensor, target: Tensor) -> None:
    """The gradients that SmoothGrad needs, in batches of the size that it takes."""
    per_pass = max(1, row_limit(model, images, None) // len(images))
    for start in range(0, NUM_DRAWS, per_pass):
        copies = min(per_pass, NUM_DRAWS - start)
        input_gradient(model, images.repeat(copies, 1, 1, 1), target.repeat(copies))


def seconds(function: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratios(
    first: Callable[[], object], second: Callable[[], object], pairs: int, device: torch.device
) -> tuple[np.ndarray, float]:
    """first / second for each pair after one warm-up, and the median seconds of the first."""
    times = np.array([[seconds(f, device) for f in (first, second)] for _ in range(pairs + 1)])[1:]
    return times[:, 0] / times[:, 1], float(np.median(times[:, 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    title = f"SmoothGrad, {NUM_DRAWS} draws, over a bare loop\n{name}, torch {torch.__version__}, {platform.machine()}"
    table = Table("network", "batch", "seconds", "ratio", "quartiles", title=title)
    for label, network, shape, batches in CASES:
        model = network().to(device).eval()
        for batch in batches:
            images, target = (
                torch.rand(batch, *shape, device=device),
                torch.zeros(batch, dtype=torch.long, device=device),
            )
            ratio, wall = ratios(
                lambda m=model, x=images, t=target: explain(m, x, t, smooth_grad(num_draws=NUM_DRAWS)),
                lambda m=model, x=images, t=target: bare_loop(m, x, t),
                options.pairs,
                device,
            )
            low, middle, high = np.percentile(ratio, [25, 50, 75])
            table.add_row(label, str(batch), f"{wall:.3f}", f"{middle:.3f}", f"{low:.3f} .. {high:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
