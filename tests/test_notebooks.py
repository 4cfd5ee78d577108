"""What a notebook shows: scores as a table and a figure, maps beside images or upon them."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai.reporting.show import laid_over
from lightning_xai.results.scores import Scores

DIRECTIONS = {"gini": True}


@pytest.fixture
def scores():
    values = {"good": 0.9, "<bad>": 0.1, "random": 0.2}
    return Scores.from_rows(
        (stage, epoch, epoch, method, "gini", sample, value - epoch + sample % 3 / 100)
        for epoch, stage in enumerate(("validate", "test"))
        for method, value in values.items()
        for sample in range(12)
    )


def test_scores_are_a_table_of_the_last_evaluation(scores):
    assert repr(scores) == "Scores(72 rows: 3 methods, 1 metrics, 12 samples; stages validate, test)"
    shown = scores._repr_html_()
    assert "<td>-0.09 ±" in shown, "the test's"
    assert "&lt;bad&gt;" in shown
    assert "<bad>" not in shown
    assert len(scores.last()) == 36
    assert Scores.from_rows([])._repr_html_()


def test_scores_with_a_sample_twice_are_shown_without_means(scores):
    shown = Scores.concatenated([scores, scores])._repr_html_()
    assert shown.startswith("<p>Scores(144 rows")
    assert "has two scores of sample 0 for good, gini" in shown


def test_scores_are_compared_and_drawn(scores):
    (metric,) = scores.compare(DIRECTIONS).metrics
    assert [(result.method, result.rank) for result in metric.methods] == [("good", 1), ("<bad>", 2), ("random", None)]
    assert scores.plot(DIRECTIONS)._repr_png_().startswith(b"\x89PNG")


def test_a_metric_without_a_direction_is_refused(scores, tmp_path):
    for asked in (scores.compare, scores.plot, lambda wrong: scores.report(wrong, tmp_path / "a.html")):
        with pytest.raises(ValueError, match=r"`higher_is_better` must have .* it lacks gini, and has Gini"):
            asked({"Gini": True})


def test_an_evaluation_is_a_table():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    found = lx.evaluate(model, torch.rand(3, 1, 2, 2), target=1, methods=["gradient"], metrics=["sparseness"])
    assert found._repr_html_() == found.to_scores()._repr_html_()


def test_a_map_upon_a_picture_is_opaque_where_its_scale_ends():
    below = np.full((2, 2), 0.5)
    red, blue = (laid_over(torch.tensor([[value, 0.0], [0.0, 0.0]]), below) for value in (2.0, -2.0))
    assert_close(red[0, 1], np.full(3, 0.5))
    assert red[0, 0, 0] > red[0, 0, 2]
    assert blue[0, 0, 0] < blue[0, 0, 2]
    half = laid_over(torch.tensor([[1.0, 0.5], [0.0, 0.0]]), below)
    share = 0.5 / np.percentile([1, 0.5, 0, 0], 99)
    assert_close(half[0, 1], share * half[0, 0] + (1 - share) * below[0, 0])


def test_what_is_undefined_hides_the_picture_and_is_no_zero():
    below = np.full((1, 2), 0.5)
    laid = laid_over(torch.tensor([[math.nan, 0.0]]), below)
    assert_close(laid[0], np.array([[0.6] * 3, [0.5] * 3]))


def test_arrays_numbers_and_constant_images_are_shown():
    images, numbers = np.full((2, 1, 4, 4), 7, np.uint8), torch.tensor([3, 1])
    figure = lx.show({"a": np.ones((2, 1, 4, 4))}, images, overlay=True, labels=numbers)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["3", "1"]
    (_, first), *_ = ((image.zorder, image.get_array()) for image in figure.axes[0].images)
    assert_close(np.asarray(first, float), np.full((4, 4), 0.5), check_dtype=False)
    with pytest.raises(
        TypeError, match=r"`maps` must be a tensor or an array .*, got a list. Give several maps as a dic"
    ):
        lx.show.__wrapped__([torch.ones(2, 1, 4, 4)], torch.ones(2, 1, 4, 4))
    with pytest.raises(ValueError, match="`labels`"):
        lx.show(torch.ones(2, 1, 4, 4), images, labels=[1])


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 8, 8), (2, 1, 8), (2, 5), (2, 1, 4, 8, 8)])
def test_maps_of_any_kind_are_shown_without_bounds(shape):
    inputs = torch.rand(shape)
    for maps in (inputs - 0.5, {"a": inputs, "b": -inputs}):
        assert lx.show(maps, inputs, labels=["one", "two"])._repr_png_().startswith(b"\x89PNG")
    if len(shape) == 4:
        assert lx.show(inputs, inputs, (0.0, 1.0), overlay=True, labels=["one", "two"])._repr_png_()
    else:
        with pytest.raises(ValueError, match="`overlay` must be False"):
            lx.show(inputs, inputs, overlay=True)


def test_the_first_inputs_are_shown_and_the_title_says_how_many_there_are():
    images = torch.linspace(0, 1, 32 * 16).reshape(32, 1, 4, 4)
    for overlay in (False, True):
        figure = lx.show({"a": images - 0.5}, images, overlay=overlay, labels=list("abcdefgh" * 4), title="Digits")
        assert " ".join(figure.get_suptitle().split()) == "Digits; the first 8 of 32, num_shown=None shows all"
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list("abcdefgh")
        assert len(figure.axes[0].images) == 16
        assert figure.get_figheight() < 9
    assert len(lx.show(images, images, num_shown=None).axes[0].images) == 64
    assert lx.show(images[:8], images[:8]).get_suptitle() == ""
    with pytest.raises(ValueError, match=r"must be shaped like the images, \(32, 1, 4, 4\); got \(31"):
        lx.show(images[:31], images)
    with pytest.raises(ValueError, match="`num_shown` must be at least 1, got 0"):
        lx.show(images, images, num_shown=0)
