"""Fixtures shared by all tests; shape annotations of the package are checked while the tests run."""

from jaxtyping import install_import_hook

install_import_hook("lightning_xai", "beartype.beartype")
