"""From findings to HTML; nothing in it asks for anything but what is beside it."""

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from pandas import DataFrame

from lightning_xai._version import __version__
from lightning_xai.reporting.colors import PALETTE
from lightning_xai.reporting.escapes import printable
from lightning_xai.reporting.page.beside import MOST_BYTES, Beside, is_large, packed, parts, with_room
from lightning_xai.reporting.page.charts import (
    Curves,
    accuracy_history,
    calibration_of,
    curves_of,
    distributions_of,
    metric_axis,
    scatter_of,
)
from lightning_xai.reporting.page.classes import class_maps
from lightning_xai.reporting.page.data import as_data, embedded
from lightning_xai.reporting.page.metrics import GROUPS, about
from lightning_xai.reporting.page.numbers import Number, count, decimals, mean_parts, places, written
from lightning_xai.reporting.page.samples import samples_of
from lightning_xai.reporting.page.sentences import (
    CONTROLS,
    anchor,
    best_of,
    explained,
    floor,
    is_below_floor,
    is_better,
    leading,
    plain,
    sentences,
    shown_first,
)
from lightning_xai.reporting.page.shortcuts import shortcuts_of
from lightning_xai.results.comparison import Comparison, MethodResult, MetricComparison
from lightning_xai.results.findings import Findings, FoundRun, Pair, Panel, Sheet
from lightning_xai.results.sanity import Verdict
from lightning_xai.results.scores import GRADIENTS
from lightning_xai.results.tables import ARROWS

_EXPLAINED = {"label": "the label", "prediction": "the prediction", "positive": "each label that holds"}
DARK = ("#5aa9e6", "#f2b134", "#34c79a", "#e3a3ca", "#9bd5f7", "#f58a4b", "#d9d9d9")
"""The palette on a dark ground."""


def render(findings: Findings, command: str = "", folder: str = "page_files") -> tuple[str, dict[str, bytes]]:
    """The page, and the files that it needs in a folder beside it: none but for many samples, or large maps.

    Args:
        findings: What the runs tell.
        command: That makes the page again; empty to leave it out.
        folder: Name of that folder.
    """
    beside = Beside(folder if is_large(findings) else "")
    style, script = (_resource(name) for name in ("style.css", "script.js"))
    style = _colors() + style
    own = " 'self' file:" * bool(beside.folder)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'{own}; img-src data:{own}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _template().render(
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        version=__version__,
        command=command,
        **_view(findings, beside),
    )
    return page, beside.files


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("lightning_xai.reporting.page", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    """What a template prints: control characters of names are shown, and not obeyed; no line ends before a percent."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n"))).replace(" %", "\u00a0%")


def _foldable(name: str) -> Markup:
    """A long name, with lines that end between its parts where they can."""
    return Markup(re.sub(r"([/:_]+)", r"\1<wbr>", str(escape(_shown(name)))))


def _resource(name: str) -> str:
    return files("lightning_xai.reporting.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _colors() -> str:
    """Of the series, on both grounds."""
    light = ("#" + "222222" if color == "black" else color for color in PALETTE)
    both = [*enumerate(zip(light, DARK, strict=True))]
    return "".join(
        f":root{{--c{n}:{bright}}}@media(prefers-color-scheme:dark){{:root{{--c{n}:{dark}}}}}"
        f".c{n}{{color:var(--c{n})}}\n"
        for n, (bright, dark) in both
    )


def _view(findings: Findings, beside: Beside) -> dict[str, Any]:
    comparison, evaluations = findings.comparison, embedded(findings)
    scores = as_data(evaluations)
    figures = [path for run in findings.runs for path in run.figures.values()]
    room = MOST_BYTES - len(scores) - 4 / 3 * sum(path.stat().st_size for path in figures) - 300_000  # of all else
    maps, without = _maps(findings, beside, room)
    sheets, left_out = _sheets(findings, evaluations, beside, room - sum(len(source) for _, _, source in maps))
    metrics_by_name = {metric.metric: about(metric) for metric in comparison.metrics}
    return {
        "findings": findings,
        "comparison": comparison,
        "sentences": sentences(findings),
        "colors": color_classes(findings),
        "metrics": [_metric(comparison, metric) for metric in _in_order(comparison)],
        "curves": [(run, own, scatter_of(run)) for run in findings.runs if (own := list(_curves(findings, run)))],
        "scores": beside.data("scores.js", scores) if beside.folder else scores,
        "folder": beside.folder,
        "level": f"{100 * (1 - comparison.alpha):g}",
        "maps": maps,
        "left_out": left_out if sheets else without,
        "sheets": as_data(sheets) if sheets else "",
        "classes": class_maps(findings),
        "calibrations": [(run.name, tenths) for run in findings.runs if (tenths := calibration_of(run))],
        "samples": samples_of(findings),
        "shortcuts": shortcuts_of(findings, lambda name, path: beside.picture(f"shortcuts-{name}.png", packed(path))),
        "checks": [
            (run, name, _figure(run, name, beside), *_ordered(own))
            for run in findings.runs
            for name, own in run.verdicts.items()
        ],
        "shapes": {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"},
        "pairs": _pairs(findings),
        "written": written,
        "about": lambda name: metrics_by_name[name] if name in metrics_by_name else about(name),
        "explained": _EXPLAINED,
        "explained_of": explained,
        "count": count,
        "foldable": _foldable,
        "p_text": _p_text,
        "gradients": sum(run.scores.select(metric=GRADIENTS).table["value"].sum() for run in findings.runs),
    }


def color_classes(findings: Findings) -> dict[str, str]:
    """By method: a color for each, gray for the controls."""
    comparison = findings.comparison
    short = plain if len(findings.runs) > 1 else str  # curves are of one run, whose methods have their short names
    methods = dict.fromkeys(short(method) for method in comparison.methods if method not in comparison.controls)
    colors = {method: f"c{number % len(PALETTE)}" for number, method in enumerate(methods)}
    colors |= {short(method): "control" for method in comparison.controls}
    return {"network": ""} | colors | {method: colors[short(method)] for method in comparison.methods}


def _metric(comparison: Comparison, metric: MetricComparison) -> dict[str, Any]:
    known, axis, digits = about(metric), metric_axis(comparison, metric), places(metric)
    return {
        "metric": metric,
        "about": known,
        "anchor": anchor(comparison, metric),
        "arrow": ARROWS[metric.higher_is_better],
        "axis": axis,
        "distributions": distributions_of(metric),
        "controls": [(r.method, axis(r.mean)) for r in metric.methods if _drawn(r) and r.method in comparison.controls],
        "n": count(metric.num_samples, "n", metric.metric),
        "common": count(metric.num_common, "num_common", metric.metric),
        "rows": [_row(comparison, metric, result, digits) for result in shown_first(comparison, metric)],
    }


def _figure(run: FoundRun, check: str, beside: Beside) -> Markup | None:
    """Of a sanity check."""
    path = run.figures.get(check)
    return None if path is None else beside.picture(f"{run.name}-{check}.png".replace("/", "-"), packed(path))


def _whose(comparison: Comparison, method: str) -> tuple[str, str]:
    """The run of a method, and its name in it."""
    if len(comparison.runs) == 1:
        return comparison.runs[0].name, method
    run = next((run.name for run in comparison.runs if method.startswith(f"{run.name}:")), "")
    return run, method.removeprefix(f"{run}:")


def _maps(findings: Findings, beside: Beside, room: float) -> tuple[list[tuple[str, Panel, Markup]], int]:
    """The panels that a page has room for, and how many it has none for; the latest alone where there are sheets."""
    panels = [(run.name, panel) for run in findings.runs for panel in run.panels]
    if any(run.sheets for run in findings.runs):
        panels = panels[-1:]
    last = [*range(len(panels))][-1:]
    chosen = [*range(len(panels))] if beside.folder else with_room([panel.path for _, panel in panels], room, last)
    found = [(*panels[place], beside.picture(f"panel-{place}.png", packed(panels[place][1].path))) for place in chosen]
    return found, len(panels) - len(found)


def _sheets(
    findings: Findings, evaluations: Sequence[dict[str, Any]], beside: Beside, room: float
) -> tuple[list[dict[str, Any]], int]:
    """Those that a page has room for, for its script, and how many are left out."""
    places = {(e["run"], e["stage"], e["epoch"], e["step"]): e for e in evaluations}
    sheets = [(run.name, sheet, _at(run.name, sheet)) for run in findings.runs for sheet in run.sheets]
    known = [
        (at, sheet, rows) for _, sheet, at in sheets if at in places and (rows := _rows(sheet, places[at])) is not None
    ]
    chosen = [*range(len(known))]
    if not beside.folder:
        reported = [place for place, (at, _, _) in enumerate(known) if places[at].get("reported")]
        chosen = with_room([sheet.panel.path for _, sheet, _ in known], room, reported)
    first, controls = leading(findings.comparison), {plain(name) for name in findings.comparison.controls}
    found = []
    for place in chosen:
        at, sheet, rows = known[place]
        scores = DataFrame(places[at]["values"].get(first and first.metric, {}), dtype=float)
        means = scores[[name for name in scores if name not in controls]].mean(axis=1)
        order = sorted(range(len(rows)), key=lambda n: means.get(rows[n], 0.0))
        found.append(
            {
                **dict(zip(("run", "stage", "epoch", "step"), at, strict=True)),
                **{key: sheet.about[key] for key in ("height", "width", "methods", "scales", "ends")},
                "parts": list(parts(sheet, rows, order, beside, f"sheet-{place}")),
            }
        )
    return found, len(sheets) - len(found)


def _at(run: str, sheet: Sheet) -> tuple[str, str, int, int]:
    return run, sheet.panel.stage, sheet.panel.epoch, sheet.panel.step


def _rows(sheet: Sheet, evaluation: dict[str, Any]) -> list[int] | None:
    """Of the sheet's samples in the scores; None where one has several targets, and the sheet does not tell them."""
    names = ["samples", "target"] if "target" in evaluation and "targets" in sheet.about else ["samples"]
    keys = list(zip(*(evaluation[name] for name in names), strict=True))
    rows = {key: row for row, key in enumerate(keys)}
    wanted = zip(*(sheet.about[{"target": "targets"}.get(name, name)] for name in names), strict=True)
    own = [rows.get(key) for key in wanted]
    return [row for row in own if row is not None] if len(rows) == len(keys) and None not in own else None


def _in_order(comparison: Comparison) -> list[MetricComparison]:
    """The one that the answer is about, those that have a floor, the others."""
    first = leading(comparison)
    return sorted(comparison.metrics, key=lambda m: (m is not first, GROUPS.index(about(m).group)))


def _drawn(result: MethodResult) -> bool:
    return not math.isnan(result.mean)


def _row(comparison: Comparison, metric: MetricComparison, result: MethodResult, digits: int) -> dict[str, Any]:
    known = about(metric)
    mean, unit, *interval = mean_parts(metric, result, digits)
    is_control = result.method in comparison.controls
    cost = comparison.gradients.get(result.method, math.nan)
    level = floor(comparison, metric, result)
    better = is_control and known.has_floor and is_better(comparison, result)
    return {
        "result": result,
        "whose": _whose(comparison, result.method),
        "mean": mean,
        "unit": unit,
        "interval": interval,
        "is_control": is_control,
        "below": level.name if level and is_below_floor(comparison, metric, result) else "",
        "best": result is best_of(metric),
        "tied": comparison.is_tested(metric)
        and (result.is_best or (is_control and known.has_floor and _as_good(comparison, result))),
        "better": better,
        "difference": Number(
            written(result.difference, digits, known.percent, sign=True),
            result.difference,
            "difference",
            metric.metric,
            result.method,
        ),
        "p": Number(_p_text(result.p_holm), result.p_holm, "p_holm", metric.metric, result.method),
        "cost": Number("" if math.isnan(cost) else f"{cost:g}", cost, "gradients", GRADIENTS, result.method),
        "undefined": count(result.num_undefined, "num_undefined", metric.metric, result.method),
    }


def _ordered(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict], list[Verdict]]:
    """Those that are not passed, those that are, and those of the controls."""
    own = [verdict for verdict in verdicts if verdict.method not in CONTROLS]
    controls = [verdict for verdict in verdicts if verdict.method in CONTROLS]
    return [v for v in own if v.outcome != "PASS"], [v for v in own if v.outcome == "PASS"], controls


def _pairs(findings: Findings) -> list[tuple[str, bool, int, list[Pair]]]:
    """By metric: whether it is a share, the digits of its differences, and the pairs."""
    found = []
    for metric in _in_order(findings.comparison):
        own = [pair for pair in findings.pairs if pair.metric == metric.metric]
        if not own:
            continue
        widths = sorted((pair.high - pair.low) / 4 for pair in own if pair.high > pair.low)
        digits = decimals(widths[len(widths) // 2] if widths else math.nan)
        found.append((metric.metric, about(metric).percent, digits, own))
    return found


def _as_good(comparison: Comparison, result: MethodResult) -> bool:
    return not math.isnan(result.p_holm) and not (result.p_holm <= comparison.alpha and result.effect_size < 0)


def _p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"


def _curves(findings: Findings, run: FoundRun) -> Iterator[Curves]:
    checkpoints = {c.step: c.name for c in reversed(run.checkpoints) if c.name != "last.ckpt"}
    for metric in _in_order(findings.comparison):
        own = curves_of(run.history, metric, metric.higher_is_better, checkpoints)
        if own is not None:
            yield own
    accuracy = curves_of(accuracy_history(run), "accuracy", True, checkpoints)
    if accuracy is not None:
        yield accuracy
