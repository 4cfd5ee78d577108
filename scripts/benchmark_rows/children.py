"""Rows that need processes of their own: peak memory, and two processes on two cores.

    python -m benchmark_rows.children memory|worker SETTINGS

is what these processes run; SETTINGS is JSON.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lightning_xai as lx
from benchmark_rows.measuring import SINGLE, Measurement, Setting, alternately, case, synchronise
from lightning_xai.metrics import Sparseness

SCRIPTS = Path(__file__).parents[1]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(setting: Setting) -> Iterator[Measurement]:
    """Peak memory with ten times the draws over that with the draws, each in a process of its own."""
    for one in setting.cases(16, large=False):
        draws, batch = setting.draws(one, 10, least=10), len(one.images)
        few, many = (
            {"network": one.name, "batch": batch, "device": str(setting.device), "draws": number}
            for number in (draws, 10 * draws)
        )
        pairs = [(peak_memory(**many), peak_memory(**few)) for _ in range(1 if setting.tiny else 2)]
        (peak, before), (least, _) = pairs[0]
        what = f"SmoothGrad's peak memory, {10 * draws} draws / {draws} draws ({mebibytes(peak)} / {mebibytes(least)}"
        what += f" MiB; {mebibytes(before)} before it explains)"
        ratios = tuple(many[0] / few[0] for many, few in pairs)
        yield Measurement("memory", what, one.name, batch, SINGLE, ratios, float("nan"), 1.02)


def mebibytes(size: float) -> int:
    return round(size / 2**20)


def peak_memory(**settings: Any) -> tuple[int, int]:
    """Bytes of a fresh process: the most that it had, and the most before it explained."""
    with child("memory", settings) as process:
        peak, before = json.loads(_answer(process))
    return peak, before


def processes(setting: Setting) -> Iterator[Measurement]:
    """Samples a second of two processes with a core each, over those of one process with one core."""
    if setting.device.type != "cpu":
        return
    for name in setting.networks:
        if name == "ResNet50":
            continue
        number = 2 if setting.tiny else 256 if name == "LeNet" else 16
        draws = setting.draws(case(name, number, setting.device), 10, least=2)
        with ExitStack() as stack:
            settings = {"network": name, "samples": number, "draws": draws}
            alone = stack.enter_context(workers(1, settings))
            together = stack.enter_context(workers(2, settings))
            ratios, seconds = alternately(partial(run, alone), partial(run, together), setting)
        throughput = tuple(2 * ratio for ratio in ratios)  # twice the samples
        what = f"throughput of evaluate, {draws} draws, 2 processes on 2 cores / 1 on 1"
        yield Measurement("processes", what, name, number, SINGLE, throughput, seconds, 1.8, at_least=True)


@contextmanager
def workers(number: int, settings: dict[str, Any]) -> Iterator[list[subprocess.Popen]]:
    """Processes that wait for a line and then evaluate, each its share."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as stack:
        shared = settings | {"world": number, "port": port}
        group = [stack.enter_context(child("worker", shared | {"rank": rank})) for rank in range(number)]
        for process in group:
            _answer(process)  # it is ready
        yield group
        for process in group:
            process.stdin.close()  # type: ignore[union-attr]


def run(group: list[subprocess.Popen]) -> float:
    """Seconds until all have evaluated."""
    start = time.perf_counter()
    for process in group:
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    for process in group:
        _answer(process)
    return time.perf_counter() - start


def _answer(process: subprocess.Popen) -> str:
    line = process.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise RuntimeError(f"A process of the benchmark ended with exit status {process.wait()}; its message is above.")
    return line


@contextmanager
def child(kind: str, settings: dict[str, Any]) -> Iterator[subprocess.Popen]:
    paths = [str(SCRIPTS), str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if kind == "worker":
        environment["OMP_NUM_THREADS"] = "1"
    words = [sys.executable, "-m", "benchmark_rows.children", kind, json.dumps(settings)]
    process = subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield process
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def measure_memory(network: str, batch: int, device: str, draws: int) -> None:
    """Write the memory that this process has before an explanation, and the most that it has during it, in bytes."""
    one = case(network, batch, torch.device(device))
    forget_peak(one.images.device)
    before = peak(one.images.device)
    lx.explain(*one.arguments, lx.smooth_grad(num_draws=draws))
    synchronise(one.images.device)
    print(json.dumps([peak(one.images.device), before]))


def forget_peak(device: torch.device) -> None:
    """What was the most so far counts no longer; an operating system other than Linux remembers it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text("5")


def peak(device: torch.device) -> int:
    """Bytes; on Linux not `ru_maxrss`, in which a process starts with the peak of the one that started it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def work(network: str, samples: int, draws: int, world: int, port: int, rank: int) -> None:
    """Evaluate `samples` samples of this process whenever a line comes in."""
    torch.set_num_threads(1)
    one = case(network, samples, torch.device("cpu"))
    methods = {
        "smooth_grad": lx.smooth_grad(num_draws=draws),
        "noise_grad": lx.noise_grad(num_draws=draws),
        "fusion_grad": lx.fusion_grad(num_weight_draws=draws, num_input_draws=2),
    }
    if world > 1:
        address = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    print("ready", flush=True)
    for _ in sys.stdin:
        lx.evaluate(*one.arguments, methods, {"sparseness": Sparseness()}, index=one.samples.index + rank * samples)
        print("done", flush=True)
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    kind, settings = sys.argv[1:]
    {"memory": measure_memory, "worker": work}[kind](**json.loads(settings))
