"""Which scores are compared: runs are found and named, and one evaluation of each is chosen."""

import pytest

from lightning_xai.experiments import compare_methods, read_runs
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, set_aside, write_directions


def rows(scores, stage="test", epoch=0, step=0):
    return Scores.from_rows(
        (stage, epoch, step, method, "gini", sample, float(value))
        for method, values in scores.items()
        for sample, value in enumerate(values)
    )


@pytest.fixture
def folder(tmp_path):
    """Two validations, and in `b` a test as well."""
    for name in "ab":
        path = tmp_path / name / "version_0" / "xai" / "scores"
        for epoch, steps in ((0, [5]), (1, [8, 10])):
            for step in steps:
                scores = {"m": [epoch + step / 100]}
                append_scores(path, rows(scores, stage="validate", epoch=epoch, step=step))
        write_directions(path, {"gini": True})
    append_scores(path, rows({"m": [7.0]}, stage="test"))
    return tmp_path


def test_a_run_is_its_folder_its_xai_folder_or_that_of_the_scores(folder):
    found = [read_runs([folder / "b" / "version_0" / part])[0] for part in ("", "xai", "xai/scores")]
    assert found[0] == found[1] == found[2]
    assert found[0].name == "version_0"
    assert found[0].higher_is_better == {"gini": True}


def test_the_last_evaluation_is_chosen_or_the_epoch_asked_for(folder):
    def chosen(*runs, **options):
        return [
            next(iter(r.scores)).value for r in read_runs([folder / name / "version_0" for name in runs], **options)
        ]

    assert chosen("b") == [7.0]
    assert chosen("a") == [1.10]
    assert chosen("a", "b") == [1.10, 1.10]
    assert chosen("b", stage="validate", epoch=0) == [0.05]


def test_the_last_test_is_the_one_made_last_whatever_its_step(folder):
    """Of an earlier checkpoint after the last one, or after a training that was taken up earlier."""
    run = folder / "b" / "version_0"
    append_scores(run / "xai" / "scores", rows({"m": [8.0]}, epoch=4, step=12))
    append_scores(run / "xai" / "scores", rows({"m": [9.0]}, epoch=3, step=9))
    (found,) = read_runs([run])
    assert [(row.epoch, row.step, row.value) for row in found.scores] == [(3, 9, 9.0)]


def test_runs_of_one_name_are_told_apart_by_the_folders_above(folder):
    assert [r.name for r in read_runs([folder / "a" / "version_0", folder / "b" / "version_0"])] == [
        "a/version_0",
        "b/version_0",
    ]


def test_what_the_chosen_evaluation_has_no_scores_of_is_named(tmp_path):
    path = tmp_path / "scores"
    early, late = (
        (("m", "gini"), ("m", "auroc"), ("n", "gini"), ("n", "auroc"), ("o", "gini"), ("o", "size")),
        (
            ("m", "gini"),
            ("m", "auroc"),
            ("n", "gini"),
            ("new", "gini"),
        ),
    )
    for epoch, pairs in enumerate((early, late)):
        append_scores(path, Scores.from_rows(("validate", epoch, 9, *pair, 0, 1.0) for pair in pairs))
    (run,) = read_runs([path])
    assert run.not_scored == ("n in auroc", "o", "size")
    assert read_runs([path], epoch=0)[0].not_scored == ("new",)
    assert compare_methods([run]).runs[0].not_scored == run.not_scored


def test_files_of_any_name_can_be_compared(folder):
    other = folder / "other.csv"
    for file in (other, other.with_suffix(".parquet")):
        rows({"m": [1.0]}, stage="validate").save(file)
        assert [r.name for r in read_runs([file, folder / "a" / "version_0"])] == [file.name, "version_0"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["absent"], {}, r"`runs`: no scores in .*absent\. Name a run's folder"),
        (["a"], {}, r"`runs`: no scores in .*/a\. Name a run's folder"),
        (["a/version_0", "a/version_0/xai"], {}, r"xai/scores is given twice"),
        (["a/version_0"], {"stage": "test"}, r"`stage`: version_0 has no scores of 'test'; it has 'validate'\."),
        (["a/version_0"], {"stage": "validation"}, r"no scores of 'validation'; it has 'validate'\."),
        (
            ["b/version_0"],
            {"stage": "validate", "epoch": 9},
            r"no scores of epoch 9 in 'validate'; it has 0, 1\.",
        ),
        (["a/version_0", "only_test"], {}, r"version_0 has 'validate'; only_test has 'test'\. Choose runs that share"),
        (["empty"], {}, r"neither 'test' nor 'validate' .*: empty has none"),
    ],
)
def test_what_cannot_be_chosen_is_refused(folder, names, options, message):
    append_scores(folder / "only_test" / "scores", rows({"m": [7.0]}, stage="test"))
    append_scores(folder / "empty" / "scores", Scores.from_rows([]))
    with pytest.raises(ValueError, match=message):
        read_runs([folder / name for name in names], **options)


def test_a_run_of_an_earlier_version_is_found_under_each_of_its_names(folder):
    """It has a CSV file in the place of the folder; a test run of this version adds to it."""
    for new in (False, True):
        for part in ("", "xai", "xai/scores.csv"):
            old = folder / "old" / "version_0"
            rows({"m": [1.0]}, stage="validate").save(old / "xai" / "scores.csv")
            (run,) = read_runs([old / part])
            assert (run.name, [row.value for row in run.scores]) == ("version_0", [2.0 if new else 1.0])
        append_scores(old / "xai" / "scores", rows({"m": [2.0]}))
    with pytest.raises(ValueError, match="is given twice"):
        read_runs([old, old / "xai" / "scores.csv"])


def test_scores_that_were_set_aside_can_be_compared(folder):
    xai = folder / "a" / "version_0" / "xai"
    expected = read_runs([xai])[0]
    set_aside(xai / "scores")
    found = read_runs([xai / "scores-1"])[0]
    assert (found.scores, found.higher_is_better) == (expected.scores, {"gini": True})


def test_a_damaged_part_is_refused(folder):
    path = folder / "a" / "version_0" / "xai" / "scores" / "000002.parquet"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"000002\.parquet is damaged"):
        read_runs([folder / "a" / "version_0"])


def test_the_classes_of_metrics_are_read_back_and_must_agree(folder):
    runs = [folder / name / "version_0" for name in "ab"]
    write_directions(runs[0] / "xai" / "scores", {"gini": True}, {"gini": "lightning_xai.metrics.Sparseness"})
    write_directions(runs[0] / "xai" / "scores", {"other": None})
    assert [run.metric_classes for run in read_runs(runs)] == [{"gini": "lightning_xai.metrics.Sparseness"}, {}]
    assert compare_methods(read_runs(runs)).metrics[0].metric_class == "lightning_xai.metrics.Sparseness"
    write_directions(runs[1] / "xai" / "scores", {"gini": True}, {"gini": "mine.Gini"})
    with pytest.raises(ValueError, match=r"`runs` disagree on what gini is: .* mine.Gini"):
        compare_methods(read_runs(runs))
