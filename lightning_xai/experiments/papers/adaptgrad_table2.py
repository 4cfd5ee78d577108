"""AdaptGrad's table 2: Sparseness and Information Level of five methods, each plain, smoothed, and smoothed within the
range of the data, for networks with ImageNet weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from lightning_xai.evaluation import evaluate
from lightning_xai.experiments.noise_level import right_under_noise
from lightning_xai.experiments.papers.adaptgrad_table2_published import FAMILIES, METRICS, NETWORKS, PRESET, members
from lightning_xai.experiments.papers.adaptgrad_table2_report import PUBLISHED_STD, Row, figures, findings, tables
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab
from lightning_xai.experiments.papers.photographs import (
    Photographs,
    PretrainedNetwork,
    photographs,
    pretrained_network,
)
from lightning_xai.explainers import (
    Explainer,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    PerturbWeights,
    adapt_grad,
    smooth_grad,
)
from lightning_xai.explainers.precision import in_precision
from lightning_xai.metrics import InformationLevel, SampleMetric, Sparseness
from lightning_xai.reporting.reproduction import Reproduction
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.examine import fingerprint
from lightning_xai.statistics.means import mean_and_standard_error
from lightning_xai.statistics.paired import holm, paired_test

SOURCE = "AdaptGrad (Zhou et al. 2024, arXiv 2410.07711), table 2: Sparseness and Information Level"


@dataclass(frozen=True)
class Effort:
    """Settings of the methods; see `run`."""

    num_draws: int = 50
    num_steps: int = 50
    path_draws: int = 50
    noise_draws: int = 10
    noise_std: float = PUBLISHED_STD
    fraction: float = 0.2
    confidence: float = 0.95


def run(
    lab: Lab,
    networks: tuple[str, ...] = tuple(NETWORKS),
    weights: dict[str, str] | None = None,
    images: str | None = None,
    num_samples: int | None = 256,
    preset: bool = True,
    num_draws: int = 50,
    num_steps: int = 50,
    path_draws: int = 50,
    noise_draws: int = 10,
    noise_std: float = PUBLISHED_STD,
    fraction: float = 0.2,
    confidence: float = 0.95,
    min_score: float = 0.8,
    batch_size: int = 8,
    kept: str | None = None,
) -> Reproduction:
    """Fifteen methods in two metrics, and whether AdaptGrad does better than SmoothGrad.

    The predicted class is explained.

    Args:
        lab: See `Lab`.
        networks: Classifiers of torchvision, which downloads their weights, or names of configurations such as
            `photographs`, whose network comes from the package index.
        weights: Of a network, by its name, a file with its state dict or the name of torchvision's weights; null for
            torchvision's default, or what the configuration says.
        images: Folder of pictures, in subfolders too; null for eight photographs that installed packages carry.
        num_samples: Pictures, evenly spaced; null for all.
        preset: Whether to measure IG with the baselines of the authors' code too, 0 and 1 after the normalisation.
        num_draws: Noisy inputs of a map; of each noisy network in S-NG and A-NG.
        num_steps: Points of the path of IG.
        path_draws: Noisy inputs at each of them.
        noise_draws: Noisy networks.
        noise_std: Weight noise; the report says how many predicted classes it keeps.
        fraction: SmoothGrad's noise over the range of the data.
        confidence: AdaptGrad's.
        min_score: Information Level is defined for pictures whose class has this probability or more.
        batch_size: Pictures at a time; what is finished is kept.
        kept: Folder for finished batches, to go on with after an interruption; null keeps none.
    """
    if unknown := set(weights or {}) - set(networks):
        raise ValueError(f"`weights` must be of `networks`, {', '.join(networks)}; got {', '.join(sorted(unknown))}.")
    effort = Effort(num_draws, num_steps, path_draws, noise_draws, noise_std, fraction, confidence)
    methods = table_methods(effort, preset)
    measures = {"sparseness": Sparseness(), "information_level": InformationLevel(min_score=min_score)}
    # all that can be missing is asked for before anything is computed
    found = {name: pretrained_network(lab, name, (weights or {}).get(name)) for name in networks}
    seen = {name: photographs(lab, network, images, num_samples) for name, network in found.items()}
    settings = {
        "seed": lab.seed,
        "precision": lab.precision,
        "networks": {name: dict(network.settings) for name, network in found.items()},
        "images": images or "embedded",
        "num_samples": num_samples,
        "preset": preset,
        "min_score": min_score,
        **asdict(effort),
    }
    weights_and_pictures = {name: [fingerprint(found[name].model), *seen[name].names] for name in networks}
    cells = Cells(kept, {**settings, "batch_size": batch_size, "weights and pictures": weights_and_pictures})
    scores: list[Row] = []
    for name, network in found.items():
        rows = score_records(lab, network, seen[name], methods, measures, cells, name, batch_size)
        scores += [{"network": name, **row} for row in rows]
    noise = [row for name in networks for row in noise_records(lab, name, found[name], seen[name], effort)]
    pairs = pair_records(scores)
    records = {"scores": scores, "pairs": pairs, "weight_noise": noise, "photographs": _picture_records(seen)}
    return Reproduction(SOURCE, tuple(tables(records)), records, {}, settings, tuple(findings(records)))


def table_methods(effort: Effort, preset: bool = False) -> dict[str, Explainer]:
    """The methods of configs/methods/adaptgrad_table2.yaml, and IG with the preset's baselines."""
    path = partial(IntegratedGradients, num_steps=effort.num_steps)
    families: dict[str, Callable[..., Explainer]] = {
        "Grad": lambda gradient: gradient,
        "GI": InputXGradient,
        "IG(W)": partial(path, baseline="white"),
        "IG(B)": partial(path, baseline="black"),
        "NG": partial(PerturbWeights, std=effort.noise_std, num_draws=effort.noise_draws),
    }
    if preset:
        families |= {"IG(0)": partial(path, baseline=0.0), "IG(1)": partial(path, baseline=1.0)}
    methods: dict[str, Explainer] = {}
    for family, made_of in families.items():
        draws = effort.path_draws if family.startswith("IG") else effort.num_draws
        smooth = smooth_grad(fraction=effort.fraction, num_draws=draws, of="data")
        adapt = adapt_grad(confidence=effort.confidence, num_draws=draws)
        gradients = (Gradient(), smooth, adapt)
        methods |= {name: made_of(g) for name, g in zip(members(family), gradients, strict=True)}
    return methods


def score_records(
    lab: Lab,
    network: PretrainedNetwork,
    seen: Photographs,
    methods: Mapping[str, Explainer],
    measures: Mapping[str, SampleMetric],
    cells: Cells,
    name: str,
    batch_size: int,
) -> Iterator[Row]:
    """A score a row, batch after batch; those that are kept are not computed again."""
    for rows in torch.arange(len(seen.images)).split(batch_size):
        index = seen.index[rows]
        compute = partial(_batch_scores, lab, network, seen, rows, methods, measures)
        for method, scores in cells.once(f"{name}-{int(index[0]):06d}-{len(index)}", compute).items():
            for metric, values in scores.items():
                for sample, value in zip(index.tolist(), values.tolist(), strict=True):
                    yield {"method": method, "metric": metric, "sample": sample, "value": value}


def _batch_scores(
    lab: Lab,
    network: PretrainedNetwork,
    seen: Photographs,
    rows: torch.Tensor,
    methods: Mapping[str, Explainer],
    measures: Mapping[str, SampleMetric],
) -> dict[str, Any]:
    options: dict[str, Any] = {"index": seen.index[rows], "bounds": network.bounds, "seed": lab.seed}
    images, target = seen.images[rows], seen.target[rows]
    options |= {"batch_size": len(rows), "precision": lab.precision, "progress": lab.progress}
    return evaluate(network.model, images, target, methods, measures, **options).scores


def noise_records(lab: Lab, name: str, network: PretrainedNetwork, seen: Photographs, effort: Effort) -> Iterator[Row]:
    """The share of predicted classes that each noisy network keeps, at NG's level and at the paper's."""
    for std in sorted({effort.noise_std, PUBLISHED_STD}):
        with in_precision(network.model, lab.precision):
            right = right_under_noise(network.model, seen.images, seen.target, std, effort.noise_draws, lab.seed)
        for draw, kept in enumerate(right.mean(1).tolist()):
            yield {"network": name, "std": std, "draw": draw, "kept": kept}


def _picture_records(seen: Mapping[str, Photographs]) -> list[Row]:
    return [
        {"network": name, "sample": sample, "name": picture, "class": label, "probability": probability}
        for name, found in seen.items()
        for sample, picture, label, probability in zip(
            found.index.tolist(), found.names, found.classes, found.probability.tolist(), strict=True
        )
    ]


def pair_records(scores: Sequence[Mapping[str, Any]]) -> list[Row]:
    """AdaptGrad less SmoothGrad in each family and metric, over the pictures where both have a score.

    `p_holm` is corrected over the families of the table, or over those of the preset.
    """
    table: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in scores:
        table.setdefault((row["network"], row["metric"], row["method"]), {})[row["sample"]] = row["value"]
    pairs = []
    for network in dict.fromkeys(network for network, _, _ in table):
        for metric in METRICS:
            for families in (FAMILIES, PRESET):
                made = [_pair(table, network, metric, family) for family in families]
                rows = [row for row in made if row is not None]
                corrected = holm(np.array([row["p"] for row in rows], dtype=float))
                pairs += [{**row, "p_holm": float(p)} for row, p in zip(rows, corrected, strict=True)]
    return pairs


def _pair(
    table: Mapping[tuple[str, str, str], Mapping[int, float]], network: str, metric: str, family: str
) -> Row | None:
    _, smooth, adapt = members(family)
    if (network, metric, adapt) not in table:
        return None
    second, first = (np.array(list(table[network, metric, method].values()), dtype=float) for method in (smooth, adapt))
    defined = np.isfinite(first) & np.isfinite(second)
    first, second = first[defined], second[defined]
    p, correlation = paired_test(first, second, higher_is_better=True)
    difference, error = mean_and_standard_error(first - second)
    return {
        "network": network,
        "metric": metric,
        "family": family,
        "pictures": len(first),
        "difference": difference,
        "standard_error": error,
        "higher": int((first > second).sum()),
        "correlation": correlation,
        "p": p,
    }


EXPERIMENT = Experiment(
    "Sparseness and Information Level of fifteen methods, for networks with ImageNet weights",
    run,
    {
        "networks": ("photographs",),
        "num_samples": 2,
        "preset": False,
        "num_draws": 2,
        "num_steps": 2,
        "path_draws": 2,
        "noise_draws": 2,
        "noise_std": 0.02,
        "min_score": 0.0,
    },
    figures,
)
