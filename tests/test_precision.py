"""The explained model in bfloat16: only the model, only meanwhile, and with nearly the same maps."""

import jaxtyping
import pytest
import torch
from scipy import stats
from torch import nn

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.data import DigitsDataModule
from lightning_xai.experiments.papers import Lab
from lightning_xai.explainers.precision import in_precision
from lightning_xai.networks import LeNet
from lightning_xai.studies.networks import TrainedNetwork

IMAGES = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


class Watched(nn.Module):
    """Notes the arithmetic of its forward passes."""

    def __init__(self):
        super().__init__()
        self.layer, self.autocast, self.fails = nn.Linear(784, 3), [], False

    def forward(self, x):
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        if self.fails:
            raise ArithmeticError("no")
        return self.layer(x.flatten(1))


def arithmetic():
    """What float32 products are, as PyTorch's newer settings say, and its older ones where these can be read."""
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    places = [cuda.matmul, *(getattr(room, name, None) for room in (cudnn, mkldnn) for name in ("conv", "rnn"))]
    places.append(getattr(mkldnn, "matmul", None))
    try:
        older = (torch.get_float32_matmul_precision(), cudnn.allow_tf32)
    except RuntimeError:
        older = None
    return newer(places), newer([torch.backends, cudnn, mkldnn]), older


def newer(places):
    """PyTorch 2.9 and later have them."""
    return [place.fp32_precision for place in places if hasattr(place, "fp32_precision")]


HAS_NEWER = hasattr(torch.backends, "fp32_precision")


def of_both_kinds():
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.conv.fp32_precision = "ieee"


CALLERS = {
    "nothing": lambda: None,
    "products": lambda: torch.set_float32_matmul_precision("medium"),
    "convolutions": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "one": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "both": of_both_kinds,
}


@pytest.fixture
def kept_arithmetic():
    """PyTorch's defaults, to which the next test has a right."""
    yield
    if HAS_NEWER:
        torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for part in (torch.backends.cuda, torch.backends.mkldnn) if HAS_NEWER else ():
        part.matmul.fp32_precision = "none"


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("precision", ["32-true", "tf32", "bf16-mixed"])
def test_products_of_float32_do_not_follow_the_caller_whose_settings_come_back(kept_arithmetic, caller, precision):
    if caller in ("one", "all", "both") and not HAS_NEWER:
        pytest.skip("this release of PyTorch does not have the newer settings")
    CALLERS[caller]()
    before = arithmetic()

    class Noting(nn.Flatten):
        def forward(self, x):
            seen.append(arithmetic())
            return super().forward(x)

    seen, model = [], Noting()
    model.register_full_backward_hook(lambda *_: seen.append(arithmetic()))
    lx.explain(model, IMAGES, 0, lx.Gradient(), precision=precision)
    kind = "tf32" if precision == "tf32" else "ieee"
    assert {tuple(products) for products, *_ in seen} == {(kind,) * (6 if HAS_NEWER else 0)}
    assert len(seen) > 2
    if before[-1] is not None:
        assert {older for *_, older in seen} == {("high", True) if kind == "tf32" else ("highest", False)}
    assert arithmetic() == before
    with pytest.raises(ArithmeticError), in_precision(model, precision):
        raise ArithmeticError
    assert arithmetic() == before


@pytest.mark.parametrize(("precision", "half"), [("32-true", False), ("tf32", False), ("bf16-mixed", True)])
def test_the_callers_autocast_does_not_reach_the_model(precision, half):
    model = Watched()
    expected = lx.explain(model, IMAGES, 0, lx.Gradient(), precision=precision)
    with torch.autocast("cpu", torch.bfloat16):
        found = lx.explain(model, IMAGES, 0, lx.Gradient(), precision=precision)
        assert torch.is_autocast_enabled("cpu")
    assert set(model.autocast) == {half}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def lenet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LeNet().eval()


def without_ties():
    """No maximum and no rectifier, of which rounding may choose the other side."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        pooled = [part for layer in (first, second) for part in (layer, nn.Tanh(), nn.AvgPool2d(2))]
        return nn.Sequential(*pooled, nn.Flatten(), nn.Linear(256, 10))


@pytest.mark.parametrize(("precision", "half"), [("32-true", False), ("bf16-mixed", True)])
def test_the_model_runs_in_the_precision_and_returns_single_precision(precision, half):
    model = Watched()
    with in_precision(model, precision):
        output = model(IMAGES)
        assert not torch.is_autocast_enabled("cpu")
    assert model.autocast == [half]
    assert output.dtype == torch.float32
    assert torch.equal(output, output.bfloat16().float()) == half, "computed in bfloat16"
    model(IMAGES)
    assert model.autocast == [half, False]
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_nothing_is_left_when_the_model_raises():
    model = Watched()
    model.fails = True
    with pytest.raises(ArithmeticError):
        lx.explain(model, IMAGES, 0, lx.Gradient(), precision="bf16-mixed")
    assert model.autocast[-1]
    assert not torch.is_autocast_enabled("cpu")
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    "method",
    [lx.Gradient(), lx.smooth_grad(num_draws=10), lx.noise_grad(num_draws=4), lx.IntegratedGradients(num_steps=8)],
    ids=lambda method: type(method).__name__,
)
def test_maps_rank_nearly_as_in_single_precision(method):
    model = without_ties()
    exact, fast = (
        lx.explain(model, IMAGES, 3, method, bounds=(0.0, 1.0), precision=precision)
        for precision in ("32-true", "bf16-mixed")
    )
    assert exact.dtype == fast.dtype == torch.float32
    assert not torch.equal(exact, fast)
    for one, other in zip(exact.flatten(1), fast.flatten(1), strict=True):
        assert stats.spearmanr(one, other).statistic > 0.999
        assert (one - other).abs().max() < 0.03 * one.abs().max()


def test_evaluation_and_callback_pass_it_on():
    model = Watched()
    lx.evaluate(model, IMAGES, 0, {"gradient": lx.Gradient()}, precision="bf16-mixed")
    assert all(model.autocast)
    assert AttributionCallback(precision="bf16-mixed").conditions.precision == "bf16-mixed"


def test_networks_of_experiments_run_in_the_precision_of_the_lab():
    network = TrainedNetwork(Watched(), DigitsDataModule(), 1.0, {})
    lab = Lab(device="cpu", precision="bf16-mixed", progress=False)
    with pytest.raises(ValueError, match=r"`labels` must be in 0 \.\. 2, the outputs of `model`"):
        lab.noise_level(network, lab.samples(network, 4, "validate"))
    assert set(network.model.autocast) == {True}


def test_gradients_are_counted_in_any_precision():
    methods = {"smooth_grad": lx.smooth_grad(num_draws=3)}
    scores = lx.evaluate(lenet(), IMAGES, 0, methods, precision="bf16-mixed").scores["smooth_grad"]
    assert scores["gradients"].tolist() == [3.0] * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: lx.explain(lenet(), IMAGES, 0, precision="16-true"),
        lambda: lx.evaluate(lenet(), IMAGES, 0, precision="16-true"),
        lambda: AttributionCallback(precision="16-true"),
    ],
    ids=["explain", "evaluate", "callback"],
)
def test_unknown_precision(make, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"`precision` must be one of '32-true', 'tf32', .*, got '16-true'\."):
        make()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_models_are_refused():
    scripted = torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), IMAGES)
    with pytest.raises(ValueError, match='`precision` must be "32-true" or "tf32" for a TorchScript model'):
        lx.explain(scripted, IMAGES, 0, lx.Gradient(), precision="bf16-mixed")
