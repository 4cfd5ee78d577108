"""The training module against hand-made training steps; what it refuses; what checkpoints it can use."""

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.cli import ReduceLROnPlateau
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from torch.utils.data import DataLoader

from lightning_xai.modules import ClassifierModule
from lightning_xai.modules.checkpoints import check_resumable, check_weights_fit, read_checkpoint
from lightning_xai.networks import MLP, LeNet, ResNet9

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),  # Lightning 2.6 on recent torch
]


class SmallData(LightningDataModule):
    """Five random images, in batches of two, as dicts or as tuples."""

    image_shape = (1, 4, 4)
    num_classes = 3

    def __init__(self, as_tuples: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(5, *self.image_shape, generator=generator)
        self.labels = torch.tensor([0, 1, 2, 1, 0])
        self.as_tuples = as_tuples

    def train_dataloader(self) -> DataLoader:
        samples = list(zip(self.images, self.labels, strict=True))
        if not self.as_tuples:
            samples = [{"image": image, "label": label} for image, label in samples]
        return DataLoader(samples, batch_size=2)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


def small_network() -> MLP:
    return MLP(image_shape=(1, 4, 4), hidden=(6,), num_classes=3)


def quiet_trainer(**options) -> Trainer:
    options = {"max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False} | options
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)


@pytest.mark.parametrize("as_tuples", [False, True])
def test_loss_and_accuracy_are_means_over_samples_not_over_batches(as_tuples):
    module, data = ClassifierModule(small_network()), SmallData(as_tuples)
    logits = module(data.images)
    for stage in ("validate", "test"):
        (figures,) = getattr(quiet_trainer(), stage)(module, data, verbose=False)
        prefix = "val" if stage == "validate" else "test"
        assert figures == {
            f"{prefix}/loss": pytest.approx(cross_entropy(logits, data.labels).item()),
            f"{prefix}/accuracy": pytest.approx((logits.argmax(1) == data.labels).float().mean().item()),
        }


def test_each_of_several_loaders_has_its_own_accuracy():
    module, data = ClassifierModule(small_network()), SmallData()
    images = [data.images, -2 * data.images]
    loaders = [DataLoader(list(zip(own, data.labels, strict=True)), batch_size=2) for own in images]
    figures = quiet_trainer().test(module, loaders, verbose=False)
    for place, (found, own) in enumerate(zip(figures, images, strict=True)):
        expected = (module(own).argmax(1) == data.labels).float().mean().item()
        assert found[f"test/accuracy/dataloader_idx_{place}"] == pytest.approx(expected)


def test_predict_returns_the_logits_of_each_batch():
    module, data = ClassifierModule(small_network()), SmallData()
    batches = quiet_trainer().predict(module, data)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert_close(torch.cat(batches), module(data.images).detach())


def test_training_takes_the_steps_of_a_bare_loop():
    module, data = ClassifierModule(small_network(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1)), SmallData()
    expected = small_network()
    expected.load_state_dict(module.network.state_dict())
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for images, labels in zip(data.images.split(2), data.labels.split(2), strict=True):
        optimizer.zero_grad()
        cross_entropy(expected(images), labels).backward()
        optimizer.step()
    trainer = quiet_trainer()
    trainer.fit(module, data)
    assert_close(dict(module.network.named_parameters()), dict(expected.named_parameters()))
    assert set(trainer.callback_metrics) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}


def test_scheduler_is_stepped_once_an_epoch():
    module = ClassifierModule(
        small_network(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5),
    )
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(module, SmallData())
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5**3


def test_plateau_scheduler_sees_the_figure_it_monitors():
    module = ClassifierModule(
        small_network(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-30),  # the loss will not improve
        lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, "val/loss", patience=0, factor=0.5, eps=0),
    )
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(module, SmallData())
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-30 * 0.5**2


def test_bf16_mixed_keeps_float32_weights():
    module = ClassifierModule(small_network())
    before = module.network.layers.linear1.weight.detach().clone()
    trainer = quiet_trainer(precision="bf16-mixed")
    trainer.fit(module, SmallData())
    after = module.network.layers.linear1.weight
    assert after.dtype == torch.float32
    assert not torch.equal(after, before)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


def test_channels_last_changes_the_memory_format_and_not_the_logits():
    seed_everything(0)
    network, images = ResNet9().eval(), torch.randn(2, 3, 32, 32)
    expected = network(images)
    module = ClassifierModule(network, channels_last=True).eval()
    assert network.block1.conv.weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0].stride()))
    assert_close(module(images), expected)
    assert seen == [(3 * 32 * 32, 1, 32 * 3, 3)]


def test_no_hyper_parameters_are_saved():
    assert not ClassifierModule(small_network()).hparams


class Fussy(nn.Module):
    """Would change its buffers and the global random numbers if it ran in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3))
        self.layers[0].eval()  # a frozen part

    def forward(self, images):
        return self.layers(images)


@pytest.mark.parametrize("width", [4, 5])
def test_checking_the_network_leaves_no_trace(width):
    network, data = Fussy(), SmallData()
    data.image_shape = (1, 4, width)
    module = ClassifierModule(network)
    module.trainer = quiet_trainer()
    module.trainer.datamodule = data
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    modes, random_state = [part.training for part in network.modules()], torch.get_rng_state()
    if width == 4:
        module.setup("fit")
    else:
        with pytest.raises(ValueError, match="`network`"):
            module.setup("fit")
    assert [part.training for part in network.modules()] == modes
    assert_close(dict(network.named_buffers()), buffers)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_network_of_another_input_shape_is_refused_before_training():
    with pytest.raises(ValueError, match=r"`network` \(LeNet\) .* shape \(1, 4, 4\).*`in_channels`") as caught:
        quiet_trainer().fit(ClassifierModule(LeNet()), SmallData())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_network_with_too_few_logits_is_refused():
    network = MLP(image_shape=(1, 4, 4), num_classes=2)
    with pytest.raises(ValueError, match=r"at least 3\).*returned \(2, 2\).*`num_classes` to 3"):
        quiet_trainer().fit(ClassifierModule(network), SmallData())


def test_network_with_more_logits_than_classes_is_accepted():
    network = MLP(image_shape=(1, 4, 4), num_classes=4)
    (figures,) = quiet_trainer().validate(ClassifierModule(network), SmallData(), verbose=False)
    assert figures["val/loss"] > 0


@pytest.fixture
def checkpoint(tmp_path):
    trainer = quiet_trainer()
    trainer.fit(ClassifierModule(small_network()), SmallData())
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    return tmp_path / "good.ckpt"


def test_good_checkpoint_passes_all_checks(checkpoint):
    content = read_checkpoint(checkpoint)
    check_weights_fit(content, ClassifierModule(small_network()), checkpoint)
    check_resumable(content, checkpoint)


def test_missing_truncated_and_foreign_files_are_refused(checkpoint):
    folder = checkpoint.parent
    (folder / "truncated.ckpt").write_bytes(checkpoint.read_bytes()[:-100])
    (folder / "empty.ckpt").write_bytes(b"")
    (folder / "text.ckpt").write_text("no checkpoint")
    torch.save([1, 2], folder / "list.ckpt")
    torch.save(small_network().state_dict(), folder / "state.ckpt")
    torch.save(small_network(), folder / "pickled.ckpt")
    for name, reason in {
        "absent": "does not exist",
        "truncated": "truncated",
        "empty": "truncated",
        "text": "truncated",
        "pickled": r"it holds lightning_xai\.networks\.mlp\.MLP",
        "list": "has no `pytorch-lightning_version`, `state_dict`",
        "state": "has no `pytorch-lightning_version`, `state_dict`",
    }.items():
        with pytest.raises(ValueError, match=rf"`ckpt_path`: .*{name}\.ckpt.*{reason}.*Give a checkpoint"):
            read_checkpoint(folder / f"{name}.ckpt")


def test_checkpoint_of_another_network_is_refused(checkpoint):
    content = read_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"10 missing: `network\.classifier.*, \.\.\.; 4 unexpected: `network\.layers"):
        check_weights_fit(content, ClassifierModule(LeNet()), checkpoint)
    wider = ClassifierModule(MLP(image_shape=(1, 4, 4), hidden=(7,), num_classes=3))
    with pytest.raises(
        ValueError, match=r"3 of another shape: `network\.layers\.linear1\.bias \(6,\) instead of \(7,\)`"
    ):
        check_weights_fit(content, wider, checkpoint)


def test_weights_without_optimizer_state_cannot_be_resumed_from(checkpoint):
    path = checkpoint.with_name("weights.ckpt")
    content = read_checkpoint(path)
    check_weights_fit(content, ClassifierModule(small_network()), path)
    with pytest.raises(ValueError, match=r"training cannot resume from .*weights.ckpt, which holds weights only"):
        check_resumable(content, path)


def test_other_lightning_modules_checkpoints_are_foreign(checkpoint):
    class Other(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"2 missing: `layer\.bias`, `layer\.weight`; 4 unexpected"):
        check_weights_fit(read_checkpoint(checkpoint), Other(), checkpoint)
