"""The four criteria of NoiseGrad's Table 1 by lightning_xai and by Quantus: the same maps, values side by side, time.

Localization (relevance rank accuracy; AUROC too), faithfulness (correlation), robustness (maximum sensitivity) and
sparseness of SmoothGrad, AdaptGrad, NoiseGrad and FusionGrad over |gradient|, of what they smooth, and of the controls.
Batch by batch, first one library and then the other. Both explain with lightning_xai, under the same noise. Robustness
and faithfulness draw at random, each library for itself; a subset is of 224 pixels here, of 224 channel values there.

    python scripts/quantus_comparison.py --config runs/cmnist_resnet9/version_0/config.yaml \\
        --ckpt_path runs/cmnist_resnet9/version_0/checkpoints/best.ckpt --output runs/quantus

writes scores and metrics.json of both (`lightning-xai compare runs/quantus/lightning_xai`), and table.md.
"""

import argparse
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import quantus
import torch
import yaml
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningCLI
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

import lightning_xai as lx
from lightning_xai.callbacks.samples import Samples, spread, unpack
from lightning_xai.experiments import compare_methods, read_runs
from lightning_xai.explainers import Context, Explainer, with_controls
from lightning_xai.metrics import (
    FaithfulnessCorrelation,
    LocalizationAUROC,
    MaxSensitivity,
    RelevanceRankAccuracy,
    SampleMetric,
    Sparseness,
)
from lightning_xai.reporting.comparison import comparison_markdown
from lightning_xai.results.files import replacing
from lightning_xai.results.scores import Scores
from lightning_xai.results.store import SCORES, append_scores, write_directions

METHODS: dict[str, Explainer] = with_controls(
    {
        "gradient": lx.Gradient(),
        "saliency": lx.Saliency(),
        "smooth_grad": lx.smooth_grad(lx.Saliency(), num_draws=10),
        "adapt_grad": lx.adapt_grad(lx.Saliency(), num_draws=10),
        "noise_grad": lx.noise_grad(num_draws=10),
        "fusion_grad": lx.fusion_grad(weight_std=0.1, input_std=0.2, num_weight_draws=10, num_input_draws=10),
    }
)
OURS: dict[str, SampleMetric] = {
    "relevance_rank_accuracy": RelevanceRankAccuracy(),
    "auroc": LocalizationAUROC(),
    "faithfulness_correlation": FaithfulnessCorrelation(),
    "max_sensitivity": MaxSensitivity(),
    "sparseness": Sparseness(),
}
QUIET = {"normalise": False, "disable_warnings": True, "return_aggregate": False}


class FloatLogits(nn.Module):
    """The network with float32 logits: NumPy, and so Quantus, has no bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).float()


def quantus_scores(
    model: nn.Module, samples: Samples, explainer: Explainer, context: Context
) -> Iterator[tuple[str, list[float]]]:
    """The same criteria by Quantus, as its documentation has them used: the batch at once, maps made once."""

    def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
        images, target = (torch.as_tensor(array, device=samples.images.device) for array in (inputs, targets))
        return explainer(model, images, target, context).cpu().numpy()

    images, labels = samples.images.cpu().numpy(), samples.labels.cpu().numpy()
    attributions = explain(model, images, labels)
    pixels = attributions.sum(1, keepdims=True)
    masks = samples.masks.cpu().numpy()[:, None]
    metrics: dict[str, tuple[Callable, np.ndarray]] = {
        "relevance_rank_accuracy": (quantus.RelevanceRankAccuracy(**QUIET), np.abs(pixels)),
        "auroc": (quantus.AUC(**QUIET), np.abs(pixels)),
        "faithfulness_correlation": (quantus.FaithfulnessCorrelation(nr_runs=100, subset_size=224, **QUIET), pixels),
        "max_sensitivity": (quantus.MaxSensitivity(nr_samples=10, lower_bound=0.2, **QUIET), attributions),
        "sparseness": (quantus.Sparseness(**QUIET), np.abs(pixels)),
    }
    for name, (metric, maps) in metrics.items():
        values = metric(
            model=model,
            x_batch=images.copy(),
            y_batch=labels.copy(),
            a_batch=maps.copy(),
            s_batch=masks.copy(),
            explain_func=explain,
            softmax=False,
            device=samples.images.device,
            batch_size=len(images),
        )
        yield name, [float(value) for value in values]


def our_table(model: nn.Module, samples: Samples, bounds: tuple) -> Scores:
    return lx.evaluate(
        model,
        samples.images,
        samples.labels,
        METHODS,
        OURS,
        samples.masks,
        bounds=bounds,
        index=samples.index,
    ).to_scores("test")


def quantus_table(model: nn.Module, samples: Samples, bounds: tuple) -> Scores:
    context = Context.create(samples.index, bounds=bounds, device=samples.images.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = {
            method: {name: torch.tensor(own) for name, own in quantus_scores(model, samples, explainer, context)}
            for method, explainer in METHODS.items()
        }
    return Scores.from_values("test", 0, 0, samples.index, values)


def load(options: argparse.Namespace) -> tuple[nn.Module, list[Samples], tuple]:
    """The network, the chosen test samples in batches, and the bounds of their values."""
    cli = LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        run=False,
        save_config_callback=None,
        args=["--config", str(shared_part(options.config)), "--trainer.logger", "false"],
    )
    cli.model.load_state_dict(torch.load(options.ckpt_path, map_location="cpu", weights_only=True)["state_dict"])
    cli.datamodule.prepare_data()
    cli.datamodule.setup("test")
    loader = cli.datamodule.test_dataloader()
    chosen = Subset(loader.dataset, spread(len(loader.dataset), options.num_samples).tolist())
    device = torch.device(options.device)
    batches = [
        unpack(
            {key: value if key == "index" else to(value, device) for key, value in batch.items()},
            mask="box",
        )
        for batch in DataLoader(chosen, options.batch_size, collate_fn=loader.collate_fn)
    ]
    return FloatLogits(cli.model).to(device).eval(), batches, cli.datamodule.bounds


def to(value: Tensor | dict[str, Tensor], device: torch.device) -> Tensor | dict[str, Tensor]:
    return {name: part.to(device) for name, part in value.items()} if isinstance(value, dict) else value.to(device)


def side_by_side(scores: dict[str, Scores]) -> str:
    """Means of both libraries, and their difference sample by sample."""
    ours, theirs = (scores[library].by_sample() for library in ("lightning_xai", "quantus"))
    lines = [
        "| metric | method | lightning_xai | Quantus | greatest difference |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for method, metric in scores["quantus"].pairs():
        a, b = ours[metric][method].align(theirs[metric][method], join="right")
        numbers = (np.nanmean(a), np.nanmean(b), np.nanmax(np.abs(a - b), initial=0))
        lines.append(f"| {metric} | {method} | {numbers[0]:.4f} | {numbers[1]:.4f} | {numbers[2]:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="config.yaml of a run on CMNIST")
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the scores and the table")
    parser.add_argument("--num-samples", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32", help="of the network's passes")
    options = parser.parse_args()
    sys.argv[1:] = []  # or LightningCLI would wonder
    model, batches, bounds = load(options)
    bf16 = torch.autocast(torch.device(options.device).type, torch.bfloat16)
    parts: dict[str, list[Scores]] = {"lightning_xai": [], "quantus": []}
    seconds: dict[str, list[float]] = {"lightning_xai": [], "quantus": []}
    for samples in tqdm(batches, desc="batches"):
        for library, function in (("lightning_xai", our_table), ("quantus", quantus_table)):
            start = time.perf_counter()
            with bf16 if options.precision == "bf16" else nullcontext():
                parts[library].append(function(model, samples, bounds))
            seconds[library].append(time.perf_counter() - start)
    scores = {library: Scores.concatenated(own) for library, own in parts.items()}
    for library, own in scores.items():
        append_scores(options.output / library / SCORES, own)
        write_directions(options.output / library / SCORES, {n: m.higher_is_better for n, m in OURS.items()})
    ratios = np.array(seconds["lightning_xai"]) / np.array(seconds["quantus"])
    threads = f"{torch.get_num_threads()} CPU threads"
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()}, {threads}"
    text = "\n".join(
        [
            f"{sum(len(b.images) for b in batches)} test images, precision {options.precision}, {name}, "
            f"torch {torch.__version__}, quantus {quantus.__version__}.",
            "",
            f"Seconds: lightning_xai {sum(seconds['lightning_xai']):.0f}, Quantus {sum(seconds['quantus']):.0f}; ratio "
            f"{np.median(ratios):.2f}, median of {len(ratios)} batches ({ratios.min():.2f} .. {ratios.max():.2f}).",
            "",
            side_by_side(scores),
            "",
            comparison_markdown(compare_methods(read_runs([options.output / "lightning_xai"]))),
        ]
    )
    with replacing(options.output / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    tqdm.write(text)


def shared_part(config: Path) -> Path:
    """The settings without those of a single sub-command, which a command line without one does not know."""
    settings = yaml.safe_load(config.read_text())
    kept = {key: settings[key] for key in ("seed_everything", "model", "data")}
    path = Path(tempfile.mkdtemp()) / "config.yaml"
    path.write_text(yaml.safe_dump(kept))
    return path


if __name__ == "__main__":
    main()
