"""Later sanity checks, beside those of Adebayo et al. 2018: functions of a model and images, one score a sample.

Smooth MPRT (Hedström et al. 2024) is the cascade of `randomization` on the maps of `smoothed` methods.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xai.explainers import Context, Explainer, RangeScale, Smooth
from lightning_xai.explainers.base import (
    check_choice,
    check_count,
    check_inputs,
    check_logits,
    check_rows,
    explaining,
    resolve_target,
)
from lightning_xai.explainers.chunks import in_chunks, probe_rows
from lightning_xai.explainers.controls import CONTROLS
from lightning_xai.explainers.precomputed import refuse_precomputed
from lightning_xai.explainers.rectifiers import require_guided
from lightning_xai.functional.maps import pixel_map
from lightning_xai.functional.random import standard_normal, uniform
from lightning_xai.metrics.checks import check_one_each
from lightning_xai.outputs import Logit, Output
from lightning_xai.sanity.blocks import parameter_blocks
from lightning_xai.sanity.randomization import BatchNormPolicy, Initialization, randomize
from lightning_xai.sanity.similarity import PRESETS, Similarity, compare
from lightning_xai.shapes import Images, Inputs, Keys, Labels, Scores, Targets

BackwardRule = Literal["gradient", "guided_backprop"]

INPUT = "input"
"""Name of the input among the places of `cosine_convergence`."""

SMOOTH_FRACTION = 0.1
"""Std of the noise of smooth MPRT, as a fraction of an image's range."""


def smoothed(methods: Mapping[str, Explainer], num_draws: int) -> dict[str, Explainer]:
    """The methods, each averaged over noisy inputs as in smooth MPRT (50 draws there); 0 for the methods themselves.

    Controls stay as they are.
    """
    if num_draws < 0:
        raise ValueError(f"`smooth` must be a number of noisy inputs, 0 for none, got {num_draws}.")
    if not num_draws:
        return dict(methods)
    kept, scale = tuple(CONTROLS.values()), RangeScale(SMOOTH_FRACTION)
    return {name: m if isinstance(m, kept) else Smooth(m, scale, num_draws) for name, m in methods.items()}


def efficient_mprt(
    model: nn.Module,
    images: Images,
    target: Targets | int | None,
    method: Explainer,
    context: Context | None = None,
    *,
    initialization: Initialization = "own",
    seed: int = 0,
    batch_norm: BatchNormPolicy = "recalibrate",
    num_bins: int = 100,
) -> Scores:
    """How much more complex a map becomes when all weights are random: (H(e') - H(e)) / H(e); higher is better.

    H is the `histogram_entropy` of the map e of the model, and e' of the randomized one, both of the class that the
    model explains (efficient MPRT, Hedström et al. 2024). One draw of the weights; average over seeds. NaN where a map
    is constant.

    Args:
        target: Classes to explain; None for those that `model` predicts.
        initialization, seed, batch_norm: As in `randomization.randomize`, of all blocks.
        num_bins: Bins of the histograms.

    Returns:
        Scores (batch,), without a unit; 0 where the random network's map is as complex.

    Raises:
        ValueError: if `num_bins` is no count, or the method has maps made elsewhere.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import lightning_xai as lx
        >>> from lightning_xai.sanity import efficient_mprt
        >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(2, 1, 8, 8)
        >>> efficient_mprt(model, images, 0, lx.SobelEdges())  # edges do not see the weights
        tensor([0., 0.])
    """
    check_count("num_bins", num_bins)
    refuse_precomputed({"method": method}, "efficient MPRT explains a network with random weights")
    context = _default(context, images)
    target = _resolve(model, images, target, context)
    other = randomize(model, parameter_blocks(model, images), initialization, seed, batch_norm, images)
    first, second = (method(m, images, target, context) for m in (model, other))
    return entropy_rise(first, second, num_bins)


def entropy_rise(first: Tensor, second: Tensor, num_bins: int = 100) -> Scores:
    """(H(second) - H(first)) / H(first), H being the `histogram_entropy` of attributions."""
    before, after = (histogram_entropy(attributions, num_bins) for attributions in (first, second))
    return (after - before) / before


def histogram_entropy(attributions: Tensor, num_bins: int = 100) -> Scores:
    """Entropy of the histogram of a map's values, in nats: 0 for a single bin, ln(num_bins) if all are equally full.

    The values are those of the signed pixel map. The bins are equally wide from its least to its greatest value, so
    that the map's scale and offset do not count; the number is fixed, 100 in Quantus, because entropies of different
    numbers of bins do not compare (its Freedman-Diaconis and Scott's rules count a map's axes for its values). NaN
    where the map is constant or not finite.
    """
    maps = pixel_map(attributions.detach(), absolute=False).flatten(1).cpu().double()
    defined = maps.isfinite().all(1) & (maps.amin(1) < maps.amax(1))
    counts = [np.histogram(values, num_bins)[0] for values in maps[defined].numpy()]
    shares = torch.tensor(np.array(counts).reshape(-1, num_bins), dtype=torch.float64) / maps.shape[1]
    return maps.new_full((len(maps),), torch.nan).masked_scatter(defined, torch.special.entr(shares).sum(1)).float()


def random_logit(
    model: nn.Module,
    images: Images,
    target: Targets | int | None,
    method: Explainer,
    context: Context | None = None,
    similarities: Mapping[str, Similarity] = PRESETS["paper"],
    foreground: Tensor | None = None,
) -> dict[str, Scores]:
    """How alike the maps of the explained and of another class are (Sixt et al. 2020); lower is better.

    The other class is drawn evenly from the rest, by the sample's key, and explained with the same noise.

    Args:
        target: Classes to explain; None for those that `model` predicts.
        similarities, foreground: As in `similarity.compare`.

    Returns:
        Scores (batch,) by name of the similarity.

    Raises:
        ValueError: if the model has fewer than two outputs, or the method has maps made elsewhere.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import lightning_xai as lx
        >>> from lightning_xai.sanity import random_logit
        >>> from lightning_xai.sanity.similarity import SIMILARITIES
        >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(2, 1, 8, 8)
        >>> random_logit(model, images, 0, lx.SobelEdges(), similarities={"pearson": SIMILARITIES["pearson"]})
        {'pearson': tensor([1., 1.])}
    """
    refuse_precomputed({"method": method}, "random logit explains another class")
    context = _default(context, images)
    target = _resolve(model, images, target, context)
    other = other_classes(target, num_outputs(model, images, context.output), context)
    first, second = (method(model, images, classes, context) for classes in (target, other))
    return compare(first, second, similarities, foreground)


def other_classes(target: Labels, num_classes: int, context: Context) -> Labels:
    """For each sample a class that is not its target, all others being as likely; by its key."""
    if num_classes < 2:
        raise ValueError(f"`model` must have at least two outputs for a random logit, got {num_classes}.")
    draws = uniform(context.private_keys("random_logit"), ()).to(target.device)
    return (target + 1 + (draws * (num_classes - 1)).long()) % num_classes


def num_outputs(model: nn.Module, inputs: Inputs, output: Output = Logit()) -> int:
    """How many targets have a map of their own: of a single logit the other class has the negative of the map."""
    with explaining(model), torch.no_grad():
        rows = probe_rows(model, inputs)
        raw = check_rows(model(rows), len(rows))
        return min(raw[0].numel(), output.scores(raw).shape[1])


def cosine_convergence(
    model: nn.Module, images: Inputs, context: Context | None = None, rule: BackwardRule = "gradient"
) -> tuple[tuple[str, ...], Float[Tensor, "batch place"]]:
    """How alike two random directions of the output become on their way back to the input (Sixt et al. 2020).

    For each sample two directions are drawn from N(0, 1), by its key, and propagated backward by the rule. The scores
    are the absolute cosines of the two vectors that arrive at a place; absolute, because a backward pass of rank one,
    which forgets what it explains, gives vectors that are equal but for a factor: 1 is bad. At the logits of k classes
    their mean square is 1/k, by chance. NaN where nothing arrives.

    Args:
        context: Whose keys and `max_rows` count.
        rule: "gradient", or "guided_backprop", which drops what is negative behind each nn.ReLU.

    Returns:
        The places and the scores: "input", then the blocks (`blocks.parameter_blocks`) whose module returns a tensor
        with a row a sample, at their outputs, in the order of execution.

    Raises:
        ValueError: if the rule is unknown, or the model has fewer than two outputs.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_xai.sanity import cosine_convergence
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> places, cosines = cosine_convergence(model, torch.rand(5, 4))
        >>> places, cosines.shape
        (('input', '0', '2'), torch.Size([5, 3]))
    """
    check_choice("rule", rule, BackwardRule)
    check_inputs(images)
    if rule == "guided_backprop":
        with explaining(model):
            require_guided(model, probe_rows(model, images), "guided backpropagation")
    context = _default(context, images)
    blocks = [block.name for block in parameter_blocks(model, images)]
    with explaining(model), _watching(model, blocks, rule) as outputs:
        images = images.detach().clone()
        rows = probe_rows(model, images, context.max_rows)
        seen = [rows] if len(rows) > 1 else [rows, torch.cat([rows, rows])]
        usable = set.intersection(*(_a_row_each(model, outputs, some) for some in seen))
        places = tuple(name for name in blocks if name in usable)
        cosines = partial(_cosines, model, outputs, places)
        scores = in_chunks(cosines, model, context.max_rows, images, context.private_keys("cosine_convergence"))
    return (INPUT, *places), scores.cpu()


def _a_row_each(model: nn.Module, outputs: dict[str, Tensor], rows: Inputs) -> set[str]:
    """The watched modules that return as many rows as the model gets."""
    outputs.clear()
    model(rows.clone().requires_grad_())
    return {name for name, output in outputs.items() if len(output) == len(rows)}


def _cosines(
    model: nn.Module, outputs: dict[str, Tensor], places: tuple[str, ...], inputs: Inputs, keys: Keys
) -> Float[Tensor, "batch place"]:
    outputs.clear()
    inputs = inputs.detach().requires_grad_()
    logits = check_logits(model(inputs), len(inputs))
    if logits.shape[1] < 2:
        raise ValueError("`model` must have at least two outputs, or all directions of its output are one; got 1.")
    directions = standard_normal(keys, (2, logits.shape[1]), logits.device).to(logits.dtype)
    ends = [inputs, *(outputs[place] for place in places)]
    backward = partial(torch.autograd.grad, logits, ends, retain_graph=True, materialize_grads=True)
    arrived = [backward(direction) for direction in directions.unbind(1)]
    return torch.stack([_cosine(first, second) for first, second in zip(*arrived, strict=True)], 1)


def _cosine(first: Tensor, second: Tensor) -> Scores:
    x, y = (nn.functional.normalize(v.flatten(1).double(), dim=1, eps=0) for v in (first, second))
    return (x * y).sum(1).abs().float()


@contextmanager
def _watching(model: nn.Module, names: list[str], rule: BackwardRule) -> Iterator[dict[str, Tensor]]:
    """While active: the outputs of modules, by name, of their first run of a pass; the ReLUs obey the rule."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, arguments: Any, output: Any) -> Tensor | None:
        if name in outputs or not isinstance(output, Tensor) or not (output.ndim and output.requires_grad):
            return None
        outputs[name] = output
        return output.clone()  # what comes next may work in place

    modules = dict(model.named_modules())
    hooks: list[tuple[nn.Module, Callable]] = [(modules[n], partial(keep, n)) for n in names if n in modules]
    if rule == "guided_backprop":
        hooks += [(module, _guide) for module in modules.values() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _guide(module: nn.Module, arguments: Any, output: Tensor) -> None:
    """Let only what is positive pass back to a ReLU, which itself stops it where its input is negative."""
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.clamp(min=0))


def _default(context: Context | None, inputs: Inputs) -> Context:
    context = Context.create(torch.arange(len(inputs))) if context is None else context
    check_one_each(len(inputs), context=context.keys)
    return context


def _resolve(model: nn.Module, inputs: Inputs, target: Targets | int | None, context: Context) -> Labels:
    check_inputs(inputs)
    with explaining(model):
        return resolve_target(model, inputs, target, context.max_rows, context.output)
