"""What makes a run easy to read in TensorBoard: a chart a metric, and a line in the table of runs."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pytorch_lightning import Trainer


def log_layout(trainer: Trainer, logged: Iterable[str]) -> None:
    """One chart for each metric, with the curves of all methods, under Custom Scalars.

    The chart is of a pattern of names: then runs with other methods have the same one, which TensorBoard shows once.

    Args:
        logged: Names of the curves, `xai/<method>/<metric>` or `xai/<name>/<method>/<metric>`.
    """
    charts: dict[str, dict[str, list[Any]]] = {}
    for key in sorted(logged):
        prefix, _, metric = key.rpartition("/")
        group = prefix.rpartition("/")[0]
        pattern = f"^{re.escape(group)}/[^/]+/{re.escape(metric)}$"
        charts.setdefault(group, {})[metric] = ["Multiline", [pattern]]
    for logger in trainer.loggers if charts else ():
        if add := getattr(getattr(logger, "experiment", None), "add_custom_scalars", None):
            add(charts)


def log_settings(trainer: Trainer, methods: Mapping[str, Any], logged: Iterable[str]) -> None:
    """The settings of the methods and the scores that they ended with, under HParams, a line a run."""
    found = {key: float(trainer.callback_metrics[key]) for key in logged if key in trainer.callback_metrics}
    settings = dict(pair for name, method in methods.items() for pair in flat(name, method))
    for logger in trainer.loggers if found else ():
        writer = getattr(logger, "experiment", None)
        if type(writer).__module__ == "torch.utils.tensorboard.writer":
            from torch.utils.tensorboard.summary import hparams  # only where TensorBoard is installed

            for summary in hparams(settings, found):  # the curves have the scores: `add_hparams` would add points
                writer._get_file_writer().add_summary(summary)  # type: ignore[union-attr]


def flat(name: str, part: Any) -> Iterator[tuple[str, Any]]:
    """Settings at any depth: `smooth_grad/scale/fraction` and its value, what is no number or text as a text."""
    if is_dataclass(part):
        own = [field for field in fields(part) if field.init]
        for field in own:
            yield from flat(f"{name}/{field.name}", getattr(part, field.name))
        if not own:
            yield name, type(part).__name__
    elif part is not None:
        yield name, part if isinstance(part, bool | int | float | str) else repr(part)
