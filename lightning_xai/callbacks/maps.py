"""Maps of all samples of an evaluation in one small picture: 8-bit gray, with what is needed to read it back."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from lightning_xai.evaluation import Evaluation
from lightning_xai.explainers.channels import channels_second
from lightning_xai.reporting.colors import scale_end
from lightning_xai.results.files import replacing

SHEETS = "sheets"


def write_sheet(evaluation: Evaluation, index: Tensor, path: Path, channel_dim: int = 1) -> None:
    """Write the kept inputs and maps as a PNG: blocks one below the other, of the inputs and of each method.

    A block is a square of `across` x `across` tiles, row by row, the samples in order. Inputs are the mean over the
    channels, from the least (0) to the greatest value (255). Maps are the sum over them: a gray g means
    (g - 128) / 127 * scale, and 0 that the value is not finite. The PNG's text `lightning_xai` is JSON: `samples`
    (their indices), `targets` (the classes explained), `height` and `width` of a tile, `across`, `methods`, and of each
    method the `scale`, its greatest absolute value, and `end`, the 99th percentile of the absolute values, where a
    drawing may end its colors.

    Args:
        evaluation: With maps of the first samples.
        index: Of the samples, in the order of the maps.
        path: Of the PNG.
        channel_dim: The axis of the channels.

    Raises:
        OSError: if the folder cannot be written to.
    """
    inputs = _gray(channels_second(evaluation.images, channel_dim).double().mean(1))
    low, high = inputs.min(), inputs.max()
    blocks, scales, ends = [np.rint(255 * (inputs - low) / ((high - low) or 1.0))], [], []
    for maps in evaluation.attributions.values():
        values = _gray(channels_second(maps, channel_dim).double().sum(1))
        known = np.isfinite(values)
        scales.append(float(np.abs(values[known]).max(initial=0.0)))
        ends.append(scale_end(values.reshape(-1, values.shape[-1])))
        blocks.append(np.where(known, 128 + np.rint(127 * np.where(known, values, 0.0) / (scales[-1] or 1.0)), 0))
    count, height, width = inputs.shape
    about = {
        **{"samples": index[:count].tolist(), "targets": evaluation.target[:count].tolist()},
        **{"height": height, "width": width, "across": math.ceil(math.sqrt(count))},
        **{"methods": list(evaluation.attributions), "scales": scales, "ends": ends},
    }
    text = PngImagePlugin.PngInfo()
    text.add_text("lightning_xai", json.dumps(about))
    picture = Image.fromarray(np.concatenate([_tiled(block) for block in blocks]))
    with replacing(path) as temporary:
        picture.save(temporary, "png", optimize=True, pnginfo=text)


def _gray(maps: Tensor) -> np.ndarray:
    return maps.detach().cpu().numpy()


def _tiled(tiles: np.ndarray) -> np.ndarray:
    """Tiles (number, height, width) as one square."""
    count, height, width = tiles.shape
    across = math.ceil(math.sqrt(count))
    whole = np.zeros((across * across, height, width), np.uint8)
    whole[:count] = tiles
    return whole.reshape(across, across, height, width).swapaxes(1, 2).reshape(across * height, across * width)
