"""Rows that need processes of their own: peak memory, and two processes on two cores.

    python -m benchmark_rows.children memory|worker|share SETTINGS

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
from benchmark_rows.measuring import HALF, SINGLE, Measurement, Setting, alternately, bare_loop, case, timed
from lightning_xai.explainers.precision import Precision
from lightning_xai.metrics import Sparseness

SCRIPTS = Path(__file__).parents[1]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(setting: Setting) -> Iterator[Measurement]:
    """Peak memory with ten times the draws, and with 64 times the images, each in a process of its own."""
    for one in setting.cases(16, large=False):
        draws, batch = setting.draws(one, 10, least=10), len(one.images)
        what = f"SmoothGrad's peak memory, {10 * draws} draws / {draws} draws"
        shared = {"network": one.name, "batch": batch, "device": str(setting.device), "precision": SINGLE}
        yield peaks(what, shared | {"draws": 10 * draws}, shared | {"draws": draws}, setting, 1.02)
    for name in setting.networks:
        batch, draws = (2, 2) if setting.tiny else (64, 50)
        what = f"SmoothGrad's peak memory with {draws} draws, {batch} images / 1 image"
        precision = HALF if name == "ResNet50" else SINGLE
        shared = {"network": name, "device": str(setting.device), "draws": draws, "precision": precision}
        yield peaks(what, shared | {"batch": batch}, shared | {"batch": 1}, setting, None)


def peaks(what: str, more: dict[str, Any], less: dict[str, Any], setting: Setting, aim: float | None) -> Measurement:
    """Peak memory with some settings over that with others."""
    repeats = 1 if setting.tiny or aim is None else 2
    pairs = [(peak_memory(**more), peak_memory(**less)) for _ in range(repeats)]
    (most, before, seconds), (least, _, _) = pairs[0]
    what += f" ({mebibytes(most)} / {mebibytes(least)} MiB; {mebibytes(before)} before it explains)"
    ratios = tuple(first[0] / second[0] for first, second in pairs)
    return Measurement("memory", what, more["network"], more["batch"], more["precision"], ratios, seconds, aim)


def mebibytes(size: float) -> int:
    return round(size / 2**20)


def peak_memory(**settings: Any) -> tuple[int, int, float]:
    """Bytes of a fresh process, the most that it had and the most before it explained, and the seconds that it took."""
    with child("memory", settings) as process:
        peak, before, seconds = json.loads(_answer(process))
    return peak, before, seconds


def processes(setting: Setting) -> Iterator[Measurement]:
    """Samples a second of two processes with a core each, over those of one process with one core."""
    if setting.device.type != "cpu":
        return
    for name in setting.networks:
        if name == "ResNet50":
            continue
        number = 2 if setting.tiny else 256 if name == "LeNet" else 16
        draws = setting.draws(case(name, number, setting.device), 10, least=2)
        settings = {"network": name, "samples": number, "draws": draws}
        with ExitStack() as stack:
            alone = stack.enter_context(workers(1, settings))
            together = stack.enter_context(workers(2, settings))
            for job, aim in {"evaluate": 1.8, "bare gradients": None}.items():
                ratios, seconds = alternately(partial(run, alone, job), partial(run, together, job), setting)
                twice = tuple(2 * ratio for ratio in ratios)  # the samples
                what = f"throughput of {job}, {draws} draws, 2 processes on 2 cores / 1 on 1"
                yield Measurement("processes", what, name, number, SINGLE, twice, seconds, aim, at_least=True)


def share_scores(number: int, device: str) -> dict[str, list[float]]:
    """Scores of samples that so many processes share: with GPUs enough one each, or else all on the first."""
    with ExitStack() as stack:
        answers = [json.loads(_answer(process)) for process in _group(stack, "share", number, {"device": device})]
    return answers[0]


@contextmanager
def workers(number: int, settings: dict[str, Any]) -> Iterator[list[subprocess.Popen]]:
    """Processes that wait for a line with a job and then do it, each its share."""
    with ExitStack() as stack:
        group = _group(stack, "worker", number, settings)
        for process in group:
            _answer(process)  # it is ready
        yield group
        for process in group:
            process.stdin.close()  # type: ignore[union-attr]


def _group(stack: ExitStack, kind: str, number: int, settings: dict[str, Any]) -> list[subprocess.Popen]:
    """Processes of the same kind that know of one another."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = settings | {"world": number, "port": port}
    return [stack.enter_context(child(kind, shared | {"rank": rank})) for rank in range(number)]


def run(group: list[subprocess.Popen], job: str) -> float:
    """Seconds until all have done it."""
    start = time.perf_counter()
    for process in group:
        process.stdin.write(f"{job}\n")  # type: ignore[union-attr]
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


def measure_memory(network: str, batch: int, device: str, draws: int, precision: Precision) -> None:
    """Write the most memory, in bytes, that this process has during an explanation and before, and its seconds."""
    one = case(network, batch, torch.device(device))
    forget_peak(one.images.device)
    before = peak(one.images.device)
    explained = partial(lx.explain, *one.arguments, lx.smooth_grad(num_draws=draws), precision=precision)
    seconds = timed(explained, one.images.device)()
    print(json.dumps([peak(one.images.device), before, seconds]))


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
    """Evaluate `samples` samples of this process, or make bare gradients of them, as the lines that come in say."""
    torch.set_num_threads(1)
    one = case(network, samples, torch.device("cpu"))
    methods = {
        "smooth_grad": lx.smooth_grad(num_draws=draws),
        "noise_grad": lx.noise_grad(num_draws=draws),
        "fusion_grad": lx.fusion_grad(num_weight_draws=draws, num_input_draws=2),
    }
    _, loop, _ = bare_loop(one, 3 * draws, SINGLE, Setting(one.images.device))
    if world > 1:
        address = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    print("ready", flush=True)
    evaluated = partial(lx.evaluate, *one.arguments, methods, {"sparseness": Sparseness()})
    index = one.samples.index + rank * samples
    for job in sys.stdin:
        if job.strip() == "evaluate":
            evaluated(index=index)
        else:
            loop()
        print("done", flush=True)
    if world > 1:
        torch.distributed.destroy_process_group()


def share(device: str, world: int, port: int, rank: int) -> None:
    """Write the scores that all processes have found together."""
    enough = device == "cuda" and torch.cuda.device_count() >= world
    backend, address = "nccl" if enough else "gloo", f"tcp://127.0.0.1:{port}"
    if device == "cuda":
        torch.cuda.set_device(rank if enough else 0)
    torch.distributed.init_process_group(backend, init_method=address, rank=rank, world_size=world)
    print(json.dumps(scores_of(slice(rank, None, world), device)), flush=True)
    torch.distributed.destroy_process_group()


def scores_of(rows: slice, device: str) -> dict[str, list[float]]:
    """Of these of nine samples, and of those of the other processes."""
    one = case("LeNet", 9, torch.device(device))
    images, target, index = (part[rows] for part in (one.images, one.target, one.samples.index))
    methods = {"SmoothGrad": lx.smooth_grad(num_draws=4), "NoiseGrad": lx.noise_grad(num_draws=2)}
    found = lx.evaluate(one.model, images, target, methods, {"sparseness": Sparseness()}, index=index).scores
    return {f"{method} {name}": x.tolist() for method, scores in found.items() for name, x in scores.items()}


if __name__ == "__main__":
    kind, settings = sys.argv[1:]
    {"memory": measure_memory, "worker": work, "share": share}[kind](**json.loads(settings))
