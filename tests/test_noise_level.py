"""NoiseGrad's rule for the noise level: closed forms, a slow transcription, and the `calibrate` command."""

import copy
import csv
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
import yaml
from scipy.stats import norm
from torch import nn

from lightning_xai import outputs
from lightning_xai.cli import main
from lightning_xai.data import DigitsDataModule
from lightning_xai.experiments.noise_level import CONFIDENCE, find_noise_level, right_under_noise
from lightning_xai.explainers.smoothing import PerturbWeights
from lightning_xai.functional.random import fold_in_int, root_keys, standard_normal
from lightning_xai.networks import MLP
from lightning_xai.reporting.noise_level import method_settings, noise_level_figure, write_noise_level
from lightning_xai.results.noise_level import NoiseLevel, NoisePoint
from lightning_xai.results.store import read_evaluation

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between Lightning and jsonargparse


def independent(num_samples, weights):
    """A model whose errors under noise are independent: each sample has two weights of its own, and the class of the
    greater one. Under noise s, it errs with probability Φ(-(w1 - w0) / (s |w|))."""
    model = nn.Linear(num_samples, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weights)[:, None].expand(2, num_samples))
    return model, torch.eye(num_samples), torch.ones(num_samples, dtype=torch.int64)


def network(seed=0, num_samples=40):
    """An untrained network, told that it is right about most samples."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    images = torch.randn(num_samples, 2, 2, 2)
    labels = model.eval()(images).argmax(1)
    labels[::10] = (labels[::10] + 1) % 3
    return model, images, labels


# The level


@pytest.mark.parametrize(
    ("weights", "options"),
    [
        ((-1.0, 1.0), {}),
        ((-1.0, 1.0), {"drop": 0.2, "chance": 0.25}),
        ((4.0, 5.0), {"tolerance": 0.001}),
        ((100.0, 101.0), {"tolerance": 0.0001}),
    ],
)
def test_the_level_and_its_interval_are_those_of_the_closed_form(weights, options):
    drop, chance = options.get("drop", 0.05), options.get("chance", 0.5)
    scale = (weights[1] - weights[0]) / math.hypot(*weights)
    wrong = drop * (1 - chance)
    truth = -scale / norm.ppf(wrong)
    level = find_noise_level(*independent(800, weights), **options)
    assert level.reached
    deviation = math.sqrt(wrong * (1 - wrong) / 8000) / (norm.pdf(scale / truth) * scale / truth**2)
    assert abs(level.std - truth) < 3 * deviation + options.get("tolerance", 0.01) ** 2 / truth
    assert level.low < truth < level.high
    # independent errors: the bootstrap's interval is sqrt(3) times as wide as need be
    width = 2 * norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(3) * deviation
    assert level.high - level.low == pytest.approx(width, rel=0.25)
    assert (level.clean_accuracy, level.chance, level.drop) == (1, chance, drop)


def test_accuracies_are_those_of_noisy_copies_with_the_noise_of_noise_grad():
    model, images, labels = network()
    level = find_noise_level(model, images, labels, num_draws=3, seed=5, drop=0.2)
    assert len(level.points) > 4
    for point in level.points:
        for draw, accuracy in enumerate(point.accuracies):
            noisy = copy.deepcopy(model).eval()
            parameters = list(noisy.parameters())
            key = root_keys(fold_in_int(5, draw), torch.tensor([0]))
            noise = standard_normal(key, (sum(map(torch.numel, parameters)),))[0]
            for parameter, own in zip(parameters, noise.split([*map(torch.numel, parameters)]), strict=True):
                parameter.data *= 1 + point.std * own.view_as(parameter)
            assert accuracy == (noisy(images).argmax(1) == labels).double().mean().item()
        lost = level.clean_accuracy - np.mean(point.accuracies)
        assert point.drop == pytest.approx(lost / (level.clean_accuracy - 1 / 3))


def test_the_draws_are_the_same_normals_at_every_level():
    """A linear model has a threshold for each draw and sample, and errs beyond it: no noisy model gets better."""
    level = find_noise_level(*independent(50, (4.0, 5.0)))
    for draw in np.array([point.accuracies for point in level.points]).T:
        assert (np.diff(draw) <= 0).all()
    weights = {std: PerturbWeights(std=std).noisy_weights(network()[0], seed=3) for std in (0.0, 0.25, 0.5)}
    for name, clean in weights[0.0].items():
        torch.testing.assert_close(weights[0.5][name] - clean, 2 * (weights[0.25][name] - clean))


def test_the_level_is_interpolated_in_a_narrow_bracket_and_each_end_lies_near_a_point():
    model, images, labels = network()
    level = find_noise_level(model, images, labels, tolerance=0.02, drop=0.1)
    stds, drops = ([getattr(point, name) for point in level.points] for name in ("std", "drop"))
    at = stds.index(level.std)
    assert level.measured == level.points[at]
    assert drops[at - 1] < 0.1 <= drops[at + 1]
    assert all(drop < 0.1 for drop in drops[:at])
    assert stds[at + 1] - stds[at - 1] <= 0.02
    between = (0.1 - drops[at - 1]) / (drops[at + 1] - drops[at - 1])
    assert level.std == pytest.approx(stds[at - 1] + between * (stds[at + 1] - stds[at - 1]), rel=1e-3)
    assert level.low < level.std < level.high
    for end in (level.low, level.high):
        assert min(abs(end - std) for std in stds) <= 0.02


def test_where_all_samples_agree_the_standard_error_is_that_of_the_draws():
    model, images, labels = independent(1, (0.0, 1.0))
    model.bias = nn.Parameter(torch.tensor([0.5, 0.0]))
    level = find_noise_level(model, images.expand(7, 1), labels.expand(7), num_draws=40)
    for point in level.points:
        expected = np.std(point.accuracies) / math.sqrt(40) / 0.5
        assert point.standard_error == pytest.approx(expected, rel=0.1)
    assert level.points[-1].standard_error > 0


def test_the_result_does_not_depend_on_the_batch_size_nor_on_a_wrapper():
    model, images, labels = network()
    level = find_noise_level(model, images, labels, drop=0.1)
    assert find_noise_level(model, images, labels, drop=0.1, max_rows=3) == level
    assert find_noise_level(nn.Sequential(model), images, labels, drop=0.1) == level
    assert find_noise_level(model, images, labels, drop=0.1, seed=1) != level


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_everything_is_left_as_it_was(context):
    model, images, labels = network()
    model.train()[1].eval()
    before, inputs = copy.deepcopy(model.state_dict()), images.clone()
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    with context():
        find_noise_level(model, images, labels)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    torch.testing.assert_close(images, inputs, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_drop_that_is_not_reached_is_a_result(tmp_path):
    level = find_noise_level(*independent(50, (-1.0, 1.0)), maximum=0.3)
    assert not level.reached
    assert level.measured is None
    assert (level.std, level.low, level.high) == (math.inf,) * 3
    assert [point.std for point in level.points] == [0.05, 0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match=r"`level` was not reached up to a noise of 0.3"):
        method_settings(level)
    (tmp_path / "level.yaml").write_text("of an earlier run")
    assert write_noise_level(level, tmp_path / "level.yaml") == [tmp_path / "level.csv"]
    assert not (tmp_path / "level.yaml").exists()
    assert "drop of 5.0%: above 0.3, the most tried; 95% interval above 0.3" in texts(noise_level_figure(level))


def test_an_interval_may_reach_beyond_the_most_noise_tried():
    whole = find_noise_level(*independent(100, (-1.0, 1.0)))
    level = find_noise_level(*independent(100, (-1.0, 1.0)), maximum=whole.std + 0.02)
    assert level.reached
    assert level.high == math.inf
    assert level.low == pytest.approx(whole.low, abs=0.02)
    assert max(point.std for point in level.points) == whole.std + 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": 0.0}, "`drop` must be between 0 and 1, got 0.0"),
        ({"drop": 1.0}, "`drop` must be between 0 and 1, got 1.0"),
        ({"num_draws": 1}, "`num_draws` must be at least 2, got 1"),
        ({"tolerance": 0.0}, "`tolerance` must be at least 1e-06, .* got 0.0"),
        ({"maximum": math.inf}, "`maximum` must be positive and finite, got inf"),
        ({"chance": 1.0}, "`chance` must be at least 0 and below 1, got 1.0"),
        ({"chance": 0.9}, "`model` must be better than chance, 0.9, but its accuracy on 40 samples is 0.9"),
        ({"labels": None}, "`labels` must be the true classes of the images"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"`labels` must be one class index for each of the 40 images"),
        (
            {"labels": torch.full((40,), 3)},
            r"`labels` must be in 0 .. 2, the outputs of `model`, got values from 3 to 3",
        ),
    ],
)
def test_bad_input_is_named(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in a user's session
    model, images, labels = network()
    with pytest.raises(ValueError, match=message):
        find_noise_level(model, images, **{"labels": labels, **options})


def test_a_single_logit_is_that_of_its_two_classes():
    """Right where the sign of the noisy logit is the label's."""
    torch.manual_seed(0)
    model, images = nn.Linear(8, 1, bias=False), torch.randn(40, 8)
    labels = (model(images)[:, 0] > 0).long()
    level = find_noise_level(model, images, labels, maximum=0.2, drop=0.9)
    assert (level.clean_accuracy, level.chance) == (1.0, 0.5)
    for output in ("logit", "probability", "margin"):
        right = right_under_noise(model, images, labels, 0.5, num_draws=3, output=output)
        for draw, found in enumerate(right):
            noise = standard_normal(root_keys(fold_in_int(0, draw), torch.tensor([0])), (8,))[0]
            logits = images @ (model.weight[0] * (1 + 0.5 * noise))
            assert found.tolist() == ((logits > 0) == labels.bool()).tolist()
    with pytest.raises(ValueError, match=r"`labels` must be in 0 \.\. 1"):
        find_noise_level(model, images, labels + 1)


@pytest.mark.parametrize("output", [outputs.At(0), outputs.Logit(multi_label=True)])
def test_what_has_no_two_classes_has_no_accuracy(output):
    model, images, labels = nn.Linear(8, 1), torch.randn(10, 8), torch.zeros(10, dtype=torch.int64)
    for use in (find_noise_level, partial(right_under_noise, std=0.1)):
        with pytest.raises(ValueError, match=r"`output` .* must have two classes or more"):
            use(model, images, labels, output=output)


# Figure and files


def texts(figure):
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


POINTS = tuple(NoisePoint(std, drop, 0.01, (1 - drop,) * 2) for std, drop in ((0.1, 0.01), (0.2, 0.05), (0.4, 0.25)))
LEVEL = NoiseLevel(0.2, 0.15, 0.3, 0.05, 1.0, 0.0, POINTS, 9, 2, 0.01, 2.0, 0.95, 0)


def test_the_figure_shows_the_curve_its_band_the_drop_and_the_level_with_its_interval():
    figure = noise_level_figure(LEVEL)
    (axes,) = figure.axes
    curve, asked, level = axes.lines
    assert curve.get_xydata().tolist() == [[0, 0], [0.1, 0.01], [0.2, 0.05], [0.4, 0.25]]
    assert set(asked.get_ydata()) == {0.05}
    assert set(level.get_xdata()) == {0.2}
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in band.round(9)} >= {(0.2, 0.04), (0.2, 0.06), (0.4, 0.24), (0.4, 0.26)}
    (interval,) = axes.patches
    assert (interval.get_x(), interval.get_width()) == (0.15, pytest.approx(0.15))
    assert "drop of 5.0%: 0.2; 95% interval 0.15 to 0.3" in texts(figure)
    assert "accuracy 1.0000 without noise, 0.9500 at 0.2: a drop of 5.0% ± 1.0%" in texts(figure)


def test_an_interval_without_upper_end_is_drawn_to_the_edge():
    (axes,) = noise_level_figure(replace(LEVEL, high=math.inf)).axes
    (interval,) = axes.patches
    assert interval.get_x() + interval.get_width() == pytest.approx(axes.get_xlim()[1])


# The command


@pytest.fixture(autouse=True)
def _called_without_arguments(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lightning-xai"])
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A configuration of a small network, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp("trained")
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    config["model"]["init_args"]["network"] = {
        "class_path": "lightning_xai.networks.MLP",
        "init_args": {"hidden": [32]},
    }
    trainer = config["trainer"]
    trainer |= {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer["logger"]["init_args"] |= {"save_dir": str(folder), "name": "run"}
    trainer["callbacks"][1]["init_args"]["num_samples"] = 2
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning-xai"])
        main(["fit", f"--config={path}", "--trainer.callbacks.methods={g: {class_path: lightning_xai.Gradient}}"])
    return path, folder / "run" / "version_0" / "checkpoints" / "best.ckpt"


def arguments(trained, command, *options):
    config, checkpoint = trained
    return [command, f"--config={config}", f"--ckpt_path={checkpoint}", *options]


def methods_of_the_last_run(trained):
    """What the configuration of the last test says, and which methods it has scored."""
    folder = trained[1].parents[1]
    callback = yaml.safe_load((folder / "test" / "config.yaml").read_text())["trainer"]["callbacks"][1]
    latest = max((folder / "xai" / "scores").glob("*.parquet"), key=lambda part: part.stat().st_mtime_ns)
    return callback["init_args"]["methods"], set(read_evaluation(latest).unique("method"))


def test_calibrate_writes_settings_that_a_test_run_takes(trained, tmp_path, capsys):
    main(arguments(trained, "calibrate", "--num_samples=100", f"--output={tmp_path}/sub/level.yaml"))
    printed = capsys.readouterr().out
    settings = yaml.safe_load((tmp_path / "sub" / "level.yaml").read_text())
    std = settings["noise_grad"]["init_args"]["std"]
    assert f"drop of 5.0%: {std}; 95% interval" in printed
    assert {path.suffix for path in (tmp_path / "sub").iterdir()} == {".yaml", ".csv", ".png"}
    with (tmp_path / "sub" / "level.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if float(row["std"]) == std)
    assert float(row["drop"]) == pytest.approx(0.05, abs=0.02)

    main(arguments(trained, "test", "--trainer.callbacks.methods", "sub/level.yaml"))
    found, scored = methods_of_the_last_run(trained)
    assert scored == {"saliency", "noise_grad", "fusion_grad", "edges", "random"}
    assert found["noise_grad"]["init_args"]["std"] == std
    fusion = found["fusion_grad"]["init_args"]
    assert fusion["std"] == pytest.approx(std / 2, abs=1e-5)
    assert fusion["explainer"]["init_args"]["scale"]["init_args"]["fraction"] == 0.1


def test_a_configuration_can_name_the_file_and_one_level_alone_can_be_changed(trained, tmp_path):
    config, checkpoint = trained
    (tmp_path / "level.yaml").write_text(yaml.safe_dump(method_settings(replace(LEVEL, std=0.125))))
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"][1]["init_args"]["methods"] = "level.yaml"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    std = "--trainer.callbacks.methods.noise_grad.init_args.std=0.25"
    main(arguments((tmp_path / "mine.yaml", checkpoint), "test"))
    found, scored = methods_of_the_last_run(trained)
    assert scored == {"saliency", "noise_grad", "fusion_grad", "edges", "random"}
    assert found["noise_grad"]["init_args"]["std"] == 0.125
    main(arguments(trained, "test", std))
    found, scored = methods_of_the_last_run(trained)
    assert scored >= {"gradient", "smooth_grad", "noise_grad", "fusion_grad"}
    assert found["noise_grad"]["init_args"] | {"explainer": None} == {"explainer": None, "std": 0.25, "num_draws": 10}


def test_calibrate_measures_the_trained_network_on_validation_samples_and_writes_to_its_run(trained, capsys):
    main(arguments(trained, "calibrate", "--num_samples=10000", "--drop=0.9", "--maximum=0.01"))
    data, model = DigitsDataModule(), MLP(hidden=(32,))
    data.setup("validate")
    weights = torch.load(trained[1], weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    right = [model(batch["image"]).argmax(1) == batch["label"] for batch in data.val_dataloader()]
    accuracy = torch.cat(right).double().mean().item()
    printed = capsys.readouterr().out
    assert "drop of 90.0%: above 0.01, the most tried" in printed
    assert f"accuracy {accuracy:.4f} without noise" in printed
    assert "240 samples, 10 draws" in printed
    run = trained[1].parents[1]
    assert {path.name for path in run.glob("noise_level.*")} == {"noise_level.csv", "noise_level.png"}


def test_one_of_several_processes_works(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    main(arguments(trained, "calibrate", "--num_samples=5", f"--output={tmp_path}/level.yaml"))
    assert "weight noise" not in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ckpt_path=null", "--output=x.yaml"], "`ckpt_path` must name a checkpoint"),
        (["--num_samples=0"], "`num_samples` must be at least 1, got 0"),
        (["--drop=2"], "`drop` must be between 0 and 1"),
    ],
)
def test_the_command_names_bad_input(trained, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main(arguments(trained, "calibrate", *options))
    assert not list(tmp_path.iterdir())
