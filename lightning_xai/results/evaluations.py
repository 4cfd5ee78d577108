"""One evaluation that is made bit by bit, by many processes: what of it is finished, and whether that may be added to.

A folder has `scores/`, with a unit for each finished batch, `metrics.json`, and `settings-NAME.json`, which say in
words what the scores in the units depend on. Processes write files of their own and wait for nobody.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lightning_xai.results.files import write_text
from lightning_xai.results.parquet import read_notes, read_parquet
from lightning_xai.results.scores import COLUMNS, LATER, Scores
from lightning_xai.results.store import (
    SCORES,
    append_unit,
    read_directions,
    read_metric_classes,
    unit_files,
    write_directions,
)

STAGE = "evaluate"
Pairs = frozenset[tuple[str, str]]
_FEW = 1024
"""Logits of a unit that are kept, at most, unless a single sample has more."""
_LOOKED_AT = 4
"""Samples of a unit that are computed again."""
_CLOSE, _MOST = 1e-3, 0.1
"""Two numbers that differ by less are one but for rounding; and the share of scores that may differ by more, because a
single rounding can exchange two pixels."""
AFRESH = "To start afresh, give another `folder` (`--folder`), or remove this one."


@dataclass(frozen=True)
class Settings:
    """What scores depend on, in words that JSON can hold; never a device, a size of batches or a shard.

    Attributes:
        common: Of all scores: weights, network, bounds, seed, precision, what is explained, ...
        methods: Of each method, by name.
        metrics: Of each metric, by name.
        made_with: What they do not depend on, but for rounding: versions.
    """

    common: Mapping[str, Any]
    methods: Mapping[str, Any]
    metrics: Mapping[str, Any]
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def keys(self) -> dict[str, dict[str, str]]:
        """By method and metric, a short name of all that their scores depend on."""
        return {
            method: {metric: _name([self.common, own, how]) for metric, how in self.metrics.items()}
            for method, own in self.methods.items()
        }

    def differences(self, earlier: Mapping[str, Any]) -> Iterator[str]:
        """Where earlier ones are others, in words; what only one of them has is no difference of methods or metrics."""
        yield from _differences("", earlier["common"], json.loads(json.dumps(self.common)))
        for kind, own in (("methods", self.methods), ("metrics", self.metrics)):
            for name in earlier[kind].keys() & own.keys():
                yield from _differences(f"{kind}.{name}", earlier[kind][name], json.loads(json.dumps(own[name])))


@dataclass(frozen=True)
class Unit:
    """A finished batch, as its file tells."""

    path: Path
    keys: Mapping[str, Mapping[str, str]]
    rows: Sequence[int]
    notes: Mapping[str, Any]

    @property
    def pairs(self) -> Pairs:
        return frozenset((method, metric) for method, metrics in self.keys.items() for metric in metrics)

    def logits(self) -> np.ndarray:
        """(first samples, classes)."""
        flat = np.frombuffer(base64.b64decode(self.notes["logits"]), "<f4")
        return flat.reshape(-1, self.notes["num_outputs"])

    def scores(self) -> pd.Series:
        """By method, metric, sample, and the place among the targets of the sample."""
        return in_places(read_parquet(self.path, COLUMNS, later=LATER)[0])


class EvaluationStore:
    """The finished part of an evaluation in a folder, as it was when this was made; `add` adds to it.

    Args:
        folder: Only read until `begin` is called.
        settings: Of the scores that will be added.

    Raises:
        ValueError: if the folder has scores of other settings under the same names, or a file is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Settings) -> None:
        self.folder, self.settings, self.keys = Path(folder), settings, settings.keys()
        self.path = self.folder / SCORES
        self.units = [self._unit(path) for path in unit_files(self.path)]
        self._check()
        self.known: dict[int, dict[int, str]] = {}  # of a row, by the class explained: the short name of the content
        self._finished: dict[int, Pairs] = {}
        self._rows: dict[tuple[int, int], int] = {}  # by `_name`
        self._remember()
        self._words = json.dumps(vars(settings), indent=2)
        self._settings = hashlib.sha256(self._words.encode()).hexdigest()[:16]

    def begin(self, higher_is_better: Mapping[str, bool | None], metric_classes: Mapping[str, str]) -> None:
        """Write the settings, and the directions and classes of the metrics, before anything is added.

        Raises:
            OSError: if the folder cannot be written to.
        """
        if not (file := self._file(self._settings)).exists():
            write_text(file, self._words + "\n")
        told = read_directions(self.path), read_metric_classes(self.path)
        if higher_is_better.items() - told[0].items() or metric_classes.items() - told[1].items():
            write_directions(self.path, higher_is_better, metric_classes)

    @property
    def pairs(self) -> Pairs:
        """All that are wanted."""
        return frozenset((method, metric) for method, metrics in self.keys.items() for metric in metrics)

    def missing(self, row: int) -> Pairs:
        """What is wanted of a row of the data set, and not there."""
        return self.pairs - self._finished.get(row, frozenset())

    def num_finished(self) -> int:
        """Rows of which all is there that is wanted."""
        return sum(self.pairs <= finished for finished in self._finished.values())

    def check_rows(self, samples: Mapping[str, Sequence[Any]]) -> None:
        """Refuse rows that had another content when they were evaluated before, and two rows of one index and class.

        Args:
            samples: As `add` gets them, all of each row.
        """
        contents: dict[int, dict[int, str]] = {}
        columns = (samples[name] for name in ("row", "sample", "target", "fingerprint"))
        for row, sample, target, name in zip(*columns, strict=True):
            contents.setdefault(row, {})[target] = name
            if (other := self._rows.setdefault(self._name(sample, target), row)) != row:
                raise ValueError(
                    f"`data`: rows {other} and {row} have the same index, {sample}, by which scores are kept and noise "
                    "is drawn: give each sample an index of its own, or batches without any, whose row it is then. "
                    "(Rows of one index may have different labels, where labels are explained.)"
                )
        for row, sample in zip(samples["row"], samples["sample"], strict=True):
            known, now = (sorted(names.values()) for names in (self.known.get(row, contents[row]), contents[row]))
            if known != now:
                raise ValueError(
                    f"`folder`: sample {sample} (row {row} of the data) is not what it was when {self.folder} got its "
                    f"scores: input, target or mask differ ({', '.join(known)} was its name, {', '.join(now)} it is). "
                    f"Give the same data, prepared in the same way. {AFRESH}"
                )

    def add(
        self,
        pairs: Sequence[tuple[str, str]],
        values: np.ndarray,
        samples: Mapping[str, Any],
        logits: Any,
        has_classes: bool = True,
    ) -> None:
        """Write a finished batch.

        Args:
            pairs: Method and metric of each row of `values`.
            values: (pairs, samples).
            samples: What is known of the samples: columns as in `store.SAMPLES`.
            logits: (samples, classes), of which the first ones are kept.
            has_classes: Whether the targets are classes.
        """
        keys: dict[str, dict[str, str]] = {}
        for method, metric in pairs:
            keys.setdefault(method, {})[metric] = self.keys[method][metric]
        by_name: dict[str, dict[str, Any]] = {}
        for (method, metric), own in zip(pairs, values, strict=True):
            by_name.setdefault(method, {})[metric] = own
        first = np.asarray(logits, "<f4")[: max(1, min(_LOOKED_AT, _FEW // max(1, len(logits[0]))))]
        notes = {
            "settings": self._settings,
            "num_outputs": first.shape[1],
            "logits": base64.b64encode(first.tobytes()).decode(),
        }
        common = self.settings.common
        index, target = (np.array(samples[name]) for name in ("sample", "target"))
        given = STAGE, common["epoch"], common["step"], index, by_name, target if has_classes else None
        append_unit(self.path, Scores.from_values(*given), keys, samples, notes)

    def check_again(self, unit: Unit, samples: Sequence[int], logits: np.ndarray, scores: pd.Series) -> None:
        """Refuse a network that does not compute what it computed before; roundings are none of that.

        Args:
            unit: Whose first samples were evaluated again.
            samples: Their indices.
            logits: (samples, classes).
            scores: As `in_places` names them.
        """
        before = unit.logits()[: len(logits)]
        after = np.asarray(logits, np.float32)[: len(before)]
        close = before.shape == after.shape and (
            np.abs(before - after).max(initial=0) <= _CLOSE * np.abs(before).max(initial=0)
        )
        stored = unit.scores().reindex(scores.index).to_numpy()
        again = scores.to_numpy()
        far = ~np.isclose(again, stored, rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
        if close and far.mean() <= _MOST:
            return
        what = f"{far.mean():.0%} of the scores" if close else "the outputs of the network"
        raise ValueError(
            f"`folder`: {what} of samples {', '.join(map(str, samples))} are not what they were when {self.folder} got "
            "its scores, by more than rounding, although weights and settings are the same: the network's forward pass "
            f"or an explainer was edited, or a library computes something else now. {AFRESH}"
        )

    def _unit(self, path: Path) -> Unit:
        notes = read_notes(path)
        try:
            return Unit(path, notes["keys"], notes["samples"]["row"], notes)
        except (KeyError, TypeError) as error:
            raise ValueError(f"`folder`: {path} is no part of an evaluation; move it out of the folder.") from error

    def _check(self) -> None:
        """The units' settings, those of each name once; the keys decide, the files have the words."""
        for name, unit in {unit.notes["settings"]: unit for unit in self.units}.items():
            file = self._file(name)
            words = list(self.settings.differences(json.loads(file.read_bytes()))) if file.is_file() else []
            same = all(
                key == self.keys.get(method, {}).get(metric, key)
                for method, metrics in unit.keys.items()
                for metric, key in metrics.items()
            )
            if words or not same:
                what = "; ".join(words) or f"{file.name}, which said in words which ones, is not there any more"
                raise ValueError(f"`folder`: {self.folder} has scores of other settings: {what}. {AFRESH}")

    def _remember(self) -> None:
        """What is finished of each row; sets of pairs that are equal are one object."""
        joined: dict[tuple[Pairs, Pairs], Pairs] = {}
        known: dict[str, Pairs] = {}
        for unit in self.units:
            pairs = known.setdefault(json.dumps(unit.keys), unit.pairs)
            samples = unit.notes["samples"]
            for place, row in enumerate(unit.rows):
                before = self._finished.get(row, frozenset())
                self._finished[row] = joined.setdefault((before, pairs), before | pairs)
                target = samples["target"][place]
                self.known.setdefault(row, {})[target] = samples["fingerprint"][place]
                self._rows[self._name(samples["sample"][place], target)] = row

    def _name(self, sample: int, target: int) -> tuple[int, int]:
        """What no two rows share: a prediction does not tell two of them apart."""
        return sample, -1 if self.settings.common.get("explained") == "prediction" else target

    def _file(self, name: str) -> Path:
        return self.folder / f"settings-{name}.json"


def in_places(table: pd.DataFrame) -> pd.Series:
    """Scores by method, metric, sample, and the place among the targets of the sample."""
    keys = ["method", "metric", "sample"]
    return table.assign(place=table.groupby(keys, observed=True).cumcount()).set_index([*keys, "place"])["value"]


def _name(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _differences(place: str, earlier: Any, now: Any) -> Iterator[str]:
    """Places, joined by points, where two values of JSON differ."""
    if isinstance(earlier, dict) and isinstance(now, dict) and earlier.keys() == now.keys():
        for name in earlier:
            yield from _differences(f"{place}.{name}".lstrip("."), earlier[name], now[name])
    elif earlier != now:
        yield f"{place} was {_short(earlier)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
