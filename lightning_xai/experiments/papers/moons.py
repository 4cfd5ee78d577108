"""Two half moons: points of two classes in the plane whose best decision boundary is known, and a network for them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from skimage.measure import find_contours
from sklearn.datasets import make_moons
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_xai.checks import check_positive
from lightning_xai.networks import MLP
from lightning_xai.shapes import Images, Labels, Logits

WINDOW = (-1.75, 2.75), (-1.25, 1.75)
"""Ends of the two axes: where nearly all points are."""
_CURVE_POINTS, _CONTOUR_POINTS = 200, 200

Points = Float[Tensor, "points 2"]
Vectors = Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class Moons:
    """Points on two half circles, equally many on each, with Gaussian noise (scikit-learn's `make_moons`).

    Attributes:
        noise: Standard deviation, in both directions.
    """

    noise: float = 0.2

    def __post_init__(self) -> None:
        check_positive("noise", self.noise)

    def sample(self, number: int, seed: int) -> tuple[Points, Labels]:
        points, labels = make_moons(number, noise=self.noise, random_state=seed)
        return torch.from_numpy(points).float(), torch.from_numpy(labels)

    def log_odds(self, points: Points) -> Float[Tensor, " points"]:
        """log p(x | class 1) - log p(x | class 0), each density an integral along its half circle."""
        angles = (torch.arange(_CURVE_POINTS, dtype=torch.float64) + 0.5) * math.pi / _CURVE_POINTS
        upper = torch.stack([angles.cos(), angles.sin()], 1)
        lower = torch.tensor([1.0, 0.5], dtype=torch.float64) - upper
        densities = [
            (-torch.cdist(points.double(), curve).square() / (2 * self.noise**2)).logsumexp(1)
            for curve in (upper, lower)
        ]
        return densities[1] - densities[0]

    def gradient(self, points: Points) -> Float[Tensor, "points 2"]:
        """Of the log odds."""
        points = points.double().requires_grad_()
        (gradient,) = torch.autograd.grad(self.log_odds(points).sum(), points)
        return gradient

    def boundary(self) -> Vectors:
        """Points of the line inside the window where the log odds are 0, close together."""
        axes = [torch.linspace(*ends, _CONTOUR_POINTS, dtype=torch.float64) for ends in WINDOW]
        odds = self.log_odds(torch.cartesian_prod(*axes)).view(_CONTOUR_POINTS, _CONTOUR_POINTS)
        positions = np.concatenate(find_contours(odds.numpy(), 0.0)) / (_CONTOUR_POINTS - 1)
        low, high = np.array(WINDOW).T
        return low + positions * (high - low)

    def normals(self, points: Points) -> tuple[Vectors, Float[np.ndarray, " points"]]:
        """Unit normal, towards class 1, at each point's nearest point of the boundary; and the distance to that."""
        boundary = torch.from_numpy(self.boundary())
        distances, nearest = torch.cdist(points.double(), boundary).min(1)
        return unit(self.gradient(boundary[nearest]).numpy()), distances.numpy()


class LogOdds(nn.Module):
    """A network of one output, the log odds z of class 1, with the logits (-z/2, z/2): boundary and gradient are z's.

    Args:
        hidden: Widths of the hidden layers.
    """

    def __init__(self, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.network = MLP((2, 1, 1), hidden, num_classes=1)

    def forward(self, images: Images) -> Logits:
        odds = self.network(images).float()
        return torch.cat([-odds, odds], 1) / 2


def train(points: Points, labels: Labels, hidden: tuple[int, ...], num_steps: int, lr: float, seed: int) -> LogOdds:
    """A network that fits the points: Adam, all points in each step; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LogOdds(hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(num_steps):
        optimizer.zero_grad()
        cross_entropy(model(as_images(points)), labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def as_images(points: Points) -> Images:
    """Two channels of one pixel."""
    return points[:, :, None, None]


def unit(vectors: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 2"]:
    """The directions of the vectors; 0 has none, and stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths, lengths, 1)


def degrees_between(
    first: Float[np.ndarray, "*any 2"], second: Float[np.ndarray, "*any 2"]
) -> Float[np.ndarray, "*any"]:
    """Angle between vectors, 0 to 180; NaN where one is 0."""
    one, other = unit(first), unit(second)
    angles = np.degrees(np.arccos(np.clip((one * other).sum(-1), -1, 1)))
    return np.where(one.any(-1) & other.any(-1), angles, np.nan)
