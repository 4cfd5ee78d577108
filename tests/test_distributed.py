"""Two processes give what one gives, sample for sample."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_xai.reporting.scores import ScoreRow, read_scores

ROOT = Path(__file__).parents[1]
NUM_SAMPLES = 21  # not divisible by two

METHODS = {
    "gradient": {"class_path": "lightning_xai.Gradient"},
    "smooth_grad": {"class_path": "lightning_xai.smooth_grad", "init_args": {"num_draws": 4}},
    "adapt_grad": {"class_path": "lightning_xai.adapt_grad", "init_args": {"num_draws": 4}},
    "noise_grad": {"class_path": "lightning_xai.noise_grad", "init_args": {"num_draws": 2}},
    "fusion_grad": {
        "class_path": "lightning_xai.fusion_grad",
        "init_args": {"num_weight_draws": 2, "num_input_draws": 2},
    },
    "random": {"class_path": "lightning_xai.explainers.RandomAttribution"},
}


def write_config(folder: Path, devices: int, batch_size: int) -> Path:
    """The quickstart's network, untrained, validated on a set that two processes cannot halve."""
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    attribution = {"methods": METHODS, "num_samples": NUM_SAMPLES, "panel_size": 2, "batch_size": batch_size}
    config["trainer"] |= {
        "accelerator": "cpu",
        "devices": devices,
        "strategy": "ddp" if devices > 1 else "auto",
        "logger": False,
        "default_root_dir": str(folder),
        "enable_progress_bar": False,
        "callbacks": [{"class_path": "lightning_xai.callbacks.AttributionCallback", "init_args": attribution}],
    }
    config["data"]["init_args"]["val_size"] = NUM_SAMPLES
    folder.mkdir()
    path = folder / "settings.yaml"  # config.yaml is what the run itself writes
    path.write_text(yaml.safe_dump(config))
    return path


def validate(folder: Path, devices: int, batch_size: int) -> list[ScoreRow]:
    config = write_config(folder, devices, batch_size)
    command = [sys.executable, "-m", "lightning_xai", "validate", "--config", str(config)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return read_scores(folder / "xai" / "scores.csv")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ScoreRow], list[ScoreRow]]:
    folder = tmp_path_factory.mktemp("distributed")
    return validate(folder / "one", 1, 64), validate(folder / "two", 2, 5)


def test_two_processes_score_each_sample_once(runs: tuple[list[ScoreRow], list[ScoreRow]]) -> None:
    one, two = runs
    assert [(r.method, r.metric, r.sample) for r in one] == [(r.method, r.metric, r.sample) for r in two]
    samples = [row.sample for row in two if (row.method, row.metric) == ("noise_grad", "sparseness")]
    assert len(set(samples)) == len(samples) == NUM_SAMPLES


def test_two_processes_and_other_batches_give_the_same_scores(runs: tuple[list[ScoreRow], list[ScoreRow]]) -> None:
    one, two = runs
    assert {row.method for row in one} == set(METHODS)
    for a, b in zip(one, two, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-5), (a, b)


def test_the_noise_is_the_same_bit_for_bit(runs: tuple[list[ScoreRow], list[ScoreRow]]) -> None:
    one, two = ([row.value for row in run if row.method == "random"] for run in runs)
    assert one == two
