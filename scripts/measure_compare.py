"""What a comparison of many scores costs: seconds and peak memory of `lightning-xai compare` in a process of its own.

Scores are a difficulty of the sample, what the method is worse by, and noise, in single precision as metrics write
them; every third metric counts, so that its scores are tied.

    python -P scripts/measure_compare.py --samples 50000 --methods 18 --metrics 10       # 9 million rows, on one thread
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.store import append_scores, write_directions


def scores(samples: int, methods: int, metrics: int, seed: int = 0) -> Scores:
    """The last two methods are the controls."""
    generator = np.random.default_rng(seed)
    names = [*(f"method_{number:02d}" for number in range(methods - 2)), "edges", "random"]
    values: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    for metric in range(metrics):
        difficulty = generator.normal(size=samples)
        for place, name in enumerate(names):
            own = difficulty - 0.02 * place + 0.5 * generator.normal(size=samples)
            counted = np.round(20 / (1 + np.exp(-own))) / 20
            values[name][f"metric_{metric:02d}"] = (counted if metric % 3 == 0 else own).astype(np.float32)
    for place, name in enumerate(names):
        values[name][GRADIENTS] = np.full(samples, 10.0 * (place < methods - 2), np.float32)
    return Scores.from_values("validate", 0, 0, np.arange(samples), values)


def write(folder: Path, samples: int, methods: int, metrics: int, validations: int) -> None:
    """A run with as many validations, all with the same scores but for their epoch."""
    found, path = scores(samples, methods, metrics), folder / "xai" / "scores"
    for epoch in range(validations):
        append_scores(path, Scores(found.table.assign(epoch=epoch, step=epoch)))
    write_directions(path, {name: name != GRADIENTS for name in found.unique("metric")} | {GRADIENTS: None})


def measure(folder: Path, words: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of processors, and the most GiB resident."""
    start = time.perf_counter()
    command = [sys.executable, "-P", "-m", "lightning_xai", "compare", str(folder), *words]
    with (folder / "compare.txt").open("w") as output, subprocess.Popen(command, stdout=output) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, _gib(used.ru_maxrss)


def _gib(maxrss: int) -> float:
    return maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--methods", type=int, default=18)
    parser.add_argument("--metrics", type=int, default=10)
    parser.add_argument("--validations", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="Keep the run here, or take the one that is here.")
    parser.add_argument("words", nargs="*", help="More options of compare, behind --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "xai").exists():
            write(folder, given.samples, given.methods, given.metrics, given.validations)
            print(f"written with {_gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss):.2f} GiB at most")
        size = sum(part.stat().st_size for part in (folder / "xai" / "scores").iterdir()) / 2**20
        seconds, busy, gib = measure(folder, given.words)
    rows = given.samples * given.methods * given.metrics
    print(f"{rows} scores a validation, {given.validations} validations, {size:.0f} MiB")
    print(f"compare: {seconds:.1f} s ({busy:.1f} s of processors), {gib:.2f} GiB at most")


if __name__ == "__main__":
    main()
