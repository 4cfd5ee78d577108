"""Checkpoints that somebody's own script wrote: every command takes them, whatever hyper-parameters they hold."""

import sys
from argparse import Namespace
from pathlib import Path, PurePosixPath

import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from lightning_xai.callbacks import AttributionCallback
from lightning_xai.cli import main
from lightning_xai.data import DigitsDataModule
from lightning_xai.experiments.trained import examine_trained
from lightning_xai.modules import ClassifierModule
from lightning_xai.modules.checkpoints import read_checkpoint
from lightning_xai.networks import MLP
from lightning_xai.results.store import read_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # between Lightning and jsonargparse
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty.*"),
]

SCRIPT = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Setting:
    rate = 0.1

class Net(LightningModule):
    def __init__(self, width: int = 4, root=None, args=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        pass

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Data(LightningDataModule):
    bounds, image_shape = (0.0, 1.0), (1, 8, 8)

    def loader(self):
        images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(images, torch.arange(12) % 3), 4)

    train_dataloader = val_dataloader = test_dataloader = loader

    def preprocess(self, picture):
        return torch.zeros(1, 8, 8)
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Their module, in whose folder we are."""
    name = f"theirs_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    module = __import__(name)
    init_args = {
        "methods": ["gradient"],
        "metrics": ["sparseness"],
        "controls": False,
        "num_samples": 4,
        "panel_size": 0,
    }
    callback = {"class_path": "lightning_xai.callbacks.AttributionCallback", "init_args": init_args}
    config = {
        "trainer": {"logger": False, "accelerator": "cpu", "enable_progress_bar": False, "callbacks": [callback]},
        "model": {"class_path": f"{name}.Net", "init_args": {"width": 5}},
        "data": {"class_path": f"{name}.Data"},
    }
    Path("c.yaml").write_text(yaml.safe_dump(config))
    return module


def trained(module, path, epochs=2, **hyper_parameters):
    """A script of their own; Python's types in the hyper-parameters."""
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module.Net(5, **hyper_parameters), module.Data())
    trainer.save_checkpoint(path)
    return trainer


@pytest.fixture
def given(theirs):
    """The options of a checkpoint with a Namespace and a Path inside, in no folder `checkpoints`."""
    Path("kept").mkdir()
    trained(theirs, "kept/a.ckpt", args=Namespace(rate=0.1, files=[Path("data")]), root=Path("/data"))
    return ["--config=c.yaml", "--ckpt_path=kept/a.ckpt"]


def test_commands_of_the_trainer_take_it_and_evaluate_writes_beside_it(given, capsys):
    main(["validate", *given])
    assert capsys.readouterr().out.count("explanations of 4 samples") == 1, "the callback leaves it to the command"
    main(["test", *given, "--trainer.default_root_dir=elsewhere"])
    main(["evaluate", *given])
    found = read_scores("kept/evaluate/scores").table
    assert (set(found["epoch"]), set(found["step"]), len(set(found["sample"]))) == ({2}, {6}, 12)


@pytest.mark.slow
def test_every_other_command_takes_it_and_writes_beside_the_file(given, caplog):
    Image.new("L", (8, 8)).save("black.png")
    few = ["--methods=[gradient]", "--similarity=pearson", "--num_samples=6", "--repeats=1"]
    main(["sanity", *given, *few])
    main(["calibrate", *given, "--num_draws=2", "--maximum=0.01", "--chance=0.2"])
    main(["visualize", *given, "--target=1", "--steps=1", "--num_models=1", "--num_fresh=1"])
    main(["explain", "black.png", *given, "--methods=[gradient]"])
    assert {path.name for path in Path("kept").iterdir()} >= {"a.ckpt", "noise_level.csv", "sanity", "visualize"}
    assert {path.name for path in Path("kept/sanity/all").glob("*.csv")} >= {"verdicts.csv"}
    checks = [line.partition(",")[0] for line in Path("kept/sanity/all/verdicts.csv").read_text().splitlines()[1:]]
    assert set(checks) == {"parameters", "invariance"}
    with caplog.at_level("INFO"):
        main(["sanity", *given, *few, "--dry_run"])
    assert "The data check is left out." in caplog.text
    assert Path("explanations/explanations.csv").exists()


def test_the_data_check_alone_needs_randomize_labels(theirs):
    trained(theirs, "a.ckpt", epochs=1)
    with pytest.raises(ValueError, match=r"cannot randomize its labels, .* or choose another `check`"):
        main(["sanity", "--config=c.yaml", "--ckpt_path=a.ckpt", "--check=data"])


def test_a_test_of_a_checkpoint_is_filed_under_its_epoch_and_step(theirs):
    """In a new trainer, and in the one that has trained on since."""
    trainer = trained(theirs, "early.ckpt", epochs=1)
    callback = AttributionCallback(["gradient"], ["sparseness"], controls=False, panel_size=1, summary=False)
    trainer.callbacks.append(callback)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(trainer.lightning_module, theirs.Data())
    assert (trainer.current_epoch, trainer.global_step) == (3, 9)
    trainer.test(trainer.lightning_module, theirs.Data(), ckpt_path="early.ckpt", verbose=False)
    trainer.test(trainer.lightning_module, theirs.Data(), verbose=False)
    found = read_scores(callback.folder / "scores").select(stage="test").table
    assert sorted(set(zip(found["epoch"], found["step"], strict=True))) == [(1, 3), (3, 9)]
    assert {path.name for path in (callback.folder / "panels").glob("test*")} == {
        "test-epoch=001-step=3.png",
        "test-epoch=003-step=9.png",
    }


def test_other_types_are_refused_by_name(theirs):
    trained(theirs, "other.ckpt", epochs=1, root=theirs.Setting())
    with pytest.raises(
        ValueError, match=rf"other.ckpt cannot be read .*: it holds {theirs.__name__}.Setting, .*ignore"
    ):
        main(["test", "--config=c.yaml", "--ckpt_path=other.ckpt"])


def test_paths_are_read_as_data_also_those_of_another_system(theirs):
    trained(theirs, "a.ckpt", epochs=1, root=Path("a/b"), args=Namespace(n=1))
    content = read_checkpoint("a.ckpt")["hyper_parameters"]
    assert content == {"width": 5, "root": PurePosixPath("a/b"), "args": Namespace(n=1)}
    assert type(content["root"]) is not Path
    assert Namespace not in torch.serialization.get_safe_globals(), "only while it is read"


def test_modules_of_the_other_package_are_refused_with_both_names(theirs, capsys):
    Path("foreign_module.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self): super().__init__()\n"
    )
    with pytest.raises(SystemExit):
        main(["test", "--config=c.yaml", "--model=foreign_module.Net"])
    said = capsys.readouterr().err
    assert "must be those of the package pytorch_lightning. Classes of lightning.pytorch" in said


def test_the_callback_works_in_the_other_package(tmp_path):
    other = pytest.importorskip("lightning.pytorch")

    class Net(other.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))

        def forward(self, x):
            return self.net(x)

        def test_step(self, *batch):
            pass

    callback = AttributionCallback(["gradient"], ["sparseness"], num_samples=3)
    trainer = other.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=[callback])
    trainer.test(Net(), DataLoader(torch.rand(6, 1, 4, 4), 3), verbose=False)
    assert callback.evaluation.scores["gradient"]["sparseness"].isfinite().all()


class Returning(ClassifierModule):
    """A module that takes two arguments and returns a dictionary."""

    def forward(self, pixels, scale):
        return {"logits": super().forward(pixels) * scale[:, None], "loss": None}


class Scaled(DigitsDataModule):
    """Batches with both arguments, by name."""

    def test_dataloader(self):
        def collate(batch):
            return {"pixels": batch["image"], "label": batch["label"], "scale": torch.ones(len(batch["label"]))}

        return DataLoader(super().test_dataloader().dataset, 8, collate_fn=collate)


def test_sanity_adapts_a_forward_of_another_kind(tmp_path):
    """To the results of the plain network, bit for bit."""
    torch.manual_seed(0)
    network = MLP(hidden=(8,))
    options = {"methods": ("gradient",), "num_samples": 8, "batch_size": 8, "similarity": "pearson", "repeats": 2}
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    plain = examine_trained(trainer, ClassifierModule(network), DigitsDataModule(), ("parameters",), **options)
    forward = {"key": "logits", "explained": "pixels", "carried": ["scale"]}
    adapted = examine_trained(trainer, Returning(network), Scaled(), ("parameters",), forward=forward, **options)
    assert [verdict.outcome for verdict in adapted.verdicts] == [verdict.outcome for verdict in plain.verdicts]
    for one, other in zip(plain.cells, adapted.cells, strict=True):
        assert one.scores["pearson"].tolist() == pytest.approx(other.scores["pearson"].tolist(), nan_ok=True)
    with pytest.raises(ValueError, match="`forward` must be arguments of Forward"):
        examine_trained(trainer, Returning(network), Scaled(), ("parameters",), forward={"keys": 1})
