"""Tables of methods x metrics."""

import io
import math

import pytest
from rich.console import Console

from lightning_xai.reporting.scores import ScoreRow
from lightning_xai.reporting.tables import ScoreSummary, markdown_table, score_table, summarise

SUMMARIES = [
    ScoreSummary("gradient", "gini", 0.62718, 0.00297, higher_is_better=True),
    ScoreSummary("smooth_grad", "gini", 0.53104, 0.00397, 3, higher_is_better=True),
    ScoreSummary("gradient", "noise", 0.0, 0.0, higher_is_better=False),
    ScoreSummary("smooth_grad", "noise", 2.5e-7, 1e-8, higher_is_better=False),
    ScoreSummary("gradient", "|a|", math.nan, math.nan, 9),
    ScoreSummary("smooth_grad", "single", 0.5, math.nan),
]


def rendered(table, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def test_the_markdown_table():
    assert markdown_table(SUMMARIES) == (
        "| method | gini ↑ | noise ↓ | \\|a\\| | single |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| gradient | 0.6272 ± 0.0030 | 0.0000 ± 0.0000 | undefined †9 |  |\n"
        "| smooth_grad | 0.5310 ± 0.0040 †3 | 2.500e-07 ± 1.000e-08 |  | 0.5000 |\n"
        "\n"
        "† number of samples left out, because the metric is not defined for them\n"
    )


def test_the_terminal_table_says_the_same():
    text = rendered(score_table(SUMMARIES, title="Test set"))
    cells = [cell.strip() for line in markdown_table(SUMMARIES).splitlines()[2:4] for cell in line.split("|")]
    for word in [*cells, "Test set", "gini ↑", "noise ↓", "† number of samples left out"]:
        assert word in text


def test_names_in_brackets_are_shown_as_they_are():
    text = rendered(score_table([ScoreSummary("[bold]m", "[s]", 0.5, 0.1)]))
    assert "[bold]m" in text
    assert "[s]" in text


def test_a_narrow_terminal_cuts_nothing_off():
    summaries = [ScoreSummary("integrated_gradients", f"metric_{i}", 0.1234, 0.0056) for i in range(8)]
    text = rendered(score_table(summaries), width=60)
    assert "…" not in text
    assert text.count("56") == 8


def test_no_note_without_undefined_scores():
    assert "†" not in markdown_table(SUMMARIES[:1])
    assert "†" not in rendered(score_table(SUMMARIES[:1]))


def test_summaries_of_rows():
    values = {"a": [1.0, 3.0, math.nan], "b": [0.5, 0.5, 0.5]}
    rows = [ScoreRow("test", 0, 0, m, "gini", i, v) for m, vs in values.items() for i, v in enumerate(vs)]
    assert summarise(rows, {"gini": True}) == [
        ScoreSummary("a", "gini", 2.0, 1.0, 1, True),
        ScoreSummary("b", "gini", 0.5, 0.0, 0, True),
    ]
    assert summarise(rows)[0].higher_is_better is None


def test_rows_of_several_epochs_are_not_mixed():
    rows = [ScoreRow("validate", epoch, 0, "a", "gini", 7, 0.5) for epoch in range(2)]
    with pytest.raises(ValueError, match=r"`rows` has two scores of sample 7 for a, gini"):
        summarise(rows)
