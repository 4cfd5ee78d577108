"""AdaptGrad's figures 1, 2, 4, 5 and 6: maps of photographs by a pretrained network, with the numbers behind them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lightning_xai.experiments.papers.adaptgrad_convergence import Examined, level_methods, level_rows
from lightning_xai.experiments.papers.experiment import Experiment, Found, Row, column, groups, means_table, of, rows_of
from lightning_xai.explainers import Smooth, adapt_grad, smooth_grad
from lightning_xai.explainers.base import check_count
from lightning_xai.explainers.precision import in_precision
from lightning_xai.functional.complexity import gini
from lightning_xai.functional.maps import pixel_map
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.reproduction import Reproduction
from lightning_xai.results.scores import ScoreRow
from lightning_xai.results.tables import ResultTable
from lightning_xai.shapes import Images
from lightning_xai.statistics.means import mean
from lightning_xai.studies.engine import judged
from lightning_xai.studies.lab import Lab, described
from lightning_xai.studies.report import claim_matrix
from lightning_xai.studies.study import carried_study
from lightning_xai.studies.subjects import photographs, pretrained_network

SOURCE = "AdaptGrad (Zhou et al. 2024, arXiv 2410.07711), figures 1, 2, 4, 5 and 6: maps of photographs"
TITLES = {
    "figure1": "Gradient, SmoothGrad and AdaptGrad",
    "figure2": "SmoothGrad by the number of draws, N; the gradient is N = 0",
    "figure4": "AdaptGrad by the confidence, c",
    "figure5": "SmoothGrad and AdaptGrad by the number of draws, N",
    "figure6": "Smoothed gradients in other methods",
}

FAMILIES = ("Grad", "GI", "IG(W)", "IG(B)", "NG")
"""Of AdaptGrad's table 2."""

Grid = dict[str, dict[str, str]]
"""Names of maps: by row of a picture, by column."""


def run(
    lab: Lab,
    network: str = "vgg16",
    weights: str | None = None,
    images: str | None = None,
    num_images: int = 8,
    num_shown: int = 4,
    draws: tuple[int, ...] = (10, 20, 30, 50, 70, 100),
    num_draws: int = 50,
    fraction: float = 0.2,
    confidence: float = 0.95,
    confidences: tuple[float, ...] = (0.95, 0.99, 0.995, 0.999),
    noise_std: float = 0.2,
    num_steps: int = 50,
    inner_draws: int = 50,
    image_size: int | None = None,
) -> Found:
    """Maps of the predicted classes: by method, number of draws and confidence, and in other methods.

    Args:
        lab: See `Lab`.
        network: A classifier of torchvision by name, or a configuration of a pretrained network.
        weights: File with a state dict, or the name of torchvision's weights; null for the default ones.
        images: A folder of pictures; null for photographs that installed packages carry.
        num_images: That the numbers are of, evenly spaced.
        num_shown: Of which maps are shown, the first ones.
        draws: Numbers of draws in figures 2 and 5, two or more each.
        num_draws: In figures 1 and 4.
        fraction: SmoothGrad's noise over the range of the data.
        confidence: AdaptGrad's, but for figure 4.
        confidences: AdaptGrad's in figure 4; the higher, the less noise.
        noise_std: NoiseGrad's, relative to each weight. With 0.02, EfficientNet-Lite0 keeps 3 of 4 classes.
        num_steps: Points on the paths of Integrated Gradients.
        inner_draws: In figure 6: of NoiseGrad, and of the smoothed gradient at each path point or noisy model.
        image_size: Side of the network's input; null for what the network was trained with.
    """
    if not draws or min(draws) < 2:
        raise ValueError(f"`draws` must be numbers of at least 2, got {list(draws)}.")
    check_count("num_images", num_images)
    check_count("num_shown", num_shown)
    found = pretrained_network(lab, network, weights, image_size)
    samples, pictures = photographs(lab, found, images, num_images)
    subject = Examined.of(found, samples)
    smoothers = {"SG": smooth_grad(fraction=fraction, of="data"), "AG": adapt_grad(confidence=confidence)}
    methods = level_methods((fraction,), sorted({confidence, *confidences}), num_draws)
    combined = carried_study(
        "adaptgrad-table2",
        num_draws=inner_draws,
        num_steps=num_steps,
        path_draws=inner_draws,
        noise_draws=inner_draws,
        noise_std=noise_std,
        fraction=fraction,
        confidence=confidence,
    ).explainers()
    methods |= {name: combined[name] for family in FAMILIES[1:] for name in members(family)}
    steps = sorted(set(draws))
    with in_precision(found.model, lab.precision):
        rows, maps = level_rows(subject, methods, lab.seed)
        more, drawn = draw_rows(subject, smoothers, steps, lab.seed)
    records = [*rows, *more]
    sums = {name: pixel_map(part, absolute=False)[:num_shown] for name, part in {**maps, **drawn}.items()}
    plain = {"Grad": "Grad", "SG": f"SG {fraction:g}", "AG": f"AG {confidence:g}"}
    shown, (low, high) = samples.images[:num_shown].cpu(), (bound.cpu() for bound in found.bounds)
    shown_maps = grids(plain, steps, confidences)
    names, classes, _ = zip(*pictures, strict=True)
    settings = {
        "networks": described({network: found}),
        "images": images or "embedded",
        "pictures": list(names),
        "classes": list(classes),
        "methods": {name: repr(method) for name, method in methods.items()},
        "maps": list(sums),
        "figures": shown_maps,
        "precision": lab.precision,
        "seed": lab.seed,
    }
    result = Reproduction(
        SOURCE,
        tuple(_tables(records, plain)),
        {"maps": records},
        {"images": shown.numpy(), "low": low.numpy(), "high": high.numpy(), "maps": np.stack([*sums.values()])},
        settings,
        tuple(_findings(records, plain, steps)),
    )
    figures = {
        name: attribution_panel(
            shown.repeat_interleave(len(grid), 0),
            maps_of(grid, sums),
            (low, high),
            labels=[f"{label}, {row}" if row else label for label in classes[:num_shown] for row in grid],
            title=TITLES[name],
        )
        for name, grid in shown_maps.items()
    }
    return result, figures


# Maps


def draw_rows(
    subject: Examined, smoothers: Mapping[str, Smooth], draws: Sequence[int], seed: int
) -> tuple[list[Row], dict[str, Images]]:
    """Sparseness and relative standard error after each of these rising numbers of draws; and the maps."""
    rows, shown = list[Row](), dict[str, Images]()
    for name, smoother in smoothers.items():
        for number, moments in subject.converging(smoother, draws, seed):
            maps = shown[_drawn(name, number)] = moments.mean.cpu()
            scores = {"sparseness": gini(maps), "relative_error": moments.relative_error.cpu()}
            rows += rows_of({"method": _drawn(name, number)}, sample=subject.index, **scores)
    return rows, shown


def _drawn(name: str, number: int) -> str:
    return f"{name}, {number} draws"


def grids(plain: Mapping[str, str], draws: Sequence[int], confidences: Sequence[float]) -> dict[str, Grid]:
    """Which maps are where."""
    by_draws = {name: {f"N = {n}": _drawn(name, n) for n in draws} for name in ("SG", "AG")}
    return {
        "figure1": {"": dict(plain)},
        "figure2": {"": {"N = 0": plain["Grad"], **by_draws["SG"]}},
        "figure4": {"": {f"c = {c:g}": f"AG {c:g}" for c in confidences}},
        "figure5": by_draws,
        "figure6": {
            row: {"gradient": plain[row], **{family: members(family)[place] for family in FAMILIES[1:]}}
            for place, row in enumerate(members("Grad"))
        },
    }


def maps_of(grid: Grid, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By column, the rows of the grid for each picture, as images of one channel."""
    columns = next(iter(grid.values()))
    return {name: torch.stack([maps[row[name]] for row in grid.values()], 1).flatten(0, 1)[:, None] for name in columns}


# Tables


_COLUMNS = {
    "sparseness": "sparseness",
    "inherent_noise": "inherent noise",
    "relative_error": "relative error",
    "spearman": "Spearman with Grad",
}


def _tables(records: Sequence[Row], plain: Mapping[str, str]) -> Iterator[ResultTable]:
    notes = (
        "Mean ± standard error over the pictures. SG by its fraction of the range, AG by its confidence; S- and A-: on"
        " their gradients. Inherent noise: share of noisy values out of the data's range. Relative error: of the map"
        " for the number of draws, from their variance.",
        "The paper shows the maps of some pictures, and no numbers of them.",
    )
    yield replace(means_table("Maps", records, ["method"], _COLUMNS, notes), columns=("map", *_COLUMNS.values()))
    scores = [ScoreRow("test", 0, 0, row["method"], "sparseness", row["sample"], row["sparseness"]) for row in records]
    claims = judged(scores, _pairs(plain), ["sparseness"], {"sparseness": True})
    yield claim_matrix("Is AdaptGrad's map sparser?", claims)


def members(family: str) -> tuple[str, str, str]:
    """The plain method, with SmoothGrad, and with AdaptGrad."""
    return ("Grad", "SG", "AG") if family == "Grad" else (family, f"S-{family}", f"A-{family}")


def _pairs(plain: Mapping[str, str]) -> list[tuple[str, str]]:
    others = (members(family) for family in FAMILIES[1:])
    return [(plain["AG"], plain["SG"]), *((adapt, smooth) for _, smooth, adapt in others)]


def _findings(records: Sequence[Row], plain: Mapping[str, str], draws: Sequence[int]) -> Iterator[str]:
    sparseness = {name: np.array(column(mine, "sparseness")) for (name,), mine in groups(records, "method").items()}
    for first, second in _pairs(plain):
        gains = sparseness[first] - sparseness[second]
        means = f"{sparseness[first].mean():.4f} against {sparseness[second].mean():.4f}"
        higher = f"higher for {(gains > 0).sum()} of {len(gains)} pictures"
        yield f"Sparseness of {first} against {second}: {means}, {higher}."
    for name in ("SG", "AG"):
        found = (mean(column(of(records, method=_drawn(name, n)), "relative_error")) for n in draws)
        errors = ", ".join(f"{n}: {error:.3f}" for n, error in zip(draws, found, strict=True))
        yield f"Mean relative error of {name} by the number of draws: {errors}."


EXPERIMENT = Experiment(
    "maps of photographs by a pretrained network: methods, draws, confidences, combinations",
    run,
    {
        "network": "photographs",
        "num_images": 2,
        "draws": (2, 4, 8),
        "num_draws": 4,
        "confidences": (0.95, 0.999),
        "noise_std": 0.02,
        "num_steps": 2,
        "inner_draws": 2,
        "image_size": 96,
    },
)
