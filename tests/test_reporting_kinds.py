"""Panels of what is no image: what is drawn is what the values are."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_xai.reporting.colors import DIVERGING
from lightning_xai.reporting.kinds import panel, slices

BOUNDS = (torch.tensor(-1.0), torch.tensor(3.0))


def drawn(inputs, maps, **options):
    figure = panel(inputs, {"ours": maps}, BOUNDS, labels=["cat"], predictions=["dog"], title="a title", **options)
    return figure.axes[0]


def test_a_table_has_a_bar_for_each_feature():
    axes = drawn(torch.tensor([[-1.0, 1.0, 3.0]]), torch.tensor([[2.0, -4.0, 0.0]]))
    heights = [-bar.get_height() for bar in axes.patches if bar.get_facecolor()[3] and bar.get_fill()]
    values, found = np.array(heights[:3]), np.array(heights[3:])
    assert_close(values / values[2], np.array([0.0, 0.5, 1.0]))
    assert_close(found / abs(found[1]), np.array([0.5, -1.0, 0.0]), atol=0.02, rtol=0.02)  # the scale is a percentile
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat\n→ dog"]


def test_a_series_is_a_curve_for_each_channel_over_the_colors_of_its_map():
    inputs = torch.tensor([[[-1.0, 1.0, 3.0, 1.0], [3.0, 3.0, -1.0, -1.0]]])
    maps = torch.tensor([[[1.0, 2.0, 0.0, -1.0], [1.0, -2.0, 0.5, 0.0]]])
    masks = torch.tensor([[True, False, False, True]])
    axes = drawn(inputs, maps, masks=masks)
    curves = [line.get_ydata() for line in axes.lines[:2]]
    low, high = max(map(np.max, curves)), min(map(np.min, curves))  # downward
    for curve, channel in zip(curves, inputs[0], strict=True):
        assert_close((curve - low) / (high - low), (channel.numpy() + 1) / 4)
    shade, colors = (np.asarray(image.get_array()) for image in axes.images)
    assert_close(shade, masks.numpy().astype(float))
    assert_close(colors, maps.sum(1).numpy())


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_slices_of_a_volume_stand_side_by_side(depth):
    volumes = torch.rand(2, 1, depth, 5, 6)
    number = min(depth, 4)
    pictures = slices(volumes)
    assert pictures.shape == (2, 1, 5, 6 * number)
    assert_close(pictures[..., :6], volumes[:, :, 0])
    assert_close(pictures[..., -6:], volumes[:, :, -1])
    axes = drawn(volumes[:1] * 4 - 1, torch.rand(1, 1, depth, 5, 6), masks=volumes[:1, 0] > 0.5)
    shown = [np.asarray(image.get_array()) for image in axes.images]
    assert_close(shown[0], pictures[0, 0].numpy())
    assert_close(shown[1], (pictures[0, 0] > 0.5).float().numpy())


WORDS = ["[CLS]", "not", "a", "$good$", "film"]


def test_the_words_of_a_text_stand_on_the_colors_of_their_attributions():
    """On the sample's own scale: the greatest absolute value, or nearly, is at its end; padding is not drawn."""
    maps = torch.tensor([[[4.0, -4.0, 0.0, 2.0, 1.0, 9.0]], [[1.0, -1.0, 9.0, 9.0, 9.0, 9.0]]]).expand(2, 200, 6)
    inputs, short = torch.rand(2, 200, 6), ["ok", "."]
    axes = panel(inputs, {"ours": maps}, BOUNDS, labels=["a", "b"], tokens=[WORDS, short]).axes[0]
    assert [text.get_text() for text in axes.texts] == [*WORDS, *short]
    boxes = [patch.get_facecolor() for patch in axes.patches]
    shares = [1.0, 0.0, 0.5, 0.75, 0.625, 1.0, 0.0]
    assert_close(np.array(boxes), DIVERGING(np.array(shares)), atol=0.03, rtol=0)


def test_a_long_text_is_broken_into_lines_within_its_cell():
    words = WORDS * 20
    axes = panel(torch.rand(1, 3, 100), {"ours": torch.rand(1, 3, 100)}, BOUNDS, tokens=[words]).axes[0]
    boxes = [patch.get_bbox() for patch in axes.patches]
    assert len({round(box.ymin, 3) for box in boxes}) > 2
    for before, after in itertools.pairwise(boxes):
        assert after.xmin == pytest.approx(before.xmax) or (after.xmin == 0 and after.ymin > before.ymin)
    assert max(box.xmax for box in boxes) <= axes.get_xlim()[1]
    assert max(box.ymax for box in boxes) <= axes.get_ylim()[0]


def test_embeddings_without_words_have_a_bar_a_token():
    inputs, maps = torch.zeros(1, 200, 3), torch.zeros(1, 200, 3)
    inputs[0, :2, 0], inputs[0, 5, 1], maps[0, :2, 1], maps[0, 7, 2] = torch.tensor([6.0, 8.0]), 5.0, 1.0, -4.0
    heights = [-bar.get_height() for bar in drawn(inputs, maps).patches if bar.get_facecolor()[3] and bar.get_fill()]
    assert_close(np.array(heights[:3]) / heights[0], np.array([1.0, 0.5, 0.0]))
    assert_close(np.array(heights[3:]) / abs(heights[5]), np.array([0.0, 0.5, -1.0]), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("tokens", [[WORDS, WORDS], [["word"] * 7]])
def test_words_of_other_samples_are_refused(tokens):
    with pytest.raises(ValueError, match="`tokens` must be a list of words for each of the samples"):
        drawn(torch.rand(1, 3, 6), torch.rand(1, 3, 6), tokens=tokens)
