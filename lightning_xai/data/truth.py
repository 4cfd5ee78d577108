"""Tasks of which the truth is known: what decides a sample has a mask, and can be swapped or taken away."""

from abc import abstractmethod
from typing import Literal

from lightning_xai.data.base import ImageDataModule, ImageDataset, ImageSource, Split

Intervention = Literal["swap", "remove"]
"""`swap`: what decides now tells another class, drawn by the seed; `remove`: it tells none. All else stays."""


class TruthDataModule(ImageDataModule):
    """Base of data modules that know what decides, and can intervene on it.

    What a network truly uses is computed from the interventions and never assumed: it depends on what was swapped as
    far as its predictions change.
    """

    evidence: str
    """Name of the mask of what should decide: the digit, the figure."""
    operators: tuple[str, ...] = ()
    """Kinds of shortcut without a place (`color`, `frequency`, `background`) that keep the evidence readable here."""

    @abstractmethod
    def intervene(self, split: Split, how: Intervention) -> ImageSource:
        """The split as `load` gives it, sample by sample, labels as they were, with what decides swapped or removed."""

    def intervened(self, name: Literal["val", "test"], how: Intervention) -> ImageDataset:
        """The validation or test samples of `setup` after the intervention, in their order."""
        clean = self._sets[name]
        return ImageDataset(
            self.intervene("test" if name == "test" else "train", how), clean.rows, clean.labels, self.normalize
        )
