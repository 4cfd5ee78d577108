"""Set-up of all tests: shape annotations are checked while they run, and tensors are too small for two threads."""

import torch
from jaxtyping import install_import_hook

install_import_hook("lightning_xai", "beartype.beartype")
torch.set_num_threads(1)
