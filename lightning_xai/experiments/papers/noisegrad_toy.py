"""NoiseGrad's figures 1 and 2: what noise on points and weights does to the gradients of a network in the plane."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from lightning_xai.evaluation import explain
from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.noise_level import find_noise_level
from lightning_xai.experiments.papers.experiment import Experiment, Found
from lightning_xai.experiments.papers.moons import WINDOW, Moons, as_images, degrees_between, train
from lightning_xai.experiments.runs import Run
from lightning_xai.explainers import AbsoluteScale, Context, Explainer, Gradient, PerturbWeights, Smooth
from lightning_xai.explainers.cost import counting_gradients
from lightning_xai.explainers.precision import in_precision
from lightning_xai.explainers.state import parameter_sites, swapped
from lightning_xai.reporting.toy_figures import arrows_figure, fields_figure
from lightning_xai.results.comparison import Comparison
from lightning_xai.results.noise_level import NoiseLevel
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.scores import GRADIENTS, Scores
from lightning_xai.results.tables import ResultTable
from lightning_xai.shapes import Inputs, Labels
from lightning_xai.statistics.means import mean_and_error
from lightning_xai.studies.engine import judged
from lightning_xai.studies.lab import Lab
from lightning_xai.studies.report import claim_matrix, scores_table

SOURCE = "NoiseGrad (Bykov et al. 2022, arXiv 2106.10185), figures 1 and 2"
SHOWN = ("Gradient", "SG", "NG", "FG")
NEAR, ALL, ROUGHNESS = "angle near the boundary", "angle of all", "roughness"
NOTES = (
    "Mean ± standard error over the networks, in degrees. Angle: between the gradient of the log odds and the normal "
    "of the nearest point of the best boundary, which the distribution of the points gives; near: the half of the test "
    "points that is nearer to it. Roughness: mean angle between neighboring arrows of the field.",
    "Bold (* in a terminal): best, or not significantly worse than the best (Wilcoxon signed-rank over the networks, "
    "Holm's correction, 5 %). The paper shows pictures of one network, and no numbers.",
)


def run(
    lab: Lab,
    num_networks: int = 10,
    num_train: int = 200,
    num_test: int = 400,
    num_steps: int = 500,
    hidden: tuple[int, ...] = (64, 64),
    lr: float = 0.01,
    noise: float = 0.2,
    fraction: float = 0.1,
    num_draws: int = 10,
    columns: int = 30,
) -> Found:
    """The gradients of several networks, without and with noise.

    Args:
        lab: See `Lab`.
        num_networks: Each with points and first weights of its own.
        num_train: Points that a network is trained on.
        num_test: Points whose gradients are compared with the best boundary.
        num_steps: Number of steps of a training.
        hidden: Widths of the hidden layers; two make a network of three layers.
        lr: Learning rate.
        noise: Standard deviation of the points around their half circles.
        fraction: Input noise of SG, relative to the range of the points.
        num_draws: Number of draws of SG and NG; FG makes so many of the inputs for each of so many of the weights.
        columns: Arrows of the field in a row.
    """
    moons = Moons(noise)
    setting = _Setting(lab, moons, moons.sample(num_test, 2**16)[0], fraction, num_draws, columns)
    rows, networks, arrays = list[tuple](), dict[int, dict[str, float]](), dict[str, np.ndarray]()
    for seed in range(lab.seed, lab.seed + num_networks):
        points, labels = moons.sample(num_train, seed)
        model = train(points, labels, hidden, num_steps, lr, seed).to(lab.device)
        found = _noise_level(setting, model, seed)
        more, fields = _measured(setting, model, found.std, seed)
        rows += more
        networks[seed] = {"accuracy": found.clean_accuracy, "level": found.std}
        if not arrays:  # the figures show the first
            own = {"points": points.numpy(), "labels": labels.numpy()}
            arrays = {**fields, **own, **_point_arrays(setting, model, found.std)}
    better: dict[str, bool | None] = {NEAR: False, ALL: False, ROUGHNESS: False}
    table = Scores.from_rows(rows)
    comparison = compare_methods([Run("networks", table, better)], seed=lab.seed, procedure="published")
    claims = judged(table, [(name, "Gradient") for name in comparison.methods[1:]], list(better), better)
    truth = float(np.nanmean(roughness(_grid_shaped(moons.gradient(_grid(columns)).numpy(), columns))))
    result = Reproduction(
        SOURCE,
        (_table(comparison, networks, truth), claim_matrix("Is it better than the gradient?", claims)),
        {"networks": [{"network": network, **values} for network, values in networks.items()]},
        arrays,
        {
            "networks": networks,
            "seed": lab.seed,
            "noise": noise,
            "fraction": fraction,
            "num_draws": num_draws,
            "hidden": list(hidden),
            "lr": lr,
            "num_train": num_train,
            "num_steps": num_steps,
            "num_test": num_test,
            "columns": columns,
        },
        tuple(_findings(comparison, truth)),
        runs={"networks": (table, better)},
    )
    return result, _figures(arrays)


@dataclass(frozen=True)
class _Setting:
    lab: Lab
    moons: Moons
    test: Tensor
    fraction: float
    num_draws: int
    columns: int

    def methods(self, level: float) -> dict[str, Explainer]:
        """By the paper's heuristics; and SG and NG with as many gradients as FG."""
        std, draws = self.fraction * float(np.mean([high - low for low, high in WINDOW])), self.num_draws
        whole, half = AbsoluteScale(std), AbsoluteScale(std / 2)
        gradient = Gradient()
        return {
            "Gradient": gradient,
            "SG": Smooth(gradient, whole, draws),
            "NG": PerturbWeights(gradient, level, draws),
            "FG": PerturbWeights(Smooth(gradient, half, draws), level / 2, draws),
            f"SG, {draws**2} draws": Smooth(gradient, whole, draws**2),
            f"NG, {draws**2} draws": PerturbWeights(gradient, level, draws**2),
        }


def _noise_level(setting: _Setting, model: nn.Module, seed: int) -> NoiseLevel:
    """By the paper's rule, on points of its own."""
    lab, (points, labels) = setting.lab, setting.moons.sample(1000, 2**17 + seed)
    with in_precision(model, lab.precision):
        found = find_noise_level(model, as_images(points).to(lab.device), labels, chance=0.5, seed=lab.seed)
    if not found.reached:
        raise ValueError(f"`num_steps`: the network bears any weight noise up to {found.maximum:g}; train it longer.")
    return found


def _measured(
    setting: _Setting, model: nn.Module, level: float, seed: int
) -> tuple[list[tuple], dict[str, np.ndarray]]:
    """Scores of all methods, and the fields of those shown: (rows, columns, 2)."""
    normals, distances = setting.moons.normals(setting.test)
    near = distances <= np.median(distances)
    rows, fields = list[tuple](), dict[str, np.ndarray]()
    for name, method in setting.methods(level).items():
        with counting_gradients(model) as count:
            arrows = _arrows(setting, model, method, setting.test)
        field_of = _grid_shaped(_arrows(setting, model, method, _grid(setting.columns)), setting.columns)
        angles = degrees_between(arrows, normals)
        values = {NEAR: angles[near], ALL: angles, ROUGHNESS: roughness(field_of)}
        scores = {metric: float(np.nanmean(value)) for metric, value in values.items()}
        scores[GRADIENTS] = count.total / len(arrows)
        rows += [("test", 0, 0, name, metric, seed, score) for metric, score in scores.items()]
        if name in SHOWN:
            fields[f"field {name}"] = field_of
    return rows, fields


def _arrows(setting: _Setting, model: nn.Module, method: Explainer, points: Tensor) -> Float[np.ndarray, "points 2"]:
    """Gradients of class 1's logit, half of the log odds."""
    images, lab = as_images(points).to(setting.lab.device), setting.lab
    return explain(model, images, 1, method, seed=lab.seed, precision=lab.precision)[:, :, 0, 0].cpu().numpy()


def roughness(field_of: Float[np.ndarray, "rows columns 2"]) -> Float[np.ndarray, " pairs"]:
    """Angles between all arrows that are neighbors, beside or above each other, in degrees."""
    beside = degrees_between(field_of[:, 1:], field_of[:, :-1])
    above = degrees_between(field_of[1:], field_of[:-1])
    return np.concatenate([beside.ravel(), above.ravel()])


def _grid(columns: int) -> Tensor:
    """Points a row of the window after the other, equally far apart in both directions."""
    (left, right), (bottom, top) = WINDOW
    rows = round((columns - 1) * (top - bottom) / (right - left)) + 1
    across, up = torch.linspace(left, right, columns), torch.linspace(bottom, top, rows)
    return torch.stack(torch.meshgrid(across, up, indexing="xy"), -1).flatten(0, 1)


def _grid_shaped(values: np.ndarray, columns: int) -> np.ndarray:
    return values.reshape(-1, columns, *values.shape[1:])


# What the figures show, of the first network


@dataclass(frozen=True)
class _Seen(Explainer):
    """An explainer that keeps the inputs and attributions that pass through it."""

    explainer: Explainer
    inputs: list[Tensor] = field(default_factory=list)
    attributions: list[Tensor] = field(default_factory=list)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        found = self.explainer.attribute(model, inputs, target, context)
        self.inputs.append(inputs.cpu())
        self.attributions.append(found.cpu())
        return found


def _point_arrays(setting: _Setting, model: nn.Module, level: float) -> dict[str, np.ndarray]:
    """Of the test point that is closest to the best boundary: single gradients and means, and the boundaries."""
    _, distances = setting.moons.normals(setting.test)
    point = setting.test[int(distances.argmin())][None]
    fine = _grid(_BOUNDARY_COLUMNS)
    arrays = {
        "boundary": _odds(model, {}, fine),
        "best_boundary": _grid_shaped(setting.moons.log_odds(fine).numpy(), _BOUNDARY_COLUMNS),
        "test_point": point[0].numpy(),
    }
    for name in SHOWN:
        seen = _Seen(Gradient())
        method = _around(setting.methods(level)[name], seen)
        arrays[f"mean {name}"] = _arrows(setting, model, method, point)[0]
        arrays[f"inputs {name}"] = torch.cat(seen.inputs)[:, :, 0, 0].numpy()
        arrays[f"gradients {name}"] = torch.cat(seen.attributions)[:, :, 0, 0].numpy()
        if isinstance(method, PerturbWeights):
            arrays[f"boundaries {name}"] = _noisy_boundaries(setting, model, method, fine)
    return arrays


_BOUNDARY_COLUMNS = 120


def _around(method: Explainer, seen: _Seen) -> Explainer:
    """The method, with the recorder in the place of its gradient."""
    return (
        replace(method, explainer=_around(method.explainer, seen))
        if isinstance(method, Smooth | PerturbWeights)
        else seen
    )


def _noisy_boundaries(setting: _Setting, model: nn.Module, method: PerturbWeights, fine: Tensor) -> np.ndarray:
    context = Context.create(torch.zeros(0, dtype=torch.int64), setting.lab.seed)
    weights = (method.noisy_weights(model, context.model_seed(n)) for n in range(method.num_draws))
    return np.stack([_odds(model, noisy, fine) for noisy in weights])


def _odds(model: nn.Module, weights: Mapping[str, Tensor], fine: Tensor) -> Float[np.ndarray, "rows columns"]:
    device = next(model.parameters()).device
    with torch.no_grad(), swapped(parameter_sites(model), weights):
        logits = model(as_images(fine).to(device)).cpu()
    return _grid_shaped((logits[:, 1] - logits[:, 0]).numpy(), _BOUNDARY_COLUMNS)


# Tables, findings, figures


def _table(comparison: Comparison, networks: Mapping[int, Mapping[str, float]], truth: float) -> ResultTable:
    accuracy, level = (mean_and_error([own[what] for own in networks.values()], 3) for what in ("accuracy", "level"))
    table = scores_table({}, "Gradients of networks in the plane", [("", comparison)])
    return replace(
        table,
        rows=(*table.rows, ("best log odds", "", "", "", f"{truth:.4f}")),
        notes=(f"{len(networks)} networks: accuracy {accuracy}, weight noise of NG {level}.", *NOTES),
    )


def _findings(comparison: Comparison, truth: float) -> Iterator[str]:
    (near,) = (metric.methods for metric in comparison.metrics if metric.metric == NEAR)
    order = sorted(near, key=attrgetter("mean"))
    yield f"The log odds of the points themselves have a roughness of {truth:.1f}°."
    yield f"Angle to the best boundary's normal, near it: {' < '.join(f'{r.method} {r.mean:.1f}' for r in order)}°."


def _figures(arrays: Mapping[str, np.ndarray]) -> Mapping[str, Figure]:
    """The arrows of one point, and the fields."""
    titles = {name: f"{name}: roughness {np.nanmean(roughness(arrays[f'field {name}'])):.1f}°" for name in SHOWN}
    return {
        "noisegrad-figure1": arrows_figure(arrays, SHOWN, WINDOW),
        "noisegrad-figure2": fields_figure(arrays, titles, WINDOW),
    }


EXPERIMENT = Experiment(
    "gradients of networks in the plane, without and with noise: do they point across the boundary?",
    run,
    {"num_networks": 2, "num_test": 100, "num_steps": 200, "columns": 16},
)
