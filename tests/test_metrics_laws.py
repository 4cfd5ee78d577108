"""What holds for every metric of the package: one list of them all, and one test a law."""

import copy
import math
import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchmetrics import MetricCollection

import lightning_xai.metrics
from lightning_xai import evaluate, fusion_grad, noise_grad, smooth_grad
from lightning_xai.explainers import Context, Explainer, Gradient, RandomAttribution
from lightning_xai.explainers.base import explaining
from lightning_xai.functional.random import root_keys
from lightning_xai.metrics import SampleMetric, Shared
from lightning_xai.outputs import At

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(10, 3, 8, 8, generator=GENERATOR)
MASKS = torch.rand(10, 8, 8, generator=GENERATOR) < 0.3
INDEX = torch.tensor([30, 2, 17, 4, 11, 6, 70, 8, 9, 1])
BOUNDS = (0.0, 1.0)
SEED = 2  # with its random pixels alone every image has less of its class than whole: all scores are defined
SHARE = MASKS.float().mean((1, 2))


ANY = object()


@dataclass(frozen=True)
class Facts:
    """What is said of a metric: constructor arguments that make it fast, and the outcome of the special cases.

    `zero` and `constant` are its scores of a map of zeros and of a map of equal values: a number, one for each sample,
    or ANY, a score like that of other maps. `rounding` is by how much scores may differ between batches of other
    sizes, for which a processor may take other kernels.
    """

    higher_is_better: bool
    zero: Any = math.nan
    constant: Any = math.nan
    settings: dict[str, Any] = field(default_factory=dict)
    depends_on_scale: bool = False
    ignores_the_map: bool = False
    rounding: float = 1e-5


def curve(higher_is_better: bool) -> Facts:
    return Facts(higher_is_better, settings={"num_steps": 4})


def localization(chance: Any = SHARE, zero: Any = SHARE, **settings: Any) -> Facts:
    return Facts(True, zero, chance, settings)


FACTS = {
    "AverageSensitivity": Facts(False, constant=0.0, settings={"num_draws": 2}),
    "Complexity": Facts(False, constant=math.log(64)),
    "DeletionAUC": curve(False),
    "EffectiveComplexity": Facts(False, constant=64.0),
    "FaithfulnessCorrelation": Facts(True, settings={"num_subsets": 6, "subset_size": 9}),
    "Infidelity": Facts(False, constant=ANY, settings={"num_draws": 6, "square_size": 3}),
    "InformationLevel": Facts(True, settings={"min_score": 0.0}, rounding=2e-4),  # over gains down to 0.002
    "InherentNoise": Facts(False, ANY, ANY, ignores_the_map=True),
    "InsertionAUC": curve(True),
    "LocalLipschitz": Facts(False, 0.0, 0.0, {"num_draws": 2}, depends_on_scale=True),
    "LocalizationAUROC": localization(0.5, 0.5),
    "MaxSensitivity": Facts(False, constant=0.0, settings={"num_draws": 2}),
    "PixelFlipping": curve(True),
    "PointingGame": localization(),
    "RelevanceMassAccuracy": localization(zero=math.nan),
    "RelevanceRankAccuracy": localization(),
    "Sparseness": Facts(True, constant=0.0),
    "TopKIntersection": localization(k=9),
}
each = pytest.mark.parametrize("name", FACTS)


def build(name: str, **settings: Any) -> SampleMetric:
    return getattr(lightning_xai.metrics, name)(**FACTS[name].settings | settings)


ALL = {name: build(name) for name in FACTS}
MAPS_ONLY = [name for name, facts in FACTS.items() if not facts.ignores_the_map]


def network() -> nn.Module:
    """Sees texture, not brightness; smooth, with the layers whose training mode is another one."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        convolution = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Softplus(beta=5), nn.Dropout())
        convolution[0].weight.data -= convolution[0].weight.data.mean((2, 3), keepdim=True)
        return nn.Sequential(convolution, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 4)).train()


def spoken_for(model: nn.Module) -> torch.Tensor:
    """The class that each image speaks for, compared with a flat one: the gain of the prediction is defined for it."""
    flat = IMAGES.mean((2, 3), keepdim=True).expand_as(IMAGES)
    with explaining(model), torch.no_grad():
        return (model(IMAGES).softmax(1) - model(flat).softmax(1)).argmax(1)


TARGET = spoken_for(network())


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network()


# Explainers for the laws


@dataclass(frozen=True)
class Changed(Explainer):
    """Base: what another explainer says, changed."""

    explainer: Explainer

    def attribute(self, model: Any, inputs: Any, target: Any, context: Any) -> Any:
        return self.change(self.explainer.attribute(model, inputs, target, context), context)

    def noise_std(self, inputs: Any, context: Any) -> Any:
        return self.explainer.noise_std(inputs, context)

    def change(self, attributions: torch.Tensor, context: Context) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Scaled(Changed):
    factor: float = 1.0

    def change(self, attributions: torch.Tensor, context: Context) -> torch.Tensor:
        return attributions * self.factor


@dataclass(frozen=True)
class Filled(Changed):
    value: float = 0.0

    def change(self, attributions: torch.Tensor, context: Context) -> torch.Tensor:
        return torch.full_like(attributions, self.value)


@dataclass(frozen=True)
class Rounded(Changed):
    """In the precision `dtype`, and back again if `back`."""

    dtype: torch.dtype = torch.float16
    back: bool = False

    def change(self, attributions: torch.Tensor, context: Context) -> torch.Tensor:
        rounded = attributions.to(self.dtype)
        return rounded.to(attributions.dtype) if self.back else rounded


@dataclass(frozen=True)
class Spoiled(Changed):
    """One element of one sample has the value `bad`, also where the explainer runs again."""

    row: int = 3
    bad: float = math.nan

    def change(self, attributions: torch.Tensor, context: Context) -> torch.Tensor:
        attributions[context.keys == root_keys(SEED, INDEX)[self.row], 0, 0, 0] = self.bad
        return attributions


METHOD = smooth_grad(num_draws=2)


def scores(
    model: nn.Module, metrics: Any, method: Explainer = METHOD, rows: Any = slice(None), **options: Any
) -> dict[str, torch.Tensor]:
    """By metric, in the order of the indices."""
    given = {"masks": MASKS[rows], "bounds": BOUNDS, "index": INDEX[rows], "seed": SEED}
    images, target = options.pop("images", IMAGES)[rows], TARGET[rows]
    result = evaluate(model, images, target, {"method": method}, metrics, **given | options).scores["method"]
    return {name: result[name] for name in metrics}


def by_index(values: Any) -> torch.Tensor:
    """A score for each row, or for all, in the order of the indices."""
    return torch.as_tensor(values).expand(10)[INDEX.argsort()]


def feed(metric: SampleMetric, model: nn.Module, rows: list[int], method: Explainer = METHOD, **others: Any) -> None:
    """One batch, with everything that a metric may ask for."""
    context = Context.create(INDEX[rows], SEED, BOUNDS)
    given = {"inputs": IMAGES[rows], "target": TARGET[rows], "mask": MASKS[rows], "index": INDEX[rows]} | others
    attributions = given.pop("attributions", None)
    if attributions is None:
        attributions = method(model, given["inputs"], given["target"], context)
    MetricCollection(metric, compute_groups=False).update(
        attributions,
        **given,
        noise_std=method.noise_std(given["inputs"], context),
        bounds=context.bounds,
        model=model,
        context=context,
        explainer=method,
        shared=Shared(),
    )


# The list


def test_every_metric_of_the_package_is_in_the_list():
    exported = (getattr(lightning_xai.metrics, name) for name in lightning_xai.metrics.__all__)
    classes = {c.__name__ for c in exported if isinstance(c, type) and issubclass(c, SampleMetric)}
    assert classes - {"SampleMetric"} == set(FACTS)


@each
def test_the_direction(name):
    assert ALL[name].higher_is_better is FACTS[name].higher_is_better


def assert_same_scores(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To the rounding of passes with other numbers of rows."""
    assert actual.keys() == expected.keys()
    for name, values in actual.items():
        assert_close(values, expected[name], rtol=1e-5, atol=FACTS[name].rounding)


# From the scores to the value


@each
def test_the_value_is_the_mean_of_the_defined_scores(model, name):
    metric = build(name)
    feed(metric, model, [0, 1, 2, 3, 4], Spoiled(METHOD))
    feed(metric, model, [5, 6, 7], Spoiled(METHOD))
    index, values = metric.per_sample()
    defined = values[~values.isnan()]
    assert index.tolist() == sorted(INDEX[:8].tolist())
    assert (values.dtype, len(defined)) == (torch.float32, 8 - metric.num_undefined())
    assert metric.num_undefined() == (0 if FACTS[name].ignores_the_map else 1)
    assert_close(metric.compute(), defined.sum() / len(defined))
    assert_close(metric.standard_error(), defined.std() / math.sqrt(len(defined)))


@each
def test_reset_forgets_everything(model, name):
    metric, fresh = build(name), build(name)
    feed(metric, model, [0, 1, 2])
    metric.reset()
    for each_metric in (metric, fresh):
        feed(each_metric, model, [3, 1])
    assert_close(metric.per_sample(), fresh.per_sample(), rtol=0, atol=0)


@each
def test_pickled_between_two_batches(model, name):
    metric, whole = build(name), build(name)
    feed(metric, model, [0, 1, 2])
    twin = pickle.loads(pickle.dumps(metric))
    feed(twin, model, [3, 4])
    for rows in ([0, 1, 2], [3, 4]):
        feed(whole, model, rows)
    assert_close(twin.per_sample(), whole.per_sample(), rtol=0, atol=0)
    assert len(metric.per_sample()[0]) == 3


# Which samples, in which order, in what company


@pytest.mark.parametrize(
    ("method", "batch_size"),
    [
        pytest.param(METHOD, 1, id="SG-1"),
        pytest.param(METHOD, 3, id="SG-3"),
        pytest.param(noise_grad(num_draws=2), 1, id="NG-1", marks=pytest.mark.slow),
        pytest.param(noise_grad(num_draws=2), 3, id="NG-3"),
        pytest.param(fusion_grad(num_weight_draws=2, num_input_draws=2), 1, id="FG-1", marks=pytest.mark.slow),
        pytest.param(fusion_grad(num_weight_draws=2, num_input_draws=2), 3, id="FG-3"),
    ],
)
def test_scores_do_not_depend_on_the_batch(model, method, batch_size):
    whole = scores(model, ALL, method)
    parts = scores(model, ALL, method, batch_size=batch_size, max_rows=5)
    assert_same_scores(parts, whole)


def test_scores_belong_to_their_samples_whatever_the_order(model):
    order = [4, 9, 0, 7, 1, 2, 8, 6, 5, 3]
    assert_same_scores(scores(model, ALL, rows=order), scores(model, ALL))


def test_scores_in_inference_mode_are_those_outside_it(model):
    expected = scores(model, ALL)
    with torch.inference_mode():
        actual = scores(model, ALL, images=IMAGES.clone(), masks=MASKS.clone())
    assert_close(actual, expected, rtol=0, atol=1e-6)


@each
def test_a_single_sample(model, name):
    metric, whole = build(name), scores(model, ALL)[name]
    feed(metric, model, [4])
    assert_close(metric.compute(), whole[INDEX.argsort().tolist().index(4)], rtol=0, atol=FACTS[name].rounding)
    assert metric.standard_error().isnan()


@each
def test_a_repeated_index_counts_once(model, name):
    metric, once = build(name), build(name)
    feed(metric, model, [0, 1, 1, 2])
    feed(metric, model, [2, 0])
    feed(once, model, [0, 1, 2])
    assert_close(metric.per_sample(), once.per_sample(), rtol=0, atol=FACTS[name].rounding)


# Scale


FREE = {name: metric for name, metric in ALL.items() if not FACTS[name].depends_on_scale}


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_the_scale_of_the_attribution_does_not_matter(model, factor):
    """Powers of two are exact."""
    scaled = scores(model, FREE, Scaled(METHOD, factor))
    assert_close(scaled, scores(model, FREE), rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_attribution_does_not_matter_up_to_rounding(model, factor):
    assert_close(scores(model, FREE, Scaled(METHOD, factor)), scores(model, FREE), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-28, 1e28])
def test_nor_do_tiny_and_huge_attributions_lose_their_score(model, factor):
    assert_close(scores(model, FREE, Scaled(METHOD, factor)), scores(model, FREE), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("LocalLipschitz", {}),
        ("MaxSensitivity", {"relative_to": "input"}),
        ("AverageSensitivity", {"relative_to": "change"}),
    ],
)
def test_changes_that_are_not_relative_to_the_attribution_grow_with_it(model, name, settings):
    metric = {name: build(name, **settings)}
    doubled = scores(model, metric, Scaled(METHOD, 2.0))[name]
    assert_close(doubled, 2 * scores(model, metric)[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Sparseness", {"offset": 1.0}), ("EffectiveComplexity", {"threshold": 1e-3, "relative": False})],
)
def test_settings_in_the_attributions_own_unit_make_the_scale_matter(model, name, settings):
    """More of a map stands out of an offset, or over a threshold, the larger its values are."""
    metric = {name: build(name, **settings)}
    small, large = (scores(model, metric, Scaled(METHOD, factor))[name] for factor in (0.01, 100.0))
    assert (small < large).all()


# Precision


PRECISIONS = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])


@PRECISIONS
def test_attributions_of_any_precision_have_the_score_of_the_same_values_in_float32(model, dtype):
    """Robustness metrics subtract two of them, rounded apart: half precision loses digits there."""
    actual = scores(model, ALL, Rounded(METHOD, dtype))
    expected = scores(model, ALL, Rounded(METHOD, dtype, back=True))
    assert {values.dtype for values in actual.values()} == {torch.float32}
    assert_close(actual, expected, rtol=1e-5, atol=1e-6)


class Wide(nn.Module):
    """Computes in float32 and answers in the precision of its input: its own rounding is not what is tested."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images.float()).to(images.dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1), (torch.float64, 1e-4)])
def test_inputs_of_any_precision_have_about_the_score_of_the_same_values_in_float32(model, dtype, tolerance):
    images = IMAGES.to(dtype)
    actual = scores(Wide(model), ALL, Gradient(), images=images)
    expected = scores(Wide(model), ALL, Gradient(), images=images.float())
    assert {values.dtype for values in actual.values()} == {torch.float32}
    for name, values in actual.items():
        # A gray level that is rounded the other way changes the length of a code.
        bound = 0.1 if name == "InformationLevel" else tolerance
        assert_close(values, expected[name], rtol=bound, atol=bound)
    assert all(values.isfinite().all() for values in actual.values())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.15), (torch.float16, 0.03)])
def test_networks_of_any_precision_have_about_the_scores_of_the_same_network_in_float32(model, dtype, tolerance):
    """Their weights and inputs being rounded alike."""
    images, rounded = IMAGES.to(dtype), copy.deepcopy(model).to(dtype)
    actual = scores(rounded, ALL, Gradient(), images=images)
    expected = scores(rounded.float(), ALL, Gradient(), images=images.float())
    for name, values in actual.items():
        assert values.isfinite().all()
        bound = max(tolerance, 0.1) if name == "InformationLevel" else tolerance
        assert_close(values, expected[name], rtol=bound, atol=bound)


# Undefined scores


@each
@pytest.mark.parametrize("which", ["zero", "constant"])
def test_maps_that_say_nothing(model, name, which):
    value, expected = 0.0 if which == "zero" else 0.3, getattr(FACTS[name], which)
    values = scores(model, {name: ALL[name]}, Filled(METHOD, value))[name]
    if expected is ANY:
        assert values.isfinite().all()
    else:
        assert_close(values, by_index(expected), equal_nan=True, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of the map
@pytest.mark.parametrize("name", MAPS_ONLY)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_costs_its_sample_the_score_and_no_other(model, name, bad):
    spoilt, whole = (scores(model, {name: ALL[name]}, method)[name] for method in (Spoiled(METHOD, 3, bad), METHOD))
    sample = INDEX.sort().values == INDEX[3]
    assert torch.equal(spoilt.isnan(), sample)
    assert_close(spoilt[~sample], whole[~sample], rtol=0, atol=1e-6)


SETTINGS = [
    ("Sparseness", {"offset": 1.0}),
    ("EffectiveComplexity", {"threshold": 1e-3, "relative": False}),
    ("Infidelity", {"rescale": False}),
    ("Infidelity", {"perturbation": "noise"}),
    ("InformationLevel", {"curve": "accuracy"}),
    ("InformationLevel", {"preset": "published"}),
    ("MaxSensitivity", {"relative_to": "input"}),
    ("AverageSensitivity", {"relative_to": "change"}),
    ("FaithfulnessCorrelation", {"per_value": True}),
    ("PointingGame", {"absolute": False}),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nor_is_there_a_score_with_other_settings(model, name, settings, bad):
    assert scores(model, {name: build(name, **settings)}, Spoiled(METHOD, 3, bad))[name].isnan()[2]


def asks_for(name: str) -> set[str]:
    return set(ALL[name].update.__wrapped__.__annotations__)


ASKING = [
    (name, settings)
    for name in FACTS
    if "model" in asks_for(name) and "explainer" not in asks_for(name)
    for settings in (
        [{"curve": "softmax"}, {"curve": "accuracy"}]
        if name == "InformationLevel"
        else [{"output": "explained"}, {"output": "probability"}]
    )
]
"""Metrics that run the model themselves, in all the ways in which they look at its outputs."""


class Broken(nn.Module):
    """One logit is NaN, for one of the images or for any."""

    def __init__(self, body: nn.Module, image: torch.Tensor | None, column: int) -> None:
        super().__init__()
        self.body, self.image, self.column = body, image, column

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.body(images)
        spoilt = torch.zeros_like(logits, dtype=torch.bool)
        spoilt[:, self.column] = True if self.image is None else (images == self.image).flatten(1).all(1)
        return torch.where(spoilt, torch.nan, logits)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "settings"), ASKING)
def test_a_logit_that_is_no_number_costs_its_sample_the_score_and_no_other(model, name, settings):
    """Whichever of the logits it is."""
    metric, method, sample = {name: build(name, **settings)}, RandomAttribution(), INDEX.sort().values == INDEX[3]
    whole = scores(model, metric, method)[name]
    for column in (0, 3):
        assert scores(Broken(model, None, column), metric, method)[name].isnan().all()
        one = scores(Broken(model, IMAGES[3], column), metric, method)[name]
        assert torch.equal(one.isnan(), sample | whole.isnan())
        assert_close(one[~one.isnan()], whole[~one.isnan()], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), ASKING)
def test_an_output_without_a_probability_is_refused_by_what_asks_for_one(name, settings):
    model, metric = nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), {name: build(name, **settings)}

    def run() -> torch.Tensor:
        return evaluate(model, IMAGES, 0, ["gradient"], metric, bounds=BOUNDS, output=At(0)).scores["gradient"][name]

    if settings == {"output": "explained"}:
        assert run().isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"`output` At\(index=\(0,\)\) has no probability"):
            run()


def test_a_sample_without_a_mask_is_undefined_for_metrics_of_the_mask_alone(model):
    masks = MASKS.clone()
    masks[3] = False
    for name, values in scores(model, ALL, masks=masks).items():
        assert values.isnan().sum() == ("mask" in ALL[name].update.__wrapped__.__annotations__), name


# What must not be touched


@each
@pytest.mark.parametrize("raises", [False, True])
def test_everything_is_left_as_it_was(name, raises):
    model = network()
    model[0][0].eval()  # a mixture of modes
    model[3].bias.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    handle = model[0].register_forward_hook(lambda *_: None)
    rows = list(range(4))
    method = smooth_grad(num_draws=2)
    attributions = method(model, IMAGES[rows], TARGET[rows], Context.create(INDEX[rows], SEED, BOUNDS))
    given = {
        "attributions": attributions,
        "inputs": IMAGES[rows].clone().requires_grad_(),
        "target": TARGET[rows].clone(),
        "mask": MASKS[rows].clone(),
        "index": INDEX[rows].clone(),
    }
    if raises:
        given["index"] = INDEX[:3]
    before = snapshot(model, given)
    metric = build(name)
    if raises:
        with pytest.raises(ValueError, match="`index` must have one entry"):
            feed(metric, model, rows, method, **given)
    else:
        feed(metric, model, rows, method, **given)
    assert_close(snapshot(model, given), before, rtol=0, atol=0)
    assert handle.id in model[0]._forward_hooks


def snapshot(model: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """Values, gradients, modes, hooks and random states, as tensors."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "values": [value.detach().clone() for value in [*model.state_dict().values(), *given.values()]],
        "requires": [value.requires_grad for value in [*model.parameters(), *given.values()]],
        "gradients": [torch.zeros(0) if p.grad is None else p.grad.clone() for p in model.parameters()],
        "input gradient": given["inputs"].grad is None,
        "modes": [module.training for module in model.modules()],
        "hooks": [len(hooks) for m in model.modules() for k, hooks in vars(m).items() if k.endswith("_hooks")],
        "random": [torch.get_rng_state(), keys.copy(), hash((kind, *rest))],
        "mode": torch.is_grad_enabled(),
    }
