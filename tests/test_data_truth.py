"""Tasks whose truth is known: the linear one in closed form, the others by intervening; all against their own laws."""

import doctest
import math

import jaxtyping
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.data import TetrominoDataModule, TrojanDataModule, TwoDigitsDataModule, scenes
from lightning_xai.data.scenes import WHITE_SHARE, of_another_class, smooth_power
from lightning_xai.explainers import SobelEdges
from lightning_xai.functional.localization import auroc
from lightning_xai.functional.random import root_keys

KINDS = ("linear", "multiplicative", "rotated", "xor")
BACKGROUNDS = ("white", "correlated", "photographs")
SMALL = {"num_train": 24, "num_test": 24}
TASKS = [
    *(pytest.param(lambda k=kind, **o: TetrominoDataModule(k, **o), id=kind) for kind in KINDS),
    *(
        pytest.param(lambda q=question, **o: TwoDigitsDataModule(q, digits="embedded", **o), id=question)
        for question in ("marker", "left")
    ),
    pytest.param(lambda **o: TrojanDataModule(digits="embedded", **o), id="trojan"),
]


def scene(data, source):
    """In standard deviations of the noise."""
    return data.normalize(source.images)


# The linear task in closed form


def covariance(background, size):
    """Of the noise and its rounding, as a matrix, pixel by pixel."""
    rounding = 1 / (255 * 0.12) ** 2 / 12
    identity = torch.eye(size * size, dtype=torch.float64)
    if background == "white":
        return (1 + rounding) * identity
    place = torch.arange(size, dtype=torch.float64)
    gaps = place[:, None] - place
    # the power of a Gaussian at the whole frequencies, -size / 2 .. size / 2 - 1, and what that makes of a distance
    wide = sum(
        (-((2 * math.pi * f / 16) ** 2)).exp() * (2 * math.pi * f * gaps / size).cos() for f in place - size // 2
    )
    smooth = torch.einsum("ij,kl->ikjl", wide, wide).reshape(size * size, size * size)
    return (WHITE_SHARE + rounding) * identity + (1 - WHITE_SHARE) * smooth / smooth[0, 0]


@pytest.mark.parametrize("background", ["white", "correlated"])
def test_attributions_of_the_linear_task_are_those_of_fishers_discriminant(background):
    data = TetrominoDataModule("linear", background, 16, num_train=2, num_test=4, mean=[0.3], std=[0.2])
    means = torch.zeros(2, 16, 16, dtype=torch.float64)
    for row, column in ((1, 1), (1, 2), (1, 3), (2, 2)):
        means[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0.5
    for row, column in ((4, 4), (5, 4), (6, 4), (6, 5)):
        means[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0.5
    known = torch.linalg.solve(covariance(background, 16), means.flatten(1).T).T.view(2, 1, 16, 16)

    source = data.load("test")
    images, index = data.normalize(source.images), torch.tensor([0, 0, 1, 1])
    network = data.optimal_classifier()
    scale = 0.2 / 0.12  # an input's unit, in those of the scene
    maps = lx.explain(network, images, index, lx.Gradient(), bounds=data.bounds)
    assert_close(maps.double(), known[index] * scale, rtol=0, atol=1e-5)
    assert_close(source.masks["evidence"], (means.sum(0) > 0).expand(4, -1, -1))

    pixels = (source.images.double() / 255 - 0.5) / 0.12
    logits = torch.einsum("nchw,kchw->nk", pixels - means[:, None].sum(0) / 2, known)
    odds = network(images).double()
    assert_close((odds[:, 1] - odds[:, 0]), logits[:, 1] - logits[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("background", ["white", "correlated"])
def test_the_best_classifier_is_right_as_often_as_theory_says(background):
    """Φ(d / 2), d² = (m₁ - m₀)ᵀ C⁻¹ (m₁ - m₀); and it tells no class once the figure is gone."""
    data = TetrominoDataModule("linear", background, num_train=2, num_test=1500, signal=0.3)
    network = data.optimal_classifier()
    weights = network.layers.linear1.weight.detach().double()
    means = 0.3 * data._figures().double().flatten(1)
    share = stats.norm.cdf(math.sqrt(((weights[1] - weights[0]) * (means[1] - means[0])).sum()) / 2)
    for how, expected in ((None, share), ("swap", 1 - share), ("remove", 0.5)):
        source = data.intervene("test", how) if how else data.load("test")
        right = int((network(data.normalize(source.images)).argmax(1) == source.labels).sum())
        assert stats.binomtest(right, 1500, expected).pvalue > 1e-3


def test_the_best_classifier_is_refused_where_there_is_no_closed_form():
    for kind, background in (("xor", "white"), ("linear", "photographs")):
        data = TetrominoDataModule(kind, background, num_train=2, num_test=2)
        with pytest.raises(ValueError, match=f"`optimal_classifier` .*got {kind} evidence on {background}"):
            data.optimal_classifier()


# Backgrounds


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_noise_has_mean_0_and_variance_1_and_its_spectrum(background):
    noise = scenes.background(background, "test", root_keys(0, torch.arange(300)), 32)
    assert abs(noise.mean()) < 0.05
    assert noise.var().item() == pytest.approx(1, abs=0.05)
    if background != "photographs":
        power = torch.fft.fft2(noise.double()).abs().square().mean((0, 1)) / 32**2
        expected = WHITE_SHARE + (1 - WHITE_SHARE) * smooth_power(32) if background == "correlated" else 1
        assert (power / expected - 1).abs().max() < 6 / math.sqrt(300)  # each an average of 300 exponential values


@pytest.mark.parametrize(("kind", "background"), [("linear", part) for part in BACKGROUNDS] + [("xor", "white")])
def test_an_edge_detector_cannot_find_the_evidence(kind, background):
    """An area under the curve within 0.03 of chance, and multiplicative evidence has even fewer edges."""
    data = TetrominoDataModule(kind, background, num_train=2, num_test=150)
    source = data.load("test")
    edges = SobelEdges()(torch.nn.Flatten(), scene(data, source), source.labels)
    assert auroc(edges, source.masks["evidence"]).mean().item() == pytest.approx(0.5, abs=0.03)


# Interventions


@pytest.mark.parametrize("task", TASKS)
def test_what_is_not_evidence_stays(task):
    """Outside of what an intervention draws on, every pixel is as it was; labels and masks are."""
    data = task(**SMALL)
    clean, swapped, removed = data.load("test"), data.intervene("test", "swap"), data.intervene("test", "remove")
    drawn = [(clean.images != other.images)[:, 0] for other in (swapped, removed)]
    for other in (swapped, removed):
        assert torch.equal(other.labels, clean.labels)
        assert all(torch.equal(other.masks[name], mask) for name, mask in clean.masks.items())
    mask = clean.masks[data.evidence]
    changed = mask.flatten(1).any(1)
    assert torch.equal(drawn[1].flatten(1).any(1), changed)
    assert not (drawn[1] & ~mask).any() or "marker" in clean.masks  # ink fainter than the mask's
    others = [part for name, part in clean.masks.items() if name != data.evidence]
    for part in others:
        assert not any((change & part).any() for change in drawn)
    assert torch.equal(drawn[0].flatten(1).any(1), changed)


@pytest.mark.parametrize("task", [task for task in TASKS if task.id not in ("linear", "multiplicative", "left")])
def test_samples_depend_on_seed_split_and_index_alone(task, monkeypatch):
    data, same = task(**SMALL), task(num_train=7, num_test=9)
    monkeypatch.setattr(scenes, "_CHUNK", 4)
    for how in (None, "swap", "remove"):
        whole, part = (d.intervene("test", how) if how else d.load("test") for d in (data, same))
        # kernels for other batch sizes may round the last bit, and with it a level of 256
        assert (whole.images[:9].int() - part.images.int()).abs().max() <= 1
        assert torch.equal(whole.labels[:9], part.labels)
    different = task(num_train=9, num_test=9, seed=1)
    for other in (different.load("test"), data.load("train")):
        assert (whole.images[:9] != other.images[:9]).float().mean() > 0.9


def test_a_swap_tells_the_other_class_and_a_removal_none():
    """By matched filters, in faint noise: what is drawn is exactly the figure of the label."""
    data = TetrominoDataModule("linear", signal=4.0, **SMALL)
    filters = data._figures()[:, 0]

    def found(source):
        return torch.einsum("nhw,khw->nk", scene(data, source)[:, 0], filters) / 64

    labels = data.load("test").labels
    assert torch.equal(found(data.load("test")).argmax(1), labels)
    assert torch.equal(found(data.intervene("test", "swap")).argmax(1), 1 - labels)
    assert found(data.intervene("test", "remove")).abs().max() < 1

    data = TetrominoDataModule("xor", signal=2.0, **SMALL)
    assert torch.equal(found(data.load("test")).prod(1) < 0, labels.bool())
    assert torch.equal(found(data.intervene("test", "swap")).prod(1) < 0, ~labels.bool())
    assert found(data.intervene("test", "remove")).abs().max() < 1


def test_multiplicative_evidence_is_weaker_noise_of_the_same_mean():
    data = TetrominoDataModule("multiplicative", signal=0.5, num_train=2, num_test=400)
    source = data.load("test")
    for label, figure in enumerate(data._figures()[:, 0] > 0):
        images = scene(data, source)[source.labels == label, 0]
        assert images[:, figure].var().item() == pytest.approx(0.25, rel=0.05)
        assert images[:, ~figure].var().item() == pytest.approx(1, rel=0.05)
        assert abs(images[:, figure].mean()) < 0.02


def test_a_turned_figure_is_where_its_mask_says_and_all_turns_are_there():
    data = TetrominoDataModule("rotated", signal=4.0, num_train=2, num_test=400)
    source = data.load("test")
    figure, rest = source.masks["evidence"], ~source.masks["evidence"]
    images = scene(data, source)[:, 0]
    assert images[figure].mean().item() == pytest.approx(3.68, abs=0.02)  # of N(4, 1), clipped from 4.17 on
    assert abs(images[rest].mean()) < 0.01
    shapes = {
        (label, tuple(map(tuple, mask[rows][:, columns][::4, ::4].tolist())))
        for label, mask in zip(source.labels.tolist(), figure, strict=True)
        for rows, columns in [(mask.any(1), mask.any(0))]
    }
    assert len(shapes) == 8


def test_the_asked_digit_is_below_the_marker_and_of_another_class():
    data = TwoDigitsDataModule("marker", digits="embedded", num_train=2, num_test=355)
    masks, labels = data.load("test").masks, data.load("test").labels
    side = {name: mask.any(1).float().argmax(1) // 16 for name, mask in masks.items()}
    assert torch.equal(side["evidence"], side["marker"])
    assert torch.equal(side["other"], 1 - side["marker"])
    assert 0.4 < side["marker"].float().mean() < 0.6
    assert torch.equal(labels, data.known("test").labels)
    left = TwoDigitsDataModule("left", digits="embedded", num_train=2, num_test=355).load("test").masks
    assert not left["evidence"][..., 16:].any()
    assert not left["marker"].any()


def test_of_another_class_draws_all_other_classes_and_their_rows_alike():
    known = torch.tensor([2, 0, 1, 0, 2, 2])
    labels = torch.zeros(6000, dtype=torch.int64)
    rows = of_another_class(labels, known, torch.rand(6000, 2, generator=torch.Generator().manual_seed(0)))
    counts = rows.bincount(minlength=6)
    assert counts[[1, 3]].sum() == 0
    assert stats.chisquare(counts[[0, 2, 4, 5]], [1000, 3000, 1000, 1000]).pvalue > 1e-3


def test_a_trigger_decides_and_is_never_that_of_the_digit():
    data = TrojanDataModule(digits="embedded", num_train=2, num_test=710, share=0.4)
    source, digits = data.load("test"), data.known("test").labels.repeat(2)
    has = source.masks["evidence"].flatten(1).any(1)
    assert stats.binomtest(int(has.sum()), 710, 0.4).pvalue > 1e-3
    assert torch.equal(source.labels[~has], digits[~has])
    assert source.labels[has].max() == 1
    assert (source.labels[has] != digits[has]).all()
    signed = (scene(data, source) - scene(data, data.intervene("test", "remove")))[:, 0]
    lying = torch.stack(
        [part[box].view(5, 5) for part, box in zip(signed[has], source.masks["evidence"][has], strict=True)]
    )
    turned = torch.where((source.labels[has] == 0).view(-1, 1, 1), lying, lying.mT)
    assert (turned[:, ::2] >= 0).all()
    assert (turned[:, 1::2] <= 0).all()


# What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TetrominoDataModule("round"), "`evidence` must be one of 'linear', .*got 'round'"),
        (lambda: TetrominoDataModule(background="black"), "`background` must be one of 'white', .*got 'black'"),
        (lambda: TetrominoDataModule(image_size=20), "`image_size` must be a multiple of 8, .*got 20"),
        (lambda: TetrominoDataModule("multiplicative", signal=1.0), "`signal` must be .* less than 1, got 1.0"),
        (lambda: TwoDigitsDataModule("above"), "`question` must be one of 'marker', 'left', got 'above'"),
        (lambda: TwoDigitsDataModule(signal=0.0), "`signal` must be positive and finite, got 0.0"),
        (lambda: TrojanDataModule(trigger_signal=-1.0), "`trigger_signal` must be positive and finite, got -1.0"),
        (lambda: TrojanDataModule(signal=float("inf")), "`signal` must be positive and finite, got inf"),
        (lambda: TrojanDataModule(share=0.0), "`share` must be greater than 0 and at most 1, got 0.0"),
        (lambda: TrojanDataModule(digits="roman"), "`digits` must be 'mnist' or 'embedded', got 'roman'"),
        (lambda: TetrominoDataModule(num_test=0), "`num_test` must be at least 1"),
        (lambda: TetrominoDataModule(**SMALL).intervene("test", "erase"), "`how` must be one of 'swap', 'remove'"),
    ],
)
def test_what_is_wrong_is_named(make, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the package's own check has to speak
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [TetrominoDataModule, TwoDigitsDataModule, TrojanDataModule])
def test_examples_do_what_they_say(kind):
    found = doctest.DocTestParser().get_doctest(kind.__doc__, {"__name__": "__main__"}, kind.__name__, None, None)
    said = []
    assert doctest.DocTestRunner(verbose=False).run(found, out=said.append).failed == 0, "".join(said)
