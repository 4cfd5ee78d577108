"""NoiseGrad's figure 3, with numbers: Integrated Gradients and GradientSHAP under four smoothers, on photographs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.data import default_collate

from lightning_xai.callbacks.samples import Samples, spread, unpack
from lightning_xai.data import VOCDataModule
from lightning_xai.data.image_folder import PictureDataset
from lightning_xai.data.preprocessing import changed
from lightning_xai.evaluation import Evaluation, evaluate, evaluation_rows
from lightning_xai.experiments.compare import CONTROLS, compare_methods
from lightning_xai.experiments.noise_level import find_noise_level, right_under_noise
from lightning_xai.experiments.papers.experiment import Experiment
from lightning_xai.experiments.papers.lab import Lab
from lightning_xai.experiments.papers.noisegrad_table1 import claim_table, summary_table
from lightning_xai.experiments.papers.noisegrad_table2 import by_heuristics
from lightning_xai.experiments.papers.photographs import PretrainedNetwork, photographs, pretrained_network
from lightning_xai.experiments.runs import Run
from lightning_xai.explainers import Explainer, IntegratedGradients, gradient_shap, with_controls
from lightning_xai.explainers.base import check_count, explaining, resolve_target
from lightning_xai.explainers.precision import in_precision
from lightning_xai.functional.maps import pixel_map
from lightning_xai.metrics import LocalisationAUROC, RelevanceRankAccuracy, SampleMetric, Sparseness
from lightning_xai.reporting.comparison import Comparison
from lightning_xai.reporting.comparison_figures import score_bars
from lightning_xai.reporting.noise_level import NoiseLevel, level_lines
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.reproduction import Reproduction
from lightning_xai.results.scores import GRADIENTS, ScoreRow
from lightning_xai.results.tables import ResultTable

SOURCE = "NoiseGrad (Bykov et al. 2022, arXiv 2106.10185), figure 3: Integrated Gradients and GradientSHAP on VOC 2012"
VOC, EMBEDDED = "voc", "embedded"
CLAIMS = (("NG", "Baseline"), ("NG", "SG"), ("FG", "Baseline"), ("FG", "SG"))
"""The paper finds the attribution of NG and FG better localised than that of Baseline and SG."""
NOTES = (
    "The paper shows the maps of one picture, of a network that it does not name, and no numbers.",
    "Signed maps are averaged; localisation and sparseness are of the absolute value of the channel sum.",
)
LOCALISATION = ("auroc", "relevance_rank_accuracy")
_BATCH = 8

Records = Sequence[Mapping[str, Any]]
Compared = tuple[list[ScoreRow], Comparison]
"""The scores of a base method, and its smoothers compared by them."""


def run(
    lab: Lab,
    network: str = "resnet18",
    weights: str | None = None,
    images: str = VOC,
    num_images: int = 32,
    num_shown: int = 4,
    mask: Literal["object", "box"] = "object",
    weight_noise: float | None = None,
    level_images: int = 500,
    num_steps: int = 50,
    num_points: int = 20,
    num_draws: int = 10,
    image_size: int | None = None,
) -> Reproduction:
    """Maps of two base methods, plain and under SmoothGrad, AdaptGrad, NoiseGrad and FusionGrad; where they point.

    A network that knows VOC's classes is explained for the main object's, any other for the class that it predicts.

    Args:
        lab: See `Lab`; its `root` is where VOC is, or is downloaded to (2 GB).
        network: A classifier of torchvision by name, or a configuration of a pretrained network.
        weights: File with a state dict, or the name of torchvision's weights; null for the default ones.
        images: `voc`, a folder of pictures, or `embedded` for photographs that installed packages carry; only VOC knows
            where the objects are.
        num_images: That the numbers are of, evenly spaced.
        num_shown: Of which maps are shown.
        mask: Where VOC has the evidence: the pixels of the main object, or its boxes.
        weight_noise: Of NoiseGrad, relative to each weight; null finds the level that costs 5 % of the accuracy, or,
            without labels, that changes as many of the network's decisions.
        level_images: Pictures for that, evenly spaced.
        num_steps: Points on the path of Integrated Gradients, from black.
        num_points: Random points on the path of GradientSHAP, from black.
        num_draws: Of weight noise and of input noise; FusionGrad makes so many of one for each of the other.
        image_size: Side of the network's input; null for what the network was trained with.
    """
    check_count("num_images", num_images)
    check_count("num_shown", num_shown)
    found = pretrained_network(lab, network, weights)
    if image_size is not None:
        found = replace(found, preprocessing=changed(found.preprocessing, image_size))
    source = EMBEDDED if lab.embedded else images
    samples = pictures(lab, found, source, num_images, mask)
    level = None
    if weight_noise is None:
        level = weight_noise_level(lab, found, source, level_images)
        weight_noise = level.std
    bases = {"IG": IntegratedGradients(num_steps=num_steps), "GradientSHAP": gradient_shap(num_draws=num_points)}
    methods = {base: by_heuristics(weight_noise, num_draws, explainer) for base, explainer in bases.items()}
    evaluations = {base: _evaluated(lab, found, samples, part, num_shown) for base, part in methods.items()}
    records = [
        {"base": base, "method": row.method, "metric": row.metric, "sample": row.sample, "value": row.value}
        for base, part in evaluations.items()
        for row in evaluation_rows(part, "test", 0, 0)
    ]
    compared = {base: _compared(records, base, lab.seed) for base in bases}
    classes = _names(found, evaluations["IG"].target.tolist())
    settings = {
        "networks": {network: dict(found.settings)},
        "images": source,
        "index": samples.index.tolist(),
        "classes": classes,
        "mask": mask if source == VOC else None,
        "weight_noise": weight_noise,
        "methods": {base: {name: repr(method) for name, method in part.items()} for base, part in methods.items()},
        "precision": lab.precision,
        "seed": lab.seed,
    }
    return Reproduction(
        SOURCE,
        tuple(_tables(compared)),
        {"scores": records},
        _arrays(found, evaluations),
        settings,
        (
            *(level_lines(level)[:2] if level else ()),
            *_kept_classes(lab, found, samples, weight_noise, num_draws),
            *_findings(compared),
        ),
    )


# What is explained


def pictures(lab: Lab, network: PretrainedNetwork, source: str, number: int, mask: str = "object") -> Samples:
    """Pictures for the network; the labels are the classes that are explained.

    Args:
        source: See `run`.
        number: Evenly spaced.

    Raises:
        FileNotFoundError: if VOC is missing and cannot be downloaded.
    """
    if source != VOC:
        found = photographs(lab, network, None if source == EMBEDDED else source, number)
        return Samples(found.images, found.target, found.index, None)
    data = VOCDataModule(lab.root)
    try:
        data.prepare_data()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} Or explain others: `images` takes a folder, or {EMBEDDED!r}.") from error
    dataset = PictureDataset(data.find_pictures(network.class_names), network.preprocessing)
    batch = default_collate([dataset[place] for place in spread(len(dataset), number).tolist()])
    samples = unpack(batch, mask=mask)
    images = samples.images.to(lab.device)
    with in_precision(network.model, lab.precision), explaining(network.model):
        target = resolve_target(network.model, images, samples.labels)
    return replace(samples, images=images, labels=target, masks=torch.as_tensor(samples.masks, device=lab.device))


def weight_noise_level(lab: Lab, network: PretrainedNetwork, source: str, number: int) -> NoiseLevel:
    """The paper's rule; where the pictures have no labels that the network knows, its own decisions are the truth.

    Raises:
        ValueError: for so few pictures that a single one is more than the 5 %.
    """
    samples = pictures(lab, network, source, number)
    if len(samples.images) < _LEAST:
        raise ValueError(
            f"`weight_noise` must be given: to find the level that costs 5 % takes {_LEAST} pictures or more, of which "
            f"one is 5 %, and there are {len(samples.images)}."
        )
    with in_precision(network.model, lab.precision):
        return find_noise_level(
            network.model, samples.images, samples.labels, tolerance=_TOLERANCE, seed=lab.seed, progress=lab.progress
        )


def _kept_classes(lab: Lab, network: PretrainedNetwork, samples: Samples, std: float, num_draws: int) -> Iterator[str]:
    """Whether the noisy networks that the maps are averaged over are about the same classes."""
    classes = torch.as_tensor(samples.labels)
    for name, level in {"NG": std, "FG": std / 2}.items():
        if math.isfinite(level):
            with in_precision(network.model, lab.precision):
                right = right_under_noise(network.model, samples.images, classes, level, num_draws, lab.seed)
            yield f"The noisy networks of {name}, std {level:g}, predict {right.mean():.1%} of the explained classes."


_LEAST = 20
_TOLERANCE = 0.002
"""Of the level; large networks bear little noise."""


def _metrics(has_masks: bool) -> dict[str, SampleMetric]:
    metrics: tuple[SampleMetric, ...] = (LocalisationAUROC(), RelevanceRankAccuracy())
    return (dict(zip(LOCALISATION, metrics, strict=True)) if has_masks else {}) | {"sparseness": Sparseness()}


def _evaluated(
    lab: Lab, network: PretrainedNetwork, samples: Samples, methods: Mapping[str, Explainer], num_shown: int
) -> Evaluation:
    return evaluate(
        network.model,
        samples.images,
        samples.labels,
        with_controls(methods),
        _metrics(samples.masks is not None),
        samples.masks,
        bounds=network.bounds,
        index=samples.index,
        seed=lab.seed,
        precision=lab.precision,
        batch_size=_BATCH,
        keep_attributions=num_shown,
        progress=lab.progress,
    )


def _arrays(network: PretrainedNetwork, evaluations: Mapping[str, Evaluation]) -> dict[str, np.ndarray]:
    """The pictures, what black and white are for the network, and the channel sums of the maps, (method, ...)."""
    first = next(iter(evaluations.values()))
    low, high = network.bounds
    arrays = {"images": first.images, "low": low, "high": high}
    arrays |= {} if first.masks is None else {"masks": first.masks}
    for base, part in evaluations.items():
        maps = [pixel_map(maps, absolute=False) for name, maps in part.attributions.items() if name not in CONTROLS]
        arrays[base] = torch.stack(maps)
    return {name: values.numpy() for name, values in arrays.items()}


def _names(network: PretrainedNetwork, classes: Sequence[int]) -> list[str]:
    return [network.class_names[place] if network.class_names else str(place) for place in classes]


# Tables


def _compared(records: Records, base: str, seed: int) -> Compared:
    rows = [
        ScoreRow("test", 0, 0, record["method"], record["metric"], record["sample"], record["value"])
        for record in records
        if record["base"] == base
    ]
    directions: dict[str, bool | None] = {row.metric: True for row in rows if row.metric != GRADIENTS}
    return rows, compare_methods([Run(base, rows, directions)], seed=seed, procedure="published")


def _tables(compared: Mapping[str, Compared]) -> Iterator[ResultTable]:
    for place, (base, (rows, comparison)) in enumerate(compared.items()):
        table = summary_table(comparison, base)
        yield table if place else replace(table, notes=(*table.notes, *NOTES))
        names = [name for name in LOCALISATION if any(row.metric == name for row in rows)]
        pairs = [pair for pair in CLAIMS if set(pair) <= set(comparison.methods)]
        if names and pairs:
            yield claim_table(rows, dict.fromkeys(names, True), pairs, names, f"{base}: is it better localised?")


def _bases(records: Records) -> list[str]:
    return list(dict.fromkeys(record["base"] for record in records))


def _findings(compared: Mapping[str, Compared]) -> Iterator[str]:
    """The order of the methods in each metric, and what is not worse than the best."""
    for base, (_, comparison) in compared.items():
        for metric in comparison.metrics:
            ranked = sorted((result for result in metric.methods if result.rank), key=lambda result: result.rank or 0)
            order = " > ".join(f"{result.method} {result.mean:.4f}" for result in ranked)
            equal = [result.method for result in ranked[1:] if result.is_best]
            beside = f" Not significantly worse than the best: {', '.join(equal)}." if equal else ""
            yield f"{base}, {metric.metric.replace('_', ' ')} of {metric.num_samples} pictures: {order}.{beside}"


# Figures


def figures(result: Reproduction) -> Mapping[str, Figure]:
    """The maps of each base method, and the scores."""
    drawn = {}
    for base in _bases(result.records["scores"]):
        name = f"noisegrad-figure3-{base.lower()}"
        drawn[name] = _panel(result, base)
        drawn[f"{name}-scores"] = score_bars(_compared(result.records["scores"], base, result.settings["seed"])[1])
    return drawn


def _panel(result: Reproduction, base: str) -> Figure:
    images, low, high, maps = (torch.from_numpy(result.arrays[name]) for name in ("images", "low", "high", base))
    masks = torch.from_numpy(result.arrays["masks"]) if "masks" in result.arrays else None
    columns = dict(zip(result.settings["methods"][base], maps[:, :, None], strict=True))
    title = {"IG": "Integrated Gradients"}.get(base, base)
    return attribution_panel(images, columns, (low, high), masks, result.settings["classes"], title=title)


EXPERIMENT = Experiment(
    "Integrated Gradients and GradientSHAP under Baseline, SG, AG, NG and FG, on VOC or other photographs",
    run,
    {
        "network": "photographs",
        "num_images": 2,
        "weight_noise": 0.02,
        "num_steps": 3,
        "num_points": 3,
        "num_draws": 2,
        "image_size": 96,
    },
    figures,
)
