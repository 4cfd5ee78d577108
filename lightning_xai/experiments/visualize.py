"""Global explanations without and with NoiseGrad: images, what noisy networks make of them, and what they cost."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from lightning_xai.explainers import PerturbWeights
from lightning_xai.explainers.base import check_count
from lightning_xai.functional.random import fold_in_int
from lightning_xai.reporting.charts import Curve, CurveAxes, curves_figure
from lightning_xai.reporting.pictures import gallery_figure, shown
from lightning_xai.results.files import replacing
from lightning_xai.results.reproduction import Reproduction
from lightning_xai.results.tables import ResultTable
from lightning_xai.shapes import Images, Scores
from lightning_xai.statistics.means import mean_and_error
from lightning_xai.statistics.paired import paired_test
from lightning_xai.visualization import Activation, Jitter, answers, visualize

PLAIN, FIXED, REDRAWN = "plain", "NoiseGrad, fixed", "NoiseGrad, redrawn"
LONG = "plain, as many gradients"
CLEAN, FRESH = "activation, clean network", "activation, fresh noisy networks"
VARIATION, HIGH, COLORFULNESS = "total variation", "high frequencies", "colorfulness"
AGREEMENT = "agreement of starts"
NOTES = (
    "Mean ± standard error over the images, looked at without jitter. Fresh: noisy networks that no image was made for;"
    " the same for all methods. Total variation: mean absolute difference of neighboring pixels, which are from 0 to "
    "1. High frequencies: share of the variance at more than a quarter wave a pixel. Colorfulness: of Hasler and "
    "Süsstrunk (2003).",
    "Agreement of starts: mean correlation of the pixels of two images that differ in seed only.",
)
MAX_SHOWN = 10


@dataclass(frozen=True)
class Setting:
    """What images are made of, and how.

    Attributes:
        activation: What is maximized.
        names: Names of its channels.
        image_shape: Shape of an input.
        bounds: Black and white in the network's space.
        noise: Weight noise of the noisy networks; also of those that judge.
        redraws: For each method with noise, whether the networks are drawn again in each step.
        num_starts: Images of each channel, with a seed each.
        steps: Number of Adam steps.
        lr: Learning rate of Adam.
        jitter: Random views.
        models_per_pass: Noisy networks that are computed at once.
        num_fresh: Noisy networks that judge.
        seed: Seed of everything.
        progress: Whether to show progress bars.
        equal_cost: Whether one more method is plain with so many more steps that it spends the gradients of those with
            noise.
    """

    activation: Activation
    names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    bounds: tuple[Tensor, Tensor]
    noise: PerturbWeights
    redraws: tuple[bool, ...] = (False,)
    num_starts: int = 1
    steps: int = 200
    lr: float = 0.05
    jitter: Jitter = Jitter()
    models_per_pass: int | None = None
    num_fresh: int = 20
    seed: int = 0
    progress: bool = False
    equal_cost: bool = False

    def methods(self) -> dict[str, tuple[PerturbWeights | None, bool, int]]:
        """By name: the noise, whether it is drawn again in each step, and the number of steps."""
        methods: dict[str, tuple[PerturbWeights | None, bool, int]] = {PLAIN: (None, False, self.steps)}
        if self.noise.std:
            if self.equal_cost:
                methods[LONG] = (None, False, self.noise.num_draws * self.steps)
            methods |= {REDRAWN if redraw else FIXED: (self.noise, redraw, self.steps) for redraw in self.redraws}
        return methods

    @property
    def what(self) -> str:
        """In words."""
        return "logit" if self.activation.layer is None else f"activation of {self.activation.layer}"


@dataclass(frozen=True)
class Portraits:
    """The images of one method.

    Attributes:
        images: (start, channel of the activation, color, height, width), pixels from 0 to 1.
        trace: (start, step, channel) activation in each step.
        scores: (start, channel) by metric.
        seconds: Wall time of all images.
    """

    images: Float[Tensor, " start channel color height width"]
    trace: Float[Tensor, " start step channel"]
    scores: Mapping[str, Float[Tensor, " start channel"]]
    seconds: float


def named_channels(channels: Sequence[int], names: Sequence[str] | None) -> tuple[str, ...]:
    """Classes by name and number; the number alone where there is no name, or where it is the name."""
    known = [str(names[n]) if names is not None and n < len(names) else str(n) for n in channels]
    return tuple(name if name == str(n) else f"{name} ({n})" for n, name in zip(channels, known, strict=True))


def portraits(model: nn.Module, setting: Setting) -> dict[str, Portraits]:
    """The images of all methods; they start alike."""
    check_count("num_starts", setting.num_starts)
    check_count("num_fresh", setting.num_fresh)
    _make(model, setting, None, False, setting.seed, steps=1)  # the first pass of a network is slower
    return {name: _portraits(model, setting, *method) for name, method in setting.methods().items()}


def _portraits(model: nn.Module, setting: Setting, noise: PerturbWeights | None, redraw: bool, steps: int) -> Portraits:
    began = perf_counter()
    seeds = range(setting.seed, setting.seed + setting.num_starts)
    found = [_make(model, setting, noise, redraw, seed, steps) for seed in seeds]
    seconds = perf_counter() - began
    scores = [_scores(model, setting, one.images) for one in found]
    images, trace = (torch.stack([getattr(one, name).cpu() for one in found]) for name in ("images", "trace"))
    return Portraits(images, trace, {m: torch.stack([each[m] for each in scores]) for m in scores[0]}, seconds)


def _make(model: nn.Module, setting: Setting, noise: PerturbWeights | None, redraw: bool, seed: int, steps: int) -> Any:
    return visualize(
        model,
        setting.activation,
        setting.image_shape,
        setting.bounds,
        noise,
        redraw,
        steps,
        setting.lr,
        setting.jitter,
        setting.models_per_pass,
        seed,
        setting.progress,
    )


def _scores(model: nn.Module, setting: Setting, images: Images) -> dict[str, Scores]:
    judges = replace(setting.noise, num_draws=setting.num_fresh)
    scores = {CLEAN: answers(model, setting.activation, images, setting.bounds)[0]}
    if setting.noise.std:
        drawn = answers(model, setting.activation, images, setting.bounds, judges, fold_in_int(setting.seed, -1))
        scores[FRESH] = drawn.mean(0)
    scores |= {VARIATION: total_variation(images), HIGH: high_frequencies(images)}
    scores |= {COLORFULNESS: colorfulness(images)} if images.shape[1] == 3 else {}
    return {name: values.cpu() for name, values in scores.items()}


def total_variation(images: Images) -> Scores:
    """Mean absolute difference of pixels that are neighbors in a row or a column."""
    down, right = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    number = down[0].numel() + right[0].numel()
    return (down.flatten(1).sum(1) + right.flatten(1).sum(1)) / number


def high_frequencies(images: Images, frequency: float = 0.25) -> Scores:
    """Share of the variance at frequencies above this one, in waves a pixel; NaN for an even image."""
    height, width = images.shape[2:]
    power = torch.fft.fft2(images - images.mean((2, 3), keepdim=True)).abs().square()
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)
    high = (down.square() + across.square()).sqrt().to(power) > frequency
    return (power * high).flatten(1).sum(1) / power.flatten(1).sum(1)


def colorfulness(images: Images) -> Scores:
    """How far colors are from gray and from each other (Hasler, Süsstrunk 2003), for pixels from 0 to 1."""
    red, green, blue = images.flatten(2).unbind(1)
    opponent = torch.stack([red - green, (red + green) / 2 - blue])
    return opponent.var(2, correction=0).sum(0).sqrt() + 0.3 * opponent.mean(2).square().sum(0).sqrt()


def agreement(images: Float[Tensor, " start channel color height width"]) -> Float[Tensor, " channel"]:
    """Correlation of the pixels of two starts, colors averaged, mean over the pairs; NaN for a single start."""
    pixels = images.mean(2).flatten(2)
    centered = pixels - pixels.mean(2, keepdim=True)
    scaled = centered / centered.norm(dim=2, keepdim=True)
    pairs = [(scaled[i] * scaled[j]).sum(1) for i, j in itertools.combinations(range(len(images)), 2)]
    return torch.stack(pairs).mean(0) if pairs else torch.full((images.shape[1],), torch.nan)


# The result


def visualization_result(
    found: Mapping[str, Portraits],
    setting: Setting,
    source: str,
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Reproduction:
    """Table, records and sentences."""
    scores = {name: _all_scores(part) for name, part in found.items()}
    made = {"what": setting.what, "channels": list(setting.activation.channels), "center": setting.activation.center}
    made |= {"weight_noise": setting.noise.std, "num_models": setting.noise.num_draws, "steps": setting.steps}
    made |= {"lr": setting.lr, "degrees": setting.jitter.degrees, "scales": list(setting.jitter.scales)}
    made |= {"shift": setting.jitter.shift, "num_starts": setting.num_starts, "num_fresh": setting.num_fresh}
    return Reproduction(
        source,
        (_table(found, scores, setting, notes),),
        {"scores": _score_records(scores, setting), "trace": _trace_records(found, setting)},
        {f"images {name}": part.images.numpy() for name, part in found.items()},
        {**settings, **made, "seed": setting.seed, "seconds": {name: part.seconds for name, part in found.items()}},
        tuple(_findings(found, scores, setting)),
        details={"found": found, "names": setting.names, "what": setting.what},
    )


def _all_scores(part: Portraits) -> dict[str, np.ndarray]:
    """The scores of all images, by metric; of the agreement, one a channel."""
    scores = {metric: values.flatten().double().numpy() for metric, values in part.scores.items()}
    return scores | ({AGREEMENT: agreement(part.images).double().numpy()} if len(part.images) > 1 else {})


def _table(
    found: Mapping[str, Portraits],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    setting: Setting,
    notes: Sequence[str],
) -> ResultTable:
    rows = [
        (name, *(mean_and_error(v, 3) for v in scores[name].values()), f"{part.seconds:.1f}", _slower(found, name))
        for name, part in found.items()
    ]
    metrics = list(scores[PLAIN])
    title = (
        f"Images that maximize the {setting.what}: {setting.noise.num_draws} noisy networks, std {setting.noise.std:g}"
    )
    columns = ("method", *metrics, "seconds", "times plain")
    return ResultTable(title, columns, tuple(rows), (*NOTES[: 1 + (AGREEMENT in metrics)], *notes))


def _slower(found: Mapping[str, Portraits], name: str) -> str:
    return f"{found[name].seconds / found[PLAIN].seconds:.1f}"


def _score_records(scores: Mapping[str, Mapping[str, np.ndarray]], setting: Setting) -> list[dict[str, Any]]:
    count = len(setting.names)
    return [
        {
            "method": name,
            "metric": metric,
            "image": setting.names[n % count],
            "start": n // count,
            "value": float(value),
        }
        for name, metrics in scores.items()
        for metric, values in metrics.items()
        for n, value in enumerate(values)
    ]


def _trace_records(found: Mapping[str, Portraits], setting: Setting) -> list[dict[str, Any]]:
    return [
        {"method": name, "image": image, "start": start, "step": step + 1, "activation": float(value)}
        for name, part in found.items()
        for start, trace in enumerate(part.trace)
        for image, values in zip(setting.names, trace.T, strict=True)
        for step, value in enumerate(values)
    ]


def _findings(
    found: Mapping[str, Portraits], scores: Mapping[str, Mapping[str, np.ndarray]], setting: Setting
) -> list[str]:
    lines = []
    for name, metrics in scores.items():
        if name == PLAIN:
            continue
        lines += [f"{name}: {_against(metrics[m], scores[PLAIN][m], m)}" for m in metrics]
        if name == LONG:
            lines.append(f"{name}: {found[name].trace.shape[1]} steps take {_slower(found, name)} times as long.")
            continue
        lines.append(f"{name}: {setting.noise.num_draws} networks take {_slower(found, name)} times as long as one.")
        if LONG in scores:
            lines += [f"{name}, against {LONG}: {_against(metrics[m], scores[LONG][m], m)}" for m in (CLEAN, FRESH)]
    return lines


def _against(values: np.ndarray, others: np.ndarray, metric: str) -> str:
    defined = np.isfinite(values) & np.isfinite(others)
    differences = values[defined] - others[defined]
    p_value, _ = paired_test(values[defined].astype(float), others[defined].astype(float))
    return (
        f"{metric} {np.nanmean(values):.4g} against {np.nanmean(others):.4g}, higher in {int((differences > 0).sum())} "
        f"of {len(differences)} (Wilcoxon p = {p_value:.2g})."
    )


def visualization_figures(result: Reproduction, name: str) -> dict[str, Figure]:
    """The images of the first start, and how the activation of all rose."""
    found, names, what = (result.details[part] for part in ("found", "names", "what"))
    judged = FRESH if FRESH in found[PLAIN].scores else CLEAN
    captions = {method: [f"{score:.3g}" for score in part.scores[judged][0]] for method, part in found.items()}
    pictures = {method: part.images[0, :MAX_SHOWN].numpy() for method, part in found.items()}
    noted = [f"Below each image: {judged} ({what})."]
    if len(names) > MAX_SHOWN:
        noted.append(f"The first {MAX_SHOWN} of {len(names)}.")
    rises = ["Of the networks and in the view of each step; with NoiseGrad the mean over the noisy networks."]
    means = {method: part.trace.double().mean((0, 2)).numpy() for method, part in found.items()}
    curves = [Curve(method, (np.arange(1, len(mean) + 1), mean)) for method, mean in means.items()]
    axes = CurveAxes("", "step", f"{what}, mean over the images", curves)
    return {
        name: gallery_figure(pictures, captions, names[:MAX_SHOWN], f"What maximizes the {what}", noted),
        f"{name}-trace": curves_figure(f"How the {what} rises while the images are made", [axes], rises),
    }


def write_pictures(result: Reproduction, folder: Path) -> list[Path]:
    """A PNG of each image, pixel by pixel; the paths written."""
    written = []
    for key, images in result.arrays.items():
        method = key.removeprefix("images ").replace(", ", "-").lower()
        for start, (channel, image) in itertools.product(range(len(images)), enumerate(result.settings["channels"])):
            suffix = f"-{start}" if len(images) > 1 else ""
            written.append(folder / method / f"{image}{suffix}.png")
            with replacing(written[-1]) as temporary:
                picture = (shown(images[start, channel]) * 255).round().astype(np.uint8)
                Image.fromarray(picture).save(temporary, format="PNG")
    return written
