"""AdaptGrad's table 1: maps should depend on what a network has learned, and on nothing but what it computes."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_xai.experiments.papers.experiment import Experiment, Found
from lightning_xai.explainers import Explainer, Gradient, PerturbWeights, RandomAttribution, adapt_grad, smooth_grad
from lightning_xai.explainers.base import Context, resolve_target
from lightning_xai.functional.random import fold_in_int
from lightning_xai.reporting.charts import Bars, bars_figure
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.sanity import MARGIN, Cell, CellKey
from lightning_xai.results.scores import Scores as SampleScores
from lightning_xai.results.tables import ResultTable
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.checks import Subject, compared_cells, floor_cells, original_maps
from lightning_xai.sanity.examine import MEMORIZED
from lightning_xai.sanity.invariance import Compensation, relative_difference, shifted_twin
from lightning_xai.sanity.randomization import parameter_blocks, randomize
from lightning_xai.sanity.similarity import spearman
from lightning_xai.sanity.verdicts import invariance_verdict, randomization_verdict
from lightning_xai.shapes import Images, Scores
from lightning_xai.statistics.means import mean_and_error, mean_and_standard_error
from lightning_xai.statistics.paired import holm, paired_test
from lightning_xai.studies.lab import Lab, described
from lightning_xai.studies.networks import TrainedNetwork

SOURCE = "AdaptGrad (Zhou et al. 2024, arXiv 2410.07711), table 1: consistency and invariance on MNIST"
METHODS = ("Grad", "SG", "AG", "NG", "S-NG", "A-NG")
PUBLISHED = {
    "consistency": dict(zip(METHODS, (0.0209, 0.0189, 0.0203, 0.0209, 0.0190, 0.0202), strict=True)),
    "invariance": dict(zip(METHODS, (0.3483, 0.3625, 0.3480, 0.3483, 0.3615, 0.3485), strict=True)),
}
DIFFERENCE_NOTE = (
    "The published numbers are no reference: the released code hands images of floating-point numbers to a constructor"
    " of 8-bit images, which garbles them, its network with random labels is not trained, and the bias of its shifted"
    " network does not take the shift back."
)
NETWORK = "mnist_mlp"
BY_HEART = {
    "data.init_args.val_size": 40_000,  # 200 units learn the random labels of the other 20,000 in about 160 epochs
    "data.init_args.batch_size": 128,
    "trainer.max_epochs": 500,
    "model.init_args.optimizer.class_path": "torch.optim.Adam",
    "model.init_args.optimizer.init_args.lr": 0.001,
}
"""How the network is trained on random labels."""
FEW_BY_HEART = {"data.init_args.val_size": 1242, "data.init_args.batch_size": 32}
"""Instead, of the embedded digits: 200 of the 1,442."""
FAST_NETWORK = {
    "trainer.max_epochs": 3,
    "model.init_args.optimizer.class_path": "torch.optim.Adam",
    "model.init_args.optimizer.init_args.lr": 0.003,
}
RANDOM = "random maps"

Table = dict[str, dict[str, np.ndarray]]
"""Scores of the samples: by comparison, by method."""


def run(
    lab: Lab,
    num_samples: int = 256,
    num_draws: int = 50,
    fraction: float = 0.2,
    confidence: float = 0.95,
    weight_std: float = 0.2,
    shift: float = -1.0,
    num_twins: int = 3,
    changes: dict[str, Any] | None = None,
    twin_changes: dict[str, Any] | None = None,
) -> Found:
    """Consistency and invariance of the gradient, SmoothGrad, AdaptGrad, NoiseGrad and their combinations.

    Args:
        lab: See `Lab`.
        num_samples: Test images.
        num_draws: Number of draws of input noise, of weight noise, and where both are combined of each: then it is
            squared.
        fraction: SmoothGrad's noise over the range of the data.
        confidence: AdaptGrad's.
        weight_std: NoiseGrad's noise relative to each weight.
        shift: What is added to the images, in the space of the network; Kindermans et al. take -1.
        num_twins: Networks trained on random labels, of the configuration's seed and the next ones; a verdict takes
            three. Consistency is the mean over them.
        changes: Values that replace the configuration's, by dotted name.
        twin_changes: More of them, for the networks that are trained on random labels; null for what it takes to learn
            them by heart.
    """
    if twin_changes is None:
        twin_changes = BY_HEART | (FEW_BY_HEART if lab.embedded else {})
    trained = lab.network(NETWORK, changes)
    other = lab.network(NETWORK, {**(changes or {}), **_moved(trained.data, shift)})
    twins = lab.twins(NETWORK, {**(changes or {}), **twin_changes}, num_twins)
    methods = paper_methods(num_draws, fraction, confidence, weight_std)
    subject = _subject(lab, trained, num_samples, methods)
    originals = original_maps(subject, Cells(None, {}), lab.progress)
    consistency, cells = consistency_scores(lab, subject, originals, [twin.model for twin in twins])
    invariance = invariance_table(lab, subject, originals, other.model, shift)
    known = min(twin.accuracy for twin in twins)
    judged = methods if known >= MEMORIZED else ()
    verdicts = {m: randomization_verdict("data", m, cells, "consistency").outcome for m in judged}
    networks = {"trained": trained, "other": other} | {f"twin {number}": twin for number, twin in enumerate(twins)}
    tables = {**consistency, **invariance}
    by_method = {m: {name: table[m] for name, table in tables.items() if m in table} for m in (*METHODS, RANDOM)}
    better = {**dict.fromkeys(tables), "consistency": False} | {f"invariance, {how}": True for how in _COMPENSATIONS}
    labels = f"{len(twins)} twins know at least {known:.1%} of {_number(twins[0].data)} random labels"
    result = Reproduction(
        SOURCE,
        (_consistency_table(consistency, verdicts, labels), _invariance_table(invariance)),
        {},
        {},
        {
            "networks": described(networks),
            "methods": {name: repr(method) for name, method in methods.items()},
            "num_samples": len(subject.images),
            "shift": shift,
            "precision": lab.precision,
            "seed": lab.seed,
        },
        tuple(_findings(consistency, invariance, verdicts, known)),
        runs={NETWORK: (SampleScores.from_values("test", 0, 0, subject.index, by_method), better)},
    )
    return result, {"adaptgrad-table1": _figure(consistency, invariance)}


def paper_methods(num_draws: int, fraction: float, confidence: float, weight_std: float) -> dict[str, Explainer]:
    """The rows of the table, signed as in the paper; SmoothGrad's noise is a fraction of the data's range."""
    plain: dict[str, Explainer] = {
        "Grad": Gradient(),
        "SG": smooth_grad(fraction=fraction, num_draws=num_draws, of="data"),
        "AG": adapt_grad(confidence=confidence, num_draws=num_draws),
    }
    noisy = (PerturbWeights(method, weight_std, num_draws) for method in plain.values())
    return {**plain, **dict(zip(METHODS[3:], noisy, strict=True))}


def absolute_spearman(first: Tensor, second: Tensor) -> Scores:
    """Of the signed maps: whether one says anything of the other, be it the opposite."""
    return spearman(first, second).abs()


def _moved(data: Any, shift: float) -> dict[str, Any]:
    """Of a configuration: other images, shifted, and another seed."""
    means, stds = data.normalize.mean - shift * data.normalize.std, data.normalize.std
    moments = {"data.init_args.mean": means.flatten().tolist(), "data.init_args.std": stds.flatten().tolist()}
    return {**moments, "seed_everything": 1}


def _number(data: Any) -> int:
    """Of training images."""
    data.setup("fit")
    return len(data.train_dataloader().dataset)


def _subject(lab: Lab, trained: TrainedNetwork, num_samples: int, methods: Mapping[str, Explainer]) -> Subject:
    samples = lab.samples(trained, num_samples)
    target = resolve_target(trained.model, samples.images, None)
    return Subject(
        trained.model,
        samples.images,
        target,
        samples.index,
        methods,
        {"consistency": absolute_spearman},
        trained.bounds,
        labels=samples.labels,
        seed=lab.seed,
        precision=lab.precision,
    )


# Consistency


def consistency_scores(
    lab: Lab, subject: Subject, originals: Mapping[str, Tensor], twins: Sequence[nn.Module]
) -> tuple[Table, list[Cell]]:
    """|Spearman| of the maps with those of the twins, of an untrained network, of other images; with their cells."""
    blocks = parameter_blocks(subject.model, subject.images)
    untrained = randomize(subject.model, blocks, "own", fold_in_int(lab.seed, 2), "keep", subject.images)
    nowhere = Cells(None, {})
    key, cells = CellKey("data", "labels", 0, "", 0, ""), list[Cell]()
    for number, twin in enumerate(twins):
        cells += compared_cells(subject, originals, nowhere, replace(key, repeat=number), partial(nn.Module.eval, twin))
    full = CellKey("parameters", "full", 0, "", 0, "")
    floors = floor_cells(subject, originals)
    table = {
        "consistency": _by_method(cells),
        "different images": _by_method([cell for cell in floors if cell.key.variant == "different_images"]),
        "untrained": _by_method(compared_cells(subject, originals, nowhere, full, lambda: untrained)),
    }
    table["consistency"][RANDOM] = random_floor(subject.images, lab.seed).numpy()
    return table, [*cells, *floors]


def random_floor(images: Images, seed: int = 0) -> Scores:
    """|Spearman| of two maps that are random and independent: about √(2 / (π (pixels - 1)))."""
    seeds = (fold_in_int(seed, 10 + number) for number in range(2))
    contexts = (Context.create(torch.arange(len(images)), one) for one in seeds)
    return absolute_spearman(*(RandomAttribution()(nn.Identity(), images.cpu(), 0, context) for context in contexts))


def _by_method(cells: Sequence[Cell]) -> dict[str, np.ndarray]:
    """Means over the networks."""
    methods = dict.fromkeys(cell.key.method for cell in cells)
    return {m: np.mean([c.scores["consistency"] for c in cells if c.key.method == m], axis=0) for m in methods}


# Invariance


def invariance_table(
    lab: Lab, subject: Subject, originals: Mapping[str, Tensor], other: nn.Module, shift: float
) -> Table:
    """Spearman of the maps with those of the shifted twin, which takes the shift back in its input or in its bias, and
    of another network, trained on shifted images; with the relative difference of the maps."""
    twins = {f"invariance, {how}": shifted_twin(subject.model, shift, subject.images, how) for how in _COMPENSATIONS}
    moved, table = shifted(subject, shift), Table()
    for comparison, twin in {**twins, "other network": other}.items():
        maps = {name: moved.attributions(twin, method) for name, method in subject.methods.items()}
        table[comparison] = {name: spearman(originals[name], own).numpy() for name, own in maps.items()}
        table[f"{comparison}: relative difference"] = {
            name: relative_difference(originals[name], own).numpy() for name, own in maps.items()
        }
    return table


_COMPENSATIONS: tuple[Compensation, ...] = ("input", "bias")


def shifted(subject: Subject, shift: float) -> Subject:
    """The same samples, classes and noise; images and bounds are shifted."""
    low, high = (torch.as_tensor(bound).to(subject.images) + shift for bound in subject.bounds or ())
    return replace(subject, images=subject.images + shift, bounds=(low, high))


# Tables


def against_gradient(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Wilcoxon's p-value of each method's difference from the gradient, after Holm's correction over the methods."""
    found, gradient = dict[str, float](), scores["Grad"]
    for name in [name for name in scores if name not in ("Grad", RANDOM)]:
        defined = np.isfinite(scores[name]) & np.isfinite(gradient)
        found[name] = paired_test(scores[name][defined].astype(float), gradient[defined].astype(float))[0]
    return dict(zip(found, holm(np.array([*found.values()])).tolist(), strict=True))


def _p_texts(scores: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {"Grad": ""} | {name: f"{p:.2g}" for name, p in against_gradient(scores).items()}


def _consistency_table(scores: Table, verdicts: Mapping[str, str], labels: str) -> ResultTable:
    p_texts, measured = _p_texts(scores["consistency"]), scores["consistency"]
    rows = [
        (
            name,
            mean_and_error(measured[name]),
            p_texts[name],
            mean_and_error(scores["different images"][name]),
            verdicts.get(name, "none"),
            mean_and_error(scores["untrained"][name]),
            f"{PUBLISHED['consistency'][name]:.4f}",
        )
        for name in METHODS
    ]
    return ResultTable(
        "Consistency: mean |Spearman| with the maps of networks that know random labels by heart ↓",
        ("method", "measured", "p against Grad", "different images", "verdict", "untrained network", "published"),
        (*rows, (RANDOM, mean_and_error(measured[RANDOM]), "", "", "", "", "none")),
        (
            labels
            + (". " if verdicts else f", less than the {MEMORIZED:.0%} that a verdict needs. ")
            + "All networks explain the class that the trained one predicts, with the same noise.",
            f"PASS: the whole interval of the mean, for other twins and images, is at most {MARGIN:.0%} of the way to 1"
            " above the floor, the greater one of maps of different images and of a random map; FAIL: above that.",
            "p: Wilcoxon's signed-rank test, paired by image, Holm's correction over five methods. ± standard error.",
            DIFFERENCE_NOTE,
        ),
    )


def _invariance_table(scores: Table) -> ResultTable:
    shown = [(scores[f"invariance, {how}"], _p_texts(scores[f"invariance, {how}"])) for how in _COMPENSATIONS]
    rows = [
        (
            name,
            *itertools.chain(*((mean_and_error(found[name]), p_texts[name]) for found, p_texts in shown)),
            mean_and_error(scores["other network"][name]),
            f"{PUBLISHED['invariance'][name]:.4f}",
        )
        for name in METHODS
    ]
    return ResultTable(
        "Invariance: Spearman with the maps of a twin that takes the shift back ↑",
        ("method", "in the input", "p against Grad", "in the bias", "p against Grad", "other network", "published"),
        tuple(rows),
        (
            "The twin computes at the shifted image what the network does at the image: it takes the shift back in the"
            " input or in the bias of its first layer. Both explain the same class with the same noise; AdaptGrad's"
            " bounds move with the images.",
            "The weight noise of NG is on the bias too, which then no longer takes the shift back: the noisy models are"
            " no twins of each other.",
            "Other network: trained on shifted images from another seed, as in the published comparison, but on intact"
            " images.",
            DIFFERENCE_NOTE,
        ),
    )


def _findings(consistency: Table, invariance: Table, verdicts: Mapping[str, str], known: float) -> Iterator[str]:
    floor = float(np.nanmean(consistency["consistency"][RANDOM]))
    below = [f"{n} {value:.4f}" for n, value in PUBLISHED["consistency"].items() if value < floor]
    yield f"Random maps score {floor:.4f} in consistency" + (
        f", more than the published {', '.join(below)}." if below else ", less than all published numbers."
    )
    if verdicts:
        yield f"Consistency: {_grouped(verdicts)}."
    else:
        yield f"No verdict on consistency: a twin knows only {known:.1%} of its labels."
    yield _differing("consistency", consistency["consistency"])
    key = CellKey("invariance", "shift", 0, "", 0, "")
    for how in _COMPENSATIONS:
        scores = invariance[f"invariance, {how}"]
        cells = [Cell(replace(key, method=name), {"spearman": scores[name]}) for name in METHODS]
        outcomes = {name: invariance_verdict(name, cells, "spearman").outcome for name in METHODS}
        yield f"Invariance, compensated in the {how}: {_grouped(outcomes)}."
        yield _differing(f"invariance, {how}", scores)


def _grouped(outcomes: Mapping[str, str]) -> str:
    """Which methods pass, and which do not."""
    kinds = dict.fromkeys(outcomes.values())
    return "; ".join(f"{kind} {', '.join(name for name in outcomes if outcomes[name] == kind)}" for kind in kinds)


def _differing(comparison: str, scores: Mapping[str, np.ndarray]) -> str:
    gradient = np.nanmean(scores["Grad"])
    words = (
        f"{name} is {'higher' if np.nanmean(scores[name]) > gradient else 'lower'}"
        for name, p in against_gradient(scores).items()
        if p <= 0.05
    )
    return f"{comparison.capitalize()}, against Grad: {', '.join(words) or 'no method differs'} (p ≤ 0.05)."


# Figure


def _figure(consistency: Table, invariance: Table) -> Figure:
    """Measured beside published, with the floors."""
    titles = {"consistency": "Consistency: |Spearman| ↓", "invariance": "Invariance: Spearman ↑"}
    names = {"consistency": "random labels"}
    names |= {f"invariance, {how}": f"shift compensated in the {how}" for how in _COMPENSATIONS}
    panels = []
    for part, table in {"consistency": consistency, "invariance": invariance}.items():
        series = {
            names.get(name, name): [mean_and_standard_error(scores[method]) for method in METHODS]
            for name, scores in table.items()
            if not name.endswith("relative difference")
        }
        series["published"] = [(PUBLISHED[part][method], np.nan) for method in METHODS]
        floor = {f"two {RANDOM}": float(np.nanmean(table[part][RANDOM]))} if part in table else {}
        panels.append(Bars(titles[part], METHODS, series, floor))
    notes = ["Bars: mean and standard error over test images.", DIFFERENCE_NOTE]
    return bars_figure("AdaptGrad's table 1", panels, notes)


EXPERIMENT = Experiment(
    "consistency and invariance, with proper twins",
    run,
    {
        "num_samples": 48,
        "num_draws": 6,
        "changes": FAST_NETWORK,
        "twin_changes": {"data.init_args.val_size": 1242, "trainer.max_epochs": 200},
    },
)
