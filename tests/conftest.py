"""Set-up of all tests: shape annotations are checked while they run, and tensors are too small for two threads."""

import gc
import inspect
import random
import re
import sys
from functools import wraps
from importlib.machinery import PathFinder
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

_draw = random.getrandbits
random.getrandbits = random.Random(0).getrandbits  # beartype's own, so that its checks leave Python's state alone
import beartype.door  # noqa: E402, F401

random.getrandbits = _draw
gc.disable()  # until all is imported: nothing of it goes again
_with_shapes = jaxtyping.jaxtyped


def _checked(*, typechecker):
    """jaxtyping's decorator, where an annotation has a shape; others are checked in a fraction of the time without."""

    def decorate(function):
        hints = getattr(function, "__annotations__", {}).values() if inspect.isfunction(function) else ["a class"]
        if any(isinstance(hint, str) or re.search(r"jaxtyping\.|ForwardRef\(", repr(hint)) for hint in hints):
            return _with_shapes(function, typechecker=typechecker)
        checked = typechecker(function)

        @wraps(function)
        def either(*arguments, **options):
            return (function if jaxtyping.config.jaxtyping_disable else checked)(*arguments, **options)

        return either

    return decorate


jaxtyping.jaxtyped = _checked
jaxtyping.install_import_hook("lightning_xai", "beartype.beartype")


def pytest_collection_finish():
    """What is imported by now is never searched for garbage again, which would take a tenth of the time."""
    gc.freeze()
    gc.enable()


class _Unchecked:
    """Modules that the hook passes by."""

    @staticmethod
    def find_spec(name, path, target=None):
        # Without a single shape, and thousands of calls of tiny functions in each test, whose checks take longer.
        return PathFinder.find_spec(name, path, target) if name == "lightning_xai.explainers.state" else None


sys.meta_path.insert(0, _Unchecked)
torch.set_num_threads(1)
for _absent in (torch.cuda, torch.mtia, torch.xpu):  # each would keep the whole stack of each `torch.manual_seed`
    if not _absent.is_available():
        _absent.manual_seed_all = lambda seed: None

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
