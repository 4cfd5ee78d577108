"""Questions asked of a trained module and its data, on the device and with the data that a trainer would take."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import nn

from lightning_xai.callbacks.base import check_forward, unpacking
from lightning_xai.callbacks.samples import Samples, unpack
from lightning_xai.callbacks.sentinel import ShortcutSentinel, known_evidence
from lightning_xai.data.input_space import InputSpace
from lightning_xai.experiments.noise_level import check_settings, find_noise_level
from lightning_xai.experiments.source import Source
from lightning_xai.experiments.visualize import Setting, named_channels, portraits, visualization_result
from lightning_xai.explainers import Explainer, PerturbWeights, with_controls
from lightning_xai.explainers.base import (
    check_choice,
    check_count,
    check_level,
    check_positive,
    explaining,
    parse_bounds,
    resolve_target,
)
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.forward import Forward
from lightning_xai.names import named
from lightning_xai.outputs import Output, named_output
from lightning_xai.reporting.shortcut_figure import Example
from lightning_xai.results.noise_level import NoiseLevel
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.sanity import MARGIN
from lightning_xai.results.shortcuts import Finding, ShortcutReport
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.examine import EXAMINED, Examined, examine, paper_methods
from lightning_xai.sanity.randomization import Randomization
from lightning_xai.sanity.refined import smoothed
from lightning_xai.sanity.similarity import Normalizer, Preset, named_similarities
from lightning_xai.studies.networks import trained
from lightning_xai.visualization import Activation, Jitter

ExplainedClass = Literal["label", "prediction", "repredicted"]


def examine_trained(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule,
    checks: tuple[Examined, ...] = EXAMINED,
    *,
    methods: dict[str, Explainer | str] | tuple[str, ...] | None = None,
    num_samples: int = 64,
    similarity: str | None = None,
    preset: Preset = "paper",
    normalizer: Normalizer | None = None,
    shift: float = 1.0,
    target: ExplainedClass = "label",
    alpha: float = 0.05,
    margin: float = MARGIN,
    seed: int = 0,
    batch_size: int = 64,
    precision: Precision = "32-true",
    smooth: int = 0,
    require: list[str] | None = None,
    num_twins: int = 3,
    explained: Output | str | None = None,
    forward: dict[str, Any] | None = None,
    bounds: Any = None,
    make_twin: Callable[[int], tuple[nn.Module, float]] | None = None,
    folder: Path | None = None,
    run: Callable[..., Any] = examine,
    **randomization: Any,
) -> Any:
    """The sanity checks of a trained module, on test samples.

    Args:
        trainer: Whose device, limits and progress bar count.
        model: The module, whose `forward` maps images to logits.
        datamodule: The data; test samples are explained.
        checks: As in `examine`.
        methods: Explainers by name; plain names such as `grad_cam` will do, as will a list of them; null for the
            paper's that the network admits, and AG, NG, FG. Controls are added.
        num_samples: Test samples, evenly spaced.
        similarity: The one that decides, of `spearman`, `spearman_absolute`, `spearman_foreground`, `pearson`,
            `cosine`, `ssim`, `ssim_absolute` and `hog`, all that the images admit being written; null for `ssim`, or
            where that is not admitted `spearman`.
            SSIM hardly sees signs: for `random_logit`, where maps of two classes may be opposite, take `pearson`.
        preset: How SSIM and HOG are computed: as the `paper` says, or as the published `notebook` does.
        normalizer: What scales the maps that SSIM and HOG compare; null for the preset's, `maximum` or `range`.
        shift: Added to the input, in the space of the normalized images.
        target: The class explained: the `label` (where the data have one, else the prediction), the trained
            model's `prediction`, or what each changed model predicts itself.
        alpha: Chance of a wrong PASS, and of a wrong FAIL, where the similarity is at the boundary.
        margin: How far above the floor still counts as at it, as a share of the way from the floor to 1.
        seed: Seed of noise and random weights.
        batch_size: Samples explained at a time.
        precision: Type of the networks while they are examined, whatever the trainer's: `32-true`, or `bf16-mixed`,
            which is faster where the hardware computes in bfloat16. `invariance` is always checked in `32-true`.
        smooth: Average the methods' maps over this many noisy inputs, std 0.1 of the range (smooth MPRT takes 50);
            the controls stay as they are.
        require: Methods that must pass all checks made; or else the exit code is 1.
        num_twins: Networks trained on random labels, of the configuration's seed and the next ones; a verdict takes
            three.
        explained: What is explained of the class, as `output` in AttributionCallback; null for that of the
            configuration's, or the logit.
        forward: Of a module with other arguments or another result than a tensor, as in AttributionCallback; null for
            that of the configuration's.
        bounds: (low, high) of the input elements; null for those of the configuration's AttributionCallback, or what
            the data or the module say.
        make_twin: Gives the network trained on random labels of a number, and its accuracy on them.
        folder: For finished parts; None keeps none.
        run: What is done with the subject: `examine`, whose result is returned, or what takes its arguments.
        randomization: Those of `Randomization`.
    """
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
        check_count(name, value)
    check_count("seed", seed, 0)
    check_level("alpha", alpha)
    check_choice("target", target, ExplainedClass)
    check_choice("precision", precision, Precision)
    how = Randomization(**randomization)
    output = named_output("logit" if explained is None else explained)
    check_forward(forward)
    module = connected(trainer, model, datamodule).eval()
    labelled = target == "label" and output.has_labels
    take = unpacking(labelled, forward=forward)
    samples = stored_samples(datamodule, num_samples, "test", trainer.limit_test_batches, take)
    images, labels = samples.images.to(module.device), samples.labels

    def adapted(module: nn.Module) -> nn.Module:
        return module if forward is None else Forward(module, **{**forward, "carried": samples.carried})

    def adapted_twin(number: int) -> tuple[nn.Module, float]:
        twin, accuracy = make_twin(number)  # type: ignore[misc]
        return adapted(twin), accuracy

    network = adapted(module)
    with in_precision(network, precision), explaining(network):
        classes = resolve_target(network, images, labels if labelled else None, None, output)
    bounds = InputSpace(module, datamodule).bounds if bounds is None else bounds
    chosen = (
        paper_methods(network, bounds is not None, images, output) if methods is None else named("methods", methods)
    )
    subject = Subject(
        network,
        images,
        classes,
        samples.index,
        with_controls(smoothed(chosen, smooth), images.ndim > 2),
        named_similarities(preset, normalizer),
        bounds,
        None if labels is None else labels.to(module.device),
        target == "repredicted",
        seed,
        batch_size,
        precision,
        how,
        output,
    )
    if unknown := [name for name in require or () if name not in subject.methods]:
        near = get_close_matches(unknown[0], subject.methods, n=1)
        raise ValueError(
            f"`require` must name methods that are examined, {', '.join(subject.methods)}; got {unknown}."
            + "".join(f" Did you mean {name!r}?" for name in near)
        )
    return run(
        subject,
        checks,
        similarity,
        make_twin=None if make_twin is None else adapted_twin,
        num_twins=num_twins,
        shift=shift,
        alpha=alpha,
        margin=margin,
        folder=folder,
        progress=trainer.progress_bar_callback is not None,
    )


def shortcuts_trained(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule,
    moment: tuple[int, int] = (-1, 0),
    *,
    stage: Literal["validate", "test"] = "test",
    num_samples: int = 2048,
    mask: bool | str | None = None,
    operators: list[str] | None = None,
    accept: list[str | dict[str, Any]] | str | None = None,
    method: Explainer | str = "gradient",
    alpha: float = 0.05,
    seed: int = 0,
    max_rows: int | None = None,
    precision: Precision = "32-true",
    explained: Output | str = "logit",
    forward: dict[str, Any] | None = None,
    panel_size: int = 6,
) -> tuple[ShortcutReport, list[tuple[Finding, Sequence[Example]]]]:
    """The shortcuts of a trained module, and pictures that show them, before and after.

    Args:
        trainer: Whose device and limits count.
        model: The module, whose `forward` maps images to logits.
        datamodule: The data.
        moment: Epoch and step that the weights are of.
        stage: Whose samples are looked at.
        num_samples: How many, evenly spaced; the more there are, the smaller the effects that can be excluded.
        mask: As in `ShortcutSentinel`, like all that follow.
        operators: Likewise.
        accept: Likewise; or the path of a YAML file with such a list, or one name.
        method: Likewise.
        alpha: Likewise.
        seed: Likewise.
        max_rows: Likewise.
        precision: Likewise.
        explained: What says which class is predicted, as `output` there.
        forward: Likewise; null for that of the configuration's callback.
        panel_size: Pictures of each finding; 0 for none.
    """
    sentinel = ShortcutSentinel(
        num_samples,
        mask=mask,
        operators=operators,
        accept=_listed(accept),
        method=method,
        alpha=alpha,
        seed=seed,
        max_rows=max_rows,
        precision=precision,
        output=explained,
        forward=forward,
        panel_size=panel_size,
    )
    module = connected(trainer, model, datamodule)

    def take(batch: Any) -> Samples:  # which mask it is, some data know once they are set up
        return unpacking("prediction", known_evidence(datamodule, mask)[0], sentinel.forward)(batch)

    limit = trainer.limit_test_batches if stage == "test" else trainer.limit_val_batches
    samples = stored_samples(datamodule, num_samples, stage, limit, take)
    known = known_evidence(datamodule, mask)[1]
    samples = replace(samples, images=samples.images.to(module.device), masks=samples.masks if known else None)
    report = sentinel.search(module, datamodule, samples, stage, moment)
    return report, sentinel.examples(module, datamodule, samples, report)


def _listed(accept: list[str | dict[str, Any]] | str | None) -> list[str | dict[str, Any]] | None:
    if not isinstance(accept, str):
        return accept
    found = yaml.safe_load(Path(accept).read_text(encoding="utf-8")) if Path(accept).is_file() else [accept]
    if not isinstance(found, list):
        raise ValueError(f"`accept`: {accept} must have a list of names or mappings, got {type(found).__name__}.")
    return found


def random_label_twin(
    config: dict[str, Any], epochs: int, folder: Path, device: torch.device, number: int
) -> tuple[nn.Module, float]:
    """A network trained as the configuration says, but on random labels, and its accuracy on these; it is kept.

    The labels are the same for all numbers: the seed of the configuration makes them through the data. The first
    weights and the order of the batches are those of the number.
    """
    seed = config["seed_everything"]
    config = {**config, "seed_everything": number + (seed if isinstance(seed, int) else 0)}
    twin = trained({**config, "trainer": {**config["trainer"], "max_epochs": epochs}}, folder, by_heart=True)
    return twin.model.to(device), twin.accuracy


def calibrate_trained(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule,
    *,
    drop: float = 0.05,
    num_draws: int = 10,
    num_samples: int = 1000,
    tolerance: float = 0.01,
    maximum: float = 2.0,
    chance: float | None = None,
    seed: int = 0,
    max_rows: int | None = None,
    explained: Output | str = "logit",
) -> NoiseLevel:
    """The weight noise that costs a trained module a share of its accuracy on validation samples.

    Args:
        trainer: Whose device, precision, limits and progress bar count.
        model: The module, whose `forward` maps images to logits.
        datamodule: The data; accuracy is measured on validation samples.
        drop: Relative accuracy drop, 1 - (accuracy - chance) / (clean accuracy - chance).
        num_draws: Noisy networks at each level.
        num_samples: Validation samples, evenly spaced.
        tolerance: Width of the bracket in which the level is interpolated.
        maximum: The most noise tried.
        chance: Accuracy that counts as nothing left; null for one over the number of classes.
        seed: Seed of the noise; the same as the callback's makes the same noise.
        max_rows: Rows that pass through the network at once; null for as many as fit in memory.
        explained: What says which class is predicted, as `output` in AttributionCallback.
    """
    check_count("num_samples", num_samples)
    check_settings(drop, num_draws, tolerance, maximum, chance, seed)
    check_count("max_rows", 1 if max_rows is None else max_rows)
    model = connected(trainer, model, datamodule)
    samples = stored_samples(datamodule, num_samples, "validate", trainer.limit_val_batches)
    if samples.labels is None:
        raise ValueError(f"`data`: {type(datamodule).__name__} gives no labels, which accuracy needs.")
    with trainer.precision_plugin.forward_context():
        return find_noise_level(
            model,
            samples.images.to(model.device),
            samples.labels,
            chance=chance,
            drop=drop,
            num_draws=num_draws,
            tolerance=tolerance,
            maximum=maximum,
            seed=seed,
            max_rows=max_rows,
            progress=trainer.progress_bar_callback is not None,
            output=explained,
        )


def visualize_trained(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule,
    *,
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
) -> Reproduction:
    """Images that a class, a channel or a unit of a module answers to most, plain and with NoiseGrad.

    Args:
        trainer: Whose device, precision and progress bar count.
        model: The module, whose `forward` maps images to logits.
        datamodule: The data, for shape and bounds of an image and the names of the classes; none are read.
        target: Class or classes whose logit is maximized.
        layer: Name of a module, or the end of one such name, instead of `target`.
        channel: Channel or channels of the layer.
        unit: Maximize the channel's activation at the middle place only, instead of its mean over all places.
        weight_noise: Multiplicative noise of NoiseGrad, relative to each weight; 0 for plain images only.
        num_models: Noisy networks whose mean activation is maximized.
        redraw: Draw them again in each step.
        steps: Number of Adam steps.
        lr: Learning rate of Adam.
        jitter: Random views of the image, a new one in each step.
        num_starts: Images of each class or channel, which differ in seed.
        num_fresh: Noisy networks that the finished images are shown to.
        models_per_pass: Noisy networks that are computed at once, by `torch.vmap`; null for as many as weigh 16
            MiB. A network that vmap does not admit takes 1.
        seed: Seed of starts, views and weight noise.
    """
    activation = _activation(target, layer, channel, unit)
    check_count("num_models", num_models)
    check_count("steps", steps)
    check_count("models_per_pass", 1 if models_per_pass is None else models_per_pass)
    check_positive("lr", lr)
    space = InputSpace(model, datamodule)
    shape, bounds = space.shape, parse_bounds(space.bounds)
    if shape is None or bounds is None:
        raise ValueError(
            f"`data`: {type(datamodule).__name__} must have `image_shape`, (channels, height, width), and `bounds`, "
            "what black and white are in the space of its normalized images."
        )
    names = named_channels(activation.channels, space.class_names if layer is None else None)
    noise, progress = PerturbWeights(std=weight_noise, num_draws=num_models), trainer.progress_bar_callback is not None
    setting = Setting(
        activation,
        names,
        shape,  # type: ignore[arg-type]  # three numbers
        bounds,
        noise,
        redraws=(redraw,),
        num_starts=num_starts,
        steps=steps,
        lr=lr,
        jitter=jitter,
        models_per_pass=models_per_pass,
        num_fresh=num_fresh,
        seed=seed,
        progress=progress,
    )
    with trainer.precision_plugin.forward_context():
        found = portraits(connected(trainer, model, datamodule), setting)
    source = f"Activation maximization, {type(getattr(model, 'network', model)).__name__}"
    return visualization_result(found, setting, source, {})


def connected(trainer: Trainer, model: LightningModule, datamodule: LightningDataModule) -> LightningModule:
    """The module on the trainer's device; as before a run, data modules of pictures can ask which network it is."""
    trainer.strategy.connect(model)
    datamodule.trainer = trainer
    return model.to(trainer.strategy.root_device)


def stored_samples(
    datamodule: LightningDataModule,
    num_samples: int,
    stage: Literal["validate", "test"],
    limit: int | float = 1.0,
    take: Callable[[Any], Samples] = unpack,
) -> Samples:
    """Samples, evenly spaced over the rows that the loader can yield; each has its row where batches do not say.

    Args:
        datamodule: Whose first dataloader of the stage is asked.
        num_samples: All if there are fewer.
        stage: Whose dataloader is asked.
        limit: The trainer's of the stage's batches (see `reachable_rows`).
        take: Makes samples of a batch.
    """
    source = Source.of(datamodule, take, num_samples, stage, limit, num_samples)
    if not source.keys:
        raise ValueError(f"`data`: {type(datamodule).__name__} gives no samples to {stage} with.")
    return source.first(num_samples)


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
