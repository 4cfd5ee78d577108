"""Is the price of an evaluation right? Told before, and measured, for five networks with random weights.

    python scripts/measure_price.py [--seconds 20] [--device cpu] [--processor]

Each network is evaluated on as many samples as are said to take the seconds, and on six batches at least: in about
three minutes on one core. Prints the gradients (which must be equal) and the time, told and taken, and their ratio.
On a machine that others use as well, `--processor` takes the seconds of the processor (of one thread) for the time.
"""

import argparse
import os
import tempfile
import time
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import mobilenet_v3_small, resnet18

import lightning_xai as lx
from lightning_xai.experiments.stream import StoredEvaluation
from lightning_xai.explainers import grad_cam
from lightning_xai.explainers.cost import counting_gradients
from lightning_xai.metrics import FaithfulnessCorrelation, MaxSensitivity, Sparseness
from lightning_xai.networks import MLP, LeNet, ResNet9
from lightning_xai.price import duration
from lightning_xai.reporting.render import markdown_table
from lightning_xai.results.tables import ResultTable

NETWORKS = {
    "MLP": (MLP, (1, 28, 28), 32),
    "LeNet": (LeNet, (1, 28, 28), 32),
    "ResNet-9": (ResNet9, (3, 32, 32), 4),
    "MobileNetV3-small": (lambda: mobilenet_v3_small(num_classes=10), (3, 64, 64), 8),
    "ResNet-18": (lambda: resnet18(num_classes=10), (3, 64, 64), 4),
}
"""How each is made, the shape of its images, and samples at a time."""
METHODS = {
    "gradient": lx.Gradient(),
    "smooth_grad": lx.smooth_grad(num_draws=10),
    "adapt_grad": lx.adapt_grad(num_draws=10),
    "noise_grad": lx.noise_grad(num_draws=5),
    "fusion_grad": lx.fusion_grad(num_weight_draws=3, num_input_draws=3),
    "integrated": lx.IntegratedGradients(num_steps=10),
}
METRICS = {
    "sparseness": Sparseness(),
    "correlation": FaithfulnessCorrelation(num_subsets=10, subset_size=64),
    "sensitivity": MaxSensitivity(num_draws=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processor", action="store_true")
    given = parser.parse_args()
    if given.processor:
        torch.set_num_threads(1)
        time.perf_counter = time.process_time
    columns = ("network", "samples", "gradients told", "counted", "time told", "taken", "told / taken")
    rows = []
    for name in NETWORKS:
        rows.append(_row(name, given.seconds, torch.device(given.device)))
        print(" ".join(rows[-1]), flush=True)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    clock = "seconds of the processor" if given.processor else "seconds of the clock"
    print(markdown_table(ResultTable(f"{torch.get_num_threads()} threads, {clock}, {load}", columns, tuple(rows))))


def _row(name: str, seconds: float, device: torch.device) -> tuple[str, ...]:
    torch.manual_seed(0)
    make, shape, size = NETWORKS[name]
    model = make().to(device).eval()
    images, labels = torch.rand(1024, *shape), torch.arange(1024) % 10
    methods = {**METHODS, **({"grad_cam": grad_cam()} if _convolves(model) else {})}

    def evaluated(network: nn.Module, number: int, folder: str, dry_run: bool) -> StoredEvaluation:
        options = {"bounds": (0.0, 1.0), "controls": True, "batch_size": size, "dry_run": dry_run}
        loader = DataLoader(TensorDataset(images[:number], labels[:number]), size)
        return lx.evaluate_stream(network, loader, folder, "label", methods, METRICS, **options)

    with tempfile.TemporaryDirectory() as folder:
        told = evaluated(deepcopy(model), len(images), folder, True).price
        batches = min(max(6, round(seconds / told.sample.seconds / size)), len(images) // size)
        told = replace(told, num_samples=batches * size)
        begin = time.perf_counter()
        with counting_gradients(model) as count:
            evaluated(model, told.num_samples, folder, False)
        taken = time.perf_counter() - begin
    gradients = (f"{told.gradients:,.0f}", f"{count.total:,.0f}")
    times = (duration(told.seconds), duration(taken), f"{told.seconds / taken:.2f}")
    return (name, str(told.num_samples), *gradients, *times)


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


if __name__ == "__main__":
    main()
