"""Figures of comparisons: what the bars, boxes and cells show, and that texts neither overlap nor are cut off."""

import math
from dataclasses import replace
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from lightning_xai.reporting.colors import readable
from lightning_xai.reporting.comparison_figures import (
    agreement_map,
    comparison_figures,
    rank_map,
    score_bars,
    score_boxes,
    write_comparison_figures,
)
from lightning_xai.reporting.pages import drawn_width, num_lines, shortened, wrapped
from lightning_xai.reporting.saving import figure_pixels
from lightning_xai.results.comparison import Agreement, ComparedRun, Comparison, MethodResult, MetricComparison
from tests.drawn import check_texts, outline, texts, written

NAN = math.nan
RUNS = (ComparedRun("run", "test", 0, 0, 9),)
BEST, WORSE, GRAY = "#0072b2", "#a9cfe8", "#bfbfbf"


def result(method, values, rank=None, is_best=False):
    values = tuple(map(float, values))
    mean = float(np.mean(values)) if values else NAN
    return MethodResult(method, 0, mean, NAN, mean - 0.25, mean + 0.5, rank, NAN, NAN, NAN, is_best, values)


def metric(name, better, *results, num_common=9):
    num_samples = max(len(r.values) for r in results)
    return MetricComparison(name, better, num_common, tuple(range(num_samples)), results)


def nine(mean):
    """Nine scores; the quartiles are mean - 2 and mean + 2, the last one is far beyond the whiskers."""
    return [mean + x for x in (-4, -3, -2, -1, 0, 1, 2, 3, 90)]


GINI = metric("gini", True, result("sg", nine(7), 1, True), result("ag", nine(6), 2, True), result("edges", nine(1), 3))
NOISE = metric("noise", None, result("sg", [1.0] * 8), result("ag", [3.0] * 8), result("edges", [2.0] * 8))
LOSS = metric("loss", False, result("sg", [5.0] * 9, 2), result("ag", [-5.0] * 9, 1, True), result("edges", ()))
AGREEMENTS = (Agreement(("gini", "loss"), -0.25, 0.031, 9, 3),)
COMPARISON = Comparison(RUNS, (GINI, NOISE, LOSS), 0.05, 9999, 0, controls=("edges",), agreements=AGREEMENTS)


def bars(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def stars(axes):
    return [round(text.get_position()[1]) for text in axes.texts if text.get_text() == "★"]


# What is shown


def test_bars_are_the_means_with_their_intervals():
    for axes, one in zip(score_bars(COMPARISON).axes, COMPARISON.metrics, strict=True):
        shown = [r for r in one.methods if r.values]
        assert [(bar.get_x(), bar.get_width()) for bar in bars(axes)] == [(0, pytest.approx(r.mean)) for r in shown]
        ends = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "|"]
        assert ends == [pytest.approx([r.low, r.high]) for r in shown]
        low, high = axes.get_xlim()
        assert all(low < x < high for pair in ends for x in (*pair, 0))


@pytest.mark.parametrize("draw", [score_bars, score_boxes])
def test_the_best_are_dark_and_starred(draw):
    gini, noise, loss = draw(COMPARISON).axes
    assert [to_hex(bar.get_facecolor()) for bar in bars(gini)] == [BEST, BEST, WORSE]
    assert [to_hex(bar.get_facecolor()) for bar in bars(noise)] == [GRAY] * 3
    assert [to_hex(bar.get_facecolor()) for bar in bars(loss)] == [WORSE, BEST]
    assert (stars(gini), stars(noise), stars(loss)) == ([0, 1], [], [1])


@pytest.mark.parametrize("draw", [score_bars, score_boxes])
def test_rows_are_methods_and_titles_are_metrics(draw):
    figure = draw(COMPARISON)
    names = {text.get_text(): text for text in written(figure)}
    assert {"gini ↑", "noise", "loss ↓", "9 samples", "8 of 9 samples", "sg", "ag", "edges"} <= names.keys()
    assert (names["edges"].get_style(), names["sg"].get_style()) == ("italic", "normal")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sg", "ag", "edges"]
    for row in range(3):
        bar = bars(axes)[row]
        assert bar.get_y() + bar.get_height() / 2 == pytest.approx(row)


@pytest.mark.parametrize("draw", [score_bars, score_boxes])
def test_methods_without_a_score_say_so(draw):
    other = metric("other", True, result("sg", nine(1), 1))
    _, _, loss, other = draw(replace(COMPARISON, metrics=(*COMPARISON.metrics, other))).axes
    said = {text.get_text(): round(text.get_position()[1]) for text in loss.texts}
    del said["9 samples"]
    assert said == {"★": 1, "undefined": 2}
    _, first, second = other.texts
    assert first.get_text() == second.get_text() == "not scored"
    assert [round(text.get_position()[1]) for text in (first, second)] == [1, 2]


def test_boxes_are_quartiles_median_whiskers_and_what_is_beyond():
    axes = score_boxes(COMPARISON).axes[0]
    for row, mean in enumerate((7, 6, 1)):
        box = bars(axes)[row]
        assert (box.get_x(), box.get_width()) == (mean - 2, 4)
        lines = [line.get_xdata().tolist() for line in axes.lines if np.allclose(np.mean(line.get_ydata()), row)]
        assert [mean - 4, mean + 3] in lines
        assert [mean, mean] in lines
        assert [mean + 90] in lines
    low, high = axes.get_xlim()
    assert low < -3
    assert high > 97


def test_ranks_are_the_cells_of_metrics_with_a_direction():
    figure = rank_map(COMPARISON)
    (axes,) = figure.axes
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array().filled(0), [[1, 2], [2, 1], [3, 0]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert [[cells[column + 0.5, row + 0.5] for column in (0, 1)] for row in (0, 1, 2)] == [
        ["1 ★", "2"],
        ["2 ★", "1 ★"],
        ["3", "–"],
    ]
    assert {"gini ↑", "loss ↓"} <= set(texts(figure))
    assert "noise" not in texts(figure)
    assert axes.get_ylim() == (3, 0), "the first method above"
    assert (mesh.norm.vmin, mesh.norm.vmax) == (1, 3)
    assert np.sum(mesh.cmap(0.0)[:3]) < np.sum(mesh.cmap(1.0)[:3]), "the best is the darkest"


def test_agreement_is_symmetric_and_has_no_diagonal():
    (axes,) = agreement_map(COMPARISON).axes
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array().filled(9), [[9, -0.25], [-0.25, 9]])
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)
    assert sorted(text.get_text() for text in axes.texts) == ["", "", "−0.25\n± 0.03", "−0.25\n± 0.03"]


def test_pairs_whose_agreement_is_unknown_are_marked():
    more = (Agreement(("loss", "third"), 0.5, NAN, 1, 3),)
    third = replace(GINI, metric="third")
    comparison = replace(COMPARISON, metrics=(GINI, LOSS, third), agreements=AGREEMENTS + more)
    cells = {text.get_position(): text.get_text() for text in agreement_map(comparison).axes[0].texts}
    assert (cells[2.5, 0.5], cells[0.5, 2.5]) == ("–", "–")
    assert (cells[2.5, 1.5], cells[1.5, 2.5]) == ("+0.50", "+0.50")


def test_notes_say_what_the_marks_mean():
    for figure in (score_bars(COMPARISON), score_boxes(COMPARISON), rank_map(COMPARISON)):
        text = " ".join(texts(figure)).replace("\n", " ")
        assert "best, or not significantly worse (Wilcoxon, Holm over all pairs, 0.05)" in text
        assert "Italics: controls" in text
    assert "Mean and 90 % confidence interval: run, test, epoch 0" in texts(score_bars(replace(COMPARISON, alpha=0.1)))
    plain = replace(COMPARISON, metrics=(GINI, LOSS), controls=())
    text = " ".join(texts(score_bars(plain)))
    assert "Italics" not in text
    assert "Gray" not in text
    assert "Dark" not in " ".join(texts(score_bars(replace(COMPARISON, metrics=(NOISE,)))))


def test_every_figure_says_what_equal_compute_left_out():
    matched = replace(COMPARISON, matched_gradients=50, left_out={"fusion": 100.0})
    for name, figure in comparison_figures(matched).items():
        assert "Left out: fusion (100)." in " ".join(texts(figure)).replace("\n", " "), name


@pytest.mark.parametrize("colors", ["Blues", "RdBu"])
def test_texts_in_cells_can_be_read(colors):
    """At least 4.5 to 1, as WCAG 2 asks for."""
    for background in plt.colormaps[colors](np.linspace(0, 1, 99)):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        contrast = (luminance + 0.05) / 0.05 if readable(tuple(background)) == "black" else 1.05 / (luminance + 0.05)
        assert contrast >= 4.5


# Texts


def planted(methods, metrics, seed=0):
    """A comparison of these names, with scales from tiny to huge and some undefined scores."""
    rng = np.random.default_rng(seed)
    compared = []
    for number, name in enumerate(metrics):
        scale = 10.0 ** ((5 * number) % 12 - 6)
        scores = [rng.normal(rng.normal(), 1, 20) * scale + 7 * scale * (number % 3) for _ in methods]
        ranks = 1 + np.argsort(np.argsort([np.mean(values) for values in scores]))
        better = (False, True, None)[number % 3]
        ranked = [None if better is None else int(rank) for rank in ranks]
        results = [result(m, v, r, r in (1, 2)) for m, v, r in zip(methods, scores, ranked, strict=True)]
        spread = [replace(r, low=r.mean - scale / 5, high=r.mean + scale / 5) for r in results]
        spread[-1] = result(methods[-1], ()) if number % 4 == 2 else spread[-1]
        compared.append(metric(name, better, *spread, num_common=25))
    directed = [one.metric for one in compared if one.higher_is_better is not None]
    agreements = tuple(Agreement(pair, float(rng.uniform(-1, 1)), 0.05, 20, 9) for pair in combinations(directed, 2))
    left_out = {f"{name}_with_more_draws": 500.0 for name in methods}
    return Comparison(RUNS, tuple(compared), 0.05, 9999, 0, methods[-1:], {}, 50, left_out, agreements)


SHORT = ("sg", "ag", "edges"), ("gini", "auroc")
LONG = (
    (
        *(f"cmnist_resnet9/version_{i}:integrated_gradients_$mooth" for i in range(10)),
        "a" * 70,
        "runs/with_a_very_long_name_of_a_folder/and_another_one/version_13:random",
    ),
    (*(f"relevance_rank_accuracy_{i}" for i in range(9)), "m" * 60, "$x$", "local lipschitz estimate"),
)
SIZES = {
    "least": (("a", "b"), ("m",)),
    "small": SHORT,
    "usual": (LONG[0][:9], LONG[1][:5]),
    "long": (LONG[0][-3:], LONG[1][-3:]),
    "large": LONG,
}


@pytest.mark.parametrize("size", ["least", "small", "usual", "long", pytest.param("large", marks=pytest.mark.slow)])
@pytest.mark.parametrize("draw", [score_bars, score_boxes])
def test_texts_around_axes_neither_overlap_nor_leave_the_figure(draw, size):
    figure = draw(planted(*SIZES[size]))
    check_texts(figure)
    assert all(len(axes.get_xticks()) >= 2 for axes in figure.axes)


@pytest.mark.parametrize("size", ["small", "usual", "large"])
@pytest.mark.parametrize("draw", [rank_map, agreement_map])
def test_texts_of_cells_stay_in_them_and_names_in_the_figure(draw, size):
    figure = draw(planted(*SIZES[size]))
    check_texts(figure)
    (axes,) = figure.axes
    for text in axes.texts:
        if text.get_text():
            corners = axes.transData.inverted().transform(outline(text).vertices[:4])
            assert np.all(np.abs(corners - text.get_position()) < 0.5), text.get_text()


def test_long_names_are_shortened_in_the_middle_as_far_as_they_stay_apart():
    check_texts(rank_map(planted(("x" * 70,), ("m" * 60,))))  # warnings are errors: axes may not collapse
    assert shortened(["gini", "a" * 30 + "b" * 30]) == ["gini", f"{'a' * 16}…{'b' * 15}"]
    alike = [f"{'a' * 30}{middle}{'b' * 30}" for middle in "xy"]
    assert shortened(alike) == alike
    alike = [f"{'a' * 20}{middle}{'b' * 40}" for middle in "xy"]
    assert shortened(alike) == [f"{'a' * 20}{middle}…{'b' * 20}" for middle in "xy"]
    assert shortened([]) == []


@pytest.mark.parametrize("values", [[1e-7, 3e-7], [0.999991, 0.999993], [-4e5, 9e5], [0.1, 0.1], [0.0], [2.0, 2e6]])
def test_tick_labels_tell_their_values_apart(values):
    one = metric("m", True, *(result(str(i), [value], 1, True) for i, value in enumerate(values)))
    (axes,) = score_boxes(replace(COMPARISON, metrics=(one,))).axes
    ticks = axes.get_xticks()
    multiplier = axes.xaxis.get_offset_text().get_text() or "1"
    labels = [float(f"{label.get_text()}e0".replace("−", "-")) for label in axes.get_xticklabels()]
    labels = [label * float(multiplier.replace("−", "-")) for label in labels]
    np.testing.assert_allclose(labels, ticks, rtol=1e-9, atol=1e-6 * np.ptp(ticks))
    assert len(set(labels)) == len(ticks) >= 2
    low, high = axes.get_xlim()
    assert all(low < value < high for value in values)


def test_long_tick_labels_have_room():
    one = metric("m", True, result("sg", [0.999991, 0.999993], 1, True))
    check_texts(score_boxes(replace(COMPARISON, metrics=(one,) * 4)))


@pytest.mark.parametrize("text", ["short", "a_rather_long_name:of_a/method-with.parts", "x" * 80, "Two words, $a$ few"])
def test_wrapped_text_is_the_text_in_lines_that_fit(text):
    lines = wrapped(text, 1.0)
    assert lines.replace("\n", "").replace(" ", "") == text.replace(" ", "")
    assert all(drawn_width(line) <= 1.0 for line in lines.split("\n"))
    assert num_lines(lines) >= drawn_width(text)


def test_wrapped_text_is_broken_behind_punctuation():
    assert wrapped("integrated_gradients:smooth", 0.8) == "integrated_\ngradients:\nsmooth"
    assert wrapped("worse at 0.05, of course", 0.9, breaks=r"\s") == "worse at 0.05,\nof course"


# Files


def test_figures_that_would_show_nothing_are_left_out():
    assert list(comparison_figures(COMPARISON)) == ["bars", "boxes", "ranks", "agreement"]
    assert list(comparison_figures(replace(COMPARISON, agreements=()))) == ["bars", "boxes", "ranks"]
    assert list(comparison_figures(replace(COMPARISON, metrics=(NOISE,), agreements=()))) == ["bars", "boxes"]
    single = metric("gini", True, result("sg", nine(1), 1, True))
    assert list(comparison_figures(replace(COMPARISON, metrics=(single,), agreements=()))) == ["bars", "boxes"]
    nothing = metric("gini", True, result("sg", ()), result("ag", ()))
    assert comparison_figures(replace(COMPARISON, metrics=(nothing,), agreements=())) == {}


def test_a_metric_without_any_score_leaves_the_others_alone():
    nothing = metric("nothing", True, *(result(name, ()) for name in ("sg", "ag", "edges")))
    comparison = replace(COMPARISON, metrics=(*COMPARISON.metrics, nothing))
    for name, figure in comparison_figures(comparison).items():
        assert figure_pixels(figure).std() > 0, name
    axes = score_bars(comparison).axes[-1]
    assert [text.get_text() for text in axes.texts[1:]] == ["undefined"] * 3
    assert "0 of 9 samples" in texts(score_bars(comparison))


def test_intervals_that_are_unknown_are_not_drawn():
    alone = replace(result("sg", [0.5], 1, True), low=NAN, high=NAN)
    (axes,) = score_bars(replace(COMPARISON, metrics=(metric("m", True, alone),))).axes
    assert [bar.get_width() for bar in bars(axes)] == [0.5]
    assert axes.get_xlim()[1] == pytest.approx(0.52)


def test_the_files_are_the_figures_and_old_ones_are_removed_and_pyplot_knows_of_none(tmp_path):
    before = plt.get_fignums(), plt.get_backend(), dict(plt.rcParams)
    paths = write_comparison_figures(COMPARISON, tmp_path / "new")
    names = ["comparison-bars.png", "comparison-boxes.png", "comparison-ranks.png", "comparison-agreement.png"]
    assert [path.name for path in paths] == names
    for path, figure in zip(paths, comparison_figures(COMPARISON).values(), strict=True):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), figure_pixels(figure))
    (tmp_path / "new" / "other.png").write_bytes(b"mine")
    paths = write_comparison_figures(replace(COMPARISON, agreements=()), tmp_path / "new")
    assert [path.name for path in paths] == names[:3]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {*names[:3], "other.png"}
    assert (plt.get_fignums(), plt.get_backend(), dict(plt.rcParams)) == before
