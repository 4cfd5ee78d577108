"""NoiseGrad's rule for the weight noise: the level that costs 5 % of the accuracy above chance."""

from dataclasses import asdict
from typing import Any

from lightning_xai.experiments.papers.experiment import Experiment, Found
from lightning_xai.reporting.noise_level import level_lines, noise_level_figure
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.tables import ResultTable
from lightning_xai.studies.lab import Lab, described

SOURCE = "NoiseGrad (Bykov et al. 2022, arXiv 2106.10185), the choice of the weight noise"
PUBLISHED = {"cmnist_resnet9": "0.2 to 0.4 (read off figure 4)"}


def run(
    lab: Lab,
    networks: tuple[str, ...] = ("mnist_lenet", "cmnist_lenet", "cmnist_resnet9"),
    drop: float = 0.05,
    num_draws: int = 10,
    num_samples: int = 1000,
    changes: dict[str, Any] | None = None,
) -> Found:
    """The level of several networks.

    Args:
        lab: See `Lab`.
        networks: Names of configurations.
        drop: Relative accuracy drop, 1 - (accuracy - chance) / (clean accuracy - chance).
        num_draws: Noisy networks at each level of noise.
        num_samples: Validation samples that the accuracy is measured on.
        changes: Values that replace the configurations', by dotted name.
    """
    lab.require(networks, changes)
    found = {name: lab.network(name, changes) for name in networks}
    levels = {
        name: lab.noise_level(network, lab.samples(network, num_samples, "validate"), drop=drop, num_draws=num_draws)
        for name, network in found.items()
    }
    rows = tuple(
        (
            name,
            f"{found[name].accuracy:.4f}",
            f"{level.std:.3f}",
            f"{level.low:.3f} to {level.high:.3f}",
            PUBLISHED.get(name, "none"),
        )
        for name, level in levels.items()
    )
    records = {
        "points": [{"network": name, **asdict(point)} for name, level in levels.items() for point in level.points],
        "levels": [{"network": name, **asdict(level), "points": None} for name, level in levels.items()],
    }
    findings = tuple(f"{name}: {line}" for name, level in levels.items() for line in level_lines(level)[:2])
    table = ResultTable(
        "Weight noise by the accuracy that it costs",
        ("network", "test accuracy", f"level at a drop of {drop:.0%}", "95 % interval", "published"),
        rows,
    )
    result = Reproduction(SOURCE, (table,), records, {}, {"networks": described(found), "seed": lab.seed}, findings)
    return result, {f"noise-level-{name}": noise_level_figure(level) for name, level in levels.items()}


EXPERIMENT = Experiment(
    "weight noise that costs 5 % of the accuracy, for several networks",
    run,
    {
        "networks": ("mnist_lenet",),
        "num_samples": 200,
        "changes": {"trainer.max_epochs": 8, "model.init_args.optimizer.init_args.lr": 0.003},
    },
)
