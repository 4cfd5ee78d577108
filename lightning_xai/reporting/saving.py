"""Figures as files and as pixels; without torch."""

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lightning_xai.reporting.pages import styled
from lightning_xai.results.files import replacing

Pixels = UInt8[np.ndarray, "height width 3"]


def file_name(name: str) -> str:
    """A name as a part of a path, for any file system."""
    return re.sub(r"[^\w-]+", "_", name)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG; an interrupted call leaves the file that was there.

    Raises:
        OSError: if the folder cannot be written to.
    """
    picture = Image.fromarray(figure_pixels(figure))
    with replacing(path) as temporary:
        # Runs of equal bytes are all that pays in panels: files as small as by default in half of the time.
        picture.save(temporary, format="png", dpi=(figure.dpi, figure.dpi), compress_type=zlib.Z_RLE)


def save_figures(figures: Mapping[str, Figure], folder: str | os.PathLike[str], prefix: str) -> list[Path]:
    """Write PREFIX-NAME.png for each and return their paths; other PREFIX-*.png, left by an earlier call, are removed.

    Raises:
        OSError: if the folder cannot be written to.
    """
    paths = [Path(folder) / f"{prefix}-{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        save_figure(figure, path)
    for path in set(Path(folder).glob(f"{prefix}-*.png")).difference(paths):
        path.unlink()
    return paths


@styled
def figure_pixels(figure: Figure) -> Pixels:
    """The figure as an RGB picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
