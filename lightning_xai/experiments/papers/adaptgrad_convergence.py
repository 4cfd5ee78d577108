"""AdaptGrad's figures 2, 4 and 5: maps and their Monte-Carlo error against the number of draws, and maps against the
noise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_xai.evaluation import evaluate
from lightning_xai.experiments.papers.adaptgrad_table1 import FAST_NETWORK
from lightning_xai.experiments.papers.experiment import (
    Experiment,
    Found,
    Row,
    column,
    groups,
    means_table,
    of,
    rows_of,
)
from lightning_xai.explainers import Explainer, Gradient, Smooth, adapt_grad, smooth_grad
from lightning_xai.explainers.base import Context, check_count, explaining, resolve_target
from lightning_xai.explainers.precision import in_precision
from lightning_xai.functional.moments import Moments
from lightning_xai.functional.random import fold_in_int
from lightning_xai.metrics import InherentNoise, Sparseness
from lightning_xai.reporting.charts import Curve, CurveAxes, curves_figure
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.tables import ResultTable
from lightning_xai.sanity.invariance import relative_difference
from lightning_xai.sanity.similarity import spearman
from lightning_xai.shapes import Images, Labels
from lightning_xai.statistics.means import mean, mean_and_error, mean_and_standard_error
from lightning_xai.studies.lab import Lab, described
from lightning_xai.studies.subjects import PretrainedNetwork, photographs, pretrained_network

SOURCE = "AdaptGrad (Zhou et al. 2024, arXiv 2410.07711), figures 2, 4 and 5: the number of draws and the confidence"
_ENOUGH = 0.1
"""The relative error that the draws are counted for."""


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

    def converging(self, smoother: Smooth, draws: Sequence[int], seed: int) -> Iterator[tuple[int, Moments]]:
        """The moments over these rising numbers of draws, one after the other; one object that grows."""
        context = Context.create(self.index, seed, self.bounds, device=self.images.device)
        moments = Moments()
        for number in draws:
            with explaining(self.model):
                for block in smoother.draws(
                    self.model, self.images, self.target, context, range(int(moments.count), number)
                ):
                    moments.add(block)
            yield number, moments


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
) -> Found:
    """How fast SmoothGrad and AdaptGrad converge, and to what.

    Args:
        lab: See `Lab`.
        networks: Names of configurations.
        num_samples: Test images of each.
        num_shown: Number of images of which maps are shown.
        draws: Numbers of draws whose error is measured, two or more.
        reference_draws: Draws of the independent run that they are compared with.
        num_draws: Number of draws of the maps against the noise.
        fraction: SmoothGrad's noise over the range of the data, against the number of draws.
        confidence: AdaptGrad's, against the number of draws.
        fractions: SmoothGrad's noise that maps are shown of.
        confidences: AdaptGrad's, that maps are shown of; the higher, the less noise.
        changes: Values that replace the configurations', by dotted name.
        weights: Weights of a pretrained network, a file with its state dict or the name of torchvision's, such as
            DEFAULT: then photographs are explained too.
        architecture: Name of this network in torchvision, or of its configuration.
    """
    check_count("reference_draws", reference_draws)
    if len(draws) < 2 or len(set(draws)) < len(draws) or min(draws) < 1:
        raise ValueError(f"`draws` must be two numbers or more, each once and at least 1; got {draws}.")
    photographed = {} if weights is None else {"photographs": pretrained_network(lab, architecture, weights)}
    found = {name: lab.network(name, changes) for name in networks} | photographed
    smoothers = {"SG": smooth_grad(fraction=fraction, of="data"), "AG": adapt_grad(confidence=confidence)}
    levels = level_methods(fractions, confidences, num_draws)
    errors, scores = list[Row](), list[Row]()
    arrays: dict[str, np.ndarray] = {}
    figures: dict[str, Figure] = {}
    for name, network in found.items():
        subject = _examined(lab, network, num_samples)
        with in_precision(subject.model, lab.precision):
            rows, drawn = error_rows(subject, smoothers, sorted(draws), reference_draws, lab.seed)
            more, noisy = level_rows(subject, levels, lab.seed)
        errors += [{"network": name, **row} for row in rows]
        scores += [{"network": name, **row} for row in more]
        low, high = (bound.cpu() for bound in subject.bounds)
        images = subject.images[:num_shown].cpu()
        arrays |= {f"{name}-images": images.numpy(), f"{name}-low": low.numpy(), f"{name}-high": high.numpy()}
        for what, title, maps in (("draws", "the number of draws", drawn), ("noise", "the noise", noisy)):
            shown = {method: part[:num_shown] for method, part in maps.items()}
            arrays[f"{name}-{what}"] = np.stack([part.numpy() for part in shown.values()])
            figures[f"adaptgrad-maps-{what}-{name}"] = attribution_panel(
                images, shown, (low, high), title=f"Maps against {title}: {name}"
            )
    result = Reproduction(
        SOURCE,
        (_slope_table(errors, weights), _error_table(errors), _level_table(scores)),
        {"errors": errors, "noise": scores},
        arrays,
        {
            "networks": described({name: found[name] for name in networks}),
            "weights": None if weights is None else f"{architecture}: {weights}",
            "reference_draws": reference_draws,
            "num_draws": num_draws,
            "fraction": fraction,
            "confidence": confidence,
            "columns": {"draws": list(drawn), "noise": list(noisy)},
            "precision": lab.precision,
            "seed": lab.seed,
        },
        tuple(_findings(errors)),
    )
    return result, {"adaptgrad-convergence": _error_figure(errors), **figures}


def level_methods(fractions: Sequence[float], confidences: Sequence[float], num_draws: int) -> dict[str, Explainer]:
    """The gradient, SmoothGrad by its noise and AdaptGrad by its confidence, in order of the noise."""
    return {
        "Grad": Gradient(),
        **{f"SG {f:g}": smooth_grad(fraction=f, num_draws=num_draws, of="data") for f in sorted(fractions)},
        **{f"AG {c:g}": adapt_grad(confidence=c, num_draws=num_draws) for c in sorted(confidences, reverse=True)},
    }


def error_rows(
    subject: Examined, smoothers: Mapping[str, Smooth], draws: Sequence[int], reference_draws: int, seed: int
) -> tuple[list[Row], dict[str, Images]]:
    """The distance of the maps from an independent reference over the reference's length, for each number of draws,
    with what the variance over the draws predicts, √(Σ variance (1/draws + 1/reference draws)); and the maps."""
    rows, shown = list[Row](), dict[str, Images]()
    for name, smoother in smoothers.items():
        ((_, whole),) = subject.converging(smoother, [reference_draws], fold_in_int(seed, 1))
        reference, spread = whole.mean.cpu(), whole.variance.cpu().double().flatten(1).sum(1)
        length = reference.double().flatten(1).norm(dim=1)
        for number, moments in subject.converging(smoother, draws, seed):
            maps = shown[f"{name} {number}"] = moments.mean.cpu()
            rows += rows_of(
                {"method": name, "draws": number, "reference_draws": reference_draws},
                sample=subject.index,
                error=relative_difference(reference, maps),
                predicted=(spread * (1 / number + 1 / reference_draws)).sqrt() / length,
            )
        shown[f"{name} {reference_draws}"] = reference
    return rows, shown


def level_rows(subject: Examined, methods: Mapping[str, Explainer], seed: int) -> tuple[list[Row], dict[str, Images]]:
    """Inherent noise, sparseness, and how far the maps are from the gradient; and the maps."""
    metrics = {"inherent_noise": InherentNoise(), "sparseness": Sparseness()}
    found = evaluate(
        subject.model,
        subject.images,
        subject.target,
        methods,
        metrics,
        bounds=subject.bounds,
        index=subject.index,
        seed=seed,
        batch_size=_BATCH,
        keep_attributions=len(subject.images),
    )
    rows = [
        row
        for name, maps in found.attributions.items()
        for row in rows_of(
            {"method": name},
            sample=subject.index,
            **{metric: found.scores[name][metric] for metric in metrics},
            distance=relative_difference(found.attributions["Grad"], maps),
            spearman=spearman(found.attributions["Grad"], maps),
        )
    ]
    return rows, found.attributions


_BATCH = 16


def slopes(rows: Sequence[Row]) -> Float64[np.ndarray, " samples"]:
    """Of each sample, the slope of log error against log n, n = 1 / (1/draws + 1/reference draws): -1/2 by theory.

    Fitted by least squares. The reference's own error is counted in n.
    """
    found = []
    for mine in groups(rows, "sample").values():
        known = [row for row in mine if row["error"] > 0]
        n = [1 / (1 / row["draws"] + 1 / row["reference_draws"]) for row in known]
        slope = np.polyfit(np.log(n), np.log(column(known, "error")), 1)[0] if len(known) > 1 else math.nan
        found.append(slope)
    return np.array(found, dtype=np.float64)


def draws_for(rows: Sequence[Row], error: float = _ENOUGH) -> int:
    """The draws that the variance asks for to reach a relative error: the median over samples, rounded up."""
    fewest = of(rows, draws=min(column(rows, "draws")))
    each = [(row["predicted"] / error) ** 2 / (1 / row["draws"] + 1 / row["reference_draws"]) for row in fewest]
    return max(1, math.ceil(np.median(each)))


def _examined(lab: Lab, network: Any, number: int) -> Examined:
    """Explained for the class that the network predicts."""
    is_pretrained = isinstance(network, PretrainedNetwork)
    samples = photographs(lab, network, number=number)[0] if is_pretrained else lab.samples(network, number)
    target = resolve_target(network.model, samples.images, samples.labels if is_pretrained else None)
    return Examined(network.model, samples.images, target, samples.index, network.bounds)


# Tables


def _slope_table(errors: Sequence[Row], weights: str | None) -> ResultTable:
    rows = [
        (network, method, mean_and_error(slopes(mine), 3), "-0.500", f"{draws_for(mine)}", f"{draws_for(mine, 0.01)}")
        for (network, method), mine in groups(errors, "network", "method").items()
    ]
    notes = (
        "Slope of log error against log draws, mean ± standard error over images. Draws: median over images, from the"
        " variance over the draws. The paper shows maps of photographs and prints no numbers.",
        "Photographs are left out: a network without pretrained weights has nothing to explain. `--weights FILE`"
        " takes those of a torchvision network, `--weights DEFAULT` downloads them.",
    )
    return ResultTable(
        "Monte-Carlo error",
        ("network", "method", "slope", "theory", "draws for 10 % error", "for 1 %"),
        tuple(rows),
        notes if weights is None else notes[:1],
    )


def _error_table(errors: Sequence[Row]) -> ResultTable:
    title = f"Relative error of the maps against an independent run of {errors[0]['reference_draws']} draws"
    shown = {"error": "measured", "predicted": "predicted from the variance"}
    return means_table(title, errors, ("network", "method", "draws"), shown)


def _level_table(scores: Sequence[Row]) -> ResultTable:
    shown = {
        "inherent_noise": "inherent noise",
        "distance": "distance from Grad",
        "spearman": "Spearman with Grad",
        "sparseness": "sparseness",
    }
    note = "SG by its fraction of the range, AG by its confidence. Distance: relative to the gradient's length."
    return means_table("Maps against the noise", scores, ("network", "method"), shown, (note,))


def _findings(errors: Sequence[Row]) -> Iterator[str]:
    for (network,), mine in groups(errors, "network").items():
        parts = (
            f"{method} slope {mean_and_error(slopes(rows), 3)}, draws for an error of {_ENOUGH:.0%}: {draws_for(rows)}"
            for (method,), rows in groups(mine, "method").items()
        )
        yield f"{network}: {'; '.join(parts)}."


# Figures


def _error_figure(errors: Sequence[Row]) -> Figure:
    panels = []
    for (network,), mine in groups(errors, "network").items():
        curves = []
        for (method,), rows in groups(mine, "method").items():
            by_draws = groups(rows, "draws")
            x = [float(number) for (number,) in by_draws]
            measured = [mean_and_standard_error(column(found, "error")) for found in by_draws.values()]
            means, deviations = map(list, zip(*measured, strict=True))
            predicted = [mean(column(found, "predicted")) for found in by_draws.values()]
            slope = mean_and_error(slopes(rows), 3)
            curves.append(Curve(f"{method}, slope {slope}", (x, predicted), (x, means), deviations))
        panels.append(CurveAxes(network, "draws", "relative error", curves, {"xscale": "log", "yscale": "log"}))
    notes = [
        f"Against an independent run of {errors[0]['reference_draws']} draws. Dots: measured, mean and standard error"
        " over images. Lines: predicted from the variance over the draws, slope -1/2 but for the reference's own error."
    ]
    return curves_figure("Monte-Carlo error", panels, notes)


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
)
