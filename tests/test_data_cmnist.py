"""CMNIST against a slow transcription of its construction, and the laws of its random parts."""

import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import datasets
from torchvision.transforms import InterpolationMode, functional as transforms

from lightning_xai.data import CMNISTDataModule, cmnist
from lightning_xai.data.backgrounds import (
    Backgrounds,
    cifar10_backgrounds,
    embedded_backgrounds,
    folder_backgrounds,
    integers,
)
from lightning_xai.data.base import ImageSource
from lightning_xai.data.digits import load_embedded_digits
from lightning_xai.functional.random import fold_in, root_keys, standard_normal, uniform

REAL = Path(os.environ.get("LIGHTNING_XAI_DATA", Path(__file__).parents[2] / "shared" / "data"))


def small(**options):
    sizes = {"num_train": 60, "num_test": 20, "val_size": 10}
    return CMNISTDataModule(**({"digits": "embedded", "backgrounds": "embedded"} | sizes | options))


def blank_digits(number):
    """Digits without ink: what remains is the background and the noise."""
    return ImageSource(torch.zeros(number, 1, 28, 28, dtype=torch.uint8), torch.arange(number) % 10, {})


def gray_backgrounds(levels, labels):
    images = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).contiguous()
    return Backgrounds(images, torch.tensor(labels))


def nearest_level(images, levels):
    means = images.float().mean((1, 2, 3))
    return (means[:, None] - torch.tensor(levels)).abs().argmin(1)


def save(path, color=(10, 20, 30), size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


# The construction


def transcribe(digit, backgrounds, seed, split_number, index):
    """One sample, pixel by pixel: papers' text, torchvision's resizing and rotation, this package's random numbers."""
    key = fold_in(root_keys(seed, torch.tensor([index])), split_number)
    turn, top, left, kind, picture, precision = uniform(fold_in(key, 0), (6,))[0].double().tolist()
    shape = (3, 32, 32)
    noise = standard_normal(fold_in(key, 1), shape)[0].tolist()
    resized = transforms.resize(digit / 255, [16, 16], InterpolationMode.BILINEAR, antialias=True)
    rotated = transforms.rotate(resized, -15 + 30 * turn, InterpolationMode.BILINEAR)[0].tolist()
    names = sorted(set(backgrounds.labels.tolist()))
    pool = [i for i, k in enumerate(backgrounds.labels.tolist()) if k == names[math.floor(kind * len(names))]]
    scene = (backgrounds.images[pool[math.floor(picture * len(pool))]].double() / 255).tolist()
    y, x = math.floor(top * 17), math.floor(left * 17)
    std = 1 / (10 + 20 * precision)
    image, box, ink = np.zeros(shape, np.uint8), np.zeros((32, 32), bool), np.zeros((32, 32), bool)
    for row, column in np.ndindex(32, 32):
        box[row, column] = y <= row < y + 16 and x <= column < x + 16
        value = rotated[row - y][column - x] if box[row, column] else 0.0
        ink[row, column] = value > 0.05
        for channel in range(3):
            pixel = scene[channel][row][column]
            pixel = 0.1 * pixel + 0.9 * value if ink[row, column] else pixel
            pixel = min(max(pixel + std * noise[channel][row][column], 0.0), 1.0)
            image[channel, row, column] = round(255 * pixel)
    return image, box, ink


@pytest.mark.parametrize(("split", "number"), [("train", 0), ("test", 1)])
def test_samples_equal_the_slow_transcription(split, number):
    digits, backgrounds = load_embedded_digits(split), embedded_backgrounds(split)
    source = small(seed=5, num_test=20, num_train=20).load(split)
    for index in range(20):
        image, box, ink = transcribe(digits.images[index], backgrounds, 5, number, index)
        assert np.abs(source.images[index].numpy() - image.astype(int)).max() <= 1  # float32 against float64
        assert np.array_equal(source.masks["box"][index].numpy(), box)
        assert np.array_equal(source.masks["digit"][index].numpy(), ink)
    assert torch.equal(source.labels, digits.labels[:20])


def test_a_quarter_turn_is_counter_clockwise_and_exact():
    images = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        cmnist.rotate(images, torch.full((3,), 90.0)), images.rot90(1, (2, 3)), rtol=0, atol=1e-5
    )
    assert torch.equal(cmnist.rotate(images, torch.zeros(3)), images)


def test_every_row_has_its_own_angle():
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([-15.0, 3.0, 0.1, 44.0])
    expected = [transforms.rotate(i, a.item(), InterpolationMode.BILINEAR) for i, a in zip(images, angles, strict=True)]
    torch.testing.assert_close(cmnist.rotate(images, angles), torch.stack(expected), rtol=0, atol=1e-5)


def test_ink_covers_nine_tenths_and_faint_ink_nothing():
    canvas = torch.tensor([0.0, 0.05, 0.051, 1.0]).view(1, 1, 1, 4)
    backgrounds = torch.full((1, 3, 1, 4), 100, dtype=torch.uint8)
    composed = cmnist.compose(canvas, backgrounds, torch.zeros(1, 3, 1, 4))
    expected = [100, 100, round(10 + 0.9 * 0.051 * 255), round(10 + 0.9 * 255)]
    assert composed[0].tolist() == [[expected]] * 3


def test_the_box_is_a_quarter_of_the_image_and_holds_the_ink():
    source = small(num_train=500).load("train")
    assert (source.masks["box"].sum((1, 2)) == 256).all()
    assert not (source.masks["digit"] & ~source.masks["box"]).any()
    assert source.masks["digit"].any((1, 2)).all()


def test_all_places_are_equally_likely():
    images = blank_digits(4000)
    box = cmnist.build(images, gray_backgrounds([0], [0]), 0, "train", 4000).masks["box"]
    for axis in (1, 2):
        corner = box.any(3 - axis).int().argmax(1)
        assert stats.chisquare(corner.bincount(minlength=17)).pvalue > 1e-3
        assert corner.max() == 16


def test_pixel_noise_has_one_strength_an_image_with_uniform_precision():
    images = cmnist.build(blank_digits(1000), gray_backgrounds([128], [0]), 0, "train", 1000).images
    noise = images.double() / 255 - 128 / 255
    precision = 1 / noise.std((1, 2, 3))
    assert stats.kstest((precision - 10) / 20, "uniform").pvalue > 1e-3
    standard = noise * precision.view(-1, 1, 1, 1)
    assert abs(standard.mean()) < 5 / math.sqrt(standard.numel())
    assert stats.kurtosis(standard.flatten()) == pytest.approx(0, abs=0.01)  # Gaussian; one strength for all would mix
    red, green = standard[:, 0].flatten(), standard[:, 1].flatten()
    assert abs(torch.corrcoef(torch.stack([red, green]))[0, 1]) < 5 / math.sqrt(len(red))


# Backgrounds carry no evidence


def test_background_classes_are_uniform_and_independent_of_the_digit():
    levels, labels = [0, 50, 100, 150, 200, 250], [0, 1, 1, 1, 2, 2]
    source = cmnist.build(blank_digits(6000), gray_backgrounds(levels, labels), 0, "train", 6000)
    picture = nearest_level(source.images, levels)
    kind = torch.tensor(labels)[picture]
    assert stats.chisquare(kind.bincount()).pvalue > 1e-3
    for members in ([1, 2, 3], [4, 5]):
        assert stats.chisquare(picture.bincount()[members]).pvalue > 1e-3
    table = np.zeros((3, 10))
    np.add.at(table, (kind.numpy(), source.labels.numpy()), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_draw_just_below_one_is_still_in_range():
    draws = torch.tensor([0.0, 1 - 2**-24])
    for stop in (1, 17, 50000):
        assert integers(draws, stop).tolist() == [0, stop - 1]


# Determinism


def test_a_sample_does_not_depend_on_how_many_are_built_or_in_which_chunks(monkeypatch):
    many = small(num_train=300).load("train")
    monkeypatch.setattr(cmnist, "_CHUNK", 7)
    few = small(num_train=40).load("train")
    assert torch.equal(few.images, many.images[:40])
    assert all(torch.equal(few.masks[name], many.masks[name][:40]) for name in ("box", "digit"))


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    small().setup()
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_and_splits_give_different_images():
    digits, backgrounds = blank_digits(10), gray_backgrounds([128], [0])
    images = [
        cmnist.build(digits, backgrounds, seed, split, 10).images for seed in (0, 1) for split in ("train", "test")
    ]
    assert len({image.numpy().tobytes() for batch in images for image in batch}) == 40


# Embedded photographs


def test_embedded_crops_to_train_and_test_with_share_no_pixel(monkeypatch):
    place = torch.arange(160 * 200).view(160, 200)
    numbers = torch.stack([place % 256, place // 256, torch.zeros_like(place)]).to(torch.uint8)
    monkeypatch.setattr("lightning_xai.data.backgrounds._photograph", lambda package, name: numbers)
    seen = []
    for split in ("train", "test"):
        images = embedded_backgrounds(split).images.long()
        seen.append(set((images[:, 0] + 256 * images[:, 1]).flatten().tolist()))
    assert not seen[0] & seen[1]


def test_embedded_backgrounds_are_ten_photographs_with_many_crops():
    for split, fewest in (("train", 500), ("test", 60)):
        backgrounds = embedded_backgrounds(split)
        counts = backgrounds.labels.bincount()
        assert backgrounds.images.shape[1:] == (3, 32, 32)
        assert len(counts) == 10
        assert counts.min() >= fewest
        contrast = backgrounds.images.float().std((1, 2, 3))
        assert contrast.median() > 25  # a crop shows something


# Folders of images


def test_a_folder_with_train_and_test_is_read_by_class(tmp_path):
    for split, level in (("train", 0), ("test", 100)):
        for kind in range(3):
            for number in range(2):
                save(tmp_path / split / f"class{kind}" / f"{number}.png", (level + 10 * kind + number, 0, 0))
    for split, level in (("train", 0), ("test", 100)):
        backgrounds = folder_backgrounds(tmp_path, split)
        assert backgrounds.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert (backgrounds.images[:, 0, 5, 5] - level).tolist() == [0, 1, 10, 11, 20, 21]


@pytest.mark.parametrize("folder", ["", "only/deeper"])
def test_a_folder_without_splits_is_divided_and_nothing_is_lost(tmp_path, folder):
    for number in range(12):
        save(tmp_path / folder / f"{number:02}.png", (number, 0, 0))
    train, test = (folder_backgrounds(tmp_path, split) for split in ("train", "test"))
    assert test.images[:, 0, 0, 0].tolist() == [1, 6, 11]
    assert train.images[:, 0, 0, 0].tolist() == [0, 2, 3, 4, 5, 7, 8, 9, 10]
    assert train.labels.unique().tolist() == [0]


def test_other_sizes_and_modes_become_the_center_square(tmp_path):
    pixels = np.zeros((64, 128), np.uint8)
    pixels[:, 32:96] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    save(tmp_path / "b.jpg")
    image = folder_backgrounds(tmp_path, "train").images[0]
    assert (image[:, :, 2:-2] == 200).all()


def test_files_that_are_no_images_are_passed_over(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert len(folder_backgrounds(tmp_path, "train").images) == 1


@pytest.mark.parametrize("content", [b"", b"no image", b"half of a real one"])
def test_a_corrupt_image_is_named(tmp_path, content):
    save(tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[:5000] if content.startswith(b"half") else content)
    with pytest.raises(ValueError, match=r"bad\.png in `backgrounds` cannot be read .* replace or delete it"):
        folder_backgrounds(tmp_path, "train")


def test_all_bad_images_are_named_at_once(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=r"2 of 2 images in `backgrounds` cannot be read(.|\n)*a.png: it is empty(.|\n)*c"
    ):
        folder_backgrounds(tmp_path, "train")


def test_backgrounds_of_16_bits_are_as_bright_as_of_8(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray(gray).save(tmp_path / "b.png")
    deep, shallow = (folder_backgrounds(tmp_path, split).images for split in ("train", "test"))
    torch.testing.assert_close(deep, shallow)


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"`backgrounds` must hold images \(.apng, .* none for the train split in"):
        small(backgrounds=str(tmp_path)).load("train")
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"at least two where .* none for the test split in"):
        small(backgrounds=str(tmp_path)).load("test")


def test_a_folder_with_one_split_only_is_an_error(tmp_path):
    save(tmp_path / "train" / "a.png")
    with pytest.raises(ValueError, match=r"both `train` and `test` as subfolders, or neither: found only train"):
        small(backgrounds=str(tmp_path)).load("test")


@pytest.mark.skipif(not (REAL / "cifar10_images").is_dir(), reason=f"no cifar10_images in {REAL}")
def test_real_backgrounds_are_read():
    backgrounds = folder_backgrounds(REAL / "cifar10_images", "test")
    assert backgrounds.labels.bincount().tolist() == [200] * 10


# CIFAR-10 through torchvision


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """A small CIFAR-10 in the published layout; file sums are not checked."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("data_batch_1", "test_batch"):
        data = random.integers(0, 256, (40, 3072), dtype=np.uint8)
        labels = random.permutation(np.arange(40) % 10).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return tmp_path


def test_cifar10_is_sorted_by_class_and_otherwise_torchvisions(cifar_root):
    backgrounds = cifar10_backgrounds(str(cifar_root), "train")
    assert backgrounds.labels.tolist() == torch.arange(10).repeat_interleave(4).tolist()
    reference = datasets.CIFAR10(cifar_root)
    expected = {(image.tobytes(), label) for image, label in zip(reference.data, reference.targets, strict=True)}
    found = zip(backgrounds.images.permute(0, 2, 3, 1), backgrounds.labels.tolist(), strict=True)
    assert {(image.numpy().tobytes(), label) for image, label in found} == expected


def test_cifar10_on_disk_is_not_downloaded(cifar_root, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", None)
    data = small(root=str(cifar_root), backgrounds="cifar10")
    data.prepare_data()
    data.setup()
    assert len(data.train_dataloader().dataset) == 50


@pytest.mark.parametrize("download", [True, False])
def test_missing_cifar10_is_one_clear_error(tmp_path, monkeypatch, download):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    data = small(root=str(tmp_path), backgrounds="cifar10", download=download)
    with pytest.raises(
        FileNotFoundError, match=r"CIFAR10 needs .*cifar-10-batches-py .*`backgrounds: embedded`"
    ) as caught:
        data.prepare_data()
    assert ("no route to host" in str(caught.value)) == download


def test_missing_mnist_offers_the_embedded_digits(tmp_path):
    data = CMNISTDataModule(root=str(tmp_path), backgrounds="embedded", download=False)
    with pytest.raises(FileNotFoundError, match=r"MNIST needs .* Without any download: `digits: embedded`"):
        data.prepare_data()


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": "svhn"}, r"`digits` must be 'mnist' or 'embedded', got 'svhn'"),
        ({"backgrounds": "cifar"}, r"`backgrounds` must be 'cifar10', 'embedded' or the path .* got 'cifar'"),
        ({"num_train": 0}, r"`num_train` must be at least 1, got 0"),
        ({"num_test": -5}, r"`num_test` must be at least 1, got -5"),
        ({"mean": [0.5]}, r"`mean` must have one value for each channel, 3 in all, got \[0.5\]"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_more_samples_than_digits_are_refused():
    with pytest.raises(ValueError, match=r"`num_train` must be at most 1442, the number of digits, got 1443"):
        small(num_train=1443).setup("fit")


@pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason=f"no MNIST in {REAL}")
def test_mnist_digits_are_pasted_in_their_order():
    data = small(root=str(REAL), download=False, digits="mnist", num_train=50)
    data.prepare_data()
    labels = datasets.MNIST(REAL).targets[:50]
    assert torch.equal(data.load("train").labels, labels)
