"""Networks with other arguments and results: composed, they are explained as the plain network inside is."""

import itertools
import math
from collections import namedtuple
from types import SimpleNamespace

import captum.attr as ca
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback, RandomizationCallback
from lightning_xai.explainers import CaptumExplainer, grad_cam, gradient_shap, guided_backprop
from lightning_xai.metrics import DeletionAUC, Infidelity, MaxSensitivity
from lightning_xai.networks import LeNet

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
Pair = namedtuple("Pair", "hidden logits")
RESULTS = {
    "tensor": (lambda z: z, None),
    "dict": (lambda z: {"loss": None, "logits": z}, None),
    "key": (lambda z: {"out": z}, "out"),
    "object": (lambda z: SimpleNamespace(logits=z, loss=None), None),
    "attribute": (lambda z: SimpleNamespace(scores=z), "scores"),
    "named tuple": (lambda z: Pair(None, z), None),
    "tuple": (lambda z: (None, z), 1),
}


class Wrapped(nn.Module):
    def __init__(self, result, network=None):
        super().__init__()
        self.network, self.result = LeNet() if network is None else network, result

    def forward(self, x):
        return self.result(self.network(x))


@pytest.mark.parametrize("name", RESULTS)
def test_any_result_is_explained_as_the_logits_in_it(name):
    result, key = RESULTS[name]
    inside = Wrapped(result)
    model = lx.Forward(inside, key)
    for method in (lx.Gradient(), lx.noise_grad(num_draws=2), grad_cam()):
        assert_close(lx.explain(model, IMAGES, 3, method), lx.explain(inside.network, IMAGES, 3, method))
    layer = lx.explain(model, IMAGES, 3, grad_cam("model.network.features.relu1"))
    assert_close(layer, lx.explain(inside.network, IMAGES, 3, grad_cam("features.relu1")))


def test_the_parameters_are_the_networks_own():
    inside = LeNet()
    model = lx.Forward(inside)
    assert [id(p) for p in model.parameters()] == [id(p) for p in inside.parameters()]
    assert list(model.state_dict()) == [f"model.{name}" for name in inside.state_dict()]


def test_the_network_comes_back_as_it_was():
    inside = LeNet().train()
    before = {name: value.clone() for name, value in inside.state_dict().items()}
    for method in (lx.noise_grad(num_draws=2), guided_backprop()):
        lx.explain(lx.Forward(inside), IMAGES, 3, method, output="margin")
    assert all(part.training and not part._forward_hooks and not part._backward_hooks for part in inside.modules())
    assert_close(inside.state_dict(), before, rtol=0, atol=0)


class Shifted(nn.Module):
    """Logits that depend on what is carried: each sample's own scale and shift."""

    def __init__(self):
        super().__init__()
        self.network = LeNet()

    def forward(self, pixels, scale, shift=None):
        return {"logits": self.network(pixels * scale[:, None, None, None]) + (0 if shift is None else shift)}


SCALE = torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0])
METHODS = {
    "gradient": lx.Gradient(),
    "smooth_grad": lx.smooth_grad(num_draws=5),
    "noise_grad": lx.noise_grad(num_draws=2),
    "integrated_gradients": lx.IntegratedGradients(baseline=0.0, num_steps=3),
    "grad_cam": grad_cam(),
    "saliency of Captum": CaptumExplainer(ca.Saliency, {"abs": False}),
}


@pytest.mark.parametrize("name", METHODS)
def test_what_is_carried_goes_with_its_row(name):
    """As each sample explained alone, by a network that has its scale inside."""
    inside, method, index = Shifted(), METHODS[name], torch.arange(5)
    model = lx.Forward(inside, explained="pixels", carried={"scale": SCALE, "shift": 1.0})
    found = lx.explain(model, IMAGES, 3, method, index=index)
    for row in range(5):

        class Own(nn.Module):
            def __init__(self, scale):
                super().__init__()
                self.network, self.scale = inside.network, scale

            def forward(self, x):
                return self.network(x * self.scale) + 1.0

        alone = lx.explain(Own(SCALE[row]), IMAGES[row : row + 1], 3, method, index=index[row : row + 1])
        assert_close(found[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_an_evaluation_gives_the_same_for_any_batches():
    """Methods and metrics that run the network get what belongs to each batch."""
    model = lx.Forward(Shifted(), explained="pixels", carried={"scale": SCALE})
    metrics = {
        "deletion": DeletionAUC(4, baseline=0.0),
        "sensitivity": MaxSensitivity(2),
        "infidelity": Infidelity(2, baseline=0.0),
    }
    methods = {"gradient": lx.Gradient(), "smooth": lx.smooth_grad(num_draws=2)}
    whole, parts = (
        lx.evaluate(model, IMAGES, None, methods, metrics, batch_size=size, keep_attributions=5) for size in (5, 2)
    )
    assert whole.target.tolist() == parts.target.tolist()
    for method, scores in whole.scores.items():
        assert_close(whole.attributions[method], parts.attributions[method], rtol=1e-4, atol=1e-5)
        for metric, values in scores.items():
            assert_close(values, parts.scores[method][metric], rtol=1e-3, atol=1e-5)


class TakesBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = LeNet()

    def forward(self, batch):
        return self.net(batch["image"]) * batch["weight"][:, None]


class WithoutForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"net": LeNet()})

    def predict(self, x):
        return self.parts["net"](x)


def test_a_forward_of_a_batch_and_modules_without_one():
    inside, bare = TakesBatch(), WithoutForward()
    model = lx.Forward(inside, explained="image", carried={"weight": SCALE}, batch=True)
    expected = SCALE[:, None, None, None] * lx.explain(inside.net, IMAGES, 3, lx.Gradient())
    assert_close(lx.explain(model, IMAGES, 3, lx.Gradient()), expected)
    for call in ("predict", "parts.net"):
        model = lx.Forward(bare, call=call)
        assert_close(model(IMAGES), bare.predict(IMAGES))


def carrying(**options):
    return lx.Forward(Shifted(), explained="pixels", carried={"scale": SCALE}, **options)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: lx.explain(Wrapped(RESULTS["dict"][0]), IMAGES), TypeError, r"got dict; lightning_xai.Forward\("),
        (lambda: lx.Forward(Wrapped(RESULTS["key"][0]))(IMAGES), TypeError, "`key` must be given: .*dict with 'out'"),
        (
            lambda: lx.Forward(Wrapped(RESULTS["tuple"][0]))(IMAGES),
            TypeError,
            "`key` must be given.*tuple of NoneType, T",
        ),
        (lambda: lx.Forward(Wrapped(RESULTS["tuple"][0]), 0)(IMAGES), TypeError, "`key` 0 must name a tensor"),
        (lambda: lx.Forward(Wrapped(RESULTS["object"][0]), "a")(IMAGES), TypeError, "with logits, loss"),
        (lambda: lx.Forward(LeNet(), call="head"), ValueError, "`call` must name .*LeNet has no 'head'"),
        (lambda: lx.Forward(LeNet(), batch=True), ValueError, "`explained` must name the entry"),
        (lambda: lx.explain(carrying(), IMAGES[:3], 0), ValueError, "'scale' has 5 rows, but 3 inputs pass"),
        (lambda: lx.explain(carrying(), IMAGES, 0, max_rows=2), ValueError, "`max_rows` is 2"),
        (lambda: lx.explain(carrying(), IMAGES, 0, gradient_shap(0.0)), ValueError, "one sample at a time"),
        (
            lambda: lx.explain(carrying(), IMAGES, 0, CaptumExplainer(ca.IntegratedGradients)),
            ValueError,
            "Methods that send other numbers of rows than the batch has cannot",
        ),
        (
            lambda: AttributionCallback(forward={"keys": 1}),
            ValueError,
            "`forward` must be arguments of Forward, of batch",
        ),
        (lambda: AttributionCallback(forward={"carried": "mask"}), TypeError, "`carried` must be a list of keys"),
    ],
)
def test_refusals(run, error, message):
    with pytest.raises(error, match=message):
        run()


# Training

in_training = pytest.mark.filterwarnings("ignore")
"""Of Lightning."""


class Task(LightningModule):
    """A binary classifier with one logit in a dictionary, of pixels and a scale."""

    def __init__(self, key="logits"):
        super().__init__()
        self.net, self.key = nn.Sequential(nn.Flatten(), nn.Linear(36, 1)), key

    def forward(self, pixels, scale):
        return {self.key: self.net(pixels) * scale[:, None]}

    def validation_step(self, batch, index):
        pass

    test_step = validation_step


ROWS = [
    {"pixels": torch.rand(1, 6, 6), "scale": torch.tensor(1.0 + i), "label": i % 2, "name": "sample"} for i in range(10)
]
FORWARD = {"explained": "pixels", "carried": ["scale"]}


def run(callback, model=None, stage="validate", **options):
    trainer = Trainer(
        callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False, barebones=False, **options
    )
    getattr(trainer, stage)(Task() if model is None else model, DataLoader(ROWS, batch_size=4), verbose=False)
    return callback


@in_training
def test_the_callback_explains_a_module_with_several_arguments(tmp_path):
    torch.manual_seed(0)
    model = Task("scores")
    callback = AttributionCallback(
        ["gradient"],
        {"deletion": DeletionAUC(4, baseline=0.0)},
        controls=False,
        batch_size=4,
        forward={**FORWARD, "key": "scores"},
        output="log_probability",
    )
    run(callback, model, default_root_dir=tmp_path)
    images, scale = (torch.stack([row[name] for row in ROWS]) for name in ("pixels", "scale"))
    labels = torch.tensor([row["label"] for row in ROWS])
    z = (2.0 * labels - 1) * (model(images, scale)["scores"][:, 0]).detach()
    slopes = (1 - z.sigmoid()) * (2.0 * labels - 1) * scale
    expected = slopes[:, None] * model.net[1].weight.detach()
    assert_close(callback.evaluation.attributions["gradient"].flatten(1), expected[:8])
    assert callback.evaluation.scores["gradient"]["deletion"].isfinite().all()


@in_training
def test_the_randomization_callback_too(tmp_path):
    callback = RandomizationCallback(
        ["gradient"], ["spearman_absolute"], num_samples=4, forward=FORWARD, output="probability"
    )
    run(callback, stage="test", default_root_dir=tmp_path)
    assert set(callback.scores) >= {"sanity/gradient/spearman_absolute"}


@in_training
def test_the_callback_explains_a_chosen_label_of_several(tmp_path):
    """Labels are several at once, floats (batch, labels): which of them, `target` says."""

    class Several(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

        def forward(self, x):
            return self.net(x)

        def validation_step(self, batch, index):
            pass

    model = Several()
    rows = [(torch.rand(1, 6, 6), torch.tensor([1.0, 0.0, 1.0])) for _ in range(4)]
    callback = AttributionCallback(
        ["gradient"], ["sparseness"], controls=False, target=2, output=lx.outputs.Logit(multi_label=True)
    )
    trainer = Trainer(callbacks=[callback], logger=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.validate(model, DataLoader(rows, batch_size=2), verbose=False)
    assert_close(callback.evaluation.attributions["gradient"].flatten(1), model.net[1].weight[[2] * 4].detach())


@in_training
def test_an_output_without_labels_needs_none(tmp_path):
    callback = AttributionCallback(
        ["gradient"], ["sparseness"], controls=False, forward=FORWARD, output=lx.outputs.At(0)
    )
    run(callback, default_root_dir=tmp_path)
    assert set(callback.evaluation.target.tolist()) == {0}
    with pytest.raises(ValueError, match='`target` is "label", but `output` At'):
        AttributionCallback(target="label", output=lx.outputs.At(0))


# Networks of others


def test_a_network_of_transformers_by_itself():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    net = transformers.ViTForImageClassification(config).eval()
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    found = lx.explain(lx.Forward(net), images.detach(), 1, lx.Gradient())
    assert_close(found, torch.autograd.grad(net(images).logits[:, 1].sum(), images)[0])


def test_text_at_the_embeddings_with_its_mask():
    """Captum's `additional_forward_args`: the same gradient, for inputs of two names."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    net = transformers.BertForSequenceClassification(config).eval()
    embeddings, mask = torch.randn(3, 7, 16), torch.ones(3, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    model = lx.Forward(net, explained="inputs_embeds", carried={"attention_mask": mask})
    found = lx.explain(model, embeddings, 1, lx.IntegratedGradients(baseline=0.0, num_steps=20))
    captum = ca.IntegratedGradients(lambda x, m: net(inputs_embeds=x, attention_mask=m).logits)
    expected = captum.attribute(embeddings, target=1, additional_forward_args=(mask,), n_steps=20)
    assert_close(found, expected.detach(), rtol=1e-3, atol=1e-5)


def bert(num_labels=2):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        **{"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "num_labels": num_labels, "initializer_range": 0.5},
    )
    return transformers.BertForSequenceClassification(config).eval()


@pytest.mark.parametrize("baseline", ["zero", "mask token"])
def test_text_is_scored_by_deleting_and_inserting_its_tokens(baseline):
    """Against a slow transcription, sentence by sentence without padding, token by token."""
    net = bert()
    ids, lengths = torch.randint(1, 50, (3, 7)), [7, 4, 5]
    words, mask = net.bert.embeddings.word_embeddings, torch.arange(7) < torch.tensor(lengths)[:, None]
    embeddings = words(ids).detach()
    removed = torch.zeros(16) if baseline == "zero" else words.weight[3].detach()
    metrics = {
        name: getattr(lx.metrics, name)(4, 0.0 if baseline == "zero" else removed.tolist())
        for name in ("DeletionAUC", "InsertionAUC", "PixelFlipping")
    }
    carried = {"attention_mask": mask.long()}
    model = lx.Forward(net, explained="inputs_embeds", carried=carried, present="attention_mask")
    methods = ["input_x_gradient", "random_attribution"]
    found = lx.evaluate(model, embeddings, 1, methods, metrics, channel_dim=-1, keep_attributions=3, batch_size=2)
    for name, maps in found.attributions.items():
        assert name == "random_attribution" or not maps[~mask].any()  # the network does not look at padding
        for row, length in enumerate(lengths):
            text, values = embeddings[row, :length], maps[row, :length].sum(1).tolist()
            order, probabilities, logits = sorted(range(length), key=lambda i: -values[i]), [[], []], []
            for step in range(5):
                gone = torch.tensor([order.index(i) < math.ceil(step * length / 4) for i in range(length)])[:, None]
                for kept, curve in zip((~gone, gone), probabilities, strict=True):
                    with torch.no_grad():
                        raw = net(inputs_embeds=torch.where(kept, text, removed)[None]).logits[0]
                    curve.append(raw.softmax(0)[1].item())
                    logits += [raw[1].item()] if kept is not gone else []
            areas = [sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 4 for curve in probabilities]
            flipped = sum(logits[0] - logit for logit in logits) / 5
            scores = [found.scores[name][metric][row].item() for metric in metrics]
            assert scores == pytest.approx([*areas, flipped], abs=1e-5)


@in_training
def test_a_callback_scores_text_with_one_logit_as_it_is_trained(tmp_path):
    """Labels 0.0 and 1.0, a mask in the batches: the same scores as by hand."""

    class Reader(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = bert(1)

        def forward(self, inputs_embeds, attention_mask):
            return self.net(inputs_embeds=inputs_embeds, attention_mask=attention_mask)

        def validation_step(self, batch, _):
            pass

    texts, mask = torch.randn(4, 7, 16), (torch.arange(7) < torch.tensor([7, 4, 5, 6])[:, None]).long()
    rows = [{"inputs_embeds": texts[i], "attention_mask": mask[i], "label": float(i % 2)} for i in range(4)]
    metrics, methods = {"deletion": DeletionAUC(4, 0.0)}, {"gradient": lx.InputXGradient()}
    names = {"explained": "inputs_embeds", "present": "attention_mask"}
    callback = AttributionCallback(
        methods, metrics, controls=False, forward={**names, "carried": ["attention_mask"]}, channel_dim=-1
    )
    module, quiet = Reader().eval(), {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(default_root_dir=tmp_path, callbacks=[callback], **quiet).validate(
        module, DataLoader(rows, 2), verbose=False
    )
    model, labels = lx.Forward(module, carried={"attention_mask": mask}, **names), torch.tensor([0, 1, 0, 1])
    wanted = lx.evaluate(model, texts, labels, methods, metrics, channel_dim=-1).scores["gradient"]["deletion"]
    assert_close(callback.evaluation.scores["gradient"]["deletion"], wanted)
    assert torch.equal(callback.evaluation.targets, labels)


def test_what_says_which_tokens_are_there_must_be_carried():
    model = lx.Forward(bert(), explained="inputs_embeds", present="attention_mask")
    with pytest.raises(ValueError, match=r"`present`: 'attention_mask' must be carried along, of shape \(2, 7\)"):
        lx.evaluate(
            model, torch.randn(2, 7, 16), 1, ["gradient"], {"d": lx.metrics.DeletionAUC(4, 0.0)}, channel_dim=-1
        )


@pytest.mark.parametrize(
    ("baseline", "error"),
    [([], TypeError), ([math.nan], ValueError), ([0.0] * 3, ValueError)],
)
def test_a_baseline_of_channels_that_is_none_is_refused(baseline, error):
    with pytest.raises(error, match="`baseline` must be"):
        lx.explain(nn.Linear(2, 2), torch.rand(1, 2), 0, lx.IntegratedGradients(baseline=baseline))


def test_integrated_gradients_from_a_baseline_of_channels():
    """Of a linear network: the weight times the distance."""
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), torch.rand(3, 2, 4)
    found = lx.explain(model, images, 1, lx.IntegratedGradients(baseline=[0.25, -1.0]))
    distance = images - torch.tensor([0.25, -1.0])[:, None]
    assert_close(found, distance * model[1].weight[1].detach().view(2, 4))


@pytest.mark.parametrize("names", [{"explained": "pixel"}, {"carried": {"scal": torch.ones(2)}}])
def test_names_that_a_network_does_not_know_are_refused(names):
    class Scaled(nn.Module):
        def forward(self, pixels, scale=1.0):
            return pixels.flatten(1) * scale

    with pytest.raises(ValueError, match="is no argument of Scaled, which has pixels, scale"):
        lx.Forward(Scaled(), **names)
