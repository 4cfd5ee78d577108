"""Runs a study: scores, comparisons and claims, for every network."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lightning_xai.callbacks.samples import Samples
from lightning_xai.evaluation import evaluate
from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.noise_level import right_under_noise
from lightning_xai.experiments.runs import Run
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.precision import in_precision
from lightning_xai.fingerprints import fingerprint
from lightning_xai.metrics import SampleMetric
from lightning_xai.progress import progress_bar
from lightning_xai.reporting.saving import file_name
from lightning_xai.results.comparison import Comparison
from lightning_xai.results.scores import Scores
from lightning_xai.sanity.cells import Cells
from lightning_xai.statistics.means import mean_and_standard_error
from lightning_xai.statistics.paired import holm, paired_test
from lightning_xai.studies.entries import known_values, resolved
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.study import Study, asks_mask, check, in_mask
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

    Example:
        >>> from lightning_xai.studies.engine import Claim
        >>> claim = Claim("LeNet", "Sparsity", "adapt_grad", "smooth_grad", "sparseness", 64, gain=0.02,
        ...               standard_error=0.003, better_in=58, effect=0.9, p=1e-6, p_holm=2e-6)
        >>> claim.verdict
        'yes'
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
        comparison: Comparison of all methods.
        claims: Judged.
        without: Claims that name a method which is not there.
        maps: Maps of the samples shown, by method; with the images, and what is explained and predicted.
    """

    subject: Subject
    rows: Scores
    kept: Mapping[float, Sequence[float]]
    comparison: Comparison
    claims: Sequence[Claim]
    without: Sequence[str]
    maps: Mapping[str, Tensor]

    def values(self, method: str | None, metric: str) -> np.ndarray:
        """Scores of the samples; of a method that there is not, none."""
        return np.array([row.value for row in self.rows if (row.method, row.metric) == (method, metric)])


def run_study(lab: Lab, study: Study, kept: str | Path | None = None) -> dict[str, NetworkResult]:
    """All networks of a study, one after the other.

    Args:
        lab: Where networks and data come from.
        study: See `Study`.
        kept: Folder for finished batches, to go on with after an interruption; None keeps none.

    Raises:
        ValueError: if the study is wrong or something is missing: before any network is trained.

    Returns:
        What is found, by the name of the network.

    Example:
        >>> import tempfile
        >>> import yaml
        >>> from lightning_xai.studies.engine import run_study
        >>> from lightning_xai.studies.lab import Lab
        >>> from lightning_xai.studies.study import study_of
        >>> text = '''
        ... source: Is AdaptGrad sparser than SmoothGrad?
        ... networks: {digits: {config: mnist_lenet, changes: {trainer.max_epochs: 1}}}
        ... methods: [smooth_grad, adapt_grad]
        ... metrics: [sparseness]
        ... num_samples: 8
        ... claims: [{title: Sparsity, metrics: [sparseness], pairs: [adapt_grad > smooth_grad]}]
        ... '''
        >>> lab = Lab(embedded=True, cache=tempfile.mkdtemp(), device="cpu", progress=False)
        >>> result = run_study(lab, study_of(yaml.safe_load(text)))["digits"]  # trains it first
        >>> len(result.values("adapt_grad", "sparseness")), len(result.claims)
        (8, 1)
    """
    check(study)
    require(lab, study)
    return {name: _of_network(lab, study, name, kept) for name in study.named_networks}


def _of_network(lab: Lab, study: Study, name: str, kept: str | Path | None) -> NetworkResult:
    found = subject(lab, study, name)
    methods, measured = study.explainers(found.std), study.measures(found.std)
    settings = {
        "methods": {key: repr(method) for key, method in methods.items()},
        "metrics": repr(study.specified("metrics", found.std)),
        "masks": study.masks,
        "maps": study.maps,
        "precision": lab.precision,
        "seed": lab.seed,
        "batch_size": study.batch_size,
        "bounds": repr(found.network.bounds),
        "weights": fingerprint(found.network.model),
        "samples": _digest(found),
    }
    cells = Cells(None if kept is None else Path(kept) / file_name(name), settings)
    parts = torch.arange(len(found.first.images)).split(study.batch_size)
    scored = [
        _scored(lab, study, found, part, methods, measured, cells)
        for part in progress_bar(name, len(parts), shown=lab.progress, items=parts)
    ]
    rows = Scores.concatenated(part["rows"] for part in scored)
    claims, without = _judged(study, name, rows, found.std)
    return NetworkResult(
        replace(found, network=replace(found.network, model=torch.nn.Identity())),  # the next one needs the memory
        rows,
        _kept(lab, study, found),
        compare_methods([Run(name, rows, study.directions())], seed=lab.seed, procedure=study.procedure),
        claims,
        without,
        {key: torch.cat([part["maps"][key] for part in scored if part["maps"]]) for key in scored[0]["maps"]},
    )


def _digest(found: Subject) -> str:
    """A short name of the samples: inputs, classes, masks, numbers."""
    each = ((part.images, part.index, part.masks, found.target) for part in found.samples.values())
    parts = [part.cpu().contiguous() for part in itertools.chain(*each) if part is not None]
    whole = b"".join(str((part.shape, part.dtype)).encode() + part.numpy().tobytes() for part in parts)
    return hashlib.sha256(whole).hexdigest()[:16]


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
            found.network.model,
            first.images,
            None if found.target is None else found.target[part.to(found.target.device)],
            methods,
            measured,
            first.masks,
            bounds=found.network.bounds,
            index=first.index,
            seed=lab.seed,
            precision=lab.precision,
            batch_size=len(part),
            keep_attributions=len(part) if others else shown,
            progress=lab.progress,
        )
        for mask, samples in others:
            for method, whole in evaluation.attributions.items():
                evaluation.scores[method] |= {
                    in_mask(name, mask): _localization(metric, whole, samples)
                    for name, metric in measured.items()
                    if asks_mask(metric)
                }
        seen = {"images": evaluation.images, "target": evaluation.target, "predicted": evaluation.predicted}
        if evaluation.masks is not None:
            seen["masks"] = evaluation.masks
        seen |= {f"method {name}": part for name, part in evaluation.attributions.items()}
        maps = {key: value[:shown].cpu() for key, value in seen.items()} if shown else {}
        return {"scores": evaluation.scores, "maps": maps}

    result = cells.once(f"samples-{int(part[0]):06d}-{len(part)}", compute)
    return {"rows": Scores.from_values("test", 0, 0, first.index, result["scores"]), "maps": result["maps"]}


def _localization(metric: SampleMetric, maps: Tensor, samples: Samples) -> Tensor:
    """Scores of maps in another mask."""
    own = deepcopy(metric)
    own.update(maps.cpu(), mask=None if samples.masks is None else samples.masks.cpu())
    return own.per_sample()[1]


def _kept(lab: Lab, study: Study, found: Subject) -> dict[float, list[float]]:
    """The share of predicted classes that each noisy network keeps."""
    levels = known_values(study.kept_under, study.at(found.std))
    if not levels:
        return {}
    draws = resolved(study.kept_draws, study.variables)
    model, images = found.network.model, found.first.images
    classes = predicted(lab, model, images)
    with in_precision(model, lab.precision):
        return {
            std: right_under_noise(model, images, classes, std, draws, lab.seed).mean(1).tolist()
            for std in sorted(set(levels))
        }


def _judged(study: Study, network: str, rows: Scores, std: float | None) -> tuple[list[Claim], list[str]]:
    """The claims, corrected group by group; and those about methods or metrics that are not there."""
    methods, metrics, higher = set(rows.unique("method")), set(rows.unique("metric")), study.directions()
    claims: list[Claim] = []
    without: list[str] = []
    for group in study.claims:
        pairs = study.pairs("claim", group["pairs"], std)
        known = [pair for pair in pairs if methods.issuperset(pair)]
        measured = [metric for metric in group["metrics"] if metric in metrics]
        without += [" > ".join(pair) for pair in pairs if pair not in known]
        without += [metric for metric in group["metrics"] if metric not in measured]
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
    scores = rows.by_sample()
    found = [
        _claim(network, group, pair, metric, scores[metric], bool(higher_is_better[metric]))
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
    scores: Mapping[str, pd.Series],
    higher: bool,
) -> Claim:
    first, second = (scores[method] for method in pair)
    values = np.array([first, second.reindex(first.index)])
    one, other = values[:, np.isfinite(values).all(0)]
    p, effect = paired_test(one, other, higher_is_better=higher)
    gains = (one - other) * (1 if higher else -1)
    gain, error = mean_and_standard_error(gains)
    return Claim(network, group, *pair, metric, len(gains), gain, error, int((gains > 0).sum()), effect, p)
