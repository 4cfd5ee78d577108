"""What decides a network, found and proven: networks whose truth is known in closed form."""

import math
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.results.shortcuts import Effect
from lightning_xai.shortcuts.audit import grown
from lightning_xai.shortcuts.find import Candidates, matched, pairs
from lightning_xai.shortcuts.hypotheses import (
    Background,
    Color,
    Frequency,
    Pattern,
    Place,
    Samples,
    correlations,
    spectrum,
)
from lightning_xai.shortcuts.prove import Proof, Shown, _verdict, decides_all

EVERY = ["color", "frequency", "background"]
CLASSES, SIZE = 6, 12
CORNERS = [(top, left) for top in (0, SIZE - 2) for left in (0, SIZE // 2 - 1, SIZE - 2)]


class Corner(nn.Module):
    """Bright in the corner: class 1."""

    def forward(self, images):
        return 20 * torch.stack([0.5 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.5], 1)


def pictures(number=256):
    images = torch.rand(number, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(number, 8, 8, dtype=torch.bool)
    masks[:, 3:6, 3:6] = True
    return images, masks


class Linear(nn.Module):
    """Reads a figure in the middle, by `mark` a class's bright corner, and by `noise` all around; `jitter` moves it.

    The jitter is a hash of the whole picture: whatever is changed anywhere draws it anew.
    """

    def __init__(self, seed, mark=0.0, noise=0.0, jitter=0.0):
        super().__init__()
        around = torch.randn(CLASSES, SIZE, SIZE, generator=torch.Generator().manual_seed(seed + 1000))
        around[:, 3:9, 3:9] = 0
        weight = noise * around / around.flatten(1).norm(dim=1).view(-1, 1, 1)
        weight[:, 3:9, 3:9] = figures(seed)
        for label, (top, left) in enumerate(CORNERS):
            weight[label, top : top + 2, left : left + 2] += mark / 4
        self.weight, self.jitter = nn.Parameter(weight), jitter

    def forward(self, images):
        evidence = (images[:, 0] - 0.5).flatten(1) @ self.weight.flatten(1).T
        return 6 * evidence + self.jitter * torch.sin(
            1e4 * evidence.sum(1, keepdim=True) * torch.arange(1, CLASSES + 1)
        )


def figures(seed):
    drawn = torch.randn(CLASSES, 6, 6, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.flatten(1).norm(dim=1).view(-1, 1, 1)


def marked(seed, number=256, strength=0.9):
    """Pictures with marks that tell the class by the strength, the same with marks of other classes, masks, labels."""
    generator = torch.Generator().manual_seed(seed + 50)
    labels = torch.randint(0, CLASSES, (number,), generator=generator)
    images = 0.5 + 0.15 * torch.randn(number, 1, SIZE, SIZE, generator=generator)
    images[:, 0, 3:9, 3:9] += 0.5 * figures(seed)[labels]
    chance = torch.randint(0, CLASSES, (number,), generator=generator)
    told = torch.where(torch.rand(number, generator=generator) < strength, labels, chance)
    others = (told + torch.randint(1, CLASSES, (number,), generator=generator)) % CLASSES
    masks = torch.zeros(number, SIZE, SIZE, dtype=torch.bool)
    masks[:, 3:9, 3:9] = True
    return with_marks(images, told), with_marks(images, others), masks, labels


def with_marks(images, told):
    images = images.clone()
    for label, (top, left) in enumerate(CORNERS):
        images[told == label, 0, top : top + 2, left : left + 2] = 1
    return images


def true_dependence(network, seed):
    images, swapped, _, labels = marked(seed, 4000)
    with torch.no_grad():
        right = [(network(x).argmax(1) == labels).double().mean() for x in (images, swapped)]
    return float(right[0] - right[1])


def audits(seeds, minimum=0.05, **weights):
    """True dependence, and the report, of networks of so many seeds."""
    made = []
    for seed in seeds:
        network = Linear(seed, **weights)
        images, _, masks, _ = marked(seed)
        report = lx.find_shortcuts(network, images, masks=masks, minimum=minimum)
        made.append((true_dependence(network, seed), report))
    return made


def check_rates(seeds):
    """At most 5 % false ones, as far as so many networks can tell; those that depend are found, where and how much."""
    ignoring = [report for noise in (0.0, 0.3) for _, report in audits(seeds, noise=noise)]
    jittered = [report for _, report in audits(seeds, minimum=0.0, jitter=3.0)]
    for reports in (ignoring, jittered):
        false = sum(report.verdict == "SHORTCUT" for report in reports)
        assert stats.binomtest(false, len(reports), 0.05, alternative="greater").pvalue > 0.01, false
    for truth, report in audits(seeds, mark=0.7):
        assert truth > 0.1
        assert report.verdict == "SHORTCUT"
        assert report.dependence == pytest.approx(truth, abs=0.12)
        assert {found.kind for found in report.shortcuts} <= {"place", "pattern"}
        for found in report.shortcuts:
            (top, left), (row, column) = CORNERS[found.label], found.box[:2]
            assert found.kind == "pattern" or max(abs(row - top), abs(column - left)) <= 2


def test_rates():
    check_rates(range(2))


@pytest.mark.slow
def test_rates_of_many():
    check_rates(range(100, 220))


def test_what_was_found_is_proven_again_and_shown():
    images, masks = pictures()
    report = lx.find_shortcuts(Corner(), images, masks=masks, operators=EVERY)
    again = lx.find_shortcuts(Corner(), images, masks=masks, operators=EVERY, carried=report.findings)
    expected = {(label, name) for label in (0, 1) for name in ("place/0x0x2x2", "background")}
    assert {(found.label, found.name) for found in report.shortcuts} == expected
    assert {found.name for found in report.findings} <= {found.name for found in again.findings}
    assert again.settings["rows"] <= 2 * report.settings["rows"]
    assert len({(found.label, found.name) for found in again.findings}) == len(again.findings)
    for found in report.findings:
        for example in lx.shortcuts.shown(Corner(), images, found, masks=masks, most=2):
            if found.verdict == "SHORTCUT":
                assert example.probability > 0.5 > example.probability_after
                assert example.predicted_after != found.label
                assert example.region[0, 0]


def test_what_was_accepted_is_evidence():
    images, masks = pictures()
    accepted = [{"label": 1, "kind": "place", "box": (0, 0, 2, 2)}]
    report = lx.find_shortcuts(Corner(), images, masks=masks, accept=accepted)
    assert [(found.label, found.verdict) for found in report.findings[:2]] == [(0, "SHORTCUT"), (1, "EVIDENCE")]
    report = lx.find_shortcuts(Corner(), images, masks=masks, accept=[{"label": None, "kind": "place"}])
    assert (report.verdict, report.dependence) == ("CLEAR", 0)


def test_without_known_evidence_only_what_overrules_it():
    """A figure that most of the pictures have a part of is evidence; of two classes nobody can tell."""
    report = lx.find_shortcuts(Corner(), pictures()[0])
    assert (report.verdict, report.dependence) == ("INCONCLUSIVE", 0)
    assert "decides; whether it should cannot be told from 2 classes: give masks" in report.findings[0].reason
    images, _, _, _ = marked(0)
    assert lx.find_shortcuts(Linear(0), images).shortcuts == ()
    assert {found.label for found in lx.find_shortcuts(Linear(0, mark=4.0), images).shortcuts} == set(range(CLASSES))


def test_the_same_again_and_nothing_left_behind():
    images, _, masks, _ = marked(0)
    network = Linear(0, mark=0.7).train()
    state, before = torch.random.get_rng_state(), network.weight.clone()
    one, other = (lx.find_shortcuts(network, images, masks=masks) for _ in range(2))
    assert repr(one) == repr(other)
    assert one.verdict == "SHORTCUT"
    assert network.training and network.weight.grad is None  # noqa: PT018
    assert_close(network.weight, before, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_halves_are_told_by_the_index():
    """Whatever else is looked at, what a sample is for stays: what is carried is proven on what it was not found on."""
    from lightning_xai.shortcuts.find import in_first_half

    index = torch.arange(1000)
    first = in_first_half(index, 3)
    assert torch.equal(in_first_half(index.flip(0), 3), first.flip(0))
    assert stats.binomtest(int(first.sum()), 1000).pvalue > 0.001


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": torch.rand(64, 20)}, r"`images` must be \(batch, channel, height, width\), at least 8 pixels"),
        ({"images": torch.rand(64, 1, 7, 9)}, r"`images` must be \(batch, channel, height, width\), at least 8 pixels"),
        ({"images": torch.full((64, 3, 8, 8), torch.nan)}, r"`inputs` must be finite"),
        ({"images": torch.zeros(64, 3, 8, 8)}, r"at least two classes that `model` predicts 8 times in each half"),
        ({"images": torch.rand(20, 3, 8, 8)}, r"at least two classes that `model` predicts 8 times in each half"),
        ({"masks": torch.zeros(3, 8, 8, dtype=torch.bool)}, r"`masks` must be of shape \(256, 8, 8\)"),
        ({"index": torch.arange(3)}, r"`index` is of 3 samples, but there are 256 images"),
        ({"operators": ["hue"]}, r"`operators` must be one of 'color', 'frequency', 'background', got 'hue'"),
        ({"minimum": 2.0}, r"`minimum` must be in \[0, 1\]"),
        ({"alpha": 0.0}, r"`alpha` must be between 0 and 1"),
        ({"minimum": 1.0}, r"`minimum` must be less than 1"),
        ({"operators": "color"}, r"`operators` must be a list, got 'color'"),
        ({"images": torch.rand(64, 1, 8, 8), "operators": ["color"]}, r"has 'color', but `images` have one channel"),
        ({"operators": ["background"]}, r"has 'background', which is what `masks` leave: give masks"),
        ({"accept": [{}]}, r"`accept` must have names as tables"),
        ({"accept": [{"class": 7}]}, r"`accept` must have names as tables"),
        ({"accept": [{"box": [1, 2]}]}, r"`accept` must have names as tables"),
        (
            {"masks": torch.zeros(256, 8, 8)},
            r"`masks` must be a tensor of booleans, or None; got a tensor of torch.float",
        ),
        ({"masks": np.zeros((256, 8, 8), bool)}, r"`masks` must be a tensor of booleans, or None; got ndarray"),
        ({"masks": torch.zeros(256, 8, 8, dtype=torch.bool)}, r"`masks` .* are False everywhere: give None"),
        ({"output": lx.outputs.Logit(multi_label=True)}, r"several classes of a sample may hold together"),
        (
            {"output": lx.outputs.At(0)},
            r"`output` At\(index=\(0,\)\) does not say which one class is predicted: it has no classes",
        ),
        ({"model": nn.Sequential(nn.Flatten(), nn.Threshold(2, torch.nan))}, r"`model` must return finite numbers"),
    ],
)
def test_refusals(given, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the package's own checks have to speak
    with pytest.raises((TypeError, ValueError), match=message):
        lx.find_shortcuts(**{"model": Corner(), "images": pictures()[0], **given})


def samples_of(images, labels, masks=None):
    told = nn.functional.one_hot(torch.as_tensor(labels)).float()
    return Samples(images, told, masks, torch.zeros(images.shape[1], 1, 1), torch.ones(images.shape[1], 1, 1))


ROWS, DONORS = torch.tensor([0, 1]), torch.tensor([2, 3])


class TestFamilies:
    """Four pictures of classes 0, 1, 1, 2; the last two give to the first two."""

    images = torch.rand(4, 3, 10, 8, generator=torch.Generator().manual_seed(1))
    labels = (0, 1, 1, 2)

    def test_place(self):
        masks = torch.zeros(4, 10, 8, dtype=torch.bool)
        masks[0, 0, 0] = masks[3, 5, 5] = True
        samples = samples_of(self.images, self.labels, masks)
        family = Place(torch.tensor([[0, 0, 2, 2], [4, 1, 1, 3], [5, 5, 2, 2]]))
        expected = self.images[:2].clone()
        expected[0, :, :2, :2], expected[0, :, 4, 1:4] = self.images[2, :, :2, :2], self.images[2, :, 4, 1:4]
        expected[1, :, 4, 1:4], expected[1, :, 5:7, 5:7] = self.images[3, :, 4, 1:4], self.images[3, :, 5:7, 5:7]
        expected[0, :, 0, 0], expected[1, :, 5, 5] = self.images[0, :, 0, 0], self.images[1, :, 5, 5]  # the evidence
        assert_close(family.swap(samples, ROWS, DONORS), expected, rtol=0, atol=0)
        changed = (family.fill(samples, ROWS) != self.images[:2]).any(1)
        assert torch.equal(changed, family.region(samples, ROWS) & ~masks[:2])

    def test_a_pattern_is_found_where_it_is(self):
        images, patch = torch.zeros(4, 1, 10, 8), torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(3))
        places = [(7, 1, 0), (2, 5, 1), (8, 6, 1), (0, 0, 2)]
        for image, (top, left, label) in zip(images, places, strict=True):
            image[0, top : top + 2, left : left + 2] = patch[label]
        samples = samples_of(images, self.labels)
        family = Pattern.of(samples, torch.tensor([[7, 1, 2, 2], [2, 5, 2, 2], [0, 0, 2, 2]]), torch.tensor([0, 1, 3]))
        expected = torch.zeros(2, 1, 10, 8)
        expected[0, 0, 7:9, 1:3], expected[1, 0, 2:4, 5:7] = patch[1], patch[2]
        assert_close(family.swap(samples, ROWS, DONORS), expected, rtol=0, atol=0)
        assert_close(family.fill(samples, ROWS), torch.zeros(2, 1, 10, 8))

    def test_correlations(self):
        templates = torch.rand(2, 3, 4, 3, generator=torch.Generator().manual_seed(2))
        found = correlations(self.images, templates)
        for (image, template, top, left), value in np.ndenumerate(found.numpy()):
            patch = self.images[image, :, top : top + 4, left : left + 3].flatten().numpy()
            expected = np.corrcoef(patch, templates[template].flatten().numpy())[0, 1]
            spreads = np.std(patch), np.std(templates[template].numpy())
            assert value == pytest.approx(expected * min(1, 2 * spreads[0] / spreads[1]), abs=1e-4)

    def test_what_is_of_one_color_takes_on_the_other(self):
        gray, colors = self.images[:, :1], torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0.5, 1], [1, 1, 0.2]])
        samples = samples_of(gray * colors[:, :, None, None], self.labels)
        assert_close(Color().swap(samples, ROWS, DONORS), gray[:2] * colors[2:, :, None, None])
        assert_close(Color().fill(samples, ROWS), gray[:2].expand(-1, 3, -1, -1))

    def test_waves_are_as_strong_as_in_the_donor_and_lie_where_they_lay(self):
        images = 0.5 + 0.02 * (self.images - 0.5)  # nothing is cut
        samples, family = samples_of(images, self.labels), Frequency()
        down, across = torch.meshgrid(torch.arange(-5, 5), torch.arange(5), indexing="ij")
        own, donors = samples.spectra[:2], samples.spectra[2:].abs()
        mean = samples.spectra.abs().mean(0).expand(2, -1, -1, -1)
        for made, amplitudes in (
            (family.swap(samples, ROWS, DONORS), donors),
            (family.fill(samples, ROWS), mean),
        ):
            expected = torch.where(down**2 + across**2 >= 16, torch.polar(amplitudes, own.angle()), own)
            assert_close(spectrum(made), expected, atol=1e-4, rtol=1e-4)

    def test_background(self):
        masks = torch.zeros(4, 10, 8, dtype=torch.bool)
        masks[:, 3:6, 3:6] = True
        masks[0, 0, 0] = True
        swapped = Background().swap(samples_of(self.images, self.labels, masks), ROWS, DONORS)
        assert_close(swapped[masks[:2, None].expand_as(swapped)], self.images[:2][masks[:2, None].expand_as(swapped)])
        free = ~(masks[:2] | masks[2:])[:, None].expand_as(swapped)
        assert_close(swapped[free], self.images[2:][free])


def test_a_class_of_which_there_are_too_few_leaves_it_open():
    images, _, masks, _ = marked(1)
    with torch.no_grad():
        rare = Linear(1)(images).argmax(1) == 3
    kept = torch.cat([(~rare).nonzero()[:, 0], rare.nonzero()[:5, 0]])
    report = lx.find_shortcuts(Linear(1), images[kept], masks=masks[kept])
    assert (report.verdict, report.settings["too_few"]) == ("INCONCLUSIVE", {3: 5})
    assert {found.verdict for found in report.findings} == {"CLEAR"}
    assert all(math.isfinite(found.detectable) for found in report.findings)


class Around(nn.Module):
    """Bright outside of the middle, on average: class 1."""

    def forward(self, images):
        around = (images.sum((1, 2, 3)) - images[:, :, 3:6, 3:6].sum((1, 2, 3))) / (3 * 55) - 0.5
        return 200 * torch.stack([-around, around], 1)


class Waves(nn.Module):
    """Class k of six: the wave that fits k + 4 times into the width is strong; or lies as the class's crests do."""

    def __init__(self, by_crests=False):
        super().__init__()
        self.by_crests = by_crests
        self.places = torch.arange(24)

    def forward(self, images):
        waves = torch.fft.rfft2(images)[:, 0, 0, 4:10]
        if self.by_crests:
            turns = waves[:, 0].angle()[:, None] - 2 * math.pi * torch.arange(6) / 6
            return 8 * turns.cos()
        return waves.abs() / 8


def waves(by_crests):
    generator = torch.Generator().manual_seed(3)
    labels, place = torch.arange(360) % 6, torch.arange(24)
    number = torch.full_like(labels, 4) if by_crests else labels + 4
    phase = math.pi * labels / 3 if by_crests else 2 * math.pi * torch.rand(360, generator=generator)
    wave = (2 * math.pi * number[:, None] * place / 24 + phase[:, None]).cos()
    return 0.5 + 0.2 * wave[:, None, None] + 0.05 * torch.randn(360, 1, 24, 24, generator=generator)


def test_a_wave_that_is_strong_decides_and_crests_that_lie_elsewhere_do_not():
    report = lx.find_shortcuts(Waves(), waves(False), operators=["frequency"])
    found = {finding.label: finding.setting for finding in report.shortcuts if finding.kind == "frequency"}
    assert found == {label: f"0 down, {label + 4} across" for label in range(6)}
    assert report.dependence > 0.95
    report = lx.find_shortcuts(Waves(by_crests=True), waves(True), operators=["frequency"])
    assert {own.verdict for own in report.findings if own.kind == "frequency"} == {"CLEAR"}


@pytest.mark.parametrize(("hit", "spoiled", "expected"), [(0.2, 0.0, True), (0.0, 0.4, False), (0.03, 0.0, False)])
def test_an_operator_decides_all_classes_where_pictures_become_the_donors(hit, spoiled, expected):
    """Shares of pairs that become the donor's class, and any other one: with ten classes each may be hit by chance."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(200) % 10
    samples = samples_of(torch.rand(200, 3, 4, 4), labels)
    rows, donors = torch.arange(200).repeat(20), torch.randint(0, 200, (4000,), generator=generator)
    rows, donors = (own[labels[rows] != labels[donors]] for own in (rows, donors))
    drawn, anything = torch.rand(len(rows), generator=generator), torch.randint(0, 10, rows.shape, generator=generator)
    after = torch.where(drawn < hit, labels[donors], torch.where(drawn < hit + spoiled, anything, labels[rows]))
    one_hot = nn.functional.one_hot(after).float()
    fills = (0.5 * samples.told, samples.told)
    proof = Proof(
        Candidates(Color(), None, {}),
        samples,
        rows,
        donors,
        one_hot,
        torch.arange(200),
        tuple(range(10)),
        samples.told[rows],
        fills,
    )
    assert decides_all(proof, 0.05, 0.01) is expected
    first = (labels[rows] == 0) | (labels[donors] == 0)
    hits = nn.functional.one_hot(labels[donors], 10).float()
    alone = replace(proof, swapped=torch.where(first[:, None], hits, samples.told[rows]))
    assert not decides_all(alone, 0.05, 0.01), "what decides one class is told by its own tests"
    assert not decides_all(replace(proof, fills=fills[::-1]), 0.05, 0.01)


def test_all_that_is_outside_of_the_evidence_is_tested_as_a_whole():
    images, masks = pictures()
    images = (images + 0.3 * torch.randint(0, 2, (256, 1, 1, 1), generator=torch.Generator().manual_seed(5))) / 1.3
    report = lx.find_shortcuts(Around(), images, masks=masks)
    assert {(found.label, found.name) for found in report.shortcuts} >= {(0, "background"), (1, "background")}
    assert report.dependence > 0.5


def test_samples_without_evidence_are_left_out_and_little_room_is_told():
    images, masks = pictures()
    kept = torch.arange(256) % 3 > 0
    whole = lx.find_shortcuts(Corner(), images, masks=masks & kept[:, None, None], bounds=(0.0, 1.0))
    part = lx.find_shortcuts(Corner(), images[kept], masks=masks[kept], bounds=(0.0, 1.0), index=kept.nonzero()[:, 0])
    assert (whole.settings["unmasked"], part.settings["unmasked"]) == (86, 0)
    assert (whole.samples, repr(whole.findings)) == (part.samples, repr(part.findings))
    full = lx.find_shortcuts(Corner(), images, masks=torch.ones_like(masks))
    assert full.verdict == "INCONCLUSIVE"
    assert all("the known evidence leaves 0% of the class" in found.reason for found in full.findings)


def test_evidence_has_a_margin_of_a_fourteenth_of_the_picture():
    masks = torch.zeros(1, 28, 8, dtype=torch.bool)
    masks[0, 10, 4] = True
    expected = torch.zeros_like(masks)
    expected[0, 8:13, 3:6] = True
    assert torch.equal(grown(masks), expected)


def test_a_control_lies_where_something_is_changed_rather_than_on_no_chosen_place():
    free = torch.zeros(12, 12)
    free[9:] = 1  # all else is evidence
    chosen = [{label: (9, 3 * label, 3, 3) for label in range(4)}]
    for label, (top, left, height, width) in matched(chosen[0], chosen, dict.fromkeys(range(4), free)).items():
        assert (height, width) == (3, 3)
        assert free[top : top + 3, left : left + 3].mean() == 1
        assert abs(left - 3 * label) >= 3
    room = {label: torch.ones(12, 12) for label in range(4)}
    assert all(top <= 6 for top, *_ in matched(chosen[0], chosen, room).values())


PASTE, BOX = "not enough in pictures of the other classes", [{"box": [0, 0, 2, 2]}]


@pytest.mark.parametrize(
    ("given", "verdict", "reason"),
    [
        ({}, "SHORTCUT", "outside of the known evidence"),
        ({"accept": BOX}, "EVIDENCE", "was accepted"),
        ({"both": False}, "INCONCLUSIVE", f"outside of the known evidence, but is {PASTE}"),
        ({"gained": 0.01}, "INCONCLUSIVE", f"outside of the known evidence, but is {PASTE}"),
        ({"gained": 0.01, "accept": BOX}, "EVIDENCE", "was accepted"),
        ({"both": False, "loss": False}, "CLEAR", "does not decide; 10% would have been found"),
        ({"both": False, "loss": False, "detectable": 0.4}, "INCONCLUSIVE", "too few samples"),
        ({"both": False, "lost": 0.04}, "CLEAR", "does not decide"),
        ({"known": False}, "SHORTCUT", "is enough in pictures of the other classes"),
        ({"known": False, "across": 0.4}, "EVIDENCE", f"as a part of real evidence would: it is {PASTE}"),
        ({"known": False, "classes": 5}, "INCONCLUSIVE", "cannot be told from 5 classes: give masks"),
        (
            {"known": False, "classes": 5, "family": Color()},
            "SHORTCUT",
            "while the evidence is assumed to stay readable",
        ),
        ({"known": False, "family": Color(), "gained": 0.01}, "INCONCLUSIVE", f"but is {PASTE}"),
        ({"family": Background()}, "SHORTCUT", "outside of the known evidence"),
        ({"family": Frequency(), "gained": 0.2}, "EVIDENCE", f"as a part of real evidence would: it is {PASTE}"),
        ({"family": Frequency(), "gained": 0.6}, "SHORTCUT", "while the evidence is assumed to stay readable"),
        ({"family": Color(), "gained": 0.01, "together": True}, "SHORTCUT", "stay readable"),
        ({"family": Color(), "lost": 0.01, "loss": False, "together": True}, "CLEAR", "does not decide"),
        ({"family": Frequency(), "gained": 0.6, "classes": 5}, "INCONCLUSIVE", "cannot be told from 5 classes."),
        (
            {"fills_agree": False},
            "INCONCLUSIVE",
            "takes predictions away where it is swapped, but not where it is filled",
        ),
        ({"fills_agree": False, "lost_across": 0.0}, "CLEAR", "does not decide"),
    ],
)
def test_what_decides_is_a_shortcut_evidence_or_open(given, verdict, reason):
    assert (told := judged(**given))[0] == verdict, told
    assert reason in told[1]


def judged(
    family=Place(torch.tensor([[0, 0, 2, 2]] * 6)),
    known=True,
    classes=6,
    gained=0.3,
    lost=0.3,
    across=0.9,
    both=True,
    loss=True,
    detectable=0.1,
    accept=(),
    together=False,
    fills_agree=True,
    lost_across=0.3,
):
    """Verdict on class 0, by interventions of these effects."""
    masks = torch.zeros(6, 12, 12, dtype=torch.bool)
    samples = samples_of(torch.rand(6, 3, 12, 12), range(6), masks if known else None)
    rows = torch.arange(classes)
    proof = Proof(Candidates(family, None, {0: 0.1}), samples, rows, rows.flip(0), samples.told, rows)
    won, swap = (Effect(mean, 0.0, mean / 2, 2 * mean, 50) for mean in (gained, lost))
    one = Shown(0, proof, swap, swap, won, across, fills_agree, 0.0, 0.0, detectable, together, lost_across)
    return _verdict(one, both, loss, 0.05, accept)


@pytest.mark.parametrize("number", [36, 180])
@pytest.mark.parametrize("classes", [2, 7, 37, 38, 100, 250])
def test_each_class_gives_and_takes_as_often_and_pairs_grow_as_the_classes_do(classes, number):
    turns = {label: (torch.arange(label, 9 * classes, classes),) * 2 for label in range(classes)}
    rows, donors = (part % classes for part in pairs(turns, number))
    each = -(-number // min(classes - 1, number))
    assert (rows != donors).all()
    assert rows.bincount().tolist() == donors.bincount().tolist() == [each * min(classes - 1, number)] * classes
    met = {(int(row), int(donor)) for row, donor in zip(rows, donors, strict=True)}
    assert len(met) == len(rows) // each, "no two classes meet more often than others"
    if classes - 1 <= number:
        expected = [(other, label) for label in range(classes) for other in range(classes) if other != label]
        assert list(zip(rows.tolist(), donors.tolist(), strict=True)) == [
            pair for pair in expected for _ in range(each)
        ]
