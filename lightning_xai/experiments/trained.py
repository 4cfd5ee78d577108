"""A Trainer that can also examine: the `sanity`, `calibrate` and `visualize` commands of the command line."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from lightning_xai.callbacks.rows import reachable_rows
from lightning_xai.callbacks.samples import Samples, first_loader, has_rows, read_rows, spread, unpack
from lightning_xai.data.input_space import InputSpace
from lightning_xai.experiments.noise_level import check_settings, find_noise_level
from lightning_xai.experiments.visualize import Setting, named_channels, portraits, visualization_result
from lightning_xai.explainers import Explainer, PerturbWeights, with_controls
from lightning_xai.explainers.base import check_choice, check_count, check_level, explaining, resolve_target
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.names import named
from lightning_xai.reporting.folders import check_folder
from lightning_xai.results.noise_level import NoiseLevel
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.sanity import MARGIN, SanityReport
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import EXAMINED, examine, paper_methods
from lightning_xai.sanity.randomization import BatchNormPolicy, Initialization, Ordering
from lightning_xai.sanity.refined import smoothed
from lightning_xai.sanity.similarity import Normalizer, Preset, Similarity, named_similarities
from lightning_xai.visualization import Activation, Jitter

ExplainedClass = Literal["label", "prediction", "repredicted"]


class ExaminingTrainer(Trainer):
    """A Trainer with three more commands."""

    def sanity(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        check: Literal["parameters", "data", "invariance", "efficient", "random_logit", "all"] = "all",
        methods: dict[str, Explainer | str] | tuple[str, ...] | None = None,
        num_samples: int = 64,
        similarity: str = "ssim",
        preset: Preset = "paper",
        normalizer: Normalizer | None = None,
        orderings: list[Ordering] | None = None,
        repeats: int = 8,
        initialization: Initialization = "own",
        batch_norm: BatchNormPolicy = "recalibrate",
        groups: dict[str, list[str]] | None = None,
        shift: float = 1.0,
        target: ExplainedClass = "label",
        alpha: float = 0.05,
        margin: float = MARGIN,
        seed: int = 0,
        batch_size: int = 64,
        precision: Precision = "32-true",
        smooth: int = 0,
        require: list[str] | None = None,
        output: str | None = None,
        twin_epochs: int = 100,
        twins: str = "runs/twins",
        num_twins: int = 3,
        make_twin: Callable[[int], tuple[nn.Module, float]] | None = None,
    ) -> SanityReport:
        """Sanity checks: do explanations depend on the model's weights and labels (Adebayo et al. 2018)?

        Finished parts are kept in the output folder; a check that was interrupted goes on where it stopped.

        Args:
            model: The module, whose `forward` maps images to logits.
            datamodule: The data; test samples are explained.
            ckpt_path: The trained weights.
            check: `parameters` randomizes weights, `data` trains a network on random labels, `invariance` shifts the
                input and compensates it; `all` makes these three. `efficient` asks whether maps get more complex when
                all weights are random (efficient MPRT), `random_logit` whether those of another class differ.
            methods: Explainers by name; plain names such as `grad_cam` will do, as will a list of them; null for the
                paper's that the network admits, and AG, NG, FG. Controls are added.
            num_samples: Test samples, evenly spaced.
            similarity: The one that decides, of `spearman`, `spearman_absolute`, `spearman_foreground`, `pearson`,
                `cosine`, `ssim`, `ssim_absolute` and `hog`; all that the images admit are written.
                SSIM hardly sees signs: for `random_logit`, where maps of two classes may be opposite, take `pearson`.
            preset: How SSIM and HOG are computed: as the `paper` says, or as the published `notebook` does.
            normalizer: Of the maps that SSIM and HOG compare; null for the preset's, `maximum` or `range`.
            orderings: Which blocks are randomized together; null for `cascading_from_top`.
            repeats: Independent random models of each step; a verdict takes three.
            initialization: Of random weights: `own`, `normal` (the published one) or `permute`.
            batch_norm: Running statistics of randomized models: `recalibrate` them on the samples, `reset` or `keep`
                them; kept, deep networks with random weights say the same of all images, and get no verdict.
            groups: Blocks by name, each with patterns of parameter or module names; null for a block a layer.
            shift: Added to the input, in the space of the normalized images.
            target: The class explained: the `label` (where the data have one, else the prediction), the trained
                model's `prediction`, or what each changed model predicts itself.
            alpha: Chance of a wrong PASS, and of a wrong FAIL, where the similarity is at the boundary.
            margin: How far above the floor still counts as at it, as a share of the way from the floor to 1.
            seed: Of noise and random weights.
            batch_size: Samples explained at a time.
            precision: Of the networks while they are examined, whatever the trainer's: `32-true`, or `bf16-mixed`,
                which is faster where the hardware computes in bfloat16. `invariance` is always checked in `32-true`.
            smooth: Average the methods' maps over this many noisy inputs, std 0.1 of the range (smooth MPRT takes 50);
                the controls stay as they are.
            require: Methods that must pass all checks made; or else the exit code is 1.
            output: Folder, in which each `check` has one for its results; null for `sanity` in the checkpoint's run.
            twin_epochs: Most epochs of the training on random labels; it ends at 95 % training accuracy.
            twins: Folder for networks trained on random labels, which are used again.
            num_twins: Networks trained on random labels, of the configuration's seed and the next ones; a verdict takes
                three.
            make_twin: For use from Python: gives the network trained on random labels of a number, and its accuracy
                on them.
        """
        for name, value in (("num_samples", num_samples), ("repeats", repeats), ("batch_size", batch_size)):
            check_count(name, value)
        check_count("twin_epochs", twin_epochs)
        check_count("seed", seed, 0)
        check_level("alpha", alpha)
        check_choice("target", target, ExplainedClass)
        check_choice("precision", precision, Precision)
        if output is not None:
            check_folder("output", output)
        similarities = named_similarities(preset, normalizer)
        subject = self._subject(model, datamodule, similarities, num_samples, target, seed, batch_size, precision)
        if methods is None:
            chosen = paper_methods(subject.model, subject.bounds is not None, subject.images)
        else:
            chosen = named("methods", methods)
        subject = replace(subject, methods=with_controls(smoothed(chosen, smooth)))
        _check_required(require or [], subject.methods)
        return examine(
            subject,
            EXAMINED if check == "all" else (check,),
            similarity,
            orderings or ["cascading_from_top"],
            repeats,
            initialization,
            batch_norm,
            groups,
            make_twin,
            num_twins,
            shift,
            alpha,
            margin,
            None if output is None else Path(output) / "cells",
            progress=self.progress_bar_callback is not None,
        )

    def calibrate(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        drop: float = 0.05,
        num_draws: int = 10,
        num_samples: int = 1000,
        tolerance: float = 0.01,
        maximum: float = 2.0,
        chance: float | None = None,
        seed: int = 0,
        max_rows: int | None = None,
        output: str | None = None,
    ) -> NoiseLevel:
        """The weight noise of NoiseGrad and FusionGrad, by the accuracy that it costs (Bykov et al. 2022).

        Writes a YAML file with the settings of `noise_grad` (at the level), `fusion_grad` (half the level, and input
        noise of half of 20 % of each image's range) and `saliency`, which both smooth; and the accuracy-drop curve
        beside it, as .csv and .png. The file is the value of an explainer option, where it replaces all other methods:
        `--trainer.callbacks.methods FILE` (of the last callback) or `sanity --methods FILE`; or in a configuration
        `methods: FILE`, relative to the configuration. To change a method's level alone, behind a configuration that
        has it: `--trainer.callbacks.methods.noise_grad.init_args.std LEVEL`. Where the drop is not reached, there are
        no settings to write. The network runs in the trainer's precision, in one process.

        Args:
            model: The module, whose `forward` maps images to logits.
            datamodule: The data; accuracy is measured on validation samples.
            ckpt_path: The trained weights.
            drop: Relative accuracy drop, 1 - (accuracy - chance) / (clean accuracy - chance).
            num_draws: Noisy networks at each level.
            num_samples: Validation samples, evenly spaced.
            tolerance: Of the level.
            maximum: The most noise tried.
            chance: Accuracy that counts as nothing left; null for one over the number of outputs.
            seed: Of the noise; the same as the callback's makes the same noise.
            max_rows: Rows that pass through the network at once; null for as many as fit in memory.
            output: The YAML file; null for `noise_level.yaml` in the run of the checkpoint.
        """
        check_count("num_samples", num_samples)
        check_settings(drop, num_draws, tolerance, maximum, chance, seed)
        if max_rows is not None:
            check_count("max_rows", max_rows)
        self._introduce(model, datamodule)
        samples = stored_samples(datamodule, num_samples, "validate", self.limit_val_batches)
        if samples.labels is None:
            raise ValueError(f"`data`: {type(datamodule).__name__} gives no labels, which accuracy needs.")
        device = self.strategy.root_device
        with self.precision_plugin.forward_context():
            return find_noise_level(
                model.to(device),
                samples.images.to(device),
                samples.labels,
                chance,
                drop,
                num_draws,
                tolerance,
                maximum,
                seed,
                max_rows,
                progress=self.progress_bar_callback is not None,
            )

    def visualize(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        target: int | list[int] | None = None,
        layer: str | None = None,
        channel: int | list[int] | None = None,
        unit: bool = False,
        weight_noise: float = 0.2,
        num_models: int = 10,
        redraw: bool = False,
        steps: int = 200,
        lr: float = 0.05,
        jitter: Jitter = Jitter(),
        num_starts: int = 1,
        num_fresh: int = 20,
        models_per_pass: int | None = None,
        seed: int = 0,
        output: str | None = None,
    ) -> Reproduction:
        """Images that a class, a channel or a unit answers to most, plain and with NoiseGrad (Bykov et al. 2022).

        Each image is written as a PNG of the network's resolution; beside them a figure with all of them, scores, the
        rise of the activation, and what NoiseGrad costs in wall time. No data are read.

        Args:
            model: The module, whose `forward` maps images to logits.
            datamodule: The data, for shape and bounds of an image and the names of the classes.
            ckpt_path: The trained weights; null for those that the module brings.
            target: Class or classes whose logit is maximized.
            layer: Name of a module, or the end of one such name, instead of `target`.
            channel: Channel or channels of the layer.
            unit: Maximize the channel's activation at the middle place only, instead of its mean over all places.
            weight_noise: Multiplicative noise of NoiseGrad, relative to each weight; 0 for plain images only.
            num_models: Noisy networks whose mean activation is maximized.
            redraw: Draw them again in each step.
            steps: Of Adam.
            lr: Learning rate of Adam.
            jitter: Random views of the image, a new one in each step.
            num_starts: Images of each class or channel, which differ in seed.
            num_fresh: Noisy networks that the finished images are shown to.
            models_per_pass: Noisy networks that are computed at once, by `torch.vmap`; null for as many as weigh 16
                MiB. A network that vmap does not admit takes 1.
            seed: Of starts, views and weight noise.
            output: Folder; null for `visualize` in the checkpoint's run, or in runs.
        """
        activation = _activation(target, layer, channel, unit)
        counts = {"num_models": num_models, "steps": steps, "num_starts": num_starts, "num_fresh": num_fresh}
        for name, value in (counts | ({} if models_per_pass is None else {"models_per_pass": models_per_pass})).items():
            check_count(name, value)
        if not 0 < lr < math.inf:
            raise ValueError(f"`lr` must be positive and finite, got {lr}.")
        shape, bounds, names = _image_space(model, datamodule)
        setting = Setting(
            activation,
            named_channels(activation.channels, names if layer is None else None),
            shape,
            bounds,
            PerturbWeights(std=weight_noise, num_draws=num_models),
            (redraw,),
            num_starts,
            steps,
            lr,
            jitter,
            models_per_pass,
            num_fresh,
            seed,
            self.progress_bar_callback is not None,
        )
        with self.precision_plugin.forward_context():
            found = portraits(model.to(self.strategy.root_device), setting)
        source = f"Activation maximization, {type(getattr(model, 'network', model)).__name__}"
        return visualization_result(found, setting, source, {"ckpt_path": ckpt_path})

    def _subject(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        similarities: dict[str, Similarity],
        num_samples: int,
        target: ExplainedClass,
        seed: int,
        batch_size: int,
        precision: Precision,
    ) -> Subject:
        device = self.strategy.root_device
        model = model.to(device).eval()
        self._introduce(model, datamodule)
        samples = stored_samples(datamodule, num_samples, "test", self.limit_test_batches, target == "label")
        images, labels = samples.images.to(device), samples.labels
        with in_precision(model, precision), explaining(model):
            explained = resolve_target(model, images, labels if target == "label" else None)
        return Subject(
            model,
            images,
            explained,
            samples.index,
            {},
            similarities,
            InputSpace(model, datamodule).bounds,
            None if labels is None else labels.to(device),
            target == "repredicted",
            seed,
            batch_size,
            precision,
        )

    def _introduce(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """As Lightning does before it runs: data modules of pictures ask which network they are for."""
        self.strategy.connect(model)
        datamodule.trainer = self


def stored_samples(
    datamodule: LightningDataModule,
    num_samples: int,
    stage: Literal["validate", "test"],
    limit: int | float = 1.0,
    strict: bool = True,
) -> Samples:
    """Samples, evenly spaced over the rows that the loader can yield; each has its row where batches do not say.

    Args:
        datamodule: Whose first dataloader of the stage is asked.
        num_samples: All if there are fewer.
        stage: Of the dataloader.
        limit: The trainer's of the stage's batches (see `reachable_rows`).
        strict: As in `unpack`.
    """
    datamodule.prepare_data()
    datamodule.setup(stage)
    loader = first_loader(datamodule.test_dataloader() if stage == "test" else datamodule.val_dataloader())
    rows = reachable_rows(loader, limit) if has_rows(loader) else ()
    if not rows:
        raise ValueError(f"`data`: {type(datamodule).__name__} gives no samples to {stage} with.")
    chosen = spread(len(rows), num_samples)
    return read_rows(loader, rows, chosen, len(chosen), partial(unpack, strict=strict))


def _activation(
    target: int | list[int] | None, layer: str | None, channel: int | list[int] | None, unit: bool
) -> Activation:
    """What the options of `visualize` name: classes, or channels of a layer."""
    if (target is None) == (layer is None) or (layer is None) != (channel is None):
        raise ValueError(
            "Give either `target`, the class or classes to visualize, or `layer` and `channel`; got "
            f"`target` {target}, `layer` {layer}, `channel` {channel}."
        )
    chosen = channel if target is None else target
    return Activation(tuple(chosen) if isinstance(chosen, list) else (chosen,), layer, unit)  # type: ignore[arg-type]


def _image_space(
    model: LightningModule, datamodule: LightningDataModule
) -> tuple[tuple[int, int, int], tuple[Tensor, Tensor], Any]:
    """Shape and bounds of an image, and the names of the classes, from a module that knows them or from the data."""
    space = InputSpace(model, datamodule)
    shape, bounds = space.shape, space.bounds
    if shape is None or bounds is None:
        raise ValueError(
            f"`data`: {type(datamodule).__name__} must have `image_shape`, (channels, height, width), and `bounds`, "
            "what black and white are in the space of its normalized images."
        )
    return shape, bounds, space.class_names


def _check_required(require: list[str], methods: Mapping[str, Explainer]) -> None:
    unknown = [name for name in require if name not in methods]
    if unknown:
        raise ValueError(f"`require` must name methods that are examined, {', '.join(methods)}; got {unknown}.")
