"""The simulation decides as `compare_methods` does, and finds the error rates that are claimed."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lightning_xai.experiments import Run, compare_methods
from lightning_xai.results.scores import Scores

SCRIPT = Path(__file__).parent.parent / "scripts" / "simulate_comparisons.py"
SPEC = importlib.util.spec_from_file_location("simulate_comparisons", SCRIPT)
simulation = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(simulation)
SETTING = simulation.Setting(num_methods=4, num_samples=20, equal=False, tied=True)


@pytest.mark.parametrize("tied", [False, True])
def test_it_decides_as_the_comparison_does(tied):
    values = simulation.scores(replace(SETTING, tied=tied), 12, np.random.default_rng(0))
    found = simulation.called_worse(values)
    assert 0 < found["all_pairs"].sum() < found["published"].sum() < found["published"].size
    for repetition, scores in enumerate(values.swapaxes(0, 1)):
        rows = [("test", 0, 0, "abcd"[m], "gini", i, v) for m, row in enumerate(scores) for i, v in enumerate(row)]
        for procedure, worse in found.items():
            (metric,) = compare_methods([Run("", Scores.from_rows(rows), {"gini": True})], procedure=procedure).metrics
            assert [not result.is_best for result in metric.methods] == worse[:, repetition].tolist()


def test_a_single_test_finds_the_effect_as_often_as_it_says():
    (_, power), _ = simulation.rates(simulation.Setting(2, 256, equal=False, tied=False), 1000, 0)
    assert abs(power - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 1000)


def test_equally_good_methods_are_called_worse_at_most_as_often_as_the_level_says():
    (rate, _), (published, _) = simulation.rates(simulation.Setting(8, 20, equal=True, tied=True), 800, 1)
    assert stats.binom.sf(800 * rate - 1, 800, 0.05) > 0.01
    assert stats.binom.sf(800 * published - 1, 800, 0.05) < 0.01, "the published rule is why all pairs are the default"


def test_intervals_of_skewed_scores_miss_as_often_in_either_form():
    """Where the standard interval is too low: it misses a mean above it more often than one in forty times."""
    found = simulation.misses("gamma (1/2)", 40, 300, 0)
    assert abs(found["ABC"] - found["BCa"]).max() < 0.015
    assert found["standard"][0] > 0.05
    assert abs(found["ABC"] - 0.025).max() < abs(found["standard"] - 0.025).max()


def test_the_tables(capsys):
    simulation.main(["--quick", "--intervals"])
    header, *lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 1 + len(simulation.SHAPES)
    assert {line.count("|") for line in (header, *lines)} == {6}
    simulation.main(["--quick"])
    *_, header, _, first, _, _, last = capsys.readouterr().out.splitlines()
    assert header.count("|") == first.count("|") == last.count("|")
    assert first.startswith("| 2 | 20 | continuous |")
    assert last.startswith("| 4 | 20 | tied |")
