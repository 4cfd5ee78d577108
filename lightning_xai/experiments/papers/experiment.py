"""What an experiment is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from lightning_xai.results.reproduction import Reproduction


def _no_figures(result: Reproduction) -> Mapping[str, Figure]:
    return {}


@dataclass(frozen=True)
class Experiment:
    """One table or figure of a paper, by one command.

    Attributes:
        summary: A line for the list of experiments.
        run: Called with a `Lab` and the experiment's own options, whose defaults are the full setting.
        fast: Options of the version that takes a minute or two on two cores. Its data are those that the package
            carries.
        figures: Makes the figures, by name of file, from the result alone.
    """

    summary: str
    run: Callable[..., Reproduction]
    fast: Mapping[str, Any] = field(default_factory=dict)
    figures: Callable[[Reproduction], Mapping[str, Figure]] = _no_figures
