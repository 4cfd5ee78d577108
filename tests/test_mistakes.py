"""Typical mistakes of who types a command: one sentence each, with the place, what is accepted, and what is near."""

import copy
import math
import sys
from pathlib import Path

import pytest
import yaml

from lightning_xai.cli import main

ROOT = Path(__file__).parent.parent
QUICKSTART = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
FIT, TEST = (("fit", "--config", "quickstart"), ("test", "--config", "quickstart", "--trainer.accelerator", "cpu"))
METHODS = "--trainer.callbacks.methods"


def changed(*keys, **values):
    """A configuration of the user's own, with a mistake somewhere in the quickstart's."""
    config = copy.deepcopy(QUICKSTART)
    part = config
    for key in keys:
        part = part.setdefault(key, {}) if isinstance(part, dict) else part[key]
    part.update(values)
    return yaml.safe_dump(config)


CALLBACK = ("trainer", "callbacks", 1, "init_args")
METHOD = (*CALLBACK, "methods", "smooth_grad")
FILES = {
    "bad.yaml": "trainer: {max_epochs: 1\nmodel: [",
    "twice.yaml": "a: 1\na: 2\n",
    "argument.yaml": changed(*METHOD, class_path="smooth_grad", init_args={"fractoin": 0.1}),
    "range.yaml": changed(*METHOD, class_path="smooth_grad", init_args={"fraction": -0.1}),
    "later.yaml": changed(*METHOD[:-1], "noise_grad", init_args={"num_draws": -1}),
    "other.yaml": changed(*METHOD[:-1], "noise_grad", init_args={"fraction": 0.1}),
    "beside.yaml": changed(*METHOD[:-1], "noise_grad", init_args={}, std=0.2),
    "comma.yaml": changed("model", "init_args", "optimizer", "init_args", lr="0,003"),
    "case.yaml": changed("model", "init_args", "optimizer", class_path="torch.optim.adam"),
    "lenet.yaml": changed("model", "init_args", "network", class_path="lightning_xai.networks.Lenet"),
    "empty.yaml": "",
    "list.yaml": "- a\n- b\n",
    "name.yaml": changed(*METHOD, class_path="smooth_grda"),
    "class.yaml": changed("trainer", "callbacks", 1, class_path="lightning_xai.callbacks.AtributionCallback"),
    "type.yaml": changed(*CALLBACK, num_samples="many"),
    "trainer.yaml": changed("trainer", max_epoch=1),
    "network.yaml": changed("model", "init_args", "network", init_args={"image_sise": 1}),
    "text.ckpt": "hello",
}
MISTAKES = {
    "command": (["fitt"], ["'fitt' is not a command", "Did you mean 'fit'?"]),
    "option": ([*FIT, "--trainer.max_epoch=3"], ["--trainer.max_epoch=3", "Did you mean `--trainer.max_epochs`?"]),
    "option of a part": (
        [*FIT, "--model.init_args.lr=0.1"],
        ["ClassifierModule has no argument 'lr'. Did you mean that of `optimizer`, `--model.optimizer.lr`?"],
    ),
    "option of compare": (["compare", "a", "--alpah", "0.1"], ["--alpah", "Did you mean `--alpha`?"]),
    "option of the data": ([*FIT, "--data.vall_size=3"], ["`data.vall_size`: DigitsDataModule", "`val_size`?"]),
    "name of a configuration": (["fit", "--config", "quickstrat"], ["`config`", "did you mean 'quickstart'?"]),
    "no configuration": (["fit"], ["`data` and `model` must be given", "`--config quickstart`"]),
    "absent configuration": (["fit", "--config", "none/a.yaml"], ["`config`", "none/a.yaml", "Give the path"]),
    "binary configuration": (["fit", "--config", "binary.yaml"], ["`config`: binary.yaml is not text"]),
    "bad YAML": (["fit", "--config", "bad.yaml"], ["bad.yaml", "expected ',' or '}'", "line 2, column 6"]),
    "a key twice": (["fit", "--config", "twice.yaml"], ["twice.yaml", "'a' is given twice", "line 2"]),
    "type": ([*FIT, "--trainer.max_epochs=x"], ["`trainer.max_epochs`: expected a whole number or null, got 'x'"]),
    "choice": (["sanity", *FIT[1:], "--check=parameter"], ["`check`: expected one of", "Did you mean `parameters`?"]),
    "choice of the callback": (
        [*FIT, "--trainer.callbacks.precision=bf16"],
        ["`trainer.callbacks.precision`: expected one of '32-true', 'tf32', 'bf16-mixed', got 'bf16'"],
    ),
    "method": (
        [*FIT, f"{METHODS}=[smooth_grda]"],
        ["`trainer.callbacks.methods[0]`: 'smooth_grda' is unknown: did you mean 'smooth_grad'?"],
    ),
    "metric": (
        [*FIT, "--trainer.callbacks.metrics=[sparsness]"],
        ["`trainer.callbacks.metrics[0]`: 'sparsness' is unknown: did you mean 'sparseness'?"],
    ),
    "argument of a method": (
        ["fit", "--config=argument.yaml"],
        [
            "`trainer.callbacks[1].methods.smooth_grad.fractoin`: smooth_grad has no argument 'fractoin'. "
            "Did you mean `fraction`? (in argument.yaml)"
        ],
    ),
    "range": (
        ["fit", "--config=range.yaml"],
        ["`trainer.callbacks[1].methods.smooth_grad.fraction`: must be in [0, 1], got -0.1. (in range.yaml)"],
    ),
    "range of a later method": (
        ["fit", "--config=later.yaml"],
        ["`trainer.callbacks[1].methods.noise_grad.num_draws`: must be at least 1, got -1. (in later.yaml)"],
    ),
    "argument of another method": (
        ["fit", "--config=other.yaml"],
        ["`trainer.callbacks[1].methods.noise_grad.fraction`: noise_grad has no argument 'fraction'."],
    ),
    "argument beside the class": (
        ["fit", "--config=beside.yaml"],
        ["`trainer.callbacks[1].methods.noise_grad.std`: must be within init_args: {class_path: noise_grad, init_args"],
    ),
    "decimal comma": (
        ["fit", "--config=comma.yaml"],
        ["`model.optimizer.lr`: expected a number, got '0,003'. (in comma.yaml)"],
    ),
    "small letter": (["fit", "--config=case.yaml"], ["`model.optimizer`: module 'torch.optim'", "mean `Adam`?"]),
    "class beside a module": (["fit", "--config=lenet.yaml"], ["`model.network`", "Did you mean `LeNet`?"]),
    "empty configuration": (["fit", "--config", "empty.yaml"], ["`config`: empty.yaml is empty, and no conf"]),
    "list for a configuration": (["fit", "--config", "list.yaml"], ["`config`: list.yaml is a list, and no conf"]),
    "checkpoint for a run": (["report", "binary.yaml"], ["binary.yaml: not UTF-8", "name the run's folder"]),
    "one dash": (["fit", "-config", "quickstart"], ["Write `--config`, with two dashes"]),
    "epochs": ([*FIT, "--trainer.epochs=3"], ["Did you mean `--trainer.max_epochs`?"]),
    "one of a list": ([*FIT, "--trainer.callbacks[1].seed=3"], ["`--trainer.callbacks.seed` is of the last one"]),
    "method in a file": (
        ["fit", "--config=name.yaml"],
        ["`trainer.callbacks[1].methods.smooth_grad`: 'smooth_grda' is neither", "Did you mean `smooth_grad`?"],
    ),
    "class": (["fit", "--config=class.yaml"], ["`trainer.callbacks[1]`", "Did you mean `AttributionCallback`?"]),
    "type in a file": (
        ["fit", "--config=type.yaml"],
        ["`trainer.callbacks[1].num_samples`: expected a whole number, got 'many'. (in type.yaml)"],
    ),
    "option in a file": (["fit", "--config=trainer.yaml"], ["`trainer.max_epoch`", "Did you mean `max_epochs`?"]),
    "network": (["fit", "--config=network.yaml"], ["`model.network.image_sise`: LeNet", "`image_size`?"]),
    "class path": ([*FIT, "--data=lightning_xai.data.DigitDataModule"], ["`data`", "Did you mean `DigitsDataModule`?"]),
    "package": (
        [*FIT, "--model.network.class_path=torchvisoin.models.resnet18"],
        ["`model.network`: No module named 'torchvisoin'. Did you mean `torchvision`?"],
    ),
    "accelerator": ([*FIT, "--trainer.accelerator=gpuu"], ["accelerator='gpuu'", "Available names are"]),
    "checkpoint": ([*TEST, "--ckpt_path=none.ckpt"], ["`ckpt_path`: none.ckpt does not exist. Give a checkpoint"]),
    "no checkpoint": (
        [*TEST, "--ckpt_path=text.ckpt"],
        ["`ckpt_path`: text.ckpt cannot be read as a checkpoint", "its bytes are"],
    ),
    "other network": ([*TEST, "--ckpt_path=cmnist_resnet9"], ["`ckpt_path`", "does not fit the `model`", "Give a"]),
    "word for a checkpoint": ([*TEST, "--ckpt_path=best"], ["`ckpt_path`", "Give the path of the file"]),
    "examined": (["sanity", *TEST[1:]], ["`ckpt_path` must name a checkpoint"]),
    "run": (["compare", "nowhere"], ["`runs`: no scores in", "Name a run's folder"]),
    "type of compare": (["compare", "nowhere", "--epoch=x"], ["`epoch`: expected a whole number or null, got 'x'"]),
    "pictures": (["explain", "--config=photographs"], ["`images` must be given"]),
    "experiment": (["reproduce", "noisegrad-tabel1"], ["`name` must be one of", "Did you mean 'noisegrad-table1'?"]),
    "option of an experiment": (["reproduce", "noisegrad-table1", "--fasst"], ["--fasst", "Did you mean `--fast`?"]),
    "option without its group": ([*FIT, "--max_epoch=3"], ["Did you mean `--trainer.max_epochs`?"]),
    "nothing near": (["compare", "a", "--outlook=3"], ["unrecognized arguments: --outlook=3.\n"]),
    "study": (["study", "twice.yaml"], ["twice.yaml", "'a' is given twice, line 2, column 1"]),
    "second run in a folder": (
        [*FIT, "--trainer.logger=false", "--trainer.default_root_dir=used"],
        ["`trainer.default_root_dir`: used has the config.yaml of an earlier run. Choose another folder"],
    ),
}
QUICK = ("option", "option of a part", "no configuration", "bad YAML", "type", "method", "package", "checkpoint")


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """The program with these words, in a folder that has the files: its exit code, and what it says."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("used").mkdir()
    Path("used", "config.yaml").touch()

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["lightning-xai", *words])
        with pytest.raises(SystemExit) as leaving:
            main()
        return leaving.value.code, capsys.readouterr().err.replace("Seed set to 0\n", "")

    return called


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MISTAKES]
)
def test_a_mistake_is_one_screen_that_names_the_place_and_the_cure(name, call):
    words, said = MISTAKES[name]
    code, text = call(*words)
    assert code == 2
    assert text.startswith("lightning-xai: error: ")
    assert sum(math.ceil(len(line) / 80) for line in text.splitlines()) <= 10
    for part in said:
        assert part in text


def test_debug_shows_the_traceback(call, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning-xai", "compare", "nowhere", "--debug"])
    with pytest.raises(ValueError, match="`runs`: no scores"):
        main()


def test_what_is_no_refusal_keeps_its_traceback(monkeypatch):
    def broken(words):
        return {}["nothing"]

    monkeypatch.setattr("lightning_xai.cli.commands.function_of", lambda command: broken)
    monkeypatch.setattr(sys, "argv", ["lightning-xai", "compare"])
    with pytest.raises(KeyError, match="nothing"):
        main()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_a_word(monkeypatch, capsys, error):
    def interrupted(words):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise error(1)  # noqa: B904 - as the Trainer does

    monkeypatch.setattr("lightning_xai.cli.commands.function_of", lambda command: interrupted)
    monkeypatch.setattr(sys, "argv", ["lightning-xai", "compare"])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert (leaving.value.code, capsys.readouterr().err) == (130, "lightning-xai: interrupted\n")
