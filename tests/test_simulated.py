"""The laws of `simulated_laws`, in a process that has not differentiated anything yet: see `simulated`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated import OWN_PROCESS, needs_simulation

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
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
