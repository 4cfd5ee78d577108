"""`lightning-xai sanity`: from a checkpoint to verdicts, also after SIGKILL and by two processes."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from matplotlib.figure import Figure
from torch import nn

from lightning_xai.cli import main
from lightning_xai.data import DigitsDataModule
from lightning_xai.data.base import ImageSource, Split
from lightning_xai.data.digits import load_embedded_digits
from lightning_xai.explainers import Gradient, RandomAttribution, RangeScale, Smooth, SobelEdges, noise_grad
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import MLP
from lightning_xai.outputs import Logit, Probability
from lightning_xai.reporting import sanity_figures
from lightning_xai.results.tables import ResultTable
from lightning_xai.sanity.similarity import SIMILARITIES

ROOT = Path(__file__).parent.parent
METHODS = {
    "gradient": {"class_path": "lightning_xai.Gradient"},
    "noise_grad": {"class_path": "lightning_xai.noise_grad", "init_args": {"num_draws": 2}},
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


class UnrandomizedDigits(DigitsDataModule):
    """Somebody's data, whose labels stay as they are."""

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__(batch_size=batch_size)


class UnboundedDigits(DigitsDataModule):
    """Data that do not say what black is."""

    bounds = None


class TinyDigits(DigitsDataModule):
    """5 x 5 pixels of each digit."""

    def __init__(self) -> None:
        super().__init__()
        self.image_shape = (1, 5, 5)

    def load(self, split: Split) -> ImageSource:
        whole = load_embedded_digits(split)
        return ImageSource(whole.images[..., 10:15, 10:15], whole.labels, {})


class Unrepeatable(nn.Linear):
    """A layer that can be initialized once."""

    def reset_parameters(self) -> None:
        if hasattr(self, "made"):
            raise RuntimeError("already made")
        super().reset_parameters()
        self.made = True


class UnrepeatableMLP(MLP):
    """The network of `trained` with such a layer."""

    def __init__(self) -> None:
        super().__init__(hidden=(32,))
        self.layers.linear1 = Unrepeatable(784, 32)


def own(option, kind):
    """Option of the command line that names a class of this file."""
    sys.modules.setdefault(kind.__module__, sys.modules[__name__])
    return f"--{option}={kind.__module__}.{kind.__name__}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A configuration of a small network, and a checkpoint of it after an epoch."""
    folder = tmp_path_factory.mktemp("trained")
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    config["model"]["init_args"]["network"] = {
        "class_path": "lightning_xai.networks.MLP",
        "init_args": {"hidden": [32]},
    }
    config["trainer"] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [
            {
                "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": str(folder / "checkpoints"), "filename": "best"},
            }
        ],
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["lightning-xai"])
        patched.chdir(folder)
        main(["fit", f"--config={path}", f"--trainer.default_root_dir={folder}"])
    return path, folder / "checkpoints" / "best.ckpt"


@pytest.fixture(autouse=True)
def _called_without_arguments(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sketched(monkeypatch):
    """Each kind of figure is drawn once, and then is an empty page: drawing takes most of the time."""
    for name in ("cascade_grid", "similarity_curves", "randomization_bars", "map_pairs"):
        left = [getattr(sanity_figures, name)]
        monkeypatch.setattr(
            sanity_figures, name, lambda *a, left=left, **o: left.pop()(*a, **o) if left else Figure((1, 1))
        )


@pytest.fixture
def blank(monkeypatch):
    """No figures, where a test is not about them."""
    monkeypatch.setattr("lightning_xai.cli.reports.write_figures", lambda *_: [])


def arguments(trained, output, *options):
    config, checkpoint = trained
    methods = yaml.safe_dump(METHODS, default_flow_style=True, width=10_000).strip()
    return [
        "sanity",
        f"--config={config}",
        f"--ckpt_path={checkpoint}",
        f"--output={output}",
        "--num_samples=5",
        "--repeats=3",
        f"--methods={methods}",
        *options,
    ]


def verdicts(folder, check="parameters"):
    rows = csv.DictReader((folder / check / "verdicts.csv").read_text().splitlines())
    return {(row["check"], row["method"]): row["outcome"] for row in rows}


def test_all_checks_write_records_and_figures_and_the_exit_code_says_whether_the_required_pass(
    trained, tmp_path, capsys, sketched
):
    options = ("--twin_epochs=1", f"--twins={tmp_path / 'twins'}")
    with pytest.raises(SystemExit) as stopped:
        main(arguments(trained, tmp_path / "out", *options, "--require=[edges]"))
    assert stopped.value.code == 1
    found = verdicts(tmp_path / "out", "all")
    assert {check for check, _ in found} == {"parameters", "data", "invariance"}
    assert {method for _, method in found} == {"gradient", "noise_grad", "edges", "random"}
    assert found["parameters", "edges"] == found["parameters", "random"] == "FAIL"
    assert {found["data", method] for _, method in found} == {"INCONCLUSIVE"}, "an epoch does not suffice to memorize"
    assert found["invariance", "gradient"] == "PASS"
    printed = capsys.readouterr().out
    assert re.search(r"edges +parameters", printed)
    assert "of them by heart" in printed.replace("\n", " ")
    names = {path.name for path in (tmp_path / "out" / "all").iterdir()}
    assert {"similarities.csv", "models.csv", "sanity-cascading_from_top-ssim.png"} <= names
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "twins").iterdir()}
    assert len(stamps) == 3, "of three seeds"
    main(arguments(trained, tmp_path / "out", *options, "--check=invariance", "--require=[gradient]"))
    assert {check for check, _ in verdicts(tmp_path / "out", "invariance")} == {"invariance"}
    assert verdicts(tmp_path / "out", "all") == found, "each check has a folder of its own"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "twins").iterdir()} == stamps


@pytest.mark.slow
def test_the_results_lie_beside_the_checkpoint_unless_told_otherwise(trained):
    config, checkpoint = trained
    options = ["--check=parameters", "--num_samples=3", "--repeats=3", "--methods={}"]
    main(["sanity", f"--config={config}", f"--ckpt_path={checkpoint}", *options])
    assert verdicts(checkpoint.parents[1] / "sanity") == {("parameters", m): "FAIL" for m in ("edges", "random")}


def similarities(folder):
    return (folder / "parameters" / "similarities.csv").read_text()


def start(trained, output, launcher=("-m", "lightning_xai")):
    command = [sys.executable, *launcher, *arguments(trained, output, "--check=parameters")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, cwd=output.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(trained, tmp_path):
    killed = start(trained, tmp_path / "killed")
    deadline = time.monotonic() + 600
    while len(list((tmp_path / "killed" / "cells").glob("parameters-*.pt"))) < 4:
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "cells").glob("*.pt")}
    assert not (tmp_path / "killed" / "parameters").exists()
    for name in ("killed", "whole"):
        main(arguments(trained, tmp_path / name, "--check=parameters"))
    assert similarities(tmp_path / "killed") == similarities(tmp_path / "whole")
    assert verdicts(tmp_path / "killed") == verdicts(tmp_path / "whole")
    cells = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "cells").glob("*.pt")}
    assert finished.items() <= cells.items(), "finished cells were written again"
    assert len(cells) > len(finished)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(trained, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lightning_xai")
    process = start(trained, tmp_path / "two", launcher=launcher)
    main(arguments(trained, tmp_path / "one", "--check=parameters"))
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert similarities(tmp_path / "one") == similarities(tmp_path / "two")
    models = [(tmp_path / name / "parameters" / "models.csv").read_text() for name in ("one", "two")]
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--require=[grad]"],
            r"`require` must name methods that are examined, gradient, noise_grad, edges, random; got",
        ),
        (["--similarity=mse"], r"`similarity` must be one of 'spearman', .*'ssim_absolute', 'hog'; got 'mse'$"),
        (
            ["--similarity=spearman_foreground", own("data", UnboundedDigits)],
            r"got 'spearman_foreground', which .* the pixels that are not black, but the data have no `bounds`",
        ),
        (
            ["--groups={head: ['classifier*'], rest: ['*']}"],
            r"`groups` .* but 'head' \(classifier\*\) has nothing. The blocks of `model` are network.layers.linear1, ",
        ),
        (["--groups={stem: ['*linear1']}"], r"`groups` must have a place .* leave out: network.layers.linear2.weight"),
        (
            [own("model.network", UnrepeatableMLP)],
            r'`initialization="own"`, .* call Unrepeatable.reset_parameters\(\), which failed; choose "normal" or',
        ),
        (["--check=efficient", own("model.network", UnrepeatableMLP)], r"`initialization="),
        (["--check=invariance", "--shift=1e12"], r"`twin` must give at `inputs` \+ `shift` the logits of `model`"),
        (["--smooth=-1"], r"`smooth` must be a number of noisy inputs, 0 for none, got -1"),
        (["--num_samples=0"], r"`num_samples` must be at least 1, got 0"),
        (["--repeats=0"], r"`repeats` must be at least 1, got 0"),
        (["--ckpt_path=nowhere.ckpt"], r"`ckpt_path`: nowhere.ckpt does not exist"),
        (["--ckpt_path=null"], r"`ckpt_path` must name a checkpoint: what is examined is a trained model"),
        (["--model.network.init_args.hidden=[31]"], r"`ckpt_path`: .* does not fit the `model`"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(trained, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main(arguments(trained, tmp_path / "out", "--check=parameters", *options))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_images_too_small_for_hog(trained, tmp_path, tmp_path_factory):
    """Left out where nobody asks for it, refused where it shall decide."""
    checkpoint = tmp_path_factory.mktemp("tiny") / "tiny.ckpt"
    weights = ClassifierModule(MLP((1, 5, 5), hidden=(4,))).state_dict()
    torch.save(torch.load(trained[1], weights_only=True) | {"state_dict": weights}, checkpoint)
    network = ["--model.network.init_args.image_shape=[1,5,5]", "--model.network.init_args.hidden=[4]"]
    call = partial(arguments, (trained[0], checkpoint), tmp_path / "out", "--check=parameters", "--repeats=1")
    call = partial(call, own("data", TinyDigits), *network)
    with pytest.raises(ValueError, match=r"'hog', which these images do not admit: .* less than 6 pixels"):
        main(call("--similarity=hog"))
    assert not list(tmp_path.iterdir())
    main(call())
    rows = list(csv.DictReader(similarities(tmp_path / "out").splitlines()))
    assert {row["similarity"] for row in rows} == SIMILARITIES.keys() - {"hog", "spearman_foreground"}


def test_later_checks_presets_and_smoothing_are_an_option_each(trained, tmp_path, capsys, sketched):
    call = partial(arguments, trained, tmp_path / "out", "--normalizer=percentile")
    with pytest.raises(SystemExit) as stopped:
        main(call("--preset=notebook", "--check=random_logit", "--require=[edges]"))
    assert stopped.value.code == 1
    main(call("--preset=notebook", "--check=efficient", "--require=[]"))
    for check in ("random_logit", "efficient"):
        found = verdicts(tmp_path / "out", check)
        assert found.keys() == {(check, method) for method in (*METHODS, "edges", "random")}
        assert found[check, "edges"] == found[check, "random"] == "FAIL"
        assert (tmp_path / "out" / check / f"sanity-{check}-bars.png").exists()
        assert list((tmp_path / "out" / check).glob("events.out.tfevents.*"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "relative rise of the entropy" in printed
    assert "the controls, which look at no weights: 2 FAIL" in printed
    assert "Another class: similarity 1.000" in (tmp_path / "out" / "random_logit" / "verdicts.csv").read_text()
    settings = json.loads((tmp_path / "out" / "cells" / "settings.json").read_text())
    assert settings["similarities"]["ssim"] == "ssim(normalizer='percentile', gaussian=True)"
    assert settings["similarities"]["hog"] == "hog(normalizer='percentile', ranks=True)"
    smooth, half = ["--preset=notebook", "--smooth=2"], ["--preset=notebook", "--precision=bf16-mixed"]
    for options, named in (([], "similarities"), (smooth, "methods"), (half, "precision")):
        with pytest.raises(ValueError, match=f"has results of other settings: {named}"):
            main(call("--check=efficient", *options))


@pytest.mark.slow
def test_all_that_is_asked_of_random_weights_is_done(trained, tmp_path):
    orderings = ["cascading_from_top", "cascading_from_bottom", "independent", "full"]
    options = [f"--orderings={orderings}", "--initialization=permute", "--batch_norm=recalibrate"]
    options += ["--groups={stem: ['*linear1'], head: ['*linear2']}", "--target=repredicted", "--repeats=1"]
    main(arguments(trained, tmp_path / "out", "--check=parameters", *options, "--methods={}"))
    settings = json.loads((tmp_path / "out" / "cells" / "settings.json").read_text())
    assert (settings["initialization"], settings["batch_norm"]) == ("permute", "recalibrate")
    assert settings["target"] == "repredicted"
    rows = csv.DictReader((tmp_path / "out" / "parameters" / "models.csv").read_text().splitlines())
    steps = [(row["variant"], row["block"]) for row in rows if row["check"] == "parameters"]
    blocks = {"cascading_from_top": ["head", "stem"], "full": ["all"]}
    assert steps == [(name, block) for name in orderings for block in blocks.get(name, ["stem", "head"])]


def test_smoothing_is_of_the_methods_and_not_of_the_controls(trained, tmp_path, blank):
    main(arguments(trained, tmp_path / "out", "--check=invariance", "--smooth=3"))
    methods = json.loads((tmp_path / "out" / "cells" / "settings.json").read_text())["methods"]
    assert methods["gradient"] == repr(Smooth(Gradient(), RangeScale(0.1), 3))
    assert methods["noise_grad"] == repr(Smooth(noise_grad(num_draws=2), RangeScale(0.1), 3))
    assert methods["edges"] == repr(SobelEdges())
    assert methods["random"] == repr(RandomAttribution())


def test_what_is_examined_is_said_first_and_explained_as_the_configurations_callback_does(
    trained, tmp_path, capsys, monkeypatch
):
    seen = []
    told = ResultTable("told", ("a",), (("b",),))
    monkeypatch.setattr(
        "lightning_xai.cli.examine.sanity_price",
        lambda *a, **_: seen.append(a[0]) or SimpleNamespace(table=lambda: told),
    )
    settings, checkpoint = trained
    config = yaml.safe_load(settings.read_text())
    options = {"bounds": [-3.0, 3.0], "output": "probability", "methods": ["saliency"]}
    callback = {"class_path": "lightning_xai.callbacks.AttributionCallback", "init_args": options}
    config["trainer"]["callbacks"].append(callback)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    call = ["sanity", f"--config={tmp_path / 'own.yaml'}", f"--ckpt_path={checkpoint}", "--dry_run"]
    main([*call, "--check=parameters", "--num_samples=2"])
    first = capsys.readouterr().out.splitlines()[0]
    names = ", ".join(seen[0].methods)
    assert first == f"examined         {names}; others, also the configuration's: --methods '[gradient, noise_grad]'"
    assert names.startswith("gradient, smooth_grad, input_x_gradient")
    assert (seen[0].bounds, seen[0].output) == ((-3.0, 3.0), Probability())
    main([*call, "--check=parameters", "--num_samples=2", "--methods=[saliency]", "--explained=logit"])
    assert capsys.readouterr().out.splitlines()[0] == "examined         saliency, edges, random"
    assert seen[1].output == Logit()


def test_the_data_check_needs_labels_that_can_be_randomized(trained, tmp_path):
    data = own("data", UnrandomizedDigits)
    with pytest.raises(ValueError, match="UnrandomizedDigits cannot randomize its labels, which the data check needs"):
        main(arguments(trained, tmp_path / "out", "--check=data", data))


def test_results_of_other_weights_are_not_mixed(trained, tmp_path, blank):
    config, checkpoint = trained
    main(arguments(trained, tmp_path / "out", "--check=invariance"))
    weights = torch.load(checkpoint, weights_only=True)
    next(iter(weights["state_dict"].values())).add_(1)
    torch.save(weights, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"has results of other settings: weights was '\w+', is '\w+'"):
        main(arguments((config, tmp_path / "other.ckpt"), tmp_path / "out", "--check=invariance"))


def test_the_configuration_that_another_command_saved_is_taken(trained, tmp_path, capsys, blank):
    config, checkpoint = trained
    main(["test", f"--config={config}", f"--ckpt_path={checkpoint}", f"--trainer.default_root_dir={tmp_path}"])
    saved = tmp_path / "config.yaml"
    options = yaml.safe_load(saved.read_text())
    assert "verbose" in options
    main(arguments((saved, checkpoint), tmp_path / "out", "--check=invariance"))
    assert verdicts(tmp_path / "out", "invariance")["invariance", "gradient"] == "PASS"
    level = ["--num_samples=100", "--num_draws=2", "--tolerance=0.5"]
    main(["calibrate", f"--config={saved}", f"--output={tmp_path / 'level.yaml'}", *level])
    assert (tmp_path / "level.csv").exists()
    main(arguments((saved, checkpoint), tmp_path / "at", "--check=invariance", f"--methods={tmp_path / 'level.yaml'}"))
    examined = {"saliency", "noise_grad", "fusion_grad", "edges", "random"}
    assert {method for _, method in verdicts(tmp_path / "at", "invariance")} == examined
    saved.write_text(yaml.safe_dump(options | {"verbos": True}))
    with pytest.raises(SystemExit):
        main(arguments((saved, checkpoint), tmp_path / "out", "--check=invariance"))
    assert "verbos" in capsys.readouterr().err
