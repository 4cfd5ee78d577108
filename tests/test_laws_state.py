"""The law of leaving things alone: whatever is done to whatever network, everything is as it was afterwards.

`zoo` has the networks. For each the map is right, by plain autograd on an untouched twin, or it is refused by an error
that names the cause; and whether a call succeeds, is refused or is interrupted, nothing is harmed.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import captum.attr as ca
import numpy as np
import pytest
import quantus
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection

import lightning_xai as lx
from lightning_xai import metrics, sanity
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.evaluation import explain
from lightning_xai.experiments.noise_level import right_under_noise
from lightning_xai.explainers import (
    CaptumExplainer,
    Context,
    Explainer,
    InputAttribution,
    PerturbWeights,
    RandomAttribution,
    SmoothDiff,
    SobelEdges,
    Untrained,
    grad_cam,
    gradient_shap,
    guided_backprop,
    guided_grad_cam,
)
from lightning_xai.metrics.quantus import QuantusMetric
from lightning_xai.sanity.similarity import cosine
from lightning_xai.visualization import Activation, answers, visualize
from tests.zoo import CLASSES, MIXED, NO_NOISE, PIXELS, RANDOM, REFUSED, ROWS, SIDE, WHOLE, ZOO, Animal, build

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),  # of torch.utils.checkpoint
    pytest.mark.filterwarnings("ignore:quantized.*an autograd kernel was not registered"),
    pytest.mark.filterwarnings("ignore:`model` treats the rows of a batch together"),  # has a law of its own
]

SEED, BOUNDS = 3, (-1.0, 1.0)
LEFT = ("calls", "seen", "mean", "warm", "last")
"""Python attributes of `python_counters`: no tensors of the same module change with them, and so they are left."""
Task = Callable[[nn.Module, Tensor, Tensor], Any]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """What some of the networks leave behind, when they run by themselves, reaches no other test."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        yield
    torch.set_grad_enabled(True)


# What must be the same


class Snapshot:
    """Everything that must be the same afterwards, by its path: of a model, its inputs and the process.

    Of every module the attributes: identity and bits of tensors with their gradients and flags, numbers, strings and
    None, containers of these, hooks, modes, submodules. Of everything else the identity.
    """

    def __init__(self, model: nn.Module, *tensors: Tensor) -> None:
        self.model, self.tensors = model, tensors
        self.kept: list[Any] = []  # alive, so that no identity is given away again
        self.before = self._look()

    def differences(self) -> list[str]:
        """The paths of what is no longer what it was."""
        now = self._look()
        changed = (path for path in self.before.keys() | now.keys() if self.before.get(path) != now.get(path))
        return sorted(path for path in changed if path.rpartition(".")[2] not in LEFT)

    def _look(self) -> dict[str, Any]:
        self.seen: set[int] = set()
        found: dict[str, Any] = {}
        for name, module in self.model.named_modules():
            self._module(found, name or "model", module)
        for name, parameter in self.model.named_parameters(remove_duplicate=False):  # those of TorchScript, too
            found[f"parameter {name}"] = self._tensor(parameter)
        for number, tensor in enumerate(self.tensors):
            found[f"inputs {number}"] = self._tensor(tensor)
        return found | self._process()

    def _module(self, found: dict[str, Any], name: str, module: nn.Module) -> None:
        if id(module) in self.seen:
            return
        self.seen.add(id(module))
        found[f"{name}: class"] = type(module)
        if isinstance(module, torch.jit.ScriptModule):  # which keeps its own accounts
            found[f"{name}.training"] = module.training
            return
        for attribute, value in vars(module).items():
            found[f"{name}.{attribute}"] = self._image(found, f"{name}.{attribute}", value)

    def _image(self, found: dict[str, Any], path: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, torch.Generator):
            return id(value), value.get_state().numpy().tobytes()
        if value is None or isinstance(value, bool | int | float | str | bytes | torch.dtype | torch.Size):
            return type(value).__name__, repr(value)
        if isinstance(value, Mapping):
            return [(repr(key), self._image(found, f"{path}[{key}]", part)) for key, part in value.items()]
        if isinstance(value, list | tuple):
            return [self._image(found, f"{path}[{number}]", part) for number, part in enumerate(value)]
        if isinstance(value, nn.Module):  # also where PyTorch does not see it
            self._module(found, path, value)
        self.kept.append(value)
        return id(value)

    def _tensor(self, tensor: Tensor) -> Any:
        self.kept.append(tensor)
        facts: tuple[Any, ...] = id(tensor), type(tensor), tensor.requires_grad
        if nn.parameter.is_lazy(tensor):
            return facts
        facts = *facts, tensor.is_inference()
        gradient = tensor.grad if tensor.is_leaf else None
        return *facts, tensor.dtype, tensor.stride(), bits(tensor), None if gradient is None else bits(gradient)

    def _process(self) -> dict[str, Any]:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        hooks = [value for key, value in vars(nn.modules.module).items() if key.startswith("_global_")]
        return {
            "random state of torch": bits(torch.get_rng_state()),
            "random state of NumPy": (kind, keys.tobytes(), *rest),
            "random state of Python": random.getstate(),
            "gradients enabled": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "default dtype": torch.get_default_dtype(),
            "global hooks": [len(value) if isinstance(value, Mapping) else value for value in hooks],
        }


def bits(tensor: Tensor) -> tuple[Any, bytes]:
    flat = tensor.detach().cpu().contiguous().flatten()
    return tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def unsettle(model: nn.Module) -> None:
    """Mixed modes, and a gradient on some of the parameters."""
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 1
    for number, parameter in enumerate(model.parameters()):
        if number % 2 == 0 and parameter.is_floating_point() and not nn.parameter.is_lazy(parameter):
            with torch.inference_mode(parameter.is_inference()):
                parameter.grad = torch.full_like(parameter, 0.5)


# What is done


def by(method: Explainer, **options: Any) -> Task:
    return lambda model, x, target: explain(model, x, target, method, bounds=BOUNDS, seed=SEED, **options)


MAPS: dict[str, Explainer] = {
    "gradient": lx.Gradient(),
    "noise_grad": lx.noise_grad(num_draws=2),
    "fusion_grad": lx.fusion_grad(num_weight_draws=2, num_input_draws=2),
}
EXPLAINERS: dict[str, Explainer] = {
    **MAPS,
    "saliency": lx.Saliency(),
    "input_x_gradient": lx.InputXGradient(),
    "integrated_gradients": lx.IntegratedGradients(num_steps=3),
    "smooth_grad": lx.smooth_grad(num_draws=2),
    "adapt_grad": lx.adapt_grad(num_draws=2),
    "smoothed_integrated_gradients": lx.IntegratedGradients(lx.smooth_grad(num_draws=2), num_steps=2),
    "variance": replace(lx.noise_grad(num_draws=2), statistic="variance"),
    "antithetic": replace(lx.noise_grad(num_draws=2), sampling="antithetic", noise="additive"),
    "stratified": PerturbWeights(
        replace(lx.smooth_grad(num_draws=2), sampling="stratified"), num_draws=2, sampling="stratified"
    ),
    "smooth_diff": SmoothDiff(num_draws=2),
    "until_tolerated": replace(lx.smooth_grad(num_draws=8), tolerance=0.5, max_draws=16),
    "some_weights": PerturbWeights(lx.Gradient(), num_draws=2, exclude=("*bias*",)),
    "random": RandomAttribution(),
    "input": InputAttribution(),
    "edges": SobelEdges(),
    "untrained": Untrained(lx.noise_grad(num_draws=2)),
    "grad_cam": grad_cam(),
    "guided_backprop": guided_backprop(),
    "guided_grad_cam": guided_grad_cam(),
    "gradient_shap": gradient_shap(num_draws=2),
    "noisy_grad_cam": PerturbWeights(grad_cam(), num_draws=2),
    "captum_saliency": CaptumExplainer(ca.Saliency),
    "captum_deconvolution": CaptumExplainer(ca.Deconvolution),
    "captum_deep_lift": CaptumExplainer(ca.DeepLift),
    "captum_occlusion": CaptumExplainer(ca.Occlusion, {"sliding_window_shapes": (1, 3, 3), "strides": (1, 3, 3)}),
    "captum_kernel_shap": CaptumExplainer(ca.KernelShap, {"n_samples": 3}, stochastic=True),
}


def scored(metric: metrics.SampleMetric) -> Task:
    """A metric's update, given everything that it may ask for."""

    def update(model: nn.Module, x: Tensor, target: Tensor) -> Any:
        context = Context.create(torch.arange(len(x)), SEED, BOUNDS)
        fresh = metric.clone()
        MetricCollection(fresh, compute_groups=False).update(
            x.detach().clone(),
            inputs=x,
            target=target,
            model=model,
            explainer=lx.noise_grad(num_draws=1),
            context=context,
            bounds=context.bounds,
            index=torch.arange(len(x)),
        )
        return fresh.per_sample()[1]

    return update


METRICS: dict[str, metrics.SampleMetric] = {
    "FaithfulnessCorrelation": metrics.FaithfulnessCorrelation(num_subsets=2, subset_size=4),
    "DeletionAUC": metrics.DeletionAUC(num_steps=2),
    "InsertionAUC": metrics.InsertionAUC(num_steps=2),
    "PixelFlipping": metrics.PixelFlipping(num_steps=2),
    "Infidelity": metrics.Infidelity(num_draws=2, square_size=2),
    "InformationLevel": metrics.InformationLevel(min_score=0.0),
    "AverageSensitivity": metrics.AverageSensitivity(num_draws=2),
    "LocalLipschitz": metrics.LocalLipschitz(num_draws=1),
    "MaxSensitivity": metrics.MaxSensitivity(num_draws=1),
    "Quantus": QuantusMetric(quantus.FaithfulnessEstimate(features_in_step=12, disable_warnings=True)),
}


def evaluated(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    scores = {"infidelity": METRICS["Infidelity"], "sensitivity": METRICS["MaxSensitivity"]}
    return lx.evaluate(model, x, None, MAPS, scores, bounds=BOUNDS, batch_size=2, keep_attributions=1).scores


def visualized(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    noise = PerturbWeights(num_draws=2)
    return visualize(model, Activation((0, 1)), tuple(x.shape[1:]), BOUNDS, noise, steps=1, models_per_pass=1).images


def visualized_layer(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    names = [name for name, module in model.named_modules() if name and not list(module.children())]
    shape: Any = tuple(x.shape[1:])
    return visualize(model, Activation((0,), names[0]), shape, BOUNDS, PerturbWeights(num_draws=2), steps=1).images


def answered(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    activation = Activation(tuple(range(len(x))))
    return answers(model, activation, x.detach().clamp(0, 1), BOUNDS, PerturbWeights(num_draws=2))


def examined(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    methods = {"gradient": lx.Gradient(), "noise_grad": lx.noise_grad(num_draws=1)}
    index, similarities = torch.arange(len(x)), {"cosine": cosine}
    options = {"labels": target, "randomization": sanity.Randomization(repeats=1)}
    subject = sanity.Subject(model, x, target, index, methods, similarities, BOUNDS, **options)
    checks: Any = ("parameters", "invariance", "efficient", "random_logit")
    return sanity.examine(subject, checks, "cosine").cells


def shifted(model: nn.Module, x: Tensor, target: Tensor) -> Any:
    twin = sanity.shifted_twin(model, 0.5, x)
    return sanity.invariance_scores(model, twin, 0.5, x, target, lx.Gradient(), BOUNDS)


COMMANDS: dict[str, Task] = {
    "calibrate": lambda model, x, target: right_under_noise(model, x, target, 0.1, 2),
    "visualize": visualized,
    "visualize_layer": visualized_layer,
    "answers": answered,
    "evaluate": evaluated,
    "precision": by(lx.noise_grad(num_draws=1), precision="bf16-mixed"),
    "cosine_convergence": lambda model, x, target: sanity.cosine_convergence(model, x)[1],
    "efficient_mprt": lambda model, x, target: sanity.efficient_mprt(model, x, target, lx.Gradient()),
    "random_logit": lambda model, x, target: sanity.random_logit(model, x, target, lx.Gradient()),
    "evidence": lambda model, x, target: sanity.evidence(model, x, target),
    "randomize": lambda model, x, target: sanity.randomize(
        model, sanity.parameter_blocks(model, x), batch_norm="recalibrate", images=x
    ),
    "shifted_twin": shifted,
}
EXAMINE: dict[str, Task] = {"examine": examined}  # the slowest

TASKS: dict[str, Task] = {
    **{name: by(method) for name, method in EXPLAINERS.items()},
    **{name: scored(metric) for name, metric in METRICS.items()},
    **COMMANDS,
}


# What comes of it


class Interrupted(RuntimeError):
    pass


class Failing(nn.Module):
    """A network that raises, after its pass, from some pass on."""

    def __init__(self, model: nn.Module, passes: int) -> None:
        super().__init__()
        self.model, self.left = model, iter(range(passes))  # no number, which would be put back

    def forward(self, x: Tensor) -> Any:
        output = self.model(x)
        if next(self.left, None) is None:
            raise Interrupted("no more")
        return output


def named(error: Exception) -> bool:
    """Whether this is a refusal in the package's own words, and not a crash somewhere inside."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    inside = trace is not None and "lightning_xai" in Path(trace.tb_frame.f_code.co_filename).parts
    return inside and isinstance(error, ValueError | TypeError) and "`" in str(error)


def outcome(task: Task, model: nn.Module, x: Tensor) -> Any:
    """The result, or the refusal."""
    try:
        return task(model, x, classes(x))
    except Exception as error:
        if not (named(error) or isinstance(error, Interrupted)):
            raise
        return error


def classes(x: Tensor) -> Tensor:
    return torch.arange(len(x)) % CLASSES


def harmed(task: Task, name: str, passes: int | None = None) -> tuple[list[str], Any]:
    """What is different after the task, and its outcome."""
    model, x = build(name)
    if passes is not None:
        model = Failing(model, passes)
    unsettle(model)
    before = Snapshot(model, x)
    result = outcome(task, model, x)
    return before.differences(), result


# The references


def reference(name: str, weights: Mapping[str, Tensor]) -> Tensor:
    """Gradients by plain autograd on fresh twins with these weights: row by row, or of the whole batch in one pass."""
    rows = len(build(name)[1])
    parts = [slice(0, rows)] if name in WHOLE else [slice(row, row + 1) for row in range(rows)]
    return torch.cat([_gradient(*twin(name, weights), part) for part in parts])


def twin(name: str, weights: Mapping[str, Tensor]) -> Animal:
    """An equal network in evaluation mode, with these weights."""
    model, x = build(name)
    for module in model.modules():
        module.training = False
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for names in (vars(module), module._buffers, module._parameters):
            names.update({key: ordinary(value) for key, value in names.items() if inference(value)})
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for parameter, value in weights.items():
            parameters[parameter].copy_(value)
    return model, x


def inference(value: Any) -> bool:
    return isinstance(value, Tensor) and not nn.parameter.is_lazy(value) and value.is_inference()


def ordinary(value: Tensor) -> Tensor:
    """A copy that takes part in backward passes."""
    copy = value.clone()
    return nn.Parameter(copy) if isinstance(value, nn.Parameter) else copy


def _gradient(model: nn.Module, x: Tensor, rows: slice) -> Tensor:
    leaf = x.detach()[rows].clone().requires_grad_()
    with torch.compiler.set_stance("force_eager"):
        logits = model(leaf.clone())  # a copy, which the network may write to
    torch.set_grad_enabled(True)
    return torch.autograd.grad(logits[torch.arange(len(leaf)), classes(x)[rows]].sum(), leaf)[0]


def right_map(name: str, method: str) -> Tensor:
    """What the method should say, weight noise given to twins by hand."""
    model, x = build(name)
    if method == "gradient":
        return reference(name, {})
    context = Context.create(torch.arange(len(x)), SEED, BOUNDS)
    noise: Any = MAPS[method]
    drawn = []
    for number in range(noise.num_draws):
        weights = noise.noisy_weights(model, context.model_seed(number))
        if method == "noise_grad":
            drawn.append(reference(name, weights).abs())
        else:
            drawn.append(noise.explainer(*twin(name, weights), classes(x), context.model_draw(number)))
    return torch.stack(drawn).mean(0)


FLOAT32, FLOAT16, BFLOAT16 = {"rtol": 1e-4, "atol": 1e-6}, {"rtol": 0.02, "atol": 0.003}, {"rtol": 0.1, "atol": 0.03}
TOLERANCES = {"in_float16": FLOAT16, "in_bfloat16": BFLOAT16, "half_inside": BFLOAT16, "autocast_inside": BFLOAT16}


# The laws


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("name", ZOO)
def test_a_map_is_right_or_refused_and_nothing_is_harmed(name: str, method: str) -> None:
    model, x = build(name)
    unsettle(model)
    before = Snapshot(model, x)
    found = outcome(by(MAPS[method]), model, x)
    assert before.differences() == []
    refusal = REFUSED.get(name) or (method != "gradient" and NO_NOISE.get(name))
    if refusal:
        with pytest.raises((ValueError, TypeError), match=refusal):
            raise found if isinstance(found, Exception) else AssertionError("a map came back")
        return
    assert isinstance(found, Tensor), found
    if method != "fusion_grad":  # which takes long
        assert torch.equal(found, outcome(by(MAPS[method]), model, x)), "another map the second time"
    if name not in RANDOM:
        tolerance = TOLERANCES.get(name, FLOAT32)
        assert_close(found, right_map(name, method).to(found.dtype), **tolerance)


@pytest.mark.parametrize("name", [name for name in ZOO if name not in REFUSED and name not in RANDOM])
def test_a_map_does_not_depend_on_the_rows_of_a_pass(name: str) -> None:
    model, x = build(name)
    whole, parts = (outcome(by(lx.Gradient(), max_rows=rows), model, x) for rows in (None, 2))
    if isinstance(parts, Exception):
        assert name in WHOLE
        assert "`max_rows`" in str(parts)
    else:
        assert_close(parts, whole, **TOLERANCES.get(name, FLOAT32))


@pytest.mark.parametrize("name", sorted(MIXED))
def test_that_a_row_sees_the_others_is_said(name: str) -> None:
    model, x = build(name)
    with pytest.warns(UserWarning, match="`model` treats the rows of a batch together"):
        explain(model, x, classes(x), lx.Gradient(), bounds=BOUNDS)


@pytest.mark.parametrize("passes", [0, 2])
@pytest.mark.parametrize("name", ZOO)
def test_nothing_is_harmed_by_an_interruption(name: str, passes: int) -> None:
    assert harmed(by(MAPS["noise_grad"]), name, passes)[0] == []


REPRESENTATIVES = (
    "block_under_two_names",
    "spectral_norm_old",
    "metrics_inside",
    "dropout_always_on",
    "batch_norm_without_statistics",
    "compiled_in_place",
)


PAIRS = [(REPRESENTATIVES[(place + step) % 6], task) for place, task in enumerate(TASKS) for step in (0, 3)]
"""Each task on two of the networks, in turn; `test_nothing_is_harmed_by_anything` has all pairs."""


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_nothing_is_harmed_by_any_task(name: str, task: str) -> None:
    assert harmed(TASKS[task], name)[0] == []


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", REPRESENTATIVES[:2])
def test_nothing_is_harmed_by_a_task_that_is_interrupted(name: str, task: str) -> None:
    assert harmed(TASKS[task], name, passes=1)[0] == []


@pytest.mark.parametrize("passes", [None, 3])
@pytest.mark.parametrize("name", REPRESENTATIVES[:2])
def test_nothing_is_harmed_by_sanity_checks(name: str, passes: int | None) -> None:
    assert harmed(examined, name, passes)[0] == []


@pytest.mark.parametrize("task", ["Quantus", "cosine_convergence", "random_logit", "calibrate"])
@pytest.mark.parametrize("name", ["clamps_its_weights", "momentum_copy"])
def test_weights_that_forward_writes_to_come_back_also_where_nobody_looked_at_it_before(name: str, task: str) -> None:
    assert harmed(TASKS[task], name)[0] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_nothing_is_harmed_by_anything(name: str) -> None:
    """Whatever comes of it: also where a method fails on a network that others can explain."""
    bad = []
    for (title, task), passes in product((TASKS | EXAMINE).items(), (None, 0, 1, 3)):
        model, x = build(name)
        model = model if passes is None else Failing(model, passes)
        unsettle(model)
        before = Snapshot(model, x)
        with suppress(Exception):
            task(model, x, classes(x))
        differences = before.differences()
        torch.set_grad_enabled(True)
        bad += [(title, passes, differences)] if differences else []
    assert bad == []


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_nothing_is_harmed_where_gradients_are_off(name: str, mode: Any) -> None:
    model, x = build(name)
    unsettle(model)
    with mode():
        before = Snapshot(model, x)
        found = outcome(by(MAPS["noise_grad"]), model, x)
        assert before.differences() == []
    assert torch.equal(found, outcome(by(MAPS["noise_grad"]), model, x))


# Training


class Trained(LightningModule):
    """A network in training."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0].clone()).float(), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("loss", self.training_step(batch, 0))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in nn.Module.parameters(self) if p.requires_grad], 0.05, momentum=0.9)


class Around(Callback):
    """Two of these, before and after the callback: what is different between them."""

    def __init__(self, first: "Around | None" = None) -> None:
        self.first, self.before, self.differences = first, list[Snapshot](), list[str]()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.first is None:
            self.before.append(Snapshot(pl_module))
        else:
            self.differences += self.first.before[-1].differences()

    on_test_epoch_end = on_validation_epoch_end


def trained(name: str, folder: Path, methods: Mapping[str, Explainer] | None) -> tuple[Trained, list[str], int]:
    """The module after training and test, what changed around the callback, and how often it was looked at."""
    net, x = build(name)
    module, size = Trained(net), 2 * len(x)
    images = torch.rand(size, *x.shape[1:], generator=torch.Generator().manual_seed(2))
    loader = DataLoader(TensorDataset(images, torch.arange(size) % CLASSES), batch_size=len(x))
    first = Around()
    last = Around(first)
    callback = AttributionCallback(dict(methods or {}) or None, bounds=BOUNDS, num_samples=len(x), panel_size=0)
    callbacks = [] if methods is None else [first, callback, last]
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        default_root_dir=folder,
    )
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    return module, last.differences, len(first.before)


@pytest.mark.parametrize("name", ["block_under_two_names", "metrics_inside", "compiled_in_place"])
def test_training_is_what_it_would_be_without_the_callback(name: str, tmp_path: Path) -> None:
    plain, _, _ = trained(name, tmp_path, None)
    alone = torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    watched, differences, looks = trained(name, tmp_path, MAPS)
    assert looks == 4  # sanity check, two epochs, test
    assert differences == []
    assert_close((torch.rand(3), random.random(), np.random.rand()), alone, rtol=0, atol=0)  # noqa: NPY002
    assert_close(dict(watched.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)


# Weight noise


def test_an_equal_share_of_names_is_one_weight() -> None:
    """A shared weight has one noise; `include` and `exclude` see all of its names."""
    for name in ("block_under_two_names", "list_with_one_block_twice", "tied_parameter", "parameter_under_two_names"):
        model, _ = build(name)
        every = [known for known, _ in model.named_parameters(remove_duplicate=False)]
        unique = dict(model.named_parameters())
        assert PerturbWeights().noisy_weights(model, 0).keys() == unique.keys()
        for second in set(every) - unique.keys():
            first = next(known for known, value in unique.items() if value is model.get_parameter(second))
            assert list(PerturbWeights(include=(second,)).noisy_weights(model, 0)) == [first]
            assert first not in PerturbWeights(exclude=(second,)).noisy_weights(model, 0)
            assert_close(
                PerturbWeights(include=(second,)).noisy_weights(model, 0)[first],
                PerturbWeights().noisy_weights(model, 0)[first],
                rtol=0,
                atol=0,
            )


def test_noise_is_for_numbers_alone() -> None:
    for name in ("boolean_parameter", "integer_parameters", "empty_and_scalar_parameters", "complex_parameter"):
        model, _ = build(name)
        weights = PerturbWeights().noisy_weights(model, 0)
        for known, value in model.named_parameters():
            if value.is_floating_point():
                assert weights[known].dtype == value.dtype
                assert torch.equal(weights[known], value) == (value.numel() == 0)
            elif not value.is_complex():
                assert known not in weights


def test_a_network_that_differentiates_by_its_weights_does_so_under_noise_too() -> None:
    """Its backward pass in front of a plain network changes nothing."""
    model, x = build("leaves_gradients")
    noise, activation, labels = PerturbWeights(std=0.5, num_draws=3), Activation((0, 1)), torch.arange(ROWS) % CLASSES
    for see in (
        lambda net: visualize(net, activation, (1, SIDE, SIDE), BOUNDS, noise, steps=2).images,
        lambda net: answers(net, activation, x[:2], BOUNDS, noise),
        lambda net: torch.from_numpy(right_under_noise(net, x, labels, 0.5, num_draws=5)),
        lambda net: lx.explain(net, x, 0, PerturbWeights(num_draws=2)),
    ):
        assert_close(see(model), see(model.body))


def test_weights_that_cannot_have_noise_are_refused() -> None:
    model, _ = build("integer_parameters")
    with pytest.raises(ValueError, match=r"`include`.*order"):
        PerturbWeights(include=("order",)).noisy_weights(model, 0)


def test_counts_of_calls_are_left_alone() -> None:
    model, x = build("python_counters")
    lx.explain(model, x, 0)
    assert model.calls > 1
    assert model.seen["rows"] > len(x)
    assert model.warm


def test_hooks_of_the_first_pass_go_with_the_flag_that_tells_of_them() -> None:
    """As transformers records hidden states: without the hooks, but with the flag, there would be none afterwards."""

    class Recording(nn.Sequential):
        recorded: list[Tensor]
        hooked = False

        def forward(self, x: Tensor) -> Tensor:
            if not self.hooked:
                self[0].register_forward_hook(lambda module, given, output: self.recorded.append(output))
                self.hooked = True
            self.recorded = []
            super().forward(x)
            return self.recorded[0]

    model = Recording(nn.Linear(3, 2), nn.Linear(2, 2)).eval()
    for _ in range(2):
        assert_close(lx.explain(model, torch.ones(1, 3), 1, lx.Gradient()), model[0].weight[1:].detach())
        assert "hooked" not in vars(model)
    model(torch.ones(1, 3))
    assert_close(lx.explain(model, torch.ones(1, 3), 1, lx.smooth_grad()), model[0].weight[1:].detach())
    assert model.hooked
    assert len(model[0]._forward_hooks) == 1


def test_the_zoo_says_what_it_has() -> None:
    assert REFUSED.keys() | NO_NOISE.keys() | RANDOM | MIXED <= ZOO.keys()
    assert set(REPRESENTATIVES) <= ZOO.keys()
    assert SIDE * SIDE == PIXELS
    assert all(function.__doc__ for function in ZOO.values())
