"""Laws of the data modules: batches, splits, bounds, masks, labels, and what they say when the data is missing."""

import os
import struct
from pathlib import Path
from urllib.error import URLError

import jaxtyping
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule
from sklearn.datasets import load_digits
from torchvision import datasets

from lightning_xai.data import (
    CMNISTDataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    MNISTDataModule,
)
from lightning_xai.data.base import Normalization, permute, split_rows

REAL = Path(os.environ.get("LIGHTNING_XAI_DATA", Path(__file__).parents[2] / "shared" / "data"))


def needs_real(name):
    return pytest.mark.skipif(
        not (REAL / name).is_dir(), reason=f"no {name} in {REAL}; LIGHTNING_XAI_DATA may name another folder"
    )


def embedded(name, **options):
    if name == "cmnist":
        return CMNISTDataModule(
            digits="embedded", backgrounds="embedded", num_train=120, num_test=50, val_size=30, **options
        )
    return DigitsDataModule(**options)


def ready(data, stage=None):
    data.prepare_data()
    data.setup(stage)
    return data


def gather(loader):
    """All samples of a loader as one batch, in order of their indices."""
    batches = list(loader)
    index = torch.cat([batch["index"] for batch in batches])
    order = index.argsort()
    whole = {key: torch.cat([batch[key] for batch in batches])[order] for key in ("image", "label", "index")}
    masks = {name: torch.cat([b["mask"][name] for b in batches])[order] for name in batches[0]["mask"]}
    return whole | {"mask": masks}


def write_idx(folder, name, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    (folder / name).write_bytes(header + array.tobytes())


@pytest.fixture
def idx_root(tmp_path):
    """A small MNIST and a small Fashion-MNIST, as uncompressed IDX files."""
    random = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        folder = tmp_path / name / "raw"
        folder.mkdir(parents=True)
        for part, number in (("train", 60), ("t10k", 20)):
            images = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
            write_idx(folder, f"{part}-images-idx3-ubyte", images)
            write_idx(folder, f"{part}-labels-idx1-ubyte", np.arange(number, dtype=np.uint8) % 10)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def fail(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)


# Batches


@pytest.mark.parametrize("name", ["digits", "cmnist"])
def test_batches_follow_the_contract(name):
    data = ready(embedded(name, batch_size=8))
    channels, height, width = data.image_shape
    for loader in (
        data.train_dataloader(),
        data.val_dataloader(),
        data.test_dataloader(),
        data.predict_dataloader(),
    ):
        batch = next(iter(loader))
        assert batch["image"].shape == (8, channels, height, width)
        assert batch["image"].dtype == torch.float32
        assert batch["label"].dtype == batch["index"].dtype == torch.int64
        assert batch["label"].shape == batch["index"].shape == (8,)
        assert all(m.shape == (8, height, width) and m.dtype == torch.bool for m in batch["mask"].values())
        assert set(batch["mask"]) == ({"box", "digit"} if name == "cmnist" else {"digit"})


@pytest.mark.parametrize("name", ["digits", "cmnist"])
def test_collating_single_items_gives_the_loaders_batch(name):
    loader = ready(embedded(name, batch_size=8)).val_dataloader()
    batch = next(iter(loader))
    rebuilt = loader.collate_fn([loader.dataset[i] for i in range(8)])
    torch.testing.assert_close(rebuilt, batch, rtol=0, atol=0)


def test_items_are_copies_of_the_data():
    dataset = ready(DigitsDataModule()).val_dataloader().dataset
    item = dataset[0]
    item["image"].zero_()
    item["mask"]["digit"].zero_()
    assert dataset[0]["image"].any()
    assert dataset[0]["mask"]["digit"].any()


def test_an_item_out_of_range_is_an_index_error():
    dataset = ready(DigitsDataModule()).val_dataloader().dataset
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize("name", ["digits", "cmnist"])
def test_samples_do_not_depend_on_batch_size_or_workers(name):
    reference = gather(ready(embedded(name, batch_size=32)).train_dataloader())
    loader = ready(embedded(name, batch_size=7, num_workers=2)).train_dataloader()
    torch.testing.assert_close(gather(loader), reference, rtol=0, atol=0)


def test_only_the_training_loader_shuffles_and_no_sample_is_dropped():
    data = ready(DigitsDataModule(batch_size=100))
    first, second = ([b["index"] for b in data.train_dataloader()] for _ in range(2))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert sum(map(len, first)) == 1202
    for loader, number in ((data.val_dataloader(), 240), (data.test_dataloader(), 355)):
        index = torch.cat([batch["index"] for batch in loader])
        assert torch.equal(index, index.sort().values)
        assert len(index) == number


# Splits


@pytest.mark.parametrize("seed", [0, 1])
def test_training_and_validation_samples_divide_the_training_split(seed):
    data = ready(DigitsDataModule(seed=seed))
    train, val = (gather(loader)["index"] for loader in (data.train_dataloader(), data.val_dataloader()))
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(1442))


def test_the_split_depends_on_the_seed_alone():
    first, again, other = (gather(ready(DigitsDataModule(seed=s)).val_dataloader())["index"] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("val_size", [1, 10, 101, 239])
def test_each_class_has_its_share_of_the_validation_samples(val_size):
    labels = torch.arange(4).repeat_interleave(torch.tensor([1, 20, 70, 149]))
    train, val = split_rows(labels, val_size, seed=3)
    share = labels.bincount() * val_size / len(labels)
    assert len(val) == val_size
    assert len(train) == len(labels) - val_size
    assert (labels[val].bincount(minlength=4) - share).abs().max() <= 1


def test_indices_name_the_sample_whatever_the_seed():
    one, two = (gather(ready(DigitsDataModule(seed=s)).val_dataloader()) for s in (0, 1))
    source = DigitsDataModule().load("train")
    for batch in (one, two):
        torch.testing.assert_close(batch["label"], source.labels[batch["index"]])
        torch.testing.assert_close(batch["mask"]["digit"], source.masks["digit"][batch["index"]])


def test_a_twelfth_is_for_validation_by_default_where_the_size_is_open():
    assert len(ready(DigitsDataModule(val_size=None)).val_dataloader().dataset) == 1442 // 12


def test_setup_for_one_stage_loads_what_that_stage_needs():
    data = ready(DigitsDataModule(), "fit")
    assert len(data.val_dataloader().dataset) == 240
    with pytest.raises(RuntimeError, match=r"test samples of DigitsDataModule are not loaded: call `prepare"):
        data.test_dataloader()


def test_setup_again_keeps_the_sets():
    data = ready(DigitsDataModule(), "fit")
    before = data.train_dataloader().dataset
    data.setup("validate")
    assert data.train_dataloader().dataset is before


# Normalization and bounds


@pytest.mark.parametrize("data", [DigitsDataModule(), embedded("cmnist"), DigitsDataModule(mean=[0.3], std=[0.7])])
def test_an_extreme_pixel_equals_its_bound_bit_for_bit(data):
    channels = data.image_shape[0]
    black = torch.zeros(5, channels, 3, 7, dtype=torch.uint8)
    low, high = data.bounds
    assert low.shape == high.shape == (channels, 1, 1)
    assert torch.equal(data.normalize(black), low.expand(5, -1, 3, 7))
    assert torch.equal(data.normalize(black + 255), high.expand(5, -1, 3, 7))


def test_no_image_leaves_the_bounds():
    data = ready(embedded("cmnist"))
    images, (low, high) = gather(data.train_dataloader())["image"], data.bounds
    assert (images >= low).all()
    assert (images <= high).all()


def test_normalization_is_the_formula():
    mean, std = torch.tensor([0.1, 0.5, 0.7]), torch.tensor([0.2, 0.3, 1.5])
    images = torch.arange(3 * 256).remainder(256).to(torch.uint8).view(3, 16, 16)
    normalize = Normalization(mean.view(3, 1, 1), std.view(3, 1, 1))
    expected = (images.double() / 255 - mean.double().view(3, 1, 1)) / std.double().view(3, 1, 1)
    torch.testing.assert_close(normalize(images), expected.float())


def test_default_statistics_of_the_digits_are_those_of_the_training_split():
    images = DigitsDataModule().load("train").images / 255
    assert DigitsDataModule.default_mean[0] == pytest.approx(images.mean().item(), abs=5e-5)
    assert DigitsDataModule.default_std[0] == pytest.approx(images.std().item(), abs=5e-5)


# Label permutation


@pytest.mark.parametrize("name", ["digits", "cmnist"])
def test_random_labels_are_a_permutation_of_the_training_labels_and_of_nothing_else(name):
    true, random = ready(embedded(name)), ready(embedded(name, randomize_labels=True))
    for part in ("val_dataloader", "test_dataloader"):
        torch.testing.assert_close(gather(getattr(random, part)()), gather(getattr(true, part)()))
    before, after = gather(true.train_dataloader()), gather(random.train_dataloader())
    assert torch.equal(before["label"].bincount(), after["label"].bincount())
    assert 0.02 < (before["label"] == after["label"]).float().mean() < 0.25
    assert torch.equal(before["image"], after["image"])
    assert torch.equal(before["index"], after["index"])


def test_random_labels_are_the_same_each_time_and_differ_between_seeds():
    labels = torch.arange(1000) % 10
    assert torch.equal(permute(labels, 0), permute(labels, 0))
    assert not torch.equal(permute(labels, 0), permute(labels, 1))


# Digits


def test_digits_are_scikit_learns_and_the_splits_are_disjoint():
    splits = [DigitsDataModule().load(split) for split in ("train", "test")]
    assert [len(split.labels) for split in splits] == [1442, 355]
    labels = torch.cat([split.labels for split in splits])
    assert torch.equal(labels.bincount(), torch.as_tensor(np.bincount(load_digits().target)))
    ink = sorted(torch.cat([split.images for split in splits]).sum((1, 2, 3), dtype=torch.float64).tolist())
    scans = torch.as_tensor(load_digits().images)
    expected = sorted((scans.sum((1, 2)) / 16 * 255 * 2.5**2).tolist())
    np.testing.assert_allclose(ink, expected, rtol=0.12)  # the border's weight changes when it is enlarged


def test_a_digit_is_enlarged_bilinearly_and_framed():
    source = DigitsDataModule().load("train")
    assert not source.images[:, :, [0, 1, 2, 3, 24, 25, 26, 27]].any()
    assert not source.images[..., [0, 1, 2, 3, 24, 25, 26, 27]].any()
    scan = load_digits().images[0] / 16
    place = np.clip((np.arange(20) + 0.5) * 8 / 20 - 0.5, 0, 7)
    low = np.minimum(place.astype(int), 6)
    weights = np.zeros((20, 8))
    weights[np.arange(20), low], weights[np.arange(20), low + 1] = 1 - (place - low), place - low
    expected = np.rint(weights @ scan @ weights.T * 255)
    inner = source.images[0, 0, 4:24, 4:24].numpy()
    np.testing.assert_allclose(inner, expected, atol=1)  # one level: rounding after float32


@pytest.mark.parametrize("image_size", [8, 16, 31, 32])
def test_digits_come_in_any_size(image_size):
    data = DigitsDataModule(image_size=image_size)
    assert data.image_shape == (1, image_size, image_size)
    assert data.load("test").images.shape[1:] == data.image_shape


def test_the_digit_mask_is_half_the_brightness():
    source = DigitsDataModule().load("test")
    assert torch.equal(source.masks["digit"], source.images[:, 0] / 255 >= 0.5)


# MNIST and Fashion-MNIST


@pytest.mark.parametrize(("module", "mask"), [(MNISTDataModule, "digit"), (FashionMNISTDataModule, "object")])
def test_uncompressed_idx_files_suffice_and_nothing_is_downloaded(idx_root, no_network, module, mask):
    data = ready(module(root=str(idx_root), val_size=10))
    reference = module.torchvision_class(idx_root, train=True)
    train, val = gather(data.train_dataloader()), gather(data.val_dataloader())
    assert (len(train["label"]), len(val["label"])) == (50, 10)
    for batch in (train, val):
        pixels = reference.data[batch["index"]] / 255
        mean, std = module.default_mean[0], module.default_std[0]
        torch.testing.assert_close(batch["image"][:, 0], (pixels - mean) / std)
        assert torch.equal(batch["label"], reference.targets[batch["index"]])
        assert torch.equal(batch["mask"][mask], pixels > 0.05)
    assert len(gather(data.test_dataloader())["label"]) == 20


def test_missing_files_and_no_network_is_one_clear_error(tmp_path, no_network):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").touch()
    data = MNISTDataModule(root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the download failed; MNIST needs") as caught:
        data.prepare_data()
    text = str(caught.value)
    assert "train-images" not in text
    assert "train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte" in text
    assert str(tmp_path / "MNIST" / "raw") in text
    assert "DigitsDataModule" in text
    assert "no route to host" in str(caught.value.__cause__)


@pytest.mark.parametrize("call", ["prepare_data", "setup"])
def test_missing_files_without_download_is_an_error(tmp_path, no_network, call):
    data = FashionMNISTDataModule(root=str(tmp_path), download=False)
    with pytest.raises(FileNotFoundError, match=r"^FashionMNIST needs .* Pass `download: true`"):
        getattr(data, call)()


def test_a_truncated_file_is_named(idx_root):
    file = idx_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        ValueError,
        match=r"train-images-idx3-ubyte cannot be read: it must hold 60 x 28 x 28 bytes .*, 47,040 in all, but",
    ):
        MNISTDataModule(root=str(idx_root)).setup("fit")


@pytest.mark.parametrize("module", [MNISTDataModule, FashionMNISTDataModule])
@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(20), r"holds 60 images and train-labels.* 20 labels: they do not belong"),
        ("train-images-idx3-ubyte", np.zeros((20, 28, 28)), r"holds 20 images and train-labels-.* 60 labels"),
        ("train-labels-idx1-ubyte", np.r_[np.zeros(59), 200], r"labels from 0 to 9, but number 59 is 200: replace it"),
        ("train-images-idx3-ubyte", np.zeros((60, 32, 32)), r"images of 28 x 28 pixels, but holds 60 x 32 x 32"),
        ("train-images-idx3-ubyte", np.zeros((0, 28, 28)), r"images of 28 x 28 pixels, but holds 0 x 28 x 28"),
        ("train-images-idx3-ubyte", np.zeros((60, 784)), r"no uncompressed IDX file of bytes in 3 dimensions"),
        ("train-labels-idx1-ubyte", np.zeros((60, 1)), r"no uncompressed IDX file of bytes in 1 dimensions"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(idx_root, module, name, array, message):
    folder = idx_root / module.torchvision_class.__name__ / "raw"
    write_idx(folder, name, array.astype(np.uint8))
    with pytest.raises(ValueError, match=message) as refused:
        module(root=str(idx_root), val_size=10).setup("fit")
    assert str(folder / name) in str(refused.value) or str(folder / "train-images-idx3-ubyte") in str(refused.value)
    module(root=str(idx_root)).setup("test")  # these are sound


@pytest.mark.parametrize(
    "change", [lambda b: b + b"x", lambda b: b[:-1], lambda b: b[:7], lambda b: b"", lambda b: b"\x1f\x8b" + b[2:]]
)
def test_idx_files_are_as_long_as_they_say(idx_root, change):
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        file = idx_root / "MNIST" / "raw" / name
        whole = file.read_bytes()
        file.write_bytes(change(whole))
        with pytest.raises(ValueError, match=rf"{name} cannot be read: .*; replace it"):
            MNISTDataModule(root=str(idx_root)).setup("test")
        file.write_bytes(whole)


def test_what_an_old_version_left_beside_is_not_read(idx_root):
    old = idx_root / "MNIST" / "processed"
    old.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)), old / name)
    data = MNISTDataModule(root=str(idx_root))
    assert len(data.load("test").labels) == 20


@pytest.mark.parametrize("value", [1.5, True, "3"])
def test_counts_are_whole_numbers(value, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for name in ("batch_size", "num_workers", "val_size", "image_size"):
        with pytest.raises(TypeError, match=f"`{name}` must be a whole number, got"):
            DigitsDataModule(**{name: value})


@needs_real("MNIST")
def test_real_mnist():
    data = ready(MNISTDataModule(root=str(REAL), download=False))
    source = data.train_dataloader().dataset.source
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert source.labels.bincount().tolist() == counts
    assert source.images.float().mean() / 255 == pytest.approx(data.default_mean[0], abs=5e-5)
    assert source.images.float().std() / 255 == pytest.approx(data.default_std[0], abs=5e-5)
    assert [len(loader.dataset) for loader in (data.val_dataloader(), data.test_dataloader())] == [5000, 10000]


@needs_real("FashionMNIST")
def test_real_fashion_mnist():
    source = FashionMNISTDataModule(root=str(REAL), download=False).load("train")
    assert source.labels.bincount().tolist() == [6000] * 10
    assert source.images.float().mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert source.images.float().std() / 255 == pytest.approx(0.3530, abs=5e-5)


# Configuration


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the name `instantiate` is newer than our lower bound
@pytest.mark.parametrize("module", [DigitsDataModule, MNISTDataModule, FashionMNISTDataModule, CMNISTDataModule])
def test_every_data_module_is_made_from_yaml_and_describes_itself(module):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    options = "{seed: 3, val_size: 7, batch_size: 5, randomize_labels: true, num_workers: 1}"
    config = parser.parse_args([f"--data={{class_path: {module.__module__}.{module.__name__}, init_args: {options}}}"])
    data = parser.instantiate_classes(config).data
    assert isinstance(data, module)
    assert (data.seed, data.val_size, data.batch_size, data.num_workers) == (3, 7, 5, 1)
    assert data.num_classes == len(data.class_names) == 10
    assert not data.hparams  # a checkpoint stays plain


def test_the_base_class_is_abstract():
    assert issubclass(ImageDataModule, LightningDataModule)
    with pytest.raises(TypeError, match="abstract"):
        ImageDataModule()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"`batch_size` must be at least 1, got 0"),
        ({"num_workers": -1}, r"`num_workers` must be at least 0, got -1"),
        ({"val_size": 0}, r"`val_size` must be at least 1, got 0: .* pass `limit_val_batches: 0`"),
        ({"mean": [0.1, 0.2]}, r"`mean` must have one value for each channel, 1 in all, got \[0.1, 0.2\]"),
        ({"std": []}, r"`std` must have one value for each channel, 1 in all, got \[\]"),
        ({"std": [0.0]}, r"`std` must be finite and positive, got \[0.0\]"),
        ({"std": [-1.0]}, r"`std` must be finite and positive, got \[-1.0\]"),
        ({"mean": [float("nan")]}, r"`mean` must be finite, got \[nan\]"),
        ({"image_size": 7}, r"`image_size` must be at least 8, the size of the scans, got 7"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(**options)


def test_a_validation_set_that_leaves_no_training_samples():
    with pytest.raises(ValueError, match=r"`val_size` must leave training samples: .* 1442, .* got 1442"):
        DigitsDataModule(val_size=1442).setup("fit")


def test_torchvision_still_looks_where_we_look():
    for dataset in (datasets.MNIST, datasets.FashionMNIST):
        assert [Path(name).suffix for name, _ in dataset.resources] == [".gz"] * 4
