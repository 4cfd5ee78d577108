"""The package as it is installed: what is in it, what it imports, what it finds by name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_xai as lx
from lightning_xai._version import __version__
from lightning_xai.carried import carried_file, carried_folder
from lightning_xai.cli import COMMANDS, main
from lightning_xai.cli.commands import resolved

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parent.parent


def python(*words, folder=ROOT, path=ROOT):
    """Standard output of a Python of its own."""
    environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-P", *words], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_every_folder_of_python_files_is_in_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "lightning_xai").rglob("*.py")}
    carried = {"lightning_xai.configs", "lightning_xai.configs.methods", "lightning_xai.checkpoints"}
    assert set(declared) == found | carried
    folders = {
        path.parent.relative_to(ROOT) for kind in ("configs", "checkpoints") for path in (ROOT / kind).rglob("*.*")
    }
    assert {".".join(("lightning_xai", *folder.parts)) for folder in folders} == carried


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_lists_every_command_with_a_line(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning-xai", *words])
    main()
    printed = capsys.readouterr().out
    for name, line in COMMANDS.items():
        assert f"  {name:<11}{line}\n" in printed


def test_the_version_is_told(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"lightning-xai {__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"), [("tets", "Did you mean 'test'?"), ("compere", "Did you mean 'compare'?"), ("x", "")]
)
def test_a_word_that_is_no_command_is_refused_with_the_nearest(word, hint, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([word])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert re.search(rf"error: '{word}' is not a command\. .*There are fit, validate, ", message)
    assert hint in message


def test_help_versions_and_wrong_commands_do_not_import_torch():
    python(
        "-c",
        "import lightning_xai.cli as cli, sys; cli.main(['--help']); cli.main(['--version']); "
        "cli.unknown('x'); sys.exit('torch' in sys.modules)",
    )


def test_names_are_there_when_they_are_asked_for():
    assert set(lx.__all__) <= set(dir(lx))
    assert lx.grad_cam is lx.explainers.grad_cam
    assert lx.bounds((0.5,), (0.5,)) is not None
    assert lx.callbacks.AttributionCallback.__name__ == "AttributionCallback"
    assert not hasattr(lx, "no_such_name")
    assert not hasattr(lx, "Context") or lx.Context is lx.explainers.Context


# Files that the package brings


def test_a_name_is_the_file_that_the_package_brings_and_the_disk_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(carried_folder("configs") / "quickstart.yaml")
    assert Path(path).is_file()
    for given in ("quickstart", "quickstart.yaml", "configs/quickstart.yaml"):
        assert carried_file("configs", given) == path
    assert carried_file("configs", "methods/adaptgrad_table2").endswith("configs/methods/adaptgrad_table2.yaml")
    assert carried_file("checkpoints", "mnist_lenet").endswith("checkpoints/mnist_lenet.ckpt")
    for given in ("", "nothing", "../configs/quickstart.yaml", "/quickstart.yaml", "null", "last"):
        assert carried_file("configs", given) == given
    (tmp_path / "quickstart").write_text("mine")
    assert carried_file("configs", "quickstart") == "quickstart"


def test_options_take_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, weights = (
        str(carried_folder(kind) / name)
        for kind, name in (("configs", "mnist_lenet.yaml"), ("checkpoints", "mnist_lenet.ckpt"))
    )
    assert resolved(["fit", "--config", "mnist_lenet"]) == ["fit", "--config", config]
    assert resolved(["fit", "-c", "mnist_lenet"]) == ["fit", "-c", config]
    assert resolved(["test", "--config=mnist_lenet", "--ckpt_path=mnist_lenet"]) == [
        "test",
        f"--config={config}",
        f"--ckpt_path={weights}",
    ]
    words = [
        "explain",
        "mnist_lenet",
        "--trainer.callbacks.methods={}",
        "--data.root",
        "mnist_lenet",
        "--my.config=quickstart",
    ]
    assert resolved(words) == words


def test_a_configuration_that_nobody_knows_is_refused_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["--config", "quickstrat"], ["--config=quickstrat"], ["-c", "quickstrat"]):
        with pytest.raises(
            ValueError, match=r"no file 'quickstrat', .* did you mean 'quickstart'\? It brings cmnist_lenet, "
        ):
            main(["fit", *words])
    (tmp_path / "quickstart").mkdir()
    assert carried_file("configs", "quickstart") == str(carried_folder("configs") / "quickstart.yaml")


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(tmp_path):
    source, site, empty = tmp_path / "source", tmp_path / "site", tmp_path / "empty"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("no copy of the repository")
    for name in files.stdout.split("\0")[:-1]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    empty.mkdir()
    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path / "dist"), str(source))
    (wheel,) = (tmp_path / "dist").iterdir()
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    command = ("-m", "lightning_xai")
    where = python("-c", "import lightning_xai; print(lightning_xai.__file__)", folder=empty, path=site)
    assert Path(where.strip()).is_relative_to(site)
    quick = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu")
    assert "smooth_grad" in python(*command, "fit", "--config", "quickstart", *quick, folder=empty, path=site)
    assert (empty / "runs/quickstart/version_0/xai/scores/000001.parquet").is_file()
    python(*command, "reproduce", "adaptgrad-noise", "--fast", "--progress=false", folder=empty, path=site)
    options = ("--num_samples=3", "--repeats=3", "--check=parameters", "--methods={}", "--data.digits=embedded")
    options += ("--data.backgrounds=embedded", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
    printed = python(
        *command, "sanity", "--config=cmnist_lenet", "--ckpt_path=cmnist_lenet", *options, folder=empty, path=site
    )
    assert printed.count("FAIL") >= 2, "the controls"
    assert (empty / "runs/cmnist_lenet/sanity/parameters/verdicts.csv").is_file()
    assert {path.name for path in empty.iterdir()} == {"runs"}
