"""Figures as files and as pixels; without torch."""

import os
import zlib

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lightning_xai.results.files import replacing

Pixels = UInt8[np.ndarray, "height width 3"]


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG; an interrupted call leaves the file that was there.

    Raises:
        OSError: if the folder cannot be written to.
    """
    picture = Image.fromarray(figure_pixels(figure))
    with replacing(path) as temporary:
        # Runs of equal bytes are all that pays in panels: files as small as by default in half of the time.
        picture.save(temporary, format="png", dpi=(figure.dpi, figure.dpi), compress_type=zlib.Z_RLE)


def figure_pixels(figure: Figure) -> Pixels:
    """The figure as an RGB picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
