"""What cannot be explained or scored is refused with an error that says what to do."""

from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
import torch
from captum.attr import DeepLift, GuidedBackprop, LayerGradCam, Saliency as CaptumSaliency
from torch import nn

from lightning_xai import evaluate, explain
from lightning_xai.callbacks import AttributionCallback, RandomizationCallback
from lightning_xai.explainers import (
    AbsoluteScale,
    CaptumExplainer,
    Context,
    Gradient,
    InRangeScale,
    IntegratedGradients,
    PerturbWeights,
    RangeScale,
    Saliency,
    Smooth,
    SmoothDiff,
    SobelEdges,
    adapt_grad,
    fusion_grad,
    grad_cam,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
    noise_grad,
    smooth_grad,
    with_controls,
    with_gradients,
)
from lightning_xai.metrics import (
    EffectiveComplexity,
    InherentNoise,
    MaxSensitivity,
    RelevanceRankAccuracy,
    Sparseness,
    TopKIntersection,
)
from lightning_xai.networks import MLP, LeNet

IMAGES = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
MODEL = LeNet()
USE_THE_MODEL = [
    Gradient(),
    smooth_grad(num_draws=2),
    noise_grad(num_draws=2),
    fusion_grad(num_weight_draws=2, num_input_draws=2),
    IntegratedGradients(baseline=0.0),
    guided_backprop(),
    grad_cam(),
    guided_grad_cam(),
    gradient_shap(0.0),
]
each = pytest.mark.parametrize("method", USE_THE_MODEL, ids=lambda method: type(method).__name__)


@pytest.fixture(autouse=True)
def no_type_checker(monkeypatch):
    """A user's session has none: the package's own checks have to speak."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


class Wrapped(nn.Module):
    """A LeNet whose output is something else."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = LeNet(), change

    def forward(self, x):
        return self.change(self.net(x))


# Inputs and targets


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 1, 28, 28, dtype=torch.uint8), TypeError, "`inputs` must be a floating-point.*uint8.*convert"),
        (IMAGES.numpy(), TypeError, "`inputs` must be a floating-point tensor, got ndarray"),
        (torch.zeros(0, 1, 28, 28), ValueError, "`inputs` must be a batch of at least one sample"),
        (torch.zeros(28), ValueError, r"`inputs` must be a batch of at least one sample, got shape \(28,\)"),
        (
            torch.full((7, 1, 28, 28), torch.nan),
            ValueError,
            r"`inputs` must be finite.* 0, 1, 2, 3, 4, ... \(7 in all\)",
        ),
    ],
)
def test_inputs(images, error, message):
    for call in (explain, evaluate, Gradient()):
        with pytest.raises(error, match=message):
            call(MODEL, images, 0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_inputs_must_be_finite_and_the_sample_is_named(bad):
    images = IMAGES.clone()
    images[1, 0, 3, 3] = bad
    with pytest.raises(ValueError, match="`inputs` must be finite, but has NaN or infinite values in samples 1"):
        explain(MODEL, images, 0)


@each
@pytest.mark.parametrize("target", [10, -1, torch.tensor([0, 1, 99]), torch.tensor([0, -5, 1])])
def test_target_out_of_range(method, target):
    with pytest.raises(ValueError, match=r"`target` must be in 0 .. 9, the outputs of `model`, got values from"):
        method(MODEL, IMAGES, target)


@pytest.mark.parametrize(
    "target", [1.0, True, 2 * torch.ones(3), torch.tensor([0.0, 0.5, 1.0]), "cat", ["a"] * 3, [[1], [2, 3], [4]], {}]
)
def test_target_must_be_integers(target):
    for call in (explain, evaluate, Gradient()):
        with pytest.raises(TypeError, match="`target` must hold class indices"):
            call(MODEL, IMAGES, target)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (3, 10), (0,)])
def test_target_of_the_wrong_shape(shape):
    said = "`target` must be one class index, or one for each of the 3 samples"
    positive = "one label excludes the others" if len(shape) == 2 else said
    for call, message in ((explain, said), (evaluate, positive), (Gradient(), said)):
        with pytest.raises(ValueError, match=message):
            call(MODEL, IMAGES, torch.zeros(shape, dtype=torch.int64))


# Models


@each
@pytest.mark.parametrize("target", [0, None])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda logits: (logits, 1),
            TypeError,
            "`model` must return a tensor of logits.*got tuple; lightning_xai.Forward",
        ),
        (lambda logits: {"logits": logits}, TypeError, "`model` must return a tensor of logits.*got dict"),
        (lambda logits: logits[0], ValueError, r"`model` must return logits \(batch, classes\), got shape \(10,\)"),
        (lambda logits: logits[:, :, None], ValueError, r"`model` must return logits.*\(\d+, 10, 1\) for \d+ samples"),
        (lambda logits: logits.repeat(2, 1), ValueError, r"`model` must return logits.*\(\d+, 10\) for \d+ samples"),
    ],
)
def test_model_must_return_logits(method, target, change, error, message):
    with pytest.raises(error, match=message):
        method(Wrapped(change), IMAGES, target)


class Functional(nn.Module):
    """A network that calls the ReLU as a function."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x):
        return self.linear(x.flatten(1).relu())


def test_methods_that_change_relus_need_relu_modules():
    guided = CaptumExplainer(GuidedBackprop)
    with pytest.raises(ValueError, match=r"`model` must apply its ReLUs as nn.ReLU modules for GuidedBackprop; .*none"):
        guided(Functional(), IMAGES, 0)
    with pytest.raises(ValueError, match=r"nn.ReLU modules for GuidedBackprop; of 2 ReLUs 1 are functional calls"):
        guided(nn.Sequential(Functional(), nn.ReLU()), IMAGES, 0)
    with pytest.raises(ValueError, match=r"modules that DeepLift has rules for .*; it has no rule for relu in F"):
        CaptumExplainer(DeepLift)(Functional(), IMAGES, 0)


def test_layers():
    with pytest.raises(
        ValueError, match=r'`layer` "conv9" is no submodule of `model`; it has: features, features.conv1'
    ):
        grad_cam("conv9")(MODEL, IMAGES, 0)
    with pytest.raises(ValueError, match="`layer` must be given: `model` has no convolution"):
        grad_cam()(MLP(), IMAGES, 0)
    with pytest.raises(ValueError, match=r'`layer` "classifier.linear1" must give maps'):
        CaptumExplainer(LayerGradCam, layer="classifier.linear1")(MODEL, IMAGES, 0)


def test_sobel_needs_images():
    with pytest.raises(ValueError, match=r"`inputs` must be series, images or volumes, .*; got shape \(3, 784\)"):
        SobelEdges()(MODEL, IMAGES.flatten(1), 0)


def test_parameter_patterns():
    method = PerturbWeights(include=("conv*",), num_draws=1)
    expected = r"`include`=\('conv\*',\).*names no floating-point parameter.*it has: features.conv1.weight"
    with pytest.raises(ValueError, match=expected):
        method(MODEL, IMAGES, 0)
    with pytest.raises(ValueError, match="names no floating-point parameter of `model`; it has: none"):
        PerturbWeights()(nn.Flatten(), IMAGES, 0)


# Construction


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Smooth(num_draws=0), "`num_draws` must be at least 1, got 0"),
        (lambda: smooth_grad(num_draws=-1), "`num_draws` must be at least 1, got -1"),
        (lambda: PerturbWeights(num_draws=0), "`num_draws` must be at least 1, got 0"),
        (lambda: fusion_grad(num_input_draws=0), "`num_draws` must be at least 1"),
        (lambda: IntegratedGradients(num_steps=0), "`num_steps` must be at least 1, got 0"),
        (lambda: IntegratedGradients(baseline="gray"), '`baseline` must be "black", "white" or a number, got "gray"'),
        (lambda: gradient_shap("blue"), '`baseline` must be "black", "white" or a number'),
        (
            lambda: explain(MODEL, IMAGES, output="softmax"),
            "`output`: 'softmax' is unknown: There are at, log",
        ),
        (
            lambda: Smooth(statistic="median"),
            "`statistic` must be one of 'mean', 'variance', 'mean_square', got 'median'",
        ),
        (lambda: PerturbWeights(statistic="std"), "`statistic` must be one of"),
        (lambda: PerturbWeights(noise="uniform"), "`noise` must be one of 'multiplicative', 'additive', got 'uniform'"),
        (lambda: PerturbWeights(std=-0.1), "`std` must be at least 0 and finite, got -0.1"),
        (lambda: noise_grad(std=float("nan")), "`std` must be at least 0 and finite, got nan"),
        (lambda: AbsoluteScale(-1.0), "`std` must be at least 0 and finite, got -1.0"),
        (lambda: AbsoluteScale(float("inf")), "`std` must be at least 0 and finite, got inf"),
        (lambda: RangeScale(-0.1), r"`fraction` must be in \[0, 1\], got -0.1"),
        (lambda: smooth_grad(fraction=20), r"`fraction` must be in \[0, 1\], got 20"),
        (lambda: RangeScale(of="batch"), "`of` must be one of 'image', 'data', got 'batch'"),
        (lambda: InRangeScale(0.0), r"`confidence` must be in \(0, 1\), got 0.0"),
        (lambda: adapt_grad(confidence=1.0), r"`confidence` must be in \(0, 1\), got 1.0"),
        (lambda: adapt_grad(confidence=95), r"`confidence` must be in \(0, 1\), got 95"),
        (lambda: InRangeScale(0.5, "exact"), r"`confidence` must be in \(0.5, 1\), got 0.5"),
        (
            lambda: InRangeScale(solution="printed"),
            "`solution` must be one of 'default', 'literal', 'exact', got 'printed'",
        ),
        (
            lambda: CaptumExplainer(CaptumSaliency, {"n_steps": 3}),
            r"`options` has \['n_steps'\], which Saliency.attribute",
        ),
        (lambda: Context.create(torch.arange(3), max_rows=0), "`max_rows` must be at least 1, got 0"),
        (lambda: Smooth(max_draws=-1), "`max_draws` must be at least 1, got -1"),
        (
            lambda: PerturbWeights(num_draws=1, statistic="variance"),
            '`num_draws` must be at least 2 with `statistic`="var',
        ),
        (lambda: IntegratedGradients(baseline=float("nan")), "`baseline` must be finite, got nan"),
        (lambda: gradient_shap(std=-1.0), "`std` must be at least 0 and finite, got -1.0"),
        (lambda: gradient_shap(num_draws=0), "`num_draws` must be at least 1, got 0"),
    ],
)
def test_construction(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("include", ["*.weight", 3, (3,)])
def test_patterns_are_strings_in_a_tuple(include):
    with pytest.raises(TypeError, match=r"`include` and `exclude` must be tuples of patterns"):
        PerturbWeights(include=include)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("num_draws", smooth_grad),
        ("max_draws", Smooth),
        ("num_steps", IntegratedGradients),
        ("num_draws", gradient_shap),
        ("seed", lambda seed: Context.create(torch.arange(3), seed)),
        ("max_rows", lambda max_rows: Context.create(torch.arange(3), max_rows=max_rows)),
        ("num_samples", AttributionCallback),
        ("seed", AttributionCallback),
        ("max_rows", AttributionCallback),
        ("seed", RandomizationCallback),
        ("k", TopKIntersection),
    ],
)
@pytest.mark.parametrize("value", [1.5, "3", True, torch.tensor(3)], ids=repr)
def test_what_must_be_whole_numbers(name, build, value):
    with pytest.raises(TypeError, match=f"`{name}` must be a whole number, got"):
        build(**{name: value})


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("std", PerturbWeights),
        ("std", AbsoluteScale),
        ("std", gradient_shap),
        ("fraction", RangeScale),
        ("confidence", InRangeScale),
        ("tolerance", lambda tolerance: Smooth(tolerance=tolerance)),
        ("radius", MaxSensitivity),
        ("threshold", EffectiveComplexity),
    ],
)
@pytest.mark.parametrize("value", ["0.2", True, [0.2], torch.tensor(0.2)], ids=repr)
def test_what_must_be_numbers(name, build, value):
    with pytest.raises(TypeError, match=f"`{name}` must be a number, got"):
        build(**{name: value})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IntegratedGradients(baseline=True), '`baseline` must be "black", "white" or a number, got True'),
        (lambda: IntegratedGradients(baseline=[True]), '`baseline` must be "black", "white" or a number, got'),
        (lambda: Smooth(Gradient), r"`explainer` must be an explainer, such as Gradient\(\), got <class"),
        (lambda: Saliency("gradient"), "`gradient` must be an explainer"),
        (lambda: Smooth(scale=0.2), r"`scale` must be an InputScale, such as RangeScale\(0.2\), got 0.2"),
        (lambda: SmoothDiff(0.2), r"`scale` must be an InputScale, such as RangeScale\(0.2\), got 0.2"),
        (lambda: with_gradients("smooth_grad", 10), "`explainer` must be an explainer such as .*, got 'smooth_grad'"),
        (lambda: with_controls([Gradient()]), "`methods` must be a dictionary of explainers by name, got"),
        (lambda: grad_cam(3), "`layer` must be the name of a layer, or None, got 3"),
        (lambda: CaptumExplainer(CaptumSaliency, ["abs"]), "`options` must be a dictionary, got"),
    ],
)
def test_parts_of_another_kind(build, message):
    with pytest.raises(TypeError, match=message):
        build()


# Bounds and contexts


@pytest.mark.parametrize(
    ("method", "who"),
    [
        (adapt_grad(num_draws=2), "InRangeScale"),
        (smooth_grad(num_draws=2, of="data"), 'RangeScale\\(of="data"\\)'),
        (IntegratedGradients(), 'baseline="black"'),
        (gradient_shap("white"), 'baseline="white"'),
    ],
)
def test_missing_bounds(method, who):
    with pytest.raises(ValueError, match=f"`bounds` is needed by {who}: give the least and greatest"):
        method(MODEL, IMAGES, 0)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1.0, 0.0), "`bounds` must have low < high everywhere"),
        ((0.0, 0.0), "`bounds` must have low < high everywhere"),
        ((0.0, float("nan")), "`bounds` must be finite"),
        ((-float("inf"), 1.0), "`bounds` must be finite"),
        (([0.0, 0.0, 0.0], [1.0, float("inf"), 1.0]), "`bounds` must be finite"),
        ((-3e38, 3e38), "`bounds` must be finite, and so must the range between them, in float32"),
        ((0.0, 1e39), "`bounds` must be finite"),
        (1.0, r"`bounds` must be \(low, high\), got 1.0"),
        (([0.0, 0.0], [1.0, 1.0, 1.0]), "`bounds` must be of shapes that broadcast"),
        (([0.0, 2.0, 0.0], [1.0, 1.0, 1.0]), "`bounds` must have low < high everywhere"),
        ((0.0, 0.5, 1.0), r"`bounds` must be \(low, high\), got 3 values"),
        (
            ([0.0] * 3, [1.0] * 3),
            r"`bounds` must broadcast against a sample, of shape \(1, 28, 28\), got shape \(3, 1, 1\)",
        ),
        ((0.0, torch.ones(1, 14, 14)), r"`bounds` must broadcast against a sample.*got shape \(1, 14, 14\)"),
        ((torch.zeros(3, 1, 28, 28), 1.0), r"`bounds` must broadcast against a sample.*got shape \(3, 1, 28, 28\)"),
    ],
)
def test_bad_bounds(bounds, message):
    with pytest.raises(ValueError, match=message):
        explain(MODEL, IMAGES, 0, adapt_grad(num_draws=2), bounds=bounds)


@pytest.mark.parametrize(
    "low", ["0", False, None, 1j, [0.0, "1", 0.0], [0.0, False, 0.0], torch.tensor(False), np.array(["0"])], ids=repr
)
def test_bounds_are_numbers(low):
    for build in (
        lambda: explain(MODEL, IMAGES, 0, bounds=(low, 1.0)),
        lambda: evaluate(MODEL, IMAGES, bounds=(0, low)),
    ):
        with pytest.raises(TypeError, match="`bounds` must be numbers, one or one a channel, got"):
            build()


def test_context_of_other_samples():
    with pytest.raises(TypeError, match=r"`context` must be a Context, such as .*, got 3"):
        Gradient()(MODEL, IMAGES, 0, 3)
    with pytest.raises(ValueError, match="`context` is of 2 samples, but `inputs` has 3"):
        Gradient()(MODEL, IMAGES, 0, Context.create(torch.arange(2)))


@pytest.mark.parametrize("call", [explain, evaluate])
def test_index(call):
    with pytest.raises(ValueError, match="`index` must have one entry for each of the 3 samples, got 2"):
        call(MODEL, IMAGES, 0, index=torch.arange(2))
    with pytest.raises(ValueError, match=r"`index` must have one entry for each sample, one axis, got shape \(3, 1\)"):
        call(MODEL, IMAGES, 0, index=torch.zeros(3, 1, dtype=torch.int64))
    for index in ([0, 1, 2], 3, np.arange(3), torch.arange(3, dtype=torch.int32), torch.arange(3.0)):
        with pytest.raises(TypeError, match=r"`index` must be an int64 tensor of.*, got (torch|list|int|ndarray)"):
            call(MODEL, IMAGES, 0, index=index)


@pytest.mark.parametrize("call", [explain, evaluate, Gradient()])
@pytest.mark.parametrize("model", [torch.sin, None, LeNet])
def test_model_must_be_a_module(call, model):
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module from a batch to logits, got"):
        call(model, IMAGES, 0)


# Evaluation


@pytest.mark.parametrize("method", [smooth_grad, Gradient, 3, None])
def test_methods_must_be_explainers(method):
    with pytest.raises(TypeError, match=r"`method` must be an explainer such as lightning_xai.smooth_grad\(\), got"):
        explain(MODEL, IMAGES, 0, method)
    with pytest.raises(TypeError, match="`mine` must be an explainer"):
        evaluate(MODEL, IMAGES, 0, {"mine": method})


@pytest.mark.parametrize("metric", [Sparseness, torch.nn.MSELoss(), 3])
def test_metrics_must_be_sample_metrics(metric):
    with pytest.raises(TypeError, match=r"`metrics` must map names to SampleMetric objects, got .* for 'mine'"):
        evaluate(MODEL, IMAGES, 0, metrics={"mine": metric})


def test_metrics_that_need_what_the_data_lack():
    with pytest.raises(ValueError, match=r"`metrics`: 'rank' .*needs `mask`, which these data do not have; leave"):
        evaluate(MODEL, IMAGES, 0, metrics={"rank": RelevanceRankAccuracy()})
    with pytest.raises(ValueError, match=r"`metrics`: 'noise' .*needs `bounds`, which these data do not have; leave"):
        evaluate(MODEL, IMAGES, 0, metrics={"noise": InherentNoise()})


def test_tables_by_name():
    for given in (3, "gradient", Gradient()):
        with pytest.raises(
            TypeError, match=r"`methods` must be explainers by name, or a list of them, such as .*, got"
        ):
            evaluate(MODEL, IMAGES, 0, given)
    with pytest.raises(TypeError, match=r"`metrics` must be metrics by name, or a list of them, such as .*, got 3"):
        evaluate(MODEL, IMAGES, 0, metrics=3)


def test_a_method_by_its_plain_name():
    assert torch.equal(explain(MODEL, IMAGES, 0, "saliency"), explain(MODEL, IMAGES, 0, Saliency()))
    with pytest.raises(ValueError, match=r"'salience'.*saliency"):
        explain(MODEL, IMAGES, 0, "salience")


def test_masks():
    with pytest.raises(TypeError, match="`masks` must be a tensor, got"):
        evaluate(MODEL, IMAGES, 0, masks=[1, 2, 3])
    with pytest.raises(ValueError, match="`masks` must have one entry for each of the 3 samples, got 2"):
        evaluate(MODEL, IMAGES, 0, masks=torch.ones(2, 28, 28, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(3, 28, 28\)"):
        evaluate(MODEL, IMAGES, 0, masks=torch.ones(3, 14, 14, dtype=torch.bool))
    with pytest.raises(TypeError, match="`mask` must be a boolean tensor"):
        evaluate(MODEL, IMAGES, 0, masks=torch.ones(3, 28, 28))


@pytest.mark.parametrize(("name", "parts"), [("keys", (0, 1)), ("seed", ("0", torch.arange(2)))])
def test_a_context_of_other_types(name, parts):
    # The tests' own checks of types would come first.
    context = SimpleNamespace(**dict(zip(("seed", "keys"), parts, strict=True)))
    with pytest.raises(TypeError, match=f"^`{name}` must be a"):
        Context.__post_init__(context)


def test_batch_size():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        evaluate(MODEL, IMAGES, 0, batch_size=0)
    with pytest.raises(ValueError, match="`keep_attributions` must be at least 0, got -1"):
        evaluate(MODEL, IMAGES, 0, keep_attributions=-1)
