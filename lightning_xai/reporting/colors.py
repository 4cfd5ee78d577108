"""The colors of maps: white is 0 and red is positive, everywhere."""

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.colors import ListedColormap

PERCENTILE = 99
"""Of the absolute values of a map: where its scale ends, so that one outlying pixel does not pale the others."""

DIVERGING = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.6")
SEQUENTIAL = ListedColormap(DIVERGING(np.linspace(0.5, 1, 256))).with_extremes(bad="0.6")
SCALE_NOTE = f"P{PERCENTILE}: {PERCENTILE}th percentile of the absolute values of each map"


def scale_end(picture: Float[np.ndarray, "height width"]) -> float:
    """The percentile of the absolute values; the greatest where that is 0; 1 where all are."""
    values = np.abs(picture[np.isfinite(picture)])
    if not values.any():
        return 1.0
    return float(np.percentile(values, PERCENTILE)) or float(values.max())
