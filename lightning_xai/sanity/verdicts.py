"""From similarities to a verdict: does a map fall to the floor when the model's knowledge is gone?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from lightning_xai.explainers.base import check_level
from lightning_xai.reporting.sanity import Cell, CellKey, Check, ModelState, Outcome, Verdict

NUM_RESAMPLES = 2000
LEAST_DEFINED = 0.5
"""Share of the samples whose similarity must be defined for a verdict."""
UNCHANGED = 0.999
"""The similarity from which maps count as the same, where they should be."""

_BADNESS: tuple[Outcome, ...] = ("PASS", "INCONCLUSIVE", "FAIL")
_ORDER = ("cascading_from_top", "full", "cascading_from_bottom")

Grid = Float64[np.ndarray, " repeats samples"]


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap confidence interval."""

    mean: float
    low: float
    high: float


def randomisation_verdict(
    check: Check, method: str, cells: Iterable[Cell], similarity: str, alpha: float = 0.05, seed: int = 0
) -> Verdict:
    """PASS if the maps under the changed model are no more like the trained model's than unrelated maps are.

    Two steps of a cascade from the output decide: all blocks random but the first, and all random. At the first of the
    two the model knows nothing any more but still has the features that it learned first: maps that show these, and the
    image, and not what the model makes of them, give themselves away there. The worse outcome counts. Of the other
    orderings, and of the data check, the last step decides.

    At a step, the similarity, averaged over repeats and samples, is compared with the greater of the two floors: of
    maps of different images, and of random maps. PASS: the whole confidence interval of the difference is at or below
    0. FAIL: it is above 0. INCONCLUSIVE: it straddles 0, or the similarity is undefined for more than half of the
    samples.

    Args:
        cells: Of the floor and of the check; cells of other methods and checks are not looked at.
        alpha: One less the interval's confidence.
    """
    mine = [cell for cell in cells if cell.key.method == method]
    floors = {c.key.variant: _grid([c], similarity) for c in mine if c.key.check == "floor"}
    steps = _deciding([cell for cell in mine if cell.key.check == check])
    verdicts = [_step_verdict(step, floors, similarity, alpha, seed) for step in steps]
    return max(verdicts, key=lambda verdict: (_BADNESS.index(verdict.outcome), verdict.mean))


def _step_verdict(
    cells: Sequence[Cell], floors: Mapping[str, Grid], similarity: str, alpha: float, seed: int
) -> Verdict:
    key, changed = cells[0].key, _grid(cells, similarity)
    means = {variant: _mean(floor) for variant, floor in floors.items()}
    name = max(means, key=lambda variant: np.nan_to_num(means[variant], nan=-np.inf))
    shown = bootstrap(changed, alpha, seed)
    defined = np.isfinite(changed).any(0) & np.isfinite(floors[name]).any(0)
    if defined.mean() < LEAST_DEFINED:
        outcome: Outcome = "INCONCLUSIVE"
        reason = f"{_place(key)}the similarity is undefined for {(~defined).sum()} of {len(defined)} samples."
    else:
        difference = bootstrap(changed[:, defined] - floors[name][:, defined], alpha, seed)
        outcome = "PASS" if difference.high <= 0 else "FAIL" if difference.low > 0 else "INCONCLUSIVE"
        word = {"PASS": "not above", "FAIL": "above", "INCONCLUSIVE": "not clearly apart from"}[outcome]
        reason = (
            f"{_place(key)}similarity {shown.mean:.3f} [{shown.low:.3f}, {shown.high:.3f}] is {word} that of "
            f"{name.replace('_', ' ')}, {means[name]:.3f}."
        )
    return Verdict(key.check, key.method, outcome, similarity, shown.mean, shown.low, shown.high, means[name], reason)


def invariance_verdict(
    method: str, cells: Iterable[Cell], similarity: str, alpha: float = 0.05, seed: int = 0
) -> Verdict:
    """PASS if the maps stay the same where the model's output does: a mean similarity of at least 0.999."""
    mine = [cell for cell in cells if cell.key.method == method and cell.key.check == "invariance"]
    shown = bootstrap(grid := _grid(mine, similarity), alpha, seed)
    if np.isnan(shown.mean):
        outcome: Outcome = "INCONCLUSIVE"
    elif shown.low >= UNCHANGED:
        outcome = "PASS"
    else:
        outcome = "FAIL" if shown.high < UNCHANGED else "INCONCLUSIVE"
    how = ", ".join({f"compensated in the {cell.key.block}" for cell in mine})
    reason = f"Similarity {shown.mean:.4f} [{shown.low:.4f}, {shown.high:.4f}] to the map of the shifted image, {how}."
    if undefined := int((~np.isfinite(grid).any(0)).sum()):
        reason += f" It is undefined for {undefined} of {grid.shape[1]} samples."
    return Verdict("invariance", method, outcome, similarity, shown.mean, shown.low, shown.high, UNCHANGED, reason)


def complexity_verdict(method: str, cells: Iterable[Cell], score: str, alpha: float = 0.05, seed: int = 0) -> Verdict:
    """PASS if the maps become more complex when all weights are random (efficient MPRT, Hedström et al. 2024).

    PASS: the whole confidence interval of the mean relative rise of their entropy is above 0. FAIL: it is at or below
    0. INCONCLUSIVE: it straddles 0, or the rise is undefined for more than half of the samples.

    Args:
        score: Name of the rise among the scores of the cells.
    """
    mine = [cell for cell in cells if cell.key.method == method and cell.key.check == "efficient"]
    shown = bootstrap(_grid(mine, score), alpha, seed)
    defined = np.isfinite(_grid(mine, score)).any(0)
    if defined.mean() < LEAST_DEFINED:
        outcome: Outcome = "INCONCLUSIVE"
        reason = f"All random: the entropy is undefined for {(~defined).sum()} of {len(defined)} samples."
    else:
        outcome = "PASS" if shown.low > 0 else "FAIL" if shown.high <= 0 else "INCONCLUSIVE"
        word = {"PASS": "above", "FAIL": "not above", "INCONCLUSIVE": "not clearly apart from"}[outcome]
        interval = f"{shown.mean:.3f} [{shown.low:.3f}, {shown.high:.3f}]"
        reason = f"All random: the relative rise of the entropy, {interval}, is {word} 0."
    return Verdict("efficient", method, outcome, score, shown.mean, shown.low, shown.high, 0.0, reason)


def without_the_dead(verdict: Verdict, cells: Iterable[Cell], states: Iterable[ModelState]) -> Verdict:
    """The verdict, if the networks that it is of tell the images apart; else none, INCONCLUSIVE, and the reason.

    A map of a network whose logits are the same for all images (`ModelState.spread` 0) says nothing of the method. The
    trained network counts, and of those with random weights the ones at the steps that decide; a network that learned
    random labels is asked for its accuracy instead.
    """
    states = list(states)
    if any(state.check == "original" and state.spread == 0 for state in states):
        reason = "the network itself has the same logits for all samples: give a trained one, or other samples."
        return _none(verdict, reason)
    mine = [cell for cell in cells if (cell.key.check, cell.key.method) == (verdict.check, verdict.method)]
    deciding = {_model(cell.key) for step in _deciding(mine) for cell in step}
    spreads = [state.spread for state in states if state.check != "data" and _model(state) in deciding]
    dead = spreads.count(0)
    if not dead:
        return verdict
    reason = (
        f"{dead} of the {len(spreads)} random networks that decide have the same logits for all samples, so that no "
        'signal is left: take `batch_norm="recalibrate"`, or `initialisation="permute"`, which keep it alive.'
    )
    return _none(verdict, reason)


def _none(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, outcome="INCONCLUSIVE", reason=f"No verdict: {reason} {verdict.reason}")


def _model(key: CellKey | ModelState) -> tuple[Check, str, int, int]:
    return key.check, key.variant, key.step, key.repeat


def bootstrap(values: Grid, alpha: float = 0.05, seed: int = 0) -> Interval:
    """Percentile interval of the mean under resampling of samples and, independently, of repeats.

    Both vary: other images, and other random weights. NaN is left out of the means.
    """
    check_level("alpha", alpha)
    values = values[:, np.isfinite(values).any(0)]
    if not values.size:
        return Interval(np.nan, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    repeats, samples = values.shape
    rows = generator.integers(repeats, size=(NUM_RESAMPLES, repeats, 1))
    columns = generator.integers(samples, size=(NUM_RESAMPLES, 1, samples))
    drawn = values[rows, columns]
    number = np.isfinite(drawn).sum((1, 2))
    means = np.nansum(drawn, axis=(1, 2)) / np.where(number > 0, number, np.nan)
    low, high = np.nanquantile(means, [alpha / 2, 1 - alpha / 2])
    return Interval(_mean(values), float(low), float(high))


def _deciding(cells: Sequence[Cell]) -> list[list[Cell]]:
    """All repeats of each step that decides; of several orderings, of the first of `_ORDER`."""
    variants = {cell.key.variant for cell in cells}
    variant = min(variants, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    steps = sorted({cell.key.step for cell in cells if cell.key.variant == variant})
    number = 2 if variant == "cascading_from_top" else 1
    return [[c for c in cells if (c.key.variant, c.key.step) == (variant, step)] for step in steps[-number:]]


def _place(key: CellKey) -> str:
    places = {
        "cascading_from_top": f"Random from the output down to {key.block}: ",
        "cascading_from_bottom": f"Random from the input up to {key.block}: ",
        "independent": f"Random in {key.block} alone: ",
        "full": "All random: ",
        "labels": "Trained on random labels: ",
        "classes": "Another class: ",
    }
    return places.get(key.variant, "")


def _grid(cells: Sequence[Cell], similarity: str) -> Grid:
    return np.stack([cell.scores[similarity] for cell in cells]).astype(np.float64)


def _mean(values: Grid) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
