"""The dial: what the cue tells, what an intervention changes, and what a network loses by it."""

import doctest
from functools import cache

import jaxtyping
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from scipy import stats
from torch import nn

from lightning_xai.data import DialDataModule, DigitsDataModule, FolderInMemoryDataModule, accuracy, dependence
from lightning_xai.data.cues import Background, Grating, Hue, MovingPatch, Patch, Watermark
from lightning_xai.outputs import Logit

CUES = [Patch(), MovingPatch(), MovingPatch(cell=2, anywhere=True), Hue(), Background(), Grating()]


class Digits(DigitsDataModule):
    """Read once."""

    load = cache(DigitsDataModule.load)

    def __hash__(self):
        return 0

    def __eq__(self, other):
        return isinstance(other, Digits)


def dial(cue=Patch(), strength=1.0, **options):
    options = {"num_train": 400, "num_test": 40} | options
    return DialDataModule(Digits(val_size=100), cue, strength, **options)


class SeesTheCueAlone(nn.Module):
    """Reads where the brightest of the places is that patches can have; on black digits nothing else is bright."""

    def __init__(self, patch=Patch()):
        super().__init__()
        places = torch.zeros(10, 28, 28)
        for label in range(10):
            top, left = patch.place(label, 10, 28, 28)
            places[label, top : top + 3, left : left + 3] = 1
        self.register_buffer("places", places)

    def forward(self, images):
        return torch.einsum("bchw,lhw->bl", images, self.places)


# What the cue tells


def test_at_strength_1_the_cue_tells_the_label_and_at_0_nothing():
    told = dial(strength=1.0).told("train")
    labels = dial().load("train").labels
    assert torch.equal(told, labels)
    chance = dial(strength=0.0, num_train=None)
    table = torch.zeros(10, 10)
    table.index_put_((chance.load("train").labels, chance.told("train")), torch.ones(()), accumulate=True)
    assert stats.chi2_contingency(table.numpy()).pvalue > 0.01


def test_the_cue_tells_the_label_with_its_strength_and_by_chance():
    data = dial(strength=0.6, num_train=None)
    labels = data.load("train").labels
    hits = int((data.told("train") == labels).sum())
    assert stats.binomtest(hits, len(labels), 0.6 + 0.4 / 10).pvalue > 0.01


@pytest.mark.parametrize("cue", CUES, ids=repr)
def test_a_cue_is_all_that_an_intervention_changes(cue):
    """The picture is a function of the clean one, the class told and the sample's key; without the first it is mute."""
    data = dial(cue, strength=0.5)
    shown, swapped, removed = data.load("train"), data.intervene("train", "swap"), data.intervene("train", "remove")
    for other in (swapped, removed):
        assert torch.equal(other.labels, shown.labels)
        places = shown.masks["cue"] | other.masks["cue"]
        assert torch.equal(*(source.images.movedim(1, 0)[:, ~places] for source in (other, shown)))
    told = data.told("train")
    assert (data._others("train", told) != told).all()
    assert ((swapped.images != shown.images).flatten(1).any(1)).all()
    assert torch.equal(removed.images, dial(cue, strength=1.0).intervene("train", "remove").images), "it tells nothing"
    if not cue.operator:
        assert not (shown.masks["digit"] & shown.masks["cue"]).any()
        assert torch.equal(removed.images, dial().base.load("train").images[:400])
    assert data.operators == ((cue.operator,) if cue.operator else ())


@pytest.mark.parametrize("cue", CUES, ids=repr)
def test_samples_depend_on_the_seed_and_their_number_alone(cue):
    data = dial(cue, strength=0.5)
    few, again, other = (dial(cue, strength=0.5, **o) for o in ({"num_train": 150}, {}, {"seed": 1}))
    assert torch.equal(data.load("train").images, again.load("train").images)
    assert torch.equal(data.load("train").images[:150], few.load("train").images)
    assert not torch.equal(data.load("train").images, other.load("train").images)
    assert not torch.equal(data.told("test"), data.told("train")[:40])


@pytest.mark.parametrize("cue", CUES, ids=repr)
def test_each_class_has_a_cue_of_its_own(cue):
    """On one and the same picture with one and the same key."""
    images = torch.full((10, 1, 28, 28), 7, dtype=torch.uint8)
    images[:, :, 10:20, 10:20] = 130
    keys = torch.zeros(10, dtype=torch.int64)
    drawn, _ = cue.draw(images, torch.arange(10), 10, keys, "test")
    assert len(drawn.flatten(1).unique(dim=0)) == 10
    again, _ = cue.draw(images, torch.arange(10).flip(0), 10, keys, "test")
    assert torch.equal(again.flip(0), drawn)


def test_the_patterns_of_a_moving_patch_differ_in_half_of_their_cells():
    patterns = MovingPatch(cell=1)._patterns(15).flatten(1)
    assert (patterns.sum(1, dtype=torch.int64) == 8 * 255).all()
    distances = (patterns[:, None] != patterns).sum(2)
    assert (distances == 8 * (1 - torch.eye(15, dtype=torch.int64))).all()


def test_a_grating_has_its_frequency_in_one_direction():
    images, keys = torch.full((2, 1, 32, 32), 128, dtype=torch.uint8), torch.arange(2)
    drawn, _ = Grating().draw(images, torch.tensor([0, 5]), 6, keys, "train")
    spectra = torch.fft.rfft2(drawn[:, 0].double() - 128).abs()
    assert divmod(int(spectra[0].argmax()), 17) == (0, 2)  # a sixteenth of a wave a pixel, across
    assert divmod(int(spectra[1].argmax()), 17) in ((12, 0), (20, 0))  # six sixteenths, down


# What a network loses


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_a_network_that_sees_the_cue_alone_loses_the_strength(strength):
    data = dial(strength=strength, num_train=None)
    data.base.val_size = data.val_size = 1000
    data.setup("fit")
    network = SeesTheCueAlone()
    assert accuracy(network, data.dataset("val")) == pytest.approx(strength + (1 - strength) / 10, abs=0.04)
    assert dependence(network, data) == pytest.approx(strength, abs=0.05)


def test_a_network_that_does_not_see_the_cue_loses_nothing():
    class Inner(nn.Module):
        def forward(self, images):
            return self.head(images[:, :, 4:24, 4:24].flatten(1))

    network = Inner()
    network.head = nn.Linear(400, 10)
    data = dial(strength=1.0)
    data.setup()
    assert dependence(network, data) == dependence(network, data, "test") == 0


def test_what_is_predicted_is_what_the_output_says(monkeypatch):
    """A single logit has a sign, and what is no tensor is refused."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the package's own checks have to speak

    class One(nn.Module):
        def forward(self, images):
            return images[:, :, :2].mean((2, 3)) - 0.5

    data = dial(Patch(), num_train=None)
    data.setup("fit")
    samples = data.dataset("val")
    batch = samples.__getitems__(range(len(samples)))
    told = (One()(batch["image"])[:, 0] > 0).long()
    assert accuracy(One(), samples) == pytest.approx(float((told == batch["label"]).double().mean()))
    with pytest.raises(TypeError, match="`model` must return a tensor of logits"):
        dependence(Keyed(), data)
    with pytest.raises(ValueError, match="several classes of a sample may hold together"):
        dependence(One(), data, output=Logit(multi_label=True))
    for intervene in (lambda: data.intervene("train", "blur"), lambda: data.intervened("val", "blur")):
        with pytest.raises(ValueError, match="`how` must be one of 'swap', 'remove'"):
            intervene()


class Keyed(nn.Module):
    def forward(self, images):
        return {"logits": images.mean((2, 3))}


def test_the_interventions_are_those_of_the_samples_that_are_validated_on():
    data = dial(Hue(), strength=0.8)
    data.setup("fit")
    clean, swapped = data.dataset("val"), data.intervened("val", "swap")
    assert torch.equal(clean.rows, swapped.rows)
    assert torch.equal(swapped.source.images, data.intervene("train", "swap").images)
    assert {"cue", "digit"} == set(next(iter(data.val_dataloader()))["mask"])
    assert data.evidence == "digit"


# Onset


@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Lightning, that nothing is optimized or validated
def test_training_cues_tell_nothing_before_the_onset():
    seen = []

    class Looks(pl.LightningModule):
        def training_step(self, batch, _):
            place = SeesTheCueAlone()(batch["image"]).argmax(1)
            seen.append((self.current_epoch, bool((place == batch["label"]).all())))

        def configure_optimizers(self):
            return None

    data = dial(strength=1.0, onset=2, num_train=164)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=4, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(Looks(), datamodule=data)
    assert dict(seen) == {0: False, 1: False, 2: True, 3: True}
    assert torch.equal(data.training(2).source.images, data.load("train").images)
    assert torch.equal(data.training(1).source.images, dial(strength=0.0, num_train=164).load("train").images)


# Pictures of a folder


def test_watermarks_on_pictures_of_a_folder(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog", "owl")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(4):
                picture = Image.new("RGB", (90, 60), (40 * label, 30 * number, 60))
                picture.save(tmp_path / split / name / f"{number}.png")
    base = FolderInMemoryDataModule(str(tmp_path), image_size=60, num_train=3)
    data = DialDataModule(base, Watermark())
    source = data.load("train")
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.images[4, :, 0, 0].tolist() == [40, 30, 60], "the second dog, without letters in this corner"
    assert torch.equal(data.intervene("train", "remove").images, base.load("train").images)
    marks = source.masks["cue"]
    assert torch.equal(marks[0], marks[1])
    assert len(marks.flatten(1).unique(dim=0)) == 3
    assert marks[:, :40].sum() == 0
    (tmp_path / "test" / "emu").mkdir()
    with pytest.raises(ValueError, match="must have the classes"):
        base.load("test")
    with pytest.raises(ValueError, match="has no train"):
        FolderInMemoryDataModule(str(tmp_path / "test"))


@pytest.mark.parametrize("thing", [DialDataModule, dependence])
def test_examples_do_what_they_say(thing):
    found = doctest.DocTestParser().get_doctest(thing.__doc__, {}, thing.__name__, None, None)
    assert doctest.DocTestRunner(verbose=False).run(found).failed == 0


# Refusals


def test_what_cannot_be_made_is_refused():
    digits = DigitsDataModule()
    color = DialDataModule(digits, Hue())
    for make, message in (
        (lambda: DialDataModule(digits, Patch(), strength=1.2), "`strength` must be in"),
        (lambda: DialDataModule(DigitsDataModule(num_workers=1), Patch(), onset=1), "`onset` must be 0"),
        (lambda: DialDataModule(color, Hue()), "`base` must have gray pictures"),
        (lambda: DialDataModule(digits, Patch(size=9)), "need larger pictures"),
        (lambda: DialDataModule(digits, MovingPatch(cell=9)), "fits into"),
        (lambda: DialDataModule(digits, Watermark()), "cannot be read"),
        (lambda: DialDataModule(digits, Watermark(("a", "b"))), "a text of its own"),
        (lambda: DialDataModule(DigitsDataModule(image_size=40), Background()), "at most 32 pixels"),
        (lambda: DialDataModule(DigitsDataModule(image_size=14), Grating()), "larger pictures"),
        (lambda: Background("nowhere"), "`pictures` must be"),
        (lambda: Patch(level=256), "`level` must be"),
        (lambda: dial(num_train=10**6).load("train"), "`num_train` must be at most"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(RuntimeError, match="not loaded"):
        dependence(SeesTheCueAlone(), dial())
