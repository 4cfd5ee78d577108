"""Tables, findings and figures of AdaptGrad's table 2, made from its records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_xai.experiments.papers.adaptgrad_table2_published import (
    FAMILIES,
    METRICS,
    NETWORKS,
    PRESET,
    members,
    published,
    published_difference,
)
from lightning_xai.reporting.bars import Bars, bars_figure
from lightning_xai.reporting.reproduction import Reproduction
from lightning_xai.results.scores import GRADIENTS
from lightning_xai.results.tables import ResultTable
from lightning_xai.statistics.means import mean_and_error, mean_and_standard_error

PUBLISHED_STD = 0.2
"""Weight noise of NG."""
LEVEL = 0.05
"""Of the tests."""

Row = dict[str, Any]
Records = Mapping[str, Sequence[Mapping[str, Any]]]

# Tables


def tables(records: Records) -> Iterator[ResultTable]:
    """For each network the scores beside the published ones, and AdaptGrad against SmoothGrad; the rest below."""
    for network in _networks(records["scores"]):
        yield _score_table(network, [row for row in records["scores"] if row["network"] == network])
        for metric in METRICS:
            yield _pair_table(network, metric, _chosen(records["pairs"], network, metric))
    yield _noise_table(records["weight_noise"])
    yield _picture_table(records["photographs"])


def _networks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["network"] for row in rows))


def _chosen(pairs: Sequence[Mapping[str, Any]], network: str, metric: str) -> list[Mapping[str, Any]]:
    return [pair for pair in pairs if (pair["network"], pair["metric"]) == (network, metric)]


def _score_table(network: str, scores: Sequence[Mapping[str, Any]]) -> ResultTable:
    values: dict[tuple[str, str], list[float]] = {}
    for row in scores:
        values.setdefault((row["method"], row["metric"]), []).append(row["value"])
    rows = []
    for method in dict.fromkeys(row["method"] for row in scores):
        cells = [method, f"{np.mean(values[method, GRADIENTS]):g}"]
        for metric in METRICS:
            cells += [mean_and_error(values[method, metric]), _numbers(published(network, metric, method))]
        rows.append(tuple(cells))
    columns = ["method", GRADIENTS]
    for title in METRICS.values():
        columns += [f"{title} ↑", "published"]
    pictures = len(values["Grad", GRADIENTS])
    defined = [f"{title} {_num_defined(values, metric)} of {pictures}" for metric, title in METRICS.items()]
    notes = [f"Mean ± standard error over the pictures with a score: {', '.join(defined)}.", *NOTES]
    if all(values.get(("IG(1)", metric)) == values["IG(W)", metric] for metric in METRICS):
        notes.append("IG(1) is IG(W) for this network: 1 is white after its normalisation.")
    if network not in NETWORKS:
        notes.append(f"No number of this network is published; those shown are of {' / '.join(NETWORKS.values())}.")
    return ResultTable(network, tuple(columns), tuple(rows), tuple(notes))


NOTES = (
    "Published: means over images of ImageNet, Information Level as the area under the median curve, here the mean of "
    "the areas, by a faster fill and coder, so that not their levels compare but their order alone. Gradients: what a "
    "method spends on a picture.",
    "IG(W) and IG(B) start from white and black pixels, IG(0) and IG(1) from the baselines of the authors' code, whose "
    "white is 0 (the mean colour) and whose black is 1 after the normalisation; the published numbers are of these.",
)


def _num_defined(values: Mapping[tuple[str, str], Sequence[float]], metric: str) -> int:
    return min(int(np.isfinite(found).sum()) for (_, name), found in values.items() if name == metric)


def _pair_table(network: str, metric: str, pairs: Sequence[Mapping[str, Any]]) -> ResultTable:
    columns = ("pair", "difference", "A- is higher in", "effect", "p", "p, Holm", "verdict", "published")
    rows = tuple(
        (
            " less ".join(reversed(members(pair["family"])[1:])),
            _difference(pair),
            f"{pair['higher']} of {pair['pictures']}",
            f"{pair['correlation']:+.2f}",
            f"{pair['p']:.2g}",
            f"{pair['p_holm']:.2g}",
            verdict(pair),
            _numbers(published_difference(network, metric, pair["family"]), "+.4f"),
        )
        for pair in pairs
    )
    notes = (
        "Mean ± standard error over pictures. Effect: rank-biserial correlation, +1 where A- is higher in each. p: "
        f"two-sided Wilcoxon signed-rank test; Holm's correction over the table's {len(FAMILIES)} families, and over "
        f"the {len(PRESET)} with the baselines of the authors' code. Verdict at {LEVEL:.0%}.",
    )
    return ResultTable(f"{network}, {METRICS[metric]}: is AdaptGrad better than SmoothGrad?", columns, rows, notes)


def verdict(pair: Mapping[str, Any]) -> str:
    """Which of the two is higher, by the corrected test."""
    if pair["p_holm"] > LEVEL:
        return "undecided"
    return "A- higher" if pair["correlation"] > 0 else "S- higher"


def _difference(pair: Mapping[str, Any]) -> str:
    if not pair["pictures"]:
        return "undefined"
    error = "" if np.isnan(pair["standard_error"]) else f" ± {pair['standard_error']:.4f}"
    return f"{pair['difference']:+.4f}{error}"


def _numbers(values: Sequence[float], style: str = ".4f") -> str:
    return " / ".join(f"{value:{style}}" for value in values) or "none"


def _noise_table(noise: Sequence[Mapping[str, Any]]) -> ResultTable:
    rows = tuple((network, f"{std:g}", mean_and_error(values, 3)) for (network, std), values in _kept(noise).items())
    notes = (
        f"Mean ± standard error over noisy networks. {PUBLISHED_STD:g} is the weight noise that NoiseGrad's code has.",
    )
    return ResultTable("Predicted classes that NG's networks keep", ("network", "weight noise", "kept"), rows, notes)


def _kept(noise: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float], list[float]]:
    found: dict[tuple[str, float], list[float]] = {}
    for row in noise:
        found.setdefault((row["network"], row["std"]), []).append(row["kept"])
    return found


def _picture_table(pictures: Sequence[Mapping[str, Any]]) -> ResultTable:
    shown = pictures[:50]
    rows = tuple((row["name"], row["network"], row["class"], f"{row['probability']:.3f}") for row in shown)
    notes = () if len(shown) == len(pictures) else (f"The first {len(shown)} of {len(pictures)}.",)
    return ResultTable("Pictures", ("picture", "network", "predicted class", "probability"), rows, notes)


# Findings


def findings(records: Records) -> Iterator[str]:
    """Sentences on AdaptGrad against SmoothGrad, and on the weight noise."""
    for network in _networks(records["pairs"]):
        for metric, title in METRICS.items():
            sentences = _summary(network, metric, _chosen(records["pairs"], network, metric))
            yield f"{network}, {title}: {' '.join(sentences)}"
    for (network, std), kept in _kept(records["weight_noise"]).items():
        yield f"{network}: weight noise of {std:g} keeps {np.mean(kept):.0%} of the predicted classes."


def _summary(network: str, metric: str, pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """AG against SG, then what is decided on each family, and whether so few pictures could have decided anything."""
    first, number = pairs[0], min(pair["pictures"] for pair in pairs)
    if not number:
        yield "no picture has a score of all methods; a lower `min_score` may help."
        return
    yield (
        f"AG less SG is {_difference(first)}, higher in {first['higher']} of {first['pictures']} pictures "
        f"(p = {first['p']:.2g}, {first['p_holm']:.2g} after Holm's correction)."
    )
    outcomes: dict[str, list[str]] = {}
    for pair in pairs:
        outcomes.setdefault(verdict(pair), []).append(pair["family"])
    yield "Verdicts: " + "; ".join(f"{outcome} in {', '.join(names)}" for outcome, names in outcomes.items()) + "."
    same = [
        (pair["difference"] > 0) == (difference > 0)
        for pair in pairs
        if pair["family"] in FAMILIES
        for difference in published_difference(network, metric, pair["family"])
    ]
    yield f"{sum(same)} of {len(same)} published differences have the sign of the measured one."
    least = min(1.0, 2 * 0.5**number * len(FAMILIES))
    if least > LEVEL:
        yield f"{number} pictures are too few: the least p-value that they can give is {least:.2g} when corrected."


# Figures


def figures(result: Reproduction) -> Mapping[str, Figure]:
    """For each network the scores, beside the published ones if it is the paper's; and AdaptGrad less SmoothGrad."""
    drawn = {}
    for network in _networks(result.records["scores"]):
        mine = [row for row in result.records["scores"] if row["network"] == network]
        panels = [_score_panel(network, metric, mine) for metric in METRICS]
        notes = ["Bars: mean and standard error over pictures. Plain methods, with SmoothGrad (S-) and AdaptGrad (A-)."]
        drawn[f"adaptgrad-table2-{network}"] = bars_figure(f"AdaptGrad's table 2: {network}", panels, notes)
    panels = [_pair_panel(metric, result.records["pairs"]) for metric in METRICS]
    notes = ["Bars: mean difference and its standard error over pictures. Above zero AdaptGrad is higher."]
    return drawn | {"adaptgrad-table2-pairs": bars_figure("AdaptGrad less SmoothGrad", panels, notes)}


def _score_panel(network: str, metric: str, scores: Sequence[Mapping[str, Any]]) -> Bars:
    values: dict[str, list[float]] = {row["method"]: [] for row in scores}
    for row in scores:
        if row["metric"] == metric:
            values[row["method"]].append(row["value"])
    families = tuple(family for family in (*FAMILIES, *PRESET) if family in values or family == "Grad")
    series: dict[str, list[tuple[float, float]]] = {}
    for place, title in enumerate(("plain", "S-", "A-")):
        methods = [members(family)[place] for family in families]
        series[title] = [mean_and_standard_error(values[method]) for method in methods]
        if network in NETWORKS:
            series[f"{title}, published"] = _bars_of([published(network, metric, method) for method in methods])
    return Bars(METRICS[metric], families, series)


def _pair_panel(metric: str, pairs: Sequence[Mapping[str, Any]]) -> Bars:
    mine = [pair for pair in pairs if pair["metric"] == metric]
    families = tuple(dict.fromkeys(pair["family"] for pair in mine))
    networks = _networks(mine)
    series = {
        network: [(pair["difference"], pair["standard_error"]) for pair in mine if pair["network"] == network]
        for network in networks
    }
    for network in [name for name in networks if name in NETWORKS] or NETWORKS:
        numbers = [published_difference(network, metric, family) for family in families]
        series[f"published, {NETWORKS[network]}"] = _bars_of(numbers)
    return Bars(METRICS[metric], families, series, {"equal": 0.0})


def _bars_of(numbers: Sequence[list[float]]) -> list[tuple[float, float]]:
    """Without errors, and none where nothing is printed."""
    return [(found[0] if found else np.nan, np.nan) for found in numbers]
