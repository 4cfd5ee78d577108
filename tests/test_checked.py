"""The suite's own check of annotations, which `conftest` makes cheap."""

import jaxtyping
import pytest
from beartype.roar import BeartypeCallHintViolation

from lightning_xai.functional.complexity import gini
from lightning_xai.reporting.saving import file_name


def test_annotations_are_checked_with_a_shape_and_without_unless_switched_off(monkeypatch):
    with pytest.raises(jaxtyping.TypeCheckError, match="attributions"):
        gini([1.0])
    with pytest.raises(BeartypeCallHintViolation, match="name"):
        file_name(3)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match="expected string"):
        file_name(3)
    with pytest.raises(AttributeError):
        gini([1.0])
