"""Imports point down only, and the layers below the data modules work without PyTorch Lightning."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_xai

PACKAGE = Path(lightning_xai.__file__).parent
LAYERS = {
    "shapes": 0,
    "_version": 0,
    "checks": 0,
    "carried": 0,
    "functional": 0,
    "names": 1,
    "progress": 1,
    "outputs": 1,
    "forward": 1,
    "explainers": 1,
    "metrics": 1,
    "networks": 1,
    "statistics": 1,
    "results": 1,
    "fingerprints": 1,
    "evaluation": 2,
    "price": 2,
    "visualization": 2,
    "__init__": 2,
    "sanity": 3,
    "shortcuts": 3,
    "reporting": 3,
    "data": 4,
    "modules": 4,
    "callbacks": 4,
    "experiments": 5,
    "studies": 5,
    "cli": 6,
    "__main__": 6,
}
MAY_SEE_LIGHTNING = 4
FORBIDDEN = {
    "statistics": ("torch", "lightning_xai.results"),
    "results": ("torch", "matplotlib", "PIL", "lightning_xai.explainers", "lightning_xai.metrics"),
    "sanity": ("lightning_xai.reporting", "matplotlib"),
    "shortcuts": ("lightning_xai.reporting", "lightning_xai.sanity", "matplotlib"),
    "reporting": ("lightning_xai.sanity", "lightning_xai.evaluation", "lightning_xai.networks"),
}
"""Rooms of the same height, or of others, that know nothing of each other: results of models and pictures, ..."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """The names of all modules that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_file_has_a_layer():
    assert {part(path) for path in MODULES} <= LAYERS.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    layer = LAYERS[part(path)]
    for name in imported(path):
        root, _, rest = name.partition(".")
        if root == "lightning_xai" and rest:
            other = rest.split(".")[0]
            # the package itself hands on names of `evaluation` and `explainers`
            assert LAYERS.get(other, LAYERS["__init__"]) <= layer, f"{path.name} imports {name}, from a layer above"
        if root in ("pytorch_lightning", "lightning"):
            assert layer >= MAY_SEE_LIGHTNING, f"{path.name} imports {name}"
            assert root == "pytorch_lightning", f"{path.name} mixes two Lightnings"
        if layer == 0:
            allowed = {*sys.stdlib_module_names, "torch", "numpy", "jaxtyping", "lightning_xai"}
            assert root in allowed, f"{path.name} imports {name}; functional is PyTorch and NumPy only"


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_know_nothing_of_what_is_not_theirs(room):
    found = [(path.name, name) for path in MODULES if part(path) == room for name in imported(path)]
    assert found
    assert [pair for pair in found if f"{pair[1]}.".startswith(tuple(f"{name}." for name in FORBIDDEN[room]))] == []


def test_lower_layers_work_without_lightning():
    """Nothing of ours, nor of what we import (torchmetrics, Captum), loads PyTorch Lightning."""
    lower = sorted(
        ".".join(("lightning_xai", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in MODULES
        if LAYERS[part(path)] < MAY_SEE_LIGHTNING
    )
    assert "lightning_xai" in lower
    assert "lightning_xai.explainers.smoothing" in lower
    lines = "\n".join(f"import {name}" for name in lower)
    code = f"import sys\n{lines}\nprint(*sys.modules)\nimport pytorch_lightning\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
    ours, then = ({name.partition(".")[0] for name in line.split()} for line in done.stdout.splitlines())
    assert "lightning_xai" in ours
    assert not ours & {"pytorch_lightning", "lightning", "lightning_fabric"}
    assert "pytorch_lightning" in then, "it would be noticed"
