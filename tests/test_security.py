"""Data never run, names are never obeyed, and bad arguments are refused before any work."""

import csv
import io
import os
import pickle
import sys
import time
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import torch
import yaml
from rich.console import Console

from lightning_xai.cli import main
from lightning_xai.cli.checks import check_local
from lightning_xai.cli.errors import is_refusal
from lightning_xai.cli.unique_keys import load_yaml
from lightning_xai.data.pictures import printable
from lightning_xai.experiments import compare_methods
from lightning_xai.experiments.noise_level import check_settings
from lightning_xai.experiments.papers import Lab
from lightning_xai.experiments.runs import Run
from lightning_xai.experiments.trained import examine_trained
from lightning_xai.explainers import Smooth, fusion_grad, with_gradients
from lightning_xai.explainers.base import check_count, check_level
from lightning_xai.reporting.comparison import comparison_csv, comparison_latex, comparison_markdown, comparison_tables
from lightning_xai.reporting.console import console, printable_lines
from lightning_xai.reporting.escapes import cell, latex, latex_row, markdown
from lightning_xai.reporting.folders import check_file, check_folder
from lightning_xai.reporting.render import markdown_table, terminal_table
from lightning_xai.reporting.reproduction import report_markdown
from lightning_xai.reporting.tables import front_table, score_table, write_validations
from lightning_xai.results.files import spreadsheet, write_csv
from lightning_xai.results.pareto import Validation
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.scores import Scores
from lightning_xai.results.tables import ResultTable
from lightning_xai.statistics.crossed import crossed_mean
from lightning_xai.statistics.intervals import mean_interval
from lightning_xai.studies.networks import kept

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


@pytest.fixture(autouse=True)
def _no_type_checker(monkeypatch):
    """A user's session has none: the package's own checks have to speak."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def _called_without_arguments(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


def call(command, *options):
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    main([command, f"--config={ROOT / 'configs' / 'mnist_mlp.yaml'}", *quiet, *options])


COMMANDS = ["fit", "validate", "test", "predict", "sanity", "calibrate", "visualize"]


# Checkpoints


class Payload:
    """Pickled, it makes a file when it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_that_would_run_something_is_refused(command, tmp_path):
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0", "loops": Payload()}, "bad.ckpt")
    Path("old.ckpt").write_bytes(pickle.dumps(Payload()))
    for name in ("bad.ckpt", "old.ckpt"):
        with pytest.raises(ValueError, match=rf"`ckpt_path`: {name} cannot be read as a checkpoint"):
            call(command, f"--ckpt_path={name}")
    assert not Path("executed").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_addresses_are_no_checkpoints(command):
    with pytest.raises(ValueError, match=r"`ckpt_path`: https://x.example/a.ckpt is not a path but an address"):
        call(command, "--ckpt_path=https://x.example/a.ckpt")


def test_only_local_files_are_checkpoints():
    Path("sharded").mkdir()
    for address in (
        "HTTP://x/a",
        "s3://b/a.ckpt",
        "gs://b/a",
        "file:///a.ckpt",
        "simplecache::http://x/a",
        "registry:m",
    ):
        with pytest.raises(ValueError, match=r"`ckpt_path`: .* is not a path but an address.*Download it, and give"):
            check_local(address)
    with pytest.raises(ValueError, match=r"`ckpt_path`: sharded is a folder, .*consolidate_checkpoint"):
        check_local("sharded")
    for fine in ("", "best", "last", "hpc", "runs/a.ckpt", "https_runs/a.ckpt"):
        check_local(fine)


def test_explain_takes_no_address():
    with pytest.raises(ValueError, match=r"`ckpt_path`: hf://a/b is not a path but an address"):
        main(["explain", "a.png", f"--config={ROOT / 'configs' / 'mnist_mlp.yaml'}", "--ckpt_path=hf://a/b"])


def test_weights_are_never_read_otherwise():
    with pytest.raises(ValueError, match="`weights_only` must be true or null"):
        call("fit", "--weights_only=false")


def trained_weights():
    content = torch.load(ROOT / "checkpoints" / "mnist_mlp.ckpt", weights_only=True)
    return {"state_dict": content["state_dict"], "pytorch-lightning_version": "2.6.0"}


def test_a_checkpoint_does_not_say_which_class_runs(monkeypatch):
    """LightningCLI would import and make what the hyper-parameters name."""
    Path("imported_by_checkpoint.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(".")
    named = {"_class_path": "imported_by_checkpoint.Module", "_instantiator": "x"}
    torch.save({**trained_weights(), "hyper_parameters": named}, "a.ckpt")
    embedded = ["--data=lightning_xai.data.DigitsDataModule", "--trainer.limit_test_batches=1"]
    call("test", "--ckpt_path=a.ckpt", "--trainer.callbacks=[]", *embedded)
    assert "imported_by_checkpoint" not in sys.modules


def test_a_folder_may_be_called_like_an_address():
    Path("https_runs").mkdir()
    torch.save(trained_weights(), "https_runs/a.ckpt")
    embedded = ["--data=lightning_xai.data.DigitsDataModule", "--trainer.limit_test_batches=1"]
    call("test", "--ckpt_path=https_runs/a.ckpt", "--trainer.callbacks=[]", *embedded)


# YAML


def bomb(merge):
    """Nine values; nine aliases of these; nine of those; ..."""
    first = "{x: 1}" if merge else "[x, x, x, x, x, x, x, x, x]"
    lines = [f"a: &a {first}"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        nine = f"[{', '.join([f'*{before}'] * 9)}]"
        lines.append(f"{name}: &{name} " + (f"{{<<: {nine}}}" if merge else nine))
    return "\n".join(lines)


@pytest.mark.parametrize("text", [bomb(False), bomb(True), "a: &a [*a]", "a: &a {x: *a}", f"? {{{bomb(False)}}}"])
def test_aliases_cannot_stand_for_millions_of_values(text):
    began = time.perf_counter()
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    assert time.perf_counter() - began < 1  # they take minutes otherwise


def test_deep_nesting_is_an_error_of_the_file():
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        load_yaml("[" * 2000 + "]" * 2000)


def test_a_bomb_is_refused_wherever_a_file_is_read(capsys):
    Path("bomb.yaml").write_text(bomb(False))
    config = f"--config={ROOT / 'configs' / 'mnist_mlp.yaml'}"
    why = "aliases (*NAME) stand for more than 10,000 values"
    for words, message in (
        (["fit", config, "--model=bomb.yaml"], why),
        (["sanity", config, "--methods=bomb.yaml"], why),
        (["reproduce", "noise-level", "--config=bomb.yaml"], why),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert message in capsys.readouterr().err


# Refusals are one message


def test_what_is_refused_is_one_message_on_the_program_and_an_exception_from_python(monkeypatch, capsys):
    words = ["compare", "nowhere\x1b[31m"]
    with pytest.raises(ValueError, match="no scores in"):
        main(words)
    monkeypatch.setattr(sys, "argv", ["lightning-xai", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-xai: error: `runs`: no scores in")
    assert r"nowhere\x1b[31m" in said


def test_mistakes_elsewhere_keep_their_traceback():
    with pytest.raises(ValueError, match="invalid literal") as mistake:
        int("x")
    assert not is_refusal(mistake.value)
    with pytest.raises(ValueError, match="`alpha`") as refusal:
        check_level("alpha", 2)
    assert is_refusal(refusal.value)


# Arguments and folders


@pytest.mark.parametrize("value", [2.0, "2", True, None, float("nan")])
def test_counts_are_whole_numbers(value):
    with pytest.raises(TypeError, match=r"`num_draws` must be a whole number, got"):
        check_count("num_draws", value)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5, float("nan"), float("inf")])
def test_levels_are_between_0_and_1(alpha):
    run = Run("a", Scores.from_rows(("test", 0, 0, m, "x", i, float(i)) for m in "ab" for i in range(3)), {"x": True})
    for use in (
        lambda: compare_methods([run], alpha),
        lambda: mean_interval(torch.arange(3.0).double().numpy(), alpha),
        lambda: crossed_mean(torch.rand(2, 3).double().numpy(), alpha),
        lambda: examine_trained(None, None, None, alpha=alpha),
        lambda: check_settings(alpha, 10, 0.01, 2.0, None, 0),
    ):
        with pytest.raises(ValueError, match="must be between 0 and 1"):
            use()


def test_numbers_that_would_take_forever_are_refused_or_found_quickly():
    began = time.perf_counter()
    for total in (10**9, 10**9 + 7, 10**18):
        method = with_gradients(fusion_grad(), total)
        assert 0.5 * total <= method.num_draws * method.explainer.num_draws <= total
        assert with_gradients(Smooth(), total).num_draws == total
    assert time.perf_counter() - began < 2
    with pytest.raises(ValueError, match="`num_draws` must be at most 10,000, got 1,000,000,000"):
        check_settings(0.05, 10**9, 0.01, 2.0, None, 0)
    with pytest.raises(ValueError, match="`tolerance` must be at least 1e-06"):
        check_settings(0.05, 10, 1e-300, 2.0, None, 0)  # bisection would never come to it


def test_divisors_are_chosen_as_before():
    """The slow search: of all divisors within a factor of two, the one nearest to the ideal."""
    for total in (1, 2, 12, 50, 97, 100, 360, 1000):
        ideal = 5 * (total / 50) ** 0.5
        exact = [n for n in range(1, total + 1) if total % n == 0 and 0.5 <= n / ideal <= 2]
        method = with_gradients(fusion_grad(num_weight_draws=5, num_input_draws=10), total)
        if exact:
            assert method.num_draws * method.explainer.num_draws == total
            assert method.num_draws in exact


def test_a_folder_is_looked_at_and_nothing_is_made(tmp_path):
    Path("file").touch()
    Path("nowhere").symlink_to("absent")
    check_folder("output", "new/folder")
    check_file("output", "new/level.yaml")
    for folder in ("file", "file/x/y", "nowhere/x", "/proc/x", "a\0b", "x" * 300):
        with pytest.raises(ValueError, match=r"`output`: cannot write to .*Choose a folder that you may write to"):
            check_folder("output", folder)
    with pytest.raises(ValueError, match=r"`output`: .* is a folder. Choose the name of a file"):
        check_file("output", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["file", "nowhere"]


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "nowhere", "--output=file/x"],
        ["explain", "a.png", f"--config={ROOT / 'configs' / 'mnist_mlp.yaml'}", "--output=file/x"],
        *([["reproduce", name, "--output=file/x"] for name in ("noise-level", "noisegrad-toy")]),
        ["reproduce", "noisegrad-table1", "--kept=file/x"],
    ],
)
def test_every_command_looks_at_its_folder_first(words, tmp_path):
    Path("file").touch()
    with pytest.raises(ValueError, match=r"`(output|kept)`: cannot write to .*file/x \(Not a directory\)"):
        main(words)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("command", ["sanity", "calibrate", "visualize"])
def test_examinations_look_at_their_folder_first(command, tmp_path):
    Path("file").touch()
    with pytest.raises(ValueError, match=r"`output`: cannot write to"):
        call(command, f"--ckpt_path={ROOT / 'checkpoints' / 'mnist_mlp.ckpt'}", "--output=file/x/y")
    assert os.listdir(tmp_path) == ["file"]


def test_a_level_is_not_written_over_its_own_curve():
    with pytest.raises(ValueError, match=r"`output`: level.csv must be a YAML file"):
        call("calibrate", f"--ckpt_path={ROOT / 'checkpoints' / 'mnist_mlp.ckpt'}", "--output=level.csv")


def test_a_network_that_does_not_fit_leaves_no_run_folder(tmp_path):
    with pytest.raises(ValueError, match=r"`network` \(ResNet9\) does not accept"):
        main(
            [
                "fit",
                f"--config={ROOT / 'configs' / 'quickstart.yaml'}",
                "--model.network=lightning_xai.networks.ResNet9",
            ]
        )
    assert not list(tmp_path.iterdir())


def test_an_experiment_is_checked_before_its_training(tmp_path):
    with pytest.raises(ValueError, match="`num_samples` must be at least 1, got 0"):
        main(["reproduce", "noise-level", "--num_samples=0"])
    Path("file").touch()
    with pytest.raises(ValueError, match="`cache`: cannot write to"):
        kept(Path("file/x"), {}, lambda scratch: pytest.fail("trained"))
    lab = Lab(configs=str(ROOT / "configs"), embedded=True)
    with pytest.raises(ValueError, match=r"there is no .*nothing.yaml"):
        lab.require(["mnist_mlp", "nothing"])
    with pytest.raises(ValueError, match="`mask` must be one of the data's masks, digit, got 'box'"):
        lab.require(["mnist_mlp"], masks=["box"])


# Names


HOSTILE = ["=1+1", "+1+cmd", "-1-cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]


def test_text_is_no_formula_and_numbers_stay_numbers(tmp_path):
    assert [spreadsheet(text) for text in HOSTILE] == [f"'{text}" for text in HOSTILE]
    unchanged = ["-0.5", "+3", "-1e-5", "-inf", "", "a=b", " x", "'x", -0.5, 3, None]
    assert [spreadsheet(value) for value in unchanged] == unchanged
    write_csv(tmp_path / "a.csv", [["name", "value"], ["=1", "-0.5"]])
    assert (tmp_path / "a.csv").read_text() == "name,value\n'=1,-0.5\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("a*b*", r"a\*b\*"),
        ("_x_", r"\_x\_"),
        ("smooth_grad", "smooth_grad"),
        ("<b>&lt;", r"\<b>\&lt;"),
        ("![x](http://y)", r"![x\](http://y)"),
        ("[0.1, 0.2] & [c]", "[0.1, 0.2] & [c]"),
        ("a\n# b", "a # b"),
        ("`x`~~y~~", r"\`x\`\~\~y\~\~"),
        ("a\x1b[1m", r"a\\x1b[1m"),
    ],
)
def test_markdown_shows_names_as_they_are(text, expected):
    assert markdown(text) == expected


def test_latex_shows_names_as_they_are():
    assert latex("a_b & 50 % of $x^2$ ~ {\\y} <z>") == (
        r"a\_b \& 50 \% of \$x\textasciicircum{}2\$ \textasciitilde{} \{\textbackslash{}y\} \textless{}z\textgreater{}"
    )
    assert latex_row(["[3em] x", "1"]) == r"{}[3em] x & 1 \\"
    assert latex_row(["* x", "1"]) == r"{}* x & 1 \\"
    assert latex_row(["x [3em]", "1"]) == r"x [3em] & 1 \\"
    assert "\n" not in latex("a\nb\x1b\r")


def rendered(table):
    file = io.StringIO()
    Console(file=file, width=200).print(terminal_table(table))
    return file.getvalue()


NAME = "[red]=m|\x1b[2J\a"


def comparison():
    rows = [("test", 0, 0, m, NAME, i, i + (m == "[b]")) for m in ("[b]", "=c", NAME) for i in range(4)]
    return compare_methods([Run("[r]\x1b", Scores.from_rows(rows), {NAME: True})])


def test_every_table_shows_names_and_obeys_none():
    found = comparison()
    reproduction = Reproduction(
        NAME, (ResultTable(NAME, ("a", NAME), ((NAME, "**1**"),), (NAME,)),), {}, findings=(NAME,)
    )
    tables = [
        *comparison_tables(found),
        score_table(Scores.from_rows([("test", 0, 0, NAME, NAME, 0, 0.5)]), None, NAME),
        front_table([Validation(0, 0, (1.0, 2.0))], {NAME: "max", "b": "min"}),
        *reproduction.tables,
    ]
    for table in tables:
        text = rendered(table)
        assert "\x1b" not in text
        assert "\a" not in text
        assert "[red]=m|" in text
    for text in (
        comparison_markdown(found),
        report_markdown(reproduction),
        markdown_table(score_table(Scores.from_rows([("test", 0, 0, NAME, "x", 0, 1.0)]))),
    ):
        assert "\x1b" not in text
        assert r"[red]=m\|" in text
    assert "| **1** |" in report_markdown(reproduction), "bold that is ours"
    assert r"{}[b] & " in comparison_latex(found)
    methods = [row["method"] for row in csv.DictReader(comparison_csv(found).splitlines())]
    assert "'=c" in methods
    write_validations("v.csv", [Validation(0, 0, (-1.0, 2.0))], {"=x": "max", "b": "min"})
    assert Path("v.csv").read_text() == "epoch,step,'=x,b,on_front\n0,0,-1,2,1\n"


def test_the_terminal_is_not_told_what_to_do(capsys):
    console().tell("run_a:x: AUROC :warning:")
    assert capsys.readouterr().out == "run_a:x: AUROC :warning:\n"
    console().print("written [red]a\x1b[2J\x9b", cell("b\x07"))
    assert capsys.readouterr().out == "written [red]a\\x1b[2J\\x9b b\\x07\n"
    assert printable_lines("a\nb\r") == "a\nb\\r"
    assert printable("a\udce9\ud800") == r"a\xe9\ud800"


def test_two_rows_of_one_name_still_differ():
    assert replace(comparison(), seed=1) != comparison()
