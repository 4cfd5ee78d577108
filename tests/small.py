"""Small networks, studies and pictures that several files of tests use."""

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.results.scores import Scores
from lightning_xai.studies.study import carried_studies, study_of
from lightning_xai.studies.subjects import PretrainedNetwork

SIDE = 8
GRADIENT = {"class_path": "lightning_xai.Gradient"}
SPARSENESS = {"class_path": "lightning_xai.metrics.Sparseness"}
MINE = {
    "source": "mine",
    "networks": ["mine"],
    "methods": {"gradient": GRADIENT},
    "metrics": {"sparseness": SPARSENESS},
}
OTHERS = tuple(f"class {number}" for number in range(20))


def linear():
    """Of images (2, 6, 6)."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 3))


def curved():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 20), nn.Softplus(), nn.Linear(20, 3)).eval()


def linear_of_others(class_names=OTHERS):
    """A linear network of small pictures, as if somebody else had trained it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 20)).eval()
    return PretrainedNetwork(model, Preprocessing(SIDE, SIDE), class_names, {"network": "linear"})


def weight(network, target):
    """What such a network has of each class."""
    return network.model[1].weight.detach()[target].view(-1, 3, SIDE, SIDE)


def save_noise(folder, number):
    """Pictures of noise in a folder."""
    for place in range(number):
        pixels = np.random.default_rng(place).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{place:02d}.png")
    return str(folder)


def carried_study(name, **changes):
    """A study that the package brings, with other values of its arguments and variables."""
    return study_of(yaml.safe_load(carried_studies()[name].read_text(encoding="utf-8")), name).changed(changes)


def made_up(gains, number=40, metric="m"):
    """Scores of pairs (better, worse), whose difference is a gain and a little noise."""
    generator = np.random.default_rng(0)
    rows = []
    for (better, worse), gain in gains.items():
        base, noise = generator.normal(0.5, 0.1, number), generator.normal(gain, 0.01, number)
        for method, values in ((worse, base), (better, base + noise)):
            rows += [("test", 0, 0, method, metric, sample, float(v)) for sample, v in enumerate(values)]
    return Scores.from_rows(rows)


def scores(result, method, metric):
    """What a study found, of one network."""
    return torch.tensor([row.value for row in result.rows if (row.method, row.metric) == (method, metric)])
