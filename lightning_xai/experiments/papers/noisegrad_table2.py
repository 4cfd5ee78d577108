"""NoiseGrad's table 2: do the heuristics choose noise that helps, for networks of several kinds and sizes?"""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from lightning_xai.evaluation import evaluate, evaluation_rows
from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab, described
from lightning_xai.experiments.runs import Run
from lightning_xai.explainers import (
    Explainer,
    InRangeScale,
    PerturbWeights,
    RangeScale,
    Saliency,
    Smooth,
    with_controls,
)
from lightning_xai.metrics import LocalisationAUROC
from lightning_xai.reporting.comparison import Comparison, MetricComparison
from lightning_xai.reporting.comparison_figures import score_bars
from lightning_xai.reporting.noise_level import INPUT_FRACTION, NoiseLevel
from lightning_xai.reporting.reproduction import Reproduction
from lightning_xai.results.scores import GRADIENTS, ScoreRow
from lightning_xai.results.tables import ResultTable
from lightning_xai.statistics.means import mean_and_error

SOURCE = "NoiseGrad (Bykov et al. 2022, arXiv 2106.10185), table 2: AUROC of six networks, CMNIST"
NETWORKS = ("cmnist_lenet", "cmnist_vgg11", "cmnist_vgg16", "cmnist_resnet9", "cmnist_resnet18", "cmnist_resnet50")
PUBLISHED = {
    "Baseline": dict(zip(NETWORKS, (0.922, 0.961, 0.967, 0.926, 0.913, 0.912), strict=True)),
    "SG": dict(zip(NETWORKS, (0.940, 0.971, 0.963, 0.975, 0.962, 0.967), strict=True)),
    "NG": dict(zip(NETWORKS, (0.949, 0.982, 0.985, 0.978, 0.963, 0.973), strict=True)),
    "FG": dict(zip(NETWORKS, (0.961, 0.984, 0.982, 0.982, 0.975, 0.969), strict=True)),
}
"""Means; their standard deviations over the samples are between 0.011 and 0.048."""
CLAIM = ("FG", "NG", "SG", "Baseline")
"""The paper's order, the best first."""
NOTES = (
    "Mean ± standard error over the samples; published means in brackets. *: best of the network, or not significantly "
    "worse than the best (Wilcoxon signed-rank, Holm's correction, 5 %).",
    "The published table does not say which mask it takes.",
)


def run(
    lab: Lab,
    networks: tuple[str, ...] = NETWORKS,
    num_samples: int = 256,
    num_draws: int = 10,
    level_samples: int = 1000,
    mask: str = "box",
    changes: dict[str, Any] | None = None,
) -> Reproduction:
    """AUROC of the maps against the mask, with the noise that the paper's heuristics choose for each network.

    Args:
        lab: See `Lab`.
        networks: Names of configurations whose data have masks.
        num_samples: Test samples.
        num_draws: Of weight noise and of input noise; FusionGrad makes so many of one for each of the other.
        level_samples: Validation samples for the level of weight noise.
        mask: Where the evidence is.
        changes: Values that replace the configurations', by dotted name.
    """
    lab.require(networks, changes, [mask])
    rows: list[ScoreRow] = []
    levels: dict[str, NoiseLevel] = {}
    settings: dict[str, Any] = {}
    for name in networks:
        found = lab.network(name, changes)  # one at a time in memory
        samples = lab.samples(found, num_samples, mask=mask)
        levels[name] = lab.noise_level(found, level_samples)
        evaluation = evaluate(
            found.model,
            samples.images,
            samples.labels,
            with_controls(by_heuristics(levels[name].std, num_draws)),
            {name: LocalisationAUROC()},
            samples.masks,
            bounds=found.bounds,
            index=samples.index,
            seed=lab.seed,
            precision=lab.precision,
            progress=lab.progress,
        )
        found_rows = evaluation_rows(evaluation, "test", 0, 0)
        known = {(row.method, row.metric) for row in rows}
        rows += [row for row in found_rows if (row.method, row.metric) not in known]  # all networks cost the same
        settings |= described({name: found})
    comparison = _compared(rows, lab.seed)
    accuracies = {name: part["accuracy"] for name, part in settings.items()}
    return Reproduction(
        SOURCE,
        (_table(comparison), _level_table(levels, accuracies)),
        {
            "scores": [
                {"network": row.metric, "method": row.method, "sample": row.sample, "value": row.value} for row in rows
            ],
            "levels": [
                {"network": name, "std": level.std, "low": level.low, "high": level.high}
                for name, level in levels.items()
            ],
        },
        {},
        {
            "networks": settings,
            "seed": lab.seed,
            "precision": lab.precision,
            "num_samples": num_samples,
            "num_draws": num_draws,
            "mask": mask,
        },
        tuple(_finding(metric) for metric in comparison.metrics),
    )


def by_heuristics(std: float, num_draws: int, explainer: Explainer = Saliency()) -> dict[str, Explainer]:
    """The paper's methods: NG at the level, SG with 20 % of the range, FG with half of both; and AG.

    NG and FG are left out where the level was not reached, and so is infinite.
    """
    methods: dict[str, Explainer] = {
        "Baseline": explainer,
        "SG": Smooth(explainer, RangeScale(INPUT_FRACTION), num_draws),
        "AG": Smooth(explainer, InRangeScale(), num_draws),
    }
    if math.isfinite(std):
        half = Smooth(explainer, RangeScale(INPUT_FRACTION / 2), num_draws)
        methods["NG"] = PerturbWeights(explainer, std, num_draws)
        methods["FG"] = PerturbWeights(half, std / 2, num_draws)
    return methods


def _compared(rows: list[ScoreRow], seed: int) -> Comparison:
    """The networks take the place of the metrics: each has its own best method."""
    networks = {row.metric for row in rows} - {GRADIENTS}
    return compare_methods([Run("", rows, dict.fromkeys(networks, True))], seed=seed, procedure="published")


def _table(comparison: Comparison) -> ResultTable:
    rows = []
    for method in comparison.methods:
        cells = [_cell(metric, method) for metric in comparison.metrics]
        rows.append((method, f"{comparison.gradients[method]:g}", *cells))
    columns = ("method", GRADIENTS, *(metric.metric for metric in comparison.metrics))
    return ResultTable("AUROC of the maps against the mask", columns, tuple(rows), NOTES)


def _cell(metric: MetricComparison, method: str) -> str:
    result = next((result for result in metric.methods if result.method == method), None)
    if result is None:
        return "no level"
    published = PUBLISHED.get(method, {}).get(metric.metric)
    best, beside = " *" if result.is_best else "", "" if published is None else f" ({published:.3f})"
    return f"{mean_and_error(result.values)}{best}{beside}"


def _level_table(levels: Mapping[str, NoiseLevel], accuracies: Mapping[str, float]) -> ResultTable:
    rows = tuple(
        (name, f"{accuracies[name]:.4f}", f"{level.std:.3f}", f"{level.low:.3f} to {level.high:.3f}")
        for name, level in levels.items()
    )
    columns = ("network", "test accuracy", "weight noise", "95 % interval")
    note = "Weight noise that costs 5 % of the accuracy above chance. The paper's networks have at least 0.86, and its "
    return ResultTable("Networks", columns, rows, (note + "levels are not printed.",))


def _finding(metric: MetricComparison) -> str:
    """The order of the paper's four methods, whether it is the paper's, and what is not worse than the best."""
    means = {result.method: result.mean for result in metric.methods}
    order = [name for name in sorted(means, key=means.__getitem__, reverse=True) if name in CLAIM]
    listed = " > ".join(f"{name} {means[name]:.4f}" for name in order)
    claim = tuple(name for name in CLAIM if name in order)
    word = "is" if tuple(order) == claim else "is not"
    best = next((result.method for result in metric.methods if result.rank == 1), "none")
    equal = [result.method for result in metric.methods if result.is_best and result.method != best]
    beside = f" (not significantly worse: {', '.join(equal)})" if equal else ""
    return f"{metric.metric}: {listed}, which {word} the paper's order. Best of all: {best}{beside}."


def figures(result: Reproduction) -> Mapping[str, Figure]:
    """Means and intervals, an axis a network."""
    rows = [
        ScoreRow("test", 0, 0, record["method"], record["network"], record["sample"], record["value"])
        for record in result.records["scores"]
    ]
    return {"noisegrad-table2": score_bars(_compared(rows, result.settings["seed"]))}


EXPERIMENT = Experiment(
    "AUROC of six networks on CMNIST, with the noise that the heuristics choose for each",
    run,
    {
        "networks": ("cmnist_lenet",),
        "num_samples": 16,
        "num_draws": 3,
        "level_samples": 200,
    },
    figures,
)
