"""Bounds are met to rounding: no noise, nothing out of range, no foreground there; samples outside are refused."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import nn
from torch.testing import assert_close
from torchvision.transforms import CenterCrop, Compose, Lambda, Normalize, RandomApply, ToTensor, v2
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

import lightning_xai as lx
from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.explainers import (
    CaptumExplainer,
    Context,
    Gradient,
    InRangeScale,
    IntegratedGradients,
    Smooth,
    gradient_shap,
)
from lightning_xai.explainers.bounds import check_in_bounds, parse_bounds
from lightning_xai.functional.bounds import bound_tolerance, put_on_bounds
from lightning_xai.functional.noise import inherent_noise
from lightning_xai.functional.scales import distance_to_bounds, out_of_range_probability
from lightning_xai.metrics import AverageSensitivity, InherentNoise
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import examine
from lightning_xai.sanity.invariance import invariance_maps, shifted_twin
from lightning_xai.sanity.similarity import SIMILARITIES, foreground_mask

STATISTICS = {
    "MNIST": ([0.1307], [0.3081]),
    "FashionMNIST": ([0.2860], [0.3530]),
    "CIFAR10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "ImageNet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
GRID = [([mean], [std]) for mean in np.linspace(0, 1, 6).tolist() for std in (0.03, 0.3081, 1.7)]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _readme_floats(mean, std):
    return [(0 - m) / s for m, s in zip(mean, std, strict=True)], [(1 - m) / s for m, s in zip(mean, std, strict=True)]


def _readme_tensors(mean, std):
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return (0 - mean) / std, (1 - mean) / std


def _readme_numpy(mean, std):
    return (0 - np.array(mean)) / np.array(std), (1 - np.array(mean)) / np.array(std)


def _readme_numpy_single(mean, std):
    mean, std = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
    return (0 - mean) / std, (1 - mean) / std


FORMULAS = (_readme_floats, _readme_tensors, _readme_numpy, _readme_numpy_single, lx.bounds)


def _pixels(channels):
    """Black, white, and grays that are neither in bfloat16; at the top of each image and elsewhere."""
    levels = torch.cat([torch.tensor([0, 255] * 8), torch.arange(16, 240, 7).repeat_interleave(2)]).view(1, 1, 4, -1)
    return levels.expand(2, channels, -1, -1).to(torch.uint8)


def _normalized(pixels, mean, std, dtype):
    """The same pixels by several arithmetics: torchvision's in the type, in float32 and rounded, and a fused one."""
    images = pixels / 255
    scale, shift = (1 / np.array(std))[:, None, None], (-np.array(mean) / np.array(std))[:, None, None]
    yield Normalize(mean, std)(images.to(dtype))
    yield Normalize(mean, std)(images).to(dtype)
    yield torch.addcmul(torch.from_numpy(shift).float(), images, torch.from_numpy(scale).float()).to(dtype)


def _cases(statistics, dtypes=DTYPES):
    for mean, std in statistics:
        for dtype in dtypes:
            for images in _normalized(_pixels(len(mean)), mean, std, dtype):
                for formula in FORMULAS:
                    yield images, formula(mean, std)


def _settled(bounds, images):
    return parse_bounds(bounds, dtype=images.dtype)


@pytest.mark.parametrize("solution", ["default", "literal", "exact"])
@pytest.mark.parametrize("name", STATISTICS)
def test_black_and_white_get_no_noise_and_the_rest_does(name, solution):
    scale = InRangeScale(solution=solution)
    for images, bounds in _cases([STATISTICS[name]]):
        std = scale(images, Context.create(torch.arange(2), bounds=bounds, dtype=images.dtype))
        edge = torch.isin(_pixels(images.shape[1]), torch.tensor([0, 255], dtype=torch.uint8))
        assert std.dtype == images.dtype
        assert torch.equal(std == 0, edge), (images.dtype, bounds)


@pytest.mark.parametrize("statistics", [*STATISTICS.values(), GRID], ids=[*STATISTICS, "grid"])
def test_without_noise_nothing_is_out_of_range(statistics):
    for images, bounds in _cases(statistics if statistics is GRID else [statistics]):
        low, high = _settled(bounds, images)
        check_in_bounds(images, bounds)
        assert (out_of_range_probability(images, torch.tensor(0.0), low, high) == 0).all(), (images.dtype, bounds)
        assert (inherent_noise(images, torch.zeros_like(images), low, high) == 0).all()


@pytest.mark.parametrize("statistics", [*STATISTICS.values(), GRID], ids=[*STATISTICS, "grid"])
def test_the_foreground_is_what_is_not_black(statistics):
    for images, bounds in _cases(statistics if statistics is GRID else [statistics]):
        low, _ = _settled(bounds, images)
        expected = (_pixels(images.shape[1]) > 0).any(1)
        assert torch.equal(foreground_mask(images, low), expected), (images.dtype, bounds)
        subject = Subject(nn.Identity(), images, torch.zeros(2).long(), torch.arange(2), {}, {}, bounds)
        assert torch.equal(subject.foreground, expected)


def test_one_pair_of_bounds_for_all_channels_is_met_to_rounding_too():
    mean, std = STATISTICS["CIFAR10"]
    for images, bounds in _cases([(mean, std)], [torch.float32, torch.float64]):
        chosen = InRangeScale(per_channel=False)(images, Context.create(torch.arange(2), bounds=bounds))
        low, high = lx.bounds(mean, std)
        assert (chosen[:, low.argmin()][_pixels(1)[:, 0] == 0] == 0).all()
        assert (chosen[:, high.argmax()][_pixels(1)[:, 0] == 255] == 0).all()


def test_far_bounds_are_met_in_double_precision():
    low, high = 1000.123, 1000.124  # in float32, 1000.123 is a twentieth of the range away
    x = torch.tensor([[low, (low + high) / 2, high]], dtype=torch.float64)
    (std,) = InRangeScale()(x, Context.create(torch.arange(1), bounds=(low, high), dtype=x.dtype)).tolist()
    assert std[0] == std[2] == 0
    assert std[1] == pytest.approx(0.0005 / 1.959964, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tolerance_is_a_millionth_of_the_range_or_four_roundings(dtype):
    low, high = torch.tensor([-3.0, 0.0]), torch.tensor([1.0, 1e-3])
    eps = torch.finfo(dtype).eps
    expected = torch.tensor([max(4e-6, 4 * eps * 3), max(1e-9, 4 * eps * 1e-3)])
    assert_close(bound_tolerance(low, high, dtype), expected)


@pytest.mark.parametrize("sign", [-1, 1])
def test_what_is_outside_has_no_room_and_stays_outside(sign):
    low, high = torch.tensor(0.0), torch.tensor(1.0)
    x = torch.tensor([[0.5 + sign * (0.5 + excess) for excess in (-3e-6, -5e-7, 5e-7, 3e-6, 0.2)]])
    assert ((distance_to_bounds(x, low, high) > 0) == torch.tensor([True, False, False, False, False])).all()
    assert out_of_range_probability(x, torch.zeros(1), low, high).tolist() == [[0, 0, 0, 1, 1]]
    settled = put_on_bounds(x, low, high)[0]
    assert torch.equal(settled != x, torch.tensor([[False, True, True, False, False]]))


# Explanations


class PoolingNet(nn.Module):
    """Pools first, so that a rounding of noise on a flat background moves where its gradient goes."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(4 * 16, 5)

    def forward(self, x):
        return self.head(nn.functional.max_pool2d(self.conv(x).relu(), 2).flatten(1))


def _digits(mean, std, size=8):
    pixels = torch.zeros(3, len(mean), size, size)
    pixels[:, :, 3:6, 2:5] = torch.rand(3, len(mean), 3, 3, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.05
    return pixels, Normalize(mean, std)(pixels)


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("method", [lx.adapt_grad(num_draws=8), IntegratedGradients(lx.adapt_grad(num_draws=2))])
def test_a_rounding_of_the_bounds_changes_no_map(name, formula, method):
    mean, std = STATISTICS[name]
    _, images = _digits(mean, std)
    model = PoolingNet(len(mean))
    exact = Normalize(mean, std)(torch.zeros(len(mean), 1, 1)), Normalize(mean, std)(torch.ones(len(mean), 1, 1))
    expected = lx.explain(model, images, 0, method, bounds=exact)
    found = lx.explain(model, images, 0, method, bounds=formula(mean, std))
    assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "method",
    [IntegratedGradients(), CaptumExplainer(CaptumIntegratedGradients, baseline="black"), gradient_shap("black", 5)],
    ids=["ours", "captum", "shap"],
)
def test_black_has_no_part_in_the_difference_from_black(method):
    mean, std = STATISTICS["MNIST"]
    pixels, images = _digits(mean, std)
    for formula in FORMULAS:
        found = lx.explain(PoolingNet(1), images, 0, method, bounds=formula(mean, std))
        assert (found[pixels == 0] == 0).all()
        assert (found[pixels > 0] != 0).any()


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "CIFAR10"])
def test_the_plain_gradient_has_no_inherent_noise(name):
    mean, std = STATISTICS[name]
    _, images = _digits(mean, std)
    for dtype in (torch.float32, torch.float64):
        model = PoolingNet(len(mean)).to(dtype)
        for formula in FORMULAS:
            given = images.to(dtype), 0, {"gradient": Gradient()}, {"noise": InherentNoise()}
            scores = lx.evaluate(model, *given, bounds=formula(mean, std)).scores["gradient"]
            assert (scores["noise"] == 0).all()


# What is refused


def _front_doors(images, bounds):
    model = PoolingNet(images.shape[1])
    index, target = torch.arange(len(images)), torch.zeros(len(images), dtype=torch.int64)
    subject = Subject(model, images, target, index, {"gradient": Gradient()}, dict(SIMILARITIES), bounds)
    return {
        "explain": lambda: lx.explain(model, images, 0, Gradient(), bounds=bounds),
        "evaluate": lambda: lx.evaluate(model, images, 0, {"gradient": Gradient()}, bounds=bounds),
        "invariance": lambda: invariance_maps(model, model, 0.0, images, 0, Gradient(), bounds),
        "sanity": lambda: examine(subject, similarity="spearman"),
    }


@pytest.mark.parametrize("door", ["explain", "evaluate", "invariance", "sanity"])
def test_samples_outside_of_the_bounds_are_refused_with_their_range(door):
    _, images = _digits(*STATISTICS["MNIST"])
    images[1, 0, 3, 3] = 2.5
    with pytest.raises(ValueError, match=r"from -0\.4242\d* to 2\.5, and the bounds are 0 and 1\."):
        _front_doors(images, (0.0, 1.0))[door]()


@pytest.mark.parametrize("dtype", DTYPES)
def test_refused_is_what_is_further_outside_than_the_tolerance(dtype):
    allowed = max(1e-4 * 4, 4 * torch.finfo(dtype).eps * 3)
    for outside in (-3 - 0.5 * allowed, 1 + 0.5 * allowed):
        check_in_bounds(torch.tensor([[0.0, outside]], dtype=dtype), (-3.0, 1.0))
    for outside in (-3 - 2 * allowed, 1 + 2 * allowed):
        with pytest.raises(ValueError, match="`bounds` must hold the inputs"):
            check_in_bounds(torch.tensor([[0.0, outside]], dtype=dtype), (-3.0, 1.0))


def test_the_refusal_names_the_place():
    low, high = lx.bounds(*STATISTICS["CIFAR10"])
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 0, 1] = 2.12  # inside of the other channels' bounds
    with pytest.raises(ValueError, match=r"in channel 2 these have values from 0 to 2\.12, and the bounds are -1\.7"):
        check_in_bounds(images, (low, high))
    with pytest.raises(ValueError, match=r"at \(2, 0, 1\) these have values from 0 to 2\.12"):
        check_in_bounds(images, (low.expand(3, 4, 4), high))
    check_in_bounds(images, (low.min(), 2.12))
    check_in_bounds(images, None)


def test_bounds_that_the_type_of_the_inputs_cannot_tell_apart_are_refused():
    for bounds, dtype in [((100.0, 103.0), torch.bfloat16), ((0.0, 1e5), torch.float16), ((1e6, 1e6 + 0.5), None)]:
        inputs = torch.full((1, 2), bounds[0], dtype=dtype or torch.float32)
        with pytest.raises(ValueError, match=r"`bounds` must be told apart in (bfloat16|float16|float32)"):
            check_in_bounds(inputs, bounds)
    check_in_bounds(torch.full((1, 2), 1e6, dtype=torch.float64), (1e6, 1e6 + 0.5))


def test_bounds_must_be_numbers():
    with pytest.raises(TypeError, match="`bounds` must be numbers"):
        parse_bounds((np.array("black"), 1.0))


def test_a_batch_without_samples_is_in_any_bounds():
    check_in_bounds(torch.empty(0, 1, 2, 2), (0.0, 1.0))


def test_inputs_that_are_perturbed_may_leave_the_bounds():
    mean, std = STATISTICS["MNIST"]
    _, images = _digits(mean, std)
    model, bounds = PoolingNet(1), _readme_floats(mean, std)
    nested = Smooth(Smooth(Gradient(), InRangeScale(), num_draws=2), num_draws=2)
    found = lx.evaluate(
        model, images, 0, {"nested": nested}, {"sensitivity": AverageSensitivity(num_draws=2)}, bounds=bounds
    )
    assert found.scores["nested"]["sensitivity"].isfinite().all()
    twin = shifted_twin(model, 7.0, images, "input")
    maps = invariance_maps(model, twin, 7.0, images, 0, lx.adapt_grad(num_draws=2), bounds)
    assert_close(*maps, rtol=1e-3, atol=1e-4 * float(maps[0].abs().max()))
    invariance_maps(model, twin, 7.0, images, 0, Gradient(), bounds, move_bounds=False)


# Bounds from a normalization


def _black_and_white(transform, channels):
    return tuple(transform(torch.full((channels, 8, 8), value))[:, :1, :1] for value in (0.0, 1.0))


@pytest.mark.parametrize("kind", [Normalize, v2.Normalize])
@pytest.mark.parametrize("name", STATISTICS)
def test_bounds_are_torchvisions_black_and_white(name, kind):
    mean, std = STATISTICS[name]
    normalize = kind(mean, std)
    expected = _black_and_white(normalize, len(mean))
    for given in (
        (mean, std),
        (torch.tensor(mean), np.array(std)),
        (normalize,),
        (kind(torch.tensor(mean), torch.tensor(std)),),  # as timm makes it
        (Compose([CenterCrop(8), ToTensor(), normalize]),),
        (nn.Sequential(CenterCrop(8), nn.Sequential(normalize)),),
        (
            v2.Compose(
                [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Compose([normalize]), v2.ToPureTensor()]
            ),
        ),
        ({"input_size": (3, 8, 8), "mean": tuple(mean), "std": tuple(std)},),
    ):
        found = lx.bounds(*given)
        assert all(map(torch.equal, found, expected))
        assert {bound.dtype for bound in found} == {torch.float32}


def test_bounds_are_exact_on_a_grid_and_for_single_numbers():
    for mean, std in GRID:
        expected = _black_and_white(Normalize(mean, std), 1)
        for found in (lx.bounds(mean, std), [bound[None, None, None] for bound in lx.bounds(mean[0], std[0])]):
            assert all(map(torch.equal, found, expected))


def test_bounds_of_torchvisions_weights_and_of_the_packages_own_preprocessing():
    from torchvision.models import ResNet18_Weights

    transform, own = ResNet18_Weights.DEFAULT.transforms(), Preprocessing()
    found = lx.bounds(transform)
    for bound, own_bound, value in zip(found, own.bounds, (0, 255), strict=True):
        picture = to_pil_image(torch.full((3, 256, 256), value, dtype=torch.uint8))
        assert torch.equal(bound.expand(3, 224, 224), transform(pil_to_tensor(picture)))
        assert torch.equal(bound, own_bound)


def test_bounds_of_one_number_for_several_channels_broadcast():
    low, high = lx.bounds(0.5, [0.5, 0.25, 1.0])
    assert (low.flatten().tolist(), high.flatten().tolist()) == ([-1, -2, -0.5], [1, 2, 0.5])
    check_in_bounds(torch.rand(2, 3, 4, 4) - 0.5, lx.bounds(Normalize((0.5,), (0.5,))))


def test_bounds_do_not_depend_on_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert lx.bounds([0.1307], [0.3081])[0].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


NORMALIZE = Normalize([0.5], [0.5])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((Compose([ToTensor(), CenterCrop(8)]),), ValueError, r"it has 0 in \[ToTensor, CenterCrop\]"),
        ((Compose([NORMALIZE, NORMALIZE]),), ValueError, r"it has 2 in \[Normalize, Normalize\]"),
        ((Compose([ToTensor(), RandomApply([NORMALIZE])]),), ValueError, r"it has 0 in \[ToTensor, RandomApply\]"),
        ((Compose([NORMALIZE, Lambda(lambda x: x / 2)]),), ValueError, "after Normalize may change the values: Lambda"),
        ((ToTensor(),), TypeError, r"it has 0 in \[ToTensor\]"),
        (({"mean": [0.5]},), ValueError, r'must have "mean" and "std", got \[\'mean\'\]'),
        (([0.5],), TypeError, "`std` must be given with a `mean` of numbers"),
        ((NORMALIZE, [0.5]), TypeError, "leave `std` out"),
        (([0.5], [0.0]), ValueError, r"`std` must be finite and positive, got \[0.0\]"),
        (([float("nan")], [0.5]), ValueError, r"`mean` must be finite, got \[nan\]"),
        (([0.5, 0.5], [0.5, 0.5, 0.5]), ValueError, "`mean` and `std` must have one number a channel, got 2 and 3"),
        (("0,5", 1.0), TypeError, "`mean` must be numbers"),
        ((127.5, 127.5), ValueError, r"`mean` must be on the scale 0..1 .* got \[127.5\]; .* give mean / 255"),
    ],
)
def test_what_gives_no_bounds_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        lx.bounds(*given)
