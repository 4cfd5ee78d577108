"""Per-sample scores as one tidy table: a row for each score of each sample."""

import html
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_list_like

from lightning_xai.results.files import read_csv, write_csv
from lightning_xai.results.parquet import read_parquet, write_parquet
from lightning_xai.results.tables import from_above
from lightning_xai.statistics.means import as_text, mean_and_standard_error

GRADIENTS = "gradients"
"""The name under which every evaluation keeps what its methods spent."""
COLUMNS = {
    **{"stage": str, "epoch": "int64", "step": "int64"},
    **{"method": str, "metric": str, "sample": "int64", "value": "float64", "target": "int64"},
}
"""Their types. The step is that of the optimizer, the sample its index in the data set, the target the class that was
explained: -1 where the output has none, or where it is not told."""
LATER = {"target": -1}
"""Columns that files of earlier versions lack, and what stands in for them."""
_EVALUATION = ["stage", "epoch", "step"]
TEXTS = [name for name, kind in COLUMNS.items() if kind is str]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of samples: stage, epoch, step, method, metric, sample, value and target of each, in the order of making.

    A sample has one score by each method in each metric; where several of its labels were explained, one for each
    target. A NaN is a score that is undefined for its sample; what was not evaluated has no row. Methods and metrics
    are everywhere in order of appearance. Iterating gives the rows, with the columns as attributes.

    Attributes:
        table: The rows; the columns of text are categorical, since few texts come again and again. Not to be written
            to: `to_dataframe` gives a copy, with columns of text.
        higher_is_better: Direction of each metric whose direction is known, None for none. No part of equality.

    Raises:
        ValueError: if a column is missing, other than the target, or has what is not of its type.

    Example:
        >>> from lightning_xai.results import Scores
        >>> rows = [("test", 0, 0, "gradient", "sparseness", sample, 0.5 + sample / 10) for sample in range(3)]
        >>> scores = Scores.from_rows(rows)
        >>> scores
        Scores(3 rows: 1 methods, 1 metrics, 3 samples; stages test)
        >>> float(scores.summary()["mean"].iloc[0])
        0.6
    """

    table: pd.DataFrame
    higher_is_better: Mapping[str, bool | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        later = {name: value for name, value in LATER.items() if name not in self.table}
        object.__setattr__(self, "table", self.table.assign(**later) if later else self.table)
        if missing := [name for name in COLUMNS if name not in self.table]:
            raise ValueError(f"`table` must have the columns {', '.join(COLUMNS)}; it lacks {', '.join(missing)}.")
        for name in TEXTS:
            if wrong := [value for value in self.table[name].unique() if not isinstance(value, str)]:
                raise ValueError(f"`table`: {name} must be a text in every row, got {wrong[0]}.")
        kinds = COLUMNS | dict.fromkeys(TEXTS, "category")
        typed = self.table[list(COLUMNS)].reset_index(drop=True)
        other = {name: kind for name, kind in kinds.items() if typed[name].dtype != kind}
        typed = typed.astype(other)
        whole = [name for name, kind in other.items() if kind == "int64"]
        if not (typed[whole] == self.table[whole].to_numpy()).all(axis=None):
            raise ValueError(f"`table` must have whole numbers for {', '.join(whole)}; round them where that is meant.")
        object.__setattr__(self, "table", typed)

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> "Scores":
        """From the values of each row, in the order of `COLUMNS`; the last one, the target, may be left out."""
        whole = [(*row, *LATER.values())[: len(COLUMNS)] for row in rows]
        return cls(pd.DataFrame(whole, columns=list(COLUMNS)))

    @classmethod
    def from_values(
        cls, stage: str, epoch: int, step: int, index: Any, values: Mapping[str, Mapping[str, Any]], target: Any = None
    ) -> "Scores":
        """Of one evaluation, from the samples' indices, `values[method][metric]` and targets (arrays or tensors)."""
        pairs = [(method, metric, own) for method, of_method in values.items() for metric, own in of_method.items()]
        samples, lengths = index.tolist(), [len(own) for *_, own in pairs]
        if wrong := set(lengths) - {len(samples)}:
            raise ValueError(f"`values` must have a value for each of the {len(samples)} samples, got {min(wrong)}.")
        columns = {
            **{"stage": pd.Categorical([stage]).repeat(sum(lengths)), "epoch": epoch, "step": step},
            "method": pd.Categorical([method for method, *_ in pairs]).repeat(lengths),
            "metric": pd.Categorical([metric for _, metric, _ in pairs]).repeat(lengths),
            "sample": np.tile(np.array(samples, np.int64), len(pairs)),
            "value": np.concatenate([np.empty(0), *(own.tolist() for *_, own in pairs)]),
            "target": -1 if target is None else np.tile(np.array(target.tolist(), np.int64), len(pairs)),
        }
        return cls(pd.DataFrame(columns))

    @classmethod
    def concatenated(cls, parts: Iterable["Scores"]) -> "Scores":
        """The rows of all, part after part; directions that the parts disagree on are not known."""
        parts = list(parts)
        told = {(metric, better) for part in parts for metric, better in part.higher_is_better.items()}
        once = Counter(metric for metric, _ in told)
        return cls(joined([part.table for part in parts]), {m: better for m, better in told if once[m] == 1})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Scores":
        """From a Parquet file, or else a CSV file, also as a spreadsheet saves it (CRLF, byte order mark).

        Raises:
            ValueError: if the file is damaged or no such table; with its name, and for CSV the line.
        """
        path = Path(path)
        if path.suffix == ".parquet":
            return cls(read_parquet(path, COLUMNS, later=LATER)[0])
        return cls.from_rows(_row(place, values) for place, values in read_csv(path, tuple(COLUMNS), LATER))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file where the path ends so, or else a CSV file, as a whole.

        In CSV, numbers have as many digits as it takes to read back the same ones, an undefined score is `nan`, and a
        name that a spreadsheet would take for a formula gets an apostrophe in front, which `load` takes off.

        Raises:
            OSError: if the folder cannot be written to.
        """
        path = Path(path)
        if path.suffix == ".parquet":
            write_parquet(path, self.table, COLUMNS, {})
        else:
            write_csv(path, [COLUMNS, *self])

    def __repr__(self) -> str:
        counts = (f"{self.table[name].nunique()} {name}s" for name in ("method", "metric", "sample"))
        return f"Scores({len(self)} rows: {', '.join(counts)}; stages {', '.join(self.unique('stage'))})"

    def _repr_html_(self) -> str:
        """The means of the last evaluation, methods down and metrics across, for notebooks.

        Without means where a sample has two scores of a method and metric, as in the rows of two evaluations joined.
        """
        try:
            summary = self.last().summary()
        except ValueError as error:
            return f"<p>{html.escape(repr(self))}</p><p>No means: {html.escape(str(error))}</p>"
        texts = [as_text(row.mean, row.standard_error, ".4g") for row in summary.itertuples()]
        table = summary.assign(text=texts).pivot_table("text", "method", "metric", "first", sort=False)
        return f"<p>{html.escape(repr(self))}</p>{table.fillna('').to_html(escape=True)}"

    def last(self) -> "Scores":
        """Those of the last evaluation: of one stage, epoch and step."""
        rows = self.table.tail(1)
        return self.select(**{name: rows[name].iloc[0] for name in ("stage", "epoch", "step")}) if len(rows) else self

    def compare(self, higher_is_better: Mapping[str, bool | None] | None = None, **options: Any) -> Any:
        """Compare the methods in the last evaluation.

        Args:
            higher_is_better: Direction of each metric whose direction is not known, or is another one.
            options: Those of `lightning_xai.experiments.compare.compare_methods`, such as `alpha`.

        Returns:
            A `Comparison`.

        Raises:
            ValueError: if a metric has no direction.
        """
        run = from_above("experiments.runs:Run")("scores", self.last(), self._directions(higher_is_better))
        return from_above("experiments.compare:compare_methods")([run], **options)

    def plot(self, higher_is_better: Mapping[str, bool | None] | None = None, **options: Any) -> Any:
        """Means with intervals, a panel for each metric: the figure of `compare`, whose arguments these are."""
        figure = from_above("reporting.comparison_figures:score_bars")(self.compare(higher_is_better, **options))
        return from_above("reporting.show:displayed")(figure)

    def report(
        self,
        higher_is_better: Mapping[str, bool | None] | None = None,
        path: str | os.PathLike[str] = "report.html",
        **options: Any,
    ) -> Path:
        """Write the page of `lightning-xai report` on the last evaluation, and the same as JSON beside it.

        Curves are of all validations.

        Args:
            higher_is_better: As in `compare`.
            path: Where the page goes, `.html`.
            options: `alpha` and `seed`, as in `compare`.

        Returns:
            The path.

        Raises:
            ValueError: if the path does not end in `.html`, or as `compare`.
            OSError: if the folder cannot be written to.
        """
        path = Path(path)
        if path.suffix != ".html":
            raise ValueError(f"`path` must be the name of a page, ending in .html, got {path}.")
        directions = self._directions(higher_is_better)
        findings = from_above("experiments.findings:findings_of")(self, directions, **options)
        from_above("reporting.page.report:write_report")(findings, path)
        return path

    def _directions(self, given: Mapping[str, bool | None] | None) -> dict[str, bool | None]:
        """Those that are known and those that are given, which must be all of the last evaluation."""
        known = {**self.higher_is_better, **(given or {})}
        if lacking := [metric for metric in self.last().unique("metric") if metric not in {*known, GRADIENTS}]:
            raise ValueError(
                f"`higher_is_better` must have True, False or None for every metric; it lacks {', '.join(lacking)}, and"
                f" has {', '.join(known) or 'none'}. Pass that of an `Evaluation`, or None for no direction."
            )
        return known

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Any]:
        return self.table.itertuples(index=False, name="Score")

    def __eq__(self, other: object) -> bool:
        """Equal rows in equal order; one NaN is like another."""
        return isinstance(other, Scores) and self.to_dataframe().equals(other.to_dataframe())

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.astype(COLUMNS)

    def unique(self, column: str) -> list[Any]:
        """The values of a column, each once, in order of appearance."""
        return self.table[column].drop_duplicates().tolist()

    def pairs(self) -> list[tuple[str, str]]:
        """Method and metric of all scores, each pair once, in order of appearance."""
        return [(self._text("method", rows), self._text("metric", rows)) for rows in self._blocks()]

    def _text(self, column: str, rows: slice | np.ndarray) -> str:
        """The one that the rows share."""
        return str(self.table[column].iloc[rows].iloc[0])

    def _blocks(self) -> Sequence[slice | np.ndarray]:
        """The rows of each pair of method and metric, in order of appearance; most tables have them one after another.

        Where they are so, nothing is copied.
        """
        methods, metrics = (self.table[name].cat for name in ("method", "metric"))
        keys = methods.codes.to_numpy(np.int64) * (len(metrics.categories) or 1) + metrics.codes.to_numpy(np.int64)
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        if len(set(keys[starts].tolist())) == len(starts):
            return [slice(*ends) for ends in itertools.pairwise([*starts.tolist(), len(keys)])]
        codes, _ = pd.factorize(keys)
        order = codes.argsort(kind="stable")
        return list(np.split(order, np.flatnonzero(np.diff(codes[order])) + 1))

    def select(self, **columns: Any) -> "Scores":
        """The rows whose columns have these values, or one of them where several are given."""
        return Scores(self.table[matching(self.table, columns)], self.higher_is_better)

    def by_sample(
        self, whose: str = "`scores`", advice: str = "", by_target: bool = False
    ) -> dict[str, dict[str, pd.Series]]:
        """The values by metric and method, each a series over the samples; over (sample, target) where any has several.

        Args:
            whose: Scores, in an error.
            advice: In it.
            by_target: Whether the series are over sample and target in any case.

        Raises:
            ValueError: if a sample, or a target of it, has two scores of a method and metric.
        """
        tables: dict[str, dict[str, pd.Series]] = {}
        for rows in self._blocks():
            method, metric = self._text("method", rows), self._text("metric", rows)
            samples, targets, values = (
                self.table[name].iloc[rows].to_numpy() for name in ("sample", "target", "value")
            )
            index, several = pd.Index(samples, name="sample"), False
            if by_target or not index.is_unique:
                several = not index.is_unique and len(self.table.iloc[rows][_EVALUATION].drop_duplicates()) > 1
                index = pd.MultiIndex.from_arrays([samples, targets], names=["sample", "target"])
            if several or not index.is_unique:
                twice = samples[pd.Index(samples).duplicated()][0]
                advice = advice or "Select those of one stage, epoch and step."
                raise ValueError(f"{whose} has two scores of sample {twice} for {method}, {metric}. {advice}")
            tables.setdefault(metric, {})[method] = pd.Series(values, index, name="value")
        kinds = {series.index.nlevels for table in tables.values() for series in table.values()}
        return self.by_sample(whose, advice, True) if len(kinds) > 1 else tables

    def summary(self) -> pd.DataFrame:
        """Metric, method, mean, standard_error, num_samples and num_undefined; means are over the defined scores.

        Where several labels of a sample were explained, each counts as a sample of its own.

        Raises:
            ValueError: if a sample has two scores of a method and metric, as those of two epochs.
        """
        columns = ["metric", "method", "mean", "standard_error", "num_samples", "num_undefined"]
        rows = [
            (metric, method, *mean_and_standard_error(values), len(values), int((~np.isfinite(values)).sum()))
            for metric, table in self.by_sample().items()
            for method, values in ((method, series.to_numpy()) for method, series in table.items())
        ]
        return pd.DataFrame(rows, columns=columns)


def matching(table: pd.DataFrame, columns: Mapping[str, Any]) -> np.ndarray:
    """Which rows have these values in the columns, or one of them where several are given."""
    found = np.ones(len(table), bool)
    for name, value in columns.items():
        found &= table[name].isin(list(value) if is_list_like(value) else [value]).to_numpy()
    return found


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of scores, one below the other; pandas would not keep columns with other categories categorical."""
    tables = [table for table in tables if len(table)] or list(tables[:1]) or [Scores.from_rows(()).table]
    if len(tables) == 1:
        return tables[0]
    columns = {
        name: _categorical([table[name] for table in tables])
        if name in TEXTS
        else np.concatenate([table[name].to_numpy() for table in tables])
        for name in tables[0]
    }
    return pd.DataFrame(columns)


def _categorical(columns: Sequence[pd.Series]) -> pd.Categorical:
    names: dict[str, int] = {}
    codes = []
    for column in columns:
        places = np.array([names.setdefault(name, len(names)) for name in column.cat.categories], np.int32)
        codes.append(places[column.cat.codes])
    return pd.Categorical.from_codes(np.concatenate(codes), list(names))


def _row(place: str, values: list[str]) -> tuple[Any, ...]:
    """A line of a CSV file."""
    try:
        stage, epoch, step, method, metric, sample, value, target = values
        if "_" in epoch + step + sample + value + target:
            raise ValueError("Python takes 1_0 for 10, a table does not")
        whole = np.array([int(epoch), int(step), int(sample), int(target)], np.int64).tolist()
        return stage, *whole[:2], method, metric, whole[2], float(value), whole[3]
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{place}: expected the columns {','.join(COLUMNS)}, with whole numbers but for the value, got "
            f"{','.join(values)!r}. Remove the line, or write the file anew."
        ) from error
