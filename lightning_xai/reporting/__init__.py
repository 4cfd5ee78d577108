"""Figures, tables and files, made from plain records and tensors."""

from lightning_xai.reporting.panels import attribution_panel, log_picture, save_figure
from lightning_xai.reporting.scores import (
    ScoreRow,
    append_scores,
    read_directions,
    read_scores,
    score_rows,
    write_directions,
)
from lightning_xai.reporting.tables import ScoreSummary, markdown_table, score_table, summarise

__all__ = [
    "ScoreRow",
    "ScoreSummary",
    "append_scores",
    "attribution_panel",
    "log_picture",
    "markdown_table",
    "read_directions",
    "read_scores",
    "save_figure",
    "score_rows",
    "score_table",
    "summarise",
    "write_directions",
]
