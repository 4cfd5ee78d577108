"""Every color of the figures: those of series and texts, and those of maps, where white is 0 and red is positive."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.colors import ListedColormap

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "black")
"""Of series: Okabe and Ito's, which the color-blind can tell apart, without the yellow, hard to see on white."""
TEXT, FAINT, LINE_GRAY, WRONG = "0.1", "0.4", "0.6", "#b2182b"
BEST, WORSE, NO_DIRECTION = "#0072b2", "#a9cfe8", "0.75"
ACCENT = "#d55e00"
"""What the data are compared with: a level, a boundary, a frame around the best."""
OUTCOMES = {"PASS": "#0072b2", "FAIL": WRONG, "INCONCLUSIVE": FAINT}

PERCENTILE = 99
"""Of the absolute values of a map: where its scale ends, so that one outlying pixel does not pale the others."""

DIVERGING = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.6")
SEQUENTIAL = ListedColormap(DIVERGING(np.linspace(0.5, 1, 256))).with_extremes(bad="0.6")
SCALE_NOTE = f"P{PERCENTILE}: {PERCENTILE}th percentile of the absolute values of each map"
# The darker the better, as in the other figures; a single hue and a red-blue scale are safe for the color-blind.
RANKS = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.85, 0.05, 256))).with_extremes(bad="0.92")
AGREEMENT = matplotlib.colormaps["RdBu"].with_extremes(bad="0.92")
SCORES = matplotlib.colormaps["Blues"].with_extremes(bad="0.92")


def scale_end(picture: Float[np.ndarray, "height width"]) -> float:
    """The percentile of the absolute values; the greatest where that is 0; 1 where all are."""
    values = np.abs(picture[np.isfinite(picture)])
    if not values.any():
        return 1.0
    return float(np.percentile(values, PERCENTILE)) or float(values.max())


def readable(background: Sequence[float]) -> str:
    """Black or white, whichever has more contrast (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"
