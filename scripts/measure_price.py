"""Is the price of an evaluation right? Told before, and measured, for five networks with random weights.

    python scripts/measure_price.py [--batches 16] [--batch_size 32] [--device cpu]

Prints for each network the gradients (which must be equal) and the time, told and taken, and their ratio.
"""

import argparse
import time
from collections.abc import Iterator

import torch
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18

import lightning_xai as lx
from lightning_xai.explainers import grad_cam, with_controls
from lightning_xai.metrics import FaithfulnessCorrelation, MaxSensitivity, Sparseness
from lightning_xai.networks import MLP, LeNet, ResNet9
from lightning_xai.price import Rows, duration, price
from lightning_xai.reporting.render import markdown_table
from lightning_xai.results.tables import ResultTable

NETWORKS = {
    "MLP": (MLP, (1, 28, 28)),
    "LeNet": (LeNet, (1, 28, 28)),
    "ResNet-9": (ResNet9, (3, 32, 32)),
    "MobileNetV3-small": (lambda: mobilenet_v3_small(num_classes=10), (3, 64, 64)),
    "ResNet-18": (lambda: resnet18(num_classes=10), (3, 64, 64)),
}
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
    "sensitivity": MaxSensitivity(num_draws=2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    columns = ("network", "gradients told", "counted", "time told", "taken", "told / taken")
    rows = []
    for name in NETWORKS:
        rows.append(_row(name, given.batches, given.batch_size, torch.device(given.device)))
        print(" ".join(rows[-1]), flush=True)
    print(markdown_table(ResultTable(f"{given.batches} batches of {given.batch_size}", columns, tuple(rows))))


def _row(name: str, batches: int, size: int, device: torch.device) -> tuple[str, ...]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model, images = make().to(device).eval(), torch.rand(batches * size, *shape)
    methods = with_controls({**METHODS, **({"grad_cam": grad_cam()} if _convolves(model) else {})})
    target = torch.arange(len(images)) % 10

    def stream() -> Iterator[Rows]:
        for rows in torch.arange(len(images)).split(size):
            yield Rows(images[rows].to(device), target[rows].to(device), rows)

    told = price(model, stream(), methods, METRICS, len(images), bounds=(0.0, 1.0))
    begin, counted = time.perf_counter(), 0.0
    for part in stream():
        found = lx.evaluate(model, part.images, part.target, methods, METRICS, bounds=(0.0, 1.0), index=part.index)
        counted += sum(float(scores["gradients"].sum()) for scores in found.scores.values())
    taken = time.perf_counter() - begin
    counted += sum(2 * len(images) * told.costs[method, "maps"].gradients for method in methods)  # of the sensitivity
    gradients = (f"{told.gradients:,.0f}", f"{counted:,.0f}")
    return (name, *gradients, duration(told.seconds), duration(taken), f"{told.seconds / taken:.2f}")


def _convolves(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


if __name__ == "__main__":
    main()
