"""Maps of all samples of an evaluation in few small files: a sheet of 8-bit gray for each method."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lightning_xai.evaluation import Evaluation
from lightning_xai.explainers.channels import channels_second
from lightning_xai.reporting.saving import file_name
from lightning_xai.results.files import replacing, write_text

MAPS = "maps"


def write_maps(evaluation: Evaluation, folder: Path, stage: str, epoch: int, step: int, channel_dim: int = 1) -> Path:
    """Write a sheet for each method, one of the inputs, and STAGE-epoch=EEE-step=S.json, whose path is returned.

    A sheet is a PNG, a square of maps, row by row, summed over the channels: value = (gray - 128) / 127 * scale, where scale
    is the greatest absolute value of the sheet's defined ones; 0 is for what is not finite. Inputs are averaged over
    the channels, from their least (0) to their greatest value (255).

    Raises:
        ValueError: if the inputs are no images.
        OSError: if the folder cannot be written to.
    """
    inputs = channels_second(evaluation.images, channel_dim)
    if inputs.ndim != 4:
        raise ValueError(f"`keep_maps` is for images (batch, channel, height, width), got {tuple(inputs.shape)}.")
    name = f"{stage}-epoch={epoch:03d}-step={step}"
    gray = inputs.float().mean(1)
    low, high = float(gray.min()), float(gray.max())
    sheets: dict[str, Any] = {}
    for number, (method, maps) in enumerate(evaluation.attributions.items()):
        values = _array(channels_second(maps, channel_dim).sum(1))
        known = np.isfinite(values)
        scale = float(np.abs(values[known]).max(initial=0.0))
        bytes_ = np.where(known, 128 + np.rint(127 * np.nan_to_num(values) / (scale or 1.0)), 0)
        file = f"{name}-{number}-{file_name(method)}.png"
        _save(folder / file, bytes_)
        sheets[method] = {"file": file, "scale": scale}
    file = f"{name}-inputs.png"
    _save(folder / file, np.rint(255 * (_array(gray) - low) / ((high - low) or 1.0)))
    count, height, width = gray.shape
    about = {
        **{"stage": stage, "epoch": epoch, "step": step, "samples": evaluation.index[:count].tolist()},
        **{"height": height, "width": width, "across": math.ceil(math.sqrt(count)), "inputs": file, "sheets": sheets},
    }
    return write_text(folder / f"{name}.json", json.dumps(about, indent=1) + "\n")


def _array(maps: Tensor) -> np.ndarray:
    return maps.detach().double().cpu().numpy()


def _save(path: Path, tiles: np.ndarray) -> None:
    """Tiles (number, height, width) as a square."""
    count, height, width = tiles.shape
    across = math.ceil(math.sqrt(count))
    whole = np.zeros((across * across, height, width), np.uint8)
    whole[:count] = tiles
    sheet = whole.reshape(across, across, height, width).swapaxes(1, 2).reshape(across * height, across * width)
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, "png", optimize=True)
