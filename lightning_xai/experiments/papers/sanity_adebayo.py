"""The sanity checks of Adebayo et al. with their networks: weights randomized from the output down, random labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_xai.experiments.papers.experiment import Experiment, Found, Row, rows_of
from lightning_xai.explainers import with_controls
from lightning_xai.explainers.base import check_choice
from lightning_xai.reporting.sanity_figures import sanity_figures
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.sanity import Check, SanityReport
from lightning_xai.results.tables import ResultTable
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import Examined, examine, paper_methods
from lightning_xai.sanity.randomization import Initialization, Randomization
from lightning_xai.sanity.similarity import SIMILARITIES
from lightning_xai.statistics.means import defined
from lightning_xai.studies.lab import Lab, described
from lightning_xai.studies.networks import TrainedNetwork

SOURCE = "Sanity Checks for Saliency Maps (Adebayo et al. 2018, arXiv 1810.03292), MNIST"
PUBLISHED_CASCADE = {
    "gradient": (0.60, 0.40, 0.11, 0.08),
    "grad_cam": (0.56, 0.34, 0.29, 0.30),
    "guided_backprop": (0.89, 0.77, 0.63, 0.44),
    "guided_grad_cam": (0.56, 0.36, 0.33, 0.28),
}
"""Of the CNN: |Spearman| after each step of the cascade from the output, read off the figure."""
PUBLISHED_DATA = {
    "gradient": 0.17,
    "smooth_grad": 0.25,
    "guided_backprop": 0.57,
    "grad_cam": 0.03,
    "integrated_gradients": 0.99,
    "input_x_gradient": 0.99,
}
"""Of the CNN: |Spearman| between the maps of networks trained with true and with random labels, read off the figure."""
CNN = "mnist_cnn"
CHECKS: tuple[Examined, ...] = ("parameters", "data", "invariance")


def run(
    lab: Lab,
    networks: tuple[str, ...] = (CNN, "mnist_sanity_mlp"),
    num_samples: int = 64,
    repeats: int = 8,
    num_twins: int = 3,
    similarity: str = "ssim",
    initialization: Initialization = "own",
    twin_epochs: int = 150,
    kept: str | None = None,
    changes: dict[str, Any] | None = None,
) -> Found:
    """Verdicts of all explainers of the paper, of AdaptGrad, NoiseGrad and FusionGrad, and of controls.

    Args:
        lab: See `Lab`.
        networks: Names of configurations; published numbers are of `mnist_cnn`.
        num_samples: Test samples, evenly spaced.
        repeats: Independent random networks of each step; a verdict takes three.
        num_twins: Networks trained on random labels, of the configuration's seed and the next ones; as many.
        similarity: The one that decides.
        initialization: Initialization of random weights; `normal` is the published one.
        twin_epochs: Most epochs of the training on random labels.
        kept: Folder for finished parts, to go on with after an interruption; null keeps none.
        changes: Values that replace the configurations', by dotted name.
    """
    lab.require(networks, changes)
    check_choice("similarity", similarity, SIMILARITIES)
    trained = {name: lab.network(name, changes) for name in networks}
    twins = {
        name: lab.twins(name, {**(changes or {}), "trainer.max_epochs": twin_epochs}, num_twins) for name in networks
    }
    reports = {}
    for name in networks:
        how = Randomization(repeats=repeats, initialization=initialization)
        subject = replace(examined(lab, trained[name], num_samples), randomization=how)
        reports[name] = examine(
            subject,
            CHECKS,
            similarity,
            make_twin=[(twin.model, twin.accuracy) for twin in twins[name]].__getitem__,
            num_twins=num_twins,
            folder=None if kept is None else Path(kept) / name,
            progress=lab.progress,
        )
    findings = (
        f"{name}: test accuracy {trained[name].accuracy:.4f}; its {num_twins} twins know at least "
        f"{min(twin.accuracy for twin in twins[name]):.1%} of their random labels by heart."
        for name in networks
    )
    result = Reproduction(
        SOURCE,
        tuple(table for name, report in reports.items() for table in tables_of(name, report)),
        {"similarities": [row for name, report in reports.items() for row in _records(name, report)]},
        settings={
            "seed": lab.seed,
            "initialization": initialization,
            "networks": described(trained)
            | described({f"{n}, random labels, {k}": twin for n, own in twins.items() for k, twin in enumerate(own)}),
        },
        findings=tuple(findings),
    )
    figures = {f"{n}-{k}": figure for n, report in reports.items() for k, figure in sanity_figures(report).items()}
    return result, figures


def examined(lab: Lab, network: TrainedNetwork, num_samples: int) -> Subject:
    """The network with the paper's methods, explained for the labels of test samples."""
    samples = lab.samples(network, num_samples)
    methods = with_controls(paper_methods(network.model, network.bounds is not None, samples.images))
    return Subject(
        network.model,
        samples.images,
        samples.labels,  # type: ignore[arg-type]  # our data have labels
        samples.index,
        methods,
        SIMILARITIES,
        network.bounds,
        samples.labels,
        seed=lab.seed,
        precision=lab.precision,
    )


def tables_of(name: str, report: SanityReport) -> list[ResultTable]:
    """Verdicts; |Spearman| along the cascade and under random labels, beside the published values."""
    methods = list(dict.fromkeys(verdict.method for verdict in report.verdicts))
    verdicts = {(v.check, v.method): f"{v.outcome} ({v.mean:.3f} against {v.threshold:.3f})" for v in report.verdicts}
    blocks = list(dict.fromkeys(c.key.block for c in report.cells if c.key.check == "parameters"))
    published = name == CNN
    return [
        ResultTable(
            f"{name}: verdicts",
            ("method", *CHECKS),
            tuple((method, *(verdicts[check, method] for check in CHECKS)) for method in methods),
            (
                f"In parentheses {report.verdicts[0].similarity} at the step that decided, and what it is compared "
                "with.",
            ),
        ),
        ResultTable(
            f"{name}: |Spearman| with weights randomized from the output down to",
            ("method", *blocks, *((f"published, {block}" for block in blocks) if published else ())),
            tuple(_cascade_row(report, method, blocks, published) for method in methods),
        ),
        ResultTable(
            f"{name}: maps of networks trained with true and with random labels",
            ("method", "|Spearman|", "SSIM", "foreground |Spearman|", *["published |Spearman|"] * published),
            tuple(_data_row(report, method, published) for method in methods),
        ),
    ]


def _cascade_row(report: SanityReport, method: str, blocks: Sequence[str], published: bool) -> tuple[str, ...]:
    values = (_mean(report, "parameters", method, "spearman_absolute", block) for block in blocks)
    known = [f"{value:.2f}" for value in PUBLISHED_CASCADE.get(method, ())] or [""] * len(blocks)
    return (method, *values, *known * published)


def _data_row(report: SanityReport, method: str, published: bool) -> tuple[str, ...]:
    values = (_mean(report, "data", method, name) for name in ("spearman_absolute", "ssim", "spearman_foreground"))
    known = f"{PUBLISHED_DATA[method]:.2f}" if method in PUBLISHED_DATA else ""
    return (method, *values, *[known] * published)


def _mean(report: SanityReport, check: Check, method: str, similarity: str, block: str | None = None) -> str:
    """Over samples and repeats, where it is defined."""
    cells = (c for c in report.cells if (c.key.check, c.key.method) == (check, method) and block in (None, c.key.block))
    values = defined(np.concatenate([np.empty(0), *(c.scores[similarity] for c in cells if similarity in c.scores)]))
    return f"{values.mean():.3f}" if len(values) else "undefined"


def _records(name: str, report: SanityReport) -> list[Row]:
    """A line for each comparison, similarity and sample."""
    return [
        row
        for cell in report.cells
        for similarity, values in cell.scores.items()
        for row in rows_of(
            {"network": name, **vars(cell.key), "similarity": similarity},
            sample=np.array(report.samples),
            value=values,
        )
    ]


EXPERIMENT = Experiment(
    "cascading and data randomization, input invariance, for the networks of Adebayo et al.",
    run,
    {
        "networks": ("quickstart",),
        "num_samples": 6,
        "repeats": 1,
        "twin_epochs": 200,
        "changes": {"data.init_args.val_size": 1200},
    },
)
