"""Figures of the sanity checks: what they show, and that texts neither overlap nor are cut off."""

import math
from dataclasses import replace
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from lightning_xai.reporting.sanity_curves import similarity_curves
from lightning_xai.reporting.sanity_figures import (
    cascade_grid,
    map_pairs,
    randomization_bars,
    sanity_figures,
    write_figures,
)
from lightning_xai.reporting.sanity_values import means
from lightning_xai.reporting.saving import figure_pixels
from lightning_xai.results.sanity import Cell, CellKey, ModelState, SanityReport, Verdict
from lightning_xai.results.sanity_means import mean_of
from lightning_xai.sanity.verdicts import randomization_verdict
from lightning_xai.statistics.crossed import crossed_mean
from lightning_xai.statistics.intervals import mean_interval
from tests.drawn import check_texts, texts, words

NAN = math.nan
TOP = "cascading_from_top"
NAMES = (
    *("gradient", "smooth_grad", "adapt_grad", "noise_grad", "fusion_grad", "input_x_gradient", "guided_backprop"),
    *("integrated_gradients", "grad_cam", "guided_grad_cam", "edges", "random", "var_grad"),
    *("smooth_integrated_gradients_of_a_long_name", "$dollar$", "m" * 40),
)
LONG_STEPS = tuple(f"backbone.layer{1 + i // 5}.{i % 5}.downsample.conv{i}" for i in range(18))


def field(rng, size):
    """A smooth random map."""
    return gaussian_filter(rng.normal(size=(size, size)), 2).astype(np.float32)


def planted(
    methods=("gradient", "edges"),
    blocks=("fc1", "conv2", "conv1"),
    num_repeats=1,
    variants=(TOP,),
    checks=("data", "invariance"),
    similarities=("spearman", "ssim"),
    num_samples=12,
    num_kept=2,
    size=12,
    channels=1,
    seed=0,
):
    """Maps that become less alike from step to step, faster the later the method."""
    rng = np.random.default_rng(seed)
    base = {name: [field(rng, size) for _ in range(num_kept)] for name in methods}

    def cell(key, level):
        scores = {s: rng.normal(level, 0.1, num_samples).clip(-1, 1).astype(np.float32) for s in similarities}
        maps = [level * one + (1 - level) * field(rng, size) for one in base[key.method]]
        has_maps = num_kept and not key.repeat and key.check != "floor"
        return Cell(key, scores, np.stack(maps) if has_maps else np.empty((0, 0, 0), dtype=np.float32))

    cells, models = [], [ModelState("original", "", 0, "", 0, 0.99, 0.02, 9.0)]
    for number, name in enumerate(methods):
        cells.append(cell(CellKey("original", "", 0, "", 0, name), 1.0))
        cells.append(cell(CellKey("floor", "different_images", 0, "", 0, name), 0.3 + 0.02 * number))
        cells.append(cell(CellKey("floor", "random_maps", 0, "", 0, name), 0.02 * number))
        for repeat in range(num_repeats):
            for variant in variants:
                for step, block in enumerate(blocks):
                    key = CellKey("parameters", variant, step, block, repeat, name)
                    cells.append(cell(key, (0.9 - 0.04 * number) ** (1 + step)))
            cells += [cell(CellKey(check, check, 0, check, repeat, name), 0.2 + 0.03 * number) for check in checks]
    for repeat in range(num_repeats):
        for variant in variants:
            for step, block in enumerate(blocks):
                accuracy = 0.1 + 0.8 * 0.4 ** (step + repeat / 4)
                models.append(ModelState("parameters", variant, step, block, repeat, accuracy, 2.3 - accuracy, 1.0))
    outcomes = ("PASS", "FAIL", "INCONCLUSIVE")
    verdicts = [
        Verdict(check, name, outcomes[number % 3], "spearman", 0.2, 0.1, 0.3, 0.3, 0.035, 3, "So it is.")
        for check in ("parameters", *checks)
        for number, name in enumerate(methods)
    ]
    images = rng.uniform(size=(num_kept, channels, size, size)).astype(np.float32)
    samples = tuple(range(100, 100 + num_samples))
    return SanityReport({}, samples, images, tuple(cells), tuple(models), tuple(verdicts))


def changed(report, change, **key):
    """The report with some of its cells changed, or without them if `change` gives None."""
    cells = [
        change(cell) if all(getattr(cell.key, name) == value for name, value in key.items()) else cell
        for cell in report.cells
    ]
    return replace(report, cells=tuple(cell for cell in cells if cell is not None))


def scored(cell, values, similarity="spearman"):
    return replace(cell, scores=cell.scores | {similarity: np.asarray(values, dtype=np.float32)})


def grid(report, similarity="spearman", **key):
    """The scores of some cells: (repeats, samples)."""
    found = [c for c in report.cells if all(getattr(c.key, name) == value for name, value in key.items())]
    return np.stack([c.scores[similarity] for c in found]).astype(np.float64)


def by_label(axes, label):
    return [line.get_ydata() for line in axes.lines if line.get_label() == label]


PLANTED = planted(num_repeats=3)


# Means


def test_the_interval_is_that_of_other_samples_and_other_networks():
    scores = np.random.default_rng(0).normal(size=(4, 6))
    mean, expected = mean_of("parameters", scores), crossed_mean(scores, 0.05)
    assert (mean.value, mean.low, mean.high) == (expected.mean, expected.low, expected.high)
    np.testing.assert_allclose(mean.networks, scores.mean(1))
    split = mean_of("parameters", scores, num_steps=2)
    assert (split.low, split.high) == (crossed_mean(scores, 0.025).low, expected.high)


def test_one_network_has_the_interval_of_its_samples_where_the_check_is_about_it():
    scores = np.array([[0.1, 0.4, 0.7, 0.4]])
    assert np.isnan(mean_of("parameters", scores).high)
    mean = mean_of("invariance", scores)
    assert (mean.low, mean.high) == mean_interval(scores[0], 0.95)


def test_undefined_scores_are_left_out_of_means():
    mean = mean_of("parameters", np.array([[0.0, NAN, 0.5], [0.4, NAN, NAN]]))
    assert mean.value == pytest.approx(0.3)
    assert mean.networks == pytest.approx((0.25, 0.4))
    assert (mean.is_complete, mean.num_undefined, mean.num_maps, mean.num_networks) == (False, 3, 6, 1)
    nothing = mean_of("parameters", np.full((2, 3), NAN))
    assert np.isnan([nothing.value, nothing.low, nothing.high, *nothing.networks]).all()
    single = mean_of("parameters", np.array([[0.5]]))
    assert single.value == 0.5
    assert np.isnan([single.low, single.high]).all()


def test_the_interval_is_that_of_the_difference_from_the_greater_floor_beside_it():
    rng = np.random.default_rng(0)
    scores, floors = rng.normal(size=(4, 6)), {"a": rng.normal(size=6), "b": 1 + rng.normal(size=6)}
    mean, expected = mean_of("parameters", scores, floors, margin=0.1), crossed_mean(scores - floors["b"], 0.05)
    level = floors["b"].mean()
    assert mean.floor_name == "b"
    assert (mean.floor, mean.margin) == pytest.approx((level, 0.1 * (1 - level)))
    assert (mean.low, mean.high) == pytest.approx((expected.low + level, expected.high + level))


# The grid


def pictures(figure):
    """Maps by their axes: those of a sample share one pair of axes, with the sample itself in front."""
    return [axes.images[1:] for axes in figure.axes]


@pytest.mark.parametrize("absolute", [True, False])
def test_the_grid_shows_the_trained_models_maps_and_those_of_each_step(absolute):
    blocks = pictures(cascade_grid(PLANTED, TOP, absolute))
    assert len(blocks) == 2, "two samples"
    for sample, images in enumerate(blocks):
        maps = [
            cell.maps[sample]
            for method in ("gradient", "edges")
            for check in ("original", "parameters")
            for cell in PLANTED.cells
            if (cell.key.check, cell.key.method, cell.key.repeat) == (check, method, 0)
        ]
        assert len(images) == len(maps) == 2 * 4
        for image, expected in zip(images, maps, strict=True):
            end = np.percentile(np.abs(expected), 99)
            np.testing.assert_array_equal(image.get_array(), np.abs(expected) if absolute else expected)
            assert image.get_clim() == pytest.approx((0 if absolute else -end, end))
        rows = sorted({image.get_extent()[3] for image in images})
        assert [image.get_extent()[3] for image in images] == [rows[0]] * 4 + [rows[1]] * 4
        for line in (images[:4], images[4:]):
            lefts = [image.get_extent()[0] for image in line]
            assert lefts == sorted(set(lefts))


def test_the_grid_names_steps_methods_and_samples():
    figure = cascade_grid(PLANTED, TOP)
    assert texts(figure).count("gradient") == texts(figure).count("edges") == 2
    assert {"sample 100", "sample 101", "0", "P99"} <= set(words(figure))
    assert {"−P99", "0", "P99"} <= set(texts(cascade_grid(PLANTED, TOP, absolute=False)))
    for axes, sample in zip(figure.axes, ("sample 100", "sample 101"), strict=True):
        titles = axes.get_xticklabels()
        assert [" ".join(text.get_text().split()) for text in titles] == [sample, "original", "fc1", "conv2", "conv1"]
        for title, image in zip(titles, axes.images, strict=False):
            left, right, *_ = image.get_extent()
            assert left < title.get_position()[0] < right, title.get_text()


def test_the_samples_of_the_grid_can_be_chosen():
    figure = cascade_grid(PLANTED, TOP, absolute=False, samples=[1])
    (images,) = pictures(figure)
    np.testing.assert_array_equal(images[0].get_array(), PLANTED.cells[0].maps[1])
    assert "sample 101" in words(figure)
    assert "sample 100" not in words(figure)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), PLANTED.images[1, 0])


def test_inputs_of_three_channels_are_in_color():
    report = planted(channels=3)
    np.testing.assert_array_equal(
        cascade_grid(report, TOP).axes[0].images[0].get_array(), report.images[0].transpose(1, 2, 0)
    )


def test_missing_maps_are_dashes_and_undefined_values_are_masked():
    report = changed(PLANTED, lambda cell: None, check="parameters", method="gradient", step=1)
    broken = np.full((2, 12, 12), np.inf, dtype=np.float32)
    report = changed(report, lambda cell: replace(cell, maps=broken), check="parameters", method="edges", step=0)
    figure = cascade_grid(report, TOP, samples=[0])
    (images,) = pictures(figure)
    assert len(images) == 7
    assert [text.get_text() for text in images[0].axes.texts] == ["–"]
    assert images[4].get_array().mask.all()
    figure_pixels(figure)


def test_maps_that_are_zero_have_a_scale():
    report = changed(PLANTED, lambda cell: replace(cell, maps=0 * cell.maps), check="original", method="gradient")
    image = pictures(cascade_grid(report, TOP))[0][0]
    assert image.get_clim() == (0, 1)


# Pairs


@pytest.mark.parametrize("check", ["data", "invariance", "random_logit"])
def test_pairs_are_maps_of_the_trained_and_of_the_other_model(check):
    report = planted(checks=(check,))
    figure = map_pairs(report, check, absolute=False)
    blocks = pictures(figure)
    for sample, images in enumerate(blocks):
        expected = [
            next(c for c in report.cells if (c.key.check, c.key.method, c.key.repeat) == (which, name, 0)).maps[sample]
            for name in ("gradient", "edges")
            for which in ("original", check)
        ]
        assert len(images) == 4
        for image, one in zip(images, expected, strict=True):
            np.testing.assert_array_equal(image.get_array(), one)
    assert len(blocks) == 2
    assert texts(figure).count("gradient") == 1
    assert {"sample 100", "sample 101"} <= set(words(figure))


def test_pairs_say_which_labels():
    shown = words(map_pairs(PLANTED, "data"))
    assert shown.count("true labels") == shown.count("random labels") == 2


# Curves


def curve_axes(figure):
    """The axes of all methods, of accuracy and entropy, and of each method."""
    drawn = [axes for axes in figure.axes if axes.axison]
    overview, accuracy, entropy, *single = drawn
    return overview, (accuracy, entropy), single


def decided(report, similarity, variant):
    """What is to be drawn, by method and step: of each step as many networks as the report has."""
    found = [cell for cell in report.cells if (cell.key.check, cell.key.variant) == ("parameters", variant)]
    return means(found, similarity, report)


def test_the_figures_draw_the_intervals_of_the_verdicts():
    """At the steps that decide, of the similarity that does."""
    drawn = decided(PLANTED, "spearman", TOP)
    for method in ("gradient", "edges"):
        verdict = randomization_verdict("parameters", method, PLANTED.cells, "spearman")
        ends = [(mean.low, mean.high) for (name, step), mean in drawn.items() if name == method and step > 0]
        assert (verdict.low, verdict.high) in ends


def test_curves_are_the_means_of_all_samples_and_repeats():
    overview, _, single = curve_axes(similarity_curves(PLANTED, TOP, "ssim"))
    for number, method in enumerate(("gradient", "edges")):
        scores = [grid(PLANTED, "ssim", check="parameters", method=method, step=step) for step in range(3)]
        expected = [1, *(one.mean() for one in scores)]
        np.testing.assert_allclose(by_label(overview, "mean")[number], expected)
        (line,) = by_label(single[number], "mean")
        np.testing.assert_allclose(line, expected)
        for repeat in range(3):
            (line,) = by_label(single[number], f"network {repeat}")
            np.testing.assert_allclose(line, [1, *(one[repeat].mean() for one in scores)])
        (band,) = single[number].collections
        corners = band.get_paths()[0].vertices
        for step in range(3):
            ends = corners[corners[:, 0] == step + 1, 1]
            mean = decided(PLANTED, "ssim", TOP)[method, step]
            np.testing.assert_allclose([ends.min(), ends.max()], [mean.low, mean.high])
        (boundary,) = by_label(single[number], "boundary")
        np.testing.assert_allclose(boundary, mean.floor + 0.05 * (1 - mean.floor))


def test_floors_are_horizontal_lines_of_each_method():
    _, _, single = curve_axes(similarity_curves(PLANTED, TOP, "ssim"))
    for axes, method in zip(single, ("gradient", "edges"), strict=True):
        for variant, style in (("different_images", "--"), ("random_maps", ":")):
            (line,) = [line for line in axes.lines if line.get_label() == variant]
            expected = grid(PLANTED, "ssim", check="floor", variant=variant, method=method).mean()
            np.testing.assert_allclose(line.get_ydata(), expected)
            assert line.get_linestyle() == style
            assert axes.get_ylim()[0] < expected < axes.get_ylim()[1]


def test_below_is_what_the_models_still_do():
    _, evidence, _ = curve_axes(similarity_curves(PLANTED, TOP, "ssim"))
    for axes, name in zip(evidence, ("accuracy", "entropy"), strict=True):
        steps = [[getattr(s, name) for s in PLANTED.models[1:] if s.step == step] for step in range(3)]
        expected = [getattr(PLANTED.models[0], name), *map(np.mean, steps)]
        np.testing.assert_allclose(axes.lines[-1].get_ydata(), expected)
    without = similarity_curves(replace(PLANTED, models=()), TOP, "ssim")
    assert len([axes for axes in without.axes if axes.axison]) == 3
    unknown = replace(PLANTED, models=PLANTED.models[1:])
    _, (accuracy, _), _ = curve_axes(similarity_curves(unknown, TOP, "ssim"))
    assert np.isnan(accuracy.lines[-1].get_ydata()).tolist() == [True, False, False, False]


def test_steps_are_named_in_their_order():
    figure = similarity_curves(PLANTED, TOP, "ssim")
    figure_pixels(figure)
    overview, (accuracy, entropy), single = curve_axes(figure)
    for axes in (entropy, *single):
        labels = axes.get_xticklabels()
        assert [label.get_text() for label in labels] == ["original", "fc1", "conv2", "conv1"]
        assert {label.get_rotation() for label in labels} == {315}
        assert list(axes.get_xticks()) == [0, 1, 2, 3]
    assert all(not label.get_text() for axes in (overview, accuracy) for label in axes.get_xticklabels())


def test_missing_cells_are_gaps_and_undefined_scores_make_points_hollow():
    report = changed(PLANTED, lambda cell: None, check="parameters", method="gradient", step=1)
    report = changed(report, lambda cell: None, check="parameters", method="gradient", step=2, repeat=1)
    report = changed(report, lambda c: scored(c, [NAN] * 12), check="parameters", method="edges")
    figure = similarity_curves(report, TOP, "spearman")
    figure_pixels(figure)
    overview, _, (gradient, edges) = curve_axes(figure)
    left = grid(report, check="parameters", method="gradient", step=2)
    expected = [1, grid(PLANTED, check="parameters", method="gradient", step=0).mean(), NAN, left.mean()]
    np.testing.assert_allclose(by_label(gradient, "mean")[0], expected)
    np.testing.assert_allclose(by_label(overview, "hollow")[0], [NAN, NAN, NAN, expected[3]])
    np.testing.assert_allclose(by_label(gradient, "network 2")[0][[2, 3]], [NAN, left[1].mean()])
    assert np.isnan(by_label(gradient, "network 1")[0]).tolist() == [False, False, True, True]
    assert [text.get_text() for text in edges.texts] == ["undefined"]
    assert any("Hollow" in text for text in texts(figure))
    assert not any("Hollow" in text for text in texts(similarity_curves(PLANTED, TOP, "spearman")))


def test_independent_steps_are_not_joined():
    report = planted(variants=("independent",), num_repeats=2)
    overview, evidence, single = curve_axes(similarity_curves(report, "independent", "ssim"))
    lines = [line for axes in (overview, *single) for line in axes.lines if line.get_label() == "mean"]
    lines += [axes.lines[-1] for axes in evidence]
    assert {line.get_linestyle() for line in lines} == {"None"}
    assert all(line.get_marker() not in ("", "None") for line in lines)
    first, second = (line.get_xdata() for line in lines[:2])
    assert np.all(first < second)
    np.testing.assert_array_equal(np.round(first), [0, 1, 2, 3])
    interval = decided(report, "ssim", "independent")["gradient", 1]
    segment = single[0].collections[0].get_segments()[2]
    np.testing.assert_allclose(segment, [[2, interval.low], [2, interval.high]])


def test_one_repeat_is_not_drawn_twice():
    _, _, single = curve_axes(similarity_curves(planted(num_repeats=1), TOP, "ssim"))
    assert not by_label(single[0], "network 0")


def test_fourteen_methods_can_be_told_apart_even_without_colors():
    report = planted(NAMES[:14], ("fc1",), similarities=("ssim",), num_kept=0)
    overview, _, single = curve_axes(similarity_curves(report, TOP, "ssim"))
    lines = [line for line in overview.lines if line.get_label() == "mean"]
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 14
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 14
    for line, axes in zip(lines, single, strict=True):
        (same,) = [one for one in axes.lines if one.get_label() == "mean"]
        assert (same.get_color(), same.get_marker()) == (line.get_color(), line.get_marker())


def test_the_verdict_stands_where_its_similarity_is():
    assert {"PASS", "FAIL"} <= set(texts(similarity_curves(PLANTED, TOP, "spearman")))
    assert not {"PASS", "FAIL"} & set(texts(similarity_curves(PLANTED, TOP, "ssim")))


# Bars


def bars(axes):
    return [patch.get_width() for patch in axes.patches]


def test_bars_are_means_with_the_interval_that_decides_and_floors():
    figure = randomization_bars(PLANTED, "data")
    assert len(figure.axes) == 2
    for axes, similarity in zip(figure.axes, ("spearman", "ssim"), strict=True):
        assert similarity in texts(figure)
        for row, method in enumerate(("gradient", "edges")):
            scores = grid(PLANTED, similarity, check="data", method=method)
            assert bars(axes)[row] == pytest.approx(scores.mean())
            whisker = [line.get_xdata() for line in axes.lines if line.get_label() == "interval"][row]
            mean = means([c for c in PLANTED.cells if c.key.check == "data"], similarity, PLANTED)[method, 0]
            np.testing.assert_allclose(whisker, [mean.low, mean.high])
            (tick,) = {line.get_xdata()[0] for line in axes.lines if line.get_label() == "boundary"} & {
                mean.floor + mean.margin
            }
            assert tick == mean.floor + mean.margin
            for variant in ("different_images", "random_maps"):
                floor = grid(PLANTED, similarity, check="floor", variant=variant, method=method).mean()
                line = [line for line in axes.lines if line.get_label() == variant][row]
                assert (line.get_xdata()[0], line.get_ydata()[0]) == (pytest.approx(floor), row)
    assert {"gradient", "edges", "PASS", "FAIL"} <= set(texts(figure))
    assert any("Verdict: by spearman." in text for text in texts(figure))
    assert not any("Verdict" in text for text in texts(randomization_bars(replace(PLANTED, verdicts=()), "data")))


def test_bars_of_the_parameters_are_those_of_the_last_step():
    expected = grid(PLANTED, check="parameters", method="gradient", step=2).mean()
    figure = randomization_bars(PLANTED, "parameters")
    assert bars(figure.axes[0])[0] == pytest.approx(expected)
    assert any("last step (conv1)" in text for text in texts(figure))
    report = planted(blocks=("all",), variants=("independent", "full", TOP))
    expected = grid(report, check="parameters", variant="full", method="gradient").mean()
    assert bars(randomization_bars(report, "parameters").axes[0])[0] == pytest.approx(expected)


def test_bars_that_are_unknown_say_so():
    report = changed(PLANTED, lambda cell: scored(cell, [NAN] * 12), check="data", method="edges")
    report = changed(report, lambda c: replace(c, scores={"spearman": c.scores["spearman"]}), method="gradient")
    spearman, ssim = randomization_bars(report, "data").axes
    assert [text.get_text() for text in spearman.texts] == ["undefined", "PASS", "FAIL"]
    assert [text.get_text() for text in ssim.texts] == ["not scored"]


def test_maps_that_should_stay_alike_have_no_floor():
    figure = randomization_bars(PLANTED, "invariance")
    assert not [line for line in figure.axes[0].lines if line.get_label() == "random_maps"]


def with_rises(report):
    """Efficient MPRT has one score of its own."""
    return changed(
        report, lambda cell: replace(cell, scores={"entropy_rise": 5 * cell.scores["spearman"]}), check="efficient"
    )


def test_bars_of_efficient_mprt_are_rises_without_floors():
    report = with_rises(planted(num_repeats=3, checks=("efficient",)))
    figure = randomization_bars(report, "efficient")
    (axes,) = figure.axes
    assert bars(axes) == [
        pytest.approx(grid(report, "entropy_rise", check="efficient", method=method).mean())
        for method in ("gradient", "edges")
    ]
    assert not {line.get_label() for line in axes.lines} & {"different_images", "random_maps"}
    assert {"entropy_rise", "Relative rise of the maps' entropy under randomization of all blocks"} <= set(
        words(figure)
    )


def test_figures_of_the_later_checks_are_bars_and_pairs():
    report = with_rises(planted(variants=(), checks=("efficient", "random_logit")))
    expected = ["efficient-bars", "random_logit-bars", "random_logit-absolute", "random_logit-diverging"]
    assert list(sanity_figures(report)) == expected
    similarity = "Similarity of maps of the explained class and of another"
    assert similarity in texts(randomization_bars(report, "random_logit"))


# Errors


def test_what_a_report_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"`report` has no cells of the variant 'full'.*parameters/cascading_from_top"):
        cascade_grid(PLANTED, "full")
    with pytest.raises(ValueError, match=r"`report` has no scores 'cosine' of the variant"):
        similarity_curves(PLANTED, TOP, "cosine")
    with pytest.raises(ValueError, match=r"`samples` must be positions among the 2 samples.*got \[2\]"):
        cascade_grid(PLANTED, TOP, samples=[2])
    with pytest.raises(ValueError, match=r"`samples` must be positions among the 0 samples"):
        map_pairs(planted(num_kept=0), "data")
    with pytest.raises(ValueError, match=r"`report` has no cells of the check 'data'"):
        map_pairs(planted(checks=()), "data")
    with pytest.raises(ValueError, match=r"`report` has no scores of a last step of the check 'parameters'"):
        randomization_bars(planted(variants=("independent",)), "parameters")


# Texts

SIZES = {
    "least": {"methods": ("a",), "blocks": ("b",), "num_samples": 1, "num_kept": 1, "similarities": ("spearman",)},
    "long": {"methods": NAMES[-4:], "blocks": LONG_STEPS, "similarities": ("spearman", "s" * 30), "num_kept": 1},
    "usual": {"methods": NAMES[:12], "blocks": tuple(f"layer{i}" for i in range(8)), "num_repeats": 3},
    "large": {"methods": NAMES, "blocks": LONG_STEPS, "similarities": ("spearman", "s" * 30, *"abcde"), "num_kept": 1},
}
DRAWN = {
    "absolute": lambda report: cascade_grid(report, TOP),
    "curves": lambda report: similarity_curves(report, TOP, "spearman"),
    "bars": lambda report: randomization_bars(report, "data"),
    "pairs": lambda report: map_pairs(report, "data"),
    "classes": lambda report: map_pairs(report, "random_logit"),
    "rises": lambda report: randomization_bars(with_rises(report), "efficient"),
    "shifted": lambda report: map_pairs(report, "invariance", absolute=False),
}


SLOW = {*((drawn, "large") for drawn in DRAWN), ("shifted", "usual"), ("classes", "usual")}  # drawn as "pairs" are


@pytest.mark.parametrize(
    ("drawn", "size"),
    [pytest.param(*pair, marks=[pytest.mark.slow] * (pair in SLOW)) for pair in product(DRAWN, SIZES)],
)
def test_texts_neither_overlap_nor_leave_the_figure(drawn, size):
    figure = DRAWN[drawn](planted(**SIZES[size], checks=("data", "invariance", "efficient", "random_logit")))
    check_texts(figure)


# Files


def test_the_files_are_the_figures_and_old_ones_are_removed_and_pyplot_knows_of_none(tmp_path):
    before = plt.get_fignums(), plt.get_backend(), dict(plt.rcParams)
    report = planted(("gradient",), ("fc1",), checks=("data",), similarities=("ssim",))
    folder = tmp_path / "new"
    names = [
        *(f"sanity-{TOP}-absolute.png", f"sanity-{TOP}-diverging.png", f"sanity-{TOP}-ssim.png"),
        "sanity-parameters-bars.png",
        *("sanity-data-bars.png", "sanity-data-absolute.png", "sanity-data-diverging.png"),
    ]
    paths = write_figures(report, folder)
    assert [path.name for path in paths] == names
    assert {path.name for path in folder.iterdir()} == set(names)
    (folder / "other.png").write_bytes(b"mine")
    without = planted(("gradient",), ("fc1",), checks=(), similarities=("ssim",))
    paths = write_figures(without, folder)
    assert [path.name for path in paths] == names[:4]
    assert {path.name for path in folder.iterdir()} == {*names[:4], "other.png"}
    for path, figure in zip(paths, sanity_figures(without).values(), strict=True):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), figure_pixels(figure))
    assert (plt.get_fignums(), plt.get_backend(), dict(plt.rcParams)) == before


def test_figures_that_would_show_nothing_are_left_out():
    assert sanity_figures(SanityReport({}, (), np.empty((0, 1, 4, 4)), (), (), ())) == {}
    without_maps = planted(variants=("independent",), checks=("data",), similarities=("ssim",), num_kept=0)
    assert list(sanity_figures(without_maps)) == ["independent-ssim", "data-bars"]
    only_floor = replace(PLANTED, cells=tuple(c for c in PLANTED.cells if c.key.check in ("original", "floor")))
    assert sanity_figures(only_floor) == {}
