"""What an experiment found, as a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_xai.results.scores import Scores
from lightning_xai.results.tables import Printed, ResultTable


@dataclass(frozen=True, repr=False)
class Reproduction(Printed):
    """What an experiment found; figures and files are made from it, and it prints as its tables.

    Attributes:
        source: Paper, and table or figure in it.
        tables: Measured beside published.
        records: The values that the tables summarize, a row each (such as one score of one sample); by name of file.
        arrays: What is no table: maps and fields that the figures show.
        settings: Everything it depends on: options, networks and their accuracy, data.
        findings: Sentences: what was found.
        details: Richer records, by name, that figures are made from; they are not written.
        runs: Scores of samples, and `higher_is_better` of their metrics, by network: each in a folder of its own, as
            `lightning-xai compare` and `export` read it.
    """

    source: str
    tables: tuple[ResultTable, ...]
    records: Mapping[str, Sequence[Mapping[str, Any]]]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, tuple[Scores, Mapping[str, bool | None]]] = field(default_factory=dict)

    def _parts(self) -> list[ResultTable | str]:
        return [self.source, *self.tables, *self.findings]
