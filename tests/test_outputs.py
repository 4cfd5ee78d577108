"""What is explained: closed forms on linear networks, one law for all explainers and outputs, refusals by name."""

import itertools
import math
from dataclasses import replace

import captum.attr as ca
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import lightning_xai as lx
from lightning_xai.explainers import CaptumExplainer, Context, SmoothDiff, grad_cam, gradient_shap, guided_backprop
from lightning_xai.metrics import DeletionAUC, FaithfulnessCorrelation, InformationLevel, InsertionAUC
from lightning_xai.networks import LeNet
from lightning_xai.outputs import At, Logit, LogProbability, Margin, Of, Output, Probability, Region, Similarity
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import examine
from lightning_xai.sanity.randomization import Randomization, evidence
from lightning_xai.sanity.similarity import named_similarities

WEIGHTS = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 2.0], [2.0, 0.5, 1.5, -0.5]])
BIAS = torch.tensor([0.3, -0.2, 0.1])
IMAGES = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 0, 1])


def linear(rows=3):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, rows))
    model[1].weight.data, model[1].bias.data = WEIGHTS[:rows].clone(), BIAS[:rows].clone()
    return model


def doubled(z: torch.Tensor) -> torch.Tensor:
    return 2 * z


def softmax_slopes(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """d p_t / d z = p_t (e_t - p), a row a sample."""
    p = logits.softmax(1)
    chosen = F.one_hot(target, logits.shape[1])
    return (p * chosen).sum(1, keepdim=True) * (chosen - p)


def margin_slopes(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 for the target, -1 for the greatest of the others."""
    chosen = F.one_hot(target, logits.shape[1])
    return (chosen - F.one_hot(logits.masked_fill(chosen.bool(), -torch.inf).argmax(1), logits.shape[1])).float()


def similarity_slopes(z: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """d cos(z, e) / d z = (e / |e| - cos z / |z|) / |z|."""
    size, unit = z.norm(dim=1, keepdim=True), embedding / embedding.norm()
    return (unit - (z @ unit)[:, None] / size * z / size) / size


CLOSED = {
    "logit": (Logit(), lambda z, t: F.one_hot(t, 3).float()),
    "multi-label logit": (Logit(multi_label=True), lambda z, t: F.one_hot(t, 3).float()),
    "probability": (Probability(), softmax_slopes),
    "log": (LogProbability(), lambda z, t: F.one_hot(t, 3) - z.softmax(1)),
    "multi-label": (Probability(multi_label=True), lambda z, t: F.one_hot(t, 3) * z.sigmoid() * (1 - z.sigmoid())),
    "multi-label log": (LogProbability(multi_label=True), lambda z, t: F.one_hot(t, 3) * (1 - z.sigmoid())),
    "margin": (Margin(), margin_slopes),
    "of": (Of(doubled), lambda z, t: 2.0 * F.one_hot(t, 3)),
    "at": (At(2), lambda z, t: F.one_hot(torch.full_like(t, 2), 3).float()),
    "similarity": (Similarity((1.0, 2.0, -1.0)), lambda z, t: similarity_slopes(z, torch.tensor([1.0, 2.0, -1.0]))),
}


@pytest.mark.parametrize("name", CLOSED)
def test_gradients_on_a_linear_network(name):
    """d f / d x = (d f / d z) W, with the slopes of each output written down."""
    output, slopes = CLOSED[name]
    target = TARGET if output.has_labels or name == "of" else None
    found = lx.explain(linear(), IMAGES, target, lx.Gradient(), output=output)
    logits = IMAGES.flatten(1) @ WEIGHTS.T + BIAS
    assert_close(found.flatten(1), slopes(logits, TARGET) @ WEIGHTS)


BINARY = {
    "logit": (Logit(), lambda z: z, lambda z: torch.ones_like(z)),
    "probability": (Probability(), lambda z: z.sigmoid(), lambda z: z.sigmoid() * (1 - z.sigmoid())),
    "log": (LogProbability(), lambda z: z.sigmoid().log(), lambda z: 1 - z.sigmoid()),
    "margin": (Margin(), lambda z: 2 * z, lambda z: torch.full_like(z, 2.0)),
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", BINARY)
def test_a_single_logit_is_that_of_a_classifier_with_labels_0_and_1(name, flat):
    """What is explained of label 1 at the logit z is what is explained of label 0 at -z; also of (batch,)."""
    output, value, slope = BINARY[name]
    model = nn.Sequential(linear(1), nn.Flatten(0)) if flat else linear(1)
    labels = torch.tensor([1, 0, 1, 0, 1])
    sign = 2.0 * labels - 1
    z = sign * (IMAGES.flatten(1) @ WEIGHTS[0] + BIAS[0])
    raw = model(IMAGES).detach()
    assert_close(output.explained(raw, labels), value(z))
    assert_close(output.probability(raw, labels), z.sigmoid())
    assert output.prediction(raw).tolist() == (raw.flatten() > 0).long().tolist()
    found = lx.explain(model, IMAGES, labels, lx.Gradient(), output=output)
    assert_close(found.flatten(1), (sign * slope(z))[:, None] * WEIGHTS[:1])


@pytest.mark.parametrize("kind", [torch.float32, torch.bool, torch.float64])
def test_labels_as_the_loss_of_a_single_logit_takes_them(kind, tmp_path):
    """0.0, 1.0 and booleans, (samples,) and (samples, 1), are 0 and 1 for each of the doors."""
    labels, model = torch.tensor([1, 0, 1, 0, 1]), linear(1)
    wanted = lx.explain(model, IMAGES, labels, lx.Gradient())
    for given in (labels.to(kind), labels.to(kind)[:, None]):
        assert torch.equal(lx.explain(model, IMAGES, given, lx.Gradient()), wanted)
        kept = lx.evaluate(model, IMAGES, given, ["gradient"], ["sparseness"], keep_attributions=5)
        assert torch.equal(kept.attributions["gradient"], wanted)
    data = DataLoader(TensorDataset(IMAGES, labels.to(kind)[:, None]), 2)
    found = lx.evaluate_stream(model, data, tmp_path, methods=["gradient"]).samples()
    assert found["target"].tolist() == labels.tolist()


def test_a_single_logit_that_is_declared_a_label_has_no_other_side():
    raw = torch.tensor([[2.0], [-1.0]])
    output = Logit(multi_label=True)
    assert_close(output.probability(raw, torch.zeros(2, dtype=torch.int64)), raw[:, 0].sigmoid())
    with pytest.raises(ValueError, match=r"`target` must be in 0 \.\. 0"):
        output.check(raw, torch.tensor([1, 1]))


@pytest.mark.parametrize("multi_label", [False, True])
def test_deletion_and_insertion_with_sigmoid(multi_label):
    """A single logit, or a chosen label of several: the curve is σ(b + the sum of what is left), pixel by pixel."""
    model, target = (linear(3), 2) if multi_label else (linear(1), 1)
    row = 2 if multi_label else 0
    metrics = {"deletion": DeletionAUC(4, baseline=0.0), "insertion": InsertionAUC(4, baseline=0.0)}
    output = Logit(multi_label=multi_label)
    found = lx.evaluate(model, IMAGES, target, ["input_x_gradient"], metrics, output=output).scores["input_x_gradient"]
    for image, deletion, insertion in zip(IMAGES, found["deletion"], found["insertion"], strict=True):
        shares = (image.flatten() * WEIGHTS[row]).tolist()
        order = sorted(range(4), key=lambda pixel: -shares[pixel])
        for score, kept in (
            (deletion, [order[k:] for k in range(5)]),
            (insertion, [order[:k] for k in range(5)]),
        ):
            curve = [1 / (1 + math.exp(-(float(BIAS[row]) + sum(shares[p] for p in some)))) for some in kept]
            area = sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 4
            assert float(score) == pytest.approx(area, abs=1e-6)


# Laws


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.last(self.first(x).tanh())


def smooth(outputs=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs))


MASK = torch.tensor([[True, False], [True, True]])
OUTPUTS = {
    "logit": Logit(),
    "probability": Probability(),
    "multi-label": Probability(multi_label=True),
    "log_probability": LogProbability(),
    "multi-label log": LogProbability(multi_label=True),
    "one logit": Logit(),
    "one probability": Probability(),
    "one log": LogProbability(),
    "one margin": Margin(),
    "margin": Margin(),
    "at": At(2),
    "similarity": Similarity((1.0, -2.0, 0.5)),
    "of": Of(doubled),
    "region": Region(MASK),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_integrated_gradients_are_complete_for_every_output(name):
    """They sum to f(x) - f(b); the margin has a kink, where its quadrature converges slowly."""
    single = name.startswith("one ")
    output, model = OUTPUTS[name], (Segmenter() if name == "region" else smooth(1 if single else 3)).double()
    images = IMAGES.double()
    target = TARGET % 2 if single else TARGET if name not in ("at", "similarity") else torch.zeros_like(TARGET)
    method = lx.IntegratedGradients(baseline=0.0, num_steps=400 if name == "margin" else 40)
    total = lx.explain(model, images, target, method, output=output).flatten(1).sum(1)
    ends = [output.explained(model(x).detach(), target) for x in (images, torch.zeros_like(images))]
    assert_close(total, ends[0] - ends[1], rtol=0, atol=1e-2 if name == "margin" else 1e-6)


class Composed(nn.Module):
    """The network with the output inside: its logits are what is explained."""

    def __init__(self, model, output):
        super().__init__()
        self.model, self.output = model, output

    def forward(self, x):
        return self.output.scores(self.model(x))


EXPLAINERS = {
    "saliency": lx.Saliency(),
    "smooth_grad": lx.smooth_grad(num_draws=3),
    "adapt_grad": lx.adapt_grad(num_draws=3),
    "integrated_gradients": lx.IntegratedGradients(lx.smooth_grad(num_draws=2), num_steps=2),
    "noise_grad": lx.noise_grad(num_draws=2),
    "guided_backprop": guided_backprop(),
    "grad_cam": grad_cam(),
    "gradient_shap": gradient_shap(num_draws=3),
    "ablation": CaptumExplainer(ca.Occlusion, {"sliding_window_shapes": (1, 7, 7), "strides": (1, 7, 7)}),
    "lime": CaptumExplainer(
        ca.Lime, {"n_samples": 8, "feature_mask": (torch.arange(784) // 196).view(1, 1, 28, 28)}, stochastic=True
    ),
}


@pytest.mark.parametrize("output", [Probability(), Margin(), At(3)], ids=["probability", "margin", "at"])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_every_explainer_explains_the_output_of_its_context(name, output):
    """As it explains the logit of a network that ends in it."""
    model, images = LeNet().eval(), torch.rand(3, 1, 28, 28)
    method, context = EXPLAINERS[name], Context.create(torch.arange(3), bounds=(0.0, 1.0))
    target = torch.zeros(3, dtype=torch.int64) if isinstance(output, At) else TARGET[:3]
    found = method(model, images, target, replace(context, output=output))
    whole = nn.Sequential(model, Twice(output)) if isinstance(output, At) else Composed(model, output)
    if name == "guided_backprop" and isinstance(output, Margin):
        output = Probability()  # inside of a network the choice of the other class would be taken for a rectifier
        found, whole = method(model, images, target, replace(context, output=output)), Composed(model, output)
    assert_close(found, method(whole, images, target, context), rtol=1e-4, atol=1e-6)


class Twice(nn.Module):
    """A single one would be a classifier's logit."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, raw):
        return self.output.scores(raw).expand(-1, 2)


@pytest.mark.parametrize("method", [CaptumExplainer(ca.DeepLift, baseline=0.0), SmoothDiff(num_draws=2)])
def test_what_has_no_rule_for_the_output_refuses_it_by_name(method):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    affine = lx.explain(model, IMAGES, method=method, output=At(1))
    assert_close(affine, lx.explain(model, IMAGES, 1, method))
    for output in (Probability(), Margin()):
        with pytest.raises(ValueError, match=r'no rule for .* in "output'):
            lx.explain(model, IMAGES, 0, method, output=output)


def test_metrics_watch_what_is_explained_or_the_probability_of_the_same_output():
    """The faithfulness of a map of log p, to log p; deletion watches p, and is that of the logit's own output."""
    model = smooth()
    metrics = {"faithfulness": FaithfulnessCorrelation(8, 2, baseline=0.0), "deletion": DeletionAUC(4, baseline=0.0)}
    maps = ["random_attribution"]
    logit, log = (
        lx.evaluate(model, IMAGES, TARGET, maps, metrics, output=o).scores["random_attribution"]
        for o in ("logit", "log_probability")
    )
    composed = lx.evaluate(Composed(model, LogProbability()), IMAGES, TARGET, maps, metrics).scores[maps[0]]
    assert_close(logit["deletion"], log["deletion"])
    assert_close(log["faithfulness"], composed["faithfulness"])
    assert not torch.allclose(logit["faithfulness"], log["faithfulness"])


def test_the_prediction_is_that_of_the_output():
    kept = lx.evaluate(linear(1), IMAGES - 0.5, None, ["gradient"], ["sparseness"], keep_attributions=5)
    positive = (linear(1)(IMAGES - 0.5)[:, 0] > 0).long().tolist()
    assert kept.predicted.tolist() == kept.target.tolist() == positive
    assert 0 < sum(positive) < 5


def test_information_level_of_a_single_logit_is_that_of_its_two_classes():
    images = torch.rand(3, 1, 16, 16)
    one, two = (nn.Sequential(nn.Flatten(), nn.Linear(256, n)) for n in (1, 2))
    one[1].weight.data.mul_(9)
    two[1].weight.data = torch.cat([torch.zeros(1, 256), one[1].weight.data])
    two[1].bias.data = torch.cat([torch.zeros(1), one[1].bias.data])
    for curve in ("softmax", "accuracy"):
        metrics = {"level": InformationLevel(curve, min_score=0.0)}
        first, second = (
            lx.evaluate(model, images, None, ["input_x_gradient"], metrics, bounds=(0.0, 1.0)) for model in (one, two)
        )
        scores = [each.scores["input_x_gradient"]["level"] for each in (first, second)]
        assert_close(*scores, equal_nan=True, rtol=1e-4, atol=1e-5)


# Segmentation


def test_region_is_the_mean_logit_where_the_class_is_predicted():
    """Computed position by position."""
    raw, target = torch.randn(4, 3, 5, 6), torch.tensor([0, 1, 2, 0])
    for row, value in enumerate(Region().explained(raw, target)):
        chosen = [
            raw[row, target[row], y, x].item()
            for y in range(5)
            for x in range(6)
            if raw[row, :, y, x].argmax() == target[row]
        ]
        assert float(value) == pytest.approx(sum(chosen) / len(chosen), abs=1e-5)
    most = [torch.bincount(one.argmax(0).flatten(), minlength=3).argmax().item() for one in raw]
    assert Region().prediction(raw).tolist() == most


def test_region_of_a_mask_is_its_mean_logit():
    model = Segmenter()
    found = lx.explain(model, IMAGES, TARGET, lx.Gradient(), output=Region(MASK))
    inputs = IMAGES.clone().requires_grad_()
    mean = model(inputs)[torch.arange(5), TARGET][:, MASK].mean(1)
    assert_close(found, torch.autograd.grad(mean.sum(), inputs)[0])


def test_a_class_that_is_predicted_nowhere_has_mean_0():
    raw = torch.zeros(1, 2, 2, 2)
    raw[:, 0] = 1
    assert Region().scores(raw).tolist() == [[1.0, 0.0]]


def test_scores_of_a_segmentation_do_not_depend_on_the_order_in_memory():
    """Some segmenters give maps with the channels last in memory."""
    model, metrics = Segmenter(), {"faithfulness": FaithfulnessCorrelation(10, 1, baseline=0.0)}
    channels_last = nn.Sequential(model, Strided())
    for output in (Region(MASK), Region()):
        found, expected = (
            lx.evaluate(each, IMAGES, TARGET, ["gradient"], metrics, output=output).scores["gradient"]["faithfulness"]
            for each in (channels_last, model)
        )
        assert_close(found, expected, equal_nan=True)


class Strided(nn.Module):
    """The same maps with the channels last in memory."""

    def forward(self, maps):
        return maps.movedim(1, -1).contiguous().movedim(-1, 1)


# Names, and refusals


def test_outputs_have_names_that_stay():
    assert repr(Probability(multi_label=True)) == "Probability(multi_label=True)"
    assert At(3) == At((3,))
    assert hash(At(3)) == hash(At((3,)))
    assert Similarity(torch.tensor([1.0, 2.0])) == Similarity([1, 2])
    assert Region(MASK) == Region(MASK.clone()) != Region(~MASK)
    assert Region(MASK).key == Region(MASK.clone()).key != Region().key
    assert Of(doubled).key == f"Of({doubled.__module__}.doubled)"
    for function in (lambda raw: raw, torch.nn.Tanh()):
        with pytest.raises(ValueError, match="has no name that another process knows"):
            _ = Of(function).key


def test_plain_names():
    for name in ("logit", "probability", "log_probability", "margin", "region"):
        assert isinstance(Context.create(torch.arange(1), output=name).output, Output)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: lx.explain(linear(), IMAGES, output="softmax"), ValueError, "`output`: 'softmax' is unknown"),
        (lambda: lx.explain(linear(), IMAGES, output="at"), ValueError, "`output`: 'similarity'|needs arguments|At"),
        (lambda: lx.outputs.named_output(3), TypeError, "`output` must be an Output, .*got 3"),
        (lambda: lx.explain(linear(), IMAGES, output=At(3)), ValueError, r"At\(\(3,\)\) must name an element"),
        (lambda: lx.explain(linear(), IMAGES, output=At((0, 0))), ValueError, "give a number for each of its axes"),
        (lambda: lx.explain(linear(), IMAGES, 1, output=At(0)), ValueError, r"`target` must be in 0 \.\. 0"),
        (lambda: lx.explain(linear(), IMAGES, output="region"), ValueError, "Region is of a segmentation"),
        (lambda: lx.explain(linear(1), IMAGES, 2), ValueError, r"`target` must be in 0 \.\. 1"),
        (lambda: lx.explain(Segmenter(), IMAGES), ValueError, "must return logits .*what is explained: `output`"),
        (lambda: lx.explain(linear(), IMAGES, output=Similarity([1.0])), ValueError, "an embedding of 1 numbers"),
        (lambda: lx.explain(linear(), IMAGES, output=Of(torch.sum)), ValueError, "a number a sample, .*got shape"),
        (lambda: Region(torch.ones(2, 2)), TypeError, "`mask` must be a tensor of booleans"),
        (lambda: Region(torch.zeros(2, 2, dtype=torch.bool)), ValueError, "`mask` must be True somewhere"),
        (lambda: Similarity([0.0, 0.0]), ValueError, "`embedding` must be a vector of finite numbers that is not zero"),
        (
            lambda: lx.Gradient()(linear(), IMAGES, 0, Context.create(torch.arange(5)), output="margin"),
            ValueError,
            "`context` has bounds, seed, indices and output already",
        ),
        (
            lambda: lx.evaluate(linear(), IMAGES, None, ["gradient"], {"d": DeletionAUC(baseline=0.0)}, output=At(0)),
            ValueError,
            r"At\(index=\(0,\)\) has no probability",
        ),
    ],
)
def test_refusals(run, error, message):
    with pytest.raises(error, match=message):
        run()


# Sanity checks


def test_what_a_network_still_does_is_read_by_the_output():
    """Of a single logit: accuracy and entropy of its two classes; of a number, neither."""
    labels, model = torch.tensor([0, 1, 0, 1, 1]), linear(1)
    p = model(IMAGES).detach().sigmoid()[:, 0].double()
    found = evidence(model, IMAGES, labels)
    assert found.accuracy == ((p > 0.5) == labels).double().mean()
    assert found.entropy == pytest.approx(float((-p * p.log() - (1 - p) * (1 - p).log()).mean()), rel=1e-5)
    other = evidence(linear(), IMAGES, labels, output=At(0))
    assert math.isnan(other.accuracy)
    assert math.isnan(other.entropy)
    labelled = evidence(linear(), IMAGES, TARGET, output=Logit(multi_label=True))
    assert math.isnan(labelled.entropy)
    assert labelled.accuracy == evidence(linear(), IMAGES, TARGET).accuracy


def test_sanity_checks_explain_the_output():
    model, images = LeNet(), torch.rand(4, 1, 28, 28)
    subject = Subject(
        model,
        images,
        torch.zeros(4, dtype=torch.int64),
        torch.arange(4),
        {"gradient": lx.Gradient(), "random": lx.explainers.RandomAttribution()},
        {"pearson": named_similarities()["pearson"]},
        randomization=Randomization(("full",), 1),
        output=At(3),
    )
    maps = subject.attributions(model, subject.methods["gradient"])
    assert_close(maps, lx.explain(model, images, 3, lx.Gradient()))
    report = examine(subject, ["parameters", "invariance"], "pearson")
    assert report.settings["output"] == "At(index=(3,))"
    with pytest.raises(ValueError, match="at least two outputs"):
        examine(subject, ["random_logit"], "pearson")


def test_a_segmentation_with_one_logit_has_two_labels():
    """Each one's region is where it is predicted; label 0 explains the negative of the logit."""
    model, images = nn.Conv2d(3, 1, 1), torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(model.bias, -0.1)
    for label, side in ((1, 1), (0, -1)):
        given = images.clone().requires_grad_()
        logits = side * model(given)
        region = logits > 0 if label else logits >= 0
        mean = (logits * region).flatten(1).sum(1) / region.flatten(1).sum(1).clamp(min=1)
        (expected,) = torch.autograd.grad(mean.sum(), given)
        found = lx.explain(model, images, label, lx.Gradient(), output="region")
        torch.testing.assert_close(found, expected)
