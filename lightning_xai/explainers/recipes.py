"""The papers' methods under the papers' names, with the papers' settings; each is a composition of explainers."""

from typing import Literal

from lightning_xai.explainers.base import Explainer
from lightning_xai.explainers.gradient import Gradient, Saliency
from lightning_xai.explainers.scales import AbsoluteScale, InRangeScale, RangeScale
from lightning_xai.explainers.smoothing import PerturbWeights, Smooth


def smooth_grad(
    explainer: Explainer = Gradient(),
    fraction: float = 0.2,
    num_draws: int = 50,
    of: Literal["image", "data"] = "image",
) -> Smooth:
    """SmoothGrad (Smilkov et al. 2017), settings of AdaptGrad's comparison: signed, clean draw not included.

    Args:
        explainer: What is averaged.
        fraction: Standard deviation of the noise over the range of values.
        num_draws: Number of noisy inputs.
        of: Range of each "image", or of the "data" (needs bounds).

    Raises:
        TypeError, ValueError: as `Smooth` and `RangeScale`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.tensor([[0.0, 1.0]])  # the gradient at 0 is 0; half of the noisy inputs are above
        >>> lx.explain(torch.nn.ReLU(), images, target=0, method=lx.smooth_grad())
        tensor([[0.5000, 0.0000]])
    """
    return Smooth(explainer, RangeScale(fraction, of), num_draws)


def adapt_grad(
    explainer: Explainer = Gradient(),
    confidence: float = 0.95,
    num_draws: int = 50,
    solution: Literal["default", "literal", "exact"] = "default",
) -> Smooth:
    """AdaptGrad (Zhou et al. 2024): signed, clean draw not included; needs bounds.

    Args:
        explainer: What is averaged.
        confidence: Least probability that a noisy value stays in the data's range.
        num_draws: Number of noisy inputs.
        solution: Which reading of the paper's equation; see `InRangeScale`.

    Raises:
        TypeError, ValueError: as `Smooth` and `InRangeScale`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> images = torch.tensor([[[[0.0, 0.5], [0.5, 1.0]]]])  # two pixels on a bound, which get no noise
        >>> methods, metrics = {"SG": lx.smooth_grad(), "AG": lx.adapt_grad()}, ["inherent_noise"]
        >>> means = lx.evaluate(torch.nn.Flatten(), images, 0, methods, metrics, bounds=(0.0, 1.0)).means()
        >>> {name: round(scores["inherent_noise"], 3) for name, scores in means.items()}
        {'SG': 0.256, 'AG': 0.025}
    """
    return Smooth(explainer, InRangeScale(confidence, solution), num_draws)


def noise_grad(
    explainer: Explainer = Saliency(),
    std: float = 0.2,
    num_draws: int = 10,
) -> PerturbWeights:
    """NoiseGrad (Bykov et al. 2022): the mean of |gradient| over models with multiplicative weight noise.

    Args:
        explainer: What is averaged.
        std: Standard deviation of the weight noise, relative to each weight.
        num_draws: Number of noisy models; the paper finds 10 enough, its code takes 25.

    Raises:
        TypeError, ValueError: as `PerturbWeights`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
        >>> lx.explain(model, torch.ones(1, 2), target=0, method=lx.noise_grad()).round(decimals=2)
        tensor([[0.9400, 2.0200]])
    """
    return PerturbWeights(explainer, std, num_draws)


def fusion_grad(
    explainer: Explainer = Saliency(),
    weight_std: float = 0.2,
    input_std: float = 0.4,
    num_weight_draws: int = 10,
    num_input_draws: int = 10,
) -> PerturbWeights:
    """FusionGrad (Bykov et al. 2022), settings of its code: mean |gradient| over noisy models and fresh noisy inputs.

    Args:
        explainer: What is averaged.
        weight_std: Standard deviation of the weight noise, relative to each weight.
        input_std: Standard deviation of the input noise, absolute, in the space of the inputs.
        num_weight_draws: Number of noisy models.
        num_input_draws: Number of noisy inputs for each noisy model.

    Raises:
        TypeError, ValueError: as `PerturbWeights`, `Smooth` and `AbsoluteScale`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> model[1].weight.data = torch.tensor([[1.0, -2.0]])
        >>> lx.explain(model, torch.zeros(1, 2), target=0, method=lx.fusion_grad()).round(decimals=2)
        tensor([[0.4200, 0.9800]])
    """
    return PerturbWeights(Smooth(explainer, AbsoluteScale(input_std), num_input_draws), weight_std, num_weight_draws)
