"""Runs a study: scores, comparisons and claims, for every network."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lightning_xai.callbacks.samples import Samples
from lightning_xai.evaluation import evaluate
from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.noise_level import right_under_noise
from lightning_xai.experiments.runs import Run
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.precision import in_precision
from lightning_xai.metrics import SampleMetric
from lightning_xai.results.comparison import Comparison
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.examine import fingerprint
from lightning_xai.statistics.means import mean_and_standard_error
from lightning_xai.statistics.paired import holm, paired_test
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.study import Study, asks_mask, known_values, resolved
from lightning_xai.studies.subjects import Subject, predicted, require, subject

LEVEL = 0.05
"""Of the tests of claims."""


@dataclass(frozen=True)
class Claim:
    """Is one method better than another, in one metric, for one network? Paired by sample.

    Attributes:
        gain: Mean gain of the first over the second, positive where it is better.
        better_in: Samples in which it is.
        effect: Matched-pairs rank-biserial correlation.
        p: Wilcoxon's signed-rank test, two-sided.
        p_holm: After Holm's correction over the group.
    """

    network: str
    group: str
    better: str
    worse: str
    metric: str
    num_samples: int
    gain: float
    standard_error: float
    better_in: int
    effect: float
    p: float
    p_holm: float = float("nan")

    @property
    def verdict(self) -> str:
        if not self.num_samples:
            return "undefined"
        if not self.p_holm < LEVEL:
            return "undecided"
        return "yes" if self.gain > 0 else "no, the reverse"


@dataclass(frozen=True)
class NetworkResult:
    """What is found for one network.

    Attributes:
        subject: The network and its samples, without the model.
        rows: Scores of the samples.
        kept: Shares of predicted classes that noisy networks keep, by level.
        comparison: Of all methods.
        claims: Judged.
        without: Claims that name a method which is not there.
        maps: Of the samples shown, by method; with the images, and what is explained and predicted.
    """

    subject: Subject
    rows: Scores
    kept: Mapping[float, Sequence[float]]
    comparison: Comparison
    claims: Sequence[Claim]
    without: Sequence[str]
    maps: Mapping[str, Tensor]

    @property
    def std(self) -> float | None:
        return _std(self.subject)


def _std(found: Subject) -> float | None:
    return None if found.level is None else found.level.std


def run_study(lab: Lab, study: Study, kept: str | Path | None = None) -> dict[str, NetworkResult]:
    """All networks of a study, one after the other.

    Args:
        lab: Where networks and data come from.
        study: See `Study`.
        kept: Folder for finished batches, to go on with after an interruption; None keeps none.

    Raises:
        ValueError: if the study is wrong or something is missing: before any network is trained.
    """
    _check(study)
    require(lab, study)
    return {name: _of_network(lab, study, name, kept) for name in study.named_networks}


def directions(study: Study) -> dict[str, bool | None]:
    """`higher_is_better` of all metrics, those in further masks too."""
    measured = study.all_measures(0.1)
    known = {name: metric.higher_is_better for name, metric in measured.items()} | {GRADIENTS: None}
    return known | {
        _in_mask(name, mask): metric.higher_is_better
        for mask in study.masks[1:]
        for name, metric in measured.items()
        if asks_mask(metric)
    }


def _check(study: Study) -> None:
    """Everything that can be wrong in the file itself."""
    study.explainers(0.1)
    known = directions(study)
    if GRADIENTS in study.metrics:
        raise ValueError(f"`metrics`: the name {GRADIENTS!r} is taken, for what the methods spend.")
    if not study.measures(0.1):
        raise ValueError(f"`metrics`: all of {', '.join(study.metrics)} need `masks`, and the study has none.")
    if study.maps < 0:
        raise ValueError(f"`maps` must be 0 or more, got {study.maps}.")
    _check_claims(study, known)
    known_values(study.kept_under, study.at(0.1))
    _, costs = resolved([study.kept_draws, study.equal_costs], study.variables)
    if not isinstance(costs, list) or not all(isinstance(cost, int) and cost > 0 for cost in costs):
        raise ValueError(f"`equal_costs` must be a list of numbers of gradients, got {costs!r}.")
    _check_figures(study)
    for metric, table in study.published.items():
        if metric not in known:
            raise ValueError(f"`published`: {metric!r} is no metric of the study; there are {', '.join(known)}.")
        for method, number in table.items():
            numbers = list(number.values()) if isinstance(number, Mapping) else [number]
            if not all(isinstance(value, int | float) for value in numbers):
                raise ValueError(f"`published`: {method} must have a number, or numbers by network, got {number!r}.")


def _check_claims(study: Study, known: Mapping[str, bool | None]) -> None:
    for group in study.claims:
        if missing := {"title", "metrics", "pairs"} - group.keys():
            raise ValueError(f"`claims`: a group needs {', '.join(sorted(missing))}; got {group!r}.")
        if not isinstance(group["metrics"], list) or not isinstance(group["pairs"], list):
            raise ValueError(f"`claims`: `metrics` and `pairs` of {group['title']!r} must be lists.")
        study.pairs(group, 0.1)
        for metric in group["metrics"]:
            if known.get(metric) is None:
                raise ValueError(f"`claims`: {metric!r} is no metric of the study that has a better side.")
    titles = [group["title"] for group in study.claims]
    if twice := {title for title in titles if titles.count(title) > 1}:
        raise ValueError(f"`claims`: two groups have the title {min(twice)!r}.")


def _check_figures(study: Study) -> None:
    curves, allowed = study.curves or {}, ("over", "where", "label", "level", "published")
    if study.curves is not None and ("over" not in curves or not curves.keys() <= set(allowed)):
        raise ValueError(f"`curves` must have `over`, and no other than {', '.join(allowed)}; got {curves!r}.")
    if not isinstance(curves.get("where", {}), Mapping) or len(curves.get("published", (0, 0))) != 2:
        raise ValueError("`curves`: `where` must be a mapping, `published` two numbers: from where to where.")
    if study.grid is not None and len(study.grid) != 2:
        raise ValueError(f"`grid` must be two names, got {study.grid!r}.")
    coordinates = study.coordinates(0.1)
    varied = {name: value for bound in coordinates.values() for name, value in bound.items()}
    for part, names in {"curves": [curves["over"]] if curves else [], "grid": study.grid or []}.items():
        for name in names:
            if name not in varied:
                known_names = ", ".join(varied) or "none"
                raise ValueError(f"`{part}`: no method has {name!r} in its `for`; there are {known_names}.")
            if not isinstance(varied[name], int | float):
                raise ValueError(f"`{part}`: {name!r} must have numbers for its values, got {varied[name]!r}.")
    if study.grid is not None:
        cells: dict[tuple[Any, ...], str] = {}
        for method, bound in coordinates.items():
            place = tuple(bound.get(name) for name in study.grid)
            if None not in place and cells.setdefault(place, method) != method:
                raise ValueError(f"`grid`: {cells[place]} and {method} have the same cell. Draw one kind of method.")


def _of_network(lab: Lab, study: Study, name: str, kept: str | Path | None) -> NetworkResult:
    found = subject(lab, study, name)
    std = _std(found)
    methods, measured = study.explainers(std), study.measures(std)
    first = next(iter(found.samples.values()))
    settings = {
        "methods": {key: repr(method) for key, method in methods.items()},
        "metrics": repr(study.measured(std)),
        "masks": study.masks,
        "maps": study.maps,
        "precision": lab.precision,
        "seed": lab.seed,
        "batch_size": study.batch_size,
        "bounds": repr(found.bounds),
        "weights": fingerprint(found.model),
        "samples": _digest(found),
    }
    cells = Cells(None if kept is None else Path(kept) / re.sub(r"[^\w-]+", "_", name), settings)
    parts = torch.arange(len(first.images)).split(study.batch_size)
    scored = [
        _scored(lab, study, found, part, methods, measured, cells)
        for part in tqdm(parts, name, disable=not lab.progress, leave=False)
    ]
    rows = Scores.concatenated(part["rows"] for part in scored)
    claims, without = _judged(study, name, rows, std)
    run = Run(name, rows, directions(study))
    return NetworkResult(
        replace(found, model=torch.nn.Identity()),  # the next network needs the memory
        rows,
        _kept(lab, study, found),
        compare_methods([run], seed=lab.seed, procedure=study.procedure),
        claims,
        without,
        {key: torch.cat([part["maps"][key] for part in scored if part["maps"]]) for key in scored[0]["maps"]},
    )


def _digest(found: Subject) -> str:
    """A short name of the samples: inputs, classes, masks, numbers."""
    digest = hashlib.sha256()
    for samples in found.samples.values():
        for part in (samples.images, samples.index, samples.masks, found.target):
            if part is not None:
                digest.update(str((part.shape, part.dtype)).encode() + part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _scored(
    lab: Lab,
    study: Study,
    found: Subject,
    part: Tensor,
    methods: Mapping[str, Explainer],
    measured: Mapping[str, SampleMetric],
    cells: Cells,
) -> dict[str, Any]:
    """Scores of some samples, computed if they are not kept; of further masks from the same maps."""
    chosen = {mask: samples.select(part) for mask, samples in found.samples.items()}
    (_, first), *others = chosen.items()
    shown = min(len(part), max(0, study.maps - int(part[0])))

    def compute() -> dict[str, Any]:
        evaluation = evaluate(
            found.model,
            first.images,
            None if found.target is None else found.target[part.to(found.target.device)],
            methods,
            measured,
            first.masks,
            bounds=found.bounds,
            index=first.index,
            seed=lab.seed,
            precision=lab.precision,
            batch_size=len(part),
            keep_attributions=len(part) if others else shown,
            progress=lab.progress,
        )
        for mask, samples in others:
            for method, whole in evaluation.attributions.items():
                evaluation.scores[method].update(_in_other_mask(measured, whole, mask, samples))
        seen = {"images": evaluation.images, "target": evaluation.target, "predicted": evaluation.predicted}
        if evaluation.masks is not None:
            seen["masks"] = evaluation.masks
        seen |= {f"method {name}": part for name, part in evaluation.attributions.items()}
        maps = {key: value[:shown].cpu() for key, value in seen.items()} if shown else {}
        return {"scores": evaluation.scores, "maps": maps}

    result = cells.once(f"samples-{int(part[0]):06d}-{len(part)}", compute)
    return {"rows": Scores.from_values("test", 0, 0, first.index, result["scores"]), "maps": result["maps"]}


def _in_other_mask(
    measured: Mapping[str, SampleMetric], maps: Tensor, mask: str, samples: Samples
) -> Iterator[tuple[str, Tensor]]:
    for name, metric in measured.items():
        if asks_mask(metric):
            own = deepcopy(metric)
            own.update(maps.cpu(), mask=None if samples.masks is None else samples.masks.cpu())
            yield _in_mask(name, mask), own.per_sample()[1]


def _in_mask(metric: str, mask: str) -> str:
    return f"{metric}_of_{mask}"


def _kept(lab: Lab, study: Study, found: Subject) -> dict[float, list[float]]:
    """The share of predicted classes that each noisy network keeps."""
    levels = known_values(study.kept_under, study.at(_std(found)))
    if not levels:
        return {}
    draws = resolved(study.kept_draws, study.variables)
    images = next(iter(found.samples.values())).images
    classes = predicted(lab, found.model, images)
    with in_precision(found.model, lab.precision):
        return {
            std: right_under_noise(found.model, images, classes, std, draws, lab.seed).mean(1).tolist()
            for std in sorted(set(levels))
        }


def _judged(study: Study, network: str, rows: Scores, std: float | None) -> tuple[list[Claim], list[str]]:
    """The claims, corrected group by group; and those about methods or metrics that are not there."""
    methods, metrics, higher = {row.method for row in rows}, {row.metric for row in rows}, directions(study)
    claims: list[Claim] = []
    without: list[str] = []
    for group in study.claims:
        pairs = study.pairs(group, std)
        without += [" > ".join(pair) for pair in pairs if not methods.issuperset(pair)]
        without += [metric for metric in group["metrics"] if metric not in metrics]
        known = [pair for pair in pairs if methods.issuperset(pair)]
        measured = [metric for metric in group["metrics"] if metric in metrics]
        claims += judged(rows, known, measured, higher, network, group["title"])
    return claims, without


def judged(
    rows: Scores,
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    higher_is_better: Mapping[str, bool | None],
    network: str = "",
    group: str = "",
) -> list[Claim]:
    """Is the first of each pair better than the second, in each metric? Holm's correction over all of them."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        scores.setdefault((row.method, row.metric), {})[row.sample] = row.value
    found = [
        _claim(network, group, pair, metric, scores, bool(higher_is_better[metric]))
        for pair in pairs
        for metric in metrics
    ]
    tested = [claim.p for claim in found if claim.num_samples]
    corrected = iter(holm(np.array(tested, dtype=float)).tolist())
    return [replace(claim, p_holm=next(corrected)) if claim.num_samples else claim for claim in found]


def _claim(
    network: str,
    group: str,
    pair: tuple[str, str],
    metric: str,
    scores: Mapping[tuple[str, str], Mapping[int, float]],
    higher: bool,
) -> Claim:
    first, second = (scores[method, metric] for method in pair)
    values = np.array([[first[sample], second[sample]] for sample in first], dtype=float).reshape(-1, 2).T
    one, other = values[:, np.isfinite(values).all(0)]
    p, effect = paired_test(one, other, higher_is_better=higher)
    gains = (one - other) * (1 if higher else -1)
    gain, error = mean_and_standard_error(gains)
    return Claim(network, group, *pair, metric, len(gains), gain, error, int((gains > 0).sum()), effect, p)
