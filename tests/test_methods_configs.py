"""Every file of methods in configs/methods runs through the command line."""

import math
import sys
from pathlib import Path

import pytest
import yaml

import lightning_xai as lx
from lightning_xai.cli import main
from lightning_xai.cli.command_line import XAICommandLine
from lightning_xai.explainers import grad_cam
from lightning_xai.metrics import MaxSensitivity, Sparseness
from lightning_xai.results.store import read_scores

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "configs" / "methods").glob("*.yaml"))
TABLE_2 = ("Grad", "SG", "AG", "GI", "S-GI", "A-GI", "IG(W)", "S-IG(W)", "A-IG(W)", "IG(B)", "S-IG(B)", "A-IG(B)")
METRICS = """
sparseness: {class_path: lightning_xai.metrics.Sparseness}
information_level:
  class_path: lightning_xai.metrics.InformationLevel
  init_args: {min_score: 0.0, random_fraction: 0.0}  # few random pixels: with more many scores are undefined
"""

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
)


def fewer(settings):
    """The same with few draws and steps."""
    if isinstance(settings, dict):
        few = {"num_draws": 2, "num_steps": 3}
        return {key: few.get(key, fewer(value)) for key, value in settings.items()}
    return settings


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_method_runs_with_sparseness_and_information_level(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)
    methods = yaml.safe_load(file.read_text(encoding="utf-8"))
    (tmp_path / "methods.yaml").write_text(yaml.safe_dump(fewer(methods), sort_keys=False))
    (tmp_path / "metrics.yaml").write_text(METRICS)
    options = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"]
    callback = "--trainer.callbacks.init_args"
    options += [f"{callback}.num_samples=8", f"{callback}.methods=methods.yaml", f"{callback}.metrics=metrics.yaml"]
    main(["fit", f"--config={ROOT}/configs/quickstart.yaml", *options])
    rows = read_scores(tmp_path / "runs/quickstart/version_0/xai/scores")
    found = {(row.method, row.metric) for row in rows if not math.isnan(row.value)}
    assert {(name, metric) for name in methods for metric in ("sparseness", "information_level")} <= found
    capsys.readouterr()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_itself_is_accepted(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)
    methods = f"--trainer.callbacks.init_args.methods={file}"
    with pytest.raises(SystemExit) as caught:
        main(["test", f"--config={ROOT}/configs/quickstart.yaml", methods, "--print_config"])
    assert caught.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"][-1]["init_args"]["methods"]
    assert list(printed) == list(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_adaptgrads_table_2_has_its_fifteen_rows():
    methods = yaml.safe_load((ROOT / "configs" / "methods" / "adaptgrad_table2.yaml").read_text(encoding="utf-8"))
    assert tuple(methods) == (*TABLE_2, "NG", "S-NG", "A-NG")


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("[smooth_grad, grad_cam]", {"smooth_grad": lx.smooth_grad(), "grad_cam": grad_cam()}),
        (
            "{G: gradient, N: {class_path: noise_grad, init_args: {std: 0.1, explainer: gradient}}}",
            {"G": lx.Gradient(), "N": lx.noise_grad(lx.Gradient(), std=0.1)},
        ),
    ],
)
@pytest.mark.parametrize("where", ["option", "file", "configuration"])
def test_plain_names_are_enough(text, methods, where, tmp_path, monkeypatch):
    """As the value of an option, in a file of methods, and in a configuration."""
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)
    callback = {"methods": yaml.safe_load(text), "metrics": ["sparseness", "MaxSensitivity"]}
    spec = {"class_path": "lightning_xai.callbacks.AttributionCallback", "init_args": callback}
    (tmp_path / "methods.yaml").write_text(text)
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [spec]}}))
    given = {"option": f"={text}", "file": "=methods.yaml"}.get(where)
    more = [] if given is None else [f"--trainer.callbacks.methods{given}"]
    words = [f"--config={ROOT}/configs/quickstart.yaml", "--config=more.yaml", *more]
    command = XAICommandLine("fit", words)
    found = command.trainer.callbacks[0]
    assert found.methods == methods
    assert {name: type(metric) for name, metric in found.metrics.items()} == {
        "sparseness": Sparseness,
        "max_sensitivity": MaxSensitivity,
    }
