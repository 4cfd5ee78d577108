"""Class by class: the mean map of what the network is right on, beside that of what it takes for something else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from lightning_xai.reporting.colors import scale_end
from lightning_xai.reporting.page.beside import Beside, as_png, blocks
from lightning_xai.reporting.page.numbers import Number, count
from lightning_xai.reporting.page.samples import called, class_names
from lightning_xai.reporting.page.sentences import best_of, compared_samples, labelled, leading, plain
from lightning_xai.results.findings import Findings, Sheet

MOST_CLASSES = 20
RED, BLUE = (178, 24, 43), (33, 102, 172)


@dataclass(frozen=True)
class ClassMaps:
    """Of one class.

    Attributes:
        name: Of the class.
        right: Samples that the network is right on, and their mean map; no map of no samples.
        confused: Those of the class that it takes for another one, likewise.
        taken_for: The class that most of these are taken for.
    """

    name: str
    right: tuple[Number, Markup | None]
    confused: tuple[Number, Markup | None]
    taken_for: str


def class_maps(findings: Findings) -> tuple[str, list[ClassMaps], int] | None:
    """The method, its mean maps of each class of the first run, the most confused ones first, and how many are left
    out; None where the run has no maps of the evaluation that is compared, or nothing is known of its samples.

    The method is the best in the metric of the answer, or else the first. A sample is of the class that is explained.
    """
    run, metric = findings.runs[0], leading(findings.comparison)
    one, known = next(iter(run.scores)), compared_samples(run)
    at = (one.stage, one.epoch, one.step)
    sheet = next((s for s in run.sheets if (s.panel.stage, s.panel.epoch, s.panel.step) == at), None)
    best = metric and best_of(metric)
    if sheet is None or not (len(known) and labelled(run)) or not (methods := sheet.about["methods"]):
        return None
    method = plain(best.method) if best and plain(best.method) in methods else methods[0]
    known = known[known["sample"].isin(sheet.about["samples"])].set_index("sample")
    if not known.index.is_unique or not len(known):
        return None
    return method, *_of_classes(known, sheet, methods.index(method), class_names(findings))


def _of_classes(known: pd.DataFrame, sheet: Sheet, place: int, names: Sequence[str]) -> tuple[list[ClassMaps], int]:
    maps = dict(zip(sheet.about["samples"], tiles(sheet, place), strict=True))
    wrong = known["predicted"] != known["target"]
    order = wrong.groupby(known["target"]).sum().sort_values(ascending=False, kind="stable").index.tolist()
    groups = {
        (c, is_wrong): known[(known["target"] == c) & (wrong == is_wrong)]
        for c in order[:MOST_CLASSES]
        for is_wrong in (False, True)
    }
    means = {
        key: np.nanmean(np.array([maps[sample] for sample in own.index]), 0) for key, own in groups.items() if len(own)
    }
    end = max(map(scale_end, means.values()))

    def part(c: int, is_wrong: bool, of: str) -> tuple[Number, Markup | None]:
        picture = _drawn(means[c, is_wrong] / end) if (c, is_wrong) in means else None
        return count(len(groups[c, is_wrong]), of, method=called(names, c)), picture

    found = []
    for c in order[:MOST_CLASSES]:
        most = groups[c, True]["predicted"].mode().tolist()
        taken_for = called(names, int(most[0])) if most else ""
        both = part(c, False, "class_right"), part(c, True, "class_confused")
        found.append(ClassMaps(called(names, c), *both, taken_for))
    return found, len(order) - len(found)


def tiles(sheet: Sheet, place: int) -> np.ndarray:
    """The maps of one method, (samples, height, width), as `callbacks.maps.write_sheet` says; NaN if not finite."""
    values = blocks(sheet)[place + 1].astype(float)
    return np.where(values > 0, (values - 128) / 127 * sheet.about["scales"][place], np.nan)


def _drawn(shares: np.ndarray) -> Markup:
    """Shares of the end of the scale: red above 0, blue below, white there."""
    shares = np.nan_to_num(shares).clip(-1, 1)[..., None]
    color = 255 + np.abs(shares) * (np.where(shares < 0, BLUE, RED) - 255)
    return Beside().picture("", as_png(color.round().astype(np.uint8)))
