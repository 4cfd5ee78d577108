"""Pictures of the sanity checks: maps of the trained model beside those of the changed models."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lightning_xai.reporting.colors import FAINT, SCALE_NOTE
from lightning_xai.reporting.pages import Page, styled, wrapped
from lightning_xai.reporting.pictures import Picture, PictureGrid, map_picture, shown
from lightning_xai.reporting.sanity_values import cells, scored_methods, steps, variant_phrase
from lightning_xai.results.sanity import Check, SanityReport

_NAME_WIDTH = 1.8
_SCALE = 0.67


def cascade_grid(
    report: SanityReport, variant: str, absolute: bool = True, samples: Sequence[int] | None = None
) -> Figure:
    """Maps as blocks are randomized: a row a method, a column a step, a block of rows a sample (Adebayo et al. 2018).

    The first column holds the maps of the trained model, the others those of repeat 0. Every map has its own color
    scale, which ends at the 99th percentile of its absolute values: from 0 for absolute values, otherwise symmetric
    around 0. A dash stands for a map that the report does not have; values that are not finite are gray.

    Args:
        report: With maps.
        variant: An ordering of the parameters' blocks.
        absolute: Absolute values instead of signed ones.
        samples: Positions among the samples whose maps were kept; by default the first two.

    Raises:
        ValueError: if the report has no cells of the variant, or no maps of these samples.
    """
    blocks = ["original", *(block for _, block in steps(cells(report, "parameters", variant)))]
    what = f"under {variant_phrase(variant)}"
    return _maps_figure(report, "parameters", variant, blocks, what, absolute, _chosen(report, samples, 2), False)


def data_pairs(report: SanityReport, absolute: bool = True, samples: Sequence[int] | None = None) -> Figure:
    """Maps of the model trained with true labels beside those of the one trained with random labels.

    A row a method, two columns a sample, by default of all samples kept; colors as in `cascade_grid`.

    Raises:
        ValueError: if the report has no cells of the data check, or no maps of these samples.
    """
    titles = ["true labels", "random labels"]
    return _pairs(report, "data", titles, "of models trained with true and with random labels", absolute, samples)


def invariance_pairs(report: SanityReport, absolute: bool = True, samples: Sequence[int] | None = None) -> Figure:
    """Maps of the model beside those of its twin for shifted inputs, laid out as in `data_pairs`.

    Raises:
        ValueError: if the report has no cells of the invariance check, or no maps of these samples.
    """
    titles = ["original", "shifted"]
    return _pairs(report, "invariance", titles, "of the model and of its twin for shifted inputs", absolute, samples)


def logit_pairs(report: SanityReport, absolute: bool = True, samples: Sequence[int] | None = None) -> Figure:
    """Maps of the explained class beside those of another one, laid out as in `data_pairs`.

    Raises:
        ValueError: if the report has no cells of the random-logit check, or no maps of these samples.
    """
    titles = ["original", "another class"]
    return _pairs(report, "random_logit", titles, "of the explained class and of another", absolute, samples)


def _pairs(
    report: SanityReport, check: Check, titles: list[str], what: str, absolute: bool, samples: Sequence[int] | None
) -> Figure:
    variant = cells(report, check)[0].key.variant
    return _maps_figure(report, check, variant, titles, what, absolute, _chosen(report, samples), True)


@styled
def _maps_figure(
    report: SanityReport,
    check: Check,
    variant: str,
    titles: list[str],
    what: str,
    absolute: bool,
    samples: list[int],
    beside: bool,
) -> Figure:
    """A grid of maps for each sample, which stands in front of them, below or beside that of the sample before."""
    found = cells(report, check, variant)
    methods = scored_methods(report, found)
    maps = {(cell.key.method, cell.key.step): cell.maps for cell in found if cell.key.repeat == 0}
    maps |= {(cell.key.method, -1): cell.maps for cell in report.cells if cell.key.check == "original"}
    numbers = [-1, *(number for number, _ in steps(found))]
    names = [wrapped(name, _NAME_WIDTH) for name in methods]
    height, width = report.images.shape[2:]
    grids = [
        PictureGrid((height, width), names, [f"sample {report.samples[sample]}", *titles], (1, 2), _SCALE)
        for sample in samples
    ]
    across, down = (len(samples), 1) if beside else (1, len(samples))
    page = Page([grids[0].width] * across, [grids[0].height] * down)
    for number, (grid, sample) in enumerate(zip(grids, samples, strict=True)):
        grid.prepare(page.axes(*divmod(number, across)), named=number % across == 0)
        grid.show(0, 0, Picture(shown(np.clip(report.images[sample], 0, 1))))
        for row, method in enumerate(methods):
            for column, step in enumerate(numbers, 1):
                kept = maps.get((method, step), ())
                if sample < len(kept):
                    values = np.abs(kept[sample]) if absolute else kept[sample]
                    grid.show(row, column, map_picture(values, not absolute))
                else:
                    grid.write(row, column, "–", color=FAINT)
    grids[0 if beside else -1].draw_scale(not absolute)
    return page.finished(f"{'Absolute maps' if absolute else 'Maps'} {what}", [f"{SCALE_NOTE}."])


def _chosen(report: SanityReport, samples: Sequence[int] | None, default: int | None = None) -> list[int]:
    kept = len(report.images)
    chosen = list(range(kept))[:default] if samples is None else list(samples)
    if not chosen or not all(0 <= sample < kept for sample in chosen):
        raise ValueError(
            f"`samples` must be positions among the {kept} samples whose maps `report` keeps, from 0; got {chosen}. "
            "Keep more maps where the report is made."
        )
    return chosen
