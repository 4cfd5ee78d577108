"""What a reader of a figure sees: its texts, wherever they belong to, and where they stand."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Affine2D


def written(figure: Figure) -> list[Text]:
    """All texts that are drawn: headings, notes, titles, labels of ticks within the limits, remarks, legends."""
    found: list[Text] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, *_, **__: found.append(text))
        figure.draw(FigureCanvasAgg(figure).get_renderer())
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in written(figure)]


def words(figure: Figure) -> list[str]:
    """The texts, wherever they are broken into lines."""
    return [" ".join(text.split()) for text in texts(figure)]


def outline(text: Text) -> Outline:
    """Of a text that may be rotated around its anchor, a pixel smaller on each side."""
    rotation = text.get_rotation()
    text.set_rotation(0)
    box = text.get_window_extent().padded(-1)
    text.set_rotation(rotation)
    anchor = text.get_transform().transform(text.get_position())
    return Outline(Affine2D().rotate_deg_around(*anchor, rotation).transform(box.corners()[[0, 1, 3, 2]]), closed=True)


def check_texts(figure: Figure) -> None:
    """None overlaps another one or a picture, none is cut off, and what stands beside axes is not in any."""
    found = {text: outline(text) for text in written(figure)}
    for text, shape in found.items():
        assert all(figure.bbox.contains(*corner) for corner in shape.vertices), text.get_text()
    for (one, shape), (other, second) in combinations(found.items(), 2):
        near = shape.get_extents().overlaps(second.get_extents())
        assert not (near and shape.intersects_path(second, filled=True)), (one.get_text(), other.get_text())
    pictures = [image.get_window_extent().padded(-1) for axes in figure.axes for image in axes.images]
    for text, shape in found.items():
        assert not any(shape.intersects_bbox(box, filled=True) for box in pictures), text.get_text()
    inside = {text for axes in figure.axes for text in axes.texts}
    for axes in figure.axes:
        if axes.axison:
            box = Outline(axes.get_window_extent().padded(-2).corners()[[0, 1, 3, 2]], closed=True)
            for text in found.keys() - inside:
                legend = axes.get_legend()
                if legend is None or text not in legend.get_texts():
                    assert not found[text].intersects_path(box, filled=True), text.get_text()
