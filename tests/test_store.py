"""Scores in files: what is written is what is read, or nothing at all."""

import csv
import math
import os

import pandas as pd
import pytest
import torch

from lightning_xai.cli import main
from lightning_xai.experiments import read_runs
from lightning_xai.results.files import replacing
from lightning_xai.results.scores import COLUMNS, Scores
from lightning_xai.results.store import (
    Share,
    append_scores,
    new_evaluation,
    read_directions,
    read_evaluation,
    read_outline,
    read_scores,
    score_files,
    set_aside,
    write_directions,
)

LINES = [
    ("validate", 0, 100, "smooth_grad", "gini", 7, 0.1),
    ("validate", 0, 100, 'a, "quoted"\nname | é', "auroc", 8, torch.tensor(1 / 3).item()),
    ("test", 3, 400, "smooth_grad", "gini", 2**40, -1.5e-30),
    ("test", 3, 400, "smooth_grad", "auroc", 7, math.nan),
    ("test", 3, 400, "smooth_grad", "size", 7, math.inf),
]
ROWS = Scores.from_rows(LINES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores"


def row(epoch, method, value, stage="validate"):
    return (stage, epoch, 10 * epoch, method, "gini", 7, value)


# One file


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_scores_come_back_as_they_were(path, suffix):
    file = path.with_suffix(f".{suffix}")
    for scores in (ROWS, Scores.from_rows([])):
        scores.save(file)
        assert Scores.load(file) == read_scores(file) == scores


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_float32_scores_come_back_bit_for_bit(path, suffix):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-30, 20).repeat(20)
    Scores.from_values("test", 0, 0, torch.arange(1000), {"m": {"s": values}}).save(path.with_suffix(f".{suffix}"))
    found = Scores.load(path.with_suffix(f".{suffix}"))
    assert found.unique("sample") == list(range(1000))
    assert torch.equal(torch.tensor(found.table["value"].tolist()), values)


@pytest.mark.parametrize(
    "name", ["=1+1", "+a", "-a", "@a", "\ta", "\n=a", "\ra", "'=a", "''=a", "-0.5", "'-0.5", "'a", "a=1", ""]
)
def test_no_name_is_a_formula_and_each_comes_back(path, name):
    rows = Scores.from_rows([(name, 0, 1, name, name, 2, 0.5)])
    rows.save(file := path.with_suffix(".csv"))
    assert Scores.load(file) == rows
    with file.open(newline="") as lines:
        written = next(csv.DictReader(lines))["method"]
    assert written == "-0.5" or not written.startswith(tuple("=+-@\t\r\n"))
    append_scores(path.with_name("parts"), rows)
    assert read_scores(path.with_name("parts")) == rows


def test_other_programs_read_the_files(path):
    ROWS.save(path.with_suffix(".csv"))
    assert path.with_suffix(".csv").read_text().splitlines()[0] == "stage,epoch,step,method,metric,sample,value,target"
    assert path.with_suffix(".csv").read_text().splitlines()[-2].endswith(",7,nan,-1")
    with path.with_suffix(".csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row[3] for row in LINES]
    part = append_scores(path, ROWS)
    assert pd.read_parquet(part)["value"].equals(ROWS.table["value"])
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(part)
    assert {file.metadata.row_group(0).column(i).compression for i in range(7)} == {"ZSTD"}
    assert file.read()["value"].null_count == 0, "an undefined score is NaN, not missing"


def test_what_a_spreadsheet_saved_is_read(path):
    """Line ends of Windows, a byte order mark, quotes around everything, numbers in other digits."""
    ROWS.save(file := path.with_suffix(".csv"))
    text = file.read_text().replace("\n", "\r\n").replace('"\r\nname', '"\nname').replace("0.1", "1.0E-01")
    for changed in (text, text.replace("stage,epoch", '"stage","epoch"'), text + "\r\n"):
        file.write_bytes(b"\xef\xbb\xbf" + changed.encode())
        assert Scores.load(file) == ROWS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"line 7: the file is cut short .*Remove the line .*end it with a line break"),
        (lambda data: data[:-30], r"line \d: the file is cut short"),
        (lambda data: b"a,b\n1,2\n", r"line 1: expected the header 'stage,.*got 'a,b'.*choose another file"),
        (lambda data: data.replace(b",", b";"), r"line 1: expected the header .*got 'stage;.*with commas"),
        (lambda data: b"", r"line 1: expected the header 'stage,.*got ''"),
        (lambda data: data + b"test,0,0,m,s,1\n", r"line 8: expected the columns stage,epoch.*Remove the line"),
        (lambda data: data + b"test,0,0,m,s,1,high,2\n", r"line 8: expected the columns stage,epoch"),
        (lambda data: data + b"test,x,0,m,s,1,0.5,2\n", r"line 8: expected the columns stage,epoch"),
        (lambda data: data + b"test,0,0,m,s,1,0.5,9,9\n", r"line 8: expected the columns stage,epoch"),
        (lambda data: data + b"test,1_0,0,m,s,1,0.5,2\n", r"line 8: expected the columns stage,epoch.*whole numbers"),
        (lambda data: data + b"test,0,0,m,s,99999999999999999999,0.5,2\n", r"line 8: expected the columns stage,epoch"),
        (lambda data: data + b'test,0,0,"m"x,s,1,0.5\n', r"line 8: not a line of CSV"),
        (lambda data: data.decode().encode("latin-1"), r": not UTF-8 .*Save it as CSV in UTF-8"),
    ],
)
def test_a_damaged_csv_file_is_named_with_the_line_and_a_cure(path, damage, message):
    ROWS.save(file := path.with_suffix(".csv"))
    file.write_bytes(damage(file.read_bytes()))
    for use in (Scores.load, read_scores, lambda file: read_scores(file.with_suffix(""))):
        with pytest.raises(ValueError, match=r"scores\.csv.*" + message):
            use(file)


def lacking(data, columns=list(COLUMNS)[:-2]):
    return ROWS.table[columns].to_parquet()


@pytest.mark.parametrize("damage", [lacking, lambda data: data[:-1], lambda data: data[1:], lambda data: b""])
def test_a_damaged_part_is_named_with_a_cure_and_the_rest_can_be_read(path, damage):
    append_scores(path, ROWS.select(stage="test"))
    part = append_scores(path, ROWS.select(stage="validate"))
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(ValueError, match=r"000002\.parquet is damaged, or no table of scores .*or remove it"):
        read_scores(path)
    part.unlink()
    assert read_scores(path) == ROWS.select(stage="test")


FOREIGN = {
    "no name": {"method": None},
    "no epoch": {"epoch": math.nan},
    "text": {"value": "high"},
    "list": {"value": [[0.5]] * 5},
}


@pytest.mark.parametrize("columns", FOREIGN.values(), ids=FOREIGN)
def test_a_part_of_other_types_is_refused_by_name(path, columns):
    part = append_scores(path, ROWS)
    ROWS.table.head(5).astype(object).assign(**columns).to_parquet(part)
    with pytest.raises(ValueError, match=r"000001\.parquet: no table of scores of ours .* Move it out of the folder"):
        read_scores(path)


def test_a_folder_named_like_a_part_is_none(path):
    append_scores(path, ROWS)
    (path / "000002.parquet").mkdir()
    assert read_scores(path) == ROWS


def test_a_flipped_bit_is_found_or_harms_nothing(path):
    part = append_scores(path, ROWS)
    data, found = part.read_bytes(), []
    for place in range(0, len(data), 11):
        part.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            assert read_scores(path) == ROWS
        except ValueError as error:
            assert "000001.parquet is damaged" in str(error)  # noqa: PT017
            found.append(place)
    assert len(found) > len(data) / 22


# Parts


def test_each_write_is_a_part_of_its_own(path):
    parts = [append_scores(path, Scores.from_rows(lines)) for lines in (LINES[:1], [], LINES[1:])]
    assert [part.name for part in parts] == ["000001.parquet", "000002.parquet", "000003.parquet"]
    before = [part.read_bytes() for part in parts]
    parts[0].unlink()
    assert append_scores(path, Scores.from_rows(LINES[:1])).name == "000004.parquet"
    assert [part.read_bytes() for part in parts[1:]] == before[1:]
    assert read_scores(path) == Scores.from_rows([*LINES[1:], *LINES[:1]])


def test_an_evaluation_made_again_takes_the_place_of_the_earlier_one(path):
    append_scores(path, Scores.from_rows([row(0, 'a,"b"', 0.1), row(0, "c", 0.2), row(1, "c", 0.3)]))
    append_scores(path, Scores.from_rows([row(0, 'a,"b"', 0.4), row(1, "c", 0.5)]))
    assert read_scores(path) == Scores.from_rows([row(0, "c", 0.2), row(0, 'a,"b"', 0.4), row(1, "c", 0.5)])


def test_scores_after_the_step_of_a_resumed_training_give_way(path):
    """Of the same stage; those of the resumed training stay, whatever their steps."""
    rows = [row(epoch, "a", 0.0, stage) for stage in ("validate", "test") for epoch in (1, 2, 3)]
    append_scores(path, Scores.from_rows(rows))
    append_scores(path, Scores.from_rows([row(4, "a", 1.0)]), after_step=20)
    append_scores(path, Scores.from_rows([row(5, "a", 1.0)]))
    found = [(r.stage, r.step) for r in read_scores(path)]
    assert found == [
        *[("validate", 10), ("validate", 20), ("test", 10), ("test", 20), ("test", 30)],
        *[("validate", 40), ("validate", 50)],
    ]
    append_scores(path, Scores.from_rows([row(1, "a", 2.0)]), after_step=0)
    assert [(r.stage, r.value) for r in read_scores(path)] == [*[("test", 0.0)] * 3, ("validate", 2.0)]


def shared(samples, rank, world, name, value=0.5, epoch=1):
    lines = [
        ("validate", epoch, 10 * epoch, m, s, sample, value)
        for m in "ab"
        for s in ("gini", "auroc")
        for sample in samples
    ]
    return Scores.from_rows(lines), Share(name, rank, world)


def test_the_parts_of_one_evaluation_are_one_and_written_in_any_order(path):
    append_scores(path, whole := shared(range(5), 0, 1, "")[0])
    name = new_evaluation(path)
    assert name.startswith("000002-")
    for rank, samples in ((2, []), (0, [0, 3]), (1, [1, 2, 4])):
        assert read_scores(path) == whole
        scores, share = shared(samples, rank, 3, name, 0.7)
        part = append_scores(path, scores, 10, share)
        assert part.name == f"{name}-{rank}-of-3.parquet"
    again = shared(range(5), 0, 1, "", 0.7)[0]
    assert read_scores(path) == read_evaluation(part) == again, "in the order of one process"
    assert append_scores(path, whole).name == "000003.parquet"
    assert read_scores(path) == whole
    assert read_evaluation(part) == again


def test_of_an_evaluation_that_lacks_a_part_nothing_is_there(path):
    name, other = new_evaluation(path), new_evaluation(path)
    assert name != other
    for rank, own in enumerate((name, other)):
        scores, share = shared([rank], rank, 2, own)
        part = append_scores(path, scores, share=share)
    assert len(read_scores(path)) == len(read_evaluation(part)) == 0
    assert len(score_files(path)) == 2


def test_only_the_scores_that_are_wanted_are_read_and_the_outline_says_which_there_are(path):
    Scores.from_rows([row(0, "a", 0.1), row(1, "a", 0.2)]).save(path.with_suffix(".csv"))
    append_scores(path, Scores.from_rows([row(epoch, name, 0.3) for epoch in (1, 2, 3) for name in "ba"]))
    append_scores(path, Scores.from_rows([row(2, "a", 0.4), row(2, "a", 0.4, "test")]), after_step=20)
    whole = read_scores(path)
    assert {r.epoch for r in whole} == {0, 1, 2}
    for wanted in ({"epoch": 2}, {"epoch": 3}, {"epoch": 2, "stage": "validate"}, {"method": "b"}, {"stage": "none"}):
        assert read_scores(path, **wanted) == whole.select(**wanted)
    keys = ["stage", "epoch", "step", "method", "metric"]
    expected = whole.to_dataframe()[keys].drop_duplicates(keep="last").reset_index(drop=True)
    assert read_outline(path).to_dataframe()[keys].equals(expected)
    file = path.with_suffix(".csv")
    assert read_outline(file).to_dataframe()[keys].equals(Scores.load(file).to_dataframe()[keys])


def test_groups_of_rows_without_wanted_ones_are_left_out(path, monkeypatch):
    import pyarrow.parquet

    scores = Scores.from_rows([(*row(epoch, "a", 0.3)[:5], sample, 0.5) for epoch in (1, 2) for sample in range(4)])
    writer = pyarrow.parquet.ParquetWriter
    plain = writer.write_table
    monkeypatch.setattr(writer, "write_table", lambda *a: plain(*a, row_group_size=2))
    append_scores(path, scores)
    read = []
    plain_read = pyarrow.parquet.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile,
        "read_row_groups",
        lambda self, groups, *a, **more: read.append(groups) or plain_read(self, groups, *a, **more),
    )
    assert read_scores(path, epoch=2) == scores.select(epoch=2)
    assert read == [[2, 3]]


def test_a_resumed_training_of_several_processes_keeps_all_of_its_parts(path):
    append_scores(path, shared([0, 1], 0, 1, "", epoch=3)[0])
    name = new_evaluation(path)
    for rank in (0, 1):
        scores, share = shared([rank], rank, 2, name, epoch=2)
        append_scores(path, scores, 10, share)
    assert read_scores(path) == shared([0, 1], 0, 1, "", epoch=2)[0]


def test_the_table_of_an_earlier_version_comes_first(path):
    Scores.from_rows([row(0, "a", 0.1), row(1, "a", 0.2)]).save(path.with_suffix(".csv"))
    assert len(read_scores(path)) == 2
    append_scores(path, Scores.from_rows([row(1, "a", 0.3)]))
    assert read_scores(path) == Scores.from_rows([row(0, "a", 0.1), row(1, "a", 0.3)])
    append_scores(path, Scores.from_rows([row(2, "a", 0.4)]), after_step=0)
    assert [r.epoch for r in read_scores(path)] == [0, 2]


def test_scores_set_aside_are_kept_together(path):
    assert set_aside(path) is None
    ROWS.save(path.with_suffix(".csv"))
    append_scores(path, Scores.from_rows([row(9, "a", 0.3)]))
    (path.parent / "scores-1").mkdir()
    before = read_scores(path)
    assert set_aside(path) == path.with_name("scores-2")
    assert (len(read_scores(path)), read_scores(path.with_name("scores-2"))) == (0, before)


def test_an_interrupted_write_leaves_what_was_there(path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    append_scores(path, ROWS)
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        append_scores(path, ROWS)
    monkeypatch.undo()
    assert read_scores(path) == ROWS
    assert (os.listdir(path.parent), os.listdir(path)) == (["scores"], ["000001.parquet"])


def test_folders_are_made(tmp_path):
    append_scores(tmp_path / "a" / "b" / "scores", ROWS)
    assert read_scores(tmp_path / "a" / "b" / "scores") == ROWS


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    """A file in the place of a folder: permissions would not stop an administrator."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write `path`; choose a folder .*scores"):
        append_scores(tmp_path / "file" / "scores", ROWS)


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


# Directions


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


# The command


def test_export_writes_what_compare_reads(tmp_path, capsys):
    run = tmp_path / "version_0"
    append_scores(run / "xai" / "scores", Scores.from_rows([row(0, "=a", 0.1), row(1, "=a", 0.2)]))
    append_scores(run / "xai" / "scores", Scores.from_rows([row(1, "=a", 0.3)]))
    for given in (run, run / "xai", run / "xai" / "scores"):
        main(["export", str(given), "--output", str(tmp_path / "out" / "all.csv")])
        assert capsys.readouterr().out.split() == ["written", str(tmp_path / "out" / "all.csv")]
    text = (tmp_path / "out" / "all.csv").read_text()
    assert text == (
        "stage,epoch,step,method,metric,sample,value,target\n"
        "validate,0,0,'=a,gini,7,0.1,-1\nvalidate,1,10,'=a,gini,7,0.3,-1\n"
    )
    main(["export", str(run)])
    assert capsys.readouterr().out == text
    ours, exported = (read_runs([given])[0].scores for given in (run, tmp_path / "out" / "all.csv"))
    assert ours == exported == Scores.from_rows([row(1, "=a", 0.3)])


def test_an_old_run_is_exported_and_compared_as_a_spreadsheet_saved_it(tmp_path, capsys):
    file = tmp_path / "version_0" / "xai" / "scores.csv"
    ROWS.save(file)
    main(["export", str(tmp_path / "version_0")])
    text = file.read_text()
    assert capsys.readouterr().out == text
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").replace('"\r\nname', '"\nname').encode())
    main(["export", str(tmp_path / "version_0")])
    assert capsys.readouterr().out == text
    assert read_runs([tmp_path / "version_0"])[0].scores == ROWS.select(stage="test")


def test_an_output_that_is_a_folder_is_refused(tmp_path):
    append_scores(tmp_path / "scores", ROWS)
    with pytest.raises(ValueError, match=r"`output`: .* is a folder\. Choose the name of a file"):
        main(["export", str(tmp_path), "--output", str(tmp_path)])
    with pytest.raises(ValueError, match=r"`runs`: no scores in .*nowhere"):
        main(["export", str(tmp_path / "nowhere")])
