"""What is launched, and how often the CPU waits: on a GPU by its profiler, and on the simulated device of the tests.

    python -m benchmark_rows.launches NETWORK ...

is the process that counts on the simulated device; it writes JSON.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

import lightning_xai as lx
from benchmark_rows.laws import NETWORKS, Law
from benchmark_rows.measuring import Setting, case, gradient, synchronize

ROOT = Path(__file__).parents[2]
ROWS, DRAWS, MODELS = 4, 64, 16
BEYOND = {f"SmoothGrad, {DRAWS} draws": (DRAWS, 25), f"NoiseGrad, {MODELS} models": (MODELS, 40)}
"""By what is explained: how many passes it makes, and launches that each may cost beyond a bare one."""
Counts = dict[str, dict[str, tuple[int, int]]]

_LAUNCH = re.compile(r"(cuda|cu|hip)(Launch.*|ExtLaunch.*|ModuleLaunch.*|Memcpy.*Async.*|Memset.*Async.*)")
_WAIT = re.compile(r"(cuda|cu|hip)(Stream|Device|Event|Ctx)Synchronize.*")


def launches(setting: Setting) -> Iterator[Law]:
    """Launches of a smoother's pass, and waits of an explanation, within the tests' budgets."""
    names = NETWORKS[:1] if setting.tiny else NETWORKS
    tables = {"sim": simulated(names)}
    if setting.device.type == "cuda":
        tables["GPU"] = {name: profiled(name, setting.device) for name in names}
    for where, table in tables.items():
        for name, counts in table.items():
            yield from within_budget(f"{name} on {where}, {ROWS} images", counts)


def within_budget(where: str, counts: dict[str, tuple[int, int]]) -> Iterator[Law]:
    bare, one = counts["bare pass"][0], counts["gradient"][0]
    for what, (number, waits) in counts.items():
        found, allowed, holds = f"{number} launches, {waits} waits", "4 waits", waits <= 4
        if what in BEYOND:
            passes, budget = BEYOND[what]
            each = (number - one) / (passes - 1)
            found += f", {each:.1f} launches a pass"
            allowed, holds = f"4 waits, {bare} + {budget} launches a pass", holds and each <= bare + budget
        yield Law(f"{where}: {what}", found, allowed, holds)


def tasks(name: str, device: torch.device) -> dict[str, Callable[[], object]]:
    """A bare pass, and explanations, in passes of four rows."""
    one = case(name, ROWS, device)
    methods = {
        "gradient": lx.Gradient(),
        f"SmoothGrad, {DRAWS} draws": lx.smooth_grad(num_draws=DRAWS),
        f"NoiseGrad, {MODELS} models": lx.noise_grad(num_draws=MODELS),
    }
    explained = {
        label: partial(lx.explain, *one.arguments, method, max_rows=ROWS, bounds=one.bounds)
        for label, method in methods.items()
    }
    return {"bare pass": partial(gradient, *one.arguments), **explained}


def profiled(name: str, device: torch.device) -> dict[str, tuple[int, int]]:
    """Launches and waits of a GPU, each task's second time, less what the profiler itself does."""

    def counted(task: Callable[[], object]) -> tuple[int, int]:
        synchronize(device)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            task()
        names = [event.name for event in profiler.events()]
        return sum(map(bool, map(_LAUNCH.fullmatch, names))), sum(map(bool, map(_WAIT.fullmatch, names)))

    found, nothing = dict[str, tuple[int, int]](), counted(lambda: None)
    for label, task in tasks(name, device).items():
        task()
        number, waits = counted(task)
        found[label] = number - nothing[0], waits - nothing[1]
    return found


def simulated(names: Sequence[str]) -> Counts:
    """The same on the tests' device, in a process that has not differentiated anything."""
    paths = [str(ROOT / "scripts"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    words = [sys.executable, "-m", "benchmark_rows.launches", *names]
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"counting on the simulated device failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def count_simulated(names: Sequence[str]) -> Counts:
    from tests.simulated import Simulation

    found: Counts = {}
    with Simulation() as simulation:
        for name in names:
            found[name] = {}
            for label, task in tasks(name, torch.device("sim")).items():
                task()
                simulation.counts()
                task()
                found[name][label] = simulation.counts()[:2]
    return found


if __name__ == "__main__":
    print(json.dumps(count_simulated(sys.argv[1:])), flush=True)
    os._exit(0)  # PyTorch does not survive an orderly exit with a device of Python's
