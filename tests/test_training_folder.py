"""Training on one's own pictures: which are trained on, what augmentation and masks become, and what is refused."""

import json
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from PIL import Image
from pytorch_lightning import Trainer
from torch import nn
from torch.testing import assert_close
from torchvision.transforms import v2

from lightning_xai.callbacks import AttributionCallback
from lightning_xai.cli import main
from lightning_xai.data import ImageFolderDataModule, TrainingFolderDataModule
from lightning_xai.data.picture_masks import _polygons, mask_readers, read_mask
from lightning_xai.experiments.pictures import Preparation
from lightning_xai.modules import ClassifierModule

ROOT = Path(__file__).parent.parent
SMALL = {"image_size": 8, "resize_size": 8, "mean": [0.0] * 3, "std": [1.0] * 3}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # between Lightning and jsonargparse
]


def save(path, seed=0, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def flat(tmp_path):
    """Six cats and four dogs in a folder a class."""
    for number in range(10):
        save(tmp_path / ("cat" if number < 6 else "dog") / f"{number}.png", number)
    return tmp_path


@pytest.fixture
def split(tmp_path):
    for number, name in enumerate(
        ("train/cat/a", "train/cat/b", "train/dog/c", "val/dog/d", "val/cat/e", "test/dog/f")
    ):
        save(tmp_path / f"{name}.png", number)
    return tmp_path


def data_of(root, **options):
    data = TrainingFolderDataModule(str(root), **(SMALL | options))
    data.prepare_data()
    data.setup()
    return data


def seen(loader, name):
    return torch.cat([batch[name] for batch in loader]).tolist()


# Which pictures


def test_a_folder_a_class_is_divided_in_proportion_and_by_the_seed_alone(flat):
    data = data_of(flat, val_size=5, batch_size=3)
    train, val = seen(data.train_dataloader(), "index"), seen(data.val_dataloader(), "index")
    assert sorted(train + val) == list(range(10))
    assert (sorted(seen(data.val_dataloader(), "label")), data.class_names) == ([0, 0, 0, 1, 1], ("cat", "dog"))
    assert seen(data_of(flat, val_size=5).val_dataloader(), "index") == val
    assert seen(data_of(flat, val_size=5, seed=1).val_dataloader(), "index") != val
    assert seen(data.test_dataloader(), "index") == val
    assert len(data_of(flat).val_dataloader().dataset) == 2, "a fifth"


def test_folders_to_train_validate_and_test(split):
    data = data_of(split)
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert [sorted(seen(loader, "label")) for loader in loaders] == [[0, 0, 1], [0, 1], [1]]
    assert [sorted(seen(loader, "index")) for loader in loaders] == [[0, 1, 2], [0, 1], [0]]
    expected = torch.stack(
        [data.preprocessing(Image.open(split / "val" / name)) for name in ("cat/e.png", "dog/d.png")]
    )
    assert_close(next(iter(data.val_dataloader()))["image"], expected, rtol=0, atol=0)


def test_train_without_val_is_divided_too(split):
    for path in (split / "val").rglob("*.png"):
        path.unlink()
    for path in [*(split / "val").iterdir(), split / "val"]:
        path.rmdir()
    data = data_of(split)
    assert len(data.train_dataloader().dataset), len(data.val_dataloader().dataset) == (2, 1)
    assert seen(data.test_dataloader(), "label") == [1]


def test_augmentation_is_of_the_training_pictures_alone(flat):
    class Black(nn.Module):
        def forward(self, picture):
            return Image.new("RGB", picture.size)

    data = data_of(flat, augment=[Black()])
    assert all((batch["image"] == 0).all() for batch in data.train_dataloader())
    assert all((batch["image"] > 0).any() for batch in data.val_dataloader())


def test_what_an_augmentation_makes_of_the_networks_size_is_only_normalized(flat):
    data = data_of(flat, augment=[v2.CenterCrop(8)], resize_size=10)
    item = data.train_dataloader().dataset[0]
    path = sorted(flat.rglob("*.png"))[item["index"]]
    expected = torch.from_numpy(np.array(v2.CenterCrop(8)(Image.open(path)))).permute(2, 0, 1) / 255
    assert_close(item["image"], expected, rtol=0, atol=0)
    other = data_of(flat, augment=[v2.Resize((30, 40)), v2.PILToTensor()]).train_dataloader().dataset[0]
    assert_close(other["image"], data.preprocessing(v2.Resize((30, 40))(Image.open(path))), atol=0.5, rtol=0)


# Masks


def test_masks_go_with_the_pictures_that_are_validated_on(flat):
    for path in sorted(flat.rglob("*.png")):
        mask = np.zeros((10, 12), np.uint8)
        mask[:, int(path.stem) :] = 255
        (flat / "masks" / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(flat / "masks" / path.parent.name / path.name)
    data = data_of(flat, masks="masks", val_size=4)
    assert data.class_names == ("cat", "dog")
    assert all("mask" not in batch for batch in data.train_dataloader())
    (batch,) = data.val_dataloader()
    order = [int(path.stem) for path in sorted(flat.glob("[cd]*/*.png"))]
    for index, found in zip(batch["index"].tolist(), batch["mask"]["object"], strict=True):
        mask = np.zeros((10, 12), bool)
        mask[:, order[index] :] = True
        assert torch.equal(found, data.preprocessing.mask(mask))


SHAPE = np.arange(120).reshape(10, 12) % 7 < 3


@pytest.mark.parametrize(
    "values",
    [SHAPE, SHAPE.astype(np.uint8), SHAPE * np.uint8(255), SHAPE * 0.75, SHAPE[None] * np.float32(1), SHAPE[..., None]],
    ids=["bool", "0 and 1", "0 and 255", "float", "(1, H, W)", "(H, W, 1)"],
)
def test_the_usual_kinds_of_masks(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    assert np.array_equal(read_mask(tmp_path / "mask.npy")["object"], SHAPE)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "I;16"])
def test_masks_in_pictures(tmp_path, mode):
    image = Image.fromarray(SHAPE * np.uint8(255))
    image = Image.fromarray(SHAPE * np.uint16(65535)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png")["object"], SHAPE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(6).reshape(2, 3), r"must have two values, 0 and another one; it has \[0, 1, 2\], ...: of a segment"),
        (np.array([[1, 2]]), "must have two values"),
        (np.array([[0.0, 1.5]]), "must have numbers from 0 to 1"),
        (np.array([[0.0, np.nan]]), "must have numbers from 0 to 1"),
        (np.arange(24).reshape(2, 3, 4) % 2, r"of shape \(H, W\) or \(1, H, W\), is of \(2, 3, 4\)"),
        (np.array([{}]), r"cannot be read \(Object arrays cannot be loaded"),
    ],
)
def test_what_is_no_mask(tmp_path, values, message):
    np.save(tmp_path / "mask.npy", values)
    with pytest.raises(ValueError, match=message):
        read_mask(tmp_path / "mask.npy")


def coco(*annotations, images=None, categories=("cat", "dog")):
    return {
        "images": images or [{"id": 1, "file_name": "cat/0.png", "height": 10, "width": 12}],
        "categories": [{"id": place, "name": name} for place, name in enumerate(categories)],
        "annotations": [
            {"image_id": 1, "category_id": category, "segmentation": shape} for category, shape in annotations
        ],
    }


def coco_mask(folder, content):
    (folder / "instances.json").write_text(json.dumps(content))
    (reader,) = mask_readers(folder / "instances.json", folder, [(folder / "cat" / "0.png", "cat")])
    return reader()["object"]


def box(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def test_cocos_polygons_are_of_the_pictures_class_where_it_is_a_category(flat):
    expected = np.zeros((10, 12), bool)
    expected[1:4, 2:7] = expected[8:10, 0:3] = True
    shapes = [(0, [box(2, 1, 7, 4)]), (0, [box(0, 8, 3, 10)]), (1, [box(0, 0, 12, 10)])]
    assert np.array_equal(coco_mask(flat, coco(*shapes)), expected)
    assert coco_mask(flat, coco(*shapes, categories=("lesion", "scar"))).all()
    assert not coco_mask(flat, coco(shapes[2])).any()
    runs = {"counts": [23, 4, 93], "size": [10, 12]}  # down the columns: rows 3 to 6 of column 2
    expected[:] = False
    expected[3:7, 2] = True
    assert np.array_equal(coco_mask(flat, coco((0, runs))), expected)


def test_a_pixel_is_in_a_polygon_if_its_center_is():
    corners = np.random.default_rng(0).uniform(0, 20, (5, 6, 2))
    across, down = np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5)
    centers = np.stack([across.ravel(), down.ravel()], 1)
    for polygon in corners:
        middle = polygon.mean(0)
        polygon = polygon[np.argsort(np.arctan2(*(polygon - middle).T))]  # without crossings
        expected = Outline(polygon).contains_points(centers).reshape(20, 20)
        assert np.array_equal(_polygons([polygon.ravel().tolist()], (20, 20)), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, r"`masks`: .*instances.json must be a folder, or a file in COCO's format .*KeyError: 'annot"),
        (coco(images=[{"id": 1, "file_name": "x.png"}]), r"1 of 1 pictures have none, or two: .*0.png"),
        (coco((0, {"counts": "abc", "size": [10, 12]})), r"annotations of .*0.png must be polygons, or counts of pix"),
        (coco((0, [[1, 2, 3]])), r"annotations of .*0.png must be polygons"),
    ],
)
def test_damaged_annotations(flat, content, message):
    with pytest.raises(ValueError, match=message):
        coco_mask(flat, content)


def test_a_finished_networks_pictures_have_masks_too(flat, tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    for path in flat.rglob("*.png"):
        (masks / path.parent.name).mkdir(exist_ok=True)
        np.save(masks / path.parent.name / path.stem, np.ones((10, 12), bool) * (path.stem == "3"))
    data = ImageFolderDataModule(str(flat), masks=str(masks), **SMALL)
    data.setup()
    (batch,) = data.test_dataloader()
    assert batch["mask"]["object"].flatten(1).all(1).tolist() == [index == 3 for index in range(10)]
    np.save(masks / "cat" / "2", np.ones((10, 13), bool))
    with pytest.raises(ValueError, match=r"the mask of .*2.png must be of shape \(10, 12\), is of \(10, 13\)"):
        list(data.test_dataloader())
    with pytest.raises(ValueError, match="`masks` must not be in `root`"):
        ImageFolderDataModule(str(flat), masks=str(flat / "cat"))


def test_a_trained_network_explains_pictures_as_they_were_prepared(flat):
    data, network = data_of(flat), nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    prepared = Preparation.of(ClassifierModule(network), data)
    assert_close(
        prepared.inputs(Image.open(flat / "cat" / "0.png")), data.preprocessing(Image.open(flat / "cat/0.png"))
    )
    assert prepared.class_names == ("cat", "dog")
    named = Preparation.of(
        ClassifierModule("resnet18", num_classes=2), TrainingFolderDataModule(str(flat), image_size=9)
    )
    assert (named.settings["image_size"], named.settings["mean"]) == ("9", "(0.485, 0.456, 0.406)")


# What is refused before anything is trained


def test_all_that_cannot_be_used_is_named_before_any_work(flat):
    (flat / "cat" / "1.png").write_bytes(b"no picture")
    masks = {"id": 1, "height": 10, "width": 12}
    images = [{**masks, "id": n, "file_name": f"{n}.png"} for n in range(10)]
    images = [{**image, "height": 11} for image in images]
    (flat / "instances.json").write_text(json.dumps(coco(images=images)))
    data = TrainingFolderDataModule(str(flat), val_size=8, masks="instances.json", **SMALL)
    with pytest.raises(ValueError, match=r"`root`: [89] of 10 pictures cannot be used:") as refused:
        data.prepare_data()
    assert "1.png: it is no picture in a format that is read" in str(refused.value)
    assert "png: it is of 12 x 10 pixels, its mask of 12 x 11" in str(refused.value)
    data = TrainingFolderDataModule(str(flat), check=False, **SMALL)
    data.prepare_data()


@pytest.fixture
def no_type_checker(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["cat/a"], {}, r"at least two classes, to tell them apart; there is cat in"),
        ([], {}, r"at least two classes, .*there is none in"),
        (["train/cat/a", "train/dog/b", "valid/cat/c"], {}, r"`train`, `val` and .*there are train, valid in"),
        (["val/cat/a", "val/dog/b"], {}, r"`root` must have the folders `train`, `val` .*there are val in"),
        (["train/cat/a", "train/dog/b", "val/cow/c"], {}, r"`root`: val has classes that are not trained on: cow"),
        (
            ["train/cat/a", "train/dog/b", "val/cat/c"],
            {"val_size": 1},
            "`val_size` must be null where `root` has the f",
        ),
        (["cat/a", "dog/b", "cow/"], {}, r"the class 'cow' has no picture to train on, in .*cow"),
        (["cat/a", "dog/b", "c"], {}, r"`root`: .*c.png must be in folders, one a class"),
        (["cat/a", "dog/b"], {}, r"`val_size`: of 2 pictures 1 to validate with leave none to train on of (cat|dog)"),
        (
            ["cat/a", "dog/b", "cat/c", "dog/d"],
            {"masks": "none"},
            r"`masks`: .*none must be a folder, or a file in COCO's format",
        ),
        (["train/cat/a", "train/dog/b", "val/"], {}, r"`root`: there is no picture in .*val"),
        (
            ["cat/a", "dog/b", "cat/c", "dog/d"],
            {"augment": [v2.ToImage(), v2.ToDtype(torch.float32)]},
            r"got torch.flo",
        ),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path, no_type_checker, names, options, message):
    for number, name in enumerate(names):
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            save(tmp_path / f"{name}.png", number)
    with pytest.raises((TypeError, ValueError), match=message):
        data_of(tmp_path, **options)
    with pytest.raises(ValueError, match=r"`root` must be a folder of pictures; .*nowhere is none"):
        TrainingFolderDataModule(str(tmp_path / "nowhere"))


def test_pictures_without_masks_are_named(flat):
    (flat / "masks").mkdir()
    with pytest.raises(ValueError, match=r"one mask a picture, .*; 2 of 2 pictures have none, or two: .*png"):
        data_of(flat, masks="masks")


class Untrained(ClassifierModule):
    def training_step(self, batch, batch_idx):
        raise AssertionError("training has begun")


def test_a_network_with_other_outputs_is_refused_before_training(flat):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match="has 3 outputs, but the data have 2 classes: set its `num_classes` to 2"):
        trainer.fit(Untrained(network), TrainingFolderDataModule(str(flat), **SMALL))


# Running it


@pytest.mark.slow
def test_the_carried_config_trains_tests_and_explains_with_masks(flat, tmp_path_factory, monkeypatch, capsys):
    tmp_path = tmp_path_factory.mktemp("run")
    images = [{"id": n, "file_name": f"{n}.png", "height": 10, "width": 12} for n in range(10)]
    (flat / "instances.json").write_text(json.dumps(coco((0, [box(2, 1, 7, 4)]), images=images)))
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)
    options = [
        f"--data.root={flat}",
        "--data.masks=instances.json",
        "--data.image_size=32",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.callbacks.init_args.every_n_epochs=1",
        "--trainer.callbacks.init_args.methods=[gradient]",
    ]
    main(["fit", "--config=image_folder", *options])
    run = tmp_path / "runs" / "image_folder" / "version_0"
    printed = capsys.readouterr().out
    assert "relevance rank accuracy" in printed
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["network.fc.weight"].shape == (2, 512)
    main(["test", "--config=image_folder", *options, f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert "test/accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_transformer_of_timm_trains_on_a_folder_and_learns_it(tmp_path):
    pytest.importorskip("timm")
    for number in range(16):
        path = tmp_path / ("dark" if number % 2 else "bright") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), (40 if number % 2 else 210,) * 3).save(path)
    callback = AttributionCallback(["saliency"], num_samples=2)
    trainer = Trainer(
        max_epochs=5, logger=False, enable_checkpointing=False, default_root_dir=tmp_path / "run", callbacks=[callback]
    )
    model = ClassifierModule("timm/test_vit", optimizer=lambda parameters: torch.optim.Adam(parameters, 1e-3))
    trainer.fit(model, datamodule=TrainingFolderDataModule(str(tmp_path), batch_size=4))
    assert trainer.callback_metrics["val/accuracy"] == 1
    assert model.preprocessing.image_size == callback.evaluation.images.shape[-1] == 160
