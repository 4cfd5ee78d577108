"""Similarity of maps: SciPy and scikit-image a sample at a time, hand cases, invariances, what is undefined."""

from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from skimage.feature import hog as hog_features
from skimage.metrics import structural_similarity
from torch.testing import assert_close
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_xai.sanity.similarity import (
    PRESETS,
    SIMILARITIES,
    compare,
    cosine,
    describe,
    foreground_mask,
    hog,
    hog_cell_size,
    named_similarities,
    normalize,
    pearson,
    spearman,
    spearman_absolute,
    spearman_foreground,
    ssim,
)

GENERATOR = torch.Generator().manual_seed(0)
FIRST, NOISE = (torch.randn(5, 3, 28, 30, generator=GENERATOR) for _ in range(2))
SECOND = FIRST + NOISE
FOREGROUND = torch.rand(5, 28, 30, generator=GENERATOR) > 0.7
SIGN_DOES_NOT_COUNT = ("spearman_absolute", "spearman_foreground", "ssim_absolute", "hog")
each = pytest.mark.parametrize("name", SIMILARITIES)


def score(name, first, second):
    return compare(first, second, {name: SIMILARITIES[name]}, FOREGROUND[: len(first)])[name]


def oracle(function, first=FIRST, second=SECOND, absolute=False):
    """A function of two NumPy maps, a sample at a time."""
    pairs = zip(first.sum(1).double().numpy(), second.sum(1).double().numpy(), strict=True)
    return torch.tensor([function(np.abs(x), np.abs(y)) if absolute else function(x, y) for x, y in pairs]).float()


def tied():
    """Maps with many equal values, zeros above all."""
    return (FIRST.round() * FOREGROUND[:, None], SECOND.round() * FOREGROUND[:, None])


# Oracles


def rho(x, y):
    return spearmanr(x.ravel(), y.ravel()).statistic


def test_spearman_is_scipys():
    for first, second in ((FIRST, SECOND), tied()):
        assert_close(spearman(first, second), oracle(rho, first, second))
        assert_close(spearman_absolute(first, second), oracle(rho, first, second, absolute=True))


def test_spearman_of_the_foreground_is_scipys_of_its_pixels():
    for first, second in ((FIRST, SECOND), tied()):
        masks = iter(FOREGROUND.numpy())
        expected = oracle(lambda x, y: rho(x[m := next(masks)], y[m]), first, second, absolute=True)  # noqa: B023
        assert_close(spearman_foreground(first, second, FOREGROUND), expected)


def test_pearson_is_scipys_and_cosine_is_the_quotient():
    assert_close(pearson(FIRST, SECOND), oracle(lambda x, y: pearsonr(x.ravel(), y.ravel()).statistic))
    assert_close(cosine(FIRST, SECOND), oracle(lambda x, y: (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)))


def scaled(x):
    return x / np.abs(x).max()


def test_ssim_of_the_paper_is_scikit_images_with_a_window_of_5_and_a_data_range_of_2():
    expected = oracle(lambda x, y: structural_similarity(scaled(x), scaled(y), win_size=5, data_range=2))
    assert_close(ssim(FIRST, SECOND), expected)
    assert_close(PRESETS["paper"]["ssim"](FIRST, SECOND), expected)


def test_ssim_of_absolute_maps_has_a_data_range_of_1():
    expected = oracle(lambda x, y: structural_similarity(scaled(x), scaled(y), win_size=5, data_range=1), absolute=True)
    assert_close(ssim(FIRST, SECOND, absolute=True), expected)


def test_ssim_of_the_notebook_is_gaussian_on_maps_from_0_to_1():
    def gaussian(x, y):
        x, y = ((m - m.min()) / (m.max() - m.min()) for m in (x, y))
        return structural_similarity(x, y, gaussian_weights=True, data_range=1)

    assert_close(PRESETS["notebook"]["ssim"](FIRST, SECOND), oracle(gaussian))


def test_ssim_of_maps_as_they_are_has_the_data_range_of_both():
    def plain(x, y):
        return structural_similarity(x, y, win_size=5, data_range=2 * max(np.abs(x).max(), np.abs(y).max()))

    assert_close(ssim(FIRST, 3 * SECOND, "none"), oracle(plain, FIRST, 3 * SECOND))


def test_torchmetrics_ssim_is_ours_without_border_and_with_population_covariances():
    """So it cannot stand in: the whole image's mean, and the divisor, are others."""
    x, y = (normalize(maps.sum(1), "maximum")[:, None] for maps in (FIRST, SECOND))
    options = {"gaussian_kernel": False, "kernel_size": 5, "data_range": 2.0, "reduction": "none"}
    whole, image = structural_similarity_index_measure(x, y, **options, return_full_image=True)
    population = oracle(
        lambda x, y: structural_similarity(scaled(x), scaled(y), win_size=5, data_range=2, use_sample_covariance=False)
    )
    assert_close(image[:, 0, 2:-2, 2:-2].mean((1, 2)), population, rtol=0, atol=1e-4)
    assert ((whole - ssim(FIRST, SECOND)).abs() > 1e-3).any()


@pytest.mark.parametrize(("shape", "cell"), [((48, 50), 16), ((28, 30), 9), ((32, 32), 10), ((224, 64), 16)])
def test_hog_is_scikit_images_with_cells_of_16_where_they_fit(shape, cell):
    first, second = (torch.randn(3, 2, *shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert hog_cell_size(*shape) == cell
    features = [
        [hog_features(scaled(m), pixels_per_cell=(cell, cell)) for m in maps.sum(1).double().numpy()]
        for maps in (first, second)
    ]
    for function, correlate in ((hog, pearsonr), (PRESETS["notebook"]["hog"], spearmanr)):
        if function is not hog:
            features = [
                [hog_features((m - m.min()) / (m.max() - m.min()), pixels_per_cell=(cell, cell)) for m in maps]
                for maps in (first.sum(1).double().numpy(), second.sum(1).double().numpy())
            ]
        expected = torch.tensor([correlate(x, y).statistic for x, y in zip(*features, strict=True)]).float()
        assert_close(function(first, second), expected)
        assert_close(function(first, second, cell_size=cell), expected)


# Hand cases


def test_by_hand():
    first = torch.tensor([1.0, 2.0, 3.0, -4.0]).view(1, 1, 2, 2)
    second = torch.tensor([1.0, 2.0, 4.0, 3.0]).view(1, 1, 2, 2)
    assert_close(spearman(first, second), torch.tensor([0.4]))  # ranks 2 3 4 1 and 1 2 4 3
    assert_close(spearman_absolute(first, second), torch.tensor([0.8]))  # ranks 1 2 3 4 and 1 2 4 3
    mask = torch.tensor([[[True, True], [True, False]]])
    assert_close(spearman_foreground(first, second, mask), torch.tensor([1.0]))
    assert_close(cosine(first, second), torch.tensor([5 / 30]))


@each
def test_channels_are_summed_with_their_signs(name):
    summed, opposite = FIRST.sum(1, keepdim=True), torch.full((5, 1, 28, 30), 2.0)
    split = torch.cat([summed + opposite, -opposite], dim=1)
    assert_close(score(name, split, SECOND[:, :2]), score(name, torch.cat([summed, 0 * summed], 1), SECOND[:, :2]))


@each
def test_identical_maps_score_1_and_the_order_does_not_count(name):
    assert_close(score(name, FIRST, FIRST.clone()), torch.ones(5))
    assert_close(score(name, FIRST, SECOND), score(name, SECOND, FIRST), rtol=0, atol=1e-6)
    assert (score(name, FIRST, SECOND) < 0.95).all()


@each
def test_a_map_and_its_negative(name):
    if name in SIGN_DOES_NOT_COUNT:
        assert_close(score(name, FIRST, -FIRST), torch.ones(5))
    elif name == "ssim":  # means and structure both change their signs, so the product need not be negative
        assert (score(name, FIRST, -FIRST) > 0).all()
    else:
        assert_close(score(name, FIRST, -FIRST), -torch.ones(5))


@each
@pytest.mark.parametrize("factor", [1e-12, 3.0, 1e10])
def test_the_scale_of_a_map_does_not_count(name, factor):
    assert_close(score(name, FIRST, factor * SECOND), score(name, FIRST, SECOND), rtol=0, atol=1e-5)


def test_spearman_sees_the_order_alone():
    assert_close(spearman(FIRST.sum(1, True).exp(), SECOND.sum(1, True).pow(3)), spearman(FIRST, SECOND))
    squares = [maps.sum(1, True).square() for maps in (FIRST, SECOND)]
    assert_close(spearman_absolute(*squares), spearman_absolute(FIRST, SECOND))
    assert_close(spearman_foreground(*squares, FOREGROUND), spearman_foreground(FIRST, SECOND, FOREGROUND))


def test_pearson_does_not_see_a_constant_and_cosine_does():
    assert_close(pearson(FIRST + 2, SECOND), pearson(FIRST, SECOND))
    assert ((cosine(FIRST + 2, SECOND) - cosine(FIRST, SECOND)).abs() > 0.01).all()


def test_a_tied_background_makes_unrelated_maps_similar_unless_it_is_masked():
    """Integrated gradients and input times gradient are zero where the image is, whatever the model."""
    maps = [torch.where(FOREGROUND[:, None], values, 0.0) for values in (FIRST, NOISE)]
    mask = foreground_mask(FOREGROUND[:, None].float(), 0.0)
    assert torch.equal(mask, FOREGROUND)
    assert (spearman_absolute(*maps) > 0.6).all()
    assert (spearman_foreground(*maps, mask).abs() < 0.2).all()
    outside = torch.where(mask[:, None], 0.0, torch.randn(FIRST.shape, generator=torch.Generator().manual_seed(3)))
    assert_close(spearman_foreground(maps[0] + outside, maps[1], mask), spearman_foreground(*maps, mask))


def test_foreground_differs_from_the_background_in_some_channel():
    background = torch.tensor([-0.4, -1.9])[:, None, None]
    images = background.repeat(2, 1, 3, 3)
    images[0, 1, 2, 0] += 0.1
    expected = torch.zeros(2, 3, 3, dtype=torch.bool)
    expected[0, 2, 0] = True
    assert torch.equal(foreground_mask(images, background), expected)
    assert foreground_mask(images, 0.0).all()


# Normalizers


def test_normalizers_by_hand():
    maps = torch.tensor([[[0.0, -2.0], [1.0, 4.0]]])
    assert torch.equal(normalize(maps, "none"), maps)
    assert_close(normalize(maps, "maximum"), maps / 4)
    assert_close(normalize(maps, "second_moment"), maps / (21 / 4) ** 0.5)
    assert_close(normalize(maps, "range"), (maps + 2) / 6)


def test_percentile_cuts_off_the_outliers():
    maps = FIRST.sum(1).clone()
    maps[:, 0, 0] = -1e6
    expected = np.percentile(maps.abs().flatten(1).numpy(), 99, axis=1)
    actual = normalize(maps, "percentile")
    assert_close(actual, (maps / torch.tensor(expected)[:, None, None].float()).clamp(-1, 1))
    assert actual.min() == -1


@pytest.mark.parametrize("normalizer", ["maximum", "percentile", "second_moment", "range", "none"])
def test_normalizers_are_used(normalizer):
    """By SSIM, whose constants have a scale; the second map is twice the first with an outlier."""
    first, second = FIRST.clone(), 2 * FIRST
    second[:, :, 0, 0] += 100
    x, y = (normalize(maps.sum(1).double(), normalizer).numpy() for maps in (first, second))
    size = [max(abs(a).max(), abs(b).max()) * (1 if normalizer == "range" else 2) for a, b in zip(x, y, strict=True)]
    expected = [structural_similarity(a, b, win_size=5, data_range=r) for a, b, r in zip(x, y, size, strict=True)]
    assert_close(ssim(first, second, normalizer), torch.tensor(expected).float(), rtol=0, atol=1e-4)
    assert hog(first, second, normalizer).isfinite().all()


# Undefined


@each
def test_zero_and_infinite_maps_are_undefined_one_by_one(name):
    first = FIRST.clone()
    first[1], first[2, 0, 3, 3], first[3, 1, 0, 0] = 0.0, torch.nan, torch.inf
    actual = score(name, first, SECOND)
    assert actual.isnan().tolist() == [False, True, True, True, False]
    assert_close(actual[[0, 4]], score(name, FIRST, SECOND)[[0, 4]])
    assert score(name, SECOND, first).isnan().tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("value", [0.1, -3e7])
def test_correlations_with_a_constant_map_are_undefined(value):
    constant = torch.full_like(FIRST, value)
    for name in ("spearman", "spearman_absolute", "spearman_foreground", "pearson", "hog"):
        assert score(name, FIRST, constant).isnan().all(), name
    assert ssim(FIRST, constant, "range").isnan().all()
    assert ssim(FIRST, constant).isfinite().all()
    assert cosine(FIRST, constant).isfinite().all()


def test_a_foreground_of_no_pixel_or_one_is_undefined():
    mask = FOREGROUND.clone()
    mask[0], mask[1] = False, False
    mask[1, 4, 4] = True
    assert spearman_foreground(FIRST, SECOND, mask).isnan().tolist() == [True, True, False, False, False]


def test_mostly_zero_maps_have_no_99th_percentile():
    sparse = torch.zeros(2, 1, 30, 30)
    sparse[:, 0, 5, 5] = 1
    assert normalize(sparse[:, 0], "percentile").isnan().all()
    assert ssim(sparse, sparse, "percentile").isnan().all()
    assert ssim(torch.zeros(2, 1, 9, 9), torch.zeros(2, 1, 9, 9), "none").isnan().all()


# Types, shapes, presets, errors


@each
def test_any_type_gives_float32(name):
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)):
        actual = score(name, FIRST.to(dtype).requires_grad_(), SECOND.to(dtype))
        assert actual.dtype == torch.float32
        assert not actual.requires_grad
        assert_close(actual, score(name, FIRST, SECOND), rtol=0, atol=tolerance)


@each
def test_samples_do_not_depend_on_each_other(name):
    assert_close(score(name, FIRST[:2], SECOND[:2]), score(name, FIRST, SECOND)[:2])


def test_presets():
    assert list(PRESETS["paper"]) == list(PRESETS["notebook"]) == ["spearman", "spearman_absolute", "ssim", "hog"]
    assert list(compare(FIRST, SECOND)) == list(PRESETS["paper"])
    for name, values in compare(FIRST, SECOND, SIMILARITIES, FOREGROUND).items():
        assert_close(values, score(name, FIRST, SECOND))
    with pytest.raises(TypeError):
        PRESETS["paper"]["ssim"] = spearman


def test_presets_and_normalizers_are_of_ssim_and_hog_alone():
    for preset in ("paper", "notebook"):
        for normalizer in (None, "none", "maximum", "percentile", "second_moment"):
            found = named_similarities(preset, normalizer)
            scale = normalizer or ("maximum" if preset == "paper" else "range")
            notebook = preset == "notebook"
            assert list(found) == list(SIMILARITIES)
            expected = {
                "ssim": ssim(FIRST, SECOND, scale, gaussian=notebook),
                "ssim_absolute": ssim(FIRST, SECOND, scale, absolute=True, gaussian=notebook),
                "hog": hog(FIRST, SECOND, scale, ranks=notebook),
            }
            scores = compare(FIRST, SECOND, found, FOREGROUND)
            assert_close({name: scores[name] for name in expected}, expected, rtol=0, atol=0)
            same = {name for name, similarity in found.items() if similarity is SIMILARITIES[name]}
            assert same == SIMILARITIES.keys() - expected.keys()


def test_similarities_are_described_with_their_options():
    assert describe(spearman) == "spearman"
    assert describe(named_similarities("notebook")["hog"]) == "hog(normalizer='range', ranks=True)"
    assert describe(partial(partial(ssim, absolute=True), gaussian=True)) == "ssim(absolute=True, gaussian=True)"


@pytest.fixture
def _no_type_checker(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("_no_type_checker")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: spearman(FIRST, SECOND[:3]), ValueError, "`first` and `second` must be .* of one shape; got"),
        (lambda: ssim(FIRST[:, 0, 0], SECOND[:, 0, 0]), ValueError, "must have places side by side for SSIM"),
        (lambda: hog(FIRST[:, 0], SECOND[:, 0]), ValueError, "must be of images for HOG"),
        (lambda: ssim(FIRST, SECOND, "max"), ValueError, "`normalizer` must be one of 'none', 'maximum', .*got 'max'"),
        (lambda: ssim(FIRST[..., :4], SECOND[..., :4]), ValueError, "at least 5 x 5 pixels .* got 28 x 4: leave SSIM"),
        (lambda: ssim(FIRST[..., :9], SECOND[..., :9], gaussian=True), ValueError, "at least 11 x 11 pixels"),
        (lambda: hog(FIRST, SECOND, cell_size=16), ValueError, "at least 48 x 48 pixels .*got 28 x 30: give a smaller"),
        (lambda: hog(FIRST[..., :5], SECOND[..., :5]), ValueError, "`cell_size` must be at least 2, got 1; maps of"),
        (lambda: named_similarities("tf1"), ValueError, "`preset` must be one of 'paper', 'notebook', got 'tf1'"),
        (lambda: named_similarities("paper", "max"), ValueError, "`normalizer` must be one of 'none', .*got 'max'"),
        (lambda: compare(FIRST, SECOND, SIMILARITIES), ValueError, "'spearman_foreground' needs `foreground`, a mask"),
        (lambda: spearman_foreground(FIRST, SECOND, FOREGROUND.int()), TypeError, "must be a boolean tensor"),
        (lambda: spearman_foreground(FIRST, SECOND, FOREGROUND[:2]), ValueError, r"the shape \(5, 28, 30\)"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
