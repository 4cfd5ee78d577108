"""What holds on an accelerator, on a simulated one; `test_simulated` runs it, in a process of its own."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import captum.attr as ca
import pytest
import quantus
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_xai as lx
from lightning_xai import metrics, sanity
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.experiments.noise_level import right_under_noise
from lightning_xai.explainers import (
    AbsoluteScale,
    CaptumExplainer,
    Explainer,
    InputAttribution,
    InRangeScale,
    PerturbWeights,
    RandomAttribution,
    RangeScale,
    Smooth,
    SmoothDiff,
    SobelEdges,
    grad_cam,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
)
from lightning_xai.functional import devices
from lightning_xai.functional.random import Strata, fold_in, root_keys, standard_normal, uniform
from lightning_xai.metrics.quantus import QuantusMetric
from lightning_xai.networks import LeNet, ResNet9
from lightning_xai.results.store import read_scores
from lightning_xai.sanity.similarity import cosine
from lightning_xai.visualization import Activation, visualize
from tests.simulated import OWN_PROCESS, Simulation, held

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]

BOUNDS, CLASSES = ([0.0, -1.0, 0.0], [1.0, 1.0, 1.5]), 3
ROUNDING = 1e-5


@pytest.fixture
def sim() -> Iterator[Simulation]:
    if OWN_PROCESS not in os.environ:
        pytest.skip("autograd looks for devices once in a process: run these by test_simulated.py")
    with Simulation() as simulation:
        yield simulation


def network() -> nn.Module:
    """Without ties, which rounding would break."""
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 9, CLASSES),
    )  # fmt: skip
    model[1].running_mean.normal_(std=0.1)
    model[1].running_var.uniform_(0.5, 1.5)
    return model.eval()


def images(number: int = 4) -> Tensor:
    drawn = torch.rand(number, 3, 12, 12, generator=torch.Generator().manual_seed(6))
    drawn[:, 0, :2] = 0.0  # on a bound
    return drawn


def assert_equal_to_rounding(found: Any, wanted: Any) -> None:
    for one, other in zip(*(torch.utils._pytree.tree_leaves(value) for value in (held(found), wanted)), strict=True):
        one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (one, other))
        scale = float(other.nan_to_num().abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=ROUNDING * scale, equal_nan=True)


# The device


def test_the_device_refuses_tensors_of_two_devices_and_counts(sim: Simulation) -> None:
    there, here = torch.arange(6.0, device="sim").view(2, 3), torch.ones(2, 3)
    assert there.device.type == "sim"
    for mixed in (
        lambda: there + here,
        lambda: torch.cat([here, there]),
        lambda: there @ here.T,
        lambda: here[there[0].long() * 0],
        lambda: F.linear(there, here),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    sim.counts()
    doubled = (2 * there).T[1:].flatten()  # one kernel, views, and a copy, since these do not lie in a row
    assert sim.counts() == (2, 0, 0)
    assert torch.equal(held(doubled), torch.tensor([2.0, 8.0, 4.0, 10.0]))
    for read in (there.sum().item, there.tolist, there.cpu, (there > 1).nonzero, lambda: bool((there > 1).all())):
        read()
        assert sim.counts()[1] == 1
    assert here.to("sim").device.type == "sim"
    assert sim.counts() == (1, 1, 1)
    here.to("sim", non_blocking=True)
    assert sim.counts() == (1, 0, 1)
    there[torch.tensor([1])], there[there > 2]
    assert sim.counts()[1:] == (2, 1)


def test_gradients_are_those_of_the_cpu(sim: Simulation) -> None:
    x = torch.tensor([1.0, 2.0], device="sim", requires_grad=True)
    assert torch.equal(held(torch.autograd.grad(x.square().sum(), x)[0]), torch.tensor([2.0, 4.0]))


# Noise


@pytest.mark.parametrize("draw", [standard_normal, uniform])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2**14 // 4,), (2**14 // 4 + 1,), (3, 57, 111)])
def test_noise_is_the_same_bit_for_bit(sim: Simulation, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    keys = root_keys(3, torch.tensor([0, 1, 5, 2**40]))
    assert torch.equal(held(draw(keys, shape, "sim")), draw(keys, shape))
    assert not sim.waits


@pytest.mark.parametrize("shape", [(1,), (3, 5), (3, 57, 111)])
def test_strata_are_the_same_bit_for_bit(sim: Simulation, shape: tuple[int, ...]) -> None:
    keys, numbers = root_keys(3, torch.tensor([0, 1, 2**40])), torch.tensor([4, 0, 6])
    strata, own = Strata(keys, 7, shape), fold_in(keys, numbers[:, None]).flatten()
    assert torch.equal(held(strata.normal(numbers, own, "sim")), strata.normal(numbers, own))
    assert not sim.waits


# Maps

EXPLAINERS: dict[str, Explainer] = {
    "gradient": lx.Gradient(),
    "saliency": lx.Saliency(),
    "input_x_gradient": lx.InputXGradient(),
    "integrated_gradients": lx.IntegratedGradients(num_steps=5),
    "smooth_grad": lx.smooth_grad(num_draws=5),
    "adapt_grad": lx.adapt_grad(num_draws=5),
    "adapt_grad_exact": Smooth(lx.Gradient(), InRangeScale(solution="exact", per_channel=False), 2),
    "noise_grad": lx.noise_grad(num_draws=3),
    "additive": PerturbWeights(lx.Gradient(), num_draws=2, noise="additive", exclude=("*bias",)),
    "fusion_grad": lx.fusion_grad(num_weight_draws=2, num_input_draws=3),
    "range_of_data": Smooth(lx.Gradient(), RangeScale(of="data"), 2, include_clean=True),
    "variance": Smooth(lx.Gradient(), AbsoluteScale(0.3), 4, statistic="variance"),
    "mean_square": replace(lx.noise_grad(num_draws=2), statistic="mean_square"),
    "antithetic": replace(lx.smooth_grad(num_draws=4), sampling="antithetic"),
    "antithetic_weights": replace(lx.noise_grad(num_draws=2), sampling="antithetic"),
    "stratified": replace(lx.adapt_grad(num_draws=5), sampling="stratified"),
    "stratified_weights": replace(lx.fusion_grad(num_weight_draws=3, num_input_draws=2), sampling="stratified"),
    "smooth_diff": SmoothDiff(num_draws=5),
    "until_tolerated": replace(lx.smooth_grad(num_draws=8), tolerance=0.3, max_draws=24),
    "smoothed_integrated_gradients": lx.IntegratedGradients(lx.adapt_grad(num_draws=2), num_steps=2),
    "noise_within_noise": Smooth(PerturbWeights(num_draws=2), AbsoluteScale(0.1), 2),
    "random": RandomAttribution(),
    "input": InputAttribution(),
    "edges": SobelEdges(),
    "grad_cam": grad_cam(),
    "guided_backprop": guided_backprop(),
    "guided_grad_cam": guided_grad_cam(),
    "gradient_shap": gradient_shap(num_draws=3),
    "noisy_grad_cam": PerturbWeights(grad_cam(), num_draws=2),
    "captum_saliency": CaptumExplainer(ca.Saliency),
    "captum_input_x_gradient": CaptumExplainer(ca.InputXGradient),
    "captum_integrated_gradients": CaptumExplainer(ca.IntegratedGradients, {"n_steps": 3}, baseline="black"),
    "captum_deconvolution": CaptumExplainer(ca.Deconvolution),
    "captum_deep_lift": CaptumExplainer(ca.DeepLift),
    "captum_occlusion": CaptumExplainer(ca.Occlusion, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}),
    "captum_ablation": CaptumExplainer(ca.FeatureAblation, {"perturbations_per_eval": 8}),
    "captum_shapley_values": CaptumExplainer(
        ca.ShapleyValueSampling,
        {"n_samples": 1, "feature_mask": torch.arange(6).repeat(12, 2)[None, None]},
        stochastic=True,
    ),
}

CAPTUMS_OWN = {"gradient_shap", "captum_deep_lift", "captum_ablation", "captum_shapley_values"}
"""Captum itself looks at values in these."""


SLOW = {
    *("adapt_grad_exact", "mean_square", "antithetic_weights", "guided_grad_cam", "noisy_grad_cam"),
    *("captum_input_x_gradient", "captum_deconvolution", "captum_ablation", "captum_shapley_values"),
    *("AverageSensitivity", "LocalLipschitz", "InsertionAUC", "PixelFlipping", "Complexity", "RelevanceMassAccuracy"),
}
"""Cousins of others, for the slow run."""


def each(names: Any) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]


@pytest.mark.parametrize("name", each(EXPLAINERS))
def test_maps_are_those_of_the_cpu(sim: Simulation, name: str) -> None:
    method, x, target = EXPLAINERS[name], images(), torch.tensor([0, 2, 1, 1])
    options: dict[str, Any] = {"bounds": BOUNDS, "seed": 4, "index": torch.tensor([3, 0, 9, 1]), "max_rows": 6}
    wanted = lx.explain(network(), x, target, method, **options)
    found = lx.explain(network().to("sim"), x.to("sim"), target.to("sim"), method, **options)
    assert found.device.type == "sim"
    assert_equal_to_rounding(found, wanted)


def test_an_explanation_waits_four_times(sim: Simulation) -> None:
    """With bounds; whatever the draws, passes and models."""
    model, x, target = network().to("sim"), images().to("sim"), torch.tensor([0, 2, 1, 1], device="sim")
    for known in (
        lx.Gradient(),
        lx.noise_grad(num_draws=1),
        SmoothDiff(num_draws=1),
    ):  # a network is looked at when it is new
        lx.explain(model, x, target, known, bounds=BOUNDS, max_rows=6)
    standard_normal(root_keys(0, torch.arange(4)), (2**14,), "sim")  # and the quantiles are copied once
    looks = {"until_tolerated": 3, "captum_integrated_gradients": 1}  # at the tolerance; Captum's
    for name in EXPLAINERS.keys() - CAPTUMS_OWN:
        sim.counts()
        lx.explain(model, x, target, EXPLAINERS[name], bounds=BOUNDS, max_rows=6)
        assert sim.counts()[1] <= 4 + looks.get(name, 0), name


def test_the_predicted_class_and_the_default_number_of_rows(sim: Simulation) -> None:
    wanted = lx.explain(network(), images(40), None, lx.smooth_grad(num_draws=20))
    assert_equal_to_rounding(
        lx.explain(network().to("sim"), images(40).to("sim"), None, lx.smooth_grad(num_draws=20)), wanted
    )


def test_labels_of_the_cpu_are_taken_and_wrong_ones_are_refused(sim: Simulation) -> None:
    model, x = network().to("sim"), images().to("sim")
    target = torch.tensor([0, 2, 1, 1])
    wanted = lx.explain(network(), images(), target, lx.Gradient())
    assert_equal_to_rounding(lx.explain(model, x, target, lx.Gradient()), wanted)
    with pytest.raises(ValueError, match=r"`target` must be in 0 .. 2, .* got values from 0 to 3"):
        lx.explain(model, x, torch.tensor([0, 2, 1, 3]), lx.Gradient())
    with pytest.raises(ValueError, match="`bounds` must hold the inputs"):
        lx.explain(model, x, target, lx.Gradient(), bounds=(0.5, 1.0))


# Scores

METRICS: dict[str, metrics.SampleMetric] = {
    "Sparseness": metrics.Sparseness(),
    "Complexity": metrics.Complexity(),
    "EffectiveComplexity": metrics.EffectiveComplexity(),
    "PointingGame": metrics.PointingGame(),
    "RelevanceMassAccuracy": metrics.RelevanceMassAccuracy(),
    "RelevanceRankAccuracy": metrics.RelevanceRankAccuracy(),
    "LocalizationAUROC": metrics.LocalizationAUROC(),
    "TopKIntersection": metrics.TopKIntersection(k=10),
    "InherentNoise": metrics.InherentNoise(),
    "FaithfulnessCorrelation": metrics.FaithfulnessCorrelation(num_subsets=12, subset_size=20),
    "DeletionAUC": metrics.DeletionAUC(num_steps=4),
    "InsertionAUC": metrics.InsertionAUC(num_steps=4),
    "PixelFlipping": metrics.PixelFlipping(num_steps=4),
    "Infidelity": metrics.Infidelity(num_draws=10, square_size=3),
    "InformationLevel": metrics.InformationLevel(min_score=0.0),
    "AverageSensitivity": metrics.AverageSensitivity(num_draws=2),
    "MaxSensitivity": metrics.MaxSensitivity(num_draws=2),
    "LocalLipschitz": metrics.LocalLipschitz(num_draws=2),
    "Quantus": QuantusMetric(quantus.FaithfulnessEstimate(features_in_step=144, disable_warnings=True)),
}
ON_THE_CPU = ("InformationLevel", "Quantus")
"""Metrics that code pictures, or hand them to another library."""

METHODS = {"gradient": lx.Gradient(), "ag": lx.adapt_grad(num_draws=3), "ng": lx.noise_grad(num_draws=2)}


def masks(number: int = 4) -> Tensor:
    return images(number)[:, 0] > 0.6


@contextmanager
def beyond_explanations(sim: Simulation, without: bool = True) -> Iterator[Counter[str]]:
    """What is waited for within, but for what explanations wait for."""
    found: Counter[str] = Counter()
    explain = Explainer.__call__

    def counted(*arguments: Any, **options: Any) -> Tensor:
        before = sim.waits.copy()
        result = explain(*arguments, **options)
        found.subtract(sim.waits - before)
        return result

    sim.counts()
    with pytest.MonkeyPatch.context() as patch:
        if without:
            patch.setattr(Explainer, "__call__", counted)
        yield found
    found.update(sim.waits)


def test_every_metric_is_tried() -> None:
    ours = {name for name in metrics.__all__ if isinstance(getattr(metrics, name), type)} - {"SampleMetric", "Shared"}
    assert {*METRICS} == ours | {"Quantus"}


@pytest.mark.parametrize("name", each(METRICS))
def test_scores_are_those_of_the_cpu(sim: Simulation, name: str) -> None:
    """And it waits four times, and twice for each method and batch, beyond its explanations."""
    some, options = {name: METRICS[name]}, dict[str, Any](bounds=BOUNDS, batch_size=3)
    target = torch.tensor([0, 2, 1, 1])
    wanted = lx.evaluate(network(), images(), target, METHODS, some, masks(), **options)
    on_sim = [tensor.to("sim") for tensor in (images(), target, masks())]
    model = network().to("sim")
    lx.explain(model, on_sim[0], None, lx.noise_grad(num_draws=1))  # a network is looked at when it is new
    with beyond_explanations(sim) as waits:
        found = lx.evaluate(model, *on_sim[:2], METHODS, some, on_sim[2], **options)
    assert_equal_to_rounding(found.scores, wanted.scores)
    assert all(type(scores) is Tensor for method in found.scores.values() for scores in method.values())
    if name not in ON_THE_CPU:
        assert waits.total() <= 4 + 2 * 2 * len(METHODS)


def test_all_metrics_together_wait_no_longer_than_one(sim: Simulation) -> None:
    model, x, where = (part.to("sim") for part in (network(), images(), masks()))
    some = {name: metric for name, metric in METRICS.items() if name not in ON_THE_CPU}
    lx.explain(model, x, None, lx.noise_grad(num_draws=1))  # a network is looked at when it is new
    with beyond_explanations(sim) as waits:
        lx.evaluate(model, x, None, METHODS, some, where, bounds=BOUNDS, batch_size=3)
    assert waits.total() <= 4 + 2 * 2 * len(METHODS)


def test_nothing_is_copied_to_the_cpu_within_a_loop(sim: Simulation) -> None:
    """Over draws, passes, batches, methods or metrics."""
    model, x, where = (part.to("sim") for part in (network(), images(), masks()))
    lx.explain(model, x, None, lx.noise_grad(num_draws=1))
    metrics = ("Sparseness", "LocalizationAUROC", "FaithfulnessCorrelation", "DeletionAUC", "Infidelity")

    def copies(draws: int, methods: int, number: int, **options: Any) -> Counter[str]:
        some = {str(n): lx.fusion_grad(num_weight_draws=draws, num_input_draws=draws) for n in range(methods)}
        scores = {name: METRICS[name] for name in metrics[:number]}
        with beyond_explanations(sim, without=False) as waits:
            lx.evaluate(model, x, None, some, scores, where, bounds=BOUNDS, keep_attributions=4, **options)
        return Counter({name: times for name, times in waits.items() if "to the CPU" in name})

    few = copies(1, 1, 1)
    assert few == copies(2, 2, 5, batch_size=2, max_rows=3)
    assert few


def test_kept_attributions(sim: Simulation) -> None:
    def kept(device: str) -> Any:
        model, x = network().to(device), images().to(device)
        return lx.evaluate(model, x, None, METHODS, bounds=BOUNDS, batch_size=3, keep_attributions=2).attributions

    assert_equal_to_rounding(kept("sim"), kept("cpu"))


# Apple's GPUs

APPLE = {
    "adapt_grad_exact": lx.metrics.InherentNoise(),
    "noise_grad": metrics.FaithfulnessCorrelation(num_subsets=12, subset_size=20),
    "smooth_grad": metrics.MaxSensitivity(num_draws=2),
    "antithetic_weights": metrics.Infidelity(num_draws=10, square_size=3),
    "guided_backprop": metrics.LocalizationAUROC(),
    "variance": metrics.DeletionAUC(num_steps=4),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if number > 1 else []) for number, name in enumerate(APPLE)]
)
def test_a_device_without_float64(sim: Simulation, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(devices, "_APPLE", "sim")
    sim.without_float64 = True
    with pytest.raises(TypeError, match="float64"):
        torch.ones(2, device="sim").double()

    def scores(device: str) -> Any:
        model, x, where = (part.to(device) for part in (network(), images(), masks()))
        options: dict[str, Any] = {"bounds": BOUNDS, "batch_size": 3, "keep_attributions": 4}
        done = lx.evaluate(model, x, None, {"m": EXPLAINERS[name]}, {"score": APPLE[name]}, where, **options)
        return done.scores, done.attributions

    assert_equal_to_rounding(scores("sim"), scores("cpu"))


def test_noise_is_copied_to_apples_gpus(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers of 64 bits are not to be relied on there."""
    monkeypatch.setattr(devices, "_APPLE", "sim")
    keys, shape = root_keys(3, torch.tensor([0, 2**40])), (3, 57, 111)
    sim.counts()
    drawn = standard_normal(keys, shape, "sim")
    assert (sim.counts()[0], drawn.device.type) == (1, "sim")
    assert torch.equal(held(drawn), standard_normal(keys, shape))
    strata, draws, numbers = Strata(keys, 5, shape), fold_in(keys.repeat(3), 1), torch.tensor([0, 2, 4])
    sim.counts()
    drawn = strata.normal(numbers, draws, "sim")
    assert (sim.counts()[0], drawn.device.type) == (1, "sim")
    assert torch.equal(held(drawn), Strata(keys, 5, shape).normal(numbers, draws))


# Other commands


def test_sanity_checks(sim: Simulation) -> None:
    def cells(device: str) -> list[Any]:
        model, x, target = network().to(device), images().to(device), torch.tensor([0, 2, 1, 1], device=device)
        options = {"labels": target, "randomization": sanity.Randomization(repeats=1)}
        given = model, x, target, torch.arange(4), {"g": lx.Gradient()}, {"cosine": cosine}, (-1.0, 1.0)
        subject = sanity.Subject(*given, **options)
        checks: Any = ("parameters", "invariance")
        return [cell.scores for cell in sanity.examine(subject, checks, "cosine").cells]

    assert_equal_to_rounding(cells("sim"), cells("cpu"))


def test_calibrate_and_visualize(sim: Simulation) -> None:
    def done(device: str) -> Any:
        model, x, target = network().to(device), images().to(device), torch.tensor([0, 2, 1, 1], device=device)
        shown = visualize(
            model, Activation((0, 1)), (3, 12, 12), (-1.0, 1.0), PerturbWeights(num_draws=2), steps=2, models_per_pass=1
        )
        return right_under_noise(model, x, target, 0.1, 3), shown.images

    assert_equal_to_rounding(done("sim"), done("cpu"))


# Training


class SimAccelerator(Accelerator):
    """As much of one as Lightning asks for."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def teardown(self) -> None:
        pass

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return [0]

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("sim", 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "sim"


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network().train()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def test_a_training_with_the_callback(sim: Simulation, tmp_path: Path) -> None:
    def scores(device: str) -> dict[Any, float]:
        data = TensorDataset(images(8), torch.arange(8) % CLASSES)
        loader = DataLoader(data, 4)
        callback = AttributionCallback(
            {"ng": METHODS["ng"], "sg": lx.smooth_grad(num_draws=2)}, bounds=(-1.0, 1.0), num_samples=5, panel_size=1
        )
        where: dict[str, Any] = {"accelerator": "cpu"}
        if device == "sim":
            where = {"strategy": SingleDeviceStrategy(device=torch.device("sim", 0), accelerator=SimAccelerator())}
        trainer = Trainer(
            **where, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path / device, callbacks=[callback],
        )  # fmt: skip
        trainer.fit(Classifier(), loader, loader)
        assert trainer.strategy.root_device.type == device
        trainer.validate(trainer.lightning_module, loader, verbose=False)
        assert callback.folder is not None
        rows = read_scores(callback.folder / "scores")
        return {(row.stage, row.epoch, row.sample, row.method, row.metric): row.value for row in rows}

    found, wanted = scores("sim"), scores("cpu")
    assert found.keys() == wanted.keys()
    assert_equal_to_rounding(list(found.values()), list(wanted.values()))


# What it costs: on a GPU a launch takes some 5 µs, and whoever waits leaves it idle

SMOOTHERS: dict[str, tuple[Callable[[int], Explainer], int]] = {
    "smooth_grad": (lambda n: lx.smooth_grad(num_draws=n), 25),
    "adapt_grad": (lambda n: lx.adapt_grad(num_draws=n), 25),
    "variance": (lambda n: Smooth(lx.Gradient(), AbsoluteScale(0.2), n, statistic="variance"), 25),
    "integrated_gradients": (lambda n: lx.IntegratedGradients(num_steps=n), 25),
    "noise_grad": (lambda n: lx.noise_grad(num_draws=n), 40),
    "antithetic": (lambda n: PerturbWeights(num_draws=n, noise="additive", sampling="antithetic"), 40),
    "stratified": (lambda n: replace(lx.smooth_grad(num_draws=n), sampling="stratified"), 25),
    "stratified_weights": (lambda n: replace(lx.noise_grad(num_draws=n), sampling="stratified"), 40),
}
"""Methods of n passes of four rows, and how many launches a pass may cost beyond a bare one."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in ("adapt_grad", "variance") else []) for n in SMOOTHERS],
)
def test_launches_of_a_pass(sim: Simulation, name: str) -> None:
    assert_within_budget(sim, name, LeNet(), torch.rand(4, 1, 28, 28))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTHERS)
def test_launches_of_a_pass_of_a_deeper_network(sim: Simulation, name: str) -> None:
    assert_within_budget(sim, name, ResNet9(), torch.rand(4, 3, 32, 32))


def test_launches_of_a_pass_with_derivatives(sim: Simulation) -> None:
    """Four of ReLU, two of MaxPool2d, in the place of a backward pass."""
    model, x, target = LeNet().eval().to("sim"), torch.rand(4, 1, 28, 28).to("sim"), torch.arange(4, device="sim")
    bare, found = bare_launches(sim, model, x, target), []
    for number in (1, 2, 6):
        sim.counts()
        lx.explain(model, x, target, SmoothDiff(num_draws=number), bounds=(0.0, 1.0), max_rows=4)
        found.append(sim.counts()[:2])
    (few, waits), (many, more_waits) = found[1:]
    assert (many - few) / 4 <= bare + 20
    assert waits == more_waits <= 4


def assert_within_budget(sim: Simulation, name: str, network: nn.Module, images: Tensor) -> None:
    make, budget = SMOOTHERS[name]
    model, x, target = network.eval().to("sim"), images.to("sim"), torch.arange(4, device="sim")
    bare = bare_launches(sim, model, x, target)

    def explained(number: int) -> tuple[int, int]:
        sim.counts()
        lx.explain(model, x, target, make(number), bounds=(0.0, 1.0), max_rows=4)
        return sim.counts()[:2]

    assert explained(2)[1] <= 12  # a network is looked at when it is new: not at each of its parameters
    (few, waits), (many, more_waits) = explained(2), explained(6)
    assert (many - few) / 4 <= bare + budget
    assert waits == more_waits <= 4


def bare_launches(sim: Simulation, model: nn.Module, x: Tensor, target: Tensor) -> int:
    """Of a forward and a backward pass without this package."""
    sim.counts()
    x = x.detach().requires_grad_()
    torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), x)
    return sim.counts()[0]
