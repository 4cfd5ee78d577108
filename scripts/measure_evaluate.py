"""What an evaluation of many samples takes: time, memory, files; and that shards in any order make the same.

    python scripts/measure_evaluate.py --samples 1000 50000 --shards 4

Random pictures are made as they are read, and a tiny network explains them, so that what is measured is everything
else. Each evaluation has a process of its own, whose peak of memory is its own.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_xai.experiments.stream import evaluate_stream
from lightning_xai.explainers import noise_grad
from lightning_xai.results.store import read_samples, read_scores


class Pictures(Dataset):
    """Random pictures, each of its own number."""

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size = number, size

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(row)
        return torch.rand(3, self.size, self.size, generator=generator), row % 10


def evaluated(options: argparse.Namespace, folder: str, number: int, shard: tuple[int, int]) -> None:
    """Evaluate, and print seconds and the peak of memory as JSON."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(nn.AvgPool2d(options.size // 8), nn.Flatten(), nn.Linear(192, 10)).eval()
    loader = DataLoader(Pictures(number, options.size), num_workers=options.workers)
    start = time.perf_counter()
    found = evaluate_stream(
        network,
        loader,
        folder,
        "label",
        {"saliency": "saliency", "noise_grad": noise_grad(num_draws=2)},
        ["complexity"],
        shard=shard,
        batch_size=options.batch_size,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB, on Linux
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak, "finished": found.num_finished}))


def measured(options: argparse.Namespace, folder: Path, number: int, shard: tuple[int, int] = (1, 1)) -> dict:
    """The same in a process of its own."""
    inner = [str(folder), str(number), *map(str, shard)]
    plain = [f"--{name}={getattr(options, name)}" for name in ("size", "batch_size", "workers")]
    done = subprocess.run(
        [sys.executable, *sys.argv[:1], *plain, "--inner", *inner], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 50000])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--shards", type=int, default=4, help="Of the first number of samples; 0 for none.")
    parser.add_argument("--inner", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        folder, *numbers = options.inner
        number, *shard = map(int, numbers)
        evaluated(options, folder, number, tuple(shard))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number in options.samples:
            report(root / str(number), number, measured(options, root / str(number), number))
        if options.shards:
            in_shards(options, root, options.samples[0])


def report(folder: Path, number: int, found: dict) -> None:
    """Print what an evaluation took, and what reading it takes."""
    files = list((folder / "scores").iterdir())
    start = time.perf_counter()
    scores = read_scores(folder / "scores")
    read = time.perf_counter() - start
    start = time.perf_counter()
    samples = read_samples(folder / "scores")
    print(
        f"{number} samples: {found['seconds']:.0f} s, peak {found['peak']:.0f} MiB; {len(files)} files, "
        f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB; {len(scores)} scores read in {read:.2f} s, "
        f"{len(samples)} samples in {time.perf_counter() - start:.2f} s",
        flush=True,
    )


def in_shards(options: argparse.Namespace, root: Path, number: int) -> None:
    """Say whether shards in a random order make the scores that one run made."""
    order = random.Random(0).sample(range(1, options.shards + 1), options.shards)
    for shard in order:
        measured(options, root / "shards", number, (shard, options.shards))
    one, other = (
        read_scores(root / folder / "scores")
        .to_dataframe()
        .sort_values(["method", "metric", "sample"], ignore_index=True)
        for folder in (str(number), "shards")
    )
    far = (one["value"] - other["value"]).abs().max()
    same = one.drop(columns="value").equals(other.drop(columns="value"))
    print(
        f"{options.shards} shards in the order {order}: {'the same samples' if same else 'OTHER SAMPLES'}, "
        f"scores within {far:.1g}"
    )


if __name__ == "__main__":
    main()
