"""NoiseGrad's figure 5, with numbers: images that maximize a class, made with and without noisy networks."""

from lightning_xai.experiments.papers.experiment import Experiment, Found
from lightning_xai.experiments.visualize import (
    Setting,
    named_channels,
    portraits,
    visualization_figures,
    visualization_result,
)
from lightning_xai.explainers import PerturbWeights
from lightning_xai.explainers.precision import in_precision
from lightning_xai.studies.lab import Lab, described
from lightning_xai.studies.subjects import is_pretrained, pretrained_network
from lightning_xai.visualization import Activation

SOURCE = "NoiseGrad (Bykov et al. 2022, arXiv 2106.10185), figure 5: activation maximization of classes"
PUBLISHED_MODELS, PUBLISHED_RATIO = 100, 56
"""What the released notebook has: noisy networks, kept for all steps, and steps a second without over with them (68.4
and 1.22, means of its two classes), for a ResNet-18 with images of 224 pixels."""
NOTES = (
    "The paper shows pictures of a ResNet-18 pretrained on ImageNet, and finds those of NoiseGrad more vivid and "
    f"easier to understand; it has no numbers. In its released notebook {PUBLISHED_MODELS} networks took "
    f"{PUBLISHED_RATIO} times as long as one.",
)


def run(
    lab: Lab,
    network: str = "cmnist_resnet9",
    classes: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    noise: float = 0.2,
    num_models: int = 10,
    num_starts: int = 2,
    steps: int = 200,
    lr: float = 0.05,
    num_fresh: int = 20,
    equal_cost: bool = True,
) -> Found:
    """Images of classes: plain, with noisy networks that stay the same, and with new ones in each step.

    Args:
        lab: See `Lab`.
        network: Name of a configuration, of a network that is trained on the data or of a pretrained one, or of a
            classifier of torchvision with its default weights.
        classes: Whose logits are maximized.
        noise: Multiplicative noise, relative to each weight.
        num_models: Noisy networks whose mean logit is maximized; the released notebook has 100.
        num_starts: Images of each class, which differ in seed.
        steps: Number of Adam steps.
        lr: Learning rate of Adam.
        num_fresh: Noisy networks that the finished images are shown to.
        equal_cost: Whether plain images are also made with `num_models` times the steps, and so with as many gradients.
    """
    if not noise > 0:
        raise ValueError(
            f"`noise` must be greater than 0, got {noise}: the noisy networks are compared with the clean."
        )
    found = pretrained_network(lab, network) if is_pretrained(lab, network) else lab.network(network)
    if found.bounds is None:
        raise ValueError(f"`network`: neither {network} nor its data know the `bounds` of an input, which images need.")
    setting = Setting(
        Activation(classes),
        named_channels(classes, found.class_names),
        found.image_shape,
        found.bounds,
        PerturbWeights(std=noise, num_draws=num_models),
        redraws=(False, True),
        num_starts=num_starts,
        steps=steps,
        lr=lr,
        num_fresh=num_fresh,
        seed=lab.seed,
        progress=lab.progress,
        equal_cost=equal_cost,
    )
    with in_precision(found.model, lab.precision):
        made = portraits(found.model, setting)
    settings = {"networks": described({network: found}), "precision": lab.precision}
    result = visualization_result(made, setting, SOURCE, settings, NOTES)
    return result, visualization_figures(result, "noisegrad-figure5")


EXPERIMENT = Experiment(
    "images that maximize a class, made with and without noisy networks, and what noisy networks make of them",
    run,
    {"network": "cmnist_lenet", "classes": (0, 3, 8), "num_models": 4, "steps": 60, "num_fresh": 5},
)
