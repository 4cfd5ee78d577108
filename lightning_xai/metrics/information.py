"""Information Level: how much of the prediction comes back with how little of the image, best pixels first."""

import io
import math
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, features
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.spatial import QhullError
from torch import Tensor, nn
from torchmetrics.utilities import dim_zero_cat

from lightning_xai.explainers.base import Context, check_choice, check_rows, check_share, explaining
from lightning_xai.explainers.chunks import groups, in_chunks
from lightning_xai.explainers.gradient import require_bounds
from lightning_xai.functional.faithfulness import pixel_ranks, random_subsets
from lightning_xai.functional.information import (
    area_under_knots,
    fill_holes,
    information_curve,
    interpolate_knots,
    median,
    normalize,
    revealed_pixels,
    shared_ranks,
)
from lightning_xai.functional.maps import scored_map
from lightning_xai.metrics.base import SampleMetric, Shared
from lightning_xai.metrics.checks import check_batch
from lightning_xai.shapes import Images, Maps, Masks, Scores

Curve = Literal["softmax", "accuracy"]
Fill = Literal["smooth", "linear"]
Coder = Literal["fast", "published"]
Preset = Literal["fast", "published"]

FRACTIONS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
"""Shares of the pixels, the highest attributions first, that the published procedure reveals."""

NUM_POINTS = len(FRACTIONS) + 2
LEAST_PIXELS = 4
"""Always revealed, however small the image: a plane through three pixels, and one more."""

CODERS = {"fast": {"method": 1, "quality": 0}, "published": {"method": 4, "quality": 100}}

PRESETS: dict[Preset, tuple[Fill, Coder]] = {"fast": ("smooth", "fast"), "published": ("linear", "published")}
"""Fill and coder; what else the published preset does is said in `InformationLevel`."""


class Shown(NamedTuple):
    """Images as the model gets them, and the pictures (uint8) that are coded."""

    images: Tensor
    pictures: Tensor


class Measured(NamedTuple):
    """Of each image: bytes of its code, and the score of the explained class."""

    sizes: Tensor
    scores: Tensor


class Ends(NamedTuple):
    """What the curves of all methods have in common: the pixels that are always revealed, and both ends."""

    known: Masks
    blurred: Measured
    original: Measured


class InformationLevel(SampleMetric):
    """Area under the Performance Information Curve of XRAI (Kapishnikov et al. 2019, section 4.2).

    Higher is better.

    Random pixels, 1 % rounded up and at least four, are revealed always; the same for all methods of an evaluation. To
    them are added the highest 0.5 % ... 75 % (`FRACTIONS`, rounded up) of the absolute channel sums; the rest of the
    image is interpolated. Each such image is a point: x is the size of its lossless WebP code, y its score. Both are
    taken relative to the image of random pixels alone, 0, and to the original, 1, and clipped; y never falls from one
    fraction to the next. With (0, 0) and (1, 1) added and sorted by x, the area under the straight lines is the
    sample's score, and their mean the area under the mean curve. The published aggregate is the area under the median
    curve over the samples: `median_area`, of `median_curve`.

    Undefined where the original's score is below `min_score`, or it or its code is not above that of the random pixels.
    That depends on the sample alone: all methods are compared on the same samples. Undefined too where the map is
    constant, which ranks nothing, or not finite. AdaptGrad calls the area Information Level.

    Scores of the default preset, "fast", are not comparable with published values of SIC and AIC: single ones differ by
    several tenths on small images, by 0.08 on one of 224 pixels a side. `preset="published"` is the procedure of the
    authors' code (`saliency.metrics.pic`) as a whole, with its score for the same random pixels (`always_known`). It
    has a `fill` and a `coder` of its own, and moreover:

    - The four corners are revealed always, besides the random pixels, whose number is rounded down.
    - Model and coder get pictures of 8 bits: the original's are interpolated, and the result is rounded.
    - Equal attributions are revealed together, so that more pixels than a share's are where values tie.
    - Points whose code is no longer than that of the random pixels come before (0, 0) and count for nothing.

    Args:
        curve: "softmax": the score is the probability of the explained class (SIC); "accuracy": 1 if that class is
            predicted, else 0 (AIC).
        absolute: Rank by the absolute value of the channel sums, since what is asked is where the evidence is; the
            signed gradient brings back no more than random pixels do. False ranks the signed sums.
        fill: "smooth": a pyramid, batched on the inputs' device. "linear": linear in the triangles between revealed
            pixels, the nearest one's value outside, as published; slow, on the CPU. None for the preset's.
        min_score: Least score of the original. Below, y would be divided by little more than chance; 0.8 is published.
        random_fraction: Share of the pixels that is always revealed.
        coder: WebP's effort. "fast": method 1, quality 0. "published": method 4, quality 100, as in the released code,
            five times slower; on CMNIST areas moved by up to 0.04 and the order of the methods not at all. None for
            the preset's.
        preset: "fast", or "published" for scores that compare with published ones; see above.

    Raises:
        TypeError: if a share is no number.
        ValueError: if a share is not in [0, 1], or a choice unknown; when updated, if bounds are missing, or inputs
            have other than 1 or 3 channels.
        RuntimeError: if Pillow has no WebP.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> evidence = torch.nn.functional.pad(torch.ones(1, 1, 4, 4), (4, 8, 4, 8))  # a square, white in the image
        >>> images = torch.maximum(torch.rand(1, 1, 16, 16) / 2, evidence)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2))
        >>> model[1].weight.data = torch.cat([evidence, torch.zeros(1, 1, 16, 16)]).flatten(1)
        >>> model[1].bias.data = torch.tensor([0.0, 12.0])  # logits 16 and 12; without the square less than 8 and 12
        >>> methods, metrics = ["gradient", "random_attribution"], ["information_level"]
        >>> means = lx.evaluate(model, images, 0, methods, metrics, bounds=(0.0, 1.0)).means()
        >>> means["gradient"]["information_level"] > 0.4 > means["random_attribution"]["information_level"]
        True
    """

    higher_is_better = True

    knots: list[Tensor]

    def __init__(
        self,
        curve: Curve = "softmax",
        absolute: bool = True,
        fill: Fill | None = None,
        min_score: float = 0.8,
        random_fraction: float = 0.01,
        coder: Coder | None = None,
        preset: Preset = "fast",
        **kwargs: Any,
    ) -> None:
        check_choice("curve", curve, Curve)
        check_choice("preset", preset, Preset)
        fill = PRESETS[preset][0] if fill is None else fill
        coder = PRESETS[preset][1] if coder is None else coder
        check_choice("fill", fill, Fill)
        check_choice("coder", coder, Coder)
        check_share("min_score", min_score)
        check_share("random_fraction", random_fraction)
        if not features.check("webp"):
            raise RuntimeError("InformationLevel needs Pillow with WebP, which this one lacks: pip install -U pillow.")
        super().__init__(**kwargs)
        self.add_state("knots", default=[], dist_reduce_fx="cat")
        self.curve, self.absolute, self.fill, self.coder, self.preset = curve, absolute, fill, coder, preset
        self.min_score, self.random_fraction = min_score, random_fraction

    def update(
        self,
        attributions: Tensor,
        *,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        context: Context,
        bounds: tuple[Tensor, Tensor] | None,
        shared: Shared | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Score attributions (batch, channel, height, width) of `inputs` for the classes `target`.

        Raises:
            ValueError: if they are not of the same samples, or a shape does not fit that of the inputs.
        """
        self.check_inputs(inputs)
        check_batch(attributions, inputs, target, context)
        maps = scored_map(attributions, self.absolute)
        context = replace(context, bounds=bounds)
        settings = "information", self.curve, self.fill, self.random_fraction, self.coder, self.preset
        measure = partial(self._ends, model, inputs, target, context)
        ends = measure() if shared is None else shared.once(settings, measure)
        knots = self._knots(self._reveal(maps, ends.known, model, inputs, target, context), ends)
        values = maps.flatten(1)
        ranked = values.amax(1) > values.amin(1)  # not where there is a NaN
        knots = torch.where(ranked[:, None, None], knots, torch.nan)
        self.record(area_under_knots(knots), index)
        self.knots.append(knots.to(self.device))

    def check_inputs(self, inputs: Tensor) -> None:
        if inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
            raise ValueError(
                "`inputs` must be images with 1 or 3 channels, (batch, channel, height, width), because they are coded "
                f"as pictures; got shape {tuple(inputs.shape)}."
            )

    def median_curve(self, num_points: int = 1001) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
        """(x, y) of the median over the distinct samples with a defined score; NaN if there is none.

        Like `compute`, of the samples of all processes: every process must call it.
        """
        with self._all_processes():
            knots = dim_zero_cat(self.knots)[self._first()[1]]
        at = torch.linspace(0, 1, num_points, device=knots.device)
        return at, median(interpolate_knots(knots[~knots.isnan().any(2).any(1)], at))

    def median_area(self, num_points: int = 1001) -> Float[Tensor, ""]:
        """Area under `median_curve`, the published aggregate."""
        x, y = self.median_curve(num_points)
        return torch.trapezoid(y, x)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As `SampleMetric.sync`: a process without samples gets an empty state of the right shape."""
        if isinstance(self.knots, list) and not self.knots:
            self.knots.append(torch.empty(0, NUM_POINTS, 2, device=self.device))
        super().sync(*args, **kwargs)

    def always_known(self, inputs: Tensor, context: Context) -> Masks:
        """The pixels that are revealed always; to hand them to another implementation."""
        num_pixels, published = inputs[0, 0].numel(), self.preset == "published"
        share = self.random_fraction * num_pixels
        count = _round_down(share) if published else min(num_pixels, max(LEAST_PIXELS, _round_up(share)))
        chosen = random_subsets(context.private_keys("information"), 1, count, num_pixels)[:, 0]
        known = torch.zeros(len(inputs), num_pixels, dtype=torch.bool).scatter_(1, chosen, True)
        known = known.view(-1, *inputs.shape[2:]).to(inputs.device)
        if published:
            known[:, :: max(1, known.shape[1] - 1), :: max(1, known.shape[2] - 1)] = True
        return known

    def _ends(self, model: nn.Module, inputs: Tensor, target: Tensor, context: Context) -> Ends:
        known = self.always_known(inputs, context)
        with explaining(model), torch.no_grad():
            blurred, original = (
                self._measure(model, self._shown(inputs, mask, context), target, context) for mask in (known, None)
            )
        return Ends(known, blurred, original)

    def _reveal(
        self, maps: Tensor, known: Tensor, model: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Measured:
        """Of the image with each share of the pixels revealed: sizes and scores (batch, fraction)."""
        counts, ranks = self._order(maps)
        parts = []
        with explaining(model), torch.no_grad():
            for steps in groups(len(counts), model, inputs, context.max_rows):
                masks = revealed_pixels(ranks, known, [counts[step] for step in steps]).flatten(0, 1)
                shown = self._shown(inputs.repeat(len(steps), 1, 1, 1), masks, context)
                parts.append(self._measure(model, shown, target.repeat(len(steps)), context))
        sizes, scores = (torch.cat(column).unflatten(0, (len(counts), -1)).T for column in zip(*parts, strict=True))
        return Measured(sizes, scores)

    def _order(self, maps: Maps) -> tuple[list[int], Tensor]:
        """How many pixels each fraction reveals, and the rank of each pixel; published, equal values share the best.

        Published is what reaches the quantile of one less the fraction, interpolated between two values.
        """
        number = maps[0].numel()
        if self.preset == "published":
            return [1 + _round_down(share * (number - 1)) for share in FRACTIONS], shared_ranks(maps)
        return [_round_up(share * number) for share in FRACTIONS], pixel_ranks(maps)

    def _knots(self, revealed: Measured, ends: Ends) -> Tensor:
        """(batch, point, 2): the curves; NaN where the sample has none."""
        x = normalize(revealed.sizes, ends.blurred.sizes, ends.original.sizes)
        y = normalize(revealed.scores, ends.blurred.scores, ends.original.scores)
        undefined = (x + y).isnan().any(1) | (ends.original.scores < self.min_score)
        curve = information_curve(x, y, zero_first=self.preset == "fast")
        return torch.where(undefined[:, None, None], torch.nan, curve)

    def _measure(self, model: nn.Module, shown: Shown, target: Tensor, context: Context) -> Measured:
        def score(images: Tensor, target: Tensor) -> Tensor:
            raw = check_rows(model(images), len(images)).float()
            scores = context.output.probability(raw, target)  # also where it is the prediction that counts: refusals
            if self.curve == "accuracy":
                scores = (context.output.prediction(raw) == target).float()
            return scores.masked_fill(raw.isnan().view(len(raw), -1).any(1), torch.nan)

        sizes = coded_sizes(shown.pictures, self.coder).to(shown.images.device)
        return Measured(sizes, in_chunks(score, model, context.max_rows, shown.images, target))

    def _shown(self, images: Images, known: Masks | None, context: Context) -> Shown:
        """The images with the known pixels alone, the rest being filled; as they are without a mask."""
        low, high = require_bounds(images, context, "InformationLevel")
        if self.preset == "fast":
            seen = images if known is None else self._filled(images.float(), known).to(images.dtype)
            return Shown(seen, eight_bits(seen, low, high))
        pictures = eight_bits(images, low, high)
        if known is not None:
            pictures = self._filled(pictures.float(), known).round().byte()
        return Shown(from_eight_bits(pictures, low, high).to(images.dtype), pictures)

    def _filled(self, images: Images, known: Masks) -> Images:
        return (fill_holes if self.fill == "smooth" else fill_holes_linearly)(images, known)


def eight_bits(images: Images, low: Tensor, high: Tensor) -> Tensor:
    """The pictures that images of this range are: uint8, shaped alike."""
    low, high = low.float(), high.float()
    return ((images.float() - low) / (high - low) * 255).round().clamp(0, 255).byte()


def from_eight_bits(pictures: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The images, in float32, whose `eight_bits` these pictures are."""
    low, high = low.float(), high.float()
    return low + pictures.float() / 255 * (high - low)


def coded_sizes(pictures: Tensor, coder: Coder = "fast") -> Scores:
    """Bytes of the lossless WebP code of each 8-bit picture (batch, 1 or 3, height, width); on the CPU."""
    arrays = pictures.permute(0, 2, 3, 1).cpu().numpy()
    return torch.tensor([_coded_size(array, coder) for array in arrays], dtype=torch.float32)


def fill_holes_linearly(images: Images, known: Masks) -> Images:
    """As `functional.information.fill_holes`, but linear in the Delaunay triangles of the known pixels.

    Outside their hull, and where they lie on one line, a hole gets the value of the nearest known pixel.
    """
    filled = [
        _fill_linearly(image, mask) for image, mask in zip(images.cpu().numpy(), known.cpu().numpy(), strict=True)
    ]
    return torch.from_numpy(np.stack(filled)).to(images)


def _fill_linearly(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    places, values, holes = np.argwhere(known), image[:, known].T, np.argwhere(~known)
    filled = image.copy()
    if not len(holes):
        return filled
    try:
        found = LinearNDInterpolator(places, values)(holes)
    except QhullError:
        found = np.full((len(holes), len(image)), np.nan)
    outside = np.isnan(found).any(1)
    if outside.any():
        found[outside] = NearestNDInterpolator(places, values)(holes[outside])
    filled[:, ~known] = found.T
    return filled


def _coded_size(array: np.ndarray, coder: Coder) -> int:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(array if array.shape[2] == 3 else array[..., 0]))
    picture.save(buffer, "WEBP", lossless=True, **CODERS[coder])
    return buffer.tell()


def _round_up(value: float) -> int:
    """The next integer, forgiving the rounding of a product such as 0.07 x 100."""
    return math.ceil(value - 1e-9)


def _round_down(value: float) -> int:
    return math.floor(value + 1e-9)
