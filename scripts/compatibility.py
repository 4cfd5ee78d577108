"""Which networks, tasks, explainers, metrics, checks and commands go together: docs/compatibility.md.

    python scripts/compatibility.py [--networks NAME ...] [--output docs/compatibility.md]

Every cell is tried, on networks with random weights, the smallest of their kind, with two samples and two draws. It
works, is refused with one of the reasons known here, or makes no sense; anything else is told, and the exit code is 1.
Writes the whole table, or prints the rows of some networks.
"""

import argparse
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from inspect import signature
from io import StringIO
from pathlib import Path
from time import process_time
from typing import Any

import captum.attr
import torch
import yaml
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lightning_xai as lx
from lightning_xai import outputs
from lightning_xai.callbacks import AttributionCallback
from lightning_xai.cli import main as command_line
from lightning_xai.explainers.channels import channels_second, taking_channels_second
from lightning_xai.names import known
from lightning_xai.sanity import Randomization, Subject, examine
from lightning_xai.sanity.similarity import SIMILARITIES

SCRIPTS = Path(__file__).parent
WORKS, SENSELESS = "✓", "–"
SAMPLES = 2
CLASSES = 3


# Networks: a name, what makes it (as a class_path), and what it takes.


@dataclass(frozen=True)
class Task:
    """What is explained, the labels that a batch has, and the target; None for the label itself."""

    output: tuple[str, dict[str, Any]]
    label: Callable[[Tensor], Tensor] | None
    target: int | str | None = None


def classes(inputs: Tensor) -> Tensor:
    return torch.arange(len(inputs)) % 2


TASKS = {
    "multi-class": Task(("Logit", {}), classes),
    "binary": Task(("Logit", {}), classes),
    "multi-label": Task(("Logit", {"multi_label": True}), lambda inputs: torch.ones(len(inputs), CLASSES), 1),
    "regression": Task(("At", {"index": 0}), lambda inputs: torch.rand(len(inputs))),
    "segmentation": Task(
        ("Region", {}), lambda inputs: torch.ones(len(inputs), *inputs.shape[2:]).long(), "prediction"
    ),
    "embedding": Task(("Similarity", {"embedding": [1.0] * CLASSES}), None),
    "sequence": Task(("At", {"index": (-1, 1)}), lambda inputs: torch.ones(inputs.shape[:2]).long()),
}


@dataclass(frozen=True)
class Row:
    """A network.

    Attributes:
        path, options: Of what makes it.
        forward: Arguments of `lightning_xai.Forward`; None for a network from a tensor to a tensor.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (3, 32, 32)
    task: str = "multi-class"
    forward: dict[str, Any] | None = None
    channel_dim: int = 1

    @property
    def package(self) -> str:
        return self.options["path"].partition(".")[0] if "path" in self.options else self.path.partition(".")[0]

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        module, _, name = self.path.rpartition(".")
        made = getattr(import_module(module), name)(**self.options)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if name.endswith("weight") and not parameter.any():  # heads and branches that begin at zero
                    parameter.normal_(std=0.1)
        return made.eval()

    def model(self) -> nn.Module:
        network = self.network()
        return network if self.forward is None else lx.Forward(network, **self.forward)

    def inputs(self) -> Tensor:
        return torch.rand(SAMPLES, *self.shape, generator=torch.Generator().manual_seed(1))

    def output(self) -> outputs.Output:
        name, options = TASKS[self.task].output
        return getattr(outputs, name)(**options)

    def target(self, model: nn.Module) -> Tensor:
        """Of each sample."""
        inputs, given = self.inputs(), TASKS[self.task].target
        if given == "prediction":
            return self.output().prediction(model(inputs).detach())
        return classes(inputs) if given is None and self.output().has_labels else torch.full((len(inputs),), given or 0)

    def masks(self) -> Tensor:
        """The first half of all places."""
        first = channels_second(self.inputs(), self.channel_dim)
        first = first if first.ndim == 2 else first[:, 0]
        return torch.arange(first[0].numel()).view(first.shape[1:]).expand_as(first) < first[0].numel() // 2


def of_config(path: str, config: str, **options: Any) -> nn.Module:
    """A network of transformers: the class, its configuration, what that is made of."""
    module, _, name = path.rpartition(".")
    room = import_module(module)
    return getattr(room, name)(getattr(room, config)(**options))


class Images(nn.Sequential):
    """A convolutional network of images, series or volumes."""

    def __init__(self, dims: int = 2, outputs: int = CLASSES) -> None:
        conv, pool = getattr(nn, f"Conv{dims}d"), getattr(nn, f"AdaptiveAvgPool{dims}d")
        super().__init__(conv(3, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 3, padding=1), nn.ReLU(), pool(2))
        self.extend([nn.Flatten(), nn.Linear(8 * 2**dims, outputs)])


class Pixels(nn.Sequential):
    """A segmentation."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))


class Table(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, CLASSES))


class Recurrent(nn.Module):
    """Of series with the channels last, (batch, time, channel): a class for the whole, or one for each time."""

    def __init__(self, every: bool = False) -> None:
        super().__init__()
        self.every, self.lstm, self.head = every, nn.LSTM(4, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, series: Tensor) -> Tensor:
        states, _ = self.lstm(series)
        return self.head(states if self.every else states[:, -1])


def timm(name: str, size: int = 32, **options: Any) -> Row:
    return Row("timm.create_model", {"model_name": name, "num_classes": CLASSES, **options}, (3, size, size))


def transformers(name: str, config: str, task: str = "multi-class", size: int = 32, **options: Any) -> Row:
    of = {"path": f"transformers.{name}", "config": config, "num_labels": CLASSES, **options}
    return Row("compatibility.of_config", of, (3, size, size), task, forward={})


def torchvision(name: str, size: int = 32, **options: Any) -> Row:
    return Row(f"torchvision.models.{name}", {"num_classes": CLASSES, **options}, (3, size, size))


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
STAGES = {"depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 2]}
TOKENS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
PATCHES = {"image_size": 32, "patch_size": 8, **TOKENS}
NETWORKS = {
    "CNN": Row("compatibility.Images"),
    "CNN, one logit": Row("compatibility.Images", {"outputs": 1}, task="binary"),
    "CNN, several labels": Row("compatibility.Images", task="multi-label"),
    "CNN, a number": Row("compatibility.Images", {"outputs": 1}, task="regression"),
    "CNN, embedding": Row("compatibility.Images", task="embedding"),
    "FCN": Row("compatibility.Pixels", task="segmentation"),
    "CNN of series": Row("compatibility.Images", {"dims": 1}, (3, 32)),
    "CNN of volumes": Row("compatibility.Images", {"dims": 3}, (3, 8, 8, 8)),
    "MLP of tables": Row("compatibility.Table", shape=(12,)),
    "LSTM": Row("compatibility.Recurrent", shape=(16, 4), channel_dim=-1),
    "LSTM, each time": Row("compatibility.Recurrent", {"every": True}, (16, 4), "sequence", channel_dim=-1),
    "timm ViT": timm("vit_tiny_patch16_224", **VIT),
    "timm DeiT": timm("deit_tiny_distilled_patch16_224", **VIT),
    "timm DINOv2 with registers": timm("vit_small_patch14_reg4_dinov2", **VIT),
    "timm EVA-02": timm("eva02_tiny_patch14_224", **VIT),
    "timm BEiT": timm("beit_base_patch16_224", **VIT),
    "timm Swin": timm("swin_tiny_patch4_window7_224", 64, img_size=64, window_size=2, embed_dim=24, **STAGES),
    "timm Mixer": timm("mixer_s32_224", 64, img_size=64),
    "timm ConvNeXt": timm("convnext_atto", depths=[1, 1, 2, 1], dims=[8, 16, 24, 32]),
    "timm ResNet": timm("resnet10t"),
    "timm MobileNetV3": timm("mobilenetv3_small_050"),
    "timm EfficientNet": timm("efficientnet_b0"),
    "timm RegNet": timm("regnetx_002"),
    "timm DenseNet": timm("densenet121", growth_rate=4, block_config=[2, 2]),
    "timm GhostNet": timm("ghostnet_050"),
    "timm PoolFormer": timm("poolformer_s12"),
    "timm PVTv2": timm("pvt_v2_b0", depths=[1, 1, 2, 1]),
    "timm XCiT": timm("xcit_nano_12_p8_224", img_size=32, depth=2),
    "timm MaxViT": timm("maxvit_rmlp_pico_rw_256", 64, img_size=64),
    "transformers ViT": transformers("ViTForImageClassification", "ViTConfig", **PATCHES),
    "transformers DeiT": transformers("DeiTForImageClassification", "DeiTConfig", **PATCHES),
    "transformers BEiT": transformers("BeitForImageClassification", "BeitConfig", **PATCHES),
    "transformers DINOv2": transformers("Dinov2ForImageClassification", "Dinov2Config", **PATCHES),
    "transformers Swin": transformers(
        "SwinForImageClassification", "SwinConfig", size=64, image_size=64, embed_dim=12, window_size=2, **STAGES
    ),
    "transformers ConvNeXt": transformers(
        "ConvNextForImageClassification", "ConvNextConfig", depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 24, 32]
    ),
    "transformers ResNet": transformers(
        "ResNetForImageClassification",
        "ResNetConfig",
        depths=[1, 1],
        hidden_sizes=[8, 16],
        embedding_size=8,
        layer_type="basic",
    ),
    "transformers SegFormer": transformers(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        "segmentation",
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=16,
    ),
    "transformers BERT at embeddings": Row(
        "compatibility.of_config",
        {
            "path": "transformers.BertForSequenceClassification",
            "config": "BertConfig",
            "vocab_size": 50,
            "num_labels": CLASSES,
            **TOKENS,
        },
        (9, 24),
        forward={"explained": "inputs_embeds"},
        channel_dim=-1,
    ),
    "torchvision ResNet": torchvision("resnet18"),
    "torchvision MobileNetV3": torchvision("mobilenet_v3_small"),
    "torchvision EfficientNet": torchvision("efficientnet_b0"),
    "torchvision SqueezeNet": torchvision("squeezenet1_1"),
    "torchvision ShuffleNet": torchvision("shufflenet_v2_x0_5"),
    "torchvision DenseNet": torchvision("DenseNet", growth_rate=4, block_config=[2, 2], num_init_features=8),
    "torchvision ViT": torchvision(
        "VisionTransformer", image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48
    ),
    "torchvision Swin": torchvision(
        "SwinTransformer", patch_size=[4, 4], embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=[2, 2]
    ),
    "torchvision R3D of clips": Row("torchvision.models.video.r3d_18", {"num_classes": CLASSES}, (3, 4, 16, 16)),
    "torchvision LR-ASPP": Row(
        "torchvision.models.segmentation.lraspp_mobilenet_v3_large",
        {"weights_backbone": None, "num_classes": CLASSES},
        task="segmentation",
        forward={"key": "out"},
    ),
    "segmentation_models_pytorch U-Net": Row(
        "segmentation_models_pytorch.Unet",
        {"encoder_name": "resnet18", "encoder_weights": None, "classes": CLASSES},
        task="segmentation",
    ),
    "MONAI DenseNet of scans": Row(
        "monai.networks.nets.DenseNet",
        {
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 1,
            "init_features": 8,
            "growth_rate": 4,
            "block_config": [2, 2],
        },
        (1, 16, 16, 16),
        "binary",
    ),
    "MONAI U-Net of scans": Row(
        "monai.networks.nets.UNet",
        {"spatial_dims": 3, "in_channels": 1, "out_channels": CLASSES, "channels": [4, 8], "strides": [2]},
        (1, 8, 8, 8),
        "segmentation",
    ),
}


# Columns: groups of methods and of metrics by their plain names, and what uses both.

METHODS = {
    "gradient": ["gradient", "saliency", "input_x_gradient", "integrated_gradients"],
    "input noise": ["smooth", "smooth_grad", "adapt_grad"],
    "weight noise": ["perturb_weights", "noise_grad", "fusion_grad"],
    "SmoothDiff": ["smooth_diff"],
    "GradCAM": ["grad_cam"],
    "guided": ["guided_backprop", "guided_grad_cam"],
    "GradientSHAP": ["gradient_shap"],
    "Captum's DeepLift": ["captum_explainer"],
    "controls": ["random_attribution", "input_attribution", "sobel_edges", "untrained"],
    "maps made elsewhere": ["precomputed"],
}
METRICS = {
    "localization": [
        "relevance_rank_accuracy",
        "relevance_mass_accuracy",
        "localization_auroc",
        "pointing_game",
        "top_k_intersection",
    ],
    "complexity": ["sparseness", "complexity", "effective_complexity"],
    "curves": ["pixel_flipping", "deletion_auc", "insertion_auc"],
    "subsets": ["faithfulness_correlation"],
    "infidelity": ["infidelity"],
    "information": ["information_level"],
    "robustness": ["max_sensitivity", "average_sensitivity", "local_lipschitz"],
    "inherent noise": ["inherent_noise"],
}
FEW = {"num_draws": 2, "num_weight_draws": 2, "num_input_draws": 2, "num_steps": 4, "num_subsets": 8, "k": 4}
GIVEN = {"captum_explainer": {"method": captum.attr.DeepLift}, "information_level": {"min_score": 0.0}}
UNDEFINED = ("information_level",)
"""Metrics that are documented to be undefined for some samples of an untrained network."""
EDGES = "sobel_edges"

USES = ["sanity", "callback", "command"]
EXTRAS = ["timm", "transformers", "torchvision", "monai", "segmentation_models_pytorch"]
"""Packages with networks, none of which the program needs but torchvision."""

HEAD = """# What goes together

Made by `python scripts/compatibility.py`, and compared with what is so by `tests/test_compatibility.py`. The networks
have random weights and are the smallest of their kind; methods and metrics have their defaults but for few draws.

✓ works: a finite map of the input's shape, finite scores, similarities, logged means and files. A number: refused by an
error, with one of the reasons below. – makes no sense. There is nothing else. Scores of `information_level` may be
undefined (NaN), as its documentation says, of networks that have learned nothing; its `min_score` is 0 here.

With {versions}.
"""

REASONS = (
    ("`inputs` must be series, images or volumes", "A layer's maps are enlarged to the inputs; a table has no places."),
    ("no convolution whose maps GradCAM could show", "Say which `layer` GradCAM shall look at."),
    (
        "must apply its ReLUs as nn.ReLU modules",
        "Every rectifier must be an `nn.ReLU`, as guided backpropagation asks.",
    ),
    (
        "has rules for .*; it has no rule for",
        "Every nonlinear function, the output's too, must be a module that the method knows.",
    ),
    ("`subset_size` must be at most", "The default subsets of 224 positions are too large; say `subset_size`."),
    ('perturbation="square" needs', 'A table has no squares: `perturbation="noise"`.'),
    ("because they are coded as pictures", "Only pictures of 1 or 3 channels can be coded as such."),
    ("which know the axes as the network has them", "Maps in files have the channels where the network has them."),
    (
        "has no probability, which a metric",
        "Such an output has no probability to watch: `output='explained'` of the metric.",
    ),
    ("`square_size` must be at most", "The default squares of 8 positions a side are too large; say `square_size`."),
)
"""What an error must say, and what that means; numbered from 1."""


def thing(kind: Any, name: str, **given: Any) -> Any:
    """The method or metric of a name, with few draws."""
    make = known(kind)[name]
    few = {key: value for key, value in FEW.items() if key in signature(make).parameters}
    return make(**{**few, **GIVEN.get(name, {}), **given})


def options(row: Row) -> dict[str, Any]:
    return {"bounds": (0.0, 1.0), "output": row.output(), "channel_dim": row.channel_dim}


def explained(row: Row, model: nn.Module, name: str) -> str:
    """A finite map of the right shape, that is not zero."""
    inputs = row.inputs()
    if name == EDGES and inputs.ndim == 2:
        return SENSELESS  # a table has no places side by side
    method = thing("methods", name, **({"path": lambda index: inputs[index]} if name == "precomputed" else {}))
    # GradCAM's maps are rectified: they may be zero for an output, but then not for its negative. A region is where the
    # target is predicted, which may be nowhere under the weights of the control `untrained`.
    attempts: list[outputs.Output] = [row.output(), outputs.Of(lambda raw: -row.output().scores(raw))]
    attempts += [outputs.Of(lambda raw: raw.flatten(2).mean(2))] if row.task == "segmentation" else []
    for output in attempts:
        maps = lx.explain(model, inputs, row.target(model), method, **{**options(row), "output": output})
        if maps.shape != inputs.shape or not maps.isfinite().all():
            raise AssertionError(f"a map of shape {tuple(maps.shape)}, of size {maps.abs().amax()}")
        if maps.any():
            return WORKS
    raise AssertionError("maps of zeros")


def scored(row: Row, model: nn.Module, name: str) -> str:
    """Finite scores."""
    given = row.inputs(), row.target(model), ["gradient"], {"metric": thing("metrics", name)}, row.masks()
    scores = lx.evaluate(model, *given, **options(row)).scores["gradient"]["metric"]
    if name not in UNDEFINED and not scores.isfinite().all():
        raise AssertionError(f"scores {scores.tolist()}")
    return WORKS


def examined(row: Row, model: nn.Module) -> str:
    """The cascading check finishes, with a similarity for each of at most twelve stages."""
    inputs = channels_second(row.inputs(), row.channel_dim)
    subject = Subject(
        model,
        inputs,
        row.target(model),
        torch.arange(len(inputs)),
        {"gradient": lx.Gradient()},
        {name: SIMILARITIES[name] for name in ("spearman", "ssim")},
        (0.0, 1.0),
        randomization=Randomization(repeats=1),
        output=row.output(),
    )
    with taking_channels_second(model, row.channel_dim):
        report = examine(subject, ("parameters",))
    steps = [cell for cell in report.cells if cell.key.check == "parameters"]
    if not 1 <= len(steps) <= 12:
        raise AssertionError(f"{len(steps)} steps")
    return WORKS


class Module(LightningModule):
    """Somebody's module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self.network(*arguments, **named)

    def validation_step(self, batch: Any) -> None:
        pass

    def test_step(self, batch: Any) -> None:
        pass


class Data(LightningDataModule):
    """The samples of a row, with masks."""

    def __init__(self, row: str) -> None:
        super().__init__()
        self.row = NETWORKS[row]

    def val_dataloader(self) -> DataLoader:
        inputs, masks, label = self.row.inputs(), self.row.masks(), TASKS[self.row.task].label
        labels = {} if label is None else {"label": label(inputs)}
        columns = {"image": inputs, "mask": masks, **labels}
        return DataLoader([{name: column[row] for name, column in columns.items()} for row in range(SAMPLES)], SAMPLES)

    test_dataloader = val_dataloader


def callback_options(row: Row) -> dict[str, Any]:
    """Of AttributionCallback, as a file has them."""
    name, options = TASKS[row.task].output
    return {
        "output": {"class_path": f"lightning_xai.outputs.{name}", "init_args": options},
        "target": TASKS[row.task].target,
        "bounds": [0.0, 1.0],
        "num_gradients": 2,
        "forward": row.forward,
        "channel_dim": row.channel_dim,
    }


QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}


def called_back(name: str) -> str:
    """A validation with the callback logs finite means, and leaves scores and a panel."""
    row = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        callback = AttributionCallback(**{**callback_options(row), "output": row.output(), "bounds": (0.0, 1.0)})
        trainer = Trainer(default_root_dir=folder, callbacks=[callback], **QUIET)
        trainer.validate(Module(row.network()), datamodule=Data(name), verbose=False)
        check_written(Path(folder))
        logged = trainer.logged_metrics["xai/gradient/sparseness"]
    if not torch.isfinite(logged):
        raise AssertionError(f"logged {logged}")
    return WORKS


def commanded(name: str) -> str:
    """`lightning-xai test` of a file leaves the same."""
    row = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        network = {"class_path": "compatibility.made", "init_args": {"name": name}}
        callback = {"class_path": "lightning_xai.callbacks.AttributionCallback", "init_args": callback_options(row)}
        config = {
            "trainer": {**QUIET, "default_root_dir": f"{folder}/run", "callbacks": [callback]},
            "model": {"class_path": "compatibility.Module", "init_args": {"network": network}},
            "data": {"class_path": "compatibility.Data", "init_args": {"row": name}},
        }
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        command_line(["test", "--config", str(path)])
        check_written(Path(folder))
    return WORKS


def made(name: str) -> nn.Module:
    """The network of a row, for a file."""
    return NETWORKS[name].network()


def check_written(folder: Path) -> None:
    for pattern in ("xai/scores/*.parquet", "xai/panels/*.png"):
        if not any(folder.rglob(pattern)):
            raise AssertionError(f"no {pattern}")


def tried(attempt: Callable[[], str]) -> str:
    """`✓`, `–`, the number of the reason why it is refused, or what went wrong."""
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            return attempt()
    except (ValueError, TypeError) as error:
        found = (number for number, (said, _) in enumerate(REASONS, 1) if re.search(said, str(error)))
        return str(next(found, failed(error)))
    except (Exception, SystemExit) as error:
        return failed(error)


def failed(error: BaseException) -> str:
    return f"FAILED ({type(error).__name__}: {' '.join(str(error).split())})"


def together(members: dict[str, str]) -> str:
    """The cells of a group as one: what is true of all, and by name where it is not."""
    most = max(members.values(), key=list(members.values()).count)
    others = [f"{name} {cell}" for name, cell in members.items() if cell != most]
    return ", ".join([most, *others])


def cells(name: str) -> dict[str, str]:
    """What was found of a network, by column."""
    row = NETWORKS[name]
    model = row.model()
    found = {
        group: together({member: tried(partial(attempt, row, model, member)) for member in members})
        for attempt, groups in ((explained, METHODS), (scored, METRICS))
        for group, members in groups.items()
    }
    uses = partial(examined, row, model), partial(called_back, name), partial(commanded, name)
    return found | dict(zip(USES, map(tried, uses), strict=True))


def line(name: str, task: str, found: dict[str, str], columns: Iterable[str]) -> str:
    return f"| {name} | {task} | {' | '.join(found[column] for column in columns)} |"


def table(title: str, found: dict[str, dict[str, str]], columns: list[str]) -> str:
    head = [f"| network | task | {' | '.join(columns)} |", "| --- | --- |" + " :---: |" * len(columns)]
    return "\n".join([f"## {title}", "", *head, *(line(n, NETWORKS[n].task, f, columns) for n, f in found.items())])


def document(found: dict[str, dict[str, str]], versions: str) -> str:
    """The page."""
    groups = [f"- {group}: {', '.join(f'`{m}`' for m in members)}" for group, members in {**METHODS, **METRICS}.items()]
    reasons = [f"{number}. {meaning}" for number, (_, meaning) in enumerate(REASONS, 1)]
    return "\n".join(
        [
            HEAD.format(versions=versions),
            table("Explainers", found, list(METHODS)),
            "",
            table("Metrics, of the gradient", found, list(METRICS)),
            "",
            table("Checks, callback, command line", found, USES),
            "",
            "## Reasons",
            "",
            *reasons,
            "",
            "## What the columns are",
            "",
            *groups,
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, metavar="NAME", help="print these alone")
    parser.add_argument("--output", type=Path, default=SCRIPTS.parent / "docs" / "compatibility.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {}
    for name in given.networks or NETWORKS:
        start = process_time()
        found[name] = cells(name)
        print(f"{name}: {process_time() - start:.0f} s", flush=True)
        for column, cell in found[name].items():
            if given.networks or "FAILED" in cell:
                print(f"    {column}: {cell}")
    if not given.networks:
        packages = ["torch", "pytorch-lightning", "captum", *EXTRAS]
        given.output.write_text(document(found, ", ".join(f"{package} {version(package)}" for package in packages)))
    return int("FAILED" in str(found))


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPTS))  # files name what is here as `compatibility`, which is to be the same module
    import compatibility

    sys.exit(compatibility.main())
