"""The dial: networks that depend on a cue as far as one measures, and what a search for shortcuts says of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from lightning_xai.callbacks.samples import spread
from lightning_xai.data import DialDataModule, accuracy, dependence
from lightning_xai.evaluation import explain
from lightning_xai.experiments.papers.experiment import Experiment, Found, Row, column, groups, means_table, of
from lightning_xai.experiments.papers.shortcut_tasks import TASKS, OnFrozen, trained_part
from lightning_xai.explainers import Saliency
from lightning_xai.reporting.charts import Curve, CurveAxes, curves_figure
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.shortcuts import Finding
from lightning_xai.results.tables import ResultTable
from lightning_xai.shapes import Images
from lightning_xai.shortcuts import find_shortcuts
from lightning_xai.statistics.intervals import share_interval
from lightning_xai.statistics.means import mean_and_standard_error
from lightning_xai.studies.lab import Lab

SOURCE = "Cues of known strength: what a search for shortcuts says, against the accuracy lost by swapping the cue"
CUES = ("patch", "moving_patch", "hue", "background", "grating")
DEPENDS, IGNORES = 0.10, 0.02
"""Accuracy lost by swapping the cue: at least, of a network that depends on it; less, of one that does not."""
SCALARS = {"told": "share told to depend", "border": "attribution at the border", "drift": "drift of attributions"}
_VERDICTS = ("SHORTCUT", "INCONCLUSIVE", "CLEAR")
_BORDER = 4
_STREAM = 2**20  # validation samples are looked at with other seeds than networks were trained with


@dataclass(frozen=True)
class Planned:
    """One network."""

    cue: str
    strength: float
    seed: int
    onset: int = 0

    @property
    def name(self) -> str:
        return f"{self.cue}-{self.strength:g}-{self.seed}-{self.onset}"


def run(
    lab: Lab,
    cues: tuple[str, ...] = CUES,
    strengths: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 1.0),
    num_networks: int = 2,
    num_without: int = 12,
    num_late: int = 1,
    onset: int = 2,
    first_seed: int = 100,
    num_train: int = 7000,
    num_validated: int = 1000,
    num_samples: int = 512,
    num_test: int = 2000,
    num_epochs: int = 3,
    dated: float = 1.0,
    known: bool = True,
) -> Found:
    """Train networks on pictures with cues, and search each for shortcuts.

    Args:
        lab: See `Lab`; MNIST or, embedded, scikit-learn's digits. Photographs are its backgrounds.
        cues: Which, of `TASKS`: also `watermark`, on photographs, and data sets without any cue, such as `mnist_lenet`.
        strengths: Probabilities that the cue tells the label.
        num_networks: Of each cue and strength, with seeds of their own.
        num_without: Networks of each cue at strength 0.
        num_late: Networks of each cue, at strength 1, whose cue begins to tell at `onset`.
        onset: That epoch; 0 for no such networks.
        first_seed: Of the networks; thresholds must not have been chosen on these.
        num_train: Samples to train and validate with.
        num_validated: Of these, those to validate with.
        num_samples: Of these, those that the search sees.
        num_test: Test samples, on which the true dependence is measured.
        num_epochs: Of a training, after the onset.
        dated: Strength from which on networks are searched after each epoch; the others after the last.
        known: Whether the search is told the masks of the evidence.
    """
    if unknown := set(cues) - set(TASKS):
        raise ValueError(f"`cues` must be of {', '.join(TASKS)}; got {', '.join(sorted(unknown))}.")
    sizes = {"num_train": num_train, "num_test": num_test}
    plans = _plans(cues, strengths, num_networks, num_without, num_late, onset, first_seed)
    rows = list[Row]()
    for plan in plans:
        data = dial_data(lab, plan, num_validated, **sizes)
        states = trained_states(lab, plan, data, num_epochs)
        first = 0 if plan.strength >= dated else len(states) - 1
        rows += audited(lab, plan, data, states, first, num_samples, known)
    last = [mine[-1] for mine in groups(rows, "cue", "strength", "seed", "onset").values()]
    whole = of(last, onset=0)
    any_depends = bool(split_by_truth(whole)[0])
    scalars, onsets = ((scalars_table(whole),), (onset_table(rows),)) if any_depends else ((), ())
    settings = {"seed": lab.seed, "first_seed": first_seed, "networks": len(plans), "known": known, **sizes}
    result = Reproduction(
        SOURCE,
        (rates_table(whole), said_table(whole), *scalars, _means(whole), *onsets),
        {"networks": rows},
        settings=settings,
        findings=tuple(_findings(whole, [row for row in rows if row["epoch"] < row["onset"]])),
    )
    return result, {"shortcut-dial": _figure(whole)}


def _plans(
    cues: Sequence[str],
    strengths: Sequence[float],
    num_networks: int,
    num_without: int,
    num_late: int,
    onset: int,
    first_seed: int,
) -> list[Planned]:
    """Seeds go round the cues, so that no two networks of a strength have the same."""
    kinds = [
        (0.0, num_without, 0),
        *((strength, num_networks, 0) for strength in strengths),
        (1.0, num_late if onset else 0, onset),
    ]
    return [
        Planned(cue, strength, first_seed + place * len(cues) + number, begins)
        for strength, many, begins in kinds
        for place in range(many)
        for number, cue in enumerate(cues)
    ]


def dial_data(
    lab: Lab, plan: Planned, num_validated: int = 1000, num_train: int = 7000, num_test: int = 2000
) -> DialDataModule:
    """The data of a network, set up to train it."""
    task, sizes = TASKS[plan.cue], {"num_train": num_train, "num_test": num_test}
    base = task.base(lab, num_validated, sizes)
    most = {} if lab.embedded else sizes  # all of the few
    data = DialDataModule(base, task.cue, plan.strength, plan.onset, plan.seed, **most)
    data.prepare_data()
    data.setup("fit")
    return data


def folder_of(lab: Lab, data: DialDataModule) -> Path:
    """Where networks are kept that were trained on so many samples."""
    sizes = "-".join(str(len(data.dataset(name))) for name in ("train", "val"))
    return Path(lab.cache) / f"shortcut-dial-{type(data.base).__name__}-{sizes}"


def trained_states(lab: Lab, plan: Planned, data: DialDataModule, num_epochs: int) -> list[dict[str, torch.Tensor]]:
    """Weights of the part of the network that is trained, after each epoch; kept."""
    path = folder_of(lab, data) / f"{plan.name}.pt"
    if path.is_file() and len(kept := torch.load(path, weights_only=True)) == plan.onset + num_epochs:
        return kept
    model, generator = network_of(plan).to(lab.device), torch.Generator().manual_seed(plan.seed)
    part = trained_part(model)
    optimizer, states, read = torch.optim.Adam(part.parameters(), lr=0.002), [], None
    for epoch in range(plan.onset + num_epochs):
        samples = data.training(epoch)
        if isinstance(model, OnFrozen) and samples is not read:
            features, read = model.features(samples), samples
        for rows in torch.randperm(len(samples), generator=generator).split(64):
            batch = samples.__getitems__(rows.tolist())
            optimizer.zero_grad()
            told = part(batch["image"].to(lab.device) if read is None else features[rows])
            cross_entropy(told, batch["label"].to(lab.device)).backward()
            optimizer.step()
        states.append({name: tensor.detach().cpu().clone() for name, tensor in part.state_dict().items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(states, path)
    return states


def network_of(plan: Planned) -> nn.Module:
    """Before it is trained; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return TASKS[plan.cue].network()


def audited(
    lab: Lab,
    plan: Planned,
    data: DialDataModule,
    states: Sequence[dict[str, torch.Tensor]],
    first: int,
    num_samples: int,
    known: bool = True,
) -> Iterator[Row]:
    """A row for each epoch from `first` on: what the network truly uses, what the search and other alarms say."""
    data.setup("test")
    model = network_of(plan).to(lab.device)
    samples = data.dataset("val")
    batch = samples.__getitems__(spread(len(samples), num_samples).tolist())
    images, carried, before = batch["image"].to(lab.device), tuple[Finding, ...](), None
    for epoch, state in enumerate(states):
        if epoch < first - 1:
            continue
        trained_part(model).load_state_dict(state)
        maps, last = explain(model.eval(), images, method=Saliency(), bounds=data.bounds, seed=lab.seed), before
        before = maps
        if epoch < first:
            continue
        started = perf_counter()
        report = find_shortcuts(
            model,
            images,
            masks=batch["mask"][data.evidence].to(lab.device) if known else None,
            bounds=data.bounds,
            index=batch["index"],
            operators=[name for name in data.operators if known or name != "background"],
            carried=carried,
            seed=_STREAM + lab.seed,
            epoch=epoch,
        )
        seconds, carried = perf_counter() - started, report.shortcuts
        yield {
            **vars(plan),
            "epoch": epoch,
            "accuracy": accuracy(model, samples),
            "dependence": dependence(model, data, "test"),
            "verdict": report.verdict,
            "told": report.dependence,
            "shortcuts": len(report.shortcuts),
            "classes": len({finding.label for finding in report.shortcuts}),
            "found": " ".join(sorted({finding.kind for finding in report.shortcuts})),
            "border": border_share(maps),
            "drift": float("nan") if last is None else drift(maps, last),
            "seconds": seconds,
        }


def border_share(maps: Images) -> float:
    """Mean share of the attribution in the four outermost rows and columns."""
    whole = maps.abs().sum((1, 2, 3))
    inner = maps[:, :, _BORDER:-_BORDER, _BORDER:-_BORDER].abs().sum((1, 2, 3))
    return float((1 - inner / whole.clamp_min(1e-30)).mean())


def drift(maps: Images, before: Images) -> float:
    """Mean cosine distance between the attributions of an epoch and of the one before (after arXiv 2601.11625)."""
    return float((1 - cosine_similarity(maps.flatten(1), before.flatten(1))).mean())


# Tables, findings, figure


def split_by_truth(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Networks that depend on the cue, and those that do not; the ones between are left out."""
    return [r for r in rows if r["dependence"] >= DEPENDS], [r for r in rows if r["dependence"] < IGNORES]


def rates_table(rows: Sequence[Row]) -> ResultTable:
    """How often a shortcut is told of, by what is true."""
    lines = []
    for cue, mine in [("all", list(rows)), *((key[0], part) for key, part in groups(rows, "cue").items())]:
        depends, ignores = split_by_truth(mine)
        lines.append((cue, str(len(ignores)), _rate(ignores), str(len(depends)), _rate(depends)))
    titles = ("cue", "networks < 2 %", "false SHORTCUT", "networks ≥ 10 %", "found")
    note = "In brackets: exact 95 % interval (Clopper and Pearson). Accuracy lost by swapping the cue: < 2 % or ≥ 10 %."
    return ResultTable("Networks told to have a shortcut", titles, tuple(lines), (note,))


def _rate(rows: Sequence[Row]) -> str:
    told = sum(row["verdict"] == "SHORTCUT" for row in rows)
    low, high = share_interval(told, len(rows), exact=True)
    return f"{told} ({low:.1%} to {high:.1%})" if rows else ""


def said_table(rows: Sequence[Row]) -> ResultTable:
    """What is said of networks, and of what kinds the shortcuts are."""
    lines = []
    for key, mine in groups(rows, "cue", "strength").items():
        verdicts = column(mine, "verdict")
        kinds = Counter(kind for row in mine for kind in row["found"].split())
        named = ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items()))
        lines.append((*map(str, key), *(str(verdicts.count(verdict)) for verdict in _VERDICTS), named))
    return ResultTable("What is said", ("cue", "strength", *_VERDICTS, "networks by kind of shortcut"), tuple(lines))


def scalars_table(rows: Sequence[Row]) -> ResultTable:
    """How well numbers tell networks that depend from those that do not."""
    depends, ignores = split_by_truth(rows)
    lines = []
    for name, title in SCALARS.items():
        found = area(column(depends, name), column(ignores, name))
        known = [row for row in rows if row[name] == row[name]]
        pairs = column(known, name), column(known, "dependence")
        rank = spearmanr(*pairs)[0] if all(len(set(values)) > 1 for values in pairs) else float("nan")
        lines.append((title, f"{found:.3f}", f"{rank:.3f}"))
    notes = (
        "Attribution: absolute gradient of the class predicted; at the border: in the four outermost rows and columns;"
        " drift: mean cosine distance from the epoch before (after arXiv 2601.11625).",
    )
    return ResultTable("What tells them apart", ("", "AUROC", "rank correlation with the truth"), tuple(lines), notes)


def area(higher: Sequence[float], lower: Sequence[float]) -> float:
    """Probability that a value of the first is the greater (a tie counts half); NaN is left out, and comes of none."""
    values = np.array([*higher, *lower], dtype=float)
    kept = ~np.isnan(values)
    is_higher = (np.arange(len(values)) < len(higher))[kept]
    return float(roc_auc_score(is_higher, values[kept])) if 0 < is_higher.sum() < len(is_higher) else float("nan")


def _means(rows: Sequence[Row]) -> ResultTable:
    shown = {"accuracy": "accuracy", "dependence": "true dependence", "told": "told", "seconds": "seconds"}
    return means_table("After training", rows, ("cue", "strength"), {**shown, "border": "border", "drift": "drift"})


def onset_table(rows: Sequence[Row]) -> ResultTable:
    """Epochs from the first true dependence of 10 % to the first SHORTCUT, of networks that have both."""
    lines = []
    for late, title in ((False, "from the start"), (True, "later")):
        found, missed, early = [], 0, 0
        for (*_, onset), mine in groups(rows, "cue", "strength", "seed", "onset").items():
            truth = [row["epoch"] for row in mine if row["dependence"] >= DEPENDS]
            told = [row["epoch"] for row in mine if row["verdict"] == "SHORTCUT"]
            if (onset > 0) == late and truth:
                missed += not told
                found += [told[0] - truth[0]] if told else []
                early += bool(told) and told[0] < truth[0]
        errors = np.array(found)
        counts = [str(np.sum(errors == step)) for step in (0, 1)]
        lines.append((title, str(len(found) + missed), str(early), *counts, str(np.sum(errors > 1)), str(missed)))
    titles = ("the cue tells", "networks", "told before", "in the same epoch", "one later", "later still", "never told")
    return ResultTable("When the dependence passes 10 %, and when it is told of", titles, tuple(lines))


def _findings(rows: Sequence[Row], before: Sequence[Row]) -> Iterator[str]:
    """Sentences about networks in the end, and about looks before the cue told anything."""
    depends, ignores = split_by_truth(rows)
    for these, what in ((ignores, "without dependence"), (depends, "that depend on the cue")):
        if these:
            yield f"Of {len(these)} networks {what}, SHORTCUT is said of {_rate(these)}."
    if depends and ignores:
        found = area(column(depends, "told"), column(ignores, "told"))
        yield f"The share told to depend tells them apart with an AUROC of {found:.3f}."
    if before:
        yield f"Of {len(before)} looks before the cue tells anything, SHORTCUT is said at {_rate(before)}."


def _figure(rows: Sequence[Row]) -> Figure:
    panels = []
    for (cue,), mine in groups(rows, "cue").items():
        by_strength = dict(sorted(groups(mine, "strength").items()))
        strengths = [strength for (strength,) in by_strength]
        curves = []
        for name, title in (("accuracy", "validation accuracy"), ("dependence", "true"), ("told", "told")):
            found = [mean_and_standard_error(column(part, name)) for part in by_strength.values()]
            means = [value for value, _ in found]
            curves.append(Curve(title, (strengths, means), (strengths, means), [error for _, error in found]))
        panels.append(CurveAxes(cue, "strength of the cue", "share", curves, {"ylim": (-0.02, 1.02)}))
    return curves_figure("Dependence on the cue, true and told", panels, ["Means and standard errors over networks."])


EXPERIMENT = Experiment(
    "networks with shortcuts of known strength: are they found, and when?",
    run,
    {
        "cues": ("patch", "hue"),
        "strengths": (1.0,),
        "num_networks": 1,
        "num_without": 1,
        "num_late": 1,
        "num_validated": 400,
        "num_samples": 400,
        "num_epochs": 4,
    },
)
