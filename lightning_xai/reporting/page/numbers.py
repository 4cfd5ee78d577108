"""Numbers as a page writes them: what they are of, their value with all digits, and as many as their error allows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lightning_xai.reporting.page.metrics import about
from lightning_xai.results.comparison import MethodResult, MetricComparison

MINUS = "−"


@dataclass(frozen=True)
class Number:
    """A number on the page, so that a reader, or a program, can make it again from the scores.

    Attributes:
        text: As it is written.
        value: All digits.
        of: What it is: `mean`, `low`, `high`, `difference`, `n`, ...
        metric: Empty where it is of none.
        method: Likewise.
    """

    text: str
    value: float | int
    of: str
    metric: str = ""
    method: str = ""


Part = str | Number


def decimals(error: float) -> int:
    """Places behind the point that a standard error gives a meaning to, from 0 to 6; 3 where there is no error."""
    if not (error > 0 and math.isfinite(error)):
        return 3
    return min(6, max(0, -math.floor(math.log10(error))))


def error(result: MethodResult) -> float:
    """Standard error of the mean."""
    return result.standard_deviation / math.sqrt(len(result.values)) if len(result.values) else math.nan


def places(metric: MetricComparison) -> int:
    """For a column of numbers, all with as many: what the median of the errors allows."""
    errors = sorted(e for e in map(error, metric.methods) if e > 0)
    return decimals(errors[len(errors) // 2] if errors else math.nan)


def written(value: float, digits: int, percent: bool = False, sign: bool = False) -> str:
    """With a true minus sign; a share in percent, without its unit."""
    if math.isnan(value):
        return "undefined"
    if percent:
        value, digits = 100 * value, max(0, digits - 2)
    large = abs(value) >= 1e5 or (value != 0 and abs(value) < 0.5 * 10**-digits and not percent)
    text = f"{value:{'+' if sign else ''}{'.2e' if large else f'.{digits}f'}}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def mean_parts(metric: MetricComparison, result: MethodResult, digits: int | None = None) -> list[Part]:
    """`46.5 % [44.9, 48.1]`: mean and interval; without the interval where there is none."""
    known, digits = about(metric), decimals(error(result)) if digits is None else digits
    whose = metric.metric, result.method

    def number(value: float, of: str) -> Number:
        return Number(written(value, digits, known.percent), value, of, *whose)

    unit = " %" if known.percent and not math.isnan(result.mean) else ""
    parts: list[Part] = [number(result.mean, "mean"), unit]
    if not math.isnan(result.low):
        parts += [" [", number(result.low, "low"), ", ", number(result.high, "high"), "]"]
    return parts


def count(value: int, of: str, metric: str = "", method: str = "") -> Number:
    """A whole number."""
    return Number(f"{value:,}".replace(",", " "), value, of, metric, method)


def text(parts: Iterable[Part]) -> str:
    """As one text."""
    return "".join(part if isinstance(part, str) else part.text for part in parts)


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    *others, end = names
    return f"{', '.join(others)} {last} {end}" if others else end
