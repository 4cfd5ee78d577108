"""The examples of docs/ run, and are as short as they say."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_xai.results.store import read_scores

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
pytestmark = pytest.mark.filterwarnings("ignore")  # of many packages


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs one in an empty folder, and returns what it printed."""

    def run_example(name):
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def scores_of(folder):
    return read_scores(folder / "lightning_logs" / "version_0" / "xai" / "scores").to_dataframe()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_have_40_lines(path):
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.slow
def test_a_vit_on_a_folder(tmp_path):
    pytest.importorskip("timm")
    for part, number in (("train", 6), ("val", 3)):
        for color, name in ((200, "light"), (50, "dark")):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for count in range(number):
                noise = torch.randint(0, 55, (70, 60, 3)).add(color).byte().numpy()
                Image.fromarray(noise).save(tmp_path / "pictures" / part / name / f"{count}.png")
    # As a program: here annotations are checked, and those of the callback's options are of what YAML has.
    command = [sys.executable, EXAMPLES / "vit_on_a_folder.py", "pictures"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent.parent)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "grad_cam" in ran.stdout
    found = scores_of(tmp_path)
    assert set(found["method"]) == {"smooth_grad", "adapt_grad", "grad_cam", "edges", "random"}
    assert found["sample"].nunique() == 6
    assert len([*tmp_path.rglob("xai/panels/*.png")]) == 1


def test_a_classifier_of_transformers(run):
    pytest.importorskip("transformers")
    printed = run("transformers_classifier.py")
    assert "[2, 3, 64, 64]" in printed
    assert all(f"\n{method} " in printed for method in ("grad_cam", "rough", "smooth"))


@pytest.mark.slow
def test_scans(run, tmp_path):
    pytest.importorskip("monai")
    printed = run("scans.py")
    assert "validate-epoch=001-step=8.png" in printed
    found = scores_of(tmp_path)
    assert set(found["metric"]) >= {"auroc", "relevance_rank_accuracy", "sparseness"}
    assert found["sample"].nunique() == 8


def test_streams(run, tmp_path):
    run("streams.py")
    found = scores_of(tmp_path)
    assert sorted(found["step"].unique()) == [50, 100]
    assert sorted(found["stage"].unique()) == ["validate/clean", "validate/noisy"]
    assert found.groupby("stage")["sample"].nunique().tolist() == [64, 64]
