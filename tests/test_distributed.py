"""Two processes give what one gives, sample for sample, for every metric of the package."""

import csv
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import lightning_xai.metrics
from lightning_xai.cli import main
from lightning_xai.metrics import SampleMetric
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.store import read_scores
from tests.forked import finish, forked

ROOT = Path(__file__).parents[1]
NUM_SAMPLES = 9  # not divisible by two

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
FEW_DRAWS, FEW_STEPS = {"num_draws": 2}, {"num_steps": 5}
METRICS = {
    "AverageSensitivity": FEW_DRAWS | {"independent": True},
    "Complexity": {},
    "DeletionAUC": FEW_STEPS,
    "EffectiveComplexity": {},
    "FaithfulnessCorrelation": {"num_subsets": 5, "subset_size": 100},
    "Infidelity": FEW_DRAWS,
    "InformationLevel": {"min_score": 0.0},
    "InherentNoise": {},
    "InsertionAUC": FEW_STEPS,
    "LocalLipschitz": FEW_DRAWS,
    "LocalizationAUROC": {},
    "MaxSensitivity": FEW_DRAWS,
    "PixelFlipping": FEW_STEPS,
    "PointingGame": {},
    "RelevanceMassAccuracy": {},
    "RelevanceRankAccuracy": {},
    "Sparseness": {},
    "TopKIntersection": {"k": 50},
}

COUNTS = {"EffectiveComplexity", "LocalizationAUROC", "PointingGame", "RelevanceRankAccuracy", "TopKIntersection"}
"""Metrics that compare the values of a map and count: no sum of theirs is rounded."""


def write_config(folder: Path, devices: int, **trainer: Any) -> Path:
    """The quickstart's network, untrained, validated on a set that two processes cannot halve."""
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    config["trainer"] |= {
        "accelerator": "cpu",
        "devices": devices,
        "strategy": "ddp" if devices > 1 else "auto",
        "logger": False,
        "default_root_dir": str(folder),
        "enable_progress_bar": False,
    }
    config["trainer"] |= trainer
    config["data"]["init_args"]["val_size"] = NUM_SAMPLES
    folder.mkdir()
    path = folder / "settings.yaml"  # config.yaml is what the run itself writes
    path.write_text(yaml.safe_dump(config))
    return path


def attribution(batch_size: int) -> dict[str, Any]:
    """The callback with all metrics."""
    metrics = {n: {"class_path": f"lightning_xai.metrics.{n}", "init_args": args} for n, args in METRICS.items()}
    settings = {
        "methods": METHODS,
        "metrics": metrics,
        "num_samples": NUM_SAMPLES,
        "panel_size": 2,
        "batch_size": batch_size,
        "target": "prediction",  # of its label an untrained network may know less than of a few random pixels
    }
    return {"class_path": "lightning_xai.callbacks.AttributionCallback", "init_args": settings}


def run(command: str, *configs: Path) -> None:
    """Each in a process of its own, as if it were the program: the strategy starts the other ones as it was started."""
    finish(*[forked(_program, command, "--config", str(config)) for config in configs])


def _program(*words: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.argv = ["lightning_xai", *words]
    sys.modules["__main__"].__spec__ = find_spec("lightning_xai.__main__")
    main()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scores, Scores]:
    folder = tmp_path_factory.mktemp("distributed")
    one = write_config(folder / "one", 1, callbacks=[attribution(64)])
    two = write_config(folder / "two", 2, callbacks=[attribution(2)])
    run("validate", one, two)
    first, second = (read_scores(folder / name / "xai" / "scores") for name in ("one", "two"))
    return first, second


def test_two_processes_score_each_sample_once(runs: tuple[Scores, Scores]) -> None:
    one, two = runs
    assert [(r.method, r.metric, r.sample) for r in one] == [(r.method, r.metric, r.sample) for r in two]
    for metric in (*METRICS, GRADIENTS):
        samples = [row.sample for row in two if (row.method, row.metric) == ("noise_grad", metric)]
        assert len(set(samples)) == len(samples) == NUM_SAMPLES


def test_two_processes_and_other_batches_give_the_same_scores(runs: tuple[Scores, Scores]) -> None:
    one, two = runs
    assert {row.method for row in one} >= set(METHODS)
    for a, b in zip(one, two, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-5, nan_ok=True), (a, b)


def test_every_metric_gives_numbers_to_compare(runs: tuple[Scores, Scores]) -> None:
    for metric in METRICS:
        defined = [row for row in runs[0] if row.metric == metric and math.isfinite(row.value)]
        assert len(defined) >= NUM_SAMPLES, metric


def test_the_noise_is_the_same_bit_for_bit(runs: tuple[Scores, Scores]) -> None:
    """Of random maps, which are nothing but noise, whatever is counted; batches of another size may round sums."""
    one, two = ([row.value for row in run if row.method == "random" and row.metric in COUNTS] for run in runs)
    assert one == two
    assert len(one) == len(COUNTS) * NUM_SAMPLES


def test_every_metric_of_the_package_is_among_them() -> None:
    exported = (getattr(lightning_xai.metrics, name) for name in lightning_xai.metrics.__all__)
    classes = {c.__name__ for c in exported if isinstance(c, type) and issubclass(c, SampleMetric)}
    assert classes - {"SampleMetric"} == set(METRICS)


def randomized(folder: Path, devices: int, batch_size: int) -> Path:
    """Settings of a test with the callback of random weights."""
    methods = {name: METHODS[name] for name in ("gradient", "noise_grad")}
    settings = {"methods": methods, "num_samples": 7, "repeats": 3, "batch_size": batch_size}
    callback = {"class_path": "lightning_xai.callbacks.RandomizationCallback", "init_args": settings}
    logger = {
        "class_path": "pytorch_lightning.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder), "name": None, "version": ""},
    }
    return write_config(folder, devices, callbacks=[callback], logger=logger)


def logged(folder: Path) -> dict[str, float]:
    """What it logged at test end."""
    with (folder / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return {name: float(value) for name, value in row.items() if name.startswith("sanity/")}


@pytest.mark.slow
def test_two_processes_log_what_one_logs_of_random_weights(tmp_path: Path) -> None:
    run("test", randomized(tmp_path / "one", 1, 64), randomized(tmp_path / "two", 2, 3))
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    names = ("gradient", "noise_grad", "edges", "random")
    similarities = ("spearman_absolute", "spearman_absolute_floor", "ssim", "ssim_floor")
    assert one.keys() == {f"sanity/{name}/{similarity}" for name in names for similarity in similarities}
    assert two == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert one["sanity/gradient/ssim"] < 0.9


SPLIT = """
import sys, warnings
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.explainers import smooth_grad
from lightning_xai.metrics import Sparseness

warnings.filterwarnings("ignore")
folder, devices, limit = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return self(batch[0]).mean() * 0

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

images = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
data = TensorDataset(images, torch.arange(30) % 3)
sampler = SubsetRandomSampler(range(1, 30, 2), generator=torch.Generator().manual_seed(5))
callback = AttributionCallback({"sg": smooth_grad(num_draws=3)}, {"s": Sparseness()}, num_samples=7, panel_size=0)
strategy = "ddp" if devices > 1 else "auto"
trainer = Trainer(max_epochs=2, accelerator="cpu", devices=devices, strategy=strategy, default_root_dir=folder,
    logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    limit_val_batches=limit, callbacks=[callback])
trainer.fit(Module(), DataLoader(data, 10), DataLoader(data, 3, sampler=sampler))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["1.0", "2"])
def test_two_processes_explain_the_same_rows_of_a_split_in_the_sampler(tmp_path: Path, limit: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPLIT)

    def scores(devices: int) -> dict[tuple, float]:
        words = [sys.executable, str(script), str(tmp_path / str(devices)), str(devices), limit]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        rows = read_scores(tmp_path / str(devices) / "xai" / "scores")
        return {(row.sample, row.epoch, row.method, row.metric): row.value for row in rows}

    one, two = scores(1), scores(2)
    assert list(one) == list(two)
    assert two == pytest.approx(one, rel=1e-5, abs=1e-5, nan_ok=True)
    samples = {sample for sample, *_ in one}
    assert {sample % 2 for sample in samples} == {1}
    assert len(samples) == (7 if limit == "1.0" else 6)
