"""The laws of `simulated_laws`, in a process that has not differentiated anything yet: see `simulated`."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.simulated import OWN_PROCESS, needs_simulation

ROOT = Path(__file__).parent.parent
RUN = "import os, sys, pytest; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"
"""PyTorch does not survive an orderly exit with a device of Python's."""


@needs_simulation
@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_laws_on_a_simulated_accelerator(marked: str) -> None:
    laws = str(Path(__file__).with_name("simulated_laws.py"))
    done = subprocess.run(
        [sys.executable, "-c", RUN, laws, "-q", "-m", marked, "-p", "no:cacheprovider"],
        # Types are checked on the CPU, by the same laws' other halves: here nothing but the device is new.
        env={**os.environ, OWN_PROCESS: "1", "JAXTYPING_DISABLE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


SHARE = """
import json, os, sys
import torch
import lightning_xai as lx
from lightning_xai.metrics import FaithfulnessCorrelation, Sparseness
from tests.simulated import Simulation

rank, world, port = map(int, sys.argv[1:])
with Simulation() as sim:
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(108, 3))
    images = torch.rand(5, 1, 8, 8)
    if world > 1:
        address = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    mine = torch.arange(5)[rank::world]
    methods = {"sg": lx.smooth_grad(num_draws=3), "ng": lx.noise_grad(num_draws=2)}
    metrics = {"sparseness": Sparseness(), "faithfulness": FaithfulnessCorrelation(num_subsets=8, subset_size=9)}
    there = images[mine].to("sim")
    found = lx.evaluate(model.to("sim"), there, None, methods, metrics, bounds=(0.0, 1.0), index=mine, batch_size=2)
    assert found.index.tolist() == list(range(5))
    print(json.dumps({f"{m} {n}": x.tolist() for m, scores in found.scores.items() for n, x in scores.items()}))
    sys.stdout.flush()
    if world > 1:
        torch.distributed.barrier()
os._exit(0)
"""


@needs_simulation
@pytest.mark.slow
def test_two_processes_share_samples_on_a_simulated_accelerator() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def scores(rank: int, world: int) -> dict[str, list[float]]:
        words = [sys.executable, "-c", SHARE, str(rank), str(world), str(port)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor() as pool:
        alone, first, second = pool.map(scores, (0, 0, 1), (1, 2, 2))
    assert first == second
    assert first.keys() == alone.keys()
    for name, scores in alone.items():
        assert first[name] == pytest.approx(scores, rel=1e-5, abs=1e-5), name
