"""The answer of a report: what it says in which situation."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lightning_xai.experiments import Run, compare_methods
from lightning_xai.experiments.findings import paired
from lightning_xai.reporting.page.metrics import about
from lightning_xai.reporting.page.numbers import decimals, text, written
from lightning_xai.reporting.page.sentences import floor, is_below_floor, leading, sentences, shown_first
from lightning_xai.results.findings import Findings, FoundRun
from lightning_xai.results.sanity import Verdict
from lightning_xai.results.scores import Scores
from lightning_xai.statistics.intervals import share_interval

RANK, NOISE = "relevance_rank_accuracy", "inherent_noise"
BETTER = {RANK: True, "auroc": True, "sparseness": True, NOISE: False, "faithfulness_correlation": True}
SHIFTS = np.linspace(-0.05, 0.05, 12)
"""Of the samples: the same for all methods, so that differences are sure."""


def run(values, metric=RANK, name="version_0", num_samples=12):
    """Each method's scores: a mean, to which each sample adds its shift; or all scores."""
    rows = (
        ("test", 3, 40, method, measure, sample, float(score))
        for measure, methods in (values if metric is None else {metric: values}).items()
        for method, mean in methods.items()
        for sample, score in enumerate(np.broadcast_to(mean, 12) + SHIFTS if np.ndim(mean) == 0 else mean)
        if sample < num_samples
    )
    return Run(name, Scores.from_rows(rows), BETTER)


def findings(*runs, verdicts=(), samples=None):
    pairs = tuple(paired(runs, 0.05, 0))
    found = [
        FoundRun(r.name, Path(), r.scores, Scores.from_rows(()), pd.DataFrame(samples or {}), {"parameters": verdicts})
        for r in runs
    ]
    return Findings(
        compare_methods(list(runs)), tuple(found if verdicts else [replace(f, verdicts={}) for f in found]), pairs
    )


def verdict(method, outcome):
    return Verdict("parameters", method, outcome, "ssim", 0.1, 0.0, 0.2, 0.3, 0.05, 8, "A reason.")


SEEN = {"saliency": 0.6, "gradient": 0.4, "edges": 0.3, "random": 0.1}
OFTEN_HIGHER = 0.6 + SHIFTS - np.repeat([0.06, -0.01], [7, 5])
"""Lower on average, and so says the interval of the difference, but not the ranks."""
HIDDEN = 0.6 + SHIFTS[::-1]
SAMPLES = {
    **{"stage": ["test"] * 12, "epoch": 3, "step": 40, "sample": range(12)},
    **{"target": [1] * 12, "predicted": [1] * 9 + [0] * 3},
}
TABLE = {
    "one method is best, and the floor is told": (
        lambda: findings(run(SEEN)),
        {
            "best": [
                "saliency points best at the evidence: relevance rank accuracy 60.0 % [58.",
                "(12 samples, 95 % interval); an edge detector that never sees the network 30.0 %, random maps 10.0 %.",
            ],
            "ties": ["All others are worse, by at least 20.0 [20.0, 20.0] points: gradient (Wilcoxon, Holm-corrected,"],
            "control": ["No control is as good: neither edges nor random reaches it, in relevance rank accuracy."],
            "sanity": ["No sanity check was made"],
            "limits": ["Not told by this run: whether the network uses what they point at (no faithfulness metric)"],
        },
    ),
    "a control is as good": (
        lambda: findings(run(SEEN | {"edges": HIDDEN})),
        {
            "control": [
                "A control is as good: in relevance rank accuracy, edges has 60.0 %, not told from saliency with 60"
            ]
        },
    ),
    "a control is better": (
        lambda: findings(run(SEEN | {"edges": 0.9})),
        {
            "control": [
                "edges has 90.0 %, better than every method, the best being saliency with 60.0 % (12 samples). What is"
            ]
        },
    ),
    "the untrained network is as good": (
        lambda: findings(run(SEEN | {"untrained": HIDDEN})),
        {
            "best": ["an edge detector that never sees the network 30.0 %, random maps 10.0 %."],
            "control": [
                "untrained has 60.0 %, not told from saliency with 60",
                "can be had without a trained network.",
            ],
        },
    ),
    "one control is worse": (
        lambda: findings(run({"saliency": 0.6, "gradient": 0.4, "untrained": 0.1})),
        {
            "best": ["; the first method on an untrained network 10.0 %."],
            "control": ["No control is as good: untrained does not reach it, in relevance rank accuracy."],
        },
    ),
    "no method is above the floor": (
        lambda: findings(run(SEEN | {"random": 0.9})),
        {
            "best": [
                "No method is above the control random in pointing at the evidence; the first is saliency: relevance"
            ],
            "control": ["random has 90.0 %, better than every method"],
        },
    ),
    "a control is as good in another metric": (
        lambda: findings(run({RANK: SEEN, "auroc": SEEN | {"edges": 0.9}}, None)),
        {"control": ["in AUROC, edges has 0.900, better than every method"]},
    ),
    "nothing is significant": (
        lambda: findings(run(SEEN | {"gradient": HIDDEN})),
        {
            "best": [
                "No method stands out in pointing at the evidence; the first is gradient: relevance rank accuracy"
            ],
            "ties": ["saliency cannot be told from it (Wilcoxon, Holm-corrected, level 0.05)."],
        },
    ),
    "some cannot be told from the best": (
        lambda: findings(run(SEEN | {"same": HIDDEN})),
        {"ties": ["same cannot be told from it; gradient is worse, by at least 20.0 ["]},
    ),
    "a check failed": (
        lambda: findings(run(SEEN), verdicts=(verdict("saliency", "PASS"), verdict("gradient", "FAIL"))),
        {"sanity": ["1 of 2 sanity checks are passed; failed: gradient (parameters)."]},
    ),
    "the checks are passed; what a control fails is none": (
        lambda: findings(run(SEEN), verdicts=(verdict("saliency", "PASS"), verdict("edges", "FAIL"))),
        {"sanity": ["1 of 1 sanity checks are passed."]},
    ),
    "scores are undefined": (
        lambda: findings(run(SEEN | {"gradient": [math.nan, *[0.4] * 11]})),
        {"best": ["(11 samples of 12, the others undefined for a method, 95 % interval)"]},
    ),
    "no score is defined": (
        lambda: findings(run({"saliency": [math.nan] * 12, "random": [math.nan] * 12})),
        {"best": ["No method has a defined score in a metric with a direction."]},
    ),
    "one sample": (
        lambda: findings(run(SEEN, num_samples=1)),
        {
            "best": [
                "saliency comes first in pointing at the evidence: relevance rank accuracy 55.0 % (1 sample); ",
                "One sample allows neither an interval nor a test.",
            ],
            "ties": None,
            "control": ["Whether a control is as good is open, the samples being too few for a test: in relevance"],
        },
    ),
    "six samples, of which no test of four methods can tell anything": (
        lambda: findings(run(SEEN, num_samples=6)),
        {
            "best": ["saliency comes first in pointing at the evidence: "],
            "ties": ["6 samples are too few for a test (Wilcoxon, Holm-corrected, level 0.05): whether the others are"],
            "control": [
                "open, the samples being too few for a test: in relevance rank accuracy, edges has 27.",
                " (6 s",
            ],
        },
    ),
    "a control is lower, which no test shows": (
        lambda: findings(run(SEEN | {"random": OFTEN_HIGHER})),
        {
            "best": ["No method is shown to be above the control random in pointing at the evidence; the first is"],
            "control": [
                "The best method is not shown to be above a control: in relevance rank accuracy, random has 56"
            ],
        },
    ),
    "one method and no control": (
        lambda: findings(run({"gradient": 0.6})),
        {"best": ["gradient is the only method: relevance rank accuracy 60.0 %"], "ties": None},
    ),
    "no masks, but faithfulness": (
        lambda: findings(run(SEEN, "faithfulness_correlation")),
        {
            "best": ["saliency is the best: faithfulness correlation 0.600 ["],
            "limits": ["whether the maps point at the evidence (no masks)"],
        },
    ),
    "nothing that has a floor": (
        lambda: findings(run(SEEN, "sparseness")),
        {"control": ["No metric of this run has a floor: whether a control is as good cannot be said."]},
    ),
    "no controls": (
        lambda: findings(run({"saliency": 0.6, "gradient": 0.4})),
        {"control": ["There are no controls: whether an edge detector or random maps would do as well is not known."]},
    ),
    "one method alone": (
        lambda: findings(run({"saliency": 0.6, "random": 0.1})),
        {"best": ["saliency points best at the evidence: relevance rank accuracy 60.0 %"], "ties": None},
    ),
    "the network's accuracy is recorded": (
        lambda: findings(
            run(SEEN),
            samples=SAMPLES,
        ),
        {"sanity": ["The network is right on 9 of 12 samples (75.0 % [46.8, 91.1])."]},
    ),
    "the predictions are explained": (
        lambda: findings(run(SEEN), samples=SAMPLES | {"explained": "prediction"}),
        {"sanity": ["The accuracy of the network is not known here: it is not the labels that are explained."]},
    ),
    "several runs": (
        lambda: findings(run(SEEN, name="a"), run(SEEN | {"saliency": 0.7}, name="b")),
        {
            "best": [
                "b:saliency points best at the evidence: relevance rank accuracy 70.0 %",
                "; an edge detector that never sees the network 30.0 %, random maps 10.0 %.",
            ],
            "ties": None,
            "runs": [
                "Against a, b is better in 1, worse in 0 of 2 methods (relevance rank accuracy, paired by 12 samples)",
                "the largest difference is that of saliency, +10.0",
            ],
            "limits": ["Not told by these runs: ", "what further trainings, or other data, would give."],
        },
    ),
}


@pytest.mark.parametrize("situation", TABLE)
def test_what_the_answer_says(situation):
    make, expected = TABLE[situation]
    said = {sentence.kind: text(sentence.parts) for sentence in sentences(make())}
    assert len(said) <= 5
    for kind, pieces in expected.items():
        if pieces is None:
            assert kind not in said
        for piece in pieces or ():
            assert piece in said[kind]


@pytest.mark.parametrize(
    ("name", "made_by", "title", "group"),
    [
        ("fc", "lightning_xai.metrics.FaithfulnessCorrelation", "faithfulness correlation (fc)", "faithfulness"),
        ("auroc", "lightning_xai.metrics.Sparseness", "sparseness (auroc)", "form"),
        ("auroc", "lightning_xai.metrics.LocalizationAUROC", "AUROC", "evidence"),
        ("auroc", "mine.AUROC", "auroc", "other"),
        ("auroc", "", "AUROC", "evidence"),  # of files that have no classes
    ],
)
def test_a_metric_is_what_its_class_is(name, made_by, title, group):
    own = replace(run(SEEN, name), metric_classes={name: made_by} if made_by else {}, higher_is_better={name: True})
    (metric,) = compare_methods([own]).metrics
    assert (about(metric).title, about(metric).group) == (title, group)
    said = text(sentences(findings(own))[-1].parts)
    assert ("(no metric that is known to be one of faithfulness)" in said) == (group == "other")


def test_masks_that_are_all_empty_are_no_missing_masks():
    undefined = {"saliency": [math.nan] * 12, "random": [math.nan] * 12}
    said = text(sentences(findings(run({"sparseness": SEEN, RANK: undefined}, None)))[-1].parts)
    assert "point at the evidence (no sample has a defined score, as where all masks are empty)" in said


def test_runs_lead_with_a_metric_that_several_have():
    """And where none has one, no sentence is empty."""
    both = findings(run({RANK: SEEN, "sparseness": SEEN}, None, "a"), run(SEEN, "sparseness", "b"))
    said = {sentence.kind: text(sentence.parts) for sentence in sentences(both)}
    assert leading(both.comparison).metric == "sparseness"
    assert said["runs"].startswith("Against a, b is better in 0, worse in 0 of 2 methods (sparseness, paired by 12 ")
    none = findings(run({"saliency": 0.6, "edges": 0.2}, name="a"), run({"gradient": 0.5, "edges": 0.2}, name="b"))
    said = [text(sentence.parts) for sentence in sentences(none)]
    assert len(said) == 4
    assert all(said)


def test_a_difference_has_the_digits_of_its_own_interval():
    """Samples that differ much, and methods that differ little, and surely."""
    wide = 0.5 + 5 * SHIFTS
    said = findings(run({"saliency": wide, "gradient": wide - 0.01 + SHIFTS / 20}, "auroc"))
    (ties,) = (text(sentence.parts) for sentence in sentences(said) if sentence.kind == "ties")
    assert "worse, by at least 0.0100 [0.0091, 0.0109]" in ties


def test_runs_that_share_few_samples():
    """A control is one of the best method's own run, and the samples are told."""
    other = run({"saliency": 0.7, "edges": 0.1}, name="b")
    first = run(SEEN | {"edges": 0.9}, name="a")
    first = replace(first, scores=Scores(first.scores.table.assign(sample=first.scores.table["sample"] + 9)))
    said = {sentence.kind: text(sentence.parts) for sentence in sentences(findings(first, other))}
    assert "in relevance rank accuracy, b:edges has 14.1" in said["control"]
    assert said["control"].endswith("(3 samples).")
    assert "paired by 3 samples, too few for a test); the largest difference is that of saliency" in said["runs"]
    assert said["runs"].endswith("Only 3 samples are shared by the runs, of 12 and 12: nothing here is of the others.")


def test_what_is_not_above_a_control_comes_first_and_controls_have_no_floor():
    """The floor is the best control; a paired test says whether a method is above it."""
    weak, sure = 0.3 + SHIFTS[::-1] * 0.5, 0.301 + SHIFTS
    comparison = findings(run(SEEN | {"weak": weak, "bad": 0.02, "sure": sure})).comparison
    (metric,) = comparison.metrics
    levels = {r.method: floor(comparison, metric, r) for r in metric.methods}
    assert {name for name, level in levels.items() if level is None} == {"edges", "random"}
    assert {(level.name, round(level.mean, 12)) for level in levels.values() if level} == {("edges", 0.3)}
    below = [r.method for r in metric.methods if is_below_floor(comparison, metric, r)]
    assert below == ["weak", "bad"]
    order = [r.method for r in shown_first(comparison, metric)]
    assert order == ["weak", "bad", "saliency", "gradient", "sure", "edges", "random"]


@pytest.mark.parametrize(
    ("controls", "expected"), [({}, "chance"), ({"random": -0.1}, "chance"), ({"random": 0.2}, "random")]
)
def test_a_known_level_is_a_floor_too(controls, expected):
    comparison = findings(run({"saliency": 0.6} | controls, "faithfulness_correlation")).comparison
    (metric,) = comparison.metrics
    assert floor(comparison, metric, metric.methods[0]).name == expected
    assert not is_below_floor(comparison, metric, metric.methods[0])


def test_the_answer_is_about_evidence_first():
    both = dict.fromkeys(("sparseness", "faithfulness_correlation", "auroc", RANK), SEEN)
    for name in (RANK, "auroc", "faithfulness_correlation", "sparseness"):
        assert leading(findings(run(both, None)).comparison).metric == name
        del both[name]


@pytest.mark.parametrize(
    ("value", "error", "percent", "expected"),
    [
        (0.46488, 0.0081, True, "46.5"),
        (0.46488, 0.0081, False, "0.465"),
        (123.4, 30.0, False, "123"),
        (-0.5, 0.01, False, "−0.50"),
        (-0.0001, 0.01, False, "−1.00e−04"),
        (0.0, 0.0, False, "0.000"),
        (math.nan, 0.1, True, "undefined"),
    ],
)
def test_numbers_have_the_digits_that_their_error_allows(value, error, percent, expected):
    assert written(value, decimals(error), percent) == expected


def test_the_interval_of_a_share_is_wilsons():
    """(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)"""
    z, n, p = 1.959963984540054, 12, 0.75
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = np.array([middle - half, middle + half]) / (1 + z * z / n)
    np.testing.assert_allclose(share_interval(9, 12), expected)
    assert np.isnan(share_interval(0, 0)).all()
