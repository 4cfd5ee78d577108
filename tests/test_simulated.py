"""The laws of `simulated_laws`, in a process that has not differentiated anything yet: see `simulated`."""

import os
import subprocess
import sys
from pathlib import Path

from tests.simulated import OWN_PROCESS, needs_simulation

RUN = "import os, sys, pytest; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)"
"""PyTorch does not survive an orderly exit with a device of Python's."""


@needs_simulation
def test_laws_on_a_simulated_accelerator() -> None:
    laws = str(Path(__file__).with_name("simulated_laws.py"))
    done = subprocess.run(
        [sys.executable, "-c", RUN, laws, "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        env={**os.environ, OWN_PROCESS: "1"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
