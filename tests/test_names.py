"""Plain names of explainers and metrics, resolved through `__all__`."""

import pytest

import lightning_xai as lx
from lightning_xai import explainers, metrics, outputs
from lightning_xai.cli import main
from lightning_xai.names import known, named, snake_case, specifications, with_class_paths

SMOOTH = {"class_path": "lightning_xai.explainers.smooth_grad"}


def test_every_explainer_and_metric_is_known_and_nothing_else():
    assert set(known("methods").values()) == {
        getattr(explainers, name)
        for name in explainers.__all__
        if name not in ("Context", "Explainer", "save_maps", "with_controls", "with_gradients") and "Scale" not in name
    }
    no_metrics = ("SampleMetric", "Shared", "mean_score", "standard_error")
    assert set(known("metrics").values()) == {getattr(metrics, n) for n in metrics.__all__ if n not in no_metrics}
    assert {"smooth_grad", "input_x_gradient", "captum_explainer"} <= set(known("methods"))
    assert {"sparseness", "localization_auroc", "deletion_auc", "top_k_intersection"} <= set(known("metrics"))


def test_a_list_is_named_after_its_members():
    assert named("methods", ["smooth_grad", "Saliency", lx.InputXGradient()]) == {
        "smooth_grad": lx.smooth_grad(),
        "saliency": lx.Saliency(),
        "input_x_gradient": lx.InputXGradient(),
    }
    found = named("metrics", ["sparseness", "MaxSensitivity"])
    assert {name: type(metric).__name__ for name, metric in found.items()} == {
        "sparseness": "Sparseness",
        "max_sensitivity": "MaxSensitivity",
    }


def test_a_mapping_keeps_its_names_and_objects():
    method = lx.smooth_grad(num_draws=3)
    assert named("methods", {"SG": method, "G": "gradient"}) == {"SG": method, "G": lx.Gradient()}
    assert named("methods", None) is None


def test_parsed_yaml_gets_full_class_paths_at_any_depth():
    given = {
        "SG": "smooth_grad",
        "own": "mine.Method",
        "deep": {"class_path": "PerturbWeights", "init_args": {"std": 0.1, "explainer": {"class_path": "smooth_grad"}}},
        "plain": {"class_path": "lightning_xai.InputXGradient", "init_args": {"gradient": "smooth_grad"}},
    }
    assert specifications("methods", given) == {
        "SG": SMOOTH,
        "own": {"class_path": "mine.Method"},
        "deep": {
            "class_path": "lightning_xai.explainers.PerturbWeights",
            "init_args": {"std": 0.1, "explainer": SMOOTH},
        },
        "plain": {"class_path": "lightning_xai.InputXGradient", "init_args": {"gradient": SMOOTH}},
    }
    assert specifications("metrics", ["Sparseness"]) == {
        "sparseness": {"class_path": "lightning_xai.metrics.Sparseness"}
    }


def test_what_is_not_ours_stays_as_it_is():
    for value in (
        {"class_path": "ModelCheckpoint", "init_args": {"filename": "smooth_grad"}},
        {"class_path": "torch.optim.Adam"},
        {"class_path": 3},
        [1, "smooth_grad", None],
    ):
        assert with_class_paths(value) == value


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("methods", ["smoth_grad"], "`methods`: 'smoth_grad' is unknown: did you mean 'smooth_grad'"),
        ("metrics", {"a": "auroc"}, "`metrics`: 'auroc' is unknown: did you mean 'localization_auroc'"),
        ("methods", ["with_gradients"], "'with_gradients' is unknown"),
        ("methods", ["CaptumExplainer"], r"'CaptumExplainer' needs arguments \(method\); give {class_path: lightning_"),
        ("methods", ["saliency", "Saliency"], "`methods` has 'saliency' twice, .* give a mapping of names of your own"),
    ],
)
def test_wrong_names_are_refused_with_the_cure(kind, given, message):
    for function in (named, specifications):
        with pytest.raises(ValueError, match=message):
            function(kind, given)


def test_a_wrong_class_path_in_a_specification_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'smooth_grad'"):
        specifications("methods", {"a": {"class_path": "smothgrad"}})


def test_a_wrong_name_in_an_argument_is_said_to_be_there():
    deep = {"class_path": "PerturbWeights", "init_args": {"std": 0.1, "explainer": "salience"}}
    with pytest.raises(ValueError, match=r"^`explainer`: 'salience' is unknown: did you mean 'saliency'"):
        specifications("methods", {"a": deep})


@pytest.mark.parametrize("kind", ["methods", "metrics"])
def test_the_command_lists_each_with_its_first_line(kind, capsys):
    main([kind])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(known(kind))
    for line, thing in zip(lines, known(kind).values(), strict=True):
        assert line.endswith(thing.__doc__.strip().splitlines()[0])
    if kind == "metrics":
        directions = {line.split()[0]: line.split()[1] for line in lines}
        assert {"higher", "lower"} == set(directions.values())
        assert all((directions[name] == "higher") == metric.higher_is_better for name, metric in known(kind).items())


def test_the_commands_take_no_options(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["metrics", "--all"])
    assert "unrecognized arguments: --all" in capsys.readouterr().err


def test_outputs_have_plain_names_in_yaml():
    written = {"a": "probability", "b": {"class_path": "at", "init_args": {"index": [0, 2]}}}
    found = with_class_paths(written)
    assert found == {**written, "b": {"class_path": "lightning_xai.outputs.At", "init_args": {"index": [0, 2]}}}
    assert sorted(known("outputs")) == sorted(snake_case(name) for name in outputs.__all__ if name != "Output")
