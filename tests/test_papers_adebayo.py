"""The tables of the sanity checks: verdicts, means over what is defined, published values of the CNN only."""

import numpy as np

from lightning_xai.experiments.papers.sanity_adebayo import CNN, tables_of
from lightning_xai.results.sanity import Cell, CellKey, SanityReport, Verdict


def report():
    cells = []
    for check, variant, blocks in (("parameters", "cascading_from_top", ("out", "in")), ("data", "labels", ("",))):
        for step, block in enumerate(blocks):
            for repeat, value in enumerate((0.2, 0.4)):
                scores = {name: np.array([value + step, np.nan]) for name in ("spearman_absolute", "ssim")}
                cells.append(Cell(CellKey(check, variant, step, block, repeat, "gradient"), scores))
    verdicts = tuple(
        Verdict(check, "gradient", "PASS", "ssim", 0.25, 0.2, 0.3, 0.5, 0.025, 3, "")
        for check in ("parameters", "data", "invariance")
    )
    return SanityReport({}, (3, 7), np.empty((0, 1, 2, 2)), tuple(cells), (), verdicts)


def test_the_tables_of_the_cnn_have_the_published_values_beside():
    judged, cascade, data = tables_of(CNN, report())
    assert judged.rows == (("gradient", *["PASS (0.250 against 0.500)"] * 3),)
    assert cascade.columns == ("method", "out", "in", "published, out", "published, in")
    assert cascade.rows[0][:3] == ("gradient", "0.300", "1.300")
    assert cascade.rows[0][3:] == ("0.60", "0.40", "0.11", "0.08")
    assert data.columns[-1] == "published |Spearman|"
    assert data.rows == (("gradient", "0.300", "0.300", "undefined", "0.17"),)


def test_other_networks_have_no_published_values():
    _, cascade, data = tables_of("mnist_sanity_mlp", report())
    assert cascade.columns == ("method", "out", "in")
    assert cascade.rows == (("gradient", "0.300", "1.300"),)
    assert data.rows == (("gradient", "0.300", "0.300", "undefined"),)
