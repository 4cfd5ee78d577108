"""`lightning-xai visualize`, and the numbers that it and NoiseGrad's figure 5 give with the images."""

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning import LightningDataModule, Trainer
from torch import nn
from torch.testing import assert_close

from lightning_xai.cli import main
from lightning_xai.data import DigitsDataModule, PhotographsDataModule
from lightning_xai.experiments.papers import Lab, noisegrad_figure5
from lightning_xai.experiments.trained import visualize_trained
from lightning_xai.experiments.visualize import (
    CLEAN,
    FIXED,
    FRESH,
    LONG,
    PLAIN,
    REDRAWN,
    Setting,
    agreement,
    colorfulness,
    high_frequencies,
    named_channels,
    portraits,
    total_variation,
    visualization_figures,
    visualization_result,
)
from lightning_xai.explainers import PerturbWeights
from lightning_xai.functional.random import fold_in_int
from lightning_xai.modules import ClassifierModule, PretrainedClassifier
from lightning_xai.networks import LeNet
from lightning_xai.visualization import Activation, answers, visualize
from tests.drawn import check_texts, texts

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


def call(*options):
    config, weights = ROOT / "configs" / "mnist_lenet.yaml", ROOT / "checkpoints" / "mnist_lenet.ckpt"
    quiet = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--num_fresh=2")
    main(["visualize", f"--config={config}", f"--ckpt_path={weights}", *quiet, *options])


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The command


def test_classes_become_pictures_a_trace_scores_settings_and_times_without_any_data(tmp_path, capsys):
    call("--target=[7, 3]", "--steps=8", "--num_models=3")
    folder, printed = tmp_path / "runs" / "mnist_lenet" / "visualize", capsys.readouterr().out
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {f"{method}/{target}.png" for method in ("plain", "noisegrad-fixed") for target in (3, 7)} < files
    assert {"images.png", "images-trace.png", "report.md", "settings.yaml", "trace.csv", "scores.csv"} < files
    assert all(str(Path("runs", "mnist_lenet", "visualize", name)) in printed for name in files)
    assert "3 networks take" in printed
    assert "times as long as one" in printed
    assert "times plain" in printed
    assert not (tmp_path / "data").exists()

    with Image.open(folder / "plain" / "7.png") as picture:
        assert (picture.size, picture.mode) == ((28, 28), "L")
        images = np.load(folder / "arrays.npz")[f"images {PLAIN}"]
        assert np.abs(np.asarray(picture) / 255 - images[0, 0, 0]).max() <= 0.5 / 255 + 1e-6
    trace = rows(folder / "trace.csv")
    assert {(r["method"], r["image"], r["step"]) for r in trace} == {
        (method, image, str(step)) for method in (PLAIN, FIXED) for image in "37" for step in range(1, 9)
    }
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    assert settings["channels"] == [7, 3]
    assert (settings["weight_noise"], settings["num_models"], settings["steps"], settings["seed"]) == (0.2, 3, 8, 0)
    assert settings["seconds"].keys() == {PLAIN, FIXED}


def test_the_pictures_are_those_of_the_checkpoint(tmp_path):
    call("--target=3", "--steps=6", "--weight_noise=0", "--seed=4", "--output=out")
    saved = torch.load(ROOT / "checkpoints" / "mnist_lenet.ckpt", weights_only=True)["state_dict"]
    network = LeNet()
    network.load_state_dict({name.removeprefix("network."): value for name, value in saved.items()})
    bounds = (-0.1307 / 0.3081, (1 - 0.1307) / 0.3081)
    made = visualize(network, Activation((3,)), (1, 28, 28), bounds, steps=6, seed=4)
    found = np.load(tmp_path / "out" / "arrays.npz")
    assert found.files == [f"images {PLAIN}"]
    assert_close(torch.from_numpy(found[f"images {PLAIN}"])[0], made.images)
    by_metric = {row["metric"]: float(row["value"]) for row in rows(tmp_path / "out" / "scores.csv")}
    assert FRESH not in by_metric
    assert by_metric[CLEAN] == pytest.approx(answers(network, Activation((3,)), made.images, bounds).item(), rel=1e-4)


def test_a_unit_of_a_layer_and_views_without_jitter(tmp_path, capsys):
    still = ("--jitter.degrees=0", "--jitter.scales=[1, 1]", "--jitter.shift=0")
    call("--layer=conv2", "--channel=5", "--unit=true", "--redraw=true", "--steps=3", "--output=out", *still)
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"plain", "noisegrad-redrawn"}
    assert "activation of conv2" in capsys.readouterr().out
    settings = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text())
    assert (settings["degrees"], settings["scales"], settings["shift"], settings["center"]) == (0, [1, 1], 0, True)


def test_one_of_several_processes_works(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    call("--target=3", "--output=out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give either `target`, the class or classes to visualize, or `layer` and `channel`"),
        (("--target=1", "--layer=conv2"), "Give either `target`"),
        (("--layer=conv2",), "Give either `target`"),
        (("--target=10",), r"`channels` must be in 0 .. 9, those of the logits; got 10"),
        (("--layer=conv9", "--channel=1"), "`layer`: 'conv9' is no layer of `model`; it has network.features.conv1"),
        (("--layer=conv1", "--channel=6"), r"`channels` must be in 0 .. 5, those of conv1; got 6"),
        (("--layer=linear1", "--channel=6", "--unit=true"), "the output of linear1 must be a tensor"),
        (("--target=1", "--weight_noise=-1"), "`std` must be at least 0 and finite, got -1"),
        (("--target=1", "--num_models=0"), "`num_models` must be at least 1, got 0"),
        (("--target=1", "--steps=0"), "`steps` must be at least 1, got 0"),
        (("--target=1", "--num_starts=0"), "`num_starts` must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call("--output=out", *options)
    assert not (tmp_path / "out").exists()


def quiet_trainer():
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_data_without_bounds_are_refused():
    with pytest.raises(ValueError, match=r"`data`: LightningDataModule must have `image_shape`.*and `bounds`"):
        visualize_trained(quiet_trainer(), ClassifierModule(LeNet()), LightningDataModule(), target=1)


def test_a_pretrained_network_brings_its_own_shape_bounds_and_names():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    names, mean, std = ["cat", "dog", "cup", "pot"], [0.5, 0.4, 0.3], [0.1, 0.2, 0.3]
    model = PretrainedClassifier(network, class_names=names, image_size=20, resize_size=24, mean=mean, std=std)
    options = {"target": [2, 0], "steps": 2, "num_models": 2, "num_fresh": 1}
    result = visualize_trained(quiet_trainer(), model, PhotographsDataModule(), **options)
    assert result.arrays[f"images {PLAIN}"].shape == (1, 2, 3, 20, 20)
    assert result.details["names"] == ("cup (2)", "cat (0)")
    made = visualize(network, Activation((2, 0)), (3, 20, 20), model.bounds, steps=2)
    assert_close(torch.from_numpy(result.arrays[f"images {PLAIN}"])[0], made.images)


# The numbers


def test_total_variation_counts_neighbors():
    rows_, columns = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    board = ((rows_ + columns) % 2).float().expand(1, 3, 6, 8)
    half = (columns >= 4).float().expand(1, 3, 6, 8)
    even = torch.full((1, 3, 6, 8), 0.3)
    found = total_variation(torch.cat([board, half, even]))
    assert_close(found, torch.tensor([1.0, 6 / (5 * 8 + 6 * 7), 0.0]))  # one pair in each row


def test_high_frequencies_are_the_share_of_the_fast_waves():
    place = torch.arange(16.0)
    slow, fast = (2 * math.pi * place * 2 / 16).cos(), (2 * math.pi * place * 5 / 16).cos()
    image = (0.5 + 0.3 * slow[:, None] + 0.1 * fast[None]).expand(1, 2, 16, 16)
    assert_close(high_frequencies(image), torch.tensor([0.1**2 / (0.1**2 + 0.3**2)]), rtol=1e-4, atol=0)
    assert high_frequencies(torch.full((1, 1, 4, 4), 0.5)).isnan().all()


def test_colorfulness_is_that_of_hasler_and_suesstrunk():
    red_and_green = torch.zeros(3, 4, 6)
    red_and_green[0, :, :3] = red_and_green[1, :, 3:] = 1  # red less green is 1 and -1, yellow less blue 1 / 2
    gray = torch.rand(1, 4, 6).expand(3, 4, 6)
    blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 4, 6)
    expected = torch.tensor([1 + 0.3 * 0.5, 0.0, 0.3])
    assert_close(colorfulness(torch.stack([red_and_green, gray, blue])), expected)


def test_agreement_is_the_mean_correlation_of_pairs():
    image = torch.rand(1, 2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert_close(agreement(torch.cat([image, 0.5 * image + 0.1])), torch.ones(2))
    assert_close(agreement(torch.cat([image, 1 - image, image])), torch.full((2,), -1 / 3))
    assert agreement(image).isnan().all()


def test_names_are_given_where_they_say_more_than_the_number():
    assert named_channels((0, 2), ("cat", "dog", "cup")) == ("cat (0)", "cup (2)")
    assert named_channels((3, 12), tuple("0123456789")) == ("3", "12")
    assert named_channels((5,), None) == ("5",)


def small_setting(**changes):
    torch.manual_seed(0)
    model, data = LeNet(), DigitsDataModule()
    options = {"redraws": (False, True), "num_starts": 2, "steps": 3, "num_fresh": 4, "seed": 5, **changes}
    noise = PerturbWeights(std=0.2, num_draws=3)
    return model, Setting(Activation((1, 6)), ("1", "6"), (1, 28, 28), data.bounds, noise, **options)


def test_all_methods_start_alike_and_are_judged_by_the_same_fresh_networks():
    model, setting = small_setting()
    found = portraits(model, setting)
    assert list(found) == [PLAIN, FIXED, REDRAWN]
    for name, part in found.items():
        for start in range(2):
            noise = None if name == PLAIN else setting.noise
            made = visualize(
                model,
                setting.activation,
                setting.image_shape,
                setting.bounds,
                noise,
                name == REDRAWN,
                3,
                seed=5 + start,
            )
            assert_close(part.images[start], made.images)
            assert_close(part.trace[start], made.trace)
        judges = [setting.noise.noisy_weights(model, fold_in_int(fold_in_int(5, -1), n)) for n in range(4)]
        low, high = setting.bounds
        inputs = low + (high - low) * part.images[1]
        expected = torch.stack([setting.activation(model, inputs, weights) for weights in judges]).mean(0)
        assert_close(part.scores[FRESH][1], expected.detach())


def test_the_result_has_every_value_and_its_sentences_are_made_from_them():
    model, setting = small_setting()
    found = portraits(model, setting)
    result = visualization_result(found, setting, "source", {"networks": {}})
    values = [r for r in result.records["scores"] if r["method"] == FIXED and r["metric"] == FRESH]
    assert [(r["image"], r["start"]) for r in values] == [("1", 0), ("6", 0), ("1", 1), ("6", 1)]
    assert_close(torch.tensor([r["value"] for r in values]), found[FIXED].scores[FRESH].flatten())
    (table,) = result.tables
    ratio = found[FIXED].seconds / found[PLAIN].seconds
    assert [row[-1] for row in table.rows][:2] == ["1.0", f"{ratio:.1f}"]
    assert f"{FIXED}: 3 networks take {ratio:.1f} times as long as one." in result.findings
    mean = np.mean([r["value"] for r in values])
    assert any(line.startswith(f"{FIXED}: {FRESH} {mean:.4g} against") for line in result.findings)
    trace = [r for r in result.records["trace"] if r["method"] == REDRAWN and r["image"] == "6" and r["start"] == 1]
    assert_close(torch.tensor([r["activation"] for r in trace]), found[REDRAWN].trace[1, :, 1])


def test_the_figures_show_the_images_and_the_mean_trace():
    model, setting = small_setting(num_starts=1)
    found = portraits(model, setting)
    figures = visualization_figures(visualization_result(found, setting, "source", {}), "name")
    gallery, trace = figures["name"], figures["name-trace"]
    check_texts(gallery)
    check_texts(trace)
    (axes,) = gallery.axes
    assert len(axes.images) == 6
    assert_close(torch.tensor(np.asarray(axes.images[3].get_array())), found[FIXED].images[0, 1, 0])
    assert f"{found[REDRAWN].scores[FRESH][0, 1]:.3g}" in texts(gallery)
    curves = {line.get_label(): line.get_ydata() for line in trace.axes[0].lines}
    assert_close(torch.tensor(curves[FIXED]).float(), found[FIXED].trace[0].mean(1))


def test_at_equal_cost_one_more_method_is_plain_with_as_many_gradients():
    model, setting = small_setting(equal_cost=True)
    found = portraits(model, setting)
    assert list(found) == [PLAIN, LONG, FIXED, REDRAWN]
    assert found[LONG].trace.shape == (2, 9, 2)  # three networks, three steps
    longer = portraits(model, replace(setting, steps=9, equal_cost=False, redraws=()))[PLAIN]
    assert_close(found[LONG].images, longer.images)
    result = visualization_result(found, setting, "source", {})
    values = {name: float(part.scores[FRESH].mean()) for name, part in found.items()}
    for name in (FIXED, REDRAWN):
        wanted = f"{name}, against {LONG}: {FRESH} {values[name]:.4g} against {values[LONG]:.4g}, higher in "
        assert any(line.startswith(wanted) for line in result.findings)
    assert any(line.startswith(f"{LONG}: 9 steps take ") for line in result.findings)
    lines = visualization_figures(result, "name")["name-trace"].axes[0].lines
    assert [len(line.get_xdata()) for line in lines] == [3, 9, 3, 3]


def test_figure_5_needs_noise():
    with pytest.raises(ValueError, match=r"`noise` must be greater than 0, got 0.0"):
        noisegrad_figure5.run(Lab(), noise=0.0)


def test_figure_5_takes_a_pretrained_network(tmp_path):
    network = {"class_path": "lightning_xai.networks.LeNet", "init_args": {"in_channels": 3, "image_size": 32}}
    names = [f"class{number}" for number in range(10)]
    options = {"network": network, "class_names": names, "image_size": 32, "resize_size": 32}
    config = {
        "seed_everything": 0,
        "trainer": {"max_epochs": 1},
        "model": {"class_path": "lightning_xai.modules.PretrainedClassifier", "init_args": options},
        "data": {"class_path": "lightning_xai.data.PhotographsDataModule"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    lab = Lab(configs=str(tmp_path), device="cpu", progress=False)
    result, figures = noisegrad_figure5.run(lab, "mine", (4, 1), num_models=2, num_starts=1, steps=2, num_fresh=1)
    assert result.arrays[f"images {REDRAWN}"].shape == (1, 2, 3, 32, 32)
    assert result.details["names"] == ("class4 (4)", "class1 (1)")
    assert yaml.safe_load(yaml.safe_dump(dict(result.settings)))["networks"]["mine"]["init_args"]["image_size"] == 32
    assert {"noisegrad-figure5", "noisegrad-figure5-trace"} == figures.keys()
