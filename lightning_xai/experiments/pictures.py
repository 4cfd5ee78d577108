"""Explain pictures from files, batch by batch: what `lightning-xai explain` does."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lightning_xai._version import __version__
from lightning_xai.data.input_space import InputSpace
from lightning_xai.data.pictures import (
    BACKGROUND,
    RefusedPicture,
    content_digest,
    find_pictures,
    printable,
    read_picture,
)
from lightning_xai.evaluation import evaluate
from lightning_xai.explainers import Explainer
from lightning_xai.explainers.base import check_count, check_rows, check_target, explaining
from lightning_xai.explainers.chunks import in_chunks
from lightning_xai.explainers.conditions import Conditions
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.fingerprints import fingerprint
from lightning_xai.metrics import Sparseness
from lightning_xai.outputs import Logit, Output
from lightning_xai.progress import progress_bar
from lightning_xai.reporting.explanations import (
    EXPLANATIONS,
    PANELS,
    ExplainedClass,
    Explanation,
    ExplanationFolder,
    sample_index,
)
from lightning_xai.reporting.folders import check_folder
from lightning_xai.shapes import Inputs, Labels, Logits

_DESCRIBED = ("image_shape", "image_size", "resize_size", "interpolation", "squash", "mean", "std")


@dataclass(frozen=True)
class Preparation:
    """How pictures become inputs of a network, and what its outputs are called.

    Attributes:
        preprocess: An RGB picture -> (channel, height, width), normalized.
        bounds: (low, high) of an input element; None if unknown.
        class_names: Class names of the outputs; None if they have none.
        settings: The preprocessing in words and numbers.
    """

    preprocess: Callable[[Image.Image], Tensor]
    bounds: Any
    class_names: Sequence[str] | None
    settings: Mapping[str, str]

    @classmethod
    def of(cls, model: Any, data: Any = None) -> "Preparation":
        """The data module's preprocessing, as in training; where it has none, the model's.

        Raises:
            ValueError: if neither has a method `preprocess`.
        """
        space = InputSpace(model, data)
        if (owner := space.preparer) is None:
            having = "the configuration has no `data`" if data is None else f"neither has {type(data).__name__}"
            raise ValueError(
                f"`model`: {type(model).__name__} does not say how a picture becomes an input, and {having}. Name a "
                "module with a method `preprocess`, which makes a normalized tensor (channel, height, width) of a "
                "picture, such as lightning_xai.modules.PretrainedClassifier, or the data module that the network was "
                "trained with, such as lightning_xai.data.MNISTDataModule."
            )
        return cls(owner.preprocess, InputSpace(owner).bounds, space.class_names, _described(owner))

    def inputs(self, picture: Image.Image) -> Tensor:
        """The input that a picture makes.

        Raises:
            TypeError: if what `preprocess` makes is none.
        """
        inputs = self.preprocess(picture)
        if not isinstance(inputs, Tensor) or inputs.ndim != 3 or not inputs.is_floating_point():
            made = f"a tensor {tuple(inputs.shape)} of {inputs.dtype}" if isinstance(inputs, Tensor) else repr(inputs)
            raise TypeError(
                f"`preprocess` of {self.settings['by']} must make a floating-point tensor (channel, height, width) of "
                f"a PIL picture in mode RGB, got {made:.100}."
            )
        return inputs

    def target(self, target: int | str | None) -> int | None:
        """The index of a class given by its name or its index; upper and lower case do not matter.

        Raises:
            ValueError: if there is no such class, or several have the name.
        """
        if target is None:
            return None
        names = [name.casefold() for name in self.class_names or []]
        wanted = str(target).casefold()
        places = [place for place, name in enumerate(names) if name == wanted]
        if len(places) > 1:
            several = ", ".join(map(str, places))
            raise ValueError(f"`target`: the classes {several} are called {target!r}; give the index.")
        if not places and not wanted.isdecimal():
            similar = get_close_matches(wanted, names) or names[:5]
            known = f"a name such as {', '.join(map(repr, similar))}, or an index" if names else "an index"
            raise ValueError(f"`target` must be a class of the network, {known}; got {target!r}.")
        return places[0] if places else int(wanted)

    def explained(self, index: Tensor, probabilities: Tensor) -> ExplainedClass:
        """A class of one picture."""
        place = int(index)
        name = self.class_names[place] if self.class_names and place < len(self.class_names) else str(place)
        return ExplainedClass(place, name, float(probabilities[place]))


@dataclass(frozen=True)
class Explained:
    """What became of the pictures.

    Attributes:
        folder: With the results.
        now: Pictures explained in this call.
        before: Pictures that had been explained earlier.
        refused: Why, by name.
        repeated: Of pictures that were given more than once, or under several names, the name before; by name.
        passed_over: Files of folders whose suffix is none of a picture.
    """

    folder: ExplanationFolder
    now: int
    before: int
    refused: Mapping[str, str]
    repeated: Mapping[str, str] = field(default_factory=dict)
    passed_over: Sequence[str] = ()


def explain_pictures(
    model: nn.Module,
    pictures: Iterable[str | Path],
    preparation: Preparation,
    methods: Mapping[str, Explainer],
    folder: str | Path,
    *,
    target: int | str | None = None,
    output: Output = Logit(),
    seed: int = 0,
    batch_size: int = 16,
    max_rows: int | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "32-true",
    panels: bool = True,
    progress: bool = False,
    shard: tuple[int, int] = (1, 1),
) -> Explained:
    """Explain pictures and write what was found, batch after batch; what cannot be read is refused by name.

    Noise depends on the seed and on the file's content: a picture's maps are the same in any company, order, folder and
    batch size. Pictures that the folder has from an earlier call are not explained again.

    Args:
        model: Maps inputs to logits.
        pictures: Files, and folders of them.
        preparation: See `Preparation`.
        methods: Explainers by name.
        folder: For the results.
        target: Class to explain, its name or index; None for the predicted one.
        output: What is explained of it.
        seed: Seed of the noise.
        batch_size: Pictures explained at a time.
        max_rows: Rows that pass through the network at once; None for as many as fit in memory.
        device: That the network runs on. CPUs and GPUs draw different noise.
        precision: Precision of the network; see `in_precision`.
        panels: Whether to draw a panel of each picture.
        progress: Whether to show a progress bar.
        shard: (k, n) with k from 1 to n: of all pictures, by their place, every n-th from the k-th on. Processes with
            different ones may work at once, in one folder; a later call may part the pictures otherwise.

    Raises:
        ValueError: if an argument is wrong, or the folder has results of other settings.
    """
    check_count("batch_size", batch_size)
    conditions = Conditions(preparation.bounds, seed, max_rows, output, precision)
    check_count("seed", seed, 0)
    check_folder("output", folder)
    if not methods:
        raise ValueError("`methods` must name at least one explainer.")
    pictures, device = list(pictures), torch.device(device)
    chosen = preparation.target(target)
    settings = {
        "methods": {name: repr(method) for name, method in methods.items()},
        "explained": "the predicted class" if chosen is None else f"class {chosen}",
        **({} if output == Logit() else {"output": repr(output)}),
        "seed": seed,
        "preprocessing": {**preparation.settings, "background": BACKGROUND},
        "model": type(model).__name__,
        "weights": fingerprint(model),
        "device": device.type,
        "precision": precision,
        "lightning_xai": __version__,
        "torch": torch.__version__,
    }
    results = ExplanationFolder(folder, settings, preparation.bounds, panels, shard)
    queue = _Queue(pictures, preparation, results, progress)
    model, now = model.to(device), 0
    for batch in _batches(iter(queue), batch_size):
        results.add(_explain_batch(model, batch, preparation, methods, chosen, conditions, device))
        now += len(batch)
    passed_over = tuple(dict.fromkeys(map(printable, queue.passed_over)))
    return Explained(results, now, queue.before, queue.refused, queue.repeated, passed_over)


@dataclass(frozen=True)
class _Waiting:
    """A picture that is going to be explained."""

    picture: str
    sha256: str
    size: tuple[int, int]
    inputs: Tensor


@dataclass
class _Queue:
    """Reads one picture after the other, and notes which are refused or have been explained."""

    pictures: Sequence[str | Path]
    preparation: Preparation
    results: ExplanationFolder
    progress: bool
    before: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)
    passed_over: list[Path] = field(default_factory=list)

    def __iter__(self) -> Iterator[_Waiting]:
        def find(passed_over: list[Path] | None = None) -> Iterator[Path]:
            return find_pictures(self.pictures, (EXPLANATIONS, PANELS), passed_over)

        k, n = self.results.shard
        total = sum(1 for _ in find()) // n if self.progress else None
        known: dict[str, str] = {}  # the first name of each content
        places: dict[str, int] = {}
        seen: set[str] = set()
        for path in progress_bar("explaining", total, "picture", self.progress, find(self.passed_over)):
            picture = printable(path)
            if places.setdefault(picture, len(places)) % n != k - 1:
                continue
            try:
                sha256 = content_digest(path)
                if (first := known.setdefault(sha256, picture)) != picture or picture in seen:
                    self.repeated[picture] = first
                if picture in seen:
                    continue
                seen.add(picture)
                if self.results.has(picture, sha256):
                    self.before += 1
                    continue
                image = read_picture(path)
                yield _Waiting(picture, sha256, image.size, self.preparation.inputs(image))
            except RefusedPicture as error:
                self.refused[picture] = str(error)


def _explain_batch(
    model: nn.Module,
    batch: Sequence[_Waiting],
    preparation: Preparation,
    methods: Mapping[str, Explainer],
    target: int | None,
    conditions: Conditions,
    device: torch.device,
) -> list[Explanation]:
    images = torch.stack([waiting.inputs for waiting in batch]).to(device)
    index = torch.tensor([sample_index(waiting.sha256) for waiting in batch])
    scores, predicted = _read(model, images, conditions)
    explained = predicted if target is None else torch.full_like(predicted, target)
    check_target(explained, scores.shape[1])
    evaluation = evaluate(
        model,
        images,
        explained,
        methods,
        {"sparseness": Sparseness()},
        index=index,
        batch_size=len(batch),
        keep_attributions=len(batch),
        **vars(conditions),
    )
    place = {sample: row for row, sample in enumerate(evaluation.index.tolist())}
    return [
        Explanation(
            waiting.picture,
            waiting.sha256,
            waiting.size,
            waiting.inputs,
            preparation.explained(predicted[row], scores[row]),
            preparation.explained(explained[row], scores[row]),
            {method: maps[row] for method, maps in evaluation.attributions.items()},
            {
                f"{method}/{metric}": float(values[place[int(index[row])]])
                for method, metrics in evaluation.scores.items()
                for metric, values in metrics.items()
            },
        )
        for row, waiting in enumerate(batch)
    ]


def probabilities(
    model: nn.Module, images: Inputs, precision: Precision = "32-true", max_rows: int | None = None
) -> Logits:
    """Of the classes, (batch, classes), by the network in evaluation mode; of a single logit both classes."""
    return _read(model, images, Conditions(max_rows=max_rows, precision=precision))[0]


def _read(model: nn.Module, images: Inputs, conditions: Conditions) -> tuple[Logits, Labels]:
    """The probability of each target, NaN where the output has none, and the predicted ones."""
    output, most = conditions.output, conditions.max_rows
    with in_precision(model, conditions.precision), explaining(model), torch.no_grad():
        raw = in_chunks(lambda rows: check_rows(model(rows), len(rows)), model, most, images).float()
    columns = output.scores(raw)
    try:
        return output.probabilities(raw), output.prediction(raw)
    except ValueError:  # it has none
        return torch.full_like(columns, torch.nan), output.prediction(raw)


def _batches(waiting: Iterator[_Waiting], size: int) -> Iterator[list[_Waiting]]:
    while batch := list(islice(waiting, size)):
        yield batch


def _described(owner: Any) -> dict[str, str]:
    """What is known of a preprocessing."""
    parts = [owner, *(getattr(owner, name) for name in ("normalize", "preprocessing") if hasattr(owner, name))]
    known = {name: getattr(part, name) for name in _DESCRIBED for part in parts if hasattr(part, name)}
    plain = {name: value.flatten().tolist() if isinstance(value, Tensor) else value for name, value in known.items()}
    told = {name: str(value) for name, value in plain.items() if value not in (None, False)}
    return {"by": type(owner).__name__, **told}
