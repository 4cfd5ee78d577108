"""Every public name has an example in its docstring, which does what it says and needs nothing but what it imports."""

import doctest
import re
from importlib.util import find_spec

import pytest

import lightning_xai as lx
from lightning_xai import (
    callbacks,
    data,
    explainers,
    metrics,
    modules,
    names,
    networks,
    outputs,
    results,
    sanity,
    shortcuts,
)
from lightning_xai.data import cues
from lightning_xai.data.preprocessing import Preprocessing, changed
from lightning_xai.data.scenes import SceneDataModule
from lightning_xai.experiments.compare import compare_methods
from lightning_xai.experiments.noise_level import find_noise_level
from lightning_xai.explainers.smoothing import Averaging
from lightning_xai.metrics import quantus
from lightning_xai.results import shortcuts as records
from lightning_xai.results.store import read_samples
from lightning_xai.sanity import similarity
from lightning_xai.studies import engine, lab, metrics as metrics_of_studies, study
from lightning_xai.visualization import Jitter, visualize

ROOMS = (lx, callbacks, data, explainers, metrics, modules, networks, outputs, results, sanity, shortcuts)
UNLISTED = (cues, quantus, engine, lab, metrics_of_studies, study)  # rooms without a list of what is public
WITHOUT = {
    "NetworkResult": "what `run_study` makes, in whose example it is",
}
if find_spec("efficientnet_lite_pytorch") is None:
    WITHOUT["efficientnet_lite0"] = "needs a package that is not there"


def classes(room):
    own = {name: value for name, value in vars(room).items() if not name.startswith("_") and isinstance(value, type)}
    return [name for name, value in own.items() if value.__module__ == room.__name__]


PUBLIC = {
    thing: name
    for room in (*ROOMS, *UNLISTED)
    for name in (room.__all__ if room in ROOMS else classes(room))
    if callable(thing := getattr(room, name)) and name not in WITHOUT
} | {
    thing: thing.__name__
    for thing in (
        *(engine.run_study, study.study_of, names.known, names.named, names.named_method, compare_methods),
        *(find_noise_level, visualize, Jitter, read_samples, Preprocessing, changed, SceneDataModule, Averaging),
        *(getattr(similarity, name) for name in ("compare", "ssim", "hog", "pearson", "cosine")),
        *(similarity.spearman, similarity.spearman_absolute, similarity.spearman_foreground),
        *(records.accepted, records.onset, records.read_shortcuts, records.write_shortcuts),
    )
}


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)
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
