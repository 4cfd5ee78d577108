"""Panels: what each cell shows, that no text overlaps, and where the picture goes."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.saving import figure_pixels, save_figure
from tests.drawn import check_texts, texts, written

GENERATOR = torch.Generator().manual_seed(0)
GRAY, COLOR = torch.rand(3, 1, 8, 8, generator=GENERATOR), torch.rand(3, 3, 8, 8, generator=GENERATOR)
SIGNED = torch.randn(3, 1, 8, 8, generator=GENERATOR)
BOUNDS = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)


def panel(attributions, images=GRAY, bounds=BOUNDS, **options):
    return attribution_panel(images, attributions, bounds, **options)


def cells(figure, num_columns):
    """The pictures, [column][row]; the legend's bars, which are drawn last, left out."""
    pictures = [image for axes in figure.axes for image in axes.images]
    return [pictures[3 * column : 3 * column + 3] for column in range(num_columns)]


# What the cells show


def test_inputs_are_shown_as_they_were_before_normalization():
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    figure = panel({}, (COLOR - mean) / std, ((0 - mean) / std, (1 - mean) / std))
    for cell, image in zip(cells(figure, 1)[0], COLOR, strict=True):
        np.testing.assert_allclose(cell.get_array(), image.permute(1, 2, 0), atol=1e-6)


def test_values_beyond_the_bounds_are_clipped():
    figure = panel({}, GRAY * 4 - 2)
    assert (cells(figure, 1)[0][0].get_array().min(), cells(figure, 1)[0][0].get_array().max()) == (0, 1)


def test_masks_are_shown_beside_the_inputs():
    masks = GRAY > 0.5
    for shape in (masks, masks[:, 0]):
        shown = cells(panel({}, masks=shape), 2)[1]
        assert all(np.array_equal(cell.get_array(), mask[0]) for cell, mask in zip(shown, masks, strict=True))


def test_signed_maps_have_a_symmetric_scale_at_the_99th_percentile():
    attributions = torch.randn(3, 3, 8, 8, generator=GENERATOR)
    for cell, values in zip(cells(panel({"m": attributions}, COLOR), 2)[1], attributions.sum(1), strict=True):
        end = np.percentile(values.abs(), 99)
        np.testing.assert_allclose(cell.get_array(), values)
        np.testing.assert_allclose(cell.get_clim(), (-end, end))
        assert cell.get_cmap()(0.5) == pytest.approx((0.97, 0.97, 0.97, 1), abs=0.01)


def test_summed_channels_are_shown_as_channels_that_are_summed_here():
    attributions = torch.randn(3, 3, 8, 8, generator=GENERATOR)
    whole, summed = (cells(panel({"m": part}, COLOR), 2)[1] for part in (attributions, attributions.sum(1, True)))
    for one, other in zip(whole, summed, strict=True):
        np.testing.assert_allclose(one.get_array(), other.get_array(), rtol=1e-6)


def test_maps_without_negative_values_have_a_scale_from_zero():
    cell = cells(panel({"m": SIGNED.abs()}), 2)[1][0]
    np.testing.assert_allclose(cell.get_clim(), (0, np.percentile(SIGNED[0].abs(), 99)))
    assert cell.get_cmap()(0.0) == pytest.approx((0.97, 0.97, 0.97, 1), abs=0.01)


def test_one_negative_value_makes_all_maps_of_a_method_signed():
    attributions = SIGNED.abs()
    attributions[2, 0, 0, 0] = -1e-3
    assert all(cell.get_clim()[0] < 0 for cell in cells(panel({"m": attributions}), 2)[1])


def test_maps_that_are_sparse_or_zero_or_not_finite_are_shown():
    attributions = torch.zeros(3, 1, 16, 16)
    attributions[0, 0, 3, 3] = 5.0
    attributions[1] = torch.nan
    attributions[2, 0, 0] = torch.inf
    figure = panel({"m": attributions}, torch.rand(3, 1, 16, 16))
    assert [cell.get_clim() for cell in cells(figure, 2)[1]] == [(0, 5), (0, 1), (0, 1)]
    assert cells(figure, 2)[1][1].get_array().mask.all()
    assert figure_pixels(figure).std() > 0


def test_half_precision_and_gradients_are_taken_as_they_come():
    attributions = SIGNED.to(torch.bfloat16).requires_grad_()
    images = GRAY.to(torch.bfloat16).requires_grad_()
    assert figure_pixels(panel({"m": attributions}, images)).std() > 0


def test_small_images_stay_crisp():
    assert all(cell.get_interpolation() == "nearest" for cell in cells(panel({"m": SIGNED}), 2)[1])


# What is written


def test_titles_labels_and_predictions():
    figure = panel({"gradient": SIGNED}, labels=["0", "1", "2"], predictions=["0", "7", "2"], title="Epoch 3")
    assert {"Epoch 3", "input", "gradient", "0", "1", "2", "→ 0", "→ 7", "→ 2"} <= set(texts(figure))
    colors = {text.get_text(): text.get_color() for text in written(figure)}
    assert colors["→ 0"] == colors["→ 2"] != colors["→ 7"]


def test_a_long_title_makes_the_panel_higher_and_not_wider():
    short, long = (panel({"m": SIGNED}, title=title) for title in ("$a$ cat", "$a$ cat " * 20))
    (title,) = (text for text in texts(long) if "cat" in text)
    assert title.count("\n") > 2
    assert title.replace("\n", " ") == ("$a$ cat " * 20).strip()
    assert long.get_figwidth() == short.get_figwidth()
    assert long.get_figheight() > short.get_figheight()


def test_a_long_name_leaves_the_panel_as_narrow_as_a_short_one_of_the_same_length_shown():
    names = (f"{'a' * 16}…{'b' * 15}", "a" * 40 + "b" * 40)
    short, long = (panel({name: SIGNED}) for name in names)
    assert names[0] in texts(long)
    assert long.get_size_inches().tolist() == short.get_size_inches().tolist()


@pytest.mark.parametrize(("attributions", "ends"), [(SIGNED, {"−P99", "P99"}), (SIGNED.abs(), {"P99"})])
def test_the_legend_explains_the_scales_that_occur(attributions, ends):
    assert {text for text in texts(panel({"m": attributions})) if text.endswith("P99")} == ends
    assert not any("P99" in text for text in texts(panel({})))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "names",
    [["a"], ["a", "b"], [f"integrated_gradients_{i}" for i in range(8)], ["$x$", "{_^}", "a_b" * 20], ["a_b" * 90]],
)
@pytest.mark.parametrize("size", [(8, 8), (5, 12), (80, 100)])
def test_texts_neither_overlap_nor_leave_the_figure(names, size):
    images = torch.rand(2, 1, *size)
    attributions = {name: images - (0.5 if i % 2 else 0) for i, name in enumerate(names)}
    labels = ["ankle boot", "golden retriever"]
    figure = panel(attributions, images, masks=images > 0.5, labels=labels, predictions=labels, title="Validation." * 5)
    check_texts(figure)


# Bad input


def test_attributions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`attributions` of 'm' must be shaped like the images, \(3, 1, 8, 8\)"):
        panel({"m": SIGNED[:2]})
    with pytest.raises(ValueError, match=r"shaped like the images, \(3, 3, 8, 8\); got \(3, 2, 8, 8\)"):
        panel({"m": SIGNED.expand(3, 2, 8, 8)}, COLOR)


@pytest.mark.parametrize("name", ["labels", "predictions"])
def test_a_label_too_few_is_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` must have one entry for each of the 3 images; got 2"):
        panel({}, **{name: ["a", "b"]})


def test_a_panel_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`images` must have at least one image"):
        panel({}, GRAY[:0])


# Where it goes


def test_a_saved_figure_is_the_figure(tmp_path):
    figure = panel({"m": SIGNED})
    save_figure(figure, tmp_path / "new" / "panel.png")
    with Image.open(tmp_path / "new" / "panel.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), figure_pixels(figure))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["panel.png"]


def test_a_failed_save_leaves_the_old_picture(tmp_path, monkeypatch):
    def fail(self, path, **_):
        Path(path).write_bytes(b"half")
        raise RuntimeError("interrupted")

    (tmp_path / "panel.png").write_bytes(b"old")
    figure = panel({})
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        save_figure(figure, tmp_path / "panel.png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"panel.png": b"old"}


def test_pyplot_knows_nothing_of_our_figures(tmp_path):
    before = plt.get_fignums(), plt.get_backend()
    figure = panel({"m": SIGNED})
    save_figure(figure, tmp_path / "panel.png")
    assert (plt.get_fignums(), plt.get_backend()) == before
