"""Tables of methods x metrics, and how any table is drawn."""

import io
import math

import pytest
from rich.console import Console

from lightning_xai.reporting.render import latex_table, markdown_table, terminal_table, terminal_tables
from lightning_xai.reporting.tables import score_table
from lightning_xai.results.scores import Scores
from lightning_xai.results.tables import ResultTable

NAN = math.nan
VALUES = {
    ("gradient", "gini"): [0.62718 - 0.00297, 0.62718 + 0.00297],  # mean 0.62718, standard error 0.00297
    ("smooth_grad", "gini"): [0.53104 - 0.00397, NAN, NAN, 0.53104 + 0.00397, NAN],
    ("gradient", "noise"): [0.0, 0.0],
    ("smooth_grad", "noise"): [2.4e-7, 2.6e-7],
    ("gradient", "|a|"): [NAN] * 9,
    ("smooth_grad", "single"): [0.5],
}
DIRECTIONS = {"gini": True, "noise": False}


def rows(values=VALUES):
    return Scores.from_rows(
        ("test", 0, 0, *names, n, value) for names, own in values.items() for n, value in enumerate(own)
    )


def rendered(table, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal_table(table))
    return console.file.getvalue()


def test_the_table_of_scores_in_markdown():
    assert markdown_table(score_table(rows(), DIRECTIONS)) == (
        "| method | gini ↑ | noise ↓ | \\|a\\| | single |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| gradient | **0.6272 ± 0.0030** | **0.0000 ± 0.0000** | undefined †9 |  |\n"
        "| smooth_grad | 0.5310 ± 0.0040 †3 | 2.500e-07 ± 1.000e-08 |  | 0.5000 |\n"
        "\n"
        "† number of samples left out, because the metric is not defined for them"
    )


def test_where_all_look_the_same_none_is_the_best():
    values = {(method, "gini"): [0.1, 0.3] for method in "abc"} | {("random", "gini"): [0.0, 0.1]}
    assert not score_table(rows(values), DIRECTIONS).bold
    assert score_table(rows(values | {("c", "gini"): [0.1, 0.1]}), DIRECTIONS).bold == {(0, 1), (1, 1)}


def test_the_terminal_table_says_the_same():
    table = score_table(rows(), DIRECTIONS, "Test set")
    text = rendered(table)
    for word in [*(cell for row in table.rows for cell in row), "Test set", "gini ↑", "noise ↓", *table.notes]:
        assert word in text


def test_names_in_brackets_are_shown_as_they_are():
    text = rendered(score_table(rows({("[bold]m", "[s]"): [0.5]})))
    assert "[bold]m" in text
    assert "[s]" in text


def test_a_narrow_terminal_cuts_nothing_off():
    values = {("integrated_gradients", f"metric_{i}"): [0.1234 - 0.0056, 0.1234 + 0.0056] for i in range(8)}
    table = score_table(rows(values))
    for width in (60, 20):
        parts = terminal_tables(table, width)
        file = io.StringIO()
        Console(file=file, width=max(width, 42)).print(*parts)  # no narrower than a name and a number
        text = file.getvalue()
        assert len(parts) == {60: 4, 20: 8}[width]
        assert text.count("0.1234 ± 0.0056") == 8
        assert text.count("integrated_gradients") == len(parts)
        assert "…" not in text


def test_no_note_without_undefined_scores():
    table = score_table(rows({("gradient", "gini"): [0.5, 0.6]}))
    assert "†" not in markdown_table(table) + rendered(table)


def test_rows_of_several_epochs_are_not_mixed():
    twice = Scores.from_rows(("validate", epoch, 0, "a", "gini", 7, 0.5) for epoch in range(2))
    with pytest.raises(ValueError, match=r"`scores` has two scores of sample 7 for a, gini. Select those of one"):
        score_table(twice)


# Any table

PLACES = ResultTable("a_b", ("x", "y_z"), (("**n**", "0.5"), ("m", "PASS")), ("so *it* is",), frozenset({(0, 1)}))
MARKS = ResultTable("", ("x", "y", "z"), (("**n**", "**1.5**", "q"), ("m", "**-2.5e-07 [-1, 0.5]**", "3")))


def test_bold_is_what_a_place_or_else_two_asterisks_say():
    assert markdown_table(PLACES) == (
        "## a_b\n\n| x | y_z |\n| --- | ---: |\n| \\*\\*n\\*\\* | **0.5** |\n| m | PASS |\n\nso \\*it\\* is"
    )
    assert markdown_table(MARKS).splitlines()[2:] == ["| **n** | **1.5** | q |", "| m | **-2.5e-07 [-1, 0.5]** | 3 |"]


def test_a_terminal_that_shows_no_bold_shows_a_star():
    assert [line.split() for line in rendered(PLACES).splitlines() if "─" not in line and line.strip()] == [
        ["a_b"], ["x", "y", "z"], ["**n**", "0.5", "*"], ["m", "PASS"], ["so", "*it*", "is"]
    ]  # fmt: skip
    lines = rendered(MARKS).splitlines()
    assert [line.split() for line in lines[-3:-1]] == [
        ["n", "*", "1.5", "q"], ["m", "-2.5e-07", "[-1,", "0.5]", "*", "3"]
    ]  # fmt: skip
    assert [cell.style for cell in terminal_table(PLACES).columns[1]._cells] == ["bold", "green"]


def test_latex_sets_numbers_as_mathematics():
    assert latex_table(PLACES).splitlines() == [
        "% so *it* is",
        "% Needs the package booktabs.",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"x & y\_z \\",
        r"\midrule",
        r"{}**n** & $\mathbf{0.5}$ \\",
        r"m & PASS \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert latex_table(MARKS).splitlines()[5:7] == [
        r"\textbf{n} & $\mathbf{1.5}$ & q \\",
        r"m & $\mathbf{-2.5\cdot10^{-7}}\;{\scriptstyle[-1,\,0.5]}$ & 3 \\",
    ]


def test_the_path_of_a_run_is_a_title_as_it_is_written():
    paths = ("a/lightning_logs/version_0", "b/lightning_logs/version_0")
    columns = ("method", *paths, "rank_accuracy", "run_a")
    table = ResultTable("", columns, (("m", "1", "2", "3", "4"),), verbatim=frozenset({4}))
    drawn = [str(column.header) for part in terminal_tables(table, 80) for column in part.columns]
    assert [title for title in drawn if title != "method"] == [*paths, "rank accuracy", "run_a"]
