"""The check of a device: it runs, says what it is not, and tells what is broken; what a GPU does is not asked here."""

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import torch

from tests.simulated import needs_simulation

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def gpu_check(monkeypatch, tmp_path):
    """The script as a module, with `run`, which returns the exit status and what was written."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    loader = SourceFileLoader("gpu_check", str(SCRIPTS / "gpu_check"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
    loader.exec_module(module)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gpu_check", "--output", str(tmp_path / "new" / "check.md"), *words])
        with pytest.raises(SystemExit) as leaving:
            module.main()
        return leaving.value.code, (tmp_path / "new" / "check.md").read_text()

    module.run = run
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_everything_runs_on_a_cpu(gpu_check, capsys):
    code, page = gpu_check.run("--device", "cpu", "--tiny")
    assert code == 0
    assert page.strip() == capsys.readouterr().out.strip()
    assert "**This is not a GPU** but cpu" in page
    assert f"torch {torch.__version__.split('+')[0]}" in page
    assert "All laws hold." in page
    for line in (
        "noise, standard_normal",
        "ResNet9: FusionGrad as on the CPU, float64",
        "LeNet: SmoothGrad in passes of 3 rows, float64",
        "an LSTM: SmoothGrad as on the CPU, float32",
        "LeNet: max sensitivity of NoiseGrad as on the CPU",
        "everything comes back",
        "LeNet: scores of two processes (by gloo) as of one",
        "ResNet9: peak memory of 20 draws / 2 draws",
        "LeNet on sim, 4 images: NoiseGrad, 16 models",
    ):
        assert page.count(f"\n| {line} |") == 1, line
    for line in ("AdaptGrad, 2 draws / bare gradients", "FusionGrad, 2 x 2 draws / bare gradients", "noise in place"):
        assert [f"| LeNet | 2 | {precision} |" in page for precision in ("32-true", "tf32", "bf16-mixed")] == [True] * 3
        assert line in page
    assert "Captum" in page
    assert "Quantus" in page


@pytest.mark.slow
@needs_simulation
def test_its_laws_hold_on_the_simulated_device(tmp_path):
    words = [
        sys.executable,
        str(SCRIPTS / "gpu_check"),
        "--device",
        "sim",
        "--tiny",
        "--output",
        str(tmp_path / "page"),
    ]
    done = subprocess.run(words, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "All laws hold." in (tmp_path / "page").read_text()
    assert "**no**" not in done.stdout


def test_what_is_broken_is_told_and_the_rest_runs(gpu_check, monkeypatch):
    def law(holds):
        return lambda setting: iter([gpu_check.Law(f"law | {holds}", "1", "2", holds)])

    def breaks_down(setting):
        yield gpu_check.Law("before", "1", "2", True)
        raise ArithmeticError("no such thing\nmore")

    measured = gpu_check.Measurement(
        "row", "a / b", "LeNet", 1, "32-true", (1.0,), 1.0, aim=0.5
    )  # a missed aim is none
    laws = {"good": law(True), "bad": law(False), "breaks": breaks_down, "told": law(None)}
    monkeypatch.setattr(gpu_check, "LAWS", laws)
    monkeypatch.setattr(gpu_check, "launches", law(True))
    monkeypatch.setattr(gpu_check, "times", lambda setting: {"times": lambda: iter([measured, measured])})
    code, page = gpu_check.run("--device", "cpu")
    assert code == 1
    assert page.count("| 1 | 2 | yes |") == 3
    assert "| law / False | 1 | 2 | **no** |" in page
    assert "| breaks | failed: ArithmeticError: no such thing |  | **no** |" in page
    assert "| law / None | 1 | 2 |  |" in page
    assert page.count("| a / b | LeNet | 1 |") == 2
    assert "**2 broken.**" in page
    monkeypatch.setattr(gpu_check, "LAWS", {"good": law(True)})
    code, page = gpu_check.run("--device", "cpu", "--seconds", "0")
    assert code == 0
    assert "*times: no time.*" in page
    assert "| a / b |" not in page


def test_a_device_that_is_not_there_is_refused(gpu_check, capsys):
    with pytest.raises(FileNotFoundError):  # nothing is written
        gpu_check.run("--device", "abacus")
    assert "argument --device: 'abacus' cannot be used here" in capsys.readouterr().err


def test_launches_and_waits_are_found_among_the_profilers_events(gpu_check):
    launches = sys.modules["benchmark_rows.launches"]
    for name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "hipModuleLaunchKernel"):
        assert launches._LAUNCH.fullmatch(name)
    for name in ("cudaMemcpyAsync", "cudaMemsetAsync", "cudaMemcpy2DAsync", "hipMemcpyAsync"):
        assert launches._LAUNCH.fullmatch(name)
    for name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"):
        assert launches._WAIT.fullmatch(name)
    for name in ("aten::add", "cudaEventRecord", "cudaStreamIsCapturing", "cudaGetDevice", "Memcpy HtoD"):
        assert not launches._LAUNCH.fullmatch(name)
        assert not launches._WAIT.fullmatch(name)


def test_a_pass_beyond_its_budget_breaks_the_law(gpu_check):
    launches = sys.modules["benchmark_rows.launches"]

    def verdicts(smoothed, waits):
        counts = {"bare pass": (20, 0), "gradient": (50, 4), "SmoothGrad, 64 draws": (50 + 63 * smoothed, waits)}
        return [law.holds for law in launches.within_budget("here", counts)]

    assert verdicts(45, 4) == [True, True, True]
    assert verdicts(46, 4) == [True, True, False]
    assert verdicts(45, 5) == [True, True, False]
