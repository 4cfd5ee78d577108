"""Pictures and tables for the loggers of a training: Weights & Biases, MLflow, TensorBoard, and what is like them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_xai.reporting.render import markdown_table
from lightning_xai.reporting.saving import Pixels
from lightning_xai.results.tables import ResultTable


def log_picture(logger: Any, tag: str, path: str | os.PathLike[str], step: int) -> None:
    """Hand a PNG to a Lightning logger that shows pictures; others, and None, are left alone.

    Those are loggers with a `log_image(key, images, step)` (Weights & Biases), those with a run of MLflow, of which it
    becomes an artifact, and those whose `experiment` has TensorBoard's `add_image`. PyTorch's writer of TensorBoard's
    files gets the file as it is.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(logger, "log_image"):
        logger.log_image(key=tag, images=[_read(path)], step=step)
    elif hasattr(experiment, "log_artifact") and hasattr(logger, "run_id"):
        experiment.log_artifact(logger.run_id, os.fspath(path), tag)
    elif type(experiment).__module__ == "torch.utils.tensorboard.writer" and hasattr(experiment, "_get_file_writer"):
        experiment._get_file_writer().add_summary(_summary(tag, Path(path)), step)  # a new one behind a closed one
    elif add_image := getattr(experiment, "add_image", None):
        add_image(tag, _read(path), step, dataformats="HWC")


def log_table(logger: Any, tag: str, table: ResultTable, step: int) -> None:
    """Hand a table to a Lightning logger that shows tables or text; others, and None, are left alone.

    Weights & Biases gets a table, a run of MLflow a Markdown file, and TensorBoard's `add_text` Markdown.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(logger, "log_table"):
        logger.log_table(key=tag, columns=list(table.columns), data=list(map(list, table.rows)), step=step)
    elif hasattr(experiment, "log_text") and hasattr(logger, "run_id"):
        experiment.log_text(logger.run_id, markdown_table(table), f"{tag}.md")
    elif add_text := getattr(experiment, "add_text", None):
        add_text(tag, markdown_table(table), step)


def _read(path: str | os.PathLike[str]) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _summary(tag: str, path: Path) -> Any:
    """What TensorBoard's `add_image` would make of the pixels, without compressing them a second time."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # only where TensorBoard is installed

    with Image.open(path) as picture:
        size = {"width": picture.width, "height": picture.height, "colorspace": len(picture.getbands())}
    return Summary(value=[Summary.Value(tag=tag, image=Summary.Image(**size, encoded_image_string=path.read_bytes()))])
