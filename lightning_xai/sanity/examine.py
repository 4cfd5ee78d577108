"""All sanity checks of one model: maps, similarities, verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_xai._version import __version__
from lightning_xai.explainers import (
    Explainer,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    RangeScale,
    Smooth,
    adapt_grad,
    fusion_grad,
    grad_cam,
    guided_backprop,
    guided_grad_cam,
    noise_grad,
    smooth_grad,
)
from lightning_xai.explainers.base import Context, check_choice, check_count, check_level
from lightning_xai.explainers.bounds import check_in_bounds
from lightning_xai.explainers.chunks import probe_rows
from lightning_xai.explainers.gradient import Baseline
from lightning_xai.fingerprints import digest, fingerprint
from lightning_xai.functional.maps import by_channel
from lightning_xai.outputs import Logit, Output
from lightning_xai.results.sanity import MARGIN, Cell, CellKey, ModelState, SanityReport, Verdict
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.checks import (
    KEPT,
    Subject,
    compared_cells,
    examine_model,
    floor_cells,
    kept_cell,
    original_cells,
    original_maps,
    original_state,
    parameter_cells,
    shared_out,
    with_usable_similarities,
)
from lightning_xai.sanity.invariance import invariance_maps, shifted_twin
from lightning_xai.sanity.randomization import logits_of, parameter_blocks
from lightning_xai.sanity.refined import entropy_rise, num_outputs, other_classes
from lightning_xai.sanity.similarity import describe
from lightning_xai.sanity.verdicts import (
    complexity_verdict,
    invariance_verdict,
    randomization_verdict,
    without_the_dead,
)
from lightning_xai.shapes import Labels

Examined = Literal["parameters", "data", "invariance", "efficient", "random_logit"]
EXAMINED: tuple[Examined, ...] = ("parameters", "data", "invariance")
"""What is examined unless something else is asked for."""
ENTROPY_RISE = "entropy_rise"
"""Name of the score of efficient MPRT, which takes the place of the similarities."""
MEMORIZED = 0.95
"""Training accuracy from which a network knows its random labels (Adebayo et al. 2018)."""


def examine(
    subject: Subject,
    checks: Sequence[Examined] = EXAMINED,
    similarity: str | None = None,
    *,
    make_twin: Callable[[int], tuple[nn.Module, float]] | None = None,
    num_twins: int = 3,
    shift: float = 1.0,
    alpha: float = 0.05,
    margin: float = MARGIN,
    folder: Path | None = None,
    progress: bool = False,
) -> SanityReport:
    """Run the checks and judge every method by each.

    There is no verdict (INCONCLUSIVE, and the reason says so) of networks whose logits are the same for all samples.

    Args:
        subject: The trained model, the samples and the methods. Its `randomization` is that of `parameters`, and of
            `efficient`, which randomizes all blocks whatever the orderings.
        checks: Which ones.
        similarity: The one that decides, None for SSIM, or where that is not admitted the first of the subject's that
            is; all that its images admit are in the report.
        make_twin: For `data`: makes the network trained on random labels of this number, from 0, with its accuracy on
            these.
        num_twins: How many of them; no verdict with fewer than three, as with fewer `repeats`.
        shift: For `invariance`: what is added to the input, in its own space.
        alpha: Chance of a wrong PASS, and of a wrong FAIL, where the similarity is at the boundary.
        margin: Margin of equivalence with the floor, as a share of the way from it to 1 (`randomization_verdict`).
        folder: Where finished cells are kept, to go on after an interruption; None for nowhere.
        progress: Whether to show progress bars.

    Raises:
        ValueError: if an argument is out of range, the model's logits have a NaN, or the folder has results of other
            settings.

    Source: Adebayo et al. 2018, arXiv 1810.03292 (parameters, data); Kindermans et al. 2017, arXiv 1711.00867
    (invariance); Hedström et al. 2024, arXiv 2401.06465 (efficient); Sixt et al. 2020, arXiv 1912.09818 (random logit).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import lightning_xai as lx
        >>> from lightning_xai.sanity import Randomization, Subject, examine
        >>> from lightning_xai.sanity.similarity import SIMILARITIES
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> images, target, index = torch.rand(16, 1, 8, 8), torch.zeros(16, dtype=torch.long), torch.arange(16)
        >>> methods, similarities = {"edges": lx.SobelEdges()}, {"spearman": SIMILARITIES["spearman"]}
        >>> how = Randomization(repeats=3)  # eight, unless it has to be fast
        >>> subject = Subject(model, images, target, index, methods, similarities, randomization=how)
        >>> report = examine(subject, ["parameters", "invariance"], "spearman")
        >>> [(verdict.check, verdict.method, verdict.outcome) for verdict in report.verdicts]
        [('parameters', 'edges', 'FAIL'), ('invariance', 'edges', 'PASS')]
    """
    check_level("alpha", alpha)
    if alpha >= 0.5:
        raise ValueError(f"`alpha` must be less than 0.5, the chance of a wrong verdict; got {alpha}. Usual is 0.05.")
    subject, similarity = with_usable_similarities(subject, similarity)
    if not 0 <= margin < 1:
        raise ValueError(f"`margin` must be at least 0 and less than 1, got {margin}. Usual is {MARGIN}.")
    _rehearse(subject, checks, make_twin, num_twins, shift)
    how = subject.randomization
    settings = {
        "version": __version__,
        "weights": fingerprint(subject.model),
        "samples": subject.index.tolist(),
        "images": digest({"images": subject.images}),
        "target": "repredicted" if subject.repredict else subject.target.tolist(),
        "methods": {name: repr(method) for name, method in subject.methods.items()},
        "similarities": {name: describe(function) for name, function in subject.similarities.items()},
        "initialization": how.initialization,
        "batch_norm": how.batch_norm,
        "groups": how.groups,
        "shift": shift,
        "seed": subject.seed,
        "precision": subject.precision,
        "output": repr(subject.output),
    }
    (cells,) = shared_out([settings], partial(Cells, folder))  # one process writes
    originals = original_maps(subject, cells, progress)
    found = [*original_cells(subject, originals), *floor_cells(subject, originals)]
    states = shared_out([cells], partial(original_state, subject))
    verdicts: list[Verdict] = []
    whole = replace(how, orderings=("full",))
    entropies = replace(subject, similarities={ENTROPY_RISE: entropy_rise}, randomization=whole)
    work: dict[Examined, Callable[[], tuple[Any, ...]]] = {
        "parameters": lambda: parameter_cells(subject, originals, cells, progress),
        "data": lambda: data_cells(subject, originals, cells, cast(Any, make_twin), num_twins),
        "invariance": lambda: (invariance_cells(subject, cells, shift, progress), []),
        "efficient": lambda: parameter_cells(entropies, originals, cells, progress, "efficient"),
        "random_logit": lambda: (random_logit_cells(subject, originals, cells, progress), []),
    }
    for check in (check for check in work if check in checks):
        more, changed, *known = work[check]()
        found, states = found + more, states + changed
        judged = [_verdict(check, method, found, similarity, alpha, margin) for method in originals]
        verdicts += [_unless_forgotten(verdict, *known) for verdict in judged]
    verdicts = [without_the_dead(verdict, found, states) for verdict in verdicts]
    return SanityReport(
        settings,
        tuple(subject.index.tolist()),
        pictures(subject),
        tuple(found),
        tuple(states),
        tuple(verdicts),
        alpha,
        margin,
    )


def data_cells(
    subject: Subject,
    originals: Mapping[str, Tensor],
    cells: Cells,
    make_twin: Callable[[int], tuple[nn.Module, float]],
    num_twins: int,
) -> tuple[list[Cell], list[ModelState], list[float]]:
    """Maps under networks that learned random labels by heart, and their accuracies on these.

    Raises:
        ValueError: if two of them are the same.
    """

    def examined(number: int) -> tuple[list[Cell], ModelState, float, str]:
        twin, accuracy = make_twin(number)
        if not 0 <= accuracy <= 1:
            raise ValueError(f"`make_twin` must give an accuracy between 0 and 1 with its network, got {accuracy}.")
        name = fingerprint(twin)  # one that was trained longer is another one
        key = CellKey("data", "labels", 0, "random labels", number, "")
        return *examine_model(subject, originals, cells, key, lambda: twin, f"data-{name}"), accuracy, name

    found = shared_out(range(num_twins), examined)
    if len({name for *_, name in found}) < num_twins:
        raise ValueError("`make_twin` must give another network for each number, but some have the same weights.")
    return (
        [cell for part, *_ in found for cell in part],
        [state for _, state, *_ in found],
        [accuracy for *_, accuracy, _ in found],
    )


def invariance_cells(subject: Subject, cells: Cells, shift: float, progress: bool = False) -> list[Cell]:
    """Maps under the twin of the shifted input, whose output is the same; the processes share the methods out.

    Always in single precision: rounded to bfloat16, the two networks would not compute the same.
    """
    twin = shifted_twin(subject.model, shift, subject.images)

    key = CellKey("invariance", "shift", 0, str(twin.shift_compensation), 0, "")

    def examined(name: str) -> Cell:
        given = subject.images, subject.target, subject.methods[name], subject.bounds
        options: dict[str, Any] = {"index": subject.index, "seed": subject.seed, "output": subject.output}
        maps = partial(invariance_maps, subject.model, twin, shift, *given, **options)
        return kept_cell(subject, cells, f"invariance-{name}", replace(key, method=name), maps)

    return shared_out(list(subject.methods), examined, "shifting" if progress else None)


def random_logit_cells(
    subject: Subject, originals: Mapping[str, Tensor], cells: Cells, progress: bool = False
) -> list[Cell]:
    """Maps of another class, drawn for each sample; the processes share the methods out."""
    key = CellKey("random_logit", "classes", 0, "another class", 0, "")
    other = replace(subject, target=another_class(subject), repredict=False)

    def examined(method: str) -> list[Cell]:
        return compared_cells(other, {method: originals[method]}, cells, key, lambda: subject.model)

    found = shared_out(list(originals), examined, "explaining" if progress else None)
    return [cell for part in found for cell in part]


def another_class(subject: Subject) -> Labels:
    """For each sample a class that is not the explained one, by the sample's key."""
    number = num_outputs(subject.model, subject.images, subject.output)
    return other_classes(subject.explained(subject.model), number, Context.create(subject.index, subject.seed))


def paper_methods(
    model: nn.Module, has_bounds: bool, images: Tensor | None = None, output: Output = Logit()
) -> dict[str, Explainer]:
    """The explainers of Adebayo et al. that the network admits, and AdaptGrad, NoiseGrad and FusionGrad.

    SmoothGrad's noise is 0.15 of the range, as theirs. Integrated Gradients start from black where the range of the
    inputs is known, else from zero. The controls are added by whoever asks.

    Args:
        images: By which it is found out whether the network admits guided backpropagation and GradCAM: what would be
            refused is left out. Without them guided backpropagation takes part where there are ReLU modules, GradCAM
            where there are convolutions.
        output: What is explained.

    Source: Adebayo et al. 2018, arXiv 1810.03292.

    Raises:
        ValueError: if the network gives no gradient, so that no method could explain it.

    Example:
        >>> from torch import nn
        >>> from lightning_xai.sanity import paper_methods
        >>> perceptron = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> methods = paper_methods(perceptron, has_bounds=False)
        >>> "gradient" in methods, "grad_cam" in methods, "adapt_grad" in methods
        (True, False, False)
    """
    admitted = partial(_if_admitted, model, images, output)
    baseline: Baseline = "black" if has_bounds else 0.0
    integrated = IntegratedGradients(baseline=baseline)
    methods: dict[str, Explainer | None] = {
        "gradient": Gradient(),
        "smooth_grad": smooth_grad(fraction=0.15),
        "input_x_gradient": InputXGradient(),
        "guided_backprop": admitted(guided_backprop(), nn.ReLU),
        "grad_cam": admitted(grad_cam(), _ConvNd),
        "guided_grad_cam": admitted(guided_grad_cam(), nn.ReLU, _ConvNd),
        "integrated_gradients": integrated,
        "smooth_integrated_gradients": Smooth(
            IntegratedGradients(baseline=baseline, num_steps=20), RangeScale(0.15), num_draws=10
        ),
        "var_grad": Smooth(scale=RangeScale(0.15), statistic="variance"),
        "adapt_grad": adapt_grad() if has_bounds else None,
        "noise_grad": noise_grad(),
        "fusion_grad": fusion_grad(),
    }
    return {name: method for name, method in methods.items() if method is not None}


def pictures(subject: Subject) -> np.ndarray:
    """The kept inputs, (kept, channel, *places), on a scale of 0 to 1."""
    images = subject.images[:KEPT].detach().cpu().float()
    bounds = Context.create(subject.index, bounds=subject.bounds, ndim=images.ndim).bounds
    low, high = (images.amin(), images.amax()) if bounds is None else bounds
    return by_channel(((images - low) / (high - low)).clamp(0, 1)).numpy()


def _rehearse(
    subject: Subject,
    checks: Sequence[Examined],
    make_twin: Callable[[int], tuple[nn.Module, float]] | None,
    num_twins: int,
    shift: float,
) -> None:
    """Raise what the checks will raise, before anything is explained or written."""
    for check in checks:
        check_choice("checks", check, Examined)
    check_count("num_twins", num_twins)
    check_in_bounds(subject.images, subject.bounds)
    _check_logits(subject)
    if {"parameters", "efficient"} & set(checks):
        blocks = parameter_blocks(subject.model, subject.images, subject.randomization.groups)
        subject.randomization.model(subject.model, blocks, subject.seed, subject.images)
    if "data" in checks and make_twin is None:
        raise ValueError("`make_twin` is needed by the data check: it gives a network trained on random labels.")
    if "invariance" in checks:
        shifted_twin(subject.model, shift, subject.images)
    if "random_logit" in checks:
        another_class(subject)


def _check_logits(subject: Subject) -> None:
    broken = logits_of(subject.model, subject.images).isnan().flatten(1).any(1)
    if broken.any():
        raise ValueError(
            f"`model` must give logits that are numbers, but {int(broken.sum())} of {len(broken)} samples have a NaN "
            "among theirs: look for weights that are NaN, a division by zero, or an overflow in half precision."
        )


def _verdict(
    check: Examined, method: str, found: Sequence[Cell], similarity: str, alpha: float, margin: float
) -> Verdict:
    if check == "invariance":
        return invariance_verdict(method, found, similarity, alpha)
    if check == "efficient":
        return complexity_verdict(method, found, ENTROPY_RISE, alpha)
    return randomization_verdict(check, method, found, similarity, alpha, margin)


def _unless_forgotten(verdict: Verdict, known: Sequence[float] = (1.0,)) -> Verdict:
    """The verdict, if the twins that it is of know their random labels; `known` are the shares that they know."""
    if min(known) >= MEMORIZED:
        return verdict
    number = int(np.argmin(known))
    reason = (
        f"Twin {number} of {len(known)}, trained on random labels, knows only {100 * known[number]:.1f} % of them by "
        f"heart, less than {100 * MEMORIZED:.0f} %: train it longer (`twin_epochs`), or otherwise. {verdict.reason}"
    )
    return replace(verdict, outcome="INCONCLUSIVE", reason=reason)


def _if_admitted(
    model: nn.Module, images: Tensor | None, output: Output, method: Explainer, *kinds: type[nn.Module]
) -> Explainer | None:
    """The method, or None where it would be refused; without images, where the model has no modules of these kinds."""
    if images is None:
        return method if all(any(isinstance(part, kind) for part in model.modules()) for kind in kinds) else None
    rows = probe_rows(model, images)
    Gradient()(model, rows, 0, output=output)  # what no method could explain is not for this one to hide
    try:
        method(model, rows, 0, output=output)
    except ValueError:
        return None
    return method
