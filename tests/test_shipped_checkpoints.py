"""The trained networks that come with the project: whole, of the networks they claim, and refused when damaged."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_xai.cli import main
from lightning_xai.cli.checks import checkpoint_run
from lightning_xai.experiments.papers import Lab
from lightning_xai.modules.checkpoints import check_weights_fit, read_checkpoint
from lightning_xai.modules.manifest import (
    MANIFEST,
    ShippedCheckpoint,
    digest,
    manifest_text,
    read_manifest,
    shipped_weights,
)
from lightning_xai.studies.networks import untrained

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "checkpoints"
ENTRIES = read_manifest(FOLDER)
REAL = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


def digits_lab(tmp_path, **options):
    """A laboratory with the package's own data, whose configuration is that of quickstart."""
    return Lab(configs=str(ROOT / "configs"), cache=str(tmp_path / "cache"), progress=False, device="cpu", **options)


def test_every_file_is_in_the_manifest_and_together_they_are_small():
    files = {path.name for path in FOLDER.iterdir()} - {MANIFEST, "README.md"}
    assert files == ENTRIES.keys()
    assert sum((FOLDER / name).stat().st_size for name in files) < 25e6


@pytest.mark.parametrize("name", ENTRIES)
def test_a_file_is_what_the_manifest_says_and_fits_its_configuration(name, tmp_path):
    entry, path = ENTRIES[name], FOLDER / name
    assert digest(path) == entry.sha256
    config = yaml.safe_load((ROOT / entry.config).read_text(encoding="utf-8"))
    config["data"] = {"class_path": "lightning_xai.data.DigitsDataModule"}  # which is always there
    config["trainer"] = {"accelerator": "cpu"}
    model, _ = untrained(config)
    check_weights_fit(read_checkpoint(path), model, path)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert 0.5 < entry.accuracy <= 1


def test_the_laboratory_takes_it_before_it_trains_one(tmp_path, monkeypatch):
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8"))
    model, _ = untrained(config)
    (tmp_path / "shipped").mkdir()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "shipped" / "net.ckpt")
    entry = ShippedCheckpoint(digest(tmp_path / "shipped" / "net.ckpt"), "configs/quickstart.yaml", 0.9, "", "")
    (tmp_path / "shipped" / MANIFEST).write_text(manifest_text({"net.ckpt": entry}), encoding="utf-8")
    assert shipped_weights(tmp_path / "shipped", "quickstart", {"trainer.max_epochs": 1}, False) is None
    assert shipped_weights(tmp_path / "shipped", "quickstart", {}, True) is None
    weights, found = shipped_weights(tmp_path / "shipped", "quickstart", {}, False)
    assert found == entry
    torch.testing.assert_close(weights, model.state_dict(), rtol=0, atol=0)


def test_what_is_found_out_about_it_goes_to_runs_and_not_into_the_repository(tmp_path):
    assert checkpoint_run(str(FOLDER / "mnist_mlp.ckpt")) == Path("runs", "mnist_mlp")
    assert checkpoint_run(str(tmp_path / "version_0" / "checkpoints" / "best.ckpt")) == tmp_path / "version_0"


def test_a_damaged_file_is_refused_with_both_digests(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)
    shutil.copy(FOLDER / MANIFEST, tmp_path)
    content = bytearray((FOLDER / "mnist_mlp.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "mnist_mlp.ckpt").write_bytes(content)
    expected = ENTRIES["mnist_mlp.ckpt"].sha256
    with pytest.raises(ValueError, match=rf"`ckpt_path`: .*mnist_mlp.ckpt is damaged .* expects sha256 {expected}"):
        main(["test", f"--config={ROOT / 'configs' / 'mnist_mlp.yaml'}", "--ckpt_path=mnist_mlp.ckpt"])
    with pytest.raises(ValueError, match="is damaged or was replaced"):
        shipped_weights(tmp_path, "mnist_mlp", {}, False)
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, "mnist_mlp.ckpt"}


def test_a_manifest_that_is_none_is_an_error(tmp_path):
    (tmp_path / MANIFEST).write_text("net.ckpt: {sha: 1}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest.yaml is not a manifest of checkpoints .*Restore it"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path / "elsewhere") == {}


@pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason="MNIST is not beside this copy of the repository")
def test_its_accuracy_is_that_of_the_manifest(tmp_path):
    lab = digits_lab(tmp_path, root=str(REAL), checkpoints=str(FOLDER))
    network = lab.network("mnist_lenet")
    assert not (tmp_path / "cache").exists(), "nothing is trained"
    network.data.setup("test")
    with torch.no_grad():
        batches = [(network.model(b["image"]).argmax(1) == b["label"]) for b in network.data.test_dataloader()]
    assert torch.cat(batches).float().mean().item() == pytest.approx(network.accuracy, abs=2e-4)
