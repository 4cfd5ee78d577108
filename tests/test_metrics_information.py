"""Information Level: hand-made curves, slow transcriptions, planted evidence, and what several processes make of it."""

import copy
import io
import math
import pickle
from itertools import pairwise
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image, features
from scipy.interpolate import griddata
from torch import nn
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.explainers import Context, Gradient, RandomAttribution
from lightning_xai.functional.faithfulness import random_subsets
from lightning_xai.functional.information import (
    area_under_knots,
    fill_holes,
    information_curve,
    interpolate_knots,
    median,
    normalize,
)
from lightning_xai.metrics import InformationLevel
from lightning_xai.metrics.information import FRACTIONS, coded_sizes, eight_bits, fill_holes_linearly
from tests.forked import finish, forked

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(6, 3, 13, 10, generator=GENERATOR)
ATTRIBUTIONS = torch.randn(6, 3, 13, 10, generator=GENERATOR)
BOUNDS = torch.tensor(0.0), torch.tensor(1.0)
CONTEXT = Context.create(torch.arange(6), seed=3)
SIDE, PATCH = 16, slice(5, 11)
TEMPLATE = torch.rand(6, 6, generator=GENERATOR).round()


class Curved(nn.Sequential):
    """Confident, and different for different images."""

    def __init__(self, channels=3):
        torch.manual_seed(1)
        super().__init__(nn.Flatten(), nn.Linear(channels * 130, 30), nn.Tanh(), nn.Linear(30, 4))
        with torch.no_grad():
            self[1].weight.mul_(6)
            self[3].weight.mul_(6)


class Detector(nn.Module):
    """Two classes; the evidence for the second is how far one patch is like a template."""

    def forward(self, images):
        likeness = ((images[:, :, PATCH, PATCH] - 0.5) * (TEMPLATE - 0.5)).mean((1, 2, 3))
        return torch.stack([torch.zeros_like(likeness), 40 * (likeness - 0.1)], 1)


def planted(count):
    """Noise with the template in its place, in one channel."""
    images = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    images[:, :, PATCH, PATCH] = TEMPLATE
    return images


def predicted(model, images=IMAGES):
    return model(images).argmax(1)


def score(metric, attributions=ATTRIBUTIONS, model=None, images=IMAGES, target=None, context=CONTEXT, **options):
    model = Curved() if model is None else model
    target = predicted(model, images) if target is None else target
    options = {"bounds": BOUNDS} | options
    metric.update(attributions, inputs=images, target=target, model=model, context=context, **options)
    return metric.per_sample()[1]


def detect(metric, attributions, images, **options):
    context = Context.create(torch.arange(len(images)))
    return score(metric, attributions, Detector(), images, torch.ones(len(images)).long(), context, **options)


# The fill


def pyramid_by_hand(image, known):
    """One level after the other, one pixel at a time: image[row][column], None where unknown."""
    height, width = len(image), len(image[0])
    values = [[image[i][j] if known[i][j] else None for j in range(width)] for i in range(height)]
    if height == width == 1:
        return values
    means = []
    for i in range(0, height, 2):
        means.append([])
        for j in range(0, width, 2):
            below = [values[a][b] for a in range(i, min(i + 2, height)) for b in range(j, min(j + 2, width))]
            below = [value for value in below if value is not None]
            means[-1].append(sum(below) / len(below) if below else None)
    coarse = pyramid_by_hand(means, [[value is not None for value in row] for row in means])
    rows, columns = len(coarse) - 1, len(coarse[0]) - 1
    for i in range(height):
        for j in range(width):
            if values[i][j] is None:
                a, b = i // 2, j // 2
                c = min(max(a + (1 if i % 2 else -1), 0), rows)
                d = min(max(b + (1 if j % 2 else -1), 0), columns)
                near, far = 0.75 * coarse[a][b] + 0.25 * coarse[a][d], 0.75 * coarse[c][b] + 0.25 * coarse[c][d]
                values[i][j] = 0.75 * near + 0.25 * far
    return values


@pytest.mark.parametrize("shape", [(8, 8), (13, 10), (7, 1), (1, 1), (5, 32)])
def test_smooth_fill_transcribed(shape):
    images = torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(1))
    known = torch.rand(3, *shape, generator=torch.Generator().manual_seed(2)) < 0.15
    known[:, 0, 0] = True
    filled = fill_holes(images, known)
    for i in range(3):
        for channel in range(2):
            expected = pyramid_by_hand(images[i, channel].tolist(), known[i].tolist())
            assert_close(filled[i, channel], torch.tensor(expected))


def test_smooth_fill_keeps_what_is_known_and_invents_nothing():
    known = torch.rand(6, 13, 10, generator=torch.Generator().manual_seed(2)) < 0.1
    filled = fill_holes(IMAGES, known)
    each = known[:, None].expand_as(IMAGES)
    assert torch.equal(filled[each], IMAGES[each])
    for image, result, mask in zip(IMAGES, filled, known, strict=True):
        low, high = image[:, mask].aminmax(dim=1)
        assert (result >= low[:, None, None] - 1e-6).all()
        assert (result <= high[:, None, None] + 1e-6).all()
        assert_close(fill_holes(image[None], mask[None])[0], result)
    assert torch.equal(fill_holes(IMAGES, torch.ones_like(known)), IMAGES)


def test_smooth_fill_of_one_known_pixel_is_its_value_everywhere():
    known = torch.zeros(1, 13, 10, dtype=torch.bool)
    known[0, 4, 7] = True
    assert_close(fill_holes(IMAGES[:1], known), IMAGES[:1, :, 4:5, 7:8].expand(-1, -1, 13, 10))


def test_linear_fill_of_a_plane_is_the_plane():
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    plane = torch.stack([0.3 * rows - 0.2 * columns, columns])[None]
    known = torch.rand(1, 9, 7, generator=torch.Generator().manual_seed(0)) < 0.2
    known[0, ::8, ::6] = True  # the corners: nothing is outside
    assert_close(fill_holes_linearly(plane, known), plane, rtol=0, atol=1e-5)


def test_linear_fill_takes_the_nearest_where_there_is_no_triangle():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    known = torch.zeros(1, 4, 5, dtype=torch.bool)
    known[0, 1, 0::2] = True  # three pixels on a line
    expected = image[:, :, 1, [0, 0, 2, 4, 4]], image[:, :, 1, [0, 2, 2, 2, 4]]  # between two, either may be nearest
    filled = fill_holes_linearly(image, known)
    assert ((filled == expected[0][:, :, None]) | (filled == expected[1][:, :, None])).all()
    assert torch.equal(fill_holes_linearly(image, torch.ones_like(known)), image)


# The coder


@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_is_lossless_webp(channels):
    pictures = eight_bits(IMAGES[:, :channels], *BOUNDS)
    for picture, size in zip(pictures, coded_sizes(pictures, "published").tolist(), strict=True):
        array = picture.permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(array.repeat(4 - channels, 2) if channels == 1 else array).save(
            buffer, "WEBP", lossless=True, quality=100
        )
        assert size == len(buffer.getvalue())
        decoded = np.asarray(Image.open(buffer))
        assert (decoded == array).all()


def test_a_smooth_picture_has_the_shorter_code():
    smooth = fill_holes(IMAGES, torch.rand(6, 13, 10, generator=torch.Generator().manual_seed(0)) < 0.1)
    for coder in ("fast", "published"):
        assert (coded_sizes(eight_bits(smooth, *BOUNDS), coder) < coded_sizes(eight_bits(IMAGES, *BOUNDS), coder)).all()


def test_eight_bits_span_the_bounds_of_each_channel():
    low, high = torch.tensor([-2.0, 0.0, 1.0]).view(3, 1, 1), torch.tensor([2.0, 0.5, 3.0]).view(3, 1, 1)
    ends = torch.stack([low, high, (low + high) / 2, low - 9]).expand(-1, 3, 2, 2)
    assert eight_bits(ends, low, high)[:, :, 0, 0].tolist() == [[0] * 3, [255] * 3, [128] * 3, [0] * 3]


# The curve


def test_area_by_hand():
    """Half of the code for all of the score: (0, 0), (0.5, 1), (1, 1)."""
    knots = information_curve(torch.tensor([[0.5]]), torch.tensor([[1.0]]))
    assert knots.tolist() == [[[0, 0], [0.5, 1], [1, 1]]]
    assert area_under_knots(knots).tolist() == [0.75]


def test_score_never_falls_and_points_are_sorted_by_code():
    knots = information_curve(torch.tensor([[0.5, 0.2, 0.5]]), torch.tensor([[0.4, 0.1, 0.8]]))
    assert_close(knots, torch.tensor([[[0, 0], [0.2, 0.4], [0.5, 0.4], [0.5, 0.8], [1, 1]]]))
    at = torch.tensor([0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
    assert_close(interpolate_knots(knots, at), torch.tensor([[0, 0.2, 0.4, 0.4, 0.8, 0.9, 1]]))


def test_a_step_at_an_end():
    knots = information_curve(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.3, 0.5]]))
    assert_close(interpolate_knots(knots, torch.tensor([0.0, 0.5, 1.0])), torch.tensor([[0.3, 0.4, 1.0]]))
    assert_close(area_under_knots(knots), torch.tensor([0.4]))


def test_interpolation_and_median_are_those_of_numpy():
    x, y = torch.rand(7, 5, generator=GENERATOR), torch.rand(7, 5, generator=GENERATOR)
    knots, at = information_curve(x, y), torch.linspace(0, 1, 50)
    curves = interpolate_knots(knots, at)
    expected = np.stack([np.interp(at, *knot.T.numpy()) for knot in knots])
    assert_close(curves, torch.from_numpy(expected).float(), rtol=0, atol=1e-5)
    for count in (6, 7):
        assert_close(median(curves[:count]), torch.from_numpy(np.median(curves[:count].numpy(), 0)))
    assert median(curves[:0]).isnan().all()


def test_normalized_between_the_ends():
    values = torch.tensor([[1.0, 2.0, 4.0, 0.0]]).expand(3, -1)
    actual = normalize(values, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0]))
    nothing = [math.nan] * 4
    assert_close(actual, torch.tensor([[0, 0.5, 1, 0], nothing, nothing]), equal_nan=True)


# The metric


def transcribed(metric, model, attributions, target, fill):
    """One image at a time, as XRAI's section 4.2 and its released code have it."""
    masks = random_subsets(CONTEXT.private_keys("information"), 1, 4, 130)[:, 0]  # 1 % of 130 are 2: at least 4
    scores = []

    def judge(image, label):
        probabilities = model(image[None])[0].detach().softmax(0)
        value = probabilities[label] if metric.curve == "softmax" else probabilities.argmax() == label
        buffer = io.BytesIO()
        array = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(array).save(buffer, "WEBP", lossless=True, method=1, quality=0)
        return len(buffer.getvalue()), float(value)

    for image, values, label, always in zip(IMAGES, attributions.sum(1), target, masks, strict=True):
        order = (values.abs() if metric.absolute else values).flatten().argsort(descending=True).tolist()
        small, low = judge(fill(image, set(always.tolist())), label)
        large, high = judge(image, label)
        if high < metric.min_score or high <= low or large <= small:
            scores.append(math.nan)
            continue
        points, best = [(0.0, 0.0)], 0.0
        for fraction in FRACTIONS:
            shown = set(always.tolist()) | set(order[: math.ceil(fraction * 130)])
            size, value = judge(fill(image, shown), label)
            best = max(best, min(max((value - low) / (high - low), 0), 1))
            points.append((min(max((size - small) / (large - small), 0), 1), best))
        points = sorted([*points, (1.0, 1.0)])
        scores.append(sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points)))
    return torch.tensor(scores)


def smoothly(image, shown):
    known = torch.zeros(130, dtype=torch.bool)
    known[list(shown)] = True
    return fill_holes(image[None], known.view(1, 13, 10))[0]


def linearly(image, shown):
    places = np.array([divmod(pixel, 10) for pixel in sorted(shown)])
    everywhere = np.array([divmod(pixel, 10) for pixel in range(130)])
    filled = image.flatten(1).clone()
    for channel in range(3):
        values = image[channel].numpy()[tuple(places.T)].astype(float)
        found = griddata(places, values, everywhere, "linear")
        nearest = griddata(places, values, everywhere, "nearest")
        filled[channel] = torch.from_numpy(np.where(np.isnan(found), nearest, found))
    filled = filled.view_as(image)
    for row, column in places:
        filled[:, row, column] = image[:, row, column]
    return filled


@pytest.mark.parametrize(
    "options", [{}, {"absolute": False}, {"curve": "accuracy"}, {"fill": "linear"}, {"min_score": 0.99}]
)
def test_information_level_transcribed(options):
    model, metric = Curved(), InformationLevel(**{"min_score": 0.3} | options)
    target = predicted(model)
    expected = transcribed(metric, model, ATTRIBUTIONS, target, linearly if "fill" in options else smoothly)
    assert 1 < expected.isnan().sum() < 6 or "min_score" not in options
    assert not expected.isnan().all()
    actual = score(metric, model=model)
    # Smallest differences in a hole's value can change its 8 bits, and the code's length, by one.
    assert_close(actual, expected, equal_nan=True, rtol=0, atol=2e-3 if "fill" in options else 1e-5)
    assert_close(metric.compute(), expected.nanmean(), rtol=0, atol=2e-3)


def test_planted_evidence_orders_the_methods():
    images = planted(24)
    truth = torch.zeros_like(images)
    truth[:, :, PATCH, PATCH] = 1
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    for curve in ("softmax", "accuracy"):
        results = []
        for attributions in (truth + 0.01 * noise, truth + noise, noise):
            metric = InformationLevel(curve)
            detect(metric, attributions, images)
            results.append((metric.compute(), metric.standard_error(), metric.median_area()))
        for (better, error, middle), (worse, other, middle_of_worse) in pairwise(results):
            assert better - worse > 3 * error.hypot(other)
            assert middle > middle_of_worse


def test_planted_evidence_is_all_that_is_needed():
    """The 36 pixels of the patch are 14 % of the image: at 21 % all of the score is there, for part of the code."""
    images = planted(3)
    truth = torch.zeros_like(images)
    truth[:, :, PATCH, PATCH] = 1
    metric = InformationLevel()
    detect(metric, truth, images)
    (knots,) = metric.knots
    complete = knots[:, FRACTIONS.index(0.21) + 1]
    assert_close(complete[:, 1], torch.ones(3))
    assert (complete[:, 0] < 0.8).all()


@pytest.mark.parametrize("curve", ["softmax", "accuracy"])
def test_undefined_scores(curve):
    """The other class; a picture in which there is nothing to reveal; a NaN; an attribution that ranks nothing."""
    images, attributions = planted(6), torch.rand(6, 1, SIDE, SIDE, generator=GENERATOR)
    images[1] = 0.5  # the evidence is gone: the other class
    images[2] = TEMPLATE[0, 0]  # constant: nothing to reveal
    attributions[3, 0, 2, 2], attributions[4] = torch.nan, 0.3
    metric = InformationLevel(curve)
    scores = detect(metric, attributions, images)
    assert scores.isnan().tolist() == [False, True, True, True, True, False]
    assert metric.num_undefined() == 4
    at, curve = metric.median_curve(101)
    defined = metric.knots[0][[0, 5]]
    assert_close(curve, median(interpolate_knots(defined, at)))
    assert curve.isfinite().all()


def test_random_pixels_that_say_as_much_as_the_original():
    """The model sees the mean brightness only, and the other class is the brighter one in the image."""

    class Darkness(nn.Module):
        def forward(self, images):
            return torch.stack([3 - images.mean((1, 2, 3)), torch.zeros(len(images))], 1)

    images = torch.rand(6, 3, 13, 10, generator=torch.Generator().manual_seed(0))
    metric = InformationLevel(random_fraction=0.1)
    scores = score(metric, model=Darkness(), images=images, target=torch.zeros(6).long())
    known = random_subsets(CONTEXT.private_keys("information"), 1, 13, 130)[:, 0]
    for i in range(6):
        darker = smoothly(images[i], set(known[i].tolist())).mean() <= images[i].mean()
        assert scores[i].isnan() == darker
    assert 0 < metric.num_undefined() < 6


def test_no_defined_sample_has_no_median():
    metric = InformationLevel(min_score=1.0)
    assert score(metric).isnan().all()
    assert metric.median_curve()[1].isnan().all()
    assert metric.median_area().isnan()


def test_without_samples_there_is_no_median():
    metric = InformationLevel()
    assert metric.median_area().isnan()
    assert metric.num_undefined() == 0


def test_the_mean_is_the_area_under_the_mean_curve():
    metric = InformationLevel(min_score=0.0)
    scores = score(metric)
    at = torch.linspace(0, 1, 20001)
    curves = interpolate_knots(metric.knots[0][~scores.isnan()], at)
    assert_close(metric.compute(), torch.trapezoid(curves.mean(0), at), rtol=0, atol=1e-4)


def test_repeats_are_dropped_from_the_curves_too():
    once, twice = InformationLevel(min_score=0.0), InformationLevel(min_score=0.0)
    expected = score(once, index=torch.arange(6))
    score(twice, index=torch.arange(6))
    score(twice, -ATTRIBUTIONS, index=torch.arange(6))
    assert_close(twice.per_sample()[1], expected, equal_nan=True)
    assert torch.equal(twice.median_curve()[1], once.median_curve()[1])


# Invariances and cost


@pytest.mark.parametrize("curve", ["softmax", "accuracy"])
def test_scores_do_not_depend_on_the_batch_or_the_order(curve):
    metrics = {"information": InformationLevel(curve, min_score=0.0)}
    order = torch.tensor([3, 0, 4, 1, 2, 5])

    def run(rows, **options):
        methods = {"gradient": Gradient(), "random": RandomAttribution()}
        return lx.evaluate(Curved(), IMAGES[rows], None, methods, metrics, bounds=(0.0, 1.0), index=rows, **options)

    whole = run(torch.arange(6))
    assert whole.scores["gradient"]["information"].isfinite().any()
    for other in (run(torch.arange(6), batch_size=4, max_rows=3), run(order, batch_size=1)):
        assert_close(other.scores, whole.scores, rtol=0, atol=1e-5, equal_nan=True)


def test_only_the_order_of_the_attributions_counts():
    plain = score(InformationLevel(min_score=0.0))
    for factor in (1e-20, 1e20):
        assert torch.equal(
            score(InformationLevel(min_score=0.0), factor * ATTRIBUTIONS).nan_to_num(), plain.nan_to_num()
        )
    sums = ATTRIBUTIONS.sum(1, keepdim=True)
    for absolute in (True, False):
        scores = [score(InformationLevel(absolute=absolute, min_score=0.0), values) for values in (sums, -sums)]
        assert torch.equal(*(values.nan_to_num() for values in scores)) == absolute


def test_both_ends_are_measured_once_for_all_methods():
    rows = []

    class Counting(Curved):
        def forward(self, images):
            if not torch.is_grad_enabled():
                rows.append(len(images))
            return super().forward(images)

    def run(names):
        rows.clear()
        methods = {name: RandomAttribution() for name in names}
        metrics = {"information": InformationLevel()}
        lx.evaluate(Counting(), IMAGES, torch.zeros(6).long(), methods, metrics, bounds=(0.0, 1.0), batch_size=4)
        return sum(rows)

    assert run("a") == 6 * (2 + len(FRACTIONS))
    assert run("abc") == 6 * (2 + 3 * len(FRACTIONS))


def test_half_precision():
    half = ATTRIBUTIONS.bfloat16()
    expected = score(InformationLevel(min_score=0.0), half.float())
    assert_close(score(InformationLevel(min_score=0.0), half), expected, equal_nan=True)
    model = Curved().bfloat16()
    scores = score(InformationLevel(min_score=0.0), model=model, images=IMAGES.bfloat16())
    assert scores.isfinite().any()


def test_the_effort_of_the_coder_changes_little():
    model = Curved()
    fast, published = (
        score(InformationLevel(min_score=0.0, coder=coder), model=model) for coder in ("fast", "published")
    )
    assert_close(fast, published, rtol=0, atol=0.1, equal_nan=True)
    assert not torch.equal(fast.nan_to_num(), published.nan_to_num())


def test_copies_and_resets():
    metric = InformationLevel(min_score=0.0)
    expected, middle = score(metric), metric.median_area()
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert_close(twin.per_sample()[1], expected, equal_nan=True)
        twin.reset()
        assert len(twin.knots) == 0
        score(twin)
        assert torch.equal(twin.median_area(), middle)
    assert metric.state_dict() == {}
    assert InformationLevel.higher_is_better is True


def test_the_model_and_the_inputs_are_left_as_they_were():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(264, 3)).train()
    before, images = {name: value.clone() for name, value in model.state_dict().items()}, IMAGES.clone()
    score(InformationLevel(), model=model, target=torch.zeros(6).long())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(images, IMAGES)


# Several processes

SHARDS = {"padded": ([0, 2, 4], [1, 3, 0]), "nothing for one": ([0, 1, 2], []), "nothing at all": ([], [])}


def summary(rows):
    metric, model = InformationLevel(min_score=0.0), Curved()
    target = predicted(model)
    for row in rows:
        part = slice(row, row + 1)
        batch = {"inputs": IMAGES[part], "target": target[part], "context": CONTEXT.select(part), "bounds": BOUNDS}
        metric.update(ATTRIBUTIONS[part], model=model, index=torch.tensor([row]), **batch)
    curve = metric.median_curve()[1]
    assert_close(metric.median_curve()[1], curve, equal_nan=True)  # synchronizing leaves the local state as it was
    return [curve, metric.median_area(), *metric.per_sample()]


def run_process(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save({name: summary(shards[rank]) for name, shards in SHARDS.items()}, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    finish(*[forked(run_process, rank, tmp_path) for rank in range(2)])
    for name, shards in SHARDS.items():
        expected = summary(sorted({row for shard in shards for row in shard}))
        for rank in range(2):
            assert_close(torch.load(tmp_path / f"{rank}.pt")[name], expected, equal_nan=True, rtol=0, atol=0)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curve": "logit"}, "`curve` must be one of 'softmax', 'accuracy', got 'logit'"),
        ({"fill": "blur"}, "`fill` must be one of 'smooth', 'linear', got 'blur'"),
        ({"coder": "png"}, "`coder` must be one of 'fast', 'published', got 'png'"),
        ({"preset": "xrai"}, "`preset` must be one of 'fast', 'published', got 'xrai'"),
        ({"min_score": 80.0}, r"`min_score` must be in \[0, 1\], got 80.0"),
        ({"random_fraction": -0.1}, r"`random_fraction` must be in \[0, 1\], got -0.1"),
    ],
)
def test_bad_arguments(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        InformationLevel(**options)


def test_pillow_without_webp(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(RuntimeError, match="needs Pillow with WebP"):
        InformationLevel()


def test_bounds_are_needed():
    with pytest.raises(
        ValueError, match=r"`metrics`: 'pic' \(InformationLevel\) needs `bounds`, which these data do not"
    ):
        lx.evaluate(Curved(), IMAGES, None, {"m": Gradient()}, {"pic": InformationLevel()})
    with pytest.raises(ValueError, match="`bounds` is needed by InformationLevel"):
        score(InformationLevel(), bounds=None)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"`inputs` must be images with 1 or 3 channels.*got shape \(6, 2, 13, 10\)"):
        score(InformationLevel(), images=IMAGES[:, :2], target=torch.zeros(6).long())
    with pytest.raises(ValueError, match=r"`attributions` must have the shape \(6, channel, 13, 10\)"):
        score(InformationLevel(), ATTRIBUTIONS[:, 0])
    with pytest.raises(
        ValueError, match=r"`attributions` must have the shape \(6, channel, 13, 10\).*got \(6, 3, 13, 9\)"
    ):
        score(InformationLevel(), ATTRIBUTIONS[..., :9])
