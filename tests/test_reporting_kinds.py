"""Panels of what is no image: what is drawn is what the values are."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

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
