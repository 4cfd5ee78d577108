"""Each class of captum.attr, and each option, works or is refused when the explainer is made."""

import inspect

import captum.attr
import jaxtyping
import pytest
import torch
from captum.attr import (
    Attribution,
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    GradientShap,
    GuidedBackprop,
    IntegratedGradients as CaptumIntegratedGradients,
    KernelShap,
    LayerConductance,
    LayerDeepLift,
    LayerGradCam,
    LayerGradientXActivation,
    Lime,
    Occlusion,
    Saliency,
    ShapleyValues,
)
from torch import nn
from torch.testing import assert_close

from lightning_xai.explainers import CaptumExplainer, Context

IMAGES = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 2, 1])
MASK = torch.arange(36).view(1, 1, 6, 6) // 9
SEVERAL = {"baselines": torch.zeros(2, 1, 6, 6)}
OPTIONS = {
    "DeepLiftShap": SEVERAL,
    "FeatureAblation": {"feature_mask": MASK, "perturbations_per_eval": 3},
    "GradientShap": SEVERAL,
    "KernelShap": {"feature_mask": MASK},
    "LayerDeepLiftShap": SEVERAL,
    "LayerFeatureAblation": {"perturbations_per_eval": 36},
    "LayerGradientShap": SEVERAL,
    "Lime": {"feature_mask": MASK, "n_samples": 8},
    "Occlusion": {"sliding_window_shapes": (1, 3, 3), "strides": (1, 3, 3), "perturbations_per_eval": 2},
    "ShapleyValueSampling": {"feature_mask": MASK, "n_samples": 3, "perturbations_per_eval": 2},
    "ShapleyValues": {"feature_mask": MASK},
}
REFUSED = {
    "Attribution": "takes no `inputs` and `target`",
    "DataLoaderAttribution": "takes no `inputs` and `target`",
    "FeaturePermutation": "between the samples of a batch",
    "GradientAttribution": "takes no `inputs` and `target`",
    "LLMAttribution": r"is made with \['tokenizer'\]",
    "LLMGradientAttribution": r"is made with \['tokenizer'\]",
    "LRP": "keeps its rules on the modules",
    "LayerActivation": "takes no `inputs` and `target`",
    "LayerAttribution": "takes no `inputs` and `target`",
    "LayerFeaturePermutation": "between the samples of a batch",
    "LayerLRP": "keeps its rules on the modules",
    "LimeBase": r"is made with \['from_interp_rep_transform', 'interpretable_model'",
    "NoiseTunnel": "wrap that in `Smooth`",
    "PerturbationAttribution": "takes no `inputs` and `target`",
    "RemoteLLMAttribution": r"is made with \['provider', 'tokenizer'\]",
}


def is_method(value):
    return inspect.isclass(value) and issubclass(value, Attribution)


METHODS = {name: getattr(captum.attr, name) for name in captum.attr.__all__ if is_method(getattr(captum.attr, name))}


def network():
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


@pytest.mark.parametrize("name", METHODS)
def test_each_class_gives_a_map_or_is_refused_when_the_explainer_is_made(name):
    method, options = METHODS[name], OPTIONS.get(name, {})
    reason = REFUSED.get(name, "it explains a neuron" if "Neuron" in name else None)
    if reason is not None:
        with pytest.raises(ValueError, match=f"`method` must .*{name}.*{reason}"):
            CaptumExplainer(method, options)
        return
    for layer in (None, "1") if "layer" in inspect.signature(method.__init__).parameters else (None,):
        explainer, model = CaptumExplainer(method, options, layer), network()
        maps = explainer(model, IMAGES, TARGET)
        assert maps.shape == IMAGES.shape
        assert maps.any() or name == "Lime"  # whose penalty leaves nothing of so small effects
        alone = explainer(model, IMAGES[1:2], TARGET[1:2], Context.create(torch.tensor([1])))
        assert_close(alone, maps[1:2], rtol=1e-4, atol=1e-7)
        assert not any(
            part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in model.modules()
        )


def test_what_is_no_class_of_captums_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the package's own check has to speak
    for method in (DeepLift(network()), nn.ReLU, "DeepLift"):
        with pytest.raises(TypeError, match=r"`method` must be a class of captum.attr, such as .*, got"):
            CaptumExplainer(method)


@pytest.mark.parametrize(
    ("method", "settings", "error", "message"),
    [
        (DeepLift, {"options": {"return_convergence_delta": True}}, ValueError, "'return_convergence_delta'.*alone"),
        (DeepLift, {"options": {"target": 3}}, ValueError, "must not have 'target': it is given when"),
        (DeepLift, {"options": {"inputs": IMAGES}}, ValueError, "must not have 'inputs': it is given when"),
        (DeepLift, {"options": {"additional_forward_args": (1,)}}, ValueError, "wrap the model in a module"),
        (
            DeepLift,
            {"options": {"steps": 3}},
            ValueError,
            r"`options` has \['steps'\], which DeepLift.attribute does",
        ),
        (
            DeepLift,
            {"options": {"baselines": IMAGES}},
            ValueError,
            r"baselines'\]` must be one for all.*\(3, 1, 6, 6\)",
        ),
        (DeepLift, {"options": {"baselines": (IMAGES[:1],)}}, TypeError, "must be a number or one tensor.*got tuple"),
        (
            DeepLift,
            {"options": {"baselines": 0.0}, "baseline": 1.0},
            ValueError,
            "`baseline` must be None.*too",
        ),
        (DeepLift, {"layer": "1"}, ValueError, '`layer` must be None for DeepLift, which looks at no layer; got "1"'),
        (
            DeepLiftShap,
            {"options": {"baselines": IMAGES[:1]}},
            ValueError,
            r"several samples .*got shape \(1, 1",
        ),
        (DeepLiftShap, {"options": {"baselines": 0.0}}, ValueError, "several samples .*got float"),
        (DeepLiftShap, {"baseline": 0.0}, ValueError, "several samples .*got `baseline`"),
        (DeepLiftShap, {}, ValueError, r"`options` must have \['baselines'\], which DeepLiftShap.attribute needs"),
        (GradientShap, {}, ValueError, r"`options` must have \['baselines'\], which GradientShap.attribute needs"),
        (Occlusion, {}, ValueError, r"`options` must have \['sliding_window_shapes'\]"),
        (Saliency, {"baseline": 0.0}, ValueError, "`baseline` must be None for Saliency, which takes no baseline"),
        (FeatureAblation, {"options": {"feature_mask": MASK.expand(3, -1, -1, -1)}}, ValueError, "one for all samples"),
        (ShapleyValues, {}, ValueError, "'feature_mask' of at most 9 features .*got none"),
        (ShapleyValues, {"options": {"feature_mask": torch.arange(36).view(1, 1, 6, 6)}}, ValueError, "got 36"),
        (Lime, {"options": {"return_input_shape": False}}, ValueError, "'return_input_shape'=False"),
        (KernelShap, {"options": {"return_input_shape": False}}, ValueError, "'return_input_shape'=False"),
        (LayerGradCam, {"options": {"attribute_to_layer_input": True}}, ValueError, "`layer` must be given with"),
        (LayerConductance, {"options": {"return_convergence_delta": True}}, ValueError, "'return_convergence_delta'"),
    ],
)
def test_options_that_give_no_map_are_refused_when_the_explainer_is_made(method, settings, error, message):
    with pytest.raises(error, match=message):
        CaptumExplainer(method, **settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"baselines": torch.zeros(1, 6, 6)},
            r"must have the shape of a sample after its first axis, \(1, 6, 6\)",
        ),
        (
            {"feature_mask": torch.zeros(1, 6, 6, dtype=torch.int64)},
            r"'feature_mask'\]` must have the shape",
        ),
    ],
)
def test_options_must_fit_the_inputs(options, message):
    with pytest.raises(ValueError, match=message):
        CaptumExplainer(FeatureAblation, options)(network(), IMAGES, TARGET)


def test_one_baseline_for_all_samples():
    baseline = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    found = CaptumExplainer(CaptumIntegratedGradients, {"baselines": baseline})(network(), IMAGES, TARGET)
    model = network()
    expected = CaptumIntegratedGradients(model).attribute(IMAGES, baseline.float().expand_as(IMAGES), TARGET)
    assert_close(found, expected.float(), rtol=1e-4, atol=1e-7)


def test_draws_of_captums_methods_do_not_depend_on_the_batch():
    method, model = CaptumExplainer(GradientShap, {**SEVERAL, "n_samples": 2}), network()
    maps = method(model, IMAGES, TARGET)
    for row in range(3):
        context = Context.create(torch.tensor([row]))
        assert_close(method(model, IMAGES[row : row + 1], TARGET[row : row + 1], context), maps[row : row + 1])


def test_a_layers_attributions_are_spread_over_the_channels_also_where_it_has_as_many():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3)).eval()
    images = torch.rand(2, 3, 6, 6)
    found = CaptumExplainer(LayerGradientXActivation, layer="1")(model, images, 0)
    theirs = LayerGradientXActivation(model, model[1]).attribute(images, target=0).sum(1, keepdim=True)
    assert_close(found, (theirs / 3).expand(-1, 3, -1, -1).detach())


def test_layer_attribution_to_its_input():
    model = network()
    found = CaptumExplainer(LayerDeepLift, {"attribute_to_layer_input": True}, "2")(model, IMAGES, TARGET)
    assert_close(found, CaptumExplainer(LayerDeepLift, layer="1")(model, IMAGES, TARGET))


class Pairs(Attribution):
    def attribute(self, inputs, target):
        return inputs, inputs


class Strange(GuidedBackprop):
    def __init__(self, model, temperature):
        super().__init__(model)


def test_own_classes():
    with pytest.raises(TypeError, match="`method` must give one tensor, got tuple from Pairs"):
        CaptumExplainer(Pairs)(network(), IMAGES, TARGET)
    with pytest.raises(ValueError, match=r"Strange is made with \['temperature'\]"):
        CaptumExplainer(Strange)
