"""The folder of `lightning-xai explain`: for each picture its raw maps and a panel, and a row of one table."""

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from lightning_xai.explainers.base import parse_bounds
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.saving import save_figure
from lightning_xai.results.files import agree_on_settings, csv_text, replacing, spreadsheet, write_csv
from lightning_xai.results.locks import waiting_for

EXPLANATIONS, REFUSED, SETTINGS = "explanations.csv", "refused.csv", "settings.json"
MAPS, PANELS = "maps", "panels"

_CLASS = ("", "_name", "_probability")
_LONGEST = 40
"""Characters of a file's name that are kept."""


@dataclass(frozen=True)
class ExplainedClass:
    """An output of the network.

    Attributes:
        index: Its position among the logits.
        name: The data's name of it; the index where there is none.
        probability: Softmax of the logits.
    """

    index: int
    name: str
    probability: float

    def described(self, role: str) -> dict[str, str]:
        """As cells of a table, or metadata."""
        return {role + part: str(value) for part, value in zip(_CLASS, vars(self).values(), strict=True)}


@dataclass(frozen=True)
class Explanation:
    """The maps of one picture.

    Attributes:
        picture: Its path, printable.
        sha256: SHA-256 of the file.
        size: (width, height) in the file, upright.
        inputs: As the network took it.
        predicted: What the network says.
        target: What was explained.
        attributions: attributions[method], shaped like `inputs`.
        scores: scores["METHOD/METRIC"].
    """

    picture: str
    sha256: str
    size: tuple[int, int]
    inputs: Float[Tensor, " channel height width"]
    predicted: ExplainedClass
    target: ExplainedClass
    attributions: Mapping[str, Tensor]
    scores: Mapping[str, float]

    @property
    def index(self) -> int:
        """What the noise depends on: the content of the file."""
        return sample_index(self.sha256)


def sample_index(sha256: str) -> int:
    """The first 63 bits of a digest."""
    return int(sha256[:16], 16) >> 1


class ExplanationFolder:
    """Results of one setting; started again, those that are there are known. Several processes may write into one.

    A picture's files are whole or absent, and its row is written after them; a row that was cut short is removed. A
    picture whose content has changed gets another row: `sha256` says which is which.

    Args:
        folder: Made with the first results.
        settings: What the results depend on, as JSON can hold it.
        bounds: (low, high) of an input element, black and white in the panels; None for each picture's own range.
        panels: Whether to draw any.
        shard: The part (k, n) of the pictures that are written by this process; each lists what it refuses by itself.

    Raises:
        ValueError: if the folder has results of other settings, or a table of another kind.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        bounds: Any = None,
        panels: bool = True,
        shard: tuple[int, int] = (1, 1),
    ) -> None:
        self.folder, self.settings, self.bounds, self.panels = Path(folder), settings, parse_bounds(bounds), panels
        self.shard, self._rows = shard, set[tuple[str, str]]()
        if (self.folder / SETTINGS).exists():
            agree_on_settings(self.folder / SETTINGS, settings)
        if self.table.exists():
            with waiting_for(self.table):  # another process may be in the middle of a row
                self._rows = _finished_rows(self.table)

    @property
    def table(self) -> Path:
        return self.folder / EXPLANATIONS

    def files(self, picture: str, sha256: str) -> list[Path]:
        """Those of a picture: the same for the same content under the same file name, wherever it lies."""
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(picture).stem[:_LONGEST])
        name = f"{stem}-{sha256[:12]}"
        maps = [self.folder / MAPS / f"{name}.safetensors"]
        return [*maps, self.folder / PANELS / f"{name}.png"] if self.panels else maps

    def has(self, picture: str, sha256: str) -> bool:
        """Whether its row and its files are there."""
        known = (spreadsheet(picture), sha256) in self._rows
        return known and all(path.exists() for path in self.files(picture, sha256))

    def add(self, explanations: Sequence[Explanation]) -> None:
        """Write the files of some pictures, then their rows."""
        rows = {(spreadsheet(row["picture"]), row["sha256"]): row for row in map(self._row, explanations)}
        columns = next(iter(rows.values()))
        with waiting_for(self.table):
            agree_on_settings(self.folder / SETTINGS, self.settings)
            _append(self.table, columns, [])  # first: beside a table, panels are not taken for pictures
        for explanation in explanations:
            maps, *panel = self.files(explanation.picture, explanation.sha256)
            _write_maps(maps, explanation, self.settings)
            for path in panel:
                _write_panel(path, explanation, self.bounds)
        with waiting_for(self.table):
            _append(self.table, columns, [row for key, row in rows.items() if key not in self._rows])
        self._rows |= rows.keys()

    def refuse(self, refused: Mapping[str, str]) -> Path | None:
        """List what was refused the last time, and why."""
        k, n = self.shard
        path = self.folder / (REFUSED if n == 1 else REFUSED.replace(".", f"-{k}-of-{n}."))
        if not refused:
            path.unlink(missing_ok=True)
            return None
        return write_csv(path, [("picture", "reason"), *refused.items()])

    def _row(self, explanation: Explanation) -> dict[str, str]:
        width, height = explanation.size
        paths = [
            path.relative_to(self.folder).as_posix() for path in self.files(explanation.picture, explanation.sha256)
        ]
        return {
            "picture": explanation.picture,
            "sha256": explanation.sha256,
            "width": str(width),
            "height": str(height),
            **explanation.predicted.described("predicted"),
            **explanation.target.described("target"),
            "maps": paths[0],
            "panel": "".join(paths[1:]),
            **{name: str(score) for name, score in explanation.scores.items()},
        }


def _write_maps(path: Path, explanation: Explanation, settings: Mapping[str, Any]) -> None:
    metadata = {
        "picture": explanation.picture,
        "sha256": explanation.sha256,
        "index": str(explanation.index),
        **explanation.predicted.described("predicted"),
        **explanation.target.described("target"),
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()},
    }
    with replacing(path) as temporary:
        save_file({name: maps.contiguous() for name, maps in explanation.attributions.items()}, temporary, metadata)


def _write_panel(path: Path, explanation: Explanation, bounds: tuple[Tensor, Tensor] | None) -> None:
    name = Path(explanation.picture).name
    title = f"{name if len(name) <= _LONGEST else name[: _LONGEST - 1] + '…'}: {_named(explanation.predicted)}"
    if explanation.target.index != explanation.predicted.index:
        title += f"; explained: {_named(explanation.target)}"
    images = explanation.inputs[None]
    maps = {method: maps[None] for method, maps in explanation.attributions.items()}
    save_figure(attribution_panel(images, maps, bounds, title=title), path)


def _named(output: ExplainedClass) -> str:
    return f"{output.name} ({100 * output.probability:.0f} %)"


def _append(path: Path, columns: Iterable[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Lines at the end of the table, in one piece; a table that is not there begins with its header."""
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(_line(columns), encoding="utf-8")
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write("".join(_line(row.values()) for row in rows))


def _line(values: Iterable[str]) -> str:
    return csv_text([values])


def _finished_rows(path: Path) -> set[tuple[str, str]]:
    """Picture and digest of each row; what stands behind the last whole line is removed."""
    if not path.exists():
        return set()
    with path.open("rb") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
    if not whole:
        path.unlink()
        return set()
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header[:2] != ["picture", "sha256"]:
            raise ValueError(
                f"`output`: {path} is not a table of explanations: expected the columns picture,sha256,..., got "
                f"{','.join(header)[:100]!r}. Choose another folder."
            )
        return {(row[0], row[1]) for row in rows}
