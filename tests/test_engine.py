"""What the engine refuses or tells by name, and what it may cost: paths, single outputs, undefined maps, many draws."""

import contextlib
import copy
import warnings
from pathlib import Path

import captum.attr as ca
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, MeanSquaredError

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.explainers import (
    CaptumExplainer,
    Context,
    Gradient,
    IntegratedGradients,
    PerturbWeights,
    Saliency,
    Smooth,
    grad_cam,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
)
from lightning_xai.explainers.chunks import groups
from lightning_xai.metrics import DeletionAUC, Sparseness
from lightning_xai.sanity import cosine_convergence, efficient_mprt, paper_methods
from lightning_xai.visualization import Activation, answers, visualize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus

    from lightning_xai.metrics.quantus import QuantusMetric

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def linear(classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


class Broken(nn.Module):
    """A linear network whose path from the input is cut."""

    def __init__(self, how):
        super().__init__()
        self.body, self.head, self.how = linear(4), nn.Linear(4, 3), how

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                return self.head(self.body(x))
        if self.how == "inference_mode":
            with torch.inference_mode():
                h = self.body(x)
            return self.head(h.clone())
        if self.how == "integers":
            return self.head(self.body((x * 255).long().float()))
        if self.how == "decorated":
            return torch.no_grad()(lambda x: self.head(self.body(x)))(x)
        if self.how == "constant":
            return self.head(torch.zeros(len(x), 4))
        return self.head(self.body(x.detach()))


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "integers", "decorated", "detach", "constant"])
@pytest.mark.parametrize(
    "method",
    [
        Gradient(),
        lx.smooth_grad(num_draws=2),
        lx.noise_grad(num_draws=2),
        CaptumExplainer(ca.Saliency),
        gradient_shap(0.0),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_path_that_is_cut_is_told_with_cause_and_cure(how, method):
    with pytest.raises(ValueError, match=r"`model` gives outputs that do not depend.*requires_grad_\(False\)"):
        lx.explain(Broken(how), IMAGES, 0, method)


class Cubed(nn.Module):
    def forward(self, x):
        return x**3


def test_undefined_maps_are_told_by_name_and_score_nan():
    model, images = linear(), IMAGES.clone()
    images[1] *= 1e38  # its logits overflow where they are cubed
    cubed = nn.Sequential(model, Cubed())
    with pytest.warns(UserWarning, match=r"NaN or infinite values: gradient \(1\) samples, whose scores are NaN\.$"):
        found = lx.evaluate(cubed, images, 1, {"gradient": Gradient()}, {"s": Sparseness()})
    assert found.scores["gradient"]["s"].isnan().tolist() == [False, True, False]
    with torch.no_grad():
        model[1].weight[1] = torch.nan
    with pytest.warns(UserWarning, match=r"Saliency \(3\).*Its parameters have such values too: 1\.weight"):
        lx.explain(model, IMAGES, 1, Saliency())


@pytest.mark.parametrize("method", [Smooth(num_draws=10**9), PerturbWeights(num_draws=10**9)])
def test_a_thousand_million_draws_begin_at_once(method):
    blocks = method.draws(linear(), IMAGES, torch.zeros(3, dtype=torch.int64), Context.create(torch.arange(3)))
    assert next(blocks).shape[1:] == IMAGES.shape
    assert next(groups(10**9, linear(), IMAGES, 6)).tolist() == [0, 1]


class Counted(nn.Module):
    """Counts the rows of its passes."""

    def __init__(self):
        super().__init__()
        self.layer, self.rows = nn.Linear(64, 3), []

    def forward(self, x):
        self.rows.append(len(x))
        return self.layer(x.flatten(1))


def test_weight_noise_inside_a_smoother_is_fresh_for_each_of_its_draws():
    """Of a linear network under one noisy model a draw: the error of the mean is that of independent draws."""
    model, target = linear(), torch.zeros(1, dtype=torch.int64)
    method = Smooth(PerturbWeights(Gradient(), std=0.2, num_draws=1), num_draws=25)
    found = [method.moments(model, IMAGES[:1], target, Context.create(torch.arange(1), seed)) for seed in range(25)]
    means = torch.stack([moments.mean.flatten() for moments in found])
    told = torch.stack([moments.standard_error.flatten() for moments in found]).square().mean(0).sqrt()
    weight = model[1].weight[0].detach()
    torch.testing.assert_close(told, 0.2 * weight.abs() / 5, rtol=0.15, atol=0)
    ratios = (means - weight).square().mean(0).sqrt() / told
    assert 0.9 < ratios.mean() < 1.1  # 4.5 times as much where all draws share the noisy model


@pytest.mark.parametrize(("num_draws", "sampling"), [(7, "independent"), (14, "antithetic")])
@pytest.mark.parametrize("make", [Smooth, PerturbWeights])
def test_a_tolerance_wants_enough_draws_at_a_time(make, num_draws, sampling):
    with pytest.raises(ValueError, match=r"`num_draws` must be at least (8|16) with a `tolerance`"):
        make(num_draws=num_draws, sampling=sampling, tolerance=0.1)
    make(num_draws=num_draws + (2 if sampling == "antithetic" else 1), sampling=sampling, tolerance=0.1)


class Mixing(nn.Module):
    """Batch statistics in evaluation mode."""

    def __init__(self, detached=False):
        super().__init__()
        self.head, self.detached = nn.Linear(64, 3), detached

    def forward(self, x):
        x = x.flatten(1)
        mean = x.mean(0, keepdim=True)
        return self.head(torch.tanh(x - (mean.detach() if self.detached else mean)))


@pytest.mark.filterwarnings("ignore:`model` treats the rows of a batch together")
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("max_rows", [None, 3])
def test_networks_that_mix_rows_are_told_and_see_the_batch_whole(detached, max_rows):
    model = Mixing(detached)
    inputs = IMAGES.clone().requires_grad_()
    right = torch.autograd.grad(model(inputs)[:, 1].sum(), inputs)[0]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")  # each call says it, at the line that made it, once
        for _ in range(2):
            torch.testing.assert_close(lx.explain(model, IMAGES, 1, Gradient(), max_rows=max_rows), right)
        lx.evaluate(model, IMAGES, 1, {name: Gradient() for name in "ab"}, {"auc": DeletionAUC(4, 0.0)})
    assert len(told) == 3
    assert all("rows of a batch together" in str(one.message) for one in told)
    assert not any(Path(one.filename).is_relative_to(Path(lx.__file__).parent) for one in told)
    smooth = [lx.explain(model, IMAGES, 1, lx.smooth_grad(num_draws=n)) for n in (1, 2)]
    draws = Smooth(num_draws=2).draws(model, IMAGES, torch.ones(3).long(), Context.create(torch.arange(3)))
    first, second = draws
    torch.testing.assert_close(smooth[0], first[0])
    torch.testing.assert_close(smooth[1], (first + second)[0] / 2)


def test_networks_that_mix_rows_refuse_to_be_parted():
    with pytest.warns(UserWarning, match="together"), pytest.raises(ValueError, match="`max_rows` is 2, but `model`"):
        lx.explain(Mixing(), IMAGES, 1, Gradient(), max_rows=2)


class Fixed(nn.Module):
    """A batch size written in the code, or lost where it is one; or any."""

    def __init__(self, how):
        super().__init__()
        self.head, self.how = nn.Linear(64, 3), how

    def forward(self, x):
        if self.how == "any":
            return self.head(x.flatten(1))
        return self.head(x.view(3, 64)) if self.how == "view" else self.head(x.squeeze().flatten(-2))


@pytest.mark.parametrize("how", ["view", "squeeze"])
@pytest.mark.parametrize(
    "method",
    [
        Gradient(),
        lx.smooth_grad(num_draws=3),
        IntegratedGradients(baseline=0.0, num_steps=2),
        lx.fusion_grad(num_weight_draws=2),
    ],
    ids=lambda method: type(method).__name__,
)
def test_networks_that_take_one_batch_size_get_it(how, method):
    model = Fixed(how)
    reference = nn.Sequential(nn.Flatten(), model.head)
    torch.testing.assert_close(lx.explain(model, IMAGES, None, method), lx.explain(reference, IMAGES, None, method))
    if how == "view":
        with pytest.raises(ValueError, match=r"`model` failed with 2 rows.*batches of one size only"):
            lx.explain(model, IMAGES[:2], 0, method)


class Batches(pl.LightningModule):
    """A batch size written in the code."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        return self.head(x.view(4, 64))

    def validation_step(self, batch, _):
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*")
def test_the_callback_gives_a_network_the_batches_that_it_takes(tmp_path):
    images, labels = torch.rand(8, 1, 8, 8), torch.randint(0, 3, (8,))
    methods = {"gradient": Gradient(), "smooth": lx.smooth_grad(num_draws=2)}
    callback = AttributionCallback(methods, batch_size=4, panel_size=3, bounds=(0.0, 1.0))
    module, quiet = Batches(), {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(callbacks=[callback], default_root_dir=tmp_path, **quiet)
    trainer.validate(module, DataLoader(TensorDataset(images, labels), 4), verbose=False)
    expected = module.head.weight.detach()[labels].view(8, 1, 8, 8)
    torch.testing.assert_close(callback.evaluation.attributions["gradient"], expected[:3])
    assert callback.evaluation.scores["smooth"]["sparseness"].isfinite().all()


class Compiled(pl.LightningModule):
    def __init__(self, compile_):
        super().__init__()
        self.net = compile_(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_training_has_no_more_graphs_with_the_callback(tmp_path):
    def fit(*callbacks):
        torch._dynamo.reset()
        graphs = []

        def backend(graph, example_inputs):
            graphs.append(graph)
            return graph.forward

        data = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.randint(0, 3, (8,))), 4)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        trainer = pl.Trainer(max_epochs=3, callbacks=list(callbacks), default_root_dir=tmp_path, **options)
        trainer.fit(Compiled(lambda net: torch.compile(net, backend=backend)), data, data)
        return len(graphs)

    plain = fit()
    methods = {"gradient": Gradient(), "noise": lx.noise_grad(num_draws=2)}
    assert fit(AttributionCallback(methods, num_samples=3, panel_size=0, bounds=(0.0, 1.0))) == plain >= 2


class Keeping(nn.Module):
    """Keeps what it computes from its weights where it cannot be put back."""

    def __init__(self):
        super().__init__()
        self.weight, self.kept = nn.Parameter(torch.randn(3, 64, generator=torch.Generator().manual_seed(0))), []

    def forward(self, x):
        if not self.kept:
            self.kept.append(self.weight * 2)
        return torch.tanh(x.flatten(1) @ self.kept[0].T)


@pytest.mark.parametrize("target", [None, 1])
def test_a_network_that_hides_its_noise_is_told_and_keeps_none_of_it(target):
    model, twin = Keeping(), Keeping()
    for _ in range(2):
        with pytest.warns(UserWarning, match="same logits with noise on its weights as without"):
            lx.explain(model, IMAGES, target, lx.noise_grad(num_draws=2))
    torch.testing.assert_close(model(IMAGES), twin(IMAGES), rtol=0, atol=0)


def test_attributes_that_hold_themselves_or_much_are_no_obstacle():
    model, twin = linear(), linear()
    model.config = {"depth": 1}
    model.config["self"], model.many = model.config, list(range(10**6))
    deep = model.deep = []
    for _ in range(3000):
        deep.append([])
        deep = deep[0]
    for method in (Gradient(), lx.noise_grad(num_draws=2)):
        torch.testing.assert_close(lx.explain(model, IMAGES, 0, method), lx.explain(twin, IMAGES, 0, method))


@pytest.mark.parametrize("how", ["view", "squeeze"])
def test_sanity_checks_of_networks_that_take_one_batch_size(how):
    model, free = Fixed(how), Fixed("any")
    free.load_state_dict(model.state_dict())
    (places, cosines), (expected_places, expected) = (cosine_convergence(each, IMAGES) for each in (model, free))
    assert places == expected_places == ("input", "head")
    torch.testing.assert_close(cosines, expected)
    torch.testing.assert_close(*(efficient_mprt(each, IMAGES, 0, Gradient()) for each in (model, free)))


@pytest.mark.parametrize("how", ["view", "squeeze"])
def test_what_gives_a_network_single_samples_is_refused_where_it_does_not_take_them(how):
    faithfulness = quantus.FaithfulnessCorrelation(nr_runs=3, subset_size=4, disable_warnings=True)
    for method, metrics in (
        (gradient_shap(0.0), {}),
        (Gradient(), {"faithfulness": QuantusMetric(faithfulness)}),
        (Gradient(), {"sensitivity": QuantusMetric(quantus.MaxSensitivity(nr_samples=2, disable_warnings=True))}),
    ):
        with pytest.raises(
            ValueError, match="`model` treats the 3 rows of its batch together, or does not take a single"
        ):
            lx.evaluate(Fixed(how), IMAGES, 0, {"method": method}, metrics)
    sparse = QuantusMetric(quantus.Sparseness(disable_warnings=True))
    assert (
        lx.evaluate(Fixed(how), IMAGES, 0, {"g": Gradient()}, {"sparse": sparse}).scores["g"]["sparse"].isfinite().all()
    )


HALF = {torch.float16: 5e-3, torch.bfloat16: 5e-2, torch.float64: 1e-5}


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_networks_of_other_types_and_libraries_that_know_float32_alone(dtype):
    """Captum draws, Quantus perturbs and an image is made in float32: as for the same network in float32."""
    model, images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)), IMAGES.to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())  # a number in every type
    single, other = copy.deepcopy(model), model.to(dtype)
    tolerance = {"rtol": 0, "atol": HALF[dtype]}
    for method in (gradient_shap(0.0), gradient_shap("black", std=0.1)):
        expected = lx.explain(single, images.float(), 0, method, bounds=(0.0, 1.0))
        found = lx.explain(other, images, 0, method, bounds=(0.0, 1.0))
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, **tolerance)
    faithfulness = quantus.FaithfulnessEstimate(features_in_step=16, disable_warnings=True, perturb_baseline="black")
    scores = [
        lx.evaluate(each, rows, 0, {"g": Gradient()}, {"q": QuantusMetric(faithfulness)}).scores["g"]["q"]
        for each, rows in ((single, images.float()), (other, images))
    ]
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=20 * HALF[dtype])
    activation, noise = Activation((0, 2)), PerturbWeights(std=0.1, num_draws=2)
    seen = [visualize(each, activation, (1, 8, 8), (0.0, 1.0), noise, steps=2) for each in (single, other)]
    assert seen[1].images.dtype == seen[1].trace.dtype == torch.float32
    torch.testing.assert_close(seen[1].images, seen[0].images, **tolerance)
    torch.testing.assert_close(seen[1].trace, seen[0].trace, **tolerance)
    told = [answers(each, activation, seen[0].images, (0.0, 1.0), noise) for each in (single, other)]
    torch.testing.assert_close(told[1], told[0], **tolerance)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_layers_inside_of_torchscript_are_refused():
    body = torch.jit.script(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()))
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for scripted in (model, torch.jit.script(model)):
        with pytest.raises(
            ValueError, match=r"`model` has no convolution but in TorchScript.*the module that it was made"
        ):
            lx.explain(scripted, IMAGES, 0, grad_cam())
        with pytest.raises(ValueError, match=r'`layer` "0" is TorchScript.*the module that it was made of'):
            lx.explain(scripted, IMAGES, 0, grad_cam("0"))


class Scored(pl.LightningModule):
    """A network that keeps count of its own outputs."""

    def __init__(self, metric):
        super().__init__()
        self.net, self.metric = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3)), metric

    def forward(self, x):
        logits = self.net(x)
        self.metric(*[logits.sum(1)] * (2 if isinstance(self.metric, MeanSquaredError) else 1))
        return logits


def test_deep_lift_of_a_network_with_a_metric_in_it():
    model = Scored(MeanMetric())
    torch.testing.assert_close(
        *(lx.explain(each, IMAGES, 0, CaptumExplainer(ca.DeepLift)) for each in (model, model.net))
    )
    with pytest.raises(ValueError, match=r'it has no rule for .* in "metric" \(MeanSquaredError\)'):
        lx.explain(Scored(MeanSquaredError()), IMAGES, 0, CaptumExplainer(ca.DeepLift))


class Functions(nn.Module):
    """A rectifier and a convolution that are modules, and one of each that are functions."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.weight, self.head = (
            nn.Conv2d(1, 2, 3),
            nn.ReLU(),
            nn.Parameter(torch.rand(2, 2, 3, 3)),
            nn.Linear(2, 3),
        )

    def forward(self, x):
        return self.head(F.conv2d(self.relu(self.first(x)), self.weight).relu().mean((2, 3)))


class Patches(nn.Module):
    """A convolution whose maps become tokens."""

    def __init__(self):
        super().__init__()
        self.patch, self.mix, self.head = (
            nn.Conv2d(1, 4, 2, 2),
            nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        return self.head(self.mix(self.patch(x).flatten(2).mT).mean(1))


@pytest.mark.parametrize("model", [Functions, Patches, linear], ids=lambda make: make.__name__)
def test_the_papers_methods_are_those_that_are_not_refused(model):
    model = model()
    named = {"guided_backprop": guided_backprop(), "grad_cam": grad_cam(), "guided_grad_cam": guided_grad_cam()}
    admitted = set()
    for name, method in named.items():
        with contextlib.suppress(ValueError):
            method(model, IMAGES, 0)
            admitted.add(name)
    assert named.keys() & paper_methods(model, True, IMAGES).keys() == admitted
    assert "gradient" in paper_methods(model, True, IMAGES)
