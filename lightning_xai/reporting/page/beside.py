"""What is large of a page: in it, where it is one file, or in a folder beside it."""

import base64
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from lightning_xai.results.findings import Findings, Sheet

MOST_SAMPLES, MOST_BYTES = 500, 5_000_000
"""Of a page that is one file."""
_PIXELS = 2_000_000
"""Of a part of a sheet that is read at once."""


@dataclass
class Beside:
    """Pictures and data of a page.

    Attributes:
        folder: Name of the folder beside the page; empty where the page is one file.
        files: What is in it, by name.
    """

    folder: str = ""
    files: dict[str, bytes] = field(default_factory=dict)

    def picture(self, name: str, content: bytes) -> Markup:
        """Address of a PNG."""
        if not self.folder:
            return Markup("data:image/png;base64," + base64.b64encode(content).decode())
        self.files[name] = content
        return Markup(f"{self.folder}/{name}")

    def data(self, name: str, text: str) -> Markup:
        """Address of a script whose element has this text as soon as it has run.

        From disk a page may read no file, but it may run one.
        """
        self.files[name] = f"document.currentScript.textContent = {json.dumps(text)};\n".encode()
        return Markup(f"{self.folder}/{name}")

    def sheet(self, name: str, content: bytes) -> str:
        """Address of a PNG for the page's script, which reads its pixels."""
        if not self.folder:
            return self.picture(name, content)
        return self.data(f"{name}.js", Beside().picture(name, content))


def is_large(findings: Findings) -> bool:
    """Whether a page takes a folder: for its samples, or for a sheet of maps that one file has no room for."""
    sheets = (sheet.panel.path.stat().st_size for run in findings.runs for sheet in run.sheets)
    return any(run.num_samples > MOST_SAMPLES for run in findings.comparison.runs) or any(
        4 / 3 * size > MOST_BYTES / 2 for size in sheets
    )


def with_room(paths: Sequence[Path], room: float, wanted: Sequence[int]) -> list[int]:
    """Places of as many pictures as there is room for: those wanted, and of the others evenly spaced ones."""
    sizes = [path.stat().st_size * 4 / 3 for path in paths]  # base64
    others = [place for place in range(len(paths)) if place not in wanted]
    left, size = room - sum(sizes[place] for place in wanted), sum(sizes[place] for place in others)
    number = min(len(others), max(0, int(left * len(others) / max(1, size))))
    return sorted({*wanted, *(others[round(place)] for place in np.linspace(len(others) - 1, 0, number))})


def packed(path: Path, mode: str = "RGB") -> bytes:
    """A picture in as few bytes as one of the same pixels takes."""
    with Image.open(path) as picture:
        return as_png(np.asarray(picture.convert(mode)))


def as_png(pixels: np.ndarray) -> bytes:
    """8-bit pixels, (height, width) or (height, width, 3)."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def blocks(sheet: Sheet) -> np.ndarray:
    """The gray pixels of a sheet, (1 + methods, samples, height, width): see `callbacks.maps.write_sheet`."""
    across, height, width = (sheet.about[name] for name in ("across", "height", "width"))
    with Image.open(sheet.panel.path) as picture:
        gray = np.asarray(picture.convert("L"))
    tiles = gray.reshape(-1, across, height, across, width).swapaxes(2, 3)
    return tiles.reshape(-1, across**2, height, width)[:, : len(sheet.about["samples"])]


def parts(
    sheet: Sheet, rows: Sequence[int], order: Sequence[int], beside: Beside, name: str
) -> Iterator[dict[str, Any]]:
    """A sheet as the page's script reads it: as it is in one file, else cut into parts that are read when needed.

    Args:
        sheet: Of maps.
        rows: The rows of its samples in the evaluation's scores.
        order: The places of its samples, those first that a reader sees first.
        beside: Where the pictures go.
        name: Of their files.
    """
    height, width, about = sheet.about["height"], sheet.about["width"], sheet.about
    if not beside.folder:
        source = beside.sheet(name, packed(sheet.panel.path, "L"))
        yield {"rows": list(rows), "across": about["across"], "source": source}
        return
    all_blocks = blocks(sheet)
    number = max(1, _PIXELS // (height * width * len(all_blocks)))
    for start in range(0, len(order), number):
        places = list(order[start : start + number])
        across = math.ceil(math.sqrt(len(places)))
        own = np.zeros((len(all_blocks), across**2, height, width), np.uint8)
        own[:, : len(places)] = all_blocks[:, places]
        tiled = own.reshape(-1, across, across, height, width).swapaxes(2, 3).reshape(-1, across * width)
        source = beside.sheet(f"{name}-{start // number}", as_png(tiled))
        yield {"rows": [rows[place] for place in places], "across": across, "source": source}
