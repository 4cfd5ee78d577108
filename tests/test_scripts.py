"""The scripts do what they say, on something tiny."""

import importlib.util
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lightning_xai as lx
from lightning_xai.callbacks.samples import Samples

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_quantus_agrees_where_nothing_is_drawn_and_nearly_where_something_is(monkeypatch):
    comparison = script("quantus_comparison")
    monkeypatch.setattr(comparison, "METHODS", {"saliency": lx.Saliency(), "sg": lx.smooth_grad(num_draws=4)})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).eval()
    masks = torch.rand(3, 16, 16) < 0.3
    samples = Samples(torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 4]), torch.tensor([7, 8, 9]), masks)
    rows = {
        "lightning_xai": comparison.our_table(model, samples, (0.0, 1.0)),
        "quantus": comparison.quantus_table(model, samples, (0.0, 1.0)),
    }
    found = {library: {(r.method, r.metric, r.sample): r.value for r in some} for library, some in rows.items()}
    assert found["quantus"].keys() <= found["lightning_xai"].keys()
    for key, value in found["quantus"].items():
        if key[1] in ("relevance_rank_accuracy", "auroc", "sparseness"):
            assert found["lightning_xai"][key] == pytest.approx(value, abs=1e-5), key
        elif key[1] == "max_sensitivity":  # other perturbations of the same distribution
            assert found["lightning_xai"][key] == pytest.approx(value, rel=0.5), key
    text = comparison.side_by_side(rows)
    assert text.count("\n") == 1 + 2 * 5
    mean = np.mean([v for (method, metric, _), v in found["quantus"].items() if (method, metric) == ("sg", "auroc")])
    assert f"| auroc | sg | {mean:.4f} | {mean:.4f} |" in text


@pytest.mark.filterwarnings("ignore")
def test_validations_are_measured(tmp_path):
    text = "\n".join(script("measure_validations").measure(tmp_path, 4, 1, 2, "all"))
    assert "scores: 4 files" in text
    assert "panels: 2 files" in text
    assert f"read_scores: {4 * 8 * 5 * 64} rows" in text


def test_a_comparison_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS.parent))
    measuring = script("measure_compare")
    measuring.write(tmp_path, samples=20, methods=5, metrics=3, validations=2)
    _, busy, gib = measuring.measure(tmp_path, ["--alpha", "0.1"])
    assert busy > 0
    assert gib > 0.05  # a child counts the memory of this process too, until it has begun
    text = (tmp_path / "compare.txt").read_text()
    assert "validate, epoch 1, step 1, 20 samples" in text
    assert "90 % confidence interval" in " ".join(text.split())


def test_evaluations_are_measured(tmp_path, capsys):
    measure = script("measure_evaluate")
    options = Namespace(size=16, batch_size=4, workers=0)
    measure.evaluated(options, str(tmp_path), 6, (1, 1))
    found = json.loads(capsys.readouterr().out)
    assert found["finished"] == 6
    measure.report(tmp_path, 6, found)
    assert "2 files" in (out := capsys.readouterr().out)
    assert "24 scores read" in out
