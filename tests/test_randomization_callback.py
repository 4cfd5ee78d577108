"""The light sanity check at test end, and in between."""

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

import lightning_xai as lx
from lightning_xai.callbacks import RandomizationCallback
from lightning_xai.data import DigitsDataModule
from lightning_xai.explainers import Gradient
from lightning_xai.functional.random import fold_in_int
from lightning_xai.modules import ClassifierModule
from lightning_xai.networks import MLP
from lightning_xai.sanity.randomization import parameter_blocks, randomize
from lightning_xai.sanity.similarity import spearman_absolute, ssim

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*smaller than the logging interval", "ignore:.*isinstance.treespec"
)


def trainer_of(folder, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet["enable_checkpointing"] = False
    return Trainer(callbacks=list(callbacks), default_root_dir=folder, **quiet, **options)


def module_and_data():
    torch.manual_seed(0)
    return ClassifierModule(MLP((1, 28, 28), hidden=(8,))), DigitsDataModule(batch_size=64)


def test_the_logged_means_are_those_made_by_hand(tmp_path):
    """In a test run with the default flags, that is in inference mode."""
    callback = RandomizationCallback({"gradient": Gradient()}, num_samples=5, repeats=2)
    module, data = module_and_data()
    trainer = trainer_of(tmp_path, callback)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    trainer.test(module, data, verbose=False)
    batch = data.test_dataloader().dataset
    places = np.linspace(0, len(batch) - 1, 5).round().astype(int).tolist()
    images = torch.stack([batch[i]["image"] for i in places])
    labels = torch.tensor([int(batch[i]["label"]) for i in places])
    module.eval()
    maps = [lx.explain(module, images, labels, Gradient())]
    for repeat in range(2):
        changed = randomize(module, parameter_blocks(module, images), seed=fold_in_int(0, repeat))
        maps.append(lx.explain(changed, images, labels, Gradient()))
    for name, similarity in (("spearman_absolute", spearman_absolute), ("ssim", ssim)):
        expected = np.mean([similarity(maps[0], other).mean().item() for other in maps[1:]])
        assert float(trainer.callback_metrics[f"sanity/gradient/{name}"]) == pytest.approx(expected, abs=1e-5)
        floor = np.mean([similarity(maps[0], maps[0].roll(shift, 0)).mean().item() for shift in range(1, 5)])
        assert float(trainer.callback_metrics[f"sanity/gradient/{name}_floor"]) == pytest.approx(floor, abs=1e-5)
        assert float(trainer.callback_metrics[f"sanity/random/{name}"]) == pytest.approx(1, abs=1e-6)
        assert float(trainer.callback_metrics[f"sanity/edges/{name}"]) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(module.state_dict(), weights, rtol=0, atol=0)


def test_training_is_bit_identical_with_and_without(tmp_path):
    def trained(*callbacks):
        module, data = module_and_data()
        trainer = trainer_of(tmp_path, *callbacks, max_epochs=2, limit_train_batches=3)
        trainer.fit(module, data)
        return module, trainer, torch.rand(3)

    callback = RandomizationCallback({"gradient": Gradient()}, num_samples=3, every_n_validations=2)
    plain, _, drawn = trained()
    observed, trainer, drawn_too = trained(callback)
    assert torch.equal(drawn, drawn_too)
    torch.testing.assert_close(plain.state_dict(), observed.state_dict(), rtol=0, atol=0)
    assert callback.scores is not None
    assert float(trainer.callback_metrics["sanity/gradient/ssim"]) == pytest.approx(
        callback.scores["sanity/gradient/ssim"]
    )


def test_validations_are_checked_only_if_asked_and_only_every_n_th(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(RandomizationCallback, "check", lambda self, trainer, *_: checked.append(trainer.current_epoch))
    for every, expected in ((None, []), (2, [1, 3])):
        checked.clear()
        module, data = module_and_data()
        callback = RandomizationCallback(every_n_validations=every)
        trainer_of(tmp_path, callback, max_epochs=4, limit_train_batches=1).fit(module, data)
        trainer_of(tmp_path, callback).validate(module, data, verbose=False)
        assert checked == expected


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`similarities` must be one of .*got 'mse'"):
        RandomizationCallback(similarities=["mse"])
    with pytest.raises(ValueError, match="`every_n_validations` must be at least 1, got 0"):
        RandomizationCallback(every_n_validations=0)
    with pytest.raises(ValueError, match="`repeats` must be at least 1, got 0"):
        RandomizationCallback(repeats=0)
