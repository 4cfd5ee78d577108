"""NoiseGrad's figure 4, with numbers: where maps point at each level of weight noise, alone and with input noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from lightning_xai.evaluation import Evaluation, evaluate, evaluation_rows
from lightning_xai.experiments.compare import CONTROLS, compare_methods
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab, described
from lightning_xai.experiments.runs import Run
from lightning_xai.explainers import Explainer, PerturbWeights, RangeScale, Saliency, Smooth, with_controls
from lightning_xai.metrics import LocalisationAUROC, RelevanceRankAccuracy
from lightning_xai.reporting.comparison import Comparison, MetricComparison
from lightning_xai.reporting.noise_level import INPUT_FRACTION, NoiseLevel, level_lines
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.reproduction import Reproduction
from lightning_xai.reporting.weight_noise_figures import NoiseCurve, NoiseGrid, curves_figure, grids_figure
from lightning_xai.results.scores import GRADIENTS
from lightning_xai.results.tables import ResultTable
from lightning_xai.statistics.means import mean_and_error

SOURCE = "NoiseGrad (Bykov et al. 2022, arXiv 2106.10185), figure 4: maps against the weight noise, CMNIST"
PUBLISHED = (0.2, 0.4)
"""Where the maps look best, and where the heuristic's level is too (figure 4 and the text beside it)."""
METRICS = {"rank accuracy": RelevanceRankAccuracy, "AUROC": LocalisationAUROC}
CURVE_NOTE = (
    "Mean ± standard error over the samples. *: best, or not significantly worse than the best level (Wilcoxon "
    "signed-rank, Holm's correction, 5 %). The paper shows maps, which improve up to a noise of 0.4, and no numbers; "
    "its heuristic's level is between 0.2 and 0.4."
)


def run(
    lab: Lab,
    network: str = "cmnist_resnet9",
    levels: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    grid_levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4),
    fractions: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3),
    num_samples: int = 256,
    num_draws: int = 10,
    num_shown: int = 4,
    level_samples: int = 1000,
    mask: str = "box",
    changes: dict[str, Any] | None = None,
) -> Reproduction:
    """Localisation of NoiseGrad at each level of weight noise, and of FusionGrad at pairs of weight and input noise.

    Args:
        lab: See `Lab`.
        network: Name of a configuration whose data have masks.
        levels: Of weight noise, relative to each weight; level 0 is added.
        grid_levels: Of weight noise in the grid; level 0 is added.
        fractions: Of input noise in the grid, relative to the range of each image; 0 is added.
        num_samples: Test samples.
        num_draws: Of weight noise and of input noise; where both are combined it is squared.
        num_shown: Samples whose maps are shown.
        level_samples: Validation samples for the heuristic's level.
        mask: Where the evidence is.
        changes: Values that replace the configuration's, by dotted name.
    """
    lab.require([network], changes, [mask])
    found = lab.network(network, changes)
    samples = lab.samples(found, num_samples, mask=mask)
    chosen = lab.noise_level(found, level_samples)
    levels, grid_levels, fractions = (tuple(sorted({0.0, *part})) for part in (levels, grid_levels, fractions))
    pairs = noise_pairs(levels, grid_levels, fractions, chosen)
    evaluation = evaluate(
        found.model,
        samples.images,
        samples.labels,
        with_controls({name: method_at(*pair, num_draws) for name, pair in pairs.items()}),
        {name: metric() for name, metric in METRICS.items()},
        samples.masks,
        bounds=found.bounds,
        index=samples.index,
        seed=lab.seed,
        precision=lab.precision,
        keep_attributions=num_shown,
        progress=lab.progress,
    )
    curve = [name for name, (std, fraction) in pairs.items() if not fraction and (std in levels or std == chosen.std)]
    best_level, best_pair = (_compared(evaluation, names, lab.seed) for names in (curve, list(pairs)))
    heuristic = _names(chosen)
    records = {
        "scores": _records(evaluation, pairs),
        "level": [{"std": chosen.std, "low": chosen.low, "high": chosen.high, "drop": chosen.drop}],
        "accuracy": [
            {"std": point.std, "drop": point.drop, "standard_error": point.standard_error} for point in chosen.points
        ],
    }
    settings = {"precision": lab.precision, "num_draws": num_draws, "num_samples": len(samples.images), "mask": mask}
    return Reproduction(
        SOURCE,
        (
            _curve_table(best_level, pairs, heuristic.get("NG")),
            *(_grid_table(evaluation, name, grid_levels, fractions) for name in METRICS),
        ),
        records,
        _shown(evaluation, curve, found.data),
        {"networks": described({network: found}), "seed": lab.seed, **settings},
        (*level_lines(chosen)[:2], *_findings(best_level, best_pair, heuristic)),
    )


def method_at(std: float, fraction: float, num_draws: int) -> Explainer:
    """Saliency, SmoothGrad, NoiseGrad or FusionGrad, by which noise there is."""
    smooth = Smooth(Saliency(), RangeScale(fraction), num_draws) if fraction else Saliency()
    return PerturbWeights(smooth, std, num_draws) if std else smooth


def noise_pairs(
    levels: Sequence[float], grid_levels: Sequence[float], fractions: Sequence[float], chosen: NoiseLevel
) -> dict[str, tuple[float, float]]:
    """Weight noise and input noise of all methods, by their names: of curve, grid and heuristics."""
    pairs = {(std, 0.0) for std in levels} | {(std, fraction) for std in grid_levels for fraction in fractions}
    if chosen.reached:
        pairs |= {(chosen.std, 0.0), (chosen.std / 2, INPUT_FRACTION / 2)}
    pairs |= {(0.0, INPUT_FRACTION)}
    return {_name(*pair): pair for pair in sorted(pairs)}


def _name(std: float, fraction: float) -> str:
    return f"weights {std:.4g}, inputs {fraction:.4g}"


def _names(chosen: NoiseLevel) -> dict[str, str]:
    """What the paper's heuristics choose; without weight noise, where its level was not reached."""
    names = {"Baseline": _name(0.0, 0.0), "SG": _name(0.0, INPUT_FRACTION)}
    if chosen.reached:
        names |= {"NG": _name(chosen.std, 0.0), "FG": _name(chosen.std / 2, INPUT_FRACTION / 2)}
    return names


def _compared(evaluation: Evaluation, names: Sequence[str], seed: int) -> Comparison:
    rows = [row for row in evaluation_rows(evaluation, "test", 0, 0) if row.method in (*names, *CONTROLS)]
    return compare_methods([Run("", rows, dict(evaluation.higher_is_better))], seed=seed, procedure="published")


def _records(evaluation: Evaluation, pairs: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    records = []
    for row in evaluation_rows(evaluation, "test", 0, 0):
        std, fraction = pairs.get(row.method, (math.nan, math.nan))
        noise = {"weight_noise": std, "input_noise": fraction}
        records.append({"method": row.method, **noise, "metric": row.metric, "sample": row.sample, "value": row.value})
    return records


def _shown(evaluation: Evaluation, curve: Sequence[str], data: Any) -> dict[str, np.ndarray]:
    """What the figure with maps shows: by level of weight noise, without input noise."""
    low, high = data.bounds
    masks = torch.zeros(0) if evaluation.masks is None else evaluation.masks
    parts = {"images": evaluation.images, "masks": masks, "low": low, "high": high}
    parts |= {"target": evaluation.target, "predicted": evaluation.predicted}
    parts |= {name: evaluation.attributions[name] for name in curve}
    return {name: part.cpu().numpy() for name, part in parts.items()} | {"classes": np.array(data.class_names)}


# Tables and findings


def _curve_table(comparison: Comparison, pairs: Mapping[str, tuple[float, float]], chosen: str | None) -> ResultTable:
    metrics = comparison.metrics
    rows = []
    for name in comparison.methods:
        noise = f"{pairs[name][0]:.4g}" + (" (heuristic)" if name == chosen else "") if name in pairs else name
        results = [next(r for r in metric.methods if r.method == name) for metric in metrics]
        cells = (mean_and_error(r.values) + (" *" if r.is_best else "") for r in results)
        published = "best by eye" if name in pairs and PUBLISHED[0] <= pairs[name][0] <= PUBLISHED[1] else ""
        rows.append((noise, f"{comparison.gradients[name]:g}", *cells, published))
    columns = ("weight noise", GRADIENTS, *(metric.metric for metric in metrics), "published")
    return ResultTable("Localisation against the weight noise", columns, tuple(rows), (CURVE_NOTE,))


def _grid_table(
    evaluation: Evaluation, metric: str, grid_levels: Sequence[float], fractions: Sequence[float]
) -> ResultTable:
    rows = tuple(
        (f"{std:g}", *(mean_and_error(evaluation.scores[_name(std, f)][metric].numpy()) for f in fractions))
        for std in grid_levels
    )
    columns = ("weight noise", *(f"input noise {fraction:g}" for fraction in fractions))
    return ResultTable(f"{metric} of FusionGrad", columns, rows)


def _findings(best_level: Comparison, best_pair: Comparison, heuristic: Mapping[str, str]) -> list[str]:
    lines = []
    for what, comparison in (("weight noise alone", best_level), ("weight and input noise", best_pair)):
        for metric in comparison.metrics:
            best = next(result for result in metric.methods if result.rank == 1)
            spent = f"{comparison.gradients[best.method]:g} gradients"
            lines.append(f"{metric.metric}, {what}: best at {best.method}, {best.mean:.4f} ({spent}).")
            lines += [
                _against(metric, kind, name, comparison.gradients[name])
                for kind, name in heuristic.items()
                if name in comparison.methods
            ]
    return lines


def _against(metric: MetricComparison, kind: str, name: str, num_gradients: float) -> str:
    """A choice of the heuristics against the best."""
    result = next(result for result in metric.methods if result.method == name)
    if result.rank == 1:
        return f"{kind} ({name}) is the best itself."
    worse = "not significantly worse" if result.is_best else "significantly worse"
    return f"{kind} ({name}; {num_gradients:g} gradients) has {result.mean:.4f}: {worse} (p = {result.p_holm:.2g})."


# Figures


def figures(result: Reproduction) -> Mapping[str, Figure]:
    """The curves, the grid, and the maps."""
    scores = _scores(result)
    (level,) = result.records["level"]
    chosen = (level["std"], level["low"], level["high"])
    floors = {name: {metric: scores[name, metric] for metric in METRICS} for name in CONTROLS}
    noises = sorted({key[0] for key in scores if isinstance(key[0], tuple)})
    grid_levels = sorted(
        {std for std, fraction in noises if fraction and (std, fraction) != _half(level["std"])} | {0.0}
    )
    fractions = sorted({fraction for std, fraction in noises if std and (std, fraction) != _half(level["std"])})
    curves, grids = [], []
    for metric in METRICS:
        stds = sorted(std for std, fraction in noises if not fraction)
        curves.append(
            NoiseCurve(
                metric,
                np.array(stds),
                [scores[(std, 0.0), metric] for std in stds],
                {name: float(np.nanmean(values[metric])) for name, values in floors.items()},
            )
        )
        cells = [[float(np.nanmean(scores[(std, f), metric])) for f in fractions] for std in grid_levels]
        half = scores.get((_half(level["std"]), metric))
        mean = None if half is None else float(np.nanmean(half))
        grids.append(NoiseGrid(metric, np.array(grid_levels), np.array(fractions), np.array(cells), mean))
    return {
        "noisegrad-figure4-curves": curves_figure(curves, chosen, PUBLISHED),
        "noisegrad-figure4-grid": grids_figure(grids, _half(level["std"])),
        "noisegrad-figure4-maps": _maps_figure(result, level["std"]),
    }


def _half(std: float) -> tuple[float, float]:
    """FusionGrad's choice."""
    return std / 2, INPUT_FRACTION / 2


def _scores(result: Reproduction) -> dict[tuple[Any, str], np.ndarray]:
    """Of each pair of noises, or control, in each metric."""
    lists: dict[tuple[Any, str], list[float]] = {}
    for record in result.records["scores"]:
        noise = (record["weight_noise"], record["input_noise"])
        key = record["method"] if math.isnan(noise[0]) else noise
        lists.setdefault((key, record["metric"]), []).append(record["value"])
    return {key: np.array(values) for key, values in lists.items()}


def _maps_figure(result: Reproduction, chosen: float) -> Figure:
    arrays = {name: torch.from_numpy(part) for name, part in result.arrays.items() if name != "classes"}
    classes = [str(name) for name in result.arrays["classes"]]
    noises = {r["method"]: r["weight_noise"] for r in result.records["scores"] if r["method"] in result.arrays}
    titles = {name: f"{std:.3g}" + (" ★" if std == chosen else "") for name, std in noises.items()}
    return attribution_panel(
        arrays["images"],
        {titles[name]: arrays[name] for name in noises},
        (arrays["low"], arrays["high"]),
        arrays["masks"],
        [classes[number] for number in arrays["target"].tolist()],
        [classes[number] for number in arrays["predicted"].tolist()],
        "NoiseGrad at rising weight noise; ★: the heuristic's level",
    )


EXPERIMENT = Experiment(
    "localisation and maps against the weight noise, and the grid of weight and input noise, on CMNIST",
    run,
    {
        "network": "cmnist_lenet",
        "levels": (0.1, 0.2, 0.4),
        "grid_levels": (0.2,),
        "fractions": (0.1,),
        "num_samples": 16,
        "num_draws": 3,
        "num_shown": 2,
        "level_samples": 200,
    },
    figures,
)
