"""From findings to one file of HTML; nothing in it asks for anything outside of itself."""

import base64
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lightning_xai._version import __version__
from lightning_xai.reporting.colors import PALETTE
from lightning_xai.reporting.escapes import printable
from lightning_xai.reporting.page.charts import (
    Curves,
    accuracy_history,
    calibration_of,
    curves_of,
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
    is_below_floor,
    is_better,
    leading,
    plain,
    sentences,
    shown_first,
)
from lightning_xai.reporting.page.shortcuts import shortcuts_of
from lightning_xai.results.comparison import Comparison, MethodResult, MetricComparison
from lightning_xai.results.findings import Findings, FoundRun, Pair, Panel
from lightning_xai.results.sanity import Verdict
from lightning_xai.results.scores import GRADIENTS
from lightning_xai.results.tables import ARROWS

MOST_PANELS, MOST_BYTES = 20, 3_000_000
"""Of pictures of maps."""
DARK = ("#5aa9e6", "#f2b134", "#34c79a", "#e3a3ca", "#9bd5f7", "#f58a4b", "#d9d9d9")
"""The palette on a dark ground."""


def render(findings: Findings, command: str = "") -> str:
    """The page.

    Args:
        findings: What the runs tell.
        command: That makes the page again; empty to leave it out.
    """
    environment = Environment(
        loader=PackageLoader("lightning_xai.reporting.page", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    style, script = (_resource(name) for name in ("style.css", "script.js"))
    style = _colors() + style
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html").render(
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        version=__version__,
        command=command,
        **_view(findings),
    )


def _shown(value: Any) -> Any:
    """What a template prints: control characters of names are shown, and not obeyed; no line ends before a percent."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n"))).replace(" %", "\u00a0%")


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


def _view(findings: Findings) -> dict[str, Any]:
    comparison, maps, sheets = findings.comparison, _maps(findings), _sheets(findings)
    return {
        "findings": findings,
        "comparison": comparison,
        "sentences": sentences(findings),
        "colors": color_classes(findings),
        "metrics": [_metric(comparison, metric) for metric in _in_order(comparison)],
        "curves": [(run, own, scatter_of(run)) for run in findings.runs if (own := list(_curves(findings, run)))],
        "scores": as_data(embedded(findings)),
        "level": f"{100 * (1 - comparison.alpha):g}",
        "maps": maps,
        "left_out": sum(len(run.sheets if sheets else run.panels) for run in findings.runs) - len(sheets or maps),
        "sheets": as_data(sheets) if sheets else "",
        "classes": class_maps(findings),
        "calibrations": [(run.name, tenths) for run in findings.runs if (tenths := calibration_of(run))],
        "samples": samples_of(findings),
        "shortcuts": shortcuts_of(findings, _source),
        "checks": [
            (run, name, name in run.figures and _source(run.figures[name]), *_ordered(own))
            for run in findings.runs
            for name, own in run.verdicts.items()
        ],
        "shapes": {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"},
        "pairs": _pairs(findings),
        "written": written,
        "about": about,
        "count": count,
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
    known, axis, digits = about(metric.metric), metric_axis(comparison, metric), places(metric)
    return {
        "metric": metric,
        "about": known,
        "anchor": anchor(comparison, metric),
        "arrow": ARROWS[metric.higher_is_better],
        "axis": axis,
        "controls": [(r.method, axis(r.mean)) for r in metric.methods if _drawn(r) and r.method in comparison.controls],
        "n": count(metric.num_samples, "n", metric.metric),
        "common": count(metric.num_common, "num_common", metric.metric),
        "rows": [_row(comparison, metric, result, digits) for result in shown_first(comparison, metric)],
    }


def _maps(findings: Findings) -> list[tuple[str, Panel, Markup]]:
    """The panels that a page has room for; the latest alone where there are sheets."""
    several = len(findings.runs) > 1
    panels = [(f"{run.name}: " * several, panel) for run in findings.runs for panel in run.panels]
    if any(run.sheets for run in findings.runs):
        panels = panels[-1:]
    chosen = _with_room([panel.path for _, panel in panels])
    return [(*panels[place], _source(panels[place][1].path)) for place in chosen]


def _sheets(findings: Findings) -> list[dict[str, Any]]:
    """Those that a page has room for, for its script."""
    sheets = [(run.name, sheet) for run in findings.runs for sheet in run.sheets]
    chosen = [sheets[place] for place in _with_room([sheet.panel.path for _, sheet in sheets])]
    return [
        {
            **{"run": name, "stage": sheet.panel.stage, "epoch": sheet.panel.epoch, "step": sheet.panel.step},
            **{key: sheet.about[key] for key in ("samples", "height", "width", "across", "methods", "scales", "ends")},
            "source": _source(sheet.panel.path, "L"),
        }
        for name, sheet in chosen
    ]


def _with_room(paths: Sequence[Path]) -> list[int]:
    """Places of the pictures that a page has room for: the last, the first and evenly spaced ones of all."""
    size = sum(path.stat().st_size for path in paths)
    number = min(len(paths), MOST_PANELS, max(1, int(MOST_BYTES * len(paths) / max(1, size))))
    return sorted({round(place) for place in np.linspace(len(paths) - 1, 0, number)})


def _source(path: Path, mode: str = "RGB") -> Markup:
    """As a text, in as few bytes as a picture of the same pixels takes."""
    packed = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert(mode).save(packed, "png", compress_level=9)
    return Markup("data:image/png;base64," + base64.b64encode(packed.getvalue()).decode())


def _in_order(comparison: Comparison) -> list[MetricComparison]:
    """The one that the answer is about, those that have a floor, the others."""
    first = leading(comparison)
    return sorted(comparison.metrics, key=lambda m: (m is not first, GROUPS.index(about(m.metric).group)))


def _drawn(result: MethodResult) -> bool:
    return not math.isnan(result.mean)


def _row(comparison: Comparison, metric: MetricComparison, result: MethodResult, digits: int) -> dict[str, Any]:
    known = about(metric.metric)
    mean, unit, *interval = mean_parts(metric, result, digits)
    is_control = result.method in comparison.controls
    cost = comparison.gradients.get(result.method, math.nan)
    better = is_control and known.has_floor and is_better(comparison, result)
    return {
        "result": result,
        "mean": mean,
        "unit": unit,
        "interval": interval,
        "is_control": is_control,
        "below": is_below_floor(comparison, metric, result),
        "best": result is best_of(metric),
        "tied": result.is_best or (is_control and known.has_floor and _as_good(comparison, result)),
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
    for metric in [metric.metric for metric in _in_order(findings.comparison)]:
        own = [pair for pair in findings.pairs if pair.metric == metric]
        if not own:
            continue
        widths = sorted((pair.high - pair.low) / 4 for pair in own if pair.high > pair.low)
        digits = decimals(widths[len(widths) // 2] if widths else math.nan)
        found.append((metric, about(metric).percent, digits, own))
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
        own = curves_of(run.history, metric.metric, metric.higher_is_better, checkpoints)
        if own is not None:
            yield own
    accuracy = curves_of(accuracy_history(run), "accuracy", True, checkpoints)
    if accuracy is not None:
        yield accuracy
