"""Input invariance: twins that compute the same on shifted inputs, and which maps stay the same."""

import copy
import math

import jaxtyping
import pytest
import torch
from captum.attr import DeepLift
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

from lightning_xai.explainers import (
    AbsoluteScale,
    CaptumExplainer,
    Context,
    Gradient,
    InputAttribution,
    InputXGradient,
    IntegratedGradients,
    PerturbWeights,
    RandomAttribution,
    RangeScale,
    Saliency,
    Smooth,
    SobelEdges,
    adapt_grad,
    fusion_grad,
    grad_cam,
    guided_backprop,
    guided_grad_cam,
    noise_grad,
    smooth_grad,
)
from lightning_xai.networks import CNN, MLP, LeNet
from lightning_xai.sanity.invariance import (
    InexactTwinError,
    check_twin,
    invariance_maps,
    invariance_scores,
    relative_difference,
    shifted_context,
    shifted_twin,
)
from lightning_xai.sanity.similarity import SIMILARITIES, spearman

SIZE = (2, 8, 9)
PATTERN = torch.randn(SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
CHANNELS = torch.tensor([0.7, -1.3], dtype=torch.float64)[:, None, None]
BOUNDS = (-0.4, 1.1)


def images(count=5, dtype=torch.float64):
    """On a background of the lower bound, as digits are."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(count, *SIZE, generator=generator) * 1.4 - 0.35
    return torch.where(torch.rand(count, *SIZE, generator=generator) < 0.4, BOUNDS[0], values).to(dtype)


class TwoPaths(nn.Module):
    """The input reaches the output beside the first layer too."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(144, 7), nn.Linear(151, 4)

    def forward(self, inputs):
        flat = inputs.flatten(1)
        return self.last(torch.cat([torch.relu(self.first(flat)), flat], 1))


class Tokens(nn.Module):
    """One dense layer for all pixels, seen as one batch or as tokens, behind a normalization by constants."""

    def __init__(self, as_batch=False):
        super().__init__()
        self.embed, self.last = nn.Linear(2, 5), nn.Linear(360, 4)
        self.as_batch = as_batch

    def forward(self, inputs):
        tokens = ((inputs - 0.3) / 0.7).flatten(2).transpose(1, 2)
        features = self.embed(tokens.flatten(0, 1) if self.as_batch else tokens)
        return self.last(torch.relu(features).reshape(len(inputs), -1))


class ExtraRow(nn.Module):
    """A row of its own runs along with the batch."""

    def __init__(self):
        super().__init__()
        self.row, self.first, self.last = nn.Parameter(torch.ones(1, 144)), nn.Linear(144, 7), nn.Linear(7, 4)

    def forward(self, inputs):
        features = torch.relu(self.first(torch.cat([self.row, inputs.flatten(1)])))
        return self.last(features[1:] - features[:1])


def convolution(**options):
    layer = nn.Conv2d(2, 6, 3, **options)
    with torch.no_grad():
        width = layer(torch.zeros(1, *SIZE)).numel()
    return nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(width, 4))


def shared_bias():
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    model[3].bias = model[1].bias
    return model


MODELS = {
    "mlp": lambda: MLP(SIZE, (12,), 4),
    "dropout": lambda: nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 4)),
    "valid": convolution,
    "strided": lambda: convolution(stride=2, dilation=2, groups=2),
    "circular": lambda: convolution(padding=1, padding_mode="circular"),
    "norm first": lambda: nn.Sequential(nn.BatchNorm2d(2), *convolution()),
    "weight norm": lambda: nn.Sequential(weight_norm(nn.Conv2d(2, 6, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(252, 4)),
    "tokens": Tokens,
    "token batch": lambda: Tokens(as_batch=True),
    "padded": lambda: convolution(padding=1),
    "no bias": lambda: convolution(bias=False),
    "clipped": lambda: nn.Sequential(nn.Hardtanh(), *convolution()),
    "two paths": TwoPaths,
    "extra row": ExtraRow,
    "shared bias": shared_bias,
    "no layer": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2), nn.Flatten()),
}
BY_BIAS = list(MODELS)[:9]
DENSE = ("mlp", "dropout")


def build(name, dtype=torch.float64):
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand(buffer.shape))
    return model.to(dtype).eval()


each_model = pytest.mark.parametrize("name", MODELS)
each_shift = pytest.mark.parametrize("shift", [0.8, CHANNELS, PATTERN], ids=["constant", "channels", "pattern"])


def logits_agree(model, twin, shift):
    """On other images than the twin was made with."""
    x = images(9)[5:]
    assert_close(twin(x + shift), model(x), rtol=1e-9, atol=1e-12)


# Twins


@each_shift
@each_model
def test_the_twin_computes_the_same(name, shift):
    """By the bias exactly where that is possible: dense layers, and constants in convolutions without zero padding."""
    model = build(name)
    twin = shifted_twin(model, shift, images())
    possible = name in DENSE or (name in BY_BIAS and shift is not PATTERN)
    assert twin.shift_compensation == ("bias" if possible else "input")
    logits_agree(model, twin, shift)
    assert not torch.allclose(model(images()), model(images() + shift))


@each_model
def test_input_compensation_is_exact_for_any_network(name):
    model = build(name)
    twin = shifted_twin(model, PATTERN, images(), "input")
    assert twin.shift_compensation == "input"
    logits_agree(model, twin, PATTERN)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in BY_BIAS])
def test_bias_compensation_is_refused_with_the_reason(name):
    reason = {
        "no bias": "has no bias",
        "two paths": "must give at",
        "extra row": "does not see the samples one by one",
        "shared bias": "must give at",
        "no layer": "no nn.Linear and no convolution",
    }.get(name, "does not reach alike")
    with pytest.raises(InexactTwinError, match=reason):
        shifted_twin(build(name), 0.8, images(), "bias")


def test_bias_by_hand():
    model = build("mlp")
    twin = shifted_twin(model, PATTERN, images())
    first, found = model.layers.linear1, twin.layers.linear1
    assert_close(found.bias, first.bias - first.weight @ PATTERN.flatten())
    rest = {name: value for name, value in model.state_dict().items() if name != "layers.linear1.bias"}
    assert all(torch.equal(twin.state_dict()[name], value) for name, value in rest.items())

    model = build("valid")
    twin = shifted_twin(model, CHANNELS, images())
    assert_close(twin[0].bias, model[0].bias - (model[0].weight.sum((2, 3)) * CHANNELS.flatten()).sum(1))


def test_bias_is_computed_in_float64():
    """Rounded once: as close as float32 can come, where float32 sums are not."""
    model, shift = build("mlp", torch.float32), 100 * PATTERN.float()
    first = model.layers.linear1
    exact = (first.bias.double() - first.weight.double() @ shift.double().flatten()).float()
    found = shifted_twin(model, shift, images(dtype=torch.float32), "bias").layers.linear1.bias
    assert torch.equal(found, exact)
    assert not torch.equal(first.bias - first.weight @ shift.flatten(), exact)


def test_a_network_that_ignores_the_shift_needs_no_compensation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(SIZE), *convolution()).double()
    twin = shifted_twin(model, 0.8, images(), "bias")
    assert_close(twin[1].bias, model[1].bias, rtol=0, atol=1e-12)
    assert shifted_twin(model, PATTERN, images()).shift_compensation == "input"


def test_our_networks():
    """Convolutions with zero padding compensate in the input; LeNet for 32 pixels has none."""
    cases = [(MLP(), 28, "bias"), (LeNet(), 28, "input"), (CNN(), 28, "input"), (LeNet(image_size=32), 32, "bias")]
    for model, size, expected in cases:
        x = torch.rand(3, 1, size, size)
        twin = shifted_twin(model, -1.0, x)
        assert twin.shift_compensation == expected
        assert check_twin(model, twin, x, -1.0) < 1e-5


@pytest.mark.parametrize("compensation", ["bias", "input"])
def test_the_model_stays_as_it_is(compensation):
    model = build("valid").train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    twin = shifted_twin(model, 0.8, images(), compensation)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in twin.parameters()}
    assert model.training
    assert twin.training
    assert not any(m._forward_pre_hooks or m._forward_hooks for net in (model, twin) for m in net.modules())
    assert type(model) is nn.Sequential
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("compensation", ["bias", "input"])
def test_names_and_state_are_those_of_the_model(compensation):
    """So that what names a layer, or numbers the parameters, means the same in both."""
    model = build("valid")
    twin = shifted_twin(model, 0.8, images(), compensation)
    assert isinstance(twin, type(model))
    assert list(twin.state_dict()) == list(model.state_dict())
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    assert "0.weight" in repr(twin.state_dict())
    logits_agree(model, copy.deepcopy(twin), 0.8)


def test_twins_made_in_inference_mode_can_be_explained():
    model = build("valid")
    for compensation in ("bias", "input"):
        with torch.inference_mode():
            twin = shifted_twin(model, 0.8, images(), compensation)
        assert_close(Gradient()(twin, images() + 0.8, 0), Gradient()(model, images(), 0))


def test_a_tiny_shift_is_not_mistaken_for_an_exact_one():
    """The zero padding of a shift that is small beside the weights."""
    assert shifted_twin(build("padded"), 1e-9, images()).shift_compensation == "input"
    assert shifted_twin(build("valid"), 1e-9, images()).shift_compensation == "bias"
    assert shifted_twin(build("padded"), 0.0, images()).shift_compensation == "bias"


def test_check_twin_measures():
    model = build("mlp")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.layers.linear2.bias[2] += 0.01
    greatest = model(images()).abs().max().item()
    assert_close(check_twin(model, twin, images(), 0.0, tolerance=1.0), 0.01 / greatest)
    with pytest.raises(InexactTwinError, match="`twin` must give"):
        check_twin(model, twin, images(), 0.0)
    assert check_twin(model, model, images(), 0.0, tolerance=0.0) == 0.0


def test_a_shift_beyond_the_precision_is_refused():
    model, x = build("mlp", torch.float32), images(dtype=torch.float32)
    with pytest.raises(InexactTwinError, match="float64"):
        shifted_twin(model, 1e6, x)
    assert check_twin(model.double(), shifted_twin(model, 1e6, x.double()), x.double(), 1e6) < 1e-7


# Maps

ALWAYS = {
    "gradient": Gradient(),
    "saliency": Saliency(),
    "smooth": smooth_grad(num_draws=4, of="data"),
    "absolute": Smooth(Saliency(), AbsoluteScale(0.3), 4),
    "variance": Smooth(Gradient(), RangeScale(0.2, of="data"), 4, statistic="variance"),
    "adapt": adapt_grad(num_draws=4),
    "adapt exact": adapt_grad(num_draws=4, solution="exact"),
    "gi of moved data": IntegratedGradients(num_steps=6),
    "white": IntegratedGradients(smooth_grad(num_draws=2, of="data"), "white", 3),
    "guided": guided_backprop(),
    "cam": grad_cam(),
    "guided cam": guided_grad_cam(),
    "deep lift": CaptumExplainer(DeepLift, baseline="black"),
    "edges": SobelEdges(),
    "random": RandomAttribution(),
}
NEVER = {
    "gi": InputXGradient(),
    "smooth gi": InputXGradient(smooth_grad(num_draws=4)),
    "zero ig": IntegratedGradients(baseline=0.0, num_steps=6),
    "zero deep lift": CaptumExplainer(DeepLift, baseline=0.0),
    "input": InputAttribution(),
}
ON_WEIGHTS = {
    "noise": noise_grad(num_draws=4),
    "additive": PerturbWeights(Gradient(), 0.2, 4, "additive"),
    "fusion": fusion_grad(num_weight_draws=2, num_input_draws=2),
}
both_ways = pytest.mark.parametrize("compensation", ["bias", "input"])


def difference(method, compensation="auto", shift=0.8, name="valid", **options):
    model = build(name)
    twin = shifted_twin(model, shift, images(), compensation)
    scores = invariance_scores(model, twin, shift, images(), None, method, BOUNDS, **options)
    return scores["relative_difference"]


def nothing(values):
    assert_close(values, torch.zeros(5), rtol=0, atol=1e-6)


@both_ways
@pytest.mark.parametrize("method", ALWAYS)
def test_invariant_maps_are_the_same(method, compensation):
    """To rounding, in all similarities too; the edges and the random maps as well, which do not look at the model."""
    model = build("valid")
    twin = shifted_twin(model, CHANNELS, images(), compensation)
    similarities = {name: SIMILARITIES[name] for name in ("spearman", "pearson", "cosine", "ssim")}
    scores = invariance_scores(
        model, twin, CHANNELS, images(), None, ALWAYS[method], BOUNDS, similarities=similarities, seed=4
    )
    assert list(scores) == [*similarities, "relative_difference"]
    nothing(scores.pop("relative_difference"))
    for score in scores.values():
        # equal values of a coarse map may be ranked by their rounding
        assert_close(score, torch.ones(5), rtol=0, atol=1e-3 if "cam" in method else 1e-6)


@both_ways
@pytest.mark.parametrize("method", NEVER)
def test_maps_that_contain_the_input_are_not(method, compensation):
    assert (difference(NEVER[method], compensation) > 0.05).all()


def test_input_times_gradient_differs_by_shift_times_gradient():
    model = build("mlp")
    twin = shifted_twin(model, PATTERN, images())
    before, after = invariance_maps(model, twin, PATTERN, images(), 1, InputXGradient())
    assert_close(after - before, PATTERN * Gradient()(model, images(), 1))


def test_integrated_gradients_from_zero_are_those_from_minus_the_shift():
    model = build("mlp")
    twin = shifted_twin(model, 0.8, images())
    _, after = invariance_maps(model, twin, 0.8, images(), 1, IntegratedGradients(baseline=0.0))
    assert_close(after, IntegratedGradients(baseline=-0.8)(model, images(), 1))


@both_ways
def test_bounds_have_to_move_with_the_data(compensation):
    """AdaptGrad and the black baseline; what does not look at the bounds does not care."""
    for method in (adapt_grad(num_draws=4), IntegratedGradients(num_steps=6)):
        nothing(difference(method, compensation))
        assert (difference(method, compensation, move_bounds=False) > 0.05).all()
    nothing(difference(smooth_grad(num_draws=4), compensation, move_bounds=False))


def test_smooth_grad_by_the_range_of_an_image_is_invariant_to_one_constant_alone():
    """A pattern, or another constant for each channel, changes the range of the image, and with it the noise."""
    by_image, by_data = smooth_grad(num_draws=4), smooth_grad(num_draws=4, of="data")
    nothing(difference(by_image))
    for shift, name in ((CHANNELS, "valid"), (PATTERN, "mlp")):
        assert (difference(by_image, shift=shift, name=name) > 0.01).all()
        for method in (by_data, adapt_grad(num_draws=4)):
            nothing(difference(method, shift=shift, name=name))


def test_edges_see_a_shift_that_varies():
    assert (difference(SobelEdges(), shift=PATTERN, name="mlp") > 0.05).all()


@pytest.mark.parametrize("method", ON_WEIGHTS)
def test_weight_noise_is_invariant_to_a_shift_undone_in_the_input_alone(method):
    """Noise of W and of b - W m do not cancel; the greater the shift is, the less."""
    nothing(difference(ON_WEIGHTS[method], "input"))
    small, large = (difference(ON_WEIGHTS[method], "bias", shift) for shift in (0.1, 3.0))
    assert (large > 0.02).all()
    assert small.mean() < large.mean()


def test_weight_noise_behind_the_first_layer_does_not_matter():
    nothing(difference(PerturbWeights(Gradient(), 0.2, 4, exclude=("0.*",)), "bias"))


def test_noise_in_the_first_layer_by_hand():
    """The noisy twin is the noisy model with another bias: (W ∘ η) m - (W m) ∘ η'."""
    method, model = PerturbWeights(Gradient(), 0.2, 1), build("mlp")
    twin = shifted_twin(model, 0.8, images(), "bias")
    _, after = invariance_maps(model, twin, 0.8, images(), 1, method, seed=2)
    drawn = Context.create(torch.arange(5), 2).model_draw(0)
    weights = method.noisy_weights(model, drawn.seed)
    weight, bias = (f"layers.linear1.{part}" for part in ("weight", "bias"))
    offset = model.layers.linear1.weight.sum(1) * 0.8
    noise = weights[bias] / model.layers.linear1.bias
    weights[bias] = weights[bias] + weights[weight].sum(1) * 0.8 - offset * noise
    expected = copy.deepcopy(model)
    expected.load_state_dict(weights)
    assert_close(after, Gradient()(expected, images(), 1))


def test_both_are_explained_for_the_same_class_and_with_the_same_noise():
    model = build("mlp")
    twin = shifted_twin(model, 0.8, images())
    index, method = torch.tensor([7, 3, 9, 0, 4]), smooth_grad(num_draws=3)
    before, after = invariance_maps(model, twin, 0.8, images(), None, method, index=index, seed=5)
    expected = method(model, images(), model(images()).argmax(1), Context.create(index, 5))
    assert_close(before, expected)
    assert_close(after, expected)
    assert not torch.allclose(expected, method(model, images()))
    # an unrelated twin, which predicts other classes
    _, other = invariance_maps(model, build("dropout"), 0.8, images(), None, Gradient())
    assert_close(other, Gradient()(build("dropout"), images() + 0.8, model(images()).argmax(1)))


def test_scores_do_not_depend_on_the_batch():
    model = build("valid")
    twin = shifted_twin(model, 0.8, images())
    scores = [
        invariance_scores(model, twin, 0.8, images()[rows], 0, noise_grad(num_draws=2), index=torch.arange(5)[rows])
        for rows in (slice(0, 5), slice(0, 2), slice(2, 5))
    ]
    for name, whole in scores[0].items():
        assert_close(torch.cat([part[name] for part in scores[1:]]), whole)


def test_what_is_on_a_bound_stays_on_it_to_the_last_bit():
    for dtype, low in ((torch.float32, -0.4242129623889923), (torch.float64, -0.4)):
        x = torch.full((1, *SIZE), low, dtype=dtype)
        context = Context.create(torch.arange(1), bounds=(low, [1.0, 2.0]))
        x = context.bounds[0].to(dtype).expand_as(x)
        for shift in (torch.tensor(0.3, dtype=dtype), PATTERN.to(dtype)):
            assert torch.equal(shifted_context(context, shift).bounds[0].expand_as(x), x + shift)
    assert shifted_context(context, PATTERN).bounds[1].shape == SIZE
    assert torch.equal(shifted_context(context, PATTERN).keys, context.keys)
    assert shifted_context(Context.create(torch.arange(1)), PATTERN).bounds is None


def test_relative_difference():
    first = torch.zeros(5, 1, 1, 2)
    second = first.clone()
    first[0, 0, 0] = torch.tensor([3.0, 4.0])
    second[0, 0, 0] = torch.tensor([3.0, 3.0])
    first[1] = second[1] = 1e-30
    second[2] = 1.0  # nothing to compare with
    first[3] = second[4] = math.nan
    assert_close(relative_difference(first, second), torch.tensor([0.2, 0.0, *[math.nan] * 3]), equal_nan=True)
    scale = relative_difference(first[:1], 3 * first[:1])
    assert_close(scale, torch.tensor([2.0]))
    assert_close(spearman(first[:1], 3 * first[:1]), torch.tensor([1.0]))


# Bad input


def test_bad_input(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = build("mlp")
    twin = shifted_twin(model, 0.8, images())
    with pytest.raises(ValueError, match=r"`shift` must broadcast .* \(2, 8, 9\), got \(3, 1, 1\)"):
        shifted_twin(model, torch.zeros(3, 1, 1), images())
    with pytest.raises(ValueError, match="`shift` must broadcast"):
        invariance_scores(model, twin, torch.zeros(5, *SIZE), images(), 0, Gradient())
    with pytest.raises(ValueError, match="`shift` must be finite"):
        check_twin(model, twin, images(), math.inf)
    with pytest.raises(ValueError, match="`compensation` must be one of 'auto', 'bias', 'input'"):
        shifted_twin(model, 0.8, images(), "weights")
    with pytest.raises(TypeError, match="`inputs` must be a floating-point"):
        shifted_twin(model, 0.8, images().long())
    with pytest.raises(ValueError, match="`bounds` is needed"):
        invariance_scores(model, twin, 0.8, images(), 0, adapt_grad())
    with pytest.raises(ValueError, match="`context` is of 4 samples"):
        invariance_scores(model, twin, 0.8, images(), 0, Gradient(), index=torch.arange(4))
