"""Tables of methods x metrics, in the terminal and in Markdown."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_xai.metrics import mean_score, standard_error
from lightning_xai.metrics.cost import GRADIENTS
from lightning_xai.reporting.escapes import cell, markdown
from lightning_xai.reporting.scores import ScoreRow

ARROWS = {True: "↑", False: "↓", None: ""}
"""By `higher_is_better`: where the better scores are."""


@dataclass(frozen=True)
class ScoreSummary:
    """What a cell of the table says: a method's mean over samples in one metric."""

    method: str
    metric: str
    mean: float
    standard_error: float
    """NaN for less than two samples."""
    num_undefined: int = 0
    """Samples left out of the mean, because the metric is not defined for them."""
    higher_is_better: bool | None = None
    """None where neither direction is better."""


def summarise(
    rows: Iterable[ScoreRow], higher_is_better: Mapping[str, bool | None] | None = None
) -> list[ScoreSummary]:
    """One summary for each method and metric, in order of appearance; choose the rows of one stage and epoch first.

    Args:
        rows: per-sample scores.
        higher_is_better: the direction of each metric, by name; those not named have none.

    Raises:
        ValueError: if a sample has two scores of the same method and metric.
    """
    cells: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        samples = cells.setdefault((row.method, row.metric), {})
        if row.sample in samples:
            raise ValueError(
                f"`rows` has two scores of sample {row.sample} for {row.method}, {row.metric}. Pass the rows of one "
                "stage and epoch."
            )
        samples[row.sample] = row.value
    directions = higher_is_better or {}
    return [_summary(*names, list(samples.values()), directions.get(names[1])) for names, samples in cells.items()]


def _summary(method: str, metric: str, values: list[float], higher_is_better: bool | None) -> ScoreSummary:
    scores = torch.tensor(values, dtype=torch.float64)
    return ScoreSummary(
        method,
        metric,
        mean_score(scores).item(),
        standard_error(scores).item(),
        int(scores.isnan().sum()),
        higher_is_better,
    )


def score_table(summaries: Iterable[ScoreSummary], title: str | None = None) -> Table:
    """For `rich.print`: methods down, metrics across, `mean ± standard error`; arrows point to the better side."""
    header, *body = _cells(summaries := list(summaries))
    heading = None if title is None else cell(title)
    table = Table(title=heading, caption=_note(summaries), caption_justify="left", box=SIMPLE_HEAD)
    for position, text in enumerate(header):
        # Folded between words in a narrow terminal, never cut off.
        table.add_column(cell(text.replace("_", " ")), justify="right" if position else "left", overflow="fold")
    for row in body:
        table.add_row(*map(cell, row))
    return table


def markdown_table(summaries: Iterable[ScoreSummary]) -> str:
    """The same as Markdown; a blank line and the note on undefined scores follow if there are any."""
    header, *body = _cells(summaries := list(summaries))
    rules = ["---", *["---:"] * (len(header) - 1)]
    lines = ["| " + " | ".join(map(markdown, row)) + " |" for row in (header, rules, *body)]
    note = _note(summaries)
    return "\n".join([*lines, *(["", note] if note else [])]) + "\n"


def number_format(mean: float) -> str:
    """For a mean and what stands beside it: four decimals, unless they would say nothing of the mean."""
    return ".4f" if mean == 0 or 1e-3 <= abs(mean) < 1e4 else ".3e"


def _cells(summaries: list[ScoreSummary]) -> list[list[str]]:
    methods = list(dict.fromkeys(s.method for s in summaries))
    metrics = {s.metric: f"{s.metric} {ARROWS[s.higher_is_better]}".rstrip() for s in summaries}
    cells = {(s.method, s.metric): _cell(s) for s in summaries}
    rows = [[method, *(cells.get((method, metric), "") for metric in metrics)] for method in methods]
    return [["method", *metrics.values()], *rows]


def _cell(summary: ScoreSummary) -> str:
    if summary.metric == GRADIENTS:  # what the method was told to spend: no estimate
        return "unknown" if math.isnan(summary.mean) else f"{summary.mean:g}"
    numbers = [x for x in (summary.mean, summary.standard_error) if not math.isnan(x)]
    text = " ± ".join(f"{x:{number_format(summary.mean)}}" for x in numbers) or "undefined"
    return f"{text} †{summary.num_undefined}" if summary.num_undefined else text


def _note(summaries: list[ScoreSummary]) -> str | None:
    if any(s.num_undefined for s in summaries if s.metric != GRADIENTS):
        return "† number of samples left out, because the metric is not defined for them"
    return None
