"""From similarities to a verdict: does a map fall to the floor when the model's knowledge is gone?

Where models are randomized, the network is the unit, and the samples are crossed with it: another network gives another
similarity, which more samples do not tell. Where the one network is asked, the samples are.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_xai.results.sanity import MARGIN, Cell, CellKey, Check, ModelState, Outcome, Verdict
from lightning_xai.results.sanity_means import (
    LEAST_DEFINED,
    LEAST_SAMPLES,
    Grid,
    Mean,
    deciding_steps,
    floors_of,
    mean_of,
    one_network,
)

LEAST_NETWORKS = 3
"""Networks without which there is no verdict on what randomizes them."""
UNCHANGED = 0.999
"""The similarity from which maps count as the same, where they should be."""

_BADNESS: tuple[Outcome, ...] = ("PASS", "INCONCLUSIVE", "FAIL")
_MORE: dict[Check, str] = {"parameters": "repeats", "efficient": "repeats", "data": "num_twins"}
"""The option that makes more networks."""


def randomization_verdict(
    check: Check, method: str, cells: Iterable[Cell], similarity: str, alpha: float = 0.05, margin: float = MARGIN
) -> Verdict:
    """PASS if the maps under the changed models are no more like the trained model's than unrelated maps are.

    Two steps of a cascade from the output decide: all blocks random but the first, and all random. At the first of the
    two the model knows nothing any more but still has the features that it learned first: maps that show these, and the
    image, and not what the model makes of them, give themselves away there. The worse outcome counts. Of the other
    orderings, and of the data check, the last step decides.

    At a step, the similarity, averaged over networks and samples, is compared with the greater of the two floors, of
    maps of different images and of random maps. No interval lies at or below a difference of exactly 0, so that the
    question is one of equivalence: with δ = `margin` (1 - floor), PASS if the whole confidence interval of similarity -
    floor lies at or below δ, FAIL if it lies above δ. INCONCLUSIVE otherwise, with fewer than three networks, and where
    the similarity is undefined for more than half of the samples.

    The interval (`crossed_mean`) is for other networks and other samples, the floor's uncertainty included. Where the
    difference is δ, a wrong PASS has a chance of at most `alpha`, and so has a wrong FAIL, for which the level is split
    over the steps. That is so as far as the means of networks are about normal: of a network in ten that is quite
    different, few networks know nothing.

    The check "random_logit" is about the one network: the interval is that of the samples alone, of the level 1 -
    `alpha`, and there is no margin.

    Args:
        cells: Those of the floor and of the check; cells of other methods and checks are not looked at.
        alpha: Chance of a wrong PASS, and of a wrong FAIL.
        margin: At least 0, less than 1.
    """
    cells = list(cells)
    floors = floors_of(cells, method, similarity)
    steps = deciding_steps([cell for cell in cells if (cell.key.check, cell.key.method) == (check, method)])
    options: dict[str, Any] = {"alpha": alpha, "margin": 0.0 if one_network(check) else margin, "num_steps": len(steps)}
    verdicts = [
        _step_verdict(step[0].key, similarity, mean_of(check, _grid(step, similarity), floors, **options))
        for step in steps
    ]
    return max(verdicts, key=lambda verdict: (_BADNESS.index(verdict.outcome), verdict.mean))


def _step_verdict(key: CellKey, similarity: str, found: Mean) -> Verdict:
    margin = f" + {found.margin:.3f}" if found.margin else ""
    floor = f"that of {found.floor_name.replace('_', ' ')}, {found.floor:.3f}{margin}"
    outcome = _outcome(key.check, found, found.floor + found.margin)
    word = {"PASS": "not above", "FAIL": "above", "INCONCLUSIVE": "not clearly apart from"}[outcome]
    reason = _place(key) + (
        _undefined(found, "similarity") or f"similarity {_interval(found)} is {word} {floor}{_unit(key.check, found)}."
    )
    reason += _advice(key.check, found) if outcome == "INCONCLUSIVE" else ""
    return _verdict(key, outcome, similarity, found, found.floor, reason)


def invariance_verdict(method: str, cells: Iterable[Cell], similarity: str, alpha: float = 0.05) -> Verdict:
    """PASS if the maps stay the same where the model's output does: a mean similarity of at least 0.999.

    The check is about the one network: the interval is that of the samples (`mean_interval`), of the level 1 - `alpha`.
    """
    mine = [cell for cell in cells if cell.key.method == method and cell.key.check == "invariance"]
    found = mean_of("invariance", _grid(mine, similarity), alpha=alpha)
    if found.low >= UNCHANGED:
        outcome: Outcome = "PASS"
    else:
        outcome = "FAIL" if found.high < UNCHANGED else "INCONCLUSIVE"
    how = ", ".join({f"compensated in the {cell.key.block}" for cell in mine})
    reason = f"Similarity {_interval(found, 4)} to the map of the shifted image, {how}{_unit('invariance', found)}."
    return _verdict(mine[0].key, outcome, similarity, found, UNCHANGED, reason)


def complexity_verdict(method: str, cells: Iterable[Cell], score: str, alpha: float = 0.05) -> Verdict:
    """PASS if the maps become more complex when all weights are random (efficient MPRT, Hedström et al. 2024).

    PASS: the whole confidence interval of the mean relative rise of their entropy, for other networks and samples, is
    above 0. FAIL: it is at or below 0. INCONCLUSIVE: it straddles 0, there are fewer than three networks, or the rise
    is undefined for more than half of the samples.

    Args:
        score: Name of the rise among the scores of the cells.
        alpha: Chance of a wrong PASS, and of a wrong FAIL.
    """
    mine = [cell for cell in cells if cell.key.method == method and cell.key.check == "efficient"]
    found = mean_of("efficient", _grid(mine, score), alpha=alpha)
    below = _outcome("efficient", found, 0.0)
    outcome: Outcome = {"PASS": "FAIL", "FAIL": "PASS"}.get(below, below)  # type: ignore[assignment]
    word = {"PASS": "above", "FAIL": "not above", "INCONCLUSIVE": "not clearly apart from"}[outcome]
    reason = "All random: " + (
        _undefined(found, "entropy")
        or f"the relative rise of the entropy, {_interval(found)}, is {word} 0{_unit('efficient', found)}."
    )
    reason += _advice("efficient", found) if outcome == "INCONCLUSIVE" else ""
    return _verdict(mine[0].key, outcome, score, found, 0.0, reason)


def _outcome(check: Check, found: Mean, boundary: float) -> Outcome:
    """PASS at or below the boundary, FAIL above it."""
    few = not one_network(check) and found.num_networks < LEAST_NETWORKS
    if few or _undefined(found, ""):
        return "INCONCLUSIVE"
    return "PASS" if found.high <= boundary else "FAIL" if found.low > boundary else "INCONCLUSIVE"


def _verdict(key: CellKey, outcome: Outcome, similarity: str, found: Mean, threshold: float, reason: str) -> Verdict:
    ends = found.value, found.low, found.high
    networks = found.num_networks
    return Verdict(
        key.check, key.method, outcome, similarity, *ends, threshold, found.margin, networks, reason, _step(key)
    )


def _interval(found: Mean, digits: int = 3) -> str:
    ends = "" if math.isnan(found.low) else f" [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return f"{found.value:.{digits}f}{ends}"


def _undefined(found: Mean, what: str) -> str:
    """That too many maps have no score; nothing if enough have one."""
    if found.num_maps - found.num_undefined >= LEAST_DEFINED * found.num_maps:
        return ""
    return f"the {what} is undefined for {found.num_undefined} of {found.num_maps} maps."


def _unit(check: Check, found: Mean) -> str:
    networks = "the one network" if one_network(check) else _count(found.num_networks, "network")
    but = f" ({found.num_undefined} of {found.num_maps} maps undefined)" if found.num_undefined else ""
    return f", over {_count(found.num_samples, 'sample')} of {networks}{but}"


def _advice(check: Check, found: Mean) -> str:
    """What would lead to a verdict."""
    if _undefined(found, ""):
        return " Maps that are constant, or not finite, have none."
    if found.num_samples < LEAST_SAMPLES:
        return f" A verdict takes {LEAST_SAMPLES} samples or more (`num_samples`)."
    if one_network(check):
        return " More `num_samples` may tell."
    if found.num_networks < LEAST_NETWORKS:
        return f" A verdict takes {LEAST_NETWORKS} networks or more (`{_MORE[check]}`)."
    if found.network_share > 0.5:
        return f" Most of the uncertainty is that of the networks: more `{_MORE[check]}`."
    return " Most of the uncertainty is that of the samples: more `num_samples`."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def without_the_dead(verdict: Verdict, cells: Iterable[Cell], states: Iterable[ModelState]) -> Verdict:
    """The verdict, if the networks that it is of tell the images apart; else none, INCONCLUSIVE, and the reason.

    A map of a network whose logits are the same for all images (`ModelState.spread` 0) says nothing of the method. The
    trained network counts, and of the changed ones those at the steps that decide.
    """
    states = list(states)
    if any(state.check == "original" and state.spread == 0 for state in states):
        reason = "the network itself has the same logits for all samples: give a trained one, or other samples."
        return _none(verdict, reason)
    mine = [cell for cell in cells if (cell.key.check, cell.key.method) == (verdict.check, verdict.method)]
    deciding = {_model(cell.key) for step in deciding_steps(mine) for cell in step}
    spreads = [state.spread for state in states if _model(state) in deciding]
    dead = spreads.count(0)
    if not dead:
        return verdict
    cure = (
        "they learned nothing: train with another seed (`seed_everything`), a smaller learning rate, or longer."
        if verdict.check == "data"
        else 'take `batch_norm="recalibrate"`, or `initialization="permute"`, which keep it alive.'
    )
    kind = "twins" if verdict.check == "data" else "random networks"
    reason = (
        f"{dead} of the {len(spreads)} {kind} that decide have the same logits for all samples, so that no signal is "
        f"left: {cure}"
    )
    return _none(verdict, reason)


def _none(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, outcome="INCONCLUSIVE", reason=f"No verdict: {reason} {verdict.reason}")


def _model(key: CellKey | ModelState) -> tuple[Check, str, int, int]:
    return key.check, key.variant, key.step, key.repeat


def _step(key: CellKey) -> str:
    """What was changed, in a word or two."""
    steps = {
        "cascading_from_top": f"down to {key.block}",
        "cascading_from_bottom": f"up to {key.block}",
        "independent": f"{key.block} alone",
        "full": "all weights",
        "labels": "random labels",
        "classes": "another class",
    }
    return steps.get(key.variant, key.variant)


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
