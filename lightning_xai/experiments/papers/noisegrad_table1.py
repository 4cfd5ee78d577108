"""NoiseGrad's Table 1: four criteria of four methods on CMNIST, as published and at equal cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from lightning_xai.callbacks.samples import Samples
from lightning_xai.evaluation import evaluate, score_rows
from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.networks import TrainedNetwork
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab, described
from lightning_xai.experiments.runs import Run
from lightning_xai.explainers import Explainer, Gradient, PerturbWeights, RangeScale, Saliency, Smooth, with_controls
from lightning_xai.explainers.recipes import adapt_grad, smooth_grad
from lightning_xai.functional.localisation import auroc, relevance_rank_accuracy
from lightning_xai.metrics import (
    FaithfulnessCorrelation,
    LocalisationAUROC,
    MaxSensitivity,
    RelevanceRankAccuracy,
    SampleMetric,
    Sparseness,
)
from lightning_xai.reporting.comparison import Comparison, MethodResult, MetricComparison
from lightning_xai.reporting.comparison_figures import score_bars
from lightning_xai.reporting.noise_level import INPUT_FRACTION, level_lines
from lightning_xai.reporting.reproduction import Reproduction
from lightning_xai.results.scores import GRADIENTS, ScoreRow
from lightning_xai.results.tables import ARROWS, ResultTable, number_format
from lightning_xai.sanity.cells import Cells
from lightning_xai.statistics.paired import holm, paired_test

SOURCE = "NoiseGrad (Bykov et al. 2022, arXiv 2106.10185), Table 1"
PUBLISHED = {
    "saliency": (0.7315, 0.3413, 0.0763, 0.6272),
    "smooth_grad_10": (0.8263, 0.3465, 0.0590, 0.5310),
    "noise_grad_10": (0.8349, 0.3635, 0.0224, 0.5794),
    "fusion_grad_100": (0.8435, 0.3697, 0.0153, 0.5721),
}
"""Means of localisation, faithfulness, robustness and sparseness."""
CRITERIA = ("relevance_rank_accuracy", "faithfulness_correlation", "max_sensitivity_to_input", "sparseness")
"""The published ones; the robustness printed is divided by the norm of the input, as Quantus did then."""
BOLD = (
    "Mean ± standard error. Bold: the best, and what is not significantly worse (Wilcoxon signed-rank test, Holm, 5 %)."
)


def run(
    lab: Lab,
    network: str = "cmnist_resnet9",
    num_samples: int = 256,
    stds: tuple[float, ...] = (0.2,),
    rule: bool = True,
    costs: tuple[int, ...] = (10, 100),
    num_perturbations: int = 10,
    num_subsets: int = 100,
    rule_samples: int = 1000,
    batch_size: int = 64,
    kept: str | None = None,
    changes: dict[str, Any] | None = None,
) -> Reproduction:
    """Baseline, SmoothGrad, AdaptGrad, NoiseGrad and FusionGrad over |gradient|, and controls.

    FusionGrad takes half of both noises. With the rule's level, methods are named by their cost (`noise_grad_10`); with
    another, by that too (`noise_grad_10 std=0.2`).

    Args:
        lab: See `Lab`.
        network: Name of a configuration, of a network for data with the masks `box` and `digit`.
        num_samples: Test samples, evenly spaced.
        stds: Levels of weight noise, beside the rule's.
        rule: Whether to find the level that costs 5 % of the accuracy, and examine it.
        costs: Gradients that each method spends on a sample: 10 and multiples of it.
        num_perturbations: Noisy inputs of the maximum sensitivity.
        num_subsets: Random subsets of pixels of the faithfulness correlation.
        rule_samples: Validation samples for the rule.
        batch_size: Samples at a time; what is finished is kept.
        kept: Folder for finished batches, to go on with after an interruption; null keeps none.
        changes: Values that replace the configuration's, by dotted name.
    """
    if not costs or any(cost < 10 or cost % 10 for cost in costs):
        raise ValueError(
            f"`costs` must be multiples of 10, got {list(costs)}: FusionGrad divides them into models and inputs."
        )
    lab.require([network], changes, ("box", "digit"))
    trained = lab.network(network, changes)
    level = lab.noise_level(trained, rule_samples) if rule else None
    levels = {f" std={std:g}": std for std in stds} | ({"": round(level.std, 4)} if level and level.reached else {})
    methods = with_controls(table_methods(levels, costs))
    measured = metrics(num_perturbations, num_subsets)
    samples = {mask: lab.samples(trained, num_samples, mask=mask) for mask in ("box", "digit")}
    settings = {
        "methods": {name: repr(method) for name, method in methods.items()},
        "num_samples": num_samples,
        "num_perturbations": num_perturbations,
        "num_subsets": num_subsets,
        "precision": lab.precision,
    }
    cells = Cells(kept, {**settings, "network": trained.settings, "seed": lab.seed, "batch_size": batch_size})
    rows: list[ScoreRow] = []
    positions = torch.arange(len(samples["box"].images))
    for part in tqdm(positions.split(batch_size), "batches", disable=not lab.progress, leave=False):
        chosen = {mask: whole.select(part) for mask, whole in samples.items()}
        rows += batch_rows(lab, trained, chosen, methods, measured, cells)
    directions = _directions(measured)
    tables = [
        summary_table(
            compare_methods([Run(network, rows, directions)], seed=lab.seed, procedure="published"),
            "All methods",
            published=True,
        ),
        *equal_cost_tables(network, rows, directions, costs, lab.seed),
        pair_table(rows, directions, costs, list(levels)),
    ]
    return Reproduction(
        SOURCE,
        tuple(tables),
        {"scores": [asdict(row) for row in rows]},
        settings={"seed": lab.seed, "networks": described({network: trained}), "rule": level and level.std, **settings},
        findings=(
            f"Accuracy of {network}: {trained.accuracy:.4f}; {len(positions)} test samples, {lab.precision}.",
            *(level_lines(level)[:2] if level else ()),
        ),
    )


def table_methods(levels: Mapping[str, float], costs: Sequence[int]) -> dict[str, Explainer]:
    """All smooth |gradient|: at each cost SmoothGrad, AdaptGrad and, at each level, NoiseGrad and FusionGrad.

    FusionGrad divides its gradients into models and noisy inputs: 5 x 2, 10 x 10, ...
    """
    methods: dict[str, Explainer] = {"gradient": Gradient(), "saliency": Saliency()}
    for cost in costs:
        methods[f"smooth_grad_{cost}"] = smooth_grad(Saliency(), INPUT_FRACTION, cost)
        methods[f"adapt_grad_{cost}"] = adapt_grad(Saliency(), num_draws=cost)
        models = min(10, cost // 2)
        for name, std in levels.items():
            inner = Smooth(Saliency(), RangeScale(INPUT_FRACTION / 2), cost // models)
            methods[f"noise_grad_{cost}{name}"] = PerturbWeights(Saliency(), std, cost)
            methods[f"fusion_grad_{cost}{name}"] = PerturbWeights(inner, std / 2, models)
    return methods


def _directions(measured: Mapping[str, SampleMetric]) -> dict[str, bool | None]:
    known = {name: metric.higher_is_better for name, metric in measured.items()}
    return known | {"relevance_rank_accuracy_of_digit": True, "auroc_of_digit": True, GRADIENTS: None}


def metrics(num_perturbations: int, num_subsets: int) -> dict[str, SampleMetric]:
    """The four criteria, robustness by both denominators, and AUROC."""
    return {
        "relevance_rank_accuracy": RelevanceRankAccuracy(),
        "auroc": LocalisationAUROC(),
        "faithfulness_correlation": FaithfulnessCorrelation(num_subsets=num_subsets),
        "max_sensitivity": MaxSensitivity(num_draws=num_perturbations),
        "max_sensitivity_to_input": MaxSensitivity(num_draws=num_perturbations, relative_to="input"),
        "sparseness": Sparseness(),
    }


def batch_rows(
    lab: Lab,
    trained: TrainedNetwork,
    samples: Mapping[str, Samples],
    methods: Mapping[str, Explainer],
    measured: Mapping[str, SampleMetric],
    cells: Cells,
) -> list[ScoreRow]:
    """Scores of some samples, computed if they are not kept; localisation in the mask `digit` from the same maps."""
    box, digit = samples["box"], samples["digit"].masks
    if digit is None:
        raise ValueError("`network` must be one for data with masks, such as cmnist_resnet9.")

    def compute() -> dict[str, Any]:
        found = evaluate(
            trained.model,
            box.images,
            box.labels,
            methods,
            measured,
            box.masks,
            bounds=trained.bounds,
            index=box.index,
            seed=lab.seed,
            precision=lab.precision,
            batch_size=len(box.images),
            keep_attributions=len(box.images),
            progress=lab.progress,
        )
        for method, maps in found.attributions.items():
            found.scores[method]["relevance_rank_accuracy_of_digit"] = relevance_rank_accuracy(maps, digit.cpu())
            found.scores[method]["auroc_of_digit"] = auroc(maps, digit.cpu())
        return {"scores": found.scores}

    kept = cells.once(f"samples-{int(box.index[0]):05d}-{len(box.index)}", compute)["scores"]
    return [
        row
        for method, scores in kept.items()
        for metric, values in scores.items()
        for row in score_rows("test", 0, 0, method, metric, box.index, values)
    ]


def summary_table(comparison: Comparison, title: str, published: bool = False) -> ResultTable:
    """Means with standard errors; bold: the best, and what is not significantly worse."""
    cells = {(result.method, m.metric): _cell(result) for m in comparison.metrics for result in m.methods}
    columns = ["method", "gradients", *(_metric_title(metric) for metric in comparison.metrics)]
    rows = []
    for method in comparison.methods:
        row = [method, f"{comparison.gradients[method]:g}"]
        row += [cells.get((method, metric.metric), "") for metric in comparison.metrics]
        rows.append((*row, *_published(method)) if published else tuple(row))
    if published:
        columns += [
            f"published {criterion}" for criterion in ("localisation", "faithfulness", "robustness", "sparseness")
        ]
    return ResultTable(title, tuple(columns), tuple(rows), (BOLD,))


def equal_cost_tables(
    name: str, rows: Sequence[ScoreRow], directions: Mapping[str, bool | None], costs: Sequence[int], seed: int
) -> list[ResultTable]:
    """For each cost, the methods that spend it."""
    run = Run(name, rows, dict(directions))
    return [
        summary_table(
            compare_methods([run], seed=seed, gradients=cost, procedure="published"), f"At {cost} gradients a sample"
        )
        for cost in costs
    ]


def pair_table(
    rows: Sequence[ScoreRow], directions: Mapping[str, bool | None], costs: Sequence[int], levels: Sequence[str]
) -> ResultTable:
    """Is each step of FG > NG > SG > baseline, and AG > SG, true?"""
    return claim_table(rows, directions, list(_pairs(costs, levels)), (*CRITERIA, "max_sensitivity", "auroc"))


def claim_table(
    rows: Sequence[ScoreRow],
    directions: Mapping[str, bool | None],
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str],
    title: str = "Which is better?",
) -> ResultTable:
    """Is the first of each pair better than the second? Paired by sample, Holm over the table."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        scores.setdefault((row.method, row.metric), {})[row.sample] = row.value
    tested = {(pair, metric): _oriented(scores, pair, metric, directions) for pair in pairs for metric in names}
    corrected = holm(np.array([paired_test(first, second)[0] for first, second in tested.values()]))
    cells = {key: _answer(one - other, p) for (key, (one, other)), p in zip(tested.items(), corrected, strict=True)}
    lines = tuple((" > ".join(pair), *(cells[pair, metric] for metric in names)) for pair in pairs)
    note = (
        "Mean gain of the first over the second, positive where it is better, and whether the claim holds: Wilcoxon "
        "signed-rank test at 5 %, Holm's correction over this table."
    )
    return ResultTable(title, ("claim", *(name.replace("_", " ") for name in names)), lines, (note,))


def _oriented(
    scores: Mapping[tuple[str, str], Mapping[int, float]],
    pair: tuple[str, str],
    metric: str,
    directions: Mapping[str, bool | None],
) -> np.ndarray:
    """The scores of both, higher for better, of the samples on which both are defined."""
    first, second = (scores[method, metric] for method in pair)
    values = np.array([[first[sample], second[sample]] for sample in first], dtype=float).reshape(-1, 2).T
    return values[:, np.isfinite(values).all(0)] * (1 if directions[metric] else -1)


def _pairs(costs: Sequence[int], levels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The order as published, FusionGrad at ten times the cost of the others, and at equal cost."""
    low, high = min(costs), max(costs)
    for level in levels:
        if high > low:
            yield f"fusion_grad_{high}{level}", f"noise_grad_{low}{level}"
        for cost in costs:
            yield f"fusion_grad_{cost}{level}", f"noise_grad_{cost}{level}"
            yield f"noise_grad_{cost}{level}", f"smooth_grad_{cost}"
    for cost in costs:
        yield f"smooth_grad_{cost}", "saliency"
        yield f"adapt_grad_{cost}", f"smooth_grad_{cost}"


def _answer(gains: np.ndarray, p: float) -> str:
    if not len(gains):
        return "undefined"
    verdict = "undecided" if p >= 0.05 else "yes" if gains.mean() > 0 else "no, the reverse"
    return f"{gains.mean():+{number_format(gains.mean())}} {verdict}"


def _cell(result: MethodResult) -> str:
    error, style = result.standard_deviation / max(1, len(result.values)) ** 0.5, number_format(result.mean)
    text = f"{result.mean:{style}} ± {error:{style}}"
    return f"**{text}**" if result.is_best else text


def _metric_title(metric: MetricComparison) -> str:
    return f"{metric.metric.replace('_', ' ')} {ARROWS[metric.higher_is_better]}"


def _published(method: str) -> tuple[str, ...]:
    """Of the paper's methods, at each level of noise."""
    return tuple(f"{value:.4f}" for value in PUBLISHED.get(method.partition(" ")[0], ())) or ("",) * len(CRITERIA)


def figures(result: Reproduction) -> Mapping[str, Figure]:
    """Bars of all methods in all metrics."""
    rows = [ScoreRow(**row) for row in result.records["scores"]]
    return {
        "noisegrad-table1": score_bars(
            compare_methods([Run("", rows, _directions(metrics(10, 100)))], procedure="published")
        )
    }


EXPERIMENT = Experiment(
    "localisation, faithfulness, robustness and sparseness of NoiseGrad's methods on CMNIST",
    run,
    {
        "network": "cmnist_lenet",
        "num_samples": 16,
        "costs": (10, 20),
        "num_perturbations": 2,
        "num_subsets": 20,
        "rule_samples": 200,
    },
    figures,
)
