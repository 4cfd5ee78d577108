"""Means over networks crossed with samples, and their intervals."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lightning_xai.statistics.crossed import crossed_mean

SCRIPT = Path(__file__).parent.parent / "scripts" / "simulate_verdicts.py"
SPEC = importlib.util.spec_from_file_location("simulate_verdicts", SCRIPT)
SIMULATION = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = SIMULATION  # dataclasses ask for it
SPEC.loader.exec_module(SIMULATION)


def grid(networks, samples, num_networks=5, num_samples=12, both=0.0, seed=0):
    generator = np.random.default_rng(seed)
    effects = networks * generator.normal(size=(num_networks, 1)) + samples * generator.normal(size=num_samples)
    return 0.3 + effects + both * generator.normal(size=(num_networks, num_samples))


@pytest.mark.parametrize(("networks", "samples", "axis"), [(0.1, 0.0, 1), (0.0, 0.1, 0)])
def test_where_one_alone_has_effects_it_is_students_interval_of_its_means(networks, samples, axis):
    values = grid(networks, samples)
    means = values.mean(axis)
    found = crossed_mean(values, 0.05, 0.1)
    scale = means.std(ddof=1) / math.sqrt(len(means))
    ends = means.mean() + stats.t.ppf([0.05, 0.9], len(means) - 1) * scale
    assert (found.low, found.high) == pytest.approx(tuple(ends))
    assert found.network_share == pytest.approx(float(axis))


def test_with_many_of_both_it_is_the_normal_interval_of_the_components():
    values = grid(0.2, 0.3, 400, 500, both=0.4)
    expected = 1.959964 * math.sqrt(values.mean(1).var(ddof=1) / 400 + values.mean(0).var(ddof=1) / 500)
    found = crossed_mean(values, 0.025)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.01)
    assert found.mean == pytest.approx(values.mean())


@pytest.mark.parametrize(("networks", "samples", "both"), [(0.03, 0.1, 0.05), (0.1, 0.02, 0.05), (0.0, 0.0, 0.1)])
@pytest.mark.parametrize("num_networks", [3, 8])
def test_each_end_misses_at_most_as_often_as_it_says(networks, samples, both, num_networks):
    found = [crossed_mean(grid(networks, samples, num_networks, 16, both, seed), 0.05) for seed in range(1000)]
    for misses in ([one.low > 0.3 for one in found], [one.high < 0.3 for one in found]):
        assert np.mean(misses) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_undefined_values_are_left_out():
    values = grid(0.1, 0.1)
    values[0, 3] = values[2, 5] = np.nan
    networks, samples = np.nanmean(values, 1), np.nanmean(values, 0)
    found = crossed_mean(values, 0.05)
    assert found.mean == pytest.approx(np.nanmean(values))
    share = networks.var(ddof=1) / 5
    assert found.network_share == pytest.approx(share / (share + samples.var(ddof=1) / 12))
    empty = np.vstack([values, np.full(12, np.nan)])
    assert crossed_mean(empty, 0.05).high == pytest.approx(found.high)


def test_without_two_of_each_there_is_no_interval_and_equal_values_have_one_of_length_0():
    for values in (np.ones((1, 5)), np.ones((5, 1)), np.full((3, 3), np.nan)):
        found = crossed_mean(values, 0.05)
        assert np.isnan([found.low, found.high]).all()
    found = crossed_mean(np.full((3, 4), 0.25), 0.05)
    assert found.low == found.mean == found.high == 0.25


@pytest.mark.parametrize(
    ("level", "message"), [(0.0, "between 0 and 1"), (-0.1, "between 0 and 1"), (0.5, "less than 0.5")]
)
def test_levels_are_between_0_and_a_half(level, message):
    with pytest.raises(ValueError, match=message):
        crossed_mean(np.ones((3, 3)), level)


# The simulation of verdicts


def test_simulated_checks_have_the_deviations_that_they_are_made_with():
    setting = SIMULATION.Setting(1.0, 200, 400, 0.03)
    cells = list(SIMULATION.cells(setting, np.random.default_rng(0)))
    assert [cell.key.check for cell in cells] == ["floor"] + 400 * ["parameters"]
    values = np.stack([cell.scores["s"] for cell in cells[1:201]])
    grid = {place: float(value) for place, value in np.ndenumerate(values)}
    networks, samples, both, skewness = SIMULATION.effects(grid)
    assert networks == pytest.approx(0.03, rel=0.2)
    assert samples == pytest.approx(SIMULATION.SAMPLE_DEVIATION, rel=0.2)
    assert both == pytest.approx(SIMULATION.BOTH_DEVIATION, rel=0.05)
    assert skewness == pytest.approx(2 / math.sqrt(SIMULATION.SHAPE), abs=0.5)
    assert values.mean() == pytest.approx(SIMULATION.FLOOR + 0.05 * (1 - SIMULATION.FLOOR), abs=0.015)
    assert cells[0].scores["s"].mean() == pytest.approx(SIMULATION.FLOOR, abs=0.015)


def test_verdicts_far_from_the_boundary_are_right_and_the_table_has_a_line_for_each_setting(capsys, monkeypatch):
    assert SIMULATION.rates(SIMULATION.Setting(-5.0, 8, 64, 0.01), 20, 0)["PASS"] == 1
    assert SIMULATION.rates(SIMULATION.Setting(9.0, 8, 64, 0.01, both_steps=False), 20, 0)["FAIL"] == 1
    monkeypatch.setattr(SIMULATION, "rates", lambda *_: {"PASS": 0.25, "FAIL": 0.5, "INCONCLUSIVE": 0.25})
    SIMULATION.main(["--repetitions", "7"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("PASS / FAIL in %, of 7 checks each")
    assert len(lines) == 2 + 2 + 12
    assert lines[4] == "| 3 | 16 | 0.01 | 25.0 / 50.0 | 25.0 / 50.0 | 25.0 / 50.0 | 25.0 / 50.0 | 25.0 / 50.0 |"


def test_deviations_are_measured_in_a_finished_check(tmp_path, capsys):
    path = tmp_path / "similarities.csv"
    lines = ["check,variant,step,block,repeat,method,similarity,sample,value"]
    for (network, sample), value in np.ndenumerate(grid(0.1, 0.2, 6, 9)):
        lines.append(f"parameters,cascading_from_top,0,fc,{network},gradient,ssim,{sample},{value}")
        lines.append(f"parameters,cascading_from_top,0,fc,{network},random,ssim,{sample},1.0")
    path.write_text("\n".join(lines))
    SIMULATION.main(["--measure", str(path)])
    networks, samples, both, _ = map(float, capsys.readouterr().out.splitlines()[1].removeprefix("0 fc: ").split(", "))
    values = grid(0.1, 0.2, 6, 9)
    assert networks == pytest.approx(values.mean(1).std(ddof=1), abs=1e-3)
    assert samples == pytest.approx(values.mean(0).std(ddof=1), abs=1e-3)
    assert both == 0
