"""What explanations cost, against the bare gradients that they need and against what else there is.

Each row is a ratio of two times (or peaks of memory, or throughputs) measured in turn, A B A B ..., in one run, with
its aim. Networks: LeNet on 28x28, ResNet-9 on 32x32, ResNet-50 on 224x224 (random weights; on a CPU one image only),
and, if it is asked for, EfficientNet-Lite0 on 224x224.
On a CPU calls have as many draws as it can do in about a second, and all rows take twenty minutes or more on two cores.

    python scripts/benchmark.py [--device cuda] [--rows smoothing captum] [--networks LeNet]
    python scripts/benchmark.py --scaling

writes benchmark.md and benchmark.json; with --scaling the plot of cost and memory from 1 to 1,000 draws instead. No
other program should run meanwhile.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from benchmark_rows import report, scaling
from benchmark_rows.against_loops import smoothing, validation, weight_noise
from benchmark_rows.against_others import captum, evaluation, published_noise_grad
from benchmark_rows.agreement import agreement
from benchmark_rows.children import memory, processes
from benchmark_rows.draws import coverage, error
from benchmark_rows.looks import shortcuts
from benchmark_rows.measuring import DEFAULT_NETWORKS, NETWORKS, Measurement, Setting

ROWS: dict[str, Callable[[Setting], Iterator[Measurement]]] = {
    row.__name__: row
    for row in (
        smoothing,
        captum,
        published_noise_grad,
        weight_noise,
        memory,
        evaluation,
        validation,
        shortcuts,
        processes,
        error,
        coverage,
        agreement,
    )
}


def options() -> argparse.Namespace:
    rows = "\n".join(f"  {name:22}{row.__doc__}" for name, row in ROWS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nrows:\n{rows}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="by default all")
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=list(DEFAULT_NETWORKS),
        metavar="NETWORK",
        help=f"{', '.join(NETWORKS)} (which has ImageNet weights, in two packages); by default all but the last",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pairs", type=positive, default=7, help="measurements of each ratio, after a warm-up")
    parser.add_argument("--full", action="store_true", help="all batches and draws on a CPU too; takes an hour or more")
    parser.add_argument("--tiny", action="store_true", help="one pair of something small: does everything run?")
    parser.add_argument("--scaling", action="store_true", help="draw cost and memory by number of draws instead")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder with MNIST, if it is there")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="folder for the files")
    chosen = parser.parse_args()
    try:
        torch.empty(0, device=chosen.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"argument --device: {chosen.device!r} cannot be used here ({str(error).splitlines()[0]})")
    return chosen


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def main() -> None:
    chosen = options()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    given = {"full": chosen.full, "tiny": chosen.tiny, "root": chosen.root}
    setting = Setting(torch.device(chosen.device), tuple(chosen.networks), chosen.pairs, **given)
    where = report.machine(setting.device)
    if chosen.scaling:
        curves = {network: scaling.measure(setting, network) for network in setting.networks}
        files = scaling.write(curves, chosen.output, f"{where['device']}, {where['versions']}, {where['date']}")
        print(*files, sep="\n")
        return
    print(*report.head(where), sep="\n", flush=True)
    measurements: list[Measurement] = []
    for row in chosen.rows:
        for measurement in ROWS[row](setting):
            print(report.line(report.cells(measurement)), flush=True)
            measurements.append(measurement)
            report.write(measurements, where, chosen.output)


if __name__ == "__main__":
    main()
