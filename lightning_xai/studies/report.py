"""Tables, findings and figures of a study."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure

from lightning_xai.experiments.compare import CONTROLS, compare_methods
from lightning_xai.experiments.runs import Run
from lightning_xai.functional.maps import pixel_map
from lightning_xai.reporting.charts import Bars, Grid, Sweep, bars_figure, grids_figure, sweeps_figure
from lightning_xai.reporting.comparison_figures import score_bars
from lightning_xai.reporting.noise_level import level_lines
from lightning_xai.reporting.panels import attribution_panel
from lightning_xai.reporting.saving import file_name
from lightning_xai.results.comparison import Comparison, MetricComparison
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.scores import GRADIENTS
from lightning_xai.results.tables import ResultTable, number_format, with_arrow
from lightning_xai.statistics.means import mean, mean_and_error
from lightning_xai.studies.engine import LEVEL, Claim, NetworkResult
from lightning_xai.studies.entries import resolved
from lightning_xai.studies.lab import described
from lightning_xai.studies.study import Claims, CurveOptions, Study

Results = Mapping[str, NetworkResult]
Published = Mapping[str, Mapping[str, float | dict[str, float]]]
BOLD = (
    "Mean ± standard error over samples, published means in brackets. Bold (* in a terminal): the best, and what is "
    "not significantly worse (Wilcoxon signed-rank test, Holm, 5 %)."
)
CLAIMS = (
    "Mean gain of the first over the second, positive where it is better, and whether the claim holds: Wilcoxon "
    f"signed-rank test at {LEVEL:.0%}, Holm's correction over "
)
MEANINGLESS = "A fast version, on little of everything: its numbers mean nothing."


def study_report(study: Study, results: Results, seed: int, precision: str, fast: bool = False) -> Reproduction:
    """All that is written of a study."""
    settings = {
        "seed": seed,
        "precision": precision,
        "study": {name: value for name, value in asdict(study).items() if name != "whole"},
        "networks": described({name: result.subject.network for name, result in results.items()}),
    }
    return Reproduction(
        f"{MEANINGLESS} {study.source}" if fast else study.source,
        tuple(_tables(study, results, seed)),
        {name: rows for name, rows in _records(study, results).items() if rows},
        arrays={f"{name} {key}": value for name, result in results.items() for key, value in _arrays(result)},
        settings=json.loads(json.dumps(settings, default=str)),  # a path of somebody else's module becomes text
        findings=tuple(_findings(study, results)),
        runs={name: (result.rows, study.directions()) for name, result in results.items()},
    )


def study_figures(study: Study, results: Results, name: str) -> dict[str, Figure]:
    """Bars of the scores and of the claims; curves, grids and maps where the study asks for them."""
    figures = {f"{name}{_of(network, results)}": score_bars(result.comparison) for network, result in results.items()}
    panels = [_claims_panel(study, results, group) for group in study.claims if len(group["metrics"]) == 1]
    if panels := [panel for panel in panels if panel.names]:
        notes = ["Bars: mean gain of the first over the second, with its standard error. Above zero it is better."]
        figures[f"{name}-claims"] = bars_figure(study.source, panels, notes)
    for network, result in results.items():
        of = _of(network, results)
        if study.curves is not None:
            figures[f"{name}-curves{of}"] = _curves(study, study.curves, result)
        if study.grid is not None:
            figures[f"{name}-grid{of}"] = _grids(study, study.grid[0], study.grid[1], result)
        for panel, options in study.panels.items() if study.maps else ():
            rows = study.columns(options, result.subject.std)
            figures[f"{name}-{panel}{of}"] = _panel(options["title"], rows, result)
        if study.maps and not study.panels:
            figures[f"{name}-maps{of}"] = _maps(result, network)
    return figures


# Records


def _records(study: Study, results: Results) -> dict[str, list[dict[str, Any]]]:
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in ("methods", "samples", "claims", "levels", "kept")}
    for network, result in results.items():
        subject, bound = result.subject, study.coordinates(result.subject.std)
        records["methods"] += [
            {"network": network, "method": method, **numbers}
            for method, own in bound.items()
            if (numbers := {key: value for key, value in own.items() if not isinstance(value, Mapping)})
        ]
        index = subject.first.index.tolist()
        target = [""] * len(index) if subject.target is None else subject.target.tolist()
        records["samples"] += [
            {"network": network, "sample": i, "target": t, "name": name, "class": label, "probability": probability}
            for i, t, (name, label, probability) in zip(
                index, target, subject.pictures or [("", "", "")] * len(index), strict=True
            )
        ]
        records["claims"] += [asdict(claim) | {"verdict": claim.verdict} for claim in result.claims]
        if level := subject.level:
            records["levels"].append({"network": network, "std": level.std, "low": level.low, "high": level.high})
        records["kept"] += [
            {"network": network, "std": std, "draw": draw, "kept": share}
            for std, shares in result.kept.items()
            for draw, share in enumerate(shares)
        ]
    return records


def _arrays(result: NetworkResult) -> Iterator[tuple[str, np.ndarray]]:
    """Inputs, classes and masks of the samples shown, and the channel sums of their maps."""
    for key, value in result.maps.items():
        yield key, (pixel_map(value, absolute=False) if key.startswith("method ") else value).numpy()


# Tables


def _tables(study: Study, results: Results, seed: int) -> Iterator[ResultTable]:
    across = study.tables == "metric" and len(results) > 1
    if across:
        for metric in dict.fromkeys(part.metric for r in results.values() for part in r.comparison.metrics):
            parts = [(n, _of_metric(r.comparison, metric)) for n, r in results.items()]
            yield scores_table(study.published, _words(metric), parts)
    elif len(study.metrics) == 1 and len(results) > 1:  # the networks are the columns
        yield scores_table(study.published, _words(*study.metrics), [(n, r.comparison) for n, r in results.items()])
    else:
        for network, result in results.items():
            yield scores_table(study.published, network, [(network, result.comparison)])
    for cost in resolved(study.equal_costs, study.at()):
        for network, result in results.items():
            if not any(round(spent) == cost for spent in result.comparison.gradients.values()):
                continue  # the table above says what is spent
            run = Run(network, result.rows, study.directions())
            equal = compare_methods([run], seed=seed, gradients=cost, procedure=study.procedure)
            of = f", {network}" if len(results) > 1 else ""
            yield scores_table(study.published, f"At {cost} gradients a sample{of}", [(network, equal)])
    for group in study.claims if across else ():
        for metric in group["metrics"]:
            found = [claim for r in results.values() for claim in r.claims]
            claims = [claim for claim in found if (claim.group, claim.metric) == (group["title"], metric)]
            if claims:
                yield claim_matrix(f"{group['title']} {_words(metric)}", claims, "network")
    for network, result in results.items():
        for group in () if across else study.claims:
            claims = [claim for claim in result.claims if claim.group == group["title"]]
            if claims:
                title = group["title"] + (f", {network}" if len(results) > 1 else "")
                yield _claim_table(study, title, claims) if len(group["metrics"]) == 1 else claim_matrix(title, claims)
    yield _network_table(results)
    if any(result.kept for result in results.values()):
        yield _kept_table(results)
    if any(result.subject.pictures for result in results.values()):
        yield _picture_table(results)


def _words(name: str) -> str:
    return name.replace("_", " ")


def scores_table(published: Published, title: str, comparisons: Sequence[tuple[str, Comparison]]) -> ResultTable:
    """Means of the methods, with published ones beside; a column for each metric of each network."""
    methods = dict.fromkeys(method for _, comparison in comparisons for method in comparison.methods)
    costs = {method: cost for _, comparison in comparisons for method, cost in comparison.gradients.items()}
    measured = [(network, metric) for network, comparison in comparisons for metric in comparison.metrics]
    marked = [comparison.marked(metric) for _, comparison in comparisons for metric in comparison.metrics]
    cells = [[_cell(published, network, metric, method) for network, metric in measured] for method in methods]
    rows = zip(methods, cells, strict=True)
    notes = [
        f"{_words(metric.metric)} is defined for {metric.num_samples} of {metric.num_common} samples."
        for _, metric in measured
        if metric.num_samples < metric.num_common
    ]
    several, many = len(comparisons) > 1, len(measured) > len(comparisons)
    names = [
        " ".join([network] * several + [_words(metric.metric)] * (many or not several)) for network, metric in measured
    ]
    directions = (metric.higher_is_better for _, metric in measured)
    return ResultTable(
        title,
        ("method", GRADIENTS, *map(with_arrow, names, directions)),
        tuple((method, f"{costs.get(method, math.nan):g}", *row) for method, row in rows),
        (BOLD, *notes, *filter(None, (_of_others(published, network) for network, _ in comparisons))),
        frozenset((r, c + 2) for r, method in enumerate(methods) for c, best in enumerate(marked) if method in best),
        frozenset(range(2, 2 + len(measured))) if several else frozenset(),
    )


def _of_others(published: Published, network: str) -> str:
    """A note where what is published is of other networks."""
    tables = [known for methods in published.values() for known in methods.values() if isinstance(known, Mapping)]
    if not tables or any(network in known for known in tables):
        return ""
    names = dict.fromkeys(name for known in tables for name in known)
    return f"No number of {network} is published; those in brackets are of {' / '.join(names)}."


def _cell(published: Published, network: str, metric: MetricComparison, method: str) -> str:
    result = next((result for result in metric.methods if result.method == method), None)
    if result is None:
        return "none"
    error, style = result.standard_deviation / max(1, len(result.values)) ** 0.5, number_format(result.mean)
    text = "undefined" if math.isnan(result.mean) else f"{result.mean:{style}}"
    text += "" if math.isnan(error) else f" ± {error:{style}}"
    known = _printed(published, metric.metric, method)
    beside = [known[network]] if network in known else list(known.values())  # of all, for another than the paper's
    text += f" ({' / '.join(f'{value:.4f}' for value in beside)})" if beside else ""
    return text


def _printed(published: Published, metric: str, method: str) -> Mapping[str, float]:
    """What is published, by network; under "" where it is of all."""
    known = published.get(metric, {}).get(method, {})
    return known if isinstance(known, Mapping) else {"": known}


def _published_gain(study: Study, claim: Claim) -> list[float]:
    better, worse = (_printed(study.published, claim.metric, method) for method in (claim.better, claim.worse))
    sign, common = 1 if study.directions()[claim.metric] else -1, [name for name in better if name in worse]
    names = [claim.network] if claim.network in common else common
    return [sign * round(better[name] - worse[name], 4) for name in names]


def _of_metric(comparison: Comparison, metric: str) -> Comparison:
    return replace(comparison, metrics=tuple(part for part in comparison.metrics if part.metric == metric))


def claim_matrix(title: str, claims: Sequence[Claim], across: Literal["metric", "network"] = "metric") -> ResultTable:
    """Claims down, metrics or networks across."""
    columns = dict.fromkeys(getattr(claim, across) for claim in claims)
    family = "this table." if across == "metric" else "the claims of each network in all metrics."
    rows: dict[str, list[str]] = {}
    for claim in claims:
        gain = "" if not claim.num_samples else f"{claim.gain:+{number_format(claim.gain)}} "
        rows.setdefault(f"{claim.better} > {claim.worse}", []).append(f"{gain}{claim.verdict}")
    lines = ((name, *cells) for name, cells in rows.items())
    return ResultTable(title, ("claim", *map(_words, columns)), tuple(lines), (CLAIMS + family,))


def _claim_table(study: Study, title: str, claims: Sequence[Claim]) -> ResultTable:
    """Of one metric, in full."""
    rows = (
        (
            f"{claim.better} > {claim.worse}",
            _gain(claim),
            f"{claim.better_in} of {claim.num_samples}",
            f"{claim.effect:+.2f}",
            f"{claim.p:.2g}",
            f"{claim.p_holm:.2g}",
            claim.verdict,
            " / ".join(f"{gain:+.4f}" for gain in _published_gain(study, claim)) or "none",
        )
        for claim in claims
    )
    return ResultTable(
        title,
        ("claim", "gain", "better in", "effect", "p", "p, Holm", "holds", "published gain"),
        tuple(rows),
        (f"{CLAIMS}this table.", "Effect: rank-biserial correlation, +1 where the first is better in each sample."),
    )


def _gain(claim: Claim) -> str:
    if not claim.num_samples:
        return "undefined"
    return f"{claim.gain:+.4f}" + ("" if math.isnan(claim.standard_error) else f" ± {claim.standard_error:.4f}")


def _network_table(results: Results) -> ResultTable:
    rows = []
    for name, result in results.items():
        reached, level = result.subject.network.accuracy, result.subject.level
        accuracy = "" if reached is None else f"{reached:.4f}"
        noise = ("", "") if level is None else (f"{level.std:.3f}", f"{level.low:.3f} to {level.high:.3f}")
        used = () if result.subject.proven is None else (f"{result.subject.proven[0]} of {result.subject.proven[1]}",)
        rows.append((name, accuracy, *noise, *used))
    notes = ["Weight noise that costs 5 % of the accuracy above chance."] if any(row[2] for row in rows) else []
    columns = ["network", "test accuracy", "weight noise", "95 % interval"]
    if any(result.subject.proven for result in results.values()):
        columns.append("evidence used in")
        notes.append("Evidence used: test samples whose answer is right, and changes when the evidence is swapped.")
    return ResultTable("Networks", tuple(columns), tuple(rows), tuple(notes))


def _kept_table(results: Results) -> ResultTable:
    rows = (
        (network, f"{std:g}", mean_and_error(shares, 3))
        for network, result in results.items()
        for std, shares in result.kept.items()
    )
    return ResultTable(
        "Predicted classes that noisy networks keep",
        ("network", "weight noise", "kept"),
        tuple(rows),
        ("Mean ± standard error over noisy networks.",),
    )


def _picture_table(results: Results) -> ResultTable:
    rows = [(name, n, label, f"{p:.3f}") for n, r in results.items() for name, label, p in r.subject.pictures]
    notes = () if len(rows) <= 50 else (f"The first 50 of {len(rows)}.",)
    return ResultTable("Pictures", ("picture", "network", "predicted class", "probability"), tuple(rows[:50]), notes)


# Findings


def _findings(study: Study, results: Results) -> Iterator[str]:
    for network, result in results.items():
        subject = result.subject
        if subject.network.accuracy is not None:
            yield f"{network}: accuracy {subject.network.accuracy:.4f}; {len(subject.first.images)} test samples."
        if subject.level is not None:
            yield from (f"{network}: {line}" for line in level_lines(subject.level)[:2])
        for std, shares in result.kept.items():
            yield f"{network}: weight noise of {std:g} keeps {np.mean(shares):.0%} of the predicted classes."
        yield from (f"{network}, {line}" for m in result.comparison.metrics for line in _best(result.comparison, m))
        for group in study.claims:
            claims = [claim for claim in result.claims if claim.group == group["title"]]
            yield from (f"{network}, {line}" for line in _outcomes(study, group["title"], claims))
        if result.without:
            listed = "; ".join(dict.fromkeys(result.without))
            yield f"{network}: left out of the claims, for a method or a metric is missing: {listed}."


def _best(comparison: Comparison, metric: MetricComparison) -> Iterator[str]:
    """Which method is, and which are as good; nothing where there is none."""
    for best in [result for result in metric.methods if result.rank == 1][:1]:
        equal = [result.method for result in metric.methods if result.is_best and result is not best]
        others = ", ".join(equal) if len(equal) <= 3 else f"{len(equal)} others"
        beside = f"; not significantly worse: {others}" if equal else ""
        beside = beside if comparison.is_tested(metric) else f"; {metric.num_samples} samples are too few for a test"
        yield f"{_words(metric.metric)}: best is {best.method} ({best.mean:{number_format(best.mean)}}){beside}."


def _outcomes(study: Study, title: str, claims: Sequence[Claim]) -> Iterator[str]:
    """What is decided, how often the published gain has the same sign, and whether so few samples could tell."""
    outcomes: dict[str, list[str]] = {}
    many = len({claim.metric for claim in claims}) > 1
    for claim in claims:
        name = f"{claim.better} > {claim.worse}" + (f" in {_words(claim.metric)}" if many else "")
        outcomes.setdefault(claim.verdict, []).append(name)
    if len(claims) > 10:  # the table has them
        yield f"{title}: " + ", ".join(f"{verdict}: {len(names)}" for verdict, names in outcomes.items()) + "."
    else:
        yield from (f"{title}: {verdict}: {'; '.join(names)}." for verdict, names in outcomes.items())
    same = [(claim.gain > 0) == (gain > 0) for claim in claims for gain in _published_gain(study, claim)]
    if same:
        yield f"{title}: {sum(same)} of {len(same)} published gains have the sign of the measured one."
    number = min((claim.num_samples for claim in claims), default=0)
    least = min(1.0, 2 * 0.5**number * len(claims))
    if number and least > LEVEL:
        yield f"{title}: {number} samples are too few; the least p-value that they can give is {least:.2g}."


# Figures


def _of(network: str, results: Results) -> str:
    """The end of a file's name, where there are several networks."""
    return f"-{file_name(network)}" if len(results) > 1 else ""


def _claims_panel(study: Study, results: Results, group: Claims) -> Bars:
    """Gains of a group of one metric, of all networks, beside the published ones."""
    found = {
        network: {f"{c.better} > {c.worse}": c for c in result.claims if c.group == group["title"]}
        for network, result in results.items()
    }
    names = tuple(dict.fromkeys(name for claims in found.values() for name in claims))
    series: dict[str, list[tuple[float, float]]] = {}
    for network, claims in found.items():
        known = [claims.get(name) for name in names]
        series[network] = [(c.gain, c.standard_error) if c else (math.nan, math.nan) for c in known]
        gains = [_published_gain(study, c) if c else [] for c in known]
        if any(gains):
            series[f"{network}, published"] = [(mean(gain), math.nan) for gain in gains]
    return Bars(group["title"], names, series, {"equal": 0.0})


def _curves(study: Study, curves: CurveOptions, result: NetworkResult) -> Figure:
    """Scores over one name of the methods' `for`."""
    std, over, values = result.subject.std, curves["over"], result.values
    lines = study.lines(over, curves.get("where", {}), std)
    panels = [
        Sweep(
            with_arrow(_words(metric), measured.higher_is_better),
            {line: {x: values(method, metric) for x, method in points.items()} for line, points in lines.items()},
            {name: mean(values(name, metric)) for name in CONTROLS},
        )
        for metric, measured in study.measures(std).items()
    ]
    level = result.subject.level if curves.get("level") else None
    chosen = None if level is None else (level.std, level.low, level.high)
    return sweeps_figure(panels, curves.get("label", over), chosen, curves.get("published"))


def _grids(study: Study, down: str, across: str, result: NetworkResult) -> Figure:
    """Mean scores over two names of the methods' `for`."""
    bound = study.coordinates(result.subject.std)
    cells = {(own[down], own[across]): method for method, own in bound.items() if down in own and across in own}
    rows, columns = (sorted({key[place] for key in cells}) for place in (0, 1))
    grids = [
        Grid(
            with_arrow(_words(metric), measured.higher_is_better),
            np.array(rows),
            np.array(columns),
            np.array([[mean(result.values(cells.get((r, c)), metric)) for c in columns] for r in rows]),
            measured.higher_is_better is not False,
        )
        for metric, measured in study.measures(result.subject.std).items()
    ]
    return grids_figure(grids, _words(down), _words(across))


def _maps(result: NetworkResult, network: str) -> Figure:
    shown = result.maps
    maps = {key.removeprefix("method "): value for key, value in shown.items() if key.startswith("method ")}
    target, predicted = (_classes(result, part) for part in ("target", "predicted"))
    bounds = result.subject.network.bounds
    return attribution_panel(shown["images"], maps, bounds, shown.get("masks"), target, predicted, network)


def _panel(title: str, rows: Mapping[str, Mapping[str, str]], result: NetworkResult) -> Figure:
    """The rows for each sample; columns without maps of all their methods are left out."""
    shown, first = result.maps, next(iter(rows.values()))
    keys = {name: [f"method {row.get(name)}" for row in rows.values()] for name in first}
    return attribution_panel(
        shown["images"].repeat_interleave(len(rows), 0),
        {n: torch.stack([shown[k] for k in own], 1).flatten(0, 1) for n, own in keys.items() if {*own} <= {*shown}},
        result.subject.network.bounds,
        labels=[f"{label}, {row}" if row else label for label in _classes(result, "target") for row in rows],
        title=title,
    )


def _classes(result: NetworkResult, part: str) -> list[str]:
    names = result.subject.network.class_names
    return [str(names[place]) if names else str(place) for place in result.maps[part].tolist()]
