"""What somebody types first: a method called as `explain` is, and mistakes that get a sentence."""

import re

import jaxtyping
import pytest
import torch
from torch.testing import assert_close

import lightning_xai as lx
from lightning_xai import explainers, metrics
from lightning_xai.explainers import Context
from lightning_xai.networks import CNN, LeNet
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import examine
from lightning_xai.sanity.similarity import named_similarities

IMAGES = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([7, 3, 5])


@pytest.fixture(autouse=True)
def _as_in_a_session(monkeypatch):
    """The package's own checks have to speak."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LeNet().eval()


@pytest.mark.parametrize("method", [lx.adapt_grad(num_draws=2), lx.fusion_grad(num_weight_draws=1, num_input_draws=2)])
@pytest.mark.parametrize("options", [{"bounds": (0.0, 1.0)}, {"bounds": (0.0, 1.0), "seed": 4, "index": INDEX}])
def test_a_method_is_called_as_explain_is(model, method, options):
    target = torch.tensor([1, 2, 3])
    assert_close(method(model, IMAGES, target, **options), lx.explain(model, IMAGES, target, method, **options))


def test_a_context_or_what_makes_one(model):
    context = Context.create(torch.arange(3), 0, (0.0, 1.0))
    for given in ({"bounds": (0, 1)}, {"seed": 0}, {"index": INDEX}):
        with pytest.raises(ValueError, match="`context` has bounds, seed, indices and output already: give either"):
            lx.Gradient()(model, IMAGES, 0, context, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bounds": (0.0, 0.5)}, r"`bounds` must hold the inputs"),
        ({"index": INDEX[:2]}, r"`index` is of 2 samples, but `inputs` has 3"),
        ({"index": [1, 2, 3]}, r"`index` must be an int64 tensor"),
        ({"seed": 0.5}, r"`seed` must be a whole number"),
        ({"context": 3}, r"`context` must be a Context"),
    ],
)
def test_wrong_arguments_are_named(model, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        lx.smooth_grad(num_draws=2)(model, IMAGES, **given)


CALLS = {
    "method": lambda *given: lx.Gradient()(*given),
    "method, target": lambda *given: lx.smooth_grad(num_draws=2)(*given, 0),
    "explain": lx.explain,
    "evaluate": lambda *given: lx.evaluate(*given, methods=["gradient"]),
}


@pytest.mark.parametrize("call", CALLS)
class TestMistakes:
    def test_arrays(self, call, model):
        for images in (IMAGES.numpy(), IMAGES.tolist(), IMAGES.int()):
            with pytest.raises(TypeError, match=r"`inputs` .*; convert it, torch\.as_tensor\(inputs, dtype="):
                CALLS[call](model, images)

    def test_a_single_image(self, call, model):
        with pytest.raises(ValueError, match=r"\(1, 28, 28\) is the shape of a single sample .* give `inputs\[None\]`"):
            CALLS[call](model, IMAGES[0])
        with pytest.raises(ValueError, match=r"\(3, 28, 28\) is the shape of a single sample .* give `inputs\[None\]`"):
            CALLS[call](CNN(in_channels=3), torch.rand(3, 28, 28))

    def test_other_errors_of_the_model_are_its_own(self, call, model):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            CALLS[call](model, torch.rand(2, 1, 20, 20))

    def test_a_function(self, call, model):
        with pytest.raises(TypeError, match=r"`model` must be a torch\.nn\.Module .*wrap a function in a module"):
            CALLS[call](lambda images: model(images), IMAGES)


def test_lists_are_named_after_their_members(model):
    found = lx.evaluate(model, IMAGES, methods=[lx.Gradient(), "smooth_grad"], metrics=["sparseness"])
    assert found.means().keys() == {"gradient", "smooth_grad"}
    assert found.scores["gradient"].keys() == {"sparseness", "gradients"}


@pytest.mark.parametrize(
    "name", ["RelevanceRankAccuracy", "RelevanceMassAccuracy", "PointingGame", "LocalizationAUROC"]
)
def test_masks_may_be_given_by_position(name):
    maps, masks = torch.rand(3, 2, 6, 6), torch.rand(3, 6, 6) > 0.5
    assert_close(getattr(metrics, name)()(maps, masks), getattr(metrics, name)()(maps, mask=masks))


def test_rooms_and_explainers_are_there():
    assert lx.callbacks.AttributionCallback.__module__ == "lightning_xai.callbacks.attribution"
    assert lx.grad_cam is explainers.grad_cam
    assert {"callbacks", "metrics", "grad_cam", "explain"} <= set(dir(lx))


def test_results_print_as_their_tables(model):
    result = lx.evaluate(model, IMAGES, 0, ["gradient", "saliency"], ["sparseness", "complexity"])
    lines = repr(result).split("\n")
    assert lines[0].split() == ["3", "samples,", "mean", "±", "standard", "error"]
    assert lines[2].split() == ["method", "sparseness", "↑", "complexity", "↓", "gradients"]
    number = rf"{result.means()['saliency']['sparseness']:.4f} ± \d\.\d+"
    assert re.fullmatch(rf" +saliency +{number} +.+ +1", lines[5])
    comparison = result.to_scores().compare()
    printed = str(comparison)
    assert "sparseness ↑, 3 samples" in printed
    assert re.search(r"\n +saliency( \*)? +1 +0\.\d{4} ", printed)
    assert "*" not in repr(result), "equal methods are none the best"
    assert "\nScores of scores: 3 samples.\n" in printed
    assert "difference: mean difference from the best mean" in printed
    assert max(map(len, printed.split("\n"))) <= 120
    assert "MethodResult" not in printed
    subject = Subject(model, IMAGES, torch.tensor([0, 1, 2]), INDEX, {"gradient": lx.Gradient()}, named_similarities())
    report = examine(subject, ("invariance",))
    assert re.search(r"\n +gradient +PASS ", repr(report))
    assert repr(report.verdicts[0]).startswith("PASS: gradient, invariance: ")
