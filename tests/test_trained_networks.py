"""The network trained on random labels: until it knows them by heart, once, and on after an interruption."""

import pytest
import torch
from pytorch_lightning import Callback

from lightning_xai.data import DigitsDataModule
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import MLP
from lightning_xai.studies.networks import StopWhenMemorized, accuracy, fit, kept, trained

OPTIONS = {"accelerator": "cpu", "enable_progress_bar": False}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Checkpoint directory",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
)


def parts():
    torch.manual_seed(0)
    data = DigitsDataModule(batch_size=16, randomize_labels=True, val_size=1300)
    network = ClassifierModule(MLP((1, 28, 28), hidden=(256,)), lambda p: torch.optim.Adam(p, 3e-3))
    return network, data


def test_it_is_trained_until_it_knows_its_labels(tmp_path):
    model, reached = fit(*parts(), tmp_path, OPTIONS | {"max_epochs": 300}, by_heart=True)
    _, data = parts()
    data.setup("fit")
    loader = data.train_dataloader()
    right = sum(int((model(batch["image"]).argmax(1) == batch["label"]).sum()) for batch in loader)
    assert reached == pytest.approx(right / len(loader.dataset))
    assert 0.95 <= reached <= 1
    assert float(model.trainer.progress_bar_metrics["memorized"]) == pytest.approx(reached)
    epochs = torch.load(tmp_path / "last.ckpt", weights_only=False)["epoch"]
    assert epochs < 290, "it stopped when it knew enough"


def test_interrupted_it_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole, reached = fit(*parts(), tmp_path / "whole", OPTIONS | {"max_epochs": 4}, by_heart=True)

    class Killed(Exception):
        pass

    epochs = []

    def die(self, trainer, pl_module):
        epochs.append(trainer.current_epoch)
        if len(epochs) == 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(StopWhenMemorized, "on_train_epoch_start", die, raising=False)
        with pytest.raises(Killed):
            fit(*parts(), tmp_path / "again", OPTIONS | {"max_epochs": 4}, by_heart=True)
    monkeypatch.setattr(StopWhenMemorized, "on_train_epoch_start", lambda self, t, _: epochs.append(t.current_epoch))
    model, found = fit(*parts(), tmp_path / "again", OPTIONS | {"max_epochs": 4}, by_heart=True)
    assert epochs == [0, 1, 2, 2, 3], "finished epochs are not repeated"
    assert issubclass(StopWhenMemorized, Callback)
    assert abs(found - reached) < 0.1
    assert model.state_dict().keys() == whole.state_dict().keys()


def test_a_network_is_trained_once_for_its_settings(tmp_path):
    trained = []

    def train(scratch):
        (scratch / "unfinished").mkdir(parents=True)
        trained.append(scratch)
        return torch.nn.Linear(2, 2), 0.97

    first, reached = kept(tmp_path, {"a": 1, "b": [2]}, train)
    again, reached_again = kept(tmp_path, {"b": [2], "a": 1}, train)
    assert len(trained) == 1
    assert not trained[0].exists(), "unfinished work is removed"
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert reached == reached_again == 0.97
    kept(tmp_path, {"a": 2, "b": [2]}, train)
    assert len(trained) == 2


def test_accuracy_needs_labels():
    with pytest.raises(ValueError, match="The batches must have labels, one class index a sample"):
        accuracy(torch.nn.Flatten(), [torch.rand(2, 1, 2, 2)], torch.device("cpu"))


CONFIG = {
    "seed_everything": 3,
    "trainer": {"max_epochs": 4, **OPTIONS, "callbacks": {"class_path": "lightning_xai.callbacks.AttributionCallback"}},
    "model": {
        "class_path": "lightning_xai.modules.ClassifierModule",
        "init_args": {
            "network": {"class_path": "lightning_xai.networks.MLP", "init_args": {"hidden": [64]}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.003}},
        },
    },
    "data": {"class_path": "lightning_xai.data.DigitsDataModule", "init_args": {"batch_size": 64}},
}


def test_a_configuration_becomes_a_network_that_is_kept_and_the_same_again(tmp_path):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    network = trained(CONFIG, tmp_path)
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    assert network.accuracy > 0.5
    assert not network.model.training
    network.data.setup("test")
    assert accuracy(network.model, network.data.test_dataloader(), torch.device("cpu")) == network.accuracy
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = trained(CONFIG, tmp_path)
    assert file.stat().st_mtime_ns == stamp, "it is not trained again"
    torch.testing.assert_close(dict(again.model.state_dict()), dict(network.model.state_dict()), rtol=0, atol=0)
    torch.manual_seed(99)  # which changes nothing
    elsewhere = trained(CONFIG, tmp_path / "elsewhere")
    torch.testing.assert_close(dict(elsewhere.model.state_dict()), dict(network.model.state_dict()))


def test_by_heart_the_labels_are_permuted_and_the_configuration_is_left_as_it_was(tmp_path):
    network = trained(CONFIG, tmp_path, by_heart=True)
    assert network.data.randomize_labels
    assert network.accuracy < 0.5, "four epochs do not suffice"
    assert "randomize_labels" not in CONFIG["data"]["init_args"]
    assert len(list(tmp_path.iterdir())) == 1
    trained(CONFIG, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "one with true labels is another network"
