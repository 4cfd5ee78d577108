"""Commands about finished runs answer without torch, and say the same as with it."""

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_xai
from lightning_xai.cli import main
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, write_directions

NO_TORCH = """
import sys

class NoTorch:
    def find_spec(name, *_):
        if name.partition(".")[0] in ("torch", "pytorch_lightning", "torchmetrics"):
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, NoTorch)
from lightning_xai.cli import main
main(sys.argv[1:])
"""


def without_torch(*words: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", NO_TORCH, *words]
    return subprocess.run(command, capture_output=True, cwd=Path(lightning_xai.__file__).parents[1], **options)


@pytest.fixture
def run(tmp_path):
    methods = {"good": 0.9, "bad": 0.1, "random": 0.2, "=odd": 0.5}
    path = tmp_path / "version_0" / "xai" / "scores"
    append_scores(
        path,
        Scores.from_rows(
            ("test", 0, 3, method, metric, sample, value + sample % 5 / 100)
            for method, value in methods.items()
            for metric in ("gini", "noise")
            for sample in range(12)
        ),
    )
    write_directions(path, {"gini": True, "noise": False})
    return tmp_path / "version_0"


def test_compare_needs_no_torch_and_says_the_same(run, tmp_path, capsys):
    main(["compare", str(run), "--output", str(tmp_path / "with")])
    done = without_torch("compare", str(run), "--output", str(tmp_path / "without"))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == capsys.readouterr().out.replace(str(tmp_path / "with"), str(tmp_path / "without"))
    made = {path.name: path.read_bytes() for path in (tmp_path / "without").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "with").iterdir()}
    assert {"comparison.csv", "comparison.md", "comparison.tex", "comparison-agreement.png"} < made.keys()


def test_report_needs_no_torch_and_says_the_same(run, tmp_path, capsys):
    main(["report", str(run), "--output", str(tmp_path / "with.html")])
    done = without_torch("report", str(run), "--output", str(tmp_path / "without.html"))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == capsys.readouterr().out.replace("with.", "without.")
    assert (tmp_path / "without.html").read_bytes() == (tmp_path / "with.html").read_bytes()
    assert (tmp_path / "without.json").read_bytes() == (tmp_path / "with.json").read_bytes()


def test_export_needs_no_torch(run, tmp_path, capsys):
    main(["export", str(run)])
    done = without_torch("export", str(run), "--output", str(tmp_path / "scores.csv"))
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "scores.csv").read_text() == capsys.readouterr().out


def test_a_refusal_needs_no_torch_either(tmp_path):
    done = without_torch("compare", str(tmp_path))
    assert b"`runs`: no scores in " in done.stderr
    assert b"is imported" not in done.stderr
