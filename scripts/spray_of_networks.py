"""SpRAy (spectral relevance analysis), by the package corelay, of the networks of the experiment `shortcut-dial`.

After Lapuschkin et al., Unmasking Clever Hans predictors (arXiv 1902.10178): the attribution maps of each class are
clustered by their spectrum, and classes are looked at in the order of their eigengaps. As an alarm for a network the
largest gap of its classes is taken, and the silhouette of the two clusters that CoRelAy makes; higher of either should
mean a shortcut.

    pip install corelay
    lightning-xai reproduce shortcut-dial --root data --cache runs/networks
    python scripts/spray_of_networks.py --report runs/reproduce/shortcut-dial --root data --cache runs/networks

prints the AUROC against the true dependence and the rank correlation with it, and writes spray.csv into the report.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from corelay.pipeline.spectral import SpectralClustering
from corelay.processor.affinity import SparseKNN
from corelay.processor.clustering import KMeans
from corelay.processor.embedding import EigenDecomposition
from scipy.stats import spearmanr
from sklearn.metrics import silhouette_score

import lightning_xai as lx
from lightning_xai.data import DialDataModule
from lightning_xai.experiments.papers import Lab
from lightning_xai.experiments.papers.shortcut_dial import (
    Planned,
    area,
    dial_data,
    folder_of,
    network_of,
    split_by_truth,
)
from lightning_xai.experiments.papers.shortcut_tasks import trained_part

LEAST = 20
"""Samples of a class that are clustered."""
NUM_EIGENVALUES = 10


def relevance(data: DialDataModule, plan: Planned, state: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the validation samples, each of sum 1 over its pixels, and the classes predicted."""
    model = network_of(plan)
    trained_part(model).load_state_dict(state)
    samples = data.dataset("val")
    images = samples.__getitems__(range(len(samples)))["image"]
    with torch.no_grad():
        predicted = model.eval()(images).argmax(1)
    maps = lx.explain(model, images, predicted, lx.Saliency(), bounds=data.bounds).sum(1).flatten(1).numpy()
    return maps / np.maximum(maps.sum(1, keepdims=True), 1e-30), predicted.numpy()


def clusters(maps: np.ndarray) -> tuple[float, float]:
    """The largest gap between neighboring eigenvalues, after the first, and the silhouette of two clusters."""
    pipeline = SpectralClustering(
        affinity=SparseKNN(n_neighbors=10, symmetric=True),
        embedding=EigenDecomposition(
            is_output=True, n_eigval=NUM_EIGENVALUES, which="LA", kwargs={"v0": np.ones(len(maps))}
        ),
        clustering=KMeans(is_output=True, n_clusters=2, kwargs={"random_state": 0}),
        select_eigenvector=lambda found: found[1][:, -4:],
    )
    (eigenvalues, vectors), labels = pipeline(maps)
    gaps = np.diff(np.sort(eigenvalues))
    return float(gaps[1:].max()), float(silhouette_score(vectors, labels)) if len(set(labels)) > 1 else 0.0


def spray(rows: list[dict[str, str]], lab: Lab) -> Iterator[dict[str, object]]:
    """A row for each network, in its last state."""
    for row in rows:
        plan = Planned(row["cue"], float(row["strength"]), int(row["seed"]), int(row["onset"]))
        data = dial_data(lab, plan)
        states = torch.load(folder_of(lab, data) / f"{plan.name}.pt", weights_only=True)
        maps, predicted = relevance(data, plan, states[int(row["epoch"])])
        classes = [label for label in set(predicted.tolist()) if (predicted == label).sum() >= LEAST]
        found = np.array([clusters(maps[predicted == label]) for label in classes])
        yield {
            **vars(plan),
            "dependence": float(row["dependence"]),
            "gap": found[:, 0].max(),
            "silhouette": found[:, 1].max(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", required=True, help="Folder of the experiment's report.")
    parser.add_argument("--root", default="data")
    parser.add_argument("--cache", default="runs/networks")
    parser.add_argument("--embedded", action="store_true", help="The experiment was run on embedded digits.")
    options = parser.parse_args()
    lab = Lab(root=options.root, cache=options.cache, embedded=options.embedded, device="cpu", progress=False)
    table = list(csv.DictReader((Path(options.report) / "networks.csv").open(encoding="utf-8")))
    last = {(row["cue"], row["strength"], row["seed"], row["onset"]): row for row in table if row["onset"] == "0"}
    rows = []
    with (Path(options.report) / "spray.csv").open("w", encoding="utf-8", newline="") as file:
        for row in spray(list(last.values()), lab):
            writer = csv.DictWriter(file, list(row))
            if not rows:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            rows.append(row)
    depends, ignores = split_by_truth(rows)
    print(f"{len(depends)} networks that depend on the cue, {len(ignores)} that do not")
    for name in ("gap", "silhouette"):
        higher, lower = ([row[name] for row in part] for part in (depends, ignores))
        rank = spearmanr([row[name] for row in rows], [row["dependence"] for row in rows])[0]
        print(f"{name:<12} AUROC {area(higher, lower):.3f}, rank correlation with the dependence {rank:.3f}")


if __name__ == "__main__":
    main()
