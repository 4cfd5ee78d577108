"""Pictures on disk: which are found, what their labels are, what becomes of them, and what is refused."""

import os

import jaxtyping
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch.testing import assert_close
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet18_Weights

from lightning_xai.data import ImageFolderDataModule, ImageNetDataModule, PhotographsDataModule, VOCDataModule
from lightning_xai.data.image_folder import class_indices, picture_paths
from lightning_xai.data.preprocessing import Preprocessing, changed
from lightning_xai.data.voc import VOC_CLASSES

NAMES = ("tabby", "Egyptian cat", "coffee mug", "crane", "crane")
SMALL = {"image_size": 4, "resize_size": 4}


def pixels(seed=0, size=(6, 4)):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def save(path, picture=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(len(path.name)) if picture is None else picture).save(path, **options)


def batches(data, class_names=None):
    data._pictures = data.find_pictures(class_names)
    return list(data.test_dataloader())


# Folders


def test_pictures_are_in_the_order_of_their_paths_and_numbered(tmp_path):
    for name in ("b.png", "a/2.jpeg", "a/1.webp", "c.PNG"):
        save(tmp_path / name, np.full((4, 4, 3), len(name), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    save(tmp_path / ".thumbnails" / "a.png")
    data = ImageFolderDataModule(str(tmp_path), labeled=False, batch_size=3, **SMALL)
    first, second = batches(data)
    assert [picture.path.name for picture in data._pictures] == ["1.webp", "2.jpeg", "b.png", "c.PNG"]
    assert torch.cat([first["index"], second["index"]]).tolist() == [0, 1, 2, 3]
    assert first.keys() == {"image", "index"}
    assert first["image"].shape == (3, *data.image_shape)
    assert data.class_names is None
    assert data.num_classes is None


def test_flat_folders_have_no_labels_and_folders_of_folders_have(tmp_path):
    save(tmp_path / "flat" / "a.png")
    save(tmp_path / "classes" / "tabby" / "a.png")
    assert "label" not in batches(ImageFolderDataModule(str(tmp_path / "flat"), **SMALL))[0]
    assert "label" in batches(ImageFolderDataModule(str(tmp_path / "classes"), **SMALL))[0]


def test_labels_are_indices_of_the_networks_classes(tmp_path):
    for name in ("coffee_mug/x.png", "EGYPTIAN-CAT/deeper/x.png", "tabby/x.png"):
        save(tmp_path / name)
    data = ImageFolderDataModule(str(tmp_path), **SMALL)
    (batch,) = batches(data, NAMES)
    assert batch["label"].tolist() == [1, 2, 0]
    assert batch["label"].dtype == torch.int64
    assert (data.class_names, data.num_classes) == (NAMES, 5)
    (batch,) = batches(ImageFolderDataModule(str(tmp_path), class_names=["tabby", *NAMES[:0:-1]], **SMALL), NAMES)
    assert batch["label"].tolist() == [4, 3, 0]


def test_without_names_labels_are_torchvisions(tmp_path):
    for name in ("zebra/x.png", "ant/x.png", "Bee/x.png"):
        save(tmp_path / name)
    (batch,) = batches(ImageFolderDataModule(str(tmp_path), **SMALL))
    reference = ImageFolder(tmp_path)
    assert batch["label"].tolist() == reference.targets
    assert batches(data := ImageFolderDataModule(str(tmp_path), **SMALL))
    assert list(data.class_names) == reference.classes


def test_a_subfolder_without_pictures_is_a_class_too(tmp_path):
    """Or else the labels of those behind it would be another's."""
    (tmp_path / "bee").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("zebra/x.png", "ant/x.png"):
        save(tmp_path / name)
    (batch,) = batches(data := ImageFolderDataModule(str(tmp_path), **SMALL))
    assert (batch["label"].tolist(), data.class_names) == ([0, 2], ("ant", "bee", "zebra"))


def test_a_class_may_be_a_link(tmp_path):
    save(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "tabby").symlink_to(tmp_path / "elsewhere")
    (batch,) = batches(ImageFolderDataModule(str(tmp_path / "root"), **SMALL), NAMES)
    assert batch["label"].tolist() == [0]


@pytest.mark.parametrize("size", [(300, 260), (250, 400), (100, 90), (224, 224)])
def test_images_are_prepared_as_torchvision_does(tmp_path, size):
    save(tmp_path / "a.png", pixels(1, size))
    (batch,) = batches(ImageFolderDataModule(str(tmp_path)))
    expected = ResNet18_Weights.DEFAULT.transforms()(Image.open(tmp_path / "a.png"))
    assert_close(batch["image"][0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(pixels()).convert(mode).save(path)
    (batch,) = batches(ImageFolderDataModule(str(tmp_path), **SMALL))
    assert batch["image"].shape == (1, 3, 4, 4)


def test_pictures_are_turned_upright(tmp_path):
    image = Image.fromarray(pixels(size=(4, 4)))
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise
    image.save(tmp_path / "a.png", exif=exif)
    image.rotate(-90).save(tmp_path / "b.png")
    (batch,) = batches(ImageFolderDataModule(str(tmp_path), **SMALL))
    assert_close(batch["image"][0], batch["image"][1], rtol=0, atol=0)


def test_all_bad_pictures_are_named_at_once(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "d.jpg").touch()
    with pytest.raises(ValueError, match=r"^2 of 4 pictures cannot be used:") as refused:
        batches(ImageFolderDataModule(str(tmp_path), **SMALL))
    assert "b.png: it is no picture" in str(refused.value)
    assert "d.jpg: it is empty; replace it" in str(refused.value)


def test_what_is_passed_over_and_what_is_there_twice_is_told(tmp_path, caplog):
    save(tmp_path / "ant" / "a.png")
    save(tmp_path / "bee" / "b.png", pixels(7))
    (tmp_path / "bee" / "copy.png").write_bytes((tmp_path / "ant" / "a.png").read_bytes())
    (tmp_path / "bee" / "c.xcf").touch()
    with caplog.at_level("INFO", logger="pytorch_lightning.utilities.rank_zero"):
        picture_paths(tmp_path)
    assert f"1 files are no pictures by their suffix: {tmp_path}/bee/c.xcf" in caplog.text
    assert f"count as often: {tmp_path}/ant/a.png, {tmp_path}/bee/copy.png" in caplog.text


def test_a_picture_is_read_when_it_is_needed(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    data = ImageFolderDataModule(str(tmp_path), batch_size=1, **SMALL)
    data.setup("test")
    loader = iter(data.predict_dataloader())
    assert next(loader)["index"].tolist() == [0]
    with pytest.raises(
        ValueError, match=r"the picture .*b\.png cannot be used: it is no picture in a format that is read"
    ):
        next(loader)


def test_workers_read_the_same(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", pixels(number))
    alone, helped = (batches(ImageFolderDataModule(str(tmp_path), num_workers=n, **SMALL))[0] for n in (0, 1))
    assert_close(alone["image"], helped["image"], rtol=0, atol=0)


def test_bounds_are_what_black_and_white_become(tmp_path):
    save(tmp_path / "black.png", np.zeros((9, 5, 3), np.uint8))
    save(tmp_path / "white.png", np.full((9, 5, 3), 255, np.uint8))
    data = ImageFolderDataModule(str(tmp_path), mean=[0.1, 0.2, 0.3], std=[0.7, 0.31, 1.3], **SMALL)
    images = batches(data)[0]["image"]
    for image, bound in zip(images, data.bounds, strict=True):
        assert torch.equal(image, bound.expand(3, 4, 4))


# Preprocessing


def test_a_new_image_size_keeps_the_proportion_of_the_crop():
    assert (changed(Preprocessing(), image_size=299).resize_size, changed(Preprocessing(), 299, 320).resize_size) == (
        342,
        320,
    )


def test_the_mask_goes_with_the_picture():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 21:45] = True
    prepare = Preprocessing(20, 40, (0.0,) * 3, (1.0,) * 3)
    image = prepare(Image.fromarray(np.repeat(mask[:, :, None], 3, 2).astype(np.uint8) * 255))
    assert torch.equal(image[0] > 0.5, prepare.mask(mask))
    halved = Preprocessing(10, 20, (0.0,) * 3, (1.0,) * 3)
    image = halved(Image.fromarray(np.repeat(mask[:, :, None], 3, 2).astype(np.uint8) * 255))
    sure = (image[0] == 0) | (image[0] == 1)
    assert torch.equal((image[0] == 1)[sure], halved.mask(mask)[sure])


def test_what_the_network_needs_is_taken_over(tmp_path):
    save(tmp_path / "a.png", pixels(1, (30, 40)))
    needed = Preprocessing(8, 9, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bicubic")
    assert ImageFolderDataModule(str(tmp_path)).adapted(needed) == needed
    data = ImageFolderDataModule(str(tmp_path), image_size=16)
    assert data.adapted(needed) == Preprocessing(16, 18, needed.mean, needed.std, "bicubic")
    data = ImageFolderDataModule(str(tmp_path), mean=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"`mean` must be what the network was trained with, \(0.5, 0.4, 0.3\), got"):
        data.adapted(needed)


# What is refused


@pytest.fixture
def no_type_checker(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(ValueError, match=r"`root` must be a folder of pictures; .*nowhere is none"):
        batches(ImageFolderDataModule(str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match=r"`root` must be a folder of pictures \(.apng, .*there is none below"):
        batches(ImageFolderDataModule(str(tmp_path)))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"`root` must be a folder of pictures; .*file is none"):
        batches(ImageFolderDataModule(str(tmp_path / "file")))


def test_a_subfolder_that_cannot_be_listed(tmp_path, monkeypatch):
    def scandir(path):
        if os.fspath(path).endswith("tabby"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listed(path)

    save(tmp_path / "tabby" / "a.png")
    save(tmp_path / "crane" / "a.png")
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"`root`: the folder .*tabby cannot be listed; make it readable"):
        batches(ImageFolderDataModule(str(tmp_path)))


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("tabbi", r"`labeled`: 'tabbi' is not one of the network's 5 classes; similar ones are 'tabby'. Rename the"),
        ("quince", r"'quince' is not one of the network's 5 classes. Rename the subfolder, .* `labeled: false`"),
        ("crane", r"`labeled`: several classes are called 'crane': 3, 4. Rename the subfolder"),
    ],
)
def test_folders_that_are_no_classes(tmp_path, folder, message):
    save(tmp_path / folder / "a.png")
    with pytest.raises(ValueError, match=message):
        batches(ImageFolderDataModule(str(tmp_path)), NAMES)
    assert "label" not in batches(ImageFolderDataModule(str(tmp_path), labeled=False, **SMALL), NAMES)[0]


def test_labels_of_loose_pictures(tmp_path):
    save(tmp_path / "tabby" / "a.png")
    save(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"`labeled` asks for pictures in subfolders.*loose.png is in none"):
        batches(ImageFolderDataModule(str(tmp_path), labeled=True))
    assert "label" not in batches(ImageFolderDataModule(str(tmp_path), **SMALL))[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"num_workers": -1}, "`num_workers` must be at least 0, got -1"),
        ({"image_size": 0}, "`image_size` must be at least 1, got 0"),
        ({"image_size": 300, "resize_size": 256}, "`resize_size` must be at least `image_size`, 300, got 256"),
        ({"mean": [0.5]}, r"`mean` must have one value for each channel, 3 in all, got \[0.5\]|\(0.5,\)"),
        ({"std": [1.0, 0.0, 1.0]}, "`std` must be finite and positive"),
        ({"interpolation": "cubic"}, "`interpolation` must be .*bicubic.*got 'cubic'"),
    ],
)
def test_bad_arguments(no_type_checker, options, message):
    with pytest.raises(ValueError, match=message):
        PhotographsDataModule(**options)


def test_pictures_that_cannot_be_prepared(no_type_checker):
    with pytest.raises(ValueError, match=r'`image` must be in mode RGB, got L: convert it, image.convert\("RGB"\)'):
        Preprocessing()(Image.new("L", (300, 300)))


def test_loaders_need_setup():
    with pytest.raises(
        RuntimeError, match=r"the pictures of PhotographsDataModule are not found yet: call `setup\(\)`"
    ):
        PhotographsDataModule().test_dataloader()


# Photographs


def test_the_embedded_photographs_are_there():
    (batch,) = batches(data := PhotographsDataModule())
    assert batch["image"].shape == (8, 3, 224, 224)
    assert "label" not in batch
    low, high = data.bounds
    assert ((batch["image"] >= low) & (batch["image"] <= high)).all()
    assert batch["image"].std((1, 2, 3)).min() > 0.3


# ImageNet in torchvision's layout

SYNSETS = {"n02123045": ("tabby", "tabby cat"), "n01440764": ("tench", "Tinca tinca"), "n07920052": ("espresso",)}


@pytest.fixture
def imagenet(tmp_path):
    torch.save((SYNSETS, []), tmp_path / "meta.bin")
    for number in ("n02123045", "n07920052"):  # a part of the classes
        for place in range(2):
            save(tmp_path / "val" / number / f"ILSVRC2012_val_{place}.JPEG")
    return tmp_path


def test_imagenet_labels_are_places_among_all_classes(imagenet):
    data = ImageNetDataModule(str(imagenet), **SMALL)
    data.prepare_data()
    (batch,) = batches(data)
    assert data.class_names == ("tench", "tabby", "espresso")
    assert batch["label"].tolist() == [1, 1, 2, 2]
    assert batch["index"].tolist() == [0, 1, 2, 3]


def test_missing_imagenet(tmp_path, imagenet):
    for data in (ImageNetDataModule(str(tmp_path / "none")), ImageNetDataModule(str(imagenet), split="train")):
        with pytest.raises(
            FileNotFoundError, match=r"`root`: there is no ImageNet in .*Put the devkit and the archive"
        ):
            data.prepare_data()
    (imagenet / "meta.bin").write_bytes(b"no meta file")
    with pytest.raises(FileNotFoundError, match=r"`root`: there is no ImageNet in .*Put the devkit"):
        ImageNetDataModule(str(imagenet)).prepare_data()


# VOC in torchvision's layout


def annotation(boxes):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymax>{y2}</ymax><ymin>{y1}</ymin>"
        "</bndbox><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
        "</part></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    return f"<annotation><folder>VOC2012</folder>{objects}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """Two pictures of 12 x 8 pixels: a dog and a smaller cat; two cats whose boxes sum up to more than a car's."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    boxes = {
        "one": [("dog", 1, 1, 6, 8), ("cat", 9, 2, 11, 4)],
        "two": [("car", 5, 1, 8, 5), ("cat", 1, 1, 4, 4), ("cat", 9.4, 4, 12, 8)],
    }
    for folder in ("Annotations", "ImageSets/Segmentation", "SegmentationClass", "JPEGImages"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("one\ntwo\n")
    for name, found in boxes.items():
        save(base / "JPEGImages" / f"{name}.jpg", pixels(1, (12, 8)))
        classes = np.zeros((8, 12), np.uint8)
        for kind, x1, y1, x2, y2 in found:
            classes[y1 - 1 : y2, round(x1) - 1 : x2] = VOC_CLASSES.index(kind) + 1
            classes[y1 - 1, round(x1) - 1 : x2] = 255  # the border
        segmentation = Image.fromarray(classes)
        segmentation.putpalette([level for level in range(256) for _ in range(3)])
        segmentation.save(base / "SegmentationClass" / f"{name}.png")
        (base / "Annotations" / f"{name}.xml").write_text(annotation(found))
    return tmp_path


WHOLE = {"image_size": 8, "resize_size": 8}  # the middle 8 of 12 columns


def test_voc_labels_and_masks_are_those_of_the_main_class(voc):
    data = VOCDataModule(str(voc), download=False, **WHOLE)
    (batch,) = batches(data)
    assert data.class_names == VOC_CLASSES
    assert batch["label"].tolist() == [VOC_CLASSES.index("dog"), VOC_CLASSES.index("cat")]
    assert batch["mask"]["box"].dtype == batch["mask"]["object"].dtype == torch.bool
    box = torch.zeros(2, 8, 12, dtype=torch.bool)
    box[0, :, :6] = box[1, :4, :4] = box[1, 3:8, 8:] = True
    assert torch.equal(batch["mask"]["box"], box[:, :, 2:10])
    box[0, 0], box[1, 0], box[1, 3, 8:] = False, False, False
    assert torch.equal(batch["mask"]["object"], box[:, :, 2:10])


def test_voc_labels_are_indices_of_the_networks_classes_or_none(voc):
    def label(class_names, labeled=None):
        data = VOCDataModule(str(voc), download=False, labeled=labeled, **WHOLE)
        (batch,) = batches(data, class_names)
        assert set(batch["mask"]) == {"object", "box"}
        return batch["label"].tolist() if "label" in batch else data.class_names

    backwards = ("background", *reversed(VOC_CLASSES))
    assert label(backwards) == [backwards.index("dog"), backwards.index("cat")]
    assert label(NAMES) is None
    assert label(None, labeled=False) is None
    with pytest.raises(ValueError, match="'aeroplane' is not one of the network's 5 classes"):
        label(NAMES, labeled=True)


def test_missing_voc(tmp_path):
    data = VOCDataModule(str(tmp_path), download=False)
    with pytest.raises(FileNotFoundError, match=r"`root`: there is no VOC 2012 in .*Pass `download: true`"):
        data.prepare_data()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", r"the annotation .*one.xml cannot be read"),
        ("<annotation></annotation>", r"the annotation .*one.xml has no object"),
        (annotation([("unicorn", 1, 1, 2, 2)]), r"one.xml cannot be read \('unicorn' is no class of VOC\)"),
    ],
)
def test_damaged_voc_annotations(voc, text, message):
    (voc / "VOCdevkit" / "VOC2012" / "Annotations" / "one.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        batches(VOCDataModule(str(voc), download=False))


@pytest.mark.parametrize("content", [None, b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_damaged_voc_segmentations(voc, content):
    path = voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "two.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=r"the segmentation .*two.png cannot be read \(.*\): replace it"):
        batches(VOCDataModule(str(voc), download=False, **WHOLE))


def test_an_annotation_of_another_picture_is_refused(voc):
    path = voc / "VOCdevkit" / "VOC2012" / "Annotations" / "two.xml"
    path.write_text(annotation([("cat", 1, 1, 500, 2)]))
    with pytest.raises(
        ValueError, match=r"two.png is of \d+ x \d+ pixels, but .* \(500, 2\): they do not belong together"
    ):
        batches(VOCDataModule(str(voc), download=False, **WHOLE))


def test_every_imagenet_class_finds_itself_unless_two_have_its_name():
    names = ResNet18_Weights.DEFAULT.meta["categories"]
    unique = [name for name in names if [other.lower() for other in names].count(name.lower()) == 1]
    assert len(unique) >= 990
    assert [names[index] for index in class_indices(unique, names).values()] == unique


# The command line


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the name `instantiate` is newer than our lower bound
@pytest.mark.parametrize("module", [ImageFolderDataModule, ImageNetDataModule, PhotographsDataModule, VOCDataModule])
def test_configurations_know_the_options_that_all_share(module):
    def parsed(**options):
        return parser.parse_object(
            {"data": {"class_path": f"lightning_xai.data.{module.__name__}", "init_args": options}}
        )

    root = {"root": "."} if module is ImageFolderDataModule else {}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    data = parser.instantiate_classes(parsed(**root, batch_size=5, image_size=9, std=[1, 2, 3])).data
    assert isinstance(data, module)
    assert (data.batch_size, data.image_shape, data.preprocessing.std) == (5, (3, 9, 9), (1.0, 2.0, 3.0))
    for wrong in ({"image_size": "big"}, {"interpolation": "cubic"}, {"image_height": 9}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            parsed(**root, **wrong)
