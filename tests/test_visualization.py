"""Global explanations: the image's parametrization, the views, the objective under weight noise, and what may fail."""

import weakref
from copy import deepcopy

import numpy as np
import pytest
import torch
from skimage.data import astronaut, chelsea, coffee
from sklearn.datasets import load_sample_images
from torch import nn
from torch.testing import assert_close

from lightning_xai.explainers import Context, PerturbWeights
from lightning_xai.functional.random import fold_in_int
from lightning_xai.visualization import (
    COLOR_DIRECTIONS,
    COLOR_VARIANCES,
    Activation,
    Jitter,
    answers,
    color_mixing,
    correlated_colors,
    find_layer,
    pixels,
    starting_spectrum,
    to_inputs,
    visualize,
    wave_amplitudes,
    waves_image,
)

SHAPE = (3, 12, 10)
BOUNDS = ([-2.0, -1.0, 0.0], [1.0, 2.0, 3.0])
STILL = Jitter(0.0, (1.0, 1.0), 0.0)
NOISE = PerturbWeights(std=0.3, num_draws=5)


def network(seed=0):
    """With everything that weight noise and evaluation mode must treat rightly."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3))
    return nn.ModuleDict({"body": body, "head": nn.Linear(6, 4)}), body


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        parts, _ = network(seed)
        self.body, self.head, self.drop, self.unused = parts["body"], parts["head"], nn.Dropout(), nn.Linear(1, 1)

    def forward(self, images):
        return self.head(self.drop(self.body(images).mean((2, 3))))


# The image


def test_coefficients_of_size_one_make_an_image_of_mean_square_one_with_amplitudes_of_one_over_the_frequency():
    height, width = 12, 10
    spectrum = torch.zeros(1, 1, height, width // 2 + 1, 2)
    spectrum[..., 0] = 1  # those of a single bright pixel
    image = waves_image(spectrum, (1, height, width))
    assert_close(image.square().mean(), torch.tensor(1.0))  # Parseval
    amplitudes = torch.fft.rfft2(image, norm="ortho").abs()[0, 0]
    for row, column in ((1, 0), (0, 1), (2, 3), (4, 5)):
        frequency = np.hypot(row / height, column / width)
        assert_close(amplitudes[row, column] / amplitudes[0, 1], torch.tensor(0.1 / frequency).float())
    assert_close(amplitudes[0, 0], amplitudes[0, 0].new_tensor(12 / 10) * amplitudes[0, 1])


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 7, 9)])
def test_the_waves_of_an_image_are_its_spectrum(shape):
    image = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    coefficients = torch.fft.rfft2(image, norm="ortho") / wave_amplitudes(*shape[1:])
    assert_close(waves_image(torch.view_as_real(coefficients), shape), image)


def test_the_colors_of_uncorrelated_channels_get_the_published_covariance():
    mixing, variances = color_mixing().double(), torch.tensor(COLOR_VARIANCES).double()
    directions = torch.tensor(COLOR_DIRECTIONS).double()
    covariance = directions @ variances.diag() @ directions.T / variances.max()
    assert_close(mixing @ mixing.T, covariance, atol=1e-6, rtol=0)
    assert_close(directions.T @ directions, torch.eye(3).double(), atol=2e-3, rtol=0)  # they are given to four digits
    white = torch.randn(4, 3, 50, 50, generator=torch.Generator().manual_seed(0))
    found = torch.cov(correlated_colors(white).transpose(0, 1).flatten(1)).double()
    assert_close(found, covariance, atol=0.03, rtol=0)


def test_the_inverse_decorrelates_the_colors_of_photographs():
    pictures = [astronaut(), coffee(), chelsea(), *load_sample_images().images]
    colors = torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in pictures]).T / 255.0)
    before, after = torch.corrcoef(colors), torch.corrcoef(torch.linalg.inv(color_mixing().double()) @ colors)
    assert before.det() < 0.05  # 1 where nothing is correlated
    assert after.det() > 0.4  # five pictures are not ImageNet
    assert after[0, 1:].abs().max() < 0.2  # brightness and hue


def test_pixels_are_between_black_and_white_and_start_gray():
    start = pixels(starting_spectrum((0, 1), SHAPE, 0), SHAPE)
    assert_close(start, torch.full_like(start, 0.5), atol=0.02, rtol=0)
    far = pixels(1e4 * starting_spectrum((0, 1), SHAPE, 0), SHAPE)
    assert far.min() >= 0
    assert far.max() <= 1
    low, high = (torch.tensor(bound)[:, None, None] for bound in BOUNDS)
    assert_close(to_inputs(torch.zeros(1, *SHAPE), (low, high))[0], low.expand(SHAPE))
    assert_close(to_inputs(torch.ones(1, *SHAPE), (low, high))[0], high.expand(SHAPE))


# The views


def test_a_view_without_jitter_is_the_image_and_one_with_jitter_is_the_same_for_all_images():
    images = torch.rand(1, 3, 9, 13).repeat(2, 1, 1, 1)
    assert_close(STILL(images, 0), images)
    views = Jitter()(images, 0)
    assert_close(views[0], views[1])
    assert not torch.allclose(views, images)
    assert not torch.allclose(views, Jitter()(images, 1))
    assert_close(Jitter(20.0, (0.5, 2.0), 0.3)(torch.full((1, 1, 9, 13), 0.7), 3), torch.full((1, 1, 9, 13), 0.7))


def test_a_view_turns_zooms_and_shifts(monkeypatch):
    drawn = {}
    monkeypatch.setattr("lightning_xai.visualization.uniform", lambda keys, shape: torch.tensor([drawn["numbers"]]))
    image = torch.rand(1, 1, 8, 8)
    drawn["numbers"] = [1.0, 0.5, 0.5, 0.5]
    assert_close(Jitter(90.0, (1.0, 1.0), 0.0)(image, 0), image.rot90(1, (2, 3)))
    drawn["numbers"] = [0.5, 0.5, 1.0, 0.5]
    assert_close(Jitter(0.0, (1.0, 1.0), 0.25)(image, 0)[..., :6], image[..., 2:])
    drawn["numbers"] = [0.5, 1.0, 0.5, 0.5]
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert_close(Jitter(0.0, (1.0, 2.0), 0.0)(ramp, 0), 3.5 + (ramp - 3.5) / 2)  # the middle is magnified


@pytest.mark.parametrize(
    "options", [{"degrees": -1.0}, {"shift": -0.1}, {"scales": (1.2, 0.8)}, {"scales": (0.0, 1.0)}]
)
def test_views_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="`scales` two rising numbers greater than 0"):
        Jitter(**options)


# What is maximized


def test_a_linear_model_is_answered_by_white_where_its_weight_is_positive_and_black_elsewhere():
    white = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    weights = waves_image(torch.view_as_real(torch.fft.rfft2(white, norm="ortho")), (1, 12, 12))[:, 0]
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 2, bias=False))
    model[1].weight.data = weights.flatten(1)
    found = visualize(model, Activation((0, 1)), (1, 12, 12), (0.0, 1.0), jitter=STILL)
    clear = weights.abs() > 0.3
    assert_close(found.images[:, 0][clear].round(), (weights > 0).float()[clear])
    assert_close(found.trace[-1], weights.clamp(min=0).sum((1, 2)), rtol=0.05, atol=0)


@pytest.mark.parametrize("noise", [None, NOISE])
@pytest.mark.parametrize(
    "activation", [Activation((2,)), Activation((5, 1), "body.3"), Activation((0,), "body.3", center=True)]
)
def test_the_activation_rises(activation, noise):
    found = visualize(Net(), activation, SHAPE, BOUNDS, noise, steps=40, lr=0.1)
    assert found.images.shape == (len(activation.channels), *SHAPE)
    assert found.trace.shape == (40, len(activation.channels))
    assert (found.trace[-5:].mean(0) > found.trace[:5].mean(0)).all()
    assert (
        answers(Net(), activation, found.images, BOUNDS)
        > answers(Net(), activation, torch.full_like(found.images, 0.5), BOUNDS)
    ).all()


def test_activations_are_the_logit_the_mean_of_a_channel_and_its_middle():
    model, images = Net().eval(), torch.randn(2, *SHAPE)
    channel = model.body(images)
    assert_close(Activation((1, 3))(model, images), model(images)[[0, 1], [1, 3]])
    assert_close(Activation((1, 3), "body.3")(model, images), channel.mean((2, 3))[[0, 1], [1, 3]])
    assert_close(Activation((1, 3), "3", center=True)(model, images), channel[[0, 1], [1, 3], 5, 4])
    assert_close(Activation((1, 3), "head")(model, images), model(images)[[0, 1], [1, 3]])
    before = model.body[1](model.body[0](images))  # the ReLU behind it works in place
    assert_close(Activation((1, 3), "body.1")(model, images), before.mean((2, 3))[[0, 1], [1, 3]])


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("models_per_pass", [1, 2, None])
def test_the_mean_over_noisy_networks_is_that_of_noisy_copies(redraw, models_per_pass):
    model, activation, steps = Net(), Activation((2, 0)), 3
    found = visualize(
        model, activation, SHAPE, BOUNDS, NOISE, redraw, steps, 0.1, models_per_pass=models_per_pass, seed=7
    )
    context = Context.create(torch.zeros(0, dtype=torch.int64), seed=7)
    spectrum = starting_spectrum((2, 0), SHAPE, 7).requires_grad_()
    adam = torch.optim.Adam([spectrum], 0.1)
    low, high = (torch.tensor(bound)[:, None, None] for bound in BOUNDS)
    for step in range(steps):
        views = Jitter()(low + (high - low) * pixels(spectrum, SHAPE), fold_in_int(7, step))
        values = []
        for number in range(5):
            copy = deepcopy(model).eval()
            draw = context.model_draw(5 * step + number if redraw else number)
            copy.load_state_dict(NOISE.noisy_weights(model, draw.seed), strict=False)
            values.append(copy(views)[[0, 1], [2, 0]])
        mean = torch.stack(values).mean(0)
        assert_close(found.trace[step], mean.detach())
        adam.zero_grad()
        (-mean.sum()).backward()
        adam.step()
    assert_close(found.images, pixels(spectrum, SHAPE).detach(), rtol=1e-4, atol=1e-5)


def test_answers_are_those_of_the_noisy_networks_of_another_seed():
    model, images = Net().eval(), torch.rand(2, *SHAPE)
    low, high = (torch.tensor(bound)[:, None, None] for bound in BOUNDS)
    found = answers(model, Activation((2, 0)), images, BOUNDS, NOISE, seed=11)
    copy = deepcopy(model)
    copy.load_state_dict(NOISE.noisy_weights(model, fold_in_int(11, 3)), strict=False)
    assert_close(found[3], copy(low + (high - low) * images)[[0, 1], [2, 0]])
    assert found.shape == (5, 2)


def test_many_noisy_networks_are_drawn_again_in_each_step_instead_of_being_kept(monkeypatch):
    run = {"steps": 4, "noise": NOISE}
    kept = visualize(Net(), Activation((1,)), SHAPE, BOUNDS, **run)
    monkeypatch.setattr("lightning_xai.visualization._KEPT_BYTES", 100)
    monkeypatch.setattr("lightning_xai.visualization._PASS_BYTES", 100)
    assert_close(visualize(Net(), Activation((1,)), SHAPE, BOUNDS, **run).trace, kept.trace)


def test_noisy_networks_that_are_not_kept_are_gone_when_the_next_ones_come(monkeypatch):
    alive, most = weakref.WeakSet(), []
    draw = PerturbWeights.noisy_weights

    def counted(self, model, seed):
        weights = draw(self, model, seed)
        alive.add(weights["head.weight"])
        most.append(len(alive))
        return weights

    monkeypatch.setattr(PerturbWeights, "noisy_weights", counted)
    visualize(Net(), Activation((1,)), SHAPE, BOUNDS, NOISE, redraw=True, steps=2, models_per_pass=2)
    assert len(most) == 15  # the start has to have a gradient
    assert max(most) == 2


def test_what_is_not_finite_is_an_error():
    model = Net()
    model.head.weight.data.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"the activation became NaN or infinite; take a smaller `std` of `noise`"):
        visualize(model, Activation((1,)), SHAPE, BOUNDS, steps=2)


class Deaf(nn.Module):
    """Logits: one that is off near gray, one that never is, one that always is."""

    def forward(self, images):
        contrast = images.std((1, 2, 3))
        on = images.mean((1, 2, 3))
        return torch.stack([(contrast - 0.05).relu(), on, 0 * on], 1)


def test_a_start_without_gradient_gets_more_contrast_and_the_others_stay():
    found = visualize(Deaf(), Activation((0, 1)), (1, 12, 12), (0.0, 1.0), steps=20)
    alone = visualize(Deaf(), Activation((1,)), (1, 12, 12), (0.0, 1.0), steps=20)
    assert found.trace[0, 0] > 0
    assert found.trace[-1, 0] > found.trace[0, 0]
    assert_close(found.images[1], alone.images[0])
    message = r"`channels`: those of the logits in \[2\] do not change with the image where it starts"
    with pytest.raises(ValueError, match=message):
        visualize(Deaf(), Activation((1, 2)), (1, 12, 12), (0.0, 1.0), steps=20)


# Laws


def test_the_same_seed_makes_the_same_picture_alone_or_in_company():
    def made(channels, seed):
        return visualize(Net(), Activation(channels), SHAPE, BOUNDS, NOISE, True, steps=10, seed=seed).images

    several = made((3, 0, 1), 5)
    assert torch.equal(several, made((3, 0, 1), 5))
    assert_close(made((1,), 5)[0], several[2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made((1,), 6)[0], several[2], atol=0.01)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("layer", [None, "body.3"])
def test_everything_is_left_as_it_was(fails, layer):
    model = Net()
    model.body.eval()
    model.head.weight.requires_grad_(False)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()

    def look(module, inputs):
        assert not module.training
        if fails:
            raise RuntimeError("the network failed")

    hook = model.body[3].register_forward_pre_hook(look)
    activation = Activation((1,), layer)
    with torch.inference_mode():
        if fails:
            with pytest.raises(RuntimeError, match="the network failed"):
                visualize(model, activation, SHAPE, BOUNDS, NOISE, steps=2)
        else:
            visualize(model, activation, SHAPE, BOUNDS, NOISE, steps=2)
    hook.remove()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.head.weight.requires_grad
    assert model.head.bias.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


# Bad input


def test_a_layer_is_found_by_the_end_of_its_name():
    model = nn.ModuleDict({"a": Net(), "b": nn.Sequential(nn.Linear(1, 1))})
    assert find_layer(model, "a.body.3") is model["a"].body[3]
    assert find_layer(model, "body.3") is model["a"].body[3]
    with pytest.raises(ValueError, match=r"`layer`: '0' may be any of a.body.0, b.0; give more of the name"):
        find_layer(model, "0")
    with pytest.raises(ValueError, match=r"`layer`: 'conv9' is no layer of `model`; it has a.body.0, a.body.1"):
        find_layer(model, "conv9")
    with pytest.raises(ValueError, match="`layer`: '' is no layer"):
        find_layer(model, "")
    many = nn.Sequential(*(nn.Identity() for _ in range(50)))
    with pytest.raises(ValueError, match=r"it has 0, 1, .*, 39, \.\.\. \(50 in all\)"):
        find_layer(many, "x")


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (Activation((4,)), r"`channels` must be in 0 .. 3, those of the logits; got 4"),
        (Activation((1, 6), "body.3"), r"`channels` must be in 0 .. 5, those of body.3; got 6"),
        (Activation((0,), "conv"), r"`layer`: 'conv' is no layer of `model`; it has body.0"),
        (Activation((0,), "unused"), r"`layer`: unused takes no part when `model` is called"),
        (Activation((0,), "head", center=True), r"the output of head must be .*height, width\), got \(1, 4\)"),
    ],
)
@pytest.mark.parametrize("noise", [None, NOISE])
def test_unknown_classes_channels_and_layers_are_named(activation, message, noise):
    with pytest.raises(ValueError, match=message):
        visualize(Net(), activation, SHAPE, BOUNDS, noise, steps=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ()}, r"`channels` must be one or more numbers from 0 on, got \(\)"),
        ({"channels": (1, -1)}, r"`channels` must be one or more numbers from 0 on, got \(1, -1\)"),
        ({"channels": (1,), "center": True}, "`center` needs a `layer` whose output has places"),
    ],
)
def test_activations_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Activation(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"models_per_pass": 0}, "`models_per_pass` must be at least 1, got 0"),
        ({"bounds": (1.0, 0.0)}, "`bounds` must have low < high"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        visualize(Net(), Activation((0,)), SHAPE, **{"bounds": BOUNDS, **options})


def test_noisy_networks_are_independent():
    model, activation = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), Activation((0,))
    noise = PerturbWeights(sampling="antithetic")
    with pytest.raises(ValueError, match=r'`noise` must have `sampling="independent"` networks here, got "antithetic"'):
        visualize(model, activation, (3, 2, 2), (0.0, 1.0), noise)
    with pytest.raises(ValueError, match='got "antithetic"'):
        answers(model, activation, torch.rand(1, 3, 2, 2), (0.0, 1.0), noise)
