"""The command line: every config runs, results are where it says, and bad input is named before anything is written."""

import io
import re
import shlex
import subprocess
import sys
import warnings
from contextlib import nullcontext, redirect_stdout
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning import Callback
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from lightning_xai.cli import main
from lightning_xai.cli.explain import explain_parser
from lightning_xai.cli.unique_keys import load_yaml
from lightning_xai.cli.weights import warn_of_random_weights
from lightning_xai.experiments import read_runs
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import MLP
from lightning_xai.sanity.randomization import Randomization

ROOT = Path(__file__).parent.parent
ELSEWHERE = ("photographs", "image_folder")  # run by test_pretrained.py and test_training_folder.py
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem not in ELSEWHERE)
OFFLINE = {
    "MNISTDataModule": ["--data=lightning_xai.data.DigitsDataModule"],
    "FashionMNISTDataModule": ["--data=lightning_xai.data.DigitsDataModule"],
    "CMNISTDataModule": ["--data.digits=embedded", "--data.backgrounds=embedded", "--data.num_train=300"],
    "DigitsDataModule": [],
    "DialDataModule": [],
    "TetrominoDataModule": ["--data.num_train=300"],
    "TwoDigitsDataModule": ["--data.digits=embedded", "--data.num_train=300"],
}
SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--trainer.callbacks.init_args.num_samples=2",  # of the last callback, the attribution callback
]
LARGE = [  # for networks whose noise draws and gradients take long
    "--data.batch_size=2",
    "--trainer.precision=32-true",
    "--trainer.callbacks.init_args.methods={saliency: {class_path: lightning_xai.Saliency}}",
]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


@pytest.fixture(autouse=True)
def _called_without_arguments(monkeypatch, tmp_path):
    """In an empty folder: `save_last` writes to ./checkpoints even in a `fast_dev_run` (Lightning 2.6.6)."""
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


def run_small(folder: Path, command: str, *options: str) -> None:
    """A command on the quickstart configuration, a few batches long, with its output in the folder."""
    logger = f"--trainer.logger.init_args.save_dir={folder}"
    main([command, f"--config={ROOT}/configs/quickstart.yaml", *SMALL, logger, *options])


@pytest.fixture
def run(tmp_path):
    """Runs a command, with its output in `tmp_path`."""
    return partial(run_small, tmp_path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a run that was fitted, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("fitted"), io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(printed):
        monkeypatch.setattr(sys, "argv", ["lightning-xai"])
        monkeypatch.chdir(folder)
        run_small(folder, "fit")
    return folder / "quickstart" / "version_0", printed.getvalue()


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, marks=[pytest.mark.slow] if re.search("vgg|resnet", config.stem) else [])
        for config in CONFIGS
    ],
    ids=[config.stem for config in CONFIGS],
)
def test_every_config_trains_and_tests(config, capsys):
    content = yaml.safe_load(config.read_text())
    data = content["data"]["class_path"].rsplit(".")[-1]
    large = LARGE if "torchvision" in content["model"]["init_args"]["network"]["class_path"] else []
    for command in ("fit", "test"):
        with pytest.warns(UserWarning, match="No `ckpt_path`") if command == "test" else nullcontext():
            main([command, f"--config={config}", *SMALL, "--trainer.fast_dev_run=true", *OFFLINE[data], *large])
    assert "test/accuracy" in capsys.readouterr().out
    assert content["trainer"]["logger"]["init_args"]["name"] == config.stem


def test_fit_reports_what_it_wrote_and_the_test_command_it_prints_works(fitted, capsys):
    folder, printed = fitted
    for written in ("config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert str(folder / written) in printed
        assert (folder / written).is_file()
    assert f"tensorboard --logdir {folder}\n" in printed
    assert list(folder.glob("events.out.tfevents.*"))
    assert "val/accuracy " in printed
    assert f"beside another   lightning-xai compare {folder / 'xai'} OTHER_RUN\n" in printed
    (command,) = (line.split("lightning-xai ")[1] for line in printed.splitlines() if "lightning-xai test" in line)
    for _ in range(2):
        main(shlex.split(command))
    printed = capsys.readouterr().out
    assert "test/accuracy " in printed
    assert "Test metric" not in printed, "Lightning's own table has 17 digits"
    assert f"lightning-xai compare {folder / 'xai'}\n" in printed
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "a test is of its checkpoint's run"
    assert {run.scores.table["stage"].iloc[0] for run in read_runs([folder])} == {"test"}
    assert (folder / "test" / "config.yaml").is_file()


class Interrupting(Callback):
    """A user who has waited for three epochs."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def test_an_interrupted_training_tells_what_it_has_measured(run, monkeypatch, capsys):
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the Trainer ignores later interrupts, also of these tests
    with pytest.raises(SystemExit):
        run("fit", f"--trainer.callbacks+={__name__}.Interrupting", "--trainer.max_epochs=4")
    printed = capsys.readouterr().out
    assert printed.count("validate, epoch 1: explanations of ") == 1
    assert "lightning-xai report " in printed
    assert "last checkpoint" in printed


def test_the_same_seed_gives_the_same_weights(fitted, run, tmp_path):
    run("fit")
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"]
        for folder in (fitted[0], tmp_path / "quickstart" / "version_0")
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_training_resumes_where_it_stopped(fitted, run, tmp_path):
    checkpoint = fitted[0] / "checkpoints" / "last.ckpt"
    run("fit", "--trainer.max_epochs=2", f"--ckpt_path={checkpoint}")
    resumed = torch.load(tmp_path / "quickstart" / "version_0" / "checkpoints" / "last.ckpt")
    assert (torch.load(checkpoint)["global_step"], resumed["global_step"]) == (3, 6)


RANDOM = (
    r"No `ckpt_path` was given: the weights are those that ClassifierModule was made with, and are random \(10 of 10"
)


def test_validate_and_predict_run_and_warn_of_random_weights(run, capsys):
    with pytest.warns(UserWarning, match=RANDOM):
        run("validate", "--trainer.fast_dev_run=true")
    assert "val/accuracy " in capsys.readouterr().out
    with pytest.warns(UserWarning, match=RANDOM):
        run("predict", "--trainer.fast_dev_run=true")


class Loading(ClassifierModule):
    """Loads weights itself, when it is made or when it is set up."""

    def __init__(self, network: nn.Module, weights: str | None = None, late: bool = False) -> None:
        super().__init__(network)
        if not late:
            self.load_state_dict(torch.load("weights.pt", weights_only=True)["state_dict"])


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        ([], True),
        (["--model={here}.Loading"], False),
        (["--model={here}.Loading", "--model.late=true"], True),
        (["--model={here}.Loading", "--model.late=true", "--model.weights=weights.pt"], False),
        (["--model={here}.Loading", "--model.late=true", "--model.weights=DEFAULT"], False),
        (["--model=lightning_xai.modules.PretrainedClassifier", "--model.weights=weights.pt"], False),
        (["--model=lightning_xai.modules.PretrainedClassifier", "--model.weights=DEFAULT"], True),
        (["--model=lightning_xai.modules.PretrainedClassifier", "--model.weights=null"], True),
    ],
)
def test_random_weights_are_warned_of_and_others_are_not(options, warns):
    sys.modules.setdefault(__name__, sys.modules[Loading.__module__])
    torch.save({"state_dict": ClassifierModule(MLP((3, 8, 8))).state_dict()}, "weights.pt")
    parser = explain_parser()
    given = [option.format(here=Loading.__module__) for option in options]
    network = ["--model.network=lightning_xai.networks.MLP", "--model.network.image_shape=[3, 8, 8]"]
    size = ["--model.image_size=8", "--model.resize_size=8"] if "Pretrained" in str(given) else []
    words = ["a.png", "--model=lightning_xai.modules.ClassifierModule", *given, *network, *size]
    config = parser.parse_args(words).model
    torch.manual_seed(0)
    model = parser.instantiate_classes(Namespace(model=config)).model
    state = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_random_weights(parser, config, model)
    assert [("No `ckpt_path`" in str(warning.message)) for warning in caught] == [True] * warns
    assert torch.equal(torch.get_rng_state(), state)


def test_bf16_mixed_precision_trains(run):
    run("fit", "--trainer.precision=bf16-mixed", "--model.channels_last=true")


TORCHVISION = """
model:
  init_args:
    network:
      class_path: torchvision.models.resnet18
      init_args:
        num_classes: 10
data:
  class_path: lightning_xai.data.CMNISTDataModule
  init_args: {digits: embedded, backgrounds: embedded, num_train: 300, batch_size: 8}
"""


@pytest.mark.slow
def test_torchvision_network_with_chosen_number_of_outputs(run, tmp_path):
    (tmp_path / "resnet18.yaml").write_text(TORCHVISION)
    run("fit", f"--config={tmp_path}/resnet18.yaml")
    weights = torch.load(tmp_path / "quickstart" / "version_0" / "checkpoints" / "best.ckpt")["state_dict"]
    assert weights["network.fc.weight"].shape == (10, 512)


def refused(capsys, run, *options: str) -> str:
    """The error message of a command line that the parser refuses."""
    with pytest.raises(SystemExit) as caught:
        run("fit", *options)
    assert caught.value.code == 2
    _, message = capsys.readouterr().err.split("error: ")
    return message


def test_unknown_options_and_keys_are_named(run, tmp_path, capsys):
    assert "unrecognized arguments: --trainer.epochs=3" in refused(capsys, run, "--trainer.epochs=3")
    (tmp_path / "wrong.yaml").write_text("trainer: {max_epoch: 3}")
    assert "`trainer.max_epoch`: there is no such option. Did you mean `max_epochs`?" in refused(
        capsys, run, f"--config={tmp_path}/wrong.yaml"
    )
    (tmp_path / "wrong.yaml").write_text("model: {init_args: {network: {init_args: {width: 3}}}}")
    assert "`model.network.width`: LeNet has no argument 'width'" in refused(
        capsys, run, f"--config={tmp_path}/wrong.yaml"
    )
    assert "File does not exist" in refused(capsys, run, f"--config={tmp_path}/absent.yaml")


def test_wrong_class_paths_are_named(run, capsys):
    message = refused(capsys, run, "--data=lightning_xai.data.Nothing")
    assert "module 'lightning_xai.data' has no attribute 'Nothing'" in message
    with pytest.raises(ValueError, match=r"`network`: there is no class or function lightning_xai\.networks\.Nothing"):
        run("fit", "--model.network=lightning_xai.networks.Nothing")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("trainer:\n  max_epochs: 1\n  max_epochs: 2\n", "max_epochs", 3),
        ("data: {init_args: {seed: 1, seed: 1}}\n", "seed", 1),
        ("trainer:\n  callbacks:\n    - {class_path: a}\n    - class_path: b\n      class_path: c\n", "class_path", 5),
    ],
)
def test_a_key_given_twice_is_an_error(run, tmp_path, capsys, text, key, line):
    (tmp_path / "twice.yaml").write_text(text)
    message = refused(capsys, run, f"--config={tmp_path}/twice.yaml")
    assert f"the key '{key}' is given twice" in message
    assert f"line {line}," in message


def test_a_key_given_twice_is_an_error_in_a_nested_file(run, tmp_path, capsys):
    (tmp_path / "nested.yaml").write_text("class_path: a\nclass_path: b\n")
    assert "is given twice" in refused(capsys, run, f"--model={tmp_path}/nested.yaml")


def test_yaml_without_repeated_keys_is_read_as_usual():
    text = "{a: [{x: 1}, {x: 1}], b: {x: 1e-3}, c: &anchor {x: no}, d: *anchor, 1: {}, '1': {}}"
    expected = {"a": [{"x": 1}, {"x": 1}], "b": {"x": 0.001}, "c": {"x": False}, "d": {"x": False}, 1: {}, "1": {}}
    assert load_yaml(text) == expected


@pytest.mark.parametrize(
    "command", ["fit", "test", *(pytest.param(twin, marks=pytest.mark.slow) for twin in ("validate", "predict"))]
)
def test_bad_checkpoints_are_refused_before_anything_is_written(run, tmp_path, command):
    truncated, foreign, output = tmp_path / "truncated.ckpt", tmp_path / "foreign.ckpt", tmp_path / "output"
    torch.save({"state_dict": {"other": torch.zeros(1)}, "pytorch-lightning_version": "2.6.0"}, foreign)
    truncated.write_bytes(foreign.read_bytes()[:200])
    logger = f"--trainer.logger.init_args.save_dir={output}"
    with pytest.raises(ValueError, match=rf"{truncated} cannot be read as a checkpoint; it is truncated"):
        run(command, logger, f"--ckpt_path={truncated}")
    with pytest.raises(ValueError, match=rf"{foreign} does not fit.*10 missing: `network\..*1 unexpected: `other`"):
        run(command, logger, f"--ckpt_path={foreign}")
    with pytest.raises(ValueError, match=r"absent\.ckpt does not exist"):
        run(command, logger, f"--ckpt_path={tmp_path}/absent.ckpt")
    assert not output.exists()


def test_resuming_needs_more_than_weights(fitted, run, tmp_path):
    checkpoint = torch.load(fitted[0] / "checkpoints" / "last.ckpt")
    del checkpoint["optimizer_states"]
    torch.save(checkpoint, tmp_path / "weights.ckpt")
    run("test", f"--ckpt_path={tmp_path}/weights.ckpt")
    with pytest.raises(ValueError, match=r"cannot resume from .*weights\.ckpt.*no `optimizer_states`"):
        run("fit", f"--ckpt_path={tmp_path}/weights.ckpt")


def test_the_best_checkpoint_needs_its_path(run):
    with pytest.raises(ValueError, match="which checkpoint is the best is known while a training runs"):
        run("test", "--ckpt_path=best")


def test_impossible_output_folders_are_refused_before_training(run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    impossible = tmp_path / "file" / "runs"
    with pytest.raises(ValueError, match=rf"`TensorBoardLogger.save_dir`: cannot write to {impossible} \(Not a dir"):
        run("fit", f"--trainer.logger.init_args.save_dir={impossible}")
    with pytest.raises(ValueError, match=rf"`trainer.default_root_dir`: cannot write to {impossible}"):
        run("fit", "--trainer.logger=false", f"--trainer.default_root_dir={impossible}")
    checkpoint = ["--trainer.callbacks=ModelCheckpoint", f"--trainer.callbacks.dirpath={impossible}"]
    with pytest.raises(ValueError, match=rf"`ModelCheckpoint.dirpath`: cannot write to {impossible}"):
        run("fit", *checkpoint)


def test_read_only_folder_is_refused(run, monkeypatch):
    def no_permission(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", no_permission)  # the tests may run as root, who may write anywhere
    with pytest.raises(ValueError, match=r"cannot write to .* \(Permission denied\)\. Choose a folder"):
        run("fit")


def test_network_that_does_not_fit_the_data_is_refused(run):
    with pytest.raises(ValueError, match=r"`network` \(ResNet9\) does not accept .* shape \(1, 28, 28\)"):
        run("fit", "--model.network=lightning_xai.networks.ResNet9")


def test_module_is_a_program_with_an_exit_code():
    command = [sys.executable, "-m", "lightning_xai", "compare", "--nothing"]  # which needs no torch
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "unrecognized arguments: --nothing" in finished.stderr


@pytest.mark.parametrize("command", ["fit", "sanity"])
def test_only_the_parser_of_the_command_is_built(command, monkeypatch, capsys):
    built = []
    add = LightningArgumentParser.add_lightning_class_args

    def counted(self, kind, *args, **options):
        built.append(kind.__name__)
        return add(self, kind, *args, **options)

    monkeypatch.setattr(LightningArgumentParser, "add_lightning_class_args", counted)
    with pytest.raises(SystemExit, match="0"):
        main([command, f"--config={ROOT}/configs/quickstart.yaml", "--print_config"])
    assert built == ["Trainer", "LightningModule", "LightningDataModule"]
    printed = yaml.safe_load(capsys.readouterr().out)
    how = {field.name for field in fields(Randomization)}
    assert (how & printed.keys()) == (how if command == "sanity" else set())
    assert printed.get("check") == ("all" if command == "sanity" else None)


def test_options_may_be_a_dict(monkeypatch):
    taken = []
    monkeypatch.setattr("lightning_xai.cli.command_line.run_configured", lambda *given, **_: taken.append(given))
    main({"subcommand": "fit", "fit": {"trainer": {"max_epochs": 1}}})
    assert taken == [("fit", {"trainer": {"max_epochs": 1}})]


@pytest.mark.slow
def test_a_whole_number_of_batches_stays_one():
    """As a program: whether `typing` has `int` or `float` first depends on what is imported first."""
    words = ["test", "--config", "quickstart", "--trainer.limit_val_batches", "1", "--print_config"]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_xai", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert yaml.safe_load(done.stdout)["trainer"]["limit_val_batches"].__class__ is int
