"""Panels of inputs of all kinds: images as they are, volumes by slices, series as curves, tables as bars, words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lightning_xai.functional.maps import by_channel, mask_like, pixel_map
from lightning_xai.reporting.colors import (
    DIVERGING,
    FAINT,
    LINE_GRAY,
    PALETTE,
    SCALE_NOTE,
    SEQUENTIAL,
    WRONG,
    readable,
    scale_end,
)
from lightning_xai.reporting.pages import LINE, SMALL, Page, drawn_width, styled
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.pictures import Picture, PictureGrid, map_picture

MOST_SLICES = 4
MOST_CURVES = 100
"""Channels of a series that are drawn; embeddings have more."""
_WORDS = 3.0
"""Width of a text, in inches."""
_SPACE = 0.05
"""Around a word."""
_CELL = (60, 100)
"""Height and width of a cell of curves or bars, as if it were a picture of so many pixels."""


def panel(
    inputs: Tensor,
    attributions: Mapping[str, Tensor],
    bounds: tuple[Tensor, Tensor],
    masks: Tensor | None = None,
    labels: Sequence[str] | None = None,
    predictions: Sequence[str] | None = None,
    title: str | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """As `attribution_panel`, of tables, series, images, volumes or texts.

    Of volumes up to four slices are shown, evenly spaced, side by side. Series are curves on the scale of the bounds, a
    color a channel, over the colors of a method's map, or the mask's. Tables have a bar a feature, a method's upward
    where it is positive; so has each place of a series of more than `MOST_CURVES` channels, as embeddings are, the
    input's being the length of its vector. Where `tokens` are given, the words of each sample as far as it has some,
    they are written on the colors of each method's map.

    Raises:
        ValueError: as `attribution_panel`; if a sample has more tokens than places, or there is not one list a sample.
    """
    texts: Any = {"labels": labels, "predictions": predictions, "title": title}
    if tokens is not None:
        _check_tokens(tokens, inputs)
        return _words_panel(attributions, tokens, **texts)
    if inputs.ndim == 4:
        return attribution_panel(inputs, attributions, bounds, masks, **texts)
    low, high = (bound.to(inputs) for bound in bounds)
    scaled = ((inputs - low) / (high - low)).clamp(0, 1)
    if inputs.ndim == 5:
        maps = {name: slices(pixel_map(values, absolute=False)[:, None]) for name, values in attributions.items()}
        planes = None if masks is None else slices(mask_like(masks, inputs[:, 0])[:, None])
        return attribution_panel(slices(scaled), maps, (torch.tensor(0.0), torch.tensor(1.0)), planes, **texts)
    if inputs.ndim == 3 and inputs.shape[1] > MOST_CURVES:
        lengths = inputs.norm(dim=1)
        scaled = lengths / lengths.amax(1, keepdim=True).clamp(min=torch.finfo(lengths.dtype).tiny)
    return _rows_panel(scaled, attributions, masks, **texts)


def slices(volumes: Tensor) -> Tensor:
    """(batch, channel, depth, height, width) as pictures (batch, channel, height, number * width)."""
    depth = volumes.shape[2]
    chosen = torch.linspace(0, depth - 1, min(depth, MOST_SLICES)).round().long()
    return volumes[:, :, chosen].transpose(2, 3).flatten(3)


@styled
def _rows_panel(
    scaled: Tensor,
    attributions: Mapping[str, Tensor],
    masks: Tensor | None,
    labels: Sequence[str] | None,
    predictions: Sequence[str] | None,
    title: str | None,
) -> Figure:
    """Of tables and series on a scale of 0 to 1."""
    draw = _bars if scaled.ndim == 2 else _curves
    values = by_channel(scaled).detach().float().cpu().numpy()
    inside = None if masks is None else mask_like(masks, by_channel(scaled)[:, 0]).cpu().numpy()
    maps = {name: pixel_map(found.detach(), absolute=False).cpu().numpy() for name, found in attributions.items()}
    signed = [bool((found[np.isfinite(found)] < 0).any()) for found in maps.values()]
    grid = PictureGrid(_CELL, _names(len(values), labels, predictions), ["input", *maps], [1])
    page = Page([grid.width], [grid.height])
    axes = _prepared(grid, page, labels, predictions)
    for row, curves in enumerate(values):
        shade = np.zeros((1, curves.shape[1])) if inside is None else inside[row][None].astype(float)
        grid.show(row, 0, Picture(shade, 0.0, 4.0, "Greys"))
        draw(axes, _box(grid, row, 0), curves)
    for position, diverging in enumerate(dict.fromkeys(signed) if draw is _curves else ()):
        grid.draw_scale(diverging, position)
    for column, found in enumerate(maps.values(), 1):
        for row, numbers in enumerate(found):
            blank = Picture(np.zeros((1, 1)), 0.0, 1.0, "Greys")
            grid.show(row, column, blank if draw is _bars else map_picture(numbers[None], signed[column - 1]))
            draw(
                axes,
                _box(grid, row, column),
                numbers[None] / scale_end(numbers[None]) if draw is _bars else values[row],
            )
    return page.finished(title or "", [SCALE_NOTE] if maps else [], least=3.0)


@styled
def _words_panel(
    attributions: Mapping[str, Tensor],
    tokens: Sequence[Sequence[str]],
    labels: Sequence[str] | None,
    predictions: Sequence[str] | None,
    title: str | None,
) -> Figure:
    """Of texts: each word on the color of its attribution, on the sample's own scale."""
    maps = {name: pixel_map(found.detach(), absolute=False).cpu().numpy() for name, found in attributions.items()}
    places = [_in_lines(words) for words in tokens]
    lines = 1 + max((line for words in places for _, line, _ in words), default=0)
    shape = round(100 * lines * LINE / _WORDS) or 1, 100
    grid = PictureGrid(shape, _names(len(tokens), labels, predictions), list(maps))
    grid = PictureGrid(shape, grid.rows, grid.columns, scale=_WORDS / grid.cell_width)
    page = Page([grid.width], [grid.height])
    axes = _prepared(grid, page, labels, predictions)
    signed = [bool((found[np.isfinite(found)] < 0).any()) for found in maps.values()]
    for column, (found, diverging) in enumerate(zip(maps.values(), signed, strict=True)):
        for row, words in enumerate(tokens):
            picture = map_picture(found[row, None, : len(words)], diverging)
            shares = (picture.pixels[0] - picture.low) / (picture.high - picture.low)
            colors = (DIVERGING if diverging else SEQUENTIAL)(np.ma.masked_invalid(shares))
            for word, color, (x, line, width) in zip(words, colors, places[row], strict=True):
                left, top = grid.lefts[column] + x, grid.tops[row] + line * LINE
                axes.add_artist(Rectangle((left, top), width, 0.9 * LINE, facecolor=color, edgecolor="none"))
                style: Any = {"size": SMALL, "color": readable(tuple(color)), "ha": "center", "va": "center"}
                axes.text(left + width / 2, top + 0.45 * LINE, word, **style)
    for position, diverging in enumerate(dict.fromkeys(signed)):
        grid.draw_scale(diverging, position)
    return page.finished(title or "", [SCALE_NOTE] if maps else [], least=3.0)


def _in_lines(words: Sequence[str]) -> list[tuple[float, int, float]]:
    """Where each word begins, in which line, and its width."""
    found: list[tuple[float, int, float]] = []
    x, line = 0.0, 0
    for word in words:
        width = drawn_width(word, SMALL) + _SPACE if word else _SPACE
        if x and x + width > _WORDS:
            x, line = 0.0, line + 1
        found.append((x, line, width))
        x += width
    return found


def _check_tokens(tokens: Sequence[Sequence[str]], inputs: Tensor) -> None:
    longest = max(map(len, tokens), default=0)
    if inputs.ndim != 3 or len(tokens) != len(inputs) or longest > inputs.shape[2]:
        raise ValueError(
            f"`tokens` must be a list of words for each of the samples, embeddings (batch, channel, token), got "
            f"{len(tokens)} lists of at most {longest} words for shape {tuple(inputs.shape)}."
        )


def _prepared(grid: PictureGrid, page: Page, labels: Sequence[str] | None, predictions: Sequence[str] | None) -> Axes:
    """The axes, with wrong predictions in their color."""
    axes = grid.prepare(page.axes())
    if labels and predictions:
        for text, label, prediction in zip(axes.get_yticklabels(), labels, predictions, strict=True):
            text.set_color(FAINT if label == prediction else WRONG)
    return axes


def _names(number: int, labels: Sequence[str] | None, predictions: Sequence[str] | None) -> list[str]:
    """The label, and below it the prediction."""
    columns = [part for part in (labels, predictions and [f"→ {each}" for each in predictions]) if part]
    return ["\n".join(texts) for texts in zip(*columns, strict=True)] if columns else [""] * number


def _box(grid: PictureGrid, row: int, column: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of a cell."""
    return grid.lefts[column], grid.tops[row], grid.cell_width, grid.cell_height


def _curves(axes: Axes, box: tuple[float, float, float, float], values: np.ndarray) -> None:
    left, top, width, height = box
    at = left + width * (np.arange(values.shape[1]) + 0.5) / values.shape[1]
    for number, curve in enumerate(values):
        color = "black" if len(values) == 1 else PALETTE[number % len(PALETTE)]
        axes.plot(at, top + height * (0.95 - 0.9 * curve), color=color, lw=0.7)


def _bars(axes: Axes, box: tuple[float, float, float, float], values: np.ndarray) -> None:
    """Upward from the floor; from the middle if any is negative."""
    left, top, width, height = box
    bars = np.nan_to_num(values[0]).clip(-1, 1)
    signed = bool((bars < 0).any())
    floor, tallest = (top + height / 2, 0.45 * height) if signed else (top + 0.97 * height, 0.9 * height)
    at = left + width * (np.arange(len(bars)) + 0.5) / len(bars)
    colors = DIVERGING(np.where(bars < 0, 0.1, 0.9)) if signed else LINE_GRAY
    axes.bar(at, -tallest * bars, 0.8 * width / len(bars), bottom=floor, color=colors)
