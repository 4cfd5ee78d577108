"""The benchmark runs every row on something tiny; how fast is not asked here."""

import importlib.util
import json
import logging
import math
import sys
from pathlib import Path

import pytest
import torch

import lightning_xai as lx

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def benchmark(monkeypatch):
    logger = logging.getLogger("pytorch_lightning")  # which the script quiets
    level = logger.level
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("benchmark", SCRIPTS / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "--device", "cpu", *map(str, words)])
        module.main()

    module.run = run
    yield module
    logger.setLevel(level)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [("smoothing", "captum"), pytest.param((), id="all", marks=pytest.mark.slow)])
def test_every_row_runs_and_is_written(benchmark, tmp_path, capsys, rows):
    benchmark.run("--tiny", "--networks", "LeNet", "--output", tmp_path, *(("--rows", *rows) if rows else ()))
    written = json.loads((tmp_path / "benchmark.json").read_text())
    measurements = written["measurements"]
    assert {measurement["row"] for measurement in measurements} == set(rows or benchmark.ROWS)
    for measurement in measurements:
        assert measurement["network"] == "LeNet"
        assert all(ratio > 0 for ratio in measurement["ratios"])
        low, high = measurement["quartiles"]
        assert 0 < low <= measurement["ratio"] <= high
        ratio, aim = measurement["ratio"], measurement["aim"]
        assert measurement["met"] is (
            None if aim is None else ratio >= aim if measurement["at_least"] else ratio <= aim
        )
    table = (tmp_path / "benchmark.md").read_text()
    assert capsys.readouterr().out.strip() == table.strip()
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert lines[0] == "| row | network | batch | precision | ratio | quartiles | aim | met? | seconds |"
    for measurement, line in zip(measurements, lines[2:], strict=True):
        assert line.startswith(f"| {measurement['what']} | LeNet | {measurement['batch']} |")
        assert f"| {measurement['ratio']:.3f} |" in line
    assert f"torch {torch.__version__.split('+')[0]}" in table
    assert "CPU" in table or "Processor" in table or "threads" in table


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", ["ResNet9", pytest.param("ResNet50", marks=pytest.mark.slow)])
def test_the_other_networks_run(benchmark, tmp_path, network):
    benchmark.run("--tiny", "--networks", network, "--rows", "captum", "--output", tmp_path)
    (measurement, *_) = json.loads((tmp_path / "benchmark.json").read_text())["measurements"]
    assert measurement["network"] == network
    assert measurement["ratio"] > 0


def test_medians_quartiles_and_aims(benchmark):
    def measured(*ratios, **options):
        return benchmark.Measurement("row", "a / b", "LeNet", 1, "32-true", ratios, 1.0, **options)

    assert measured(5.0, 1.0, 2.0, 4.0, 3.0).ratio == 3.0
    assert measured(5.0, 1.0, 2.0, 4.0, 3.0).quartiles == (2.0, 4.0)
    assert measured(1.0).met is None
    assert measured(1.0, aim=1.0).met is True
    assert measured(1.1, aim=1.0).met is False
    assert measured(1.1, aim=1.0, at_least=True).met is True
    never = measured(aim=0.4)
    assert math.isnan(never.ratio)
    assert never.met is False
    assert benchmark.report.record(never)["ratio"] is None


def test_pairs_are_measured_in_turn_after_a_warm_up(benchmark):
    calls = []

    def noted(name, value):
        return lambda: (calls.append(name), value)[1]

    setting = benchmark.Setting(torch.device("cpu"), pairs=3)
    measuring = sys.modules["benchmark_rows.measuring"]
    assert measuring.alternately(noted("A", 3.0), noted("B", 2.0), setting) == ((1.5, 1.5, 1.5), 3.0)
    assert calls == list("ABABABAB")


def test_the_error_is_that_of_the_draws_alone(benchmark):
    """Against a reference with as many draws, whose own error is taken off: σ / √n over the size of the mean."""
    draws = sys.modules["benchmark_rows.draws"]
    generator = torch.Generator().manual_seed(0)
    mean = torch.ones(4, 1, 60, 60)
    reference = draws.Moments()
    reference.add(mean + torch.randn(100, *mean.shape, generator=generator))
    maps = [mean + torch.randn(100, *mean.shape, generator=generator).mean(0) for _ in range(2)]
    assert draws.relative_error(reference, maps) == pytest.approx(0.1, rel=0.03)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("images", "method", "draws", "models", "rows"),
    [
        (3, lx.smooth_grad(num_draws=100), 100, 0, [126, 126, 48]),
        (200, lx.smooth_grad(num_draws=2), 2, 0, [128, 72] * 2),
        (200, lx.noise_grad(num_draws=3), 3, 3, [128, 72] * 3),
        (60, lx.fusion_grad(num_weight_draws=2, num_input_draws=3), 6, 2, [120, 60] * 2),
    ],
)
def test_the_bare_loop_sends_the_passes_of_the_engine(benchmark, images, method, draws, models, rows):
    measuring, seen = sys.modules["benchmark_rows.measuring"], []
    one = measuring.case("LeNet", images, torch.device("cpu"))
    _, loop, _ = measuring.bare_loop(one, draws, "32-true", benchmark.Setting(torch.device("cpu")), models)
    first = one.model.get_parameter("features.conv1.weight").detach().clone()

    def look(model, arguments):
        now = model.get_submodule("features.conv1").weight
        assert now.requires_grad
        assert torch.equal(now, first) == (models == 0)
        seen.append(len(arguments[0]))

    with_hook = one.model.register_forward_pre_hook(look)
    loop()
    with_hook.remove()
    assert seen == rows
    sizes = []
    with_hook = one.model.register_forward_pre_hook(lambda model, arguments: sizes.append(len(arguments[0])))
    lx.explain(*one.arguments, method)
    with_hook.remove()
    assert [size for size in sizes if size != 1] == rows  # weight noise looks at the network, with one row


@pytest.mark.filterwarnings("ignore")
def test_the_plot_of_the_cost(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.scaling, "peak_memory", lambda draws, **_: (2**20 * draws, 0, 1.0))
    benchmark.run("--tiny", "--scaling", "--networks", "LeNet", "--output", tmp_path)
    assert (tmp_path / "scaling_LeNet.png").read_bytes().startswith(b"\x89PNG")
    curves = json.loads((tmp_path / "scaling.json").read_text())["LeNet"]
    assert set(curves["seconds"]) == {"draws", "samples", "path steps"}
    assert curves["memory"]["draws"] == [[1, 1], [10, 10], [20, 20]]


def test_slopes_of_cost(benchmark):
    assert benchmark.scaling.slope([(1, 100.0), (10, 2.0), (100, 20.0)]) == pytest.approx(1)
    assert benchmark.scaling.slope([(1, 100.0), (10, 2.0), (1000, 2.0)]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "smoothing", "speed"], "argument --rows: invalid choice: 'speed'"),
        (["--networks", "VGG"], "argument --networks: invalid choice: 'VGG'"),
        (["--pairs", "0"], "argument --pairs: must be at least 1, got 0"),
        (["--device", "abacus"], "argument --device: 'abacus' cannot be used here"),
    ],
)
def test_what_cannot_be_measured_is_refused(benchmark, capsys, words, message):
    with pytest.raises(SystemExit):
        benchmark.run(*words)
    assert message in capsys.readouterr().err
