"""The table of per-sample scores: what is written is what is read, or nothing at all."""

import csv
import math
import os

import pytest
import torch

from lightning_xai.results.files import replacing
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, read_directions, read_scores, write_directions

LINES = [
    ("validate", 0, 100, "smooth_grad", "gini", 7, 0.1),
    ("validate", 0, 100, 'a, "quoted"\nname | é', "auroc", 8, torch.tensor(1 / 3).item()),
    ("test", 3, 400, "smooth_grad", "gini", 2**40, -1.5e-30),
]
ROWS = Scores.from_rows(LINES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.csv"


def test_rows_come_back_as_they_were(path):
    append_scores(path, ROWS)
    assert read_scores(path) == ROWS


@pytest.mark.parametrize(
    "name", ["=1+1", "+a", "-a", "@a", "\ta", "\n=a", "'=a", "''=a", "-0.5", "'-0.5", "'a", "a=1", ""]
)
def test_no_name_is_a_formula_and_each_comes_back(path, name):
    rows = Scores.from_rows([(name, 0, 1, name, name, 2, 0.5)])
    append_scores(path, rows)
    assert read_scores(path) == rows
    with path.open(newline="") as file:
        written = next(csv.DictReader(file))["method"]
    assert written == "-0.5" or not written.startswith(tuple("=+-@\t\r\n"))
    again = Scores.from_rows([(name, 0, 1, name, name, 2, -0.5)])
    append_scores(path, again)
    assert read_scores(path) == again
    append_scores(path, rows, after_step=0)
    assert read_scores(path) == rows


def test_rows_are_appended_under_one_header(path):
    append_scores(path, Scores.from_rows(LINES[:1]))
    append_scores(path, Scores.from_rows([]))
    append_scores(path, Scores.from_rows(LINES[1:]))
    assert read_scores(path) == ROWS
    assert path.read_text().splitlines()[0] == "stage,epoch,step,method,metric,sample,value"
    assert path.read_text().count("stage,epoch") == 1


def test_float32_scores_come_back_bit_for_bit(path):
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-30, 20).repeat(20)
    append_scores(path, Scores.from_values("test", 0, 0, torch.arange(1000), {"m": {"s": scores}}))
    rows = read_scores(path)
    assert [row.sample for row in rows] == list(range(1000))
    assert torch.equal(torch.tensor([row.value for row in rows]), scores)


def test_undefined_scores_are_written_as_nan(path):
    append_scores(path, Scores.from_rows([("test", 0, 0, "m", "s", 0, math.nan)]))
    assert path.read_text().endswith(",0,nan\n")
    assert math.isnan(next(iter(read_scores(path))).value)


def test_other_programs_read_the_file(path):
    append_scores(path, ROWS)
    with path.open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row.method for row in ROWS]


def test_an_interrupted_write_leaves_the_old_file(path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    append_scores(path, ROWS)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        append_scores(path, ROWS)
    monkeypatch.undo()
    assert read_scores(path) == ROWS
    assert os.listdir(path.parent) == ["scores.csv"]


@pytest.mark.parametrize("removed", [1, 3, 30])
def test_a_file_cut_short_is_refused(path, removed):
    append_scores(path, ROWS)
    path.write_bytes(path.read_bytes()[:-removed])
    for use in (read_scores, lambda p: append_scores(p, ROWS)):
        with pytest.raises(ValueError, match=r"scores.csv, line \d: the file is cut short"):
            use(path)


def test_a_foreign_file_is_refused_and_kept(path):
    path.write_text("a,b\n1,2\n")
    for use in (read_scores, lambda p: append_scores(p, ROWS)):
        with pytest.raises(ValueError, match=r"scores.csv, line 1: expected the header 'stage,.*got 'a,b'"):
            use(path)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    "line", ["test,0,0,m,s,1", "test,0,0,m,s,1,high", "test,x,0,m,s,1,0.5", "test,0,0,m,s,1,0.5,9"]
)
def test_a_line_that_is_no_row_is_named(path, line):
    append_scores(path, Scores.from_rows(LINES[:1]))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"scores.csv, line 3: expected the columns stage,epoch"):
        read_scores(path)


def test_a_line_that_is_no_csv_is_named(path):
    append_scores(path, Scores.from_rows(LINES[:1]))
    path.write_text(path.read_text() + 'test,0,0,"m"x,s,1,0.5\n')
    with pytest.raises(ValueError, match=r"scores.csv, line 3: not a line of CSV"):
        read_scores(path)


def test_folders_are_made(tmp_path):
    append_scores(tmp_path / "a" / "b" / "scores.csv", ROWS)
    assert read_scores(tmp_path / "a" / "b" / "scores.csv") == ROWS


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    """A file in the place of a folder: permissions would not stop an administrator."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write `path`; choose a folder .*scores.csv"):
        append_scores(tmp_path / "file" / "scores.csv", ROWS)


def test_a_read_only_folder_raises_a_permission_error(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: cannot write `path`"):
        append_scores(path, ROWS)


def test_replacing_shows_nothing_before_the_end(path):
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_an_evaluation_made_again_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "scores.csv"

    def row(epoch, method, value):
        return ("validate", epoch, 10 * epoch, method, "gini", 7, value)

    append_scores(path, Scores.from_rows([row(0, 'a,"b"', 0.1), row(0, "c", 0.2), row(1, "c", 0.3)]))
    append_scores(path, Scores.from_rows([row(0, 'a,"b"', 0.4), row(1, "c", 0.5)]))
    assert read_scores(path) == Scores.from_rows([row(0, "c", 0.2), row(0, 'a,"b"', 0.4), row(1, "c", 0.5)])


def test_directions_are_kept_beside_the_scores(path):
    assert read_directions(path) == {}
    write_directions(path, {"gini": True, "noise": False})
    write_directions(path, {"noise": True, 'a "b"': None})
    assert read_directions(path) == {"gini": True, "noise": True, 'a "b"': None}
    assert sorted(os.listdir(path.parent)) == ["metrics.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"gini": {"higher_is_better": tr',
        '{"gini": true}',
        "[1]",
        '{"gini": {}}',
        '{"a": {"higher_is_better": "x"}}',
    ],
)
def test_a_file_without_directions_is_refused_and_kept(path, text):
    (path.parent / "metrics.json").write_text(text)
    for use in (read_directions, lambda p: write_directions(p, {"gini": True})):
        with pytest.raises(ValueError, match=r"metrics.json: expected \{\"METRIC\""):
            use(path)
    assert (path.parent / "metrics.json").read_text() == text
