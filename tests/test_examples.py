"""Every public name has an example in its docstring, which does what it says and needs nothing but what it imports."""

import doctest
import re

import pytest

import lightning_xai as lx
from lightning_xai import callbacks, data, explainers, metrics, modules, networks, outputs, results

ROOMS = (lx, callbacks, data, explainers, metrics, modules, networks, outputs, results)
# Bases of a user's own, what needs files on disk in a layout of its own, and a package that need not be there.
WITHOUT = {
    *("ImageDataModule", "PictureDataModule", "TruthDataModule", "FolderInMemoryDataModule", "ImageNetDataModule"),
    *("TrainingFolderDataModule", "VOCDataModule", "efficientnet_lite0"),
}
PUBLIC = {
    thing: name
    for room in ROOMS
    for name in room.__all__
    if callable(thing := getattr(room, name)) and name not in WITHOUT
}


@pytest.mark.parametrize("thing", [pytest.param(thing, id=name) for thing, name in PUBLIC.items()])
def test_example_in_docstring_does_what_it_says(thing):
    found = doctest.DocTestParser().get_doctest(thing.__doc__, {"__name__": "__main__"}, thing.__name__, None, None)
    assert any(example.want for example in found.examples), "no example that shows a result"
    said = []
    assert doctest.DocTestRunner(verbose=False).run(found, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("thing", [pytest.param(thing, id=name) for thing, name in PUBLIC.items()])
def test_descriptions_of_arguments_say_what_they_are(thing):
    """Such as "seed: Seed of the noise.", where "seed: Of the noise." would leave a reader to guess."""
    texts = [thing.__doc__, *(getattr(part, "__doc__", None) or "" for part in vars(thing).values())]
    assert not [line for text in texts for line in text.splitlines() if re.match(r"\s+[\w, ]+: Of ", line)]
