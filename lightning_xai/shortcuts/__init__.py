"""What decides a network's predictions and should not: hypotheses found on some samples, and proven on others."""

from lightning_xai.shortcuts.audit import Accepted, find_shortcuts
from lightning_xai.shortcuts.examples import Example, shown

__all__ = ["Accepted", "Example", "find_shortcuts", "shown"]
