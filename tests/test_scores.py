"""The table of scores: selection, grouping, means; what is undefined, and what was not evaluated."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_xai.results.scores import COLUMNS, Scores
from lightning_xai.results.store import append_scores, read_scores, write_directions

ROWS = [
    ("validate", 0, 5, "sg", "gini", 7, 0.5),
    ("validate", 0, 5, "sg", "auroc", 7, math.nan),
    ("validate", 0, 5, "ng", "gini", 9, 0.25),
    ("validate", 0, 5, "ng", "gini", 7, 0.75),
    ("test", 1, 9, "sg", "gini", 7, -1.0),
]
SCORES = Scores.from_rows(ROWS)


def test_rows_come_back_in_order_as_plain_numbers():
    assert [row.value for row in SCORES] == pytest.approx([row[-1] for row in ROWS], nan_ok=True)
    assert [tuple(row)[:-2] for row in SCORES] == [row[:-1] for row in ROWS]
    assert {type(cell) for row in SCORES for cell in row} == {str, int, float}
    assert (len(SCORES), bool(Scores.from_rows([]))) == (5, False)


def test_a_table_is_copied_and_has_the_columns_in_order():
    table = SCORES.to_dataframe()
    assert list(table) == list(COLUMNS)
    table["value"] = 0.0
    assert Scores.from_rows(ROWS) == SCORES
    assert Scores(table) != SCORES
    shuffled = SCORES.table[list(COLUMNS)[::-1]].assign(more=1).set_index(pd.Index(range(5, 10)))
    assert Scores(shuffled) == SCORES
    with pytest.raises(ValueError, match=r"`table` must have the columns stage, .*; it lacks value\."):
        Scores(SCORES.table.drop(columns="value"))
    for name in ("stage", "method", "metric"):
        for wrong in (None, math.nan, 3):
            with pytest.raises(ValueError, match=f"`table`: {name} must be a text in every row, got {wrong}"):
                Scores(SCORES.table.astype(object).assign(**{name: wrong}))
    for wrong in (1.5, "1", math.nan):
        with pytest.raises(ValueError, match=r"whole numbers|non-finite"):
            Scores(SCORES.table.astype(object).assign(sample=wrong))


def test_scores_of_an_evaluation_are_exact_and_named():
    values = {"a": {"x": torch.tensor([0.1, math.nan])}, "b": {"x": np.array([1.0, 2.0])}}
    found = Scores.from_values("test", 3, 40, torch.tensor([7, 9]), values)
    assert [tuple(row)[:6] for row in found] == [("test", 3, 40, m, "x", i) for m in "ab" for i in (7, 9)]
    assert torch.equal(torch.tensor(found.table["value"][:1].tolist()), torch.tensor([0.1]))
    with pytest.raises(ValueError, match="a value for each of the 1 samples, got 2"):
        Scores.from_values("test", 0, 0, torch.tensor([7]), values)


def test_selection_is_by_a_value_or_a_list():
    assert SCORES.select(stage="test") == Scores.from_rows(ROWS[4:])
    for several in ([9, 8], (9, 8), np.array([9, 8]), {9, 8}):
        assert SCORES.select(sample=several, metric="gini") == Scores.from_rows(ROWS[2:3])
    assert not SCORES.select(method="gini")
    assert (SCORES.unique("sample"), SCORES.unique("method")) == ([7, 9], ["sg", "ng"])
    assert SCORES.pairs() == [("sg", "gini"), ("sg", "auroc"), ("ng", "gini")]
    assert Scores.concatenated([SCORES.select(stage=stage) for stage in ("validate", "test")]) == SCORES


def test_an_undefined_score_has_a_row_and_one_not_evaluated_has_none():
    tables = SCORES.select(stage="validate").by_sample()
    assert {metric: list(table) for metric, table in tables.items()} == {"gini": ["sg", "ng"], "auroc": ["sg"]}
    assert tables["gini"]["ng"].to_dict() == {9: 0.25, 7: 0.75}
    assert tables["auroc"]["sg"].isna().to_dict() == {7: True}
    with pytest.raises(ValueError, match=r"`scores` has two scores of sample 7 for sg, gini\. Select those of one"):
        SCORES.by_sample()


def test_means_and_errors_are_of_the_defined_scores():
    summary = SCORES.select(stage="validate").summary().set_index(["metric", "method"])
    assert summary.loc[("gini", "ng")].to_list() == [0.5, 0.25, 2, 0]  # 0.25 · √2 / √2
    assert summary.loc[("auroc", "sg")].isna().to_list() == [True, True, False, False]
    assert summary["num_undefined"].to_list() == [0, 0, 1]
    assert Scores.from_rows([]).summary().empty


def test_directions_stay_with_the_scores(tmp_path):
    scores = replace(SCORES, higher_is_better={"gini": True, "auroc": None})
    assert scores == SCORES, "they are no part of what is equal"
    assert scores.select(stage="test").last().higher_is_better == {"gini": True, "auroc": None}
    other = replace(SCORES, higher_is_better={"gini": False, "noise": False})
    assert Scores.concatenated([scores, other]).higher_is_better == {"auroc": None, "noise": False}
    append_scores(tmp_path / "scores", SCORES)
    assert read_scores(tmp_path / "scores").higher_is_better == {}
    write_directions(tmp_path / "scores", scores.higher_is_better)
    read = read_scores(tmp_path / "scores", stage="test")
    assert read.higher_is_better == {"gini": True, "auroc": None}
    assert [m.higher_is_better for m in read.compare().metrics] == [True]
    assert [m.higher_is_better for m in read.compare({"gini": False}).metrics] == [False], "what is given comes first"
