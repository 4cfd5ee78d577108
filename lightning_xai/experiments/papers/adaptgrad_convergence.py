"""AdaptGrad's figures 2, 4 and 5: maps and their Monte-Carlo error against the number of draws, and maps against the
noise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_xai.evaluation import evaluate, explain
from lightning_xai.experiments.papers.adaptgrad_table1 import FAST_NETWORK
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.explainers import Explainer, Gradient, Smooth, adapt_grad, smooth_grad
from lightning_xai.explainers.base import Context, check_count, resolve_target
from lightning_xai.explainers.precision import in_precision
from lightning_xai.functional.random import fold_in_int
from lightning_xai.metrics import InherentNoise, Sparseness
from lightning_xai.reporting.curves import Curve, CurveAxes, curves_figure
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.tables import ResultTable
from lightning_xai.sanity.invariance import relative_difference
from lightning_xai.sanity.similarity import spearman
from lightning_xai.shapes import Images, Labels
from lightning_xai.statistics.means import mean_and_error, mean_and_standard_error
from lightning_xai.studies.lab import Lab, described
from lightning_xai.studies.photographs import photographs, pretrained_network

SOURCE = "AdaptGrad (Zhou et al. 2024, arXiv 2410.07711), figures 2, 4 and 5: the number of draws and the confidence"
PHOTOGRAPHS = "photographs"
_BATCH = 16
_ENOUGH = 0.1
"""The relative error that the draws are counted for."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Examined:
    """A network with images of which it is explained.

    Attributes:
        target: The class that the network predicts.
        index: The noise depends on it.
    """

    model: nn.Module
    images: Images
    target: Labels
    index: Labels
    bounds: tuple[Tensor, Tensor]

    def maps(self, method: Explainer, seed: int) -> Images:
        """Attributions on the CPU."""
        options: dict[str, Any] = {"bounds": self.bounds, "seed": seed}
        return torch.cat(
            [
                explain(self.model, self.images[rows], self.target[rows], method, index=self.index[rows], **options)
                for rows in _batches(len(self.images))
            ]
        ).cpu()

    def moments(self, method: Smooth, seed: int) -> tuple[Images, Images]:
        """Mean and variance over the draws, on the CPU."""
        parts = []
        for rows in _batches(len(self.images)):
            context = Context.create(self.index[rows], seed, self.bounds, device=self.images.device)
            moments = method.moments(self.model, self.images[rows], self.target[rows], context)
            parts.append((moments.mean.cpu(), moments.variance.cpu()))
        means, variances = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(variances)


def run(
    lab: Lab,
    networks: tuple[str, ...] = ("mnist_mlp", "cmnist_lenet"),
    num_samples: int = 32,
    num_shown: int = 4,
    draws: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200),
    reference_draws: int = 2000,
    num_draws: int = 50,
    fraction: float = 0.2,
    confidence: float = 0.95,
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4),
    confidences: tuple[float, ...] = (0.5, 0.8, 0.95, 0.99, 0.995, 0.999),
    changes: dict[str, Any] | None = None,
    weights: str | None = None,
    architecture: str = "vgg16",
) -> Reproduction:
    """How fast SmoothGrad and AdaptGrad converge, and to what.

    Args:
        lab: See `Lab`.
        networks: Names of configurations.
        num_samples: Test images of each.
        num_shown: Of which maps are shown.
        draws: Numbers of draws whose error is measured, two or more.
        reference_draws: Of the independent run that they are compared with.
        num_draws: Of the maps against the noise.
        fraction: SmoothGrad's noise over the range of the data, against the number of draws.
        confidence: AdaptGrad's, against the number of draws.
        fractions: SmoothGrad's noise that maps are shown of.
        confidences: AdaptGrad's, that maps are shown of; the higher, the less noise.
        changes: Values that replace the configurations', by dotted name.
        weights: Of a pretrained network, a file with its state dict or the name of torchvision's, such as DEFAULT:
            then photographs are explained too.
        architecture: Name of this network in torchvision, or of its configuration.
    """
    check_count("reference_draws", reference_draws)
    if len(set(draws)) < 2 or min(draws) < 1:
        raise ValueError(f"`draws` must be two different numbers or more, all at least 1; got {draws}.")
    pretrained = {} if weights is None else {PHOTOGRAPHS: _photographed(lab, weights, architecture, num_samples)}
    found = {name: lab.network(name, changes) for name in networks}
    examined = {name: _examined(lab, network, num_samples) for name, network in found.items()} | pretrained
    smoothers = {"SG": smooth_grad(fraction=fraction, of="data"), "AG": adapt_grad(confidence=confidence)}
    levels = level_methods(fractions, confidences, num_draws)
    errors: list[Row] = []
    scores: list[Row] = []
    arrays: dict[str, np.ndarray] = {}
    for name, subject in examined.items():
        with in_precision(subject.model, lab.precision):
            rows, shown = error_rows(subject, smoothers, sorted(set(draws)), reference_draws, lab.seed)
            more, noisy = level_rows(subject, levels, lab.seed)
        errors += [{"network": name, **row} for row in rows]
        scores += [{"network": name, **row} for row in more]
        arrays |= {f"{name}-{what}": value for what, value in _pictures(subject, shown, noisy, num_shown).items()}
    tables = (_slope_table(errors, weights), *(_error_table(errors, name) for name in examined), _level_table(scores))
    settings = {
        "networks": described(found),
        "weights": None if weights is None else f"{architecture}: {weights}",
        "reference_draws": reference_draws,
        "num_draws": num_draws,
        "fraction": fraction,
        "confidence": confidence,
        "columns": {"draws": list(shown), "noise": list(noisy)},
        "precision": lab.precision,
        "seed": lab.seed,
    }
    records = {"errors": errors, "noise": scores}
    return Reproduction(SOURCE, tables, records, arrays, settings, tuple(_findings(errors)))


def level_methods(fractions: Sequence[float], confidences: Sequence[float], num_draws: int) -> dict[str, Explainer]:
    """The gradient, SmoothGrad by its noise and AdaptGrad by its confidence, in order of the noise."""
    smooth = {f"SG {f:g}": smooth_grad(fraction=f, num_draws=num_draws, of="data") for f in sorted(fractions)}
    adapt = {f"AG {c:g}": adapt_grad(confidence=c, num_draws=num_draws) for c in sorted(confidences, reverse=True)}
    return {"Grad": Gradient(), **smooth, **adapt}


def error_rows(
    subject: Examined, smoothers: Mapping[str, Smooth], draws: Sequence[int], reference_draws: int, seed: int
) -> tuple[list[Row], dict[str, Images]]:
    """The distance of the maps from an independent reference over the reference's length, for each number of draws,
    with what the variance over the draws predicts, √(Σ variance (1/draws + 1/reference draws)); and the maps."""
    rows, shown = [], {}
    for name, smoother in smoothers.items():
        reference, variance = subject.moments(_with_draws(smoother, reference_draws), fold_in_int(seed, 1))
        length, spread = reference.double().flatten(1).norm(dim=1), variance.double().flatten(1).sum(1)
        for number in draws:
            maps = subject.maps(_with_draws(smoother, number), seed)
            shown[f"{name} {number}"] = maps
            fixed = {"method": name, "draws": number, "reference_draws": reference_draws}
            predicted = (spread * (1 / number + 1 / reference_draws)).sqrt() / length
            columns = subject.index.tolist(), relative_difference(reference, maps).tolist(), predicted.tolist()
            rows += [
                {**fixed, "sample": i, "error": error, "predicted": expected}
                for i, error, expected in zip(*columns, strict=True)
            ]
        shown[f"{name} {reference_draws}"] = reference
    return rows, shown


def level_rows(subject: Examined, methods: Mapping[str, Explainer], seed: int) -> tuple[list[Row], dict[str, Images]]:
    """Inherent noise, sparseness, and how far the maps are from the gradient; and the maps."""
    metrics = {"inherent_noise": InherentNoise(), "sparseness": Sparseness()}
    images, target, number = subject.images, subject.target, len(subject.images)
    options: dict[str, Any] = {"bounds": subject.bounds, "index": subject.index, "seed": seed, "batch_size": _BATCH}
    found = evaluate(subject.model, images, target, methods, metrics, keep_attributions=number, **options)
    maps = found.attributions
    rows = []
    for name in methods:
        columns = {metric: found.scores[name][metric].tolist() for metric in metrics}
        columns["distance"] = relative_difference(maps["Grad"], maps[name]).tolist()
        columns["spearman"] = spearman(maps["Grad"], maps[name]).tolist()
        rows += [
            {"method": name, "sample": sample, **dict(zip(columns, values, strict=True))}
            for sample, *values in zip(subject.index.tolist(), *columns.values(), strict=True)
        ]
    return rows, maps


def slopes(rows: Sequence[Mapping[str, Any]]) -> Float64[np.ndarray, " samples"]:
    """Of each sample, the slope of log error against log n, n = 1 / (1/draws + 1/reference draws): -1/2 by theory.

    Fitted by least squares. The reference's own error is counted in n.
    """
    found = []
    for sample in dict.fromkeys(row["sample"] for row in rows):
        mine = [row for row in rows if row["sample"] == sample and row["error"] > 0]
        n = [1 / (1 / row["draws"] + 1 / row["reference_draws"]) for row in mine]
        slope = np.polyfit(np.log(n), np.log([row["error"] for row in mine]), 1)[0] if len(mine) > 1 else math.nan
        found.append(slope)
    return np.array(found, dtype=np.float64)


def draws_for(rows: Sequence[Mapping[str, Any]], error: float = _ENOUGH) -> int:
    """The draws that the variance asks for to reach a relative error: the median over samples, rounded up."""
    least = min(row["draws"] for row in rows)
    each = [
        (row["predicted"] / error) ** 2 / (1 / row["draws"] + 1 / row["reference_draws"])
        for row in rows
        if row["draws"] == least
    ]
    return max(1, math.ceil(np.median(each)))


def _with_draws(smoother: Smooth, number: int) -> Smooth:
    return Smooth(smoother.explainer, smoother.scale, number)


def _examined(lab: Lab, network: Any, number: int) -> Examined:
    samples = lab.samples(network, number)
    target = resolve_target(network.model, samples.images, None)
    return Examined(network.model, samples.images, target, samples.index, network.data.bounds)


def _photographed(lab: Lab, weights: str, architecture: str, number: int) -> Examined:
    network = pretrained_network(lab, architecture, weights)
    seen = photographs(lab, network, number=number)
    return Examined(network.model, seen.images, seen.target, seen.index, network.bounds)


def _pictures(
    subject: Examined, shown: Mapping[str, Images], noisy: Mapping[str, Images], number: int
) -> dict[str, np.ndarray]:
    low, high = subject.bounds
    stacked = {"draws": shown, "noise": noisy}
    return {
        "images": subject.images[:number].cpu().numpy(),
        "low": low.cpu().numpy(),
        "high": high.cpu().numpy(),
        **{what: torch.stack([part[:number] for part in maps.values()]).numpy() for what, maps in stacked.items()},
    }


def _batches(length: int) -> Iterator[slice]:
    return (slice(start, start + _BATCH) for start in range(0, length, _BATCH))


# Tables


def _slope_table(errors: Sequence[Row], weights: str | None) -> ResultTable:
    rows = [
        (
            network,
            method,
            mean_and_error(slopes(mine), 3),
            "-0.500",
            str(draws_for(mine)),
            str(draws_for(mine, 0.01)),
        )
        for (network, method), mine in _groups(errors, "network", "method").items()
    ]
    notes = [
        "Slope of log error against log draws, mean ± standard error over images. Draws: median over images, from the"
        " variance over the draws. The paper shows maps of photographs and prints no numbers.",
    ]
    if weights is None:
        notes.append(
            "Photographs are left out: a network without pretrained weights has nothing to explain. `--weights FILE`"
            " takes those of a torchvision network, `--weights DEFAULT` downloads them."
        )
    columns = ("network", "method", "slope", "theory", "draws for 10 % error", "for 1 %")
    return ResultTable("Monte-Carlo error", columns, tuple(rows), tuple(notes))


def _error_table(errors: Sequence[Row], network: str) -> ResultTable:
    mine = _groups([row for row in errors if row["network"] == network], "method", "draws")
    methods = list(dict.fromkeys(method for method, _ in mine))
    columns = ["draws"]
    for method in methods:
        columns += [method, f"{method}, predicted"]
    rows = []
    for number in dict.fromkeys(number for _, number in mine):
        cells = [str(number)]
        for method in methods:
            found = mine[method, number]
            cells += [mean_and_error([row["error"] for row in found]), f"{_mean(found, 'predicted'):.4f}"]
        rows.append(tuple(cells))
    title = f"Relative error of the maps against an independent run of {errors[0]['reference_draws']} draws: {network}"
    return ResultTable(title, tuple(columns), tuple(rows))


def _level_table(scores: Sequence[Row]) -> ResultTable:
    shown = ("inherent_noise", "distance", "spearman", "sparseness")
    rows = tuple(
        (network, method, *(mean_and_error([row[what] for row in mine]) for what in shown))
        for (network, method), mine in _groups(scores, "network", "method").items()
    )
    columns = ("network", "method", "inherent noise", "distance from Grad", "Spearman with Grad", "sparseness")
    notes = ("SG by its fraction of the range, AG by its confidence. Distance: relative to the gradient's length.",)
    return ResultTable("Maps against the noise", columns, rows, notes)


def _groups(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _mean(rows: Sequence[Row], what: str) -> float:
    return mean_and_standard_error([row[what] for row in rows])[0]


def _findings(errors: Sequence[Row]) -> Iterator[str]:
    for network, mine in _groups(errors, "network").items():
        parts = []
        for (method,), rows in _groups(mine, "method").items():
            slope, error = mean_and_standard_error(slopes(rows))
            needed = f"draws for an error of {_ENOUGH:.0%}: {draws_for(rows)}"
            parts.append(f"{method} slope {slope:.3f} ± {error:.3f}, {needed}")
        yield f"{network[0]}: {'; '.join(parts)}."


# Figures


def figures(result: Reproduction) -> Mapping[str, Figure]:
    """Error against draws, and maps against draws and noise."""
    errors = [dict(row) for row in result.records["errors"]]
    drawn = {"adaptgrad-convergence": _error_figure(errors)}
    for network in dict.fromkeys(row["network"] for row in errors):
        for what, title in {"draws": "the number of draws", "noise": "the noise"}.items():
            names = result.settings["columns"][what]
            drawn[f"adaptgrad-maps-{what}-{network}"] = _panel(result.arrays, network, what, names, title)
    return drawn


def _error_figure(errors: Sequence[Row]) -> Figure:
    panels = []
    for (network,), mine in _groups(errors, "network").items():
        curves = []
        for (method,), rows in _groups(mine, "method").items():
            groups = _groups(rows, "draws")
            x = [float(number) for (number,) in groups]
            measured = [mean_and_standard_error([row["error"] for row in found]) for found in groups.values()]
            means, deviations = map(list, zip(*measured, strict=True))
            slope = mean_and_error(slopes(rows), 3)
            predicted = [_mean(found, "predicted") for found in groups.values()]
            curves.append(Curve(f"{method}, slope {slope}", (x, predicted), (x, means), deviations))
        options = {"xscale": "log", "yscale": "log"}
        panels.append(CurveAxes(network, "draws", "relative error", curves, options))
    notes = [
        f"Against an independent run of {errors[0]['reference_draws']} draws. Dots: measured, mean and standard error"
        " over images. Lines: predicted from the variance over the draws, slope -1/2 but for the reference's own error."
    ]
    return curves_figure("Monte-Carlo error", panels, notes)


def _panel(arrays: Mapping[str, np.ndarray], network: str, what: str, names: Sequence[str], title: str) -> Figure:
    images, low, high, maps = (
        torch.from_numpy(arrays[f"{network}-{part}"]) for part in ("images", "low", "high", what)
    )
    return attribution_panel(
        images, dict(zip(names, maps, strict=True)), (low, high), title=f"Maps against {title}: {network}"
    )


EXPERIMENT = Experiment(
    "error and maps against draws, maps against noise",
    run,
    {
        "networks": ("mnist_mlp",),
        "num_samples": 12,
        "num_shown": 2,
        "draws": (1, 4, 16, 64),
        "reference_draws": 400,
        "num_draws": 10,
        "changes": FAST_NETWORK,
    },
    figures,
)
