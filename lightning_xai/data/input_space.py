"""What the inputs of a network are, and its outputs are called: who is asked, and in which order."""

from dataclasses import dataclass, replace
from typing import Any

from lightning_xai.data.image_folder import PictureDataModule
from lightning_xai.data.preprocessing import Preprocessing
from lightning_xai.explainers.conditions import Conditions


@dataclass(frozen=True)
class InputSpace:
    """The inputs of a module, asked of whoever knows them: the data module, then the module.

    A data module of pictures prepares them as the module asks for, which it learns when it is set up: this preparation
    is asked before it. What a property of theirs raises is raised when it is asked for.

    Attributes:
        model: The module; a `PretrainedClassifier`, for one, knows all of it.
        data: The data module; None without one.
    """

    model: Any
    data: Any = None

    @classmethod
    def of(cls, trainer: Any) -> "InputSpace":
        """Of the module and the data module that a trainer runs."""
        return cls(trainer.lightning_module, getattr(trainer, "datamodule", None))

    def completed(self, conditions: Conditions) -> Conditions:
        """With the bounds of the inputs, where the user gave none."""
        return conditions if conditions.bounds is not None else replace(conditions, bounds=self.bounds)

    @property
    def bounds(self) -> Any:
        """Least and greatest value of an input element; None if nobody knows."""
        return self._known("bounds")

    @property
    def class_names(self) -> Any:
        """Of the outputs, in their order; None if they have none."""
        return self._known("class_names")

    @property
    def shape(self) -> tuple[int, ...] | None:
        """`image_shape`, (channels, height, width), or what the preprocessing makes; None if nobody knows."""
        shape = self._known("image_shape")
        return None if shape is None else tuple(shape)

    @property
    def preparer(self) -> Any:
        """Whose method `preprocess` makes an input of a picture; None if nobody has one.

        The modules' own come before the preparation that they describe.
        """
        own = getattr(self.data, "preprocessing", None) if isinstance(self.data, PictureDataModule) else None
        owners = (self.data, self.model, *self._owners, own)
        return next((owner for owner in owners if callable(getattr(owner, "preprocess", None))), None)

    @property
    def _preprocessing(self) -> Preprocessing | None:
        found = getattr(self.model, "preprocessing", None)
        return found if isinstance(found, Preprocessing) else None

    @property
    def _owners(self) -> tuple[Any, ...]:
        made = self._preprocessing
        told = made is not None and isinstance(self.data, PictureDataModule)
        return self.data.adapted(made) if told else None, self.data, self.model, made

    def _known(self, name: str) -> Any:
        known = (getattr(owner, name, None) for owner in self._owners)
        return next((value for value in known if value is not None), None)
