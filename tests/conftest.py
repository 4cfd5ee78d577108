"""Set-up of all tests: shape annotations are checked while they run, and tensors are too small for two threads."""

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("lightning_xai", "beartype.beartype")
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A laboratory of experiments with embedded data, which trains a network once for all files of tests."""
    from lightning_xai.experiments.papers import Lab  # behind the hook

    cache = str(tmp_path_factory.mktemp("networks"))
    return Lab(configs=str(ROOT / "configs"), cache=cache, embedded=True, device="cpu", progress=False)
