"""What was found, as records and in files; nothing here knows of torch, models or pictures."""

from lightning_xai.results.scores import Scores
from lightning_xai.results.store import append_scores, read_scores

__all__ = ["Scores", "append_scores", "read_scores"]
