"""Set-up of all tests: shape annotations are checked while they run, and tensors are too small for two threads."""

import random
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

_draw = random.getrandbits
random.getrandbits = random.Random(0).getrandbits  # beartype's own, so that its checks leave Python's state alone
import beartype.door  # noqa: E402, F401

random.getrandbits = _draw
install_import_hook("lightning_xai", "beartype.beartype")


class _Unchecked:
    """Modules that the hook passes by."""

    @staticmethod
    def find_spec(name, path, target=None):
        # Without a single shape, and thousands of calls of tiny functions in each test, whose checks take longer.
        return PathFinder.find_spec(name, path, target) if name == "lightning_xai.explainers.state" else None


sys.meta_path.insert(0, _Unchecked)
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _seeded():
    """What a test draws without a seed of its own does not depend on the tests before it, nor on the day."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A laboratory of experiments with embedded data, which trains a network once for all files of tests."""
    from lightning_xai.experiments.papers import Lab  # behind the hook

    cache = str(tmp_path_factory.mktemp("networks"))
    return Lab(configs=str(ROOT / "configs"), cache=cache, embedded=True, device="cpu", progress=False)
