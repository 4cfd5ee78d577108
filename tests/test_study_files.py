"""What the file of a study says, and what is refused in it; claims."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser
from scipy import stats

from lightning_xai.explainers import Explainer
from lightning_xai.names import specifications
from lightning_xai.results.scores import Scores
from lightning_xai.statistics.paired import holm, paired_test
from lightning_xai.studies.engine import judged, run_study
from lightning_xai.studies.entries import expanded, resolved
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.report import claim_matrix
from lightning_xai.studies.study import carried_studies, check, study_of
from tests.small import (
    GRADIENT,
    MINE,
    SPARSENESS,
    carried_study,
    made_up,
)

ROOT = Path(__file__).parent.parent
AUROC = {"class_path": "lightning_xai.metrics.LocalizationAUROC"}
EACH = {"n": [1], "f": [2]}
TWO_KINDS = {"a {n} {f}": {**GRADIENT, "for": EACH}, "b {n} {f}": {"class_path": "lightning_xai.Saliency", "for": EACH}}
OTHER = str(ROOT / "checkpoints" / "mnist_mlp.ckpt")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)


# What a file says


def test_entries_stand_for_each_combination_of_values_with_their_coordinates():
    parts = {
        "plain": {"class_path": "A"},
        "b {x:g} {y[n]}": {
            "for": {"x": [1, 0.5], "y": {"from": "list"}},
            "v": {"from": "x", "times": 4},
            "w": [{"from": "y.n"}],
        },
    }
    found = expanded(parts, {"list": [{"n": 7}, {"n": 8}]})
    assert {name: entry.value for name, entry in found.items()} == {
        "plain": {"class_path": "A"},
        "b 1 7": {"v": 4, "w": [7]},
        "b 1 8": {"v": 4, "w": [8]},
        "b 0.5 7": {"v": 2, "w": [7]},
        "b 0.5 8": {"v": 2, "w": [8]},
    }
    assert found["b 0.5 8"].bound == {"x": 0.5, "y": {"n": 8}}
    assert parts["plain"] == {"class_path": "A"}, "the file's values are left alone"


def test_what_needs_a_value_that_is_not_there_is_left_out():
    variables = {"level": None, "x": 3}
    assert expanded({"a": {"std": {"from": "level"}}, "at {level:.3f}": {}}, variables) == {}
    found = expanded({"{s}": {"for": {"s": [{"from": "level"}, {"from": "x"}]}}}, variables)
    assert list(found) == ["3"]
    assert resolved({"from": "x", "init": 1}, {}) == {"from": "x", "init": 1}, "a mapping of somebody else's"


def test_equal_names_must_stand_for_the_same():
    same = {"{n:g}": {"for": {"n": [1, {"from": "one"}]}, "v": {"from": "n"}}, "1": {"v": 1}}
    assert {name: entry.value for name, entry in expanded(same, {"one": 1.0}).items()} == {"1": {"v": 1}}
    for different in ({**same, "1": {"v": 2}}, {"a": {"for": {"n": [1, 2]}, "v": {"from": "n"}}}):
        with pytest.raises(ValueError, match=r"stands for two different things. Put the names of its `for` in braces"):
            expanded(different, {"one": 1.0})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a": {"v": {"from": "no"}}}, "`from`: there is no variable 'no'; there are x"),
        ({"a": {"v": {"from": "x.y"}}}, "there is no variable 'x.y'; there are 3"),
        ({"a {no}": {}}, "the part in braces must be a variable or in `for`"),
        ({"a {x:%}{": {}}, "cannot be filled in"),
        ({"a": {"for": ["x"]}}, "`for` of 'a' must be a mapping"),
        ({"a": {"for": {"y": 3}}}, "`for` of 'a': y must have a list of values, got 3"),
        ({"a {y}": {"for": {"y": [2, 1, 2]}}}, "`for` of 'a {y}': y has 2 twice. Name each value once"),
    ],
)
def test_a_wrong_entry_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        expanded(parts, {"x": 3})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], "expected a mapping with source, methods, metrics, networks, ...; got list"),
        ({**MINE, "metric": {}}, "mine.yaml: 'metric' is no part of a study; did you mean 'metrics'"),
        ({"source": "x", "methods": {}}, "a study needs methods, metrics, networks"),
        ({**MINE, "variables": {"metrics": 3}}, "`variables` must have names of their own, .* got 'metrics'"),
        ({**MINE, "variables": {"root": 3}}, "`variables` must have names of their own, .* got 'root'"),
        ({**MINE, "variables": {"my-var": 3}}, "`variables` must have names .*of letters, digits and _, got 'my-var'"),
        ({**MINE, "variables": {1: 3}}, "names of methods, metrics, variables must be texts, got 1; put it in quotes"),
        ({**MINE, "variables": ["a"]}, "(?s)variables.*Expected a <class 'dict'>"),
        ({**MINE, "networks": "mine"}, "(?s)networks.*Expected a <class 'list'>.*Expected a <class 'dict'>.*mine"),
        ({**MINE, "networks": {"mine": {"checkpoint": "a"}}}, "(?s)networks.*Unexpected keys: .'checkpoint'"),
        ({**MINE, "claims": "a > b"}, "(?s)claims.*Expected a <class 'list'>.*a > b"),
        ({**MINE, "claims": [{"title": "t", "pairs": []}]}, "(?s)claims.*Missing required keys: .'metrics'"),
        (
            {**MINE, "claims": [{"title": "t", "pairs": "a > b", "metrics": []}]},
            "(?s)claims.*Expected a <class 'list'>.*a > b",
        ),
        ({**MINE, "curves": {"lable": 3}}, "(?s)curves.*'lable'"),
        ({**MINE, "curves": {"where": {}}}, "(?s)curves.*'over'"),
        ({**MINE, "curves": {"over": "n", "published": [0.2]}}, "(?s)curves.*a tuple with 2 elements"),
        ({**MINE, "published": {"sparseness": {"gradient": "abc"}}}, "(?s)published.*Expected a <class 'float'>.*abc"),
        ({**MINE, "fast": {"maps": "x"}}, "(?s)maps.*Expected a <class 'int'>.*x"),
        ({**MINE, "equal_costs": 3}, "(?s)equal_costs.*Expected a <class 'list'>.*3"),
        (
            {**MINE, "methods": {1: GRADIENT}},
            "names of methods, metrics, variables must be texts, got 1; put it in quo",
        ),
        (
            {**MINE, "fast": {"num_sample": 3}},
            "`fast`: 'num_sample' is no argument or variable of the study; did you mean 'num_samples'",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        study_of(values, "mine.yaml", ["root"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"a": {"class_path": "lightning_xai.Gradients"}}}, "^`methods`: (?!`methods`)"),
        ({"methods": {"a": "gradeint"}}, "^`methods`: 'gradeint' is unknown: did you mean 'gradient'"),
        ({"metrics": {"a": GRADIENT}}, "`metrics`: "),
        (
            {"networks": {"mine": {"config": "quickstart", "ckpt_path": "no.ckpt"}}},
            "`ckpt_path`: .*no.ckpt does not ex",
        ),
        (
            {"networks": {"quickstart": {}, "mine": {"config": "quickstart", "ckpt_path": OTHER}}},
            "`ckpt_path`: .*mnist_mlp.ckpt does not fit the `model`",
        ),
        ({"claims": [{"title": "t", "pairs": ["a"], "metrics": []}]}, "`claim` must read 'BETTER > WORSE', got 'a'"),
        ({"claims": [{"title": "t", "pairs": [], "metrics": ["auc"]}]}, "`claims`: 'auc' is no metric of the study"),
        ({"published": {"auc": {}}}, "`published`: 'auc' is no metric of the study; there are .*sparseness"),
        (
            {"published": {"sparseness": {"gradeint": 0.5}}},
            "`published`: 'gradeint' is no method of the study; did you mean 'gradient'",
        ),
        (
            {"claims": [{"title": "t", "pairs": ["gradient > sal"], "metrics": []}]},
            "`claims`: 'sal' is no method of the study; there are edges, gradient, random",
        ),
        (
            {"claims": [{"title": "t", "pairs": [{"for": {}}], "metrics": []}]},
            "`claim` must be a text, or a mapping must have it",
        ),
        ({"claims": [{"title": "t", "pairs": [], "metrics": []}] * 2}, "`claims`: two groups have the title 't'"),
        (
            {"variables": {"costs": 3}, "equal_costs": {"from": "costs"}},
            "`equal_costs` must be a list of numbers of gradients, got 3",
        ),
        (
            {"panels": {"a": {"title": "t", "rows": {"": ["gradient"]}}}},
            r"`column` must read 'TITLE \| METHOD', got 'gradient'",
        ),
        (
            {"panels": {"a": {"title": "t", "rows": {"": ["Grad | Grad"]}}}},
            "`panels`: 'Grad' is no method of the study",
        ),
        ({"maps": -1}, "`maps` must be at least 0, got -1"),
        ({"metrics": {"gradients": SPARSENESS}}, "the name 'gradients' is taken"),
        ({"metrics": {"auroc": AUROC}}, "all of auroc need `masks`, and the study has none"),
        ({"methods": TWO_KINDS, "grid": ["n"]}, "`grid` must be two names, got"),
        ({"methods": TWO_KINDS, "grid": ["n", "f"]}, "`grid`: a 1 2 and b 1 2 have the same cell"),
        (
            {"networks": {"photographs": {"ckpt_path": OTHER}}},
            "photographs is trained by others and takes `weights`, got `ckpt_path`",
        ),
        (
            {"networks": {"quickstart": {"weights": "w.pt"}}},
            "`networks`: quickstart is trained by its configuration and takes a `ckpt_path`, got `weights`",
        ),
        ({"kept_under": [{"from": "no"}]}, "there is no variable 'no'"),
        ({"curves": {"over": "std"}}, "`curves`: no method has 'std' in its `for`"),
        (
            {"methods": {"a {n}": {**GRADIENT, "for": {"n": ["x"]}}}, "curves": {"over": "n"}},
            "`curves`: 'n' must have numbers for its values, got 'x'",
        ),
        ({"grid": ["std", "fraction"]}, "`grid`: no method has 'std' in its `for`"),
    ],
)
def test_a_wrong_study_is_refused_before_any_network_is_trained(changes, message, lab, monkeypatch):
    monkeypatch.setattr("lightning_xai.studies.lab.trained", None)
    values = {**MINE, "networks": ["quickstart"], **changes}
    with pytest.raises(ValueError, match=message):
        run_study(lab, study_of(values))


@pytest.mark.parametrize("name", carried_studies())
def test_every_study_of_the_package_can_be_made_in_both_versions(name):
    whole = study_of(yaml.safe_load(carried_studies()[name].read_text(encoding="utf-8")), name)
    for study in (whole, whole.changed(whole.fast)):
        check(study)


def test_the_methods_of_adaptgrads_table_are_those_of_the_file_of_methods():
    parser = ArgumentParser()
    parser.add_argument("--methods", type=dict[str, Explainer])
    settings = yaml.safe_load((ROOT / "configs" / "methods" / "adaptgrad_table2.yaml").read_text(encoding="utf-8"))
    specified = {"methods": specifications("methods", settings)}
    expected = parser.instantiate_classes(parser.parse_object(specified)).methods
    methods = carried_study("adaptgrad-table2").explainers()
    assert {name: methods[name] for name in expected} == expected
    assert {m.baseline for n, m in methods.items() if "IG(0)" in n} == {0.0}
    assert set(methods) - set(expected) == {f"{p}IG({b})" for p in ("", "S-", "A-") for b in (0, 1)} | {
        "edges",
        "random",
    }


# Claims


def undefined(scores, which):
    table = scores.to_dataframe()
    table.loc[which, "value"] = math.nan
    return Scores(table)


def test_claims_are_tested_by_sample_and_corrected_together():
    gains = {("a", "b"): 0.05, ("c", "d"): -0.05, ("e", "f"): 0.001, ("g", "h"): 0.02, ("i", "k"): 0.0}
    rows = made_up(gains, 12)
    rows = undefined(rows, (rows.table["method"] == "b") & (rows.table["sample"] == 3))
    claims = judged(rows, list(gains), ["m"], {"m": True})
    for (better, worse), claim in zip(gains, claims, strict=True):
        first, second = (np.array([row.value for row in rows if row.method == name]) for name in (better, worse))
        gain = (first - second)[np.isfinite(second)]
        assert claim.num_samples == len(gain) == (11 if better == "a" else 12)
        assert claim.p == pytest.approx(stats.wilcoxon(gain).pvalue)
        assert claim.gain == pytest.approx(gain.mean())
        assert claim.standard_error == pytest.approx(stats.sem(gain))
        assert claim.better_in == (gain > 0).sum()
    least = 0.0
    for place, claim in enumerate(sorted(claims, key=lambda claim: claim.p)):
        least = max(least, min(1.0, (len(claims) - place) * claim.p))
        assert claim.p_holm == pytest.approx(least)
    assert [claim.verdict for claim in claims][:3] == ["yes", "no, the reverse", "undecided"]


def test_where_less_is_better_the_first_must_have_less():
    rows = made_up({("a", "b"): 0.05})
    (higher,), (lower,) = (judged(rows, [("a", "b")], ["m"], {"m": better}) for better in (True, False))
    assert (higher.verdict, lower.verdict) == ("yes", "no, the reverse")
    assert lower.gain == pytest.approx(-higher.gain)
    assert (higher.p, higher.effect) == (lower.p, -lower.effect)
    ((name, cell),) = claim_matrix("t", [lower]).rows
    assert name == "a > b"
    assert cell.startswith("-0.05")
    assert cell.endswith("no, the reverse")


def test_a_claim_without_any_score_is_undefined():
    rows = undefined(made_up({("a", "b"): 0.05}), slice(None))
    (claim,) = judged(rows, [("a", "b")], ["m"], {"m": True})
    assert claim.verdict == "undefined"
    assert claim_matrix("t", [claim]).rows == (("a > b", "undefined"),)


def test_undefined_claims_are_no_part_of_the_family():
    rows = made_up({("a", "b"): 0.05, ("c", "d"): 0})
    rows = undefined(rows, rows.table["method"].isin(["c", "d"]))
    first, second = judged(rows, [("a", "b"), ("c", "d")], ["m"], {"m": True})
    assert first.p_holm == first.p
    assert second.verdict == "undefined"


def test_equal_scores_are_no_difference():
    values = np.array([0.3, 0.4, 0.5])
    assert paired_test(values, values * (1 + 1e-8)) == (1.0, 0.0)
    assert paired_test(values, values - 0.1)[1] == 1.0
    assert paired_test(values, values - 0.1, higher_is_better=False)[1] == -1.0
    assert holm(np.array([])).shape == (0,)


def test_data_that_bring_their_pictures_are_given_no_folder():
    data = Lab(root="data", configs=str(ROOT / "configs"), device="cpu").config("quickstart", {})["data"]
    assert data == {"class_path": "lightning_xai.data.DigitsDataModule", "init_args": {"batch_size": 32}}
