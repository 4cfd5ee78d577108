"""Bars, curves, sweeps and toy figures: what is drawn, and that texts neither overlap nor are cut off."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lightning_xai.reporting import pages
from lightning_xai.reporting.charts import (
    Bars,
    Curve,
    CurveAxes,
    Grid,
    Sweep,
    bars_figure,
    curves_figure,
    grids_figure,
    sweeps_figure,
)
from lightning_xai.reporting.noise_level import noise_level_figure
from lightning_xai.reporting.saving import figure_pixels
from lightning_xai.reporting.toy_figures import arrows_figure, fields_figure
from lightning_xai.results.noise_level import NoiseLevel, NoisePoint
from tests.drawn import check_texts, texts, words

NAN = math.nan
LONG = "a_name_that_is:rather/long-$x$"
NOTES = ["A note on what is drawn. " * 8, "$x$"]
X = np.array([1.0, 10.0, 100.0])
LEVELS = np.array([0.0, 0.5, 1.0])
POINTS = tuple(NoisePoint(std, drop, 0.01, (1 - drop,) * 2) for std, drop in ((0.1, 0.01), (0.2, 0.05), (0.4, 0.25)))
LEVEL = NoiseLevel(0.2, 0.15, 0.3, 0.05, 1.0, 0.0, POINTS, 9, 2, 0.01, 2.0, 0.95, 0)
WINDOW = ((-1.0, 1.0), (-1.0, 1.0))
PLANE = np.linspace(-1, 1, 12).reshape(3, 4)
PLANES = {"boundary": PLANE, "best_boundary": -PLANE}

BARS = (
    Bars("first", ("a", LONG), {"one": [(0.2, 0.1), (NAN, NAN)], "two": [(0.1, NAN), (-0.3, 0.1)]}, {LONG: 0.15}),
    Bars(LONG * 2, ("a", "b", "c"), {"two": [(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)]}),
)
CURVES = [
    CurveAxes("first", "x", "y", [Curve(LONG, (X, X), (X, 2 * X), X / 2)], {"xscale": "log", "yscale": "log"}),
    CurveAxes(LONG, "x", "y", [Curve(str(number), (X, number * X)) for number in range(9)]),
]
SWEEP = Sweep("AUROC ↑", {LONG: {level: np.array([level, level + 1]) for level in LEVELS.tolist()}}, {"random": 0.5})
GRID = Grid("AUROC ↑", LEVELS, LEVELS[:2], np.array([[0.1, 0.2], [NAN, 0.4], [0.5, 0.3]]))


def arrows():
    draws = np.random.default_rng(0).normal(size=(5, 2))
    arrays = {"points": draws, "labels": np.array([0, 1, 0, 1, 1]), "test_point": draws[1], **PLANES}
    for name in ("one", "two", "three"):
        arrays |= {f"inputs {name}": draws, f"gradients {name}": draws, f"mean {name}": draws[0]}
    return arrows_figure({**arrays, "boundaries two": np.stack([PLANE] * 2)}, ("one", "two", "three"), WINDOW)


FIGURES = {
    "bars": lambda: bars_figure("A heading of many words " * 6, BARS, NOTES),
    "curves": lambda: curves_figure("heading", CURVES, NOTES),
    "sweep": lambda: sweeps_figure([SWEEP] * 3, "noise", (0.5, 0.2, math.inf), (0.1, 0.4)),
    "grids": lambda: grids_figure([GRID, replace(GRID, means=GRID.means * NAN)], "down", "across"),
    "level": lambda: noise_level_figure(LEVEL),
    "arrows": arrows,
    "fields": lambda: fields_figure({"field a": np.ones((3, 4, 2)), **PLANES}, {"a": "one"}, WINDOW),
}


@pytest.mark.parametrize("name", FIGURES)
def test_texts_neither_overlap_nor_leave_the_figure(name):
    check_texts(FIGURES[name]())


def test_bars_are_the_values_and_a_series_has_one_color():
    first, second = bars_figure("heading", BARS).axes
    heights = [bar.get_height() for bar in first.patches]
    assert heights == [0.2, 0, 0.1, -0.3], "series by series; what is undefined has no height"
    assert {to_hex(bar.get_facecolor()) for bar in first.patches[2:]} == {
        to_hex(bar.get_facecolor()) for bar in second.patches
    }
    assert {"one", "two", LONG} <= set(texts(bars_figure("heading", BARS)))


def test_curves_are_lines_and_points_with_numbers_at_logarithmic_ticks():
    figure = curves_figure("heading", CURVES, NOTES)
    first, second = figure.axes
    assert first.lines[0].get_xydata().tolist() == np.stack([X, X], 1).tolist()
    assert first.lines[1].get_xydata().tolist() == np.stack([X, 2 * X], 1).tolist()
    assert {"1", "10", "100"} <= set(texts(figure))
    assert len({(line.get_color(), line.get_linestyle()) for line in second.lines}) >= 7


def test_sweeps_are_means_with_floors_and_the_level():
    figure = sweeps_figure([SWEEP], "noise", (0.5, 0.2, math.inf), (0.1, 0.4))
    (axes,) = figure.axes
    mean, floor, level, _ = axes.lines
    assert mean.get_xydata().tolist() == [[0, 0.5], [0.5, 1], [1, 1.5]]
    assert set(floor.get_ydata()) == {0.5}
    assert set(level.get_xdata()) == {0.5}
    (interval,) = axes.patches
    assert (interval.get_x(), interval.get_width()) == (0.2, pytest.approx(0.83)), "to the end where no upper one is"
    assert any("0.1 to 0.4, where the paper sees the best maps" in text for text in words(figure))
    assert len(sweeps_figure([SWEEP], "noise", (math.inf, math.inf, math.inf)).axes[0].lines) == 2


def test_grids_have_their_means_in_readable_cells():
    figure = grids_figure([GRID], "down", "across")
    (axes,) = figure.axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert [[cells[column + 0.5, row + 0.5] for column in (0, 1)] for row in range(3)] == [
        ["0.100", "0.200"],
        ["", "0.400"],
        ["0.500", "0.300"],
    ]
    assert axes.get_ylim() == (0, 3), "levels rise"
    assert {"down", "across", "0", "0.5", "1"} <= set(texts(figure))


def test_characters_that_no_font_has_are_said_once_and_are_no_warning(caplog):
    pages._say_what_is_missing.cache_clear()
    for _ in range(2):
        figure = bars_figure("\U000f1234", (replace(BARS[0], title="\U000f1234 in a title"),))
        assert figure_pixels(figure).std() > 0
    assert [record.getMessage()[:41] for record in caplog.records] == ["Names have characters that none of matplo"]


def test_other_warnings_come_out_of_a_figure():
    @pages.styled
    def draw():
        warnings.warn("of somebody else", stacklevel=1)

    with pytest.warns(UserWarning, match="of somebody else"):
        draw()
