"""AdaptGrad's figure 3: how much of the input noise leaves the data's range, computed and drawn, and on real data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from lightning_xai.data.backgrounds import embedded_photographs, folder_photographs
from lightning_xai.data.base import Normalization
from lightning_xai.experiments.papers.experiment import Experiment, Found, Row, column, groups, means_table, of, rows_of
from lightning_xai.explainers import InRangeScale, RangeScale
from lightning_xai.explainers.base import Context
from lightning_xai.explainers.scales import InputScale
from lightning_xai.functional.bounds import put_on_bounds
from lightning_xai.functional.random import fold_in, root_keys, standard_normal
from lightning_xai.functional.scales import out_of_range_probability
from lightning_xai.reporting.charts import Bars, Curve, CurveAxes, bars_figure, curves_figure
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.tables import ResultTable
from lightning_xai.shapes import Images, Scores
from lightning_xai.statistics.means import mean, mean_and_standard_error
from lightning_xai.studies.lab import Lab

SOURCE = "AdaptGrad (Zhou et al. 2024, arXiv 2410.07711), figure 3 and section 3.2: the inherent noise"
PUBLISHED_MEAN = {"SG": 0.1596, "AG literal": 0.01424}
PHOTOGRAPHS = "photographs"
PUBLISHED_REAL = 0.1262
"""Of SmoothGrad: share of the values of ImageNet's images, with scalar bounds; every image was touched."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation that torchvision's networks take."""

Bounds = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class RealImages:
    """Some images of a data set, in the space of a network.

    Attributes:
        bounds: Bounds of each channel.
    """

    name: str
    images: Images
    index: Tensor
    bounds: Bounds

    @property
    def scalar_bounds(self) -> Bounds:
        """One pair for all channels, as the authors' code has."""
        low, high = self.bounds
        return low.min(), high.max()

    @property
    def has_scalar_bounds(self) -> bool:
        """Whether the channels' bounds are equal, so that one pair is right for all."""
        return all(bool((bound == bound.flatten()[0]).all()) for bound in self.bounds)


def run(
    lab: Lab,
    data: tuple[str, ...] = ("mnist_mlp", "cmnist_lenet"),
    photographs: str = "embedded",
    side: int = 224,
    num_images: int = 1000,
    num_draws: int = 4,
    num_points: int = 101,
    num_simulated: int = 20_000,
    fraction: float = 0.2,
    confidence: float = 0.95,
) -> Found:
    """The share of noisy values that leave the data's range, for SmoothGrad and three readings of AdaptGrad.

    Args:
        lab: See `Lab`.
        data: Names of configurations, whose test images are taken.
        photographs: A folder of images, such as ImageNet's; `embedded` for ten that installed packages carry.
        side: Side of the photographs' center squares, in pixels.
        num_images: Number of images of each data set.
        num_draws: Number of draws of noise on each image.
        num_points: Number of points of x, evenly spaced, where the closed form is simulated.
        num_simulated: Draws at each of them.
        fraction: SmoothGrad's noise over the range of the data.
        confidence: AdaptGrad's.
    """
    closed = scales(fraction, confidence)
    methods = {"SG": closed["SG"], "SG of image": RangeScale(fraction, of="image")} | closed
    curve = curve_rows(closed, num_points, num_simulated, lab.seed)
    means = {name: mean_inherent_noise(scale) for name, scale in closed.items()}
    sets = [*(_test_images(lab, name, num_images) for name in data), _photographs(photographs, side, num_images)]
    rows = [row for images in sets for row in image_rows(images, methods, num_draws, lab.seed)]
    result = Reproduction(
        SOURCE,
        (_mean_table(curve, means), *(_real_table(images, of(rows, data=images.name)) for images in sets)),
        {"curve": curve, "images": rows},
        {},
        {
            "networks": {},
            "data": {images.name: len(images.images) for images in sets},
            "methods": {name: repr(scale) for name, scale in methods.items()},
            "photographs": photographs,
            "side": side,
            "num_draws": num_draws,
            "num_simulated": num_simulated,
            "seed": lab.seed,
        },
        tuple(_findings(rows, means)),
    )
    return result, {"adaptgrad-noise-curve": _curve_figure(curve), "adaptgrad-noise-images": _bars_figure(rows)}


def scales(fraction: float, confidence: float) -> dict[str, InputScale]:
    """SmoothGrad's noise, by the range of the data, and the three readings of AdaptGrad's."""
    return {
        "SG": RangeScale(fraction, of="data"),
        "AG": InRangeScale(confidence),
        "AG literal": InRangeScale(confidence, "literal"),
        "AG exact": InRangeScale(confidence, "exact"),
    }


# Closed form


def inherent_noise_of(
    scale: InputScale, x: Float[Tensor, " point"]
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Standard deviation and out-of-range probability at each x in [0, 1], the range of the data."""
    context = Context.create(torch.arange(1), bounds=(0.0, 1.0))
    std = torch.broadcast_to(scale(x[None], context), (1, len(x)))
    low, high = torch.zeros(()).to(x), torch.ones(()).to(x)
    return std[0], out_of_range_probability(x[None], std, low, high)[0]


def mean_inherent_noise(scale: InputScale, num_points: int = 200_000) -> float:
    """For x uniform on the range: the midpoint rule, in float64."""
    x = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    return float(inherent_noise_of(scale, x)[1].mean())


def curve_rows(methods: Mapping[str, InputScale], num_points: int, num_simulated: int, seed: int) -> list[Row]:
    """Closed form and share of drawn values, at evenly spaced x."""
    x = torch.linspace(0, 1, num_points, dtype=torch.float64)
    noise = standard_normal(root_keys(seed, torch.arange(num_points)), (num_simulated,)).double()
    rows = list[Row]()
    for name, scale in methods.items():
        std, expected = inherent_noise_of(scale, x)
        drawn = x[:, None] + std[:, None] * noise
        shares = ((drawn < 0) | (drawn > 1)).double().mean(1)
        rows += rows_of({"method": name}, x=x, std=std, closed_form=expected, simulated=shares)
    return rows


# Real images


def image_rows(images: RealImages, methods: Mapping[str, InputScale], num_draws: int, seed: int) -> list[Row]:
    """Of each method and image: shares of values and pixels out of the color range, and whether a draw has any.

    The noise is made with the bounds of each channel, and where these differ also with one pair for all channels; then
    the share that leaves that pair's range is there as well, which is what the paper counts.
    """
    scalar = {} if images.has_scalar_bounds else {"scalar": images.scalar_bounds}
    rows = list[Row]()
    for x, index in zip(images.images.split(_BATCH), images.index.split(_BATCH), strict=True):
        for name, scale in methods.items():
            needed = {"per channel": images.bounds} | ({} if name == "SG of image" else scalar)
            for kind, bounds in needed.items():
                std = scale(x, Context.create(index, bounds=bounds)).expand_as(x)
                outside = out_of_range_probability(x, std, *images.bounds)
                rows += rows_of(
                    {"data": images.name, "method": name, "bounds": kind},
                    sample=index,
                    values=outside.flatten(1).mean(1),
                    simulated=simulated_share(x, std, images.bounds, num_draws, seed, index),
                    pixels=pixel_share(outside),
                    touched=any_probability(outside.flatten(1)),
                    scalar_range=out_of_range_probability(x, std, *images.scalar_bounds).flatten(1).mean(1),
                )
    return rows


_BATCH = 64


def pixel_share(outside: Images) -> Scores:
    """Expected share of the pixels with some channel out of range, from the channels' probabilities."""
    return any_probability(outside.movedim(1, -1)).flatten(1).mean(1)


def any_probability(outside: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Probability that at least one of independent events on the last axis happens: 1 - ∏ (1 - p), in float64."""
    return -torch.expm1(torch.log1p(-outside.double()).sum(-1))


def simulated_share(x: Images, std: Images, bounds: Bounds, num_draws: int, seed: int, index: Tensor) -> Scores:
    """Share of drawn values out of the bounds."""
    counts = torch.zeros(len(x), dtype=torch.float64)
    for draw in range(num_draws):
        noisy = x + std * standard_normal(fold_in(root_keys(seed, index), draw), x.shape[1:])
        noisy, low, high = put_on_bounds(noisy, *bounds)
        counts += ((noisy < low) | (noisy > high)).flatten(1).double().mean(1)
    return (counts / num_draws).float()


def _test_images(lab: Lab, name: str, number: int) -> RealImages:
    data: Any = lab.data(name)
    samples = lab.samples(data, number)
    title = type(data).__name__.removesuffix("DataModule")
    return RealImages(title, samples.images.cpu(), samples.index, data.bounds)


def _photographs(source: str, side: int, number: int) -> RealImages:
    pictures = embedded_photographs(side) if source == "embedded" else folder_photographs(Path(source), side)
    normalize = Normalization(*(torch.tensor(values).view(-1, 1, 1) for values in IMAGENET))
    images = normalize(pictures[:number])
    return RealImages(PHOTOGRAPHS, images, torch.arange(len(images)), normalize.bounds)


# Tables


def _mean_table(curve: Sequence[Row], means: Mapping[str, float]) -> ResultTable:
    rows = []
    for name, mean_noise in means.items():
        mine = of(curve, method=name)
        worst = max(abs(row["simulated"] - row["closed_form"]) for row in mine)
        published = f"{PUBLISHED_MEAN[name]:.5g}" if name in PUBLISHED_MEAN else "none"
        rows.append((name, f"{mean_noise:.5f}", f"{max(column(mine, 'closed_form')):.5f}", f"{worst:.5f}", published))
    return ResultTable(
        "Out-of-range probability of a value x, uniform on the data's range",
        ("method", "mean over x", "greatest", "greatest error of the simulation", "published mean"),
        tuple(rows),
        (
            "AG: z = √2 erfinv(c), the released code; literal: z = √2 erfinv((1 + c)/2), equation 13 as printed; exact:"
            " equation 14 solved for each value.",
        ),
    )


def _real_table(images: RealImages, rows: Sequence[Row]) -> ResultTable:
    notes = (
        "Expected share of what leaves the real color range, that of each channel; images: of one draw, those with any"
        " such value. ± standard error over images.",
        f"Published for SG with scalar bounds, of ImageNet: {PUBLISHED_REAL:.4f} out of the scalar range; all images.",
    )
    shown = {
        "values": "values",
        "simulated": "values, drawn",
        "pixels": "pixels",
        "touched": "images",
        "scalar_range": "values out of scalar range",
    }
    title = f"Out-of-range noise on {len(images.images)} images: {images.name}"
    return means_table(title, rows, ("method", "bounds"), shown, notes if images.name == PHOTOGRAPHS else notes[:1])


def _findings(rows: Sequence[Row], means: Mapping[str, float]) -> Iterator[str]:
    yield "For x uniform on the range: " + ", ".join(f"{name} {value:.5f}" for name, value in means.items()) + "."
    printed = PUBLISHED_MEAN["AG literal"]
    if not any(abs(value - printed) < 5e-5 for name, value in means.items() if name != "SG"):
        yield f"No reading of AdaptGrad gives the published {printed:.5f}."
    for (name,), mine in groups(rows, "data").items():
        found = {key: mean(column(part, "values")) for key, part in groups(mine, "method", "bounds").items()}
        scalar = f" (with scalar bounds {found['AG', 'scalar']:.2%})" if ("AG", "scalar") in found else ""
        touched = mean(column(of(mine, method="AG", bounds="per channel"), "touched"))
        yield (
            f"{name}: SG leaves the color range with {found['SG', 'per channel']:.2%} of the values, AG with "
            f"{found['AG', 'per channel']:.2%}{scalar}; one draw of AG touches {touched:.1%} of the images."
        )


# Figures


def _curve_figure(rows: Sequence[Row]) -> Figure:
    curves = []
    for (name,), mine in groups(rows, "method").items():
        x, expected, drawn = (column(mine, what) for what in ("x", "closed_form", "simulated"))
        step = max(1, (len(x) - 1) // _NUM_DOTS)
        curves.append(Curve(name, (x, expected), (x[::step], drawn[::step])))
    axes = CurveAxes(
        "Of one value", "x, place in the data's range", "out-of-range probability", curves, {"ylim": (0, None)}
    )
    return curves_figure("Inherent noise", [axes], ["Lines: closed form. Dots: share of drawn values."])


_NUM_DOTS = 20


def _bars_figure(rows: Sequence[Row]) -> Figure:
    panels = []
    for (data,), mine in groups(rows, "data").items():
        names = tuple(dict.fromkeys(column(mine, "method")))
        series = {
            f"bounds {kind}": [
                mean_and_standard_error(column(of(mine, method=name, bounds=kind), "values")) for name in names
            ]
            for kind in dict.fromkeys(column(mine, "bounds"))
        }
        published = [("SG on ImageNet, out of the scalar range, published", PUBLISHED_REAL)]
        lines = dict(published if data == PHOTOGRAPHS else ())
        panels.append(Bars(f"{data}: values out of the color range", names, series, lines))
    return bars_figure("Inherent noise on real images", panels, ["Mean and standard error over images."])


EXPERIMENT = Experiment(
    "share of the input noise that leaves the data's range",
    run,
    {"num_images": 32, "side": 64, "num_points": 21},
)
