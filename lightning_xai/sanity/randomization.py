"""Parts of a model put back to random weights, on a copy: what the sanity checks of Adebayo et al. 2018 compare with.

The parameters of a model are divided into blocks in the order in which the model uses them; `steps` says which blocks a
check randomizes together, `randomize` makes the models, and `evidence` measures what became of them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_xai.explainers.base import check_choice, check_count, check_inputs, check_rows, explaining
from lightning_xai.explainers.chunks import in_chunks
from lightning_xai.explainers.state import seeded
from lightning_xai.explainers.untrained import first_values
from lightning_xai.functional.random import fold_in_int
from lightning_xai.outputs import Logit, Output, Region
from lightning_xai.sanity.blocks import NORMS, Block, Division, Ordering, copy_model, parameter_blocks, steps
from lightning_xai.shapes import Inputs, Labels, Raw

__all__ = [
    "Block",
    "ModelEvidence",
    "Ordering",
    "Randomization",
    "evidence",
    "parameter_blocks",
    "randomize",
    "steps",
]

Initialization = Literal["own", "normal", "permute"]
BatchNormPolicy = Literal["keep", "reset", "recalibrate"]

NORMAL_STD = 0.01
"""Standard deviation of the published initialization, before the normal distribution is cut off at two of them."""

LEAST_SPREAD = 1e-5
"""Share of the logits' size below which they count as the same for all images; the rounding of their type if more."""


@dataclass(frozen=True)
class ModelEvidence:
    """What a model still does.

    Attributes:
        accuracy: Share of the samples whose label is predicted; NaN of outputs without labels.
        entropy: Mean entropy of the classes' probabilities, in nats; ln(classes) where nothing is known; NaN where they
            do not exclude each other, or there are none.
        activation_scale: Root mean square of the network's output.
        spread: Root mean square of what each number of it differs by from its mean over the images; 0 if less than
            `LEAST_SPREAD` of the scale (a network that says the same of all images), NaN of a single image.
    """

    accuracy: float
    entropy: float
    activation_scale: float
    spread: float


@dataclass(frozen=True)
class Randomization:
    """Which random models a check makes, and how.

    Args:
        orderings: Which blocks are randomized together (`steps`).
        repeats: Independent random models of each step; a verdict takes three.
        initialization: What random weights are: `own`, `normal` (the published one) or `permute` (see `randomize`).
        batch_norm: Running statistics of random models: `recalibrate` them on the samples, `reset` or `keep` them;
            kept, deep networks with random weights say the same of all images, and get no verdict.
        groups: `stages`, at most twelve blocks that a person would name, `layers`, a block a layer, or blocks by name,
            each with patterns of parameter or module names (see `parameter_blocks`).

    Raises:
        ValueError: if an ordering, an initialization or a policy is unknown, or there are no repeats.

    Source: Adebayo et al. 2018, arXiv 1810.03292.

    Example:
        >>> from lightning_xai.sanity import Randomization
        >>> Randomization(repeats=4, groups={"features": ["0", "1"], "head": ["2"]}).orderings
        ('cascading_from_top',)
    """

    orderings: tuple[Ordering, ...] = ("cascading_from_top",)
    repeats: int = 8
    initialization: Initialization = "own"
    batch_norm: BatchNormPolicy = "recalibrate"
    groups: dict[str, list[str]] | Division = "stages"

    def __post_init__(self) -> None:
        for ordering in self.orderings:
            check_choice("orderings", ordering, Ordering)
        check_count("repeats", self.repeats)
        check_choice("initialization", self.initialization, Initialization)
        check_choice("batch_norm", self.batch_norm, BatchNormPolicy)
        if isinstance(self.groups, str):
            check_choice("groups", self.groups, Division)

    def model(self, model: nn.Module, blocks: Iterable[Block], seed: int, images: Inputs) -> nn.Module:
        """A copy of the model with these blocks randomized."""
        return randomize(model, blocks, self.initialization, seed, self.batch_norm, images)


def randomize(
    model: nn.Module,
    blocks: Iterable[Block],
    initialization: Initialization = "own",
    seed: int = 0,
    batch_norm: BatchNormPolicy = "keep",
    images: Inputs | None = None,
) -> nn.Module:
    """A copy of the model with some of its blocks randomized; the model and the global random state stay as they are.

    A block's weights depend on the seed and its position alone: the next step of a cascade has the same ones in the
    blocks that were randomized before, and layers of one shape differ. They are drawn on the CPU, for any device.

    Args:
        model: The network that `blocks` are of.
        blocks: Some of `parameter_blocks`.
        initialization: "own": what `reset_parameters` of the parameter's module makes (also `_reset_parameters`); a
            parameter without one, or that it leaves as it was, gets normal values of its own mean and standard
            deviation. "normal": normal values of mean 0 and std 0.01, cut off at ±0.02, as published (their std is
            0.0088); normalization layers get their own initial values, because a scale of 0.01 a layer ends the
            signal. "permute": the parameter's elements in random order. Parameters that are initialized to a constant
            (affine parameters of normalization, by all but "permute") or are constant themselves need not change.
        seed: Seed of the random numbers.
        batch_norm: Running statistics of batch normalization: "keep" them, "reset" those of the randomized blocks to
            mean 0 and variance 1, or "recalibrate" those of the whole model to the statistics of `images`. Deep
            networks with random weights and statistics of other weights say the same of all images (EfficientNet-Lite0,
            all random, but for 1e-7 of the logits; recalibrated, for 0.3 of them): the checks recalibrate.
        images: What "recalibrate" passes through the model, all at once, without dropout.

    Raises:
        ValueError: if a block is not of this model, or "recalibrate" has no images, or too few.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_xai.sanity import parameter_blocks, randomize
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> first, last = parameter_blocks(model, torch.rand(2, 4))
        >>> other = randomize(model, [last], seed=1)
        >>> bool((other[0].weight == model[0].weight).all()), bool((other[2].weight == model[2].weight).any())
        (True, False)
    """
    check_choice("initialization", initialization, Initialization)
    check_choice("batch_norm", batch_norm, BatchNormPolicy)
    copied = copy_model(model)
    for block in blocks:
        _check_block(copied, block)
        with torch.no_grad(), seeded(fold_in_int(seed, block.position), torch.device("cpu")):
            for owner, names in _by_owner(block.parameters).items():
                _redraw(copied.get_submodule(owner), names, initialization)
        if batch_norm == "reset":
            for norm in _tracking(copied.get_submodule(name) for name in block.norms):
                norm.reset_running_stats()
    if batch_norm == "recalibrate":
        if images is None:
            raise ValueError('`images` must be given for `batch_norm="recalibrate"`: a batch to take statistics of.')
        _recalibrate(copied, images, seed)
    return copied


def evidence(
    model: nn.Module, images: Inputs, labels: Labels, max_rows: int | None = None, output: Output = Logit()
) -> ModelEvidence:
    """Accuracy, output entropy, scale and spread of the logits on some images, in evaluation mode.

    Args:
        max_rows: Rows that pass through the network at once; by default as many as fit in memory.
        output: Which says what the network predicts.

    Raises:
        ValueError: if there are not as many labels as images.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_xai.sanity import evidence
        >>> silent = nn.Linear(4, 2)
        >>> _ = nn.init.zeros_(silent.weight), nn.init.zeros_(silent.bias)
        >>> found = evidence(silent, torch.rand(6, 4), torch.zeros(6, dtype=torch.long))
        >>> found.accuracy, round(found.entropy, 4), found.spread  # ln 2 = 0.6931
        (1.0, 0.6931, 0.0)
    """
    check_inputs(images)
    if len(labels) != len(images):
        raise ValueError(f"`labels` must have one entry for each of the {len(images)} images, got {len(labels)}.")
    logits = logits_of(model, images, max_rows)
    rounding, logits = torch.finfo(logits.dtype).eps, logits.cpu().double()
    scale = logits.square().mean().sqrt().item()
    spread = (logits - logits.mean(0)).square().mean().sqrt().item() if len(logits) > 1 else math.nan
    broken = logits.isnan().view(len(logits), -1).any(1)
    right = (output.prediction(logits) == labels.cpu()) & ~broken
    return ModelEvidence(
        accuracy=right.double().mean().item() if output.has_labels else math.nan,
        entropy=_entropy(output, logits),
        activation_scale=scale,
        spread=0.0 if spread <= max(LEAST_SPREAD, rounding) * scale else spread,
    )


def logits_of(model: nn.Module, images: Inputs, max_rows: int | None = None) -> Raw:
    """The model's outputs in evaluation mode, in their own type."""
    with explaining(model), torch.no_grad():
        return in_chunks(lambda rows: check_rows(model(rows), len(rows)), model, max_rows, images)


def _entropy(output: Output, logits: Tensor) -> float:
    exclusive = output.has_labels and not isinstance(output, Region) and not getattr(output, "multi_label", False)
    return torch.special.entr(output.probabilities(logits)).sum(1).mean().item() if exclusive else math.nan


# Values


def _check_block(model: nn.Module, block: Block) -> None:
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    unknown = [name for name in block.parameters if name not in known]
    if unknown:
        raise ValueError(
            f"`blocks`: {block.name!r} has parameters that `model` ({type(model).__name__}) does not have: "
            f"{', '.join(unknown)}; take `parameter_blocks` of this model."
        )


def _by_owner(parameters: Iterable[str]) -> dict[str, list[str]]:
    """Parameter names without their module, by the name of the module."""
    owners: dict[str, list[str]] = {}
    for name in parameters:
        owner, _, leaf = name.rpartition(".")
        owners.setdefault(owner, []).append(leaf)
    return owners


def _redraw(module: nn.Module, names: Sequence[str], initialization: Initialization) -> None:
    """Give some of a module's own parameters new values, in place, so that ties hold."""
    for name, fresh in _fresh_values(module, initialization).items():
        if name in names:
            module.get_parameter(name).copy_(fresh)


def _fresh_values(module: nn.Module, initialization: Initialization) -> dict[str, Tensor]:
    """New values for all of a module's own parameters, on the CPU."""
    current = {name: value.detach().cpu() for name, value in module.named_parameters(recurse=False)}
    if initialization == "permute":
        return {n: value.flatten()[torch.randperm(value.numel())].view_as(value) for n, value in current.items()}
    if initialization == "normal" and not isinstance(module, NORMS):
        return {name: _cut_normal(value.shape) for name, value in current.items()}
    return first_values(module)


def _cut_normal(shape: torch.Size) -> Tensor:
    return nn.init.trunc_normal_(torch.empty(shape), std=NORMAL_STD, a=-2 * NORMAL_STD, b=2 * NORMAL_STD)


def _tracking(modules: Iterable[nn.Module]) -> Iterator[_BatchNorm]:
    """Those that are batch normalization with running statistics."""
    return (module for module in modules if isinstance(module, _BatchNorm) and module.running_mean is not None)


def _recalibrate(model: nn.Module, images: Inputs, seed: int) -> None:
    """Set the running statistics to those of one batch; a layer that runs several times gets the mean of its runs."""
    norms, modes = list(_tracking(model.modules())), [(module, module.training) for module in model.modules()]
    model.eval()  # not `explaining`, which would put the statistics back
    with torch.inference_mode(False), torch.no_grad(), seeded(seed, images.device), _taking_statistics(norms):
        for norm in norms:
            norm.reset_running_stats()
        try:
            _ = model(images.clone()) if norms else None
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                '`images` must be more than one for `batch_norm="recalibrate"`: a single value has no variance. Give '
                'more samples, or take `batch_norm="keep"`.'
            ) from error
    for module, training in modes:
        module.training = training


class _LocalBatchNorm(_BatchNorm):
    """Batch normalization of any shape, without the other processes."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


@contextmanager
def _taking_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """While active the layers average the statistics of their batches; synchronized ones do it by themselves.

    Each process makes other models: one that waits for the others there waits for ever.
    """
    states = [(norm.momentum, norm.training, norm.__class__) for norm in norms]
    for norm in norms:
        norm.momentum, norm.training = None, True
        if isinstance(norm, nn.SyncBatchNorm):
            norm.__class__ = _LocalBatchNorm  # type: ignore[assignment]
    try:
        yield
    finally:
        for norm, (momentum, training, kind) in zip(norms, states, strict=True):
            norm.momentum, norm.training, norm.__class__ = momentum, training, kind  # type: ignore[assignment]
