"""Comparisons as text and files, and the command that makes them."""

import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from lightning_xai.cli import main
from lightning_xai.reporting.comparison import (
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    comparison_notes,
    comparison_tables,
    write_comparison,
)
from lightning_xai.reporting.comparison_figures import rank_map, score_bars
from lightning_xai.reporting.render import terminal_table
from lightning_xai.results.comparison import Agreement, ComparedRun, Comparison, MethodResult, MetricComparison
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, write_directions

NAN = math.nan
VALUES = (0.5,) * 61
BEST = MethodResult("smooth_grad", 0, 0.62718, 0.1, 0.6, 0.65, 1, NAN, NAN, NAN, is_best=True, values=VALUES)
WORSE = MethodResult(
    "a|b & [c]", 3, 0.5, 0.2, 0.45, 0.55, 2, -0.7512, 2e-8, 2e-8, False, VALUES, -0.12718, -0.15, -0.1, 0.2, True
)
GINI = MetricComparison("gini", True, 64, tuple(range(61)), (BEST, WORSE))
TINY = MethodResult("smooth_grad", 0, 2.5e-7, 1e-8, 2e-7, 3e-7, None, NAN, NAN, NAN, is_best=False, values=VALUES[1:])
NOTHING = MethodResult("a|b & [c]", 60, NAN, NAN, NAN, NAN, None, NAN, NAN, NAN, is_best=False, values=())
NOISE = MetricComparison("inherent_noise", None, 60, tuple(range(60)), (TINY, NOTHING))
RUNS = (ComparedRun("version_0", "test", 3, 40, 64), ComparedRun("version_1", "test", 0, 0, 70))
COMPARISON = Comparison(RUNS, (GINI, NOISE), 0.05, 9999, 0)
COSTS = replace(COMPARISON, gradients={"smooth_grad": 50.0, "a|b & [c]": NAN})
MATCHED = replace(COSTS, matched_gradients=50, left_out={"fusion_grad": 100.0, "noise_grad": NAN})
AGREEMENTS = (
    Agreement(("gini", "auroc"), 0.53125, 0.0312, 64, 5),
    Agreement(("gini", "noise"), -0.004, NAN, 1, 5),
)
AGREEING = replace(
    COMPARISON, metrics=(GINI, replace(GINI, metric="auroc"), replace(GINI, metric="noise")), agreements=AGREEMENTS
)


def rendered(width=200, comparison=COMPARISON):
    console = Console(file=io.StringIO(), width=width)
    for table in comparison_tables(comparison):
        console.print(terminal_table(table))
    return console.file.getvalue()


def test_the_markdown_tables():
    text = comparison_markdown(COMPARISON)
    assert text.startswith(
        "### gini ↑, 61 of 64 samples, those defined for all methods\n"
        "\n"
        "| method | mean | std | 95 % interval | undefined | rank | difference | r | p |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| **smooth_grad** | **0.6272** | **0.1000** | **[0.6000, 0.6500]** | **0** | **1** |  |  |  |\n"
        "| a\\|b & [c] | 0.5000 | 0.2000 | [0.4500, 0.5500] | 3 | 2 | -0.1272 ≈ | -0.75 | 2e-08 |\n"
        "\n"
        "### inherent_noise, 60 samples\n"
        "\n"
        "| method | mean | std | 95 % interval | undefined | rank | difference | r | p |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| smooth_grad | 2.500e-07 | 1.000e-08 | [2.000e-07, 3.000e-07] | 0 |  |  |  |  |\n"
        "| a\\|b & [c] |  |  |  | 60 |  |  |  |  |\n"
    )
    for note in comparison_notes(COMPARISON):
        assert note.replace("*", r"\*").replace("|", r"\|") in text


def test_the_latex_table():
    lines = comparison_latex(COMPARISON).splitlines()
    notes = comparison_notes(COMPARISON)
    assert lines[: len(notes)] == [f"% {note}" for note in notes]
    assert lines[len(notes) + 1 :] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & gini $\uparrow$ & inherent\_noise \\",
        r"\midrule",
        r"smooth\_grad & $\mathbf{0.6272}\;{\scriptstyle[0.6000,\,0.6500]}$"
        r" & $2.500\cdot10^{-7}\;{\scriptstyle[2.000\cdot10^{-7},\,3.000\cdot10^{-7}]}$ \\",
        r"a\textbar{}b \& [c] & $0.5000\;{\scriptstyle[0.4500,\,0.5500]}$ & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_the_csv_has_all_numbers_and_nothing_where_there_is_none():
    best, worse, tiny, nothing = csv.DictReader(io.StringIO(comparison_csv(COMPARISON)))
    assert [row["metric"] for row in (best, worse, tiny, nothing)] == ["gini"] * 2 + ["inherent_noise"] * 2
    assert (best["mean"], best["rank"], best["p_value"], best["is_best"]) == ("0.62718", "1", "", "True")
    assert (worse["method"], worse["effect_size"], worse["p_holm"]) == ("a|b & [c]", "-0.7512", "2e-08")
    assert (worse["num_common"], worse["num_samples"], worse["num_undefined"]) == ("64", "61", "3")
    assert (tiny["higher_is_better"], tiny["rank"], tiny["mean"], nothing["mean"]) == ("", "", "2.5e-07", "")
    assert (worse["difference"], worse["difference_low"], worse["difference_high"]) == ("-0.12718", "-0.15", "-0.1")
    assert (worse["smallest_effect"], worse["is_negligible"], best["difference"]) == ("0.2", "True", "")
    assert not {"gradients", "values", "samples"} & best.keys()


def test_what_a_method_spends_is_a_column_of_every_table():
    rows = list(csv.DictReader(io.StringIO(comparison_csv(COSTS))))
    assert [row["gradients"] for row in rows] == ["50.0", "", "50.0", ""]
    assert all(None not in row and len(row) == 21 for row in rows), "as many cells as names"
    text = comparison_markdown(COSTS)
    assert text.count("| method | gradients | mean |") == 2
    assert "| **smooth_grad** | **50** | **0.6272** |" in text
    assert "| a\\|b & [c] |  | 0.5000 |" in text
    latex = comparison_latex(COSTS).splitlines()
    assert r"\begin{tabular}{lrrr}" in latex
    assert r"method & gradients & gini $\uparrow$ & inherent\_noise \\" in latex
    assert [line.split(" & ")[1] for line in latex if line.startswith("smooth")] == ["50"]
    assert comparison_tables(COSTS)[0].columns[:3] == ("method", "gradients", "mean")
    assert any(note.startswith("gradients: ") for note in comparison_notes(COSTS))


def test_what_is_left_out_at_equal_compute_is_named():
    (note,) = (note for note in comparison_notes(MATCHED) if "equal compute" in note)
    assert "methods that spend 50 gradients a sample (within 5 %), or at most one" in note
    assert note.endswith("Left out: fusion_grad (100), noise_grad (unknown).")
    (note,) = (note for note in comparison_notes(replace(MATCHED, left_out={})) if "equal compute" in note)
    assert "Left out" not in note
    assert not any("equal compute" in note for note in comparison_notes(COSTS))


def test_nothing_is_marked_where_samples_are_too_few_or_all_are_equal():
    """Of 5 samples the least p-value is 2 / 2^5, of 6 it is 2 / 2^6."""

    def compared(number, shift):
        values = {name: {"gini": np.arange(number) + shift * place} for place, name in enumerate("ab")}
        values["c"] = {"auroc": np.arange(number)}
        scores = Scores.from_values("test", 0, 0, np.arange(number), values)
        found = scores.compare({"gini": True, "auroc": True})
        boldest = [bool(table.bold) for table in comparison_tables(found)]
        texts = [text.get_text() for text in rank_map(found).axes[0].texts]
        bars = {patch.get_facecolor() for patch in score_bars(found).axes[0].patches}
        assert ("textbf" in comparison_latex(found) or "mathbf" in comparison_latex(found)) == any(boldest)
        assert any("★" in text for text in texts[::2]) == boldest[0]
        assert (len(bars) > 1) == boldest[0]
        return boldest, " ".join(comparison_notes(found))

    few, notes = compared(5, 1.0)
    assert (few, "nothing in bold: gini (5)." in notes) == ([False, True], True), "a single method needs no test"
    enough, notes = compared(6, 1.0)
    assert (enough, "nothing in bold" in notes) == ([True, True], False)
    assert compared(6, 0.0)[0] == [False, True]


def test_the_agreement_is_a_triangle():
    assert (
        comparison_markdown(AGREEING)
        .split("### ")[-1]
        .startswith(
            "agreement between metrics\n"
            "\n"
            "| metric | 1 | 2 |\n"
            "| --- | ---: | ---: |\n"
            "| 1 gini |  |  |\n"
            "| 2 auroc | +0.53 |  |\n"
            "| 3 noise | +0.00 |  |\n"
            "\n"
        )
    )
    *_, last = rendered(comparison=AGREEING).split("agreement between metrics")
    lines = [line.split() for line in last.splitlines() if line.strip("─ ")]
    assert lines == [["metric", "1", "2"], ["1", "gini"], ["2", "auroc", "+0.53"], ["3", "noise", "+0.00"]]


def test_the_note_on_agreement_says_how_sure_and_without_whom():
    note = comparison_notes(AGREEING)[-1]
    assert note.endswith("one says the reverse; mean over 1 to 64 samples, standard error up to 0.03.")
    surer = replace(AGREEMENTS[0], standard_error=0.01)
    assert "error up to 0.03." in comparison_notes(replace(AGREEING, agreements=(surer, AGREEMENTS[0])))[-1]
    note = comparison_notes(replace(AGREEING, agreements=AGREEMENTS[1:], controls=("edges", "random")))[-1]
    assert note.endswith("mean over 1 samples, without the controls edges, random.")
    assert not any("Agreement" in note for note in comparison_notes(COMPARISON))
    assert "agreement" not in rendered() + comparison_markdown(COMPARISON)


def test_the_terminal_tables_say_the_same():
    text = rendered()
    for cell in ("smooth_grad *", "0.6272", "[0.6000, 0.6500]", "a|b & [c]", "-0.75", "2e-08", "gini ↑, 61 of 64"):
        assert cell in text
    assert "…" not in rendered(width=50)


def test_the_best_are_bold_in_the_terminal():
    rows = terminal_table(comparison_tables(COMPARISON)[0]).columns[0]._cells
    assert [row.style for row in rows] == ["bold", ""]


def test_the_notes_say_what_was_compared():
    text = "\n".join(comparison_notes(COMPARISON))
    assert "version_0: test, epoch 3, step 40, 64 samples; version_1: test, epoch 0, step 0, 70 samples." in text
    assert "in common: 64 in gini, 60 in inherent_noise." in text
    assert "95 % confidence interval of the mean]: BCa bootstrap, 9999 resamples, seed 0" in text
    assert "without best and tests: inherent_noise" in text
    plain = comparison_notes(Comparison(RUNS[:1], (GINI,), 0.01, 9999, 0))
    assert "99 % confidence" in plain[1]
    assert "not significantly worse at 0.01" in plain[2]
    assert "over all pairs of methods of the metric" in plain[2]
    assert plain[3].endswith("below the smallest effect of interest: a|b & [c] in gini (less than 0.2).")
    assert len(plain) == 4
    published = comparison_notes(Comparison(RUNS[:1], (GINI,), 0.01, 9999, 0, procedure="published"))
    assert "over the methods (as published; equally good ones are called worse more often" in published[2]


def test_the_notes_name_what_was_not_scored():
    run = replace(RUNS[0], not_scored=("noise_grad", "auroc in x"))
    absent = replace(NOISE, methods=(TINY,))
    text = "\n".join(comparison_notes(replace(COMPARISON, runs=(run, RUNS[1]), metrics=(GINI, absent))))
    assert (
        "Not scored in epoch 3, step 40 of version_0, but in other evaluations of its stage: noise_grad, auroc in x."
    ) in text
    assert "Not scored: a|b & [c] in inherent_noise." in text
    assert "Not scored" not in "\n".join(comparison_notes(COMPARISON))


def test_the_notes_tell_the_interval_of_many_samples():
    many = replace(GINI, samples=tuple(range(2001)))
    assert any(
        "seed 0; beyond 2000 samples its analytic form (ABC)." in n
        for n in comparison_notes(replace(COMPARISON, metrics=(many,)))
    )


def test_the_files_are_written_as_a_whole(tmp_path):
    for _ in range(2):
        paths = write_comparison(COMPARISON, tmp_path / "new")
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    assert [path.name for path in paths] == ["comparison.csv", "comparison.md", "comparison.tex"]
    makers = (comparison_csv, comparison_markdown, comparison_latex)
    assert [path.read_text(encoding="utf-8") for path in paths] == [make(COMPARISON) for make in makers]


# The command


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "version_0" / "xai" / "scores"
    values = {"good": 0.9, "bad": 0.1}
    rows = [("test", 0, 0, m, "gini", i, v + i / 100) for m, v in values.items() for i in range(12)]
    append_scores(path, Scores.from_rows(rows))
    write_directions(path, {"gini": True})
    return tmp_path / "version_0"


def test_the_command_prints_and_writes(folder, tmp_path, capsys):
    main(["compare", str(folder), "--output", str(tmp_path / "out"), "--alpha", "0.1"])
    printed = capsys.readouterr().out
    path = str(tmp_path / "out" / "comparison.md")
    for text in ("gini ↑, 12 samples", "good *", "-1.00", "0.0005", "90 % interval", path):
        assert text in printed
    names = {"comparison.csv", "comparison.md", "comparison.tex"}
    names |= {"comparison-bars.png", "comparison-boxes.png", "comparison-ranks.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert all(str(tmp_path / "out" / name) in printed for name in names)


def test_the_command_compares_at_equal_compute(folder, capsys):
    costs = {"good": 50, "bad": 100}
    rows = [("test", 0, 0, m, "gradients", i, float(c)) for m, c in costs.items() for i in range(12)]
    append_scores(folder / "xai" / "scores", Scores.from_rows(rows))
    main(["compare", str(folder)])
    assert {"bad", "gradients", "100"} <= set(capsys.readouterr().out.split())
    main(["compare", str(folder), "--gradients", "50"])
    printed = capsys.readouterr().out
    assert "Left out: bad (100)." in printed
    assert "good *" in printed
    assert "-1.00" not in printed


def test_the_command_takes_the_procedure_and_the_smallest_effects(folder, capsys):
    append_scores(folder / "xai" / "scores", Scores.from_rows([("validate", 0, 0, "good", "gini", 0, 0.9)]))
    main(["compare", str(folder), "--procedure=published", "--smallest_effects.gini=1.5"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "-0.8000 ≈" in printed
    assert "Holm's correction over the methods (as published;" in printed
    assert "negligible" in printed
    main(["compare", str(folder)])
    assert "≈" not in capsys.readouterr().out


def test_the_command_takes_its_words_from_the_command_line(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lightning-xai", "compare", str(folder), "--stage=test", "--epoch=0"])
    main()
    assert "good *" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epoch=3"], "`epoch`: version_0 has no scores of epoch 3"),
        (["--stage=fit"], "`stage`: version_0 has no scores of 'fit'"),
        (["--alpha=2"], "`alpha` must be between 0 and 1"),
        (["--gradients=50"], "`gradients`: no run has recorded what its methods spend"),
        (["absent"], "`runs`: no scores in "),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main(["compare", str(folder), *options, f"--output={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_no_folder_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`output`: cannot write to .*file \(Not a dir.*Choose a folder"):
        main(["compare", str(folder), f"--output={tmp_path / 'file'}"])


def test_the_command_needs_a_run(capsys):
    with pytest.raises(SystemExit):
        main(["compare"])
    assert "`runs` must be given" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse
def test_help_names_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lightning-xai", "--help"])
    main()
    assert "  compare    compare the methods of finished runs\n" in capsys.readouterr().out


def test_two_runs_are_paired_behind_a_conclusion_and_have_their_controls_once(tmp_path, capsys):
    folders = [tmp_path / name for name in ("first", "run_b")]
    for gain, folder in enumerate(folders):
        means = {"good": 0.5 + gain / 10, "random": 0.25}
        append_scores(
            folder / "xai" / "scores",
            Scores.from_rows(
                ("test", 0, 0, m, "gini", i, mean + i / 100) for m, mean in means.items() for i in range(12)
            ),
        )
        write_directions(folder / "xai" / "scores", {"gini": True})
    main(["compare", *map(str, folders)])
    printed = capsys.readouterr().out
    assert printed.startswith("run_b:good is the best")
    assert "Against first, run_b is better in 1, worse in 0 of 1 methods" in " ".join(printed.split())
    assert re.search(r"method +first +run_b +difference", printed), "a name is no words"
    row = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["good"])
    assert row == ["good", "0.5550", "0.6550", "+0.1000", "[+0.1000,", "+0.1000]", row[-2], "12"]
    rows = [line.split()[0] for line in printed.partition("gini ↑")[2].splitlines() if ":" in line.split(" 0.")[0]]
    assert {"first:random", "first:good", "run_b:good"} <= set(rows)
    assert "run_b:random" not in rows
