"""Tables, series, token embeddings, images and volumes: all that has a default, in closed form on linear models."""

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, Occlusion
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback, RandomizationCallback
from lightning_xai.evaluation import evaluate, explain
from lightning_xai.explainers import CaptumExplainer, Precomputed, Smooth, SobelEdges, grad_cam
from lightning_xai.explainers.bounds import parse_bounds
from lightning_xai.explainers.channels import channels_second, taking_channels_second
from lightning_xai.functional.infidelity import random_squares
from lightning_xai.functional.maps import pixel_map
from lightning_xai.metrics import (
    DeletionAUC,
    FaithfulnessCorrelation,
    Infidelity,
    InformationLevel,
    InsertionAUC,
    PixelFlipping,
)
from lightning_xai.reporting.sanity_figures import map_pairs
from lightning_xai.sanity import Subject, examine
from lightning_xai.sanity.randomization import Randomization
from lightning_xai.sanity.similarity import SIMILARITIES, compare

SHAPES = {"table": (12,), "series": (2, 12), "image": (2, 6, 5), "volume": (2, 3, 4, 5)}
BATCH = 5


def inputs_of(kind):
    return torch.rand(BATCH, *SHAPES[kind], generator=torch.Generator().manual_seed(0)) + 0.1


def linear(kind, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(SHAPES[kind]).numel(), classes)).eval()


def masks_of(inputs):
    return (inputs if inputs.ndim == 2 else inputs[:, 0]) > 0.6


@pytest.mark.parametrize("kind", SHAPES)
def test_evaluate_works_on_all_with_its_defaults(kind):
    inputs = inputs_of(kind)
    result = lx.evaluate(linear(kind), inputs, 0, masks=masks_of(inputs), bounds=(0.0, 1.2))
    names = {"sparseness", "relevance_rank_accuracy", "auroc", "inherent_noise"}
    scores = result.scores["smooth_grad"]
    assert names <= set(scores)
    assert all(scores[name].isfinite().all() for name in names)


@pytest.mark.parametrize("kind", SHAPES)
def test_faithfulness_of_the_exact_attribution(kind):
    """The input times the gradient of a linear model says what each place is worth, from a baseline of zero."""
    inputs, settings = inputs_of(kind), {"baseline": 0.0, "output": "explained"}
    metrics = {
        "faithfulness": FaithfulnessCorrelation(20, 4, baseline=0.0),
        "per value": FaithfulnessCorrelation(20, 4, baseline=0.0, per_value=True),
        "infidelity": Infidelity(10, "noise", rescale=False),
        "deletion": DeletionAUC(6, **settings),
        "insertion": InsertionAUC(6, **settings),
        "flipping": PixelFlipping(6, **settings),
    }
    if kind != "table":
        metrics["squares"] = Infidelity(10, square_size=2, baseline=0.0, rescale=False)
    model = linear(kind)
    found = lx.evaluate(model, inputs, 0, ["gradient", "input_x_gradient"], metrics).scores
    exact, gradient = found["input_x_gradient"], found["gradient"]
    for name in ("faithfulness", "per value"):
        assert_close(exact[name], torch.ones(BATCH))
    for name in {"infidelity", "squares"} & set(metrics):
        assert_close(gradient[name], torch.zeros(BATCH))
    worth = (inputs * model[1].weight[0].detach().view(SHAPES[kind])).flatten(1)
    worth = worth if kind == "table" else worth.unflatten(1, (2, -1)).sum(1)
    falls = torch.cat([torch.zeros(BATCH, 1), worth.sort(1, descending=True).values.cumsum(1)], 1)
    falls = falls[:, -(-torch.arange(7) * worth.shape[1] // 6)]
    clean = model(inputs)[:, :1].detach()
    assert_close(exact["flipping"], falls.mean(1), atol=1e-5, rtol=1e-4)
    assert_close(exact["deletion"], torch.trapezoid(clean - falls, dim=1) / 6, atol=1e-5, rtol=1e-4)
    rest = clean - falls[:, -1:]
    assert_close(exact["insertion"], torch.trapezoid(rest + falls, dim=1) / 6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "metric", "reason"),
    [
        ("table", Infidelity(baseline=0.0), "places side by side"),
        ("series", Infidelity(square_size=13, baseline=0.0), "`square_size` must be at most .* 12 pixels"),
        ("volume", Infidelity(square_size=4, baseline=0.0), "3x4x5 pixels"),
        ("table", FaithfulnessCorrelation(baseline=0.0), "`subset_size` must be at most 12"),
        ("table", InformationLevel(), "images with 1 or 3 channels"),
        ("volume", InformationLevel(), "images with 1 or 3 channels"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused_by_name(kind, metric, reason):
    who = rf"`metrics`: 'mine' \({type(metric).__name__}\) makes no sense of these inputs: .*{reason}"
    with pytest.raises(ValueError, match=who):
        lx.evaluate(linear(kind), inputs_of(kind), 0, ["gradient"], {"mine": metric}, bounds=(0.0, 1.2))


def test_squares_are_segments_and_cubes():
    keys = torch.arange(50)
    for extents in ((7,), (7, 5), (7, 5, 4)):
        squares = random_squares(keys, 3, *extents)
        assert squares.shape == (50, *extents)
        for axis in range(len(extents)):
            others = [place + 1 for place in range(len(extents)) if place != axis]
            assert_close(
                squares.any(others[0] if len(others) == 1 else others) if others else squares, _runs(squares, axis)
            )
        assert_close(squares.flatten(1).sum(1), torch.full((50,), 3 ** len(extents)))


def _runs(squares, axis):
    """Where a segment of three begins, and the next two."""
    flat = squares.movedim(axis + 1, 1).flatten(2).any(2) if squares.ndim > 2 else squares
    start = flat.int().argmax(1, keepdim=True)
    numbers = torch.arange(flat.shape[1])
    return (numbers >= start) & (numbers < start + 3)


@pytest.mark.parametrize("kind", ["series", "image"])
def test_edges_of_one_more_axis_of_length_one(kind):
    """Along it there is no edge; the mean has one more square, of zero, and nothing else is smoothed."""
    inputs = inputs_of(kind)
    flat, deeper = (SobelEdges()(linear(kind), x, 0) for x in (inputs, inputs.unsqueeze(2)))
    extents = inputs.ndim - 2
    assert_close(deeper.squeeze(2), flat * (extents / (extents + 1)) ** 0.5)


@pytest.mark.parametrize("name", sorted({*SIMILARITIES} - {"hog", "ssim", "ssim_absolute", "spearman_foreground"}))
def test_similarities_see_places_alone(name):
    """The same values, laid in a row, in a plane, in a volume, or as a table of channel sums."""
    first, second = torch.randn(2, BATCH, 2, 60)
    shapes = [(2, 60), (2, 6, 10), (2, 3, 4, 5)]
    scores = [compare(first.view(BATCH, *s), second.view(BATCH, *s), {name: SIMILARITIES[name]})[name] for s in shapes]
    scores.append(compare(first.sum(1), second.sum(1), {name: SIMILARITIES[name]})[name])
    for other in scores[1:]:
        assert_close(other, scores[0])


@pytest.mark.parametrize(
    ("ndim", "shape"),
    [(2, (3,)), (3, (3, 1)), (4, (3, 1, 1)), (5, (3, 1, 1, 1))],
    ids=["table", "series", "", "volume"],
)
def test_bounds_of_channels_are_those_of_channels(ndim, shape):
    for low, high in (([0.0, 1.0, 2.0], [3.0, 4.0, 5.0]), lx.bounds([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])):
        parsed = parse_bounds((low, high), ndim=ndim)
        assert parsed[0].shape == parsed[1].shape == shape
        assert_close(parsed[0].flatten(), torch.as_tensor(low).flatten())


def test_adaptgrad_of_a_series_with_bounds_of_its_channels():
    """As many channels as times: the second channel alone has room for noise."""
    inputs = torch.tensor([[[0.0, 0.0], [0.5, 0.5]]])
    noise = lx.adapt_grad().noise_std(
        inputs, lx.explainers.Context.create(torch.arange(1), 0, ([0.0, 0.0], [1.0, 1.0]), ndim=3)
    )
    assert torch.equal(noise > 0, torch.tensor([[[False, False], [True, True]]]))


# Token embeddings


class Reader(nn.Module):
    """Of token embeddings (batch, token, channel)."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, tokens):
        return self.head(self.mix(tokens).tanh().mean(1))


class Turned(nn.Module):
    """The same network of series (batch, channel, token)."""

    def __init__(self, reader):
        super().__init__()
        self.reader = reader

    def forward(self, series):
        return self.reader(series.movedim(1, -1))


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return Reader().eval()


TOKENS = torch.rand(BATCH, 7, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["smooth_grad", "integrated_gradients", "noise_grad", "edges"])
def test_token_embeddings_are_declared_once(reader, method):
    method = SobelEdges() if method == "edges" else method
    options = {"bounds": ([0.0] * 4, [1.0] * 4)}
    found = lx.explain(reader, TOKENS, 0, method, channel_dim=-1, **options)
    expected = lx.explain(Turned(reader), TOKENS.movedim(-1, 1), 0, method, **options)
    assert_close(found, expected.movedim(1, -1))
    assert not reader._forward_pre_hooks


def test_scores_of_tokens_are_those_of_the_series(reader):
    metrics = {"sparseness": "sparseness", "faithfulness": FaithfulnessCorrelation(20, 2, baseline=0.0)}
    masks = torch.rand(BATCH, 7) > 0.5
    tokens = lx.evaluate(reader, TOKENS, 0, ["gradient"], metrics, masks, channel_dim=-1, keep_attributions=2)
    series = lx.evaluate(Turned(reader), TOKENS.movedim(-1, 1), 0, ["gradient"], metrics, masks)
    for name in metrics:
        assert_close(tokens.scores["gradient"][name], series.scores["gradient"][name])
    assert_close(tokens.images, TOKENS[:2])
    assert tokens.attributions["gradient"].shape == (2, 7, 4)


def test_grad_cam_of_tokens(reader):
    """Of the layer named, whose tokens are the input's."""
    mixed = reader.mix(TOKENS).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(reader.head(mixed.tanh().mean(1))[:, 0].sum(), mixed)
    expected = (mixed * gradient.mean(1, keepdim=True)).sum(2).relu()
    for method in (grad_cam("mix"), grad_cam()):
        found = lx.explain(reader, TOKENS, 0, method, channel_dim=-1)
        assert_close(found.sum(2), expected.detach())


class OfEmbeddings(nn.Module):
    """A classifier of transformers behind its embedding layer."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, embeddings):
        return self.network(inputs_embeds=embeddings).logits


def test_a_bert_is_scored_by_token_deletion():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=50, num_labels=3, **sizes)
    bert = transformers.BertForSequenceClassification(config).eval()
    model = OfEmbeddings(bert)
    embeddings = bert.get_input_embeddings()(torch.randint(0, 50, (2, 9))).detach()
    metrics, methods = {"deletion": DeletionAUC(9, baseline=0.0)}, ["input_x_gradient"]
    options = {"channel_dim": -1, "keep_attributions": 2}
    result = lx.evaluate(model, embeddings, 1, methods, metrics, **options)
    order = result.attributions["input_x_gradient"].sum(2).argsort(1, descending=True)
    curve = []
    for number in range(10):
        kept = torch.ones(2, 9, 1).scatter(1, order[:, :number, None], 0.0)
        curve.append(model(embeddings * kept).softmax(1)[:, 1].detach())
    assert_close(result.scores["input_x_gradient"]["deletion"], torch.trapezoid(torch.stack(curve), dim=0) / 9)


@pytest.mark.parametrize("axis", [0, 3, -3, 7])
def test_a_channel_axis_is_one_of_a_sample(reader, axis):
    with pytest.raises(ValueError, match=r"`channel_dim` must be an axis of a sample, 1 .. 2 or -1; got"):
        lx.explain(reader, TOKENS, 0, channel_dim=axis)


# Callbacks and sanity checks


class Module(LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("kind", [*SHAPES, "tokens"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*")
def test_callbacks_work_on_all_with_their_defaults(kind, tmp_path, caplog, reader):
    tokens = kind == "tokens"
    inputs, network = (TOKENS, reader) if tokens else (inputs_of(kind), linear(kind))
    loader = DataLoader(TensorDataset(inputs, torch.tensor([0, 1, 2, 0, 1])), batch_size=5)
    axis = {"channel_dim": -1 if tokens else 1, "bounds": (0.0, 1.2)}
    callbacks = [AttributionCallback(**axis), RandomizationCallback(**axis)]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu", callbacks=callbacks, **quiet)
    with caplog.at_level("INFO", logger="pytorch_lightning.utilities.rank_zero"):
        trainer.test(Module(network), loader, verbose=False)
    logged = trainer.logged_metrics
    assert ("xai/edges/sparseness" in logged) == (kind != "table")
    assert ("leaves the control `edges` out" in caplog.text) == (kind == "table")
    assert "sanity/gradient/spearman_absolute" in logged
    assert (tmp_path / "xai/panels/test-epoch=000-step=0.png").exists()
    ssim = kind in ("series", "tokens")  # the others are less than five places wide, or a table
    assert ("sanity/gradient/ssim" in logged) == (ssim or kind == "image")
    assert all(torch.isfinite(value) for name, value in logged.items() if "adapt_grad" not in name)


@pytest.mark.parametrize("kind", [*SHAPES, "tokens"])
def test_sanity_checks_work_on_all_with_their_defaults(kind, reader):
    inputs, network = (TOKENS, reader) if kind == "tokens" else (inputs_of(kind), linear(kind))
    axis = -1 if kind == "tokens" else 1
    methods = {"gradient": lx.Gradient(), "input_x_gradient": lx.InputXGradient()}
    subject = Subject(
        network,
        channels_second(inputs, axis),
        torch.zeros(BATCH, dtype=torch.int64),
        torch.arange(BATCH),
        methods,
        SIMILARITIES,
        randomization=Randomization(repeats=3),
    )
    with taking_channels_second(network, axis):
        report = examine(subject, ("parameters", "invariance", "random_logit", "efficient"))
    verdicts = {(verdict.check, verdict.method): verdict for verdict in report.verdicts}
    assert verdicts["invariance", "gradient"].outcome == "PASS"
    deciding = {"table": "spearman", "volume": "spearman"}.get(kind, "ssim")
    assert verdicts["parameters", "gradient"].similarity == deciding
    # Maps are drawn on all: of the gradient at sample 1, the original one stands behind the input.
    axes = map_pairs(report, "invariance", absolute=False, samples=[1]).axes[0]
    _, drawn, *others = (np.asarray(image.get_array()) for image in axes.images)
    with taking_channels_second(network, axis):
        maps = pixel_map(lx.explain(network, subject.images[1:2], 0, lx.Gradient()), absolute=False)[0]
    expected = torch.cat(list(maps), 1) if kind == "volume" else maps  # slices side by side
    assert_close(drawn.reshape(expected.shape), expected.numpy())
    assert len(others) == 3


@pytest.mark.parametrize(
    "method",
    [
        CaptumExplainer(Occlusion, {"sliding_window_shapes": (1, 4)}),
        Smooth(CaptumExplainer(FeatureAblation, {"feature_mask": torch.zeros(1, 6, 4, dtype=torch.int64)})),
        Precomputed(lambda index: torch.zeros(6, 4)),
    ],
)
def test_what_knows_the_axes_as_the_network_has_them_is_refused_with_channels_last(method):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 3))
    said = "`channel_dim` is -1, but 'method' .* know the axes as the network has them"
    with pytest.raises(ValueError, match=said):
        explain(network, torch.rand(2, 6, 4), 0, method, channel_dim=-1)
    with pytest.raises(ValueError, match=said):
        evaluate(network, torch.rand(2, 6, 4), 0, {"method": method}, channel_dim=-1)


def test_a_bad_sample_is_named_by_its_index():
    images = torch.rand(3, 1, 4, 4)
    images[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite values in samples 101"):
        evaluate(torch.nn.Flatten(), images, 0, ["gradient"], index=torch.arange(3) + 100)
