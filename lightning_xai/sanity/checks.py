"""Do maps depend on the model's weights and on its labels? The randomization checks of Adebayo et al. 2018."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_xai.evaluation import explain
from lightning_xai.explainers import Explainer, RandomAttribution
from lightning_xai.explainers.base import Bound, Context, explaining, parse_bounds, resolve_target
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.explainers.precomputed import refuse_precomputed
from lightning_xai.forward import rows_of
from lightning_xai.functional.maps import pixel_map
from lightning_xai.functional.random import fold_in_int
from lightning_xai.functional.warn import described
from lightning_xai.outputs import Logit, Output
from lightning_xai.progress import progress_bar
from lightning_xai.results.sanity import Cell, CellKey, Check, ModelState
from lightning_xai.sanity.cells import Cells
from lightning_xai.sanity.randomization import Block, Ordering, Randomization, evidence, parameter_blocks, steps
from lightning_xai.sanity.similarity import Similarity, TooSmallError, compare, foreground_mask, takes_foreground
from lightning_xai.shapes import Labels

NUM_SHIFTS = 5
"""Of the floor: how far apart images are paired, to either side."""

KEPT = 4
"""Of how many samples maps are kept for figures."""


@dataclass(frozen=True)
class Subject:
    """What the checks examine, and how.

    Attributes:
        model: The trained model.
        images: (samples, feature) or (samples, channel, ...).
        target: (samples,) the explained classes.
        index: (samples,) indices in the data set; the noise depends on them.
        methods: Explainers by name.
        similarities: Functions of `similarity` by name.
        bounds: Least and greatest value of an input element, as in `explain`.
        labels: (samples,) true classes, for the accuracy of the changed models; None leaves it undefined.
        repredict: Explain under a changed model the class that it predicts itself, instead of `target`.
        seed: Seed of all noise and all random weights.
        batch_size: Samples explained at a time.
        precision: Precision of the models, the trained and the changed ones; see `in_precision`.
        randomization: Which random models are made, and how.
        output: What is explained.

    Raises:
        ValueError: if a method has maps made elsewhere (`Precomputed`), which cannot be made of a changed network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import lightning_xai as lx
        >>> from lightning_xai.sanity import Subject
        >>> from lightning_xai.sanity.similarity import SIMILARITIES
        >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.rand(4, 1, 8, 8)
        >>> methods, similarities = {"gradient": lx.Gradient()}, {"spearman": SIMILARITIES["spearman"]}
        >>> subject = Subject(model, images, torch.zeros(4, dtype=torch.long), torch.arange(4), methods, similarities)
        >>> subject.attributions(model, lx.Gradient()).shape
        torch.Size([4, 1, 8, 8])
    """

    model: nn.Module
    images: Tensor
    target: Labels
    index: Labels
    methods: Mapping[str, Explainer]
    similarities: Mapping[str, Similarity]
    bounds: tuple[Bound, Bound] | None = None
    labels: Labels | None = None
    repredict: bool = False
    seed: int = 0
    batch_size: int = 64
    precision: Precision = "32-true"
    randomization: Randomization = Randomization()
    output: Output = Logit()

    def __post_init__(self) -> None:
        refuse_precomputed(self.methods, "sanity checks explain changed networks, inputs or classes")

    @property
    def conditions(self) -> Conditions:
        """Under which they explain."""
        return Conditions(self.bounds, self.seed, output=self.output, precision=self.precision)

    def attributions(self, model: nn.Module, method: Explainer) -> Tensor:
        """Maps of all samples under a model, on the CPU."""
        target = self.explained(model)
        given = vars(self.conditions)
        maps = [
            explain(rows_of(model, rows), self.images[rows], target[rows], method, index=self.index[rows], **given)
            for rows in _batches(len(self.images), self.batch_size)
        ]
        return torch.cat([part.cpu() for part in maps])

    def explained(self, model: nn.Module) -> Labels:
        """The classes explained under a model."""
        with in_precision(model, self.precision), explaining(model):
            return resolve_target(model, self.images, None, None, self.output) if self.repredict else self.target

    @cached_property
    def foreground(self) -> Tensor | None:
        """Where an image is not black; None where black is not known."""
        bounds = parse_bounds(self.bounds, self.images.device, self.images.dtype, self.images.ndim)
        return None if bounds is None else foreground_mask(self.images, bounds[0]).cpu()


def with_usable_similarities(subject: Subject, deciding: str | None) -> tuple[Subject, str]:
    """The subject with those of its similarities alone that its images admit, and the one that decides.

    HOG needs images of 6 pixels a side, SSIM places side by side and room for its window, Spearman's of the foreground
    a background.

    Args:
        deciding: None for SSIM, or where it is not admitted for the first one that is.

    Raises:
        ValueError: if the similarity that decides is not among them.
    """
    reasons = unusable_similarities(subject)
    usable = {name: function for name, function in subject.similarities.items() if name not in reasons}
    if deciding is None:
        deciding = "ssim" if "ssim" in usable else next(iter(usable), "")
    if deciding not in usable:
        why = f", which these images do not admit: {reasons[deciding]}" if deciding in reasons else ""
        raise ValueError(f"`similarity` must be one of {', '.join(map(repr, usable))}; got {deciding!r}{why}")
    return replace(subject, similarities=usable), deciding


def unusable_similarities(subject: Subject) -> dict[str, str]:
    """Those of its similarities that the subject's images do not admit, and why."""
    reasons = {name: _why_unusable(subject, name) for name in subject.similarities}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _why_unusable(subject: Subject, name: str) -> str | None:
    """What a similarity says when it compares maps of the subject's size; None if it works."""
    similarity = subject.similarities[name]
    if takes_foreground(similarity) and (subject.foreground is None or bool(subject.foreground.all())):
        return (
            "it compares the pixels that are not black, but the data have no `bounds`, which say what black is, or no "
            "pixel there."
        )
    maps = torch.zeros_like(subject.images[:1], device="cpu")
    try:
        compare(maps, maps, {name: similarity}, torch.ones_like(pixel_map(maps, absolute=False), dtype=torch.bool))
    except TooSmallError as error:
        return str(error)
    return None


def original_maps(subject: Subject, cells: Cells, progress: bool = False) -> dict[str, Tensor]:
    """The attributions under the trained model, by method; the processes share the methods out."""

    def explained(name: str) -> tuple[str, Tensor]:
        method = subject.methods[name]
        found = cells.once(f"original-{name}", lambda: {"maps": subject.attributions(subject.model, method)})
        return name, found["maps"]

    found = dict(shared_out(list(subject.methods), explained, "explaining" if progress else None))
    return {name: found[name] for name in subject.methods}


def floor_cells(subject: Subject, originals: Mapping[str, Tensor]) -> list[Cell]:
    """What similarity means nothing: of maps of different images, and of random maps, under the trained model.

    Each sample's map is compared with those of the samples 1 to 5 places before and behind it (Arun et al. 2021), the
    mean being its score, and with a random map.
    """
    context = Context.create(subject.index, fold_in_int(subject.seed, 1))
    noise = RandomAttribution()(subject.model, subject.images.cpu(), 0, context)
    found = []
    for method, maps in originals.items():
        shifts = range(1, min(NUM_SHIFTS, len(maps) - 1) + 1)
        pairs = [(shift, _compare(subject, maps, maps.roll(shift, 0))) for shift in shifts]
        if pairs:
            scores = {name: _of_both([(shift, found[name]) for shift, found in pairs]) for name in subject.similarities}
            found.append(Cell(CellKey("floor", "different_images", 0, "", 0, method), scores))
        found.append(Cell(CellKey("floor", "random_maps", 0, "", 0, method), _compare(subject, maps, noise)))
    return found


def original_cells(subject: Subject, originals: Mapping[str, Tensor]) -> list[Cell]:
    """The trained model's own maps, for the figures; their similarity to themselves is 1."""
    return [
        Cell(CellKey("original", "", 0, "", 0, method), _compare(subject, maps, maps), _kept(maps))
        for method, maps in originals.items()
    ]


def original_state(subject: Subject, cells: Cells) -> ModelState:
    """What the trained model does."""
    return ModelState("original", "", 0, "", 0, **cells.once("state-original", lambda: _state(subject, subject.model)))


def parameter_cells(
    subject: Subject,
    originals: Mapping[str, Tensor],
    cells: Cells,
    progress: bool = False,
    check: Check = "parameters",
) -> tuple[list[Cell], list[ModelState]]:
    """Maps under models with random weights, compared with the trained model's; the processes share the models out.

    Args:
        progress: Whether to show a progress bar.
        check: What the cells are of.
    """
    how = subject.randomization
    blocks = parameter_blocks(subject.model, subject.images, how.groups)

    def examine(task: tuple[Ordering, int, str, tuple[Block, ...], int]) -> tuple[list[Cell], ModelState]:
        ordering, step, name, chosen, repeat = task
        seed = fold_in_int(subject.seed, repeat)
        changed = partial(how.model, subject.model, chosen, seed, subject.images)
        return examine_model(subject, originals, cells, CellKey(check, ordering, step, name, repeat, ""), changed)

    tasks = [
        (ordering, step, name, chosen, repeat)
        for ordering in how.orderings
        for step, (name, chosen) in enumerate(steps(blocks, ordering))
        for repeat in range(how.repeats)
    ]
    results = shared_out(tasks, examine, "randomizing" if progress else None)
    return [cell for found, _ in results for cell in found], [state for _, state in results]


def examine_model(
    subject: Subject,
    originals: Mapping[str, Tensor],
    cells: Cells,
    key: CellKey,
    make_model: Callable[[], nn.Module],
    place: str | None = None,
) -> tuple[list[Cell], ModelState]:
    """All methods under one changed model, which is made only if something is still to be found out.

    Args:
        key: What is examined, without a method.
        place: What the kept parts are called; None for a name made of the key, which must say which model it is.
    """
    changed = cache(make_model)
    place = _place(key) if place is None else place
    found = compared_cells(subject, originals, cells, key, changed, place)
    known = cells.once(f"state-{place}", lambda: _state(subject, changed()))
    return found, ModelState(key.check, key.variant, key.step, key.block, key.repeat, **known)


def compared_cells(
    subject: Subject,
    originals: Mapping[str, Tensor],
    cells: Cells,
    key: CellKey,
    make_model: Callable[[], nn.Module],
    place: str | None = None,
) -> list[Cell]:
    """The subject's maps under a model compared with the original ones, by the methods that there are originals of.

    Args:
        make_model: Called for each method that is not known yet.
        key, place: As in `examine_model`.
    """
    place = _place(key) if place is None else place

    def maps(method: str) -> tuple[Tensor, Tensor]:
        return originals[method], subject.attributions(make_model(), subject.methods[method])

    return [
        kept_cell(subject, cells, f"{place}-{method}", replace(key, method=method), partial(maps, method))
        for method in originals
    ]


def kept_cell(
    subject: Subject, cells: Cells, place: str, key: CellKey, make_maps: Callable[[], tuple[Tensor, Tensor]]
) -> Cell:
    """The similarities of two maps, which are made only if they are not known; the second is kept for figures."""

    def compared() -> dict[str, Any]:
        first, second = make_maps()
        kept = pixel_map(second[:KEPT], absolute=False).cpu() if key.repeat == 0 else torch.empty(0, 0, 0)
        return {"scores": compare(first, second, subject.similarities, subject.foreground), "maps": kept}

    found = cells.once(place, compared)
    return Cell(key, {name: scores.numpy() for name, scores in found["scores"].items()}, found["maps"].numpy())


def shared_out(tasks: Sequence[Any], work: Callable[[Any], Any], title: str | None = None) -> list[Any]:
    """`work` of every task, in order; where torch.distributed is initialized, each process does its share.

    Args:
        title: Title of a progress bar, if there shall be one.

    Raises:
        RuntimeError: in every process where one has failed; where all have, what failed.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if _distributed() else (0, 1)
    numbered = list(enumerate(tasks))[rank::world]
    bar = progress_bar(title, len(numbered), "model", title is not None and rank == 0, numbered)
    failure: Exception | None = None
    try:
        mine: Any = [(number, work(task)) for number, task in bar]
    except Exception as error:  # the others wait for this process
        mine, failure = f"process {rank} of {world}: {described(error)}", error
    everybodys: list[Any] = [mine]
    if world > 1:
        everybodys = [None] * world
        dist.all_gather_object(everybodys, mine)
    failed = [part for part in everybodys if isinstance(part, str)]
    if failure is not None and len(failed) == world:
        raise failure
    if failed:
        raise RuntimeError(f"A check failed in {'; '.join(failed)}") from failure
    return [result for _, result in sorted((pair for part in everybodys for pair in part), key=lambda pair: pair[0])]


def _place(key: CellKey) -> str:
    return f"{key.check}-{key.variant}-{key.step:02d}-{key.repeat:02d}"


def _state(subject: Subject, model: nn.Module) -> dict[str, float]:
    labels = subject.target if subject.labels is None else subject.labels
    with in_precision(model, subject.precision):
        return asdict(evidence(model, subject.images, labels, output=subject.output))


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _compare(subject: Subject, first: Tensor, second: Tensor) -> dict[str, np.ndarray]:
    scores = compare(first, second, subject.similarities, subject.foreground)
    return {name: values.numpy() for name, values in scores.items()}


def _of_both(pairs: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Each sample's mean of the pairs that it is in, as itself or as the other one; NaN where nothing else is."""
    scores = np.stack([part for shift, found in pairs for part in (found, np.roll(found, -shift))])
    number = np.isfinite(scores).sum(0)
    return np.where(number > 0, np.nansum(scores, axis=0) / np.maximum(number, 1), np.nan).astype(scores.dtype)


def _kept(maps: Tensor) -> np.ndarray:
    return pixel_map(maps[:KEPT], absolute=False).numpy()


def _batches(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))
