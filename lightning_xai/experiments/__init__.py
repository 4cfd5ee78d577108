"""Questions asked of finished runs; the answers are records."""

from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.runs import Run, read_runs

__all__ = ["Run", "compare_methods", "read_runs"]
